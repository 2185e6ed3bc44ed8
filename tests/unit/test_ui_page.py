"""The dashboard's page: its shell, its files, and the headers that go with them."""

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from clockwork.errors import CannotStart
from clockwork.http.ui import UiPages, read_links
from clockwork.settings.model import UiSettings
from tests.unit.api_edge import Edge, open_edge

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "font-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'self'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}


def pages(*, auth: str = "keys", https: bool = False, **settings: Any) -> UiPages:
    return UiPages(UiSettings(**settings), auth=auth, https=https)


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with open_edge(ui=pages()) as opened:
        yield opened


def assets_in(shell: bytes) -> list[str]:
    return re.findall(r'(?:src|href)="([^"]+)"', shell.decode())


@pytest.mark.parametrize("path", ["/ui/", "/ui/schedules", "/ui/schedule?client=a&key=..%2F%3Cb%3E", "/ui/a/b"])
async def test_every_page_is_the_shell_which_is_asked_for_anew_each_time(edge: Edge, path: str) -> None:
    answer = await edge.ask("GET", path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["Cache-Control"] == "no-cache"
    assert b"<b>" not in answer.body
    again = await edge.ask("GET", path, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")


async def test_shell_and_files_carry_the_policy_and_isolate_the_page(edge: Edge) -> None:
    shell = await edge.ask("GET", "/ui/")
    for answer in (shell, await edge.ask("GET", assets_in(shell.body)[0])):
        directives = (each.strip().partition(" ") for each in answer.headers["Content-Security-Policy"].split(";"))
        assert {name: value for name, _, value in directives} == POLICY
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        features = answer.headers["Permissions-Policy"].split(", ")
        assert "camera=()" in features
        assert all(each.endswith("=()") for each in features)
        assert "Strict-Transport-Security" not in answer.headers


async def test_the_files_that_the_shell_names_are_kept_by_browsers_and_sent_compressed(edge: Edge) -> None:
    for path in assets_in((await edge.ask("GET", "/ui/")).body):
        plain = await edge.ask("GET", path, headers={"Accept-Encoding": "identity"})
        assert (plain.status, plain.headers["Cache-Control"]) == (200, "public, max-age=31536000, immutable"), path
        assert plain.headers["Vary"] == "Accept-Encoding"
        packed = await edge.ask("GET", path, headers={"Accept-Encoding": "br, gzip"})
        if packed.headers.get("Content-Encoding") == "gzip":
            assert gzip.decompress(packed.body) == plain.body
        refused = await edge.ask("GET", path, headers={"Accept-Encoding": "gzip;q=0"})
        assert "Content-Encoding" not in refused.headers


async def test_a_file_under_the_digest_of_another_release_is_answered_and_not_kept(edge: Edge) -> None:
    answer = await edge.ask("GET", "/ui/assets/0123456789abcdef/app.js")
    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")


@pytest.mark.parametrize(
    "file", ["none.js", "index.html", "__init__.py", "vendor/preact.d.ts", "..%2fhttp%2fui.py", "%2e%2e/http/ui.py"]
)
async def test_nothing_but_the_pages_files_is_served(edge: Edge, file: str) -> None:
    assert (await edge.ask("GET", f"/ui/assets/0123456789abcdef/{file}")).status == 404


@pytest.mark.parametrize("path", ["/", "/ui"])
async def test_the_addresses_that_people_type_lead_to_the_page(path: str) -> None:
    async with open_edge(ui=pages(url="https://ops.example/clockwork/")) as edge:
        answer = await edge.ask("GET", path, allow_redirects=False)
        assert (answer.status, answer.headers["Location"]) == (307, "/clockwork/ui/")


async def test_behind_a_path_prefix_the_shell_names_its_files_below_it(edge: Edge) -> None:
    async with open_edge(ui=pages(url="https://ops.example/clockwork")) as prefixed:
        shell = (await prefixed.ask("GET", "/ui/")).body
        assert b'data-base="/clockwork"' in shell
        assert all(path.startswith("/clockwork/ui/assets/") for path in assets_in(shell))
    assert b'data-base=""' in (await edge.ask("GET", "/ui/")).body


@pytest.mark.parametrize(
    ("cookie", "theme"), [(None, "auto"), ("theme=dark", "dark"), ("theme=light", "light"), ('theme="><b>', "auto")]
)
async def test_the_theme_of_the_cookie_is_there_before_the_first_paint(
    edge: Edge, cookie: str | None, theme: str
) -> None:
    answer = await edge.ask("GET", "/ui/", headers={} if cookie is None else {"Cookie": cookie})
    assert f'data-theme="{theme}"'.encode() in answer.body
    assert answer.headers["Vary"] == "Cookie"


async def test_what_an_operator_writes_into_the_settings_is_text_in_the_shell() -> None:
    async with open_edge(ui=pages(banner='"><script>alert(1)</script>', cluster="jobs", auth="oidc")) as edge:
        shell = (await edge.ask("GET", "/ui/")).body
        assert b'data-banner="&quot;&gt;&lt;script&gt;' in shell
        assert b'data-cluster="jobs"' in shell
        assert b'data-auth="oidc"' in shell


async def test_under_https_browsers_are_told_to_stay_there() -> None:
    async with open_edge(ui=pages(https=True)) as edge:
        answer = await edge.ask("GET", "/ui/")
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"


async def test_without_the_dashboard_its_paths_do_not_exist() -> None:
    async with open_edge() as edge:
        for path in ("/", "/ui/", "/ui/assets/0123456789abcdef/app.js"):
            assert (await edge.ask("GET", path)).status == 404


# --- links to other places


def test_links_elsewhere_come_from_a_file_and_say_what_they_need(tmp_path: Path) -> None:
    (path := tmp_path / "links.toml").write_text(
        'topic = "https://kafka.example/topics/{topic}"\n'
        'record = "https://kafka.example/{topic}?partition={partition}&offset={offset}"\n'
        'trace = "http://traces/{traceId}"\n'
    )
    assert read_links(path)["trace"] == "http://traces/{traceId}"
    assert read_links(None) == {}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('other = "https://a"', "other"),
        ("topic = 1", "topic"),
        ('topic = "javascript:alert({topic})"', "topic"),
        ('topic = "//a/{topic}"', "topic"),
        ('topic = "https://a/{offset}"', "topic"),
        ('trace = "https://a/{}"', "trace"),
        ('trace = "https://a/{traceId"', "expected"),
        ('trace = "https://a/\\u0000"', "trace"),
        ("topic", "Expected"),
    ],
)
def test_a_wrong_link_stops_the_start_with_its_name(tmp_path: Path, text: str, named: str) -> None:
    (path := tmp_path / "links.toml").write_text(text)
    with pytest.raises(CannotStart, match=f"CLOCKWORK_UI_LINKS.*{named}"):
        read_links(path)


def test_a_file_of_links_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="No such file"):
        read_links(tmp_path / "none")
