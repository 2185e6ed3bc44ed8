"""Jobs as JSON: each rule of each field, the digest that makes two creates the same, changes laid over a stored job."""

import json
from dataclasses import replace
from typing import Any

import pytest

from clockwork.domain.jobs.job import JobContent, NewJob
from clockwork.domain.jobs.next_occurrence import Misfire, MisfirePolicy, OverlapPolicy
from clockwork.domain.run import JobId
from clockwork.domain.schedule import ClientId
from clockwork.domain.triggers.trigger import FixedRate
from clockwork.errors import InvalidInput
from clockwork.schema.job import (
    JobChangeForm,
    JobForm,
    job_document,
    read_backfill,
    read_job,
    read_job_change,
    read_pause,
    read_preview,
    read_run_now,
)
from clockwork.schema.schedule import STORED_BYTES_MAX, TooLarge
from tests.unit.api_edge import NOW_MS

DAILY = {"type": "cron", "expression": "0 9 * * *", "timeZone": "Europe/Berlin"}
EVERYTHING: dict[str, Any] = {
    "clientId": "shop",
    "jobId": "report",
    "trigger": {
        "type": "any",
        "of": [
            {
                "type": "cron",
                "expression": "0 30 2 ? * MON-FRI",
                "timeZone": "Europe/Berlin",
                "dialect": "quartz",
                "days": "or",
                "dst": {"gap": "shift", "overlap": "second"},
            },
            {"type": "fixed_rate", "everyMs": 5_000, "anchor": 1_800_000_007_000},
        ],
        "start": NOW_MS - 1,
        "end": NOW_MS + 86_400_000,
        "maxRuns": 10,
        "jitterMs": 5_000,
        "jitterPer": "run",
    },
    "orderingKey": "reports",
    "taskData": {"at": "${scheduledAt}"},
    "taskDataEncoding": "json",
    "delivery": {
        "topic": "orders",
        "guarantee": "at_least_once",
        "headers": {"source": "web"},
        "deadline": 60_000,
        "onLate": "dead_letter",
        "retry": {"attempts": 5, "initialMs": 500, "maxMs": 20_000, "factor": 1.5, "jitter": 0.25},
    },
    "misfire": {"policy": "fire_all", "graceMs": 5_000, "maxCatchUp": 7, "windowMs": 60_000},
    "overlap": "allow",
    "completion": {"timeoutMs": 60_000},
    "pauseAfterFailures": 3,
    "durable": True,
    "interpolate": True,
    "payloadSchema": {"type": "object", "required": ["at"], "properties": {"at": {"type": ["integer", "string"]}}},
    "description": "every morning",
    "labels": {"team": "x", "a": ""},
    "priority": 9,
}
"""A create with every field."""


def a_job(**changes: Any) -> dict[str, Any]:
    """A valid create; a change to `...` leaves the field out."""
    document: dict[str, Any] = {
        "clientId": "shop",
        "jobId": "report",
        "trigger": DAILY,
        "taskData": {"report": 1},
        "delivery": {"topic": "orders"},
    }
    return {name: value for name, value in (document | changes).items() if value is not ...}


def read(document: Any, now_ms: int = NOW_MS) -> NewJob:
    return read_job(document, cluster="clockwork", now_ms=now_ms, traceparent=None)


def wrong(function: Any, *given: Any, **named: Any) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        function(*given, **named)
    assert all(each.message for each in caught.value.errors)
    return [each.field for each in caught.value.errors]


def change_of(document: Any) -> Any:
    return read_job_change(
        document, client_id=ClientId("shop"), job_id=JobId("report"), cluster="clockwork", now_ms=NOW_MS
    )


def changed(present: NewJob, document: Any) -> JobContent:
    content: JobContent = change_of(document)(present, created_ms=present.created_at_ms)
    return content


def to(**delivery: Any) -> dict[str, Any]:
    return {"delivery": {"topic": "orders", **delivery}}


def retried(retry: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"overlap": "skip", "completion": {"timeoutMs": 5_000, "retry": retry, **more}}


def each(*values: Any) -> tuple[Any, ...]:
    return values


