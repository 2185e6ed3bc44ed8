"""The stores that a contract is run on, and faults between the store and DynamoDB.

One set of tables serves all tests of a session: it is emptied before each. One transport serves all clients, since to open
one costs a quarter of a second.
"""

import asyncio
import json
import os
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest
from aiohttp import SocketTimeoutError
from pydantic import SecretStr

from clockwork.clock import ClockGuard, SystemClock
from clockwork.domain.ownership import IncarnationId, ShardState, incarnation_id, process_id
from clockwork.domain.sharding import ShardId
from clockwork.ports.jobs import JobStore
from clockwork.ports.operations import PauseStore
from clockwork.ports.registry import Registry
from clockwork.ports.store import ObserveServerTime, ScheduleSearch, ScheduleStore, Stores
from clockwork.ports.telemetry import NoTelemetry, Telemetry
from clockwork.settings.model import DynamoSettings, PostgresSettings
from clockwork.stores.dynamodb import codec
from clockwork.stores.dynamodb.attributes import Item
from clockwork.stores.dynamodb.batching import write_all
from clockwork.stores.dynamodb.client import CallLimits, DynamoClient, HttpTransport, Response, Transport
from clockwork.stores.dynamodb.opening import stores_on
from clockwork.stores.dynamodb.schema import create_tables, init_cluster
from clockwork.stores.dynamodb.store import DynamoScheduleStore
from clockwork.stores.memory.running import new_memory_stores
from clockwork.stores.postgres import opening as postgres
from clockwork.stores.postgres.client import CallLimits as PostgresLimits
from clockwork.stores.postgres.client import connect
from clockwork.stores.postgres.schema import RIGHTS, PostgresSchema
from clockwork.stores.postgres.store import PostgresScheduleStore
from tests.support.pgbouncer import PROGRAM_VARIABLE, PgBouncer

if TYPE_CHECKING:
    from infra.local import LocalServices

SHARDS: Final = 4
_EMPTY_AT_FIRST: Final = [table for table in RIGHTS if table not in ("migrations", "cluster", "shards")]
LIMITS: Final = CallLimits(connect_timeout_s=10, read_timeout_s=30)
"""Long, because a busy machine must not fail a test."""


def new_incarnation() -> IncarnationId:
    """An incarnation that no other test has: DynamoDB remembers the tokens of their take-overs, and ids never repeat."""
    return incarnation_id(process_id(random.Random().getrandbits(64)), 1)


def observe_nothing(**_: int) -> None:
    """For tests that are not about the clock."""


def new_tables(endpoint: str) -> DynamoSettings:
    """Names of tables that no other test has."""
    name = uuid.uuid4().hex[:12]
    return DynamoSettings(
        region="us-east-1",
        endpoint=endpoint,
        access_key="local",
        secret_key=SecretStr("local"),
        schedules_table=f"{name}-schedules",
        executions_table=f"{name}-partitionExecutions",
        keys_table=f"{name}-scheduleKeys",
        jobs_table=f"{name}-jobs",
    )


def client_on(transport: Transport, settings: DynamoSettings) -> DynamoClient:
    """A client of these tables that uses an open transport."""
    client = DynamoClient(settings, SystemClock(), observe_nothing, NoTelemetry(), limits=LIMITS)
    client.transport = transport
    return client


def store_on(
    transport: Transport, settings: DynamoSettings, observe: ObserveServerTime = observe_nothing
) -> DynamoScheduleStore:
    """A store on these tables that uses an open transport."""
    store = DynamoScheduleStore(settings, SystemClock(), observe, NoTelemetry(), limits=LIMITS)
    store.client.transport = store.pinger.transport = transport
    return store


Send = Callable[[str, bytes], Awaitable[Response]]


