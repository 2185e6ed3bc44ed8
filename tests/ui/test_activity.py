"""Activity, destinations and the cluster, as the dashboard shows them."""

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


async def test_events_are_filtered_by_their_reason_and_the_filter_is_in_the_address(
    service: Service, window: Window
) -> None:
    await service.seed("shop")
    await service.recorded()
    await window.open("/activity")
    await rows(window).nth(1).wait_for()
    await window.page.get_by_label("Reason, such as topic_missing").fill("expired")
    await window.page.get_by_role("button", name="Show", exact=True).click()
    await rows(window).filter(has_text="given-up").wait_for()
    await rows(window).filter(has_text="created").first.wait_for(state="detached")
    assert "result=expired" in window.page.url
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


async def test_a_forecast_is_compared_with_the_most_that_was_delivered_in_a_minute(
    service: Service, window: Window
) -> None:
    await service.seed("shop")  # one delivery
    service.engine.clock.advance_ms(60_000)
    await service.recorded()
    due_ms = service.engine.clock.now_ms() + 1_800_000
    await create(service, "one", "two", scheduleTime=due_ms)
    await window.open("/forecast")
    sentence = window.page.locator("figcaption")
    await sentence.get_by_text("most delivered in a minute").wait_for()
    assert "1 bar is above it" in await sentence.inner_text()
    await window.page.locator(".legend").get_by_text("most delivered").wait_for()
    hot = window.page.get_by_role("region", name="Hot minutes").locator("tbody tr")
    assert "200 %, above" in await hot.inner_text()
    # The line is in the chart: two dashes' worth of its colour, which no bar has.
    await window.page.wait_for_function(LINE_IS_DRAWN)
    window.quiet()


LINE_IS_DRAWN = """() => {
  const canvas = document.querySelector("figure canvas");
  const probe = document.querySelector(".swatch-level");
  const [red, green, blue] = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let found = 0;
  for (let at = 0; at < data.length; at += 4) found += data[at] === red && data[at + 1] === green && data[at + 2] === blue;
  return found > 100;
}"""


async def test_a_schedule_is_found_by_client_and_key(service: Service, window: Window) -> None:
    await create(service, "one")
    await window.open("/")
    await window.heading("Overview")
    await window.page.keyboard.press("/")
    await window.page.keyboard.type("shop/one")
    await window.page.keyboard.press("Enter")
    await window.until_rows("one")
    window.quiet()


async def test_a_poll_that_finds_nothing_new_brings_no_text_and_the_view_is_as_of_then(
    service: Service, window: Window
) -> None:
    await create(service, "one")
    await service.recorded()
    await window.open("/activity")
    await rows(window).filter(has_text="created").wait_for()
    as_of = window.page.get_by_text("as of").first
    async with window.page.expect_response(lambda response: "/events" in response.url and response.status == 304):
        before = await as_of.inner_text()
    await window.page.wait_for_function(
        "(before) => ![...document.querySelectorAll('main *')].some((each) => each.innerText === before)", arg=before
    )
    assert await rows(window).count() == 1
    await create(service, "two")
    await rows(window).nth(1).wait_for()
    window.quiet()
