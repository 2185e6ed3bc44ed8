"""The examples of the OpenAPI document: requests to the real application on the twins, and its answers.

`python -m tests.unit.openapi_recording` renews the file; tests/unit/test_openapi_examples.py fails when it is out of date.
"""

import asyncio
import json
from argparse import ArgumentParser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from aiohttp import web
from yarl import URL

from clockwork.access.gate import Gate
from clockwork.access.keys import KeyEntry, KeyRing, hash_of
from clockwork.access.keys_command import entry
from clockwork.access.sessions import Sessions
from clockwork.domain.destination import Topic
from clockwork.domain.jobs.calendar import CALENDARS_OF_CLIENT_MAX
from clockwork.domain.ownership import ProcessId
from clockwork.domain.registry import ProcessReport
from clockwork.domain.rights import Right
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.domain.sharding import ShardId
from clockwork.errors import RefusalCause, StoreUnavailable
from clockwork.http import openapi
from clockwork.http.routes import Route
from clockwork.http.server import HttpServer, make_app
from clockwork.http.sessions import ClusterInfo
from clockwork.http.ui import UiPages
from clockwork.node.readiness import Role
from clockwork.observability.activity import RecordingTelemetry
from clockwork.ports.telemetry import NoTelemetry
from clockwork.requests.rate_limits import CreateLimits
from clockwork.requests.service import RequestService
from clockwork.settings.digests import digests_of
from clockwork.settings.model import HttpSettings, RunnerSettings, Settings, UiSettings
from tests.support.clocks import ManualClock
from tests.support.engine import SHARDS, Engine
from tests.unit.service import a_principal, app_of, gate_of
from tests.unit.test_readiness import readiness

FILE: Final = Path(openapi.__file__).parent / openapi.EXAMPLES_FILE
NOW_MS: Final = 1_795_248_495_598
DUE_MS: Final = NOW_MS + 900_000
TOPIC: Final = "orderTopic"
ERROR_ID: Final = "5b1e7c7a11f0a1b2"
"""In the place of a random one."""
RELEASE: Final = "1.4.0"
"""In the place of the present one."""
KEY: Final = f"cw_0123456789abcdef_{'A' * 43}"
"""A key of no key file but this test's."""


@dataclass
class Recorder:
    """Calls operations by their names, and keeps requests and answers."""

    engine: Engine
    routes: dict[str, Route]
    session: aiohttp.ClientSession
    examples: dict[str, Any] = field(default_factory=dict)

    async def ask(
        self,
        operation: str,
        example: str | None,
        status: int,
        *,
        body: Any = None,
        path: dict[str, Any] | None = None,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        key: str = "admin",
        common: bool = False,
        data: bytes | None = None,
    ) -> Any:
        """The answer to a call; its status is checked. `example`: its name as an example; None: it is none. `common`: an
        example of the status for every operation."""
        declared = self.routes[operation]
        at = declared.path
        for name, value in (path or {}).items():
            at = at.replace(f"{{{name}}}", quote(str(value), safe=""))
        given: dict[str, Any] = {} if body is None else {"json": body}
        if data is not None:
            given = {"data": data}
        sent = {"Authorization": f"Bearer {key}", **(headers or {})}
        url = URL(str(self.session._base_url)[:-1] + at, encoded=True).with_query(query)
        async with self.session.request(declared.method, url, headers=sent, **given) as answer:
            document = await answer.json(content_type=None)
        assert answer.status == status, (operation, example, document)
        if example is None:
            return document
        if "errorId" in document:
            document["errorId"] = ERROR_ID
        if isinstance(document.get("version"), str):
            document["version"] = RELEASE
        if body is not None and status < 300:
            requests = self.examples.setdefault(operation, {}).setdefault("request", {})
            if body not in requests.values():
                requests[example] = body
        of = "problems" if common else operation
        self.examples.setdefault(of, {}).setdefault(str(status), {})[example] = document
        return document

    async def deliver(self) -> None:
        """One pass over each shard."""
        for shard in range(SHARDS):
            lease = await self.engine.own(ShardId(shard))
            await self.engine.one_pass(lease)
            await lease.cleanup.finish()


