"""The same on a real Kafka and a real store: rows put by hand and records put on the ownership topic, with a sound
schedule beside each."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

from aiokafka import AIOKafkaProducer

from clockwork.domain.position import Position
from clockwork.domain.record import DEAD_REASON, SCHEDULE_KEY
from clockwork.domain.schedule import BrokenRow, Lane, Row
from clockwork.domain.sharding import ShardId
from tests.fuzz import wakeups
from tests.fuzz.tally import Tally
from tests.support.nodes import Cluster, ClusterNode, now_ms
from tests.support.reader import read_all
from tests.support.tables import RowsByHand, rows_by_hand_of, valid_row
from tests.support.waiting import until

ROWS: Final = "rows in a store"
WAKEUPS: Final = "wake-ups on Kafka"
TOPICS: Final = "for-"
"""The beginning of the names of topics that exist."""
CAUSES_MAX: Final = 8
"""Causes of a record that is no wake-up: each is logged once."""


async def plant_rows(cluster: Cluster, node: ClusterNode, damages: Sequence[Any], tally: Tally) -> None:
    """Plants all of them, each damaged as its store can be, creates a sound schedule for each shard's each, and waits for
    those."""
    topic, run = await cluster.topic(), uuid4().hex[:8]
    planted: list[Row | BrokenRow] = []
    async with rows_by_hand_of(cluster) as by_hand:
        for number, damage in enumerate(damages):
            lane = f"{run}-lane-{number}"
            sound_row = valid_row(cluster, topic, f"{run}-bad-{number}", due_ms=now_ms(), ordering_key=lane)
            row = await by_hand.put(sound_row, damage)
            if row is None:
                tally.add(ROWS, "refused by the store itself")
                continue
            planted.append(row)
        sound = [f"{run}-sound-{number}" for number in range(len(damages))]
        bodies = [cluster.body(topic, key, in_ms=50, ordering_key=f"{key}-lane") for key in sound]
        for body in bodies:
            assert (await node.client.create(body)).status == 201
        await _until_all_delivered(cluster, node, sound)
        try:
            await _account(cluster, by_hand, planted, tally)
        finally:
            # Those that wait, for a topic or a newer version, would wait for as long as the cluster stands.
            for row in planted:
                await by_hand.delete(row)
    arrived = [record.schedule_key for record in await read_all(cluster.services.kafka_brokers, topic)]
    assert sorted(key for key in arrived if "-sound-" in key) == sorted(sound), "each of them once"


async def _until_all_delivered(cluster: Cluster, node: ClusterNode, keys: Sequence[str]) -> None:
    async with asyncio.TaskGroup() as group:
        for key in keys:
            group.create_task(cluster.until_status(node.client, key), name=key)


async def _account(cluster: Cluster, by_hand: RowsByHand, planted: Sequence[Row | BrokenRow], tally: Tally) -> None:
    """Each is delivered, failed, dropped, or stands where it stood for a reason."""

    async def settled() -> bool:
        left = await _left(by_hand, planted)
        waiting = {_lane(row) for row in left if _waits_itself(row)}
        return all(_lane(row) in waiting for row in left)

    await until(settled, "every planted row ended, or waits for a reason")
    left = {_place(row) for row in await _left(by_hand, planted)}
    reasons = {
        (record.text(SCHEDULE_KEY)): record.text(DEAD_REASON)
        for record in await read_all(cluster.services.kafka_brokers, cluster.dead_letters)
    }
    for row in planted:
        if _place(row) in left:
            tally.add(ROWS, "waits: a newer format, a missing topic, a retry ahead")
            continue
        reason = reasons.get(row.name.schedule_key or "")
        tally.add(ROWS, "delivered, dropped, or without a readable key" if reason is None else f"dead letter: {reason}")


async def _left(by_hand: RowsByHand, planted: Sequence[Row | BrokenRow]) -> list[Row | BrokenRow]:
    wanted = {_place(row) for row in planted}
    shards = sorted({row.shard for row in planted})
    return [row for shard in shards for row in await by_hand.rows(shard) if _place(row) in wanted]


def _place(row: Row | BrokenRow) -> tuple[ShardId, Position]:
    return row.shard, row.position


def _lane(row: Row | BrokenRow) -> Lane | None:
    return row.lane if isinstance(row, BrokenRow) else row.schedule.lane


def _waits_itself(row: Row | BrokenRow) -> bool:
    if isinstance(row, BrokenRow):
        return row.newer_format
    return not row.schedule.topic.startswith(TOPICS) or row.retry is not None


async def put_records(cluster: Cluster, node: ClusterNode, values: Sequence[bytes | None], tally: Tally) -> None:
    """Puts each on some shard's Kafka partition, mostly not the one that it speaks of, and a sound schedule after all."""
    topic, run = await cluster.topic(), uuid4().hex[:8]
    series = 'clockwork_malformed_total{what="wakeup"}'
    before = await node.metric(series)
    malformed = 0
    producer = AIOKafkaProducer(bootstrap_servers=cluster.services.kafka_brokers, max_request_size=1_000_000)
    await producer.start()
    try:
        for number, value in enumerate(values):
            readable = wakeups.check(value, Tally())
            malformed += not readable
            where = number % int(cluster.settings["CLOCKWORK_SHARDS"])
            await producer.send_and_wait(f"{cluster.name}-shards", value, key=b"any", partition=where)
            tally.add(WAKEUPS, "a hint, of nothing" if readable else "counted and left out")
    finally:
        await producer.stop()

    async def counted() -> bool:
        return await node.metric(series) - before == malformed

    await until(counted, f"{malformed} wake-ups counted as malformed")
    keys = [f"{run}-{number}" for number in range(16)]
    for key in keys:
        assert (await node.client.create(cluster.body(topic, key, in_ms=20))).status == 201
    await _until_all_delivered(cluster, node, keys)
    assert len(node.logged("wakeup.malformed")) <= CAUSES_MAX, "once for each cause, not for each record"
    assert not node.logged("shard.failed"), "a record on the topic is no reason to take a shard over again"
