"""Pending schedules and jobs on their way from one store to another, as JSON: `GET` and `POST /admin/schedules` and
`/admin/jobs`.

A schedule travels as the create that makes it, and with what that create alone would not bring back: version, delivery id,
position (with it the time of acceptance), and the digest of the request that its client sent. So at its new place it has the
same order within its lane, versions that clients remember (`If-Match`) fit, consumers see the same delivery id, and a create
that its client repeats there is still a repeat. `render.render_pending` writes what `read_imported` reads.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from clockwork.domain.jobs.job import ImportedJob, RunCounts
from clockwork.domain.names import BATCH_ITEMS_MAX
from clockwork.domain.position import Position, acceptance_of, due_ms_of, position_of
from clockwork.domain.schedule import ImportedSchedule, NewSchedule
from clockwork.domain.triggers.trigger import CALENDARS_MAX, NamedExclusion
from clockwork.errors import FieldError, InvalidInput, Unreadable
from clockwork.schema.calendar import calendar_name_of, exclusion_of
from clockwork.schema.job import JobDocument, JobForm, read_job
from clockwork.schema.json import whole
from clockwork.schema.schedule import ScheduleDocument, ScheduleForm, read_schedule
from clockwork.schema.times import SECONDS_LIKE_MAX
from clockwork.schema.trigger import CALENDAR_NAME_SCHEMA, EntriesDocument, EntriesForm
from clockwork.schema.validation import DOCUMENT, FORM, in_requests, read_form, validated

_TIME_MS_MAX: Final = 10**14 - 1
_VERSION_MAX: Final = 2**53 - 1
_NAME: Final = r"[0-9A-Za-z._-]{1,128}"
_DIGEST: Final = r"[0-9a-f]{64}"
_POSITION: Final = r"[0-9]{1,14}\.[0-9]{24}"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _matching(pattern: str, message: str) -> Any:
    """A rule for a text in a request, and its schema."""
    compiled = re.compile(pattern, re.ASCII)

    def check(value: str) -> str:
        if compiled.fullmatch(value) is None:
            raise ValueError(message)
        return value

    return (in_requests(check), WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"}))


_name_rule, _name_schema = _matching(_NAME, "should be 1 to 128 of A-Z a-z 0-9 . _ -")
_digest_rule, _digest_schema = _matching(_DIGEST, "should be 64 hexadecimal digits")
_position_rule, _position_schema = _matching(_POSITION, "should be a time in ms, a point and 24 digits")

_CalendarName = Annotated[str, in_requests(calendar_name_of), WithJsonSchema(CALENDAR_NAME_SCHEMA)]
_Whole = BeforeValidator(whole)
_TimeMs = Annotated[int, Field(ge=0, le=_TIME_MS_MAX), _Whole]


# --- answers


class OriginDocument(BaseModel):
    """The part of a stored schedule that its create does not bring back."""

    model_config = DOCUMENT

    position: str
    """Due time in ms, a point, and 24 digits of its acceptance: the order within a lane."""
    digest: str | None = None
    """Digest of the request that created it; absent where it is lost."""
    rearmed: bool = False
    """True if it had failed and was retried."""
    traceparent: str | None = None
    """Trace context of that request, if it had one."""


class PendingScheduleDocument(ScheduleDocument):
    """A pending schedule, with what another store needs to take it over."""

    origin: OriginDocument


class PendingDocument(BaseModel):
    """A page of pending schedules."""

    model_config = DOCUMENT

    at_ms: Annotated[int, Field(alias="at")]
    """Time at which it was asked for, by the node's clock, in epoch milliseconds."""
    schedules: list[PendingScheduleDocument]
    """Schedules of clients that the key covers."""
    unreadable: int
    """Rows of this page that this version cannot read."""
    uncovered: int
    """Schedules of this page whose clients the key does not cover."""
    cursor: str | None
    """Asks for the next page; null at the end."""


class RunCountsOriginDocument(BaseModel):
    """Counters of a job."""

    model_config = DOCUMENT

    delivered: int
    failed: int
    skipped: int
    of_trigger: int
    """Runs of fire times, for `maxRuns`."""


