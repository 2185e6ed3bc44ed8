"""Reports of processes, notes of clients, and the calls that show them."""

import asyncio
from dataclasses import replace
from typing import Any

import aiohttp

from clockwork.domain.ownership import ProcessId
from clockwork.domain.registry import DAY_MS, FORGOTTEN_MS, GONE_MS, REPORT_MS, KnownClient, ProcessReport
from clockwork.domain.rights import Right
from clockwork.domain.schedule import ClientId
from clockwork.errors import BrokerUnavailable, StoreUnavailable
from clockwork.observability.activity import RecordingTelemetry
from clockwork.observability.known_clients import ClientRecorder
from clockwork.operations.processes import ProcessReports, ProcessSurvey
from clockwork.settings.digests import OWN, compared_names, differences, digests_of
from clockwork.settings.model import AccessSettings, HttpSettings, KafkaSettings, RunnerSettings, Settings
from clockwork.settings.sources import load_settings
from clockwork.stores.memory.registry import MemoryRegistry
from tests.support import builders
from tests.support.clocks import ManualClock
from tests.support.engine import Engine
from tests.unit.service import a_principal, gate_of, open_service

NOW_MS = builders.DUE_MS
A, B, C = (ProcessId(letter * 16) for letter in "abc")


def a_report(process: ProcessId, **more: Any) -> ProcessReport:
    fields: dict[str, Any] = {"node": f"host:{process[0]}", "role": "all", "version": "1.0", "since_ms": NOW_MS - 5}
    return ProcessReport(process=process, **({"seen_at_ms": NOW_MS} | fields | more))


