"""The states of a view, by answers that the test puts in the place of the service's."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from playwright.async_api import Route

from tests.ui.asking import asked, create, rows
from tests.ui.conftest import Window
from tests.unit.service import Service

LIST: Final = re.compile(r"//[^/]+/schedules\?")
"""The call, and not the page of the same name."""
PROBLEM: Final = "application/problem+json"
NOTICE: Final = ".notice"
LOADING: Final = "Failed to load resource"
"""The browser's own message about an answer that is an error."""


def answers(status: int, headers: dict[str, str] | None = None, **problem: Any) -> Callable[[Route], Awaitable[None]]:
    async def answer(route: Route) -> None:
        document = {"type": "urn:clockwork:problem:test", "title": "A title", "status": status, "detail": "A detail."}
        await route.fulfill(
            status=status, headers=headers or {}, content_type=PROBLEM, body=json.dumps({**document, **problem})
        )

    return answer


async def test_before_the_first_answer_there_is_an_outline_and_later_that_it_goes_on(
    service: Service, window: Window
) -> None:
    free = asyncio.Event()

    async def hold(route: Route) -> None:
        await free.wait()
        await route.continue_()

    await window.page.route(LIST, hold)
    await window.open("/schedules?client=shop")
    await window.page.get_by_text("reading…", exact=True).wait_for()
    await window.page.get_by_text("still reading…").wait_for()
    free.set()
    await window.page.get_by_text("This client has no schedules.").wait_for()


async def test_a_forecast_says_how_much_it_may_read_and_afterwards_what_it_has_looked_at(
    service: Service, window: Window
) -> None:
    await create(service, "one")
    free = asyncio.Event()

    async def hold(route: Route) -> None:
        await free.wait()
        await route.continue_()

    await window.page.route(re.compile(r"//[^/]+/forecast\?"), hold)
    await window.open("/forecast?range=day")
    await window.page.get_by_text("still counting, at most 150 read units…").wait_for()
    free.set()
    await window.page.get_by_text("1 row looked at").wait_for()
    window.quiet()


async def test_leaving_a_page_aborts_what_it_was_reading(service: Service, window: Window) -> None:
    failed: list[str] = []
    window.page.on("requestfailed", lambda request: failed.append(request.url))
    left = asyncio.Event()

    async def hold(route: Route) -> None:
        await left.wait()
        await route.abort()

    await window.page.route(LIST, hold)
    await window.open("/schedules?client=shop")
    await window.page.locator("[aria-busy=true]").wait_for(state="attached")
    async with window.page.expect_event("requestfailed"):
        await window.page.get_by_role("link", name="Cluster").click()
    await window.heading("Cluster")
    left.set()
    assert ["/schedules?" in url for url in failed] == [True]
    window.quiet()


async def test_nothing_there_says_why_and_what_is_next(service: Service, window: Window) -> None:
    await create(service, "one")
    await window.open("/schedules")
    await window.page.get_by_text("Which client?").wait_for()
    await window.open("/schedules?client=shop&status=failed")
    await window.page.get_by_text("No schedule matches these filters.").wait_for()
    await window.page.get_by_role("link", name="Clear the filters").click()
    await window.until_rows("one")
    await window.open("/schedules?client=nobody")
    await window.page.get_by_text("This client has no schedules.").wait_for()
    assert '"clientId": "nobody"' in await window.page.locator(".empty-state pre").inner_text()


async def test_a_page_without_rows_but_with_a_cursor_never_looks_like_the_end(service: Service, window: Window) -> None:
    await create(service, "one")
    page = await asked(service, "GET", "/schedules?clientId=shop&fields=summary")

    async def answer(route: Route) -> None:
        at_end = "cursor=" in route.request.url
        document = page if at_end else {"schedules": [], "cursor": "there-is-more"}
        await route.fulfill(status=200, content_type="application/json", body=json.dumps(document))

    await window.page.route(LIST, answer)
    await window.open("/schedules?client=shop&status=pending")
    await window.page.get_by_text("none matches so far").wait_for()
    await window.page.get_by_role("button", name="Go on").click()
    await window.until_rows("one")


