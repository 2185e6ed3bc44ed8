"""Kafka transactions: the producer of one slot, and the transactional id that it stands for.

    new ──init──► ready ──deliver──► ready     committed for certain, or nothing was begun
                    │
                    └─────deliver──► spent     anything else; also a commit that took more than one request
    spent ──init──► ready                      R1 (docs/design.md, 5): the id gets a new producer epoch
    any ──close──► closed

A delivery is four requests: AddPartitionsToTxn, with the marker's Kafka partition among them; the records; the marker,
which knows their offsets; EndTxn. Until EndTxn is sent the transaction has not happened, and the next init aborts it. After
that, only the slot's last marker can tell, once an init has settled the transaction.

Never aborted by EndTxn: a produce request may still be on its way, and a record that lands behind an abort of the same
producer epoch would stay open for ever (KIP-890). An init bumps the epoch first, so that nothing of ours that is on its way
is taken, and then aborts; or it waits for a commit that was asked for.

Which EndTxn is believed. The request names no transaction (before its version 5), so a coordinator that was deposed answers
with the success of the *previous* one, from its memory, and the rows of this one would be lost. It cannot have taken this
transaction's AddPartitionsToTxn, which it would have had to write to its log. So success counts only from the broker that
took that request. That none went unanswered proves nothing: NOT_COORDINATOR is an answer, and the search for the next
coordinator may end at a deposed one.

AddPartitionsToTxn is all or nothing (KIP-98; version 0 of the request), so a refusal of it leaves nothing begun, if no
earlier attempt of it went unanswered.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest

from clockwork.concurrency import Backoff
from clockwork.domain.marker import marker_key
from clockwork.domain.record import OutRecord
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.schedule import Receipt
from clockwork.errors import (
    BrokerUnavailable,
    DeliveryAborted,
    DeliveryRefused,
    DeliveryUnknown,
    Fenced,
    Refusal,
)
from clockwork.kafka import codes
from clockwork.kafka.client import RNG, KafkaContext, Wire
from clockwork.kafka.marker import MarkerTopic
from clockwork.kafka.send import (
    NO_ANSWER,
    NOT_SENT_YET,
    TOPIC_REASONS,
    BatchSender,
    PartitionQueue,
    ProduceFailed,
    ProducerIdentity,
    TopicPartition,
    Transfer,
    find_missing,
    not_writable_reason,
    partition_for,
    record_refusal,
    refusal_by_code,
    refusal_by_layout,
    too_large,
    transient_refusal,
)
from clockwork.kafka.topics import TopicDirectory, TopicLayout
from clockwork.ports.delivery import Committed, SlotName

BACKOFF: Final = BackoffPolicy(initial_ms=1, max_ms=50)
"""The wait behind another transaction of the id, whose end the broker is still writing: mostly one or two ms."""
LAYOUT_AGE_S_MAX: Final = 1.0
"""The oldest metadata about leaders and replicas that a delivery believes."""
YIELD_EVERY_RECORDS: Final = 200
"""Heartbeats share the event loop: after so many records other tasks run."""


class _Attempts:
    """The attempts of one request to the coordinator, and the back-off between them."""

    def __init__(self) -> None:
        self.unanswered = 0
        """Number of attempts without an answer: each may have been carried out, or may still be."""
        self.answered_by = -1
        """The node id of the broker that gave the last answer."""
        self.last_error: BrokerUnavailable | None = None
        self._backoff = Backoff(RNG, BACKOFF)

    async def wait(self) -> None:
        await self._backoff.wait()

    def __str__(self) -> str:
        return f" ({self.last_error})" if self.last_error else ""


class TransactionalId:
    """One transactional id, and requests about it to its present coordinator."""

    def __init__(self, kafka: KafkaContext, wire: Wire, name: str) -> None:
        self.name = name
        self._timeouts = kafka.timeouts
        self._wire = wire
        self._coordinator: int | None = None

    async def init(self) -> ProducerIdentity:
        """Fences every earlier producer of this id and waits until its transaction is settled; repeated until this call
        itself succeeds, though others overtake it.

        Raises: BrokerUnavailable.
        """
        attempts = _Attempts()
        try:
            async with asyncio.timeout(self._timeouts.init_ms / 1_000):
                return await self._init(attempts)
        except TimeoutError as error:
            # The brokers that these connections know may all have moved.
            await self._wire.reset()
            raise BrokerUnavailable(f"init of {self.name} was not answered in time{attempts}") from error

    async def _init(self, attempts: _Attempts) -> ProducerIdentity:
        request = InitProducerIdRequest(self.name, self._timeouts.transaction_ms)
        while True:
            answer = await self.ask(request, attempts)
            code = answer.error_code
            if code == codes.NONE:
                return ProducerIdentity(
                    producer_id=answer.producer_id, producer_epoch=answer.producer_epoch, transactional_id=self.name
                )
            # PRODUCER_FENCED: another init of this id overtook ours; the next try fences that one.
            if code not in (codes.CONCURRENT_TRANSACTIONS, *codes.FENCED):
                raise BrokerUnavailable(f"init of {self.name}: error code {code}")
            await attempts.wait()

    async def ask(self, request: Any, attempts: _Attempts) -> Any:
        """Asks the coordinator until it answers. The caller bounds the time."""
        while True:
            try:
                if self._coordinator is None:
                    self._coordinator = await self._wire.find_coordinator(self.name)
                if self._coordinator is not None:
                    attempts.unanswered += 1
                    answer = await self._wire.request(request, node_id=self._coordinator, coordinator=True)
                    attempts.unanswered -= 1
                    attempts.answered_by = self._coordinator
                    if not codes.COORDINATOR_AWAY & _codes_in(answer):
                        return answer
            except BrokerUnavailable as error:
                # The error is not raised here: the caller's time limit ends the attempts, and the caller's error then
                # names this one.
                attempts.last_error = error
            self._coordinator = None
            await attempts.wait()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Begun:
    """A transaction whose Kafka partitions were added."""

    coordinator: int
    """The node id of the broker that took them: the one whose success of the commit counts."""
    settled: bool
    """False if an attempt to add them went unanswered: a late copy would begin another transaction behind the commit, which
    the broker would abort by its time limit, and fence the producer with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sent:
    """The records and the marker of a transaction, all acknowledged."""

    receipts: Sequence[Receipt]
    sends_ms: Mapping[str, int]
    marker: Receipt
    marker_ms: int


