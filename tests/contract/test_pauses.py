"""`PauseStore`, on each store."""

import pytest

from clockwork.domain.pauses import NOTHING_PAUSED, PAUSED_MAX, PauseKind, Pauses
from clockwork.errors import ConditionFailed
from clockwork.ports.operations import PauseStore


async def test_what_was_written_last_is_read_and_an_older_version_replaces_nothing(pauses: PauseStore) -> None:
    assert await pauses.read_pauses() == NOTHING_PAUSED
    first = NOTHING_PAUSED.paused(PauseKind.CLIENT, "shop.a-b_c", at_ms=1_700_000_000_000)
    second = first.paused(PauseKind.TOPIC, "orders", at_ms=1_700_000_000_001)
    with pytest.raises(ConditionFailed):
        await pauses.write_pauses(second)
    await pauses.write_pauses(first)
    for stale in (first, NOTHING_PAUSED.paused(PauseKind.TOPIC, "x", at_ms=1)):
        with pytest.raises(ConditionFailed):
            await pauses.write_pauses(stale)
    await pauses.write_pauses(second)
    assert await pauses.read_pauses() == second
    await pauses.write_pauses(second.resumed(PauseKind.CLIENT, "shop.a-b_c"))
    assert (await pauses.read_pauses()).clients == {}


async def test_as_many_as_may_be_paused_fit_in(pauses: PauseStore) -> None:
    most = Pauses(version=1, topics={f"{n:0249}": 1_700_000_000_000 for n in range(PAUSED_MAX)})
    await pauses.write_pauses(most)
    assert await pauses.read_pauses() == most
