"""A transactional producer by hand: the requests of a Kafka transaction, and nothing around them.

It is the yardstick of what a transaction costs at least, so it shares nothing with the node's own publisher but the wire
and the encoding of batches. Only for the local Kafka, which has one broker and answers: a refusal or silence is an error.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest

from clockwork.domain.record import OutRecord
from clockwork.kafka import codes
from clockwork.kafka.client import KafkaContext, KafkaWire, LastAnswer
from clockwork.kafka.send import ProducerIdentity, TopicPartition, encode_batch

BUSY_S: Final = 0.001
"""Wait behind the same id's transaction before, whose end the broker is still writing."""
ANSWER_MS_MAX: Final = 3_000

Batches = Mapping[TopicPartition, Sequence[OutRecord]]


class BareProducer:
    """One transactional id, or (None) a plain idempotent producer; one transaction at a time."""

    def __init__(self, kafka: KafkaContext, transactional_id: str | None) -> None:
        self._wire = KafkaWire(kafka, LastAnswer(), role="bare")
        self._id = transactional_id
        self._coordinator: int | None = None
        self._identity = ProducerIdentity(producer_id=-1, producer_epoch=-1)
        self.requests = 0

    async def open(self) -> None:
        answer = await self._settled(InitProducerIdRequest(self._id, 60_000))
        self._identity = ProducerIdentity(
            producer_id=answer.producer_id, producer_epoch=answer.producer_epoch, transactional_id=self._id
        )

    async def close(self) -> None:
        await self._wire.close()

    async def send(self, batches: Batches) -> None:
        """All batches in one request, outside of any transaction."""
        await self._produce(batches)

    async def commit(self, batches: Batches, *, marker: Batches | None = None) -> Mapping[TopicPartition, int]:
        """One transaction: add the Kafka partitions, send the records, then the marker, commit. Returns the broker's time of
        the records, where it stamps them."""
        await self._add([*batches, *(marker or {})])
        appended = await self._produce(batches)
        if marker is not None:
            await self._produce(marker)
        identity = self._identity
        await self._settled(EndTxnRequest(self._id, identity.producer_id, identity.producer_epoch, 1))
        return appended

    async def _add(self, wanted: Sequence[TopicPartition]) -> None:
        identity = self._identity
        request = AddPartitionsToTxnRequest(
            self._id,
            identity.producer_id,
            identity.producer_epoch,
            list(_by_topic({where: where[1] for where in wanted})),
        )
        await self._settled(request)

    async def _produce(self, batches: Batches) -> Mapping[TopicPartition, int]:
        encoded = {
            where: (where[1], encode_batch(records, self._identity, where)) for where, records in batches.items()
        }
        request = ProduceRequest(
            transactional_id=self._id, required_acks=-1, timeout=ANSWER_MS_MAX, topics=list(_by_topic(encoded))
        )
        appended: dict[TopicPartition, int] = {}
        while len(appended) < len(batches):
            answer = await self._ask(request)
            for topic, numbers in answer.topics:
                for number, code, _base_offset, append_time_ms, *_ in numbers:
                    if code == codes.NONE:
                        appended[(topic, number)] = append_time_ms
                    elif code not in (codes.NOT_LEADER, codes.UNKNOWN_TOPIC_OR_PARTITION):  # so soon after its creation
                        raise RuntimeError(f"{topic}/{number}: error code {code}")
            # What was appended is recognised by its sequence number when it comes again.
        for where, records in batches.items():
            self._identity.advance(where, len(records))
        return appended

    async def _settled(self, request: Any) -> Any:
        """Asks the coordinator until the id's transaction before is settled."""
        while True:
            if self._id is not None and self._coordinator is None:
                self._coordinator = await self._wire.find_coordinator(self._id)
            answer = await self._ask(request, coordinator=self._id is not None)
            given = _codes(answer) - {codes.NONE}
            if not given:
                return answer
            if given & codes.COORDINATOR_AWAY:  # at its first use it is still being loaded
                self._coordinator = None
            elif given != {codes.CONCURRENT_TRANSACTIONS}:
                raise RuntimeError(f"{type(request).__name__}: error codes {sorted(given)}")
            await asyncio.sleep(BUSY_S)

    async def _ask(self, request: Any, *, coordinator: bool = False) -> Any:
        self.requests += 1
        return await self._wire.request(
            request, node_id=self._coordinator if coordinator else None, coordinator=coordinator
        )


def _by_topic(values: Mapping[TopicPartition, Any]) -> list[tuple[str, list[Any]]]:
    topics: dict[str, list[Any]] = defaultdict(list)
    for (topic, _), value in values.items():
        topics[topic].append(value)
    return list(topics.items())


def _codes(answer: Any) -> set[int]:
    if hasattr(answer, "error_code"):
        return {answer.error_code}
    return {code for _topic, numbers in answer.errors for _number, code in numbers}
