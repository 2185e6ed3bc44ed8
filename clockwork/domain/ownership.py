"""Ownership of shards: the stored items of shards and of incarnations, and the change of an assignment by a rebalance.

An incarnation is one run of a process's engine, from its start to its end or to the moment at which it learns that it is
fenced. A shard belongs to the incarnation that its item names, whatever the consumer group assigns:

    unowned ──take-over──► owned ──release──► released ──take-over──► owned by another
                             └──its owner is fenced, take-over──► owned by another

A node's own belief is never authoritative: the flag `fenced` of its item stops its frontier, and a taker's init of its
transactional ids stops its producers. An assignment only gives permission to try (docs/design.md, 5).
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import NewType

from clockwork.domain.sharding import ShardId

ProcessId = NewType("ProcessId", str)
"""16 hex digits, drawn anew at each start of a process; it stands in the client id of the process's group member."""
IncarnationId = NewType("IncarnationId", str)
"""`<process>.<n>`: the n-th incarnation of a process, from 1. Never used twice."""


def process_id(random_bits: int) -> ProcessId:
    """The id of a process, from 64 random bits."""
    return ProcessId(f"{random_bits:016x}")


def incarnation_id(process: ProcessId, count: int) -> IncarnationId:
    """The id of a process's `count`-th incarnation."""
    return IncarnationId(f"{process}.{count}")


def process_of(incarnation: IncarnationId) -> ProcessId:
    """The process that an incarnation runs in."""
    return ProcessId(incarnation.rpartition(".")[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardState:
    """The small item of a shard in `partitionExecutions`."""

    epoch: int
    """The number of take-overs of the shard. A release does not raise it."""
    owner: IncarnationId | None
    """None: released, or never owned."""
    floor_ms: int
    """Up to here earlier owners may have read rows for firing. A cancel compares with the greater of this and the owner's
    frontier (`requests.hold`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeState:
    """The stored item of one incarnation, in `partitionExecutions`. A node has had one for each of its incarnations."""

    incarnation: IncarnationId
    frontier_ms: int
    """Up to here the incarnation may have read rows for firing, in any of its shards."""
    fenced_at_ms: int | None
    """None: not fenced. The time is for people."""
    slots: int
    """The number of slots that the incarnation has ever initialised: its transactional ids are those of slots 0 to
    `slots - 1`."""
    hints: Mapping[int, int]
    """By slot, the offset of a marker whose commit is known: reading the slot's last marker may begin there."""
    node: str
    """Host and process number, for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardClaim:
    """A shard to take: its epoch as it was read before its owner was fenced, its floor by what the fence returned."""

    shard: ShardId
    epoch: int
    """The epoch that was read: the claim holds only while it is unchanged."""
    floor_ms: int
    """The floor that the shard gets: the greater of its floor and its owner's frontier."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AssignmentChange:
    """The shards of this process that are assigned, against those that it works."""

    gained: frozenset[ShardId]
    kept: frozenset[ShardId]
    lost: frozenset[ShardId]


def assignment_change(before: Set[ShardId], after: Set[ShardId]) -> AssignmentChange:
    """Compares the shards that are worked with those that are assigned. A shard in both goes on with its epoch: a
    rebalance revokes every shard, and gives most back."""
    return AssignmentChange(
        gained=frozenset(after - before), kept=frozenset(after & before), lost=frozenset(before - after)
    )
