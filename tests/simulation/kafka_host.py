"""Kafka's clients on one node: the ports `Publisher` and `SlotProducer` over the simulated brokers.

They do what the real adapter does: repeat what may be repeated until a deadline, look for another broker when one is not
in charge or does not answer, and say "unknown" when they do not know. Time limits are scaled down (`SENDS_SCALE`), so that
runs reach them. Each rule is a method of its own, so that a mutation can break it alone.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NoReturn, TypeVar

from clockwork.domain import marker as marker_value
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.ownership import IncarnationId
from clockwork.domain.record import DELIVERY_ID, OutRecord
from clockwork.domain.schedule import Receipt
from clockwork.errors import (
    BrokerUnavailable,
    ClockworkError,
    DeliveryAborted,
    DeliveryRefused,
    DeliveryUnknown,
    Refusal,
    RefusalCause,
)
from clockwork.ports.delivery import Committed, SlotName
from tests.simulation.host import Host
from tests.simulation.kafka_world import (
    CLUSTER,
    DELIVERIES,
    Busy,
    Entry,
    InvalidState,
    KafkaWorld,
    NotHere,
    Silence,
    Transaction,
    View,
    Where,
)

INIT_TIMEOUT_S: Final = 1.5
SENDS_TIMEOUT_S: Final = 1.2
"""Time limit of a record outside transactions."""
SENDS_SCALE: Final = 0.4
"""Factor of the time limits that the engine gives to a transaction's sends: all below the transaction's own."""
COMMIT_TIMEOUT_S: Final = 0.6
ANSWER_TIMEOUT_S: Final = 0.25
"""After which one request counts as unanswered and is sent again."""
LATE_S_MEANS: Final = (0.02, 0.2, 1.0)

_T = TypeVar("_T")


class Unanswered(Exception):
    """One request had no answer: it was not carried out, or was, or will be."""


class Wire:
    """One node's connections to the brokers."""

    def __init__(self, world: KafkaWorld, host: Host) -> None:
        self.world = world
        self.host = host

    async def ask(self, what: str, effect: Callable[[], _T], *, timeout_s: float) -> _T:
        """Asks until it is answered. The effect must bear being repeated. Raises: BrokerUnavailable."""
        await self.host.step(what, after=False)
        deadline_s = self.host.loop.time() + timeout_s
        while self.host.loop.time() < deadline_s:
            try:
                answer = await self.once(what, effect)
            except Unanswered:
                continue
            except Busy:
                await self.pause()
                continue
            except ClockworkError:
                await self.host.step(what, after=True)
                raise
            await self.host.step(what, after=True)
            return answer
        await self.host.step(what, after=True)
        raise BrokerUnavailable(f"{what} was not answered in time")

    async def once(self, what: str, effect: Callable[[], _T], *, lost: bool = False) -> _T:
        """One request. Raises: Unanswered, and what the effect raises."""
        answered: asyncio.Future[Callable[[], _T]] = self.host.loop.create_future()
        self._send(what, effect, answered, lost=lost)
        return (await answered)()

    async def pause(self) -> None:
        await asyncio.sleep(self.host.rng.uniform(0.001, 0.02))

    def stalls(self) -> bool:
        """True if produce requests of this delivery have no answer until its deadline."""
        return self.world.rng.random() < self.world.faults.stalled

    def _send(
        self, what: str, effect: Callable[[], _T], answered: "asyncio.Future[Callable[[], _T]]", *, lost: bool
    ) -> None:
        world, rng = self.world, self.world.rng
        arrives_s = self._latency_s()
        if forced := world.forced.get(what):
            world.reactor.after(ANSWER_TIMEOUT_S, self._tell, answered, _unanswered)
            world.reactor.after(forced.pop(0), self.carry_out, what, effect)
            return
        dice = rng.random()
        if lost or not self.host.reaches_kafka or world.down or (dice := dice - world.faults.request_lost) < 0:
            world.reactor.after(ANSWER_TIMEOUT_S, self._tell, answered, _unanswered)
        elif (dice := dice - world.faults.answer_lost) < 0:
            world.reactor.after(arrives_s, self.carry_out, what, effect)
            world.reactor.after(ANSWER_TIMEOUT_S, self._tell, answered, _unanswered)
        elif dice < world.faults.late:
            world.reactor.after(ANSWER_TIMEOUT_S, self._tell, answered, _unanswered)
            late_s = ANSWER_TIMEOUT_S + rng.expovariate(1 / rng.choice(LATE_S_MEANS))
            world.reactor.after(late_s, self.carry_out, what, effect)
        else:
            world.reactor.after(arrives_s, self._arrive, what, effect, answered)

    def _arrive(self, what: str, effect: Callable[[], _T], answered: "asyncio.Future[Callable[[], _T]]") -> None:
        answer = self.carry_out(what, effect)
        if self.host.reaches_kafka and answer is not _unanswered:
            self.world.reactor.after(self._latency_s(), self._tell, answered, answer)
        else:
            self.world.reactor.after(ANSWER_TIMEOUT_S, self._tell, answered, _unanswered)

    def carry_out(self, what: str, effect: Callable[[], _T]) -> Callable[[], _T]:
        """The answer, as a function that returns or raises it."""
        try:
            value = effect()
        except Silence:
            self.world.trace.note("kafka", self.host, what, "no answer")
            return _unanswered
        except (ClockworkError, Busy, NotHere) as error:
            self.world.trace.note("kafka", self.host, what, repr(error))
            return _raising(error)
        self.world.trace.note("kafka", self.host, what, value)
        return lambda: value

    def _tell(self, answered: "asyncio.Future[Callable[[], _T]]", answer: Callable[[], _T]) -> None:
        if not answered.done():
            answered.set_result(answer)

    def _latency_s(self) -> float:
        mean_s = self.world.faults.latency_s * (15 if self.world.slow else 1)
        return mean_s * (0.2 + self.world.rng.expovariate(1.25))


