"""Counting in the index: right whatever a page holds, and never dearer than what was asked for."""

from typing import Any

import pytest

from clockwork.domain.position import first_at
from clockwork.settings.model import DynamoSettings
from clockwork.stores.dynamodb.codec import LIST_BUCKETS
from clockwork.stores.dynamodb.search import DynamoScheduleSearch
from tests.support.builders import CLIENT


class IndexOfSizes:
    """Answers counts as an index does that has so many entries in each bucket, `page_max` of them a page."""

    def __init__(self, sizes: list[int], *, page_max: int = 1_000) -> None:
        self.settings = DynamoSettings(region="us-east-1")
        self.read = 0
        self._sizes = sizes
        self._page_max = page_max

    async def call(self, operation: str, **asked: Any) -> dict[str, Any]:
        assert (operation, asked["Select"], asked["IndexName"]) == ("query", "COUNT", "byClient")
        bucket = int(asked["ExpressionAttributeValues"][":listed"]["S"].rpartition("/")[2])
        begun = int(asked.get("ExclusiveStartKey", {"at": {"N": "0"}})["at"]["N"])
        count = min(self._sizes[bucket] - begun, asked["Limit"], self._page_max)
        self.read += count
        # As DynamoDB does it: a page that ends exactly at the end may say that there is more.
        more = begun + count < self._sizes[bucket] or count == asked["Limit"]
        return {"Count": count} | ({"LastEvaluatedKey": {"at": {"N": str(begun + count)}}} if more else {})


async def counted(index: IndexOfSizes, at_most: int) -> int:
    search = DynamoScheduleSearch(index)  # type: ignore[arg-type]
    return await search.count_pointers(CLIENT, first=first_at(0), at_most=at_most)


@pytest.mark.parametrize("page_max", [1, 7, 1_000])
@pytest.mark.parametrize(
    "sizes", [[0] * 8, [1] * 8, [10] * 8, [0, 0, 0, 80, 0, 0, 0, 0], [3, 50, 0, 1, 9, 12, 30, 2]], ids=str
)
async def test_all_entries_are_counted_once(sizes: list[int], page_max: int) -> None:
    assert len(sizes) == LIST_BUCKETS
    assert await counted(IndexOfSizes(sizes, page_max=page_max), at_most=1_000) == sum(sizes)


@pytest.mark.parametrize("at_most", [1, 5, 40, 79])
@pytest.mark.parametrize("sizes", [[10] * 8, [0, 0, 0, 80, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 73]], ids=str)
async def test_no_more_is_read_than_was_asked_for_and_one_for_each_bucket(sizes: list[int], at_most: int) -> None:
    index = IndexOfSizes(sizes)
    assert await counted(index, at_most=at_most) == at_most
    assert index.read <= at_most + LIST_BUCKETS
