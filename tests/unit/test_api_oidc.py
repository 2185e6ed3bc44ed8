"""Tokens of an issuer that lives in the test: real signatures, real HTTP."""

import asyncio
import builtins
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from unittest import mock

import jwt
import pytest
from aiohttp import web
from hypothesis import example, given
from hypothesis import strategies as st
from jwt.algorithms import get_default_algorithms

from clockwork.access import oidc
from clockwork.access.oidc import IssuerUnavailable, OidcTokens
from clockwork.clock import SystemClock
from clockwork.domain.rights import Right
from clockwork.errors import CannotStart, Unauthenticated
from clockwork.settings.model import AccessSettings
from tests.support.clocks import ManualClock
from tests.support.issuer import (
    ANOTHER_RSA,
    EC,
    ED448,
    KEY_OF,
    LATER,
    RSA,
    WEAK_RSA,
    Issuer,
    base64url,
    published,
    running_issuer,
    signed,
)
from tests.unit.api_edge import a_request, open_edge


def away() -> web.Response:
    return web.Response(status=503)


def copied(answer: web.Response) -> web.Response:
    """aiohttp sends an answer once."""
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    found = Issuer()
    async with running_issuer(found):
        yield found


class Tokens:
    """The tokens under test, with a clock for the age of keys."""

    def __init__(self, issuer: Issuer, **settings: Any) -> None:
        self.now_s = 1_000.0
        chosen = AccessSettings(auth="oidc", oidc_issuer=issuer.url, oidc_audience="clockwork", **settings)
        self.clock = ManualClock(int(datetime.now(UTC).timestamp() * 1_000))
        self.tokens = OidcTokens(chosen, self.clock, monotonic_s=lambda: self.now_s)
        self.authenticate = self.tokens.authenticate

    async def refused(self, token: str) -> str:
        with pytest.raises(Unauthenticated) as refused:
            await self.authenticate(token)
        return str(refused.value)


@pytest.fixture
def tokens(issuer: Issuer) -> Tokens:
    return Tokens(issuer)


async def test_a_token_names_its_caller_and_what_it_may_do(tokens: Tokens, issuer: Issuer) -> None:
    for _ in range(2):  # the second time it is known
        principal = await tokens.authenticate(issuer.token())
        assert principal.name == "shop-service"
        assert principal.rights == {Right.CREATE, Right.READ}
        assert (principal.clients.cover("shop-7"), principal.clients.cover("shops")) == (True, False)
        assert (principal.topics.cover("mail.x"), principal.topics.cover("order")) == (True, False)


async def test_requests_bring_tokens_like_keys(tokens: Tokens, issuer: Issuer) -> None:
    async with open_edge(authenticator=tokens.tokens) as edge:
        headers = {"Authorization": f"Bearer {issuer.token()}"}
        assert (await edge.post(a_request(), headers=headers)).status == 201
        assert (await edge.ask("DELETE", "/schedule/shop/order-1", headers=headers)).status == 403
        late = {"Authorization": f"Bearer {issuer.token(exp=1)}"}
        answer = await edge.post(a_request(), headers=late)
        assert (answer.status, "expired" in answer.json["detail"]) == (401, True)
        tokens.now_s += oidc.KEYS_AGE_S_MAX
        issuer.answer = away()
        answer = await edge.post(a_request(), headers=headers)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


async def test_other_claims_may_be_named(issuer: Issuer) -> None:
    tokens = Tokens(issuer, oidc_name_claim="azp", oidc_rights_claim="scope")
    principal = await tokens.authenticate(issuer.token(azp="app", scope="openid cancel"))
    assert (principal.name, principal.rights) == ("app", frozenset({Right.CANCEL}))


@pytest.mark.parametrize(
    "claim",
    [
        ...,
        *(None, True, False, 7, 1.5, "", "  ", []),
        *({"*": False}, {"shop": True, "orders": True, "read": True}, {"*": {}}),
        *([["*"]], ["*", 7], ["*", ["*"]], ["shop", "orders", "read", None], [{"*": True}], [True]),
    ],
)
async def test_a_claim_that_is_no_text_and_no_list_of_texts_grants_nothing(
    tokens: Tokens, issuer: Issuer, claim: object
) -> None:
    principal = await tokens.authenticate(
        issuer.token(clockwork_clients=claim, clockwork_topics=claim, clockwork_rights=claim)
    )
    assert not principal.clients.cover("shop")
    assert not principal.topics.cover("orders")
    assert principal.rights == frozenset()


