"""Many histories. Those that once went wrong are in `test_scripted`: a seed draws another history after each change."""

import pytest

from tests.simulation import selection
from tests.simulation.mutations import WITHOUT_AUDIT, Mutation, applied
from tests.simulation.run import simulate
from tests.simulation.themes import Theme

SEEDS = selection.seeds(range(160), selection.HISTORIES)
SEEDS_OF_A_THEME = selection.seeds(range(1_000, 1_015), selection.HISTORIES_OF_A_THEME)
SEEDS_WITHOUT_AUDIT = selection.seeds(range(60), selection.HISTORIES_OF_A_THEME)
CHUNK = 20


@pytest.mark.parametrize("chunk", range(0, len(SEEDS), CHUNK))
def test_every_promise_is_kept_whatever_goes_wrong(chunk: int) -> None:
    for seed in SEEDS[chunk : chunk + CHUNK]:
        _assert_kept(seed)


@pytest.mark.parametrize("theme", list(Theme))
def test_every_promise_is_kept_where_one_thing_goes_wrong_again_and_again(theme: Theme) -> None:
    for seed in SEEDS_OF_A_THEME:
        _assert_kept(seed, theme)


def test_the_chain_of_a_job_holds_by_itself_where_no_audit_would_mend_it() -> None:
    unaudited = Mutation(name="no audit", seeds=0, patches=lambda: WITHOUT_AUDIT)
    with applied(unaudited):
        for seed in SEEDS_WITHOUT_AUDIT:
            _assert_kept(seed, Theme.JOBS)


def _assert_kept(seed: int, theme: Theme | None = None) -> None:
    result = simulate(seed, theme=theme)
    more = f" --theme {theme}" if theme else ""
    assert not result.violations, f"python -m tests.simulation.run --seed {seed}{more}"
