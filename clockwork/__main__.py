"""`python -m clockwork`: a node; `init` makes tables and topics, `check` does what every start does first, and no more:
Kafka's version, tables, topics and rights; `leave` says, for a node with an instance id that was stopped, that it will
not come back; `keys new` makes an API key.

Exit codes: 0 done, 2 refused (one line on standard error says what to change), 1 anything else.
"""

import argparse
import asyncio
import gc
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from clockwork.access import keys_command
from clockwork.errors import CannotStart, Unavailable
from clockwork.http.siblings import Sibling
from clockwork.node.app import Role, run_node
from clockwork.node.processes import Processes
from clockwork.node.resources import check_resources, init_resources, leave_for_good
from clockwork.observability.logs import configure_logging
from clockwork.settings.model import Settings
from clockwork.settings.sources import load_settings

COLLECT_EVERY: Final = 10_000
"""Objects made and not yet dropped, after which cycles among them are looked for. Python's 700 is for small programs: a node
that fires or stores a few hundred rows at a time has thousands in use at any moment, and to walk through them over and over
is a tenth to a third of all that it does. Larger still makes the pauses longer."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m clockwork",
        description="Delivers payloads to Kafka topics at their time. Settings come from the environment (see README).",
    )
    parser.add_argument("command", nargs="?", choices=["run", "init", "check", "leave"], default="run")
    parser.add_argument("--role", choices=[role.value for role in Role], default=Role.ALL.value, help="default: all")
    parser.add_argument("--processes", metavar="N", help="of this node, on one port (CLOCKWORK_PROCESSES)")
    parser.add_argument("--sibling", type=_sibling, help=argparse.SUPPRESS)
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["keys"]:
        return keys_command.main(given[1:])
    chosen = parser.parse_args(given)
    environ = {**os.environ} | ({"CLOCKWORK_PROCESSES": chosen.processes} if chosen.processes is not None else {})
    return_code: int | None = 0
    try:
        settings = load_settings(environ)
        handler = configure_logging(settings.log.format, settings.log.level)
        if chosen.sibling is not None:
            handler.addFilter(_Numbered(chosen.sibling[0]))
        return_code = asyncio.run(_work(chosen, settings, environ))
    except* (CannotStart, Unavailable) as refused:
        for line in [line for error in leaves(refused) for line in str(error).splitlines()]:
            print(f"clockwork: {line}", file=sys.stderr)  # noqa: T201
        return_code = 2
    return return_code or 0


async def _work(chosen: argparse.Namespace, settings: Settings, environ: Mapping[str, str]) -> int | None:
    role, count = Role(chosen.role), settings.processes.count
    match chosen.command:
        case "init":
            await init_resources(settings)
        case "check":
            await check_resources(settings)
        case "leave":
            await leave_for_good(settings)
        case _ if chosen.sibling is not None:
            collect_rarely()
            number, folder = chosen.sibling
            await run_node(settings, role, Sibling(number=number, count=count, folder=folder))
        case _ if count > 1:
            return await Processes(settings, ["--role", role.value], environ).run()
        case _:
            collect_rarely()
            await run_node(settings, role)
    return None


def collect_rarely() -> None:
    """What is there at a node's start is there to stay, so it is never walked through again; new objects, rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY, *gc.get_threshold()[1:])


def _sibling(text: str) -> tuple[int, Path]:
    """What `clockwork.node.processes` tells each of them: its number, and where the sockets are."""
    number, _, folder = text.partition(":")
    return int(number), Path(folder)


class _Numbered(logging.Filter):
    """Says in each line which process of the node it comes from."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def filter(self, record: logging.LogRecord) -> bool:
        record.sibling = self._number
        return True


def leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    """The errors in a group of groups."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


if __name__ == "__main__":
    sys.exit(main())
