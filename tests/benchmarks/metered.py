"""A node in this process whose requests to DynamoDB are counted, with the capacity that each took.

Every request is asked to say what it consumed (`ReturnConsumedCapacity`); DynamoDB Local counts as DynamoDB bills.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import pytest

from clockwork.adapters.dynamo_wire import DynamoWire, WireAnswer
from tests.support.client import Client
from tests.support.nodes import Cluster, node_here

READS: Final = frozenset({"GetItem", "Query", "Scan", "BatchGetItem"})
TABLELESS: Final = frozenset({"DescribeTable", "DescribeTimeToLive", "CreateTable", "UpdateTimeToLive"})


@dataclass(slots=True)
class Meter:
    """Sums by operation and table, as `UpdateItem executions`."""

    requests: Counter[str] = field(default_factory=Counter)
    units: Counter[str] = field(default_factory=Counter)

    def clear(self) -> None:
        self.requests.clear()
        self.units.clear()

    def total(self, *, reads: bool) -> float:
        return sum(units for name, units in self.units.items() if (name.split()[0] in READS) == reads)

    def note(self, operation: str, answer: WireAnswer) -> None:
        if answer.status >= 300:
            self.requests[operation] += 1
            return
        consumed: Any = orjson.loads(answer.body).get("ConsumedCapacity") or []
        each = consumed if isinstance(consumed, list) else [consumed]
        for one in each:
            self.units[f"{operation} {one['TableName'].rpartition('-')[2]}"] += one["CapacityUnits"]
        self.requests[" ".join([operation, *sorted(one["TableName"].rpartition("-")[2] for one in each)])] += 1


@asynccontextmanager
async def metered_node(cluster: Cluster) -> AsyncIterator[tuple[Client, Meter]]:
    """Counts from its start on; `clear` forgets that."""
    meter = Meter()
    send = DynamoWire.send

    async def counted(self: DynamoWire, operation: str, body: bytes) -> WireAnswer:
        if operation not in TABLELESS:
            body = orjson.dumps(orjson.loads(body) | {"ReturnConsumedCapacity": "TOTAL"})
        answer = await send(self, operation, body)
        if operation not in TABLELESS:
            meter.note(operation, answer)
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DynamoWire, "send", counted)
        async with node_here(cluster) as (_, client):
            yield client, meter
