"""Conversion between recurring jobs and the columns of their tables. Pure; the columns' names and types are here, the
members of the bodies in `stores.job_forms`.

A body is JSON. The data of a job is a column beside it: bytes would be a third longer in JSON. So is the creation of the job
that a definition belongs to: definitions are deleted by it.
"""

import zlib
from collections.abc import Iterable
from typing import Any, Final

import orjson

from clockwork.domain.jobs.calendar import Calendar
from clockwork.domain.jobs.job import Job, JobName, JobState, RunCompletion, RunDelivery, RunRequest, SkippedTimes
from clockwork.domain.names import KEY_BYTES_MAX, is_client_id
from clockwork.domain.position import text_of
from clockwork.domain.run import JobId
from clockwork.domain.schedule import ClientId
from clockwork.errors import Unreadable
from clockwork.stores.forms import Stored
from clockwork.stores.job_forms import (
    CALENDAR,
    COMPLETION,
    CREATED_AT,
    FORMAT,
    JOB,
    REQUEST,
    RUN_DELIVERY,
    SKIPPED,
    STATE,
    TASK_DATA,
)
from clockwork.stores.postgres.codec import Columns, check_format, mapping, stored_position

NAME: Final[Columns] = (("client_id", "text"), ("job_id", "bytea"))
STATE_COLUMNS: Final[Columns] = (*NAME, ("spread", "bigint"), ("rev", "bigint"), ("body", "bytea"), ("format", "int"))
DEFINITION: Final[Columns] = (
    *NAME,
    ("version", "bigint"),
    ("created_at_ms", "bigint"),
    ("body", "bytea"),
    ("task_data", "bytea"),
    ("format", "int"),
)
LOG: Final[Columns] = (
    *NAME,
    ("position", "numeric"),
    ("kind", "text"),
    ("body", "bytea"),
    ("expires_at_s", "bigint"),
    ("format", "int"),
)
COMPLETED: Final[Columns] = (
    *NAME,
    ("position", "numeric"),
    ("body", "bytea"),
    ("expires_at_s", "bigint"),
    ("format", "int"),
)
ASKED: Final[Columns] = (
    *NAME,
    ("request_id", "bytea"),
    ("body", "bytea"),
    ("expires_at_s", "bigint"),
    ("format", "int"),
)
CALENDAR_COLUMNS: Final[Columns] = (
    ("client_id", "text"),
    ("name", "text"),
    ("digest", "text"),
    ("by", "text"),
    ("body", "bytea"),
    ("format", "int"),
)
SPREAD: Final = 2**32
"""Names of jobs are spread over numbers from 0 to below this."""
_RUN: Final = "run"
_SKIPPED: Final = "skipped"

Values = tuple[Any, ...]


def name_values(name: JobName) -> tuple[str, bytes]:
    """The values of `NAME`."""
    return name.client_id, name.job_id.encode()


def name_of(client_id: str, job_id: bytes) -> JobName:
    """Reads the values of `NAME`. Raises: Unreadable."""
    if not is_client_id(client_id) or not 0 < len(job_id) <= KEY_BYTES_MAX:
        raise Unreadable("client_id, job_id: not a legal name")
    try:
        return JobName(ClientId(client_id), JobId(job_id.decode()))
    except UnicodeDecodeError as error:
        raise Unreadable("job_id: not UTF-8") from error


def spread_of(name: JobName) -> int:
    """A hash of a name, which is stored: the audit of a segment reads the jobs in a range of it."""
    return zlib.crc32(str(name).encode())


def state_values(state: JobState) -> Values:
    """The values of `STATE_COLUMNS`."""
    return (*name_values(state.name), spread_of(state.name), state.rev, _body(STATE.write(state)), FORMAT)


def state_of(values: Iterable[Any]) -> JobState:
    """Reads the values of `STATE_COLUMNS`. Raises: Unreadable, NewerFormat."""
    client_id, job_id, _, rev, body, written_in = values
    name = name_of(client_id, job_id)
    return STATE.read(_form(body, written_in), client_id=name.client_id, job_id=name.job_id, rev=rev)


