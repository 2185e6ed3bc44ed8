"""Calls to DynamoDB: signed requests over HTTP, repeats, time limits, errors, and the comparison of clocks.

aiobotocore finds the endpoint and the credentials, with their whole chain and refreshes. It does not make the calls: through
the library a call costs 0.6 to 0.75 ms of CPU, most of it for walking models of the request and the answer; with our own
JSON, signature and connections (`wire`) it costs 0.1 to 0.15 (`make bench SCENARIO=calls`). That was half of a node's work.

Repeats: reads, and writes that are recognised when they arrive twice, are repeated here a few times after a lost answer, an
answer 5xx, or throttling. `hold` is not (`once=True`).
"""

import asyncio
import email.utils
import json
import ssl
import urllib.request
import zlib
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, Self

import orjson
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, NoCredentialsError
from yarl import URL

from clockwork.clock import Clock, system_ms
from clockwork.errors import ClockworkError
from clockwork.ports.read_units import current_meter
from clockwork.ports.store import ObserveServerTime
from clockwork.ports.telemetry import StoreResult, Telemetry
from clockwork.settings.model import DynamoSettings
from clockwork.stores.calls import backoff_s, result_of
from clockwork.stores.dynamodb.errors import (
    IN_PROGRESS_CODE,
    NO_RESPONSE,
    THROTTLING_CODES,
    Cancelled,
    MalformedResponse,
    code_of,
    error_for_no_response,
    error_for_response,
    was_not_sent,
)
from clockwork.stores.dynamodb.signature import Identity, Signer
from clockwork.stores.dynamodb.wire import DirectWire, ProxiedWire, Wire, WireLimits

