"""The client and recurring jobs: every call against the service on the twins, and what is sent."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from typing import Any

import pytest
from aiohttp import ClientConnectionError

import clockwork.client as c
from clockwork.client import AsyncClient
from clockwork.client.jobs import JobChanges, NewJobFields, trigger_document
from clockwork.client.runs import RunInProgress
from clockwork.domain.record import delivery_of
from clockwork.domain.run import Chain, RunId, RunKind, RunOfRow
from clockwork.errors import FieldError
from clockwork.schema import problems
from clockwork.schema.completion import HeartbeatDocument
from clockwork.schema.job import JobChangeForm, JobForm, RunDocument
from clockwork.schema.problems import Problem
from clockwork.schema.schedule import DeliveryForm
from tests.support import builders
from tests.support.virtual_time import in_virtual_time
from tests.unit.api_edge import NOW_MS, StillClock
from tests.unit.client_stub import FAST, Stub, open_stub
from tests.unit.service import Service, open_service

MINUTE = timedelta(minutes=1)
MINUTE_MS = 60_000
JOB = ("shop", "report")
PATH = "/jobs/shop/report"
FIELDS: dict[str, Any] = {
    "trigger": c.Every(minutes=1),
    "topic": builders.TOPIC,
    "data": {"day": 1},
}
ARGUMENTS = {"deadline": "deadline_ms", "taskData": "data"}
"""Fields that the client names otherwise than the HTTP API."""


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with open_service() as opened:
        yield opened


@pytest.fixture
async def client(service: Service) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(service.url, retries=FAST, clock=service.engine.clock) as opened:
        yield opened


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with open_stub() as opened:
        yield opened


async def _deliver_next(client: AsyncClient, service: Service) -> None:
    following = (await client.get_job(*JOB)).next_run
    assert following is not None
    service.engine.clock.set_ms(following.due_at_ms)
    await service.deliver()


# --- against the service itself


async def test_a_job_is_created_fired_shown_changed_paused_and_deleted(client: AsyncClient, service: Service) -> None:
    created = await client.create_job(*JOB, **FIELDS, description="daily", labels={"team": "web"})
    assert (created.status, created.version, created.description) == ("active", 1, "daily")
    assert await client.create_job(*JOB, **FIELDS, description="daily", labels={"team": "web"}) == created
    with pytest.raises(c.KeyTaken) as taken:
        await client.create_job(*JOB, **{**FIELDS, "data": 2})
    assert taken.value.job is not None
    assert taken.value.job.task_data == {"day": 1}

    await _deliver_next(client, service)
    shown = await client.get_job(*JOB, next_times=3)
    assert (shown.counts.delivered, len(shown.next_times or [])) == (1, 3)
    assert shown.last_run is not None
    assert shown.last_run.delivered is not None
    assert shown.next_run is not None
    assert shown.last_run.run_id is not None
    assert await client.get_run(*JOB, shown.last_run.run_id) == shown.last_run
    assert [each async for each in client.logs(*JOB, status="delivered")] == [shown.last_run]

    changed = await client.put_job(*JOB, trigger=c.Cron("0 9 * * *", zone="Europe/Berlin"), description=None)
    assert changed.trigger is not None
    assert (changed.version, changed.trigger.time_zone, changed.description) == (2, "Europe/Berlin", None)
    assert (changed.task_data, changed.in_flight) == ({"day": 1}, None)
    with pytest.raises(c.VersionMismatch) as stale:
        await client.put_job(*JOB, data=b"\xff", if_version=1)
    assert stale.value.job is not None
    assert stale.value.job.version == 2
    bytes_ = await client.put_job(*JOB, data=b"\xff", if_version=2)
    assert (bytes_.task_data, bytes_.task_data_encoding) == ("/w==", "base64")
    # A text is a text again, and no base64.
    assert (await client.put_job(*JOB, data="text")).task_data == "text"
    assert [each.version async for each in client.versions(*JOB, page_size=1)] == [4, 3, 2, 1]
    assert (await client.get_version(*JOB, 1)).task_data == {"day": 1}

    paused = await client.pause_job(*JOB, note="holidays")
    assert (paused.status, paused.note, paused.next_run) == ("paused", "holidays", None)
    assert (await client.resume_job(*JOB)).next_run is not None
    assert [each.job_id async for each in client.list_jobs("shop", label=("team", "web"))] == ["report"]
    assert [each.job_id async for each in client.list_jobs("shop", label=("team", "other"))] == []
    assert (await client.delete_job(*JOB)).status == "deleted"
    assert [each.job_id async for each in client.list_jobs("shop", deleted=True)] == ["report"]
    with pytest.raises(c.JobDeleted):
        await client.pause_job(*JOB)
    assert (await client.restore_job(*JOB)).status == "active"
    with pytest.raises(c.JobNotDeleted):
        await client.restore_job(*JOB)


async def test_a_run_by_hand_is_one_run_however_often_it_is_asked_for(client: AsyncClient, service: Service) -> None:
    await client.create_job(*JOB, **{**FIELDS, "trigger": None}, durable=True)
    asked = await client.run_job(*JOB, data="now", request_id="1")
    assert await client.run_job(*JOB, data="now", request_id="1") == asked
    assert (await client.run_job(*JOB)).run_id != asked.run_id
    with pytest.raises(c.KeyTaken):
        await client.run_job(*JOB, data="other", request_id="1")
    await service.deliver()
    log = [each async for each in client.logs(*JOB, page_size=1)]
    assert [(each.kind, each.status) for each in log] == [("manual", "delivered")] * 2
    assert asked.run_id in {each.run_id for each in log}


async def test_past_fire_times_are_run_by_a_backfill(client: AsyncClient, service: Service) -> None:
    start_ms = service.engine.clock.now_ms()
    await client.create_job(*JOB, **{**FIELDS, "trigger": c.Every(minutes=1, anchor=start_ms - 10 * MINUTE_MS)})
    since, until = start_ms - 5 * MINUTE_MS, start_ms - MINUTE_MS
    asked = await client.backfill(*JOB, since=since, until=until, max_runs=2, request_id="b")
    assert (asked.request_id, asked.run.scheduled_at_ms) == ("b", since)
    assert await client.backfill(*JOB, since=since, until=until, max_runs=2, request_id="b") == asked
    with pytest.raises(c.InvalidRequest) as wrong:
        await client.backfill(*JOB, since=since, until=timedelta(hours=1))
    assert [each.field for each in wrong.value.errors] == ["to"]


async def test_a_preview_shows_the_rule_that_moved_a_time(client: AsyncClient) -> None:
    since = datetime(2030, 3, 30, tzinfo=UTC)
    times = await client.preview(c.Cron("30 2 * * *", zone="Europe/Berlin"), since=since, count=2)
    assert [each.local[:16] for each in times] == ["2030-03-30T02:30", "2030-03-31T03:00"]
    assert [each.note is None for each in times] == [True, False]
    with pytest.raises(c.InvalidRequest) as wrong:
        await client.preview(c.Cron("61 * * * *"))
    assert [each.field for each in wrong.value.errors] == ["trigger.expression"]


async def test_what_is_not_there_is_not_found(client: AsyncClient) -> None:
    await client.create_job(*JOB, **FIELDS)
    calls: list[Any] = [
        client.get_job("shop", "none"),
        client.get_run(*JOB, "s1"),
        client.get_version(*JOB, 9),
        client.resume_job("shop", "none"),
    ]
    for call in calls:
        with pytest.raises(c.NotFound):
            await call


@pytest.mark.parametrize("job_id", ["a/b", "ü %2f", "..", "?#", "\x00"])
async def test_every_job_id_arrives_as_it_is(client: AsyncClient, job_id: str) -> None:
    await client.create_job("shop", job_id, **FIELDS)
    assert (await client.get_job("shop", job_id)).job_id == job_id


# --- triggers


@pytest.mark.parametrize(
    ("trigger", "document"),
    [
        (
            c.Cron("0 9 * * MON-FRI", zone="Europe/Berlin"),
            {"type": "cron", "expression": "0 9 * * MON-FRI", "timeZone": "Europe/Berlin"},
        ),
        (
            c.Cron("0 0 9 ? * 2", dialect="quartz", days="and", gap="skip", overlap="both", start=5, end=MINUTE),
            {
                **{"type": "cron", "expression": "0 0 9 ? * 2", "dialect": "quartz", "days": "and"},
                **{"dst": {"gap": "skip", "overlap": "both"}, "start": 5, "end": NOW_MS + MINUTE_MS},
            },
        ),
        (
            c.Cron(
                "@daily",
                exclude=c.Exclude(dates=[date(2026, 12, 25), "2027-01-01"], weekdays=["SAT"], calendar="de"),
                on_excluded="next",
            ),
            {
                **{"type": "cron", "expression": "@daily", "onExcluded": "next"},
                "exclude": {"dates": ["2026-12-25", "2027-01-01"], "weekdays": ["SAT"], "calendar": "de"},
            },
        ),
        (
            c.RRule("FREQ=WEEKLY;BYDAY=WE", start=5, zone="Europe/Berlin", gap="skip"),
            {
                **{"type": "rrule", "rule": "FREQ=WEEKLY;BYDAY=WE", "start": 5, "timeZone": "Europe/Berlin"},
                "dst": {"gap": "skip"},
            },
        ),
        (c.Every(seconds=30), {"type": "fixed_rate", "everyMs": 30_000}),
        (c.Every(hours=1.5, anchor=7), {"type": "fixed_rate", "everyMs": 5_400_000, "anchor": 7}),
        (
            c.After(minutes=5, max_runs=3, jitter=MINUTE, jitter_per="run"),
            {"type": "fixed_delay", "delayMs": 300_000, "maxRuns": 3, "jitterMs": 60_000, "jitterPer": "run"},
        ),
        (
            c.AnyOf([c.Cron("@daily"), c.Every(days=1)], max_runs=2),
            {
                **{"type": "any", "maxRuns": 2},
                "of": [{"type": "cron", "expression": "@daily"}, {"type": "fixed_rate", "everyMs": 86_400_000}],
            },
        ),
        ({"type": "rrule", "rule": "FREQ=DAILY"}, {"type": "rrule", "rule": "FREQ=DAILY"}),
    ],
)
def test_triggers_are_sent_as_the_api_wants_them(trigger: c.Trigger, document: dict[str, Any]) -> None:
    assert trigger_document(trigger, StillClock()) == document


def test_a_span_with_a_part_of_a_millisecond_is_refused_and_not_rounded() -> None:
    for trigger in (c.Every(milliseconds=1_000.5), c.After(seconds=1, jitter=timedelta(microseconds=1))):
        with pytest.raises(ValueError, match="whole milliseconds"):
            trigger_document(trigger, StillClock())


# --- what is sent


def test_the_client_has_every_field_of_a_job() -> None:
    def names(model: Any) -> set[str]:
        return {each.alias for each in model.model_fields.values()}

    fields = names(JobForm) - {"clientId", "jobId", "delivery", "taskDataEncoding"} | names(DeliveryForm)
    snake = {"".join("_" + letter.lower() if letter.isupper() else letter for letter in name) for name in fields}
    expected = {ARGUMENTS.get(name, name) for name in snake - {"task_data"} | {"taskData"}}
    assert names(JobForm) == names(JobChangeForm)
    assert NewJobFields.__annotations__.keys() == JobChanges.__annotations__.keys() == expected


async def test_each_field_is_sent_as_the_api_wants_it(stub: Stub) -> None:
    async with AsyncClient(stub.url, retries=FAST, clock=StillClock()) as client:
        everything: dict[str, Any] = {
            **FIELDS,
            **{"ordering_key": "o", "guarantee": "at_least_once", "headers": {"a": "b"}, "deadline_ms": 9},
            **{"on_late": "drop", "retry": c.RetryPolicy(attempts=3), "overlap": "allow", "durable": True},
            **{"misfire": c.Misfire(policy="fire_all", grace_ms=1_000, max_catch_up=2, window_ms=3)},
            **{"pause_after_failures": 4, "description": "d", "labels": {"x": "y"}, "priority": 5},
            **{"interpolate": True, "payload_schema": {"type": "object"}},
            "completion": c.Completion(timeout_ms=5_000, attempts=3, factor=1.5, retry_on=["timeout"]),
        }
        assert everything.keys() == NewJobFields.__annotations__.keys()
        with pytest.raises(c.Unavailable):  # the stub has no job to answer with
            await client.create_job(*JOB, **everything)
        with pytest.raises(c.Unavailable):
            await client.put_job(*JOB, trigger=None, description=None, deadline_ms=None, data=None, if_version=3)
        with pytest.raises(TypeError, match="colour"):
            await client.put_job(*JOB, colour="red")  # type: ignore[call-arg]
    create, put = stub.asked
    assert create.body == {
        **{"clientId": "shop", "jobId": "report", "orderingKey": "o", "taskData": {"day": 1}, "overlap": "allow"},
        "trigger": {"type": "fixed_rate", "everyMs": 60_000},
        "misfire": {"policy": "fire_all", "graceMs": 1_000, "maxCatchUp": 2, "windowMs": 3},
        **{"durable": True, "pauseAfterFailures": 4, "description": "d", "labels": {"x": "y"}, "priority": 5},
        **{"interpolate": True, "payloadSchema": {"type": "object"}},
        "completion": {"timeoutMs": 5_000, "retry": {"attempts": 3, "factor": 1.5}, "retryOn": ["timeout"]},
        "delivery": {
            **{"topic": builders.TOPIC, "guarantee": "at_least_once", "headers": {"a": "b"}, "deadline": 9},
            **{"onLate": "drop", "retry": {"attempts": 3}},
        },
    }
    assert (put.method, put.path, put.headers["If-Match"]) == ("PUT", PATH, '"3"')
    assert put.body == {
        **{"trigger": None, "description": None, "taskData": None, "taskDataEncoding": "json"},
        "delivery": {"deadline": None},
    }


async def test_a_request_that_is_made_again_keeps_its_id(stub: Stub) -> None:
    stub.will("drop", (201, {"status": "armed", "runId": "m1-00000000"}))
    async with AsyncClient(stub.url, retries=FAST, clock=StillClock()) as client:
        await client.run_job(*JOB)
        await client.run_job(*JOB)
    first, again, other = (each.body["requestId"] for each in stub.asked)
    assert first == again != other


async def test_a_restore_whose_answer_was_lost_is_done_and_another_one_is_refused(
    client: AsyncClient, service: Service
) -> None:
    await client.create_job(*JOB, **FIELDS)
    await client.delete_job(*JOB)
    _lose_next_answer(client)
    assert (await client.restore_job(*JOB)).status == "active"
    with pytest.raises(c.JobNotDeleted):
        await client.restore_job(*JOB)


def _lose_next_answer(client: AsyncClient) -> None:
    """The next request is carried out, and its answer does not arrive."""
    transport, real = client._http, client._http._request_once

    async def once(*given: Any) -> Any:
        setattr(transport, "_request_once", real)  # noqa: B010  # a method, which types do not let us assign
        await real(*given)
        raise ClientConnectionError("cut")

    setattr(transport, "_request_once", once)  # noqa: B010


# --- errors


def _conflict(reason: str) -> Problem:
    more = {"reason": reason, "job": {"a": "form of a later service"}}
    return Problem(status=HTTPStatus.CONFLICT, kind="conflict", title="no", detail="no", more=more)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (_conflict("exists"), c.KeyTaken),
        (_conflict("deleted"), c.JobDeleted),
        (_conflict("ended"), c.JobEnded),
        (_conflict("not_deleted"), c.JobNotDeleted),
        (_conflict("running"), c.JobRunning),
        (_conflict("too_many_runs"), c.TooManyRuns),
        (_conflict("no_fire_times"), c.NoFireTimes),
        (_conflict("not_open"), c.RunNotOpen),
        (_conflict("of a later service"), c.Conflict),
        (problems.invalid_input([FieldError("trigger", "is required")]), c.InvalidRequest),
        (problems.not_found("run-not-found", "no", "no"), c.NotFound),
        ((404, {}), c.NotSupported),
        ((501, {}), c.NotSupported),
    ],
)
async def test_the_error_says_what_to_do(stub: Stub, answer: Any, error: type[c.CallFailed]) -> None:
    stub.will(answer)
    async with AsyncClient(stub.url, retries=FAST) as client:
        with pytest.raises(error) as raised:
            await client.resume_job(*JOB)
    assert type(raised.value) is error
    assert raised.value.job is None


# --- consumers


SCHEDULE = builders.schedule()


def _headers(**fields: Any) -> list[tuple[str, bytes | None]]:
    job = RunOfRow(
        rev=1,
        version=3,
        kind=RunKind.CATCH_UP,
        chain=Chain.MAIN,
        scheduled_at_ms=60_000,
        cursor_ms=60_000,
        run_id=RunId("s60000"),
        attempt=2,
        **fields,
    )
    return list(delivery_of(SCHEDULE, now_ms=61_000, job=job).headers)


def test_a_consumer_reads_the_run_that_a_record_belongs_to() -> None:
    run = c.run_of(_headers(previous_at_ms=0, timeout_ms=500, priority=7))
    assert (run.client_id, run.job_id) == (builders.CLIENT, SCHEDULE.schedule_key)
    assert (run.run_id, run.kind, run.attempt, run.job_version) == ("s60000", "catch_up", 2, 3)
    assert (run.scheduled_at_ms, run.previous_at_ms, run.until_ms, run.priority) == (60_000, 0, 61_500, 7)
    bare = c.run_of(_headers())
    assert (bare.previous_at_ms, bare.until_ms, bare.priority) == (None, None, None)
    # The headers of jobs are Clockwork's, and none of the caller's.
    assert c.delivery_of(_headers()).headers == c.delivery_of(delivery_of(SCHEDULE, now_ms=1).headers).headers


@pytest.mark.parametrize("name", ["clockwork-job-id", "clockwork-run-id", "clockwork-scheduled-at"])
def test_a_record_of_no_job_and_a_damaged_one_are_told(name: str) -> None:
    headers = [each for each in _headers() if each[0] != name]
    with pytest.raises(c.NotADelivery, match=name):
        c.run_of(headers)


def _record_of(run: c.Run, until_ms: int | None) -> list[tuple[str, bytes | None]]:
    """The headers of a run's record."""
    named = {
        "client-id": "shop",
        "job-id": "report",
        "job-version": run.version,
        "run-id": run.run_id,
        "run-kind": run.kind,
        "run-attempt": run.attempt,
        "scheduled-at": run.scheduled_at_ms,
        **({} if until_ms is None else {"run-until": until_ms}),
    }
    return [(f"clockwork-{name}", str(value).encode()) for name, value in named.items()]


