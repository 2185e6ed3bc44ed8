"""Wake-ups within one process: the twin of `kafka.wakeups`."""

from collections.abc import Callable

from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import WakeUp


class DirectWaker:
    """See `ports.ownership.Waker`. Tells the owner directly; a shard without an owner here hears nothing."""

    def __init__(self, tell: Callable[[ShardId, WakeUp], object]) -> None:
        self._tell = tell

    def wake(self, shard: ShardId, wakeup: WakeUp) -> None:
        self._tell(shard, wakeup)
