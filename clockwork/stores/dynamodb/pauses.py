"""`PauseStore` on DynamoDB: one item beside those of the shards. The first pause creates it; without it nothing is
paused."""

from typing import Final

from clockwork.domain.pauses import NOTHING_PAUSED, Pauses
from clockwork.errors import NewerFormat
from clockwork.stores.dynamodb import attributes as fields
from clockwork.stores.dynamodb.attributes import Item, attributes_of, number, values_of
from clockwork.stores.dynamodb.client import DynamoClient
from clockwork.stores.pause_forms import PAUSES

PAUSES_ID: Final = "pauses"
FORMAT: Final = 1

_KEY: Final[Item] = {"partitionId": {"S": PAUSES_ID}}


class DynamoPauses:
    """See `PauseStore`. Raises, from any method: StoreUnavailable and below."""

    def __init__(self, client: DynamoClient) -> None:
        self._client = client
        self._table = client.settings.executions_table

    async def read_pauses(self) -> Pauses:
        """See `PauseStore`."""
        answer = await self._client.call("get_item", TableName=self._table, Key=_KEY, ConsistentRead=True)
        item: Item | None = answer.get("Item")
        return pauses_of(item) if item else NOTHING_PAUSED

    async def write_pauses(self, pauses: Pauses) -> None:
        """See `PauseStore`."""
        before = pauses.version - 1
        names = attributes_of(PAUSES.write(pauses))
        condition = "#version = :before" if before else "attribute_not_exists(partitionId)"
        await self._client.call(
            "update_item",
            TableName=self._table,
            Key=_KEY,
            UpdateExpression="SET #v = :v, #version = :version, #clients = :clients, #topics = :topics",
            ConditionExpression=condition,
            ExpressionAttributeNames={
                "#v": "v",
                "#version": "version",
                "#clients": "clients",
                "#topics": "topics",
            },
            ExpressionAttributeValues={
                ":v": number(FORMAT),
                ":version": number(pauses.version),
                ":clients": names["clients"],
                ":topics": names["topics"],
            }
            | ({":before": number(before)} if before else {}),
        )


def pauses_of(item: Item) -> Pauses:
    """Reads the item. Raises: Unreadable, NewerFormat."""
    written_in = fields.integer(item, "v")
    if written_in > FORMAT:
        raise NewerFormat(f"format {written_in} is newer than {FORMAT}, which this version reads")
    return PAUSES.read(values_of(item), version=fields.integer(item, "version"))
