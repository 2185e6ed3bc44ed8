"""The look of a cancel or a change: the shard's floor, and the frontier of the incarnation that owns it after the hold."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from clockwork.domain.ownership import IncarnationId, ShardClaim
from clockwork.domain.schedule import Guarantee, Retry, Row, ScheduleKey
from clockwork.errors import Unavailable
from clockwork.requests.results import Cancelled, CancelResult, Changed, Reason, Refused
from tests.support.builders import CLIENT, DUE_MS, SHARD, row, schedule
from tests.support.engine import Engine
from tests.unit.test_requests_reschedule import to

KEY = ScheduleKey("a")
OWNER, NEXT = IncarnationId("00000000000000aa.1"), IncarnationId("00000000000000bb.1")


async def takes(engine: Engine, incarnation: IncarnationId, *, frontier_ms: int = 0, floor_ms: int = 0) -> None:
    """The incarnation takes the shard, and stores its frontier."""
    await engine.store.start_incarnation(incarnation, node="host:1")
    epoch = (await engine.store.read_shard(SHARD)).epoch
    await engine.store.take_shards([ShardClaim(shard=SHARD, epoch=epoch, floor_ms=floor_ms)], taker=incarnation)
    if frontier_ms:
        await engine.store.raise_frontier(incarnation, frontier_ms=frontier_ms, hints={})


async def releases(engine: Engine, *, floor_ms: int) -> None:
    state = await engine.store.read_shard(SHARD)
    assert state.owner is not None
    await engine.store.release_shard(SHARD, epoch=state.epoch, owner=state.owner, floor_ms=floor_ms)


def before(engine: Engine, method: str, first: Callable[[], Awaitable[object]]) -> None:
    """The next such request finds that this has just happened."""
    real = getattr(engine.store, method)

    async def late(*given: Any, **named: Any) -> Any:
        setattr(engine.store, method, real)
        await first()
        return await real(*given, **named)

    setattr(engine.store, method, late)


async def an_engine(*rows: Row) -> Engine:
    engine = Engine()
    await engine.put(*rows or [row(schedule(schedule_key=KEY))])
    return engine


async def cancel(engine: Engine, key: ScheduleKey = KEY) -> CancelResult:
    return await engine.cancel(CLIENT, key)


def in_flight(engine: Engine, answer: object) -> bool:
    """True if nothing was promised, and nothing is lost; false if the request was granted."""
    if isinstance(answer, Refused):
        assert answer.reason is Reason.IN_FLIGHT
        assert engine.store.rows
        return True
    assert isinstance(answer, Cancelled | Changed)
    return False


# --- which times count


@pytest.mark.parametrize(
    ("floor_ms", "frontier_ms", "refused"),
    [(DUE_MS - 1, DUE_MS - 1, False), (DUE_MS, DUE_MS - 1, True), (0, DUE_MS, True), (DUE_MS, 0, True)],
)
async def test_a_row_that_an_earlier_owner_or_this_one_may_have_read_is_in_flight(
    floor_ms: int, frontier_ms: int, refused: bool
) -> None:
    # docs/protocol.md, x-look-floor: the floor says nothing of the present owner, its frontier nothing of earlier ones.
    for ask in (cancel, lambda engine: engine.change(CLIENT, KEY, to(due_ms=DUE_MS + 5_000))):
        engine = await an_engine()
        await takes(engine, OWNER, floor_ms=floor_ms, frontier_ms=frontier_ms)
        assert in_flight(engine, await ask(engine)) is refused


@pytest.mark.parametrize(("floor_ms", "refused"), [(DUE_MS - 1, False), (DUE_MS, True)])
async def test_of_a_shard_without_an_owner_the_floor_decides_alone(floor_ms: int, refused: bool) -> None:
    engine = await an_engine()
    await takes(engine, OWNER, frontier_ms=DUE_MS - 1)
    await cancel(engine, ScheduleKey("another"))
    await releases(engine, floor_ms=floor_ms)
    assert in_flight(engine, await cancel(engine)) is refused
    assert engine.store.calls["read_nodes"] == 0


# --- when they are read


@pytest.mark.parametrize("change", ["frontier", "owner", "release"])
async def test_what_the_owner_read_just_before_the_hold_is_seen_by_the_look(change: str) -> None:
    # docs/protocol.md, x-look-before: the owner reads the row, which is not held yet. Then the hold is set. A look made
    # before it would see the old frontier.
    engine = await an_engine()
    await takes(engine, OWNER, frontier_ms=DUE_MS - 5_000)

    async def reads() -> None:
        match change:
            case "frontier":
                await engine.store.raise_frontier(OWNER, frontier_ms=DUE_MS, hints={})
            case "owner":
                await takes(engine, NEXT, floor_ms=DUE_MS - 5_000, frontier_ms=DUE_MS)
            case _:
                await engine.store.raise_frontier(OWNER, frontier_ms=DUE_MS, hints={})
                await releases(engine, floor_ms=DUE_MS)

    before(engine, "hold", reads)
    assert in_flight(engine, await cancel(engine))


async def test_an_owner_remembered_from_an_earlier_look_does_not_count() -> None:
    # docs/protocol.md, x-look-remembered: the frontier of the remembered one stands low for ever.
    engine = await an_engine(row(schedule(schedule_key=KEY)), row(schedule(schedule_key="b")))
    await takes(engine, OWNER, frontier_ms=DUE_MS - 5_000)
    assert isinstance(await cancel(engine, ScheduleKey("b")), Cancelled)
    await takes(engine, NEXT, floor_ms=DUE_MS - 5_000, frontier_ms=DUE_MS)
    assert in_flight(engine, await cancel(engine))


async def test_an_owner_that_is_still_the_one_remembered_is_asked_beside_the_shard() -> None:
    # docs/protocol.md, s-look-checked: one round trip, whose order does not matter.
    keys = [ScheduleKey(f"k{number}") for number in range(3)]
    engine = await an_engine(*(row(schedule(schedule_key=key)) for key in keys))
    await takes(engine, OWNER)
    for key in keys:
        assert isinstance(await cancel(engine, key), Cancelled)
    assert (engine.store.calls["read_shard_and_node"], engine.store.calls["read_nodes"]) == (3, 1)


# --- an owner without an item


async def test_a_cancel_looks_again_if_the_owner_was_swept_meanwhile() -> None:
    engine = await an_engine()
    await takes(engine, OWNER)

    async def is_swept() -> None:
        await takes(engine, NEXT, frontier_ms=DUE_MS)
        await engine.store.fence(OWNER, at_ms=1)
        await engine.store.delete_node(OWNER)

    before(engine, "read_nodes", is_swept)
    assert in_flight(engine, await cancel(engine))


async def test_a_cancel_promises_nothing_if_the_owner_has_no_item() -> None:
    # docs/protocol.md, x-absent-zero: taken for a frontier of 0, it would be granted.
    engine = await an_engine()
    await takes(engine, OWNER, frontier_ms=DUE_MS)
    del engine.store.nodes[OWNER]
    with pytest.raises(Unavailable, match="has no item"):
        await cancel(engine)
    assert engine.store.rows


# --- a waiting row


@pytest.mark.parametrize(
    ("epoch", "guarantee", "refused"),
    [
        (2, Guarantee.EXACTLY_ONCE, False),
        (1, Guarantee.EXACTLY_ONCE, True),
        (3, Guarantee.EXACTLY_ONCE, True),
        (2, Guarantee.AT_LEAST_ONCE, True),
    ],
)
async def test_a_wait_is_believed_of_the_present_owner_alone_and_never_for_at_least_once(
    epoch: int, guarantee: Guarantee, refused: bool
) -> None:
    # docs/protocol.md, x-any-epoch: a `retry` of the fenced owner arrives late, while the next one fires the row.
    retry = Retry(at_ms=DUE_MS + 5_000, epoch=epoch, attempts=1)
    engine = await an_engine(row(schedule(schedule_key=KEY, guarantee=guarantee), retry=retry))
    await takes(engine, OWNER)
    await takes(engine, NEXT, floor_ms=DUE_MS, frontier_ms=DUE_MS + 250)
    engine.at_due(late_ms=100)
    assert in_flight(engine, await cancel(engine)) is refused


async def test_a_wait_ends_with_the_frontier_that_reaches_its_time() -> None:
    engine = await an_engine(row(schedule(schedule_key=KEY), retry=Retry(at_ms=DUE_MS + 200, epoch=1, attempts=1)))
    await takes(engine, OWNER, frontier_ms=DUE_MS + 200)
    engine.at_due(late_ms=100)
    assert in_flight(engine, await cancel(engine))
