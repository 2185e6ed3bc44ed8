"""Search for a schedule, in the clients that a reader covers: by `client/key`, by a key alone, or by a delivery id.

There is no index over the keys of all clients. So a key alone is looked for in each client that is known by name: those that
the rights of the reader name, and those that were seen in the cluster. That costs half a read unit a client, and at most
`CLIENTS_MAX` are looked at; a reader of more has to name one.

Nor is there an index over delivery ids. Events have them, so a delivery is found while the node has its event in
memory.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from clockwork.domain.activity import Event
from clockwork.domain.jobs.job import JobName
from clockwork.domain.names import is_client_id, is_key
from clockwork.domain.rights import Names
from clockwork.domain.run import RunId
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.ports.store import KeyName
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.listing import present_views
from clockwork.requests.results import ScheduleView

CLIENTS_MAX: Final = 200
"""Clients in which a key is looked for."""
_DELIVERY_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownClients:
    """The clients that were seen in the cluster."""

    names: Sequence[ClientId] = ()
    complete: bool = False
    """False: more were seen."""
    as_of_ms: int | None = None
    """None: nothing is known of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """The findings of a search."""

    views: tuple[ScheduleView, ...]
    runs: tuple[tuple[JobName, RunId], ...]
    """Runs of jobs that had the delivery."""
    clients_looked_at: int
    clients_as_of_ms: int | None
    """Time at which the clients were listed; None: no list was needed."""
    complete: bool
    """False: the reader covers clients in which it was not looked for."""


async def no_clients() -> KnownClients:
    """The clients that were seen, where that is not known."""
    return KnownClients()


async def no_events(_: str) -> Sequence[Event]:
    """The events of a delivery, where none are recorded."""
    return ()


@dataclass(frozen=True, kw_only=True, slots=True)
class KeySearch:
    """Looks for keys."""

    context: RequestContext
    clients: Callable[[], Awaitable[KnownClients]] = no_clients
    events_of: Callable[[str], Awaitable[Sequence[Event]]] = no_events
    """The events of a delivery id that are kept, of any client."""

    async def search(self, text: str, covered: Names, deadline: RequestDeadline) -> SearchResult:
        """Looks for `text`: written `client/key`, in that client; else, or where that finds nothing, as a key in each client
        that is covered and known, and as a delivery id in the events that are kept. Raises: Unavailable."""
        if (name := _named(text, covered)) is not None:
            views = await self._views([name], deadline)
            if views:
                # Its client was given, so there is no other that could be meant, and no list of clients to be paid for.
                return SearchResult(views=views, runs=(), clients_looked_at=1, clients_as_of_ms=None, complete=True)
        names, runs = await self._of_delivery(text, covered)
        # A reader who covers clients by their names alone needs no list of those that were seen.
        seen = await self.clients() if covered.prefixes else KnownClients(complete=True)
        known = list(dict.fromkeys([*map(ClientId, sorted(covered.exact)), *filter(covered.cover, seen.names)]))
        looked_in = known[:CLIENTS_MAX] if is_key(text) else []
        names += [(client_id, ScheduleKey(text)) for client_id in looked_in]
        return SearchResult(
            views=await self._views(list(dict.fromkeys(names)), deadline),
            runs=tuple(runs),
            clients_looked_at=len({*looked_in, *([] if name is None else [name[0]])}),
            clients_as_of_ms=seen.as_of_ms,
            complete=len(known) <= CLIENTS_MAX and seen.complete,
        )

    async def _views(self, names: Sequence[KeyName], deadline: RequestDeadline) -> tuple[ScheduleView, ...]:
        pointers = await self.context.search.peek_pointers(names) if names else {}
        found = [pointers[name] for name in names if name in pointers]
        views = await present_views(self.context, found, None, deadline)
        return tuple(view for view in views if view is not None)

    async def _of_delivery(self, text: str, covered: Names) -> tuple[list[KeyName], list[tuple[JobName, RunId]]]:
        """The schedules and the runs that this delivery id was of."""
        names: dict[KeyName, None] = {}
        runs: dict[tuple[JobName, RunId], None] = {}
        for event in await self.events_of(text) if _DELIVERY_ID.fullmatch(text) else ():
            if event.client_id is None or not covered.cover(event.client_id):
                continue
            if event.schedule_key is not None:
                names[event.client_id, event.schedule_key] = None
            elif event.job_id is not None and event.run_id is not None:
                runs[JobName(event.client_id, event.job_id), event.run_id] = None
        return list(names), list(runs)


def _named(text: str, covered: Names) -> KeyName | None:
    client_id, slash, key = text.partition("/")
    if not slash or not is_client_id(client_id) or not is_key(key) or not covered.cover(client_id):
        return None
    return ClientId(client_id), ScheduleKey(key)
