"""The twin of CommandLog: the commands topic and its group in memory."""

import asyncio
from typing import Final

from clockwork.domain.command_notes import CommandOffset
from clockwork.errors import BrokerUnavailable
from clockwork.ports.commands import CommandBatch, CommandRecord, ProcessBatch

RECORDS_MAX: Final = 200


class MemoryCommandLog:
    """See `ports.CommandLog`. Commands that a member has not processed are handed over again by the next `run`."""

    def __init__(self, *, kafka_partitions: int = 1, batch: int = RECORDS_MAX) -> None:
        self._logs: list[list[CommandRecord]] = [[] for _ in range(kafka_partitions)]
        self._batch = batch
        self._came = asyncio.Condition()
        self.committed = [0] * kafka_partitions
        """The offset of the first command that is not processed, by Kafka partition."""
        self.noted = [0] * kafka_partitions
        """The offset below which all effects are known to be over."""
        self.away = False
        """True while notes are refused."""

    def append(
        self,
        key: bytes | None,
        value: bytes,
        *,
        kafka_partition: int = 0,
        headers: tuple[tuple[str, bytes], ...] = (),
        at_ms: int = 0,
    ) -> CommandOffset:
        """Puts a committed record at the end."""
        log = self._logs[kafka_partition]
        place = CommandOffset(kafka_partition=kafka_partition, offset=len(log), at_ms=at_ms)
        log.append(CommandRecord(place=place, key=key, value=value, headers=headers))
        return place

    async def until_worked_off(self) -> None:
        """Waits until all commands are processed."""
        async with self._came:
            await self._came.wait_for(lambda: self.committed == [len(log) for log in self._logs])

    async def run(self, work: ProcessBatch) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(len(self._logs)):
                group.create_task(self._one_partition(number, work), name=f"commands {number}")

    async def _one_partition(self, number: int, work: ProcessBatch) -> None:
        log = self._logs[number]
        while True:
            begin = self.committed[number]
            records = tuple(log[begin : begin + self._batch])
            if not records:
                await asyncio.sleep(0.01)
                continue
            end = begin + len(records)

            async def note(noted: int = end) -> None:
                if self.away:
                    raise BrokerUnavailable
                self.noted[number] = noted

            over = max(0, min(len(records), self.noted[number] - begin))
            await work(CommandBatch(records=records, over=over), note)
            async with self._came:
                self.committed[number] = end
                self._came.notify_all()
