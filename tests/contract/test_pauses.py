"""`PauseStore`, on each store."""

import pytest

from clockwork.domain.pauses import NOTHING_PAUSED, PAUSED_MAX, PauseKind, Pauses
from clockwork.errors import ConditionFailed
from clockwork.ports.operations import PauseStore
from clockwork.schema.reason import REASON_BYTES_MAX
from tests.support.builders import pause


async def test_what_was_written_last_is_read_and_an_older_version_replaces_nothing(pauses: PauseStore) -> None:
    assert await pauses.read_pauses() == NOTHING_PAUSED
    first = NOTHING_PAUSED.with_pause(PauseKind.CLIENT, "shop.a-b_c", pause(reason="a move till noon 🚚"))
    second = first.with_pause(PauseKind.TOPIC, "orders", pause(by=""))
    with pytest.raises(ConditionFailed):
        await pauses.write_pauses(second)
    await pauses.write_pauses(first)
    for stale in (first, NOTHING_PAUSED.with_pause(PauseKind.TOPIC, "x", pause())):
        with pytest.raises(ConditionFailed):
            await pauses.write_pauses(stale)
    await pauses.write_pauses(second)
    assert await pauses.read_pauses() == second
    await pauses.write_pauses(second.without_pause(PauseKind.CLIENT, "shop.a-b_c"))
    assert (await pauses.read_pauses()).clients == {}


async def test_as_many_as_may_be_paused_fit_in(pauses: PauseStore) -> None:
    # The longest names of topics, keys and people, and reasons; DynamoDB takes 400 KB, and DynamoDB Local as much.
    longest = pause(by="🚚" * 128, reason="r" * REASON_BYTES_MAX)
    most = Pauses(version=1, topics={f"{n:0249}": longest for n in range(PAUSED_MAX)})
    await pauses.write_pauses(most)
    assert await pauses.read_pauses() == most
