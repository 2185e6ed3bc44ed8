"""The parts of `make check`, and where its time went.

The short parts come first and one after the other: the first that fails ends the check. The type checker then runs beside
the tests, which leave a core idle while they wait for real services; its output is shown when the tests are done, so that
the two do not mix.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Final

SHORT: Final = ("format-check", "lint", "imports", "ui-types", "rules")
BESIDE: Final = "types"
TESTS: Final = "test"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """Result of a part."""

    name: str
    code: int
    wall_s: float
    cpu_s: float
    """CPU time of its processes, including those that it started and waited for."""

    def __str__(self) -> str:
        result = "" if self.code == 0 else f"  failed ({self.code})"
        return f"{self.wall_s:8.1f} s  {self.cpu_s:8.1f} s  {self.name}{result}"


class Part:
    """A target of the Makefile that is running."""

    def __init__(self, make: Sequence[str], name: str, output: IO[str] | None = None) -> None:
        self.name = name
        self._began_s = time.monotonic()
        self._process = subprocess.Popen([*make, "--no-print-directory", name], stdout=output, stderr=output)

    def wait(self) -> Ended:
        while True:
            try:
                _, status, used = os.wait4(self._process.pid, 0)
                break
            except KeyboardInterrupt:
                # Ctrl-C goes to the whole process group: the part ends by itself, and says what it has to say.
                continue
        self._process.returncode = code = os.waitstatus_to_exitcode(status)
        wall_s = time.monotonic() - self._began_s
        return Ended(name=self.name, code=code, wall_s=wall_s, cpu_s=used.ru_utime + used.ru_stime)


def check(make: Sequence[str]) -> list[Ended]:
    """Runs the parts, by this command of make; those that have run."""
    ended: list[Ended] = []
    for name in SHORT:
        ended.append(Part(make, name).wait())
        if ended[-1].code:
            return ended
    with tempfile.TemporaryFile("w+") as output:
        beside = Part(make, BESIDE, output)
        ended.append(Part(make, TESTS).wait())
        ended.append(beside.wait())
        output.seek(0)
        sys.stdout.write(output.read())
    return ended


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Ends with 1 if a part failed."""
    parser = argparse.ArgumentParser(prog="python -m infra.check", description=__doc__)
    parser.add_argument("make", nargs="*", default=["make"], help="the command of make; default: make")
    make: list[str] = parser.parse_args(arguments).make
    began_s = time.monotonic()
    ended = check(make)
    lines = ["", "    wall        CPU", *map(str, ended), f"{time.monotonic() - began_s:8.1f} s  in all"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if any(each.code for each in ended) else 0


if __name__ == "__main__":
    sys.exit(main())
