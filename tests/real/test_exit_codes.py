"""Commands and settings of `python -m clockwork`: exit codes, and the one line that says what to change."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from clockwork.errors import CannotStart
from clockwork.node.resources import check_resources, init_resources
from clockwork.settings.model import Settings
from clockwork.settings.sources import load_settings
from tests.support.commands import clockwork
from tests.support.kafka_partitions import few_kafka_partitions
from tests.support.nodes import Cluster
from tests.support.tables import tables_of


async def test_wrong_settings_stop_the_start_with_one_line_that_names_each() -> None:
    # Before anything is opened: no service runs for this test. Which values are wrong, tests of the settings show.
    settings = {
        "CLOCKWORK_SHARDS": "many",
        "CLOCKWORK_FRONTIER_LEAD_MS": "5001",
        "CLOCKWORK_SCAN_INTERVALL_MS": "1000",
        "KAFKA_BROKERS": "no-port",
    }
    ended = await clockwork(settings=settings)
    assert ended.code == 2
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("clockwork: settings: ")
    assert all(name in line for name in (*settings, "CLOCKWORK_SCAN_INTERVAL_MS"))


async def test_a_port_that_is_taken_stops_the_start_with_one_line_that_names_it(cluster: Cluster) -> None:
    # Found while the node starts, when other tasks of it run already.
    node = await cluster.start(ready=False)
    await node.until_answers()
    port = node.client.url.rpartition(":")[2]
    ended = await clockwork(settings=cluster.environment({"CLOCKWORK_HTTP_PORT": port}))
    assert ended.code == 2
    said = [line for line in ended.stderr.strip().splitlines() if line.startswith("clockwork: ")]
    assert len(said) == 1
    assert "CLOCKWORK_HTTP_PORT" in said[0]


async def refusal(work: Callable[[Settings], Awaitable[None]], settings: Mapping[str, str]) -> str:
    """The reason for which a command refuses to go on; empty if it does its work."""
    try:
        await work(load_settings(settings))
    except CannotStart as refused:
        return str(refused)
    return ""


async def test_init_makes_a_cluster_once_and_check_tells_what_is_wrong_with_it(cluster: Cluster) -> None:
    # The course of an installation: nothing there, made, made again, looked at, configured wrongly, damaged.
    settings = cluster.environment({"CLOCKWORK_CREATE_RESOURCES": "false"})
    absent = await clockwork("check", settings=settings)
    assert absent.code == 2
    tables = [cluster.settings[name] for name in ("SCHEDULE_DB", "PARTITION_EXEC_DB", "SCHEDULE_KEY_DB", "JOB_DB")]
    assert all(table in absent.stderr for table in tables)
    assert "python -m clockwork init" in absent.stderr
    assert (await clockwork(settings=settings)).code == 2, "nor does a node start that may not make anything"

    with few_kafka_partitions():
        both = await asyncio.gather(refusal(init_resources, settings), refusal(init_resources, settings))
    assert not any(both), "two at once do no harm"
    assert await refusal(init_resources, settings) == ""
    assert await refusal(check_resources, settings) == ""

    other = settings | {"CLOCKWORK_SHARDS": "9"}
    for work in (init_resources, check_resources):
        assert "CLOCKWORK_SHARDS" in await refusal(work, other)

    async with tables_of(cluster) as by_hand:
        await by_hand.delete_shard(3)
    for work in (check_resources, init_resources):
        assert "(3)" in await refusal(work, settings), "a lost frontier is never made anew"
