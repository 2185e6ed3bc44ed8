"""Kafka as it is: producer epochs, a coordinator that decides first and tells the Kafka partitions later, records that
stay hidden behind an open transaction.

    empty ──begin──► open ──commit──► settling ──last Kafka partition told──► empty
                      └─────abort, init, or the broker's time limit──► settling (aborted; by another hand: epoch + 1)

The answer to a commit comes when it is decided, not when it is visible. `init` waits until nothing is settling, begins
anew with a higher epoch, and from then on nothing of an older epoch is taken.
"""

import random
from dataclasses import dataclass, field
from typing import Final

from clockwork.domain.record import DELIVERY_ID, OutRecord
from clockwork.domain.schedule import Receipt
from clockwork.domain.sharding import ShardId, murmur2
from clockwork.errors import DeliveryRefused, Fenced, Refusal, RefusalCause
from tests.simulation.clocks import TrueTime
from tests.simulation.faults import KafkaFaults
from tests.simulation.trace import Trace
from tests.simulation.virtual_loop import Reactor

CLUSTER: Final = "clockwork"
DELIVERIES: Final = f"{CLUSTER}-deliveries"
DEAD_LETTERS: Final = f"{CLUSTER}-dead-letters"
OWN_DEAD_LETTERS: Final = "client-dead-letters"
"""The client's own, where it has one."""
TRANSACTION_TIMEOUT_S: Final = 3.0
KAFKA_PARTITIONS: Final = 2
"""Of a client's topic."""
POISON: Final = b"poison"
"""Begins the data of records that their topic refuses: then the number of refusals before it gives in."""

Where = tuple[str, int]


class Busy(Exception):
    """Ask again: the last transaction is still being settled."""


@dataclass(kw_only=True, slots=True, eq=False)
class Transaction:
    """One transaction of one transactional id."""

    transactional_id: str
    epoch: int
    committed: bool | None = None
    """None: not decided."""
    decided_at_s: float = 0.0
    touched: dict[Where, tuple[Receipt, ...]] = field(default_factory=dict)
    told: set[Where] = field(default_factory=set)
    """Kafka partitions that know the decision."""

    def __str__(self) -> str:
        return f"{self.transactional_id}/{self.epoch}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One record in a Kafka partition, or (without `record`) the note that a transaction ended."""

    record: OutRecord | None
    transaction: Transaction | None
    appended_at_ms: float
    """By the world's time."""
    offset: int
    by: str
    """The node."""

    @property
    def delivery_id(self) -> str | None:
        return self.header(DELIVERY_ID)

    def header(self, name: str) -> str | None:
        """The first of this name."""
        headers = self.record.headers if self.record is not None else ()
        return next((value.decode() for each, value in headers if each == name), None)


@dataclass(kw_only=True, slots=True)
class _Id:
    epoch: int = -1
    open: Transaction | None = None
    settling: Transaction | None = None
    last: Transaction | None = None
    """The last one that was decided."""


