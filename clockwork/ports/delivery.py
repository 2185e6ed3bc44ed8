"""Delivery: the producers of Kafka records."""

from collections.abc import Callable, Sequence
from typing import Protocol

from clockwork.domain.marker import MarkerEntry
from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import Receipt
from clockwork.domain.sharding import ShardId


class ShardPublisher(Protocol):
    """The transactional producer of one shard, from one init until it is fenced, refused, or closed.

    Its init has fenced every earlier one with the shard's transactional id and settled its transaction.
    """

    async def read_marker(self) -> tuple[MarkerEntry, ...]:
        """The last committed marker of the shard; empty if there is none. Raises: Unreadable, BrokerUnavailable."""
        ...

    async def deliver(
        self, records: Sequence[OutRecord], marker: Callable[[Sequence[Receipt]], bytes]
    ) -> Sequence[Receipt]:
        """Sends all records and then the marker in one transaction, in order within each Kafka partition; commits.
        `marker` is called with where the records are, in their order.

        Raises: DeliveryRefused (if `begun`, only `close` may be called then, and it is certain that none of it will be
        seen once the shard is opened anew), DeliveryUnknown and Fenced (only `close` may be called), BrokerUnavailable
        (nothing was begun).
        """
        ...

    async def close(self) -> None:
        """Closes the producer. Neither commits nor aborts; may be called twice."""
        ...


class Publisher(Protocol):
    """The producers of one node: a transactional one for each shard, and one without transactions."""

    async def open_shard(self, shard: ShardId) -> ShardPublisher:
        """Inits the shard's transactional producer, fencing the one before. Raises: BrokerUnavailable."""
        ...

    async def send(self, record: OutRecord) -> Receipt:
        """Sends one record outside any transaction and waits for its acknowledgement by all in-sync replicas.

        Raises: DeliveryRefused (`begun` is False), BrokerUnavailable (it may have been written all the same).
        """
        ...

    async def topic_exists(self, topic: str) -> bool:
        """True if records could be sent there, by metadata younger than a few seconds for a missing topic.

        Raises: BrokerUnavailable if it is not known and Kafka does not say.
        """
        ...

    def connected(self) -> bool:
        """True if Kafka answered lately."""
        ...
