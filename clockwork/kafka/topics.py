"""Topics: a node's cache of their layouts and limits, and the internal topics, which `init` creates.

Layouts are kept for `metadata_max_age_ms`, the absence of a topic for a second: a client that has just created its
topic should not be told for long that it is missing. While Kafka is away a known topic stays known, so that the API
goes on accepting for it.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.errors import KafkaError, NodeNotReadyError
from aiokafka.protocol.admin import ApiVersionRequest, DescribeConfigsRequest
from aiokafka.protocol.produce import ProduceRequest

from clockwork.concurrency import Backoff
from clockwork.domain.retry import BackoffPolicy
from clockwork.errors import BrokerUnavailable, CannotStart
from clockwork.kafka import codes
from clockwork.kafka.aiokafka_internals import TopicLookup, ended
from clockwork.kafka.client import ANSWERED_S_MAX, RNG, KafkaContext, LastAnswer, Wire, first_answer
from clockwork.ports.activity import EVENTS_KAFKA_PARTITIONS
from clockwork.settings.model import KafkaSettings

log = logging.getLogger(__name__)

MISSING_AGE_S_MAX: Final = 1.0
"""The age up to which a topic's absence is believed."""
LIMIT_AGE_S_MAX: Final = 60.0
"""The age up to which a topic's limits are believed: they are changed by hand and rarely; if one shrank, the broker's
refusal says so."""
PING_INTERVAL_S: Final = 1.0
"""Interval of requests that only show that Kafka answers, while nothing else is asked."""
PRODUCE_OF_CAPPED_MIN: Final = 10
"""Version of the produce request that came with Kafka 3.7, as did the cap of `min.insync.replicas` (KAFKA-15583)."""
CREATE_TIMEOUT_MS: Final = 15_000
"""For each step of the creation of topics: brokers to be counted, the creation itself, leaders to be elected."""
LOOK_BACKOFF: Final = BackoffPolicy(initial_ms=20, max_ms=500)
"""Between looks at what the controller does in its own time."""
REPLICAS: Final = 3
"""Replicas of an internal topic, where there are brokers enough."""
IN_SYNC_MIN: Final = 2
"""Replicas, of three, that must have a record: one may be lost, and every acknowledged record is still there."""
DELIVERIES_KAFKA_PARTITIONS: Final = 64
"""Kafka partitions of the markers' topic. Any number is correct, since a marker's Kafka partition follows from its key.
With more of them fewer slots share one, and a taker waits for fewer open transactions of others."""
DELIVERIES_SEGMENT_BYTES_MAX: Final = 8 * 1024 * 1024
"""A taker that has no hint reads a Kafka partition of markers back to the start, and only closed segments are compacted."""
DEAD_LETTER_KAFKA_PARTITIONS: Final = 8
DEAD_LETTER_RETENTION_MS: Final = 30 * 24 * 3_600 * 1_000
COMMANDS_KAFKA_PARTITIONS: Final = 16
COMMANDS_RETENTION_MS: Final = 7 * 24 * 3_600 * 1_000
"""Commands that no node has read for so long are lost."""
EVENTS_RETENTION_MS: Final = 24 * 3_600 * 1_000
MINUTES_RETENTION_MS: Final = 8 * 24 * 3_600 * 1_000
TOPICS_MAX: Final = 20_000
"""Size of the cache, which must be bounded, as names come from clients; the oldest entries go first."""


