"""Delivery in a transaction (exactly_once, unreadable and expired rows): the records of a pass and their marker in one Kafka
transaction."""

import asyncio
from collections.abc import Sequence

from clockwork.domain import marker
from clockwork.domain.planning import Action, PlannedDelivery, without_lane
from clockwork.domain.position import Position
from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import Receipt
from clockwork.errors import BrokerUnavailable, DeliveryRefused, DeliveryUnknown, Refusal, Unavailable
from clockwork.firing.settlement import Settlement, completed
from clockwork.firing.takeover import ShardLease, Takeover
from clockwork.ports.telemetry import Telemetry


class TransactionalDelivery:
    """Delivers in transactions of the lease's producer."""

    def __init__(self, takeover: Takeover, settlement: Settlement, telemetry: Telemetry) -> None:
        self._takeover = takeover
        self._settlement = settlement
        self._telemetry = telemetry

    async def deliver(self, lease: ShardLease, deliveries: Sequence[PlannedDelivery]) -> int:
        """Ends all rows in one transaction. After a refusal, tries again without the rows that wait and the rows behind
        them in their lanes; dead letters refused by a client's topic go to the cluster's topic.

        Returns how many rows ended. Raises: Fenced, DeliveryUnknown, Unavailable.
        """
        batch = list(deliveries)
        rejected = set(lease.fallback_until_ms)
        while batch:
            sent = [each for each in batch if each.action is not Action.DROP]
            records = [self._settlement.record(each, rejected) for each in sent]
            try:
                await self._commit(lease, batch, sent, records)
            except DeliveryRefused as refused:
                if refused.begun:
                    await self._replace_producer(lease)
                for refusal in refused.refusals:
                    batch = await self._apply_refusal(lease, batch, _refused(sent, records, refusal), refusal, rejected)
            else:
                break
        return len(batch)

    async def _commit(
        self, lease: ShardLease, batch: list[PlannedDelivery], sent: list[PlannedDelivery], records: list[OutRecord]
    ) -> None:
        """Ends all rows of `batch` in one transaction. `records` are those of `sent`; the other rows have the action DROP:
        only the marker names them."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        without_record = [each for each in batch if each.action is Action.DROP]
        dropped = [self._settlement.dropped(each) for each in without_record]

        def write_marker(receipts: Sequence[Receipt]) -> bytes:
            new = (completed(each, receipt).entry for each, receipt in zip(sent, receipts, strict=True))
            return marker.encode([*lease.cleanup.marker_entries(), *new, *(one.entry for one in dropped)])

        receipts = await lease.publisher.deliver(records, write_marker)
        lease.cleanup.add(completed(each, receipt) for each, receipt in zip(sent, receipts, strict=True))
        lease.cleanup.add(dropped)
        self._telemetry.batch(records=len(sent), commit_seconds=loop.time() - started_s)
        self._settlement.report_sent(sent, records, receipts)
        self._settlement.report_dropped(without_record)

    async def _replace_producer(self, lease: ShardLease) -> None:
        """Gives the lease a new producer and a new epoch. Raises: Fenced, DeliveryUnknown."""
        try:
            await self._takeover.renew(lease)
        except Unavailable as error:
            raise DeliveryUnknown(f"shard {lease.shard}: no producer after a refusal: {error}") from error

    async def _apply_refusal(
        self,
        lease: ShardLease,
        batch: list[PlannedDelivery],
        refused: list[PlannedDelivery],
        refusal: Refusal,
        rejected: set[Position],
    ) -> list[PlannedDelivery]:
        """Applies one refusal, and returns the batch without the rows that wait because of it. Dead letters that their
        client's topic refused stay in it, and are added to `rejected`: they go to the cluster's topic."""
        fallen_back = {each.row.position for each in refused if self._settlement.fall_back(lease, each, refusal)}
        rejected |= fallen_back
        waiting = [each for each in refused if each.row.position not in fallen_back]
        if waiting and refusal.index is None:
            self._settlement.refuse_destination(refusal)
        for each in waiting:
            if refusal.index is not None:
                await self._settlement.refuse_record(lease, each, refusal)
            # Its lane with it: behind a dead letter stand rows of another destination.
            batch = without_lane(batch, each.lane, after=each.row.position)
        return batch


def _refused(sent: list[PlannedDelivery], records: list[OutRecord], refusal: Refusal) -> list[PlannedDelivery]:
    """The deliveries that one refusal concerns. Raises: BrokerUnavailable, if the refused topic is that of the markers."""
    if refusal.index is not None:
        return [sent[refusal.index]]
    refused = [each for each, record in zip(sent, records, strict=True) if record.topic == refusal.destination]
    if not refused:
        # No destination of the batch, so the markers' own topic: nothing can be delivered without it.
        raise BrokerUnavailable(f"{refusal.destination}: {refusal.reason}")
    return refused
