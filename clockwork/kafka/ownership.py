"""ShardOwnership on a consumer group: the assignment of the ownership topic's Kafka partitions is that of the shards.

Guarantees of a rebalance, and their limits:

- Within one generation of the group, no shard has two owners. But a node learns late that a generation has ended: at
  its next heartbeat, or never, if it is paused or cut off. So an assignment is permission to *try*: the take-over's
  fences decide, and a node that keeps its last assignment while Kafka is away does no harm.
- A node whose assignment is out of date would fence the rightful owner, be fenced by it, and fence it again, without
  end. So before each try it has its assignment confirmed, by a heartbeat of its own that names the generation which the
  assignment belongs to (docs/design.md, 5: T0). That generation is recorded together with the assignment: between two
  assignments the consumer knows a newer one already, with no assignment in it.
- Every rebalance revokes everything and mostly gives it back (eager protocol; aiokafka has no cooperative one). The
  revocation is therefore not reported: only the new assignment, whole, once it is known.
- The group never waits for us: the callbacks return at once, and a runner that lost its shard drains while its new
  owner is already fencing it.

An orderly stop begins with a withdrawal: the member joins once more and says that it wants no shards, works on until the
others have them assigned, and releases them then, as at any other hand-over. If it left at once, its shards would lie idle
until the others' next heartbeats.

Records of the topic are wake-ups, read from the end of the log: those that come while a shard changes hands are lost,
which costs one scan interval. Offsets are never committed.

A static member that stops keeps its place until its session ends, so that a restart moves no shard. When a node will not
come back, that wait is lateness for nothing: any client may remove it by its instance id (KIP-345; `group.leave_group`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Set
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from clockwork.concurrency import Backoff
from clockwork.domain import wakeup as wakeup_value
from clockwork.domain.ownership import ProcessId
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import WakeUp
from clockwork.errors import BrokerUnavailable, DeliveryRefused, Unreadable
from clockwork.kafka.aiokafka_internals import (
    abandon_consumer,
    ended,
    forgive_coordination,
    join_again,
    membership_of,
)
from clockwork.kafka.client import RNG, KafkaContext, KafkaWire, LastAnswer
from clockwork.kafka.group import GroupCoordinator, GroupMembership, assignor_of, member_role
from clockwork.ports.telemetry import Telemetry

log = logging.getLogger(__name__)

POLL_MS: Final = 500
"""Longest wait of one poll for wake-ups. No latency follows from it: a record ends the wait."""
WAKEUPS_MAX: Final = 500
"""Wake-ups of one poll: to decode them must not keep the event loop, which heartbeats share, for long."""
POLL_INTERVAL_MS_MAX: Final = 60_000
"""A member that has not polled for so long is stuck even if it sends heartbeats, and leaves."""
BACKOFF: Final = BackoffPolicy(initial_ms=100, max_ms=2_000)
"""Between attempts to join the group."""
LEAVE_S_MAX: Final = 3.0
"""Longest time to leave the group in an orderly way; then the session time-out ends the membership."""
WITHDRAW_S_MAX: Final = 3.0
"""Longest wait for the assignment without shards: a member that does not answer delays it by its session time-out."""
LEAVE_AFTER_S: Final = 0.5
"""Time between a withdrawal and the leave that follows: to leave begins another generation, and a take-over of the
released shards would have to wait for it."""
JOIN_MARGIN_MS: Final = 5_000
"""A join is answered only when all have joined; so its request waits longer than the rebalance may take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Assignment:
    """The shards that a member got in one generation."""

    membership: GroupMembership
    shards: frozenset[ShardId]


