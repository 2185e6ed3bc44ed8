"""The part of the composition root that those who run the service meet: what the calls under /admin are answered by."""

from clockwork.firing.dead_letters import dead_letter_topics
from clockwork.http.operations import AdminParts
from clockwork.kafka.dead_letters import KafkaDeadLetters
from clockwork.node.resources import kafka_context
from clockwork.operations.dead_letters import DeadLetterAdmin, Discarder
from clockwork.operations.pauses import PauseAdmin
from clockwork.operations.scan import PendingScan
from clockwork.operations.shards import ShardAdmin
from clockwork.ports.store import Stores
from clockwork.requests.service import RequestService
from clockwork.settings.model import Settings


def admin_parts(settings: Settings, stores: Stores, requests: RequestService) -> AdminParts:
    """The operators' calls on the service itself."""
    context = requests.context
    return AdminParts(
        pausing=PauseAdmin(stores.pauses, context.clock, context.rng, settings.intake),
        letters=DeadLetterAdmin(
            KafkaDeadLetters(kafka_context(settings)), requests, dead_letter_topics(settings.runner)
        ),
        discards=Discarder(context),
        survey=ShardAdmin(stores.schedules, context.waker, context.clock, context.rng, settings.intake),
        scan=PendingScan(stores.schedules, context.search, context.clock, context.rng, settings.intake),
    )
