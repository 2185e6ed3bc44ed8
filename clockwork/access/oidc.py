"""Tokens of an OpenID Connect issuer (JSON Web Tokens), instead of keys of our own.

Checked: signature by one of the issuer's published keys (asymmetric algorithms only: a shared secret would let every
reader of it make tokens, and "none" anybody), `iss`, `aud`, `exp`, `nbf`. Claims say who it is and what they may do; each
is a list of texts, or one text with blanks between, as `scope` is. A claim that is absent allows nothing.

The issuer's keys are fetched when the first token comes and from then on every `REFRESH_S`; at once (but not more often
than `REFRESH_UNKNOWN_S`) when a token names a key that is not among them, since that is how a new key announces itself.
While the issuer is away the keys fetched before go on counting for `KEYS_AGE_S_MAX`; then the answer is 503, not 401:
the token may be good. A token that was checked is believed for `VERIFIED_S_MAX` at most, and not past its `exp`.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import aiohttp

from clockwork.access.verified import Verified
from clockwork.clock import Clock
from clockwork.domain.rights import Principal, Right, names_of
from clockwork.errors import StartRefused, Unauthenticated, Unavailable
from clockwork.settings.model import AccessSettings

if TYPE_CHECKING:
    import jwt

ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
LEEWAY_S: Final = 30
"""Between the issuer's clock and ours."""
FETCH_S_MAX: Final = 5.0
DOCUMENT_BYTES_MAX: Final = 1024 * 1024
REFRESH_S: Final = 600.0
REFRESH_UNKNOWN_S: Final = 10.0
KEYS_AGE_S_MAX: Final = 3_600.0
VERIFIED_S_MAX: Final = 60.0

log = logging.getLogger(__name__)


class IssuerUnavailable(Unavailable):
    """The issuer of tokens does not answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Checked:
    """A token that was checked, and until when that is believed."""

    principal: Principal
    until_s: float
    expires_at_s: int


class OidcTokens:
    """The tokens of one issuer. Implements `auth.Authenticator`."""

    def __init__(
        self, settings: AccessSettings, clock: Clock, *, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises: StartRefused if the library is not installed."""
        try:
            import jwt
        except ImportError as error:
            raise StartRefused("CLOCKWORK_AUTH: oidc needs PyJWT; install clockwork[oidc]") from error
        self._jwt = jwt
        self._settings = settings
        self._clock = clock
        self._monotonic_s = monotonic_s
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._fetched_at_s: float | None = None
        self._tried_at_s: float | None = None
        self._fetching = asyncio.Lock()
        self._verified: Verified[_Checked] = Verified()

    def known(self, credential: str) -> Principal | None:
        checked = self._verified.get(credential)
        if checked is None:
            return None
        if checked.until_s <= self._monotonic_s() or checked.expires_at_s * 1_000 <= self._clock.now_ms():
            self._verified.drop(credential)
            return None
        return checked.principal

    async def check(self, credential: str) -> Principal:
        """Whose token it is. Raises: Unauthenticated, IssuerUnavailable."""
        try:
            key_id = self._jwt.get_unverified_header(credential).get("kid")
            key = await self._key(key_id)
            claims = self._jwt.decode(
                credential,
                key=key,
                algorithms=ALGORITHMS,
                audience=self._settings.oidc_audience,
                issuer=self._settings.oidc_issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud"], "enforce_minimum_key_length": True},
            )
        except self._jwt.InvalidTokenError as error:
            raise Unauthenticated(f"This token is not valid here: {_reason(error)}.") from error
        principal = self._principal(claims)
        until_s = self._monotonic_s() + VERIFIED_S_MAX
        self._verified.put(
            credential, _Checked(principal=principal, until_s=until_s, expires_at_s=int(claims["exp"]) + LEEWAY_S)
        )
        return principal

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        chosen = self._settings
        rights = {right.value: right for right in Right}
        try:
            return Principal(
                name=str(claims.get(chosen.oidc_name_claim, ""))[:128],
                clients=names_of(_texts(claims.get(chosen.oidc_clients_claim))),
                topics=names_of(_texts(claims.get(chosen.oidc_topics_claim))),
                # A claim like `scope` says other things too.
                rights=frozenset(rights[t] for t in _texts(claims.get(chosen.oidc_rights_claim)) if t in rights),
            )
        except ValueError as error:
            raise Unauthenticated(f"This token is not valid here: a claim of it {error}.") from error

    # --- the issuer's keys

    async def run(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            if self._fetched_at_s is not None:
                await self.refresh()

    async def refresh(self) -> None:
        """Fetches the keys; those fetched before stay if the issuer does not answer."""
        self._tried_at_s = self._monotonic_s()
        try:
            keys = await self._fetch()
        except (aiohttp.ClientError, TimeoutError, ValueError, self._jwt.PyJWTError) as error:
            extra = {"event": "auth.issuer_away", "error": f"{type(error).__name__}: {error}", "once_per": "issuer"}
            log.warning("The issuer's keys cannot be fetched", extra=extra)
            return
        self._keys, self._fetched_at_s = keys, self._monotonic_s()

    async def _key(self, key_id: object) -> "jwt.PyJWK":
        """The issuer's key with this id; its only one, if the token names none."""
        if not isinstance(key_id, str | None):
            raise self._jwt.InvalidTokenError("kid")
        if (found := self._find(key_id)) is not None:
            return found
        async with self._fetching:
            # Whoever waited for the same fetch finds what it brought.
            if (found := self._find(key_id)) is None and self._may_try():
                await self.refresh()
                found = self._find(key_id)
        if found is None and not self._is_fresh():
            raise IssuerUnavailable
        if found is None:
            raise self._jwt.InvalidTokenError("unknown key")
        return found

    def _find(self, key_id: str | None) -> "jwt.PyJWK | None":
        if not self._is_fresh():
            return None
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id) if key_id is not None else None

    def _is_fresh(self) -> bool:
        return self._fetched_at_s is not None and self._monotonic_s() - self._fetched_at_s < KEYS_AGE_S_MAX

    def _may_try(self) -> bool:
        return self._tried_at_s is None or self._monotonic_s() - self._tried_at_s >= REFRESH_UNKNOWN_S

    async def _fetch(self) -> Mapping[str | None, "jwt.PyJWK"]:
        chosen = self._settings
        timeout = aiohttp.ClientTimeout(total=FETCH_S_MAX)
        async with aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session:
            url = chosen.oidc_jwks_url
            if url is None:
                about = await _document(
                    session, f"{str(chosen.oidc_issuer).rstrip('/')}/.well-known/openid-configuration"
                )
                if about.get("issuer") != chosen.oidc_issuer:
                    raise ValueError("the discovery document names another issuer")
                url = str(about.get("jwks_uri"))
                if urlsplit(url).scheme != urlsplit(str(chosen.oidc_issuer)).scheme:
                    raise ValueError("the discovery document names keys at a less safe place")
            document = await _document(session, url)
        keys = self._jwt.PyJWKSet.from_dict(_for_signatures(document))
        return {key.key_id: key for key in keys.keys}


