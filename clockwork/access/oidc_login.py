"""Logins of the dashboard at an OpenID Connect issuer: the authorization code flow, with PKCE, `state` and `nonce`.

    GET /session/login ──302──► issuer ──302──► GET /session/callback ──302──► the page
          │ a cookie keeps state, nonce, verifier, next        │ code + verifier ──► token endpoint ──► tokens
          └────────────────────────────────────────────────────┘ rights ──► the session's cookie

The cookie of a login under way is signed, for this purpose alone, and the browser's own: a `code` that another browser was
given has no cookie here (RFC 9700, 2.1). Each login has its own, named after its state: a browser that opens several pages
at once logs in once a page. It is `SameSite=Lax`, since the issuer sends the browser back here.

Rights come from the access token, if that is a JWT for our audience, read as those of API calls are; else from the ID token.
No token is kept, so none can be refreshed: when the session ends the browser is sent to the issuer again, which mostly still
knows its reader.

Authlib builds the requests (RFC 6749, 7636) and reads the answer; tokens are verified where those of API calls are (`oidc`).
"""

import asyncio
import hmac
import logging
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from pydantic import TypeAdapter, ValidationError

from clockwork.access.oidc import FETCH_S_MAX, IssuerUnavailable, OidcTokens
from clockwork.access.sessions import Session, Sessions, TooManyGrants
from clockwork.clock import Clock
from clockwork.domain.rights import Principal
from clockwork.errors import CannotStart, Unauthenticated
from clockwork.settings.model import AccessSettings

LOGIN_MS_MAX: Final = 600_000
"""Time for a person to log in at the issuer."""
EXCHANGES_MAX: Final = 8
"""Requests to the token endpoint at once: a stranger, too, can come back with a code."""
NEXT_CHARS_MAX: Final = 2_000
"""It stands in a cookie."""
LOGINS_BYTES_MAX: Final = 3_600
"""Cookies of all logins of a browser: beside that of a session (`sessions.COOKIE_BYTES_MAX`) they have to fit into one
header, of 8,192 bytes."""
CALLBACK: Final = "/session/callback"

log = logging.getLogger(__name__)


class LoginFailed(Exception):
    """A login that ends without a session."""

    def __init__(self, kind: str, reason: str) -> None:
        """`kind`: for the page, one of docs/dashboard.md. `reason`: for the log."""
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """The content of the cookie of a login under way."""

    state: str
    nonce: str
    verifier: str
    next: str
    """Path of the page to go on to."""
    ends_at_ms: int


_STARTED: Final = TypeAdapter(Started)


