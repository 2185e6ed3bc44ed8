"""The bodies of a `PUT` and of a `retry`.

A `PUT` is the create that would have been sent with today's knowledge: its fields are laid over those of the stored
schedule, and the whole is validated exactly as a create is. So there is one set of rules, also for those about two fields
(`taskData` and its encoding, the sizes, `onLate` and its deadline), of which a `PUT` may name only one. `delivery` is merged
field by field; `headers` and `retry` are one field each, and replaced as a whole.

The stored schedule may be another one by the time it is changed. So a body is validated twice: when it is read, over a
schedule without faults, so that bad input is reported independently of the stored schedule; and when the change is applied,
over the schedule that is changed.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Optional

from pydantic import BaseModel, Field, create_model

from clockwork.domain.record import TRACEPARENT
from clockwork.domain.schedule import ClientId, NewSchedule, Schedule, ScheduleKey
from clockwork.errors import FieldError, InvalidInput
from clockwork.schema.schedule import Context, DeliveryForm, DueMs, ScheduleForm, TooLarge, document_of, read_schedule
from clockwork.schema.validation import FORM, read_form

_FAULTLESS: Final[Mapping[str, Any]] = {
    "scheduleTime": 0,
    "taskData": "",
    "delivery": {"topic": "any", "deadline": 0},
}
_NULL_IS_ABSENT: Final = frozenset({"scheduleTime", "orderingKey", "taskDataEncoding", "delivery"})
_NULL_IS_ABSENT_IN_DELIVERY: Final = frozenset({"topic", "guarantee", "headers"})
"""Fields that every schedule has. Any other that is null is removed from the stored schedule (but `taskData` is null)."""


def all_optional(model: type[BaseModel], name: str, doc: str, **more: Any) -> type[BaseModel]:
    """The model with every field optional."""
    fields: dict[str, Any] = {
        each: (
            Optional[info.rebuild_annotation()],  # noqa: UP045 - the annotation is a value here
            Field(default=None, alias=info.alias, description=info.description),
        )
        for each, info in model.model_fields.items()
    }
    return create_model(name, __config__=FORM, __doc__=doc, **{**fields, **more})


_DeliveryChangeForm = all_optional(
    DeliveryForm, "DeliveryChangeForm", "Changes of the delivery; a field that is left out stays as it is."
)
ChangeForm: Final = all_optional(
    ScheduleForm,
    "ChangeForm",
    "Changes of a pending schedule; a field that is left out stays as it is. `clientId` and `scheduleKey` only as in the "
    "path.",
    delivery=(_DeliveryChangeForm | None, None),
)
"""Describes the body of a `PUT`; it is read by `read_put`, over the stored schedule."""


class RearmForm(BaseModel):
    """Due time of a failed schedule that is armed again."""

    model_config = FORM

    schedule_time_ms: Annotated[DueMs | None, Field(alias="scheduleTime")] = None
    """By default now."""


class NothingForm(BaseModel):
    """An empty object."""

    model_config = FORM


@dataclass(frozen=True, kw_only=True, slots=True)
class PutChange:
    """The change that a `PUT` asks for: a `requests.results.Change`."""

    given: Mapping[str, Any]
    """The body, without the fields that count as absent."""
    cluster: str
    now_ms: int

    def __call__(self, schedule: Schedule) -> Schedule:
        """Raises: InvalidInput, TooLarge."""
        # The stored time is not checked again: it was accepted, maybe in another form.
        present = {**document_of(schedule), "scheduleTime": 0}
        wanted = _validated(laid_over(present, self.given), self.cluster, self.now_ms)
        own_traceparent = any(name.lower() == TRACEPARENT for name, _ in wanted.headers)
        fields = wanted.fields() | {"traceparent": None if own_traceparent else schedule.traceparent}
        if "scheduleTime" not in self.given:
            fields["due_ms"] = schedule.due_ms
        return replace(schedule, **fields)


def read_put(document: Any, *, client_id: ClientId, schedule_key: ScheduleKey, cluster: str, now_ms: int) -> PutChange:
    """The body of a `PUT` of the schedule with this key. Raises: InvalidInput, TooLarge."""
    path_fields = {"clientId": client_id, "scheduleKey": schedule_key}

    def check(given: dict[str, Any]) -> None:
        _validated(laid_over({**_FAULTLESS, **path_fields}, given), cluster, now_ms)

    given = read_put_fields(document, path_fields, check, null_is_absent=_NULL_IS_ABSENT)
    return PutChange(given=given, cluster=cluster, now_ms=now_ms)


def read_retry(document: Any, *, cluster: str, now_ms: int) -> int | None:
    """The due time that a `retry` asks for; None: now. Raises: InvalidInput."""
    return read_form(RearmForm, document, Context(cluster=cluster, now_ms=now_ms)).schedule_time_ms


def read_nothing(document: Any) -> None:
    """The body of a request whose path says everything. Raises: InvalidInput."""
    if document != {}:
        raise InvalidInput([FieldError("body", "should be absent, or an empty JSON object")])


def read_put_fields(
    document: Any,
    path_fields: Mapping[str, str],
    check: Callable[[dict[str, Any]], None],
    *,
    null_is_absent: Container[str],
) -> dict[str, Any]:
    """The fields that the body of a PUT gives, without those that its path has: `path_fields`, with their values.

    `check` validates the fields, and raises InvalidInput or TooLarge. `null_is_absent`: see `_given_fields`. Raises:
    InvalidInput, with what is wrong with the fields of path and body together; TooLarge.
    """
    if not isinstance(document, dict):
        raise InvalidInput([FieldError("body", "should be a JSON object")])
    wrong = [
        FieldError(name, "cannot be changed; leave it out, or give what the path says")
        for name, value in path_fields.items()
        if document.get(name) not in (None, value)
    ]
    given = _given_fields({name: value for name, value in document.items() if name not in path_fields}, null_is_absent)
    try:
        check(given)
    except TooLarge:
        if not wrong:
            raise
    except InvalidInput as invalid:
        raise InvalidInput([*wrong, *invalid.errors]) from invalid
    if wrong:
        raise InvalidInput(wrong)
    return given


def _given_fields(document: Mapping[str, Any], null_is_absent: Container[str]) -> dict[str, Any]:
    """The fields that were given. In those of `null_is_absent`, null means not given; in `delivery`, in a fixed set."""
    given = {name: value for name, value in document.items() if value is not None or name not in null_is_absent}
    if isinstance(delivery := given.get("delivery"), dict):
        given["delivery"] = {
            name: value
            for name, value in delivery.items()
            if value is not None or name not in _NULL_IS_ABSENT_IN_DELIVERY
        }
    return given


def laid_over(present: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a PUT over the present ones; `delivery` field by field."""
    merged = {**present, **given}
    if isinstance(delivery := given.get("delivery"), dict):
        merged["delivery"] = {**present["delivery"], **delivery}
    return merged


def _validated(document: dict[str, Any], cluster: str, now_ms: int) -> NewSchedule:
    return read_schedule(document, cluster=cluster, now_ms=now_ms, traceparent=None)
