"""The list of a client's schedules."""

from datetime import datetime

from playwright.async_api import Browser

from tests.ui.asking import asked, create, deliver, rows
from tests.ui.conftest import Window, opened
from tests.unit.service import Service


async def test_a_clients_schedules_are_listed_with_their_states(service: Service, window: Window) -> None:
    await service.seed("shop")
    await window.open("/schedules?client=shop")
    await window.heading("Schedules")
    await rows(window).nth(3).wait_for()
    assert await window.page.locator("tbody th").all_inner_texts() == ["done", "given-up", "gone", "a"]
    states = await window.page.locator("tbody .status").all_inner_texts()
    assert [state.split()[-1] for state in states] == ["delivered", "failed", "cancelled", "pending"]
    window.quiet()


async def test_filters_are_in_the_address_and_back_reload_and_a_pasted_link_show_the_same(
    browser: Browser, service: Service, window: Window
) -> None:
    await service.seed("shop")
    await window.open("/schedules?client=shop")
    await rows(window).nth(3).wait_for()
    await window.page.get_by_label("Status").select_option("failed")
    await window.page.get_by_role("button", name="Show", exact=True).click()
    await window.page.wait_for_url("**/schedules?client=shop&status=failed")
    await window.until_rows("given-up")
    await window.page.get_by_role("link", name="given-up").click()
    await window.heading("given-up")
    await window.page.go_back()
    await window.until_rows("given-up")
    await window.page.reload()
    await window.until_rows("given-up")
    async with opened(browser, service.url) as other:
        await other.page.goto(window.page.url)
        await other.until_rows("given-up")
    await window.page.go_back()
    await window.until_rows("done", "given-up", "gone", "a")


async def test_pages_follow_one_another_until_the_end_is_said(service: Service, window: Window) -> None:
    await create(service, *(f"order-{number:03}" for number in range(120)))
    await window.open("/schedules?client=shop")
    await rows(window).nth(49).wait_for()
    assert await rows(window).count() == 50
    await window.page.get_by_role("button", name="Show more").click()
    await rows(window).nth(99).wait_for()
    await window.page.get_by_role("button", name="Show more").click()
    await window.page.get_by_text("120 schedules; this is the end of the list.").wait_for()


async def test_selected_schedules_are_cancelled_with_the_keyboard_alone(service: Service, window: Window) -> None:
    await create(service, "one", "two", "three")
    await window.open("/schedules?client=shop")
    await rows(window).nth(2).wait_for()
    keyboard = window.page.keyboard
    for key in ("j", "x", "j", "x", "."):
        await keyboard.press(key)
    await window.focus_is("Cancel…")
    await keyboard.press("Enter")
    dialog = window.page.get_by_role("dialog", name="Cancel 2 schedules?")
    await dialog.wait_for()
    await window.focus_is("Do nothing")
    await keyboard.press("Tab")
    await keyboard.press("Enter")
    await window.page.get_by_text("2 of 2 answered.").wait_for()
    await window.focus_is("Close")
    await keyboard.press("Enter")
    await window.page.locator("tbody .status-cancelled").nth(1).wait_for()
    states = await window.page.locator("tbody .status").all_inner_texts()
    assert sorted(state.split()[-1] for state in states) == ["cancelled", "cancelled", "pending"]
    window.quiet()


async def test_all_that_match_are_counted_first_and_a_large_number_is_to_be_typed(
    service: Service, window: Window
) -> None:
    await create(service, *(f"order-{number:03}" for number in range(130)))
    await window.open("/schedules?client=shop&status=pending")
    await window.page.get_by_role("button", name="Cancel all…").click()
    dialog = window.page.get_by_role("dialog", name="Cancel 130 schedules?")
    await dialog.wait_for()
    send = dialog.get_by_role("button", name="Cancel 130 schedules")
    assert await send.get_attribute("aria-disabled") == "true"
    await dialog.get_by_label("Type the number to go on").fill("130")
    await send.click()
    await window.page.get_by_text("130 of 130 answered.").wait_for()
    row = window.page.get_by_role("dialog").locator("tbody tr")
    assert (await row.inner_text()).split()[:2] == ["cancelled", "130"]


