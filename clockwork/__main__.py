"""`clockwork`, which is `python -m clockwork`: the one command line.

    run (also without a word), init, check, leave    the node
    keys                                             API keys
    schedule, job, calendar, forecast, admin         calls to a running service (`clockwork.cli`)
    completion                                       for shells

A command's libraries are imported when it is called: a node starts without the client's, the client without the node's.
Exit codes are listed in `clockwork.cli`.
"""

import asyncio
import gc
import importlib
import io
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click
from click.shell_completion import get_completion_class

import clockwork as package
from clockwork.cli import EXIT_CODES, NOT_STARTED, early_json, has_early_json
from clockwork.errors import CannotStart, Unavailable

if TYPE_CHECKING:
    from clockwork.settings.model import Settings

COLLECT_EVERY: Final = 10_000
"""Objects made and not yet dropped, after which cycles among them are looked for. Python's 700 is for small programs: a node
that fires or stores a few hundred rows at a time has thousands in use at any moment, and to walk through them over and over
is a tenth to a third of all that it does. Larger still makes the pauses longer."""
ROLES: Final = ("all", "api", "worker")
"""The values of `clockwork.node.readiness.Role`, which is imported only by a node."""
URL_DEFAULT: Final = "http://127.0.0.1:8080"
TIMEOUT_MS_MAX: Final = 86_400_000
_ELSEWHERE: Final = {
    "keys": "clockwork.access.keys_command:keys",
    "schedule": "clockwork.cli.schedule:schedule",
    "job": "clockwork.cli.job:job",
    "calendar": "clockwork.cli.calendar:calendar",
    "clients": "clockwork.cli.activity:clients_command",
    "events": "clockwork.cli.activity:events_command",
    "forecast": "clockwork.cli.forecast:forecast_command",
    "minutes": "clockwork.cli.activity:minutes_command",
    "admin": "clockwork.cli.admin:admin",
}
"""Commands, and groups of them, that are imported when they are called, or listed."""
_CALLS_A_SERVICE: Final = frozenset(
    {"schedule", "job", "calendar", "clients", "events", "forecast", "minutes", "admin"}
)
_ORDER: Final = ("run", "init", "check", "leave", *_ELSEWHERE, "completion")


class _WrongUsage(click.ClickException):
    """A wrong command line, in one line as all other refusals are."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"clockwork: {' '.join(self.format_message().split())}", file=file, err=True)


@contextmanager
def _usage_in_one_line() -> Iterator[None]:
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise  # a group without a command: it shows its help
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else "clockwork"
        said = _unknown_command(error) if isinstance(error, click.NoSuchCommand) else error.format_message()
        raise _WrongUsage(f"{said} (see {path} --help)") from error


def _unknown_command(error: click.NoSuchCommand) -> str:
    """The error, with the commands that have this name, or else one like it: of its group, or else of any."""
    if error.ctx is None:
        return error.message
    root = error.ctx.find_root()
    places = list(_places(root.command, root))
    names = {name for _, name in places}
    alike = [error.command_name] if error.command_name in names else get_close_matches(error.command_name, names)
    meant = [(path, name) for path, name in places if name in alike]
    own = [(path, name) for path, name in meant if path == error.ctx.command_path]
    found = " or ".join(f"`{path} {name}`" for path, name in own or meant)
    return f"{error.message} Did you mean {found}?" if found else error.message


def _places(group: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """Path of its group, and name, of each command below a group."""
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(context):
        yield context.command_path, name
        command = group.get_command(context, name)
        if command is not None:
            yield from _places(command, click.Context(command, parent=context, info_name=name))


class _Root(click.Group):
    """Imports groups on demand, and runs a node if the arguments name no command."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        # Output that the terminal cannot show must not end a command whose request has had its effect.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        with _usage_in_one_line():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _usage_in_one_line():
            return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {name for param in self.get_params(ctx) for name in param.opts}
        if not args or (args[0].startswith("-") and args[0].partition("=")[0] not in own):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_ORDER)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, _, name = _ELSEWHERE[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=_Root,
    params=[early_json()],
    epilog="\b\nExamples:\n"
    "  clockwork run --role worker\n"
    "  clockwork schedule create shop order-1 --topic orderTopic --in 15m --data '{\"a\":1}'\n"
    "  clockwork schedule list shop --status pending\n"
    "  clockwork completion bash > ~/.local/share/bash-completion/completions/clockwork\n\n" + EXIT_CODES,
)
@click.version_option(package.__version__, prog_name="clockwork")
@click.option("--url", envvar="CLOCKWORK_URL", default=URL_DEFAULT, show_default=True, help="Address of the service.")
@click.option(
    "--api-key-file",
    type=click.File("rb"),
    help="File with the API key; by default the key is taken from CLOCKWORK_API_KEY. The key itself is no option: other "
    "users of the machine see a command's options.",
)
@click.option(
    "--timeout-ms",
    type=click.IntRange(min=1, max=TIMEOUT_MS_MAX),
    default=30_000,
    show_default=True,
    help="How long a call may take, retries included.",
)
@click.pass_context
def clockwork(ctx: click.Context, url: str, api_key_file: IO[bytes] | None, timeout_ms: int) -> None:
    """Schedules payloads for Kafka topics, and runs the nodes that deliver them.

    Without a command it runs a node, as `clockwork run` does. --url, --api-key-file and --timeout-ms are for the commands
    that call a service: schedule, job, calendar, forecast and admin.
    """
    if has_early_json(ctx) and ctx.invoked_subcommand not in _CALLS_A_SERVICE:
        raise click.UsageError(f"{ctx.invoked_subcommand} takes no --json")
    if ctx.invoked_subcommand in _CALLS_A_SERVICE:
        from clockwork.cli.connection import Connection

        ctx.obj = Connection.of_options(url, api_key_file, os.environ.get("CLOCKWORK_API_KEY"), timeout_ms)


