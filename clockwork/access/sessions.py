"""Sessions of the dashboard: a signed cookie, and no store, so that any node behind a load balancer reads it.

    __Host-clockwork = v1.<base64url of the JSON>.<base64url of the HMAC-SHA-256>

The JSON says how its holder logged in. After a login by key it names the entry of the keys file with a fingerprint of its
hash: rights are those that the entry has at each request, and a key that is removed, replaced or expired ends its sessions
within seconds, on every node. After a login at an issuer (OpenID Connect) there is nothing to look up: it holds what the
token's claims grant, and ends with the token, at the latest.

A session ends `SESSION_MS_MAX` after its login, and `UNUSED_MS_MAX` after its last use: an answer carries the cookie anew
when it is older than `RENEW_MS`.

The cookie counts only beside the header `clockwork-ui: 1`, which a page of another site cannot send: neither a form nor
`/docs` can use it, even where a browser would add it.

Log out: the browser forgets the cookie, and this process refuses it until it ends. Rejected: a list that all nodes share,
which would be a read of the store at every request. A copy of the cookie that was taken before stays usable on the other
processes for as long as the session would have lasted; who fears that removes the key.

The file with the secrets has one a line: the first signs, all verify. To replace the secret, put the new one on top
everywhere, and take the old one out after `SESSION_MS_MAX`. The secret signs for one cluster, one way to log in and one
purpose: two clusters may share a file, the cookie of a login under way is no session, and once logins are by key, or at
another issuer, what the one before granted is void.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import logging
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from clockwork.access.keys import RELOAD_S, KeyRing
from clockwork.clock import Clock
from clockwork.domain.rights import Principal, Right, names_of
from clockwork.errors import CannotStart, ClockworkError, Unauthenticated
from clockwork.settings.model import UI_SECRET_FILE, UiSettings

SESSION_MS_MAX: Final = 8 * 3_600_000
"""A working day."""
UNUSED_MS_MAX: Final = 3_600_000
RENEW_MS: Final = 300_000
"""Age at which a cookie is renewed: not with every answer, as a page asks every few seconds."""
COOKIE_BYTES_MAX: Final = 3_900
"""Browsers keep 4,096 bytes, the name and the attributes included."""
SECRET_BYTES_MIN: Final = 32
SECRETS_MAX: Final = 16
FILE_BYTES_MAX: Final = 64 * 1024
ENDED_MAX: Final = 10_000
"""Sessions that were logged out and are remembered; beyond it the first one is forgotten."""
UI_HEADER: Final = "clockwork-ui"
_VERSION: Final = "v1"
_FINGERPRINT_CHARS: Final = 22

log = logging.getLogger(__name__)


class TooManyGrants(ClockworkError):
    """The claims of this login are too long for a cookie."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Granted:
    """Clients, topics and rights of a token, for a session that has no entry to look up."""

    clients: list[str]
    topics: list[str]
    rights: list[Right]
    redacted: bool

    @classmethod
    def of(cls, principal: Principal) -> "Granted":
        return cls(
            clients=principal.clients.patterns(),
            topics=principal.topics.patterns(),
            rights=sorted(principal.rights),
            redacted=principal.redacted,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """The content of a cookie. Times are epoch milliseconds."""

    id: str
    name: str
    issued_at_ms: int
    seen_at_ms: int
    ends_at_ms: int
    key: tuple[str, str] | None = None
    """Id and fingerprint of the entry of the key; None after a login at an issuer."""
    granted: Granted | None = None
    """None after a login by key."""

    @property
    def unused_until_ms(self) -> int:
        """The time at which the session ends unless it is used, or ends in any case."""
        return min(self.ends_at_ms, self.seen_at_ms + UNUSED_MS_MAX)


_SESSION: Final = TypeAdapter(Session)


class Secrets:
    """The secrets that sign cookies: those of a file, which may change while the node runs, or a random one."""

    def __init__(self, path: Path | None) -> None:
        """Raises: CannotStart if the file cannot be used."""
        self._path = path
        self._problem: str | None = None
        try:
            self._secrets = [secrets.token_bytes(SECRET_BYTES_MIN)] if path is None else parse_secrets(_bytes_of(path))
        except (OSError, ValueError) as error:
            raise CannotStart(f"{UI_SECRET_FILE}: {path}: {_reason(error)}") from error

    def sign(self, purpose: str, document: Any) -> str:
        """The text of a cookie. `purpose`: what it is good for; with another one it is not valid."""
        body = base64.urlsafe_b64encode(json.dumps(document, separators=(",", ":")).encode()).rstrip(b"=").decode()
        return f"{_VERSION}.{body}.{_mac(self._secrets[0], purpose, body)}"

    def verify(self, purpose: str, cookie: str) -> Any:
        """The document of a cookie; None if it is malformed, or signed by no secret or for another purpose."""
        version, _, rest = cookie.partition(".")
        body, _, mac = rest.partition(".")
        if version != _VERSION or not cookie.isascii():
            return None
        # Each secret is tried, the right one or not: the time tells nothing about which one it is.
        fits = [hmac.compare_digest(mac, _mac(secret, purpose, body)) for secret in self._secrets]
        if not any(fits):
            return None
        try:
            return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (binascii.Error, ValueError):
            return None

    async def run(self) -> None:
        """Take over changes of the file, until cancelled."""
        while self._path is not None:
            await asyncio.sleep(RELOAD_S)
            await self.reload()

    async def reload(self) -> None:
        """Read the file again. If it cannot be used, the secrets read before stay."""
        if self._path is None:
            return
        try:
            found = parse_secrets(await asyncio.to_thread(_bytes_of, self._path))
        except (OSError, ValueError) as error:
            problem = _reason(error)
            if problem != self._problem:
                extra = {"event": "session.secrets_kept", "path": str(self._path), "error": problem}
                log.error("The changed file of secrets cannot be read; the secrets read before stay", extra=extra)
            self._problem = problem
            return
        if found != self._secrets:
            log.info("Secrets of sessions read", extra={"event": "session.secrets_read", "count": len(found)})
        self._secrets, self._problem = found, None


def parse_secrets(text: bytes) -> list[bytes]:
    """The secrets of a file, one a line; blank lines and blank ends do not count. Raises: ValueError, without a secret."""
    if len(text) > FILE_BYTES_MAX:
        raise ValueError(f"is longer than {FILE_BYTES_MAX} bytes")
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not 1 <= len(found) <= SECRETS_MAX:
        raise ValueError(f"should have 1 to {SECRETS_MAX} lines, each with a secret")
    for number, secret in enumerate(found, 1):
        if len(secret) < SECRET_BYTES_MIN:
            raise ValueError(f"secret {number} is shorter than {SECRET_BYTES_MIN} bytes: try `openssl rand -base64 32`")
    return found


class Sessions:
    """Makes, admits and ends sessions."""

    def __init__(
        self, settings: UiSettings, clock: Clock, *, keys: KeyRing | None, https: bool, issuer: str = "none"
    ) -> None:
        """`keys`: None where there is no login by key. `https`: browsers reach the node by HTTPS. `issuer`: the one whose
        tokens grant, and the audience that they are for.

        Raises: CannotStart if the file of secrets cannot be used.
        """
        self.secrets = Secrets(settings.secret_file)
        self._purpose = f"session of {settings.cluster} by {'key' if keys is not None else issuer}"
        self._clock = clock
        self.keys = keys
        self.https = https
        # A browser takes `__Host-` only from HTTPS, and then from no other host and for no part of this one.
        self.cookie_name = "__Host-clockwork" if https else "clockwork"
        self._ended: dict[str, None] = {}

    def for_key(self, key: str) -> tuple[Session, Principal]:
        """Return a new session for a key's holder. Raises: Unauthenticated."""
        if self.keys is None:
            raise Unauthenticated("This key is not valid here.")
        key_id, entry = self.keys.entry_of(key)
        now_ms = self._clock.now_ms()
        ends_at_ms = now_ms + SESSION_MS_MAX
        session = Session(
            id=secrets.token_urlsafe(12),
            name=entry.principal.name,
            issued_at_ms=now_ms,
            seen_at_ms=now_ms,
            ends_at_ms=ends_at_ms if entry.expires_at_ms is None else min(ends_at_ms, entry.expires_at_ms),
            key=(key_id, fingerprint(entry.hash)),
        )
        return session, entry.principal

    def for_principal(self, principal: Principal, *, ends_at_ms: int) -> Session:
        """Return a new session for a principal that an issuer vouches for until then. Raises: TooManyGrants."""
        now_ms = self._clock.now_ms()
        session = Session(
            id=secrets.token_urlsafe(12),
            name=principal.name,
            issued_at_ms=now_ms,
            seen_at_ms=now_ms,
            ends_at_ms=min(ends_at_ms, now_ms + SESSION_MS_MAX),
            granted=Granted.of(principal),
        )
        if len(self.cookie_of(session)) > COOKIE_BYTES_MAX:
            raise TooManyGrants
        return session

    def log_begun(self, session: Session) -> None:
        """Log that its holder was given the cookie."""
        kind = "key" if session.key is not None else "issuer"
        log.info("Logged in", extra={"event": "session.begun", "principal": session.name, "kind": kind})

    def cookie_of(self, session: Session) -> str:
        """The cookie's text."""
        return self.secrets.sign(self._purpose, asdict(session))

    def admit(self, cookie: str) -> tuple[Session, Principal]:
        """Return the session of a cookie, and its principal as it is now. Raises: Unauthenticated."""
        session = self._open(cookie)
        now_ms = self._clock.now_ms()
        if session is None or session.id in self._ended:
            raise Unauthenticated("This session is not valid here. Log in again.")
        if now_ms >= session.unused_until_ms:
            raise Unauthenticated("The session has ended. Log in again.")
        if session.granted is not None:
            return session, _principal(session.name, session.granted)
        entry = self.keys.find(session.key[0]) if self.keys is not None and session.key is not None else None
        if entry is None or session.key is None or not hmac.compare_digest(session.key[1], fingerprint(entry.hash)):
            raise Unauthenticated("The key of this session is not valid any more.")
        return session, entry.principal

    def renewal(self, session: Session) -> Session | None:
        """Return the session as it is after this use, if its cookie is to be sent again."""
        now_ms = self._clock.now_ms()
        # It may have been logged out while this request was answered: a cookie now would bring it back to the browser.
        if session.id in self._ended or now_ms - session.seen_at_ms < RENEW_MS:
            return None
        return replace(session, seen_at_ms=now_ms)

    def end(self, cookie: str) -> Session | None:
        """Refuse the session from now on, on this process. Return it; None if the cookie is not valid."""
        if (session := self._open(cookie)) is None:
            return None
        while len(self._ended) >= ENDED_MAX:
            del self._ended[next(iter(self._ended))]
        self._ended[session.id] = None
        log.info("Logged out", extra={"event": "session.ended", "principal": session.name})
        return session

    async def run(self) -> None:
        """Keep the secrets up to date, until cancelled."""
        await self.secrets.run()

    def _open(self, cookie: str) -> Session | None:
        document = self.secrets.verify(self._purpose, cookie)
        try:
            return None if document is None else _SESSION.validate_python(document)
        except ValidationError:
            return None  # of another release


def fingerprint(key_hash: str) -> str:
    """A short digest of an entry's hash: tells that the entry is still the same, and nothing of the key."""
    return hashlib.sha256(f"session {key_hash}".encode()).hexdigest()[:_FINGERPRINT_CHARS]


def _principal(name: str, granted: Granted) -> Principal:
    return Principal(
        name=name,
        clients=names_of(granted.clients),
        topics=names_of(granted.topics),
        rights=frozenset(granted.rights),
        redacted=granted.redacted,
    )


def _mac(secret: bytes, purpose: str, body: str) -> str:
    signed = f"clockwork {_VERSION} {purpose}\n{body}".encode()
    return base64.urlsafe_b64encode(hmac.digest(secret, signed, "sha256")).rstrip(b"=").decode()


def _bytes_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(FILE_BYTES_MAX + 1)


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
