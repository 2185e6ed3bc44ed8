"""`python -m tests.chaos.run`: a run of chaos, or with `--takeovers N` a measurement of take-over.

Ends with 1 if a promise was broken; the logs of every node and service are then kept.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.local.child import Child
from infra.local.node import Launch, Store
from tests.chaos import figures, takeovers
from tests.chaos.checker import Evidence, judge
from tests.chaos.disturbances import SETTLES_MS, DisturbanceLog, carry_out
from tests.chaos.healed_phase import settle
from tests.chaos.history import History, StateAnswer
from tests.chaos.job_load import JobLoad
from tests.chaos.plan import SKEW_SEEN_MS, Disturbance, draw_plan
from tests.chaos.workload import Workload
from tests.chaos.world import SESSION_TIMEOUT_MS, World, opened_world

PER_SECOND: Final = 30.0
JOBS: Final = 30
SEEDS: Final = 1_000_000
AFTER_JUMP_MS: Final = 1_000
"""Requests sent so long after a clock jumped far ahead must not be accepted any more. One that jumps back stands still
first, so it takes until it has fallen behind by the bound."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The findings of a run."""

    text: str
    violations: dict[str, list[str]]

    @property
    def kept(self) -> bool:
        """All promises were."""
        return not any(self.violations.values())


async def chaos(
    folder: Path,
    *,
    seed: int,
    seconds: float,
    per_second: float = PER_SECOND,
    jobs: int = JOBS,
    store: Store = "dynamodb",
    launch: Launch = Child.start,
) -> Result:
    """One run: load, disturbances, healing, judgement. Logs go to the folder."""
    plan = draw_plan(seed, seconds=seconds, session_timeout_ms=SESSION_TIMEOUT_MS)
    disturbance_log, history = DisturbanceLog(), History()
    async with opened_world(folder, store=store, launch=launch) as world:
        await world.heal()
        workload = Workload(world, history, seed=seed, per_second=per_second)
        load = JobLoad(world, workload.asking, workload.producing, lanes=workload.lanes, seed=seed, jobs=jobs)
        async with asyncio.TaskGroup() as group:
            group.create_task(load.consumers.run(), name="consumers of jobs")
            try:
                await _disturbed(world, workload, load, plan, disturbance_log)
            finally:
                (folder / "disturbance_log.log").write_text("".join(f"{line}\n" for line in disturbance_log.log))
            remains = await settle(world, workload, history, load)
        remains.jobs.repaired = world.logged("job.repaired", "job.unreadable")
        misled = frozenset(skew.node.client.url for skew in world.skews if skew.far)
        evidence = Evidence(
            history=history,
            jobs=load.asked,
            remains=remains,
            ahead_ms=world.ahead_ms,
            skew_ms=_skew_ms(world),
            misled=misled,
            unrest=disturbance_log.unrest + world.hand_overs(settles_ms=SETTLES_MS),
        )
        violations = judge(evidence) | _of_world(world, history)
        (folder / "schedules.jsonl").write_text(figures.every_schedule(evidence))
        (folder / "jobs.jsonl").write_text(figures.every_job(evidence))
    return Result(text=figures.table(evidence, disturbance_log, violations), violations=violations)


