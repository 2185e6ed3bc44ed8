"""A node in memory with something of everything, for pictures and for rules that hold on every page: a day of deliveries,
hundreds of schedules of several clients, failures, pauses, jobs in each state, and a cluster of several processes.
"""

import math
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import aiohttp

from clockwork.clock import SystemClock
from clockwork.domain.activity import LATENESS_BOUNDS_MS, MINUTE_MS, RATES, MinuteCounts, TopicRateLimit, TopicWait
from clockwork.domain.destination import Topic
from clockwork.domain.ownership import ProcessId
from clockwork.domain.record import OutRecord
from clockwork.domain.registry import ProcessReport
from clockwork.domain.schedule import ClientId
from clockwork.domain.sharding import ShardId
from clockwork.errors import Refusal, RefusalCause
from clockwork.firing.lease import ShardLease
from clockwork.observability.activity import RecordingTelemetry, encode_minute
from clockwork.settings.digests import digests_of
from clockwork.settings.sources import load_settings
from tests.support import builders
from tests.support.clocks import ManualClock
from tests.support.engine import SHARDS, Engine
from tests.ui.conftest import ui_service
from tests.unit.service import Service

PAGES: Final = (
    ("overview", "/", "Overview"),
    ("schedules", "/schedules?client=shop", "Schedules"),
    ("schedules-none", "/schedules", "Schedules"),
    ("schedule", "/schedule?client=shop&key=given-up", "given-up"),
    ("schedule-pending", "/schedule?client=shop&key=order-1001", "order-1001"),
    ("schedule-paused", "/schedule?client=billing&key=overdue", "overdue"),
    ("schedule-content", "/schedule?client=shop&key=order-1001&tab=content", "order-1001"),
    ("schedule-history", "/schedule?client=shop&key=done&tab=history", "done"),
    ("schedule-curl", "/schedule?client=shop&key=order-1001&tab=curl", "order-1001"),
    ("new", "/new?client=shop", "New schedule"),
    ("jobs", "/jobs?client=shop", "Jobs"),
    ("jobs-none", "/jobs", "Jobs"),
    ("job", "/job?client=shop&job=daily-report", "daily-report"),
    ("job-paused", "/job?client=shop&job=month-end", "month-end"),
    ("job-runs", "/job?client=shop&job=poll-stock&tab=runs", "poll-stock"),
    ("job-versions", "/job?client=shop&job=daily-report&tab=versions", "daily-report"),
    ("new-job", "/new-job?client=shop", "New job"),
    ("upcoming", "/upcoming", "Upcoming"),
    ("activity", "/activity", "Activity"),
    ("forecast", "/forecast", "Forecast"),
    ("forecast-week", "/forecast?range=week", "Forecast"),
    ("dead-letters", "/dead-letters", "Dead letters"),
    ("destinations", "/destinations", "Destinations"),
    ("cluster", "/cluster", "Cluster"),
    ("search", "/search?q=shop/order-1001", "Search"),
    ("nowhere", "/nowhere", "Not found"),
)
"""Name, path and heading of every page."""

HOUR_MS: Final = 3_600_000
PAST_MS: Final = 15 * MINUTE_MS
"""Time in which the node of the scene has worked before the pictures are made."""
TOPICS: Final = (builders.TOPIC, "invoices", "reminders", "partner-events")
CLIENTS: Final = ("shop", "billing", "crm", "newsletter")
PROCESSES: Final = ("0123456789abcdef", "23456789abcdef01", "456789abcdef0123")
"""Processes that own shards."""


@asynccontextmanager
async def a_scene() -> AsyncIterator[Service]:
    now_ms = SystemClock().now_ms()
    engine = Engine(clock=ManualClock(now_ms - PAST_MS), telemetry=RecordingTelemetry())
    async with ui_service(engine, banner="staging") as service, aiohttp.ClientSession(service.url) as session:
        await _Scene(service, session, now_ms).play()
        yield service


