"""The client for programs without an event loop: the asynchronous one, on a loop in a thread of its own.

One implementation, so that both always do the same; a second one on another HTTP library would be a second dependency
and a second set of mistakes. tests/unit/test_client_sync.py compares the two classes' methods.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from clockwork.client.aio import _MISSING, AsyncClient, Result, Status
from clockwork.client.schedules import BATCH_ITEMS_MAX, Guarantee, NewSchedule, OnLate, RetryPolicy, When
from clockwork.client.transport import Retries
from clockwork.clock import Clock
from clockwork.schema.documents import PastDocument, ScheduleDocument

_Value = TypeVar("_Value")


class Client:
    """Calls one service. Use it in a `with` block; many threads may share it. See `AsyncClient` for what calls do."""

    def __init__(
        self, url: str, *, api_key: str | None = None, retries: Retries | None = None, clock: Clock | None = None
    ) -> None:
        self._client = AsyncClient(url, api_key=api_key, retries=retries, clock=clock)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._loop is not None:
            raise RuntimeError("the client is open already")
        self._loop = asyncio.new_event_loop()
        # A daemon: a program that forgets to close its client still ends.
        self._thread = threading.Thread(target=self._loop.run_forever, name="clockwork-client", daemon=True)
        self._thread.start()
        self._wait(self._client.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is None or self._thread is None:
            return
        try:
            self._wait(self._client.__aexit__(kind, error, trace))
            # Of results that were not read to their end.
            self._wait(self._loop.shutdown_asyncgens())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None

    def create(
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
        return self._wait(
            self._client.create(
                client_id,
                schedule_key,
                at=at,
                topic=topic,
                data=data,
                ordering_key=ordering_key,
                guarantee=guarantee,
                headers=headers,
                deadline_ms=deadline_ms,
                on_late=on_late,
                retry=retry,
                traceparent=traceparent,
            )
        )

    def get(self, client_id: str, schedule_key: str) -> ScheduleDocument:
        return self._wait(self._client.get(client_id, schedule_key))

    def cancel(self, client_id: str, schedule_key: str) -> ScheduleDocument:
        return self._wait(self._client.cancel(client_id, schedule_key))

    def reschedule(
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
        return self._wait(
            self._client.reschedule(
                client_id,
                schedule_key,
                at=at,
                topic=topic,
                data=data,
                ordering_key=ordering_key,
                guarantee=guarantee,
                headers=headers,
                deadline_ms=deadline_ms,
                on_late=on_late,
                retry=retry,
                if_version=if_version,
            )
        )

    def fire(self, client_id: str, schedule_key: str, *, if_version: int | None = None) -> ScheduleDocument:
        return self._wait(self._client.fire(client_id, schedule_key, if_version=if_version))

    def retry(
        self, client_id: str, schedule_key: str, *, at: When | None = None, if_version: int | None = None
    ) -> ScheduleDocument:
        return self._wait(self._client.retry(client_id, schedule_key, at=at, if_version=if_version))

    def history(self, client_id: str, schedule_key: str, *, page_size: int = 100) -> Iterator[PastDocument]:
        return self._each(self._client.history(client_id, schedule_key, page_size=page_size))

    def create_many(
        self, schedules: Iterable[NewSchedule | Mapping[str, Any]], *, batch_items_max: int = BATCH_ITEMS_MAX
    ) -> Iterator[Result]:
        return self._each(self._client.create_many(schedules, batch_items_max=batch_items_max))

    def cancel_many(
        self, keys: Iterable[tuple[str, str]], *, batch_items_max: int = BATCH_ITEMS_MAX
    ) -> Iterator[Result]:
        return self._each(self._client.cancel_many(keys, batch_items_max=batch_items_max))

    def list(
        self,
        client_id: str,
        *,
        status: Status | None = None,
        topic: str | None = None,
        ordering_key: str | None = None,
        due_from: When | None = None,
        due_to: When | None = None,
        page_size: int = 100,
    ) -> Iterator[ScheduleDocument]:
        return self._each(
            self._client.list(
                client_id,
                status=status,
                topic=topic,
                ordering_key=ordering_key,
                due_from=due_from,
                due_to=due_to,
                page_size=page_size,
            )
        )

    def _wait(self, work: Coroutine[Any, Any, _Value]) -> _Value:
        if self._loop is None:
            work.close()
            raise RuntimeError("the client is not open: use it in a `with` block")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C ends the waiting, and must end the call as well.
            future.cancel()
            raise

    def _each(self, values: AsyncIterator[_Value]) -> Iterator[_Value]:
        async def following() -> tuple[_Value] | None:
            try:
                return (await anext(values),)
            except StopAsyncIteration:
                return None  # which a future cannot carry

        while (value := self._wait(following())) is not None:
            yield value[0]