def test_the_example_has_every_field() -> None:
    aliases = {field.alias for field in JobForm.model_fields.values()}
    assert EVERYTHING.keys() == aliases == {field.alias for field in JobChangeForm.model_fields.values()}


def test_a_job_is_answered_as_it_was_given() -> None:
    assert job_document(read(EVERYTHING)) == EVERYTHING


def test_what_is_left_out_has_its_default() -> None:
    job = read(a_job())
    assert job_document(job) == {
        **a_job(),
        "orderingKey": "report",
        "taskDataEncoding": "json",
        "delivery": {"topic": "orders", "guarantee": "exactly_once", "headers": {}},
        "misfire": {"policy": "fire_once"},
        "overlap": "allow",
        "pauseAfterFailures": 0,
        "durable": False,
        "interpolate": False,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"trigger": ..., "durable": True},
        {"trigger": None, "durable": True},
        {"misfire": None, "overlap": None, "completion": None, "labels": None, "description": None, "priority": None},
        {"payloadSchema": None, "interpolate": False},
        {"payloadSchema": {"type": "string"}, "taskData": "text ${x}"},
        {"interpolate": True, "taskData": "${runId} of ${jobId}, $${kept}"},
        {"labels": {f"l{number}": "v" * 128 for number in range(20)}},
        {"description": "ü" * 512},
        {"priority": 1.0},
        {"pauseAfterFailures": 1_000},
        {"misfire": {"policy": "skip"}},
        {"misfire": {"policy": "fire_once"}, **to(deadline=5, onLate="drop")},
        {"taskData": None},
    ],
    ids=lambda change: repr(change)[:60],
)
def test_a_create_within_the_rules_is_taken(change: dict[str, Any]) -> None:
    read(a_job(**change))


WRONG: list[tuple[list[str], dict[str, Any]]] = [
    *((["clientId"], {"clientId": value}) for value in each(..., None, "", "a b", 7)),
    *((["jobId"], {"jobId": value}) for value in each(..., None, "", 7, "ü" * 257)),
    *((["trigger"], {"trigger": value}) for value in each(..., None, "0 9 * * *", [])),
    *((["trigger.type"], {"trigger": value}) for value in each({}, {"type": "daily"})),
    (["trigger.expression"], {"trigger": {"type": "cron", "expression": "0 0 30 2 *"}}),
    (["trigger.of.1.everyMs"], {"trigger": {"type": "any", "of": [DAILY, {"type": "fixed_rate", "everyMs": 1}]}}),
    (["taskData"], {"taskData": ...}),
    *((["taskDataEncoding"], {"taskDataEncoding": value}) for value in each("hex", 1)),
    *((["orderingKey"], {"orderingKey": value}) for value in each("", 7)),
    *((["delivery.topic"], {"delivery": {"topic": value}}) for value in each("__x", "clockwork-x", "a b", None)),
    (["delivery.deadline"], to(onLate="drop")),
    (["delivery.deadline"], {"misfire": {"policy": "skip"}, **to(deadline=5)}),
    (["misfire.policy"], {"misfire": {"policy": "maybe"}}),
    (["misfire.maxCatchUp"], {"misfire": {"policy": "fire_all", "maxCatchUp": 1_001}}),
    *((["overlap"], {"overlap": value}) for value in each("forbid", 1, "skip", "wait")),
    *((["pauseAfterFailures"], {"pauseAfterFailures": value}) for value in each(-1, 1_001, "3", True)),
    *((["durable"], {"durable": value}) for value in each(1, "true")),
    *((["description"], {"description": value}) for value in each("", "x" * 1_025, 7)),
    *((["priority"], {"priority": value}) for value in each(0, 11, "1", 1.5)),
    (["labels"], {"labels": {f"l{number}": "v" for number in range(21)}}),
    *((["labels"], {"labels": value}) for value in each({"": "x"}, {"x": "v" * 129}, {"x" * 129: "v"}, ["x"])),
    (["labels.a"], {"labels": {"a": 1}}),
    *((["completion.timeoutMs"], {"completion": {"timeoutMs": value}}) for value in each(999, 86_400_001, "5s", None)),
    *((["completion.retry.attempts"], retried({"attempts": value})) for value in each(0, 21, True)),
    (["completion.retry.maxMs"], retried({"attempts": 2, "initialMs": 500, "maxMs": 400})),
    (["completion.retry.jitter"], retried({"attempts": 2, "jitter": 0.5})),
    (["completion.retry"], {**retried({"attempts": 2}), "overlap": "allow"}),
    (["completion.retryOn"], {"completion": {"timeoutMs": 5_000, "retryOn": ["timeout"]}}),
    (["completion.retryOn"], retried({"attempts": 2}, retryOn=[])),
    (["completion.retryOn.0"], retried({"attempts": 2}, retryOn=["delay"])),
    *((["payloadSchema"], {"payloadSchema": value}) for value in each([], "x", {"x": "y" * 16_384})),
    (["payloadSchema.type"], {"payloadSchema": {"type": "thing"}}),
    (["taskData.report"], {"payloadSchema": {"properties": {"report": {"type": "string"}}}}),
    (["payloadSchema"], {"payloadSchema": {}, "taskData": "aA==", "taskDataEncoding": "base64"}),
    (["interpolate"], {"interpolate": 1}),
    (["interpolate"], {"interpolate": True, "taskData": "aA==", "taskDataEncoding": "base64"}),
    (["taskData.a.0"], {"interpolate": True, "taskData": {"a": ["${now}"]}}),
    # The first run has no run before it: the value is null.
    (
        ["taskData.at"],
        {
            "interpolate": True,
            "taskData": {"at": "${previousAt}"},
            "payloadSchema": {"properties": {"at": {"type": "integer"}}},
        },
    ),
    (["schedule_time"], {"schedule_time": 1}),
    (["scheduleTime"], {"scheduleTime": NOW_MS}),
]


