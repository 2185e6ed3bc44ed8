"""Admission of callers: each request gets its principal here, or a 401, before a handler sees it.

    open path (the node's own pages) ──► handler
    Bearer … ──► KeyRing or OidcTokens ──► handler, with the principal; or 401; or 503 if the issuer does not answer
    cookie, and `clockwork-ui: 1` ──► Sessions ──► handler, with the principal; or 401
    neither ───────────────────────────► 401

Handlers check what the principal may do (`domain.rights.authorize`), because they know the client and the topic.

Fail closed: a path that is not listed as open needs a key, a path that does not exist included.

Failed attempts are not limited. A key has 256 random bits, so no number of attempts finds it, and a refusal costs little
more than reading its request: a SHA-256, or the check of a signature. A limit by address would refuse the valid keys of
a caller's neighbours behind the same load balancer or NAT.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from clockwork.access.keys import KeyRing
from clockwork.access.oidc import OidcTokens
from clockwork.access.oidc_login import OidcLogin
from clockwork.access.sessions import UI_HEADER, Session, Sessions
from clockwork.clock import Clock
from clockwork.domain.rights import ANYONE, WILDCARD, Principal
from clockwork.errors import CannotStart, Forbidden, Unauthenticated
from clockwork.ports.telemetry import Telemetry
from clockwork.requests.pending_quota import Count, PendingLimit
from clockwork.requests.rate_limits import CreateLimits
from clockwork.settings.model import AccessSettings, UiSettings

OPEN_PATHS: Final = frozenset({"/", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/ui", "/session"})
"""Paths that need no key, with all paths below them (but for "/"): health, metrics, documentation, the dashboard's page and
its login."""
CREDENTIAL_CHARS_MAX: Final = 8_000
"""A request's headers may hold little more, and tokens of large organisations come close."""

REDACTED: Final[ContextVar[bool]] = ContextVar("redacted", default=False)
"""True while a request of a redacted principal is answered: `http.responses` then leaves the content of schedules out. Not a
parameter: it would have to pass through every call that renders a schedule, and the one that forgets it leaks. Set anew for
each request, before its handler."""
PRINCIPAL: Final = web.RequestKey("principal", Principal)
SESSION: Final = web.RequestKey("session", Session)
"""Set if the request was admitted by its cookie."""

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

    def __init__(
        self, authenticator: Authenticator | None, telemetry: Telemetry, sessions: Sessions | None = None
    ) -> None:
        """`sessions`: those of the dashboard; None: no cookie counts."""
        self._authenticator = authenticator
        self._telemetry = telemetry
        self.sessions = sessions

    async def admit(self, request: web.Request) -> Principal:
        """Return the principal that sends this request. Raises: Unauthenticated, Unavailable."""
        if self._authenticator is None or _is_open(request):
            return ANYONE
        if (cookie := self._cookie(request)) is not None and self.sessions is not None:
            try:
                request[SESSION], principal = self.sessions.admit(cookie)
            except Unauthenticated:
                self._telemetry.auth("refused")  # an old page, mostly: no line in the log
                raise
            self._telemetry.auth("accepted")
            return principal
        credential = _credential(request)
        if credential is None:
            self._telemetry.auth("missing")
            raise Unauthenticated("Send your key as Authorization: Bearer ….")
        with self.counting_refusals(request):
            principal = await self._authenticator.authenticate(credential)
        self._telemetry.auth("accepted")
        return principal

    @contextmanager
    def counting_refusals(self, request: web.Request) -> Iterator[None]:
        """A block in which an `Unauthenticated` of a credential that this request brings is counted and logged."""
        try:
            yield
        except Unauthenticated:
            self._telemetry.auth("refused")
            # The connection's own address: any caller can write an `X-Forwarded-For`.
            extra = {"event": "auth.refused", "address": request.remote, "once_per": request.remote}
            log.warning("Key or token refused", extra=extra)
            raise

    def _cookie(self, request: web.Request) -> str | None:
        """The session's cookie, if it counts: a request that names a key means the key."""
        if self.sessions is None or hdrs.AUTHORIZATION in request.headers or request.headers.get(UI_HEADER) != "1":
            return None
        return request.cookies.get(self.sessions.cookie_name)


