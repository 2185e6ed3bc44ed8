"""A client's connection, and the limits of its time and size.

    connecting        refused with 503 while `connections_max` are open: better a clear answer than no file for Kafka
    head              `head_timeout_ms` from its first byte to its last (408); a target of at most `TARGET_BYTES_MAX` (414),
                      at most `HEADERS_MAX` headers of `HEADER_BYTES_MAX` each (431); no transfer coding but chunked (501)
    body              `body.BODY_SECONDS_MAX` and `CLOCKWORK_BODY_BYTES_MAX`, where bodies are read
    answer            `send_timeout_ms` until the client has taken it; then the connection is aborted
    between requests  `KEEPALIVE_SECONDS`

aiohttp limits sizes and idle connections; the limits for a slow head and an unread answer are here. A client that has sent
its request and closed its side of the connection still gets the answer (not over TLS, where asyncio closes both sides).
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final, cast

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from clockwork.http.responses import problem_of, problem_response
from clockwork.ports.telemetry import Telemetry
from clockwork.schema import problems
from clockwork.schema.problems import Problem
from clockwork.settings.model import ConnectionSettings

KEEPALIVE_SECONDS: Final = 75.0
"""Time that an idle connection is kept; longer than the 60 s of common load balancers, so that they close first."""
TARGET_BYTES_MAX: Final = 8_190
"""Limit of a request's target, its path and query; common proxies have the same."""
HEADER_BYTES_MAX: Final = 8_192
"""Limit of each header, name and value together. It differs from the target's, because aiohttp's error names only the limit
that was exceeded."""
HEADERS_MAX: Final = 100
LINGER_SECONDS: Final = 1.0
"""Time in which a refused body is read and thrown away, so that the client sees the refusal and not a reset."""
_CONTINUE: Final = "100-continue"
_CHUNKED: Final = "chunked"


@dataclass(kw_only=True, slots=True)
class ConnectionCount:
    """The number of open connections, with its limit."""

    settings: ConnectionSettings
    telemetry: Telemetry
    open: int = 0

    def add(self) -> bool:
        """Counts one more connection; returns False, and counts nothing, at the limit."""
        if self.open >= self.settings.connections_max:
            self.telemetry.limited("connections")
            return False
        self.open += 1
        self.telemetry.connections(self.open)
        return True

    def remove(self) -> None:
        self.open -= 1
        self.telemetry.connections(self.open)