async def _delivered_run(client: AsyncClient, service: Service) -> tuple[c.Run, list[tuple[str, bytes | None]]]:
    await client.create_job(*JOB, **FIELDS, overlap="skip", completion=c.Completion(timeout_ms=300_000))
    await _deliver_next(client, service)
    run = (await client.get_job(*JOB)).last_run
    assert run is not None
    return run, _record_of(run, service.engine.clock.now_ms() + 300_000)


async def test_a_block_completes_the_run_of_its_record(client: AsyncClient, service: Service) -> None:
    run, headers = await _delivered_run(client, service)
    async with client.run(headers) as working:
        working.result = {"rows": 7}
    ended = await client.get_run(*JOB, run.run_id or "")
    assert (ended.status, ended.result, ended.started_at_ms) == ("completed", {"rows": 7}, ended.finished_at_ms)


@pytest.mark.parametrize(
    ("result", "why"), [({1, 2}, "no JSON"), (float("nan"), "JSON"), ("x" * 4_095, "4097 bytes"), ([[[]]], None)]
)
async def test_a_result_that_cannot_be_sent_is_told_where_it_is_set(
    client: AsyncClient, service: Service, result: Any, why: str | None
) -> None:
    _, headers = await _delivered_run(client, service)
    async with client.run(headers) as working:
        if why is None:
            working.result = result
        else:
            with pytest.raises(ValueError, match=why):
                working.result = result
        assert working.result == (result if why is None else None)


