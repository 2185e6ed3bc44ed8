"""The client for programs with an event loop."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from clockwork.client.errors import CallFailed, TooMany, Unavailable
from clockwork.client.schedules import (
    BATCH_BYTES_MAX,
    BATCH_ITEMS_MAX,
    Guarantee,
    NewDelivery,
    NewSchedule,
    OnLate,
    RetryPolicy,
    When,
    batches,
    data_fields,
    epoch_ms,
)
from clockwork.client.transport import Retries, Transport, failure_of_item
from clockwork.clock import Clock, SystemClock
from clockwork.schema.documents import HistoryDocument, PageDocument, PastDocument, ScheduleDocument

Status = Literal["pending", "delivered", "cancelled", "failed"]
_Document = TypeVar("_Document", bound=BaseModel)
_MISSING: Any = ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What became of one item of many: a schedule or an error."""

    index: int
    """Of the item among those given, from 0."""
    schedule: ScheduleDocument | None
    error: CallFailed | None
    status: int
    """HTTP status that the single call would have answered; 0 if there is none."""


class AsyncClient:
    """Calls one service. Use it in an `async with` block; many tasks may share it.

    Every method raises what clockwork.client.errors names; ValueError before anything is sent if an argument is none.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, retries: Retries | None = None, clock: Clock | None = None
    ) -> None:
        self._http = Transport(url, api_key=api_key, retries=retries)
        self._clock = clock or SystemClock()

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def create(
        self,
        client_id: str,
        schedule_key: str,
        *,
        at: When,
        topic: str,
        data: Any,
        ordering_key: str | None = None,
        guarantee: Guarantee | None = None,
        headers: Mapping[str, str] | None = None,
        deadline_ms: int | None = None,
        on_late: OnLate | None = None,
        retry: RetryPolicy | None = None,
        traceparent: str | None = None,
    ) -> ScheduleDocument:
        """Durable when it returns. The same request again returns the same schedule in its present state, which may be
        any. Raises: KeyTaken: another one is pending under this key."""
        new = NewSchedule(
            client_id=client_id,
            schedule_key=schedule_key,
            at=at,
            topic=topic,
            data=data,
            ordering_key=ordering_key,
            guarantee=guarantee,
            headers=headers,
            deadline_ms=deadline_ms,
            on_late=on_late,
            retry=retry,
        )
        more = {} if traceparent is None else {"traceparent": traceparent}
        answer = await self._http.ask("POST", "/schedule", body=new.document(self._clock), headers=more)
        return read_document(ScheduleDocument, answer)

    async def get(self, client_id: str, schedule_key: str) -> ScheduleDocument:
        """Its present state. Raises: NotFound."""
        return read_document(ScheduleDocument, await self._http.ask("GET", path_of(client_id, schedule_key)))

    async def cancel(self, client_id: str, schedule_key: str) -> ScheduleDocument:
        """After this it is never delivered. Raises: NotFound, AlreadyDelivered, AlreadyFailed, InFlight."""
        return read_document(ScheduleDocument, await self._http.ask("DELETE", path_of(client_id, schedule_key)))

    async def reschedule(
        self,
        client_id: str,
        schedule_key: str,
        *,
        at: When | None = None,
        topic: str | None = None,
        data: Any = _MISSING,
        ordering_key: str | None = None,
        guarantee: Guarantee | None = None,
        headers: Mapping[str, str] | None = None,
        deadline_ms: int | None = None,
        on_late: OnLate | None = None,
        retry: RetryPolicy | None = None,
        if_version: int | None = None,
    ) -> ScheduleDocument:
        """Changes what is given, keeps the rest; `headers` replace all of them. Raises: NotFound, Conflict, InFlight,
        VersionMismatch."""
        delivery = NewDelivery(
            topic=topic,
            guarantee=guarantee,
            headers=headers,
            deadline_ms=deadline_ms,
            on_late=on_late,
            retry=retry,
        )
        change: dict[str, Any] = {
            "scheduleTime": None if at is None else epoch_ms(at, self._clock),
            "orderingKey": ordering_key,
            "delivery": delivery.document() or None,
        }
        body = {name: value for name, value in change.items() if value is not None}
        if data is not _MISSING:
            body |= data_fields(data)
        path = path_of(client_id, schedule_key)
        return read_document(
            ScheduleDocument, await self._http.ask("PUT", path, body=body, headers=_condition(if_version))
        )

    async def fire(self, client_id: str, schedule_key: str, *, if_version: int | None = None) -> ScheduleDocument:
        """Delivers a pending one now. Raises: NotFound, Conflict, InFlight, VersionMismatch. AlreadyDelivered may also
        mean that an earlier attempt of this call worked and its answer was lost."""
        path = f"{path_of(client_id, schedule_key)}/fire"
        return read_document(ScheduleDocument, await self._http.ask("POST", path, headers=_condition(if_version)))

    async def retry(
        self, client_id: str, schedule_key: str, *, at: When | None = None, if_version: int | None = None
    ) -> ScheduleDocument:
        """Re-arms a failed one, by default for now. Raises: NotFound, Conflict, VersionMismatch."""
        body = {} if at is None else {"scheduleTime": epoch_ms(at, self._clock)}
        path = f"{path_of(client_id, schedule_key)}/retry"
        return read_document(
            ScheduleDocument, await self._http.ask("POST", path, body=body, headers=_condition(if_version))
        )

    async def history(self, client_id: str, schedule_key: str, *, page_size: int = 100) -> AsyncIterator[PastDocument]:
        """What stood under the key and ended, newest first. Raises: NotFound."""
        path = f"{path_of(client_id, schedule_key)}/history"
        async for page in self._pages(HistoryDocument, path, {"limit": str(page_size)}):
            for each in page.schedules:
                yield each

    async def create_many(
        self, schedules: Iterable[NewSchedule | Mapping[str, Any]], *, batch_items_max: int = BATCH_ITEMS_MAX
    ) -> AsyncIterator[Result]:
        """Creates any number, in batches; a result for each, in order. What fails alone is told as its result's error.
        A mapping is sent as it is: a schedule as the HTTP API takes it.

        Raises: CallFailed: a batch as a whole got no answer; the results before it stand, and doing all of it again is
        safe.
        """
        documents = (new.document(self._clock) if isinstance(new, NewSchedule) else new for new in schedules)
        async for result in self._batches("/schedules", documents, batch_items_max):
            yield result

    async def cancel_many(
        self, keys: Iterable[tuple[str, str]], *, batch_items_max: int = BATCH_ITEMS_MAX
    ) -> AsyncIterator[Result]:
        """Cancels any number of (client id, schedule key), as `create_many` creates them."""
        documents = ({"clientId": client_id, "scheduleKey": schedule_key} for client_id, schedule_key in keys)
        async for result in self._batches("/schedules/cancel", documents, batch_items_max):
            yield result

    async def list(
        self,
        client_id: str,
        *,
        status: Status | None = None,
        topic: str | None = None,
        ordering_key: str | None = None,
        due_from: When | None = None,
        due_to: When | None = None,
        page_size: int = 100,
    ) -> AsyncIterator[ScheduleDocument]:
        """A client's schedules, each key once; may lag by 5 s. `due_to` is excluded. Raises: NotSupported: the service
        keeps no index to list from."""
        given = {
            "clientId": client_id,
            "status": status,
            "topic": topic,
            "orderingKey": ordering_key,
            "dueFrom": None if due_from is None else str(epoch_ms(due_from, self._clock)),
            "dueTo": None if due_to is None else str(epoch_ms(due_to, self._clock)),
            "limit": str(page_size),
        }
        query = {name: value for name, value in given.items() if value is not None}
        async for page in self._pages(PageDocument, "/schedules", query):
            for each in page.schedules:
                yield each

    async def _pages(self, model: type[_Document], path: str, query: Mapping[str, str]) -> AsyncIterator[_Document]:
        cursor: str | None = None
        while True:
            more = {} if cursor is None else {"cursor": cursor}
            page = read_document(model, await self._http.ask("GET", path, query={**query, **more}))
            yield page
            cursor = getattr(page, "cursor", None)
            if cursor is None:
                return

    async def _batches(self, path: str, documents: Iterable[Any], items_max: int) -> AsyncIterator[Result]:
        if not 1 <= items_max <= BATCH_ITEMS_MAX:
            raise ValueError(f"batch_items_max: should be 1 to {BATCH_ITEMS_MAX}")
        index = 0
        for batch in batches(documents, items_max=items_max, bytes_max=BATCH_BYTES_MAX):
            for result in await self._settled(path, batch, index):
                yield result
            index += len(batch)

    async def _settled(self, path: str, batch: Sequence[bytes], first: int) -> Iterator[Result]:
        """The results of a batch; items that were not settled are sent again, as single calls are."""
        settled: dict[int, Result] = {}
        waiting = dict(enumerate(batch))
        give_up_s = self._http.give_up_s()
        for attempt in count(1):
            answer = await self._http.ask("POST", path, body=b'{"schedules":[' + b",".join(waiting.values()) + b"]}")
            results = answer.get("results") if isinstance(answer, dict) else None
            if not isinstance(results, Sequence) or len(results) != len(waiting):
                raise Unavailable("The answer does not have one result for each item.")
            for index, document in zip(waiting, results, strict=True):
                settled[index] = _result(first + index, document)
            unsettled = (i for i, r in settled.items() if isinstance(r.error, TooMany | Unavailable))
            waiting = {index: batch[index] for index in unsettled}
            if not waiting or not await self._http.pause(attempt, give_up_s):
                break
        return (settled[index] for index in range(len(batch)))


def path_of(client_id: str, schedule_key: str) -> str:
    return f"/schedule/{quote(client_id, safe='')}/{quote(schedule_key, safe='')}"


def _condition(version: int | None) -> dict[str, str]:
    return {} if version is None else {"If-Match": f'"{version}"'}


def read_document(model: type[_Document], document: Any) -> _Document:
    """Raises: Unavailable: something else than the service has answered, such as a proxy's page."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        wrong = "; ".join(".".join(map(str, each["loc"])) for each in error.errors(include_input=False))
        raise Unavailable(f"The answer is none of this API: {wrong}") from error


def _result(index: int, document: Any) -> Result:
    status = document.get("status") if isinstance(document, dict) else None
    if isinstance(status, int) and 200 <= status < 300:
        schedule = read_document(ScheduleDocument, document.get("schedule"))
        return Result(index=index, schedule=schedule, error=None, status=status)
    error = failure_of_item(document)
    return Result(index=index, schedule=error.schedule, error=error, status=error.status or 0)
