"""Clients of recurring jobs: they create, change, pause, resume, delete, restore and run jobs, near their fire times, and
write down what they were told. When the faults are over each job runs on for a while, and is deleted.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from clockwork.domain.destination import Topic
from clockwork.domain.jobs.job import CompletionPolicy, JobContent, JobName, JobStatus, NewJob, RetryOn, RunNow
from clockwork.domain.jobs.next_occurrence import Misfire, MisfirePolicy, OverlapPolicy
from clockwork.domain.retry import BackoffPolicy, RetryPolicy
from clockwork.domain.rights import ANYONE
from clockwork.domain.run import JobId
from clockwork.domain.schedule import DataForm, Guarantee, OrderingKey
from clockwork.domain.triggers.exclusions import exclusion
from clockwork.domain.triggers.trigger import FixedDelay, FixedRate, Jitter, JitterPer, Rule, Trigger, cron
from clockwork.errors import InvalidInput
from clockwork.requests.jobs.results import JobAlreadyCreated, JobChanged, JobCreated, JobRefused, JobUnchanged, JobView
from clockwork.requests.jobs.service import JobService
from tests.simulation.client_tasks import ClientTasks, NoAnswer
from tests.simulation.clocks import EPOCH_MS
from tests.simulation.cluster import TOPICS, Cluster
from tests.simulation.job_calendar import CALENDAR, JobCalendar
from tests.simulation.job_consumers import JobConsumers
from tests.simulation.kafka_world import POISON
from tests.simulation.node import JobCall
from tests.simulation.workload import CLIENT

RUN_ON_S: Final = 9.0
"""Time for which jobs go on when everything is mended, before they are deleted."""
WAITS_MS: Final = 1_000
"""A row that is due for longer, and there, waits for its lane, say behind refused records."""
LOSSES_MAX: Final = 3


@dataclass(kw_only=True, slots=True)
class JobOp:
    """One request and its answer."""

    number: int
    name: JobName
    what: str
    asked_at_s: float
    answered_at_s: float | None = None
    answer: object = None


class JobClients:
    """The clients of all jobs of a run."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.ops: list[JobOp] = []
        self.deleted_from_s: dict[JobName, float] = {}
        """Time at which the last delete of each job was first asked for. Left out are jobs whose armed row waited there
        for its lane: these are no orphans, and go on when it does."""
        self._cluster = cluster
        self._profile = cluster.profile
        self._rng = random.Random(f"{seed}/jobs")
        self._tasks = ClientTasks(cluster, "job clients", self._rng)
        self._over = asyncio.Event()
        self._data = 0
        self._alive = 0
        """Jobs that are not deleted for good."""
        self.calendar: JobCalendar | None = None
        self.consumers = JobConsumers(cluster, random.Random(f"{seed}/consumers"), self._ask, self._tasks.spawn)

    @property
    def done(self) -> bool:
        return self._tasks.done

    def start(self) -> None:
        self._alive = self._profile.jobs
        if self._alive:
            self._tasks.spawn(self.consumers.run(self._over, lambda: self._alive == 0))
        if self._profile.calendars:
            self.calendar = JobCalendar(random.Random(self._rng.getrandbits(64)), self._cluster, self._ask_any)
            self._tasks.spawn(self.calendar.run(self._over))
        for number in range(self._profile.jobs):
            name = JobName(CLIENT, JobId(f"job{number}"))
            self._tasks.spawn(self._job(name, random.Random(self._rng.getrandbits(64))))
        for _ in range(self._rng.randint(0, LOSSES_MAX) if self._profile.jobs and self._profile.job_losses else 0):
            self._cluster.reactor.at(self._rng.uniform(1.0, self._profile.faults_end_s), self._lose_row)

    def stop(self) -> None:
        """The faults are over."""
        self._tasks.loop.call_soon(self._over.set)

    def end(self) -> None:
        self._tasks.loop.kill()

    def _lose_row(self) -> None:
        if not self._cluster.healed:
            self._cluster.worlds.jobs.lose_row(self._cluster.nodes[0].store)

    # --- one job's life

    async def _job(self, name: JobName, rng: random.Random) -> None:
        await asyncio.sleep(rng.uniform(0, self._profile.faults_end_s * 0.4))
        if await self._create(name, rng):
            while not self._over.is_set():
                await self._wait(name, rng)
                if not self._over.is_set():
                    await self._do_something(name, rng)
        await self._over.wait()
        await self._awake(name, rng)
        await asyncio.sleep(RUN_ON_S)
        if not self._waits(name):
            self.deleted_from_s[name] = self._cluster.reactor.now_s
        while True:
            if await self._is_deleted(name):
                self._alive -= 1
                return
            await asyncio.sleep(0.2)

    def _waits(self, name: JobName) -> bool:
        worlds = self._cluster.worlds
        state = worlds.jobs.tables.states.get(name)
        armed = state.armed if state is not None else None
        if state is None or armed is None or (armed.shard, armed.position) not in worlds.store.rows:
            return False
        trigger = worlds.jobs.tables.definitions[(name, state.version)].trigger
        # A fixed delay has no fire times to be missed: it goes on from wherever its lane let it.
        by_delay = trigger is not None and isinstance(trigger.rule, FixedDelay)
        return by_delay or armed.due_ms < worlds.store.now_ms() - WAITS_MS

    async def _awake(self, name: JobName, rng: random.Random) -> None:
        """The job is to run on: every way in which it may stand still is ended."""
        while True:
            try:
                view = await self._ask(name, "find", lambda jobs: jobs.find(ANYONE, name))
                if not isinstance(view, JobView) or view.state.status in (JobStatus.ACTIVE, JobStatus.ENDED):
                    return
                if view.state.status is JobStatus.PAUSED:
                    await self._ask(name, "resume", lambda jobs: jobs.resume(ANYONE, name))
                else:
                    await self._ask(name, "restore", lambda jobs: jobs.restore(ANYONE, name))
            except NoAnswer:
                await asyncio.sleep(rng.uniform(0.05, 0.3))

    async def _is_deleted(self, name: JobName) -> bool:
        try:
            answer = await self._ask(name, "delete", lambda jobs: jobs.delete(ANYONE, name))
        except NoAnswer:
            return False
        return not isinstance(answer, JobRefused)

    async def _create(self, name: JobName, rng: random.Random) -> bool:
        new = self._new(name, rng)
        for _ in range(8):
            try:
                answer = await self._ask(name, "create", lambda jobs: jobs.create(ANYONE, _accepted(new, jobs)))
            except NoAnswer:
                await asyncio.sleep(rng.uniform(0.05, 0.5))
                continue
            return isinstance(answer, JobCreated | JobAlreadyCreated)
        return False

    async def _wait(self, name: JobName, rng: random.Random) -> None:
        """Waits until a time near the job's next fire time, or any time."""
        now_s = self._cluster.reactor.now_s
        state = self._cluster.worlds.jobs.tables.states.get(name)
        wait_s = rng.choice([0.02, 0.3, 1.0]) * rng.uniform(0.5, 1.5)
        if state is not None and state.armed is not None and rng.random() < 0.7:
            due_s = (state.armed.due_ms - EPOCH_MS) / 1_000
            lead_s = self._profile.lead_ms / 1_000
            near_s = due_s + rng.choice([0.0, -lead_s, -0.9 * lead_s]) + rng.gauss(0, rng.choice([0.01, 0.05, 0.3]))
            wait_s = min(max(0.0, near_s - now_s), 4.0) or wait_s
        try:
            async with asyncio.timeout(wait_s):
                await self._over.wait()
        except TimeoutError:
            pass

    async def _do_something(self, name: JobName, rng: random.Random) -> None:
        kinds = ["pause", "pause", "resume", "resume", "resume", "data", "data", "trigger", "completion", "run", "find"]
        kind = rng.choice([*kinds, "delete"])
        for _ in range(rng.choice([1, 1, 2])):
            try:
                await self._do(kind, name, rng)
            except NoAnswer:
                await asyncio.sleep(rng.uniform(0.0, 0.3))
            else:
                return

    async def _do(self, kind: str, name: JobName, rng: random.Random) -> None:
        match kind:
            case "pause":
                await self._ask(name, kind, lambda jobs: jobs.pause(ANYONE, name, "note"))
            case "resume":
                await self._ask(name, kind, lambda jobs: jobs.resume(ANYONE, name))
            case "find":
                await self._ask(name, kind, lambda jobs: jobs.find(ANYONE, name))
            case "run":
                self._data += 1
                request = RunNow(request_id=f"r{self._data}", task_data=self._new_data(name), digest="")
                await self._ask(name, kind, lambda jobs: jobs.start_runs(ANYONE, name, request))
            case "delete":
                await self._ask(name, kind, lambda jobs: jobs.delete(ANYONE, name))
                await asyncio.sleep(rng.choice([0.0, 0.2, 1.5]) * rng.random())
                if rng.random() < 0.5:
                    await self._ask(name, "restore", lambda jobs: jobs.restore(ANYONE, name))
                else:
                    new = self._new(name, rng)
                    await self._ask(name, "create", lambda jobs: jobs.create(ANYONE, _accepted(new, jobs)))
            case _:
                edit = self._edit(kind, name, rng)
                await self._ask(name, f"put {kind}", lambda jobs: jobs.put(ANYONE, name, edit))

    # --- what a job is

    def _new_data(self, name: JobName) -> bytes:
        self._data += 1
        return f"{name.job_id}/{self._data}".encode()

    def _new(self, name: JobName, rng: random.Random) -> NewJob:
        data = self._new_data(name)
        if rng.random() < self._profile.refused:
            data = POISON + f":{rng.choice([1, 99])}:".encode() + data
        trigger = self._trigger(rng)
        completion, overlap = self._completion(rng, trigger)
        at_least_once = rng.random() < self._profile.at_least_once
        return NewJob(
            client_id=name.client_id,
            job_id=name.job_id,
            ordering_key=OrderingKey(rng.choice([name.job_id, f"lane{rng.randrange(self._profile.lanes)}"])),
            topic=Topic(rng.choice(TOPICS)),
            guarantee=Guarantee.AT_LEAST_ONCE if at_least_once else Guarantee.EXACTLY_ONCE,
            task_data=data,
            data_form=DataForm.TEXT,
            trigger=trigger,
            completion=completion,
            overlap=overlap,
            pause_after_failures=rng.choice([0, 0, 0, 2]),
            misfire=Misfire(
                policy=rng.choice(list(MisfirePolicy)),
                grace_ms=rng.choice([None, 1_000, 3_000]),
                catch_up_max=rng.choice([1, 2, 100]),
                window_ms=rng.choice([None, 2_000]),
            ),
            durable=rng.random() < 0.5,
            digest=f"digest-{data.decode()}",
            created_at_ms=EPOCH_MS + int(self._cluster.reactor.now_s * 1_000),
        )

    def _trigger(self, rng: random.Random) -> Trigger:
        rule: Rule
        if self._profile.calendars and rng.random() < 0.5:
            rule = cron(f"{rng.choice(['*', '*/2', '1/3'])} * * * * ?", exclude=exclusion(calendar=CALENDAR))
        elif rng.random() < 0.2:
            rule = FixedDelay(delay_ms=rng.choice([1_000, 1_500]))
        else:
            rule = FixedRate(
                every_ms=rng.choice([1_000, 1_000, 1_700, 3_000]), anchor_ms=EPOCH_MS + rng.randrange(1_000)
            )
        jitter = Jitter(most_ms=rng.choice([100, 600]), per=rng.choice(list(JitterPer))) if rng.random() < 0.3 else None
        return Trigger(rule=rule, runs_max=rng.choice([None, None, None, 3]), jitter=jitter)

    def _completion(
        self, rng: random.Random, trigger: Trigger | None
    ) -> tuple[CompletionPolicy | None, OverlapPolicy | None]:
        if rng.random() < 0.5:
            return None, None
        overlap = rng.choice([None, OverlapPolicy.SKIP, OverlapPolicy.WAIT])
        exclusive = overlap is not None or (trigger is not None and isinstance(trigger.rule, FixedDelay))
        retry = None
        if exclusive and rng.random() < 0.5:
            retry = RetryPolicy(attempts_max=2, backoff=BackoffPolicy(initial_ms=rng.choice([1, 300]), max_ms=500))
        on = frozenset(RetryOn) if retry is not None else frozenset[RetryOn]()
        return CompletionPolicy(timeout_ms=rng.choice([1_000, 1_300]), retry=retry, retry_on=on), overlap

    def _edit(self, kind: str, name: JobName, rng: random.Random) -> Any:
        data, trigger = self._new_data(name), self._trigger(rng)
        completion, overlap = self._completion(rng, None)

        def edit(content: JobContent, *, created_ms: int) -> JobContent:
            match kind:
                case "trigger":
                    return replace(content, trigger=trigger)
                case "completion":
                    return replace(content, completion=completion, overlap=overlap)
                case _:
                    return replace(content, task_data=data)

        return edit

    # --- requests

    async def _ask_any(self, what: str, ask: Callable[[JobService], Awaitable[object]]) -> object:
        """A request about no job. Raises: NoAnswer."""
        answer = await self._tasks.ask(JobCall(what, ask))
        if isinstance(answer, Exception):
            raise NoAnswer
        return answer

    async def _ask(self, name: JobName, what: str, ask: Callable[[JobService], Awaitable[object]]) -> object:
        """Raises: NoAnswer."""
        reactor, trace = self._cluster.reactor, self._cluster.trace
        op = JobOp(number=len(self.ops), name=name, what=what, asked_at_s=reactor.now_s)
        self.ops.append(op)
        trace.note("asks of a job", op.number, what, name.job_id)
        try:
            answer = await self._tasks.ask(JobCall(what, ask))
        except NoAnswer:
            trace.note("gives up", op.number)
            raise
        trace.note("answered of a job", op.number, _described(answer))
        if isinstance(answer, Exception) and not isinstance(answer, InvalidInput):
            raise NoAnswer
        op.answered_at_s = reactor.now_s
        op.answer = answer
        return answer


def _accepted(new: NewJob, jobs: JobService) -> NewJob:
    """A create as the node that is asked reads it: it is made by that node's clock."""
    return replace(new, created_at_ms=jobs.context.clock.now_ms())


def _described(answer: object) -> str:
    match answer:
        case JobChanged(view) | JobUnchanged(view):
            flight = [each.run_id for each in view.in_flight]
            return f"done changed={isinstance(answer, JobChanged)} rev {view.state.rev} in flight {flight}"
        case JobRefused(reason, view):
            return f"refused {reason} rev {view.state.rev}"
        case _:
            return type(answer).__name__