async def _disturbed(
    world: World, workload: Workload, load: JobLoad, plan: Sequence[Disturbance], disturbance_log: DisturbanceLog
) -> None:
    """The load goes on until all is healed."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(stop), name="jobs")
        group.create_task(workload.run(stop), name="workload")
        try:
            await carry_out(world, plan, disturbance_log)
            await world.heal()
        except AssertionError as error:
            # A cluster that does not come back is a verdict, too, and the rest of the table tells more about it.
            world.wrongs.append(str(error))
        finally:
            stop.set()
    load.consumers.only_http()


def _skew_ms(world: World) -> int:
    """The largest difference between two clocks. One that has jumped far back stands still, and so is within the bound
    for as long as the bound."""
    back = [-SKEW_SEEN_MS for skew in world.skews if skew.far and skew.jumps and skew.offset_ms < 0]
    offsets_ms = [*back, *(skew.offset_ms for skew in world.skews if not skew.far)]
    return max([0, *offsets_ms]) - min([0, *offsets_ms])


def _of_world(world: World, history: History) -> dict[str, list[str]]:
    wrong_ms = {
        skew.node.client.url: (
            since_ms + AFTER_JUMP_MS + (SKEW_SEEN_MS if skew.jumps and skew.offset_ms < 0 else 0),
            skew,
        )
        for skew in world.skews
        if skew.far and (since_ms := skew.wrong_since_ms()) is not None
    }

    def wrongly(seen: StateAnswer) -> bool:
        since_ms, skew = wrong_ms.get(seen.node, (0, None))
        # After its end another node may have got its port.
        return skew is not None and since_ms < seen.sent_ms and (skew.to_ms is None or seen.sent_ms < skew.to_ms)

    accepted = [
        f"{asked.schedule_key} by {seen.node}"
        for asked in history.asked.values()
        for seen in asked.seen
        if seen.status == 201 and wrongly(seen)
    ]
    return {
        "accepted with a clock beyond the bound": accepted,
        "fired with a clock beyond the bound": world.far_that_fired(),
        "nodes that ended wrongly, or did not come back": world.wrongs,
        "defects that nodes logged": world.defects(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="of disturbances; default 1")
    parser.add_argument("--seed", type=int, help="what is broken, and when; drawn if absent")
    parser.add_argument("--rate", type=float, default=PER_SECOND, help="creates a second")
    parser.add_argument("--jobs", type=int, default=JOBS, help="recurring jobs beside them; default 30")
    parser.add_argument("--takeovers", type=int, help="kill -9 so many times in a row, and measure")
    parser.add_argument("--logs", type=Path, help="where to keep logs; default: a temporary folder")
    parser.add_argument("--store", choices=("dynamodb", "postgresql"), default="dynamodb", help="default: dynamodb")
    chosen = parser.parse_args(arguments)
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(SEEDS)
    folder = chosen.logs or Path(tempfile.mkdtemp(prefix="clockwork-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    _say(f"seed {seed}, logs in {folder}")
    if chosen.takeovers is not None:
        result = asyncio.run(_takeovers(folder, seed=seed, kills=chosen.takeovers, store=chosen.store))
    else:
        for disturbance in draw_plan(seed, seconds=chosen.minutes * 60, session_timeout_ms=SESSION_TIMEOUT_MS):
            _say(str(disturbance))
        result = asyncio.run(
            chaos(
                folder,
                seed=seed,
                seconds=chosen.minutes * 60,
                per_second=chosen.rate,
                jobs=chosen.jobs,
                store=chosen.store,
            )
        )
    _say(result.text)
    if result.kept:
        _say(f"every promise was kept (seed {seed})")
        if chosen.logs is None:
            shutil.rmtree(folder)
        return 0
    _say(f"PROMISES WERE BROKEN (seed {seed}); the logs are in {folder}")
    return 1


async def _takeovers(folder: Path, *, seed: int, kills: int, store: Store) -> Result:
    disturbance_log, history = DisturbanceLog(), History()
    async with opened_world(folder, store=store) as world:
        workload = Workload(world, history, seed=seed, per_second=takeovers.PER_SECOND, mix=takeovers.MIX)
        await takeovers.kill_in_a_row(world, workload, disturbance_log, kills=kills)
        evidence = Evidence(
            history=history,
            remains=await settle(world, workload, history),
            ahead_ms=world.ahead_ms,
            unrest=[(each.at_ms, each.at_ms + SETTLES_MS) for each in disturbance_log.kills],
        )
        violations = judge(evidence) | _of_world(world, history)
    text = f"session time-out {SESSION_TIMEOUT_MS} ms\n{figures.table(evidence, disturbance_log, violations)}"
    return Result(text=text, violations=violations)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
