"""Clients that do not spare the service: schedules due soon, now and before now, cancels at the very due time and twice
at once, creates repeated late, reads in between; changes close to the due time, to earlier, to later, of the data, of the
lane, with and without `If-Match`; what is far off fired now, what failed armed again, what comes late dropped; and creates,
cancels and changes by command.

What a client does about a schedule is drawn from the seed and the schedule's number, so that it does not depend on how
fast anything is.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

from clockwork.domain.schedule import OrderingKey
from clockwork.domain.sharding import shard_of
from tests.chaos.command_producer import CommandProducer
from tests.chaos.history import Fate, History, ScheduleHistory, WantedChange, shown_data
from tests.chaos.mix import Mix
from tests.chaos.plan import BURST_MS
from tests.chaos.request_client import RequestClient
from tests.chaos.world import RECORD_BYTES_MAX, SHARDS, World
from tests.support.nodes import now_ms

LANES_PER_SHARD: Final = 2
FAR_MS: Final = 3_600_000
GRID_MS: Final = 250
"""Some due times are rounded to this, so that schedules of one lane are due at the same millisecond."""
ANSWERED_WITHIN_S: Final = 60.0
"""After the end of the load; some requests come fifteen seconds after it: late repeats of what is due late."""
UNANSWERED_MAX: Final = 120
"""Requests under way at once. While more wait for an answer nothing new is begun: a real outage is not made longer by a
herd that the service then has to fight, too."""
GUARANTEES: Final = (("exactly_once",), ("at_least_once",), ("exactly_once", "at_least_once"))
"""Guarantees by lane: one of these for every third lane."""
DEADLINES_MS: Final = ((0, 60), (300, 3_000))
"""Some are passed by nearly all, the others when something is struck."""
COMMANDED_LATER_MS: Final = 8_000
COMMANDING_CLIENTS: Final = 4
"""Clients of commands; their names decide in which Kafka partition of the commands topic their commands stand."""


class Workload:
    """Writes the history."""

    def __init__(self, world: World, history: History, *, seed: int, per_second: float, mix: Mix | None = None) -> None:
        self._world = world
        self._history = history
        self._seed = seed
        self._pause_s = 1 / per_second
        self._mix = mix or Mix()
        self.lanes = _lanes()
        self.asking = RequestClient(world, history)
        self.producing = CommandProducer(world, history, seed=seed)

    async def run(self, stop: asyncio.Event) -> None:
        """Begins new schedules until told to stop, when all is healed; returns when every request is answered, or has
        been given up, which the history then tells."""
        stories: set[asyncio.Task[None]] = set()
        no_more_commands = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.producing.run(no_more_commands), name="commands")
            for number in itertools.count():
                if stop.is_set():
                    break
                if self.asking.unanswered < UNANSWERED_MAX:
                    story = group.create_task(self._story(number), name=f"story-{number}")
                    stories.add(story)
                    story.add_done_callback(stories.discard)
                await asyncio.sleep(self._pause_s)
            if stories:
                await asyncio.wait(stories, timeout=ANSWERED_WITHIN_S)
            self.asking.given_up = bool(stories)
            no_more_commands.set()

    async def _story(self, number: int) -> None:
        """One schedule, and all that its clients want of it."""
        rng = random.Random(f"chaos story {self._seed} {number}")
        mix = self._mix
        fate: Fate = "far" if rng.random() < mix.far else "refused" if rng.random() < mix.refused else "usual"
        body = self._body(rng, number, fate)
        by_command = rng.random() < mix.by_command
        if by_command:
            # A command waits for its group: else hardly any would find what it is about still pending.
            body["scheduleTime"] += rng.randint(0, COMMANDED_LATER_MS)
            body["clientId"] += f"-{number % COMMANDING_CLIENTS}"
        asked = self._history.asked[body["scheduleKey"]] = _asked(body, fate)
        if by_command:
            self._create_by_command(rng, asked, body)
        elif not await self.asking.create(asked, body, tries=1 if rng.random() < mix.gives_up else None):
            return
        # The workload does not wait for what is due after the run.
        around_ms = now_ms() if fate == "far" else asked.due_ms
        async with asyncio.TaskGroup() as group:

            def at(at_ms: int, what: Callable[[], Awaitable[object]]) -> None:
                group.create_task(_later(at_ms, what))

            if by_command:
                self._draw_commands(at, rng, asked, around_ms)
                if rng.random() >= mix.commands_and_http:
                    return
            elif rng.random() < mix.repeats:
                at(around_ms + rng.randint(-500, 3_000), lambda: self.asking.create(asked, body))
            self._draw_cancels(at, rng, asked, around_ms)
            self._draw_changes(at, rng, asked, around_ms)
            if rng.random() < mix.reads:
                for _ in range(2):
                    at(around_ms + rng.randint(-300, 1_500), lambda: self.asking.read(asked))

    def _body(self, rng: random.Random, number: int, fate: Fate) -> dict[str, Any]:
        mix = self._mix
        ((_, from_ms, to_ms),) = rng.choices(mix.due_in_ms, [weight for weight, _, _ in mix.due_in_ms])
        due_ms = now_ms() + rng.randint(from_ms, to_ms) + (FAR_MS if fate == "far" else 0)
        if rng.random() < mix.bursts:
            due_ms += -due_ms % BURST_MS
        elif rng.random() < mix.rounded:
            due_ms -= due_ms % GRID_MS
        lane = rng.randrange(len(self.lanes))
        body = self._world.cluster.body(
            rng.choice(self._world.topics),
            f"s-{number}",
            due_ms=due_ms,
            ordering_key=self.lanes[lane],
            guarantee=rng.choice(GUARANTEES[lane % len(GUARANTEES)]),
            data="x" * (RECORD_BYTES_MAX + 1_000) if fate == "refused" else {"number": number},
        )
        if rng.random() < mix.deadlines:
            body["delivery"] |= {
                "deadline": rng.randint(*rng.choice(DEADLINES_MS)),
                "onLate": rng.choice(["drop", "dead_letter"]),
            }
        return body

    # --- over HTTP

    def _draw_cancels(self, at: "_At", rng: random.Random, asked: ScheduleHistory, around_ms: int) -> None:
        mix = self._mix
        for share, from_ms, to_ms in (
            (mix.cancels_at_once, None, 0),
            (mix.cancels_at_due, -450, 100),
            (mix.cancels_late, 500, 3_000),
        ):
            if rng.random() < share:
                at_ms = 0 if from_ms is None else around_ms + rng.randint(from_ms, to_ms)
                for _ in range(2 if rng.random() < mix.cancels_twice else 1):
                    at(at_ms, lambda: self.asking.cancel(asked))

    def _draw_changes(self, at: "_At", rng: random.Random, asked: ScheduleHistory, around_ms: int) -> None:
        mix = self._mix
        for share, from_ms, to_ms in (
            (mix.puts_early, -2_000, -300),
            (mix.puts_at_due, -450, 100),
            (mix.puts_late, 500, 3_000),
        ):
            if rng.random() < share:
                at_ms = around_ms + rng.randint(from_ms, to_ms)
                for turn in range(2 if rng.random() < mix.puts_twice else 1):
                    ask = self._drawn_put(rng, asked, f"{from_ms}-{turn}")
                    at(at_ms, ask)
        if rng.random() < (mix.fires_far if asked.fate == "far" else mix.fires):
            at(around_ms + rng.randint(-3_000, 300), lambda: self.asking.fire(asked))
        if (asked.fate == "refused" or asked.deadline_ms is not None) and rng.random() < mix.retries:
            for _ in range(2 if rng.random() < mix.retries_twice else 1):
                at(around_ms + rng.randint(800, 4_000), lambda: self.asking.retry(asked))

    def _drawn_put(self, rng: random.Random, asked: ScheduleHistory, mark: str) -> Callable[[], Awaitable[bool]]:
        due_in_ms, data, lane, versioned = self._drawn_change(rng, asked, mark)

        async def put() -> bool:
            wish = _wish("put", due_in_ms, data, lane)
            if versioned < self._mix.if_match:
                # Mostly what was seen last; now and then what cannot be.
                wish.if_version = asked.version + (1 if versioned < self._mix.if_match / 8 else 0)
            return await self.asking.put(asked, _document(wish, data), wish)

        return put

    def _drawn_change(
        self, rng: random.Random, asked: ScheduleHistory, mark: str
    ) -> tuple[int | None, dict[str, str] | None, str | None, float]:
        """Time until it is to be due, the data, the lane; None: as it is. What is refused stays so."""
        mix = self._mix
        due_in_ms = rng.randint(-300, 2_500) if rng.random() < mix.changes_time else None
        if due_in_ms is not None and rng.random() < mix.puts_off_far:
            due_in_ms += FAR_MS
        changes_data = asked.fate != "refused" and (due_in_ms is None or rng.random() < mix.changes_data)
        data = {"key": asked.schedule_key, "put": mark} if changes_data else None
        lane = rng.choice(self.lanes) if rng.random() < mix.changes_lane else None
        return due_in_ms, data, lane, rng.random()

    # --- by command

    def _create_by_command(self, rng: random.Random, asked: ScheduleHistory, body: dict[str, Any]) -> None:
        mix = self._mix
        asked.created_by = self.producing.give(
            "create",
            asked.client_id,
            asked.schedule_key,
            {"command": "create", "schedule": body},
            wants_reply=rng.random() < mix.replies,
        )
        if rng.random() < mix.poison:
            wrong = {**body, "scheduleKey": f"{asked.schedule_key}-poison", "scheduleTime": -1}
            document: Any = rng.choice(
                [b"\x00 no JSON", {"command": "dance", "schedule": body}, {"command": "create", "schedule": wrong}]
            )
            wants_reply = isinstance(document, dict)
            self.producing.give("poison", asked.client_id, wrong["scheduleKey"], document, wants_reply=wants_reply)

    def _draw_commands(self, at: "_At", rng: random.Random, asked: ScheduleHistory, around_ms: int) -> None:
        mix = self._mix
        named = {"clientId": asked.client_id, "scheduleKey": asked.schedule_key}
        for turn in range(rng.choices([0, 1, 2], mix.reschedules)[0]):
            due_in_ms, data, lane, _ = self._drawn_change(rng, asked, f"c{turn}")
            wants_reply = rng.random() < mix.replies
            at_once = rng.random() < mix.commands_at_once
            at_ms = 0 if at_once else around_ms + rng.randint(-3_000, 200)
            at(at_ms, self._reschedule(asked, due_in_ms, data, lane, wants_reply))
        if rng.random() < mix.cancels_by_command:
            document = {"command": "cancel", "schedule": named}
            wants_reply = rng.random() < mix.replies

            async def cancel() -> None:
                give = self.producing.give
                give("cancel", asked.client_id, asked.schedule_key, document, wants_reply=wants_reply)

            at_once = rng.random() < mix.commands_at_once
            at(0 if at_once else around_ms + rng.randint(-2_000, 100), cancel)

    def _reschedule(
        self,
        asked: ScheduleHistory,
        due_in_ms: int | None,
        data: dict[str, str] | None,
        lane: str | None,
        wants_reply: bool,
    ) -> Callable[[], Awaitable[None]]:
        async def reschedule() -> None:
            wish = _wish("reschedule", due_in_ms, data, lane)
            asked.wishes.append(wish)
            named = {"clientId": asked.client_id, "scheduleKey": asked.schedule_key}
            document = {"command": "reschedule", "schedule": named | _document(wish, data)}
            give = self.producing.give
            give("reschedule", asked.client_id, asked.schedule_key, document, wish=wish, wants_reply=wants_reply)

        return reschedule


_At = Callable[[int, Callable[[], Awaitable[object]]], None]
"""Has something done at a time (ms)."""


def _asked(body: dict[str, Any], fate: Fate) -> ScheduleHistory:
    delivery = body["delivery"]
    return ScheduleHistory(
        schedule_key=body["scheduleKey"],
        client_id=body["clientId"],
        topic=delivery["topic"],
        ordering_key=body["orderingKey"],
        due_ms=body["scheduleTime"],
        data=shown_data(body["taskData"]),
        guarantee=delivery["guarantee"],
        deadline_ms=delivery.get("deadline"),
        on_late=delivery.get("onLate", "deliver"),
        fate=fate,
        shard=shard_of(OrderingKey(body["orderingKey"]), SHARDS),
        first_sent_ms=now_ms(),
    )


def _wish(kind: Any, due_in_ms: int | None, data: dict[str, str] | None, lane: str | None) -> WantedChange:
    return WantedChange(
        kind=kind,
        due_ms=now_ms() + due_in_ms if due_in_ms is not None else None,
        data=shown_data(data) if data is not None else None,
        ordering_key=lane,
    )


def _document(wish: WantedChange, data: dict[str, str] | None) -> dict[str, Any]:
    """The body of a change."""
    given = {"scheduleTime": wish.due_ms, "taskData": data, "orderingKey": wish.ordering_key}
    return {name: value for name, value in given.items() if value is not None}


async def _later(at_ms: int, what: Callable[[], Awaitable[object]]) -> None:
    await asyncio.sleep(max(0, at_ms - now_ms()) / 1_000)
    await what()


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
