"""Logins of the dashboard at an issuer that lives in the test: the whole flow over HTTP, as a browser goes through it."""

import builtins
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web
from yarl import URL

from clockwork.access import oidc
from clockwork.access.gate import build_access
from clockwork.access.oidc_login import LOGIN_MS_MAX, page_of
from clockwork.access.sessions import COOKIE_BYTES_MAX, Sessions
from clockwork.clock import SystemClock
from clockwork.domain.rights import Right
from clockwork.errors import CannotStart, Unauthenticated
from clockwork.http.sessions import ClusterInfo
from clockwork.http.ui import UiPages
from clockwork.observability.metrics import PrometheusTelemetry
from clockwork.settings.model import AccessSettings, UiSettings
from tests.support.clocks import ManualClock
from tests.support.issuer import Issuer, running_issuer
from tests.unit.api_edge import Answer, Edge, open_edge
from tests.unit.service import a_principal

OURS = {"clockwork-ui": "1"}
CLIENT = "dashboard"


@dataclass
class Browser:
    """A browser that begins and ends logins at a node."""

    edge: Edge
    issuer: Issuer
    clock: ManualClock
    sessions: Sessions

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.edge.server.port}"

    async def go(self, path: str, cookie: str | None = None) -> Answer:
        headers = {} if cookie is None else {"Cookie": cookie}
        return await self.edge.ask("GET", path, headers=headers, allow_redirects=False)

    async def begin(self, go_on_to: str | None = "/ui/jobs?client=shop") -> tuple[str, str]:
        """Returns: the cookie of a new login, and the path and query with which the issuer sends the browser back."""
        query = "" if go_on_to is None else URL("/").with_query({"next": go_on_to}).raw_query_string
        answer = await self.go(f"/session/login?{query}")
        assert answer.status == 302
        async with self.edge.session.get(
            URL(answer.headers["Location"], encoded=True), allow_redirects=False
        ) as sent_back:
            back = urlsplit(sent_back.headers["Location"])
        assert back.path == "/session/callback"
        return answer.headers["Set-Cookie"].partition(";")[0], f"{back.path}?{back.query}"

    async def log_in(self, go_on_to: str | None = "/ui/jobs?client=shop") -> Answer:
        cookie, back = await self.begin(go_on_to)
        return await self.go(back, cookie)

    async def me(self, answer: Answer) -> Any:
        cookie = session_in(answer)
        assert cookie is not None, answer.headers
        return (await self.edge.ask("GET", "/me", headers={**OURS, "Cookie": cookie})).json


def session_in(answer: Answer) -> str | None:
    """The session's cookie of an answer."""
    given = [each.partition(";")[0] for each in answer.headers.getall("Set-Cookie", [])]  # type: ignore[attr-defined]
    return next((each for each in given if "clockwork=" in each), None)


def reason_in(answer: Answer) -> str:
    """The reason for which a login failed, as the page is told it."""
    assert answer.status == 302
    assert session_in(answer) is None
    where = urlsplit(answer.headers["Location"])
    assert where.path == "/ui/"
    return parse_qs(where.query)["login"][0]


@asynccontextmanager
async def a_browser(issuer: Issuer, *, url: str | None = None, **settings: Any) -> AsyncIterator[Browser]:
    chosen = AccessSettings(
        auth="oidc",
        oidc_issuer=issuer.url,
        oidc_audience="clockwork",
        **{"oidc_ui_client_id": CLIENT, **settings},
    )
    ui, clock, https = (
        UiSettings(url=url),
        ManualClock(SystemClock().now_ms()),
        url is not None and url.startswith("https"),
    )
    access = build_access(chosen, clock, PrometheusTelemetry(), accepts=True, ui=ui, https=https)
    assert access.gate.sessions is not None
    async with open_edge(
        authenticator=access.authenticator,
        sessions=access.gate.sessions,
        ui=UiPages(ui, auth="oidc", https=https),
        login=access.login,
        cluster_info=ClusterInfo(auth="oidc", cluster="clockwork"),
        checks_host=False,
        ui_url=url,
    ) as edge:
        yield Browser(edge, issuer, clock, access.gate.sessions)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    found = Issuer()
    async with running_issuer(found):
        yield found


