"""What the mutations put in the place of a rule: each function stands for one that `mutations` names, but for one flaw."""

import asyncio
import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from clockwork.domain import marker
from clockwork.domain.planning import Action, PlannedDelivery, Planner
from clockwork.domain.position import due_ms_of
from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import BrokenRow, EndState, Outcome, Pointer, RequestId, Retry, Row, RowName
from clockwork.errors import (
    BrokerUnavailable,
    ConditionFailed,
    DeliveryUnknown,
    Fenced,
    StoreUnavailable,
    TransactionConflict,
)
from clockwork.firing import shard_pass
from clockwork.firing.cleanup import Cleanup
from clockwork.firing.deliver_acknowledged import AcknowledgedDelivery
from clockwork.firing.deliver_transactional import TransactionalDelivery
from clockwork.firing.settlement import completed
from clockwork.firing.shard_pass import ShardPass
from clockwork.firing.takeover import ShardLease, Takeover
from clockwork.ports.store import End
from clockwork.requests import cancel, state
from clockwork.requests import hold as holding
from clockwork.requests.context import RequestContext
from clockwork.requests.hold import Held, HoldAttempts
from clockwork.requests.results import NotFound, Reason, Refused
from tests.simulation.kafka_host import HostPublisher, HostShardPublisher
from tests.simulation.store_world import HostStore

# --- Kafka's fence and the marker


async def init_without_fence(self: HostShardPublisher) -> None:
    world = self._wire.world
    entry = world._ids.get(self._id)
    self._epoch = entry.epoch if entry is not None else world.init(self._id)
    self._usable = True


async def no_marker(self: HostShardPublisher) -> tuple[()]:
    return ()


async def marker_before_init(self: HostPublisher, shard: Any) -> HostShardPublisher:
    publisher = HostShardPublisher(self._wire, shard)
    early = await publisher.read_marker()
    await publisher.init()

    async def as_read_before() -> Any:
        return early

    publisher.read_marker = as_read_before  # type: ignore[method-assign]
    return publisher


async def unknown_taken_for_abort(
    self: TransactionalDelivery, lease: ShardLease, deliveries: Sequence[PlannedDelivery]
) -> int:
    try:
        return await _deliver_transactional(self, lease, deliveries)
    except DeliveryUnknown as unknown:
        await self._replace_producer(lease)
        raise BrokerUnavailable from unknown


async def renew_without_proof(self: Takeover, lease: ShardLease) -> None:
    await lease.publisher.close()
    lease.publisher = await self._publisher.open_shard(lease.shard)


async def renew_and_only_read(self: Takeover, lease: ShardLease) -> None:
    await renew_without_proof(self, lease)
    state = await self._store.read_shard(lease.shard)
    if state.epoch != lease.epoch:
        raise Fenced


async def usable_after_repeated_commit(self: HostShardPublisher) -> bool:
    await _commit(self)
    return True


async def cleanup_before_commit(
    self: TransactionalDelivery,
    lease: ShardLease,
    batch: list[PlannedDelivery],
    sent: list[PlannedDelivery],
    records: list[OutRecord],
) -> None:
    dropped = [self._settlement.dropped(each) for each in batch if each.action is Action.DROP]

    def write_marker(receipts: Sequence[Any]) -> bytes:
        ended = [completed(each, receipt) for each, receipt in zip(sent, receipts, strict=True)] + dropped
        value = marker.encode([*lease.cleanup.marker_entries(), *(one.entry for one in ended)])
        lease.cleanup.add(ended)
        return value

    await lease.publisher.deliver(records, write_marker)


async def drop_beside_transactions(
    self: TransactionalDelivery, lease: ShardLease, deliveries: Sequence[PlannedDelivery]
) -> int:
    dropped = [self._settlement.dropped(each) for each in deliveries if each.action is Action.DROP]
    lease.cleanup.add(dropped)
    return len(dropped) + await _deliver_transactional(
        self, lease, [f for f in deliveries if f.action is not Action.DROP]
    )


