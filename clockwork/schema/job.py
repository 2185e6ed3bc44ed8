"""A job as JSON: its create, its change, its answers, and the way between them and the values of the domain.

As for schedules, the form of a create and the document of an answer are one family of models. `read_job` and `job_document`
are each other's inverse, and a `PUT` is the create that would have been sent with today's knowledge: its fields are laid
over those of the stored job, and the whole is read as a create is (`change` says more). `trigger`, `misfire`, `completion`
and `payloadSchema` are one field each, and replaced as a whole.

What has a form that depends on other fields (the trigger by its type) is read by a function of its own; its errors are
reported beside all others.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from clockwork.domain.jobs.interpolation import check_interpolation, interpolated, longest_values
from clockwork.domain.jobs.job import BackfillRequest, JobContent, NewJob, RunNow
from clockwork.domain.jobs.next_occurrence import Misfire, MisfirePolicy, OverlapPolicy
from clockwork.domain.record import TRACEPARENT
from clockwork.domain.run import JobId
from clockwork.domain.schedule import ClientId, DataForm
from clockwork.domain.triggers.preview import TIMES_DEFAULT, TIMES_MAX, FireTime, Preview
from clockwork.domain.triggers.trigger import TIME_MS_MAX, FixedDelay, Trigger
from clockwork.errors import FieldError, InvalidInput
from clockwork.schema import json as json_body
from clockwork.schema.change import all_optional, laid_over, read_put_fields
from clockwork.schema.completion import (
    TIMEOUT_MS_MAX,
    CompletionDocument,
    CompletionForm,
    completion_document,
    completion_of,
    wrong_completion,
)
from clockwork.schema.payload_schema import PayloadSchema, read_payload_schema
from clockwork.schema.schedule import (
    STORED_BYTES_MAX,
    ClientIdText,
    Context,
    DeliveredDocument,
    DeliveryDocument,
    DeliveryForm,
    KeyText,
    check_size,
    content_document,
    content_of,
    stored_data,
    wrong_policies,
)
from clockwork.schema.trigger import (
    MisfireDocument,
    MisfireForm,
    TimeMs,
    TriggerDocument,
    TriggerForm,
    misfire_document,
    read_misfire,
    read_trigger,
    trigger_document,
)
from clockwork.schema.validation import DOCUMENT, FORM, in_requests, read_form, validated

DESCRIPTION_BYTES_MAX: Final = 1_024
LABELS_MAX: Final = 20
LABEL_BYTES_MAX: Final = 128
"""Limit of a label's name, and of its value: all labels of a job stay below 5 KiB."""
PRIORITY_MAX: Final = 10
PAUSE_AFTER_FAILURES_MAX: Final = 1_000
REQUEST_ID_BYTES_MAX: Final = 128
NOTE_BYTES_MAX: Final = 256
"""A pause's note is a part of the state, which every run writes."""
BACKFILL_RUNS_MAX: Final = 1_000

# --- rules of single fields


def _text_of(bytes_max: int, value: str) -> str:
    if not 1 <= len(value.encode()) <= bytes_max:
        raise ValueError(f"should be 1 to {bytes_max} bytes of UTF-8")
    return value


def _description(value: str) -> str:
    return _text_of(DESCRIPTION_BYTES_MAX, value)


def _request_id(value: str) -> str:
    return _text_of(REQUEST_ID_BYTES_MAX, value)


def _note(value: str) -> str:
    return _text_of(NOTE_BYTES_MAX, value)


def _labels(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not 1 <= len(name.encode()) <= LABEL_BYTES_MAX or len(text.encode()) > LABEL_BYTES_MAX:
            raise ValueError(f"names and values should be at most {LABEL_BYTES_MAX} bytes of UTF-8, names at least 1")
    return value


def _few(value: object) -> object:
    if isinstance(value, dict) and len(value) > LABELS_MAX:
        raise ValueError(f"should be at most {LABELS_MAX} labels")
    return value


def label_of(text: str) -> tuple[str, str]:
    """A label as queries name it, `name:value`. Raises: ValueError, with a message for the client."""
    name, colon, value = text.partition(":")
    if not name or not colon:
        raise ValueError("should be name:value")
    return name, value


def _schema_of_text(bytes_max: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "minLength": 1, "maxLength": bytes_max})


