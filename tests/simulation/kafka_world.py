"""Kafka as it is: producer epochs, a coordinator that decides first and tells the Kafka partitions later, records that
stay hidden behind an open transaction, and brokers that are deposed and do not know it.

    empty ──begin──► open ──commit──► settling ──last Kafka partition told──► empty
                      └─────abort, init, or the broker's time limit──► settling (aborted; by another hand: epoch + 1)

The answer to a commit comes when it is decided, not when it is visible. `init` waits until nothing is settling, begins
anew with a higher epoch, and from then on nothing of an older epoch is taken.

The methods without a broker are the truth. A request goes to a broker: it does what the truth says if that broker is the
leader or the coordinator in question; a *deposed* one still believes that it is, and answers from its state of that moment
(`Deposed`): metadata and FindCoordinator name itself; its logs end where they ended, but for what producers have sent to it
since, which no other broker has and which is never acknowledged; EndTxn is answered from its cache, with the success of the
transaction before; what it would have to write to its own log is not answered at all.
"""

import contextlib
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from clockwork.domain.record import DELIVERY_ID, OutRecord
from clockwork.domain.schedule import Receipt
from clockwork.domain.sharding import kafka_partition_of
from clockwork.errors import ClockworkError, DeliveryRefused, Fenced, Refusal, RefusalCause
from tests.simulation.clocks import TrueTime
from tests.simulation.faults import KafkaFaults
from tests.simulation.trace import Trace
from tests.simulation.virtual_loop import Reactor

CLUSTER: Final = "clockwork"
DELIVERIES: Final = f"{CLUSTER}-deliveries"
DEAD_LETTERS: Final = f"{CLUSTER}-dead-letters"
OWN_DEAD_LETTERS: Final = "client-dead-letters"
"""The client's own, where it has one."""
BROKERS: Final = 3
MARKER_PARTITIONS: Final = 2
"""Few, so that the slots of several incarnations share one."""
TRANSACTION_TIMEOUT_S: Final = 3.0
KAFKA_PARTITIONS: Final = 2
"""Kafka partitions of a client's topic."""
FOREIGN: Final = "foreign"
"""The transactional id of a producer that Clockwork does not know."""
POISON: Final = b"poison"
"""Begins the data of records that their topic refuses: then the number of refusals before it gives in."""

Where = tuple[str, int]


class Busy(Exception):
    """Ask again: the last transaction is still being settled."""


class NotHere(Exception):
    """NOT_COORDINATOR or NOT_LEADER: ask another broker who it is."""


class Silence(Exception):
    """The broker took the request and never answers."""


class InvalidState(ClockworkError):
    """INVALID_TXN_STATE: this producer has no such transaction."""


@dataclass(kw_only=True, slots=True, eq=False)
class Transaction:
    """One transaction of one transactional id."""

    transactional_id: str
    epoch: int
    committed: bool | None = None
    """None: not decided."""
    decided_at_s: float = 0.0
    partitions: set[Where] = field(default_factory=set)
    """As added by AddPartitions."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A Kafka partition, as a broker answers Fetch with `read_committed`."""

    end: int
    stable_end: int
    """The last stable offset."""
    committed: list[Entry]
    """Below it."""

    def __str__(self) -> str:
        return f"up to {self.end}, stable up to {self.stable_end}"


@dataclass(kw_only=True, slots=True)
class _Id:
    epoch: int = -1
    open: Transaction | None = None
    settling: Transaction | None = None
    last: Transaction | None = None
    """The last one that was decided."""

    def copy(self) -> "_Id":
        return _Id(epoch=self.epoch, open=self.open, settling=self.settling, last=self.last)


@dataclass(kw_only=True, slots=True)
class Deposed:
    """A broker's state as it was when others took its places."""

    led: dict[Where, View]
    sent: dict[Where, list[Entry]] = field(default_factory=dict)
    """By producers that still believe in it; replicated to no other broker, and thrown away when it learns."""
    coordinated: set[int] = field(default_factory=set)
    """Partitions of the coordinators' topic."""
    ids: dict[str, _Id] = field(default_factory=dict)


