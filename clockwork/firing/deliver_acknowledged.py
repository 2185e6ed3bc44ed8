"""Delivery of at_least_once by single acknowledged sends: lanes side by side, and within a lane a record only after the one
before it was acknowledged.

Each lane goes on by itself. The pass that handed it over does not wait for it, and a lane that is refused, or gets no
acknowledgement in time, stops alone: it cancels no other send, since a record that the broker has taken already would be
sent again. Its rows leave flight, and the next passes read them anew.

Inherent: a send that was not answered when its incarnation ended, or in time, may be sent twice.
"""

import asyncio
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from clockwork.domain.planning import PlannedDelivery
from clockwork.domain.position import Position
from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import Lane, Receipt
from clockwork.errors import BrokerUnavailable, DeliveryRefused, Refusal, RefusalCause
from clockwork.firing.lease import ShardLease
from clockwork.firing.settlement import Settlement, completed
from clockwork.ports.delivery import Publisher

SENDS_AT_ONCE: Final = 128
"""Sends to one topic that wait for their acknowledgements side by side. There is no bound over all topics: when a broker
stands still, the sends to its topics would fill it, and hold up the topics of all other brokers until they are out of
time. The rows in flight of each shard are bounded by its passes."""
LAST_ANSWERS_S: Final = 0.5
"""Time that a cancelled `run` leaves for the answers of sends that are on their way: an acknowledgement that arrives is a
record that is not sent again."""


@dataclass(frozen=True, slots=True)
class _LaneRows:
    """Rows of one lane, in order."""

    lease: ShardLease
    rows: Sequence[PlannedDelivery]


class AcknowledgedDelivery:
    """Delivers the at_least_once rows of one incarnation."""

    def __init__(self, publisher: Publisher, settlement: Settlement) -> None:
        self._publisher = publisher
        self._settlement = settlement
        self._handed_over: list[_LaneRows] = []
        self._work = asyncio.Event()
        self._ending = False
        self._sends: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def enqueue(self, lease: ShardLease, deliveries: Sequence[PlannedDelivery]) -> None:
        """Marks the rows as in flight and returns at once; no lane of theirs may have rows in flight already."""
        lanes: dict[Lane | None, list[PlannedDelivery]] = {}
        for planned in deliveries:
            lease.in_flight.add(planned.row.position, planned.lane, planned.size_bytes)
            lanes.setdefault(planned.lane, []).append(planned)
        self._handed_over += (_LaneRows(lease, rows) for rows in lanes.values())
        self._work.set()

    async def run(self) -> None:
        """Delivers until cancelled. Then nothing more is sent; each record that is acknowledged within `LAST_ANSWERS_S` is
        in its lease's cleanup when this returns, and is to be cleaned up before the lease is dropped."""
        lanes: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            try:
                while True:
                    await self._work.wait()
                    self._work.clear()
                    for lane in self._handed_over:
                        task = group.create_task(self._deliver_lane(lane), name="acknowledged-lane")
                        lanes.add(task)
                        task.add_done_callback(lanes.discard)
                    self._handed_over.clear()
            except asyncio.CancelledError:
                # A cancelled task may lose an acknowledgement that is there already.
                self._ending = True
                if lanes:
                    await asyncio.wait(lanes, timeout=LAST_ANSWERS_S)
                raise

    async def _deliver_lane(self, lane: _LaneRows) -> None:
        in_flight = lane.lease.in_flight
        for number, planned in enumerate(lane.rows):
            if not await self._deliver(lane.lease, planned):
                in_flight.remove((each.row.position for each in lane.rows[number:]), unsent=True)
                return

    async def _deliver(self, lease: ShardLease, planned: PlannedDelivery) -> bool:
        """Sends one row's record, a dead letter perhaps to the cluster's topic in the end. False: the row is to be read
        again; if its record was refused, its retry mark is written."""
        rejected: Container[Position] = lease.fallback_until_ms
        while True:
            try:
                return await self._send(lease, planned, rejected)
            except DeliveryRefused as refused:
                refusal = refused.refusals[0]
            if not self._settlement.fall_back(lease, planned, refusal):
                break
            rejected = {planned.row.position}
        if refusal.cause is RefusalCause.RECORD:
            await self._settlement.refuse_record(lease, planned, refusal)
        else:
            self._settlement.refuse_destination(refusal)
            await self._settlement.confirm_given_up(refusal)
        return False

    async def _send(self, lease: ShardLease, planned: PlannedDelivery, rejected: Container[Position]) -> bool:
        """Sends the record when its topic has a place for it, and passes the row on to cleanup. False: nothing was sent.
        Raises: DeliveryRefused."""
        topic = self._settlement.topic(planned, rejected)
        async with self._place(topic):
            if self._ending or self._settlement.in_backoff(topic):
                # The topic was refused, or ran out of time, while this lane waited for its place. The lane then sends
                # nothing, as the next pass would.
                return False
            record = self._settlement.record(planned, rejected)
            receipt = await self._acknowledged(record)
            # No await from here on: there is no moment at which the row is neither in flight nor in cleanup.
            lease.cleanup.add([completed(planned, receipt, slot=None)])
            lease.in_flight.remove([planned.row.position])
            self._settlement.report_sent([planned], [record], [receipt])
            return True

    def _place(self, topic: str) -> asyncio.Semaphore:
        """The places of a topic; forgotten when no lane has or wants one."""
        places = self._sends.get(topic)
        if places is None:
            places = self._sends[topic] = asyncio.Semaphore(SENDS_AT_ONCE)
        return places

    async def _acknowledged(self, record: OutRecord) -> Receipt:
        try:
            return await self._publisher.send(record)
        except BrokerUnavailable as error:
            refusal = Refusal(cause=RefusalCause.TRANSIENT, reason="not_acknowledged", destination=record.topic)
            raise DeliveryRefused([refusal], begun=False) from error
