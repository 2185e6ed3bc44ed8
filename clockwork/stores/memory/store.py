"""The ports of `clockwork.ports.store` in memory: for tests and simulation, and the contract as a program to read.

Correct, not convenient: pages end where DynamoDB's end, conditions fail where its conditions fail, a shard that was not
made is an error. Values are frozen, so they are stored as they are.

A simulation overrides two methods; here both do the plain thing:
- `_serve` surrounds every request: it can be delayed or lost, or its answer can;
- `_apply` applies the writes of a decided transaction: they can be applied one by one, with time in between, while `busy`
  names those still missing, so that other writers get `TransactionConflict`, as on DynamoDB.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final, TypeVar

from clockwork.domain.command_notes import CommandNote, NoteChange
from clockwork.domain.ownership import IncarnationId, NodeState, ShardClaim, ShardState
from clockwork.domain.pauses import NOTHING_PAUSED, Pauses
from clockwork.domain.position import Position
from clockwork.domain.schedule import (
    BrokenRow,
    ClientId,
    Outcome,
    Pointer,
    RequestId,
    Retry,
    Row,
    RowName,
    ScheduleKey,
)
from clockwork.domain.sharding import ShardId
from clockwork.errors import (
    ConditionFailed,
    Fenced,
    ShardsContested,
    StoreThrottled,
    TransactionConflict,
    Unreadable,
)
from clockwork.ports.store import CLAIMS_MAX, End, KeyName, KeyState, OutcomeKey, Page, PointerPage, RowKey

PAGE_BYTES_MAX: Final = 1024 * 1024
"""A page ends with the row that makes it larger than this."""

ItemKey = tuple[object, ...]
"""The name of an item of any table, as in `busy`."""
Write = Callable[[], None]
"""One item's change."""

_T = TypeVar("_T")


