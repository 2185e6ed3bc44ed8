"""The client against the service on the twins: every call, and what becomes of schedules meanwhile."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

import clockwork.client as c
from clockwork.client import AsyncClient
from tests.support import builders
from tests.unit.client_stub import FAST
from tests.unit.service import ENDED, Service, open_service

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with open_service() as opened:
        await opened.seed("shop")
        yield opened


@pytest.fixture
async def client(service: Service) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(service.url, retries=FAST, clock=service.engine.clock) as opened:
        yield opened


async def test_a_change_keeps_what_it_does_not_name(client: AsyncClient) -> None:
    before = await client.get("shop", "a")
    after = await client.reschedule("shop", "a", at=MINUTE, headers={"a": "b"}, if_version=before.version)
    assert (after.version, after.task_data, after.ordering_key) == (2, before.task_data, before.ordering_key)
    assert after.schedule_time_ms < before.schedule_time_ms
    assert after.delivery is not None
    assert (after.delivery.topic, after.delivery.headers) == (builders.TOPIC, {"a": "b"})
    # As if its answer had been lost.
    assert await client.reschedule("shop", "a", headers={"a": "b"}, if_version=before.version) == after
    with pytest.raises(c.VersionMismatch) as stale:
        await client.reschedule("shop", "a", data=7, if_version=before.version)
    assert stale.value.schedule == after


async def test_what_is_fired_is_delivered_at_once(client: AsyncClient, service: Service) -> None:
    fired = await client.fire("shop", "a", if_version=1)
    assert fired.schedule_time_ms == service.engine.clock.now_ms()
    assert await client.fire("shop", "a", if_version=1) == fired
    await service.deliver()
    delivered = await client.get("shop", "a")
    assert delivered.delivered is not None
    assert delivered.delivered.lateness_ms == 0
    with pytest.raises(c.AlreadyDelivered):
        await client.fire("shop", "a")


async def test_what_failed_is_armed_again_once(client: AsyncClient) -> None:
    armed = await client.retry("shop", ENDED["failed"], at=MINUTE)
    assert (armed.status, armed.version) == ("pending", 2)
    assert await client.retry("shop", ENDED["failed"], at=MINUTE) == armed


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (ENDED["delivered"], c.AlreadyDelivered),
        (ENDED["failed"], c.AlreadyFailed),
        (ENDED["cancelled"], c.AlreadyCancelled),
        ("none", c.NotFound),
    ],
)
async def test_what_has_ended_is_neither_changed_nor_fired(
    client: AsyncClient, key: str, error: type[c.CallFailed]
) -> None:
    calls: list[Any] = [client.reschedule("shop", key, at=MINUTE), client.fire("shop", key)]
    for call in calls:
        with pytest.raises(error):
            await call
