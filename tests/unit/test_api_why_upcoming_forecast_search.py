"""Why, upcoming, forecast and search at the edge: their documents, and what a reader is shown of others' schedules."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from clockwork.domain.pauses import PauseKind
from clockwork.domain.record import DELIVERY_ID, RUN_ID
from clockwork.domain.rights import Right, names_of
from clockwork.domain.schedule import ClientId
from clockwork.domain.sharding import ShardId, shard_of
from clockwork.errors import RefusalCause, StoreUnavailable
from clockwork.firing.destination_waits import DestinationRateLimits
from clockwork.observability.activity import RecordingTelemetry
from clockwork.ports.telemetry import NoTelemetry
from clockwork.requests.search import CLIENTS_MAX, KeySearch, KnownClients, SearchResult
from tests.support import builders
from tests.support.engine import SHARDS, Engine
from tests.unit.api_edge import a_request
from tests.unit.service import Service, a_principal, gate_of, open_service
from tests.unit.test_job_schema import a_job

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


async def test_a_pause_and_a_topic_that_takes_no_records_are_told_with_their_times_and_reasons(
    service: Service,
) -> None:
    await create(service, "it", **LANE)
    service.engine.clock.advance_ms(60_500)
    now_ms = service.engine.clock.now_ms()
    client = ClientId("shop")
    await service.engine.own(ShardId(shard_of("lane", SHARDS)))
    wait = service.engine.destination_waits.refused(
        builders.TOPIC, RefusalCause.TRANSIENT, "not_enough_replicas", now_ms=now_ms
    )

    _, waits = await ask(service, "/schedule/shop/it/why", "shop")
    await service.engine.pauser.pause(PauseKind.CLIENT, client, by="ana", reason="a move")
    _, paused = await ask(service, "/schedule/shop/it/why", "shop")

    assert waits["destination"] == {
        "topic": builders.TOPIC,
        "reason": "not_enough_replicas",
        "since": now_ms,
        "nextProbeAt": wait.until_ms,
    }
    assert paused["paused"] == {"kind": "client", "name": "shop", "since": now_ms, "by": "ana", "reason": "a move"}


async def test_a_topic_at_its_rate_limit_is_not_said_to_take_no_records() -> None:
    engine = Engine(limits=DestinationRateLimits(1, {}, NoTelemetry()))
    async with open_service(engine, gate=gate_of({"all": a_principal(*Right, clients="*", topics="*")})) as service:
        await create(service, "it", **LANE)
        engine.clock.advance_ms(60_500)
        await engine.own(ShardId(shard_of("lane", SHARDS)))
        while engine.destination_waits.take_token(builders.TOPIC, engine.clock.now_ms()) is None:
            pass
        _, document = await ask(service, "/schedule/shop/it/why")

    assert (document["reason"], document["destination"]["reason"]) == ("destination_waits", "over_its_pace")
    assert document["text"] == "Its topic is at its rate limit."


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
    # Buckets begin at whole multiples of their width, so that bars of one look are those of the next.
    from_ms = now_ms // 30_000 * 30_000
    assert (document["from"], document["to"]) == (from_ms, from_ms + 3_600_000)
    assert (document["exactTo"], document["asOf"]) == (from_ms + 3_600_000, now_ms)
    assert (document["exact"], document["overdue"], document["otherClients"]) == (True, 0, 0)
    assert document["byClient"] == [{"clientId": "shop", "count": 2}]


@pytest.fixture
async def seen(service: Service) -> Service:
    """The service, with clients that have created something; the one of `wallet` is not noted."""
    for client, key in (("shop", "a/b"), ("bank", "c"), ("wallet", "c"), ("shop", "d"), ("bank", "d")):
        await create(service, key, client=client)
    for client in ("bank", "shop"):
        await service.engine.registry.put_client(ClientId(client), day=1)
    return service


@pytest.mark.parametrize(
    ("q", "key", "found", "looked_at"),
    [
        ("shop/a%2Fb", "all", ["shop a/b"], 1),
        ("shop/a%2Fb", "shop", ["shop a/b"], 1),
        ("a/b", "shop", ["shop a/b"], 1),
        ("bank/c", "shop", [], 1),
        ("c", "shop", [], 1),
        ("bank/c", "all", ["bank c"], 1),
        # "a" may be a client as well.
        ("a/b", "all", ["shop a/b"], 3),
        ("d", "all", ["bank d", "shop d"], 2),
        # Nothing is known of the client, until it is named.
        ("c", "all", ["bank c"], 2),
        ("wallet/c", "all", ["wallet c"], 1),
        ("wallet/unknown", "all", [], 3),
    ],
)
async def test_a_key_is_found_in_each_client_that_is_covered_and_known(
    seen: Service, q: str, key: str, found: list[str], looked_at: int
) -> None:
    status, document = await ask(seen, f"/search?q={q}", key)

    assert status == 200
    assert [f"{each['clientId']} {each['scheduleKey']}" for each in document["results"]] == found
    assert not any("taskData" in each for each in document["results"])
    assert (document["clientsLookedAt"], document["complete"]) == (looked_at, True)


async def test_a_search_and_the_list_of_clients_read_the_clients_together_once_a_minute(
    seen: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    real = seen.engine.registry.list_clients

    async def list_clients(**named: Any) -> Any:
        nonlocal reads
        reads += 1
        return await real(**named)

    monkeypatch.setattr(seen.engine.registry, "list_clients", list_clients)
    listed_at_ms = seen.engine.clock.now_ms()

    await ask(seen, "/search?q=shop/d")
    await ask(seen, "/search?q=d", "shop")
    assert reads == 0, "a search in clients that are named needs no list"
    _, clients = await ask(seen, "/clients")
    seen.engine.clock.advance_ms(1)
    _, found = await ask(seen, "/search?q=d")
    _, own = await ask(seen, "/clients", "shop")

    assert reads == 1
    assert [each["clientId"] for each in clients["clients"]] == ["bank", "shop"]
    assert [each["clientId"] for each in own["clients"]] == ["shop"]
    assert clients["asOf"] == found["clientsAsOf"] == own["asOf"] == listed_at_ms


async def test_a_list_of_clients_that_cannot_be_read_is_read_by_the_next_request(
    seen: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def list_clients(**_: Any) -> Any:
        raise StoreUnavailable("away")

    with monkeypatch.context() as broken:
        broken.setattr(seen.engine.registry, "list_clients", list_clients)
        assert (await ask(seen, "/search?q=d"))[0] == 503
        assert (await ask(seen, "/search?q=shop/d"))[0] == 200

    assert (await ask(seen, "/search?q=d"))[0] == 200


async def test_a_key_is_looked_for_in_the_clients_that_were_seen_up_to_a_bound(service: Service) -> None:
    await create(service, "a", client="client-7")
    names = [ClientId(f"client-{n}") for n in range(CLIENTS_MAX)]
    covered = names_of(["client-*"])

    async def searched(clients: list[ClientId], *, complete: bool = True) -> SearchResult:
        async def known() -> KnownClients:
            return KnownClients(names=clients, complete=complete, as_of_ms=1)

        context = service.engine.context
        async with context.deadline() as deadline:
            return await KeySearch(context=context, clients=known).search("a", covered, deadline)

    all_of_them = await searched([*names, ClientId("bank")])
    too_many = await searched([*names, ClientId("client-x")])
    cut_off = await searched(names, complete=False)

    assert [view.client_id for view in all_of_them.views] == ["client-7"]
    assert (all_of_them.clients_looked_at, all_of_them.complete) == (CLIENTS_MAX, True)
    assert (too_many.clients_looked_at, too_many.complete) == (CLIENTS_MAX, False)
    assert (cut_off.clients_looked_at, cut_off.complete) == (CLIENTS_MAX, False)


async def test_a_delivery_is_found_by_its_id_while_its_event_is_kept() -> None:
    keys = {"all": a_principal(*Right, clients="*", topics="*"), "bank": a_principal(Right.READ, clients="bank")}
    engine = Engine(telemetry=RecordingTelemetry())
    async with open_service(engine, gate=gate_of(keys)) as service:
        created = [await create(service, "done"), await create(service, "later", scheduleTime="2030-01-01T00:00:00Z")]
        job = a_job(jobId="report", trigger={"type": "fixed_delay", "delayMs": 60_000})
        async with (
            aiohttp.ClientSession(service.url, headers={"Authorization": "Bearer all"}) as session,
            session.post("/jobs", json=job) as answer,
        ):
            assert answer.status == 201, await answer.text()
        engine.clock.advance_ms(61_000)
        await service.deliver()
        await service.recorded()
        headers = [dict(record.headers) for record in engine.kafka.read_committed(builders.TOPIC)]
        (run,) = [each for each in headers if RUN_ID in each]

        _, found = await ask(service, f"/search?q={created[0]['deliveryId']}")
        _, of_another = await ask(service, f"/search?q={created[0]['deliveryId']}", "bank")
        _, pending = await ask(service, f"/search?q={created[1]['deliveryId']}")
        _, of_job = await ask(service, f"/search?q={run[DELIVERY_ID].decode()}")

    assert [(each["scheduleKey"], each["status"]) for each in found["results"]] == [("done", "delivered")]
    assert (of_another["results"], pending["results"]) == ([], [])
    assert (of_job["results"], of_job["runs"]) == (
        [],
        [{"clientId": "shop", "jobId": "report", "runId": run[RUN_ID].decode()}],
    )
