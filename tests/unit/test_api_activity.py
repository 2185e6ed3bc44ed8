"""GET /events and GET /minutes, on a node's service with the twins in memory."""

from typing import Any

import aiohttp
import pytest

from clockwork.domain.activity import DELIVERED, MINUTE_MS, Action, MinuteCounts, TopicRateLimit, TopicWait
from clockwork.domain.destination import Topic
from clockwork.domain.rights import Principal, Right, names_of
from clockwork.domain.sharding import ShardId
from clockwork.http.activity import decode_cursor, encode_cursor
from clockwork.http.server import HttpServer, make_app
from clockwork.observability.activity import RecordingTelemetry, encode_minute
from clockwork.operations.activity import FORECAST_MS_MAX, ActivityTail, Cursor
from clockwork.operations.forecast import ShardForecasts
from clockwork.ports.activity import ActivityRecord
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import HttpSettings
from tests.support import builders
from tests.support.engine import SHARDS, Engine
from tests.unit.api_edge import FakeReadiness
from tests.unit.service import gate_of, open_service


def a_recording_engine() -> Engine:
    return Engine(telemetry=RecordingTelemetry())


def a_key(*rights: Right, clients: str = "*", topics: str = "*") -> Principal:
    return Principal(name="ana", clients=names_of([clients]), topics=names_of([topics]), rights=frozenset(rights))


KEYS = {
    "reader": a_key(Right.READ),
    "shop": a_key(Right.READ, clients="shop", topics="mail"),
    "topic": a_key(Right.READ, clients="bank", topics=builders.TOPIC),
    "admin": a_key(Right.ADMIN, Right.READ, clients="bank", topics="mail"),
    "maker": a_key(Right.CREATE, Right.CANCEL),
}


async def got(session: aiohttp.ClientSession, path: str, key: str = "reader") -> tuple[int, Any]:
    async with session.get(path, headers={"Authorization": f"Bearer {key}"}) as answer:
        return answer.status, await answer.json()


async def test_a_schedules_life_is_shown_from_its_create_to_its_record() -> None:
    async with open_service(a_recording_engine()) as service, aiohttp.ClientSession(service.url) as session:
        await service.seed("shop")
        await service.recorded()
        _, document = await got(session, "/events")

        kinds = [(each["kind"], each["scheduleKey"]) for each in document["events"]]
        assert kinds.count(("created", "done")) == 1
        assert kinds.index(("created", "gone")) < kinds.index(("cancelled", "gone"))
        delivered = next(each for each in document["events"] if each["kind"] == "delivered")
        failed = next(each for each in document["events"] if each["kind"] == "failed")
        assert (delivered["clientId"], delivered["scheduleKey"], delivered["topic"]) == ("shop", "done", builders.TOPIC)
        assert delivered["latenessMs"] == 1
        assert delivered["offset"] == "0"
        assert (failed["scheduleKey"], failed["result"]) == ("given-up", "expired")
        assert next(each for each in document["events"] if each["kind"] == "created")["by"] == "anyone"
        assert not any("taskData" in each for each in document["events"])

        _, since = await got(session, f"/events?cursor={document['cursor']}")
        assert (since["events"], since["more"]) == ([], False)
        async with session.delete("/schedule/shop/a"):
            pass
        await service.recorded()
        _, since = await got(session, f"/events?cursor={since['cursor']}")
        assert [(each["kind"], each["scheduleKey"]) for each in since["events"]] == [("cancelled", "a")]


@pytest.mark.parametrize(
    ("query", "keys"),
    [
        ("kind=delivered", {("delivered", "done")}),
        ("kind=delivered,failed", {("delivered", "done"), ("failed", "given-up")}),
        ("scheduleKey=gone", {("created", "gone"), ("cancelled", "gone")}),
        ("result=expired", {("failed", "given-up")}),
        ("topic=other", set()),
        ("clientId=bank", set()),
    ],
)
async def test_events_can_be_filtered_by_each_of_their_names(query: str, keys: set[tuple[str, str]]) -> None:
    async with open_service(a_recording_engine()) as service, aiohttp.ClientSession(service.url) as session:
        await service.seed("shop")
        await service.recorded()
        _, document = await got(session, f"/events?{query}")
        assert {(each["kind"], each["scheduleKey"]) for each in document["events"]} == keys


