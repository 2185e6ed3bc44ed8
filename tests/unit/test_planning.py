"""Rows that fire in a pass, rows that wait, and what each waiting row holds back: its lane, and nothing else."""

from dataclasses import replace
from typing import Any

import pytest

from clockwork.domain.destination import Topic
from clockwork.domain.pauses import Pauses
from clockwork.domain.planning import (
    PROBE_ROWS_MAX,
    SLOW_AFTER_MS,
    TOPIC_ROWS_MAX,
    Action,
    BatchLimits,
    DestinationWait,
    RetryMark,
)
from clockwork.domain.run import Chain, RunId, RunKind, RunOfRow
from clockwork.domain.schedule import BrokenRow, Guarantee, OnLate, Row
from tests.support.builders import CLIENT, DUE_MS, TOPIC, broken_row, pause, row, schedule
from tests.support.plans import BOUND_MS, EPOCH, LANE, fired, lane_row, plan, planner, refused

# --- what fires


def test_rows_that_are_due_fire_in_position_order() -> None:
    rows = [lane_row("a"), lane_row("b"), lane_row("a"), lane_row("c")]

    planned = plan(rows)

    assert fired(planned) == rows
    assert {each.action for each in planned.deliveries} == {Action.DELIVER}


def test_a_row_due_at_the_bound_fires_and_one_a_millisecond_later_does_not() -> None:
    now, later = lane_row("a", due_ms=BOUND_MS), lane_row("b", due_ms=BOUND_MS + 1)

    planned = plan([now, later])

    assert fired(planned) == [now]
    assert planned.next_due_ms == BOUND_MS + 1


def test_nothing_behind_a_row_that_is_not_due_is_asked_for() -> None:
    planned = planner()

    assert planned.add(lane_row("a"))
    assert not planned.add(lane_row("b", due_ms=BOUND_MS + 1))


def test_a_row_delivered_and_not_yet_deleted_neither_fires_nor_holds_its_lane() -> None:
    done, behind = lane_row("a"), lane_row("a")

    planned = plan([done, behind], planner(left_out={done.position}))

    assert fired(planned) == [behind]
    assert planned.due_rows == 1


def test_a_row_whose_back_off_has_ended_fires_again() -> None:
    again = lane_row("a", retry=refused(BOUND_MS))

    assert fired(plan([again])) == [again]


# --- what waits


def test_a_row_that_backs_off_holds_its_lane_and_no_other() -> None:
    waiting, behind, elsewhere = lane_row("a", retry=refused()), lane_row("a"), lane_row("b")
    other_topic = lane_row("a", topic="invoices")

    planned = plan([waiting, behind, elsewhere, other_topic])

    assert fired(planned) == [elsewhere, other_topic]
    assert planned.waits_until_ms == BOUND_MS + 5_000


def test_what_stands_before_a_waiting_row_of_its_lane_still_fires() -> None:
    before, waiting, behind = lane_row("a"), lane_row("a", retry=refused()), lane_row("a")

    assert fired(plan([before, waiting, behind])) == [before]


def test_a_back_off_counts_whichever_owner_wrote_it() -> None:
    assert fired(plan([lane_row("a", retry=refused(epoch=EPOCH - 1))])) == []


def test_all_lanes_of_a_missing_topic_wait_and_those_of_others_do_not() -> None:
    wait = DestinationWait(until_ms=BOUND_MS + 500, reason="topic_missing")
    gone, gone_too, there = lane_row("a", topic="gone"), lane_row("b", topic="gone"), lane_row("a")

    planned = plan([gone, gone_too, there], planner(destination_waits={Topic("gone"): wait}))

    assert fired(planned) == [there]
    assert planned.waits_until_ms == BOUND_MS + 500


def test_the_earliest_end_of_a_wait_is_when_to_look_again() -> None:
    planned = plan([lane_row(key, retry=refused(BOUND_MS + ms)) for key, ms in [("a", 900), ("b", 300), ("c", 600)]])

    assert planned.waits_until_ms == BOUND_MS + 300


def test_time_zero_is_a_time_like_any_other() -> None:
    planned = planner(bound_ms=0)

    planned.block(LANE, 0)
    planned.block(LANE, 50)

    assert planned.waits_until_ms == 0


