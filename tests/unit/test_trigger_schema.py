"""Triggers and misfire policies as JSON: what is read, and how each wrong field is named."""

from typing import Any

import pytest

from clockwork.domain.jobs.next_occurrence import Misfire, MisfirePolicy
from clockwork.domain.triggers.dst import OverlapRule
from clockwork.domain.triggers.exclusions import OnExcluded, exclusion
from clockwork.domain.triggers.trigger import AnyOf, FixedDelay, FixedRate, Jitter, JitterPer, Trigger, cron, rrule
from clockwork.errors import InvalidInput
from clockwork.schema.trigger import read_misfire, read_trigger, trigger_document
from tests.unit.cron_times import cron_of, ms

NOW = ms("2026-11-29T10:30:00.250")
DAILY = {"type": "cron", "expression": "0 2 * * *"}


@pytest.mark.parametrize(
    ("document", "trigger"),
    [
        ({"type": "cron", "expression": "0 9 * * 1-5"}, Trigger(rule=cron("0 9 * * 1-5"))),
        (
            {
                "type": "cron",
                "expression": "0 30 2 ? * MON-FRI",
                "dialect": "quartz",
                "timeZone": "Europe/Berlin",
                "days": "or",
                "dst": {"gap": "shift"},
                "start": "2026-12-01T00:00:00+01:00",
                "end": ms("2027-12-01T00:00"),
                "maxRuns": 10,
                "jitterMs": 5_000,
                "jitterPer": "run",
            },
            Trigger(
                rule=cron_of("q", "0 30 2 ? * MON-FRI", "Europe/Berlin", days="or", gap="shift"),
                start_ms=ms("2026-11-30T23:00"),
                end_ms=ms("2027-12-01T00:00"),
                runs_max=10,
                jitter=Jitter(most_ms=5_000, per=JitterPer.RUN),
            ),
        ),
        ({"type": "fixed_rate", "everyMs": 5_000}, Trigger(rule=FixedRate(every_ms=5_000, anchor_ms=NOW))),
        (
            {"type": "fixed_rate", "everyMs": 5_000, "start": 1_000},
            Trigger(rule=FixedRate(every_ms=5_000, anchor_ms=1_000), start_ms=1_000),
        ),
        (
            {"type": "fixed_rate", "everyMs": 5e3, "start": 1_000, "anchor": 7},
            Trigger(rule=FixedRate(every_ms=5_000, anchor_ms=7), start_ms=1_000),
        ),
        (
            {
                "type": "rrule",
                "rule": "FREQ=WEEKLY;INTERVAL=2;BYDAY=WE",
                "start": "2026-12-09T14:00:00+01:00",
                "timeZone": "Europe/Berlin",
                "dst": {"overlap": "second"},
            },
            Trigger(
                rule=rrule(
                    "FREQ=WEEKLY;INTERVAL=2;BYDAY=WE",
                    start_ms=ms("2026-12-09T13:00"),
                    time_zone="Europe/Berlin",
                    overlap=OverlapRule.SECOND,
                ),
                start_ms=ms("2026-12-09T13:00"),
            ),
        ),
        (
            {
                "type": "cron",
                "expression": "0 9 * * *",
                "exclude": {"dates": ["2026-12-25"], "annual": ["01-01"], "weekdays": ["SUN"], "cron": ["* 0-7 * * *"]},
                "onExcluded": "next",
            },
            Trigger(
                rule=cron(
                    "0 9 * * *",
                    exclude=exclusion(dates=["2026-12-25"], annual=["01-01"], weekdays=["SUN"], cron=["* 0-7 * * *"]),
                    on_excluded=OnExcluded.NEXT,
                )
            ),
        ),
        ({"type": "fixed_delay", "delayMs": 5_000}, Trigger(rule=FixedDelay(delay_ms=5_000))),
        (
            {
                "type": "any",
                "of": [{"type": "cron", "expression": "@daily"}, {"type": "fixed_rate", "everyMs": 60_000}],
            },
            Trigger(rule=AnyOf(of=(cron("@daily"), FixedRate(every_ms=60_000, anchor_ms=NOW - 250)))),
        ),
    ],
)
def test_a_trigger_is_read_with_its_defaults(document: dict[str, Any], trigger: Trigger) -> None:
    assert read_trigger(document, now_ms=NOW) == trigger
    assert read_trigger(trigger_document(trigger), now_ms=NOW) == trigger


def test_a_trigger_is_read_and_written_with_the_name_of_a_calendar_alone() -> None:
    document = {"type": "cron", "expression": "0 9 * * *", "exclude": {"calendar": "de"}}

    trigger = read_trigger(document, now_ms=NOW)

    assert trigger.rule == cron("0 9 * * *", exclude=exclusion(calendar="de"))
    assert trigger_document(trigger.resolved({"de": exclusion(annual=["10-03"])}))["exclude"] == {"calendar": "de"}


def test_the_anchor_of_a_rate_stays_at_the_creation_of_its_job() -> None:
    document = {"type": "fixed_rate", "everyMs": 5_000}

    assert read_trigger(document, now_ms=NOW, created_ms=NOW - 123) == Trigger(
        rule=FixedRate(every_ms=5_000, anchor_ms=NOW - 123)
    )


