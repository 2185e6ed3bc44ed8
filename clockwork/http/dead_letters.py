"""The calls under /admin/dead-letters."""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.domain.activity import BatchKind
from clockwork.domain.dead_letters import LetterName
from clockwork.domain.destination import Topic
from clockwork.domain.names import BATCH_ITEMS_MAX
from clockwork.domain.rights import LOOK, Principal, Right, authorize_any, sees_client
from clockwork.errors import FieldError, Forbidden, InvalidInput
from clockwork.http import query as queries
from clockwork.http.actions import BatchRecord
from clockwork.http.body import Refusal, body_of, path_parameter
from clockwork.http.responses import json_list_response, json_response, problem_of
from clockwork.http.routes import (
    ADMIN,
    CALL_WITH_BODY,
    OPERATOR_CALL,
    READ_UNITS,
    Answer,
    Parameter,
    ReadMetering,
    problem,
    route,
)
from clockwork.operations.dead_letters import (
    DeadLetterAdmin,
    DeadLetterCursor,
    DeadLetterView,
    Discarded,
    DiscardResult,
    Item,
    LetterBatches,
    LetterNotFound,
    NotDiscardable,
    NotOpen,
    RetryResult,
)
from clockwork.requests.jobs.results import JobNotFound, JobRefused, JobVersionDiffers, RunAccepted, RunAlreadyAccepted
from clockwork.requests.results import Declined, NotFound, Status
from clockwork.schema import json as json_body
from clockwork.schema import problems
from clockwork.schema.dead_letter import DeadLetterDocument, DeadLettersDocument
from clockwork.schema.job_render import of_job_declined, render_run
from clockwork.schema.json import read_json
from clockwork.schema.letter_batches import DiscardsDocument, LetterRetriesDocument, LettersForm, read_letters
from clockwork.schema.problems import Problem
from clockwork.schema.render import render_schedule
from clockwork.schema.schedule import topic_of