def _unanswered() -> NoReturn:
    raise Unanswered


def _raising(error: Exception) -> Callable[[], NoReturn]:
    def answer() -> NoReturn:
        raise error

    return answer


class Brokers:
    """The metadata of one client: asked of any broker and kept until it proves wrong."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.world = wire.world
        self._leaders: dict[Where, int] = {}

    async def leader(self, where: Where) -> int:
        """From the cache, if it is there. Raises: Unanswered."""
        if where not in self._leaders:
            return await self.leader_anew(where)
        return self._leaders[where]

    async def leader_anew(self, where: Where) -> int:
        """From metadata that is asked for now, of any broker. Raises: Unanswered."""
        asked = self.world.any_broker()
        leader = await self.wire.once("metadata", lambda: self.world.leader_of(where, asked))
        self._leaders[where] = leader
        return leader

    def forget_leader(self, where: Where) -> None:
        self._leaders.pop(where, None)

    async def coordinator(self, transactional_id: str) -> int:
        """Raises: Unanswered."""
        asked = self.world.any_broker()
        return await self.wire.once("find_coordinator", lambda: self.world.coordinator_of(transactional_id, asked))


class IdClient:
    """Requests about one transactional id, to the broker that is its coordinator."""

    def __init__(self, brokers: Brokers, transactional_id: str) -> None:
        self.id = transactional_id
        self._brokers = brokers
        self._wire = brokers.wire
        self._coordinator: int | None = None

    async def ask(
        self, what: str, effect: Callable[[int], _T], *, timeout_s: float, on_silence: Callable[[], None] = lambda: None
    ) -> tuple[_T, int]:
        """Asks until a broker answers that believes to be the coordinator; returns which. `on_silence` is told of each try
        that may have been carried out. Raises: BrokerUnavailable."""
        loop = self._wire.host.loop
        deadline_s = loop.time() + timeout_s
        while loop.time() < deadline_s:
            try:
                if self._coordinator is None:
                    self._coordinator = await self._brokers.coordinator(self.id)
                broker = self._coordinator
            except Unanswered:
                continue
            try:
                return await self._wire.once(what, partial(effect, broker)), broker
            except Unanswered:
                on_silence()
                self._coordinator = None
            except NotHere:
                self._coordinator = None
                await self._wire.pause()
            except Busy:
                await self._wire.pause()
        raise BrokerUnavailable(f"{what} of {self.id} was not answered in time")

    async def init(self) -> int:
        """InitProducerId, until this call itself succeeds; returns the new epoch. Raises: BrokerUnavailable."""
        world, host = self._wire.world, self._wire.host
        await host.step("init", after=False)
        epoch, _ = await self.ask("init", lambda broker: world.asked_to_init(broker, self.id), timeout_s=INIT_TIMEOUT_S)
        await host.step("init", after=True)
        return epoch


class HostPublisher:
    """See `ports.Publisher`."""

    def __init__(self, world: KafkaWorld, host: Host) -> None:
        self.world = world
        self._host = host
        self._wire = Wire(world, host)
        self._brokers = Brokers(self._wire)

    def open_slot(self, name: SlotName) -> "HostSlotProducer":
        return HostSlotProducer(self._brokers, name)

    async def settle(self, incarnation: IncarnationId, *, slots: int) -> None:
        for slot in range(slots):
            await IdClient(self._brokers, transactional_id(SlotName(incarnation, slot))).init()

    async def read_markers(
        self, reader: IncarnationId, slots: Mapping[SlotName, int | None]
    ) -> Mapping[SlotName, tuple[MarkerEntry, ...]]:
        by_partition: dict[Where, list[SlotName]] = {}
        for name in slots:
            by_partition.setdefault(marker_where(self.world, name), []).append(name)
        found: dict[SlotName, tuple[MarkerEntry, ...]] = {}
        for where, names in by_partition.items():
            reading = MarkerReading(self._brokers, where, marker_value.barrier_key(reader))
            await self._host.step("read_markers", after=False)
            records = await reading.run()
            await self._host.step("read_markers", after=True)
            for name in names:
                value = reading.pick(records, marker_key(name), begin=slots[name] or 0)
                found[name] = marker_value.decode(value) if value else ()
        return found

    async def forget_markers(self, incarnation: IncarnationId, *, slots: int) -> None:
        for slot in range(slots):
            await self._append(marker_record(SlotName(incarnation, slot), None, self._host.clock.now_ms()))

    async def send(self, record: OutRecord) -> Receipt:
        if refusals := self._unable([record.topic]):
            raise DeliveryRefused(refusals, begun=False)
        receipt: Receipt | None = None
        try:
            await self._host.step("send", after=False)
            receipt = await self._append(record)
            await self._host.step("send", after=True)
        finally:
            if receipt is None:
                # Not answered, or refused, or this node died or was stopped meanwhile: it may have been written.
                delivery_id = next((value.decode() for name, value in record.headers if name == DELIVERY_ID), "")
                self.world.unacknowledged.add((self._host.name, delivery_id))
        return receipt

    async def topic_exists(self, topic: str) -> bool:
        return await self._wire.ask(
            "lookup", lambda: (topic, 0) in self.world.logs and not self.world.missing.get(topic), timeout_s=0.5
        )

    async def topic_missing(self, topic: str) -> bool:
        return not await self.topic_exists(topic)

    def connected(self) -> bool:
        return self._host.reaches_kafka and not self.world.down

    # --- parts

    def _unable(self, topics: Sequence[str]) -> list[Refusal]:
        """Refusals that metadata, which may be older than the truth, tells before a record is sent."""
        if self.world.rng.random() >= self.world.faults.preflight:
            return []
        return self.world.known_refusals(topics)

    async def _append(self, record: OutRecord) -> Receipt:
        """Raises: DeliveryRefused, BrokerUnavailable (it may have been written)."""
        world, loop = self.world, self._host.loop
        where = world.where(record)
        deadline_s = loop.time() + SENDS_TIMEOUT_S
        lost = self._wire.stalls()
        written: list[Receipt] = []

        def append(broker: int) -> Receipt:
            # The same batch again is recognised by its sequence number.
            if not written:
                written.append(world.asked_to_append(broker, where, record, self._host.name))
            return written[0]

        while loop.time() < deadline_s:
            try:
                broker = await self._brokers.leader(where)
                if world.away.get(record.topic):
                    await asyncio.sleep(ANSWER_TIMEOUT_S)
                    continue
                return await self._wire.once("send", partial(append, broker), lost=lost)
            except (Unanswered, NotHere):
                self._brokers.forget_leader(where)
                await self._wire.pause()
            except DeliveryRefused as refused:
                raise DeliveryRefused(refused.refusals, begun=False) from refused
        raise BrokerUnavailable(f"{record.topic} did not answer in time")


class MarkerReading:
    """Reads one Kafka partition of the markers up to a barrier (docs/design.md, 5, "Reading a marker")."""

    def __init__(self, brokers: Brokers, where: Where, key: bytes) -> None:
        self._brokers = brokers
        self._wire = brokers.wire
        self._world = brokers.world
        self._where = where
        self._key = key

    async def run(self) -> list[Entry]:
        """All that is committed up to the barrier. Raises: BrokerUnavailable."""
        loop = self._wire.host.loop
        deadline_s = loop.time() + 2 * INIT_TIMEOUT_S
        barrier: int | None = None
        while loop.time() < deadline_s:
            try:
                barrier = await self.write_barrier() if barrier is None else barrier
                broker = await self.leader()
                view = await self._wire.once("fetch", partial(self._world.fetch, broker, self._where))
            except (Unanswered, NotHere):
                await self._wire.pause()
                continue
            if self.is_leader(view, barrier) and self.is_complete(view, barrier):
                return [entry for entry in view.committed if entry.offset <= barrier]
            await self._wire.pause()
        raise BrokerUnavailable(f"{self._where}: not read up to its barrier in time")

    async def write_barrier(self) -> int:
        """Its offset. Raises: Unanswered, NotHere."""
        record = OutRecord(topic=DELIVERIES, key=self._key, value=None, headers=(), timestamp_ms=0)
        broker = await self._brokers.leader(self._where)
        try:
            receipt = await self._wire.once(
                "barrier",
                lambda: self._world.asked_to_append(broker, self._where, record, self._wire.host.name),
            )
        except (Unanswered, NotHere):
            self._brokers.forget_leader(self._where)
            raise
        return receipt.offset

    async def leader(self) -> int:
        """Raises: Unanswered."""
        return await self._brokers.leader_anew(self._where)

    def is_leader(self, view: View, barrier: int) -> bool:
        """True if what was read holds the barrier where it was acknowledged."""
        if view.end <= barrier:
            return False
        at_barrier = next((entry for entry in view.committed if entry.offset == barrier), None)
        if at_barrier is None:
            return view.stable_end <= barrier
        return at_barrier.record is not None and at_barrier.record.key == self._key

    def is_complete(self, view: View, barrier: int) -> bool:
        """True if no open transaction hides anything up to the barrier."""
        return view.stable_end > barrier

    def pick(self, records: Sequence[Entry], key: bytes, *, begin: int) -> bytes | None:
        """The value of the last marker of this key, from the offset that a hint names."""
        for entry in reversed(records):
            if entry.offset >= begin and entry.record is not None and entry.record.key == key:
                return entry.record.value
        return None


class HostSlotProducer:
    """See `ports.SlotProducer`."""

    def __init__(self, brokers: Brokers, name: SlotName) -> None:
        self.name = name
        self._brokers = brokers
        self._wire = brokers.wire
        self._world = brokers.world
        self._client = IdClient(brokers, transactional_id(name))
        self._epoch = -1
        self._usable = False
        self._closed = False

    async def init(self) -> None:
        self._epoch = await self._client.init()
        self._usable = True

    async def close(self) -> None:
        self._closed = True

    async def deliver(
        self, records: Sequence[OutRecord], marker: Callable[[Sequence[Receipt]], bytes], *, sends_ms: int
    ) -> Committed:
        if not self._usable or self._closed:
            raise RuntimeError(f"{self.name} has to be initialised first")
        deadline_s = self._wire.host.loop.time() + sends_ms / 1_000 * SENDS_SCALE
        await self._preflight(records)
        transaction, coordinator = await self._begin(records, deadline_s)
        self._usable = False
        receipts, sends_ms_by_topic = await self._produce(transaction, records, deadline_s)
        began_s = self._wire.host.loop.time()
        marker_receipt = await self._produce_marker(transaction, marker(receipts), deadline_s)
        marker_ms = self._ms_since(began_s)
        settled = await self._commit(coordinator)
        self._usable = True
        return Committed(
            receipts=receipts,
            marker_offset=marker_receipt.offset,
            sends_ms=sends_ms_by_topic,
            marker_ms=marker_ms,
            settled=settled,
        )

    def _ms_since(self, began_s: float) -> int:
        return round((self._wire.host.loop.time() - began_s) * 1_000)

    # --- before the commit is asked for

    async def _preflight(self, records: Sequence[OutRecord]) -> None:
        """Metadata may be older than the truth: then the brokers refuse."""
        if self._world.rng.random() >= self._world.faults.preflight:
            return
        topics = {record.topic for record in records}
        refusals = await self._wire.ask("lookup", lambda: self._world.known_refusals(topics), timeout_s=0.5)
        if refusals:
            raise DeliveryRefused(refusals, begun=False)

    async def _begin(self, records: Sequence[OutRecord], deadline_s: float) -> tuple[Transaction, int]:
        """AddPartitions; returns the broker that took it besides."""
        world, host = self._world, self._wire.host
        partitions = {world.where(record) for record in records} | {marker_where(world, self.name)}
        epoch, silent = self._epoch, 0

        def count() -> None:
            nonlocal silent
            silent += 1

        await host.step("begin", after=False)
        try:
            begun = await self._client.ask(
                "begin",
                lambda broker: world.asked_to_begin(broker, self._client.id, epoch, partitions),
                timeout_s=deadline_s - host.loop.time(),
                on_silence=count,
            )
        except DeliveryRefused as refused:
            self._usable = silent == 0
            raise DeliveryRefused(refused.refusals, begun=silent > 0) from refused
        except BrokerUnavailable as error:
            if silent == 0:
                raise
            self._usable = False
            raise DeliveryAborted(str(error), timed_out=True) from error
        await host.step("begin", after=True)
        return begun

    async def _produce(
        self, transaction: Transaction, records: Sequence[OutRecord], deadline_s: float
    ) -> tuple[Sequence[Receipt], Mapping[str, int]]:
        """Also returns how long each topic took."""
        lines: dict[Where, list[int]] = {}
        for index, record in enumerate(records):
            lines.setdefault(self._world.where(record), []).append(index)
        receipts: dict[int, Receipt] = {}
        refusals: list[Refusal] = []
        taken_ms: dict[str, int] = {}
        for where, indices in lines.items():
            began_s = self._wire.host.loop.time()
            try:
                there = await self._produce_to("produce", transaction, where, [records[i] for i in indices], deadline_s)
            except DeliveryRefused as refused:
                refusals += [_numbered(refusal, indices) for refusal in refused.refusals]
            except Unanswered:
                refusals.append(_timed_out(where[0]))
            else:
                receipts.update(zip(indices, there, strict=True))
                taken_ms[where[0]] = taken_ms.get(where[0], 0) + self._ms_since(began_s)
        if refusals:
            # Not aborted by us: the next init does that (see the real adapter).
            await self._wire.host.step("refused", after=True)
            raise DeliveryRefused(list(dict.fromkeys(refusals)), begun=True)
        return [receipts[index] for index in range(len(records))], taken_ms

    async def _produce_marker(self, transaction: Transaction, value: bytes, deadline_s: float) -> Receipt:
        record = marker_record(self.name, value, self._wire.host.clock.now_ms())
        where = marker_where(self._world, self.name)
        try:
            (receipt,) = await self._produce_to("produce_marker", transaction, where, [record], deadline_s)
        except Unanswered:
            raise DeliveryAborted("the marker was not acknowledged in time", timed_out=True) from None
        return receipt

    async def _produce_to(
        self, what: str, transaction: Transaction, where: Where, records: list[OutRecord], deadline_s: float
    ) -> tuple[Receipt, ...]:
        """Raises: Unanswered (until the deadline), DeliveryRefused, DeliveryAborted, Fenced."""
        world, host = self._world, self._wire.host
        lost = self._wire.stalls()
        await host.step(what, after=False)
        while host.loop.time() < deadline_s:
            try:
                broker = await self._brokers.leader(where)
                if world.away.get(where[0]):
                    await asyncio.sleep(ANSWER_TIMEOUT_S)
                    continue
                receipts = await self._wire.once(
                    what,
                    partial(world.asked_to_produce, broker, transaction, where, records, host.name),
                    lost=lost,
                )
            except (Unanswered, NotHere):
                self._brokers.forget_leader(where)
                await self._wire.pause()
            except InvalidState as error:
                raise DeliveryAborted(str(error)) from error
            else:
                await host.step(what, after=True)
                return receipts
        await host.step(what, after=True)
        raise Unanswered

    # --- the commit

    async def _commit(self, coordinator: int) -> bool:
        """True if every request of it was answered; else a copy may still be on its way. Raises: DeliveryUnknown, Fenced."""
        world, host = self._world, self._wire.host
        epoch, silent = self._epoch, 0  # a late copy bears the epoch of its own time

        def count() -> None:
            nonlocal silent
            silent += 1

        await host.step("commit", after=False)
        if world.rng.random() < world.faults.commit_unanswered:
            await self._unanswered_commit(coordinator)
        try:
            _, answered_by = await self._client.ask(
                "commit",
                lambda broker: world.asked_to_commit(broker, self._client.id, epoch),
                timeout_s=COMMIT_TIMEOUT_S,
                on_silence=count,
            )
        except (BrokerUnavailable, InvalidState) as error:
            raise DeliveryUnknown(f"{self.name}: {error}") from error
        if not self._believes(answered_by, coordinator):
            raise DeliveryUnknown(f"{self.name}: broker {answered_by} has not begun this transaction")
        await host.step("commit", after=True)
        return silent == 0

    def _believes(self, answered_by: int, coordinator: int) -> bool:
        """EndTxn names no transaction: only the coordinator that took AddPartitions means this one."""
        return answered_by == coordinator

    async def _unanswered_commit(self, coordinator: int) -> None:
        """Carried out at once, much later, or never; without an answer."""
        world, epoch = self._world, self._epoch
        when_s = world.rng.choice([0.002, world.rng.uniform(0.0, 2.0), None])
        if when_s is not None:
            world.reactor.after(
                when_s,
                self._wire.carry_out,
                "commit",
                lambda: world.asked_to_commit(coordinator, self._client.id, epoch),
            )
        await asyncio.sleep(world.rng.choice([0.01, COMMIT_TIMEOUT_S]))
        raise DeliveryUnknown("the commit was not answered")


def transactional_id(name: SlotName) -> str:
    return f"{CLUSTER}-{name.incarnation}-{name.slot}"


def marker_key(name: SlotName) -> bytes:
    return marker_value.marker_key(name.incarnation, name.slot)


def marker_record(name: SlotName, value: bytes | None, at_ms: int) -> OutRecord:
    return OutRecord(topic=DELIVERIES, key=marker_key(name), value=value, headers=(), timestamp_ms=at_ms)


def marker_where(world: KafkaWorld, name: SlotName) -> Where:
    return world.where(marker_record(name, None, 0))


def _numbered(refusal: Refusal, indices: list[int]) -> Refusal:
    if refusal.index is None:
        return refusal
    return Refusal(
        cause=refusal.cause, reason=refusal.reason, destination=refusal.destination, index=indices[refusal.index]
    )


def _timed_out(topic: str) -> Refusal:
    return Refusal(cause=RefusalCause.TRANSIENT, reason="timed_out", destination=topic)