async def record() -> dict[str, Any]:
    """All examples: `{operation: {"request" or status: {name: body}}}`, and under `problems` those of many operations."""
    engine = Engine(clock=ManualClock(NOW_MS), request_timeout_ms=60_000, telemetry=RecordingTelemetry())
    for topic in (TOPIC, "otherTopic"):
        engine.kafka.create_topic(topic)
    gate = gate_of(
        {
            "admin": a_principal(*Right, clients="*", topics="*"),
            "elsewhere": a_principal(*Right, clients="bank", topics="*"),
        }
    )
    async with _recording(engine, app_of(engine)) as recorder:
        await recorder.ask("logIn", "no_keys", 409, body={"key": KEY})
        examples = recorder.examples
    async with _recording(engine, app_of(engine, gate), examples) as recorder:
        await _schedules(recorder)
        await _many(recorder)
        await _jobs(recorder)
        await _operations(recorder)
        await _why_upcoming_forecast_search(recorder)
        await _activity(recorder)
        await _problems(recorder)
    limits = CreateLimits(creates_per_second=1, monotonic_ns=lambda: 0)
    async with _recording(engine, app_of(engine, gate, limits), examples) as recorder:
        await recorder.ask("createSchedule", None, 201, body=_create("limited"))
        await recorder.ask("createSchedule", "quota", 429, body=_create("limited-2"), common=True)
    without_index = RequestService(context=replace(engine.context, lists=False))
    app = make_app(without_index, HttpSettings(port=0), readiness(Role.ALL), NoTelemetry())
    async with _recording(engine, app, examples) as recorder:
        await recorder.ask("listSchedules", "off", 501, query={"clientId": "shop"})
        await recorder.ask("listEvents", "off", 501)
        await recorder.ask("listMinutes", "off", 501)
    with TemporaryDirectory() as folder:
        async with _recording(engine, _with_sessions(engine, Path(folder)), examples) as recorder:
            await _access(recorder)
    for role_readiness, status in ((readiness(Role.ALL), 200), (readiness(Role.ALL, store_error="no answer"), 503)):
        app = make_app(engine.requests, HttpSettings(port=0), role_readiness, NoTelemetry())
        async with _recording(engine, app, examples) as recorder:
            await recorder.ask("readyz", "ready" if status == 200 else "unready", status)
            await recorder.ask("livez", "alive", 200)
    return examples


@asynccontextmanager
async def _recording(
    engine: Engine, app: web.Application, examples: dict[str, Any] | None = None
) -> AsyncIterator[Recorder]:
    routes = {each.name: each for each in openapi.declared_routes(app)}
    async with (
        HttpServer(app, HttpSettings(port=0)) as server,
        aiohttp.ClientSession(f"http://127.0.0.1:{server.port}/") as session,
    ):
        yield Recorder(engine, routes, session, {} if examples is None else examples)


def _with_sessions(engine: Engine, folder: Path) -> web.Application:
    """The application of a node with one key."""
    (path := folder / "keys.toml").write_text(
        entry(
            KeyEntry(
                id="0123456789abcdef",
                name="ana",
                hash=hash_of(KEY),
                clients=["shop", "shop-*"],
                topics=["*"],
                rights=[Right.READ, Right.CANCEL, Right.OPERATE],
            )
        )
    )
    settings, clock = UiSettings(), engine.context.clock
    ring = KeyRing(path, clock, NoTelemetry())
    gate = Gate(ring, NoTelemetry(), Sessions(settings, clock, keys=ring, https=False))
    cluster_info = ClusterInfo(auth="keys", cluster="clockwork", banner="production")
    ui = UiPages(settings, auth="keys", https=False)
    http = HttpSettings(port=0, checks_host=False)
    return make_app(
        engine.requests, http, readiness(Role.ALL), NoTelemetry(), gate=gate, ui=ui, cluster_info=cluster_info
    )


async def _access(r: Recorder) -> None:
    await r.ask("getMe", "key", 200, key=KEY)
    await r.ask("logIn", "key", 200, body={"key": KEY})
    await r.ask("logInAtIssuer", "keys", 409)
    await r.ask("oidcCallback", "keys", 409)
    plain = {"Host": "ops.example"}
    await r.ask("logIn", "plain_http", 403, body={"key": KEY}, headers=plain)