@pytest.fixture
async def browser(issuer: Issuer) -> AsyncIterator[Browser]:
    async with a_browser(issuer) as opened:
        yield opened


# --- the way through


async def test_a_login_asks_the_issuer_with_state_nonce_and_challenge_and_keeps_the_secrets_to_the_browser(
    browser: Browser, issuer: Issuer
) -> None:
    answer = await browser.go("/session/login?next=/ui/jobs")
    page = urlsplit(answer.headers["Location"])
    asked = {name: values[0] for name, values in parse_qs(page.query).items()}
    assert f"{page.scheme}://{page.netloc}{page.path}" == f"{issuer.url}/authorize"
    assert asked | dict.fromkeys(("state", "nonce", "code_challenge"), "") == {
        "response_type": "code",
        "client_id": CLIENT,
        "redirect_uri": f"http://{browser.host}/session/callback",
        "scope": "openid",
        "code_challenge_method": "S256",
        "state": "",
        "nonce": "",
        "code_challenge": "",
    }
    assert all(len(asked[name]) >= 32 for name in ("state", "nonce", "code_challenge"))
    name, _, rest = answer.headers["Set-Cookie"].partition("=")
    assert name == f"clockwork-login-{asked['state'][:8]}"
    attributes = {each.strip() for each in rest.split(";")[1:]}
    assert {"HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=600"} <= attributes


async def test_a_login_ends_on_its_page_with_the_rights_of_the_access_token(browser: Browser, issuer: Issuer) -> None:
    issuer.identity = {"clockwork_rights": "admin"}
    answer = await browser.log_in()
    assert (answer.status, answer.headers["Location"]) == (302, "/ui/jobs?client=shop")
    me = await browser.me(answer)
    assert (me["name"], me["rights"], me["clients"]) == ("shop-service", ["create", "read"], ["shop", "shop-*"])
    (exchanged,) = issuer.exchanged
    assert exchanged["client_id"] == CLIENT
    assert exchanged["authorization"] == ""
    # The login's own cookie is gone.
    cleared = answer.headers.getall("Set-Cookie")  # type: ignore[attr-defined]
    assert any(each.startswith("clockwork-login-") and "Max-Age=0" in each for each in cleared)


@pytest.mark.parametrize("access", [None, {"aud": "another service"}])
async def test_where_the_access_token_is_not_for_us_rights_come_from_the_id_token(
    browser: Browser, issuer: Issuer, access: dict[str, Any] | None
) -> None:
    issuer.access, issuer.identity = access, {"clockwork_rights": "read", "clockwork_redacted": True}
    me = await browser.me(await browser.log_in())
    assert (me["rights"], me["redacted"]) == (["read"], True)


async def test_a_session_ends_with_the_token_that_it_comes_from(browser: Browser, issuer: Issuer) -> None:
    ends_s = browser.clock.now_ms() // 1_000 + 90
    issuer.access = {"exp": ends_s}
    answer = await browser.log_in()
    assert (await browser.me(answer))["session"]["endsAt"] == ends_s * 1_000
    browser.clock.set_ms(ends_s * 1_000)
    sent = {**OURS, "Cookie": str(session_in(answer))}
    assert (await browser.edge.ask("GET", "/me", headers=sent)).status == 401


async def test_behind_a_proxy_the_issuer_sends_browsers_to_the_address_that_they_know(issuer: Issuer) -> None:
    async with a_browser(issuer, url="https://ops.example/clockwork/") as browser:
        answer = await browser.go("/session/login?next=/clockwork/ui/jobs")
        asked = parse_qs(urlsplit(answer.headers["Location"]).query)
        assert asked["redirect_uri"] == ["https://ops.example/clockwork/session/callback"]
        cookie = answer.headers["Set-Cookie"]
        assert cookie.startswith("__Host-clockwork-login-")
        assert "Secure" in cookie
        async with browser.edge.session.get(
            URL(answer.headers["Location"], encoded=True), allow_redirects=False
        ) as sent_back:
            query = urlsplit(sent_back.headers["Location"]).query
        answer = await browser.go(f"/session/callback?{query}", cookie.partition(";")[0])
        assert answer.headers["Location"] == "/clockwork/ui/jobs"
        assert str(session_in(answer)).startswith("__Host-clockwork=")


