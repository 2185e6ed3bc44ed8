"""The part of the composition root that those who run the service meet: what the calls under /admin are answered by."""

import random

from clockwork.adapters.dynamo_pauses import DynamoPauses
from clockwork.adapters.dynamo_search import DynamoScheduleSearch
from clockwork.adapters.dynamo_store import DynamoScheduleStore
from clockwork.adapters.kafka_dead_letters import KafkaDeadLetters
from clockwork.api.admin import AdminParts
from clockwork.clock import Clock
from clockwork.config import Settings
from clockwork.engine.answers import Accepts
from clockwork.engine.dead_letter_topics import dead_letter_topics
from clockwork.engine.dead_letters import DeadLetters
from clockwork.engine.pausing import Pauser
from clockwork.engine.scan import PendingScan
from clockwork.engine.survey import Survey
from clockwork.engine.waker import Waker
from clockwork.resources import kafka_settings


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
        pausing=Pauser(DynamoPauses(store.client), clock, rng, settings.intake),
        letters=DeadLetters(KafkaDeadLetters(kafka_settings(settings)), schedules, dead_letter_topics(settings.runner)),
        survey=Survey(store, waker, clock, rng, settings.intake),
        scan=PendingScan(store, search, clock, rng, settings.intake),
    )
