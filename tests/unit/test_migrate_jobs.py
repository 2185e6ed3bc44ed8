"""Jobs of a crontab, and of Quartz's tables, as the file of `clockwork job apply`."""

import tomllib
from typing import Any, Final

import pytest

from clockwork.schema.trigger import read_misfire, read_trigger
from infra.migrate.crontab import jobs_of_crontab
from infra.migrate.quartz import jobs_of_quartz
from tests.unit.cron_times import ms

NOW: Final = ms("2026-11-29T12:00")
FILE: Final[dict[str, Any]] = {"name": "old", "client_id": "shop", "topic": "commands"}

CRONTAB: Final = """\
MAILTO=root@example.org
# Report of the "night"
30 2 * * 1-5 /usr/local/bin/report --to "a b" 'c\\d'

CRON_TZ=Europe/Berlin
0 14 */14 * 3 report x
0 14 1 * 3 report y
@daily  cleanup % input
@reboot start
61 * * * * never
TZ=Mars/Base
*/5 * * * *
"""


def jobs_of(text: str) -> dict[str, dict[str, Any]]:
    """The jobs of a file, each read as the API reads it."""
    parsed = tomllib.loads(text)
    assert parsed["clientId"] == "shop"
    assert parsed["defaults"] == {"delivery": {"topic": "commands"}}
    jobs: dict[str, dict[str, Any]] = parsed.get("jobs", {})
    for job in jobs.values():
        if "trigger" in job:
            read_trigger(job["trigger"], now_ms=NOW)
        read_misfire(job.get("misfire", {}))
    return jobs


def test_each_line_of_a_crontab_becomes_a_job() -> None:
    text = jobs_of_crontab(CRONTAB, **FILE)
    jobs = jobs_of(text)

    assert list(jobs) == ["report", "report-2", "report-3", "cleanup"]
    assert jobs["report"] == {
        "description": 'Report of the "night"',
        "trigger": {"type": "cron", "expression": "30 2 * * 1-5", "dialect": "unix", "timeZone": "UTC"},
        "taskData": {"command": "/usr/local/bin/report --to \"a b\" 'c\\d'"},
        "misfire": {"policy": "skip"},
    }
    # Vixie's cron takes a day that both fields name if one of them begins with *, and a day that either names if none does.
    assert [jobs[name]["trigger"].get("days") for name in ("report-2", "report-3")] == ["and", None]
    assert jobs["report-2"]["trigger"]["timeZone"] == "Europe/Berlin"


@pytest.mark.parametrize(
    "words",
    [
        "# line 1: MAILTO=root@example.org is not carried over",
        "# @reboot is no time",
        "# minute '61' should be within 0 and 59",
        "# line 11: TZ=Mars/Base is no zone",
        "# % in the command",
        "# has no command",
    ],
)
def test_a_crontab_s_lines_that_do_not_map_are_comments(words: str) -> None:
    assert words in jobs_of_crontab(CRONTAB, **FILE)


def test_the_users_of_a_system_crontab_are_part_of_the_data() -> None:
    jobs = jobs_of(jobs_of_crontab("17 * * * * root run-parts /etc/cron.hourly", **FILE, has_users=True))

    assert jobs["run-parts"]["taskData"] == {"command": "run-parts /etc/cron.hourly", "user": "root"}


def trigger_row(name: str, kind: str, **more: Any) -> dict[str, Any]:
    row = {"trigger_name": name, "trigger_group": "DEFAULT", "job_name": "bill", "job_group": "shop"}
    return {**row, "trigger_type": kind, "start_time": NOW, "end_time": 0, "priority": 5, "misfire_instr": 0, **more}


def timing_row(name: str, **columns: Any) -> dict[str, Any]:
    return {"trigger_name": name, "trigger_group": "DEFAULT", **columns}


BILL: Final = {"JOB_NAME": "bill", "JOB_GROUP": "shop", "JOB_CLASS_NAME": "org.example.Bill", "IS_DURABLE": "1"}


def quartz(triggers: list[dict[str, Any]], *, crons: Any = (), simples: Any = (), details: Any = (BILL,)) -> str:
    return jobs_of_quartz(job_details=details, triggers=triggers, cron_triggers=crons, simple_triggers=simples, **FILE)


