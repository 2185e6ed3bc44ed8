"""Payload schemas: what is refused of a schema, how wrong members of a payload are named, and that no schema takes long."""

from typing import Any

import pytest

from clockwork.errors import InvalidInput
from clockwork.schema.json import parse
from clockwork.schema.payload_schema import ERRORS_MAX, SCHEMA_BYTES_MAX, read_payload_schema

ORDER = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://example.org/order",
    "type": "object",
    "properties": {
        "customer": {"$ref": "#/$defs/name"},
        "mail": {"$ref": "#mail"},
        "lines": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/li~1ne%25"}},
        "parent": {"$ref": "#"},
    },
    "required": ["customer", "lines"],
    "additionalProperties": False,
    "$defs": {
        "name": {"type": "string", "minLength": 1},
        "mail": {"$anchor": "mail", "type": "string", "pattern": r"^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$"},
        "li/ne%": {"type": "object", "properties": {"count": {"type": "integer", "minimum": 1}}, "required": ["count"]},
    },
}
GOOD = {"customer": "a", "lines": [{"count": 1}]}


def refused(schema: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidInput) as wrong:
        read_payload_schema(schema)
    return [(error.field, error.message) for error in wrong.value.errors]


def fields_refused(schema: Any) -> list[str]:
    return [field for field, _ in refused(schema)]


def wrong_members(schema: Any, payload: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidInput) as wrong:
        read_payload_schema(schema).check(payload)
    return [(error.field, error.message) for error in wrong.value.errors]


def test_a_payload_that_matches_is_taken() -> None:
    schema = read_payload_schema(ORDER)

    schema.check(GOOD)
    schema.check({**GOOD, "mail": "a@example.org", "parent": {**GOOD, "parent": GOOD}})
    assert parse(schema.text) == ORDER


def test_every_wrong_member_is_named_by_its_path_below_task_data() -> None:
    payload = {"mail": "a", "lines": [{"count": 1}, {"count": 0}, {}], "parent": {**GOOD, "customer": 5}, "c.d": 1}

    assert sorted(wrong_members(ORDER, payload)) == [
        ("taskData.c.d", "is no member that payloadSchema knows"),
        ("taskData.customer", "is required"),
        ("taskData.lines.1.count", "is less than the minimum of 1"),
        ("taskData.lines.2.count", "is required"),
        ("taskData.mail", r'does not match "^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$"'),
        ("taskData.parent.customer", 'is not of type "string"'),
    ]
    assert wrong_members(ORDER, "text") == [("taskData", 'is not of type "object"')]


def test_errors_do_not_repeat_the_payload_and_are_few() -> None:
    schema = {"items": {"type": "integer"}, "maxItems": 3}

    errors = wrong_members(schema, ["secret" * 1_000] * 500)

    assert len(errors) == ERRORS_MAX
    assert not any("secret" in message or len(message) > 200 for _, message in errors)


def test_an_error_that_two_references_find_is_named_once() -> None:
    schema = {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}], "$defs": {"a": {"type": "string"}}}

    assert wrong_members(schema, 5) == [("taskData", 'is not of type "string"')]


def test_a_format_is_an_annotation() -> None:
    read_payload_schema({"type": "string", "format": "date-time"}).check("tomorrow")


@pytest.mark.parametrize(
    ("schema", "fields"),
    [
        ([], ["payloadSchema"]),
        (True, ["payloadSchema"]),
        ({"type": "strin", "required": [5]}, ["payloadSchema.required.0", "payloadSchema.type"]),
        ({"properties": {"a": {"minimum": "x"}}}, ["payloadSchema.properties.a.minimum"]),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, ["payloadSchema.$schema"]),
        ({"properties": {"a": {"$id": "x"}}}, ["payloadSchema.properties.a.$id"]),
        ({"properties": {"a": {"dependencies": {}}}}, ["payloadSchema.properties.a.dependencies"]),
        ({"$dynamicRef": "#a"}, ["payloadSchema.$dynamicRef"]),
        ({"description": "x" * SCHEMA_BYTES_MAX}, ["payloadSchema"]),
        ({"anyOf": [{}] * 1_000}, ["payloadSchema"]),
    ],
)
def test_a_schema_that_cannot_be_applied_is_refused_at_its_place(schema: Any, fields: list[str]) -> None:
    assert sorted(fields_refused(schema)) == fields


