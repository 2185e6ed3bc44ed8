"""Why a schedule is not there yet: the first reason that holds, at a bounded cost."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from clockwork.domain.activity import MINUTE_MS, MinuteCounts, TopicWait
from clockwork.domain.destination import Topic
from clockwork.domain.pauses import PauseKind
from clockwork.domain.position import Position, new_position
from clockwork.domain.rights import ANYONE
from clockwork.domain.schedule import EndState, Failure, Pointer, Retry, Row, ScheduleKey
from clockwork.domain.sharding import ShardId
from clockwork.errors import BrokerUnavailable, RefusalCause
from clockwork.firing.destination_waits import DestinationRateLimits
from clockwork.observability.activity import encode_minute
from clockwork.operations.activity import TOLD_MS
from clockwork.ports.activity import ActivityRecord
from clockwork.ports.read_units import current_meter, metered
from clockwork.ports.store import Page
from clockwork.ports.telemetry import NoTelemetry
from clockwork.requests import why
from clockwork.requests.why import Explanation, WhyReason
from clockwork.schema.why_render import render_why
from tests.support.builders import DUE_MS, TOPIC, broken_row, pause, pointer, row, schedule
from tests.support.engine import SHARD, Engine

NOW_MS = DUE_MS + 3_000


class Asked(Engine):
    """An engine with one schedule, `it`, which was due three seconds ago; its shard has an owner that has read up to now."""

    async def begin(self, **fields: Any) -> Row:
        self.clock.set_ms(NOW_MS)
        self.lease = await self.own()
        self.frontier(NOW_MS)
        it = row(schedule(schedule_key="it", **{"ordering_key": "lane", **fields}), shard=SHARD)
        await self.put(it)
        return it

    def frontier(self, at_ms: int) -> None:
        own = self.lease.incarnation.id
        self.store.nodes[own] = replace(self.store.nodes[own], frontier_ms=at_ms)

    async def before(self, count: int = 1, **fields: Any) -> list[Row]:
        """Rows before it, each of a lane of its own."""
        rows = [row(schedule(due_ms=DUE_MS - 1_000, **fields), shard=SHARD) for _ in range(count)]
        await self.put(*rows)
        return rows

    async def explain(self, key: str = "it") -> Explanation:
        async with self.context.deadline() as deadline:
            found = await self.query_services.why.explain(schedule().client_id, ScheduleKey(key), deadline)
        assert found is not None
        return found

    async def reason(self) -> WhyReason:
        return (await self.explain()).reason

    def changed(self, it: Row, **fields: Any) -> None:
        """The row stands otherwise now."""
        self.store.rows[it.shard, it.position] = replace(it, **fields)


async def test_an_unknown_key_has_no_reason() -> None:
    engine = Asked()
    async with engine.context.deadline() as deadline:
        assert await engine.query_services.why.explain(schedule().client_id, ScheduleKey("it"), deadline) is None


async def test_each_reason_hides_those_behind_it() -> None:
    # From the last reason to the first: each is added to those that hold already.
    engine = Asked()
    it = await engine.begin()
    engine.clock.set_ms(NOW_MS + 3_600_000)
    engine.frontier(NOW_MS + 3_600_000)
    assert await engine.reason() is WhyReason.UNKNOWN
    engine.clock.set_ms(NOW_MS)
    assert await engine.reason() is WhyReason.DUE_NOW
    await engine.before(ordering_key="lane")
    assert await engine.reason() is WhyReason.BEHIND
    engine.changed(it, retry=Retry(at_ms=NOW_MS + 500, epoch=engine.lease.epoch, attempts=2))
    assert await engine.reason() is WhyReason.RETRY
    engine.destination_waits.refused(TOPIC, RefusalCause.TRANSIENT, "leader_unavailable", now_ms=NOW_MS)
    assert await engine.reason() is WhyReason.DESTINATION_WAITS
    engine.frontier(DUE_MS - 1)
    assert await engine.reason() is WhyReason.SHARD_BEHIND
    await engine.store.fence(engine.lease.incarnation.id, at_ms=NOW_MS)
    assert await engine.reason() is WhyReason.SHARD_WITHOUT_OWNER
    await engine.pauser.pause(PauseKind.TOPIC, TOPIC, by="ana")
    assert await engine.reason() is WhyReason.PAUSED
    engine.clock.set_ms(DUE_MS - 1)
    assert await engine.reason() is WhyReason.NOT_DUE
    await engine.fail(it)
    assert await engine.reason() is WhyReason.ENDED


async def test_an_end_is_shown_as_a_read_of_the_key_shows_it() -> None:
    engine = Asked()
    await engine.fail(await engine.begin())

    found = await engine.explain()

    assert found.view == await engine.find(schedule().client_id, ScheduleKey("it"))
    assert found.view.outcome is not None
    assert found.view.outcome.state is EndState.FAILED
    assert found.view.outcome.failure == Failure(reason="record_too_large", attempts=8)


@pytest.mark.parametrize(("kind", "name"), [(PauseKind.CLIENT, schedule().client_id), (PauseKind.TOPIC, TOPIC)])
async def test_the_pause_is_named_with_its_time_its_person_and_its_reason(kind: PauseKind, name: str) -> None:
    engine = Asked()
    await engine.begin()
    await engine.pauser.pause(kind, name, by="ana", reason="a move")

    assert (await engine.explain()).paused == (kind, name, pause(NOW_MS, by="ana", reason="a move"))


async def test_one_that_is_not_due_yet_names_the_pause_that_it_will_wait_for() -> None:
    engine = Asked()
    await engine.begin()
    engine.clock.set_ms(DUE_MS - 1)
    assert (await engine.explain()).paused is None
    await engine.pauser.pause(PauseKind.CLIENT, schedule().client_id, by="ana")

    found = await engine.explain()

    assert found.reason is WhyReason.NOT_DUE
    assert found.paused == (PauseKind.CLIENT, schedule().client_id, pause(DUE_MS - 1, by="ana"))
    document = render_why(found, ANYONE)
    assert document["text"] == "It is not due yet, and its client is paused."
    assert (document["dueInMs"], document["paused"]["name"]) == (1, schedule().client_id)


async def test_one_that_a_change_made_due_in_the_past_is_on_its_way_for_as_long_as_one_that_has_just_become_due() -> (
    None
):
    engine = Asked()
    await engine.begin()
    moved_ms = DUE_MS + 3_600_000
    at = new_position(due_ms=DUE_MS, accepted_us=moved_ms * 1_000, random=1)
    it = row(schedule(schedule_key="moved", ordering_key="another"), shard=SHARD, at=at)
    await engine.put(it)
    engine.frontier(moved_ms + why.DUE_NOW_MS + 1)
    engine.clock.set_ms(moved_ms + why.DUE_NOW_MS)
    assert (await engine.explain("moved")).reason is WhyReason.DUE_NOW
    engine.clock.set_ms(moved_ms + why.DUE_NOW_MS + 1)
    assert (await engine.explain("moved")).reason is WhyReason.UNKNOWN


async def test_a_retry_names_the_last_refusal() -> None:
    engine = Asked()
    it = await engine.begin()
    epoch = engine.lease.epoch
    for refusal, told in ((None, "a change of it is under way"), ("record_too_large", "record_too_large")):
        engine.changed(it, retry=Retry(at_ms=NOW_MS + 500, epoch=epoch, attempts=2, last_refusal=refusal))
        document = render_why(await engine.explain(), ANYONE)
        assert document["retry"].get("lastRefusal") == refusal
        assert told in document["text"]


async def test_a_shard_that_was_released_or_whose_items_are_lost_has_no_owner() -> None:
    engine = Asked()
    await engine.begin()
    states = engine.store.shard_states
    owned = states[SHARD]
    states[SHARD] = replace(owned, owner=None)
    assert await engine.reason() is WhyReason.SHARD_WITHOUT_OWNER
    states[SHARD] = owned
    del engine.store.nodes[engine.lease.incarnation.id]
    assert await engine.reason() is WhyReason.SHARD_WITHOUT_OWNER
    del states[SHARD]
    assert await engine.reason() is WhyReason.SHARD_WITHOUT_OWNER


async def test_the_lag_of_a_shard_is_the_age_of_its_first_row() -> None:
    engine = Asked()
    await engine.begin()
    await engine.before()
    engine.frontier(DUE_MS - 500)

    assert (await engine.explain()).lag_ms == 4_000


async def test_a_topic_waits_by_what_this_node_knows_else_by_what_kafka_says() -> None:
    engine = Asked()
    await engine.begin(topic="missing")
    found = await engine.explain()
    missing = Topic("missing")
    assert found.destination == why.WaitingDestination(
        destination=missing, reason="topic_missing", since_ms=None, next_probe_ms=None
    )
    wait = engine.destination_waits.refused(missing, RefusalCause.DESTINATION, "topic_forbidden", now_ms=NOW_MS)
    found = await engine.explain()
    assert found.destination == why.WaitingDestination(
        destination=missing, reason="topic_forbidden", since_ms=NOW_MS, next_probe_ms=wait.until_ms
    )
    # Between two probes the topic waits still.
    engine.clock.set_ms(wait.until_ms)
    found = await engine.explain()
    assert found.destination is not None
    assert (found.destination.since_ms, found.destination.next_probe_ms) == (NOW_MS, None)


async def test_a_node_that_does_not_deliver_knows_from_the_minutes_since_when_and_why_a_topic_waits() -> None:
    # The topic is there, as Kafka says, but takes no records: only those that send to it know that.
    engine = Asked()
    await engine.begin()
    minute_ms = (NOW_MS - TOLD_MS) // MINUTE_MS * MINUTE_MS - MINUTE_MS
    minute = MinuteCounts(waits={TOPIC: TopicWait(DUE_MS - 90_000, "not_enough_replicas")})
    record = partial(ActivityRecord, stream="minutes", kafka_partition=0, at_ms=NOW_MS, offset=0)
    engine.tail.take([record(value=encode_minute(minute_ms, minute))])

    found = await engine.explain()

    assert found.reason is WhyReason.DESTINATION_WAITS
    assert found.destination == why.WaitingDestination(
        destination=TOPIC, reason="not_enough_replicas", since_ms=DUE_MS - 90_000, next_probe_ms=None
    )
    # This node is refused as well, later: the topic waits since the earlier time.
    engine.destination_waits.refused(TOPIC, RefusalCause.TRANSIENT, "leader_unavailable", now_ms=NOW_MS)
    found = await engine.explain()
    assert found.destination is not None
    assert (found.destination.since_ms, found.destination.reason) == (DUE_MS - 90_000, "not_enough_replicas")


async def test_a_topic_at_its_rate_limit_takes_records_so_it_waits_since_no_time() -> None:
    engine = Asked(limits=DestinationRateLimits(1, {}, NoTelemetry()))
    await engine.begin()
    while (wait := engine.destination_waits.take_token(TOPIC, NOW_MS)) is None:
        pass

    assert (await engine.explain()).destination == why.WaitingDestination(
        destination=TOPIC, reason="over_its_pace", since_ms=None, next_probe_ms=wait.until_ms, rate_limited=True
    )


async def test_while_kafka_is_away_that_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Asked()
    await engine.begin()

    async def away(_: str) -> bool:
        raise BrokerUnavailable

    monkeypatch.setattr(engine.publisher, "topic_exists", away)

    found = await engine.explain()

    assert found.destination is not None
    assert found.destination.reason == "kafka_unavailable"


@pytest.mark.parametrize(
    "retry", [Retry(at_ms=NOW_MS - 1, epoch=1, attempts=2), Retry(at_ms=NOW_MS + 9_000, epoch=0, attempts=2)]
)
async def test_a_retry_that_is_over_or_of_an_earlier_owner_is_no_reason(retry: Retry) -> None:
    engine = Asked()
    it = await engine.begin()
    assert engine.lease.epoch == 1
    engine.changed(it, retry=retry)

    assert await engine.reason() is WhyReason.DUE_NOW


async def test_the_first_of_its_lane_is_in_the_way_also_one_that_cannot_be_read() -> None:
    engine = Asked()
    it = await engine.begin()
    await engine.before(7)
    (first, _) = await engine.before(2, ordering_key="lane")

    found = await engine.explain()

    assert (found.behind, found.looked_at) == (first, 8)
    broken = broken_row(at=first.position, shard=SHARD, lane=it.schedule.lane)
    engine.store.put_by_hand(broken)
    assert (await engine.explain()).behind == broken


async def test_no_more_rows_are_read_than_the_bound_and_the_answer_says_so() -> None:
    engine = Asked()
    await engine.begin()
    await engine.before(why.ROWS_MAX - 1)
    found = await engine.explain()
    assert (found.reason, found.looked_at, found.looked_at_all) == (WhyReason.DUE_NOW, why.ROWS_MAX - 1, True)

    await engine.before(2)
    found = await engine.explain()

    assert (found.reason, found.looked_at, found.looked_at_all) == (WhyReason.DUE_NOW, why.ROWS_MAX, False)


@contextmanager
def rows_cost(engine: Engine, units: float) -> Iterator[None]:
    search = engine.context.search
    found = search.peek_rows

    async def peek_rows(shard: ShardId, *, after: Position | None, rows_max: int) -> Page:
        page = await found(shard, after=after, rows_max=rows_max)
        meter = current_meter()
        assert meter is not None
        meter.charge(units * len(page.rows))
        return page

    search.peek_rows = peek_rows  # type: ignore[method-assign]
    yield


@pytest.mark.parametrize(("units", "looked_at"), [(0.125, why.ROWS_MAX), (1.0, 20), (5.0, 4), (32.0, 2)])
async def test_large_rows_end_the_look_early(units: float, looked_at: int) -> None:
    engine = Asked()
    await engine.begin()
    await engine.before(150)

    with rows_cost(engine, units), metered() as meter:
        found = await engine.explain()

    assert (found.looked_at, found.looked_at_all) == (looked_at, False)
    assert meter.units <= max(why.FRONT_UNITS_MAX, units * why.FIRST_ROWS)


async def test_a_schedule_that_ends_while_it_is_read_is_read_again() -> None:
    engine = Asked()
    it = await engine.begin()
    newer = row(schedule(schedule_key="it", due_ms=DUE_MS + 9_000_000, version=2), shard=SHARD)
    read_row = engine.store.read_row

    async def moved_meanwhile(name: Any) -> Any:
        found = await read_row(name)
        if found == it:
            engine.store._remove(it.shard, it.position)
            engine.store.put_by_hand(newer)
            moved: Pointer = pointer(newer)
            engine.store.pointers[moved.client_id, moved.schedule_key] = moved
            return None
        return found

    engine.store.read_row = moved_meanwhile  # type: ignore[method-assign]

    assert (await engine.explain()).view.version == 2