def test_each_trigger_of_quartz_becomes_a_job() -> None:
    jobs = jobs_of(
        quartz(
            [
                trigger_row("nightly", "CRON", misfire_instr=2, end_time=NOW + 10**12, priority=9),
                trigger_row("often", "SIMPLE", misfire_instr=4),
                trigger_row("thrice", "SIMPLE", misfire_instr=-1),
            ],
            crons=[timing_row("nightly", cron_expression="0 30 2 ? * 2-6", time_zone_id="Europe/Berlin")],
            simples=[
                timing_row("often", repeat_interval=30_000, repeat_count=-1, times_triggered=5),
                timing_row("thrice", repeat_interval=60_000, repeat_count=3, times_triggered=1),
            ],
        )
    )

    data = {"class": "org.example.Bill", "group": "shop", "job": "bill"}
    assert jobs["nightly"] == {
        "misfire": {"policy": "skip"},
        "priority": 9,
        "durable": True,
        "trigger": {
            "type": "cron",
            "expression": "0 30 2 ? * 2-6",
            "dialect": "quartz",
            "timeZone": "Europe/Berlin",
            "start": NOW,
            "end": NOW + 10**12 + 1,
        },
        "taskData": data,
    }
    assert jobs["often"]["trigger"] == {"type": "fixed_rate", "everyMs": 30_000, "anchor": NOW, "start": NOW}
    assert [jobs[name]["misfire"]["policy"] for name in ("often", "thrice")] == ["skip", "fire_all"]
    assert jobs["thrice"]["trigger"]["maxRuns"] == 3


def test_a_job_of_quartz_without_a_trigger_is_run_by_hand() -> None:
    jobs = jobs_of(quartz([], details=[{**BILL, "DESCRIPTION": "By hand"}]))

    assert jobs == {
        "shop-bill": {
            "durable": True,
            "description": "By hand",
            "taskData": {"class": "org.example.Bill", "group": "shop", "job": "bill"},
        }
    }


@pytest.mark.parametrize(
    ("trigger", "timing", "detail", "words"),
    [
        ({"trigger_type": "CAL_INT"}, {}, {}, "a trigger of type CAL_INT"),
        ({"trigger_type": "SIMPLE"}, {"repeat_interval": 10, "repeat_count": -1}, {}, "every 10 ms"),
        ({"trigger_type": "SIMPLE"}, {"repeat_interval": 0, "repeat_count": 0}, {}, "fires once"),
        ({}, {"cron_expression": "0 0 0 * * *"}, {}, "should have ? as day of month"),
        ({}, {"cron_expression": "0 0 0 * * ?", "time_zone_id": "CEST"}, {}, "time zone CEST"),
        ({"calendar_name": "holidays"}, {"cron_expression": "0 0 0 * * ?"}, {}, "calendar holidays"),
        ({"trigger_state": "PAUSED_BLOCKED"}, {"cron_expression": "0 0 0 * * ?"}, {}, "is paused there"),
        ({}, {"cron_expression": "0 0 0 * * ?"}, {"IS_NONCONCURRENT": True}, "must not overlap"),
        ({}, {"cron_expression": "0 0 0 * * ?"}, {"JOB_DATA": b"\xac\xed"}, "JOB_DATA"),
    ],
)
def test_what_quartz_has_and_does_not_map_is_a_comment(
    trigger: dict[str, Any], timing: dict[str, Any], detail: dict[str, Any], words: str
) -> None:
    text = quartz(
        [{**trigger_row("t", "CRON"), **trigger}],
        crons=[timing_row("t", **timing)] if timing else [],
        details=[{**BILL, **detail}],
    )

    jobs_of(text)
    assert any(words in line for line in text.splitlines() if line.startswith("# "))


def test_no_line_break_of_a_foreign_text_ends_a_comment_or_a_string() -> None:
    text = quartz(
        [trigger_row("a\nb]\u2028", "BLOB", description="x")],
        details=[BILL, {**BILL, "JOB_NAME": 'q"\n\x7f\x00', "DESCRIPTION": 'd"\n\x7f'}],
    )

    [job] = jobs_of(text).values()
    assert job["description"] == 'd"\n\x7f'