class KafkaSlotProducer:
    """See `ports.SlotProducer`. Not for two deliveries at once."""

    def __init__(
        self,
        kafka: KafkaContext,
        directory: TopicDirectory,
        wire: Wire,
        markers: MarkerTopic,
        name: SlotName,
        now_ms: Callable[[], int],
        *,
        on_close: Callable[["KafkaSlotProducer"], None],
    ) -> None:
        self._timeouts = kafka.timeouts
        self._directory = directory
        self._markers = markers
        self._marker_key = marker_key(name.incarnation, name.slot)
        self._now_ms = now_ms
        self._on_close = on_close
        self._id = TransactionalId(kafka, wire, kafka.settings.transactional_id(name.incarnation, name.slot))
        self._wire = wire
        self._sender = BatchSender(kafka, wire, directory)
        self._identity = ProducerIdentity(producer_id=-1, producer_epoch=-1)
        self._usable = False
        self._closed = False

    async def init(self) -> None:
        if self._closed:
            raise BrokerUnavailable(f"{self._id.name}: closed")
        self._usable = False
        self._identity = await self._id.init()
        self._usable = not self._closed

    async def close(self) -> None:
        self._usable = False
        self._closed = True
        self._on_close(self)
        await self._wire.close()

    async def deliver(
        self, records: Sequence[OutRecord], marker: Callable[[Sequence[Receipt]], bytes], *, sends_ms: int
    ) -> Committed:
        if not 0 < sends_ms < self._timeouts.transaction_ms:
            raise ValueError(f"{sends_ms=} must be above 0 and below the broker's own limit for a transaction")
        if not self._usable:
            raise DeliveryAborted(f"{self._id.name} must be initialised first")
        try:
            async with asyncio.timeout(sends_ms / 1_000):
                queues, own = await self._preflight(records)
        except TimeoutError as error:
            raise BrokerUnavailable("the topics' state could not be read in time") from error
        # Spent until the outcome is known, so that a delivery that is cancelled leaves the producer spent.
        self._usable = False
        deadline_s = asyncio.get_running_loop().time() + sends_ms / 1_000
        try:
            begun = await self._begin([*queues, own], deadline_s)
        except _NotBegun as refused:
            self._usable = True
            raise self._refused(refused.refusals, own, begun=False) from refused
        sent = await self._send_all(queues, len(records), own, marker, deadline_s, sends_ms)
        settled = await self._commit(begun)
        self._usable = settled
        return Committed(
            receipts=sent.receipts,
            marker_offset=sent.marker.offset,
            sends_ms=sent.sends_ms,
            marker_ms=sent.marker_ms,
            settled=settled,
        )

    # --- before anything is begun

    async def _preflight(
        self, records: Sequence[OutRecord]
    ) -> tuple[dict[TopicPartition, PartitionQueue], TopicPartition]:
        """Refuses, without a transaction, topics that are missing or not writable, and records that are too large; then
        decides where each record goes, and the marker. Raises: DeliveryRefused, BrokerUnavailable."""
        now_s = asyncio.get_running_loop().time()
        layouts, own = await self._layouts({record.topic for record in records}, now_s)
        refusals = [refusal for topic, layout in layouts.items() if (refusal := refusal_by_layout(topic, layout))]
        bad_topics = {refusal.destination for refusal in refusals}
        queues: dict[TopicPartition, PartitionQueue] = {}
        for index, record in enumerate(records):
            if index % YIELD_EVERY_RECORDS == YIELD_EVERY_RECORDS - 1:
                await asyncio.sleep(0)
            if record.topic in bad_topics:
                continue
            if await too_large(self._directory, record, since_s=now_s):
                refusals.append(record_refusal(index, record.topic, codes.MESSAGE_TOO_LARGE))
                continue
            where = (record.topic, partition_for(record, layouts[record.topic]))
            if where not in queues:
                if refusal := await not_writable_reason(self._directory, where, layouts[record.topic]):
                    refusals.append(refusal)
                    bad_topics.add(record.topic)
                limits = await self._directory.limits(record.topic)
                queues[where] = PartitionQueue(where, limit_bytes=limits.record_bytes_max)
            queues[where].append(index, record)
        if refusals:
            raise DeliveryRefused(refusals, begun=False)
        return queues, own

    async def _layouts(self, topics: set[str], now_s: float) -> tuple[Mapping[str, TopicLayout], TopicPartition]:
        """The topics' layouts, at most a second old (one request a second for all slots of the node), because the
        coordinator must not be left with a Kafka partition that cannot be written (`not_writable_reason`); those that
        refuse a topic are read anew. With them the Kafka partition of the markers, which must be writable, too."""
        layouts = dict(await self._directory.layouts({*topics, self._markers.name}, since_s=now_s - LAYOUT_AGE_S_MAX))
        if refused := [topic for topic, layout in layouts.items() if refusal_by_layout(topic, layout)]:
            layouts |= await self._directory.layouts(refused, since_s=now_s)
        layout = layouts[self._markers.name] if self._markers.name in topics else layouts.pop(self._markers.name)
        own = self._markers.place(self._marker_key, layout)
        if refusal := await not_writable_reason(self._directory, own, layout):
            raise BrokerUnavailable(f"{own[0]}/{own[1]}: {refusal.reason}")
        return layouts, own

    # --- before the commit

    async def _begin(self, wanted: Iterable[TopicPartition], deadline_s: float) -> _Begun:
        """Adds the Kafka partitions. Raises: _NotBegun, DeliveryRefused, DeliveryAborted, Fenced."""
        unknown: set[str] = set()
        try:
            async with asyncio.timeout_at(deadline_s):
                return await self._add_partitions(wanted, unknown)
        except TimeoutError as error:
            if unknown:
                refusals = [transient_refusal(topic, codes.UNKNOWN_TOPIC_OR_PARTITION) for topic in sorted(unknown)]
                raise DeliveryRefused(refusals, begun=True) from error
            raise DeliveryAborted("time ran out before the commit", timed_out=True) from error

    async def _add_partitions(self, wanted: Iterable[TopicPartition], unknown: set[str]) -> _Begun:
        """Adds the Kafka partitions. Keeps `unknown` up to date: the topics that the coordinator's broker does not
        know, although they exist."""
        wanted = list(wanted)
        topics: dict[str, list[int]] = defaultdict(list)
        for topic, number in wanted:
            topics[topic].append(number)
        identity = self._identity
        request = AddPartitionsToTxnRequest(
            self._id.name, identity.producer_id, identity.producer_epoch, list(topics.items())
        )
        loop = asyncio.get_running_loop()
        attempts = _Attempts()
        while True:
            asked_at_s = loop.time()
            answer = await self._id.ask(request, attempts)
            found = {(topic, code) for topic, numbers in answer.errors for _number, code in numbers}
            given = {code for _topic, code in found} - {codes.NONE, codes.OPERATION_NOT_ATTEMPTED}
            if not given:
                return _Begun(coordinator=attempts.answered_by, settled=attempts.unanswered == 0)
            if given & codes.FENCED:
                raise Fenced(f"{self._id.name}: fenced")
            refusals = [refusal_by_code(topic, code) for topic, code in sorted(found) if code in TOPIC_REASONS]
            unknown.clear()
            unknown |= {topic for topic, code in found if code == codes.UNKNOWN_TOPIC_OR_PARTITION}
            if unknown:
                refusals += await find_missing(self._directory, unknown, since_s=asked_at_s)
            if refusals:
                if attempts.unanswered == 0:
                    raise _NotBegun(refusals)
                raise self._refused(refusals, wanted[-1], begun=True)
            if not given <= {codes.CONCURRENT_TRANSACTIONS, codes.UNKNOWN_TOPIC_OR_PARTITION}:
                raise DeliveryAborted(f"{self._id.name}: not added, error codes {sorted(given)}")
            await attempts.wait()

    def _refused(self, refusals: Sequence[Refusal], own: TopicPartition, *, begun: bool) -> Exception:
        """The error for topics that the coordinator refused. The topic of the markers is no destination of a schedule."""
        if all(refusal.destination != own[0] for refusal in refusals):
            return DeliveryRefused(list(dict.fromkeys(refusals)), begun=begun)
        message = f"{self._id.name}: the topic of the markers was refused: {refusals}"
        return DeliveryAborted(message) if begun else BrokerUnavailable(message)

    async def _send_all(
        self,
        queues: Mapping[TopicPartition, PartitionQueue],
        count: int,
        own: TopicPartition,
        marker: Callable[[Sequence[Receipt]], bytes],
        deadline_s: float,
        sends_ms: int,
    ) -> _Sent:
        """The records, then the marker. Raises: DeliveryRefused (begun), DeliveryAborted, Fenced."""
        receipts: dict[int, Receipt] = {}
        refusals: list[Refusal] = []
        transfer = self._transfer(queues, sends_ms, receipts, refusals)
        try:
            async with asyncio.timeout_at(deadline_s):
                await self._run(transfer)
        except TimeoutError as error:
            refusals += await transfer.attribute_timeout()
            if not refusals:
                raise DeliveryAborted("time ran out before the commit", timed_out=True) from error
        if refusals:
            raise DeliveryRefused(list(dict.fromkeys(refusals)), begun=True)
        in_order = [receipts[index] for index in range(count)]
        where, marker_ms = await self._send_marker(own, marker(in_order), deadline_s, sends_ms)
        return _Sent(receipts=in_order, sends_ms=transfer.acknowledged_ms, marker=where, marker_ms=marker_ms)

    async def _send_marker(
        self, own: TopicPartition, value: bytes, deadline_s: float, sends_ms: int
    ) -> tuple[Receipt, int]:
        queue = PartitionQueue(own, limit_bytes=None)
        record = OutRecord(topic=own[0], key=self._marker_key, value=value, headers=(), timestamp_ms=self._now_ms())
        queue.append(0, record)
        receipts: dict[int, Receipt] = {}
        refusals: list[Refusal] = []
        transfer = self._transfer({own: queue}, sends_ms, receipts, refusals)
        try:
            async with asyncio.timeout_at(deadline_s):
                await self._run(transfer)
        except TimeoutError as error:
            # The leader of the markers' Kafka partition is away: a smaller batch would not help.
            too_much = queue.last_code in (NO_ANSWER, NOT_SENT_YET)
            raise DeliveryAborted(f"{own[0]}/{own[1]}: no marker in time", timed_out=too_much) from error
        if refusals:
            raise DeliveryAborted(f"the marker was refused: {refusals[0].reason}")
        return receipts[0], transfer.acknowledged_ms[own[0]]

    def _transfer(
        self,
        queues: Mapping[TopicPartition, PartitionQueue],
        sends_ms: int,
        receipts: dict[int, Receipt],
        refusals: list[Refusal],
    ) -> Transfer:
        return Transfer(
            self._sender,
            self._directory,
            self._identity,
            queues,
            backoff=BACKOFF,
            on_receipt=receipts.__setitem__,
            on_refusal=refusals.append,
            patience_ms=sends_ms,
        )

    async def _run(self, transfer: Transfer) -> None:
        """Raises: Fenced, DeliveryAborted."""
        try:
            await transfer.run()
        except ProduceFailed as failed:
            if failed.code in codes.FENCED:
                raise Fenced(f"{self._id.name}: fenced, or aborted by the broker's time limit") from failed
            raise DeliveryAborted(f"{self._id.name}: {failed}") from failed

    # --- the commit

    async def _commit(self, begun: _Begun) -> bool:
        """Commits. Returns True if no request of the transaction can still be under way. Otherwise this producer must
        not begin the next transaction, since a late copy of EndTxn would commit a part of it."""
        attempts = _Attempts()
        try:
            async with asyncio.timeout(self._timeouts.commit_ms / 1_000):
                await self._end(begun, attempts)
        except TimeoutError as error:
            raise DeliveryUnknown(f"{self._id.name}: the commit was not answered{attempts}") from error
        return begun.settled and attempts.unanswered == 0

    async def _end(self, begun: _Begun, attempts: _Attempts) -> None:
        """Raises: DeliveryUnknown, Fenced."""
        identity = self._identity
        request = EndTxnRequest(self._id.name, identity.producer_id, identity.producer_epoch, 1)
        while (code := (await self._id.ask(request, attempts)).error_code) == codes.CONCURRENT_TRANSACTIONS:
            await attempts.wait()
        if attempts.answered_by != begun.coordinator:
            # The answers of another coordinator prove nothing, neither success nor refusal: R1 finds out.
            raise DeliveryUnknown(
                f"{self._id.name}: the commit was answered by broker {attempts.answered_by} (error code {code}), which may "
                f"have been deposed: broker {begun.coordinator} took the transaction"
            )
        if code in codes.FENCED:
            raise Fenced(f"{self._id.name}: fenced, or aborted by the broker's time limit")
        if code != codes.NONE:
            raise DeliveryUnknown(f"{self._id.name}: not ended, error code {code}")


class _NotBegun(Exception):
    """The coordinator refused to add the Kafka partitions, and no earlier attempt can have added some: no transaction is
    open."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        super().__init__()
        self.refusals = refusals


def _codes_in(answer: Any) -> set[int]:
    """All error codes of a coordinator's answer."""
    if hasattr(answer, "error_code"):
        return {answer.error_code}
    return {code for _topic, kafka_partitions in answer.errors for _number, code in kafka_partitions}
