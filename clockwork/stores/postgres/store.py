"""`ScheduleStore` on PostgreSQL.

Calls of one moment share a statement (`stores.micro_batching`), and **sharing a statement never shares a failure**: where a
statement for several fails for a reason that may be one member's (a lock, a damaged value, its time limit), each goes alone.

A failed condition is believed only after a look at what stands: the cause may be an earlier copy of the same request, whose
answer was lost. That look locks what it reads, so it waits for the standby too (see `stores.postgres.statements`).
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Self

from asyncpg import Record

from clockwork.clock import Clock
from clockwork.concurrency import gather_bounded
from clockwork.domain.command_notes import CommandNote, NoteChange
from clockwork.domain.ownership import IncarnationId, NodeState, ShardClaim, ShardState
from clockwork.domain.position import Position, text_of
from clockwork.domain.schedule import BrokenRow, ClientId, Outcome, Pointer, RequestId, Retry, Row, RowName, ScheduleKey
from clockwork.domain.sharding import ShardId
from clockwork.errors import (
    ClockworkError,
    ConditionFailed,
    Fenced,
    ShardsContested,
    StoreThrottled,
    StoreUnavailable,
    TransactionConflict,
    Unreadable,
)
from clockwork.ports.read_units import current_meter
from clockwork.ports.store import CLAIMS_MAX, End, KeyState, ObserveServerTime, Page
from clockwork.ports.telemetry import Telemetry
from clockwork.settings.model import PostgresSettings
from clockwork.stores.calls import Rejected, backoff_s
from clockwork.stores.micro_batching import MicroBatcher
from clockwork.stores.postgres import codec
from clockwork.stores.postgres.client import CallLimits, PostgresClient, TlsFiles
from clockwork.stores.postgres.errors import Refused
from clockwork.stores.postgres.sharing import (
    CONFLICT_ATTEMPTS_MAX,
    CONTENTS_MAX,
    GROUPS_AT_ONCE,
    READS_MAX,
    SharedReads,
    prove,
    read_all,
    retry_on_conflict,
)
from clockwork.stores.postgres.statements import PAGE_BYTES_MAX, ROW_OVERHEAD_BYTES, Statements

YIELD_EVERY_ROWS: Final = 100
"""Rows of a page after which others get a turn: heartbeats share the event loop."""
CREATES_MAX: Final = 100
CREATE_BYTES_MAX: Final = 900 * 1024
"""A larger statement would take longer to send and to store than other callers should wait."""
PAGES_MAX: Final = 64
SHARED_PAGE_ROWS: Final = 2_000
SHARED_PAGE_BYTES: Final = 4 * PAGE_BYTES_MAX
"""Rows and bytes of the pages in one answer, in equal shares: a share that is used up only ends that page earlier."""
SHARE_ROWS_MIN: Final = 50
FINISHED_MAX: Final = 500
POSITIONS_PER_READ: Final = 100
"""Rows in one read of one caller, of up to 256 KiB each."""

log = logging.getLogger(__name__)


class PostgresScheduleStore:
    """The tables of one schema; see `ScheduleStore` for what each method promises. `async with` opens and closes it.

    Raises, from any method: StoreUnavailable and below; `Rejected` for what no retry will mend (a missing table, no right).
    """

    def __init__(
        self,
        settings: PostgresSettings,
        clock: Clock,
        observe: ObserveServerTime,
        telemetry: Telemetry,
        *,
        tls: TlsFiles | None = None,
        limits: CallLimits | None = None,
    ) -> None:
        self._observe = observe
        self.statements = sql = Statements(settings.schema)
        self.client = PostgresClient(settings, clock, telemetry, tls=tls, limits=limits)
        # A connection of its own, and one attempt: under load a call waits for a connection, so its answer would say little
        # about the time; and readiness should not wait for repeats.
        alone = replace(limits or CallLimits(), attempts_max=1)
        self._pinger = PostgresClient(settings, clock, telemetry, tls=tls, limits=alone, connections=1)
        client = self.client
        self._pointers = SharedReads[tuple[str, bytes]](client, "read_pointers", sql.read_pointers, READS_MAX)
        self._notes = SharedReads[tuple[str, bytes]](client, "read_notes", sql.read_notes, READS_MAX)
        self._ends = SharedReads[tuple[str, bytes, str]](client, "read_outcomes", sql.read_outcomes, CONTENTS_MAX)
        self._rows = SharedReads[tuple[int, str]](client, "read_rows", sql.read_rows, CONTENTS_MAX)
        self._shards = SharedReads[tuple[int]](client, "read_shards", sql.read_shards, READS_MAX)
        self._creates = {
            replacing: MicroBatcher[_Create, _Verdicts](
                partial(self._create_group, replacing=replacing),
                size_max=CREATES_MAX,
                bytes_max=CREATE_BYTES_MAX,
                at_once=GROUPS_AT_ONCE,
            )
            for replacing in (False, True)
        }
        self._pages = MicroBatcher[_PageCall, _Pages | StoreUnavailable](
            self._read_pages, size_max=PAGES_MAX, at_once=GROUPS_AT_ONCE
        )
        self._finishes = MicroBatcher[_Finish, ClockworkError | _Deleted](
            self._finish_group, size_max=FINISHED_MAX, at_once=GROUPS_AT_ONCE
        )
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.client)
            await stack.enter_async_context(self._pinger)
            self._opened = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()

    async def ping(self) -> None:
        answer = await self._pinger.call("ping", self.statements.ping, (), write=False)
        self._observe(
            sent_ms=answer.sent_ms, received_ms=answer.received_ms, server_ms=answer.rows[0][0], resolution_ms=1
        )

    # --- keys

    async def read_pointer(self, client_id: ClientId, schedule_key: ScheduleKey) -> Pointer | None:
        found = await self._pointers.get((client_id, codec.key_bytes(schedule_key)))
        return codec.pointer_of(found) if found is not None else None

    async def read_outcome(self, client_id: ClientId, schedule_key: ScheduleKey, position: Position) -> Outcome | None:
        found = await self._ends.get((client_id, codec.key_bytes(schedule_key), text_of(position)))
        return codec.outcome_of(found) if found is not None else None

    async def create(
        self, row: Row, pointer: Pointer, *, replaces: Pointer | None, note: NoteChange | None = None
    ) -> None:
        create = _Create(
            key=(pointer.client_id, codec.key_bytes(pointer.schedule_key)),
            position=text_of(row.position),
            values=(
                *codec.row_values(row),
                pointer.version,
                pointer.digest,
                pointer.expires_at_s,
                pointer.rearmed,
                pointer.discarded_at_ms,
                replaces.version if replaces is not None else None,
                text_of(replaces.position) if replaces is not None else None,
            ),
        )
        replacing = replaces is not None
        if note is not None:
            await self._create_by_command(create, note, replacing=replacing)
            return
        verdicts = await self._creates[replacing].submit(create, size_bytes=row.schedule.size_bytes, key=create.key)
        while verdicts is None:
            # The sender was cancelled, and its statement may be under way: the same create again settles it.
            verdicts = await self._creates[replacing].submit(create, size_bytes=row.schedule.size_bytes, key=create.key)
        # A create that the result does not name is sent alone, by its own caller: neither the group's slot nor any
        # other member waits for it.
        alone = create.key not in verdicts
        error = await self._create_alone(create, replacing=replacing) if alone else verdicts[create.key]
        if error is not None:
            raise error

    async def read_command_note(self, client_id: ClientId, schedule_key: ScheduleKey) -> CommandNote | None:
        found = await self._notes.get((client_id, codec.key_bytes(schedule_key)))
        return codec.note_of(found) if found is not None else None

    async def note_command(self, client_id: ClientId, schedule_key: ScheduleKey, note: NoteChange) -> None:
        key = (client_id, codec.key_bytes(schedule_key))
        sql = self.statements.note_command[bool(note.before)]
        moved = await self._retry_on_conflict("note_command", sql, *codec.note_values(note), *key)
        if not moved and not await self._is_noted(*key, note):
            raise ConditionFailed

    async def discard(self, pointer: Pointer, *, at_ms: int) -> int:
        marked = await self._retry_on_conflict("discard", self.statements.discard, *_stands(pointer), at_ms)
        if not marked:
            raise ConditionFailed
        since_ms: int = marked[0][0]
        return since_ms

    async def push_pointer_expiry(self, pointer_of: RowName, *, expires_at_s: int) -> None:
        assert pointer_of.client_id is not None, "the key is readable"
        assert pointer_of.schedule_key is not None, "the key is readable"
        await self._retry_on_conflict(
            "push_pointer_expiry",
            self.statements.push_pointer_expiry,
            pointer_of.client_id,
            codec.key_bytes(pointer_of.schedule_key),
            text_of(pointer_of.position),
            expires_at_s,
        )

    async def read_key_state(self, pointer: Pointer) -> KeyState:
        client_id, schedule_key, _, position = _stands(pointer)
        sql = self.statements.read_key_state
        (found,) = await self.client.read("read_key_state", sql, client_id, schedule_key, pointer.shard, position)
        values = list(found)
        end = 1 + len(codec.POINTER)
        return KeyState(
            pointer=codec.pointer_of(values[1:end]) if values[0] else None,
            outcome=codec.outcome_of(values[end + 1 : -1]) if values[end] else None,
            row_there=values[-1],
        )

    async def put_unreadable_outcome(self, pointer: Pointer, outcome: Outcome) -> None:
        put = await self.client.write(
            "put_unreadable_outcome",
            self.statements.put_unreadable_outcome,
            *_stands(pointer),
            pointer.shard,
            *codec.outcome_values(outcome),
        )
        if not put and not await self._is_outcome(outcome):
            raise ConditionFailed

    # --- rows, as a cancel or reschedule sees them

    async def read_row(self, name: RowName) -> Row | BrokenRow | None:
        found = await self._rows.get((name.shard, text_of(name.position)))
        return codec.row_of(found) if found is not None else None

    async def hold(self, name: RowName, request: RequestId) -> Row | BrokenRow:
        sql = self.statements.hold
        held = await self.client.write("hold", sql, name.shard, text_of(name.position), request, once=True)
        if not held:
            raise ConditionFailed
        return codec.row_of(held[0])

    async def cancel(self, name: RowName, outcome: Outcome, *, hold: RequestId, note: NoteChange | None = None) -> None:
        try:
            await self.client.write(
                "cancel",
                self.statements.cancel[bool(note.before) if note is not None else None],
                *_held(name, hold),
                *_ended(outcome),
                *(codec.note_values(note) if note is not None else ()),
            )
        except Refused:
            # By command the note must prove it too: the outcome equals that of another cancel of the same moment, which has
            # moved no note.
            if not await self._is_outcome(outcome):
                raise
            if note is not None and not await self._is_noted(
                outcome.client_id, codec.key_bytes(outcome.schedule_key), note
            ):
                raise

    async def reschedule(
        self,
        name: RowName,
        outcome: Outcome,
        *,
        hold: RequestId,
        row: Row,
        pointer: Pointer,
        replaces: Pointer,
        note: NoteChange | None = None,
    ) -> None:
        try:
            await self.client.write(
                "reschedule",
                self.statements.reschedule[bool(note.before) if note is not None else None],
                *_held(name, hold),
                *_ended(outcome),
                *codec.row_values(row),
                *codec.pointer_values(pointer),
                replaces.version,
                text_of(replaces.position),
                *(codec.note_values(note) if note is not None else ()),
            )
        except Refused:
            # All is put by one transaction: if the pointer stands at this position, everything was, by us.
            key = (pointer.client_id, codec.key_bytes(pointer.schedule_key))
            if await self._pointed_at([key]) != {key: text_of(row.position)}:
                raise

    # --- incarnations, and the shards that they own

    async def start_incarnation(self, incarnation: IncarnationId, *, node: str) -> None:
        new = NodeState(incarnation=incarnation, frontier_ms=0, fenced_at_ms=None, slots=0, hints={}, node=node)
        sql = self.statements.start_incarnation
        values = (incarnation, 0, None, 0, codec.hints_text({}), node, codec.FORMAT)
        put = await self._retry_on_conflict("start_incarnation", sql, *values)
        if not put and await self._proven_node(incarnation) != new:
            raise ConditionFailed

    async def read_nodes(self, incarnations: Sequence[IncarnationId]) -> Mapping[IncarnationId, NodeState]:
        found = await self.client.read("read_nodes", self.statements.read_nodes, list(dict.fromkeys(incarnations)))
        return {state.incarnation: state for state in map(codec.node_state_of, found)}

    async def list_nodes(self) -> Sequence[NodeState]:
        found: list[NodeState] = []
        for record in await self.client.read("list_nodes", self.statements.list_nodes):
            try:
                found.append(codec.node_state_of(record))
            except Unreadable as error:
                _log_unreadable(f"node {record[0]}", error)
        return found

    async def raise_frontier(self, incarnation: IncarnationId, *, frontier_ms: int, hints: Mapping[int, int]) -> int:
        sql = self.statements.raise_frontier
        values = (incarnation, frontier_ms, codec.hints_text(hints))
        if await self._retry_on_conflict("raise_frontier", sql, *values):
            return frontier_ms
        return (await self._unfenced(incarnation)).frontier_ms

    async def raise_slots(self, incarnation: IncarnationId, *, slots: int) -> None:
        if not await self._retry_on_conflict("raise_slots", self.statements.raise_slots, incarnation, slots):
            await self._unfenced(incarnation)

    async def fence(self, incarnation: IncarnationId, *, at_ms: int) -> NodeState:
        fenced = await self._retry_on_conflict("fence", self.statements.fence, incarnation, at_ms)
        if not fenced:
            raise Unreadable(f"incarnation {incarnation} has no item: its frontier is not known")
        return codec.node_state_of(fenced[0])

    async def delete_node(self, incarnation: IncarnationId) -> None:
        gone = await self._retry_on_conflict("delete_node", self.statements.delete_node, incarnation)
        if not gone and await self._proven_node(incarnation) is not None:
            raise ConditionFailed

    async def read_shard(self, shard: ShardId) -> ShardState:
        return _state_of(shard, await self._shards.get((shard,)))

    async def read_shards(self, shards: Sequence[ShardId]) -> Mapping[ShardId, ShardState]:
        wanted = list(dict.fromkeys(shards))
        found = await self.client.read("read_shards", self.statements.read_shards, wanted)
        records = {wanted[record[0] - 1]: tuple(record)[1:] for record in found}
        states: dict[ShardId, ShardState] = {}
        for shard in wanted:
            try:
                states[shard] = _state_of(shard, records.get(shard))
            except Unreadable as error:
                _log_unreadable(f"shard {shard}", error)
        return states

    async def read_shard_and_node(
        self, shard: ShardId, incarnation: IncarnationId | None
    ) -> tuple[ShardState, NodeState | None]:
        if incarnation is None:
            return await self.read_shard(shard), None
        sql = self.statements.read_shard_and_node
        found = await self.client.read("read_shard_and_node", sql, shard, incarnation)
        values = tuple(found[0]) if found else None
        state = _state_of(shard, values[: len(codec.SHARD)] if values is not None else None)
        assert values is not None
        node = values[len(codec.SHARD) :]
        return state, codec.node_state_of(node) if node[0] is not None else None

    async def take_shards(self, claims: Sequence[ShardClaim], *, taker: IncarnationId) -> None:
        if not 0 < len(claims) <= CLAIMS_MAX:
            raise ValueError(f"{len(claims)} claims in one transaction")
        shards = [claim.shard for claim in claims]
        epochs, floors_ms = [claim.epoch for claim in claims], [claim.floor_ms for claim in claims]
        try:
            await self.client.write("take_shards", self.statements.take_shards, taker, shards, epochs, floors_ms)
        except Refused as refused:
            found = await self._prove("prove_shards", self.statements.prove_shards, shards)
            states = {record[0]: codec.shard_state_of(tuple(record)[1:]) for record in found}
            if all(_is_taken(states.get(claim.shard), claim, taker) for claim in claims):
                return  # by an earlier copy
            await self._unfenced(taker)
            contested = [
                claim.shard
                for claim in claims
                if (state := states.get(claim.shard)) is None or state.epoch != claim.epoch
            ]
            if contested:
                raise ShardsContested(contested) from None
            raise TransactionConflict("the shards were changed meanwhile") from refused

    async def release_shard(self, shard: ShardId, *, epoch: int, owner: IncarnationId, floor_ms: int) -> None:
        sql = self.statements.release_shard
        if await self._retry_on_conflict("release_shard", sql, shard, epoch, owner, floor_ms):
            return
        found = await self._prove("prove_shards", self.statements.prove_shards, [shard])
        # Only its owner releases a shard, once at each epoch.
        there = _state_of(shard, tuple(found[0])[1:] if found else None)
        if there != ShardState(epoch=epoch, owner=None, floor_ms=floor_ms):
            raise ConditionFailed

    # --- rows, as their owner sees them

    async def read_page(
        self, shard: ShardId, *, after: Position | None, rows_max: int, due_ms_max: int | None = None
    ) -> Page:
        call = _PageCall(shard, text_of(after) if after is not None else "0", rows_max)
        pages = await self._pages.submit(call)
        while pages is None:
            pages = await self._pages.submit(call)
        if isinstance(pages, StoreUnavailable):
            # The statement failed for all of its pages. One page may be the cause, and must not stop every shard of
            # this process.
            pages = await self._read_pages([call])
            if isinstance(pages, StoreUnavailable):
                raise pages
        records = pages.records.get(id(call), [])
        if (meter := current_meter()) is not None:
            meter.charge_rows(len(records))
        rows = await _readable(records, due_ms_max=due_ms_max)
        if len(rows) < len(records):
            return Page(rows=tuple(rows), next_after=rows[-1].position)
        size_bytes = sum(_size_bytes(record) for record in records)
        ended = len(rows) < min(rows_max, pages.rows_max) and size_bytes <= pages.bytes_max
        return Page(rows=tuple(rows), next_after=None if ended else rows[-1].position)

    async def drop_hold(self, name: RowName) -> bool:
        return bool(await self.client.write("drop_hold", self.statements.drop_hold, name.shard, text_of(name.position)))

    async def set_retry(self, name: RowName, retry: Retry, *, drop_hold: bool) -> bool:
        mark = (retry.at_ms, retry.epoch, retry.attempts, retry.last_refusal)
        values = (name.shard, text_of(name.position), *mark, drop_hold)
        return bool(await self.client.write("set_retry", self.statements.set_retry, *values))

    async def read_rows(self, shard: ShardId, positions: Sequence[Position]) -> Mapping[Position, Row | BrokenRow]:
        places = [(shard, text_of(position)) for position in dict.fromkeys(positions)]
        rows = await read_all_rows(self.client, self.statements, places)
        return {row.position: row for row in rows}

    async def finish(self, shard: ShardId, ends: Sequence[End]) -> None:
        # The rows are in the same order everywhere, so that two owners that finish the same rows do not wait for each
        # other.
        left = sorted(ends, key=lambda end: end.row.position)
        chunks = [left[start : start + FINISHED_MAX] for start in range(0, len(left), FINISHED_MAX)]
        await gather_bounded(partial(self._finish_chunk, shard), chunks, at_once=GROUPS_AT_ONCE)

    # --- parts: creates

    async def _create_group(self, group: Sequence["_Create"], *, replacing: bool) -> "_Verdicts":
        if len(group) == 1:
            return {group[0].key: await self._create_alone(group[0], replacing=replacing)}
        try:
            return await self._create_once(group, replacing=replacing)
        except (Refused, TransactionConflict, Rejected):
            # The group failed by the fault of members that the error does not name. Nothing was written.
            return {}
        except StoreUnavailable as error:
            return dict.fromkeys((member.key for member in group), error)

    async def _create_alone(self, create: "_Create", *, replacing: bool) -> ClockworkError | None:
        try:
            return (await self._create_once([create], replacing=replacing))[create.key]
        except (ConditionFailed, TransactionConflict, StoreUnavailable) as error:
            return error

    async def _create_once(self, group: Sequence["_Create"], *, replacing: bool) -> "_Verdicts":
        """Raises: Refused (a row stands without its pointer), TransactionConflict, StoreUnavailable."""
        sql = self.statements.create_replacing if replacing else self.statements.create_fresh
        ordered = sorted(group, key=lambda member: member.key)
        put = await self.client.write("create", sql, *codec.arrays([member.values for member in ordered]))
        done = {record[0] for record in put}
        verdicts: _Verdicts = {member.key: None for member in group if member.position in done}
        left = [member for member in ordered if member.position not in done]
        if left:
            # Pointer and row are put by one transaction: if the pointer stands at this position, both were, by us.
            try:
                pointed = await self._pointed_at([member.key for member in left])
            except StoreUnavailable:
                if len(group) == 1:
                    raise
                return verdicts  # one of these pointers is locked: each of them is sent alone
            for member in left:
                verdicts[member.key] = None if pointed.get(member.key) == member.position else ConditionFailed()
        return verdicts

    async def _create_by_command(self, create: "_Create", note: NoteChange, *, replacing: bool) -> None:
        sql = self.statements.create_by_command[replacing, bool(note.before)]
        try:
            await self.client.write("create", sql, *codec.arrays([create.values]), *codec.note_values(note))
        except Refused:
            if await self._pointed_at([create.key]) != {create.key: create.position}:
                raise

    # --- parts: proofs of an earlier copy

    async def _prove(self, operation: str, sql: str, *args: Any) -> list[Record]:
        return await prove(self.client, operation, sql, *args)

    async def _pointed_at(self, keys: Sequence[tuple[str, bytes]]) -> dict[tuple[str, bytes], str]:
        """The positions that these keys point to, as text."""
        found = await self._prove("prove_pointers", self.statements.prove_pointers, *codec.arrays(sorted(keys)))
        ordered = sorted(keys)
        return {ordered[record[0] - 1]: record[1] for record in found}

    async def _is_outcome(self, outcome: Outcome) -> bool:
        """True if this outcome stands, in every field."""
        key = (outcome.client_id, codec.key_bytes(outcome.schedule_key), text_of(outcome.position))
        found = await self._prove("prove_outcome", self.statements.prove_outcome, *key)
        try:
            return bool(found) and codec.outcome_of(found[0]) == outcome
        except Unreadable:
            return False

    async def _is_noted(self, client_id: str, schedule_key: bytes, note: NoteChange) -> bool:
        found = await self._prove("prove_note", self.statements.prove_note, client_id, schedule_key)
        return bool(found) and found[0][0] == note.after.by

    async def _proven_node(self, incarnation: IncarnationId) -> NodeState | None:
        found = await self._prove("prove_node", self.statements.prove_node, incarnation)
        return codec.node_state_of(found[0]) if found else None

    async def _unfenced(self, incarnation: IncarnationId) -> NodeState:
        """Raises: Fenced."""
        stored = await self._proven_node(incarnation)
        if stored is None or stored.fenced_at_ms is not None:
            raise Fenced(f"incarnation {incarnation} is {'fenced' if stored else 'gone'}")
        return stored

    # --- parts: pages

    async def _read_pages(self, calls: Sequence["_PageCall"]) -> "_Pages | StoreUnavailable":
        share = max(SHARE_ROWS_MIN, SHARED_PAGE_ROWS // len(calls))
        rows_max = min(share, max(call.rows_max for call in calls)) if len(calls) > 1 else calls[0].rows_max
        bytes_max = min(PAGE_BYTES_MAX, SHARED_PAGE_BYTES // len(calls))
        shards, after = codec.arrays([(call.shard, call.after) for call in calls])
        try:
            # Not `read`: each caller is charged for its own page.
            values = (shards, after, rows_max, bytes_max)
            found = (await self.client.call("read_page", self.statements.read_pages, values, write=False)).rows
        except StoreUnavailable as error:
            return error
        pages = _Pages({}, rows_max, bytes_max)
        for record in found:
            call = calls[record[0] - 1]
            page = pages.records.setdefault(id(call), [])
            if len(page) < call.rows_max:
                page.append(record)
        return pages

    # --- parts: ends

    async def _finish_chunk(self, shard: ShardId, ends: Sequence[End]) -> None:
        if not ends:
            return
        mine = _Finish(shard, ends)
        deleted = await self._finishes.submit(mine, size=len(ends), key=shard)
        while deleted is None:
            deleted = await self._finishes.submit(mine, size=len(ends), key=shard)
        if isinstance(deleted, ClockworkError):
            deleted = await self._finish_alone(mine)
        # Row and outcome change together, so of a row that is gone the outcome is there; but an older node may have left one
        # without content.
        missing = [end for end in ends if (shard, text_of(end.row.position)) not in deleted]
        await self._put_outcomes([end for end in missing if end.outcome is not None])

    async def _finish_group(self, members: Sequence["_Finish"]) -> "ClockworkError | _Deleted":
        try:
            return await self._finish_once(members)
        except (TransactionConflict, StoreUnavailable) as error:
            # Each is sent again alone, by its own caller: a `finish` may be done twice.
            return error

    async def _finish_alone(self, member: "_Finish") -> "_Deleted":
        attempt = 1
        while True:
            try:
                return await self._finish_once([member])
            except TransactionConflict as conflict:
                if attempt == CONFLICT_ATTEMPTS_MAX:
                    raise StoreThrottled("a transaction stood in the way for too long") from conflict
            await asyncio.sleep(backoff_s(attempt))
            attempt += 1

    async def _finish_once(self, members: Sequence["_Finish"]) -> "_Deleted":
        ordered = sorted(members, key=lambda member: member.shard)
        calls = [(member.shard, *codec.arrays(list(map(_end_values, member.ends))), codec.FORMAT) for member in ordered]
        found = await self.client.write_many("finish", self.statements.finish, calls)
        return {(record[0], record[1]) for record in found}

    async def _put_outcomes(self, ends: Sequence[End]) -> None:
        left = list(ends)
        while left:
            chunk: list[tuple[Any, ...]] = []
            size_bytes = 0
            while left and len(chunk) < CREATES_MAX and (not chunk or size_bytes < CREATE_BYTES_MAX):
                end = left.pop(0)
                assert end.outcome is not None
                size_bytes += (
                    end.outcome.schedule.size_bytes if end.outcome.schedule is not None else ROW_OVERHEAD_BYTES
                )
                chunk.append((*codec.outcome_values(end.outcome), end.only_if_absent))
            await self._retry_on_conflict("put_outcomes", self.statements.put_outcomes, *codec.arrays(chunk))

    # --- parts: calls

    async def _retry_on_conflict(self, operation: str, sql: str, *args: Any) -> list[Record]:
        return await retry_on_conflict(self.client, operation, sql, *args)


# --- members of shared statements


@dataclass(frozen=True, slots=True, eq=False)
class _Create:
    key: tuple[str, bytes]
    position: str
    values: tuple[Any, ...]


_Verdicts = dict[tuple[str, bytes], ClockworkError | None]
"""The result of each create; None: done. One that is missing goes alone."""


@dataclass(frozen=True, slots=True, eq=False)
class _PageCall:
    shard: ShardId
    after: str
    rows_max: int


@dataclass(frozen=True, slots=True)
class _Pages:
    records: dict[int, list[Record]]
    """By the identity of the call."""
    rows_max: int
    bytes_max: int
    """The share of each page."""


@dataclass(frozen=True, slots=True, eq=False)
class _Finish:
    shard: ShardId
    ends: Sequence[End]


_Deleted = set[tuple[int, str]]
"""Shards and positions of the rows that a `finish` has deleted."""


# --- parts


async def read_all_rows(
    client: PostgresClient, statements: Statements, places: Sequence[tuple[int, str]]
) -> list[Row | BrokenRow]:
    """Reads the rows at these places (shard, and position as text), any number of them. Raises: StoreUnavailable."""
    found = await read_all(client, "read_rows", statements.read_rows, places, size_max=POSITIONS_PER_READ)
    return await _readable(found)


async def _readable(records: Sequence[Record], *, due_ms_max: int | None = None) -> list[Row | BrokenRow]:
    """The rows in records whose first column is the number of a call, up to the first that is due after `due_ms_max`."""
    rows: list[Row | BrokenRow] = []
    for nth, record in enumerate(records, start=1):
        if nth % YIELD_EVERY_ROWS == 0:
            await asyncio.sleep(0)
        rows.append(codec.row_of(tuple(record)[1:]))
        if due_ms_max is not None and rows[-1].due_ms > due_ms_max:
            break
    return rows


def _size_bytes(record: Record) -> int:
    return len(record["task_data"]) + len(record["headers"] or b"") + ROW_OVERHEAD_BYTES


def _stands(pointer: Pointer) -> tuple[str, bytes, int, str]:
    return pointer.client_id, codec.key_bytes(pointer.schedule_key), pointer.version, text_of(pointer.position)


def _held(name: RowName, hold: RequestId) -> tuple[int, str, str]:
    return name.shard, text_of(name.position), hold


def _ended(outcome: Outcome) -> tuple[Any, ...]:
    return (*codec.end_values(outcome), outcome.schedule is not None, codec.FORMAT)


def _end_values(end: End) -> tuple[Any, ...]:
    if end.outcome is None:
        nothing: tuple[Any, ...] = (None,) * (len(codec.END) - 3)
        return (None, None, text_of(end.row.position), *nothing, False, False)
    return (*codec.end_values(end.outcome), end.outcome.schedule is not None, end.only_if_absent)


def _is_taken(state: ShardState | None, claim: ShardClaim, taker: IncarnationId) -> bool:
    """True if this shard was given to the taker by this very claim: only the taker itself writes its name, and an epoch is
    given once."""
    return state is not None and (state.epoch, state.owner) == (claim.epoch + 1, taker)


def _state_of(shard: ShardId, values: Sequence[Any] | None) -> ShardState:
    if values is None:
        raise Unreadable(f"shard {shard} has no item: its floor is not known")
    return codec.shard_state_of(values)


def _log_unreadable(name: str, error: Exception) -> None:
    log.error(
        "The item of a shard or an incarnation cannot be read",
        extra={"event": "store.owner_unreadable", "item": name, "error": str(error), "once_per": f"{name}: {error}"},
    )
