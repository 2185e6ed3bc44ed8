"""The states of a view, by answers that the test puts in the place of the service's."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
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
    assert '"clientId": "nobody"' in await window.page.locator(".nothing pre").inner_text()


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
    notice = window.page.locator(NOTICE)
    await notice.get_by_text("Something went wrong in the service").wait_for()
    await notice.get_by_text("e-17").wait_for()
    await notice.get_by_text("Below is what was there at").wait_for()
    assert await window.page.locator(".was tbody tr").count() == 1
    await window.page.unroute(LIST)
    await window.page.locator("main").get_by_role("button", name="Try again").click()
    await window.page.locator(".was").wait_for(state="detached")
    window.quiet(LOADING)


async def test_every_wrong_field_of_a_request_is_named(service: Service, window: Window) -> None:
    await window.open("/schedules?client=not%20a%20client&topic=no%20topic")
    fields = window.page.locator(f"{NOTICE} li code")
    await fields.nth(1).wait_for()
    assert await fields.all_inner_texts() == ["clientId", "topic"]


@pytest.mark.parametrize("status", [429, 503])
async def test_too_many_requests_are_counted_down_and_asked_again_once(
    service: Service, window: Window, status: int
) -> None:
    seen: list[str] = []
    refuse = answers(status, {"retry-after": "1"}, title="Over a limit")

    async def answer(route: Route) -> None:
        seen.append(route.request.url)
        await refuse(route)

    await window.page.route(LIST, answer)
    await window.open("/schedules?client=shop")
    await window.page.get_by_text("Asks again by itself in").wait_for()
    await window.page.get_by_text("Asks again by itself in").wait_for(state="detached")
    await window.page.locator("main").get_by_role("button", name="Try again").wait_for()
    assert len(seen) == 2
    window.quiet(LOADING)


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
    await window.page.route(LIST, lambda route: route.abort())
    refresh = window.page.get_by_role("button", name="Refresh")
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
