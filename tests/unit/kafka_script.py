"""A broker that answers requests as a test tells it, on the level of Kafka's protocol.

For answers that a local Kafka cannot be made to give: a forbidden topic, a lost answer, a coordinator that moves. Everything
that is not scripted succeeds.
"""

import asyncio
from collections import deque
from types import SimpleNamespace
from typing import Any, Final

from aiokafka.protocol.admin import ApiVersionRequest, DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest
from aiokafka.record.memory_records import MemoryRecords

from clockwork.domain.sharding import ShardId
from clockwork.errors import BrokerUnavailable
from clockwork.kafka import codes
from clockwork.kafka.client import KafkaContext, KafkaTimeouts, LastAnswer
from clockwork.kafka.topics import TopicDirectory
from clockwork.kafka.transactional import KafkaShardPublisher
from clockwork.settings.model import KafkaSettings

LOST: Final = -100
"""Instead of an error code: the request is carried out, and its answer never arrives."""
SHARD: Final = ShardId(1)


def settings_for_script(**changes: Any) -> KafkaSettings:
    plain: dict[str, Any] = {"brokers": ("nowhere:1",), "cluster": "cw", "shards": 4, "consumer_group": "cw"}
    return KafkaSettings(**(plain | changes))


def kafka_for_script(**timeouts: int) -> KafkaContext:
    short = {"sends_ms": 200, "commit_ms": 200, "init_ms": 200, "lookup_ms": 200}
    return KafkaContext(settings=settings_for_script(), timeouts=KafkaTimeouts(**(short | timeouts)))


class ScriptedWire:
    """See `kafka.client.Wire`. Topics have two Kafka partitions (the deliveries topic four), all led by node 1."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        """Requests in order, as words: `init`, `add`, `produce`, `commit`, `abort`, `metadata`, `configs`, `versions`."""
        self.topics: dict[str, int] = {"cw-deliveries": codes.NONE, "orders": codes.NONE, "bills": codes.NONE}
        """Error codes of metadata; a topic that is not here is missing."""
        self.in_sync = 1
        self.replicas = 1
        self.leader = 1
        self.produce_version = 11
        """The broker's highest of the produce request: Kafka 4's."""
        self.configs: dict[str, str] = {}
        self.silent: set[str] = set()
        """Requests that are lost, every time."""
        self.appended: list[tuple[str, int, list[bytes]]] = []
        self.produce_codes: dict[str, deque[int]] = {}
        """By topic, for its next batches."""
        self.refuse_values: dict[bytes, int] = {}
        """Any batch with such a value is refused with this code."""
        self._script: dict[str, deque[Any]] = {}
        self._offsets: dict[tuple[str, int], int] = {}

    def script(self, word: str, *answers: Any) -> None:
        """The next answers to such requests: error codes, or for `add` a code by topic."""
        self._script.setdefault(word, deque()).extend(answers)

    async def request(self, request: Any, *, node_id: int | None = None, coordinator: bool = False) -> Any:
        await asyncio.sleep(0)
        match request:
            case InitProducerIdRequest():
                return SimpleNamespace(error_code=self._next("init"), producer_id=7, producer_epoch=0)
            case AddPartitionsToTxnRequest():
                return self._add(request)
            case ProduceRequest():
                return self._produce(request)
            case EndTxnRequest():
                return SimpleNamespace(error_code=self._next("commit" if request._transaction_result else "abort"))
            case MetadataRequest():
                return self._metadata(request)
            case DescribeConfigsRequest():
                self._next("configs")
                configs = [] if request._resources[0][1] == "cw-deliveries" else list(self.configs.items())
                return SimpleNamespace(resources=[(0, None, 2, "", configs)])
            case ApiVersionRequest():
                self._next("versions")
                return SimpleNamespace(api_versions=[(ProduceRequest.API_KEY, 0, self.produce_version)])
        raise AssertionError(f"no script for {request!r}")

    async def find_coordinator(self, transactional_id: str) -> int | None:
        self._next("find")
        return 1

    async def reset(self) -> None:
        self.asked.append("reset")

    async def close(self) -> None:
        self.asked.append("close")

    def _next(self, word: str) -> Any:
        self.asked.append(word)
        if word in self.silent:
            raise BrokerUnavailable(f"{word}: lost")
        waiting = self._script.get(word)
        answer = waiting.popleft() if waiting else codes.NONE
        if answer == LOST:
            raise BrokerUnavailable(f"{word}: the answer was lost")
        return answer

    def _add(self, request: Any) -> Any:
        told = self._next("add")
        errors = [
            (topic, [(number, told.get(topic, codes.OPERATION_NOT_ATTEMPTED) if isinstance(told, dict) else told)])
            for topic, numbers in request._topics
            for number in numbers
        ]
        return SimpleNamespace(errors=errors)

    def _produce(self, request: Any) -> Any:
        self._next("produce")
        return SimpleNamespace(
            topics=[
                (topic, [self._append(topic, number, batch) for number, batch in batches])
                for topic, batches in request._topics
            ]
        )

    def _append(self, topic: str, number: int, batch: bytes) -> tuple[int, int, int, int, int]:
        records = MemoryRecords(batch).next_batch()
        assert records is not None
        values = [record.value or b"" for record in records]
        waiting = self.produce_codes.get(topic)
        code = waiting.popleft() if waiting else codes.NONE
        code = next((self.refuse_values[value] for value in values if value in self.refuse_values), code)
        if code != codes.NONE:
            return (number, code, -1, -1, -1)
        self.appended.append((topic, number, values))
        offset = self._offsets.get((topic, number), 0)
        self._offsets[topic, number] = offset + len(values)
        return (number, codes.NONE, offset, -1, 0)

    def _metadata(self, request: Any) -> Any:
        self._next("metadata")
        return SimpleNamespace(topics=[self._topic(name) for name in request._topics])

    def _topic(self, name: str) -> tuple[int, str, bool, list[Any]]:
        code = self.topics.get(name, codes.UNKNOWN_TOPIC_OR_PARTITION)
        count = 0 if code else 4 if name == "cw-deliveries" else 2
        # Only clients' topics are ever in trouble.
        leader, replicas, in_sync = (1, 1, 1) if name == "cw-deliveries" else (self.leader, self.replicas, self.in_sync)
        return (code, name, False, [(0, n, leader, [1] * replicas, [1] * in_sync, []) for n in range(count)])


async def open_scripted(wire: ScriptedWire, **timeouts: int) -> KafkaShardPublisher:
    kafka = kafka_for_script(**timeouts)
    directory = TopicDirectory(kafka, LastAnswer(), wire)
    publisher = KafkaShardPublisher(kafka, directory, wire, SHARD, lambda: 1_000, on_close=lambda closed: None)
    await publisher.init()
    return publisher
