"""Conversion between recurring jobs and the items of the table `jobs`. Pure; keys and their order are here, the members of
the items in `stores.job_forms`.

    jobKey S             item S
    <client>/<job>       state            the state; the one item of a job that is ever changed
                         v<8 digits>      a definition, by its version
                         r<position>      an entry of the log: a run that ended, or a skipped stretch
                         c<position>      the completion of the run at that position
                         q<request>       a request for runs
                         note             the note of commands
    /seen, /clients      (what was seen lately: `stores.dynamodb.registry`)
    <client>/            calendar/<name>            a named calendar; no job has an empty id
                         named/<name>/<job>         a job that names it

Positions have 14 digits before their point, so that their order as texts is that of the numbers. Log entries, completions,
requests and notes expire by TTL.

The index `byClient` has the states alone: only they bear `listedUnder`, the client, and `jobId`. Both are never changed, so
the write of a state, which each run makes, costs nothing there.
"""

from collections.abc import Mapping
from typing import Any, Final

from clockwork.domain.jobs.calendar import Calendar, CalendarName
from clockwork.domain.jobs.job import (
    Job,
    JobName,
    JobState,
    LogEntry,
    RunCompletion,
    RunDelivery,
    RunRequest,
    SkippedTimes,
)
from clockwork.domain.names import KEY_BYTES_MAX, is_client_id, is_key
from clockwork.domain.position import FRACTION_DIGITS, Position, position_of, text_of
from clockwork.domain.run import JobId
from clockwork.domain.schedule import ClientId
from clockwork.errors import Unreadable
from clockwork.stores.dynamodb import attributes as fields
from clockwork.stores.dynamodb import codec
from clockwork.stores.dynamodb.attributes import Item, number
from clockwork.stores.dynamodb.codec import LISTED_UNDER
from clockwork.stores.forms import Stored
from clockwork.stores.job_forms import CALENDAR, COMPLETION, FORMAT, JOB, REQUEST, RUN_DELIVERY, SKIPPED, STATE

STATE_ITEM: Final = "state"
DEFINITIONS: Final = "v"
LOG: Final = "r"
COMPLETIONS: Final = "c"
_REQUESTS: Final = "q"
_NOTE: Final = "note"
_VERSION_DIGITS: Final = 8
_POSITION_CHARS: Final = 14 + 1 + FRACTION_DIGITS
LAST_DEFINITION: Final = f"{DEFINITIONS}{'9' * _VERSION_DIGITS}"
"""An upper bound of the sort keys of definitions."""
CALENDARS: Final = "calendar/"
DIGEST: Final = "digest"
_NAMED: Final = "named/"
_RUN: Final = "run"
_SKIPPED: Final = "skipped"


# --- keys


def item_key(name: JobName, item: str) -> Item:
    """The primary key of an item of a job. A client id has no "/", so no two names collide."""
    return {"jobKey": {"S": str(name)}, "item": {"S": item}}


def state_key(name: JobName) -> Item:
    """The primary key of a state."""
    return item_key(name, STATE_ITEM)


def definition_item(version: int) -> str:
    """The sort key of a definition."""
    return f"{DEFINITIONS}{version:0{_VERSION_DIGITS}d}"


def log_item(position: Position) -> str:
    """The sort key of an entry of the log."""
    return f"{LOG}{_padded(position)}"


def log_position(item: Item) -> Position:
    """The position of an entry of the log. Raises: Unreadable."""
    return position_of(fields.text(item, "item").removeprefix(LOG))


def completion_item(position: Position) -> str:
    """The sort key of a completion."""
    return f"{COMPLETIONS}{_padded(position)}"


def request_key(name: JobName, request_id: str) -> Item:
    """The primary key of a request for runs."""
    return item_key(name, f"{_REQUESTS}{request_id}")


def note_key(name: JobName) -> Item:
    """The primary key of the note of commands of a job."""
    return item_key(name, _NOTE)


def calendars_of(client_id: ClientId) -> str:
    """The partition of a client's calendars."""
    return f"{client_id}/"


def calendar_key(key: CalendarName) -> Item:
    """The primary key of a calendar."""
    return {"jobKey": {"S": calendars_of(key.client_id)}, "item": {"S": f"{CALENDARS}{key.name}"}}


def calendar_notes(calendar: str) -> str:
    """The beginning of the sort keys of jobs that name a calendar. A calendar's name has no "/"."""
    return f"{_NAMED}{calendar}/"


def calendar_note_key(calendar: str, job: JobName) -> Item:
    """The primary key of the note that a job names a calendar."""
    return {
        "jobKey": {"S": calendars_of(job.client_id)},
        "item": {"S": f"{calendar_notes(calendar)}{job.job_id}"},
    }


def job_of_note(item: Item, key: CalendarName) -> JobName:
    """The job that a note beside a calendar names. Raises: Unreadable."""
    job_id = fields.text(item, "item").removeprefix(calendar_notes(key.name))
    if not is_key(job_id):
        raise Unreadable("item: not a legal name")
    return JobName(key.client_id, JobId(job_id))


