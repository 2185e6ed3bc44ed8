"""The reason for which a schedule is not there yet: the question of the person who is paged.

The schedule itself is read strongly, so that an answer is never behind one that was given before. The rest is a look at
things that move, each at its own moment: the reason is a good guess, and no promise. Reasons are tried in the order of
`WhyReason`; the first one that holds is the answer, because each hides those behind it: rows of a paused client wait whether
or not their topic takes records.

A look costs some 30 read units at most, for rows of usual size: at most `ROWS_MAX` rows at the front of the shard are read,
fewer if they are large.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from clockwork.domain.activity import TopicWait
from clockwork.domain.destination import Destination
from clockwork.domain.ownership import NodeState, ShardState
from clockwork.domain.pauses import Pause, PauseKind, Pauses
from clockwork.domain.planning import DestinationWait
from clockwork.domain.position import Position, accepted_ms_of, due_ms_of
from clockwork.domain.schedule import BrokenRow, ClientId, EndState, Lane, Outcome, Pointer, Retry, Row, ScheduleKey
from clockwork.domain.sharding import ShardId
from clockwork.errors import BrokerUnavailable, Unreadable
from clockwork.ports.operations import PauseStore
from clockwork.ports.read_units import current_meter
from clockwork.requests import state
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.results import ScheduleView

ROWS_MAX: Final = 100
"""Rows at the front of a shard that are read for the one that is in the way."""
FRONT_UNITS_MAX: Final = 20.0
"""Read units that these may cost; then the look ends."""
FIRST_ROWS: Final = 2
"""Rows of the first read. They say what a row costs here: up to 64 units for one of 256 KiB."""
DUE_NOW_MS: Final = 10_000
"""Time within which a schedule that can be delivered is on its way: the scan interval that a lost wake-up may cost, and a
take-over. From its due time, or from the change or fire that has made it due in the past: its position tells when."""
SHARD_LATE_MS: Final = 1_000
"""Time after the due time from which the owner should have come to it."""
TOPIC_MISSING: Final = "topic_missing"
KAFKA_AWAY: Final = "kafka_unavailable"


class WhyReason(StrEnum):
    """The reasons, in the order in which they are tried."""

    ENDED = "ended"
    NOT_DUE = "not_due"
    PAUSED = "paused"
    SHARD_WITHOUT_OWNER = "shard_without_owner"
    SHARD_BEHIND = "shard_behind"
    DESTINATION_WAITS = "destination_waits"
    RETRY = "retry"
    BEHIND = "behind"
    DUE_NOW = "due_now"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitingDestination:
    """A destination whose deliveries wait: it refuses records, or is at its rate limit."""

    destination: Destination
    reason: str
    """A short stable code, as in `Refusal.reason`."""
    since_ms: int | None
    """Time of the first refusal since its last record; None: not known, or it takes records, at its rate limit."""
    next_probe_ms: int | None
    """None: not known to this node."""
    rate_limited: bool = False
    """True: it takes records, and no faster than its limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """The reason for which a schedule is where it is."""

    view: ScheduleView
    as_of_ms: int
    reason: WhyReason
    paused: tuple[PauseKind, str, Pause] | None = None
    """The kind and the name of what is paused: the reason, or, of one that is not due yet, the one to come."""
    lag_ms: int | None = None
    """Age of the first row of the shard."""
    destination: WaitingDestination | None = None
    retry: Retry | None = None
    behind: Row | BrokenRow | None = None
    """The first row of its lane."""
    looked_at: int = 0
    """Rows at the front of the shard that were read."""
    looked_at_all: bool = True
    """False: rows between these and the schedule were not read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WhyReader:
    """Explains schedules."""

    context: RequestContext
    pauses: PauseStore
    waits: Callable[[int], Mapping[Destination, DestinationWait]]
    """`DestinationWaits.at` of this node: what it knows of destinations, as far as it delivers to them itself."""
    refusing_topics: Callable[[int], Mapping[Destination, TopicWait]]
    """Destinations that refuse records, as this node and the minutes of all nodes tell: the node that delivers to one need
    not be this one. Minutes are up to two minutes old, so a destination that is back may still be named for a schedule that
    is about to be delivered. Accepted, because the error ends by itself: without minutes a node that only accepts would know
    of missing topics alone."""

    async def explain(
        self, client_id: ClientId, schedule_key: ScheduleKey, deadline: RequestDeadline
    ) -> Explanation | None:
        """Why the present schedule under a key is not delivered yet; None: the key is unknown, as to `read_state`.

        Raises: Unavailable, Unreadable.
        """
        found = await self._read(client_id, schedule_key, deadline)
        now_ms = self.context.clock.now_ms()
        match found:
            case None:
                return None
            case ScheduleView():
                return Explanation(view=found, as_of_ms=now_ms, reason=WhyReason.ENDED)
            case (pointer, row):
                return await self._explain_pending(pointer, row, now_ms)

    async def _read(
        self, client_id: ClientId, schedule_key: ScheduleKey, deadline: RequestDeadline
    ) -> ScheduleView | tuple[Pointer, Row | BrokenRow] | None:
        while True:
            pointer = await self.context.store.read_pointer(client_id, schedule_key)
            if pointer is None:
                return None
            match await state.row_or_end(self.context, pointer):
                case Outcome() as end if end.state is not EndState.SUPERSEDED:
                    return state.ended_view(pointer, end)
                case Row() | BrokenRow() as row:
                    return pointer, row
                case state.Unseen.RETENTION_OVER:
                    return None
            await deadline.pause(state.BEING_CHANGED)

    async def _explain_pending(self, pointer: Pointer, row: Row | BrokenRow, now_ms: int) -> Explanation:
        view = state.pending_view(pointer, row)

        def because(reason: WhyReason, **more: object) -> Explanation:
            return Explanation(view=view, as_of_ms=now_ms, reason=reason, **more)  # type: ignore[arg-type]

        late_ms = now_ms - row.due_ms
        paused = _paused(await self.pauses.read_pauses(), row)
        if late_ms < 0:
            # The pause is told before it holds anything back: a person who fires it, or moves it nearer, should know.
            return because(WhyReason.NOT_DUE, paused=paused)
        if paused is not None:
            return because(WhyReason.PAUSED, paused=paused)
        shard, owner = await self._owner(row.shard)
        if shard is None or owner is None or owner.fenced_at_ms is not None:
            return because(WhyReason.SHARD_WITHOUT_OWNER)
        front = await self._front(row)
        if owner.frontier_ms < row.due_ms and late_ms > SHARD_LATE_MS:
            return because(WhyReason.SHARD_BEHIND, lag_ms=max(0, now_ms - front.first_due_ms))
        if (destination := await self._destination(row, now_ms)) is not None:
            return because(WhyReason.DESTINATION_WAITS, destination=destination)
        looked = {"looked_at": front.looked_at, "looked_at_all": front.looked_at_all}
        retry = row.retry if isinstance(row, Row) else None
        if retry is not None and retry.at_ms > now_ms and retry.epoch == shard.epoch:
            return because(WhyReason.RETRY, retry=retry)
        if front.of_lane is not None:
            return because(WhyReason.BEHIND, behind=front.of_lane, **looked)
        waits_ms = now_ms - max(row.due_ms, accepted_ms_of(row.position))
        return because(WhyReason.DUE_NOW if waits_ms <= DUE_NOW_MS else WhyReason.UNKNOWN, **looked)

    async def _owner(self, shard: ShardId) -> tuple[ShardState | None, NodeState | None]:
        """The shard's item, and that of its owner. An item that is lost or cannot be read counts as none: no node works the
        shard then."""
        try:
            found = await self.context.store.read_shard(shard)
            if found.owner is None:
                return found, None
            return found, (await self.context.store.read_nodes([found.owner])).get(found.owner)
        except Unreadable:
            return None, None

    async def _destination(self, row: Row | BrokenRow, now_ms: int) -> WaitingDestination | None:
        lane = _lane_of(row)
        if lane is None:
            return None
        destination = lane[0]
        wait, refusing = self.waits(now_ms).get(destination), self.refusing_topics(now_ms).get(destination)
        reason, since_ms = None, None
        if refusing is not None:
            since_ms, reason = refusing
        elif wait is not None:
            reason = wait.reason
        else:
            try:
                reason = None if await self.context.topic_exists(destination) else TOPIC_MISSING
            except BrokerUnavailable:
                reason = KAFKA_AWAY
        if reason is None:
            return None
        next_probe_ms = None if wait is None else wait.until_ms
        return WaitingDestination(
            destination=destination,
            reason=reason,
            since_ms=since_ms,
            next_probe_ms=next_probe_ms,
            rate_limited=refusing is None and wait is not None and wait.rate_limited,
        )

    async def _front(self, row: Row | BrokenRow) -> "_Front":
        """Looks for the first row of the lane, from the lowest position of the shard up to this row."""
        front = _Front(first_due_ms=row.due_ms)
        lane, meter = _lane_of(row), current_meter()
        start_units = meter.units if meter is not None else 0.0
        after: Position | None = None
        rows_max = FIRST_ROWS
        while True:
            page = await self.context.search.peek_rows(row.shard, after=after, rows_max=rows_max)
            for each in page.rows:
                if each.position >= row.position:
                    return front
                if not front.looked_at:
                    front.first_due_ms = each.due_ms
                front.looked_at += 1
                if lane is not None and _lane_of(each) == lane:
                    front.of_lane = each
                    return front
            if page.next_after is None:
                return front
            spent = meter.units - start_units if meter is not None else 0.0
            affordable = int((FRONT_UNITS_MAX - spent) * front.looked_at / spent) if spent else ROWS_MAX
            rows_max = min(4 * rows_max, affordable, ROWS_MAX - front.looked_at)
            if rows_max <= 0 or due_ms_of(page.next_after) > row.due_ms:
                front.looked_at_all = page.next_after >= row.position
                return front
            after = page.next_after


@dataclass(slots=True)
class _Front:
    """The rows at the front of a shard, up to a row."""

    first_due_ms: int
    looked_at: int = 0
    looked_at_all: bool = True
    of_lane: Row | BrokenRow | None = None


def _lane_of(row: Row | BrokenRow) -> Lane | None:
    return row.schedule.lane if isinstance(row, Row) else row.lane


def _paused(pauses: Pauses, row: Row | BrokenRow) -> tuple[PauseKind, str, Pause] | None:
    client_id = row.schedule.client_id if isinstance(row, Row) else row.client_id
    lane = _lane_of(row)
    if client_id is not None and client_id in pauses.clients:
        return PauseKind.CLIENT, client_id, pauses.clients[client_id]
    if lane is not None and lane[0] in pauses.topics:
        return PauseKind.TOPIC, lane[0], pauses.topics[lane[0]]
    return None
