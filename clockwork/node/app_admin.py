"""The part of the composition root that those who run the service meet: what the calls under /admin are answered by."""

import random

from clockwork.clock import Clock
from clockwork.firing.dead_letters import dead_letter_topics
from clockwork.http.operations import AdminParts
from clockwork.kafka.dead_letters import KafkaDeadLetters
from clockwork.node.resources import kafka_settings
from clockwork.operations.dead_letters import DeadLetterAdmin, Discarder
from clockwork.operations.pauses import PauseAdmin
from clockwork.operations.scan import PendingScan
from clockwork.operations.shards import ShardAdmin
from clockwork.ports.store import Stores
from clockwork.requests.results import Accepts
from clockwork.requests.waker import Waker
from clockwork.settings.model import Settings


def admin_parts(
    settings: Settings,
    stores: Stores,
    schedules: Accepts,
    waker: Waker,
    clock: Clock,
    rng: random.Random,
) -> AdminParts:
    """What is asked of the service itself."""
    return AdminParts(
        pausing=PauseAdmin(stores.pauses, clock, rng, settings.intake),
        letters=DeadLetterAdmin(
            KafkaDeadLetters(kafka_settings(settings)), schedules, dead_letter_topics(settings.runner)
        ),
        discards=Discarder(stores.schedules, clock, rng, settings.intake),
        survey=ShardAdmin(stores.schedules, waker, clock, rng, settings.intake),
        scan=PendingScan(stores.schedules, stores.search, clock, rng, settings.intake),
    )
