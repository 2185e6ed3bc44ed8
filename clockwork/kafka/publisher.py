"""Publisher on Kafka: puts together the metadata cache, the plain sender, and one transactional producer per shard.

Opening does not wait for Kafka: while it is away, a node must start, accept, and look different from a dead one. Each
part connects at its first request, and again after it lost its connection.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from clockwork.clock import Clock
from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import Receipt
from clockwork.domain.sharding import ShardId
from clockwork.errors import BrokerUnavailable
from clockwork.kafka.client import KafkaContext, KafkaWire, LastAnswer
from clockwork.kafka.plain import PlainSender
from clockwork.kafka.topics import TopicDirectory, TopicState
from clockwork.kafka.transactional import KafkaShardPublisher


class KafkaPublisher:
    """See `ports.Publisher`. `async with` opens and closes it; shards that are still open then are closed too."""

    def __init__(self, kafka: KafkaContext, clock: Clock) -> None:
        self._kafka = kafka
        self._clock = clock
        self._last_answer = LastAnswer()
        self._directory = TopicDirectory(kafka, self._last_answer, self._wire("topics"))
        self._sender = PlainSender(kafka, self._directory, self._wire("sender"))
        self._open: set[KafkaShardPublisher] = set()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._directory.close)
            stack.push_async_callback(self._sender.close)
            stack.push_async_callback(self._close_shards)
            await stack.enter_async_context(_background(self._directory.run, self._sender.run))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def open_shard(self, shard: ShardId) -> KafkaShardPublisher:
        publisher = KafkaShardPublisher(
            self._kafka,
            self._directory,
            self._wire(f"shard-{shard}"),
            shard,
            self._clock.now_ms,
            on_close=self._open.discard,
        )
        self._open.add(publisher)
        try:
            await publisher.init()
        except BaseException:
            await publisher.close()
            raise
        return publisher

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

    async def topic_exists(self, topic: str) -> bool:
        state = (await self._directory.layout(topic)).state
        if state is TopicState.UNSETTLED:
            raise BrokerUnavailable(f"the brokers do not know yet whether {topic} exists")
        return state is TopicState.PRESENT

    def connected(self) -> bool:
        return self._directory.connected()

    def trouble(self) -> str | None:
        """The reason for which Kafka did not answer when last asked; None if it did."""
        return self._directory.trouble

    def _wire(self, role: str) -> KafkaWire:
        return KafkaWire(self._kafka, self._last_answer, role=role)

    async def _close_shards(self) -> None:
        async with asyncio.TaskGroup() as closing:
            for publisher in list(self._open):
                closing.create_task(publisher.close(), name="close a shard's producer")


@contextlib.asynccontextmanager
async def _background(*runs: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Runs them until the block ends."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(), name=run.__qualname__) for run in runs]
        # A turn of the loop, so that they have begun when the block does.
        await asyncio.sleep(0)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
