"""Actions of the dashboard: create, move, change, fire, pause, fence; each says what it did."""

import asyncio
import json
from datetime import UTC, datetime

from playwright.async_api import Request

from tests.support import builders
from tests.ui.asking import HOUR_MS, asked, create, deliver, rows
from tests.ui.conftest import Window
from tests.unit.service import Service


async def test_a_schedule_is_created_with_a_wall_time_and_its_zone_and_same_again_is_told(
    service: Service, window: Window
) -> None:
    await window.open("/new?client=shop")
    page = window.page
    await page.get_by_label("Schedule key").fill("order-1")
    await page.get_by_label("Topic").fill(builders.TOPIC)
    await page.locator("main").get_by_label("Date and time").fill("2027-03-27T12:00")
    await page.get_by_label("Time zone", exact=True).fill("America/New_York")
    await page.get_by_label("Time zone", exact=True).blur()
    await page.get_by_text("2027-03-27T12:00:00.000-04:00", exact=True).wait_for()
    await page.get_by_role("button", name="Create", exact=True).click()
    await page.get_by_text("Created, and durable.").wait_for()
    found = await asked(service, "GET", "/schedule/shop/order-1")
    assert (found["scheduleTime"], found["taskData"]) == (1_806_163_200_000, {"hello": "world"})
    await page.get_by_role("button", name="Create", exact=True).click()
    await page.get_by_text("Same again: it was there already, and nothing was changed.").wait_for()
    window.quiet()


async def test_a_time_that_does_not_exist_or_exists_twice_has_to_be_decided(window: Window) -> None:
    await window.open("/new?client=shop")
    page = window.page
    create_button = page.get_by_role("button", name="Create")
    await page.locator("main").get_by_label("Date and time").fill("2027-03-28T02:30")
    await page.get_by_text("were put forward over this time: it does not exist.").wait_for()
    assert await create_button.get_attribute("aria-disabled") == "true"
    await page.get_by_role("button", name="Use 2027-03-28 03:30:00").click()
    await page.get_by_text("2027-03-28T03:30:00.000+02:00", exact=True).wait_for()
    await page.locator("main").get_by_label("Date and time").fill("2027-10-31T02:30")
    await page.get_by_text("this time comes twice").wait_for()
    assert await create_button.get_attribute("aria-disabled") == "true"
    await page.get_by_label("the second, +01:00").check()
    await page.get_by_text("2027-10-31T02:30:00.000+01:00", exact=True).wait_for()
    assert await create_button.get_attribute("aria-disabled") is None


async def test_a_time_zone_is_typed_and_one_that_is_unfinished_or_unknown_is_an_error_at_its_field(
    window: Window,
) -> None:
    await window.open("/new?client=shop")
    page = window.page
    field = page.get_by_label("Time zone", exact=True)
    for typed, said in (("Europe/Lon", "Europe/Lon is no time zone"), ("", "A time zone is needed")):
        await field.fill("")
        await field.press_sequentially(typed, delay=120)
        await page.locator(".zone-field .field-error").get_by_text(said).wait_for()
        assert await field.input_value() == typed
        assert await field.get_attribute("aria-invalid") == "true"
        assert await page.get_by_role("button", name="Create").get_attribute("aria-disabled") == "true"
    await page.get_by_role("button", name="tomorrow").click()
    assert await field.input_value() == "Europe/Berlin"
    await page.locator("main").get_by_label("Date and time").fill("2027-03-27T12:00")
    await field.fill("")
    await field.press_sequentially("America/New_York", delay=20)
    await page.get_by_text("2027-03-27T12:00:00.000-04:00", exact=True).wait_for()
    assert await page.locator(".zone-field .field-error").count() == 0
    window.quiet()


