"""A Kafka broker in memory, for the twins of the Kafka ports (`kafka.memory.publisher`, `kafka.memory.group`).

The executable specification of Kafka, as far as its callers rely on it: producer epochs fence, an open transaction hides
later records from read_committed readers, an aborted one is never seen, offsets have holes where transactions ended.
Nothing here takes time by itself; `on_step` may wait, and may raise BrokerUnavailable to lose a request (before the step) or
its answer (after it).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import Receipt
from clockwork.errors import BrokerUnavailable, DeliveryRefused, Fenced, Refusal, RefusalCause
from clockwork.settings.model import KafkaSettings

RECORD_BYTES_MAX: Final = 1_048_576


class Step(StrEnum):
    """A place for an injected fault. Each is passed twice: before the broker acts and after."""

    INIT = "init"
    READ_MARKER = "read_marker"
    BEGIN = "begin"
    APPEND = "append"
    APPEND_MARKER = "append_marker"
    COMMIT = "commit"
    ABORT = "abort"
    SEND = "send"
    LOOKUP = "lookup"


OnStep = Callable[[Step, str, bool], Awaitable[None]]
"""Called with the step, the transactional id (or topic), and True if the broker has acted."""


class TransactionState(StrEnum):
    """The state of a transaction at its coordinator."""

    OPEN = "open"
    COMMITTED = "committed"
    ABORTED = "aborted"


@dataclass(kw_only=True, slots=True, eq=False)
class Transaction:
    """One transaction, and the Kafka partitions that it wrote to."""

    state: TransactionState = TransactionState.OPEN
    touched: set[tuple[str, int]] = field(default_factory=set)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredRecord:
    """A record as a reader gets it."""

    topic: str
    kafka_partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int


@dataclass(kw_only=True, slots=True)
class _Log:
    """One Kafka partition. None instead of a record: Kafka's own note that a transaction ended there."""

    entries: list[tuple[StoredRecord | None, Transaction | None]] = field(default_factory=list)

    def committed(self) -> list[StoredRecord]:
        """Up to the first record of an open transaction."""
        seen: list[StoredRecord] = []
        for record, transaction in self.entries:
            if transaction is not None and transaction.state is TransactionState.OPEN:
                break
            if record is not None and (transaction is None or transaction.state is TransactionState.COMMITTED):
                seen.append(record)
        return seen


@dataclass(kw_only=True, slots=True)
class _Topic:
    logs: list[_Log]
    record_bytes_max: int
    forbidden: bool = False


@dataclass(kw_only=True, slots=True)
class _TransactionalId:
    epoch: int = -1
    transaction: Transaction | None = None


