"""Arming again what has failed, on the twins."""

from dataclasses import replace
from typing import Any

import pytest

from clockwork.domain.schedule import EXPIRED, OnLate, Outcome, Row, ScheduleKey
from clockwork.errors import ClockUntrusted, InvalidInput, StoreUnavailable
from clockwork.requests.results import (
    AlreadyCreated,
    Cancelled,
    Changed,
    Created,
    KeyTaken,
    NotFound,
    Reason,
    Refused,
    Status,
    Unchanged,
    VersionCondition,
    VersionDiffers,
)
from tests.support import builders
from tests.support.builders import CLIENT, DUE_MS
from tests.support.engine import Engine
from tests.unit.test_requests_cancel import new
from tests.unit.test_requests_reschedule import lose_answer, to

KEY = ScheduleKey("a")
LATER_MS = DUE_MS + 3_600_000


async def failed(engine: Engine) -> Row:
    created = await engine.create(new())
    assert isinstance(created, Created)
    return await fail(engine)


async def fail(engine: Engine) -> Row:
    (row,) = engine.store.rows.values()
    assert isinstance(row, Row)
    await engine.fail(row)
    return row


async def retry(engine: Engine, **given: Any) -> Any:
    return await engine.retry(CLIENT, KEY, **given)


async def test_a_failed_schedule_is_pending_again_with_its_content_and_a_new_due_time() -> None:
    engine = Engine()
    before = await failed(engine)
    engine.at_due()
    answer = await retry(engine, due_ms=LATER_MS)
    assert isinstance(answer, Changed)
    after = answer.view.schedule
    assert after is not None
    assert after == replace(before.schedule, due_ms=LATER_MS, version=2, delivery_id=after.delivery_id)
    assert after.delivery_id != before.schedule.delivery_id
    assert await engine.find(CLIENT, KEY) == answer.view


async def test_without_a_time_it_is_due_now_and_its_shard_is_woken() -> None:
    engine = Engine()
    before = await failed(engine)
    engine.at_due()
    answer = await retry(engine)
    assert answer.view.schedule.due_ms == DUE_MS
    assert [shard for shard, _ in engine.woken] == [before.shard]
    lease = await engine.own(before.shard)
    assert (await engine.one_pass(lease)).fired == 1
    assert engine.arrived() == ["a"]


async def test_the_same_request_again_arms_nothing_twice_and_shows_what_is_there() -> None:
    engine = Engine()
    await failed(engine)
    first = await retry(engine, due_ms=LATER_MS)
    for again in (
        await retry(engine, due_ms=LATER_MS),
        await retry(engine),
        await retry(engine, condition=VersionCondition(any_of=frozenset({1}))),
    ):
        assert isinstance(again, Unchanged)
        assert again.view == first.view
    other = await retry(engine, due_ms=LATER_MS + 1)
    assert isinstance(other, Refused)
    assert other.reason is Reason.PENDING


@pytest.mark.parametrize("applied", [True, False])
async def test_an_arming_whose_answer_is_lost_is_done_once(applied: bool) -> None:
    engine = Engine()
    await failed(engine)
    lose_answer(engine, "create", applied=applied)
    answer = await retry(engine)
    assert isinstance(answer, Changed)
    assert answer.view.version == 2
    assert len(engine.store.rows) == 1


async def test_an_arming_whose_answer_is_lost_is_not_made_again_when_another_request_has_armed_the_next_failure() -> (
    None
):
    # Armed, without an answer; failed; armed by another request; failed. All of it between two tries of one request.
    engine = Engine()
    await failed(engine)
    real = engine.store.create

    async def applied_and_long_ago(*given: Any, **named: Any) -> None:
        engine.store.create = real  # type: ignore[method-assign]
        await real(*given, **named)
        await fail(engine)
        assert isinstance(await retry(engine), Changed)
        await fail(engine)
        raise StoreUnavailable("no answer", outcome_unknown=True)

    engine.store.create = applied_and_long_ago  # type: ignore[method-assign]
    answer = await retry(engine)
    assert isinstance(answer, Changed)
    assert answer.view.version == 2
    now = await engine.find(CLIENT, KEY)
    assert now is not None
    assert (now.version, now.status) == (3, Status.FAILED)


