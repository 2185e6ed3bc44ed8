"""Jobs of a crontab, and of Quartz's tables, as the file of `clockwork job apply`; their fire times are those of before."""

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any, Final

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from clockwork.cli.jobs_file import read_jobs_file
from clockwork.schema.trigger import read_misfire, read_trigger
from infra.migrate import crontab, quartz
from infra.migrate.crontab import entries_of_crontab
from infra.migrate.jobs_toml import Entry, Target, checked, is_complete, jobs_file, report
from infra.migrate.quartz import Tables, entries_of_quartz
from tests.support import quartz as written
from tests.unit.cron_times import following, ms, zone_info

NOW: Final = ms("2026-11-29T12:00")
TARGET: Final = Target(name="old", client_id="shop", topic="commands")

CRONTAB: Final = """\
MAILTO=root@example.org
PATH="/usr/bin:/bin"
# Report of the "night"
30 2 * * 1-5 /usr/local/bin/report --to "a b" 'c\\d'

CRON_TZ=Europe/Berlin
0 14 */14 * 3 report x
0 14 1 * 3 report y
*/30 2 * * * half
RANDOM_DELAY=45
-@daily  cleanup 100\\%%first%second
RANDOM_DELAY=soon
@reboot start
61 * * * * never
5/15 * * * * steps
0 0 30 2 * february
*/5 * * * *
CRON_TZ=Mars/Base
0 0 * * * lost
"""


def entries_of(text: str, **more: Any) -> list[Entry]:
    return checked(entries_of_crontab(text, file="t", **more), TARGET, now_ms=NOW)


