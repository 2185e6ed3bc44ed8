"""Many items in few calls to DynamoDB.

**Batches of one caller** (`read_all`, `write_all`, `insert_all`) are cut into calls, side by side within a bound. DynamoDB
may leave any part of a batch undone when it is busy. That part is sent again, after a growing wait, a bounded number of
times; then it is reported as throttled. All of these writes may be done twice, so nothing is ever undone.

**Micro-batching** (`MicroBatcher`): concurrent requests are coalesced into one call. The first caller sends it; later
callers join until it is sent. A call for many items costs little more than a call for one, on both sides, so this is the
source of throughput; and a lone request waits only for the callers of its own turn of the event loop. Further requests
gather only while all slots are taken, and the longer they wait, the more they are: the load sizes the batches, and no
delay has to be tuned.

**Group commit** (design.md, 4) is micro-batching of transactions. A transaction costs CPU and time of its own, whatever is
in it: DynamoDB Local stores twice as many schedules by fifties as one by one. It fails as a whole: the members whose own
conditions failed are known by its cancellation reasons; the rest is sent again together, and if that fails as well, each
alone. Each caller gets the result of its own member, as if it had been alone. To be sent again changes nothing for a
member: it carries its own conditions (a version, a hold of its own).
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Generic, TypeVar

from clockwork.concurrency import gather_bounded
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.errors import ClockworkError, ConditionFailed, StoreThrottled, StoreUnavailable, TransactionConflict
from clockwork.stores.dynamodb.attributes import Item, size_bytes
from clockwork.stores.dynamodb.client import DynamoClient, backoff_s
from clockwork.stores.dynamodb.errors import Refused, Rejected
from clockwork.stores.dynamodb.transactions import token_of

READS_PER_CALL: Final = 100
WRITES_PER_CALL: Final = 25
"""Both are DynamoDB's limits."""
BYTES_PER_CALL: Final = 900 * 1024
"""DynamoDB takes 16 MB, and 4 MB in a transaction, but that would not be sent and stored within the read time-out, and
aiohttp warns from 1 MB on that sending it in one piece blocks the event loop."""
CALLS_AT_ONCE: Final = 8
"""Calls of one caller, so that one large cleanup leaves connections for others."""
ATTEMPTS_MAX: Final = 8
"""Attempts for the leftovers of one call: some 4 s of waiting in all."""
READS_AT_ONCE: Final = 4
"""Batched reads of one kind; more than this at one moment gather. The more, the more calls are for a single item; the
fewer, the more wait behind one that hangs."""
GROUPED_WRITES_MAX: Final = 500
"""To measure and cut so many takes 3 ms, in which the event loop stands still; when all shards of a node clean up a backlog
at once, there are tens of thousands."""
TRANSACTIONS_AT_ONCE: Final = 4
"""More requests than this at one moment gather. The fewer, the larger the groups, and the longer one waits for a slot.
Of 2, 4 and 8, DynamoDB Local with 256 clients stores most with 2 (4: 10 % more than 8); at 5 ms a transaction, 16 clients
get most from 8 (4: a quarter less, 2: a third less), and 256 clients most from 2 and 4."""
ACTIONS_MAX: Final = 100
"""DynamoDB takes no more in one transaction."""
ALONE_AT_ONCE: Final = 8
"""Transactions of one failed group that are sent each alone, at a time."""
STANDS_CODES: Final = frozenset({"DuplicateItem", "ConditionalCheckFailed"})
"""Codes of an insert whose item exists already."""
LATER_CODES: Final = frozenset(
    {
        "TransactionConflict",
        "ProvisionedThroughputExceeded",
        "ThrottlingError",
        "RequestLimitExceeded",
        "InternalServerError",
    }
)
"""Codes of an insert that is to be sent again."""

Key = tuple[ClientId, ScheduleKey]

_Member = TypeVar("_Member")
_Result = TypeVar("_Result")


# --- micro-batching


@dataclass(slots=True, eq=False)
class _Batch(Generic[_Member, _Result]):
    members: list[_Member] = field(default_factory=list)
    keys: set[Hashable] = field(default_factory=set)
    size: int = 0
    size_bytes: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    result: _Result | None = None


