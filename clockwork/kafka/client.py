"""Talking to Kafka: settings, one lazily opened set of connections, and what its errors mean.

Why requests of our own and not `AIOKafkaProducer`. Its sender runs in the background and retries for ever, which is
right for most and wrong here: a record refused inside a transaction does not fail the commit; an abort waits for sends
that may never end; `stop()` waits for a coordinator that may never come back; after one refused record its sequence
numbers have a gap and the next record kills the producer; a failed batch does not say which record was at fault; and a
transaction behind another waits 20 ms. Each could be worked around from outside, by reaching into private state. A
transaction is four requests, and asked for here one by one, in the caller's own task: a cancelled call leaves nothing
running, every deadline is ours, and what a broker said about which topic and which record is known exactly. Connections,
authentication, versions, the wire format and record batches are aiokafka's (`AIOKafkaClient`, `aiokafka.protocol`,
`aiokafka.record`); the consumer group is its consumer.

aiokafka's clients ask for metadata in a way that lets a broker create the topics they name (if it is set to). So they
are only ever given the names of internal topics; clients' topics are looked up in `kafka.topics`, which forbids it.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from aiokafka.abc import AbstractTokenProvider
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import KafkaError
from aiokafka.protocol.coordination import FindCoordinatorRequest

from clockwork.domain.sharding import ShardId
from clockwork.errors import BrokerUnavailable
from clockwork.kafka.refusal import why_turned_away

CLOSE_S_MAX: Final = 1.0
"""How long closing waits for the other side; then the connections are dropped."""
ANSWERED_S_MAX: Final = 5.0
"""Kafka counts as connected if it answered anything within this time."""

NONE: Final = 0
CORRUPT_MESSAGE: Final = 2
UNKNOWN_TOPIC_OR_PARTITION: Final = 3
LEADER_NOT_AVAILABLE: Final = 5
NOT_LEADER: Final = 6
REQUEST_TIMED_OUT: Final = 7
REPLICA_NOT_AVAILABLE: Final = 9
MESSAGE_TOO_LARGE: Final = 10
COORDINATOR_LOADING: Final = 14
COORDINATOR_NOT_AVAILABLE: Final = 15
NOT_COORDINATOR: Final = 16
INVALID_TOPIC: Final = 17
RECORD_LIST_TOO_LARGE: Final = 18
NOT_ENOUGH_REPLICAS: Final = 19
NOT_ENOUGH_REPLICAS_AFTER_APPEND: Final = 20
TOPIC_FORBIDDEN: Final = 29
INVALID_TIMESTAMP: Final = 32
TOPIC_EXISTS: Final = 36
UNSUPPORTED_FOR_MESSAGE_FORMAT: Final = 43
POLICY_VIOLATION: Final = 44
INVALID_PRODUCER_EPOCH: Final = 47
CONCURRENT_TRANSACTIONS: Final = 51
OPERATION_NOT_ATTEMPTED: Final = 55
STORAGE_ERROR: Final = 56
FENCED_LEADER_EPOCH: Final = 74
UNKNOWN_LEADER_EPOCH: Final = 75
OFFSET_NOT_AVAILABLE: Final = 78
INVALID_RECORD: Final = 87
PRODUCER_FENCED: Final = 90
"""Kafka's error codes (kafka.apache.org, "Error codes"). aiokafka's classes end at 79, so numbers it is."""

FENCED_CODES: Final = frozenset({INVALID_PRODUCER_EPOCH, PRODUCER_FENCED})
COORDINATOR_CODES: Final = frozenset({COORDINATOR_LOADING, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR})


@dataclass(frozen=True, kw_only=True, slots=True)
class KafkaSecurity:
    """How to prove who we are. Secrets are left out of its text form, so that no log line shows them."""

    protocol: str = "PLAINTEXT"
    """`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`."""
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    sasl_mechanism: str = "PLAIN"
    """`PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`, `OAUTHBEARER`."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token_provider: AbstractTokenProvider | None = field(default=None, repr=False)
    """Of `OAUTHBEARER`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KafkaSettings:
    """What the Kafka adapters need to know, with the reason for each number."""

    brokers: str
    """`host:port`, several separated by commas."""
    cluster: str
    """Prefix of internal topics and transactional ids, so that two clusters can share a Kafka."""
    shards: int
    consumer_group: str
    commands: bool = False
    """Whether there is a commands topic."""
    client_dead_letters: tuple[str, ...] = ()
    """Clients' own topics of dead letters."""
    client_id: str = "clockwork"
    instance_id: str | None = None
    """Static membership: a node that comes back under the same name within the session keeps its shards."""
    session_timeout_ms: int = 10_000
    """After which a silent node loses its shards."""
    heartbeat_interval_ms: int = 500
    """Also how soon a node hears of a rebalance; a heartbeat costs the group's coordinator next to nothing."""
    rebalance_timeout_ms: int = 10_000
    """How long the others wait for a node to join again. It is the session timeout unless set, and must not be
    coupled to it: our revoke callback only records a fact, so joining again takes one heartbeat."""
    transaction_timeout_ms: int = 10_000
    """When the broker aborts a transaction by itself: until then it hides later records from its topics' readers."""
    sends_timeout_ms: int = 6_000
    """From the begin of a transaction to the last acknowledgement; below the broker's own limit, so that a slow
    batch is halved by us and not taken for another owner's fencing."""
    commit_timeout_ms: int = 8_000
    """How long to ask for the answer of a commit. May go past the broker's limit: asking does no harm then."""
    init_timeout_ms: int = 15_000
    """A take-over waits while the coordinator settles the old owner's transaction."""
    request_timeout_ms: int = 3_000
    """One request. A connection that misses it is closed and made anew; idempotence makes the repeat harmless."""
    lookup_timeout_ms: int = 2_500
    """Whether a topic exists is asked while an HTTP client waits."""
    metadata_max_age_ms: int = 30_000
    """How long a known topic's layout is believed."""
    record_bytes_max: int = 1_048_576
    """A larger record is refused before it is sent, whatever its topic would allow."""
    security: KafkaSecurity = field(default_factory=KafkaSecurity)

    def __post_init__(self) -> None:
        if not 0 < self.sends_timeout_ms < self.transaction_timeout_ms:
            raise ValueError("sends_timeout_ms must be above 0 and below transaction_timeout_ms")
        if self.shards < 1:
            raise ValueError("shards must be at least 1")

    @property
    def shards_topic(self) -> str:
        """The ownership topic: one Kafka partition per shard; its records are wake-ups."""
        return f"{self.cluster}-shards"

    @property
    def deliveries_topic(self) -> str:
        """The markers: one Kafka partition per shard, compacted."""
        return f"{self.cluster}-deliveries"

    @property
    def dead_letters_topic(self) -> str:
        return f"{self.cluster}-dead-letters"

    @property
    def commands_topic(self) -> str:
        """The second way in; only with `commands`."""
        return f"{self.cluster}-commands"

    @property
    def commands_group(self) -> str:
        return f"{self.consumer_group}-commands"

    def transactional_id(self, shard: ShardId) -> str:
        """Fixed per shard, so that a new owner's init fences the old one at the broker."""
        return f"{self.cluster}-shard-{shard}"

    def connection(self, role: str) -> dict[str, Any]:
        """The arguments that every aiokafka object takes. `role` tells the connections of a node apart in broker logs."""
        security = self.security
        return {
            "bootstrap_servers": [broker.strip() for broker in self.brokers.split(",")],
            "client_id": f"{self.client_id}-{role}",
            "request_timeout_ms": self.request_timeout_ms,
            "metadata_max_age_ms": self.metadata_max_age_ms,
            "security_protocol": security.protocol,
            "ssl_context": security.ssl_context,
            "sasl_mechanism": security.sasl_mechanism,
            "sasl_plain_username": security.username,
            "sasl_plain_password": security.password,
            "sasl_oauth_token_provider": security.token_provider,
        }


