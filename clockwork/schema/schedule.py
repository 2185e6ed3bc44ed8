"""What clients send and what they are answered, to and from the values of the domain.

Every wrong field is named at once: fields are checked by pydantic in strict mode (no number becomes a text, no text a
number), and what only two fields together decide (`taskData` and its encoding, the sizes) is checked after that.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails

from clockwork.domain import names
from clockwork.domain.destination import Topic
from clockwork.domain.position import due_ms_of
from clockwork.domain.record import RESERVED_PREFIX, TRACEPARENT
from clockwork.domain.schedule import ClientId, DataForm, Guarantee, OrderingKey, ScheduleKey
from clockwork.errors import FieldError, InvalidInput
from clockwork.requests.results import NewSchedule, ScheduleView
from clockwork.schema import json as json_body
from clockwork.schema import policies
from clockwork.schema import render as shown
from clockwork.schema.data_forms import stored_data
from clockwork.schema.times import SECONDS_LIKE_MAX, due_ms_of_input

AHEAD_MS_MAX: Final = 3_653 * 86_400_000
"""Ten years, leap days included."""
STORED_BYTES_MAX: Final = 256 * 1024
"""`taskData` and headers together; a DynamoDB item holds 400 KB, and the rest of a row has its bounds too."""
HEADERS_MAX: Final = 100
HEADER_NAME_BYTES_MAX: Final = 256
MEMBERS_MAX: Final = 100
"""Names in one object of a request, `taskData` aside: more is no mistake that a list of errors would help with."""
_QUOTED_CHARS_MAX: Final = 100

_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, the four fields of version 00, which every later version begins with."""


class TooLarge(InvalidInput):
    """`taskData` and headers are larger than a schedule may be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Context:
    """What the validity of a field depends on besides the request."""

    cluster: str
    now_ms: int


def _context(info: ValidationInfo) -> _Context:
    if not isinstance(info.context, _Context):
        raise TypeError("a schedule is validated without its context")
    return info.context


def client_id_of(value: str) -> str:
    """A legal `clientId`. Raises: ValueError, as the two below."""
    if not names.is_client_id(value):
        raise ValueError("should be 1 to 128 of A-Z a-z 0-9 . _ -")
    return value


def key_of(value: str) -> str:
    """A legal `scheduleKey` or `orderingKey`."""
    if not names.is_key(value):
        raise ValueError(f"should be 1 to {names.KEY_BYTES_MAX} bytes of UTF-8")
    return value


def topic_of(value: str) -> str:
    """A name that Kafka would take."""
    if not _TOPIC.fullmatch(value) or value in {".", ".."}:
        raise ValueError("should be a Kafka topic name: 1 to 249 of A-Z a-z 0-9 . _ -, and neither . nor ..")
    return value


def topic_of_clients(value: str, cluster: str) -> str:
    """The same, and nobody's own."""
    topic_of(value)
    if value.startswith("__"):
        raise ValueError("topics that begin with __ are Kafka's own")
    if value.startswith(f"{cluster}-"):
        raise ValueError(f"topics that begin with {cluster}- are Clockwork's own")
    return value


def _topic(value: str, info: ValidationInfo) -> str:
    return topic_of_clients(value, _context(info).cluster)


def _due_ms(value: object, info: ValidationInfo) -> int:
    due_ms = due_ms_of_input(value)
    if due_ms > _context(info).now_ms + AHEAD_MS_MAX:
        raise ValueError("should be at most 10 years ahead")
    return due_ms


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


ClientIdText = Annotated[
    str, AfterValidator(client_id_of), WithJsonSchema({"type": "string", "pattern": f"^{names.CLIENT_ID.pattern}$"})
]
KeyText = Annotated[
    str,
    AfterValidator(key_of),
    WithJsonSchema(
        {"type": "string", "minLength": 1, "maxLength": names.KEY_BYTES_MAX, "description": "1 to 512 bytes of UTF-8."}
    ),
]
TopicName = Annotated[str, AfterValidator(_topic), WithJsonSchema({"type": "string", "pattern": f"^{_TOPIC.pattern}$"})]
_HeaderName = Annotated[str, AfterValidator(_header_name)]
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
            "description": "Epoch milliseconds, or RFC 3339 with an offset; at most 10 years ahead. The past, and 0, is at "
            "once. Smaller numbers look like seconds, and are refused.",
        }
    ),
]
_STRICT: Final = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)


