"""The last committed marker of a shard, and how it is found.

Requirement (docs/design.md, 5): it is read after the init that fenced the old owner, with `read_committed`, up to an
end of the Kafka partition that was taken after that init. The end is the high watermark. The last stable offset alone
would not do: it stands before a transaction that is still open or still being settled, and to stop there would miss its
marker; so reading waits until the last stable offset has come up to that end.

The topic is compacted, but the newest part is not, and every transaction takes two offsets (its marker, and Kafka's
own record that it ended), aborted ones included. So reading starts a few offsets before the end and, if nothing
committed is there, farther back in growing windows, down to the start. Offsets and records are asked for directly, on
the shard's own connection: a consumer would bring its own connections, background tasks and a position to manage in
place of three requests, 64 times at once when a node starts.
"""

import asyncio
from typing import Any, Final

from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import KafkaError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from clockwork.concurrency import Backoff
from clockwork.domain import marker
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.sharding import ShardId
from clockwork.errors import BrokerUnavailable
from clockwork.kafka import codes
from clockwork.kafka.client import RNG, Wire
from clockwork.kafka.topics import TopicDirectory

FIRST_WINDOW: Final = 16
"""Offsets of the first look: the last eight transactions, about."""
WINDOW_FACTOR: Final = 8
FETCH_BYTES_MAX: Final = 4_194_304
FETCH_WAIT_MS: Final = 100
"""Longest time for which a broker may hold an empty answer back; only on a new leader that is still catching up."""
BACKOFF: Final = BackoffPolicy(initial_ms=5, max_ms=100)
_EARLIEST: Final = -2
_LATEST: Final = -1


class MarkerReader:
    """Reads one Kafka partition of the deliveries topic."""

    def __init__(self, wire: Wire, directory: TopicDirectory, *, topic: str, shard: ShardId) -> None:
        self._wire = wire
        self._directory = directory
        self._topic = topic
        self._shard = shard
        self._leader = -1

    async def read_last(self, *, timeout_s: float) -> bytes | None:
        """The value of the last committed marker; None if there is none. Raises: BrokerUnavailable."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._read_with_retries()
        except TimeoutError as error:
            raise BrokerUnavailable(f"the last marker of shard {self._shard} could not be read in time") from error

    async def _read_with_retries(self) -> bytes | None:
        # A leader may be elected anew at any step; then all of it again, as the end is another leader's.
        backoff = Backoff(RNG, BACKOFF)
        while True:
            try:
                return await self._read()
            except BrokerUnavailable:
                await backoff.wait()

    async def _read(self) -> bytes | None:
        asked_at_s = asyncio.get_running_loop().time()
        # Asked anew: a leader that was deposed may not have the last marker.
        self._leader = (await self._directory.layout(self._topic, since_s=asked_at_s)).leader_of(self._shard)
        if self._leader < 0:
            raise BrokerUnavailable(f"{self._topic}/{self._shard} has no leader")
        end = await self._settled_end()
        start = await self._offset(_EARLIEST, READ_UNCOMMITTED)
        return await self._search(start, end)

    async def _settled_end(self) -> int:
        """The high watermark, once no transaction below it is open any more."""
        end = await self._offset(_LATEST, READ_UNCOMMITTED)
        backoff = Backoff(RNG, BACKOFF)
        while await self._offset(_LATEST, READ_COMMITTED) < end:
            await backoff.wait()
        return end

    async def _search(self, start: int, end: int) -> bytes | None:
        window = FIRST_WINDOW
        while end > start:
            begin = max(start, end - window)
            found = await self._last_between(begin, end)
            if found is not None:
                return found
            end, window = begin, window * WINDOW_FACTOR
        return None

    async def _last_between(self, begin: int, end: int) -> bytes | None:
        found: bytes | None = None
        position = begin
        while position < end:
            records = await self._fetch(position)
            for record in records:
                if record.offset >= end:
                    break
                if record.key == marker.KEY and record.value is not None:
                    found = record.value
            if records.next_fetch_offset <= position:
                raise BrokerUnavailable(f"{self._topic}/{self._shard}: nothing at offset {position}, before its end")
            position = records.next_fetch_offset
        return found

    async def _offset(self, which: int, isolation: int) -> int:
        request = OffsetRequest(-1, isolation, [(self._topic, [(self._shard, which)])])
        answer = await self._wire.request(request, node_id=self._leader)
        _number, code, _time, offset = answer.topics[0][1][0]
        _raise_for(code, "offset")
        return int(offset)

    async def _fetch(self, position: int) -> Any:
        request = FetchRequest(
            FETCH_WAIT_MS,
            1,
            FETCH_BYTES_MAX,
            READ_COMMITTED,
            [(self._topic, [(self._shard, position, FETCH_BYTES_MAX)])],
        )
        answer = await self._wire.request(request, node_id=self._leader)
        _number, code, _high_watermark, *rest = answer.topics[0][1][0]
        _raise_for(code, "fetch")
        aborted = rest[2] if answer.API_VERSION >= 11 else rest[-2]
        where = TopicPartition(self._topic, self._shard)
        batches = MemoryRecords(rest[-1])
        records = PartitionRecords(where, batches, aborted, position, None, None, True, READ_COMMITTED)
        return _Read(records)


class _Read:
    """Fetched records, unpacked: `next_fetch_offset` is known only after the last record was taken."""

    def __init__(self, records: Any) -> None:
        try:
            self._records = list(records)
        except KafkaError as error:
            raise BrokerUnavailable(f"a damaged batch of markers: {error!r}") from error
        self.next_fetch_offset: int = records.next_fetch_offset

    def __iter__(self) -> Any:
        return iter(self._records)


def _raise_for(code: int, what: str) -> None:
    if code != codes.NONE:
        raise BrokerUnavailable(f"marker topic, {what}: error code {code}")