@pytest.mark.parametrize("methods", [None, ["client_secret_post"]])
async def test_a_confidential_client_proves_itself_as_the_issuer_takes_it(
    issuer: Issuer, tmp_path: Path, methods: list[str] | None
) -> None:
    (path := tmp_path / "secret").write_text("s3cret\n")
    issuer.client_secret = "s3cret"
    if methods is not None:
        issuer.about_changes = {"token_endpoint_auth_methods_supported": methods}
    async with a_browser(issuer, oidc_ui_secret_file=path) as browser:
        assert session_in(await browser.log_in()) is not None
        assert ("client_secret" in issuer.exchanged[0]) == (methods is not None)
        path.write_text("another")
        assert reason_in(await browser.log_in()) == "issuer"


async def test_pages_that_log_in_at_once_do_not_disturb_each_other(browser: Browser) -> None:
    (one, back_of_one), (two, back_of_two) = await browser.begin("/ui/jobs"), await browser.begin("/ui/upcoming")
    both = f"{one}; {two}"
    assert (await browser.go(back_of_one, both)).headers["Location"] == "/ui/jobs"
    assert (await browser.go(back_of_two, both)).headers["Location"] == "/ui/upcoming"


async def test_however_many_logins_are_begun_their_cookies_stay_short_enough_to_be_sent(browser: Browser) -> None:
    # A page of another site may begin them, in a window of its own. The session's cookie goes along.
    jar = {"clockwork": "x" * COOKIE_BYTES_MAX, "theme": "dark"}
    back = ""
    for number in range(12):
        sent = "; ".join(f"{name}={text}" for name, text in jar.items())
        go_on_to = "/ui/" + str(number) * (1_990 if number % 2 else 20)
        answer = await browser.go(f"/session/login?next={go_on_to}", sent)
        assert answer.status == 302
        for each in answer.headers.getall("Set-Cookie"):  # type: ignore[attr-defined]
            name, _, text = each.partition(";")[0].partition("=")
            jar[name] = text
            if "Max-Age=0" in each:
                del jar[name]
        back = answer.headers["Location"]
    assert len(jar) == 4, "two logins, the session and the theme"
    async with browser.edge.session.get(URL(back, encoded=True), allow_redirects=False) as sent_back:
        query = urlsplit(sent_back.headers["Location"]).query
    answer = await browser.go(f"/session/callback?{query}", "; ".join(f"{name}={text}" for name, text in jar.items()))
    assert session_in(answer) is not None


# --- what fails


async def test_a_code_that_another_browser_was_given_logs_nobody_in(browser: Browser) -> None:
    cookie, back = await browser.begin()
    other, _ = await browser.begin()
    forged = f"{cookie.partition('=')[0]}={other.partition('=')[2]}"
    for sent in (None, other, forged, f"{cookie}x", cookie.replace("-login", "")):
        assert reason_in(await browser.go(back, sent)) == "expired"
    assert browser.issuer.exchanged == []


@pytest.mark.parametrize("change", [{"state": "x"}, {"state": ""}])
async def test_a_wrong_state_ends_the_login(browser: Browser, change: dict[str, str]) -> None:
    cookie, back = await browser.begin()
    changed = str(URL(back, encoded=True).update_query(change))
    assert reason_in(await browser.go(changed, cookie)) == "expired"


async def test_parameters_that_are_there_twice_are_none(browser: Browser) -> None:
    cookie, back = await browser.begin()
    state = parse_qs(urlsplit(back).query)["state"][0]
    assert reason_in(await browser.go(f"{back}&state={state}", cookie)) == "expired"


async def test_a_login_that_takes_too_long_is_begun_anew(browser: Browser) -> None:
    cookie, back = await browser.begin()
    browser.clock.advance_ms(LOGIN_MS_MAX)
    assert reason_in(await browser.go(back, cookie)) == "expired"


async def test_a_code_is_good_once(browser: Browser) -> None:
    cookie, back = await browser.begin()
    assert session_in(await browser.go(back, cookie)) is not None
    assert reason_in(await browser.go(back, cookie)) == "issuer"


