"""Admission of callers: each request gets its principal here, or a 401, before a handler sees it.

    open path (the node's own pages) ──► handler
    no `Authorization: Bearer …` ──────► 401
    Bearer … ──► KeyRing or OidcTokens ──► handler, with the principal; or 401; or 503 if the issuer does not answer

Handlers check what the principal may do (`domain.rights.authorize`), because they know the client and the topic.

Fail closed: a path that is not listed as open needs a key, a path that does not exist included.

Failed attempts are not limited. A key has 256 random bits, so no number of attempts finds it, and a refusal costs little
more than reading its request: a SHA-256, or the check of a signature. A limit by address would refuse the valid keys of
a caller's neighbours behind the same load balancer or NAT.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from clockwork.access.keys import KeyRing
from clockwork.access.oidc import OidcTokens
from clockwork.clock import Clock
from clockwork.domain.rights import ANYONE, WILDCARD, Principal
from clockwork.errors import CannotStart, Forbidden, Unauthenticated
from clockwork.ports.telemetry import Telemetry
from clockwork.requests.pending_quota import Count, PendingLimit
from clockwork.requests.rate_limits import CreateLimits
from clockwork.settings.model import AccessSettings

OPEN_PATHS: Final = frozenset({"/livez", "/readyz", "/metrics", "/openapi.json", "/docs"})
"""Paths that need no key, with all paths below them: health, metrics and documentation."""
CREDENTIAL_CHARS_MAX: Final = 8_000
"""A request's headers may hold little more, and tokens of large organisations come close."""

PRINCIPAL: Final = web.RequestKey("principal", Principal)

log = logging.getLogger(__name__)


class Authenticator(Protocol):
    """Finds the principal of a credential."""

    async def authenticate(self, credential: str) -> Principal:
        """Return the principal. Raises: Unauthenticated (not valid), Unavailable (it cannot be checked now)."""
        ...

    async def run(self) -> None:
        """Keep keys up to date, until cancelled."""
        ...


class Gate:
    """Admits requests. Without an authenticator every caller is `ANYONE`."""

    def __init__(self, authenticator: Authenticator | None, telemetry: Telemetry) -> None:
        self._authenticator = authenticator
        self._telemetry = telemetry

    async def admit(self, request: web.Request) -> Principal:
        """Return the principal that sends this request. Raises: Unauthenticated, Unavailable."""
        if self._authenticator is None or _is_open(request):
            return ANYONE
        credential = _credential(request)
        if credential is None:
            self._telemetry.auth("missing")
            raise Unauthenticated("Send your key as Authorization: Bearer ….")
        try:
            principal = await self._authenticator.authenticate(credential)
        except Unauthenticated:
            self._telemetry.auth("refused")
            # The connection's own address: any caller can write an `X-Forwarded-For`.
            extra = {"event": "auth.refused", "address": request.remote, "once_per": request.remote}
            log.warning("Key or token refused", extra=extra)
            raise
        self._telemetry.auth("accepted")
        return principal


def authentication(gate: Gate, telemetry: Telemetry) -> Middleware:
    """Return the middleware that admits each request, for `principal_of`, and counts and logs refused rights."""

    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        principal = request[PRINCIPAL] = await gate.admit(request)
        try:
            return await handler(request)
        except Forbidden as error:
            telemetry.auth("forbidden")
            reason = str(error)
            extra = {"event": "auth.forbidden", "principal": principal.name, "error": reason}
            log.warning("Request not covered by its key", extra=extra | {"once_per": f"{principal.name} {reason}"})
            raise

    return admit


def principal_of(request: web.Request) -> Principal:
    """Return the principal of an admitted request."""
    return request[PRINCIPAL]


def _is_open(request: web.Request) -> bool:
    resource = request.match_info.route.resource
    if resource is None:
        return False
    first = "/" + resource.canonical.split("/", 2)[1]
    return first in OPEN_PATHS


def _credential(request: web.Request) -> str | None:
    """Return the text behind `Bearer`; None unless the header is there once and is of a possible form."""
    values = request.headers.getall(hdrs.AUTHORIZATION, [])
    scheme, _, credential = (values[0] if len(values) == 1 else "").partition(" ")
    credential = credential.strip()
    fits = scheme.lower() == "bearer" and credential.isascii() and 0 < len(credential) <= CREDENTIAL_CHARS_MAX
    return credential if fits else None


# --- from the settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """The checks that precede every call: authentication and limits."""

    gate: Gate
    limits: CreateLimits
    pending: PendingLimit
    authenticator: Authenticator | None
    principal_of_commands: Callable[[], Principal | None]
    """Returns the principal of commands as it is now; None while there is none, and commands wait."""

    async def run(self) -> None:
        """Keep keys up to date and count pending schedules, until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self.authenticator is not None:
                group.create_task(self.authenticator.run(), name="authenticator")
            group.create_task(self.pending.run(), name="pending-limit")


def open_access(
    settings: AccessSettings, clock: Clock, telemetry: Telemetry, *, accepts: bool, count: Count | None = None
) -> Access:
    """Build the checks of a node. `accepts`: False for a node whose calls need no key, a worker. `count`: needed where the
    pending schedules of a client are limited.

    Raises: CannotStart.
    """
    authenticator = _authenticator(settings, clock, telemetry) if accepts else None
    if accepts and authenticator is None:
        log.warning(
            "Anyone who reaches the port may use every client and every topic: CLOCKWORK_AUTH is none",
            extra={"event": "auth.none"},
        )
    return Access(
        gate=Gate(authenticator, telemetry),
        limits=CreateLimits(
            creates_per_second=settings.creates_per_second,
            bytes_per_second=settings.create_bytes_per_second,
            telemetry=telemetry,
        ),
        pending=PendingLimit(pending_max=settings.client_pending_max, count=count, telemetry=telemetry),
        authenticator=authenticator,
        principal_of_commands=_principal_of_commands(settings, authenticator),
    )


def _principal_of_commands(
    settings: AccessSettings, authenticator: Authenticator | None
) -> Callable[[], Principal | None]:
    """Raises: CannotStart if no valid entry has the name that the settings give."""
    name = settings.commands_principal
    if settings.commands == "off" or name is None or name == WILDCARD or not isinstance(authenticator, KeyRing):
        return lambda: ANYONE
    if authenticator.principal_named(name) is None:
        raise CannotStart(
            "CLOCKWORK_COMMANDS_PRINCIPAL: the keys file has no valid entry of that name, or several that differ"
        )
    return lambda: authenticator.principal_named(name)


def _authenticator(settings: AccessSettings, clock: Clock, telemetry: Telemetry) -> Authenticator | None:
    if settings.auth == "keys" and settings.keys_file is not None:
        return KeyRing(Path(settings.keys_file), clock, telemetry)
    if settings.auth == "oidc":
        return OidcTokens(settings, clock)
    return None
