"""Deliberate breaks of the protocol. Each must be caught: one that is not is a hole in the simulation, or a needless step.

A mutation is a small change of behaviour, put over the production engine (or over the simulated client library) for as
long as `applied` lasts. `seeds` is within how many seeds, counted from 0, it must be caught; the figure leaves room, since
every change of the engine draws other histories. The cases of the protocol's model that they correspond to are named.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from clockwork.clock import ClockGuard
from clockwork.domain import planning
from clockwork.domain.command_notes import CommandOffset
from clockwork.domain.jobs import steps
from clockwork.domain.planning import Planner
from clockwork.firing import cleanup, job_chains, shard_pass
from clockwork.firing.cleanup import Cleanup
from clockwork.firing.deliver_acknowledged import AcknowledgedDelivery
from clockwork.firing.group_commit import GroupCommit
from clockwork.firing.incarnation import RunningIncarnation
from clockwork.firing.lease import RowsInFlight, ShardLease
from clockwork.firing.shard_pass import ShardPass
from clockwork.firing.takeover import Takeover
from clockwork.operations import job_audit
from clockwork.operations.job_audit import JobAudit
from clockwork.requests import hold, reschedule, service, state
from clockwork.requests.dedup import CommandDedup
from clockwork.requests.hold import HoldAttempts
from clockwork.requests.jobs import completion, take
from clockwork.requests.jobs.service import JobService
from clockwork.stores.memory import store as memory_store
from tests.simulation import (
    breaks,
    breaks_of_changes,
    breaks_of_commands,
    breaks_of_jobs,
    breaks_of_ownership,
    breaks_of_passes,
    breaks_of_transactions,
    kafka_host,
    store_world,
)
from tests.simulation.command_world import CommandWorld, HostCommandLog
from tests.simulation.job_world import HostJobStore, JobWorld
from tests.simulation.kafka_host import HostPublisher, HostSlotProducer, MarkerReading
from tests.simulation.store_world import HostStore, StoreWorld
from tests.simulation.themes import Theme

Patch = tuple[Any, str, Any]
"""An object, the name of one of its attributes, and what stands there instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutation:
    """One break."""

    name: str
    seeds: int
    theme: Theme | None = None
    patches: Callable[[], Sequence[Patch]]


@contextlib.contextmanager
def applied(mutation: Mutation) -> Iterator[None]:
    """Breaks the protocol, then mends it."""
    with contextlib.ExitStack() as stack:
        for thing, name, instead in mutation.patches():
            if not hasattr(thing, name):
                raise AttributeError(f"{mutation.name}: {thing!r} has no {name} to break")
            if name in vars(thing):
                stack.callback(setattr, thing, name, vars(thing)[name])
            else:
                stack.callback(delattr, thing, name)  # inherited
            setattr(thing, name, instead)
        yield


def by_name(name: str) -> Mutation:
    return next(mutation for mutation in (*MUTATIONS, *RARE) if mutation.name == name)


def _scripted(name: str, *patches: Patch) -> Mutation:
    return Mutation(name=name, seeds=0, patches=lambda: patches)


def _chance(name: str, theme: Theme | None, seeds: int, *patches: Patch) -> Mutation:
    return Mutation(name=name, seeds=seeds, theme=theme, patches=lambda: patches)


def _taking(*steps: str) -> Patch:
    return (Takeover, "_take_from", breaks_of_ownership.taking(*steps))


def _owning(**parts: bool) -> Patch:
    return (HostStore, "take_shards", breaks_of_ownership.owning(**parts))