async def test_a_verifier_that_does_not_fit_the_challenge_is_refused_by_the_issuer(
    browser: Browser, issuer: Issuer
) -> None:
    cookie, back = await browser.begin()
    for asked in issuer.given.values():
        asked["code_challenge"] = "another"
    assert reason_in(await browser.go(back, cookie)) == "issuer"


@pytest.mark.parametrize(
    ("identity", "access"),
    [
        ({"nonce": "of another login"}, {}),
        ({"nonce": ...}, {}),
        ({"aud": "another client"}, {}),
        ({"aud": [CLIENT, "another client"], "azp": "another client"}, {}),
        ({"iss": "https://another.example"}, {}),
        ({"exp": 1}, {}),
        ({"key_id": "unknown"}, {}),
        ({}, {"sub": "another person"}),
    ],
)
async def test_tokens_that_are_not_of_this_login_are_refused(
    browser: Browser, issuer: Issuer, identity: dict[str, Any], access: dict[str, Any]
) -> None:
    issuer.identity, issuer.access = identity, access
    assert reason_in(await browser.log_in()) == "issuer"


async def test_another_issuers_answer_is_refused(browser: Browser) -> None:
    cookie, back = await browser.begin()
    mixed_up = str(URL(back, encoded=True).update_query({"iss": "https://evil.example"}))
    assert reason_in(await browser.go(mixed_up, cookie)) == "issuer"
    assert browser.issuer.exchanged == []


async def test_who_may_do_nothing_here_is_told_so(browser: Browser, issuer: Issuer) -> None:
    issuer.access = {"clockwork_rights": "dance"}
    assert reason_in(await browser.log_in()) == "no-rights"


async def test_claims_that_no_cookie_holds_are_refused_with_that_reason(browser: Browser, issuer: Issuer) -> None:
    issuer.access = {"clockwork_clients": [f"client-{number:05}" for number in range(400)]}
    assert reason_in(await browser.log_in()) == "too-large"


async def test_a_person_who_the_issuer_refuses_comes_back_without_a_session(browser: Browser, issuer: Issuer) -> None:
    issuer.refuses = "access_denied"
    assert reason_in(await browser.log_in()) == "refused"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (web.Response(status=500, text="no"), "unavailable"),
        (web.Response(text="no JSON"), "issuer"),
        (web.json_response([1]), "issuer"),
        (web.json_response({}), "issuer"),
        (web.json_response({"error": "invalid_grant"}, status=400), "issuer"),
    ],
)
async def test_an_issuer_that_gives_no_tokens_is_named_as_the_reason(
    browser: Browser, issuer: Issuer, answer: web.Response, reason: str
) -> None:
    issuer.token_answer = answer
    assert reason_in(await browser.log_in()) == reason


async def test_an_issuer_that_is_away_is_a_503_at_the_beginning_and_a_reason_at_the_end(
    browser: Browser, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "REFRESH_S", 0.0)
    cookie, back = await browser.begin()
    issuer.about_changes = {"issuer": "https://another.example"}
    assert reason_in(await browser.go(back, cookie)) == "unavailable"
    assert (await browser.go("/session/login")).status == 503


