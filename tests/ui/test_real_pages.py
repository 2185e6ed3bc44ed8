"""Every page once on the real services: what the twins in memory promise holds there."""

from urllib.parse import urlencode

import pytest
from playwright.async_api import Browser

from tests.support.node_fixtures import cluster, kind, launch, on_each_store
from tests.support.nodes import Cluster
from tests.ui.conftest import opened

__all__ = ["cluster", "kind", "launch"]

HOUR_MS = 3_600_000


@on_each_store
@pytest.mark.processes
async def test_every_page_shows_what_is_in_the_services(browser: Browser, cluster: Cluster) -> None:
    node = await cluster.start(more={"CLOCKWORK_JOBS": "on"})
    await node.until_works(int(cluster.settings["CLOCKWORK_SHARDS"]))
    topic = await cluster.topic()
    for key, in_ms in (("now", 0), ("later", HOUR_MS)):
        assert (await node.client.create(cluster.body(topic, key, in_ms=in_ms))).status == 201
    await cluster.until_status(node.client, "now")
    client = cluster.name

    def of(key: str) -> str:
        return f"/schedule?{urlencode({'client': client, 'key': key})}"

    async with opened(browser, node.client.url) as window:
        page = window.page
        await window.open(f"/schedules?client={client}")
        await window.until_rows("now", "later")
        await window.open(of("now"))
        await page.locator(".why .status-delivered").wait_for()
        await page.locator(".timeline").get_by_text("Kafka partition").wait_for()
        await window.open(of("later"))
        await page.locator(".why .status-pending").wait_for()
        await window.open(f"{of('now')}&tab=history")
        await page.locator("tbody .status-delivered").wait_for()
        await window.open(f"/new-job?client={client}")
        await page.get_by_label("Job id").fill("report")
        await page.get_by_label("Topic").fill(topic)
        await page.get_by_role("button", name="Create", exact=True).click()
        await page.get_by_text("Created, and durable.").wait_for()
        await window.open(f"/jobs?client={client}")
        await page.locator("tbody .status-active").wait_for()
        for path, heading in (
            ("/", "Overview"),
            ("/upcoming", "Upcoming"),
            ("/forecast", "Forecast"),
            ("/activity", "Activity"),
            ("/dead-letters", "Dead letters"),
            ("/destinations", "Destinations"),
            ("/cluster", "Cluster"),
        ):
            await window.open(path)
            await window.heading(heading)
            await window.settled()
            assert await page.locator(".notice.bad").count() == 0, path
        assert await page.locator("tbody .status-good").count() >= int(cluster.settings["CLOCKWORK_SHARDS"])
        window.quiet()


@pytest.mark.processes
async def test_a_new_user_finds_moves_and_cancels_pauses_a_job_and_retries_a_dead_letter(
    browser: Browser, cluster: Cluster
) -> None:
    node = await cluster.start(more={"CLOCKWORK_JOBS": "on"})
    await node.until_works(int(cluster.settings["CLOCKWORK_SHARDS"]))
    topic, client = await cluster.topic(), cluster.name
    assert (await node.client.create(cluster.body(topic, "later", in_ms=HOUR_MS))).status == 201
    late = cluster.body(topic, "late", in_ms=-HOUR_MS)
    late["delivery"] |= {"deadline": 0, "onLate": "dead_letter"}
    assert (await node.client.create(late)).status == 201
    await cluster.until_status(node.client, "late", "failed")

    async with opened(browser, node.client.url) as window:
        page = window.page
        dialog = page.get_by_role("dialog")
        await window.open("/")
        await window.heading("Overview")
        await page.get_by_role("searchbox").fill(f"{client}/later")
        await page.keyboard.press("Enter")
        await page.locator("main tbody").get_by_role("link", name="later").click()
        await window.heading("later")
        await page.get_by_text("It is not due yet.").wait_for()
        await page.get_by_role("button", name="Move…").click()
        await page.get_by_role("button", name="1 day later").click()
        await page.get_by_role("button", name="Move it").click()
        await page.get_by_text("now version 2").wait_for()
        await page.get_by_role("button", name="Cancel…").click()
        await page.get_by_role("button", name="Cancel 1 schedule").click()
        await page.get_by_text("1 of 1 answered.").wait_for()
        await dialog.get_by_role("button", name="Close").click()
        await page.locator(".why .status-cancelled").wait_for()

        await page.get_by_role("link", name="Jobs", exact=True).click()
        await page.get_by_role("link", name="New job").click()
        await page.get_by_role("combobox", name="Client").fill(client)
        await page.get_by_label("Job id").fill("report")
        await page.get_by_label("Topic").fill(topic)
        await page.get_by_role("button", name="Create", exact=True).click()
        await page.get_by_role("link", name=f"{client}/report").click()
        await page.get_by_role("button", name="Pause…").click()
        await page.get_by_role("button", name="Pause it").click()
        await dialog.get_by_role("button", name="Close").click()
        await page.locator(".why .status-paused").wait_for()

        await page.get_by_role("link", name="Dead letters", exact=True).click()
        await page.get_by_role("link", name=f"{client}/late").click()
        await dialog.get_by_role("button", name="Retry…").click()
        await page.get_by_role("button", name="Retry 1 dead letter").click()
        await page.get_by_text("1 of 1 answered.").wait_for()
        await page.get_by_role("rowheader", name="pending again").wait_for()
        window.quiet()
