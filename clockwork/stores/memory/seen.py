"""`SeenStore` in memory."""

from collections.abc import Sequence

from clockwork.domain.ownership import ProcessId
from clockwork.domain.schedule import ClientId
from clockwork.domain.seen import ProcessReport, SeenClient
from clockwork.ports.seen import ClientPage


class MemorySeen:
    """See `SeenStore`."""

    def __init__(self) -> None:
        self.reports: dict[ProcessId, ProcessReport] = {}
        self.clients: dict[ClientId, SeenClient] = {}

    async def put_report(self, report: ProcessReport) -> None:
        """See `SeenStore`."""
        self.reports[report.process] = report

    async def list_reports(self) -> Sequence[ProcessReport]:
        """See `SeenStore`."""
        return [self.reports[process] for process in sorted(self.reports)]

    async def delete_report(self, process: ProcessId, *, seen_at_ms: int) -> None:
        """See `SeenStore`."""
        report = self.reports.get(process)
        if report is not None and report.seen_at_ms == seen_at_ms:
            del self.reports[process]

    async def note_client(self, client_id: ClientId, *, day: int) -> None:
        """See `SeenStore`."""
        known = self.clients.get(client_id, SeenClient(client_id=client_id, first_day=day, last_day=day))
        self.clients[client_id] = SeenClient(
            client_id=client_id, first_day=known.first_day, last_day=max(known.last_day, day)
        )

    async def list_clients(self, *, clients_max: int) -> ClientPage:
        """See `SeenStore`."""
        names = sorted(self.clients)
        found = tuple(self.clients[name] for name in names[:clients_max])
        return ClientPage(clients=found, complete=len(names) <= clients_max)