class KafkaOwnership:
    """See `ports.ShardOwnership`. `send_wakeup` puts a value on a shard's Kafka partition (KafkaPublisher has it)."""

    def __init__(
        self,
        kafka: KafkaContext,
        telemetry: Telemetry,
        *,
        process: ProcessId,
        send_wakeup: Callable[[ShardId, bytes], Awaitable[None]],
    ) -> None:
        self._kafka = kafka
        self._telemetry = telemetry
        self._process = process
        self._send_wakeup = send_wakeup
        self._coordinator = GroupCoordinator(kafka, KafkaWire(kafka, LastAnswer(), role="group"))
        self._assignment: _Assignment | None = None
        self._malformed_seen: set[str] = set()
        self._trouble: str | None = "not joined yet"
        self._consumer: AIOKafkaConsumer | None = None
        self._withdrawn = False
        self._assigned = asyncio.Event()
        """Set by each assignment."""

    def trouble(self) -> str | None:
        """The reason for which this node is not in the group; None while it is, with shards or without."""
        return self._trouble

    async def run(
        self,
        on_assignment: Callable[[frozenset[ShardId]], None],
        on_wakeup: Callable[[ShardId, WakeUp], None],
    ) -> None:
        def joined(assignment: _Assignment) -> None:
            self._assignment = assignment
            self._trouble = None
            self._assigned.set()
            on_assignment(assignment.shards)

        backoff = Backoff(RNG, BACKOFF)
        try:
            while True:
                try:
                    await self._run_membership(joined, on_wakeup)
                except (KafkaError, OSError, TimeoutError) as error:
                    self._trouble = repr(error)
                    if self._assignment is not None:
                        backoff.reset()
                    if backoff.failures_in_row == 0:
                        # Once per outage, not once per attempt.
                        group = self._kafka.settings.consumer_group
                        extra = {"event": "group.lost", "group": group, "error": repr(error)}
                        log.warning("Not in the consumer group; joining again", extra=extra)
                self._assignment = None
                await backoff.wait()
        finally:
            self._assignment = None
            await self._coordinator.close()

    async def confirmed_assignment(self) -> Set[ShardId]:
        while (asked := self._assignment) is not None:
            if not await self._coordinator.is_current(asked.membership):
                return frozenset()
            # Another assignment has arrived meanwhile, so the answer is about a generation that is over.
            if asked is self._assignment:
                return asked.shards
        return frozenset()

    async def member_processes(self) -> Set[ProcessId]:
        return await self._coordinator.processes()

    async def withdraw(self) -> None:
        """Asks the group for an assignment without shards for this process, the first step of an orderly stop. The owner
        works on while the others are told; it is told by `on_assignment` when they have its shards. Returns then, or if that
        takes longer than `WITHDRAW_S_MAX`. A static member withdraws nothing: it means to come back.
        """
        if self._consumer is None or self._assignment is None or self._kafka.settings.instance_id is not None:
            return
        self._withdrawn = True
        self._assigned.clear()
        join_again(self._consumer)
        try:
            async with asyncio.timeout(WITHDRAW_S_MAX):
                await self._assigned.wait()
        except TimeoutError:
            log.warning("The group gave no new assignment in time", extra={"event": "group.withdrawal_timed_out"})

    async def wake(self, shard: ShardId, wakeup: WakeUp) -> None:
        try:
            await self._send_wakeup(shard, wakeup_value.encode(wakeup))
        except DeliveryRefused as error:
            raise BrokerUnavailable(f"a wake-up was refused: {error}") from error

    async def _run_membership(
        self, on_assignment: Callable[[_Assignment], None], on_wakeup: Callable[[ShardId, WakeUp], None]
    ) -> None:
        """Joins the group and stays in it until the membership fails, or until cancelled."""
        consumer = self._consumer = self._new_consumer()
        listener = _Listener(consumer, self._telemetry, on_assignment)
        try:
            await consumer.start()
            # Not in the constructor: start() would then wait for the first assignment, however long that takes.
            consumer.subscribe([self._kafka.settings.shards_topic], listener=listener)
            while True:
                polled = await consumer.getmany(timeout_ms=POLL_MS, max_records=WAKEUPS_MAX)
                for where, records in polled.items():
                    self._hand_over(ShardId(where.partition), records, on_wakeup)
        finally:
            self._consumer = None
            if self._withdrawn:
                await asyncio.sleep(LEAVE_AFTER_S)
            await stop_consumer(consumer)

    def _new_consumer(self) -> AIOKafkaConsumer:
        settings = self._kafka.settings
        return AIOKafkaConsumer(
            **group_connection(self._kafka, member_role(self._process)),
            group_id=settings.consumer_group,
            group_instance_id=settings.instance_id,
            partition_assignment_strategy=(assignor_of(self._process, lambda: self._withdrawn),),
            enable_auto_commit=False,
            auto_offset_reset="latest",
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
        """Counts a wake-up that is skipped, and logs it once per cause: the scan finds the schedules that it announced."""
        self._telemetry.malformed("wakeup")
        cause = type(error.__cause__ or error).__name__
        if cause not in self._malformed_seen:
            self._malformed_seen.add(cause)
            log.warning("A wake-up cannot be read", extra={"event": "wakeup.malformed", "error": str(error)})


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    def __init__(
        self, consumer: AIOKafkaConsumer, telemetry: Telemetry, on_assignment: Callable[[_Assignment], None]
    ) -> None:
        self._consumer = consumer
        self._telemetry = telemetry
        self._on_assignment = on_assignment

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Not reported: the next assignment follows, and until then the owner's fences hold."""

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._telemetry.rebalance()
        generation, member_id = membership_of(self._consumer)
        membership = GroupMembership(generation=generation, member_id=member_id)
        shards = frozenset(ShardId(where.partition) for where in assigned)
        self._on_assignment(_Assignment(membership=membership, shards=shards))


def group_connection(kafka: KafkaContext, role: str) -> dict[str, Any]:
    """The arguments that every member of a consumer group takes."""
    settings, rebalance_ms = kafka.settings, kafka.timeouts.rebalance_ms
    return {
        **kafka.connection(role),
        "request_timeout_ms": rebalance_ms + JOIN_MARGIN_MS,
        "session_timeout_ms": settings.session_timeout_ms,
        "heartbeat_interval_ms": settings.heartbeat_interval_ms,
        "rebalance_timeout_ms": rebalance_ms,
    }


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Leaves the group (a static member stays in it: it means to come back) and closes, within a bounded time."""
    try:
        async with asyncio.timeout(LEAVE_S_MAX):
            await ended(consumer.stop())
        forgive_coordination(consumer)
    except (TimeoutError, KafkaError, OSError):
        # The error is not raised: it would replace the cancellation that makes us leave.
        log.warning(
            "Leaving the consumer group took too long; its session will time out",
            extra={"event": "group.leave_timed_out"},
        )
        await abandon_consumer(consumer)
