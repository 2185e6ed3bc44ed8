"""Transfers schedules: one page of a scan after the other, each settled before the next is read.

A create is idempotent, so everything may be repeated at any time: a schedule that was accepted is accepted again as the same
schedule. The progress of the scan is kept in a file, so that an interrupted import continues there. It is valid only for
the same table read with the same meaning.
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
"""Rounds in which creates that were over a quota, or got no answer, are sent again; some three minutes in all."""
ROUND_WAIT_S: Final = 1.0

Key = dict[str, Any]
"""The position where a scan continues."""


class Counts(BaseModel):
    """Numbers of rows by outcome."""

    model_config = ConfigDict(validate_assignment=False)

    read: int = 0
    created: int = 0
    repeated: int = 0
    """Imported by an earlier run."""
    ended: int = 0
    not_yet_ours: int = 0
    rejected: int = 0

    def line(self) -> str:
        """A summary for people."""
        return (
            f"{self.read:,} rows read: {self.created:,} created, {self.repeated:,} there already, {self.ended:,} ended, "
            f"{self.not_yet_ours:,} due before --due-from, {self.rejected:,} rejected"
        )


class Progress(BaseModel):
    """The position that an import has reached, with everything that changes what a row becomes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    meaning: dict[str, str | int | None]
    start: Key
    counts: Counts


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One import."""

    url: str
    """Address of the service."""
    database: str
    """Endpoint or region of the table."""
    table: str
    due_from_ms: int
    guarantee: str | None
    progress_file: Path
    dry_run: bool

    def read_progress(self) -> tuple[Key | None, Counts]:
        """The position and the counts of an earlier run of the same import. Without them everything is sent again, which
        is safe."""
        try:
            found = Progress.model_validate_json(self.progress_file.read_bytes())
        except (OSError, ValidationError):
            return None, Counts()
        return (found.start, found.counts) if found.meaning == self._meaning() else (None, Counts())

    def save_progress(self, start: Key | None, counts: Counts) -> None:
        """Called after each page; removes the file after the last. Raises: OSError."""
        if start is None:
            self.progress_file.unlink(missing_ok=True)
            return
        progress = Progress(meaning=self._meaning(), start=start, counts=counts)
        new = self.progress_file.with_name(f"{self.progress_file.name}.new")
        new.write_text(progress.model_dump_json(), encoding="utf-8")
        new.replace(self.progress_file)

    def _meaning(self) -> dict[str, str | int | None]:
        return {
            "url": self.url,
            "database": self.database,
            "table": self.table,
            "due_from_ms": self.due_from_ms,
            "guarantee": self.guarantee,
        }


class Rows(Protocol):
    """The first Clockwork's table."""

    async def page(self, start: Key | None) -> tuple[Sequence[first.Item], Key | None]:
        """A page of rows, and the position behind it; None: it was the last."""
        ...


class Service(Protocol):
    """The client of the service; implemented by `AsyncClient`."""

    def create_many(self, schedules: Sequence[dict[str, Any]]) -> AsyncIterator[Result]:
        """Creates schedules; yields a result for each, in order. Raises: CallFailed."""
        ...


async def transfer(job: Job, rows: Rows, service: Service, report: Callable[[str], None]) -> Counts:
    """Imports the remaining rows; `report` gets a line for each page and for each rejected row.

    Raises: CallFailed, Unavailable: the pages before are settled, and the same command again continues there.
    """
    start, counts = (None, Counts()) if job.dry_run else await asyncio.to_thread(job.read_progress)
    keeps_progress = not job.dry_run
    while True:
        items, start = await rows.page(start)
        reads = [first.read(item, due_from_ms=job.due_from_ms, guarantee=job.guarantee) for item in items]
        counts.read += len(reads)
        _count(reads, counts, report)
        wanted = [read for read in reads if read.document is not None]
        if job.dry_run:
            counts.created += len(wanted)
        else:
            await _create(wanted, service, counts, report)
        if keeps_progress:
            try:
                await asyncio.to_thread(job.save_progress, start, counts)
            except OSError as error:
                keeps_progress = False
                report(f"progress is not kept, so a second run starts from the beginning: {error}")
        report(counts.line())
        if start is None:
            return counts


def _count(reads: Sequence[Read], counts: Counts, report: Callable[[str], None]) -> None:
    for read in reads:
        counts.ended += read.left_out is LeftOut.ENDED
        counts.not_yet_ours += read.left_out is LeftOut.NOT_YET_OURS
        if read.problem:
            counts.rejected += 1
            report(f"rejected: {read.name}: {read.problem}")


async def _create(wanted: Sequence[Read], service: Service, counts: Counts, report: Callable[[str], None]) -> None:
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
                counts.rejected += 1
                report(f"rejected: {read.name}: {result.error}")
            else:
                counts.created += result.status == 201
                counts.repeated += result.status != 201
        if failure is None:
            return
        if round_ == ROUNDS_MAX:
            raise failure
        wanted = again
        await asyncio.sleep(ROUND_WAIT_S * min(round_, 10))
