"""Pictures of every page at three widths and in both themes, for people to look at: in ui-results/, not compared.

Nothing is asserted but that each page has its heading, no part of it is wider than the window, and no table is cut.
"""

import os
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import Browser

from tests.ui.conftest import opened
from tests.ui.scene import PAGES, a_scene

RESULTS: Final = Path(__file__).parents[2] / "ui-results"
DOCS: Final = Path(__file__).parents[2] / "docs/pictures"
WIDTHS: Final = {"wide": (1440, 900), "middle": (768, 1024), "narrow": (360, 740)}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
async def test_each_page_fits_its_window(browser: Browser, width: str, theme: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    size = dict(zip(("width", "height"), WIDTHS[width], strict=True))
    async with a_scene() as service, opened(browser, service.url, viewport=size, color_scheme=theme) as window:
        for name, path, heading in PAGES:
            await window.open(path)
            await window.heading(heading)
            await window.settled()
            await window.page.screenshot(path=RESULTS / f"{name}-{width}-{theme}.png", full_page=True)
            assert await window.page.evaluate("document.documentElement.scrollWidth") <= size["width"], name


async def test_no_table_is_cut_on_a_small_laptop(browser: Browser) -> None:
    cut = "() => [...document.querySelectorAll('.table-box')].filter((box) => box.scrollWidth > box.clientWidth)"
    async with a_scene() as service, opened(browser, service.url, viewport={"width": 1280, "height": 800}) as window:
        for name, path, heading in PAGES:
            await window.open(path)
            await window.heading(heading)
            await window.settled()
            names = await window.page.evaluate(f"({cut})().map((box) => box.getAttribute('aria-label'))")
            assert names == [], name


@pytest.mark.skipif("CLOCKWORK_UI_PICTURES" not in os.environ, reason="writes docs/pictures")
async def test_the_documentation_has_pictures_of_the_present_pages(browser: Browser) -> None:
    DOCS.mkdir(exist_ok=True)
    size = {"width": 1200, "height": 720}
    async with a_scene() as service, opened(browser, service.url, viewport=size, color_scheme="light") as window:
        page = window.page
        await window.open("/")
        await window.settled()
        await page.get_by_role("application", name="Deliveries by time and lateness").wait_for()
        await page.screenshot(path=DOCS / "overview.png", full_page=True)
        await window.open("/schedule?client=billing&key=overdue")
        await page.get_by_role("region", name="State, and why").wait_for()
        await page.screenshot(path=DOCS / "schedule.png")
        await window.open("/new-job?client=shop")
        await page.get_by_label("Cron expression").fill("30 2 * MAR SUN")
        await page.locator(".fires .moved").first.wait_for()
        await page.screenshot(path=DOCS / "new-job.png")
        await window.open("/schedules?client=shop&status=pending")
        for number in range(3):
            await page.locator("tbody tr").nth(number).get_by_role("checkbox").check()
        await page.get_by_role("button", name="Cancel…").click()
        await page.get_by_role("dialog").wait_for()
        await page.screenshot(path=DOCS / "cancel.png")
