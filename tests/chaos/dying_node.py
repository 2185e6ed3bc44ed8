"""`python -m clockwork` that dies between two steps: what tests of take-over run in its place.

The step is named by the environment, and the death is put in from outside, so that nothing in the service can be told to
die. It is SIGKILL from within: no more instruction of the process is carried out.

    commit   its first rows are committed and not cleaned up: it dies at the begin of its first cleanup
    T1       before it fences the owner that it takes over from
    T2a      the owner is fenced, its transactional ids are not
    T2b      they are, its markers are not read
    T2c      they are, and nothing is cleaned up
    T2d      it is, and no shard is taken
    T3       shards are taken, and no pass was begun
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

from clockwork import __main__
from clockwork.firing import cleanup, takeover
from clockwork.kafka.publisher import KafkaPublisher
from clockwork.stores.dynamodb.store import DynamoScheduleStore
from clockwork.stores.postgres.store import PostgresScheduleStore

DIES: Final = "CHAOS_DIES"
"""The setting that names the step."""
STEPS: Final = ("T1", "T2a", "T2b", "T2c", "T2d", "T3")
COMMIT: Final = "commit"

Method = Callable[..., Awaitable[Any]]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(method: Method) -> Method:
    async def dying(*arguments: Any, **named: Any) -> Any:
        die()
        return await method(*arguments, **named)

    return dying


def after(method: Method, *, only_if: Callable[[], bool] = lambda: True) -> Method:
    async def dying(*arguments: Any, **named: Any) -> Any:
        answer = await method(*arguments, **named)
        if only_if():
            die()
        return answer

    return dying


def put_death(step: str) -> None:
    """Lets every node of this process die at this step."""
    store: Any = PostgresScheduleStore if os.environ.get("CLOCKWORK_STORE") == "postgresql" else DynamoScheduleStore
    publisher = KafkaPublisher
    match step:
        case "commit":
            _replace(store, "finish", before(store.finish))
        case "T1":
            _replace(store, "fence", before(store.fence))
        case "T2a":
            _replace(store, "fence", after(store.fence))
        case "T2b":
            _replace(publisher, "settle", after(publisher.settle))
        case "T2c":
            _replace(publisher, "read_markers", after(publisher.read_markers))
        case "T2d":
            _replace(takeover, "finish_rows", after(cleanup.finish_rows))
        case "T3":
            fenced: list[bool] = []
            fence = store.fence

            async def noted(*arguments: Any, **named: Any) -> Any:
                fenced.append(True)
                return await fence(*arguments, **named)

            _replace(store, "fence", noted)
            # Shards that have no owner are taken without any of the other steps.
            _replace(store, "take_shards", after(store.take_shards, only_if=lambda: bool(fenced)))
        case _:
            raise ValueError(f"no such step: {step}")


def _replace(thing: Any, name: str, instead: Method) -> None:
    if not hasattr(thing, name):
        raise AttributeError(f"{thing!r} has no {name}")
    setattr(thing, name, instead)


if __name__ == "__main__":
    if step := os.environ.get(DIES):
        put_death(step)
    sys.exit(__main__.main())
