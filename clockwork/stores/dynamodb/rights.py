"""May this node write and read its tables? Asked at a start by requests that change nothing, whoever answers.

DynamoDB has no way to ask for rights, and a right that is missing would show at the first schedule, or at the first cancel
weeks later. So each operation is asked for once, at a key that nobody can have, and on a condition that cannot hold: it is
refused for its condition if it was allowed. That costs a write unit each. Batches and transactions are not tried: they
need the rights of their single actions, but for `BatchGetItem` and `BatchWriteItem`.
"""

from typing import Any, Final

from clockwork.stores.dynamodb.client import DynamoClient
from clockwork.stores.dynamodb.errors import Refused, Rejected
from clockwork.stores.dynamodb.index import INDEX, INDEX_KEY

DENIED: Final = frozenset({"AccessDeniedException", "UnauthorizedOperation"})
NOBODY: Final = "-"
"""No shard, and no client with a key, has this name."""


async def rights_problems(client: DynamoClient) -> list[str]:
    """One line for each operation that is denied. Raises: StoreUnavailable."""
    settings = client.settings
    row = {"partitionId": {"S": NOBODY}, "scheduleTime": {"N": "0"}}
    shard = {"partitionId": {"S": NOBODY}}
    outcome = {"clientKey": {"S": NOBODY}, "position": {"N": "0"}}
    asked: list[tuple[str, str, dict[str, Any]]] = [
        *_writes(settings.schedules_table, row, "partitionId", "put_item", "update_item", "delete_item"),
        ("query", settings.schedules_table, _of("partitionId")),
        *_writes(settings.executions_table, shard, "partitionId", "update_item"),
        *_writes(settings.keys_table, outcome, "clientKey", "put_item", "update_item"),
        ("query", settings.keys_table, _of("clientKey")),
    ]
    if settings.search == "on":
        asked.append(("query", settings.keys_table, {"IndexName": INDEX, **_of(INDEX_KEY[0][0])}))
    problems = [await _problem(client, operation, table, more) for operation, table, more in asked]
    return [problem for problem in problems if problem is not None]


def _writes(table: str, key: dict[str, Any], attribute: str, *operations: str) -> list[tuple[str, str, dict[str, Any]]]:
    never = {"ConditionExpression": f"attribute_exists({attribute})"}
    return [(name, table, {"Item" if name == "put_item" else "Key": key} | never) for name in operations]


def _of(attribute: str) -> dict[str, Any]:
    return {
        "KeyConditionExpression": f"{attribute} = :nobody",
        "ExpressionAttributeValues": {":nobody": {"S": NOBODY}},
        "Limit": 1,
    }


async def _problem(client: DynamoClient, operation: str, table: str, more: dict[str, Any]) -> str | None:
    try:
        await client.call(operation, TableName=table, **more)
    except Refused:
        return None  # for its condition, so it was allowed
    except Rejected as rejected:
        if rejected.code not in DENIED:
            raise
        place = f"index {more['IndexName']} of table {table}" if "IndexName" in more else f"table {table}"
        right = f"dynamodb:{operation.title().replace('_', '')}"
        return f"{place}: {right} is denied: grant it as infra/iam/node.json says"
    return None