async def test_a_run_whose_result_was_made_too_large_meanwhile_is_completed_without_it_and_the_block_says_so(
    client: AsyncClient, service: Service
) -> None:
    run, headers = await _delivered_run(client, service)
    result: dict[str, str] = {}

    async def work() -> None:
        async with client.run(headers) as working:
            working.result = result
            result["rows"] = "x" * 5_000

    with pytest.raises(ValueError, match="completed, but without its result"):
        await work()
    ended = await client.get_run(*JOB, run.run_id or "")
    assert (ended.status, ended.result) == ("completed", None)


async def test_a_block_that_raises_fails_the_run_and_raises_on(client: AsyncClient, service: Service) -> None:
    run, headers = await _delivered_run(client, service)
    with pytest.raises(LookupError):
        async with client.run(headers):
            raise LookupError("no such row")
    ended = await client.get_run(*JOB, run.run_id or "")
    assert (ended.status, ended.error) == ("failed", {"type": "LookupError", "message": "no such row"})


async def test_an_error_whose_message_is_no_text_is_reported_all_the_same(
    client: AsyncClient, service: Service
) -> None:
    run, headers = await _delivered_run(client, service)
    with pytest.raises(LookupError):
        async with client.run(headers):
            raise LookupError("no file caf\udce9")
    ended = await client.get_run(*JOB, run.run_id or "")
    assert (ended.status, ended.error) == ("failed", {"type": "LookupError", "message": "no file caf?"})


