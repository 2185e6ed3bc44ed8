"""Time until a newcomer can send a request: `make run` until it is ready, on PostgreSQL beside DynamoDB Local."""

import asyncio
import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import Final

from infra.local.child import log_end
from infra.local.node import REPOSITORY, Store
from tests.benchmarks.figures import Finding, Goal
from tests.benchmarks.world import Bench
from tests.support.processes import wait_or_kill

READY: Final = b"Clockwork is ready"
READY_S_MAX: Final = 300.0
"""The first start fetches what it needs."""
END_S_MAX: Final = 60.0
GOAL: Final = Goal(bound=0.7, of_ratio=True)


async def of_make_run(bench: Bench) -> None:
    took_s: dict[Store, list[float]] = {"postgresql": [], "dynamodb": []}
    for n in range(-1, bench.rounds):
        for store, rounds in took_s.items():
            seconds = await _until_ready(store, bench.folder / "run.log")
            if n >= 0:  # the first reads everything from the disk
                rounds.append(seconds)
    what = "`make run` until it is ready, PostgreSQL beside DynamoDB Local"
    ours, theirs = took_s["postgresql"], took_s["dynamodb"]
    bench.report.add(Finding(scenario="ready", what=what, unit="s", rounds=ours, yardstick=theirs, goal=GOAL))


async def _until_ready(store: Store, log_path: Path) -> float:
    """Seconds from the start of its process. Raises: RuntimeError if it ends before it is ready."""
    start_s = time.perf_counter()
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "infra.local.run", "--store", store),
            cwd=REPOSITORY,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(READY_S_MAX):
            async for line in process.stdout:
                if line.startswith(READY):
                    return time.perf_counter() - start_s
        raise RuntimeError(f"`make run STORE={store}` ended before it was ready:\n{log_end(log_path)}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        await wait_or_kill(process, within_s=END_S_MAX)
