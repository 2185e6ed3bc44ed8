"""Commands: requests that a producer makes by a record of the commands topic, from JSON to values.

The record's key is the `clientId`; the value is JSON, with the fields of the HTTP API:

    {"command": "create",     "schedule": {…body of POST /schedule…}}
    {"command": "cancel",     "schedule": {"clientId", "scheduleKey"}}
    {"command": "reschedule", "schedule": {"clientId", "scheduleKey", …body of PUT…}, "ifVersion": 3}
    {"command": "createJob",  "job": {…body of POST /jobs…}}
    {"command": "updateJob",  "job": {"clientId", "jobId", …body of PUT…}, "ifVersion": 3}
    {"command": "deleteJob",  "job": {"clientId", "jobId"}, "ifVersion": 3}
    {"command": "pauseJob",   "job": {"clientId", "jobId", "note"}, "ifVersion": 3}
    {"command": "resumeJob",  "job": {"clientId", "jobId"}, "ifVersion": 3}
    {"command": "runJob",     "job": {"clientId", "jobId", …body of POST …/run-now…}}
    {"command": "completeRun",  "run": {"clientId", "jobId", "runId", …body of POST …/complete…}}
    {"command": "failRun",      "run": {"clientId", "jobId", "runId", …body of POST …/fail…}}
    {"command": "heartbeatRun", "run": {"clientId", "jobId", "runId", …body of POST …/heartbeat…}}

and, if a reply is wanted, `"replyTo": "topic"` and `"correlationId": "…"`. A `traceparent` header counts as over HTTP.

The key must be the `clientId`: a client's commands are carried out in order because they stand in one Kafka partition.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar, get_args

from clockwork.domain.destination import Topic
from clockwork.domain.jobs.job import CompletionReport, Heartbeat, JobName, NewJob, RunNow
from clockwork.domain.run import JobId, RunId
from clockwork.domain.schedule import ClientId, NewSchedule, ScheduleKey
from clockwork.errors import FieldError, InvalidInput, shortened
from clockwork.requests.results import ANY_VERSION, Change, VersionCondition
from clockwork.schema import change as changes
from clockwork.schema.completion import read_complete, read_fail, read_heartbeat, run_id_of
from clockwork.schema.job import JobPut, read_job, read_job_change, read_job_key, read_pause, read_run_now
from clockwork.schema.json import whole
from clockwork.schema.schedule import TooLarge, read_key, read_schedule, topic_of_clients
from clockwork.schema.validation import MEMBERS_MAX

ScheduleKind = Literal["create", "cancel", "reschedule"]
JobKind = Literal["createJob", "updateJob", "deleteJob", "pauseJob", "resumeJob", "runJob"]
ReportKind = Literal["completeRun", "failRun", "heartbeatRun"]
Kind = ScheduleKind | JobKind | ReportKind
KINDS: Final[tuple[Kind, ...]] = (*get_args(ScheduleKind), *get_args(JobKind), *get_args(ReportKind))
_CONDITIONAL: Final = frozenset({"reschedule", "updateJob", "deleteJob", "pauseJob", "resumeJob"})
CORRELATION_BYTES_MAX: Final = 512
_NAMES: Final = frozenset({"command", "replyTo", "correlationId", "ifVersion"})
"""Beside the member that names the schedule, the job or the run."""
_REPORTS: Final[Mapping[str, Callable[[Any], CompletionReport | Heartbeat]]] = {
    "completeRun": read_complete,
    "failRun": read_fail,
    "heartbeatRun": read_heartbeat,
}


_ANY_NAME: Final = JobName(ClientId("any"), JobId("any"))
"""In the place of a name that is wrong, while the rest is read."""
_Part = TypeVar("_Part")


class UnknownCommand(InvalidInput):
    """`command` names none of the commands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplyTo:
    """The topic of the reply, and the id that tells its reader which command it is for."""

    topic: Topic
    correlation_id: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A valid command about a schedule."""

    kind: ScheduleKind
    client_id: ClientId
    schedule_key: ScheduleKey
    asks: NewSchedule | Change | None
    """The schedule of a create, the change of a reschedule, None of a cancel."""
    condition: VersionCondition


@dataclass(frozen=True, kw_only=True, slots=True)
class JobCommand:
    """A valid command about a job."""

    kind: JobKind
    name: JobName
    asks: NewJob | JobPut | RunNow | str | None
    """The job of a create, the change of an update, the run; the note of a pause, if it has one."""
    condition: VersionCondition

    @property
    def client_id(self) -> ClientId:
        return self.name.client_id


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCommand:
    """A valid command about a run: a consumer's report."""

    kind: ReportKind
    name: JobName
    run_id: RunId
    report: CompletionReport | Heartbeat

    @property
    def client_id(self) -> ClientId:
        return self.name.client_id


