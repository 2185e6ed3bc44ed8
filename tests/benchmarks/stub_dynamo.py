"""A DynamoDB of a few lines, as a process of its own: canned answers after a fixed time, and next to no CPU.

    python -m tests.benchmarks.stub_dynamo --port 8001 --shards 16 --latency-ms 5 --prefix t1

DynamoDB Local takes more CPU for a write than the node that asks for it, so beside it a node's own cost cannot be seen.
This one believes everything: conditions always hold, pointers and outcomes are forgotten. Rows are kept, in order, so that
they can be read and deleted; what a cancel or a late copy would need is not there.
"""

import argparse
import asyncio
import bisect
import re
from collections import defaultdict
from email.utils import formatdate
from typing import Any, Final

import orjson

from clockwork.domain.ownership import ShardState
from clockwork.domain.sharding import ShardId
from clockwork.stores.dynamodb import codec
from clockwork.stores.dynamodb.codec import INDEX, INDEX_KEY, JOB_INDEX_KEY

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TARGET: Final = re.compile(rb"\r\nx-amz-target: *DynamoDB_\d+\.(\w+)", re.IGNORECASE)
KEYS: Final = {
    "schedules": (("partitionId", "S", "HASH"), ("scheduleTime", "N", "RANGE")),
    "executions": (("partitionId", "S", "HASH"),),
    "keys": (("clientKey", "S", "HASH"), ("position", "N", "RANGE")),
    "jobs": (("jobKey", "S", "HASH"), ("item", "S", "RANGE")),
}
INDEXES: Final = {"keys": (INDEX_KEY, "ALL"), "jobs": (JOB_INDEX_KEY, "KEYS_ONLY")}
EXISTS: Final = {"__type": "com.amazonaws.dynamodb.v20120810#ResourceInUseException"}
Answer = tuple[int, dict[str, Any]]