@pytest.mark.parametrize(
    ("document", "fields"),
    [
        (None, ["trigger"]),
        ([], ["trigger"]),
        ({}, ["trigger.type"]),
        ({"type": "rrule", "rule": "FREQ=DAILY"}, ["trigger.start"]),
        (
            {"type": "rrule", "rule": "FREQ=HOURLY", "start": 500, "timeZone": "Berlin", "expression": "x"},
            ["trigger.expression"],
        ),
        (
            {"type": "rrule", "rule": "FREQ=HOURLY", "start": 500, "timeZone": "Berlin"},
            ["trigger.start", "trigger.timeZone", "trigger.rule"],
        ),
        (
            {
                "type": "cron",
                "expression": "61 0 * * *",
                "exclude": {"dates": ["2026-02-29"], "cron": ["61 * * * *"], "calendar": "d/e"},
            },
            ["trigger.exclude.dates.0", "trigger.exclude.cron.0", "trigger.exclude.calendar", "trigger.expression"],
        ),
        (
            {"type": "cron", "expression": "0 0 * * *", "exclude": {"weekdays": ["Saturday"], "days": 1}},
            ["trigger.exclude.weekdays.0", "trigger.exclude.days"],
        ),
        (
            {
                "type": "any",
                "of": [{**DAILY, "exclude": {"calendar": name}} for name in ("a", "b", "c", "d")],
            },
            ["trigger"],
        ),
        (
            {
                "type": "any",
                "of": [{**DAILY, "exclude": {"cron": [f"{'0,' * 200}1 0 1 1 *"] * 10}}] * 10,
            },
            ["trigger"],
        ),
        ({"type": "cron", "expression": "0 0 * * *", "onExcluded": "next"}, ["trigger.exclude"]),
        ({"type": "cron", "expression": "0 0 * * SAT", "exclude": {"weekdays": ["SAT"]}}, ["trigger.exclude"]),
        ({"type": "fixed_rate", "everyMs": 1_000, "exclude": {}}, ["trigger.exclude"]),
        ({"type": ["cron"]}, ["trigger.type"]),
        ({"type": "cron"}, ["trigger.expression"]),
        ({"type": "cron", "expression": 5, "everyMs": 1}, ["trigger.expression", "trigger.everyMs"]),
        (
            {"type": "cron", "expression": "61 * * * *", "timeZone": "Berlin", "jitterMs": -1, "maxRuns": 0},
            ["trigger.expression", "trigger.timeZone", "trigger.jitterMs", "trigger.maxRuns"],
        ),
        ({"type": "cron", "expression": "0 0 * * *", "dst": {"gap": "late"}}, ["trigger.dst.gap"]),
        ({"type": "cron", "expression": "0 0 30 2 *"}, ["trigger.expression"]),
        ({"type": "cron", "expression": "0 0 * * *", "end": 5}, ["trigger.end"]),
        ({"type": "cron", "expression": "0 0 * * *", "start": 10**15}, ["trigger.start"]),
        (
            {"type": "cron", "expression": "0 0 * * *", "start": "tomorrow", "end": "2026-01-01"},
            ["trigger.start", "trigger.end"],
        ),
        ({"type": "fixed_rate", "everyMs": "5s"}, ["trigger.everyMs"]),
        ({"type": "fixed_rate", "everyMs": 1, "anchor": 10**14}, ["trigger.everyMs", "trigger.anchor"]),
        ({"type": "fixed_delay", "delayMs": 0}, ["trigger.delayMs"]),
        ({"type": "any", "of": []}, ["trigger.of"]),
        ({"type": "any", "of": [{"type": "fixed_rate", "everyMs": 1_000}] * 11}, ["trigger.of"]),
        (
            {
                "type": "any",
                "of": [
                    {"type": "cron", "expression": "x"},
                    {"type": "fixed_delay", "delayMs": 1_000},
                    {"type": "fixed_rate", "everyMs": 0, "start": 5},
                    7,
                ],
            },
            ["trigger.of.0.expression", "trigger.of.1.type", "trigger.of.2.start", "trigger.of.3"],
        ),
        (
            {"type": "any", "of": [{"type": "cron", "expression": "@daily"}, {"type": "fixed_rate", "everyMs": 1_500}]},
            ["trigger.of.1.everyMs"],
        ),
    ],
)
def test_every_wrong_field_of_a_trigger_is_named_by_its_path(document: Any, fields: list[str]) -> None:
    with pytest.raises(InvalidInput) as wrong:
        read_trigger(document, now_ms=NOW)

    assert [error.field for error in wrong.value.errors] == fields


def test_a_misfire_policy_is_read_with_its_defaults() -> None:
    assert read_misfire({}) == Misfire()
    assert read_misfire({"policy": "fire_all", "maxCatchUp": 5, "windowMs": 60_000, "graceMs": 5_000}) == Misfire(
        policy=MisfirePolicy.FIRE_ALL, catch_up_max=5, window_ms=60_000, grace_ms=5_000
    )


@pytest.mark.parametrize(
    ("document", "fields"),
    [
        ([], ["misfire"]),
        ({"policy": "often", "grace": 5}, ["misfire.policy", "misfire.grace"]),
        ({"graceMs": 0, "maxCatchUp": 10**6}, ["misfire.graceMs", "misfire.maxCatchUp"]),
    ],
)
def test_every_wrong_field_of_a_misfire_policy_is_named(document: Any, fields: list[str]) -> None:
    with pytest.raises(InvalidInput) as wrong:
        read_misfire(document)

    assert [error.field for error in wrong.value.errors] == fields
