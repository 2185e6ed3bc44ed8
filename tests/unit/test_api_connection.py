"""Raw sockets against the real server: what one connection may take of the node's time and places."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from clockwork.http.connection import HEADER_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX, Connection
from clockwork.settings.model import ConnectionSettings
from tests.support.waiting import until
from tests.unit.api_edge import Edge, a_request, open_edge

WAIT_S = 60.0
"""Ends a test that hangs; none takes this long."""
GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"


@asynccontextmanager
async def connected(edge: Edge) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
    try:
        async with asyncio.timeout(WAIT_S):
            yield reader, writer
    finally:
        writer.close()


class Timers:
    """Time for heads and answers, which is up when the test says so and not before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._running: list[tuple[asyncio.TimerHandle, Callable[[], None]]] = []
        monkeypatch.setattr(Connection, "_after", self._after)

    def _after(self, _wait_ms: int, act: Callable[[], None]) -> asyncio.TimerHandle:
        timer = asyncio.get_running_loop().call_later(3_600, act)
        self._running.append((timer, act))
        return timer

    async def until_one_runs(self) -> None:
        async def look() -> bool:
            return any(not timer.cancelled() for timer, _ in self._running)

        await until(look, "a timer")

    def end(self) -> None:
        """Time is up, for all that runs."""
        running, self._running = self._running, []
        for timer, act in running:
            if not timer.cancelled():
                timer.cancel()
                act()


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    return Timers(monkeypatch)


@pytest.mark.parametrize("begun", [b"G", GET, GET + b"X-Slow: 1", b"\r\n"])
async def test_a_head_that_does_not_end_is_a_408_and_the_end_of_its_connection(begun: bytes) -> None:
    async with (
        open_edge(connections=ConnectionSettings(head_timeout_ms=50)) as edge,
        connected(edge) as (reader, writer),
    ):
        writer.write(begun)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert b"\r\nContent-Type: application/problem+json\r\n" in answer
        await edge.shows('clockwork_limited_total{limit="slow_requests"} 1.0')


async def test_bytes_that_trickle_in_do_not_lengthen_the_time_for_a_head() -> None:
    async with (
        open_edge(connections=ConnectionSettings(head_timeout_ms=100)) as edge,
        connected(edge) as (reader, writer),
    ):
        writer.write(GET)

        async def trickle() -> None:
            while True:
                writer.write(b"X: y\r\n")
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            trickling = group.create_task(trickle())
            answer = await reader.read(64)
            trickling.cancel()
        assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_second_request_has_the_time_of_a_first_and_the_pause_before_it_costs_none(timers: Timers) -> None:
    async with open_edge() as edge, connected(edge) as (reader, writer):
        for _ in range(3):
            for part in (GET[:7], GET[7:]):
                writer.write(part)
                await timers.until_one_runs()
            writer.write(b"\r\n")
            assert (await reader.readuntil(b'"alive"}')).startswith(b"HTTP/1.1 200 ")
            # It rests; whatever time it had been given is up.
            timers.end()
        assert not reader.at_eof()
        writer.write(GET)
        await timers.until_one_runs()
        timers.end()
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")


