"""Topics that take nothing at present, as one node sees them.

A missing or forbidden topic waits as a whole, unsent; after each back-off one pass sends to it again, which is the probe.
Its rows become dead letters only after `topic_wait_ms` from the first refusal, then without attempts of their own. A topic
whose broker is away waits with a short back-off and is never given up. A restarted node begins to count anew: it has not
seen the first refusal, and waiting longer loses nothing.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from clockwork.domain.lanes import TopicWait
from clockwork.domain.retry import Backoff
from clockwork.domain.schedule import Topic
from clockwork.errors import Cause

log = logging.getLogger(__name__)

MISSING_BACKOFF: Final = Backoff(initial_ms=500, max_ms=10_000)
"""Probing a missing topic is a look into the metadata cache, so ten seconds cost little and please whoever has just
created the topic."""
AWAY_BACKOFF: Final = Backoff(initial_ms=100, max_ms=5_000)


@dataclass(slots=True)
class _Refused:
    first_ms: int
    times: int
    wait: TopicWait


class TopicWaits:
    """Shared by all runners of a node: what one has found out, the others need not."""

    def __init__(self, *, topic_wait_ms: int) -> None:
        self._topic_wait_ms = topic_wait_ms
        self._topics: dict[Topic, _Refused] = {}

    def at(self, now_ms: int) -> Mapping[Topic, TopicWait]:
        """The topics that are not to be sent to at this time."""
        return {topic: refused.wait for topic, refused in self._topics.items() if refused.wait.until_ms > now_ms}

    def refused(self, topic: Topic, cause: Cause, reason: str, *, now_ms: int) -> TopicWait:
        """Takes a refusal of the topic into account and says how long it waits now."""
        before = self._topics.get(topic)
        if before is not None and before.wait.until_ms > now_ms:
            return before.wait  # another shard was refused at the same time: one probe, one back-off
        times = before.times + 1 if before is not None else 1
        first_ms = before.first_ms if before is not None else now_ms
        backoff = MISSING_BACKOFF if cause is Cause.TOPIC else AWAY_BACKOFF
        given_up = cause is Cause.TOPIC and now_ms - first_ms >= self._topic_wait_ms
        wait = TopicWait(until_ms=now_ms + backoff.wait_ms(times), reason=reason, given_up=given_up)
        self._topics[topic] = _Refused(first_ms=first_ms, times=times, wait=wait)
        if before is None:
            log.warning("Topic waits", extra={"event": "topic.waits", "topic": topic, "reason": reason})
        elif given_up and not before.wait.given_up:
            log.error("Topic given up", extra={"event": "topic.given_up", "topic": topic, "reason": reason})
        return wait

    def took_records(self, topic: Topic) -> None:
        """The topic is well again."""
        if self._topics.pop(topic, None) is not None:
            log.info("Topic is back", extra={"event": "topic.back", "topic": topic})
