"""Every call of the HTTP API, described: a new route gets its entry here (tests/unit/test_openapi.py says so).

The document shows an entry only where the application has its route, so a worker's says nothing of schedules.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from clockwork.http.openapi_admin import ADMIN_CALLS
from clockwork.http.openapi_forms import CancelManyForm, ChangeForm, CreateManyForm, NothingForm, RearmForm
from clockwork.http.openapi_node import NODE_CALLS
from clockwork.http.openapi_parts import (
    A_KEY,
    A_REQUEST,
    CANCELLED,
    DELIVERED,
    FAILED,
    GONE_ON,
    NOT_FOUND,
    NOW_MS,
    PAGING,
    PAST,
    PENDING,
    QUOTA_HEADERS,
    SCHEDULE_CALL,
    TAKEN,
    WITH_BODY,
    Answer,
    Call,
    Parameter,
    conflict,
    problem,
)
from clockwork.schema import problems
from clockwork.schema.documents import BatchDocument, HistoryDocument, PageDocument, ScheduleDocument, StaleDocument
from clockwork.schema.schedule import KeyForm, ScheduleForm

SCHEDULES: Final = "schedules"
MANY: Final = "many at once"

_ONE: Final = "/schedule/{clientId}/{scheduleKey}"
_MOVED: Final = {**PENDING, "version": 2, "scheduleTime": NOW_MS + 60_000, "deliveryId": "05e1ab" + "0" * 26}
_CONDITIONS: Final = (
    Parameter(
        name="If-Match",
        where="header",
        description="Only if this is still the version, in quotes; else 412.",
        schema={"type": "string"},
        example='"3"',
    ),
    Parameter(
        name="If-None-Match",
        where="header",
        description="Only if the version, in quotes, is another; `*`: only if there is no schedule. Else 304 (GET) or 412.",
        schema={"type": "string"},
    ),
)
_STALE: Final = problem(
    "`If-Match` or `If-None-Match` rules the version out.",
    model=StaleDocument,
    stale=problems.version_differs(2, _MOVED),
)


def _schedule(description: str, *headers: str, **examples: Any) -> Answer:
    return Answer(description=description, model=ScheduleDocument, examples=examples, headers=("ETag", *headers))


def _text(name: str, description: str, *, required: bool = False, example: Any = None, **schema: Any) -> Parameter:
    return Parameter(
        name=name,
        where="query",
        description=description,
        schema={"type": "string", **schema},
        required=required,
        example=example,
    )


def _time(name: str, description: str) -> Parameter:
    schema = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "format": "date-time"}]}
    return Parameter(name=name, where="query", description=description, schema=schema)


_CANCEL_ANSWERS: Final[Mapping[int, Answer]] = {
    200: _schedule("It will never be delivered; cancelled now or before.", cancelled=CANCELLED),
    404: NOT_FOUND,
    409: GONE_ON,
    412: _STALE,
}

_SINGLE: Final = (
    Call(
        method="POST",
        path="/schedule",
        name="createSchedule",
        tag=SCHEDULES,
        summary="Create a schedule",
        description=(
            "`201` means that it is durable. The same request again is the same schedule and answers `200` with its "
            "present state, so a lost answer is settled by sending it again."
        ),
        request=ScheduleForm,
        request_examples={
            "usual": A_REQUEST,
            "everything": {
                **A_REQUEST,
                "scheduleTime": "2030-01-31T12:00:00+01:00",
                "taskData": "aGVsbG8=",
                "taskDataEncoding": "base64",
                "delivery": {
                    "topic": "orderTopic",
                    "guarantee": "at_least_once",
                    "headers": {"source": "web"},
                    "deadline": 60_000,
                    "onLate": "dead_letter",
                    "retry": {"attempts": 5, "initialMs": 500, "jitter": 0.2},
                },
            },
        },
        answers={
            200: _schedule("The same request again: what became of it.", *QUOTA_HEADERS, repeated=DELIVERED),
            201: _schedule("Created, and durable.", "Location", *QUOTA_HEADERS, created=PENDING),
            409: conflict("Another schedule is pending under this key.", taken=TAKEN),
            **WITH_BODY,
        },
    ),
    Call(
        method="DELETE",
        path="/schedule",
        name="cancelScheduleNamedInBody",
        tag=SCHEDULES,
        summary="Cancel, named in the body",
        description="The same as `DELETE /schedule/{clientId}/{scheduleKey}`.",
        request=KeyForm,
        request_examples={"key": A_KEY},
        parameters=_CONDITIONS,
        answers={**_CANCEL_ANSWERS, **WITH_BODY},
    ),
    Call(
        method="GET",
        path=_ONE,
        name="getSchedule",
        tag=SCHEDULES,
        summary="State and content",
        description="Strongly consistent: never behind an answer that was given before.",
        parameters=_CONDITIONS,
        answers={
            200: _schedule("The schedule.", pending=PENDING, delivered=DELIVERED, failed=FAILED),
            304: Answer(
                description="The version is one that `If-None-Match` names.", media_type=None, headers=("ETag",)
            ),
            404: NOT_FOUND,
            412: _STALE,
            **SCHEDULE_CALL,
        },
    ),
    Call(
        method="DELETE",
        path=_ONE,
        name="cancelSchedule",
        tag=SCHEDULES,
        summary="Cancel",
        description="The answer is the truth: after `200` it is never delivered; `in_flight` promises nothing.",
        parameters=_CONDITIONS,
        answers={**_CANCEL_ANSWERS, **SCHEDULE_CALL},
    ),
    Call(
        method="PUT",
        path=_ONE,
        name="changeSchedule",
        tag=SCHEDULES,
        summary="Reschedule or change",
        description="Omitted fields stay; `delivery` is merged field by field, its `headers` and `retry` as a whole.",
        request=ChangeForm,
        request_examples={"later": {"scheduleTime": NOW_MS + 60_000}, "elsewhere": {"delivery": {"topic": "other"}}},
        parameters=_CONDITIONS,
        answers={
            200: _schedule("The changed schedule.", moved=_MOVED),
            404: NOT_FOUND,
            409: GONE_ON,
            412: _STALE,
            **WITH_BODY,
        },
    ),
    Call(
        method="POST",
        path=f"{_ONE}/fire",
        name="fireSchedule",
        tag=SCHEDULES,
        summary="Deliver now",
        description="A change of `scheduleTime` to now; what is due already stays as it is.",
        request=NothingForm,
        request_examples={"nothing": {}},
        request_required=False,
        parameters=_CONDITIONS,
        answers={
            200: _schedule("It is due now.", fired={**_MOVED, "scheduleTime": NOW_MS}),
            404: NOT_FOUND,
            409: GONE_ON,
            412: _STALE,
            **WITH_BODY,
        },
    ),
    Call(
        method="POST",
        path=f"{_ONE}/retry",
        name="retrySchedule",
        tag=SCHEDULES,
        summary="Re-arm a failed one",
        description="With a new due time, by default now; the same request again does not arm it twice.",
        request=RearmForm,
        request_examples={"now": {}, "later": {"scheduleTime": NOW_MS + 60_000}},
        request_required=False,
        parameters=_CONDITIONS,
        answers={
            200: _schedule("It is pending again.", armed=_MOVED),
            404: NOT_FOUND,
            409: conflict("It has not failed.", taken=TAKEN),
            412: _STALE,
            **WITH_BODY,
        },
    ),
    Call(
        method="GET",
        path=f"{_ONE}/history",
        name="getHistory",
        tag=SCHEDULES,
        summary="Everything that stood under a key",
        description="Newest first, until retention ends; `superseded` is where a change moved it away from.",
        parameters=PAGING,
        answers={
            200: Answer(
                description="A page.",
                model=HistoryDocument,
                examples={"page": {"schedules": [PAST], "cursor": None}},
            ),
            404: NOT_FOUND,
            **SCHEDULE_CALL,
        },
    ),
)

_RESULTS: Final = {"results": [{"status": 201, "schedule": PENDING}, TAKEN.document()]}
_MANY: Final = (
    Call(
        method="POST",
        path="/schedules",
        name="createSchedules",
        tag=MANY,
        summary="Create up to 1,000",
        description="Each succeeds or fails alone, with what the single call would have answered.",
        request=CreateManyForm,
        request_examples={"one": {"schedules": [A_REQUEST]}},
        answers={
            200: Answer(description="A result for each, in order.", model=BatchDocument, examples={"both": _RESULTS}),
            **WITH_BODY,
        },
    ),
    Call(
        method="POST",
        path="/schedules/cancel",
        name="cancelSchedules",
        tag=MANY,
        summary="Cancel up to 1,000",
        description="Each succeeds or fails alone, with what the single call would have answered.",
        request=CancelManyForm,
        request_examples={"one": {"schedules": [A_KEY]}},
        answers={
            200: Answer(
                description="A result for each, in order.",
                model=BatchDocument,
                examples={"one": {"results": [{"status": 200, "schedule": CANCELLED}]}},
            ),
            **WITH_BODY,
        },
    ),
    Call(
        method="GET",
        path="/schedules",
        name="listSchedules",
        tag=MANY,
        summary="List a client's schedules",
        description="The present state of each key, of all states unless filtered. May lag by 5 s.",
        parameters=(
            _text("clientId", "Whose.", required=True, example="shop", pattern="^[A-Za-z0-9._-]{1,128}$"),
            _text("status", "Only of this state.", enum=["pending", "delivered", "cancelled", "failed"]),
            _text("topic", "Only for this topic."),
            _text("orderingKey", "Only with this ordering key."),
            _time("dueFrom", "Due then or later."),
            _time("dueTo", "Due before then."),
            *PAGING,
        ),
        answers={
            200: Answer(
                description="A page.", model=PageDocument, examples={"last": {"schedules": [PENDING], "cursor": None}}
            ),
            501: problem("This cluster keeps no index to list from.", off=problems.of_http(HTTPStatus.NOT_IMPLEMENTED)),
            **SCHEDULE_CALL,
        },
    ),
)

CALLS: Final = (*_SINGLE, *_MANY, *ADMIN_CALLS, *NODE_CALLS)
