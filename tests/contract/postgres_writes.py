"""Every write of the store on PostgreSQL, upon a scene, and the look that shows what it did."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final

from clockwork.domain.command_notes import CommandNote, CommandOffset, NoteChange
from clockwork.domain.jobs.job import JobName, JobTransaction, RunDelivery, TakenRow
from clockwork.domain.jobs.steps import pause, run_now
from clockwork.domain.ownership import IncarnationId, ShardClaim
from clockwork.domain.run import JobId
from clockwork.domain.schedule import EndState, Failure, Outcome, RequestId, Retry, Row, ScheduleKey
from clockwork.stores.postgres.jobs import PostgresJobStore
from clockwork.stores.postgres.store import PostgresScheduleStore
from tests.contract.store_fixtures import new_incarnation
from tests.support.builders import DUE_MS, SHARD, end, gone, outcome, pointer, row
from tests.support.jobs import created, definition, delivery_of, new_job, next_armed, step_context, the_row

MINE: Final = RequestId("mine")
RETRY: Final = Retry(at_ms=DUE_MS + 1_000, epoch=7, attempts=2, last_refusal="record_too_large")
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
    job: JobTransaction
    """Made; its row is held."""
    changes: dict[object, JobTransaction] = field(default_factory=dict)
    """The changes of jobs that were made upon it, each the same in every attempt."""


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


def jobs_of(store: PostgresScheduleStore) -> PostgresJobStore:
    return PostgresJobStore(store.client)


def changes(make: Callable[[Scene], JobTransaction]) -> Act:
    return lambda store, s: jobs_of(store).change(s.changes.setdefault(make, make(s)))


async def stored_job(scene: Scene) -> object:
    return await jobs_of(scene.store).read_state(scene.job.name)


async def job_noted(scene: Scene) -> object:
    return await jobs_of(scene.store).read_command_note(scene.job.name)


def run_delivery(scene: Scene) -> RunDelivery:
    return delivery_of(scene.job)


async def stored_run(scene: Scene) -> object:
    return await jobs_of(scene.store).read_run_delivery(scene.job.name, the_row(scene.job).position)


async def stored_versions(scene: Scene) -> object:
    return await jobs_of(scene.store).read_versions(scene.job.name, below=None, versions_max=10)


def paused(scene: Scene, note: NoteChange | None = None) -> JobTransaction:
    taken = [TakenRow(name=the_row(scene.job).name, hold=MINE)]
    return replace(pause(scene.job.state, taken, step_context(), note=None), command=note)


JOB_WRITES: Final[dict[str, tuple[Act, Look]]] = {
    "create job": (
        changes(lambda s: created(new_job(job_id=JobId("another")))),
        lambda s: jobs_of(s.store).read_state(JobName(s.job.name.client_id, JobId("another"))),
    ),
    "arm job": (changes(lambda scene: next_armed(scene.job)), stored_job),
    "take job's row": (changes(paused), stored_job),
    "take job's row by command": (changes(lambda s: paused(s, NOTE)), job_noted),
    "run job": (changes(lambda s: run_now(s.job.state, definition(s.job), step_context(), request_id="r")), stored_job),
    "note_command of a job": (lambda store, s: jobs_of(store).note_command(s.job.name, NOTE), job_noted),
    "put_run_deliveries": (
        lambda store, s: jobs_of(store).put_run_deliveries([run_delivery(s)], keep_existing=False),
        stored_run,
    ),
    "put_run_deliveries, the first": (
        lambda store, s: jobs_of(store).put_run_deliveries([run_delivery(s)], keep_existing=True),
        stored_run,
    ),
    "prune_versions": (lambda store, s: jobs_of(store).prune_versions(s.job.state, below=2), stored_versions),
    "forget job": (lambda store, s: jobs_of(store).forget(s.job.state), stored_job),
}
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
    **JOB_WRITES,
}


async def make_scene(store: PostgresScheduleStore) -> Scene:
    old = row()
    me = new_incarnation()
    await store.create(old, pointer(old), replaces=None)
    await store.hold(old.name, MINE)
    await store.start_incarnation(me, node="n")
    await store.take_shards([ShardClaim(shard=SHARD, epoch=0, floor_ms=0)], taker=me)
    job = created()
    await jobs_of(store).change(job)
    await store.hold(the_row(job).name, MINE)
    return Scene(store, old, row(replace(old.schedule, due_ms=DUE_MS + 1, version=2)), me, job)