class Connection(web.RequestHandler):
    """aiohttp's connection with the limits above, and with a problem document for every error.

    aiohttp answers in plain text where there is no request yet (a malformed request line or header), and where an error
    comes from outside of every handler.
    """

    __slots__ = ("_accepted", "_connections", "_half_closed", "_head_timer", "_last_body", "_send_timer")

    def __init__(self, manager: web.Server, connections: ConnectionCount) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # how aiohttp spells "none"
            keepalive_timeout=KEEPALIVE_SECONDS,
            # Bodies are never decompressed: a compressed one is refused, and a bomb would go off in the reading.
            auto_decompress=False,
            max_line_size=TARGET_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            max_headers=HEADERS_MAX,
            lingering_time=LINGER_SECONDS,
        )
        self._request_handler = partial(_before_routing, manager.request_handler)
        self._connections = connections
        self._accepted = False
        self._half_closed = False
        self._last_body: Any = None
        """The body of the last request whose head is complete."""
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None

    # --- as the transport calls it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._accepted = self._connections.add()
        if self._accepted:
            super().connection_made(transport)
        else:
            problem = problems.unavailable("Too many connections are open.")
            _answer_and_close(cast(asyncio.Transport, transport), problem)

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self._accepted:
            return
        self._accepted = False
        self._connections.remove()
        _stop(self._head_timer)
        _stop(self._send_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._accepted:
            return
        super().data_received(data)
        if self._messages:
            _, self._last_body = self._messages[-1]
        if not self._awaits_head():
            _stop(self._head_timer)
            self._head_timer = None
        elif self._head_timer is None:
            self._head_timer = self._after(self._connections.settings.head_timeout_ms, self._head_is_late)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's own, which aiohttp narrows to None
        """The client has closed its side. True: keep ours open, since a complete request is still to be answered."""
        answers = self._last_body is not None and self._last_body.is_eof() and not self._awaits_head()
        # Over TLS asyncio closes both sides whatever is returned, and warns of True.
        self._half_closed = self._accepted and answers and self.ssl_context is None
        return self._half_closed

    # --- as aiohttp calls it

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer. True: the client is gone, or does not take it."""
        _stop(self._send_timer)
        # The timer runs on past this call: the transport sends what it still holds by itself, and a client that never reads
        # would keep it for good, since closing waits for it as well.
        self._send_timer = self._after(self._connections.settings.send_timeout_ms, self._answer_is_late)
        if not resp.prepared:
            # An answer from outside of the application has no other place to be told so: caches may keep a 414 or a 501,
            # and aiohttp would name its version and Python's. The application takes the name off.
            resp.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
            resp.headers.setdefault(hdrs.SERVER, "clockwork")
        finished = await super().finish_response(request, resp, start_time)
        if self._half_closed and not self._messages:
            self.close()
        return finished

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already; another one cannot follow it")
        if status < 500:
            response = problem_response(problems.of_http(_status_of_bad_head(exc) or HTTPStatus(status)))
        else:
            response = problem_response(
                problem_of(exc if isinstance(exc, Exception) else RuntimeError(f"status {status}"))
            )
        response.force_close()
        return response

    # --- limits

    def _awaits_head(self) -> bool:
        """True while the connection waits for a request's head to be complete: aiohttp's future is there and not done."""
        return self._waiter is not None and not self._waiter.done()

    def _after(self, wait_ms: int, act: Any) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(wait_ms / 1_000, act)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport is not None:
            self._connections.telemetry.limited("slow_requests")
            _answer_and_close(self.transport, problems.of_http(HTTPStatus.REQUEST_TIMEOUT))

    def _answer_is_late(self) -> None:
        transport = self.transport
        if transport is not None and transport.get_write_buffer_size() > 0:
            self._connections.telemetry.limited("slow_requests")
            transport.abort()


async def _before_routing(handle: Any, request: web.BaseRequest) -> web.StreamResponse:
    """Refuse a framing that is not understood, and an expectation that cannot be met.

    aiohttp reads the chunks of `gzip, chunked` as if gzip were not there. It answers an unknown expectation in plain text,
    and one that is not UTF-8 with 500.
    """
    if (status := _status_of_framing(request)) is not None:
        response = problem_response(problems.of_http(status))
        response.force_close()
        return response
    if request.headers.get(hdrs.EXPECT, _CONTINUE).lower() != _CONTINUE:
        return problem_response(problems.of_http(HTTPStatus.EXPECTATION_FAILED))
    answer: web.StreamResponse = await handle(request)
    return answer


def _status_of_framing(request: web.BaseRequest) -> HTTPStatus | None:
    """The status for a `Transfer-Encoding` other than chunked (RFC 9112, 6.1); None for one that is understood."""
    value = request.headers.get(hdrs.TRANSFER_ENCODING)
    if value is None:
        return None
    codings = [coding.strip(" \t").lower() for coding in value.split(",")]
    if request.version < HttpVersion11 or codings.count(_CHUNKED) > 1:
        return HTTPStatus.BAD_REQUEST
    return None if codings == [_CHUNKED] else HTTPStatus.NOT_IMPLEMENTED


def _status_of_bad_head(error: BaseException | None) -> HTTPStatus | None:
    """The status for a head over a limit; None for any other error."""
    match error:
        case LineTooLong(args=(_, limit, *_)) if limit == TARGET_BYTES_MAX:
            return HTTPStatus.REQUEST_URI_TOO_LONG
        case LineTooLong():
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        case BadHttpMessage(message="Too many headers received"):
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        case _:
            return None


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _answer_and_close(transport: asyncio.Transport, problem: Problem) -> None:
    """Answer where there is no request that could be answered."""
    response = problem_response(problem)
    body = response.body if isinstance(response.body, bytes) else b""
    headers = {
        hdrs.CONTENT_TYPE: problems.MEDIA_TYPE,
        hdrs.CONTENT_LENGTH: str(len(body)),
        hdrs.CONNECTION: "close",
        hdrs.CACHE_CONTROL: "no-store",
        **problem.headers,
    }
    lines = [f"HTTP/1.1 {problem.status.value} {problem.status.phrase}", *(f"{n}: {v}" for n, v in headers.items())]
    transport.write("\r\n".join([*lines, "", ""]).encode("ascii") + body)
    transport.close()