async def test_an_error_leaves_what_was_there_greyed_with_its_time(service: Service, window: Window) -> None:
    await create(service, "one")
    await window.open("/schedules?client=shop")
    await window.until_rows("one")
    await window.page.route(LIST, answers(500, title="Something went wrong in the service", errorId="e-17"))
    await window.page.get_by_role("button", name="Refresh").click()
    await window.page.locator(".as-of").get_by_text("asks again in").wait_for()
    notice = window.page.locator(NOTICE)
    await notice.get_by_text("Something went wrong in the service").wait_for()
    await notice.get_by_text("e-17").wait_for()
    await notice.get_by_text("Below is what was there at").wait_for()
    assert await window.page.locator(".was tbody tr").count() == 1
    await window.page.unroute(LIST)
    await notice.get_by_role("button", name="Try now").click()
    await window.page.locator(".was").wait_for(state="detached")
    window.quiet(LOADING)


async def test_every_wrong_field_of_a_request_is_named(service: Service, window: Window) -> None:
    await window.open("/schedules?client=not%20a%20client&topic=no%20topic")
    fields = window.page.locator(f"{NOTICE} li code")
    await fields.nth(1).wait_for()
    assert await fields.all_inner_texts() == ["clientId", "topic"]


async def asked_after(window: Window, seconds: int) -> None:
    """Sees the page say that it asks again in so many seconds, of which a few may be over, and lets them pass."""
    told = window.page.locator(NOTICE).get_by_text("asks again in")
    found = re.search(r"in (\d+) s", await told.inner_text())
    assert found is not None
    assert seconds - 7 < int(found[1]) <= seconds
    async with window.page.expect_response(LIST):
        await window.page.clock.run_for(seconds * 1_000)


async def test_too_many_requests_are_counted_down_as_the_service_says_and_then_less_and_less_often(
    window: Window,
) -> None:
    await window.page.clock.install()
    await window.page.route(LIST, answers(429, {"retry-after": "300"}, title="Over a limit"))
    await window.open("/schedules?client=shop")
    for missed, seconds in enumerate((300, 20, 40, 60, 60), start=1):
        await window.page.locator(f"{NOTICE}[data-missed='{missed}']").wait_for()
        await asked_after(window, seconds)
    await window.page.get_by_role("button", name="Over a limit").wait_for()
    window.quiet(LOADING)


async def test_what_is_read_once_is_asked_again_once_and_then_when_the_reader_says_so(window: Window) -> None:
    await window.page.clock.install()
    place = re.compile(r"//[^/]+/search\?")
    await window.page.route(place, answers(429, {"retry-after": "300"}, title="Over a limit"))
    await window.open("/search?q=a")
    await window.page.get_by_role("button", name="Try now").wait_for()
    async with window.page.expect_response(place):
        await window.page.clock.run_for(300_000)
    await window.page.get_by_role("button", name="Try again").wait_for()
    window.quiet(LOADING)


async def test_a_node_that_does_not_answer_is_asked_every_ten_seconds_and_the_page_says_that_it_is_not_live(
    service: Service, window: Window
) -> None:
    await create(service, "one")
    await window.page.clock.install()
    await window.open("/schedules?client=shop")
    await window.until_rows("one")
    live = window.page.get_by_role("button", name="Live", exact=True)
    await live.wait_for()
    await window.page.route(LIST, answers(503, title="Not now"))
    for _ in range(8):
        async with window.page.expect_response(LIST):
            await window.page.clock.run_for(11_000)
    await window.page.get_by_role("button", name="Not answered").wait_for()
    await window.page.unroute(LIST)
    async with window.page.expect_response(LIST):
        await window.page.clock.run_for(11_000)
    await live.wait_for()
    window.quiet(LOADING)


