"""Who the reader is, and what they may do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.async_api import Browser

from clockwork.access.gate import Gate
from clockwork.access.keys import KeyRing
from clockwork.access.sessions import Sessions
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import UiSettings
from tests.support import builders
from tests.support.issuer import Issuer, running_issuer
from tests.ui.asking import rows
from tests.ui.conftest import Window, opened, real_engine, ui_service
from tests.unit.service import Service
from tests.unit.test_api_keys import an_entry
from tests.unit.test_ui_login import a_browser

RIGHTS = ["read", "cancel", "operate", "create"]
REFUSED = "401 (Unauthorized)"
"""The browser's own message about a request without a session."""


@dataclass
class Keyed:
    """A node with keys, one of which is a person's."""

    service: Service
    key: str
    file: Path
    ring: KeyRing


@asynccontextmanager
async def keyed(folder: Path, *rights: str, **entry: object) -> AsyncIterator[Keyed]:
    given = {"rights": list(rights), "clients": ["shop"], "topics": [builders.TOPIC], **entry}
    key, text = an_entry("ana", **given)
    file = folder / "keys.toml"
    file.write_text(text)
    engine = real_engine()
    ring = KeyRing(file, engine.clock, NoTelemetry())
    sessions = Sessions(UiSettings(), engine.clock, keys=ring, https=False)
    gate = Gate(ring, NoTelemetry(), sessions)
    async with ui_service(engine, gate=gate, auth="keys") as service:
        yield Keyed(service, key, file, ring)


async def log_in(window: Window, key: str) -> None:
    dialog = window.page.get_by_role("dialog", name="Log in")
    await dialog.get_by_label("API key").fill(key)
    await dialog.get_by_role("button", name="Log in").click()
    await dialog.wait_for(state="detached")


async def test_without_keys_a_banner_says_that_anyone_may_do_anything(window: Window) -> None:
    await window.open("/schedules")
    await window.page.get_by_text("anyone who reaches this node may do anything here").wait_for()


async def test_a_login_lies_over_the_page_which_is_there_afterwards_with_its_form(
    browser: Browser, tmp_path: Path
) -> None:
    async with keyed(tmp_path, *RIGHTS) as node, opened(browser, node.service.url) as window:
        await window.open("/new?client=shop")
        await window.page.get_by_role("dialog", name="Log in").wait_for()
        await log_in(window, node.key)
        await window.heading("New schedule")
        await window.page.get_by_label("Schedule key").fill("order-1")
        # The key is replaced while the form is open: its session has ended.
        key, text = an_entry("ana", rights=RIGHTS, clients=["shop"], topics=[builders.TOPIC])
        node.file.write_text(text)
        await node.ring.reload()
        await window.page.get_by_label("Topic").fill(builders.TOPIC)
        await window.page.get_by_role("button", name="Create", exact=True).click()
        await log_in(window, key)
        assert await window.page.get_by_label("Schedule key").input_value() == "order-1"
        await window.page.get_by_role("button", name="Create", exact=True).click()
        await window.page.get_by_text("Created, and durable.").wait_for()
        window.quiet(REFUSED)


async def test_a_wrong_key_is_told_and_the_right_one_goes_on_where_the_reader_was(
    browser: Browser, tmp_path: Path
) -> None:
    async with keyed(tmp_path, *RIGHTS) as node, opened(browser, node.service.url) as window:
        await window.open("/schedules?client=shop")
        dialog = window.page.get_by_role("dialog", name="Log in")
        await dialog.get_by_label("API key").fill("cw_wrong")
        await dialog.get_by_role("button", name="Log in").click()
        await dialog.get_by_role("alert").get_by_text("A key is needed").wait_for()
        # Chromium closes a dialog by itself at the third time.
        for _ in range(4):
            await window.page.keyboard.press("Escape")
        await log_in(window, node.key)
        await window.heading("Schedules")
        await window.page.get_by_text("This client has no schedules.").wait_for()
        window.quiet(REFUSED)


async def test_what_the_key_does_not_cover_is_there_and_off_with_its_reason(browser: Browser, tmp_path: Path) -> None:
    async with keyed(tmp_path, "read") as node, opened(browser, node.service.url) as window:
        await window.open("/new?client=shop")
        await log_in(window, node.key)
        create = window.page.get_by_role("button", name="Create")
        await window.page.locator("form .primary[title='needs the right create']").wait_for()
        assert await create.get_attribute("aria-disabled") == "true"
        await window.open("/cluster")
        await window.page.get_by_text("You may not see this").first.wait_for()
        assert await rows(window).count() == 0


