"""`python -m infra.migrate.upgrade`: from the format before to this one (docs/design.md, 5: going there from today's
format).

In the format before, each shard had a transactional id, a frontier and a marker of its own. **Stop all nodes first.** For
each shard this does what an owner of that format did at a take-over (fence the last producer, read its marker, clean up
the rows that it names), and then gives the shard the frontier as its floor; it sets the dates of the pointers anew; and
last it sets the format of the cluster, on which nodes of the format before refuse to start, and those of this one start.

It may be interrupted and repeated at any time: what is done is recognised. Each write is conditional on what was read, so
a node that was forgotten makes it stop, and not err. Settings as for a node. Exit codes: 0 done, 2 stopped (the same
command again goes on).
"""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

from clockwork.clock import ClockGuard, SystemClock
from clockwork.concurrency import gather_bounded
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.ownership import ShardState
from clockwork.domain.position import POINTER_POSITION, due_ms_of
from clockwork.domain.schedule import Pointer, pointer_expiry_s
from clockwork.domain.sharding import ShardId
from clockwork.errors import CannotStart, ClockworkError, ConditionFailed, Unreadable
from clockwork.firing.cleanup import Completed, finish_schedules
from clockwork.node.resources import kafka_context
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.sources import load_settings
from clockwork.stores.dynamodb import attributes as fields
from clockwork.stores.dynamodb import codec
from clockwork.stores.dynamodb.attributes import Item, number
from clockwork.stores.dynamodb.client import DynamoClient
from clockwork.stores.dynamodb.errors import Refused
from clockwork.stores.dynamodb.store import DynamoScheduleStore
from clockwork.stores.dynamodb.transactions import expiry_update
from infra.migrate.old_kafka import open_old_kafka

OLD_FORMAT: Final = 1
POINTERS_AT_ONCE: Final = 16
STILL_RUNNING: Final = "is being changed: a node is still running; stop all nodes, then repeat the command"

Report = Callable[[str], None]


class OldMarkers(Protocol):
    """Kafka in the format before. Implemented by `OldKafka`."""

    async def settle(self, shard: ShardId) -> None:
        """Fences the last producer of this shard, and settles its transaction."""
        ...

    async def read_marker(self, shard: ShardId) -> tuple[MarkerEntry, ...]:
        """The last committed marker of this shard. Only after `settle`."""
        ...


def main() -> int:
    """Runs the migration; returns the exit code."""
    summary = (__doc__ or "").partition("\n\n")[0]
    argparse.ArgumentParser(prog="python -m infra.migrate.upgrade", description=summary).parse_args()
    try:
        asyncio.run(_main())
    except ClockworkError as error:
        _report(f"stopped: {error}")
        return 2
    return 0


async def _main() -> None:
    settings = load_settings(os.environ)
    clock = SystemClock()
    store = DynamoScheduleStore(settings.dynamo, clock, ClockGuard(clock).observe, NoTelemetry())
    async with store, open_old_kafka(kafka_context(settings)) as markers:
        await upgrade(
            store,
            markers,
            shards=settings.intake.shards,
            retention_ms=settings.intake.retention_ms,
            now_ms=clock.now_ms(),
            report=_report,
        )


async def upgrade(
    store: DynamoScheduleStore, markers: OldMarkers, *, shards: int, retention_ms: int, now_ms: int, report: Report
) -> None:
    """Does all of it. Raises: ClockworkError."""
    cluster = await _read(store.client, {"partitionId": {"S": codec.CLUSTER}})
    written_in = fields.integer(cluster, "v")
    if written_in == codec.EXECUTIONS_FORMAT:
        report(f"the cluster has format {written_in} already: nothing to do")
        return
    stored = fields.integer(cluster, "shards")
    if (written_in, stored) != (OLD_FORMAT, shards):
        raise CannotStart(f"the cluster has format {written_in} and {stored} shards, not {OLD_FORMAT} and {shards}")
    for number_of_shard in range(shards):
        await _upgrade_shard(store, markers, ShardId(number_of_shard), retention_ms=retention_ms, report=report)
    await _upgrade_pointers(store.client, retention_ms=retention_ms, now_ms=now_ms, report=report)
    await _upgrade_cluster(store.client)
    report(f"the cluster has format {codec.EXECUTIONS_FORMAT} now")