@pytest.mark.parametrize("sign", ["an answer to another call", "the network is back", "the tab is seen again"])
async def test_at_a_sign_of_the_node_a_view_that_waits_for_it_asks_at_once(window: Window, sign: str) -> None:
    clock = window.page.clock
    await clock.install()
    await window.page.route(LIST, lambda route: route.abort())
    await window.open("/schedules?client=shop")
    notice = window.page.locator(NOTICE)
    await notice.wait_for()
    for _ in range(5):
        async with window.page.expect_event("requestfailed"):
            await clock.run_for(11_000)
    await notice.get_by_text("asks again in").wait_for()
    # Nothing is asked by time alone from now on.
    await clock.pause_at(datetime.fromtimestamp(await window.page.evaluate("Date.now() / 1000 + 0.5"), UTC))
    await window.page.unroute(LIST)
    events = {"the network is back": "window, 'online'", "the tab is seen again": "document, 'visibilitychange'"}
    another_call = """async () => {
        const app = document.querySelector("script[type=module]").src;
        await (await import(app.replace("app.js", "state/session.js"))).loadMe();
    }"""
    event = f"((on, name) => {{ on.dispatchEvent(new Event(name)); }})({events.get(sign)})"
    async with window.page.expect_response(LIST):
        await window.page.evaluate(event if sign in events else another_call)
    window.quiet(LOADING)


async def test_a_view_that_costs_much_is_refreshed_less_often_and_says_so(service: Service, window: Window) -> None:
    await create(service, "one")
    page = await asked(service, "GET", "/schedules?clientId=shop&fields=summary")
    units = "815"
    await window.page.route(LIST, lambda route: route.fulfill(json=page, headers={"clockwork-read-units": units}))
    await window.page.clock.install()
    await window.open("/schedules?client=shop")
    as_of = window.page.locator(".as-of")
    await as_of.get_by_text("refreshed every 2 min 43 s: it reads 815 units").wait_for()
    seen: list[str] = []
    window.page.on("request", lambda request: seen.append(request.url) if LIST.search(request.url) else None)
    await window.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await window.page.clock.run_for(120_000)
    assert seen == []
    units = "12"
    async with window.page.expect_response(LIST):
        await window.page.clock.run_for(45_000)
    await as_of.get_by_text(", 12 read units").wait_for()
    window.quiet()


async def test_without_the_index_the_page_says_what_works_without(service: Service, window: Window) -> None:
    await window.page.route(LIST, answers(501, title="This cluster does not list schedules"))
    await window.open("/schedules?client=shop")
    await window.page.get_by_text("This cluster does not list schedules").wait_for()
    await window.page.get_by_text("Each schedule can be had by its key").wait_for()


async def test_a_missing_right_is_told_in_the_services_words(service: Service, window: Window) -> None:
    await window.page.route(
        LIST, answers(403, title="The key does not cover this", detail="The right read is missing.")
    )
    await window.open("/schedules?client=shop")
    await window.page.get_by_text("You may not see this").wait_for()
    await window.page.get_by_text("The right read is missing.").wait_for()


async def test_a_view_that_is_not_refreshed_is_called_out_of_date_and_later_the_node_away(
    service: Service, window: Window
) -> None:
    await create(service, "one")
    await window.open("/schedules?client=shop")
    await window.until_rows("one")
    # By hand alone.
    await window.page.keyboard.press("p")
    await window.page.route(LIST, lambda route: route.abort())
    refresh = window.page.locator(".as-of button")
    for missed in range(1, 6):
        await refresh.click()
        await window.page.locator(f".notice[data-missed='{missed}']").wait_for()
        as_of = await window.page.locator(".as-of").inner_text()
        assert ("Out of date" in as_of) == (missed in (3, 4))
        assert ("The node does not answer" in as_of) == (missed == 5)
    assert await rows(window).count() == 1
    window.quiet(LOADING)


async def test_an_address_of_no_page_says_so(window: Window) -> None:
    await window.open("/nowhere")
    await window.heading("Not found")


async def test_a_schedule_that_is_not_there_says_so(window: Window) -> None:
    await window.open("/schedule?client=shop&key=none")
    await window.page.get_by_text("There is no such schedule").wait_for()