def jobs_of(entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """The jobs of a file, each read as the API reads it."""
    parsed = tomllib.loads(jobs_file(entries, TARGET))
    assert (parsed["name"], parsed["clientId"]) == ("old", "shop")
    assert parsed["defaults"] == {"delivery": {"topic": "commands"}}
    jobs: dict[str, dict[str, Any]] = parsed.get("jobs", {})
    for job in jobs.values():
        if "trigger" in job:
            read_trigger(job["trigger"], now_ms=NOW)
        read_misfire(job.get("misfire", {}))
    return jobs


# --- crontab


def test_each_line_of_a_crontab_becomes_a_job() -> None:
    jobs = jobs_of(entries_of(CRONTAB))

    assert list(jobs) == ["report", "report-2", "report-3", "half", "cleanup"]
    assert jobs["report"] == {
        "description": 'Report of the "night"',
        "trigger": {"type": "cron", "expression": "30 2 * * 1-5", "dialect": "unix", "timeZone": "UTC"},
        "taskData": {
            "command": "/usr/local/bin/report --to \"a b\" 'c\\d'",
            "environment": {"MAILTO": "root@example.org", "PATH": "/usr/bin:/bin"},
        },
        "misfire": {"policy": "skip"},
    }
    # Vixie's cron takes a day that both fields name if one of them begins with *, and a day that either names if none does.
    assert [jobs[name]["trigger"].get("days") for name in ("report-2", "report-3")] == ["and", None]
    assert jobs["report-2"]["trigger"]["timeZone"] == "Europe/Berlin"
    # A line whose minute begins with * it runs by the clock as it is, also where that leaves out an hour, or has it twice.
    dst = {"gap": "skip", "overlap": "both"}
    assert [jobs[name]["trigger"].get("dst") for name in ("report-3", "half")] == [None, dst]
    assert jobs["cleanup"]["trigger"]["jitterMs"] == 45 * 60_000
    assert {"command": "cleanup 100%", "stdin": "first\nsecond"}.items() <= jobs["cleanup"]["taskData"].items()


def test_each_line_of_a_crontab_without_an_equal_is_reported_with_its_reason() -> None:
    entries = entries_of(CRONTAB)

    lines = report(entries)
    for begin in (
        "t:1: setting: MAILTO=root@example.org: nothing is mailed: ",
        "t:12: setting: RANDOM_DELAY=soon: is no delay that a job can have: ",
        "t:13: left out: @reboot start: @reboot is no time: ",
        "t:14: left out: 61 * * * * never: minute '61' should be within 0 and 59: ",
        "t:15: left out: 5/15 * * * * steps: 5/15: cron takes 5 alone, or refuses the file: write 5-…/15, or 5",
        "t:16: left out: 0 0 30 2 * february: trigger.expression: never fires",
        "t:17: left out: */5 * * * *: has no command: ",
        "t:19: left out: 0 0 * * * lost: CRON_TZ=Mars/Base at t:18 is no time zone of the IANA database",
    ):
        assert [line for line in lines if line.startswith(begin)], begin
    assert lines[-1] == "5 converted, 0 held, 6 left out"
    assert len(lines) == 9
    assert not is_complete(entries)
    assert all(any(line.startswith("# t:19") for line in jobs_file(entries, TARGET).splitlines()) for _ in lines)


def test_a_crontab_of_which_all_is_converted_is_complete() -> None:
    entries = entries_of("MAILTO=ops\n0 9 * * * report\n")

    assert is_complete(entries)
    assert report(entries)[-1] == "1 converted, 0 held, 0 left out"


WORDS: Final = st.sampled_from(
    [
        *(
            "0",
            "*",
            "*/5",
            "MON",
            "1-5",
            "5/15",
            "L",
            "@daily",
            "@reboot",
            "root",
            "%",
            "\\%",
            "'",
            '"',
            "\x00",
            "é",
            "=",
            "#",
        ),
        *("CRON_TZ=Europe/Berlin", "RANDOM_DELAY=", "x" * 300, "[a]", "]", "${", "\ud7ff", "\u2028"),
    ]
)


@given(st.lists(st.lists(WORDS, max_size=9), max_size=6), st.booleans())
def test_whatever_stands_in_a_crontab_the_file_is_one_that_can_be_applied(lines: list[list[str]], system: bool) -> None:
    entries = entries_of(
        "\n".join(" ".join(line) for line in lines) + "\nCRON_TZ=UTC\n0 9 * * * root last", has_users=system
    )

    made = read_jobs_file(jobs_file(entries, TARGET).encode(), profile=None, now_ms=NOW)
    assert len(made.jobs) == sum(entry.outcome == "converted" for entry in entries)


def test_lines_of_a_crontab_end_at_line_feeds_alone() -> None:
    jobs = jobs_of(entries_of("0 9 * * * print a\x0cb\u2028c\r\n0 9 * * * next"))

    assert [job["taskData"]["command"] for job in jobs.values()] == ["print a\x0cb\u2028c", "next"]


def test_the_users_of_a_system_crontab_are_part_of_the_data() -> None:
    jobs = jobs_of(entries_of("17 * * * * root run-parts /etc/cron.hourly", has_users=True))

    assert jobs["run-parts"]["taskData"] == {"command": "run-parts /etc/cron.hourly", "user": "root"}


@pytest.mark.parametrize("day", ["2026-03-27", "2026-10-23", "2026-04-03", "2026-10-02", "2026-02-27"])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize(
    "expression",
    [
        "30 2 * * *",
        "0 * * * *",
        "*/20 2 * * *",
        "*/15 * * * *",
        "0 2-4 * * *",
        "0 9 1 * 1",
        "0 9 */2 * 1-5",
        "@hourly",
        "0 0 31 * *",
    ],
)
def test_a_line_of_a_crontab_fires_when_cron_would_run_it(expression: str, zone: str, day: str) -> None:
    # cronsim has the rules of Debian's cron, those for changes of the clock among them.
    [entry] = entries_of(f"CRON_TZ={zone}\n{expression} command")
    assert entry.fields is not None
    trigger = read_trigger(entry.fields["trigger"], now_ms=NOW)
    spelled = "0 * * * *" if expression == "@hourly" else expression
    cron = CronSim(spelled, datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=zone_info(zone)))

    assert following(trigger, ms(f"{day}T12:00", zone), 60) == [
        round(next(cron).timestamp() * 1_000) for _ in range(60)
    ]


# --- Quartz


@cache
def entries_of_written(scheduler: str = "shop", **more: Any) -> list[Entry]:
    return checked(entries_of_quartz(written.tables(scheduler), time_zone=written.ZONE, **more), TARGET, now_ms=NOW)


