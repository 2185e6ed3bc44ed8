"""A TCP proxy that misbehaves on demand: stands between a node and DynamoDB, or in front of Kafka's bootstrap address.

(Not between a node and Kafka for longer: brokers tell their clients their own address.)
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from infra.local.ports import free_port

CHUNK_BYTES: Final = 64 * 1024


class Proxy:
    """Its address is fixed from the beginning; it listens from `open` to `close`, and again after the next `open`."""

    def __init__(self, target: str, *, seed: int = 1) -> None:
        """`target`: `host:port`, or an http URL of one."""
        parts = urlsplit(target if "//" in target else f"//{target}")
        assert parts.hostname is not None
        assert parts.port is not None
        self._target = (parts.hostname, parts.port)
        self.port = free_port()
        self.lose_answers = 0.0
        """With this probability an answer is thrown away, and its connection with it: the request was carried out."""
        self.lost = 0
        """The number that were thrown away."""
        self._rng = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def close(self) -> None:
        """Refuses connections from now on, and drops those that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._relay(reader, writer)
        except (OSError, asyncio.CancelledError):
            # Either side went away, or the test is over: both ends are dropped below.
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        try:
            async with asyncio.TaskGroup() as group:
                there = group.create_task(copy_bytes(reader, there_writer), name="requests")
                await self._answers(there_reader, writer)
                there.cancel()
        except ExceptionGroup as errors:
            raise OSError("one side went away") from errors
        finally:
            there_writer.transport.abort()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            if self._rng.random() < self.lose_answers:
                self.lost += 1
                return
            writer.write(chunk)
            await writer.drain()


async def copy_bytes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    raise OSError("the client went away")


@asynccontextmanager
async def proxy_to(target: str) -> AsyncIterator[Proxy]:
    """A proxy that is not open yet; closed at the end of the block."""
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        with contextlib.suppress(OSError):
            await proxy.close()
