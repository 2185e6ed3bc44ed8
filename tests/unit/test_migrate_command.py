"""`python -m infra.migrate crontab`: from a file to jobs of a running service."""

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest
from cronsim import CronSim

from clockwork.client import AsyncClient
from clockwork.clock import SystemClock
from infra.migrate import __main__ as command
from tests.support import builders
from tests.unit.client_stub import FAST, run_command
from tests.unit.cron_times import zone_info
from tests.unit.service import Service, open_service

ZONE = "Europe/Berlin"
CRONTAB = """\
SHELL=/bin/sh
# Every night
30 2 * * * /usr/bin/nightly
*/10 * * * * poll
0 9 * * 1-5 report --day
15 14 1 * * monthly
@reboot serve
"""
LINES = {"nightly": "30 2 * * *", "poll": "*/10 * * * *", "report": "0 9 * * 1-5", "monthly": "15 14 1 * *"}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with open_service() as opened:
        # Both commands judge a file by the wall clock.
        opened.engine.clock.set_ms(SystemClock().now_ms())
        yield opened


def convert(*arguments: str) -> int:
    return command.main(["crontab", *arguments, "--client", "ops", "--topic", builders.TOPIC, "--zone", ZONE])


async def test_a_crontab_runs_on_as_jobs_at_the_times_at_which_cron_would_run_it(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, made = tmp_path / "tab", tmp_path / "jobs.toml"
    given.write_text(CRONTAB)

    assert convert(str(given), "--output", str(made), "--name", "old-cron") == 3
    said = capsys.readouterr()
    assert (said.out, said.err.splitlines()) == (
        "",
        [
            f"migrate: {given}:7: left out: @reboot serve: @reboot is no time: start it as a service of that machine",
            "migrate: 4 converted, 0 held, 1 left out",
        ],
    )
    result = await run_command(service.url, "job", "apply", str(made), timeout_ms=30_000)
    assert result.exit_code == 0, result.output

    now_ms = service.engine.clock.now_ms()
    async with AsyncClient(service.url, retries=FAST, clock=service.engine.clock) as client:
        for job_id, line in LINES.items():
            job = await client.get_job("ops", job_id, next_times=8)
            cron = CronSim(line, datetime.fromtimestamp(now_ms / 1_000, zone_info(ZONE)))
            assert [each.at_ms for each in job.next_times or ()] == [
                round(next(cron).timestamp() * 1_000) for _ in range(8)
            ]
            assert job.labels == {"jobs-file": "old-cron"}
        nightly = await client.get_job("ops", "nightly")
        assert nightly.description == "Every night"
        assert nightly.task_data == {"command": "/usr/bin/nightly", "environment": {"SHELL": "/bin/sh"}}


def test_the_file_goes_to_stdout_unless_another_place_is_named_and_never_over_one_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "tab"
    given.write_text("0 9 * * * report\n")

    assert convert(str(given)) == 0
    text = capsys.readouterr().out
    assert "[jobs.report]" in text

    made = tmp_path / "jobs.toml"
    assert convert(str(given), "--output", str(made)) == 0
    assert made.read_text() == text
    made.write_text("worked on")
    capsys.readouterr()
    assert convert(str(given), "--output", str(made)) == 2
    assert capsys.readouterr().err == f"migrate: stopped: {made}: File exists\n"
    assert made.read_text() == "worked on"


@pytest.mark.parametrize(
    ("content", "more", "words"),
    [
        (None, [], "tab: No such file"),
        (b"\xff", [], "tab is not UTF-8 at byte 0"),
        (b"", ["--zone", "Mars/Base"], "--zone Mars/Base is no time zone"),
        (b"", ["--client", "a/b"], "--name, --client or --topic: line 2: clientId"),
        (b"", ["--topic", "a b"], "delivery.topic"),
        (b"", ["--name", "n" * 200], "name: should be at most"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    content: bytes | None, more: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "tab"
    if content is not None:
        given.write_bytes(content)

    assert command.main(["crontab", str(given), "--client", "ops", "--topic", "t", *more]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert len(said.err.splitlines()) == 1


def test_a_database_that_does_not_answer_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    database = "postgresql://nobody@127.0.0.1:1/none"
    arguments = ["quartz", database, "--client", "shop", "--topic", "t", "--zone", "UTC"]

    assert command.main(arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("migrate: stopped: the database does not answer as it should: ")
    assert command.main([*arguments, "--prefix", "x; DROP"]) == 2
    assert "--prefix" in capsys.readouterr().err
