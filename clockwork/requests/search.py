"""Search for a schedule by its key, in the clients that a reader covers: `client/key`, or a key in each of them.

There is no index over the keys of all clients. So a key is looked for in each client that is known by name: those that the
rights of the reader name, and those that were seen in the cluster. That costs half a read unit a client, and at most
`CLIENTS_MAX` are looked at; a reader of more has to name one.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from clockwork.domain.names import is_client_id, is_key
from clockwork.domain.rights import Names
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.ports.store import KeyName
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.listing import present_views
from clockwork.requests.results import ScheduleView

CLIENTS_MAX: Final = 200
"""Clients in which a key is looked for."""


async def no_clients() -> Sequence[ClientId]:
    """The clients that were seen, where that is not known."""
    return ()


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """The schedules under a key."""

    views: tuple[ScheduleView, ...]
    clients_looked_at: int
    complete: bool
    """False: the reader covers clients in which it was not looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeySearch:
    """Looks for keys."""

    context: RequestContext
    clients: Callable[[], Awaitable[Sequence[ClientId]]] = no_clients
    """The clients that were seen in the cluster, as far as that is known."""
    knows_clients: bool = False
    """True if these are all there are."""

    async def search(self, text: str, covered: Names, deadline: RequestDeadline) -> SearchResult:
        """Looks for `text` as a key in each client that is covered and known, and, written `client/key`, in that client
        alone as well. Raises: Unavailable."""
        named = _named(text, covered)
        seen = [client_id for client_id in await self.clients() if covered.cover(client_id)]
        known = list(dict.fromkeys([*map(ClientId, sorted(covered.exact)), *seen]))
        looked_in = known[:CLIENTS_MAX] if is_key(text) else []
        names = [*named, *((client_id, ScheduleKey(text)) for client_id in looked_in)]
        pointers = await self.context.search.peek_pointers(names) if names else {}
        found = [pointers[name] for name in dict.fromkeys(names) if name in pointers]
        views = await present_views(self.context, found, None, deadline)
        # By a name that says its client the reader has found what there is, if it is found at all.
        complete = bool(named and found) or (len(known) <= CLIENTS_MAX and (self.knows_clients or not covered.prefixes))
        return SearchResult(
            views=tuple(view for view in views if view is not None),
            clients_looked_at=len({client_id for client_id, _ in names}),
            complete=complete,
        )


def _named(text: str, covered: Names) -> list[KeyName]:
    client_id, slash, key = text.partition("/")
    if not slash or not is_client_id(client_id) or not is_key(key) or not covered.cover(client_id):
        return []
    return [(ClientId(client_id), ScheduleKey(key))]
