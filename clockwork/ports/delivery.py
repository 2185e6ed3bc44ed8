"""Delivery of records to Kafka, in transactions and outside of them.

A refusal is not repeated from memory: before a record goes to a topic whose last record was refused, the adapter
reads again whatever the refusal was judged by (layout, limits, in-sync replicas). The caller's back-off decides how
often, so a topic that was put right goes on within one back-off.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from clockwork.domain.marker import MarkerEntry
from clockwork.domain.ownership import IncarnationId
from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import Receipt


@dataclass(frozen=True, slots=True)
class SlotName:
    """One slot of an incarnation: one transactional id, `<cluster>-<incarnation>-<slot>`, and one marker key."""

    incarnation: IncarnationId
    slot: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """A transaction whose commit is certain."""

    receipts: Sequence[Receipt]
    """The receipts of the records, in their order."""
    marker_offset: int
    """The offset of its marker: a hint for the slot's next reader."""
    sends_ms: Mapping[str, int]
    """By topic, the time from the first request with its records to the last acknowledgement of one."""
    marker_ms: int
    """The same for the marker."""
    settled: bool
    """False if a try to begin or to commit the transaction went unanswered: a late copy of it could begin, or commit a
    part of, the slot's next transaction. So `init` must come first."""


class SlotProducer(Protocol):
    """The transactional producer of one slot: one transaction at a time."""

    async def init(self) -> None:
        """InitProducerId, repeated until this call itself succeeds: fences every producer of this id before it, and settles
        their transaction, one way or the other. The first call comes before the first `deliver`.

        Raises: BrokerUnavailable (not done within the time limit; may be called again).
        """
        ...

    async def deliver(
        self, records: Sequence[OutRecord], marker: Callable[[Sequence[Receipt]], bytes], *, sends_ms: int
    ) -> Committed:
        """Sends all records and then the marker in one transaction, in order within each Kafka partition, and commits.
        `marker` is called with the receipts of the records, in their order. `sends_ms`: time for everything before the
        commit; below the broker's own limit for a transaction. One that needs `init` first raises DeliveryAborted, and sends
        nothing.

        Raises, if only `init` or `close` may follow:
            DeliveryRefused with `begun` (refused, or out of time, before the commit was asked for: the refusals of topics
            without an answer are TRANSIENT, `timed_out`), DeliveryAborted (the same, and no topic or record is known to be
            the cause), DeliveryUnknown (the commit was asked for, and no answer to it can be believed), Fenced (the id has
            a newer producer, or the broker aborted by its time limit).
        Raises, if nothing was begun: DeliveryRefused without `begun`, BrokerUnavailable.
        """
        ...

    async def close(self) -> None:
        """Drops the connections. Neither commits nor aborts; may be called twice."""
        ...


class Publisher(Protocol):
    """Producers of records: transactional ones for the slots of this process's incarnations, and a plain one."""

    def open_slot(self, name: SlotName) -> SlotProducer:
        """A producer that has not been initialised. Returns at once."""
        ...

    async def settle(self, incarnation: IncarnationId, *, slots: int) -> None:
        """Initialises each of another incarnation's transactional ids, of slots 0 to `slots - 1`, each repeated until its
        own call succeeds: fences their producers, and settles their transactions.

        Raises: BrokerUnavailable.
        """
        ...

    async def read_markers(
        self, reader: IncarnationId, slots: Mapping[SlotName, int | None]
    ) -> Mapping[SlotName, tuple[MarkerEntry, ...]]:
        """Reads the last committed marker of each slot, by way of a barrier record with the key `<reader>/barrier`; empty
        for a slot without one. `slots` gives each slot's hint. Only after the init of these slots' ids.

        Raises: Unreadable, NewerFormat, BrokerUnavailable.
        """
        ...

    async def forget_markers(self, incarnation: IncarnationId, *, slots: int) -> None:
        """Sends tombstones for the markers of an incarnation that owns nothing. Raises: BrokerUnavailable."""
        ...

    async def send(self, record: OutRecord) -> Receipt:
        """Sends one record outside any transaction and waits for its acknowledgement by all in-sync replicas. A topic whose
        leader is known to be away, or that has too few replicas, is refused unsent.

        Raises: DeliveryRefused (`begun` is False), BrokerUnavailable (the record may have been written).
        """
        ...

    async def topic_exists(self, topic: str) -> bool:
        """True if the topic exists and may be written. The answer about a missing topic is at most a few seconds old.

        Raises: BrokerUnavailable if the topic is unknown and Kafka does not answer.
        """
        ...

    async def topic_missing(self, topic: str) -> bool:
        """True if metadata that is asked for now, uncached, says that the topic is missing or forbidden.

        Raises: BrokerUnavailable (unknown at present).
        """
        ...

    def connected(self) -> bool:
        """True if Kafka answered recently."""
        ...
