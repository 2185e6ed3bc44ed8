"""Token buckets: never more than their rate, never less than what they say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clockwork.domain.rate import NS, SWEEP_MIN, Bucket, Buckets, Rate

rates = st.builds(Rate, per_second=st.integers(1, 10_000), burst=st.integers(1, 10_000))
steps = st.lists(st.tuples(st.integers(0, 3 * NS), st.integers(1, 5_000)), max_size=60)


@given(rates, steps)
def test_no_stretch_of_time_sees_more_than_the_burst_and_its_share_of_the_rate(
    rate: Rate, steps: list[tuple[int, int]]
) -> None:
    bucket, now_ns = Bucket(rate=rate), 0
    taken: list[tuple[int, int]] = []
    for pause_ns, cost in steps:
        now_ns += pause_ns
        if not bucket.wait_ns(cost, now_ns):
            bucket.take(cost, now_ns)
            taken.append((now_ns, cost))
    for first, (begin_ns, _) in enumerate(taken):
        for last in range(first, len(taken)):
            # The last one may be dearer than the burst: it passes, and is paid for afterwards.
            before_last = sum(cost for _, cost in taken[first:last]) + min(taken[last][1], rate.burst)
            assert before_last * NS <= rate.burst * NS + (taken[last][0] - begin_ns) * rate.per_second


@given(rates, steps, st.integers(1, 20_000))
def test_what_is_waited_for_as_told_is_there_and_not_a_moment_sooner(
    rate: Rate, steps: list[tuple[int, int]], cost: int
) -> None:
    bucket, now_ns = Bucket(rate=rate), 0
    for pause_ns, each in steps:
        now_ns += pause_ns
        if not bucket.wait_ns(each, now_ns):
            bucket.take(each, now_ns)
    wait_ns = bucket.wait_ns(cost, now_ns)
    assert bucket.wait_ns(cost, now_ns + wait_ns) == 0
    assert bucket.left(now_ns + wait_ns) >= min(cost, rate.burst)
    assert wait_ns == 0 or bucket.wait_ns(cost, now_ns + wait_ns - 1) == 1


@given(rates, steps)
def test_what_is_left_lies_between_nothing_and_the_burst_and_can_be_taken(
    rate: Rate, steps: list[tuple[int, int]]
) -> None:
    bucket, now_ns = Bucket(rate=rate), 0
    for pause_ns, cost in steps:
        now_ns += pause_ns
        bucket.take(cost, now_ns)
        left = bucket.left(now_ns)
        assert 0 <= left <= rate.burst
        assert left == 0 or bucket.wait_ns(left, now_ns) == 0
        assert bucket.left(now_ns + bucket.until_full_ns(now_ns)) == rate.burst


def test_what_is_given_back_counts_as_never_taken() -> None:
    bucket = Bucket(rate=Rate(per_second=3, burst=2))
    bucket.take(2, 1_000)
    bucket.give_back(1)
    assert bucket.left(1_000) == 1


def test_full_buckets_are_forgotten_and_those_that_owe_are_kept() -> None:
    buckets: Buckets[int] = Buckets(lambda _: Rate(per_second=1, burst=1))
    for key in range(SWEEP_MIN - 1):
        buckets.of(key, 0).take(1, 0)
    owing = buckets.of(-1, NS)
    owing.take(1, NS)
    buckets.of(SWEEP_MIN, NS)
    assert len(buckets) == 2
    assert buckets.of(-1, NS) is owing


@pytest.mark.parametrize("wrong", [{"per_second": 0, "burst": 1}, {"per_second": 1, "burst": 0}])
def test_a_rate_of_nothing_is_no_rate(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Rate(**wrong)
