"""Rights at every route: no call reaches a schedule that its key does not cover. On a working engine."""

from typing import Any

import aiohttp
import pytest

from clockwork.domain.position import text_of
from clockwork.domain.rights import LOOK, RESEND, Principal, Right, names_of
from clockwork.http.openapi import routes_of
from tests.support import builders
from tests.support.engine import Engine
from tests.unit.api_edge import a_request
from tests.unit.service import a_principal, app_of, gate_of, open_service

KEYS = {
    "shop": Principal(name="shop", clients=names_of(["shop"]), topics=names_of(["*"]), rights=frozenset(Right)),
    "all but admin": Principal(
        name="app", clients=names_of(["*"]), topics=names_of(["*"]), rights=frozenset(Right) - {Right.ADMIN}
    ),
    "admin": Principal(name="admin", clients=names_of([]), topics=names_of([]), rights=frozenset({Right.ADMIN})),
    "bank": Principal(name="bank", clients=names_of(["bank"]), topics=names_of(["*"]), rights=frozenset(Right)),
    **{
        right.value: Principal(name="one", clients=names_of(["*"]), topics=names_of(["*"]), rights=frozenset({right}))
        for right in set(Right) - {Right.ADMIN}
    },
    "mail": Principal(name="mail", clients=names_of(["shop"]), topics=names_of(["mail"]), rights=frozenset(Right)),
}
NAMED = {"clientId": "shop", "scheduleKey": "a"}
NAMES = {
    "clientId": "shop",
    "scheduleKey": "a",
    "jobId": "a",
    "calendar": "a",
    "runId": f"s{builders.DUE_MS}",
    "version": "1",
    "topic": builders.TOPIC,
    "shard": "3",
    "partition": "0",
    "offset": "0",
}
EXPORTED = {
    **a_request(**NAMED, scheduleTime=builders.DUE_MS),
    "createdAt": 1,
    "deliveryId": "d",
    "version": 1,
    "origin": {"position": text_of(builders.position())},
}
JOB = {
    "clientId": "shop",
    "jobId": "a",
    "trigger": {"type": "fixed_rate", "everyMs": 60_000, "anchor": builders.DUE_MS},
    "taskData": 1,
    "delivery": {"topic": builders.TOPIC},
}
ONE_JOB = "/jobs/{clientId}/{jobId}"
ONE_CALENDAR = "/calendars/{clientId}/{calendar}"
MADE = (("POST", "/schedule"), ("POST", "/jobs"), ("PUT", ONE_CALENDAR))
"""Makes what the calls are about."""
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/schedule"): a_request(**NAMED),
    ("DELETE", "/schedule"): NAMED,
    ("POST", "/schedules"): {"schedules": [a_request(**NAMED)]},
    ("POST", "/schedules/cancel"): {"schedules": [NAMED]},
    ("POST", "/schedules/get"): {"schedules": [NAMED]},
    ("POST", "/schedules/fire"): {"schedules": [NAMED]},
    ("POST", "/schedules/retry"): {"schedules": [NAMED]},
    ("PUT", "/schedule/{clientId}/{scheduleKey}"): {"taskData": 1},
    ("POST", "/jobs"): JOB,
    ("PUT", ONE_JOB): {"priority": 1},
    ("POST", f"{ONE_JOB}/pause"): {},
    ("POST", f"{ONE_JOB}/run-now"): {"requestId": "r"},
    ("POST", f"{ONE_JOB}/backfill"): {
        "requestId": "b",
        "from": builders.DUE_MS - 180_000,
        "to": builders.DUE_MS - 60_000,
    },
    ("POST", f"{ONE_JOB}/runs/{{runId}}/heartbeat"): {"extendMs": 60_000},
    ("POST", "/jobs/preview"): {"trigger": JOB["trigger"]},
    ("PUT", ONE_CALENDAR): {},
    ("POST", "/admin/dead-letters/discard"): {"deadLetters": [{**NAMED, "deliveryId": "d"}]},
    ("POST", "/admin/dead-letters/retry"): {"deadLetters": [{**NAMED, "deliveryId": "d"}]},
    ("POST", "/admin/jobs"): {
        "exportedAt": builders.DUE_MS - 60_000,
        "job": {**JOB, "jobId": "imported"},
        "origin": {
            "createdAt": builders.DUE_MS - 60_000,
            "updatedAt": builders.DUE_MS - 60_000,
            "version": 1,
            "digest": "0" * 64,
            "cursor": builders.DUE_MS - 60_000,
            "counts": {"delivered": 0, "failed": 0, "skipped": 0, "ofTrigger": 0},
        },
    },
    ("POST", "/admin/schedules"): {"exportedAt": builders.DUE_MS - 60_000, "schedules": [EXPORTED]},
}
ROUTES = routes_of(app_of(Engine()))
OPERATOR_CALLS = sorted(
    (method, path) for method, path in ROUTES if path.startswith(("/admin/pauses", "/admin/dead-letters"))
)
ADMIN_CALLS = sorted((method, path) for method, path in ROUTES - set(OPERATOR_CALLS) if path.startswith("/admin"))
CALLS = sorted(
    (method, path)
    for method, path in ROUTES - set(ADMIN_CALLS) - set(OPERATOR_CALLS) - {("POST", "/jobs/preview")}
    if any(resource in path for resource in ("schedule", "job", "calendar"))
)
"""About schedules, jobs and calendars. A preview of times is about no client."""
RIGHTS: dict[tuple[str, str], set[Right]] = {
    **{call: {Right.CREATE} for call in CALLS},
    **{call: {Right.READ} for call in CALLS if call[0] == "GET" or call[1] == "/schedules/get"},
    **{call: {Right.CANCEL} for call in CALLS if call[0] == "DELETE" or call[1].endswith(("/cancel", "/pause"))},
    ("DELETE", ONE_CALENDAR): {Right.CREATE},
    **{call: {Right.COMPLETE} for call in CALLS if call[1].endswith(("/complete", "/fail", "/heartbeat"))},
    **{call: set(RESEND) for call in CALLS if call[1].endswith(("/fire", "/retry"))},
}
"""Rights that each admit to a call."""


