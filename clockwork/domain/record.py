"""Records: the one that a consumer receives, and its dead letter (docs/design.md, 6)."""

from dataclasses import dataclass
from typing import Final

from clockwork.domain.names import KEY_BYTES_MAX, TOPIC_CHARS_MAX
from clockwork.domain.run import RunOfRow
from clockwork.domain.schedule import BrokenRow, Failure, Schedule

RESERVED_PREFIX: Final = "clockwork-"
"""Prefix of Clockwork's own headers, in any letter case."""

CLIENT_ID: Final = "clockwork-client-id"
SCHEDULE_KEY: Final = "clockwork-schedule-key"
SCHEDULE_TIME: Final = "clockwork-schedule-time"
DELIVERY_ID: Final = "clockwork-delivery-id"
JOB_ID: Final = "clockwork-job-id"
JOB_VERSION: Final = "clockwork-job-version"
RUN_ID: Final = "clockwork-run-id"
RUN_KIND: Final = "clockwork-run-kind"
RUN_ATTEMPT: Final = "clockwork-run-attempt"
SCHEDULED_AT: Final = "clockwork-scheduled-at"
PREVIOUS_AT: Final = "clockwork-previous-at"
RUN_UNTIL: Final = "clockwork-run-until"
"""The time by which the run is to be completed."""
PRIORITY: Final = "clockwork-priority"
TRACEPARENT: Final = "traceparent"
DEAD_TOPIC: Final = "clockwork-topic"
DEAD_REASON: Final = "clockwork-reason"
DEAD_ATTEMPTS: Final = "clockwork-attempts"
DEAD_REFUSAL: Final = "clockwork-last-refusal"
"""In dead letters whose record was refused: the reason of the last refusal."""
DEAD_DETAIL: Final = "clockwork-detail"
"""In dead letters of commands only: the error in words."""
DEAD_SOURCE: Final = "clockwork-source"
"""In dead letters of commands only: Kafka partition and offset in the commands topic."""
CORRELATION_ID: Final = "clockwork-correlation-id"
STATUS: Final = "clockwork-status"
COMMAND: Final = "clockwork-command"
REPEATED: Final = "clockwork-repeated"
"""In a reply: the command was processed before; the reply shows the present state."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OutRecord:
    """A record to send."""

    topic: str
    key: bytes | None
    value: bytes | None
    """None: no value; compaction then removes the earlier records of the key, and in time this one."""
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int

    @property
    def size_bytes(self) -> int:
        """The size that the broker's limit counts, within a few bytes of framing."""
        headers = sum(len(name) + len(value) + 4 for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers + 16


def delivery_of(schedule: Schedule, *, now_ms: int, job: RunOfRow | None = None) -> OutRecord:
    """The record of a schedule, or of an occurrence of a job, sent at `now_ms`."""
    return OutRecord(
        topic=schedule.topic,
        key=schedule.ordering_key.encode(),
        value=schedule.task_data,
        headers=_headers(schedule, job, now_ms),
        timestamp_ms=now_ms,
    )


def dead_letter_of(
    schedule: Schedule, failure: Failure, *, topic: str, now_ms: int, job: RunOfRow | None = None
) -> OutRecord:
    """The same record for a dead-letter topic, with its own topic and the reason of its failure."""
    return OutRecord(
        topic=topic,
        key=schedule.ordering_key.encode(),
        value=schedule.task_data,
        headers=(*_headers(schedule, job, now_ms), *_post_mortem(schedule.topic, failure)),
        timestamp_ms=now_ms,
    )


def dead_letter_of_broken(row: BrokenRow, failure: Failure, *, topic: str, now_ms: int) -> OutRecord:
    """The dead letter of an unreadable row: its raw item, and its lane as far as that is plausible. A key or a topic of
    hundreds of kilobytes, beside the raw item, would make a dead letter that the topic refuses."""
    topic_meant, ordering_key = row.lane if row.lane is not None else ("", "")
    names: list[tuple[str, bytes]] = []
    if row.client_id is not None:
        names.append((CLIENT_ID, row.client_id.encode()))
    if row.schedule_key is not None:
        names.append((SCHEDULE_KEY, row.schedule_key.encode()))
    names.append((SCHEDULE_TIME, str(row.due_ms).encode()))
    return OutRecord(
        topic=topic,
        key=ordering_key.encode() if 0 < len(ordering_key.encode()) <= KEY_BYTES_MAX else None,
        value=row.raw,
        headers=(*names, *_post_mortem(topic_meant[:TOPIC_CHARS_MAX], failure)),
        timestamp_ms=now_ms,
    )


def _headers(schedule: Schedule, job: RunOfRow | None, now_ms: int) -> tuple[tuple[str, bytes], ...]:
    ours = [
        (CLIENT_ID, schedule.client_id.encode()),
        (SCHEDULE_KEY, schedule.schedule_key.encode()),
        (SCHEDULE_TIME, str(schedule.due_ms).encode()),
        (DELIVERY_ID, schedule.delivery_id.encode()),
    ]
    if job is not None:
        ours += _job_headers(schedule, job, now_ms)
    ours += [(name, value.encode()) for name, value in schedule.headers]
    if schedule.traceparent is not None:
        ours.append((TRACEPARENT, schedule.traceparent.encode()))
    return tuple(ours)


def _job_headers(schedule: Schedule, job: RunOfRow, now_ms: int) -> list[tuple[str, bytes]]:
    values: list[tuple[str, str | int | None]] = [
        (JOB_ID, schedule.schedule_key),
        (JOB_VERSION, job.version),
        (RUN_ID, job.run_id),
        (RUN_KIND, job.kind),
        (RUN_ATTEMPT, job.attempt),
        (SCHEDULED_AT, job.scheduled_at_ms),
        (PREVIOUS_AT, job.previous_at_ms),
        (RUN_UNTIL, None if job.timeout_ms is None else now_ms + job.timeout_ms),
        (PRIORITY, job.priority),
    ]
    return [(name, str(value).encode()) for name, value in values if value is not None]


def _post_mortem(topic: str, failure: Failure) -> tuple[tuple[str, bytes], ...]:
    refusal = [] if failure.last_refusal is None else [(DEAD_REFUSAL, failure.last_refusal.encode())]
    return (
        (DEAD_TOPIC, topic.encode()),
        (DEAD_REASON, failure.reason.encode()),
        (DEAD_ATTEMPTS, str(failure.attempts).encode()),
        *refusal,
    )