async def test_strangers_who_begin_logins_do_not_make_the_node_ask_the_issuer_each_time(
    browser: Browser, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.about_changes = {"issuer": "https://another.example"}
    assert {(await browser.go("/session/login")).status for _ in range(5)} == {503}
    assert issuer.discovered == 1
    monkeypatch.setattr(oidc, "REFRESH_UNKNOWN_S", 0.0)
    async with a_browser(issuer) as other:
        assert (await other.go("/session/login")).status == 503
        issuer.about_changes = {}
        assert {(await other.go("/session/login")).status for _ in range(5)} == {302}
    assert issuer.discovered == 3


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint"])
async def test_an_issuer_without_a_safe_endpoint_is_not_asked(browser: Browser, issuer: Issuer, name: str) -> None:
    issuer.about_changes = {name: "ftp://elsewhere"}
    assert (await browser.go("/session/login")).status == 503


def test_once_logins_are_by_key_or_at_another_issuer_what_the_one_before_granted_is_void(tmp_path: Path) -> None:
    (secret_file := tmp_path / "secrets").write_text("a secret of 32 bytes, or of more")
    (keys_file := tmp_path / "keys.toml").write_text("")
    clock = ManualClock()

    def sessions_of(**settings: Any) -> Sessions:
        chosen: dict[str, Any] = {"auth": "oidc", "oidc_issuer": "https://a.example", "oidc_audience": "clockwork"}
        ui = UiSettings(secret_file=secret_file)
        settings = chosen | settings
        access = build_access(AccessSettings(**settings), clock, PrometheusTelemetry(), accepts=True, ui=ui)
        assert access.gate.sessions is not None
        return access.gate.sessions

    before = sessions_of()
    cookie = before.cookie_of(before.for_principal(a_principal(Right.ADMIN), ends_at_ms=clock.now_ms() + 60_000))
    assert sessions_of().admit(cookie)[1].rights == {Right.ADMIN}
    for now in ({"oidc_issuer": "https://b.example"}, {"oidc_audience": "b"}, {"auth": "keys", "keys_file": keys_file}):
        with pytest.raises(Unauthenticated):
            sessions_of(**now).admit(cookie)


# --- where a login leads


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/ui/",
        "//evil.example/ui/",
        "/\\evil.example/ui/",
        "\\\\evil.example",
        "/ui/../session/login",
        "/ui/%2e%2e/session/login",
        "/ui/.%2E/x",
        "/schedule/shop/a",
        "/uix",
        "ui/",
        "javascript:alert(1)",
        "/ui/\n",
        "",
        "/ui/" + "x" * 2_000,
        "//[",
        "//\uff03/ui/",
    ],
)
def test_a_login_leads_to_pages_of_ours_alone(elsewhere: str) -> None:
    assert page_of(elsewhere, base="") == "/ui/"
    assert page_of(elsewhere, base="/clockwork") == "/clockwork/ui/"


@pytest.mark.parametrize("path", ["/ui/", "/ui/schedule?client=a&key=..%2F%5C..", "/ui/jobs?next=https://x.example"])
def test_a_login_leads_back_to_the_page_that_asked(path: str) -> None:
    assert page_of(path, base="") == path
    assert page_of(f"/clockwork{path}", base="/clockwork") == f"/clockwork{path}"


async def test_a_login_without_a_page_leads_to_the_first_one(browser: Browser) -> None:
    assert (await browser.log_in(None)).headers["Location"] == "/ui/"


# --- where there is none


async def test_over_plain_http_no_other_machine_begins_a_login(browser: Browser) -> None:
    answer = await browser.edge.ask("GET", "/session/login", headers={"Host": "ops.example"})
    assert (answer.status, answer.json["type"]) == (403, "urn:clockwork:problem:login-needs-https")


async def test_without_a_client_at_the_issuer_there_is_no_login(issuer: Issuer) -> None:
    async with a_browser(issuer, oidc_ui_client_id=None) as browser:
        for path in ("/session/login", "/session/callback?code=a&state=b"):
            answer = await browser.go(path)
            assert (answer.status, answer.json["type"]) == (409, "urn:clockwork:problem:no-login-at-issuer")


def test_without_the_library_or_the_secret_the_node_does_not_start(tmp_path: Path) -> None:
    def opened(**settings: Any) -> None:
        access = AccessSettings(
            auth="oidc",
            oidc_issuer="https://issuer.example",
            oidc_audience="a",
            oidc_ui_client_id=CLIENT,
            **settings,
        )
        build_access(access, ManualClock(), PrometheusTelemetry(), accepts=True, ui=UiSettings())

    (empty := tmp_path / "empty").write_text("\n")
    for path in (empty, tmp_path / "none"):
        with pytest.raises(CannotStart, match="CLOCKWORK_OIDC_UI_SECRET_FILE"):
            opened(oidc_ui_secret_file=path)
    real_import = builtins.__import__

    def without_authlib(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("authlib"):
            raise ImportError(name)
        return real_import(name, *args, **more)

    with mock.patch("builtins.__import__", without_authlib), pytest.raises(CannotStart, match=r"clockwork\[oidc\]"):
        opened()