@pytest.mark.parametrize("claim", [..., None, 7, True, ["a"], {"a": 1}])
async def test_a_name_that_is_no_text_is_empty(issuer: Issuer, claim: object) -> None:
    tokens = Tokens(issuer, oidc_name_claim="azp")
    assert (await tokens.authenticate(issuer.token(azp=claim))).name == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"exp": 1_000_000_000}, "expired"),
        ({"exp": ...}, "lacks a claim"),
        ({"aud": "else"}, "another audience"),
        ({"aud": ...}, "lacks a claim"),
        ({"iss": "https://else.example"}, "another issuer"),
        ({"iss": ...}, "lacks a claim"),
        ({"nbf": 4_000_000_000}, "not come"),
        ({"key": ANOTHER_RSA}, "signature"),
        ({"key_id": "unheard-of"}, "not one of the issuer's"),
        ({"key": b"x" * 64, "algorithm": "HS256"}, "algorithm"),
        ({"key": None, "algorithm": "none"}, "algorithm"),
        ({"key": EC, "algorithm": "ES256"}, "algorithm"),
        ({"clockwork_clients": ["a*b"]}, "a claim of it"),
    ],
)
async def test_a_token_that_is_not_valid_is_refused_with_the_kind_of_fault(
    tokens: Tokens, issuer: Issuer, changes: dict[str, Any], said: str
) -> None:
    assert said in await tokens.refused(issuer.token(**changes))


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "text", ['"1"', '"4000000000"', "true", "false", "null", "[]", "{}", "NaN", "Infinity", "1e400"]
)
async def test_a_time_that_is_not_a_number_is_refused(tokens: Tokens, issuer: Issuer, claim: str, text: str) -> None:
    claims = json.dumps(issuer.claims(**{claim: "HERE"})).replace('"HERE"', text)
    await tokens.refused(signed(b'{"alg": "RS256", "kid": "one"}', claims.encode()))


@pytest.mark.parametrize("time", [4e9, 4_000_000_000.5, 10**400, 1e300])
async def test_a_time_may_be_any_number(tokens: Tokens, issuer: Issuer, time: float) -> None:
    assert await tokens.authenticate(issuer.token(exp=time, nbf=1.5, iat=1))


@pytest.mark.parametrize("token", ["x", "a.b.c", "e30.e30.e30", "cw_0000000000000000_" + "a" * 43, "." * 500])
async def test_a_text_that_is_no_token_is_refused(tokens: Tokens, token: str) -> None:
    await tokens.refused(token)


# --- members of the key set


@pytest.mark.parametrize("algorithm", KEY_OF)
@pytest.mark.parametrize("named", [None, True])
async def test_a_key_without_alg_verifies_every_algorithm_of_its_type_and_one_with_alg_that_one(
    tokens: Tokens, issuer: Issuer, algorithm: str, named: bool | None
) -> None:
    # RFC 7517 4.4: `alg` is optional.
    key = KEY_OF[algorithm]
    issuer.keys[:] = [published(key, "one", alg=algorithm if named else None)]
    for each in KEY_OF:
        token = issuer.token(key=KEY_OF[each], algorithm=each)
        if each == algorithm or (KEY_OF[each] is key and not named):
            assert await tokens.authenticate(token)
        else:
            assert "algorithm" in await tokens.refused(token)


async def test_a_key_of_the_other_edwards_curve_verifies_too(tokens: Tokens, issuer: Issuer) -> None:
    issuer.keys[:] = [published(ED448, "one")]
    assert await tokens.authenticate(issuer.token(key=ED448, algorithm="EdDSA"))


@pytest.mark.parametrize("key_id", ["one", None])
@pytest.mark.parametrize("is_reversed", [False, True])
async def test_of_several_keys_with_one_id_each_that_fits_is_tried(
    tokens: Tokens, issuer: Issuer, key_id: str | None, is_reversed: bool
) -> None:
    # RFC 7517 4.5: keys of different types may share an id. While a key is replaced, two of one type may.
    issuer.keys[:] = [published(RSA, "one"), published(EC, "one"), published(ANOTHER_RSA, "one")]
    issuer.keys[:] = issuer.keys[::-1] if is_reversed else issuer.keys
    assert await tokens.authenticate(issuer.token(key_id=key_id))
    assert await tokens.authenticate(issuer.token(key=ANOTHER_RSA, key_id=key_id))
    assert await tokens.authenticate(issuer.token(key=EC, algorithm="ES256", key_id=key_id))
    assert "signature" in await tokens.refused(issuer.token(key=WEAK_RSA, key_id=key_id))


def private(key_id: str) -> dict[str, Any]:
    document: dict[str, Any] = get_default_algorithms()["RS256"].to_jwk(ANOTHER_RSA, as_dict=True)
    return {name: value for name, value in document.items() if name != "key_ops"} | {"kid": key_id}


