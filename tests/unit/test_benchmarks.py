"""The arithmetic of the benchmarks, and the stub that they measure beside."""

import asyncio
import base64
import json
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from pydantic import SecretStr

from clockwork.clock import ClockGuard, SystemClock
from clockwork.domain.pauses import NOTHING_PAUSED
from clockwork.domain.position import text_of
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import DynamoSettings
from clockwork.stores.dynamodb import codec
from clockwork.stores.dynamodb.client import DynamoClient
from clockwork.stores.dynamodb.pauses import DynamoPauses
from clockwork.stores.dynamodb.schema import check_tables
from tests.benchmarks.figures import Finding, Goal, quantile, spread
from tests.benchmarks.metered import kilobytes
from tests.benchmarks.report import Report, distribution, table
from tests.benchmarks.stub_dynamo import Connection, Tables
from tests.support import builders


def test_a_ratio_is_taken_round_by_round_before_the_median() -> None:
    # The machine was twice as slow in the second round: both felt it, and the ratio does not move.
    finding = Finding(scenario="s", what="w", unit="/s", rounds=[80, 40, 90], yardstick=[100, 50, 100])
    assert finding.ratio == pytest.approx(0.8)
    assert finding.ratios == pytest.approx([0.8, 0.8, 0.9])


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (Goal(bound=0.8, at_least=True, of_ratio=True), True),
        (Goal(bound=0.81, at_least=True, of_ratio=True), False),
        (Goal(bound=80), True),
        (Goal(bound=79), False),
        (None, None),
    ],
)
def test_a_goal_is_held_against_the_figure_or_its_ratio(goal: Goal | None, met: bool | None) -> None:
    assert Finding(scenario="s", what="w", unit="/s", rounds=[80.0], yardstick=[100.0], goal=goal).met is met


def test_spread_and_quantiles_are_of_the_values_themselves() -> None:
    assert spread([3.0, 1.0, 2.0]) == "2 (1–3)"
    assert quantile([4, 3, 2, 1], 0.5) == 3
    assert quantile([1.0], 0.99) == 1.0
    assert distribution([5.0, 1.0])[-1] == (5.0, 1.0)


def test_the_results_are_a_table_and_the_same_for_programs(tmp_path: Path) -> None:
    report = Report(tmp_path / "results")
    report.add(Finding(scenario="s", what="w", unit="ms", rounds=[20.0], goal=Goal(bound=10)))
    report.write()
    written = json.loads((tmp_path / "results" / "summary.json").read_text())
    assert (written["findings"][0]["median"], written["findings"][0]["met"]) == (20.0, False)
    assert "| s | w | 20 ms |  |  | ≤ 10 | **no** |" in (tmp_path / "results" / "summary.md").read_text()
    assert "Measured on" in table([])


def test_a_write_is_billed_by_kilobytes_begun_of_what_is_stored() -> None:
    # Not of what is sent: bytes travel as base64, a third longer.
    assert kilobytes({}) == 1
    assert kilobytes({"a": {"S": "x" * 1_023}}) == 1
    assert kilobytes({"a": {"S": "x" * 1_024}}) == 2
    assert kilobytes({"a": {"B": base64.b64encode(b"x" * 1_020).decode()}, "b": {"M": {}}}) == 2
    assert kilobytes({"n": {"N": "1" * 37}}) == 1


def test_the_stub_keeps_rows_in_order_and_gives_them_up() -> None:
    # What a drain needs of it: rows put in any order, read by pages from a position on, deleted, and then gone.
    tables = Tables(prefix="t", shards=4)
    rows = [builders.row(shard=3) for _ in range(5)]
    puts = [{"PutRequest": {"Item": codec.row_item(row)}} for row in reversed(rows)]

    def ask(operation: str, **asked: object) -> dict[str, list[object]]:
        status, document = tables.answer(operation, orjson.dumps(asked))
        assert status == 200
        return document

    def page(after: str) -> list[object]:
        values = {":shard": {"S": "3"}, ":after": {"N": after}}
        return ask("Query", TableName="t-schedules", ExpressionAttributeValues=values, Limit=3)["Items"]

    ask("BatchWriteItem", RequestItems={"t-schedules": puts})
    assert page("0") == [codec.row_item(row) for row in rows[:3]]
    assert page(text_of(rows[2].position)) == [codec.row_item(row) for row in rows[3:]]
    deletes = [{"DeleteRequest": {"Key": codec.row_key(row.shard, row.position)}} for row in rows[:4]]
    ask("BatchWriteItem", RequestItems={"t-schedules": deletes})
    assert page("0") == [codec.row_item(rows[4])]
    assert len(ask("Scan", TableName="t-schedules", Limit=1)["Items"]) == 1


async def test_a_node_finds_the_tables_of_the_stub_as_it_wants_them() -> None:
    # Else no node starts beside it, whatever a new check asks for.
    settings = DynamoSettings(
        region="us-east-1",
        endpoint="http://127.0.0.1:1",
        access_key="local",
        secret_key=SecretStr("local"),
        schedules_table="p-schedules",
        executions_table="p-executions",
        keys_table="p-keys",
        jobs_table="p-jobs",
    )
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(Tables(prefix="p", shards=4), 0.0), "127.0.0.1", 0)
    async with server:
        here = replace(settings, endpoint=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        clock = SystemClock()
        async with DynamoClient(here, clock, ClockGuard(clock).observe, NoTelemetry()) as client:
            assert (await check_tables(client, shards=4)).problems == ()
            assert await DynamoPauses(client).read_pauses() == NOTHING_PAUSED
