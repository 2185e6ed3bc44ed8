"""After the faults: everything is healed, and what is due must end within a bounded time and leave nothing behind."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.healed_jobs import JobRemains, settle_jobs
from tests.chaos.history import History, ScheduleHistory
from tests.chaos.job_load import JobLoad
from tests.chaos.request_client import RequestClient
from tests.chaos.workload import FAR_MS, Workload
from tests.chaos.world import World
from tests.support.nodes import now_ms
from tests.support.reader import Arrived, read_all, reading
from tests.support.stored import Stored, stored_of
from tests.support.waiting import until

ENDS_WITHIN_S: Final = 45.0
"""From the moment when all is healed and asked for. Some are due ten seconds later; a transaction that a killed node left
open lasts ten seconds at most."""
ANSWERED_WITHIN_S: Final = 240.0
"""Commands, from the same moment: their group has settled, and what waited is worked off. That was minutes of them, on a
machine that had much else to do; and what is deleted before a command is carried out is answered otherwise."""
ASKED_WITHIN_S: Final = 30.0
READS_PER_S: Final = 50
"""A slow machine's; only so that asking comes to an end."""
TIDY_S: Final = 10.0
AT_ONCE: Final = 16


@dataclass(kw_only=True, slots=True)
class Remains:
    """Schedules and rows that are there at the very end."""

    records: Sequence[Arrived] = ()
    dead_letters: Sequence[Arrived] = ()
    outcomes: dict[str, list[str]] = field(default_factory=dict)
    """Per schedule key, the states of its outcomes as they are stored."""
    rows: list[str] = field(default_factory=list)
    """Schedule keys of rows that should not be there any more."""
    unended: list[str] = field(default_factory=list)
    """Schedules that did not end in time."""
    jobs: JobRemains = field(default_factory=JobRemains)
    ended_after_ms: int = 0
    """Time from the healing until the last schedule had ended, and its row was gone."""


async def settle(world: World, workload: Workload, history: History, load: JobLoad | None = None) -> Remains:
    """Asks for every schedule until it has ended; cancels those of a far time, and reads what is left. `load`: the jobs,
    which have an end of their own (`settle_jobs`)."""
    remains, healed_ms = Remains(), now_ms()
    answered_until = await _until_commands_answered(world, history)
    async with stored_of(world.cluster) as stored, stored_of(world.cluster) as stored_of_jobs:
        async with asyncio.TaskGroup() as group:
            schedules = _settle_schedules(stored, workload, history, load, remains, healed_ms=healed_ms)
            group.create_task(schedules, name="schedules")
            if load is not None:
                jobs = group.create_task(settle_jobs(load, stored_of_jobs), name="jobs")
        if load is not None:
            remains.jobs = jobs.result()
            await load.consumers.end()
        remains.rows = await _rows_left(stored, set(), within_s=TIDY_S)
        remains.outcomes = await stored.outcomes()
    for seat in world.seats:
        await world.stop(seat)
    brokers = world.services.kafka_brokers
    for late in await read_all(brokers, world.replies):
        if late.offset >= answered_until.get(late.kafka_partition, 0):
            history.note_reply(late)
    remains.records = await read_all(brokers, *world.topics)
    remains.dead_letters = await read_all(brokers, world.cluster.dead_letters)
    return remains


async def _settle_schedules(
    stored: Stored, workload: Workload, history: History, load: JobLoad | None, remains: Remains, *, healed_ms: int
) -> None:
    everything = list(history.asked.values())
    spared = {asked.schedule_key for asked in everything if _may_be_far(asked)} | set(load.asked if load else ())
    remains.unended = await _rows_left(stored, spared, within_s=ENDS_WITHIN_S)
    remains.ended_after_ms = now_ms() - healed_ms
    try:
        async with asyncio.timeout(ASKED_WITHIN_S + len(everything) / READS_PER_S):
            await _until_answered_finally(workload.asking, everything)
    except TimeoutError:
        remains.unended += [f"{asked.schedule_key}: no final answer" for asked in everything if not asked.ended]


async def _until_commands_answered(world: World, history: History) -> dict[int, int]:
    """Takes down the answers to commands, until every one that was promised an answer has one, or time is up. Returns up
    to where, by Kafka partition."""
    taken: dict[int, int] = {}
    async with reading(world.services.kafka_brokers, world.replies) as reader:

        async def all_there() -> bool:
            await reader.read()
            for record in reader.records:
                if record.offset >= taken.get(record.kafka_partition, 0):
                    taken[record.kafka_partition] = record.offset + 1
                    history.note_reply(record)
            reader.records.clear()
            return all(command.statuses for command in history.commands if command.answer_due)

        try:
            await until(all_there, "answers to all commands", within_s=ANSWERED_WITHIN_S)
        except AssertionError:
            return taken  # the checker says which are missing
    return taken


def _may_be_far(asked: ScheduleHistory) -> bool:
    return asked.fate == "far" or any((wish.due_ms or 0) > asked.first_sent_ms + FAR_MS // 2 for wish in asked.wishes)


async def _until_answered_finally(asking: RequestClient, everything: Sequence[ScheduleHistory]) -> None:
    # Each of them once, also those whose end was answered before: the answer must still be the same.
    await _each(everything, asking.read)

    async def end(asked: ScheduleHistory) -> bool:
        last = asked.seen[-1].content if asked.seen else None
        # Of a long run the first ones of a far time are not that far any more.
        far = last is not None and last.due_ms > now_ms() + ENDS_WITHIN_S * 1_000
        return await (asking.cancel(asked) if far else asking.read(asked))

    while left := [one for one in everything if not one.ended]:
        await asyncio.sleep(0.2)
        await _each(left, end)


async def _each(asked: Sequence[ScheduleHistory], ask: Callable[[ScheduleHistory], Awaitable[bool]]) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(schedule: ScheduleHistory) -> None:
        async with gate:
            await ask(schedule)

    async with asyncio.TaskGroup() as group:
        for schedule in asked:
            group.create_task(one(schedule), name=schedule.schedule_key)


async def _rows_left(stored: Stored, spared: AbstractSet[str], *, within_s: float) -> list[str]:
    """A row is there for as long as its schedule has not ended. Those that are still there then."""
    left: list[str] = []

    async def none() -> bool:
        left[:] = [
            f"{row.schedule_key} in shard {row.shard}, {list(row.attributes)}"
            for row in await stored.rows()
            if row.schedule_key not in spared
        ]
        return not left

    try:
        await until(none, "no row is left", within_s=within_s)
    except AssertionError:
        return left
    return []
