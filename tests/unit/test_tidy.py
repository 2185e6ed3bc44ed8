"""Rules of form that no linter has: names of tests, tasks, packages."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
FILES: Final = sorted(path for folder in ("clockwork", "infra", "tests") for path in (ROOT / folder).rglob("*.py"))

PROSE: Final = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "infra/**/*.md", "infra/**/*.yaml", "infra/**/*.sql")
    for path in ROOT.glob(pattern)
)
TEST_NAME_WORDS_MIN: Final = 4

HIDDEN_SUBJECT: Final = re.compile(r"(?<!`)\b(?:whoever|whosoever|somebody|nobody|anybody)\b", re.I)
HIDDEN_NOUN: Final = re.compile(r'^ *"""(?:Of|What|Whom|Whose|Which|How|Until|Where|When|Whether) [a-z]')
"""The beginning of a docstring that leaves out what it is about."""
OWNED_TASKS: Final = {"clockwork/kafka/commands.py"}
"""Files whose class keeps its tasks and ends them itself: a commit must outlive the cancellation of its caller, which a task
group would pass on to it."""

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def test_every_test_is_named_as_a_sentence() -> None:
    names = [
        f"{_name(path)}:{name}"
        for path in FILES
        if path.is_relative_to(ROOT / "tests")
        for name, _ in _functions(_tree(path))
        if (last := name.rpartition(".")[2]).startswith("test_")
        and len(last.removeprefix("test_").split("_")) < TEST_NAME_WORDS_MIN
    ]

    assert names == []


def test_no_sentence_hides_its_subject() -> None:
    # docs/glossary.md: the field's terms, subject first. A docstring begins with its noun or its verb.
    riddles = [
        f"{_name(path)}:{number}: {sentence}" for path in FILES for number, sentence in _sentences(path, HIDDEN_SUBJECT)
    ]
    riddles += [
        f"{_name(path)}:{number}: {line}"
        for rule, paths in ((HIDDEN_NOUN, FILES), (HIDDEN_SUBJECT, PROSE))
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if rule.search(line)
    ]

    assert riddles == []


def test_no_task_is_started_outside_a_task_group() -> None:
    # The linter bans asyncio.create_task by its name; a loop's own method has no name that it could ban.
    loose = [
        f"{_name(path)}:{node.lineno}"
        for path in FILES
        if not path.is_relative_to(ROOT / "tests") and _name(path) not in OWNED_TASKS
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Attribute) and node.attr == "create_task" and "loop" in ast.unparse(node.value)
    ]

    assert loose == []


@pytest.mark.parametrize("folder", ["clockwork", "infra", "tests"])
def test_every_folder_with_code_is_a_package(folder: str) -> None:
    # Without its __init__.py a folder of tests cannot hold a module name that another one has.
    folders = {path.parent for path in FILES if path.is_relative_to(ROOT / folder)}

    assert [_name(path) for path in sorted(folders) if not (path / "__init__.py").exists()] == []


def _sentences(path: Path, wanted: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Line and text of each comment and docstring that has what is wanted; names and values may have it."""
    text = path.read_text(encoding="utf-8")
    if not wanted.search(text):
        return  # to read tokens is slow, and few files have it
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and wanted.search(token.string):
            yield token.start[0], token.string
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and wanted.search(str(node.value.value)):
            yield node.lineno, str(node.value.value)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, FunctionNode]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FunctionNode):
            yield prefix + child.name, child
            yield from _functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        else:
            yield from _functions(child, prefix)
