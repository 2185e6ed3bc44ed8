"""`Registry` in memory."""

from collections.abc import Sequence

from clockwork.domain.ownership import ProcessId
from clockwork.domain.registry import KnownClient, ProcessReport
from clockwork.domain.schedule import ClientId
from clockwork.ports.registry import ClientPage


class MemoryRegistry:
    """See `Registry`."""

    def __init__(self) -> None:
        self.reports: dict[ProcessId, ProcessReport] = {}
        self.clients: dict[ClientId, KnownClient] = {}

    async def put_report(self, report: ProcessReport) -> None:
        """See `Registry`."""
        self.reports[report.process] = report

    async def list_reports(self) -> Sequence[ProcessReport]:
        """See `Registry`."""
        return [self.reports[process] for process in sorted(self.reports)]

    async def delete_report(self, process: ProcessId, *, seen_at_ms: int) -> None:
        """See `Registry`."""
        report = self.reports.get(process)
        if report is not None and report.seen_at_ms == seen_at_ms:
            del self.reports[process]

    async def put_client(self, client_id: ClientId, *, day: int) -> None:
        """See `Registry`."""
        known = self.clients.get(client_id, KnownClient(client_id=client_id, first_day=day, last_day=day))
        self.clients[client_id] = KnownClient(
            client_id=client_id, first_day=known.first_day, last_day=max(known.last_day, day)
        )

    async def list_clients(self, *, clients_max: int) -> ClientPage:
        """See `Registry`."""
        names = sorted(self.clients)
        found = tuple(self.clients[name] for name in names[:clients_max])
        return ClientPage(clients=found, complete=len(names) <= clients_max)
