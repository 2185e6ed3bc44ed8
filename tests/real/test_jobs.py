"""Recurring jobs on real services: each fire time once, in order, never early, through a kill."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import pytest

from clockwork.domain.record import JOB_ID, RUN_ID, SCHEDULED_AT
from tests.support.node_fixtures import on_each_store
from tests.support.nodes import SHORT_SESSION, Cluster, ClusterNode, now_ms
from tests.support.reader import Arrived, CommittedReader, reading
from tests.support.waiting import until

pytestmark = [pytest.mark.processes]

EVERY_MS: Final = 1_000
JOBS: Final = tuple(f"job-{number}" for number in range(8))
WITH_JOBS: Final = SHORT_SESSION | {"CLOCKWORK_JOBS": "on"}
RUNS: Final = 3
"""Runs of each job that are waited for, before a kill and after it."""


def job(cluster: Cluster, topic: str, job_id: str) -> dict[str, Any]:
    """A job that leaves no fire time out: what was missed is caught up."""
    return {
        "clientId": cluster.name,
        "jobId": job_id,
        "trigger": {"type": "fixed_rate", "everyMs": EVERY_MS},
        "misfire": {"policy": "fire_all"},
        "taskData": {"job": job_id},
        "delivery": {"topic": topic},
    }


def fire_times(records: Sequence[Arrived], job_id: str) -> list[int]:
    """The fire times of a job's records, in the order in which they were read."""
    return [int(record.text(SCHEDULED_AT)) for record in records if record.text(JOB_ID) == job_id]


async def until_run(reader: CommittedReader, since_ms: int) -> None:
    """Waits until each job has run so many times for fire times since then."""

    async def look() -> bool:
        await reader.read()
        return all(sum(at >= since_ms for at in fire_times(reader.records, job_id)) >= RUNS for job_id in JOBS)

    await until(look, f"{RUNS} runs of each job")


async def until_paused(node: ClusterNode, cluster: Cluster) -> None:
    """Pauses all jobs, and returns when nothing of them is to be delivered any more."""

    async def look() -> bool:
        answers = [await node.client.pause_job(cluster.name, job_id) for job_id in JOBS]
        return all(answer.status == 200 and "inFlight" not in answer.body for answer in answers)

    await until(look, "all jobs paused")


@on_each_store
async def test_each_fire_time_of_a_job_is_one_record_and_one_entry_of_its_log_through_a_kill(cluster: Cluster) -> None:
    # kill -9 anywhere between commit, entry, arming and delete: the node that takes over arms what was not armed, once.
    topic = await cluster.topic(kafka_partitions=1)
    first, second = await cluster.start(more=WITH_JOBS), await cluster.start(more=WITH_JOBS)
    for job_id in JOBS:
        created = await first.client.create_job(job(cluster, topic, job_id))
        assert created.status == 201, created
    async with reading(cluster.services.kafka_brokers, topic) as reader:
        await until_run(reader, since_ms=0)
        await first.process.kill()
        await until_run(reader, since_ms=now_ms())
        await until_paused(second, cluster)
    async with reading(cluster.services.kafka_brokers, topic) as reader:
        records = await reader.to_end()

    assert all(record.timestamp_ms >= int(record.text(SCHEDULED_AT)) for record in records), "one is early"
    for job_id in JOBS:
        times = fire_times(records, job_id)
        assert times == list(range(times[0], times[-1] + 1, EVERY_MS)), "one is missing, comes twice, or too late"
        runs = (await second.client.job(cluster.name, job_id, "/logs?limit=1000")).body["runs"]
        delivered = [run["runId"] for run in runs if run["status"] == "delivered"]
        assert delivered == [record.text(RUN_ID) for record in reversed(records) if record.text(JOB_ID) == job_id]
        (state,) = [(await second.client.job(cluster.name, job_id)).body]
        assert (state["status"], state["counts"]["delivered"], state.get("nextRun")) == ("paused", len(times), None)


async def until_completed(reader: CommittedReader, node: ClusterNode, cluster: Cluster, done: list[str]) -> None:
    """Reads and completes runs, as a consumer does, until these further ones are done."""
    wanted = len(done) + RUNS

    async def look() -> bool:
        await reader.read()
        for record in reader.records[len(done) :]:
            run_id = record.text(RUN_ID)
            if (await node.client.complete_run(cluster.name, JOBS[0], run_id)).status != 200:
                return False  # not open yet, or the shard changes hands: again
            done.append(run_id)
        return len(done) >= wanted

    await until(look, f"{RUNS} runs completed")


@on_each_store
async def test_no_run_is_delivered_while_another_is_open_through_a_kill(cluster: Cluster) -> None:
    topic = await cluster.topic(kafka_partitions=1)
    first, second = await cluster.start(more=WITH_JOBS), await cluster.start(more=WITH_JOBS)
    exclusive = {"overlap": "skip", "completion": {"timeoutMs": 600_000}}
    created = await first.client.create_job({**job(cluster, topic, JOBS[0]), **exclusive})
    assert created.status == 201, created
    done: list[str] = []
    async with reading(cluster.services.kafka_brokers, topic) as reader:
        await until_completed(reader, second, cluster, done)
        await first.process.kill()
        await until_completed(reader, second, cluster, done)

    answer = await second.client.job(cluster.name, JOBS[0], "/logs?limit=1000&status=completed")
    runs = [run for run in reversed(answer.body["runs"]) if run["runId"] in done]
    assert [run["runId"] for run in runs] == done, "one is missing, or comes twice"
    assert all(before["finishedAt"] <= after["delivered"]["at"] for before, after in pairwise(runs)), "one overlaps"
