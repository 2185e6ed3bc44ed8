"""Tokens of an OpenID Connect issuer (JSON Web Tokens), in place of API keys.

A token is checked for its signature, by one of the keys that the issuer publishes (JWKS), and for `iss`, `aud`, `exp` and
`nbf`. Only asymmetric algorithms are accepted: a shared secret would let each of its readers make tokens, `none` any caller.

Claims name the caller and grant rights, clients and topics. A claim that grants is a list of texts, or one text with blanks
between, as `scope` is. A claim of any other form grants nothing, as if it were absent.

The issuer's keys are fetched with the first token and again every `REFRESH_S`; at once, but not more often than
`REFRESH_UNKNOWN_S`, when a token names a key that is not among them: a new key appears in this way. While the issuer does
not answer, the keys fetched before stay valid for `KEYS_AGE_S_MAX`. Then the answer is 503, not 401: the token may be good.
An accepted token is not checked again for `VERIFIED_S_MAX`, as a signature costs 0.2 to 0.8 ms; never past its `exp`.

PyJWT fetches (`PyJWKClient.fetch_data`) and verifies. Its choice of a key and its cache are not used: it takes the first
key with the token's `kid`, although RFC 7517 4.5 allows several of different types; for an RSA key without `alg` it accepts
RS256 alone; a member that it does not expect can spoil the whole set; after a failure it fetches again with every token,
however long the issuer stays away; and a test cannot set its clock.
"""

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from clockwork.clock import Clock
from clockwork.domain.rights import Principal, Right, names_of
from clockwork.errors import CannotStart, Unauthenticated, Unavailable
from clockwork.settings.model import AccessSettings

if TYPE_CHECKING:
    from jwt.algorithms import AllowedPublicKeys

ALGORITHMS: Final[Mapping[tuple[str, str | None], tuple[str, ...]]] = {
    ("RSA", None): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
}
"""The algorithms of each key type and curve. RFC 7517 4.4: a key may limit them to one, its `alg`."""
TIME_CLAIMS: Final = ("exp", "nbf", "iat")
LEEWAY_S: Final = 30
"""The accepted difference between the issuer's clock and this node's."""
FETCH_S_MAX: Final = 5.0
"""The longest time for which a request waits for the issuer."""
REFRESH_S: Final = 600.0
REFRESH_UNKNOWN_S: Final = 10.0
KEYS_AGE_S_MAX: Final = 3_600.0
VERIFIED_S_MAX: Final = 60.0
VERIFIED_TOKENS_MAX: Final = 10_000
"""Beyond it the least recently used token is forgotten, and checked again with its next request."""

log = logging.getLogger(__name__)


class IssuerUnavailable(Unavailable):
    """The issuer of tokens does not answer."""


class _Jwk(BaseModel):
    """The fields of a JWKS member that decide about its use. A `null` counts as absent, as some issuers write all fields."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    kty: str
    crv: str | None = None
    kid: str | None = None
    alg: str | None = None
    use: str | None = None
    key_ops: list[str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _IssuerKey:
    """A key of the issuer that may verify tokens."""

    key_id: str | None
    algorithms: tuple[str, ...]
    public_key: "AllowedPublicKeys"


@dataclass(frozen=True, kw_only=True, slots=True)
class IssuerEndpoints:
    """URLs of an issuer for a login."""

    authorization: str
    token: str
    takes_basic: bool
    """True if a client may send its secret as HTTP Basic; else it stands in the body."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Verified:
    """An accepted token."""

    principal: Principal
    check_again_at_s: float
    expires_at_ms: int


