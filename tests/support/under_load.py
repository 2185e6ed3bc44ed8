"""A test's course: load, faults, quiet, audit."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tests.support.load import Load
from tests.support.nodes import Cluster
from tests.support.promises import lateness_text
from tests.support.reader import CommittedReader, read_all, reading
from tests.support.waiting import until

Tell = Callable[[str], None]


@asynccontextmanager
async def under_load(cluster: Cluster, load: Load, *topics: str) -> AsyncIterator[CommittedReader]:
    """The load runs for the length of the block; after it, everything that was accepted has arrived or has ended."""
    stop = asyncio.Event()
    async with reading(cluster.services.kafka_brokers, *topics) as reader:
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(stop), name="load")
            try:
                yield reader
            finally:
                stop.set()
        await reader.until_arrived(load.ledger.expected(), within_s=60)


async def audit(cluster: Cluster, load: Load, tell: Tell, *topics: str) -> None:
    """Asks for states, ends every node, so that nothing more is written, and compares with all that was committed."""
    if cluster.nodes:
        await load.ask_all()
        await cluster.stop()
    records = await read_all(cluster.services.kafka_brokers, *topics)
    tell(lateness_text(load.ledger, records))
    assert not load.ledger.broken(records, await read_all(cluster.services.kafka_brokers, cluster.dead_letters))


async def until_delivers(
    reader: CommittedReader, load: Load, *, since_ms: int, shards: frozenset[int] | None = None
) -> int:
    """Waits until each of these shards (all of them, by default) has delivered something after that time. Returns the time
    at which the last of them first did."""
    wanted = shards if shards is not None else load.shards

    async def look() -> int | None:
        await reader.read()
        first_ms: dict[int, int] = {}
        for record in reader.records:
            if record.timestamp_ms > since_ms and record.schedule_key in load.ledger.promises:
                shard = load.ledger.promises[record.schedule_key].shard
                first_ms[shard] = min(record.timestamp_ms, first_ms.get(shard, record.timestamp_ms))
        return max(first_ms[n] for n in wanted) if wanted <= first_ms.keys() else None

    return await until(look, f"deliveries of the shards {sorted(wanted)}")
