"""Uses of aiokafka's internals: every private attribute, and the one class that is replaced, with a test for each.

aiokafka is pinned to one minor version (`pyproject.toml`) because of this module. A new version is taken when
`tests/unit/test_kafka_internals.py` passes on it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Iterable
from typing import Any, Final

import aiokafka.admin.client
import aiokafka.client
from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import CommitFailedError
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import OffsetAndMetadata, TopicPartition

CLOSE_S_MAX: Final = 1.0
"""Longest wait for an orderly end of a connection; then it is dropped."""
TASKS_END_S_MAX: Final = 3.0
"""Longest wait for the tasks of an abandoned consumer, which have been cancelled."""


class TopicLookup(MetadataRequest):  # type: ignore[misc]  # aiokafka has no types
    """A metadata request that creates nothing. aiokafka's own lets a broker that has `auto.create.topics.enable`, Kafka's
    default, create each topic that it names: with one Kafka partition, and not compacted."""

    def __init__(self, topics: list[str] | None = None, allow_auto_topic_creation: bool | None = None) -> None:
        """`topics`: their names; None means all topics. The second argument is aiokafka's, and has no effect."""
        super().__init__(topics, False)


# Replaces aiokafka's class for every client, consumer and admin client of the process. Rejected: a look-up of each
# topic before a client is told its name. The client repeats its requests for as long as it lives, and a topic can be
# deleted meanwhile.
for _module in (aiokafka.client, aiokafka.admin.client):
    _module.MetadataRequest = TopicLookup


async def ended(ending: Awaitable[None]) -> None:
    """Awaits a `close` or `stop` of aiokafka's. If its caller is cancelled meanwhile, that is raised in the end.

    They cancel a task of their own and await it with `CancelledError` suppressed, and so lose a cancellation that is meant
    for the caller. A node that was told to stop while it closed the connection of a check at its start went on for good,
    without HTTP: its task was cancelled, and never heard of it.
    """
    caller = asyncio.current_task()
    assert caller is not None
    before = caller.cancelling()
    await ending
    if caller.cancelling() > before:
        raise asyncio.CancelledError


async def close_client(client: AIOKafkaClient) -> None:
    """Closes a client in an orderly way if the brokers take part within `CLOSE_S_MAX`, else drops its connections."""
    transports = list(_transports_of(client._conns.values()))
    try:
        async with asyncio.timeout(CLOSE_S_MAX):
            await ended(client.close())
    except TimeoutError:
        # An orderly end first writes out the buffer, and the other side does not read.
        for transport in transports:
            transport.abort()


def _transports_of(connections: Iterable[Any]) -> Iterable[asyncio.WriteTransport]:
    for connection in connections:
        with contextlib.suppress(AttributeError):  # closed already: it has no writer any more
            yield connection._writer.transport


async def committed_offset(consumer: AIOKafkaConsumer, where: TopicPartition) -> OffsetAndMetadata | None:
    """The group's committed offset with its metadata, which `AIOKafkaConsumer.committed` leaves out; None if there is none.

    Raises: KafkaError.
    """
    found = (await consumer._coordinator.fetch_committed_offsets([where])).get(where)
    return None if found is None or found.offset < 0 else found


def membership_of(consumer: AIOKafkaConsumer) -> tuple[int, str]:
    """The consumer's generation of its group, and its member id; -1 and an empty id once the coordinator has told it
    that they are over. While an assignment is reported, they are those of that assignment."""
    return consumer._coordinator.generation, consumer._coordinator.member_id


async def commit_once(
    consumer: AIOKafkaConsumer, membership: tuple[int, str], where: TopicPartition, offset: OffsetAndMetadata
) -> None:
    """Sends one request to commit an offset, as the member and in the generation of `membership` (see `membership_of`).

    `AIOKafkaConsumer.commit` repeats a request that failed, and names the generation that the consumer is in by then. Kafka
    looks at nothing else, not even at the assignment. So an offset of an earlier assignment, repeated after a rebalance,
    would be taken, and would undo what another member has committed since.

    Raises: CommitFailedError (the membership is over), KafkaError.
    """
    coordinator = consumer._coordinator
    await coordinator.ensure_coordinator_known()
    if membership_of(consumer) != membership:
        raise CommitFailedError
    # This builds the request, with the generation, before it waits for anything.
    await coordinator._do_commit_offsets(None, {where: offset})


def join_again(consumer: AIOKafkaConsumer) -> None:
    """Makes the consumer join its group again, with new data of its subscription. It keeps its assignment meanwhile."""
    consumer._coordinator.request_rejoin()


def forgive_coordination(consumer: AIOKafkaConsumer) -> None:
    """Takes note of the error that ended the consumer's coordination, if one did. Its owner has it from a poll; `stop` does
    not look at a task that has ended, and asyncio would log the error as a defect when the task is collected."""
    task = getattr(consumer._coordinator, "_coordination_task", None)
    if task is not None and task.done() and not task.cancelled():
        task.exception()


async def abandon_consumer(consumer: AIOKafkaConsumer) -> None:
    """Ends a consumer that `stop` could not end because Kafka does not answer: its tasks and connections."""
    names = ("_coordination_task", "_heartbeat_task", "_commit_refresh_task")
    tasks = [task for name in names if (task := getattr(consumer._coordinator, name, None)) is not None]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=TASKS_END_S_MAX)
    if consumer._fetcher is not None:
        await ended(consumer._fetcher.close())
    await close_client(consumer._client)
