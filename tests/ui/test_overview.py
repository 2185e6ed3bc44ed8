"""Overview and Cluster in the dashboard: what asks for attention, and figures that are read out."""

from datetime import datetime
from typing import Any

import pytest

from clockwork.domain.activity import (
    COUNTS,
    MINUTE_MS,
    RATES,
    MinuteCounts,
    TopicRateLimit,
    TopicWait,
    lateness_bucket_index,
)
from clockwork.domain.destination import Topic
from clockwork.errors import RefusalCause
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


async def test_a_topic_that_takes_no_records_asks_for_attention_by_its_name_and_not_as_shards_that_are_behind(
    service: Service, window: Window
) -> None:
    clock = service.engine.clock
    await create(service, "one", scheduleTime=0)
    counts = [0] * COUNTS
    counts[RATES.index("created")] = 1
    waits = {Topic(builders.TOPIC): TopicWait(clock.now_ms() - 240_000, "topic_missing")}
    minute = MinuteCounts(topics={Topic(builders.TOPIC): counts}, waits=waits)
    await service.engine.activity.send("minutes", 0, encode_minute(clock.now_ms() // MINUTE_MS * MINUTE_MS, minute))
    clock.advance_ms(MINUTE_MS + 10_000)
    await window.open("/")
    attention = window.page.get_by_role("region", name="What asks for attention")
    link = attention.get_by_role("link", name=f"The topic {builders.TOPIC} takes no records, for ")
    await link.get_by_text("topic_missing; 1 due waits for it").wait_for()
    await window.settled()
    assert await attention.get_by_role("link", name="ask why").count() == 0
    await link.click()
    await window.heading("Destinations")
    # Both tables say the same.
    for table in ("Topics that take no records", "Topics of the last hour"):
        row = window.page.get_by_role("table", name=table).get_by_role("row", name=builders.TOPIC)
        await row.get_by_text("▲ waits").wait_for()
    window.quiet()


async def test_a_pause_is_said_before_it_holds_anything_back(service: Service, window: Window) -> None:
    await create(service, "one")
    await asked(service, "PUT", "/admin/pauses/clients/shop", {"reason": "stock-taking"})
    paused, warning = "The client shop is paused since", "Nothing is delivered yet: the client shop is paused"
    await window.open("/schedules?client=shop")
    await window.page.get_by_role("note").get_by_text(paused).wait_for()
    await window.page.get_by_role("button", name="Fire all now…").click()
    await window.page.get_by_role("dialog").get_by_text(warning).wait_for()
    await window.open("/schedule?client=shop&key=one")
    why = window.page.get_by_role("region", name="State, and why")
    await why.get_by_text("It is not due yet, and its client is paused.").wait_for()
    await why.get_by_text(paused).wait_for()
    await window.page.get_by_role("button", name="Fire now…").click()
    await window.page.get_by_role("dialog").get_by_text(warning).wait_for()
    window.quiet()


async def test_a_name_that_no_node_has_seen_is_told_before_it_is_paused_and_may_be(
    service: Service, window: Window
) -> None:
    await create(service, "one")
    await service.recorded()
    await window.open("/destinations")
    await window.page.get_by_role("button", name="Pause…").first.click()
    dialog = window.page.get_by_role("dialog")
    await dialog.get_by_label("What").select_option("client")
    await dialog.get_by_label("Its name").fill("shopp")
    unknown = dialog.get_by_text("No create of a client")
    await unknown.wait_for()
    await dialog.get_by_label("Its name").fill("shop")
    await unknown.wait_for(state="detached")
    await dialog.get_by_label("Its name").fill("shopp")
    await dialog.get_by_role("button", name="Pause it").click()
    await window.page.get_by_role("table", name="Paused clients and topics").get_by_role("row", name="shopp").wait_for()
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


async def test_a_pause_is_shown_with_its_person_and_its_reason_also_where_a_schedule_waits_for_it(
    service: Service, window: Window
) -> None:
    await create(service, "one", scheduleTime=0)
    await asked(service, "PUT", "/admin/pauses/clients/shop", {"reason": "<b>stock-taking</b>"})
    await window.open("/destinations")
    row = window.page.get_by_role("row", name="shop")
    await row.get_by_text("<b>stock-taking</b>").wait_for()
    await row.get_by_text("anyone").wait_for()
    await window.open("/schedule?client=shop&key=one")
    why = window.page.get_by_role("region", name="State, and why")
    await why.get_by_text("The client shop is paused since").wait_for()
    await why.get_by_text("<b>stock-taking</b>").wait_for()
    window.quiet()


async def test_a_schedule_tells_since_when_its_topic_takes_no_records(service: Service, window: Window) -> None:
    engine = service.engine
    await create(service, "one", scheduleTime=0, orderingKey="lane")
    shard = (await asked(service, "GET", "/schedule/shop/one"))["shard"]
    await engine.own(shard)
    now_ms = engine.clock.now_ms() // 1_000 * 1_000
    engine.destination_waits.refused(builders.TOPIC, RefusalCause.TRANSIENT, "not_enough_replicas", now_ms=now_ms)
    await window.open("/schedule?client=shop&key=one")
    told = window.page.get_by_text("not enough replicas since").locator("time").first
    since = await told.get_attribute("datetime")
    assert since is not None
    assert datetime.fromisoformat(since).timestamp() * 1_000 == now_ms
    window.quiet()


async def test_a_topic_has_its_rate_limit_and_whether_it_is_held_back_by_it(service: Service, window: Window) -> None:
    clock = service.engine.clock
    minute = MinuteCounts(rate_limits={Topic("invoices"): TopicRateLimit(1_500, 3)})
    minute.of(Topic("invoices"))[0] = minute.of(Topic("orders"))[0] = 1
    await service.engine.activity.send("minutes", 0, encode_minute(clock.now_ms() // MINUTE_MS * MINUTE_MS, minute))
    clock.advance_ms(MINUTE_MS + 10_000)
    await window.open("/destinations")
    table = window.page.get_by_role("table", name="Topics of the last hour")
    await table.get_by_role("row", name="invoices").get_by_text("1,500 a second, ◆ held back").wait_for()
    await table.get_by_role("row", name="orders").get_by_text("none", exact=True).wait_for()
    window.quiet()


async def test_a_lag_is_put_down_to_a_pause_only_where_what_is_due_first_is_paused(
    service: Service, window: Window
) -> None:
    shards: list[dict[str, Any]] = [{"shard": number, "owner": "a.1", "node": "n", "lagMs": 0} for number in range(4)]
    shards[1] |= {"lagMs": 7_200_000, "oldestPaused": True}
    await asked(service, "PUT", "/admin/pauses/clients/billing")
    await window.page.route("**/admin/shards", lambda route: route.fulfill(json={"shards": shards}))
    attention = window.page.get_by_role("region", name="What asks for attention")
    by_pause = attention.get_by_role("link", name="A pause holds back what is due first in 1 shard, for 2 h")
    behind = attention.get_by_role("link", name="What is due first in 1 shard waits for up to 1 min: ask why")

    await window.open("/")
    await by_pause.wait_for()
    await window.settled()
    assert await behind.count() == 0
    shards[2]["lagMs"] = 60_000
    await window.open("/")
    await behind.wait_for()
    await by_pause.wait_for()
    tile = window.page.get_by_role("link", name="the oldest due waits")
    assert "bad" in (await tile.get_attribute("class") or "").split()
    window.quiet()


@pytest.mark.parametrize(
    ("open_ones", "more", "tile", "attention"),
    [
        (7, True, "7 or more", "7 or more dead letters are open"),
        (0, True, "0 or more", "None of the first 100 dead letters is open"),
        (1, False, "1", "1 dead letter is open"),
    ],
)
async def test_open_dead_letters_are_counted_among_those_that_were_looked_at_and_it_is_said(
    service: Service, window: Window, open_ones: int, more: bool, tile: str, attention: str
) -> None:
    letters = [{"deadLetterTopic": "d", "partition": 0, "offset": n, "at": 1, "open": n < open_ones} for n in range(10)]
    page = {"deadLetters": letters, "cursor": "next" if more else None}
    await window.page.route("**/admin/dead-letters?*", lambda route: route.fulfill(json=page))
    await window.open("/")
    figure = window.page.get_by_role("link", name="open dead letters").first
    await figure.get_by_text(tile, exact=True).wait_for()
    await window.page.get_by_role("region", name="What asks for attention").get_by_text(attention).wait_for()
    window.quiet()


async def test_a_process_that_is_gone_asks_for_attention_for_some_minutes_only(
    service: Service, window: Window
) -> None:
    now_ms = service.engine.clock.now_ms()
    node: dict[str, Any] = {"node": "n:1", "role": "all", "version": "1", "since": 1, "gone": True, "accepts": True}
    node |= {"fires": True, "shards": 0, "assigned": 0, "createdPerSecond": 0, "deliveredPerSecond": 0, "loopLagMs": 0}
    lately, before = ({**node, "process": str(ago), "seenAt": now_ms - ago} for ago in (60_000, 3_600_000))
    nodes = [lately, before]
    await window.page.route("**/admin/nodes", lambda route: route.fulfill(json={"nodes": nodes}))
    attention = window.page.get_by_role("region", name="What asks for attention")
    await window.open("/")
    await attention.get_by_text("1 process was last seen more than 30 s ago").wait_for()
    nodes.remove(lately)
    await window.open("/")
    await window.settled()
    await attention.get_by_text("8 shards have no owner").wait_for()
    assert await attention.get_by_text("last seen").count() == 0
    window.quiet()


async def test_deliveries_that_were_late_lead_to_the_deliveries(service: Service, window: Window) -> None:
    counts = [0] * COUNTS
    counts[RATES.index("delivered")] = counts[-1] = 7
    minute = MinuteCounts(topics={Topic(builders.TOPIC): counts})
    begin_ms = service.engine.clock.now_ms() // MINUTE_MS * MINUTE_MS
    await service.engine.activity.send("minutes", 0, encode_minute(begin_ms - MINUTE_MS, minute))
    await window.open("/?tz=UTC")
    late = window.page.get_by_role("link", name="100.0 % of the last hour's deliveries were more than 1 s late")
    assert await late.get_attribute("href") == "/ui/activity?kind=delivered&tz=UTC"


async def test_shards_that_are_behind_come_first_and_no_row_moves_until_it_is_asked_for(
    service: Service, window: Window
) -> None:
    shards: list[dict[str, Any]] = [{"shard": number, "owner": "a.1", "node": "n", "lagMs": 0} for number in range(4)]
    shards[2]["lagMs"] = 60_000
    await window.page.route("**/admin/shards", lambda route: route.fulfill(json={"shards": shards}))
    order = "() => [...document.querySelectorAll('[aria-label=Shards] tbody tr')].map((row) => row.dataset.key).join()"
    await window.open("/cluster")
    table = window.page.get_by_role("table", name="Shards")
    await table.get_by_text("behind").wait_for()
    assert await window.page.evaluate(order) == "2,0,1,3"
    shards[2]["lagMs"] = 0
    shards[3]["lagMs"] = 90_000
    shards[1].pop("owner")
    await window.page.get_by_role("region", name="Shards").get_by_role("button", name="Refresh").click()
    await table.locator(".status-bad").wait_for()
    assert await window.page.evaluate(order) == "2,0,1,3"
    await window.page.get_by_role("button", name="2 shards further down do not fire as they should").click()
    assert await window.page.evaluate(order) == "1,3,0,2"
    window.quiet()
