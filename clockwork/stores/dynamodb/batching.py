"""Many single reads or writes at once: cut into calls, side by side within a bound, what is left over asked again.

DynamoDB may leave any part of a batch undone when it is busy. That part is sent again, after a growing wait, a bounded
number of times; then it is reported as throttled. All of these writes may be done twice, so nothing is ever taken back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from clockwork.concurrency import gather_bounded
from clockwork.errors import StoreThrottled, StoreUnavailable, TransactionConflict
from clockwork.stores.dynamodb.attributes import Item, size_bytes
from clockwork.stores.dynamodb.client import DynamoClient, backoff_s
from clockwork.stores.dynamodb.errors import Rejected
from clockwork.stores.dynamodb.sharing import SharedCalls

READS_PER_CALL: Final = 100
WRITES_PER_CALL: Final = 25
"""Both are DynamoDB's limits."""
BYTES_PER_CALL: Final = 900 * 1024
"""DynamoDB takes 16 MB, but that would not be sent and stored within the read time-out, and aiohttp warns from 1 MB on
that sending it in one piece keeps the event loop waiting."""
READS_AT_ONCE: Final = 4
"""Shared reads of one kind; more than this at one moment gather. The more, the more go for a single item; the fewer, the
more wait behind one that hangs."""
CALLS_AT_ONCE: Final = 8
"""Of one request, so that one large tidy-up leaves connections for everybody else."""
GROUP_REQUESTS_MAX: Final = 500
"""To measure and cut so many takes 3 ms, in which the event loop stands still; when all shards of a node tidy up a backlog
at once, there are tens of thousands."""
STANDS_CODES: Final = frozenset({"DuplicateItem", "ConditionalCheckFailed"})
"""Of an insert whose item is there already."""
LATER_CODES: Final = frozenset(
    {
        "TransactionConflict",
        "ProvisionedThroughputExceeded",
        "ThrottlingError",
        "RequestLimitExceeded",
        "InternalServerError",
    }
)
"""Of an insert that is to be sent again."""
ATTEMPTS_MAX: Final = 8
"""For one call's leftovers: some 4 s of waiting in all."""


async def read_all(client: DynamoClient, table: str, keys: Sequence[Item]) -> list[Item]:
    """Reads the items with these keys (no two of them equal), strongly; in any order, absent ones left out.

    Raises: StoreUnavailable, StoreThrottled.
    """
    chunks = [keys[start : start + READS_PER_CALL] for start in range(0, len(keys), READS_PER_CALL)]
    pages = await gather_bounded(partial(_read, client, table), chunks, at_once=CALLS_AT_ONCE)
    return [item for page in pages for item in page]


async def write_all(client: DynamoClient, table: str, requests: Sequence[Item]) -> None:
    """Does these PutRequests and DeleteRequests (no two of one key), in any order.

    Raises: StoreUnavailable, StoreThrottled; some of them may be done then.
    """
    await gather_bounded(partial(_write, client, table), _cut(requests), at_once=CALLS_AT_ONCE)


async def insert_all(client: DynamoClient, table: str, items: Sequence[Item]) -> None:
    """Puts each of these items (no two of one key) unless there is one with its key already.

    A batch write cannot be conditional, and a transaction costs twice; a batch of PartiQL statements does each by itself.

    Raises: StoreUnavailable, StoreThrottled; some of them may be done then.
    """
    await gather_bounded(partial(_insert, client, table), _cut(items), at_once=CALLS_AT_ONCE)


@dataclass(slots=True)
class _Writes:
    """Writes of several callers that go together: of two of one key only the first, since all writers write the same, or
    the first one stands."""

    requests: dict[Any, Item] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    done: bool = False
    failure: StoreUnavailable | None = None

    def takes(self, mine: Mapping[Any, Item]) -> bool:
        return len(self.requests) + len(mine) <= GROUP_REQUESTS_MAX

    def add(self, mine: Mapping[Any, Item]) -> None:
        for key, item in mine.items():
            self.requests.setdefault(key, item)


class Grouped:
    """Writes of callers of one moment, which share their calls: the shards of a node tidy up at the same ticks, a few rows
    each. Nobody waits for anybody longer than one turn of the event loop.
    """

    def __init__(self, write: Callable[[Sequence[Item]], Awaitable[None]]) -> None:
        """`write` is `write_all` or `insert_all` to some table."""
        self._write = write
        self._calls: SharedCalls[_Writes, Mapping[Any, Item]] = SharedCalls(_Writes, self._carry)

    async def write(self, mine: Mapping[Any, Item]) -> None:
        """As what it was made with; `mine` by anything that tells their keys apart."""
        if not mine:
            return
        group = await self._calls.go(mine)
        alone = len(group.requests) == len(mine)
        if group.failure is not None and (alone or not isinstance(group.failure, Rejected)):
            raise group.failure
        if not group.done:
            # What is wrong may be another's; or who carried it was cancelled. Now each for itself.
            await self._write(list(mine.values()))

    async def _carry(self, group: _Writes) -> None:
        try:
            await self._write(list(group.requests.values()))
            group.done = True
        except StoreUnavailable as error:
            group.failure = error


@dataclass(slots=True)
class _Reads:
    """Reads of several callers that go together."""

    keys_max: int
    keys: dict[Hashable, Item] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    answered: bool = False
    found: dict[Hashable, Item] = field(default_factory=dict)
    undone: set[Hashable] = field(default_factory=set)
    """Left out by DynamoDB: their shard is throttled, or the answer is full."""
    failure: StoreUnavailable | None = None

    def takes(self, member: tuple[Hashable, Item]) -> bool:
        return len(self.keys) < self.keys_max or member[0] in self.keys

    def add(self, member: tuple[Hashable, Item]) -> None:
        name, key = member
        self.keys[name] = key


