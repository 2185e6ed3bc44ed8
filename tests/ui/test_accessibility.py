"""Every page for everybody: axe finds nothing in both themes and on a narrow window, and the page fits into 320 px."""

from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Browser

from tests.ui.conftest import Window, opened
from tests.ui.scene import PAGES, a_scene

AXE: Final = (Path(__file__).parent / "vendor/axe.js").read_text()
RULES: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_RUN: Final = """async (tags) => (await axe.run(document, {runOnly: tags})).violations.map(
    (each) => each.id + ": " + each.nodes.map((node) => node.html + " " + node.failureSummary).join(" | "))"""


async def violations(window: Window) -> list[str]:
    """The findings of axe on the page as it is. The script is evaluated by the browser's tools, past the page's policy."""
    await window.page.evaluate(AXE)
    found: list[Any] = await window.page.evaluate(_RUN, RULES)
    return [str(each) for each in found]


@pytest.mark.parametrize(
    ("theme", "width"), [("light", 1440), ("dark", 1440), ("light", 320)], ids=["light", "dark", "narrow"]
)
async def test_axe_finds_nothing_on_any_page(browser: Browser, theme: str, width: int) -> None:
    size = {"width": width, "height": 800}
    async with a_scene() as service, opened(browser, service.url, viewport=size, color_scheme=theme) as window:
        found: list[str] = []
        for name, path, heading in PAGES:
            await window.open(path)
            await window.heading(heading)
            await window.settled()
            found += [f"{name}: {each}" for each in await violations(window)]
            assert await window.page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert not found, "\n".join(found)
        window.quiet()
