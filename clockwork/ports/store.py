"""The store of schedules, as one opened bundle: the schedules, the search over many keys, the pauses, and the checks at a
start. `stores.open_stores` opens one."""

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from clockwork.domain.command_notes import CommandNote, NoteChange
from clockwork.domain.ownership import IncarnationId, NodeState, ShardClaim, ShardState
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
from clockwork.ports.jobs import JobStore
from clockwork.ports.operations import PauseStore
from clockwork.ports.registry import Registry
from clockwork.tls import CertFiles


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
    """None for a row whose key cannot be read, and for an occurrence of a job: its end is in the job's log by then."""
    keep_existing: bool
    """True if an outcome that is stored already stays (at_least_once). False if it is overwritten, since all writers
    write the same one (exactly_once). An exception is a writer that could not read the row, such as an older node: its
    outcome has no content, and is put only where none stands, even if this is False."""

    @property
    def only_if_absent(self) -> bool:
        """True if the outcome is put only where none stands."""
        return self.keep_existing or self.outcome is None or self.outcome.schedule is None


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyState:
    """A key as it was at one moment."""

    pointer: Pointer | None
    outcome: Outcome | None
    """The outcome at the position that was asked for."""
    row_there: bool
    """True if a row stands at that position, readable or not."""


CLAIMS_MAX: Final = 99
"""Shards taken in one transaction: DynamoDB takes 100 actions, and one of them checks the taker."""


class ScheduleStore(Protocol):
    """Rows, pointers, outcomes, notes of commands, and the items of shards and incarnations.

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
        self, row: Row, pointer: Pointer, *, replaces: Pointer | None, note: NoteChange | None = None
    ) -> None:
        """Puts the pointer and the row. `replaces`: None if no pointer may exist, else the one that is taken over, which has
        to stand as it was read, version *and* position: versions restart when a pointer is deleted, positions never
        repeat. By command also moves the `note`. The same call again (same position) after an unknown outcome is the same
        create.

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
        """Marks the pointer's failed schedule as discarded, if the stored pointer has the version and position of the
        given one; its expiry stays. Returns the time of the first such mark, in epoch ms.

        Raises: ConditionFailed (another pointer is there, or none).
        """
        ...

    async def push_pointer_expiry(self, pointer_of: RowName, *, expires_at_s: int) -> None:
        """Sets the pointer's expiry to this later time if it still points to the row's position; else does nothing.
        Never lowers it. The row's key is readable."""
        ...

    async def read_key_state(self, pointer: Pointer) -> KeyState:
        """Reads the pointer of a key, and the outcome and the row at the position of the given one, as of one moment
        (TransactGetItems): unlike three reads, it does not see a transaction half applied.

        Raises: TransactionConflict (one is being applied), Unreadable.
        """
        ...

    async def put_unreadable_outcome(self, pointer: Pointer, outcome: Outcome) -> None:
        """Puts the outcome if none is there, if the pointer stands as it was read, version and position, and if no row is at
        its position, all in one transaction.

        Raises: ConditionFailed, TransactionConflict (nothing was written).
        """
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
        replaces: Pointer,
        note: NoteChange | None = None,
    ) -> None:
        """Deletes the named row if it still bears this hold, puts its outcome, `superseded`, the new row, and the pointer
        if `replaces` stands as it was read, version and position. The new row may be in another shard. By command also
        moves the `note`.

        Raises: ConditionFailed (nothing written), TransactionConflict (nothing written).
        """
        ...

    # --- incarnations, and the shards that they own

    async def start_incarnation(self, incarnation: IncarnationId, *, node: str) -> None:
        """Puts the item of an incarnation that has read nothing yet: frontier 0, not fenced, no slots. `node` is for people.

        Raises: ConditionFailed (the id is taken, not by an earlier copy of this request).
        """
        ...

    async def read_nodes(self, incarnations: Sequence[IncarnationId]) -> Mapping[IncarnationId, NodeState]:
        """Reads the items that exist. Raises: Unreadable."""
        ...

    async def list_nodes(self) -> Sequence[NodeState]:
        """Reads the items of all incarnations: a scan, for the sweep and for operators. Those that cannot be read are left
        out and logged."""
        ...

    async def raise_frontier(self, incarnation: IncarnationId, *, frontier_ms: int, hints: Mapping[int, int]) -> int:
        """Raises the frontier to at least `frontier_ms` and sets the hints of these slots with it; returns the stored
        frontier. Never lowers it.

        Raises: Fenced (the item is fenced or absent).
        """
        ...

    async def raise_slots(self, incarnation: IncarnationId, *, slots: int) -> None:
        """Raises the number of slots to at least `slots`. Raises: Fenced (the item is fenced or absent)."""
        ...

    async def fence(self, incarnation: IncarnationId, *, at_ms: int) -> NodeState:
        """Sets the flag `fenced`, unless it is set already; returns the item as it is then: its frontier is final.

        Raises: Unreadable (there is no such item).
        """
        ...

    async def delete_node(self, incarnation: IncarnationId) -> None:
        """Deletes the item if it is fenced. May be repeated: an absent item is a success. Raises: ConditionFailed (not
        fenced)."""
        ...

    async def read_shard(self, shard: ShardId) -> ShardState:
        """Reads the shard's item. Raises: Unreadable if it does not exist: that is an error, never a zero."""
        ...

    async def read_shards(self, shards: Sequence[ShardId]) -> Mapping[ShardId, ShardState]:
        """Reads the items of these shards; one that does not exist or cannot be read is left out and logged as an error."""
        ...

    async def read_shard_and_node(
        self, shard: ShardId, incarnation: IncarnationId | None
    ) -> tuple[ShardState, NodeState | None]:
        """Reads the shard's item, and beside it, in one round trip, the item of an incarnation (None: not asked for, or
        absent). Two reads, not a snapshot. Raises: Unreadable."""
        ...

    async def take_shards(self, claims: Sequence[ShardClaim], *, taker: IncarnationId) -> None:
        """Makes `taker` the owner of all these shards, at most `CLAIMS_MAX`, in one transaction: each with the epoch
        raised by one and the claim's floor, if its epoch is the claim's; and all if the taker's own item is there and not
        fenced. A repeat of the same call is recognised, by owner and epoch and by the request's token.

        Raises: Fenced (the taker's item is fenced or absent), ShardsContested (names the shards whose epochs are other ones,
        or whose items are lost; nothing was written), TransactionConflict (nothing was written).
        """
        ...

    async def release_shard(self, shard: ShardId, *, epoch: int, owner: IncarnationId, floor_ms: int) -> None:
        """Removes the owner and sets the floor, if epoch and owner are these. The same call again is the same release, as
        long as the shard has no next owner.

        Raises: ConditionFailed (they are not: the owner was fenced, or an earlier copy of this request was applied, and the
        shard was taken since), Unreadable (the shard has no item).
        """
        ...

    # --- rows, as their owner sees them

    async def read_page(
        self, shard: ShardId, *, after: Position | None, rows_max: int, due_ms_max: int | None = None
    ) -> Page:
        """Reads rows in position order after `after` (None: from the lowest), at most `rows_max` and about 1 MB, and none
        behind the first that is due after `due_ms_max`. Rows that cannot be read are in it as `BrokenRow`. Not a snapshot:
        each row is as it was at its own moment."""
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
RowKey = tuple[ShardId, Position]
OutcomeKey = tuple[ClientId, ScheduleKey, Position]


