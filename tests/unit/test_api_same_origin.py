"""Requests that a browser carries here from another site are refused, at every route and before they have an effect."""

import asyncio
import logging
from dataclasses import dataclass
from unittest import mock

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from yarl import URL

from clockwork.http.body import Refusal
from clockwork.http.openapi import routes_of
from clockwork.http.same_origin import SameOrigin
from clockwork.settings.model import HttpSettings
from tests.support.engine import Engine
from tests.unit.service import app_of, open_service
from tests.unit.test_rights_of_every_call import BODIES, NAMES

ROUTES = sorted(routes_of(app_of(Engine())))
WRITES = [(method, path) for method, path in ROUTES if method != "GET"]
NOWHERE = [("GET", "/none"), ("POST", "/none"), ("PATCH", "/schedule/shop/a"), ("OPTIONS", "/schedule")]
HERE = "127.0.0.1:8080"


def refusal(
    method: str = "POST",
    *headers: tuple[str, str],
    target: str = "/schedule",
    tls: bool = False,
    **settings: object,
) -> str | None:
    """The last part of the problem's `type`; None: it passes."""
    context = mock.Mock() if tls else None
    request = make_mocked_request(method, target, CIMultiDict(headers), sslcontext=context)
    try:
        SameOrigin.of(HttpSettings(**settings)).check(request)  # type: ignore[arg-type]
    except Refusal as refused:
        return refused.problem.kind if refused.problem.status == 403 else "not a 403"
    return None


# --- at every route, on a working engine


async def ask(url: str, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
    for name, value in NAMES.items():
        path = path.replace(f"{{{name}}}", value)
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method, URL(f"{url}{path}", encoded=True), json=BODIES.get((method, path)), headers=headers
        ) as answer,
    ):
        document = await answer.json(content_type=None) if answer.status >= 400 else {}
        return answer.status, document.get("type", "")


def stored(engine: Engine) -> tuple[object, ...]:
    store = engine.store
    return dict(store.rows), dict(store.pointers), dict(store.outcomes), dict(store.shard_states), engine.pauses.stored


@pytest.mark.parametrize(("method", "path"), ROUTES + NOWHERE)
async def test_a_host_that_is_no_name_of_the_node_is_refused_at_every_route(method: str, path: str) -> None:
    async with open_service() as service:
        for host in ("rebound.example", "rebound.example:8080"):
            status, kind = await ask(service.url, method, path, {"Host": host})
            assert (status, kind) == (403, "urn:clockwork:problem:unknown-host")
        assert service.engine.store.rows == {}
        assert service.engine.pauses.stored.version == 0


@pytest.mark.parametrize(("method", "path"), WRITES + [each for each in NOWHERE if each[0] != "GET"])
@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}],
    ids=["fetched", "origin", "null"],
)
async def test_a_write_from_another_site_is_refused_at_every_route_and_changes_nothing(
    method: str, path: str, headers: dict[str, str]
) -> None:
    async with open_service() as service:
        await service.seed("shop")
        before = stored(service.engine)
        status, kind = await ask(service.url, method, path, headers)
        assert (status, kind) == (403, "urn:clockwork:problem:other-site")
        assert stored(service.engine) == before


@pytest.mark.parametrize(("method", "path"), ROUTES + NOWHERE)
async def test_a_request_of_the_nodes_own_page_gets_through_to_every_route(method: str, path: str) -> None:
    async with open_service() as service:
        own = {"Sec-Fetch-Site": "same-origin", "Origin": service.url}
        assert (await ask(service.url, method, path, own))[0] != 403


async def test_a_refusal_is_logged_for_the_operator(caplog: pytest.LogCaptureFixture) -> None:
    async with open_service() as service:
        with caplog.at_level(logging.WARNING):
            await ask(service.url, "GET", "/metrics", {"Host": "prometheus-calls-it.this"})
    (line,) = [r for r in caplog.records if getattr(r, "event", "") == "http.other_site"]
    assert "prometheus-calls-it.this" in line.error  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("line", "head", "status"),
    [
        (b"GET /livez", b"", b"200"),
        (b"HEAD /livez", b"", b"200"),
        (b"GET /readyz", b"", b"200"),
        (b"POST /schedule/shop/a/fire", b"", b"403"),
        (b"DELETE /schedule/shop/a", b"", b"403"),
        (b"GET http://rebound.example/livez", b"", b"403"),
        (b"GET /livez", b"Host: \r\n", b"403"),
        (b"GET /livez", b"Host: \xff\r\n", b"403"),
        (b"GET /livez", b"Host: rebound.example\r\n", b"403"),
        (b"GET /livez", b"Host: localhost\r\n", b"200"),
    ],
)
async def test_a_read_of_http_1_0_needs_no_host_but_the_host_that_it_has_must_be_the_nodes(
    line: bytes, head: bytes, status: bytes
) -> None:
    async with open_service() as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", URL(service.url).port)
        writer.write(line + b" HTTP/1.0\r\n" + head + b"\r\n")
        assert (await reader.read()).split()[1] == status
        writer.close()
        await writer.wait_closed()