def definition_values(job: Job) -> Values:
    """The values of `DEFINITION`."""
    form = JOB.write(job)
    task_data, created_at_ms = form.pop(TASK_DATA), form.pop(CREATED_AT)
    return (*name_values(job.name), job.version, created_at_ms, _body(form), task_data, FORMAT)


def definition_of(values: Iterable[Any]) -> Job:
    """Reads the values of `DEFINITION`. Raises: Unreadable, NewerFormat."""
    client_id, job_id, version, created_at_ms, body, task_data, written_in = values
    name = name_of(client_id, job_id)
    form = _form(body, written_in) | {CREATED_AT: created_at_ms, TASK_DATA: task_data}
    return JOB.read(form, client_id=name.client_id, job_id=name.job_id, version=version)


def log_values(entry: RunDelivery | SkippedTimes) -> Values:
    """The values of `LOG`."""
    kind, form = (
        (_RUN, RUN_DELIVERY.write(entry)) if isinstance(entry, RunDelivery) else (_SKIPPED, SKIPPED.write(entry))
    )
    return (*name_values(entry.name), text_of(entry.position), kind, _body(form), entry.expires_at_s, FORMAT)


def log_entry_of(values: Iterable[Any]) -> RunDelivery | SkippedTimes:
    """Reads the values of `LOG`. Raises: Unreadable, NewerFormat."""
    client_id, job_id, position, kind, body, expires_at_s, written_in = values
    form, place = _form(body, written_in), _place(client_id, job_id, position, expires_at_s)
    match kind:
        case "run":
            return RUN_DELIVERY.read(form, **place)
        case "skipped":
            return SKIPPED.read(form, **place)
        case _:
            raise Unreadable("kind: unknown value")


def completion_values(completion: RunCompletion) -> Values:
    """The values of `COMPLETED`."""
    body = _body(COMPLETION.write(completion))
    return (*name_values(completion.name), text_of(completion.position), body, completion.expires_at_s, FORMAT)


def completion_of(values: Iterable[Any]) -> RunCompletion:
    """Reads the values of `COMPLETED`. Raises: Unreadable, NewerFormat."""
    client_id, job_id, position, body, expires_at_s, written_in = values
    return COMPLETION.read(_form(body, written_in), **_place(client_id, job_id, position, expires_at_s))


def request_values(request: RunRequest) -> Values:
    """The values of `ASKED`."""
    name = JobName(request.client_id, request.job_id)
    body = _body(REQUEST.write(request))
    return (*name_values(name), request.request_id.encode(), body, request.expires_at_s, FORMAT)


def request_of(values: Iterable[Any]) -> RunRequest:
    """Reads the values of `ASKED`. Raises: Unreadable, NewerFormat."""
    client_id, job_id, request_id, body, expires_at_s, written_in = values
    name = name_of(client_id, job_id)
    try:
        asked = request_id.decode()
    except UnicodeDecodeError as error:
        raise Unreadable("request_id: not UTF-8") from error
    return REQUEST.read(
        _form(body, written_in),
        client_id=name.client_id,
        job_id=name.job_id,
        request_id=asked,
        expires_at_s=expires_at_s,
    )


def calendar_values(calendar: Calendar) -> Values:
    """The values of `CALENDAR_COLUMNS`."""
    body = _body(CALENDAR.write(calendar))
    return calendar.client_id, calendar.name, calendar.exclusion.digest, calendar.write_id, body, FORMAT


def calendar_of(values: Iterable[Any]) -> Calendar:
    """Reads the values of `CALENDAR_COLUMNS`. Raises: Unreadable, NewerFormat."""
    client_id, name, _, _, body, written_in = values
    return CALENDAR.read(_form(body, written_in), client_id=ClientId(client_id), name=name)


# --- parts


def _body(form: Stored) -> bytes:
    return orjson.dumps(form)


def _form(body: bytes, written_in: int) -> Stored:
    check_format(written_in, FORMAT)
    return mapping(body, "body")


def _place(client_id: str, job_id: bytes, position: str, expires_at_s: int) -> dict[str, Any]:
    name = name_of(client_id, job_id)
    return {
        "client_id": name.client_id,
        "job_id": name.job_id,
        "position": stored_position(position),
        "expires_at_s": expires_at_s,
    }
