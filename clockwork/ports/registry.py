"""The registry of processes and clients (`domain.registry`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from clockwork.domain.ownership import ProcessId
from clockwork.domain.registry import KnownClient, ProcessReport
from clockwork.domain.schedule import ClientId


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientPage:
    """Some clients, by name."""

    clients: tuple[KnownClient, ...]
    complete: bool
    """False: there are more."""


class Registry(Protocol):
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

    async def put_client(self, client_id: ClientId, *, day: int) -> None:
        """Puts a create of this client on this day: its first day is set once, its last never goes back."""
        ...

    async def list_clients(self, *, clients_max: int) -> ClientPage:
        """Reads the first clients by name, at most this many."""
        ...