_Whole = BeforeValidator(json_body.whole)
DescriptionText = Annotated[str, in_requests(_description), _schema_of_text(DESCRIPTION_BYTES_MAX)]
_RequestIdText = Annotated[str, in_requests(_request_id), _schema_of_text(REQUEST_ID_BYTES_MAX)]
_Labels = Annotated[
    dict[str, str],
    BeforeValidator(_few),
    in_requests(_labels),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": LABELS_MAX,
            "propertyNames": {"minLength": 1, "maxLength": LABEL_BYTES_MAX},
            "additionalProperties": {"type": "string", "maxLength": LABEL_BYTES_MAX},
        }
    ),
]
OverlapName = Literal["allow", "skip", "wait"]
JobStatusName = Literal["active", "paused", "ended", "deleted"]
RunKindName = Literal["scheduled", "catch_up", "manual", "backfill", "retry"]
RunStatusName = Literal["armed", "delivered", "running", "completed", "failed", "timed_out", "skipped"]

# --- fields that a create and an answer have alike

_SHARED: Final = ConfigDict(alias_generator=to_camel, use_attribute_docstrings=True)


class _JobKeyFields(BaseModel):
    model_config = _SHARED

    client_id: ClientIdText
    job_id: KeyText
    """Unique per client, beside the keys of its schedules."""


class _JobFields(_JobKeyFields):
    ordering_key: KeyText | None = None
    """Order is kept per topic and ordering key; by default the `jobId`."""
    task_data_encoding: Literal["json", "base64"] | None = None
    """By default `json`: a string is its bytes, anything else compact JSON."""
    description: DescriptionText | None = None
    labels: _Labels | None = None
    """For people and filters; at most 20."""
    priority: Annotated[int | None, Field(ge=1, le=PRIORITY_MAX), _Whole] = None
    """A header of the job's records, and no more: what is due together leaves together."""


# --- requests


class JobKeyForm(_JobKeyFields):
    """The name of one job."""

    model_config = FORM


class JobForm(_JobFields):
    """A job to create."""

    model_config = FORM

    trigger: TriggerForm | None = None
    """Required unless `durable`."""
    task_data: Any
    """The payload of each run: any JSON value, `null` included; only its absence is an error."""
    delivery: DeliveryForm
    """`deadline` and `onLate` count for each occurrence."""
    misfire: MisfireForm | None = None
    """Treatment of fire times that were missed; by default the last of them is caught up."""
    overlap: OverlapName | None = None
    """By default `allow`: runs may overlap. `skip` and `wait` need `completion`: no run is armed while another is open, and
    fire times that pass meanwhile are skipped, or the first of them runs at once."""
    completion: CompletionForm | None = None
    """By default a run has ended with its delivery."""
    pause_after_failures: Annotated[int | None, Field(ge=0, le=PAUSE_AFTER_FAILURES_MAX), _Whole] = None
    """Failed runs in a row after which the job is paused; by default never."""
    durable: bool | None = None
    """True: it stays when its trigger is over. By default it has ended then, and is kept for the retention."""

    interpolate: bool | None = None
    """True: in string values of JSON `taskData`, `${scheduledAt}`, `${scheduledAtIso}`, `${previousAt}`, `${runId}`,
    `${jobId}` and `${version}` are put in when a run is armed. `$${` stands for `${`."""
    payload_schema: dict[str, Any] | None = None
    """JSON Schema 2020-12 of `taskData`, at most 16 KiB, without references to other documents."""


class _JobEnvelope(JobForm):
    """As it is read: what has a form of its own is read by itself."""

    trigger: Any = None
    misfire: Any = None
    payload_schema: Any = None


JobChangeForm: Final = all_optional(
    JobForm,
    "JobChangeForm",
    "Changes of a job; a field that is left out stays as it is. `clientId` and `jobId` only as in the path.",
)
"""Describes the body of a `PUT`; it is read by `read_job_change`, over the stored job."""


class PauseForm(BaseModel):
    """A pause of a job."""

    model_config = FORM

    note: Annotated[str, in_requests(_note), _schema_of_text(NOTE_BYTES_MAX)] | None = None
    """The reason, for people."""


class RunNowForm(BaseModel):
    """A run of a job by hand."""

    model_config = FORM

    request_id: _RequestIdText
    """The same id again is the same run."""
    task_data: Any = None
    """In place of the job's own; if it is there, `null` is a payload too."""
    task_data_encoding: Literal["json", "base64"] | None = None


