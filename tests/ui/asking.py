"""Requests of the dashboard's tests to the service beside the browser."""

from typing import Any

import aiohttp
from playwright.async_api import Locator

from tests.support import builders
from tests.ui.conftest import Window
from tests.unit.service import Service

HOUR_MS = 3_600_000


async def create(service: Service, *keys: str, client: str = "shop", **more: Any) -> None:
    """Creates schedules that are due in an hour, one millisecond after the other."""
    now_ms = service.engine.clock.now_ms()
    schedules = [
        {
            "clientId": client,
            "scheduleKey": key,
            "scheduleTime": now_ms + HOUR_MS + number,
            "taskData": number,
            "delivery": {"topic": builders.TOPIC},
            **more,
        }
        for number, key in enumerate(keys)
    ]
    answer = await asked(service, "POST", "/schedules", {"schedules": schedules})
    assert all(each["status"] == 201 for each in answer["results"]), answer


async def asked(service: Service, method: str, path: str, body: Any = None) -> Any:
    """The answer to a call that succeeds."""
    async with aiohttp.ClientSession(service.url) as session, session.request(method, path, json=body) as answer:
        assert answer.status < 300, await answer.text()
        return await answer.json() if answer.status != 204 else None


async def deliver(service: Service, key: str, *, client: str = "shop") -> None:
    """Delivers one schedule."""
    await asked(service, "POST", f"/schedule/{client}/{key}/fire")
    service.engine.clock.advance_ms(1_000)
    await service.deliver()


def rows(window: Window) -> Locator:
    """The rows of the page's table."""
    return window.page.locator("main tbody tr")
