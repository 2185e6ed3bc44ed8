"""The types that the dashboard's modules are checked with are those of the API, and of the packages that are vendored."""

import json
from typing import Any

import pytest

from infra.ui.types import FILE, text, type_of
from infra.ui.vendor import FOLDERS, packages_of


def test_the_types_that_are_checked_in_are_those_of_the_api() -> None:
    assert FILE.read_text(encoding="utf-8") == text(), "run: python -m infra.ui.types"


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"$ref": "#/components/schemas/RunDocument", "description": "The last."}, "RunDocument"),
        ({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "number"}, {"type": "null"}]}, "number | null"),
        ({"type": "array", "items": {"enum": ["a", "b"], "type": "string"}}, '("a" | "b")[]'),
        ({"type": "array", "items": {"type": "array", "items": {"type": "string"}}}, "string[][]"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "Record<string, string>"),
        ({"type": "object"}, "Record<string, unknown>"),
        (
            {"type": "object", "properties": {"a": {"const": 0}, "b": {"type": "boolean"}}, "required": ["b"]},
            "{ a?: 0; b: boolean; }",
        ),
        ({"type": "integer", "format": "int64", "minimum": 0}, "number | bigint"),
        ({"description": "Any JSON value."}, "unknown"),
    ],
)
def test_a_schema_is_written_as_a_type(schema: dict[str, Any], kind: str) -> None:
    assert type_of(schema) == kind


def test_a_kind_of_schema_that_is_new_is_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="prefixItems"):
        type_of({"prefixItems": [{"type": "string"}]})


def test_the_declarations_are_those_of_the_versions_that_are_vendored() -> None:
    wanted = json.loads(FILE.with_name("package.json").read_text())["devDependencies"]
    vendored = {each.name: each.version for each in packages_of(FOLDERS[0])}
    assert {name: version for name, version in wanted.items() if name in vendored} == vendored


def test_every_package_of_the_check_is_pinned_with_its_integrity() -> None:
    locked = json.loads(FILE.with_name("package-lock.json").read_text())["packages"]
    assert (
        locked.pop("")["devDependencies"] == json.loads(FILE.with_name("package.json").read_text())["devDependencies"]
    )
    assert all(each["integrity"].startswith("sha512-") for each in locked.values())