LISTS = {("GET", "/schedules"), ("GET", "/jobs"), ("GET", "/calendars")}


async def answered(session: aiohttp.ClientSession, key: str, method: str, path: str) -> tuple[int, Any]:
    """Make a call. Returns: status and document; those of its only item, if it is a batch."""
    at = path
    for name, value in NAMES.items():
        at = at.replace(f"{{{name}}}", value)
    query = "?clientId=shop" if (method, path) in LISTS else ""
    headers = {"Authorization": f"Bearer {key}"}
    body = BODIES.get((method, path))
    async with session.request(method, f"{at}{query}", json=body, headers=headers) as answer:
        document = await answer.json()
    if answer.status == 200 and "results" in document:
        (result,) = document["results"]
        return result["status"], result
    return answer.status, document


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_a_key_of_another_client_is_refused_whatever_it_asks(method: str, path: str) -> None:
    async with (
        open_service(gate=gate_of(KEYS)) as service,
        aiohttp.ClientSession(service.url) as session,
    ):
        for create in MADE:
            assert (await answered(session, "shop", *create))[0] == 201
        before = dict(service.engine.store.rows), dict(service.engine.store.pointers)

        status, document = await answered(session, "bank", method, path)

        assert (status, document["errors"][0]["field"]) == (403, "clientId")
        assert (service.engine.store.rows, service.engine.store.pointers) == before
        # With the key of its own client the same call is answered, so it was the key that was refused.
        assert (await answered(session, "shop", method, path))[0] in {200, 201, 202, 409}


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_each_call_needs_its_right_and_no_other_replaces_it(method: str, path: str) -> None:
    async with open_service(gate=gate_of(KEYS)) as service, aiohttp.ClientSession(service.url) as session:
        for create in MADE:
            assert (await answered(session, "shop", *create))[0] == 201
        # The admitted call last, as it may cancel the schedule.
        for right in sorted(Right, key=RIGHTS[method, path].__contains__):
            status, _ = await answered(session, right.value, method, path)
            assert (status == 403) == (right not in RIGHTS[method, path]), right


