"""A Kafka broker in memory, for the twins of the Kafka ports (`kafka.memory.publisher`, `kafka.memory.group`).

The executable specification of Kafka, as far as its callers rely on it: producer epochs fence, an open transaction hides
later records from read_committed readers, an aborted one is never seen, offsets have holes where transactions ended.
Nothing here takes time by itself, except a topic in `answers_after_s`; `on_step` may wait, and may raise BrokerUnavailable
to lose a request (before the step) or its answer (after it).
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import Receipt
from clockwork.errors import BrokerUnavailable, DeliveryRefused, Fenced, Refusal, RefusalCause
from clockwork.settings.model import KafkaSettings

RECORD_BYTES_MAX: Final = 1_048_576
MARKER_KAFKA_PARTITIONS: Final = 8
"""Fewer than there are slots in most tests, so that some markers share one."""
TRANSACTION_S_MAX: Final = 10.0
"""The age at which the broker ends a transaction by itself; as `KafkaTimeouts.transaction_ms`."""


class Step(StrEnum):
    """A place for an injected fault. Each is passed twice: before the broker acts and after."""

    INIT = "init"
    BARRIER = "barrier"
    READ_MARKERS = "read_markers"
    BEGIN = "begin"
    APPEND = "append"
    APPEND_MARKER = "append_marker"
    COMMIT = "commit"
    SEND = "send"
    FORGET_MARKER = "forget_marker"
    LOOKUP = "lookup"


OnStep = Callable[[Step, str, bool], Awaitable[None]]
"""Called with the step, the transactional id (or topic, or the incarnation that reads markers), and True if the broker has
acted."""


class TransactionState(StrEnum):
    """The state of a transaction at its coordinator."""

    OPEN = "open"
    COMMITTED = "committed"
    ABORTED = "aborted"


@dataclass(kw_only=True, slots=True, eq=False)
class Transaction:
    """One transaction, and the Kafka partitions that it wrote to."""

    transactional_id: str
    begun_at_s: float
    """Loop time."""
    state: TransactionState = TransactionState.OPEN
    touched: set[tuple[str, int]] = field(default_factory=set)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredRecord:
    """A record as a reader gets it."""

    topic: str
    kafka_partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int


@dataclass(kw_only=True, slots=True)
class _Log:
    """One Kafka partition. None instead of a record: Kafka's own note that a transaction ended there."""

    entries: list[tuple[StoredRecord | None, Transaction | None]] = field(default_factory=list)

    def first_open(self, end: int) -> Transaction | None:
        """The open transaction that holds back the last stable offset, below the offset `end`; None: there is none."""
        for _record, transaction in self.entries[:end]:
            if transaction is not None and transaction.state is TransactionState.OPEN:
                return transaction
        return None

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
        """The broker's refusal of a record that has passed all checks before the send; None: it is taken."""
        self.leaderless: set[tuple[str, int]] = set()
        """Kafka partitions, by topic and number, whose leader is away."""
        self.answers_after_s: dict[str, float] = {}
        """By topic, the time that its leader takes to answer a record of a transaction; `math.inf`: it does not answer."""
        self.unanswered_commits = 0
        """Number of the next commits whose first request gets no answer and no effect; the second one is carried
        out."""
        self.inits: Counter[str] = Counter()
        """By transactional id, how often it was initialised."""
        self._topics: dict[str, _Topic] = {}
        self._ids: dict[str, _TransactionalId] = {}
        self._listeners: list[asyncio.Event] = []
        self.create_topic(self.shards_topic, kafka_partitions=shards)
        self.create_topic(self.deliveries_topic, kafka_partitions=MARKER_KAFKA_PARTITIONS)
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

    async def until_stable(self, topic: str, kafka_partition: int, offset: int) -> None:
        """Waits until the last stable offset has passed `offset`: until no transaction is open up to there. One that is open
        for too long is ended by the broker."""
        log = self._topics[topic].logs[kafka_partition]
        while (transaction := log.first_open(offset + 1)) is not None:
            try:
                async with asyncio.timeout_at(transaction.begun_at_s + TRANSACTION_S_MAX):
                    await transaction.ended.wait()
            except TimeoutError:
                self.expire_transaction(transaction.transactional_id)

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
        self.inits[transactional_id] += 1
        return self._bump(transactional_id)

    def _bump(self, transactional_id: str) -> int:
        entry = self._ids.setdefault(transactional_id, _TransactionalId())
        self._end(entry, TransactionState.ABORTED)
        entry.epoch += 1
        return entry.epoch

    def expire_transaction(self, transactional_id: str) -> None:
        """Aborts a transaction that has been open for too long, and fences its producer, as the broker does by itself."""
        self._bump(transactional_id)

    def begin(self, transactional_id: str, epoch: int) -> Transaction:
        entry = self._guarded(transactional_id, epoch)
        if entry.transaction is None:
            begun_at_s = asyncio.get_running_loop().time()
            entry.transaction = Transaction(transactional_id=transactional_id, begun_at_s=begun_at_s)
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
        refusal = self.known_refusal(record, kafka_partition) or self.refuse(record)
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
        """Commits the open transaction of this id, whichever it is: a late copy of an earlier request commits it, too."""
        self._end(self._guarded(transactional_id, epoch), TransactionState.COMMITTED)

    def known_refusal(self, record: OutRecord, kafka_partition: int) -> Refusal | None:
        """The refusal of a record that metadata give before it is sent; None if there is none."""
        topic = self._topics.get(record.topic)
        if topic is None:
            return Refusal(cause=RefusalCause.DESTINATION, reason="topic_missing", destination=record.topic)
        if topic.forbidden:
            return Refusal(cause=RefusalCause.DESTINATION, reason="topic_forbidden", destination=record.topic)
        if (record.topic, kafka_partition) in self.leaderless:
            return Refusal(cause=RefusalCause.TRANSIENT, reason="leader_unavailable", destination=record.topic)
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
        transaction.ended.set()
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
