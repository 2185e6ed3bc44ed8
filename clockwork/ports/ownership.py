"""Ownership of shards, as a consumer group assigns it."""

from collections.abc import Callable
from typing import Protocol

from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import WakeUp


class ShardOwnership(Protocol):
    """The consumer group over the ownership topic: its assignment decides which node owns which shard."""

    async def run(
        self, on_assignment: Callable[[frozenset[ShardId]], None], on_wakeup: Callable[[ShardId, WakeUp], None]
    ) -> None:
        """Joins the group and stays in it until cancelled; then leaves it. Both callbacks only record facts: they
        return at once and never raise. `on_assignment` gets the whole set after each rebalance (not the empty set
        between revoke and assign). Waits and comes back by itself while Kafka is away.
        """
        ...

    async def wake(self, shard: ShardId, wakeup: WakeUp) -> None:
        """Sends a wake-up to the shard's owner, wherever it is. Raises: BrokerUnavailable."""
        ...