class BackfillForm(BaseModel):
    """Runs of past fire times."""

    model_config = FORM

    request_id: _RequestIdText
    """The same id again is the same backfill."""
    from_ms: Annotated[TimeMs, Field(alias="from")]
    """Inclusive."""
    to_ms: Annotated[TimeMs, Field(alias="to")]
    """Inclusive; not after now."""
    max_runs: Annotated[int, Field(ge=1, le=BACKFILL_RUNS_MAX), _Whole] = BACKFILL_RUNS_MAX


class PreviewForm(BaseModel):
    """A trigger whose next fire times are asked for. `clientId`: the client whose calendars it may name; with `jobId` the
    job for its jitter, which need not exist."""

    model_config = FORM

    trigger: TriggerForm
    from_ms: Annotated[TimeMs, Field(alias="from")] = None
    """Inclusive; by default now."""
    count: Annotated[int, Field(ge=1, le=TIMES_MAX), _Whole] = TIMES_DEFAULT
    client_id: ClientIdText | None = None
    job_id: KeyText | None = None


class _PreviewEnvelope(PreviewForm):
    trigger: Any


# --- answers


class FireTimeDocument(BaseModel):
    """A fire time."""

    model_config = DOCUMENT

    at_ms: Annotated[int, Field(alias="at")]
    """In epoch milliseconds, without jitter."""
    local: str
    """The same time in the trigger's time zone."""
    due_at_ms: Annotated[int | None, Field(alias="dueAt")] = None
    """With jitter, in epoch milliseconds; absent without jitter, or without a job to compute it for."""
    note: str | None = None
    """The rule that put it there, such as `gap: 02:30 does not exist; moved to 03:00`."""


class PreviewDocument(BaseModel):
    """The next fire times of a trigger."""

    model_config = DOCUMENT

    times: list[FireTimeDocument]
    """Fewer than asked for if there are no more."""


class NextRunDocument(BaseModel):
    """The run that is armed."""

    model_config = DOCUMENT

    run_id: str
    scheduled_at_ms: Annotated[int, Field(alias="scheduledAt")]
    """Its fire time, in epoch milliseconds; of a run by hand the time at which it was asked for."""
    due_at_ms: Annotated[int, Field(alias="dueAt")]
    """Its due time, in epoch milliseconds: with jitter, or later."""
    local: str
    """The fire time in the trigger's time zone."""
    note: str | None = None
    """The rule that put it there."""
    version: int
    """The version of the definition that it is delivered by."""


class RunDeliveredDocument(DeliveredDocument):
    """Place and time of a run's record. `latenessMs`: `at` less the run's `dueAt`."""


class RunDocument(BaseModel):
    """A run, or a stretch of fire times that were skipped."""

    model_config = DOCUMENT

    status: RunStatusName
    run_id: str | None = None
    """Absent for a skipped stretch."""
    kind: RunKindName | None = None
    version: int | None = None
    """The version of the definition that it is delivered by."""
    attempt: int | None = None
    scheduled_at_ms: Annotated[int | None, Field(alias="scheduledAt")] = None
    """Its fire time, in epoch milliseconds."""
    due_at_ms: Annotated[int | None, Field(alias="dueAt")] = None
    """In epoch milliseconds."""
    delivered: RunDeliveredDocument | None = None
    started_at_ms: Annotated[int | None, Field(alias="startedAt")] = None
    finished_at_ms: Annotated[int | None, Field(alias="finishedAt")] = None
    duration_ms: int | None = None
    result: Any = None
    error: Any = None
    reason: str | None = None
    """A short stable code: of a failure, or of a skip (`misfire`, `overlap`, `excluded`)."""
    first_ms: Annotated[int | None, Field(alias="first")] = None
    """The first skipped fire time, in epoch milliseconds."""
    last_ms: Annotated[int | None, Field(alias="last")] = None
    """The last skipped fire time, in epoch milliseconds."""
    count: int | None = None
    """Skipped fire times; from 10,000 on at least that."""
    redacted: Literal[True] | None = None
    """There if the key may not see the result."""


class RunCountsDocument(BaseModel):
    """Counters of a job, over all its versions."""

    model_config = DOCUMENT

    delivered: int
    failed: int
    skipped: int
    """Fire times."""


