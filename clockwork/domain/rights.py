"""Who may do what, for which clients and topics. Pure: whoever takes requests in (HTTP today) asks here, in one line.

A *principal* is the one who asks, as their key or token describes them. A right says which calls, `clients` and `topics`
say about what. A name is covered by itself or by a prefix, written `orders-*`; `*` alone covers every name. Nothing is
covered unless it is listed, and no right implies another: `admin` is for calls about the service itself, not a key to
everybody's schedules.

Topics are asked for only where a schedule is given one (create, a change of the topic): to read or cancel a client's
schedules it is enough to be allowed to that client. Clockwork's own topics are refused before, whoever asks.

Every answer shows the schedule that it is about: who may create, change or cancel under a key also sees what stands there
(the `409` of a create, the `200` of a cancel). `read` is for asking about any of them without touching it, and for lists.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from clockwork.domain.schedule import ClientId, Topic
from clockwork.errors import FieldError, Forbidden

WILDCARD: Final = "*"


class Right(StrEnum):
    """What a principal may be allowed to do."""

    CREATE = "create"
    """Create, change, fire, re-arm."""
    CANCEL = "cancel"
    READ = "read"
    ADMIN = "admin"
    """What concerns the service, not one client."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """A set of names: some by themselves, some by how they begin."""

    exact: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()

    def cover(self, name: str) -> bool:
        return name in self.exact or name.startswith(self.prefixes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """The one who asks."""

    name: str
    """For people: logs. Several keys may bear one name."""
    clients: Names
    topics: Names
    rights: frozenset[Right]


EVERYTHING: Final = Names(prefixes=("",))
NOBODY_IN_PARTICULAR: Final = Principal(name="anyone", clients=EVERYTHING, topics=EVERYTHING, rights=frozenset(Right))
"""Who asks where nobody has to say who they are."""


def names_of(patterns: list[str]) -> Names:
    """`["shop", "orders-*"]` as a set of names. Raises: ValueError (a `*` that is not at the end, or an empty name)."""
    exact: set[str] = set()
    prefixes: set[str] = set()
    for pattern in patterns:
        name = pattern.removesuffix(WILDCARD)
        if not pattern or WILDCARD in name:
            raise ValueError("should be a name, or the beginning of names with one * behind it")
        (exact if name == pattern else prefixes).add(name)
    return Names(exact=frozenset(exact), prefixes=tuple(sorted(prefixes)))


def authorize_service(principal: Principal) -> None:
    """Returns if the principal may make calls about the service itself. Raises: Forbidden."""
    if Right.ADMIN not in principal.rights:
        raise Forbidden(f"This key does not have the right {Right.ADMIN.value!r}.")


def authorize(principal: Principal, right: Right, client_id: ClientId, topic: Topic | None = None) -> None:
    """Returns if the principal may do this for this client (and give it this topic).

    Raises: Forbidden, naming every field that is not covered, never what would be.
    """
    if right not in principal.rights:
        raise Forbidden(f"This key does not have the right {right.value!r}.")
    errors = []
    if not principal.clients.cover(client_id):
        errors.append(FieldError("clientId", "is not covered by this key"))
    if topic is not None and not principal.topics.cover(topic):
        errors.append(FieldError("delivery.topic", "is not covered by this key"))
    if errors:
        raise Forbidden("; ".join(f"{e.field} {e.message}" for e in errors) + ".", errors)