@pytest.mark.parametrize(("method", "path"), ADMIN_CALLS)
async def test_calls_about_the_service_are_for_keys_with_the_right_admin_and_no_other_right_implies_it(
    method: str, path: str
) -> None:
    async with (
        open_service(gate=gate_of(KEYS)) as service,
        aiohttp.ClientSession(service.url) as session,
    ):
        assert (await answered(session, "all but admin", method, path))[0] == 403
        assert service.engine.pauses.stored.version == 0
        # No shard has an owner; and schedules are their clients'.
        allowed = 409 if path.endswith("/fence") else 403 if path in ("/admin/schedules", "/admin/jobs") else 200
        assert (await answered(session, "admin", method, path))[0] == allowed


@pytest.mark.parametrize(("method", "path"), OPERATOR_CALLS)
async def test_pauses_and_dead_letters_are_for_operators_of_what_they_cover_and_for_others_to_look_at(
    method: str, path: str
) -> None:
    # There is no dead letter at all.
    allowed = 404 if "{offset}" in path or path.endswith(("/discard", "/retry")) else 200
    admitted = set(LOOK) if method == "GET" else set(RESEND) if path.endswith("/retry") else {Right.OPERATE}
    async with (
        open_service(gate=gate_of(KEYS)) as service,
        aiohttp.ClientSession(service.url) as session,
    ):
        for right in sorted(Right, key=admitted.__contains__):
            status, _ = await answered(session, right.value, method, path)
            assert status == (allowed if right in admitted else 403), right
        if method != "GET":
            status, document = await answered(session, "bank", method, path)
            assert (status, [each["field"] for each in document["errors"]]) == (
                403,
                ["topic" if "{topic}" in path else "clientId"],
            )


async def test_an_operator_sees_the_pauses_of_its_own_clients_and_topics_and_pauses_no_topic_of_others() -> None:
    keys = {
        "shop": a_principal(Right.OPERATE, clients="shop"),
        "all": a_principal(Right.OPERATE, clients="*", topics="*"),
        "admin": a_principal(Right.ADMIN, clients="none", topics="none"),
        "viewer": a_principal(Right.READ, clients="shop"),
        "creator": a_principal(Right.CREATE, clients="shop"),
    }
    async with open_service(gate=gate_of(keys)) as service, aiohttp.ClientSession(service.url) as session:

        async def ask(key: str, method: str, path: str = "") -> tuple[int, Any]:
            headers = {"Authorization": f"Bearer {key}"}
            async with session.request(method, f"/admin/pauses{path}", headers=headers) as answer:
                return answer.status, await answer.json()

        def shown(document: Any) -> list[str]:
            return [each["name"] for kind in ("clients", "topics") for each in document[kind]]

        for path in ("/clients/shop", "/clients/bank", f"/topics/{builders.TOPIC}", "/topics/other"):
            assert (await ask("all", "PUT", path))[0] == 200
        status, document = await ask("shop", "DELETE", f"/topics/{builders.TOPIC}")
        assert (status, document["errors"][0]["field"]) == (403, "topic")
        everything = ["bank", "shop", *sorted((builders.TOPIC, "other"))]
        assert shown((await ask("all", "GET"))[1]) == shown((await ask("admin", "GET"))[1]) == everything
        for key in ("shop", "viewer"):
            assert shown((await ask(key, "GET"))[1]) == ["shop", builders.TOPIC]
        assert (await ask("creator", "GET"))[0] == 403
        status, document = await ask("shop", "DELETE", "/clients/shop")
        assert (status, shown(document)) == (200, [builders.TOPIC])


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/schedule"), ("POST", "/schedules"), ("PUT", "/schedule/{clientId}/{scheduleKey}")],
)
async def test_nothing_is_given_to_a_topic_that_the_key_does_not_cover(method: str, path: str) -> None:
    async with (
        open_service(gate=gate_of(KEYS)) as service,
        aiohttp.ClientSession(service.url) as session,
    ):
        assert (await answered(session, "shop", "POST", "/schedule"))[0] == 201
        # A change that leaves the topic as it is would still send what this key says to it.
        status, document = await answered(session, "mail", method, path)

        assert (status, document["errors"]) == (
            403,
            [{"field": "delivery.topic", "message": "is not covered by this key"}],
        )
        (row,) = service.engine.store.rows.values()
        assert row.schedule.topic == builders.TOPIC  # type: ignore[union-attr]
        assert row.schedule.version == 1  # type: ignore[union-attr]
