"""One pass, and what it hands over, while delivery takes its time: rows in flight, room, slow topics, the blocked prefix,
announced times, pointers of rows that wait for weeks."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from clockwork.domain import planning
from clockwork.domain.destination import Topic
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.ownership import IncarnationId
from clockwork.domain.pauses import NOTHING_PAUSED, Pauses
from clockwork.domain.planning import (
    PROBE_ROWS_MAX,
    ROOM_ROWS,
    SHARE_FREE_ROWS,
    SLOW_AFTER_MS,
    TOPIC_ROWS_MAX,
    PlannedDelivery,
)
from clockwork.domain.position import Position
from clockwork.domain.schedule import (
    EXPIRED,
    POINTER_PUSH_AFTER_MS,
    BrokenRow,
    Guarantee,
    OnLate,
    RequestId,
    Retry,
    Row,
    RowName,
    pointer_expiry_s,
)
from clockwork.errors import RefusalCause, StoreThrottled, TransactionConflict
from clockwork.firing import shard_pass
from clockwork.firing.cleanup import Cleanup, Completed
from clockwork.firing.destination_waits import DestinationWaits
from clockwork.firing.incarnation import RunningIncarnation
from clockwork.firing.lease import ShardLease
from clockwork.firing.shard_pass import CLEANUP_BYTES_MAX, PUSHES_MAX, PassResult, ShardPass
from clockwork.ports.store import Page
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import RunnerSettings
from clockwork.stores.memory.store import MemoryScheduleStore
from tests.support import builders
from tests.support.builders import DUE_MS, SHARD, broken_row, pause, row, schedule
from tests.support.clocks import ManualClock, TrustedClock
from tests.support.jobs import no_jobs
from tests.support.virtual_time import in_virtual_time

OLD_MS = 10_000
"""Age from which a waiting row may lie in a blocked prefix: the scan interval and five seconds."""
PASSES_MAX = 100
EPOCH = 5
DAY_MS = 86_400_000


class Store(MemoryScheduleStore):
    """A store whose pages can be held up, and whose writes to single rows can fail."""

    def __init__(self) -> None:
        super().__init__(shards=8)
        self.calls: Counter[str] = Counter()
        self.on_page: Callable[[], Awaitable[None]] | None = None
        """Called when a page has been read, before it is answered."""
        self.failing: dict[str, Exception] = {}
        """By operation, its error."""
        self.rows_read = 0

    async def _serve(self, operation: str, effect: Callable[[], Any]) -> Any:
        self.calls[operation] += 1
        if operation in self.failing:
            raise self.failing[operation]
        return effect()

    async def read_page(
        self, shard: Any, *, after: Position | None, rows_max: int, due_ms_max: int | None = None
    ) -> Page:
        page = await super().read_page(shard, after=after, rows_max=rows_max, due_ms_max=due_ms_max)
        self.rows_read += len(page.rows)
        if self.on_page is not None:
            await self.on_page()
        return page


class Delivery:
    """Takes rows over and does with them what the test says."""

    def __init__(self) -> None:
        self.flying: list[PlannedDelivery] = []

    def enqueue(self, lease: ShardLease, deliveries: Sequence[PlannedDelivery]) -> None:
        for each in deliveries:
            lease.in_flight.add(each.row.position, each.lane, each.size_bytes)
        self.flying += deliveries


class Shard:
    """One shard of one incarnation, with its rows, and passes that the test makes."""

    def __init__(self, *, prefix_rows_min: int = 1) -> None:
        self.clock = ManualClock(DUE_MS)
        self.store = Store()
        self.settings = RunnerSettings()
        self.transactional, self.acknowledged = Delivery(), Delivery()
        self.paused: Pauses = NOTHING_PAUSED
        self.waits = DestinationWaits(topic_wait_ms=900_000, topic_missing=self._topic_missing)
        self.shard_pass = ShardPass(
            self.store,
            self.transactional,
            self.acknowledged,
            self.waits,
            self.clock,
            TrustedClock(),
            NoTelemetry(),
            self.settings,
            pauses=lambda: self.paused,
            prefix_rows_min=prefix_rows_min,
        )
        self.incarnation = RunningIncarnation(
            IncarnationId("p.1"), self.store, self.clock, TrustedClock(), node="node", frontier_lead_ms=250
        )
        self.cleanup = Cleanup(
            self.store,
            no_jobs(),
            SHARD,
            retention_ms=self.settings.retention_ms,
            rng=random.Random(1),
            on_done=lambda completed: None,
        )
        self.lease = ShardLease(
            shard=SHARD, epoch=EPOCH, floor_ms=0, incarnation=self.incarnation, cleanup=self.cleanup
        )
        self.landings = 0
        self.lease.in_flight.on_landing = self._landed

    async def _topic_missing(self, topic: Topic) -> bool:
        return True

    def _landed(self) -> None:
        self.landings += 1

    async def put(self, *rows: Row | BrokenRow) -> None:
        for each in rows:
            self.store.put_by_hand(each)

    async def one_pass(self, late_ms: int = 0, *, records_max: int = 500) -> PassResult:
        """Makes a pass at this time after `DUE_MS`."""
        self.clock.set_ms(DUE_MS + late_ms)
        if self.incarnation.id not in self.store.nodes:
            await self.incarnation.start()
        return await self.shard_pass.run(self.lease, records_max=records_max)

    async def passes(self, late_ms: int = 0) -> PassResult:
        """Makes passes until one has nothing more to do now."""
        for _ in range(PASSES_MAX):
            result = await self.one_pass(late_ms)
            if not result.more_now:
                return result
        raise AssertionError("the passes make no progress")

    async def fill(self) -> None:
        """Makes passes while the shard has room."""
        for _ in range(PASSES_MAX):
            if not self.shard_pass.has_room(self.lease):
                return
            await self.one_pass()
        raise AssertionError("the room has no end")

    @property
    def handed_over(self) -> list[Row | BrokenRow]:
        """The rows handed over since this was asked last."""
        rows = [each.row for delivery in (self.transactional, self.acknowledged) for each in delivery.flying]
        self.transactional.flying, self.acknowledged.flying = [], []
        return rows

    def delivered(self, *rows: Row) -> None:
        """They await cleanup from now on."""
        for each in rows:
            entry = MarkerEntry(shard=SHARD, position=each.position, at_ms=0, receipt=builders.receipt())
            self.cleanup.add([Completed(row=each, entry=entry, slot=0)])
        self.lease.in_flight.remove([each.position for each in rows])

    def unsent(self, *rows: Row | BrokenRow) -> None:
        """They are to be read again."""
        self.lease.in_flight.remove([each.position for each in rows], unsent=True)

    async def stored(self, of: Row) -> Row:
        there = await self.store.read_row(of.name)
        assert isinstance(there, Row)
        return there


def in_lane(key: str, *, hold: str | None = None, due_ms: int = DUE_MS, retry: Retry | None = None, **of: Any) -> Row:
    return row(schedule(ordering_key=key, due_ms=due_ms, **of), hold=hold, retry=retry)


def waiting_row(key: str, *, due_ms: int = DUE_MS, until_ms: int = DUE_MS + 3_600_000, hold: str | None = None) -> Row:
    """A row whose record was refused."""
    retry = Retry(at_ms=until_ms, epoch=EPOCH, attempts=1)
    return in_lane(key, due_ms=due_ms, retry=retry, hold=hold)


# --- rows in flight


async def test_a_row_in_flight_is_not_handed_over_again_and_its_lane_waits_for_it() -> None:
    # x-lanes-out, x-lanes-order.
    shard = Shard()
    first, behind, elsewhere = in_lane("a"), in_lane("a"), in_lane("b")
    unreadable = broken_row()
    await shard.put(first, unreadable)
    await shard.one_pass()
    assert shard.handed_over == [first, unreadable]
    await shard.put(behind, elsewhere)
    assert not (await shard.one_pass()).more_now
    assert shard.handed_over == [elsewhere]
    assert shard.lease.in_flight.awaited

    shard.unsent(first)
    assert shard.landings == 1
    await shard.one_pass()
    assert shard.handed_over == [first, behind]


async def test_a_pass_reads_no_row_behind_the_first_that_is_not_due() -> None:
    shard = Shard()
    due, later = row(schedule(), shard=SHARD), [row(schedule(due_ms=DUE_MS + n), shard=SHARD) for n in range(1, 12)]
    await shard.put(due, *later)
    result = await shard.one_pass()

    assert (shard.handed_over, result.next_due_ms, shard.store.rows_read) == ([due], DUE_MS + 1, 2)
    shard.store.rows_read = 0
    assert await shard.shard_pass.first_due_ms(shard.lease) == DUE_MS + 1
    assert shard.store.rows_read == 2


async def test_each_guarantee_goes_its_way_and_what_is_late_or_unreadable_ends_by_a_marker() -> None:
    shard = Shard()
    at_least_once = in_lane("a", guarantee=Guarantee.AT_LEAST_ONCE)
    exactly_once = in_lane("b")
    late = in_lane("c", guarantee=Guarantee.AT_LEAST_ONCE, deadline_ms=1, on_late=OnLate.DROP)
    broken = broken_row()
    await shard.put(at_least_once, exactly_once, late, broken)
    await shard.one_pass(late_ms=10)
    assert [each.row for each in shard.acknowledged.flying] == [at_least_once]
    assert [each.row for each in shard.transactional.flying] == [exactly_once, late, broken]
    assert [each.failure.reason for each in shard.transactional.flying if each.failure] == [EXPIRED, "unreadable"]


async def test_a_lane_with_both_guarantees_waits_until_the_rows_of_one_have_landed() -> None:
    shard = Shard()
    first, second = in_lane("a"), in_lane("a", guarantee=Guarantee.AT_LEAST_ONCE)
    await shard.put(first, second)
    assert not (await shard.passes()).more_now
    assert shard.handed_over == [first]
    shard.delivered(first)
    await shard.passes()
    assert shard.handed_over == [second]


async def test_a_row_that_lands_while_its_page_is_on_its_way_is_left_out_all_the_same() -> None:
    # x-late-exclude: the page was read before the row was deleted, and is answered after it.
    shard = Shard()
    first = in_lane("a")
    await shard.put(first)
    await shard.one_pass()
    assert shard.handed_over == [first]

    async def landed_and_gone() -> None:
        shard.delivered(first)
        await shard.cleanup.finish()

    shard.store.on_page = landed_and_gone
    await shard.one_pass()
    assert shard.handed_over == []
    assert shard.store.rows == {}


async def test_a_lane_whose_row_lands_while_nothing_awaits_it_is_passed_again_at_once() -> None:
    # The landing told no pass: none had met a row behind it yet.
    shard = Shard()
    first, behind, other = in_lane("a"), in_lane("a"), in_lane("b")
    await shard.put(first, other)
    await shard.one_pass()
    await shard.put(behind)
    assert shard.handed_over == [first, other]

    async def landed() -> None:
        shard.store.on_page = None
        shard.delivered(first)

    shard.store.on_page = landed
    result = await shard.one_pass()
    assert (shard.handed_over, shard.landings, result.more_now) == ([], 0, True)
    assert not (await shard.one_pass()).more_now
    assert shard.handed_over == [behind]


async def test_landings_that_nothing_waits_for_wake_no_pass() -> None:
    shard = Shard()
    alone = in_lane("a")
    await shard.put(alone)
    await shard.one_pass()
    assert not shard.lease.in_flight.awaited
    shard.delivered(alone)
    assert shard.landings == 0


async def test_the_scan_looks_past_rows_in_flight() -> None:
    shard = Shard()
    first, later = in_lane("a"), in_lane("a", due_ms=DUE_MS + 60_000)
    await shard.put(first, later)
    await shard.one_pass()
    assert await shard.shard_pass.first_due_ms(shard.lease) == later.due_ms


# --- holds and announced times


async def test_a_held_row_behind_a_row_in_flight_is_marked_only_when_it_is_wanted() -> None:
    shard = Shard()
    first, held = in_lane("a"), in_lane("a", hold="r")
    await shard.put(first)
    await shard.one_pass()
    await shard.put(held)
    await shard.one_pass(late_ms=1_500)
    assert (await shard.stored(held)).hold == "r"
    await shard.shard_pass.answer_wanted(shard.lease, held.position)
    marked = await shard.stored(held)
    assert (marked.hold, marked.retry) == (None, Retry(at_ms=DUE_MS + 2_750, epoch=EPOCH, attempts=0))

    # Its cancel may have it: it does not fire before that time, though its lane is free.
    shard.delivered(first)
    await shard.one_pass(late_ms=2_749)
    assert held.position not in {each.position for each in shard.handed_over}
    await shard.one_pass(late_ms=2_750)
    assert [each.position for each in shard.handed_over] == [held.position]


async def test_a_wanted_row_that_no_pass_has_met_behind_a_row_in_flight_is_marked() -> None:
    # The pass that handed the row before it over ended at a limit.
    shard = Shard()
    first, held = in_lane("a"), in_lane("a", hold="r")
    await shard.put(first, held)
    await shard.one_pass(records_max=1)
    assert shard.handed_over == [first]
    await shard.shard_pass.answer_wanted(shard.lease, held.position)
    assert (await shard.stored(held)).retry is not None


async def test_a_wanted_row_that_is_in_flight_itself_gets_no_mark() -> None:
    # A cancel would believe it, and the row is about to be delivered.
    shard = Shard()
    first = in_lane("a")
    await shard.put(first)
    await shard.one_pass()
    shard.store.put_by_hand(replace(first, hold=RequestId("r")))
    await shard.shard_pass.answer_wanted(shard.lease, first.position)
    assert (await shard.stored(first)).retry is None


async def test_a_wanted_row_within_the_skipped_prefix_is_marked() -> None:
    shard = Shard()
    head, held = waiting_row("a"), in_lane("a", hold="r")
    await shard.put(head, held)
    shard.store.failing["set_retry"] = StoreThrottled()
    await shard.passes(late_ms=OLD_MS)
    del shard.store.failing["set_retry"]
    await shard.passes(late_ms=OLD_MS + 1)
    assert shard.lease.blocked_prefix is not None
    await shard.shard_pass.answer_wanted(shard.lease, held.position)
    marked = await shard.stored(held)
    assert marked.retry is not None
    assert (marked.hold, marked.retry.epoch) == (None, EPOCH)


async def test_an_announced_time_is_never_lowered() -> None:
    # Found by review: the first mark's write has no answer, and a copy of it is applied late. A second mark, for an
    # earlier time, was stored meanwhile; the row fired by it, and a cancel believed the late copy.
    shard = Shard()
    head, held = waiting_row("a", until_ms=DUE_MS + 60_000), in_lane("a", hold="r")
    await shard.put(head, held)
    shard.store.failing["set_retry"] = StoreThrottled(outcome_unknown=True)
    await shard.one_pass()
    assert shard.lease.announced_not_before_ms == {held.position: DUE_MS + 60_000}

    del shard.store.failing["set_retry"]
    shard.store.put_by_hand(replace(head, retry=Retry(at_ms=DUE_MS + 5_000, epoch=EPOCH, attempts=1)))
    await shard.one_pass(late_ms=1)
    assert (await shard.stored(held)).retry == Retry(at_ms=DUE_MS + 60_000, epoch=EPOCH, attempts=0)
    for late_ms in (5_000, 59_999):
        await shard.one_pass(late_ms)
    assert held.position not in {each.position for each in shard.handed_over}


async def test_an_announced_time_is_kept_until_the_frontier_has_passed_it() -> None:
    shard = Shard()
    head, held = waiting_row("a", until_ms=DUE_MS + 4_000), in_lane("a", hold="r")
    await shard.put(head, held)
    await shard.one_pass()
    at_ms = shard.lease.announced_not_before_ms[held.position]
    assert at_ms == DUE_MS + 4_000
    await shard.one_pass(late_ms=3_700)
    assert shard.lease.announced_not_before_ms == {held.position: at_ms}
    await shard.one_pass(late_ms=3_999)
    assert shard.lease.frontier_ms > at_ms
    assert shard.lease.announced_not_before_ms == {}


async def test_a_wanted_row_does_not_take_over_a_time_that_an_earlier_owner_set_by_a_wrong_clock() -> None:
    shard = Shard()
    far_ms = DUE_MS + 10 * 3_600_000
    first, held = in_lane("a"), in_lane("a", hold="r", retry=Retry(at_ms=far_ms, epoch=EPOCH - 1, attempts=2))
    await shard.put(first)
    await shard.one_pass()
    await shard.put(held)
    await shard.one_pass(late_ms=1_500)
    await shard.shard_pass.answer_wanted(shard.lease, held.position)
    assert (await shard.stored(held)).retry == Retry(at_ms=DUE_MS + 2_750, epoch=EPOCH, attempts=2)


@pytest.mark.parametrize("error", [StoreThrottled(), TransactionConflict()])
async def test_a_hold_that_cannot_be_answered_holds_up_its_own_lane_only(error: Exception) -> None:
    shard = Shard()
    waits, marked = waiting_row("a"), in_lane("a", hold="r")
    held, behind, free = in_lane("b", hold="r"), in_lane("b"), in_lane("c")
    await shard.put(waits, marked, held, behind, free)
    shard.store.failing = {"set_retry": error, "drop_hold": error}
    result = await shard.one_pass()
    assert shard.handed_over == [free]
    assert (result.more_now, result.waits_until_ms) == (False, DUE_MS + 50)


async def test_rows_whose_cancel_won_leave_the_pass_and_nothing_else_does() -> None:
    shard = Shard()
    gone, behind, unreadable = in_lane("a", hold="r"), in_lane("a"), broken_row()
    await shard.put(gone, behind, unreadable)

    async def cancelled() -> None:
        del shard.store.rows[(SHARD, gone.position)]

    shard.store.on_page = cancelled
    await shard.one_pass()
    assert shard.handed_over == [behind, unreadable]


# --- room, and slow topics


async def test_a_shard_has_its_share_of_room_and_its_passes_wait_beyond_it() -> None:
    shard = Shard()
    rows = [in_lane(f"lane-{n}", topic=f"topic-{n % 3}") for n in range(ROOM_ROWS + 10)]
    await shard.put(*rows)
    await shard.fill()
    assert shard.handed_over == rows[:ROOM_ROWS]
    assert shard.lease.in_flight.awaited

    # Rows that await cleanup take their room as well.
    shard.delivered(*rows[:100])
    assert shard.landings == 1
    assert not shard.shard_pass.has_room(shard.lease)
    await shard.cleanup.finish()
    assert shard.shard_pass.has_room(shard.lease)
    await shard.one_pass()
    assert shard.handed_over == rows[ROOM_ROWS:]


async def test_content_in_flight_is_bounded() -> None:
    shard = Shard()
    size = CLEANUP_BYTES_MAX // 10
    rows = [in_lane(f"lane-{n}", task_data=b"x" * size) for n in range(25)]
    await shard.put(*rows)
    await shard.fill()
    assert shard.lease.in_flight.size_bytes <= CLEANUP_BYTES_MAX + size + 512
    shard.unsent(*shard.handed_over)
    assert shard.lease.in_flight.size_bytes == 0


@in_virtual_time
async def test_a_topic_that_answers_nothing_holds_up_others_of_its_shard_for_a_second() -> None:
    # Else its backlog would fill the shard's room, until its sends are out of time.
    shard = Shard()
    stuck = [in_lane(f"lane-{n}", topic="stuck") for n in range(2 * ROOM_ROWS)]
    other = in_lane("other")
    await shard.put(*stuck, other)
    result = await shard.passes()
    assert shard.handed_over == stuck[:TOPIC_ROWS_MAX]
    assert result.waits_until_ms == DUE_MS + SLOW_AFTER_MS
    await asyncio.sleep(SLOW_AFTER_MS / 1_000)
    await shard.passes(late_ms=SLOW_AFTER_MS)
    assert shard.handed_over == [other]
    assert shard.shard_pass.has_room(shard.lease)


@in_virtual_time
async def test_a_topic_whose_rows_land_is_healthy_however_old_those_behind_them_are() -> None:
    # Else each pass would read on past a long queue that moves.
    shard = Shard()
    backlog = [in_lane(f"lane-{n}", topic="backlog") for n in range(2 * ROOM_ROWS)]
    await shard.put(*backlog, in_lane("other"))
    await shard.passes()
    handed_over = shard.handed_over
    await asyncio.sleep(0.6 * SLOW_AFTER_MS / 1_000)
    shard.delivered(*backlog[:100])
    await asyncio.sleep(0.6 * SLOW_AFTER_MS / 1_000)
    await shard.passes(late_ms=round(1.2 * SLOW_AFTER_MS))
    assert handed_over + shard.handed_over == backlog[: TOPIC_ROWS_MAX + 100]


async def test_a_topic_that_has_used_up_its_share_is_passed_again_when_half_of_it_is_free() -> None:
    shard = Shard()
    backlog = [in_lane(f"lane-{n}", topic="backlog") for n in range(ROOM_ROWS)]
    await shard.put(*backlog)
    await shard.passes()
    half = TOPIC_ROWS_MAX - SHARE_FREE_ROWS
    shard.delivered(*backlog[: half - 1])
    assert shard.landings == 0
    shard.delivered(backlog[half - 1])
    assert shard.landings == 1
    await shard.one_pass()
    assert not shard.lease.in_flight.share_is_free


async def test_a_share_that_becomes_free_during_the_pass_calls_for_another_at_once() -> None:
    shard = Shard()
    backlog = [in_lane(f"lane-{n}", topic="backlog") for n in range(ROOM_ROWS)]
    await shard.put(*backlog)
    await shard.passes()

    async def land() -> None:
        shard.store.on_page = None
        shard.delivered(*backlog[:TOPIC_ROWS_MAX])

    shard.store.on_page = land
    assert (await shard.one_pass()).more_now


async def test_a_topic_that_was_refused_is_probed_with_a_few_rows_and_others_go_on() -> None:
    shard = Shard()
    away = [in_lane(f"lane-{n}", topic="away") for n in range(700)]
    other = in_lane("other")
    await shard.put(*away, other)
    wait = shard.waits.refused(Topic("away"), RefusalCause.TRANSIENT, "leader_away", now_ms=DUE_MS)
    probe_at_ms = wait.until_ms - DUE_MS
    await shard.passes(late_ms=probe_at_ms)
    assert shard.handed_over == [*away[:PROBE_ROWS_MAX], other]
    shard.waits.succeeded(Topic("away"))
    shard.delivered(*away[:PROBE_ROWS_MAX])
    await shard.one_pass(late_ms=probe_at_ms + 1)
    assert len(shard.handed_over) == 500


# --- the blocked prefix


async def test_only_rows_that_were_old_when_they_were_read_lie_in_the_cached_prefix() -> None:
    # Found by review: behind a prefix that reached up to now, a create "due now" that was stored a moment later was
    # overtaken by the next one of its lane.
    shard = Shard()
    old, young = waiting_row("a"), waiting_row("b", due_ms=DUE_MS + 1)
    await shard.put(old, young)
    await shard.passes(late_ms=OLD_MS)
    assert shard.lease.blocked_prefix is not None
    assert shard.lease.blocked_prefix.last == old.position

    late, next_of_lane = in_lane("c", due_ms=DUE_MS + 1), in_lane("c", due_ms=DUE_MS + 2)
    await shard.put(late, next_of_lane)
    await shard.one_pass(late_ms=OLD_MS)
    assert shard.handed_over == [late, next_of_lane]


@pytest.fixture
async def behind_prefix() -> tuple[Shard, Row, Row]:
    """A shard with a cached prefix; a row that was created late at a position within it, and the next row of its lane."""
    shard = Shard()
    below, above = waiting_row("a", due_ms=DUE_MS - 2), waiting_row("b", due_ms=DUE_MS)
    await shard.put(below, above)
    await shard.passes(late_ms=OLD_MS)
    assert shard.lease.blocked_prefix is not None
    late, next_of_lane = in_lane("c", due_ms=DUE_MS - 1), in_lane("c", due_ms=DUE_MS + OLD_MS)
    await shard.put(late, next_of_lane)
    return shard, late, next_of_lane


async def test_a_wake_up_for_a_time_within_the_prefix_opens_it(behind_prefix: tuple[Shard, Row, Row]) -> None:
    # The wake-up of its create, or that of a repeated create whose first wake-up was lost.
    shard, late, next_of_lane = behind_prefix
    shard.lease.open_prefix(DUE_MS + 1)
    assert shard.lease.blocked_prefix is not None, "a create that is due behind the prefix leaves it"
    shard.lease.open_prefix(late.due_ms)
    await shard.one_pass(late_ms=OLD_MS)
    assert shard.handed_over == [late, next_of_lane]


async def test_a_wake_up_that_comes_while_a_pass_waits_for_the_frontier_opens_the_prefix_to_it(
    behind_prefix: tuple[Shard, Row, Row],
) -> None:
    shard, late, next_of_lane = behind_prefix
    gate = asyncio.Event()
    cover_now = shard.incarnation.cover_now

    async def at_the_gate() -> None:
        await cover_now()
        await gate.wait()

    shard.incarnation.cover_now = at_the_gate  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(shard.one_pass(late_ms=OLD_MS))
        await asyncio.sleep(0)
        shard.lease.open_prefix(late.due_ms)
        gate.set()
    assert shard.handed_over == [late, next_of_lane]


async def test_a_pass_that_was_reading_when_its_prefix_was_opened_hands_nothing_over(
    behind_prefix: tuple[Shard, Row, Row],
) -> None:
    shard, late, next_of_lane = behind_prefix

    async def wake_up() -> None:
        shard.store.on_page = None
        shard.lease.open_prefix(late.due_ms)

    shard.store.on_page = wake_up
    thrown_away = await shard.one_pass(late_ms=OLD_MS)
    assert (shard.handed_over, thrown_away.more_now) == ([], True)
    await shard.one_pass(late_ms=OLD_MS)
    assert shard.handed_over == [late, next_of_lane]


async def test_a_pass_that_was_dropping_holds_when_its_prefix_was_opened_hands_nothing_over(
    behind_prefix: tuple[Shard, Row, Row],
) -> None:
    shard, late, next_of_lane = behind_prefix
    shard.store.put_by_hand(replace(next_of_lane, hold=RequestId("r")))
    drop_hold = shard.store.drop_hold

    async def wake_up_first(name: RowName) -> bool:
        shard.lease.open_prefix(late.due_ms)
        return await drop_hold(name)

    shard.store.drop_hold = wake_up_first  # type: ignore[method-assign]
    assert (await shard.one_pass(late_ms=OLD_MS)).more_now
    assert shard.handed_over == []


async def test_a_wake_up_during_a_pass_keeps_it_from_remembering_a_prefix_over_the_new_row() -> None:
    # The pass has read past the new row's position already.
    shard = Shard()
    await shard.put(waiting_row("a", due_ms=DUE_MS - 2), waiting_row("b"))
    late, next_of_lane = in_lane("c", due_ms=DUE_MS - 1), in_lane("c", due_ms=DUE_MS + OLD_MS)

    async def created() -> None:
        shard.store.on_page = None
        await shard.put(late)
        shard.lease.open_prefix(late.due_ms)

    shard.store.on_page = created
    await shard.one_pass(late_ms=OLD_MS)
    await shard.put(next_of_lane)
    await shard.one_pass(late_ms=OLD_MS)
    assert shard.handed_over == [late, next_of_lane]


async def test_the_prefix_is_read_anew_at_each_scan_interval_and_when_its_first_wait_ends() -> None:
    shard = Shard()
    first, second = waiting_row("a", until_ms=DUE_MS + OLD_MS + 3_000), waiting_row("b")
    await shard.put(first, second)
    await shard.passes(late_ms=OLD_MS)
    # A create whose wake-up was lost.
    lost = in_lane("c", due_ms=DUE_MS - 1)
    await shard.put(lost)
    await shard.passes(late_ms=OLD_MS + 2_999)
    assert shard.handed_over == []
    await shard.passes(late_ms=OLD_MS + 3_000)
    assert [each.position for each in shard.handed_over] == [lost.position, first.position]

    shard.delivered(lost, first)
    await shard.passes(late_ms=OLD_MS + 3_001)
    assert shard.lease.blocked_prefix is not None
    lost_too = in_lane("d", due_ms=DUE_MS - 1)
    await shard.put(lost_too)
    await shard.passes(late_ms=OLD_MS + 8_000)
    assert shard.handed_over == []
    await shard.passes(late_ms=OLD_MS + 8_001)
    assert shard.handed_over == [lost_too]


async def test_passes_behind_a_prefix_share_it_and_copy_nothing_of_it() -> None:
    # Each pass of a shard with ten thousand waiting lanes copied them all, twice.
    class Lanes(dict[Any, int]):
        def items(self) -> Any:
            raise AssertionError("copied")

        keys = values = __iter__ = items

    shard = Shard()
    await shard.put(*(waiting_row(f"lane-{n}") for n in range(300)))
    await shard.passes(late_ms=OLD_MS)
    prefix = shard.lease.blocked_prefix
    assert prefix is not None
    assert len(prefix.lanes) == 300
    lanes = Lanes(prefix.lanes)
    shard.lease.blocked_prefix = replace(prefix, lanes=lanes)
    behind, free, more = in_lane("lane-7", due_ms=DUE_MS + 1), in_lane("x", due_ms=DUE_MS + 2), waiting_row("y")
    await shard.put(behind, free, more)
    await shard.passes(late_ms=OLD_MS + 1)
    assert shard.handed_over == [free]
    assert shard.lease.blocked_prefix.lanes is lanes
    assert len(lanes) == 301
    assert shard.lease.blocked_lanes.keys() <= {more.schedule.lane}


async def test_a_short_prefix_is_not_kept_unless_it_is_asked_for() -> None:
    shard = Shard(prefix_rows_min=3)
    await shard.put(waiting_row("a"), waiting_row("b"))
    await shard.passes(late_ms=OLD_MS)
    assert shard.lease.blocked_prefix is None
    await shard.put(waiting_row("c"))
    await shard.passes(late_ms=OLD_MS)
    assert shard.lease.blocked_prefix is not None


async def test_rows_in_flight_within_the_prefix_are_read_again_when_they_land_unsent() -> None:
    shard = Shard()
    flying, waits = in_lane("a"), waiting_row("b")
    await shard.put(flying, waits)
    await shard.one_pass(late_ms=OLD_MS)
    await shard.passes(late_ms=OLD_MS)
    assert shard.handed_over == [flying]
    assert shard.lease.blocked_prefix is not None
    assert shard.lease.blocked_prefix.last == waits.position
    shard.unsent(flying)
    await shard.one_pass(late_ms=OLD_MS)
    assert shard.handed_over == [flying]


async def test_a_long_prefix_is_read_in_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_pass, "ROWS_READ_MAX", 100)
    monkeypatch.setattr(shard_pass, "PAGE_ROWS_MAX", 50)
    shard = Shard()
    free = in_lane("x", due_ms=DUE_MS + 1)
    await shard.put(*(waiting_row(f"lane-{n}") for n in range(350)), free)
    first = await shard.one_pass(late_ms=OLD_MS)
    assert (shard.handed_over, first.more_now, shard.store.rows_read < 200) == ([], True, True)
    await shard.passes(late_ms=OLD_MS)
    assert shard.handed_over == [free]


@pytest.mark.parametrize("because", ["young", "many lanes"])
async def test_rows_behind_more_waiting_ones_than_the_prefix_takes_are_reached_all_the_same(
    because: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A pass that stopped after so many rows would begin at the same place again, and again.
    monkeypatch.setattr(shard_pass, "ROWS_READ_MAX", 100)
    monkeypatch.setattr(shard_pass, "PAGE_ROWS_MAX", 50)
    monkeypatch.setattr(planning, "PREFIX_LANES_MAX", 40)
    shard = Shard()
    free = in_lane("x", due_ms=DUE_MS + 1)
    await shard.put(*(waiting_row(f"lane-{n}") for n in range(350)), free)
    await shard.passes(late_ms=2 if because == "young" else OLD_MS + 1)
    assert shard.handed_over == [free]


# --- all of it at once


class Course:
    """Rows of some lanes, deliveries that succeed and fail, topics that come and go; drawn from one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.shard = Shard()
        self.late_ms = 0
        self.waiting: dict[Any, list[Row]] = {}
        """By lane, the rows that are to be delivered, in order."""
        self.flying: dict[Any, list[Row]] = {}

    async def create(self, *, due_ms: int | None = None) -> None:
        key, topic = self.rng.choice("abcd"), self.rng.choice(("well", "ill"))
        new = in_lane(key, topic=topic, due_ms=DUE_MS + self.late_ms if due_ms is None else due_ms)
        await self.shard.put(new)
        self.waiting.setdefault(new.schedule.lane, []).append(new)

    async def a_pass(self) -> PassResult:
        result = await self.shard.one_pass(self.late_ms, records_max=self.rng.choice((1, 3, 500)))
        for each in self.shard.handed_over:
            assert isinstance(each, Row)
            of_lane = self.flying.setdefault(each.schedule.lane, [])
            expected = self.waiting[each.schedule.lane][len(of_lane)]
            assert each.position == expected.position, "order of the lane, or handed over twice"
            of_lane.append(expected)
        return result

    async def land(self, *, succeeds: bool) -> None:
        """One lane's rows: all are delivered, or, from one on, none was sent."""
        lanes = [lane for lane, rows in self.flying.items() if rows]
        if not lanes:
            return
        lane = self.rng.choice(lanes)
        rows, self.flying[lane] = self.flying[lane], []
        done = len(rows) if succeeds else self.rng.randrange(len(rows))
        self.shard.delivered(*rows[:done])
        del self.waiting[lane][:done]
        if done:
            self.shard.waits.succeeded(lane[0])
        if done < len(rows):
            now_ms = self.shard.clock.now_ms()
            self.shard.waits.refused(lane[0], RefusalCause.TRANSIENT, "leader_away", now_ms=now_ms)
            self.shard.unsent(*rows[done:])
        if self.rng.random() < 0.5:
            await self.shard.cleanup.finish()

    async def step(self) -> None:
        match self.rng.randrange(6):
            case 0:
                await self.create()
            case 1:
                await self.land(succeeds=self.rng.random() < 0.5)
            case 2:
                self.late_ms += self.rng.choice((0, 1, 200, 3_000, 20_000))
            case 3:
                self.shard.paused = Pauses(topics={"ill": pause()}) if self.rng.random() < 0.5 else NOTHING_PAUSED
                self.shard.lease.open_prefix(0)
            case _:
                await self.a_pass()

    async def ends_well(self) -> None:
        """As the loop would from now on: passes when one says so, when rows land, and at each scan."""
        self.shard.paused = NOTHING_PAUSED
        self.shard.lease.open_prefix(0)
        for _ in range(400):
            landings = self.shard.landings
            result = await self.a_pass()
            while any(self.flying.values()):
                await self.land(succeeds=True)
            await self.shard.cleanup.finish()
            if result.more_now or self.shard.landings > landings:
                continue
            if not any(self.waiting.values()):
                return
            now_ms = DUE_MS + self.late_ms
            self.late_ms = min(result.waits_until_ms or now_ms + 5_000, now_ms + 5_000) - DUE_MS
        raise AssertionError(f"left: {[lane for lane, rows in self.waiting.items() if rows]}")


