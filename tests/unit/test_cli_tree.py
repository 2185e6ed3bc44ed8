"""The command line as a whole: every command is listed, help starts nothing, libraries are imported where needed."""

import asyncio
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import click
import pytest
from click.testing import CliRunner

from clockwork import __main__
from clockwork.__main__ import ROLES, clockwork, main
from clockwork.node.readiness import Role

ROOT = Path(__file__).parents[2]
STARTED_BY_PROGRAMS = {
    "infra/local/keeper.py": "the keeper of a service, which its arguments name",
    "tests/chaos/skewed_node.py": "a node with the arguments of `clockwork`",
    "tests/benchmarks/uvloop_node.py": "a node with the arguments of `clockwork`, on a library that is not installed",
}
"""Modules that are no command line for people."""


def commands(command: click.Command, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """The command and all below it, each with its words."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, *path, name)


TREE = dict(commands(clockwork))


def test_the_tree_has_every_command() -> None:
    groups: dict[str, list[str]] = {
        **{"": [], "keys": [], "schedule": [], "job": [], "calendar": []},
        **{"admin": [], "admin dead-letters": []},
    }
    for path in TREE:
        if path and not isinstance(TREE[path], click.Group):
            groups[" ".join(path[:-1])].append(path[-1])
    assert groups == {
        "": ["run", "init", "check", "leave", "clients", "events", "forecast", "minutes", "completion"],
        "keys": ["new"],
        "schedule": [
            *(
                "cancel",
                "create",
                "fire",
                "get",
                "history",
                "list",
                "load",
                "reschedule",
                "retry",
                "upcoming",
                "watch",
                "why",
            )
        ],
        "job": [
            *(
                "apply",
                "backfill",
                "complete",
                "create",
                "delete",
                "list",
                "logs",
                "pause",
                "preview",
                "restore",
                "resume",
            ),
            *("run", "show", "versions"),
        ],
        "calendar": ["delete", "list", "put", "show"],
        "admin": ["export", "fence", "import", "nodes", "pause", "pauses", "resume", "shards"],
        "admin dead-letters": ["discard", "list", "retry", "show"],
    }


@pytest.mark.parametrize("path", list(TREE), ids=" ".join)
def test_help_lists_everything_and_starts_nothing(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("help has started something")

    command = TREE[path]
    if not isinstance(command, click.Group):
        monkeypatch.setattr(command, "callback", started)
    monkeypatch.setattr(__main__, "_with_settings", started)
    result = CliRunner().invoke(clockwork, [*path, "--help"], env={"COLUMNS": "200", "CLOCKWORK_SHARDS": "wrong"})
    assert (result.exit_code, result.exception) == (0, None)
    words = result.output.split()
    for param in command.get_params(click.Context(command)):
        if not getattr(param, "hidden", False):
            names = param.opts if isinstance(param, click.Option) else [param.make_metavar(click.Context(command))]
            assert any(name in result.output for name in names)
    if isinstance(command, click.Group):
        assert set(command.list_commands(click.Context(command))) <= set(words)
    assert command.help


@pytest.mark.parametrize("words", [["schedule"], ["job"], ["calendar"], ["admin"], ["admin", "dead-letters"], ["keys"]])
def test_a_group_without_a_command_shows_its_help(words: list[str]) -> None:
    result = CliRunner().invoke(clockwork, words)
    assert "Commands:" in result.output


def _modules() -> Iterator[str]:
    """Everything that `python -m` runs."""
    for folder in ("clockwork", "infra", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name not in STARTED_BY_PROGRAMS and '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8"):
                yield name.removesuffix(".py").removesuffix("/__main__").replace("/", ".")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("module", list(_modules()))
def test_help_of_every_module_starts_nothing(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def started(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("help has started something")

    for owner, name in ((asyncio, "run"), (subprocess, "Popen"), (Path, "write_text"), (Path, "mkdir")):
        monkeypatch.setattr(owner, name, started)
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(module, run_name="__main__", alter_sys=False)
    assert end.value.code == 0
    assert "usage: " in capsys.readouterr().out.lower()


def test_the_roles_are_those_of_a_node() -> None:
    assert list(ROLES) == [role.value for role in Role]


@pytest.mark.parametrize("arguments", [[], ["--role", "api"], ["run", "--role", "api"], ["--processes=2"]])
def test_without_a_command_a_node_runs(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(__main__.run, "callback", lambda **given: asked.append(given))
    assert main(arguments) == 0
    (given,) = asked
    assert given["role"] == ("api" if "api" in arguments else "all")
    assert given["processes"] == ("2" if "--processes=2" in arguments else None)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "--role", "none"], "--role"),
        (["--role", "none"], "--role"),
        (["nothing"], "nothing"),
        (["--sibling", "x"], "--sibling"),
        (["schedule", "get", "shop"], "SCHEDULE_KEY"),
        (["keys", "new", "--client", "c"], "--name"),
        (["--timeout-ms", "1" * 400, "schedule", "get", "c", "k"], "--timeout-ms"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_2(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("clockwork: ")
    assert named in line


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["upcoming"], ["clockwork schedule upcoming"]),
        (["forcast"], ["clockwork forecast"]),
        (["schedule", "nodes"], ["clockwork admin nodes"]),
        (["calendar", "lst"], ["clockwork calendar list"]),
        (["logs"], ["clockwork job logs"]),
        (["show"], ["clockwork job show", "clockwork calendar show", "clockwork admin dead-letters show"]),
        (["schedule", "xyz"], []),
    ],
    ids=" ".join,
)
def test_a_command_that_does_not_exist_names_those_that_may_be_meant(
    words: list[str], meant: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.split("`")[1::2] == meant


@pytest.mark.parametrize(
    "words", [["--json", "schedule", "watch", "shop"], ["schedule", "--json", "watch", "shop"], ["--json", "init"]]
)
def test_a_command_without_json_refuses_it_before_its_name_too(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert f"clockwork: {'init' if 'init' in words else 'watch'} takes no --json" in capsys.readouterr().err


def test_settings_that_are_refused_are_a_line_each_and_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLOCKWORK_SHARDS", "many")
    for command in ("run", "init", "check", "leave"):
        assert main([command]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "CLOCKWORK_SHARDS" in line


def _imported_by(statement: str) -> set[str]:
    script = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_client_and_its_commands_import_none_of_the_nodes_libraries() -> None:
    commands = "clockwork.cli.schedule, clockwork.cli.job, clockwork.cli.calendar, clockwork.cli.admin"
    modules = _imported_by(f"import clockwork.client, clockwork.__main__, {commands}")
    assert {each.partition(".")[0] for each in modules}.isdisjoint(
        {"aiokafka", "aiobotocore", "botocore", "prometheus_client"}
    )
    assert not [
        each for each in modules if each.startswith(("clockwork.node", "clockwork.firing", "clockwork.settings"))
    ]


def test_a_node_imports_none_of_the_clients_libraries() -> None:
    modules = _imported_by("import clockwork.__main__, clockwork.node.app, clockwork.node.resources")
    assert "rich" not in modules
    assert not [each for each in modules if each.startswith(("clockwork.client", "clockwork.cli."))]
