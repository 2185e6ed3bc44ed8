"""The markers' topic, and how the last committed marker of a slot is found (docs/design.md, 5, "Reading a marker").

A marker that is missed is a batch that goes out twice. Three answers of a broker would miss one, and each is ruled out:

- a deposed leader answers with its own old end, and metadata from a cache lead to it. So the reader writes a *barrier*
  first, a record of its own that all in-sync replicas acknowledge, and reads up to and including it, from a leader that
  metadata name anew for each try. A broker that does not have the barrier at its offset is not the leader
- the last stable offset stands before a transaction that is still open, or still being settled. To stop there would miss the
  markers behind it: the reader waits until it has passed the barrier
- an older marker of the same slot. Of those that are found, the last one counts

All of it after the init that settled the slot's transaction: before that one more marker may be committed
(docs/protocol.md: x-mark-first, x-heal-mark-first).

The topic is compacted, but the newest part is not, and every transaction takes two offsets (its marker, and Kafka's own
record that it ended), aborted ones included. So reading starts at the slot's hint, or else a few offsets before the
barrier, and goes on farther back in growing windows, down to the start, until each slot is found. Offsets and records are
asked for directly: a consumer would bring connections, background tasks and a position to manage in place of four requests.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import KafkaError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition as Where

from clockwork.concurrency import Backoff, gather_bounded
from clockwork.domain.marker import MarkerEntry, barrier_key, decode, marker_key
from clockwork.domain.ownership import IncarnationId
from clockwork.domain.record import OutRecord
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.schedule import Receipt
from clockwork.domain.sharding import kafka_partition_of
from clockwork.errors import BrokerUnavailable, DeliveryRefused
from clockwork.kafka import codes
from clockwork.kafka.client import RNG, KafkaContext, Wire
from clockwork.kafka.plain import PlainSender
from clockwork.kafka.send import TopicPartition
from clockwork.kafka.topics import TopicDirectory, TopicLayout, TopicState
from clockwork.ports.delivery import SlotName

FIRST_WINDOW: Final = 16
"""Offsets of the first look, if there is no hint: the last eight transactions, about."""
WINDOW_FACTOR: Final = 8
FETCH_BYTES_MAX: Final = 4_194_304
FETCH_WAIT_MS: Final = 100
"""Longest time for which a broker may hold an empty answer back; only on a new leader that is still catching up."""
AT_ONCE_MAX: Final = 16
"""Kafka partitions that one call reads side by side."""
BACKOFF: Final = BackoffPolicy(initial_ms=5, max_ms=100)
NONCE_HEADER: Final = "clockwork-nonce"
"""Header of a barrier: tells it from every other barrier of its writer."""
NONCE_BYTES: Final = 8
_EARLIEST: Final = -2
_LATEST: Final = -1


class MarkerTopic:
    """The topic of the markers, and the Kafka partition of each slot's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._kafka_partitions: int | None = None

    def place(self, key: bytes, layout: TopicLayout) -> TopicPartition:
        """The Kafka partition of a key. Raises: BrokerUnavailable."""
        count = len(layout.leaders)
        if layout.state is not TopicState.PRESENT or count == 0:
            raise BrokerUnavailable(f"{self.name} is {layout.state}")
        if self._kafka_partitions is None:
            self._kafka_partitions = count
        if count != self._kafka_partitions:
            # With another number of Kafka partitions the keys belong to other ones, and the stored markers would not be
            # found.
            raise BrokerUnavailable(
                f"{self.name} has {count} Kafka partitions, and had {self._kafka_partitions} when this process started"
            )
        return self.name, kafka_partition_of(key, count)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Barrier:
    key: bytes
    nonce: bytes
    offset: int

    def is_at(self, record: Any) -> bool:
        """True if the record that was read at its offset is this barrier. On a broker that is not the leader the same
        offset may hold another record, even an earlier barrier of the same reader."""
        return record.key == self.key and (NONCE_HEADER, self.nonce) in record.headers


