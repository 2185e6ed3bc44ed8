"""Settlement of sent deliveries, for both guarantees: what a success, a drop and a refusal lead to.

Only a record that is refused for its content pays with an attempt, and blocks its lane. A destination that is missing
or forbidden, or whose broker is away, waits as a whole, and no row pays (docs/design.md, 5.5).
"""

import logging
import random
from collections import Counter
from collections.abc import Container, Sequence
from typing import Final

from clockwork.clock import Clock
from clockwork.concurrency import Backoff
from clockwork.domain.destination import Topic
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.planning import Action, PlannedDelivery, announced_at_ms
from clockwork.domain.position import Position
from clockwork.domain.record import OutRecord, delivery_of
from clockwork.domain.retry import BackoffPolicy, RetryPolicy
from clockwork.domain.run import RunKind
from clockwork.domain.schedule import Guarantee, Receipt, Retry, Row
from clockwork.errors import Refusal, RefusalCause, StoreUnavailable, TransactionConflict
from clockwork.firing.cleanup import Completed
from clockwork.firing.dead_letters import DeadLetterRecords, dead_letter_topics
from clockwork.firing.destination_waits import DestinationWaits
from clockwork.firing.lease import ShardLease
from clockwork.ports.store import ScheduleStore
from clockwork.ports.telemetry import Telemetry
from clockwork.ports.tracing import NO_TRACER, Tracer
from clockwork.settings.model import RunnerSettings

log = logging.getLogger(__name__)

RETRY_WRITE_BACKOFF: Final = BackoffPolicy(initial_ms=50, max_ms=2_000)
"""Between the tries to write a retry mark: its row and the lane behind it wait for the answer."""


def retry_policy(settings: RunnerSettings) -> RetryPolicy:
    """When, and how often, a refused record is tried again if its schedule does not say."""
    return RetryPolicy(
        attempts_max=settings.retry_attempts,
        backoff=BackoffPolicy(initial_ms=settings.retry_initial_ms, max_ms=settings.retry_max_ms),
    )


