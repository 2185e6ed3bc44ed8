"""Rate limits of one client: schedules created and bytes of `taskData` a second, on this node. How many schedules it may
have pending is another limit: `requests.pending_quota`.

Each client has a token bucket that holds one second's worth. Every create costs, a repeated one too: it is looked up all the
same. A create over the limit (`429`) is not stored, and the same request is welcome after `Retry-After`.

The limits are each node's own: nodes do not ask each other at every create, so behind a load balancer a client may have
up to as many times the limit as there are nodes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from clockwork.domain.rate import NS, Bucket, Buckets, Rate
from clockwork.domain.schedule import ClientId
from clockwork.errors import LimitState, TooManyRequests
from clockwork.ports.telemetry import Telemetry


@dataclass(frozen=True, kw_only=True, slots=True)
class _Quota:
    """One of the limits."""

    name: Literal["creates", "create_bytes"]
    unit: str | None
    buckets: Buckets[ClientId]


class CreateLimits:
    """Takes tokens for each create, after the rights were checked. 0: no such limit."""

    def __init__(
        self,
        *,
        creates_per_second: int = 0,
        bytes_per_second: int = 0,
        telemetry: Telemetry | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._telemetry = telemetry
        self._monotonic_ns = monotonic_ns
        self._quotas: list[_Quota] = []
        if creates_per_second:
            self._quotas.append(_Quota(name="creates", unit=None, buckets=_buckets(creates_per_second)))
        if bytes_per_second:
            self._quotas.append(_Quota(name="create_bytes", unit="content-bytes", buckets=_buckets(bytes_per_second)))

    def take(self, client_id: ClientId, *, payload_bytes: int) -> tuple[LimitState, ...]:
        """Counts one create; returns the client's limits as they stand after it.

        Raises: TooManyRequests, having counted nothing.
        """
        if not self._quotas:
            return ()
        now_ns = self._monotonic_ns()
        costs = {"creates": 1, "create_bytes": payload_bytes}
        asked = [(quota, quota.buckets.of(client_id, now_ns), costs[quota.name]) for quota in self._quotas]
        waits = {quota.name: bucket.wait_ns(cost, now_ns) for quota, bucket, cost in asked}
        if wait_ns := max(waits.values()):
            over = [name for name, each_ns in waits.items() if each_ns]
            if self._telemetry is not None:
                for name in over:
                    self._telemetry.limited(name)
            names = " and ".join(name.replace("_", " ") for name in over)
            raise TooManyRequests(
                f"Client {client_id} is over its limit of {names} a second. Nothing was stored.",
                retry_after_s=_whole_seconds(wait_ns),
                limits=_states(asked, now_ns),
            )
        for _, bucket, cost in asked:
            bucket.take(cost, now_ns)
        return _states(asked, now_ns)


NO_LIMITS: Final = CreateLimits()


def _buckets(per_second: int) -> Buckets[ClientId]:
    rate = Rate(per_second=per_second, burst=per_second)
    return Buckets(lambda _: rate)


def _states(asked: list[tuple[_Quota, Bucket, int]], now_ns: int) -> tuple[LimitState, ...]:
    return tuple(
        LimitState(
            name=quota.name,
            quota=bucket.rate.burst,
            window_s=1,
            unit=quota.unit,
            left=bucket.left(now_ns),
            reset_s=_whole_seconds(bucket.until_full_ns(now_ns)),
        )
        for quota, bucket, _ in asked
    )


def _whole_seconds(ns: int) -> int:
    """Rounded up: a client that comes back after so long must find the tokens."""
    return -(-ns // NS)
