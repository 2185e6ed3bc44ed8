"""The benchmark beside other schedulers: what is asked of their drivers, and the table that comes of it."""

import sys
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import store_for
from tests.benchmarks.figures import Goal
from tests.benchmarks.peers.contenders import Load
from tests.benchmarks.peers.driver import DB_SCHEDULER, RIVER, PeerFailed, answer_in, digest_of, running
from tests.benchmarks.peers.table import AFTER_A_KILL, Measure, Measures, table
from tests.benchmarks.raw_http import all_created

ECHO = (
    "import sys; print('ok ready', flush=True); "
    "[print('error refused' if 'refuse' in line else 'ok ' + line.strip(), flush=True) for line in sys.stdin]"
)
DYING = "import sys; sys.exit('no such database')"


def measured() -> Measures:
    measures = Measures()
    for ours, theirs in ((100, 50), (90, 45), (80, 50)):
        measures.add("Clockwork", "drain", "/s", ours, goal=Goal(bound=1.0, at_least=True, of_ratio=True))
        measures.add("db-scheduler", "drain", "/s", theirs)
    measures.add("Clockwork", "p50", "ms", 4)
    measures.add("River", "p50", "ms", 8)
    measures.add("Clockwork", "CPU of Kafka", "µs", 7, detail=True)
    return measures


async def test_a_driver_is_asked_line_by_line_and_ends_with_its_block(tmp_path: Path) -> None:
    async with running("peer", [sys.executable, "-c", ECHO], tmp_path / "log") as driver:
        answers = [await driver.ask("create", {"count": 3, "topic": "t"}), await driver.ask("stop")]
        used_s = driver.cpu_s()
        with pytest.raises(PeerFailed, match="peer: refused"):
            await driver.ask("refuse")

    assert answers == ["create count=3 topic=t", "stop"]
    assert used_s > 0
    with pytest.raises(PeerFailed, match="ended"):
        await driver.answer()


async def test_a_driver_that_ends_at_its_start_is_an_error_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(PeerFailed, match="ended") as raised:
        async with running("peer", [sys.executable, "-c", DYING], tmp_path / "log"):
            pass

    assert "no such database" in raised.value.__notes__[0]


@pytest.mark.parametrize("line", ["", "error out of disk\n", "Exception in thread main\n"])
def test_whatever_is_no_answer_of_a_driver_is_an_error(line: str) -> None:
    with pytest.raises(PeerFailed, match=line.removeprefix("error ").strip() or "ended"):
        answer_in("peer", line)


def test_a_peer_without_its_tools_is_left_out_by_a_line_that_names_their_packages() -> None:
    assert RIVER.missing(lambda tool: f"/usr/bin/{tool}") is None

    line = DB_SCHEDULER.missing(lambda tool: "/usr/bin/java" if tool == "java" else None)

    assert line is not None
    assert "db-scheduler IS LEFT OUT: no mvn, javac" in line
    assert "apt install maven default-jdk-headless" in line


def test_a_driver_is_built_anew_when_a_source_changes_or_moves(tmp_path: Path) -> None:
    def after(name: str, content: str) -> str:
        (tmp_path / name).write_text(content)
        return digest_of(tmp_path)

    digests = [after("a", "1"), after("a", "1"), after("a", "2"), after("b", "1")]

    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_load_is_due_at_one_moment_or_spread_over_a_time_from_its_creation() -> None:
    at_once = Load(prefix="p", topic="t", count=200, batch=100, callers=4, due_ms=5_000)
    spread = Load(prefix="p", topic="t", count=200, batch=100, callers=4, ahead_ms=6_000, spread_ms=1_000)

    assert {at_once.due_of(n, at_ms=1) for n in range(200)} == {5_000}
    due_ms = {spread.due_of(n, at_ms=10_000) for n in range(200)}
    assert (min(due_ms), len(due_ms)) == (16_000, 200)
    assert max(due_ms) <= 17_000


def test_a_load_of_a_broken_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="no whole batches"):
        Load(prefix="p", topic="t", count=150, batch=100, callers=4)


def test_the_table_has_a_column_for_each_contender_and_a_peers_has_our_ratio_round_by_round() -> None:
    lines = table(measured().all(), on="Measured on a machine").splitlines()

    assert lines[0].startswith("Measured on a machine. Median (from–to)")
    assert lines[2:6] == [
        "|  | Clockwork | db-scheduler | River |",
        "| --- | --- | --- | --- |",
        "| drain, /s | 90 (80–100) | 50 (45–50) · 2.00 × |  |",
        "| p50, ms | 4 |  | 8 · 0.50 × |",
    ]
    assert lines[-1] == AFTER_A_KILL  # and no line of a detail


def test_a_goal_that_is_a_ratio_is_held_against_db_scheduler_alone() -> None:
    goal = Goal(bound=1.0, of_ratio=True)
    measure = Measure(what="p99", unit="ms", goal=goal)
    for name, value in (("Clockwork", 10.0), ("db-scheduler", 20.0), ("River", 5.0)):
        measure.rounds[name].append(value)

    found = {finding.what: finding.met for finding in measure.findings()}

    assert found == {"p99, beside db-scheduler": True, "p99, beside River": None}


def test_a_goal_that_is_a_figure_is_held_against_our_own() -> None:
    measure = Measure(what="creates", unit="/s", goal=Goal(bound=6_500, at_least=True))
    for name, value in (("Clockwork", 6_000.0), ("db-scheduler", 5_000.0)):
        measure.rounds[name].append(value)

    found = {finding.what: finding.met for finding in measure.findings()}

    assert found == {"creates": False, "creates, beside db-scheduler": None}


def test_without_peers_our_own_figures_are_found_alone() -> None:
    measure = Measure(what="creates", unit="/s")
    measure.rounds["Clockwork"].append(1.0)

    assert [(finding.what, finding.yardstick) for finding in measure.findings()] == [("creates", ())]


@pytest.mark.parametrize(
    ("head", "body", "schedules", "created"),
    [
        (b"HTTP/1.1 201 Created", b"", 1, True),
        (b"HTTP/1.1 200 OK", b"", 1, False),
        (b"HTTP/1.1 200 OK", b'{"results":[{"status":201},{"status":201}]}', 2, True),
        (b"HTTP/1.1 200 OK", b'{"results":[{"status":201},{"status":503}]}', 2, False),
        (b"HTTP/1.1 503 Service Unavailable", b"", 2, False),
    ],
)
def test_a_request_counts_as_created_if_all_its_schedules_are(
    head: bytes, body: bytes, schedules: int, created: bool
) -> None:
    assert all_created(head, body, schedules) is created


@pytest.mark.parametrize(
    ("names", "store"),
    [
        (["peers"], "postgresql"),
        (["peers", "snapshot"], "postgresql"),
        (["peers", "drain"], "dynamodb"),
        (["drain"], "dynamodb"),
        ([], "dynamodb"),
    ],
)
def test_scenarios_that_run_on_postgresql_alone_choose_it(names: list[str], store: str) -> None:
    assert store_for(names) == store
