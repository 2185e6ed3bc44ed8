"""Many items in few calls to DynamoDB.

**Batches of one caller** (`read_all`, `write_all`) are cut into calls, side by side within a bound. DynamoDB
may leave any part of a batch undone when it is busy. That part is sent again, after a growing wait, a bounded number of
times; then it is reported as throttled. All of these writes may be done twice, so nothing is ever undone.

**Micro-batching** (`stores.micro_batching`) coalesces concurrent requests into one call.

**Group commit** (design.md, 4) is micro-batching of transactions. A transaction costs CPU and time of its own, whatever is
in it: DynamoDB Local stores twice as many schedules by fifties as one by one.

**Sharing a call never shares a failure** (docs/design.md, 3). Each caller gets the result of its own member, as if it had
been alone:
- a shared transaction fails as a whole, but the reasons of its cancellation name the members at fault. A failed condition
  or a size is theirs at once; a conflict or a throttled item is tried again by each alone. The others go again at once
  without them. To be sent again changes nothing for a member: it carries its own conditions (a version, a hold of its own);
- of a shared batch, the items that are left undone come back by key. A member with none of its own among them is done; the
  others are repeated by each caller alone, never in a group, where one throttled shard would hold up all.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from clockwork.concurrency import gather_bounded
from clockwork.errors import ClockworkError, StoreThrottled, StoreUnavailable, TransactionConflict
from clockwork.ports.read_units import current_meter
from clockwork.stores.calls import backoff_s
from clockwork.stores.dynamodb import codec
from clockwork.stores.dynamodb.attributes import Item, size_bytes
from clockwork.stores.dynamodb.client import DynamoClient
from clockwork.stores.dynamodb.codec import PrimaryKey
from clockwork.stores.dynamodb.errors import Cancelled, Refused, Rejected
from clockwork.stores.dynamodb.transactions import token_of
from clockwork.stores.micro_batching import MicroBatcher

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
"""Concurrent batched reads of one kind; further callers gather for the next one. If this is larger, more calls carry a
single item; if it is smaller, more callers wait behind a call that hangs."""
GROUPED_WRITES_MAX: Final = 500
"""To measure and cut so many takes 3 ms, in which the event loop stands still; when all shards of a node clean up a backlog
at once, there are tens of thousands."""
TRANSACTIONS_AT_ONCE: Final = 4
"""Concurrent transactions; further requests gather for the next one. If this is smaller, the groups are larger and a
request waits longer for a slot. Of 2, 4 and 8, DynamoDB Local with 256 clients stores most with 2 (4: 10 % more than
8); at 5 ms a transaction, 16 clients get most from 8 (4: a quarter less, 2: a third less), and 256 clients most from 2
and 4."""
ACTIONS_MAX: Final = 100
"""DynamoDB takes no more in one transaction."""
CONFLICT_ATTEMPTS_MAX: Final = 6
"""Attempts of a write whose condition is all in it, so that nothing is decided anew: a transaction in its way is over within
milliseconds."""
THROTTLED_MAX: Final = 10_000
"""Keys remembered as throttled."""
ROUNDS_MAX: Final = 5
"""Copies of one group, each without the members that were named in the one before; then each is sent alone."""
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

# --- batches of one caller


async def read_all(client: DynamoClient, table: str, keys: Sequence[Item], *, consistent: bool = True) -> list[Item]:
    """Reads the items with these keys (no two of them equal), strongly unless not `consistent`; in any order, absent ones
    left out.

    Raises: StoreUnavailable, StoreThrottled.
    """
    chunks = [keys[start : start + READS_PER_CALL] for start in range(0, len(keys), READS_PER_CALL)]
    pages = await gather_bounded(partial(_read, client, table, consistent), chunks, at_once=CALLS_AT_ONCE)
    return [item for page in pages for item in page]


async def write_all(client: DynamoClient, table: str, requests: Sequence[Item]) -> None:
    """Does these PutRequests and DeleteRequests (no two of one key), in any order.

    Raises: StoreUnavailable, StoreThrottled; some of them may be done then.
    """
    key_of = _key_in(client, table)
    failures = await write_each(partial(write_once, client, table), {_key(key_of, one): one for one in requests})
    for failure in failures.values():
        raise failure


# --- writes, each with its own result

Writes = Mapping[PrimaryKey, Item]
"""Writes of one table, by the keys of their items."""
Failures = dict[PrimaryKey, StoreUnavailable]
"""The writes that may not be done, each with its error; those with `StoreThrottled` are to be sent again."""
WriteOnce = Callable[[Writes], Awaitable[Failures]]
"""Makes one call for at most `WRITES_PER_CALL` writes. Raises nothing."""


async def write_once(client: DynamoClient, table: str, requests: Writes) -> Failures:
    """Does these PutRequests and DeleteRequests by one call."""
    try:
        answer = await client.call("batch_write_item", RequestItems={table: list(requests.values())})
    except TransactionConflict as conflict:
        # The refusal does not name the item; no write of the call was done.
        return dict.fromkeys(requests, StoreThrottled(str(conflict)))
    except StoreUnavailable as error:
        return dict.fromkeys(requests, error)
    left = answer.get("UnprocessedItems", {}).get(table, [])
    key_of = _key_in(client, table)
    return {_key(key_of, request): StoreThrottled("DynamoDB left a write undone") for request in left}


async def insert_once(client: DynamoClient, table: str, items: Writes) -> Failures:
    """Puts each of these items, unless one with its key exists, by one call.

    A batch write cannot be conditional, and a transaction costs twice; a batch of PartiQL statements does each by itself.
    """
    statements = [
        {"Statement": _insert_text(table, item), "Parameters": list(item.values())} for item in items.values()
    ]
    try:
        answer = await client.call("batch_execute_statement", Statements=statements)
    except StoreUnavailable as error:
        return dict.fromkeys(items, error)
    failures: Failures = {}
    for key, response in zip(items, answer["Responses"], strict=True):
        code = str(response.get("Error", {}).get("Code", ""))
        if code in LATER_CODES:
            failures[key] = StoreThrottled(f"DynamoDB answered {code} to an insert")
        elif code and code not in STANDS_CODES:
            failures[key] = Rejected(f"DynamoDB answered {code} to an insert", code=code)
    return failures


async def write_each(once: WriteOnce, writes: Writes) -> Failures:
    """Does these writes of one caller, each until it is done, its failure is its own, or its attempts are used up."""
    found = await gather_bounded(partial(_write_chunk, once), _cut(writes), at_once=CALLS_AT_ONCE)
    return {key: failure for failures in found for key, failure in failures.items()}


async def _write_chunk(once: WriteOnce, writes: Writes) -> Failures:
    failures: Failures = {}
    left = writes
    for attempt in range(1, ATTEMPTS_MAX + 1):
        undone = await once(left)
        rejected = {key for key, error in undone.items() if isinstance(error, Rejected)}
        if rejected and len(left) > 1:
            # A call is rejected as a whole, for one of its writes.
            alone = [partial(_write_chunk, once, {key: left[key]}) for key in rejected]
            for found in await gather_bounded(lambda one: one(), alone, at_once=CALLS_AT_ONCE):
                failures |= found
            undone = {key: error for key, error in undone.items() if key not in rejected}
        failures |= {key: error for key, error in undone.items() if not isinstance(error, StoreThrottled)}
        left = {key: left[key] for key, error in undone.items() if isinstance(error, StoreThrottled)}
        if not left:
            return failures
        if attempt < ATTEMPTS_MAX:
            await asyncio.sleep(backoff_s(attempt))
    error = StoreThrottled(f"DynamoDB left {len(left)} writes undone", outcome_unknown=True)
    return failures | dict.fromkeys(left, error)


class BatchedWrites:
    """Micro-batching of idempotent writes: the shards of a node clean up at the same ticks, a few rows each.

    Of two writes of one key only the first is sent: all writers write the same, or the first one stands. No caller waits
    longer than one turn of the event loop for others, and one attempt of the shared calls.
    """

    def __init__(self, once: WriteOnce) -> None:
        """`once` is `write_once` or `insert_once` to some table."""
        self._once = once
        self._batches = MicroBatcher[Writes, Failures](self._send, size_max=GROUPED_WRITES_MAX)

    async def write(self, mine: Writes) -> Failures:
        """Does the writes `mine`; returns those that failed."""
        if not mine:
            return {}
        shared = await self._batches.submit(mine, size=len(mine))
        if shared is None:
            # The sender was cancelled, so nothing is known of the calls.
            return await write_each(self._once, mine)
        undone = {key: shared[key] for key in mine if key in shared}
        # A rejected call may be another caller's fault.
        again = {key: mine[key] for key, error in undone.items() if isinstance(error, StoreThrottled | Rejected)}
        if any(isinstance(undone[key], StoreThrottled) for key in again):
            await asyncio.sleep(backoff_s(1))
        final = {key: error for key, error in undone.items() if key not in again}
        return final | await write_each(self._once, again) if again else final

    async def _send(self, members: Sequence[Writes]) -> Failures:
        writes: dict[PrimaryKey, Item] = {}
        for member in members:
            for key, item in member.items():
                writes.setdefault(key, item)
        found = await gather_bounded(self._once, _cut(writes), at_once=CALLS_AT_ONCE)
        return {key: failure for failures in found for key, failure in failures.items()}


# --- reads of several callers


@dataclass(frozen=True, slots=True)
class _Found:
    """The result of batched reads."""

    items: Mapping[PrimaryKey, Item]
    undone: frozenset[PrimaryKey] = frozenset()
    """Left out by DynamoDB: their shard is throttled, or the answer is full."""
    failure: StoreUnavailable | None = None


class BatchedReads:
    """Micro-batching of strong reads of single items: callers that come while `READS_AT_ONCE` calls are in flight join the
    next one, which is sent after they asked.

    No caller waits for another's item: an item that DynamoDB leaves undone is read by its own caller, alone, and may be
    throttled alone.
    """

    def __init__(self, client: DynamoClient, table: str, *, items_max: int = READS_PER_CALL) -> None:
        """`items_max`: bound of one call, lower where items may be large: 16 MB in one answer would take the event loop
        half a second."""
        self._client = client
        self._table = table
        self._key_of = _key_in(client, table)
        self._batches = MicroBatcher[Sequence[Item], _Found](self._send, size_max=items_max, at_once=READS_AT_ONCE)

    async def get(self, key: Item) -> Item | None:
        """The item with this key, if it exists. Raises: StoreUnavailable, StoreThrottled."""
        (item,) = await self.get_all([key])
        return item

    async def get_all(self, keys: Sequence[Item]) -> list[Item | None]:
        """The items with these keys, in their order, all by one call; None for one that does not exist. At most
        `items_max`.

        Raises: StoreUnavailable, StoreThrottled.
        """
        found = await (self._send([keys]) if current_meter() is not None else self._submit(keys))
        while found is None:
            # The sender was cancelled. In a batch again: senders give up when the store is slow.
            found = await self._submit(keys)
        if found.failure is not None and not isinstance(found.failure, Rejected):
            raise found.failure
        items: list[Item | None] = []
        for key in keys:
            name = self._key_of(key)
            # The rejected key may be another caller's.
            alone = found.failure is not None or name in found.undone
            items.append(await self._get(key) if alone else found.items.get(name))
        return items

    async def _submit(self, keys: Sequence[Item]) -> _Found | None:
        return await self._batches.submit(keys, size=len(keys))

    async def _send(self, members: Sequence[Sequence[Item]]) -> _Found:
        keys = {self._key_of(key): key for member in members for key in member}
        try:
            if len(keys) == 1:
                item = await self._get(members[0][0])
                return _Found({self._key_of(item): item} if item is not None else {})
            wanted = {self._table: {"Keys": list(keys.values()), "ConsistentRead": True}}
            answer = await self._client.call("batch_get_item", RequestItems=wanted)
        except StoreUnavailable as error:
            return _Found({}, failure=error)
        left = answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", [])
        items = answer["Responses"].get(self._table, [])
        return _Found({self._key_of(item): item for item in items}, undone=frozenset(map(self._key_of, left)))

    async def _get(self, key: Item) -> Item | None:
        answer = await self._client.call("get_item", TableName=self._table, Key=key, ConsistentRead=True)
        item: Item | None = answer.get("Item")
        return item


# --- group commit


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Transaction:
    """The transaction of one request."""

    key: Hashable
    """Its schedule, or its job. It writes no item of any other."""
    actions: Sequence[Item]
    token: str
    """Tells DynamoDB that a repeat is one."""
    is_ours: Callable[[Refused], bool]
    """True if the item that made a condition fail was put by an earlier copy of this very request."""
    size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size_bytes", size_bytes(self.actions))


_Verdicts = dict[Hashable, ClockworkError | None]
"""The result of each transaction; None: committed. One that is missing is to be sent again, alone."""


class GroupCommit:
    """Commits transactions, each wholly or not at all."""

    def __init__(self, client: DynamoClient) -> None:
        self._client = client
        self._batches = MicroBatcher[Transaction, _Verdicts](
            self._send, size_max=ACTIONS_MAX, bytes_max=BYTES_PER_CALL, at_once=TRANSACTIONS_AT_ONCE
        )
        self._throttled: set[Hashable] = set()
        """The schedules or jobs whose transaction was throttled at its last try, alone."""

    async def commit(self, transaction: Transaction) -> None:
        """Commits the transaction; returns once this copy of the request or an earlier one is committed.

        Raises: Refused, TransactionConflict (nothing was written), StoreUnavailable.
        """
        if transaction.key in self._throttled:
            # Its caller tries again. It would make a whole group fail, as long as its shard is throttled.
            error = await self._commit_alone(transaction)
        else:
            verdicts = await self._submit(transaction)
            while verdicts is None:
                # The sender was cancelled, maybe in the middle of it: the same request again settles it. In a group
                # again: senders give up when the store is slow, and a slow store must not be asked for each alone.
                verdicts = await self._submit(transaction)
            if transaction.key in verdicts:
                error = verdicts[transaction.key]
            else:
                # By its own caller, after the group: neither its slot nor any other member waits for it.
                await asyncio.sleep(backoff_s(1))
                error = await self._commit_alone(transaction)
        if error is not None:
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
        left = group
        for _ in range(ROUNDS_MAX):
            if len(left) == 1:
                verdicts[left[0].key] = await self._commit_alone(left[0])
            if len(left) < 2:
                break
            left = await self._commit_together(left, verdicts)
        return verdicts

    async def _commit_together(self, group: Sequence[Transaction], verdicts: _Verdicts) -> Sequence[Transaction]:
        """Adds the results that are known to `verdicts`. Returns the members that stand in no one's way and go again
        together; those that are in neither go alone."""
        try:
            await self._client.call(
                "transact_write_items",
                TransactItems=[action for member in group for action in member.actions],
                ClientRequestToken=token_of(*(member.token for member in group)),
            )
        except Cancelled as cancelled:
            left: list[Transaction] = []
            last = 0
            for member in group:
                first, last = last, last + len(member.actions)
                error = cancelled.error_of(cancelled.reasons[first:last])
                if error is None:
                    left.append(member)
                elif isinstance(error, Refused):
                    verdicts[member.key] = None if member.is_ours(error) else error
                elif isinstance(error, Rejected):
                    verdicts[member.key] = error
            return left if len(left) < len(group) else []
        except (TransactionConflict, StoreThrottled, Rejected):
            # The group failed by the fault of members that DynamoDB does not name.
            return []
        except StoreUnavailable as error:
            verdicts |= {member.key: error for member in group}
        else:
            verdicts |= {member.key: None for member in group}
        return []

    async def _commit_alone(self, member: Transaction) -> ClockworkError | None:
        """Its result."""
        error: ClockworkError | None = None
        try:
            await self._client.call(
                "transact_write_items", TransactItems=list(member.actions), ClientRequestToken=member.token
            )
        except Cancelled as cancelled:
            error = cancelled.error()
            if isinstance(error, Refused) and member.is_ours(error):
                error = None
        except (StoreUnavailable, TransactionConflict) as failure:
            error = failure
        if isinstance(error, StoreThrottled):
            if len(self._throttled) >= THROTTLED_MAX:
                self._throttled.clear()  # of callers that gave up
            self._throttled.add(member.key)
        else:
            self._throttled.discard(member.key)
        return error


async def transact(client: DynamoClient, operation: str, **parameters: Any) -> dict[str, Any]:
    """Makes one transaction of one caller. Raises: as `DynamoClient.call`, but for Cancelled its gravest reason."""
    try:
        return await client.call(operation, **parameters)
    except Cancelled as cancelled:
        raise cancelled.error() from None


async def retry_on_conflict(client: DynamoClient, operation: str, **parameters: Any) -> dict[str, Any]:
    """Does a write of one item, waiting while a transaction is in its way; returns its answer. Raises: as
    `DynamoClient.call`, but for TransactionConflict."""
    attempt = 1
    while True:
        try:
            return await client.call(operation, **parameters)
        except TransactionConflict as conflict:
            if attempt == CONFLICT_ATTEMPTS_MAX:
                raise StoreThrottled("a transaction stood in the way for too long") from conflict
        await asyncio.sleep(backoff_s(attempt))
        attempt += 1


# --- single calls


async def _read(client: DynamoClient, table: str, consistent: bool, keys: Sequence[Item]) -> list[Item]:
    found: list[Item] = []
    left: Sequence[Item] = keys
    for attempt in range(1, ATTEMPTS_MAX + 1):
        wanted = {table: {"Keys": left, "ConsistentRead": consistent}}
        answer = await client.call("batch_get_item", RequestItems=wanted)
        got = answer["Responses"].get(table, [])
        found += got
        left = answer.get("UnprocessedKeys", {}).get(table, {}).get("Keys", [])
        if not left:
            return found
        # A part may be missing only because an answer has at most 16 MB: as long as some items came, DynamoDB is not
        # overloaded.
        if not got:
            await asyncio.sleep(backoff_s(attempt))
    raise StoreThrottled(f"DynamoDB left {len(left)} reads undone")


def _insert_text(table: str, item: Item) -> str:
    members = ", ".join(f"'{name}': ?" for name in item)
    return f'INSERT INTO "{table}" VALUE {{{members}}}'


def _cut(writes: Writes) -> Iterator[Writes]:
    chunk: dict[PrimaryKey, Item] = {}
    chunk_bytes = 0
    for key, write in writes.items():
        write_bytes = size_bytes(write)
        if chunk and (len(chunk) == WRITES_PER_CALL or chunk_bytes + write_bytes > BYTES_PER_CALL):
            yield chunk
            chunk, chunk_bytes = {}, 0
        chunk[key] = write
        chunk_bytes += write_bytes
    if chunk:
        yield chunk


def _key_in(client: DynamoClient, table: str) -> Callable[[Item], PrimaryKey]:
    """The function that gives the primary key of an item of this table."""
    settings = client.settings
    names = {
        settings.schedules_table: codec.ROW_KEY,
        settings.keys_table: codec.KEY_KEY,
        settings.jobs_table: codec.JOB_KEY,
    }
    return partial(codec.primary_key, names.get(table, codec.EXECUTION_KEY))


def _key(key_of: Callable[[Item], PrimaryKey], request: Item) -> PrimaryKey:
    """The primary key of the item that a request writes."""
    return key_of(request["PutRequest"]["Item"] if "PutRequest" in request else request["DeleteRequest"]["Key"])
