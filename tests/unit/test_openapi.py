"""`/openapi.json` and `/docs`: complete, valid, true to what is answered, and at home without the internet."""

import re
import tomllib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from openapi_spec_validator import validate

import clockwork
from clockwork.http.openapi import declared_routes, document, routes_of
from clockwork.http.server import make_app
from clockwork.http.ui import UiPages
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import HttpSettings, UiSettings
from tests.support.engine import Engine
from tests.unit.api_edge import Edge, FakeReadiness, a_request, open_edge
from tests.unit.service import app_of

APP = app_of(Engine())
CALLS = declared_routes(APP)
WHOLE = document(APP)
NOT_RECORDED = {"408", "414", "431", "501"}
"""Statuses of requests that never reach the application."""


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with open_edge(ui=UiPages(UiSettings(), auth="none", https=False)) as opened:
        yield opened


def operations(of: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in of["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def checked(schema: dict[str, Any], value: Any) -> None:
    """`value` is what `schema`, a part of the document, says."""
    jsonschema_rs.validate({"$ref": "#/x", "x": schema, "components": WHOLE["components"]}, value)


def test_every_route_is_declared_with_its_description() -> None:
    described = {(method, path) for method, path, _ in operations(WHOLE)}
    assert described == routes_of(APP) == {(call.method, call.path) for call in CALLS}


async def test_the_document_that_is_served_is_that_of_the_applications_routes(edge: Edge) -> None:
    shown = (await edge.ask("GET", "/openapi.json")).json
    assert shown["paths"] == {path: each for path, each in WHOLE["paths"].items() if not path.startswith("/admin")}


def test_a_worker_describes_its_own_routes_and_no_schedules() -> None:
    worker = make_app(Engine().requests, HttpSettings(port=0), FakeReadiness(), NoTelemetry(), accepts=False)
    described = {path for _, path, _ in operations(document(worker))}
    assert described == {path for _, path in routes_of(worker)}
    assert not any("schedule" in path or "job" in path for path in described)


def test_no_two_calls_have_one_name() -> None:
    assert len({call.name for call in CALLS}) == len(CALLS)


def test_the_document_is_valid_openapi() -> None:
    assert WHOLE["openapi"] == "3.1.0"
    validate(WHOLE)


def test_every_call_has_examples_and_every_example_is_what_its_schema_says() -> None:
    for method, path, operation in operations(WHOLE):
        contents = {status: answer.get("content", {}) for status, answer in operation["responses"].items()}
        if "requestBody" in operation:
            contents["request"] = operation["requestBody"]["content"]
        for status, content in ((status, content) for status, each in contents.items() for content in each.values()):
            if "$ref" in content["schema"] and status not in NOT_RECORDED:
                assert content["examples"], f"{method} {path} {status}"
            for example in content.get("examples", {}).values():
                checked(content["schema"], example["value"])


def test_every_schedule_call_says_how_it_ends_without_a_key_over_a_quota_and_in_an_outage() -> None:
    for _, path, operation in operations(WHOLE):
        assert {"400", "500"} <= operation["responses"].keys()
        if "schedule" not in path and not path.startswith(("/admin", "/jobs")):
            continue
        assert {"401", "403", "429", "503"} <= operation["responses"].keys()
        for status, header in (("401", "WWW-Authenticate"), ("429", "Retry-After"), ("503", "Retry-After")):
            assert header in operation["responses"][status]["headers"]


async def test_a_field_that_the_document_does_not_know_would_be_noticed(edge: Edge) -> None:
    # The models pass unknown fields over, so conformance alone would not see an answer that has grown.
    answer = await edge.post(a_request())
    assert answer.json.keys() <= WHOLE["components"]["schemas"]["ScheduleDocument"]["properties"].keys()


async def test_the_page_and_its_files_come_from_the_node_alone(edge: Edge) -> None:
    page = await edge.ask("GET", "/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    used = re.findall(r'(?:src|href)="([^"]+)"', page.body.decode())
    assert len(used) == 3
    for each in used:
        answer = await edge.ask("GET", f"/{each}")
        assert answer.status == 200
        assert answer.headers["Content-Type"].split(";")[0] == (
            "text/css" if each.endswith("css") else "text/javascript"
        )
    assert b"openapi.json" in (await edge.ask("GET", "/docs/page.js")).body


@pytest.mark.parametrize("name", ["LICENSE-swagger-ui.txt", "%2e%2e%2fserver.py", "..%2fserver.py", "none.js"])
async def test_nothing_but_the_pages_files_is_served(edge: Edge, name: str) -> None:
    assert (await edge.ask("GET", f"/docs/{name}")).status == 404


def test_the_version_is_the_packages() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == clockwork.__version__ == WHOLE["info"]["version"]
