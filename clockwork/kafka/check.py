"""Checks of a Kafka: can the service keep its promises on it? Made at every start, and by `python -m clockwork check`.

Problems and warnings. A problem makes a promise untrue or stops the work: brokers that are too old, topics that are missing
or of the wrong shape, rights that are denied, fewer replicas in sync than a write asks for, a leader that may be elected
though it lacks acknowledged records, and three replicas of which one may acknowledge alone: three are paid for so that the
loss of one costs nothing, and one setting away it does not. Fewer than three replicas are a warning: on a developer's
machine there is one broker.

The log of transactions is Kafka's own and not made by `init`, so it only ever causes warnings; but what it loses are commits
(docs/design.md, 3).

Clients' own topics of dead letters only ever cause warnings: the clients may create or delete them at any time, and dead
letters that they do not take go to the cluster's topic.

An unknown fact is no problem: the right to look at a topic's settings is not needed for anything else, and coordinators
may be away for a moment. The requests only look, and no lookup creates a topic, whatever the brokers are set to. Of the
rights they show those that a look needs as well: a missing right to write shows at the first write.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.client import CoordinationType
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.admin import ApiVersionRequest, DescribeConfigsRequest, DescribeGroupsRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.group import JoinGroupRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest

from clockwork.kafka import codes
from clockwork.kafka.aiokafka_internals import TopicLookup
from clockwork.kafka.client import KafkaContext, KafkaWire, LastAnswer, Wire
from clockwork.kafka.group import GroupMembership, HeartbeatRequest, LeaveGroupRequest
from clockwork.kafka.topics import (
    DELIVERIES_SEGMENT_BYTES_MAX,
    IN_SYNC_MIN,
    REPLICAS,
    TopicPlan,
    caps_in_sync_min,
    internal_topics,
)
from clockwork.ports.findings import Findings, merged
from clockwork.settings.model import DEAD_LETTER_TOPICS, KafkaSettings

KAFKA_MIN: Final = "Kafka 2.4"
"""The first version with all that is used: JoinGroup 5, Heartbeat 3 and LeaveGroup 3, for static members that others may
remove (KIP-345)."""
TRANSACTION_LOG: Final = "__transaction_state"
"""Kafka's own topic in which the coordinators keep the state of transactions."""
RIGHTS: Final = "grant it as infra/kafka/acls.yaml says"
_CLEANUP: Final = "cleanup.policy"
_TIMESTAMP: Final = "message.timestamp.type"
_SEGMENT: Final = "segment.bytes"
_IN_SYNC_MIN: Final = "min.insync.replicas"
_UNCLEAN: Final = "unclean.leader.election.enable"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Needed:
    """A request that is sent, and the lowest version of it that serves its purpose."""

    name: str
    request: Any
    version: int


def _needed(settings: KafkaSettings) -> tuple[_Needed, ...]:
    group: tuple[Any, ...] = (settings.consumer_group, 1, 1, "", settings.instance_id or "", "consumer", [])
    heartbeat = HeartbeatRequest(settings.consumer_group, GroupMembership(generation=1, member_id=""), None)
    return (
        _Needed(name="Produce", request=ProduceRequest("t", -1, 1, []), version=3),
        _Needed(name="Metadata", request=TopicLookup([]), version=4),
        _Needed(name="JoinGroup", request=JoinGroupRequest(*group), version=5 if settings.instance_id else 1),
        _Needed(name="Heartbeat", request=heartbeat, version=3),
        _Needed(name="DescribeGroups", request=DescribeGroupsRequest([settings.consumer_group]), version=0),
        _Needed(name="LeaveGroup", request=LeaveGroupRequest(settings.consumer_group, ""), version=3),
        _Needed(name="InitProducerId", request=InitProducerIdRequest("t", 1), version=0),
        _Needed(name="AddPartitionsToTxn", request=AddPartitionsToTxnRequest("t", 0, 0, []), version=0),
        _Needed(name="EndTxn", request=EndTxnRequest("t", 0, 0, True), version=0),
    )


async def check_kafka(kafka: KafkaContext, *, fires: bool = True) -> Findings:
    """Makes all checks. `fires`: for a node that delivers, and so joins the group.

    Raises: BrokerUnavailable.
    """
    wire = KafkaWire(kafka, LastAnswer(), role="check")
    try:
        return await check_by(wire, kafka.settings, fires=fires)
    finally:
        await wire.close()


async def check_by(wire: Wire, settings: KafkaSettings, *, fires: bool) -> Findings:
    """See `check_kafka`."""
    answer = await wire.request(ApiVersionRequest())
    versions = Findings(problems=tuple(version_problems(answer, settings)))
    if versions.problems:
        # Brokers of an older version may understand the other requests differently.
        return versions
    found = [await topic_findings(wire, settings, in_sync_capped=caps_in_sync_min(answer))]
    if fires:
        rights = Findings(problems=tuple(await _denied(wire, settings)))
        found = [rights, *found, await transaction_log_findings(wire)]
    return merged(found)


