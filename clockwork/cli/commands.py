"""The commands, by click: a well-kept library with completion and error messages; typer would add a layer over it."""

import os
import runpy
import sys
from typing import IO, Final

import click
from click.shell_completion import get_completion_class

import clockwork as package
from clockwork.cli.admin import admin
from clockwork.cli.connection import Connection
from clockwork.cli.outcomes import HELP
from clockwork.cli.schedule import schedule
from clockwork.client import Retries

URL_DEFAULT: Final = "http://127.0.0.1:8080"
_PASSED_ON: Final = {"ignore_unknown_options": True, "help_option_names": []}


@click.group(
    epilog="\b\nExamples:\n"
    "  clockwork schedule create shop order-1 --topic orderTopic --in 15m --data '{\"a\":1}'\n"
    "  clockwork schedule list shop --status pending\n"
    "  clockwork completion bash > ~/.local/share/bash-completion/completions/clockwork\n\n" + HELP
)
@click.version_option(package.__version__, prog_name="clockwork")
@click.option("--url", envvar="CLOCKWORK_URL", default=URL_DEFAULT, show_default=True, help="Of the service.")
@click.option(
    "--api-key-file",
    type=click.File("r", encoding="utf-8"),
    help="Holds the API key; else it is taken from CLOCKWORK_API_KEY. There is no option for the key itself: others on "
    "the machine see a command's options.",
)
@click.option("--timeout-ms", type=click.IntRange(min=1), default=30_000, show_default=True, help="Retries included.")
@click.pass_context
def clockwork(ctx: click.Context, url: str, api_key_file: IO[str] | None, timeout_ms: int) -> None:
    """Schedules payloads for Kafka topics, and runs the nodes that deliver them."""
    api_key = os.environ.get("CLOCKWORK_API_KEY", "") if api_key_file is None else api_key_file.read()
    ctx.obj = Connection(url, api_key.strip() or None, Retries(total_ms=timeout_ms))


def _node_command(name: str, about: str) -> click.Command:
    @click.command(name, context_settings=_PASSED_ON, help=about, short_help=about)
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> None:
        # By name and not by import: the node's libraries are opened for this command alone.
        sys.argv = ["clockwork", name, *arguments]
        runpy.run_module("clockwork", run_name="__main__", alter_sys=True)

    return command


for _name, _about in (
    ("run", "Run a node; the same as `python -m clockwork`."),
    ("init", "Make tables and topics."),
    ("check", "Verify tables and topics."),
    ("leave", "Say that a stopped node with an instance id will not come back."),
):
    clockwork.add_command(_node_command(_name, _about))


@clockwork.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands and options in SHELL."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(kind(clockwork, {}, "clockwork", "_CLOCKWORK_COMPLETE").source())


clockwork.add_command(schedule)
clockwork.add_command(admin)
