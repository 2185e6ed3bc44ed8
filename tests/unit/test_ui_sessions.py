"""Sessions of the dashboard: who gets one, how long it lasts, and what else its cookie opens (nothing)."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clockwork.access import sessions as sessions_module
from clockwork.access.keys import KeyRing
from clockwork.access.sessions import RENEW_MS, SESSION_MS_MAX, UNUSED_MS_MAX, Granted, Sessions, TooManyGrants
from clockwork.domain.rights import Principal, Right, names_of
from clockwork.errors import CannotStart, Unauthenticated
from clockwork.http.sessions import ClusterInfo
from clockwork.http.ui import UiPages
from clockwork.observability.metrics import PrometheusTelemetry
from clockwork.settings.model import UiSettings
from tests.support.clocks import ManualClock
from tests.support.waiting import until
from tests.unit.api_edge import NOW_MS, Answer, Edge, a_request, open_edge
from tests.unit.service import Keys, a_principal
from tests.unit.test_api_keys import an_entry

FIRST, SECOND = "first secret of 32 bytes or more.", "second secret of 32 bytes, or more"
OURS = {"clockwork-ui": "1"}


@dataclass
class Desk:
    """A node with keys, and its files."""

    edge: Edge
    clock: ManualClock
    ring: KeyRing
    sessions: Sessions
    keys_file: Path
    secret_file: Path
    key: str
    entry: str

    async def log_in(self, key: str | None = None, **headers: str) -> Answer:
        return await self.edge.ask("POST", "/session", json={"key": key or self.key}, headers=headers)

    async def cookie(self) -> str:
        """The cookie of a new session, as a browser sends it."""
        return cookie_in(await self.log_in())

    async def write_keys(self, text: str) -> None:
        self.keys_file.write_text(text)
        await self.ring.reload()

    async def write_secrets(self, *secrets: str) -> None:
        self.secret_file.write_text("\n".join(secrets))
        await self.sessions.secrets.reload()

    async def status(self, cookie: str | None, headers: Mapping[str, str] = OURS) -> int:
        return (await self.me(cookie, headers)).status

    async def me(self, cookie: str | None, headers: Mapping[str, str] = OURS) -> Answer:
        sent = dict(headers) | ({} if cookie is None else {"Cookie": cookie})
        return await self.edge.ask("GET", "/me", headers=sent)


@asynccontextmanager
async def a_desk(
    folder: Path, *, secrets: tuple[str, ...] | None = (FIRST,), https: bool = False, **entry: Any
) -> AsyncIterator[Desk]:
    key, text = an_entry("ana", **{"rights": ["read", "operate"], "clients": ["shop", "mail-*"], **entry})
    keys_file, secret_file = folder / "keys.toml", folder / "secrets"
    keys_file.write_text(text)
    if secrets is not None:
        secret_file.write_text("\n".join(secrets))
    settings = UiSettings(secret_file=None if secrets is None else secret_file)
    clock = ManualClock(NOW_MS)
    ring = KeyRing(keys_file, clock, PrometheusTelemetry())
    sessions = Sessions(settings, clock, keys=ring, https=https)
    pages = UiPages(settings, auth="keys", https=https)
    cluster_info = ClusterInfo(auth="keys", cluster="clockwork", banner="production")
    async with open_edge(
        authenticator=ring, ui=pages, sessions=sessions, cluster_info=cluster_info, checks_host=False
    ) as edge:
        yield Desk(edge, clock, ring, sessions, keys_file, secret_file, key, text)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with a_desk(tmp_path) as opened:
        yield opened


def cookie_in(answer: Answer) -> str:
    return answer.headers["Set-Cookie"].partition(";")[0]


def parts_of(answer: Answer) -> set[str]:
    """The attributes of the answer's cookie."""
    return {each.strip() for each in answer.headers["Set-Cookie"].split(";")[1:]}


# --- what it opens


