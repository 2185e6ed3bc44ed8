"""One run from one seed; and many, from the command line.

python -m tests.simulation.run --seeds 1000 --start 0      # each seed one run; prints those that fail
python -m tests.simulation.run --seed 42                   # one run again, with everything that happened in it
"""

import argparse
import contextlib
import random
import sys
import time
from dataclasses import dataclass, replace
from typing import Final

from tests.simulation import checkers, job_checkers
from tests.simulation.cluster import Cluster
from tests.simulation.faults import Profile
from tests.simulation.job_clients import JobClients
from tests.simulation.node import engine_limits
from tests.simulation.producers import Producers
from tests.simulation.themes import Theme, draw
from tests.simulation.trace import EngineLog, Trace
from tests.simulation.virtual_loop import Runaway
from tests.simulation.workload import Workload

HEALED_S_MAX: Final = 150.0
"""Within this time after the faults everything due must have ended."""
OWN_LETTERS_SHARE: Final = 0.5
"""Runs in which dead letters have a topic that may refuse them."""
JOBS_OF_A_RUN: Final = (0, 0, 0, 2)
"""Numbers of jobs, one of which is drawn for a run without a theme."""
REST_S: Final = 12.0
"""Time for which a run goes on after that, so that late records come while they are still judged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The findings of one run."""

    seed: int
    profile: Profile
    trace: Trace
    steps: int
    virtual_s: float

    @property
    def violations(self) -> list[str]:
        return self.trace.violations


def simulate(seed: int, *, everything: bool = False, theme: Theme | None = None) -> Result:
    """One run. `everything`: the engine's own log lines go into the trace as well."""
    profile = draw(random.Random(f"{seed}/profile"), theme)
    profile = replace(profile, own_letters=random.Random(f"{seed}/letters").random() < OWN_LETTERS_SHARE)
    if theme is None:
        rng = random.Random(f"{seed}/jobs")
        profile = replace(profile, jobs=rng.choice(JOBS_OF_A_RUN), job_losses=rng.random() < 0.3)
    cluster = Cluster(seed, profile)
    workload = Workload(cluster, seed)
    producers = Producers(cluster, workload, seed)
    job_clients = JobClients(cluster, seed)
    with EngineLog(cluster.trace, everything=everything), engine_limits(profile):
        try:
            _run(cluster, workload, producers, job_clients)
        except Runaway as runaway:
            cluster.trace.violation("runaway", str(runaway))
        finally:
            workload.end()
            job_clients.end()
            cluster.end()
    return Result(
        seed=seed,
        profile=profile,
        trace=cluster.trace,
        steps=cluster.reactor.steps,
        virtual_s=cluster.reactor.now_s,
    )


def _run(cluster: Cluster, workload: Workload, producers: Producers, job_clients: JobClients) -> None:
    reactor = cluster.reactor
    cluster.start()
    workload.start()
    producers.start()
    job_clients.start()
    reactor.run(until_s=cluster.profile.faults_end_s)
    workload.stop()
    cluster.heal()
    job_clients.stop()
    healed_at_s = reactor.now_s
    next_look_s = reactor.now_s

    def at_rest() -> bool:
        nonlocal next_look_s
        if reactor.now_s < next_look_s:
            return False
        next_look_s = reactor.now_s + 0.25
        return workload.done and job_clients.done and checkers.at_rest(cluster)

    reactor.run(until_s=healed_at_s + HEALED_S_MAX, done=at_rest)
    checkers.check_liveness(cluster, workload)
    if not job_clients.done:
        cluster.trace.violation("liveness", "clients of jobs still wait")
    reactor.run(until_s=reactor.now_s + REST_S)
    workload.ask_all()
    reactor.run(until_s=reactor.now_s + 20, done=lambda: workload.done)
    producers.judge()
    checkers.check_all(cluster, workload.history)
    job_checkers.check_jobs(cluster, checkers.gather(cluster), job_clients)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.run", description="Deterministic simulation.")
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first")
    parser.add_argument("--seed", type=int, help="one run again, with its log")
    parser.add_argument("--mutation", help="with one of tests/simulation/mutations.py")
    parser.add_argument("--theme", choices=list(Theme), type=Theme, help="what all runs are mostly about")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        return _replay(chosen.seed, chosen.mutation, chosen.theme)
    return _many(range(chosen.start, chosen.start + chosen.seeds), chosen.mutation, chosen.theme)


def _replay(seed: int, mutation: str | None, theme: Theme | None) -> int:
    with _mutated(mutation):
        result = simulate(seed, everything=True, theme=theme)
    sys.stdout.write(f"{result.profile}\n{result.trace.text()}")
    for violation in result.violations:
        sys.stdout.write(f"VIOLATION {violation}\n")
    return 1 if result.violations else 0


def _many(seeds: range, mutation: str | None, theme: Theme | None) -> int:
    began_s = time.perf_counter()
    failed = 0
    steps = 0
    with _mutated(mutation):
        for seed in seeds:
            result = simulate(seed, theme=theme)
            steps += result.steps
            if result.violations:
                failed += 1
                sys.stdout.write(f"seed {seed}: {result.violations[0]} (+{len(result.violations) - 1})\n")
                sys.stdout.flush()
    took_s = time.perf_counter() - began_s
    sys.stdout.write(
        f"{len(seeds)} seeds from {seeds.start}: {failed} failed; {len(seeds) / took_s:.1f} seeds/s, {steps} steps\n"
    )
    return 1 if failed else 0


def _mutated(name: str | None) -> "contextlib.AbstractContextManager[None]":
    if name is None:
        return contextlib.nullcontext()
    from tests.simulation.mutations import applied, by_name

    return applied(by_name(name))


if __name__ == "__main__":
    sys.exit(main())
