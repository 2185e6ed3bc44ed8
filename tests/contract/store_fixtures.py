"""The stores that a contract is run on, and faults between the client library and DynamoDB."""

import json
import uuid
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final

import pytest
from aiobotocore.awsrequest import AioAWSResponse
from botocore.exceptions import ReadTimeoutError

from clockwork.adapters.dynamo_client import DynamoClientSettings
from clockwork.adapters.dynamo_store import DynamoScheduleStore
from clockwork.adapters.dynamo_tables import create_tables, init_cluster
from clockwork.adapters.memory_store import MemoryScheduleStore
from clockwork.adapters.telemetry import NoTelemetry
from clockwork.clock import ClockGuard, SystemClock
from clockwork.ports import ScheduleStore

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


class _Body:
    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self) -> bytes:
        return self._body


class Faults:
    """Stands where the library hands a request to the network, so that the library's own repeats are run too.

    Operations are named as DynamoDB names them (`UpdateItem`). Each fault is for the next copy of a request; several
    wait in line. `sent` counts the copies.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        self._line: dict[str, list[Callable[[Any], Any]]] = {}
        self.sent: dict[str, int] = {}
        library.meta.events.register("before-send.dynamodb", self._before_send)

    def lose_answer(self, operation: str, times: int = 1) -> None:
        """DynamoDB does it, and nobody hears of it."""
        self._add(operation, self._send_and_forget, times)

    def lose_request(self, operation: str, times: int = 1) -> None:
        """Nothing arrives, and nobody can know that."""
        self._add(operation, _time_out, times)

    def answer(self, operation: str, code: str, *, status: int = 400, times: int = 1, **more: object) -> None:
        """DynamoDB is not asked; this error is the answer."""
        self._add(operation, lambda request: _error(request, code, status, more), times)

    def answer_ok(self, operation: str, body: str) -> None:
        """DynamoDB is not asked; this is the answer."""
        self._add(operation, lambda request: _response(request, 200, body), 1)

    def _add(self, operation: str, fault: Callable[[Any], Any], times: int) -> None:
        self._line.setdefault(operation, []).extend([fault] * times)

    async def _before_send(self, request: Any, event_name: str, **_: object) -> Any:
        operation = event_name.rpartition(".")[2]
        self.sent[operation] = self.sent.get(operation, 0) + 1
        waiting = self._line.get(operation)
        if not waiting:
            return None
        answer = waiting.pop(0)(request)
        return await answer if hasattr(answer, "__await__") else answer

    async def _send_and_forget(self, request: Any) -> None:
        await self._library._endpoint.http_session.send(request)
        _time_out(request)


def _time_out(request: Any) -> None:
    raise ReadTimeoutError(endpoint_url=request.url)


def _error(request: Any, code: str, status: int, more: dict[str, object]) -> AioAWSResponse:
    body = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "made up", **more}
    return _response(request, status, json.dumps(body))


def _response(request: Any, status: int, body: str) -> AioAWSResponse:
    headers: Any = {"content-type": "application/x-amz-json-1.0"}
    return AioAWSResponse(request.url, status, headers, _Body(body.encode()))


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
    """What happens between `dynamo_store` and DynamoDB."""
    return Faults(dynamo_store.client.library)


@pytest.fixture(params=["memory", pytest.param("dynamo", marks=pytest.mark.real)])
def store(request: pytest.FixtureRequest) -> ScheduleStore:
    """Each store in turn, with `SHARDS` shards and nothing in it."""
    if request.param == "memory":
        return MemoryScheduleStore(shards=SHARDS)
    made: ScheduleStore = request.getfixturevalue("dynamo_store")
    return made
