"""The worth of uvloop: creates, drain and lateness, on asyncio's loop and on uvloop, in one run."""

from typing import Final

from tests.benchmarks import creates, drains, lateness
from tests.benchmarks.world import Bench

LOOPS: Final = {"": "clockwork", " (uvloop)": "tests.benchmarks.uvloop_node"}


async def compared(bench: Bench) -> None:
    for measure in (creates.on_a_stub, drains.on_a_stub, lateness.at_rates):
        for name, module in LOOPS.items():
            await measure(bench, module=module, name=name)
