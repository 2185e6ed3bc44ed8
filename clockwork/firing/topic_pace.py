"""How fast a topic is sent to, at most: after an outage of hours the backlog must not flatten its consumers.

A topic over its pace is one more topic that waits as a whole until a time (`TopicWaits`): its lanes are held back in
place, in order, and nothing else is; nobody pays an attempt, nothing is given up. It waits until a quarter of a second's
worth is there again, so that its runners do not turn for every single record.

A delivery is counted when it is planned. What is planned and then not sent (its cancel won, Kafka was away) has been
counted all the same: a little slower is what a limit may be. The pace is each node's own: nodes do not ask each other at
every record, so a topic gets up to as many times its pace as there are nodes that own shards.
"""

from collections.abc import Mapping
from typing import Final

from clockwork.domain.planning import TopicWait
from clockwork.domain.rate import Buckets, Rate
from clockwork.domain.schedule import Topic
from clockwork.ports.telemetry import Telemetry
from clockwork.settings.model import PaceSettings

NS_PER_MS: Final = 1_000_000
ROUNDS_PER_SECOND: Final = 4
"""How often in a second a topic over its pace goes on."""


class TopicPace:
    """Shared by all runners of a node."""

    def __init__(self, default_per_second: int, per_second: Mapping[str, int], telemetry: Telemetry) -> None:
        """0: no limit."""
        self._default_per_second = default_per_second
        self._per_second = dict(per_second)
        self._telemetry = telemetry
        self._buckets: Buckets[Topic] = Buckets(self._rate_of)
        self._waits: dict[Topic, TopicWait] = {}

    def waits(self, now_ms: int) -> dict[Topic, TopicWait]:
        """The topics that have used up their pace."""
        self._waits = {topic: wait for topic, wait in self._waits.items() if wait.until_ms > now_ms}
        return dict(self._waits)

    def take(self, topic: Topic, now_ms: int) -> TopicWait | None:
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
        wait = TopicWait(until_ms=now_ms - (-round_ns // NS_PER_MS), reason="over_its_pace", paced=True)
        self._waits[topic] = wait
        self._telemetry.limited("topic_deliveries")
        return wait

    def _rate_of(self, topic: Topic) -> Rate:
        per_second = self._per_second.get(topic, self._default_per_second)
        return Rate(per_second=per_second, burst=per_second)


def topic_pace(settings: PaceSettings, telemetry: Telemetry) -> TopicPace:
    """As the settings say."""
    return TopicPace(settings.deliveries_per_second, settings.per_second(), telemetry)