class _Scene:
    def __init__(self, service: Service, session: aiohttp.ClientSession, now_ms: int) -> None:
        self.service = service
        self.engine = service.engine
        self.session = session
        self.now_ms = now_ms
        self.rng = random.Random(11)

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        async with self.session.request(method, path, json=body) as answer:
            assert answer.status < 300, await answer.text()
            return await answer.json() if answer.status != 204 else None

    async def play(self) -> None:
        for topic in TOPICS[1:]:
            self.engine.kafka.create_topic(topic, kafka_partitions=3)
        await self.minutes_of_the_day()
        await self.service.seed("shop", "billing")
        await self.jobs()
        await self.pending()
        await self.deliveries()
        await self.held_back()
        await self.processes()
        await self.service.recorded()

    # --- what has happened

    async def minutes_of_the_day(self) -> None:
        """A day as it is: busy by day, quiet by night, late for half an hour while a topic was slow."""
        # A minute is told after its end.
        self.engine.clock.set_ms(self.now_ms)
        begin_ms = self.now_ms // MINUTE_MS * MINUTE_MS
        for number in range(1, 24 * 60):
            at_ms = begin_ms - number * MINUTE_MS
            busy = 1.2 + math.sin(2 * math.pi * (at_ms / HOUR_MS - 9) / 24)
            slow = 400 <= number < 430
            counts_of: dict[Topic, list[int]] = {}
            for topic, share in zip(TOPICS, (300, 90, 40, 6), strict=True):
                delivered = int(busy * share * self.rng.uniform(0.8, 1.2))
                created = int(delivered * self.rng.uniform(0.9, 1.15))
                failed = int(topic == TOPICS[3] and number % 50 == 0)
                rates = [created, delivered // 20, delivered // 30, delivered, 3 * failed, failed]
                assert len(rates) == len(RATES)
                counts_of[Topic(topic)] = rates + self.lateness(delivered, slow=slow)
            waits = {Topic(TOPICS[3]): TopicWait(at_ms - 4 * MINUTE_MS, "topic_missing")} if number <= 4 else {}
            limits = {Topic(TOPICS[1]): TopicRateLimit(200, 12), Topic(TOPICS[2]): TopicRateLimit(200, 0)}
            minute = MinuteCounts(topics=counts_of, waits=waits, rate_limits=limits)
            await self.engine.activity.send("minutes", 0, encode_minute(at_ms, minute))
        self.engine.clock.set_ms(self.now_ms - PAST_MS)

    def lateness(self, delivered: int, *, slow: bool) -> list[int]:
        buckets = [0] * (len(LATENESS_BOUNDS_MS) + 1)
        shares = (
            (0, 0, 0.02, 0.1, 0.2, 0.2, 0.2, 0.1, 0.1, 0.08)
            if slow
            else (0.05, 0.2, 0.4, 0.25, 0.08, 0.015, 0.004, 0.001)
        )
        for place, share in enumerate(shares):
            buckets[place] = int(delivered * share + self.rng.random() * (share > 0))
        return buckets

    async def deliveries(self) -> None:
        """The last minutes, one after the other: schedules come due, a few late, a few that their topic does not take."""
        self.engine.kafka.refuse = _too_large
        leases = await self.own()
        begin_ms = self.engine.clock.now_ms()
        for minute in range((self.now_ms - begin_ms) // MINUTE_MS):
            at_ms = begin_ms + minute * MINUTE_MS
            await self.create(
                *(
                    self.schedule(
                        CLIENTS[n % 4],
                        f"{('order', 'invoice', 'call', 'letter')[n % 4]}-{minute * 8 + n:03}",
                        at_ms + 40_000 + n,
                    )
                    for n in range(8)
                ),
                *(
                    self.schedule(
                        "crm", f"import-{minute:02}", at_ms + 41_000, taskData={"rows": "x" * 5_000}, topic="invoices"
                    )
                    for _ in range(minute % 4 == 0)
                ),
            )
            self.engine.clock.set_ms(at_ms + 40_000 + self.rng.choice((3, 9, 21, 1_700)) + 1_000 * (minute % 4 == 0))
            await self.one_pass(leases)
            if minute == 9:
                await self.call("PUT", "/schedule/shop/order-1001", {"scheduleTime": self.now_ms + 2 * HOUR_MS})
                await self.call("DELETE", "/schedule/shop/a")
                await self.call("POST", "/schedule/crm/follow-up-000/fire")

        self.engine.clock.set_ms(self.now_ms)
        await self.one_pass(leases)

    async def one_pass(self, leases: Sequence[ShardLease]) -> None:
        for lease in leases:
            await self.engine.one_pass(lease)
            await lease.cleanup.finish()
        await self.service.recorded()

    async def own(self) -> Sequence[ShardLease]:
        """Has the shards owned by several processes."""
        leases = []
        for shard in range(SHARDS):
            number = shard % len(PROCESSES)
            self.engine.firing = replace(
                self.engine.firing, process=ProcessId(PROCESSES[number]), node=f"node-{'abc'[number]}:17"
            )
            leases.append(await self.engine.own(ShardId(shard)))
        return leases

    # --- what is to come

    def schedule(self, client: str, key: str, due_ms: int, *, topic: str | None = None, **more: Any) -> dict[str, Any]:
        return {
            "clientId": client,
            "scheduleKey": key,
            "scheduleTime": due_ms,
            "taskData": {"n": 1},
            "delivery": {"topic": topic or TOPICS[CLIENTS.index(client)]},
            **more,
        }

    async def create(self, *schedules: dict[str, Any]) -> None:
        answer = await self.call("POST", "/schedules", {"schedules": schedules})
        assert all(each["status"] == 201 for each in answer["results"]), answer

    async def pending(self) -> None:
        data = {
            "order": 9_007_199_254_740_993,
            "items": [{"sku": "A-17", "count": 2}, {"sku": "B-4", "count": 1}],
            "note": "please ring twice",
            "paid": True,
        }
        delivery = {"topic": builders.TOPIC, "headers": {"source": "web", "tenant": "eu-1"}}
        await self.create(
            *(
                self.schedule(
                    "shop",
                    f"order-{1000 + n}",
                    self.now_ms + (n + 1) * 1_000_000,
                    orderingKey=f"customer-{n % 5}",
                    taskData=data,
                    delivery=delivery,
                )
                for n in range(80)
            ),
            *(
                self.schedule("crm", f"follow-up-{n:03}", self.now_ms + int(HOUR_MS * self.rng.betavariate(2, 3)))
                for n in range(160)
            ),
            *(
                self.schedule("newsletter", f"2027-01/{n:04}", self.now_ms + 20 * HOUR_MS + n * 60_000)
                for n in range(90)
            ),
            *(
                self.schedule("billing", f"subscription-{n:03}", self.now_ms + (1 + n % 6) * 24 * HOUR_MS + n * 1_000)
                for n in range(120)
            ),
        )

    async def held_back(self) -> None:
        await self.create(
            *(
                self.schedule("billing", key, self.now_ms - 90_000 + n, taskData={"invoice": 4711})
                for n, key in enumerate(("overdue", "overdue-2"))
            )
        )
        await self.call("PUT", "/admin/pauses/clients/billing")
        reason = {"reason": "Their maintenance, till noon; ask Ana before you resume it"}
        await self.call("PUT", "/admin/pauses/topics/partner-events", reason)

    async def jobs(self) -> None:
        """Jobs in each state: that runs, is paused, has ended, is deleted."""
        for job in (
            {
                "jobId": "daily-report",
                "description": "Sales of the day before, for the managers",
                "labels": {"team": "sales", "tier": "1"},
                "trigger": {"type": "cron", "expression": "30 2 * * *", "timeZone": "Europe/Berlin"},
                "taskData": {"report": "sales", "limit": 12_345_678_901_234_567_890},
            },
            {
                "jobId": "poll-stock",
                "trigger": {"type": "fixed_rate", "everyMs": 60_000},
                "taskData": None,
                "labels": {"team": "stock"},
            },
            {
                "jobId": "month-end",
                "description": "Closes the books",
                "trigger": {"type": "cron", "expression": "0 6 1 * *", "timeZone": "America/New_York"},
                "taskData": "close",
            },
            {
                "jobId": "migration",
                "trigger": {"type": "fixed_rate", "everyMs": 60_000, "end": self.engine.clock.now_ms() + 200_000},
                "taskData": None,
            },
            {"jobId": "old-export", "trigger": {"type": "cron", "expression": "0 * * * *"}, "taskData": None},
            {"jobId": "rebuild-index", "durable": True, "taskData": None},
        ):
            await self.call("POST", "/jobs", {"clientId": "shop", "delivery": {"topic": builders.TOPIC}, **job})
        await self.call(
            "PUT", "/jobs/shop/daily-report", {"description": "Sales of the day before, for the managers and the board"}
        )
        await self.call("POST", "/jobs/shop/month-end/pause", {"note": "until the audit is over"})
        await self.call("DELETE", "/jobs/shop/old-export")
        await self.call("POST", "/jobs/shop/rebuild-index/run-now", {"requestId": "one"})

    # --- who does the work

    async def processes(self) -> None:
        """Three that own shards, one that only accepts and has another setting, and one that is gone."""
        alike = digests_of(load_settings({}))
        unlike = digests_of(load_settings({"CLOCKWORK_DRAIN_TIMEOUT_MS": "4000"}))
        working = ProcessReport(
            process=ProcessId(PROCESSES[0]),
            seen_at_ms=self.now_ms - 4_000,
            node="node-a:17",
            role="all",
            version="1.0.0",
            since_ms=self.now_ms - 26 * HOUR_MS,
            shards=3,
            assigned=3,
            created_per_second=14.2,
            delivered_per_second=13.6,
            loop_lag_ms=3,
            clock_skew_ms=-1,
            settings=alike,
        )
        reports = [
            working,
            replace(
                working,
                process=ProcessId(PROCESSES[1]),
                node="node-b:17",
                seen_at_ms=self.now_ms - 7_000,
                delivered_per_second=1_204.0,
                loop_lag_ms=11,
            ),
            replace(
                working,
                process=ProcessId(PROCESSES[2]),
                node="node-c:17",
                seen_at_ms=self.now_ms - 2_000,
                shards=1,
                assigned=2,
                clock_skew_ms=12,
                since_ms=self.now_ms - 40_000,
            ),
            replace(
                working,
                process=ProcessId("6789abcdef012345"),
                node="api-1:9",
                role="api",
                shards=0,
                assigned=0,
                delivered_per_second=0.0,
                settings=unlike,
            ),
            replace(
                working,
                process=ProcessId("89abcdef01234567"),
                node="node-d:17",
                seen_at_ms=self.now_ms - 400_000,
                shards=0,
                assigned=0,
            ),
        ]
        for report in reports:
            await self.engine.registry.put_report(report)
        for client in CLIENTS:
            await self.engine.registry.put_client(ClientId(client), day=self.now_ms // (24 * HOUR_MS))
        self.engine.ownership.members = frozenset(map(ProcessId, PROCESSES))


def _too_large(record: OutRecord) -> Refusal | None:
    if record.topic == "invoices" and record.size_bytes > 5_000:
        return Refusal(cause=RefusalCause.RECORD, reason="record_too_large", destination=record.topic)
    return None