def test_a_lane_that_is_held_back_twice_waits_for_the_later_end() -> None:
    planned = planner()

    planned.block(LANE, BOUND_MS + 500)
    planned.block(LANE, BOUND_MS + 100)

    assert planned.blocked == {LANE: BOUND_MS + 500}


def test_a_lane_with_both_guarantees_sends_one_kind_at_a_time() -> None:
    # The transaction and the plain producer would otherwise race each other for the order.
    first, second = lane_row("a"), lane_row("a", guarantee=Guarantee.AT_LEAST_ONCE)
    third, elsewhere = lane_row("a"), lane_row("b", guarantee=Guarantee.AT_LEAST_ONCE)

    planned = plan([first, second, third, elsewhere])

    assert fired(planned) == [first, elsewhere]
    assert planned.waits_until_ms == BOUND_MS, "the rest may go at once, in the next pass"


# --- rows in flight


def test_rows_behind_one_in_flight_wait_for_its_lane_and_no_other_rows_do() -> None:
    # x-lanes-out, x-lanes-order: the one in flight may come back unsent.
    flying, behind, elsewhere = lane_row("a"), lane_row("a"), lane_row("b")
    broken, other_topic = broken_row(lane=LANE), lane_row("a", topic="invoices")

    planned = plan(
        [flying, behind, elsewhere, broken, other_topic], planner(left_out={flying.position}, lanes_in_flight={LANE})
    )

    assert fired(planned) == [elsewhere, other_topic]
    assert (planned.awaits_landing, planned.waits_until_ms) == (True, None)


def test_a_row_that_nothing_waits_for_is_not_awaited() -> None:
    assert not plan([lane_row("b")], planner(lanes_in_flight={LANE})).awaits_landing


def test_a_held_row_that_waits_for_rows_in_flight_is_not_marked() -> None:
    # That is over in milliseconds; the mark would hold it back for a second.
    assert plan([lane_row("a", hold="r1")], planner(lanes_in_flight={LANE})).retry_marks == []


def test_a_healthy_topic_with_its_share_of_rows_in_flight_ends_the_pass_until_they_land() -> None:
    # To read on behind a long backlog that is being delivered would cost a read of all of it for each batch.
    rows = [lane_row("a"), lane_row("b"), lane_row("c", topic="invoices")]

    planned = plan(rows, planner(rows_in_flight={Topic("orders"): TOPIC_ROWS_MAX - 1}))

    assert fired(planned) == rows[:1]
    assert (planned.full, planned.awaits_landing, planned.awaits_share) == (False, False, "orders")
    assert planned.waits_until_ms == BOUND_MS + SLOW_AFTER_MS, "by then it counts as slow"


def test_a_slow_topic_has_few_rows_in_flight_and_the_pass_reads_on_past_the_others() -> None:
    # Its rows would use up the shard's room, and hold up every other topic.
    rows = [lane_row("a"), lane_row("b"), lane_row("c", topic="invoices")]

    planned = plan(rows, planner(rows_in_flight={Topic("orders"): PROBE_ROWS_MAX}, slow={Topic("orders")}))

    assert fired(planned) == [rows[2]]
    assert (planned.full, planned.awaits_landing) == (False, True)


def test_a_topic_is_probed_with_a_few_rows_and_the_next_pass_passes_by_the_others() -> None:
    rows = [lane_row(f"lane-{n}") for n in range(PROBE_ROWS_MAX + 1)]

    planned = plan(rows, planner(slow={Topic("orders")}))

    assert fired(planned) == rows[:-1]
    assert planned.full


def test_a_dropped_row_does_not_overtake_one_of_its_lane_that_waits_for_its_topic() -> None:
    waiting = lane_row("a")
    late = row(schedule(ordering_key="a", deadline_ms=1, on_late=OnLate.DROP))

    planned = plan([waiting, late], planner(rows_in_flight={Topic("orders"): PROBE_ROWS_MAX}, slow={Topic("orders")}))

    assert fired(planned) == []


# --- holds and retry marks


