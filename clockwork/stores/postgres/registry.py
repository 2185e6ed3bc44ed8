"""`Registry` on PostgreSQL."""

from collections.abc import Sequence

from clockwork.domain.ownership import ProcessId
from clockwork.domain.registry import KnownClient, ProcessReport
from clockwork.domain.schedule import ClientId
from clockwork.ports.registry import ClientPage
from clockwork.stores.checks import readable
from clockwork.stores.postgres.client import PostgresClient
from clockwork.stores.registry_forms import report_of, report_text


class RegistryStatements:
    """The statements on the tables of one schema. A late copy of a write does no harm: its time is the older one."""

    def __init__(self, schema: str) -> None:
        s = f'"{schema}"'
        self.put_report = (
            f"INSERT INTO {s}.seen AS s (process, seen_at_ms, body) VALUES ($1::text, $2::bigint, $3::text) "
            f"ON CONFLICT (process) DO UPDATE SET seen_at_ms = excluded.seen_at_ms, body = excluded.body "
            f"WHERE s.seen_at_ms <= excluded.seen_at_ms"
        )
        self.list_reports = f"SELECT process, seen_at_ms, body FROM {s}.seen ORDER BY process"
        self.delete_report = f"DELETE FROM {s}.seen WHERE process = $1::text AND seen_at_ms = $2::bigint"
        self.put_client = (
            f"INSERT INTO {s}.clients AS c (client_id, first_day, last_day) VALUES ($1::text, $2::int, $2::int) "
            f"ON CONFLICT (client_id) DO UPDATE SET last_day = excluded.last_day WHERE c.last_day < excluded.last_day"
        )
        self.list_clients = f"SELECT client_id, first_day, last_day FROM {s}.clients ORDER BY client_id LIMIT $1::int"


class PostgresRegistry:
    """See `Registry`."""

    def __init__(self, client: PostgresClient, schema: str) -> None:
        self._client = client
        self.statements = RegistryStatements(schema)

    async def put_report(self, report: ProcessReport) -> None:
        """See `Registry`."""
        values = (report.process, report.seen_at_ms, report_text(report))
        await self._client.write("put_report", self.statements.put_report, *values)

    async def list_reports(self) -> Sequence[ProcessReport]:
        """See `Registry`."""
        found = await self._client.read("list_reports", self.statements.list_reports)
        return readable(lambda record: report_of(*record), found)

    async def delete_report(self, process: ProcessId, *, seen_at_ms: int) -> None:
        """See `Registry`."""
        await self._client.write("delete_report", self.statements.delete_report, process, seen_at_ms)

    async def put_client(self, client_id: ClientId, *, day: int) -> None:
        """See `Registry`."""
        await self._client.write("put_client", self.statements.put_client, client_id, day)

    async def list_clients(self, *, clients_max: int) -> ClientPage:
        """See `Registry`."""
        # One more than asked for: it tells that there is more.
        found = await self._client.read("list_clients", self.statements.list_clients, clients_max + 1)
        clients = tuple(
            KnownClient(client_id=ClientId(client_id), first_day=first_day, last_day=last_day)
            for client_id, first_day, last_day in found[:clients_max]
        )
        return ClientPage(clients=clients, complete=len(found) <= clients_max)