@pytest.mark.parametrize(
    "reference",
    [
        "https://example.org/order",
        "other.json#/a",
        "#/$defs/none",
        "#/const",
        "#none",
        "#/allOf/7",
        "file:///etc/passwd",
    ],
)
def test_a_reference_leads_to_a_schema_within_the_same_document(reference: str) -> None:
    assert fields_refused({"const": {}, "allOf": [True, {"$ref": reference}]}) == ["payloadSchema.allOf.1.$ref"]


@pytest.mark.parametrize("place", ["#/allOf/0", "#/$defs/a", "#"])
def test_a_reference_may_lead_to_any_schema_of_the_document(place: str) -> None:
    read_payload_schema({"properties": {"x": {"$ref": place}}, "allOf": [True], "$defs": {"a": {}}}).check({"x": {}})


# --- bombs


def doubling(levels: int) -> dict[str, Any]:
    """A schema that applies its innermost part 2^levels times."""
    steps: dict[str, Any] = {
        f"l{level}": {"allOf": [{"$ref": f"#/$defs/l{level + 1}"}, {"$ref": f"#/$defs/l{level + 1}"}]}
        for level in range(levels)
    }
    return {"$ref": "#/$defs/l0", "$defs": {**steps, f"l{levels}": {"type": "integer"}}}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def unevaluated(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for level in range(levels):
        schema = {"allOf": [schema], "properties": {f"p{level}": {}}, "unevaluatedProperties": {"type": "integer"}}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"not": {"$ref": "#"}}}},
        doubling(30),
    ],
)
def test_a_schema_that_applies_to_one_value_for_ever_is_refused(schema: Any) -> None:
    assert len(fields_refused(schema)) == 1


def test_a_schema_that_refers_to_itself_for_the_members_of_a_payload_is_taken() -> None:
    # A tree: each level costs as much as the one above it.
    schema = read_payload_schema({"properties": {"a": {"$ref": "#"}}, "type": ["object", "integer"]})

    schema.check(nested(64))
    with pytest.raises(InvalidInput) as wrong:
        schema.check({"a": {"a": "text"}})
    assert [error.field for error in wrong.value.errors] == ["taskData.a.a"]


@pytest.mark.parametrize(
    ("schema", "payload"),
    [
        # Twice the work with each reference, with each level of the payload, with each pair of siblings.
        (doubling(14), [1] * 1_000),
        ({"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}, nested(30)),
        (unevaluated(15), {"a": 1}),
        # Large times large.
        ({"items": {"enum": list(range(3_000))}}, [1] * 30_000),
        ({"allOf": [{"pattern": f"(a|b)*a(a|b){{500}}c{number}"} for number in range(30)]}, "ab" * 1_000),
    ],
)
def test_work_that_would_take_long_is_refused_before_it_begins(schema: Any, payload: Any) -> None:
    [(field, message)] = wrong_members(schema, payload)

    assert field == "payloadSchema"
    assert "too much work" in message


def test_many_errors_of_a_large_payload_are_not_collected() -> None:
    schema = {"items": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}

    [(field, message)] = wrong_members(schema, ["x"] * 50_000)

    assert (field, "too large" in message) == ("taskData", True)


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "(?=a)b"},
        {"pattern": r"(a)\1"},
        {"pattern": "((a{100}){100}){100}"},
        {"$defs": {"unused": {"patternProperties": {"(?<!a)b": {}}}}},
    ],
)
def test_patterns_without_linear_time_or_bounded_size_are_refused(schema: Any) -> None:
    [(_, message)] = refused(schema)

    assert "linear time" in message


def test_patterns_of_every_day_are_taken_with_large_payloads() -> None:
    read_payload_schema({"pattern": r"^\d{4}-\d{2}-\d{2}T"}).check("2026-11-29T" + "x" * 150_000)
    read_payload_schema({"pattern": "^.{1,200}$"}).check("ä" * 200)