async def test_all_are_those_that_the_action_is_meant_for(service: Service, window: Window) -> None:
    await create(service, "one", "two")
    await deliver(service, "one")
    await window.open("/schedules?client=shop")
    await window.page.get_by_role("button", name="Fire all now…").click()
    dialog = window.page.get_by_role("dialog", name="Fire 1 schedule?")
    await dialog.get_by_text("shop/two").wait_for()


async def test_what_was_not_to_be_cancelled_is_told_by_its_reason(service: Service, window: Window) -> None:
    await create(service, "one", "two")
    await window.open("/schedules?client=shop")
    await rows(window).nth(1).wait_for()
    await window.page.get_by_label("Select this page").check()
    await window.page.get_by_role("button", name="Cancel…").click()
    # Meanwhile one of them is delivered.
    await deliver(service, "one")
    await window.page.get_by_role("button", name="Cancel 2 schedules").click()
    await window.page.get_by_text("2 of 2 answered.").wait_for()
    told = await window.page.get_by_role("dialog").locator("tbody th").all_inner_texts()
    assert sorted(told) == ["cancelled", "delivered"]


async def test_known_clients_lead_to_their_schedules(service: Service, window: Window) -> None:
    await create(service, "one", client="shop")
    await create(service, "two", client="billing")
    await service.recorded()
    await window.open("/schedules")
    known = window.page.get_by_label("Known clients").get_by_role("link")
    await known.nth(1).wait_for()
    assert await known.all_inner_texts() == ["billing", "shop"]
    await known.nth(0).click()
    await window.until_rows("two")
    window.quiet()


async def test_a_search_finds_a_key_in_all_known_clients_and_a_schedule_by_its_delivery(
    service: Service, window: Window
) -> None:
    for client in ("shop", "billing"):
        await create(service, "order-1", client=client)
    await deliver(service, "order-1")
    await service.recorded()
    await window.open("/search?q=order-1")
    await window.until_rows("order-1", "order-1")
    await window.page.get_by_text("2 clients looked at, of those that were seen up to").wait_for()
    ended = await asked(service, "GET", "/schedule/shop/order-1")
    search = window.page.get_by_role("searchbox")
    await search.fill(ended["deliveryId"])
    await search.press("Enter")
    await window.until_rows("order-1")
    await window.open("/search?q=unknown")
    await window.page.get_by_text("No schedule with the key unknown was found.").wait_for()
    window.quiet()


async def test_a_search_for_the_name_of_a_client_leads_to_its_schedules(service: Service, window: Window) -> None:
    await create(service, "order-1")
    await service.recorded()
    await window.open("/search?q=shop")
    await window.page.get_by_text("No schedule with the key shop was found.").wait_for()
    await window.page.get_by_role("link", name="All schedules of shop").click()
    await window.until_rows("order-1")
    window.quiet()


async def test_a_history_tells_where_a_schedule_was_moved_to(service: Service, window: Window) -> None:
    await create(service, "order-1")
    to_ms = service.engine.clock.now_ms() // 1_000 * 1_000 + 7_200_000
    await asked(service, "PUT", "/schedule/shop/order-1", {"scheduleTime": to_ms})
    await window.open("/schedule?client=shop&key=order-1&tab=history")
    where = rows(window).get_by_text("moved to").locator("time")
    told = await where.get_attribute("datetime")
    assert told is not None
    assert datetime.fromisoformat(told).timestamp() * 1_000 == to_ms
    # The service keeps no content of what was moved away: no column stands empty.
    assert "Version" not in await window.page.locator("main thead").inner_text()
    window.quiet()