def test_each_trigger_that_quartz_stored_becomes_a_job() -> None:
    entries = entries_of_written()
    jobs = jobs_of(entries)

    of_report = {"class": "WriteJobs$Report", "group": "DEFAULT", "job": "report"}
    assert jobs["unmissed"] == {
        "description": "Sales of the day before",
        "misfire": {"policy": "skip"},
        "priority": 9,
        "durable": True,
        "trigger": {
            "type": "cron",
            "expression": "0 0 3 1 * ?",
            "dialect": "quartz",
            "timeZone": "Europe/Berlin",
            "dst": {"gap": "skip", "overlap": "second"},
            "start": written.STARTED_MS,
            "end": ms("2099-01-01T00:00") + 1,
        },
        # The trigger's data are laid over the job's.
        "taskData": {
            **of_report,
            "data": {"region": "us", "limit": 100, "share": 0.25, "dry": False, "since": 1_700_000_000_000, "tries": 3},
        },
    }
    assert jobs["every-90-minutes"]["trigger"] == {
        "type": "fixed_rate",
        "everyMs": 5_400_000,
        "start": written.STARTED_MS,
    }
    assert jobs["ten-times"]["trigger"]["maxRuns"] == 10
    assert jobs["in-gmt"]["trigger"]["timeZone"] == "Etc/GMT-2"
    assert jobs["every-other-week"]["trigger"]["rule"] == "FREQ=WEEKLY;INTERVAL=2"
    assert [member["expression"] for member in jobs["office-hours"]["trigger"]["of"]] == [
        "0 0 8,11,14,17 ? * MON,TUE,WED,THU,FRI",
        "0 30 9,12,15 ? * MON,TUE,WED,THU,FRI",
    ]
    assert jobs["not-when-closed"]["trigger"]["exclude"] == {"annual": ["12-24"], "weekdays": ["SAT", "SUN"]}
    assert jobs["not-on-holidays"]["trigger"]["exclude"] == {"dates": ["2026-12-25", "2027-01-01"]}
    assert jobs["not-at-night"]["trigger"]["exclude"] == {"cron": ["* 0-7 * * *"]}
    policies = [jobs[name]["misfire"]["policy"] for name in ("nightly", "all-missed", "every-90-minutes")]
    assert policies == ["fire_once", "fire_all", "skip"]
    assert jobs["by-hand"] == {
        "durable": True,
        "taskData": {"class": "WriteJobs$Report", "group": "DEFAULT", "job": "by-hand"},
    }


def test_what_quartz_stored_and_has_no_equal_is_reported_with_its_reason() -> None:
    entries = entries_of_written()

    found = {entry.where: (entry.outcome, " / ".join(remark.why for remark in entry.remarks)) for entry in entries}
    assert {where: told for where, told in found.items() if told[0] != "converted"} == {
        "trigger month-ends": ("left out", "its day is not in all months, and Quartz moves it for good"),
        "trigger moody": ("left out", "a trigger of type BLOB is a class of its user's"),
        "trigger odd-intervals": ("left out", "fires at 1123 different minutes and seconds of the hour"),
        "trigger once": ("left out", "fires once"),
        "trigger too-often": ("left out", "fires every 100 ms; a job does at most each second"),
        "trigger paused": ("held", "is paused there / its JOB_DATA has an object of class WriteJobs$Order"),
    }
    assert "must not overlap and it asks for recovery" in found["trigger all-missed"][1]
    assert report(entries)[-1] == "22 converted, 1 held, 5 left out"
    # A held job fires nothing until its trigger is no comment any more.
    text = jobs_file(entries, TARGET)
    job = tomllib.loads(text)["jobs"]["paused"]
    assert ("trigger" in job, job["durable"]) == (False, True)
    held = text[text.index("[jobs.paused]") :].replace("# trigger = ", "trigger = ", 1)
    assert tomllib.loads(held)["jobs"]["paused"]["trigger"]["expression"] == "0 0 12 * * ?"


@pytest.mark.parametrize("window", ["first", "spring", "autumn", "later"])
@pytest.mark.parametrize("name", sorted(written.FIRE_TIMES.keys() - written.SKIPS_MONTHS - {"once", "month-ends"}))
def test_a_trigger_of_quartz_fires_when_quartz_would_fire_it(name: str, window: str) -> None:
    [entry] = [each for each in entries_of_written() if each.where == f"trigger {name}"]
    assert entry.fields is not None
    wanted = written.FIRE_TIMES[name][window]
    trigger = read_trigger(entry.fields["trigger"], now_ms=NOW)

    if wanted:
        assert following(trigger, wanted[0] - 1, len(wanted)) == wanted


