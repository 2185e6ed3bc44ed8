"""What the engine needs from outside, as contracts. Each has a twin in memory and one suite that runs on both.

Errors, for every port: `Unavailable` and below when the other side does not answer in time (never a client library's
own exception); the rest as each method says. Every method may be cancelled; a cancelled write may have happened.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from clockwork.domain.command import CommandNote, CommandPlace, NoteChange
from clockwork.domain.marker import Ended
from clockwork.domain.ownership import ShardState
from clockwork.domain.position import Position
from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import (
    BrokenRow,
    ClientId,
    Guarantee,
    Outcome,
    Placed,
    Pointer,
    RequestId,
    Retry,
    Row,
    ScheduleKey,
)
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import WakeUp


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


class ShardPublisher(Protocol):
    """The transactional producer of one shard, from one init until it is fenced, refused, or closed.

    Its init has fenced every earlier one with the shard's transactional id and settled its transaction.
    """

    async def read_marker(self) -> tuple[Ended, ...]:
        """The last committed marker of the shard; empty if there is none. Raises: Unreadable, BrokerUnavailable."""
        ...

    async def deliver(
        self, records: Sequence[OutRecord], marker: Callable[[Sequence[Placed]], bytes]
    ) -> Sequence[Placed]:
        """Sends all records and then the marker in one transaction, in order within each Kafka partition; commits.
        `marker` is called with where the records are, in their order.

        Raises: DeliveryRefused (if `begun`, only `close` may be called then, and it is certain that none of it will be
        seen once the shard is opened anew), DeliveryUnknown and Fenced (only `close` may be called), BrokerUnavailable
        (nothing was begun).
        """
        ...

    async def close(self) -> None:
        """Lets go of it. Neither commits nor aborts; may be called twice."""
        ...


class Publisher(Protocol):
    """Kafka, as the runners need it."""

    async def open_shard(self, shard: ShardId) -> ShardPublisher:
        """Inits the shard's transactional producer, fencing the one before. Raises: BrokerUnavailable."""
        ...

    async def send(self, record: OutRecord) -> Placed:
        """Sends one record outside any transaction and waits for its acknowledgement by all in-sync replicas.

        Raises: DeliveryRefused (`begun` is False), BrokerUnavailable (it may have been written all the same).
        """
        ...

    async def topic_exists(self, topic: str) -> bool:
        """Whether records could be sent there, from metadata younger than a few seconds for a missing topic.

        Raises: BrokerUnavailable if it is not known and Kafka does not say.
        """
        ...

    def connected(self) -> bool:
        """Whether Kafka answered lately."""
        ...


class ShardOwnership(Protocol):
    """The consumer group over the ownership topic: whose assignment is who owns which shard."""

    async def run(
        self,
        on_assignment: Callable[[frozenset[ShardId]], None],
        on_wakeup: Callable[[ShardId, WakeUp], None],
    ) -> None:
        """Joins the group and stays in it until cancelled; then leaves it. Both callbacks only record facts: they
        return at once and never raise. `on_assignment` gets the whole set after each rebalance (not the empty set
        between revoke and assign). Waits and comes back by itself while Kafka is away.
        """
        ...

    async def wake(self, shard: ShardId, wakeup: WakeUp) -> None:
        """Sends a wake-up to the shard's owner, wherever it is. Raises: BrokerUnavailable."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandRecord:
    """A record of the commands topic, as it came."""

    place: CommandPlace
    key: bytes | None
    value: bytes
    """Empty for a record without a value."""
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandBatch:
    """Some commands of one Kafka partition, in their order."""

    records: tuple[CommandRecord, ...]
    over: int
    """So many at the beginning have had their effects, as was noted before a crash; answers may still be owed."""


NoteEffects = Callable[[], Awaitable[None]]
"""Notes durably that all effects of a batch are over: whoever is given its commands again finds them counted in `over`."""
WorkOff = Callable[[CommandBatch, NoteEffects], Awaitable[None]]
"""Works off a batch; when it returns, the batch is never given again. It may be cancelled at any point."""


class CommandLog(Protocol):
    """The commands topic, read as a member of its group: committed records only, each at least once."""

    async def run(self, work: WorkOff) -> None:
        """Hands over the commands of every Kafka partition that is this member's, one batch after the other, Kafka
        partitions side by side, until cancelled. A batch that was not worked off is given again, to this member or
        another; to both, if this one is slow to notice. Waits and comes back by itself while Kafka is away."""
        ...


RequestResult = Literal["created", "repeated", "cancelled", "rescheduled", "rejected"]
DeliveryResult = Literal["delivered", "retried", "failed"]
LetterPlace = Literal["cluster", "client", "turned_away"]
"""The cluster's topic; its client's own; the cluster's, because its client's own did not take it."""
AuthResult = Literal["accepted", "missing", "refused", "forbidden"]
CommandName = Literal["create", "cancel", "reschedule", "unknown"]
CommandResult = Literal["done", "refused", "over", "dead_letter", "reply_dropped"]
Limit = Literal["creates", "create_bytes", "pending", "topic_deliveries", "connections", "slow_requests"]
CountResult = Literal["counted", "failed"]


class Telemetry(Protocol):
    """Figures for the person who is paged. No method does I/O, waits, or raises; labels come from small closed sets."""

    def request(self, *, route: str, status: int, seconds: float) -> None: ...
    def schedule(self, result: RequestResult) -> None: ...
    def delivery(self, guarantee: Guarantee, result: DeliveryResult, count: int = 1) -> None: ...
    def dead_letter(self, where: LetterPlace) -> None: ...
    def lateness(self, guarantee: Guarantee, seconds: float) -> None: ...
    def due(self, shard: ShardId, *, rows: int, oldest_seconds: float) -> None: ...
    def shard_released(self, shard: ShardId) -> None:
        """Forget the shard's gauges: another node shows them now."""

    def shards_owned(self, count: int) -> None: ...
    def rebalance(self) -> None: ...
    def fenced(self) -> None: ...
    def takeover(self, seconds: float) -> None: ...
    def batch(self, *, records: int, commit_seconds: float) -> None: ...
    def dynamodb(self, *, operation: str, result: str, seconds: float) -> None: ...
    def clock_skew(self, seconds: float) -> None: ...
    def loop_lag(self, seconds: float) -> None: ...
    def malformed(self, what: Literal["row", "wakeup", "newer_row"]) -> None: ...
    def auth(self, result: AuthResult) -> None: ...
    def auth_keys(self, count: int, *, current: bool) -> None:
        """How many keys count, and whether they are those of the file as it is now."""

    def limited(self, limit: Limit) -> None:
        """Something was refused or held back because of this limit."""

    def pending_count(self, result: CountResult) -> None:
        """What a client has pending was counted, or could not be."""

    def connections(self, count: int) -> None: ...
    def command(self, command: CommandName, result: CommandResult) -> None: ...
    def commands_lag(self, kafka_partition: int, records: int | None) -> None:
        """How many commands wait in a Kafka partition of ours; None: it is ours no more."""

    def paused(self, *, clients: int, topics: int) -> None:
        """How many of them are paused, as this node knows it."""
