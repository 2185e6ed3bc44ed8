"""`JobStore` in memory: the contract as a program to read. Its rows are those of a `MemoryScheduleStore`, by which its
requests are served and its transactions applied, so that a simulation overrides both in one place.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from clockwork.domain.command_notes import CommandNote, NoteChange
from clockwork.domain.jobs.calendar import Calendar, CalendarName
from clockwork.domain.jobs.job import (
    Job,
    JobName,
    JobState,
    JobTransaction,
    LogEntry,
    RunCompletion,
    RunDelivery,
    RunRequest,
    SkippedTimes,
    TakenRow,
)
from clockwork.domain.position import Position
from clockwork.domain.run import JobId
from clockwork.domain.schedule import ClientId, Row
from clockwork.errors import ConditionFailed
from clockwork.ports.jobs import LogPage, NamePage, StaleRevision
from clockwork.stores.memory.store import ItemKey, MemoryScheduleStore, Write

LogKey = tuple[JobName, Position]

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class JobTables:
    """Everything that is stored of jobs but their rows."""

    states: dict[JobName, JobState] = field(default_factory=dict)
    definitions: dict[tuple[JobName, int], Job] = field(default_factory=dict)
    log: dict[LogKey, RunDelivery | SkippedTimes] = field(default_factory=dict)
    completions: dict[LogKey, RunCompletion] = field(default_factory=dict)
    requests: dict[tuple[JobName, str], RunRequest] = field(default_factory=dict)
    notes: dict[JobName, CommandNote] = field(default_factory=dict)
    calendars: dict[CalendarName, Calendar] = field(default_factory=dict)
    of_calendars: set[tuple[CalendarName, JobName]] = field(default_factory=set)
    """The jobs that are noted beside calendars."""


class MemoryJobStore:
    """`JobStore` over dictionaries."""

    def __init__(self, schedules: MemoryScheduleStore, tables: JobTables) -> None:
        self.tables = tables
        self._schedules = schedules
        self._serve = schedules._serve

    # --- one job

    async def read_state(self, name: JobName, *, committed: bool = False) -> JobState | None:
        """See `JobStore`."""

        def effect() -> JobState | None:
            if committed:
                self._schedules._check_free(_state_place(name))
            return self.tables.states.get(name)

        return await self._serve("read_job_committed" if committed else "read_job", effect)

    async def read_states(self, names: Sequence[JobName]) -> Mapping[JobName, JobState]:
        """See `JobStore`."""
        states = self.tables.states
        return await self._serve("read_jobs", lambda: {name: states[name] for name in names if name in states})

    async def read_definition(self, name: JobName, version: int) -> Job | None:
        """See `JobStore`."""
        return await self._serve("read_definition", lambda: self.tables.definitions.get((name, version)))

    async def read_versions(self, name: JobName, *, below: int | None, versions_max: int) -> Sequence[Job]:
        """See `JobStore`."""

        def effect() -> Sequence[Job]:
            found = [
                job
                for (of, version), job in self.tables.definitions.items()
                if of == name and (below is None or version < below)
            ]
            return sorted(found, key=lambda job: -job.version)[:versions_max]

        return await self._serve("read_versions", effect)

    async def change(self, change: JobTransaction) -> None:
        """See `JobStore`."""

        def effect() -> None:
            writes = self._writes(change)
            self._schedules._check_free(*writes)
            there = self.tables.states.get(change.name)
            if there == change.state:
                return  # the same call again
            if (there.rev if there is not None else None) != change.before_rev:
                raise StaleRevision(there)
            self._check_conditions(change)
            self._schedules._apply(writes)

        for calendar in change.references_put:
            await self._note_calendar(CalendarName(change.state.client_id, calendar), change.name)
        await self._serve("change_job", effect)

    async def _note_calendar(self, key: CalendarName, job: JobName) -> None:
        def effect() -> None:
            self._schedules._check_undisturbed(_named_place(key, job))
            self.tables.of_calendars.add((key, job))

        await self._serve("note_calendar", effect)

    async def forget(self, state: JobState) -> None:
        """See `JobStore`."""
        name = state.name

        def effect() -> None:
            self._schedules._check_undisturbed(_state_place(name))
            there = self.tables.states.get(name)
            if there is None:
                return  # the same call again
            if there.rev != state.rev:
                raise ConditionFailed
            self._drop_versions(state, below=state.version + 1)
            for calendar, _ in there.calendars:
                self.tables.of_calendars.discard((CalendarName(name.client_id, calendar), name))
            del self.tables.states[name]

        await self._serve("forget_job", effect)

    async def prune_versions(self, state: JobState, *, below: int) -> None:
        """See `JobStore`."""
        await self._serve("prune_versions", lambda: self._drop_versions(state, below=below))

    # --- runs

    async def put_run_deliveries(self, ends: Sequence[RunDelivery], *, keep_existing: bool) -> None:
        """See `JobStore`."""

        def effect() -> None:
            self._schedules._check_undisturbed(*(_log_place(end) for end in ends))
            for end in ends:
                if not (keep_existing and _key_of(end) in self.tables.log):
                    self.tables.log[_key_of(end)] = end

        await self._serve("put_run_deliveries", effect)

    async def read_run_delivery(self, name: JobName, position: Position) -> RunDelivery | None:
        """See `JobStore`."""

        def effect() -> RunDelivery | None:
            found = self.tables.log.get((name, position))
            return found if isinstance(found, RunDelivery) else None

        return await self._serve("read_run_delivery", effect)

    async def put_completion(self, completion: RunCompletion, *, command: NoteChange | None = None) -> None:
        """See `JobStore`."""
        key, name = _key_of(completion), completion.name

        def effect() -> None:
            writes: dict[ItemKey, Write] = {_log_place(completion): _put(self.tables.completions, key, completion)}
            if command is not None:
                writes[_note_key(name)] = _put(self.tables.notes, name, command.after)
            self._schedules._check_free(*writes)
            there = self.tables.completions.get(key)
            if there == completion:
                return  # the same call again
            if there is not None:
                raise ConditionFailed
            if command is not None:
                self._check_note(name, command)
            self._schedules._apply(writes)

        await self._serve("put_completion", effect)

    async def read_completion(self, name: JobName, position: Position) -> RunCompletion | None:
        """See `JobStore`."""
        return await self._serve("read_completion", lambda: self.tables.completions.get((name, position)))

    async def read_log(self, name: JobName, *, first: Position, last: Position, entries_max: int) -> LogPage:
        """See `JobStore`."""

        def effect() -> LogPage:
            found = sorted(
                (entry for (of, at), entry in self.tables.log.items() if of == name and first <= at <= last),
                key=lambda entry: -entry.position,
            )
            page = found[:entries_max]
            completions = {
                entry.position: completion
                for entry in page
                if (completion := self.tables.completions.get((name, entry.position))) is not None
            }
            more = len(found) > len(page)
            return LogPage(
                entries=tuple(page),
                completions=completions,
                next_from=Position(page[-1].position - 1) if more else None,
            )

        return await self._serve("read_log", effect)

    async def read_request(self, name: JobName, request_id: str) -> RunRequest | None:
        """See `JobStore`."""
        return await self._serve("read_run_request", lambda: self.tables.requests.get((name, request_id)))

    # --- commands

    async def read_command_note(self, name: JobName) -> CommandNote | None:
        """See `JobStore`."""
        return await self._serve("read_job_note", lambda: self.tables.notes.get(name))

    async def note_command(self, name: JobName, note: NoteChange) -> None:
        """See `JobStore`."""

        def effect() -> None:
            self._schedules._check_undisturbed(_note_key(name))
            there = self.tables.notes.get(name)
            if there is not None and there.by == note.after.by:
                return  # the same call again
            self._check_note(name, note)
            self.tables.notes[name] = note.after

        await self._serve("note_job_command", effect)

    # --- many jobs

    async def list_jobs(self, client_id: ClientId, *, after: JobId | None, jobs_max: int) -> NamePage:
        """See `JobStore`."""

        def effect() -> NamePage:
            names = sorted(
                (name for name in self.tables.states if name.client_id == client_id),
                key=lambda name: name.job_id.encode(),
            )
            behind = [name for name in names if after is None or name.job_id.encode() > after.encode()]
            return _page(behind, jobs_max)

        return await self._serve("list_jobs", effect)

    async def count_jobs(self, client_id: ClientId, *, at_most: int) -> int:
        """See `JobStore`."""

        def effect() -> int:
            return min(at_most, sum(name.client_id == client_id for name in self.tables.states))

        return await self._serve("count_jobs", effect)

    async def scan_jobs(self, segment: int, segments: int, *, after: JobName | None, jobs_max: int) -> NamePage:
        """See `JobStore`."""

        def effect() -> NamePage:
            names = sorted(name for name in self.tables.states if zlib.crc32(str(name).encode()) % segments == segment)
            return _page([name for name in names if after is None or name > after], jobs_max)

        return await self._serve("scan_jobs", effect)

    # --- calendars

    async def read_calendar(self, key: CalendarName) -> Calendar | None:
        """See `CalendarStore`."""
        return await self._serve("read_calendar", lambda: self.tables.calendars.get(key))

    async def put_calendar(self, calendar: Calendar, *, before: Calendar | None) -> None:
        """See `CalendarStore`."""

        def effect() -> None:
            self._schedules._check_undisturbed(_calendar_place(calendar.key))
            there = self.tables.calendars.get(calendar.key)
            if there == calendar:
                return  # the same call again
            if there != before:
                raise ConditionFailed
            self.tables.calendars[calendar.key] = calendar

        await self._serve("put_calendar", effect)

    async def delete_calendar(self, calendar: Calendar) -> None:
        """See `CalendarStore`."""

        def effect() -> None:
            self._schedules._check_undisturbed(_calendar_place(calendar.key))
            there = self.tables.calendars.get(calendar.key)
            if there not in (None, calendar):
                raise ConditionFailed
            self.tables.calendars.pop(calendar.key, None)

        await self._serve("delete_calendar", effect)

    async def list_calendars(self, client_id: ClientId, *, after: str | None, calendars_max: int) -> Sequence[Calendar]:
        """See `CalendarStore`."""

        def effect() -> Sequence[Calendar]:
            found = sorted((each for each in self.tables.calendars.values() if each.client_id == client_id), key=_name)
            return [each for each in found if after is None or each.name > after][:calendars_max]

        return await self._serve("list_calendars", effect)

    async def list_jobs_of_calendar(self, key: CalendarName, *, after: JobId | None, jobs_max: int) -> NamePage:
        """See `CalendarStore`."""

        def effect() -> NamePage:
            names = sorted(
                (job for of, job in self.tables.of_calendars if of == key), key=lambda name: name.job_id.encode()
            )
            behind = [name for name in names if after is None or name.job_id.encode() > after.encode()]
            return _page(behind, jobs_max)

        return await self._serve("list_jobs_of_calendar", effect)

    # --- parts

    def _check_conditions(self, change: JobTransaction) -> None:
        """The conditions besides that on the state."""
        rows, name = self._schedules.rows, change.name
        for taken in change.taken:
            self._check_held(taken)
        absent = change.absent
        if absent is not None and (absent.shard, absent.position) in rows:
            raise ConditionFailed
        if any((row.shard, row.position) in rows for row in change.rows):
            raise ConditionFailed
        if change.request is not None and (name, change.request.request_id) in self.tables.requests:
            raise ConditionFailed
        if any(isinstance(each, RunCompletion) and _key_of(each) in self.tables.completions for each in change.entries):
            raise ConditionFailed
        if change.command is not None:
            self._check_note(name, change.command)
        self._check_calendars(change)

    def _check_calendars(self, change: JobTransaction) -> None:
        for name, digest in change.calendars:
            there = self.tables.calendars.get(CalendarName(change.state.client_id, name))
            if there is None or there.exclusion.digest != digest:
                raise ConditionFailed

    def _check_held(self, taken: TakenRow) -> None:
        place = (taken.name.shard, taken.name.position)
        row = self._schedules.rows.get(place)
        held = row.hold if isinstance(row, Row) else self._schedules._broken_holds.get(place)
        if row is None or held != taken.hold:
            raise ConditionFailed

    def _check_note(self, name: JobName, note: NoteChange) -> None:
        there = self.tables.notes.get(name)
        if (there.offsets if there is not None else ()) != note.before:
            raise ConditionFailed

    def _drop_versions(self, state: JobState, *, below: int) -> None:
        for key, job in list(self.tables.definitions.items()):
            if job.name == state.name and job.version < below and job.created_at_ms <= state.created_at_ms:
                del self.tables.definitions[key]

    def _writes(self, change: JobTransaction) -> dict[ItemKey, Write]:
        tables, name = self.tables, change.name
        writes: dict[ItemKey, Write] = {_state_place(name): _put(tables.states, name, change.state)}
        if (job := change.definition) is not None:
            writes[("version", *name, job.version)] = _put(tables.definitions, (name, job.version), job)
        for row in change.rows:
            writes |= self._schedules._put_row(row)
        for taken in change.taken:
            writes |= self._schedules._delete_row(taken.name.shard, taken.name.position)
        if (absent := change.absent) is not None:
            writes[(absent.shard, absent.position)] = _nothing
        for entry in change.entries:
            if isinstance(entry, RunCompletion):
                writes[_log_place(entry)] = _put(tables.completions, _key_of(entry), entry)
            else:
                writes[_log_place(entry)] = _put(tables.log, _key_of(entry), entry)
        if (request := change.request) is not None:
            key = (name, request.request_id)
            writes[("request", *name, request.request_id)] = _put(tables.requests, key, request)
        if (command := change.command) is not None:
            writes[_note_key(name)] = _put(tables.notes, name, command.after)
        for calendar, _ in change.calendars:
            writes[_calendar_place(CalendarName(name.client_id, calendar))] = _nothing
        for calendar in change.references_deleted:
            of = CalendarName(name.client_id, calendar)
            writes[_named_place(of, name)] = partial(tables.of_calendars.discard, (of, name))
        return writes


def _put(table: dict[_K, _V], key: _K, value: _V) -> Callable[[], None]:
    def write() -> None:
        table[key] = value

    return write


def _nothing() -> None:
    """The write of an item that a transaction only checks."""


def _page(names: Sequence[JobName], jobs_max: int) -> NamePage:
    page = tuple(names[:jobs_max])
    return NamePage(names=page, next_after=page[-1] if len(names) > len(page) else None)


def _key_of(entry: LogEntry) -> LogKey:
    return (entry.name, entry.position)


def _name(calendar: Calendar) -> str:
    return calendar.name


def _named_place(key: CalendarName, job: JobName) -> ItemKey:
    return ("of calendar", *key, job.job_id)


def _calendar_place(key: CalendarName) -> ItemKey:
    return ("calendar", *key)


def _state_place(name: JobName) -> ItemKey:
    return ("job", *name)


def _note_key(name: JobName) -> ItemKey:
    return ("job note", *name)


def _log_place(entry: LogEntry) -> ItemKey:
    return ("completion" if isinstance(entry, RunCompletion) else "run", *entry.name, entry.position)
