"""Tables that were made without the index of lists get it from `init`.

Not on DynamoDB Local: it leaves about every tenth index that is added to a table CREATING for good, and then those of all
other tables as well.
"""

from typing import Any

import pytest

from clockwork.errors import CannotStart
from clockwork.settings.model import DynamoSettings
from clockwork.stores.dynamodb import schema as dynamo_tables
from clockwork.stores.dynamodb.errors import Rejected

SETTINGS = DynamoSettings(region="x", schedules_table="rows", executions_table="shards", keys_table="keys")


class OldTables:
    """In the place of the client: the tables as they were before there was an index."""

    def __init__(self) -> None:
        self.settings = SETTINGS
        self.updates: list[dict[str, Any]] = []
        self.statuses = ["CREATING", "CREATING", "ACTIVE"]
        """The states of the index, one for each request."""
        self.error: Rejected | None = None

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        match operation:
            case "create_table":
                raise Rejected("it exists", code="ResourceInUseException")
            case "update_table":
                if self.error is not None:
                    raise self.error
                self.updates.append(parameters)
                return {}
            case "describe_table":
                return {"Table": {"TableStatus": "ACTIVE", **self._indexes(parameters["TableName"])}}
            case "describe_time_to_live":
                return {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": "expiresAt"}}
        raise AssertionError(operation)

    def _indexes(self, table: str) -> dict[str, Any]:
        if table == "jobs":
            return {"GlobalSecondaryIndexes": [{"IndexName": "byClient", "IndexStatus": "ACTIVE"}]}
        if not self.updates or table != "keys":
            return {}
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        (made,) = self.updates[0]["GlobalSecondaryIndexUpdates"]
        return {"GlobalSecondaryIndexes": [made["Create"] | {"IndexStatus": status}]}


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> OldTables:
    old = OldTables()
    monkeypatch.setattr(dynamo_tables, "POLL_SECONDS", 0)
    return old


async def test_the_index_is_added_once_and_waited_for(tables: OldTables) -> None:
    await dynamo_tables.create_tables(tables)  # type: ignore[arg-type]

    (update,) = tables.updates
    assert update["TableName"] == "keys"
    (added,) = update["GlobalSecondaryIndexUpdates"]
    index = added["Create"]
    assert (index["IndexName"], index["Projection"]) == ("byClient", {"ProjectionType": "ALL"})
    assert [part["AttributeName"] for part in index["KeySchema"]] == ["listedUnder", "current"]
    assert {a["AttributeName"] for a in update["AttributeDefinitions"]} == {
        "clientKey",
        "position",
        "listedUnder",
        "current",
    }
    assert tables.statuses == ["ACTIVE"]

    await dynamo_tables.create_tables(tables)  # type: ignore[arg-type]
    assert len(tables.updates) == 1


async def test_another_node_that_was_faster_is_no_error(tables: OldTables) -> None:
    tables.error = Rejected("being updated", code="ResourceInUseException")
    await dynamo_tables.create_tables(tables)  # type: ignore[arg-type]


async def test_without_the_right_to_add_it_the_reason_is_told(tables: OldTables) -> None:
    tables.error = Rejected("not allowed", code="AccessDeniedException")
    with pytest.raises(Rejected, match="not allowed"):
        await dynamo_tables.create_tables(tables)  # type: ignore[arg-type]


async def test_one_that_is_never_filled_is_not_waited_for_for_ever(
    tables: OldTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamo_tables, "ACTIVE_SECONDS_MAX", 0.05)
    tables.statuses = ["CREATING"]
    with pytest.raises(CannotStart, match="keys cannot be used"):
        await dynamo_tables.create_tables(tables)  # type: ignore[arg-type]
