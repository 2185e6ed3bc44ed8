"""A node on PostgreSQL answers generated requests as its document says. On the twins in memory
far more is generated (tests/unit/test_openapi_conformance.py); here a store refuses what the twins would take."""

import aiohttp
import pytest
import schemathesis

from tests.support.nodes import Cluster, now_ms
from tests.unit.test_openapi_conformance import CALLS as ALL_CALLS
from tests.unit.test_openapi_conformance import Running, conform, narrowed, seed_jobs

pytestmark = [pytest.mark.processes]

EXAMPLES = 8
"""Requests of each call."""
FEW = 3
"""Requests of each call with names that are there, and with a body that is wrong."""
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
        seen |= await conform(running, method, path, described=running.document, examples=EXAMPLES)
        seen |= await conform(running, method, path, described=narrow, examples=FEW)
        mode = schemathesis.GenerationMode.NEGATIVE
        if running.document["paths"][path][method.lower()].get("requestBody"):
            seen |= await conform(running, method, path, described=narrow, mode=mode, examples=FEW)
    assert {200, 201, 400, 404, 409} <= seen
