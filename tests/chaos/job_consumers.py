"""Consumers of the jobs' records, on librdkafka: they complete and fail runs, at once or near the time-out, send heartbeats,
come too late, or die in the middle of a run, so that nothing is ever heard of it; over HTTP, or by command.
"""

import asyncio
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from clockwork.domain import record as names
from tests.chaos.job_history import JobHistory, Report, ReportKind, note_report
from tests.chaos.world import World
from tests.support.nodes import now_ms

if TYPE_CHECKING:
    from tests.chaos.job_load import JobClient

POLL_S: Final = 0.1
METADATA_S: Final = 30.0
RECORDS_MAX: Final = 500
EXTENDS_MS: Final = (2_000, 5_000)
TRIES_MAX: Final = 40
BY_COMMAND: Final = 0.4
"""Share of reports that go by command, among runs of jobs that are asked for by command."""
FATES: Final = ("at once", "at once", "at once", "soon", "soon", "long", "fails", "fails", "near", "late", "dies")


class JobConsumers:
    """The consumers of all topics; each record is read once."""

    def __init__(self, world: World, asking: "JobClient", asked: Mapping[str, JobHistory], *, seed: int) -> None:
        self._world = world
        self._asking = asking
        self._asked = asked
        self._seed = seed
        self._producing = True
        self._over = False
        self._stop = asyncio.Event()
        self._ended = asyncio.Event()

    def only_http(self) -> None:
        """There is no producer of commands any more."""
        self._producing = False

    def no_more_faults(self) -> None:
        """From now on every run is completed, at once: so all jobs go on."""
        self._over = True

    async def run(self) -> None:
        """Reads, until `end`."""
        async with asyncio.TaskGroup() as group:
            await self._read(group)
        self._ended.set()

    async def end(self) -> None:
        """Returns when each run that was begun has ended."""
        self._stop.set()
        await self._ended.wait()

    async def _read(self, group: asyncio.TaskGroup) -> None:
        consumer: Any = Consumer(
            {
                "bootstrap.servers": self._world.services.kafka_brokers,
                "group.id": "consumers-of-jobs",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 50,
                "reconnect.backoff.max.ms": 500,
                # Brokers go away on purpose here, which it would report on standard error.
                "log_level": 0,
            }
        )
        try:
            consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in await self._places(consumer)])
            while not self._stop.is_set():
                for message in await asyncio.to_thread(consumer.consume, RECORDS_MAX, POLL_S):
                    # Errors are those of brokers that are away; it goes on by itself.
                    if message.error() is None:
                        headers = dict(message.headers() or ())
                        self._take({name: value.decode() for name, value in headers.items()}, group)
        finally:
            await asyncio.to_thread(consumer.close)

    async def _places(self, consumer: Any) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        for topic in self._world.topics:
            described = await asyncio.to_thread(consumer.list_topics, topic, METADATA_S)
            found += [(topic, number) for number in described.topics[topic].partitions]
        return found

    def _take(self, headers: Mapping[str, str], group: asyncio.TaskGroup) -> None:
        asked = self._asked.get(headers.get(names.JOB_ID, ""))
        if asked is not None and names.RUN_UNTIL in headers:
            group.create_task(self._consume(asked, headers), name=f"run of {asked.job_id}")

    async def _consume(self, asked: JobHistory, headers: Mapping[str, str]) -> None:
        run_id, attempt = headers[names.RUN_ID], int(headers[names.RUN_ATTEMPT])
        rng = random.Random(f"chaos run {self._seed} {asked.job_id} {run_id} {attempt}")
        until_ms = int(headers[names.RUN_UNTIL])
        left_s = max(0.0, (until_ms - now_ms()) / 1_000)
        fate = "at once" if self._over else rng.choice(FATES)
        by_command = asked.by_command and self._producing and rng.random() < BY_COMMAND
        match fate:
            case "dies":
                return
            case "soon":
                await asyncio.sleep(rng.uniform(0, min(1.0, left_s)))
            case "long":
                for _ in range(rng.choice([1, 2])):
                    await asyncio.sleep(rng.uniform(0.3, 0.8) * min(left_s, 2.0))
                    extends = {"attempt": attempt, "extendMs": rng.choice(EXTENDS_MS)}
                    beat = Report(kind="heartbeat", run_id=run_id, attempt=attempt)
                    await self._report(asked, beat, extends, by_command=False)
            case "near":
                await asyncio.sleep(max(0.0, left_s + rng.uniform(-0.4, 0.1)))
            case "late":
                await asyncio.sleep(left_s + rng.uniform(0.3, 2.0))
            case _:
                pass
        kind: ReportKind = "fail" if fate == "fails" else "complete"
        report = Report(kind=kind, run_id=run_id, attempt=attempt, may_retry=kind == "complete" or rng.random() < 0.8)
        body: dict[str, Any] = {"attempt": attempt}
        if kind == "fail":
            body |= {"error": {"by": "chaos"}, "retry": report.may_retry}
        await self._report(asked, report, body, by_command=by_command and self._producing)
        if rng.random() < 0.1:
            again = Report(kind=kind, run_id=run_id, attempt=attempt, may_retry=report.may_retry)
            await self._report(asked, again, body, by_command=False)

    async def _report(self, asked: JobHistory, report: Report, body: Mapping[str, Any], *, by_command: bool) -> None:
        asked.reports.append(report)
        if by_command:
            self._asking.give_report(asked, report, body)
            return

        def tried(sent_ms: int, until_ms: int | None) -> None:
            report.sent = True

        asking = self._asking.asking
        call = f"runs/{report.run_id}/{report.kind}"
        told = await asking.until_told(
            f"run {report.kind}",
            lambda client: client.do_to_job(asked.client_id, asked.job_id, call, body),
            about=f"{asked.job_id} {report.run_id}",
            tried=tried,
            tries=TRIES_MAX,
        )
        if told is not None:
            times = {"sent_ms": told.sent_ms, "received_ms": told.received_ms}
            answered = told.answered
            asking.note_improper(note_report(asked, report, answered.status, answered.body, node=told.node, **times))
