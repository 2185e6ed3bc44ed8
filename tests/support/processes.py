"""The end of a process that a test or a benchmark has started."""

import asyncio
import contextlib


async def wait_or_kill(process: asyncio.subprocess.Process, *, within_s: float) -> None:
    """Waits until the process has ended by itself; kills it once this time is over."""
    try:
        async with asyncio.timeout(within_s):
            await process.wait()
    except TimeoutError:
        await kill(process)


async def kill(process: asyncio.subprocess.Process) -> None:
    """Kills the process, if it still runs, and waits until it has ended."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
