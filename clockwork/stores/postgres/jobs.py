"""`JobStore` on PostgreSQL.

A change is one statement. Those whose conditions are about the state alone (what follows the end of a run, and creates)
share one with others of their moment (`JobStatements.change_many`); the rest goes alone. A failed condition is believed only
after a look at the state: if it equals the one that was to be written, an earlier copy of this very change has written it,
and everything else with it.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from clockwork.domain.command_notes import CommandNote, NoteChange
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
from clockwork.domain.position import Position, text_of
from clockwork.domain.run import JobId
from clockwork.domain.schedule import ClientId
from clockwork.errors import ClockworkError, ConditionFailed, StoreUnavailable, TransactionConflict
from clockwork.ports.jobs import LogPage, NamePage, StaleRevision
from clockwork.stores.calls import Rejected
from clockwork.stores.checks import readable
from clockwork.stores.micro_batching import MicroBatcher
from clockwork.stores.postgres import codec, job_codec
from clockwork.stores.postgres.calendars import PostgresCalendars, names_page
from clockwork.stores.postgres.client import PostgresClient
from clockwork.stores.postgres.errors import Refused
from clockwork.stores.postgres.job_statements import RESOLVED, TAKEN, JobStatements
from clockwork.stores.postgres.sharing import (
    CONTENTS_MAX,
    GROUPS_AT_ONCE,
    READS_MAX,
    SharedReads,
    prove,
    read_all,
    retry_on_conflict,
)

CHANGES_MAX: Final = 100
CHANGE_BYTES_MAX: Final = 900 * 1024
"""A transaction of more takes longer to send and to store than others should wait."""
RUN_DELIVERIES_MAX: Final = 500
VERSION_END: Final = 2**62
"""Above all versions."""


class PostgresJobStore(PostgresCalendars):
    """See `JobStore`. Raises, from any method: StoreUnavailable and below."""

    def __init__(self, client: PostgresClient) -> None:
        sql = JobStatements(client.settings.schema)
        super().__init__(client, sql)
        key = tuple[str, bytes]
        self._states = SharedReads[key](client, "read_job", sql.read_states, READS_MAX)
        self._definitions = SharedReads[tuple[str, bytes, int]](
            client, "read_definition", sql.read_definitions, CONTENTS_MAX
        )
        self._log = SharedReads[tuple[str, bytes, str]](client, "read_run_delivery", sql.read_log_entries, READS_MAX)
        self._completions = SharedReads[tuple[str, bytes, str]](
            client, "read_completion", sql.read_completions, READS_MAX
        )
        self._requests = SharedReads[tuple[str, bytes, bytes]](client, "read_run_request", sql.read_requests, READS_MAX)
        self._notes = SharedReads[key](client, "read_job_note", sql.read_notes, READS_MAX)
        self._changes = MicroBatcher[JobTransaction, _Verdicts](
            self._change_together, size_max=CHANGES_MAX, bytes_max=CHANGE_BYTES_MAX, at_once=GROUPS_AT_ONCE
        )
        self._run_ends = {
            keep_existing: MicroBatcher[Sequence[RunDelivery], bool](
                partial(self._put_group, keep_existing=keep_existing),
                size_max=RUN_DELIVERIES_MAX,
                at_once=GROUPS_AT_ONCE,
            )
            for keep_existing in (False, True)
        }

    # --- one job

    async def read_state(self, name: JobName, *, committed: bool = False) -> JobState | None:
        """See `JobStore`. A commit is seen at one moment, so every state is committed."""
        found = await self._states.get(job_codec.name_values(name))
        return job_codec.state_of(found) if found is not None else None

    async def read_states(self, names: Sequence[JobName]) -> Mapping[JobName, JobState]:
        """See `JobStore`."""
        keys = [job_codec.name_values(name) for name in dict.fromkeys(names)]
        found = await read_all(self._client, "read_jobs", self._sql.read_states, keys, size_max=READS_MAX)
        return {state.name: state for state in readable(job_codec.state_of, (tuple(each)[1:] for each in found))}

    async def read_definition(self, name: JobName, version: int) -> Job | None:
        """See `JobStore`."""
        found = await self._definitions.get((*job_codec.name_values(name), version))
        return job_codec.definition_of(found) if found is not None else None

    async def read_versions(self, name: JobName, *, below: int | None, versions_max: int) -> Sequence[Job]:
        """See `JobStore`."""
        values = (*job_codec.name_values(name), below if below is not None else VERSION_END, versions_max)
        found = await self._client.read("read_versions", self._sql.read_versions, *values)
        return readable(job_codec.definition_of, found)

    async def change(self, change: JobTransaction) -> None:
        """See `JobStore`."""
        if _may_share(change):
            size_bytes = sum(row.schedule.size_bytes for row in change.rows)
            size_bytes += len(change.definition.task_data) if change.definition is not None else 0
            verdicts = await self._changes.submit(change, size_bytes=size_bytes, key=change.name)
            while verdicts is None:
                # The sender was cancelled, and its statement may be under way: the same change again settles it.
                verdicts = await self._changes.submit(change, size_bytes=size_bytes, key=change.name)
            if change.name in verdicts:
                error = verdicts[change.name]
                if error is not None:
                    raise error
                return
            # By its own caller: neither its group's slot nor any other member waits for it.
        await self._change_alone(change)

    async def forget(self, state: JobState) -> None:
        """See `JobStore`."""
        name = job_codec.name_values(state.name)
        calendars = [calendar for calendar, _ in state.calendars]
        gone = await retry_on_conflict(self._client, "forget_job", self._sql.forget, *name, state.rev, calendars)
        if not gone and await prove(self._client, "prove_job", self._sql.prove_state, *name):
            raise ConditionFailed

    async def prune_versions(self, state: JobState, *, below: int) -> None:
        """See `JobStore`."""
        values = (*job_codec.name_values(state.name), below, state.created_at_ms)
        await retry_on_conflict(self._client, "prune_versions", self._sql.prune_versions, *values)

    # --- runs

    async def put_run_deliveries(self, ends: Sequence[RunDelivery], *, keep_existing: bool) -> None:
        """See `JobStore`."""
        batches = self._run_ends[keep_existing]
        for start in range(0, len(ends), RUN_DELIVERIES_MAX):
            chunk = ends[start : start + RUN_DELIVERIES_MAX]
            if not await batches.submit(chunk, size=len(chunk)):
                # For the fault of another's entry, maybe; or the sender was cancelled. It may be done twice.
                sql = self._sql.put_run_deliveries[keep_existing]
                await retry_on_conflict(self._client, "put_run_deliveries", sql, *_log_arrays(chunk))

    async def read_run_delivery(self, name: JobName, position: Position) -> RunDelivery | None:
        """See `JobStore`."""
        found = await self._log.get((*job_codec.name_values(name), text_of(position)))
        entry = job_codec.log_entry_of(found) if found is not None else None
        return entry if isinstance(entry, RunDelivery) else None

    async def put_completion(self, completion: RunCompletion, *, command: NoteChange | None = None) -> None:
        """See `JobStore`."""
        values = codec.arrays([job_codec.completion_values(completion)])
        note = codec.note_values(command) if command is not None else ()
        sql = self._sql.put_completion[bool(command.before) if command is not None else None]
        try:
            await retry_on_conflict(self._client, "put_completion", sql, *values, *note)
        except Refused:
            key = (*job_codec.name_values(completion.name), text_of(completion.position))
            found = await prove(self._client, "prove_completion", self._sql.prove_completion, *key)
            if not found or job_codec.completion_of(found[0]) != completion:
                raise

    async def read_completion(self, name: JobName, position: Position) -> RunCompletion | None:
        """See `JobStore`."""
        found = await self._completions.get((*job_codec.name_values(name), text_of(position)))
        return job_codec.completion_of(found) if found is not None else None

    async def read_log(self, name: JobName, *, first: Position, last: Position, entries_max: int) -> LogPage:
        """See `JobStore`."""
        key = job_codec.name_values(name)
        # One more than asked for: it tells that there is more.
        values = (*key, text_of(first), text_of(last), entries_max + 1)
        found = await self._client.read("read_log", self._sql.read_log, *values)
        page = found[:entries_max]
        entries = readable(job_codec.log_entry_of, page)
        runs = {each.position for each in entries if isinstance(each, RunDelivery)}
        completions: Sequence[RunCompletion] = ()
        if runs:
            sql = self._sql.read_completions_between
            span = (text_of(min(runs)), text_of(max(runs)))
            completed = await self._client.read("read_completions", sql, *key, *span)
            completions = readable(job_codec.completion_of, completed)
        lowest = codec.stored_position(page[-1]["position"]) if len(found) > len(page) else None
        return LogPage(
            entries=tuple(entries),
            completions={each.position: each for each in completions if each.position in runs},
            next_from=Position(lowest - 1) if lowest is not None else None,
        )

    async def read_request(self, name: JobName, request_id: str) -> RunRequest | None:
        """See `JobStore`."""
        found = await self._requests.get((*job_codec.name_values(name), request_id.encode()))
        return job_codec.request_of(found) if found is not None else None

    # --- commands

    async def read_command_note(self, name: JobName) -> CommandNote | None:
        """See `JobStore`."""
        found = await self._notes.get(job_codec.name_values(name))
        return codec.note_of(found) if found is not None else None

    async def note_command(self, name: JobName, note: NoteChange) -> None:
        """See `JobStore`."""
        key = job_codec.name_values(name)
        sql = self._sql.note_command[bool(note.before)]
        if await retry_on_conflict(self._client, "note_job_command", sql, *codec.note_values(note), *key):
            return
        found = await prove(self._client, "prove_note", self._sql.prove_note, *key)
        if not found or found[0][0] != note.after.by:
            raise ConditionFailed

    # --- many jobs

    async def list_jobs(self, client_id: ClientId, *, after: JobId | None, jobs_max: int) -> NamePage:
        """See `JobStore`."""
        behind = after.encode() if after is not None else b""
        found = await self._client.read("list_jobs", self._sql.list_jobs, client_id, behind, jobs_max + 1)
        return names_page(found, jobs_max)

    async def count_jobs(self, client_id: ClientId, *, at_most: int) -> int:
        """See `JobStore`."""
        found = await self._client.read("count_jobs", self._sql.count_jobs, client_id, at_most)
        count: int = found[0][0]
        return count

    async def scan_jobs(self, segment: int, segments: int, *, after: JobName | None, jobs_max: int) -> NamePage:
        """See `JobStore`."""
        first, end = (number * job_codec.SPREAD // segments for number in (segment, segment + 1))
        behind: tuple[Any, ...] = (first, "", b"")
        if after is not None:
            behind = (job_codec.spread_of(after), *job_codec.name_values(after))
        found = await self._client.read("scan_jobs", self._sql.scan_jobs, *behind, end - 1, jobs_max + 1)
        return names_page(found, jobs_max)

    # --- parts

    async def _change_together(self, group: Sequence[JobTransaction]) -> "_Verdicts":
        # In one order everywhere, so that two groups do not wait for each other.
        ordered = sorted(group, key=lambda change: job_codec.name_values(change.name))
        definitions = [change.definition for change in ordered if change.definition is not None]
        values = (
            *codec.arrays([(*job_codec.state_values(change.state), change.before_rev) for change in ordered]),
            *_columns(codec.ROW, [codec.row_values(row) for change in ordered for row in change.rows]),
            *_columns(job_codec.DEFINITION, [job_codec.definition_values(job) for job in definitions]),
            *_columns(job_codec.LOG, [each for change in ordered for each in _log_values(change)]),
        )
        try:
            found = await self._client.write("change_job", self._sql.change_many, *values)
        except (Refused, TransactionConflict, Rejected):
            # For the fault of members that it does not name. Nothing was written.
            return {}
        except StoreUnavailable as error:
            return {change.name: error for change in group}
        moved = {(record[0], record[1]) for record in found}
        # One that is missing goes alone, which tells why.
        return {change.name: None for change in group if job_codec.name_values(change.name) in moved}

    async def _change_alone(self, change: JobTransaction) -> None:
        note = change.command
        sql = self._sql.change[change.before_rev is not None, bool(note.before) if note is not None else None]
        try:
            await self._client.write("change_job", sql, *_change_values(change))
        except Refused as refused:
            found = await prove(self._client, "prove_job", self._sql.prove_state, *job_codec.name_values(change.name))
            there = job_codec.state_of(found[0]) if found else None
            if there == change.state:
                return  # by an earlier copy
            if (there.rev if there is not None else None) != change.before_rev:
                raise StaleRevision(there) from refused
            raise

    async def _put_group(self, members: Sequence[Sequence[RunDelivery]], *, keep_existing: bool) -> bool:
        """False: each again, alone, by its own caller."""
        # Two entries of one position are put once: all writers write the same, or the first stands.
        ends = {(end.name, end.position): end for member in reversed(members) for end in member}
        sql = self._sql.put_run_deliveries[keep_existing]
        try:
            await self._client.write("put_run_deliveries", sql, *_log_arrays(list(ends.values())))
        except (TransactionConflict, StoreUnavailable):
            return False
        return True


_Verdicts = dict[JobName, ClockworkError | None]
"""The result of each change; None: done. One that is missing goes alone."""


def _may_share(change: JobTransaction) -> bool:
    """True for a change that has no condition but its state's revision. One with any part that the shared statement does not
    write goes alone."""
    written = JobTransaction(
        before_rev=change.before_rev,
        state=change.state,
        definition=change.definition,
        rows=change.rows,
        entries=change.entries,
    )
    return change == written and not any(isinstance(entry, RunCompletion) for entry in change.entries)


def _change_values(change: JobTransaction) -> tuple[Any, ...]:
    """The parameters of `JobStatements.change`."""
    # In one order everywhere, so that this does not wait for an owner who finishes the same rows, and that one for this.
    taken = sorted(change.taken, key=lambda each: (each.name.shard, each.name.position))
    held = [(each.name.shard, text_of(each.name.position), each.hold) for each in taken]
    job, absent = change.definition, change.absent
    completions = [each for each in change.entries if isinstance(each, RunCompletion)]
    return (
        *job_codec.state_values(change.state),
        change.before_rev,
        *_columns(codec.ROW, [codec.row_values(row) for row in change.rows]),
        *_columns(job_codec.LOG, _log_values(change)),
        *_columns(TAKEN, held),
        *_columns(job_codec.DEFINITION, [job_codec.definition_values(job)] if job is not None else []),
        *_columns(job_codec.COMPLETED, [job_codec.completion_values(each) for each in completions]),
        *_columns(job_codec.ASKED, [job_codec.request_values(change.request)] if change.request is not None else []),
        *_columns(RESOLVED, change.calendars),
        change.references_put,
        change.references_deleted,
        absent.shard if absent is not None else None,
        text_of(absent.position) if absent is not None else None,
        *(codec.note_values(change.command) if change.command is not None else ()),
    )


def _log_values(change: JobTransaction) -> Sequence[tuple[Any, ...]]:
    """The entries of the log that are no completions."""
    return [job_codec.log_values(each) for each in change.entries if not isinstance(each, RunCompletion)]


def _log_arrays(ends: Sequence[RunDelivery | SkippedTimes]) -> Sequence[Sequence[Any]]:
    ordered = sorted(ends, key=lambda end: (*job_codec.name_values(end.name), end.position))
    return _columns(job_codec.LOG, [job_codec.log_values(end) for end in ordered])


def _columns(columns: codec.Columns, records: Sequence[tuple[Any, ...]]) -> Sequence[Sequence[Any]]:
    """The arrays of these columns, also of no record."""
    return codec.arrays(records) if records else [()] * len(columns)
