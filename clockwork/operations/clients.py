"""The clients that were seen in the cluster, read once a minute for all who ask.

`GET /clients` shows them, and `GET /search` looks for a key in each of them. The list is best effort
(`domain.registry`), and it may lack a client whose first create is less than a minute old.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from clockwork.clock import Clock
from clockwork.domain.registry import KnownClient
from clockwork.ports.registry import Registry
from clockwork.requests.search import KnownClients

KEPT_S: Final = 60.0
CLIENTS_MAX: Final = 10_000
"""Clients that are read: some 100 read units at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientList:
    """The clients at one moment, by name."""

    clients: tuple[KnownClient, ...] = ()
    complete: bool = False
    """False: there are more."""
    as_of_ms: int = 0


@dataclass(kw_only=True, slots=True)
class ClientDirectory:
    """The clients that were seen."""

    store: Registry
    clock: Clock
    _list: ClientList = field(default_factory=ClientList)
    _ends_s: float = -1.0
    """Time up to which the list is given out, by the event loop's clock."""
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def list(self) -> ClientList:
        """The clients as they were up to a minute ago. The request that reads them pays for it; the others that come
        meanwhile wait for it, and each of them reads for itself if it fails. Raises: StoreUnavailable."""
        async with self._reading:
            now_s = asyncio.get_running_loop().time()
            if now_s >= self._ends_s:
                as_of_ms = self.clock.now_ms()
                page = await self.store.list_clients(clients_max=CLIENTS_MAX)
                self._list = ClientList(clients=page.clients, complete=page.complete, as_of_ms=as_of_ms)
                self._ends_s = now_s + KEPT_S
            return self._list

    async def names(self) -> KnownClients:
        """Their names, for a search. Raises: StoreUnavailable."""
        known = await self.list()
        names = tuple(each.client_id for each in known.clients)
        return KnownClients(names=names, complete=known.complete, as_of_ms=known.as_of_ms)
