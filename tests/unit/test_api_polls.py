"""Polls: an answer has a tag of its content, and an unchanged one is 304."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Final

import aiohttp
import pytest

from clockwork.domain.rights import Principal, Right, names_of
from clockwork.http.openapi import declared_routes
from clockwork.http.polls import digest_of
from clockwork.observability.activity import RecordingTelemetry
from clockwork.operations.activity import ActivityTail
from tests.support import builders
from tests.support.engine import Engine
from tests.unit.service import Service, app_of, gate_of, open_service

EVERYTHING: Final = names_of(["*"])
KEYS: Final = {
    "all": Principal(name="all", clients=EVERYTHING, topics=EVERYTHING, rights=frozenset(Right)),
    "redacted": Principal(name="all", clients=EVERYTHING, topics=EVERYTHING, rights=frozenset(Right), redacted=True),
    "none": Principal(name="none", clients=EVERYTHING, topics=EVERYTHING, rights=frozenset({Right.CREATE})),
}
POLLED: Final = sorted(each.path for each in declared_routes(app_of(Engine())) if each.polled)
QUERIES: Final = {"/jobs": "?clientId=shop", "/forecast": "?from=1795248000000"}
"""Queries without which a call is not answered, or not about the same time."""


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    engine = Engine(telemetry=RecordingTelemetry())
    async with open_service(engine) as opened:
        await opened.seed("shop")
        await opened.recorded()
    engine.tail = ActivityTail(engine.activity, engine.clock)
    async with open_service(engine, gate=gate_of(KEYS)) as opened:
        yield opened


async def asked(
    service: Service, path: str, key: str = "all", tag: str | None = None
) -> tuple[int, Mapping[str, str], bytes]:
    headers = {"Authorization": f"Bearer {key}"} | ({} if tag is None else {"If-None-Match": tag})
    async with aiohttp.ClientSession(service.url) as session, session.get(path, headers=headers) as answer:
        return answer.status, answer.headers.copy(), await answer.read()


@pytest.mark.parametrize("path", POLLED)
async def test_a_poll_that_finds_nothing_new_is_304_without_a_body_though_time_passes(
    service: Service, path: str
) -> None:
    status, first, body = await asked(service, path + QUERIES.get(path, ""))
    assert (status, bool(body)) == (200, True)
    assert first["Cache-Control"] == "private, no-cache"
    assert first["Vary"] == "Authorization, Cookie, clockwork-ui"
    service.engine.clock.advance_ms(1_500)

    query = f"?cursor={json.loads(body)['cursor']}" if path == "/events" else QUERIES.get(path, "")
    if path == "/events":
        _, first, _ = await asked(service, path + query)
        service.engine.clock.advance_ms(1_500)  # the cursor must not move with the time
    status, again, nothing = await asked(service, path + query, tag=first["ETag"])

    assert (status, nothing) == (304, b"")
    assert {name: again[name] for name in ("ETag", "Cache-Control", "Vary")} == {
        name: first[name] for name in ("ETag", "Cache-Control", "Vary")
    }
    assert ("clockwork-read-units" in again) == ("clockwork-read-units" in first)
    assert (await asked(service, path + query, tag=f'"1", {first["ETag"]}'))[0] == 304
    assert (await asked(service, path + query, tag='W/"0123"'))[0] == 200


async def test_a_poll_that_finds_something_new_is_answered_with_it(service: Service) -> None:
    _, first, _ = await asked(service, "/upcoming")
    due_ms = service.engine.clock.now_ms() + 1_000
    await service.engine.put(builders.row(builders.schedule(schedule_key="new", due_ms=due_ms)))

    status, _, body = await asked(service, "/upcoming?limit=50", tag=first["ETag"])

    assert status == 200
    assert json.loads(body)["schedules"][0]["scheduleKey"] == "new"


async def test_the_tag_of_one_callers_answer_shows_another_caller_nothing(service: Service) -> None:
    path = "/admin/dead-letters"
    _, whole, content = await asked(service, path)

    status, own, redacted = await asked(service, path, "redacted", whole["ETag"])

    assert status == 200
    assert (b'"redacted"' in content, b'"redacted":true' in redacted) == (False, True)
    assert own["ETag"] != whole["ETag"]
    assert (await asked(service, path, "redacted", own["ETag"]))[0] == 304
    assert (await asked(service, path, "none", whole["ETag"]))[0] == 403
    assert (await asked(service, path, "unknown", whole["ETag"]))[0] == 401


async def test_an_error_has_no_tag(service: Service) -> None:
    status, headers, _ = await asked(service, "/upcoming?limit=0", tag="*")

    assert (status, "ETag" in headers, headers["Cache-Control"]) == (400, False, "no-store")


def test_the_time_of_the_answer_is_left_out_of_its_tag_and_content_of_that_name_is_not() -> None:
    assert digest_of(b'{"a":1,"asOf":1}') == digest_of(b'{"a":1,"asOf":22}')
    assert digest_of(b'{"a":{"asOf":1}}') != digest_of(b'{"a":{"asOf":2}}')
    assert digest_of(b'{"asOf":1,"a":1}') != digest_of(b'{"asOf":2,"a":1}')
