"""Publisher on Kafka: puts together the metadata cache, the plain senders, the slots' producers and the markers' reader.

Opening does not wait for Kafka: while it is away, a node must start, accept, and look different from a dead one. Each
part connects at its first request, and again after it lost its connection.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Self

from clockwork.clock import Clock
from clockwork.concurrency import gather_bounded
from clockwork.domain.marker import MarkerEntry, marker_key
from clockwork.domain.ownership import IncarnationId
from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import Receipt
from clockwork.domain.sharding import ShardId
from clockwork.errors import BrokerUnavailable, DeliveryRefused
from clockwork.kafka.client import KafkaContext, KafkaWire, LastAnswer
from clockwork.kafka.marker import MarkerReader, MarkerTopic
from clockwork.kafka.plain import PlainSender
from clockwork.kafka.topics import TopicDirectory, TopicState
from clockwork.kafka.transactional import KafkaSlotProducer, TransactionalId
from clockwork.ports.delivery import SlotName


class KafkaPublisher:
    """See `ports.Publisher`. `async with` opens and closes it; slots that are still open then are closed too."""

    def __init__(self, kafka: KafkaContext, clock: Clock) -> None:
        self._kafka = kafka
        self._clock = clock
        self._last_answer = LastAnswer()
        self._directory = TopicDirectory(kafka, self._last_answer, self._wire("topics"))
        self._sender = PlainSender(kafka, self._directory, self._wire("sender"))
        self._markers = MarkerTopic(kafka.settings.deliveries_topic)
        # The markers' reader has connections of its own: on shared ones a take-over would wait behind a client's topic
        # that waits for its replicas.
        self._marker_sender = PlainSender(kafka, self._directory, self._wire("marker-sender"))
        self._activity_sender = PlainSender(kafka, self._directory, self._wire("activity-sender"))
        self._takeover_wire = self._wire("take-over")
        self._marker_reader = MarkerReader(
            kafka, self._directory, self._takeover_wire, self._marker_sender, self._markers, clock.now_ms
        )
        self._open: set[KafkaSlotProducer] = set()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._directory.close)
            stack.push_async_callback(self._sender.close)
            stack.push_async_callback(self._marker_sender.close)
            stack.push_async_callback(self._activity_sender.close)
            stack.push_async_callback(self._takeover_wire.close)
            stack.push_async_callback(self._close_slots)
            senders = (self._sender, self._marker_sender, self._activity_sender)
            await stack.enter_async_context(_background(self._directory.run, *(sender.run for sender in senders)))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def open_slot(self, name: SlotName) -> KafkaSlotProducer:
        producer = KafkaSlotProducer(
            self._kafka,
            self._directory,
            self._wire(f"slot-{name.slot}"),
            self._markers,
            name,
            self._clock.now_ms,
            on_close=self._open.discard,
        )
        self._open.add(producer)
        return producer

    async def settle(self, incarnation: IncarnationId, *, slots: int) -> None:
        async def init(slot: int) -> None:
            name = self._kafka.settings.transactional_id(incarnation, slot)
            await TransactionalId(self._kafka, self._takeover_wire, name).init()

        await gather_bounded(init, range(slots), at_once=max(slots, 1))

    async def read_markers(
        self, reader: IncarnationId, slots: Mapping[SlotName, int | None]
    ) -> Mapping[SlotName, tuple[MarkerEntry, ...]]:
        return await self._marker_reader.read(reader, slots)

    async def forget_markers(self, incarnation: IncarnationId, *, slots: int) -> None:
        layout = await self._directory.layout(self._markers.name)
        for slot in range(slots):
            key = marker_key(incarnation, slot)
            topic, number = self._markers.place(key, layout)
            tombstone = OutRecord(topic=topic, key=key, value=None, headers=(), timestamp_ms=self._clock.now_ms())
            try:
                await self._marker_sender.send(tombstone, kafka_partition=number)
            except DeliveryRefused as error:
                raise BrokerUnavailable(f"a marker of {incarnation} could not be removed: {error}") from error

    async def send(self, record: OutRecord) -> Receipt:
        return await self._sender.send(record)

    async def send_wakeup(self, shard: ShardId, value: bytes) -> None:
        """Sends a wake-up to the shard's own Kafka partition of the ownership topic.

        Raises: DeliveryRefused, BrokerUnavailable.
        """
        record = OutRecord(
            topic=self._kafka.settings.shards_topic,
            key=None,
            value=value,
            headers=(),
            timestamp_ms=self._clock.now_ms(),
        )
        await self._sender.send(record, kafka_partition=int(shard))

    async def send_activity(self, topic: str, kafka_partition: int, value: bytes) -> None:
        """Sends a record of one of the topics of activity. Raises: DeliveryRefused, BrokerUnavailable."""
        record = OutRecord(topic=topic, key=None, value=value, headers=(), timestamp_ms=self._clock.now_ms())
        await self._activity_sender.send(record, kafka_partition=kafka_partition)

    async def topic_exists(self, topic: str) -> bool:
        state = (await self._directory.layout(topic)).state
        if state is TopicState.UNSETTLED:
            raise BrokerUnavailable(f"the brokers do not know yet whether {topic} exists")
        return state is TopicState.PRESENT

    async def topic_missing(self, topic: str) -> bool:
        state = (await self._directory.layout(topic, since_s=asyncio.get_running_loop().time())).state
        if state is TopicState.UNSETTLED:
            raise BrokerUnavailable(f"the brokers do not know yet whether {topic} exists")
        return state is not TopicState.PRESENT

    def connected(self) -> bool:
        return self._directory.connected()

    def trouble(self) -> str | None:
        """The reason for which Kafka did not answer when last asked; None if it did."""
        return self._directory.trouble

    def _wire(self, role: str) -> KafkaWire:
        return KafkaWire(self._kafka, self._last_answer, role=role)

    async def _close_slots(self) -> None:
        async with asyncio.TaskGroup() as closing:
            for producer in list(self._open):
                closing.create_task(producer.close(), name="close a slot's producer")


@contextlib.asynccontextmanager
async def _background(*runs: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Runs them until the block ends."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(), name=run.__qualname__) for run in runs]
        # One turn of the event loop, so that the tasks have begun when the block does.
        await asyncio.sleep(0)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
