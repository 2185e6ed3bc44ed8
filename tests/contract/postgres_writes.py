"""Every write of the store on PostgreSQL, upon a scene, and the look that shows what it did."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from clockwork.domain.command_notes import CommandNote, CommandOffset, NoteChange
from clockwork.domain.ownership import IncarnationId, ShardClaim
from clockwork.domain.schedule import EndState, Failure, Outcome, RequestId, Retry, Row, ScheduleKey
from clockwork.stores.postgres.store import PostgresScheduleStore
from tests.contract.store_fixtures import new_incarnation
from tests.support.builders import DUE_MS, SHARD, end, gone, outcome, pointer, row

MINE: Final = RequestId("mine")
RETRY: Final = Retry(at_ms=DUE_MS + 1_000, epoch=7, attempts=2)
NOTE: Final = NoteChange(
    before=(),
    after=CommandNote(
        offsets=(CommandOffset(kafka_partition=0, offset=7, at_ms=9),), by="mine", expires_at_s=2_000_000_000
    ),
)


@dataclass
class Scene:
    """The tables before a write."""

    store: PostgresScheduleStore
    """Undisturbed."""
    old: Row
    """Created and held."""
    new: Row
    """The same key, not stored."""
    me: IncarnationId


Act = Callable[[PostgresScheduleStore, Scene], Awaitable[object]]
Look = Callable[[Scene], Awaitable[object]]


def cancelled(of: Row) -> Outcome:
    return outcome(of, EndState.CANCELLED)


def superseded(scene: Scene) -> Outcome:
    return replace(outcome(scene.old, EndState.SUPERSEDED), moved_to=scene.new.position)


def unreadable(of: Row) -> Outcome:
    failure = Failure(reason="unreadable", attempts=0)
    return replace(outcome(of, EndState.FAILED, failure=failure), schedule=None, receipt=None)


async def ended(scene: Scene) -> object:
    schedule = scene.old.schedule
    return await scene.store.read_outcome(schedule.client_id, schedule.schedule_key, scene.old.position)


async def pointed(scene: Scene) -> object:
    return await scene.store.read_pointer(scene.old.schedule.client_id, scene.old.schedule.schedule_key)


async def noted(scene: Scene) -> object:
    return await scene.store.read_command_note(scene.old.schedule.client_id, scene.old.schedule.schedule_key)


async def stored_node(scene: Scene) -> object:
    return (await scene.store.read_nodes([scene.me])).get(scene.me)


async def stored_row(scene: Scene) -> object:
    return await scene.store.read_row(scene.old.name)


def reschedule(store: PostgresScheduleStore, scene: Scene, note: NoteChange | None = None) -> Awaitable[None]:
    return store.reschedule(
        scene.old.name,
        superseded(scene),
        hold=MINE,
        row=scene.new,
        pointer=pointer(scene.new),
        replaces=pointer(scene.old),
        note=note,
    )


async def take(store: PostgresScheduleStore, scene: Scene) -> None:
    await store.take_shards([ShardClaim(shard=SHARD, epoch=1, floor_ms=5)], taker=scene.me)


async def create_another(store: PostgresScheduleStore, scene: Scene) -> None:
    another = row(replace(scene.new.schedule, schedule_key=ScheduleKey("another")), at=scene.new.position)
    await store.create(another, pointer(another), replaces=None)


async def create_by_command(store: PostgresScheduleStore, scene: Scene) -> None:
    await store.create(scene.new, pointer(scene.new), replaces=pointer(scene.old), note=NOTE)


async def put_unreadable(store: PostgresScheduleStore, scene: Scene) -> None:
    await scene.store.finish(SHARD, [gone(scene.old)])
    await store.put_unreadable_outcome(pointer(scene.old), unreadable(scene.old))


async def delete_fenced(store: PostgresScheduleStore, scene: Scene) -> None:
    await scene.store.fence(scene.me, at_ms=7)
    await store.delete_node(scene.me)


async def release(store: PostgresScheduleStore, scene: Scene) -> None:
    await store.release_shard(SHARD, epoch=1, owner=scene.me, floor_ms=9)


WRITES: Final[dict[str, tuple[Act, Look]]] = {
    "create": (create_another, lambda s: s.store.read_row(s.new.name)),
    "create over": (
        lambda store, s: store.create(s.new, pointer(s.new), replaces=pointer(s.old)),
        lambda s: s.store.read_row(s.new.name),
    ),
    "create by command": (create_by_command, noted),
    "note_command": (
        lambda store, s: store.note_command(s.old.schedule.client_id, s.old.schedule.schedule_key, NOTE),
        noted,
    ),
    "discard": (lambda store, s: store.discard(pointer(s.old), at_ms=7), pointed),
    "push_pointer_expiry": (
        lambda store, s: store.push_pointer_expiry(s.old.name, expires_at_s=2_000_000_001),
        pointed,
    ),
    "put_unreadable_outcome": (put_unreadable, ended),
    "cancel": (lambda store, s: store.cancel(s.old.name, cancelled(s.old), hold=MINE), ended),
    "cancel by command": (lambda store, s: store.cancel(s.old.name, cancelled(s.old), hold=MINE, note=NOTE), noted),
    "reschedule": (reschedule, lambda s: s.store.read_row(s.new.name)),
    "reschedule by command": (lambda store, s: reschedule(store, s, NOTE), noted),
    "start_incarnation": (
        lambda store, s: store.start_incarnation(IncarnationId(f"{s.me}9"), node="n"),
        lambda s: s.store.list_nodes(),
    ),
    "raise_frontier": (lambda store, s: store.raise_frontier(s.me, frontier_ms=9, hints={0: 3}), stored_node),
    "raise_slots": (lambda store, s: store.raise_slots(s.me, slots=2), stored_node),
    "fence": (lambda store, s: store.fence(s.me, at_ms=7), stored_node),
    "delete_node": (delete_fenced, stored_node),
    "take_shards": (take, lambda s: s.store.read_shard(SHARD)),
    "release_shard": (release, lambda s: s.store.read_shard(SHARD)),
    "drop_hold": (lambda store, s: store.drop_hold(s.old.name), stored_row),
    "set_retry": (lambda store, s: store.set_retry(s.old.name, RETRY, drop_hold=True), stored_row),
    "finish": (lambda store, s: store.finish(SHARD, [end(s.old)]), ended),
}


async def make_scene(store: PostgresScheduleStore) -> Scene:
    old = row()
    me = new_incarnation()
    await store.create(old, pointer(old), replaces=None)
    await store.hold(old.name, MINE)
    await store.start_incarnation(me, node="n")
    await store.take_shards([ShardClaim(shard=SHARD, epoch=0, floor_ms=0)], taker=me)
    return Scene(store, old, row(replace(old.schedule, due_ms=DUE_MS + 1, version=2)), me)
