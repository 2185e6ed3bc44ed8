"""The words in which a call is described, and what calls have in common: problems, parameters, examples."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel

from clockwork.errors import FieldError
from clockwork.schema import problems
from clockwork.schema.documents import ConflictDocument, InternalDocument, InvalidDocument, ProblemDocument
from clockwork.schema.problems import Problem

JSON: Final = "application/json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One status that a call may answer."""

    description: str
    model: type[BaseModel] | None = None
    """None: the body is text, or described by its media type alone."""
    media_type: str | None = JSON
    """None: there is no body."""
    examples: Mapping[str, Any] = field(default_factory=dict)
    """Name to body."""
    headers: tuple[str, ...] = ()
    """Names in `HEADERS`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One parameter of a call; those in the path follow from the path."""

    name: str
    where: str
    """`query` or `header`."""
    description: str
    schema: Mapping[str, Any]
    required: bool = False
    example: Any = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One method of one path."""

    method: str
    path: str
    """As the router writes it."""
    name: str
    """The `operationId`: programs that generate a client call their function so."""
    tag: str
    summary: str
    description: str
    answers: Mapping[int, Answer]
    request: type[BaseModel] | None = None
    request_examples: Mapping[str, Any] = field(default_factory=dict)
    request_required: bool = True
    parameters: tuple[Parameter, ...] = ()
    keyed: bool = True
    """Whether it wants an API key where the service is run with keys."""


HEADERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "ETag": {
        "description": "The schedule's version in quotes, for `If-Match`.",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[0-9]+"$'},
        "example": '"3"',
    },
    "Location": {
        "description": "The schedule's path.",
        "required": True,
        "schema": {"type": "string"},
        "example": "/schedule/shop/order-1",
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
    "WWW-Authenticate": {
        "description": "How to authenticate.",
        "required": True,
        "schema": {"type": "string"},
        "example": "Bearer",
    },
}

PATH_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "clientId": {
        "description": "Whose schedule it is.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
        "example": "shop",
    },
    "scheduleKey": {
        "description": "Unique per client while pending; percent-encoded.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 512},
        "example": "order-1",
    },
    "topic": {
        "description": "A Kafka topic.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,249}$", "not": {"enum": [".", ".."]}},
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

NOW_MS: Final = 1_795_249_395_598
"""Of the examples."""

A_KEY: Final = {"clientId": "shop", "scheduleKey": "order-1"}
A_REQUEST: Final = {
    **A_KEY,
    "orderingKey": "customer-7",
    "scheduleTime": NOW_MS,
    "taskData": {"expire": "order-1"},
    "delivery": {"topic": "orderTopic"},
}
PENDING: Final[dict[str, Any]] = {
    **A_REQUEST,
    "taskDataEncoding": "json",
    "delivery": {"topic": "orderTopic", "guarantee": "exactly_once", "headers": {}},
    "createdAt": NOW_MS - 900_000,
    "deliveryId": "e8dab8360a489ac287135da1083e9dd5",
    "status": "pending",
    "version": 1,
    "shard": 12,
}
DELIVERED: Final[dict[str, Any]] = {
    **PENDING,
    "status": "delivered",
    "delivered": {"topic": "orderTopic", "partition": 3, "offset": 1207, "at": NOW_MS + 11, "latenessMs": 11},
}
PAST: Final[dict[str, Any]] = {name: DELIVERED[name] for name in DELIVERED if name != "shard"} | {
    "endedAt": NOW_MS + 11
}
CANCELLED: Final[dict[str, Any]] = {**PENDING, "status": "cancelled"}
FAILED: Final[dict[str, Any]] = {
    **PENDING,
    "status": "failed",
    "failed": {"reason": "topic_missing", "at": NOW_MS + 900_000, "attempts": 0},
}

TAKEN: Final = problems.conflict("pending", "Another schedule is pending under this key.", PENDING)
LATE: Final = problems.conflict("delivered", "It was delivered already.", DELIVERED)
CLOSE: Final = problems.conflict(
    "in_flight", "It is too close to its time to say whether it will be delivered.", PENDING
)


def problem(description: str, *, model: type[BaseModel] = ProblemDocument, **examples: Problem) -> Answer:
    """An answer that is a problem document; its headers are those of the examples."""
    return Answer(
        description=description,
        model=model,
        media_type=problems.MEDIA_TYPE,
        examples={name: each.document() for name, each in examples.items()},
        headers=tuple(sorted({name for each in examples.values() for name in each.headers} & HEADERS.keys())),
    )


def conflict(description: str, **examples: Problem) -> Answer:
    return problem(description, model=ConflictDocument, **examples)


_NOT_COVERED: Final = "is not covered by this key"
QUOTA_HEADERS: Final = ("RateLimit", "RateLimit-Policy")
_QUOTA: Final = {"RateLimit-Policy": '"creates";q=100;w=1', "RateLimit": '"creates";r=0;t=1'}
_PENDING_QUOTA: Final = {"RateLimit-Policy": '"pending";q=100000', "RateLimit": '"pending";r=0;t=10'}
_BAD: Final = [
    FieldError("delivery.topic", "is required"),
    FieldError("scheduleTime", "should be at most 10 years ahead"),
]

OTHER_SITE: Final[Mapping[str, Problem]] = {
    "unknown_host": problems.refused(
        "unknown-host", "The node is not known by this name", "Host 'rebound.example' is not a name of this node."
    ),
    "other_site": problems.refused("other-site", "A write from another site", "Sec-Fetch-Site 'cross-site': …"),
}
ANYWHERE: Final[Mapping[int, Answer]] = {
    400: problem(
        "The request is not valid; every wrong field is named.",
        model=InvalidDocument,
        invalid=problems.invalid_input(_BAD),
    ),
    403: problem(
        "`Host` is not a name of this node (where no key is needed), or a browser carries a write from another site.",
        model=ProblemDocument,
        **OTHER_SITE,
    ),
    408: problem("The request took too long to arrive.", slow=problems.of_http(HTTPStatus.REQUEST_TIMEOUT)),
    500: problem(
        "A mistake of the service's own.", model=InternalDocument, internal=problems.internal("5b1e7c7a11f0a1b2")
    ),
    503: problem("Too many connections are open.", crowded=problems.unavailable("Too many connections are open.")),
}
"""What every call may answer: no request gets as far as its handler if it is no HTTP, or there is no place for it."""

SCHEDULE_CALL: Final[Mapping[int, Answer]] = {
    **ANYWHERE,
    401: problem(
        "No key, or none that is known; only where the service is run with keys.",
        wrong=problems.unauthenticated("Send your key as Authorization: Bearer …."),
    ),
    403: problem(
        "The key does not cover the call, the client or the topic; or the request comes from another site.",
        model=InvalidDocument,
        **OTHER_SITE,
        forbidden=problems.forbidden(f"clientId {_NOT_COVERED}.", [FieldError("clientId", _NOT_COVERED)]),
    ),
    429: problem(
        "Over a limit of so many a second, or of what may be pending; nothing was done. After `Retry-After` there is room"
        " again, or what is pending is counted again.",
        quota=problems.too_many("Client shop is over its limit.", retry_after_s=1, headers=_QUOTA),
        pending=problems.too_many(
            "Client shop has 100000 schedules or more whose time is ahead.", retry_after_s=10, headers=_PENDING_QUOTA
        ),
    ),
    503: problem(
        "DynamoDB or Kafka cannot answer in time. The outcome is unknown, and the same request again settles it.",
        down=problems.unavailable("DynamoDB did not answer in time. The same request again settles it."),
    ),
}

WITH_BODY: Final[Mapping[int, Answer]] = {
    **SCHEDULE_CALL,
    413: problem(
        "`taskData` and headers are over 256 KiB, or the body is over its limit.",
        model=InvalidDocument,
        large=problems.too_large("The body is longer than the 2097152 bytes that are taken."),
    ),
    415: problem(
        "The body is not `application/json` in UTF-8, or is compressed.",
        compressed=problems.unsupported_media_type("Content-Encoding should be absent or identity."),
    ),
}

NOT_FOUND: Final = problem("Nothing is known under this key.", unknown=problems.schedule_not_found())
GONE_ON: Final = conflict("It ended already, or is too close to its time to say.", delivered=LATE, in_flight=CLOSE)

PAGING: Final = (
    Parameter(
        name="limit",
        where="query",
        description="Of one page; by default 100.",
        schema={"type": "integer", "minimum": 1, "maximum": 1_000},
        example=100,
    ),
    Parameter(
        name="cursor",
        where="query",
        description="From the page before; only with the same other parameters.",
        schema={"type": "string"},
    ),
)
