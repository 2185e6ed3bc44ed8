"""After the faults, of jobs: each is brought back, must run on by itself, and has a row; then all are deleted, nothing may
be left of them, and their logs are read.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from tests.chaos.job_history import JobHistory, JobOp
from tests.chaos.job_load import JobLoad
from tests.support.client import Client
from tests.support.nodes import now_ms
from tests.support.stored import Stored
from tests.support.waiting import until

RUNS_ON_S: Final = 60.0
"""Time in which each job runs for a fire time after the healing, or goes on to the next one of those that it catches up
with: a few runs may have to time out before."""
TIDY_S: Final = 30.0
"""Time in which what is in flight when a job is deleted ends."""
SLOW_MS: Final = 10_000
"""Jobs that fire less often need not run again: it is enough that the next run is armed."""
RUNNING: Final = ("active", "ended")
PAGE: Final = 1_000
LOOK_S: Final = 0.5
AT_ONCE: Final = 8


@dataclass(kw_only=True, slots=True)
class JobEnd:
    """One job at the very end."""

    state: dict[str, Any] = field(default_factory=dict)
    """As it was before it was deleted; empty: there is no such job."""
    log: list[dict[str, Any]] = field(default_factory=list)
    """Oldest first."""
    deleted_from_ms: int = 0


@dataclass(kw_only=True, slots=True)
class JobRemains:
    """The jobs at the very end, and what is left of them."""

    ends: dict[str, JobEnd] = field(default_factory=dict)
    orphans: list[str] = field(default_factory=list)
    """Jobs that did not run on, that have no row, or of which a row is left."""
    repaired: list[str] = field(default_factory=list)
    """Repairs by the audit, as the nodes logged them: nothing of the kind is broken here."""
    ran_on_after_ms: int = 0


async def settle_jobs(load: JobLoad, stored: Stored) -> JobRemains:
    """Brings every job back, sees it run on, and deletes it. `stored` has no other caller: it answers one question
    at a time."""
    remains = JobRemains(ends={job_id: JobEnd() for job_id in load.asked})
    load.consumers.no_more_faults()
    jobs = [asked for asked in load.asked.values() if await _awake(load, asked)]
    from_ms, armed_first = now_ms(), dict[str, str]()
    remains.orphans += await _those_left(
        load,
        stored,
        jobs,
        lambda asked, state, rows: _runs_on(asked, state, from_ms, armed_first),
        "did not run on",
        RUNS_ON_S,
    )
    remains.ran_on_after_ms = now_ms() - from_ms
    remains.orphans += await _those_left(load, stored, jobs, _is_armed, "nothing armed, or no row of it", TIDY_S)
    for asked in jobs:
        end = remains.ends[asked.job_id]
        end.state = await _read(load, asked)
        end.deleted_from_ms = now_ms()
        named = (asked.client_id, asked.job_id)
        await load.asking.ask(asked, JobOp(kind="delete"), lambda client, named=named: client.delete_job(*named))  # type: ignore[misc]
    with suppress(AssertionError):
        await until(lambda: _none_left(load, stored), "no row of a job is left", within_s=TIDY_S)
    remains.orphans += [f"{job_id}: {count} rows left" for job_id, count in (await _rows(load, stored)).items()]
    for asked in jobs:
        end = remains.ends[asked.job_id]
        end.log = await _log(load, asked)
        end.state |= {"counts": (await _read(load, asked)).get("counts", {})}
    return remains


async def _awake(load: JobLoad, asked: JobHistory) -> bool:
    """Every way in which a job may stand still is ended. False: there is no such job."""
    while True:
        status = (await _read(load, asked)).get("status")
        if status is None:
            return False
        if status in RUNNING:
            return True
        op = JobOp(kind="resume" if status == "paused" else "restore")
        call: Callable[[Client], Awaitable[Any]] = lambda client, op=op: client.do_to_job(  # type: ignore[misc]  # noqa: E731
            asked.client_id, asked.job_id, op.kind, {} if op.kind == "resume" else None
        )
        await load.asking.ask(asked, op, call)


def _runs_on(asked: JobHistory, state: dict[str, Any], from_ms: int, armed_first: dict[str, str]) -> bool:
    """`armed_first`: by job, the run that was armed when it was looked at for the first time."""
    if state["status"] == "ended":
        return True
    armed = state.get("nextRun", {})
    if armed and armed["scheduledAt"] < from_ms:
        # One that fires all it missed may be a quarter of an hour behind, and runs one after the other.
        return armed_first.setdefault(asked.job_id, armed["runId"]) != str(armed["runId"])
    every = asked.every
    if every is not None and every.period_ms > SLOW_MS:
        return "nextRun" in state
    last = state.get("lastRun", {})
    return bool(last) and last["runId"].startswith("s") and last["scheduledAt"] >= from_ms


def _is_armed(asked: JobHistory, state: dict[str, Any], rows: Counter[str]) -> bool:
    """Its state names what comes next, and a row of it is there. Between two runs neither need be, for a moment."""
    named = "nextRun" in state or bool(state.get("openRuns"))
    return state["status"] == "ended" or (named and rows[asked.job_id] > 0)


async def _those_left(
    load: JobLoad,
    stored: Stored,
    jobs: Iterable[JobHistory],
    look: Callable[[JobHistory, dict[str, Any], Counter[str]], bool],
    what: str,
    within_s: float,
) -> list[str]:
    """Looks at each job until it is as it should be. The jobs that were not so in time."""
    left = {asked.job_id: asked for asked in jobs}

    async def none() -> bool:
        gate, rows = asyncio.Semaphore(AT_ONCE), await _rows(load, stored)

        async def one(asked: JobHistory) -> None:
            async with gate:
                state = await _read(load, asked)
                if state["status"] not in RUNNING:
                    await _awake(load, asked)  # a run failed once more, or a request that was held up came late
                elif look(asked, state, rows):
                    del left[asked.job_id]

        async with asyncio.TaskGroup() as group:
            for asked in list(left.values()):
                group.create_task(one(asked), name=asked.job_id)
        if left:
            await asyncio.sleep(LOOK_S)
        return not left

    with suppress(AssertionError):
        await until(none, what, within_s=within_s)
    return [f"{job_id}: {what}" for job_id in left]


async def _rows(load: JobLoad, stored: Stored) -> Counter[str]:
    return Counter(row.schedule_key for row in await stored.rows() if row.schedule_key in load.asked)


async def _none_left(load: JobLoad, stored: Stored) -> bool:
    return not await _rows(load, stored)


async def _read(load: JobLoad, asked: JobHistory) -> dict[str, Any]:
    """The job as it is answered; empty: there is none."""
    named = (asked.client_id, asked.job_id)
    told = await load.asking.asking.until_told("job get", lambda client: client.job(*named), about=asked.job_id)
    assert told is not None, "all is healed"
    body: dict[str, Any] = told.answered.body
    return body if told.answered.status == 200 else {}


async def _log(load: JobLoad, asked: JobHistory) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    more = ""
    while True:
        call = f"/logs?limit={PAGE}{more}"
        told = await load.asking.asking.until_told(
            "job logs",
            lambda client, call=call: client.job(asked.client_id, asked.job_id, call),  # type: ignore[misc]
            about=asked.job_id,
        )
        assert told is not None, "all is healed"
        found += told.answered.body["runs"]
        cursor = told.answered.body["cursor"]
        if cursor is None:
            return found[::-1]
        more = f"&cursor={cursor}"
