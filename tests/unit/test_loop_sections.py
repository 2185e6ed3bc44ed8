"""The event loop's turns are bounded, however large pages, payloads and backlogs are: heartbeats share it.

How long the largest sections take is measured by `make bench SCENARIO=sections`; here it is how they are cut.
"""

import asyncio
import random
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pytest

from clockwork.clock import ClockGuard, SystemClock
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.position import Position
from clockwork.domain.schedule import Outcome
from clockwork.domain.sharding import ShardId
from clockwork.firing.cleanup import CHUNK_BYTES_MAX, CHUNK_ROWS, Cleanup, Completed
from clockwork.firing.shard_pass import PAGE_ROWS_MAX
from clockwork.ports.store import End
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import DynamoSettings
from clockwork.stores.dynamodb import batching
from clockwork.stores.dynamodb import codec as dynamo_codec
from clockwork.stores.dynamodb.batching import GROUPED_WRITES_MAX, BatchedWrites, Failures, Writes
from clockwork.stores.dynamodb.row_pages import YIELD_EVERY_ROWS
from clockwork.stores.dynamodb.store import DynamoScheduleStore
from clockwork.stores.memory.store import MemoryScheduleStore
from tests.support import builders
from tests.support.jobs import no_jobs

SETTINGS: Final = DynamoSettings(region="us-east-1")


async def test_others_get_their_turns_while_a_full_page_is_read() -> None:
    clock = SystemClock()
    store = DynamoScheduleStore(SETTINGS, clock, ClockGuard(clock).observe, NoTelemetry())
    items = [dynamo_codec.row_item(builders.row()) for _ in range(PAGE_ROWS_MAX)]

    async def answer(_operation: str, **_: Any) -> dict[str, Any]:
        return {"Items": items}

    vars(store.client)["call"] = answer
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        counting = group.create_task(count_turns(), name="turns")
        page = await store.read_page(builders.SHARD, after=None, rows_max=PAGE_ROWS_MAX)
        counting.cancel()
    assert len(page.rows) == PAGE_ROWS_MAX
    assert turns >= PAGE_ROWS_MAX // YIELD_EVERY_ROWS


class Outcomes(MemoryScheduleStore):
    """Remembers what was put together."""

    def __init__(self) -> None:
        super().__init__(shards=16)
        self.puts: list[Sequence[Outcome]] = []

    async def finish(self, shard: ShardId, ends: Sequence[End]) -> None:
        self.puts.append([end.outcome for end in ends if end.outcome is not None])
        await super().finish(shard, ends)


@pytest.mark.parametrize(("rows", "payload_bytes"), [(2 * CHUNK_ROWS, 100), (9, 250_000), (3, CHUNK_BYTES_MAX + 1)])
async def test_what_is_tidied_up_together_is_bounded_in_rows_and_bytes(rows: int, payload_bytes: int) -> None:
    # Eight megabytes may be untidied; their outcomes at one go would be 25 ms of base64. A row above the bound goes alone.
    store = Outcomes()
    tidying = Cleanup(
        store, no_jobs(), builders.SHARD, retention_ms=1_000, rng=random.Random(1), on_done=lambda done: None
    )
    large = [builders.row(builders.schedule(task_data=b"x" * payload_bytes)) for _ in range(rows)]
    tidying.add(
        Completed(
            row=row,
            entry=MarkerEntry(shard=row.shard, position=row.position, at_ms=1, receipt=builders.receipt()),
            slot=0,
        )
        for row in large
    )
    await tidying.finish()
    assert [o.position for put in store.puts for o in put] == [row.position for row in large]
    for put in store.puts:
        sizes = [o.schedule.size_bytes for o in put if o.schedule is not None]
        assert len(put) <= CHUNK_ROWS
        assert len(put) == 1 or sum(sizes) <= CHUNK_BYTES_MAX


async def test_all_shards_tidying_up_at_one_moment_do_not_make_one_large_group(monkeypatch: pytest.MonkeyPatch) -> None:
    # A drain on 64 shards: 12,800 requests in one turn of the loop would be measured and cut at one go, 60 ms.
    groups: list[Writes] = []
    cut = batching._cut

    def cut_and_note(writes: Writes) -> Iterator[Writes]:
        groups.append(writes)
        return cut(writes)

    monkeypatch.setattr(batching, "_cut", cut_and_note)

    async def write_once(writes: Writes) -> Failures:
        await asyncio.sleep(0)
        return {}

    writes = BatchedWrites(write_once)
    async with asyncio.TaskGroup() as tasks:
        for shard in range(64):
            mine: Writes = {
                (str(shard), Position(n)): {"DeleteRequest": {"Key": {"n": {"N": str(n)}}}} for n in range(200)
            }
            tasks.create_task(writes.write(mine), name=f"shard-{shard}")
    assert sum(len(group) for group in groups) == 64 * 200
    assert max(len(group) for group in groups) <= GROUPED_WRITES_MAX
    assert len(groups) < 64, "they still go together"
