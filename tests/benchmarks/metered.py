"""A node in this process whose requests to DynamoDB are counted, with the capacity that each took.

Every request is asked to say what it consumed (`ReturnConsumedCapacity`), and DynamoDB Local counts as DynamoDB bills, but
for transactions: ten items of a table cost there what one costs. Those are counted here, two units for each kilobyte
begun of each item.
"""

import base64
import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import pytest

from clockwork.stores.dynamodb.client import HttpTransport, Response
from tests.support.client import Client
from tests.support.nodes import Cluster, node_here

READS: Final = frozenset({"GetItem", "Query", "Scan", "BatchGetItem"})
UNCOUNTED: Final = frozenset({"DescribeTable", "DescribeTimeToLive", "CreateTable", "UpdateTimeToLive"})
"""Operations that use no table's capacity."""
TRANSACTION_UNITS_PER_KB: Final = 2


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

    def note(self, operation: str, asked: Any, answer: Response) -> None:
        if answer.status >= 300:
            self.requests[operation] += 1
            return
        consumed: Any = orjson.loads(answer.body).get("ConsumedCapacity") or []
        each = consumed if isinstance(consumed, list) else [consumed]
        for one in [] if operation == "TransactWriteItems" else each:
            self.units[f"{operation} {one['TableName'].rpartition('-')[2]}"] += one["CapacityUnits"]
        for action in asked.get("TransactItems", []):
            (parts,) = action.values()
            table = parts["TableName"].rpartition("-")[2]
            self.units[f"{operation} {table}"] += TRANSACTION_UNITS_PER_KB * kilobytes(parts.get("Item", {}))
        self.requests[" ".join([operation, *sorted(one["TableName"].rpartition("-")[2] for one in each)])] += 1


def kilobytes(item: dict[str, Any]) -> int:
    """That DynamoDB bills a write of this item with, at least one."""
    return max(1, math.ceil(sum(len(name.encode()) + _value_bytes(value) for name, value in item.items()) / 1_024))


def _value_bytes(attribute: dict[str, Any]) -> int:
    ((kind, value),) = attribute.items()
    match kind:
        case "M":
            return 3 + sum(1 + len(name.encode()) + _value_bytes(inner) for name, inner in value.items())
        case "N":
            return len(value) // 2 + 2
        case "B":
            return len(base64.b64decode(value))
        case _:
            return len(value.encode())


@asynccontextmanager
async def metered_node(cluster: Cluster) -> AsyncIterator[tuple[Client, Meter]]:
    """Counts from its start on; `clear` forgets that."""
    meter = Meter()
    send = HttpTransport.send

    async def counted(self: HttpTransport, operation: str, body: bytes) -> Response:
        asked = orjson.loads(body)
        # A node scans indexes; tables are scanned by the benchmark itself.
        if operation in UNCOUNTED or (operation == "Scan" and "IndexName" not in asked):
            return await send(self, operation, body)
        asked |= {"ReturnConsumedCapacity": "TOTAL"}
        answer = await send(self, operation, orjson.dumps(asked))
        meter.note(operation, asked, answer)
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HttpTransport, "send", counted)
        async with node_here(cluster) as (_, client):
            yield client, meter
