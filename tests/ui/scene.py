"""A node in memory with something of everything, for pictures and for rules that hold on every page."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp

from clockwork.clock import SystemClock
from tests.support import builders
from tests.support.clocks import ManualClock
from tests.support.engine import Engine
from tests.ui.conftest import ui_service
from tests.unit.service import Service

PAGES: Final = (
    ("overview", "/", "Overview"),
    ("schedules", "/schedules?client=shop", "Schedules"),
    ("schedules-none", "/schedules", "Schedules"),
    ("schedule", "/schedule?client=shop&key=given-up", "given-up"),
    ("schedule-pending", "/schedule?client=shop&key=order-1001", "order-1001"),
    ("schedule-paused", "/schedule?client=billing&key=overdue", "overdue"),
    ("schedule-history", "/schedule?client=shop&key=done&tab=history", "done"),
    ("new", "/new?client=shop", "New schedule"),
    ("jobs", "/jobs?client=shop", "Jobs"),
    ("job", "/job?client=shop&job=daily-report", "daily-report"),
    ("new-job", "/new-job?client=shop", "New job"),
    ("upcoming", "/upcoming", "Upcoming"),
    ("activity", "/activity", "Activity"),
    ("forecast", "/forecast", "Forecast"),
    ("dead-letters", "/dead-letters", "Dead letters"),
    ("destinations", "/destinations", "Destinations"),
    ("cluster", "/cluster", "Cluster"),
    ("search", "/search?q=shop/order-1001", "Search"),
)
"""Name, path and heading of every page."""


@asynccontextmanager
async def a_scene() -> AsyncIterator[Service]:
    now_ms = SystemClock().now_ms()
    engine = Engine(clock=ManualClock(now_ms - 900_000))
    async with ui_service(engine, banner="staging") as service:
        await service.seed("shop", "billing")
        engine.clock.set_ms(now_ms)
        async with aiohttp.ClientSession(service.url) as session:

            async def call(method: str, path: str, body: Any = None) -> Any:
                async with session.request(method, path, json=body) as answer:
                    assert answer.status < 300, await answer.text()
                    return await answer.json()

            for number in range(24):
                await call(
                    "POST",
                    "/schedule",
                    {
                        "clientId": "shop",
                        "scheduleKey": f"order-{1000 + number}",
                        "orderingKey": f"customer-{number % 5}",
                        "scheduleTime": now_ms + (number + 1) * 1_000_000,
                        "taskData": {
                            "order": 9_007_199_254_740_993 + number,
                            "items": [{"sku": "A-17", "count": 2}, {"sku": "B-4", "count": 1}],
                            "note": "please ring twice",
                            "paid": True,
                        },
                        "delivery": {"topic": builders.TOPIC, "headers": {"source": "web", "tenant": "eu-1"}},
                    },
                )
            await call("PUT", "/schedule/shop/order-1001", {"scheduleTime": now_ms + 7_200_000})
            overdue = {
                "clientId": "billing",
                "scheduleKey": "overdue",
                "scheduleTime": now_ms - 90_000,
                "taskData": {"invoice": 4711},
                "delivery": {"topic": builders.TOPIC},
            }
            await call("POST", "/schedule", overdue)
            for job in (
                {
                    "jobId": "daily-report",
                    "description": "Sales of the day before, for the managers",
                    "labels": {"team": "sales"},
                    "trigger": {"type": "cron", "expression": "30 2 * * *", "timeZone": "Europe/Berlin"},
                    "taskData": {"report": "sales", "limit": 12_345_678_901_234_567_890},
                },
                {"jobId": "poll-stock", "trigger": {"type": "fixed_rate", "everyMs": 60_000}, "taskData": None},
                {
                    "jobId": "month-end",
                    "trigger": {"type": "cron", "expression": "0 6 1 * *", "timeZone": "America/New_York"},
                    "taskData": "close",
                },
            ):
                await call("POST", "/jobs", {"clientId": "shop", "delivery": {"topic": builders.TOPIC}, **job})
            await call("POST", "/jobs/shop/month-end/pause", {"note": "until the audit is over"})
            await call("PUT", "/admin/pauses/clients/billing")
        yield service
