"""docs/jobs.md says what the code does: its triggers are read, and its tables are computed."""

import json
import re
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from clockwork.domain.jobs.interpolation import RunValues, check_interpolation, interpolated
from clockwork.domain.jobs.next_occurrence import Decision, EndedOccurrence, Misfire, MisfirePolicy, next_after_delivery
from clockwork.domain.schedule import DataForm
from clockwork.domain.triggers.trigger import Cron, Trigger
from clockwork.domain.triggers.zones import zone_of
from clockwork.schema.trigger import read_trigger
from tests.unit.cron_times import cron_of, following, ms
from tests.unit.service import open_service

PAGE: Final = (Path(__file__).parents[2] / "docs" / "jobs.md").read_text(encoding="utf-8")
NOW: Final = ms("2026-11-29T12:00")
SUNDAY: Final = "2026-11-29T12:00:00+01:00"
BERLIN: Final = zone_of("Europe/Berlin")


def documents() -> list[dict[str, Any]]:
    """Those with triggers."""
    found = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
    return [each for each in found if "trigger" in each]


def rows_of(heading: str) -> list[list[str]]:
    """The rows of the tables of a section."""
    section = PAGE.partition(f"{heading}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")
    ]


def test_each_trigger_of_the_page_is_read_and_fires() -> None:
    triggers = [read_trigger(document["trigger"], now_ms=NOW) for document in documents()]

    assert len(triggers) >= 4
    assert all(trigger.next_after(NOW) is not None for trigger in triggers)


def test_the_table_of_changes_of_offset_is_what_is_computed() -> None:
    found: list[tuple[str, str]] = []
    for row in rows_of("### Daylight saving time (changes of offset)")[2:]:
        rule, value = row[1].strip("`").split(": ")
        after = ms("2026-03-28T12:00") if rule == "gap" else ms("2026-10-24T12:00")
        cron = cron_of("u", "30 2 * * *", "Europe/Berlin", **{rule: value})
        times = [each for each in following(cron, after, 2) if each < after + 86_400_000]
        found.append(
            (value, " ".join(f"{(each // 60_000) % 1_440 // 60:02}:{each // 60_000 % 60:02}" for each in times))
        )

    assert found == [
        ("next", "01:00"),
        ("shift", "01:30"),
        ("skip", ""),
        ("first", "00:30"),
        ("second", "01:30"),
        ("both", "00:30 01:30"),
    ]


def test_the_table_of_calendars_is_what_is_computed() -> None:
    [document] = [each for each in documents() if "exclude" in each["trigger"]]
    days = {
        on_excluded: read_trigger({**document["trigger"], "onExcluded": on_excluded}, now_ms=NOW).next_after(NOW)
        for on_excluded in ("skip", "next", "previous")
    }

    assert days == {
        "skip": ms("2027-01-25T09:00", "Europe/Berlin"),
        "next": ms("2026-12-28T09:00", "Europe/Berlin"),
        "previous": ms("2026-12-24T09:00", "Europe/Berlin"),
    }


def test_the_table_of_missed_times_is_what_is_decided() -> None:
    trigger, eight = Trigger(rule=cron_of("u", "* * * * *")), ms("2026-11-29T08:30")
    back = ms("2026-11-29T10:21:00.500")

    def decided(policy: str) -> Decision:
        last = EndedOccurrence(scheduled_at_ms=eight, cursor_ms=eight, ended_ms=back, dropped=policy == "skip")
        return next_after_delivery(
            trigger, Misfire(policy=MisfirePolicy(policy)), last, jitter_seed="a/b", runs=1, now_ms=back
        )

    for row in rows_of("## Late, missed, paused")[2:]:
        policy, first, count = row[0].split("`")[1], row[3][:5], int(row[3].rpartition(" ")[2])
        skipped = decided(policy).skipped
        assert skipped is not None
        assert (skipped.first_ms, skipped.count) == (ms(f"2026-11-29T{first}"), count), policy


