"""Destinations that are not sent to at present, as one node knows them: in back-off, or over their rate limit.

Back-off. A missing or forbidden destination waits as a whole, unsent; after each back-off a few of its rows are sent
again, as the probe. A destination whose broker is away, or whose replication or layout allows no write at present, is
probed at least every two seconds and never given up; the adapter reads its state again before each probe
(`ports.delivery`), so that a mended destination goes on within one back-off.

Giving up. Rows become dead letters, without attempts of their own, only if their destination

    has been missing, without a sign of life, for `topic_wait_ms`: a refusal that proves that it exists (its leader is away,
    it has too few replicas, it gave no answer in time) is one, as a record that it took is. Fourteen minutes of an outage
    and one refusal by a broker that has not heard of the topic yet would otherwise end all of its rows

    and is missing still, by metadata that is asked for then, uncached (`confirm_given_up`): the refusal may come from
    metadata that were read minutes ago

A restarted node starts `topic_wait_ms` again; the longer wait loses no record.

Rate limit. After an outage of hours the backlog must not flatten a destination's consumers. A destination over its
rate waits as a whole until a quarter of a second's worth of tokens is there, so that the shards that send to it
do not wake up for every record. Only its own lanes wait, and their order is kept; no attempt is counted, and no destination
is given up. A delivery takes its token when it is planned, and does not give it back if it is not sent (its cancel won,
Kafka was away): the real rate may be slightly below the limit. Each node has a limit of its own, since asking the other
nodes would cost a message per record: the limit of the cluster is the rate times the number of nodes that own shards.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Final

from clockwork.domain.activity import TopicRateLimit, TopicWait
from clockwork.domain.destination import Destination
from clockwork.domain.planning import DestinationWait
from clockwork.domain.rate import Buckets, Rate
from clockwork.domain.retry import BackoffPolicy
from clockwork.errors import RefusalCause, Unavailable
from clockwork.ports.telemetry import Telemetry
from clockwork.settings.model import PaceSettings

log = logging.getLogger(__name__)

MISSING_BACKOFF: Final = BackoffPolicy(initial_ms=500, max_ms=10_000)
"""A probe of a missing topic reads the metadata cache: ten seconds cost little, and are short for the user who has
just created the topic."""
AWAY_BACKOFF: Final = BackoffPolicy(initial_ms=100, max_ms=2_000)
FORGET_MS: Final = 60_000
"""A destination without a send for this long after its wait begins anew: an old refusal is no proof of a long wait."""

SINCE_KEPT_MS: Final = 3_600_000
"""Time for which a refused destination without a send keeps the time of its first refusal, for people: while its rows are
paused, cancelled or moved nothing is sent to it, and that is no sign that it takes records again. No longer, because it
may have taken some from another node."""
SINCE_MAX: Final = 1_000
"""Destinations that do so: their names come from clients."""

NS_PER_MS: Final = 1_000_000
ROUNDS_PER_SECOND: Final = 4
"""A rate-limited destination resumes at most this often in a second."""
TOLD_MAX: Final = 1_000
"""Rate-limited destinations whose waits are counted for people, until they are taken: their names come from clients."""


class DestinationRateLimits:
    """Token buckets of the destinations, shared by all shards of a node."""

    def __init__(self, default_per_second: int, per_second: Mapping[str, int], telemetry: Telemetry) -> None:
        """Deliveries per second; 0 means no limit."""
        self._default_per_second = default_per_second
        self._per_second = dict(per_second)
        self._telemetry = telemetry
        self._buckets: Buckets[Destination] = Buckets(self._rate_of)
        self._waits: dict[Destination, DestinationWait] = {}
        self._begun: Counter[Destination] = Counter()
        """Waits begun since the last `take_counts`, of at most `TOLD_MAX` destinations."""

    def waits(self, now_ms: int) -> dict[Destination, DestinationWait]:
        """The destinations that wait for their next tokens, each with its wait."""
        self._waits = {each: wait for each, wait in self._waits.items() if wait.until_ms > now_ms}
        return dict(self._waits)

    def take(self, destination: Destination, now_ms: int) -> DestinationWait | None:
        """Takes one token. Returns the wait, and takes nothing, if the destination waits or has no token."""
        if not self.per_second(destination):
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
        if destination in self._begun or len(self._begun) < TOLD_MAX:
            self._begun[destination] += 1
        return wait

    def per_second(self, destination: Destination) -> int:
        """Deliveries a second to this destination, at most; 0: no limit."""
        return self._per_second.get(destination, self._default_per_second)

    def take_counts(self, delivered_to: Iterable[Destination]) -> dict[Destination, TopicRateLimit]:
        """Takes the counts since the last call: limit and waits of each destination that was delivered to or held back.
        Those without a limit are left out."""
        begun, self._begun = self._begun, Counter()
        return {
            each: TopicRateLimit(self.per_second(each), begun[each])
            for each in {*delivered_to, *begun}
            if self.per_second(each)
        }

    def _rate_of(self, destination: Destination) -> Rate:
        per_second = self.per_second(destination)
        return Rate(per_second=per_second, burst=per_second)


def rate_limits(settings: PaceSettings, telemetry: Telemetry) -> DestinationRateLimits:
    """The rate limits that the settings give."""
    return DestinationRateLimits(settings.deliveries_per_second, settings.per_second(), telemetry)


@dataclass(frozen=True, kw_only=True, slots=True)
class _RefusedDestination:
    since_ms: int
    """Time of the first refusal since its last record, for people; giving up goes by the next one."""
    missing_since_ms: int | None
    """Time of the first refusal that can lead to giving up; None after a sign of life."""
    failures: int
    wait: DestinationWait
    overdue: bool = False
    """Missing for `topic_wait_ms`: given up if fresh metadata confirm it."""


class DestinationWaits:
    """Back-off and rate limits of the destinations, shared by all shards of a node: a refusal seen by one
    shard applies to all."""

    def __init__(
        self,
        *,
        topic_wait_ms: int,
        topic_missing: Callable[[Destination], Awaitable[bool]],
        limits: DestinationRateLimits | None = None,
    ) -> None:
        """`topic_missing`: asks Kafka for metadata now, uncached (`Publisher.topic_missing`)."""
        self._topic_wait_ms = topic_wait_ms
        self._topic_missing = topic_missing
        self._limits = limits
        self._refusals: dict[Destination, _RefusedDestination] = {}
        self._looked_up: set[Destination] = set()
        self._since: dict[Destination, tuple[int, int]] = {}
        """Destinations without a send for a while: time of the first refusal, and time up to which it is kept."""

    def at(self, now_ms: int) -> Mapping[Destination, DestinationWait]:
        """The destinations that are not to be sent to at this time; one in both has the wait of its back-off."""
        for each in [d for d, state in self._refusals.items() if state.wait.until_ms + FORGET_MS <= now_ms]:
            state = self._refusals.pop(each)
            if len(self._since) >= SINCE_MAX:
                del self._since[next(iter(self._since))]
            self._since[each] = state.since_ms, state.wait.until_ms + SINCE_KEPT_MS
        waits = self._limits.waits(now_ms) if self._limits is not None else {}
        return waits | {each: state.wait for each, state in self._refusals.items() if state.wait.until_ms > now_ms}

    def refusing_topics(self, now_ms: int) -> dict[Destination, TopicWait]:
        """The destinations that have refused a record and taken none since: for people. Without those that are over their
        rate, which take records all the while."""
        return {
            each: TopicWait(state.since_ms, state.wait.reason)
            for each, state in self._refusals.items()
            if state.wait.until_ms + FORGET_MS > now_ms
        }

    def take_counts(self, delivered_to: Iterable[Destination]) -> dict[Destination, TopicRateLimit]:
        """Takes the counts since the last call, for people: limit and waits of each destination that was delivered to or
        held back."""
        return self._limits.take_counts(delivered_to) if self._limits is not None else {}

    def in_backoff(self, destination: Destination, now_ms: int) -> bool:
        """True during the destination's back-off. The rate limit is ignored."""
        state = self._refusals.get(destination)
        return state is not None and state.wait.until_ms > now_ms

    def probed(self, now_ms: int) -> Set[Destination]:
        """The destinations whose back-off has ended and which have taken no record since. A few of their rows are sent
        as a probe."""
        return frozenset(each for each, state in self._refusals.items() if state.wait.until_ms <= now_ms)

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
        """Starts the back-off of a destination that refused a record, or lengthens it if it has ended; returns its wait. A
        refusal during a back-off changes nothing, unless it is a sign of life.

        Gives nothing up: for a missing destination await `confirm_given_up` after it. `only_dead_letters`: the refused
        record was a dead letter, sent to the cluster's topic instead. Such a refusal starts `topic_wait_ms`, but does not
        give the destination up.
        """
        before = self._refusals.get(destination)
        missing = cause is RefusalCause.DESTINATION
        if before is not None and not missing:
            before = self._alive(destination, before)
        if before is not None and before.wait.until_ms > now_ms:
            return before.wait  # another shard was refused at the same time: one probe counts for one back-off
        missing_since_ms = before.missing_since_ms if before is not None else None
        if missing and missing_since_ms is None:
            missing_since_ms = now_ms
        failures = before.failures + 1 if before is not None else 1
        overdue = missing_since_ms is not None and now_ms - missing_since_ms >= self._topic_wait_ms
        backoff = MISSING_BACKOFF if missing else AWAY_BACKOFF
        wait = DestinationWait(
            until_ms=now_ms + backoff.wait_ms(failures),
            reason=reason,
            given_up=only_dead_letters and overdue and before is not None and before.wait.given_up,
        )
        first_ms, kept_until_ms = self._since.pop(destination, (now_ms, now_ms))
        since_ms = first_ms if now_ms < kept_until_ms else now_ms
        self._refusals[destination] = _RefusedDestination(
            since_ms=before.since_ms if before is not None else since_ms,
            missing_since_ms=missing_since_ms,
            failures=failures,
            wait=wait,
            overdue=overdue and not only_dead_letters,
        )
        if before is None:
            log.warning("Topic waits", extra={"event": "topic.waits", "topic": destination, "reason": reason})
        return wait

    async def confirm_given_up(self, destination: Destination) -> None:
        """Gives a destination up if it has been missing for `topic_wait_ms` and metadata that are read now, uncached,
        confirm it. Raises nothing: without an answer the next refusal asks again.

        From then on passes plan dead letters for its rows, until the back-off ends and the next probe is refused, and
        so on: no row fails because of metadata that are older than one back-off.
        """
        state = self._refusals.get(destination)
        if state is None or not state.overdue or state.wait.given_up or destination in self._looked_up:
            return
        self._looked_up.add(destination)  # many lanes are refused at once: one of them asks
        try:
            missing = await self._topic_missing(destination)
        except Unavailable as error:
            log.warning(
                "Topic not looked up",
                extra={
                    "event": "topic.not_looked_up",
                    "topic": destination,
                    "error": str(error),
                    "once_per": f"topic.not_looked_up {destination}",
                },
            )
            return
        finally:
            self._looked_up.discard(destination)
        if self._refusals.get(destination) is not state:
            return  # it has shown a sign of life meanwhile, or was refused again: then that refusal asks
        if not missing:
            self._alive(destination, state)
            return
        self._refusals[destination] = replace(state, wait=replace(state.wait, given_up=True))
        log.error(
            "Topic given up", extra={"event": "topic.given_up", "topic": destination, "reason": state.wait.reason}
        )

    def _alive(self, destination: Destination, state: _RefusedDestination) -> _RefusedDestination:
        """Notes a sign of life of a destination that stays in its back-off."""
        if state.missing_since_ms is None:
            return state
        wait = replace(state.wait, given_up=False)
        alive = replace(state, missing_since_ms=None, overdue=False, wait=wait)
        self._refusals[destination] = alive
        return alive

    def succeeded(self, destination: Destination) -> None:
        """Ends the back-off: the destination has taken a record."""
        self._since.pop(destination, None)
        if self._refusals.pop(destination, None) is not None:
            log.info("Topic is back", extra={"event": "topic.back", "topic": destination})