class TopicState(StrEnum):
    """The state of a topic by the brokers' metadata."""

    PRESENT = "present"
    MISSING = "missing"
    FORBIDDEN = "forbidden"
    UNSETTLED = "unsettled"
    """The brokers' answers do not tell yet, because the topic is being created or moved. Its own schedules wait a
    little, no others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicLayout:
    """A topic as it was at `read_at_s`, loop time."""

    state: TopicState
    leaders: tuple[int, ...] = ()
    """The leader's node id by Kafka partition; -1: none at present."""
    in_sync: tuple[int, ...] = ()
    """The number of replicas in sync, by Kafka partition."""
    replicas: tuple[int, ...] = ()
    """The number of replicas, by Kafka partition."""
    read_at_s: float

    def leader_of(self, kafka_partition: int) -> int:
        """The leader's node id; -1 if there is none at present, or no such Kafka partition."""
        return self.leaders[kafka_partition] if kafka_partition < len(self.leaders) else -1

    @property
    def available(self) -> tuple[int, ...]:
        """The Kafka partitions that have a leader."""
        return tuple(number for number, leader in enumerate(self.leaders) if leader >= 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicLimits:
    """The settings of a topic that decide whether it takes a record; None: the brokers do not tell us."""

    record_bytes_max: int | None = None
    in_sync_min: int | None = None
    """`min.insync.replicas` as it is set, which may be more than there are replicas."""


class TopicDirectory:
    """The metadata cache of a node. `run` keeps asking, so that `connected` knows even when nothing is sent."""

    def __init__(self, kafka: KafkaContext, last_answer: LastAnswer, wire: Wire) -> None:
        self._timeouts = kafka.timeouts
        self._last_answer = last_answer
        self._wire = wire
        self._layouts: dict[str, TopicLayout] = {}
        self._limits: dict[str, tuple[float, TopicLimits]] = {}
        """With the loop time at which they were asked for."""
        self._reading_limits: set[str] = set()
        self._wanted: set[str] = set()
        self._asking = asyncio.Lock()
        self._trouble: str | None = None

    @property
    def trouble(self) -> str | None:
        """The reason for which Kafka did not answer when last asked; None if it did."""
        return self._trouble

    async def run(self) -> None:
        """Runs until cancelled. One line in the log when Kafka goes, one when it is back."""
        connected: bool | None = None
        while True:
            if not self._last_answer.within(PING_INTERVAL_S):
                try:
                    await self._wire.request(TopicLookup([]))
                except BrokerUnavailable as error:
                    await self._wire.reset()
                    if connected is not False:
                        log.warning("Kafka does not answer", extra={"event": "kafka.lost", "error": str(error)})
                    connected = False
                    self._trouble = str(error)
            if self._last_answer.within(PING_INTERVAL_S):
                self._trouble = None
            if connected is not True and self._last_answer.within(PING_INTERVAL_S):
                if connected is False:
                    log.info("Kafka answers again", extra={"event": "kafka.back"})
                connected = True
            await asyncio.sleep(PING_INTERVAL_S)

    def connected(self) -> bool:
        """True if Kafka answered lately."""
        return self._last_answer.within(ANSWERED_S_MAX)

    async def close(self) -> None:
        await self._wire.close()

    async def layout(self, topic: str, *, since_s: float | None = None) -> TopicLayout:
        """The layout of one topic; see `layouts`."""
        return (await self.layouts([topic], since_s=since_s))[topic]

    async def layouts(self, topics: Collection[str], *, since_s: float | None = None) -> Mapping[str, TopicLayout]:
        """The topics' layouts, from the cache if young enough; with `since_s`, read at that loop time or later, and
        never an older one because Kafka is silent.

        Raises: BrokerUnavailable, if one of them is not known and Kafka does not say.
        """
        if all(self._fresh(topic, since_s) for topic in topics):
            return {topic: self._layouts[topic] for topic in topics}
        try:
            async with asyncio.timeout(self._timeouts.lookup_ms / 1_000):
                await self._ask(topics, since_s)
        except (BrokerUnavailable, TimeoutError) as error:
            known = {topic: self._layouts[topic] for topic in topics if self._known(topic)}
            if since_s is None and len(known) == len(set(topics)):
                return known
            raise BrokerUnavailable(f"topics are not known and Kafka does not say: {error}") from error
        return {topic: self._layouts[topic] for topic in topics}

    async def limits(self, topic: str, *, since_s: float | None = None) -> TopicLimits:
        """The topic's limits, from the cache if young enough; with `since_s`, read at that loop time or later. Where they
        cannot be read, the last ones known: a refusal will tell."""
        now_s = asyncio.get_running_loop().time()
        read_at_s, limits = self._limits.get(topic, (-math.inf, TopicLimits()))
        oldest_s = now_s - LIMIT_AGE_S_MAX if since_s is None else since_s
        # While one caller reads the limits, others use the old ones, unless these would refuse a record.
        if read_at_s >= oldest_s or (since_s is None and topic in self._reading_limits):
            return limits
        self._reading_limits.add(topic)
        try:
            async with asyncio.timeout(self._timeouts.lookup_ms / 1_000):
                limits = await self._ask_limits(topic)
        except (BrokerUnavailable, TimeoutError):
            pass  # the old limits count as read now: otherwise every delivery would wait for the time-out
        finally:
            self._reading_limits.discard(topic)
        self._limits.pop(topic, None)
        self._limits[topic] = (now_s, limits)
        _shrink(self._limits)
        return limits

    def forget_limits(self, topic: str) -> None:
        """Forgets the topic's limits, because a broker refused a batch that they allow."""
        self._limits.pop(topic, None)

    async def leader_caps_in_sync_min(self, node_id: int) -> bool:
        """True if this broker takes writes with all replicas in sync, however high `min.insync.replicas` is.

        Raises: BrokerUnavailable.
        """
        return caps_in_sync_min(await self._wire.request(ApiVersionRequest(), node_id=node_id))

    def _fresh(self, topic: str, since_s: float | None) -> bool:
        layout = self._layouts.get(topic)
        if layout is None:
            return False
        if since_s is not None:
            return layout.read_at_s >= since_s
        age_s = asyncio.get_running_loop().time() - layout.read_at_s
        if layout.state is not TopicState.PRESENT:
            return age_s < MISSING_AGE_S_MAX
        # The topic is known and Kafka is away: it would be of no use to let every caller wait for a time-out.
        return age_s < self._timeouts.metadata_max_age_ms / 1_000 or not self.connected()

    def _known(self, topic: str) -> bool:
        layout = self._layouts.get(topic)
        return layout is not None and layout.state is TopicState.PRESENT

    async def _ask(self, topics: Collection[str], since_s: float | None) -> None:
        self._wanted.update(topic for topic in topics if not self._fresh(topic, since_s))
        async with self._asking:
            # The caller that held the lock before us has read all topics that were wanted then, perhaps ours too.
            if all(self._fresh(topic, since_s) for topic in topics):
                return
            self._wanted.update(topic for topic in topics if not self._fresh(topic, since_s))
            names, self._wanted = sorted(self._wanted), set()
            now_s = asyncio.get_running_loop().time()
            answer = await first_answer(lambda: self._wire.request(TopicLookup(names)))
            for error_code, name, _internal, kafka_partitions in answer.topics:
                self._layouts.pop(name, None)
                self._layouts[name] = _layout(error_code, kafka_partitions, now_s)
            _shrink(self._layouts, spare=topics)
        if not all(self._fresh(topic, since_s) for topic in topics):
            raise BrokerUnavailable("the brokers do not know these topics' state yet")

    async def _ask_limits(self, topic: str) -> TopicLimits:
        resource = (ConfigResourceType.TOPIC, topic, [_SIZE, _IN_SYNC])
        answer = await self._wire.request(DescribeConfigsRequest([resource], False))
        found: dict[str, int] = {}
        for error_code, _message, _kind, _name, entries in answer.resources:
            if error_code == codes.NONE:
                found |= {name: int(value) for name, value, *_ in entries if value is not None}
        return TopicLimits(record_bytes_max=found.get(_SIZE), in_sync_min=found.get(_IN_SYNC))


_SIZE: Final = "max.message.bytes"
_IN_SYNC: Final = "min.insync.replicas"


def caps_in_sync_min(versions: Any) -> bool:
    """True if the broker that gave this answer to `ApiVersionRequest` asks for no more replicas in sync than there are.
    Older ones take no write where `min.insync.replicas` is above the number of replicas."""
    produce = [highest for key, _lowest, highest in versions.api_versions if key == ProduceRequest.API_KEY]
    return max(produce, default=0) >= PRODUCE_OF_CAPPED_MIN


def _layout(error_code: int, kafka_partitions: Iterable[tuple[Any, ...]], now_s: float) -> TopicLayout:
    if error_code in (codes.UNKNOWN_TOPIC_OR_PARTITION, codes.INVALID_TOPIC):
        return TopicLayout(state=TopicState.MISSING, read_at_s=now_s)
    if error_code == codes.TOPIC_FORBIDDEN:
        return TopicLayout(state=TopicState.FORBIDDEN, read_at_s=now_s)
    if error_code != codes.NONE:
        return TopicLayout(state=TopicState.UNSETTLED, read_at_s=now_s)
    known = {
        number: (leader, len(in_sync), len(replicas))
        for _error, number, leader, replicas, in_sync, *_ in kafka_partitions
    }
    rows = [known.get(number, (-1, 0, 0)) for number in range(max(known, default=-1) + 1)]
    return TopicLayout(
        state=TopicState.PRESENT,
        leaders=tuple(leader for leader, _, _ in rows),
        in_sync=tuple(in_sync for _, in_sync, _ in rows),
        replicas=tuple(replicas for _, _, replicas in rows),
        read_at_s=now_s,
    )


def _shrink(cache: dict[str, Any], spare: Collection[str] = ()) -> None:
    """Removes the oldest entries. Entries are put in anew when refreshed, so the first are the oldest."""
    for name in list(cache)[: max(0, len(cache) - TOPICS_MAX)]:
        if name not in spare:
            del cache[name]


# --- internal topics


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicPlan:
    """A topic to be created."""

    name: str
    kafka_partitions: int
    config: Mapping[str, str]
    needed: bool = True
    """False: nothing but what people look at depends on it."""


def internal_topics(settings: KafkaSettings) -> list[TopicPlan]:
    """The topics that `init` creates."""
    activity = [
        TopicPlan(
            name=settings.events_topic,
            kafka_partitions=EVENTS_KAFKA_PARTITIONS,
            config={"retention.ms": str(EVENTS_RETENTION_MS), "segment.ms": "3600000"},
            needed=False,
        ),
        TopicPlan(
            name=settings.minutes_topic,
            kafka_partitions=1,
            config={"retention.ms": str(MINUTES_RETENTION_MS), "segment.ms": "86400000"},
            needed=False,
        ),
    ]
    commands = TopicPlan(
        name=settings.commands_topic,
        kafka_partitions=COMMANDS_KAFKA_PARTITIONS,
        config={
            "retention.ms": str(COMMANDS_RETENTION_MS),
            # The broker's time tells a topic that was deleted and created again from the old one
            # (`domain.command_notes`).
            "message.timestamp.type": "LogAppendTime",
            # A command of this size still fits into a record of ours with the headers of a dead letter.
            "max.message.bytes": "1000000",
        },
    )
    return [
        *([commands] if settings.commands else []),
        TopicPlan(
            name=settings.shards_topic,
            kafka_partitions=settings.shards,
            # Wake-ups are hints for the next seconds.
            config={"retention.ms": "3600000", "segment.ms": "3600000"},
        ),
        TopicPlan(
            name=settings.deliveries_topic,
            kafka_partitions=DELIVERIES_KAFKA_PARTITIONS,
            config={
                "cleanup.policy": "compact",
                "segment.bytes": str(DELIVERIES_SEGMENT_BYTES_MAX // 2),
                "segment.ms": "3600000",
                "min.cleanable.dirty.ratio": "0.1",
                "max.message.bytes": "2097152",
            },
        ),
        TopicPlan(
            name=settings.dead_letters_topic,
            kafka_partitions=DEAD_LETTER_KAFKA_PARTITIONS,
            # The limit is larger than any record of ours with the three headers of a dead letter: no dead letter must
            # be refused.
            config={"retention.ms": str(DEAD_LETTER_RETENTION_MS), "max.message.bytes": "4194304"},
        ),
        *(activity if settings.activity else []),
    ]


def safe_config(plan: TopicPlan, *, replicas: int) -> dict[str, str]:
    """The topic's settings, whatever the broker's own are. Where there are replicas enough, one of them may be lost; and one
    that was not in sync does not lead, since it would lack acknowledged records (docs/design.md, 3)."""
    safe = {
        "min.insync.replicas": str(IN_SYNC_MIN if replicas >= REPLICAS else 1),
        "unclean.leader.election.enable": "false",
        # Compression by the broker would cost each commit, and gain little: markers are few bytes, and read at a take-over.
        "compression.type": "producer",
    }
    return safe | dict(plan.config)


async def create_internal_topics(kafka: KafkaContext) -> None:
    """Creates those that are missing; leaves the others as they are. Raises: BrokerUnavailable, CannotStart."""
    await _create(kafka, internal_topics(kafka.settings))


async def create_topics(
    kafka: KafkaContext,
    names: Collection[str],
    *,
    kafka_partitions: int = 1,
    config: Mapping[str, str] | None = None,
) -> None:
    """Creates clients' topics, for a demo or a test. Raises: BrokerUnavailable, CannotStart."""
    plans = [TopicPlan(name=name, kafka_partitions=kafka_partitions, config=config or {}) for name in names]
    await _create(kafka, plans)


async def _create(kafka: KafkaContext, plans: list[TopicPlan]) -> None:
    admin = AIOKafkaAdminClient(**kafka.connection("init"))
    try:
        await admin.start()
        await _until_they_exist(admin, plans)
        await _until_they_have_leaders(admin, [plan.name for plan in plans])
    except (KafkaError, OSError, TimeoutError) as error:
        raise await kafka.unavailable("init", otherwise=f"topics could not be made: {error!r}") from error
    finally:
        await ended(admin.close())


async def _until_they_exist(admin: AIOKafkaAdminClient, plans: list[TopicPlan]) -> None:
    """Creates those that are missing. Raises: CannotStart, TimeoutError, KafkaError."""
    backoff = Backoff(RNG, LOOK_BACKOFF)
    async with asyncio.timeout(2 * CREATE_TIMEOUT_MS / 1_000):  # for the brokers, and for the topics
        while True:
            # aiokafka's requests are older than "the brokers' default", so the usual number, as far as there are brokers.
            replicas = min(REPLICAS, await _count_brokers(admin))
            topics = [
                NewTopic(p.name, p.kafka_partitions, replicas, topic_configs=safe_config(p, replicas=replicas))
                for p in plans
            ]
            answer = await admin.create_topics(topics, timeout_ms=CREATE_TIMEOUT_MS)
            failed = [each for each in answer.topic_errors if each[1] not in (codes.NONE, codes.TOPIC_EXISTS)]
            if not failed:
                return
            name, error_code, *message = failed[0]
            # A broker that was counted stands still, so the controller has just fenced it: it is counted anew.
            if error_code != codes.INVALID_REPLICATION_FACTOR:
                raise CannotStart(f"Kafka topic {name} could not be made: error code {error_code} {message}")
            await backoff.wait()


async def _count_brokers(admin: AIOKafkaAdminClient) -> int:
    """The number of brokers, at least one: waits for that. A broker answers some time before the controller counts it, after
    its own start or after it stood still."""
    backoff = Backoff(RNG, LOOK_BACKOFF)
    while True:
        # While no broker is counted, the client may have none that it could ask.
        with contextlib.suppress(NodeNotReadyError):
            if brokers := (await admin.describe_cluster())["brokers"]:
                return len(brokers)
        await backoff.wait()


async def _until_they_have_leaders(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    """Waits for the leaders, which the Kafka partitions of a topic get some time after it exists. Raises: TimeoutError."""
    backoff = Backoff(RNG, LOOK_BACKOFF)
    async with asyncio.timeout(CREATE_TIMEOUT_MS / 1_000):
        while True:
            topics = await admin.describe_topics(names)
            if all(t["error_code"] == codes.NONE and all(p["leader"] >= 0 for p in t["partitions"]) for t in topics):
                return
            await backoff.wait()
