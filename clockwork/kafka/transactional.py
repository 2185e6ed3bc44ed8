"""One shard's Kafka transactions: ShardPublisher.

    open ──deliver──► open                       committed, or refused before anything was begun
      │
      └──deliver──► spent ──close──► closed      refused after begin, outcome unknown, or fenced

A delivery is four requests: AddPartitionsToTxn, with the marker's Kafka partition among them; the records; the marker,
which knows their offsets; EndTxn. Who is authoritative: the transaction coordinator. What we were not told is unknown,
and the next init settles it: it bumps the producer epoch, so that nothing of ours that is still on its way is taken,
and aborts what is open or waits for a commit that was asked for.

EndTxn is repeated after a lost answer: the coordinator answers a repeat of what it has done with success, and one
that belongs to an older epoch with a refusal. AddPartitionsToTxn is all or nothing (KIP-98; version 0 of the request),
so a refusal of it leaves nothing begun, if no earlier try of it went unanswered.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest

from clockwork.domain import marker as marker_value
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import Receipt
from clockwork.domain.sharding import ShardId
from clockwork.errors import BrokerUnavailable, DeliveryRefused, DeliveryUnknown, Fenced, Refusal
from clockwork.kafka import client as codes
from clockwork.kafka.client import COORDINATOR_CODES, FENCED_CODES, KafkaSettings, Wire
from clockwork.kafka.marker import MarkerReader
from clockwork.kafka.produce import (
    TOPIC_REASONS,
    Line,
    ProducerIdentity,
    Producing,
    TopicPartition,
    missing_among,
    partition_for,
    refused_record,
    refused_topic,
    too_large,
    topic_refusal,
    unable,
)
from clockwork.kafka.send import Sending, Trying
from clockwork.kafka.topics import TopicDirectory, TopicLayout, TopicState

LAYOUT_AGE_S_MAX: Final = 1.0
"""What a delivery believes about the leaders and replicas of its topics is not older."""
YIELD_EVERY_RECORDS: Final = 200
"""Heartbeats share the event loop: between so many records others get a turn."""


class KafkaShardPublisher:
    """See `ports.ShardPublisher`. Not for two deliveries at once."""

    def __init__(
        self,
        settings: KafkaSettings,
        directory: TopicDirectory,
        wire: Wire,
        shard: ShardId,
        now_ms: Callable[[], int],
        *,
        on_close: Callable[["KafkaShardPublisher"], None],
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._shard = shard
        self._now_ms = now_ms
        self._on_close = on_close
        self._transactional_id = settings.transactional_id(shard)
        self._wire = wire
        self._producing = Producing(settings, wire, directory)
        self._identity = ProducerIdentity(producer_id=-1, producer_epoch=-1)
        self._coordinator: int | None = None
        self._usable = False

    # --- take-over

    async def init(self) -> None:
        """Fences every earlier producer of this shard and waits until its transaction is settled.

        Raises: BrokerUnavailable.
        """
        trying = Trying()
        try:
            async with asyncio.timeout(self._settings.init_timeout_ms / 1_000):
                self._identity = await self._init(trying)
        except TimeoutError as error:
            raise BrokerUnavailable(f"init of {self._transactional_id} was not answered in time{trying}") from error
        self._usable = True

    async def read_marker(self) -> tuple[MarkerEntry, ...]:
        reader = MarkerReader(self._wire, self._directory, topic=self._settings.deliveries_topic, shard=self._shard)
        value = await reader.read_last(timeout_s=self._settings.init_timeout_ms / 1_000)
        # Beside the event loop: the longest one takes 10 ms, and a node that starts reads one for each shard.
        return () if value is None else await asyncio.to_thread(marker_value.decode, value)

    async def close(self) -> None:
        self._usable = False
        self._on_close(self)
        await self._wire.close()

    async def _init(self, trying: Trying) -> ProducerIdentity:
        request = InitProducerIdRequest(self._transactional_id, self._settings.transaction_timeout_ms)
        while True:
            answer = await self._ask(request, trying)
            code = answer.error_code
            if code == codes.NONE:
                return ProducerIdentity(
                    producer_id=answer.producer_id,
                    producer_epoch=answer.producer_epoch,
                    transactional_id=self._transactional_id,
                )
            # PRODUCER_FENCED: another init of this id overtook ours; the next try fences that one.
            if code not in (codes.CONCURRENT_TRANSACTIONS, *FENCED_CODES):
                raise BrokerUnavailable(f"init of {self._transactional_id}: error code {code}")
            await trying.wait()

    # --- delivery

    async def deliver(
        self, records: Sequence[OutRecord], marker: Callable[[Sequence[Receipt]], bytes]
    ) -> Sequence[Receipt]:
        if not self._usable:
            raise DeliveryUnknown("this shard's producer is spent or closed")
        try:
            async with asyncio.timeout(self._settings.sends_timeout_ms / 1_000):
                lines = await self._preflight(records)
        except TimeoutError as error:
            raise BrokerUnavailable("the topics' state could not be read in time") from error
        self._usable = False  # until we know better: a cancelled delivery leaves it so
        deadline_s = asyncio.get_running_loop().time() + self._settings.sends_timeout_ms / 1_000
        sending = Sending(self._producing, self._directory, self._identity, lines)
        try:
            receipt = await self._send_all(sending, records, marker, deadline_s)
        except _NotBegun as refused:
            self._usable = True
            raise DeliveryRefused(refused.refusals, begun=False) from refused
        except BrokerUnavailable as error:
            raise DeliveryUnknown(f"{self._transactional_id}: {error}") from error
        self._usable = await self._commit()
        return receipt

    async def _preflight(self, records: Sequence[OutRecord]) -> dict[TopicPartition, Line]:
        """What can be known without a transaction: which topics are there and able, which records are too large; then
        where each record goes. Raises: DeliveryRefused, BrokerUnavailable."""
        layouts = await self._layouts({record.topic for record in records})
        refusals = [refusal for topic, layout in layouts.items() if (refusal := topic_refusal(topic, layout))]
        bad_topics = {refusal.destination for refusal in refusals}
        lines: dict[TopicPartition, Line] = {}
        for index, record in enumerate(records):
            if index % YIELD_EVERY_RECORDS == YIELD_EVERY_RECORDS - 1:
                await asyncio.sleep(0)
            if record.topic in bad_topics:
                continue
            if await too_large(self._settings, self._directory, record):
                refusals.append(refused_record(index, record.topic, codes.MESSAGE_TOO_LARGE))
                continue
            where = (record.topic, partition_for(record, layouts[record.topic]))
            if where not in lines:
                if refusal := await unable(self._directory, where, layouts[record.topic]):
                    refusals.append(refusal)
                    bad_topics.add(record.topic)
                limits = await self._directory.limits(record.topic)
                lines[where] = Line(where, limit_bytes=limits.record_bytes_max)
            lines[where].append(index, record)
        if refusals:
            raise DeliveryRefused(refusals, begun=False)
        return lines

    async def _layouts(self, topics: set[str]) -> Mapping[str, TopicLayout]:
        """At most a second old (one request a second for all shards of the node): see `unable`."""
        own = (self._settings.deliveries_topic, int(self._shard))
        since_s = asyncio.get_running_loop().time() - LAYOUT_AGE_S_MAX
        layouts = dict(await self._directory.layouts({*topics, own[0]}, since_s=since_s))
        layout = layouts[own[0]] if own[0] in topics else layouts.pop(own[0])
        if layout.state is not TopicState.PRESENT or own[1] >= len(layout.leaders):
            raise BrokerUnavailable(f"{own[0]} is {layout.state} or has too few Kafka partitions")
        if refusal := await unable(self._directory, own, layout):
            raise BrokerUnavailable(f"{own[0]}/{own[1]}: {refusal.reason}")
        return layouts

    async def _send_all(
        self,
        sending: Sending,
        records: Sequence[OutRecord],
        marker: Callable[[Sequence[Receipt]], bytes],
        deadline_s: float,
    ) -> Sequence[Receipt]:
        """Everything before the commit. Raises: DeliveryRefused (begun), DeliveryUnknown, Fenced, _NotBegun."""
        own = (self._settings.deliveries_topic, int(self._shard))
        try:
            async with asyncio.timeout_at(deadline_s):
                await self._add_partitions([*sending.lines, own])
                await sending.run()
                if not sending.refusals:
                    receipt = [sending.receipt[index] for index in range(len(records))]
                    await self._send_marker(own, marker(receipt))
                    return receipt
        except _NotBegun:
            raise
        except _Refused as refused:
            sending.refusals += refused.refusals
        except TimeoutError as error:
            if not await sending.blame_what_is_stuck():
                raise DeliveryUnknown("time ran out before the commit", timed_out=True) from error
        # Not aborted by us: a produce request may still be on its way, and what lands behind an abort of the same producer
        # epoch would stay open for ever (KIP-890). The next init bumps the epoch first, and then aborts.
        raise DeliveryRefused(sending.refusals, begun=True)

    async def _add_partitions(self, wanted: Iterable[TopicPartition]) -> None:
        topics: dict[str, list[int]] = defaultdict(list)
        for topic, number in wanted:
            topics[topic].append(number)
        identity = self._identity
        request = AddPartitionsToTxnRequest(
            self._transactional_id, identity.producer_id, identity.producer_epoch, list(topics.items())
        )
        loop = asyncio.get_running_loop()
        trying = Trying()
        while True:
            asked_at_s = loop.time()
            answer = await self._ask(request, trying)
            found = {(topic, code) for topic, numbers in answer.errors for _number, code in numbers}
            given = {code for _topic, code in found} - {codes.NONE, codes.OPERATION_NOT_ATTEMPTED}
            if not given:
                return
            if given & FENCED_CODES:
                raise Fenced(f"{self._transactional_id}: fenced")
            refusals = [refused_topic(topic, code) for topic, code in sorted(found) if code in TOPIC_REASONS]
            unknown = [topic for topic, code in found if code == codes.UNKNOWN_TOPIC_OR_PARTITION]
            if unknown:
                refusals += await missing_among(self._directory, unknown, since_s=asked_at_s)
            if refusals:
                if trying.unanswered == 0:
                    raise _NotBegun(refusals)
                raise _Refused(refusals)
            if not given <= {codes.CONCURRENT_TRANSACTIONS, codes.UNKNOWN_TOPIC_OR_PARTITION}:
                raise DeliveryUnknown(f"{self._transactional_id}: not added, error codes {sorted(given)}")
            await trying.wait()

    async def _send_marker(self, own: TopicPartition, value: bytes) -> None:
        line = Line(own, limit_bytes=None)
        line.append(
            0,
            OutRecord(topic=own[0], key=marker_value.KEY, value=value, headers=(), timestamp_ms=self._now_ms()),
        )
        sending = Sending(self._producing, self._directory, self._identity, {own: line})
        await sending.run()
        if sending.refusals:
            raise DeliveryUnknown(f"the marker was refused: {sending.refusals[0].reason}")

    async def _commit(self) -> bool:
        """True if the coordinator answered the only request for it. Else a copy may still be on its way: it would commit
        a part of the next transaction, so this producer must not begin one."""
        try:
            async with asyncio.timeout(self._settings.commit_timeout_ms / 1_000):
                return await self._end()
        except (TimeoutError, BrokerUnavailable) as error:
            raise DeliveryUnknown(f"{self._transactional_id}: the commit was not answered") from error

    async def _end(self) -> bool:
        identity = self._identity
        request = EndTxnRequest(self._transactional_id, identity.producer_id, identity.producer_epoch, 1)
        trying = Trying()
        while True:
            code = (await self._ask(request, trying)).error_code
            if code == codes.NONE:
                return trying.unanswered == 0
            if code in FENCED_CODES:
                raise Fenced(f"{self._transactional_id}: fenced, or aborted by the broker's time limit")
            if code != codes.CONCURRENT_TRANSACTIONS:
                raise DeliveryUnknown(f"{self._transactional_id}: not ended, error code {code}")
            await trying.wait()

    async def _ask(self, request: Any, trying: Trying) -> Any:
        """Asks the transaction coordinator, wherever it is by now, until it answers. The caller bounds the time."""
        while True:
            try:
                if self._coordinator is None:
                    self._coordinator = await self._wire.find_coordinator(self._transactional_id)
                if self._coordinator is not None:
                    trying.unanswered += 1
                    answer = await self._wire.request(request, node_id=self._coordinator, coordinator=True)
                    trying.unanswered -= 1
                    if not COORDINATOR_CODES & _codes_in(answer):
                        return answer
            except BrokerUnavailable as error:
                # Not told to anybody yet: the caller's time limit ends this, and then says why.
                trying.last_error = error
            self._coordinator = None
            await trying.wait()


class _Refused(Exception):
    """The coordinator refused to add the Kafka partitions; an earlier try may have added some."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        super().__init__()
        self.refusals = refusals


class _NotBegun(_Refused):
    """The same, and there was no earlier try: no transaction is open."""


def _codes_in(answer: Any) -> set[int]:
    """All error codes of a coordinator's answer."""
    if hasattr(answer, "error_code"):
        return {answer.error_code}
    return {code for _topic, kafka_partitions in answer.errors for _number, code in kafka_partitions}
