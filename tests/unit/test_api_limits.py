"""The creates of one client in a second, as they are limited and answered."""

from collections.abc import AsyncIterator

import pytest

from clockwork.domain.rate import NS
from clockwork.domain.schedule import ClientId
from clockwork.errors import TooManyRequests
from clockwork.requests.rate_limits import CreateLimits
from clockwork.schema.problems import rate_limit_headers
from tests.unit.api_edge import Edge, a_request, open_edge


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with open_edge(creates_per_second=2) as opened:
        yield opened


async def test_what_is_over_the_limit_is_a_429_that_says_when_and_stores_nothing(edge: Edge) -> None:
    first = await edge.post(a_request(scheduleKey="a"))
    assert (first.status, first.headers["RateLimit"]) == (201, '"creates";r=1;t=1')
    assert first.headers["RateLimit-Policy"] == '"creates";q=2;w=1'
    again = await edge.post(a_request(scheduleKey="a"))
    assert (again.status, again.headers["RateLimit"]) == (200, '"creates";r=0;t=1')
    over = await edge.post(a_request(scheduleKey="b"))
    assert (over.status, over.headers["Retry-After"], over.headers["RateLimit"]) == (429, "1", '"creates";r=0;t=1')
    assert over.json["type"] == "urn:clockwork:problem:too-many-requests"
    assert edge.keys() == ["a"]
    exposed = edge.telemetry.exposition()[0].decode()
    assert 'clockwork_limited_total{limit="creates"} 1.0' in exposed
    assert 'clockwork_schedules_total{result="rejected"} 1.0' in exposed
    edge.limits_ns[0] += NS // 2
    assert (await edge.post(a_request(scheduleKey="b"))).status == 201


async def test_one_clients_limit_is_no_others_and_reads_and_cancels_have_none(edge: Edge) -> None:
    for key in ("a", "b"):
        assert (await edge.post(a_request(scheduleKey=key))).status == 201
    assert (await edge.post(a_request(scheduleKey="c"))).status == 429
    assert (await edge.post(a_request(clientId="other"))).status == 201
    assert (await edge.ask("GET", "/schedule/shop/a")).status == 200
    assert (await edge.ask("DELETE", "/schedule/shop/a")).status == 200


async def test_what_is_not_valid_costs_nothing(edge: Edge) -> None:
    for _ in range(5):
        assert (await edge.post(a_request(scheduleTime="soon"))).status == 400
    assert (await edge.post(a_request())).headers["RateLimit"] == '"creates";r=1;t=1'


async def test_without_a_limit_no_header_speaks_of_one() -> None:
    async with open_edge() as edge:
        assert not [name for name in (await edge.post(a_request())).headers if name.startswith("RateLimit")]


def test_a_create_that_one_limit_refuses_costs_nothing_of_the_other() -> None:
    now_ns = [0]
    limits = CreateLimits(creates_per_second=10, bytes_per_second=1_000, monotonic_ns=lambda: now_ns[0])
    client = ClientId("c")
    limits.take(client, payload_bytes=1_000)
    for _ in range(3):
        with pytest.raises(TooManyRequests, match="create bytes a second") as refused:
            limits.take(client, payload_bytes=500)
    headers = rate_limit_headers(refused.value.limits)
    assert headers["RateLimit"] == '"creates";r=9;t=1, "create_bytes";r=0;t=1'
    assert headers["RateLimit-Policy"] == ('"creates";q=10;w=1, "create_bytes";q=1000;w=1;qu="content-bytes"')


def test_a_payload_larger_than_a_second_of_the_limit_passes_once_and_is_paid_for_afterwards() -> None:
    now_ns = [0]
    limits = CreateLimits(bytes_per_second=1_000, monotonic_ns=lambda: now_ns[0])
    limits.take(ClientId("c"), payload_bytes=10_000)
    with pytest.raises(TooManyRequests) as refused:
        limits.take(ClientId("c"), payload_bytes=1)
    assert refused.value.retry_after_s == 10
    now_ns[0] += refused.value.retry_after_s * NS
    limits.take(ClientId("c"), payload_bytes=1)
