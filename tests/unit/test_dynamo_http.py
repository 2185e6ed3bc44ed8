"""Connections to DynamoDB, against servers that answer byte by byte as a test says: real sockets, no HTTP library."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import pytest
import trustme
from yarl import URL

from clockwork.stores.dynamodb.errors import MalformedResponse, NotConnected
from clockwork.stores.dynamodb.wire import DirectWire, HttpAnswer, ProxiedWire, WireLimits
from infra.local.ports import free_port

LIMITS: Final = WireLimits(connect_timeout_s=60, read_timeout_s=60, connections_max=4)
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

Conversation = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Plays the server on one connection, the `int`-th."""


@asynccontextmanager
async def served(play: Conversation, limits: WireLimits = LIMITS) -> AsyncIterator[DirectWire]:
    connections = 0

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            await play(connections, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has closed it
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, DirectWire(URL(f"http://127.0.0.1:{port}/"), "db.example", limits, None) as wire:
        yield wire


async def request_from(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of the next request."""
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head, await reader.readexactly(int(length.partition(b":")[2]))


def answering(*answers: bytes) -> Conversation:
    """One answer after the other on each connection, which is closed behind the last."""

    async def play(_number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await request_from(reader)
            writer.write(answer)
            await writer.drain()

    return play


def naming_the_connection(*, close: bytes = b"") -> Conversation:
    """Answers each request with the number of its connection; `close` is a header."""

    async def play(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_from(reader)
            writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: 1\r\n\r\n%d" % (close, number))

    return play


async def test_a_request_has_its_headers_its_length_and_its_body() -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def play(_number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await request_from(reader))
        writer.write(OK)

    async with served(play) as wire:
        assert await wire.post({"X-Amz-Target": "t"}, b"{1}") == HttpAnswer(200, {"content-length": "2"}, b"{}")

    ((head, body),) = seen
    first, *lines = head.split(b"\r\n")
    assert first == b"POST / HTTP/1.1"
    assert {b"Host: db.example", b"X-Amz-Target: t", b"Content-Length: 3", b"Accept-Encoding: identity"} <= {*lines}
    assert body == b"{1}"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=1\r\nwxyz\r\n1\r\n!\r\n0\r\n\r\n", b"wxyz!"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nTrailer: t\r\n\r\n", b"a"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"{}"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
    ],
)
async def test_an_answer_is_read_in_each_form_that_http_has_however_it_is_cut(answer: bytes, body: bytes) -> None:
    async def byte_by_byte(_number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_from(reader)
        for n in range(len(answer)):
            writer.write(answer[n : n + 1])
            await asyncio.sleep(0)

    async with served(byte_by_byte) as wire:
        assert (await wire.post({}, b"")).body == body
    async with served(answering(answer)) as wire:
        assert (await wire.post({}, b"")).body == body


async def test_requests_one_after_the_other_share_a_connection() -> None:
    async with served(naming_the_connection()) as wire:
        assert [(await wire.post({}, b"")).body for _ in range(3)] == [b"1", b"1", b"1"]


async def test_requests_at_the_same_time_have_connections_of_their_own_up_to_the_bound() -> None:
    async with served(naming_the_connection()) as wire:
        answers = await asyncio.gather(*(wire.post({}, b"") for _ in range(9)))
    assert {answer.body for answer in answers} == {b"1", b"2", b"3", b"4"}


@pytest.mark.parametrize("last", [b"Connection: close\r\n", b"connection: Close\r\n"])
async def test_a_connection_that_the_server_will_close_is_not_used_again(last: bytes) -> None:
    async with served(naming_the_connection(close=last)) as wire:
        assert [(await wire.post({}, b"")).body for _ in range(2)] == [b"1", b"2"]


async def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clockwork.stores.dynamodb.wire.KEEP_ALIVE_S", -1.0)
    async with served(naming_the_connection()) as wire:
        assert [(await wire.post({}, b"")).body for _ in range(2)] == [b"1", b"2"]


async def test_bytes_behind_an_answer_are_not_taken_for_the_next_one() -> None:
    stray = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray"

    async def play(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_from(reader)
        writer.write(OK + (stray if number == 1 else b""))

    async with served(play) as wire:
        assert [(await wire.post({}, b"")).body for _ in range(2)] == [b"{}", b"{}"]


async def test_the_late_answer_to_a_cancelled_request_is_not_taken_for_the_next_one() -> None:
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def play(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_from(reader)
        if number == 1:
            asked.set()
            await cancelled.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
        await reader.read()

    async with served(play) as wire:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(wire.post({}, b""), name="first")
            await asked.wait()
            first.cancel()
        cancelled.set()
        assert (await wire.post({}, b"")).body == b"2"


async def test_the_end_of_the_connection_before_the_answer_is_complete_is_an_error_of_a_request_that_was_sent() -> None:
    async with served(answering(OK[:-1])) as wire:
        with pytest.raises(ConnectionResetError):
            await wire.post({}, b"")


async def test_silence_ends_a_request() -> None:
    async def silent(_number: int, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with served(silent, LIMITS._replace(read_timeout_s=0.05)) as wire:
        with pytest.raises(TimeoutError):
            await wire.post({}, b"")


async def test_silence_is_counted_anew_for_each_request_of_a_connection() -> None:
    async def silent_at_last(_number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_from(reader)
        writer.write(OK)
        await reader.read()

    async with served(silent_at_last, LIMITS._replace(read_timeout_s=0.05)) as wire:
        await wire.post({}, b"")
        with pytest.raises(TimeoutError):
            await wire.post({}, b"")


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 fine\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnumber\r\n",
        b"x" * (64 * 1024 + 1),
    ],
)
async def test_an_answer_that_is_not_http_is_a_malformed_one(answer: bytes) -> None:
    async with served(answering(answer)) as wire:
        with pytest.raises(MalformedResponse):
            await wire.post({}, b"")


async def test_without_a_connection_nothing_was_sent() -> None:
    async with DirectWire(URL(f"http://127.0.0.1:{free_port()}/"), "db.example", LIMITS, None) as wire:
        with pytest.raises(NotConnected):
            await wire.post({}, b"")


async def test_a_caller_that_gives_up_as_the_connection_is_made_leaves_no_socket_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A host of two addresses, as "localhost" is: both are tried by tasks of their own, and the cancellation reaches
    # the caller in the turn of the loop in which one of them has connected.
    loop = asyncio.get_running_loop()
    connect = loop.sock_connect
    opened: list[socket.socket] = []

    async def addresses(_: str, port: int, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port)) for host in ("127.0.0.1", "127.0.0.2")]

    async def connected(sock: socket.socket, address: tuple[str, int]) -> None:
        await connect(sock, address)
        opened.append(sock)
        call.cancel()

    async with served(answering(OK)) as wire:
        monkeypatch.setattr(loop, "getaddrinfo", addresses)
        monkeypatch.setattr(loop, "sock_connect", connected)
        call = loop.create_task(wire.post({}, b""))
        with pytest.raises(asyncio.CancelledError):
            await call
        assert [sock.fileno() for sock in opened] == [-1]


async def test_over_tls_the_server_must_have_a_certificate_of_a_known_authority() -> None:
    authority, host = trustme.CA(), "localhost"
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(host).configure_cert(ours)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_from(reader)
        writer.write(OK)
        writer.close()

    server = await asyncio.start_server(play, "127.0.0.1", 0, ssl=ours)
    url = URL(f"https://{host}:{server.sockets[0].getsockname()[1]}/")
    async with server, DirectWire(url, host, LIMITS, trusting) as wire:
        assert (await wire.post({}, b"")).body == b"{}"
        async with DirectWire(url, host, LIMITS, ssl.create_default_context()) as distrusting:
            with pytest.raises(NotConnected, match="CERTIFICATE_VERIFY_FAILED"):
                await distrusting.post({}, b"")


async def test_a_proxy_is_asked_for_the_endpoint_by_its_whole_address() -> None:
    seen: list[bytes] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _ = await request_from(reader)
        seen.append(head.split(b"\r\n")[0])
        writer.write(OK)
        writer.close()

    server = await asyncio.start_server(play, "127.0.0.1", 0)
    proxy = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, ProxiedWire(URL("http://db.example/"), proxy, LIMITS, None) as wire:
        assert (await wire.post({}, b"{}")).body == b"{}"
    assert seen == [b"POST http://db.example/ HTTP/1.1"]