@pytest.mark.parametrize("seed", range(40))
async def test_every_row_is_handed_over_in_the_order_of_its_lane_whatever_becomes_of_the_others(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_pass, "PAGE_ROWS_FIRST", 2)
    monkeypatch.setattr(shard_pass, "PAGE_ROWS_MAX", 3)
    monkeypatch.setattr(shard_pass, "ROWS_READ_MAX", 6)
    monkeypatch.setattr(shard_pass, "ROOM_ROWS", 8)
    monkeypatch.setattr(planning, "PREFIX_LANES_MAX", 3)
    monkeypatch.setattr(planning, "PROBE_ROWS_MAX", 1)
    monkeypatch.setattr(planning, "TOPIC_ROWS_MAX", 4)
    course = Course(seed)
    for n in range(20):
        await course.create(due_ms=DUE_MS - 30_000 + n * 1_500)
    for _ in range(120):
        await course.step()
    await course.ends_well()


# --- pointers of rows that wait for weeks


class Weeks(Shard):
    """A shard whose rows have been due for more than twenty days."""

    late_ms = POINTER_PUSH_AFTER_MS + 1

    async def put(self, *rows: Row | BrokenRow) -> None:
        await super().put(*rows)
        for each in rows:
            if isinstance(each, Row):
                name = (each.schedule.client_id, each.schedule.schedule_key)
                self.store.pointers[name] = builders.pointer(each, expires_at_s=1)

    async def pushed(self, late_ms: int | None = None) -> int:
        """Makes passes at this time; returns how many pointers were pushed by them."""
        before = self.store.calls["push_pointer_expiry"]
        await self.passes(self.late_ms if late_ms is None else late_ms)
        return self.store.calls["push_pointer_expiry"] - before

    def expiry_of(self, of: Row) -> int:
        return self.store.pointers[(of.schedule.client_id, of.schedule.schedule_key)].expires_at_s


