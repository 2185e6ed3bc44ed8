"""Requests over HTTP, with retries: each ends with an answer, or with an error that says what is known.

Every call of the API may be sent again: a create is recognised by its content, a cancelled schedule stays cancelled, and a
change that was made already is answered as made, also under the condition of the earlier version. So a lost answer, `503`
and `429` are retried here, within limits and with jitter, after the time that `Retry-After` asks for. Two calls are refused
once they are done, a restore and a fire: there the error says whether an answer was lost before (`after_lost_answer`).
"""

import asyncio
import json
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from yarl import URL

from clockwork.client.errors import CallFailed, TooMany, Unavailable, failure_of
from clockwork.client.schedules import encoded

_JSON: Final = {"Content-Type": "application/json"}
_RETRIED: Final = (TooMany, Unavailable)
_RETRY_AFTER_S_MAX: Final = 10**9
ITEM_MS: Final = 20
"""Time that the service adds to a request's limit for each item of a batch."""
_NO_JSON: Final = object()
"""In the place of an answer's document."""
_FORKED: Final = "the client was opened by another process: open one after the fork"


@dataclass(frozen=True, kw_only=True, slots=True)
class Retries:
    """Limits for repeating a call that got no answer, `503` or `429`."""

    attempts_max: int = 6
    """The first one included."""
    initial_ms: int = 100
    """First wait; each further one is twice as long. A wait is drawn between half and all of it."""
    wait_ms_max: int = 5_000
    """Longest wait, unless `Retry-After` asks for more."""
    total_ms: int = 30_000
    """After this no further attempt begins."""
    answer_ms_max: int = 10_000
    """Time for one answer; longer than the service's own deadline of 5 s, whose 503 says more than silence. A batch has
    `ITEM_MS` more for each item, as it has in the service."""

    def answer_ms(self, items: int) -> int:
        """The time for the answer to a batch of so many items; 0: a single call."""
        return self.answer_ms_max + ITEM_MS * items

    def wait_ms(self, attempt: int, retry_after_s: int | None, rng: random.Random) -> float:
        """The wait between the `attempt`-th attempt (from 1) and the next."""
        step_ms = float(min(self.initial_ms << min(attempt - 1, 60), self.wait_ms_max))
        return max(step_ms * rng.uniform(0.5, 1.0), (retry_after_s or 0) * 1_000.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    document: Any
    """The JSON of the body; None if it is empty or of another type, `_NO_JSON` if it only says that it is JSON."""
    retry_after_s: int | None


class Transport:
    """The connections to one service. Use it in an `async with` block, in one process."""

    def __init__(self, url: str, *, api_key: str | None = None, retries: Retries | None = None) -> None:
        """Raises: ValueError, naming `url` or `api_key`."""
        base = service_url(url)
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key.split() == [api_key]):
            raise ValueError("api_key: should be printable ASCII without blanks")
        self._url = str(base).rstrip("/")
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._retries = retries or Retries()
        self._rng = random.Random()
        self._session: aiohttp.ClientSession | None = None
        self._process_id = os.getpid()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(headers=self._headers)
        self._process_id = os.getpid()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        items: int = 0,
    ) -> Any:
        """The JSON of a 2xx answer; None if it has none. `body`: bytes are sent as they are. `items`: of a batch.

        Raises: CallFailed; ValueError, before anything is sent, if there is no JSON for the body.
        """
        url = URL(self._url + path, encoded=True).update_query(query or {})
        data = body if isinstance(body, bytes | None) else encoded(body)
        more = {**(headers or {}), **({} if data is None else _JSON)}
        give_up_s = self.give_up_s(items)
        timeout = aiohttp.ClientTimeout(total=self._retries.answer_ms(items) / 1_000)
        lost_answer = False
        for attempt in count(1):
            again, retry_after_s = True, None
            try:
                answer = await self._request_once(method, url, data, more, timeout)
                retry_after_s = answer.retry_after_s
                if answer.document is _NO_JSON and 200 <= answer.status < 300:
                    failure: CallFailed = Unavailable(
                        "The answer is not JSON, though it says so.", status=answer.status
                    )
                elif 200 <= answer.status < 300:
                    return answer.document
                else:
                    failure = failure_of(answer.status, answer.document)
                    again = isinstance(failure, _RETRIED)
            except (aiohttp.ClientError, TimeoutError, OSError) as lost:
                failure = Unavailable(f"No answer: {str(lost) or type(lost).__name__}")
                # A certificate that is not trusted will not be a moment later.
                again = not isinstance(lost, aiohttp.ClientConnectorCertificateError)
            failure.after_lost_answer = lost_answer
            lost_answer = lost_answer or isinstance(failure, Unavailable)
            if not again or not await self.pause(attempt, give_up_s, retry_after_s):
                raise failure
        raise AssertionError("counting never ends")

    def give_up_s(self, items: int = 0) -> float:
        """The loop time after which a call that begins now makes no further attempt. `items`: of a batch."""
        return asyncio.get_running_loop().time() + (self._retries.total_ms + ITEM_MS * items) / 1_000

    async def pause(self, attempt: int, give_up_s: float, retry_after_s: int | None = None) -> bool:
        """Waits before the next attempt; False if there should be none."""
        wait_s = self._retries.wait_ms(attempt, retry_after_s, self._rng) / 1_000
        loop = asyncio.get_running_loop()
        if attempt >= self._retries.attempts_max or loop.time() + wait_s > give_up_s:
            return False
        await asyncio.sleep(wait_s)
        return True

    async def _request_once(
        self, method: str, url: URL, data: bytes | None, headers: Mapping[str, str], timeout: aiohttp.ClientTimeout
    ) -> Answer:
        if self._session is None:
            raise RuntimeError("the client is not open: use it in a `with` block")
        if self._process_id != os.getpid():
            # Two processes on the same connections would read each other's answers.
            raise RuntimeError(_FORKED)
        # No redirects: the API has none, and an API key must not be sent to a host that another one names.
        async with self._session.request(
            method, url, data=data, headers=headers, allow_redirects=False, timeout=timeout
        ) as response:
            is_json = response.content_type.endswith(("/json", "+json"))
            text = await response.read()
            return Answer(
                status=response.status,
                document=_json_of(text) if is_json and text else None,
                retry_after_s=_retry_after_s(response.headers.get("Retry-After")),
            )


def service_url(url: str) -> URL:
    """The address of a service. Raises: ValueError."""
    try:
        base = URL(url)
    except ValueError as error:
        raise ValueError(f"url: is not an address: {error}") from error
    if base.scheme not in {"http", "https"} or base.host is None or any(each in base.host for each in " \t%"):
        raise ValueError("url: should be http://host:port or https://host")
    if base.raw_query_string or base.raw_fragment or base.user is not None or base.password is not None:
        raise ValueError("url: should be http://host:port or https://host, without a query, a fragment or a user")
    return base


def _json_of(text: bytes) -> Any:
    """A proxy may cut an answer, or put its own text under the type of JSON: that is no JSON, and no error by itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NO_JSON


def _retry_after_s(value: str | None) -> int | None:
    """The seconds of `Retry-After`. Its other form, a date, is not used by this API."""
    if value is None or not (value.isascii() and value.isdigit()):
        return None
    return int(value) if len(value) <= len(str(_RETRY_AFTER_S_MAX)) else _RETRY_AFTER_S_MAX


def failure_of_item(document: Any) -> CallFailed:
    """The error of one item of a batch, from its part of the answer."""
    status = document.get("status") if isinstance(document, dict) else None
    return failure_of(status if isinstance(status, int) else 500, document)