async def test_a_login_by_key_gives_a_cookie_that_stands_for_the_key(desk: Desk) -> None:
    answer = await desk.log_in()
    assert answer.status == 200
    assert parts_of(answer) == {"HttpOnly", "Path=/", "SameSite=Strict"}
    assert desk.key not in answer.headers["Set-Cookie"]
    me = await desk.me(cookie_in(answer))
    assert (
        me.json
        == answer.json
        == {
            "name": "ana",
            "auth": "keys",
            "rights": ["operate", "read"],
            "clients": ["mail-*", "shop"],
            "topics": ["orders"],
            "redacted": False,
            "cluster": "clockwork",
            "version": me.json["version"],
            "banner": "production",
            "jobs": "on",
            "search": "on",
            "links": {},
            "session": {
                "issuedAt": NOW_MS,
                "endsAt": NOW_MS + SESSION_MS_MAX,
                "unusedUntil": NOW_MS + UNUSED_MS_MAX,
            },
        }
    )
    sent = {**OURS, "Cookie": cookie_in(answer)}
    assert (await desk.edge.ask("GET", "/schedule/shop/none", headers=sent)).status == 404
    assert (await desk.edge.post(a_request(), headers=sent)).status == 403  # no right to create


async def test_under_https_the_cookie_is_the_hosts_own(tmp_path: Path) -> None:
    async with a_desk(tmp_path, https=True) as desk:
        answer = await desk.log_in(Host="ops.example")
        assert cookie_in(answer).startswith("__Host-clockwork=v1.")
        assert parts_of(answer) == {"HttpOnly", "Path=/", "SameSite=Strict", "Secure"}
        assert await desk.status(cookie_in(answer)) == 200


@pytest.mark.parametrize("host", ["10.0.0.7:8080", "ops.example", "[2001:db8::1]:80", ""])
async def test_over_plain_http_no_other_machine_gets_a_session(desk: Desk, host: str) -> None:
    answer = await desk.log_in(Host=host)
    assert (answer.status, answer.json["type"]) == (403, "urn:clockwork:problem:login-needs-https")
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("headers", [{}, {"clockwork-ui": "0"}, {"clockwork-ui": "true"}, {"x-clockwork-ui": "1"}])
async def test_the_cookie_counts_only_beside_the_header_that_no_other_page_can_send(
    desk: Desk, headers: dict[str, str]
) -> None:
    assert await desk.status(await desk.cookie(), headers) == 401


async def test_a_request_with_a_key_of_its_own_is_that_keys_whatever_its_cookie(desk: Desk) -> None:
    cookie = await desk.cookie()
    assert await desk.status(cookie, {**OURS, "Authorization": "Bearer another"}) == 401
    me = await desk.me("clockwork=v1.forged.x", {**OURS, "Authorization": f"Bearer {desk.key}"})
    assert (me.status, "session" in me.json) == (200, False)