async def test_the_pointer_of_a_row_that_waits_for_weeks_is_pushed_once_in_twenty_days() -> None:
    # Found by review: it expired, the key looked free, and two schedules fired.
    shard = Weeks()
    waiting = waiting_row("a", until_ms=DUE_MS + 100 * DAY_MS)
    await shard.put(waiting)
    assert await shard.pushed(POINTER_PUSH_AFTER_MS - 5_001) == 0
    assert await shard.pushed() == 1
    assert shard.expiry_of(waiting) == pointer_expiry_s(
        due_ms=DUE_MS, at_ms=DUE_MS + shard.late_ms, retention_ms=shard.settings.retention_ms
    )
    assert await shard.pushed(2 * POINTER_PUSH_AFTER_MS) == 0
    assert await shard.pushed(2 * POINTER_PUSH_AFTER_MS + 5_001) == 1


async def test_paused_rows_and_rows_of_a_newer_format_count_as_read() -> None:
    shard = Weeks()
    shard.paused = Pauses(topics={"paused": pause()})
    newer = broken_row(newer_format=True, client_id="c", schedule_key="k")
    await shard.put(in_lane("a", topic="paused"), newer, broken_row(newer_format=True))
    assert await shard.pushed() == 2


async def test_rows_of_the_blocked_prefix_are_pushed_a_hundred_at_each_reading() -> None:
    shard = Weeks()
    rows = [waiting_row(f"lane-{n}", until_ms=DUE_MS + 100 * DAY_MS) for n in range(2 * PUSHES_MAX + 1)]
    await shard.put(*rows)
    assert [await shard.pushed(shard.late_ms + n * 5_001) for n in range(4)] == [PUSHES_MAX, PUSHES_MAX, 1, 0]
    assert all(shard.expiry_of(each) > 1 for each in rows)


