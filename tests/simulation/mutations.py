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
from clockwork.domain.command_notes import CommandOffset
from clockwork.domain.planning import Planner
from clockwork.firing import deliver_transactional, shard_pass
from clockwork.firing.cleanup import Cleanup
from clockwork.firing.deliver_acknowledged import AcknowledgedDelivery
from clockwork.firing.deliver_transactional import TransactionalDelivery
from clockwork.firing.shard_pass import ShardPass
from clockwork.firing.takeover import Takeover
from clockwork.requests import hold, reschedule, service, state
from clockwork.requests.dedup import CommandDedup
from clockwork.requests.hold import HoldAttempts
from tests.simulation import breaks, breaks_of_changes, breaks_of_commands, store_world
from tests.simulation.command_world import CommandWorld, HostCommandLog
from tests.simulation.kafka_host import HostPublisher, HostShardPublisher
from tests.simulation.store_world import HostStore
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


MUTATIONS: Final = (
    Mutation(
        name="init without fence",
        seeds=20,
        theme=Theme.TAKE_OVERS,
        patches=lambda: [(HostShardPublisher, "init", breaks.init_without_fence)],
    ),
    Mutation(
        name="marker ignored",
        seeds=20,
        theme=Theme.COMMITS,
        patches=lambda: [(HostShardPublisher, "read_marker", breaks.no_marker)],
    ),
    Mutation(
        name="marker without the rows that await cleanup",
        seeds=100,
        theme=Theme.COMMITS,
        patches=lambda: [(Cleanup, "marker_entries", lambda self: iter(()))],
    ),
    Mutation(
        name="marker without what was dropped",
        seeds=40,
        theme=Theme.DEADLINES,
        patches=lambda: [(Cleanup, "marker_entries", breaks.marked_if_there_is_a_record)],
    ),
    Mutation(
        name="dropped beside the transaction",
        seeds=20,
        theme=Theme.DEADLINES,
        patches=lambda: [(TransactionalDelivery, "deliver", breaks.drop_beside_transactions)],
    ),
    Mutation(
        name="unknown commit taken for an abort",
        seeds=120,
        theme=Theme.COMMITS,
        patches=lambda: [(TransactionalDelivery, "deliver", breaks.unknown_taken_for_abort)],
    ),
    Mutation(
        name="cleaned up before the commit",
        seeds=20,
        theme=Theme.COMMITS,
        patches=lambda: [(TransactionalDelivery, "_commit", breaks.cleanup_before_commit)],
    ),
    Mutation(
        name="epoch not raised",
        seeds=200,
        theme=Theme.REFUSALS,
        patches=lambda: [(HostStore, "raise_epoch", breaks.epoch_not_raised)],
    ),
    Mutation(
        name="frontier not written",
        seeds=20,
        theme=Theme.CANCELS,
        patches=lambda: [(ShardPass, "raise_frontier", breaks.frontier_pretended)],
    ),
    Mutation(
        name="frontier written after reading",
        seeds=100,
        theme=Theme.CANCELS,
        patches=lambda: [
            (ShardPass, "raise_frontier", breaks.frontier_pretended),
            (ShardPass, "_read", breaks.read_then_frontier),
        ],
    ),
    Mutation(
        name="fenced frontier goes on",
        seeds=120,
        theme=Theme.PLAIN,
        patches=lambda: [(ShardPass, "raise_frontier", breaks.frontier_though_fenced)],
    ),
    Mutation(
        name="frontier lowered at take-over",
        seeds=200,
        theme=Theme.SKEW,
        patches=lambda: [(Takeover, "run", breaks.take_over_and_lower)],
    ),
    Mutation(
        name="fires beyond the bound",
        seeds=40,
        patches=lambda: [(shard_pass, "firing_bound_ms", lambda *, now_ms, frontier_ms: max(now_ms, frontier_ms))],
    ),
    Mutation(
        name="clock always trusted",
        seeds=180,
        theme=Theme.SKEW,
        patches=lambda: [(ClockGuard, "trusted", lambda self: True)],
    ),
    Mutation(
        name="look before hold",
        seeds=120,
        theme=Theme.CANCELS,
        patches=lambda: [(HoldAttempts, "hold_and_look", breaks.look_before_hold)],
    ),
    Mutation(
        name="look before hold, of changes",
        seeds=120,
        theme=Theme.CHANGES,
        patches=lambda: [(HoldAttempts, "hold_and_look", breaks.look_before_hold)],
    ),
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
        name="hold ignored",
        seeds=120,
        theme=Theme.CANCELS,
        patches=lambda: [(ShardPass, "_drop_holds", breaks.holds_ignored)],
    ),
    Mutation(
        name="fires what is gone",
        seeds=80,
        theme=Theme.CANCELS,
        patches=lambda: [(HostStore, "drop_hold", breaks.drop_hold_and_fire)],
    ),
    Mutation(
        name="fires through a conflict",
        seeds=140,
        theme=Theme.CANCELS,
        patches=lambda: [(HostStore, "drop_hold", breaks.drop_hold_through_conflict)],
    ),
    Mutation(
        name="cancel deletes unconditionally",
        seeds=160,
        theme=Theme.CANCELS,
        patches=lambda: [(HostStore, "_check_held", breaks.held_by_anybody)],
    ),
    Mutation(
        name="update brings a row back",
        seeds=40,
        theme=Theme.LATE,
        patches=lambda: [(HostStore, "_change_row", breaks.upsert)],
    ),
    Mutation(
        name="refused row is overtaken",
        seeds=20,
        theme=Theme.REFUSALS,
        patches=lambda: [(deliver_transactional, "without_lane", breaks.only_the_row)],
    ),
    Mutation(
        name="waiting row is overtaken",
        seeds=20,
        theme=Theme.REFUSALS,
        patches=lambda: [(Planner, "block", breaks.block_no_lane)],
    ),
    Mutation(
        name="lane sent at once",
        seeds=20,
        theme=Theme.PLAIN,
        patches=lambda: [(AcknowledgedDelivery, "deliver", breaks.lane_at_once)],
    ),
    Mutation(
        name="row deleted before its outcome",
        seeds=20,
        theme=Theme.COMMITS,
        patches=lambda: [(HostStore, "finish", breaks.delete_first)],
    ),
    Mutation(
        name="left out when the answer comes",
        seeds=60,
        patches=lambda: [(Cleanup, "positions", lambda self: self._pending.keys())],
    ),
    Mutation(
        name="last outcome stands",
        seeds=20,
        theme=Theme.PLAIN,
        patches=lambda: [(HostStore, "put_outcomes_if_absent", breaks.last_outcome_stands)],
    ),
    Mutation(
        name="nothing seen taken for 404",
        seeds=160,
        theme=Theme.CANCELS,
        patches=lambda: [(state, "read_state", breaks.none_seen_is_none_there)],
    ),
    Mutation(
        name="state from the row",
        seeds=80,
        theme=Theme.COMMITS,
        patches=lambda: [(state, "view_at", breaks.state_from_the_row)],
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
    Mutation(
        name="create over anything", seeds=20, patches=lambda: [(HostStore, "create", breaks.create_over_anything)]
    ),
)

RARE: Final = (
    _scripted("bound of the answer", (ShardPass, "_read", breaks.bound_of_the_answer)),
    _scripted("a retry an hour ahead applies", (Planner, "_retry_applies", breaks.applied_however_far)),
    _scripted("renewed without proof of epoch", (Takeover, "renew", breaks.renew_without_proof)),
    _scripted("marker before init", (HostPublisher, "open_shard", breaks.marker_before_init)),
    _scripted(
        "cancel goes on with the next schedule of its key",
        (service, "cancel_schedule", breaks.cancel_whatever_is_there_now),
    ),
    _scripted(
        "change made again over the next one",
        (service, "reschedule", breaks_of_changes.change_whatever_is_there_now),
    ),
    _scripted("renewed and epoch only read", (Takeover, "renew", breaks.renew_and_only_read)),
    _scripted(
        "producer goes on after a repeated commit", (HostShardPublisher, "_commit", breaks.usable_after_repeated_commit)
    ),
    _scripted("announced times forgotten", (ShardPass, "_forget_ended_waits", breaks.announcements_forgotten)),
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
