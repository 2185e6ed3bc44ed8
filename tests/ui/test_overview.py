"""Overview and Cluster in the dashboard: what asks for attention, and figures that are read out."""

from datetime import datetime

from clockwork.domain.activity import COUNTS, MINUTE_MS, RATES, MinuteCounts, TopicWait, lateness_bucket_index
from clockwork.domain.destination import Topic
from clockwork.observability.activity import encode_minute
from tests.support import builders
from tests.ui.asking import asked, create, deliver
from tests.ui.conftest import Window
from tests.ui.test_states import LOADING, answers
from tests.unit.service import Service

STEP_MS = 900_000


async def test_what_asks_for_attention_is_told_worst_first_each_a_link(service: Service, window: Window) -> None:
    await asked(service, "PUT", "/admin/pauses/clients/billing")
    await window.page.route("**/admin/nodes", answers(500, title="Out of order"))
    await window.open("/")
    attention = window.page.get_by_role("region", name="What asks for attention")
    # What is read last comes in between.
    await attention.locator("li").nth(2).wait_for()
    assert [text.split(" ", 1)[1] for text in await attention.locator("li").all_inner_texts()] == [
        "Processes could not be read: Out of order",
        "8 shards have no owner: what is due there waits",
        "1 client or topic is paused",
    ]
    links = await attention.get_by_role("link").evaluate_all("(all) => all.map((each) => each.getAttribute('href'))")
    assert links == ["/ui/cluster", "/ui/destinations"]
    window.quiet(LOADING)


async def test_the_map_of_lateness_is_read_out_field_by_field_with_arrow_keys(service: Service, window: Window) -> None:
    counts = [0] * COUNTS
    counts[RATES.index("delivered")] = counts[lateness_bucket_index(7)] = 7
    minute = MinuteCounts(topics={Topic(builders.TOPIC): counts})
    begin_ms = service.engine.clock.now_ms() // STEP_MS * STEP_MS
    # In two steps, one after the other: the page may be opened in the next one.
    for at_ms in (begin_ms, begin_ms - STEP_MS):
        await service.engine.activity.send("minutes", 0, encode_minute(at_ms, minute))
    await window.open("/")
    chart = window.page.get_by_role("application", name="Deliveries by time and lateness")
    await chart.press("ArrowLeft")
    await chart.press("ArrowLeft")
    told = window.page.get_by_role("region", name="Lateness, last 24 hours").locator("[aria-live]")
    await told.get_by_text("≤ 10 ms: 7 deliveries").wait_for()
    await chart.press("ArrowUp")
    await told.get_by_text("≤ 100 ms: 0 deliveries").wait_for()
    window.quiet()


async def test_a_topic_that_takes_no_records_is_shown_with_since_when_and_why(service: Service, window: Window) -> None:
    clock = service.engine.clock
    since_ms = clock.now_ms() // 1_000 * 1_000 - 240_000
    minute = MinuteCounts(waits={Topic("invoices"): TopicWait(since_ms, "topic_missing")})
    await service.engine.activity.send("minutes", 0, encode_minute(clock.now_ms() // MINUTE_MS * MINUTE_MS, minute))
    clock.advance_ms(MINUTE_MS + 10_000)
    await window.open("/destinations")
    row = window.page.get_by_role("row", name="invoices")
    await row.get_by_text("topic_missing").wait_for()
    told = await row.locator("time").get_attribute("datetime")
    assert told is not None
    assert datetime.fromisoformat(told).timestamp() * 1_000 == since_ms
    window.quiet()


async def test_the_shard_that_a_link_names_is_marked(service: Service, window: Window) -> None:
    await create(service, "one")
    await deliver(service, "one")
    shard = (await asked(service, "GET", "/schedule/shop/one"))["shard"]
    await window.open("/schedule?client=shop&key=one")
    await window.page.get_by_role("link", name=str(shard), exact=True).click()
    await window.heading("Cluster")
    marked = window.page.locator("tr[aria-current]")
    await marked.wait_for()
    assert await marked.locator("th").inner_text() == str(shard)