AnyCommand = Command | JobCommand | RunCommand


def kind_of(document: Any) -> Kind | None:
    """The command that the document names; None if it names none."""
    found = document.get("command") if isinstance(document, dict) else None
    return next((kind for kind in KINDS if kind == found), None)


def reply_of(document: Any, *, cluster: str) -> ReplyTo | None:
    """The wanted reply. Read before the rest, so that an invalid command is answered too.

    Raises: InvalidInput.
    """
    if not isinstance(document, dict) or document.get("replyTo") is None:
        return None
    topic, correlation_id = document["replyTo"], document.get("correlationId")
    if not isinstance(topic, str):
        raise InvalidInput([FieldError("replyTo", "should be a string")])
    try:
        topic_of_clients(topic, cluster)
    except ValueError as error:
        raise InvalidInput([FieldError("replyTo", str(error))]) from error
    return ReplyTo(topic=Topic(topic), correlation_id=correlation_id if isinstance(correlation_id, str) else None)


def read_command(
    document: Any, *, record_key: bytes | None, cluster: str, now_ms: int, traceparent: str | None
) -> AnyCommand:
    """Raises: InvalidInput, UnknownCommand, TooLarge."""
    if not isinstance(document, dict):
        raise InvalidInput([FieldError("body", "should be a JSON object")])
    kind = kind_of(document)
    if kind is None:
        raise UnknownCommand([FieldError("command", f"should be {', '.join(KINDS[:-1])} or {KINDS[-1]}")])
    member = "run" if kind in _REPORTS else "job" if kind in get_args(JobKind) else "schedule"
    errors = _wrong_in_envelope(document, kind, member)
    command: AnyCommand | None = None
    try:
        command = _read(kind, document, document.get(member), cluster=cluster, now_ms=now_ms, traceparent=traceparent)
    except TooLarge as error:
        if not errors:
            raise TooLarge(_within(member, error)) from error
    except InvalidInput as error:
        errors += _within(member, error)
    if command is not None and record_key != command.client_id.encode():
        errors.append(FieldError(f"{member}.clientId", "should be the record's key, by which its order is kept"))
    if errors or command is None:
        raise InvalidInput(errors)
    return command


def _wrong_in_envelope(document: Mapping[str, Any], kind: Kind, member: str) -> list[FieldError]:
    unknown = [name for name in document if name not in _NAMES and name != member][:MEMBERS_MAX]
    errors = [FieldError(shortened(name), "is no field of this command") for name in unknown]
    correlation_id = document.get("correlationId")
    if correlation_id is not None:
        if not isinstance(correlation_id, str) or len(correlation_id.encode()) > CORRELATION_BYTES_MAX:
            errors.append(FieldError("correlationId", f"should be a string of at most {CORRELATION_BYTES_MAX} bytes"))
        if document.get("replyTo") is None:
            errors.append(FieldError("correlationId", "has no effect without replyTo"))
    if_version = whole(document.get("ifVersion"))
    if if_version is not None:
        if kind not in _CONDITIONAL:
            errors.append(FieldError("ifVersion", f"is not for {kind}"))
        elif not isinstance(if_version, int) or isinstance(if_version, bool):
            errors.append(FieldError("ifVersion", "should be an integer"))
    return errors