def times_of(trigger: dict[str, Any], number: int = 3) -> list[str]:
    """The next times from the page's Sunday on, as its table has them."""
    rule = read_trigger({**trigger, "start": SUNDAY}, now_ms=NOW)
    return [shown(at_ms) for at_ms in following(rule, ms(SUNDAY) - 1, number)]


def shown(at_ms: int) -> str:
    """A time as the page's table has it."""
    return BERLIN.local(at_ms)[5:16].replace("T", " ")


async def test_the_four_jobs_fire_as_the_page_says_when_a_preview_is_asked() -> None:
    rows = rows_of("## Four jobs, elsewhere and here")[2:6]
    found: dict[str, str] = {}
    async with open_service() as service, aiohttp.ClientSession(service.url) as session:
        for row in rows:
            asked = {"trigger": json.loads(row[1].strip("`")), "from": SUNDAY, "count": 3}
            async with session.post("/jobs/preview", json=asked) as answer:
                assert answer.status == 200
                times = (await answer.json())["times"]
            found[row[0]] = ", ".join(shown(each["at"]) for each in times)

    assert found == {row[0]: row[2] for row in rows}
    assert len(found) == 4


@pytest.mark.parametrize(
    ("name", "dialect"),
    [("cron", "unix"), ("Quartz", "quartz"), ("Spring's `@Scheduled`", "spring"), ("EventBridge Scheduler", "aws")],
)
def test_what_the_page_says_of_others_names_the_same_times(name: str, dialect: str) -> None:
    rows = rows_of("## Four jobs, elsewhere and here")
    ours = [json.loads(row[1].strip("`")) for row in rows[2:6]]
    [theirs] = [row for row in rows if row[0] == name and len(row) == 5]

    for own, cell in zip(ours[:3], theirs[1:4], strict=True):
        expression = re.findall(r"`(?:cron\()?([^`)]+)\)?`", cell)[0]
        # cron has no word for the last Friday, as its cell says.
        if not (name == "cron" and "asks whether" in cell):
            own = {**own, "exclude": None}
            assert times_of({**own, "expression": expression, "dialect": dialect}) == times_of(own)
    if name == "cron":
        lines = re.findall(r"`([^`]+)`", theirs[4])
        members = [{"type": "cron", "expression": line, "timeZone": "Europe/Berlin"} for line in lines]
        assert times_of({"type": "any", "of": members}, 20) == times_of(ours[3], 20)


def test_the_night_that_is_unlike_others_is_as_the_page_says() -> None:
    rows = [row for row in rows_of("## Four jobs, elsewhere and here") if len(row) == 4 and "`, `" in row[3]]
    for _, spring, autumn, dst in rows:
        gap, overlap = re.findall(r"`(\w+)`", dst)[:2]
        cron = cron_of("u", "30 2 * * *", "Europe/Berlin", gap=gap, overlap=overlap)

        def on(day: str, cron: Cron = cron) -> list[str]:
            after = ms(f"{day}T00:00", "Europe/Berlin")
            return [BERLIN.local(at_ms)[11:] for at_ms in following(cron, after, 2) if at_ms < after + 86_400_000]

        told = [] if spring == "–" else [f"{spring[:5]}:00+02:00"]
        assert on("2026-03-29") == told, dst
        assert [f"{each[:5]}{each[8:]}" for each in on("2026-10-25")] == autumn.split(", "), dst
    assert len(rows) == 7


def test_the_table_of_interpolation_is_what_is_sent() -> None:
    run = RunValues(scheduled_at_ms=ms("2026-03-29T01:00"), previous_at_ms=None, run_id="s1", job_id="j", version=1)
    checked = 0
    for row in rows_of("## Content"):
        if row[0].startswith('`"') and row[1].startswith("`"):
            data = row[0].strip("`").encode()
            check_interpolation(data, DataForm.JSON, job_id="j", bytes_max=1_000)
            assert interpolated(data, DataForm.JSON, run).decode() == row[1].strip("`"), row[0]
            checked += 1
    assert checked == 4
