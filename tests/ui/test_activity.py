"""What happens, and who works, as the dashboard shows it."""

from tests.support import builders
from tests.ui.asking import asked, create, deliver, rows
from tests.ui.conftest import Window
from tests.unit.service import Service


async def test_what_happened_is_listed_newest_first_and_leads_to_its_schedule(service: Service, window: Window) -> None:
    await create(service, "one")
    await deliver(service, "one")
    await window.open("/activity")
    await rows(window).filter(has_text="delivered").wait_for()
    kinds = await window.page.locator("tbody .status").all_inner_texts()
    assert [kind.split()[-1] for kind in kinds] == ["delivered", "fired", "created"]
    await rows(window).first.get_by_role("link", name="shop/one").click()
    await window.heading("one")
    window.quiet()


async def test_new_events_wait_while_the_reader_is_further_down(service: Service, window: Window) -> None:
    await create(service, *(f"order-{number:03}" for number in range(60)))
    await window.open("/activity")
    await rows(window).nth(59).wait_for()
    await window.page.evaluate("() => window.scrollTo(0, 900)")
    await create(service, "late-1", "late-2")
    show = window.page.get_by_role("button", name="2 new, show")
    await show.wait_for()
    assert await rows(window).count() == 60
    await show.click()
    await rows(window).nth(61).wait_for()


async def test_upcoming_has_what_is_due_of_all_clients_and_a_bar_of_the_forecast_leads_there(
    service: Service, window: Window
) -> None:
    await create(service, "one")
    await create(service, "two", client="billing")
    await asked(service, "PUT", f"/admin/pauses/topics/{builders.TOPIC}")
    await window.open("/upcoming")
    await window.until_rows("one", "two")
    await window.open("/forecast?range=day")
    await window.page.get_by_text("2 due within").wait_for()
    await window.page.get_by_role("button", name="As a table").click()
    await window.page.locator("figure tbody button").first.click()
    await window.heading("Upcoming")
    await window.until_rows("one", "two")
    window.quiet()


async def test_a_schedule_is_found_by_client_and_key(service: Service, window: Window) -> None:
    await create(service, "one")
    await window.open("/")
    await window.heading("Overview")
    await window.page.keyboard.press("/")
    await window.page.keyboard.type("shop/one")
    await window.page.keyboard.press("Enter")
    await window.until_rows("one")
    window.quiet()
