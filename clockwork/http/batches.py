"""POST /schedules and POST /schedules/cancel: up to a thousand requests in one body, each answered as if it had come
alone.

An error in the envelope refuses the whole; an error in an item is that item's result. An item has the size limits of a
single request for its stored part (256 KiB of data and headers); its JSON is bounded by the body's limit.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeVar

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.domain.record import TRACEPARENT
from clockwork.errors import FieldError, InvalidInput
from clockwork.http import many
from clockwork.http.body import body_of, only
from clockwork.http.responses import problem_of
from clockwork.requests.batch import ITEMS_MAX
from clockwork.requests.results import CancelResult, Created, CreateResult, Declined
from clockwork.requests.service import RequestService
from clockwork.schema import problems
from clockwork.schema import schedule as schemas
from clockwork.schema.json import read_json

_NAME: Final = "schedules"
_QUOTED_CHARS_MAX: Final = 100

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchHandlers:
    """The calls with many schedules."""

    requests: RequestService
    cluster: str
    body_bytes_max: int

    async def create(self, request: web.Request) -> web.Response:
        read = partial(
            schemas.read_schedule,
            cluster=self.cluster,
            now_ms=self.requests.context.clock.now_ms(),
            traceparent=only(request, TRACEPARENT),
        )
        items = await self._read(request, read)
        return await _answer(await self.requests.create_batch(principal_of(request), items))

    async def cancel(self, request: web.Request) -> web.Response:
        items = await self._read(request, schemas.read_key)
        return await _answer(await self.requests.cancel_batch(principal_of(request), items))

    async def _read(self, request: web.Request, read: Callable[[Any], _T]) -> list[_T | InvalidInput]:
        body = await body_of(request, bytes_max=self.body_bytes_max)
        return await read_json(body, partial(read_items, read=read))


async def _answer(results: Sequence[CreateResult | CancelResult | Exception]) -> web.Response:
    return await many.listed("results", _documents(results))


def _documents(results: Sequence[CreateResult | CancelResult | Exception]) -> Iterator[dict[str, Any]]:
    for result in results:
        if isinstance(result, Exception):
            yield problem_of(result).document()
        elif isinstance(result, Declined):
            yield problems.of_declined(result).document()
        else:
            status = HTTPStatus.CREATED if isinstance(result, Created) else HTTPStatus.OK
            yield {"status": status.value, "schedule": schemas.answer(result.view)}


def read_items(document: Any, read: Callable[[Any], _T]) -> list[_T | InvalidInput]:
    """The items of a batch, each as `read` takes it, or the error of that item.

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
    return [_item(item, read) for item in items]


def _item(item: Any, read: Callable[[Any], _T]) -> _T | InvalidInput:
    try:
        return read(item)
    except InvalidInput as wrong:
        return wrong