class MemoryScheduleStore:
    """`ScheduleStore` over dictionaries. It needs no opening and no closing."""

    def __init__(self, *, shards: int) -> None:
        self.rows: dict[RowKey, Row | BrokenRow] = {}
        self.pointers: dict[KeyName, Pointer] = {}
        self.outcomes: dict[OutcomeKey, Outcome] = {}
        self.notes: dict[KeyName, CommandNote] = {}
        self.shard_states: dict[ShardId, ShardState] = {
            ShardId(number): ShardState(epoch=0, owner=None, floor_ms=0) for number in range(shards)
        }
        self.nodes: dict[IncarnationId, NodeState] = {}
        self.busy: set[ItemKey] = set()
        """The items of transactions that are decided and not yet applied."""
        self._order: dict[ShardId, list[Position]] = {}
        """The positions of each shard, sorted."""
        self._broken_holds: dict[RowKey, RequestId] = {}
        """The holds of rows that cannot be read; such a row itself is kept as it is."""

    # --- overridden by a simulation

    async def _serve(self, operation: str, effect: Callable[[], _T]) -> _T:
        """Does one request. `effect` is its effect at the store, at one moment; it may raise."""
        return effect()

    def _apply(self, writes: Mapping[ItemKey, Write]) -> None:
        """Applies a transaction, whose conditions hold."""
        for write in writes.values():
            write()

    # --- keys

    async def read_pointer(self, client_id: ClientId, schedule_key: ScheduleKey) -> Pointer | None:
        return await self._serve("read_pointer", lambda: self.pointers.get((client_id, schedule_key)))

    async def read_outcome(self, client_id: ClientId, schedule_key: ScheduleKey, position: Position) -> Outcome | None:
        return await self._serve("read_outcome", lambda: self.outcomes.get((client_id, schedule_key, position)))

    async def create(
        self, row: Row, pointer: Pointer, *, replaces: Pointer | None, note: NoteChange | None = None
    ) -> None:
        def effect() -> None:
            there = self.pointers.get(_name_of(pointer))
            self._check_free(_name_of(pointer), _row_key(row))
            self._check_note_free(_name_of(pointer), note)
            if there is not None and there.position == row.position:
                return  # the same call again
            if not _same_pointer(there, replaces) or _row_key(row) in self.rows:
                raise ConditionFailed
            noted = self._move_note(_name_of(pointer), note)
            self._apply(self._put_pointer(pointer) | self._put_row(row) | noted)

        await self._serve("create", effect)

    async def read_command_note(self, client_id: ClientId, schedule_key: ScheduleKey) -> CommandNote | None:
        return await self._serve("read_command_note", lambda: self.notes.get((client_id, schedule_key)))

    async def note_command(self, client_id: ClientId, schedule_key: ScheduleKey, note: NoteChange) -> None:
        def effect() -> None:
            name = (client_id, schedule_key)
            self._check_undisturbed(_note_key(name))
            if self._was_moved(name, note):
                return  # the same call again
            for write in self._move_note(name, note).values():
                write()

        await self._serve("note_command", effect)

    async def discard(self, pointer: Pointer, *, at_ms: int) -> int:
        def effect() -> int:
            name = _name_of(pointer)
            self._check_undisturbed(name)
            there = self.pointers.get(name)
            if there is None or not _same_pointer(there, pointer):
                raise ConditionFailed
            since_ms = there.discarded_at_ms if there.discarded_at_ms is not None else at_ms
            self.pointers[name] = replace(there, discarded_at_ms=since_ms)
            return since_ms

        return await self._serve("discard", effect)

    async def push_pointer_expiry(self, pointer_of: RowName, *, expires_at_s: int) -> None:
        def effect() -> None:
            assert pointer_of.client_id is not None, "the key is readable"
            assert pointer_of.schedule_key is not None, "the key is readable"
            name = (pointer_of.client_id, pointer_of.schedule_key)
            self._check_undisturbed(name)
            pointer = self.pointers.get(name)
            if pointer and pointer.position == pointer_of.position and pointer.expires_at_s < expires_at_s:
                self.pointers[name] = replace(pointer, expires_at_s=expires_at_s)

        await self._serve("push_pointer_expiry", effect)

    async def read_key_state(self, pointer: Pointer) -> KeyState:
        def effect() -> KeyState:
            outcome_place = (*_name_of(pointer), pointer.position)
            row_place = (pointer.shard, pointer.position)
            self._check_free(_name_of(pointer), outcome_place, row_place)
            return KeyState(
                pointer=self.pointers.get(_name_of(pointer)),
                outcome=self.outcomes.get(outcome_place),
                row_there=row_place in self.rows,
            )

        return await self._serve("read_key_state", effect)

    async def put_unreadable_outcome(self, pointer: Pointer, outcome: Outcome) -> None:
        def effect() -> None:
            name, row_place = _name_of(pointer), (pointer.shard, pointer.position)
            self._check_free(name, row_place, outcome_key(outcome))
            there = self.outcomes.get(outcome_key(outcome))
            if there == outcome:
                return  # the same call again
            if there is not None or row_place in self.rows or not _same_pointer(self.pointers.get(name), pointer):
                raise ConditionFailed
            self._apply(self._put_outcome(outcome) | {name: _no_change, row_place: _no_change})

        await self._serve("put_unreadable_outcome", effect)

    # --- rows, as a cancel or reschedule sees them

    async def read_row(self, name: RowName) -> Row | BrokenRow | None:
        return await self._serve("read_row", lambda: self.rows.get((name.shard, name.position)))

    async def hold(self, name: RowName, request: RequestId) -> Row | BrokenRow:
        def effect() -> Row | BrokenRow:
            place = (name.shard, name.position)
            row = self._row_to_update(place)
            if row is None:
                raise ConditionFailed
            if isinstance(row, BrokenRow):
                self._broken_holds[place] = request
                return row
            held = self.rows[place] = replace(row, hold=request)
            return held

        return await self._serve("hold", effect)

    async def cancel(self, name: RowName, outcome: Outcome, *, hold: RequestId, note: NoteChange | None = None) -> None:
        def effect() -> None:
            key = (outcome.client_id, outcome.schedule_key)
            self._check_free((name.shard, name.position), outcome_key(outcome))
            self._check_note_free(key, note)
            if self.outcomes.get(outcome_key(outcome)) == outcome and self._was_moved(key, note):
                return  # the same call again
            self._check_held(name, outcome, hold)
            noted = self._move_note(key, note)
            self._apply(self._delete_row(name.shard, name.position) | self._put_outcome(outcome) | noted)

        await self._serve("cancel", effect)

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
        def effect() -> None:
            there = self.pointers.get(_name_of(pointer))
            self._check_free((name.shard, name.position), outcome_key(outcome), _row_key(row), _name_of(pointer))
            self._check_note_free(_name_of(pointer), note)
            if there is not None and there.position == row.position:
                return  # the same call again
            self._check_held(name, outcome, hold)
            if not _same_pointer(there, replaces) or _row_key(row) in self.rows:
                raise ConditionFailed
            self._apply(
                self._delete_row(name.shard, name.position)
                | self._put_outcome(outcome)
                | self._put_row(row)
                | self._put_pointer(pointer)
                | self._move_note(_name_of(pointer), note)
            )

        await self._serve("reschedule", effect)

    # --- incarnations, and the shards that they own

    async def start_incarnation(self, incarnation: IncarnationId, *, node: str) -> None:
        def effect() -> None:
            new = NodeState(incarnation=incarnation, frontier_ms=0, fenced_at_ms=None, slots=0, hints={}, node=node)
            self._check_undisturbed(_node_key(incarnation))
            if self.nodes.setdefault(incarnation, new) != new:
                raise ConditionFailed

        await self._serve("start_incarnation", effect)

    async def read_nodes(self, incarnations: Sequence[IncarnationId]) -> Mapping[IncarnationId, NodeState]:
        def effect() -> Mapping[IncarnationId, NodeState]:
            return {each: self.nodes[each] for each in incarnations if each in self.nodes}

        return await self._serve("read_nodes", effect)

    async def list_nodes(self) -> Sequence[NodeState]:
        return await self._serve("list_nodes", lambda: list(self.nodes.values()))

    async def raise_frontier(self, incarnation: IncarnationId, *, frontier_ms: int, hints: Mapping[int, int]) -> int:
        def effect() -> int:
            self._check_undisturbed(_node_key(incarnation))
            node = self._unfenced(incarnation)
            if node.frontier_ms >= frontier_ms:
                return node.frontier_ms
            self.nodes[incarnation] = replace(node, frontier_ms=frontier_ms, hints={**node.hints, **hints})
            return frontier_ms

        return await self._serve("raise_frontier", effect)

    async def raise_slots(self, incarnation: IncarnationId, *, slots: int) -> None:
        def effect() -> None:
            self._check_undisturbed(_node_key(incarnation))
            node = self._unfenced(incarnation)
            self.nodes[incarnation] = replace(node, slots=max(node.slots, slots))

        await self._serve("raise_slots", effect)

    async def fence(self, incarnation: IncarnationId, *, at_ms: int) -> NodeState:
        def effect() -> NodeState:
            self._check_undisturbed(_node_key(incarnation))
            node = self.nodes.get(incarnation)
            if node is None:
                raise Unreadable(f"incarnation {incarnation} has no item: its frontier is not known")
            if node.fenced_at_ms is None:
                node = self.nodes[incarnation] = replace(node, fenced_at_ms=at_ms)
            return node

        return await self._serve("fence", effect)

    async def delete_node(self, incarnation: IncarnationId) -> None:
        def effect() -> None:
            self._check_undisturbed(_node_key(incarnation))
            node = self.nodes.get(incarnation)
            if node is not None and node.fenced_at_ms is None:
                raise ConditionFailed
            self.nodes.pop(incarnation, None)

        await self._serve("delete_node", effect)

    async def read_shard(self, shard: ShardId) -> ShardState:
        return await self._serve("read_shard", lambda: self._state(shard))

    async def read_shards(self, shards: Sequence[ShardId]) -> Mapping[ShardId, ShardState]:
        def effect() -> Mapping[ShardId, ShardState]:
            return {shard: self.shard_states[shard] for shard in shards if shard in self.shard_states}

        return await self._serve("read_shards", effect)

    async def read_shard_and_node(
        self, shard: ShardId, incarnation: IncarnationId | None
    ) -> tuple[ShardState, NodeState | None]:
        def effect() -> tuple[ShardState, NodeState | None]:
            return self._state(shard), self.nodes.get(incarnation) if incarnation is not None else None

        return await self._serve("read_shard_and_node", effect)

    async def take_shards(self, claims: Sequence[ShardClaim], *, taker: IncarnationId) -> None:
        def effect() -> None:
            self._check_free(_node_key(taker), *(_shard_key(claim.shard) for claim in claims))
            states = [(claim, self.shard_states.get(claim.shard)) for claim in claims]
            if all(state and (state.epoch, state.owner) == (claim.epoch + 1, taker) for claim, state in states):
                return  # the same call again
            self._unfenced(taker)
            if contested := [claim.shard for claim, state in states if state is None or state.epoch != claim.epoch]:
                raise ShardsContested(contested)
            writes = {_shard_key(claim.shard): self._give(claim, taker) for claim in claims}
            self._apply({_node_key(taker): _no_change, **writes})

        if not 0 < len(claims) <= CLAIMS_MAX:
            raise ValueError(f"{len(claims)} claims in one transaction")
        await self._serve("take_shards", effect)

    async def release_shard(self, shard: ShardId, *, epoch: int, owner: IncarnationId, floor_ms: int) -> None:
        def effect() -> None:
            self._check_undisturbed(_shard_key(shard))
            released = ShardState(epoch=epoch, owner=None, floor_ms=floor_ms)
            there = self._state(shard)
            if there == released:
                return  # the same call again
            if (there.epoch, there.owner) != (epoch, owner):
                raise ConditionFailed
            self.shard_states[shard] = released

        await self._serve("release_shard", effect)

    # --- rows, as their owner sees them

    async def read_page(
        self, shard: ShardId, *, after: Position | None, rows_max: int, due_ms_max: int | None = None
    ) -> Page:
        def effect() -> Page:
            order = self._order.get(shard, [])
            rows: list[Row | BrokenRow] = []
            page_bytes = 0
            start = bisect_right(order, after) if after is not None else 0
            for index in range(start, len(order)):
                position = order[index]
                rows.append(self.rows[(shard, position)])
                page_bytes += _size_bytes(rows[-1])
                is_last = due_ms_max is not None and rows[-1].due_ms > due_ms_max
                if is_last or len(rows) == rows_max or page_bytes > PAGE_BYTES_MAX:
                    # Even if this is the last row: the store does not look further.
                    return Page(rows=tuple(rows), next_after=position)
            return Page(rows=tuple(rows), next_after=None)

        return await self._serve("read_page", effect)

    async def drop_hold(self, name: RowName) -> bool:
        return await self._serve("drop_hold", lambda: self._change_row(name, None, drop_hold=True))

    async def set_retry(self, name: RowName, retry: Retry, *, drop_hold: bool) -> bool:
        return await self._serve("set_retry", lambda: self._change_row(name, retry, drop_hold=drop_hold))

    async def read_rows(self, shard: ShardId, positions: Sequence[Position]) -> Mapping[Position, Row | BrokenRow]:
        def effect() -> Mapping[Position, Row | BrokenRow]:
            return {p: self.rows[(shard, p)] for p in positions if (shard, p) in self.rows}

        return await self._serve("read_rows", effect)

    async def finish(self, shard: ShardId, ends: Sequence[End]) -> None:
        def effect() -> None:
            outcomes = [end.outcome for end in ends if end.outcome is not None]
            self._check_undisturbed(*map(outcome_key, outcomes), *((shard, end.row.position) for end in ends))
            for end in ends:
                if end.outcome is not None:
                    place = outcome_key(end.outcome)
                    if not (end.only_if_absent and place in self.outcomes):
                        self.outcomes[place] = end.outcome
                self._remove(shard, end.row.position)

        await self._serve("finish", effect)

    async def ping(self) -> None:
        await self._serve("ping", lambda: None)

    # --- by hand

    def put_by_hand(self, row: Row | BrokenRow) -> None:
        """Puts a row without a create, to play damage, or to begin a test with."""
        self._insert(row)

    # --- parts

    def _state(self, shard: ShardId) -> ShardState:
        if shard not in self.shard_states:
            raise Unreadable(f"shard {shard} has no item: its floor is not known")
        return self.shard_states[shard]

    def _unfenced(self, incarnation: IncarnationId) -> NodeState:
        node = self.nodes.get(incarnation)
        if node is None or node.fenced_at_ms is not None:
            raise Fenced(f"incarnation {incarnation} is {'fenced' if node else 'gone'}")
        return node

    def _give(self, claim: ShardClaim, taker: IncarnationId) -> Write:
        def write() -> None:
            self.shard_states[claim.shard] = ShardState(epoch=claim.epoch + 1, owner=taker, floor_ms=claim.floor_ms)

        return write

    def _check_free(self, *places: ItemKey) -> None:
        if self.busy.intersection(places):
            raise TransactionConflict

    def _check_undisturbed(self, *places: ItemKey) -> None:
        """Raises for writes that on DynamoDB wait for a transaction in their way and at last give up."""
        if self.busy.intersection(places):
            raise StoreThrottled("a transaction stood in the way for too long")

    def _check_held(self, name: RowName, outcome: Outcome, hold: RequestId) -> None:
        """Checks the condition of a cancel and a reschedule: the row bears their hold, and has no outcome."""
        place = (name.shard, name.position)
        row = self.rows.get(place)
        held = row.hold if isinstance(row, Row) else self._broken_holds.get(place)
        if row is None or held != hold or outcome_key(outcome) in self.outcomes:
            raise ConditionFailed

    def _check_note_free(self, name: KeyName, note: NoteChange | None) -> None:
        if note is not None:
            self._check_free(_note_key(name))

    def _was_moved(self, name: KeyName, note: NoteChange | None) -> bool:
        """True if an earlier copy of the call with this note was done. An outcome alone does not prove that: two
        cancels of one moment write the same outcome."""
        there = self.notes.get(name)
        return note is None or (there is not None and there.by == note.after.by)

    def _move_note(self, name: KeyName, note: NoteChange | None) -> dict[ItemKey, Write]:
        if note is None:
            return {}
        there, after = self.notes.get(name), note.after
        if (there.offsets if there is not None else ()) != note.before:
            raise ConditionFailed

        def write() -> None:
            self.notes[name] = after

        return {_note_key(name): write}

    def _row_to_update(self, place: RowKey) -> Row | BrokenRow | None:
        self._check_free(place)
        return self.rows.get(place)

    def _change_row(self, name: RowName, retry: Retry | None, *, drop_hold: bool) -> bool:
        place = (name.shard, name.position)
        row = self._row_to_update(place)
        if isinstance(row, Row):
            self.rows[place] = replace(
                row, hold=None if drop_hold else row.hold, retry=retry if retry is not None else row.retry
            )
        elif row is not None and drop_hold:
            self._broken_holds.pop(place, None)
        return row is not None

    def _put_pointer(self, pointer: Pointer) -> dict[ItemKey, Write]:
        def write() -> None:
            self.pointers[_name_of(pointer)] = pointer

        return {_name_of(pointer): write}

    def _put_outcome(self, outcome: Outcome) -> dict[ItemKey, Write]:
        def write() -> None:
            self.outcomes[outcome_key(outcome)] = outcome

        return {outcome_key(outcome): write}

    def _put_row(self, row: Row) -> dict[ItemKey, Write]:
        return {_row_key(row): lambda: self._insert(row)}

    def _delete_row(self, shard: ShardId, position: Position) -> dict[ItemKey, Write]:
        return {(shard, position): lambda: self._remove(shard, position)}

    def _insert(self, row: Row | BrokenRow) -> None:
        if _row_key(row) not in self.rows:
            insort(self._order.setdefault(row.shard, []), row.position)
        self.rows[_row_key(row)] = row

    def _remove(self, shard: ShardId, position: Position) -> None:
        self._broken_holds.pop((shard, position), None)
        if self.rows.pop((shard, position), None) is not None:
            order = self._order[shard]
            del order[bisect_left(order, position)]