class MemoryKafka:
    """The broker: shared by all the nodes of a test."""

    def __init__(self, *, cluster: str, shards: int) -> None:
        self.settings = KafkaSettings(cluster=cluster, shards=shards)
        self.down = False
        """While true no request gets an answer."""
        self.on_step: OnStep | None = None
        self.refuse: Callable[[OutRecord], Refusal | None] = lambda record: None
        """The broker's refusal of a record that passed all checks before it was sent; None: it is taken."""
        self._topics: dict[str, _Topic] = {}
        self._ids: dict[str, _TransactionalId] = {}
        self._listeners: list[asyncio.Event] = []
        for name, kafka_partitions in ((self.shards_topic, shards), (self.deliveries_topic, shards)):
            self.create_topic(name, kafka_partitions=kafka_partitions)
        self.create_topic(self.dead_letters_topic, kafka_partitions=2, record_bytes_max=4 * RECORD_BYTES_MAX)

    @property
    def shards_topic(self) -> str:
        return self.settings.shards_topic

    @property
    def deliveries_topic(self) -> str:
        return self.settings.deliveries_topic

    @property
    def dead_letters_topic(self) -> str:
        return self.settings.dead_letters_topic

    def create_topic(
        self, name: str, *, kafka_partitions: int = 1, record_bytes_max: int = RECORD_BYTES_MAX, forbidden: bool = False
    ) -> None:
        logs = [_Log() for _ in range(kafka_partitions)]
        self._topics.setdefault(name, _Topic(logs=logs, record_bytes_max=record_bytes_max, forbidden=forbidden))

    def delete_topic(self, name: str) -> None:
        del self._topics[name]

    def allow(self, name: str) -> None:
        """Lets the nodes write to a topic that was created as forbidden."""
        self._topics[name].forbidden = False

    def has_topic(self, name: str) -> bool:
        return name in self._topics and not self._topics[name].forbidden

    def is_forbidden(self, name: str) -> bool:
        return name in self._topics and self._topics[name].forbidden

    def kafka_partitions(self, name: str) -> int:
        return len(self._topics[name].logs)

    def read_committed(self, topic: str) -> list[StoredRecord]:
        """The records that a consumer with `isolation.level=read_committed` sees, by Kafka partition and offset."""
        return [record for log in self._topics[topic].logs for record in log.committed()]

    def last_committed(self, topic: str, kafka_partition: int) -> StoredRecord | None:
        committed = self._topics[topic].logs[kafka_partition].committed()
        return committed[-1] if committed else None

    def end_offset(self, topic: str, kafka_partition: int) -> int:
        return len(self._topics[topic].logs[kafka_partition].entries)

    def records_from(self, topic: str, kafka_partition: int, offset: int) -> list[StoredRecord]:
        """The records from an offset on, as a reader without transactions sees them."""
        entries = self._topics[topic].logs[kafka_partition].entries[offset:]
        return [record for record, _transaction in entries if record is not None]

    @contextlib.contextmanager
    def listening(self, event: asyncio.Event) -> Iterator[None]:
        """Sets the event at each wake-up that is appended."""
        self._listeners.append(event)
        try:
            yield
        finally:
            self._listeners.remove(event)

    # --- requests of producers; each is atomic

    def init(self, transactional_id: str) -> int:
        """Fences all earlier producers of this id and aborts their open transaction; returns the new epoch."""
        entry = self._ids.setdefault(transactional_id, _TransactionalId())
        self._end(entry, TransactionState.ABORTED)
        entry.epoch += 1
        return entry.epoch

    def expire_transaction(self, transactional_id: str) -> None:
        """Aborts a transaction that has been open for too long, and fences its producer, as the broker does by itself."""
        self.init(transactional_id)

    def begin(self, transactional_id: str, epoch: int) -> Transaction:
        entry = self._guarded(transactional_id, epoch)
        entry.transaction = Transaction()
        return entry.transaction

    def append(
        self, record: OutRecord, kafka_partition: int, *, transactional_id: str | None = None, epoch: int = 0
    ) -> Receipt:
        """Puts a record at the end of its Kafka partition. Raises: Fenced, DeliveryRefused."""
        transaction: Transaction | None = None
        if transactional_id is not None:
            transaction = self._guarded(transactional_id, epoch).transaction
            if transaction is None:
                raise Fenced(f"{transactional_id}: no transaction is open")
        refusal = self.known_refusal(record) or self.refuse(record)
        if refusal is not None:
            raise DeliveryRefused([refusal], begun=transactional_id is not None)
        entries = self._topics[record.topic].logs[kafka_partition].entries
        stored = StoredRecord(
            topic=record.topic,
            kafka_partition=kafka_partition,
            offset=len(entries),
            key=record.key,
            value=record.value,
            headers=record.headers,
            timestamp_ms=record.timestamp_ms,
        )
        entries.append((stored, transaction))
        if record.topic == self.shards_topic:
            for event in self._listeners:
                event.set()
        if transaction is not None:
            transaction.touched.add((record.topic, kafka_partition))
        return Receipt(kafka_partition=kafka_partition, offset=stored.offset, at_ms=record.timestamp_ms)

    def commit(self, transactional_id: str, epoch: int) -> None:
        self._end(self._guarded(transactional_id, epoch), TransactionState.COMMITTED)

    def abort(self, transactional_id: str, epoch: int) -> None:
        self._end(self._guarded(transactional_id, epoch), TransactionState.ABORTED)

    def known_refusal(self, record: OutRecord) -> Refusal | None:
        """The refusal of a record that metadata give before it is sent; None if there is none."""
        topic = self._topics.get(record.topic)
        if topic is None:
            return Refusal(cause=RefusalCause.DESTINATION, reason="topic_missing", destination=record.topic)
        if topic.forbidden:
            return Refusal(cause=RefusalCause.DESTINATION, reason="topic_forbidden", destination=record.topic)
        if record.size_bytes > topic.record_bytes_max:
            return Refusal(cause=RefusalCause.RECORD, reason="record_too_large", destination=record.topic)
        return None

    def _guarded(self, transactional_id: str, epoch: int) -> _TransactionalId:
        entry = self._ids[transactional_id]
        if entry.epoch != epoch:
            raise Fenced(f"{transactional_id}: epoch {epoch} is over, {entry.epoch} now")
        return entry

    def _end(self, entry: _TransactionalId, state: TransactionState) -> None:
        transaction, entry.transaction = entry.transaction, None
        if transaction is None:
            return
        transaction.state = state
        for name, kafka_partition in transaction.touched:
            if name in self._topics:
                self._topics[name].logs[kafka_partition].entries.append((None, transaction))

    async def step(self, step: Step, who: str, *, done: bool) -> None:
        """Lets other tasks run, then calls the hook. Raises: BrokerUnavailable, while the broker is down."""
        await asyncio.sleep(0)
        if self.on_step is not None:
            await self.on_step(step, who, done)
        if self.down:
            raise BrokerUnavailable("the broker is down")