_processes = click.option(
    "--processes", metavar="N", help="Processes of the node, on one port. By default CLOCKWORK_PROCESSES."
)


def _sibling(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[int, Path] | None:
    """Reads `NUMBER:FOLDER`: the number of this process within its node, and the folder with the processes' sockets."""
    if text is None:
        return None
    number, _, folder = text.partition(":")
    if not (number.isascii() and number.isdigit() and folder):
        raise click.BadParameter("should be NUMBER:FOLDER")
    return int(number), Path(folder)


@clockwork.command(
    epilog="\b\nExamples:\n  clockwork run\n  clockwork run --role worker --processes 4\n\n" + NOT_STARTED
)
@click.option("--role", type=click.Choice(ROLES), default="all", show_default=True, help="What the node does.")
@_processes
@click.option("--sibling", hidden=True, callback=_sibling)
@click.pass_context
def run(ctx: click.Context, role: str, processes: str | None, sibling: tuple[int, Path] | None) -> None:
    """Run a node until SIGTERM, which drains it.

    The role `api` accepts requests, `worker` delivers, `all` does both. Settings come from the environment and from the
    file that CLOCKWORK_CONFIG names.
    """
    from clockwork.node.app import run_node
    from clockwork.node.processes import Processes
    from clockwork.node.readiness import Role
    from clockwork.node.siblings import Sibling

    async def work(settings: "Settings", environ: Mapping[str, str]) -> int | None:
        count = settings.processes.count
        if sibling is None and count > 1:
            return await Processes(settings, ["run", "--role", role], environ).run()
        collect_rarely()
        if sibling is None:
            await run_node(settings, Role(role))
        else:
            number, folder = sibling
            await run_node(settings, Role(role), Sibling(number=number, count=count, folder=folder))
        return None

    ctx.exit(_with_settings(work, processes=processes, sibling=None if sibling is None else sibling[0]))


@clockwork.command(epilog=NOT_STARTED)
@click.pass_context
def init(ctx: click.Context) -> None:
    """Make the tables and topics that are missing, then check all of them."""
    from clockwork.node.resources import init_resources

    ctx.exit(_with_settings(lambda settings, _: init_resources(settings)))


@clockwork.command(epilog=NOT_STARTED)
@click.pass_context
def check(ctx: click.Context) -> None:
    """Check Kafka's version, tables, topics and rights, as every start of a node does. Changes nothing."""
    from clockwork.node.resources import check_resources

    ctx.exit(_with_settings(lambda settings, _: check_resources(settings)))


@clockwork.command(epilog=NOT_STARTED)
@_processes
@click.pass_context
def leave(ctx: click.Context, processes: str | None) -> None:
    """Give the shards of a stopped node to others at once.

    For a node with a CLOCKWORK_INSTANCE_ID that will not come back: its group waits for it until its session ends.
    """
    from clockwork.node.resources import leave_for_good

    ctx.exit(_with_settings(lambda settings, _: leave_for_good(settings), processes=processes))


def _with_settings(
    work: "Callable[[Settings, Mapping[str, str]], Awaitable[int | None]]",
    *,
    processes: str | None = None,
    sibling: int | None = None,
) -> int:
    """Reads the settings, sets up the log and does the work. Returns the exit code."""
    from clockwork.observability.logs import configure_logging
    from clockwork.settings.sources import load_settings

    environ = {**os.environ} | ({} if processes is None else {"CLOCKWORK_PROCESSES": processes})
    code: int | None = 0
    try:
        settings = load_settings(environ)
        handler = configure_logging(settings.log.format, settings.log.level)
        if sibling is not None:
            handler.addFilter(_ProcessNumber(sibling))

        async def within_a_loop() -> int | None:
            return await work(settings, environ)

        code = asyncio.run(within_a_loop())
    except* (CannotStart, Unavailable) as refused:
        for line in [line for error in leaves(refused) for line in str(error).splitlines()]:
            click.echo(f"clockwork: {line}", err=True)
        code = 2
    return code or 0


def collect_rarely() -> None:
    """Freezes the objects that exist at a node's start, so that no collection walks through them again, and collects new
    ones rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY, *gc.get_threshold()[1:])


class _ProcessNumber(logging.Filter):
    """Adds the number of the process within its node to each log line."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def filter(self, record: logging.LogRecord) -> bool:
        record.sibling = self._number
        return True


def leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    """Flattens nested groups to the errors in them."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


@clockwork.command(epilog="\b\nExample:\n  clockwork completion fish > ~/.config/fish/completions/clockwork.fish")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands and options in SHELL."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(kind(clockwork, {}, "clockwork", "_CLOCKWORK_COMPLETE").source())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    try:
        clockwork.main(arguments, prog_name="clockwork")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    raise AssertionError("click ends every command with its code")


if __name__ == "__main__":
    sys.exit(main())