def version_problems(answer: Any, settings: KafkaSettings) -> Iterable[str]:
    """One line, if a broker does not know the requests that will be sent."""
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
    # An incarnation draws its ids anew, so one id of the same form is checked for all.
    own_id = settings.transactional_id("check", 0)
    transactions = await wire.request(FindCoordinatorRequest(own_id, CoordinationType.TRANSACTION))
    found = []
    if group.error_code == codes.GROUP_FORBIDDEN:
        found.append(f"Kafka denies this user the group {settings.consumer_group}: {RIGHTS}")
    if transactions.error_code == codes.TRANSACTIONAL_ID_FORBIDDEN:
        found.append(f"Kafka denies this user the transactional ids {settings.cluster}-*: {RIGHTS}")
    return found


async def topic_findings(wire: Wire, settings: KafkaSettings, *, in_sync_capped: bool) -> Findings:
    """Checks the internal topics, and the clients' own topics of dead letters: existence and shape. `in_sync_capped`: see
    `caps_in_sync_min`. Raises: BrokerUnavailable."""
    plans = internal_topics(settings)
    names = [plan.name for plan in plans if plan.needed]
    answer = await wire.request(TopicLookup(names))
    error_codes = {name: error_code for error_code, name, *_ in answer.topics}
    found = _existing(answer)
    problems = [
        f"Kafka denies this user the topic {name}: {RIGHTS}"
        if error_codes.get(name) == codes.TOPIC_FORBIDDEN
        else f"Kafka topic {name} is missing: run `python -m clockwork init`"
        for name in names
        if name not in found
    ]
    if (count := len(found.get(settings.shards_topic, []))) not in (0, settings.shards):
        problems.append(
            f"Kafka topic {settings.shards_topic} has {count} Kafka partitions, CLOCKWORK_SHARDS is {settings.shards}: "
            "set it to that"
        )
    internal = {name: found[name] for name in names if name in found}
    shapes = await _shapes(wire, settings, internal, in_sync_capped=in_sync_capped)
    clients = await _client_findings(wire, settings, in_sync_capped=in_sync_capped)
    return merged([Findings(problems=tuple(problems)), await _unneeded_findings(wire, plans), shapes, clients])


async def _unneeded_findings(wire: Wire, plans: Iterable[TopicPlan]) -> Findings:
    """Checks that the topics exist without which a node works. Raises: BrokerUnavailable."""
    names = [plan.name for plan in plans if not plan.needed]
    if not names:
        return Findings()
    found = _existing(await wire.request(TopicLookup(names)))
    return Findings(
        warnings=tuple(
            f"Kafka topic {name} is missing, or may not be looked at, so events or minutes are not recorded: run "
            "`python -m clockwork init`, or set CLOCKWORK_EVENTS=off"
            for name in names
            if name not in found
        )
    )


async def transaction_log_findings(wire: Wire) -> Findings:
    """Checks Kafka's log of transactions, unless it does not exist yet. Raises: BrokerUnavailable."""
    answer = await wire.request(TopicLookup([TRANSACTION_LOG]))
    if [error_code for error_code, *_ in answer.topics] == [codes.TOPIC_FORBIDDEN]:
        return Findings(warnings=(f"Kafka topic {TRANSACTION_LOG} may not be looked at: {RIGHTS}",))
    warnings: list[str] = []
    for name, parts in _existing(answer).items():
        replicas = replicas_of(parts)
        warnings += _few_replicas({name: replicas})
        config = (await _configs(wire, [name])).get(name)
        if config is None:
            warnings.append(_hidden(name))
            continue
        if (in_sync_min := int(config.get(_IN_SYNC_MIN, IN_SYNC_MIN))) < min(replicas, IN_SYNC_MIN):
            warnings.append(
                f"Kafka topic {name}: {_IN_SYNC_MIN} is {in_sync_min} of {replicas}, so one broker's loss may take commits: "
                f"{_alter(name, _IN_SYNC_MIN, str(IN_SYNC_MIN))}, and set transaction.state.log.min.isr of the brokers"
            )
        if config.get(_UNCLEAN, "false") != "false":
            warnings.append(f"Kafka topic {name}: {_UNCLEAN} is not false: {_alter(name, _UNCLEAN, 'false')}")
    return Findings(warnings=tuple(warnings))


def _existing(answer: Any) -> dict[str, list[tuple[Any, ...]]]:
    """The Kafka partitions of the topics that exist, by topic."""
    return {name: parts for error_code, name, _internal, parts in answer.topics if error_code == codes.NONE}