async def _upgrade_shard(
    store: DynamoScheduleStore, markers: OldMarkers, shard: ShardId, *, retention_ms: int, report: Report
) -> None:
    before = await _read(store.client, codec.shard_key(shard))
    if fields.integer(before, "v") == codec.EXECUTIONS_FORMAT:
        report(f"shard {shard}: done by an earlier run")
        return
    # The order is that of a take-over: a marker that was read before the init may not be the last one.
    await markers.settle(shard)
    entries = await markers.read_marker(shard)
    rows = await store.read_rows(shard, [entry.position for entry in entries])
    delivered = [
        Completed(row=rows[entry.position], entry=entry, slot=0) for entry in entries if entry.position in rows
    ]
    # Before the shard is free: the markers of its next owner do not name these rows (docs/protocol.md: x-tidy-after).
    await finish_schedules(store, shard, delivered, retention_ms=retention_ms)
    after = ShardState(
        epoch=fields.integer(before, "epoch") + 1, owner=None, floor_ms=fields.integer(before, "frontier")
    )
    try:
        await store.client.call(
            "update_item",
            TableName=store.client.settings.executions_table,
            Key=codec.shard_key(shard),
            # The epoch, so that no retry mark of the last owner is believed.
            UpdateExpression="SET #epoch = :next, #floor = :frontier, #v = :new REMOVE #frontier, #owner",
            ConditionExpression="#epoch = :epoch AND #frontier = :frontier AND #v = :old",
            ExpressionAttributeNames={
                name: name.removeprefix("#") for name in ("#epoch", "#floor", "#frontier", "#owner", "#v")
            },
            ExpressionAttributeValues={
                ":epoch": number(after.epoch - 1),
                ":next": number(after.epoch),
                ":frontier": number(after.floor_ms),
                ":old": number(OLD_FORMAT),
                ":new": number(codec.EXECUTIONS_FORMAT),
            },
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except Refused as refused:
        if refused.items[0] != codec.shard_item(shard, after):
            raise ConditionFailed(f"shard {shard} {STILL_RUNNING}") from refused
    report(f"shard {shard}: {len(delivered)} delivered rows cleaned up, floor {after.floor_ms}")


async def _upgrade_pointers(client: DynamoClient, *, retention_ms: int, now_ms: int, report: Report) -> None:
    """Lets each pointer live as long as one that is written now: it must outlive its row."""
    count = 0
    async for page in _pages_of_pointers(client):
        pointers: list[Pointer] = []
        for item in page:
            try:
                pointers.append(codec.pointer_of(item))
            except Unreadable as error:
                report(f"a pointer is left as it is: {error}")
        expire = partial(_push_expiry, client, retention_ms=retention_ms, now_ms=now_ms)
        await gather_bounded(expire, pointers, at_once=POINTERS_AT_ONCE)
        count += len(pointers)
        report(f"{count:,} pointers")


async def _pages_of_pointers(client: DynamoClient) -> AsyncIterator[list[Item]]:
    more: dict[str, Any] = {}
    while True:
        answer = await client.call(
            "scan",
            TableName=client.settings.keys_table,
            FilterExpression="#position = :pointer",
            ExpressionAttributeNames={"#position": "position"},
            ExpressionAttributeValues={":pointer": {"N": POINTER_POSITION}},
            ConsistentRead=True,
            **more,
        )
        yield answer["Items"]
        if not answer.get("LastEvaluatedKey"):
            return
        more = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}


async def _push_expiry(client: DynamoClient, pointer: Pointer, *, retention_ms: int, now_ms: int) -> None:
    expires_at_s = pointer_expiry_s(due_ms=due_ms_of(pointer.position), at_ms=now_ms, retention_ms=retention_ms)
    try:
        await client.call(
            "update_item",
            **expiry_update(client.settings, pointer.row_name, expires_at_s=expires_at_s),
        )
    except Refused:
        return  # gone by now, or it lives long enough


async def _upgrade_cluster(client: DynamoClient) -> None:
    try:
        await client.call(
            "update_item",
            TableName=client.settings.executions_table,
            Key={"partitionId": {"S": codec.CLUSTER}},
            UpdateExpression="SET #v = :new",
            ConditionExpression="#v = :old",
            ExpressionAttributeNames={"#v": "v"},
            ExpressionAttributeValues={":old": number(OLD_FORMAT), ":new": number(codec.EXECUTIONS_FORMAT)},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except Refused as refused:
        there = refused.items[0]
        if there is None or fields.integer(there, "v") != codec.EXECUTIONS_FORMAT:
            raise ConditionFailed(f"item `{codec.CLUSTER}` {STILL_RUNNING}") from refused


async def _read(client: DynamoClient, key: Item) -> Mapping[str, Any]:
    answer = await client.call("get_item", TableName=client.settings.executions_table, Key=key, ConsistentRead=True)
    item: Item | None = answer.get("Item")
    if not item:
        name = key["partitionId"]["S"]
        raise Unreadable(f"table {client.settings.executions_table} has no item `{name}`: there is nothing to migrate")
    return item


def _report(line: str) -> None:
    print(f"migrate: {line}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
