"""A node as the worlds see it: a name, a loop, a clock, and which of its connections carry anything."""

import asyncio
import random
from collections.abc import Callable

from clockwork.clock import ClockGuard
from clockwork.domain.ownership import process_id
from tests.simulation.clocks import NodeClock
from tests.simulation.virtual_loop import Power, VirtualLoop

Step = Callable[["Host", str, bool], bool]
"""Tells the faults that a node is about to send a request of this kind (False), or had its answer (True). True: a fault
strikes at this very moment."""


class Host:
    """One life of a node, from its start to its death."""

    def __init__(self, name: str, loop: VirtualLoop, clock: NodeClock, rng: random.Random, on_step: Step) -> None:
        self.name = name
        self.loop = loop
        self.clock = clock
        self.rng = rng
        self.guard = ClockGuard(clock, clock.monotonic_s)
        self.process = process_id(rng.getrandbits(64))
        self.alive = True
        self.store_cuts = 0
        """Faults that keep it from DynamoDB at present."""
        self.kafka_cuts = 0
        self.group_cuts = 0
        self._on_step = on_step

    def __str__(self) -> str:
        return self.name

    @property
    def reaches_store(self) -> bool:
        return self.alive and self.store_cuts == 0

    @property
    def reaches_kafka(self) -> bool:
        return self.alive and self.kafka_cuts == 0

    @property
    def reaches_group(self) -> bool:
        return self.reaches_kafka and self.group_cuts == 0

    @property
    def awake(self) -> bool:
        return self.alive and self.loop.power is Power.RUNNING

    async def step(self, operation: str, *, after: bool) -> None:
        """Every request passes here twice. A dead node sends nothing."""
        if not self.alive:
            raise asyncio.CancelledError
        if self._on_step(self, operation, after):
            # Long enough for what strikes to strike first.
            await asyncio.sleep(1e-6)
            if not self.alive:
                raise asyncio.CancelledError