class JobOriginDocument(BaseModel):
    """The part of a stored job that its create does not bring back."""

    model_config = DOCUMENT

    created_at_ms: Annotated[int, Field(alias="createdAt")]
    updated_at_ms: Annotated[int, Field(alias="updatedAt")]
    version: int
    digest: str
    """Digest of the request that created it."""
    cursor_ms: Annotated[int, Field(alias="cursor")]
    """Up to here all fire times are decided, in epoch milliseconds."""
    counts: RunCountsOriginDocument
    failures: int
    """Runs that failed in a row."""
    paused_since_ms: Annotated[int | None, Field(alias="pausedSince")] = None
    note: str | None = None
    traceparent: str | None = None
    calendars: dict[str, EntriesDocument] | None = None
    """The named calendars that it goes by, by their names."""


class ExportedJobDocument(BaseModel):
    """A job, as the create that makes it, with what another store needs to take it over."""

    model_config = DOCUMENT

    job: dict[str, Any]
    """The members of `POST /jobs`."""
    origin: JobOriginDocument


class ExportedJobsDocument(BaseModel):
    """A page of jobs of all clients."""

    model_config = DOCUMENT

    jobs: list[ExportedJobDocument]
    """Active and paused jobs of clients that the key covers."""
    unreadable: int
    """Jobs of this page that this version cannot read."""
    uncovered: int
    """Jobs of this page whose clients the key does not cover."""
    left_behind: int
    """Runs of these jobs that an import does not bring: by hand, of backfills, retries, and open ones."""
    cursor: str | None
    """Asks for the next page; null at the end."""


class ImportedJobDocument(BaseModel):
    """The result of an import."""

    model_config = DOCUMENT

    created: bool
    """False: it was there already, whatever has become of it here."""
    job: JobDocument


# --- requests


class RunCountsOriginForm(BaseModel):
    """Counters of a job."""

    model_config = FORM

    delivered: Annotated[int, Field(ge=0, le=_VERSION_MAX), _Whole]
    failed: Annotated[int, Field(ge=0, le=_VERSION_MAX), _Whole]
    skipped: Annotated[int, Field(ge=0, le=_VERSION_MAX), _Whole]
    of_trigger: Annotated[int, Field(ge=0, le=_VERSION_MAX), _Whole]


class JobOriginForm(BaseModel):
    """The part of a stored job that its create does not bring back."""

    model_config = FORM

    created_at_ms: Annotated[_TimeMs, Field(alias="createdAt")]
    updated_at_ms: Annotated[_TimeMs, Field(alias="updatedAt")]
    version: Annotated[int, Field(ge=1, le=99_999_999), _Whole]
    digest: Annotated[str, _digest_rule, _digest_schema]
    cursor_ms: Annotated[_TimeMs, Field(alias="cursor")]
    counts: RunCountsOriginForm
    failures: Annotated[int, Field(ge=0, le=_VERSION_MAX), _Whole] = 0
    paused_since_ms: Annotated[_TimeMs | None, Field(alias="pausedSince")] = None
    note: Annotated[str, Field(max_length=256)] | None = None
    traceparent: str | None = None
    calendars: Annotated[dict[_CalendarName, EntriesForm], Field(max_length=CALENDARS_MAX)] = {}
    """Made if they are not there; one that is there counts as it is."""


class ImportJobForm(BaseModel):
    """A job of another store: `GET /admin/jobs` there shows it."""

    model_config = FORM

    exported_at_ms: Annotated[_TimeMs, Field(alias="exportedAt")]
    """A time before the export began, in epoch milliseconds."""
    job: JobForm
    origin: JobOriginForm


class _ImportJobEnvelope(ImportJobForm):
    job: Any


class OriginForm(BaseModel):
    """The part of a stored schedule that its create does not bring back."""

    model_config = FORM

    position: Annotated[str, _position_rule, _position_schema]
    digest: Annotated[str | None, _digest_rule, _digest_schema] = None
    rearmed: bool = False
    traceparent: str | None = None


class _StoredForm(BaseModel):
    model_config = FORM

    created_at_ms: Annotated[_TimeMs, Field(alias="createdAt")]
    delivery_id: Annotated[str, _name_rule, _name_schema]
    version: Annotated[int, Field(ge=1, le=_VERSION_MAX), _Whole]
    origin: OriginForm


class ImportedForm(ScheduleForm, _StoredForm):
    """A pending schedule of another store: `GET /admin/schedules` there shows it, without `status` and `shard`."""

    model_config = FORM


class _EnvelopeForm(BaseModel):
    """The envelope of an import; its items are read one by one."""

    model_config = FORM

    exported_at_ms: Annotated[_TimeMs, Field(alias="exportedAt")]
    """`at` of the first page of the export, in epoch milliseconds."""
    schedules: Annotated[list[Any], Field(max_length=BATCH_ITEMS_MAX)]