class KeyForm(BaseModel):
    """Names one schedule."""

    model_config = _STRICT

    client_id: Annotated[ClientIdText, Field(alias="clientId")]
    schedule_key: Annotated[KeyText, Field(alias="scheduleKey")]


class LetterForm(KeyForm):
    """Names one dead letter."""

    delivery_id: Annotated[str, Field(alias="deliveryId", min_length=1)]
    """Of the delivery that was given up, as the letter says."""


class DeliveryForm(BaseModel):
    """Where a schedule goes, how surely, and what if it cannot go there in time."""

    model_config = _STRICT

    topic: TopicName
    """It must exist; names that begin with `__` or with the cluster's prefix are refused."""
    guarantee: Literal["exactly_once", "at_least_once"] | None = None
    """By default `exactly_once`."""
    headers: Annotated[dict[_HeaderName, str] | None, BeforeValidator(_few)] = None
    """Of the record, at most 100; names that begin with `clockwork-` are reserved."""
    deadline: Annotated[int | None, Field(ge=0, le=AHEAD_MS_MAX), BeforeValidator(json_body.whole)] = None
    """Milliseconds after `scheduleTime`."""
    on_late: Annotated[policies.OnLateName | None, Field(alias="onLate")] = None
    """What becomes of it once the deadline has passed; by default `deliver`, all the same."""
    retry: policies.RetryForm | None = None


class ScheduleForm(KeyForm):
    """A schedule, as it is created."""

    due_ms: Annotated[DueMs, Field(alias="scheduleTime")]
    ordering_key: Annotated[KeyText | None, Field(alias="orderingKey")] = None
    """By default the `scheduleKey`. Order is kept per topic and ordering key."""
    task_data: Annotated[Any, Field(alias="taskData")]
    """Any JSON value, `null` included: only its absence is an error."""
    task_data_encoding: Annotated[Literal["json", "base64"] | None, Field(alias="taskDataEncoding")] = None
    """By default `json`: a string is its bytes, anything else compact JSON."""
    delivery: DeliveryForm


def read_schedule(document: Any, *, cluster: str, now_ms: int, traceparent: str | None) -> NewSchedule:
    """A create, with its defaults filled in. `traceparent`: the request's header, if it had one.

    Raises: InvalidInput, TooLarge (nothing else is wrong).
    """
    errors, form = _validated(ScheduleForm, document, _Context(cluster=cluster, now_ms=now_ms))
    task_data, data_form = b"", DataForm.JSON
    if isinstance(document, dict) and "taskData" in document:
        try:
            task_data, data_form = stored_data(document["taskData"], document.get("taskDataEncoding"))
        except ValueError as error:
            errors.append(FieldError("taskData", str(error)))
    if form is not None:
        errors += policies.wrong_policies(form.delivery)
    if errors or form is None:
        raise InvalidInput(errors)
    headers = tuple(sorted((form.delivery.headers or {}).items()))
    _check_size(task_data, headers)
    ordering_key = form.schedule_key if form.ordering_key is None else form.ordering_key
    guarantee = Guarantee(form.delivery.guarantee or Guarantee.EXACTLY_ONCE)
    return NewSchedule(
        client_id=ClientId(form.client_id),
        schedule_key=ScheduleKey(form.schedule_key),
        ordering_key=OrderingKey(ordering_key),
        due_ms=form.due_ms,
        topic=Topic(form.delivery.topic),
        guarantee=guarantee,
        task_data=task_data,
        data_form=data_form,
        headers=headers,
        traceparent=_kept_traceparent(traceparent, headers),
        deadline_ms=form.delivery.deadline,
        on_late=policies.on_late_of(form.delivery),
        retry=policies.policy_of(form.delivery.retry) if form.delivery.retry is not None else None,
        digest=_digest(form, document["taskData"], task_data, data_form, ordering_key, guarantee, headers),
    )


def read_key(document: Any) -> tuple[ClientId, ScheduleKey]:
    """Which schedule is meant. Raises: InvalidInput."""
    errors, form = _validated(KeyForm, document)
    if errors or form is None:
        raise InvalidInput(errors)
    return ClientId(form.client_id), ScheduleKey(form.schedule_key)


def read_letter(document: Any) -> tuple[ClientId, ScheduleKey, str]:
    """Which dead letter is meant: by key and delivery id. Raises: InvalidInput."""
    errors, form = _validated(LetterForm, document)
    if errors or form is None:
        raise InvalidInput(errors)
    return ClientId(form.client_id), ScheduleKey(form.schedule_key), form.delivery_id


