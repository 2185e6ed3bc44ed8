"""The same seed is the same history, byte for byte."""

import hashlib
import os
import subprocess
import sys

from tests.simulation.run import simulate
from tests.simulation.themes import Theme

SEEDS = (3, 7, 11, 29)

OF_JOBS = 10
"""A seed of the theme jobs, in which the audit looks at several jobs at once."""

_SCRIPT = """
import sys
from tests.simulation.test_replay import digest, digest_of_jobs
for seed in map(int, sys.argv[1:]):
    print(digest(seed))
print(digest_of_jobs())
"""


def digest(seed: int) -> str:
    """Stands for the log of a seed."""
    return hashlib.sha256(simulate(seed).trace.text().encode()).hexdigest()


def digest_of_jobs() -> str:
    """Stands for that of the seed of jobs."""
    return hashlib.sha256(simulate(OF_JOBS, theme=Theme.JOBS).trace.text().encode()).hexdigest()


def test_a_seed_gives_the_same_log_again_and_another_seed_another() -> None:
    digests = [digest(seed) for seed in SEEDS]
    assert digests == [digest(seed) for seed in SEEDS]
    assert len(set(digests)) == len(SEEDS)


def test_the_log_does_not_depend_on_string_hashes_or_on_what_ran_before() -> None:
    # Other processes, with other hashes of strings, in another order.
    here, jobs_here = {seed: digest(seed) for seed in SEEDS}, digest_of_jobs()
    for hash_seed in ("0", "7"):
        seeds = [str(seed) for seed in reversed(SEEDS)]
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, *seeds],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.split() == [*(here[int(seed)] for seed in seeds), jobs_here]


def test_listening_to_the_engine_s_own_log_does_not_change_the_history() -> None:
    quiet = simulate(SEEDS[0]).trace.lines()
    loud = simulate(SEEDS[0], everything=True).trace.lines()
    assert quiet == [line for line in loud if "   log " not in line]
