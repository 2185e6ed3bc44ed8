"""Who asks: every request is admitted here before a handler sees it, or answered 401 or 429.

    open path (the node's own pages) ─────────────────────────────► handler
    no Authorization ──────────────────────────────► 401, counted
    Bearer, known from before (no cost) ───────────────────────────► handler, with its principal
    Bearer, never seen ── its address failed too often ──► 429
                       └─ checked: a key's hash, or a token's signature ─► handler, or 401

What a principal may do is not asked here but in each handler (`domain.rights.authorize`), where client and topic are known.

Failed attempts are limited for each peer address, because each costs a check. A key that was checked before passes
whatever others behind the same address do (a load balancer, a NAT), so nobody can be locked out by a neighbour who
guesses. The address is the connection's own: `X-Forwarded-For` is for anybody to write. IPv6 addresses count by their /64,
which is what one host is usually given.

Fail closed: a path that is not listed as open needs a key, one that does not exist included.
"""

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from clockwork.domain.rate import NS, Buckets, Rate
from clockwork.domain.rights import NOBODY_IN_PARTICULAR, Principal
from clockwork.errors import Forbidden, TooManyRequests, Unauthenticated, Unavailable
from clockwork.ports.telemetry import Telemetry

OPEN_PATHS: Final = frozenset({"/livez", "/readyz", "/metrics", "/openapi.json", "/docs"})
"""And what lies below them. For those who watch over the node, and for those who want to learn what it can."""
FAILED_ATTEMPTS: Final = Rate(per_second=1, burst=20)
"""Of one address. A check of a key costs some 50 ms of one core: it may take a twentieth of it for long."""
CREDENTIAL_CHARS_MAX: Final = 8_000
"""Tokens of large organisations come close to what a header may hold."""

PRINCIPAL: Final = web.RequestKey("principal", Principal)

log = logging.getLogger(__name__)


class Authenticator(Protocol):
    """Knows whose a credential is."""

    def known(self, credential: str) -> Principal | None:
        """Whose it is, if it was checked before and still counts. Costs next to nothing."""
        ...

    async def check(self, credential: str) -> Principal:
        """Whose it is. Raises: Unauthenticated (nobody's), Unavailable (it cannot be checked now)."""
        ...

    async def run(self) -> None:
        """Keeps what it needs up to date, until cancelled."""
        ...


@dataclass(kw_only=True, slots=True)
class _Turn:
    """A credential that is being checked."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    takers: int = 0


class Gate:
    """Admits requests. Without an authenticator everybody may do everything."""

    def __init__(
        self,
        authenticator: Authenticator | None,
        telemetry: Telemetry,
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._authenticator = authenticator
        self._telemetry = telemetry
        self._monotonic_ns = monotonic_ns
        self._failures: Buckets[str] = Buckets(lambda _: FAILED_ATTEMPTS)
        self._turns: dict[str, _Turn] = {}

    async def admit(self, request: web.Request) -> Principal:
        """Who sends this request. Raises: Unauthenticated, TooManyRequests, Unavailable."""
        if self._authenticator is None or _is_open(request):
            return NOBODY_IN_PARTICULAR
        credential = _credential(request)
        if credential is None:
            self._telemetry.auth("missing")
            raise Unauthenticated("Send your key as Authorization: Bearer ….")
        principal = self._authenticator.known(credential)
        if principal is None:
            principal = await self._first_time(self._authenticator, credential, _address(request.remote))
        self._telemetry.auth("accepted")
        return principal

    async def _first_time(self, authenticator: Authenticator, credential: str, address: str) -> Principal:
        """One check for all requests that bring the same credential at the same time: after a restart of the node a busy
        client's would else look like as many attempts."""
        turn = self._turns.setdefault(credential, _Turn())
        turn.takers += 1
        try:
            async with turn.lock:
                return authenticator.known(credential) or await self._check(authenticator, credential, address)
        finally:
            turn.takers -= 1
            if not turn.takers:
                self._turns.pop(credential, None)

    async def _check(self, authenticator: Authenticator, credential: str, address: str) -> Principal:
        failures = self._failures.of(address, self._monotonic_ns())
        if wait_ns := failures.wait_ns(1, self._monotonic_ns()):
            self._telemetry.auth("limited")
            raise TooManyRequests(
                "Too many failed attempts from this address.", retry_after_s=max(1, -(-wait_ns // NS))
            )
        # Paid for before the check: of a thousand guesses sent at once, a thousand would find the bucket full.
        failures.take(1, self._monotonic_ns())
        try:
            principal = await authenticator.check(credential)
        except Unauthenticated:
            self._telemetry.auth("refused")
            extra = {"event": "auth.refused", "address": address, "once_per": address}
            log.warning("Key refused", extra=extra)
            raise
        except (TooManyRequests, Unavailable):
            # Not checked: nobody has failed, and after an outage of those who check, the first to come must not be limited.
            failures.give_back(1)
            raise
        failures.give_back(1)
        return principal


def authentication(gate: Gate, telemetry: Telemetry) -> Middleware:
    """Puts the principal into each request, for `principal_of`."""

    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        principal = request[PRINCIPAL] = await gate.admit(request)
        try:
            return await handler(request)
        except Forbidden as error:
            telemetry.auth("forbidden")
            reason = str(error)
            extra = {"event": "auth.forbidden", "principal": principal.name, "error": reason}
            log.warning("Not covered by the key", extra=extra | {"once_per": f"{principal.name} {reason}"})
            raise

    return admit


def principal_of(request: web.Request) -> Principal:
    """Who sends this request, as it was admitted."""
    return request[PRINCIPAL]


def _is_open(request: web.Request) -> bool:
    resource = request.match_info.route.resource
    if resource is None:
        return False
    first = "/" + resource.canonical.split("/", 2)[1]
    return first in OPEN_PATHS


def _credential(request: web.Request) -> str | None:
    """What stands behind `Bearer`, if the header is there once and could be anybody's."""
    values = request.headers.getall(hdrs.AUTHORIZATION, [])
    scheme, _, credential = (values[0] if len(values) == 1 else "").partition(" ")
    credential = credential.strip()
    fits = scheme.lower() == "bearer" and credential.isascii() and 0 < len(credential) <= CREDENTIAL_CHARS_MAX
    return credential if fits else None


def _address(remote: str | None) -> str:
    """Under which failed attempts are counted."""
    try:
        address = ipaddress.ip_address((remote or "").partition("%")[0])
    except ValueError:
        return "unknown"  # a Unix socket: one neighbour, one count
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
