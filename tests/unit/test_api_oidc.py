"""Tokens of an issuer that lives in the test: real signatures, real HTTP."""

import builtins
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from clockwork.access import oidc
from clockwork.access.oidc import IssuerUnavailable, OidcTokens
from clockwork.clock import SystemClock
from clockwork.domain.rights import Right
from clockwork.errors import StartRefused, Unauthenticated
from clockwork.settings.model import AccessSettings
from tests.support.clocks import ManualClock
from tests.unit.api_edge import a_request, open_edge

RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
ANOTHER_RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
EC = ec.generate_private_key(ec.SECP256R1())


def published(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, key_id: str) -> dict[str, Any]:
    public = key.public_key()
    text = RSAAlgorithm.to_jwk(public) if isinstance(public, rsa.RSAPublicKey) else ECAlgorithm.to_jwk(public)
    document: dict[str, Any] = json.loads(text)
    return document | {"kid": key_id, "use": "sig"}


@dataclass
class Issuer:
    """Publishes keys, signs tokens."""

    url: str = ""
    keys: list[dict[str, Any]] = field(default_factory=lambda: [published(RSA, "one")])
    fetched: int = 0
    away: bool = False

    async def about(self, _: web.Request) -> web.Response:
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})

    async def show_keys(self, _: web.Request) -> web.Response:
        self.fetched += 1
        if self.away:
            raise web.HTTPServiceUnavailable
        return web.json_response({"keys": self.keys})

    def token(self, key: Any = RSA, key_id: str | None = "one", algorithm: str = "RS256", **changes: Any) -> str:
        claims: dict[str, Any] = {
            "iss": self.url,
            "aud": ["clockwork", "else"],
            "sub": "shop-service",
            "exp": datetime.now(UTC) + timedelta(minutes=5),
            "clockwork_clients": ["shop", "shop-*"],
            "clockwork_topics": "orders mail.*",
            "clockwork_rights": ["create", "read", "dance"],
        }
        claims = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": key_id} if key_id else {})


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    found = Issuer()
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", found.about)
    app.router.add_get("/keys", found.show_keys)
    async with TestServer(app) as server:
        found.url = str(server.make_url("")).rstrip("/")
        yield found


class Tokens:
    """What is to be tested, with a clock for the age of keys."""

    def __init__(self, issuer: Issuer, **settings: Any) -> None:
        self.now_s = 1_000.0
        chosen = AccessSettings(auth="oidc", oidc_issuer=issuer.url, oidc_audience="clockwork", **settings)
        self.tokens = OidcTokens(chosen, SystemClock(), monotonic_s=lambda: self.now_s)

    async def refused(self, token: str) -> str:
        with pytest.raises(Unauthenticated) as refused:
            await self.tokens.check(token)
        assert self.tokens.known(token) is None
        return str(refused.value)


@pytest.fixture
def tokens(issuer: Issuer) -> Tokens:
    return Tokens(issuer)


async def test_a_token_says_who_it_is_and_what_it_may_do(tokens: Tokens, issuer: Issuer) -> None:
    token = issuer.token()
    principal = await tokens.tokens.check(token)
    assert principal.name == "shop-service"
    assert principal.rights == {Right.CREATE, Right.READ}
    assert (principal.clients.cover("shop-7"), principal.clients.cover("shops")) == (True, False)
    assert (principal.topics.cover("mail.x"), principal.topics.cover("order")) == (True, False)
    assert tokens.tokens.known(token) == principal


async def test_requests_bring_tokens_like_keys(tokens: Tokens, issuer: Issuer) -> None:
    async with open_edge(authenticator=tokens.tokens) as edge:
        headers = {"Authorization": f"Bearer {issuer.token()}"}
        assert (await edge.post(a_request(), headers=headers)).status == 201
        assert (await edge.ask("DELETE", "/schedule/shop/order-1", headers=headers)).status == 403
        late = {"Authorization": f"Bearer {issuer.token(exp=1)}"}
        answer = await edge.post(a_request(), headers=late)
        assert (answer.status, "expired" in answer.json["detail"]) == (401, True)


async def test_other_claims_may_be_named(issuer: Issuer) -> None:
    tokens = Tokens(issuer, oidc_name_claim="azp", oidc_rights_claim="scope")
    principal = await tokens.tokens.check(issuer.token(azp="app", scope="openid cancel"))
    assert (principal.name, principal.rights) == ("app", frozenset({Right.CANCEL}))


