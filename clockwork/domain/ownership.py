"""Who owns a shard: the stored item, the lease that a runner holds, and what a rebalance changes.

    unowned ──take-over──► leased ──frontier refused, or ProducerFenced──► fenced ──back-off──► take-over again
                             │
                             └──assignment lost──► ended (drained, or dropped at the rebalance time-out)

Authoritative is never this node's belief: the transactional id fences at the broker, the epoch fences the frontier. A
lease only says which epoch this runner may try to use.
"""

from collections.abc import Set
from dataclasses import dataclass

from clockwork.domain.sharding import ShardId


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardState:
    """The small item of a shard in `partitionExecutions`."""

    epoch: int
    owner: str
    """Id of one take-over by one runner; never used twice."""
    frontier_ms: int
    """Up to here an owner may have read rows for firing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AssignmentChange:
    """What one rebalance changed for this node."""

    gained: frozenset[ShardId]
    kept: frozenset[ShardId]
    lost: frozenset[ShardId]


def assignment_change(before: Set[ShardId], after: Set[ShardId]) -> AssignmentChange:
    """A shard in both goes on with its epoch: a rebalance revokes everything, and mostly gives it back."""
    return AssignmentChange(
        gained=frozenset(after - before), kept=frozenset(after & before), lost=frozenset(before - after)
    )