class KafkaWorld:
    """The brokers."""

    def __init__(self, reactor: Reactor, time: TrueTime, trace: Trace, rng: random.Random, faults: KafkaFaults) -> None:
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
        """The number of refusals of each poisonous record."""
        self.unacknowledged: set[tuple[str, str]] = set()
        """Node and delivery id of each send outside transactions that ended without an acknowledgement."""
        self.leaders: dict[Where, int] = {}
        self.coordinators = [number % BROKERS for number in range(BROKERS)]
        """By partition of the coordinators' topic."""
        self.deposed: dict[int, Deposed] = {}
        self._time = time
        self._ids: dict[str, _Id] = {}
        for number in range(MARKER_PARTITIONS):
            self._create((DELIVERIES, number))

    def create_topic(self, name: str) -> None:
        for number in range(KAFKA_PARTITIONS):
            self._create((name, number))

    def _create(self, where: Where) -> None:
        self.leaders[where] = len(self.logs) % BROKERS
        self.logs[where] = []

    def where(self, record: OutRecord) -> Where:
        """Kafka's default partitioner."""
        assert record.key is not None
        count = MARKER_PARTITIONS if record.topic == DELIVERIES else KAFKA_PARTITIONS
        return (record.topic, kafka_partition_of(record.key, count))

    # --- brokers

    def any_broker(self) -> int:
        """One that a client asks for metadata."""
        return self.rng.randrange(BROKERS)

    def leader_of(self, where: Where, asked: int) -> int:
        """Metadata, as this broker knows it."""
        deposed = self.deposed.get(asked)
        return asked if deposed is not None and where in deposed.led else self.leaders[where]

    def coordinator_of(self, transactional_id: str, asked: int) -> int:
        """FindCoordinator, as this broker knows it."""
        place = kafka_partition_of(transactional_id.encode(), BROKERS)
        deposed = self.deposed.get(asked)
        return asked if deposed is not None and place in deposed.coordinated else self.coordinators[place]

    def depose(self, broker: int, for_s: float) -> None:
        """Others lead and coordinate what it did; for so long it does not know."""
        others = [other for other in range(BROKERS) if other != broker and other not in self.deposed]
        if broker in self.deposed or not others:
            return
        led = [where for where, leader in self.leaders.items() if leader == broker]
        coordinated = {place for place, coordinator in enumerate(self.coordinators) if coordinator == broker}
        ids = {
            name: entry.copy()
            for name, entry in self._ids.items()
            if kafka_partition_of(name.encode(), BROKERS) in coordinated
        }
        self.deposed[broker] = deposed = Deposed(
            led={where: self.view(where) for where in led}, coordinated=coordinated, ids=ids
        )
        for where in led:
            self.leaders[where] = self.rng.choice(others)
        for place in coordinated:
            self.coordinators[place] = self.rng.choice(others)
        self.trace.note("kafka deposes", broker, f"{for_s:.3f}")
        self.reactor.after(for_s, self._learns, broker, deposed)

    def _learns(self, broker: int, deposed: Deposed) -> None:
        if self.deposed.get(broker) is deposed:
            del self.deposed[broker]
            self.trace.note("kafka: a deposed broker learns", broker)

    def _as_coordinator(self, broker: int, transactional_id: str) -> _Id | None:
        """None: it is the coordinator. Else the state of a deposed one. Raises: NotHere, Silence."""
        place = kafka_partition_of(transactional_id.encode(), BROKERS)
        deposed = self.deposed.get(broker)
        if deposed is not None and place in deposed.coordinated:
            if transactional_id not in deposed.ids:
                raise Silence
            return deposed.ids[transactional_id]
        if self.coordinators[place] != broker:
            raise NotHere
        return None

    def _as_leader(self, broker: int, where: Where) -> Deposed | None:
        """None: it is the leader. Raises: NotHere."""
        deposed = self.deposed.get(broker)
        if deposed is not None and where in deposed.led:
            return deposed
        if self.leaders[where] != broker:
            raise NotHere
        return None

    # --- what a reader sees

    def view(self, where: Where) -> View:
        """The true leader's view."""
        return View(end=len(self.logs[where]), stable_end=self.stable_end(where), committed=self.committed(where))

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

    def fetch(self, broker: int, where: Where) -> View:
        """Raises: NotHere."""
        deposed = self._as_leader(broker, where)
        if deposed is None:
            return self.view(where)
        before, sent = deposed.led[where], deposed.sent.get(where, [])
        if before.stable_end < before.end or not sent:
            return View(end=before.end + len(sent), stable_end=before.stable_end, committed=before.committed)
        end = before.end + len(sent)
        return View(end=end, stable_end=end, committed=[*before.committed, *sent])

    def unsettled(self) -> list[str]:
        """Transactional ids that are not at rest."""
        return [name for name, entry in self._ids.items() if name != FOREIGN and (entry.open or entry.settling)]

    # --- what a producer asks of a broker; each is atomic

    def asked_to_init(self, broker: int, transactional_id: str) -> int:
        """Raises: Busy, NotHere, Silence."""
        cached = self._as_coordinator(broker, transactional_id)
        if cached is None:
            return self.init(transactional_id)
        raise Busy if cached.settling is not None else Silence

    def asked_to_begin(self, broker: int, transactional_id: str, epoch: int, partitions: set[Where]) -> Transaction:
        """Raises: Busy, Fenced, DeliveryRefused, NotHere, Silence."""
        cached = self._as_coordinator(broker, transactional_id)
        if cached is None:
            return self.begin(transactional_id, epoch, partitions)
        self._check_epoch(cached, transactional_id, epoch)
        if cached.settling is not None:
            raise Busy
        if cached.open is not None and partitions <= cached.open.partitions:
            return (
                cached.open
            )  # nothing has to be written, so it answers: of the transaction that it still believes open
        raise Silence

    def asked_to_commit(self, broker: int, transactional_id: str, epoch: int) -> None:
        """Raises: Fenced, InvalidState, Busy, NotHere, Silence."""
        cached = self._as_coordinator(broker, transactional_id)
        if cached is None:
            self.commit(transactional_id, epoch)
            return
        self._check_epoch(cached, transactional_id, epoch)
        if cached.open is not None:
            raise Silence
        if cached.settling is not None:
            raise Busy
        if cached.last is None or not cached.last.committed:
            raise InvalidState(f"{transactional_id}: nothing to commit")
        self.trace.note("kafka: a deposed coordinator takes a commit for a repeat", broker, transactional_id)

    def asked_to_produce(
        self, broker: int, transaction: Transaction, where: Where, records: list[OutRecord], by: str
    ) -> tuple[Receipt, ...]:
        """Raises: Fenced, InvalidState, DeliveryRefused, NotHere, Silence."""
        if self._as_leader(broker, where) is not None:
            raise Silence
        return self.produce(transaction, where, records, by)

    def asked_to_append(self, broker: int, where: Where, record: OutRecord, by: str) -> Receipt:
        """One record outside any transaction, acknowledged by all in-sync replicas. Raises: DeliveryRefused, NotHere,
        Silence."""
        deposed = self._as_leader(broker, where)
        if deposed is None:
            self._judge(record.topic, [record])
            return self._append(where, record, None, by)
        sent = deposed.sent.setdefault(where, [])
        offset = deposed.led[where].end + len(sent)
        sent.append(Entry(record=record, transaction=None, appended_at_ms=self._time.now_ms(), offset=offset, by=by))
        raise Silence

    # --- the truth

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

    def begin(self, transactional_id: str, epoch: int, partitions: set[Where]) -> Transaction:
        """AddPartitions: all or nothing. Raises: Busy, Fenced, DeliveryRefused."""
        entry = self._guarded(transactional_id, epoch)
        if entry.settling is not None:
            raise Busy
        if missing := sorted({topic for topic, _ in partitions if self.missing.get(topic)}):
            raise DeliveryRefused([missing_topic(topic) for topic in missing], begun=False)
        if entry.open is None:
            entry.open = Transaction(transactional_id=transactional_id, epoch=epoch)
            self.reactor.after(TRANSACTION_TIMEOUT_S, self._expire, entry, entry.open)
        entry.open.partitions |= partitions
        return entry.open

    def produce(self, transaction: Transaction, where: Where, records: list[OutRecord], by: str) -> tuple[Receipt, ...]:
        """One batch of a transaction. Raises: Fenced, InvalidState, DeliveryRefused."""
        entry = self._guarded(transaction.transactional_id, transaction.epoch)
        if entry.open is not transaction or where not in transaction.partitions:
            raise InvalidState("this transaction is over")
        if where in transaction.touched:
            return transaction.touched[where]  # the same batch again, recognised by its sequence numbers
        self._judge(where[0], records)
        transaction.touched[where] = tuple(self._append(where, record, transaction, by) for record in records)
        return transaction.touched[where]

    def commit(self, transactional_id: str, epoch: int) -> None:
        """Commits whatever is open: the request does not name the transaction, so a late copy of it would commit a part of
        the next one. Raises: Fenced, InvalidState."""
        entry = self._guarded(transactional_id, epoch)
        if entry.open is not None:
            self._decide(entry, committed=True)
        elif entry.last is None or entry.last.committed is False:
            raise InvalidState(f"{transactional_id}: nothing to commit")

    def known_refusals(self, topics: Iterable[str]) -> list[Refusal]:
        """Refusals that metadata tells before anything is sent."""
        return [
            missing_topic(topic) if self.missing.get(topic) else leader_away(topic)
            for topic in sorted(topics)
            if self.missing.get(topic) or self.away.get(topic)
        ]

    # --- transactions of others

    def play_foreign_transactions(self) -> None:
        """Another producer leaves transactions open in the markers' topic."""
        if self.faults.foreign_every_s:
            self.reactor.after(self.rng.expovariate(1 / self.faults.foreign_every_s), self._foreign)

    def _foreign(self) -> None:
        try:
            epoch = self.init(FOREIGN)
        except Busy:
            self.play_foreign_transactions()
            return
        where = (DELIVERIES, self.rng.randrange(MARKER_PARTITIONS))
        record = OutRecord(topic=DELIVERIES, key=FOREIGN.encode(), value=None, headers=(), timestamp_ms=0)
        transaction = self.begin(FOREIGN, epoch, {where})
        self.produce(transaction, where, [record], FOREIGN)
        self.reactor.after(self.rng.choice([0.1, 0.5, 2 * TRANSACTION_TIMEOUT_S]), self._foreign_ends, epoch)

    def _foreign_ends(self, epoch: int) -> None:
        with contextlib.suppress(ClockworkError):  # the brokers may have aborted it
            self.commit(FOREIGN, epoch)
        self.play_foreign_transactions()

    # --- parts

    def _guarded(self, transactional_id: str, epoch: int) -> _Id:
        entry = self._ids[transactional_id]
        self._check_epoch(entry, transactional_id, epoch)
        return entry

    def _check_epoch(self, entry: _Id, transactional_id: str, epoch: int) -> None:
        if entry.epoch != epoch:
            raise Fenced(f"{transactional_id}: epoch {epoch} is over, {entry.epoch} now")

    def _judge(self, topic: str, records: list[OutRecord]) -> None:
        if self.missing.get(topic):
            raise DeliveryRefused([missing_topic(topic)], begun=True)
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
        if record.value is None or record.topic == DEAD_LETTERS or not record.value.startswith(POISON):
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
        self.trace.note("kafka appends", by, *where, entry.offset, (record.value or b"")[:40])
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


def missing_topic(topic: str) -> Refusal:
    return Refusal(cause=RefusalCause.DESTINATION, reason="topic_missing", destination=topic)


def leader_away(topic: str) -> Refusal:
    return Refusal(cause=RefusalCause.TRANSIENT, reason="leader_unavailable", destination=topic)