def _create(key: str, **more: Any) -> dict[str, Any]:
    return {
        "clientId": "shop",
        "scheduleKey": key,
        "orderingKey": "customer-7",
        "scheduleTime": DUE_MS,
        "taskData": {"expire": "order-1"},
        "delivery": {"topic": TOPIC},
        **more,
    }


def _path(key: str) -> dict[str, Any]:
    return {"clientId": "shop", "scheduleKey": key}


async def _schedules(r: Recorder) -> None:
    later = DUE_MS + 60_000
    await r.ask("createSchedule", "usual", 201, body=_create("order-1"))
    everything = _create(
        "order-2",
        scheduleTime="2026-11-29T12:00:00+01:00",
        taskData="aGVsbG8=",
        taskDataEncoding="base64",
        delivery={
            "topic": TOPIC,
            "guarantee": "at_least_once",
            "headers": {"source": "web"},
            "deadline": 60_000,
            "onLate": "dead_letter",
            "retry": {"attempts": 5, "initialMs": 500, "jitter": 0.2},
        },
    )
    await r.ask("createSchedule", "everything", 201, body=everything)
    await r.ask("createSchedule", "taken", 409, body=_create("order-1", taskData="other"))
    await r.ask("getSchedule", "pending", 200, path=_path("order-1"))
    for key in ("order-3", "order-4", "order-5", "order-6"):
        await r.ask("createSchedule", None, 201, body=_create(key))
    await r.ask("changeSchedule", "later", 200, path=_path("order-3"), body={"scheduleTime": later})
    await r.ask("changeSchedule", "elsewhere", 200, path=_path("order-3"), body={"delivery": {"topic": "otherTopic"}})
    stale = {"If-Match": '"1"'}
    await r.ask("changeSchedule", "stale", 412, path=_path("order-3"), body={}, headers=stale, common=True)
    await r.ask("cancelSchedule", "cancelled", 200, path=_path("order-4"))
    await r.ask("cancelScheduleNamedInBody", "cancelled", 200, body=_path("order-5"))
    await r.ask("fireSchedule", "fired", 200, path=_path("order-6"), body={})
    policy = {"topic": TOPIC, "deadline": 0, "onLate": "dead_letter"}
    await r.ask("createSchedule", None, 201, body=_create("order-7", delivery=policy))
    await r.ask("retrySchedule", "taken", 409, path=_path("order-7"), body={})
    row = await _row(r, "order-1")
    r.engine.clock.set_ms(row.due_ms - 100)
    states = r.engine.store.shard_states
    states[row.shard] = replace(states[row.shard], floor_ms=row.due_ms)
    await r.ask("cancelSchedule", "in_flight", 409, path=_path("order-1"), common=True)
    r.engine.clock.set_ms(DUE_MS + 11)
    await r.deliver()
    await r.ask("getSchedule", "delivered", 200, path=_path("order-1"))
    await r.ask("getSchedule", "failed", 200, path=_path("order-7"))
    await r.ask("createSchedule", "repeated", 200, body=_create("order-1"))
    await r.ask("cancelSchedule", "delivered", 409, path=_path("order-1"), common=True)
    await r.ask("getHistory", "page", 200, path=_path("order-1"))
    await r.ask("getSchedule", "unknown", 404, path=_path("order-99"), common=True)


async def _row(r: Recorder, key: str) -> Any:
    pointer = r.engine.store.pointers[ClientId("shop"), ScheduleKey(key)]
    return await r.engine.store.read_row(pointer.row_name)


async def _many(r: Recorder) -> None:
    items = [_create("order-8"), _create("order-3")]
    await r.ask("createSchedules", "both", 200, body={"schedules": items})
    await r.ask("cancelSchedules", "one", 200, body={"schedules": [_path("order-8")]})
    await r.ask("createSchedule", None, 201, body=_create("order-10"))
    await r.ask("fireSchedules", "some", 200, body={"schedules": [{**_path("order-10"), "ifVersion": 1}]})
    await r.ask("getSchedules", "some", 200, body={"schedules": [_path("order-8"), _path("order-99")]})
    await r.ask("listSchedules", "page", 200, query={"clientId": "shop", "limit": "2"})
    summaries = {"clientId": "shop", "limit": "2", "order": "desc", "fields": "summary"}
    await r.ask("listSchedules", "summaries", 200, query=summaries)


