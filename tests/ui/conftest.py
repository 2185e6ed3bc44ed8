"""Fixtures of the dashboard's tests: a browser for all of them, and for each a node in memory and a window of its own."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright

from clockwork.access.gate import Gate
from clockwork.clock import SystemClock
from clockwork.http.sessions import ClusterInfo
from clockwork.http.ui import UiPages
from clockwork.observability.activity import RecordingTelemetry
from clockwork.settings.model import UiSettings
from tests.support.clocks import ManualClock
from tests.support.engine import Engine
from tests.unit.service import Service, open_service

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
WAIT_MS: Final = int(os.environ.get("CLOCKWORK_UI_WAIT_MS", "15000"))
"""Time for the browser to show something, on a busy machine."""


def chromium() -> str:
    """The browser: `CLOCKWORK_CHROMIUM`, or the first of the usual names that is installed."""
    named = os.environ.get("CLOCKWORK_CHROMIUM")
    found = [named] if named else [path for path in map(shutil.which, NAMES) if path is not None]
    if not found or not Path(found[0]).exists():
        pytest.fail("no Chromium: install Debian's package chromium, or name one by CLOCKWORK_CHROMIUM")
    return found[0]


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(
            executable_path=chromium(),
            args=["--disable-background-networking", "--disable-component-update", "--no-sandbox", "--disable-gpu"],
        )
        yield opened
        await opened.close()


class Window:
    """A tab of the browser, and what went wrong in it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.messages: list[str] = []
        page.set_default_timeout(WAIT_MS)
        page.on("console", self._told)
        page.on("pageerror", lambda error: self.messages.append(f"error: {error}"))

    def _told(self, message: ConsoleMessage) -> None:
        self.messages.append(f"{message.type}: {message.text}")

    async def open(self, path: str) -> None:
        """Goes to a page, such as `/schedules?client=shop`."""
        await self.page.goto(f"{self.url}/ui{path}")

    async def heading(self, text: str) -> None:
        """Waits for the page with this heading."""
        await self.page.get_by_role("heading", level=1, name=text, exact=True).wait_for()

    async def until_rows(self, *names: str) -> None:
        """Waits until the page's table has these rows, by their names and in this order."""
        await self.page.wait_for_function(
            "(names) => JSON.stringify([...document.querySelectorAll('main tbody th')].map((each) => each.innerText.trim()))"
            " === JSON.stringify(names)",
            arg=list(names),
        )

    async def focus_is(self, text: str) -> None:
        """Waits until the focus is on the element with this text."""
        await self.page.wait_for_function("(text) => document.activeElement?.innerText?.trim() === text", arg=text)

    async def settled(self) -> None:
        """Waits until nothing on the page is being read."""
        await self.page.wait_for_function(
            "() => document.querySelector('main h1') && !document.querySelector('[aria-busy=true]')"
        )

    def quiet(self, *expected: str) -> None:
        """Asserts that the page has reported nothing, but for messages that contain one of these."""
        told = [each for each in self.messages if not any(part in each for part in expected)]
        assert told == []


@asynccontextmanager
async def opened(browser: Browser, url: str, **options: Any) -> AsyncIterator[Window]:
    """A window on a service, in a profile of its own."""
    settings: dict[str, Any] = {"viewport": {"width": 1440, "height": 900}, "timezone_id": "Europe/Berlin"}
    context = await browser.new_context(**{**settings, "locale": "en-GB", **options})
    try:
        yield Window(await context.new_page(), url)
    finally:
        await context.close()


def real_engine(**settings: Any) -> Engine:
    """The engine with a clock that begins now: the page compares it with the browser's."""
    return Engine(clock=ManualClock(SystemClock().now_ms()), telemetry=RecordingTelemetry(), **settings)


@asynccontextmanager
async def ui_service(
    engine: Engine | None = None,
    *,
    gate: Gate | None = None,
    auth: Literal["none", "keys"] = "none",
    banner: str | None = None,
) -> AsyncIterator[Service]:
    """A node in memory with the dashboard."""
    pages = UiPages(UiSettings(banner=banner), auth=auth, https=False)
    cluster_info = ClusterInfo(auth=auth, cluster="clockwork", banner=banner)
    async with open_service(engine or real_engine(), gate=gate, ui=pages, cluster_info=cluster_info) as service:
        yield service


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with ui_service() as running:
        yield running


@pytest.fixture
async def window(browser: Browser, service: Service) -> AsyncIterator[Window]:
    async with opened(browser, service.url) as one:
        yield one
