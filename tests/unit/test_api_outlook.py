"""Calls that only look, at the edge: their documents, and what a reader is shown of others' schedules."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from clockwork.domain.rights import Right, names_of
from clockwork.domain.schedule import ClientId
from clockwork.domain.sharding import ShardId, shard_of
from clockwork.requests.search import CLIENTS_MAX, KeySearch, SearchResult
from tests.support.engine import SHARDS
from tests.unit.api_edge import a_request
from tests.unit.service import Service, a_principal, gate_of, open_service

LANE = {"orderingKey": "lane"}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    keys = {
        "all": a_principal(*Right, clients="*", topics="*"),
        "shop": a_principal(Right.READ, clients="shop"),
        "none": a_principal(Right.CANCEL, Right.CREATE, clients="*"),
    }
    async with open_service(gate=gate_of(keys)) as opened:
        yield opened


async def ask(service: Service, path: str, key: str = "all") -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(service.url, headers=headers) as session, session.get(path) as answer:
        return answer.status, await answer.json(content_type=None)


async def create(service: Service, key: str, *, client: str = "shop", **more: Any) -> dict[str, Any]:
    """An accepted schedule, due in a minute by default."""
    due_ms = service.engine.clock.now_ms() + 60_000
    body = a_request(clientId=client, scheduleKey=key, **{"scheduleTime": due_ms, **more})
    headers = {"Authorization": "Bearer all"}
    async with (
        aiohttp.ClientSession(service.url, headers=headers) as session,
        session.post("/schedule", json=body) as answer,
    ):
        assert answer.status == 201, await answer.text()
        document: dict[str, Any] = await answer.json()
        return document


async def test_the_reason_comes_with_its_facts_and_what_to_do(service: Service) -> None:
    created = await create(service, "it")

    status, document = await ask(service, "/schedule/shop/it/why", "shop")

    now_ms = service.engine.clock.now_ms()
    assert status == 200
    assert document.pop("text")
    assert document.pop("advice")
    assert document == {
        "clientId": "shop",
        "scheduleKey": "it",
        "asOf": now_ms,
        "status": "pending",
        "version": 1,
        "shard": created["shard"],
        "scheduleTime": created["scheduleTime"],
        "topic": created["delivery"]["topic"],
        "reason": "not_due",
        "dueInMs": 60_000,
        "lookedAt": 0,
        "lookedAtAll": True,
    }


async def test_an_unknown_key_is_a_404_and_one_of_another_client_a_403(service: Service) -> None:
    assert (await ask(service, "/schedule/shop/it/why"))[0] == 404
    assert (await ask(service, "/schedule/bank/it/why", "shop"))[0] == 403
    assert (await ask(service, "/schedule/shop/it/why", "none"))[0] == 403
    assert (await ask(service, "/schedule/shop/it/why?a=1"))[0] == 400


async def test_one_in_the_way_is_named_to_those_who_may_read_it_alone(service: Service) -> None:
    before = await create(service, "before", client="bank", **LANE)
    await create(service, "it", **LANE)
    service.engine.clock.advance_ms(60_500)
    await service.engine.own(ShardId(shard_of("lane", SHARDS)))

    _, all_of_it = await ask(service, "/schedule/shop/it/why")
    _, masked = await ask(service, "/schedule/shop/it/why", "shop")

    assert all_of_it["reason"] == masked["reason"] == "behind"
    assert masked["behind"] == {"scheduleTime": before["scheduleTime"]}
    assert all_of_it["behind"] == {"scheduleTime": before["scheduleTime"], "clientId": "bank", "scheduleKey": "before"}


async def test_what_is_due_next_is_a_page_of_summaries(service: Service) -> None:
    created = [
        await create(service, key, client=client) for key, client in (("a", "shop"), ("b", "bank"), ("c", "shop"))
    ]
    for each in created:
        del each["taskData"], each["taskDataEncoding"], each["delivery"]["headers"]

    status, document = await ask(service, "/upcoming?limit=2")
    _, rest = await ask(service, f"/upcoming?limit=3&cursor={document['cursor']}")
    _, own = await ask(service, "/upcoming", "shop")

    assert (status, document["asOf"]) == (200, service.engine.clock.now_ms())
    assert document["schedules"] == created[:2]
    assert (rest["schedules"], rest["cursor"]) == (created[2:], None)
    assert own["schedules"] == [created[0], created[2]]
    assert own["lookedAt"] == 3


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/upcoming?clientId=bank", "shop", 403),
        ("/upcoming", "none", 403),
        ("/upcoming?limit=201", "all", 400),
        ("/upcoming?status=pending", "all", 400),
        ("/upcoming?cursor=x", "all", 400),
        ("/forecast?clientId=bank", "shop", 403),
        ("/forecast", "none", 403),
        ("/forecast?from=2000&to=2000", "all", 400),
        ("/search?q=a", "none", 403),
        ("/search", "all", 400),
        ("/search?q=", "all", 400),
        (f"/search?q={'a' * 642}", "all", 400),
        ("/forecast?bucketMs=999", "all", 400),
        ("/forecast?from=0&to=2030-01-01T00:00:00Z", "all", 400),
    ],
)
async def test_what_is_not_covered_or_not_valid_is_refused(service: Service, path: str, key: str, status: int) -> None:
    assert (await ask(service, path, key))[0] == status


async def test_a_forecast_counts_what_the_key_covers(service: Service) -> None:
    for key, client in (("a", "shop"), ("b", "bank"), ("c", "shop")):
        await create(service, key, client=client)

    status, document = await ask(service, "/forecast?bucketMs=30000", "shop")

    now_ms = service.engine.clock.now_ms()
    assert status == 200
    assert [each["count"] for each in document["buckets"]] == [0, 0, 2] + [0] * 117
    assert (document["from"], document["to"], document["exactTo"]) == (now_ms, now_ms + 3_600_000, now_ms + 3_600_000)
    assert (document["exact"], document["overdue"], document["otherClients"]) == (True, 0, 0)
    assert document["byClient"] == [{"clientId": "shop", "count": 2}]


@pytest.mark.parametrize(
    ("q", "key", "found", "complete"),
    [
        ("shop/a%2Fb", "all", ["shop a/b"], True),
        ("shop/a%2Fb", "shop", ["shop a/b"], True),
        ("a/b", "shop", ["shop a/b"], True),
        ("bank/c", "shop", [], True),
        ("c", "shop", [], True),
        ("bank/c", "all", ["bank c"], True),
        # It covers clients that nothing is known of.
        ("c", "all", [], False),
        ("bank/unknown", "all", [], False),
    ],
)
async def test_a_key_is_found_in_the_clients_that_are_covered_and_known(
    service: Service, q: str, key: str, found: list[str], complete: bool
) -> None:
    for client, each in (("shop", "a/b"), ("bank", "c")):
        await create(service, each, client=client)

    status, document = await ask(service, f"/search?q={q}", key)

    assert status == 200
    assert [f"{each['clientId']} {each['scheduleKey']}" for each in document["results"]] == found
    assert not any("taskData" in each for each in document["results"])
    assert document["complete"] is complete


async def test_a_key_is_looked_for_in_the_clients_that_were_seen_up_to_a_bound(service: Service) -> None:
    await create(service, "a", client="client-7")
    seen = [ClientId(f"client-{n}") for n in range(CLIENTS_MAX)]
    covered = names_of(["client-*"])

    async def searched(clients: list[ClientId]) -> SearchResult:
        async def known() -> list[ClientId]:
            return clients

        context = service.engine.context
        search = KeySearch(context=context, clients=known, knows_clients=True)
        async with context.deadline() as deadline:
            return await search.search("a", covered, deadline)

    all_of_them = await searched([*seen, ClientId("bank")])
    too_many = await searched([*seen, ClientId("client-x")])

    assert [view.client_id for view in all_of_them.views] == ["client-7"]
    assert (all_of_them.clients_looked_at, all_of_them.complete) == (CLIENTS_MAX, True)
    assert (too_many.clients_looked_at, too_many.complete) == (CLIENTS_MAX, False)
