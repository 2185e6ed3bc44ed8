"""Clients: they create, repeat, cancel, ask and reuse keys, on purpose near due times, and write down what they were told.

They keep the one rule that the API asks of them: a key is not used again while an earlier create of it is unanswered.
"""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Final

from clockwork.domain.destination import Topic
from clockwork.domain.schedule import ClientId, DataForm, Guarantee, NewSchedule, OnLate, OrderingKey, ScheduleKey
from clockwork.errors import InvalidInput
from clockwork.requests.results import (
    AlreadyCreated,
    Cancelled,
    Changed,
    Created,
    KeyTaken,
    Reason,
    Refused,
    ScheduleView,
    Status,
    Unchanged,
    VersionDiffers,
)
from tests.simulation.client_tasks import ClientTasks, NoAnswer
from tests.simulation.clocks import EPOCH_MS
from tests.simulation.cluster import TOPICS, Cluster
from tests.simulation.kafka_world import POISON
from tests.simulation.node import Call, CancelCall, ChangeCall, CreateCall, FindCall, FireCall, RearmCall

CLIENT: Final = ClientId("client")
GENERATIONS_MAX: Final = 3


@dataclass(kw_only=True, slots=True)
class Op:
    """One request and its answer, as one client saw it."""

    number: int
    key: ScheduleKey
    call: Call
    asked_at_s: float
    answered_at_s: float | None = None
    answer: object = None
    """None while unanswered; for a find that found nothing too."""
    command: int | None = None
    """By command: which, in the order of its client."""

    @property
    def client(self) -> ClientId:
        return self.call.new.client_id if isinstance(self.call, CreateCall) else self.call.client_id


@dataclass(kw_only=True, slots=True)
class History:
    """All requests of all clients."""

    ops: list[Op] = field(default_factory=list)

    def of_key(self, key: ScheduleKey) -> list[Op]:
        return [op for op in self.ops if op.key == key]

    def all_keys(self) -> list[ScheduleKey]:
        return list(dict.fromkeys(op.key for op in self.ops))