async def test_a_block_of_a_run_that_has_ended_says_why(client: AsyncClient, service: Service) -> None:
    run, headers = await _delivered_run(client, service)
    await client.fail_run(*JOB, run.run_id or "", error="x")
    with pytest.raises(c.AlreadyFailed):
        async with client.run(headers):
            pass


async def test_where_a_failure_cannot_be_reported_the_error_of_the_block_says_so(
    client: AsyncClient, service: Service
) -> None:
    _, headers = await _delivered_run(client, service)
    await client.delete_job(*JOB)
    with pytest.raises(LookupError) as raised:
        async with client.run(headers):
            raise LookupError
    assert "could not be reported" in raised.value.__notes__[0]


async def test_a_block_of_a_run_without_completion_asks_nothing(stub: Stub) -> None:
    run = c.Run(status="delivered", run_id="s1", kind="scheduled", version=1, attempt=1, scheduled_at_ms=1)
    async with AsyncClient(stub.url) as client, client.run(_record_of(run, None)):
        pass
    assert stub.asked == []


async def test_heartbeats_keep_the_time_out_away_until_the_run_is_lost(stub: Stub) -> None:
    run = c.Run(status="running", run_id="s1", kind="scheduled", version=1, attempt=2, scheduled_at_ms=1)
    goes_on = {"runId": "s1", "attempt": 2, "until": NOW_MS}
    superseded = {"status": 409, "title": "t", "detail": "d", "reason": "superseded"}
    told = asyncio.Event()

    def lost(asked: Any) -> tuple[int, Any]:
        told.set()
        return 409, superseded

    stub.will((200, goes_on), (503, {}), lost)
    async with AsyncClient(stub.url, retries=FAST, clock=StillClock()) as client:
        with pytest.raises(c.RunSuperseded):
            async with client.run(_record_of(run, NOW_MS), extend_ms=600):
                await told.wait()
    assert {each.path for each in stub.asked[:2]} == {f"{PATH}/runs/s1/heartbeat"}
    assert stub.asked[0].body == {"attempt": 2, "extendMs": 600}
    assert stub.asked[-1].path == f"{PATH}/runs/s1/complete"