class _DefinitionDocument(_JobFields):
    model_config = DOCUMENT

    trigger: TriggerDocument | None = None
    task_data: Any = None
    """The payload as it was given: any JSON value, or base64 text."""
    delivery: DeliveryDocument
    misfire: MisfireDocument
    overlap: OverlapName
    completion: CompletionDocument | None = None
    """Absent: a run has ended with its delivery."""
    pause_after_failures: int
    """0: never."""
    durable: bool
    interpolate: bool
    payload_schema: dict[str, Any] | None = None
    version: int
    """Number of changes of the definition; also the `ETag`, in quotes."""
    redacted: Literal[True] | None = None
    """There if the key may not see the content."""


class JobDocument(_DefinitionDocument):
    """A job and its state."""

    status: JobStatusName
    created_at_ms: Annotated[int, Field(alias="createdAt")]
    """In epoch milliseconds."""
    updated_at_ms: Annotated[int, Field(alias="updatedAt")]
    """The time of the last request that changed it, in epoch milliseconds."""
    paused_since_ms: Annotated[int | None, Field(alias="pausedSince")] = None
    """In epoch milliseconds."""
    note: str | None = None
    """The reason of the pause."""
    next_run: NextRunDocument | None = None
    """Absent if none is armed."""
    last_run: RunDocument | None = None
    """The newest run whose delivery has ended; `running` until its consumer reports. Only where one job is asked for."""
    open_runs: list[RunDocument] | None = None
    """Runs that are delivered and not completed, of those among the newest. Only where one job is asked for."""
    counts: RunCountsDocument
    next_times: list[FireTimeDocument] | None = None
    """Only if `next` asks for them."""
    in_flight: list[RunDocument] | None = None
    """After a change: these runs, and no others, may still be delivered as they were before. Absent: none."""


class JobVersionDocument(_DefinitionDocument):
    """One version of a job's definition."""

    changed_at_ms: Annotated[int, Field(alias="changedAt")]
    """In epoch milliseconds."""
    changed_by: str | None = None
    """Name of the key or token by which it was made; absent where none is needed."""


class JobsDocument(BaseModel):
    """A page of jobs."""

    model_config = DOCUMENT

    jobs: list[JobDocument]
    cursor: str | None
    """Asks for the next page; null at the end."""


class RunsDocument(BaseModel):
    """A page of a job's log, newest first."""

    model_config = DOCUMENT

    runs: list[RunDocument]
    cursor: str | None
    """Asks for the next page; null at the end."""


class VersionsDocument(BaseModel):
    """A page of a job's versions, newest first."""

    model_config = DOCUMENT

    versions: list[JobVersionDocument]
    cursor: str | None
    """Asks for the next page; null at the end."""


class BackfillDocument(BaseModel):
    """A backfill that was accepted."""

    model_config = DOCUMENT

    request_id: str
    run: RunDocument
    """Its first run; the others follow one after the other."""


# --- from a create to the domain's value


def read_job(
    document: Any, *, cluster: str, now_ms: int, traceparent: str | None, created_ms: int | None = None
) -> NewJob:
    """A create, with its defaults filled in. `traceparent`: the request's header, if it had one. `created_ms`: the creation
    of the job, if it is there already.

    Raises: InvalidInput, TooLarge (nothing else is wrong).
    """
    at_ms = now_ms if created_ms is None else created_ms
    content = _read(document, cluster=cluster, now_ms=now_ms, created_ms=at_ms, traceparent=traceparent, stored=None)
    return NewJob(**content.fields(), created_at_ms=at_ms, digest=_digest(content, document))


def read_job_key(document: Any) -> tuple[ClientId, JobId]:
    """The name of the job that a request is about. Raises: InvalidInput."""
    form = read_form(JobKeyForm, document)
    return ClientId(form.client_id), JobId(form.job_id)


