"""aiokafka's internals, as `clockwork.kafka.aiokafka_internals` uses them: each test fails if one is renamed or works
otherwise, and so decides whether another version of aiokafka may be taken."""

import asyncio
import gc
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, create_autospec

import aiokafka
import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import create_conn
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import CommitFailedError
from aiokafka.protocol.commit import OffsetCommitRequest_v3
from aiokafka.protocol.metadata import MetadataRequest_v4, MetadataRequest_v5
from aiokafka.structs import OffsetAndMetadata

from clockwork.kafka import aiokafka_internals
from clockwork.kafka.aiokafka_internals import (
    TopicLookup,
    abandon_consumer,
    close_client,
    commit_once,
    committed_offset,
    membership_of,
)
from clockwork.kafka.ownership import stop_consumer

WHERE = TopicPartition("commands", 0)
BUFFERED_BYTES = 32 * 1024 * 1024
"""More than the sockets of a connection take."""


def creates(request: Any) -> bool:
    """True if a broker may create the topics that this metadata request names: its last byte."""
    return any(request.build(version).encode()[-1] for version in (MetadataRequest_v4, MetadataRequest_v5))


@pytest.mark.parametrize("asked_for", [None, True, False])
def test_a_topic_lookup_creates_nothing_whatever_it_is_told(asked_for: bool | None) -> None:
    assert not creates(TopicLookup(["orders"], asked_for))
    assert not creates(TopicLookup(None, allow_auto_topic_creation=asked_for))


async def test_a_client_s_refresh_of_its_topics_creates_none() -> None:
    client = AIOKafkaClient()
    connection = AsyncMock()
    connection.send.return_value.brokers = []
    client._conns["bootstrap", ConnectionGroup.DEFAULT] = connection
    connection.connected = lambda: True
    await client._metadata_update(client.cluster, {"orders"})
    (request,) = connection.send.await_args.args
    assert request._topics == ["orders"]
    assert not creates(request)


