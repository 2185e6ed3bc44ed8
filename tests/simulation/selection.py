"""The part of the simulation that runs: all of it in `make sim`, some in `make test`.

The part is drawn by a digest of the sources. So the same code has the same draw, a failure can be repeated, and a run
does not turn red without a change; each change draws other histories and other mutations. Git and the date were
considered instead: an archive has no history, and a date would change the verdict on code that stayed the same.
Histories written by hand (`test_scripted`) always run, each with and without its rule.
"""

import hashlib
import os
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

FULL: Final = os.environ.get("SIMULATION") == "full"
HISTORIES: Final = 40
HISTORIES_OF_A_THEME: Final = 2
MUTATIONS: Final = 8

_ROOT: Final = Path(__file__).parents[2]
_SOURCES: Final = ("clockwork", "tests/simulation")


@cache
def draw() -> int:
    """The number that stands for these sources: from it follows what runs."""
    digest = hashlib.sha256()
    for folder in _SOURCES:
        for path in sorted((_ROOT / folder).rglob("*.py")):
            digest.update(path.relative_to(_ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return int.from_bytes(digest.digest()[:4], "big")


def some(of: Sequence[T], count: int) -> Sequence[T]:
    """So many of them, in their order; all of them in a full run."""
    if FULL:
        return of
    chosen = set(random.Random(draw()).sample(range(len(of)), min(count, len(of))))
    return [each for number, each in enumerate(of) if number in chosen]


def seeds(full: range, count: int) -> range:
    """So many seeds from the number that was drawn; the given ones in a full run."""
    return full if FULL else range(draw(), draw() + count)


def text() -> str:
    """One line for the head of a test run."""
    if FULL:
        return "all of it"
    return (
        f"{HISTORIES} histories, {HISTORIES_OF_A_THEME} of each theme, {MUTATIONS} mutations by draw {draw()}; "
        "all of it: make sim"
    )
