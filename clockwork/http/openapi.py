"""`GET /openapi.json`, made once at the start from the models, the table of calls and the routes that there are; and
`GET /docs`, the same as a page.

The page is Swagger UI, whose files lie in `static` (Apache-2.0; version and licence beside them): nothing is fetched from
elsewhere, so it works in a closed network, and no third party learns of it. A rendering of our own would be 2 MB less in
the package, but could not try calls out, and would be one more thing to keep right.
"""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import resources
from typing import Any, Final

from aiohttp import hdrs, web
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

import clockwork
from clockwork.http.openapi_admin import ADMIN
from clockwork.http.openapi_calls import CALLS, MANY, SCHEDULES
from clockwork.http.openapi_node import NODE
from clockwork.http.openapi_parts import HEADERS, JSON, PATH_PARAMETERS, Answer, Call, Parameter
from clockwork.schema import json as json_body

_SCHEMAS: Final = "#/components/schemas/"
_MEDIA_TYPES: Final = {"css": "text/css", "js": "text/javascript"}
_FILES: Final = ("page.js", "swagger-ui-bundle.js", "swagger-ui.css")
_TAGS: Final = (
    {"name": SCHEDULES, "description": "One schedule: create, look, change, cancel."},
    {"name": MANY, "description": "Batches and lists."},
    {"name": ADMIN, "description": "The service: for those who run it."},
    {"name": NODE, "description": "The node's own pages: health, metrics, this document."},
)
_ABOUT: Final = (
    "Clockwork delivers a payload to a Kafka topic at a time: never early, never lost, once, in order. Times are epoch "
    "milliseconds; on input an RFC 3339 text with an offset is taken too. Every error is `application/problem+json`."
)
# Only what the page itself brings may run or be asked, whatever a description might contain.
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def add_pages(app: web.Application) -> None:
    """Adds the document and its page. Comes last: it describes the routes that the application has by then."""
    app.router.add_get("/openapi.json", _openapi)
    app.router.add_get("/docs", _page)
    app.router.add_get("/docs/{file}", _file)
    app[_DOCUMENT] = _text(frozenset(routes_of(app)))


def routes_of(app: web.Application) -> set[tuple[str, str]]:
    """Method and path of every route; `HEAD` is left out, which comes with every `GET`."""
    return {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != hdrs.METH_HEAD
    }


def document(routes: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The OpenAPI document of those calls that have a route."""
    there = set(routes)
    calls = [call for call in CALLS if (call.method, call.path) in there]
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call)
    used = {call.tag for call in calls}
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
            "schemas": _schemas(calls),
            "headers": dict(HEADERS),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "Where the service is run with keys."}
            },
        },
    }


@lru_cache(maxsize=8)
def _text(routes: frozenset[tuple[str, str]]) -> bytes:
    """Kept, because tests make many applications and pydantic takes some 50 ms for all the models."""
    return json_body.compact(document(routes))


# --- one call


def _operation(call: Call) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": call.name,
        "tags": [call.tag],
        "summary": call.summary,
        "description": call.description,
        "parameters": [*_in_path(call.path), *(_parameter(each) for each in call.parameters)],
        "responses": {str(status): _response(call.answers[status]) for status in sorted(call.answers)},
    }
    if call.request is not None:
        operation["requestBody"] = {
            "required": call.request_required,
            "content": {JSON: {"schema": _reference(call.request), "examples": _examples(call.request_examples)}},
        }
    if call.keyed:
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


def _response(answer: Answer) -> dict[str, Any]:
    schema: Mapping[str, Any] = {} if answer.media_type == JSON else {"type": "string"}
    content: dict[str, Any] = {"schema": schema if answer.model is None else _reference(answer.model)}
    if answer.examples:
        content["examples"] = _examples(answer.examples)
    response: dict[str, Any] = {"description": answer.description}
    if answer.media_type is not None:
        response["content"] = {answer.media_type: content}
    if answer.headers:
        response["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in answer.headers}
    return response


def _examples(examples: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"value": value} for name, value in examples.items()}


# --- models


class _Schemas(GenerateJsonSchema):
    """Without the titles that only repeat a field's name, and without `null` as the default of what may be absent."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: Any) -> dict[str, Any]:
        shown = super().default_schema(schema)
        if shown.get("default", ...) is None:
            del shown["default"]
        return shown


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _SCHEMAS + model.__name__}


def _schemas(calls: Iterable[Call]) -> dict[str, Any]:
    models = {call.request for call in calls} | {each.model for call in calls for each in call.answers.values()}
    named = sorted((model for model in models if model is not None), key=lambda model: model.__name__)
    _, definitions = models_json_schema(
        [(model, "validation") for model in named], ref_template=_SCHEMAS + "{model}", schema_generator=_Schemas
    )
    return dict(definitions["$defs"])


# --- what is served

_DOCUMENT: Final = web.AppKey("openapi_document", bytes)


async def _openapi(request: web.Request) -> web.Response:
    return web.Response(body=request.app[_DOCUMENT], content_type=JSON)


async def _page(request: web.Request) -> web.Response:
    return web.Response(text=_PAGE, content_type="text/html", headers={"Content-Security-Policy": _PAGE_POLICY})


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
