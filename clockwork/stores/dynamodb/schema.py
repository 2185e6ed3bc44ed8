"""Makes the four tables and the items of a new cluster, and checks them, and the node's rights, at every start.

A shard's item must never be made twice: a floor that is lost and starts again at zero would let a cancel answer
`cancelled` for a schedule that an owner has read already. So the items are made once, for a new cluster, each only if
it does not exist; the item `cluster` is put last and makes the cluster exist. After that no item is ever put there again:
a missing one is an error, for a person to judge.
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from clockwork.concurrency import gather_bounded
from clockwork.domain.ownership import ShardState
from clockwork.domain.sharding import ShardId
from clockwork.errors import CannotStart, NewerFormat, Unreadable
from clockwork.ports.findings import Findings
from clockwork.settings.model import DynamoSettings
from clockwork.stores.dynamodb import codec
from clockwork.stores.dynamodb.attributes import Item
from clockwork.stores.dynamodb.batching import read_all
from clockwork.stores.dynamodb.client import DynamoClient
from clockwork.stores.dynamodb.codec import INDEX, INDEX_KEY, JOB_INDEX_KEY
from clockwork.stores.dynamodb.errors import Cancelled, Refused, Rejected

EXPIRY_ATTRIBUTE: Final = "expiresAt"
ACTIVE_SECONDS_MAX: Final = 90
"""Time for a table to become usable: on AWS some 10 s."""
POLL_SECONDS: Final = 0.5
"""Between two requests for the state of a table that is being made."""
USABLE: Final = frozenset({"ACTIVE", "UPDATING"})
"""Table states in which requests are served."""
TABLES_AT_ONCE: Final = 4
PUTS_AT_ONCE: Final = 8
"""Concurrent puts of the items of a new cluster."""

DENIED: Final = frozenset({"AccessDeniedException", "UnauthorizedOperation"})
NO_NAME: Final = "-"
"""A name that no shard, and no client with a key, has."""

_ABSENT: Final = "ResourceNotFoundException"
_BEING_CHANGED: Final = frozenset({"ResourceInUseException", "ValidationException", "LimitExceededException"})
"""Error codes of a table if another node has just asked for the same change."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Index:
    """The index `INDEX` of a table as it must be."""

    key: tuple[tuple[str, str], ...]
    """As that of a table."""
    projection: str
    or_without: str = ""
    """The other way out for an operator, as the end of a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Table:
    """A table as it must be."""

    name: str
    key: tuple[tuple[str, str], ...]
    """Name and type: first the DynamoDB partition key, then, if any, the sort key."""
    expires: bool = False
    """True if TTL deletes its items."""
    kept: bool = False
    """True if TTL must not delete its items, whatever they bear."""
    index: _Index | None = None
    """None: the table needs no index."""

    @property
    def attributes(self) -> tuple[tuple[str, str], ...]:
        """The attributes of all its keys."""
        return self.key + (self.index.key if self.index is not None else ())


def _tables(settings: DynamoSettings) -> tuple[_Table, ...]:
    lists = _Index(
        key=INDEX_KEY, projection="ALL", or_without=", or set CLOCKWORK_SEARCH=off, and GET /schedules is not served"
    )
    return (
        _Table(name=settings.schedules_table, key=(("partitionId", "S"), ("scheduleTime", "N"))),
        # A shard or an incarnation that expired would be taken for one that has read nothing (docs/protocol.md: x-ttl).
        _Table(name=settings.executions_table, key=(("partitionId", "S"),), kept=True),
        _Table(
            name=settings.keys_table,
            key=(("clientKey", "S"), ("position", "N")),
            expires=True,
            index=lists if settings.search == "on" else None,
        ),
        # Also where CLOCKWORK_JOBS is off: a node may own rows of jobs that another one has accepted.
        _Table(
            name=settings.jobs_table,
            key=(("jobKey", "S"), ("item", "S")),
            expires=True,
            index=_Index(key=JOB_INDEX_KEY, projection="KEYS_ONLY"),
        ),
    )


async def create_tables(client: DynamoClient) -> None:
    """Makes the missing tables, and returns when all can be used. Any number of nodes may do it at the same time, and
    again.

    Raises: StoreUnavailable, CannotStart (a table did not become usable in time).
    """
    await gather_bounded(partial(_create, client), _tables(client.settings), at_once=TABLES_AT_ONCE)


async def init_cluster(client: DynamoClient, *, shards: int) -> None:
    """Makes the items of a new cluster; of an existing one, checks that it has this shard count. May be repeated after
    a crash, and done by any number of nodes at once.

    Raises: StoreUnavailable, CannotStart.
    """
    if not await _cluster_exists(client, shards):
        await _put_new_cluster(client, shards)
    if missing := await _missing_shards(client, shards):
        raise CannotStart(_missing_line(client.settings, missing))


async def check_tables(client: DynamoClient, *, shards: int) -> Findings:
    """Finds out whether this node may work on these tables. Raises: StoreUnavailable."""
    problems: list[str] = []
    warnings: list[str] = []
    for table in _tables(client.settings):
        problems += await _problems_of(client, table, warnings)
    # Rights cannot be tried on a missing table, and the items cannot be read without rights.
    for check in (partial(problems_of_rights, client), partial(_problems_of_cluster, client, shards)):
        problems += [] if problems else await check()
    return Findings(problems=tuple(problems), warnings=tuple(warnings))


# --- tables


async def _create(client: DynamoClient, table: _Table) -> None:
    indexes: dict[str, Any] = {"GlobalSecondaryIndexes": [_made(table.index)]} if table.index is not None else {}
    try:
        await client.call(
            "create_table",
            TableName=table.name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=_definitions(table.attributes),
            KeySchema=_key_schema(table.key),
            **indexes,
        )
    except Rejected as rejected:
        if rejected.code != "ResourceInUseException":
            raise
        # It exists, or another node is making it.
    await _until_active(client, table)
    if table.index is not None:
        await _add_index(client, table, table.index)
    if table.expires:
        await _turn_expiry_on(client, table)


def _definitions(attributes: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [{"AttributeName": name, "AttributeType": kind} for name, kind in attributes]


def _key_schema(key: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [{"AttributeName": name, "KeyType": role} for (name, _), role in zip(key, ("HASH", "RANGE"), strict=False)]


def _made(index: _Index) -> dict[str, Any]:
    return {
        "IndexName": INDEX,
        "KeySchema": _key_schema(index.key),
        "Projection": {"ProjectionType": index.projection},
    }


async def _add_index(client: DynamoClient, table: _Table, index: _Index) -> None:
    """Adds the index to a table that was made without it; DynamoDB fills it by itself."""
    described = await _describe(client, table)
    if described is not None and _index_in(described) is None:
        try:
            await client.call(
                "update_table",
                TableName=table.name,
                AttributeDefinitions=_definitions(table.attributes),
                GlobalSecondaryIndexUpdates=[{"Create": _made(index)}],
            )
        except Rejected as rejected:
            if rejected.code not in _BEING_CHANGED:
                raise
            # Another node was faster, or the check that follows says that it is missing.
    await _until_active(client, table)


def _is_filling(described: dict[str, Any]) -> bool:
    index = _index_in(described)
    return index is not None and (index.get("IndexStatus") == "CREATING" or bool(index.get("Backfilling")))


def _index_in(described: dict[str, Any]) -> dict[str, Any] | None:
    for index in described.get("GlobalSecondaryIndexes", []):
        if index["IndexName"] == INDEX:
            found: dict[str, Any] = index
            return found
    return None


def _index_problem(table: _Table, wanted: _Index, described: dict[str, Any]) -> str | None:
    index = _index_in(described)
    if index is None:
        return f"table {table.name} has no index {INDEX}: run `python -m clockwork init`{wanted.or_without}"
    names = tuple(part["AttributeName"] for part in index["KeySchema"])
    projected = index.get("Projection", {}).get("ProjectionType")
    if names != tuple(name for name, _ in wanted.key) or projected != wanted.projection:
        return (
            f"table {table.name}: index {INDEX} is not as `python -m clockwork init` makes it: delete it and run that"
        )
    if _is_filling(described):
        return f"table {table.name}: index {INDEX} is still being filled: wait until it is ACTIVE{wanted.or_without}"
    return None


async def _until_active(client: DynamoClient, table: _Table) -> None:
    try:
        async with asyncio.timeout(ACTIVE_SECONDS_MAX):
            while True:
                described = await _describe(client, table)
                filling = described is not None and table.index is not None and _is_filling(described)
                if described is not None and described["TableStatus"] in USABLE and not filling:
                    return
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError as error:
        raise CannotStart(f"table {table.name} cannot be used after {ACTIVE_SECONDS_MAX} s") from error


async def _turn_expiry_on(client: DynamoClient, table: _Table) -> None:
    if await _expiry_problem(client, table) is None:
        return
    specification = {"Enabled": True, "AttributeName": EXPIRY_ATTRIBUTE}
    try:
        await client.call("update_time_to_live", TableName=table.name, TimeToLiveSpecification=specification)
    except Rejected as rejected:
        if rejected.code not in _BEING_CHANGED:
            raise
        # Another node was faster, unless it is still off.
        if problem := await _expiry_problem(client, table):
            raise CannotStart(problem) from rejected


async def _describe(client: DynamoClient, table: _Table) -> dict[str, Any] | None:
    try:
        answer = await client.call("describe_table", TableName=table.name)
    except Rejected as rejected:
        if rejected.code == _ABSENT:
            return None
        raise
    described: dict[str, Any] = answer["Table"]
    return described


async def _kept_problem(client: DynamoClient, table: _Table) -> str | None:
    expiry = await _expiry(client, table)
    if expiry.get("TimeToLiveStatus", "DISABLED") == "DISABLED":
        return None
    return f"table {table.name}: TTL is on for {expiry.get('AttributeName')}; turn it off: nothing in it may expire"


async def _expiry(client: DynamoClient, table: _Table) -> dict[str, Any]:
    answer = await client.call("describe_time_to_live", TableName=table.name)
    expiry: dict[str, Any] = answer.get("TimeToLiveDescription", {})
    return expiry


async def _expiry_problem(client: DynamoClient, table: _Table) -> str | None:
    expiry = await _expiry(client, table)
    if expiry.get("TimeToLiveStatus") not in ("ENABLED", "ENABLING"):
        return f"table {table.name}: TTL is off; turn it on for {EXPIRY_ATTRIBUTE}"
    if expiry.get("AttributeName") != EXPIRY_ATTRIBUTE:
        return f"table {table.name}: TTL is on for {expiry.get('AttributeName')}, not for {EXPIRY_ATTRIBUTE}"
    return None


async def _problems_of(client: DynamoClient, table: _Table, warnings: list[str]) -> list[str]:
    try:
        described = await _describe(client, table)
    except Rejected as rejected:
        if rejected.code not in DENIED:
            raise
        return [f"table {table.name}: dynamodb:DescribeTable is denied: grant it as infra/iam/node.json says"]
    if described is None:
        return [f"table {table.name} is missing: run `python -m clockwork init`"]
    if described.get("TableStatus") not in USABLE:
        return [f"table {table.name} is {described.get('TableStatus')}, not ACTIVE"]
    types = {a["AttributeName"]: a["AttributeType"] for a in described["AttributeDefinitions"]}
    found = tuple((part["AttributeName"], types[part["AttributeName"]]) for part in described["KeySchema"])
    if found != table.key:
        return [f"table {table.name} has the key {_spelled(found)}, not {_spelled(table.key)}"]
    if described.get("BillingModeSummary", {}).get("BillingMode") != "PAY_PER_REQUEST":
        warnings.append(
            f"table {table.name} has provisioned capacity: what is over it waits; switch to PAY_PER_REQUEST, or let it scale"
        )
    problems = [
        await _expiry_problem(client, table) if table.expires else None,
        await _kept_problem(client, table) if table.kept else None,
        _index_problem(table, table.index, described) if table.index is not None else None,
    ]
    return [problem for problem in problems if problem is not None]


def _spelled(key: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in key)


# --- rights


async def problems_of_rights(client: DynamoClient) -> list[str]:
    """Tries each operation that a node needs; one line for each that is denied. Raises: StoreUnavailable.

    DynamoDB has no way to ask for rights, and a missing right would show at the first schedule, or at the first cancel
    weeks later. So each operation is asked for once, at a key that no item can have, and on a condition that cannot hold:
    it is refused for its condition if it was allowed. That costs a write unit each. Batches and transactions are not
    tried: they need the rights of their single actions, but for `BatchGetItem` and `BatchWriteItem`. A transaction alone can
    check a condition, so that right is tried by one.
    """
    settings = client.settings
    row = {"partitionId": {"S": NO_NAME}, "scheduleTime": {"N": "0"}}
    shard = {"partitionId": {"S": NO_NAME}}
    outcome = {"clientKey": {"S": NO_NAME}, "position": {"N": "0"}}
    job = {"jobKey": {"S": NO_NAME}, "item": {"S": NO_NAME}}
    asked: list[tuple[str, str, dict[str, Any]]] = [
        *_writes_tried(settings.schedules_table, row, "partitionId", "put_item", "update_item", "delete_item"),
        ("query", settings.schedules_table, _query_tried("partitionId")),
        *_writes_tried(settings.executions_table, shard, "partitionId", "put_item", "update_item", "delete_item"),
        ("scan", settings.executions_table, {"Limit": 1}),
        *_writes_tried(settings.keys_table, outcome, "clientKey", "put_item", "update_item"),
        ("query", settings.keys_table, _query_tried("clientKey")),
        *_writes_tried(settings.jobs_table, job, "jobKey", "put_item", "update_item", "delete_item"),
        ("query", settings.jobs_table, _query_tried("jobKey")),
        ("query", settings.jobs_table, {"IndexName": INDEX, **_query_tried(JOB_INDEX_KEY[0][0])}),
        ("scan", settings.jobs_table, {"IndexName": INDEX, "Limit": 1}),
    ]
    if settings.search == "on":
        asked.append(("query", settings.keys_table, {"IndexName": INDEX, **_query_tried(INDEX_KEY[0][0])}))
    problems = [await _right_problem(client, operation, table, more) for operation, table, more in asked]
    for table, key, attribute in (
        (settings.schedules_table, row, "partitionId"),
        (settings.executions_table, shard, "partitionId"),
        (settings.keys_table, outcome, "clientKey"),
        (settings.jobs_table, job, "jobKey"),
    ):
        check = {"TableName": table, "Key": key, "ConditionExpression": f"attribute_exists({attribute})"}
        problems.append(
            await _right_problem(
                client,
                "transact_write_items",
                table,
                {"TransactItems": [{"ConditionCheck": check}]},
                "ConditionCheckItem",
            )
        )
    return [problem for problem in problems if problem is not None]


def _writes_tried(
    table: str, key: dict[str, Any], attribute: str, *operations: str
) -> list[tuple[str, str, dict[str, Any]]]:
    never = {"ConditionExpression": f"attribute_exists({attribute})"}
    return [(name, table, {"Item" if name == "put_item" else "Key": key} | never) for name in operations]


def _query_tried(attribute: str) -> dict[str, Any]:
    return {
        "KeyConditionExpression": f"{attribute} = :nothing",
        "ExpressionAttributeValues": {":nothing": {"S": NO_NAME}},
        "Limit": 1,
    }


async def _right_problem(
    client: DynamoClient, operation: str, table: str, more: dict[str, Any], right: str | None = None
) -> str | None:
    """Tries an operation; `right` names what it needs, if not what its own name says."""
    named: dict[str, Any] = {} if operation == "transact_write_items" else {"TableName": table}
    try:
        await client.call(operation, **named, **more)
    except (Refused, Cancelled):
        return None  # for its condition, so it was allowed
    except Rejected as rejected:
        if rejected.code not in DENIED:
            raise
        place = f"index {more['IndexName']} of table {table}" if "IndexName" in more else f"table {table}"
        name = right or operation.title().replace("_", "")
        return f"{place}: dynamodb:{name} is denied: grant it as infra/iam/node.json says"
    return None


# --- the items of the cluster


async def _read_cluster(client: DynamoClient) -> Item | None:
    key = {"partitionId": {"S": codec.CLUSTER}}
    answer = await client.call("get_item", TableName=client.settings.executions_table, Key=key, ConsistentRead=True)
    item: Item | None = answer.get("Item")
    return item


async def _cluster_exists(client: DynamoClient, shards: int) -> bool:
    item = await _read_cluster(client)
    if item and (problem := _cluster_problem(client.settings, item, shards)):
        raise CannotStart(problem)
    return item is not None


async def _put_new_cluster(client: DynamoClient, shards: int) -> None:
    if not await _looks_unused(client, shards):
        if await _cluster_exists(client, shards):
            # Another node has made it meanwhile, and the cluster is in use already.
            return
        raise CannotStart(
            f"table {client.settings.executions_table} has no item `{codec.CLUSTER}`, but the tables have been used: "
            "items were lost, and with them, maybe, frontiers; restore them, or start with empty tables"
        )
    blank = ShardState(epoch=0, owner=None, floor_ms=0)
    items = [codec.shard_item(ShardId(number), blank) for number in range(shards)]
    await gather_bounded(partial(_put_if_absent, client), items, at_once=PUTS_AT_ONCE)
    # Last: from now on the cluster exists, and a missing item is lost.
    await _put_if_absent(client, codec.cluster_item(shards))
    if not await _cluster_exists(client, shards):
        raise CannotStart(f"item `{codec.CLUSTER}` was deleted while the cluster was being made")


async def _looks_unused(client: DynamoClient, shards: int) -> bool:
    """True if no shard was ever owned, and no schedule is stored."""
    for item in await _read_shards(client, shards):
        try:
            if codec.shard_state_of(item) != ShardState(epoch=0, owner=None, floor_ms=0):
                return False
        except Unreadable:
            return False
    answer = await client.call("scan", TableName=client.settings.schedules_table, Limit=1, ConsistentRead=True)
    return not answer.get("Items")


async def _put_if_absent(client: DynamoClient, item: Item) -> None:
    try:
        await client.call(
            "put_item",
            TableName=client.settings.executions_table,
            Item=item,
            ConditionExpression="attribute_not_exists(partitionId)",
        )
    except Refused:
        # Another node, or this one before a crash, has put it: the stored item stays.
        return


async def _read_shards(client: DynamoClient, shards: int) -> list[Item]:
    keys = [codec.shard_key(ShardId(number)) for number in range(shards)]
    return await read_all(client, client.settings.executions_table, keys)


async def _missing_shards(client: DynamoClient, shards: int) -> list[int]:
    there = {item["partitionId"]["S"] for item in await _read_shards(client, shards)}
    return [number for number in range(shards) if str(number) not in there]


def _missing_line(settings: DynamoSettings, missing: list[int]) -> str:
    named = ", ".join(str(number) for number in missing[:10]) + (", …" if len(missing) > 10 else "")
    return (
        f"table {settings.executions_table}: the items of {len(missing)} shards are lost ({named}); they are never made "
        "anew, because cancels would then be answered wrongly: restore them"
    )


def _cluster_problem(settings: DynamoSettings, item: Item, shards: int) -> str | None:
    try:
        stored = codec.shard_count_of(item)
    except NewerFormat as error:
        return f"table {settings.executions_table}, item `{codec.CLUSTER}`: {error}"
    except Unreadable as error:
        return (
            f"table {settings.executions_table}, item `{codec.CLUSTER}`: {error}; if an earlier version made it, stop all "
            "nodes and run `python -m infra.migrate.upgrade`"
        )
    if stored != shards:
        return f"the cluster has {stored} shards, and CLOCKWORK_SHARDS is {shards}: set it to {stored}"
    return None


async def _problems_of_cluster(client: DynamoClient, shards: int) -> list[str]:
    settings = client.settings
    item = await _read_cluster(client)
    if item is None:
        return [f"table {settings.executions_table} has no item `{codec.CLUSTER}`: run `python -m clockwork init` once"]
    if problem := _cluster_problem(settings, item, shards):
        return [problem]
    problems: list[str] = []
    there: set[str] = set()
    for shard in await _read_shards(client, shards):
        name = shard["partitionId"]["S"]
        there.add(name)
        try:
            codec.shard_state_of(shard)
        except Unreadable as error:
            problems.append(f"table {settings.executions_table}, shard {name}: {error}")
    missing = [number for number in range(shards) if str(number) not in there]
    if missing:
        problems.append(_missing_line(settings, missing))
    return problems
