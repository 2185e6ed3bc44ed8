"""Replacements of a rule by the mutations of slots, markers and commits, as `breaks` has them for the others."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from clockwork.domain import marker as marker_value
from clockwork.domain.planning import Action, PlannedDelivery
from clockwork.domain.schedule import Receipt
from clockwork.errors import BrokerUnavailable, Unavailable
from clockwork.firing.cleanup import Completed
from clockwork.firing.group_commit import GroupCommit
from clockwork.firing.lease import ShardLease
from clockwork.ports.delivery import Committed, SlotName
from tests.simulation.kafka_host import HostPublisher, HostSlotProducer, MarkerReading, Unanswered
from tests.simulation.kafka_world import Busy, Entry, NotHere, View

# --- own slots: R1, R2, R3


async def heal_unchecked(self: GroupCommit, slot: Any) -> None:
    """R1 without R2, where one of the next three says so."""
    if getattr(slot, "checked", True):
        await _heal(self, slot)
        return
    own = self._own

    async def no_recheck() -> None:
        return None

    own.recheck = no_recheck  # type: ignore[method-assign]
    try:
        await _heal(self, slot)
    finally:
        own.__dict__.pop("recheck", None)


async def unchecked_after_a_refusal(self: GroupCommit, slot: Any, then: Any, *, blamed: Any = ()) -> None:
    """After a refusal the slot goes on without R2."""
    slot.checked = False
    try:
        await _after_healing(self, slot, then, blamed=blamed)
    finally:
        slot.checked = True


async def unchecked_after_an_unknown_commit(self: GroupCommit, role: Any, slot: Any, sent: Any) -> None:
    """After an unknown commit the slot goes on without R2."""
    slot.checked = False
    try:
        await _resolve(self, role, slot, sent)
    finally:
        slot.checked = True


async def unchecked_at_the_first_use(self: GroupCommit, slot: Any) -> None:
    """The slot is used for the first time without R2."""
    slot.checked = hasattr(slot, "used")
    await heal_unchecked(self, slot)
    slot.checked = slot.used = True


async def resolve_by_an_early_marker(self: GroupCommit, role: Any, slot: Any, sent: Any) -> None:
    """R3 before R1."""
    publisher, name = self._context.publisher, SlotName(self._own.id, slot.number)
    early = None
    while early is None:
        try:
            early = await publisher.read_markers(self._own.id, {name: self._own.hints.get(slot.number)})
        except Unavailable:
            continue
    await self._heal(slot)
    named = {(entry.shard, entry.position): entry for entry in early[name]}
    if all(each.row.row_key in named for each in sent):
        self._end(role, slot, sent, [named[each.row.row_key] for each in sent])
    else:
        self._put_back([each.row for each in sent])


async def unknown_taken_for_abort(self: GroupCommit, role: Any, slot: Any, sent: Any) -> None:
    """A commit whose answer was lost is taken for an abort."""
    await self._heal(slot)
    self._put_back([each.row for each in sent])


async def usable_after_repeated_commit(self: HostSlotProducer, coordinator: int) -> bool:
    """The slot goes on after a commit that was repeated, without init."""
    await _commit(self, coordinator)
    return True


# --- what a marker names


def end_and_forget(self: GroupCommit, role: Any, slot: Any, sent: Any, entries: Any) -> None:
    """The next marker names only the rows of its own transaction."""
    _end(self, role, slot, sent, entries)
    slot.untidied.clear()


def end_and_forget_what_was_dropped(self: GroupCommit, role: Any, slot: Any, sent: Any, entries: Any) -> None:
    """The next marker does not name what was dropped."""
    _end(self, role, slot, sent, entries)
    slot.untidied = {place: entry for place, entry in slot.untidied.items() if entry.receipt is not None}


def one_marker_key_for_all_slots(name: SlotName) -> bytes:
    """The markers of all slots have one key."""
    return marker_value.marker_key(name.incarnation, 0)


def drop_beside_transactions(self: GroupCommit, lease: ShardLease, deliveries: Sequence[PlannedDelivery]) -> None:
    """Ends what is dropped without the marker of a transaction."""
    dropped = [each for each in deliveries if each.action is Action.DROP]
    lease.cleanup.add([self._settlement.dropped(each, slot=0) for each in dropped])
    _enqueue(self, lease, [each for each in deliveries if each.action is not Action.DROP])


async def clean_up_before_the_commit(self: GroupCommit, role: Any, slot: Any, batch: Any) -> Any:
    """The rows await cleanup from the moment that their marker is written, committed or not."""
    producer, rows = slot.producer, {row.row_key: row for row in batch}

    class Early:
        def __getattr__(self, name: str) -> Any:
            return getattr(producer, name)

        async def deliver(self, records: Any, marker: Any, *, sends_ms: int) -> Committed:
            def write(receipts: Sequence[Receipt]) -> bytes:
                value: bytes = marker(receipts)
                for entry in marker_value.decode(value):
                    if row := rows.get((entry.shard, entry.position)):
                        row.lease.cleanup.add([Completed(row=row.planned.row, entry=entry, slot=slot.number)])
                return value

            committed: Committed = await producer.deliver(records, write, sends_ms=sends_ms)
            return committed

    slot.producer = Early()
    try:
        return await _transact(self, role, slot, batch)
    finally:
        slot.producer = producer


async def deliver_and_hint_early(self: HostSlotProducer, records: Any, marker: Any, *, sends_ms: int) -> Committed:
    """The hint is a marker whose commit is not known."""
    hints = self.hints  # type: ignore[attr-defined]
    produce = self._produce_marker

    async def produce_and_hint(*args: Any) -> Receipt:
        receipt = await produce(*args)
        hints[self.name.slot] = receipt.offset
        return receipt

    self._produce_marker = produce_and_hint  # type: ignore[assignment,method-assign]
    try:
        return await _deliver(self, records, marker, sends_ms=sends_ms)
    finally:
        del self._produce_marker


def open_slot_with_hints(self: GroupCommit) -> Any:
    """A slot is opened with the hint of a marker that is not committed."""
    slot = _open_slot(self)
    slot.producer.hints = self._own.hints  # type: ignore[attr-defined]
    return slot


# --- reading a marker


async def no_marker(self: HostPublisher, reader: Any, slots: Mapping[SlotName, int | None]) -> Any:
    """A take-over reads no markers."""
    return dict.fromkeys(slots, ())


def first_of_the_window(self: MarkerReading, records: Sequence[Entry], key: bytes, *, begin: int) -> bytes | None:
    """The first marker of a slot counts, not the last."""
    found = (e.record.value for e in records if e.offset >= begin and e.record is not None and e.record.key == key)
    return next(found, None)


def reading_to_its_end(*, cached: bool) -> Callable[..., Any]:
    """Reads up to the end that the leader itself names: without a barrier."""

    async def run(self: MarkerReading) -> list[Entry]:
        deadline_s = self._wire.host.loop.time() + 3.0
        end: int | None = None
        while self._wire.host.loop.time() < deadline_s:
            try:
                broker = await (self._brokers.leader(self._where) if cached else self.leader())
                view: View = await self._wire.once("fetch", partial(self._world.fetch, broker, self._where))
            except (Unanswered, NotHere, Busy):
                self._brokers.forget_leader(self._where)
                await self._wire.pause()
                continue
            end = view.end if end is None else end
            if view.stable_end >= end:
                return list(view.committed)
            await self._wire.pause()
        raise BrokerUnavailable("not read in time")

    return run


def barrier_by_offset_alone(self: MarkerReading, view: View, barrier: int) -> bool:
    """A record at the barrier's offset counts as the barrier, on whichever broker's log."""
    return view.end > barrier


def complete_whatever_is_open(self: MarkerReading, view: View, barrier: int) -> bool:
    """Markers are read without waiting for the last stable offset."""
    return True


# --- refusals


def refuse_and_land_at_once(self: GroupCommit, row: Any, refusal: Any) -> None:
    """The row is read again before its retry is written."""
    _spawn_refusal(self, row, refusal)
    row.lease.in_flight.remove([row.position], unsent=True)


def refuse_only_the_row(self: GroupCommit, role: Any, sent: Any, records: Any, refusals: Any) -> None:
    """Those behind it in its lane go again."""
    if any(refusal.index is None for refusal in refusals):
        _refuse(self, role, sent, records, refusals)
        return
    with_record = [each for each in sent if each.record is not None]
    kept = []
    for refusal in refusals:
        row = with_record[refusal.index].row
        if not self._settlement.fall_back(row.lease, row.planned, refusal):
            kept.append(row)
            self._spawn_refusal(row, refusal)
    self._put_back([each.row for each in sent if each.row not in kept])


_heal = GroupCommit._heal
_refuse = GroupCommit._refuse
_transact = GroupCommit._transact
_resolve = GroupCommit._resolve
_end = GroupCommit._end
_enqueue = GroupCommit.enqueue
_spawn_refusal = GroupCommit._spawn_refusal
_open_slot = GroupCommit._open_slot
_after_healing = GroupCommit._after_healing
_commit = HostSlotProducer._commit
_deliver = HostSlotProducer.deliver