class KafkaWorld:
    """The brokers."""

    def __init__(
        self, reactor: Reactor, time: TrueTime, trace: Trace, rng: random.Random, faults: KafkaFaults, *, shards: int
    ) -> None:
        self.reactor = reactor
        self.trace = trace
        self.rng = rng
        self.faults = faults
        self.forced: dict[str, list[float]] = {}
        """For scripts: how much later the next requests of a kind are carried out, without an answer."""
        self.down = 0
        self.slow = 0
        self.missing: dict[str, int] = {}
        """Topics that are not there, and how many faults want it so."""
        self.away: dict[str, int] = {}
        """Topics whose leaders do not answer."""
        self.logs: dict[Where, list[Entry]] = {}
        self.refusals: dict[bytes, int] = {}
        """How often each poisonous record was refused."""
        self._time = time
        self._ids: dict[str, _Id] = {}
        for number in range(shards):
            self.logs[(DELIVERIES, number)] = []

    def create_topic(self, name: str) -> None:
        for number in range(KAFKA_PARTITIONS):
            self.logs[(name, number)] = []

    def where(self, record: OutRecord) -> Where:
        """Kafka's default partitioner."""
        assert record.key is not None
        return (record.topic, (murmur2(record.key) & 0x7FFFFFFF) % KAFKA_PARTITIONS)

    # --- what a reader sees

    def committed(self, where: Where) -> list[Entry]:
        """With `isolation.level=read_committed`: up to the first record whose transaction this Kafka partition believes
        to be open."""
        seen = []
        for entry in self.logs[where]:
            transaction = entry.transaction
            if transaction is not None and where not in transaction.told:
                break
            if entry.record is not None and (transaction is None or transaction.committed):
                seen.append(entry)
        return seen

    def stable_end(self, where: Where) -> int:
        """The last stable offset."""
        for entry in self.logs[where]:
            if entry.transaction is not None and where not in entry.transaction.told:
                return entry.offset
        return len(self.logs[where])

    def last_marker(self, shard: ShardId, end: int) -> bytes | None:
        for entry in reversed(self.committed((DELIVERIES, shard))):
            if entry.offset < end and entry.record is not None:
                return entry.record.value
        return None

    def unsettled(self) -> list[str]:
        """Transactional ids that are not at rest."""
        return [name for name, entry in self._ids.items() if entry.open or entry.settling]

    # --- what a producer asks for; each is atomic

    def init(self, transactional_id: str) -> int:
        """Raises: Busy."""
        entry = self._ids.setdefault(transactional_id, _Id())
        if entry.open is not None:
            entry.epoch += 1
            self._decide(entry, committed=False)
        if entry.settling is not None:
            raise Busy
        entry.epoch += 1
        return entry.epoch

    def begin(self, transactional_id: str, epoch: int, topics: set[str]) -> Transaction:
        """Raises: Busy, Fenced, DeliveryRefused."""
        entry = self._guarded(transactional_id, epoch)
        if entry.settling is not None:
            raise Busy
        if entry.open is not None:
            return entry.open  # the same request again
        if missing := sorted(topic for topic in topics if self.missing.get(topic)):
            raise DeliveryRefused([_missing(topic) for topic in missing], begun=False)
        entry.open = Transaction(transactional_id=transactional_id, epoch=epoch)
        self.reactor.after(TRANSACTION_TIMEOUT_S, self._expire, entry, entry.open)
        return entry.open

    def produce(self, transaction: Transaction, where: Where, records: list[OutRecord], by: str) -> tuple[Receipt, ...]:
        """One batch of a transaction. Raises: Fenced, DeliveryRefused."""
        entry = self._guarded(transaction.transactional_id, transaction.epoch)
        if entry.open is not transaction:
            raise Fenced("this transaction is over")
        if where in transaction.touched:
            return transaction.touched[where]  # the same batch again, recognised by its sequence numbers
        self._judge(where[0], records)
        transaction.touched[where] = tuple(self._append(where, record, transaction, by) for record in records)
        return transaction.touched[where]

    def commit(self, transactional_id: str, epoch: int) -> None:
        """Commits whatever is open: the request does not name the transaction, so a late copy of it would commit a part of
        the next one. Raises: Fenced."""
        entry = self._guarded(transactional_id, epoch)
        if entry.open is not None:
            self._decide(entry, committed=True)
        elif entry.last is None or entry.last.committed is False:
            raise Fenced(f"{transactional_id}: nothing to commit")

    def send(self, record: OutRecord, by: str) -> Receipt:
        """One record outside any transaction. Raises: DeliveryRefused."""
        self._judge(record.topic, [record])
        return self._append(self.where(record), record, None, by)

    def known_refusals(self, topics: set[str]) -> list[Refusal]:
        """What metadata tells before anything is sent."""
        return [_missing(topic) for topic in sorted(topics) if self.missing.get(topic)]

    # --- parts

    def _guarded(self, transactional_id: str, epoch: int) -> _Id:
        entry = self._ids[transactional_id]
        if entry.epoch != epoch:
            raise Fenced(f"{transactional_id}: epoch {epoch} is over, {entry.epoch} now")
        return entry

    def _judge(self, topic: str, records: list[OutRecord]) -> None:
        if self.missing.get(topic):
            raise DeliveryRefused([_missing(topic)], begun=True)
        refused = [index for index, record in enumerate(records) if self._refuses(record)]
        if refused:
            raise DeliveryRefused(
                [
                    Refusal(cause=RefusalCause.RECORD, reason="record_invalid", destination=topic, index=index)
                    for index in refused
                ],
                begun=True,
            )

    def _refuses(self, record: OutRecord) -> bool:
        if record.topic == DEAD_LETTERS or not record.value.startswith(POISON):
            return False
        times = self.refusals.get(record.value, 0)
        self.refusals[record.value] = times + 1
        return times < int(record.value.split(b":")[1])

    def _append(self, where: Where, record: OutRecord, transaction: Transaction | None, by: str) -> Receipt:
        log = self.logs[where]
        entry = Entry(
            record=record, transaction=transaction, appended_at_ms=self._time.now_ms(), offset=len(log), by=by
        )
        log.append(entry)
        self.trace.note("kafka appends", by, *where, entry.offset, record.value[:40])
        return Receipt(kafka_partition=where[1], offset=entry.offset, at_ms=record.timestamp_ms)

    def _decide(self, entry: _Id, *, committed: bool) -> None:
        transaction, entry.open = entry.open, None
        assert transaction is not None
        transaction.committed = committed
        transaction.decided_at_s = self.reactor.now_s
        self.trace.note("kafka decides", transaction.transactional_id, "commit" if committed else "abort")
        entry.settling = entry.last = transaction
        at_s = self.reactor.now_s
        places = list(transaction.touched)
        self.rng.shuffle(places)
        for where in places:
            at_s += self.rng.expovariate(1 / self.faults.settle_s)
            self.reactor.at(at_s, self._tell, transaction, where)
        self.reactor.at(at_s, self._settled, entry)

    def _tell(self, transaction: Transaction, where: Where) -> None:
        transaction.told.add(where)
        log = self.logs[where]
        log.append(
            Entry(record=None, transaction=transaction, appended_at_ms=self._time.now_ms(), offset=len(log), by="")
        )

    def _settled(self, entry: _Id) -> None:
        entry.settling = None

    def _expire(self, entry: _Id, transaction: Transaction) -> None:
        if entry.open is transaction:
            entry.epoch += 1
            self._decide(entry, committed=False)


def _missing(topic: str) -> Refusal:
    return Refusal(cause=RefusalCause.DESTINATION, reason="topic_missing", destination=topic)