async def test_a_wrong_key_gets_no_session_and_is_counted_and_no_number_of_them_shuts_a_right_one_out(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    for wrong in ("x", desk.key[:-1] + ("A" if desk.key[-1] != "A" else "B"), "cw_0123456789abcdef_" + "A" * 43):
        answer = await desk.log_in(wrong)
        assert (answer.status, "Set-Cookie" in answer.headers) == (401, False)
    assert [record.__dict__["event"] for record in caplog.records if "event" in record.__dict__][-1] == "auth.refused"
    assert 'clockwork_auth_total{result="refused"} 3.0' in desk.edge.telemetry.exposition()[0].decode()
    assert (await desk.log_in()).status == 200


@pytest.mark.parametrize("body", ["{}", '{"key": 1}', '{"key": ""}', '{"key": "a", "next": "/"}', "x", '"a"'])
async def test_a_login_without_a_key_is_a_400(desk: Desk, body: str) -> None:
    answer = await desk.edge.ask("POST", "/session", data=body, headers={"Content-Type": "application/json"})
    assert answer.status == 400


# --- how long it lasts


async def test_an_unused_session_ends_after_an_hour(desk: Desk) -> None:
    cookie = await desk.cookie()
    desk.clock.advance_ms(UNUSED_MS_MAX - 1)
    assert await desk.status(cookie) == 200
    desk.clock.advance_ms(1)
    assert await desk.status(cookie) == 401


async def test_a_session_that_is_used_is_renewed_now_and_then_and_ends_with_the_day(desk: Desk) -> None:
    cookie, sent = await desk.cookie(), 0
    desk.clock.advance_ms(RENEW_MS - 1)
    assert "Set-Cookie" not in (await desk.me(cookie)).headers
    desk.clock.advance_ms(1)
    while desk.clock.now_ms() < NOW_MS + SESSION_MS_MAX:
        answer = await desk.me(cookie)
        assert answer.status == 200
        assert answer.json["session"]["endsAt"] == NOW_MS + SESSION_MS_MAX
        cookie, sent = cookie_in(answer), sent + 1
        desk.clock.advance_ms(UNUSED_MS_MAX - 1)
    assert sent == 8
    assert await desk.status(cookie) == 401


async def test_a_session_ends_with_its_key_at_the_latest(tmp_path: Path) -> None:
    expires = "2027-01-15T08:30:00Z"  # half an hour after NOW_MS
    async with a_desk(tmp_path, expires=expires) as desk:
        answer = await desk.log_in()
        assert answer.json["session"]["endsAt"] == NOW_MS + 1_800_000
        desk.clock.advance_ms(1_800_000)
        assert await desk.status(cookie_in(answer)) == 401


async def test_a_removed_key_ends_its_sessions(desk: Desk) -> None:
    cookie = await desk.cookie()
    await desk.write_keys("")
    assert await desk.status(cookie) == 401
    await desk.write_keys(desk.entry)
    assert await desk.status(cookie) == 200


async def test_another_key_under_the_same_id_does_not_take_over_the_sessions(desk: Desk) -> None:
    cookie = await desk.cookie()
    _, other = an_entry("ana", rights=["admin"], clients=["*"])
    ours, others = (next(line for line in text.splitlines() if line.startswith("hash")) for text in (desk.entry, other))
    await desk.write_keys(desk.entry.replace(ours, others))
    assert await desk.status(cookie) == 401


async def test_rights_that_are_taken_from_the_key_are_taken_from_its_sessions(desk: Desk) -> None:
    cookie = await desk.cookie()
    await desk.write_keys(desk.entry.replace('["read", "operate"]', '["cancel"]'))
    assert (await desk.me(cookie)).json["rights"] == ["cancel"]


# --- who can make one


def forged(cookie: str, **changes: Any) -> str:
    """The cookie with another content, and the signature of the old one."""
    version, body, mac = cookie.split(".")
    document = json.loads(base64.urlsafe_b64decode(body + "=="))
    other = base64.urlsafe_b64encode(json.dumps(document | changes).encode()).decode().rstrip("=")
    return f"{version}.{other}.{mac}"


async def test_a_forged_cookie_opens_nothing(desk: Desk) -> None:
    cookie = await desk.cookie()
    name, _, value = cookie.partition("=")
    assert await desk.status(f"{name}={value}") == 200
    head, _, mac = value.rpartition(".")
    purpose = "session of clockwork by key"
    of_another_release: list[Any] = [{}, [], None, {"id": "a", "more": 1}]
    wrong = [
        forged(value, ends_at_ms=2**53),
        forged(value, granted={"clients": ["*"], "topics": ["*"], "rights": ["admin"], "redacted": False}),
        f"{head}.",
        f"{head}.{mac[:-1]}",
        f"{head}.{mac}A",
        f"v2{value[2:]}",
        head,
        "",
        "v1",
        "v1..",
        "\u00e4",
        desk.sessions.secrets.sign("login of clockwork", {}),
        *(desk.sessions.secrets.sign(purpose, document) for document in of_another_release),
    ]
    for each in wrong:
        assert await desk.status(f"{name}={each}") == 401, each


async def test_a_session_of_another_cluster_is_none_here_though_the_secret_is_the_same(desk: Desk) -> None:
    settings = UiSettings(secret_file=desk.secret_file, cluster="other")
    other = Sessions(settings, desk.clock, keys=desk.ring, https=False)
    cookie = other.cookie_of(other.for_key(desk.key)[0])
    assert await desk.status(f"clockwork={cookie}") == 401


async def test_a_secret_is_replaced_while_sessions_go_on(desk: Desk) -> None:
    old = await desk.cookie()
    await desk.write_secrets(SECOND, FIRST)
    assert await desk.status(old) == 200
    new = await desk.cookie()
    await desk.write_secrets(SECOND)
    assert (await desk.status(old), await desk.status(new)) == (401, 200)


async def test_a_file_of_secrets_that_is_broken_leaves_them_and_is_logged_once(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    cookie = await desk.cookie()
    for _ in range(2):
        await desk.write_secrets("short")
    assert await desk.status(cookie) == 200
    events = [record.__dict__.get("event") for record in caplog.records]
    assert events.count("session.secrets_kept") == 1
    assert "short\n" not in caplog.text


@pytest.mark.parametrize("text", ["", "\n \n", "x" * 31, f"{FIRST}\nhunter2", "\n".join([FIRST] * 17), "x" * 70_000])
def test_a_wrong_file_of_secrets_stops_the_start_without_telling_one(tmp_path: Path, text: str) -> None:
    (path := tmp_path / "secrets").write_text(text)
    with pytest.raises(CannotStart, match="CLOCKWORK_UI_SECRET_FILE") as raised:
        Sessions(UiSettings(secret_file=path), ManualClock(), keys=None, https=False)
    assert not any(line.strip() in str(raised.value) for line in text.split("\n") if line.strip())


def test_a_file_of_secrets_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="No such file"):
        Sessions(UiSettings(secret_file=tmp_path / "none"), ManualClock(), keys=None, https=False)


async def test_a_running_node_reads_its_secrets_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "RELOAD_S", 0.001)
    cookie = await desk.cookie()

    async def look() -> bool:
        return await desk.status(cookie) == 401

    async with asyncio.TaskGroup() as group:
        running = group.create_task(desk.sessions.run(), name="sessions")
        desk.secret_file.write_text(SECOND)
        await until(look, "the new secret")
        running.cancel()


