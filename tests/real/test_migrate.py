"""`python -m infra.migrate first`: from a table as the first Clockwork left it, over the API of a running node."""

from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr

from clockwork.clock import ClockGuard, SystemClock
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import DynamoSettings
from clockwork.stores.dynamodb.client import DynamoClient
from infra.local.node import store_settings
from tests.support.commands import run_module
from tests.support.nodes import Cluster, ClusterNode, now_ms
from tests.support.reader import read_all
from tests.unit.test_migrate import an_item

pytestmark = [pytest.mark.processes]

ROWS = 1_200
"""More than a page."""


async def first_table(cluster: Cluster, items: list[Mapping[str, object]]) -> str:
    """A table of the first Clockwork's, with these items."""
    name, clock = f"first-{uuid4().hex[:8]}", SystemClock()
    settings = DynamoSettings(
        region="us-east-1",
        endpoint=cluster.services.dynamodb_endpoint,
        access_key="local",
        secret_key=SecretStr("local"),
    )
    async with DynamoClient(settings, clock, ClockGuard(clock).observe, NoTelemetry()) as client:
        await client.call(
            "create_table",
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[
                {"AttributeName": "partitionId", "AttributeType": "S"},
                {"AttributeName": "scheduleTime", "AttributeType": "N"},
            ],
            KeySchema=[
                {"AttributeName": "partitionId", "KeyType": "HASH"},
                {"AttributeName": "scheduleTime", "KeyType": "RANGE"},
            ],
        )
        for start in range(0, len(items), 25):
            puts = [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]
            await client.call("batch_write_item", RequestItems={name: puts})
    return name


async def migrate(cluster: Cluster, node: ClusterNode, folder: Path, *arguments: str) -> tuple[int, list[str]]:
    """Exit code, and the lines that it said."""
    where = ("--url", node.client.url, "--progress", str(folder / "note"))
    # Its DynamoDB is the first Clockwork's. Where the nodes have another store, its table may be called as ours would be.
    source = store_settings("dynamodb", cluster.services.dynamodb_endpoint)
    if cluster.store != "dynamodb":
        source["SCHEDULE_DB"] = arguments[arguments.index("--table") + 1]
    ended = await run_module("infra.migrate", "first", *arguments, *where, settings=cluster.environment(source))
    assert ended.code is not None
    return ended.code, ended.stderr.splitlines()


# Read from DynamoDB, and written through the interface, which is the same whatever the store of the nodes is.
@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_what_is_pending_in_the_first_clockwork_is_delivered_by_this_one_and_only_once(
    cluster: Cluster, tmp_path: Path
) -> None:
    node = await cluster.start()
    topic, due_ms = await cluster.topic(), now_ms()
    named = {"clientId": {"S": cluster.name}, "delivery": {"M": {"topic": {"S": topic}}}}

    def an_old(key: str, at_ms: int, **changed: object) -> dict[str, object]:
        return an_item(**named | {"scheduleKey": {"S": key}, "scheduleTime": {"N": str(at_ms)}} | changed)

    pending = [an_old(f"first-{n}", due_ms + n, taskData={"S": f"päyload {n}"}) for n in range(ROWS)]
    others = [
        an_old("first-ended", due_ms + ROWS, status={"S": "EXECUTED"}),
        an_old("first-early", due_ms - 60_000),
        an_old("first-lost", due_ms + ROWS + 1, delivery={"M": {"topic": {"S": "nowhere"}}}),
        an_old("first-damaged", due_ms + ROWS + 2, taskData={"N": "1"}),
    ]
    given = ("--table", await first_table(cluster, [*pending, *others]), "--due-from", str(due_ms))

    code, said = await migrate(cluster, node, tmp_path, *given, "--dry-run")
    assert (code, said[-1]) == (3, "migrate: dry run, nothing was created")
    assert (await node.client.get(cluster.name, "first-0")).status == 404
    code, said = await migrate(cluster, node, tmp_path, *given)
    assert code == 3, said
    assert f"{ROWS:,} created, 0 there already, 1 ended, 1 due before --due-from, 2 rejected" in said[-2]
    assert {
        line.partition(": ")[2].split(": ", 2)[2] for line in said if "rejected: " in line and " rows " not in line
    } == {
        "taskData: is no text",
        "delivery.topic: the topic 'nowhere' does not exist; create it first",
    }
    await cluster.until_status(node.client, f"first-{ROWS - 1}")
    code, said = await migrate(cluster, node, tmp_path, *given)
    assert f"0 created, {ROWS:,} there already" in said[-2]

    for key in (f"first-{n}" for n in range(0, ROWS, 100)):
        await cluster.until_status(node.client, key)
    records = await read_all(cluster.services.kafka_brokers, topic)
    assert sorted(record.schedule_key for record in records) == sorted(f"first-{n}" for n in range(ROWS))
    assert {record.value.decode() for record in records} == {f"päyload {n}" for n in range(ROWS)}
    assert {record.key for record in records} == {b"order1"}


async def test_a_table_of_this_clockworks_own_is_refused(
    shared: Cluster, shared_node: ClusterNode, tmp_path: Path
) -> None:
    code, said = await migrate(
        shared, shared_node, tmp_path, "--table", shared.settings["SCHEDULE_DB"], "--due-from", "0"
    )
    assert (code, len(said)) == (2, 1)
    assert "SCHEDULE_DB" in said[0]
