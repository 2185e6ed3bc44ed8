"""The same seed is the same history, byte for byte."""

import hashlib
import os
import subprocess
import sys

from tests.simulation.run import simulate

SEEDS = (3, 7, 11, 29)

_SCRIPT = """
import hashlib, sys
from tests.simulation.run import simulate
for seed in map(int, sys.argv[1:]):
    print(hashlib.sha256(simulate(seed).trace.text().encode()).hexdigest())
"""


def _digest(seed: int) -> str:
    return hashlib.sha256(simulate(seed).trace.text().encode()).hexdigest()


def test_a_seed_gives_the_same_log_again_and_another_seed_another() -> None:
    digests = [_digest(seed) for seed in SEEDS]
    assert digests == [_digest(seed) for seed in SEEDS]
    assert len(set(digests)) == len(SEEDS)


def test_the_log_does_not_depend_on_string_hashes_or_on_what_ran_before() -> None:
    # Other processes, with other hashes of strings, in another order.
    here = {seed: _digest(seed) for seed in SEEDS}
    for hash_seed in ("1", "4242"):
        seeds = [str(seed) for seed in reversed(SEEDS)]
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, *seeds],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.split() == [here[int(seed)] for seed in seeds]


def test_listening_to_the_engine_s_own_log_does_not_change_the_history() -> None:
    quiet = simulate(SEEDS[0]).trace.lines()
    loud = simulate(SEEDS[0], everything=True).trace.lines()
    assert quiet == [line for line in loud if "   log " not in line]
