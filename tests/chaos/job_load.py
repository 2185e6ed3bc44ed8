"""Clients of recurring jobs. Each job has one client, who does one thing after the other, most often close to a fire time:
changes, pauses, resumes, deletes, restores, makes it again, runs it by hand, backfills; over HTTP, or by command.

What a client does is drawn from the seed and the job's number; how often, depends on how long its requests take.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from tests.chaos.command_producer import CommandProducer
from tests.chaos.history import Command, JobCommandKind, shown_data
from tests.chaos.job_calendar import JobCalendar
from tests.chaos.job_consumers import JobConsumers
from tests.chaos.job_history import LINGERS_MS, JobHistory, JobOp, OpKind, Report, Try, note_op, note_reply
from tests.chaos.job_plan import data_of, draw_job, other_rate
from tests.chaos.request_client import RequestClient
from tests.chaos.world import World
from tests.support.client import Answered, Client
from tests.support.nodes import now_ms

BEGIN_S: Final = 10.0
"""Within this time all jobs are made."""
PAUSE_S: Final = (0.5, 6.0)
"""Between two things that a client does."""
BACKFILLED_MS: Final = 7_200_000
"""Older than now by any node's clock: a node refuses a backfill of times to come."""
ANSWERED_WITHIN_S: Final = 60.0
COMMAND_S: Final = 0.3
"""Between two looks whether a command is committed."""
KINDS_STEADY: Final = ("put", "put", "put", "run", "run", "backfill")
KINDS_OPERATED: Final = (
    *("pause", "pause", "resume", "resume", "resume", "put", "put", "trigger", "trigger", "run", "backfill"),
    *("delete", "anew"),
)
TWICE: Final = 0.2
"""Share of changes, pauses, resumes and runs by hand that are asked for twice at once: two changes, or one run."""
BY_COMMAND: Final[Mapping[OpKind, JobCommandKind]] = {
    "create": "createJob",
    "put": "updateJob",
    "pause": "pauseJob",
    "resume": "resumeJob",
    "delete": "deleteJob",
    "run": "runJob",
}


class JobLoad:
    """All jobs of a run, their clients and consumers."""

    def __init__(
        self, world: World, asking: RequestClient, producing: CommandProducer, *, lanes: list[str], seed: int, jobs: int
    ) -> None:
        rng = random.Random(f"chaos jobs {seed}")
        drawn = [
            draw_job(
                seed,
                number,
                client_id=world.cluster.name,
                topic=rng.choice(world.topics),
                lane=rng.choice(lanes),
            )
            for number in range(jobs)
        ]
        self.asked: dict[str, JobHistory] = {asked.job_id: asked for asked in drawn}
        self.asking = JobClient(asking, producing)
        self.calendar = JobCalendar(asking, world.cluster.name, seed=seed)
        for each in drawn:
            if each.names_calendar:
                each.calendar_puts = self.calendar.puts
        self.consumers = JobConsumers(world, self.asking, self.asked, seed=seed)
        self._seed = seed

    async def run(self, stop: asyncio.Event) -> None:
        """All clients, until told to stop, when all is healed; returns when every request is answered, or has been given
        up, which the history then tells."""
        async with asyncio.TaskGroup() as group:
            clients = []
            if any(asked.names_calendar for asked in self.asked.values()):
                ready = asyncio.Event()
                clients.append(group.create_task(self.calendar.run(ready, stop), name="calendar"))
                await ready.wait()
            for asked in self.asked.values():
                client = _JobClient(self.asking, asked, seed=self._seed)
                clients.append(group.create_task(client.run(stop), name=asked.job_id))
            await stop.wait()
            if clients:
                _, late = await asyncio.wait(clients, timeout=ANSWERED_WITHIN_S)
                self.asking.asking.given_up |= bool(late)


