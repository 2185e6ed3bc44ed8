"""The blocked prefix: the run of waiting rows at the lowest positions, which the next passes need not read again."""

import pytest

from clockwork.domain import planning
from clockwork.domain.destination import Topic
from clockwork.domain.pauses import Pauses
from clockwork.domain.planning import DestinationWait
from clockwork.domain.schedule import BrokenRow, Guarantee, OnLate, OrderingKey, Row
from tests.support.builders import broken_row, pause, row, schedule
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
    assert (planned.prefix_lanes, planned.prefix_destinations) == ({}, {Topic("gone"): BOUND_MS + 500})
    assert planned.waits_until_ms == BOUND_MS + 500


def test_a_topic_that_waits_as_a_whole_is_one_entry_of_the_prefix_however_many_lanes_it_has() -> None:
    # A schedule without an ordering key is a lane of its own: a dead topic of a million rows has a million lanes.
    wait = DestinationWait(until_ms=BOUND_MS + 500, reason="topic_missing")
    paused = Pauses(topics={"paused": pause()})
    rows = [lane_row(f"lane-{n}", topic=topic) for n in range(50) for topic in ("gone", "paused")]

    planned = plan(rows, planner(destination_waits={Topic("gone"): wait}, paused=paused))

    assert planned.prefix_last == rows[-1].position
    assert (planned.prefix_lanes, set(planned.prefix_destinations)) == ({}, {"gone", "paused"})


def test_behind_the_prefix_no_row_of_a_topic_in_it_fires_past_those_of_its_lane() -> None:
    # One that is dropped for lateness needs no topic, but its lane's order.
    wait = DestinationWait(until_ms=BOUND_MS + 500, reason="topic_missing")
    late = schedule(ordering_key="a", topic="gone", deadline_ms=1, on_late=OnLate.DROP)
    first, behind = lane_row("a", topic="gone"), row(late)
    whole = plan([first, behind], planner(destination_waits={Topic("gone"): wait}))
    assert fired(whole) == []

    again = planner(destination_waits={Topic("gone"): wait})
    again.skip(prefix({}, until_ms=BOUND_MS + 700, destinations={Topic("gone"): BOUND_MS}))

    assert fired(plan([behind], again)) == []


def test_the_prefix_ends_before_a_row_that_is_too_young() -> None:
    # Behind it a create may stand that was accepted and is not stored yet.
    old, young = (
        lane_row("a", retry=refused(), due_ms=BOUND_MS - 10),
        lane_row("b", retry=refused(), due_ms=BOUND_MS - 9),
    )

    planned = plan([old, young], planner(prefix_due_ms_max=BOUND_MS - 10))

    assert planned.prefix_last == old.position


def test_the_prefix_has_a_bounded_number_of_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "PREFIX_LANES_MAX", 3)
    rows = [lane_row(key, retry=refused()) for key in "aabbccdde"]

    planned = plan(rows)
    assert planned.prefix_last == rows[5].position

    behind = planner()
    behind.skip(
        prefix({LANE: BOUND_MS + 700, (Topic("orders"), OrderingKey("b")): BOUND_MS + 700}, until_ms=BOUND_MS + 700)
    )
    assert plan(rows[4:], behind).prefix_last == rows[5].position


def test_the_wait_of_a_topic_as_a_whole_does_not_end_the_prefix_and_tells_when_to_look_again() -> None:
    wait = DestinationWait(until_ms=BOUND_MS + 500, reason="topic_missing")
    gone, other = lane_row("a", topic="gone"), lane_row("b", retry=refused(BOUND_MS + 900))

    planned = plan([gone, other], planner(destination_waits={Topic("gone"): wait}))

    assert (planned.prefix_until_ms, planned.waits_until_ms) == (BOUND_MS + 900, BOUND_MS + 500)
    behind = planner(destination_waits={Topic("gone"): wait})
    behind.skip(prefix({}, until_ms=BOUND_MS + 900, destinations={Topic("gone"): 0}))
    assert behind.waits_until_ms == BOUND_MS + 500


# --- rows in flight in it


def test_rows_in_flight_lie_within_the_prefix_and_it_awaits_their_lanes() -> None:
    flying, behind, other = lane_row("a"), lane_row("a"), lane_row("b", retry=refused())

    planned = plan([flying, behind, other], planner(left_out={flying.position}, lanes_in_flight={LANE}))

    assert planned.prefix_last == other.position
    assert planned.prefix_awaits == {LANE}
    assert planned.awaits_landing


def test_a_row_in_flight_without_a_lane_ends_the_prefix() -> None:
    # It may have to be read again, and nothing would tell when.
    flying, waiting = broken_row(), lane_row("a", retry=refused())

    assert plan([flying, waiting], planner(left_out={flying.position})).prefix_last is None


def test_a_pass_behind_a_prefix_that_awaits_landings_awaits_them_too() -> None:
    behind = planner(lanes_in_flight={LANE})
    behind.skip(prefix({}, until_ms=BOUND_MS + 700, awaits={LANE}))

    assert fired(plan([lane_row("a")], behind)) == []
    assert behind.awaits_landing
