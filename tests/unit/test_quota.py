"""The rest of a limit that is counted only when it is worth it."""

from hypothesis import given
from hypothesis import strategies as st

from clockwork.domain.quota import AGAIN_S, COUNT_EVERY_S, PART, Quota
from clockwork.domain.rate import NS


def known(*, limit: int = 1_000, counted: int = 0, now_ns: int = 0) -> Quota:
    allowance = Quota(limit=limit)
    allowance.count_begins()
    allowance.count_ends(counted, now_ns)
    return allowance


def add(allowance: Quota, times: int = 1) -> None:
    """So many that were stored."""
    for _ in range(times):
        allowance.add()
        allowance.ends(pending=True)


def test_at_first_nothing_is_known_and_a_count_is_wanted_at_once() -> None:
    allowance = Quota(limit=1)
    assert allowance.wants_count(0)
    assert allowance.in_doubt
    assert not allowance.seems_full
    assert allowance.left is None


def test_a_count_is_wanted_again_when_a_quarter_of_what_it_left_is_used() -> None:
    again_ns = int(AGAIN_S * NS)
    allowance = known(counted=600)
    add(allowance, 99)
    assert not allowance.wants_count(again_ns)
    add(allowance)
    assert not allowance.wants_count(again_ns - 1)
    assert allowance.wants_count(again_ns)
    assert not allowance.in_doubt
    assert allowance.left == 300


def test_at_the_limit_it_is_counted_again_only_after_a_while() -> None:
    allowance = known(counted=1_000)
    assert allowance.full
    assert not allowance.wants_count(COUNT_EVERY_S * NS - 1)
    assert allowance.quiet_ns(0) == COUNT_EVERY_S * NS
    assert allowance.wants_count(COUNT_EVERY_S * NS)


def test_what_only_seems_full_may_be_counted_again_soon() -> None:
    allowance = known(limit=1_000)
    add(allowance, 1_000)
    assert (allowance.full, allowance.seems_full, allowance.in_doubt) == (False, True, True)
    assert not allowance.wants_count(int(AGAIN_S * NS) - 1)
    assert allowance.wants_count(int(AGAIN_S * NS))


def test_the_more_was_counted_the_longer_it_is_not_counted_again() -> None:
    allowance = known(limit=1_000_000, counted=1_000_000)
    assert not allowance.wants_count(100 * NS - 1)
    assert allowance.wants_count(100 * NS)


def test_what_is_added_while_it_is_counted_is_not_forgotten() -> None:
    allowance = known(limit=10, counted=0)
    add(allowance, 3)
    allowance.count_begins()
    add(allowance, 2)
    allowance.count_ends(3, 0)
    assert allowance.left == 5


def test_what_is_not_stored_yet_when_a_count_begins_is_not_forgotten() -> None:
    # The count may miss it; and however it ends afterwards, no other item's room is given back for it.
    allowance = known(limit=10, counted=0)
    add(allowance, 3)
    allowance.add()
    allowance.add()
    allowance.count_begins()
    allowance.count_ends(3, 0)
    assert allowance.left == 5
    allowance.ends(pending=False)
    allowance.ends(pending=True)
    assert allowance.left == 6
    allowance.count_begins()
    allowance.count_ends(4, 0)
    assert allowance.left == 6


def test_more_than_the_limit_is_no_more_than_the_limit() -> None:
    # Else it would take long until a falling number shows.
    assert known(limit=10, counted=70).left == 0


def test_after_a_failed_count_the_quota_is_not_full_and_no_request_waits_for_the_next_count() -> None:
    allowance = known(limit=1, counted=1)
    allowance.count_begins()
    allowance.count_failed(0)
    assert not allowance.seems_full
    assert not allowance.in_doubt
    assert not allowance.wants_count(0)
    assert allowance.wants_count(COUNT_EVERY_S * NS)
    allowance.count_begins()
    assert not allowance.in_doubt
    allowance.count_ends(1, COUNT_EVERY_S * NS)
    assert allowance.full


def test_what_came_to_nothing_does_not_count() -> None:
    allowance = known(limit=1)
    allowance.add()
    assert allowance.seems_full
    allowance.ends(pending=False)
    allowance.ends(pending=False)
    assert allowance.left == 1


@given(limit=st.integers(1, 5_000), adders=st.integers(1, PART))
def test_up_to_four_that_add_at_the_same_time_keep_the_limit_where_each_counts_when_it_should(
    limit: int, adders: int
) -> None:
    # Each adds in turn, and counts as soon as it wants to: time is no matter here.
    stored, now_ns = 0, 0
    allowances = [Quota(limit=limit) for _ in range(adders)]
    while not all(each.seems_full for each in allowances):
        for each in allowances:
            now_ns += 1_000 * NS
            if each.wants_count(now_ns):
                each.count_begins()
                each.count_ends(stored, now_ns)
            if not each.seems_full:
                add(each)
                stored += 1
    assert limit <= stored <= limit + adders - 1


def test_four_fast_ones_notice_each_other_before_they_have_passed_the_limit_by_much() -> None:
    # Each adds 5,000 a second, and a quarter of the limit is used up in half a second: the pause after a count must not be
    # longer than that.
    stored, limit = 0, 10_000
    allowances = [known(limit=limit) for _ in range(4)]
    for step in range(4 * 5_000):
        now_ns = step * NS // 5_000
        for each in allowances:
            if each.wants_count(now_ns):
                each.count_begins()
                each.count_ends(stored, now_ns)
            if not each.full:
                add(each)
                stored += 1
    assert limit <= stored <= limit * 1.1