class JobClient:
    """Requests about jobs, over HTTP until they are answered, or by command."""

    def __init__(self, asking: RequestClient, producing: CommandProducer) -> None:
        self.asking = asking
        self._producing = producing

    async def ask(self, asked: JobHistory, op: JobOp, ask: Callable[[Client], Awaitable[Answered]]) -> bool:
        """Over HTTP. Returns whether it was answered."""
        asked.ops.append(op)

        def tried(sent_ms: int, until_ms: int | None) -> None:
            if until_ms is None:
                op.tries.append(Try(sent_ms, sent_ms + LINGERS_MS))
            else:
                op.tries[-1] = Try(sent_ms, until_ms)

        told = await self.asking.until_told(f"job {op.kind}", ask, about=asked.job_id, tried=tried)
        if told is None:
            return False
        times = {"sent_ms": told.sent_ms, "received_ms": told.received_ms}
        self.asking.note_improper(note_op(asked, op, told.answered, node=told.node, **times))
        return True

    def give(self, asked: JobHistory, op: JobOp, document: Mapping[str, Any]) -> Command:
        """By command."""
        asked.ops.append(op)

        def takes(reply: Mapping[str, Any], received_ms: int, repeated: bool) -> str | None:
            assert op.command is not None
            return note_reply(asked, op, op.command, reply, received_ms=received_ms, repeated=repeated)

        body = {"command": BY_COMMAND[op.kind], "job": dict(document)}
        op.command = self._producing.give(BY_COMMAND[op.kind], asked.client_id, asked.job_id, body, takes=takes)
        return op.command

    def give_report(self, asked: JobHistory, report: Report, document: Mapping[str, Any]) -> None:
        """A consumer's, by command."""

        def takes(reply: Mapping[str, Any], received_ms: int, repeated: bool) -> str | None:
            assert report.command is not None
            return note_reply(asked, report, report.command, reply, received_ms=received_ms, repeated=repeated)

        named = {"clientId": asked.client_id, "jobId": asked.job_id, "runId": report.run_id}
        kinds = {"complete": "completeRun", "fail": "failRun", "heartbeat": "heartbeatRun"}
        body = {"command": kinds[report.kind], "run": named | dict(document)}
        report.command = self._producing.give(kinds[report.kind], asked.client_id, asked.job_id, body, takes=takes)  # type: ignore[arg-type]