class MicroBatcher(Generic[_Member, _Result]):
    """Coalesces concurrent requests of one kind into calls."""

    def __init__(
        self,
        send: Callable[[Sequence[_Member]], Awaitable[_Result]],
        *,
        size_max: int,
        bytes_max: int | None = None,
        at_once: int | None = None,
    ) -> None:
        """`send` makes one call for these members. A batch has at most `size_max` and `bytes_max`, or one member.
        `at_once`: bound of concurrent calls; None: unbounded, so that no request waits longer than one turn."""
        self._send = send
        self._size_max = size_max
        self._bytes_max = bytes_max
        self._slots: AbstractAsyncContextManager[object] = (
            asyncio.Semaphore(at_once) if at_once is not None else nullcontext()
        )
        self._open: _Batch[_Member, _Result] | None = None

    async def submit(
        self, member: _Member, *, size: int = 1, size_bytes: int = 0, key: Hashable = None
    ) -> _Result | None:
        """Joins the open batch, or opens one and sends it; returns the result of the call. None: the call was not made, or
        nothing is known of it, because its sender was cancelled or failed. No two members of one `key` are in a batch.

        Raises: the errors of `send`, for the sender alone.
        """
        batch = self._open
        if batch is not None and self._fits(batch, size, size_bytes, key):
            _add(batch, member, size, size_bytes, key)
            await batch.over.wait()
            return batch.result
        batch = self._open = _Batch()
        _add(batch, member, size, size_bytes, key)
        try:
            await asyncio.sleep(0)  # the other callers of this turn join
            async with self._slots:
                self._close(batch)
                batch.result = await self._send(batch.members)
        finally:
            self._close(batch)
            batch.over.set()
        return batch.result

    def _fits(self, batch: _Batch[_Member, _Result], size: int, size_bytes: int, key: Hashable) -> bool:
        if batch.size + size > self._size_max or key in batch.keys:
            return False
        return self._bytes_max is None or batch.size_bytes + size_bytes <= self._bytes_max

    def _close(self, batch: _Batch[_Member, _Result]) -> None:
        if self._open is batch:
            self._open = None


def _add(batch: _Batch[_Member, _Result], member: _Member, size: int, size_bytes: int, key: Hashable) -> None:
    batch.members.append(member)
    batch.size += size
    batch.size_bytes += size_bytes
    if key is not None:
        batch.keys.add(key)


# --- batches of one caller


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
    """Puts each of these items (no two of one key) unless an item with its key exists.

    A batch write cannot be conditional, and a transaction costs twice; a batch of PartiQL statements does each by itself.

    Raises: StoreUnavailable, StoreThrottled; some of them may be done then.
    """
    await gather_bounded(partial(_insert, client, table), _cut(items), at_once=CALLS_AT_ONCE)


# --- writes of several callers


@dataclass(frozen=True, slots=True)
class _Written:
    """The result of batched writes."""

    requests: int
    failure: StoreUnavailable | None


class BatchedWrites:
    """Micro-batching of idempotent writes: the shards of a node clean up at the same ticks, a few rows each.

    Of two writes of one key only the first is sent: all writers write the same, or the first one stands. No caller waits
    longer than one turn of the event loop for others.
    """

    def __init__(self, write: Callable[[Sequence[Item]], Awaitable[None]]) -> None:
        """`write` is `write_all` or `insert_all` to some table."""
        self._write = write
        self._batches = MicroBatcher[Mapping[Any, Item], _Written](self._send, size_max=GROUPED_WRITES_MAX)

    async def write(self, mine: Mapping[Any, Item]) -> None:
        """Does the requests `mine`, by any value that tells their keys apart. Raises: see `write`."""
        if not mine:
            return
        written = await self._batches.submit(mine, size=len(mine))
        if written is not None and written.failure is None:
            return
        alone = written is not None and written.requests == len(mine)
        if written is not None and written.failure is not None and (alone or not isinstance(written.failure, Rejected)):
            raise written.failure
        # The rejected request may be another caller's; or the sender was cancelled. Now each alone.
        await self._write(list(mine.values()))

    async def _send(self, members: Sequence[Mapping[Any, Item]]) -> _Written:
        requests: dict[Any, Item] = {}
        for member in members:
            for key, item in member.items():
                requests.setdefault(key, item)
        try:
            await self._write(list(requests.values()))
        except StoreUnavailable as error:
            return _Written(len(requests), error)
        return _Written(len(requests), None)


# --- reads of several callers


@dataclass(frozen=True, slots=True)
class _Found:
    """The result of batched reads."""

    items: Mapping[Hashable, Item]
    undone: frozenset[Hashable] = frozenset()
    """Left out by DynamoDB: their shard is throttled, or the answer is full."""
    failure: StoreUnavailable | None = None