def test_a_held_row_that_fires_says_so_and_gets_no_retry_mark() -> None:
    held = lane_row("a", hold="r1")

    planned = plan([held])

    assert [each.held for each in planned.deliveries] == [True]
    assert planned.retry_marks == []


def test_a_row_without_a_hold_needs_none_dropped() -> None:
    assert [each.held for each in plan([lane_row("a")]).deliveries] == [False]


def test_a_held_row_behind_a_waiting_one_is_told_until_when_it_waits() -> None:
    held = lane_row("a", hold="r1")

    planned = plan([lane_row("a", retry=refused(BOUND_MS + 700)), held])

    assert planned.retry_marks == [RetryMark(row=held, until_ms=BOUND_MS + 700)]


def test_a_held_row_of_a_waiting_topic_is_told_when_the_topic_is_probed() -> None:
    wait = DestinationWait(until_ms=BOUND_MS + 500, reason="topic_missing")
    held = lane_row("a", hold="r1")

    planned = plan([held], planner(destination_waits={held.schedule.topic: wait}))

    assert planned.retry_marks == [RetryMark(row=held, until_ms=BOUND_MS + 500)]


def test_a_back_off_written_by_an_earlier_owner_is_marked_anew() -> None:
    # A cancel believes only the present owner's epoch.
    held = lane_row("a", hold="r1", retry=refused(BOUND_MS + 700, epoch=EPOCH - 1))

    assert plan([held]).retry_marks == [RetryMark(row=held, until_ms=BOUND_MS + 700)]


def test_a_row_that_this_owner_marked_keeps_the_hold_of_its_cancel() -> None:
    # The cancel is about to decide; a second mark would drop its hold and make it begin again.
    head = lane_row("a", retry=refused(BOUND_MS + 700))
    alone = lane_row("b", hold="r1", retry=refused(BOUND_MS + 700))
    behind = lane_row("a", hold="r2", retry=refused(BOUND_MS + 300, attempts=0))

    assert plan([head, alone, behind]).retry_marks == []


def test_a_mark_that_has_run_out_is_written_again() -> None:
    behind = lane_row("a", hold="r1", retry=refused(BOUND_MS, attempts=0))

    planned = plan([lane_row("a", retry=refused(BOUND_MS + 700)), behind])

    assert planned.retry_marks == [RetryMark(row=behind, until_ms=BOUND_MS + 700)]


def test_a_mark_never_shortens_a_rows_own_back_off() -> None:
    # The head was created late, before a row that had been refused already.
    head = lane_row("a", retry=refused(BOUND_MS + 100))
    behind = lane_row("a", hold="r1", retry=refused(BOUND_MS + 60_000, epoch=EPOCH - 1, attempts=6))

    assert plan([head, behind]).retry_marks == [RetryMark(row=behind, until_ms=BOUND_MS + 60_000)]


def test_a_held_row_of_at_least_once_is_never_marked() -> None:
    # A zombie may have sent it already, so no cancel of it may be granted any more.
    rows = [
        lane_row("a", hold="r1", guarantee=Guarantee.AT_LEAST_ONCE, retry=refused(epoch=EPOCH - 1)),
        lane_row("a", hold="r2", guarantee=Guarantee.AT_LEAST_ONCE),
    ]

    assert plan(rows).retry_marks == []


def test_waiting_rows_without_a_hold_cost_no_write() -> None:
    rows = [lane_row("a", retry=refused(epoch=EPOCH - 1)), lane_row("a")]

    assert plan(rows).retry_marks == []


# --- limits


def test_a_pass_takes_no_more_rows_than_its_limit_and_says_that_there_are_more() -> None:
    rows = [lane_row("a"), lane_row("b"), lane_row("c")]

    planned = plan(rows, planner(limits=BatchLimits(records_max=2, bytes_max=1_000_000)))

    assert fired(planned) == rows[:2]
    assert planned.full


def test_waiting_rows_do_not_use_up_the_limit() -> None:
    waiting = [lane_row(f"w{n}", retry=refused()) for n in range(5)]
    free = lane_row("a")

    planned = plan([*waiting, free], planner(limits=BatchLimits(records_max=1, bytes_max=1_000_000)))

    assert fired(planned) == [free]
    assert not planned.full


