"""Types of the HTTP API for the dashboard's modules, which name them in their JSDoc: `python -m infra.ui.types`.

They are made from the OpenAPI document, without a node and without Node.js, and checked in; a test compares. `make ui-types`
holds the modules against them: a field or a call that the service does not have is an error there.

Of a schema its names and kinds are taken, not its bounds and descriptions: those change often and are no types.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from clockwork.http.openapi import document
from tests.support.engine import Engine
from tests.unit.service import app_of

FILE: Final = Path(__file__).with_name("api.d.ts")
HEAD: Final = """\
// Written by `python -m infra.ui.types`. The HTTP API: its documents, and those that each call takes and answers.
// A global namespace: JSDoc names a document as Api.ScheduleDocument, without an import.
"""
TAIL: Final = """
  /** A path with names in it is called by its template: what makes such a path gives it the template's type. */
  type Path<M extends keyof Calls> = keyof Calls[M] & string;
  /** What is empty is not sent. */
  type Parameter = string | number | boolean | null | undefined;
  type Query<M extends keyof Calls, P extends Path<M>> =
    Calls[M][P] extends { query: infer Q extends string } ? Partial<Record<Q, Parameter>> : never;
  type Body<M extends keyof Calls, P extends Path<M>> = Calls[M][P] extends { body: infer B } ? B : never;
  type Answer<M extends keyof Calls, P extends Path<M>> = Calls[M][P] extends { answer: infer A } ? A : never;
}
"""
PLAIN: Final = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}

Schema = Mapping[str, Any]


def text() -> str:
    """The types of the present API."""
    return "\n".join(_lines(document(app_of(Engine()))))


def type_of(schema: Schema) -> str:
    """A schema as a TypeScript type. Raises: ValueError for a kind of schema that the API did not have so far."""
    match schema:
        case {"$ref": str(reference)}:
            return reference.rpartition("/")[2]
        case {"const": value}:
            return json.dumps(value)
        case {"enum": values}:
            return " | ".join(json.dumps(each) for each in values)
        case {"anyOf": choices} | {"oneOf": choices}:
            return " | ".join(dict.fromkeys(type_of(each) for each in choices))
        case {"type": "array", "items": items}:
            inner = type_of(items)
            return f"({inner})[]" if " | " in inner else f"{inner}[]"
        case {"type": "object"}:
            return _object(schema)
        case {"type": "integer", "format": "int64"}:
            return "number | bigint"
        case {"type": str(kind)} if kind in PLAIN:
            return PLAIN[kind]
        case _ if not schema.keys() - {"description", "default", "title"}:
            return "unknown"
        case _:
            raise ValueError(f"no type is known for {schema}")


def _object(schema: Schema) -> str:
    if "properties" in schema:
        return f"{{ {' '.join(_members(schema))} }}"
    values = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
    inner = [type_of(each) for each in values if isinstance(each, Mapping)]
    return f"Record<string, {' | '.join(inner) or 'unknown'}>"


def _members(schema: Schema) -> Iterator[str]:
    for name, inner in schema["properties"].items():
        optional = "" if name in schema.get("required", ()) else "?"
        yield f"{name}{optional}: {type_of(inner)};"


def _lines(api: Schema) -> Iterator[str]:
    yield HEAD
    yield "declare namespace Api {"
    for name, schema in sorted(api["components"]["schemas"].items()):
        yield f"  interface {name} {{"
        yield from (f"    {member}" for member in _members(schema))
        yield "  }"
    yield ""
    yield "  /** By method and path: the names of the query's parameters, the body, and the answer of a success. */"
    yield "  interface Calls {"
    by_method: dict[str, list[str]] = {}
    for path, operations in sorted(api["paths"].items()):
        for method, operation in operations.items():
            by_method.setdefault(method.upper(), []).append(_call(path, operation))
    for method, calls in sorted(by_method.items()):
        yield f"    {method}: {{"
        yield from (f"      {call}" for call in calls)
        yield "    };"
    yield "  }"
    yield TAIL


def _call(path: str, operation: Schema) -> str:
    query = " | ".join(json.dumps(each["name"]) for each in operation["parameters"] if each["in"] == "query")
    body = type_of(_json(operation["requestBody"])) if "requestBody" in operation else "never"
    successes = (answer for status, answer in operation["responses"].items() if status.startswith("2"))
    answers = " | ".join(dict.fromkeys(type_of(_json(each)) for each in successes)) or "never"
    return f"{json.dumps(path)}: {{ query: {query or 'never'}; body: {body}; answer: {answers} }};"


def _json(content: Schema) -> Schema:
    """The schema of a request or an answer; null for one that has no JSON."""
    schema: Schema = content.get("content", {}).get("application/json", {}).get("schema", {"type": "null"})
    return schema


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m infra.ui.types", description=__doc__).parse_args()
    FILE.write_text(text(), encoding="utf-8")
