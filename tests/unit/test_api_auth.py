"""Admission: who passes, with which principal, and what is logged of the others."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from clockwork.access.gate import build_access
from clockwork.access.keys import KeyRing
from clockwork.access.oidc import OidcTokens
from clockwork.clock import SystemClock
from clockwork.domain.rights import Principal, Right, names_of
from clockwork.errors import CannotStart
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import AccessSettings
from tests.unit.api_edge import Edge, a_request, open_edge
from tests.unit.service import Keys

OPEN = ("/livez", "/readyz", "/metrics", "/openapi.json")
CALLS = (("POST", "/schedule"), ("GET", "/schedule/shop/order-1"), ("DELETE", "/schedule"), ("GET", "/no/such/page"))


def a_principal(*rights: Right, topics: str) -> Principal:
    return Principal(name="p", clients=names_of(["shop*"]), topics=names_of([topics]), rights=frozenset(rights))


KEYS = {
    "all": a_principal(*Right, topics="orders*"),
    "reader": a_principal(Right.READ, topics="orders*"),
    "every topic": a_principal(*Right, topics="*"),
}


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with open_edge(authenticator=Keys(KEYS)) as opened:
        yield opened


def bearer(key: str) -> dict[str, Any]:
    return {"headers": {"Authorization": f"Bearer {key}"}}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer  "},
        {"Authorization": "Bearer nobodys"},
        {"Authorization": "all"},
        {"Authorization": "Bearer " + "x" * 8_001},
        {"X-Api-Key": "all"},
        [("Authorization", "Bearer all"), ("Authorization", "Bearer all")],
    ],
)
async def test_without_one_valid_key_every_call_is_a_401_and_nothing_is_done(
    edge: Edge, headers: Mapping[str, str]
) -> None:
    for method, path in CALLS:
        answer = await edge.ask(method, path, json=a_request(), headers=headers)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert edge.keys() == []
    for path in OPEN:
        assert (await edge.ask("GET", path, headers=headers)).status == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_valid_key_passes_however_its_scheme_is_written(edge: Edge, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} all"}
    assert (await edge.post(a_request(), headers=headers)).status == 201
    assert (await edge.ask("GET", "/no/such/page", headers=headers)).status == 404


async def test_refused_keys_shut_nobody_out_however_many_come_from_one_address(edge: Edge) -> None:
    statuses = {(await edge.ask("GET", "/schedule/shop/a", **bearer(f"guess-{n}"))).status for n in range(100)}
    assert statuses == {401}
    assert (await edge.post(a_request(), **bearer("all"))).status == 201
    exposed = edge.telemetry.exposition()[0].decode()
    assert 'clockwork_auth_total{result="refused"} 100.0' in exposed
    assert 'clockwork_auth_total{result="accepted"} 1.0' in exposed


async def test_a_403_names_the_fields_that_the_key_does_not_cover(edge: Edge) -> None:
    answer = await edge.post(a_request(clientId="bank", delivery={"topic": "payments"}), **bearer("all"))
    assert (answer.status, answer.fields) == (403, ["clientId", "delivery.topic"])
    answer = await edge.post(a_request(), **bearer("reader"))
    assert answer.status == 403
    assert "errors" not in answer.json
    assert "'create'" in answer.json["detail"]
    assert b'clockwork_auth_total{result="forbidden"} 2.0' in edge.telemetry.exposition()[0]


async def test_a_key_for_every_topic_does_not_open_clockworks_own(edge: Edge) -> None:
    for topic in ("clockwork-shards", "__consumer_offsets"):
        answer = await edge.post(a_request(delivery={"topic": topic}), **bearer("every topic"))
        assert (answer.status, answer.fields) == (400, ["delivery.topic"])


async def test_no_key_is_ever_logged(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    await edge.post(a_request(clientId="bank"), **bearer("all"))
    await edge.post(a_request(), **bearer("s3cret-guess"))
    assert {getattr(r, "event", "") for r in caplog.records} == {"auth.forbidden", "auth.refused"}
    for record in caplog.records:
        assert "s3cret" not in str(vars(record))


# --- from the settings


def test_a_node_without_authentication_warns_once_at_its_start(caplog: pytest.LogCaptureFixture) -> None:
    access = build_access(AccessSettings(), SystemClock(), NoTelemetry(), accepts=True)
    assert access.authenticator is None
    assert [(r.levelname, getattr(r, "event", "")) for r in caplog.records] == [("WARNING", "auth.none")]


def test_the_settings_choose_keys_or_tokens(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text("", encoding="utf-8")
    keys = AccessSettings(auth="keys", keys_file=str(path))
    assert isinstance(build_access(keys, SystemClock(), NoTelemetry(), accepts=True).authenticator, KeyRing)
    oidc = AccessSettings(auth="oidc", oidc_issuer="https://issuer.example", oidc_audience="clockwork")
    assert isinstance(build_access(oidc, SystemClock(), NoTelemetry(), accepts=True).authenticator, OidcTokens)


async def test_a_worker_needs_no_keys_and_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    chosen = AccessSettings(auth="keys", keys_file="/nowhere/keys.toml")
    access = build_access(chosen, SystemClock(), NoTelemetry(), accepts=False)
    await access.run()
    assert caplog.records == []
    with pytest.raises(CannotStart):
        build_access(chosen, SystemClock(), NoTelemetry(), accepts=True)