@pytest.mark.parametrize(("fields", "change"), WRONG, ids=lambda value: repr(value)[:60])
def test_a_create_against_a_rule_names_the_field_and_no_other(fields: list[str], change: dict[str, Any]) -> None:
    assert wrong(read, a_job(**change)) == fields


def test_every_wrong_field_is_named_at_once() -> None:
    document = {
        "clientId": "a b",
        "trigger": {"type": "cron", "expression": "x", "timeZone": "Mars", "jitterMs": -1},
        "taskData": "?",
        "taskDataEncoding": "base64",
        "delivery": {"topic": "__x", "extra": 1},
        "misfire": {"policy": "fire_all", "graceMs": 1},
        "overlap": "skip",
        "completion": {},
        "labels": {"": ""},
        "priority": 0,
        "more": 1,
    }
    assert sorted(wrong(read, document)) == [
        "clientId",
        "completion.timeoutMs",
        "delivery.extra",
        "delivery.topic",
        "jobId",
        "labels",
        "misfire.graceMs",
        "more",
        "priority",
        "taskData",
        "trigger.expression",
        "trigger.jitterMs",
        "trigger.timeZone",
    ]


def test_a_payload_over_the_limit_is_too_large() -> None:
    with pytest.raises(TooLarge):
        read(a_job(taskData="x" * (STORED_BYTES_MAX + 1)))


# --- the digest


def test_names_in_a_payload_may_not_make_it_larger_than_the_headers_leave_room_for() -> None:
    # Such a row is none that a store takes, and the chain of the job would end before it.
    names, spare = "${jobId}" * 40, {f"h{number}": "x" * 2_600 for number in range(100)}
    job = a_job(jobId="j" * 512, taskData=names, delivery={"topic": "orders", "headers": spare})
    assert read(job)
    assert wrong(read, {**job, "interpolate": True}) == ["taskData"]
    stored = read({**job, "interpolate": True, "taskData": "short"})
    check = read_run_now({"requestId": "r", "taskData": names}).check
    assert check is not None
    assert wrong(check, stored) == ["taskData"]


