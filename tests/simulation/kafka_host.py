"""Kafka's clients on one node: the ports `Publisher` and `ShardPublisher` over the simulated brokers.

They do what the real adapter does: repeat what may be repeated until a deadline, and say "unknown" when they do not know.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from clockwork.domain import marker as marker_value
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import Receipt
from clockwork.domain.sharding import ShardId
from clockwork.errors import BrokerUnavailable, ClockworkError, DeliveryRefused, DeliveryUnknown, Refusal, RefusalCause
from tests.simulation.host import Host
from tests.simulation.kafka_world import CLUSTER, DELIVERIES, Busy, KafkaWorld, Transaction, Where

INIT_TIMEOUT_S: Final = 1.5
SENDS_TIMEOUT_S: Final = 1.2
"""Below the transaction's time limit."""
COMMIT_TIMEOUT_S: Final = 0.6
ANSWER_TIMEOUT_S: Final = 0.25
"""After which one request counts as unanswered and is sent again."""
LATE_S_MEANS: Final = (0.02, 0.2, 1.0)

_T = TypeVar("_T")


class Wire:
    """One node's connections to the brokers."""

    def __init__(self, world: KafkaWorld, host: Host) -> None:
        self.world = world
        self.host = host

    async def ask(
        self,
        what: str,
        effect: Callable[[], _T],
        *,
        timeout_s: float,
        stalls: bool = False,
        on_send: Callable[[], None] = lambda: None,
    ) -> _T:
        """Asks until it is answered. The effect must bear being repeated. Raises: BrokerUnavailable."""
        await self.host.step(what, after=False)
        loop = self.host.loop
        deadline_s = loop.time() + timeout_s
        stalled = stalls and self.world.rng.random() < self.world.faults.stalled
        while loop.time() < deadline_s:
            answered: asyncio.Future[_T | ClockworkError | Busy | None] = loop.create_future()
            on_send()
            self._send(what, effect, answered, lost=stalled)
            answer = await answered
            if answer is None:
                continue
            if isinstance(answer, Busy):
                await asyncio.sleep(self.host.rng.uniform(0.001, 0.02))
                continue
            await self.host.step(what, after=True)
            if isinstance(answer, ClockworkError):
                raise answer
            return answer
        await self.host.step(what, after=True)
        raise BrokerUnavailable(f"{what} was not answered in time")

    def _send(
        self,
        what: str,
        effect: Callable[[], _T],
        answered: "asyncio.Future[_T | ClockworkError | Busy | None]",
        *,
        lost: bool,
    ) -> None:
        world, rng = self.world, self.world.rng
        arrives_s = self._latency_s()
        if forced := world.forced.get(what):
            world.reactor.after(ANSWER_TIMEOUT_S, self._tell, answered, None)
            world.reactor.after(forced.pop(0), self.carry_out, what, effect)
            return
        dice = rng.random()
        if lost or not self.host.reaches_kafka or world.down or (dice := dice - world.faults.request_lost) < 0:
            world.reactor.after(ANSWER_TIMEOUT_S, self._tell, answered, None)
        elif (dice := dice - world.faults.answer_lost) < 0:
            world.reactor.after(arrives_s, self.carry_out, what, effect)
            world.reactor.after(ANSWER_TIMEOUT_S, self._tell, answered, None)
        elif dice < world.faults.late:
            world.reactor.after(ANSWER_TIMEOUT_S, self._tell, answered, None)
            world.reactor.after(
                ANSWER_TIMEOUT_S + rng.expovariate(1 / rng.choice(LATE_S_MEANS)), self.carry_out, what, effect
            )
        else:
            world.reactor.after(arrives_s, self._arrive, what, effect, answered)

    def _arrive(
        self, what: str, effect: Callable[[], _T], answered: "asyncio.Future[_T | ClockworkError | Busy | None]"
    ) -> None:
        answer = self.carry_out(what, effect)
        if self.host.reaches_kafka:
            self.world.reactor.after(self._latency_s(), self._tell, answered, answer)
        else:
            self.world.reactor.after(ANSWER_TIMEOUT_S, self._tell, answered, None)

    def carry_out(self, what: str, effect: Callable[[], _T]) -> _T | ClockworkError | Busy:
        try:
            answer: _T | ClockworkError | Busy = effect()
        except (ClockworkError, Busy) as error:
            answer = error
        self.world.trace.note("kafka", self.host, what, answer)
        return answer

    def _tell(
        self,
        answered: "asyncio.Future[_T | ClockworkError | Busy | None]",
        answer: _T | ClockworkError | Busy | None,
    ) -> None:
        if not answered.done():
            answered.set_result(answer)

    def _latency_s(self) -> float:
        mean_s = self.world.faults.latency_s * (15 if self.world.slow else 1)
        return mean_s * (0.2 + self.world.rng.expovariate(1.25))