class OidcTokens:
    """The tokens of one issuer. Implements `gate.Authenticator`."""

    def __init__(
        self, settings: AccessSettings, clock: Clock, *, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises: CannotStart if PyJWT is not installed."""
        try:
            import jwt
        except ImportError as error:
            raise CannotStart("CLOCKWORK_AUTH: oidc needs PyJWT; install clockwork[oidc]") from error
        self._jwt = jwt
        self._settings = settings
        self._clock = clock
        self._monotonic_s = monotonic_s
        self._keys: Sequence[_IssuerKey] = ()
        self._fetched_at_s: float | None = None
        self._tried_at_s: float | None = None
        self._fetching = asyncio.Lock()
        self._endpoints: tuple[float, IssuerEndpoints | str] | None = None
        self._discovering = asyncio.Lock()
        # Under a keyed hash with a key of this process: memory read later gives no token away, and no caller can choose
        # tokens that collide. Only accepted tokens are kept, so refused ones take no memory.
        self._hash_key = secrets.token_bytes(32)
        self._verified: dict[bytes, _Verified] = {}

    async def authenticate(self, credential: str) -> Principal:
        """Return the principal of a token. Raises: Unauthenticated, IssuerUnavailable."""
        digest = hashlib.blake2b(credential.encode(), key=self._hash_key, digest_size=32).digest()
        if (known := self._verified.pop(digest, None)) is not None and self._is_current(known):
            self._verified[digest] = known
            return known.principal
        claims = await self.claims_of(credential)
        verified = _Verified(
            principal=self.principal_of(claims),
            check_again_at_s=self._monotonic_s() + VERIFIED_S_MAX,
            expires_at_ms=(int(claims["exp"]) + LEEWAY_S) * 1_000,
        )
        while len(self._verified) >= VERIFIED_TOKENS_MAX:
            self._verified.pop(next(iter(self._verified)))
        self._verified[digest] = verified
        return verified.principal

    async def claims_of(self, token: str, *, audience: str | None = None) -> dict[str, Any]:
        """Return the claims of a valid token for this audience; by default the node's own.

        Raises: Unauthenticated, IssuerUnavailable.
        """
        try:
            header = self._jwt.get_unverified_header(token)
            keys = await self._keys_with(header.get("kid"))
            return self._verify(token, keys, header.get("alg"), audience or self._settings.oidc_audience)
        except self._jwt.PyJWTError as error:
            raise _refused(_fault(error)) from error

    def _is_current(self, verified: _Verified) -> bool:
        return self._monotonic_s() < verified.check_again_at_s and self._clock.now_ms() < verified.expires_at_ms

    def _verify(
        self, token: str, keys: Sequence[_IssuerKey], algorithm: object, audience: str | None
    ) -> dict[str, Any]:
        """Return the claims, if one of the keys has signed them. Raises: Unauthenticated, PyJWTError."""
        fault: Exception | None = None
        for key in keys:
            if algorithm not in key.algorithms:
                continue
            try:
                claims = self._jwt.decode(
                    token,
                    key=key.public_key,
                    algorithms=key.algorithms,
                    audience=audience,
                    issuer=self._settings.oidc_issuer,
                    leeway=LEEWAY_S,
                    options={"require": ["exp", "iss", "aud"]},
                )
            except self._jwt.InvalidSignatureError as error:
                fault = error  # another key may fit
                continue
            for name in TIME_CLAIMS:
                # PyJWT takes whatever `int()` takes: `true`, or a number written as text.
                if type(claims.get(name, 0)) not in (int, float):
                    raise _refused(f"its {name} is not a number")
            return dict(claims)
        if not keys:
            raise _refused("its key is not one of the issuer's")
        raise fault or self._jwt.InvalidAlgorithmError

    def principal_of(self, claims: Mapping[str, Any]) -> Principal:
        """Return what verified claims grant. Raises: Unauthenticated."""
        settings = self._settings
        rights = {right.value: right for right in Right}
        name = claims.get(settings.oidc_name_claim)
        try:
            return Principal(
                name=name[:128] if isinstance(name, str) else "",
                clients=names_of(_texts(claims.get(settings.oidc_clients_claim))),
                topics=names_of(_texts(claims.get(settings.oidc_topics_claim))),
                # A claim like `scope` holds words for other services too.
                rights=frozenset(rights[t] for t in _texts(claims.get(settings.oidc_rights_claim)) if t in rights),
                # It takes away, so what is not plainly false counts as true.
                redacted=claims.get(settings.oidc_redacted_claim) not in (None, False, "false"),
            )
        except ValueError as error:
            raise _refused(f"a claim of it {error}") from error

    # --- the issuer's keys

    async def run(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            if self._fetched_at_s is not None:
                await self.refresh()

    async def refresh(self) -> None:
        """Fetch the issuer's keys. If it does not answer, the keys fetched before stay."""
        self._tried_at_s = self._monotonic_s()
        try:
            # Limits what requests wait for. The thread may go on for longer, but waits `FETCH_S_MAX` for each read at most.
            async with asyncio.timeout(FETCH_S_MAX):
                keys = await asyncio.to_thread(self._fetch)
        except (OSError, ValueError, RecursionError, self._jwt.PyJWTError) as error:
            extra = {"event": "auth.issuer_away", "error": f"{type(error).__name__}: {error}", "once_per": "issuer"}
            log.warning("The issuer's keys cannot be fetched", extra=extra)
            return
        self._keys, self._fetched_at_s = keys, self._monotonic_s()

    async def _keys_with(self, key_id: str | None) -> Sequence[_IssuerKey]:
        """Return the issuer's keys with this id; all, if the token names none. Raises: IssuerUnavailable."""
        if not (found := self._find(key_id)):
            async with self._fetching:
                # Another request may have fetched while this one waited.
                if not (found := self._find(key_id)) and self._may_fetch():
                    await self.refresh()
                    found = self._find(key_id)
        if not found and not self._is_fresh():
            raise IssuerUnavailable
        return found

    def _find(self, key_id: str | None) -> Sequence[_IssuerKey]:
        if not self._is_fresh():
            return ()
        return [key for key in self._keys if key_id is None or key.key_id == key_id]

    def _is_fresh(self) -> bool:
        return self._fetched_at_s is not None and self._monotonic_s() - self._fetched_at_s < KEYS_AGE_S_MAX

    def _may_fetch(self) -> bool:
        return self._tried_at_s is None or self._monotonic_s() - self._tried_at_s >= REFRESH_UNKNOWN_S

    def _fetch(self) -> Sequence[_IssuerKey]:
        """Fetch the key set and read its members. Blocks. Raises: OSError, ValueError, RecursionError, PyJWTError."""
        url = self._settings.oidc_jwks_url
        if url is None:
            url = self._url_in(self._discover(), "jwks_uri")
        members = self._fetch_document(url).get("keys")
        if not isinstance(members, list):
            raise ValueError("the issuer's answer is no set of keys")
        found = (self._read_member(number, member) for number, member in enumerate(members))
        return [key for key in found if key is not None]

    async def endpoints(self) -> IssuerEndpoints:
        """Return where a login goes. Raises: IssuerUnavailable.

        Kept for `REFRESH_S`, and a failure for `REFRESH_UNKNOWN_S`: any stranger may begin a login.
        """
        async with self._discovering:
            now_s = self._monotonic_s()
            if self._endpoints is None or now_s >= self._endpoints[0]:
                self._endpoints = await self._look_for_endpoints(now_s)
            if isinstance(found := self._endpoints[1], IssuerEndpoints):
                return found
            raise IssuerUnavailable(found)

    async def _look_for_endpoints(self, now_s: float) -> tuple[float, IssuerEndpoints | str]:
        """Read the discovery document. Return the endpoints or the fault, and until when they are kept."""
        try:
            async with asyncio.timeout(FETCH_S_MAX):
                about = await asyncio.to_thread(self._discover)
            methods = about.get("token_endpoint_auth_methods_supported")
            found = IssuerEndpoints(
                authorization=self._url_in(about, "authorization_endpoint"),
                token=self._url_in(about, "token_endpoint"),
                # Absent means `client_secret_basic` (OpenID Connect Discovery 1.0, 3).
                takes_basic=not isinstance(methods, list) or "client_secret_basic" in methods,
            )
        except (OSError, ValueError, RecursionError, self._jwt.PyJWTError) as error:
            return now_s + REFRESH_UNKNOWN_S, f"discovery: {type(error).__name__}: {error}"
        return now_s + REFRESH_S, found

    def _discover(self) -> Mapping[str, Any]:
        """Fetch the discovery document. Blocks. Raises: OSError, ValueError, RecursionError, PyJWTError."""
        issuer = str(self._settings.oidc_issuer)
        about = self._fetch_document(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if about.get("issuer") != issuer:
            raise ValueError("the discovery document names another issuer")
        return about

    def _url_in(self, about: Mapping[str, Any], name: str) -> str:
        """Return a URL of the discovery document. Raises: ValueError."""
        url = str(about.get(name))
        if urlsplit(url).scheme != urlsplit(str(self._settings.oidc_issuer)).scheme:
            raise ValueError(f"the discovery document names {name} at a less safe place, or not at all")
        return url

    def _fetch_document(self, url: str) -> dict[str, Any]:
        """Fetch a JSON object; PyJWT's client for key sets reads any, and follows no redirect.

        Its size is not limited: an issuer that is trusted to sign tokens can do worse than fill memory.
        """
        # Some firewalls refuse the name that urllib gives itself.
        client = self._jwt.PyJWKClient(
            url, cache_jwk_set=False, headers={"User-Agent": "clockwork"}, timeout=FETCH_S_MAX
        )
        document: dict[str, Any] = client.fetch_data()
        return document

    def _read_member(self, number: int, member: Any) -> _IssuerKey | None:
        """Read one member of the key set; None if it cannot verify tokens."""
        try:
            jwk = _Jwk.model_validate(member)
            if jwk.use not in (None, "sig") or (jwk.key_ops is not None and "verify" not in jwk.key_ops):
                return None
            algorithms = ALGORITHMS.get((jwk.kty, None if jwk.kty == "RSA" else jwk.crv), ())
            if jwk.alg is not None:
                algorithms = tuple(name for name in algorithms if name == jwk.alg)
            if not algorithms:
                return None  # for encryption, a shared secret, or of a kind that is not accepted
            if "d" in member:
                raise _UnusableKey("is a private key")  # any reader of the set could sign with it
            key = self._jwt.PyJWK(member, algorithm=algorithms[0])
            if key.Algorithm.check_key_length(key.key) is not None:
                raise _UnusableKey("is too short")
            return _IssuerKey(key_id=jwk.kid, algorithms=algorithms, public_key=key.key)
        except Exception as error:
            # Any error: the issuer writes what it likes, and the libraries below name no complete list of what they raise.
            # Their messages may quote the member and are left out.
            reason = str(error) if isinstance(error, _UnusableKey) else type(error).__name__
            extra = {"event": "auth.issuer_key_skipped", "error": f"keys.{number}: {reason}"}
            log.warning("A key of the issuer cannot be used", extra=extra | {"once_per": f"keys.{number}: {reason}"})
            return None


class _UnusableKey(ValueError):
    """A key of the issuer that must not verify tokens."""


def _texts(claim: object) -> list[str]:
    """Return the texts of a claim that grants something; none, if it is of any other form."""
    if isinstance(claim, str):
        return claim.split()
    return claim if isinstance(claim, list) and all(isinstance(text, str) for text in claim) else []


def _refused(fault: str) -> Unauthenticated:
    return Unauthenticated(f"This token is not valid here: {fault}.")


def _fault(error: Exception) -> str:
    """Name the kind of fault. PyJWT's own message may quote the token."""
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
