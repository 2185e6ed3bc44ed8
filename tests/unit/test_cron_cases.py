"""Cases from users' threads about other schedulers, with the right values: cron expressions and zones. Other cases are where
their subject is: misfire and rates (test_misfire.py), rules of iCalendar (test_recurrence.py), changes, overlaps and
completions (test_job_steps.py, test_requests_completion.py), the audit (test_job_audit.py).

Each of the fifty is named by its number, here in `CASES`, elsewhere in a comment; one number may have several tests.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from clockwork.domain.triggers.cron import Days
from clockwork.domain.triggers.trigger import Trigger, check_fires, cron
from clockwork.errors import InvalidInput
from tests.unit.cron_times import apart, cron_of, following, local, ms

BERLIN, LORD_HOWE, NEW_YORK = "Europe/Berlin", "Australia/Lord_Howe", "America/New_York"

# (case, dialect, expression, zone, after: by the zone's clock, next times, rules that are not the default)
CASES: list[tuple[str, str, str, str, str, str, dict[str, Any]]] = [
    (
        "1 gap",
        "u",
        "30 2 * * *",
        BERLIN,
        "2026-03-28T12:00",
        "2026-03-29T03:00+02:00 2026-03-30T02:30+02:00",
        {},
    ),
    (
        "1 overlap",
        "u",
        "30 2 * * *",
        BERLIN,
        "2026-10-24T12:00",
        "2026-10-25T02:30+02:00 2026-10-26T02:30+01:00",
        {},
    ),
    ("2", "u", "0 2 * * *", BERLIN, "2023-10-28T12:00", "2023-10-29T02:00+02:00 2023-10-30T02:00+01:00", {}),
    ("3", "u", "0 2 * * *", "US/Pacific", "2025-03-08T12:00", "2025-03-09T03:00-07:00 2025-03-10T02:00-07:00", {}),
    ("3 skip", "u", "0 2 * * *", "US/Pacific", "2025-03-08T12:00", "2025-03-10T02:00-07:00", {"gap": "skip"}),
    ("4", "s", "0 0 1 * * *", "US/Pacific", "2014-11-01T12:00", "2014-11-02T01:00-07:00 2014-11-03T01:00-08:00", {}),
    ("5", "u", "0 2 * * *", NEW_YORK, "2019-03-09T12:00", "2019-03-10T03:00-04:00 2019-03-11T02:00-04:00", {}),
    ("6 unix", "u", "0 1 4 11 *", "America/Sao_Paulo", "2018-11-03T23:00", "2018-11-04T01:00-02:00", {}),
    ("6 quartz", "q", "0 0 1 ? * 1", "America/Sao_Paulo", "2018-11-03T23:00", "2018-11-04T01:00-02:00", {}),
    (
        "7",
        "u",
        "0 0 * * 0",
        "America/Santiago",
        "2022-08-21T00:00",
        "2022-08-28T00:00-04:00 2022-09-04T00:00-04:00 2022-09-11T01:00-03:00 2022-09-18T00:00-03:00",
        {},
    ),
    ("9", "u", "30 2 * * *", LORD_HOWE, "2019-10-05T12:00", "2019-10-06T02:30+11:00", {}),
    (
        "9 hourly",
        "u",
        "0 * * * *",
        LORD_HOWE,
        "2019-10-06T01:43",
        "2019-10-06T03:00+11:00 2019-10-06T04:00+11:00",
        {},
    ),
    (
        "10",
        "u",
        "* 3,14,18 * 10-12 0",
        LORD_HOWE,
        "2026-10-03T12:00",
        "2026-10-04T03:00+11:00 2026-10-04T03:01+11:00",
        {},
    ),
    ("11 gap", "u", "15 2 * * *", LORD_HOWE, "2026-10-03T12:00", "2026-10-04T02:30+11:00", {}),
    (
        "11 overlap",
        "u",
        "45 1 * * *",
        LORD_HOWE,
        "2026-04-04T12:00",
        "2026-04-05T01:45+11:00 2026-04-06T01:45+10:30",
        {},
    ),
    (
        "12",
        "u",
        "30 * * * *",
        "Europe/Helsinki",
        "2017-10-29T02:45",
        "2017-10-29T03:30+03:00 2017-10-29T03:30+02:00 2017-10-29T04:30+02:00",
        {},
    ),
    (
        "13",
        "u",
        "0 1-23/2 * * *",
        "Europe/Lisbon",
        "2024-10-26T23:30",
        "2024-10-27T01:00+01:00 2024-10-27T03:00+00:00 2024-10-27T05:00+00:00",
        {},
    ),
    ("14", "u", "0 0 * * 1-5", "US/Central", "2021-03-12T00:00", "2021-03-15T00:00-05:00", {}),
    ("15", "u", "0 8 * * 1,2,3,4,5", NEW_YORK, "2018-11-02T09:00", "2018-11-05T08:00-05:00", {}),
    (
        "16",
        "u",
        "0 20 * * *",
        "Europe/Paris",
        "2022-10-30T00:00",
        "2022-10-30T20:00+01:00 2022-10-31T20:00+01:00",
        {},
    ),
    ("17", "u", "0 0 * * *", "Europe/Warsaw", "2017-03-26T00:00", "2017-03-27T00:00+02:00", {}),
    ("18", "s", "30 55 5,11,17 * * *", "Europe/Madrid", "2023-03-25T20:54:04+00:00", "2023-03-26T05:55:30+02:00", {}),
    ("19", "s", "1 0 18 * * *", "Europe/Dublin", "2025-03-29T18:00:01", "2025-03-30T18:00:01+01:00", {}),
    ("20", "u", "30 1 * * *", "UTC", "2022-10-29T23:50:54", "2022-10-30T01:30+00:00", {}),
    (
        "21",
        "u",
        "0 12 * * 1",
        "Europe/Amsterdam",
        "2013-10-27T12:00",
        "2013-10-28T12:00+01:00 2013-11-04T12:00+01:00",
        {},
    ),
    (
        "23 daily",
        "u",
        "0 12 * * *",
        "Pacific/Apia",
        "2011-12-28T13:00",
        "2011-12-29T12:00-10:00 2011-12-31T12:00+14:00",
        {},
    ),
    ("23 the 30th", "u", "0 12 30 * *", "Pacific/Apia", "2011-12-28T13:00", "2012-01-30T12:00+14:00", {}),
    (
        "24 overlap",
        "u",
        "30 2 * * *",
        "Africa/Casablanca",
        "2026-02-14T12:00",
        "2026-02-15T02:30+01:00 2026-02-16T02:30+00:00",
        {},
    ),
    ("24 gap", "u", "30 2 * * *", "Africa/Casablanca", "2026-03-21T12:00", "2026-03-22T03:00+01:00", {}),
    ("24 Nepal", "u", "0 9 * * *", "Asia/Kathmandu", "2026-01-01T00:00", "2026-01-01T09:00+05:45", {}),
    (
        "25 1W",
        "q",
        "0 30 15 1W * ?",
        "UTC",
        "2025-05-02T16:00",
        "2025-06-02T15:30+00:00 2025-07-01T15:30+00:00 2025-08-01T15:30+00:00 2025-09-01T15:30+00:00 "
        "2025-10-01T15:30+00:00 2025-11-03T15:30+00:00",
        {},
    ),
    ("25 4W", "q", "0 0 5 4W * ?", "UTC", "2025-04-17T00:00", "2025-05-05T05:00+00:00 2025-06-04T05:00+00:00", {}),
    (
        "26",
        "q",
        "0 0 23 L * ?",
        "Asia/Shanghai",
        "2025-08-31T23:00",
        "2025-09-30T23:00+08:00 2025-10-31T23:00+08:00",
        {},
    ),
    (
        "27",
        "q",
        "0 15 23 28-31 9 ? *",
        "Africa/Johannesburg",
        "2025-07-09T12:13",
        "2025-09-28T23:15+02:00 2025-09-29T23:15+02:00 2025-09-30T23:15+02:00 2026-09-28T23:15+02:00",
        {},
    ),
    (
        "28 2020",
        "q",
        "0 0 14 LW * ?",
        "UTC",
        "2020-09-15T00:00",
        "2020-09-30T14:00+00:00 2020-10-30T14:00+00:00 2020-11-30T14:00+00:00 2020-12-31T14:00+00:00 2021-01-29T14:00+00:00",
        {},
    ),
    (
        "28 2023",
        "q",
        "0 0 5 LW * ?",
        "UTC",
        "2023-10-01T00:00",
        "2023-10-31T05:00+00:00 2023-11-30T05:00+00:00 2023-12-29T05:00+00:00",
        {},
    ),
    ("29 L", "q", "0 0 0 ? * L *", "UTC", "2016-12-22T00:00", "2016-12-24T00:00+00:00", {}),
    ("29 6L", "q", "0 0 0 ? * 6L *", "UTC", "2016-12-22T00:00", "2016-12-30T00:00+00:00", {}),
    (
        "30",
        "q",
        "0 0 0 31W * ?",
        "UTC",
        "2025-01-01T00:00",
        "2025-01-31T00:00+00:00 2025-03-31T00:00+00:00 2025-05-30T00:00+00:00 2025-07-31T00:00+00:00 "
        "2025-08-29T00:00+00:00 2025-10-31T00:00+00:00",
        {},
    ),
    ("31 unix", "u", "0 0 * * 7", "UTC", "2026-01-01T00:00", "2026-01-04T00:00+00:00", {}),
    ("31 quartz", "q", "0 0 0 ? * 7", "UTC", "2026-01-01T00:00", "2026-01-03T00:00+00:00", {}),
    ("32 or", "-", "30 0 1 * 1", "UTC", "2026-11-01T12:00", "2026-11-02T00:30+00:00 2026-11-09T00:30+00:00", {}),
    (
        "32 and",
        "-",
        "30 0 1 * 1",
        "UTC",
        "2026-11-01T12:00",
        "2027-02-01T00:30+00:00 2027-03-01T00:30+00:00 2027-11-01T00:30+00:00",
        {"days": "and"},
    ),
    (
        "34 the 31st",
        "u",
        "0 0 31 * *",
        "UTC",
        "2026-01-31T00:00",
        "2026-03-31T00:00+00:00 2026-05-31T00:00+00:00 2026-07-31T00:00+00:00",
        {},
    ),
    ("34 leap", "u", "0 0 29 2 *", "UTC", "2097-01-01T00:00", "2104-02-29T00:00+00:00", {}),
    ("41 time", "u", "0 10 * * *", "Europe/Moscow", "2019-03-18T12:00", "2019-03-19T10:00+03:00", {}),
    ("41 zone", "u", "0 5 1 * *", "Asia/Tokyo", "2016-05-17T00:00", "2016-06-01T05:00+09:00", {}),
]
IDS = [case[0] for case in CASES]
COUNT = 50


def test_each_of_the_fifty_cases_is_a_test() -> None:
    comments = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    found = {int(case.split()[0]) for case in IDS} | {int(number) for number in re.findall(r"# Case (\d+)", comments)}

    assert found == set(range(1, COUNT + 1))


@pytest.mark.parametrize(("case", "dialect", "expression", "zone", "after", "times", "rules"), CASES, ids=IDS)
def test_a_case_from_a_thread_has_its_right_times(
    case: str, dialect: str, expression: str, zone: str, after: str, times: str, rules: dict[str, Any]
) -> None:
    rule = cron_of(dialect, expression, zone, **rules)
    wanted = times.split()

    found = following(rule, ms(after, zone), len(wanted))

    assert [local(rule, at_ms) for at_ms in found] == wanted


@pytest.mark.parametrize(("case", "dialect", "expression", "zone", "after", "times", "rules"), CASES, ids=IDS)
def test_the_last_time_agrees_with_the_next_one_in_every_case(
    case: str, dialect: str, expression: str, zone: str, after: str, times: str, rules: dict[str, Any]
) -> None:
    # Case 22: a previous time that another rule finds than the next one.
    rule = cron_of(dialect, expression, zone, **rules)
    found = following(rule, ms(after, zone), 20)

    assert apart(found)
    assert [rule.last_at(at_ms) for at_ms in found] == found
    assert [rule.last_at(at_ms - 1) for at_ms in found[1:]] == found[:-1]
    assert [rule.count(found[0], at_ms) for at_ms in found] == list(range(20))


def test_an_hour_ends_where_it_should_after_a_whole_night_in_summer_time() -> None:
    # Case 18, as the thread gives it.
    rule = cron_of("s", "30 55 5,11,17 * * *", "Europe/Madrid")

    assert rule.next_after(1_679_777_644_000) == 1_679_802_930_000


def test_a_time_armed_by_an_older_release_of_the_rules_is_found_to_be_none_any_more() -> None:
    # Case 8: Chile moved the change of 2022 by a week, and told so in August.
    rule = cron_of("u", "0 0 * * *", "America/Santiago")
    armed_ms, cursor_ms = ms("2022-09-05T03:00+00:00"), ms("2022-09-04T04:00+00:00")

    assert rule.last_at(armed_ms) != armed_ms
    assert rule.next_after(cursor_ms) == ms("2022-09-05T04:00+00:00")


def test_six_fields_with_a_digit_as_weekday_need_their_dialect() -> None:
    # Case 31: 7 is Saturday in Quartz, and Sunday in Spring.
    with pytest.raises(InvalidInput, match=r"^dialect: is required"):
        cron("0 0 0 ? * 7")
    assert cron("0 0 0 ? * SAT").next_after(ms("2026-01-01T00:00")) == ms("2026-01-03T00:00")


def test_a_stepped_day_beside_a_weekday_is_refused_until_its_meaning_is_given() -> None:
    # Case 33: every 14th day *and* Wednesday for Vixie's cron, *or* for POSIX; meant was every other Wednesday.
    with pytest.raises(InvalidInput, match=r"^days: is required"):
        cron("0 14 */14 * 3")

    both = cron("0 14 */14 * 3", days=Days.AND)
    either = cron("0 14 */14 * 3", days=Days.OR)

    assert [local(both, at_ms)[:10] for at_ms in following(both, ms("2026-07-01T15:00"), 2)] == [
        "2026-07-15",
        "2026-07-29",
    ]
    assert [local(either, at_ms)[:10] for at_ms in following(either, ms("2026-07-01T15:00"), 3)] == [
        "2026-07-08",
        "2026-07-15",
        "2026-07-22",
    ]


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "0 0 31 4 *", "0 0 31 2,4,6,9,11 *", "0 0 L-30 2 *"])
def test_an_expression_without_a_date_is_refused(expression: str) -> None:
    # Case 34.
    with pytest.raises(InvalidInput, match=r"^expression: never fires"):
        check_fires(Trigger(rule=cron(expression)), ms("2026-11-30T00:00"))


def test_a_preview_says_in_words_what_became_of_a_time() -> None:
    # Case 50.
    rule = cron_of("u", "30 2 * * *", BERLIN)

    spring, usual = following(rule, ms("2026-03-28T12:00", BERLIN), 2)
    autumn = following(rule, ms("2026-10-24T12:00", BERLIN), 1)[0]

    assert rule.explain(spring) == "gap: 02:30 does not exist; moved to 03:00"
    assert rule.explain(usual) is None
    assert rule.explain(autumn) == "overlap: first of two"
