"""Content of strangers, in every place that shows some: it stays text, whole and unrounded."""

import json
from typing import Any, Final
from urllib.parse import urlencode

import pytest
from playwright.async_api import Dialog

from tests.support import builders
from tests.ui.asking import HOUR_MS, asked, create, rows
from tests.ui.conftest import Window
from tests.unit.service import Service

MARKUP: Final = '"><img src=x onerror=alert(1)><script>alert(2)</script>'
KEYS: Final = (
    MARKUP,
    "javascript:alert(3)",
    "..",
    ".",
    "../../admin/shards",
    "a%2e%2e%2fb",
    "a?b=c&d#e",
    "left\u202eright\u2066",
    "bell\u0007 and\u200bzero",
    "${alert(4)} {{7*7}}",
    "k" * 512,
)
SHOWN: Final = {
    "left\u202eright\u2066": "leftU+202ErightU+2066",
    "bell\u0007 and\u200bzero": "bellU+0007 andU+200Bzero",
}
LARGE: Final = 12_345_678_901_234_567_890
DATA: Final = {"html": MARKUP, "large": LARGE, "exact": 0.1, "turned": "\u202eevil", "__proto__": {"constructor": 1}}


@pytest.fixture
async def dialogs(window: Window) -> list[str]:
    """Messages that a script of a stranger's would have opened."""
    opened: list[str] = []

    async def dismiss(dialog: Dialog) -> None:
        opened.append(dialog.message)
        await dialog.dismiss()

    window.page.on("dialog", dismiss)
    return opened


async def test_keys_of_strangers_are_text_in_the_list_and_lead_to_their_schedules(
    service: Service, window: Window, dialogs: list[str]
) -> None:
    await create(service, *KEYS, taskData=DATA)
    await window.open("/schedules?client=shop")
    await window.until_rows(*(SHOWN.get(key, key) for key in KEYS))
    for number, key in enumerate(KEYS):
        await rows(window).nth(number).locator("th a").click()
        await window.page.locator("h1 bdi").wait_for()
        assert await window.page.locator("h1").inner_text() == SHOWN.get(key, key)
        await window.page.get_by_text("What was asked for").wait_for()
        await window.page.go_back()
        await window.until_rows(*(SHOWN.get(each, each) for each in KEYS))
    assert dialogs == []
    window.quiet()


async def test_what_a_browser_cannot_name_in_a_path_is_cancelled_all_the_same(service: Service, window: Window) -> None:
    await create(service, "..", ".")
    await window.open("/schedule?client=shop&key=..")
    await window.page.get_by_role("button", name="Cancel…").click()
    await window.page.get_by_role("button", name="Cancel 1 schedule", exact=True).click()
    await window.page.get_by_text("1 of 1 answered.").wait_for()
    await window.page.get_by_role("button", name="Close").click()
    await window.page.locator(".why .status-cancelled").wait_for()
    found = await asked(service, "POST", "/schedules/get", {"schedules": [{"clientId": "shop", "scheduleKey": "."}]})
    assert found["results"][0]["schedule"]["status"] == "pending"


@pytest.mark.parametrize("tab", ["", "content", "history", "curl"])
async def test_content_of_strangers_is_text_on_every_part_of_a_schedule(
    service: Service, window: Window, dialogs: list[str], tab: str
) -> None:
    headers = {MARKUP[:100]: MARKUP, "plain": "\u202eturned"}
    await create(
        service, "one", taskData=DATA, orderingKey=MARKUP, delivery={"topic": builders.TOPIC, "headers": headers}
    )
    await window.open(f"/schedule?client=shop&key=one&tab={tab}")
    await window.page.get_by_role("navigation", name="Parts of this schedule").wait_for()
    await window.settled()
    assert await window.page.locator("main img, main script").count() == 0
    if tab == "content":
        text = await window.page.get_by_role("group", name="Content").inner_text()
        assert str(LARGE) in text
        assert json.dumps(MARKUP) in text
        assert "U+202Eevil" in text
    assert dialogs == []
    window.quiet()


async def test_a_large_content_is_shown_up_to_a_limit_which_is_said_and_can_be_saved_whole(
    service: Service, window: Window
) -> None:
    await create(service, "one", taskData="x" * 200_000)
    await window.open("/schedule?client=shop&key=one&tab=content")
    await window.page.get_by_text("The first 64 KiB of 196.").wait_for()
    async with window.page.expect_download() as saving:
        await window.page.get_by_role("button", name="Download all").click()
    path = await (await saving.value).path()
    assert json.loads(path.read_text()) == "x" * 200_000
    window.quiet()


async def test_an_edited_content_is_sent_as_it_was_typed(service: Service, window: Window) -> None:
    await create(service, "one", taskData={"n": LARGE})
    await window.open("/schedule?client=shop&key=one")
    await window.page.get_by_role("button", name="Change…").click()
    content = window.page.get_by_label("Content (JSON)")
    assert str(LARGE) in await content.input_value()
    await content.fill(f'{{"n": {LARGE + 1}}}')
    await window.page.get_by_role("button", name="Change it").click()
    await window.page.get_by_role("dialog").wait_for(state="detached")
    assert (await asked(service, "GET", "/schedule/shop/one"))["taskData"] == {"n": LARGE + 1}


async def test_jobs_and_dead_letters_of_strangers_are_text(
    service: Service, window: Window, dialogs: list[str]
) -> None:
    late: dict[str, Any] = {"topic": builders.TOPIC, "deadline": 0, "onLate": "dead_letter"}
    await create(service, MARKUP, taskData=DATA, orderingKey=MARKUP, delivery={**late, "headers": {"h": MARKUP}})
    service.engine.clock.advance_ms(2 * HOUR_MS)
    await service.deliver()
    trigger = {"type": "fixed_rate", "everyMs": HOUR_MS}
    job = {
        "clientId": "shop",
        "jobId": MARKUP,
        "description": MARKUP,
        "labels": {MARKUP: MARKUP},
        "trigger": trigger,
        "taskData": DATA,
        "delivery": {"topic": builders.TOPIC, "headers": {"h": MARKUP}},
    }
    await asked(service, "POST", "/jobs", job)
    await window.open("/dead-letters")
    await window.until_rows(f"shop/{MARKUP}")
    await rows(window).locator("th a").click()
    await window.page.get_by_role("dialog").get_by_text(str(LARGE)).wait_for()
    await window.open("/jobs?client=shop")
    await rows(window).get_by_text(MARKUP).first.wait_for()
    for tab in ("", "runs", "content", "versions", "curl"):
        await window.open(f"/job?{urlencode({'client': 'shop', 'job': MARKUP, 'tab': tab})}")
        await window.heading(MARKUP)
        await window.settled()
    assert await window.page.locator("main img, main script").count() == 0
    assert dialogs == []
    window.quiet()
