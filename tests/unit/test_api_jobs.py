"""The calls on jobs and their calendars over HTTP: statuses, headers, paths, pages. What they do is told in
`test_requests_jobs` and `test_requests_calendars`."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from clockwork.domain.sharding import ShardId
from clockwork.domain.triggers.preview import FireTime, Preview
from clockwork.http.jobs import PREVIEWS_AT_ONCE, PREVIEWS_WAITING_MAX
from clockwork.http.openapi import document
from clockwork.http.query import PARAMETERS_MAX
from tests.support.clocks import ManualClock
from tests.support.engine import SHARDS, Engine
from tests.support.waiting import until
from tests.unit.api_edge import NOW_MS, Edge, open_edge
from tests.unit.service import app_of
from tests.unit.test_job_schema import DAILY, a_job

ONE = "/jobs/shop/report"
CALENDAR = "/calendars/shop/de"
EVERY_CALL: list[tuple[str, str, Any]] = [
    ("POST", "/jobs", a_job()),
    ("GET", "/jobs?clientId=shop", None),
    ("GET", ONE, None),
    ("PUT", ONE, {}),
    ("DELETE", ONE, None),
    *(("POST", f"{ONE}/{action}", {}) for action in ("restore", "pause", "resume")),
    ("POST", f"{ONE}/run-now", {"requestId": "r"}),
    ("POST", f"{ONE}/backfill", {"requestId": "b", "from": 0, "to": 0}),
    ("GET", f"{ONE}/logs", None),
    ("GET", f"{ONE}/runs/s1", None),
    ("POST", f"{ONE}/runs/s1/complete", {}),
    ("POST", f"{ONE}/runs/s1/fail", {}),
    ("POST", f"{ONE}/runs/s1/heartbeat", {"extendMs": 1_000}),
    ("GET", f"{ONE}/versions", None),
    ("GET", f"{ONE}/versions/1", None),
    ("POST", "/jobs/preview", {"trigger": DAILY}),
]
CALENDAR_CALLS: list[tuple[str, str, Any]] = [
    ("PUT", CALENDAR, {}),
    ("GET", CALENDAR, None),
    ("DELETE", CALENDAR, None),
    ("GET", "/calendars?clientId=shop", None),
]


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with open_edge() as opened:
        yield opened


async def created(edge: Edge, job_id: str = "report", **more: Any) -> None:
    assert (await edge.ask("POST", "/jobs", json=a_job(jobId=job_id, **more))).status == 201


def test_every_call_of_the_document_is_among_those_tried_here() -> None:
    described = {
        (method.upper(), path) for path, each in document(app_of(Engine()))["paths"].items() for method in each
    }
    assert len({each for each in described if each[1].startswith(("/jobs", "/calendars"))}) == len(
        [*EVERY_CALL, *CALENDAR_CALLS]
    )


async def test_a_create_answers_201_with_its_place_and_version_and_200_again(edge: Edge) -> None:
    for status in (201, 200):
        answer = await edge.ask("POST", "/jobs", json=a_job(jobId="ü/1 %"))
        assert (answer.status, answer.headers["ETag"]) == (status, '"1"')
        if status == 201:
            assert answer.headers["Location"] == "/jobs/shop/%C3%BC%2F1%20%25"
    found = await edge.ask("GET", "/jobs/shop/%C3%BC%2F1%20%25")
    assert (found.status, found.json["jobId"], found.json["status"]) == (200, "ü/1 %", "active")


async def test_the_next_run_is_told_in_the_zone_of_its_trigger(edge: Edge) -> None:
    await created(edge)
    found = (await edge.ask("GET", f"{ONE}?next=2")).json
    assert found["nextRun"]["local"] == "2027-01-16T09:00:00+01:00"
    assert [each["at"] for each in found["nextTimes"]] == [NOW_MS + 86_400_000, NOW_MS + 2 * 86_400_000]
    assert "nextTimes" not in (await edge.ask("GET", ONE)).json


@pytest.mark.parametrize("query", ["next=101", "next=-1", "next=x", "more=1", "next=1&next=2"])
async def test_a_wrong_query_names_its_parameter(edge: Edge, query: str) -> None:
    await created(edge)
    answer = await edge.ask("GET", f"{ONE}?{query}")
    assert (answer.status, answer.fields) == (400, [query.partition("=")[0]])


async def test_conditions_rule_versions_out_as_for_schedules(edge: Edge) -> None:
    await created(edge)
    assert (await edge.ask("GET", ONE, headers={"If-None-Match": '"1"'})).status == 304
    assert (await edge.ask("GET", ONE, headers={"If-Match": '"2"'})).status == 412
    for method, path in (("PUT", ONE), ("DELETE", ONE), *(("POST", f"{ONE}/{each}") for each in ("pause", "resume"))):
        given: dict[str, Any] = {} if method == "DELETE" else {"json": {}}
        answer = await edge.ask(method, path, headers={"If-Match": '"2"'}, **given)
        assert (answer.status, answer.headers["ETag"], answer.json["job"]["version"]) == (412, '"1"', 1)
    answer = await edge.ask("PUT", ONE, json={"priority": 1}, headers={"If-Match": '"1"'})
    assert (answer.status, answer.headers["ETag"]) == (200, '"2"')


@pytest.mark.parametrize("action", ["pause", "resume", "restore"])
async def test_calls_whose_path_says_everything_need_no_body(edge: Edge, action: str) -> None:
    await created(edge)
    if action == "restore":
        await edge.ask("DELETE", ONE)
    assert (await edge.ask("POST", f"{ONE}/{action}")).status == 200


@pytest.mark.parametrize(
    ("first", "method", "action", "body", "reason"),
    [
        ("DELETE", "PUT", "", {}, "deleted"),
        ("DELETE", "POST", "/pause", {}, "deleted"),
        ("DELETE", "POST", "/resume", {}, "deleted"),
        ("DELETE", "POST", "/run-now", {"requestId": "r"}, "deleted"),
        ("DELETE", "POST", "/backfill", {"requestId": "r", "from": 0, "to": NOW_MS}, "deleted"),
        ("GET", "POST", "/restore", {}, "not_deleted"),
        ("GET", "POST", "/backfill", {"requestId": "r", "from": 1, "to": 2}, "no_fire_times"),
    ],
)
async def test_a_conflict_names_its_reason_and_shows_the_job(
    edge: Edge, first: str, method: str, action: str, body: Any, reason: str
) -> None:
    await created(edge)
    await edge.ask(first, ONE)
    answer = await edge.ask(method, ONE + action, json=body)
    assert (answer.status, answer.json["reason"], answer.json["job"]["jobId"]) == (409, reason, "report")


async def test_another_job_of_the_same_name_is_a_conflict(edge: Edge) -> None:
    await created(edge)
    answer = await edge.ask("POST", "/jobs", json=a_job(priority=3))
    assert (answer.status, answer.json["reason"], "priority" in answer.json["job"]) == (409, "exists", False)


async def test_runs_that_are_in_flight_are_told(edge: Edge) -> None:
    await created(edge)
    states = edge.engine.store.shard_states
    for shard in states:
        states[shard] = replace(states[shard], floor_ms=NOW_MS + 10 * 86_400_000)
    answer = await edge.ask("POST", f"{ONE}/pause", json={"note": "stop"})
    (run,) = answer.json["inFlight"]
    assert (run["runId"], run["status"], answer.json["note"]) == (f"s{NOW_MS + 86_400_000}", "armed", "stop")


async def test_a_run_by_hand_is_201_and_the_same_again_200(edge: Edge) -> None:
    await created(edge)
    for status in (201, 200):
        answer = await edge.ask("POST", f"{ONE}/run-now", json={"requestId": "r", "taskData": 1})
        assert (answer.status, answer.json["kind"]) == (status, "manual")
    found = await edge.ask("GET", f"{ONE}/runs/{answer.json['runId']}")
    assert (found.status, found.json) == (200, answer.json)


@pytest.mark.parametrize("run_id", ["x1", "s", "s1-zz", "m1-12345678x", "s123456789012345"])
async def test_the_id_of_a_run_has_a_form(edge: Edge, run_id: str) -> None:
    await created(edge)
    answer = await edge.ask("GET", f"{ONE}/runs/{run_id}")
    assert (answer.status, answer.fields) == (400, ["runId"])


async def test_every_wrong_field_of_a_report_is_told_at_once(edge: Edge) -> None:
    await created(edge)
    answer = await edge.ask("POST", f"{ONE}/runs/x1/heartbeat", json={"extendMs": 1})
    assert (answer.status, answer.fields) == (400, ["runId", "extendMs"])


@pytest.mark.parametrize(("method", "path", "body"), EVERY_CALL[2:-1])
async def test_an_unknown_job_is_not_found(edge: Edge, method: str, path: str, body: Any) -> None:
    given = {} if body is None else {"json": body}
    answer = await edge.ask(method, path, **given)
    assert (answer.status, answer.json["type"]) == (404, "urn:clockwork:problem:job-not-found")


@pytest.mark.parametrize(("what", "path"), [("run", "runs/s1"), ("version", "versions/9")])
async def test_an_unknown_run_or_version_of_a_job_is_not_found(edge: Edge, what: str, path: str) -> None:
    await created(edge)
    answer = await edge.ask("GET", f"{ONE}/{path}")
    assert (answer.status, answer.json["type"]) == (404, f"urn:clockwork:problem:{what}-not-found")


@pytest.mark.parametrize(("method", "path", "body"), [*EVERY_CALL, *CALENDAR_CALLS])
async def test_a_cluster_without_jobs_says_so_whatever_is_asked(method: str, path: str, body: Any) -> None:
    engine = Engine(clock=ManualClock(NOW_MS))
    engine.context = replace(engine.context, settings=replace(engine.context.settings, jobs="off"))
    async with open_edge(engine) as edge:
        answer = await edge.ask(method, path, **({} if body is None else {"json": body}))
    assert (answer.status, answer.json["type"]) == (501, "urn:clockwork:problem:jobs-off")


@pytest.mark.parametrize("path", ["/jobs", f"{ONE}/run-now"])
async def test_creates_and_runs_by_hand_count_for_the_rate_of_their_client(path: str) -> None:
    async with open_edge(creates_per_second=2) as edge:
        await created(edge)
        body = {"requestId": "r"} if path.endswith("run-now") else a_job(jobId="b")
        answer = await edge.ask("POST", path, json=body)
        assert (answer.status, answer.headers["RateLimit"].split(";")[:2]) == (201, ['"creates"', "r=0"])
        body = {"requestId": "s"} if path.endswith("run-now") else a_job(jobId="c")
        assert (await edge.ask("POST", path, json=body)).status == 429


async def test_a_client_with_as_many_jobs_as_it_may_have_is_over_a_limit() -> None:
    engine = Engine(clock=ManualClock(NOW_MS))
    engine.context = replace(engine.context, settings=replace(engine.context.settings, client_jobs_max=1))
    async with open_edge(engine) as edge:
        await created(edge)
        answer = await edge.ask("POST", "/jobs", json=a_job(jobId="b"))
        assert (answer.status, answer.headers["RateLimit"]) == (429, '"jobs";r=0')
        await edge.shows('clockwork_limited_total{limit="jobs"} 1.0')


# --- pages


async def pages(edge: Edge, path: str, name: str) -> list[Any]:
    found: list[Any] = []
    cursor = ""
    while True:
        page = (await edge.ask("GET", f"{path}{cursor}")).json
        found += page[name]
        if page["cursor"] is None:
            return found
        cursor = f"&cursor={page['cursor']}"


async def test_lists_logs_and_versions_come_page_by_page(edge: Edge) -> None:
    for job_id in ("a", "b", "ü"):
        await created(edge, job_id)
    assert [each["jobId"] for each in await pages(edge, "/jobs?clientId=shop&limit=1", "jobs")] == ["a", "b", "ü"]
    for priority in (1, 2):
        await edge.ask("PUT", "/jobs/shop/a", json={"priority": priority})
    versions = await pages(edge, "/jobs/shop/a/versions?limit=1", "versions")
    assert [(each["version"], each.get("priority")) for each in versions] == [(3, 2), (2, 1), (1, None)]
    for number in range(3):
        await edge.ask("POST", "/jobs/shop/a/run-now", json={"requestId": str(number)})
    assert len(await pages(edge, "/jobs/shop/a/logs?limit=1", "runs")) == 4


async def test_a_cursor_belongs_to_its_query(edge: Edge) -> None:
    for job_id in ("a", "b"):
        await created(edge, job_id)
    cursor = (await edge.ask("GET", "/jobs?clientId=shop&limit=1")).json["cursor"]
    for wrong in (f"/jobs?clientId=shop&status=paused&cursor={cursor}", "/jobs?clientId=shop&cursor=AAAA"):
        answer = await edge.ask("GET", wrong)
        assert (answer.status, answer.fields) == (400, ["cursor"])
    for wrong in (f"/jobs/shop/a/logs?cursor={cursor}", f"/jobs/shop/a/versions?cursor={cursor}"):
        assert (await edge.ask("GET", wrong)).fields == ["cursor"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["a", "b"]),
        ("&status=paused", ["b"]),
        ("&status=deleted", ["gone"]),
        ("&deleted=true", ["gone"]),
        ("&deleted=false", ["a", "b"]),
        ("&label=team:x", ["a"]),
        ("&label=team:", []),
        ("&topic=orders", ["a", "b"]),
    ],
)
async def test_a_list_is_filtered(edge: Edge, query: str, found: list[str]) -> None:
    await created(edge, "a", labels={"team": "x"})
    for job_id in ("b", "gone"):
        await created(edge, job_id)
    await edge.ask("POST", "/jobs/shop/b/pause")
    await edge.ask("DELETE", "/jobs/shop/gone")
    assert [each["jobId"] for each in (await edge.ask("GET", f"/jobs?clientId=shop{query}")).json["jobs"]] == found


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("clientId", ""),
        ("status", "clientId=shop&status=armed"),
        ("label", "clientId=shop&label=team"),
        ("deleted", "clientId=shop&deleted=yes"),
        ("limit", "clientId=shop&limit=0"),
        ("query", "&".join(f"a{number}=1" for number in range(PARAMETERS_MAX + 1))),
    ],
)
async def test_a_wrong_list_names_its_parameter(edge: Edge, name: str, query: str) -> None:
    answer = await edge.ask("GET", f"/jobs?{query}")
    assert (answer.status, answer.fields) == (400, [name])


# --- completion


DELAYED = {"type": "fixed_delay", "delayMs": 60_000}


async def delivered_run(edge: Edge, **fields: Any) -> str:
    """The path of a run that is delivered, and awaits its completion."""
    await edge.ask("POST", "/jobs", json=a_job(trigger=DELAYED, completion={"timeoutMs": 300_000}, **fields))
    for number in range(SHARDS):
        lease = await edge.engine.own(ShardId(number))
        await edge.engine.one_pass(lease)
        await lease.cleanup.finish()
    return f"{ONE}/runs/s{edge.engine.clock.now_ms()}"


async def test_a_run_is_kept_open_and_completed_and_shown_so(edge: Edge) -> None:
    run = await delivered_run(edge)
    now_ms = edge.engine.clock.now_ms()
    goes_on = await edge.ask("POST", f"{run}/heartbeat", json={"extendMs": 600_000})
    assert (goes_on.status, goes_on.json["until"], goes_on.json["attempt"]) == (200, now_ms + 600_000, 1)
    for _ in range(2):
        answer = await edge.ask("POST", f"{run}/complete", json={"startedAt": now_ms - 5, "result": {"rows": 7}})
        assert (answer.status, answer.json["status"], answer.json["result"]) == (200, "completed", {"rows": 7})
    assert (answer.json["durationMs"], (await edge.ask("GET", run)).json["status"]) == (5, "completed")


async def test_a_report_that_does_not_count_names_its_reason_and_shows_the_run(edge: Edge) -> None:
    run = await delivered_run(edge)
    assert (await edge.ask("POST", f"{run}/fail", json={"error": "disk full"})).json["error"] == "disk full"
    answer = await edge.ask("POST", f"{run}/complete")
    assert (answer.status, answer.json["reason"], answer.json["run"]["status"]) == (409, "failed", "failed")
    await edge.ask("DELETE", ONE)
    answer = await edge.ask("POST", f"{run}/complete")
    assert (answer.status, answer.json["reason"], answer.json["job"]["status"]) == (409, "deleted", "deleted")


@pytest.mark.parametrize(
    ("what", "body", "field"),
    [
        ("complete", {"attempt": 0}, "attempt"),
        ("complete", {"result": "x" * 4_095}, "result"),
        ("complete", {"startedAt": -1}, "startedAt"),
        ("fail", {"result": 1}, "result"),
        ("fail", {"retry": "no"}, "retry"),
        ("heartbeat", {}, "extendMs"),
        ("heartbeat", {"extendMs": 999}, "extendMs"),
    ],
)
async def test_a_wrong_report_names_its_field(edge: Edge, what: str, body: Any, field: str) -> None:
    run = await delivered_run(edge)
    answer = await edge.ask("POST", f"{run}/{what}", json=body)
    assert (answer.status, answer.fields) == (400, [field])


# --- calendars

DAILY_BY_CALENDAR = {**DAILY, "exclude": {"calendar": "de"}}


async def test_a_put_of_a_calendar_answers_201_with_its_place_and_200_again(edge: Edge) -> None:
    holidays = {"annual": ["12-25"], "weekdays": ["SUN"], "cron": ["* 0-7 * * *"], "description": "Feiertage"}
    first = await edge.ask("PUT", CALENDAR, json=holidays)
    assert (first.status, first.headers["ETag"], first.headers["Location"]) == (201, '"1"', CALENDAR)
    again = await edge.ask("PUT", CALENDAR, json=holidays)
    assert (again.status, again.json) == (200, first.json)
    assert first.json == {
        "clientId": "shop",
        "name": "de",
        **holidays,
        "version": 1,
        "createdAt": NOW_MS,
        "updatedAt": NOW_MS,
    }
    assert (await edge.ask("GET", CALENDAR)).json == first.json
    listed = await edge.ask("GET", "/calendars?clientId=shop")
    assert listed.json == {"calendars": [first.json], "cursor": None}


async def test_a_put_replaces_a_calendar_as_a_whole(edge: Edge) -> None:
    await edge.ask("PUT", CALENDAR, json={"annual": ["12-25"], "description": "Feiertage"})
    answer = await edge.ask("PUT", CALENDAR, json={"dates": ["2027-01-16"]}, headers={"If-Match": '"1"'})
    assert (answer.status, answer.headers["ETag"]) == (200, '"2"')
    assert not answer.json.keys() & {"annual", "description"}


async def test_a_job_and_a_preview_go_by_a_named_calendar(edge: Edge) -> None:
    asked = {"clientId": "shop", "trigger": DAILY_BY_CALENDAR, "count": 1, "from": NOW_MS + 1}
    for path, body in (("/jobs", a_job(trigger=DAILY_BY_CALENDAR)), ("/jobs/preview", asked)):
        answer = await edge.ask("POST", path, json=body)
        assert (answer.status, answer.fields) == (400, ["trigger.exclude.calendar"])
    await edge.ask("PUT", CALENDAR, json={"dates": ["2027-01-16"]})
    (time,) = (await edge.ask("POST", "/jobs/preview", json=asked)).json["times"]
    assert time["local"] == "2027-01-17T09:00:00+01:00"
    assert time["note"] == "excluded: 1 before it, 2027-01-16T09:00 (calendar de)"
    await created(edge, trigger=DAILY_BY_CALENDAR)
    found = (await edge.ask("GET", ONE)).json
    assert found["nextRun"]["local"] == "2027-01-17T09:00:00+01:00"
    assert found["trigger"]["exclude"] == {"calendar": "de"}

    assert "behind" not in (await edge.ask("PUT", CALENDAR, json={"dates": ["2027-01-17"]})).json
    found = (await edge.ask("GET", ONE)).json
    assert (found["nextRun"]["local"], found["version"]) == ("2027-01-16T09:00:00+01:00", 2)
    refused = await edge.ask("DELETE", CALENDAR)
    assert (refused.status, refused.json["jobs"]) == (409, ["report"])


async def test_previews_take_turns_and_leave_threads_to_other_calls(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The search for a rare date takes seconds of a thread, and any key may ask for a hundred of them.
    go, running, most = threading.Event(), 0, 0

    def times(_: Preview) -> list[FireTime]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        go.wait()
        running -= 1
        return []

    monkeypatch.setattr(Preview, "times", times)
    places = PREVIEWS_AT_ONCE + PREVIEWS_WAITING_MAX

    async def the_others_are_refused() -> bool:
        return sum(task.done() for task in asking) >= 60 - places

    try:
        async with asyncio.TaskGroup() as group:
            asking = [
                group.create_task(edge.ask("POST", "/jobs/preview", json={"trigger": DAILY}), name="ask")
                for _ in range(60)
            ]
            await until(the_others_are_refused, "refusals")
            assert (await edge.ask("GET", "/jobs?clientId=shop")).status == 200
            go.set()
    finally:
        go.set()  # else its threads keep the process from ending
    statuses = sorted(task.result().status for task in asking)
    assert statuses == places * [200] + (60 - places) * [429]
    assert 1 <= most <= PREVIEWS_AT_ONCE


async def test_a_preview_that_names_a_calendar_names_its_client(edge: Edge) -> None:
    answer = await edge.ask("POST", "/jobs/preview", json={"trigger": DAILY_BY_CALENDAR})
    assert (answer.status, answer.fields) == (400, ["clientId"])


async def test_conditions_rule_versions_of_a_calendar_out(edge: Edge) -> None:
    for tag in ('"1"', "*"):
        missing = await edge.ask("PUT", CALENDAR, json={}, headers={"If-Match": tag})
        assert (missing.status, "calendar" in missing.json) == (412, False)
    assert (await edge.ask("PUT", CALENDAR, json={}, headers={"If-None-Match": "*"})).status == 201
    again = await edge.ask("PUT", CALENDAR, json={"annual": ["12-25"]}, headers={"If-None-Match": "*"})
    assert (again.status, again.json["calendar"]["version"]) == (412, 1)
    assert (await edge.ask("GET", CALENDAR, headers={"If-None-Match": '"1"'})).status == 304
    for method in ("GET", "DELETE"):
        answer = await edge.ask(method, CALENDAR, headers={"If-Match": '"2"'})
        assert (answer.status, answer.headers["ETag"]) == (412, '"1"')
    assert (await edge.ask("DELETE", CALENDAR, headers={"If-Match": '"1"'})).status == 200
    assert (await edge.ask("DELETE", CALENDAR)).status == 404


@pytest.mark.parametrize(
    ("path", "body", "fields"),
    [
        ("/calendars/shop/d%2Fe", {}, ["calendar"]),
        ("/calendars/shop/.de", {}, ["calendar"]),
        (f"/calendars/shop/{'x' * 65}", {}, ["calendar"]),
        (CALENDAR, {"calendar": "at", "days": []}, ["calendar", "days"]),
        (
            CALENDAR,
            {"dates": ["2027-02-29", "2027-01-01"], "annual": ["13-01"], "cron": ["* * * *"]},
            ["dates.0", "annual.0", "cron.0"],
        ),
        (CALENDAR, {"dates": ["2027-01-01"] * 501}, ["dates"]),
        (CALENDAR, {"weekdays": ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]}, ["body"]),
        (
            CALENDAR,
            {"cron": [f"0{',0' * 250} 1 * * *"] * 20, "dates": ["2027-01-01"] * 500, "annual": ["01-01"] * 366},
            ["body"],
        ),
        (CALENDAR, {"description": ""}, ["description"]),
        (CALENDAR, [], ["body"]),
    ],
)
async def test_a_wrong_calendar_names_every_wrong_field(edge: Edge, path: str, body: Any, fields: list[str]) -> None:
    answer = await edge.ask("PUT", path, json=body)
    assert (answer.status, sorted(answer.fields)) == (400, sorted(fields))
