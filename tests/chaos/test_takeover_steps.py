"""kill -9 between any two steps of a take-over: the next taker begins from the start, and nothing is lost or twice."""

from collections.abc import Callable, Mapping, Sequence

import pytest

from tests.chaos.dying_node import COMMIT, DIES, STEPS
from tests.support.load import Load
from tests.support.node_fixtures import cluster, kind, launch, tell
from tests.support.nodes import SHARDS, SHORT_SESSION, Cluster, ClusterNode, soon_ms
from tests.support.under_load import audit

__all__ = ["cluster", "kind", "launch", "tell"]

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

KILLED: int = 137
PER_LANE: int = 4
STEPS_ON: Mapping[str, Sequence[str]] = {"dynamodb": STEPS, "postgresql": ("T2a", "T2d", "T3")}
"""In their order. On PostgreSQL those whose neighbours are writes of the store."""


@pytest.mark.parametrize("kind", STEPS_ON, indirect=True)
async def test_the_next_taker_ends_what_those_that_died_between_two_steps_have_begun(
    cluster: Cluster, tell: Callable[[str], None]
) -> None:
    # The first owner dies with rows that are committed and stand there still: only its markers tell. The one that takes over
    # from it dies in the middle of that, having fenced, settled, read or cleaned up as much as its step says. The next must
    # find it all out again, from the first owner's markers and the ones of those in between, and dies a step further.
    topic = await cluster.topic()
    api = await cluster.start(role="api")
    owner = await start_dying(cluster, COMMIT)
    await owner.until_works(SHARDS)
    load = Load(cluster, [topic], lanes_per_shard=2)
    load.clients = [api.client]
    for number in range(PER_LANE):
        for lane in load.ordering_keys:
            key = f"{lane}-{number}"
            await load.create(cluster.body(topic, key, in_ms=soon_ms() + number, ordering_key=lane))
    assert await owner.process.until_end() == KILLED
    for step in STEPS_ON[cluster.store]:
        taker = await start_dying(cluster, step)
        assert await taker.process.until_end() == KILLED, f"it died at {step}"
    await cluster.start(role="worker", more=SHORT_SESSION)
    for promise in load.ledger.promises.values():
        await cluster.until_status(api.client, promise.schedule_key)
    await audit(cluster, load, tell, topic)


async def start_dying(cluster: Cluster, step: str) -> ClusterNode:
    more = {DIES: step, **SHORT_SESSION}
    return await cluster.start(role="worker", module="tests.chaos.dying_node", more=more, ready=False)