# --- Host


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.2.3.4:8080",
        "[::1]:8080",
        "[2001:db8::1]",
        "[::ffff:127.0.0.1]:80",
        "localhost",
        "LOCALHOST:8080",
        "localhost.:1",
        "localhost:",
        "node-1:8080",
        "NODE-1",
        "node-1.:80",
        "clockwork.example",
    ],
)
def test_addresses_localhost_and_listed_names_are_names_of_the_node(host: str) -> None:
    assert refusal("GET", ("Host", host), hosts=("node-1", "Clockwork.Example.")) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "rebound.example",
        "localhost.rebound.example",
        "127.0.0.1.rebound.example",
        "node-1.rebound.example",
        "sub.node-1",
        "127.0.0.1@rebound.example",
        "rebound.example@127.0.0.1",
        "127.0.0.1, rebound.example",
        "127.0.0.1/rebound.example",
        "127.0.0.1:80:80",
        "127.0.0.1:x",
        "127.1",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "::1",
        "[::1",
        "[::1]rebound.example",
        "[rebound.example]",
        "[127.0.0.1]",
        "localhost..",
        "127.0.0.1.",
        "１２７.0.0.1",
    ],
)
def test_any_other_host_is_no_name_of_the_node(host: str) -> None:
    assert refusal("GET", ("Host", host), hosts=("node-1",)) == "unknown-host"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_a_read_may_have_no_host(method: str) -> None:
    # A browser always sends one.
    assert refusal(method) == (None if method in {"GET", "HEAD"} else "unknown-host")


def test_where_callers_need_keys_the_host_is_not_checked_and_writes_of_other_sites_are_refused_all_the_same() -> None:
    for method in ("GET", "POST"):
        assert refusal(method, ("Host", "clockwork.example"), checks_host=False) is None
    assert refusal("POST", ("Host", "clockwork.example"), ("Origin", "null"), checks_host=False) == "other-site"
    assert refusal("POST", ("Origin", "http://a.example"), checks_host=False) == "other-site"


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("http://127.0.0.1:8080/schedule", None),
        ("HTTP://LOCALHOST/schedule", None),
        ("http://rebound.example/schedule", "unknown-host"),
        ("http://127.0.0.1@rebound.example/schedule", "unknown-host"),
        ("http://rebound.example?127.0.0.1/schedule", "unknown-host"),
    ],
)
def test_a_target_that_holds_a_whole_url_counts_in_place_of_the_host(target: str, kind: str | None) -> None:
    # As through a proxy. RFC 9112, 3.2.2: Host is ignored then.
    for host in (HERE, "other.example"):
        assert refusal("GET", ("Host", host), target=target) == kind


# --- the page


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "SAME-ORIGIN", "same-origin, none", "later-invention"])
def test_what_the_browser_says_of_the_page_has_to_be_this_node_or_no_page(site: str) -> None:
    assert refusal("POST", ("Host", HERE), ("Sec-Fetch-Site", site)) == "other-site"
    assert refusal("POST", ("Host", HERE), ("Sec-Fetch-Site", "none"), ("Sec-Fetch-Site", site)) == "other-site"
    assert refusal("GET", ("Host", HERE), ("Sec-Fetch-Site", site)) is None


@pytest.mark.parametrize(
    ("host", "origin", "tls"),
    [
        (HERE, f"http://{HERE}", False),
        (HERE, f"https://{HERE}", True),
        ("127.0.0.1", "http://127.0.0.1", False),
        ("127.0.0.1", "http://127.0.0.1:80", False),
        ("127.0.0.1:80", "http://127.0.0.1", False),
        ("127.0.0.1:", "http://127.0.0.1", False),
        ("localhost", "https://localhost", True),
        ("localhost:443", "https://localhost", True),
        ("LocalHost:8080", "HTTP://LOCALHOST:8080", False),
        ("[::1]:8080", "http://[0:0:0:0:0:0:0:1]:8080", False),
        ("[2001:DB8::A]", "http://[2001:db8::a]", False),
    ],
)
def test_an_origin_with_the_hosts_name_and_port_is_the_nodes_own(host: str, origin: str, tls: bool) -> None:
    assert refusal("POST", ("Host", host), ("Origin", origin), tls=tls) is None


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        (HERE, "http://localhost:8080"),
        (HERE, "http://127.0.0.1:8081"),
        (HERE, "http://127.0.0.1"),
        (HERE, "http://evil.example:8080"),
        (HERE, f"http://evil.example@{HERE}"),
        (HERE, f"http://{HERE}/"),
        (HERE, f"http://{HERE} "),
        (HERE, f"http://{HERE}, http://{HERE}"),
        (HERE, HERE),
        (HERE, f"//{HERE}"),
        (HERE, f"chrome-extension://{HERE}"),
        (HERE, "null"),
        (HERE, ""),
        # TLS ended before the node: only CLOCKWORK_UI_URL says so.
        ("localhost", "https://localhost"),
    ],
)
def test_any_other_origin_is_another_site(host: str, origin: str) -> None:
    assert refusal("POST", ("Host", host), ("Origin", origin)) == "other-site"
    assert refusal("GET", ("Host", host), ("Origin", origin)) is None