class BatchedReads:
    """Micro-batching of strong reads of single items: callers that come while `READS_AT_ONCE` calls are in flight join the
    next one, which is sent after they asked.

    No caller waits for another's item: an item that DynamoDB leaves undone is read by its own caller, alone, and may be
    throttled alone.
    """

    def __init__(
        self, client: DynamoClient, table: str, *, name: Callable[[Item], Hashable], items_max: int = READS_PER_CALL
    ) -> None:
        """`name` gives a value that tells the items apart, of a key or of an item alike. `items_max`: bound of one call,
        lower where items may be large: 16 MB in one answer would take the event loop half a second."""
        self._client = client
        self._table = table
        self._name = name
        self._batches = MicroBatcher[Item, _Found](self._send, size_max=items_max, at_once=READS_AT_ONCE)

    async def get(self, key: Item) -> Item | None:
        """The item with this key, if it exists. Raises: StoreUnavailable, StoreThrottled."""
        found = await self._batches.submit(key)
        while found is None:
            # The sender was cancelled. In a batch again: senders give up when the store is slow.
            found = await self._batches.submit(key)
        name = self._name(key)
        if name in found.undone or isinstance(found.failure, Rejected):
            # The rejected key may be another caller's.
            return await self._get(key)
        if found.failure is not None:
            raise found.failure
        return found.items.get(name)

    async def _send(self, members: Sequence[Item]) -> _Found:
        keys = {self._name(key): key for key in members}
        try:
            if len(keys) == 1:
                item = await self._get(members[0])
                return _Found({self._name(item): item} if item is not None else {})
            wanted = {self._table: {"Keys": list(keys.values()), "ConsistentRead": True}}
            answer = await self._client.call("batch_get_item", RequestItems=wanted)
        except StoreUnavailable as error:
            return _Found({}, failure=error)
        left = answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", [])
        items = answer["Responses"].get(self._table, [])
        return _Found({self._name(item): item for item in items}, undone=frozenset(self._name(key) for key in left))

    async def _get(self, key: Item) -> Item | None:
        answer = await self._client.call("get_item", TableName=self._table, Key=key, ConsistentRead=True)
        item: Item | None = answer.get("Item")
        return item


# --- group commit


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Transaction:
    """The transaction of one request."""

    key: Key
    """Its schedule. It writes no item of any other key."""
    actions: Sequence[Item]
    token: str
    """Tells DynamoDB that a repeat is one."""
    is_ours: Callable[[Refused], bool]
    """True if the item that made a condition fail was put by an earlier copy of this very request."""
    size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size_bytes", size_bytes(self.actions))


_Verdicts = dict[Key, ClockworkError | None]
"""The result of each transaction; None: committed."""


class GroupCommit:
    """Commits transactions, each wholly or not at all."""

    def __init__(self, client: DynamoClient) -> None:
        self._client = client
        self._batches = MicroBatcher[Transaction, _Verdicts](
            self._send, size_max=ACTIONS_MAX, bytes_max=BYTES_PER_CALL, at_once=TRANSACTIONS_AT_ONCE
        )

    async def commit(self, transaction: Transaction) -> None:
        """Returns when it is committed, by this copy of the request or an earlier one.

        Raises: Refused, TransactionConflict (nothing was written), StoreUnavailable.
        """
        verdicts = await self._submit(transaction)
        while verdicts is None:
            # The sender was cancelled, maybe in the middle of it: the same request again settles it. In a group again:
            # senders give up when the store is slow, and a slow store must not be asked for each transaction alone.
            verdicts = await self._submit(transaction)
        if (error := verdicts[transaction.key]) is not None:
            raise error

    async def _submit(self, transaction: Transaction) -> _Verdicts | None:
        # No two of one key in a group: DynamoDB refuses a transaction that names an item twice.
        return await self._batches.submit(
            transaction,
            size=len(transaction.actions),
            size_bytes=transaction.size_bytes,
            key=transaction.key,
        )

    async def _send(self, group: Sequence[Transaction]) -> _Verdicts:
        verdicts: _Verdicts = {}
        left = await self._commit_together(group, verdicts)
        if left and len(left) < len(group):
            left = await self._commit_together(left, verdicts)
        await gather_bounded(partial(self._commit_alone, verdicts), left, at_once=ALONE_AT_ONCE)
        return verdicts

    async def _commit_together(self, group: Sequence[Transaction], verdicts: _Verdicts) -> Sequence[Transaction]:
        """Returns the transactions that are to be tried again; the verdicts of the others are added to `verdicts`."""
        if len(group) == 1:
            return group
        try:
            await self._client.call(
                "transact_write_items",
                TransactItems=[action for member in group for action in member.actions],
                ClientRequestToken=token_of(*(member.token for member in group)),
            )
        except Refused as refused:
            verdicts |= _verdicts(group, refused)
            return [member for member in group if member.key not in verdicts]
        except (TransactionConflict, Rejected):
            return group
        except StoreUnavailable as error:
            verdicts |= {member.key: error for member in group}
        else:
            verdicts |= {member.key: None for member in group}
        return []

    async def _commit_alone(self, verdicts: _Verdicts, member: Transaction) -> None:
        try:
            await self._client.call(
                "transact_write_items", TransactItems=list(member.actions), ClientRequestToken=member.token
            )
        except Refused as refused:
            verdicts[member.key] = None if member.is_ours(refused) else refused
        except (StoreUnavailable, ConditionFailed, TransactionConflict) as error:
            verdicts[member.key] = error
        else:
            verdicts[member.key] = None


def _verdicts(group: Sequence[Transaction], refused: Refused) -> _Verdicts:
    """The verdicts of the members whose own conditions failed."""
    found: _Verdicts = {}
    first = 0
    for member in group:
        last = first + len(member.actions)
        if any(refused.failed[first:last]):
            own = Refused(refused.items[first:last], str(refused), failed=refused.failed[first:last])
            found[member.key] = None if member.is_ours(own) else own
        first = last
    return found


# --- single calls


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
