"""Group commit: the rows of all shards of an incarnation share Kafka transactions, in slots of two roles.

    enqueue ──► lanes, by topic ──► quick: at most 50 rows, topics that answer quickly, 1 s for the sends
                                └─► bulk and suspect, in turn: a large batch when more rows wait than the quick slot takes at
                                    once; or one suspect topic alone. 6 s for the sends

    take ──► deliver ──┬─ committed ──► the rows await cleanup, named in this slot's markers until they are deleted
      ▲                ├─ refused, out of time, broken off ──► heal ──► refused rows wait, the others go again
      │                └─ commit without an answer ──► heal ──► R3 ──┬─ marker names them: committed
      └────────────────────────────── not named: go again ◄──────────┘

    heal    R1 init of the own id, R2 recheck of the own item. Until it is done the rows of that one transaction wait

One slow topic, one leaderless topic, one refused record or one slot without a coordinator hold up their own lanes only. The
rules (docs/design.md, 5, Group commit) and their reasons stand at the lines that keep them.

**A slot that does not heal within a second is replaced**, found on real brokers: R1 is answered CONCURRENT_TRANSACTIONS
until every Kafka partition of the broken transaction has a leader that writes that it was aborted. While the only replica of
one topic stands still, that takes as long as it does, and both slots would be stuck with it one after the other. So the
role goes on in another slot, and the stuck one heals beside it with its rows; topics that the broken transaction names as
the cause are not tried meanwhile. Any number of slots is safe: each has its own id and marker key, and a taker initialises
and reads all that were ever claimed.
"""

import asyncio
import heapq
import logging
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from clockwork.concurrency import Backoff
from clockwork.domain import marker
from clockwork.domain.destination import Topic
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.planning import Action, PlannedDelivery
from clockwork.domain.position import Position
from clockwork.domain.record import OutRecord
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.schedule import Lane, Receipt
from clockwork.domain.sharding import ShardId
from clockwork.errors import (
    BrokerUnavailable,
    DeliveryAborted,
    DeliveryRefused,
    DeliveryUnknown,
    Fenced,
    Refusal,
    RefusalCause,
    Unavailable,
)
from clockwork.firing.cleanup import Completed
from clockwork.firing.context import FiringContext
from clockwork.firing.incarnation import RunningIncarnation
from clockwork.firing.lease import ShardLease
from clockwork.firing.settlement import Settlement, completed
from clockwork.ports.delivery import Committed, SlotName, SlotProducer
from clockwork.ports.telemetry import TransactionResult

log = logging.getLogger(__name__)

QUICK: Final = 0
BULK: Final = 1
QUICK_ROWS_MAX: Final = 50
QUICK_SENDS_MS: Final = 1_000
BULK_SENDS_MS: Final = 6_000
"""Time for the sends of a transaction; below Kafka's own limit for one, so that it does not abort a slow one."""
SLOW_MS: Final = 250
SLOW_FACTOR: Final = 4
"""A topic is slow if its records took longer than `SLOW_MS`, and also this many times as long as the marker of the same
transaction: on a machine that is slow as a whole, no topic is to blame."""
QUICK_WAIT_MS_MAX: Final = 250
"""If the oldest row has waited for longer than this, the bulk role takes few rows, too: the quick role is held up by a
slow Kafka."""
HEALING_S_MAX: Final = 1.0
"""A slot that takes longer to heal is replaced."""
SLOTS_MAX: Final = 8
"""Slots of an incarnation. A slot that does not heal holds the rows of one transaction at most. If even these do not
suffice, more is wrong than a few topics."""
TURN_S: Final = 0.001
"""Time after which a role checks again whether it may begin, while the other role may begin first."""
TIMED_OUT: Final = "timed_out"
"""The reason of a refusal of a topic that gave no answer in time."""
PACED_FROM: Final = 25
"""Once so many transactions were begun within a second, the begins of further ones keep the distance of the pace."""
BACKOFF: Final = BackoffPolicy(initial_ms=20, max_ms=2_000)
HEAL_BACKOFF: Final = BackoffPolicy(initial_ms=10, max_ms=1_000)


