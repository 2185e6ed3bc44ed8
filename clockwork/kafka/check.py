"""Is this Kafka one that the service can keep its promises on? Asked at every start, and by `python -m clockwork check`.

What is a problem and what a warning. A problem makes a promise untrue or stops the work: brokers that are too old, topics
that are missing or of the wrong shape, rights that are denied, fewer replicas in sync than a write asks for, and three
replicas of which one may acknowledge alone: whoever pays for three expects that the loss of one costs nothing, and one
setting away it does not. Fewer than three replicas are a warning: on a developer's machine there is one broker.

Clients' own topics of dead letters are only ever warned of: they are the clients', who may make or delete them at any time,
and what they do not take goes to the cluster's.

What is not known is no problem: the right to look at a topic's settings is not needed for anything else, and coordinators
may be away for a moment. Requests here only look; of rights they show those that a look needs as well: a right to write
shows at the first write.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.client import CoordinationType
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.admin import ApiVersionRequest, DescribeConfigsRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.group import JoinGroupRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest

from clockwork.domain.sharding import ShardId
from clockwork.kafka.client import NONE, TOPIC_FORBIDDEN, KafkaSettings, KafkaWire, Pulse, Wire
from clockwork.kafka.leave import LeaveGroupRequest
from clockwork.kafka.topics import IN_SYNC_MIN, REPLICAS, internal_topics
from clockwork.ports.findings import Findings, merged
from clockwork.settings.model import DEAD_LETTER_TOPICS

KAFKA_MIN: Final = "Kafka 2.4"
"""Static members that others may remove (KIP-345) came last of what is used: JoinGroup 5, LeaveGroup 3."""
GROUP_FORBIDDEN: Final = 30
TRANSACTIONAL_ID_FORBIDDEN: Final = 53
RIGHTS: Final = "grant it as infra/kafka/acls.yaml says"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Needed:
    """A request that is sent, and the version from which on it can do what it is sent for."""

    name: str
    request: Any
    version: int


def _needed(settings: KafkaSettings) -> tuple[_Needed, ...]:
    group: tuple[Any, ...] = (settings.consumer_group, 1, 1, "", settings.instance_id or "", "consumer", [])
    return (
        _Needed(name="Produce", request=ProduceRequest("t", -1, 1, []), version=3),
        _Needed(name="Metadata", request=MetadataRequest([], allow_auto_topic_creation=False), version=4),
        _Needed(name="JoinGroup", request=JoinGroupRequest(*group), version=5 if settings.instance_id else 1),
        _Needed(name="LeaveGroup", request=LeaveGroupRequest(settings.consumer_group, ""), version=3),
        _Needed(name="InitProducerId", request=InitProducerIdRequest("t", 1), version=0),
        _Needed(name="AddPartitionsToTxn", request=AddPartitionsToTxnRequest("t", 0, 0, []), version=0),
        _Needed(name="EndTxn", request=EndTxnRequest("t", 0, 0, True), version=0),
    )


async def check_kafka(settings: KafkaSettings, *, fires: bool = True) -> Findings:
    """Everything at once. `fires`: whether it is for a node that delivers, and so joins the group.

    Raises: BrokerUnavailable.
    """
    wire = KafkaWire(settings, Pulse(), role="check")
    try:
        return await check_by(wire, settings, fires=fires)
    finally:
        await wire.close()


async def check_by(wire: Wire, settings: KafkaSettings, *, fires: bool) -> Findings:
    """See `check_kafka`."""
    versions = Findings(problems=tuple(version_problems(await wire.request(ApiVersionRequest()), settings)))
    if versions.problems:
        # Whatever else is asked may mean something else there.
        return versions
    rights = Findings(problems=tuple(await _denied(wire, settings))) if fires else Findings()
    return merged([rights, await topic_findings(wire, settings)])


def version_problems(answer: Any, settings: KafkaSettings) -> Iterable[str]:
    """One line, if a broker does not know what it will be asked."""
    known = {key: (lowest, highest) for key, lowest, highest in answer.api_versions}
    unfit = []
    for needed in _needed(settings):
        try:
            version = needed.request.prepare(known).API_VERSION
        except (IncompatibleBrokerVersion, NotImplementedError):
            version = -1
        if version < needed.version:
            unfit.append(f"{needed.name} {needed.version}")
    if unfit:
        yield (
            f"KAFKA_BROKERS: these brokers do not speak {', '.join(unfit)}: {KAFKA_MIN} or later is needed, as far as this "
            "release's client library knows it"
        )


async def _denied(wire: Wire, settings: KafkaSettings) -> Iterable[str]:
    group = await wire.request(FindCoordinatorRequest(settings.consumer_group, CoordinationType.GROUP))
    own_id = settings.transactional_id(ShardId(0))
    transactions = await wire.request(FindCoordinatorRequest(own_id, CoordinationType.TRANSACTION))
    found = []
    if group.error_code == GROUP_FORBIDDEN:
        found.append(f"Kafka denies this user the group {settings.consumer_group}: {RIGHTS}")
    if transactions.error_code == TRANSACTIONAL_ID_FORBIDDEN:
        found.append(f"Kafka denies this user the transactional id {own_id}: {RIGHTS}")
    return found


async def topic_findings(wire: Wire, settings: KafkaSettings) -> Findings:
    """The internal topics, and clients' own of dead letters: there, and in the right shape? Raises: BrokerUnavailable."""
    plans = internal_topics(settings)
    names = [plan.name for plan in plans]
    answer = await wire.request(MetadataRequest(names, allow_auto_topic_creation=False))
    codes = {name: error_code for error_code, name, *_ in answer.topics}
    there = {name: parts for error_code, name, _internal, parts in answer.topics if error_code == NONE}
    problems = [
        f"Kafka denies this user the topic {name}: {RIGHTS}"
        if codes.get(name) == TOPIC_FORBIDDEN
        else f"Kafka topic {name} is missing: run `python -m clockwork init`"
        for name in names
        if name not in there
    ]
    problems += [
        f"Kafka topic {name} has {len(there[name])} Kafka partitions, CLOCKWORK_SHARDS is {settings.shards}: set it to that"
        for name in (settings.shards_topic, settings.deliveries_topic)
        if name in there and len(there[name]) != settings.shards
    ]
    kept = [plan.name for plan in plans if plan.must_last and plan.name in there]
    configs = await _configs(wire, kept)
    shapes = [_shape(settings, name, replicas_of(there[name]), configs.get(name)) for name in kept]
    return merged([Findings(problems=tuple(problems)), *shapes, await _client_findings(wire, settings)])


