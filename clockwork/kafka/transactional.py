"""One shard's Kafka transactions: ShardPublisher.

    open ──deliver──► open                       committed, or refused before anything was begun
      │
      └──deliver──► spent ──close──► closed      refused after begin, outcome unknown, or fenced

A delivery is four requests: AddPartitionsToTxn, with the marker's Kafka partition among them; the records; the marker,
which knows their offsets; EndTxn. The transaction coordinator is authoritative. An outcome without an answer is unknown,
and the next init settles it: it bumps the producer epoch, so that nothing of ours that is still on its way is taken,
and aborts an open transaction, or waits for a commit that was asked for.

EndTxn is repeated after a lost answer: the coordinator answers a repeat of a done commit with success, and one
that belongs to an older epoch with a refusal. AddPartitionsToTxn is all or nothing (KIP-98; version 0 of the request),
so a refusal of it leaves nothing begun, if no earlier attempt of it went unanswered.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest

from clockwork.concurrency import Backoff
from clockwork.domain import marker as marker_value
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.record import OutRecord
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.schedule import Receipt
from clockwork.domain.sharding import ShardId
from clockwork.errors import BrokerUnavailable, DeliveryRefused, DeliveryUnknown, Fenced, Refusal
from clockwork.kafka import codes
from clockwork.kafka.client import RNG, KafkaContext, Wire
from clockwork.kafka.marker import MarkerReader
from clockwork.kafka.send import (
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
)
from clockwork.kafka.topics import TopicDirectory, TopicLayout, TopicState

BACKOFF: Final = BackoffPolicy(initial_ms=1, max_ms=50)
"""The wait behind another transaction of ours, whose end the broker is still writing: mostly one or two ms."""
LAYOUT_AGE_S_MAX: Final = 1.0
"""The oldest metadata about leaders and replicas that a delivery believes."""
YIELD_EVERY_RECORDS: Final = 200
"""Heartbeats share the event loop: after so many records other tasks run."""


class _Attempts:
    """The attempts of one request to the coordinator, and the back-off between them."""

    def __init__(self) -> None:
        self.unanswered = 0
        """Attempts that may have been carried out without our knowing."""
        self.last_error: BrokerUnavailable | None = None
        self._backoff = Backoff(RNG, BACKOFF)

    async def wait(self) -> None:
        await self._backoff.wait()

    def __str__(self) -> str:
        return f" ({self.last_error})" if self.last_error else ""


class KafkaShardPublisher:
    """See `ports.ShardPublisher`. Not for two deliveries at once."""

    def __init__(
        self,
        kafka: KafkaContext,
        directory: TopicDirectory,
        wire: Wire,
        shard: ShardId,
        now_ms: Callable[[], int],
        *,
        on_close: Callable[["KafkaShardPublisher"], None],
    ) -> None:
        self._timeouts = kafka.timeouts
        self._own: TopicPartition = (kafka.settings.deliveries_topic, int(shard))
        """The Kafka partition of the shard's markers."""
        self._directory = directory
        self._shard = shard
        self._now_ms = now_ms
        self._on_close = on_close
        self._transactional_id = kafka.settings.transactional_id(shard)
        self._wire = wire
        self._sender = BatchSender(kafka, wire, directory)
        self._identity = ProducerIdentity(producer_id=-1, producer_epoch=-1)
        self._coordinator: int | None = None
        self._usable = False

    # --- take-over

    async def init(self) -> None:
        """Fences every earlier producer of this shard and waits until its transaction is settled.

        Raises: BrokerUnavailable.
        """
        attempts = _Attempts()
        try:
            async with asyncio.timeout(self._timeouts.init_ms / 1_000):
                self._identity = await self._init(attempts)
        except TimeoutError as error:
            raise BrokerUnavailable(f"init of {self._transactional_id} was not answered in time{attempts}") from error
        self._usable = True

    async def read_marker(self) -> tuple[MarkerEntry, ...]:
        reader = MarkerReader(self._wire, self._directory, topic=self._own[0], shard=self._shard)
        value = await reader.read_last(timeout_s=self._timeouts.init_ms / 1_000)
        # Beside the event loop: the longest one takes 10 ms, and a node that starts reads one for each shard.
        return () if value is None else await asyncio.to_thread(marker_value.decode, value)

    async def close(self) -> None:
        self._usable = False
        self._on_close(self)
        await self._wire.close()

    async def _init(self, attempts: _Attempts) -> ProducerIdentity:
        request = InitProducerIdRequest(self._transactional_id, self._timeouts.transaction_ms)
        while True:
            answer = await self._ask(request, attempts)
            code = answer.error_code
            if code == codes.NONE:
                return ProducerIdentity(
                    producer_id=answer.producer_id,
                    producer_epoch=answer.producer_epoch,
                    transactional_id=self._transactional_id,
                )
            # PRODUCER_FENCED: another init of this id overtook ours; the next try fences that one.
            if code not in (codes.CONCURRENT_TRANSACTIONS, *codes.FENCED):
                raise BrokerUnavailable(f"init of {self._transactional_id}: error code {code}")
            await attempts.wait()

    # --- delivery

    async def deliver(
        self, records: Sequence[OutRecord], marker: Callable[[Sequence[Receipt]], bytes]
    ) -> Sequence[Receipt]:
        if not self._usable:
            raise DeliveryUnknown("this shard's producer is spent or closed")
        try:
            async with asyncio.timeout(self._timeouts.sends_ms / 1_000):
                queues = await self._preflight(records)
        except TimeoutError as error:
            raise BrokerUnavailable("the topics' state could not be read in time") from error
        self._usable = False  # until its outcome is known: a cancelled delivery leaves it so
        deadline_s = asyncio.get_running_loop().time() + self._timeouts.sends_ms / 1_000
        try:
            receipts = await self._send_all(queues, len(records), marker, deadline_s)
        except _NotBegun as refused:
            self._usable = True
            raise DeliveryRefused(refused.refusals, begun=False) from refused
        except BrokerUnavailable as error:
            raise DeliveryUnknown(f"{self._transactional_id}: {error}") from error
        self._usable = await self._commit()
        return receipts

    async def _preflight(self, records: Sequence[OutRecord]) -> dict[TopicPartition, PartitionQueue]:
        """Refuses, without a transaction, topics that are missing or not writable, and records that are too large; then
        decides where each record goes. Raises: DeliveryRefused, BrokerUnavailable."""
        now_s = asyncio.get_running_loop().time()
        layouts = await self._layouts({record.topic for record in records}, now_s)
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
        return queues

    async def _layouts(self, topics: set[str], now_s: float) -> Mapping[str, TopicLayout]:
        """The topics' layouts, at most a second old (one request a second for all shards of the node), because the
        coordinator must not be left with a Kafka partition that cannot be written (`not_writable_reason`); those that
        refuse a topic are read anew."""
        own_topic, own_number = self._own
        layouts = dict(await self._directory.layouts({*topics, own_topic}, since_s=now_s - LAYOUT_AGE_S_MAX))
        if refused := [topic for topic, layout in layouts.items() if refusal_by_layout(topic, layout)]:
            layouts |= await self._directory.layouts(refused, since_s=now_s)
        layout = layouts[own_topic] if own_topic in topics else layouts.pop(own_topic)
        if layout.state is not TopicState.PRESENT or own_number >= len(layout.leaders):
            raise BrokerUnavailable(f"{own_topic} is {layout.state} or has too few Kafka partitions")
        if refusal := await not_writable_reason(self._directory, self._own, layout):
            raise BrokerUnavailable(f"{own_topic}/{own_number}: {refusal.reason}")
        return layouts

    async def _send_all(
        self,
        queues: Mapping[TopicPartition, PartitionQueue],
        count: int,
        marker: Callable[[Sequence[Receipt]], bytes],
        deadline_s: float,
    ) -> Sequence[Receipt]:
        """Everything before the commit. Raises: DeliveryRefused (begun), DeliveryUnknown, Fenced, _NotBegun."""
        receipts: dict[int, Receipt] = {}
        refusals: list[Refusal] = []
        transfer = self._transfer(queues, receipts, refusals)
        try:
            async with asyncio.timeout_at(deadline_s):
                await self._add_partitions([*queues, self._own])
                await self._run(transfer)
                if not refusals:
                    in_order = [receipts[index] for index in range(count)]
                    await self._send_marker(marker(in_order))
                    return in_order
        except _NotBegun:
            raise
        except _Refused as refused:
            refusals += refused.refusals
        except TimeoutError as error:
            refusals += await transfer.attribute_timeout()
            if not refusals:
                raise DeliveryUnknown("time ran out before the commit", timed_out=True) from error
        # Not aborted by us: a produce request may still be on its way, and a record that lands behind an abort of the same
        # producer epoch would stay open for ever (KIP-890). The next init bumps the epoch first, and then aborts.
        raise DeliveryRefused(list(dict.fromkeys(refusals)), begun=True)

    def _transfer(
        self, queues: Mapping[TopicPartition, PartitionQueue], receipts: dict[int, Receipt], refusals: list[Refusal]
    ) -> Transfer:
        return Transfer(
            self._sender,
            self._directory,
            self._identity,
            queues,
            backoff=BACKOFF,
            on_receipt=receipts.__setitem__,
            on_refusal=refusals.append,
        )

    async def _run(self, transfer: Transfer) -> None:
        """Raises: Fenced, DeliveryUnknown."""
        try:
            await transfer.run()
        except ProduceFailed as failed:
            if failed.code in codes.FENCED:
                raise Fenced(f"{self._transactional_id}: fenced, or aborted by the broker's time limit") from failed
            raise DeliveryUnknown(f"{self._transactional_id}: {failed}") from failed

    async def _add_partitions(self, wanted: Iterable[TopicPartition]) -> None:
        topics: dict[str, list[int]] = defaultdict(list)
        for topic, number in wanted:
            topics[topic].append(number)
        identity = self._identity
        request = AddPartitionsToTxnRequest(
            self._transactional_id, identity.producer_id, identity.producer_epoch, list(topics.items())
        )
        loop = asyncio.get_running_loop()
        attempts = _Attempts()
        while True:
            asked_at_s = loop.time()
            answer = await self._ask(request, attempts)
            found = {(topic, code) for topic, numbers in answer.errors for _number, code in numbers}
            given = {code for _topic, code in found} - {codes.NONE, codes.OPERATION_NOT_ATTEMPTED}
            if not given:
                return
            if given & codes.FENCED:
                raise Fenced(f"{self._transactional_id}: fenced")
            refusals = [refusal_by_code(topic, code) for topic, code in sorted(found) if code in TOPIC_REASONS]
            unknown = [topic for topic, code in found if code == codes.UNKNOWN_TOPIC_OR_PARTITION]
            if unknown:
                refusals += await find_missing(self._directory, unknown, since_s=asked_at_s)
            if refusals:
                if attempts.unanswered == 0:
                    raise _NotBegun(refusals)
                raise _Refused(refusals)
            if not given <= {codes.CONCURRENT_TRANSACTIONS, codes.UNKNOWN_TOPIC_OR_PARTITION}:
                raise DeliveryUnknown(f"{self._transactional_id}: not added, error codes {sorted(given)}")
            await attempts.wait()

    async def _send_marker(self, value: bytes) -> None:
        queue = PartitionQueue(self._own, limit_bytes=None)
        queue.append(
            0,
            OutRecord(topic=self._own[0], key=marker_value.KEY, value=value, headers=(), timestamp_ms=self._now_ms()),
        )
        refusals: list[Refusal] = []
        await self._run(self._transfer({self._own: queue}, {}, refusals))
        if refusals:
            raise DeliveryUnknown(f"the marker was refused: {refusals[0].reason}")

    async def _commit(self) -> bool:
        """True if the coordinator answered the only request for it. Else a copy may still be on its way: it would commit
        a part of the next transaction, so this producer must not begin one."""
        try:
            async with asyncio.timeout(self._timeouts.commit_ms / 1_000):
                return await self._end()
        except (TimeoutError, BrokerUnavailable) as error:
            raise DeliveryUnknown(f"{self._transactional_id}: the commit was not answered") from error

    async def _end(self) -> bool:
        identity = self._identity
        request = EndTxnRequest(self._transactional_id, identity.producer_id, identity.producer_epoch, 1)
        attempts = _Attempts()
        while True:
            code = (await self._ask(request, attempts)).error_code
            if code == codes.NONE:
                return attempts.unanswered == 0
            if code in codes.FENCED:
                raise Fenced(f"{self._transactional_id}: fenced, or aborted by the broker's time limit")
            if code != codes.CONCURRENT_TRANSACTIONS:
                raise DeliveryUnknown(f"{self._transactional_id}: not ended, error code {code}")
            await attempts.wait()

    async def _ask(self, request: Any, attempts: _Attempts) -> Any:
        """Asks the transaction coordinator, whichever broker it is by now, until it answers. The caller bounds the time."""
        while True:
            try:
                if self._coordinator is None:
                    self._coordinator = await self._wire.find_coordinator(self._transactional_id)
                if self._coordinator is not None:
                    attempts.unanswered += 1
                    answer = await self._wire.request(request, node_id=self._coordinator, coordinator=True)
                    attempts.unanswered -= 1
                    if not codes.COORDINATOR_AWAY & _codes_in(answer):
                        return answer
            except BrokerUnavailable as error:
                # Not raised yet: the caller's time limit ends this, and its error then says why.
                attempts.last_error = error
            self._coordinator = None
            await attempts.wait()


class _Refused(Exception):
    """The coordinator refused to add the Kafka partitions; an earlier attempt may have added some."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        super().__init__()
        self.refusals = refusals


class _NotBegun(_Refused):
    """A refusal without an earlier attempt: no transaction is open."""


def _codes_in(answer: Any) -> set[int]:
    """All error codes of a coordinator's answer."""
    if hasattr(answer, "error_code"):
        return {answer.error_code}
    return {code for _topic, kafka_partitions in answer.errors for _number, code in kafka_partitions}
