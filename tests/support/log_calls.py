"""Every line that the service can log, read from its source."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).parents[2] / "clockwork"
LEVELS: Final = {"debug", "info", "warning", "error", "exception", "critical", "log"}
CONTROL: Final = frozenset({"event", "once_per"})
"""Not shown as fields."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True, slots=True)
class LogCall:
    """One call, and what its line has."""

    where: str
    level: str
    """`varies` if it is chosen when the line is written."""
    message: str | None
    event: str | None
    """None: it has none, or none that is known from the source."""
    fields: frozenset[str]


def log_calls() -> list[LogCall]:
    """All of them, in the order of files and lines."""
    return [call for path in sorted(SOURCE.rglob("*.py")) for call in _of_file(path)]


def _of_file(path: Path) -> Iterator[LogCall]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for function in [node for node in ast.walk(tree) if isinstance(node, Function)]:
        for call in _own_calls(function):
            if isinstance(call.func, ast.Attribute) and call.func.attr in LEVELS and _is_logger(call.func.value):
                yield from _lines(f"{path.relative_to(SOURCE.parent)}:{call.lineno}", tree, function, call)


def _own_calls(function: Function) -> Iterator[ast.Call]:
    """Those of the function, without those of functions in it."""
    waiting: list[ast.AST] = [*function.body]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, Function):
            continue
        if isinstance(node, ast.Call):
            yield node
        waiting.extend(ast.iter_child_nodes(node))


def _is_logger(value: ast.expr) -> bool:
    return "log" in ast.unparse(value).lower().split(".")[-1]


def _lines(where: str, tree: ast.Module, function: Function, call: ast.Call) -> Iterator[LogCall]:
    assert isinstance(call.func, ast.Attribute)
    method = call.func.attr
    level = {"exception": "error", "log": "varies"}.get(method, method)
    message = call.args[1 if method == "log" else 0] if len(call.args) > (method == "log") else None
    extra = next((keyword.value for keyword in call.keywords if keyword.arg == "extra"), None)
    entries = _entries(tree, function, extra)
    event = entries.pop("event", None)
    fields = frozenset(entries) - CONTROL
    for said, named in _as_called(tree, function, message, event):
        yield LogCall(where=where, level=level, message=said, event=named, fields=fields)


def _entries(tree: ast.Module, function: Function, extra: ast.expr | None) -> dict[str, ast.expr]:
    """The dictionary's entries: written out, by the name of one, joined of such, or made by a function of the module."""
    match extra:
        case ast.Dict():
            found: dict[str, ast.expr] = {}
            for key, value in zip(extra.keys, extra.values, strict=True):
                if key is None:
                    found |= _entries(tree, function, value)
                elif isinstance(key, ast.Constant):
                    found[str(key.value)] = value
            return found
        case ast.BinOp(left, ast.BitOr(), right):
            return _entries(tree, function, left) | _entries(tree, function, right)
        case ast.Call(ast.Name(name)):
            return _made_by(tree, name, extra)
        case ast.Name(name):
            return _entries(tree, function, _assigned(function, name))
    return {}


def _made_by(tree: ast.Module, name: str, call: ast.Call) -> dict[str, ast.expr]:
    makers = [node for node in ast.walk(tree) if isinstance(node, Function) and node.name == name]
    dicts = [node for maker in makers for node in ast.walk(maker) if isinstance(node, ast.Dict)]
    entries = {key: value for each in dicts for key, value in _entries(tree, makers[0], each).items()}
    given = dict(zip([argument.arg for argument in makers[0].args.args], call.args, strict=False)) if makers else {}
    return {key: given.get(ast.unparse(value), value) for key, value in entries.items()}


def _assigned(function: Function, name: str) -> ast.expr | None:
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
            return node.value
    return None


def _as_called(
    tree: ast.Module, function: Function, message: ast.expr | None, event: ast.expr | None
) -> Iterator[tuple[str | None, str | None]]:
    """Message and event; of a function that gets both as arguments, those of each of its calls."""
    names = [argument.arg for argument in function.args.args if argument.arg != "self"]
    if isinstance(event, ast.Name) and event.id in names:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == function.name:
                given = dict(zip(names, node.args, strict=False))
                yield (
                    _text(function, given.get(ast.unparse(message)) if message else None),
                    _text(function, given.get(event.id)),
                )
        return
    yield _text(function, message), _text(function, event)


def _text(function: Function, value: ast.expr | None) -> str | None:
    if isinstance(value, ast.Name):
        value = _assigned(function, value.id)
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None