def _job(job_id: str, **more: Any) -> dict[str, Any]:
    return {
        "clientId": "shop",
        "jobId": job_id,
        "trigger": {"type": "cron", "expression": "0 9 * * MON-FRI", "timeZone": "Europe/Berlin"},
        "taskData": {"report": "sales"},
        "delivery": {"topic": TOPIC},
        **more,
    }


def _job_path(job_id: str) -> dict[str, Any]:
    return {"clientId": "shop", "jobId": job_id}


async def _jobs(r: Recorder) -> None:
    now_ms = r.engine.clock.now_ms()
    report, gone, stale = _job_path("report"), _job_path("gone"), {"If-Match": '"9"'}
    await r.ask("createJob", "usual", 201, body=_job("report"))
    everything = _job(
        "stock",
        trigger={
            "type": "any",
            "of": [
                {"type": "cron", "expression": "0 30 2 ? * *", "dst": {"gap": "shift", "overlap": "second"}},
                {"type": "fixed_rate", "everyMs": 5_400_000, "anchor": "2026-11-29T12:00:00+01:00"},
            ],
            "end": "2030-01-01T00:00:00Z",
            "maxRuns": 1_000,
            "jitterMs": 30_000,
            "jitterPer": "run",
        },
        orderingKey="stock",
        misfire={"policy": "fire_all", "maxCatchUp": 24, "windowMs": 86_400_000},
        pauseAfterFailures=3,
        description="Counts what is left, for the warehouse.",
        labels={"team": "warehouse"},
        priority=3,
    )
    await r.ask("createJob", "everything", 201, body=everything)
    await r.ask("createJob", "repeated", 200, body=_job("report"))
    await r.ask("createJob", "exists", 409, body=_job("report", taskData="other"))
    await r.ask("createJob", None, 201, body=_job("gone"))
    await r.ask("deleteJob", "deleted", 200, path=gone)
    for operation, body in (
        ("changeJob", {"priority": 1}),
        ("pauseJob", {}),
        ("resumeJob", {}),
        ("runJob", {"requestId": "r-1"}),
        ("backfillJob", {"requestId": "b-1", "from": now_ms - 1, "to": now_ms}),
    ):
        await r.ask(operation, "deleted", 409, path=gone, body=body)
    await r.ask("restoreJob", "stale", 412, path=gone, body={}, headers=stale)
    await r.ask("restoreJob", "restored", 200, path=gone, body={})
    await r.ask("restoreJob", "not_deleted", 409, path=gone, body={})
    for operation in ("getJob", "deleteJob"):
        await r.ask(operation, "stale", 412, path=report, headers=stale)
    for operation in ("changeJob", "pauseJob", "resumeJob"):
        await r.ask(operation, "stale", 412, path=report, body={}, headers=stale)
    await r.ask("changeJob", "payload", 200, path=report, body={"taskData": {"report": "stock"}})
    daily = {"trigger": {"type": "cron", "expression": "30 9 * * MON-FRI", "timeZone": "Europe/Berlin"}}
    await r.ask("changeJob", "later", 200, path=report, body=daily)
    await r.ask("pauseJob", "paused", 200, path=report, body={"note": "stock-taking"})
    await r.ask("resumeJob", "resumed", 200, path=report, body={})
    await r.ask("runJob", "accepted", 201, path=report, body={"requestId": "r-1", "taskData": {"report": "by hand"}})
    month_ms = 30 * 86_400_000
    backfill = {"requestId": "b-1", "from": now_ms - month_ms, "to": now_ms, "maxRuns": 5}
    await r.ask("backfillJob", "accepted", 202, path=report, body=backfill)
    r.engine.clock.advance_ms(4)
    await r.deliver()
    run = await r.ask(
        "runJob", "repeated", 200, path=report, body={"requestId": "r-1", "taskData": {"report": "by hand"}}
    )
    await r.ask("backfillJob", "repeated", 200, path=report, body=backfill)
    await r.ask("getJob", "active", 200, path=report, query={"next": "2"})
    await r.ask("getJobLogs", "page", 200, path=report, query={"limit": "3"})
    await r.ask("getRun", "delivered", 200, path={**report, "runId": run["runId"]})
    await r.ask("getRun", "unknown", 404, path={**report, "runId": "s1"})
    await _completion(r)
    await r.ask("listJobVersions", "page", 200, path=report, query={"limit": "2"})
    await r.ask("getJobVersion", "first", 200, path={**report, "version": 1})
    await r.ask("getJobVersion", "unknown", 404, path={**report, "version": 99})
    await r.ask("getJob", "unknown", 404, path=_job_path("none"))
    await r.ask("listJobs", "page", 200, query={"clientId": "shop", "limit": "2"})
    summer_time = {
        "trigger": {"type": "cron", "expression": "30 2 * * *", "timeZone": "Europe/Berlin"},
        "from": "2027-03-27T12:00:00+01:00",
        "count": 3,
    }
    await r.ask("previewTrigger", "summer_time", 200, body=summer_time)
    await _calendars(r)


