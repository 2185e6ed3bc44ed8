"""HTTP/1.1 to one endpoint: POST requests on connections that are kept alive.

    DirectWire    connections of our own: a request is one write, an answer one parse
    ProxiedWire   aiohttp's client, where the environment names a proxy

A call over aiohttp's client costs two and a half times the CPU, three times if it is alone (`make bench SCENARIO=calls`): it
builds a request, a writer, a stream and a connection key for each, sets three timers, and takes several turns of the event
loop. A schedule takes two calls and a part of others, and that was more than a quarter of the node's work for it.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self

import aiohttp
from aiohappyeyeballs import start_connection
from yarl import URL

from clockwork.stores.dynamodb.errors import MalformedResponse, NotConnected

KEEP_ALIVE_S: Final = 12.0
"""Time for which an idle connection is used again: shorter than load balancers and DynamoDB keep it, so that this side
closes it."""
HEAD_BYTES_MAX: Final = 64 * 1024
ANOTHER_ADDRESS_S: Final = 0.25
"""Time after which the next address of the host is tried beside the first one (RFC 8305)."""
_OWN_HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": "clockwork"}


class HttpAnswer(NamedTuple):
    """An answer over HTTP."""

    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes


class Wire(Protocol):
    """`async with` opens and closes it."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def post(self, headers: Mapping[str, str], body: bytes) -> HttpAnswer:
        """Sends one copy of a request and waits for its answer.

        Raises: aiohttp.ClientError, OSError (`NotConnected`: nothing was sent), MalformedResponse.
        """
        ...


class WireLimits(NamedTuple):
    """Time limits, and a bound of connections."""

    connect_timeout_s: float
    read_timeout_s: float
    """For the silence of the other side, from the request to the end of its answer."""
    connections_max: int
    """Requests at a time; more wait for a connection."""


