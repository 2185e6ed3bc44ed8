"""A proxy in front of the only Kafka broker that understands as much of the protocol as it takes to lose single requests.

The broker tells its clients the proxy's address (`advertised.listeners`), so that everything goes through it:

    proxy = KafkaProxy(f"127.0.0.1:{kafka_port}")
    await proxy.open()
    async with LocalServices(kafka_port=kafka_port, kafka_settings=proxy.advertised): …

A request that is to be lost is lost in one of three ways, and its connection with it, as a broken one does:

    ANSWER    it is carried out, and its answer is not passed on
    REQUEST   it never arrives
    LATE      it arrives after its client has given it up, by another way
"""

import asyncio
import struct
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Final

from tests.support.proxy import Proxy, copy_bytes

END_TXN: Final = 26
INIT_PRODUCER_ID: Final = 22
LATE_S_MAX: Final = 0.6
_SIZE: Final = struct.Struct(">i")
_HEAD: Final = struct.Struct(">hhih")
"""Key and version of the request, its correlation id, the length of the client id."""
_TEXT: Final = struct.Struct(">h")


class Fate(Enum):
    """The fate of a request."""

    PASSED = "passed"
    ANSWER = "answer lost"
    REQUEST = "request lost"
    LATE = "request late"


class KafkaProxy(Proxy):
    """A proxy whose `fate_of` decides about each request that names a transactional id first."""

    def __init__(self, target: str, *, seed: int = 1) -> None:
        super().__init__(target, seed=seed)
        self.fate_of: Callable[[int, str], Fate] = lambda _key, _transactional_id: Fate.PASSED
        """From the request's key and transactional id."""
        self.fates: Counter[Fate] = Counter()

    @property
    def advertised(self) -> dict[str, str]:
        """The broker's settings."""
        return {"advertised.listeners": f"PLAINTEXT://{self.address}"}

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        try:
            async with asyncio.TaskGroup() as group:
                answers = group.create_task(copy_bytes(there_reader, writer), name="answers")
                while True:
                    frame = await _frame(reader)
                    fate = self._judge(frame)
                    if fate is Fate.PASSED:
                        there_writer.write(frame)
                        await there_writer.drain()
                        continue
                    if fate is Fate.ANSWER:
                        # No answer passes from here on; the request is certain to have been read before the end.
                        answers.cancel()
                        await asyncio.wait([answers])
                        there_writer.write(frame)
                        await there_writer.drain()
                        await there_reader.read(1)
                    elif fate is Fate.LATE:
                        writer.transport.abort()
                        await self._send_late(frame)
                    raise OSError("lost on purpose")
        except ExceptionGroup as errors:
            raise OSError("one side went away") from errors
        finally:
            there_writer.transport.abort()

    def _judge(self, frame: bytes) -> Fate:
        key, _version, _correlation, client_length = _HEAD.unpack_from(frame, _SIZE.size)
        if key not in (END_TXN, INIT_PRODUCER_ID):
            return Fate.PASSED
        at = _SIZE.size + _HEAD.size + max(0, client_length)
        (length,) = _TEXT.unpack_from(frame, at)
        name = frame[at + _TEXT.size : at + _TEXT.size + max(0, length)].decode()
        fate = self.fate_of(key, name)
        self.fates[fate] += 1
        return fate

    async def _send_late(self, frame: bytes) -> None:
        await asyncio.sleep(self._rng.uniform(0.0, LATE_S_MAX))
        reader, writer = await asyncio.open_connection(*self._target)
        writer.write(frame)
        await writer.drain()
        await reader.read(1)
        writer.transport.abort()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """One request, with its size in front. Raises: OSError (the client went away)."""
    try:
        size = await reader.readexactly(_SIZE.size)
        return size + await reader.readexactly(_SIZE.unpack(size)[0])
    except asyncio.IncompleteReadError as error:
        raise OSError("the client went away") from error
