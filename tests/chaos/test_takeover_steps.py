"""kill -9 between any two steps of a take-over: the next taker begins from the start, and nothing is lost or twice."""

from collections.abc import Callable

import pytest

from tests.chaos.dying_node import COMMIT, DIES, STEPS
from tests.support.load import Load
from tests.support.node_fixtures import cluster, kind, launch, tell
from tests.support.nodes import SHARDS, SHORT_SESSION, Cluster, soon_ms
from tests.support.under_load import audit

__all__ = ["cluster", "kind", "launch", "tell"]

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

KILLED: int = 137
PER_LANE: int = 4


# On PostgreSQL those whose neighbours are writes of the store.
@pytest.mark.parametrize(
    ("step", "kind"),
    [*((step, "dynamodb") for step in STEPS), *((step, "postgresql") for step in ("T2a", "T2d", "T3"))],
    indirect=["kind"],
)
async def test_the_next_taker_ends_what_one_that_died_between_two_steps_has_begun(
    step: str, cluster: Cluster, tell: Callable[[str], None]
) -> None:
    # The first owner dies with rows that are committed and stand there still: only its markers tell. The one that takes over
    # from it dies in the middle of that, having fenced, settled, read or cleaned up as much as its step says. The third
    # must find it all out again, from the first owner's markers or the second one's.
    topic = await cluster.topic()
    api = await cluster.start(role="api")
    owner = await cluster.start(role="worker", module="tests.chaos.dying_node", more={DIES: COMMIT, **SHORT_SESSION})
    await owner.until_works(SHARDS)
    load = Load(cluster, [topic], prefix=step, lanes_per_shard=2)
    load.clients = [api.client]
    for number in range(PER_LANE):
        for lane in load.ordering_keys:
            key = f"{step}-{lane}-{number}"
            await load.create(cluster.body(topic, key, in_ms=soon_ms() + number, ordering_key=lane))
    assert await owner.process.until_end() == KILLED
    taker = await cluster.start(
        role="worker", module="tests.chaos.dying_node", more={DIES: step, **SHORT_SESSION}, ready=False
    )
    assert await taker.process.until_end() == KILLED, "it died at its step"
    await cluster.start(role="worker", more=SHORT_SESSION)
    for promise in load.ledger.promises.values():
        await cluster.until_status(api.client, promise.schedule_key)
    await audit(cluster, load, tell, topic)