_Deferred = Callable[[], Coroutine[Any, Any, None]]

_LaneKey = Lane | tuple[ShardId, Position]
"""A lane; a row without a readable one has a lane of its own."""


@dataclass(slots=True, eq=False)
class _QueuedRow:
    """One row that waits for a transaction, or is in one."""

    lease: ShardLease
    planned: PlannedDelivery
    queued_at_s: float

    @property
    def position(self) -> Position:
        return self.planned.row.position

    @property
    def row_key(self) -> tuple[ShardId, Position]:
        return (self.planned.row.shard, self.planned.row.position)

    @property
    def lane_key(self) -> _LaneKey:
        return self.planned.lane or self.row_key


@dataclass(slots=True, eq=False)
class _QueuedLane:
    """The queued rows of one lane, in order. At most one slot has rows of it."""

    key: _LaneKey
    rows: deque[_QueuedRow] = field(default_factory=deque)
    in_slot: bool = False
    topic: str | None = None
    """The topic that it is listed under."""
    listed: bool = False


@dataclass(frozen=True, slots=True)
class _Sent:
    """A row of a transaction, and its record. Without a record nothing is sent for the row: only the marker names
    it."""

    row: _QueuedRow
    record: OutRecord | None


class _Slot:
    """One slot: its producer, and the rows that its markers name."""

    def __init__(self, number: int, producer: SlotProducer) -> None:
        self.number = number
        self.producer = producer
        self.role = QUICK
        """The role that it has, or had last. Metrics are labelled by role: slots' numbers are no closed set."""
        self.ready = False
        """False: it has to be healed (or initialised, at its first use) before its next transaction."""
        self.healing = False
        self.untidied: dict[tuple[ShardId, Position], MarkerEntry] = {}
        """Rows that transactions of this slot ended, until they are deleted: every marker names all of them
        (docs/protocol.md: x-forget-tidy), and no other slot's does (x-marker-per-inc)."""


