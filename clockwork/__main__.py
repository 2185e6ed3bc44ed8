"""`python -m clockwork`: a node; `init` makes tables and topics, `check` verifies them; `leave` says, for a node with an
instance id that was stopped, that it will not come back.

Exit codes: 0 done, 2 refused (one line on standard error says what to change), 1 anything else.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

from clockwork.adapters.telemetry import configure_logging
from clockwork.app import Role, check_resources, init_resources, leave_for_good, run_node
from clockwork.config import load_settings
from clockwork.errors import StartRefused, Unavailable


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m clockwork",
        description="Delivers payloads to Kafka topics at their time. Settings come from the environment (see README).",
    )
    parser.add_argument("command", nargs="?", choices=["run", "init", "check", "leave"], default="run")
    parser.add_argument("--role", choices=[role.value for role in Role], default=Role.ALL.value, help="default: all")
    chosen = parser.parse_args(arguments)
    try:
        settings = load_settings(os.environ)
        configure_logging(settings.log.format, settings.log.level)
        match chosen.command:
            case "init":
                work: Coroutine[Any, Any, None] = init_resources(settings)
            case "check":
                work = check_resources(settings)
            case "leave":
                work = leave_for_good(settings)
            case _:
                work = run_node(settings, Role(chosen.role))
        asyncio.run(work)
    except* (StartRefused, Unavailable) as refused:
        for error in leaves(refused):
            print(f"clockwork: {error}", file=sys.stderr)  # noqa: T201
        return_code = 2
    else:
        return_code = 0
    return return_code


def leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    """The errors in a group of groups."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


if __name__ == "__main__":
    sys.exit(main())
