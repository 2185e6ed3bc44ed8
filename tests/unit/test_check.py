"""`make check` runs every part, tells the time of each, and fails if one of them does."""

import sys
from pathlib import Path

import pytest

from infra.check import BESIDE, SHORT, TESTS, main


def make(folder: Path, *failing: str) -> list[str]:
    """A command in the place of make: notes its target, and fails if it is one of these."""
    script = folder / "make.py"
    script.write_text(
        f"import sys\nname = sys.argv[-1]\nopen({str(folder / 'ran')!r}, 'a').write(name + '\\n')\n"
        f"print('output of', name)\nsys.exit(name in {failing!r})\n"
    )
    return [sys.executable, str(script)]


def ran(folder: Path) -> set[str]:
    return set((folder / "ran").read_text().split())


def test_all_parts_run_and_each_is_listed_with_its_time(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(make(tmp_path)) == 0
    assert ran(tmp_path) == {*SHORT, BESIDE, TESTS}
    said = capfd.readouterr().out
    assert f"output of {BESIDE}" in said
    listed = said.partition("CPU")[2]
    assert all(f" s  {name}\n" in listed for name in (*SHORT, BESIDE, TESTS))


@pytest.mark.parametrize("failing", [BESIDE, TESTS])
def test_a_failure_beside_the_other_fails_the_check_after_both(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], failing: str
) -> None:
    assert main(make(tmp_path, failing)) == 1
    assert ran(tmp_path) == {*SHORT, BESIDE, TESTS}
    assert f"{failing}  failed (1)" in capfd.readouterr().out


def test_a_failure_of_a_short_part_ends_the_check(tmp_path: Path) -> None:
    assert main(make(tmp_path, SHORT[1])) == 1
    assert ran(tmp_path) == set(SHORT[:2])
