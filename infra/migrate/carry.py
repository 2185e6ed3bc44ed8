"""Carries schedules over: one page of a scan after the other, each settled before the next is read.

A create is idempotent, so everything may be done again at any time: what was accepted is accepted again as the same
schedule. How far the scan came is kept in a file, so that an import that was broken off goes on there.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from clockwork.client import CallFailed, Result, TooMany, Unavailable
from infra.migrate import first
from infra.migrate.first import LeftOut, Read

ROUNDS_MAX: Final = 20
"""In which creates that were over a quota, or got no answer, are sent again; some three minutes in all."""
ROUND_WAIT_S: Final = 1.0

Key = dict[str, Any]
"""Where a scan goes on."""


class Sums(BaseModel):
    """What became of the rows so far."""

    model_config = ConfigDict(validate_assignment=False)

    read: int = 0
    created: int = 0
    repeated: int = 0
    """Imported by an earlier run."""
    ended: int = 0
    not_yet_ours: int = 0
    rejected: int = 0

    def line(self) -> str:
        """For people."""
        return (
            f"{self.read:,} rows read: {self.created:,} created, {self.repeated:,} there already, {self.ended:,} ended, "
            f"{self.not_yet_ours:,} due before --due-from, {self.rejected:,} rejected"
        )


class Note(BaseModel):
    """How far an import came, and which one."""

    model_config = ConfigDict(frozen=True)

    url: str
    table: str
    due_from_ms: int
    start: Key
    sums: Sums


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One import."""

    url: str
    table: str
    due_from_ms: int
    guarantee: str | None
    progress: Path
    dry_run: bool

    def begun(self) -> tuple[Key | None, Sums]:
        """Where an earlier run of the same import stopped."""
        try:
            note = Note.model_validate_json(self.progress.read_bytes())
        except (FileNotFoundError, ValidationError):
            # Without a note, or with a damaged one, everything is done again, which is safe.
            return None, Sums()
        same = (note.url, note.table, note.due_from_ms) == (self.url, self.table, self.due_from_ms)
        return (note.start, note.sums) if same else (None, Sums())

    def note(self, start: Key | None, sums: Sums) -> None:
        """After each page; at the end there is nothing to go on with."""
        if start is None:
            self.progress.unlink(missing_ok=True)
            return
        note = Note(url=self.url, table=self.table, due_from_ms=self.due_from_ms, start=start, sums=sums)
        new = self.progress.with_name(f"{self.progress.name}.new")
        new.write_text(note.model_dump_json(), encoding="utf-8")
        new.replace(self.progress)


class Rows(Protocol):
    """The first Clockwork's table."""

    async def page(self, start: Key | None) -> tuple[Sequence[first.Item], Key | None]:
        """Some rows, and where to go on; None: there are no more."""
        ...


class Creates(Protocol):
    """The client of the service."""

    def create_many(self, schedules: Sequence[dict[str, Any]]) -> AsyncIterator[Result]:
        """A result for each, in order."""
        ...


async def carry(job: Job, rows: Rows, service: Creates, tell: Callable[[str], None]) -> Sums:
    """Imports what is left to be imported; `tell` gets a line for each page, and for each row that is rejected.

    Raises: CallFailed, StoreUnavailable: what is noted is settled, and the same command again goes on there.
    """
    start, sums = (None, Sums()) if job.dry_run else await asyncio.to_thread(job.begun)
    while True:
        items, start = await rows.page(start)
        reads = [first.read(item, due_from_ms=job.due_from_ms, guarantee=job.guarantee) for item in items]
        sums.read += len(reads)
        _count(reads, sums, tell)
        wanted = [read for read in reads if read.document is not None]
        if job.dry_run:
            sums.created += len(wanted)
        else:
            await _create(wanted, service, sums, tell)
            await asyncio.to_thread(job.note, start, sums)
        tell(sums.line())
        if start is None:
            return sums


def _count(reads: Sequence[Read], sums: Sums, tell: Callable[[str], None]) -> None:
    for read in reads:
        sums.ended += read.left_out is LeftOut.ENDED
        sums.not_yet_ours += read.left_out is LeftOut.NOT_YET_OURS
        if read.problem:
            sums.rejected += 1
            tell(f"rejected: {read.name}: {read.problem}")


async def _create(wanted: Sequence[Read], service: Creates, sums: Sums, tell: Callable[[str], None]) -> None:
    for round_ in range(1, ROUNDS_MAX + 1):
        again: list[Read] = []
        failure: CallFailed | None = None
        documents = [read.document for read in wanted if read.document is not None]
        answered = [result async for result in service.create_many(documents)]
        for read, result in zip(wanted, answered, strict=True):
            if isinstance(result.error, Unavailable | TooMany):
                again.append(read)
                failure = result.error
            elif result.error is not None:
                sums.rejected += 1
                tell(f"rejected: {read.name}: {result.error}")
            else:
                sums.created += result.status == 201
                sums.repeated += result.status != 201
        if failure is None:
            return
        if round_ == ROUNDS_MAX:
            raise failure
        wanted = again
        await asyncio.sleep(ROUND_WAIT_S * min(round_, 10))
