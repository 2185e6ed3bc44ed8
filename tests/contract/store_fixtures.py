"""The stores that a contract is run on, and faults between the store and DynamoDB."""

import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Final

import pytest
from aiohttp import SocketTimeoutError

from clockwork.clock import ClockGuard, SystemClock
from clockwork.ports.store import ScheduleStore
from clockwork.ports.telemetry import NoTelemetry
from clockwork.stores.dynamodb.client import DynamoClient
from clockwork.stores.dynamodb.schema import create_tables, init_cluster
from clockwork.stores.dynamodb.store import DynamoScheduleStore
from clockwork.stores.dynamodb.wire import DynamoClientSettings, WireAnswer
from clockwork.stores.memory.store import MemoryScheduleStore

if TYPE_CHECKING:
    from infra.local import LocalServices

SHARDS: Final = 4


def settings_for(endpoint: str) -> DynamoClientSettings:
    """For tables of one test's own. Time-outs are long, because a busy machine must not fail a test."""
    name = uuid.uuid4().hex[:12]
    return DynamoClientSettings(
        region="us-east-1",
        endpoint=endpoint,
        access_key="local",
        secret_key="local",
        schedules_table=f"{name}-schedules",
        executions_table=f"{name}-partitionExecutions",
        keys_table=f"{name}-scheduleKeys",
        connect_timeout_s=10,
        read_timeout_s=30,
    )


Send = Callable[[str, bytes], Awaitable[WireAnswer]]


class Faults:
    """Stands where a request goes to the network, so that the client's own repeats are run too.

    Operations are named as DynamoDB names them (`UpdateItem`). Each fault is for the next copy of a request; several
    wait in line. `sent` counts the copies.
    """

    def __init__(self, client: DynamoClient) -> None:
        self._wire = client.wire
        self._line: dict[str, list[Send]] = {}
        self.sent: dict[str, int] = {}
        client.wire = self

    def lose_answer(self, operation: str, times: int = 1) -> None:
        """DynamoDB does it, and nobody hears of it."""
        self._line.setdefault(operation, []).extend([self._send_and_forget] * times)

    def lose_request(self, operation: str, times: int = 1) -> None:
        """Nothing arrives, and nobody can know that."""
        self._line.setdefault(operation, []).extend([_time_out] * times)

    def pass_on(self, operation: str, times: int = 1) -> None:
        """No fault for these."""
        self._line.setdefault(operation, []).extend([self._wire.send] * times)

    def answer(self, operation: str, code: str, *, status: int = 400, times: int = 1, **more: object) -> None:
        """DynamoDB is not asked; this error is the answer."""
        body = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "made up", **more}
        self._answer(operation, WireAnswer(status, None, json.dumps(body).encode()), times)

    def answer_ok(self, operation: str, body: str) -> None:
        """DynamoDB is not asked; this is the answer."""
        self._answer(operation, WireAnswer(200, None, body.encode()), 1)

    def heal(self) -> None:
        """No fault waits any more."""
        self._line.clear()

    def _answer(self, operation: str, answer: WireAnswer, times: int) -> None:
        async def made_up(_operation: str, _body: bytes) -> WireAnswer:
            return answer

        self._line.setdefault(operation, []).extend([made_up] * times)

    async def send(self, operation: str, body: bytes) -> WireAnswer:
        """As `Wire` wants it."""
        self.sent[operation] = self.sent.get(operation, 0) + 1
        waiting = self._line.get(operation)
        send = waiting.pop(0) if waiting else self._wire.send
        return await send(operation, body)

    async def _send_and_forget(self, operation: str, body: bytes) -> WireAnswer:
        await self._wire.send(operation, body)
        return await _time_out(operation, body)


async def _time_out(_operation: str, _body: bytes) -> WireAnswer:
    raise SocketTimeoutError("made up")


@pytest.fixture
async def dynamo_settings(services: "LocalServices") -> DynamoClientSettings:
    """Tables of a new cluster of this test's own."""
    settings = settings_for(services.dynamodb_endpoint)
    await create_tables(settings)
    await init_cluster(settings, shards=SHARDS)
    return settings


@pytest.fixture
async def dynamo_store(dynamo_settings: DynamoClientSettings) -> AsyncIterator[DynamoScheduleStore]:
    """The store on the real service."""
    clock = SystemClock()
    guard = ClockGuard(clock)
    async with DynamoScheduleStore(dynamo_settings, clock, guard.observe, NoTelemetry()) as store:
        yield store


@pytest.fixture
def faults(dynamo_store: DynamoScheduleStore) -> Faults:
    """What happens between `stores.dynamodb.store` and DynamoDB."""
    return Faults(dynamo_store.client)


@pytest.fixture(params=["memory", pytest.param("dynamo", marks=pytest.mark.real)])
def store(request: pytest.FixtureRequest) -> ScheduleStore:
    """Each store in turn, with `SHARDS` shards and nothing in it."""
    if request.param == "memory":
        return MemoryScheduleStore(shards=SHARDS)
    made: ScheduleStore = request.getfixturevalue("dynamo_store")
    return made