def marked_if_there_is_a_record(self: Cleanup) -> Any:
    return (entry for entry in _marker_entries(self) if entry.receipt is not None)


async def epoch_not_raised(self: HostStore, shard: Any, *, expected: int, owner: str) -> Any:
    return await self.read_shard(shard)


# --- the frontier, and the time


async def frontier_not_written(self: ShardPass, lease: ShardLease) -> None:
    lease.frontier_ms = max(lease.frontier_ms, self._clock.now_ms() + self._settings.frontier_lead_ms)


async def frontier_though_fenced(self: ShardPass, lease: ShardLease) -> None:
    try:
        await _raise_frontier(self, lease)
    except Fenced:
        lease.frontier_ms = self._clock.now_ms() + self._settings.frontier_lead_ms


async def take_over_and_lower(self: Takeover, shard: Any) -> ShardLease:
    lease = await _takeover(self, shard)
    states = self._store.shard_states  # type: ignore[attr-defined]
    lower_ms = min(states[shard].frontier_ms, self._store._host.clock.now_ms())  # type: ignore[attr-defined]
    dict.__setitem__(states, shard, replace(states[shard], frontier_ms=lower_ms))
    lease.frontier_ms = lower_ms
    return lease


async def frontier_pretended(self: ShardPass, lease: ShardLease) -> None:
    lease.frontier_ms = max(lease.frontier_ms, self._clock.now_ms() + self._settings.frontier_lead_ms)


async def read_then_frontier(self: ShardPass, lease: ShardLease, *, records_max: int) -> Planner:
    """Together with the one above: what was pretended is written when the rows have been read."""
    planner = await _read(self, lease, records_max=records_max)
    await self._store.raise_frontier(lease.shard, epoch=lease.epoch, frontier_ms=lease.frontier_ms)
    return planner


async def bound_of_the_answer(self: ShardPass, lease: ShardLease, *, records_max: int) -> Planner:
    """What is due when the answer comes is fired, not only what was due when the Query began."""
    left_out = lease.cleanup.positions()
    first = await self._store.read_page(lease.shard, after=None, rows_max=shard_pass.PAGE_ROWS_MAX)

    class ReadBefore:
        async def read_page(self, shard: Any, **how: Any) -> Any:
            return first

    later = copy.copy(self)
    later._store = ReadBefore()  # type: ignore[assignment]
    lease.cleanup.positions = lambda: left_out  # type: ignore[method-assign]
    try:
        return await _read(later, lease, records_max=records_max)
    finally:
        del lease.cleanup.positions


# --- holds, cancels, retries


async def look_before_hold(self: HoldAttempts) -> Held:
    context, pointer = self._context, self._pointer
    by = RequestId(f"{context.rng.getrandbits(128):032x}")
    shard = await context.store.read_shard(pointer.shard)
    row = await context.store.hold(pointer.row_name, by)
    if shard.frontier_ms >= holding._free_until_ms(row, epoch=shard.epoch):
        raise holding.TooLate
    return Held(row, by)


def announcements_forgotten(self: ShardPass, lease: ShardLease, left_out: Any, now_ms: int) -> None:
    lease.announced_not_before_ms = {}


async def holds_ignored(self: ShardPass, planner: Planner) -> list[PlannedDelivery]:
    return list(planner.deliveries)


async def drop_hold_and_fire(self: HostStore, name: Any) -> bool:
    await _drop_hold(self, name)
    return True


async def drop_hold_through_conflict(self: HostStore, name: Any) -> bool:
    try:
        return await _drop_hold(self, name)
    except TransactionConflict:
        return True


def held_by_anybody(self: HostStore, name: RowName, outcome: Outcome, hold: Any) -> None:
    if (name.shard, name.position) not in self.rows:
        raise ConditionFailed


def free_until_whatever_epoch(row: Any, *, epoch: int) -> int:
    return cancel_free_until(row, epoch=row.retry.epoch if row.retry else epoch)