def _read(
    document: Any,
    *,
    cluster: str,
    now_ms: int,
    created_ms: int,
    traceparent: str | None,
    stored: Trigger | None,
) -> JobContent:
    """`stored`: the trigger of a document without a member `trigger`: it was accepted before, and its end may have come."""
    context = Context(cluster=cluster, now_ms=now_ms)
    errors, form = validated(_JobEnvelope, document, context, inner="delivery")
    given = document if isinstance(document, dict) else {}
    task_data, data_form = b"", DataForm.JSON
    if "taskData" in given:
        try:
            task_data, data_form = stored_data(given["taskData"], given.get("taskDataEncoding"))
        except ValueError as error:
            errors.append(FieldError("taskData", str(error)))
    trigger, misfire = stored if "trigger" not in given else None, Misfire()
    if given.get("trigger") is not None:
        try:
            trigger = read_trigger(given["trigger"], now_ms=now_ms, created_ms=created_ms)
        except InvalidInput as wrong:
            errors += wrong.errors
    if given.get("misfire") is not None:
        try:
            misfire = read_misfire(given["misfire"])
        except InvalidInput as wrong:
            errors += wrong.errors
    schema = None
    if given.get("payloadSchema") is not None:
        try:
            schema = read_payload_schema(given["payloadSchema"])
        except InvalidInput as wrong:
            errors += wrong.errors
    if form is not None:
        errors += _wrong_together(form, trigger, misfire, given)
    if errors or form is None:
        raise InvalidInput(errors)
    content = content_of(
        form.delivery,
        client_id=form.client_id,
        ordering_key=form.job_id if form.ordering_key is None else form.ordering_key,
        task_data=task_data,
        data_form=data_form,
        traceparent=traceparent,
    )
    interpolate = form.interpolate or False
    _check_payload(
        content.task_data,
        content.data_form,
        schema,
        headers=content.headers,
        interpolate=interpolate,
        job_id=form.job_id,
    )
    return JobContent(
        **content.delivery_fields(),
        job_id=JobId(form.job_id),
        interpolate=interpolate,
        payload_schema=None if schema is None else schema.text,
        trigger=trigger,
        misfire=misfire,
        overlap=None if form.overlap in (None, "allow") else OverlapPolicy(form.overlap),
        completion=completion_of(form.completion),
        pause_after_failures=form.pause_after_failures or 0,
        durable=form.durable or False,
        description=form.description,
        labels=tuple(sorted((form.labels or {}).items())),
        priority=form.priority,
    )


def _wrong_together(
    form: _JobEnvelope, trigger: Trigger | None, misfire: Misfire, given: Mapping[str, Any]
) -> list[FieldError]:
    """Errors that only fields together make."""
    by_delay = trigger is not None and isinstance(trigger.rule, FixedDelay)
    errors = wrong_policies(form.delivery) + wrong_completion(form.completion, overlap=form.overlap, by_delay=by_delay)
    if given.get("trigger") is None and trigger is None and not form.durable:
        errors.append(FieldError("trigger", "is required, unless the job is durable and run by hand"))
    if misfire.policy is MisfirePolicy.SKIP and form.delivery.deadline_ms is not None:
        errors.append(
            FieldError("delivery.deadline", "is excluded by misfire policy 'skip', whose grace is the deadline")
        )
    return errors


def _check_payload(
    data: bytes,
    form: DataForm,
    schema: PayloadSchema | None,
    *,
    headers: tuple[tuple[str, str], ...],
    interpolate: bool,
    job_id: str,
) -> None:
    """Checks `taskData` against the rules that a job has for it. Raises: InvalidInput, naming paths below `taskData`."""
    if interpolate:
        # Together with the headers, as without names: a run that no store takes would end its job's chain.
        room = STORED_BYTES_MAX - sum(len(name.encode()) + len(value.encode()) for name, value in headers)
        check_interpolation(data, form, job_id=job_id, bytes_max=room)
    if schema is None:
        return
    if form is DataForm.BASE64:
        raise InvalidInput([FieldError("payloadSchema", "should be absent where taskDataEncoding is base64")])
    # As runs will have it: names have values of their own types, of which one may be null.
    longest = longest_values(job_id)
    for values in (longest, replace(longest, previous_at_ms=None)) if interpolate else (longest,):
        payload = interpolated(data, form, values) if interpolate else data
        schema.check(payload.decode() if form is DataForm.TEXT else json.loads(payload))


def _digest(content: JobContent, document: Mapping[str, Any]) -> str:
    """The digest of a create. It is stored, so it may never change for the same fields: those that are at their defaults are
    no part of it."""
    is_json = content.data_form is DataForm.JSON
    data = json_body.canonical(document["taskData"]) if is_json else content.task_data
    fields = {
        **content_document(replace(content, task_data=b"0", data_form=DataForm.JSON)),
        "clientId": content.client_id,
        "jobId": content.job_id,
        "taskDataForm": content.data_form.value,
        "taskData": hashlib.sha256(data).hexdigest(),
    }
    if content.trigger is not None:
        fields["trigger"] = _without_default_anchor(trigger_document(content.trigger), document["trigger"])
    defaults = JobContent(**content.delivery_fields(), job_id=content.job_id, trigger=content.trigger)
    at_default = _own_fields(defaults)
    fields |= {name: value for name, value in _own_fields(content).items() if value != at_default.get(name)}
    return hashlib.sha256(json_body.canonical(fields)).hexdigest()


