"""`GET /openapi.json`, made once at the start from the routes of the application and the models that they name; and
`GET /docs`, the same as a page.

The examples are requests and answers that a test saw, kept in `static/examples.json` by operation and status, or by status
alone for problems that many calls share (tests/unit/test_openapi_examples.py compares them).

The page is Swagger UI, whose files are in `static` (Apache-2.0; version and licence beside them): it loads nothing from
other hosts, so it works in a closed network, and no third party learns of it. A page of our own would save 2 MB of the
package, but could not try calls out, and would need maintenance.
"""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import resources
from typing import Any, Final

from aiohttp import hdrs, web
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

import clockwork
from clockwork.http.routes import (
    ACCESS,
    ADMIN,
    EVERY_CALL,
    HEADERS,
    JOBS,
    JSON,
    MANY,
    NODE,
    PATH_PARAMETERS,
    SCHEDULES,
    Answer,
    Parameter,
    Route,
    add_routes,
    problem,
    route,
    route_of,
)
from clockwork.http.ui import is_page
from clockwork.schema import json as json_body

_SCHEMAS: Final = "#/components/schemas/"
_MEDIA_TYPES: Final = {"css": "text/css", "js": "text/javascript"}
EXAMPLES_FILE: Final = "static/examples.json"
_FILES: Final = ("page.js", "swagger-ui-bundle.js", "swagger-ui.css")
_TAGS: Final = (
    {"name": SCHEDULES, "description": "One schedule: create, show, change, cancel."},
    {"name": MANY, "description": "Batches and lists."},
    {"name": JOBS, "description": "Recurring jobs: create, show, change, pause, logs."},
    {"name": ADMIN, "description": "The service itself: for operators."},
    {"name": ACCESS, "description": "The caller, its rights, and the dashboard's logins."},
    {"name": NODE, "description": "The node's own pages: health, metrics, this document."},
)
_ABOUT: Final = (
    "Clockwork delivers a payload to a Kafka topic at a time: never early, never lost, once, in order. Times are epoch "
    "milliseconds; in requests also RFC 3339 texts with an offset. Every error is `application/problem+json`."
)
# Only the page's own files may run or be loaded, whatever a description might contain.
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def add_pages(app: web.Application) -> None:
    """Adds the document and its page. Comes last: it describes the routes that the application has by then."""
    add_routes(app, [_openapi, _page, _file])
    app[_DOCUMENT] = _text(tuple(sorted(declared_routes(app), key=lambda each: (each.path, each.method))))


def routes_of(app: web.Application) -> set[tuple[str, str]]:
    """Method and path of every call, without `HEAD`, which comes with every `GET`, and without the dashboard's files."""
    return {
        (each.method, each.resource.canonical)
        for each in app.router.routes()
        if each.resource is not None and each.method != hdrs.METH_HEAD and not is_page(each.resource.canonical)
    }


def declared_routes(app: web.Application) -> list[Route]:
    """The declared routes of an application, in the order in which they were added."""
    found = [route_of(each.handler) for each in app.router.routes() if each.method != hdrs.METH_HEAD]
    return [each for each in found if each is not None]


def document(app: web.Application) -> dict[str, Any]:
    """The OpenAPI document of an application."""
    return _document(declared_routes(app))


def _document(routes: Iterable[Route]) -> dict[str, Any]:
    routes = list(routes)
    paths: dict[str, dict[str, Any]] = {}
    for each in routes:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each)
    used = {each.tag for each in routes}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Clockwork",
            "version": clockwork.__version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This node."}],
        "tags": [tag for tag in _TAGS if tag["name"] in used],
        "paths": paths,
        "components": {
            "schemas": _schemas(routes),
            "headers": dict(HEADERS),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "Where the service is run with keys."}
            },
        },
    }


@lru_cache(maxsize=8)
def _text(routes: tuple[Route, ...]) -> bytes:
    # Kept, because tests make many applications, and the models take some 50 ms.
    return json_body.compact(_document(routes))


# --- one call


def _operation(declared: Route) -> dict[str, Any]:
    examples = _examples().get(declared.name, {})
    operation: dict[str, Any] = {
        "operationId": declared.name,
        "tags": [declared.tag],
        "summary": declared.summary,
        "description": declared.description,
        "parameters": [*_in_path(declared.path), *(_parameter(each) for each in declared.parameters)],
        "responses": {
            str(status): _response(status, answer, examples) for status, answer in sorted(declared.answers.items())
        },
    }
    if declared.request is not None:
        content: dict[str, Any] = {"schema": _reference(declared.request)}
        if "request" in examples:
            content["examples"] = _as_values(examples["request"])
        operation["requestBody"] = {"required": declared.request_required, "content": {JSON: content}}
    if declared.keyed:
        operation["security"] = [{}, {"key": []}]
    return operation