class TimedReports:
    """A service that times a run out by its own clock."""

    def __init__(self, left_s: float) -> None:
        self._until_s = asyncio.get_running_loop().time() + left_s
        self.completed = False

    async def heartbeat_run(
        self, client_id: str, job_id: str, run_id: str, *, extend_ms: int, attempt: int = 1
    ) -> HeartbeatDocument:
        self._check_open()
        self._until_s = max(self._until_s, asyncio.get_running_loop().time() + extend_ms / 1_000)
        return HeartbeatDocument(run_id=run_id, attempt=attempt, until_ms=NOW_MS)

    async def complete_run(self, *key: str, **named: Any) -> RunDocument:
        self._check_open()
        self.completed = True
        return RunDocument(status="completed")

    async def fail_run(self, *key: str, **named: Any) -> RunDocument:
        raise AssertionError("the block did not raise")

    def _check_open(self) -> None:
        if asyncio.get_running_loop().time() > self._until_s:
            raise c.RunTimedOut("its time is over")


@pytest.mark.parametrize("skew_ms", [-3_600_000, 0, 3_600_000])
@in_virtual_time
async def test_a_run_is_kept_open_whatever_the_clock_of_its_consumer_says(skew_ms: int) -> None:
    # Three seconds are left, by the service's clock.
    reports = TimedReports(3.0)
    run = c.Run(status="running", run_id="s1", kind="scheduled", version=1, attempt=1, scheduled_at_ms=1)
    record = c.run_of(_record_of(run, NOW_MS + 3_000 + skew_ms))
    async with RunInProgress(reports, record, extend_ms=60_000, clock=StillClock()) as working:
        await asyncio.sleep(600)
    assert (reports.completed, working.lost) == (True, None)


