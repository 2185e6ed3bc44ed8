"""POST /schedules and POST /schedules/cancel: up to a thousand requests in one body, each answered as if it had come
alone.

What is wrong with the envelope refuses the whole; what is wrong with an item is that item's result. An item has the
bounds of a single request where they are stored (256 KiB of data and headers); its JSON is bounded by the body's limit.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeVar

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.errors import FieldError, InvalidInput
from clockwork.http import many
from clockwork.http.schedules import ScheduleHandlers, problem_of
from clockwork.requests.batch import run_batch_by_key
from clockwork.requests.results import NewSchedule, ScheduleView
from clockwork.schema import schedule as schemas

ITEMS_MAX: Final = 1_000
_NAME: Final = "schedules"
_QUOTED_CHARS_MAX: Final = 100

_T = TypeVar("_T")
Answered = tuple[HTTPStatus, ScheduleView]
Key = tuple[ClientId, ScheduleKey]


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchHandlers:
    """Many at once, each by the handlers of one."""

    one: ScheduleHandlers
    timeout_ms: int
    """Of a whole batch, as of a single request."""

    async def create(self, request: web.Request) -> web.Response:
        read = self.one.reader(request)
        items = await self.one.read_many(request, lambda document: read_items(document, read))
        for item in items:
            if isinstance(item, InvalidInput):
                self.one.telemetry.schedule("rejected")
        principal = principal_of(request)

        async def accept(new: NewSchedule) -> Answered:
            status, view, _ = await self.one.accept(principal, new)
            return status, view

        return await self._answer(items, accept, lambda new: (new.client_id, new.schedule_key))

    async def cancel(self, request: web.Request) -> web.Response:
        items = await self.one.read_many(request, lambda document: read_items(document, schemas.read_key))
        principal = principal_of(request)

        async def cancel(key: Key) -> Answered:
            return HTTPStatus.OK, await self.one.cancel_one(principal, *key)

        return await self._answer(items, cancel, lambda key: key)

    async def _answer(
        self, items: Sequence[_T | InvalidInput], do: Callable[[_T], Awaitable[Answered]], key: Callable[[_T], Key]
    ) -> web.Response:
        valid = [item for item in items if not isinstance(item, InvalidInput)]
        done = iter(await run_batch_by_key(do, valid, key=key, timeout_s=self.timeout_ms / 1_000))
        results = (item if isinstance(item, InvalidInput) else next(done) for item in items)
        return await many.listed("results", _documents(results))


def _documents(results: Iterator[Answered | Exception]) -> Iterator[dict[str, Any]]:
    for result in results:
        if isinstance(result, Exception):
            yield problem_of(result).document()
        else:
            status, view = result
            yield {"status": status.value, "schedule": schemas.answer(view)}


def read_items(document: Any, read: Callable[[Any], _T]) -> list[_T | InvalidInput]:
    """The items of a batch, each as `read` takes it, or what is wrong with it.

    Raises: InvalidInput: the envelope is wrong.
    """
    if not isinstance(document, dict):
        raise InvalidInput([FieldError("body", "should be a JSON object")])
    unknown = [name for name in document if name != _NAME][: schemas.MEMBERS_MAX]
    errors = [FieldError(name[:_QUOTED_CHARS_MAX], "is no field of this request") for name in unknown]
    items = document.get(_NAME)
    if items is None:
        errors.append(FieldError(_NAME, "is required"))
    elif not isinstance(items, list):
        errors.append(FieldError(_NAME, "should be an array"))
    elif len(items) > ITEMS_MAX:
        errors.append(FieldError(_NAME, f"has {len(items)} items; at most {ITEMS_MAX} are taken"))
    if errors or not isinstance(items, list):
        raise InvalidInput(errors)
    return [_read(item, read) for item in items]


def _read(item: Any, read: Callable[[Any], _T]) -> _T | InvalidInput:
    try:
        return read(item)
    except InvalidInput as wrong:
        return wrong
