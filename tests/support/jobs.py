"""Recurring jobs for tests: a job that is valid, its steps, and the arming over a store in memory."""

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any, Final

from clockwork.clock import Clock
from clockwork.domain.jobs.job import Job, JobTransaction, NewJob, RunDelivery
from clockwork.domain.jobs.steps import StepContext, after_end, create, ended_row, run_delivery_of
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.run import JobId
from clockwork.domain.schedule import DataForm, Failure, Guarantee, OrderingKey, RequestId, Row
from clockwork.domain.sharding import ShardId
from clockwork.domain.triggers.trigger import FixedRate, Trigger
from clockwork.domain.wakeup import WakeUp
from clockwork.firing.job_chains import JobChains
from clockwork.ports.jobs import JobStore
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import RunnerSettings
from clockwork.stores.memory.jobs import JobTables, MemoryJobStore
from clockwork.stores.memory.store import MemoryScheduleStore
from tests.support import builders
from tests.support.clocks import ManualClock, TrustedClock

JOB_ID: Final = JobId("nightly")
NOW_MS: Final = builders.DUE_MS
SHARDS: Final = 8
RETENTION_MS: Final = 3_600_000
EVERY_MINUTE: Final = Trigger(rule=FixedRate(every_ms=60_000, anchor_ms=NOW_MS))

_numbers = count(1)


def new_job(trigger: Trigger | None = EVERY_MINUTE, **fields: Any) -> NewJob:
    """A create of a job that runs every minute."""
    job_id = fields.pop("job_id", JOB_ID)
    defaults: dict[str, Any] = {
        "client_id": builders.CLIENT,
        "ordering_key": OrderingKey(job_id),
        "topic": builders.TOPIC,
        "guarantee": Guarantee.EXACTLY_ONCE,
        "task_data": b'{"report":1}',
        "data_form": DataForm.JSON,
        "digest": "digest",
        "created_at_ms": NOW_MS,
    }
    return NewJob(job_id=job_id, trigger=trigger, **{**defaults, **fields})


def step_context(now_ms: int = NOW_MS, **fields: Any) -> StepContext:
    """The circumstances of a step; each has numbers of its own."""
    number = next(_numbers)
    defaults: dict[str, Any] = {
        "accepted_us": now_ms * 1_000 + number,
        "random": number,
        "write_id": RequestId(f"step-{number}"),
        "shards": SHARDS,
        "retention_ms": RETENTION_MS,
    }
    return StepContext(now_ms=now_ms, **{**defaults, **fields})


def created(new: NewJob | None = None, now_ms: int = NOW_MS) -> JobTransaction:
    """A job that is made now."""
    wanted = new if new is not None else new_job()
    return create(replace(wanted, created_at_ms=now_ms), None, step_context(now_ms))


def definition(change: JobTransaction) -> Job:
    """The definition that a change puts."""
    assert change.definition is not None
    return change.definition


def the_row(change: JobTransaction) -> Row:
    """The only row that a change puts."""
    (row,) = change.rows
    return row


def delivered(row: Row, at_ms: int | None = None) -> MarkerEntry:
    """The end of a row by a record."""
    ended_ms = row.due_ms + 5 if at_ms is None else at_ms
    return MarkerEntry(shard=row.shard, position=row.position, at_ms=ended_ms, receipt=builders.receipt(at_ms=ended_ms))


def failed(row: Row, at_ms: int | None = None) -> MarkerEntry:
    """The end of a row by a dead letter."""
    return replace(delivered(row, at_ms), failure=Failure(reason="record_too_large", attempts=8))


def dropped(row: Row, at_ms: int | None = None, *, reason: str = "expired") -> MarkerEntry:
    """The end of a row for which nothing was sent."""
    return replace(delivered(row, at_ms), receipt=None, failure=Failure(reason=reason, attempts=0))


def next_armed(before: JobTransaction) -> JobTransaction:
    """The next occurrence is armed, after a delivery of the row that `before` puts."""
    row = the_row(before)
    return after_end(before.state, definition(before), ended_row(row, delivered(row)), step_context())


def delivery_of(change: JobTransaction) -> RunDelivery:
    """The log's entry of the delivery of the row that a change puts."""
    row = the_row(change)
    delivery = run_delivery_of(row, delivered(row), retention_ms=60_000)
    assert delivery is not None
    return delivery


class Woken(list[tuple[ShardId, WakeUp]]):
    """The wake-ups that were sent."""

    def __call__(self, shard: ShardId, wakeup: WakeUp) -> None:
        self.append((shard, wakeup))


def chains_on(
    jobs: JobStore,
    *,
    clock: Clock | None = None,
    trust: TrustedClock | None = None,
    wake: Callable[[ShardId, WakeUp], None] | None = None,
    **settings: Any,
) -> JobChains:
    """The arming over a store."""
    return JobChains(
        jobs,
        clock if clock is not None else ManualClock(NOW_MS),
        trust if trust is not None else TrustedClock(),
        random.Random(1),
        NoTelemetry(),
        RunnerSettings(**settings),
        shards=SHARDS,
        wake=wake if wake is not None else Woken(),
    )


def no_jobs() -> JobChains:
    """The arming of a cluster that has no jobs."""
    return chains_on(MemoryJobStore(MemoryScheduleStore(shards=1), JobTables()))