async def _calendars(r: Recorder) -> None:
    german, unknown = ({"clientId": "shop", "calendar": name} for name in ("de", "fr"))
    stale = {"If-Match": '"9"'}
    holidays = {"description": "Holidays in Germany.", "annual": ["01-01", "05-01", "10-03", "12-25", "12-26"]}
    await r.ask("putCalendar", "new", 201, path=german, body=holidays)
    trigger = {
        "type": "cron",
        "expression": "0 9 25 * *",
        "timeZone": "Europe/Berlin",
        "exclude": {"weekdays": ["SAT", "SUN"], "calendar": "de"},
        "onExcluded": "next",
    }
    await r.ask("previewTrigger", "calendar", 200, body={"clientId": "shop", "trigger": trigger, "count": 2})
    await r.ask("createJob", "calendar", 201, body=_job("payroll", trigger=trigger))
    easter = {**holidays, "dates": ["2027-03-26", "2027-03-29"], "cron": ["* 0-7 * * *"]}
    await r.ask("putCalendar", "changed", 200, path=german, body=easter)
    for operation, body in (("putCalendar", easter), ("getCalendar", None), ("deleteCalendar", None)):
        await r.ask(operation, "stale", 412, path=german, body=body, headers=stale)
    await r.ask("getCalendar", "calendar", 200, path=german)
    await r.ask("listCalendars", "page", 200, query={"clientId": "shop"})
    await r.ask("deleteCalendar", "in_use", 409, path=german)
    await r.ask("deleteJob", None, 200, path=_job_path("payroll"))
    await r.ask("deleteCalendar", "deleted", 200, path=german)
    for operation in ("getCalendar", "deleteCalendar"):
        await r.ask(operation, "unknown", 404, path=unknown)
    for number in range(CALENDARS_OF_CLIENT_MAX):
        await r.ask("putCalendar", None, 201, path={**german, "calendar": f"c{number}"}, body={})
    await r.ask("putCalendar", "too_many", 409, path=german, body=holidays)


async def _completion(r: Recorder) -> None:
    loading = _job(
        "load",
        trigger={"type": "fixed_delay", "delayMs": 60_000},
        completion={"timeoutMs": 300_000, "retry": {"attempts": 2, "initialMs": 1_000}, "retryOn": ["timeout"]},
    )
    await r.ask("createJob", "completion", 201, body=loading)
    await r.deliver()
    at_ms = r.engine.clock.now_ms()
    run, job = {**_job_path("load"), "runId": f"s{at_ms}"}, _job_path("load")
    unknown = {**run, "runId": "s1"}
    await r.ask("getRun", "running", 200, path=run)
    await r.ask("heartbeatRun", "extended", 200, path=run, body={"extendMs": 600_000})
    r.engine.clock.advance_ms(2_500)
    await r.ask("completeRun", "completed", 200, path=run, body={"startedAt": at_ms + 10, "result": {"rows": 7}})
    await r.ask("heartbeatRun", "completed", 409, path=run, body={"extendMs": 600_000})
    await r.ask("failRun", "completed", 409, path=run, body={"error": "disk full"})
    r.engine.clock.advance_ms(60_000)
    await r.deliver()
    failing = {**run, "runId": f"s{r.engine.clock.now_ms()}"}
    await r.ask("failRun", "failed", 200, path=failing, body={"error": {"code": "disk_full"}, "retry": False})
    await r.ask("completeRun", "failed", 409, path=failing, body={})
    for operation, body in (("completeRun", {}), ("failRun", {}), ("heartbeatRun", {"extendMs": 1_000})):
        await r.ask(operation, "unknown", 404, path=unknown, body=body)
    await r.ask("deleteJob", None, 200, path=job)
    await r.ask("completeRun", "deleted", 409, path=failing, body={})