class Faults:
    """Stands where a request goes to the network, so that the client's own repeats are run too.

    Operations are named as DynamoDB names them (`UpdateItem`). Each fault is for the next copy of a request; several
    wait in line. `sent` counts the copies.
    """

    def __init__(self, client: DynamoClient) -> None:
        self._transport = client.transport
        self._line: dict[str, list[Send]] = {}
        self._hot: dict[str, str] = {}
        self.sent: dict[str, int] = {}
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        """The requests, as they were sent."""
        client.transport = self

    def throttle(self, *texts: str, code: str = "ThrottlingError") -> None:
        """DynamoDB does nothing to the items that bear one of these texts as a value, and says so as it does: by the
        reasons of a cancellation, by the leftovers of a batch. `code`: the reason that it gives."""
        self._hot |= {json.dumps(text): code for text in texts}

    def is_throttled(self, part: object) -> bool:
        """True if a request, or a part of one, bears a throttled text."""
        return self._code_of(part) is not None

    def hang(self, operation: str, until: asyncio.Event) -> None:
        """It is sent only then."""

        async def send(operation: str, body: bytes) -> Response:
            await until.wait()
            return await self._pass(operation, body)

        self._line.setdefault(operation, []).append(send)

    def lose_answer(self, operation: str, times: int = 1) -> None:
        """DynamoDB does it, and its answer is lost."""
        self._line.setdefault(operation, []).extend([self._send_and_forget] * times)

    def lose_request(self, operation: str, times: int = 1) -> None:
        """The request is lost, which looks the same to the sender."""
        self._line.setdefault(operation, []).extend([_time_out] * times)

    def pass_on(self, operation: str, times: int = 1) -> None:
        """No fault for these."""
        self._line.setdefault(operation, []).extend([self._pass] * times)

    def answer(self, operation: str, code: str, *, status: int = 400, times: int = 1, **more: object) -> None:
        """DynamoDB is not asked; this error is the answer."""
        self._answer(operation, _error(code, status, **more), times)

    def answer_ok(self, operation: str, body: str) -> None:
        """DynamoDB is not asked; this is the answer."""
        self._answer(operation, Response(200, None, body.encode()), 1)

    def heal(self) -> None:
        """No fault waits any more."""
        self._line.clear()
        self._hot.clear()

    def _answer(self, operation: str, answer: Response, times: int) -> None:
        async def made_up(_operation: str, _body: bytes) -> Response:
            return answer

        self._line.setdefault(operation, []).extend([made_up] * times)

    async def send(self, operation: str, body: bytes) -> Response:
        """See `Transport`."""
        self.sent[operation] = self.sent.get(operation, 0) + 1
        self.bodies.append((operation, json.loads(body)))
        waiting = self._line.get(operation)
        send = waiting.pop(0) if waiting else self._pass
        return await send(operation, body)

    async def _pass(self, operation: str, body: bytes) -> Response:
        if not self._code_of(json.loads(body)):
            return await self._transport.send(operation, body)
        request = json.loads(body)
        match operation:
            case "TransactWriteItems":
                reasons = [{"Code": self._code_of(action) or "None"} for action in request["TransactItems"]]
                return _error("TransactionCanceledException", CancellationReasons=reasons)
            case "BatchWriteItem":
                ((table, writes),) = request["RequestItems"].items()
                hot = [write for write in writes if self._code_of(write)]
                await self._part(operation, {"RequestItems": {table: [w for w in writes if w not in hot]}})
                return _ok({"UnprocessedItems": {table: hot}})
            case "BatchGetItem":
                ((table, wanted),) = request["RequestItems"].items()
                hot = [key for key in wanted["Keys"] if self._code_of(key)]
                keys = [key for key in wanted["Keys"] if key not in hot]
                answer = await self._part(operation, {"RequestItems": {table: wanted | {"Keys": keys}}})
                return _ok({"Responses": {}} | answer | {"UnprocessedKeys": {table: wanted | {"Keys": hot}}})
            case "BatchExecuteStatement":
                statements = request["Statements"]
                cold = [statement for statement in statements if not self._code_of(statement)]
                answered = (await self._part(operation, {"Statements": cold})).get("Responses", [])
                responses = iter(answered)
                told = [
                    {"Error": {"Code": code}} if (code := self._code_of(one)) else next(responses) for one in statements
                ]
                return _ok({"Responses": told})
            case _:
                return _error("ProvisionedThroughputExceededException")

    async def _part(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to what is not throttled of a request, if there is any."""
        parts = request.get("Statements") or [
            part
            for wanted in request.get("RequestItems", {}).values()
            for part in (wanted["Keys"] if isinstance(wanted, dict) else wanted)
        ]
        if not parts:
            return {}
        answer = await self._transport.send(operation, json.dumps(request).encode())
        assert answer.status == 200
        found: dict[str, Any] = json.loads(answer.body)
        return found

    def _code_of(self, part: object) -> str | None:
        """The reason for which this part of a request is not done."""
        spelled = json.dumps(part)
        return next((code for text, code in self._hot.items() if text in spelled), None)

    async def _send_and_forget(self, operation: str, body: bytes) -> Response:
        await self._transport.send(operation, body)
        return await _time_out(operation, body)


def _error(code: str, status: int = 400, **more: object) -> Response:
    body = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "made up", **more}
    return Response(status, None, json.dumps(body).encode())


def _ok(body: dict[str, Any]) -> Response:
    return Response(200, None, json.dumps(body).encode())


async def _time_out(_operation: str, _body: bytes) -> Response:
    raise SocketTimeoutError("made up")


@pytest.fixture(scope="session")
async def transport(services: "LocalServices") -> AsyncIterator[HttpTransport]:
    """An open connection to DynamoDB Local, for any tables."""
    async with HttpTransport(new_tables(services.dynamodb_endpoint), LIMITS) as opened:
        yield opened


@pytest.fixture(scope="session")
async def session_tables(services: "LocalServices", transport: HttpTransport) -> DynamoSettings:
    """The tables of one cluster, for the tests that only put items into them."""
    settings = new_tables(services.dynamodb_endpoint)
    client = client_on(transport, settings)
    await create_tables(client)
    await init_cluster(client, shards=SHARDS)
    return settings


@pytest.fixture
async def dynamo_settings(session_tables: DynamoSettings, transport: HttpTransport) -> DynamoSettings:
    """The tables of a cluster in which nothing has happened yet."""
    await _empty(client_on(transport, session_tables))
    return session_tables


@pytest.fixture
def dynamo_store(dynamo_settings: DynamoSettings, transport: HttpTransport) -> DynamoScheduleStore:
    """The store on the real service."""
    return store_on(transport, dynamo_settings, ClockGuard(SystemClock()).observe)


@pytest.fixture
def faults(dynamo_store: DynamoScheduleStore) -> Faults:
    """Faults between `stores.dynamodb.store` and DynamoDB."""
    return Faults(dynamo_store.client)


POSTGRES_LIMITS: Final = PostgresLimits(
    connect_timeout_s=10, answer_timeout_s=30, statement_timeout_ms=20_000, lock_timeout_ms=10_000
)
"""Long, because a busy machine must not fail a test."""


def new_schema(url: str) -> PostgresSettings:
    """A schema that no other test has."""
    return PostgresSettings(url=SecretStr(url), schema=f"test_{uuid.uuid4().hex[:12]}")


def postgres_store_on(
    settings: PostgresSettings,
    observe: ObserveServerTime = observe_nothing,
    limits: PostgresLimits = POSTGRES_LIMITS,
    telemetry: Telemetry | None = None,
) -> PostgresScheduleStore:
    """A store on this schema, not opened."""
    return PostgresScheduleStore(settings, SystemClock(), observe, telemetry or NoTelemetry(), limits=limits)


@pytest.fixture(scope="session")
async def session_schema(postgres_url: str) -> PostgresSettings:
    """The schema of one cluster, for the tests that only put rows into its tables."""
    settings = new_schema(postgres_url)
    await PostgresSchema(settings, None, shards=SHARDS).init()
    return settings


@pytest.fixture
async def postgres_settings(session_schema: PostgresSettings) -> PostgresSettings:
    """The schema of a cluster in which nothing has happened yet."""
    # TRUNCATE makes a new file of each table and of each index, and takes several times as long for a few rows.
    await execute(
        session_schema,
        *(f"DELETE FROM {table}" for table in _EMPTY_AT_FIRST),
        "UPDATE shards SET epoch = 0, owner = NULL, floor_ms = 0",
    )
    return session_schema


@pytest.fixture
async def postgres_store(postgres_settings: PostgresSettings) -> AsyncIterator[PostgresScheduleStore]:
    """The store on the real service."""
    async with postgres_store_on(postgres_settings, ClockGuard(SystemClock()).observe) as store:
        yield store


@pytest.fixture(scope="session")
async def pooler(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PgBouncer]:
    """PgBouncer in front of the database."""
    folder = tmp_path_factory.mktemp("pgbouncer")
    running = PgBouncer(
        os.environ[PROGRAM_VARIABLE], postgres_url, port=None, home=folder, log_path=folder / "log", scratch=None
    )
    await running.start()
    yield running
    await running.kill()


@pytest.fixture
def pooled_settings(postgres_settings: PostgresSettings, pooler: PgBouncer) -> PostgresSettings:
    """The schema of `postgres_settings`, by the pooler."""
    return replace(postgres_settings, url=SecretStr(pooler.url))


@pytest.fixture
async def pooled_store(pooled_settings: PostgresSettings) -> AsyncIterator[PostgresScheduleStore]:
    """The store on the real service, by the pooler."""
    async with postgres_store_on(pooled_settings, ClockGuard(SystemClock()).observe) as store:
        yield store


async def connected_once(store: PostgresScheduleStore) -> None:
    """Opens the store's one connection. asyncpg asks for each type of array at its first use, in requests of its own: from
    now on a new statement is two requests, its preparation and its execution."""
    types = ("text", "bytea", "int", "bigint", "boolean")
    wanted = ", ".join(f"${number}::{name}[]" for number, name in enumerate(types, 1))
    await store.client.read("types", f"SELECT {wanted}", *([] for _ in types))


async def execute(settings: PostgresSettings, *statements: str) -> list[Any]:
    """Does these statements in a session of its own; returns the rows of the last one."""
    session = {"search_path": settings.schema, "application_name": "test"}
    connection = await connect(settings, None, timeout_s=POSTGRES_LIMITS.connect_timeout_s, session=session)
    try:
        found: list[Any] = []
        for statement in statements:
            found = await connection.fetch(statement)
        return found
    finally:
        await connection.close()


@asynccontextmanager
async def locked(settings: PostgresSettings, statement: str) -> AsyncIterator[None]:
    """A transaction of another session is open, which has done this statement."""
    session = {"search_path": settings.schema, "application_name": "test"}
    connection = await connect(settings, None, timeout_s=POSTGRES_LIMITS.connect_timeout_s, session=session)
    try:
        await connection.execute(f"BEGIN; {statement}")
        yield
    finally:
        await connection.execute("ROLLBACK")
        await connection.close()


@pytest.fixture(
    params=[
        "memory",
        pytest.param("dynamo", marks=pytest.mark.real),
        pytest.param("postgresql", marks=pytest.mark.real),
        *([pytest.param("pgbouncer", marks=pytest.mark.real)] if PROGRAM_VARIABLE in os.environ else []),
    ]
)
def stores(request: pytest.FixtureRequest) -> Stores:
    """Each store in turn, with `SHARDS` shards and nothing in it."""
    if request.param == "dynamo":
        return stores_on(request.getfixturevalue("dynamo_store"), shards=SHARDS)
    if request.param in {"postgresql", "pgbouncer"}:
        name = "postgres_store" if request.param == "postgresql" else "pooled_store"
        store: PostgresScheduleStore = request.getfixturevalue(name)
        return postgres.stores_on(store, store.client.settings, shards=SHARDS)
    clock = SystemClock()
    return new_memory_stores(
        shards=SHARDS, lists=True, clock=clock, observe=ClockGuard(clock).observe, telemetry=NoTelemetry()
    )


@pytest.fixture
def a() -> IncarnationId:
    """An incarnation of this test."""
    return new_incarnation()


@pytest.fixture
def b() -> IncarnationId:
    """Another one."""
    return new_incarnation()


@pytest.fixture
def store(stores: Stores) -> ScheduleStore:
    return stores.schedules


@pytest.fixture
def jobs(stores: Stores) -> JobStore:
    return stores.jobs


@pytest.fixture
def search(stores: Stores) -> ScheduleSearch:
    return stores.search


@pytest.fixture
def pauses(stores: Stores) -> PauseStore:
    return stores.pauses


@pytest.fixture
def registry(stores: Stores) -> Registry:
    return stores.registry


async def _empty(client: DynamoClient) -> None:
    """Deletes every item but those of a new cluster, and sets its shards back."""
    settings = client.settings
    blank = ShardState(epoch=0, owner=None, floor_ms=0)
    kept = [codec.shard_item(ShardId(number), blank) for number in range(SHARDS)] + [codec.cluster_item(SHARDS)]
    for table, names, puts in (
        (settings.schedules_table, ("partitionId", "scheduleTime"), []),
        (settings.keys_table, ("clientKey", "position"), []),
        (settings.jobs_table, ("jobKey", "item"), []),
        (settings.executions_table, ("partitionId",), kept),
    ):
        keys = [{name: item[name] for name in names} for item in puts]
        gone = [key for key in await _all_keys(client, table, names) if key not in keys]
        requests = [{"DeleteRequest": {"Key": key}} for key in gone] + [{"PutRequest": {"Item": item}} for item in puts]
        await write_all(client, table, requests)


async def _all_keys(client: DynamoClient, table: str, names: tuple[str, ...]) -> list[Item]:
    found: list[Item] = []
    more: Item = {}
    while True:
        answer = await client.call("scan", TableName=table, ConsistentRead=True, **more)
        found += [{name: item[name] for name in names} for item in answer["Items"]]
        if "LastEvaluatedKey" not in answer:
            return found
        more = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