def _in_path(path: str) -> Iterable[dict[str, Any]]:
    for name, parameter in PATH_PARAMETERS.items():
        if f"{{{name}}}" in path:
            yield {"name": name, "in": "path", "required": True, **parameter}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "required": parameter.required,
        "schema": dict(parameter.schema),
    }
    return shown if parameter.example is None else shown | {"example": parameter.example}


def _response(status: int, answer: Answer, examples: Mapping[str, Any]) -> dict[str, Any]:
    response: dict[str, Any] = {"description": answer.description}
    if answer.media_type is not None:
        schema: Mapping[str, Any] = {} if answer.media_type == JSON else {"type": "string"}
        content: dict[str, Any] = {"schema": schema if answer.model is None else _reference(answer.model)}
        found = examples.get(str(status)) or (_examples()["problems"].get(str(status)) if status >= 400 else None)
        if answer.model is not None and found:
            content["examples"] = _as_values(found)
        response["content"] = {answer.media_type: content}
    if answer.headers:
        response["headers"] = {
            # Two kinds of one header: a component's name says which.
            name.partition("-of-")[0]: {"$ref": f"#/components/headers/{name}"}
            for name in answer.headers
        }
    return response


def _as_values(examples: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"value": value} for name, value in examples.items()}


@lru_cache(maxsize=1)
def _examples() -> Mapping[str, Any]:
    """Recorded requests and answers: `{operation: {"request" or status: {name: body}}}`, and `{"problems": {status: …}}`."""
    text = (resources.files("clockwork.http") / EXAMPLES_FILE).read_bytes()
    return dict(json.loads(text))


# --- models


class _Schemas(GenerateJsonSchema):
    """Without the titles that only repeat a field's name, and without `null` where a field is absent instead: in answers
    always, in requests as a default."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: Any) -> dict[str, Any]:
        inner = schema["schema"]
        if schema.get("default", ...) is not None:
            return super().default_schema(schema)
        if self.mode == "serialization" and inner["type"] == "nullable":
            inner = inner["schema"]
        return self.generate_inner(inner)


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _SCHEMAS + model.__name__}


def _schemas(routes: Iterable[Route]) -> dict[str, Any]:
    modes: dict[type[BaseModel], JsonSchemaMode] = {}
    for each in routes:
        modes |= {answer.model: "serialization" for answer in each.answers.values() if answer.model is not None}
        if each.request is not None:
            modes[each.request] = "validation"
    named = sorted(modes.items(), key=lambda item: item[0].__name__)
    _, definitions = models_json_schema(named, ref_template=_SCHEMAS + "{model}", schema_generator=_Schemas)
    return dict(definitions["$defs"])


# --- what is served

_DOCUMENT: Final = web.AppKey("openapi_document", bytes)


@route(
    "GET",
    "/openapi.json",
    name="openapi",
    tag=NODE,
    summary="This document",
    description="OpenAPI 3.1.",
    keyed=False,
    answers={200: Answer(description="The document."), **EVERY_CALL},
)
async def _openapi(request: web.Request) -> web.Response:
    return web.Response(body=request.app[_DOCUMENT], content_type=JSON)


@route(
    "GET",
    "/docs",
    name="docs",
    tag=NODE,
    summary="This document as a page",
    description="Works without the internet.",
    keyed=False,
    answers={200: Answer(description="The page.", media_type="text/html"), **EVERY_CALL},
)
async def _page(request: web.Request) -> web.Response:
    return web.Response(text=_PAGE, content_type="text/html", headers={"Content-Security-Policy": _PAGE_POLICY})


@route(
    "GET",
    "/docs/{file}",
    name="docsFile",
    tag=NODE,
    summary="A file of the page",
    description="Its script and its style.",
    keyed=False,
    answers={
        **EVERY_CALL,
        200: Answer(description="The file.", media_type="*/*"),
        404: problem("There is no such file."),
    },
)
async def _file(request: web.Request) -> web.StreamResponse:
    name = request.match_info["file"]
    if name not in _FILES:
        raise web.HTTPNotFound
    if name == "page.js":
        return web.Response(text=_SCRIPT, content_type=_MEDIA_TYPES["js"])
    with resources.as_file(resources.files("clockwork.http") / "static" / name) as path:
        media_type = _MEDIA_TYPES[name.rpartition(".")[2]]
        return web.FileResponse(path, headers={hdrs.CONTENT_TYPE: media_type, hdrs.CACHE_CONTROL: "max-age=3600"})


# The addresses are relative, so that the page also works behind a path prefix.
_PAGE: Final = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Clockwork</title><link rel="stylesheet" href="docs/swagger-ui.css"></head>
<body>
<div id="page"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/page.js"></script>
</body>
</html>
"""
_SCRIPT: Final = (
    "SwaggerUIBundle("
    + json.dumps({"url": "openapi.json", "dom_id": "#page", "deepLinking": True, "validatorUrl": None})
    + ");\n"
)
