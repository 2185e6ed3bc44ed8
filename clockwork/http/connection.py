"""One client's connection, and what it may take of the node's time and places.

    connecting        refused with 503 while `connections_max` are open: better a clear answer than no file for Kafka
    head              `head_timeout_ms` from its first byte to its last (408); at most `HEADERS_MAX` of `LINE_BYTES_MAX`
    body              `handlers.BODY_SECONDS_MAX` and `CLOCKWORK_BODY_BYTES_MAX`, where bodies are read
    answer            `send_timeout_ms` until the client has taken it; then the connection is cut
    between requests  `KEEPALIVE_SECONDS`

aiohttp bounds sizes, and idle connections; a head that trickles in and an answer that nobody reads are bounded here.
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final, cast

from aiohttp import hdrs, web

from clockwork.http.responses import problem_of, problem_response
from clockwork.ports.telemetry import Telemetry
from clockwork.schema import problems
from clockwork.schema.problems import Problem
from clockwork.settings.model import ConnectionSettings

KEEPALIVE_SECONDS: Final = 75.0
"""How long an idle connection is kept; longer than the 60 s of common load balancers, so that they close first."""
LINE_BYTES_MAX: Final = 8_190
"""Of the request's line and of each header: what common proxies let through."""
HEADERS_MAX: Final = 100
_CONTINUE: Final = "100-continue"
LINGER_SECONDS: Final = 1.0
"""For which a refused body is read on and thrown away, so that the client sees the refusal and not a reset."""


@dataclass(kw_only=True, slots=True)
class Places:
    """How many connections are open, and may be."""

    settings: ConnectionSettings
    telemetry: Telemetry
    taken: int = 0

    def take(self) -> bool:
        """False: there is none left."""
        if self.taken >= self.settings.connections_max:
            self.telemetry.limited("connections")
            return False
        self.taken += 1
        self.telemetry.connections(self.taken)
        return True

    def leave(self) -> None:
        self.taken -= 1
        self.telemetry.connections(self.taken)


class Connection(web.RequestHandler):
    """aiohttp's, with the bounds above. It answers in plain text what it refuses before there is a request (a malformed
    request line or header) and what fails outside of every handler; here these are problem documents as well."""

    __slots__ = ("_has_place", "_head_timer", "_places", "_send_timer")

    def __init__(self, manager: web.Server, places: Places) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # how aiohttp spells "none"
            keepalive_timeout=KEEPALIVE_SECONDS,
            # Bodies are never decompressed: a compressed one is refused, and a bomb would go off in the reading.
            auto_decompress=False,
            max_line_size=LINE_BYTES_MAX,
            max_field_size=LINE_BYTES_MAX,
            max_headers=HEADERS_MAX,
            lingering_time=LINGER_SECONDS,
        )
        self._request_handler = partial(_unless_expected, manager.request_handler)
        self._places = places
        self._has_place = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None

    # --- as the transport calls it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._has_place = self._places.take()
        if self._has_place:
            super().connection_made(transport)
        else:
            problem = problems.unavailable("Too many connections are open.")
            _answer_and_close(cast(asyncio.Transport, transport), problem)

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self._has_place:
            return
        self._has_place = False
        self._places.leave()
        _stop(self._head_timer)
        _stop(self._send_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._has_place:
            return
        super().data_received(data)
        # Its future is there, and not done, while the connection waits for a request's head to be complete.
        if self._waiter is None or self._waiter.done():
            _stop(self._head_timer)
            self._head_timer = None
        elif self._head_timer is None:
            self._head_timer = self._after(self._places.settings.head_timeout_ms, self._head_is_late)

    # --- as aiohttp calls it

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Sends the answer. True: the client is gone, or does not take it."""
        _stop(self._send_timer)
        # It runs on past this call: what the transport still holds is sent beside, and a client that never reads would
        # keep it for good, since closing waits for it as well.
        self._send_timer = self._after(self._places.settings.send_timeout_ms, self._answer_is_late)
        return await super().finish_response(request, resp, start_time)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already; another one cannot follow it")
        if status < 500:
            response = problem_response(problems.of_http(HTTPStatus(status)))
        else:
            response = problem_response(
                problem_of(exc if isinstance(exc, Exception) else RuntimeError(f"status {status}"))
            )
        response.force_close()
        return response

    # --- bounds

    def _after(self, wait_ms: int, act: Any) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(wait_ms / 1_000, act)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport is not None:
            self._places.telemetry.limited("slow_requests")
            _answer_and_close(self.transport, problems.of_http(HTTPStatus.REQUEST_TIMEOUT))

    def _answer_is_late(self) -> None:
        transport = self.transport
        if transport is not None and transport.get_write_buffer_size() > 0:
            self._places.telemetry.limited("slow_requests")
            transport.abort()


async def _unless_expected(handle: Any, request: web.BaseRequest) -> web.StreamResponse:
    """Before aiohttp looks at `Expect`: what it cannot meet it answers in plain text, and what is not UTF-8 with 500."""
    if request.headers.get(hdrs.EXPECT, _CONTINUE).lower() != _CONTINUE:
        return problem_response(problems.of_http(HTTPStatus.EXPECTATION_FAILED))
    answer: web.StreamResponse = await handle(request)
    return answer


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _answer_and_close(transport: asyncio.Transport, problem: Problem) -> None:
    """Answers where there is no request that could be answered."""
    response = problem_response(problem)
    body = response.body if isinstance(response.body, bytes) else b""
    headers = {
        hdrs.CONTENT_TYPE: problems.MEDIA_TYPE,
        hdrs.CONTENT_LENGTH: str(len(body)),
        hdrs.CONNECTION: "close",
        **problem.headers,
    }
    lines = [f"HTTP/1.1 {problem.status.value} {problem.status.phrase}", *(f"{n}: {v}" for n, v in headers.items())]
    transport.write("\r\n".join([*lines, "", ""]).encode("ascii") + body)
    transport.close()
