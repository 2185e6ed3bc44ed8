"""Cron expressions as text: dialects, forms, and the words of a refusal."""

import pytest

from clockwork.domain.triggers.cron import EXPRESSION_CHARS_MAX, Days, Dialect, parse_cron
from clockwork.domain.triggers.trigger import cron
from clockwork.errors import InvalidInput
from tests.unit.cron_times import following, ms

START = ms("2026-11-29T12:00")  # a Sunday


def days_of(expression: str, dialect: Dialect | None = None, days: Days | None = None, number: int = 4) -> list[str]:
    rule = cron(expression, dialect=dialect, days=days)
    return [rule.times.zone.local(at_ms)[5:10] for at_ms in following(rule, START, number)]


@pytest.mark.parametrize(
    ("same", "other"),
    [
        ("0 0 * * 1-5", "0 0 * * mon-fri"),
        ("0 0 * * 0", "0 0 * * 7"),
        ("0 0 * * 5-1", "0 0 * * FRI,SAT,SUN,MON"),
        ("0 0 * * 7-2", "0 0 * * 0-2"),
        ("0 22-2 * * *", "0 22,23,0,1,2 * * *"),
        ("0 22-4/2 * * *", "0 22,0,2,4 * * *"),
        ("50-10/10 * * * *", "50,0,10 * * * *"),
        ("5/20 * * * *", "5,25,45 * * * *"),
        ("0 0 1 nov-feb *", "0 0 1 1,2,11,12 *"),
        ("0 0 30-2 * *", "0 0 30,31,1,2 * *"),
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        (" @Midnight ", "0 0 * * *"),
        ("@weekly", "0 0 * * SUN"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0  0\t1 JAN *"),
    ],
)
def test_two_ways_to_write_an_expression_are_read_alike(same: str, other: str) -> None:
    assert parse_cron(same) == parse_cron(other)


@pytest.mark.parametrize(
    ("dialect", "expression"),
    [
        (Dialect.QUARTZ, "0 0 9 ? * 2-6"),
        (Dialect.QUARTZ, "0 0 9 ? * MON-FRI *"),
        (Dialect.SPRING, "0 0 9 * * 1-5"),
        (Dialect.SPRING, "0 0 9 ? * MON-FRI"),
        (Dialect.AWS, "0 9 ? * 2-6 *"),
        (Dialect.UNIX, "0 9 * * 1-5"),
        (None, "0 0 9 ? * MON-FRI"),
    ],
)
def test_business_days_are_the_same_days_in_every_dialect(dialect: Dialect | None, expression: str) -> None:
    assert parse_cron(expression, dialect=dialect) == parse_cron("0 9 * * MON-FRI")


def test_spring_takes_the_days_that_both_day_fields_name() -> None:
    # Spring's own test has it so: Friday the 13th.
    assert days_of("0 0 0 13 * FRI", Dialect.SPRING, number=2) == ["08-13", "10-13"]
    assert days_of("0 0 0 13 * FRI", Dialect.SPRING, Days.OR, number=3) == ["12-04", "12-11", "12-13"]


@pytest.mark.parametrize("expression", ["0 0 */2 * 1", "0 0 1 * */2", "0 0 */2 * */2", "0 0 *,5 * 1"])
def test_day_fields_that_two_crons_read_differently_need_days(expression: str) -> None:
    with pytest.raises(InvalidInput) as wrong:
        parse_cron(expression)

    assert [error.field for error in wrong.value.errors] == ["days"]
    assert parse_cron(expression, days=Days.OR) != parse_cron(expression, days=Days.AND)


def test_a_stepped_day_field_alone_needs_nothing() -> None:
    assert days_of("0 0 */10 * *") == ["12-01", "12-11", "12-21", "12-31"]
    assert days_of("0 0 */10 * *", days=Days.AND) == ["12-01", "12-11", "12-21", "12-31"]


def test_years_bound_an_expression_of_aws_and_quartz() -> None:
    assert cron("0 12 1 1 ? 2030/5", dialect=Dialect.AWS).next_after(START) == ms("2030-01-01T12:00")
    assert cron("0 12 1 1 ? 2030/5", dialect=Dialect.AWS).next_after(ms("2030-01-01T12:00")) == ms("2035-01-01T12:00")


@pytest.mark.parametrize(
    ("expression", "field", "message"),
    [
        ("", "expression", "has 0 fields; there are 5 (unix), 6 (quartz, spring, aws) or 7 (quartz)"),
        ("* * * *", "expression", "has 4 fields"),
        ("* * * * * * * *", "expression", "has 8 fields"),
        ("60 * * * *", "expression", "minute '60' should be within 0 and 59"),
        ("* 24 * * *", "expression", "hour '24' should be within 0 and 23"),
        ("* * 0 * *", "expression", "day of month '0' should be within 1 and 31"),
        ("* * * 13 *", "expression", "month '13' should be within 1 and 12"),
        ("* * * * 8", "expression", "day of week '8' should be within 0 and 7"),
        (
            "* * * FOO *",
            "expression",
            "month 'FOO' is not understood; write *, 1-12, a-b, a/n or a list of these, with names JAN",
        ),
        ("* * * * 1#6", "expression", "day of week '1#6' should have #1 to #5"),
        ("* * * * 9L", "expression", "day of week '9L' should be within 0 and 7"),
        ("* * 32W * *", "expression", "day of month '32W' should be 1W to 31W"),
        ("* * 0W * *", "expression", "day of month '0W' should be 1W to 31W"),
        ("* * L-31 * *", "expression", "day of month 'L-31' should be L-1 to L-30"),
        ("* * L-0 * *", "expression", "day of month 'L-0' should be L-1 to L-30"),
        ("* L * * *", "expression", "hour 'L' is not understood"),
        ("1, * * * *", "expression", "minute '' is not understood"),
        ("-5 * * * *", "expression", "minute '-5' is not understood"),
        ("*-5 * * * *", "expression", "minute '*-5' is not understood"),
        ("*/0 * * * *", "expression", "minute '*/0' should have a step of at least 1"),
        ("1.5 * * * *", "expression", "minute '1.5' is not understood"),
        ("٣ * * * *", "expression", "should have ASCII characters only"),
        ("? * * * *", "expression", "minute '?' is not understood"),
        ("* * ? * *", "expression", "has ?, which unix does not know; write * for any day"),
        ("*/90 * * * *", "expression", "for every 90 minutes use a trigger of type fixed_rate with everyMs 5400000"),
        ("0 */36 * * *", "expression", "for every 36 hours use a trigger of type fixed_rate with everyMs 129600000"),
        ("0 0 1 * * *", "expression", "should have ? as day of month or as day of week, and not in both"),
        ("0 0 0 ? * ?", "expression", "should have ? as day of month or as day of week, and not in both"),
        ("0 0 0 1 1 ? 1969", "expression", "year '1969' should be within 1970 and 2199"),
        ("0 0 0 1 1 ? 2030-2020", "expression", "year '2030-2020' should begin with the earlier year"),
        ("0 0 0 * * 1", "dialect", "is required: 1 is Sunday for quartz and aws, and Monday for spring"),
        ("@every 5m", "expression", "@every is no cron: use a trigger of type fixed_rate, with everyMs"),
        ("@reboot", "expression", "@reboot is no macro; there are @yearly"),
        ("cron(0 12 * * ? *)", "expression", "should be the fields alone, without cron( )"),
        ("rate(5 minutes)", "expression", "for rate( ) use a trigger of type fixed_rate"),
        ("TZ=UTC 0 0 * * *", "expression", "the zone is the field timeZone"),
        ("0 " * 1_000, "expression", f"should have at most {EXPRESSION_CHARS_MAX} characters"),
    ],
)
def test_a_wrong_expression_is_refused_with_what_to_do(expression: str, field: str, message: str) -> None:
    with pytest.raises(InvalidInput) as wrong:
        parse_cron(expression)

    assert [error.field for error in wrong.value.errors] == [field]
    assert message in wrong.value.errors[0].message


@pytest.mark.parametrize(
    ("dialect", "expression", "message"),
    [
        (Dialect.UNIX, "0 0 0 * * MON", "has 6 fields; unix has 5: minute hour day-of-month month day-of-week"),
        (Dialect.SPRING, "0 0 * * MON", "has 5 fields; spring has 6: second minute"),
        (Dialect.AWS, "0 12 * * ?", "has 5 fields; aws has 6: minute"),
        (Dialect.QUARTZ, "0 12 * * ?", "has 5 fields; quartz has 6 or 7: second minute"),
        (Dialect.QUARTZ, "0 0 12 ? * 0", "day of week '0' should be within 1 and 7"),
        (Dialect.AWS, "0 12 * * MON *", "should have ? as day of month or as day of week"),
    ],
)
def test_an_expression_of_another_dialect_is_refused(dialect: Dialect, expression: str, message: str) -> None:
    with pytest.raises(InvalidInput) as wrong:
        parse_cron(expression, dialect=dialect)

    assert message in wrong.value.errors[0].message


def test_all_wrong_fields_of_an_expression_are_named_at_once() -> None:
    with pytest.raises(InvalidInput) as wrong:
        parse_cron("61 25 32 13 9")

    assert [error.message.split("'")[0].strip() for error in wrong.value.errors] == [
        "minute",
        "hour",
        "month",
        "day of month",
        "day of week",
    ]
