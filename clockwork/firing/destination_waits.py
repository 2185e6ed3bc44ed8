"""Destinations that are not sent to at present, as one node knows them: in back-off, or over their rate limit.

Back-off. A missing or forbidden destination waits as a whole, unsent; after each back-off one pass sends to it again,
as the probe. Its rows become dead letters only `topic_wait_ms` after the first refusal, then without attempts of
their own. A destination whose broker is away, or whose settings take no record at present, is probed at least every
two seconds and never given up; the adapter answers each probe from the state that it reads for it (`ports.delivery`),
so that a mended destination goes on within one back-off. A restarted node counts anew: it has not seen the first
refusal, and a longer wait loses nothing.

Rate limit. After an outage of hours the backlog must not flatten a destination's consumers. A destination over its
rate waits as a whole until a quarter of a second's worth of tokens is there, so that its shards do not wake up for
every record. Its lanes are held back in place and in order, no other lane is; no attempt is counted, nothing is given
up. A delivery takes its token when it is planned, and does not give it back if it is not sent (its cancel won, Kafka
was away): a little slower than the limit is allowed. The limit is each node's own, since asking the other nodes would
cost a message per record: a destination gets up to as many times its rate as there are nodes that own shards.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from clockwork.domain.destination import Destination
from clockwork.domain.planning import DestinationWait
from clockwork.domain.rate import Buckets, Rate
from clockwork.domain.retry import BackoffPolicy
from clockwork.errors import RefusalCause
from clockwork.ports.telemetry import Telemetry
from clockwork.settings.model import PaceSettings

log = logging.getLogger(__name__)

MISSING_BACKOFF: Final = BackoffPolicy(initial_ms=500, max_ms=10_000)
"""A probe of a missing topic reads the metadata cache: ten seconds cost little, and are short for the user who has
just created the topic."""
AWAY_BACKOFF: Final = BackoffPolicy(initial_ms=100, max_ms=2_000)
FORGET_MS: Final = 60_000
"""A destination without a send for this long after its wait begins anew: an old refusal is no proof of a long wait."""

NS_PER_MS: Final = 1_000_000
ROUNDS_PER_SECOND: Final = 4
"""Number of times a second at which a destination over its rate goes on."""


class DestinationRateLimits:
    """Token buckets of the destinations, shared by all shards of a node."""

    def __init__(self, default_per_second: int, per_second: Mapping[str, int], telemetry: Telemetry) -> None:
        """Deliveries per second; 0 means no limit."""
        self._default_per_second = default_per_second
        self._per_second = dict(per_second)
        self._telemetry = telemetry
        self._buckets: Buckets[Destination] = Buckets(self._rate_of)
        self._waits: dict[Destination, DestinationWait] = {}

    def waits(self, now_ms: int) -> dict[Destination, DestinationWait]:
        """The destinations without tokens."""
        self._waits = {each: wait for each, wait in self._waits.items() if wait.until_ms > now_ms}
        return dict(self._waits)

    def take(self, destination: Destination, now_ms: int) -> DestinationWait | None:
        """Takes the token of one delivery; without one left takes nothing and returns the destination's wait."""
        if not self._per_second.get(destination, self._default_per_second):
            return None
        waiting = self._waits.get(destination)
        if waiting is not None and waiting.until_ms > now_ms:
            return waiting
        now_ns = now_ms * NS_PER_MS
        bucket = self._buckets.of(destination, now_ns)
        if not bucket.wait_ns(1, now_ns):
            bucket.take(1, now_ns)
            return None
        round_ns = bucket.wait_ns(max(1, bucket.rate.burst // ROUNDS_PER_SECOND), now_ns)
        wait = DestinationWait(until_ms=now_ms - (-round_ns // NS_PER_MS), reason="over_its_pace", rate_limited=True)
        self._waits[destination] = wait
        self._telemetry.limited("topic_deliveries")
        return wait

    def _rate_of(self, destination: Destination) -> Rate:
        per_second = self._per_second.get(destination, self._default_per_second)
        return Rate(per_second=per_second, burst=per_second)


def rate_limits(settings: PaceSettings, telemetry: Telemetry) -> DestinationRateLimits:
    """The rate limits that the settings give."""
    return DestinationRateLimits(settings.deliveries_per_second, settings.per_second(), telemetry)


@dataclass(frozen=True, kw_only=True, slots=True)
class _InBackoff:
    missing_since_ms: int | None
    """Time of the first refusal that can lead to giving up; None while the destination was only away."""
    failures: int
    wait: DestinationWait


class DestinationWaits:
    """Back-off and rate limits of the destinations, shared by all shards of a node: what one shard finds out, no
    other has to."""

    def __init__(self, *, topic_wait_ms: int, limits: DestinationRateLimits | None = None) -> None:
        self._topic_wait_ms = topic_wait_ms
        self._limits = limits
        self._in_backoff: dict[Destination, _InBackoff] = {}

    def at(self, now_ms: int) -> Mapping[Destination, DestinationWait]:
        """The destinations that are not to be sent to at this time; back-off goes before the rate limit."""
        for each in [d for d, state in self._in_backoff.items() if state.wait.until_ms + FORGET_MS <= now_ms]:
            del self._in_backoff[each]
        waits = self._limits.waits(now_ms) if self._limits is not None else {}
        return waits | {each: state.wait for each, state in self._in_backoff.items() if state.wait.until_ms > now_ms}

    def in_backoff(self, destination: Destination, now_ms: int) -> bool:
        """True if the destination is not to be sent to at this time, its rate limit apart."""
        state = self._in_backoff.get(destination)
        return state is not None and state.wait.until_ms > now_ms

    def take_token(self, destination: Destination, now_ms: int) -> DestinationWait | None:
        """Takes the token of one delivery; returns the wait of a destination that has none left."""
        return self._limits.take(destination, now_ms) if self._limits is not None else None

    def refused(
        self,
        destination: Destination,
        cause: RefusalCause,
        reason: str,
        *,
        now_ms: int,
        only_dead_letters: bool = False,
    ) -> DestinationWait:
        """Starts or lengthens the back-off of a destination that has refused a record; returns its wait.

        `only_dead_letters`: the record was a dead letter that goes elsewhere now. Such refusals alone give nothing up.
        """
        before = self._in_backoff.get(destination)
        if before is not None and before.wait.until_ms > now_ms:
            return before.wait  # another shard was refused at the same time: one probe, one back-off
        missing = cause is RefusalCause.DESTINATION
        missing_since_ms = before.missing_since_ms if before is not None else None
        if missing and missing_since_ms is None:
            missing_since_ms = now_ms
        failures = before.failures + 1 if before is not None else 1
        given_up = missing and missing_since_ms is not None and now_ms - missing_since_ms >= self._topic_wait_ms
        if only_dead_letters:
            given_up = given_up and before is not None and before.wait.given_up
        backoff = MISSING_BACKOFF if missing else AWAY_BACKOFF
        wait = DestinationWait(until_ms=now_ms + backoff.wait_ms(failures), reason=reason, given_up=given_up)
        self._in_backoff[destination] = _InBackoff(missing_since_ms=missing_since_ms, failures=failures, wait=wait)
        if before is None:
            log.warning("Topic waits", extra={"event": "topic.waits", "topic": destination, "reason": reason})
        elif given_up and not before.wait.given_up:
            log.error("Topic given up", extra={"event": "topic.given_up", "topic": destination, "reason": reason})
        return wait

    def succeeded(self, destination: Destination) -> None:
        """Ends the back-off: the destination has taken a record."""
        if self._in_backoff.pop(destination, None) is not None:
            log.info("Topic is back", extra={"event": "topic.back", "topic": destination})
