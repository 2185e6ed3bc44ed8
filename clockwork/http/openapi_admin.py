"""The calls under /admin, described."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from clockwork.http.dead_letters import IN_TOPIC, letter_not_found, letter_not_open
from clockwork.http.openapi_parts import (
    A_KEY,
    ANYWHERE,
    NOT_FOUND,
    NOW_MS,
    OTHER_SITE,
    PAGING,
    PENDING,
    SCHEDULE_CALL,
    WITH_BODY,
    Answer,
    Call,
    Parameter,
    problem,
)
from clockwork.operations.dead_letters import NotOpen
from clockwork.requests.results import Status
from clockwork.schema.admin_documents import (
    DeadLetterDocument,
    DeadLettersDocument,
    DiscardedDocument,
    PausesDocument,
    PendingDocument,
    ShardDocument,
    ShardsDocument,
)
from clockwork.schema.documents import ProblemDocument
from clockwork.schema.problems import forbidden
from clockwork.schema.schedule import LetterForm

ADMIN: Final = "admin"

_PAUSED: Final[dict[str, Any]] = {"clients": [{"name": "shop", "since": NOW_MS}], "topics": []}
_NAMED: Final[dict[str, Any]] = {**A_KEY, "deliveryId": "e8dab8360a489ac287135da1083e9dd5"}
_LETTER: Final[dict[str, Any]] = {
    "deadLetterTopic": "clockwork-dead-letters",
    "partition": 3,
    "offset": 1207,
    "at": NOW_MS + 900_000,
    "open": True,
    **_NAMED,
    "scheduleTime": NOW_MS,
    "topic": "orderTopic",
    "reason": "topic_missing",
    "attempts": 0,
    "status": "failed",
    "version": 1,
    "orderingKey": "customer-7",
    "headers": {},
    "value": '{"expire":"order-1"}',
    "valueEncoding": "text",
}
_SHARD: Final[dict[str, Any]] = {
    "shard": 12,
    "epoch": 7,
    "owner": "node-1:4711/5b1e7c7a11f0a1b2",
    "frontier": NOW_MS + 250,
    "oldestDue": NOW_MS + 60_000,
    "lagMs": 0,
}
_COMMON: Final[Mapping[int, Answer]] = {
    **ANYWHERE,
    **{status: SCHEDULE_CALL[status] for status in (401, 429, 503)},
    403: problem(
        "The key does not have the right `admin` (for clients' own content: `read`), or comes from another site.",
        model=ProblemDocument,
        **OTHER_SITE,
        forbidden=forbidden("This key does not have the right 'admin'.", []),
    ),
}
_PAUSES: Final[Mapping[int, Answer]] = {
    200: Answer(description="All that is paused then.", model=PausesDocument, examples={"one": _PAUSED}),
    **_COMMON,
}
_HELD: Final = (
    "Within seconds every node holds back what is due for it, in place and in order; what stands behind it in the same lane "
    "waits too. Nothing is lost, no attempt is counted. Deadlines (`onLate`) are looked at when delivery goes on. Cancels "
    "and changes work as for anything that waits. The same call again changes nothing."
)
_GOES_ON: Final = "Delivery goes on within seconds. The same call again changes nothing."

_IN_TOPIC: Final = Parameter(
    name=IN_TOPIC,
    where="query",
    description="Only those that lie there; by default all.",
    schema={"type": "string"},
    example="clockwork-dead-letters",
)

ADMIN_CALLS: Final = (
    Call(
        method="GET",
        path="/admin/shards",
        name="listShards",
        tag=ADMIN,
        summary="Every shard",
        description="Who owns it, how far it is, and how late.",
        answers={
            200: Answer(description="All.", model=ShardsDocument, examples={"one": {"shards": [_SHARD]}}),
            **_COMMON,
        },
    ),
    Call(
        method="POST",
        path="/admin/shards/{shard}/fence",
        name="fenceShard",
        tag=ADMIN,
        summary="Make a shard's owner begin anew",
        description=(
            "Raises the shard's epoch: its owner finds itself fenced, drops all that it knows of the shard, and takes it "
            "over again. Nothing is lost or sent twice. It does not move the shard to another node: stop its node for that."
        ),
        answers={
            200: Answer(description="The shard, fenced.", model=ShardDocument, examples={"one": _SHARD}),
            **_COMMON,
        },
    ),
    Call(
        method="GET",
        path="/admin/schedules",
        name="scanPending",
        tag=ADMIN,
        summary="All pending schedules",
        description=(
            "Of the clients that the key covers, for which it also needs the right `read`; shard after shard. Each as it "
            "was at its own moment; what is changed meanwhile may be in it or not. A page may be short, or empty, before "
            "the end."
        ),
        parameters=PAGING,
        answers={
            200: Answer(
                description="A page.",
                model=PendingDocument,
                examples={"last": {"schedules": [PENDING], "unreadable": 0, "cursor": None}},
            ),
            **_COMMON,
        },
    ),
    Call(
        method="GET",
        path="/admin/dead-letters",
        name="listDeadLetters",
        tag=ADMIN,
        summary="What was given up",
        description=(
            "Pages through the topics of dead letters, the cluster's first, then those that clients have of their own, and "
            "tells of each letter what stands under its key now. An open one is "
            "given another chance by `POST /schedule/{clientId}/{scheduleKey}/retry` with its `version` in `If-Match`."
        ),
        parameters=(*PAGING, _IN_TOPIC),
        answers={
            200: Answer(
                description="A page.",
                model=DeadLettersDocument,
                examples={"last": {"deadLetters": [_LETTER], "cursor": None}},
            ),
            **_COMMON,
        },
    ),
    Call(
        method="POST",
        path="/admin/dead-letters/discard",
        name="discardDeadLetter",
        tag=ADMIN,
        summary="Say that a dead letter needs nothing any more",
        description=(
            "It is then open no longer. The letter stays where it is until its retention ends, and its schedule is `failed` "
            "as before. Only while that is failed with this very delivery; the same request again changes nothing. A retry "
            "of the schedule arms it all the same, and takes the mark off."
        ),
        request=LetterForm,
        request_examples={"letter": _NAMED},
        answers={
            200: Answer(
                description="It is discarded, now or before.",
                model=DiscardedDocument,
                examples={"discarded": {**_NAMED, "discardedAt": NOW_MS + 1_800_000}},
            ),
            404: NOT_FOUND,
            409: problem(
                "Something else stands under the key by now; `reason` is its status.",
                armed=letter_not_open(NotOpen(Status.PENDING)),
                again=letter_not_open(NotOpen(Status.FAILED)),
            ),
            **WITH_BODY,
            **_COMMON,
        },
    ),
    Call(
        method="GET",
        path="/admin/dead-letters/{partition}/{offset}",
        name="getDeadLetter",
        tag=ADMIN,
        summary="One dead letter",
        description="By its place.",
        parameters=(replace(_IN_TOPIC, description="Where it lies; by default the cluster's."),),
        answers={
            200: Answer(description="The letter.", model=DeadLetterDocument, examples={"open": _LETTER}),
            404: problem("There is none at this place.", none=letter_not_found()),
            **_COMMON,
        },
    ),
    Call(
        method="GET",
        path="/admin/pauses",
        name="listPauses",
        tag=ADMIN,
        summary="What is paused",
        description="Clients and topics whose schedules are held back.",
        answers=_PAUSES,
    ),
    Call(
        method="PUT",
        path="/admin/pauses/clients/{clientId}",
        name="pauseClient",
        tag=ADMIN,
        summary="Pause the delivery of a client's schedules",
        description=_HELD,
        answers=_PAUSES,
    ),
    Call(
        method="DELETE",
        path="/admin/pauses/clients/{clientId}",
        name="resumeClient",
        tag=ADMIN,
        summary="Resume the delivery of a client's schedules",
        description=_GOES_ON,
        answers=_PAUSES,
    ),
    Call(
        method="PUT",
        path="/admin/pauses/topics/{topic}",
        name="pauseTopic",
        tag=ADMIN,
        summary="Pause the delivery to a topic",
        description=_HELD,
        answers=_PAUSES,
    ),
    Call(
        method="DELETE",
        path="/admin/pauses/topics/{topic}",
        name="resumeTopic",
        tag=ADMIN,
        summary="Resume the delivery to a topic",
        description=_GOES_ON,
        answers=_PAUSES,
    ),
)
