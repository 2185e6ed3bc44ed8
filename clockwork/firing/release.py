"""Release: an owner gives a shard up, so that the next owner needs to fence nothing.

Only a lease that is idle is released (docs/protocol.md: x-release-early): nothing of it is in flight, and everything is
cleaned up, for the next owner reads no marker. The floor that it leaves is not below any frontier that was ever *sent*: a
write without an answer may have been applied (x-alo-release-floor).
"""

from typing import Final

from clockwork.concurrency import Backoff
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.wakeup import NewlyDue
from clockwork.errors import BrokerUnavailable, ConditionFailed, StoreUnavailable
from clockwork.firing.context import FiringContext
from clockwork.firing.lease import ShardLease

BACKOFF: Final = BackoffPolicy(initial_ms=20, max_ms=1_000)


async def release(context: FiringContext, lease: ShardLease) -> None:
    """Releases the shard; repeats until it is known to be released, and keeps the lease's memory until then. Raises: Fenced
    (the incarnation is over)."""
    assert lease.idle, "a shard with rows in flight, or not cleaned up, is not released"
    own = lease.incarnation
    backoff = Backoff(context.rng, BACKOFF)
    while True:
        floor_ms = max(lease.floor_ms, own.frontier_sent_ms)
        try:
            await context.store.release_shard(lease.shard, epoch=lease.epoch, owner=own.id, floor_ms=floor_ms)
            break
        except (ConditionFailed, StoreUnavailable) as error:
            try:
                # Not the present owner: fenced and taken by another, or an earlier copy of the request was applied.
                await own.recheck()
            except StoreUnavailable:
                pass  # asked again after the wait
            else:
                if isinstance(error, ConditionFailed):
                    break
            await backoff.wait()
    try:
        await context.ownership.wake(lease.shard, NewlyDue(context.clock.now_ms()))
    except BrokerUnavailable:
        return  # the next owner reads the shard's item again by itself
