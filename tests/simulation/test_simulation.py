"""Many histories. Those that once went wrong are in `test_scripted`: a seed draws another history after each change."""

import pytest

from tests.simulation.run import simulate
from tests.simulation.themes import Theme

SEEDS = range(160)
"""In this suite; `make sim SEEDS=10000` tries more."""
SEEDS_OF_A_THEME = range(1_000, 1_015)
CHUNK = 20


@pytest.mark.parametrize("start", SEEDS[::CHUNK])
def test_every_promise_is_kept_whatever_goes_wrong(start: int) -> None:
    for seed in range(start, start + CHUNK):
        _assert_kept(seed)


@pytest.mark.parametrize("theme", list(Theme))
def test_every_promise_is_kept_where_one_thing_goes_wrong_again_and_again(theme: Theme) -> None:
    for seed in SEEDS_OF_A_THEME:
        _assert_kept(seed, theme)


def _assert_kept(seed: int, theme: Theme | None = None) -> None:
    result = simulate(seed, theme=theme)
    more = f" --theme {theme}" if theme else ""
    assert not result.violations, f"python -m tests.simulation.run --seed {seed}{more}"
