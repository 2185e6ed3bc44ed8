"""Who is let in, and to what, as requests see it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from clockwork.access.gate import FAILED_ATTEMPTS, _address
from clockwork.domain.rate import NS
from clockwork.domain.rights import Principal, Right, names_of
from clockwork.errors import Unauthenticated, Unavailable
from tests.unit.api_edge import Answer, Edge, a_request, open_edge

OPEN = ("/livez", "/readyz", "/metrics")


def a_principal(*rights: Right, clients: str = "shop*", topics: str = "orders*") -> Principal:
    return Principal(name="p", clients=names_of([clients]), topics=names_of([topics]), rights=frozenset(rights))


@dataclass
class FakeKeys:
    """Knows a key from its second use on."""

    principals: dict[str, Principal] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    checks: list[str] = field(default_factory=list)
    unavailable: bool = False
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def known(self, credential: str) -> Principal | None:
        return self.principals.get(credential) if credential in self.seen else None

    async def check(self, credential: str) -> Principal:
        self.checks.append(credential)
        self.asked.set()
        await self.gate.wait()
        if self.unavailable:
            raise Unavailable
        if credential not in self.principals:
            raise Unauthenticated
        self.seen.add(credential)
        return self.principals[credential]

    async def run(self) -> None:
        raise AssertionError("not in this test")


@pytest.fixture
def keys() -> FakeKeys:
    found = FakeKeys(
        {
            "all": a_principal(*Right),
            "creator": a_principal(Right.CREATE),
            "reader": a_principal(Right.READ),
            "canceller": a_principal(Right.CANCEL),
            "admin": a_principal(Right.ADMIN),
            "other": a_principal(*Right, clients="other"),
            "mail": a_principal(*Right, topics="mail"),
        }
    )
    found.gate.set()
    return found


@pytest.fixture
async def edge(keys: FakeKeys) -> AsyncIterator[Edge]:
    async with open_edge(authenticator=keys) as opened:
        yield opened


def bearer(key: str) -> dict[str, Any]:
    return {"headers": {"Authorization": f"Bearer {key}"}}


async def every_call(edge: Edge, **given: Any) -> list[Answer]:
    named = {"clientId": "shop", "scheduleKey": "order-1"}
    return [
        await edge.post(a_request(), **given),
        await edge.ask("GET", "/schedule/shop/order-1", **given),
        await edge.ask("DELETE", "/schedule/shop/order-1", **given),
        await edge.ask("DELETE", "/schedule", json=named, **given),
        await edge.ask("GET", "/no/such/page", **given),
    ]


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
    ],
)
async def test_without_a_valid_key_every_call_is_a_401_and_nothing_is_done(edge: Edge, headers: dict[str, str]) -> None:
    for answer in await every_call(edge, headers=headers):
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert edge.keys() == []
    for path in OPEN:
        assert (await edge.ask("GET", path, headers=headers)).status == 200


async def test_a_key_that_is_given_twice_is_no_key(edge: Edge) -> None:
    twice = [("Authorization", "Bearer all"), ("Authorization", "Bearer all")]
    assert (await edge.ask("GET", "/schedule/shop/a", headers=twice)).status == 401


@pytest.mark.parametrize(
    ("key", "statuses"),
    [
        ("all", [201, 200, 200, 200, 404]),
        ("creator", [201, 403, 403, 403, 404]),
        ("reader", [403, 404, 403, 403, 404]),
        ("canceller", [403, 403, 404, 404, 404]),
        ("admin", [403, 403, 403, 403, 404]),
        ("other", [403, 403, 403, 403, 404]),
        ("mail", [403, 404, 404, 404, 404]),
    ],
)
async def test_each_call_needs_its_right_and_the_client_and_a_create_the_topic(
    edge: Edge, key: str, statuses: list[int]
) -> None:
    assert [answer.status for answer in await every_call(edge, **bearer(key))] == statuses


async def test_a_403_names_the_fields_that_the_key_does_not_cover(edge: Edge) -> None:
    document = a_request(clientId="bank", delivery={"topic": "payments"})
    answer = await edge.post(document, **bearer("all"))
    assert (answer.status, answer.fields) == (403, ["clientId", "delivery.topic"])
    answer = await edge.post(a_request(delivery={"topic": "payments"}), **bearer("all"))
    assert (answer.status, answer.fields) == (403, ["delivery.topic"])
    answer = await edge.post(a_request(), **bearer("reader"))
    assert "errors" not in answer.json
    assert "'create'" in answer.json["detail"]
    assert b'clockwork_auth_total{result="forbidden"} 3.0' in edge.telemetry.exposition()[0]


async def test_a_key_for_every_topic_does_not_open_clockworks_own(edge: Edge, keys: FakeKeys) -> None:
    keys.principals["star"] = a_principal(*Right, topics="*")
    for topic in ("clockwork-shards", "__consumer_offsets"):
        answer = await edge.post(a_request(delivery={"topic": topic}), **bearer("star"))
        assert (answer.status, answer.fields) == (400, ["delivery.topic"])


async def test_the_scheme_may_be_written_in_any_case(edge: Edge) -> None:
    headers = {"Authorization": "bearer all"}
    assert (await edge.post(a_request(), headers=headers)).status == 201


async def test_too_many_failed_attempts_are_429_and_known_keys_pass_all_the_same(edge: Edge, keys: FakeKeys) -> None:
    assert (await edge.post(a_request(), **bearer("all"))).status == 201
    statuses = [
        (await edge.ask("GET", "/schedule/shop/a", **bearer(f"guess-{n}"))).status
        for n in range(FAILED_ATTEMPTS.burst + 3)
    ]
    assert statuses == [401] * FAILED_ATTEMPTS.burst + [429] * 3
    assert len(keys.checks) == 1 + FAILED_ATTEMPTS.burst
    limited = await edge.ask("GET", "/schedule/shop/a", **bearer("creator"))
    assert (limited.status, limited.headers["Retry-After"]) == (429, "1")
    assert (await edge.ask("GET", "/schedule/shop/order-1", **bearer("all"))).status == 200
    edge.limits_ns[0] += NS
    assert (await edge.post(a_request(), **bearer("creator"))).status == 200
    exposed = edge.telemetry.exposition()[0].decode()
    assert f'clockwork_auth_total{{result="refused"}} {FAILED_ATTEMPTS.burst}.0' in exposed
    assert 'clockwork_auth_total{result="limited"} 4.0' in exposed


async def test_valid_keys_use_up_no_attempts_however_many_are_new(edge: Edge, keys: FakeKeys) -> None:
    for n in range(3 * FAILED_ATTEMPTS.burst):
        keys.principals[f"key-{n}"] = a_principal(Right.READ)
        assert (await edge.ask("GET", "/schedule/shop/a", **bearer(f"key-{n}"))).status == 404


async def test_guesses_that_are_sent_at_once_are_counted_before_they_are_checked(edge: Edge, keys: FakeKeys) -> None:
    keys.gate.clear()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        asked = [
            group.create_task(edge.ask("GET", "/schedule/shop/a", **bearer(f"guess-{n}")))
            for n in range(FAILED_ATTEMPTS.burst + 5)
        ]
        await edge.shows('clockwork_auth_total{result="limited"} 5.0')
        assert len(keys.checks) == FAILED_ATTEMPTS.burst
        keys.gate.set()
    assert sorted(task.result().status for task in asked) == [401] * FAILED_ATTEMPTS.burst + [429] * 5


async def test_a_new_key_that_comes_with_many_requests_at_once_is_checked_once(edge: Edge, keys: FakeKeys) -> None:
    keys.gate.clear()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        asked = [group.create_task(edge.ask("GET", "/schedule/shop/a", **bearer("all"))) for _ in range(50)]
        await keys.asked.wait()
        keys.gate.set()
    assert {task.result().status for task in asked} == {404}
    assert keys.checks == ["all"]


@pytest.mark.parametrize(
    ("remote", "counted_as"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, "unknown"),
        ("", "unknown"),
    ],
)
def test_attempts_are_counted_by_what_one_host_is_given(remote: str | None, counted_as: str) -> None:
    assert _address(remote) == counted_as


async def test_no_key_is_ever_logged(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    await edge.post(a_request(clientId="bank"), **bearer("all"))
    await edge.post(a_request(), **bearer("s3cret-guess"))
    assert {getattr(r, "event", "") for r in caplog.records} == {"auth.forbidden", "auth.refused"}
    for record in caplog.records:
        assert "s3cret" not in str(vars(record))


async def test_keys_that_could_not_be_checked_are_no_failed_attempts(edge: Edge, keys: FakeKeys) -> None:
    # Else the first minutes after an outage of those who check would be 429 for everybody behind one address.
    keys.unavailable = True
    for _ in range(FAILED_ATTEMPTS.burst + 1):
        assert (await edge.ask("GET", "/schedule/shop/a", **bearer("all"))).status == 503
    keys.unavailable = False
    assert (await edge.ask("GET", "/schedule/shop/a", **bearer("all"))).status == 404