@dataclass(frozen=True, kw_only=True, slots=True)
class PointerPage:
    """Some pointers of a client, in the order of their positions, or in the reverse order."""

    pointers: tuple[Pointer, ...]
    next_from: Position | None
    """Read on from this position, included; None: there is nothing more."""


class ScheduleSearch(Protocol):
    """Many keys at once, for lists, histories and pages. `list_pointers`, `count_pointers` and the two that `peek` may lag;
    the rest is strongly consistent, each item as it was at its own moment. Items that cannot be read are left out and
    logged, but for rows that are read by their places."""

    async def list_pointers(
        self, client_id: ClientId, *, first: Position, last: Position, pointers_max: int, descending: bool = False
    ) -> PointerPage:
        """Reads pointers to positions from `first` to `last`, both included, about `pointers_max`; expired ones too.
        `descending`: from `last` down to `first`. A
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

    async def peek_pointers(self, names: Sequence[KeyName]) -> Mapping[KeyName, Pointer]:
        """Reads the pointers that exist, like `read_pointers`, at half the cost where the store has a cheaper read that may
        lag."""
        ...

    async def peek_rows(self, shard: ShardId, *, after: Position | None, rows_max: int) -> Page:
        """Reads rows of a shard, like `ScheduleStore.read_page`, at half the cost where the store has a cheaper read that
        may lag: a row of a moment ago may be missing, and a deleted one still there."""
        ...

    async def read_rows_at(self, keys: Sequence[RowKey]) -> Mapping[RowKey, Row | BrokenRow]:
        """Reads the rows that exist, in any shards."""
        ...

    async def read_outcomes(self, keys: Sequence[OutcomeKey]) -> Mapping[OutcomeKey, Outcome]:
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
    jobs: JobStore
    lists: bool
    """True if `search` can list and count a client's pointers."""
    pauses: PauseStore
    registry: Registry
    init: Callable[[], Awaitable[None]]
    """Makes the tables and, once in the cluster's life, its shards. May be repeated, and done by several nodes at once.
    Raises: StoreUnavailable, CannotStart."""
    check: Callable[[], Awaitable[Findings]]
    """Finds out whether a node may work on the store as it is. Raises: StoreUnavailable."""
    certificates: Sequence[tuple[ssl.SSLContext, CertFiles]] = ()
    """The certificates of this node's own that the store is shown, and the contexts that they are reloaded into."""