async def _operations(r: Recorder) -> None:
    client, topic = {"clientId": "shop"}, {"topic": TOPIC}
    reason = {"reason": "the broker moves, till noon"}
    await r.ask("pauseClient", "paused", 200, path=client, body=reason)
    await r.ask("pauseTopic", "paused", 200, path=topic, body=reason)
    await r.ask("listPauses", "paused", 200)
    await r.ask("resumeClient", "resumed", 200, path=client)
    await r.ask("resumeTopic", "resumed", 200, path=topic)
    page = await r.ask("scanPending", "page", 200, query={"limit": "1"})
    exported = [{name: each[name] for name in each.keys() - {"status", "shard"}} for each in page["schedules"]]
    await r.ask("importSchedules", "again", 200, body={"exportedAt": page["at"], "schedules": exported})
    await r.ask("importSchedules", "old", 409, body={"exportedAt": NOW_MS - 8 * 86_400_000, "schedules": []})
    (job,) = (await r.ask("scanJobs", "page", 200, query={"limit": "1"}))["jobs"]
    await r.ask("importJob", "again", 200, body={"exportedAt": page["at"], **job})
    moved = {**job, "job": {**job["job"], "jobId": "moved"}}
    await r.ask("importJob", "imported", 201, body={"exportedAt": page["at"], **moved})
    await r.ask("importJob", "old", 409, body={"exportedAt": NOW_MS - 8 * 86_400_000, **job})
    states = r.engine.store.shard_states
    states[ShardId(5)] = replace(states[ShardId(5)], owner=states[ShardId(3)].owner)
    states[ShardId(7)] = replace(states[ShardId(7)], owner=None)
    shards = await r.ask("listShards", "all", 200)
    r.examples["listShards"]["200"]["all"] = {"shards": shards["shards"][:2]}
    await r.ask("fenceShard", "fenced", 200, path={"shard": 3}, body={"reason": "stands still"})
    await r.ask("fenceShard", "unowned", 409, path={"shard": 7})
    (letter,) = (await r.ask("listDeadLetters", "page", 200))["deadLetters"]
    place = {"partition": letter["partition"], "offset": letter["offset"]}
    await r.ask("getDeadLetter", "open", 200, path=place)
    await r.ask("getDeadLetter", "none", 404, path={**place, "offset": 1207})
    named = {name: letter[name] for name in ("clientId", "scheduleKey", "deliveryId")}
    both = [named, {**named, "deliveryId": "another"}]
    await r.ask("discardDeadLetters", "some", 200, body={"deadLetters": both})
    await r.ask("retryDeadLetters", "some", 200, body={"deadLetters": both})
    await _fails_again(r)
    await r.ask("retrySchedule", "armed", 200, path=_path("order-7"), body={"scheduleTime": DUE_MS + 60_000})
    again = [{**_path("order-7"), "scheduleTime": DUE_MS + 60_000}, _path("order-1")]
    await r.ask("retrySchedules", "some", 200, body={"schedules": again})


async def _fails_again(r: Recorder) -> None:
    r.engine.clock.advance_ms(1)
    await r.deliver()