class _JobClient:
    """The client of one job."""

    def __init__(self, asking: JobClient, asked: JobHistory, *, seed: int) -> None:
        self._asking = asking
        self._asked = asked
        self._named = (asked.client_id, asked.job_id)
        self._rng = random.Random(f"chaos job client {seed} {asked.job_id}")
        self._data = 0

    async def run(self, stop: asyncio.Event) -> None:
        await _sleep(self._rng.uniform(0, BEGIN_S), stop)
        if not await self._create(stop):
            return
        while not stop.is_set():
            await self._wait(stop)
            if not stop.is_set():
                what = self._rng.choice(KINDS_OPERATED if self._asked.operated else KINDS_STEADY)
                await self._do(what, twice=self._rng.random() < TWICE)

    async def _create(self, stop: asyncio.Event) -> bool:
        body = self._asked.body
        if not self._asked.by_command or self._rng.random() < 0.5:
            return await self._asking.ask(self._asked, self._op("create"), lambda client: client.create_job(body))
        while not stop.is_set():
            # The same job again, until a transaction is committed.
            command = self._asking.give(self._asked, self._op("create"), body)
            while command.fate == "unsent" and not stop.is_set():
                await _sleep(COMMAND_S, stop)
            if command.fate == "committed":
                return True
            if command.fate == "aborted":
                self._asked.ops.pop()
        return False

    def _op(self, kind: OpKind, **more: Any) -> JobOp:
        data = shown_data(self._asked.body["taskData"]) if kind == "create" else None
        return JobOp(kind=kind, **({"data": data} | more))

    async def _wait(self, stop: asyncio.Event) -> None:
        """Sleeps until shortly before, at or shortly after a fire time, or any time."""
        rng, every = self._rng, self._asked.every
        await _sleep(rng.uniform(*PAUSE_S), stop)
        if every is not None and every.period_ms < 10_000 and rng.random() < 0.6:
            at_ms = every.between(now_ms() + 1, now_ms() + every.period_ms)[0] + rng.choice([-400, -250, -100, 0, 50])
            await _sleep((at_ms + rng.uniform(-50, 50) - now_ms()) / 1_000, stop)

    async def _do(self, what: str, *, twice: bool) -> None:
        times = 2 if twice else 1
        match what:
            case "put" if not self._asked.refused:
                bodies = [{"taskData": self._new_data()} for _ in range(times)]
                await asyncio.gather(*(self._put(body, paired=twice) for body in bodies))
            case "trigger" if self._asked.delay_ms is None and not self._asked.refused:
                await self._put({"trigger": other_rate(self._rng)} | self._maybe_data())
            case "pause":
                await asyncio.gather(*(self._act("pause", {"note": "chaos"}) for _ in range(times)))
            case "resume":
                await asyncio.gather(*(self._act("resume", {}) for _ in range(times)))
            case "run":
                own = {} if self._asked.refused else self._maybe_data()
                body = {"requestId": f"run-{len(self._asked.ops)}", **own}
                await asyncio.gather(*(self._run_now(body) for _ in range(times)))
            case "backfill":
                await self._backfill()
            case "delete":
                await self._delete()
                await asyncio.sleep(self._rng.choice([0.0, 0.3, 1.5]) * self._rng.random())
                await self._act("restore", None)
            case "anew":
                await self._delete()
                await asyncio.sleep(self._rng.choice([0.0, 0.3, 1.5]) * self._rng.random())
                if not self._asked.refused:
                    self._asked.body = {**self._asked.body, "taskData": self._new_data()}
                    body = self._asked.body
                    await self._asking.ask(self._asked, self._op("create"), lambda client: client.create_job(body))
            case _:
                pass

    async def _put(self, body: Mapping[str, Any], *, paired: bool = False) -> None:
        data = shown_data(body["taskData"]) if "taskData" in body else None
        op = self._op("put", data=data, new_trigger="trigger" in body, paired=paired)
        if self._by_command():
            self._asking.give(self._asked, op, self._named_document() | dict(body))
        else:
            await self._asking.ask(self._asked, op, lambda client: client.put_job(*self._named, body))

    async def _act(self, kind: OpKind, body: Mapping[str, Any] | None) -> None:
        op = self._op(kind)
        if kind in BY_COMMAND and self._by_command():
            self._asking.give(self._asked, op, self._named_document() | dict(body or {}))
        else:
            await self._asking.ask(self._asked, op, lambda client: client.do_to_job(*self._named, kind, body))

    async def _delete(self) -> None:
        op = self._op("delete")
        if self._by_command():
            self._asking.give(self._asked, op, self._named_document())
        else:
            await self._asking.ask(self._asked, op, lambda client: client.delete_job(*self._named))

    async def _run_now(self, body: Mapping[str, Any]) -> None:
        data = shown_data(body["taskData"]) if "taskData" in body else None
        op = self._op("run", request_id=body["requestId"], data=data)
        if self._by_command():
            self._asking.give(self._asked, op, self._named_document() | dict(body))
        else:
            await self._asking.ask(self._asked, op, lambda client: client.do_to_job(*self._named, "run-now", body))

    async def _backfill(self) -> None:
        every = self._asked.every
        if every is None:
            return
        to_ms = now_ms() - BACKFILLED_MS - self._rng.randint(0, 60_000)
        body = {
            "requestId": f"backfill-{len(self._asked.ops)}",
            "from": to_ms - self._rng.randint(1, 5) * every.period_ms,
            "to": to_ms,
            "maxRuns": self._rng.choice([2, 100]),
        }
        op = self._op(
            "backfill",
            request_id=str(body["requestId"]),
            from_ms=body["from"],
            to_ms=body["to"],
            runs_max=body["maxRuns"],
        )
        await self._asking.ask(self._asked, op, lambda client: client.do_to_job(*self._named, "backfill", body))

    def _by_command(self) -> bool:
        return self._asked.by_command and self._rng.random() < 0.7

    def _named_document(self) -> dict[str, Any]:
        return {"clientId": self._asked.client_id, "jobId": self._asked.job_id}

    def _new_data(self) -> dict[str, Any]:
        self._data += 1
        return data_of(self._asked.job_id, self._data)

    def _maybe_data(self) -> dict[str, Any]:
        return {"taskData": self._new_data()} if self._rng.random() < 0.5 else {}


async def _sleep(for_s: float, stop: asyncio.Event) -> None:
    """So long, or until told to stop."""
    try:
        async with asyncio.timeout(max(0.0, for_s)):
            await stop.wait()
    except TimeoutError:
        pass
