"""Requests that end: with an answer, or with an error that says what is known.

Every call of the API may be sent again: a create is recognised by its content, what is cancelled is cancelled, and a
change that was made already is answered as made, on condition of the earlier version too. So a lost answer, `503` and
`429` are retried here, within bounds and with jitter, for as long as `Retry-After` asks.
"""

import asyncio
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Retries:
    """How long a call is repeated that got no answer, `503` or `429`."""

    attempts_max: int = 6
    """The first one included."""
    initial_ms: int = 100
    """First wait, then doubling; each is drawn between half and all of it."""
    wait_ms_max: int = 5_000
    """Of one wait, unless `Retry-After` asks for more."""
    total_ms: int = 30_000
    """After this no further attempt begins."""
    answer_ms_max: int = 10_000
    """For one answer; longer than the service's own deadline of 5 s, whose 503 says more than silence."""

    def wait_ms(self, attempt: int, retry_after_s: int | None, rng: random.Random) -> float:
        """Before the next attempt, after the `attempt`-th (from 1)."""
        step_ms = float(min(self.initial_ms << (attempt - 1), self.wait_ms_max))
        return max(step_ms * rng.uniform(0.5, 1.0), (retry_after_s or 0) * 1_000.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """An HTTP answer, read."""

    status: int
    document: Any
    """None if it is no JSON."""
    retry_after_s: int | None


class Transport:
    """One service under one address. `async with` opens it; it is closed with it."""

    def __init__(self, url: str, *, api_key: str | None = None, retries: Retries | None = None) -> None:
        base = URL(url)
        if base.scheme not in {"http", "https"} or base.host is None:
            raise ValueError("url: should be http://host:port or https://host")
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key.split() == [api_key]):
            raise ValueError("api_key: should be printable ASCII without blanks")
        self._url = str(base).rstrip("/")
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._retries = retries or Retries()
        self._rng = random.Random()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=self._retries.answer_ms_max / 1_000)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The JSON of a 2xx answer. `body`: bytes are sent as they are. Raises: CallFailed."""
        url = URL(self._url + path, encoded=True).update_query(query or {})
        data = body if isinstance(body, bytes | None) else encoded(body)
        more = {**(headers or {}), **({} if data is None else _JSON)}
        give_up_s = self.give_up_s()
        for attempt in count(1):
            again, retry_after_s = True, None
            try:
                answered = await self._once(method, url, data, more)
                if 200 <= answered.status < 300:
                    return answered.document
                failure = failure_of(answered.status, answered.document)
                again, retry_after_s = isinstance(failure, _RETRIED), answered.retry_after_s
            except (aiohttp.ClientError, TimeoutError) as lost:
                failure = Unavailable(_no_answer(lost))
                # A certificate that is not trusted will not be a moment later.
                again = not isinstance(lost, aiohttp.ClientConnectorCertificateError)
            if not again or not await self.pause(attempt, give_up_s, retry_after_s):
                raise failure
        raise AssertionError("counting never ends")

    def give_up_s(self) -> float:
        """Loop time after which no further attempt of a call begins that begins now."""
        return asyncio.get_running_loop().time() + self._retries.total_ms / 1_000

    async def pause(self, attempt: int, give_up_s: float, retry_after_s: int | None = None) -> bool:
        """Waits before the next attempt; False if there should be none."""
        wait_s = self._retries.wait_ms(attempt, retry_after_s, self._rng) / 1_000
        loop = asyncio.get_running_loop()
        if attempt >= self._retries.attempts_max or loop.time() + wait_s > give_up_s:
            return False
        await asyncio.sleep(wait_s)
        return True

    async def _once(self, method: str, url: URL, data: bytes | None, headers: Mapping[str, str]) -> Answered:
        if self._session is None:
            raise RuntimeError("the client is not open: use it in a `with` block")
        # No redirects: the API has none, and an API key must not travel to where another host points.
        async with self._session.request(method, url, data=data, headers=headers, allow_redirects=False) as response:
            is_json = response.content_type.endswith(("/json", "+json"))
            text = await response.read()
            return Answered(
                status=response.status,
                document=await response.json(content_type=None) if is_json and text else None,
                retry_after_s=_seconds(response.headers.get("Retry-After")),
            )


def _seconds(value: str | None) -> int | None:
    """Its other form, a date, is not used by this API."""
    return int(value) if value is not None and value.isascii() and value.isdigit() else None


def _no_answer(error: Exception) -> str:
    return f"No answer: {str(error) or type(error).__name__}"


def failure_of_item(document: Any) -> CallFailed:
    """The error of one item of a batch."""
    status = document.get("status") if isinstance(document, dict) else None
    return failure_of(status if isinstance(status, int) else 500, document)