@pytest.mark.parametrize("name", sorted(written.SKIPS_MONTHS))
def test_a_trigger_of_which_quartz_skips_months_fires_in_each_of_them(name: str) -> None:
    [entry] = [each for each in entries_of_written() if each.where == f"trigger {name}"]
    assert entry.fields is not None
    trigger = read_trigger(entry.fields["trigger"], now_ms=NOW)

    found = following(trigger, written.STARTED_MS, 24)

    assert set(written.FIRE_TIMES[name]["first"]) < set(found)
    assert [remark.why for remark in entry.remarks] == ["Quartz up to 2.5 leaves out some months of L and W"]


def test_data_that_quartz_stored_as_texts_are_read() -> None:
    [entry] = entries_of_written("plain")

    assert entry.fields is not None
    assert entry.fields["taskData"]["data"] == {"region": "eu = west", "note": "café: 5 %"}


def test_runs_that_must_not_overlap_get_a_completion_if_a_time_out_is_given() -> None:
    jobs = jobs_of(entries_of_written(timeout_ms=600_000))

    assert jobs["all-missed"]["overlap"] == "wait"
    assert jobs["all-missed"]["completion"] == {"timeoutMs": 600_000, "retry": {"attempts": 2}, "retryOn": ["timeout"]}
    assert "completion" not in jobs["nightly"]


def with_calendar(trigger: str, calendar: str) -> Entry:
    """The entry of a trigger as if it had been stored with this calendar."""
    stored = written.tables("shop")
    rows = [{**row, "calendar_name": calendar} if row["trigger_name"] == trigger else row for row in stored.triggers]
    made = entries_of_quartz(replace(stored, triggers=rows), time_zone=written.ZONE)
    [entry] = [each for each in checked(made, TARGET, now_ms=NOW) if each.where == f"trigger {trigger}"]
    return entry


def test_a_calendar_counts_for_each_part_of_a_trigger_and_a_trigger_without_days_is_held() -> None:
    entry = with_calendar("office-hours", "closed")
    assert entry.fields is not None
    trigger = read_trigger(entry.fields["trigger"], now_ms=NOW)
    # The 24th of December is closed.
    assert trigger.next_after(ms("2026-12-23T17:00", "Europe/Berlin")) == ms("2026-12-25T08:00", "Europe/Berlin")

    entry = with_calendar("every-90-minutes", "closed")
    assert entry.outcome == "held"
    assert "closed is of a trigger that has no days here" in entry.remarks[0].why


def trigger_row(name: str, kind: str, **more: Any) -> dict[str, Any]:
    row = {"trigger_name": name, "trigger_group": "DEFAULT", "job_name": "bill", "job_group": "shop"}
    return {**row, "trigger_type": kind, "start_time": NOW, "end_time": 0, "priority": 5, "misfire_instr": 0, **more}


BILL: Final = {"JOB_NAME": "bill", "JOB_GROUP": "shop", "JOB_CLASS_NAME": "org.example.Bill", "IS_DURABLE": "1"}
EACH_SECOND: Final = {"repeat_interval": 1_000}
DAILY: Final = {"cron_expression": "0 0 0 * * ?"}


def one_entry(trigger: dict[str, Any], timing: dict[str, Any], detail: dict[str, Any] | None = None) -> Entry:
    named = {"trigger_name": "t", "trigger_group": "DEFAULT"}
    made = Tables(
        job_details=[{**BILL, **(detail or {})}],
        triggers=[{**trigger_row("t", "CRON"), **trigger}],
        cron_triggers=[{**named, **timing}] if timing else [],
    )
    return checked(entries_of_quartz(made, time_zone="UTC"), TARGET, now_ms=NOW)[0]


@pytest.mark.parametrize(
    ("kind", "instruction", "repeats", "policy"),
    [
        # As Quartz 2.5.0 moved a trigger that had been missed for three days: to now, or to its next time.
        ("SIMPLE", 0, -1, "skip"),
        ("SIMPLE", 0, 1_000, "fire_once"),
        ("SIMPLE", 1, -1, "fire_once"),
        ("SIMPLE", 2, -1, "fire_once"),
        ("SIMPLE", 3, -1, "fire_once"),
        ("SIMPLE", 4, -1, "skip"),
        ("SIMPLE", 5, -1, "skip"),
        ("SIMPLE", -1, -1, "fire_all"),
        ("CRON", 0, 0, "fire_once"),
        ("CRON", 1, 0, "fire_once"),
        ("CRON", 2, 0, "skip"),
        ("CRON", -1, 0, "fire_all"),
    ],
)
def test_what_was_missed_is_treated_as_quartz_would(kind: str, instruction: int, repeats: int, policy: str) -> None:
    timing = {**DAILY, "repeat_interval": 3_600_000, "repeat_count": repeats}
    entry = one_entry({"trigger_type": kind, "misfire_instr": instruction}, timing)

    assert entry.fields is not None
    assert entry.fields["misfire"]["policy"] == policy
    # Of simple triggers Quartz also moves all times that follow.
    assert bool(entry.remarks) == (kind == "SIMPLE" and policy == "fire_once")


