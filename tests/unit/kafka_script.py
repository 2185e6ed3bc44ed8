"""A broker that answers requests as a test tells it, on the level of Kafka's protocol.

For answers that a local Kafka cannot be made to give: a forbidden topic, a lost answer, a coordinator that moves. Everything
that is not scripted succeeds.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final

from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.protocol.admin import ApiVersionRequest, DescribeConfigsRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from clockwork.domain.ownership import IncarnationId
from clockwork.errors import BrokerUnavailable
from clockwork.kafka import codes
from clockwork.kafka.client import KafkaContext, KafkaTimeouts, LastAnswer
from clockwork.kafka.marker import MarkerTopic
from clockwork.kafka.topics import TopicDirectory
from clockwork.kafka.transactional import KafkaSlotProducer
from clockwork.ports.delivery import SlotName
from clockwork.settings.model import KafkaSettings

LOST: Final = -100
"""Instead of an error code: the request is carried out, and its answer never arrives."""
MARKERS: Final = "cw-deliveries"
SLOT: Final = SlotName(IncarnationId("00000000000000aa.1"), 0)
SENDS_MS: Final = 200


def settings_for_script(**changes: Any) -> KafkaSettings:
    plain: dict[str, Any] = {"brokers": ("nowhere:1",), "cluster": "cw", "shards": 4, "consumer_group": "cw"}
    return KafkaSettings(**(plain | changes))


def kafka_for_script(**timeouts: int) -> KafkaContext:
    short = {"sends_ms": SENDS_MS, "commit_ms": 200, "init_ms": 200, "lookup_ms": 200}
    return KafkaContext(settings=settings_for_script(), timeouts=KafkaTimeouts(**(short | timeouts)))


@dataclass(kw_only=True)
class ScriptedLog:
    """One Kafka partition as one broker has it: what it answers to a fetch."""

    batches: list[bytes] = field(default_factory=list)
    """One record each, so that the number of a batch is its record's offset."""
    stable_ends: deque[int] = field(default_factory=deque)
    """The next last stable offsets; after them it is the end."""

    def append(self, key: bytes | None, value: bytes | None, headers: tuple[tuple[str, bytes], ...] = ()) -> None:
        builder = DefaultRecordBatchBuilder(
            2, 0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1, batch_size=2**31 - 1
        )
        builder.append(0, 5, key, value, list(headers))
        # The checksum does not cover the first offset, as the broker gives it.
        self.batches.append(len(self.batches).to_bytes(8, "big") + bytes(builder.build())[8:])