class MarkerReader:
    """Reads the last markers of slots whose transactions are settled."""

    def __init__(
        self,
        kafka: KafkaContext,
        directory: TopicDirectory,
        wire: Wire,
        barriers: PlainSender,
        topic: MarkerTopic,
        now_ms: Callable[[], int],
    ) -> None:
        self._timeout_s = kafka.timeouts.init_ms / 1_000
        self._directory = directory
        self._wire = wire
        self._barriers = barriers
        self._topic = topic
        self._now_ms = now_ms

    async def read(
        self, reader: IncarnationId, slots: Mapping[SlotName, int | None]
    ) -> Mapping[SlotName, tuple[MarkerEntry, ...]]:
        """See `ports.Publisher.read_markers`."""
        layout = await self._directory.layout(self._topic.name)
        names = {marker_key(name.incarnation, name.slot): name for name in slots}
        hints: dict[int, dict[bytes, int | None]] = defaultdict(dict)
        for key, name in names.items():
            hints[self._topic.place(key, layout)[1]][key] = slots[name]
        values = await gather_bounded(partial(self._read_in_time, reader), hints.items(), at_once=AT_ONCE_MAX)
        return {names[key]: () if value is None else decode(value) for each in values for key, value in each.items()}

    async def _read_in_time(
        self, reader: IncarnationId, part: tuple[int, Mapping[bytes, int | None]]
    ) -> Mapping[bytes, bytes | None]:
        """The last values of some keys in one Kafka partition. Raises: BrokerUnavailable."""
        number, hints = part
        attempts = _Attempts()
        try:
            async with asyncio.timeout(self._timeout_s):
                barrier = await self._write_barrier(reader, number, attempts)
                return await self._read_up_to(barrier, number, hints, attempts)
        except TimeoutError as error:
            raise BrokerUnavailable(
                f"the markers of {self._topic.name}/{number} could not be read in time{attempts}"
            ) from error

    async def _write_barrier(self, reader: IncarnationId, number: int, attempts: "_Attempts") -> _Barrier:
        """Writes a barrier. Each repeat writes a new one, since a barrier that was not acknowledged has no known
        offset."""
        while True:
            key, nonce = barrier_key(reader), RNG.randbytes(NONCE_BYTES)
            record = OutRecord(
                topic=self._topic.name,
                key=key,
                value=None,
                headers=((NONCE_HEADER, nonce),),
                timestamp_ms=self._now_ms(),
            )
            try:
                receipt: Receipt = await self._barriers.send(record, kafka_partition=number)
            except (BrokerUnavailable, DeliveryRefused) as error:
                await attempts.wait_after(error)
            else:
                return _Barrier(key=key, nonce=nonce, offset=receipt.offset)

    async def _read_up_to(
        self, barrier: _Barrier, number: int, hints: Mapping[bytes, int | None], attempts: "_Attempts"
    ) -> Mapping[bytes, bytes | None]:
        """Reads the last values of the keys up to the barrier. If a leader is elected during a step, all steps are
        repeated. The barrier stays: every leader has it."""
        while True:
            try:
                leader = await self._leader(number)
                stable_end = await leader.offset(_LATEST, READ_COMMITTED)
                if stable_end <= barrier.offset:
                    # A transaction is open or being settled; or this broker is not the leader, and its end will stay there.
                    raise BrokerUnavailable(f"the last stable offset is {stable_end}, the barrier {barrier.offset}")
                return await _search(leader, barrier, hints)
            except BrokerUnavailable as error:
                await attempts.wait_after(error)

    async def _leader(self, number: int) -> "_Leader":
        """The leader by metadata that are asked for now."""
        asked_at_s = asyncio.get_running_loop().time()
        layout = await self._directory.layout(self._topic.name, since_s=asked_at_s)
        node_id = layout.leader_of(number)
        if node_id < 0:
            raise BrokerUnavailable(f"{self._topic.name}/{number} has no leader")
        return _Leader(self._wire, node_id, self._topic.name, number)


