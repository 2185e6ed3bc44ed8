"""Redacted principals: what a schedule carries is in no answer to them, of any call, and everything else is."""

import json
from typing import Any

import aiohttp
import pytest

from clockwork.domain.rights import Principal, Right, names_of
from clockwork.schema.redaction import redact
from tests.support import builders
from tests.unit.api_edge import a_request
from tests.unit.service import Service, gate_of, open_service
from tests.unit.test_openapi import WHOLE, checked
from tests.unit.test_rights_of_every_call import (
    ADMIN_CALLS,
    CALLS,
    JOB,
    OPERATOR_CALLS,
    answered,
)

SECRET = "hush-hush"
FIRST, LAST = "maker", "auditor"
EVERYTHING = names_of(["*"])
KEYS = {
    name: Principal(name=name, clients=EVERYTHING, topics=EVERYTHING, rights=frozenset(Right), redacted=name == LAST)
    for name in (FIRST, LAST)
}
CARRIES: dict[str, Any] = {
    "taskData": {"note": SECRET},
    "delivery": {"topic": builders.TOPIC, "headers": {"x-note": SECRET}},
}


async def seeded(service: Service, session: aiohttp.ClientSession) -> None:
    """A pending schedule, a dead letter and a job, all with the secret."""

    async def create(path: str, body: Any) -> None:
        async with session.post(path, json=body, headers={"Authorization": f"Bearer {FIRST}"}) as answer:
            assert answer.status == 201, await answer.text()

    late = {**CARRIES["delivery"], "deadline": 0, "onLate": "dead_letter"}
    due_ms = service.engine.clock.now_ms() + 60_000
    await create("/schedule", a_request(scheduleKey="late", scheduleTime=due_ms, taskData=SECRET, delivery=late))
    service.engine.clock.set_ms(due_ms + 1)
    await service.deliver()
    await create("/schedule", a_request(scheduleKey="a", scheduleTime=due_ms + 86_400_000, **CARRIES))
    await create("/jobs", {**JOB, **CARRIES})


@pytest.mark.parametrize(("method", "path"), [*CALLS, *ADMIN_CALLS, *OPERATOR_CALLS])
async def test_no_answer_of_any_call_tells_a_redacted_principal_what_a_schedule_carries(method: str, path: str) -> None:
    async with open_service(gate=gate_of(KEYS)) as service, aiohttp.ClientSession(service.url) as session:
        await seeded(service, session)
        _, document = await answered(session, LAST, method, path)
        assert SECRET not in json.dumps(document)


async def test_the_same_connection_shows_each_caller_what_is_its_own() -> None:
    async with (
        open_service(gate=gate_of(KEYS)) as service,
        aiohttp.ClientSession(service.url, connector=aiohttp.TCPConnector(limit=1)) as session,
    ):
        await seeded(service, session)
        for _ in range(2):
            _, whole = await answered(session, FIRST, "GET", "/schedule/{clientId}/{scheduleKey}")
            _, part = await answered(session, LAST, "GET", "/schedule/{clientId}/{scheduleKey}")
            assert whole["taskData"] == CARRIES["taskData"]
            assert part == {
                **{name: value for name, value in whole.items() if not name.startswith("taskData")},
                "delivery": {**whole["delivery"], "headers": {"x-note": None}},
                "redacted": True,
            }


async def test_a_conflict_shows_the_other_schedule_without_what_it_carries_and_documents_keep_their_form() -> None:
    async with open_service(gate=gate_of(KEYS)) as service, aiohttp.ClientSession(service.url) as session:
        await seeded(service, session)
        status, problem = await answered(session, LAST, "POST", "/schedule")
        assert (status, problem["schedule"]["redacted"]) == (409, True)
        checked(WHOLE["components"]["schemas"]["ConflictDocument"], problem)
        for path, schema in (
            ("/schedules", "PageDocument"),
            ("/schedule/{clientId}/late/history", "HistoryDocument"),
            ("/jobs/{clientId}/{jobId}", "JobDocument"),
            ("/jobs/{clientId}/{jobId}/versions", "VersionsDocument"),
            ("/admin/dead-letters", "DeadLettersDocument"),
        ):
            status, document = await answered(session, LAST, "GET", path)
            assert status == 200
            assert '"redacted": true' in json.dumps(document), path
            checked(WHOLE["components"]["schemas"][schema], document)


@pytest.mark.parametrize("path", ["/admin/schedules", "/admin/jobs"])
async def test_an_export_without_content_is_refused_as_no_import_could_take_it(path: str) -> None:
    async with open_service(gate=gate_of(KEYS)) as service, aiohttp.ClientSession(service.url) as session:
        await seeded(service, session)
        assert (await answered(session, FIRST, "GET", path))[0] == 200
        assert (await answered(session, LAST, "GET", path))[0] == 403


@pytest.mark.parametrize(
    ("document", "shown"),
    [
        ({"taskData": None, "version": 1}, {"version": 1, "redacted": True}),
        ({"a": [{"taskData": 1}]}, {"a": [{"redacted": True}]}),
        ({"value": "x", "valueEncoding": "text", "topic": "t"}, {"topic": "t", "redacted": True}),
        (
            {"runId": "s1", "result": {"a": 1}, "status": "completed"},
            {"runId": "s1", "status": "completed", "redacted": True},
        ),
        (
            {"lastRun": {"runId": "s1", "error": {"stack": "…"}, "status": "failed"}},
            {"lastRun": {"runId": "s1", "status": "failed", "redacted": True}},
        ),
        ({"kind": "failed", "runId": "s1", "result": "expired"}, ...),
        ({"kind": "delivered", "result": "ok"}, {"kind": "delivered", "result": "ok"}),
        ({"payloadSchema": {"headers": {"type": "object"}, "taskData": 1}, "labels": {"headers": "x"}}, ...),
        ({"headers": []}, ...),
    ],
)
def test_what_is_taken_and_what_stays(document: Any, shown: Any) -> None:
    assert redact(document) == (document if shown is ... else shown)