API: Final = "DynamoDB_20120810"
READS: Final = frozenset(
    {
        "get_item",
        "query",
        "scan",
        "batch_get_item",
        "transact_get_items",
        "describe_table",
        "describe_time_to_live",
    }
)
"""Operations that change nothing."""
METERED: Final = READS - {"describe_table", "describe_time_to_live"}
"""Operations whose answers state their cost, if they are asked to."""
DATE_RESOLUTION_MS: Final = 1_000
"""The header `Date` states whole seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallLimits:
    """The limits of calls through one client."""

    connect_timeout_s: float = 1.0
    read_timeout_s: float = 2.5
    """DynamoDB answers in milliseconds; a lost packet must not cost more than this."""
    attempts_max: int = 3
    """Copies of one request that are sent, the first one included."""
    connections_max: int = 96
    """Requests at a time; more wait for a connection."""


class Response(NamedTuple):
    """An HTTP response, its body not yet parsed."""

    status: int
    date: str | None
    """The header `Date`."""
    body: bytes


class Transport(Protocol):
    """The carrier of requests to DynamoDB; tests put faults in its place."""

    async def send(self, operation: str, body: bytes) -> Response:
        """Sends one copy of a request, named as DynamoDB names it (`GetItem`), and waits for the response.

        Raises: aiohttp.ClientError, OSError (`TimeoutError` is one), MalformedResponse, and BotoCoreError for errors of
        the library before anything is sent.
        """
        ...


class HttpTransport:
    """`Transport` over HTTP. `async with` opens and closes it."""

    def __init__(self, settings: DynamoSettings, limits: CallLimits) -> None:
        self._settings = settings
        self._limits = limits
        self._opened = AsyncExitStack()
        self._fixed: Identity | None = None
        self._credentials: Any = None

    async def __aenter__(self) -> Self:
        settings, limits = self._settings, self._limits
        secret_key = settings.secret_key.get_secret_value() if settings.secret_key is not None else None
        library = AioSession()
        async with library.create_client(
            "dynamodb",
            region_name=settings.region,
            endpoint_url=settings.endpoint,
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=secret_key,
        ) as client:
            url = URL(client.meta.endpoint_url).with_path("/")
        if settings.access_key is not None and secret_key is not None:
            self._fixed = Identity(settings.access_key, secret_key, None)
        else:
            self._credentials = await library.get_credentials()
        host = str(url.host) if url.is_default_port() else f"{url.host}:{url.port}"
        self._signer = Signer(host=host, region=settings.region)
        tls = None
        if url.scheme == "https":
            tls = ssl.create_default_context(cafile=library.get_config_variable("ca_bundle"))
        wire_limits = WireLimits(
            connect_timeout_s=limits.connect_timeout_s,
            read_timeout_s=limits.read_timeout_s,
            connections_max=limits.connections_max,
        )
        proxy = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(url.scheme)
        wire: Wire = ProxiedWire(url, proxy, wire_limits, tls) if proxy else DirectWire(url, host, wire_limits, tls)
        self._wire = await self._opened.enter_async_context(wire)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()

    async def send(self, operation: str, body: bytes) -> Response:
        """See `Transport`."""
        headers = self._signer.headers(
            self._fixed or await self._current_identity(),
            target=f"{API}.{operation}",
            body=body,
            now_ms=system_ms(),  # held time may be far ahead of it, and DynamoDB would refuse the signature
        )
        answer = await self._wire.post(headers, body)
        expected = answer.headers.get("x-amz-crc32")
        if expected is not None and expected != str(zlib.crc32(answer.body)):
            raise MalformedResponse(f"{operation}: the answer is damaged")
        return Response(answer.status, answer.headers.get("date"), answer.body)

    async def _current_identity(self) -> Identity:
        if self._credentials is None:
            raise NoCredentialsError
        frozen = await self._credentials.get_frozen_credentials()
        return Identity(frozen.access_key, frozen.secret_key, frozen.token)


class DynamoClient:
    """Calls DynamoDB by operation name (`get_item`, …), with and in DynamoDB's own JSON: bytes are base64 text.

    `async with` opens and closes it.
    """

    def __init__(
        self,
        settings: DynamoSettings,
        clock: Clock,
        observe: ObserveServerTime,
        telemetry: Telemetry,
        *,
        limits: CallLimits | None = None,
    ) -> None:
        self.settings = settings
        self._limits = limits or CallLimits()
        self._clock = clock
        self._observe = observe
        self.telemetry = telemetry
        self._opened = AsyncExitStack()
        self.transport: Transport
        self._date_text = ""
        self._date_ms = 0

    async def __aenter__(self) -> Self:
        transport = HttpTransport(self.settings, self._limits)
        self.transport = await self._opened.enter_async_context(transport)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()

    async def call(self, operation: str, *, once: bool = False, **parameters: Any) -> dict[str, Any]:
        """Does one operation and returns DynamoDB's answer. `once`: never sends a second copy.

        Raises: Refused, Cancelled, TransactionConflict, StoreUnavailable, StoreThrottled, Rejected.
        """
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        result: StoreResult = "cancelled"
        meter = current_meter() if operation in METERED else None
        if meter is not None:
            parameters["ReturnConsumedCapacity"] = "TOTAL"
        try:
            answer = await self._call(operation, orjson.dumps(parameters), once=once)
            result = "ok"
            if meter is not None:
                meter.charge(_units_of(answer))
        except ClockworkError as error:
            result = result_of(error.error() if isinstance(error, Cancelled) else error)
            raise
        finally:
            seconds = loop.time() - started_s
            self.telemetry.store_call(store="dynamodb", operation=operation, result=result, seconds=seconds)
        return answer

    async def _call(self, operation: str, body: bytes, *, once: bool) -> dict[str, Any]:
        name = operation.title().replace("_", "")
        write = operation not in READS
        attempts_max = 1 if once else self._limits.attempts_max
        answer_lost = False
        attempt = 0
        while True:
            attempt += 1
            sent_ms = self._clock.now_ms()
            cause: BaseException | None = None
            try:
                response = await self.transport.send(name, body)
                answer = _parsed(response)
            except NO_RESPONSE as error:
                cause = error
                answer_lost = answer_lost or not was_not_sent(error)
                failure = error_for_no_response(error, unknown=write and answer_lost)
                again = not isinstance(error, BotoCoreError)
            else:
                if attempt == 1:
                    # The answer to a repeat may have been delayed anywhere, so it says too little about the time.
                    self._compare_clock(response, sent_ms)
                if response.status < 300:
                    return answer
                answer_lost = answer_lost or response.status >= 500
                failure = error_for_response(response.status, answer, write=write, answer_lost=answer_lost)
                again = response.status >= 500 or code_of(answer) in THROTTLING_CODES | {IN_PROGRESS_CODE}
            if not again or attempt == attempts_max:
                raise failure from cause
            await asyncio.sleep(backoff_s(attempt))

    def _compare_clock(self, response: Response, sent_ms: int) -> None:
        if response.date is None:
            return
        if response.date != self._date_text:
            try:
                self._date_ms = int(email.utils.parsedate_to_datetime(response.date).timestamp() * 1_000)
            except ValueError:
                # Something between us and DynamoDB wrote this header. The clock is then not compared, and an
                # uncompared clock is not trusted for long: the guard says so.
                return
            self._date_text = response.date
        self._observe(
            sent_ms=sent_ms,
            received_ms=self._clock.now_ms(),
            server_ms=self._date_ms,
            resolution_ms=DATE_RESOLUTION_MS,
        )


def _units_of(answer: Mapping[str, Any]) -> float:
    """The capacity that an operation has consumed, of all tables together."""
    stated = answer.get("ConsumedCapacity") or []
    tables = [stated] if isinstance(stated, dict) else stated
    return float(sum(table.get("CapacityUnits", 0) for table in tables))


def _parsed(response: Response) -> dict[str, Any]:
    """Raises: MalformedResponse."""
    try:
        parsed = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        try:
            # orjson refuses half a surrogate pair, which JSON allows: one such row must not hide a whole page.
            parsed = json.loads(response.body)
        except ValueError as error:
            if response.status >= 300:
                return {}  # an error page of something in between
            raise MalformedResponse("not JSON") from error
    if not isinstance(parsed, dict):
        raise MalformedResponse("not an object")
    return parsed