class MemoryScheduleSearch:
    """`ScheduleSearch` over the store's dictionaries. It never lags; tests of a lag override `list_pointers`."""

    def __init__(self, store: MemoryScheduleStore) -> None:
        self._store = store

    async def list_pointers(
        self, client_id: ClientId, *, first: Position, last: Position, pointers_max: int, descending: bool = False
    ) -> PointerPage:
        """See `ScheduleSearch`."""
        inside = sorted(
            (p for p in self._store.pointers.values() if p.client_id == client_id and first <= p.position <= last),
            key=lambda pointer: pointer.position,
            reverse=descending,
        )
        more = len(inside) > pointers_max
        return PointerPage(
            pointers=tuple(inside[:pointers_max]), next_from=inside[pointers_max].position if more else None
        )

    async def count_pointers(self, client_id: ClientId, *, first: Position, at_most: int) -> int:
        """See `ScheduleSearch`."""
        ahead = (p for p in self._store.pointers.values() if p.client_id == client_id and p.position >= first)
        return sum(1 for _ in islice(ahead, at_most))

    async def read_pointers(self, names: Sequence[KeyName]) -> Mapping[KeyName, Pointer]:
        """See `ScheduleSearch`."""
        return {name: self._store.pointers[name] for name in names if name in self._store.pointers}

    async def peek_pointers(self, names: Sequence[KeyName]) -> Mapping[KeyName, Pointer]:
        """See `ScheduleSearch`."""
        return await self.read_pointers(names)

    async def peek_rows(self, shard: ShardId, *, after: Position | None, rows_max: int) -> Page:
        """See `ScheduleSearch`."""
        return await self._store.read_page(shard, after=after, rows_max=rows_max)

    async def read_rows_at(self, keys: Sequence[RowKey]) -> Mapping[RowKey, Row | BrokenRow]:
        """See `ScheduleSearch`."""
        return {place: self._store.rows[place] for place in keys if place in self._store.rows}

    async def read_outcomes(self, keys: Sequence[OutcomeKey]) -> Mapping[OutcomeKey, Outcome]:
        """See `ScheduleSearch`."""
        return {place: self._store.outcomes[place] for place in keys if place in self._store.outcomes}

    async def read_ended(self, client_id: ClientId, schedule_key: ScheduleKey) -> Sequence[Position]:
        """See `ScheduleSearch`."""
        return [at for client, key, at in self._store.outcomes if (client, key) == (client_id, schedule_key)]