@pytest.mark.parametrize(
    ("member", "key", "logged"),
    [
        (published(WEAK_RSA, "it"), WEAK_RSA, "is too short"),
        (private("it"), ANOTHER_RSA, "is a private key"),
        (published(ANOTHER_RSA, "it", use="enc"), ANOTHER_RSA, None),
        (published(ANOTHER_RSA, "it", use=["sig"]), ANOTHER_RSA, "ValidationError"),
        (published(ANOTHER_RSA, "it", key_ops=["encrypt"]), ANOTHER_RSA, None),
        (published(ANOTHER_RSA, "it", key_ops=[]), ANOTHER_RSA, None),
        (published(ANOTHER_RSA, "it", key_ops="verify"), ANOTHER_RSA, "ValidationError"),
        (published(ANOTHER_RSA, "it", use="sig", key_ops=["sign"]), ANOTHER_RSA, None),
        (published(ANOTHER_RSA, "it", alg="RSA-OAEP"), ANOTHER_RSA, None),
        (published(ANOTHER_RSA, "it", alg="none"), ANOTHER_RSA, None),
        (published(ANOTHER_RSA, "it", alg="HS256"), ANOTHER_RSA, None),
        (published(ANOTHER_RSA, "it", alg=["RS256"]), ANOTHER_RSA, "ValidationError"),
        (published(ANOTHER_RSA, "it", kty="EC"), ANOTHER_RSA, None),
        (published(ANOTHER_RSA, "it", n=7), ANOTHER_RSA, "InvalidKeyError"),
        (published(ANOTHER_RSA, "it", e="AA"), ANOTHER_RSA, "InvalidKeyError"),
        ("text", ANOTHER_RSA, "ValidationError"),
    ],
)
async def test_a_member_that_cannot_be_used_is_skipped_and_verifies_nothing(
    tokens: Tokens, issuer: Issuer, member: Any, key: Any, logged: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.keys[:] = [member]
    assert "not one of the issuer's" in await tokens.refused(issuer.token(key=key, key_id="it"))
    issuer.keys.append(published(RSA, "one"))
    await tokens.tokens.refresh()
    assert await tokens.authenticate(issuer.token())
    await tokens.refused(issuer.token(key=key, key_id="it"))
    said = [str(vars(r)["error"]) for r in caplog.records if vars(r)["event"] == "auth.issuer_key_skipped"]
    assert set(said) == ({f"keys.0: {logged}"} if logged else set())


@pytest.mark.parametrize(
    "members",
    [{"use": "sig"}, {"crv": "P-256", "x5t": 7}, {"key_ops": ["verify"]}, {"use": "sig", "key_ops": ["verify", "x"]}],
)
async def test_a_key_that_says_that_it_is_for_verifying_or_has_other_members_is_used(
    tokens: Tokens, issuer: Issuer, members: dict[str, Any]
) -> None:
    issuer.keys[:] = [published(RSA, "one", **members)]
    assert await tokens.authenticate(issuer.token())


async def test_a_member_that_is_null_is_absent(tokens: Tokens, issuer: Issuer) -> None:
    issuer.keys[:] = [published(RSA, "one") | dict.fromkeys(("alg", "use", "key_ops", "crv"))]
    assert await tokens.authenticate(issuer.token())


async def test_a_published_shared_secret_signs_nothing(tokens: Tokens, issuer: Issuer) -> None:
    secret = b"x" * 38
    issuer.keys.append({"kty": "oct", "k": base64url(secret), "kid": "shared"})
    await tokens.refused(issuer.token(key=secret, key_id="shared", algorithm="HS256"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**4_000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEY_FIELDS = ("kty", "crv", "kid", "alg", "use", "key_ops", "n", "e", "x", "y", "d", "k", "p", "oth")
KEY_TEXTS = (
    "RSA",
    "EC",
    "OKP",
    "oct",
    "P-256",
    "P-384",
    "Ed25519",
    "Ed448",
    "RS256",
    "ES256",
    "none",
    "sig",
    "AQAB",
    "A",
)
MEMBERS = JSON | st.builds(
    lambda document, changes: document | changes,
    st.sampled_from([published(key, "one") for key in (RSA, WEAK_RSA, EC, ED448, *KEY_OF.values())] + [private("one")]),
    st.dictionaries(st.sampled_from(KEY_FIELDS), JSON | st.sampled_from(KEY_TEXTS), max_size=3),
)


@given(st.lists(MEMBERS, max_size=4), st.integers(0, 4))
async def test_no_member_of_a_key_set_is_an_error_or_hides_the_others(members: list[Any], place: int) -> None:
    issuer = Issuer(url="https://issuer.example")
    tokens = Tokens(issuer, oidc_jwks_url="https://issuer.example/keys")
    listed = [*members[:place], published(EC, "sound"), *members[place:]]
    with mock.patch.object(jwt.PyJWKClient, "fetch_data", return_value={"keys": listed}):
        assert await tokens.authenticate(issuer.token(key=EC, key_id="sound", algorithm="ES256"))
        for key_id in ("one", None):
            with contextlib.suppress(Unauthenticated):
                await tokens.authenticate(issuer.token(key_id=key_id))


HEADERS = st.dictionaries(st.sampled_from(("alg", "kid", "crit", "b64", "typ", "jwk", "zip")), JSON, max_size=3)
CLAIMS = ("iss", "aud", "sub", "exp", "nbf", "iat", "jti", "clockwork_clients", "clockwork_topics", "clockwork_rights")
DEEP = b"[" * 2_800


@given(
    st.binary(max_size=20) | HEADERS.map(lambda changes: json.dumps({"alg": "RS256", "kid": "one"} | changes).encode()),
    st.binary(max_size=20) | st.dictionaries(st.sampled_from(CLAIMS), JSON, max_size=3),
)
@example(DEEP, {})
@example(b'{"alg": "RS256", "kid": "one"}', DEEP)
@example(b'{"alg": "RS256", "kid": "one"}', b'{"exp": ' + DEEP)
@example(b'{"alg": "RS256", "kid": "one"}', b'{"exp": ' + b"1" * 5_000 + b"}")
@example(b'{"alg": "RS256", "kid": "one"}', {"clockwork_clients": ["\ud800"], "sub": "\ud800"})
async def test_no_content_of_a_signed_token_is_an_error(header: bytes, claims: bytes | dict[str, Any]) -> None:
    issuer = Issuer(url="https://issuer.example")
    tokens = Tokens(issuer, oidc_jwks_url="https://issuer.example/keys")
    content = claims if isinstance(claims, bytes) else json.dumps(issuer.claims(**claims)).encode()
    with mock.patch.object(jwt.PyJWKClient, "fetch_data", return_value={"keys": issuer.keys}):
        try:
            principal = await tokens.authenticate(signed(header, content))
        except Unauthenticated:
            return
    assert principal.rights <= set(Right)


# --- fetching


async def test_keys_are_fetched_once_for_tokens_that_come_together(tokens: Tokens, issuer: Issuer) -> None:
    async with asyncio.TaskGroup() as group:
        for n in range(10):
            group.create_task(tokens.authenticate(issuer.token(n=n)))
    assert issuer.fetched == 1
    await tokens.authenticate(issuer.token(n=11))
    assert issuer.fetched == 1


async def test_a_new_key_is_found_when_a_token_names_it_but_unknown_names_do_not_fetch_again_and_again(
    tokens: Tokens, issuer: Issuer
) -> None:
    await tokens.authenticate(issuer.token())
    issuer.keys.append(published(EC, "two"))
    tokens.now_s += oidc.REFRESH_UNKNOWN_S
    assert await tokens.authenticate(issuer.token(key=EC, key_id="two", algorithm="ES256"))
    assert issuer.fetched == 2
    for n in range(10):
        await tokens.refused(issuer.token(key_id=f"unheard-of-{n}"))
    assert issuer.fetched == 2


async def test_an_accepted_token_is_checked_again_after_a_while_or_once_it_is_forgotten(
    tokens: Tokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "VERIFIED_TOKENS_MAX", 2)
    one, two, three = (issuer.token(n=n) for n in range(3))
    for token in (one, two, one, three):  # with the third the second is forgotten, as the least recently used
        await tokens.authenticate(token)
    issuer.keys[:] = [published(EC, "two")]
    await tokens.tokens.refresh()
    tokens.now_s += oidc.VERIFIED_S_MAX - 1
    assert await tokens.authenticate(one)
    assert await tokens.authenticate(three)
    await tokens.refused(two)
    tokens.now_s += 1
    await tokens.refused(one)


async def test_an_accepted_token_is_checked_again_past_its_own_time(tokens: Tokens, issuer: Issuer) -> None:
    token = issuer.token()
    await tokens.authenticate(token)
    issuer.keys[:] = []
    await tokens.tokens.refresh()
    tokens.clock.set_ms((int(LATER.timestamp()) + oidc.LEEWAY_S) * 1_000 - 1)
    assert await tokens.authenticate(token)
    tokens.clock.set_ms(tokens.clock.now_ms() + 1)
    await tokens.refused(token)


@pytest.mark.parametrize(
    "answer",
    [
        away(),
        web.Response(status=302, headers={"Location": "/keys?again"}),
        web.Response(status=204),
        web.Response(body=b"<html>"),
        web.Response(body=b"\xff"),
        web.Response(body=b"[]"),
        web.Response(body=b"{}"),
        web.Response(body=b'{"keys": {"one": {}}}'),
        web.Response(body=b"[" * 100_000),
        web.Response(body=b"1" * 5_000),
    ],
    ids=lambda answer: f"{answer.status}-{bytes(answer.body or b'')[:8]!r}",
)
async def test_while_the_issuer_gives_no_keys_the_old_ones_stay_for_an_hour_and_then_tokens_get_a_503(
    tokens: Tokens, issuer: Issuer, answer: web.Response
) -> None:
    issuer.answer = copied(answer)
    with pytest.raises(IssuerUnavailable):
        await tokens.authenticate(issuer.token())
    issuer.answer = None
    tokens.now_s += oidc.REFRESH_UNKNOWN_S
    await tokens.authenticate(issuer.token())
    issuer.answer = copied(answer)
    tokens.now_s += oidc.KEYS_AGE_S_MAX - 1
    await tokens.tokens.refresh()
    assert await tokens.authenticate(issuer.token(n=1))
    tokens.now_s += 1
    with pytest.raises(IssuerUnavailable):
        await tokens.authenticate(issuer.token(n=2))
    issuer.answer = None
    tokens.now_s += oidc.REFRESH_UNKNOWN_S
    assert await tokens.authenticate(issuer.token(n=2))


async def test_an_issuer_that_does_not_answer_is_not_asked_again_by_each_token(tokens: Tokens, issuer: Issuer) -> None:
    issuer.answer = away()
    for n in range(3):
        with pytest.raises(IssuerUnavailable):
            await tokens.authenticate(issuer.token(n=n))
    assert issuer.fetched == 1


@pytest.mark.parametrize("drips", [False, True])
async def test_an_issuer_that_does_not_finish_its_answer_is_not_waited_for(
    issuer: Issuer, drips: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "FETCH_S_MAX", 0.2)
    issuer.released, issuer.drips = asyncio.Event(), drips
    with pytest.raises(IssuerUnavailable):
        await Tokens(issuer, oidc_jwks_url=f"{issuer.url}/keys").authenticate(issuer.token())
    issuer.released.set()


async def test_a_discovery_document_of_another_issuer_is_not_believed(tokens: Tokens, issuer: Issuer) -> None:
    issuer.about_changes = {"issuer": "https://else.example"}
    with pytest.raises(IssuerUnavailable):
        await tokens.authenticate(issuer.token())


@pytest.mark.parametrize(
    ("uri", "error"), [("https://k.example/keys", None), ("http://k.example/keys", IssuerUnavailable)]
)
async def test_keys_of_an_https_issuer_are_not_fetched_in_plain_text(uri: str, error: type[Exception] | None) -> None:
    issuer = Issuer(url="https://issuer.example")
    answers = [{"issuer": issuer.url, "jwks_uri": uri}, {"keys": issuer.keys}]
    with (
        mock.patch.object(jwt.PyJWKClient, "fetch_data", side_effect=answers),
        pytest.raises(error) if error is not None else contextlib.nullcontext(),
    ):
        assert await Tokens(issuer).authenticate(issuer.token())


@pytest.mark.parametrize("uri", [7, {}, "file:///etc/passwd", "ftp://issuer.example/keys", "http://[::1", "http:// a/"])
async def test_keys_are_not_fetched_from_a_place_that_is_no_url_of_the_issuers_kind(
    tokens: Tokens, issuer: Issuer, uri: object
) -> None:
    issuer.about_changes = {"jwks_uri": uri}
    with pytest.raises(IssuerUnavailable):
        await tokens.authenticate(issuer.token())


async def test_the_url_of_the_keys_may_be_given_instead_of_discovered(issuer: Issuer) -> None:
    tokens = Tokens(issuer, oidc_jwks_url=f"{issuer.url}/keys")
    issuer.about_changes = {"jwks_uri": "http://127.0.0.1:1/none"}
    assert await tokens.authenticate(issuer.token())


def test_without_the_library_the_start_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    really = builtins.__import__

    def without(name: str, *given: Any) -> Any:
        if name == "jwt":
            raise ImportError(name)
        return really(name, *given)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CannotStart, match=r"clockwork\[oidc\]"):
        OidcTokens(AccessSettings(), SystemClock())
