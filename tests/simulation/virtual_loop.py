"""Virtual time for several event loops at once: when no loop has work, time jumps to the next timer.

Every node has an event loop of its own, and all of them share one reactor. This makes the two hardest faults plain:
- a *pause* (a garbage collector, a stopped virtual machine): the node's callbacks are parked, and all of them run late
  when it wakes up, in the order in which they came due: a zombie;
- a *death*: nothing of the node runs again. Its tasks are then cancelled only so that Python has nothing to complain
  about; its connections have been cut before, so that no clean-up code of it has any effect.

Nothing here is threaded, and nothing depends on addresses or string hashes: tasks hash by the order of their birth,
because asyncio keeps them in sets and cancels them in the order of the set.
"""

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from enum import Enum, auto
from itertools import count
from typing import Any, Final

STEPS_MAX: Final = 3_000_000
"""Callbacks of one run; more is a loop that never ends."""


class Runaway(Exception):
    """The run does not come to rest."""


class Power(Enum):
    """The rights of a loop's callbacks."""

    RUNNING = auto()
    FROZEN = auto()
    DEAD = auto()


@dataclass(slots=True, eq=False)
class Handle:
    """One callback that is to run; what asyncio wants of `asyncio.Handle` and `asyncio.TimerHandle`."""

    loop: "VirtualLoop | None"
    when_s: float
    callback: Callable[..., object]
    args: tuple[Any, ...]
    context: Context | None
    live: bool = True

    def cancel(self) -> None:
        self.live = False

    def cancelled(self) -> bool:
        return not self.live

    def when(self) -> float:
        return self.when_s

    def run(self) -> None:
        if self.context is None:
            self.callback(*self.args)
        else:
            self.context.run(self.callback, *self.args)


class Reactor:
    """The one time of a run, and everything that is to happen in it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.steps = 0
        self.task_numbers = count(1)
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._order = count()

    def at(self, when_s: float, callback: Callable[..., object], *args: Any) -> Handle:
        """Something in the world happens at that time; no loop is running then."""
        return self.schedule(None, when_s, callback, args, None)

    def after(self, delay_s: float, callback: Callable[..., object], *args: Any) -> Handle:
        return self.schedule(None, self.now_s + delay_s, callback, args, None)

    def schedule(
        self,
        loop: "VirtualLoop | None",
        when_s: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
    ) -> Handle:
        handle = Handle(loop, when_s, callback, args, context)
        heapq.heappush(self._timers, (when_s, next(self._order), handle))
        return handle

    def soon(self, handle: Handle) -> None:
        self._ready.append(handle)

    def run(self, *, until_s: float, done: Callable[[], bool] | None = None) -> None:
        """Runs until that time, or until `done()` after some step of time."""
        try:
            while True:
                self._run_ready()
                if done is not None and done():
                    return
                if not self._timers or self._timers[0][0] > until_s:
                    self.now_s = until_s
                    return
                self._advance()
        finally:
            events._set_running_loop(None)

    def _advance(self) -> None:
        timers = self._timers
        self.now_s = max(self.now_s, timers[0][0])
        while timers and timers[0][0] <= self.now_s:
            handle = heapq.heappop(timers)[2]
            if handle.live:
                self._ready.append(handle)

    def _run_ready(self) -> None:
        ready = self._ready
        running: VirtualLoop | None = None
        events._set_running_loop(None)
        while ready:
            handle = ready.popleft()
            if not handle.live:
                continue
            loop = handle.loop
            if loop is not None and loop.power is not Power.RUNNING:
                loop.park(handle)
                continue
            if loop is not running:
                events._set_running_loop(loop)
                running = loop
            self.steps += 1
            handle.run()
        events._set_running_loop(None)
        if self.steps > STEPS_MAX:
            raise Runaway(f"{self.steps} steps")


class VirtualTask(asyncio.Task[Any]):
    """A task that hashes by the order of its birth within the run."""

    def __new__(cls, coro: Coroutine[Any, Any, Any], *, loop: "VirtualLoop", name: str | None = None) -> "VirtualTask":
        task = super().__new__(cls)
        task.number = next(loop.reactor.task_numbers)
        return task

    number: int

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.AbstractEventLoop):
    """One node's event loop: only what tasks, futures and asyncio's own helpers ask of a loop."""

    def __init__(self, reactor: Reactor, name: str, on_error: Callable[[str], None]) -> None:
        self.reactor = reactor
        self.name = name
        self.power = Power.RUNNING
        self._on_error = on_error
        self._parked: list[Handle] = []

    def __repr__(self) -> str:
        return f"<loop of {self.name}>"

    # --- what asyncio asks for

    def time(self) -> float:
        return self.reactor.now_s

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        handle = Handle(self, self.reactor.now_s, callback, args, context)
        self.reactor.soon(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        return self.reactor.schedule(self, when, callback, args, context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        return self.reactor.schedule(self, self.reactor.now_s + delay, callback, args, context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> VirtualTask:
        return VirtualTask(coro, loop=self, name=name)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self.power is Power.RUNNING

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.power is not Power.DEAD:
            self._on_error(f"{self.name}: {context.get('message')}: {context.get('exception')!r}")

    # --- faults

    def freeze(self) -> None:
        self.power = Power.FROZEN

    def thaw(self) -> None:
        """Everything that came due meanwhile runs now."""
        self.power = Power.RUNNING
        parked, self._parked = self._parked, []
        for handle in parked:
            self.reactor.soon(handle)

    def park(self, handle: Handle) -> None:
        if self.power is Power.FROZEN or handle.loop is None:
            self._parked.append(handle)

    def kill(self) -> None:
        """Nothing runs here again; see the module's docstring. Call with no loop running."""
        self.power = Power.DEAD
        outer = self.reactor._ready
        # What is ready of its own: each of these may be a task's only way to its end.
        mine = [handle for handle in (*self._parked, *outer) if handle.loop is self and handle.live]
        self.reactor._ready = deque(mine)
        try:
            for _ in range(100):
                tasks = [task for task in asyncio.all_tasks(self) if not task.done()]
                if not tasks:
                    return
                for task in sorted(tasks, key=hash):
                    task.cancel()
                self._run_down()
            raise Runaway(f"{self.name}: tasks that cannot be cancelled: {tasks[:3]}")
        finally:
            events._set_running_loop(None)
            for handle in mine:
                handle.live = False
            self.reactor._ready = outer

    def _run_down(self) -> None:
        events._set_running_loop(self)
        ready = self.reactor._ready
        for _ in range(100_000):
            if not ready:
                return
            handle = ready.popleft()
            if handle.live and handle.loop is self:
                handle.run()


def new_loop(reactor: Reactor, name: str, on_error: Callable[[str], None]) -> VirtualLoop:
    """A loop of its own for a node, or for the clients."""
    # What else a loop could do (sockets, signals, processes) is left out on purpose: a caller of it gets
    # NotImplementedError.
    return VirtualLoop(reactor, name, on_error)  # type: ignore[abstract]
