"""What the service answers to generated requests is what its document says: schemathesis against the twins in memory."""

import asyncio
import copy
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from clockwork.adapters.telemetry import NoTelemetry
from clockwork.api.openapi import routes_of
from clockwork.api.server import HttpServer, make_app
from clockwork.config import HttpSettings
from clockwork.domain.schedule import Row
from tests.support import builders
from tests.support.engine import Engine
from tests.unit.api_edge import FakeReadiness, a_request

EXAMPLES = 25
"""Of each call and kind: some two seconds each."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def make(engine: Engine) -> web.Application:
    return make_app(
        engine.intake,
        engine.canceller,
        HttpSettings(port=0),
        FakeReadiness(),
        NoTelemetry(),
        engine.clock,
        rescheduler=engine.rescheduler,
        rearmer=engine.rearmer,
    )


SCHEDULE_CALLS = sorted((method, path) for method, path in routes_of(make(Engine())) if "schedule" in path)


@dataclass
class Running:
    url: str
    document: dict[str, Any]
    engine: Engine


@pytest.fixture(scope="module")
async def node() -> AsyncIterator[Running]:
    engine = Engine()
    async with HttpServer(make(engine), HttpSettings(port=0)) as server, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{server.port}"
        async with session.get(f"{url}/openapi.json") as answer:
            described = await answer.json()
        for client_id in ("shop", "other"):
            async with session.post(
                f"{url}/schedule", json=a_request(clientId=client_id, scheduleKey="a", scheduleTime=builders.DUE_MS)
            ) as answer:
                assert answer.status == 201
        yield Running(url, described, engine)


def narrowed(described: dict[str, Any]) -> dict[str, Any]:
    """The same document with so few names and such times that requests meet each other's schedules."""
    narrow = copy.deepcopy(described)
    names = {"clientId": {"enum": ["shop", "other"]}, "scheduleKey": {"enum": ["a", "ü/1 %"]}}
    # A frontier of 0, as nobody fires anything here, says of 0 alone that it may have been read.
    times = {"type": "integer", "minimum": 1, "maximum": builders.DUE_MS + 86_400_000}
    forms = narrow["components"]["schemas"]
    for form in forms.values():
        if form.get("additionalProperties") is False:
            form["properties"] |= {name: value for name, value in names.items() if name in form["properties"]}
            if "scheduleTime" in form["properties"]:
                form["properties"]["scheduleTime"] = times
    forms["DeliveryForm"]["properties"]["topic"] = {"enum": [builders.TOPIC]}
    for operation in (each for path in narrow["paths"].values() for each in path.values()):
        for parameter in operation["parameters"]:
            parameter["schema"] = names.get(parameter["name"], parameter["schema"])
    return narrow


@pytest.mark.parametrize("kind", ["narrow", "valid", "invalid"])
@pytest.mark.parametrize(("method", "path"), SCHEDULE_CALLS)
async def test_generated_requests_are_answered_as_the_document_says(
    node: Running, method: str, path: str, kind: str
) -> None:
    described = narrowed(node.document) if kind == "narrow" else node.document
    operation = schemathesis.openapi.from_dict(described)[path][method]
    mode = schemathesis.GenerationMode.NEGATIVE if kind == "invalid" else schemathesis.GenerationMode.POSITIVE
    if path.endswith("/retry"):
        for row in list(node.engine.store.rows.values()):
            assert isinstance(row, Row)
            await node.engine.fail(row)
    statuses: set[int] = set()

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def conforms(case: schemathesis.Case[Any]) -> None:
        statuses.add(case.call_and_validate(base_url=node.url, checks=CHECKS).status_code)

    # In a thread, because it waits for its answers without letting go of the event loop that makes them.
    await asyncio.to_thread(conforms)
    # Else nothing was tried but refusals.
    assert kind != "narrow" or statuses & {200, 201}, statuses
