"""How much one client may create: so many schedules and so many bytes of `taskData` a second, on this node. How many it
may have pending is another matter: `requests.pending_quota`.

Each client has a bucket that holds one second's worth. Every create costs, a repeated one too: it is looked up all the
same. What is refused here (`429`) has not been stored, and the same request is welcome after `Retry-After`.

The limits are each node's own: nodes do not ask each other at every create, so behind a load balancer a client may have
up to as many times the limit as there are nodes.

The headers are those of draft-ietf-httpapi-ratelimit-headers-10: `RateLimit-Policy` names each limit with its quota (`q`)
for a window (`w`, seconds), `RateLimit` says what is left (`r`) and when the bucket is full again (`t`, seconds).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from clockwork.domain.rate import NS, Bucket, Buckets, Rate
from clockwork.domain.schedule import ClientId
from clockwork.errors import TooManyRequests
from clockwork.ports.telemetry import Telemetry

Headers = dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Quota:
    """One of the limits."""

    name: Literal["creates", "create_bytes"]
    unit: str
    """Parameters of its policy beside quota and window."""
    buckets: Buckets[ClientId]


class CreateLimits:
    """Asked at every create, once who asks may create for that client. 0: no such limit."""

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
            self._quotas.append(_Quota(name="creates", unit="", buckets=_buckets(creates_per_second)))
        if bytes_per_second:
            unit = ';qu="content-bytes"'
            self._quotas.append(_Quota(name="create_bytes", unit=unit, buckets=_buckets(bytes_per_second)))

    def take(self, client_id: ClientId, *, payload_bytes: int) -> Headers:
        """Counts one create; returns the headers that tell the client what is left.

        Raises: TooManyRequests, having counted nothing.
        """
        if not self._quotas:
            return {}
        now_ns = self._monotonic_ns()
        costs = {"creates": 1, "create_bytes": payload_bytes}
        asked = [(quota, quota.buckets.of(client_id, now_ns), costs[quota.name]) for quota in self._quotas]
        waits = {quota.name: bucket.wait_ns(cost, now_ns) for quota, bucket, cost in asked}
        if wait_ns := max(waits.values()):
            over = [name for name, each_ns in waits.items() if each_ns]
            if self._telemetry is not None:
                for name in over:
                    self._telemetry.limited(name)
            what = " and ".join(name.replace("_", " ") for name in over)
            raise TooManyRequests(
                f"Client {client_id} is over its limit of {what} a second. Nothing was stored.",
                retry_after_s=_whole_seconds(wait_ns),
                headers=_headers(asked, now_ns),
            )
        for _, bucket, cost in asked:
            bucket.take(cost, now_ns)
        return _headers(asked, now_ns)


NO_LIMITS: Final = CreateLimits()


def joined(*each: Headers) -> Headers:
    """What several limits say, as one answer says it."""
    names = dict.fromkeys(name for headers in each for name in headers)
    return {name: ", ".join(headers[name] for headers in each if name in headers) for name in names}


def _buckets(per_second: int) -> Buckets[ClientId]:
    rate = Rate(per_second=per_second, burst=per_second)
    return Buckets(lambda _: rate)


def _headers(asked: list[tuple[_Quota, Bucket, int]], now_ns: int) -> Headers:
    policies = [f'"{quota.name}";q={bucket.rate.burst};w=1{quota.unit}' for quota, bucket, _ in asked]
    state = [
        f'"{quota.name}";r={bucket.left(now_ns)};t={_whole_seconds(bucket.until_full_ns(now_ns))}'
        for quota, bucket, _ in asked
    ]
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(state)}


def _whole_seconds(ns: int) -> int:
    """Rounded up: whoever comes back after so long finds what was promised."""
    return -(-ns // NS)
