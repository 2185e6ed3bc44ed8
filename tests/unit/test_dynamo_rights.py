"""Rights are asked for by requests that change nothing, whatever the answer."""

from typing import Any, Literal

import pytest

from clockwork.errors import StoreUnavailable
from clockwork.settings.model import DynamoSettings
from clockwork.stores.dynamodb.client import READS
from clockwork.stores.dynamodb.errors import Cancelled, Reason, Refused, Rejected
from clockwork.stores.dynamodb.schema import problems_of_rights


class Tables:
    """Answers as DynamoDB does; `denied`: pairs of operation and table."""

    def __init__(self, *denied: tuple[str, str], search: Literal["on", "off"] = "on") -> None:
        self.settings = DynamoSettings(
            region="r",
            schedules_table="rows",
            executions_table="shards",
            keys_table="keys",
            jobs_table="jobs",
            search=search,
        )
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.error: Exception | None = None
        self._denied = denied

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        self.asked.append((operation, parameters))
        if self.error is not None:
            raise self.error
        if (operation, table_of(parameters)) in self._denied:
            raise Rejected("no", code="AccessDeniedException")
        if "ConditionExpression" in parameters:
            raise Refused((None,), failed=(True,))
        if "TransactItems" in parameters:
            raise Cancelled([Reason("ConditionalCheckFailed")], answer_lost=False)
        return {}


def table_of(parameters: dict[str, Any]) -> str:
    transaction = parameters.get("TransactItems")
    table: str = (transaction[0]["ConditionCheck"] if transaction else parameters)["TableName"]
    return table


async def problems(tables: Tables) -> list[str]:
    return await problems_of_rights(tables)  # type: ignore[arg-type]


async def test_where_all_is_allowed_nothing_is_said_and_no_write_could_have_done_anything() -> None:
    tables = Tables()
    assert await problems(tables) == []
    writes = [
        parameters["TransactItems"][0]["ConditionCheck"] if "TransactItems" in parameters else parameters
        for operation, parameters in tables.asked
        if operation not in READS
    ]
    assert len(writes) == 15
    assert all(parameters["ConditionExpression"].startswith("attribute_exists(") for parameters in writes)


async def test_each_denied_operation_is_one_line_that_names_the_right_and_the_table() -> None:
    found = await problems(
        Tables(
            ("delete_item", "rows"),
            ("update_item", "shards"),
            ("scan", "shards"),
            ("query", "keys"),
            ("transact_write_items", "keys"),
            ("update_item", "jobs"),
            ("scan", "jobs"),
        )
    )
    assert [line.split(" is denied")[0] for line in found] == [
        "table rows: dynamodb:DeleteItem",
        "table shards: dynamodb:UpdateItem",
        "table shards: dynamodb:Scan",
        "table keys: dynamodb:Query",
        "table jobs: dynamodb:UpdateItem",
        "index byClient of table jobs: dynamodb:Scan",
        "index byClient of table keys: dynamodb:Query",
        "table keys: dynamodb:ConditionCheckItem",
    ]
    assert all("infra/iam/node.json" in line for line in found)


async def test_an_index_that_is_not_used_is_not_asked_for() -> None:
    assert len(await problems(Tables(("query", "keys"), search="off"))) == 1


@pytest.mark.parametrize("error", [StoreUnavailable(), Rejected("odd", code="ValidationException")])
async def test_what_is_no_denial_is_no_finding_and_is_raised(error: Exception) -> None:
    tables = Tables()
    tables.error = error
    with pytest.raises(type(error)):
        await problems(tables)