@pytest.mark.parametrize("trigger", [{"type": "fixed_rate", "everyMs": 5_000}, EVERYTHING["trigger"], DAILY])
def test_the_same_create_later_has_the_same_digest_though_its_anchor_is_another(trigger: Any) -> None:
    document = a_job(trigger=trigger, labels={"b": "1", "a": "2"})
    again = json.loads(json.dumps(document, sort_keys=True))
    assert read(document).digest == read(again, NOW_MS + 7_001).digest


def test_what_is_said_of_defaults_makes_no_other_request() -> None:
    given = {
        "misfire": {"policy": "fire_once"},
        "overlap": "allow",
        "durable": False,
        "labels": {},
        "orderingKey": "report",
    }
    assert read(a_job(**given)).digest == read(a_job()).digest


@pytest.mark.parametrize("name", sorted(EVERYTHING.keys() - {"taskDataEncoding", "overlap", "trigger"}))
def test_every_field_makes_another_request(name: str) -> None:
    other: dict[str, Any] = {
        "clientId": "bank",
        "jobId": "other",
        "taskData": {"at": "${scheduledAt}", "more": 1},
        "delivery": {"topic": "mail"},
        "misfire": None,
        "durable": None,
        "completion": {"timeoutMs": 5_000},
    }
    assert read(EVERYTHING | {name: other.get(name)}).digest != read(EVERYTHING).digest


# --- changes


@pytest.mark.parametrize("name", sorted(EVERYTHING.keys() - {"clientId", "jobId", "taskDataEncoding"}))
def test_a_change_of_one_field_leaves_all_others(name: str) -> None:
    present = read(a_job())
    given = {name: EVERYTHING[name]}
    if name == "payloadSchema":
        given["taskData"] = {"at": 1}
    before, after = job_document(present), job_document(changed(present, given))
    assert {each: after[each] for each in given} == given
    assert {each for each in after if before.get(each) != after[each]} <= given.keys()


def test_a_change_of_a_field_changes_nothing_of_a_trigger_that_is_over() -> None:
    # A create with it would be refused by now: it has no fire time any more.
    present = read(a_job(trigger={**DAILY, "end": NOW_MS + 2 * 86_400_000}))
    late = read_job_change(
        {"description": "x"},
        client_id=ClientId("shop"),
        job_id=JobId("report"),
        cluster="clockwork",
        now_ms=NOW_MS + 10 * 86_400_000,
    )
    assert late(present, created_ms=NOW_MS).trigger == present.trigger


def test_a_rate_that_is_given_again_keeps_the_anchor_of_the_creation() -> None:
    rate = {"type": "fixed_rate", "everyMs": 5_000}
    present = read(a_job(trigger=rate), NOW_MS - 777)
    assert changed(present, {"trigger": rate}).trigger == present.trigger
    assert isinstance(present.trigger and present.trigger.rule, FixedRate)


def test_delivery_is_merged_and_what_has_no_default_is_removed_by_null() -> None:
    present = read(EVERYTHING)
    after = changed(
        present, {"delivery": {"deadline": None, "onLate": None}, "description": None, "labels": None, "priority": None}
    )
    assert (after.topic, after.deadline_ms, after.retry) == ("orders", None, present.retry)
    assert (after.description, after.labels, after.priority) == (None, (), None)
    kept = changed(present, {"misfire": None, "overlap": None, "durable": None, "pauseAfterFailures": None})
    assert kept == JobContent(**present.fields())


def test_a_trigger_is_removed_only_from_a_job_that_is_durable() -> None:
    assert changed(read(EVERYTHING), {"trigger": None}).trigger is None
    assert wrong(changed, read(a_job()), {"trigger": None}) == ["trigger"]
    assert changed(read(a_job()), {"trigger": None, "durable": True}).trigger is None


def test_rules_of_two_fields_hold_for_what_is_stored_and_given_together() -> None:
    skipping = read(a_job(misfire={"policy": "skip"}))
    assert wrong(changed, skipping, {"delivery": {"deadline": 5}}) == ["delivery.deadline"]
    assert changed(skipping, {"misfire": {"policy": "fire_once"}}).misfire == Misfire(policy=MisfirePolicy.FIRE_ONCE)


