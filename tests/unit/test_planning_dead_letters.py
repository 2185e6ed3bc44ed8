"""Rows that will not be delivered: refused too often, given up, or unreadable; and what a refusal takes out of a batch."""

from collections.abc import Iterator

from clockwork.domain.destination import Topic
from clockwork.domain.planning import Action, DestinationWait, PlannedDelivery, lowest_positions, without_lanes
from clockwork.domain.schedule import Failure, Guarantee, OrderingKey
from tests.support.builders import DUE_MS, broken_row, position
from tests.support.plans import ATTEMPTS_MAX, BOUND_MS, LANE, fired, lane_row, plan, planner, refused

# --- dead letters


def test_a_row_without_attempts_left_becomes_a_dead_letter_in_its_place() -> None:
    before, worn_out, behind = lane_row("a"), lane_row("a", retry=refused(DUE_MS, attempts=ATTEMPTS_MAX)), lane_row("a")

    planned = plan([before, worn_out, behind])

    assert fired(planned) == [before, worn_out, behind]
    assert planned.deliveries[1] == PlannedDelivery(
        row=worn_out,
        action=Action.DEAD_LETTER,
        failure=Failure(reason="attempts_exhausted", attempts=ATTEMPTS_MAX),
    )


def test_the_last_attempt_is_still_a_delivery() -> None:
    planned = plan([lane_row("a", retry=refused(DUE_MS, attempts=ATTEMPTS_MAX - 1))])

    assert [firing.action for firing in planned.deliveries] == [Action.DELIVER]


def test_rows_of_a_topic_that_is_given_up_fail_without_attempts_of_their_own() -> None:
    wait = DestinationWait(until_ms=BOUND_MS + 500, reason="topic_missing", given_up=True)
    first, second = lane_row("a", topic="gone"), lane_row("a", topic="gone", retry=refused(DUE_MS, attempts=2))

    planned = plan([first, second], planner(destination_waits={Topic("gone"): wait}))

    assert [(f.row, f.action, f.failure) for f in planned.deliveries] == [
        (first, Action.DEAD_LETTER, Failure(reason="topic_missing", attempts=0)),
        (second, Action.DEAD_LETTER, Failure(reason="topic_missing", attempts=2)),
    ]


# --- rows that cannot be read


def test_a_broken_row_becomes_a_dead_letter_and_its_lane_goes_on() -> None:
    broken, behind = broken_row(lane=LANE), lane_row("a")

    planned = plan([broken, behind])

    assert fired(planned) == [broken, behind]
    assert planned.deliveries[0].action is Action.DEAD_LETTER
    assert planned.deliveries[0].failure == Failure(reason="unreadable", attempts=0)


def test_a_broken_row_waits_its_turn_in_its_lane() -> None:
    assert fired(plan([lane_row("a", retry=refused()), broken_row(lane=LANE)])) == []


def test_a_broken_row_does_not_mix_with_at_least_once_in_its_lane() -> None:
    first, broken = lane_row("a", guarantee=Guarantee.AT_LEAST_ONCE), broken_row(lane=LANE)

    planned = plan([first, broken, lane_row("a", guarantee=Guarantee.AT_LEAST_ONCE)])

    assert fired(planned) == [first]


def test_a_broken_row_without_a_lane_fires_past_all_that_waits() -> None:
    broken = broken_row()

    assert fired(plan([lane_row("a", retry=refused()), broken])) == [broken]


def test_a_broken_row_may_bear_a_hold_that_cannot_be_read() -> None:
    # Its cancel set the hold in time: fired with the hold on, it would be dead letter and `cancelled` at once.
    assert [firing.held for firing in plan([broken_row(lane=LANE)]).deliveries] == [True]


def test_a_row_of_a_newer_format_is_left_alone_and_its_lane_waits() -> None:
    newer, elsewhere = broken_row(lane=LANE, newer_format=True), lane_row("b")

    planned = plan([newer, lane_row("a"), elsewhere])

    assert fired(planned) == [elsewhere]
    assert planned.newer_format_rows == 1


def test_a_row_of_a_newer_format_is_no_reason_to_look_again_at_once() -> None:
    assert plan([broken_row(lane=LANE, newer_format=True)]).waits_until_ms is None


def test_a_row_of_a_newer_format_does_not_shorten_another_wait_of_its_lane() -> None:
    planned = plan([lane_row("a", retry=refused(BOUND_MS + 700)), broken_row(lane=LANE, newer_format=True)])

    assert planned.blocked == {LANE: BOUND_MS + 700}


# --- after a refusal


def test_a_refused_row_takes_with_it_only_those_behind_it_in_its_lane() -> None:
    before, other, culprit, behind, other_behind = (lane_row(key) for key in "abaab")
    deliveries = plan([before, other, culprit, behind, other_behind]).deliveries

    rest = without_lanes(deliveries, {culprit.schedule.lane: culprit.position})

    assert [f.row for f in rest] == [before, other, other_behind]


def test_refused_rows_without_a_lane_take_nothing_with_them() -> None:
    # Rows whose lane cannot be read are no lane of their own.
    first, culprit, last, behind = broken_row(), broken_row(), broken_row(), lane_row("a")
    deliveries = plan([first, culprit, last, behind]).deliveries

    rest = without_lanes(deliveries, {}, rows={culprit.position})

    assert [f.row for f in rest] == [first, last, behind]


def test_each_of_several_refused_lanes_is_cut_at_the_lowest_of_its_refused_rows() -> None:
    a1, b1, a2, b2, a3, c = (lane_row(key) for key in "ababac")
    deliveries = plan([a1, b1, a2, b2, a3, c]).deliveries
    refused_ones = [each for each in deliveries if each.row in (a3, a2, b2)]

    lowest = lowest_positions(reversed(refused_ones))

    assert lowest == {a2.schedule.lane: a2.position, b2.schedule.lane: b2.position}
    assert [f.row for f in without_lanes(deliveries, lowest)] == [a1, b1, c]


def test_a_refused_topic_of_thousands_of_rows_costs_one_look_at_each() -> None:
    # Once a batch was copied without the lane of each refused row in turn: five thousand rows were 25 million comparisons,
    # while heartbeats waited.
    class Counted(list[PlannedDelivery]):
        looks = 0

        def __iter__(self) -> Iterator[PlannedDelivery]:
            for each in super().__iter__():
                type(self).looks += 1
                yield each

    rows = [lane_row(f"lane-{n}", topic="gone") for n in range(5_000)]
    deliveries = Counted(PlannedDelivery(row=each, action=Action.DELIVER) for each in rows)

    assert without_lanes(deliveries, lowest_positions(deliveries)) == []
    assert Counted.looks == 2 * len(rows)


def test_a_lane_may_be_named_that_is_not_in_the_batch_any_more() -> None:
    deliveries = plan([lane_row("a"), lane_row("b")]).deliveries

    assert without_lanes(deliveries, {(Topic("orders"), OrderingKey("c")): position()}) == deliveries
