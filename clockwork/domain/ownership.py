"""Ownership of shards: the stored item, and the change of an assignment by a rebalance.

    unowned ──take-over──► leased ──frontier refused, or ProducerFenced──► fenced ──back-off──► take-over again
                             │
                             └──assignment lost──► ended (drained, or dropped at the rebalance time-out)

A node's own belief is never authoritative: the transactional id fences at the broker, the epoch fences the frontier.
A lease only gives the epoch that its owner may try to use.
"""

from collections.abc import Set
from dataclasses import dataclass

from clockwork.domain.sharding import ShardId


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardState:
    """The small item of a shard in `partitionExecutions`."""

    epoch: int
    owner: str
    """Id of one take-over by one node; never used twice."""
    frontier_ms: int
    """Up to here an owner may have read rows for firing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AssignmentChange:
    """The change of this node's assignment by one rebalance."""

    gained: frozenset[ShardId]
    kept: frozenset[ShardId]
    lost: frozenset[ShardId]


def assignment_change(before: Set[ShardId], after: Set[ShardId]) -> AssignmentChange:
    """Compares two assignments. A shard in both goes on with its epoch: a rebalance revokes every shard, and gives
    most back."""
    return AssignmentChange(
        gained=frozenset(after - before), kept=frozenset(after & before), lost=frozenset(before - after)
    )