class Tables:
    """The four tables `<prefix>-schedules`, `-executions`, `-keys`, `-jobs`, and what is asked of the first three."""

    def __init__(self, *, prefix: str, shards: int) -> None:
        self._prefix = prefix
        self._executions = f'"{prefix}-executions"'.encode()
        blank = ShardState(epoch=0, owner=None, floor_ms=0)
        self._states = {str(n): codec.shard_item(ShardId(n), blank) for n in range(shards)}
        self._states[codec.CLUSTER] = codec.cluster_item(shards)
        self._rows: dict[str, dict[str, Any]] = defaultdict(dict)
        self._order: dict[str, list[str]] = defaultdict(list)
        """Positions as text: with the 13 digits that a due time has nowadays, their order is that of the numbers."""

    def answer(self, operation: str, body: bytes) -> Answer:
        """Status and document."""
        if operation == "TransactWriteItems" and self._executions not in body:
            return 200, {}  # creates: the hottest of all, and nothing in them is wanted again
        asked = orjson.loads(body)
        match operation:
            case "CreateTable":
                return 400, EXISTS
            case "DescribeTable":
                return 200, {"Table": self._described(asked["TableName"])}
            case "DescribeTimeToLive":
                expires = asked["TableName"] in {f"{self._prefix}-{name}" for name in INDEXES}
                enabled = {"TimeToLiveStatus": "ENABLED", "AttributeName": "expiresAt"}
                return 200, {"TimeToLiveDescription": enabled if expires else {"TimeToLiveStatus": "DISABLED"}}
            case "GetItem":
                return 200, self._got(asked)
            case "PutItem" if "partitionId" in asked["Item"] and "scheduleTime" not in asked["Item"]:
                self._states[asked["Item"]["partitionId"]["S"]] = asked["Item"]
            case "UpdateItem":
                return 200, {"Attributes": self._updated(asked)}
            case "TransactWriteItems":
                for action in asked["TransactItems"]:
                    if "Update" in action:
                        self._updated(action["Update"])
            case "Query":
                return 200, self._page(asked)
            case "Scan":
                some = next((item for rows in self._rows.values() for item in rows.values()), None)
                return 200, {"Items": [] if some is None else [some]}
            case "BatchGetItem":
                return 200, {"Responses": {table: self._several(wanted["Keys"]) for table, wanted in _parts(asked)}}
            case "BatchExecuteStatement":
                return 200, {"Responses": [{} for _ in asked["Statements"]]}
            case "BatchWriteItem":
                for table, requests in _parts(asked):
                    self._write(table, requests)
        return 200, {}

    def _described(self, table: str) -> dict[str, Any]:
        which = table.removeprefix(f"{self._prefix}-")
        described: dict[str, Any] = {
            "TableStatus": "ACTIVE",
            "AttributeDefinitions": [{"AttributeName": name, "AttributeType": kind} for name, kind, _ in KEYS[which]],
            "KeySchema": [{"AttributeName": name, "KeyType": role} for name, _, role in KEYS[which]],
        }
        if which not in INDEXES:
            return described
        key, projection = INDEXES[which]
        roles = zip(key, ("HASH", "RANGE"), strict=True)
        index = {
            "IndexName": INDEX,
            "IndexStatus": "ACTIVE",
            "KeySchema": [{"AttributeName": name, "KeyType": role} for (name, _), role in roles],
            "Projection": {"ProjectionType": projection},
        }
        parts = [{"AttributeName": name, "AttributeType": kind} for name, kind in key]
        more = {"AttributeDefinitions": described["AttributeDefinitions"] + parts, "GlobalSecondaryIndexes": [index]}
        return described | more

    def _got(self, asked: dict[str, Any]) -> dict[str, Any]:
        found = self._several([asked["Key"]])
        return {"Item": found[0]} if found else {}

    def _several(self, keys: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found: list[dict[str, Any] | None] = []
        for key in keys:
            if "clientKey" in key:
                continue
            shard = key["partitionId"]["S"]
            found.append(
                self._rows[shard].get(key["scheduleTime"]["N"]) if "scheduleTime" in key else self._states.get(shard)
            )
        return [item for item in found if item is not None]

    def _updated(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Updates items of shards and incarnations; nothing comes of updates of other items."""
        state = self._states.get(asked["Key"].get("partitionId", {}).get("S"), {})
        names, values = asked.get("ExpressionAttributeNames", {}), asked.get("ExpressionAttributeValues", {})
        for name, value in re.findall(r"(#\w+) = (?:if_not_exists\(#\w+, )?(:\w+)", asked.get("UpdateExpression", "")):
            state[names[name]] = values[value]
        if "REMOVE #owner" in asked.get("UpdateExpression", ""):
            state.pop("owner", None)
        return state

    def _page(self, asked: dict[str, Any]) -> dict[str, Any]:
        values = asked["ExpressionAttributeValues"]
        if ":shard" not in values:
            return {"Items": []}
        shard, limit = values[":shard"]["S"], asked["Limit"]
        order, rows = self._order[shard], self._rows[shard]
        start = bisect.bisect_right(order, values[":after"]["N"])
        places = order[start : start + limit]
        more = start + limit < len(order)
        last = {"LastEvaluatedKey": {"partitionId": {"S": shard}, "scheduleTime": {"N": places[-1]}}} if more else {}
        return {"Items": [rows[place] for place in places], **last}

    def _write(self, table: str, requests: list[dict[str, Any]]) -> None:
        if table != f"{self._prefix}-schedules":
            return
        for request in requests:
            item = request["PutRequest"]["Item"] if "PutRequest" in request else request["DeleteRequest"]["Key"]
            shard, place = item["partitionId"]["S"], item["scheduleTime"]["N"]
            if "PutRequest" in request:
                bisect.insort(self._order[shard], place)
                self._rows[shard][place] = item
            elif self._rows[shard].pop(place, None) is not None:
                del self._order[shard][bisect.bisect_left(self._order[shard], place)]


def _parts(asked: dict[str, Any]) -> Any:
    return asked["RequestItems"].items()


class Connection(asyncio.Protocol):
    """One client's connection: a request, its answer a while later, the next request."""

    def __init__(self, tables: Tables, latency_s: float) -> None:
        self._tables = tables
        self._latency_s = latency_s
        self._buffer = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(self._buffer[:head_end])
        length, target = _LENGTH.search(head), _TARGET.search(head)
        end = head_end + 4 + int(length[1] if length else 0)
        if len(self._buffer) < end:
            return
        body = bytes(self._buffer[head_end + 4 : end])
        del self._buffer[:end]
        status, document = self._tables.answer(target[1].decode() if target else "", body)
        asyncio.get_running_loop().call_later(self._latency_s, self._send, status, orjson.dumps(document))

    def _send(self, status: int, body: bytes) -> None:
        head = (
            f"HTTP/1.1 {status} -\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {len(body)}\r\n"
            f"Date: {formatdate(usegmt=True)}\r\n\r\n"
        )
        if not self._transport.is_closing():
            self._transport.write(head.encode() + body)


async def serve(*, port: int, prefix: str, shards: int, latency_ms: float) -> None:
    """Serves until cancelled."""
    tables = Tables(prefix=prefix, shards=shards)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(tables, latency_ms / 1_000), "127.0.0.1", port, backlog=1_024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--shards", type=int, required=True)
    parser.add_argument("--latency-ms", type=float, default=5.0)
    chosen = parser.parse_args()
    asyncio.run(serve(port=chosen.port, prefix=chosen.prefix, shards=chosen.shards, latency_ms=chosen.latency_ms))