class Away(MemoryRegistry):
    """A store that does not answer while `away`."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.put = asyncio.Event()

    async def put_report(self, report: ProcessReport) -> None:
        if self.away:
            raise StoreUnavailable
        await super().put_report(report)
        self.put.set()

    async def put_client(self, client_id: ClientId, *, day: int) -> None:
        if self.away:
            raise StoreUnavailable
        await super().put_client(client_id, day=day)


async def members(*processes: ProcessId) -> frozenset[ProcessId]:
    return frozenset(processes)


# --- reports


async def test_a_process_reports_each_ten_seconds_and_takes_its_report_back_when_it_stops() -> None:
    store, clock = Away(), ManualClock(NOW_MS)
    spans: list[int] = []

    def report(since_last_ms: int) -> ProcessReport:
        spans.append(since_last_ms)
        return a_report(A, seen_at_ms=clock.now_ms())

    reports = ProcessReports(store=store, clock=clock, report=report)
    task = asyncio.get_running_loop().create_task(reports.run())
    await store.put.wait()
    assert list(store.reports) == [A]
    task.cancel()
    await asyncio.wait([task])
    assert store.reports == {}
    assert spans == [1]
    assert REPORT_MS == 10_000


async def test_a_store_that_is_away_ends_no_process() -> None:
    store = Away()
    store.away = True
    told = asyncio.Event()

    def report(_: int) -> ProcessReport:
        told.set()
        return a_report(A)

    task = asyncio.get_running_loop().create_task(
        ProcessReports(store=store, clock=ManualClock(NOW_MS), report=report).run()
    )
    await told.wait()
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])


async def test_reports_of_processes_that_are_gone_for_a_day_are_removed() -> None:
    store, clock = MemoryRegistry(), ManualClock(NOW_MS)
    await store.put_report(a_report(A, seen_at_ms=NOW_MS - FORGOTTEN_MS - 1))
    await store.put_report(a_report(B, seen_at_ms=NOW_MS - FORGOTTEN_MS))
    await ProcessReports(store=store, clock=clock, report=lambda _: a_report(C)).sweep()
    assert list(store.reports) == [B]


# --- settings that differ


def test_processes_that_differ_in_a_setting_are_named_and_their_values_are_not() -> None:
    usual = Settings()
    other = replace(usual, runner=RunnerSettings(retention_ms=3_600_000))
    digests = {"a": digests_of(usual), "b": digests_of(other), "c": digests_of(usual)}
    assert list(differences(digests)) == [("CLOCKWORK_RETENTION_MS", [["a", "c"], ["b"]])]
    assert "3600000" not in digests["b"]


def test_what_each_node_has_of_its_own_and_what_cannot_be_read_is_not_compared() -> None:
    usual = Settings()
    own = replace(usual, http=HttpSettings(port=9), kafka=KafkaSettings(instance_id="node-1"))
    assert list(differences({"a": digests_of(usual), "b": digests_of(own), "c": "", "d": "?\x00"})) == []
    assert OWN.isdisjoint(compared_names())


def test_secrets_have_no_digest_but_that_they_are_there() -> None:
    first, second = (
        load_settings({"AWS_ACCESS_KEY": "key", "AWS_SECRET_KEY": secret}) for secret in ("one", "another")
    )
    assert digests_of(first) == digests_of(second)
    assert digests_of(replace(first, access=AccessSettings(auth="none"))) == digests_of(second)


# --- the survey


async def test_nodes_are_shown_as_they_report_beside_the_members_of_the_group() -> None:
    store = MemoryRegistry()
    different = digests_of(replace(Settings(), runner=RunnerSettings(retention_ms=3_600_000)))
    for report in (
        a_report(A, settings=digests_of(Settings())),
        a_report(B, settings=different, seen_at_ms=NOW_MS - 3),
        a_report(C, settings=different, seen_at_ms=NOW_MS - GONE_MS - 1),
    ):
        await store.put_report(report)
    view = await ProcessSurvey(
        store=store, clock=ManualClock(NOW_MS), member_processes=lambda: members(A, ProcessId("d" * 16))
    ).processes()
    assert [(each.process, view.is_gone(each)) for each in view.reports] == [(A, False), (B, False), (C, True)]
    # The one that is gone is not compared.
    assert view.differences == [("CLOCKWORK_RETENTION_MS", [[A], [B]])]
    assert view.members == {A, "d" * 16}


async def test_nodes_are_shown_while_kafka_is_away() -> None:
    async def away() -> frozenset[ProcessId]:
        raise BrokerUnavailable("no broker answers")

    store = MemoryRegistry()
    await store.put_report(a_report(A))
    view = await ProcessSurvey(store=store, clock=ManualClock(NOW_MS), member_processes=away).processes()
    assert (len(view.reports), view.members, view.members_unknown) == (1, None, "no broker answers")


async def test_the_call_shows_nodes_to_admins() -> None:
    engine = Engine(clock=ManualClock(NOW_MS))
    await engine.registry.put_report(a_report(A, shards=3, clock_skew_ms=-2, loop_lag_ms=7, delivered_per_second=1.5))
    await engine.registry.put_report(a_report(B, role="api", kafka="no broker answers"))
    keys = {"admin": a_principal(Right.ADMIN), "reader": a_principal(Right.READ, clients="*", topics="*")}
    async with (
        open_service(engine, gate=gate_of(keys)) as service,
        aiohttp.ClientSession(service.url) as session,
    ):
        async with session.get("/admin/nodes", headers={"Authorization": "Bearer reader"}) as answer:
            assert answer.status == 403
        async with session.get("/admin/nodes", headers={"Authorization": "Bearer admin"}) as answer:
            document = await answer.json()
    first, second = document["nodes"]
    assert (first["process"], first["shards"], first["clockSkewMs"], first["member"]) == (A, 3, -2, False)
    assert (first["kafka"], first["gone"], first["accepts"], first["fires"]) == (None, False, True, True)
    assert (second["role"], second["accepts"], second["fires"], second["kafka"]) == (
        "api",
        True,
        False,
        "no broker answers",
    )
    assert "member" not in second
    assert document["membersWithoutNode"] == []


# --- clients


async def test_a_client_is_noted_once_a_day_and_again_after_a_note_that_was_lost() -> None:
    store, clock = Away(), ManualClock(NOW_MS)
    notes = ClientRecorder(store, clock)
    shop, day = ClientId("shop"), NOW_MS // DAY_MS
    store.away = True
    notes.created(shop)
    await notes.write()
    assert store.clients == {}
    store.away = False
    for _ in range(3):
        notes.created(shop)
    await notes.write()
    assert store.clients == {shop: KnownClient(client_id=shop, first_day=day, last_day=day)}
    store.clients.clear()
    notes.created(shop)
    await notes.write()
    assert store.clients == {}  # one write a day
    clock.advance_ms(DAY_MS)
    await notes.write()
    notes.created(shop)
    await notes.write()
    assert store.clients[shop].last_day == day + 1


async def test_a_key_sees_the_clients_that_it_covers() -> None:
    telemetry = RecordingTelemetry()
    engine = Engine(telemetry=telemetry)
    notes = telemetry.clients = ClientRecorder(engine.registry, engine.clock)
    async with open_service(engine) as service:
        await service.seed("shop", "shop-2", "bank")
        await notes.write()
    keys = {"shop": a_principal(Right.READ, clients="shop*"), "maker": a_principal(Right.CREATE, clients="*")}
    async with (
        open_service(engine, gate=gate_of(keys)) as service,
        aiohttp.ClientSession(service.url) as session,
    ):
        async with session.get("/clients", headers={"Authorization": "Bearer shop"}) as answer:
            document = await answer.json()
        assert [each["clientId"] for each in document["clients"]] == ["shop", "shop-2"]
        assert document["clients"][0]["firstDay"] == document["clients"][0]["lastDay"] == "2023-11-14"
        assert document["complete"]
        async with session.get("/clients", headers={"Authorization": "Bearer maker"}) as answer:
            assert answer.status == 403


# --- operators' actions


async def test_a_dead_letter_that_is_discarded_is_an_event() -> None:
    engine = Engine(telemetry=RecordingTelemetry())
    async with open_service(engine) as service, aiohttp.ClientSession(service.url) as session:
        await service.seed("shop")
        async with session.get("/schedule/shop/given-up") as answer:
            delivery_id = (await answer.json())["deliveryId"]
        letter = {"clientId": "shop", "scheduleKey": "given-up", "deliveryId": delivery_id}
        async with session.post("/admin/dead-letters/discard", json={"deadLetters": [letter]}) as answer:
            assert (await answer.json())["results"][0]["status"] == 200
        await service.recorded()
        async with session.get("/events?kind=discarded") as answer:
            (event,) = (await answer.json())["events"]
    assert (event["clientId"], event["scheduleKey"], event["by"]) == ("shop", "given-up", "anyone")


async def test_what_is_asked_of_a_job_is_an_event_with_its_name() -> None:
    engine = Engine(telemetry=RecordingTelemetry())
    job = {
        "clientId": "shop",
        "jobId": "report",
        "trigger": {"type": "fixed_rate", "everyMs": 86_400_000, "anchor": NOW_MS + 86_400_000},
        "taskData": 1,
        "delivery": {"topic": builders.TOPIC},
    }
    async with open_service(engine) as service, aiohttp.ClientSession(service.url) as session:
        for method, path, body, status in (
            ("POST", "/jobs", job, 201),
            ("POST", "/jobs", job, 200),  # the same again changes nothing
            ("POST", "/jobs/shop/report/pause", {}, 200),
            ("POST", "/jobs/shop/report/resume", {}, 200),
            ("PUT", "/jobs/shop/report", {"priority": 1}, 200),
            ("POST", "/jobs/shop/report/run-now", {"requestId": "r"}, 201),
            ("DELETE", "/jobs/shop/report", None, 200),
            ("POST", "/jobs/shop/report/restore", {}, 200),
        ):
            async with session.request(method, path, json=body) as answer:
                assert answer.status == status, (path, await answer.text())
        await service.recorded()
        async with session.get("/events?scheduleKey=report") as answer:
            events = (await answer.json())["events"]
    assert [each["kind"].removeprefix("job_") for each in events] == [
        "created",
        "paused",
        "resumed",
        "changed",
        "run",
        "deleted",
        "restored",
    ]
    assert {(each["clientId"], each["jobId"], each["by"]) for each in events} == {("shop", "report", "anyone")}


async def test_what_operators_do_is_an_event_with_their_name() -> None:
    engine = Engine(telemetry=RecordingTelemetry())
    keys = {"ana": a_principal(*Right, clients="*", topics="*")}
    async with (
        open_service(engine, gate=gate_of(keys)) as service,
        aiohttp.ClientSession(service.url, headers={"Authorization": "Bearer ana"}) as session,
    ):
        await engine.own(builders.SHARD)
        for method, path in (
            ("PUT", "/admin/pauses/clients/shop"),
            ("DELETE", "/admin/pauses/clients/shop"),
            ("PUT", f"/admin/pauses/topics/{builders.TOPIC}"),
            ("POST", f"/admin/shards/{builders.SHARD}/fence"),
        ):
            async with session.request(method, path) as answer:
                assert answer.status == 200
        await service.recorded()
        async with session.get("/events?kind=paused,resumed,fenced") as answer:
            events = (await answer.json())["events"]
    assert [(each["kind"], each.get("clientId"), each.get("topic"), each.get("shard")) for each in events] == [
        ("paused", "shop", None, None),
        ("resumed", "shop", None, None),
        ("paused", None, builders.TOPIC, None),
        ("fenced", None, None, builders.SHARD),
    ]
    assert {each["by"] for each in events} == {"test"}
