"""The store of recurring jobs: definitions, states, logs. The rows of their occurrences are in the same place as all other
rows, and are read, held and deleted by `ScheduleStore`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from clockwork.domain.command_notes import CommandNote, NoteChange
from clockwork.domain.jobs.calendar import Calendar, CalendarName
from clockwork.domain.jobs.job import (
    Job,
    JobName,
    JobState,
    JobTransaction,
    RunCompletion,
    RunDelivery,
    RunRequest,
    SkippedTimes,
)
from clockwork.domain.position import Position
from clockwork.domain.run import JobId
from clockwork.domain.schedule import ClientId
from clockwork.errors import ConditionFailed


class StaleRevision(ConditionFailed):
    """The state of a job is at another revision than the change was made from. Nothing was written."""

    def __init__(self, state: JobState | None) -> None:
        super().__init__()
        self.state = state
        """The state as it is; None: there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NamePage:
    """Some names of jobs."""

    names: tuple[JobName, ...]
    next_after: JobName | None
    """Read on after this one; None: there is nothing more. A page may be empty and yet not the last."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogPage:
    """Some entries of a job's log, the newest first: in falling order of their positions."""

    entries: tuple[RunDelivery | SkippedTimes, ...]
    completions: Mapping[Position, RunCompletion]
    """Those of these runs that have one. A completion is put after its run, so it may be missing here for a moment."""
    next_from: Position | None
    """Read on down from this position, inclusive; None: there is nothing more."""


class CalendarStore(Protocol):
    """Named calendars. Every read is strongly consistent. Errors as of `ScheduleStore`."""

    async def read_calendar(self, key: CalendarName) -> Calendar | None:
        """Reads a calendar. Raises: NewerFormat, Unreadable."""
        ...

    async def put_calendar(self, calendar: Calendar, *, before: Calendar | None) -> None:
        """Puts a calendar in the place of the one that was read; None: there was none. The same put again is the same.

        Raises: ConditionFailed (another one is there, or none).
        """
        ...

    async def delete_calendar(self, calendar: Calendar) -> None:
        """Deletes this calendar. May be repeated. Raises: ConditionFailed (another one is there)."""
        ...

    async def list_calendars(self, client_id: ClientId, *, after: str | None, calendars_max: int) -> Sequence[Calendar]:
        """Reads a client's calendars in the order of their names after `after`, at most so many; fewer only if there are
        no more, or some cannot be read: those are left out and logged."""
        ...

    async def list_jobs_of_calendar(self, key: CalendarName, *, after: JobId | None, jobs_max: int) -> NamePage:
        """Reads names of jobs that have a reference beside a calendar (`JobTransaction.references_put`), deleted and
        ended ones too, and some that do not name it, in the order of their ids after `after`, about `jobs_max`."""
        ...