async def test_a_key_sees_the_events_of_its_clients_and_the_minutes_of_its_topics_alone() -> None:
    engine = a_recording_engine()
    async with open_service(engine) as service, aiohttp.ClientSession(service.url) as session:
        await service.seed("shop", "bank")
        recorder = engine.recorder
        assert recorder is not None
        recorder.action(Action(kind="paused", by="ana", topic=builders.TOPIC))
        recorder.action(Action(kind="fenced", by="ana", shard=ShardId(3)))
        await service.recorded()
        engine.clock.advance_ms(60_000)
        await service.recorded()
    engine.tail = ActivityTail(engine.activity, engine.clock)  # a restart: its memory is filled anew
    async with (
        open_service(engine, gate=gate_of(KEYS)) as service,
        aiohttp.ClientSession(service.url) as session,
    ):
        clients = {}
        for key in ("reader", "shop", "topic", "admin"):
            status, document = await got(session, "/events?limit=1000", key)
            assert status == 200
            clients[key] = {each.get("clientId", each["kind"]) for each in document["events"]}
        assert clients == {
            "reader": {"shop", "bank", "paused"},
            "shop": {"shop"},
            "topic": {"bank", "paused"},
            "admin": {"bank", "paused", "fenced"},
        }
        assert (await got(session, "/events", "maker"))[0] == 403
        assert (await got(session, "/events?clientId=bank", "shop"))[0] == 403

        minutes = {}
        for key in ("reader", "shop", "topic", "admin"):
            status, document = await got(session, "/minutes", key)
            assert status == 200
            minutes[key] = (
                [each["topic"] for each in document["topics"]],
                sum(each["delivered"] for each in document["minutes"]),
                "processes" in document["minutes"][0] if document["minutes"] else None,
            )
        assert minutes == {
            "reader": ([builders.TOPIC], 2, True),
            "shop": ([], 0, False),
            "topic": ([builders.TOPIC], 2, False),
            "admin": ([builders.TOPIC], 2, True),
        }
        assert (await got(session, "/minutes", "maker"))[0] == 403
        assert (await got(session, f"/minutes?topic={builders.TOPIC}", "shop"))[0] == 403


async def test_a_forecast_is_compared_with_the_minute_of_most_deliveries_for_covered_topics() -> None:
    engine = a_recording_engine()
    async with open_service(engine, gate=gate_of(KEYS)) as service, aiohttp.ClientSession(service.url) as session:
        assert "mostDelivered" not in (await got(session, "/forecast"))[1]
    begin_ms = engine.clock.now_ms() // 60_000 * 60_000
    for delivered in (1, 3, 2):
        engine.tail.take([a_minute(engine, delivered)])
        engine.clock.advance_ms(60_000)
    async with open_service(engine, gate=gate_of(KEYS)) as service, aiohttp.ClientSession(service.url) as session:
        most = {"count": 3, "at": begin_ms + 60_000, "since": begin_ms}
        for key, path, told in (
            ("reader", "/forecast", most),
            ("topic", "/forecast", most),
            ("shop", "/forecast", None),
            ("reader", f"/forecast?topic={builders.TOPIC}", most),
            ("reader", "/forecast?topic=mail", None),
            ("reader", "/forecast?clientId=shop", None),
        ):
            assert (await got(session, path, key))[1].get("mostDelivered") == told, (key, path)