def _read(
    kind: Kind, document: Mapping[str, Any], inner: Any, *, cluster: str, now_ms: int, traceparent: str | None
) -> AnyCommand:
    if_version = whole(document.get("ifVersion"))
    condition = VersionCondition(any_of=frozenset({if_version})) if isinstance(if_version, int) else ANY_VERSION
    match kind:
        case "create":
            new = read_schedule(inner, cluster=cluster, now_ms=now_ms, traceparent=traceparent)
            return Command(
                kind=kind,
                client_id=new.client_id,
                schedule_key=new.schedule_key,
                asks=new,
                condition=condition,
            )
        case "cancel":
            client_id, schedule_key = read_key(inner)
            return Command(kind=kind, client_id=client_id, schedule_key=schedule_key, asks=None, condition=condition)
        case "reschedule":
            client_id, schedule_key = read_key(_named(inner, "clientId", "scheduleKey"))
            change = changes.read_put(
                inner, client_id=client_id, schedule_key=schedule_key, cluster=cluster, now_ms=now_ms
            )
            return Command(kind=kind, client_id=client_id, schedule_key=schedule_key, asks=change, condition=condition)
        case "createJob":
            job = read_job(inner, cluster=cluster, now_ms=now_ms, traceparent=traceparent)
            return JobCommand(kind=kind, name=job.name, asks=job, condition=condition)
        case "completeRun" | "failRun" | "heartbeatRun":
            given = _object(inner)
            parser = _Parser()
            name = parser.of(lambda: _job_name_of(given))
            run_id = parser.of(lambda: _run_id_of(given))
            report = parser.of(lambda: _REPORTS[kind](_without(given, "clientId", "jobId", "runId")))
            if name is None or run_id is None or report is None:
                raise InvalidInput(parser.errors)
            return RunCommand(kind=kind, name=name, run_id=run_id, report=report)
        case _:
            given = _object(inner)
            parser = _Parser()
            name = parser.of(lambda: _job_name_of(given))
            rest = _without(given, "clientId", "jobId")
            asks = parser.of(lambda: _asked_of(kind, name or _ANY_NAME, rest, cluster, now_ms))
            if name is None or parser.errors:
                raise InvalidInput(parser.errors)
            return JobCommand(kind=kind, name=name, asks=asks, condition=condition)


class _Parser:
    """Reads the parts of a command, so that all wrong fields of all of them are told at once."""

    def __init__(self) -> None:
        self.errors: list[FieldError] = []

    def of(self, read: Callable[[], _Part]) -> _Part | None:
        """The part; None: it is wrong. Raises: TooLarge, unless another part is wrong."""
        try:
            return read()
        except TooLarge:
            if not self.errors:
                raise
        except InvalidInput as wrong:
            self.errors += wrong.errors
        return None


def _asked_of(
    kind: JobKind, name: JobName, rest: Mapping[str, Any], cluster: str, now_ms: int
) -> JobPut | RunNow | str | None:
    match kind:
        case "updateJob":
            client_id, job_id = name
            return read_job_change(rest, client_id=client_id, job_id=job_id, cluster=cluster, now_ms=now_ms)
        case "pauseJob":
            return read_pause(rest)
        case "runJob":
            return read_run_now(rest)
        case _:
            changes.read_nothing(rest)
            return None


def _object(inner: Any) -> dict[str, Any]:
    if not isinstance(inner, dict):
        raise InvalidInput([FieldError("body", "should be a JSON object")])
    return inner


def _without(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in names}


def _job_name_of(given: Mapping[str, Any]) -> JobName:
    return JobName(*read_job_key(_named(given, "clientId", "jobId")))


def _run_id_of(inner: Mapping[str, Any]) -> RunId:
    text = inner.get("runId")
    if not isinstance(text, str):
        raise InvalidInput([FieldError("runId", "should be a string" if "runId" in inner else "is required")])
    try:
        return run_id_of(text)
    except ValueError as error:
        raise InvalidInput([FieldError("runId", str(error))]) from error


def _named(inner: Any, *names: str) -> dict[str, Any] | None:
    """The members that name a schedule or a job; None: it is no object."""
    return {name: inner[name] for name in names if name in inner} if isinstance(inner, dict) else None


def _within(member: str, error: InvalidInput) -> list[FieldError]:
    return [
        FieldError(member if each.field == "body" else f"{member}.{each.field}", each.message) for each in error.errors
    ]
