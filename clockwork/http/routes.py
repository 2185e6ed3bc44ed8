"""Routes of the HTTP API, each declared with its description at its handler:

    @route("GET", "/livez", name="livez", tag=NODE, summary=…, description=…, answers={…})
    async def livez(self, request: web.Request) -> web.Response: …

`add_routes` registers the declared methods of a handler object, and `openapi` describes the routes of an application: so
there is no route without a description, and no description without a route. Examples are not declared: they are requests
and answers that tests saw (tests/unit/test_openapi_examples.py).
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from aiohttp import hdrs, web
from pydantic import BaseModel

from clockwork.domain.triggers.exclusions import CALENDAR_NAME
from clockwork.ports.telemetry import ReadCall
from clockwork.schema import problems
from clockwork.schema.problems import InternalDocument, InvalidDocument, ProblemDocument
from clockwork.schema.schedule import CLIENT_ID_SCHEMA, KEY_SCHEMA, TOPIC_SCHEMA

JSON: Final = "application/json"
SCHEDULES: Final = "schedules"
MANY: Final = "many at once"
JOBS: Final = "jobs"
ACTIVITY: Final = "activity"
ADMIN: Final = "admin"
ACCESS: Final = "access"
NODE: Final = "node"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Function = TypeVar("_Function", bound=Callable[..., Awaitable[web.StreamResponse]])
_DECLARED: Final = "__route__"
_PATH_NAME: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One status that a call may answer."""

    description: str
    model: type[BaseModel] | None = None
    """None: the body is text, or described by its media type alone."""
    media_type: str | None = JSON
    """None: no body."""
    headers: tuple[str, ...] = ()
    """Names in `HEADERS`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One parameter of a call, in its query or among its headers; those in the path follow from the path."""

    name: str
    description: str
    where: str = "query"
    schema: Mapping[str, Any]
    required: bool = False
    example: Any = None
    parse: Callable[[str], Any] = str
    """The value of a query's parameter. Raises: ValueError, with a message for the client."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadMetering:
    """Metering, bound and sharing of a route's reads, from any caller (`http.read_budget`)."""

    call: ReadCall
    shared_s: float = 0.0
    """Time for which equal requests get the answer to the first of them. 0 for answers that never lag."""
    only_summaries: bool = False
    """True if its reads count only with `fields=summary`, as the dashboard asks."""
    may_use_reserve: bool = False
    """True: without query parameters it may begin on the reserve."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Route:
    """One method of one path, and its description. Compared by identity: there is one for each handler."""

    method: str
    path: str
    """The path with its names, such as `/admin/shards/{shard}/fence`."""
    name: str
    """The `operationId`: generated clients call their function so."""
    tag: str
    summary: str
    description: str
    answers: Mapping[int, Answer]
    request: type[BaseModel] | None = None
    """The model of the body; None: the call has none."""
    request_required: bool = True
    parameters: tuple[Parameter, ...] = ()
    reads: ReadMetering | None = None
    """None: its reads are not counted."""
    polled: bool = False
    """True if pages ask for it again and again: its answer has an `ETag`, and an unchanged one is 304 (`http.polls`)."""
    keyed: bool = True
    """True if it wants an API key where the service is run with keys."""


def route(method: str, path: str, **description: Any) -> Callable[[_Function], _Function]:
    """Declares the route of a handler. `description`: the other fields of `Route`."""
    declared = Route(method=method, path=path, **description)
    if declared.polled:
        ok = declared.answers[200]
        tagged = {200: replace(ok, headers=(*ok.headers, CONTENT_TAG)), 304: _UNCHANGED}
        parameters = (*declared.parameters, _IF_CHANGED)
        declared = replace(declared, answers={**declared.answers, **tagged}, parameters=parameters)

    def declare(function: _Function) -> _Function:
        setattr(function, _DECLARED, declared)
        return function

    return declare


def route_of(handler: object) -> Route | None:
    """The declared route of a handler, or of a function that wraps it (`functools.wraps`)."""
    found = getattr(handler, _DECLARED, None)
    return found if isinstance(found, Route) else None


def add_routes(
    app: web.Application, handlers: Sequence[Handler] | object, *, wrap: Callable[[Handler], Handler] = lambda h: h
) -> None:
    """Registers handlers that have a route: those given, or the methods of an object in the order of their declaration."""
    if not isinstance(handlers, Sequence):
        handlers = [getattr(handlers, name) for name, each in vars(type(handlers)).items() if route_of(each)]
    for handler in handlers:
        declared = route_of(handler)
        if declared is None:
            raise TypeError(f"{handler!r} has no route")
        # The server's default pattern for a name in a path stops at braces, which a key may contain.
        path = _PATH_NAME.sub(r"{\1:[^/]+}", declared.path)
        if declared.method == hdrs.METH_GET:
            app.router.add_get(path, wrap(handler))
        else:
            app.router.add_route(declared.method, path, wrap(handler))


# --- parts that many calls share

CONTENT_TAG: Final = "ETag-of-content"
"""The `ETag` of an answer to a poll."""
HEADERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "ETag": {
        "description": "The version in quotes, for `If-Match`.",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[0-9]+"$'},
        "example": '"3"',
    },
    CONTENT_TAG: {
        "description": "A tag of the content, for `If-None-Match` of the next poll. It leaves `asOf` out.",
        "required": True,
        "schema": {"type": "string", "pattern": '^W/"[0-9a-f]+"$'},
        "example": 'W/"5b1c8d0a4f7e92633d1bb9aa"',
    },
    "Location": {
        "description": "The path of the schedule, job or calendar; of a login, the page to go to.",
        "required": True,
        "schema": {"type": "string"},
        "example": "/schedule/shop/order-1",
    },
    "clockwork-read-units": {
        "description": "Read units that the answer has cost at the store: DynamoDB's, or a quarter of PostgreSQL's rows; 0 "
        "for an answer that was read for another request.",
        "schema": {"type": "string", "pattern": "^[0-9]+([.][0-9]+)?$"},
        "example": "12.5",
    },
    "Retry-After": {
        "description": "Seconds to wait before the same request again.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
        "example": "1",
    },
    "RateLimit": {
        "description": "What is left of each limit of the client (draft-ietf-httpapi-ratelimit-headers-10), if it has any: "
        "`creates` and `create_bytes` of a second, `pending` of the schedules that it may have pending.",
        "schema": {"type": "string"},
        "example": '"creates";r=57;t=1, "pending";r=99213',
    },
    "RateLimit-Policy": {
        "description": "The limits of the client (draft-ietf-httpapi-ratelimit-headers-10), if it has any.",
        "schema": {"type": "string"},
        "example": '"creates";q=100;w=1, "pending";q=100000',
    },
    "Set-Cookie": {
        "description": "The session of the dashboard.",
        "required": True,
        "schema": {"type": "string"},
        "example": "__Host-clockwork=v1.eyJpZCI6I…; HttpOnly; Path=/; SameSite=Strict; Secure",
    },
    "WWW-Authenticate": {
        "description": "How to authenticate.",
        "required": True,
        "schema": {"type": "string"},
        "example": "Bearer",
    },
}
READ_UNITS: Final = "clockwork-read-units"
_IF_CHANGED: Final = Parameter(
    name="If-None-Match",
    where="header",
    description="The `ETag` of the answer before: if nothing but `asOf` has changed since, the answer is 304.",
    schema={"type": "string"},
)
_UNCHANGED: Final = Answer(
    description="Nothing but `asOf` has changed since the answer with this `ETag`; it may be shown as of now.",
    media_type=None,
    headers=(CONTENT_TAG,),
)
QUOTA_HEADERS: Final = ("RateLimit", "RateLimit-Policy")
PATH_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "clientId": {
        "description": "The client of the schedule, job or calendar.",
        "schema": CLIENT_ID_SCHEMA,
        "example": "shop",
    },
    "scheduleKey": {
        "description": "Unique per client while pending; percent-encoded.",
        "schema": KEY_SCHEMA,
        "example": "order-1",
    },
    "jobId": {"description": "Unique per client; percent-encoded.", "schema": KEY_SCHEMA, "example": "report"},
    "calendar": {
        "description": "A calendar's name.",
        "schema": {"type": "string", "pattern": f"^{CALENDAR_NAME.pattern}$"},
        "example": "de",
    },
    "runId": {
        "description": "A run's id.",
        "schema": {"type": "string", "pattern": "^[smb][0-9]{1,14}(-[0-9a-f]{8})?$"},
        "example": "s1795248000000",
    },
    "version": {
        "description": "A version's number.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
        "example": 3,
    },
    "topic": {
        "description": "A Kafka topic.",
        "schema": {**TOPIC_SCHEMA, "not": {"enum": [".", ".."]}},
        "example": "orderTopic",
    },
    "shard": {
        "description": "A shard's number.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
        "example": 12,
    },
    "partition": {
        "description": "A Kafka partition.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 2_147_483_647},
        "example": 3,
    },
    "offset": {
        "description": "An offset in it.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999_999_999_999},
        "example": 1207,
    },
    "file": {
        "description": "A file of the page.",
        "schema": {"type": "string", "enum": ["page.js", "swagger-ui-bundle.js", "swagger-ui.css"]},
        "example": "page.js",
    },
}


def problem(description: str, *headers: str, model: type[BaseModel] = ProblemDocument) -> Answer:
    """An answer that is a problem document."""
    return Answer(description=description, model=model, media_type=problems.MEDIA_TYPE, headers=headers)


EVERY_CALL: Final[Mapping[int, Answer]] = {
    400: problem("The request is not valid; every wrong field is named.", model=InvalidDocument),
    403: problem(
        "`Host` is not a name of this node (where no key is needed), or a browser carries a write from another site."
    ),
    408: problem("The request took too long to arrive."),
    414: problem("The path and the query are too long."),
    431: problem("A header is too long, or there are too many."),
    500: problem("An error in the service; its log has more under `errorId`.", model=InternalDocument),
    501: problem("A `Transfer-Encoding` other than `chunked`."),
    503: problem("Too many connections are open.", "Retry-After"),
}
"""Answers of every call: a request gets as far as its handler only if it is HTTP, and a connection is free for it."""

KEYED_CALL: Final[Mapping[int, Answer]] = {
    **EVERY_CALL,
    401: problem("No key, or an unknown one; only where the service is run with keys.", "WWW-Authenticate"),
    403: problem(
        "The key does not cover the call, the client or the topic; or the request comes from another site.",
        model=InvalidDocument,
    ),
    429: problem(
        "Over the limit of creates per second, of pending schedules, or of read units for the dashboard's calls; nothing "
        "was done. After `Retry-After` there is room again, or the pending schedules are counted again.",
        "Retry-After",
        *QUOTA_HEADERS,
    ),
    503: problem(
        "The store or Kafka cannot answer in time. The outcome is unknown, and the same request again settles it.",
        "Retry-After",
    ),
}

ADMIN_CALL: Final[Mapping[int, Answer]] = {
    **KEYED_CALL,
    403: problem(
        "The key does not have the right `admin` (or, for the content of schedules, `read`); or the request comes from "
        "another site.",
        model=InvalidDocument,
    ),
}

OPERATOR_CALL: Final[Mapping[int, Answer]] = {
    **KEYED_CALL,
    403: problem(
        "The key does not have the right `operate`, or to look `read` or `admin`, for this client or topic; or the request "
        "comes from another site.",
        model=InvalidDocument,
    ),
}

CALL_WITH_BODY: Final[Mapping[int, Answer]] = {
    **KEYED_CALL,
    413: problem(
        "`taskData` and headers are over 256 KiB, or the body is over its limit.",
        model=InvalidDocument,
    ),
    415: problem("The body is not `application/json` in UTF-8, or is compressed."),
}

JOBS_OFF: Final = problem("This cluster keeps no recurring jobs; or a `Transfer-Encoding` other than `chunked`.")
EVENTS_OFF: Final = problem("This cluster records no events; or a `Transfer-Encoding` other than `chunked`.")
ONE: Final = "/schedule/{clientId}/{scheduleKey}"
NOT_FOUND: Final = problem("No schedule is known under this key.")
