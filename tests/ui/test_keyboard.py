"""The dashboard without a mouse."""

from tests.ui.asking import asked, create
from tests.ui.conftest import Window
from tests.unit.service import Service


async def test_a_schedule_is_found_looked_at_and_cancelled(service: Service, window: Window) -> None:
    await create(service, "order-1", "order-2")
    await window.open("/")
    await window.heading("Overview")
    keyboard = window.page.keyboard
    await keyboard.press("g")
    await keyboard.press("s")
    await window.heading("Schedules")
    await window.focus_is("Schedules")
    client = window.page.get_by_role("combobox", name="Client")
    while not await client.evaluate("(each) => each === document.activeElement"):
        await keyboard.press("Tab")
    await keyboard.type("shop")
    await keyboard.press("Enter")
    await window.until_rows("order-1", "order-2")
    # Letters are shortcuts again as soon as the focus has left the field.
    await client.blur()
    await keyboard.press("j")
    await window.focus_is("order-1")
    await keyboard.press("j")
    await window.focus_is("order-2")
    await keyboard.press("Enter")
    await window.heading("order-2")
    await window.focus_is("order-2")
    await window.page.get_by_role("button", name="Cancel…").wait_for()
    for _ in range(4):
        await keyboard.press("Tab")
    await window.focus_is("Cancel…")
    await keyboard.press("Enter")
    await window.page.get_by_role("dialog", name="Cancel 1 schedule?").wait_for()
    await keyboard.press("Tab")
    await keyboard.press("Enter")
    await window.page.get_by_text("1 of 1 answered.").wait_for()
    await keyboard.press("Escape")
    await window.page.locator(".why .status-cancelled").wait_for()
    assert (await asked(service, "GET", "/schedule/shop/order-2"))["status"] == "cancelled"
    window.quiet()


async def test_escape_leaves_a_dialog_and_the_focus_is_where_it_was(service: Service, window: Window) -> None:
    await create(service, "order-1")
    await window.open("/schedule?client=shop&key=order-1")
    await window.page.get_by_role("button", name="Move…").focus()
    await window.page.keyboard.press("Enter")
    await window.page.get_by_role("dialog", name="Move order-1").wait_for()
    await window.page.keyboard.press("Escape")
    await window.page.get_by_role("dialog").wait_for(state="detached")
    await window.focus_is("Move…")


async def test_the_skip_link_leads_to_the_heading(window: Window) -> None:
    await window.open("/cluster")
    await window.heading("Cluster")
    await window.page.keyboard.press("Tab")
    await window.focus_is("Skip to the content")
    await window.page.keyboard.press("Enter")
    await window.focus_is("Cluster")


async def test_shortcuts_are_silent_in_fields_and_can_be_turned_off(window: Window) -> None:
    await window.open("/schedules")
    await window.heading("Schedules")
    keyboard = window.page.keyboard
    await keyboard.press("/")
    await keyboard.type("g c?")
    assert await window.page.locator("#search").input_value() == "g c?"
    assert await window.page.get_by_role("dialog").count() == 0
    await window.page.locator("#search").blur()
    await window.page.locator("summary").first.click()
    await window.page.get_by_label("Single letters are shortcuts").uncheck()
    await keyboard.press("Escape")
    await keyboard.press("?")
    await keyboard.press("g")
    await keyboard.press("c")
    await window.heading("Schedules")
    assert await window.page.get_by_role("dialog").count() == 0


async def test_escape_leaves_the_search_and_letters_are_shortcuts_again(window: Window) -> None:
    await window.open("/cluster")
    await window.heading("Cluster")
    keyboard = window.page.keyboard
    for key in ("/", "Escape", "g", "s"):
        await keyboard.press(key)
    await window.heading("Schedules")
    assert await window.page.locator("#search").input_value() == ""


async def test_the_key_for_actions_leads_to_the_first_that_is_on(service: Service, window: Window) -> None:
    await service.seed("shop")
    await window.open("/schedules?client=shop&status=failed")
    await window.until_rows("given-up")
    for key in ("j", "x", "."):
        await window.page.keyboard.press(key)
    await window.focus_is("Retry…")


async def test_a_time_is_shown_in_all_its_forms_to_copy(service: Service, window: Window) -> None:
    await create(service, "order-1")
    due_ms = (await asked(service, "GET", "/schedule/shop/order-1"))["scheduleTime"]
    await window.open("/schedules?client=shop&tz=UTC")
    await window.page.locator("tbody .time").first.press("Enter")
    dialog = window.page.get_by_role("dialog")
    await dialog.get_by_text(str(due_ms)).wait_for()
    await window.page.keyboard.press("Escape")
    await dialog.wait_for(state="detached")
    assert await window.page.locator("tbody .time").first.evaluate("(each) => each === document.activeElement")