@pytest.mark.parametrize(
    ("fields", "document"),
    [
        (["clientId"], {"clientId": "bank"}),
        (["jobId"], {"jobId": "other", "clientId": "shop"}),
        (["body"], []),
        (["priority", "trigger.type"], {"priority": 0, "trigger": {"type": "x"}}),
        (["overlap"], {"overlap": "wait", "completion": None}),
        (["completion.timeoutMs"], {"completion": {}}),
        (["delivery.onLate"], {"delivery": {"onLate": "never"}}),
        (["more"], {"more": 1}),
    ],
)
def test_a_wrong_change_is_refused_whatever_is_stored(fields: list[str], document: Any) -> None:
    assert wrong(change_of, document) == fields


def test_overlap_needs_the_completion_that_is_stored_or_given() -> None:
    plain, completed = read(a_job()), read(a_job(completion={"timeoutMs": 5_000}))
    assert wrong(changed, plain, {"overlap": "wait"}) == ["overlap"]
    assert changed(completed, {"overlap": "wait"}).overlap is OverlapPolicy.WAIT
    assert changed(plain, {"overlap": "skip", "completion": {"timeoutMs": 5_000}}).exclusive
    waiting = read(a_job(overlap="wait", completion={"timeoutMs": 5_000, "retry": {"attempts": 2}}))
    assert wrong(changed, waiting, {"overlap": "allow"}) == ["completion.retry"]
    assert wrong(changed, waiting, {"completion": None}) == ["overlap"]


def test_attempts_have_waits_and_both_ends_by_default_and_are_answered_so() -> None:
    job = read(a_job(overlap="skip", completion={"timeoutMs": 5_000, "retry": {"attempts": 3, "initialMs": 90_000}}))
    assert job_document(job)["completion"] == {
        "timeoutMs": 5_000,
        "retry": {"attempts": 3, "initialMs": 90_000, "maxMs": 90_000, "factor": 2.0},
        "retryOn": ["failure", "timeout"],
    }
    assert read(job_document(job)).digest == job.digest


def test_a_fixed_delay_may_have_attempts_without_overlap() -> None:
    delay = {"type": "fixed_delay", "delayMs": 5_000}
    assert read(a_job(trigger=delay, completion={"timeoutMs": 5_000, "retry": {"attempts": 3}})).exclusive


def test_a_traceparent_stays_through_changes() -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    present = read_job(a_job(), cluster="clockwork", now_ms=NOW_MS, traceparent=traceparent)
    assert changed(present, {"priority": 1}).traceparent == traceparent
    assert changed(present, {"delivery": {"headers": {"traceparent": "x"}}}).traceparent is None
    assert replace(present, traceparent=None) == read(a_job())


# --- other requests


def test_a_run_by_hand_has_a_payload_that_the_job_allows() -> None:
    job = read(EVERYTHING)
    allowed = read_run_now({"requestId": "r", "taskData": {"at": 1}})
    assert allowed.check is not None
    allowed.check(job)
    for data, field in (({"at": True}, "taskData.at"), ({"at": "${now}"}, "taskData.at"), ({}, "taskData.at")):
        refused = read_run_now({"requestId": "r", "taskData": data})
        assert wrong(refused.check, job) == [field]


def test_a_run_by_hand_takes_any_payload_or_that_of_its_job() -> None:
    assert read_run_now({"requestId": "r"}).task_data is None
    assert read_run_now({"requestId": "r", "taskData": None}).task_data == b"null"
    assert read_run_now({"requestId": "r", "taskData": "aA==", "taskDataEncoding": "base64"}).task_data == b"h"
    assert (
        read_run_now({"requestId": "r", "taskData": 1}).digest != read_run_now({"requestId": "r", "taskData": 2}).digest
    )


@pytest.mark.parametrize(
    ("fields", "document"),
    [
        (["requestId"], {}),
        (["requestId"], {"requestId": ""}),
        (["requestId"], {"requestId": "x" * 129}),
        (["taskDataEncoding"], {"requestId": "r", "taskDataEncoding": "json"}),
        (["taskData"], {"requestId": "r", "taskData": "?", "taskDataEncoding": "base64"}),
        (["more"], {"requestId": "r", "more": 1}),
    ],
)
def test_a_wrong_run_by_hand_names_the_field(fields: list[str], document: Any) -> None:
    assert wrong(read_run_now, document) == fields


