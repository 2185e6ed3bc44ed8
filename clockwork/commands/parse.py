"""Commands: requests that a producer makes by a record of the commands topic, from JSON to values.

The record's key is the `clientId`; the value is JSON, with the fields of the HTTP API:

    {"command": "create",     "schedule": {…body of POST /schedule…}}
    {"command": "cancel",     "schedule": {"clientId", "scheduleKey"}}
    {"command": "reschedule", "schedule": {"clientId", "scheduleKey", …body of PUT…}, "ifVersion": 3}

and, if a reply is wanted, `"replyTo": "topic"` and `"correlationId": "…"`. A `traceparent` header counts as over HTTP.

The key must be the `clientId`: a client's commands are carried out in order because they stand in one Kafka partition.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from clockwork.domain.destination import Topic
from clockwork.domain.schedule import ClientId, NewSchedule, ScheduleKey
from clockwork.errors import FieldError, InvalidInput, shortened
from clockwork.requests.results import ANY_VERSION, Change, VersionCondition
from clockwork.schema import change as changes
from clockwork.schema.json import whole
from clockwork.schema.schedule import TooLarge, read_key, read_schedule, topic_of_clients
from clockwork.schema.validation import MEMBERS_MAX

Kind = Literal["create", "cancel", "reschedule"]
CORRELATION_BYTES_MAX: Final = 512
_NAMES: Final = frozenset({"command", "schedule", "replyTo", "correlationId", "ifVersion"})


class UnknownCommand(InvalidInput):
    """`command` names none of the commands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplyTo:
    """The topic of the reply, and the id that tells its reader which command it is for."""

    topic: Topic
    correlation_id: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A valid command."""

    kind: Kind
    client_id: ClientId
    schedule_key: ScheduleKey
    asks: NewSchedule | Change | None
    """The schedule of a create, the change of a reschedule, None of a cancel."""
    condition: VersionCondition


def kind_of(document: Any) -> Kind | None:
    """The command that the document names; None if it names none."""
    found = document.get("command") if isinstance(document, dict) else None
    return next((kind for kind in get_args(Kind) if kind == found), None)


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
) -> Command:
    """Raises: InvalidInput, UnknownCommand, TooLarge."""
    if not isinstance(document, dict):
        raise InvalidInput([FieldError("body", "should be a JSON object")])
    kind = kind_of(document)
    if kind is None:
        raise UnknownCommand([FieldError("command", "should be create, cancel or reschedule")])
    errors = _wrong_in_envelope(document, kind)
    schedule = document.get("schedule")
    command: Command | None = None
    try:
        command = _read(kind, schedule, document, cluster=cluster, now_ms=now_ms, traceparent=traceparent)
    except TooLarge as error:
        if not errors:
            raise TooLarge(_within_schedule(error)) from error
    except InvalidInput as error:
        errors += _within_schedule(error)
    if command is not None and record_key != command.client_id.encode():
        errors.append(FieldError("schedule.clientId", "should be the record's key, by which its order is kept"))
    if errors or command is None:
        raise InvalidInput(errors)
    return command


def _wrong_in_envelope(document: Mapping[str, Any], kind: Kind) -> list[FieldError]:
    unknown = [name for name in document if name not in _NAMES][:MEMBERS_MAX]
    errors = [FieldError(shortened(name), "is no field of a command") for name in unknown]
    correlation_id = document.get("correlationId")
    if correlation_id is not None:
        if not isinstance(correlation_id, str) or len(correlation_id.encode()) > CORRELATION_BYTES_MAX:
            errors.append(FieldError("correlationId", f"should be a string of at most {CORRELATION_BYTES_MAX} bytes"))
        if document.get("replyTo") is None:
            errors.append(FieldError("correlationId", "has no effect without replyTo"))
    if_version = whole(document.get("ifVersion"))
    if if_version is not None:
        if kind != "reschedule":
            errors.append(FieldError("ifVersion", "is for reschedule"))
        elif not isinstance(if_version, int) or isinstance(if_version, bool):
            errors.append(FieldError("ifVersion", "should be an integer"))
    return errors


def _read(
    kind: Kind, schedule: Any, document: Mapping[str, Any], *, cluster: str, now_ms: int, traceparent: str | None
) -> Command:
    asks: NewSchedule | Change | None = None
    if kind == "create":
        asks = read_schedule(schedule, cluster=cluster, now_ms=now_ms, traceparent=traceparent)
        client_id, schedule_key = asks.client_id, asks.schedule_key
    elif kind == "cancel":
        client_id, schedule_key = read_key(schedule)
    else:
        named = (
            {n: v for n, v in schedule.items() if n in ("clientId", "scheduleKey")} if _is_object(schedule) else None
        )
        client_id, schedule_key = read_key(named)
        asks = changes.read_put(
            schedule, client_id=client_id, schedule_key=schedule_key, cluster=cluster, now_ms=now_ms
        )
    if_version = whole(document.get("ifVersion"))
    return Command(
        kind=kind,
        client_id=client_id,
        schedule_key=schedule_key,
        asks=asks,
        condition=VersionCondition(any_of=frozenset({if_version})) if isinstance(if_version, int) else ANY_VERSION,
    )


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _within_schedule(error: InvalidInput) -> list[FieldError]:
    return [
        FieldError("schedule" if each.field == "body" else f"schedule.{each.field}", each.message)
        for each in error.errors
    ]
