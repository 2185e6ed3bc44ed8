"""What a node on PostgreSQL answers to generated requests is what its document says. On the twins in memory
far more is generated (tests/unit/test_openapi_conformance.py); here a store refuses what the twins would take."""

import aiohttp
import pytest
import schemathesis

from tests.support.nodes import Cluster, now_ms
from tests.unit.test_openapi_conformance import CALLS as ALL_CALLS
from tests.unit.test_openapi_conformance import Running, conform, narrowed, seed_jobs

pytestmark = [pytest.mark.processes]

EXAMPLES = 10
"""Of each call and kind."""
CALLS = [(method, path) for method, path in ALL_CALLS if not path.endswith("/fence")]


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_generated_requests_to_a_node_on_postgresql_are_answered_as_the_document_says(cluster: Cluster) -> None:
    topic = await cluster.topic()
    node = await cluster.start(more={"CLOCKWORK_JOBS": "on"})
    async with aiohttp.ClientSession(node.client.url) as session, session.get("/openapi.json") as answer:
        run_id = await seed_jobs(session, "shop", "other", topic=topic)
        running = Running(node.client.url, await answer.json(), now_ms(), [], run_id)
    narrow = narrowed(running, topic=topic)
    seen: set[int] = set()
    for method, path in CALLS:
        for described in (running.document, narrow):
            seen |= await conform(running, method, path, described=described, examples=EXAMPLES)
        mode = schemathesis.GenerationMode.NEGATIVE
        if running.document["paths"][path][method.lower()].get("requestBody"):
            seen |= await conform(running, method, path, described=narrow, mode=mode, examples=EXAMPLES)
    assert {200, 201, 400, 404, 409} <= seen
