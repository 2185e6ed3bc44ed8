"""Recurring jobs in the dashboard."""

from typing import Any

from playwright.async_api import Route

from tests.support import builders
from tests.ui.asking import asked, rows
from tests.ui.conftest import Window
from tests.unit.service import Service

JOB: dict[str, Any] = {
    "clientId": "shop",
    "jobId": "report",
    "trigger": {"type": "cron", "expression": "30 2 * * *", "timeZone": "Europe/Berlin"},
    "taskData": {"n": 12_345_678_901_234_567_890},
    "delivery": {"topic": builders.TOPIC},
}


async def test_a_trigger_is_previewed_as_it_is_typed_with_changes_of_clocks_marked(window: Window) -> None:
    await window.open("/new-job?client=shop")
    await window.page.get_by_label("Cron expression").fill("30 2 28 3 *")
    await window.page.locator(".fires .moved").first.wait_for()
    assert "gap" in await window.page.locator(".fires .note").first.inner_text()
    window.quiet()


async def test_what_is_wrong_with_a_trigger_stands_at_its_field_as_it_is_typed(window: Window) -> None:
    page = window.page
    await window.open("/new-job?client=shop")
    expression = page.get_by_label("Cron expression")
    await expression.fill("0 25 * * *")
    await page.locator("#expression-error").wait_for()
    assert await expression.get_attribute("aria-invalid") == "true"
    assert await page.locator("#expression-hint").inner_text() == "minute, hour, day, month, weekday"
    await page.get_by_text("None: the form says what is wrong.").wait_for()
    # A digit as weekday has a meaning by dialect only.
    await expression.fill("0 0 9 * * 1")
    await page.locator("#dialect-error").get_by_text("is required").wait_for()
    await page.get_by_label("Dialect").select_option("spring")
    await page.locator(".fires li").nth(9).wait_for()
    assert await page.locator(".field-error").count() == 0
    sent = await page.get_by_role("group", name="What is sent").inner_text()
    assert '"dialect": "spring"' in sent
    window.quiet("400 (Bad Request)")


async def test_a_recurrence_rule_begins_with_times(window: Window) -> None:
    await window.open("/new-job?client=shop")
    await window.page.get_by_label("Runs", exact=True).select_option("rrule")
    await window.page.get_by_text("FREQ=WEEKLY;BYDAY=MO, ").wait_for()
    await window.page.locator(".fires li").nth(9).wait_for()
    window.quiet()


async def test_what_a_create_refused_is_forgotten_once_the_field_is_changed(window: Window) -> None:
    page = window.page
    await window.open("/new-job?client=shop")
    await page.get_by_label("Job id").fill("report")
    topic = page.get_by_label("Topic")
    await topic.fill("no such topic")
    await page.get_by_role("button", name="Create", exact=True).click()
    await page.locator("#topic-error").wait_for()
    await topic.fill(builders.TOPIC)
    await page.locator("#topic-error").wait_for(state="detached")
    window.quiet("400 (Bad Request)")


async def test_a_job_is_created_found_paused_run_resumed_deleted_and_restored(service: Service, window: Window) -> None:
    page = window.page
    await window.open("/new-job?client=shop")
    await page.get_by_label("Job id").fill("report")
    await page.get_by_label("Topic").fill(builders.TOPIC)
    await page.get_by_role("button", name="Create", exact=True).click()
    await page.get_by_text("Created, and durable.").wait_for()
    await page.get_by_role("link", name="Jobs", exact=True).click()
    await page.get_by_role("combobox", name="Client").fill("shop")
    await page.get_by_role("button", name="Show", exact=True).click()
    await rows(window).get_by_role("link", name="report").click()
    await window.heading("report")
    await page.locator(".fires li").nth(9).wait_for()

    async def act(button: str, verb: str, status: str) -> None:
        await page.get_by_role("button", name=button).click()
        await page.get_by_role("button", name=verb, exact=True).click()
        # Also the page behind the answer shows what is so now.
        await page.locator(f".why .status-{status}").wait_for()
        await page.get_by_role("dialog").get_by_role("button", name="Close").click()

    await act("Pause…", "Pause it", "paused")
    await act("Run now…", "Run it now", "paused")
    await act("Resume…", "Resume it", "active")
    await act("Delete…", "Delete it", "deleted")
    await act("Restore…", "Restore it", "active")
    service.engine.clock.advance_ms(1_000)
    window.quiet()


async def test_a_change_of_a_job_sends_only_what_was_touched(service: Service, window: Window) -> None:
    await asked(service, "POST", "/jobs", JOB)
    await window.open("/job?client=shop&job=report")
    await window.page.get_by_role("link", name="Change…").click()
    await window.heading("Change the job")
    await window.page.get_by_label("Description").fill("for the managers")
    sent = window.page.get_by_role("group", name="What is sent")
    assert "".join((await sent.inner_text()).split()) == '{"description":"forthemanagers"}'
    await window.page.get_by_role("button", name="Change", exact=True).click()
    await window.heading("report")
    changed = await asked(service, "GET", "/jobs/shop/report")
    assert (changed["description"], changed["version"], changed["taskData"]) == ("for the managers", 2, JOB["taskData"])
    await window.page.get_by_role("link", name="Versions").click()
    await rows(window).nth(1).wait_for()
    # The job and its versions are read each for itself.
    await window.page.locator(".as-of").nth(1).wait_for()


async def test_runs_are_listed_with_their_results(service: Service, window: Window) -> None:
    await asked(service, "POST", "/jobs", JOB)
    await asked(service, "POST", "/jobs/shop/report/run-now", {"requestId": "one"})
    service.engine.clock.advance_ms(1_000)
    await service.deliver()
    await window.open("/job?client=shop&job=report&tab=runs")
    delivered = rows(window).filter(has=window.page.locator(".status-delivered"))
    await delivered.wait_for()
    assert "manual" in await delivered.inner_text()


async def test_a_reader_without_the_right_create_may_pause_a_job_and_is_told_that_it_cannot_be_resumed(
    service: Service, window: Window
) -> None:
    await asked(service, "POST", "/jobs", JOB)

    async def without_create(route: Route) -> None:
        answer = await route.fetch()
        me = await answer.json()
        await route.fulfill(response=answer, json={**me, "rights": [each for each in me["rights"] if each != "create"]})

    await window.page.route("**/me", without_create)
    await window.open("/job?client=shop&job=report")
    await window.page.get_by_role("button", name="Pause…").click()
    await window.page.get_by_text("Resuming it needs the right create.").wait_for()
    await window.page.get_by_role("button", name="Pause it").click()
    await window.page.get_by_role("dialog").get_by_role("button", name="Close").click()
    resume = window.page.get_by_role("button", name="Resume…")
    await resume.wait_for()
    assert await resume.get_attribute("aria-disabled") == "true"
    assert "needs the right create" in await resume.inner_text()
    window.quiet()