class _Attempts:
    """The failures of one reading, and the back-off between them."""

    def __init__(self) -> None:
        self._last_error: Exception | None = None
        self._backoff = Backoff(RNG, BACKOFF)

    async def wait_after(self, error: Exception) -> None:
        self._last_error = error
        await self._backoff.wait()

    def __str__(self) -> str:
        return f" ({self._last_error})" if self._last_error else ""


async def _search(
    leader: "_Leader", barrier: _Barrier, hints: Mapping[bytes, int | None]
) -> Mapping[bytes, bytes | None]:
    """The last value of each key up to the barrier; None if there is none."""
    start, end = await leader.offset(_EARLIEST, READ_UNCOMMITTED), barrier.offset + 1
    window = FIRST_WINDOW
    begin = max(start, min([end - window, *(hint for hint in hints.values() if hint is not None)]))
    found: dict[bytes, bytes | None] = {}
    while True:
        last = await leader.last_values(begin, end, hints, barrier)
        found = last | found
        if len(found) == len(hints) or begin <= start:
            return dict.fromkeys(hints) | found
        window *= WINDOW_FACTOR
        begin, end = max(start, begin - window), begin


@dataclass(frozen=True, slots=True)
class _Leader:
    """One Kafka partition on the broker that is said to lead it."""

    wire: Wire
    node_id: int
    topic: str
    number: int

    async def offset(self, which: int, isolation: int) -> int:
        request = OffsetRequest(-1, isolation, [(self.topic, [(self.number, which)])])
        answer = await self.wire.request(request, node_id=self.node_id)
        _number, code, _time, offset = answer.topics[0][1][0]
        self._raise_for(code, "offset")
        return int(offset)

    async def last_values(
        self, begin: int, end: int, keys: Iterable[bytes], barrier: _Barrier
    ) -> dict[bytes, bytes | None]:
        """The last committed values of the keys from `begin` to before `end`. Raises: BrokerUnavailable, also if `end` is
        beyond the barrier and the barrier is not there."""
        found: dict[bytes, bytes | None] = {}
        wanted = frozenset(keys)
        seen = barrier.offset >= end
        position = begin
        while position < end:
            records = await self._fetch(position)
            for record in records:
                if record.offset >= end:
                    break
                seen |= record.offset == barrier.offset and barrier.is_at(record)
                if record.key in wanted:
                    found[record.key] = record.value
            if records.next_fetch_offset <= position:
                raise BrokerUnavailable(f"{self.topic}/{self.number}: nothing at offset {position}, before its end")
            position = records.next_fetch_offset
        if not seen:
            raise BrokerUnavailable(f"{self.topic}/{self.number}: broker {self.node_id} does not have the barrier")
        return found

    async def _fetch(self, position: int) -> "_Fetched":
        request = FetchRequest(
            FETCH_WAIT_MS,
            1,
            FETCH_BYTES_MAX,
            READ_COMMITTED,
            [(self.topic, [(self.number, position, FETCH_BYTES_MAX)])],
        )
        answer = await self.wire.request(request, node_id=self.node_id)
        _number, code, _high_watermark, *rest = answer.topics[0][1][0]
        self._raise_for(code, "fetch")
        aborted = rest[2] if answer.API_VERSION >= 11 else rest[-2]
        batches = MemoryRecords(rest[-1])
        where = Where(self.topic, self.number)
        return _Fetched(PartitionRecords(where, batches, aborted, position, None, None, True, READ_COMMITTED))

    def _raise_for(self, code: int, what: str) -> None:
        if code != codes.NONE:
            raise BrokerUnavailable(f"{self.topic}/{self.number}, {what} on broker {self.node_id}: error code {code}")


class _Fetched:
    """Fetched records, unpacked: `next_fetch_offset` is known only after the last record was taken."""

    def __init__(self, records: Any) -> None:
        try:
            self._records = list(records)
        except KafkaError as error:
            raise BrokerUnavailable(f"a damaged batch of markers: {error!r}") from error
        self.next_fetch_offset: int = records.next_fetch_offset

    def __iter__(self) -> Any:
        return iter(self._records)
