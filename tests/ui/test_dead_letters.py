"""Dead letters in the dashboard."""

import json
from typing import Any

from playwright.async_api import Route

from tests.support import builders
from tests.ui.asking import HOUR_MS, asked, create, rows
from tests.ui.conftest import Window
from tests.unit.service import Service

LATE: dict[str, Any] = {"topic": builders.TOPIC, "deadline": 0, "onLate": "dead_letter"}


async def give_up(service: Service, *keys: str) -> None:
    """Brings schedules to an end as failed, each with a dead letter."""
    await create(service, *keys, delivery=LATE)
    service.engine.clock.advance_ms(2 * HOUR_MS)
    await service.deliver()


async def test_ten_dead_letters_are_selected_and_retried_with_the_keyboard_alone(
    service: Service, window: Window
) -> None:
    await give_up(service, *(f"order-{number:02}" for number in range(12)))
    await window.open("/dead-letters")
    await rows(window).nth(11).wait_for()
    keyboard = window.page.keyboard
    for _ in range(10):
        await keyboard.press("j")
        await keyboard.press("x")
    await keyboard.press(".")
    await window.focus_is("Retry…")
    await keyboard.press("Enter")
    await window.page.get_by_role("dialog", name="Retry 10 dead letters?").wait_for()
    await window.focus_is("Do nothing")
    await keyboard.press("Tab")
    await keyboard.press("Enter")
    await window.page.get_by_text("10 of 10 answered.").wait_for()
    await window.focus_is("Close")
    await keyboard.press("Enter")
    page = await asked(service, "GET", "/schedules?clientId=shop&status=pending")
    assert len(page["schedules"]) == 10
    window.quiet()


async def test_a_dead_letter_is_looked_at_and_discarded(service: Service, window: Window) -> None:
    await give_up(service, "one")
    await window.open("/dead-letters")
    await window.until_rows("shop/one")
    await window.page.get_by_role("link", name="shop/one").click()
    letter = window.page.get_by_role("dialog", name="shop/one")
    await letter.get_by_text("Kafka partition").wait_for()
    await letter.get_by_role("button", name="Discard…").click()
    await window.page.get_by_role("button", name="Discard 1 dead letter", exact=True).click()
    await window.page.get_by_text("1 of 1 answered.").wait_for()
    await window.page.get_by_role("dialog").last.get_by_role("button", name="Close").click()
    await window.page.get_by_text("No dead letter is open.").wait_for()
    window.quiet()


async def test_letters_of_a_schedule_and_of_a_jobs_run_are_retried_together(service: Service, window: Window) -> None:
    job = {"clientId": "shop", "jobId": "report", "trigger": {"type": "fixed_rate", "everyMs": 6 * HOUR_MS}}
    await asked(
        service, "POST", "/jobs", {**job, "taskData": {"n": 1}, "delivery": LATE, "misfire": {"policy": "fire_once"}}
    )
    await create(service, "one", delivery=LATE)
    service.engine.clock.advance_ms(7 * HOUR_MS)
    await service.deliver()
    await window.open("/dead-letters")
    await rows(window).nth(1).wait_for()
    await window.page.get_by_label("Select this page").check()
    await window.page.get_by_role("button", name="Retry…").first.click()
    await window.page.get_by_role("button", name="Retry 2 dead letters").click()
    await window.page.get_by_text("2 of 2 answered.").wait_for()
    await (
        window.page.get_by_role("dialog")
        .locator("tbody tr")
        .filter(has_text="pending again")
        .get_by_text("2")
        .wait_for()
    )
    runs = (await asked(service, "GET", "/jobs/shop/report/logs"))["runs"]
    assert [each["status"] for each in runs if each["kind"] == "manual"] == ["armed"]
    window.quiet()


async def test_an_offset_that_no_double_holds_is_shown_and_sent_as_it_was_written(
    service: Service, window: Window
) -> None:
    # 2^53 + 1: rounded, it would be ...992, the place of another letter.
    offset = 9_007_199_254_740_993
    letter = {
        "deadLetterTopic": "clockwork-dead-letters",
        "partition": 3,
        "offset": offset,
        "at": service.engine.clock.now_ms(),
        "open": True,
        "clientId": "shop",
        "scheduleKey": "report",
        "deliveryId": "d-1",
        "jobId": "report",
        "runId": "s1",
        "reason": "record_too_large",
    }
    sent: list[str] = []

    async def retried(route: Route) -> None:
        sent.append(route.request.post_data or "")
        result = {"status": 201, "run": {"runId": "m1", "delivered": {"offset": offset}}}
        await route.fulfill(json={"results": [result]})

    await window.page.route(
        "**/admin/dead-letters?*", lambda route: route.fulfill(json={"deadLetters": [letter], "cursor": None})
    )
    await window.page.route("**/admin/dead-letters/retry", retried)
    await window.open("/dead-letters")
    await window.page.get_by_role("link", name="shop/report").click()
    shown = window.page.get_by_role("dialog", name="shop/report")
    await shown.get_by_text(f"Kafka partition 3, offset {offset}").wait_for()
    await shown.get_by_role("button", name="Retry…").click()
    await window.page.get_by_role("button", name="Retry 1 dead letter", exact=True).click()
    await window.page.get_by_text("1 of 1 answered.").wait_for()
    async with window.page.expect_download() as download:
        await window.page.get_by_role("button", name="Download the answers").click()

    (body,) = sent
    assert json.loads(body)["deadLetters"] == [
        {
            "clientId": "shop",
            "jobId": "report",
            "deliveryId": "d-1",
            "deadLetterTopic": "clockwork-dead-letters",
            "partition": 3,
            "offset": offset,
        }
    ]
    saved = json.loads((await (await download.value).path()).read_text())
    assert saved["result"]["run"]["delivered"]["offset"] == saved["item"]["offset"] == offset
    window.quiet()


async def test_a_long_letter_opens_at_its_top_with_its_buttons_in_view(service: Service, window: Window) -> None:
    await window.page.set_viewport_size({"width": 1280, "height": 500})
    await create(service, "one", delivery=LATE, taskData={f"field-{number}": number for number in range(150)})
    service.engine.clock.advance_ms(2 * HOUR_MS)
    await service.deliver()
    await window.open("/dead-letters")
    await window.page.get_by_role("link", name="shop/one").click()
    letter = window.page.get_by_role("dialog", name="shop/one")
    await letter.get_by_text("field-149").wait_for()
    await window.focus_is("Close")
    assert await letter.evaluate("(dialog) => [dialog.scrollTop, dialog.scrollHeight > 2 * dialog.clientHeight]") == [
        0,
        True,
    ]
    button = await letter.get_by_role("button", name="Close").bounding_box()
    assert button is not None
    assert button["y"] + button["height"] <= 500
    window.quiet()