class MemoryPauses:
    """`PauseStore` as one value, shared by all the nodes of a test."""

    def __init__(self) -> None:
        self.stored = NOTHING_PAUSED

    async def read_pauses(self) -> Pauses:
        """See `PauseStore`."""
        return self.stored

    async def write_pauses(self, pauses: Pauses) -> None:
        """See `PauseStore`."""
        if self.stored.version != pauses.version - 1:
            raise ConditionFailed
        self.stored = pauses


def _note_key(name: KeyName) -> ItemKey:
    return ("note", *name)


def _shard_key(shard: ShardId) -> ItemKey:
    return ("shard", shard)


def _node_key(incarnation: IncarnationId) -> ItemKey:
    return ("node", "", incarnation)


def _no_change() -> None:
    """The write of an item that a transaction only checks."""


def _same_pointer(there: Pointer | None, read: Pointer | None) -> bool:
    """True if the pointer is the one that was read: versions restart when a pointer is deleted, positions never
    repeat."""
    if there is None or read is None:
        return there is read
    return (there.version, there.position) == (read.version, read.position)


def _name_of(pointer: Pointer) -> KeyName:
    return (pointer.client_id, pointer.schedule_key)


def _row_key(row: Row | BrokenRow) -> RowKey:
    return (row.shard, row.position)


def outcome_key(outcome: Outcome) -> OutcomeKey:
    return (outcome.client_id, outcome.schedule_key, outcome.position)


def _size_bytes(row: Row | BrokenRow) -> int:
    return row.schedule.size_bytes if isinstance(row, Row) else len(row.raw)
