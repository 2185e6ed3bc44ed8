"""Kafka's clients: the settings and time limits that all adapters share, and the connections of each role, opened lazily.

Why requests of our own and not `AIOKafkaProducer`. Its sender runs in the background and retries for ever, which is
right for most and wrong here: a record refused inside a transaction does not fail the commit; an abort waits for sends
that may never end; `stop()` waits for a coordinator that may never come back; after one refused record its sequence
numbers have a gap and the next record kills the producer; a failed batch does not say which record was at fault; and a
transaction behind another waits 20 ms. Each could be worked around from outside, by reaching into private state. A
transaction is four requests, and asked for here one by one, in the caller's own task: a cancelled call leaves nothing
running, every deadline is ours, and each answer is known exactly, by topic and by record. Connections,
authentication, versions, the wire format and record batches are aiokafka's (`AIOKafkaClient`, `aiokafka.protocol`,
`aiokafka.record`); the consumer group is its consumer.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import KafkaError
from aiokafka.protocol.coordination import FindCoordinatorRequest

from clockwork.errors import BrokerUnavailable
from clockwork.kafka import codes
from clockwork.kafka.aiokafka_internals import close_client
from clockwork.kafka.security import KafkaSecurity, authentication_problem
from clockwork.settings.model import KafkaSettings

T = TypeVar("T")

ANSWERED_S_MAX: Final = 5.0
"""Kafka counts as connected if it answered anything within this time."""
ASK_ANOTHER_S: Final = 0.5
"""Time after which a request that any broker can answer is sent once more, mostly to another broker, while the first
one goes on waiting. Each send relies on metadata of the last second, and each transaction on its coordinator, so one
broker that stands still would hold up the topics of all others."""
RNG: Final = random.SystemRandom()
"""For the jitter of back-offs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KafkaTimeouts:
    """Time limits of the adapters, in milliseconds. No settings: they depend on each other. Tests choose others."""

    rebalance_ms: int = 10_000
    """For all members to join again. It is the session timeout unless set, and must not be coupled to it: our revoke
    callback only records a fact, so joining again takes one heartbeat."""
    transaction_ms: int = 10_000
    """For a transaction; then the broker aborts it. Until then it hides later records from its topics' readers. Its sends
    have a lower limit, so that a slow batch is halved by us and not taken for another incarnation's fencing."""
    sends_ms: int = 6_000
    """For a record outside of transactions, until its acknowledgement."""
    commit_ms: int = 8_000
    """For the answer to a commit, which is requested again and again. May exceed the broker's limit: a request after
    that does no harm."""
    init_ms: int = 15_000
    """For an init, which waits while the coordinator settles the id's transaction; and for the reading of markers, which
    waits for the transactions of others: above `transaction_ms`."""
    request_ms: int = 3_000
    """For one request. A connection that misses it is closed and made anew; idempotence makes the repeat harmless."""
    lookup_ms: int = 2_500
    """For a topic's lookup, during which an HTTP client waits."""
    metadata_max_age_ms: int = 30_000
    """The age up to which a known topic's layout is believed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KafkaContext:
    """One Kafka, as every adapter gets it."""

    settings: KafkaSettings = field(default_factory=KafkaSettings)
    security: KafkaSecurity = field(default_factory=KafkaSecurity)
    timeouts: KafkaTimeouts = field(default_factory=KafkaTimeouts)

    def connection(self, role: str) -> dict[str, Any]:
        """The arguments that every aiokafka class takes. `role` tells the connections of a node apart in broker logs."""
        return {
            "bootstrap_servers": list(self.settings.brokers),
            "client_id": _client_id(role),
            "request_timeout_ms": self.timeouts.request_ms,
            "metadata_max_age_ms": self.timeouts.metadata_max_age_ms,
            **self.security.arguments(),
        }

    async def unavailable(self, role: str, otherwise: str) -> BrokerUnavailable:
        """The error for brokers that could not be reached. Its message names the settings that the brokers refuse; else
        it is `otherwise`."""
        refused = await authentication_problem(
            self.security,
            brokers=self.settings.brokers,
            client_id=_client_id(role),
            request_timeout_ms=self.timeouts.request_ms,
        )
        return BrokerUnavailable(refused or otherwise)


def _client_id(role: str) -> str:
    return f"clockwork-{role}"


class LastAnswer:
    """The loop time at which Kafka last answered anything to this node."""

    def __init__(self) -> None:
        self._answered_at_s: float | None = None

    def record(self) -> None:
        self._answered_at_s = asyncio.get_running_loop().time()

    def within(self, seconds: float) -> bool:
        """True if there was an answer in so many seconds up to now."""
        if self._answered_at_s is None:
            return False
        return asyncio.get_running_loop().time() - self._answered_at_s <= seconds


class Wire(Protocol):
    """The connections of one role, as the parts that send requests need them."""

    async def request(self, request: Any, *, node_id: int | None = None, coordinator: bool = False) -> Any:
        """Sends one request and returns its answer; to any broker, if `node_id` is None.

        Raises: BrokerUnavailable (it may have been carried out all the same).
        """
        ...

    async def find_coordinator(self, transactional_id: str) -> int | None:
        """The broker that coordinates this id's transactions; None while there is none. Raises: BrokerUnavailable."""
        ...

    async def reset(self) -> None:
        """Drops the connections and the metadata: the next request starts from the settings' brokers.
        aiokafka itself only ever asks brokers that it knows, and these may all have moved."""
        ...

    async def close(self) -> None:
        """Closes within a bounded time; may be called in any state and twice."""
        ...