class ImportManyForm(_EnvelopeForm):
    """Pending schedules of another store, each for itself."""

    schedules: Annotated[list[ImportedForm], Field(max_length=BATCH_ITEMS_MAX)]


STORED_FIELDS: Final = tuple(str(each.alias) for each in _StoredForm.model_fields.values())
EXPORTED_FIELDS: Final = frozenset(ImportedForm.model_fields)
"""Fields of a `PendingScheduleDocument` that an import takes."""


def read_envelope(document: Any) -> tuple[int, list[Any]]:
    """The time of the export, and the items as they came. Raises: InvalidInput: the envelope is wrong."""
    form = read_form(_EnvelopeForm, document)
    return form.exported_at_ms, form.schedules


def read_imported(document: Any, *, cluster: str, now_ms: int) -> ImportedSchedule:
    """One item of an import. Raises: InvalidInput, naming every wrong field; TooLarge."""
    if not isinstance(document, dict):
        raise InvalidInput([FieldError("body", "should be a JSON object")])
    stored = {name: value for name, value in document.items() if name in STORED_FIELDS}
    create = {name: value for name, value in document.items() if name not in STORED_FIELDS}
    errors, form = validated(_StoredForm, stored, object(), inner="origin")
    try:
        new = read_schedule(
            _with_exact_time(create),
            cluster=cluster,
            now_ms=now_ms,
            traceparent=form.origin.traceparent if form is not None else None,
        )
    except InvalidInput as wrong:
        if not errors:
            raise
        raise InvalidInput([*wrong.errors, *errors]) from wrong
    if form is None:
        raise InvalidInput(errors)
    return ImportedSchedule(
        new=new if form.origin.digest is None else replace(new, digest=form.origin.digest),
        position=_position(form.origin.position, new),
        created_at_ms=form.created_at_ms,
        version=form.version,
        delivery_id=form.delivery_id,
        rearmed=form.origin.rearmed,
    )


def read_imported_job(document: Any, *, cluster: str) -> tuple[int, ImportedJob]:
    """The time of the export, and the job. Raises: InvalidInput, naming every wrong field; TooLarge."""
    form = read_form(_ImportJobEnvelope, document)
    origin = form.origin
    # It was accepted at the time of its last change: its trigger may be over by now, and its last run still pending.
    new = read_job(
        form.job,
        cluster=cluster,
        now_ms=origin.updated_at_ms,
        traceparent=origin.traceparent,
        created_ms=origin.created_at_ms,
    )
    counts = origin.counts
    return form.exported_at_ms, ImportedJob(
        new=replace(new, digest=origin.digest),
        version=origin.version,
        updated_at_ms=origin.updated_at_ms,
        cursor_ms=origin.cursor_ms,
        counts=RunCounts(
            delivered=counts.delivered, failed=counts.failed, skipped=counts.skipped, of_trigger=counts.of_trigger
        ),
        failures=origin.failures,
        paused_since_ms=origin.paused_since_ms,
        pause_reason=origin.note,
        calendars=_calendars(origin.calendars),
    )


def _calendars(given: Mapping[str, EntriesForm]) -> tuple[NamedExclusion, ...]:
    """Raises: InvalidInput."""
    made: list[NamedExclusion] = []
    errors: list[FieldError] = []
    for name, form in given.items():
        try:
            made.append(NamedExclusion(name=name, exclusion=exclusion_of(form)))
        except InvalidInput as wrong:
            errors += (FieldError(f"origin.calendars.{name}.{each.field}", each.message) for each in wrong.errors)
    if errors:
        raise InvalidInput(errors)
    return tuple(made)


def _with_exact_time(create: Mapping[str, Any]) -> dict[str, Any]:
    """The create, with a time that was given as text and looks like seconds as a number written as a text again."""
    due_ms = create.get("scheduleTime")
    if isinstance(due_ms, int) and 0 < due_ms <= SECONDS_LIKE_MAX:
        return {**create, "scheduleTime": (_EPOCH + timedelta(milliseconds=due_ms)).isoformat()}
    return dict(create)


def _position(text: str, new: NewSchedule) -> Position:
    """Raises: InvalidInput."""
    try:
        position = position_of(text)
    except Unreadable as error:
        raise InvalidInput([FieldError("origin.position", "is no position")]) from error
    if due_ms_of(position) != new.due_ms or not acceptance_of(position):
        raise InvalidInput([FieldError("origin.position", "should begin with scheduleTime, and name an acceptance")])
    return position