class DirectWire:
    """See `Wire`."""

    def __init__(self, url: URL, host: str, limits: WireLimits, tls: ssl.SSLContext | None) -> None:
        """`host`: for the header. `tls`: None for plain HTTP."""
        self._host, self._port = str(url.host), url.port or 80
        self._limits = limits
        self._tls = tls
        own = "".join(f"{name}: {value}\r\n" for name, value in _OWN_HEADERS.items())
        self._head = f"POST {url.raw_path_qs} HTTP/1.1\r\nHost: {host}\r\n{own}"
        self._room = asyncio.Semaphore(limits.connections_max)
        self._open: set[_Connection] = set()
        self._idle: list[_Connection] = []
        """In the order in which they became idle."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in list(self._open):
            connection.close()
        # A turn of the loop, in which their sockets are closed.
        await asyncio.sleep(0)

    async def post(self, headers: Mapping[str, str], body: bytes) -> HttpAnswer:
        given = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        request = f"{self._head}{given}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body
        async with self._room:
            connection = self._take_idle() or await self._connect()
            answer = await connection.exchange(request)
            if connection.usable:
                connection.idle_since_s = asyncio.get_running_loop().time()
                self._idle.append(connection)
            return answer

    def _take_idle(self) -> "_Connection | None":
        """The connection that was used last, so that those beyond what is needed grow old; these are closed."""
        oldest_s = asyncio.get_running_loop().time() - KEEP_ALIVE_S
        while self._idle and self._idle[0].idle_since_s < oldest_s:
            self._idle.pop(0).close()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _connect(self) -> "_Connection":
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                loop = asyncio.get_running_loop()
                addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                # Not `create_connection` with its own `happy_eyeballs_delay`: a caller that gives up in the turn of the
                # loop in which the connection is made leaves the socket open.
                connected = await start_connection(addresses, happy_eyeballs_delay=ANOTHER_ADDRESS_S)
                _, connection = await loop.create_connection(
                    lambda: _Connection(self._limits.read_timeout_s, self._open),
                    sock=connected,
                    ssl=self._tls,
                    server_hostname=None if self._tls is None else self._host,
                )
        except OSError as error:
            raise NotConnected(f"no connection to {self._host}:{self._port}: {error!r}") from error
        return connection


class _Head(NamedTuple):
    """The head of an answer."""

    status: int
    headers: Mapping[str, str]
    size_bytes: int
    """Up to the body."""
    length: int | None
    """Length of the body; None: it ends with the connection."""
    chunked: bool
    reusable: bool
    """True if the connection stays open behind the answer."""


class _Connection(asyncio.Protocol):
    """One connection, one request at a time.

    After anything but a whole answer, and nothing behind it, it is closed: what comes later would be taken for the answer
    to the next request.
    """

    def __init__(self, silence_s_max: float, opened: "set[_Connection]") -> None:
        """`opened` has it for as long as it is open."""
        self.idle_since_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._silence_s_max = silence_s_max
        self._opened = opened
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[HttpAnswer] | None = None
        self._received = bytearray()
        self._head: _Head | None = None
        self._heard_s = 0.0
        self._watch: asyncio.TimerHandle | None = None
        """One timer for many requests: it looks when the last sign of life was, and sets itself anew."""

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, request: bytes) -> HttpAnswer:
        """Sends a request and waits for its answer. Raises: OSError, MalformedResponse."""
        assert self._transport is not None, "the connection is open"
        assert self._answer is None, "one request at a time"
        self._answer = self._loop.create_future()
        self._heard_s = self._loop.time()
        if self._watch is None:
            self._watch = self._loop.call_at(self._heard_s + self._silence_s_max, self._check_silence)
        self._transport.write(request)
        try:
            return await self._answer
        except BaseException:
            self.close()
            raise
        finally:
            self._answer = None
            self._head = None

    def close(self) -> None:
        """Closes at once; a request under way fails."""
        if self._transport is not None:
            self._transport.abort()

    # --- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._opened.add(self)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.close()
            return
        self._heard_s = self._loop.time()
        self._received += data
        self._read(at_end=False)

    def connection_lost(self, error: Exception | None) -> None:
        self._opened.discard(self)
        if self._watch is not None:
            self._watch.cancel()
        if self._answer is not None and not self._answer.done() and error is None:
            self._read(at_end=True)
        self._fail(error or ConnectionResetError("the connection was closed before the answer was complete"))

    def _check_silence(self) -> None:
        self._watch = None
        if self._answer is None:
            return  # idle; the next request sets it
        ends_s = self._heard_s + self._silence_s_max
        if self._loop.time() < ends_s:
            self._watch = self._loop.call_at(ends_s, self._check_silence)
        else:
            self._fail(TimeoutError(f"no answer within {self._silence_s_max} s"))

    # --- the answer

    def _read(self, *, at_end: bool) -> None:
        """Takes the answer if it is complete. `at_end`: nothing more of it comes."""
        try:
            answer = self._take(at_end=at_end)
        except (ValueError, LookupError) as error:
            self._fail(MalformedResponse(f"not HTTP: {error!r}"))
            return
        if answer is not None and self._answer is not None:
            self._answer.set_result(answer)

    def _take(self, *, at_end: bool) -> HttpAnswer | None:
        """The answer; None: more of it is to come. Raises: ValueError, LookupError, if it is not HTTP."""
        while self._head is None:
            self._head = _parse_head(self._received)
            if self._head is None:
                return None
            if 100 <= self._head.status < 200:
                del self._received[: self._head.size_bytes]
                self._head = None
        head, received = self._head, self._received
        if head.chunked:
            found = _read_chunks(received, head.size_bytes)
            if found is None:
                return None
            body, size_bytes = found
        else:
            size_bytes = head.size_bytes + head.length if head.length is not None else len(received)
            if len(received) < size_bytes or (head.length is None and not at_end):
                return None
            body = bytes(received[head.size_bytes : size_bytes])
        if not head.reusable or len(received) > size_bytes:
            self.close()
        received.clear()
        return HttpAnswer(head.status, head.headers, body)

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


def _parse_head(received: bytearray) -> _Head | None:
    """The head; None: more of it is to come. Raises: ValueError, LookupError."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        if len(received) > HEAD_BYTES_MAX:
            raise ValueError("the head is too long")
        return None
    first, *lines = received[:end].decode("latin-1").split("\r\n")
    version, status, *_ = first.split(" ", 2)
    if not version.startswith("HTTP/1."):
        raise ValueError(first[:40])
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    chunked = headers.get("transfer-encoding", "").lower() == "chunked"
    length = int(headers["content-length"]) if "content-length" in headers else None
    without_body = status in {"204", "304"}
    if length is not None and length < 0:
        raise ValueError("the length is negative")
    return _Head(
        status=int(status),
        headers=headers,
        size_bytes=end + 4,
        length=0 if without_body else length,
        chunked=chunked and not without_body,
        reusable=version != "HTTP/1.0"
        and headers.get("connection", "").lower() != "close"
        and (chunked or without_body or length is not None),
    )


def _read_chunks(received: bytearray, start: int) -> tuple[bytes, int] | None:
    """A body in chunks, and where it ends; None: more of it is to come. Raises: ValueError."""
    body = bytearray()
    while (line_end := received.find(b"\r\n", start)) >= 0:
        size_bytes = int(received[start:line_end].split(b";")[0], 16)
        start = line_end + 2
        if size_bytes == 0:
            # Trailers, which nothing here needs, and an empty line.
            end = received.find(b"\r\n\r\n", line_end)
            return None if end < 0 else (bytes(body), end + 4)
        body += received[start : start + size_bytes]
        start += size_bytes + 2
    return None


class ProxiedWire:
    """See `Wire`."""

    def __init__(self, url: URL, proxy: str, limits: WireLimits, tls: ssl.SSLContext | None) -> None:
        self._url = url
        self._proxy = proxy
        self._limits = limits
        self._tls = tls

    async def __aenter__(self) -> Self:
        limits = self._limits
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=limits.connections_max,
                keepalive_timeout=KEEP_ALIVE_S,
                ssl=self._tls if self._tls is not None else True,
            ),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=limits.connect_timeout_s, sock_read=limits.read_timeout_s
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_OWN_HEADERS,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def post(self, headers: Mapping[str, str], body: bytes) -> HttpAnswer:
        async with self._http.post(
            self._url, data=body, headers=headers, allow_redirects=False, proxy=self._proxy
        ) as response:
            answered = {name.lower(): value for name, value in response.headers.items()}
            return HttpAnswer(response.status, answered, await response.read())