@pytest.mark.parametrize(
    ("fields", "change"),
    [
        (["to"], {"to": NOW_MS + 1}),
        (["from"], {"from": NOW_MS}),
        (["from", "to"], {"from": None, "to": None}),
        (["maxRuns"], {"maxRuns": 1_001}),
        (["maxRuns"], {"maxRuns": 0}),
        (["requestId"], {"requestId": None}),
    ],
)
def test_a_wrong_backfill_names_the_field(fields: list[str], change: Any) -> None:
    document = {"requestId": "b", "from": NOW_MS - 10, "to": NOW_MS - 5, **change}
    assert wrong(read_backfill, document, now_ms=NOW_MS) == fields


@pytest.mark.parametrize("note", ["", "x" * 257, 7])
def test_a_note_of_a_pause_is_short(note: Any) -> None:
    assert wrong(read_pause, {"note": note}) == ["note"]
    assert read_pause({}) is None


@pytest.mark.parametrize(
    ("fields", "change"),
    [
        (["trigger"], {"trigger": ...}),
        (["count"], {"count": 101}),
        (["count"], {"count": 0}),
        (["from"], {"from": "yesterday"}),
        (["from"], {"from": 10**15}),
        (["clientId"], {"jobId": "report"}),
        (["trigger.timeZone"], {"trigger": {**DAILY, "timeZone": "Mars"}}),
    ],
)
def test_a_wrong_preview_names_the_field(fields: list[str], change: Any) -> None:
    document = {name: value for name, value in ({"trigger": DAILY} | change).items() if value is not ...}
    assert wrong(read_preview, document, now_ms=NOW_MS) == fields


def previewed(trigger: Any, **more: Any) -> list[Any]:
    return read_preview({"trigger": trigger, **more}, now_ms=NOW_MS).times()


def test_a_preview_says_what_daylight_saving_did_to_a_time() -> None:
    # Case 50 of the table of cases.
    at_night = {"type": "cron", "expression": "30 2 * * *", "timeZone": "Europe/Berlin"}
    (spring,) = previewed(at_night, **{"from": "2026-03-28T12:00:00Z", "count": 1})
    assert (spring.local, spring.note) == ("2026-03-29T03:00:00+02:00", "gap: 02:30 does not exist; moved to 03:00")
    (autumn,) = previewed(at_night, **{"from": "2026-10-24T12:00:00Z", "count": 1})
    assert (autumn.local, autumn.note) == ("2026-10-25T02:30:00+02:00", "overlap: first of two")


def test_a_preview_begins_with_its_from_and_ends_with_the_trigger() -> None:
    rate = {"type": "fixed_rate", "everyMs": 5_000, "anchor": NOW_MS}
    assert [time.at_ms - NOW_MS for time in previewed(rate, **{"from": NOW_MS, "count": 3})] == [0, 5_000, 10_000]
    assert len(previewed({**rate, "maxRuns": 2})) == 2
    assert len(previewed({**rate, "end": NOW_MS + 15_000}, **{"from": NOW_MS})) == 3


def test_a_preview_shows_jitter_only_of_a_job_that_it_is_told() -> None:
    rate = {"type": "fixed_rate", "everyMs": 60_000, "jitterMs": 30_000}
    assert {time.due_ms for time in previewed(rate)} == {None}
    told = [time.due_ms - time.at_ms for time in previewed(rate, clientId="shop", jobId="report")]
    assert len(set(told)) == 1
    assert 0 < told[0] <= 30_000
    assert told != [time.due_ms - time.at_ms for time in previewed(rate, clientId="shop", jobId="other")]


def test_a_preview_of_a_delay_is_the_earliest_there_can_be() -> None:
    first, second = previewed({"type": "fixed_delay", "delayMs": 5_000}, count=2)
    assert (first.at_ms, first.note) == (NOW_MS, None)
    assert (second.at_ms, second.note) == (NOW_MS + 5_000, "earliest: counted from the end of the run before")
