"""A schedule as JSON: its create, its answer, and the way between both and the values of the domain.

The form of a create and the document of an answer are one family of models: a field that both have alike is declared once,
in `_KeyFields`, `_Fields` or `_DeliveryFields`; where a create may leave out what an answer always says, both stand beside
each other. `read_schedule` and `document_of` are each other's inverse. The body of a `PUT` (`change.ChangeForm`) and the
OpenAPI document are derived from here.

Every wrong field is named at once: fields are checked by pydantic in strict mode, and rules about two fields together
(`taskData` and its encoding, the sizes, the policies) after that.
"""

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema
from pydantic.alias_generators import to_camel

from clockwork.domain import names
from clockwork.domain.destination import Topic
from clockwork.domain.record import RESERVED_PREFIX, TRACEPARENT
from clockwork.domain.retry import BackoffPolicy, RetryPolicy
from clockwork.domain.schedule import (
    ClientId,
    DataForm,
    DeliveryContent,
    Guarantee,
    NewSchedule,
    OnLate,
    OrderingKey,
    Schedule,
    ScheduleKey,
)
from clockwork.errors import FieldError, InvalidInput
from clockwork.schema import json as json_body
from clockwork.schema.times import SECONDS_LIKE_MAX, due_ms_of_input
from clockwork.schema.validation import DOCUMENT, FORM, in_requests, read_form, validated

AHEAD_MS_MAX: Final = 3_653 * 86_400_000
"""Ten years, leap days included."""
STORED_BYTES_MAX: Final = 256 * 1024
"""`taskData` and headers together; a DynamoDB item holds 400 KB, and the rest of a row has its bounds too."""
TASK_DATA_LEVELS_MAX: Final = 64
HEADERS_MAX: Final = 100
HEADER_NAME_BYTES_MAX: Final = 256

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, the four fields of version 00, which every later version begins with."""


class TooLarge(InvalidInput):
    """`taskData` and headers are larger than a schedule may be."""


# --- rules of single fields


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """The part of a field's validity that does not depend on the request."""

    cluster: str
    now_ms: int


def client_id_of(value: str) -> str:
    """A legal `clientId`. Raises: ValueError, with a message for the client."""
    if not names.is_client_id(value):
        raise ValueError("should be 1 to 128 of A-Z a-z 0-9 . _ -")
    return value


def key_of(value: str) -> str:
    """A legal `scheduleKey` or `orderingKey`. Raises: ValueError, with a message for the client."""
    if not names.is_key(value):
        raise ValueError(f"should be 1 to {names.KEY_BYTES_MAX} bytes of UTF-8")
    return value


def topic_of(value: str) -> str:
    """A name that Kafka takes for a topic. Raises: ValueError, with a message for the client."""
    if not names.is_topic(value):
        raise ValueError("should be a Kafka topic name: 1 to 249 of A-Z a-z 0-9 . _ -, and neither . nor ..")
    return value


def topic_of_clients(value: str, cluster: str) -> str:
    """A topic that clients may deliver to: neither Kafka's own nor Clockwork's. Raises: ValueError, with a message for the
    client."""
    topic_of(value)
    if value.startswith("__"):
        raise ValueError("topics that begin with __ are Kafka's own")
    if value.startswith(f"{cluster}-"):
        raise ValueError(f"topics that begin with {cluster}- are Clockwork's own")
    return value


def _topic(value: str, info: ValidationInfo) -> str:
    return topic_of_clients(value, info.context.cluster) if isinstance(info.context, Context) else value


def _due_ms(value: object, info: ValidationInfo) -> int:
    if not isinstance(info.context, Context):
        raise TypeError("a schedule is validated without its context")
    due_ms = due_ms_of_input(value)
    if due_ms > info.context.now_ms + AHEAD_MS_MAX:
        raise ValueError("should be at most 10 years ahead")
    return due_ms


def _deadline_ms(value: int) -> int:
    if not 0 <= value <= AHEAD_MS_MAX:
        raise ValueError(f"should be 0 to {AHEAD_MS_MAX}")
    return value


def _header_name(value: str) -> str:
    if not 1 <= len(value.encode()) <= HEADER_NAME_BYTES_MAX:
        raise ValueError(f"a header's name should be 1 to {HEADER_NAME_BYTES_MAX} bytes of UTF-8")
    if value.lower().startswith(RESERVED_PREFIX):
        raise ValueError(f"headers that begin with {RESERVED_PREFIX} are reserved")
    return value