_OWNERSHIP: Final = (
    _chance(
        "shard taken before its cleanup", Theme.COMMITS, 100, _taking("fence", "init", "marker", "own", "clean up")
    ),
    _chance("taken without init", Theme.TAKE_OVERS, 100, _taking("fence", "marker", "clean up", "own")),
    _chance("marker ignored", Theme.COMMITS, 20, (HostPublisher, "read_markers", breaks_of_transactions.no_marker)),
    _chance("shard taken without condition", Theme.HAND_OVERS, 100, _owning(condition=False)),
    _chance(
        "released before its cleanup",
        Theme.HAND_OVERS,
        100,
        (ShardLease, "idle", property(breaks_of_ownership.idle_if_nothing_is_in_flight)),
    ),
    _chance(
        "released with a row in flight",
        Theme.HAND_OVERS,
        100,
        (ShardLease, "idle", property(breaks_of_ownership.idle_if_all_is_clean)),
    ),
    _chance("node item expires", Theme.HAND_OVERS, 20, (StoreWorld, "_expire", breaks_of_ownership.expire_nodes)),
    _chance(
        "absent item taken for zero",
        Theme.HAND_OVERS,
        20,
        (StoreWorld, "_expire", breaks_of_ownership.expire_nodes),
        (HostStore, "read_nodes", breaks_of_ownership.absent_counts_as_zero),
        (HostStore, "read_shard_and_node", breaks_of_ownership.absent_counts_as_zero_in_the_look),
        (HostStore, "fence", breaks_of_ownership.fence_what_is_absent),
    ),
    _chance(
        "frontier raised though fenced",
        Theme.PLAIN,
        120,
        (HostStore, "raise_frontier", breaks_of_ownership.raise_frontier_though_fenced),
    ),
    _chance(
        "frontier not written",
        Theme.CANCELS,
        20,
        (RunningIncarnation, "raise_frontier", breaks_of_passes.frontier_pretended),
    ),
    _chance(
        "frontier written after reading",
        Theme.CANCELS,
        100,
        (RunningIncarnation, "raise_frontier", breaks_of_passes.frontier_pretended),
        (ShardPass, "_read", breaks_of_passes.read_then_frontier),
    ),
    _chance(
        "shard item read before hold",
        Theme.CANCELS,
        120,
        (HoldAttempts, "hold_and_look", breaks_of_ownership.look_before_hold),
    ),
    _chance(
        "shard item read before hold, by changes",
        Theme.CHANGES,
        120,
        (HoldAttempts, "hold_and_look", breaks_of_ownership.look_before_hold),
    ),
    _chance(
        "look at the floor only", Theme.CANCELS, 20, (hold, "_shard_and_owner", breaks_of_ownership.look_at_the_floor)
    ),
    _chance(
        "remembered owner not compared",
        Theme.HAND_OVERS,
        100,
        (hold, "_shard_and_owner", breaks_of_ownership.look_at_the_remembered_owner),
    ),
    _chance("shared reads eventually consistent", Theme.CANCELS, 60, (HostStore, "stale_s", 0.3)),
    _chance("clock always trusted", Theme.SKEW, 180, (ClockGuard, "trusted", lambda self: True)),
)

_TRANSACTIONS: Final = (
    _chance(
        "unknown commit taken for an abort",
        Theme.BROKERS,
        40,
        (GroupCommit, "_resolve", breaks_of_transactions.unknown_taken_for_abort),
    ),
    _chance(
        "marker without the rows that await cleanup",
        Theme.COMMITS,
        100,
        (GroupCommit, "_end", breaks_of_transactions.end_and_forget),
    ),
    _chance(
        "marker without what was dropped",
        Theme.DEADLINES,
        150,
        (GroupCommit, "_end", breaks_of_transactions.end_and_forget_what_was_dropped),
    ),
    _chance(
        "one marker key for all slots",
        Theme.BROKERS,
        100,
        (kafka_host, "marker_key", breaks_of_transactions.one_marker_key_for_all_slots),
    ),
    _chance(
        "first marker of the window",
        Theme.BROKERS,
        40,
        (MarkerReading, "pick", breaks_of_transactions.first_of_the_window),
    ),
    _chance(
        "marker read without waiting for the last stable offset",
        Theme.BROKERS,
        100,
        (MarkerReading, "is_complete", breaks_of_transactions.complete_whatever_is_open),
    ),
    _chance(
        "dropped beside the transaction",
        Theme.DEADLINES,
        20,
        (GroupCommit, "enqueue", breaks_of_transactions.drop_beside_transactions),
    ),
    _chance(
        "cleaned up before the commit",
        Theme.COMMITS,
        20,
        (GroupCommit, "_transact", breaks_of_transactions.clean_up_before_the_commit),
    ),
    _chance(
        "refused row is overtaken",
        Theme.REFUSALS,
        20,
        (GroupCommit, "_refuse", breaks_of_transactions.refuse_only_the_row),
    ),
    # The announced time keeps the row back, too.
    _chance(
        "refused row landed before its retry",
        Theme.REFUSALS,
        150,
        (GroupCommit, "_spawn_refusal", breaks_of_transactions.refuse_and_land_at_once),
        (ShardPass, "_forget_ended_waits", breaks_of_passes.announcements_forgotten),
    ),
)

