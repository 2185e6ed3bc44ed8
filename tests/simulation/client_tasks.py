"""Clients as tasks on an event loop of their own, and what each of them does to ask a node."""

import asyncio
import random
from typing import Final

from tests.simulation.cluster import Cluster
from tests.simulation.node import Call, JobCall
from tests.simulation.virtual_loop import new_loop

PATIENCE_S: Final = 4.0
"""After which a client takes a request for lost."""


class NoAnswer(Exception):
    """No answer in time, or "unavailable": the request may have been carried out, or may be later."""


class ClientTasks:
    """The tasks of some clients. An error of one is a fault of the harness, and reported as a violation."""

    def __init__(self, cluster: Cluster, name: str, rng: random.Random) -> None:
        """`rng`: draws the node that is asked."""
        self.loop = new_loop(cluster.reactor, name, lambda text: cluster.trace.violation("harness", text))
        self._cluster = cluster
        self._rng = rng
        self._running = 0

    @property
    def done(self) -> bool:
        return self._running == 0

    def spawn(self, coro: object) -> None:
        """Starts a task."""
        self._running += 1
        task = self.loop.create_task(coro)  # type: ignore[arg-type]
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[object]") -> None:
        self._running -= 1
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async def ask(self, call: Call | JobCall) -> object:
        """The answer of some node, which may be an exception. Raises: NoAnswer: none in time."""
        answered: asyncio.Future[object] = self.loop.create_future()

        def reply(result: object) -> None:
            if not answered.done():
                answered.set_result(result)

        self._cluster.call(self._rng, call, reply)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await answered
        except TimeoutError:
            raise NoAnswer from None
