"""Discarding dead letters, on the twins: its effect, its limits, and the race with other writers."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from clockwork.domain.schedule import EndState, Outcome
from clockwork.errors import ConditionFailed, StoreUnavailable, Unavailable
from clockwork.operations.dead_letters import Discarded, NotOpen
from clockwork.requests.results import Cancelled, Changed, Created, NotFound, Status, VersionCondition
from tests.support.builders import CLIENT, DUE_MS
from tests.support.engine import Engine
from tests.support.virtual_time import in_virtual_time
from tests.unit.test_requests_cancel import new
from tests.unit.test_requests_retry_failed import KEY, fail, failed, retry


async def discard(engine: Engine, delivery_id: str) -> Any:
    return await engine.discarder.discard(CLIENT, KEY, delivery_id)


async def test_what_is_discarded_is_answered_as_before_and_the_first_time_counts() -> None:
    engine = Engine()
    row = await failed(engine)
    before = await engine.find(CLIENT, KEY)
    engine.at_due()
    assert await discard(engine, row.schedule.delivery_id) == Discarded(DUE_MS)
    engine.at_due(late_ms=5_000)
    assert await discard(engine, row.schedule.delivery_id) == Discarded(DUE_MS)
    after = await engine.find(CLIENT, KEY)
    assert before is not None
    assert after is not None
    assert (after.status, after.version, after.outcome) == (Status.FAILED, before.version, before.outcome)
    assert (before.discarded_at_ms, after.discarded_at_ms) == (None, DUE_MS)


async def test_a_cleanup_that_is_repeated_does_not_take_the_mark_off() -> None:
    engine = Engine()
    row = await failed(engine)
    await discard(engine, row.schedule.delivery_id)
    await engine.fail(row)
    view = await engine.find(CLIENT, KEY)
    assert view is not None
    assert view.discarded_at_ms is not None


async def test_an_unknown_or_forgotten_key_is_not_found() -> None:
    engine = Engine()
    assert await discard(engine, "any") == NotFound()
    row = await failed(engine)
    engine.store.outcomes.clear()
    engine.clock.set_ms(DUE_MS + 30 * 86_400_000)
    assert await discard(engine, row.schedule.delivery_id) == NotFound()


async def test_what_is_not_failed_with_this_delivery_is_left_alone() -> None:
    engine = Engine()
    created = await engine.create(new())
    assert isinstance(created, Created)
    assert created.view.schedule is not None
    first = created.view.schedule.delivery_id
    assert await discard(engine, first) == NotOpen(Status.PENDING)
    row = await fail(engine)
    assert await discard(engine, "another") == NotOpen(Status.FAILED)
    await retry(engine)
    assert await discard(engine, first) == NotOpen(Status.PENDING)
    await fail(engine)
    assert await discard(engine, row.schedule.delivery_id) == NotOpen(Status.FAILED)
    await retry(engine)
    assert isinstance(await engine.cancel(CLIENT, KEY), Cancelled)
    assert await discard(engine, first) == NotOpen(Status.CANCELLED)
    assert [pointer.discarded_at_ms for pointer in engine.store.pointers.values()] == [None]


async def test_a_schedule_whose_content_cannot_be_read_is_left_alone() -> None:
    engine = Engine()
    row = await failed(engine)
    (place,) = engine.store.outcomes
    engine.store.outcomes[place] = Outcome(
        client_id=CLIENT,
        schedule_key=KEY,
        position=row.position,
        state=EndState.FAILED,
        at_ms=1,
        schedule=None,
        expires_at_s=2**40,
    )
    assert await discard(engine, row.schedule.delivery_id) == NotOpen(Status.FAILED, readable=False)


async def test_a_discarded_schedule_is_armed_all_the_same_and_its_next_failure_is_open() -> None:
    engine = Engine()
    row = await failed(engine)
    await discard(engine, row.schedule.delivery_id)
    assert isinstance(
        await retry(engine, condition=VersionCondition(any_of=frozenset({row.schedule.version}))), Changed
    )
    again = await fail(engine)
    view = await engine.find(CLIENT, KEY)
    assert view is not None
    assert (view.status, view.discarded_at_ms) == (Status.FAILED, None)
    assert await discard(engine, row.schedule.delivery_id) == NotOpen(Status.FAILED)
    assert isinstance(await discard(engine, again.schedule.delivery_id), Discarded)


async def test_another_schedule_under_the_key_begins_without_the_mark() -> None:
    engine = Engine()
    row = await failed(engine)
    await discard(engine, row.schedule.delivery_id)
    assert isinstance(await engine.create(new(digest="another")), Created)
    again = await fail(engine)
    view = await engine.find(CLIENT, KEY)
    assert view is not None
    assert view.discarded_at_ms is None
    assert isinstance(await discard(engine, again.schedule.delivery_id), Discarded)


def interposed(engine: Engine, method: str, first: Callable[[], Awaitable[object]]) -> None:
    """Another writer is faster: its write is made once, between the reads and the write of the caller."""
    real = getattr(engine.store, method)

    async def beaten(*arguments: Any, **named: Any) -> Any:
        setattr(engine.store, method, real)
        await first()
        return await real(*arguments, **named)

    setattr(engine.store, method, beaten)


async def test_a_retry_between_the_look_and_the_mark_wins_and_the_discard_says_so() -> None:
    engine = Engine()
    row = await failed(engine)
    interposed(engine, "discard", lambda: retry(engine))
    assert await discard(engine, row.schedule.delivery_id) == NotOpen(Status.PENDING)
    (pointer,) = engine.store.pointers.values()
    assert pointer.discarded_at_ms is None


async def test_another_schedule_between_the_look_and_the_mark_is_not_marked() -> None:
    engine = Engine()
    row = await failed(engine)

    async def create_and_fail() -> None:
        assert isinstance(await engine.create(new(digest="another")), Created)
        await fail(engine)

    interposed(engine, "discard", create_and_fail)
    assert await discard(engine, row.schedule.delivery_id) == NotOpen(Status.FAILED)
    (pointer,) = engine.store.pointers.values()
    assert pointer.discarded_at_ms is None


async def test_a_mark_between_the_look_and_the_write_of_a_retry_does_not_stop_it() -> None:
    engine = Engine()
    row = await failed(engine)
    interposed(engine, "create", lambda: discard(engine, row.schedule.delivery_id))
    assert isinstance(await retry(engine), Changed)
    (pointer,) = engine.store.pointers.values()
    assert (pointer.rearmed, pointer.discarded_at_ms) == (True, None)


async def test_a_lost_answer_is_settled_by_the_same_request_or_by_the_next_try_of_it() -> None:
    engine = Engine()
    row = await failed(engine)
    real = engine.store.discard
    failures: list[Exception] = [StoreUnavailable(outcome_unknown=True), ConditionFailed()]

    async def lossy(*arguments: Any, **named: Any) -> int:
        since_ms = await real(*arguments, **named)
        if failures:
            raise failures.pop()
        return since_ms

    engine.store.discard = lossy  # type: ignore[method-assign]
    assert isinstance(await discard(engine, row.schedule.delivery_id), Discarded)


@in_virtual_time
async def test_a_store_that_stays_away_is_said_to_be() -> None:
    engine = Engine()
    row = await failed(engine)

    async def away(*_: Any, **__: Any) -> int:
        raise StoreUnavailable

    engine.store.discard = away  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await discard(engine, row.schedule.delivery_id)
