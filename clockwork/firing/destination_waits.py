"""Topics that take nothing at present, as one node sees them.

A missing or forbidden topic waits as a whole, unsent; after each back-off one pass sends to it again, which is the probe.
Its rows become dead letters only after `topic_wait_ms` from the first refusal, then without attempts of their own. A topic
whose broker is away waits with a short back-off and is never given up. One that is sent to as fast as it may be waits for
its pace (`DestinationRateLimits`). A restarted node begins to count anew: it has not
seen the first refusal, and waiting longer loses nothing.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from clockwork.domain.destination import Topic
from clockwork.domain.planning import DestinationWait
from clockwork.domain.rate import Buckets, Rate
from clockwork.domain.retry import BackoffPolicy
from clockwork.errors import RefusalCause
from clockwork.ports.telemetry import Telemetry
from clockwork.settings.model import PaceSettings

log = logging.getLogger(__name__)

MISSING_BACKOFF: Final = BackoffPolicy(initial_ms=500, max_ms=10_000)
"""Probing a missing topic is a look into the metadata cache, so ten seconds cost little and please whoever has just
created the topic."""
AWAY_BACKOFF: Final = BackoffPolicy(initial_ms=100, max_ms=2_000)


FORGET_MS: Final = 60_000
"""A topic that nobody has sent to for this long after its wait begins anew: an old refusal is no proof of a long wait."""


NS_PER_MS: Final = 1_000_000
ROUNDS_PER_SECOND: Final = 4
"""How often in a second a topic over its pace goes on."""


class DestinationRateLimits:
    """Shared by all runners of a node."""

    def __init__(self, default_per_second: int, per_second: Mapping[str, int], telemetry: Telemetry) -> None:
        """0: no limit."""
        self._default_per_second = default_per_second
        self._per_second = dict(per_second)
        self._telemetry = telemetry
        self._buckets: Buckets[Topic] = Buckets(self._rate_of)
        self._waits: dict[Topic, DestinationWait] = {}

    def waits(self, now_ms: int) -> dict[Topic, DestinationWait]:
        """The topics that have used up their pace."""
        self._waits = {topic: wait for topic, wait in self._waits.items() if wait.until_ms > now_ms}
        return dict(self._waits)

    def take(self, topic: Topic, now_ms: int) -> DestinationWait | None:
        """Counts one delivery; or says until when the topic waits, having counted nothing."""
        if not self._per_second.get(topic, self._default_per_second):
            return None
        waiting = self._waits.get(topic)
        if waiting is not None and waiting.until_ms > now_ms:
            return waiting
        now_ns = now_ms * NS_PER_MS
        bucket = self._buckets.of(topic, now_ns)
        if not bucket.wait_ns(1, now_ns):
            bucket.take(1, now_ns)
            return None
        round_ns = bucket.wait_ns(max(1, bucket.rate.burst // ROUNDS_PER_SECOND), now_ns)
        wait = DestinationWait(until_ms=now_ms - (-round_ns // NS_PER_MS), reason="over_its_pace", paced=True)
        self._waits[topic] = wait
        self._telemetry.limited("topic_deliveries")
        return wait

    def _rate_of(self, topic: Topic) -> Rate:
        per_second = self._per_second.get(topic, self._default_per_second)
        return Rate(per_second=per_second, burst=per_second)


def rate_limits(settings: PaceSettings, telemetry: Telemetry) -> DestinationRateLimits:
    """As the settings say."""
    return DestinationRateLimits(settings.deliveries_per_second, settings.per_second(), telemetry)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Refused:
    missing_since_ms: int | None
    """The first of the refusals that can lead to giving up; None while its broker was only away."""
    times: int
    wait: DestinationWait


class DestinationWaits:
    """Shared by all runners of a node: what one has found out, the others need not."""

    def __init__(self, *, topic_wait_ms: int, pace: DestinationRateLimits | None = None) -> None:
        self._topic_wait_ms = topic_wait_ms
        self._pace = pace
        self._topics: dict[Topic, _Refused] = {}

    def at(self, now_ms: int) -> Mapping[Topic, DestinationWait]:
        """The topics that are not to be sent to at this time."""
        for topic in [t for t, refused in self._topics.items() if refused.wait.until_ms + FORGET_MS <= now_ms]:
            del self._topics[topic]
        waits = self._pace.waits(now_ms) if self._pace is not None else {}
        return waits | {
            topic: refused.wait for topic, refused in self._topics.items() if refused.wait.until_ms > now_ms
        }

    def takes(self, topic: Topic, now_ms: int) -> bool:
        """Whether it may be sent to at this time, its pace apart."""
        refused = self._topics.get(topic)
        return refused is None or refused.wait.until_ms <= now_ms

    def pace(self, topic: Topic, now_ms: int) -> DestinationWait | None:
        """Counts one delivery to the topic; or says that it waits, because it gets enough as it is."""
        return self._pace.take(topic, now_ms) if self._pace is not None else None

    def refused(
        self, topic: Topic, cause: RefusalCause, reason: str, *, now_ms: int, of_letter: bool = False
    ) -> DestinationWait:
        """Takes a refusal of the topic into account and says how long it waits now. `of_letter`: of a dead letter that goes
        elsewhere then. However long that lasts, nothing is given up by it."""
        before = self._topics.get(topic)
        if before is not None and before.wait.until_ms > now_ms:
            return before.wait  # another shard was refused at the same time: one probe, one back-off
        missing = cause is RefusalCause.DESTINATION
        missing_since_ms = before.missing_since_ms if before is not None else None
        if missing and missing_since_ms is None:
            missing_since_ms = now_ms
        times = before.times + 1 if before is not None else 1
        given_up = missing and missing_since_ms is not None and now_ms - missing_since_ms >= self._topic_wait_ms
        if of_letter:
            given_up = given_up and before is not None and before.wait.given_up
        backoff = MISSING_BACKOFF if missing else AWAY_BACKOFF
        wait = DestinationWait(until_ms=now_ms + backoff.wait_ms(times), reason=reason, given_up=given_up)
        self._topics[topic] = _Refused(missing_since_ms=missing_since_ms, times=times, wait=wait)
        if before is None:
            log.warning("Topic waits", extra={"event": "topic.waits", "topic": topic, "reason": reason})
        elif given_up and not before.wait.given_up:
            log.error("Topic given up", extra={"event": "topic.given_up", "topic": topic, "reason": reason})
        return wait

    def took_records(self, topic: Topic) -> None:
        """The topic is well again."""
        if self._topics.pop(topic, None) is not None:
            log.info("Topic is back", extra={"event": "topic.back", "topic": topic})
