"""The store of schedules, as one opened bundle: the schedules, the search over many keys, the pauses, and the checks at a
start. `stores.open_stores` opens one."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from clockwork.domain.command_notes import CommandNote, NoteChange
from clockwork.domain.ownership import ShardState
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
from clockwork.ports.findings import Findings
from clockwork.ports.operations import PauseStore


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Some rows of a shard, in position order."""

    rows: tuple[Row | BrokenRow, ...]
    next_after: Position | None
    """Read on after this position; None: the shard ends here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """A row that has ended, and the outcome that it leaves."""

    row: Row | BrokenRow
    outcome: Outcome | None
    """None for a row whose key cannot be read."""
    first_stands: bool
    """True if an outcome that is stored already stays (at_least_once). False: it is overwritten: all writers write
    the same (exactly_once)."""


class ScheduleStore(Protocol):
    """Rows, pointers, outcomes, notes of commands, and the state of each shard.

    Every read is strongly consistent; every write of several items is one atomic transaction, but for `finish`. A
    transaction is atomic for its writer only: another reader may see one of its items and not yet the next.
    A write that raises `StoreUnavailable(outcome_unknown=True)` may have been applied, or may be applied later.
    A write refused because of the store's own earlier copy of it (a library's repeat after a lost answer) is reported
    as the success that it was: by owner, hold, or the transaction's token.
    """

    # --- keys

    async def read_pointer(self, client_id: ClientId, schedule_key: ScheduleKey) -> Pointer | None:
        """Reads the pointer of a key, expired or not. Raises: Unreadable."""
        ...

    async def read_outcome(self, client_id: ClientId, schedule_key: ScheduleKey, position: Position) -> Outcome | None:
        """Reads the outcome of the schedule at this position, expired or not. Raises: Unreadable."""
        ...

    async def create(
        self, row: Row, pointer: Pointer, *, replaces_version: int | None, note: NoteChange | None = None
    ) -> None:
        """Puts the pointer and the row. `replaces_version`: None if no pointer may exist, else the version of the one
        that it takes over. By command also moves the `note`. The same call again (same position) after an unknown
        outcome is the same create.

        Raises: ConditionFailed (another pointer or note is there), TransactionConflict (nothing written).
        """
        ...

    async def read_command_note(self, client_id: ClientId, schedule_key: ScheduleKey) -> CommandNote | None:
        """Reads the note of commands of a key, expired or not. Raises: Unreadable."""
        ...

    async def note_command(self, client_id: ClientId, schedule_key: ScheduleKey, note: NoteChange) -> None:
        """Moves the note alone. Raises: ConditionFailed (another one is there)."""
        ...

    async def discard(self, pointer: Pointer, *, at_ms: int) -> int:
        """Marks in the pointer, if it stands as given (version and position), that its failed schedule needs nothing any
        more; its expiry stays. Returns the time of the mark, in epoch ms: the first mark counts.

        Raises: ConditionFailed (another pointer is there, or none).
        """
        ...

    async def push_pointer_expiry(self, pointer_of: Row, *, expires_at_s: int) -> None:
        """Lets the pointer live at least until then, if it still points to this row's position; else does nothing."""
        ...

    # --- rows, as a cancel or reschedule sees them

    async def read_row(self, name: RowName) -> Row | BrokenRow | None:
        """Reads one row; None: it does not exist."""
        ...

    async def hold(self, name: RowName, request: RequestId) -> Row | BrokenRow:
        """Marks the row as wanted by `request`, over any other's hold, and returns it as it is then. Sent once, never
        repeated by the library: a late copy would put a hold back that the owner took off.

        Raises: ConditionFailed (no such row), TransactionConflict.
        """
        ...

    async def cancel(self, name: RowName, outcome: Outcome, *, hold: RequestId, note: NoteChange | None = None) -> None:
        """Deletes the row if it still bears this hold, and puts its outcome, `cancelled`. By command also moves the
        `note`.

        Raises: ConditionFailed (nothing written), TransactionConflict (nothing written).
        """
        ...

    async def reschedule(
        self,
        name: RowName,
        outcome: Outcome,
        *,
        hold: RequestId,
        row: Row,
        pointer: Pointer,
        replaces_version: int,
        note: NoteChange | None = None,
    ) -> None:
        """Deletes the named row if it still bears this hold, puts its outcome, `superseded`, the new row, and the pointer
        if its version is `replaces_version`. The new row may be in another shard. By command also moves the `note`.

        Raises: ConditionFailed (nothing written), TransactionConflict (nothing written).
        """
        ...

    # --- a shard, as its owner sees it

    async def read_shard(self, shard: ShardId) -> ShardState:
        """Reads the shard's item. Raises: Unreadable if it does not exist: that is an error, never a zero."""
        ...

    async def raise_epoch(self, shard: ShardId, *, expected: int, owner: str) -> ShardState:
        """Sets epoch `expected + 1` and the owner if the epoch is `expected`; returns the item as it is then. `owner`
        names this one take-over, so that a repeat by the library is recognised.

        Raises: ConditionFailed.
        """
        ...

    async def raise_frontier(self, shard: ShardId, *, epoch: int, frontier_ms: int) -> int:
        """Raises the frontier to at least `frontier_ms`; returns the stored one. Never lowers it.

        Raises: Fenced (the epoch is another one).
        """
        ...

    async def read_page(self, shard: ShardId, *, after: Position | None, rows_max: int) -> Page:
        """Reads rows in position order behind `after` (None: from the lowest), at most `rows_max` and about 1 MB. Rows
        that cannot be read are in it as `BrokenRow`. Not a snapshot: each row is as it was at its own moment."""
        ...

    async def drop_hold(self, name: RowName) -> bool:
        """Takes any hold off the row. False: the row is gone. Raises: TransactionConflict."""
        ...

    async def set_retry(self, name: RowName, retry: Retry, *, drop_hold: bool) -> bool:
        """Sets `retry` on the row (and takes any hold off). False: the row is gone. Raises: TransactionConflict."""
        ...

    async def read_rows(self, shard: ShardId, positions: Sequence[Position]) -> Mapping[Position, Row | BrokenRow]:
        """Reads the rows that exist at these positions, any number of them."""
        ...

    async def finish(self, shard: ShardId, ends: Sequence[End]) -> None:
        """Puts the outcomes of rows of this shard and deletes the rows; any number, no two of one position.

        When it returns, every outcome stands and every row is gone. At no moment is a row gone whose outcome does not
        stand. Some may be finished when it raises. May be repeated freely, by a zombie too.
        """
        ...

    async def ping(self) -> None:
        """Makes one cheap request, so that the clock is compared and readiness is known. Raises: StoreUnavailable."""
        ...