async def _activity(r: Recorder) -> None:
    recorder, activity = r.engine.recorder, r.engine.activity
    assert recorder is not None
    r.engine.clock.advance_ms(60_000)
    async with asyncio.TaskGroup() as group:
        recorder.flush(group)
    r.engine.tail.take(activity.records("events"))
    r.engine.tail.take(activity.records("minutes"))
    await r.ask("listEvents", "page", 200, query={"kind": "created,delivered", "limit": "2", "from": str(NOW_MS)})
    await r.ask("listMinutes", "hour", 200, query={"from": str(NOW_MS), "stepMs": "3600000"})
    now_ms = r.engine.clock.now_ms()
    await r.engine.registry.put_client(ClientId("shop"), day=now_ms // 86_400_000)
    await r.ask("listClients", "day", 200)
    for number, retention_ms in ((1, 604_800_000), (2, 86_400_000)):
        report = ProcessReport(
            process=ProcessId(f"{number:016x}"),
            seen_at_ms=now_ms - 1_000 * number,
            node=f"clockwork-{number}:1",
            role="all",
            version="1.0.0",
            since_ms=NOW_MS,
            shards=4,
            assigned=4,
            created_per_second=1.5,
            delivered_per_second=12.25,
            loop_lag_ms=3,
            clock_skew_ms=0,
            settings=digests_of(Settings(runner=RunnerSettings(retention_ms=retention_ms))),
        )
        await r.engine.registry.put_report(report)
    await r.ask("listNodes", "two", 200)


async def _why_upcoming_forecast_search(r: Recorder) -> None:
    for key in ("order-1", "order-7"):
        await r.ask("explainSchedule", "ended" if key == "order-1" else "not_due", 200, path=_path(key))
    await r.ask("pauseClient", None, 200, path={"clientId": "shop"})
    due = await r.ask("createSchedule", None, 201, body=_create("order-11", scheduleTime=0))
    await r.ask("explainSchedule", "paused", 200, path=_path("order-11"))
    await r.ask("resumeClient", None, 200, path={"clientId": "shop"})
    await r.engine.own(ShardId(due["shard"]))
    waits = r.engine.destination_waits
    waits.refused(Topic(TOPIC), RefusalCause.TRANSIENT, "not_enough_replicas", now_ms=r.engine.clock.now_ms())
    await r.ask("explainSchedule", "destination_waits", 200, path=_path("order-11"))
    waits.succeeded(Topic(TOPIC))
    await r.ask("listUpcoming", "page", 200, query={"limit": "2"})
    now_ms = r.engine.clock.now_ms()
    window = {"from": str(now_ms), "to": str(now_ms + 180_000)}
    await r.ask("getForecast", "exact", 200, query=window)
    await r.ask("searchSchedules", "named", 200, query={"q": "shop/order-1"})


async def _problems(r: Recorder) -> None:
    wrong = _create("order-9", scheduleTime="2099-01-01T00:00:00Z", delivery={})
    await r.ask("createSchedule", "invalid", 400, body=wrong, common=True)
    body = _create("order-9")
    await r.ask("createSchedule", "unknown_key", 401, body=body, key="unknown", common=True)
    await r.ask("createSchedule", "other_client", 403, body=body, key="elsewhere", common=True)
    other_site = {"Sec-Fetch-Site": "cross-site"}
    await r.ask("createSchedule", "other_site", 403, body=body, headers=other_site, common=True)
    large = _create("order-9", taskData="x" * 300_000)
    await r.ask("createSchedule", "large", 413, body=large, common=True)
    await r.ask("createSchedule", "no_json", 415, data=b"hello", common=True)
    await r.ask("docsFile", "unknown", 404, path={"file": "unknown.js"})
    store: Any = r.engine.store

    async def fails(*_: Any, **__: Any) -> None:
        raise errors.pop()

    errors: list[Exception] = [StoreUnavailable(), ValueError()]
    store.read_pointer, read = fails, store.read_pointer
    await r.ask("getSchedule", "error", 500, path=_path("order-1"), common=True)
    await r.ask("getSchedule", "store", 503, path=_path("order-1"), common=True)
    store.read_pointer = read


def main() -> None:
    """Renews the file."""
    ArgumentParser(prog="python -m tests.unit.openapi_recording", description=__doc__).parse_args()
    text = json.dumps(asyncio.run(record()), ensure_ascii=False, indent=1, sort_keys=True)
    FILE.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