class Settlement:
    """Makes the records of planned deliveries, and settles what became of them."""

    def __init__(
        self,
        store: ScheduleStore,
        destination_waits: DestinationWaits,
        clock: Clock,
        telemetry: Telemetry,
        rng: random.Random,
        settings: RunnerSettings,
        *,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._store = store
        self._destination_waits = destination_waits
        self._clock = clock
        self._telemetry = telemetry
        self._rng = rng
        self._tracer = tracer
        self._retry = retry_policy(settings)
        self._dead_letters = DeadLetterRecords(dead_letter_topics(settings), destination_waits, clock, telemetry)

    def topic(self, planned: PlannedDelivery, rejected: Container[Position]) -> Topic:
        """The topic that the delivery's `record` would be sent to at present."""
        if planned.failure is not None:
            return self._dead_letters.topic(planned, rejected)
        assert isinstance(planned.row, Row), "an unreadable row is only ever a dead letter"
        return planned.row.schedule.topic

    def in_backoff(self, topic: Topic) -> bool:
        """True if the topic has refused a record, or has not answered, and is to be left alone at present."""
        return self._destination_waits.in_backoff(topic, self._clock.now_ms())

    def record(self, planned: PlannedDelivery, rejected: Container[Position]) -> OutRecord:
        """The record to send. `rejected`: the rows whose dead letters their client's topic has refused."""
        if planned.failure is not None:
            return self._dead_letters.record(planned, rejected)
        assert isinstance(planned.row, Row), "an unreadable row is only ever a dead letter"
        return delivery_of(planned.row.schedule, now_ms=self._clock.now_ms(), job=planned.row.run)

    def dropped(self, planned: PlannedDelivery, *, slot: int) -> Completed:
        """The end of a row for which nothing is sent: the marker of this slot decides it."""
        return _completed(planned, at_ms=self._clock.now_ms(), receipt=None, slot=slot)

    # --- successes

    def report_sent(
        self, deliveries: Sequence[PlannedDelivery], records: Sequence[OutRecord], receipts: Sequence[Receipt]
    ) -> None:
        """Tells metrics, log and traces of deliveries and dead letters that have their receipts; ends back-offs."""
        self._trace(deliveries, receipts)
        delivered: Counter[Guarantee] = Counter()
        for planned, record, receipt in zip(deliveries, records, receipts, strict=True):
            if planned.failure is not None:
                self._report_failed(planned, receipt)
                self._dead_letters.report_sent(planned, record)
                continue
            delivered[planned.guarantee] += 1
            assert isinstance(planned.row, Row), "an unreadable row is only ever a dead letter"
            self._telemetry.delivered(
                planned.guarantee,
                planned.row,
                receipt,
                late_seconds=(receipt.at_ms - planned.row.due_ms) / 1_000,
                catch_up=_is_catch_up(planned.row),
            )
        for guarantee, count in delivered.items():
            self._telemetry.deliveries(guarantee, count)
        for topic in {r.topic for each, r in zip(deliveries, records, strict=True) if each.failure is None}:
            self._destination_waits.succeeded(Topic(topic))

    def report_dropped(self, deliveries: Sequence[PlannedDelivery]) -> None:
        """Tells metrics, log and traces of rows that were dropped."""
        dropped = [each for each in deliveries if not each.is_watchdog]
        for planned in dropped:
            self._report_failed(planned, None)
        self._trace(dropped, [None] * len(dropped))

    def _report_failed(self, planned: PlannedDelivery, receipt: Receipt | None) -> None:
        assert planned.failure is not None, "only what failed is counted as failed"
        self._telemetry.failed(planned.guarantee, planned.row, planned.failure, receipt)
        log.error(
            "Schedule failed",
            extra={
                "event": "schedule.failed",
                "shard": planned.row.shard,
                "topic": planned.lane[0] if planned.lane else None,
                "reason": planned.failure.reason,
                "attempts": planned.failure.attempts,
                "last_refusal": planned.failure.last_refusal,
                "dropped": planned.action is Action.DROP,
            },
        )

    def _trace(self, deliveries: Sequence[PlannedDelivery], receipts: Sequence[Receipt | None]) -> None:
        """One span for each row that has ended; none for an unreadable row, which names no request."""
        if not self._tracer.active:
            return
        for planned, receipt in zip(deliveries, receipts, strict=True):
            if isinstance(planned.row, Row):
                self._tracer.delivery(planned.row, receipt, planned.failure)

    # --- refusals

    def fall_back(self, lease: ShardLease, planned: PlannedDelivery, refusal: Refusal) -> bool:
        """True if the refused record is a dead letter that goes to the cluster's topic now: see `DeadLetterRecords`."""
        return self._dead_letters.fall_back(lease, planned, refusal)

    def refuse_destination(self, refusal: Refusal) -> None:
        """Starts the back-off of a destination as a whole. `confirm_given_up` is to follow."""
        self._destination_waits.refused(
            Topic(refusal.destination), refusal.cause, refusal.reason, now_ms=self._clock.now_ms()
        )

    async def confirm_given_up(self, refusal: Refusal) -> None:
        """Gives the refused destination up if it has been missing for long enough, and is missing now."""
        await self._destination_waits.confirm_given_up(Topic(refusal.destination))

    async def refuse_record(self, lease: ShardLease, planned: PlannedDelivery, refusal: Refusal) -> None:
        """Counts an attempt of a record that was refused for its content, and announces until when its row waits. Returns
        when the retry mark is written, or the row is gone; until then the row stays in flight (docs/protocol.md:
        x-lanes-refused). A refused dead letter pays nothing: its topic waits.
        """
        row = planned.row
        if planned.action is Action.DEAD_LETTER or not isinstance(row, Row):
            # The cluster's dead-letter topic is set up to take what no other topic takes. If it does not, all dead
            # letters that would go there wait, none is thrown away, and an operator is called.
            log.error("Dead letter refused", extra={"event": "dead_letter.refused", "reason": refusal.reason})
            topic, now_ms = Topic(refusal.destination), self._clock.now_ms()
            self._destination_waits.refused(topic, RefusalCause.TRANSIENT, refusal.reason, now_ms=now_ms)
            return
        attempts = (row.retry.attempts if row.retry is not None else 0) + 1
        policy = row.schedule.retry or self._retry
        at_ms = policy.next_at_ms(attempts=attempts, now_ms=self._clock.now_ms(), random_share=self._rng.random())
        self._telemetry.refused(row, refusal.reason, attempts)
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
        await self._write_retry(lease, row, at_ms=at_ms, attempts=attempts, refusal=refusal.reason)

    async def _write_retry(self, lease: ShardLease, row: Row, *, at_ms: int, attempts: int, refusal: str) -> None:
        """Announces the time, then writes it, again and again until there is an answer.

        A copy of the write that is applied later is harmless. While this incarnation owns the shard, it fires the row at
        the announced time at the earliest, which no copy exceeds: a cancel that believes a copy has found a frontier below
        its time, so the row has not been read for firing since. Once the frontier has passed the time, no cancel believes
        it; nor under another owner, since the epoch is another one (docs/protocol.md: x-no-promise, x-any-epoch). Once the
        row is gone, the condition fails. At worst an older copy gives an attempt back.
        """
        at_ms = announced_at_ms(row, at_ms, epoch=lease.epoch, announced_not_before_ms=lease.announced_not_before_ms)
        lease.announced_not_before_ms[row.position] = at_ms
        retry = Retry(at_ms=at_ms, epoch=lease.epoch, attempts=attempts, last_refusal=refusal)
        backoff = Backoff(self._rng, RETRY_WRITE_BACKOFF)
        while True:
            try:
                await self._store.set_retry(row.name, retry, drop_hold=False)
            except (StoreUnavailable, TransactionConflict):
                # On a conflict a cancel of the row is being decided. If the cancel fails, the row must bear the
                # attempt.
                await backoff.wait()
            else:
                return


def _is_catch_up(row: Row) -> bool:
    """True for a fire time that was missed: it was late before it was armed, and no figure of this node's work."""
    return row.run is not None and row.run.kind is RunKind.CATCH_UP


def completed(planned: PlannedDelivery, receipt: Receipt, *, slot: int | None) -> Completed:
    """The end of a row whose record or dead letter has its receipt. `slot`: see `Completed`."""
    return _completed(planned, at_ms=receipt.at_ms, receipt=receipt, slot=slot)


def _completed(planned: PlannedDelivery, *, at_ms: int, receipt: Receipt | None, slot: int | None) -> Completed:
    row = planned.row
    entry = MarkerEntry(shard=row.shard, position=row.position, at_ms=at_ms, receipt=receipt, failure=planned.failure)
    return Completed(row=row, entry=entry, slot=slot)