def authentication(gate: Gate, telemetry: Telemetry) -> Middleware:
    """Return the middleware that admits each request, for `principal_of`, and counts and logs refused rights."""

    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        principal = request[PRINCIPAL] = await gate.admit(request)
        REDACTED.set(principal.redacted)
        try:
            response = await handler(request)
        except Forbidden as error:
            telemetry.auth("forbidden")
            reason = str(error)
            extra = {"event": "auth.forbidden", "principal": principal.name, "error": reason}
            log.warning("Request not covered by its key", extra=extra | {"once_per": f"{principal.name} {reason}"})
            raise
        _renew_session(request, response, gate.sessions)
        return response

    return admit


def _renew_session(request: web.Request, response: web.StreamResponse, sessions: Sessions | None) -> None:
    session = request.get(SESSION)
    if sessions is None or session is None or response.prepared:
        return
    if (renewed := sessions.renewal(session)) is not None:
        set_session(response, sessions, renewed)


def set_session(response: web.StreamResponse, sessions: Sessions, session: Session | None) -> None:
    """Put the cookie of a session into an answer; None takes it from the browser."""
    secure, value = sessions.https, "" if session is None else sessions.cookie_of(session)
    # Without an age it ends with the browser, at the latest.
    age_s = 0 if session is None else None
    response.set_cookie(
        sessions.cookie_name, value, max_age=age_s, httponly=True, secure=secure, samesite="Strict", path="/"
    )


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
    """Authentication and limits of a node: the checks that precede every call."""

    gate: Gate
    limits: CreateLimits
    pending: PendingLimit
    authenticator: Authenticator | None
    login: OidcLogin | None
    """None: the dashboard has no login at an issuer."""
    principal_of_commands: Callable[[], Principal | None]
    """Returns the principal of commands as it is now; None while there is none, and commands wait."""

    async def run(self) -> None:
        """Keep keys up to date and count pending schedules, until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self.authenticator is not None:
                group.create_task(self.authenticator.run(), name="authenticator")
            if self.gate.sessions is not None:
                group.create_task(self.gate.sessions.run(), name="sessions")
            group.create_task(self.pending.run(), name="pending-limit")


def build_access(
    settings: AccessSettings,
    clock: Clock,
    telemetry: Telemetry,
    *,
    accepts: bool,
    count: Count | None = None,
    ui: UiSettings | None = None,
    https: bool = False,
) -> Access:
    """Build the authentication and the limits of a node. `accepts`: False for a node whose calls need no key, a worker.
    `count`: needed where the pending schedules of a client are limited. `ui`: None for a node without the dashboard.
    `https`: browsers reach the node by HTTPS.

    Raises: CannotStart.
    """
    authenticator = _authenticator(settings, clock, telemetry) if accepts else None
    sessions, login = None, None
    if authenticator is not None and ui is not None and ui.enabled == "on":
        keys = authenticator if isinstance(authenticator, KeyRing) else None
        issuer = f"{settings.oidc_issuer} for {settings.oidc_audience}"
        sessions = Sessions(ui, clock, keys=keys, https=https, issuer=issuer)
        if isinstance(authenticator, OidcTokens) and settings.oidc_ui_client_id is not None:
            login = OidcLogin(settings, authenticator, sessions, clock, cluster=ui.cluster)
    if accepts and authenticator is None:
        log.warning(
            "Anyone who reaches the port may use every client and every topic: CLOCKWORK_AUTH is none",
            extra={"event": "auth.none"},
        )
    return Access(
        gate=Gate(authenticator, telemetry, sessions),
        limits=CreateLimits(
            creates_per_second=settings.creates_per_second,
            bytes_per_second=settings.create_bytes_per_second,
            telemetry=telemetry,
        ),
        pending=PendingLimit(pending_max=settings.client_pending_max, count=count, telemetry=telemetry),
        authenticator=authenticator,
        login=login,
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
