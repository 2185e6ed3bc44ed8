"""CommandLog on a consumer group of its own: `<KAFKA_CONSUMER_GROUP>-commands`.

Read committed: what a producer sends inside its transaction is seen when that commits, and never if it does not.

Every Kafka partition has one task, which asks for records, has them worked off, and commits; so a slow one holds up nobody
but itself, and the group may poll on for the others. On a rebalance (eager: everything is revoked, most of it comes back)
all tasks are cancelled and new ones begin at the committed offset. A task that does not notice in time repeats what another
member does; the effects of both are one (`domain.command_notes`), and only the present member's commit is taken.

What is noted between effects and answers stands in the metadata of a commit that does not move the offset. Nothing else
depends on offsets: reset to the beginning, they cause reading, not effects, as long as the keys are remembered.
"""

import asyncio
import logging
import re
from collections.abc import Iterable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError

from clockwork.domain.command_notes import CommandOffset
from clockwork.errors import BrokerUnavailable
from clockwork.kafka.client import KafkaSettings
from clockwork.kafka.ownership import BACKOFF_S_INITIAL, BACKOFF_S_MAX, JOIN_MARGIN_MS, leave
from clockwork.ports.commands import CommandBatch, CommandRecord, ProcessBatch
from clockwork.ports.telemetry import Telemetry

log = logging.getLogger(__name__)

POLL_MS: Final = 500
"""How long one poll waits. Not a latency: a record ends the wait."""
RECORDS_MAX: Final = 200
"""Of one batch: what may be read again after a crash, and how much work one commit pays for."""
FETCH_BYTES_MAX: Final = 1_048_576
"""Of one Kafka partition: bounds what is held in memory."""
POLL_INTERVAL_MS_MAX: Final = 300_000
"""A member that has not polled for so long gives its Kafka partitions to others; longer than any usual outage."""
LOOK_S: Final = 1.0
"""How often a member without work looks for errors of its membership."""
_NOTED: Final = re.compile(r"effects before (\d{1,19})")


class KafkaCommandLog:
    """See `ports.CommandLog`."""

    def __init__(self, settings: KafkaSettings, telemetry: Telemetry) -> None:
        self._settings = settings
        self._telemetry = telemetry

    async def run(self, work: ProcessBatch) -> None:
        listener = _Listener()
        backoff_s = BACKOFF_S_INITIAL
        while True:
            listener.reset()
            try:
                await self._stay(listener, work)
            except* (KafkaError, OSError, TimeoutError) as errors:
                if listener.generation:
                    backoff_s = BACKOFF_S_INITIAL
                if backoff_s == BACKOFF_S_INITIAL:
                    # Once per outage, not once per try.
                    extra = {"event": "commands.lost", "group": self._settings.commands_group, "error": repr(errors)}
                    log.warning("Out of the commands' group; trying again", extra=extra)
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_S_MAX)

    async def _stay(self, listener: "_Listener", work: ProcessBatch) -> None:
        """One membership, until it fails or is cancelled."""
        consumer = self._consumer()
        try:
            await consumer.start()
            let_commits_end_alone(consumer)
            # Not in the constructor: start() would then wait for the first assignment, however long that takes.
            consumer.subscribe([self._settings.commands_topic], listener=listener)
            while True:
                await self._one_assignment(consumer, listener, work)
        finally:
            await leave(consumer)

    async def _one_assignment(self, consumer: AIOKafkaConsumer, listener: "_Listener", work: ProcessBatch) -> None:
        """Until the next one."""
        generation = listener.generation
        assigned = listener.assigned
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        self._one_partition(consumer, listener, generation, where, work),
                        name=f"commands {where.partition}",
                    )
                    for where in assigned
                ]
                while listener.generation == generation:
                    # An error of the membership is told to whoever polls, and a member without work does not.
                    consumer._coordinator.check_errors()
                    await listener.wait(LOOK_S)
                for task in tasks:
                    task.cancel()
        finally:
            for where in assigned:
                self._telemetry.commands_lag(where.partition, None)

    async def _one_partition(
        self,
        consumer: AIOKafkaConsumer,
        listener: "_Listener",
        generation: int,
        where: TopicPartition,
        work: ProcessBatch,
    ) -> None:
        try:
            noted = await self._go_to_committed(consumer, where)
            while True:
                polled = await consumer.getmany(where, timeout_ms=POLL_MS, max_records=RECORDS_MAX)
                records = polled.get(where, [])
                if not records:
                    self._show_lag(consumer, where, consumer_at=None)
                    continue
                end = records[-1].offset + 1
                self._show_lag(consumer, where, consumer_at=records[0].offset)
                over = sum(record.offset < noted for record in records)
                batch = CommandBatch(records=tuple(_record(record) for record in records), over=over)
                await work(batch, _Note(consumer, where, begin=records[0].offset, end=end))
                await consumer.commit({where: end})
        except KafkaError:
            # After a revocation every call fails, and that is how this task learns of it.
            if listener.generation == generation:
                raise

    async def _go_to_committed(self, consumer: AIOKafkaConsumer, where: TopicPartition) -> int:
        """Returns the offset below which effects are over.

        The consumer would begin there by itself, but not if the task before this one, in the moment before it was
        cancelled, took records that were fetched for the new assignment already: they would be skipped.
        """
        found = (await consumer._coordinator.fetch_committed_offsets([where])).get(where)
        if found is None or found.offset < 0:
            await consumer.seek_to_beginning(where)
            return 0
        consumer.seek(where, found.offset)
        form = _NOTED.fullmatch(found.metadata or "")
        return int(form[1]) if form is not None else 0

    def _show_lag(self, consumer: AIOKafkaConsumer, where: TopicPartition, *, consumer_at: int | None) -> None:
        if where in consumer.assignment():
            high = consumer.highwater(where) or 0
            # With nothing to read all is read, whatever control records stand at the end.
            self._telemetry.commands_lag(where.partition, 0 if consumer_at is None else max(0, high - consumer_at))

    def _consumer(self) -> AIOKafkaConsumer:
        settings = self._settings
        connection = settings.connection("commands")
        connection["request_timeout_ms"] = settings.rebalance_timeout_ms + JOIN_MARGIN_MS
        return AIOKafkaConsumer(
            **connection,
            group_id=settings.commands_group,
            partition_assignment_strategy=(RangePartitionAssignor,),
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES_MAX,
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=settings.heartbeat_interval_ms,
            rebalance_timeout_ms=settings.rebalance_timeout_ms,
            max_poll_interval_ms=POLL_INTERVAL_MS_MAX,
        )


