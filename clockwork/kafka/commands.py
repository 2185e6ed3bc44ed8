"""CommandLog on a consumer group of its own: `<KAFKA_CONSUMER_GROUP>-commands`.

Read committed: a record sent inside a producer's transaction is seen when that commits, and never if it does not.

Every Kafka partition has one task, which reads records, has them processed, and commits; so a slow Kafka partition
holds up itself alone, and the others are polled on. On a rebalance (eager: everything is revoked, most of it comes
back) all tasks are cancelled and new ones begin at the committed offset. A task that does not notice in time repeats
commands that another member processes; together they have one effect (`domain.command_notes`), and only the present
member's commit is accepted: each commit names the generation of the assignment that its commands were read under.

`ports.RecordEffects` writes the metadata of a commit that does not move the offset. Nothing else depends on offsets:
reset to the beginning, they cause reading, not effects, as long as the keys are remembered.
"""

import asyncio
import logging
import re
from collections.abc import Iterable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from clockwork.concurrency import Backoff
from clockwork.domain.command_notes import CommandOffset
from clockwork.errors import BrokerUnavailable
from clockwork.kafka.aiokafka_internals import commit_once, committed_offset, membership_of
from clockwork.kafka.client import RNG, KafkaContext
from clockwork.kafka.ownership import BACKOFF, group_connection, stop_consumer
from clockwork.ports.commands import CommandBatch, CommandRecord, ProcessBatch
from clockwork.ports.telemetry import Telemetry

log = logging.getLogger(__name__)

POLL_MS: Final = 500
"""Longest wait of one poll. No latency follows from it: a record ends the wait."""
RECORDS_MAX: Final = 200
"""Most records of one batch: they share one commit, and all of them may be read again after a crash."""
RECORDS_FIRST: Final = 10
"""Records of the first batch after an assignment."""
BATCH_S: Final = 1.0
"""Time within which a batch should be committed; see `records_of_next`."""
FETCH_BYTES_MAX: Final = 1_048_576
"""Bytes of one Kafka partition that are held in memory."""
POLL_INTERVAL_MS_MAX: Final = 300_000
"""A member that has not polled for so long gives its Kafka partitions to others; longer than any usual outage."""
LOOK_S: Final = 1.0
"""Interval at which a member without Kafka partitions looks for errors of its membership."""
_NOTED: Final = re.compile(r"effects before (\d{1,19})")


class KafkaCommandLog:
    """See `ports.CommandLog`."""

    def __init__(self, kafka: KafkaContext, telemetry: Telemetry) -> None:
        self._kafka = kafka
        self._telemetry = telemetry

    async def run(self, work: ProcessBatch) -> None:
        listener = _Listener()
        backoff = Backoff(RNG, BACKOFF)
        while True:
            async with asyncio.TaskGroup() as group:
                # In a task that raises none of these errors: the task group of a membership that is ending with errors
                # swallows a cancellation (before Python 3.13), and a node that is stopped in that moment would never stop.
                group.create_task(self._stay_until_lost(listener, backoff, work), name="commands' membership")
            await backoff.wait()

    async def _stay_until_lost(self, listener: "_Listener", backoff: Backoff, work: ProcessBatch) -> None:
        try:
            await self._run_membership(listener, work)
        except* (KafkaError, OSError, TimeoutError) as errors:
            if listener.generation:
                backoff.reset()
            if backoff.failures_in_row == 0:
                # Once per outage, not once per attempt.
                group = self._kafka.settings.commands_group
                extra = {"event": "commands.lost", "group": group, "error": repr(errors)}
                log.warning("Not in the commands' group; joining again", extra=extra)

    async def _run_membership(self, listener: "_Listener", work: ProcessBatch) -> None:
        """Joins the group and works until the membership fails, or until cancelled."""
        consumer = self._consumer()
        listener.begin(consumer)
        try:
            await consumer.start()
            # Not in the constructor: start() would then wait for the first assignment, however long that takes.
            consumer.subscribe([self._kafka.settings.commands_topic], listener=listener)
            while True:
                await self._one_assignment(consumer, listener, work)
        finally:
            await stop_consumer(consumer)

    async def _one_assignment(self, consumer: AIOKafkaConsumer, listener: "_Listener", work: ProcessBatch) -> None:
        """Works until the next assignment."""
        generation = listener.generation
        assigned = listener.assigned
        membership = listener.membership
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        self._one_partition(consumer, membership, listener, generation, where, work),
                        name=f"commands {where.partition}",
                    )
                    for where in assigned
                ]
                while listener.generation == generation:
                    if not assigned:
                        # Raises the errors of the membership, which aiokafka raises only from a poll.
                        await consumer.getmany(timeout_ms=0)
                    await listener.wait(LOOK_S)
                for task in tasks:
                    task.cancel()
        finally:
            for where in assigned:
                self._telemetry.commands_lag(where.partition, None)

    async def _one_partition(
        self,
        consumer: AIOKafkaConsumer,
        membership: tuple[int, str],
        listener: "_Listener",
        generation: int,
        where: TopicPartition,
        work: ProcessBatch,
    ) -> None:
        try:
            noted = await self._go_to_committed(consumer, where)
            records_max, loop = RECORDS_FIRST, asyncio.get_running_loop()
            while True:
                polled = await consumer.getmany(where, timeout_ms=POLL_MS, max_records=records_max)
                records = polled.get(where, [])
                if not records:
                    self._show_lag(consumer, where, next_offset=None)
                    continue
                begin, end = records[0].offset, records[-1].offset + 1
                self._show_lag(consumer, where, next_offset=begin)
                over = sum(record.offset < noted for record in records)
                batch = CommandBatch(records=tuple(_record(record) for record in records), over=over)

                async def note_effects(begin: int = begin, end: int = end) -> None:
                    """See `ports.RecordEffects`. Raises: BrokerUnavailable."""
                    try:
                        await commit(consumer, membership, where, begin, _effects_before(end))
                    except (OSError, TimeoutError) as error:
                        raise BrokerUnavailable(f"offsets could not be committed: {error!r}") from error

                begun_s = loop.time()
                await work(batch, note_effects)
                # The note of a larger batch, made before a restart, still holds for its records that are left.
                await commit(consumer, membership, where, end, _effects_before(noted) if end < noted else "")
                records_max = records_of_next(records_max, loop.time() - begun_s)
        except KafkaError:
            # After a revocation every call fails, and that is how this task learns of it.
            if listener.generation == generation:
                raise

    async def _go_to_committed(self, consumer: AIOKafkaConsumer, where: TopicPartition) -> int:
        """Returns the offset below which effects are over.

        The consumer would begin there by itself, but not if the task before this one, in the moment before it was
        cancelled, took records that were fetched for the new assignment already: they would be skipped.
        """
        found = await committed_offset(consumer, where)
        if found is None:
            await consumer.seek_to_beginning(where)
            return 0
        consumer.seek(where, found.offset)
        form = _NOTED.fullmatch(found.metadata or "")
        return int(form[1]) if form is not None else 0

    def _show_lag(self, consumer: AIOKafkaConsumer, where: TopicPartition, *, next_offset: int | None) -> None:
        if where in consumer.assignment():
            high = consumer.highwater(where) or 0
            # Without a next record the lag is 0, although control records may stand at the end.
            self._telemetry.commands_lag(where.partition, 0 if next_offset is None else max(0, high - next_offset))

    def _consumer(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **group_connection(self._kafka, "commands"),
            group_id=self._kafka.settings.commands_group,
            partition_assignment_strategy=(RangePartitionAssignor,),
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES_MAX,
            max_poll_interval_ms=POLL_INTERVAL_MS_MAX,
        )


