"""What clients send to change a schedule: the body of a `PUT`, of a `retry`, and `If-Match`.

A `PUT` is the create that would have been sent, had the client known then what it knows now: what it names is laid over
what is there, and the whole is validated exactly as a create is. So there is one set of rules, also for those that two
fields decide together (`taskData` and its encoding, the sizes, `onLate` and its deadline), of which a `PUT` may name only
one. `delivery` is merged field by field; `headers` and `retry` are one field each, and replaced as a whole.

That needs the schedule that is there, which may be another one by the time it is changed. So a body is validated twice:
when it is read, over a schedule that nothing is wrong with, so that bad input is told whatever is stored; and by the
engine, over the one that is changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from aiohttp import hdrs, web

from clockwork.domain.record import TRACEPARENT
from clockwork.domain.schedule import ClientId, Schedule, ScheduleKey
from clockwork.errors import FieldError, InvalidInput
from clockwork.requests.results import IfVersion, NewSchedule
from clockwork.schema import render as shown
from clockwork.schema import schedule as schemas

_FAULTLESS: Final[Mapping[str, Any]] = {
    "scheduleTime": 0,
    "taskData": "",
    "delivery": {"topic": "any", "deadline": 0},
}
_NULLABLE: Final = frozenset({"scheduleTime", "orderingKey", "taskDataEncoding", "delivery"})
_NULLABLE_IN_DELIVERY: Final = frozenset({"topic", "guarantee", "headers", "deadline", "onLate", "retry"})
_VERSION_CHARS_MAX: Final = 18


@dataclass(frozen=True, kw_only=True, slots=True)
class PutChange:
    """The change that a `PUT` asks for. Implements the engine's `Change`."""

    given: Mapping[str, Any]
    """The body, without what counts as absent."""
    cluster: str
    now_ms: int

    def __call__(self, schedule: Schedule) -> Schedule:
        """Raises: InvalidInput, TooLarge."""
        # The time that is there is not checked again: it was taken once, maybe in another form.
        present = {**shown.request_of(schedule), "scheduleTime": 0}
        new = _validated(_laid_over(present, self.given), self.cluster, self.now_ms)
        own_traceparent = any(name.lower() == TRACEPARENT for name, _ in new.headers)
        return replace(
            schedule,
            ordering_key=new.ordering_key,
            due_ms=new.due_ms if "scheduleTime" in self.given else schedule.due_ms,
            topic=new.topic,
            guarantee=new.guarantee,
            task_data=new.task_data,
            data_form=new.data_form,
            headers=new.headers,
            deadline_ms=new.deadline_ms,
            on_late=new.on_late,
            retry=new.retry,
            traceparent=None if own_traceparent else schedule.traceparent,
        )


def read_put(document: Any, *, client_id: ClientId, schedule_key: ScheduleKey, cluster: str, now_ms: int) -> PutChange:
    """The body of a `PUT` of the schedule with this key. Raises: InvalidInput, TooLarge."""
    if not isinstance(document, dict):
        raise InvalidInput([FieldError("body", "should be a JSON object")])
    names = {"clientId": client_id, "scheduleKey": schedule_key}
    wrong = [
        FieldError(name, "cannot be changed; leave it out, or give what the path says")
        for name, value in names.items()
        if document.get(name) not in (None, value)
    ]
    given = _without_absent({name: value for name, value in document.items() if name not in names})
    try:
        _validated(_laid_over({**_FAULTLESS, **names}, given), cluster, now_ms)
    except schemas.TooLarge:
        if not wrong:
            raise
    except InvalidInput as invalid:
        raise InvalidInput([*wrong, *invalid.errors]) from invalid
    if wrong:
        raise InvalidInput(wrong)
    return PutChange(given=given, cluster=cluster, now_ms=now_ms)


def read_retry(document: Any, *, cluster: str, now_ms: int) -> int | None:
    """The due time that a `retry` asks for; None: now. Raises: InvalidInput."""
    if not isinstance(document, dict):
        raise InvalidInput([FieldError("body", "should be a JSON object")])
    unknown = sorted(document.keys() - {"scheduleTime"})
    errors = [FieldError(name, "is no field of this request") for name in unknown[: schemas.MEMBERS_MAX]]
    due_ms = document.get("scheduleTime")
    if due_ms is not None:
        names = {"clientId": "any", "scheduleKey": "any"}
        try:
            due_ms = _validated({**_FAULTLESS, **names, "scheduleTime": due_ms}, cluster, now_ms).due_ms
        except InvalidInput as invalid:
            errors += invalid.errors
    if errors:
        raise InvalidInput(errors)
    return due_ms


def read_nothing(document: Any) -> None:
    """The body of a request that says all by its path. Raises: InvalidInput."""
    if document != {}:
        raise InvalidInput([FieldError("body", "should be absent, or an empty JSON object")])


def if_version(request: web.Request) -> IfVersion | None:
    """The versions that `If-Match` names; None: any. Raises: InvalidInput."""
    lines = request.headers.getall(hdrs.IF_MATCH, [])
    if not lines or [line.strip() for line in lines] == ["*"]:
        return None
    tags = request.if_match if len(lines) == 1 else None
    if not tags:
        raise InvalidInput(
            [FieldError("If-Match", 'should be one header with versions as the ETag gives them: "3"; or *')]
        )
    # Weak ones never match (RFC 9110, 13.1.1), nor does what is no version of ours.
    named = (tag.value for tag in tags if not tag.is_weak)
    return frozenset(int(v) for v in named if v.isascii() and v.isdigit() and len(v) <= _VERSION_CHARS_MAX)


def _without_absent(document: Mapping[str, Any]) -> dict[str, Any]:
    """An optional field that is null counts as absent, and here all are optional; `taskData` may be null."""
    given = {name: value for name, value in document.items() if value is not None or name not in _NULLABLE}
    if isinstance(delivery := given.get("delivery"), dict):
        given["delivery"] = {
            name: value for name, value in delivery.items() if value is not None or name not in _NULLABLE_IN_DELIVERY
        }
    return given


def _laid_over(present: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**present, **given}
    if isinstance(delivery := given.get("delivery"), dict):
        merged["delivery"] = {**present["delivery"], **delivery}
    return merged


def _validated(document: dict[str, Any], cluster: str, now_ms: int) -> NewSchedule:
    return schemas.read_schedule(document, cluster=cluster, now_ms=now_ms, traceparent=None)