async def test_an_admin_client_s_description_of_topics_creates_none(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    async def send(client: AIOKafkaClient, node_id: Any, request: Any, **_: Any) -> Any:
        asked.append(request)
        return create_autospec(MetadataRequest_v5.RESPONSE_TYPE, instance=True)

    monkeypatch.setattr(AIOKafkaClient, "send", send)
    await AIOKafkaAdminClient().describe_topics(["orders"])
    assert [creates(request) for request in asked] == [False]


def test_no_other_part_of_the_library_makes_metadata_requests() -> None:
    package = Path(aiokafka.__file__).parent
    makers = {
        str(path.relative_to(package)) for path in package.rglob("*.py") if " MetadataRequest(" in path.read_text()
    }
    # `protocol` has the class itself, and makes none.
    assert makers - {"protocol/metadata.py"} == {"client.py", "admin/client.py"}


@pytest.fixture
async def deaf_broker() -> AsyncIterator[int]:
    """The port of a broker that tells its versions, and reads nothing more."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (size,) = struct.unpack(">i", await reader.readexactly(4))
        _key, version, correlation_id = struct.unpack(">hhi", (await reader.readexactly(size))[:8])
        # No error, no versions, and from version 1 on no throttling.
        answer = struct.pack(">ihi", correlation_id, 0, 0) + (b"\0" * 4 if version else b"")
        writer.write(struct.pack(">i", len(answer)) + answer)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport has it
        await ended.wait()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    ended.set()
    server.close()
    await server.wait_closed()


async def test_a_connection_whose_other_side_does_not_read_is_dropped(
    deaf_broker: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiokafka_internals, "CLOSE_S_MAX", 0.05)
    client = AIOKafkaClient()
    connection = await create_conn("127.0.0.1", deaf_broker)
    client._conns[1, ConnectionGroup.DEFAULT] = connection
    transport = connection._writer.transport
    transport.write(bytes(BUFFERED_BYTES))
    assert transport.get_write_buffer_size() > 0
    await close_client(client)
    assert transport.get_write_buffer_size() == 0


async def test_a_cancellation_of_the_one_who_closes_a_client_is_not_lost() -> None:
    ends, go_on = asyncio.Event(), asyncio.Event()

    async def refresh_metadata() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.set()
            await go_on.wait()

    client = AIOKafkaClient()
    loop = asyncio.get_running_loop()
    client._sync_task = loop.create_task(refresh_metadata())
    await asyncio.sleep(0)
    closing = loop.create_task(close_client(client))
    await ends.wait()
    closing.cancel()
    go_on.set()
    await asyncio.wait([closing])
    assert closing.cancelled()


async def test_a_committed_offset_comes_with_its_metadata() -> None:
    consumer = AIOKafkaConsumer(group_id="g")
    assert consumer._coordinator is None
    consumer._coordinator = create_autospec(GroupCoordinator, instance=True)
    fetch = consumer._coordinator.fetch_committed_offsets
    for found, expected in (
        ({}, None),
        ({WHERE: OffsetAndMetadata(-1, "")}, None),
        ({WHERE: OffsetAndMetadata(7, "noted")}, OffsetAndMetadata(7, "noted")),
    ):
        fetch.return_value = found
        assert await committed_offset(consumer, WHERE) == expected
    fetch.assert_awaited_with([WHERE])
    await consumer.stop()


async def test_while_an_assignment_is_reported_generation_and_member_are_those_that_it_belongs_to() -> None:
    consumer = AIOKafkaConsumer(group_id="g")
    consumer._subscription.subscribe({"shards"}, listener=(listener := _NotesMembership(consumer)))
    coordinator = consumer._coordinator = GroupCoordinator(
        consumer._client, consumer._subscription, group_id="g", assignors=(RangePartitionAssignor,)
    )
    assert membership_of(consumer) == (-1, "")
    assigned = ConsumerProtocolMemberAssignment(0, [("shards", [0])], b"").encode()
    # As after a join: both are set by its answer, and this is what follows it.
    coordinator.generation, coordinator.member_id = 7, "me"
    await coordinator._on_join_complete(7, "me", RangePartitionAssignor.name, assigned)
    assert listener.noted == [(7, "me")]
    # A heartbeat that is answered "unknown member" does this.
    coordinator.reset_generation()
    assert membership_of(consumer) == (-1, "")
    await coordinator.close()
    await consumer.stop()


async def test_a_commit_is_built_for_one_membership_and_not_sent_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = AIOKafkaConsumer(group_id="g")
    coordinator = consumer._coordinator = GroupCoordinator(consumer._client, consumer._subscription, group_id="g")
    coordinator.coordinator_id = 1
    answered = asyncio.Event()
    sent: list[Any] = []

    async def send(node_id: int, request: Any, **_: Any) -> Any:
        sent.append(request.build(OffsetCommitRequest_v3))
        await answered.wait()
        return OffsetCommitRequest_v3.RESPONSE_TYPE(0, [(WHERE.topic, [(WHERE.partition, 0)])])

    monkeypatch.setattr(consumer._client, "send", send)
    coordinator.generation, coordinator.member_id = 7, "me"
    task = asyncio.get_running_loop().create_task(
        commit_once(consumer, (7, "me"), WHERE, OffsetAndMetadata(5, "noted"))
    )
    await asyncio.sleep(0)
    # Nothing was waited for in between: a membership that was compared is the one that the request names.
    [request] = sent
    assert (request.consumer_group_generation_id, request.consumer_id) == (7, "me")
    assert request.topics == [(WHERE.topic, [(WHERE.partition, 5, "noted")])]
    coordinator.generation = 8
    answered.set()
    await task
    with pytest.raises(CommitFailedError):
        await commit_once(consumer, (7, "me"), WHERE, OffsetAndMetadata(5, "noted"))
    assert len(sent) == 1
    coordinator.reset_generation()  # nothing to leave
    await coordinator.close()
    await consumer.stop()


class _NotesMembership(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self.noted: list[tuple[int, str]] = []

    def on_partitions_revoked(self, revoked: Any) -> None: ...

    def on_partitions_assigned(self, assigned: Any) -> None:
        self.noted.append(membership_of(self._consumer))


async def test_an_abandoned_consumer_leaves_no_task_and_no_connection() -> None:
    # One that was started and joined, while Kafka answers nothing any more.
    consumer = AIOKafkaConsumer(group_id="g")
    assert consumer._fetcher is None
    client, subscription = consumer._client, SubscriptionState()
    coordinator = consumer._coordinator = GroupCoordinator(client, subscription, group_id="g")
    consumer._fetcher = Fetcher(client, subscription)
    loop = asyncio.get_running_loop()
    assert coordinator._heartbeat_task is None
    assert coordinator._commit_refresh_task is None
    coordinator._heartbeat_task = loop.create_task(asyncio.Event().wait())
    coordinator._commit_refresh_task = loop.create_task(asyncio.Event().wait())
    tasks = [coordinator._coordination_task, coordinator._heartbeat_task, coordinator._commit_refresh_task]
    connection = client._conns[1, ConnectionGroup.DEFAULT] = AsyncMock()
    await abandon_consumer(consumer)
    assert all(task.done() for task in tasks)
    connection.close.assert_called_once()
    await consumer.stop()


async def test_the_error_that_ended_the_coordination_of_a_stopped_consumer_is_not_logged_as_a_defect() -> None:
    consumer = AIOKafkaConsumer(group_id="g")
    subscription = consumer._subscription
    subscription.subscribe({"commands"})
    # Its client knows no broker, which aiokafka takes for a defect of its own.
    coordinator = consumer._coordinator = GroupCoordinator(consumer._client, subscription, group_id="g")
    await asyncio.wait([coordinator._coordination_task])
    loop, reports = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: reports.append(context))
    try:
        await stop_consumer(consumer)
        coordinator._coordination_task = None
        gc.collect()
    finally:
        loop.set_exception_handler(None)
    assert reports == []
