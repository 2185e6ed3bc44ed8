"""Tests in virtual time: when no task has anything to do, time jumps to the next timer.

    @in_virtual_time
    async def test_silence_is_given_up_after_its_time() -> None: ...

A limit of a minute then costs nothing, and a machine that stands still for seconds makes none of them end: what such a
test says about time is exact. For tests without sockets, processes and threads: this loop has none.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Final, ParamSpec

from tests.simulation.virtual_loop import Reactor, new_loop
from tests.support.endings import end_all

P = ParamSpec("P")

HOUR_S: Final = 3_600.0
"""Time after which a test hangs."""


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """The test on a loop of its own, where nothing but its own waits lets time pass."""

    async def whole(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            await test(*args, **kwargs)
        finally:
            await end_all()

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        reactor, errors = Reactor(), list[str]()
        loop = new_loop(reactor, test.__name__, errors.append)
        task = loop.create_task(whole(*args, **kwargs))
        reactor.run(until_s=HOUR_S, done=task.done)
        left = [each for each in asyncio.all_tasks(loop) if each is not task]
        loop.kill()
        assert task.done(), "it hangs"
        task.result()
        assert not errors, errors
        assert not left, f"tasks outlive the test: {left}"

    return run
