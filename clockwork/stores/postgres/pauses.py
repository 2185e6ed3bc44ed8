"""`PauseStore` on PostgreSQL: one row. The first pause makes it; without it nothing is paused."""

from clockwork.domain.pauses import NOTHING_PAUSED, Pauses
from clockwork.errors import ConditionFailed
from clockwork.stores.postgres import codec
from clockwork.stores.postgres.client import PostgresClient
from clockwork.stores.postgres.statements import Statements


class PostgresPauses:
    """See `PauseStore`. Raises, from any method: StoreUnavailable and below."""

    def __init__(self, client: PostgresClient, statements: Statements) -> None:
        self._client = client
        self._statements = statements

    async def read_pauses(self) -> Pauses:
        """See `PauseStore`."""
        found = await self._client.read("read_pauses", self._statements.read_pauses)
        return codec.pauses_of(*found[0]) if found else NOTHING_PAUSED

    async def write_pauses(self, pauses: Pauses) -> None:
        """See `PauseStore`."""
        sql = self._statements.next_pauses if pauses.version > 1 else self._statements.first_pauses
        values = (pauses.version, codec.pauses_bytes(pauses), codec.FORMAT)
        if not await self._client.write("write_pauses", sql, *values):
            raise ConditionFailed