def test_each_of_several_origins_counts() -> None:
    own, other = ("Origin", f"http://{HERE}"), ("Origin", "http://evil.example")
    assert refusal("POST", ("Host", HERE), own, own) is None
    for pair in ((own, other), (other, own)):
        assert refusal("POST", ("Host", HERE), *pair) == "other-site"


@pytest.mark.parametrize(
    ("ui_url", "origin", "kind"),
    [
        ("https://jobs.example", "https://jobs.example", None),
        ("https://jobs.example:443/clockwork/", "https://JOBS.example", None),
        ("https://jobs.example:8443", "https://jobs.example:8443", None),
        ("https://jobs.example", "https://jobs.example:8443", "other-site"),
        ("https://jobs.example", "http://jobs.example", "other-site"),
        ("https://jobs.example", "https://evil.example", "other-site"),
        ("https://jobs.example", f"http://{HERE}", None),
    ],
)
def test_behind_a_proxy_the_pages_own_address_is_the_one_of_the_settings(
    ui_url: str, origin: str, kind: str | None
) -> None:
    assert refusal("POST", ("Host", HERE), ("Origin", origin), ui_url=ui_url) == kind


def test_headers_that_a_proxy_may_set_and_any_caller_too_are_not_believed() -> None:
    forwarded = (
        ("X-Forwarded-Host", "jobs.example"),
        ("X-Forwarded-Proto", "https"),
        ("Forwarded", "host=jobs.example"),
    )
    assert refusal("POST", ("Host", HERE), ("Origin", "https://jobs.example"), *forwarded) == "other-site"
    assert refusal("GET", ("Host", "rebound.example"), ("X-Forwarded-Host", "localhost")) == "unknown-host"


# --- any combination


@dataclass(frozen=True)
class Place:
    """A host and a port that two texts may mean."""

    host: str
    port: int


SPELLINGS = {
    "127.0.0.1": ["127.0.0.1"],
    "::1": ["[::1]", "[0:0::1]", "[::0.0.0.1]"],
    "localhost": ["localhost", "LOCALHOST", "localhost."],
    "listed.example": ["listed.example", "Listed.Example", "listed.example."],
    "evil.example": ["evil.example", "EVIL.example"],
}
PORTS = {"http": 80, "https": 443}


@st.composite
def spelled(draw: st.DrawFn, scheme: str) -> tuple[Place, str]:
    host = draw(st.sampled_from(sorted(SPELLINGS)))
    port = draw(st.sampled_from([80, 443, 8080]))
    text = draw(st.sampled_from(SPELLINGS[host]))
    left_out = port == PORTS[scheme] and draw(st.booleans())
    return Place(host, port), text if left_out else f"{text}:{port}"


@given(data=st.data())
def test_a_request_passes_exactly_if_its_host_is_the_nodes_and_its_page_too(data: st.DataObject) -> None:
    method = data.draw(st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"]))
    tls = data.draw(st.booleans())
    here, host = data.draw(spelled("https" if tls else "http"))
    checks_host = data.draw(st.booleans())
    headers, pages = [("Host", host)], []
    for scheme in data.draw(st.lists(st.sampled_from(["http", "https"]), max_size=2)):
        place, text = data.draw(spelled(scheme))
        pages.append(place)
        headers.append(("Origin", f"{scheme}://{text}"))
    sites = data.draw(st.lists(st.sampled_from(["same-origin", "none", "same-site", "cross-site"]), max_size=2))
    headers += [("Sec-Fetch-Site", site) for site in sites]
    outside = data.draw(st.none() | spelled("https"))
    ui_url = None if outside is None else f"https://{outside[1]}"

    known = not checks_host or here.host != "evil.example"
    own = {here} | (set() if outside is None else {outside[0]})
    of_own_page = all(page in own for page in pages) and not {"same-site", "cross-site"} & set(sites)

    kind = refusal(
        method,
        *data.draw(st.permutations(headers)),
        tls=tls,
        hosts=("listed.example",),
        ui_url=ui_url,
        checks_host=checks_host,
    )
    expected = "unknown-host" if not known else None if method in {"GET", "HEAD"} or of_own_page else "other-site"
    assert kind == expected


@given(host=st.text(max_size=30), origin=st.text(max_size=30), site=st.text(max_size=12))
def test_no_header_at_all_is_a_server_error(host: str, origin: str, site: str) -> None:
    headers = (("Host", host), ("Origin", origin), ("Sec-Fetch-Site", site))
    assert refusal("POST", *headers) in {"unknown-host", "other-site"}