class ScriptedWire:
    """See `kafka.client.Wire`. Topics have two Kafka partitions (the deliveries topic four), all led by node 1."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        """Requests in order, as words: `init`, `add`, `produce`, `commit`, `abort`, `metadata`, `configs`, `versions`,
        `offset`, `fetch`."""
        self.topics: dict[str, int] = {MARKERS: codes.NONE, "orders": codes.NONE, "bills": codes.NONE}
        """Error codes of metadata; a topic that is not here is missing."""
        self.latency_s = 0.0
        self.in_sync = 1
        self.replicas = 1
        self.leader = 1
        self.leader_of: dict[str, int] = {}
        """By topic, where it is another one; also the deliveries topic."""
        self.marker_leaders: deque[int] = deque()
        """The leader of the deliveries topic by the next answers about it."""
        self.marker_kafka_partitions = 4
        self.coordinators: deque[int] = deque()
        """The coordinator by the next searches for it; after them it is node 1."""
        self.coordinators_asked: list[int] = []
        """The nodes that were asked to commit."""
        self.hung: set[int] = set()
        """Nodes that take a produce request, and never answer."""
        self.hang_after: dict[str, int] = {}
        """By topic, the batches that its leader appends before it stops answering."""
        self.append_timeouts_ms: list[int] = []
        """The leaders' time limits in produce requests."""
        self.logs: dict[tuple[str, int], ScriptedLog] = {}
        self.deposed: dict[int, ScriptedLog] = {}
        """By node, what a broker that is not the leader any more has of each Kafka partition of the deliveries topic."""
        self.fetched: list[tuple[int, int]] = []
        """Nodes and offsets of fetches."""
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
        self._epoch = -1

    def script(self, word: str, *answers: Any) -> None:
        """The next answers to such requests: error codes, or for `add` a code by topic."""
        self._script.setdefault(word, deque()).extend(answers)

    async def request(self, request: Any, *, node_id: int | None = None, coordinator: bool = False) -> Any:
        await asyncio.sleep(self.latency_s)
        match request:
            case InitProducerIdRequest():
                self._epoch += 1
                return SimpleNamespace(error_code=self._next("init"), producer_id=7, producer_epoch=self._epoch)
            case AddPartitionsToTxnRequest():
                return self._add(request)
            case ProduceRequest():
                self.append_timeouts_ms.append(request._timeout)
                if node_id in self.hung or self._hangs(request):
                    await asyncio.Event().wait()
                return self._produce(request)
            case EndTxnRequest():
                assert node_id is not None
                self.coordinators_asked.append(node_id)
                return SimpleNamespace(error_code=self._next("commit" if request._transaction_result else "abort"))
            case MetadataRequest():
                return self._metadata(request)
            case DescribeConfigsRequest():
                self._next("configs")
                configs = [] if request._resources[0][1] == MARKERS else list(self.configs.items())
                return SimpleNamespace(resources=[(0, None, 2, "", configs)])
            case ApiVersionRequest():
                self._next("versions")
                return SimpleNamespace(api_versions=[(ProduceRequest.API_KEY, 0, self.produce_version)])
            case OffsetRequest():
                return self._offset(request, node_id)
            case FetchRequest():
                return self._fetch(request, node_id)
        raise AssertionError(f"no script for {request!r}")

    async def find_coordinator(self, transactional_id: str) -> int | None:
        self._next("find")
        return self.coordinators.popleft() if self.coordinators else 1

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

    def _hangs(self, request: Any) -> bool:
        """True if one of the topics has had its last batch."""
        topics = [topic for topic, _batches in request._topics if topic in self.hang_after]
        for topic in topics:
            self.hang_after[topic] -= 1
        return any(self.hang_after[topic] < 0 for topic in topics)

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
        records = list(records)
        values = [record.value or b"" for record in records]
        waiting = self.produce_codes.get(topic)
        code = waiting.popleft() if waiting else codes.NONE
        code = next((self.refuse_values[value] for value in values if value in self.refuse_values), code)
        if code != codes.NONE:
            return (number, code, -1, -1, -1)
        self.appended.append((topic, number, values))
        log = self.logs.setdefault((topic, number), ScriptedLog())
        for record in records:
            log.append(record.key, record.value, tuple(record.headers))
        return (number, codes.NONE, len(log.batches) - len(records), -1, 0)

    def _offset(self, request: Any, node_id: int | None) -> Any:
        code = self._next("offset")
        [(topic, [(number, which)])] = request._topics
        log = self._log(topic, number, node_id)
        offset = 0 if which == -2 else len(log.batches)
        if which == -1 and request._isolation_level == READ_COMMITTED and log.stable_ends:
            offset = log.stable_ends.popleft()
        return SimpleNamespace(topics=[(topic, [(number, code, -1, offset)])])

    def _fetch(self, request: Any, node_id: int | None) -> Any:
        code = self._next("fetch")
        [(topic, [(number, position, _bytes_max)])] = request._topics
        assert node_id is not None
        self.fetched.append((node_id, position))
        # Three records at a time: each look takes several fetches.
        batches = b"".join(self._log(topic, number, node_id).batches[position : position + 3])
        return SimpleNamespace(API_VERSION=4, topics=[(topic, [(number, code, -1, -1, [], batches)])])

    def _log(self, topic: str, number: int, node_id: int | None) -> ScriptedLog:
        if node_id in self.deposed:
            return self.deposed[node_id]
        return self.logs.setdefault((topic, number), ScriptedLog())

    def _metadata(self, request: Any) -> Any:
        self._next("metadata")
        return SimpleNamespace(topics=[self._topic(name) for name in request._topics])

    def _topic(self, name: str) -> tuple[int, str, bool, list[Any]]:
        code = self.topics.get(name, codes.UNKNOWN_TOPIC_OR_PARTITION)
        count = 0 if code else self.marker_kafka_partitions if name == MARKERS else 2
        # Only clients' topics are ever in trouble, unless a test names the deliveries topic.
        leader, replicas, in_sync = (1, 1, 1) if name == MARKERS else (self.leader, self.replicas, self.in_sync)
        leader = self.leader_of.get(name, leader)
        if name == MARKERS and self.marker_leaders:
            leader = self.marker_leaders.popleft()
        return (code, name, False, [(0, n, leader, [1] * replicas, [1] * in_sync, []) for n in range(count)])


async def open_scripted(wire: ScriptedWire, **timeouts: int) -> KafkaSlotProducer:
    kafka = kafka_for_script(**timeouts)
    directory = TopicDirectory(kafka, LastAnswer(), wire)
    producer = KafkaSlotProducer(
        kafka, directory, wire, MarkerTopic(MARKERS), SLOT, lambda: 1_000, on_close=lambda closed: None
    )
    await producer.init()
    return producer