class GroupedReads:
    """Strong reads of items that callers share: who comes while `READS_AT_ONCE` are under way joins the next one,
    which begins after it was asked for.

    Nobody waits for another's item: what DynamoDB leaves undone of a call is read by who wants it, alone, and may be
    throttled alone.
    """

    def __init__(
        self, client: DynamoClient, table: str, *, name: Callable[[Item], Hashable], items_max: int = READS_PER_CALL
    ) -> None:
        """`name`: what tells the items apart that are read here, of a key or of an item alike. `items_max`: of one call,
        lower where items may be large: 16 MB in one answer would take the event loop half a second."""
        self._client = client
        self._table = table
        self._name = name
        self._calls: SharedCalls[_Reads, tuple[Hashable, Item]] = SharedCalls(
            partial(_Reads, items_max), self._carry, at_once=READS_AT_ONCE
        )

    async def get(self, key: Item) -> Item | None:
        """The item with this key, if there is one. Raises: StoreUnavailable, StoreThrottled."""
        name = self._name(key)
        group = await self._calls.go((name, key))
        while not group.answered and group.failure is None:
            # Who carried it was cancelled. In company again: carriers give up when the store is slow.
            group = await self._calls.go((name, key))
        if name in group.undone or isinstance(group.failure, Rejected):
            # What is rejected may be another's key.
            return await self._get(key)
        if group.failure is not None:
            raise group.failure
        return group.found.get(name)

    async def _carry(self, group: _Reads) -> None:
        try:
            await self._read(group)
            group.answered = True
        except StoreUnavailable as error:
            group.failure = error

    async def _read(self, group: _Reads) -> None:
        keys = list(group.keys.values())
        if len(keys) == 1:
            item = await self._get(keys[0])
            items = [item] if item is not None else []
        else:
            wanted = {self._table: {"Keys": keys, "ConsistentRead": True}}
            answer = await self._client.call("batch_get_item", RequestItems=wanted)
            items = answer["Responses"].get(self._table, [])
            left = answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", [])
            group.undone = {self._name(key) for key in left}
        group.found = {self._name(item): item for item in items}

    async def _get(self, key: Item) -> Item | None:
        answer = await self._client.call("get_item", TableName=self._table, Key=key, ConsistentRead=True)
        item: Item | None = answer.get("Item")
        return item


async def _read(client: DynamoClient, table: str, keys: Sequence[Item]) -> list[Item]:
    found: list[Item] = []
    left: Sequence[Item] = keys
    for attempt in range(1, ATTEMPTS_MAX + 1):
        answer = await client.call("batch_get_item", RequestItems={table: {"Keys": left, "ConsistentRead": True}})
        got = answer["Responses"].get(table, [])
        found += got
        left = answer.get("UnprocessedKeys", {}).get(table, {}).get("Keys", [])
        if not left:
            return found
        # A part may be missing just because an answer has at most 16 MB: as long as some came, nothing is overloaded.
        if not got:
            await asyncio.sleep(backoff_s(attempt))
    raise StoreThrottled(f"DynamoDB left {len(left)} reads undone")


async def _write(client: DynamoClient, table: str, requests: Sequence[Item]) -> None:
    left: Sequence[Item] = requests
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            answer = await client.call("batch_write_item", RequestItems={table: left})
            left = answer.get("UnprocessedItems", {}).get(table, [])
        except (StoreThrottled, TransactionConflict):
            # Nothing of it was done: the whole of it is left.
            pass
        if not left:
            return
        if attempt < ATTEMPTS_MAX:
            await asyncio.sleep(backoff_s(attempt))
    raise StoreThrottled(f"DynamoDB left {len(left)} writes undone", outcome_unknown=True)


async def _insert(client: DynamoClient, table: str, items: Sequence[Item]) -> None:
    left = list(items)
    for attempt in range(1, ATTEMPTS_MAX + 1):
        statements = [{"Statement": _insert_text(table, item), "Parameters": list(item.values())} for item in left]
        answer = await client.call("batch_execute_statement", Statements=statements)
        codes = [str(response.get("Error", {}).get("Code", "")) for response in answer["Responses"]]
        if refused := set(codes) - {"", *STANDS_CODES, *LATER_CODES}:
            raise Rejected(f"DynamoDB answered {', '.join(sorted(refused))} to an insert", code=min(refused))
        left = [item for item, code in zip(left, codes, strict=True) if code in LATER_CODES]
        if not left:
            return
        if attempt < ATTEMPTS_MAX:
            await asyncio.sleep(backoff_s(attempt))
    raise StoreThrottled(f"DynamoDB left {len(left)} inserts undone", outcome_unknown=True)


def _insert_text(table: str, item: Item) -> str:
    members = ", ".join(f"'{name}': ?" for name in item)
    return f'INSERT INTO "{table}" VALUE {{{members}}}'


def _cut(requests: Iterable[Item]) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    chunk_bytes = 0
    for request in requests:
        request_bytes = size_bytes(request)
        if chunk and (len(chunk) == WRITES_PER_CALL or chunk_bytes + request_bytes > BYTES_PER_CALL):
            yield chunk
            chunk, chunk_bytes = [], 0
        chunk.append(request)
        chunk_bytes += request_bytes
    if chunk:
        yield chunk
