"""The client against the service on the twins: every call, and what becomes of schedules meanwhile."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

import clockwork.client as c
from clockwork.client import AsyncClient
from clockwork.domain.rights import Right
from clockwork.requests.rate_limits import CreateLimits
from tests.support import builders
from tests.unit.api_edge import open_edge
from tests.unit.client_stub import FAST
from tests.unit.service import ENDED, Service, a_principal, gate_of, open_service

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


def some(count: int) -> list[c.NewSchedule]:
    def one(number: int) -> c.NewSchedule:
        topic = builders.TOPIC if number else "none"
        return c.NewSchedule(client_id="many", schedule_key=f"{number:04}", at=MINUTE, topic=topic, data=number)

    return [one(number) for number in range(count)]


async def test_many_are_created_listed_and_cancelled_each_for_itself(client: AsyncClient) -> None:
    # One more than a request holds; the first one is for a topic that there is not.
    made = [each async for each in client.create_many(some(1_001))]
    assert isinstance(made[0].error, c.InvalidRequest)
    assert [wrong.field for wrong in made[0].error.errors] == ["delivery.topic"]
    assert {each.status for each in made[1:]} == {201}
    assert {each.status async for each in client.create_many(some(3))} == {400, 200}
    listed = [each async for each in client.list("many", status="pending", page_size=300)]
    assert sorted(each.schedule_key for each in listed) == [f"{number:04}" for number in range(1, 1_001)]
    assert listed[0] in [each.schedule for each in made]
    gone = [
        each async for each in client.cancel_many([("many", "0001"), ("many", "none"), ("shop", ENDED["delivered"])])
    ]
    assert [type(each.error) for each in gone] == [type(None), c.NotFound, c.AlreadyDelivered]
    assert [each.schedule_key async for each in client.list("many", status="cancelled")] == ["0001"]


async def test_a_list_is_narrowed_by_its_filters(client: AsyncClient, service: Service) -> None:
    now_ms = service.engine.clock.now_ms()
    assert {each.schedule_key async for each in client.list("shop")} == {"a", *ENDED.values()}
    assert [each.schedule_key async for each in client.list("shop", due_from=now_ms)] == ["a"]
    assert [each.schedule_key async for each in client.list("shop", status="failed", due_to=now_ms)] == [
        ENDED["failed"]
    ]
    assert [each.schedule_key async for each in client.list("shop", ordering_key="a", topic=builders.TOPIC)] == ["a"]
    assert [each async for each in client.list("nobody")] == []


async def test_a_history_has_every_end_and_every_move(client: AsyncClient, service: Service) -> None:
    await client.reschedule("shop", "a", at=MINUTE)
    await client.fire("shop", "a")
    await service.deliver()
    await client.create("shop", "a", at=MINUTE, topic=builders.TOPIC, data="again")
    await client.cancel("shop", "a")
    found = [each async for each in client.history("shop", "a", page_size=2)]
    assert [each.status for each in found] == ["cancelled", "delivered", "superseded", "superseded"]
    assert found[1].delivered is not None
    with pytest.raises(c.NotFound):
        _ = [each async for each in client.history("shop", "none")]


async def test_a_service_without_an_index_says_that_it_does_not_list() -> None:
    async with open_edge(lists=False) as edge, AsyncClient(f"http://127.0.0.1:{edge.server.port}") as client:
        with pytest.raises(c.NotSupported):
            _ = [each async for each in client.list("shop")]


async def test_a_key_covers_what_it_covers_and_a_limit_is_a_limit() -> None:
    keys = {"writer": a_principal(Right.CREATE, clients="many"), "reader": a_principal(Right.READ)}
    retries = c.Retries(attempts_max=1)
    async with open_service(
        gate=gate_of(keys), limits=CreateLimits(creates_per_second=2, monotonic_ns=lambda: 0)
    ) as service:
        url, clock = service.url, service.engine.clock
        async with AsyncClient(url, retries=retries, clock=clock) as nobody:
            with pytest.raises(c.Unauthorized):
                await nobody.get("shop", "a")
        async with AsyncClient(url, retries=retries, clock=clock, api_key="reader") as reader:
            assert [each async for each in reader.list("shop")] == []
            with pytest.raises(c.Forbidden, match="clientId"):
                await reader.get("many", "a")
            with pytest.raises(c.Forbidden, match="create"):
                await reader.fire("shop", "a")
        async with AsyncClient(url, retries=retries, clock=clock, api_key="writer") as writer:
            found = [each async for each in writer.create_many(some(4))]
            assert [type(each.error) for each in found] == [c.Forbidden, type(None), type(None), c.TooMany]
            with pytest.raises(c.TooMany):
                await writer.create("many", "a", at=MINUTE, topic=builders.TOPIC, data=1)