async def test_a_form_that_was_left_is_found_again_as_it_was_until_it_is_sent(service: Service, window: Window) -> None:
    async def leave_and_come_back() -> None:
        await page.get_by_role("link", name="Cluster").click()
        await window.heading("Cluster")
        await page.go_back()
        await window.heading("New schedule")

    await window.open("/new?client=shop")
    page = window.page
    key, back = page.get_by_label("Schedule key"), page.get_by_text("What you had typed here is still there.")
    await page.get_by_label("Topic").fill(builders.TOPIC)
    await key.fill("order-1")
    await leave_and_come_back()
    await back.wait_for()
    assert await key.input_value() == "order-1"
    await page.get_by_role("button", name="Start with an empty form").click()
    await back.wait_for(state="detached")
    assert await key.input_value() == ""
    await page.get_by_label("Topic").fill(builders.TOPIC)
    await key.fill("order-2")
    await page.get_by_role("button", name="Create", exact=True).click()
    await page.get_by_text("Created, and durable.").wait_for()
    await leave_and_come_back()
    assert (await key.input_value(), await back.count()) == ("", 0)
    window.quiet()


async def test_a_time_that_is_past_is_told_and_a_move_says_how_far_from_the_time_that_was(
    service: Service, window: Window
) -> None:
    await create(service, "one")
    due_ms = (await asked(service, "GET", "/schedule/shop/one"))["scheduleTime"]
    await window.open("/schedule?client=shop&key=one&tz=UTC")
    await window.page.get_by_role("button", name="Move…").click()
    dialog = window.page.get_by_role("dialog")
    await dialog.get_by_role("button", name="1 h later").click()
    await dialog.get_by_text("1 h later than it is due now.").wait_for()
    past = dialog.get_by_text("This time is past: it is due at once.")
    assert await past.count() == 0
    wall = datetime.fromtimestamp(due_ms / 1_000 - 86_400, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    await dialog.get_by_label("Date and time").fill(wall)
    await past.wait_for()
    await dialog.get_by_text("1 d earlier than it is due now.").wait_for()
    window.quiet()


async def test_what_the_service_finds_wrong_stands_at_its_field_and_the_form_is_kept(window: Window) -> None:
    await window.open("/new?client=shop")
    page = window.page
    await page.get_by_label("Schedule key").fill("order-1")
    await page.get_by_label("Topic").fill("no topic")
    await page.get_by_role("button", name="Create", exact=True).click()
    await page.locator("#topic-error").wait_for()
    assert "should be a Kafka topic name" in await page.locator("#topic-error").inner_text()
    assert await page.locator("#topic").get_attribute("aria-invalid") == "true"
    await page.wait_for_function("() => document.activeElement?.id === 'topic'")
    assert await page.get_by_label("Schedule key").input_value() == "order-1"
    await page.get_by_label("Topic").fill("no topic either")
    await page.locator("#topic-error").wait_for(state="detached")
    assert await page.locator("form .notice").count() == 0
    window.quiet("400 (Bad Request)")


async def test_of_several_wrong_fields_each_is_marked_and_told_once_and_the_first_is_seen_with_its_label(
    service: Service, window: Window
) -> None:
    await create(service, "one")
    await window.page.set_viewport_size({"width": 1280, "height": 500})
    await window.open("/new?client=&tz=UTC")
    page = window.page
    await page.locator("#client").fill("no client")
    await page.get_by_label("Schedule key").fill("a")
    await page.get_by_label("Topic").fill(builders.TOPIC)
    await page.get_by_text("Headers, guarantee, lateness").click()
    await page.get_by_label("Headers").fill("clockwork-key: a")
    await page.get_by_role("button", name="Create", exact=True).click()
    await page.wait_for_function("() => document.activeElement?.id === 'client'")
    await page.wait_for_function(
        "() => document.querySelector('label[for=client]').getBoundingClientRect().top"
        " >= document.querySelector('header.top').getBoundingClientRect().bottom"
    )
    assert await page.locator("#headers").get_attribute("aria-invalid") == "true"
    notice = page.locator("form .notice")
    told = await notice.inner_text()
    for message in await notice.locator("li").all_inner_texts():
        assert told.count(message.split(": ", 1)[1]) == 1
    assert await notice.locator("li code").all_inner_texts() == ["clientId", "delivery.headers.clockwork-key"]
    await page.locator("#client").fill("shop")
    assert await notice.locator("li code").all_inner_texts() == ["delivery.headers.clockwork-key"]
    window.quiet("400 (Bad Request)")


async def test_a_schedule_is_moved_and_keeps_the_milliseconds_that_were_not_touched(
    service: Service, window: Window
) -> None:
    await create(service, "one")
    before = await asked(service, "GET", "/schedule/shop/one")
    await window.open("/schedule?client=shop&key=one")
    await window.page.get_by_role("button", name="Move…").click()
    await window.page.get_by_role("button", name="1 day later").click()
    await window.page.get_by_role("button", name="Move it").click()
    await window.page.get_by_role("dialog").wait_for(state="detached")
    after = await asked(service, "GET", "/schedule/shop/one")
    assert after["scheduleTime"] == before["scheduleTime"] + 24 * HOUR_MS
    await window.page.get_by_role("link", name="History", exact=True).click()
    await window.page.locator("tbody .status-superseded").wait_for()
    # The schedule and its history are read each for itself.
    await window.page.locator(".as-of").nth(1).wait_for()
    window.quiet()


async def test_a_change_over_anothers_change_is_refused_and_told(service: Service, window: Window) -> None:
    await create(service, "one")
    await window.open("/schedule?client=shop&key=one")
    await window.page.get_by_role("button", name="Change…").click()
    await asked(service, "PUT", "/schedule/shop/one", {"orderingKey": "other"})
    await window.page.get_by_label("Ordering key").fill("mine")
    await window.page.get_by_role("button", name="Change it").click()
    await window.page.get_by_text("It was changed meanwhile").wait_for()
    assert (await asked(service, "GET", "/schedule/shop/one"))["orderingKey"] == "other"


async def test_a_change_shows_what_it_sends_and_sends_what_was_touched_alone(service: Service, window: Window) -> None:
    await create(service, "one", delivery={"topic": builders.TOPIC, "headers": {"trace": "a"}})
    await window.open("/schedule?client=shop&key=one")
    await window.page.get_by_role("button", name="Change…").click()
    headers = window.page.get_by_label("Headers")
    assert await headers.input_value() == "trace: a"
    await headers.fill("trace: a\nwithout a name")
    await window.page.get_by_text("Each line should be name: value.").wait_for()
    await headers.fill("trace: b")
    await window.page.get_by_text("What is sent").click()
    sent = await window.page.get_by_role("group", name="What is sent").inner_text()
    assert json.loads(sent) == {"delivery": {"headers": {"trace": "b"}}}
    await window.page.get_by_role("button", name="Change it").click()
    await window.page.get_by_role("dialog").wait_for(state="detached")
    assert (await asked(service, "GET", "/schedule/shop/one"))["delivery"]["headers"] == {"trace": "b"}
    window.quiet()


async def test_a_schedule_is_fired_and_its_page_follows_it_to_its_delivery(service: Service, window: Window) -> None:
    await create(service, "one")
    await window.open("/schedule?client=shop&key=one")
    await window.page.get_by_role("button", name="Fire now…").click()
    await window.page.get_by_role("button", name="Fire 1 schedule", exact=True).click()
    await window.page.get_by_text("1 of 1 answered.").wait_for()
    await window.page.get_by_role("button", name="Close").click()
    service.engine.clock.advance_ms(1_000)
    await service.deliver()
    await window.page.get_by_role("button", name="Refresh").first.click()
    await window.page.locator(".why .status-delivered").wait_for()
    await window.page.locator(".timeline").get_by_text("offset 0").wait_for()
    window.quiet()


async def test_why_a_schedule_waits_is_told_with_what_to_do(service: Service, window: Window) -> None:
    await create(service, "one")
    await asked(service, "PUT", "/admin/pauses/clients/shop")
    service.engine.clock.advance_ms(-1 * HOUR_MS)
    await create(service, "overdue")
    service.engine.clock.advance_ms(HOUR_MS)
    await window.open("/schedules?client=shop")
    await rows(window).nth(1).wait_for()
    await rows(window).get_by_role("link", name="why?").click()
    await window.heading("overdue")
    why = window.page.get_by_role("region", name="State, and why")
    await why.get_by_text("The client shop is paused since").wait_for()
    await why.get_by_role("link", name="See what is paused").click()
    await window.heading("Destinations")


async def test_a_topic_is_paused_and_resumed(service: Service, window: Window) -> None:
    await window.open("/destinations")
    await window.page.get_by_text("No client and no topic is paused.").wait_for()
    await window.page.get_by_role("button", name="Pause…").first.click()
    await window.page.get_by_label("Its name").fill(builders.TOPIC)
    await window.page.get_by_label("Reason, for people").fill("broker move")
    await window.page.get_by_role("button", name="Pause it").click()
    await window.page.get_by_role("button", name=f"Resume topic {builders.TOPIC}").first.click()
    await window.page.get_by_role("button", name="Resume it").click()
    await window.page.get_by_text("No client and no topic is paused.").wait_for()
    assert await asked(service, "GET", "/admin/pauses") == {"clients": [], "topics": []}


async def test_fencing_names_all_shards_that_change_hands(service: Service, window: Window) -> None:
    await create(service, "one")
    await deliver(service, "one")
    await window.open("/cluster")
    await window.page.get_by_role("button", name="Fence shard 3").click()
    dialog = window.page.get_by_role("dialog", name="Fence the owner of shard 3?")
    await dialog.get_by_text("of its shards").wait_for()
    await dialog.get_by_label("Reason, for people").fill("stands still")
    await dialog.get_by_role("button", name="Fence it").click()
    await dialog.get_by_text("is fenced.").wait_for()
    window.quiet()


async def test_polls_share_answers_and_what_was_changed_or_asked_for_is_read_anew(
    service: Service, window: Window
) -> None:
    await create(service, "one")
    await deliver(service, "one")
    reads: asyncio.Queue[Request] = asyncio.Queue()
    window.page.on("request", lambda each: reads.put_nowait(each) if each.url.endswith("/admin/shards") else None)

    async def next_read() -> str | None:
        return await (await reads.get()).header_value("cache-control")

    await window.open("/cluster")
    await window.page.get_by_role("button", name="Fence shard 3").click()
    assert await next_read() == "max-age=0"
    await window.page.get_by_role("button", name="Fence it").click()
    # The answer of before is shared for five seconds: the reader would not see what they have done.
    await window.page.get_by_role("dialog").get_by_role("button", name="Close").click()
    assert await next_read() == "no-cache"
    await rows(window).filter(has_text="owner fenced").first.wait_for()
    await window.open("/cluster")
    await window.settled()
    assert await next_read() == "max-age=0"
    await window.page.get_by_role("button", name="Refresh").last.click()
    assert await next_read() == "no-cache"
    window.quiet()


async def test_the_overview_takes_the_recorded_forecast_even_after_a_change(service: Service, window: Window) -> None:
    await window.open("/destinations")
    await window.page.get_by_role("button", name="Pause…").first.click()
    await window.page.get_by_label("Its name").fill(builders.TOPIC)
    await window.page.get_by_role("button", name="Pause it").click()
    await window.page.get_by_role("button", name=f"Resume topic {builders.TOPIC}").first.wait_for()
    async with (
        window.page.expect_request(lambda each: each.url.endswith("/forecast")) as forecast,
        window.page.expect_request(lambda each: each.url.endswith("/admin/shards")) as shards,
    ):
        await window.page.get_by_role("link", name="Overview").first.click()
    assert await (await shards.value).header_value("cache-control") == "no-cache"
    assert await (await forecast.value).header_value("cache-control") == "max-age=0"
    window.quiet()


async def test_what_was_done_to_many_is_told_with_its_reason_and_its_answers(service: Service, window: Window) -> None:
    await create(service, "one", "two")
    await window.open("/schedules?client=shop")
    await rows(window).nth(1).wait_for()
    await window.page.get_by_role("checkbox", name="Select one").check()
    await window.page.get_by_role("checkbox", name="Select two").check()
    await window.page.get_by_role("button", name="Cancel…", exact=True).click()
    await asked(service, "DELETE", "/schedule/shop/two")
    await asked(service, "PUT", "/admin/pauses/clients/shop", {"reason": "broker move"})
    await window.page.get_by_label("Reason, for people").fill("<b>sold out</b>")
    await window.page.get_by_role("button", name="Cancel 2 schedules").click()
    await window.page.get_by_text("2 of 2 answered.").wait_for()
    await window.page.get_by_role("button", name="Close").click()
    await window.open("/activity")
    many = rows(window).filter(has_text="batch cancelled")
    await many.get_by_text("client shop").wait_for()
    await many.get_by_text("2 done").wait_for()
    await many.get_by_text("<b>sold out</b>", exact=True).wait_for()
    await rows(window).filter(has_text="paused").get_by_text("broker move").wait_for()
    window.quiet()