class JobStore(CalendarStore, Protocol):
    """Jobs. Every read is strongly consistent but those that say otherwise; every write is one atomic transaction, atomic
    for its writer only: another reader may see one of its items and not yet the next. Errors as of `ScheduleStore`.
    Expired items may be returned: their readers compare `expires_at_s`.
    """

    # --- one job

    async def read_state(self, name: JobName, *, committed: bool = False) -> JobState | None:
        """Reads the state. `committed`: or raises TransactionConflict while a transaction is being applied to it
        (TransactGetItems).

        Raises: NewerFormat, Unreadable, TransactionConflict.
        """
        ...

    async def read_states(self, names: Sequence[JobName]) -> Mapping[JobName, JobState]:
        """Reads the states that exist, any number of them; those that cannot be read are left out and logged."""
        ...

    async def read_definition(self, name: JobName, version: int) -> Job | None:
        """Reads one version. It never changes, but a job that is made anew after its state has expired begins with
        version 1 again: compare `Job.created_at_ms` with the state's. Raises: NewerFormat, Unreadable."""
        ...

    async def read_versions(self, name: JobName, *, below: int | None, versions_max: int) -> Sequence[Job]:
        """Reads definitions, the newest first, with versions below a number (None: all), at most so many. Those that cannot
        be read are left out and logged."""
        ...

    async def change(self, change: JobTransaction) -> None:
        """Makes a change: see `JobTransaction`. Changes of several jobs that are asked for at the same time may share a
        call, and fail each alone. The same change again after an unknown outcome is the same change: the stored state
        is equal. Its references beside calendars stand before it is made, also if it is not.

        Raises, and nothing was written: StaleRevision (the state is at another revision), ConditionFailed (another condition
        does not hold), TransactionConflict, NewerFormat and Unreadable (the state cannot be read).
        """
        ...

    async def forget(self, state: JobState) -> None:
        """Deletes the state of a job whose retention is over, if it is still at this revision, its references beside
        calendars, and all definitions: the newest one with the state, so that a job which is restored at the last
        moment has it. May be repeated. Raises: ConditionFailed (another state is there)."""
        ...

    async def prune_versions(self, state: JobState, *, below: int) -> None:
        """Deletes the definitions whose versions are below this number, but none of a job that was made anew, under the same
        name, after this one was forgotten: its versions begin with 1 again. May be repeated, and be late."""
        ...

    # --- runs

    async def put_run_deliveries(self, ends: Sequence[RunDelivery], *, keep_existing: bool) -> None:
        """Puts entries of runs, of any jobs; any number, no two of one position. `keep_existing`: an entry that is there
        already stays (at_least_once); else it is overwritten: all writers write the same (exactly_once).

        When it returns, all stand. Some may stand when it raises. May be repeated freely, by a zombie too.
        """
        ...

    async def read_run_delivery(self, name: JobName, position: Position) -> RunDelivery | None:
        """Reads the entry of the run whose row stood at this position. Raises: NewerFormat, Unreadable."""
        ...

    async def put_completion(self, completion: RunCompletion, *, command: NoteChange | None = None) -> None:
        """Puts the completion of a run that keeps no other from being armed, if none is there; its job's state stays as it
        is. `command`: the note of commands moves with it. The same completion again is the same.

        Raises: ConditionFailed (another completion is there, or another note), TransactionConflict.
        """
        ...

    async def read_completion(self, name: JobName, position: Position) -> RunCompletion | None:
        """Reads the completion of the run whose row stood at this position. Raises: NewerFormat, Unreadable."""
        ...

    async def read_log(self, name: JobName, *, first: Position, last: Position, entries_max: int) -> LogPage:
        """Reads entries with positions from `first` to `last`, both included, the newest first, at most so many. Those that
        cannot be read are left out and logged."""
        ...

    async def read_request(self, name: JobName, request_id: str) -> RunRequest | None:
        """Reads the item of a request for runs. Raises: NewerFormat, Unreadable."""
        ...

    # --- commands

    async def read_command_note(self, name: JobName) -> CommandNote | None:
        """Reads the note of commands of a job, expired or not. Raises: NewerFormat, Unreadable."""
        ...

    async def note_command(self, name: JobName, note: NoteChange) -> None:
        """Moves the note alone. Raises: ConditionFailed (another one is there)."""
        ...

    # --- many jobs

    async def list_jobs(self, client_id: ClientId, *, after: JobId | None, jobs_max: int) -> NamePage:
        """Reads names of a client's jobs in the order of their ids (by their UTF-8 bytes) after `after`, deleted and ended
        ones too, about `jobs_max`. May lag: a job that was made a few seconds ago may be missing, or one that is gone be
        named."""
        ...

    async def count_jobs(self, client_id: ClientId, *, at_most: int) -> int:
        """Counts a client's jobs as `list_jobs` would show them, no further than `at_most`."""
        ...

    async def scan_jobs(self, segment: int, segments: int, *, after: JobName | None, jobs_max: int) -> NamePage:
        """Reads names of all jobs that belong to one of so many segments, in any order, about `jobs_max`. Each job belongs
        to one segment as long as the number of segments stays the same. May lag, like `list_jobs`."""
        ...
