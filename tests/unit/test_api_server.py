"""The server around the handlers: routes that are not there, the node's own pages, raw connections, starting, stopping."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.errors import CannotStart
from clockwork.http.server import HttpServer, make_app
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import HttpSettings
from tests.support.engine import Engine
from tests.unit.api_edge import Edge, FakeReadiness, open_edge

WAIT_S = 60.0
"""Ends a test that hangs; none takes this long."""


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with open_edge() as opened:
        yield opened


@pytest.mark.parametrize(
    "path", ["/", "/schedules/x", "/schedule/a", "/schedule/a/b/c", "/schedule/a/", "/schedule//b"]
)
async def test_an_unknown_path_is_a_404_problem(edge: Edge, path: str) -> None:
    assert (await edge.ask("GET", path)).status == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/schedule", "DELETE, POST"),
        ("PATCH", "/schedule/a/b", "DELETE, GET, HEAD, PUT"),
        ("GET", "/schedule/a/b/fire", "POST"),
        ("POST", "/livez", "GET, HEAD"),
        ("DELETE", "/metrics", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_a_405_problem_that_says_what_is_allowed(
    edge: Edge, method: str, path: str, allowed: str
) -> None:
    answer = await edge.ask(method, path)
    assert (answer.status, answer.headers["Allow"]) == (405, allowed)


async def test_livez_answers_even_if_nothing_else_works(edge: Edge) -> None:
    edge.readiness.why_not = ["DynamoDB does not answer"]
    assert (await edge.ask("GET", "/livez")).status == 200
    assert (await edge.ask("HEAD", "/livez")).body == b""


async def test_livez_asks_for_a_restart_where_only_that_helps(edge: Edge) -> None:
    edge.readiness.why_restart = "the clock was set back by an hour"
    answer = await edge.ask("GET", "/livez")
    assert (answer.status, answer.json["reasons"]) == (503, ["the clock was set back by an hour"])


async def test_readyz_names_every_reason_and_tells_of_kafka_either_way(edge: Edge) -> None:
    ready = await edge.ask("GET", "/readyz")
    assert (ready.status, ready.json["details"]) == (200, {"kafka": {"connected": True}})
    edge.readiness.why_not = ["DynamoDB does not answer", "the clock is 3 s ahead"]
    unready = await edge.ask("GET", "/readyz")
    assert (unready.status, unready.headers["Retry-After"]) == (503, "1")
    assert unready.json["reasons"] == edge.readiness.why_not
    assert unready.json["details"] == {"kafka": {"connected": True}}


async def test_metrics_are_in_prometheus_text_format(edge: Edge) -> None:
    answer = await edge.ask("GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert b"# TYPE clockwork_requests_total counter" in answer.body


async def raw(edge: Edge, sent: bytes, *, half_close: bool = False) -> bytes:
    """The server's answer to these very bytes, until it closes. `half_close`: and nothing more will be sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
    try:
        writer.write(sent)
        await writer.drain()
        if half_close:
            writer.write_eof()
        return await asyncio.wait_for(reader.read(), WAIT_S)
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "target",
    [
        b"/schedule/a/\xff",
        "/schedule/a/ü".encode(),
        b"/schedule/\xff/b",
        b"/schedule/a/b%",
        b"/schedule/a/%00%ff%",
        b"//schedule//b",
        b"/schedule/a/b?x=%ff&\xfe",
        b"http://localhost/schedule/a/b",
        b"*",
        b"/schedule/a/b#c",
        b"/\xed\xa0\x80",
    ],
)
async def test_no_request_target_is_a_server_error(edge: Edge, target: bytes) -> None:
    answer = await raw(edge, b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.split()[1] in {b"400", b"404"}
    assert b"\r\nContent-Type: application/problem+json\r\n" in answer


HEAD = b"POST /schedule HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "rest",
    [
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"Content-Length: -1\r\n\r\n{}",
        b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"Bad Header\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_a_400_problem(edge: Edge, rest: bytes) -> None:
    answer = await raw(edge, HEAD + rest)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), answer
    assert b"\r\nContent-Type: application/problem+json\r\n" in answer
    assert edge.keys() == []


@pytest.mark.parametrize("rest", [b"Transfer-Encoding: chunked\r\n\r\n5\r\n{", b"Content-Length: 50\r\n\r\n{}"])
async def test_a_client_that_goes_away_in_the_middle_of_its_body_is_no_error_of_ours(
    edge: Edge, rest: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await raw(edge, HEAD + rest, half_close=True)
    # Once this later request is answered, the earlier one has been dealt with.
    assert (await edge.ask("GET", "/livez")).status == 200
    assert [r for r in caplog.records if r.levelname == "ERROR"] == []
    assert edge.keys() == []


async def test_expect_100_continue_is_honoured(edge: Edge) -> None:
    answer = await raw(edge, HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}")
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 ")


class Slow:
    """An engine whose store answers when it is allowed to: nothing is there."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.engine.store.read_pointer = self._read_pointer  # type: ignore[method-assign]

    async def _read_pointer(self, client_id: ClientId, schedule_key: ScheduleKey) -> None:
        self.asked.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def a_server(engine: Engine, **settings: int) -> HttpServer:
    http = HttpSettings(port=0, **settings)  # type: ignore[arg-type]
    return HttpServer(make_app(engine.requests, http, FakeReadiness(), NoTelemetry()), http)


async def _until_closed(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return
        writer.close()


async def test_stopping_refuses_new_connections_and_finishes_what_is_in_flight() -> None:
    slow = Slow()
    server = a_server(slow.engine)
    await server.start()
    port = server.port
    idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", port)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /schedule/a/b HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        await slow.asked.wait()
        stopping = tasks.create_task(server.stop(), name="stop")
        await _until_closed(port)
        assert not stopping.done()
        slow.go_on.set()
        answer = await reader.read()
        await idle_reader.read()
    assert answer.startswith(b"HTTP/1.1 404 ")
    for each in (writer, idle_writer):
        each.close()


async def test_stopping_cancels_what_does_not_finish_in_time() -> None:
    slow = Slow()
    server = a_server(slow.engine, drain_timeout_ms=100)
    await server.start()
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /schedule/a/b HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(WAIT_S):
        await slow.asked.wait()
        await server.stop()
        await slow.cancelled.wait()
    writer.close()


async def test_start_and_stop_may_be_called_in_any_number() -> None:
    server = a_server(Engine())
    await server.stop()
    await server.start()
    port = server.port
    await server.start()
    assert server.port == port
    await server.stop()
    await server.stop()
    with pytest.raises(RuntimeError):
        _ = server.port


async def test_an_address_that_is_taken_stops_the_start_with_the_name_of_the_setting(edge: Edge) -> None:
    http = HttpSettings(port=edge.server.port)
    server = HttpServer(make_app(Engine().requests, http, FakeReadiness(), NoTelemetry()), http)
    with pytest.raises(CannotStart, match="CLOCKWORK_HTTP_PORT"):
        await server.start()
    await server.stop()