class HostPublisher:
    """See `ports.Publisher`."""

    def __init__(self, world: KafkaWorld, host: Host) -> None:
        self.world = world
        self._host = host
        self._wire = Wire(world, host)

    async def open_shard(self, shard: ShardId) -> "HostShardPublisher":
        publisher = HostShardPublisher(self._wire, shard)
        await publisher.init()
        return publisher

    async def send(self, record: OutRecord) -> Receipt:
        world = self.world
        if refusals := world.known_refusals({record.topic}):
            raise DeliveryRefused(refusals, begun=False)
        if world.away.get(record.topic):
            await asyncio.sleep(SENDS_TIMEOUT_S)
            raise BrokerUnavailable(f"{record.topic} has no leader")
        receipt: list[Receipt] = []

        def append() -> Receipt:
            # The same batch again is recognised by its sequence number.
            if not receipt:
                receipt.append(world.send(record, self._host.name))
            return receipt[0]

        try:
            return await self._wire.ask("send", append, timeout_s=SENDS_TIMEOUT_S, stalls=True)
        except DeliveryRefused as refused:
            raise DeliveryRefused(refused.refusals, begun=False) from refused

    async def topic_exists(self, topic: str) -> bool:
        return await self._wire.ask(
            "lookup", lambda: (topic, 0) in self.world.logs and not self.world.missing.get(topic), timeout_s=0.5
        )

    def connected(self) -> bool:
        return self._host.reaches_kafka and not self.world.down


