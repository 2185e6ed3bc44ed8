"""Clients that do not spare the service: schedules due soon, now and before now, cancels at the very due time and twice
at once, creates repeated late, reads in between.

Every request is sent again until it is answered, to another node each time, as the interface asks of its clients; some
clients give up instead, and nobody promised them anything. What a client does about a schedule is drawn from the seed
and the schedule's number, so that it does not depend on how fast anything is.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from clockwork.domain.schedule import OrderingKey
from clockwork.domain.sharding import shard_of
from tests.chaos.history import Asked, Fate, History
from tests.chaos.plan import BURST_MS
from tests.chaos.world import RECORD_BYTES_MAX, SHARDS, World
from tests.support.client import NO_ANSWER, Answered, Client
from tests.support.nodes import now_ms

LANES_PER_SHARD: Final = 2
FAR_MS: Final = 3_600_000
GRID_MS: Final = 250
"""Some due times are rounded to this, so that schedules of one lane are due at the same millisecond."""
ANSWERED_WITHIN_S: Final = 60.0
"""After the end of the load; some requests come fifteen seconds after it: late repeats of what is due late."""
AGAIN_S: Final = (0.1, 1.6)
"""Wait before a request is sent again: doubling from the first to the second, with jitter."""
UNANSWERED_MAX: Final = 120
"""Requests under way at once. While more wait for an answer nothing new is begun: a real outage is not made longer by a
herd that the service then has to fight, too."""
GUARANTEES: Final = (("exactly_once",), ("at_least_once",), ("exactly_once", "at_least_once"))
"""Of every third lane."""

_Ask = Callable[[Client], Awaitable[Answered]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Mix:
    """Shares and times of a workload. Times are milliseconds."""

    due_in_ms: tuple[tuple[int, int, int], ...] = (
        (10, -500, 0),
        (25, 0, 400),
        (45, 400, 2_000),
        (20, 2_000, 10_000),
    )
    """Weight, from, to."""
    bursts: float = 0.4
    """Of schedules whose due time is put off to the next burst."""
    rounded: float = 0.3
    far: float = 0.01
    refused: float = 0.015
    gives_up: float = 0.05
    cancels_at_due: float = 0.15
    cancels_at_once: float = 0.03
    cancels_late: float = 0.03
    cancels_twice: float = 0.4
    repeats: float = 0.08
    reads: float = 0.12


STEADY: Final = Mix(
    due_in_ms=((1, 300, 600),),
    bursts=0.0,
    rounded=0.0,
    far=0.0,
    refused=0.0,
    gives_up=0.0,
    cancels_at_due=0.0,
    cancels_at_once=0.0,
    cancels_late=0.0,
    repeats=0.0,
    reads=0.0,
)
"""Nothing but schedules soon due: for measuring."""


class Workload:
    """Writes the history."""

    def __init__(self, world: World, history: History, *, seed: int, per_second: float, mix: Mix | None = None) -> None:
        self._world = world
        self._history = history
        self._seed = seed
        self._pause_s = 1 / per_second
        self._mix = mix or Mix()
        self._lanes = _lanes()
        self._unanswered = 0
        self._given_up = False

    async def run(self, stop: asyncio.Event) -> None:
        """Begins new schedules until told to stop, when all is healed; returns when every request is answered, or has
        been given up, which the history then tells."""
        stories: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                if stop.is_set():
                    break
                if self._unanswered < UNANSWERED_MAX:
                    story = group.create_task(self._story(number), name=f"story-{number}")
                    stories.add(story)
                    story.add_done_callback(stories.discard)
                await asyncio.sleep(self._pause_s)
            if stories:
                await asyncio.wait(stories, timeout=ANSWERED_WITHIN_S)
            self._given_up = bool(stories)

    async def _story(self, number: int) -> None:
        """One schedule, and all that its clients want of it."""
        rng = random.Random(f"chaos story {self._seed} {number}")
        mix = self._mix
        fate: Fate = "far" if rng.random() < mix.far else "refused" if rng.random() < mix.refused else "usual"
        body = self._body(rng, number, fate)
        key, due_ms = body["scheduleKey"], body["scheduleTime"]
        asked = self._history.asked[key] = Asked(
            schedule_key=key,
            topic=body["delivery"]["topic"],
            ordering_key=body["orderingKey"],
            due_ms=due_ms,
            guarantee=body["delivery"]["guarantee"],
            fate=fate,
            shard=shard_of(OrderingKey(body["orderingKey"]), SHARDS),
            first_sent_ms=now_ms(),
        )
        accepted = await self._create(asked, body, tries=1 if rng.random() < mix.gives_up else None)
        if not accepted:
            return
        # Nobody waits for what is due after the run.
        around_ms = now_ms() if fate == "far" else due_ms
        async with asyncio.TaskGroup() as group:
            if rng.random() < mix.cancels_at_once:
                self._cancel(group, rng, asked, at_ms=0)
            if rng.random() < mix.cancels_at_due:
                self._cancel(group, rng, asked, at_ms=around_ms + rng.randint(-450, 100))
            if rng.random() < mix.cancels_late:
                self._cancel(group, rng, asked, at_ms=around_ms + rng.randint(500, 3_000))
            if rng.random() < mix.repeats:
                at_ms = around_ms + rng.randint(-500, 3_000)
                group.create_task(self._later(at_ms, self._create(asked, body, tries=None)))
            if rng.random() < mix.reads:
                for _ in range(2):
                    at_ms = around_ms + rng.randint(-300, 1_500)
                    group.create_task(self._later(at_ms, self.read(asked)))

    def _body(self, rng: random.Random, number: int, fate: Fate) -> dict[str, Any]:
        mix = self._mix
        ((_, from_ms, to_ms),) = rng.choices(mix.due_in_ms, [weight for weight, _, _ in mix.due_in_ms])
        due_ms = now_ms() + rng.randint(from_ms, to_ms) + (FAR_MS if fate == "far" else 0)
        if rng.random() < mix.bursts:
            due_ms += -due_ms % BURST_MS
        elif rng.random() < mix.rounded:
            due_ms -= due_ms % GRID_MS
        lane = rng.randrange(len(self._lanes))
        return self._world.cluster.body(
            rng.choice(self._world.topics),
            f"s-{number}",
            due_ms=due_ms,
            ordering_key=self._lanes[lane],
            guarantee=rng.choice(GUARANTEES[lane % len(GUARANTEES)]),
            data="x" * (RECORD_BYTES_MAX + 1_000) if fate == "refused" else {"number": number},
        )

    def _cancel(self, group: asyncio.TaskGroup, rng: random.Random, asked: Asked, *, at_ms: int) -> None:
        for _ in range(2 if rng.random() < self._mix.cancels_twice else 1):
            group.create_task(self._later(at_ms, self.cancel(asked)))

    @staticmethod
    async def _later(at_ms: int, what: Awaitable[object]) -> None:
        await asyncio.sleep(max(0, at_ms - now_ms()) / 1_000)
        await what

    async def _create(self, asked: Asked, body: dict[str, Any], *, tries: int | None) -> bool:
        return await self._until_answered("create", asked, lambda client: client.create(body), tries=tries)

    async def cancel(self, asked: Asked) -> bool:
        """One cancel; whether it was answered."""
        ask: _Ask = lambda client: client.cancel(self._world.cluster.name, asked.schedule_key)  # noqa: E731
        return await self._until_answered("cancel", asked, ask)

    async def read(self, asked: Asked) -> bool:
        """One read; whether it was answered."""
        ask: _Ask = lambda client: client.get(self._world.cluster.name, asked.schedule_key)  # noqa: E731
        return await self._until_answered("get", asked, ask)

    async def _until_answered(self, call: str, asked: Asked, ask: _Ask, *, tries: int | None = None) -> bool:
        self._unanswered += 1
        try:
            return await self._again_and_again(call, asked, ask, tries)
        finally:
            self._unanswered -= 1

    async def _again_and_again(self, call: str, asked: Asked, ask: _Ask, tries: int | None) -> bool:
        counted = self._history.answers
        for number in itertools.count(1):
            nodes = self._world.nodes()
            if nodes:
                # Not from the story's own source: how many tries it takes must not change what the story does next.
                client = random.choice(nodes).client
                sent_ms = now_ms()
                try:
                    answered = await ask(client)
                except NO_ANSWER:
                    counted[f"{call} -"] += 1
                else:
                    counted[f"{call} {answered.status}"] += 1
                    if answered.status != 503:
                        self._history.note(asked, call, client.url, answered, sent_ms=sent_ms, received_ms=now_ms())
                        return True
            if tries is not None and number >= tries:
                return False
            if self._given_up:
                self._history.improper.append(f"{call} of {asked.schedule_key}: never answered, though all was healed")
                return False
            await asyncio.sleep(min(AGAIN_S[1], AGAIN_S[0] * 2**number) * random.uniform(0.5, 1.0))
        raise AssertionError("unreachable")


def _lanes() -> list[str]:
    """Ordering keys, the same number in each shard."""
    found: dict[int, list[str]] = {shard: [] for shard in range(SHARDS)}
    for number in itertools.count():
        keys = found[shard_of(OrderingKey(f"lane-{number}"), SHARDS)]
        if len(keys) < LANES_PER_SHARD:
            keys.append(f"lane-{number}")
        if all(len(keys) == LANES_PER_SHARD for keys in found.values()):
            return [key for keys in zip(*found.values(), strict=True) for key in keys]
    raise AssertionError("unreachable")