class Pulse:
    """When Kafka last answered anything to this node; loop time."""

    def __init__(self) -> None:
        self._answered_at_s: float | None = None

    def beat(self) -> None:
        self._answered_at_s = asyncio.get_running_loop().time()

    def answered_within(self, seconds: float) -> bool:
        if self._answered_at_s is None:
            return False
        return asyncio.get_running_loop().time() - self._answered_at_s <= seconds


class Wire(Protocol):
    """What the parts below need of the connections of one role."""

    async def request(self, request: Any, *, node_id: int | None = None, coordinator: bool = False) -> Any:
        """Sends one request and returns its answer; to any broker, if `node_id` is None.

        Raises: BrokerUnavailable (it may have been carried out all the same).
        """
        ...

    async def find_coordinator(self, transactional_id: str) -> int | None:
        """The broker that coordinates this id's transactions; None while there is none. Raises: BrokerUnavailable."""
        ...

    async def reset(self) -> None:
        """Drops the connections and what is known of the cluster: the next request starts from the settings' brokers.
        aiokafka itself only ever asks brokers that it knows, and these may all have moved."""
        ...

    async def close(self) -> None:
        """Bounded; may be called in any state and twice."""
        ...


class KafkaWire:
    """Connections of one role: opened at the first request, and again at the first one after `reset`.

    One to each broker, and one more to a transaction coordinator. Not shared between shards: a broker answers the
    requests of one connection strictly one after the other, so a produce that waits for replicas would make
    everybody behind it wait too.
    """

    def __init__(self, settings: KafkaSettings, pulse: Pulse, *, role: str) -> None:
        self._settings = settings
        self._pulse = pulse
        self._role = role
        self._client: AIOKafkaClient | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    async def request(self, request: Any, *, node_id: int | None = None, coordinator: bool = False) -> Any:
        client = await self._opened()
        if node_id is None:
            node_id = client.get_random_node()
        group = ConnectionGroup.COORDINATION if coordinator else ConnectionGroup.DEFAULT
        try:
            answer = await client.send(node_id, request, group=group)
        # KeyError: aiokafka looks up a connection that another request has just found dead.
        except (KafkaError, OSError, TimeoutError, KeyError) as error:
            raise BrokerUnavailable(f"{type(request).__name__}: {error!r}") from error
        self._pulse.beat()
        return answer

    async def find_coordinator(self, transactional_id: str) -> int | None:
        request = FindCoordinatorRequest(transactional_id, CoordinationType.TRANSACTION)
        answer = await self.request(request)
        if answer.error_code == NONE:
            return int(answer.coordinator_id)
        if answer.error_code in COORDINATOR_CODES:
            return None
        raise BrokerUnavailable(f"no coordinator for {transactional_id}: error code {answer.error_code}")

    async def reset(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await close_client(client)

    async def close(self) -> None:
        self._closed = True
        await self.reset()

    def _is_closed(self) -> bool:
        return self._closed

    async def _opened(self) -> AIOKafkaClient:
        if self._client is not None:
            return self._client
        async with self._opening:
            if self._closed:
                raise BrokerUnavailable(f"{self._role}: closed")
            if self._client is None:
                client = await self._open()
                if self._is_closed():  # while it was being opened
                    await close_client(client)
                    raise BrokerUnavailable(f"{self._role}: closed")
                self._client = client
            return self._client

    async def _open(self) -> AIOKafkaClient:
        client = AIOKafkaClient(**self._settings.connection(self._role))
        # Without a list, its periodic refresh would ask for every topic of the Kafka cluster.
        client.set_topics([self._settings.deliveries_topic])
        try:
            await client.bootstrap()
        except (KafkaError, OSError, TimeoutError) as error:
            await close_client(client)
            why = await why_turned_away(self._settings.connection(self._role))
            raise BrokerUnavailable(why or f"no broker of {self._settings.brokers} answers: {error!r}") from error
        except BaseException:
            await close_client(client)
            raise
        self._pulse.beat()
        return client


async def close_client(client: AIOKafkaClient) -> None:
    """Closes it in an orderly way if the other side takes part, else by force."""
    transports = list(_transports_of(client._conns.values()))
    try:
        async with asyncio.timeout(CLOSE_S_MAX):
            await client.close()
    except TimeoutError:
        # An orderly end first writes out what is buffered, and the other side does not read.
        for transport in transports:
            transport.abort()


def _transports_of(connections: Iterable[Any]) -> Iterable[asyncio.WriteTransport]:
    for connection in connections:
        with contextlib.suppress(AttributeError):  # closed already: it has no writer any more
            yield connection._writer.transport