@pytest.mark.parametrize("last", [lane_row("c", size=400), broken_row(raw=b"x" * 400)])
def test_a_pass_takes_no_more_bytes_than_its_limit(last: Row | BrokenRow) -> None:
    rows = [lane_row("a", size=400), lane_row("b", size=400), last]
    weight = rows[0].schedule.size_bytes if isinstance(rows[0], Row) else 0

    exact = plan(rows, planner(limits=BatchLimits(records_max=10, bytes_max=3 * weight)))
    short = plan(rows, planner(limits=BatchLimits(records_max=10, bytes_max=3 * weight - 1)))

    assert fired(exact) == rows
    assert fired(short) == rows[:2]
    assert short.full


def test_a_row_larger_than_the_limit_fires_alone() -> None:
    large, small = lane_row("a", size=5_000), lane_row("b")

    planned = plan([large, small], planner(limits=BatchLimits(records_max=10, bytes_max=1_000)))

    assert fired(planned) == [large]
    assert planned.full


def test_a_batch_that_just_fits_is_not_called_full() -> None:
    planned = plan([lane_row("a"), lane_row("b")], planner(limits=BatchLimits(records_max=2, bytes_max=1_000_000)))

    assert not planned.full


# --- figures


def test_rows_that_are_due_are_counted_whether_they_fire_or_wait() -> None:
    oldest = lane_row("a", retry=refused(), due_ms=DUE_MS)
    rows = [oldest, lane_row("b", due_ms=DUE_MS + 1), lane_row("c", due_ms=BOUND_MS + 1)]

    planned = plan(rows)

    assert planned.due_rows == 2
    assert planned.oldest_due_ms == DUE_MS


# --- watchdogs


def watchdog(lane: str = "a", **fields: Any) -> Row:
    job = RunOfRow(
        rev=1,
        version=1,
        kind=RunKind.WATCHDOG,
        chain=Chain.MAIN,
        scheduled_at_ms=DUE_MS,
        cursor_ms=DUE_MS,
        run_id=RunId("s1"),
        timeout_ms=1,
    )
    return replace(lane_row(lane, **fields), run=job)


def test_a_watchdog_is_never_sent_and_ends_inside_the_transaction() -> None:
    for guarantee in Guarantee:
        (planned,) = plan([watchdog(guarantee=guarantee)]).deliveries

        assert (planned.action, planned.guarantee, planned.lane) == (Action.DROP, Guarantee.EXACTLY_ONCE, None)
        assert planned.failure is not None
        assert planned.failure.reason == "timed_out"


def test_a_watchdog_waits_for_no_lane_topic_or_pause() -> None:
    wait = DestinationWait(until_ms=BOUND_MS + 500, reason="topic_missing")
    behind_a_waiting_row = watchdog("a")
    paused = Pauses(version=1, clients={CLIENT: pause()})

    assert fired(plan([lane_row("a", retry=refused()), behind_a_waiting_row])) == [behind_a_waiting_row]
    in_flight = frozenset({LANE})
    for each in (
        planner(destination_waits={TOPIC: wait}),
        planner(paused=paused),
        planner(lanes_in_flight=in_flight),
    ):
        of_lane = watchdog(LANE[1])
        assert fired(plan([of_lane], each)) == [of_lane]


def test_a_watchdog_holds_back_no_row_of_its_jobs_lane() -> None:
    first, behind = watchdog("a"), lane_row("a")

    assert fired(plan([first, behind])) == [first, behind]
    in_flight = planner(left_out={first.position})
    assert fired(plan([first, behind], in_flight)) == [behind]


def test_a_watchdog_is_no_row_that_is_due() -> None:
    # A gauge of what is late: nothing is sent for it.
    waiting = lane_row("a", retry=refused())
    full = planner(limits=BatchLimits(records_max=1, bytes_max=1_000_000))

    assert (plan([watchdog("b"), waiting], full).due_rows, full.oldest_due_ms) == (0, None)
    both = plan([watchdog("b"), waiting])
    assert (both.due_rows, both.oldest_due_ms) == (1, waiting.due_ms)
