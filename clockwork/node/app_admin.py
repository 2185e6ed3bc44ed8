"""The part of the composition root that those who run the service meet: what the calls under /admin are answered by."""

import random

from clockwork.clock import Clock
from clockwork.firing.dead_letters import dead_letter_topics
from clockwork.http.operations import AdminParts
from clockwork.kafka.dead_letters import KafkaDeadLetters
from clockwork.node.resources import kafka_context
from clockwork.operations.dead_letters import DeadLetterAdmin, Discarder
from clockwork.operations.pauses import PauseAdmin
from clockwork.operations.scan import PendingScan
from clockwork.operations.shards import ShardAdmin
from clockwork.requests.results import Accepts
from clockwork.requests.waker import Waker
from clockwork.settings.model import Settings
from clockwork.stores.dynamodb.pauses import DynamoPauses
from clockwork.stores.dynamodb.search import DynamoScheduleSearch
from clockwork.stores.dynamodb.store import DynamoScheduleStore


def admin_parts(
    settings: Settings,
    store: DynamoScheduleStore,
    schedules: Accepts,
    waker: Waker,
    clock: Clock,
    rng: random.Random,
) -> AdminParts:
    """What is asked of the service itself."""
    search = DynamoScheduleSearch(store.client)
    return AdminParts(
        pausing=PauseAdmin(DynamoPauses(store.client), clock, rng, settings.intake),
        letters=DeadLetterAdmin(
            KafkaDeadLetters(kafka_context(settings)), schedules, dead_letter_topics(settings.runner)
        ),
        discards=Discarder(store, clock, rng, settings.intake),
        survey=ShardAdmin(store, waker, clock, rng, settings.intake),
        scan=PendingScan(store, search, clock, rng, settings.intake),
    )