def _few(value: object) -> object:
    if isinstance(value, dict) and len(value) > HEADERS_MAX:
        raise ValueError(f"should be at most {HEADERS_MAX} headers")
    return value


CLIENT_ID_SCHEMA: Final = {"type": "string", "pattern": f"^{names.CLIENT_ID.pattern}$"}
KEY_SCHEMA: Final = {"type": "string", "minLength": 1, "maxLength": names.KEY_BYTES_MAX}
TOPIC_SCHEMA: Final = {"type": "string", "pattern": f"^{names.TOPIC.pattern}$"}

ClientIdText = Annotated[str, in_requests(client_id_of), WithJsonSchema(CLIENT_ID_SCHEMA)]
KeyText = Annotated[str, in_requests(key_of), WithJsonSchema({**KEY_SCHEMA, "description": "1 to 512 bytes of UTF-8."})]
TopicName = Annotated[str, AfterValidator(_topic), WithJsonSchema(TOPIC_SCHEMA)]
DueMs = Annotated[
    int,
    BeforeValidator(_due_ms),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "const": 0},
                {"type": "integer", "exclusiveMinimum": SECONDS_LIKE_MAX},
                {"type": "string", "format": "date-time"},
            ],
            "description": "Epoch milliseconds, or RFC 3339 with an offset; at most 10 years ahead. A past time, and 0, is "
            "due at once. Smaller numbers look like seconds, and are refused.",
        }
    ),
]
_Whole = BeforeValidator(json_body.whole)
_DeadlineMs = Annotated[
    int,
    _Whole,
    in_requests(_deadline_ms),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": AHEAD_MS_MAX}),
]
_HeaderName = Annotated[str, AfterValidator(_header_name)]
GuaranteeName = Literal["exactly_once", "at_least_once"]
OnLateName = Literal["deliver", "drop", "dead_letter"]
StatusName = Literal["pending", "delivered", "cancelled", "failed"]

# --- fields that a create and an answer have alike

_SHARED: Final = ConfigDict(alias_generator=to_camel, use_attribute_docstrings=True)


class _KeyFields(BaseModel):
    model_config = _SHARED

    client_id: ClientIdText
    schedule_key: KeyText


class _Fields(_KeyFields):
    ordering_key: KeyText | None = None
    """Order is kept per topic and ordering key; by default the `scheduleKey`."""
    task_data_encoding: Literal["json", "base64"] | None = None
    """By default `json`: a string is its bytes, anything else compact JSON."""


class _DeliveryFields(BaseModel):
    model_config = _SHARED

    topic: TopicName
    """An existing Kafka topic; names that begin with `__` or with the cluster's prefix are refused."""
    deadline_ms: Annotated[_DeadlineMs | None, Field(alias="deadline")] = None
    """Milliseconds after `scheduleTime` from which the schedule is late; by default never."""
    on_late: OnLateName | None = None
    """Action for a late schedule; by default `deliver`: it is delivered all the same."""


# --- a create


class KeyForm(_KeyFields):
    """The key of one schedule."""

    model_config = FORM


class RetryForm(BaseModel):
    """Attempts and waits for a record that its topic refuses for its content."""

    model_config = FORM

    attempts: Annotated[int | None, Field(ge=1, le=100), _Whole] = None
    initial_ms: Annotated[int | None, Field(ge=100, le=3_600_000), _Whole] = None
    max_ms: Annotated[int | None, Field(ge=100, le=86_400_000), _Whole] = None
    factor: Annotated[float | None, Field(ge=1, le=10)] = None
    """Two decimals are kept."""
    jitter: Annotated[float | None, Field(ge=0, le=1)] = None
    """Share of a wait that may be left off at random; two decimals are kept."""


class DeliveryForm(_DeliveryFields):
    """Destination, guarantee and policies of a delivery."""

    model_config = FORM

    guarantee: GuaranteeName | None = None
    """By default `exactly_once`."""
    headers: Annotated[dict[_HeaderName, str] | None, BeforeValidator(_few)] = None
    """Headers of the record, at most 100; names that begin with `clockwork-` are reserved."""
    retry: RetryForm | None = None
    """By default the cluster's policy."""


class ScheduleForm(_Fields):
    """A schedule to create."""

    model_config = FORM

    schedule_time_ms: Annotated[DueMs, Field(alias="scheduleTime")]
    task_data: Any
    """The payload: any JSON value, `null` included; only its absence is an error."""
    delivery: DeliveryForm


# --- an answer


