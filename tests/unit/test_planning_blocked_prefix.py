"""The blocked prefix: the run of waiting rows at the lowest positions, which the next passes need not read again."""

from clockwork.domain.destination import Topic
from clockwork.domain.planning import DestinationWait
from clockwork.domain.schedule import BrokenRow, Guarantee, OrderingKey, Row
from tests.support.builders import broken_row
from tests.support.plans import BOUND_MS, LANE, fired, lane_row, plan, planner, prefix, refused


def test_rows_that_wait_at_the_beginning_are_the_blocked_prefix() -> None:
    waiting = [lane_row("a", retry=refused()), lane_row("a"), lane_row("b", retry=refused(BOUND_MS + 900))]

    planned = plan([*waiting, lane_row("c"), lane_row("a")])

    assert planned.prefix_last == waiting[-1].position
    assert planned.prefix_rows == 3
    assert planned.prefix_lanes == {LANE: BOUND_MS + 5_000, (Topic("orders"), OrderingKey("b")): BOUND_MS + 900}


def test_a_row_that_fires_ends_the_prefix_because_its_transaction_may_fail() -> None:
    planned = plan([lane_row("a"), lane_row("b", retry=refused())])

    assert planned.prefix_last is None
    assert planned.prefix_rows == 0


def test_delivered_rows_lie_within_the_prefix() -> None:
    waiting, done = lane_row("a", retry=refused()), lane_row("b")

    planned = plan([waiting, done], planner(left_out={done.position}))

    assert planned.prefix_last == done.position
    assert planned.prefix_rows == 1


def test_delivered_rows_behind_the_prefix_do_not_lengthen_it() -> None:
    waiting, fires, done = lane_row("a", retry=refused()), lane_row("b"), lane_row("c")

    planned = plan([waiting, fires, done], planner(left_out={done.position}))

    assert planned.prefix_last == waiting.position


def test_a_row_that_waits_only_for_this_pass_ends_the_prefix() -> None:
    rows = [lane_row("a", retry=refused()), lane_row("b"), lane_row("b", guarantee=Guarantee.AT_LEAST_ONCE)]

    assert plan(rows).prefix_last == rows[0].position


def test_a_row_of_a_newer_format_without_a_lane_lies_in_the_prefix_too() -> None:
    # If it ended the prefix, a long run behind it would be read again at every pass, and never be skipped.
    rows: list[Row | BrokenRow] = [broken_row(newer_format=True), lane_row("a", retry=refused())]
    assert plan(rows).prefix_last == rows[1].position


def test_a_row_of_a_newer_format_with_a_lane_may_lie_in_the_prefix() -> None:
    newer = broken_row(lane=LANE, newer_format=True)

    planned = plan([newer, lane_row("b")])

    assert planned.prefix_last == newer.position
    assert planned.prefix_lanes == {LANE: BOUND_MS}


def test_a_pass_that_begins_behind_the_prefix_blocks_its_lanes() -> None:
    planned = planner()
    planned.skip(prefix({LANE: BOUND_MS + 700}, until_ms=BOUND_MS + 700))

    behind, held, elsewhere = lane_row("a"), lane_row("a", hold="r1"), lane_row("b")
    plan([behind, held, elsewhere], planned)

    assert fired(planned) == [elsewhere]
    assert [(mark.row, mark.until_ms) for mark in planned.retry_marks] == [(held, BOUND_MS + 700)]
    assert planned.waits_until_ms == BOUND_MS + 700


def test_the_prefix_grows_while_more_of_its_lanes_waits() -> None:
    wait = DestinationWait(until_ms=BOUND_MS + 500, reason="topic_missing")
    planned = planner(destination_waits={Topic("gone"): wait})
    planned.skip(prefix({LANE: BOUND_MS + 700}, until_ms=BOUND_MS + 700))
    gone = lane_row("b", topic="gone")

    plan([lane_row("a"), gone], planned)

    assert planned.prefix_last == gone.position
    assert planned.prefix_lanes == {LANE: BOUND_MS + 700, gone.schedule.lane: BOUND_MS + 500}
    assert planned.waits_until_ms == BOUND_MS + 500
