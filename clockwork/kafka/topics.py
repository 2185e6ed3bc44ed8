"""Which topics exist, where their leaders are, how large a record they take; and the internal topics.

Layouts are kept for `metadata_max_age_ms`, the absence of a topic for a second: a client that has just created its
topic should not be told for long that it is missing. While Kafka is away a known topic stays known, so that the API
goes on accepting for it.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest

from clockwork.errors import BrokerUnavailable, CannotStart
from clockwork.kafka.client import (
    ANSWERED_S_MAX,
    INVALID_TOPIC,
    NONE,
    TOPIC_EXISTS,
    TOPIC_FORBIDDEN,
    UNKNOWN_TOPIC_OR_PARTITION,
    KafkaSettings,
    Pulse,
    Wire,
)
from clockwork.kafka.refusal import why_turned_away

log = logging.getLogger(__name__)

MISSING_AGE_S_MAX: Final = 1.0
LIMIT_AGE_S_MAX: Final = 60.0
"""A topic's size limit is changed by hand and rarely; if it shrank, the broker's refusal says so."""
REFUSING_LIMIT_AGE_S_MAX: Final = 1.0
"""Of one by which a record is refused unsent: whoever has raised it arms again what failed by it, and not a minute later."""
PING_INTERVAL_S: Final = 1.0
CREATE_TIMEOUT_MS: Final = 15_000
REPLICAS: Final = 3
IN_SYNC_MIN: Final = 2
"""Of three replicas that must have a record: one may be lost, and what was acknowledged is still there."""
DEAD_LETTER_KAFKA_PARTITIONS: Final = 8
DEAD_LETTER_RETENTION_MS: Final = 30 * 24 * 3_600 * 1_000
COMMANDS_KAFKA_PARTITIONS: Final = 16
COMMANDS_RETENTION_MS: Final = 7 * 24 * 3_600 * 1_000
"""Commands that no node has read for so long are lost."""
TOPICS_MAX: Final = 20_000
"""Names come from clients, so the cache must end somewhere; the oldest go first."""


class TopicState(StrEnum):
    """What the brokers say of a topic."""

    PRESENT = "present"
    MISSING = "missing"
    FORBIDDEN = "forbidden"
    UNSETTLED = "unsettled"
    """The brokers do not know themselves: it is being made or moved. Its rows wait a little, nobody else's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicLayout:
    """A topic as it was at `read_at_s`, loop time."""

    state: TopicState
    leaders: tuple[int, ...] = ()
    """The leader's node id by Kafka partition; -1: none at present."""
    in_sync: tuple[int, ...] = ()
    """How many replicas are in sync, by Kafka partition."""
    read_at_s: float

    @property
    def available(self) -> tuple[int, ...]:
        """The Kafka partitions that have a leader."""
        return tuple(number for number, leader in enumerate(self.leaders) if leader >= 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicLimits:
    """Those settings of a topic that decide whether it takes a record; None: the brokers do not tell us."""

    record_bytes_max: int | None = None
    in_sync_min: int | None = None


class TopicDirectory:
    """The metadata cache of a node. `run` keeps asking, so that `connected` knows even when nobody sends."""

    def __init__(self, settings: KafkaSettings, pulse: Pulse, wire: Wire) -> None:
        self._settings = settings
        self._pulse = pulse
        self._wire = wire
        self._layouts: dict[str, TopicLayout] = {}
        self._limits: dict[str, tuple[float, TopicLimits]] = {}
        self._wanted: set[str] = set()
        self._asking = asyncio.Lock()
        self._trouble: str | None = None

    @property
    def trouble(self) -> str | None:
        """Why Kafka did not answer when last asked; None if it did."""
        return self._trouble

    async def run(self) -> None:
        """Until cancelled. One line in the log when Kafka goes, one when it is back."""
        connected: bool | None = None
        while True:
            if not self._pulse.answered_within(PING_INTERVAL_S):
                try:
                    await self._wire.request(MetadataRequest([], allow_auto_topic_creation=False))
                except BrokerUnavailable as error:
                    await self._wire.reset()
                    if connected is not False:
                        log.warning("Kafka does not answer", extra={"event": "kafka.lost", "error": str(error)})
                    connected = False
                    self._trouble = str(error)
            if self._pulse.answered_within(PING_INTERVAL_S):
                self._trouble = None
            if connected is not True and self._pulse.answered_within(PING_INTERVAL_S):
                if connected is False:
                    log.info("Kafka answers again", extra={"event": "kafka.back"})
                connected = True
            await asyncio.sleep(PING_INTERVAL_S)

    def connected(self) -> bool:
        return self._pulse.answered_within(ANSWERED_S_MAX)

    async def close(self) -> None:
        await self._wire.close()

    async def layout(self, topic: str, *, since_s: float | None = None) -> TopicLayout:
        """One topic; see `layouts`."""
        return (await self.layouts([topic], since_s=since_s))[topic]

    async def layouts(self, topics: Collection[str], *, since_s: float | None = None) -> Mapping[str, TopicLayout]:
        """The topics' layouts, from the cache if young enough; with `since_s`, read at that loop time or later, and
        never an older one because Kafka is silent.

        Raises: BrokerUnavailable, if one of them is not known and Kafka does not say.
        """
        if all(self._fresh(topic, since_s) for topic in topics):
            return {topic: self._layouts[topic] for topic in topics}
        try:
            async with asyncio.timeout(self._settings.lookup_timeout_ms / 1_000):
                await self._ask(topics, since_s)
        except (BrokerUnavailable, TimeoutError) as error:
            known = {topic: self._layouts[topic] for topic in topics if self._known(topic)}
            if since_s is None and len(known) == len(set(topics)):
                return known
            raise BrokerUnavailable(f"topics are not known and Kafka does not say: {error}") from error
        return {topic: self._layouts[topic] for topic in topics}

    async def limits(self, topic: str, *, age_s_max: float = LIMIT_AGE_S_MAX) -> TopicLimits:
        """The topic's limits as they were within so many seconds. Where they are not known, a refusal will tell."""
        now_s = asyncio.get_running_loop().time()
        asked_at_s, limits = self._limits.get(topic, (None, TopicLimits()))
        if asked_at_s is not None and now_s - asked_at_s < age_s_max:
            return limits
        # Before asking: those who come meanwhile go on with the old values.
        self._limits[topic] = (now_s, limits)
        try:
            async with asyncio.timeout(self._settings.lookup_timeout_ms / 1_000):
                limits = await self._ask_limits(topic)
        except (BrokerUnavailable, TimeoutError):
            return limits
        self._limits.pop(topic, None)
        self._limits[topic] = (now_s, limits)
        _shrink(self._limits)
        return limits

    def forget_limits(self, topic: str) -> None:
        """A broker refused what they allow."""
        self._limits.pop(topic, None)

    def _fresh(self, topic: str, since_s: float | None) -> bool:
        layout = self._layouts.get(topic)
        if layout is None:
            return False
        if since_s is not None:
            return layout.read_at_s >= since_s
        age_s = asyncio.get_running_loop().time() - layout.read_at_s
        if layout.state is not TopicState.PRESENT:
            return age_s < MISSING_AGE_S_MAX
        # Known and Kafka away: no use in making everybody wait for a time-out.
        return age_s < self._settings.metadata_max_age_ms / 1_000 or not self.connected()

    def _known(self, topic: str) -> bool:
        layout = self._layouts.get(topic)
        return layout is not None and layout.state is TopicState.PRESENT

    async def _ask(self, topics: Collection[str], since_s: float | None) -> None:
        self._wanted.update(topic for topic in topics if not self._fresh(topic, since_s))
        async with self._asking:
            # Whoever had the lock before has asked for all that were wanted then, ours perhaps among them.
            if all(self._fresh(topic, since_s) for topic in topics):
                return
            self._wanted.update(topic for topic in topics if not self._fresh(topic, since_s))
            names, self._wanted = sorted(self._wanted), set()
            now_s = asyncio.get_running_loop().time()
            answer = await self._wire.request(MetadataRequest(names, allow_auto_topic_creation=False))
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
            if error_code == NONE:
                found |= {name: int(value) for name, value, *_ in entries if value is not None}
        return TopicLimits(record_bytes_max=found.get(_SIZE), in_sync_min=found.get(_IN_SYNC))


_SIZE: Final = "max.message.bytes"
_IN_SYNC: Final = "min.insync.replicas"


def _layout(error_code: int, kafka_partitions: Iterable[tuple[Any, ...]], now_s: float) -> TopicLayout:
    if error_code in (UNKNOWN_TOPIC_OR_PARTITION, INVALID_TOPIC):
        return TopicLayout(state=TopicState.MISSING, read_at_s=now_s)
    if error_code == TOPIC_FORBIDDEN:
        return TopicLayout(state=TopicState.FORBIDDEN, read_at_s=now_s)
    if error_code != NONE:
        return TopicLayout(state=TopicState.UNSETTLED, read_at_s=now_s)
    known = {number: (leader, len(in_sync)) for _error, number, leader, _replicas, in_sync, *_ in kafka_partitions}
    rows = [known.get(number, (-1, 0)) for number in range(max(known, default=-1) + 1)]
    return TopicLayout(
        state=TopicState.PRESENT,
        leaders=tuple(leader for leader, _ in rows),
        in_sync=tuple(in_sync for _, in_sync in rows),
        read_at_s=now_s,
    )


def _shrink(cache: dict[str, Any], spare: Collection[str] = ()) -> None:
    """Takes the oldest entries out. Entries are put in anew when refreshed, so the first are the oldest."""
    for name in list(cache)[: max(0, len(cache) - TOPICS_MAX)]:
        if name not in spare:
            del cache[name]


# --- internal topics


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicPlan:
    """A topic to be made."""

    name: str
    kafka_partitions: int
    config: Mapping[str, str]
    must_last: bool = True
    """What was acknowledged must survive the loss of a broker."""


def internal_topics(settings: KafkaSettings) -> list[TopicPlan]:
    """What `init` makes."""
    commands = TopicPlan(
        name=settings.commands_topic,
        kafka_partitions=COMMANDS_KAFKA_PARTITIONS,
        config={
            "retention.ms": str(COMMANDS_RETENTION_MS),
            # Tells a topic that was made anew from the old one (`domain.command_notes`).
            "message.timestamp.type": "LogAppendTime",
            # With the headers of a dead letter it still fits into a record of ours.
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
            must_last=False,
        ),
        TopicPlan(
            name=settings.deliveries_topic,
            kafka_partitions=settings.shards,
            config={
                "cleanup.policy": "compact",
                # Only closed segments are compacted, and a new owner reads from the end: both want them small.
                "segment.bytes": "4194304",
                "segment.ms": "3600000",
                "min.cleanable.dirty.ratio": "0.1",
                "max.message.bytes": "2097152",
            },
        ),
        TopicPlan(
            name=settings.dead_letters_topic,
            kafka_partitions=DEAD_LETTER_KAFKA_PARTITIONS,
            # Larger than any record of ours with the three headers of a dead letter: it must never be refused.
            config={"retention.ms": str(DEAD_LETTER_RETENTION_MS), "max.message.bytes": "4194304"},
        ),
    ]


def safe_config(plan: TopicPlan, *, replicas: int) -> dict[str, str]:
    """Its settings, whatever the broker's own are; and where there are replicas enough, that one may be lost."""
    safe = {"min.insync.replicas": str(IN_SYNC_MIN)} if plan.must_last and replicas >= REPLICAS else {}
    # A broker that compresses anew costs each commit, and gains little: markers are few bytes, and read at a take-over.
    return {"compression.type": "producer"} | safe | dict(plan.config)


async def create_internal_topics(settings: KafkaSettings) -> None:
    """Makes those that are missing; leaves the others as they are. Raises: BrokerUnavailable, CannotStart."""
    await _create(settings, internal_topics(settings))


async def create_topics(
    settings: KafkaSettings,
    names: Collection[str],
    *,
    kafka_partitions: int = 1,
    config: Mapping[str, str] | None = None,
) -> None:
    """Makes clients' topics, for a demo or a test. Raises: BrokerUnavailable, CannotStart."""
    plans = [TopicPlan(name=name, kafka_partitions=kafka_partitions, config=config or {}) for name in names]
    await _create(settings, plans)


async def _create(settings: KafkaSettings, plans: list[TopicPlan]) -> None:
    admin = AIOKafkaAdminClient(**settings.connection("init"))
    try:
        await admin.start()
        # aiokafka's requests are older than "the brokers' default", so the usual number, as far as there are brokers.
        replicas = min(REPLICAS, len((await admin.describe_cluster())["brokers"]))
        topics = [
            NewTopic(p.name, p.kafka_partitions, replicas, topic_configs=safe_config(p, replicas=replicas))
            for p in plans
        ]
        answer = await admin.create_topics(topics, timeout_ms=CREATE_TIMEOUT_MS)
        for name, error_code, *message in answer.topic_errors:
            if error_code not in (NONE, TOPIC_EXISTS):
                raise CannotStart(f"Kafka topic {name} could not be made: error code {error_code} {message}")
        await _until_they_have_leaders(admin, [topic.name for topic in topics])
    except (KafkaError, OSError, TimeoutError) as error:
        why = await why_turned_away(settings.connection("init"))
        raise BrokerUnavailable(why or f"topics could not be made: {error!r}") from error
    finally:
        await admin.close()


async def _until_they_have_leaders(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    """A topic exists some time before its Kafka partitions have leaders."""
    async with asyncio.timeout(CREATE_TIMEOUT_MS / 1_000):
        while True:
            topics = await admin.describe_topics(names)
            if all(t["error_code"] == NONE and all(p["leader"] >= 0 for p in t["partitions"]) for t in topics):
                return
            await asyncio.sleep(0.05)
