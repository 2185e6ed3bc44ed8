"""Who may call and how much, put together from the settings."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clockwork.access.gate import Authenticator, Gate
from clockwork.access.keys import KeyRing
from clockwork.access.oidc import OidcTokens
from clockwork.clock import Clock
from clockwork.domain.rights import NOBODY_IN_PARTICULAR, WILDCARD, Principal
from clockwork.errors import StartRefused
from clockwork.ports.telemetry import Telemetry
from clockwork.requests.pending_quota import Count, PendingLimit
from clockwork.requests.rate_limits import CreateLimits
from clockwork.settings.model import AccessSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """What the API asks before it does anything."""

    gate: Gate
    limits: CreateLimits
    pending: PendingLimit
    authenticator: Authenticator | None
    principal_of_commands: Callable[[], Principal | None]
    """In whose name commands are carried out now; None: in nobody's, so they wait."""

    async def run(self) -> None:
        """Keeps keys up to date and counts what is pending, until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self.authenticator is not None:
                group.create_task(self.authenticator.run(), name="authenticator")
            group.create_task(self.pending.run(), name="pending-limit")


def open_access(
    settings: AccessSettings, clock: Clock, telemetry: Telemetry, *, accepts: bool, count: Count | None = None
) -> Access:
    """A node that does not accept has no calls that need a key. `count` is needed where a client's pending schedules are
    limited. Raises: StartRefused."""
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
    """Raises: StartRefused if there is nobody of that name."""
    name = settings.commands_principal
    if settings.commands == "off" or name in (None, WILDCARD) or not isinstance(authenticator, KeyRing):
        return lambda: NOBODY_IN_PARTICULAR
    keys, named = authenticator, str(name)
    if keys.named(named) is None:
        raise StartRefused(
            "CLOCKWORK_COMMANDS_PRINCIPAL: the keys' file has no entry of that name that counts, or several that differ"
        )
    return lambda: keys.named(named)


def _authenticator(settings: AccessSettings, clock: Clock, telemetry: Telemetry) -> Authenticator | None:
    if settings.auth == "keys" and settings.keys_file is not None:
        return KeyRing(Path(settings.keys_file), clock, telemetry)
    if settings.auth == "oidc":
        return OidcTokens(settings, clock)
    return None
