"""Sending what a pass has planned: one Kafka transaction for exactly_once, lane by lane for at_least_once.

Refusals (docs/design.md, Refusals and topics): only a record that is refused for what it is pays with an attempt, and holds
back its lane. A missing or forbidden topic, or one whose broker is away, waits as a whole.
"""

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Sequence
from functools import partial

from clockwork.clock import Clock
from clockwork.concurrency import gather_bounded
from clockwork.domain import marker
from clockwork.domain.destination import Topic
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.planning import Action, PlannedDelivery, without_lane
from clockwork.domain.position import Position
from clockwork.domain.record import OutRecord, delivery_of
from clockwork.domain.retry import BackoffPolicy, RetryPolicy
from clockwork.domain.schedule import Guarantee, Lane, Receipt, Retry, Row
from clockwork.errors import (
    BrokerUnavailable,
    DeliveryRefused,
    DeliveryUnknown,
    Refusal,
    RefusalCause,
    TransactionConflict,
    Unavailable,
)
from clockwork.firing.cleanup import Completed
from clockwork.firing.dead_letters import DeadLetterRecords, dead_letter_topics
from clockwork.firing.destination_waits import DestinationWaits
from clockwork.firing.takeover import ShardLease, Takeover
from clockwork.ports.delivery import Publisher
from clockwork.ports.store import ScheduleStore
from clockwork.ports.telemetry import Telemetry
from clockwork.ports.tracing import NO_TRACER, Tracer
from clockwork.settings.model import RunnerSettings

log = logging.getLogger(__name__)

LANES_AT_ONCE = 128
"""Lanes of at_least_once that wait for an acknowledgement side by side."""

Batches = deque[list[PlannedDelivery]]


def retry_policy(settings: RunnerSettings) -> RetryPolicy:
    """When a refused record is tried again, and how often."""
    return RetryPolicy(
        attempts_max=settings.retry_attempts,
        backoff=BackoffPolicy(initial_ms=settings.retry_initial_ms, max_ms=settings.retry_max_ms),
    )


