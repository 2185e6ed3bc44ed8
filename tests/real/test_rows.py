"""Rows that a node cannot read: damaged, written by hand, written by a newer version."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from clockwork.domain.record import DEAD_REASON, SCHEDULE_TIME
from clockwork.stores.dynamodb import codec
from tests.support.nodes import Cluster, ClusterNode, now_ms
from tests.support.reader import read_all
from tests.support.tables import Item, tables_of, valid_row
from tests.support.waiting import until

pytestmark = [pytest.mark.processes]


def without(name: str) -> Callable[[Item], Item]:
    return lambda item: {key: value for key, value in item.items() if key != name}


def with_(**changed: Any) -> Callable[[Item], Item]:
    return lambda item: item | changed


DAMAGES: Mapping[str, Callable[[Item], Item]] = {
    "no topic": without("topic"),
    "no format version": without("v"),
    "format version is no number": with_(v={"S": "1"}),
    "format version 0": with_(v={"N": "0"}),
    "task data is a text": with_(taskData={"S": "not bytes"}),
    "unknown guarantee": with_(guarantee={"S": "exactly_twice"}),
    "headers are a list": with_(headers={"L": [{"S": "a"}]}),
    "retry is a text": with_(retry={"S": "soon"}),
    "a fraction for a time": with_(createdAt={"N": "1.5"}),
    "empty ordering key": with_(orderingKey={"S": ""}),
    "nothing but its key": lambda item: {
        name: item[name] for name in ("partitionId", "scheduleTime", "clientId", "scheduleKey")
    },
}


async def test_a_row_that_cannot_be_read_becomes_a_dead_letter_and_its_shard_goes_on(
    shared: Cluster, shared_node: ClusterNode
) -> None:
    # Each damaged in another way, all in one shard and lane. What they have in common is that their client can still be
    # told what became of them.
    topic = await shared.topic()
    client = shared_node.client
    damaged: dict[str, Item] = {}
    async with tables_of(shared) as tables:
        for name, damage in DAMAGES.items():
            row = valid_row(shared, topic, f"damaged: {name}", due_ms=now_ms(), ordering_key="damaged-lane")
            damaged[row.schedule.schedule_key] = await tables.plant(row, damage)
    well = shared.body(topic, "well", in_ms=50, ordering_key="damaged-lane")
    assert (await client.create(well)).status == 201

    await shared.until_status(client, "well")
    for key in damaged:
        ended = await shared.until_status(client, key, "failed")
        assert ended["failed"]["reason"] == "unreadable"
    letters = await read_all(shared.services.kafka_brokers, shared.dead_letters)
    by_key = {record.schedule_key: record for record in letters if record.schedule_key in damaged}
    assert by_key.keys() == damaged.keys()
    assert all(record.text(DEAD_REASON) == "unreadable" for record in by_key.values())
    for key, item in damaged.items():
        raw = json.loads(by_key[key].value)
        assert raw.keys() == item.keys(), "the dead letter is the item as it was found"
        assert (raw["partitionId"], raw["scheduleKey"]) == (item["partitionId"], item["scheduleKey"])
    assert [record.schedule_key for record in await read_all(shared.services.kafka_brokers, topic)] == ["well"]


async def test_rows_that_nobody_ever_wrote_do_not_stop_their_shard(shared: Cluster, shared_node: ClusterNode) -> None:
    # Put there by hand, some at sort keys where no schedule can stand: before the epoch, at zero, with more digits than
    # a position has, with another number of digits. Without a readable key no client can be told: a dead letter only.
    topic = await shared.topic()
    client = shared_node.client
    probe = await client.create(shared.body(topic, "probe", in_ms=60_000, ordering_key="foreign"))
    shard = probe.body["shard"]
    due = now_ms() - 1_000
    legal = [f"{due}.{'1':0>16}{n:0>8}" for n in range(1, 4)]
    rows: list[Item] = [
        {"scheduleTime": {"N": legal[0]}},
        {"scheduleTime": {"N": legal[1]}, "clientId": {"S": "no/legal id"}, "scheduleKey": {"S": "x"}, "v": {"N": "1"}},
        {"scheduleTime": {"N": legal[2]}, "clientId": {"N": "7"}, "taskData": {"B": "/w=="}, "v": {"N": "1"}},
    ]
    strange = [{"scheduleTime": {"N": number}} for number in ("-5", "0", "1.5", f"{due}.123", "12345E-40", "1E-100")]
    async with tables_of(shared) as tables:
        for row in [*rows, *strange]:
            await tables.put_row(row | {"partitionId": {"S": str(shard)}})
        try:
            after = shared.body(topic, "after-foreign", in_ms=100, ordering_key="foreign")
            assert (await client.create(after)).status == 201
            await shared.until_status(client, "after-foreign")

            async def all_gone() -> bool:
                left = {row["scheduleTime"]["N"] for row in await tables.rows(shard)}
                return not {_plain(number) for number in legal} & {_plain(number) for number in left}

            await until(all_gone, "the rows at legal positions are gone")
        finally:
            for row in strange:
                await tables.delete_row(row | {"partitionId": {"S": str(shard)}})
    assert (await client.cancel(shared.name, "probe")).status == 200
    letters = await read_all(shared.services.kafka_brokers, shared.dead_letters)
    assert len([record for record in letters if record.text(SCHEDULE_TIME) == str(due)]) >= len(legal)


async def test_a_row_of_a_newer_format_is_left_alone_and_only_its_lane_waits(
    shared: Cluster, shared_node: ClusterNode
) -> None:
    # In the middle of an upgrade: an older node must not judge what a newer one wrote. As soon as a node can read it
    # (here: the version is set back) it and what stands behind it are delivered, in order.
    topic = await shared.topic()
    client = shared_node.client
    async with tables_of(shared) as tables:
        due_ms = now_ms()
        row = valid_row(shared, topic, "newer", due_ms=due_ms, ordering_key="newer-lane")
        newer = await tables.plant(row, with_(v={"N": "99"}, guarantee={"S": "a word of next year"}))
        behind = shared.body(topic, "behind-newer", due_ms=due_ms + 1, ordering_key="newer-lane")
        answered = await client.create(behind)
        assert (answered.status, answered.body["shard"]) == (201, row.shard)
        for number in range(20):
            body = shared.body(topic, f"beside-{number}", due_ms=due_ms + 2, ordering_key=f"beside-lane-{number}")
            assert (await client.create(body)).status == 201

        async def alarmed() -> bool:
            return await shared_node.metric('clockwork_malformed_total{what="newer_row"}') > 0

        await until(alarmed, "the newer row counted")
        for number in range(20):
            await shared.until_status(client, f"beside-{number}")
        assert (await client.get(shared.name, "behind-newer")).body["status"] == "pending"
        found = await tables.row(row.shard, "newer")
        assert found | {"scheduleTime": newer["scheduleTime"]} == newer
        await tables.put_row(codec.row_item(row))
    await shared.until_status(client, "behind-newer")
    await shared.until_status(client, "newer")
    keys = [record.schedule_key for record in await read_all(shared.services.kafka_brokers, topic)]
    assert [key for key in keys if not key.startswith("beside")] == ["newer", "behind-newer"]
    letters = await read_all(shared.services.kafka_brokers, shared.dead_letters)
    assert "newer" not in {record.schedule_key for record in letters}


def _plain(number: str) -> str:
    """Without zeros that say nothing, as DynamoDB gives it back."""
    return number.rstrip("0").rstrip(".") if "." in number else number