async def _client_findings(wire: Wire, settings: KafkaSettings, *, in_sync_capped: bool) -> Findings:
    """Checks the clients' own topics of dead letters, if there are any."""
    if not settings.client_dead_letter_topics:
        return Findings()
    answer = await wire.request(TopicLookup(list(settings.client_dead_letter_topics)))
    instead = f"until then its dead letters go to {settings.dead_letters_topic}"
    warnings = []
    for error_code, name, *_ in answer.topics:
        if error_code == codes.TOPIC_FORBIDDEN:
            warnings.append(f"{DEAD_LETTER_TOPICS}: Kafka denies this user the topic {name}: {RIGHTS}; {instead}")
        elif error_code != codes.NONE:
            warnings.append(f"{DEAD_LETTER_TOPICS}: Kafka topic {name} is missing: have it created; {instead}")
    found = _existing(answer)
    shapes = await _shapes(wire, settings, dict(sorted(found.items())), in_sync_capped=in_sync_capped)
    return Findings(warnings=(*warnings, *shapes.problems, *shapes.warnings))


async def _shapes(
    wire: Wire, settings: KafkaSettings, topics: Mapping[str, list[tuple[Any, ...]]], *, in_sync_capped: bool
) -> Findings:
    """Checks the settings and replicas of topics whose records must last."""
    configs = await _configs(wire, list(topics))
    replicas = {name: replicas_of(parts) for name, parts in topics.items()}
    shapes = [
        _shape(settings, name, replicas[name], configs.get(name), in_sync_capped=in_sync_capped) for name in topics
    ]
    return merged([*shapes, Findings(warnings=tuple(_few_replicas(replicas)))])


async def _configs(wire: Wire, names: list[str]) -> dict[str, Mapping[str, str]]:
    """The settings of those topics whose settings may be looked at, by topic."""
    wanted = [_CLEANUP, _TIMESTAMP, _SEGMENT, _IN_SYNC_MIN, _UNCLEAN]
    resources = [(ConfigResourceType.TOPIC, name, wanted) for name in names]
    if not resources:
        return {}
    answer = await wire.request(DescribeConfigsRequest(resources, False))
    return {
        resource[3]: {entry[0]: entry[1] for entry in resource[4]}
        for resource in answer.resources
        if resource[0] == codes.NONE
    }


def replicas_of(kafka_partitions: Iterable[tuple[Any, ...]]) -> int:
    """The number of replicas of each Kafka partition; if they differ, the lowest."""
    return min((len(replicas) for _error, _number, _leader, replicas, *_ in kafka_partitions), default=0)


def _few_replicas(replicas: Mapping[str, int]) -> list[str]:
    """One warning for all topics that have too few: on a developer's machine that is each of them, at each start."""
    few = {name: count for name, count in replicas.items() if count < REPLICAS}
    if not few:
        return []
    named = ", ".join(f"{name} ({count})" for name, count in few.items())
    return [f"Kafka topics with fewer than {REPLICAS} replicas, whose records are lost with their brokers: {named}"]


def _alter(name: str, setting: str, value: str) -> str:
    """The command that sets one setting of a topic."""
    return f"run `kafka-configs.sh --bootstrap-server … --alter --topic {name} --add-config {setting}={value}`"


def _hidden(name: str) -> str:
    return f"Kafka topic {name}: its settings may not be looked at: grant DescribeConfigs on it"


def _shape(
    settings: KafkaSettings, name: str, replicas: int, config: Mapping[str, str] | None, *, in_sync_capped: bool
) -> Findings:
    """Checks the settings of one topic whose records must last."""
    problems, warnings = [], []
    wanted = {_UNCLEAN: "false"}
    if name == settings.deliveries_topic:
        wanted[_CLEANUP] = "compact"
    if name == settings.commands_topic:
        wanted[_TIMESTAMP] = "LogAppendTime"
    known = config or {}
    for setting, value in wanted.items():
        if (found := known.get(setting, value)) != value:
            problems.append(
                f"Kafka topic {name}: {setting} must be {value}, is {found}: {_alter(name, setting, value)}"
            )
    if config is None:
        warnings.append(_hidden(name))
    if name == settings.deliveries_topic and int(known.get(_SEGMENT, 0)) > DELIVERIES_SEGMENT_BYTES_MAX:
        smaller = _alter(name, _SEGMENT, str(DELIVERIES_SEGMENT_BYTES_MAX // 2))
        warnings.append(f"Kafka topic {name}: {_SEGMENT} is {known[_SEGMENT]}, which makes take-overs slow: {smaller}")
    in_sync_min = int(known.get(_IN_SYNC_MIN, min(replicas, IN_SYNC_MIN)))
    if in_sync_min > replicas and not in_sync_capped:
        problems.append(
            f"Kafka topic {name}: {_IN_SYNC_MIN} is {in_sync_min}, and there are {replicas} replicas, so no write is "
            f"taken: {_alter(name, _IN_SYNC_MIN, str(max(1, replicas - 1)))}"
        )
    elif replicas >= REPLICAS and in_sync_min < IN_SYNC_MIN:
        problems.append(
            f"Kafka topic {name}: {_IN_SYNC_MIN} is {in_sync_min} of {replicas}, so one broker's loss may take "
            f"acknowledged records: {_alter(name, _IN_SYNC_MIN, str(IN_SYNC_MIN))}"
        )
    return Findings(problems=tuple(problems), warnings=tuple(warnings))
