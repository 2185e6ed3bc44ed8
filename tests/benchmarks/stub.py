"""The stub DynamoDB as a child process."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from infra.local.child import Child
from infra.local.node import REPOSITORY
from infra.local.ports import free_port
from tests.benchmarks.world import shards_of
from tests.support.nodes import Cluster
from tests.support.waiting import until

LATENCY_MS: Final = 5.0
"""Of DynamoDB in the same region, for a write."""


@asynccontextmanager
async def stub_dynamo(cluster: Cluster) -> AsyncIterator[str]:
    """Its endpoint; it stands for the tables of this cluster."""
    port = free_port()
    child = await Child.start(
        [
            *(sys.executable, "-m", "tests.benchmarks.stub_dynamo"),
            *("--port", str(port), "--prefix", cluster.name),
            *("--shards", str(shards_of(cluster)), "--latency-ms", str(LATENCY_MS)),
        ],
        log_path=cluster.folder / "stub.log",
        cwd=REPOSITORY,
    )

    async def answers() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await until(answers, "the stub DynamoDB")
        yield f"http://127.0.0.1:{port}"
    finally:
        await child.kill()