# --- several nodes, logout


async def test_any_node_with_the_same_files_reads_the_session(desk: Desk) -> None:
    cookie = await desk.cookie()
    settings = UiSettings(secret_file=desk.secret_file)
    other = Sessions(settings, desk.clock, keys=desk.ring, https=False)
    assert other.admit(cookie.partition("=")[2])[1].name == "ana"
    alone = Sessions(UiSettings(), desk.clock, keys=desk.ring, https=False)
    with pytest.raises(Unauthenticated):
        alone.admit(cookie.partition("=")[2])


async def test_after_the_logout_the_browser_has_no_cookie_and_this_process_takes_no_copy_of_it(desk: Desk) -> None:
    cookie = await desk.cookie()
    answer = await desk.edge.ask("DELETE", "/session", headers={**OURS, "Cookie": cookie})
    assert (answer.status, cookie_in(answer)) == (204, 'clockwork=""')
    assert "Max-Age=0" in parts_of(answer)
    assert await desk.status(cookie) == 401
    # docs/dashboard.md says so: other processes cannot know.
    other = Sessions(UiSettings(secret_file=desk.secret_file), desk.clock, keys=desk.ring, https=False)
    assert other.admit(cookie.partition("=")[2])[1].name == "ana"


async def test_an_answer_that_comes_behind_the_logout_does_not_bring_the_cookie_back(desk: Desk) -> None:
    cookie = (await desk.cookie()).partition("=")[2]
    session, _ = desk.sessions.admit(cookie)
    desk.clock.advance_ms(RENEW_MS)
    assert desk.sessions.renewal(session) is not None
    desk.sessions.end(cookie)
    assert desk.sessions.renewal(session) is None


async def test_a_logout_without_a_session_is_none(desk: Desk) -> None:
    for cookie in ("", "clockwork=v1.forged.x"):
        assert (await desk.edge.ask("DELETE", "/session", headers={"Cookie": cookie})).status == 204


async def test_logouts_that_are_remembered_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "ENDED_MAX", 1)
    first, second = [(await desk.cookie()).partition("=")[2] for _ in range(2)]
    for cookie in (first, second):
        desk.sessions.end(cookie)
    assert (await desk.status(f"clockwork={first}"), await desk.status(f"clockwork={second}")) == (200, 401)


