"""Rights: which calls a caller may make, for which clients and topics. Pure; every entry point (HTTP, commands) asks here.

A *principal* is a caller as its key or token describes it. Its `rights` name the calls that it may make; its `clients` and
`topics` name the schedules that these calls may be about. A pattern covers one name, or, written `orders-*`, every name with
that prefix; `*` alone covers every name. An empty list covers nothing, and no right implies another: `admin` is for calls
about the service itself and gives no access to schedules, `operate` for what keeps deliveries going and gives nothing new
to send.

A topic is checked only where a call gives a schedule its topic (create, a change of the topic). Reading or cancelling a
client's schedules needs that client alone. Clockwork's own topics are refused before this check, for every principal.

Every answer shows the schedule that it is about: a principal that may create, change or cancel under a key also sees the
schedule that holds the key (the `409` of a create, the `200` of a cancel). `read` is for looking a schedule up without
touching it, and for lists.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from clockwork.domain.destination import Topic
from clockwork.domain.schedule import ClientId
from clockwork.errors import FieldError, Forbidden

WILDCARD: Final = "*"


class Right(StrEnum):
    """A group of calls that a principal may be allowed to make."""

    CREATE = "create"
    """Create, change, fire, retry; of jobs also resume, restore, run now and backfill."""
    CANCEL = "cancel"
    """Cancel; of jobs pause and delete."""
    READ = "read"
    COMPLETE = "complete"
    """Say how a job's run has ended: for consumers."""
    OPERATE = "operate"
    """Pause and resume the deliveries of a client or topic that is covered as a whole, fire, retry, discard dead letters."""
    ADMIN = "admin"
    """Calls about the service, not about one client's schedules."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """A set of names, given as exact names and as prefixes."""

    exact: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()

    @property
    def all(self) -> bool:
        """True if it covers every name."""
        return "" in self.prefixes

    def cover(self, name: str) -> bool:
        return name in self.exact or name.startswith(self.prefixes)

    def patterns(self) -> list[str]:
        """The names as `names_of` reads them, sorted."""
        return sorted([*self.exact, *(f"{prefix}{WILDCARD}" for prefix in self.prefixes)])


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """A caller and what it may do."""

    name: str
    """For logs only; it grants nothing. Several keys may share one name."""
    clients: Names
    topics: Names
    rights: frozenset[Right]
    redacted: bool = False
    """True: answers to it hold no `taskData` and no values of headers, whatever its rights."""


EVERYTHING: Final = Names(prefixes=("",))
ANYONE: Final = Principal(name="anyone", clients=EVERYTHING, topics=EVERYTHING, rights=frozenset(Right))
"""The principal of every caller where callers are not authenticated."""


RESEND: Final = (Right.OPERATE, Right.CREATE)
"""Rights that each allow to fire and to retry: what is sent was accepted before, its topic included."""
LOOK: Final = (Right.ADMIN, Right.OPERATE, Right.READ)
"""Rights that each allow to look at pauses and dead letters: `admin` at all, the others at what they cover."""


def names_of(patterns: list[str]) -> Names:
    """Parse patterns such as `["shop", "orders-*"]`. Raises: ValueError (an empty name, or a `*` that is not at the end)."""
    exact: set[str] = set()
    prefixes: set[str] = set()
    for pattern in patterns:
        name = pattern.removesuffix(WILDCARD)
        if not pattern or WILDCARD in name:
            raise ValueError("should be a name, or a prefix of names with one * behind it")
        (exact if name == pattern else prefixes).add(name)
    return Names(exact=frozenset(exact), prefixes=tuple(sorted(prefixes)))


def authorize_service(principal: Principal) -> None:
    """Return if the principal may make calls about the service itself. Raises: Forbidden."""
    if Right.ADMIN not in principal.rights:
        raise Forbidden(f"This key does not have the right {Right.ADMIN.value!r}.")


def authorize_any(principal: Principal, rights: Sequence[Right], client_id: ClientId | None = None) -> None:
    """Return if the principal has one of the rights and, where a client is given, for this client. Raises: Forbidden."""
    if principal.rights.isdisjoint(rights):
        named = " or ".join(repr(right.value) for right in rights)
        raise Forbidden(f"This key does not have the right {named}.")
    if client_id is not None and not principal.clients.cover(client_id):
        raise _not_covered("clientId")


def authorize_pausing(principal: Principal, *, client_id: str | None = None, topic: str | None = None) -> None:
    """Return if the principal may pause and resume this client, or this topic. Raises: Forbidden.

    A paused topic holds back the schedules of every client, so its operator has to cover all of them. A client is covered
    as a whole by itself: who may read or cancel its schedules may so whatever their topic is.
    """
    if Right.OPERATE not in principal.rights:
        raise Forbidden(f"This key does not have the right {Right.OPERATE.value!r}.")
    if client_id is not None and not principal.clients.cover(client_id):
        raise _not_covered("clientId")
    if topic is not None and not principal.topics.cover(topic):
        raise _not_covered("topic")
    if topic is not None and not principal.clients.all:
        message = "has schedules of other clients too: pausing it needs a key for all clients"
        raise Forbidden(f"topic {message}.", [FieldError("topic", message)])


def sees_client(principal: Principal, client_id: str | None) -> bool:
    """True if pauses and dead letters of this client are shown to the principal; None: it is not known whose they are."""
    if Right.ADMIN in principal.rights:
        return True
    return client_id is not None and not principal.rights.isdisjoint(LOOK) and principal.clients.cover(client_id)


def sees_topic(principal: Principal, topic: str) -> bool:
    """True if a pause of this topic is shown to the principal."""
    if Right.ADMIN in principal.rights:
        return True
    return not principal.rights.isdisjoint(LOOK) and principal.topics.cover(topic)


def sees_events(principal: Principal, *, client_id: str | None, topic: str | None) -> bool:
    """True if the principal is shown events of this client; without one, events of this topic (all with `admin`). With them
    go the names of those who caused them."""
    if Right.READ not in principal.rights:
        return False
    if client_id is not None:
        return principal.clients.cover(client_id)
    return Right.ADMIN in principal.rights or (topic is not None and principal.topics.cover(topic))


def _not_covered(field: str) -> Forbidden:
    message = "is not covered by this key"
    return Forbidden(f"{field} {message}.", [FieldError(field, message)])


def authorize(principal: Principal, right: Right, client_id: ClientId, topic: Topic | None = None) -> None:
    """Return if the principal has the right for this client and, where the call gives a schedule its topic, for that topic.

    Raises: Forbidden. It names every field that is not covered, but no name that would be.
    """
    authorize_any(principal, [right])
    errors = []
    if not principal.clients.cover(client_id):
        errors.append(FieldError("clientId", "is not covered by this key"))
    if topic is not None and not principal.topics.cover(topic):
        errors.append(FieldError("delivery.topic", "is not covered by this key"))
    if errors:
        raise Forbidden("; ".join(f"{e.field} {e.message}" for e in errors) + ".", errors)
