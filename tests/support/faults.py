"""Faults inside a node that runs in the test's own process: between it and the libraries that it talks through."""

import asyncio
import json
import random
from collections import Counter
from typing import Any

import asyncpg
import pytest

from clockwork.errors import BrokerUnavailable
from clockwork.kafka.client import KafkaWire
from clockwork.stores.dynamodb.client import HttpTransport, Response
from infra.local.node import Store


class Throttle:
    """The store says "slow down": where requests go to the network, so that the client's repeats are run, too.

    For nodes that are opened after it was made.
    """

    def __init__(self, patch: pytest.MonkeyPatch, store: Store, *, seed: int = 1) -> None:
        self.share = 0.0
        """Share of requests that are refused."""
        self.refused: Counter[str] = Counter()
        self._rng = random.Random(seed)
        if store == "postgresql":
            self._refuse_statements(patch)
        else:
            self._refuse_calls(patch)

    def _refuse_calls(self, patch: pytest.MonkeyPatch) -> None:
        real = HttpTransport.send

        async def send(wire: HttpTransport, operation: str, body: bytes) -> Response:
            if self._rng.random() >= self.share:
                return await real(wire, operation, body)
            self.refused[operation] += 1
            code = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"
            return Response(400, None, json.dumps({"__type": code, "message": "made up"}).encode())

        patch.setattr(HttpTransport, "send", send)

    def _refuse_statements(self, patch: pytest.MonkeyPatch) -> None:
        real = asyncpg.Connection.fetch

        async def fetch(connection: asyncpg.Connection, query: str, *args: Any, **more: Any) -> Any:
            if self._rng.random() >= self.share:
                return await real(connection, query, *args, **more)
            self.refused[" ".join(query.split()[:3])] += 1
            raise asyncpg.TooManyConnectionsError("made up")

        patch.setattr(asyncpg.Connection, "fetch", fetch)


class LostAnswers:
    """Kafka does what it is asked, or not, and never answers: the requests of one class, by their names."""

    def __init__(self, patch: pytest.MonkeyPatch, *, seed: int = 1) -> None:
        self.share: dict[str, float] = {}
        """By class of request: how many of them get no answer; every other one of these is not even sent."""
        self.lost: Counter[str] = Counter()
        rng = random.Random(seed)
        real = KafkaWire.request

        async def request(wire: KafkaWire, wanted: Any, **more: Any) -> Any:
            name = type(wanted).__name__
            if rng.random() >= self.share.get(name, 0.0):
                return await real(wire, wanted, **more)
            self.lost[name] += 1
            if self.lost[name] % 2:
                await real(wire, wanted, **more)
            raise BrokerUnavailable(f"{name}: its answer is lost")

        patch.setattr(KafkaWire, "request", request)


class HeldRequests:
    """Requests of one class, by its name, that are not sent before `release`: as if the node stood still there, while
    everything else in it goes on."""

    def __init__(self, patch: pytest.MonkeyPatch, name: str) -> None:
        self.waiting = 0
        """The number that were held so far."""
        self._gate = asyncio.Event()
        real = KafkaWire.request

        async def request(wire: KafkaWire, wanted: Any, **more: Any) -> Any:
            if type(wanted).__name__ == name and not self._gate.is_set():
                self.waiting += 1
                await self._gate.wait()
            return await real(wire, wanted, **more)

        patch.setattr(KafkaWire, "request", request)

    def release(self) -> None:
        self._gate.set()