async def test_pushes_come_after_the_hand_over_and_do_not_fail_the_pass() -> None:
    shard = Weeks()
    due, waiting = in_lane("a"), waiting_row("b", until_ms=DUE_MS + 100 * DAY_MS)
    await shard.put(due, waiting)
    shard.store.failing["push_pointer_expiry"] = StoreThrottled()
    assert not (await shard.one_pass(shard.late_ms)).more_now
    assert shard.handed_over == [due]
    del shard.store.failing["push_pointer_expiry"]
    assert await shard.pushed(shard.late_ms + 5_001) == 1
    assert shard.expiry_of(waiting) > 1


@in_virtual_time
async def test_pushes_that_get_no_answer_hold_up_the_next_pass_for_a_second_at_most() -> None:
    shard = Weeks()
    await shard.put(waiting_row("b", until_ms=DUE_MS + 100 * DAY_MS))

    async def no_answer(pointer_of: RowName, *, expires_at_s: int) -> None:
        await asyncio.Event().wait()

    shard.store.push_pointer_expiry = no_answer  # type: ignore[method-assign]
    began_s = asyncio.get_running_loop().time()
    await shard.one_pass(shard.late_ms)
    assert asyncio.get_running_loop().time() - began_s == pytest.approx(shard_pass.PUSHES_S)
    assert shard.lease.pointer_pushed_ms == {}


async def test_pushed_pointers_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_pass, "PUSHED_MAX", 2)
    shard = Weeks()
    await shard.put(*(waiting_row(f"lane-{n}", until_ms=DUE_MS + 100 * DAY_MS) for n in range(3)))
    assert await shard.pushed() == 3
    assert len(shard.lease.pointer_pushed_ms) == 2
