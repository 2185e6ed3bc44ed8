"""One copy of a request to DynamoDB, signed, and its answer.

Where DynamoDB is and who we are is aiobotocore's to say: regions, endpoints, and the chain of credentials with all that
it refreshes. A call itself is small, and made through the library it costs 0.6 to 0.75 ms of CPU, most of it for walking
models of the request and the answer; this way it costs 0.25 (`make bench SCENARIO=calls`). That was half of
all that a node does.
"""

import ssl
import urllib.request
import zlib
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, Self

import aiohttp
from aiobotocore.session import AioSession
from botocore.exceptions import NoCredentialsError
from yarl import URL

from clockwork.clock import Clock
from clockwork.stores.dynamodb.signature import Identity, Signer

KEPT_ALIVE_S: Final = 12.0
"""An idle connection; shorter than what load balancers and DynamoDB grant, so that ours is the end that hangs up."""
API: Final = "DynamoDB_20120810"


@dataclass(frozen=True, kw_only=True, slots=True)
class DynamoClientSettings:
    """Where DynamoDB is, and how long to wait for it."""

    region: str
    endpoint: str | None = None
    """None: AWS."""
    access_key: str | None = None
    """None: the usual AWS credential chain."""
    secret_key: str | None = field(default=None, repr=False)
    schedules_table: str = "schedules"
    executions_table: str = "partitionExecutions"
    keys_table: str = "scheduleKeys"
    search: bool = True
    """Whether `keys_table` has the index that lists are read from."""
    connect_timeout_s: float = 1.0
    read_timeout_s: float = 2.5
    """DynamoDB answers in milliseconds; a lost packet must not cost more than this."""
    attempts_max: int = 3
    """Copies of one request that are sent, the first one included."""
    connections_max: int = 96
    """Requests at a time; more wait for a connection."""


class WireAnswer(NamedTuple):
    """What came back, unread."""

    status: int
    date: str | None
    """The header `Date`."""
    body: bytes


class MalformedResponse(Exception):
    """An answer came, and it cannot be read."""


class Wire(Protocol):
    """Something that carries requests to DynamoDB; tests put faults in its place."""

    async def send(self, operation: str, body: bytes) -> WireAnswer:
        """Sends one copy of a request, named as DynamoDB names it (`GetItem`), and waits for the answer.

        Raises: aiohttp.ClientError, OSError (`TimeoutError` is one), Garbled, and BotoCoreError for what the library
        refuses itself, before anything is sent.
        """
        ...


class DynamoWire:
    """`Wire` over HTTP. `async with` opens and closes it."""

    def __init__(self, settings: DynamoClientSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._opened = AsyncExitStack()
        self._fixed: Identity | None = None
        self._credentials: Any = None

    async def __aenter__(self) -> Self:
        settings = self._settings
        library = AioSession()
        async with library.create_client(
            "dynamodb",
            region_name=settings.region,
            endpoint_url=settings.endpoint,
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=settings.secret_key,
        ) as client:
            self._url = URL(client.meta.endpoint_url).with_path("/")
        if settings.access_key is not None and settings.secret_key is not None:
            self._fixed = Identity(settings.access_key, settings.secret_key, None)
        else:
            self._credentials = await library.get_credentials()
        host = str(self._url.host) if self._url.is_default_port() else f"{self._url.host}:{self._url.port}"
        self._signer = Signer(host=host, region=settings.region)
        self._proxy = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(self._url.scheme)
        ca_bundle = library.get_config_variable("ca_bundle")
        self._http = await self._opened.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=settings.connections_max,
                    keepalive_timeout=KEPT_ALIVE_S,
                    ssl=ssl.create_default_context(cafile=ca_bundle) if ca_bundle else True,
                ),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=settings.connect_timeout_s, sock_read=settings.read_timeout_s
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity", "User-Agent": "clockwork"},
            )
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()

    async def send(self, operation: str, body: bytes) -> WireAnswer:
        """See `Wire`."""
        headers = self._signer.headers(
            self._fixed or await self._current(),
            target=f"{API}.{operation}",
            body=body,
            now_ms=self._clock.now_ms(),
        )
        async with self._http.post(
            self._url, data=body, headers=headers, allow_redirects=False, proxy=self._proxy
        ) as response:
            answer = await response.read()
            expected = response.headers.get("x-amz-crc32")
            if expected is not None and expected != str(zlib.crc32(answer)):
                raise MalformedResponse(f"{operation}: the answer is damaged")
            return WireAnswer(response.status, response.headers.get("Date"), answer)

    async def _current(self) -> Identity:
        if self._credentials is None:
            raise NoCredentialsError
        frozen = await self._credentials.get_frozen_credentials()
        return Identity(frozen.access_key, frozen.secret_key, frozen.token)