KeyName = tuple[ClientId, ScheduleKey]
RowPlace = tuple[ShardId, Position]
OutcomePlace = tuple[ClientId, ScheduleKey, Position]


@dataclass(frozen=True, kw_only=True, slots=True)
class PointerPage:
    """Some pointers of a client, in the order of their positions."""

    pointers: tuple[Pointer, ...]
    next_first: Position | None
    """Read on from this position; None: there is nothing more."""


class ScheduleSearch(Protocol):
    """Many keys at once, for lists and histories. Only `list_pointers` and `count_pointers` may lag; the rest is
    strongly consistent, each item as it was at its own moment. Items that cannot be read are left out and logged."""

    async def list_pointers(
        self, client_id: ClientId, *, first: Position, last: Position, pointers_max: int
    ) -> PointerPage:
        """Reads pointers to positions from `first` to `last`, both included, about `pointers_max`; expired ones too. A
        pointer written a few seconds ago may be missing, or still stand at its earlier position; a pointer that did not
        change meanwhile is there, once."""
        ...

    async def count_pointers(self, client_id: ClientId, *, first: Position, at_most: int) -> int:
        """Counts the pointers of a client to positions from `first` on, as `list_pointers` would show them. Reads no
        further than `at_most`, and costs no more than that many (and a few)."""
        ...

    async def read_pointers(self, names: Sequence[KeyName]) -> Mapping[KeyName, Pointer]:
        """Reads the pointers that exist, expired or not."""
        ...

    async def read_rows_at(self, places: Sequence[RowPlace]) -> Mapping[RowPlace, Row | BrokenRow]:
        """Reads the rows that exist, in any shards."""
        ...

    async def read_outcomes(self, places: Sequence[OutcomePlace]) -> Mapping[OutcomePlace, Outcome]:
        """Reads the outcomes that exist, expired or not."""
        ...

    async def read_ended(self, client_id: ClientId, schedule_key: ScheduleKey) -> Sequence[Position]:
        """Reads the positions of all outcomes under a key, in any order."""
        ...


class ObserveServerTime(Protocol):
    """Takes the time that the store stated in an answer; `ClockGuard.observe` is one."""

    def __call__(self, *, sent_ms: int, received_ms: int, server_ms: int, resolution_ms: int) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Stores:
    """One opened store, by everything that is asked of it. Its opener closes it."""

    schedules: ScheduleStore
    search: ScheduleSearch
    lists: bool
    """True if `search` can list and count a client's pointers."""
    pauses: PauseStore
    init: Callable[[], Awaitable[None]]
    """Makes the tables and, once in the cluster's life, its shards. May be repeated, and done by several nodes at once.
    Raises: StoreUnavailable, CannotStart."""
    check: Callable[[], Awaitable[Findings]]
    """Finds out whether a node may work on the store as it is. Raises: StoreUnavailable."""
