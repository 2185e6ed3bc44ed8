"""The rules of a pass, over any page: whatever stands where, these hold."""

from collections import defaultdict
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from clockwork.domain.destination import Topic
from clockwork.domain.planning import BatchLimits, DestinationWait, Planner
from clockwork.domain.position import Position, new_position
from clockwork.domain.schedule import BrokenRow, Guarantee, Lane, OrderingKey, Retry, Row
from tests.support.builders import broken_row, row, schedule
from tests.support.plans import EPOCH, NO_LIMITS, plan, planner, prefix

BOUND_MS = 100
LANES: list[Lane] = [(Topic(topic), OrderingKey(key)) for topic in ("well", "ill") for key in ("a", "b")]
GUARANTEES = list(Guarantee)


@dataclass
class Case:
    """One pass: the shard's rows in order, and what the owner knows."""

    rows: list[Row | BrokenRow]
    left_out: set[Position]
    lanes_in_flight: set[Lane]
    """Lanes of some rows that are left out."""
    destination_waits: dict[Topic, DestinationWait]
    limits: BatchLimits
    mixed: bool

    def fresh_planner(self, limits: BatchLimits | None = None) -> Planner:
        return planner(
            bound_ms=BOUND_MS,
            left_out=self.left_out,
            lanes_in_flight=self.lanes_in_flight,
            destination_waits=self.destination_waits,
            limits=limits if limits is not None else self.limits,
        )

    def taken(self, planned: Planner) -> list[Row | BrokenRow]:
        """The rows that this pass looked at and that are not delivered, in order."""
        due = [each for each in self.rows if each.due_ms <= BOUND_MS and each.position not in self.left_out]
        return due[: planned.due_rows]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    mixed = draw(st.booleans())
    kinds = {lane: draw(st.sampled_from(GUARANTEES)) for lane in LANES}
    due_times = sorted(draw(st.lists(st.integers(BOUND_MS - 20, BOUND_MS + 3), max_size=12)))
    rows: list[Row | BrokenRow] = []
    for number, due_ms in enumerate(due_times, start=1):
        at = new_position(due_ms=due_ms, accepted_us=number, random=0)
        lane = draw(st.sampled_from(LANES))
        if draw(st.integers(0, 9)) == 0:
            known_lane = draw(st.none() | st.just(lane))
            rows.append(broken_row(at=at, lane=known_lane, newer_format=draw(st.booleans())))
            continue
        of = schedule(
            topic=lane[0],
            ordering_key=lane[1],
            due_ms=due_ms,
            guarantee=draw(st.sampled_from(GUARANTEES)) if mixed else kinds[lane],
            task_data=b"x" * draw(st.sampled_from([0, 100, 2_000])),
        )
        retry = draw(
            st.none()
            | st.builds(
                Retry,
                at_ms=st.integers(BOUND_MS - 10, BOUND_MS + 30),
                epoch=st.sampled_from([EPOCH - 1, EPOCH]),
                attempts=st.integers(0, 9),
            )
        )
        rows.append(row(of, at=at, hold=draw(st.sampled_from([None, "r1"])), retry=retry))
    wait = draw(
        st.none()
        | st.builds(
            DestinationWait, until_ms=st.just(BOUND_MS + 10), reason=st.just("topic_missing"), given_up=st.booleans()
        )
    )
    left_out = [each for each in rows if draw(st.integers(0, 5)) == 0]
    in_flight = [_lane_of(each) for each in left_out if draw(st.booleans())]
    return Case(
        rows=rows,
        left_out={each.position for each in left_out},
        lanes_in_flight={lane for lane in in_flight if lane is not None},
        destination_waits={Topic("ill"): wait} if wait is not None else {},
        limits=draw(
            st.just(NO_LIMITS)
            | st.builds(BatchLimits, records_max=st.integers(1, 6), bytes_max=st.integers(500, 5_000))
        ),
        mixed=mixed,
    )


def _lane_of(each: Row | BrokenRow) -> Lane | None:
    return each.schedule.lane if isinstance(each, Row) else each.lane


@given(cases())
def test_nothing_fires_early_twice_or_during_its_back_off(case: Case) -> None:
    planned = plan(case.rows, case.fresh_planner())

    for firing in planned.deliveries:
        assert firing.row.due_ms <= BOUND_MS
        assert firing.row.position not in case.left_out
        assert firing.lane not in case.lanes_in_flight
        assert not isinstance(firing.row, Row) or firing.row.retry is None or firing.row.retry.at_ms <= BOUND_MS
    positions = [firing.row.position for firing in planned.deliveries]
    assert positions == sorted(set(positions))


