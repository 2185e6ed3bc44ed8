"""Runs commands of the repository to their end: as processes, or in this one."""

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from click.testing import CliRunner, Result

from clockwork import __main__
from infra.local.node import OURS, REPOSITORY
from tests.support.nodes import ClusterNode
from tests.support.processes import kill

COMMAND_S_MAX: Final = 150.0


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandExit:
    """The end of a command."""

    code: int | None
    stdout: str
    stderr: str


async def run_module(module: str, *arguments: str, settings: Mapping[str, str] | None = None) -> CommandExit:
    """Runs `python -m …` with these settings of a node and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
        env={**inherited, **(settings or {})},
    )
    try:
        async with asyncio.timeout(COMMAND_S_MAX):
            stdout, stderr = await process.communicate()
    finally:
        await kill(process)
    return CommandExit(code=process.returncode, stdout=stdout.decode(), stderr=stderr.decode())


async def clockwork(*arguments: str, settings: Mapping[str, str] | None = None) -> CommandExit:
    """Runs `python -m clockwork …`."""
    return await run_module("clockwork", *arguments, settings=settings)


async def admin(node: ClusterNode, *arguments: str) -> str:
    """Runs `clockwork admin …` against a node; returns what it printed."""
    return (await admin_result(node, *arguments)).stdout


async def admin_result(node: ClusterNode, *arguments: str) -> Result:
    """The same in this process, in a thread: the start of Python costs more than the command. `test_cli.py` starts it."""
    given = ["--url", node.client.url, "admin", *arguments]
    result = await asyncio.to_thread(lambda: CliRunner().invoke(__main__.clockwork, given))
    assert result.exit_code == 0, result.output
    return result