@pytest.mark.parametrize(
    ("trigger", "timing", "detail", "outcome", "words"),
    [
        ({"trigger_type": "SIMPLE"}, {"repeat_interval": 0, "repeat_count": 3}, {}, "left out", "every 0 ms"),
        (
            {"trigger_type": "SIMPLE"},
            {**EACH_SECOND, "repeat_count": 3, "times_triggered": 4},
            {},
            "left out",
            "as often",
        ),
        ({"trigger_state": "COMPLETE"}, DAILY, {}, "left out", "has ended"),
        ({"end_time": NOW - 1}, DAILY, {}, "left out", "trigger"),
        ({}, {}, {}, "left out", "timing row is missing"),
        ({}, {"cron_expression": "0 0 0 * * *"}, {}, "left out", "should have ? as day of month"),
        ({}, {**DAILY, "time_zone_id": "CEST"}, {}, "left out", "time zone CEST"),
        ({"calendar_name": "gone"}, DAILY, {}, "held", "calendar gone is not among the calendars"),
        ({"job_name": "gone"}, DAILY, {}, "held", "QRTZ_JOB_DETAILS is missing"),
        ({}, DAILY, {"JOB_DATA": b"\xac\xed\x00\x05\x73"}, "held", "JOB_DATA is cut off"),
        ({}, DAILY, {"JOB_DATA": b"\xac\xed\x00\x05\x70"}, "held", "JOB_DATA is no JobDataMap"),
        ({"trigger_state": "ERROR"}, DAILY, {}, "converted", "state ERROR"),
    ],
)
def test_what_quartz_has_and_does_not_map_is_left_out_held_or_noted(
    trigger: dict[str, Any], timing: dict[str, Any], detail: dict[str, Any], outcome: str, words: str
) -> None:
    entry = one_entry(trigger, timing, detail)

    assert entry.outcome == outcome
    assert any(words in remark.why for remark in entry.remarks), entry.remarks


@given(st.data())
def test_damaged_objects_of_java_are_not_understood_and_break_nothing(data: st.DataObject) -> None:
    stored = [bytes(each["calendar"]) for each in written.rows("calendars")]
    stored += [bytes(each["job_data"]) for each in written.rows("job_details") if each["sched_name"] == "shop"]
    damaged = bytearray(data.draw(st.sampled_from(stored)))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(4, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(5, len(damaged)))])
    row = {"calendar_name": "c", "calendar": cut}
    made = Tables(
        job_details=[{**BILL, "JOB_DATA": cut}],
        triggers=[trigger_row("t", "CRON", calendar_name="c")],
        cron_triggers=[{"trigger_name": "t", "trigger_group": "DEFAULT", **DAILY}],
        calendars=[row],
    )

    [entry] = checked(entries_of_quartz(made, time_zone="UTC"), TARGET, now_ms=NOW)
    assert entry.outcome in ("held", "left out", "converted")
    jobs_of([entry])


def test_no_line_break_of_a_foreign_text_ends_a_comment_a_string_or_a_line_of_the_report() -> None:
    made = Tables(
        job_details=[BILL, {**BILL, "JOB_NAME": 'q"\n\x7f\x00', "DESCRIPTION": 'd"\n\x7f'}],
        triggers=[trigger_row("a\nb]\u2028", "BLOB")],
    )
    entries = entries_of_quartz(made, time_zone="UTC")

    [job] = jobs_of(entries).values()
    assert job["description"] == 'd"\n\x7f'
    assert not [line for line in report(entries) if len(line.splitlines()) > 1]


def test_both_files_say_what_the_consumer_has_to_do() -> None:
    for comments in (crontab.COMMENTS, quartz.COMMENTS):
        assert jobs_file([], TARGET, comments=comments).startswith("# Each taskData ")
