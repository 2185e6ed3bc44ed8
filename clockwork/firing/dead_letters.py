"""Where the dead letters of a delivery go: `domain.dead_letters`, with what this node knows of the topics."""

import logging
from collections.abc import Container
from functools import partial
from typing import Final

from clockwork.clock import Clock
from clockwork.domain.dead_letters import DeadLetterTopics
from clockwork.domain.destination import Topic
from clockwork.domain.planning import PlannedDelivery
from clockwork.domain.position import Position
from clockwork.domain.record import OutRecord, dead_letter_of, dead_letter_of_broken
from clockwork.domain.schedule import ClientId, Row
from clockwork.errors import Refusal, RefusalCause
from clockwork.firing.destination_waits import DestinationWaits
from clockwork.firing.takeover import ShardLease
from clockwork.ports.telemetry import Telemetry
from clockwork.settings.model import RunnerSettings

log = logging.getLogger(__name__)

TURNED_AWAY_MS: Final = 600_000
"""How long a letter that its client's topic refused for what it is goes to the cluster's without being offered to it again.
Somebody may have enlarged the topic meanwhile; and it bounds what is remembered of rows that never end, being cancelled."""


def dead_letter_topics(settings: RunnerSettings) -> DeadLetterTopics:
    """As the settings name them."""
    of_clients = {ClientId(client): Topic(topic) for client, topic in settings.dead_letter_topics.items()}
    return DeadLetterTopics(of_cluster=Topic(settings.dead_letter_topic), of_clients=of_clients)


class DeadLetterRecords:
    """Makes dead letters, and says which of them go to the cluster's topic in place of their client's."""

    def __init__(
        self, topics: DeadLetterTopics, destination_waits: DestinationWaits, clock: Clock, telemetry: Telemetry
    ) -> None:
        self._topics = topics
        self._destination_waits = destination_waits
        self._clock = clock
        self._telemetry = telemetry

    def record(self, firing: PlannedDelivery, turned_away: Container[Position]) -> OutRecord:
        """`turned_away`: of those whose letters their client's topic has refused."""
        row, failure, now_ms = firing.row, firing.failure, self._clock.now_ms()
        assert failure is not None, "only what failed has a dead letter"
        takes = partial(self._destination_waits.takes, now_ms=now_ms)
        topic = self._topics.of_cluster if row.position in turned_away else self._topics.topic_for(row, takes)
        if isinstance(row, Row):
            return dead_letter_of(row.schedule, failure, topic=topic, now_ms=now_ms)
        return dead_letter_of_broken(row, failure, topic=topic, now_ms=now_ms)

    def turned_away(self, lease: ShardLease, firing: PlannedDelivery, refusal: Refusal) -> bool:
        """Whether it is a dead letter that its client's topic has refused, so that the cluster's gets it now. What is known
        of the topic then spares others the same way; a record refused for what it is tells of itself only."""
        if firing.failure is None or refusal.destination == self._topics.of_cluster:
            return False
        now_ms = self._clock.now_ms()
        if refusal.cause is RefusalCause.RECORD:
            lease.turned_away[firing.row.position] = now_ms + TURNED_AWAY_MS
        else:
            topic = Topic(refusal.destination)
            self._destination_waits.refused(topic, refusal.cause, refusal.reason, now_ms=now_ms, of_letter=True)
        log.warning(
            "A client's topic refuses its dead letter; the cluster's gets it",
            extra={
                "event": "dead_letter.turned_away",
                "once_per": f"{refusal.destination}: {refusal.reason}",
                "topic": refusal.destination,
                "reason": refusal.reason,
            },
        )
        return True

    def count(self, firing: PlannedDelivery, record: OutRecord) -> None:
        """It is written."""
        meant_for = self._topics.meant_for(firing.row)
        if meant_for == self._topics.of_cluster:
            self._telemetry.dead_letter("cluster")
        elif record.topic == meant_for:
            self._telemetry.dead_letter("client")
            self._destination_waits.took_records(meant_for)
        else:
            self._telemetry.dead_letter("turned_away")
