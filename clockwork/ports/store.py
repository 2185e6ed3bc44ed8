"""The store of schedules: the tables, and many keys at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from clockwork.domain.command_notes import CommandNote, NoteChange
from clockwork.domain.ownership import ShardState
from clockwork.domain.position import Position
from clockwork.domain.schedule import BrokenRow, ClientId, Outcome, Pointer, RequestId, Retry, Row, ScheduleKey
from clockwork.domain.sharding import ShardId


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Some rows of a shard, in position order."""

    rows: tuple[Row | BrokenRow, ...]
    next_after: Position | None
    """Read on after this position; None: the shard ends here."""


class ScheduleStore(Protocol):
    """The three tables. Every read is strongly consistent; every multi-item write is one atomic transaction.

    A transaction is atomic for its writer only: another reader may see one of its items and not yet the next.
    A write that raises `StoreUnavailable(outcome_unknown=True)` may have been applied, or may be applied later.
    A write refused because of the store's own earlier copy of it (a library's repeat after a lost answer) is reported
    as the success that it was: by owner, hold, or the transaction's token.
    """

    # --- keys

    async def read_pointer(self, client_id: ClientId, schedule_key: ScheduleKey) -> Pointer | None:
        """The pointer of a key, expired or not. Raises: Unreadable."""
        ...

    async def read_outcome(self, client_id: ClientId, schedule_key: ScheduleKey, position: Position) -> Outcome | None:
        """How the schedule at this position ended, expired or not. Raises: Unreadable."""
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
        """What the key remembers of commands, expired or not. Raises: Unreadable."""
        ...

    async def note_command(self, client_id: ClientId, schedule_key: ScheduleKey, note: NoteChange) -> None:
        """Moves the note alone. Raises: ConditionFailed (another one is there)."""
        ...

    async def discard(self, pointer: Pointer, *, at_ms: int) -> int:
        """Notes in the pointer, if it stands as given (version and position), that what failed there needs nothing any
        more; its expiry stays. Returns since when that is so: the first time counts.

        Raises: ConditionFailed (another pointer is there, or none).
        """
        ...

    async def push_pointer_expiry(self, pointer_of: Row, *, expires_at_s: int) -> None:
        """Lets the pointer live at least until then, if it still points to this row's position; else does nothing."""
        ...

    # --- rows, as a cancel or reschedule sees them

    async def read_row(self, shard: ShardId, position: Position) -> Row | BrokenRow | None:
        """One row."""
        ...

    async def hold(self, shard: ShardId, position: Position, request: RequestId) -> Row | BrokenRow:
        """Marks the row as wanted by `request`, over any other's hold, and returns it as it is then. Sent once, never
        repeated by the library: a late copy would put a hold back that the owner took off.

        Raises: ConditionFailed (no such row), TransactionConflict.
        """
        ...

    async def cancel(
        self, shard: ShardId, outcome: Outcome, *, hold: RequestId, note: NoteChange | None = None
    ) -> None:
        """Deletes the row at `outcome.position` if it still bears this hold, and puts the outcome `cancelled`. By command
        also moves the `note`.

        Raises: ConditionFailed (nothing written), TransactionConflict (nothing written).
        """
        ...

    async def reschedule(
        self,
        shard: ShardId,
        outcome: Outcome,
        *,
        hold: RequestId,
        row: Row,
        pointer: Pointer,
        replaces_version: int,
        note: NoteChange | None = None,
    ) -> None:
        """Deletes the row at `outcome.position` if it still bears this hold, puts the outcome `superseded`, the new
        row, and the pointer if its version is `replaces_version`. The new row may be in another shard. By command also
        moves the `note`.

        Raises: ConditionFailed (nothing written), TransactionConflict (nothing written).
        """
        ...

    # --- a shard, as its owner sees it

    async def read_shard(self, shard: ShardId) -> ShardState:
        """The shard's item. Raises: Unreadable if it is not there: that is an error, never a zero."""
        ...

    async def raise_epoch(self, shard: ShardId, *, expected: int, owner: str) -> ShardState:
        """Sets epoch `expected + 1` and the owner if the epoch is `expected`; returns the item as it is then. `owner`
        names this one take-over, so that a repeat by the library is recognised.

        Raises: ConditionFailed.
        """
        ...

    async def raise_frontier(self, shard: ShardId, *, epoch: int, frontier_ms: int) -> int:
        """Raises the frontier to at least `frontier_ms`; returns what is stored then. Never lowers it.

        Raises: Fenced (the epoch is another one).
        """
        ...

    async def read_page(self, shard: ShardId, *, after: Position | None, rows_max: int) -> Page:
        """Rows in position order behind `after` (None: from the lowest), at most `rows_max` and about 1 MB. Rows that
        cannot be read are in it as `BrokenRow`. Not a snapshot: each row is as it was at its own moment."""
        ...

    async def drop_hold(self, shard: ShardId, position: Position) -> bool:
        """Takes any hold off the row. False: the row is gone. Raises: TransactionConflict."""
        ...

    async def set_retry(self, shard: ShardId, position: Position, retry: Retry, *, drop_hold: bool) -> bool:
        """Sets `retry` on the row (and takes any hold off). False: the row is gone. Raises: TransactionConflict."""
        ...

    async def read_rows(self, shard: ShardId, positions: Sequence[Position]) -> Mapping[Position, Row | BrokenRow]:
        """Those of the rows that exist; any number of positions."""
        ...

    async def put_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Puts each outcome over what is there: for exactly_once, where all writers write the same. Any number."""
        ...

    async def put_outcomes_if_absent(self, outcomes: Sequence[Outcome]) -> None:
        """Puts each outcome unless there is one: for at_least_once, where the first one stands. Any number."""
        ...

    async def delete_rows(self, shard: ShardId, positions: Sequence[Position]) -> None:
        """Deletes rows, those that are gone included. Any number."""
        ...

    async def ping(self) -> None:
        """One cheap request, so that the clock is compared and readiness is known. Raises: StoreUnavailable."""
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
    strongly consistent, each item as it was at its own moment. What cannot be read is left out and logged."""

    async def list_pointers(
        self, client_id: ClientId, *, first: Position, last: Position, pointers_max: int
    ) -> PointerPage:
        """Pointers to positions from `first` to `last`, both included, about `pointers_max`; expired ones too. What was
        written a few seconds ago may be missing, or still stand where it stood before; whatever did not change meanwhile
        is there, once."""
        ...

    async def count_pointers(self, client_id: ClientId, *, first: Position, at_most: int) -> int:
        """How many pointers of a client there are to positions from `first` on, as `list_pointers` would show them. Looks
        no further than `at_most`, and costs no more than that many (and a few)."""
        ...

    async def read_pointers(self, names: Sequence[KeyName]) -> Mapping[KeyName, Pointer]:
        """Those of the pointers that exist, expired or not."""
        ...

    async def read_rows_at(self, places: Sequence[RowPlace]) -> Mapping[RowPlace, Row | BrokenRow]:
        """Those of the rows that exist, in any shards."""
        ...

    async def read_outcomes(self, places: Sequence[OutcomePlace]) -> Mapping[OutcomePlace, Outcome]:
        """Those of the outcomes that exist, expired or not."""
        ...

    async def read_ended(self, client_id: ClientId, schedule_key: ScheduleKey) -> Sequence[Position]:
        """The positions of all outcomes under a key, in any order."""
        ...