async def test_the_next_hour_is_shown_as_it_was_recorded_to_keys_that_cover_every_client() -> None:
    engine = a_recording_engine()
    engine.clock.set_ms(engine.clock.now_ms() // MINUTE_MS * MINUTE_MS + 50_000)
    async with open_service(engine, gate=gate_of(KEYS)) as service, aiohttp.ClientSession(service.url) as session:
        due_ms = engine.clock.now_ms() + 20_000
        engine.store.put_by_hand(builders.row(builders.schedule(due_ms=due_ms)))
        recorder = engine.recorder
        assert recorder is not None
        made_at_ms = engine.clock.now_ms()
        forecasts = ShardForecasts(
            forecaster=engine.query_services.forecaster,
            clock=engine.clock,
            telemetry=NoTelemetry(),
            shards=lambda: frozenset(map(ShardId, range(SHARDS))),
            record=recorder.forecast,
        )
        await forecasts.make()
        engine.clock.advance_ms(30_000)
        await service.recorded()
        now_ms = engine.clock.now_ms()

        _, recorded = await got(session, "/forecast")
        assert (recorded["asOf"], recorded["from"]) == (made_at_ms, now_ms // MINUTE_MS * MINUTE_MS)
        assert (recorded["exact"], recorded["overdue"], len(recorded["buckets"])) == (True, 0, 60)
        assert (recorded["buckets"][0]["count"], recorded["byTopic"][0]["count"]) == (1, 1)
        for key, query, headers in (
            ("shop", "", {}),
            ("reader", "?clientId=shop", {}),
            ("reader", f"?topic={builders.TOPIC}", {}),
            ("reader", "?bucketMs=30000", {}),
            ("reader", f"?to={now_ms + 60_000}", {}),
            ("reader", "", {"Cache-Control": "no-cache"}),
        ):
            session.headers.update(headers)
            _, read = await got(session, f"/forecast{query}", key)
            assert read["asOf"] == now_ms, (key, query)
        # A minute is over, and the next one is not recorded: what is shown gets older, and then is read.
        del session.headers["Cache-Control"]
        engine.clock.advance_ms(FORECAST_MS_MAX)
        _, read = await got(session, "/forecast?bucketMs=60000")
        assert read["asOf"] == engine.clock.now_ms()


def a_minute(engine: Engine, delivered: int) -> ActivityRecord:
    """The record of a minute with some deliveries, sent at its end."""
    now_ms = engine.clock.now_ms()
    minute = MinuteCounts()
    minute.of(builders.TOPIC)[DELIVERED] = delivered
    value = encode_minute(now_ms // MINUTE_MS * MINUTE_MS, minute)
    return ActivityRecord(stream="minutes", kafka_partition=0, offset=0, at_ms=now_ms + MINUTE_MS, value=value)


async def test_minutes_say_rates_and_lateness_by_step_and_topic() -> None:
    engine = a_recording_engine()
    async with open_service(engine) as service, aiohttp.ClientSession(service.url) as session:
        await service.seed("shop")
        engine.clock.advance_ms(60_000)
        await service.recorded()
        _, document = await got(session, "/minutes?stepMs=3600000")

        (step,) = document["minutes"]
        (topic,) = document["topics"]
        wanted = {"created": 4, "cancelled": 1, "moved": 0, "delivered": 1, "retried": 0, "failed": 1}
        assert {name: step[name] for name in wanted} == wanted
        assert {name: topic[name] for name in wanted} == wanted
        bounds = document["latenessBoundsMs"]
        assert step["lateness"] == [1] + [0] * len(bounds)
        assert document["to"] - document["from"] >= 3_600_000


async def test_topics_that_take_no_records_are_told_with_since_when_and_why_to_those_who_may_see_them() -> None:
    engine = a_recording_engine()
    now_ms = engine.clock.now_ms()
    # Of two processes one has met the first refusal earlier; the other one alone sends to `billing`.
    here = MinuteCounts(waits={builders.TOPIC: TopicWait(now_ms - 9, "topic_missing")})
    there = MinuteCounts(
        waits={
            builders.TOPIC: TopicWait(now_ms - 70_000, "leader_away"),
            Topic("billing"): TopicWait(now_ms - 5, "topic_forbidden"),
        }
    )
    async with open_service(engine, gate=gate_of(KEYS)) as service, aiohttp.ClientSession(service.url) as session:
        for minute in (here, there):
            await engine.activity.send("minutes", 0, encode_minute(now_ms // MINUTE_MS * MINUTE_MS, minute))
        engine.clock.advance_ms(MINUTE_MS + 10_000)
        await service.recorded()
        _, document = await got(session, "/minutes", "admin")
        assert document["waiting"] == [
            {"topic": builders.TOPIC, "since": now_ms - 70_000, "reason": "leader_away"},
            {"topic": "billing", "since": now_ms - 5, "reason": "topic_forbidden"},
        ]
        _, document = await got(session, f"/minutes?topic={builders.TOPIC}", "admin")
        assert [each["topic"] for each in document["waiting"]] == [builders.TOPIC]
        _, document = await got(session, "/minutes", "topic")
        assert [each["topic"] for each in document["waiting"]] == [builders.TOPIC]
        # The next minute is over, and no process has told of a wait.
        engine.clock.advance_ms(MINUTE_MS)
        await service.recorded()
        _, document = await got(session, "/minutes", "admin")
        assert document["waiting"] == []


async def test_the_rate_limit_of_a_topic_is_that_of_the_processes_which_deliver_to_it() -> None:
    engine = a_recording_engine()
    begin_ms = engine.clock.now_ms() // MINUTE_MS * MINUTE_MS
    engine.clock.advance_ms(3 * MINUTE_MS + 10_000)

    async def tell(after_ms: int, topic: Topic, *limits: tuple[int, int]) -> None:
        """A record of each process with a limit."""
        for limit in limits:
            minute = MinuteCounts(rate_limits={topic: TopicRateLimit(*limit)})
            minute.of(topic)[DELIVERED] = 1
            await engine.activity.send("minutes", 0, encode_minute(begin_ms + after_ms, minute))

    async with open_service(engine, gate=gate_of(KEYS)) as service, aiohttp.ClientSession(service.url) as session:
        await tell(0, builders.TOPIC, (10, 9))
        await tell(MINUTE_MS, builders.TOPIC, (50, 1), (50, 2))
        await tell(2 * MINUTE_MS, Topic("billing"), (7, 0))
        await service.recorded()
        _, document = await got(session, "/minutes", "admin")
        _, covered = await got(session, "/minutes", "topic")

    limits = {each["topic"]: each["rateLimit"] for each in document["topics"]}
    assert limits == {
        builders.TOPIC: {"perSecond": 100, "waits": 3},
        "billing": {"perSecond": 7, "waits": 0},
    }
    assert [each["rateLimit"] for each in covered["topics"]] == [limits[builders.TOPIC]]


@pytest.mark.parametrize(
    "query",
    [
        "/events?cursor=x",
        "/events?cursor=W10",
        "/events?limit=0",
        "/events?kind=exploded",
        "/events?from=yesterday",
        "/events?key=a",
        "/minutes?stepMs=1000",
        "/minutes?stepMs=0",
        "/minutes?from=0&to=1795248000000",
        "/minutes?from=1795248000000&to=1795248000000",
    ],
)
async def test_what_is_not_understood_is_refused(query: str) -> None:
    async with open_service() as service, aiohttp.ClientSession(service.url) as session:
        assert (await got(session, query))[0] == 400


async def test_a_cursor_and_a_time_do_not_go_together() -> None:
    async with open_service() as service, aiohttp.ClientSession(service.url) as session:
        _, document = await got(session, "/events")
        assert (await got(session, f"/events?cursor={document['cursor']}&from=1"))[0] == 400


def test_a_cursor_comes_back_as_it_was_given_out() -> None:
    cursor = Cursor(places={0: (7, 3), 5: (2**53 + 1, 0)}, at_ms=builders.DUE_MS)
    assert decode_cursor(encode_cursor(cursor)) == cursor


async def test_a_cluster_that_records_nothing_says_so() -> None:
    engine = Engine()
    app = make_app(engine.requests, HttpSettings(port=0), FakeReadiness(), NoTelemetry())
    async with (
        HttpServer(app, HttpSettings(port=0)) as server,
        aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session,
    ):
        for path in ("/events", "/minutes"):
            status, document = await got(session, path)
            assert (status, document["type"]) == (501, "urn:clockwork:problem:events-off")
