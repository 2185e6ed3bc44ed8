"""`python -m clockwork` with a wrong clock: what chaos runs in its place.

The clock is replaced from outside, and not by a setting of the node, so that nothing in the service can be told to lie
about the time. Everything else is the node as it is.
"""

import json
import sys
import time
from collections.abc import Mapping
from os import environ
from typing import Final

from clockwork import __main__
from clockwork.clock import SystemClock
from clockwork.node import app

OFFSET: Final = "CHAOS_CLOCK_OFFSET_MS"
JUMP_AFTER: Final = "CHAOS_CLOCK_JUMP_AFTER_MS"
JUMPED: Final = "chaos.clock_wrong"
"""The line in the node's log that says since when its clock is wrong, by the true one."""


class SkewedClock(SystemClock):
    """A machine whose time has an offset, from the start or from a moment on; like any clock of a node it never steps back,
    but stands still."""

    def __init__(self, *, offset_ms: int, jump_after_ms: int) -> None:
        super().__init__()
        self._offset_us = offset_ms * 1_000
        self._jumps_at_s = time.monotonic() + jump_after_ms / 1_000
        self._wrong = False

    def _machine_us(self) -> int:
        true_us = super()._machine_us()
        if not self._wrong and time.monotonic() >= self._jumps_at_s:
            self._wrong = True
            line = {"event": JUMPED, "true_ms": true_us // 1_000, "offset_ms": self._offset_us // 1_000}
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
        return true_us + (self._offset_us if self._wrong else 0)


def skew(environment: Mapping[str, str]) -> None:
    """Gives every node of this process the wrong clock that the environment describes."""
    offset_ms, jump_after_ms = int(environment[OFFSET]), int(environment[JUMP_AFTER])
    # Patched where the composition root looks it up: that is where a node's one clock is made.
    vars(app)["SystemClock"] = lambda: SkewedClock(offset_ms=offset_ms, jump_after_ms=jump_after_ms)


if __name__ == "__main__":
    skew(environ)
    sys.exit(__main__.main())