def _without_default_anchor(made: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a trigger without anchors that were not given: by default they are the time of the request."""
    if given.get("anchor") is None:
        made = {name: value for name, value in made.items() if name != "anchor"}
    if "of" in made:
        made["of"] = [_without_default_anchor(each, of) for each, of in zip(made["of"], given["of"], strict=True)]
    return made


# --- from the domain's value to the create that makes it


def job_document(content: JobContent) -> dict[str, Any]:
    """The create that makes this job, with its defaults; an answer repeats it."""
    trigger = {} if content.trigger is None else {"trigger": trigger_document(content.trigger)}
    return {
        "clientId": content.client_id,
        "jobId": content.job_id,
        **trigger,
        **content_document(content),
        **_own_fields(content),
    }


def _own_fields(content: JobContent) -> dict[str, Any]:
    """The members that schedules do not have, without the trigger."""
    document: dict[str, Any] = {
        "misfire": misfire_document(content.misfire),
        "overlap": "allow" if content.overlap is None else content.overlap.value,
        "pauseAfterFailures": content.pause_after_failures,
        "durable": content.durable,
        "interpolate": content.interpolate,
    }
    if content.completion is not None:
        document["completion"] = completion_document(content.completion)
    if content.payload_schema is not None:
        document["payloadSchema"] = json.loads(content.payload_schema)
    if content.description is not None:
        document["description"] = content.description
    if content.labels:
        document["labels"] = dict(content.labels)
    if content.priority is not None:
        document["priority"] = content.priority
    return document


# --- a change

_NULL_IS_ABSENT: Final = frozenset(
    {
        "orderingKey",
        "taskDataEncoding",
        "delivery",
        "misfire",
        "overlap",
        "pauseAfterFailures",
        "durable",
        "interpolate",
    }
)
"""Fields that every job has. Any other that is null is removed from the stored job (but `taskData` is null)."""
_ANY_TRIGGER: Final = Trigger(rule=FixedDelay(delay_ms=1_000))


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPut:
    """The change that a `PUT` asks for: a `JobEdit` of the requests."""

    given: Mapping[str, Any]
    """The body, without the fields that count as absent."""
    cluster: str
    now_ms: int

    def __call__(self, content: JobContent, *, created_ms: int) -> JobContent:
        """Raises: InvalidInput, TooLarge."""
        present = job_document(content)
        present.pop("trigger", None)
        wanted = _read(
            laid_over(present, self.given),
            cluster=self.cluster,
            now_ms=self.now_ms,
            created_ms=created_ms,
            traceparent=None,
            stored=content.trigger,
        )
        own_traceparent = any(name.lower() == TRACEPARENT for name, _ in wanted.headers)
        return replace(wanted, traceparent=None if own_traceparent else content.traceparent)


def read_job_change(document: Any, *, client_id: ClientId, job_id: JobId, cluster: str, now_ms: int) -> JobPut:
    """The body of a `PUT` of the job with this name. Raises: InvalidInput, TooLarge."""
    path_fields = {"clientId": client_id, "jobId": job_id}

    def check(given: dict[str, Any]) -> None:
        _read(
            laid_over({**_faultless(given), **path_fields}, given),
            cluster=cluster,
            now_ms=now_ms,
            created_ms=now_ms,
            traceparent=None,
            stored=_ANY_TRIGGER,
        )

    given = read_put_fields(document, path_fields, check, null_is_absent=_NULL_IS_ABSENT)
    return JobPut(given=given, cluster=cluster, now_ms=now_ms)


def _faultless(given: Mapping[str, Any]) -> dict[str, Any]:
    """A job over which only what is given can be wrong."""
    delivery = given.get("delivery")
    # A deadline that `onLate` needs; but it would be wrong beside a misfire policy that excludes deadlines.
    deadline = {"deadline": 0} if isinstance(delivery, dict) and "onLate" in delivery else {}
    # A completion that `overlap` needs, and an overlap that its retries need.
    overlap = {"overlap": "skip"} if given.get("completion") is not None else {}
    return {
        "taskData": "",
        "durable": True,
        "delivery": {"topic": "any", **deadline},
        "completion": {"timeoutMs": TIMEOUT_MS_MAX},
        **overlap,
    }


# --- other requests


def read_pause(document: Any) -> str | None:
    """The note of a pause. Raises: InvalidInput."""
    return read_form(PauseForm, document).note


def read_run_now(document: Any) -> RunNow:
    """Raises: InvalidInput, TooLarge."""
    errors, form = validated(RunNowForm, document)
    task_data: bytes | None = None
    data_form = DataForm.JSON
    if isinstance(document, dict) and "taskData" in document:
        try:
            task_data, data_form = stored_data(document["taskData"], document.get("taskDataEncoding"))
        except ValueError as error:
            errors.append(FieldError("taskData", str(error)))
    elif form is not None and form.task_data_encoding is not None:
        errors.append(FieldError("taskDataEncoding", "has no effect without taskData"))
    if errors or form is None:
        raise InvalidInput(errors)
    if task_data is None:
        return RunNow(request_id=form.request_id, task_data=None, digest="")

    def check(job: JobContent, data: bytes = task_data) -> None:
        check_size(data, job.headers)
        schema = None if job.payload_schema is None else read_payload_schema(json.loads(job.payload_schema))
        _check_payload(data, data_form, schema, headers=job.headers, interpolate=job.interpolate, job_id=job.job_id)

    return RunNow(
        request_id=form.request_id,
        task_data=task_data,
        data_form=data_form,
        digest=hashlib.sha256(task_data).hexdigest(),
        check=check,
    )


def read_backfill(document: Any, *, now_ms: int) -> BackfillRequest:
    """Raises: InvalidInput."""
    errors, form = validated(BackfillForm, document)
    if form is None:
        raise InvalidInput(errors)
    if form.from_ms is None or form.to_ms is None:
        missing = [name for name, value in (("from", form.from_ms), ("to", form.to_ms)) if value is None]
        raise InvalidInput([FieldError(name, "is required, and null counts as absent") for name in missing])
    if form.to_ms > now_ms:
        errors.append(FieldError("to", "should not be after now: what is ahead is fired by the trigger"))
    if form.from_ms > form.to_ms:
        errors.append(FieldError("from", "should not be after to"))
    if errors:
        raise InvalidInput(errors)
    fields = [form.from_ms, form.to_ms, form.max_runs]
    return BackfillRequest(
        request_id=form.request_id,
        from_ms=form.from_ms,
        to_ms=form.to_ms,
        runs_max=form.max_runs,
        digest=hashlib.sha256(json_body.canonical(fields)).hexdigest(),
    )


def read_preview(document: Any, *, now_ms: int) -> Preview:
    """A question for fire times. Raises: InvalidInput, naming every wrong field."""
    errors, form = validated(_PreviewEnvelope, document)
    from_ms = form.from_ms if form is not None and form.from_ms is not None else now_ms
    trigger = None
    if isinstance(document, dict) and "trigger" in document:
        # It should fire from then on, if that is a time.
        after_ms = from_ms if from_ms <= TIME_MS_MAX else now_ms
        try:
            trigger = read_trigger(document["trigger"], now_ms=after_ms, created_ms=now_ms)
        except InvalidInput as wrong:
            errors += wrong.errors
    if from_ms > TIME_MS_MAX:
        errors.append(FieldError("from", "should be a time from 1970 to 5138"))
    if form is not None and form.client_id is None:
        if form.job_id is not None:
            errors.append(FieldError("clientId", "is required with jobId"))
        elif trigger is not None and trigger.unresolved:
            errors.append(FieldError("clientId", "is required: the trigger names a calendar of its client"))
    if errors or form is None or trigger is None:
        raise InvalidInput(errors)
    job = None if form.job_id is None else f"{form.client_id}/{form.job_id}"
    client_id = None if form.client_id is None else ClientId(form.client_id)
    return Preview(trigger=trigger, from_ms=from_ms, count=form.count, jitter_seed=job, client_id=client_id)


def fire_time_document(time: FireTime) -> dict[str, Any]:
    """A fire time as answers show it: a `FireTimeDocument`."""
    document: dict[str, Any] = {"at": time.at_ms, "local": time.local}
    if time.due_ms is not None:
        document["dueAt"] = time.due_ms
    if time.note is not None:
        document["note"] = time.note
    return document