class RetryDocument(BaseModel):
    """Attempts and waits for a record that its topic refuses for its content."""

    model_config = DOCUMENT

    attempts: int
    initial_ms: int
    max_ms: int
    factor: float
    jitter: float
    """Share of a wait that may be left off at random."""


class DeliveryDocument(_DeliveryFields):
    """Destination, guarantee and policies of a delivery."""

    model_config = DOCUMENT

    guarantee: GuaranteeName
    headers: dict[str, str | None] | None = None
    """The caller's own headers; absent in a summary; null for the value of each, where the key is redacted."""
    retry: RetryDocument | None = None
    """Absent: the cluster's policy."""


KafkaOffset = Annotated[int, Field(json_schema_extra={"format": "int64"})]
"""An offset: up to 2^63, so programs whose numbers are doubles have to read it with care."""


class DeliveredDocument(BaseModel):
    """Place and time of a delivered record."""

    model_config = DOCUMENT

    topic: str | None
    """null only where the stored content could not be read."""
    partition: int
    """The Kafka partition."""
    offset: KafkaOffset
    at_ms: Annotated[int, Field(alias="at")]
    """The record's timestamp, in epoch milliseconds."""
    lateness_ms: int
    """`at` less `scheduleTime`."""


class FailedDocument(BaseModel):
    """Reason for giving up a schedule; its dead letter has the same."""

    model_config = DOCUMENT

    reason: str
    """A short stable code, such as `topic_missing` or `attempts_exhausted`."""
    at_ms: Annotated[int, Field(alias="at")]
    """In epoch milliseconds."""
    attempts: int
    last_refusal: str | None = None
    """The reason of the last refusal, such as `record_too_large`; absent: no attempt was refused for its content."""


class _ContentDocument(_Fields):
    """The content is absent only where the stored one could not be read; `taskData` also where the key is redacted."""

    model_config = DOCUMENT

    schedule_time_ms: Annotated[int, Field(alias="scheduleTime")]
    """Due time, in epoch milliseconds."""
    task_data: Any = None
    """The payload as it was given: any JSON value, or base64 text; with `taskData=text` the JSON text of that. Absent in a
    summary."""
    delivery: DeliveryDocument | None = None
    created_at_ms: Annotated[int | None, Field(alias="createdAt")] = None
    """In epoch milliseconds."""
    delivery_id: str | None = None
    """One for each due time that was set; the record's header `clockwork-delivery-id`."""
    delivered: DeliveredDocument | None = None
    """Once it is delivered."""
    failed: FailedDocument | None = None
    """Once it failed."""
    redacted: Literal[True] | None = None
    """There if the key may not see the content."""


class ScheduleDocument(_ContentDocument):
    """A schedule and its state."""

    status: StatusName
    version: int
    """Number of changes under this key; also the `ETag`, in quotes."""
    shard: int


class PastDocument(_ContentDocument):
    """One schedule of a key's history: its end, or the change that moved it away from here (`superseded`)."""

    status: Literal["delivered", "cancelled", "failed", "superseded"]
    ended_at_ms: Annotated[int, Field(alias="endedAt")]
    """In epoch milliseconds."""
    version: int | None = None
    moved_to_ms: Annotated[int | None, Field(alias="movedTo")] = None
    """The due time that it was moved to, in epoch milliseconds; there if it is `superseded`."""


class PageDocument(BaseModel):
    """A page of schedules."""

    model_config = DOCUMENT

    schedules: list[ScheduleDocument]
    cursor: str | None
    """Asks for the next page; null at the end."""
    looked_at: int
    """Schedules that were read for this page: more than it has, if a filter leaves many out."""


class HistoryDocument(BaseModel):
    """A page of a key's history, newest first."""

    model_config = DOCUMENT

    schedules: list[PastDocument]
    cursor: str | None
    """Asks for the next page; null at the end."""


# --- from a create to the domain's value