class OidcLogin:
    """Logins at one issuer."""

    def __init__(
        self, settings: AccessSettings, tokens: OidcTokens, sessions: Sessions, clock: Clock, *, cluster: str
    ) -> None:
        """Raises: CannotStart if Authlib is not installed, or the client's secret cannot be read."""
        try:
            from authlib.integrations.httpx_client import AsyncOAuth2Client
        except ImportError as error:
            raise CannotStart("CLOCKWORK_OIDC_UI_CLIENT_ID: needs Authlib; install clockwork[oidc]") from error
        self._client_class = AsyncOAuth2Client
        self._settings = settings
        self._tokens = tokens
        self._sessions = sessions
        self._clock = clock
        self._purpose = f"login of {cluster}"
        self._cookie_prefix = f"{sessions.cookie_name}-login-"
        self._exchanges = asyncio.Semaphore(EXCHANGES_MAX)
        try:
            self._secret()
        except (OSError, ValueError) as error:
            path = settings.oidc_ui_secret_file
            raise CannotStart(f"CLOCKWORK_OIDC_UI_SECRET_FILE: {path}: {error}") from error

    def cookie_name(self, state: str) -> str:
        """The name of the cookie of the login with this state."""
        return f"{self._cookie_prefix}{state[:8]}"

    def to_forget(self, cookies: Mapping[str, str], new: str) -> list[str]:
        """The names of cookies that are to go so that this one has room, the oldest first: browsers send them in the order
        in which they came. A page of another site can make a browser begin one login after the other, and a request whose
        cookies are longer than a header may be is refused, until they expire."""
        others = {name: text for name, text in cookies.items() if name.startswith(self._cookie_prefix)}
        room = LOGINS_BYTES_MAX - len(new) - sum(map(len, others.values()))
        forgotten: list[str] = []
        for name, text in others.items():
            if room >= 0:
                break
            room += len(text)
            forgotten.append(name)
        return forgotten

    async def start(self, go_on_to: str, *, url: str) -> tuple[str, Started]:
        """Begin a login. `url`: that of this node, as browsers know it.

        Returns: the issuer's page to go to, and what its cookie is to keep. Raises: IssuerUnavailable.
        """
        endpoints = await self._tokens.endpoints()
        started = Started(
            state=secrets.token_urlsafe(24),
            nonce=secrets.token_urlsafe(24),
            verifier=secrets.token_urlsafe(48),
            next=go_on_to,
            ends_at_ms=self._clock.now_ms() + LOGIN_MS_MAX,
        )
        async with self._client(url) as client:
            page, _ = client.create_authorization_url(
                endpoints.authorization, state=started.state, nonce=started.nonce, code_verifier=started.verifier
            )
        return str(page), started

    def cookie_of(self, started: Started) -> str:
        """The text of the cookie."""
        return self._sessions.secrets.sign(self._purpose, asdict(started))

    async def finish(self, cookie: str | None, given: Mapping[str, str], *, url: str) -> tuple[Session, str]:
        """End a login. `given`: the query with which the issuer sent the browser back.

        Returns: the session, and the path to go on to. Raises: LoginFailed.
        """
        started = self._opened(cookie, given.get("state", ""))
        if "error" in given:
            raise LoginFailed("refused", f"the issuer answered {given['error'][:100]!a}")
        if given.get("iss", self._settings.oidc_issuer) != self._settings.oidc_issuer:
            raise LoginFailed("issuer", "another issuer answered")  # RFC 9207
        try:
            token = await self._exchange(given.get("code", ""), started, url)
            principal, ends_at_ms = await self._principal(token, started)
        except IssuerUnavailable as error:
            raise LoginFailed("unavailable", str(error)) from error
        except Unauthenticated as error:
            raise LoginFailed("issuer", str(error)) from error
        if not principal.rights:
            raise LoginFailed("no-rights", f"{principal.name!a} has no right here")
        try:
            return self._sessions.for_principal(principal, ends_at_ms=ends_at_ms), started.next
        except TooManyGrants as error:
            raise LoginFailed("too-large", str(error)) from error

    def _opened(self, cookie: str | None, state: str) -> Started:
        """The login that the cookie is of. Raises: LoginFailed."""
        try:
            document = None if cookie is None else self._sessions.secrets.verify(self._purpose, cookie)
            started = _STARTED.validate_python(document)
        except ValidationError as error:
            raise LoginFailed("expired", "no login is under way in this browser") from error
        if not hmac.compare_digest(started.state.encode(), state.encode()):
            raise LoginFailed("expired", "the state is not that of the login")
        if self._clock.now_ms() >= started.ends_at_ms:
            raise LoginFailed("expired", "the login took too long")
        return started

    async def _exchange(self, code: str, started: Started, url: str) -> Mapping[str, Any]:
        """The issuer's tokens for a code. Raises: LoginFailed, IssuerUnavailable."""
        from authlib.integrations.base_client import OAuthError
        from httpx2 import HTTPError, InvalidURL

        endpoints = await self._tokens.endpoints()
        basic = endpoints.takes_basic
        try:
            async with asyncio.timeout(FETCH_S_MAX), self._exchanges, self._client(url, basic=basic) as client:
                token = await client.fetch_token(
                    endpoints.token, grant_type="authorization_code", code=code, code_verifier=started.verifier
                )
        except OAuthError as error:
            raise LoginFailed("issuer", f"the issuer refused the code: {error.error}") from error
        except (OSError, HTTPError, InvalidURL) as error:
            raise IssuerUnavailable(f"token endpoint: {type(error).__name__}") from error
        except ValueError as error:
            raise LoginFailed("issuer", "the issuer's answer is no JSON") from error
        if not isinstance(token, Mapping):
            raise LoginFailed("issuer", "the issuer's answer is no object")
        return token

    async def _principal(self, token: Mapping[str, Any], started: Started) -> tuple[Principal, int]:
        """The person who logged in, and until when. Raises: LoginFailed, Unauthenticated, IssuerUnavailable."""
        client_id = str(self._settings.oidc_ui_client_id)
        claims = await self._tokens.claims_of(str(token.get("id_token", "")), audience=client_id)
        if not hmac.compare_digest(str(claims.get("nonce")).encode(), started.nonce.encode()):
            raise LoginFailed("issuer", "the nonce is not that of the login")
        # OpenID Connect Core 1.0, 3.1.3.7: of several audiences, the authorized party has to be this client.
        if claims.get("azp", client_id) != client_id:
            raise LoginFailed("issuer", "the ID token is for another client")
        try:
            of_access = await self._tokens.claims_of(str(token.get("access_token", "")))
        except Unauthenticated:
            return self._tokens.principal_of(claims), int(claims["exp"] * 1_000)
        if of_access.get("sub") != claims.get("sub"):
            raise LoginFailed("issuer", "the two tokens are of different persons")
        return self._tokens.principal_of(of_access), int(of_access["exp"] * 1_000)

    def _client(self, url: str, *, basic: bool = True) -> Any:
        secret = self._secret()
        return self._client_class(
            client_id=self._settings.oidc_ui_client_id,
            client_secret=secret,
            token_endpoint_auth_method=(
                "none" if secret is None else "client_secret_basic" if basic else "client_secret_post"
            ),
            scope=self._settings.oidc_ui_scopes,
            redirect_uri=f"{url}{CALLBACK}",
            code_challenge_method="S256",
            timeout=FETCH_S_MAX,
        )

    def _secret(self) -> str | None:
        """The client's secret, read anew at each login, as it may have been replaced. Raises: OSError, ValueError."""
        path: Path | None = self._settings.oidc_ui_secret_file
        if path is None:
            return None
        if not (secret := path.read_text(encoding="utf-8").strip()):
            raise ValueError("is empty")
        return secret


def page_of(path: str | None, *, base: str) -> str:
    """The path of a page of ours below this prefix; that of the first one, if `path` is none: a login leads to no other
    site."""
    first = f"{base}/ui/"
    known = path is not None and len(path) <= NEXT_CHARS_MAX and path.isprintable() and "\\" not in path
    if path is None or not known or not path.startswith(first):
        return first
    # Browsers fold `..`, also where its dots are percent-encoded. No `urlsplit`: it raises ValueError for some texts.
    named = re.split("[?#]", path, maxsplit=1)[0]
    return first if {".", ".."}.intersection(unquote(named).split("/")) else path
