"""The service answers generated requests as its document says: schemathesis against the twins in memory."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core import NOT_SET
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from clockwork.domain.rights import Right
from clockwork.domain.schedule import EndState
from clockwork.http.openapi import document, routes_of
from clockwork.requests.rate_limits import CreateLimits
from tests.support import builders
from tests.support.engine import Engine
from tests.unit.service import ENDED, Service, a_principal, app_of, gate_of, open_service

EXAMPLES = 12
"""Requests of each call and kind: some second each. More of them, and others each time: make fuzz."""
FEW = 5
"""Those of calls whose requests hardly differ in what they are answered with."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


APP = app_of(Engine())
ROUTES = routes_of(APP)
RESOURCES = ("/admin", "/jobs", "/calendars")
CALLS = sorted(
    (method, path) for method, path in ROUTES if "schedule" in path or path == "/me" or path.startswith(RESOURCES)
)
PATHS = document(APP)["paths"]
ONE = "/schedule/{clientId}/{scheduleKey}"
KEYS = ["a", "ü/1 %", *ENDED.values()]
ONE_JOB = "/jobs/{clientId}/{jobId}"
LIMITED = {("POST", path) for path in ("/schedule", "/schedules", "/jobs", f"{ONE_JOB}/run-now", f"{ONE_JOB}/backfill")}
"""Calls for which the creates of a second are counted."""
WEEKDAYS = {"type": "cron", "expression": "0 9 * * MON-FRI", "timeZone": "Europe/Berlin"}


@dataclass
class Running:
    url: str
    document: dict[str, Any]
    now_ms: int
    delivery_ids: list[str]
    """Delivery ids of schedules that have failed."""
    run_id: str
    """The id of a run of every job."""


@asynccontextmanager
async def running(service: Service, *, seeded: bool = False) -> AsyncIterator[Running]:
    async with aiohttp.ClientSession(service.url) as session, session.get("/openapi.json") as answer:
        ended = [outcome for outcome in service.engine.store.outcomes.values() if outcome.state is EndState.FAILED]
        failed = [outcome.schedule.delivery_id for outcome in ended if outcome.schedule is not None]
        now_ms = service.engine.clock.now_ms()
        run_id = await seed_jobs(session, "shop", "other") if seeded else "s1"
        if seeded:
            await service.deliver()  # so that the run by hand can be completed
        yield Running(service.url, await answer.json(), now_ms, failed, run_id)


async def seed_jobs(session: aiohttp.ClientSession, *client_ids: str, topic: str = builders.TOPIC) -> str:
    """For each client a calendar, and one job in each state. Returns the id of a run by hand that each of them has."""
    run_id = "s1"
    for client_id in client_ids:
        async with session.put(f"/calendars/{client_id}/a", json={"annual": ["12-25"]}) as answer:
            assert answer.status == 201
        for job_id in ("a", "paused", "deleted"):
            job = {
                "clientId": client_id,
                "jobId": job_id,
                "trigger": WEEKDAYS,
                "taskData": 1,
                "labels": {"team": "shop"},
                "completion": {"timeoutMs": 86_400_000},
                "overlap": "skip" if job_id == "paused" else "allow",  # one with an open run
            }
            body = {**job, "delivery": {"topic": topic}}
            async with session.post("/jobs", json=body) as answer:
                assert answer.status == 201
            one = f"/jobs/{client_id}/{job_id}"
            async with session.post(f"{one}/run-now", json={"requestId": "seed"}) as answer:
                run_id = (await answer.json())["runId"]
            if job_id == "paused":
                async with session.post(f"{one}/pause") as answer:
                    assert answer.status == 200
            if job_id == "deleted":
                async with session.delete(one) as answer:
                    assert answer.status == 200
    return run_id


@pytest.fixture
async def node() -> AsyncIterator[Running]:
    async with open_service() as service:
        await service.seed("shop", "other")
        async with running(service, seeded=True) as opened:
            yield opened


@pytest.fixture
async def guarded() -> AsyncIterator[Running]:
    keys = {
        "elsewhere": a_principal(*Right, clients="nobody"),
        "busy": a_principal(*Right, clients="*"),
    }
    async with (
        open_service(gate=gate_of(keys), limits=CreateLimits(creates_per_second=1, monotonic_ns=lambda: 0)) as service,
        running(service) as opened,
    ):
        yield opened