def let_commits_end_alone(consumer: Any) -> None:
    """aiokafka shields the request of a commit: when its task is cancelled, as at a revocation, it goes on without anybody
    who waits. That the member has lost its place by then is no news, and must not be logged as an exception that nobody
    retrieved, which is what a defect looks like. Whoever does wait is told as ever."""
    ask = consumer._coordinator._do_commit_offsets

    async def asked(*arguments: Any) -> None:
        if (shielded := asyncio.current_task()) is not None:
            shielded.add_done_callback(lambda done: done.cancelled() or done.exception())
        await ask(*arguments)

    consumer._coordinator._do_commit_offsets = asked


class _Note:
    """Implements `ports.RecordEffects` for one batch."""

    def __init__(self, consumer: AIOKafkaConsumer, where: TopicPartition, *, begin: int, end: int) -> None:
        self._consumer = consumer
        self._where = where
        self._begin = begin
        self._end = end

    async def __call__(self) -> None:
        """Raises: BrokerUnavailable."""
        try:
            await self._consumer.commit({self._where: (self._begin, f"effects before {self._end}")})
        except (OSError, TimeoutError) as error:
            raise BrokerUnavailable(f"offsets could not be committed: {error!r}") from error


def _record(record: Any) -> CommandRecord:
    return CommandRecord(
        place=CommandOffset(kafka_partition=record.partition, offset=record.offset, at_ms=max(0, record.timestamp)),
        key=record.key,
        value=record.value or b"",
        headers=tuple((name, value or b"") for name, value in record.headers),
    )


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Records facts; the loop acts."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self.generation = 0
        """Counts what was revoked and assigned; 0: nothing yet."""
        self.assigned: frozenset[TopicPartition] = frozenset()

    def reset(self) -> None:
        self.generation, self.assigned = 0, frozenset()

    async def wait(self, seconds: float) -> None:
        """For a change, or so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._change(frozenset())

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._change(frozenset(assigned))
        where = sorted(each.partition for each in self.assigned)
        log.info("Commands are read", extra={"event": "commands.assigned", "kafka_partitions": str(where)})

    def _change(self, assigned: frozenset[TopicPartition]) -> None:
        self.generation += 1
        self.assigned = assigned
        self._changed.set()