async def test_a_token_without_claims_may_do_nothing(tokens: Tokens, issuer: Issuer) -> None:
    absent: dict[str, Any] = {"clockwork_clients": None, "clockwork_topics": 7, "clockwork_rights": {"create": True}}
    principal = await tokens.tokens.check(issuer.token(**absent))
    assert not principal.clients.cover("shop")
    assert not principal.topics.cover("orders")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"exp": 1_000_000_000}, "expired"),
        ({"exp": None}, "lacks a claim"),
        ({"aud": "else"}, "another audience"),
        ({"aud": None}, "lacks a claim"),
        ({"iss": "https://else.example"}, "another issuer"),
        ({"nbf": 4_000_000_000}, "not come"),
        ({"key": ANOTHER_RSA}, "signature"),
        ({"key_id": "unheard-of"}, "cannot be read"),
        ({"key": "x" * 64, "algorithm": "HS256"}, "algorithm"),
        ({"key": None, "algorithm": "none"}, "algorithm"),
        ({"algorithm": "PS256"}, "algorithm"),
        ({"clockwork_clients": ["a*b"]}, "a claim of it"),
    ],
)
async def test_a_token_that_is_not_valid_is_refused_with_the_kind_of_fault(
    tokens: Tokens, issuer: Issuer, changes: dict[str, Any], said: str
) -> None:
    assert said in await tokens.refused(issuer.token(**changes))


@pytest.mark.parametrize("token", ["x", "a.b.c", "e30.e30.e30", "cw_0000000000000000_" + "a" * 43, "." * 500])
async def test_what_is_no_token_is_refused(tokens: Tokens, token: str) -> None:
    await tokens.refused(token)


async def test_a_published_shared_secret_signs_nothing(tokens: Tokens, issuer: Issuer) -> None:
    issuer.keys.append({"kty": "oct", "k": "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg", "kid": "shared"})
    forged = issuer.token(key="x" * 38, key_id="shared", algorithm="HS256")
    await tokens.refused(forged)


async def test_keys_are_fetched_once_for_many_tokens(tokens: Tokens, issuer: Issuer) -> None:
    for n in range(10):
        await tokens.tokens.check(issuer.token(n=n))
    assert issuer.fetched == 1


async def test_a_new_key_is_found_when_a_token_names_it_but_unknown_names_do_not_fetch_again_and_again(
    tokens: Tokens, issuer: Issuer
) -> None:
    await tokens.tokens.check(issuer.token())
    issuer.keys.append(published(EC, "two"))
    tokens.now_s += oidc.REFRESH_UNKNOWN_S
    assert await tokens.tokens.check(issuer.token(key=EC, key_id="two", algorithm="ES256"))
    assert issuer.fetched == 2
    for n in range(10):
        await tokens.refused(issuer.token(key_id=f"unheard-of-{n}"))
    assert issuer.fetched == 2


async def test_a_key_that_is_no_longer_published_signs_nothing_after_the_next_fetch(
    tokens: Tokens, issuer: Issuer
) -> None:
    old = issuer.token()
    await tokens.tokens.check(old)
    issuer.keys[:] = [published(EC, "two")]
    await tokens.tokens.refresh()
    tokens.now_s += oidc.VERIFIED_S_MAX
    assert tokens.tokens.known(old) is None
    await tokens.refused(old)


async def test_while_the_issuer_is_away_its_keys_count_for_a_while_and_then_nobody_knows(
    tokens: Tokens, issuer: Issuer
) -> None:
    await tokens.tokens.check(issuer.token())
    issuer.away = True
    tokens.now_s += oidc.KEYS_AGE_S_MAX - 1
    await tokens.tokens.refresh()
    assert await tokens.tokens.check(issuer.token(n=1))
    tokens.now_s += 1
    with pytest.raises(IssuerUnavailable):
        await tokens.tokens.check(issuer.token(n=2))
    issuer.away = False
    tokens.now_s += oidc.REFRESH_UNKNOWN_S
    assert await tokens.tokens.check(issuer.token(n=2))


async def test_an_issuer_that_never_answered_is_a_503(tokens: Tokens, issuer: Issuer) -> None:
    issuer.away = True
    async with open_edge(authenticator=tokens.tokens) as edge:
        answer = await edge.post(a_request(), headers={"Authorization": f"Bearer {issuer.token()}"})
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


async def test_a_discovery_document_of_another_issuer_is_not_believed(issuer: Issuer) -> None:
    tokens = Tokens(issuer)
    token = issuer.token()
    issuer.url += "/else"
    with pytest.raises(IssuerUnavailable):
        await tokens.tokens.check(token)


async def test_the_keys_place_may_be_given_instead_of_discovered(issuer: Issuer) -> None:
    tokens = Tokens(issuer, oidc_jwks_url=f"{issuer.url}/keys")
    assert await tokens.tokens.check(issuer.token())


async def test_a_checked_token_is_not_known_past_its_own_time(issuer: Issuer) -> None:
    chosen = AccessSettings(auth="oidc", oidc_issuer=issuer.url, oidc_audience="clockwork")
    clock = ManualClock(int(datetime.now(UTC).timestamp() * 1_000))
    tokens = OidcTokens(chosen, clock, monotonic_s=lambda: 0.0)
    token = issuer.token()
    await tokens.check(token)
    assert tokens.known(token)
    clock.set_ms(clock.now_ms() + 5 * 60_000 + oidc.LEEWAY_S * 1_000)
    assert tokens.known(token) is None


def test_without_the_library_the_start_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    really = builtins.__import__

    def without(name: str, *given: Any) -> Any:
        if name == "jwt":
            raise ImportError(name)
        return really(name, *given)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(StartRefused, match=r"clockwork\[oidc\]"):
        OidcTokens(AccessSettings(), SystemClock())
