"""ShardOwnership on a consumer group: whose Kafka partitions of the ownership topic are assigned to whom.

What a rebalance guarantees, and what it does not:

- Within one generation of the group, no shard has two owners. But a node learns late that a generation has ended: at
  its next heartbeat, or never, if it is paused or cut off. So an assignment is permission to *try*: the take-over's
  fences (transactional id, epoch) decide, and a node that keeps its last assignment while Kafka is away does no harm.
- Every rebalance revokes everything and mostly gives it back (eager protocol; aiokafka has no cooperative one). The
  revocation is therefore not reported: only the new assignment, whole, once it is known.
- Nobody waits for us: the callbacks return at once, and a runner that lost its shard drains while its new owner is
  already fencing it.

Records of the topic are wake-ups, read from the end of the log: those that come while a shard changes hands are lost,
which costs one scan interval. Offsets are never committed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError

from clockwork.domain import wakeup as wakeup_value
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import WakeUp
from clockwork.errors import BrokerUnavailable, DeliveryRefused, Unreadable
from clockwork.kafka.client import KafkaSettings, close_client
from clockwork.ports.telemetry import Telemetry

log = logging.getLogger(__name__)

POLL_MS: Final = 500
"""How long one poll waits for wake-ups. Not a latency: a record ends the wait."""
WAKEUPS_MAX: Final = 500
"""Wake-ups of one poll, so that decoding them is a short section of the event loop that heartbeats share."""
POLL_INTERVAL_MS_MAX: Final = 60_000
"""A member that has not polled for so long is stuck, whatever its heartbeats say, and leaves."""
BACKOFF_S_INITIAL: Final = 0.1
BACKOFF_S_MAX: Final = 2.0
LEAVE_S_MAX: Final = 3.0
"""How long leaving may take; then the session time-out does it."""
JOIN_MARGIN_MS: Final = 5_000
"""A join is answered only when all have joined; so its request waits longer than the rebalance may take."""


class KafkaOwnership:
    """See `ports.ShardOwnership`. `send_wakeup` puts a value on a shard's Kafka partition (KafkaPublisher has it)."""

    def __init__(
        self,
        settings: KafkaSettings,
        telemetry: Telemetry,
        *,
        send_wakeup: Callable[[ShardId, bytes], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._send_wakeup = send_wakeup
        self._malformed_seen: set[str] = set()
        self._trouble: str | None = "not joined yet"

    def trouble(self) -> str | None:
        """Why this node is not in the group; None while it is, with shards or without."""
        return self._trouble

    async def run(
        self,
        on_assignment: Callable[[frozenset[ShardId]], None],
        on_wakeup: Callable[[ShardId, WakeUp], None],
    ) -> None:
        def joined(shards: frozenset[ShardId]) -> None:
            self._trouble = None
            on_assignment(shards)

        listener = _Listener(self._telemetry, joined)
        backoff_s = BACKOFF_S_INITIAL
        while True:
            listener.assigned = False
            try:
                await self._stay(listener, on_wakeup)
            except (KafkaError, OSError, TimeoutError) as error:
                self._trouble = repr(error)
                if listener.assigned:
                    backoff_s = BACKOFF_S_INITIAL
                if backoff_s == BACKOFF_S_INITIAL:
                    # Once per outage, not once per try.
                    log.warning(
                        "Out of the consumer group; trying again",
                        extra={"event": "group.lost", "group": self._settings.consumer_group, "error": repr(error)},
                    )
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_S_MAX)

    async def wake(self, shard: ShardId, wakeup: WakeUp) -> None:
        try:
            await self._send_wakeup(shard, wakeup_value.encode(wakeup))
        except DeliveryRefused as error:
            raise BrokerUnavailable(f"a wake-up was refused: {error}") from error

    async def _stay(self, listener: "_Listener", on_wakeup: Callable[[ShardId, WakeUp], None]) -> None:
        """One membership, until it fails or is cancelled."""
        consumer = self._consumer()
        try:
            await consumer.start()
            # Not in the constructor: start() would then wait for the first assignment, however long that takes.
            consumer.subscribe([self._settings.shards_topic], listener=listener)
            while True:
                polled = await consumer.getmany(timeout_ms=POLL_MS, max_records=WAKEUPS_MAX)
                for where, records in polled.items():
                    self._hand_over(ShardId(where.partition), records, on_wakeup)
        finally:
            await leave(consumer)

    def _consumer(self) -> AIOKafkaConsumer:
        settings = self._settings
        connection = settings.connection("ownership")
        connection["request_timeout_ms"] = settings.rebalance_timeout_ms + JOIN_MARGIN_MS
        return AIOKafkaConsumer(
            **connection,
            group_id=settings.consumer_group,
            group_instance_id=settings.instance_id,
            partition_assignment_strategy=(RangePartitionAssignor,),
            enable_auto_commit=False,
            auto_offset_reset="latest",
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=settings.heartbeat_interval_ms,
            rebalance_timeout_ms=settings.rebalance_timeout_ms,
            max_poll_interval_ms=POLL_INTERVAL_MS_MAX,
        )

    def _hand_over(self, shard: ShardId, records: Iterable[Any], on_wakeup: Callable[[ShardId, WakeUp], None]) -> None:
        for record in records:
            try:
                wakeup = wakeup_value.decode(record.value)
            except Unreadable as error:
                self._note_malformed(error)
                continue
            on_wakeup(shard, wakeup)

    def _note_malformed(self, error: Unreadable) -> None:
        """Skipped: the scan finds what it was about. Counted each time, logged once per cause."""
        self._telemetry.malformed("wakeup")
        cause = type(error.__cause__ or error).__name__
        if cause not in self._malformed_seen:
            self._malformed_seen.add(cause)
            log.warning("A wake-up cannot be read", extra={"event": "wakeup.malformed", "error": str(error)})


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    def __init__(self, telemetry: Telemetry, on_assignment: Callable[[frozenset[ShardId]], None]) -> None:
        self.assigned = False
        """True once this membership got an assignment."""
        self._telemetry = telemetry
        self._on_assignment = on_assignment

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Not reported: what matters is what is assigned next; until then the owner's fences hold."""

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self.assigned = True
        self._telemetry.rebalance()
        self._on_assignment(frozenset(ShardId(where.partition) for where in assigned))


async def leave(consumer: AIOKafkaConsumer) -> None:
    """Leaves the group (a static member stays in it: it means to come back) and closes, within a bounded time."""
    try:
        async with asyncio.timeout(LEAVE_S_MAX):
            await consumer.stop()
    except (TimeoutError, KafkaError, OSError):
        # Not raised: it would stand in place of the cancellation that makes us leave.
        log.warning(
            "Leaving the consumer group took too long; its session will time out",
            extra={"event": "group.leave_timed_out"},
        )
        await _drop(consumer)


async def _drop(consumer: AIOKafkaConsumer) -> None:
    """What is left of stop() when Kafka does not answer: ends the consumer's own tasks without asking anybody."""
    names = ("_coordination_task", "_heartbeat_task", "_commit_refresh_task")
    tasks = [task for name in names if (task := getattr(consumer._coordinator, name, None)) is not None]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=LEAVE_S_MAX)
    if consumer._fetcher is not None:
        await consumer._fetcher.close()
    await close_client(consumer._client)
