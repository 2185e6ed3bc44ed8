"""`python -m infra.migrate.upgrade`: tables of the format before, on the real services."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from clockwork.domain.marker import MarkerEntry
from clockwork.domain.ownership import ShardState
from clockwork.domain.position import text_of
from clockwork.domain.schedule import EndState, Row, pointer_expiry_s
from clockwork.domain.sharding import ShardId
from clockwork.errors import CannotStart, ConditionFailed, NewerFormat, StoreUnavailable, Unreadable
from clockwork.kafka.client import KafkaContext
from clockwork.settings.model import KafkaSettings
from clockwork.stores.dynamodb import codec
from clockwork.stores.dynamodb.attributes import number
from clockwork.stores.dynamodb.schema import check_tables
from clockwork.stores.dynamodb.store import DynamoScheduleStore
from infra.migrate import old_kafka
from infra.migrate.old_kafka import OldKafka, open_old_kafka
from infra.migrate.upgrade import OldMarkers, upgrade
from tests.contract.store_fixtures import SHARDS, Faults
from tests.support.builders import DUE_MS, outcome, pointer, receipt, row

if TYPE_CHECKING:
    from infra.local import LocalServices

pytestmark = pytest.mark.real

SHARD: Final = ShardId(1)
RETENTION_MS: Final = 7 * 24 * 3_600_000
NOW_MS: Final = DUE_MS + 5_000


class Markers:
    """What Kafka in the format before holds; notes what is asked, and may do something at it."""

    def __init__(self, *delivered: Row) -> None:
        self.entries = tuple(
            MarkerEntry(shard=SHARD, position=each.position, at_ms=DUE_MS + 5, receipt=receipt()) for each in delivered
        )
        self.asked: list[tuple[str, ShardId]] = []
        self.then: Callable[[], Awaitable[object]] | None = None

    async def settle(self, shard: ShardId) -> None:
        self.asked.append(("settle", shard))

    async def read_marker(self, shard: ShardId) -> tuple[MarkerEntry, ...]:
        self.asked.append(("marker", shard))
        if self.then is not None:
            await self.then()
        return self.entries if shard == SHARD else ()


def old_shard(shard: int, *, epoch: int = 4, frontier_ms: int = 0, owner: str = "") -> dict[str, Any]:
    return codec.shard_key(ShardId(shard)) | {
        "v": number(1),
        "epoch": number(epoch),
        "owner": {"S": owner},
        "frontier": number(frontier_ms),
    }


async def put(store: DynamoScheduleStore, item: dict[str, Any]) -> None:
    await store.client.call("put_item", TableName=store.client.settings.executions_table, Item=item)


@pytest.fixture
async def old_store(dynamo_store: DynamoScheduleStore) -> DynamoScheduleStore:
    """A store whose cluster and shards are of the format before."""
    for number_of_shard in range(SHARDS):
        owner = "host/1234" if number_of_shard else ""
        await put(dynamo_store, old_shard(number_of_shard, frontier_ms=number_of_shard * 100, owner=owner))
    await put(dynamo_store, codec.cluster_item(SHARDS) | {"v": number(1)})
    return dynamo_store


async def run(store: DynamoScheduleStore, markers: OldMarkers) -> list[str]:
    said: list[str] = []
    await upgrade(store, markers, shards=SHARDS, retention_ms=RETENTION_MS, now_ms=NOW_MS, report=said.append)
    return said


async def created(store: DynamoScheduleStore, *, expires_at_s: int = 5) -> Row:
    new = row(shard=SHARD)
    await store.create(new, pointer(new, expires_at_s=expires_at_s), replaces=None)
    return new


async def test_shards_pointers_and_cluster_get_the_new_format(old_store: DynamoScheduleStore) -> None:
    delivered, pending = await created(old_store), await created(old_store)
    lasting = await created(old_store, expires_at_s=9_000_000_000)
    markers = Markers(delivered)

    await run(old_store, markers)

    # In the order of a take-over: a marker that is read before the init may not be the last one.
    assert markers.asked == [(what, ShardId(n)) for n in range(SHARDS) for what in ("settle", "marker")]
    assert await old_store.read_shards([ShardId(n) for n in range(SHARDS)]) == {
        n: ShardState(epoch=5, owner=None, floor_ms=n * 100) for n in range(SHARDS)
    }
    assert await old_store.read_row(delivered.name) is None
    names = delivered.schedule.client_id, delivered.schedule.schedule_key
    ended = await old_store.read_outcome(*names, delivered.position)
    assert ended is not None
    assert (ended.state, ended.receipt, ended.schedule) == (EndState.DELIVERED, receipt(), delivered.schedule)
    assert await old_store.read_row(pending.name) == pending
    for each, expires_at_s in (
        (pending, pointer_expiry_s(due_ms=pending.due_ms, at_ms=NOW_MS, retention_ms=RETENTION_MS)),
        (lasting, 9_000_000_000),
    ):
        found = await old_store.read_pointer(each.schedule.client_id, each.schedule.schedule_key)
        assert found == pointer(each, expires_at_s=expires_at_s)
    assert (await check_tables(old_store.client, shards=SHARDS)).problems == ()


async def test_once_done_nothing_is_done_again(old_store: DynamoScheduleStore) -> None:
    await run(old_store, Markers())
    again = Markers()

    (said,) = await run(old_store, again)

    assert "nothing to do" in said
    assert again.asked == []


async def test_an_interrupted_run_goes_on_where_it_was(old_store: DynamoScheduleStore) -> None:
    broken, whole = Markers(), Markers()

    async def break_off() -> None:
        if broken.asked[-1][1] == 2:
            raise StoreUnavailable

    broken.then = break_off
    with pytest.raises(StoreUnavailable):
        await run(old_store, broken)
    # Nodes of either format refuse to start meanwhile.
    assert (await check_tables(old_store.client, shards=SHARDS)).problems

    await run(old_store, whole)

    assert [shard for what, shard in whole.asked if what == "settle"] == [2, 3]
    assert (await old_store.read_shard(SHARD)).epoch == 5


async def test_answers_that_get_lost_are_recognised(old_store: DynamoScheduleStore) -> None:
    await created(old_store)
    faults = Faults(old_store.client)
    faults.lose_answer("UpdateItem")
    for _ in range(SHARDS):
        faults.pass_on("UpdateItem")
    faults.lose_answer("UpdateItem")  # of the pointer
    faults.pass_on("UpdateItem")
    faults.lose_answer("UpdateItem")  # of the cluster

    await run(old_store, Markers())

    assert (await check_tables(old_store.client, shards=SHARDS)).problems == ()
    assert (await old_store.read_shard(SHARD)).epoch == 5


@pytest.mark.parametrize(("epoch", "frontier_ms"), [(5, 100), (4, 101)])
async def test_a_node_that_was_forgotten_stops_it(old_store: DynamoScheduleStore, epoch: int, frontier_ms: int) -> None:
    markers = Markers()

    async def work() -> None:
        if markers.asked[-1][1] == SHARD:
            await put(old_store, old_shard(SHARD, epoch=epoch, frontier_ms=frontier_ms))

    markers.then = work
    with pytest.raises(ConditionFailed, match="still running"):
        await run(old_store, markers)

    with pytest.raises(Unreadable, match="format 1"):
        await old_store.read_shard(SHARD)


async def test_a_delivered_row_of_a_newer_format_stops_it(old_store: DynamoScheduleStore) -> None:
    newer = await created(old_store)
    item = codec.row_item(newer) | {"v": number(9)}
    await old_store.client.call("put_item", TableName=old_store.client.settings.schedules_table, Item=item)

    with pytest.raises(NewerFormat):
        await run(old_store, Markers(newer))

    with pytest.raises(Unreadable, match="format 1"):
        await old_store.read_shard(SHARD)


async def test_another_shard_count_is_refused(old_store: DynamoScheduleStore) -> None:
    with pytest.raises(CannotStart, match="4 shards"):
        await upgrade(old_store, Markers(), shards=8, retention_ms=RETENTION_MS, now_ms=NOW_MS, report=lambda _: None)


# --- the markers


def marker_of(*rows: Row) -> bytes:
    """As the format before wrote it."""
    entries: list[list[Any]] = [[text_of(each.position), 0, 7, DUE_MS + 5] for each in rows]
    return json.dumps({"v": 1, "ended": entries}).encode()


def test_a_marker_is_read_whole_or_not_at_all() -> None:
    at = row()
    text = text_of(at.position)

    def read(*entries: object) -> tuple[MarkerEntry, ...]:
        return old_kafka.decode(json.dumps({"v": 1, "ended": entries}).encode(), SHARD)

    (delivered, failed, dropped) = read(
        [text, 0, 7, 5], [text, 0, 7, 5, "record_too_large", 8], [text, None, None, 5, "expired", 0]
    )
    assert delivered.position == at.position
    assert (delivered.receipt, delivered.failure) == (receipt(7, at_ms=5), None)
    assert failed.failure is not None
    assert (failed.failure.reason, failed.failure.attempts, failed.receipt) == (
        "record_too_large",
        8,
        receipt(7, at_ms=5),
    )
    assert dropped.receipt is None
    for damaged in ([text, 0, 7], [text, None, None, 5], [text, 0, 7, 1.5], [text, 0, None, 5], "x", [None, 0, 7, 5]):
        with pytest.raises(Unreadable):
            read(damaged)
    for value in (b"[]", b"{", b'{"v": 0, "ended": []}', b'{"v": true, "ended": []}'):
        with pytest.raises(Unreadable):
            old_kafka.decode(value, SHARD)
    with pytest.raises(NewerFormat):
        old_kafka.decode(b'{"v": 2, "ended": []}', SHARD)


@pytest.fixture
async def context(services: "LocalServices") -> KafkaContext:
    """Kafka with a deliveries topic of its own."""
    settings = KafkaSettings(brokers=(services.kafka_brokers,), cluster=f"old-{uuid4().hex[:8]}")
    context = KafkaContext(settings=settings)
    admin = AIOKafkaAdminClient(**context.connection("test"))
    await admin.start()
    try:
        topic = NewTopic(settings.deliveries_topic, SHARDS, 1, topic_configs={"cleanup.policy": "compact"})
        await admin.create_topics([topic])
    finally:
        await admin.close()
    return context


async def test_the_last_committed_marker_is_read_and_an_open_transaction_is_aborted(context: KafkaContext) -> None:
    first, last, never = row(), row(), row()
    topic = context.settings.deliveries_topic
    producer = AIOKafkaProducer(
        **context.connection("test"), transactional_id=f"{context.settings.cluster}-shard-{SHARD}"
    )
    async with producer, open_old_kafka(context) as old:
        for rows in ((first,), (first, last)):
            async with producer.transaction():
                await producer.send_and_wait(topic, marker_of(*rows), b"marker", int(SHARD))
        await producer.begin_transaction()
        await producer.send_and_wait(topic, marker_of(never), b"marker", int(SHARD))

        await old.settle(SHARD)
        entries = await old.read_marker(SHARD)

        assert [entry.position for entry in entries] == [first.position, last.position]
        assert await read_again(old) == entries
        await old.settle(ShardId(2))
        assert await old.read_marker(ShardId(2)) == ()
        with pytest.raises(KafkaError):
            await producer.commit_transaction()


async def read_again(old: OldKafka) -> tuple[MarkerEntry, ...]:
    """A run that was interrupted begins anew."""
    await old.settle(SHARD)
    return await old.read_marker(SHARD)


async def test_a_shard_is_upgraded_with_its_real_marker(context: KafkaContext, old_store: DynamoScheduleStore) -> None:
    delivered, pending = await created(old_store), await created(old_store)
    producer = AIOKafkaProducer(
        **context.connection("test"), transactional_id=f"{context.settings.cluster}-shard-{SHARD}"
    )
    async with producer, producer.transaction():
        await producer.send_and_wait(context.settings.deliveries_topic, marker_of(delivered), b"marker", int(SHARD))

    async with asyncio.timeout(60), open_old_kafka(context) as old:
        await run(old_store, old)

    assert await old_store.read_rows(SHARD, [delivered.position, pending.position]) == {pending.position: pending}
    found = await old_store.read_outcome(
        delivered.schedule.client_id, delivered.schedule.schedule_key, delivered.position
    )
    assert found is not None
    assert found.state == outcome(delivered).state
