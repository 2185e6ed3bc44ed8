"""Delivery of records to Kafka, in transactions and outside of them.

A refusal is not repeated from memory: before a record goes to a topic whose last record was refused, the adapter
reads again whatever the refusal was judged by (layout, limits, in-sync replicas). The caller's back-off decides how
often, so a topic that was put right goes on within one back-off.
"""

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
        """Sends all records and then the marker in one transaction, in order within each Kafka partition, and commits.
        `marker` is called with the receipts of the records, in their order; the receipts are returned too.

        Raises: DeliveryRefused (if `begun`, only `close` may follow, and no record of the transaction is visible once
        the shard is opened again), DeliveryUnknown and Fenced (only `close` may follow), BrokerUnavailable (no
        transaction was begun).
        """
        ...

    async def close(self) -> None:
        """Closes the producer. Neither commits nor aborts; may be called twice."""
        ...


class Publisher(Protocol):
    """Producers of records: one in transactions for each shard, one plain for all."""

    async def open_shard(self, shard: ShardId) -> ShardPublisher:
        """Initialises the shard's transactional producer, which fences the previous one. Raises: BrokerUnavailable."""
        ...

    async def send(self, record: OutRecord) -> Receipt:
        """Sends one record outside any transaction and waits for its acknowledgement by all in-sync replicas.

        Raises: DeliveryRefused (`begun` is False), BrokerUnavailable (the record may have been written).
        """
        ...

    async def topic_exists(self, topic: str) -> bool:
        """True if the topic exists and may be written. The answer about a missing topic is at most a few seconds old.

        Raises: BrokerUnavailable if the topic is unknown and Kafka does not answer.
        """
        ...

    def connected(self) -> bool:
        """True if Kafka answered recently."""
        ...
