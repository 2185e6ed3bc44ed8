"""Shard ownership by a consumer group, and wake-ups for the owners."""

from collections.abc import Callable, Set
from typing import Protocol

from clockwork.domain.ownership import ProcessId
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import WakeUp


class ShardOwnership(Protocol):
    """Membership in the consumer group of the ownership topic. Its assignment says which process should own which shard."""

    async def run(
        self, on_assignment: Callable[[frozenset[ShardId]], None], on_wakeup: Callable[[ShardId, WakeUp], None]
    ) -> None:
        """Joins the group and stays in it until cancelled, then leaves it. Both callbacks only record facts: they return
        at once and never raise. `on_assignment` gets the whole set of shards after each rebalance (not the empty set between
        revoke and assign). While Kafka is away it waits, and it rejoins by itself.
        """
        ...

    async def confirmed_assignment(self) -> Set[ShardId]:
        """The shards that are assigned to this process, after a heartbeat with its own generation was answered "current"
        just now; empty if the answer says that the generation is over.

        Raises: BrokerUnavailable.
        """
        ...

    async def member_processes(self) -> Set[ProcessId]:
        """The processes of the group's members (DescribeGroups). May be behind by a rebalance.

        Raises: BrokerUnavailable.
        """
        ...

    async def wake(self, shard: ShardId, wakeup: WakeUp) -> None:
        """Sends a wake-up to the shard's owner, wherever it is. Raises: BrokerUnavailable."""
        ...


class Waker(Protocol):
    """Wake-ups for the owner of a shard, in this process or another. A wake-up is a hint: it may be lost, and the owner's
    next scan then finds what it would have said."""

    def wake(self, shard: ShardId, wakeup: WakeUp) -> None:
        """Returns at once and never raises."""
        ...