async def test_what_failed_a_second_time_is_armed_again_unless_the_version_says_no() -> None:
    engine = Engine()
    await failed(engine)
    await retry(engine, condition=VersionCondition(any_of=frozenset({1})))
    await fail(engine)
    late_repeat = await retry(engine, condition=VersionCondition(any_of=frozenset({1})))
    assert isinstance(late_repeat, VersionDiffers)
    assert late_repeat.view.status is Status.FAILED
    assert (await retry(engine)).view.version == 3


async def test_what_never_failed_is_not_armed() -> None:
    engine = Engine()
    assert isinstance(await retry(engine), NotFound)
    await engine.create(new())
    pending = await retry(engine)
    assert isinstance(pending, Refused)
    assert pending.reason is Reason.PENDING
    await engine.cancel(CLIENT, KEY)
    cancelled = await retry(engine)
    assert isinstance(cancelled, Refused)
    assert cancelled.reason is Reason.CANCELLED


async def test_it_stays_the_schedule_of_its_create_and_may_be_changed_and_cancelled() -> None:
    engine = Engine()
    await failed(engine)
    await retry(engine, due_ms=LATER_MS)
    assert isinstance(await engine.create(new()), AlreadyCreated)
    assert isinstance(await engine.create(new(digest="d2")), KeyTaken)
    moved = await engine.change(CLIENT, KEY, to(due_ms=LATER_MS + 1))
    assert isinstance(moved, Changed)
    assert isinstance(await retry(engine), Unchanged), "known as armed again, though it was moved since"
    assert isinstance(await engine.cancel(CLIENT, KEY), Cancelled)
    assert isinstance(await retry(engine), Refused)


async def test_a_new_schedule_under_the_key_is_not_taken_for_one_that_was_armed_again() -> None:
    engine = Engine()
    await failed(engine)
    await retry(engine, due_ms=LATER_MS)
    await engine.cancel(CLIENT, KEY)
    assert isinstance(await engine.create(new(digest="d2")), Created)
    assert isinstance(await retry(engine), Refused)


async def test_nothing_is_armed_for_a_missing_topic_or_by_an_untrusted_clock() -> None:
    engine = Engine()
    await failed(engine)
    engine.trust.is_trusted = False
    with pytest.raises(ClockUntrusted):
        await retry(engine)
    engine.trust.is_trusted = True
    engine.kafka.delete_topic(builders.TOPIC)
    with pytest.raises(InvalidInput):
        await retry(engine)


async def test_what_failed_because_it_could_not_be_read_cannot_be_armed() -> None:
    engine = Engine()
    row = await failed(engine)
    place = (CLIENT, KEY, row.position)
    unreadable: Outcome = replace(engine.store.outcomes[place], schedule=None)
    engine.store.outcomes[place] = unreadable
    answer = await retry(engine)
    assert isinstance(answer, Refused)
    assert answer.reason is Reason.FAILED


async def test_what_expired_has_its_whole_deadline_again_from_its_new_due_time() -> None:
    engine = Engine()
    dropped = builders.row(replace(builders.schedule(schedule_key=KEY), deadline_ms=1_000, on_late=OnLate.DROP))
    await engine.put(dropped)
    lease = await engine.own()
    engine.at_due(late_ms=1_001)
    await engine.one_pass(lease)
    await lease.cleanup.finish()
    expired = await engine.find(CLIENT, KEY)
    assert expired is not None
    assert (expired.status, engine.arrived()) == (Status.FAILED, [])

    armed = await retry(engine)
    assert isinstance(armed, Changed)
    assert armed.view.schedule is not None
    assert (armed.view.schedule.deadline_ms, armed.view.schedule.on_late) == (1_000, OnLate.DROP)
    engine.at_due(late_ms=2_001)
    lease = await engine.own(armed.view.shard)
    await engine.one_pass(lease)
    assert engine.arrived() == [KEY]


async def test_what_is_armed_for_a_time_long_past_expires_as_a_create_for_it_would() -> None:
    engine = Engine()
    created = await engine.create(replace(new(), deadline_ms=1_000, on_late=OnLate.DROP))
    assert isinstance(created, Created)
    await fail(engine)
    engine.at_due(late_ms=10_000)
    armed = await retry(engine, due_ms=DUE_MS)
    lease = await engine.own(armed.view.shard)
    await engine.one_pass(lease)
    await lease.cleanup.finish()
    again = await engine.find(CLIENT, KEY)
    assert again is not None
    assert again.outcome is not None
    assert again.outcome.failure is not None
    assert (again.version, again.outcome.failure.reason) == (2, EXPIRED)
