"""The wire to DynamoDB, against a server that plays its part: no Java, but real sockets."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from clockwork.errors import StoreUnavailable
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import DynamoSettings
from clockwork.stores.dynamodb import client
from clockwork.stores.dynamodb.client import CallLimits, DynamoClient, Response, Transport
from tests.support.clocks import ManualClock

NOW_MS: Final = 1_700_000_000_000

Answer = Callable[[web.Request], Awaitable[web.Response]]


class Played:
    """DynamoDB, as far as one test needs it."""

    def __init__(self, endpoint: str, client: DynamoClient, requests: list[web.Request]) -> None:
        self.endpoint = endpoint
        self.client = client
        self.requests = requests


@asynccontextmanager
async def played(
    answer: Answer, *, access_key: str | None = "id", secret_key: str | None = "secret", read_timeout_s: float = 60
) -> AsyncIterator[Played]:
    requests: list[web.Request] = []

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        requests.append(request)
        return await answer(request)

    app = web.Application()
    app.router.add_post("/", handle)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(TestServer(app))
        settings = DynamoSettings(
            region="eu-west-1",
            endpoint=str(server.make_url("/")),
            access_key=access_key,
            secret_key=SecretStr(secret_key) if secret_key is not None else None,
        )
        limits = CallLimits(connect_timeout_s=60, read_timeout_s=read_timeout_s)
        opened = DynamoClient(settings, ManualClock(NOW_MS), lambda **_: None, NoTelemetry(), limits=limits)
        await stack.enter_async_context(opened)
        yield Played(str(settings.endpoint), opened, requests)


class CountingTransport:
    """Counts the copies of requests that go out."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.sent = 0

    async def send(self, operation: str, body: bytes) -> Response:
        """See `Transport`."""
        self.sent += 1
        return await self._transport.send(operation, body)


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No credentials from the machine that the test runs on."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    return monkeypatch


async def _well(_request: web.Request) -> web.Response:
    return web.json_response({"Item": {"a": {"S": "ü"}}})


async def test_a_request_is_what_dynamodb_asks_for() -> None:
    async with played(_well) as dynamodb:
        assert await dynamodb.client.call("get_item", TableName="t") == {"Item": {"a": {"S": "ü"}}}

    (request,) = dynamodb.requests
    assert await request.json() == {"TableName": "t"}
    assert request.headers["X-Amz-Target"] == "DynamoDB_20120810.GetItem"
    assert request.headers["Content-Type"] == "application/x-amz-json-1.0"


async def test_a_request_is_signed_by_the_machines_clock_and_not_by_held_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # Held time is a day ahead, after the machine's clock was set right: DynamoDB refuses signatures that are far off.
    monkeypatch.setattr(client, "system_ms", lambda: NOW_MS - 86_400_000)
    async with played(_well) as dynamodb:
        await dynamodb.client.call("get_item")

    (request,) = dynamodb.requests
    assert request.headers["X-Amz-Date"] == "20231113T221320Z"
    assert "Credential=id/20231113/eu-west-1/dynamodb/aws4_request" in request.headers["Authorization"]


async def test_credentials_come_from_the_usual_chain_with_their_token(no_aws: pytest.MonkeyPatch) -> None:
    no_aws.setenv("AWS_ACCESS_KEY_ID", "from-the-chain")
    no_aws.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    no_aws.setenv("AWS_SESSION_TOKEN", "temporary")
    async with played(_well, access_key=None, secret_key=None) as dynamodb:
        await dynamodb.client.call("get_item")

    (request,) = dynamodb.requests
    assert "Credential=from-the-chain/" in request.headers["Authorization"]
    assert "x-amz-security-token" in request.headers["Authorization"]
    assert request.headers["X-Amz-Security-Token"] == "temporary"


async def test_without_credentials_nothing_is_sent_and_the_reason_is_said(no_aws: pytest.MonkeyPatch) -> None:
    async with played(_well, access_key=None, secret_key=None) as dynamodb:
        with pytest.raises(StoreUnavailable, match="credentials") as caught:
            await dynamodb.client.call("put_item")

    assert not caught.value.outcome_unknown
    assert dynamodb.requests == []


async def test_a_damaged_answer_is_asked_for_again() -> None:
    body = b'{"Item": {}}'
    sums = iter([zlib.crc32(body) ^ 1, zlib.crc32(body)])

    async def damaged_once(_request: web.Request) -> web.Response:
        return web.Response(body=body, headers={"x-amz-crc32": str(next(sums))})

    async with played(damaged_once) as dynamodb:
        assert await dynamodb.client.call("get_item") == {"Item": {}}
    assert len(dynamodb.requests) == 2


async def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_set() -> None:
    async def silent(_request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async with played(silent, read_timeout_s=0.2) as dynamodb:
        # Counted where they are sent: a server that stood still meanwhile need not have seen each of them.
        counted = CountingTransport(dynamodb.client.transport)
        dynamodb.client.transport = counted
        with pytest.raises(StoreUnavailable) as caught:
            await dynamodb.client.call("put_item")

    assert caught.value.outcome_unknown
    assert counted.sent == 3


async def test_a_redirect_is_not_followed_with_our_signature() -> None:
    async def elsewhere(_request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"})

    async with played(elsewhere) as dynamodb:
        with pytest.raises(StoreUnavailable, match="307"):
            await dynamodb.client.call("get_item")
    assert len(dynamodb.requests) == 1