class HostShardPublisher:
    """See `ports.ShardPublisher`."""

    def __init__(self, wire: Wire, shard: ShardId) -> None:
        self.shard = shard
        self._wire = wire
        self._world = wire.world
        self._id = f"{CLUSTER}-shard-{shard}"
        self._epoch = -1
        self._usable = False

    async def init(self) -> None:
        self._epoch = await self._wire.ask("init", lambda: self._world.init(self._id), timeout_s=INIT_TIMEOUT_S)
        self._usable = True

    async def read_marker(self) -> tuple[MarkerEntry, ...]:
        where = (DELIVERIES, int(self.shard))
        end = await self._wire.ask("read_marker", lambda: len(self._world.logs[where]), timeout_s=INIT_TIMEOUT_S)

        def read() -> tuple[bytes | None]:
            if self._world.stable_end(where) < end:
                raise Busy
            return (self._world.last_marker(self.shard, end),)

        (value,) = await self._wire.ask("read_marker", read, timeout_s=INIT_TIMEOUT_S)
        return () if value is None else marker_value.decode(value)

    async def close(self) -> None:
        self._usable = False

    async def deliver(
        self, records: Sequence[OutRecord], marker: Callable[[Sequence[Receipt]], bytes]
    ) -> Sequence[Receipt]:
        if not self._usable:
            raise DeliveryUnknown("this shard's producer is spent or closed")
        await self._preflight(records)
        self._usable = False
        loop = self._wire.host.loop
        deadline_s = loop.time() + SENDS_TIMEOUT_S
        try:
            transaction = await self._begin(records)
            receipt = await self._produce(transaction, records, deadline_s)
            await self._produce_marker(transaction, marker(receipt), deadline_s)
            self._usable = await self._commit()
        except BrokerUnavailable as error:
            raise DeliveryUnknown(f"{self._id}: {error}") from error
        return receipt

    async def _preflight(self, records: Sequence[OutRecord]) -> None:
        """Metadata may be older than the truth: then the brokers refuse."""
        if self._world.rng.random() >= self._world.faults.preflight:
            return
        topics = {record.topic for record in records}
        refusals = await self._wire.ask("lookup", lambda: self._world.known_refusals(topics), timeout_s=0.5)
        if refusals:
            raise DeliveryRefused(refusals, begun=False)

    async def _begin(self, records: Sequence[OutRecord]) -> Transaction:
        topics = {record.topic for record in records}
        try:
            return await self._wire.ask(
                "begin", lambda: self._world.begin(self._id, self._epoch, topics), timeout_s=SENDS_TIMEOUT_S
            )
        except DeliveryRefused as refused:
            self._usable = True
            raise DeliveryRefused(refused.refusals, begun=False) from refused

    async def _produce(
        self, transaction: Transaction, records: Sequence[OutRecord], deadline_s: float
    ) -> Sequence[Receipt]:
        lines: dict[Where, list[int]] = {}
        for index, record in enumerate(records):
            lines.setdefault(self._world.where(record), []).append(index)
        receipt: dict[int, Receipt] = {}
        refusals: list[Refusal] = []
        for where, indices in lines.items():
            try:
                there = await self._produce_to(transaction, where, [records[i] for i in indices], deadline_s)
            except DeliveryRefused as refused:
                refusals += [_numbered(refusal, indices) for refusal in refused.refusals]
            else:
                receipt.update(zip(indices, there, strict=True))
        if refusals:
            # Not aborted by us: the next init does that (see the real adapter).
            await self._wire.host.step("refused", after=True)
            raise DeliveryRefused(list(dict.fromkeys(refusals)), begun=True)
        return [receipt[index] for index in range(len(records))]

    async def _produce_to(
        self, transaction: Transaction, where: Where, records: list[OutRecord], deadline_s: float
    ) -> tuple[Receipt, ...]:
        away = bool(self._world.away.get(where[0]))
        left_s = max(0.01, deadline_s - self._wire.host.loop.time())
        if away:
            await asyncio.sleep(left_s)
            raise DeliveryRefused([_away(where[0])], begun=True)
        name = self._wire.host.name
        try:
            return await self._wire.ask(
                "produce",
                lambda: self._world.produce(transaction, where, records, name),
                timeout_s=left_s,
                stalls=True,
            )
        except BrokerUnavailable as error:
            if self._world.rng.random() < 0.5:
                raise DeliveryUnknown("time ran out before the commit", timed_out=True) from error
            raise DeliveryRefused([_away(where[0])], begun=True) from error

    async def _produce_marker(self, transaction: Transaction, value: bytes, deadline_s: float) -> None:
        record = OutRecord(
            topic=DELIVERIES,
            key=marker_value.KEY,
            value=value,
            headers=(),
            timestamp_ms=self._wire.host.clock.now_ms(),
        )
        where, name = (DELIVERIES, int(self.shard)), self._wire.host.name
        await self._wire.ask(
            "produce_marker",
            lambda: self._world.produce(transaction, where, [record], name),
            timeout_s=max(0.01, deadline_s - self._wire.host.loop.time()),
            stalls=True,
        )

    async def _commit(self) -> bool:
        """True if the only request for it was answered; else a copy may still be on its way."""
        asked = 0

        def commit() -> bool:
            self._world.commit(self._id, self._epoch)
            return True

        def count() -> None:
            nonlocal asked
            asked += 1

        if self._world.rng.random() < self._world.faults.commit_unanswered:
            await self._unanswered_commit(commit)
        await self._wire.ask("commit", commit, timeout_s=COMMIT_TIMEOUT_S, on_send=count)
        return asked == 1

    async def _unanswered_commit(self, commit: Callable[[], bool]) -> None:
        """Carried out at once, much later, or never; without an answer."""
        world = self._world
        when_s = world.rng.choice([0.002, world.rng.uniform(0.0, 2.0), None])
        if when_s is not None:
            world.reactor.after(when_s, self._wire.carry_out, "commit", commit)
        await asyncio.sleep(world.rng.choice([0.01, COMMIT_TIMEOUT_S]))
        raise BrokerUnavailable("the commit was not answered")


def _numbered(refusal: Refusal, indices: list[int]) -> Refusal:
    if refusal.index is None:
        return refusal
    return Refusal(
        cause=refusal.cause, reason=refusal.reason, destination=refusal.destination, index=indices[refusal.index]
    )


def _away(topic: str) -> Refusal:
    return Refusal(cause=RefusalCause.TRANSIENT, reason="leader_unavailable", destination=topic)