# --- errors, as clients read them

_Form = TypeVar("_Form", bound=BaseModel)

_MESSAGES: Final[Mapping[str, str]] = {
    "missing": "is required",
    "extra_forbidden": "is no field of this request",
    "string_type": "should be a string",
    "model_type": "should be an object",
    "dict_type": "should be an object",
}


def _validated(
    model: type[_Form], document: Any, context: _Context | None = None
) -> tuple[list[FieldError], _Form | None]:
    if not isinstance(document, dict):
        return [FieldError("body", "should be a JSON object")], None
    for name, inner in (("body", document), ("delivery", document.get("delivery"))):
        if isinstance(inner, dict) and len(inner) > MEMBERS_MAX:
            return [FieldError(name, f"should have at most {MEMBERS_MAX} names")], None
    try:
        return [], model.model_validate(document, context=context)
    except ValidationError as error:
        return [_field_error(each) for each in error.errors(include_url=False)], None


def _field_error(error: ErrorDetails) -> FieldError:
    # pydantic marks an error of a mapping's key by a last step "[key]"; a header may really be called that, but then it
    # is not the last of four.
    path = error["loc"][:3] if len(error["loc"]) == 4 else error["loc"]
    field = ".".join(str(step) for step in path)
    if isinstance(error["input"], json_body.InvalidValue) and error["type"] != "extra_forbidden":
        message = error["input"].message
    elif error["type"] == "literal_error":
        message = f"should be {error['ctx']['expected']}"
    elif error["type"] == "value_error":
        message = str(error["ctx"]["error"])
    elif error["type"] in {"string_type", "model_type"} and error["input"] is None:
        message = "is required, and null counts as absent"
    else:
        message = _MESSAGES.get(error["type"], error["msg"])
    return FieldError(_shortened(field), message)


def _shortened(text: str) -> str:
    return text if len(text) <= _QUOTED_CHARS_MAX else f"{text[:_QUOTED_CHARS_MAX]}…"


# --- what fields decide together


def _check_size(task_data: bytes, headers: tuple[tuple[str, str], ...]) -> None:
    size_bytes = len(task_data) + sum(len(name.encode()) + len(value.encode()) for name, value in headers)
    if size_bytes > STORED_BYTES_MAX:
        message = f"is {size_bytes} bytes together with the headers; at most {STORED_BYTES_MAX} are taken"
        raise TooLarge([FieldError("taskData", message)])


def _kept_traceparent(value: str | None, headers: tuple[tuple[str, str], ...]) -> str | None:
    """A malformed one is ignored, as W3C asks; one among the caller's own headers is meant, and stands alone."""
    if value is None or any(name.lower() == TRACEPARENT for name, _ in headers):
        return None
    return value if _TRACEPARENT.fullmatch(value) else None


def _digest(
    form: ScheduleForm,
    given: Any,
    task_data: bytes,
    data_form: DataForm,
    ordering_key: str,
    guarantee: Guarantee,
    headers: tuple[tuple[str, str], ...],
) -> str:
    """Stored with the schedule: may never change for the same fields."""
    data = json_body.canonical(given) if data_form is DataForm.JSON else task_data
    fields = {
        "clientId": form.client_id,
        "scheduleKey": form.schedule_key,
        "orderingKey": ordering_key,
        "scheduleTime": form.due_ms,
        "topic": form.delivery.topic,
        "guarantee": guarantee.value,
        "headers": headers,
        "taskDataForm": data_form.value,
        "taskData": hashlib.sha256(data).hexdigest(),
    }
    # Said by few; a digest without them is as it was before there were any.
    if form.delivery.deadline is not None:
        fields |= {"deadline": form.delivery.deadline, "onLate": policies.on_late_of(form.delivery).value}
    if form.delivery.retry is not None:
        fields["retry"] = policies.numbers_of(policies.policy_of(form.delivery.retry))
    return hashlib.sha256(json_body.canonical(fields)).hexdigest()


# --- answers


def answer(view: ScheduleView) -> dict[str, Any]:
    """A schedule and its state, as every answer shows it."""
    identity = {
        "clientId": view.client_id,
        "scheduleKey": view.schedule_key,
        "scheduleTime": due_ms_of(view.position),
    }
    state = {"status": view.status.value, "version": view.version, "shard": view.shard}
    return (
        identity
        | shown.content(view.schedule)
        | state
        | (shown.ending(view.outcome) if view.outcome is not None else {})
    )