class _Role:
    """One of the two roles, and the slot that has it."""

    def __init__(self, number: int, slot: _Slot, *, rows_max: int, sends_ms: int) -> None:
        self.number = number
        """`QUICK` or `BULK`."""
        self.slot = slot
        slot.role = number
        self.sends_ms = sends_ms
        self.rows_max = rows_max
        """Halved when a batch runs out of time; grows back with each commit."""
        self.failures_in_row = 0
        self.suspect_next = True
        """Bulk and suspects take turns."""
        self._limit_rows = rows_max

    @property
    def room(self) -> int:
        """Rows of its next transaction: as many as its marker can name beside the rows that it must name anyway."""
        return min(self.rows_max, marker.ENTRIES_MAX - len(self.slot.untidied))

    def shrink(self) -> None:
        self.rows_max = max(1, self.rows_max // 2)

    def grow(self) -> None:
        self.rows_max = min(self._limit_rows, self.rows_max + 1 + self.rows_max // 8)


class Pace:
    """The distance between the begins of transactions, once there are many of them.

    Schedules that become due one by one would otherwise be one transaction each, and Kafka's cost is by the
    transaction.
    """

    def __init__(self, pace_ms: int) -> None:
        self._pace_s = pace_ms / 1_000
        self._begun_s: deque[float] = deque(maxlen=PACED_FROM)

    def wait_s(self, now_s: float) -> float:
        """Time until the next transaction may begin."""
        if len(self._begun_s) < PACED_FROM or now_s - self._begun_s[0] > 1.0:
            return 0.0
        return max(0.0, self._begun_s[-1] + self._pace_s - now_s)

    def begin(self, now_s: float) -> None:
        """Counts the begin of a transaction."""
        self._begun_s.append(now_s)


class GroupCommit:
    """The transactions of one incarnation."""

    def __init__(self, context: FiringContext, own: RunningIncarnation, settlement: Settlement) -> None:
        settings = context.settings
        self._context = context
        self._own = own
        self._settlement = settlement
        self._waits = context.destination_waits
        self._telemetry = context.telemetry
        self._bytes_max = settings.batch_bytes_max
        self._pace = Pace(settings.transaction_pace_ms)
        self._slots: list[_Slot] = []
        """All that were ever opened, by number."""
        self._roles = [
            _Role(
                QUICK,
                self._open_slot(),
                rows_max=min(QUICK_ROWS_MAX, settings.batch_records_max),
                sends_ms=QUICK_SENDS_MS,
            ),
            _Role(BULK, self._open_slot(), rows_max=settings.batch_records_max, sends_ms=BULK_SENDS_MS),
        ]
        self._lanes: dict[_LaneKey, _QueuedLane] = {}
        self._by_topic: dict[str | None, list[tuple[Position, int, _QueuedLane]]] = {}
        """The lanes of which no slot has rows, as heaps, by the topic of the lane's first record (None: it has no
        record)."""
        self._rows_of: Counter[str | None] = Counter()
        """By the same topic, the rows of these lanes."""
        self._listed = 0
        self._suspects: dict[str, None] = {}
        """Suspect topics in the order in which the bulk role tries them; the one that was tried last stands last. In
        the order of due times a slow topic with a long backlog would keep the others from ever being tried."""
        self._stuck: Counter[str] = Counter()
        """Topics for which a slot does not heal: to try them now would keep the next slot from healing, too."""
        self._awaiting_pace: set[int] = set()
        """The roles that have rows and wait to begin."""
        self._begun_last = BULK
        """The role that began last."""
        self._changed = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._telemetry.watch_delivery_queue(self._queue_state)

    # --- from the passes

    def enqueue(self, lease: ShardLease, deliveries: Sequence[PlannedDelivery]) -> None:
        """Takes rows of a pass, in position order: they are in flight from now on. Returns at once."""
        now_s = asyncio.get_running_loop().time()
        for planned in deliveries:
            lease.in_flight.add(planned.row.position, planned.lane, planned.size_bytes)
            row = _QueuedRow(lease, planned, now_s)
            lane = self._lanes.setdefault(row.lane_key, _QueuedLane(row.lane_key))
            lane.rows.append(row)
            if lane.listed:
                self._rows_of[lane.topic] += 1
            else:
                self._list(lane)
        self._changed.set()

    def forget(self, tidied: Iterable[Completed]) -> None:
        """Lets the markers leave these rows out, because they are deleted."""
        for one in tidied:
            if one.slot is not None:
                self._slots[one.slot].untidied.pop((one.entry.shard, one.entry.position), None)
        self._changed.set()  # a slot without room may go on

    # --- slots

    async def run(self) -> None:
        """Works until cancelled. Raises: Fenced, Unavailable (no slot can be healed): the incarnation is over."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for role in self._roles:
                    self._tasks.create_task(self._work(role), name=f"role-{role.number}")
        finally:
            self._tasks = None
            for slot in self._slots:
                await slot.producer.close()

    async def _work(self, role: _Role) -> None:
        backoff = Backoff(self._context.rng, BACKOFF)
        while True:
            batch = await self._next_batch(role)
            settle = await self._transact(role, role.slot, batch)
            if settle is None:
                self._free_lanes(batch)
            else:
                await self._heal_or_replace(role, partial(self._settle, batch, settle))
            if role.failures_in_row:
                await backoff.wait()
            else:
                backoff.reset()

    async def _settle(self, batch: Sequence[_QueuedRow], settle: _Deferred) -> None:
        """Runs what is left to do about a transaction in doubt, then frees its lanes."""
        try:
            await settle()
        finally:
            self._free_lanes(batch)

    async def _heal_or_replace(self, role: _Role, work: _Deferred) -> None:
        """Waits for the healing of a role's slot; if it takes too long, the role goes on in another slot, and the slot heals
        beside it."""
        healing = self._spawn(work, f"healing of slot {role.slot.number}")
        done, _ = await asyncio.wait([healing], timeout=HEALING_S_MAX)
        while not done:
            spare = self._spare_slot()
            if spare is not None:
                log.warning("Slot replaced", extra={"event": "slot.replaced", "slot": role.slot.number})
                role.slot, spare.role = spare, role.number
                return
            done, _ = await asyncio.wait([healing], timeout=HEALING_S_MAX)

    def _spare_slot(self) -> _Slot | None:
        """A slot that has no role and needs no healing, or a new one; None if there are too many."""
        of_roles = [role.slot for role in self._roles]
        for slot in self._slots:
            if slot.ready and slot not in of_roles:
                return slot
        return self._open_slot() if len(self._slots) < SLOTS_MAX else None

    def _open_slot(self) -> _Slot:
        number = len(self._slots)
        slot = _Slot(number, self._context.publisher.open_slot(SlotName(self._own.id, number)))
        self._slots.append(slot)
        return slot

    async def _next_batch(self, role: _Role) -> list[_QueuedRow]:
        """Waits until there are rows for this role, its slot is ready, and it may begin. If both roles wait for the
        pace, the one that did not begin last goes first: under load the quick role always has rows, and would take
        every turn."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            self._return_topics_in_backoff()
            topics = self._choose(role)
            if topics is None:
                await self._wait_for_work(role)
                continue
            if not role.slot.ready:
                # The slot is used for the first time. Or a late copy of its last commit may be under way, which would
                # commit a part of the next transaction.
                await self._heal_or_replace(role, partial(self._heal, role.slot))
                continue
            wait_s = self._pace.wait_s(loop.time())
            gives_way = self._begun_last == role.number and bool(self._awaiting_pace - {role.number})
            if wait_s <= 0 and not gives_way:
                self._begin(role, topics)
                return self._take(role, topics)
            # Rows that arrive during the wait are in the transaction, too.
            self._telemetry.pace_wait(wait_s)
            self._awaiting_pace.add(role.number)
            try:
                await asyncio.sleep(max(wait_s, TURN_S))
            finally:
                self._awaiting_pace.discard(role.number)

    def _begin(self, role: _Role, topics: Sequence[str | None]) -> None:
        """Counts the begin of a transaction; only now, because a role may choose several times before it may begin."""
        self._pace.begin(asyncio.get_running_loop().time())
        self._begun_last = role.number
        if role.number == BULK:
            suspect = topics[0] if topics[0] in self._suspects else None
            role.suspect_next = suspect is None
            if suspect is not None:
                self._suspects[suspect] = self._suspects.pop(suspect)

    async def _wait_for_work(self, role: _Role) -> None:
        """Waits until the queue has changed, or, for the bulk role, until the oldest row has waited long enough."""
        late_from_s = self._late_from_s() if role.number == BULK and role.room > 0 else None
        try:
            async with asyncio.timeout_at(late_from_s):
                await self._changed.wait()
        except TimeoutError:
            return

    def _choose(self, role: _Role) -> list[str | None] | None:
        """The topics that the role's next transaction takes rows of; None: there is nothing for it now."""
        if role.room <= 0:
            return None
        healthy = [topic for topic, rows in self._rows_of.items() if rows and self._is_healthy(topic)]
        rows = sum(self._rows_of[topic] for topic in healthy)
        if role.number == QUICK:
            return healthy if rows else None
        late_from_s = self._late_from_s()
        late = late_from_s is not None and asyncio.get_running_loop().time() >= late_from_s
        bulk = rows > QUICK_ROWS_MAX or late
        suspects = [topic for topic in self._suspects if self._rows_of[topic] and not self._stuck[topic]]
        if suspects and (role.suspect_next or not bulk):
            return [suspects[0]]
        return healthy if bulk else None

    def _is_healthy(self, topic: str | None) -> bool:
        return topic not in self._suspects and not (topic is not None and self._stuck[topic])

    def _queue_state(self) -> tuple[int, float]:
        """The number of rows that wait for a transaction, and the seconds for which the oldest of them has waited."""
        heads = [heap[0][2].rows[0].queued_at_s for heap in self._by_topic.values() if heap]
        if not heads:
            return 0, 0.0
        return self._rows_of.total(), max(0.0, asyncio.get_running_loop().time() - min(heads))

    def _late_from_s(self) -> float | None:
        """Loop time at which the oldest row of the healthy topics will have waited for too long."""
        heads = (
            heap[0][2].rows[0].queued_at_s for topic, heap in self._by_topic.items() if heap and self._is_healthy(topic)
        )
        oldest_s = min(heads, default=None)
        return None if oldest_s is None else oldest_s + QUICK_WAIT_MS_MAX / 1_000

    # --- one transaction

    async def _transact(self, role: _Role, slot: _Slot, batch: list[_QueuedRow]) -> _Deferred | None:
        """Ends the rows of a batch, puts them back, or returns them to the passes. If none of this can be decided
        before the slot has healed, returns the work that remains after that. Raises: Fenced."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        sent = [_Sent(row, self._record(row)) for row in batch]
        records = [each.record for each in sent if each.record is not None]
        without_record = {
            each.row.row_key: self._settlement.dropped(each.row.planned, slot=slot.number).entry
            for each in sent
            if each.record is None
        }

        def entries(receipts: Sequence[Receipt]) -> list[MarkerEntry]:
            each_receipt = iter(receipts)
            return [
                without_record[each.row.row_key]
                if each.record is None
                else completed(each.row.planned, next(each_receipt), slot=slot.number).entry
                for each in sent
            ]

        def write_marker(receipts: Sequence[Receipt]) -> bytes:
            return marker.encode([*slot.untidied.values(), *entries(receipts)])

        def report(result: TransactionResult) -> None:
            seconds = loop.time() - started_s
            self._telemetry.transaction(slot=role.number, result=result, rows=len(batch), seconds=seconds)

        try:
            committed = await slot.producer.deliver(records, write_marker, sends_ms=role.sends_ms)
        except DeliveryRefused as refused:
            if not refused.begun:
                self._refuse(role, sent, records, refused.refusals)
                return None
            report("refused")
            return partial(
                self._after_healing,
                slot,
                partial(self._refuse, role, sent, records, refused.refusals),
                blamed={each.destination for each in refused.refusals if each.cause is RefusalCause.TRANSIENT},
            )
        except DeliveryAborted as aborted:
            report("aborted")
            return partial(self._after_healing, slot, partial(self._broke_off, role, sent, aborted))
        except DeliveryUnknown:
            report("unknown")
            return partial(self._resolve, role, slot, sent)
        except Fenced:
            report("fenced")
            raise
        except BrokerUnavailable as error:
            # Nothing was begun. Another slot may succeed with the rows; this one begins with an init.
            slot.ready = False
            self._put_back(batch)
            role.failures_in_row += 1
            self._log_failure("Slot waits", "slot.waits", error)
            return None
        slot.ready = committed.settled
        self._own.hints[slot.number] = committed.marker_offset
        self._judge_speed(committed)
        report("committed")
        self._end(role, slot, sent, entries(committed.receipts))
        return None

    def _record(self, row: _QueuedRow) -> OutRecord | None:
        if row.planned.action is Action.DROP:
            return None
        return self._settlement.record(row.planned, row.lease.fallback_until_ms)

    def _end(self, role: _Role, slot: _Slot, sent: Sequence[_Sent], entries: Sequence[MarkerEntry]) -> None:
        """The rows have ended: they await cleanup, and leave flight, with no await in between."""
        role.failures_in_row = 0
        role.grow()
        ended: dict[ShardId, tuple[ShardLease, list[Completed]]] = {}
        for each, entry in zip(sent, entries, strict=True):
            slot.untidied[each.row.row_key] = entry
            _, of_shard = ended.setdefault(each.row.lease.shard, (each.row.lease, []))
            of_shard.append(Completed(row=each.row.planned.row, entry=entry, slot=slot.number))
        for lease, of_shard in ended.values():
            lease.cleanup.add(of_shard)
            lease.in_flight.remove([one.entry.position for one in of_shard])
        with_record = [(each, entry) for each, entry in zip(sent, entries, strict=True) if each.record is not None]
        self._settlement.report_sent(
            [each.row.planned for each, _ in with_record],
            [each.record for each, _ in with_record if each.record is not None],
            [entry.receipt for _, entry in with_record if entry.receipt is not None],
        )
        self._settlement.report_dropped([each.row.planned for each in sent if each.record is None])

    def _judge_speed(self, committed: Committed) -> None:
        for topic, taken_ms in committed.sends_ms.items():
            if taken_ms > SLOW_MS and taken_ms > SLOW_FACTOR * committed.marker_ms:
                self._suspect(topic)
            else:
                self._suspects.pop(topic, None)

    def _suspect(self, topic: str) -> None:
        if topic not in self._suspects:
            self._suspects[topic] = None
            log.info("Topic is suspect", extra={"event": "topic.suspect", "topic": topic})

    # --- failures

    async def _after_healing(self, slot: _Slot, then: Callable[[], None], *, blamed: Iterable[str] = ()) -> None:
        """Heals the slot, then does the rest. Until then `blamed` topics are not tried in any slot. Raises: Fenced,
        Unavailable."""
        blamed = list(blamed)
        self._stuck.update(blamed)
        try:
            await self._heal(slot)
        finally:
            self._stuck.subtract(blamed)
        then()

    async def _heal(self, slot: _Slot) -> None:
        """R1 and R2; before a slot's first use, too. R1: not an abort by EndTxn, for a produce request that is still on its
        way would open the transaction again; the init raises the producer's epoch first, then aborts. R2: the init may
        have undone a taker's, so only the flag tells (docs/protocol.md: x-no-recheck, x-heal-no-recheck, x-lazy).

        Raises: Fenced, Unavailable (no slot could be healed within the drain time-out: the incarnation gives itself up).
        """
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        slot.ready, slot.healing = False, True
        backoff = Backoff(self._context.rng, HEAL_BACKOFF)
        while True:
            try:
                await self._own.claim_slot(slot.number)
                await slot.producer.init()
                await self._own.recheck()
            except Unavailable as error:
                self._give_up_if_nothing_heals(started_s, error)
                self._log_failure("Slot heals", "slot.heals", error)
                await backoff.wait()
            else:
                slot.ready, slot.healing = True, False
                self._telemetry.slot_healed(slot.role, seconds=loop.time() - started_s)
                return

    async def _resolve(self, role: _Role, slot: _Slot, sent: Sequence[_Sent]) -> None:
        """R1, R2, then R3 (docs/protocol.md: x-heal-mark-first): the slot's last committed marker names all rows of the
        transaction, then they have ended; or none, then they go again. Never just "again" (x-unknown)."""
        await self._heal(slot)
        slot.ready, slot.healing = False, True  # until R3 is done
        started_s = asyncio.get_running_loop().time()
        backoff = Backoff(self._context.rng, HEAL_BACKOFF)
        name = SlotName(self._own.id, slot.number)
        while True:
            try:
                markers = await self._context.publisher.read_markers(
                    self._own.id, {name: self._own.hints.get(slot.number)}
                )
                break
            except Unavailable as error:
                self._give_up_if_nothing_heals(started_s, error)
                self._log_failure("Slot heals", "slot.heals", error)
                await backoff.wait()
        slot.ready, slot.healing = True, False
        named = {(entry.shard, entry.position): entry for entry in markers[name]}
        committed = all(each.row.row_key in named for each in sent)
        log.warning("Commit without an answer", extra={"event": "slot.commit_unknown", "committed": committed})
        if committed:
            self._end(role, slot, sent, [named[each.row.row_key] for each in sent])
        else:
            role.failures_in_row += 1
            self._put_back([each.row for each in sent])

    def _give_up_if_nothing_heals(self, started_s: float, error: Unavailable) -> None:
        waited_s = asyncio.get_running_loop().time() - started_s
        if waited_s > self._context.drain_timeout_ms / 1_000 and all(slot.healing for slot in self._slots):
            raise error

    def _broke_off(self, role: _Role, sent: Sequence[_Sent], aborted: DeliveryAborted) -> None:
        """Sends the rows again where no topic is known to be the cause: in smaller batches if time ran out; each topic
        alone if it happens twice."""
        role.failures_in_row += 1
        if aborted.timed_out:
            role.shrink()
        elif role.failures_in_row > 1:
            for topic in {each.record.topic for each in sent if each.record is not None}:
                self._suspect(topic)
        self._log_failure("Transaction broke off", "slot.aborted", aborted)
        self._put_back([each.row for each in sent])

    def _refuse(
        self, role: _Role, sent: Sequence[_Sent], records: Sequence[OutRecord], refusals: Sequence[Refusal]
    ) -> None:
        """Refused rows wait, and those behind them in their lanes (docs/protocol.md: x-lane); the others go again."""
        with_record = [each for each in sent if each.record is not None]
        of_topic: dict[str, list[_Sent]] = {}
        for each, record in zip(with_record, records, strict=True):
            of_topic.setdefault(record.topic, []).append(each)
        waits_from: dict[_LaneKey, Position] = {}
        kept: set[tuple[ShardId, Position]] = set()
        """Rows that stay in flight until their retry is written."""
        topics_refused: list[Refusal] = []
        for refusal in refusals:
            if refusal.index is not None:
                concerned = [with_record[refusal.index]]
            else:
                concerned = of_topic.get(refusal.destination, [])
                self._suspect(refusal.destination)
                if not concerned:
                    # It is no topic of the batch, so it is the topic of the markers: without it this slot cannot commit
                    # anything.
                    role.failures_in_row += 1
                if refusal.cause is RefusalCause.TRANSIENT and refusal.reason == TIMED_OUT:
                    role.shrink()
                    if role.number == QUICK:
                        continue  # too slow for this slot: the bulk role tries it, with more time
            waiting = [
                each for each in concerned if not self._settlement.fall_back(each.row.lease, each.row.planned, refusal)
            ]
            if waiting and refusal.index is None:
                topics_refused.append(refusal)
            for each in waiting:
                key = each.row.lane_key
                waits_from[key] = min(waits_from.get(key, each.row.position), each.row.position)
                if refusal.index is not None:
                    kept.add(each.row.row_key)
                    self._spawn_refusal(each.row, refusal)
        again, unsent = [], []
        for each in sent:
            from_position = waits_from.get(each.row.lane_key)
            if from_position is None or each.row.position < from_position:
                again.append(each.row)
            elif each.row.row_key not in kept:
                unsent.append(each.row)
        self._put_back(again)
        for key in waits_from:
            # Rows of the lane that no transaction has taken yet.
            lane = self._lanes[key]
            unsent += [row for row in lane.rows if row.position > waits_from[key]]
            lane.rows = deque(row for row in lane.rows if row.position < waits_from[key])
        for refusal in topics_refused:
            self._settlement.refuse_destination(refusal)
            self._spawn(partial(self._settlement.confirm_given_up, refusal), "look at a missing topic")
        _leave_flight(unsent)

    def _spawn_refusal(self, row: _QueuedRow, refusal: Refusal) -> None:
        """Counts the attempt beside the next transactions; the row is in flight until its retry is written
        (docs/protocol.md: x-lanes-refused)."""

        async def refuse() -> None:
            await self._settlement.refuse_record(row.lease, row.planned, refusal)
            _leave_flight([row])

        self._spawn(refuse, "retry mark")

    def _spawn(self, work: _Deferred, name: str) -> asyncio.Task[None]:
        """Begins work beside the transactions; its failure ends the incarnation."""
        assert self._tasks is not None, "it follows from a transaction, and these end with `run`"
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # The incarnation is ending, and an answer was faster than this task's cancellation: the group takes no more.
            raise asyncio.CancelledError
        return self._tasks.create_task(work(), name=name)

    def _return_topics_in_backoff(self) -> None:
        """Returns rows of topics in back-off to the passes, which know when to probe."""
        now_ms = self._context.clock.now_ms()
        waiting = [
            topic
            for topic, rows in self._rows_of.items()
            if rows and topic is not None and self._waits.in_backoff(Topic(topic), now_ms)
        ]
        for topic in waiting:
            lanes = [lane for _, _, lane in self._by_topic.pop(topic)]
            del self._rows_of[topic]
            for lane in lanes:
                del self._lanes[lane.key]
                _leave_flight(lane.rows)

    # --- the queue

    def _take(self, role: _Role, topics: Iterable[str | None]) -> list[_QueuedRow]:
        """The earliest due rows of these topics, up to the role's limits; none of a lane that has rows in another slot."""
        allowed = set(topics)
        heads = [(self._by_topic[topic][0][:2], topic) for topic in allowed if self._by_topic.get(topic)]
        heapq.heapify(heads)
        batch: list[_QueuedRow] = []
        size_bytes = 0
        while heads and len(batch) < role.room:
            _, topic = heapq.heappop(heads)
            lane = self._by_topic[topic][0][2]
            if batch and size_bytes + lane.rows[0].planned.size_bytes > self._bytes_max:
                break
            heapq.heappop(self._by_topic[topic])
            self._rows_of[topic] -= len(lane.rows)
            lane.listed, lane.in_slot = False, True
            taken = 0
            while lane.rows and len(batch) < role.room:
                row = lane.rows[0]
                if taken and (size_bytes + row.planned.size_bytes > self._bytes_max or self._topic(row) not in allowed):
                    break
                size_bytes += row.planned.size_bytes
                taken += 1
                batch.append(lane.rows.popleft())
            if heap := self._by_topic.get(topic):
                heapq.heappush(heads, (heap[0][:2], topic))
        return batch

    def _put_back(self, rows: Sequence[_QueuedRow]) -> None:
        """Puts the rows back at the heads of their lanes, where they wait for a transaction again."""
        for row in reversed(rows):
            self._lanes[row.lane_key].rows.appendleft(row)

    def _free_lanes(self, batch: Sequence[_QueuedRow]) -> None:
        """Lets the slots take the lanes of a transaction that is over again."""
        for key in {row.lane_key for row in batch}:
            lane = self._lanes[key]
            lane.in_slot = False
            if lane.rows:
                self._list(lane)
            else:
                del self._lanes[key]
        self._changed.set()

    def _list(self, lane: _QueuedLane) -> None:
        """Offers a lane to the slots, under the topic of its first record."""
        if lane.in_slot or not lane.rows:
            return
        lane.topic, lane.listed = self._topic(lane.rows[0]), True
        self._listed += 1
        heapq.heappush(self._by_topic.setdefault(lane.topic, []), (lane.rows[0].position, self._listed, lane))
        self._rows_of[lane.topic] += len(lane.rows)

    def _topic(self, row: _QueuedRow) -> str | None:
        """The topic of the row's record; None if there is none."""
        if row.planned.action is Action.DELIVER and row.planned.lane is not None:
            return row.planned.lane[0]
        record = self._record(row)
        return None if record is None else record.topic

    def _log_failure(self, message: str, event: str, error: BaseException) -> None:
        """Logs at most one line a minute for each event."""
        log.warning(message, extra={"event": event, "error": str(error), "once_per": event})


def _leave_flight(rows: Iterable[_QueuedRow]) -> None:
    """Takes the rows out of flight unsent: the passes read them again."""
    by_lease: dict[int, tuple[ShardLease, list[Position]]] = {}
    for row in rows:
        by_lease.setdefault(id(row.lease), (row.lease, []))[1].append(row.position)
    for lease, positions in by_lease.values():
        lease.in_flight.remove(positions, unsent=True)