async def test_an_answer_that_nobody_reads_ends_its_connection() -> None:
    async with open_edge(connections=ConnectionSettings(send_timeout_ms=100)) as edge:
        # 200 KiB in each answer; the client's buffers are small, and it never reads.
        await edge.post(a_request(taskData="x" * 200_000), headers={"Connection": "close"})
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", edge.server.port))
            await loop.sock_sendall(client, b"GET /schedule/shop/order-1 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 40)
            await edge.shows('clockwork_limited_total{limit="slow_requests"} 1.0')
            # Cut, not closed: closing would wait for the client.
            await edge.shows("clockwork_http_connections 0.0")


async def test_an_answer_that_is_read_keeps_its_connection(timers: Timers) -> None:
    async with open_edge() as edge, connected(edge) as (reader, writer):
        await edge.post(a_request(taskData="x" * 200_000))
        for _ in range(3):
            writer.write(b"GET /schedule/shop/order-1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
            await reader.readexactly(int(length.split(b":")[1]))
            timers.end()
        assert not reader.at_eof()


async def test_past_the_last_place_a_connection_gets_a_503_and_those_that_are_open_go_on() -> None:
    async with open_edge(connections=ConnectionSettings(connections_max=2)) as edge:
        async with connected(edge) as (reader, writer), connected(edge) as (other_reader, other_writer):
            # Both have their places once both are answered.
            for each in (writer, other_writer):
                each.write(GET + b"\r\n")
            await reader.readuntil(b'"alive"}')
            await other_reader.readuntil(b'"alive"}')
            async with connected(edge) as (refused_reader, _):
                answer = await refused_reader.read()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: 1\r\n" in answer
            await edge.shows('clockwork_limited_total{limit="connections"} 1.0')
            writer.write(GET + b"\r\n")
            assert (await reader.readuntil(b'"alive"}')).startswith(b"HTTP/1.1 200 ")
        await edge.shows("clockwork_http_connections 0.0")
        assert (await edge.ask("GET", "/livez")).status == 200


CLOSE = b"Connection: close\r\n"


async def answer_to(edge: Edge, sent: bytes, *, half_close: bool = False) -> bytes:
    """The server's answer to these bytes, until it closes. `half_close`: the client closes its side after them."""
    async with connected(edge) as (reader, writer):
        writer.write(sent)
        if half_close:
            writer.write_eof()
        return await reader.read()


def is_problem(answer: bytes, status: int) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    return (
        head.startswith((b"HTTP/1.1 %d " % status, b"HTTP/1.0 %d " % status))
        and b"\r\nContent-Type: application/problem+json" in head
        and b"\r\nCache-Control: no-store" in head
        and b"aiohttp" not in head
        and json.loads(body)["status"] == status
    )


@pytest.mark.parametrize(
    ("headers", "fits"),
    [
        (b"".join(b"X-%d: 1\r\n" % n for n in range(HEADERS_MAX - 10)), True),
        (b"".join(b"X-%d: 1\r\n" % n for n in range(HEADERS_MAX + 1)), False),
        (b"X: " + b"x" * (HEADER_BYTES_MAX - 1) + b"\r\n", True),
        (b"X: " + b"x" * (HEADER_BYTES_MAX + 1) + b"\r\n", False),
        (b"X: " + b"x" * 20_000 + b"\r\n", False),
        (b"X" * (HEADER_BYTES_MAX + 1) + b": x\r\n", False),
    ],
    ids=["headers", "too many headers", "long", "too long", "far too long", "name too long"],
)
async def test_a_head_over_the_limit_is_a_431(headers: bytes, fits: bool) -> None:
    async with open_edge() as edge:
        answer = await answer_to(edge, GET + CLOSE + headers + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ") if fits else is_problem(answer, 431)


@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE"])
async def test_a_target_over_the_limit_is_a_414(method: bytes) -> None:
    async with open_edge() as edge:
        for extra, status in ((0, 404), (1, 414), (1_000, 414), (20_000, 414)):
            for target in (b"/x/", b"/x?a="):
                sent = target + b"y" * (TARGET_BYTES_MAX - len(target) + extra)
                head = method + b" " + sent + b" HTTP/1.1\r\nHost: localhost\r\n" + CLOSE + b"\r\n"
                assert is_problem(await answer_to(edge, head), status), (target, extra)


CREATE = json.dumps(a_request()).encode()
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(CREATE), CREATE)


@pytest.mark.parametrize(
    ("coding", "statuses"),
    [
        (b"chunked", {201}),
        (b"Chunked", {201}),
        (b"gzip, chunked", {501}),
        (b"GZIP ,chunked", {501}),
        (b"x,chunked", {501}),
        (b"identity, chunked", {501}),
        (b"chunked, chunked", {400}),
        (b"gzip\r\nTransfer-Encoding: chunked", {400, 501}),
        (b"chunked, gzip", {400}),
        (b"gzip", {400}),
        (b"\xff, chunked", {400, 501}),
    ],
)
async def test_a_transfer_coding_that_is_not_understood_is_refused_and_nothing_is_created(
    coding: bytes, statuses: set[int]
) -> None:
    head = b"POST /schedule HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + CLOSE
    async with open_edge() as edge:
        answer = await answer_to(edge, head + b"Transfer-Encoding: " + coding + b"\r\n\r\n" + CHUNKED)
        assert int(answer.split()[1]) in statuses
        assert len(edge.engine.store.rows) == (statuses == {201})
        assert b"application/json" in answer or b"application/problem+json" in answer


async def test_chunks_in_http_1_0_are_refused() -> None:
    head = b"POST /schedule HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    async with open_edge() as edge:
        answer = await answer_to(edge, head + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED)
        assert answer.split()[1] == b"400"
        assert edge.engine.store.rows == {}


POST = b"POST /schedule HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
WHOLE = POST + b"Content-Length: %d\r\n\r\n%s" % (len(CREATE), CREATE)


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (WHOLE, [b"201"]),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED, [b"201"]),
        (GET + b"\r\n", [b"200"]),
        (WHOLE + WHOLE + GET + b"\r\n", [b"201", b"200", b"200"]),
        (WHOLE + b"GET /livez HT", [b"201"]),
        ((GET + b"\r\n") * 40, [b"200"] * 40),
        (b"nonsense\r\n\r\n", [b"400"]),
    ],
    ids=["body", "chunks", "no body", "several", "half of the next", "many", "no HTTP"],
)
async def test_a_client_that_closes_its_side_behind_its_request_gets_the_answer(
    sent: bytes, statuses: list[bytes]
) -> None:
    async with open_edge() as edge:
        answer = await answer_to(edge, sent, half_close=True)
        assert re.findall(rb"^HTTP/1\.\d (\d+) ", answer.replace(b"}HTTP", b"}\nHTTP"), re.MULTILINE) == statuses
        await edge.shows("clockwork_http_connections 0.0")


@pytest.mark.parametrize("sent", [b"", b"GET /li", GET, POST + b"Content-Length: 9\r\n\r\n{", WHOLE[:-1]])
async def test_a_client_that_closes_its_side_within_its_request_ends_the_connection(sent: bytes) -> None:
    async with open_edge() as edge:
        assert await answer_to(edge, sent, half_close=True) == b""
        await edge.shows("clockwork_http_connections 0.0")
        assert edge.engine.store.rows == {}


async def test_a_client_that_closes_its_side_of_an_idle_connection_ends_it() -> None:
    async with open_edge() as edge, connected(edge) as (reader, writer):
        writer.write(GET + b"\r\n")
        await reader.readuntil(b'"alive"}')
        writer.write_eof()
        assert await reader.read() == b""


async def test_a_body_that_trickles_in_is_a_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clockwork.http.body.BODY_SECONDS_MAX", 0.05)
    async with open_edge() as edge, connected(edge) as (reader, writer):
        writer.write(
            b"POST /schedule HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
    assert edge.keys() == []


async def test_an_expectation_that_nobody_can_meet_is_a_417_with_a_problem_document() -> None:
    # The server answers it before any handler, and by itself in plain text.
    async with open_edge() as edge:
        answer = await edge.ask("GET", "/livez", headers={"Expect": "a miracle"})
        assert answer.status == 417
