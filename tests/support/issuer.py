"""An OpenID Connect issuer that lives in the test: real signatures, real HTTP, and persons who log in at once."""

import asyncio
import base64
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import get_default_algorithms
from yarl import URL

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
ANOTHER_RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
WEAK_RSA = rsa.generate_private_key(public_exponent=65_537, key_size=1_024)
EC = ec.generate_private_key(ec.SECP256R1())
KEY_OF: dict[str, PrivateKey] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), RSA),
    "ES256": EC,
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
ED448 = ed448.Ed448PrivateKey.generate()
LATER = datetime.now(UTC) + timedelta(hours=1)


def published(key: PrivateKey, key_id: str | None, **members: Any) -> dict[str, Any]:
    """The key as its issuer publishes it, without `alg` unless it is given; a member that is None is left out."""
    name = next((name for name, each in KEY_OF.items() if type(each) is type(key)), "EdDSA")
    document = get_default_algorithms()[name].to_jwk(key.public_key(), as_dict=True)
    document = {name: value for name, value in document.items() if name != "key_ops"}
    return document | {name: value for name, value in {"kid": key_id, **members}.items() if value is not None}


def base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def signed(header: bytes, claims: bytes, *, key: PrivateKey = RSA, algorithm: str = "RS256") -> str:
    """A token of any bytes, with a signature that fits."""
    text = f"{base64url(header)}.{base64url(claims)}"
    return f"{text}.{base64url(get_default_algorithms()[algorithm].sign(text.encode(), key))}"


@dataclass
class Issuer:
    """Publishes keys, signs tokens."""

    url: str = ""
    keys: list[Any] = field(default_factory=lambda: [published(RSA, "one")])
    fetched: int = 0
    discovered: int = 0
    """Requests for the discovery document."""
    answer: web.Response | None = None
    """Given instead of the keys."""
    about_changes: dict[str, Any] = field(default_factory=dict)
    """To the discovery document."""
    released: asyncio.Event | None = None
    """If there is one: the answer ends once it is set."""
    drips: bool = False
    """True: until then it comes byte by byte."""
    access: dict[str, Any] | None = field(default_factory=dict)
    """Changes to the claims of the access tokens that a login gives; None: they are opaque."""
    identity: dict[str, Any] = field(default_factory=dict)
    """Changes to the claims of its ID tokens."""
    refuses: str | None = None
    """The error with which it sends a person back."""
    client_secret: str | None = None
    given: dict[str, dict[str, str]] = field(default_factory=dict)
    """The query of the login for which each code was given."""
    exchanged: list[dict[str, str]] = field(default_factory=list)
    """The requests to the token endpoint, with what stood in `Authorization`."""
    token_answer: web.Response | None = None
    """Given by the token endpoint instead of tokens."""

    async def about(self, _: web.Request) -> web.Response:
        self.discovered += 1
        about = {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
        }
        return web.json_response(about | self.about_changes)

    async def authorize(self, request: web.Request) -> web.Response:
        """Sends the person back at once, with a code or an error."""
        asked = dict(request.query)
        back = {"state": asked["state"], "iss": self.url}
        if self.refuses is not None:
            back["error"] = self.refuses
        else:
            code = f"code-{len(self.given)}"
            self.given[code], back["code"] = asked, code
        raise web.HTTPFound(URL(asked["redirect_uri"]).update_query(back))

    async def exchange(self, request: web.Request) -> web.Response:
        """The token endpoint (RFC 6749, 4.1.3; RFC 7636, 4.6)."""
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.exchanged.append(form | {"authorization": request.headers.get("Authorization", "")})
        if self.token_answer is not None:
            return self.token_answer
        asked = self.given.pop(form["code"], None)
        challenge = base64url(hashlib.sha256(form["code_verifier"].encode()).digest())
        if asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != form["redirect_uri"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        if self.client_secret is not None:
            basic = base64.b64encode(f"{asked['client_id']}:{self.client_secret}".encode()).decode()
            if (
                request.headers.get("Authorization") != f"Basic {basic}"
                and form.get("client_secret") != self.client_secret
            ):
                return web.json_response({"error": "invalid_client"}, status=401)
        identity = {"aud": asked["client_id"], "nonce": asked["nonce"], **self.identity}
        tokens = {
            "token_type": "Bearer",
            "expires_in": 3_600,
            "id_token": self.token(**identity),
            "access_token": "opaque" if self.access is None else self.token(**self.access),
        }
        return web.json_response(tokens)

    async def show_keys(self, request: web.Request) -> web.StreamResponse:
        self.fetched += 1
        if self.released is not None and self.drips:
            dripping = web.StreamResponse()
            await dripping.prepare(request)
            while not self.released.is_set():
                await dripping.write(b" ")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.released.wait(), 0.01)
            return dripping
        if self.released is not None:
            await self.released.wait()
        return self.answer or web.json_response({"keys": self.keys})

    def claims(self, **changes: Any) -> dict[str, Any]:
        claims: dict[str, Any] = {
            "iss": self.url,
            "aud": ["clockwork", "else"],
            "sub": "shop-service",
            "exp": int(LATER.timestamp()),
            "clockwork_clients": ["shop", "shop-*"],
            "clockwork_topics": "orders mail.*",
            "clockwork_rights": ["create", "read", "dance"],
        }
        return {name: value for name, value in (claims | changes).items() if value is not ...}

    def token(self, key: Any = RSA, key_id: str | None = "one", algorithm: str = "RS256", **changes: Any) -> str:
        """A token; a claim that is changed to `...` is left out."""
        header = {"alg": algorithm} | ({"kid": key_id} if key_id is not None else {})
        return signed(
            json.dumps(header).encode(), json.dumps(self.claims(**changes)).encode(), key=key, algorithm=algorithm
        )


@asynccontextmanager
async def running_issuer(found: Issuer) -> AsyncIterator[None]:
    """Its HTTP server, on a free port."""
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", found.about)
    app.router.add_get("/keys", found.show_keys)
    app.router.add_get("/authorize", found.authorize)
    app.router.add_post("/token", found.exchange)
    async with TestServer(app) as server:
        found.url = str(server.make_url("")).rstrip("/")
        yield