def read_schedule(document: Any, *, cluster: str, now_ms: int, traceparent: str | None) -> NewSchedule:
    """A create, with its defaults filled in. `traceparent`: the request's header, if it had one.

    Raises: InvalidInput, TooLarge (nothing else is wrong).
    """
    context = Context(cluster=cluster, now_ms=now_ms)
    errors, form = validated(ScheduleForm, document, context, inner="delivery")
    task_data, data_form = b"", DataForm.JSON
    if isinstance(document, dict) and "taskData" in document:
        try:
            task_data, data_form = stored_data(document["taskData"], document.get("taskDataEncoding"))
        except ValueError as error:
            errors.append(FieldError("taskData", str(error)))
    if form is not None:
        errors += wrong_policies(form.delivery)
    if errors or form is None:
        raise InvalidInput(errors)
    ordering_key = form.schedule_key if form.ordering_key is None else form.ordering_key
    content = content_of(
        form.delivery,
        client_id=form.client_id,
        ordering_key=ordering_key,
        task_data=task_data,
        data_form=data_form,
        traceparent=traceparent,
    )
    return NewSchedule(
        **content.delivery_fields(),
        schedule_key=ScheduleKey(form.schedule_key),
        due_ms=form.schedule_time_ms,
        digest=_digest(
            {
                "clientId": form.client_id,
                "scheduleKey": form.schedule_key,
                "orderingKey": ordering_key,
                "scheduleTime": form.schedule_time_ms,
                "topic": content.topic,
                "guarantee": content.guarantee.value,
                "headers": content.headers,
            },
            json_body.canonical(document["taskData"]) if data_form is DataForm.JSON else task_data,
            data_form,
            # Fields that few creates have are part of the digest only where they are given.
            {} if content.deadline_ms is None else {"deadline": content.deadline_ms, "onLate": content.on_late.value},
            {} if content.retry is None else {"retry": _numbers_of(content.retry)},
        ),
    )


def content_of(
    delivery: DeliveryForm,
    *,
    client_id: str,
    ordering_key: str,
    task_data: bytes,
    data_form: DataForm,
    traceparent: str | None,
) -> DeliveryContent:
    """The part that a schedule and a job's occurrence have alike. Raises: TooLarge."""
    headers = tuple(sorted((delivery.headers or {}).items()))
    check_size(task_data, headers)
    return DeliveryContent(
        client_id=ClientId(client_id),
        ordering_key=OrderingKey(ordering_key),
        topic=Topic(delivery.topic),
        guarantee=Guarantee(delivery.guarantee or Guarantee.EXACTLY_ONCE),
        task_data=task_data,
        data_form=data_form,
        headers=headers,
        traceparent=kept_traceparent(traceparent, headers),
        deadline_ms=delivery.deadline_ms,
        on_late=OnLate(delivery.on_late or OnLate.DELIVER),
        retry=_policy_of(delivery.retry) if delivery.retry is not None else None,
    )


def read_key(document: Any) -> tuple[ClientId, ScheduleKey]:
    """The key of the schedule that a request is about. Raises: InvalidInput."""
    form = read_form(KeyForm, document)
    return ClientId(form.client_id), ScheduleKey(form.schedule_key)


def stored_data(value: Any, encoding: object) -> tuple[bytes, DataForm]:
    """The record's value, and the form in which it was given. Raises: ValueError, with a message for the client."""
    if isinstance(value, json_body.InvalidValue):
        raise ValueError(value.message)
    if encoding == "base64":
        return _decoded(value), DataForm.BASE64
    if isinstance(value, str):
        return value.encode(), DataForm.TEXT
    if json_body.deeper_than(value, TASK_DATA_LEVELS_MAX):
        raise ValueError(f"should be nested at most {TASK_DATA_LEVELS_MAX} deep")
    return json_body.compact(value), DataForm.JSON