async def test_after_logging_out_the_page_asks_again(browser: Browser, tmp_path: Path) -> None:
    async with keyed(tmp_path, *RIGHTS) as node, opened(browser, node.service.url) as window:
        await window.open("/schedules?client=shop")
        await log_in(window, node.key)
        await window.page.locator("summary").get_by_text("ana").click()
        await window.page.get_by_text("cancel, create, operate, read").wait_for()
        await window.page.get_by_role("button", name="Log out").click()
        await window.page.get_by_role("dialog", name="Log in").wait_for()
        await window.page.reload()
        await window.page.get_by_role("dialog", name="Log in").wait_for()


@pytest.mark.parametrize("logs_out", [True, False])
async def test_who_logs_in_next_is_shown_nothing_that_the_one_before_has_read(
    browser: Browser, tmp_path: Path, logs_out: bool
) -> None:
    async with keyed(tmp_path, *RIGHTS) as node, opened(browser, node.service.url) as window:
        await window.open("/new?client=shop")
        await log_in(window, node.key)
        await window.page.get_by_label("Schedule key").fill("private")
        await window.page.get_by_label("Topic").fill(builders.TOPIC)
        await window.page.get_by_role("button", name="Create", exact=True).click()
        await window.page.get_by_role("link", name="shop/private").click()
        await window.heading("private")
        key, text = an_entry("ben", rights=["read"], clients=["bank"], topics=[])
        if logs_out:
            node.file.write_text(node.file.read_text() + text)
            await window.page.locator("summary").get_by_text("ana").click()
            await window.page.get_by_role("button", name="Log out").click()
        else:  # their session ends
            node.file.write_text(text)
            await node.ring.reload()
            await window.page.get_by_role("button", name="Refresh").first.click()
        await window.page.get_by_role("dialog", name="Log in").wait_for()
        assert (await window.page.get_by_text("What was asked for").count() == 0) is logs_out
        await node.ring.reload()
        await log_in(window, key)
        await window.page.locator("summary").get_by_text("ben").wait_for()
        assert await window.page.get_by_text("What was asked for").count() == 0


async def test_a_redacted_key_sees_that_content_is_not_shown(browser: Browser, tmp_path: Path) -> None:
    async with keyed(tmp_path, *RIGHTS, redacted=True) as node, opened(browser, node.service.url) as window:
        await window.open("/new?client=shop")
        await log_in(window, node.key)
        page = window.page
        await page.get_by_label("Schedule key").fill("one")
        await page.get_by_label("Topic").fill(builders.TOPIC)
        await page.get_by_role("button", name="Create", exact=True).click()
        await page.get_by_role("link", name="shop/one").click()
        await page.get_by_role("link", name="Content", exact=True).click()
        await page.get_by_text("Content is not shown to you.").wait_for()


async def test_a_login_at_the_issuer_comes_back_to_where_the_reader_was(browser: Browser) -> None:
    issuer = Issuer()
    async with (
        running_issuer(issuer),
        a_browser(issuer) as node,
        opened(browser, f"http://127.0.0.1:{node.edge.server.port}") as window,
    ):
        await window.open("/schedules?client=shop&status=failed")
        await window.page.get_by_role("link", name="Log in with your organisation").click()
        await window.page.wait_for_url("**/ui/schedules?client=shop&status=failed")
        await window.heading("Schedules")
        await window.page.locator(".person-name").wait_for()
        await window.open("/?login=refused")
        assert await window.page.get_by_role("dialog").count() == 0


@pytest.mark.parametrize(("theme", "ground"), [("dark", "rgb(19, 23, 24)"), ("light", "rgb(246, 247, 247)")])
async def test_a_theme_that_was_chosen_is_there_at_the_first_paint_of_the_next_page(
    window: Window, theme: str, ground: str
) -> None:
    await window.open("/")
    await window.page.locator("summary").first.click()
    await window.page.get_by_label(theme.capitalize(), exact=True).check()
    await window.page.reload()
    assert await window.page.get_attribute("html", "data-theme") == theme
    assert await window.page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == ground


async def test_a_time_zone_is_in_the_address_and_remembered(window: Window) -> None:
    await window.open("/schedules")
    await window.page.locator("summary").first.click()
    await window.page.get_by_label("UTC", exact=True).check()
    await window.page.wait_for_url("**/schedules?tz=UTC")
    await window.page.get_by_role("link", name="Cluster").click()
    await window.page.wait_for_url("**/cluster?tz=UTC")
    await window.open("/schedules")
    await window.page.locator("summary").get_by_text("UTC").wait_for()
