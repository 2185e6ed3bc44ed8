"""Delivery of at_least_once: lane by lane, each record acknowledged before the next."""

from collections.abc import Sequence
from typing import Final

from clockwork.concurrency import gather_bounded
from clockwork.domain.planning import PlannedDelivery
from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import Lane, Receipt
from clockwork.errors import BrokerUnavailable, DeliveryRefused, Refusal, RefusalCause, Unavailable
from clockwork.firing.settlement import Settlement, completed
from clockwork.firing.takeover import ShardLease
from clockwork.ports.delivery import Publisher

LANES_AT_ONCE: Final = 128
"""Lanes that wait for an acknowledgement side by side."""


class AcknowledgedDelivery:
    """Delivers by single acknowledged sends."""

    def __init__(self, publisher: Publisher, settlement: Settlement) -> None:
        self._publisher = publisher
        self._settlement = settlement

    async def deliver(self, lease: ShardLease, deliveries: Sequence[PlannedDelivery]) -> int:
        """Delivers the rows of a lane one after the other, and lanes side by side; a refused record stops its lane.

        Returns how many rows ended. Raises: Unavailable.
        """
        lanes: dict[Lane | None, list[PlannedDelivery]] = {}
        for planned in deliveries:
            lanes.setdefault(planned.lane, []).append(planned)

        failures: list[Unavailable] = []

        async def one_lane(lane: list[PlannedDelivery]) -> int:
            try:
                return await self._deliver_lane(lease, lane)
            except Unavailable as error:
                # Raised when the others are done: to cancel a send that the broker has taken would be to send it twice.
                failures.append(error)
                return 0

        counts = await gather_bounded(one_lane, lanes.values(), at_once=LANES_AT_ONCE)
        if failures:
            raise failures[0]
        return sum(counts)

    async def _deliver_lane(self, lease: ShardLease, lane: list[PlannedDelivery]) -> int:
        for count, planned in enumerate(lane):
            try:
                record, receipt = await self._send(lease, planned)
            except DeliveryRefused as refused:
                refusal = refused.refusals[0]
                if refusal.cause is RefusalCause.RECORD:
                    await self._settlement.refuse_record(lease, planned, refusal)
                else:
                    self._settlement.refuse_destination(refusal)
                return count
            lease.cleanup.add([completed(planned, receipt)])
            self._settlement.report_sent([planned], [record], [receipt])
        return len(lane)

    async def _send(self, lease: ShardLease, planned: PlannedDelivery) -> tuple[OutRecord, Receipt]:
        """Sends one record, a dead letter perhaps to the cluster's topic in the end. Returns the record that was taken.
        Raises: DeliveryRefused."""
        record = self._settlement.record(planned, lease.fallback_until_ms)
        try:
            return record, await self._acknowledged(record)
        except DeliveryRefused as refused:
            if not self._settlement.fall_back(lease, planned, refused.refusals[0]):
                raise
        record = self._settlement.record(planned, {planned.row.position})
        return record, await self._acknowledged(record)

    async def _acknowledged(self, record: OutRecord) -> Receipt:
        try:
            return await self._publisher.send(record)
        except BrokerUnavailable as error:
            refusal = Refusal(cause=RefusalCause.TRANSIENT, reason="not_acknowledged", destination=record.topic)
            raise DeliveryRefused([refusal], begun=False) from error