def index_key(name: JobName) -> Item:
    """The key of a state in the index `byClient`, and so a place to go on reading from."""
    return state_key(name) | {LISTED_UNDER: {"S": name.client_id}, "jobId": {"S": name.job_id}}


def name_of(item: Item) -> JobName:
    """The name of the job that an entry of the index belongs to. Raises: Unreadable."""
    client_id, job_id = fields.text(item, LISTED_UNDER), fields.text(item, "jobId")
    if not is_client_id(client_id) or len(job_id.encode()) > KEY_BYTES_MAX:
        raise Unreadable("listedUnder, jobId: not a legal name")
    return JobName(ClientId(client_id), JobId(job_id))


def _padded(position: Position) -> str:
    return text_of(position).rjust(_POSITION_CHARS, "0")


# --- items


def state_item(state: JobState) -> Item:
    """A state as it is stored."""
    return index_key(state.name) | _attributes({"rev": state.rev, **STATE.write(state)})


def state_of(item: Item, name: JobName) -> JobState:
    """Reads a state. Raises: Unreadable, NewerFormat."""
    form = _form(item)
    return STATE.read(form, client_id=name.client_id, job_id=name.job_id, rev=fields.integer(item, "rev"))


def definition(job: Job) -> Item:
    """A definition as it is stored."""
    return item_key(job.name, definition_item(job.version)) | _attributes(JOB.write(job))


def definition_of(item: Item, name: JobName) -> Job:
    """Reads a definition. Raises: Unreadable, NewerFormat."""
    version = fields.text(item, "item").removeprefix(DEFINITIONS)
    if not version.isdecimal():
        raise Unreadable("item: not a version")
    return JOB.read(_form(item), client_id=name.client_id, job_id=name.job_id, version=int(version))


def entry(of: LogEntry) -> Item:
    """An entry of the log, or a completion, as it is stored."""
    form: Stored
    match of:
        case RunCompletion():
            place, form = completion_item(of.position), COMPLETION.write(of)
        case RunDelivery():
            place, form = log_item(of.position), {"type": _RUN, **RUN_DELIVERY.write(of)}
        case SkippedTimes():
            place, form = log_item(of.position), {"type": _SKIPPED, **SKIPPED.write(of)}
    return item_key(of.name, place) | _attributes(form) | {"expiresAt": number(of.expires_at_s)}


def entry_of(item: Item, name: JobName) -> RunDelivery | SkippedTimes:
    """Reads an entry of the log. Raises: Unreadable, NewerFormat."""
    form, place = _form(item), _place(item, name, LOG)
    match form.get("type"):
        case "run":
            return RUN_DELIVERY.read(form, **place)
        case "skipped":
            return SKIPPED.read(form, **place)
        case _:
            raise Unreadable("type: unknown value")


def completion_of(item: Item, name: JobName) -> RunCompletion:
    """Reads a completion. Raises: Unreadable, NewerFormat."""
    return COMPLETION.read(_form(item), **_place(item, name, COMPLETIONS))


def request(of: RunRequest) -> Item:
    """A request for runs as it is stored."""
    name = JobName(of.client_id, of.job_id)
    return request_key(name, of.request_id) | _attributes(REQUEST.write(of)) | {"expiresAt": number(of.expires_at_s)}


def request_of(item: Item, name: JobName) -> RunRequest:
    """Reads a request for runs. Raises: Unreadable, NewerFormat."""
    return REQUEST.read(
        _form(item),
        client_id=name.client_id,
        job_id=name.job_id,
        request_id=fields.text(item, "item").removeprefix(_REQUESTS),
        expires_at_s=fields.integer(item, "expiresAt"),
    )


def calendar_item(calendar: Calendar) -> Item:
    """A calendar as it is stored. Its digest is for conditions."""
    digest = {DIGEST: {"S": calendar.exclusion.digest}}
    return calendar_key(calendar.key) | _attributes(CALENDAR.write(calendar)) | digest


def calendar_of(item: Item, client_id: ClientId) -> Calendar:
    """Reads a calendar. Raises: Unreadable, NewerFormat."""
    name = fields.text(item, "item").removeprefix(CALENDARS)
    return CALENDAR.read(_form(item), client_id=client_id, name=name)


# --- parts


def _attributes(form: Stored) -> Item:
    return fields.attributes_of(form) | {"v": number(FORMAT)}


def _form(item: Item) -> Stored:
    codec.check_format(item, newest=FORMAT)
    return fields.values_of(item)


def _place(item: Item, name: JobName, kind: str) -> Mapping[str, Any]:
    return {
        "client_id": name.client_id,
        "job_id": name.job_id,
        "position": position_of(fields.text(item, "item").removeprefix(kind)),
        "expires_at_s": fields.integer(item, "expiresAt"),
    }
