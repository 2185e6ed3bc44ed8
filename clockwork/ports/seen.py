"""The store of what was seen lately (`domain.seen`): processes and clients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from clockwork.domain.ownership import ProcessId
from clockwork.domain.schedule import ClientId
from clockwork.domain.seen import ProcessReport, SeenClient


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientPage:
    """Some clients, by name."""

    clients: tuple[SeenClient, ...]
    complete: bool
    """False: there are more."""


class SeenStore(Protocol):
    """Reads may lag. What cannot be read is left out and logged. Every method raises: StoreUnavailable."""

    async def put_report(self, report: ProcessReport) -> None:
        """Puts the report in the place of the process's last one."""
        ...

    async def list_reports(self) -> Sequence[ProcessReport]:
        """Reads the last report of each process, by process."""
        ...

    async def delete_report(self, process: ProcessId, *, seen_at_ms: int) -> None:
        """Deletes the report if it is still the one of this time."""
        ...

    async def note_client(self, client_id: ClientId, *, day: int) -> None:
        """Notes a create of this client on this day: its first day is set once, its last never goes back."""
        ...

    async def list_clients(self, *, clients_max: int) -> ClientPage:
        """Reads the first clients by name, at most this many."""
        ...
