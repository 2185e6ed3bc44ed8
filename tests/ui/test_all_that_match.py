"""Acting on all that match: the list is read to its end first, and what is not meant is left out."""

import asyncio
import json
import re
from typing import Any, Final

from playwright.async_api import Route

from tests.support import builders
from tests.ui.asking import HOUR_MS, asked, create, rows
from tests.ui.conftest import Window
from tests.ui.test_states import answers
from tests.unit.service import Service

NEXT_PAGE: Final = re.compile(r"//[^/]+/upcoming\?.*cursor=")
JOB: Final[dict[str, Any]] = {
    "clientId": "shop",
    "jobId": "report",
    "trigger": {"type": "fixed_rate", "everyMs": 6 * HOUR_MS},
    "taskData": None,
    "delivery": {"topic": builders.TOPIC},
}


async def keys_upcoming(service: Service) -> list[str]:
    return [each.get("jobId", each["scheduleKey"]) for each in (await asked(service, "GET", "/upcoming"))["schedules"]]


async def test_all_upcoming_schedules_are_cancelled_and_runs_of_jobs_are_left_out(
    service: Service, window: Window
) -> None:
    await asked(service, "POST", "/jobs", JOB)
    await create(service, *(f"order-{number:03}" for number in range(110)))
    await create(service, "invoice", client="billing")
    await window.open("/upcoming")
    await window.page.get_by_role("button", name="Cancel all…").click()
    dialog = window.page.get_by_role("dialog", name="Cancel 111 schedules?")
    await dialog.get_by_text("all pending schedules of every client that you may see").wait_for()
    await dialog.get_by_text("Left out: 1 run of a job.").wait_for()
    await dialog.get_by_label("Type the number to go on").fill("111")
    await dialog.get_by_role("button", name="Cancel 111 schedules").click()
    await window.page.get_by_text("111 of 111 answered.").wait_for()
    assert await keys_upcoming(service) == ["report"]
    window.quiet()


async def test_the_count_goes_on_after_the_service_has_put_it_off(service: Service, window: Window) -> None:
    await create(service, *(f"order-{number:03}" for number in range(101)))
    refuse = answers(429, {"retry-after": "0"}, title="Over a limit")
    await window.page.route(NEXT_PAGE, refuse, times=1)
    await window.open("/upcoming")
    await window.page.get_by_role("button", name="Fire all now…").click()
    await window.page.get_by_role("dialog", name="Fire 101 schedules?").wait_for()
    window.quiet("429 (Too Many Requests)")


async def test_a_count_that_is_stopped_does_nothing(service: Service, window: Window) -> None:
    await create(service, *(f"order-{number:03}" for number in range(101)))
    stopped = asyncio.Event()

    async def hold(route: Route) -> None:
        await stopped.wait()
        await route.abort()

    await window.page.route(NEXT_PAGE, hold)
    await window.open("/upcoming")
    await window.page.get_by_role("button", name="Cancel all…").click()
    dialog = window.page.get_by_role("dialog", name="Cancel all that match?")
    await dialog.get_by_text("100 schedules so far, 100 looked at").wait_for()
    await dialog.get_by_role("button", name="Stop").click()
    await dialog.wait_for(state="detached")
    stopped.set()
    assert len(await keys_upcoming(service)) == 100
    window.quiet()


async def test_a_run_that_is_stopped_does_not_wait_to_send_the_batch_under_way_again(
    service: Service, window: Window
) -> None:
    await create(service, "one")
    sent, stopped = asyncio.Event(), asyncio.Event()

    async def put_off(route: Route) -> None:
        sent.set()
        await stopped.wait()
        await answers(503, {"retry-after": "600"}, title="Not now")(route)

    await window.page.route("**/schedules/cancel", put_off)
    await window.open("/upcoming")
    await window.page.get_by_role("button", name="Cancel all…").click()
    await window.page.get_by_role("button", name="Cancel 1 schedule", exact=True).click()
    await sent.wait()
    await window.page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    stopped.set()
    await window.page.get_by_text("1 of 1 answered.").wait_for()
    window.quiet("503 (Service Unavailable)")


async def test_what_is_being_sent_stays_in_sight_however_often_escape_is_pressed(
    service: Service, window: Window
) -> None:
    await create(service, "one")
    sent, go_on = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        sent.set()
        await go_on.wait()
        await route.continue_()

    await window.page.route("**/schedules/cancel", hold)
    await window.open("/upcoming")
    await window.page.get_by_role("button", name="Cancel all…").click()
    await window.page.get_by_role("button", name="Cancel 1 schedule", exact=True).click()
    await sent.wait()
    # Chromium closes a dialog by itself at the third time.
    for _ in range(4):
        await window.page.keyboard.press("Escape")
    await window.page.get_by_role("button", name="Stop").wait_for()
    go_on.set()
    await window.page.get_by_text("1 of 1 answered.").wait_for()
    await window.page.keyboard.press("Escape")
    await window.page.get_by_role("dialog").wait_for(state="detached")
    window.quiet()


async def test_no_further_batch_is_sent_once_the_login_has_ended(service: Service, window: Window) -> None:
    await create(service, *(f"order-{number:03}" for number in range(101)))
    await window.page.route("**/schedules/cancel", answers(401, title="No valid key"))
    await window.open("/upcoming")
    await window.page.get_by_role("button", name="Cancel all…").click()
    dialog = window.page.get_by_role("dialog", name="Cancel 101 schedules?")
    await dialog.get_by_label("Type the number to go on").fill("101")
    await dialog.get_by_role("button", name="Cancel 101 schedules").click()
    await window.page.get_by_text("100 of 101 answered; the others were not sent.").wait_for()
    window.quiet("401 (Unauthorized)")


async def test_all_dead_letters_are_the_open_ones_that_the_page_shows(service: Service, window: Window) -> None:
    service.engine.kafka.create_topic("invoices", kafka_partitions=1)
    late: dict[str, Any] = {"deadline": 0, "onLate": "dead_letter"}
    await create(service, "one", "two", "settled", delivery={"topic": "invoices", **late})
    await create(service, "other", delivery={"topic": builders.TOPIC, **late})
    service.engine.clock.advance_ms(2 * HOUR_MS)
    await service.deliver()
    await asked(service, "POST", "/schedule/shop/settled/retry")
    await window.open("/dead-letters?show=all&topic=invoices")
    await rows(window).nth(2).wait_for()
    await window.page.get_by_role("button", name="Discard all…").click()
    dialog = window.page.get_by_role("dialog", name="Discard 2 dead letters?")
    await dialog.get_by_text("all open dead letters, meant for the topic invoices").wait_for()
    await dialog.get_by_role("button", name="Discard 2 dead letters").click()
    await window.page.get_by_text("2 of 2 answered.").wait_for()
    async with window.page.expect_download() as saving:
        await window.page.get_by_role("button", name="Download the answers").click()
    told = [json.loads(line) for line in (await (await saving.value).path()).read_text().splitlines()]
    # A list that is read to its end is kept as a whole, so without contents.
    assert {(each["item"]["scheduleKey"], "value" in each["item"]) for each in told} == {("one", False), ("two", False)}
    letters = (await asked(service, "GET", "/admin/dead-letters"))["deadLetters"]
    assert [each["scheduleKey"] for each in letters if each["open"]] == ["other"]
    window.quiet()
