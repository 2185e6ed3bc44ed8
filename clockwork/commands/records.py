"""The records of commands: reading a command, writing its reply and its dead letter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from clockwork.commands import parse as commands
from clockwork.commands.parse import AnyCommand, ReplyTo, UnknownCommand
from clockwork.domain import record as names
from clockwork.domain.record import OutRecord
from clockwork.errors import FieldError, Forbidden, InvalidInput, JobsOff, TooManyJobs, TooManyPending, Unreadable
from clockwork.ports.commands import CommandRecord
from clockwork.ports.telemetry import CommandName
from clockwork.requests.jobs.results import JobView, RunView
from clockwork.requests.results import ScheduleView
from clockwork.schema import json as json_body
from clockwork.schema.job_render import render_job, render_run
from clockwork.schema.problems import Problem
from clockwork.schema.redaction import redact
from clockwork.schema.render import render_schedule
from clockwork.schema.schedule import TooLarge

VALUE_BYTES_MAX: Final = 2 * 1024 * 1024
"""The same as for an HTTP request with one schedule; a compressed record may be larger than its topic's limit."""
DETAIL_CHARS_MAX: Final = 1_000
_REPEATED: Final = (names.REPEATED, b"true")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadCommand:
    """A command's record, as far as it could be read."""

    record: CommandRecord
    kind: CommandName
    reply: ReplyTo | None
    command: AnyCommand | None
    wrong: InvalidInput | None


async def read_record(record: CommandRecord, *, cluster: str, now_ms: int) -> ReadCommand:
    """Reads and validates a command, without the stored state. An error is part of the result."""
    kind: CommandName = "unknown"
    reply: ReplyTo | None = None
    try:
        if len(record.value) > VALUE_BYTES_MAX:
            raise TooLarge([FieldError("body", f"is longer than {VALUE_BYTES_MAX} bytes")])
        document = await json_body.read_json(record.value, _unchanged)
        kind = commands.kind_of(document) or "unknown"
        reply = commands.reply_of(document, cluster=cluster)
        command = commands.read_command(
            document, record_key=record.key, cluster=cluster, now_ms=now_ms, traceparent=_traceparent(record)
        )
    except InvalidInput as wrong:
        return ReadCommand(record=record, kind=kind, reply=reply, command=None, wrong=wrong)
    return ReadCommand(record=record, kind=kind, reply=reply, command=command, wrong=None)


def view_reply(
    read: ReadCommand,
    view: ScheduleView | JobView | RunView,
    status: int,
    *,
    now_ms: int,
    redacted: bool,
    repeated: bool = False,
) -> OutRecord | None:
    """The reply that shows a schedule, a job or a run, if one is wanted. `redacted`: without its content. `repeated`: it is
    the present state, not the command's result."""
    shown: dict[str, Any]
    match view:
        case ScheduleView():
            shown = {"schedule": render_schedule(view)}
        case JobView():
            shown = {"job": render_job(view)}
        case RunView():
            shown = {"run": render_run(view)}
    document = {"status": status, **shown}
    shown_as = redact(document) if redacted else document
    return _reply(read, status, shown_as, [_REPEATED] if repeated else [], now_ms)


def problem_reply(
    read: ReadCommand, problem: Problem, *, now_ms: int, redacted: bool, repeated: bool = False
) -> OutRecord | None:
    """The reply with a problem document, if one is wanted. `redacted`: without the content of a schedule that it shows."""
    document = redact(problem.document()) if redacted else problem.document()
    return _reply(read, problem.status.value, document, [_REPEATED] if repeated else [], now_ms)


def _reply(
    read: ReadCommand, status: int, document: dict[str, Any], more: Sequence[tuple[str, bytes]], now_ms: int
) -> OutRecord | None:
    if read.reply is None:
        return None
    headers = [(names.COMMAND, read.kind.encode()), (names.STATUS, str(status).encode()), *more]
    if read.reply.correlation_id is not None:
        headers.append((names.CORRELATION_ID, read.reply.correlation_id.encode()))
    return OutRecord(
        topic=read.reply.topic,
        key=read.record.key,
        value=json_body.compact(document),
        headers=tuple(headers),
        timestamp_ms=now_ms,
    )


def dead_letter(read: ReadCommand, error: Exception, detail: str, *, of: str, to: str, now_ms: int) -> OutRecord:
    """The dead letter of a command: the record as it came, with the reason. `of`: the commands topic."""
    place = read.record.place
    return OutRecord(
        topic=to,
        key=read.record.key,
        value=read.record.value,
        headers=(
            # Without our own headers: a reader of dead letters takes those for Clockwork's word.
            *(h for h in read.record.headers if not h[0].lower().startswith(names.RESERVED_PREFIX)),
            (names.DEAD_TOPIC, of.encode()),
            (names.DEAD_REASON, _reason_of(error).encode()),
            (names.DEAD_ATTEMPTS, b"1"),
            (names.DEAD_DETAIL, detail[:DETAIL_CHARS_MAX].encode()),
            (names.DEAD_SOURCE, f"{place.kafka_partition}/{place.offset}".encode()),
        ),
        timestamp_ms=now_ms,
    )


def bare(letter: OutRecord) -> OutRecord:
    """The dead letter without the record, which is too large for the dead letters: its place and the reason."""
    return OutRecord(
        topic=letter.topic,
        key=None,
        value=b"",
        headers=tuple(h for h in letter.headers if h[0].startswith(names.RESERVED_PREFIX)),
        timestamp_ms=letter.timestamp_ms,
    )


def _unchanged(document: Any) -> Any:
    return document


def _traceparent(record: CommandRecord) -> str | None:
    values = [value for name, value in record.headers if name.lower() == names.TRACEPARENT]
    try:
        return values[0].decode("ascii") if len(values) == 1 else None
    except UnicodeDecodeError:
        # A malformed one is ignored, as W3C asks.
        return None


def _reason_of(error: Exception) -> str:
    """The reason as a short stable code."""
    match error:
        case UnknownCommand():
            return "command_unknown"
        case TooLarge():
            return "command_too_large"
        case InvalidInput() if [each.field for each in error.errors] == ["body"]:
            return "command_not_json"
        case InvalidInput():
            return "command_invalid"
        case Forbidden():
            return "command_forbidden"
        case TooManyPending():
            return "command_over_pending_max"
        case TooManyJobs():
            return "command_over_jobs_max"
        case JobsOff():
            return "command_jobs_off"
        case Unreadable():
            return "schedule_unreadable"
        case _:
            return "command_failed"