def _effects_before(offset: int) -> str:
    return f"effects before {offset}"  # read by `_NOTED`


def records_of_next(records: int, took_s: float) -> int:
    """The most records of the next batch, after one of at most so many that took so long: twice as many, while these can be
    expected to take no longer than `BATCH_S`; half, if it took longer.

    Not a fixed number: where the store is slow and members come and go, 200 commands can take longer than an assignment
    lasts. Their offset would then never be committed, and the same ones be read for ever. (Seen with a rebalance every three
    seconds: no command was answered until they were over.)
    """
    if took_s > BATCH_S:
        return max(1, records // 2)
    return min(RECORDS_MAX, records * 2) if took_s < BATCH_S / 2 else records


async def commit(
    consumer: AIOKafkaConsumer, membership: tuple[int, str], where: TopicPartition, offset: int, metadata: str = ""
) -> None:
    """Commits an offset; tries again while the coordinator does not answer, as long as the membership lasts.

    Raises: KafkaError.
    """
    backoff = Backoff(RNG, BACKOFF)
    while True:
        try:
            await commit_once(consumer, membership, where, OffsetAndMetadata(offset, metadata))
        except KafkaError as error:
            if not error.retriable:
                raise
            await backoff.wait()
        else:
            return


def _record(record: Any) -> CommandRecord:
    return CommandRecord(
        place=CommandOffset(kafka_partition=record.partition, offset=record.offset, at_ms=max(0, record.timestamp)),
        key=record.key,
        value=record.value or b"",
        headers=tuple((name, value or b"") for name, value in record.headers),
    )


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Records the assignments; the loop acts on them."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self.generation = 0
        """The number of revocations and assignments so far."""
        self.assigned: frozenset[TopicPartition] = frozenset()
        self.membership = (-1, "")
        """The group's generation and the member id that the assignment belongs to."""
        self._consumer: AIOKafkaConsumer | None = None

    def begin(self, consumer: AIOKafkaConsumer) -> None:
        """Begins the membership of another consumer."""
        self.generation, self.assigned, self._consumer = 0, frozenset(), consumer

    async def wait(self, seconds: float) -> None:
        """Waits for a change, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._change(frozenset())

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        # Not when the tasks of this assignment begin: the membership may be over by then.
        self.membership = membership_of(self._consumer)
        self._change(frozenset(assigned))
        where = sorted(each.partition for each in self.assigned)
        log.info("Commands are read", extra={"event": "commands.assigned", "kafka_partitions": str(where)})

    def _change(self, assigned: frozenset[TopicPartition]) -> None:
        self.generation += 1
        self.assigned = assigned
        self._changed.set()