def free_until_whatever_guarantee(row: Any, *, epoch: int) -> int:
    return row.retry.at_ms if row.retry is not None and row.retry.epoch == epoch else due_ms_of(row.position)


def one_hold_per_request(text: str) -> Any:
    return f"hold-of-{hash(asyncio.current_task())}"


async def cancel_whatever_is_there_now(
    context: RequestContext, client_id: Any, schedule_key: Any, deadline: Any, *, condition: Any, command: Any
) -> Any:
    while True:
        try:
            pointer = await context.store.read_pointer(client_id, schedule_key)
            if pointer is None:
                return NotFound()
            end = await cancel._cancel_row(context, pointer, deadline, command)
        except StoreUnavailable:
            await deadline.pause("")
            continue
        if isinstance(end, Row | BrokenRow):
            return Refused(Reason.IN_FLIGHT, state.pending_view(pointer, end))
        if end.state is not EndState.SUPERSEDED:
            return cancel._result(pointer, end)


def upsert(self: HostStore, name: RowName, retry: Retry | None, *, drop_hold: bool) -> bool:
    there = _change_row(self, name, retry, drop_hold=drop_hold)
    if not there and (row := self.world.rows.ever.get((name.shard, name.position))) is not None:
        self._insert(replace(row, retry=retry))
    return True


# --- rows, lanes, cleanup


def applied_however_far(self: Planner, row: Row, retry: Retry) -> bool:
    return retry.at_ms > self.bound_ms


def only_the_row(deliveries: list[PlannedDelivery], lane: Any, *, after: Any) -> list[PlannedDelivery]:
    return [firing for firing in deliveries if firing.row.position != after]


def block_no_lane(self: Planner, lane: Any, until_ms: int) -> None:
    self.waits_until_ms = until_ms if self.waits_until_ms is None else min(self.waits_until_ms, until_ms)


async def delete_first(self: HostStore, shard: Any, ends: Sequence[End]) -> None:
    await self.delete_rows(shard, [end.row.position for end in ends])
    await _finish(self, shard, ends)


async def lane_at_once(self: AcknowledgedDelivery, lease: ShardLease, deliveries: Sequence[PlannedDelivery]) -> int:
    counts = await asyncio.gather(*(_deliver_acknowledged(self, lease, [each]) for each in deliveries))
    return sum(counts)


async def last_outcome_stands(self: HostStore, outcomes: Sequence[Outcome]) -> None:
    await self.put_outcomes(outcomes)


# --- answers


async def none_seen_is_none_there(context: RequestContext, client_id: Any, schedule_key: Any, deadline: Any) -> Any:
    pointer = await context.store.read_pointer(client_id, schedule_key)
    return None if pointer is None else await state.view_at(context, pointer)


async def state_from_the_row(context: RequestContext, pointer: Pointer) -> Any:
    row = await context.store.read_row(pointer.row_name)
    if row is not None:
        return state.pending_view(pointer, row)
    outcome = await state.outcome_at(context, pointer)
    return None if outcome is None or outcome.state is EndState.SUPERSEDED else state.ended_view(pointer, outcome)


async def create_over_anything(
    self: HostStore, row: Row, pointer: Pointer, *, replaces_version: int | None, note: Any = None
) -> None:
    there = self.pointers.get((pointer.client_id, pointer.schedule_key))
    await _create(self, row, pointer, replaces_version=there.version if there else None, note=note)


_commit = HostShardPublisher._commit
_deliver_transactional = TransactionalDelivery.deliver
_deliver_acknowledged = AcknowledgedDelivery.deliver
_raise_frontier = ShardPass.raise_frontier
_read = ShardPass._read
_takeover = Takeover.run
_marker_entries = Cleanup.marker_entries
_drop_hold = HostStore.drop_hold
_finish = HostStore.finish
_change_row = HostStore._change_row
_create = HostStore.create
cancel_free_until = holding._free_until_ms