class Workload:
    """All clients of a run."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.history = History()
        self._cluster = cluster
        self._profile = cluster.profile
        self._seed = seed
        self._rng = random.Random(f"{seed}/clients")
        self._tasks = ClientTasks(cluster, "clients", self._rng)
        self.spawn = self._tasks.spawn
        self._lanes = [(self._rng.choice(TOPICS), OrderingKey(f"lane{n}")) for n in range(self._profile.lanes)]
        self._crowds_s = [self._rng.uniform(0.3, self._profile.faults_end_s) for _ in range(3)]
        self._stopped = False
        self._puts = 0
        self._present: dict[ScheduleKey, NewSchedule] = {}
        """The last schedule created under each key."""

    @property
    def done(self) -> bool:
        return self._tasks.done

    def start(self) -> None:
        for n in range(self._profile.schedules):
            self.spawn(self._key(ScheduleKey(f"k{n}"), random.Random(self._rng.getrandbits(64))))

    def stop(self) -> None:
        """No new schedules; what is under way goes on."""
        self._stopped = True

    def end(self) -> None:
        self._tasks.loop.kill()

    def ask_all(self) -> None:
        """Asks for every key once more, when everything is over."""
        for key in self.history.all_keys():
            self.spawn(self._ask_patiently(self.history.of_key(key)[0].client, key))

    # --- one key's life

    async def _key(self, key: ScheduleKey, rng: random.Random) -> None:
        await asyncio.sleep(rng.uniform(0, self._profile.faults_end_s * 0.8))
        for generation in range(GENERATIONS_MAX):
            if self._stopped or not await self._one_schedule(key, generation, rng):
                return
            if rng.random() >= self._profile.reuse:
                return

    async def _one_schedule(self, key: ScheduleKey, generation: int, rng: random.Random) -> bool:
        """From its create to its end. False: this key must not be used again."""
        new = self._present[key] = self.new(key, generation, rng)
        due_s = (new.due_ms - EPOCH_MS) / 1_000
        for _ in range(rng.choice([0, 0, 1, 2])):
            self.spawn(self.sometime(rng, due_s, FindCall(CLIENT, key)))
        for _ in range(1 + (rng.random() < 0.3) if rng.random() < self._profile.cancels else 0):
            self.spawn(self.sometime(rng, due_s, CancelCall(CLIENT, key)))
        if rng.random() < 0.25:
            self.spawn(self.sometime(rng, due_s, CreateCall(new)))
        # Chance of their own, so that a run without changes stays what it was.
        rng_of_changes = random.Random(f"{self._seed}/changes/{key}/{generation}")
        if rng_of_changes.random() < self._profile.changes:
            self._change(key, due_s, rng_of_changes)
        if not await self._created(new, rng):
            return False
        return await self._ended(key, rng)

    def _change(self, key: ScheduleKey, due_s: float, rng: random.Random) -> None:
        """Some changes, each near a time at which the schedule may be due."""
        for _ in range(rng.choice([1, 1, 2, 3])):
            kind = rng.random()
            if kind < 0.2:
                self.spawn(self.sometime(rng, due_s, FireCall(CLIENT, key)))
            elif kind < 0.3:
                self.spawn(self.sometime(rng, due_s + rng.uniform(1, 4), RearmCall(CLIENT, key)))
            else:
                call = self.put(key, due_s, rng)
                # Data is given once only: else two rows, with another one between them, could look alike to a consumer.
                for _ in range(1 if call.task_data is not None else rng.choice([1, 1, 2])):
                    self.spawn(self.sometime(rng, due_s, call))
                due_s = due_s if call.due_ms is None else (call.due_ms - EPOCH_MS) / 1_000

    def put(self, key: ScheduleKey, due_s: float, rng: random.Random) -> ChangeCall:
        self._puts += 1
        topic, ordering_key = rng.choice(self._lanes)
        what = rng.choice(["due", "due", "data", "data", "lane", "all"])
        moved_s = max(0.001, due_s + rng.choice([-0.5, 0.05, 0.3, 1.0, 2.0]) * rng.uniform(0.5, 1.5))
        data = f"{key}/put{self._puts}".encode()
        if rng.random() < self._profile.refused:
            data = POISON + f":{rng.choice([1, 2, 99])}:".encode() + data
        return ChangeCall(
            client_id=CLIENT,
            schedule_key=key,
            due_ms=EPOCH_MS + round(moved_s * 1_000) if what in ("due", "all") else None,
            task_data=None if what == "due" else data,
            lane=(Topic(topic), ordering_key) if what in ("lane", "all") else None,
            lateness=self._lateness(f"{key}/put{self._puts}") if what in ("data", "all") else None,
            if_version=rng.choice([1, 2, 3]) if rng.random() < 0.2 else None,
        )

    async def _created(self, new: NewSchedule, rng: random.Random) -> bool:
        """Repeats the create until it is answered. True if the key may be used again later."""
        clean = True
        for _ in range(6):
            try:
                answer = await self._ask(new.schedule_key, CreateCall(new))
            except NoAnswer:
                clean = False
                await asyncio.sleep(rng.uniform(0.05, 0.5))
                continue
            return clean and isinstance(answer, Created | AlreadyCreated)
        return False

    async def _ended(self, key: ScheduleKey, rng: random.Random) -> bool:
        """Waits until the schedule has ended and nothing about it is unanswered."""
        while not self._stopped:
            await asyncio.sleep(rng.uniform(0.1, 0.8))
            try:
                view = await self._ask(key, FindCall(CLIENT, key))
            except NoAnswer:
                continue
            creates = [op for op in self.history.of_key(key) if isinstance(op.call, CreateCall)]
            if isinstance(view, ScheduleView) and view.status is not Status.PENDING:
                return all(op.answered_at_s is not None for op in creates)
        return False

    async def sometime(self, rng: random.Random, due_s: float, call: Call) -> None:
        """One request near the due time, or anywhere between now and then, or long after."""
        lead_s = self._profile.lead_ms / 1_000
        now_s = self._cluster.reactor.now_s
        at_s = rng.choice(
            [
                due_s - lead_s + rng.gauss(0, 0.02),
                due_s - lead_s + rng.gauss(0, 0.1),
                due_s - 0.9 * lead_s + rng.gauss(0, 0.01),
                due_s + rng.gauss(0, 0.02),
                due_s + rng.gauss(0, 0.3),
                rng.uniform(now_s, max(now_s, due_s)),
                due_s + rng.uniform(1, 4),
            ]
        )
        await asyncio.sleep(max(0.0, at_s - now_s))
        if isinstance(call, CreateCall) and (self._stopped or self._present[call.new.schedule_key] is not call.new):
            return
        key = call.new.schedule_key if isinstance(call, CreateCall) else call.schedule_key
        for _ in range(rng.choice([1, 4, 12])):
            try:
                answer = await self._ask(key, call)
            except NoAnswer:
                return
            if not (isinstance(answer, Refused) and answer.reason is Reason.IN_FLIGHT):
                return
            await asyncio.sleep(rng.uniform(0.0, 0.3))  # "ask again"

    async def _ask_patiently(self, client: ClientId, key: ScheduleKey) -> None:
        while True:
            try:
                await self._ask(key, FindCall(client, key))
            except NoAnswer:
                await asyncio.sleep(0.2)
            else:
                return

    # --- requests

    async def _ask(self, key: ScheduleKey, call: Call) -> object:
        """Raises: NoAnswer."""
        reactor = self._cluster.reactor
        op = Op(number=len(self.history.ops), key=key, call=call, asked_at_s=reactor.now_s)
        self.history.ops.append(op)
        self._cluster.trace.note("asks", op.number, describe_call(call))
        try:
            answer = await self._tasks.ask(call)
        except NoAnswer:
            self._cluster.trace.note("gives up", op.number)
            raise
        self._cluster.trace.note("answered", op.number, describe_answer(answer))
        if isinstance(answer, Exception) and not isinstance(answer, InvalidInput):
            raise NoAnswer
        op.answered_at_s = reactor.now_s
        op.answer = answer
        return answer

    def new(self, key: ScheduleKey, generation: int, rng: random.Random) -> NewSchedule:
        topic, ordering_key = self._lanes[rng.randrange(len(self._lanes))]
        now_s = self._cluster.reactor.now_s
        if rng.random() < self._profile.past:
            due_s = now_s - rng.uniform(0.0, self._profile.past_s_max)
        elif rng.random() < self._profile.crowded and (ahead := [s for s in self._crowds_s if s > now_s]):
            due_s = rng.choice(ahead) + rng.choice([0.0, 0.0, 0.001, 0.05])
        else:
            due_s = now_s + rng.choice([0.0, 0.05, 0.3, 1.0, 2.0, 3.0, 9.0]) * rng.uniform(0.5, 1.5)
        data = f"{key}/{generation}".encode()
        if rng.random() < self._profile.refused:
            data = POISON + f":{rng.choice([1, 2, 99])}:".encode() + data
        at_least_once = rng.random() < self._profile.at_least_once
        deadline_ms, on_late = self._lateness(f"{key}/{generation}") or (None, OnLate.DELIVER)
        return NewSchedule(
            client_id=CLIENT,
            schedule_key=key,
            ordering_key=ordering_key,
            due_ms=EPOCH_MS + round(due_s * 1_000),
            topic=Topic(topic),
            guarantee=Guarantee.AT_LEAST_ONCE if at_least_once else Guarantee.EXACTLY_ONCE,
            task_data=data,
            data_form=DataForm.TEXT,
            headers=(),
            traceparent=None,
            deadline_ms=deadline_ms,
            on_late=on_late,
            digest=f"digest-{data.decode()}",
        )

    def _lateness(self, whose: str) -> tuple[int, OnLate] | None:
        """Chance of its own, so that a run without deadlines stays what it was."""
        rng = random.Random(f"{self._seed}/deadlines/{whose}")
        if rng.random() >= self._profile.deadlines:
            return None
        on_late = rng.choice([OnLate.DROP, OnLate.DROP, OnLate.DEAD_LETTER, OnLate.DELIVER])
        return rng.choice([20, 200, 1_000, 3_000]), on_late


def describe_call(call: Call) -> str:
    """For the trace."""
    match call:
        case CreateCall(new):
            late = "" if new.deadline_ms is None else f" {new.on_late} after {new.deadline_ms}"
            return f"create {new.digest} lane {new.topic}/{new.ordering_key} due {new.due_ms - EPOCH_MS}{late}"
        case CancelCall(_, key):
            return f"cancel {key}"
        case FindCall(_, key):
            return f"find {key}"
        case ChangeCall():
            due_ms = None if call.due_ms is None else call.due_ms - EPOCH_MS
            what = f"{call.task_data!r} lane {call.lane} due {due_ms} late {call.lateness}"
            return f"change {call.schedule_key} {what} if {call.if_version}"
        case FireCall(_, key):
            return f"fire {key}"
        case RearmCall(_, key):
            return f"rearm {key}"


def describe_answer(answer: object) -> str:
    """For the trace."""
    match answer:
        case (
            Created(view)
            | AlreadyCreated(view)
            | KeyTaken(view)
            | Cancelled(view)
            | Changed(view)
            | Unchanged(view)
            | VersionDiffers(view)
        ):
            return f"{type(answer).__name__} {view.status} v{view.version}"
        case Refused(reason, view):
            return f"Refused {reason} v{view.version}"
        case ScheduleView():
            return f"{answer.status} v{answer.version}"
        case Exception():
            return f"{type(answer).__name__}: {answer}"
        case _:
            return type(answer).__name__
