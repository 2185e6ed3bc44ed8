"""Records of dead letters and the choice of their topic, by the rules of `domain.dead_letters` and the back-offs that this
node knows."""

import logging
from collections.abc import Container
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
from clockwork.firing.lease import ShardLease
from clockwork.ports.telemetry import Telemetry
from clockwork.settings.model import RunnerSettings

log = logging.getLogger(__name__)

FALLBACK_MS: Final = 600_000
"""Time for which a dead letter that its client's topic refused for its content goes to the cluster's topic without being
offered again. After that the client's topic may have been given a larger limit; and it bounds the memory of rows that
never fire, since they are cancelled."""


def dead_letter_topics(settings: RunnerSettings) -> DeadLetterTopics:
    """The dead-letter topics that the settings name."""
    of_clients = {ClientId(client): Topic(topic) for client, topic in settings.dead_letter_topics.items()}
    return DeadLetterTopics(of_cluster=Topic(settings.dead_letter_topic), of_clients=of_clients)


class DeadLetterRecords:
    """Makes the records of dead letters, and chooses between the client's topic and the cluster's."""

    def __init__(
        self, topics: DeadLetterTopics, destination_waits: DestinationWaits, clock: Clock, telemetry: Telemetry
    ) -> None:
        self._topics = topics
        self._destination_waits = destination_waits
        self._clock = clock
        self._telemetry = telemetry

    def topic(self, planned: PlannedDelivery, rejected: Container[Position]) -> Topic:
        """The topic that a dead letter goes to at present. `rejected`: the rows whose dead letters their client's topic has
        refused."""
        row, now_ms = planned.row, self._clock.now_ms()

        def available(own: Topic) -> bool:
            return row.position not in rejected and not self._destination_waits.in_backoff(own, now_ms)

        return self._topics.topic_for(row, available)

    def record(self, planned: PlannedDelivery, rejected: Container[Position]) -> OutRecord:
        """The dead letter of a row, for its `topic`."""
        row, failure, now_ms = planned.row, planned.failure, self._clock.now_ms()
        assert failure is not None, "only what failed has a dead letter"
        topic = self.topic(planned, rejected)
        if isinstance(row, Row):
            return dead_letter_of(row.schedule, failure, topic=topic, now_ms=now_ms, job=row.run)
        return dead_letter_of_broken(row, failure, topic=topic, now_ms=now_ms)

    def fall_back(self, lease: ShardLease, planned: PlannedDelivery, refusal: Refusal) -> bool:
        """Sends a refused dead letter to the cluster's topic from now on. Returns False if the record is not a dead letter
        in a client's topic. A refusal of the topic starts the topic's back-off, so later dead letters go to the cluster's
        topic directly; a refusal of the content concerns this row only."""
        if planned.failure is None or refusal.destination == self._topics.of_cluster:
            return False
        now_ms = self._clock.now_ms()
        if refusal.cause is RefusalCause.RECORD:
            lease.fallback_until_ms[planned.row.position] = now_ms + FALLBACK_MS
        else:
            topic = Topic(refusal.destination)
            self._destination_waits.refused(topic, refusal.cause, refusal.reason, now_ms=now_ms, only_dead_letters=True)
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

    def report_sent(self, planned: PlannedDelivery, record: OutRecord) -> None:
        """Counts a dead letter that has its receipt, and ends the back-off of the topic that took it."""
        meant_for = self._topics.meant_for(planned.row)
        if meant_for == self._topics.of_cluster:
            self._telemetry.dead_letter("cluster")
            self._destination_waits.succeeded(meant_for)
        elif record.topic == meant_for:
            self._telemetry.dead_letter("client")
            self._destination_waits.succeeded(meant_for)
        else:
            self._telemetry.dead_letter("turned_away")
            self._destination_waits.succeeded(self._topics.of_cluster)