def _decoded(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("should be a string, as taskDataEncoding is base64")
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("should be base64 (RFC 4648, 4), with its padding") from error
    # Stray bits behind the last byte would be lost, and the answer would differ from the request.
    if base64.b64encode(data).decode() != value:
        raise ValueError("should be base64 (RFC 4648, 4), without stray bits or blanks")
    return data


def check_size(task_data: bytes, headers: tuple[tuple[str, str], ...]) -> None:
    size_bytes = len(task_data) + sum(len(name.encode()) + len(value.encode()) for name, value in headers)
    if size_bytes > STORED_BYTES_MAX:
        message = f"is {size_bytes} bytes together with the headers; at most {STORED_BYTES_MAX} are taken"
        raise TooLarge([FieldError("taskData", message)])


def kept_traceparent(value: str | None, headers: tuple[tuple[str, str], ...]) -> str | None:
    """The request's traceparent if it is well-formed (W3C: else it is ignored) and not among the caller's headers."""
    if value is None or any(name.lower() == TRACEPARENT for name, _ in headers):
        return None
    return value if _TRACEPARENT.fullmatch(value) else None


def wrong_policies(delivery: DeliveryForm) -> list[FieldError]:
    """Errors that only two fields together make."""
    errors: list[FieldError] = []
    if delivery.on_late not in (None, "deliver") and delivery.deadline_ms is None:
        errors.append(FieldError("delivery.deadline", f"is required with onLate {delivery.on_late!r}"))
    if delivery.retry is not None:
        backoff = _policy_of(delivery.retry).backoff
        if backoff.initial_ms > backoff.max_ms:
            errors.append(FieldError("delivery.retry.maxMs", f"should be at least initialMs, {backoff.initial_ms}"))
    return errors


_RETRY_DEFAULTS: Final = {"attempts": 8, "initial_ms": 1_000, "max_ms": 60_000, "factor": 2.0, "jitter": 0.0}
"""Values of a `retry` that leaves them out."""


def _policy_of(form: RetryForm) -> RetryPolicy:
    given = {**_RETRY_DEFAULTS, **form.model_dump(exclude_none=True)}
    return RetryPolicy(
        attempts_max=given["attempts"],
        backoff=BackoffPolicy(
            initial_ms=given["initial_ms"],
            max_ms=given["max_ms"],
            factor_percent=round(given["factor"] * 100),
        ),
        jitter_percent=round(given["jitter"] * 100),
    )


def _numbers_of(policy: RetryPolicy) -> list[int]:
    """A policy as the digest has it: the order is fixed."""
    backoff = policy.backoff
    return [policy.attempts_max, backoff.initial_ms, backoff.max_ms, backoff.factor_percent, policy.jitter_percent]


def _digest(fields: dict[str, Any], data: bytes, data_form: DataForm, *optional: dict[str, Any]) -> str:
    """The digest of a create. It is stored, so it may never change for the same fields."""
    fields |= {"taskDataForm": data_form.value, "taskData": hashlib.sha256(data).hexdigest()}
    for each in optional:
        fields |= each
    return hashlib.sha256(json_body.canonical(fields)).hexdigest()


# --- from the domain's value to the create that makes it


@dataclass(frozen=True, kw_only=True, slots=True)
class Detail:
    """The part of a schedule's content that an answer has."""

    summary: bool = False
    """Without `taskData`, its encoding, and the headers."""
    data_as_text: bool = False
    """`taskData` is the JSON text of the value in place of the value: a reader whose numbers are doubles, as JavaScript's
    are, would round integers beyond 2^53."""


WHOLE: Final = Detail()
SUMMARY: Final = Detail(summary=True)


def document_of(schedule: Schedule, detail: Detail = WHOLE) -> dict[str, Any]:
    """The create that makes this schedule, with every field named; an answer repeats it, or the part in `detail`."""
    return {
        "clientId": schedule.client_id,
        "scheduleKey": schedule.schedule_key,
        "scheduleTime": schedule.due_ms,
        **content_document(schedule, detail),
    }


def content_document(content: DeliveryContent, detail: Detail = WHOLE) -> dict[str, Any]:
    """The members of a create that a schedule and a job have alike."""
    delivery: dict[str, Any] = {"topic": content.topic, "guarantee": content.guarantee.value}
    if not detail.summary:
        delivery["headers"] = dict(content.headers)
    if content.deadline_ms is not None:
        delivery |= {"deadline": content.deadline_ms, "onLate": content.on_late.value}
    if (policy := content.retry) is not None:
        delivery["retry"] = {
            "attempts": policy.attempts_max,
            "initialMs": policy.backoff.initial_ms,
            "maxMs": policy.backoff.max_ms,
            "factor": policy.backoff.factor_percent / 100,
            "jitter": policy.jitter_percent / 100,
        }
    document: dict[str, Any] = {"orderingKey": content.ordering_key}
    if not detail.summary:
        document |= {
            "taskData": data_text(content) if detail.data_as_text else _given_data(content),
            "taskDataEncoding": "base64" if content.data_form is DataForm.BASE64 else "json",
        }
    return document | {"delivery": delivery}


def data_text(content: DeliveryContent) -> str:
    """The JSON text of `taskData` as it was given; of a JSON value the text that is stored."""
    if content.data_form is DataForm.JSON:
        return content.task_data.decode()
    return json_body.compact(_given_data(content)).decode()


def _given_data(content: DeliveryContent) -> Any:
    match content.data_form:
        case DataForm.JSON:
            return json.loads(content.task_data)
        case DataForm.TEXT:
            return content.task_data.decode()
        case DataForm.BASE64:
            return base64.b64encode(content.task_data).decode()
