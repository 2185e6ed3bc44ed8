"""The plan of a chaos run: fixed by its seed, and with something of everything."""

import pytest

from tests.chaos.plan import (
    BACK_S,
    BURST_MS,
    NODES,
    ROUND,
    SKEW_ALLOWED_MS,
    SKEW_SEEN_MS,
    SUDDEN,
    WARM_UP_S,
    Disturbance,
    Kind,
    draw_plan,
)

SESSION_MS = 2_000
MANY = range(50)


def plan(seed: int, seconds: float = 120.0) -> tuple[Disturbance, ...]:
    return draw_plan(seed, seconds=seconds, session_timeout_ms=SESSION_MS)


def test_a_seed_gives_the_same_plan_each_time_and_another_seed_another() -> None:
    assert plan(7) == plan(7)
    assert plan(7) != plan(8)


@pytest.mark.parametrize("seconds", [0.0, 1.0, 30.0, 600.0])
def test_disturbances_come_in_order_within_the_run(seconds: float) -> None:
    for seed in MANY:
        times_s = [disturbance.at_s for disturbance in plan(seed, seconds)]
        assert times_s
        assert times_s == sorted(times_s)
        assert all(0 <= at_s <= max(seconds, WARM_UP_S) for at_s in times_s)


def test_every_round_has_each_kind_so_that_a_short_run_misses_none() -> None:
    for seed in MANY:
        kinds = [disturbance.kind for disturbance in plan(seed, seconds=120.0)]
        assert len(kinds) >= 2 * len(ROUND)
        assert set(kinds[: len(ROUND)]) == set(Kind)
        assert sorted(kinds[: len(ROUND)]) == sorted(kinds[len(ROUND) : 2 * len(ROUND)]) == sorted(ROUND)


def test_a_node_that_is_still_broken_is_spared_while_another_is_well() -> None:
    for seed in MANY:
        back_at_s = [0.0] * NODES
        for d in (d for d in plan(seed) if d.of_node):
            assert back_at_s[d.node] <= d.at_s or back_at_s[d.node] == min(back_at_s)
            back_at_s[d.node] = d.at_s + d.for_s + BACK_S


def test_every_node_has_its_turn() -> None:
    assert {disturbance.node for disturbance in plan(1)} == set(range(NODES))


def test_a_zombie_sleeps_longer_than_its_session_and_a_stutter_less() -> None:
    found = [disturbance for seed in MANY for disturbance in plan(seed)]
    assert all(d.for_s > SESSION_MS / 1_000 for d in found if d.kind is Kind.ZOMBIE)
    assert all(d.for_s < SESSION_MS / 1_000 for d in found if d.kind is Kind.STUTTER)


def test_wrong_clocks_are_certainly_within_the_bound_or_certainly_beyond_it() -> None:
    # Between the two a node may or may not notice, so nothing could be expected of it.
    found = [disturbance for seed in MANY for disturbance in plan(seed)]
    near = [d.offset_ms for d in found if d.kind is Kind.CLOCK_NEAR]
    far = [d.offset_ms for d in found if d.kind is Kind.CLOCK_FAR]
    assert all(0 < abs(offset_ms) < SKEW_ALLOWED_MS for offset_ms in near)
    assert all(abs(offset_ms) > SKEW_SEEN_MS for offset_ms in far)
    for offsets_ms in (near, far):
        assert min(offsets_ms) < 0 < max(offsets_ms)
    others = [d for d in found if d.kind not in (Kind.CLOCK_NEAR, Kind.CLOCK_FAR)]
    assert all(d.offset_ms == 0 and d.jump_after_s is None for d in others)
    assert {d.jump_after_s is None for d in found if d.offset_ms} == {True, False}


def test_only_what_is_sudden_strikes_in_the_middle_of_a_burst() -> None:
    found = [disturbance for seed in MANY for disturbance in plan(seed)]
    at_bursts = {d.kind for d in found if d.after_burst_ms is not None}
    assert at_bursts == set(SUDDEN)
    assert all(0 <= d.after_burst_ms < BURST_MS for d in found if d.after_burst_ms is not None)