def narrowed(node: Running, *, topic: str = builders.TOPIC) -> dict[str, Any]:
    """The same document with so few names and such times that requests meet each other's schedules."""
    narrow = copy.deepcopy(node.document)
    names = {
        "clientId": {"enum": ["shop", "other"]},
        "scheduleKey": {"enum": KEYS},
        "deliveryId": {"enum": node.delivery_ids or ["of-nobody"]},
        "exportedAt": {"enum": [node.now_ms]},
    }
    names |= {
        "jobId": {"enum": ["a", "paused", "deleted", "new"]},
        "calendar": {"enum": ["a", "new"]},
        "dates": {"enum": [["2030-05-01"]]},
        "annual": {"enum": [["05-01"]]},
        "cron": {"enum": [["* 0-7 * * *"]]},
        "trigger": {"enum": [WEEKDAYS, {"type": "fixed_delay", "delayMs": 5_000}]},
        "misfire": {"enum": [{"policy": "fire_all", "maxCatchUp": 7}]},
        "overlap": {"enum": ["allow", "skip"]},
        "completion": {"enum": [{"timeoutMs": 5_000}]},
        "payloadSchema": {"enum": [{}]},
        "interpolate": {"enum": [False]},
        "from": {"enum": [node.now_ms - 86_400_000]},
        "to": {"enum": [node.now_ms]},
    }
    # Not in the past: nothing is delivered here, so a change of what is due would wait for its owner until it gives up.
    times = {"type": "integer", "minimum": node.now_ms + 60_000, "maximum": node.now_ms + 86_400_000}
    forms = narrow["components"]["schemas"]
    for form in forms.values():
        if form.get("additionalProperties") is False:
            form["properties"] |= {name: value for name, value in names.items() if name in form["properties"]}
            if "scheduleTime" in form["properties"]:
                form["properties"]["scheduleTime"] = times
    forms["JobForm"]["required"].append("trigger")
    forms["DeliveryForm"]["properties"]["topic"] = {"enum": [topic]}
    forms["LetterForm"]["properties"]["scheduleKey"] = {"enum": [ENDED["failed"], ENDED["delivered"]]}
    run = {"runId": {"enum": [node.run_id]}, "version": {"enum": [1]}}
    few = {
        **names,
        **run,
        "label": {"enum": ["team:shop"]},
        "If-Match": {"enum": ['"1"', '"9"', "*"]},
        "If-None-Match": {"enum": ['"8"', '"9"']},
    }
    for operation in (each for path in narrow["paths"].values() for each in path.values()):
        for parameter in operation["parameters"]:
            parameter["schema"] = few.get(parameter["name"], parameter["schema"])
    return narrow


async def conform(
    node: Running,
    method: str,
    path: str,
    *,
    described: dict[str, Any],
    mode: schemathesis.GenerationMode = schemathesis.GenerationMode.POSITIVE,
    examples: int = EXAMPLES,
    key: str | None = None,
) -> set[int]:
    """Sends generated requests, and checks their answers; returns the statuses that were seen."""
    operation = schemathesis.openapi.from_dict(described)[path][method]
    headers = None if key is None else {"Authorization": f"Bearer {key}"}
    statuses: set[int] = set()

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def conforms(case: schemathesis.Case[Any]) -> None:
        answer = case.call_and_validate(base_url=node.url, headers=headers, checks=CHECKS)
        statuses.add(answer.status_code)

    # In a thread, because it waits for its answers without letting go of the event loop that makes them.
    await asyncio.to_thread(conforms)
    return statuses


def may_be_wrong(method: str, path: str) -> bool:
    """True if there is anything in a request that could be wrong."""
    operation = PATHS[path][method.lower()]
    # Any text may stand in a header.
    return any(each["in"] != "header" for each in operation["parameters"]) or "requestBody" in operation


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_generated_requests_are_answered_as_the_document_says(node: Running, method: str, path: str) -> None:
    # One service for all kinds: to open and to fill one costs as much as to ask it.
    narrow = narrowed(node)
    # Else nothing was tried but refusals.
    assert await conform(node, method, path, described=narrow) & {200, 201, 202}
    await conform(node, method, path, described=node.document, examples=FEW)
    if may_be_wrong(method, path):
        mode = schemathesis.GenerationMode.NEGATIVE
        await conform(node, method, path, described=node.document, mode=mode)


@pytest.mark.parametrize(
    ("method", "path", "key", "body"),
    [
        ("GET", ONE, "a", None),
        ("PUT", ONE, "a", {"taskData": 2}),
        ("DELETE", ONE, "a", None),
        ("POST", f"{ONE}/fire", "a", {}),
        ("POST", f"{ONE}/retry", ENDED["failed"], {}),
    ],
)
async def test_another_version_than_if_match_names_is_answered_as_the_document_says(
    node: Running, method: str, path: str, key: str, body: dict[str, Any] | None
) -> None:
    # Generated requests hardly ever name a version that is not there of a schedule that is.
    assert "412" in node.document["paths"][path][method.lower()]["responses"]
    operation = schemathesis.openapi.from_dict(node.document)[path][method]
    case = operation.Case(
        path_parameters={"clientId": "shop", "scheduleKey": key},
        headers={"If-Match": '"9"'},
        body=NOT_SET if body is None else body,
        media_type=None if body is None else "application/json",
    )
    answer = await asyncio.to_thread(case.call_and_validate, base_url=node.url, checks=CHECKS)
    problem = json.loads(answer.content)
    assert (answer.status_code, problem["type"]) == (412, "urn:clockwork:problem:version-differs")
    assert answer.headers["etag"] == [f'"{problem["schedule"]["version"]}"'] == ['"1"']
    assert (problem["schedule"]["scheduleKey"], problem["schedule"]["clientId"]) == (key, "shop")


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_keys_and_limits_are_answered_as_the_document_says(guarded: Running, method: str, path: str) -> None:
    narrow = narrowed(guarded)
    # Whatever is asked, the key is looked at first.
    assert await conform(guarded, method, path, described=narrow, examples=1, key="unknown") == {401}
    elsewhere = await conform(guarded, method, path, described=narrow, examples=FEW, key="elsewhere")
    is_batch = path.startswith("/schedules") and method == "POST"
    # A batch is admitted, and each of its items looked at; a preview is about no client.
    if not is_batch and not path.startswith("/admin") and path not in ("/jobs/preview", "/me"):
        assert 403 in elsewhere
    if (method, path) in LIMITED:
        busy = await conform(guarded, method, path, described=narrow, key="busy")
        assert path != "/schedule" or 429 in busy