# --- other sites


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}])
@pytest.mark.parametrize(("method", "path"), [("POST", "/session"), ("DELETE", "/session"), ("POST", "/schedule")])
async def test_another_site_can_neither_log_in_nor_out_nor_use_the_session(
    desk: Desk, method: str, path: str, headers: dict[str, str]
) -> None:
    cookie = await desk.cookie()
    sent = {**OURS, "Cookie": cookie, **headers}
    answer = await desk.edge.ask(method, path, json={"key": desk.key}, headers=sent)
    assert (answer.status, answer.json["type"]) == (403, "urn:clockwork:problem:other-site")
    assert "Set-Cookie" not in answer.headers
    assert await desk.status(cookie) == 200


async def test_a_form_of_an_old_browser_that_says_nothing_of_its_page_cannot_log_in(desk: Desk) -> None:
    # A form sends no JSON; so no other site logs a reader in with a key of its own.
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a"):
        answer = await desk.edge.ask(
            "POST", "/session", data=json.dumps({"key": desk.key}), headers={"Content-Type": kind}
        )
        assert answer.status == 415


# --- where there is no login by key


@pytest.mark.parametrize("auth", ["none", "oidc"])
async def test_without_keys_there_is_no_login_by_one(auth: Any) -> None:
    settings = UiSettings()
    authenticator = None if auth == "none" else Keys({"token": a_principal(Right.READ)})
    sessions = None if auth == "none" else Sessions(settings, ManualClock(), keys=None, https=False)
    async with open_edge(
        authenticator=authenticator,
        ui=UiPages(settings, auth=auth, https=False),
        sessions=sessions,
        cluster_info=ClusterInfo(auth=auth, cluster="c"),
    ) as edge:
        answer = await edge.ask("POST", "/session", json={"key": "token"})
        assert (answer.status, answer.json["type"]) == (409, "urn:clockwork:problem:no-login-by-key")


async def test_without_the_dashboard_there_are_no_sessions(tmp_path: Path) -> None:
    key, text = an_entry()
    (path := tmp_path / "keys.toml").write_text(text)
    async with open_edge(authenticator=KeyRing(path, ManualClock(NOW_MS), PrometheusTelemetry())) as edge:
        bearer = {"Authorization": f"Bearer {key}"}
        assert (await edge.ask("POST", "/session", json={"key": key}, headers=bearer)).status == 404
        assert (await edge.ask("GET", "/me", headers=bearer)).json["name"] == "shop"


async def test_where_no_key_is_needed_anyone_is_told_so() -> None:
    async with open_edge() as edge:
        me = (await edge.ask("GET", "/me")).json
        assert (me["name"], me["auth"], me["clients"], me["topics"]) == ("anyone", "none", ["*"], ["*"])
        assert me["rights"] == sorted(right.value for right in Right)


# --- sessions after a login at an issuer


def test_a_session_without_an_entry_holds_what_was_granted_and_ends_with_the_token() -> None:
    clock = ManualClock(NOW_MS)
    sessions = Sessions(UiSettings(), clock, keys=None, https=True)
    principal = Principal(
        name="ana",
        clients=names_of(["shop-*", "a"]),
        topics=names_of(["*"]),
        rights=frozenset({Right.READ, Right.OPERATE}),
        redacted=True,
    )
    cookie = sessions.cookie_of(sessions.for_principal(principal, ends_at_ms=NOW_MS + 60_000))
    assert sessions.admit(cookie)[1] == principal
    clock.advance_ms(60_000)
    with pytest.raises(Unauthenticated):
        sessions.admit(cookie)


def test_claims_that_no_browser_would_keep_are_refused() -> None:
    sessions = Sessions(UiSettings(), ManualClock(NOW_MS), keys=None, https=True)

    def begin(clients: int) -> int:
        names = names_of([f"client-{number:04}" for number in range(clients)])
        principal = Principal(name="a", clients=names, topics=names_of([]), rights=frozenset())
        return len(sessions.cookie_of(sessions.for_principal(principal, ends_at_ms=NOW_MS + 1)))

    assert begin(150) < sessions_module.COOKIE_BYTES_MAX
    with pytest.raises(TooManyGrants):
        begin(400)


def test_what_is_granted_is_written_as_the_claims_are() -> None:
    principal = a_principal(Right.READ, clients="shop-*")
    assert Granted.of(principal).clients == ["shop-*"]
