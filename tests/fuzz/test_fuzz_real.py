"""A few examples of each campaign that needs a real Kafka and a real store."""

from typing import Any, Final

import pytest

from tests.fuzz import postgres_rows, real, rows, wakeups
from tests.fuzz.rows import Damage
from tests.fuzz.tally import Tally, sample
from tests.support.node_fixtures import on_each_store
from tests.support.nodes import Cluster, ClusterNode

pytestmark = [pytest.mark.processes]

SEED: Final = 20_240_229
FULL_ITEMS: Final = [
    Damage(padded_bytes=408_000),
    Damage(padded_bytes=390_000, without=frozenset({"topic"})),
    Damage(padded_bytes=390_000, changed=(("guarantee", {"S": "at_least_once"}),)),
    Damage(changed=(("orderingKey", {"S": '"' * 390_000}), ("guarantee", {"S": "twice"}))),
    Damage(changed=(("topic", {"S": "t" * 390_000}),)),
]
"""Close to the 400 KB of an item, where an outcome or a dead letter says more than fits."""


@on_each_store
async def test_sound_schedules_are_delivered_beside_rows_put_by_hand(cluster: Cluster) -> None:
    node, tally = await cluster.start(), Tally()
    if cluster.store == "postgresql":
        damages: list[Any] = sample(postgres_rows.DAMAGES, count=60, seeded=SEED)
    else:
        damages = [*FULL_ITEMS, *sample(rows.DAMAGES, count=40, seeded=SEED)]
    await real.plant_rows(cluster, node, damages, tally)
    assert len(tally.of(real.ROWS)) >= 3


async def test_sound_schedules_are_delivered_beside_records_that_are_no_wake_ups(
    shared: Cluster, shared_node: ClusterNode
) -> None:
    tally = Tally()
    await real.put_records(shared, shared_node, sample(wakeups.VALUES, count=60, seeded=SEED), tally)
    assert len(tally.of(real.WAKEUPS)) == 2