def _for_signatures(document: Mapping[str, Any]) -> dict[str, Any]:
    """The key set without keys that are for other things, and without shared secrets."""
    listed = document.get("keys")
    keys = [k for k in listed if isinstance(k, dict)] if isinstance(listed, list) else []
    return {"keys": [k for k in keys if k.get("use", "sig") == "sig" and k.get("kty") != "oct"]}


async def _document(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """A JSON object. Raises: ClientError, TimeoutError, ValueError."""
    async with session.get(url, allow_redirects=False) as response:
        body = await response.content.read(DOCUMENT_BYTES_MAX + 1)
        while len(body) <= DOCUMENT_BYTES_MAX and (more := await response.content.read(DOCUMENT_BYTES_MAX)):
            body += more
        if len(body) > DOCUMENT_BYTES_MAX or response.status != 200:
            raise ValueError("the issuer's answer is no document of a usual size")
    document = json.loads(body)
    if not isinstance(document, dict):
        raise ValueError("the issuer's answer is no JSON object")
    return document


def _texts(claim: object) -> list[str]:
    """What a claim lists."""
    if isinstance(claim, str):
        return claim.split()
    return [text for text in claim if isinstance(text, str)] if isinstance(claim, Iterable) else []


def _reason(error: Exception) -> str:
    """What kind of fault it is; the library's own text may hold what the token says."""
    words = {
        "ExpiredSignatureError": "it has expired",
        "InvalidAudienceError": "it is for another audience",
        "InvalidIssuerError": "it is from another issuer",
        "ImmatureSignatureError": "its time has not come",
        "MissingRequiredClaimError": "it lacks a claim",
        "InvalidSignatureError": "its signature does not fit",
        "InvalidAlgorithmError": "its algorithm is not accepted",
    }
    return words.get(type(error).__name__, "it cannot be read")