_NUMBER: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_CURSOR_CHARS_MAX: Final = 10_000
IN_TOPIC: Final = "deadLetterTopic"
_IN_TOPIC: Final = Parameter(
    name=IN_TOPIC,
    description="Only letters in this topic; by default all.",
    schema={"type": "string"},
    example="clockwork-dead-letters",
    parse=topic_of,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LetterHandlers:
    """The calls about dead letters."""

    letters: DeadLetterAdmin
    batches: LetterBatches
    body_bytes_max: int

    @route(
        "GET",
        "/admin/dead-letters",
        name="listDeadLetters",
        tag=ADMIN,
        summary="Dead letters",
        description=(
            "Pages through the topics of dead letters, the cluster's first, then those of single clients: all for a key "
            "with the right `admin`; with `read` or `operate` those of the clients that it covers, so that a page may be "
            "short, or empty, before the end. Shows for "
            "each letter the present schedule under its key. An open letter's schedule is armed again by "
            "`POST /schedule/{clientId}/{scheduleKey}/retry` with its `version` in `If-Match`. One with a `jobId` is of a "
            "run of a recurring job: `POST /admin/dead-letters/retry`, or `POST /jobs/{clientId}/{jobId}/run-now` with the "
            "letter's data and the `requestId` `dead-letter-<deliveryId>`, runs it again, once."
        ),
        parameters=(*queries.PAGING, _IN_TOPIC),
        reads=ReadMetering(call="dead_letters"),
        polled=True,
        answers={
            200: Answer(description="A page.", model=DeadLettersDocument, headers=(READ_UNITS,)),
            **OPERATOR_CALL,
        },
    )
    async def list(self, request: web.Request) -> web.Response:
        principal = principal_of(request)
        authorize_any(principal, LOOK)
        given = queries.read_query(request, (*queries.PAGING, _IN_TOPIC))
        only = self._topic(given)
        start = self._start(given.get("cursor"), only)
        page = await self.letters.page(start, letters_max=given.get("limit", queries.LIMIT_DEFAULT))
        seen = (view for view in page.views if sees_client(principal, view.letter.client_id))
        documents = (document_of(view, principal) for view in seen)
        next_from = page.next_from
        if next_from is not None and only not in (None, next_from.topic):
            next_from = None
        return await json_list_response("deadLetters", documents, cursor=_encode_cursor(next_from))

    @route(
        "GET",
        "/admin/dead-letters/{partition}/{offset}",
        name="getDeadLetter",
        tag=ADMIN,
        summary="One dead letter",
        description="By its place.",
        parameters=(replace(_IN_TOPIC, description="The topic that it is in; by default the cluster's."),),
        reads=ReadMetering(call="dead_letters"),
        answers={
            200: Answer(description="The letter.", model=DeadLetterDocument, headers=(READ_UNITS,)),
            404: problem("There is none at this place."),
            **OPERATOR_CALL,
        },
    )
    async def one(self, request: web.Request) -> web.Response:
        principal = principal_of(request)
        authorize_any(principal, LOOK)
        topic = self._topic(queries.read_query(request, (_IN_TOPIC,))) or self.letters.topics[0]
        place = path_parameter(request, "partition", number_of), path_parameter(request, "offset", number_of)
        view = await self.letters.one(topic, *place)
        if view is None:
            raise Refusal(letter_not_found())
        if not sees_client(principal, view.letter.client_id):
            raise Forbidden("The dead letter's client is not covered by this key.")
        return json_response(document_of(view, principal))

    @route(
        "POST",
        "/admin/dead-letters/discard",
        name="discardDeadLetters",
        tag=ADMIN,
        summary=f"Discard up to {BATCH_ITEMS_MAX:,} dead letters",
        description=(
            "They are then no longer open. The letters stay in their topic until its retention ends, and their schedules "
            "are `failed` as before. Each succeeds or fails alone: only while its schedule is failed with this very "
            "delivery; the same batch again changes nothing. A retry of the schedule arms it all the same, and takes the "
            "mark off. A letter of a run of a job (`jobId`) is not discarded, and its item is `409`: it closes by itself "
            "when the retention of the job's log ends. Needs the right `operate`."
        ),
        request=LettersForm,
        answers={
            **CALL_WITH_BODY,
            **OPERATOR_CALL,
            200: Answer(description="A result for each, in the order given.", model=DiscardsDocument),
        },
    )
    async def discard(self, request: web.Request) -> web.Response:
        items, reason = await self._read(request)
        results = await self.batches.discard(principal_of(request), items)
        documents = map(_discard_result, items, results)
        return await self._actions_response(request, "batch_discarded", documents, items, reason)

    @route(
        "POST",
        "/admin/dead-letters/retry",
        name="retryDeadLetters",
        tag=ADMIN,
        summary=f"Retry up to {BATCH_ITEMS_MAX:,} dead letters",
        description=(
            "Arms their schedules again, due now. Each succeeds or fails alone: only while its schedule is failed with this "
            "very delivery, so that the same batch again arms none twice. A letter of a run of a job, named by `jobId`, "
            "`deliveryId` and its place, is run again by hand with the letter's data, once: the same as "
            "`POST /jobs/{clientId}/{jobId}/run-now` with it. Needs the right `operate` or `create`, for runs of jobs "
            "`create`."
        ),
        request=LettersForm,
        answers={
            **CALL_WITH_BODY,
            **OPERATOR_CALL,
            200: Answer(description="A result for each, in the order given.", model=LetterRetriesDocument),
        },
    )
    async def retry(self, request: web.Request) -> web.Response:
        items, reason = await self._read(request)
        results = await self.batches.retry(principal_of(request), items)
        return await self._actions_response(request, "batch_retried", map(_retry_result, results), items, reason)

    async def _actions_response(
        self,
        request: web.Request,
        kind: BatchKind,
        results: Iterable[Mapping[str, Any]],
        items: Sequence[Item],
        reason: str | None,
    ) -> web.Response:
        recorded = BatchRecord(request, self.batches.requests.context.telemetry, kind, reason=reason)
        response = await json_list_response("results", recorded.counted(results))
        recorded.finish(item if isinstance(item, InvalidInput) else item.client_id for item in items)
        return response

    async def _read(self, request: web.Request) -> tuple[Sequence[Item], str | None]:
        return await read_json(await body_of(request, bytes_max=self.body_bytes_max), read_letters)

    def _topic(self, given: Mapping[str, Any]) -> Topic | None:
        """The topic that the query names. Raises: InvalidInput: a node's rights must not open other topics to a caller."""
        topic = given.get(IN_TOPIC)
        if topic is not None and topic not in self.letters.topics:
            raise InvalidInput([FieldError(IN_TOPIC, f"should be one of {', '.join(self.letters.topics)}")])
        return topic

    def _start(self, cursor: str | None, only: Topic | None) -> DeadLetterCursor:
        if cursor is None:
            return DeadLetterCursor(topic=only or self.letters.topics[0])
        start = _decode_cursor(cursor)
        if start.topic not in self.letters.topics or only not in (None, start.topic):
            raise InvalidInput([FieldError("cursor", "is not one that was given out for this query")])
        return start


def _discard_result(item: Item, result: DiscardResult | Exception) -> dict[str, Any]:
    match result:
        case Discarded(at_ms) if isinstance(item, LetterName):
            names = {"clientId": item.client_id, "scheduleKey": item.schedule_key, "deliveryId": item.delivery_id}
            return {"status": HTTPStatus.OK.value, "deadLetter": names | {"discardedAt": at_ms}}
        case NotFound():
            return problems.schedule_not_found().document()
        case NotOpen() as other:
            return letter_not_open(other).document()
        case NotDiscardable():
            return letter_of_run().document()
        case Exception() as error:
            return problem_of(error).document()
    raise AssertionError("an item without its name has an error")


def _retry_result(result: RetryResult | Exception) -> dict[str, Any]:
    match result:
        case Exception():
            return problem_of(result).document()
        case NotOpen():
            return letter_not_open(result).document()
        case LetterNotFound():
            return letter_not_found().document()
        case RunAccepted(run=run):
            return {"status": HTTPStatus.CREATED.value, "run": render_run(run)}
        case RunAlreadyAccepted(run=run):
            return {"status": HTTPStatus.OK.value, "run": render_run(run)}
        case JobNotFound() | JobVersionDiffers() | JobRefused():
            return of_job_declined(result).document()
    if isinstance(result, Declined):
        return problems.of_declined(result, retry=True).document()
    return {"status": HTTPStatus.OK.value, "schedule": render_schedule(result.view)}


def letter_not_found() -> Problem:
    return problems.not_found(
        "dead-letter-not-found",
        "There is no such dead letter",
        "There is none at this offset, or its retention has ended.",
    )


def letter_of_run() -> Problem:
    """The refusal to discard a letter of a run of a job."""
    return Problem(
        status=HTTPStatus.CONFLICT,
        kind="dead-letter-of-run",
        title="The dead letter is of a run of a job",
        detail="It is not discarded: it closes when the retention of the job's log ends, or the run is run again. Nothing "
        "was done.",
    )


def letter_not_open(other: NotOpen) -> Problem:
    """The refusal to act on a letter whose schedule is `other` by now."""
    match other:
        case NotOpen(Status.FAILED, readable=False):
            since = "failed, and cannot be read, so that its delivery is not known"
        case NotOpen(Status.FAILED):
            since = "failed, with another delivery"
        case _:
            since = other.status.value
    return Problem(
        status=HTTPStatus.CONFLICT,
        kind="dead-letter-not-open",
        title="The dead letter is not open",
        detail=f"The schedule under its key is {since}. Nothing was done.",
        more={"reason": other.status.value},
    )


def document_of(view: DeadLetterView, principal: Principal) -> dict[str, Any]:
    """The document of a letter. The client's content is in it only for a principal that may read that client's schedules."""
    letter, present = view.letter, view.present
    told: dict[str, Any] = {
        "clientId": letter.client_id,
        "scheduleKey": letter.schedule_key,
        "scheduleTime": letter.due_ms,
        "deliveryId": letter.delivery_id,
        "jobId": letter.job_id,
        "runId": letter.run_id,
        "topic": letter.topic,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "lastRefusal": letter.last_refusal,
        "discardedAt": view.discarded_at_ms,
        "status": present.status.value if present is not None else None,
        "version": present.version if present is not None else None,
    }
    document = {
        "deadLetterTopic": view.topic,
        "partition": letter.receipt.kafka_partition,
        "offset": letter.receipt.offset,
        "at": letter.receipt.at_ms,
        "open": view.open,
    } | {name: value for name, value in told.items() if value is not None}
    if Right.READ in principal.rights and principal.clients.cover(letter.client_id or ""):
        document |= _content(view)
    return document


def _content(view: DeadLetterView) -> dict[str, Any]:
    letter = view.letter
    headers = {name: value.decode(errors="backslashreplace") for name, value in letter.headers}
    key = {} if letter.ordering_key is None else {"orderingKey": letter.ordering_key.decode(errors="backslashreplace")}
    try:
        value = {"value": letter.value.decode(), "valueEncoding": "text"}
    except UnicodeDecodeError:
        value = {"value": base64.b64encode(letter.value).decode(), "valueEncoding": "base64"}
    return key | {"headers": headers} | value


def number_of(text: str) -> int:
    """Raises: ValueError."""
    if _NUMBER.fullmatch(text) is None:
        raise ValueError("should be a number, not negative")
    return int(text)


# --- cursors: the topic, and the offsets in its Kafka partitions


def _encode_cursor(start: DeadLetterCursor | None) -> str | None:
    if start is None:
        return None
    offsets = {str(number): start.offsets[number] for number in sorted(start.offsets)}
    return base64.urlsafe_b64encode(json_body.compact([start.topic, offsets])).decode()


def _decode_cursor(cursor: str) -> DeadLetterCursor:
    try:
        if len(cursor) > _CURSOR_CHARS_MAX:
            raise ValueError("too long")
        match json_body.parse(base64.b64decode(cursor, altchars=b"-_", validate=True)):
            case [str(topic), dict(offsets)] if all(type(at) is int and at >= 0 for at in offsets.values()):
                return DeadLetterCursor(
                    topic=Topic(topic), offsets={number_of(number): min(at, 2**62) for number, at in offsets.items()}
                )
            case _:
                raise ValueError("no offsets")
    except (binascii.Error, ValueError, InvalidInput) as error:
        raise InvalidInput([FieldError("cursor", "is not one that was given out")]) from error