async def test_heartbeats_end_where_there_is_no_time_out_and_the_run_is_not_lost(stub: Stub) -> None:
    run = c.Run(status="running", run_id="s1", kind="scheduled", version=1, attempt=1, scheduled_at_ms=1)
    told = asyncio.Event()

    def not_open(asked: Any) -> tuple[int, Any]:
        told.set()
        return 409, {"status": 409, "title": "t", "detail": "d", "reason": "not_open"}

    stub.will(not_open, (200, {"status": "completed", "runId": "s1"}))
    async with AsyncClient(stub.url, retries=FAST, clock=StillClock()) as client:
        async with client.run(_record_of(run, NOW_MS)) as working:
            await told.wait()
        assert working.lost is None
    assert [each.path.rsplit("/", 1)[1] for each in stub.asked] == ["heartbeat", "complete"]


# --- named calendars


async def test_a_calendar_is_put_shown_listed_followed_and_deleted(client: AsyncClient, service: Service) -> None:
    first = await client.put_calendar("shop", "de", c.Exclude(annual=["12-25"]), description="Feiertage")
    assert (first.name, first.version, first.annual, first.behind) == ("de", 1, ["12-25"], None)
    trigger = c.Cron("0 9 * * *", exclude=c.Exclude(calendar="de"))
    await client.create_job(*JOB, **{**FIELDS, "trigger": trigger})
    changed = await client.put_calendar("shop", "de", c.Exclude(dates=[date(2023, 11, 15)]), if_version=1)
    assert (changed.version, changed.annual) == (2, [])
    job = await client.get_job(*JOB)
    assert (job.version, job.next_run and job.next_run.local) == (2, "2023-11-16T09:00:00+00:00")
    assert await client.get_calendar("shop", "de") == changed
    assert [each async for each in client.list_calendars("shop", page_size=1)] == [changed]
    assert (await client.preview(trigger, count=1, client_id="shop"))[0].local == "2023-11-16T09:00:00+00:00"
    with pytest.raises(c.Conflict, match="report goes by it"):
        await client.delete_calendar("shop", "de")
    with pytest.raises(c.VersionMismatch):
        await client.put_calendar("shop", "de", c.Exclude(), if_version=1)
    await client.delete_job(*JOB)
    assert await client.delete_calendar("shop", "de") == changed
    with pytest.raises(c.NotFound):
        await client.get_calendar("shop", "de")
