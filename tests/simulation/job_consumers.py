"""Consumers of the records of jobs that ask for a completion: they complete, fail and heartbeat, at once, near the time-out,
too late, or never, and write down what they were told.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from clockwork.domain.jobs.job import CompletionReport, Heartbeat, JobName
from clockwork.domain.record import JOB_ID, RUN_ATTEMPT, RUN_ID, RUN_UNTIL
from clockwork.domain.rights import ANYONE
from clockwork.domain.run import JobId, RunId
from clockwork.requests.jobs.service import JobService
from tests.simulation.client_tasks import NoAnswer
from tests.simulation.clocks import EPOCH_MS
from tests.simulation.cluster import TOPICS, Cluster
from tests.simulation.kafka_world import Entry
from tests.simulation.workload import CLIENT

POLL_S: Final = 0.05
TRIES_MAX: Final = 4
LEFT_S_MAX: Final = 2.0
EXTENDS_MS: Final = (1_000, 2_000)


@dataclass(kw_only=True, slots=True)
class Report:
    """One report about a run, and its answer."""

    name: JobName
    run_id: RunId
    report: CompletionReport | Heartbeat
    answer: object


Ask = Callable[[JobName, str, Callable[[JobService], Awaitable[object]]], Awaitable[object]]


class JobConsumers:
    """The consumers of all topics, each record read once."""

    def __init__(self, cluster: Cluster, rng: random.Random, ask: Ask, spawn: Callable[[object], None]) -> None:
        """`ask` asks any node, and raises NoAnswer; `spawn` starts a task of the clients."""
        self.reports: list[Report] = []
        self._cluster = cluster
        self._rng = rng
        self._ask = ask
        self._spawn = spawn
        self._read: dict[object, int] = {}

    async def run(self, over: asyncio.Event, done: Callable[[], bool]) -> None:
        """Reads on until all jobs are deleted; after `over` there are no more heartbeats."""
        kafka = self._cluster.worlds.kafka
        while not done():
            for where in kafka.logs:
                if where[0] in TOPICS:
                    committed = kafka.committed(where)
                    for entry in committed[self._read.get(where, 0) :]:
                        if entry.header(RUN_UNTIL) is not None:
                            self._spawn(self._consume(entry, random.Random(self._rng.getrandbits(64)), over))
                    self._read[where] = len(committed)
            await asyncio.sleep(POLL_S)

    async def _consume(self, entry: Entry, rng: random.Random, over: asyncio.Event) -> None:
        name = JobName(CLIENT, JobId(entry.header(JOB_ID) or ""))
        run_id, attempt = RunId(entry.header(RUN_ID) or ""), int(entry.header(RUN_ATTEMPT) or "1")
        until_s = (int(entry.header(RUN_UNTIL) or "0") - EPOCH_MS) / 1_000
        # By the clock of the node that has sent it, which may be far off.
        left_s = min(max(0.0, until_s - self._cluster.reactor.now_s), LEFT_S_MAX)
        lead_s = self._cluster.profile.lead_ms / 1_000
        match rng.choice(["at once", "at once", "soon", "soon", "in time", "late", "never"]):
            case "never":
                return
            case "at once":
                wait_s = rng.uniform(0, 0.02)
            case "soon":
                wait_s = rng.uniform(0, left_s)
            case "in time":
                wait_s = left_s - rng.choice([0.0, lead_s]) + rng.gauss(0, rng.choice([0.01, 0.1]))
            case _:
                wait_s = left_s + rng.uniform(0.2, 1.5)
        await asyncio.sleep(max(0.0, wait_s))
        while not over.is_set() and rng.random() < 0.3:
            await self._report(name, run_id, Heartbeat(attempt=attempt, extend_ms=rng.choice(EXTENDS_MS)), rng)
            await asyncio.sleep(rng.uniform(0, 1.2))
        report = CompletionReport(attempt=attempt, succeeded=rng.random() < 0.7, may_retry=rng.random() < 0.8)
        for _ in range(rng.choice([1, 1, 1, 2])):
            await self._report(name, run_id, report, rng)

    async def _report(
        self, name: JobName, run_id: RunId, report: CompletionReport | Heartbeat, rng: random.Random
    ) -> None:
        for _ in range(TRIES_MAX):
            try:
                answer = await self._ask(
                    name,
                    f"report of {run_id}/{report.attempt}",
                    lambda jobs: jobs.report_run(ANYONE, name, run_id, report),
                )
            except NoAnswer:
                await asyncio.sleep(rng.uniform(0.02, 0.3))
            else:
                self.reports.append(Report(name=name, run_id=run_id, report=report, answer=answer))
                return