@given(cases())
def test_nothing_fires_behind_a_row_of_its_lane_that_does_not(case: Case) -> None:
    planned = plan(case.rows, case.fresh_planner())
    firing = {f.row.position for f in planned.deliveries}

    waiting: set[Lane] = set()
    for each in case.taken(planned):
        lane = _lane_of(each)
        if lane is None:
            continue
        if each.position in firing:
            assert lane not in waiting
        else:
            waiting.add(lane)


@given(cases())
def test_a_lane_fires_with_one_guarantee_at_a_time(case: Case) -> None:
    kinds: dict[Lane | None, set[Guarantee]] = defaultdict(set)
    for firing in plan(case.rows, case.fresh_planner()).deliveries:
        kinds[firing.lane].add(firing.guarantee)

    assert all(len(of_lane) == 1 for of_lane in kinds.values())


@given(cases())
def test_a_lane_in_which_nothing_waits_is_held_up_by_nothing(case: Case) -> None:
    planned = plan(case.rows, case.fresh_planner())
    firing = {f.row.position for f in planned.deliveries}
    of_lane: dict[Lane | None, list[Row | BrokenRow]] = defaultdict(list)
    for each in case.taken(planned):
        of_lane[_lane_of(each)].append(each)

    for lane, rows in of_lane.items():
        if lane is None or lane[0] in case.destination_waits or lane in case.lanes_in_flight:
            continue
        waits = any(
            each.newer_format if isinstance(each, BrokenRow) else each.retry is not None and each.retry.at_ms > BOUND_MS
            for each in rows
        )
        kinds = {each.schedule.guarantee if isinstance(each, Row) else Guarantee.EXACTLY_ONCE for each in rows}
        if not waits and len(kinds) == 1:
            assert {each.position for each in rows} <= firing


@given(cases())
def test_every_held_row_that_waits_is_marked_once_and_no_other_row_is(case: Case) -> None:
    planned = plan(case.rows, case.fresh_planner())
    firing = {f.row.position for f in planned.deliveries}
    marked = [mark.row.position for mark in planned.retry_marks]

    assert len(marked) == len(set(marked))
    for each in case.taken(planned):
        if not isinstance(each, Row):
            continue
        believed = each.retry is not None and each.retry.epoch == EPOCH and each.retry.at_ms > BOUND_MS
        exactly_once = each.schedule.guarantee is Guarantee.EXACTLY_ONCE
        waits = each.position not in firing and each.schedule.lane not in case.lanes_in_flight
        wanted = each.hold is not None and exactly_once and waits and not believed
        if not wanted:
            assert each.position not in marked
        elif not case.mixed and not any(isinstance(other, BrokenRow) for other in case.rows):
            # (Where a lane changes its guarantee, the row at the change only waits for the next pass.)
            assert each.position in marked


@given(cases())
def test_a_retry_mark_never_lies_before_the_bound_or_the_rows_own_back_off(case: Case) -> None:
    for mark in plan(case.rows, case.fresh_planner()).retry_marks:
        assert mark.until_ms >= BOUND_MS
        assert mark.row.retry is None or mark.until_ms >= mark.row.retry.at_ms


@given(cases())
def test_the_limits_are_kept_and_a_full_pass_made_progress(case: Case) -> None:
    planned = plan(case.rows, case.fresh_planner())

    assert len(planned.deliveries) <= case.limits.records_max
    assert len(planned.deliveries) <= 1 or sum(f.size_bytes for f in planned.deliveries) <= case.limits.bytes_max
    assert planned.deliveries or not planned.full


@given(cases())
def test_a_pass_that_begins_behind_the_blocked_prefix_fires_the_same(case: Case) -> None:
    whole = plan(case.rows, case.fresh_planner())
    if whole.prefix_last is None:
        return

    behind = case.fresh_planner()
    behind.skip(
        prefix(
            whole.prefix_lanes,
            until_ms=BOUND_MS + 1,
            destinations=whole.prefix_destinations,
            awaits=whole.prefix_awaits,
        )
    )
    plan([each for each in case.rows if each.position > whole.prefix_last], behind)

    # The prefix does not tell the lanes of a destination apart that waits as a whole. So what ends without being sent to
    # it, an unreadable row behind none of its own lane, waits with the others until the destination is asked again.
    sure = [each for each in whole.deliveries if each.lane is None or each.lane[0] not in whole.prefix_destinations]
    assert behind.deliveries[: len(sure)] == sure
    if len(sure) == len(whole.deliveries):
        assert behind.deliveries == sure
        assert behind.full == whole.full
        assert behind.next_due_ms == whole.next_due_ms
    assert behind.awaits_landing or not whole.awaits_landing