_PASSES: Final = (
    _chance(
        "fires beyond the bound",
        None,
        40,
        (shard_pass, "firing_bound_ms", lambda *, now_ms, frontier_ms: max(now_ms, frontier_ms)),
    ),
    _chance("lanes of rows in flight go on", Theme.REFUSALS, 20, (RowsInFlight, "lanes", lambda self: frozenset())),
    _chance(
        "rows in flight left out when the answer comes",
        None,
        100,
        (ShardPass, "_new_planner", breaks_of_passes.left_out_when_the_answer_comes),
    ),
    # Their lanes wait, too; so each of the two rules alone keeps a row from being sent twice.
    _chance(
        "rows in flight not left out",
        Theme.COMMITS,
        40,
        (RowsInFlight, "positions", lambda self: frozenset()),
        (RowsInFlight, "lanes", lambda self: frozenset()),
    ),
    _chance("waiting row is overtaken", Theme.REFUSALS, 20, (Planner, "block", breaks_of_passes.block_no_lane)),
    _chance("lane sent at once", Theme.PLAIN, 20, (AcknowledgedDelivery, "enqueue", breaks_of_passes.lane_at_once)),
    _chance("hold ignored", Theme.CANCELS, 120, (ShardPass, "_drop_holds", breaks_of_passes.holds_ignored)),
    _chance("fires what is gone", Theme.CANCELS, 80, (HostStore, "drop_hold", breaks_of_passes.drop_hold_and_fire)),
    _chance(
        "fires through a conflict",
        Theme.CANCELS,
        140,
        (HostStore, "drop_hold", breaks_of_passes.drop_hold_through_conflict),
    ),
    _chance("row deleted before its outcome", Theme.COMMITS, 20, (HostStore, "finish", breaks.delete_first)),
    _chance("last outcome stands", Theme.PLAIN, 40, (HostStore, "put_outcomes_if_absent", breaks.last_outcome_stands)),
)

_REQUESTS: Final = (
    _chance("cancel deletes unconditionally", Theme.CANCELS, 160, (HostStore, "_check_held", breaks.held_by_anybody)),
    _chance("update brings a row back", Theme.LATE, 40, (HostStore, "_change_row", breaks.upsert)),
    _chance("nothing seen taken for 404", Theme.CANCELS, 160, (state, "decide_unseen", breaks.unseen_counts_as_absent)),
    _chance("state from the row", Theme.COMMITS, 80, (state, "state_at", breaks.state_from_the_row)),
    _chance("create over anything", None, 20, (HostStore, "create", breaks.create_over_anything)),
)

_CHANGES: Final = (
    Mutation(
        name="change leaves the old row",
        seeds=20,
        theme=Theme.CHANGES,
        patches=lambda: [(HostStore, "reschedule", breaks_of_changes.rescheduling(deletes=False))],
    ),
    Mutation(
        name="change without asking for its hold",
        seeds=120,
        theme=Theme.CHANGES,
        patches=lambda: [(HostStore, "reschedule", breaks_of_changes.rescheduling(on_condition=False))],
    ),
    Mutation(
        name="change without an outcome of the old position",
        seeds=20,
        theme=Theme.CHANGES,
        patches=lambda: [(HostStore, "reschedule", breaks_of_changes.rescheduling(puts_outcome=False))],
    ),
    Mutation(
        name="change made twice after a lost answer",
        seeds=160,
        theme=Theme.CHANGES,
        patches=lambda: [(service, "reschedule", breaks_of_changes.change_whatever_is_there_now)],
    ),
    Mutation(
        name="same delivery id for another due time",
        seeds=20,
        theme=Theme.CHANGES,
        patches=lambda: [(reschedule, "_move", breaks_of_changes.same_delivery_id)],
    ),
    Mutation(
        name="commands committed before they are carried out",
        seeds=40,
        theme=Theme.COMMANDS,
        patches=lambda: [(HostCommandLog, "_work_off", breaks_of_commands.commit_first)],
    ),
    Mutation(
        name="commands committed before they are answered",
        seeds=40,
        theme=Theme.COMMANDS,
        patches=lambda: [(HostCommandLog, "_note", breaks_of_commands.note_and_go_on)],
    ),
    Mutation(
        name="commands of aborted transactions read",
        seeds=20,
        theme=Theme.COMMANDS,
        patches=lambda: [(CommandWorld, "fetch", breaks_of_commands.read_uncommitted)],
    ),
    Mutation(
        name="commands carried out again when they are read again",
        seeds=80,
        theme=Theme.COMMANDS,
        patches=lambda: [(CommandOffset, "is_processed", lambda self, last: False)],
    ),
)

