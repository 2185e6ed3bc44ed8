"""The simulation tested: each deliberate break of the protocol is caught."""

import pytest

from tests.simulation import selection
from tests.simulation.mutations import MUTATIONS, Mutation, applied
from tests.simulation.run import simulate

CHOSEN = selection.some(MUTATIONS, selection.MUTATIONS)


@pytest.mark.parametrize("mutation", CHOSEN, ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_a_broken_protocol_is_caught(mutation: Mutation) -> None:
    with applied(mutation):
        caught = next(filter(None, (_broken(mutation, seed) for seed in range(mutation.seeds))), None)
    assert caught, f"not caught within {mutation.seeds} seeds"
    # An exception in the engine is caught by every run, and says only that the mutation does not fit the engine any more.
    assert not any(violation.startswith("defect") for violation in caught), caught


def _broken(mutation: Mutation, seed: int) -> list[str]:
    return simulate(seed, theme=mutation.theme).violations
