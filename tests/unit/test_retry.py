"""Back-off of a refused record, and when it is given up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clockwork.domain.retry import BackoffPolicy, RetryPolicy

USUAL = BackoffPolicy(initial_ms=1_000, max_ms=60_000)


@pytest.mark.parametrize(
    ("attempt", "wait_ms"),
    [(1, 1_000), (2, 2_000), (3, 4_000), (6, 32_000), (7, 60_000), (8, 60_000), (10**9, 60_000)],
)
def test_the_wait_doubles_up_to_its_limit(attempt: int, wait_ms: int) -> None:
    assert USUAL.wait_ms(attempt) == wait_ms


def test_an_attempt_that_was_never_counted_waits_like_the_first() -> None:
    assert USUAL.wait_ms(0) == USUAL.wait_ms(1)


@given(
    st.integers(1, 10_000),
    st.integers(1, 100_000),
    st.integers(0, 200),
    st.floats(0, 1, exclude_min=True),
)
def test_a_wait_is_never_nothing_and_never_over_its_limit(
    initial_ms: int, max_ms: int, attempt: int, jitter: float
) -> None:
    wait_ms = BackoffPolicy(initial_ms=initial_ms, max_ms=max_ms).wait_ms(attempt, scale=jitter)

    assert 1 <= wait_ms <= max_ms


def test_jitter_shortens_the_wait_in_proportion() -> None:
    assert USUAL.wait_ms(3, scale=0.5) == 2_000


def test_a_row_is_given_up_after_its_last_attempt_and_not_before() -> None:
    policy = RetryPolicy(attempts_max=8, backoff=USUAL)

    assert not policy.exhausted(7)
    assert policy.exhausted(8)
    assert policy.exhausted(9)


def test_the_next_attempt_comes_after_the_wait_of_the_last_one() -> None:
    policy = RetryPolicy(attempts_max=8, backoff=USUAL)

    assert policy.next_at_ms(attempts=1, now_ms=50_000) == 51_000
    assert policy.next_at_ms(attempts=3, now_ms=50_000) == 54_000