WITHOUT_AUDIT: Final[Sequence[Patch]] = (
    (JobAudit, "run", breaks_of_jobs.no_audit),
    (take, "_repair", breaks_of_jobs.no_repair),
    (JobWorld, "lose_row", breaks_of_jobs.no_losses),
)
"""The audit, and requests, mend what a broken chain leaves; that the chain holds by itself is seen without them."""

_JOBS: Final = (
    _chance(
        "a job's row deleted before the next one is armed",
        Theme.JOBS,
        100,
        (cleanup, "_end_jobs", breaks_of_jobs.delete_then_arm),
        *WITHOUT_AUDIT,
    ),
    _chance(
        "a job's state put at any revision",
        Theme.JOBS,
        20,
        (HostJobStore, "change", breaks_of_jobs.change_at_any_revision),
    ),
    _chance(
        "a job's row not told from a state before it",
        Theme.JOBS,
        60,
        (job_chains, "relation_of", breaks_of_jobs.relation_by_name_alone),
        *WITHOUT_AUDIT,
    ),
    _chance(
        "audit repairs what is about to be applied",
        Theme.JOBS,
        100,
        (job_audit, "repair", breaks_of_jobs.repair_unchecked),
    ),
    _chance(
        "change of a job takes a row without its hold",
        Theme.JOBS,
        120,
        (HostJobStore, "_check_held", breaks_of_jobs.held_by_anyone),
    ),
    _chance(
        "change of a job holds and does not look",
        Theme.JOBS,
        60,
        (take, "hold_and_look", breaks_of_jobs.hold_without_look),
    ),
    _chance(
        "completion takes the watchdog without its hold",
        Theme.JOBS,
        60,
        (completion, "RowTaker", breaks_of_jobs.BlindTaker),
        (HostJobStore, "_check_held", breaks_of_jobs.held_or_blind),
    ),
)

_CALENDARS: Final = (
    _chance(
        "a change of a calendar leaves armed rows as they are",
        Theme.JOBS,
        60,
        (steps, "row_is_outdated", lambda state, job, now_ms: False),
    ),
    _chance(
        "a job stored whatever its calendar is by now",
        Theme.JOBS,
        200,
        (HostJobStore, "_check_calendars", breaks_of_jobs.any_calendar),
    ),
    _chance(
        "jobs follow a calendar before it is stored",
        Theme.JOBS,
        60,
        (JobService, "put_calendar", breaks_of_jobs.follow_then_put),
    ),
)

MUTATIONS: Final = (*_OWNERSHIP, *_TRANSACTIONS, *_PASSES, *_REQUESTS, *_CHANGES, *_JOBS, *_CALENDARS)