async def _client_findings(wire: Wire, settings: KafkaSettings) -> Findings:
    """Clients' own topics of dead letters. Apart from the others: a broker is not asked for topics in vain."""
    if not settings.client_dead_letters:
        return Findings()
    request = MetadataRequest(list(settings.client_dead_letters), allow_auto_topic_creation=False)
    answer = await wire.request(request)
    instead = f"until then what is meant for it goes to {settings.dead_letters_topic}"
    warnings = []
    for error_code, name, *_ in answer.topics:
        if error_code == TOPIC_FORBIDDEN:
            warnings.append(f"{DEAD_LETTER_TOPICS}: Kafka denies this user the topic {name}: {RIGHTS}; {instead}")
        elif error_code != NONE:
            warnings.append(f"{DEAD_LETTER_TOPICS}: Kafka topic {name} is missing: have it made; {instead}")
    there = {name: parts for error_code, name, _internal, parts in answer.topics if error_code == NONE}
    configs = await _configs(wire, sorted(there))
    shapes = [_shape(settings, name, replicas_of(there[name]), configs.get(name)) for name in sorted(there)]
    for shape in shapes:
        warnings += [*shape.problems, *shape.warnings]
    return Findings(warnings=tuple(warnings))


async def _configs(wire: Wire, names: list[str]) -> dict[str, Mapping[str, str]]:
    """Of those topics whose settings may be looked at."""
    wanted = ["cleanup.policy", "message.timestamp.type", "min.insync.replicas"]
    resources = [(ConfigResourceType.TOPIC, name, wanted) for name in names]
    if not resources:
        return {}
    answer = await wire.request(DescribeConfigsRequest(resources, False))
    return {
        resource[3]: {entry[0]: entry[1] for entry in resource[4]}
        for resource in answer.resources
        if resource[0] == NONE
    }


def replicas_of(kafka_partitions: Iterable[tuple[Any, ...]]) -> int:
    """How many replicas each Kafka partition has; of several numbers the lowest."""
    return min((len(replicas) for _error, _number, _leader, replicas, *_ in kafka_partitions), default=0)


def _shape(settings: KafkaSettings, name: str, replicas: int, config: Mapping[str, str] | None) -> Findings:
    """Of a topic whose records must last."""
    problems, warnings = [], []
    wanted = {
        settings.deliveries_topic: ("cleanup.policy", "compact"),
        settings.commands_topic: ("message.timestamp.type", "LogAppendTime"),
    }
    for setting, value in [wanted[name]] if name in wanted else []:
        if (found := (config or {}).get(setting, value)) != value:
            problems.append(f"Kafka topic {name}: {setting} must be {value}, is {found}: alter it")
    if config is None:
        warnings.append(f"Kafka topic {name}: its settings may not be looked at: grant DescribeConfigs on it")
    in_sync_min = int((config or {}).get("min.insync.replicas", min(replicas, IN_SYNC_MIN)))
    if in_sync_min > replicas:
        problems.append(
            f"Kafka topic {name}: min.insync.replicas is {in_sync_min}, and there are {replicas} replicas, so no write is "
            f"taken: set it to {max(1, replicas - 1)}"
        )
    elif replicas >= REPLICAS and in_sync_min < IN_SYNC_MIN:
        problems.append(
            f"Kafka topic {name}: min.insync.replicas is {in_sync_min} of {replicas}, so one broker's loss may take "
            f"what was acknowledged: set it to {IN_SYNC_MIN}"
        )
    if replicas < REPLICAS:
        warnings.append(
            f"Kafka topic {name} has {replicas} replicas: what is in it is lost with its brokers; {REPLICAS} are advised"
        )
    return Findings(problems=tuple(problems), warnings=tuple(warnings))