async def first_answer(ask: Callable[[], Awaitable[T]]) -> T:
    """The first answer of `ask`, which is called once more each time that `ASK_ANOTHER_S` have passed without an
    answer. An error counts as an answer. Raises: BrokerUnavailable."""

    async def one() -> T | BrokerUnavailable:
        try:
            return await ask()
        except BrokerUnavailable as error:
            return error  # if it were raised here, the group would end the others before they are cancelled

    async with asyncio.TaskGroup() as group:
        asked: list[asyncio.Task[T | BrokerUnavailable]] = []
        try:
            while not any(task.done() for task in asked):
                asked.append(group.create_task(one(), name="ask a broker"))
                await asyncio.wait(asked, timeout=ASK_ANOTHER_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in asked:
                task.cancel()
    answer = next(task.result() for task in asked if not task.cancelled())
    if isinstance(answer, BrokerUnavailable):
        raise answer
    return answer


class KafkaWire:
    """Connections of one role: opened at the first request, and again at the first one after `reset`.

    One to each broker, and one more to a transaction coordinator. Not shared between shards: a broker answers the
    requests of one connection strictly one after the other, so a produce that waits for replicas would make every
    request behind it wait too.
    """

    def __init__(self, kafka: KafkaContext, last_answer: LastAnswer, *, role: str) -> None:
        self._kafka = kafka
        self._last_answer = last_answer
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
        self._last_answer.record()
        return answer

    async def find_coordinator(self, transactional_id: str) -> int | None:
        request = FindCoordinatorRequest(transactional_id, CoordinationType.TRANSACTION)
        answer = await first_answer(lambda: self.request(request))
        if answer.error_code == codes.NONE:
            return int(answer.coordinator_id)
        if answer.error_code in codes.COORDINATOR_AWAY:
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
                if self._is_closed():  # closed while it was being opened
                    await close_client(client)
                    raise BrokerUnavailable(f"{self._role}: closed")
                self._client = client
            return self._client

    async def _open(self) -> AIOKafkaClient:
        client = AIOKafkaClient(**self._kafka.connection(self._role))
        # Without a list, its periodic refresh would ask for every topic of the Kafka cluster.
        client.set_topics([self._kafka.settings.deliveries_topic])
        try:
            await client.bootstrap()
        except (KafkaError, OSError, TimeoutError) as error:
            await close_client(client)
            brokers = ",".join(self._kafka.settings.brokers)
            raise await self._kafka.unavailable(
                self._role, otherwise=f"no broker of {brokers} answers: {error!r}"
            ) from error
        except BaseException:
            await close_client(client)
            raise
        self._last_answer.record()
        return client