RARE: Final = (
    _scripted(
        "hint to an uncommitted marker",
        (GroupCommit, "_open_slot", breaks_of_transactions.open_slot_with_hints),
        (HostSlotProducer, "deliver", breaks_of_transactions.deliver_and_hint_early),
    ),
    _scripted("prefix up to now", (ShardPass, "_new_planner", breaks_of_passes.prefix_up_to_now)),
    _scripted("only one slot initialised", _taking("fence", "init the last slot", "marker", "clean up", "own")),
    _scripted("marker before init", _taking("fence", "marker", "init", "clean up", "own")),
    _scripted("marker before the fence", _taking("marker", "fence", "init", "clean up", "own")),
    _scripted("floor not raised at take-over", _owning(floor=False)),
    _scripted(
        "floor not raised at release",
        (HostStore, "release_shard", breaks_of_ownership.release_with_the_old_floor),
    ),
    _scripted(
        "no recheck after a refusal",
        (GroupCommit, "_heal", breaks_of_transactions.heal_unchecked),
        (GroupCommit, "_after_healing", breaks_of_transactions.unchecked_after_a_refusal),
    ),
    _scripted(
        "no recheck after an unknown commit",
        (GroupCommit, "_heal", breaks_of_transactions.heal_unchecked),
        (GroupCommit, "_resolve", breaks_of_transactions.unchecked_after_an_unknown_commit),
    ),
    _scripted(
        "no recheck at the first use of a slot",
        (GroupCommit, "_heal", breaks_of_transactions.unchecked_at_the_first_use),
    ),
    _scripted(
        "slot goes on after a repeated commit",
        (HostSlotProducer, "_commit", breaks_of_transactions.usable_after_repeated_commit),
    ),
    _scripted(
        "marker from a cached leader",
        (MarkerReading, "run", breaks_of_transactions.reading_to_its_end(cached=True)),
    ),
    _scripted(
        "marker read without a barrier",
        (MarkerReading, "run", breaks_of_transactions.reading_to_its_end(cached=False)),
    ),
    _scripted(
        "barrier not compared",
        (MarkerReading, "is_leader", breaks_of_transactions.barrier_by_offset_alone),
    ),
    _scripted(
        "any coordinator believed",
        (HostSlotProducer, "_believes", lambda self, answered_by, coordinator: True),
    ),
    _scripted(
        "own marker before init",
        (GroupCommit, "_resolve", breaks_of_transactions.resolve_by_an_early_marker),
        (MarkerReading, "is_complete", breaks_of_transactions.complete_whatever_is_open),
    ),
    _scripted("taken without the fence", _taking("init", "marker", "clean up", "own")),
    _scripted("fence after init", _taking("init", "fence", "marker", "clean up", "own")),
    _scripted("fence after the marker", _taking("init", "marker", "fence", "clean up", "own")),
    _scripted("shard taken without a higher epoch", _owning(raises=False)),
    _scripted("taker not checked at take-over", _owning(checks=False)),
    _scripted("bound of the answer", (ShardPass, "_read", breaks_of_passes.bound_read_at_the_answer)),
    _scripted(
        "a retry an hour ahead applies",
        (planning, "retry_applies", breaks_of_passes.applied_however_far),
        (shard_pass, "retry_applies", breaks_of_passes.applied_however_far),
    ),
    _scripted(
        "cancel goes on with the next schedule of its key",
        (service, "cancel_schedule", breaks.cancel_whatever_is_there_now),
    ),
    _scripted(
        "change made again over the next one",
        (service, "reschedule", breaks_of_changes.change_whatever_is_there_now),
    ),
    _scripted(
        "announced times forgotten", (ShardPass, "_forget_ended_waits", breaks_of_passes.announcements_forgotten)
    ),
    _scripted("acknowledged rows forgotten at the end", (Cleanup, "finish_acknowledged", breaks_of_passes.do_nothing)),
    _scripted("wake-up leaves the prefix", (ShardLease, "open_prefix", breaks_of_passes.leave_the_prefix)),
    _scripted(
        "wake-up opens the prefix between passes",
        (ShardLease, "open_prefix", breaks_of_passes.open_the_prefix_between_passes),
    ),
    _scripted("waiting row's pointer never pushed", (ShardPass, "_push_pointers", breaks_of_passes.do_nothing)),
    _scripted("key taken over on the version alone", (memory_store, "_same_pointer", breaks.same_version)),
    _scripted("retry of another epoch believed", (hold, "_free_until_ms", breaks.free_until_whatever_epoch)),
    _scripted("retry of at_least_once believed", (hold, "_free_until_ms", breaks.free_until_whatever_guarantee)),
    _scripted(
        "commands without an effect are not noted",
        (CommandDedup, "record_processed", breaks_of_commands.nothing_to_note),
    ),
    _scripted(
        "commands have their effect whatever was noted meanwhile",
        (HostStore, "_move_note", breaks_of_commands.move_whatever_was_read),
    ),
    _scripted(
        "one hold for all tries, repeated by the library",
        (hold, "RequestId", breaks.one_hold_per_request),
        (store_world, "SENT_ONCE", frozenset()),
    ),
)
"""Those that need more coincidences than thousands of seeds have: shown by scripts (`test_scripted`)."""
