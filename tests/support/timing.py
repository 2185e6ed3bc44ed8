"""The end of a test run's output: figures that tests have noted, and where the time went."""

import resource
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

import pytest

TOLD: Final = "told"
"""The name of the property that holds a noted figure."""
FILES_SHOWN: Final = 15
FILE_S_MIN: Final = 2.0


def told_lines(reports: Iterable[pytest.TestReport]) -> list[str]:
    """The figures, each under the test that noted it."""
    lines = []
    for report in reports:
        told = [str(value) for name, value in report.user_properties if name == TOLD]
        if report.when == "teardown" and told:
            lines += [report.nodeid, *(f"    {line}" for value in told for line in value.splitlines())]
    return lines


def time_lines(reports: Iterable[pytest.TestReport]) -> list[str]:
    """Seconds of all phases (set-up, call, tear-down) of the tests in each folder, then in each of the slowest files."""
    files: defaultdict[str, float] = defaultdict(float)
    for report in reports:
        files[report.nodeid.partition("::")[0]] += report.duration
    folders: defaultdict[str, float] = defaultdict(float)
    for file, seconds in files.items():
        folders[file.rpartition("/")[0]] += seconds
    slowest = [each for each in _longest_first(files)[:FILES_SHOWN] if each[1] >= FILE_S_MIN]
    return [f"{seconds:8.1f} s  {name}" for name, seconds in _longest_first(folders) + slowest]


def _longest_first(seconds: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(seconds.items(), key=lambda item: -item[1])


def cpu_line() -> str:
    """The processor time of this process and of all that it has started and waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    user_s, system_s = (sum(getattr(each, name) for each in used) for name in ("ru_utime", "ru_stime"))
    return f"{user_s + system_s:8.1f} s  of processor time, of which {system_s:.1f} s in the kernel"