class Delivery:
    """Sends the firings of one pass and settles every refusal."""

    def __init__(
        self,
        store: ScheduleStore,
        publisher: Publisher,
        takeover: Takeover,
        destination_waits: DestinationWaits,
        clock: Clock,
        telemetry: Telemetry,
        rng: random.Random,
        settings: RunnerSettings,
        *,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._tracer = tracer
        self._rng = rng
        self._store = store
        self._publisher = publisher
        self._takeover = takeover
        self._destination_waits = destination_waits
        self._clock = clock
        self._telemetry = telemetry
        self._letters = DeadLetterRecords(dead_letter_topics(settings), destination_waits, clock, telemetry)
        self._retry = retry_policy(settings)

    # --- exactly once

    async def in_transactions(self, lease: ShardLease, deliveries: Sequence[PlannedDelivery]) -> int:
        """All in one transaction; after a refusal the rest again, without the refused and those behind it in its lane.

        Returns how many ended. Raises: Fenced, DeliveryUnknown, Unavailable.
        """
        ended = 0
        turned_away = set(lease.turned_away)
        batches: Batches = deque([list(deliveries)] if deliveries else [])
        while batches:
            batch = batches.popleft()
            sent = [firing for firing in batch if firing.action is not Action.DROP]
            records = [self._record(firing, turned_away) for firing in sent]
            try:
                await self._one_transaction(lease, batch, sent, records)
            except DeliveryRefused as refused:
                if refused.begun:
                    await self._renew(lease)
                batches.appendleft(batch)
                for refusal in refused.refusals:
                    held_up = self._held_up(lease, sent, records, refusal, turned_away)
                    batches = await self._settle(lease, batches, held_up, refusal)
            else:
                ended += len(batch)
        return ended

    async def _one_transaction(
        self, lease: ShardLease, batch: list[PlannedDelivery], sent: list[PlannedDelivery], records: list[OutRecord]
    ) -> None:
        """All of `batch` ends by it; `records` are those of `sent`."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        dropped = [_dropped(f, self._clock.now_ms()) for f in batch if f.action is Action.DROP]

        def write_marker(receipt: Sequence[Receipt]) -> bytes:
            new = (_ended(firing, where) for firing, where in zip(sent, receipt, strict=True))
            return marker.encode([*lease.cleanup.marked(), *new, *(done.ended for done in dropped)])

        receipt = await lease.publisher.deliver(records, write_marker)
        lease.cleanup.add(Completed(row=f.row, ended=_ended(f, where)) for f, where in zip(sent, receipt, strict=True))
        lease.cleanup.add(dropped)
        self._telemetry.batch(records=len(sent), commit_seconds=loop.time() - started_s)
        self._count(sent, records, receipt)
        gone = [firing for firing in batch if firing.action is Action.DROP]
        for firing in gone:
            self._count_failed(firing)
        trace_ends(self._tracer, gone, [None] * len(gone))

    async def _renew(self, lease: ShardLease) -> None:
        try:
            await self._takeover.renew(lease)
        except Unavailable as error:
            raise DeliveryUnknown(f"shard {lease.shard}: no producer after a refusal: {error}") from error

    def _held_up(
        self,
        lease: ShardLease,
        sent: list[PlannedDelivery],
        records: list[OutRecord],
        refusal: Refusal,
        turned_away: set[Position],
    ) -> list[PlannedDelivery]:
        """Those that wait because of one refusal of what was `sent`. Dead letters that their client's topic refused are
        added to `turned_away` instead."""
        if refusal.index is not None:
            culprits = [sent[refusal.index]]
        else:
            culprits = [f for f, record in zip(sent, records, strict=True) if record.topic == refusal.destination]
        if not culprits:
            # Not a topic of ours: the markers' own. Nothing can be delivered without them.
            raise BrokerUnavailable(f"{refusal.destination}: {refusal.reason}")
        away = {firing.row.position for firing in culprits if self._letters.turned_away(lease, firing, refusal)}
        turned_away |= away
        return [firing for firing in culprits if firing.row.position not in away]

    async def _settle(
        self, lease: ShardLease, batches: Batches, held_up: list[PlannedDelivery], refusal: Refusal
    ) -> Batches:
        """What is to be sent after one refusal."""
        if held_up and refusal.index is None:
            topic = Topic(refusal.destination)
            self._destination_waits.refused(topic, refusal.cause, refusal.reason, now_ms=self._clock.now_ms())
        for firing in held_up:
            if refusal.index is not None:
                await self._refused_row(lease, firing, refusal)
            # Its lane with it: behind a dead letter stand rows of another topic.
            batches = _prune(batches, partial(without_lane, lane=firing.lane, after=firing.row.position))
        return batches

    async def _refused_row(self, lease: ShardLease, firing: PlannedDelivery, refusal: Refusal) -> None:
        """A record that its topic refuses for what it is: costs an attempt, and its lane waits in place."""
        row = firing.row
        if firing.action is Action.DEAD_LETTER or not isinstance(row, Row):
            # The cluster's dead-letter topic is set up to take what no other takes. If it does not, all dead letters that
            # would go there wait, none is thrown away, and somebody is called.
            log.error("Dead letter refused", extra={"event": "dead_letter.refused", "reason": refusal.reason})
            topic = Topic(refusal.destination)
            self._destination_waits.refused(topic, RefusalCause.TRANSIENT, refusal.reason, now_ms=self._clock.now_ms())
            return
        attempts = (row.retry.attempts if row.retry is not None else 0) + 1
        policy = row.schedule.retry or self._retry
        at_ms = policy.next_at_ms(attempts=attempts, now_ms=self._clock.now_ms(), chance=self._rng.random())
        retry = Retry(at_ms=at_ms, epoch=lease.epoch, attempts=attempts)
        self._telemetry.delivery(row.schedule.guarantee, "retried")
        log.warning(
            "Record refused",
            extra={
                "event": "record.refused",
                "shard": row.shard,
                "topic": row.schedule.topic,
                "reason": refusal.reason,
                "attempts": attempts,
            },
        )
        lease.announced_not_before_ms[row.position] = at_ms
        try:
            await self._store.set_retry(row.name, retry, drop_hold=False)
        except TransactionConflict:
            # A cancel is deciding over the row right now; if it loses, the next pass refuses it once more.
            return

    # --- at least once

    async def lane_by_lane(self, lease: ShardLease, deliveries: Sequence[PlannedDelivery]) -> int:
        """Within a lane one after the other, each acknowledged before the next; lanes side by side. A refused record
        stops its lane. Returns how many ended."""
        lanes: dict[Lane | None, list[PlannedDelivery]] = {}
        for firing in deliveries:
            lanes.setdefault(firing.lane, []).append(firing)

        failures: list[Unavailable] = []

        async def one_lane(lane: list[PlannedDelivery]) -> int:
            try:
                return await self._one_lane(lease, lane)
            except Unavailable as error:
                # Raised when the others are done: to cancel a send that the broker has taken would be to send it twice.
                failures.append(error)
                return 0

        counts = await gather_bounded(one_lane, lanes.values(), at_once=LANES_AT_ONCE)
        if failures:
            raise failures[0]
        return sum(counts)

    async def _one_lane(self, lease: ShardLease, lane: list[PlannedDelivery]) -> int:
        for count, firing in enumerate(lane):
            try:
                record, receipt = await self._sent(lease, firing)
            except DeliveryRefused as refused:
                await self._stop_lane(lease, firing, refused.refusals[0])
                return count
            lease.cleanup.add([Completed(row=firing.row, ended=_ended(firing, receipt))])
            self._count([firing], [record], [receipt])
        return len(lane)

    async def _sent(self, lease: ShardLease, firing: PlannedDelivery) -> tuple[OutRecord, Receipt]:
        """What was sent in the end, and where it is. Raises: DeliveryRefused."""
        record = self._record(firing, lease.turned_away)
        try:
            return record, await self._acknowledged(record)
        except DeliveryRefused as refused:
            if not self._letters.turned_away(lease, firing, refused.refusals[0]):
                raise
        record = self._record(firing, {firing.row.position})
        return record, await self._acknowledged(record)

    async def _acknowledged(self, record: OutRecord) -> Receipt:
        try:
            return await self._publisher.send(record)
        except BrokerUnavailable as error:
            refusal = Refusal(cause=RefusalCause.TRANSIENT, reason="not_acknowledged", destination=record.topic)
            raise DeliveryRefused([refusal], begun=False) from error

    async def _stop_lane(self, lease: ShardLease, firing: PlannedDelivery, refusal: Refusal) -> None:
        if refusal.cause is RefusalCause.RECORD:
            await self._refused_row(lease, firing, refusal)
            return
        topic = Topic(refusal.destination)
        self._destination_waits.refused(topic, refusal.cause, refusal.reason, now_ms=self._clock.now_ms())

    # --- both

    def _record(self, firing: PlannedDelivery, turned_away: Container[Position]) -> OutRecord:
        if firing.failure is not None:
            return self._letters.record(firing, turned_away)
        assert isinstance(firing.row, Row), "a broken row is only ever a dead letter"
        return delivery_of(firing.row.schedule, now_ms=self._clock.now_ms())

    def _count(
        self, deliveries: Sequence[PlannedDelivery], records: Sequence[OutRecord], receipt: Sequence[Receipt]
    ) -> None:
        trace_ends(self._tracer, deliveries, receipt)
        delivered: Counter[Guarantee] = Counter()
        for firing, record, where in zip(deliveries, records, receipt, strict=True):
            if firing.failure is not None:
                self._count_failed(firing)
                self._letters.count(firing, record)
                continue
            delivered[firing.guarantee] += 1
            self._telemetry.lateness(firing.guarantee, (where.at_ms - firing.row.due_ms) / 1_000)
        for guarantee, count in delivered.items():
            self._telemetry.delivery(guarantee, "delivered", count)
        for topic in {r.topic for f, r in zip(deliveries, records, strict=True) if f.failure is None}:
            self._destination_waits.took_records(Topic(topic))

    def _count_failed(self, firing: PlannedDelivery) -> None:
        assert firing.failure is not None, "only what failed is counted as failed"
        self._telemetry.delivery(firing.guarantee, "failed")
        log.error(
            "Schedule failed",
            extra={
                "event": "schedule.failed",
                "shard": firing.row.shard,
                "topic": firing.lane[0] if firing.lane else None,
                "reason": firing.failure.reason,
                "attempts": firing.failure.attempts,
                "dropped": firing.action is Action.DROP,
            },
        )


def _ended(firing: PlannedDelivery, receipt: Receipt) -> MarkerEntry:
    return MarkerEntry(position=firing.row.position, at_ms=receipt.at_ms, receipt=receipt, failure=firing.failure)


def _dropped(firing: PlannedDelivery, now_ms: int) -> Completed:
    ended = MarkerEntry(position=firing.row.position, at_ms=now_ms, receipt=None, failure=firing.failure)
    return Completed(row=firing.row, ended=ended)


def _prune(batches: Batches, keep: Callable[[list[PlannedDelivery]], list[PlannedDelivery]]) -> Batches:
    """What is still to be sent, after something was taken out of it; no empty batches."""
    return deque(kept for batch in batches if (kept := keep(batch)))


def trace_ends(tracer: Tracer, deliveries: Iterable[PlannedDelivery], receipt: Iterable[Receipt | None]) -> None:
    """One span for each of these, which have ended just now. A row that cannot be read is nobody's request."""
    if not tracer.active:
        return
    for firing, where in zip(deliveries, receipt, strict=True):
        if isinstance(firing.row, Row):
            tracer.delivery(firing.row, where, firing.failure)
