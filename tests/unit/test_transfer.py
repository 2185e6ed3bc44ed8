"""Pending schedules that are carried from one store to another: the scan, the export, the import."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from clockwork.domain.destination import Topic
from clockwork.domain.position import acceptance_of, due_ms_of, first_at, text_of
from clockwork.domain.rights import ANYONE, Right
from clockwork.domain.schedule import POINTER_MARGIN_MS, ClientId, ImportedSchedule, NewSchedule, OrderingKey
from clockwork.domain.sharding import ShardId
from clockwork.errors import Forbidden, InvalidInput, StoreUnavailable
from clockwork.operations.scan import EVERYTHING, SCAN_START, PendingSchedule, ScanFilter
from clockwork.requests.rate_limits import CreateLimits
from clockwork.requests.results import AlreadyCreated, Created, CreateResult, ExportRefused, KeyTaken, Status
from clockwork.schema import transfer
from clockwork.schema.render import render_pending
from tests.support import builders
from tests.support.builders import DUE_MS, row, schedule
from tests.support.engine import SHARDS, Engine
from tests.unit.api_edge import a_request
from tests.unit.client_stub import SECRET
from tests.unit.service import Service, a_principal, gate_of, open_service
from tests.unit.test_cli_admin import admin

TOPIC = {"topic": builders.TOPIC}
DIGEST = "d" * 64


async def asked(
    service: Service, path: str, *, method: str = "GET", body: Any = None, key: str = "none"
) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(service.url, headers=headers) as session,
        session.request(method, path, json=body) as answer,
    ):
        return answer.status, await answer.json()


async def create(service: Service, **fields: Any) -> int:
    """Sends a create; by default due in a minute. Returns its status."""
    body = a_request(**{"scheduleTime": service.engine.clock.now_ms() + 60_000, "delivery": TOPIC, **fields})
    status, _ = await asked(service, "/schedule", method="POST", body=body)
    return status


@pytest.fixture
async def services() -> AsyncIterator[tuple[Service, Service]]:
    """Two clusters: the one that is left, and the new one."""
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(open_service()), await stack.enter_async_context(open_service())


# --- the scan


async def all_pages(
    engine: Engine, *, limit: int = 5, only: ScanFilter = EVERYTHING
) -> tuple[list[PendingSchedule], int]:
    found: list[PendingSchedule] = []
    unreadable, place = 0, SCAN_START
    while True:
        page = await engine.scan.page(place, limit=limit, only=only)
        found += page.found
        unreadable += page.unreadable
        if page.next_from is None:
            return found, unreadable
        place = page.next_from


def keys_of(found: Sequence[PendingSchedule]) -> list[str]:
    return sorted(each.view.schedule_key for each in found)


async def test_all_pending_schedules_are_in_the_pages_once_and_nothing_that_ended() -> None:
    engine = Engine()
    rows = [row(schedule(schedule_key=f"k{n}"), shard=n % SHARDS) for n in range(3 * SHARDS)]
    await engine.put(*rows)
    engine.store.put_by_hand(builders.broken_row())
    ended = builders.outcome(rows[0])  # its row is still to be deleted
    engine.store.outcomes[(ended.client_id, ended.schedule_key, ended.position)] = ended
    engine.at_due()
    found, unreadable = await all_pages(engine)
    assert keys_of(found) == sorted(each.schedule.schedule_key for each in rows[1:])
    assert unreadable == 1


@pytest.mark.parametrize("limit", [1, 1_000])
async def test_a_scan_shows_the_client_and_the_times_that_it_is_asked_for(limit: int) -> None:
    engine = Engine()
    wanted = [DUE_MS + 10, DUE_MS + 19]
    for due_ms in (DUE_MS, DUE_MS + 9, *wanted, DUE_MS + 20):
        for shard in (0, SHARDS - 1):
            for client in ("shop", "bank"):
                await engine.put(row(schedule(client_id=client, due_ms=due_ms), shard=shard))
    engine.store.put_by_hand(builders.broken_row(due_ms=DUE_MS + 15, client_id="bank", schedule_key="b"))
    engine.store.put_by_hand(builders.broken_row(due_ms=DUE_MS + 15))
    engine.store.put_by_hand(builders.broken_row(due_ms=DUE_MS + 25))
    only = ScanFilter(client_id=ClientId("shop"), due_from_ms=DUE_MS + 10, due_to_ms=DUE_MS + 20)
    found, unreadable = await all_pages(engine, limit=limit, only=only)
    assert sorted((each.row.shard, each.row.due_ms) for each in found) == [
        (shard, due_ms) for shard in (0, SHARDS - 1) for due_ms in wanted
    ]
    assert {each.view.client_id for each in found} == {"shop"}
    assert unreadable == 1, "the one whose client cannot be read may be this client's"


async def test_a_row_whose_pointer_is_lost_is_shown_and_one_that_was_moved_meanwhile_is_not() -> None:
    engine = Engine()
    lost, moved = row(schedule(schedule_key="lost")), row(schedule(schedule_key="moved"))
    await engine.put(lost, moved)
    del engine.store.pointers[lost.schedule.client_id, lost.schedule.schedule_key]
    key = moved.schedule.client_id, moved.schedule.schedule_key
    elsewhere = row(moved.schedule)
    reading = engine.context.search.read_pointers

    async def after_a_move(names: Sequence[Any]) -> Mapping[Any, Any]:
        engine.store.pointers[key] = builders.pointer(elsewhere)
        engine.store.rows.pop((moved.shard, moved.position), None)
        return await reading(names)

    engine.context.search.read_pointers = after_a_move  # type: ignore[method-assign]
    found, _ = await all_pages(engine)
    assert [(each.view.schedule_key, each.pointer) for each in found] == [("lost", None)]


async def test_a_scan_shows_only_clients_that_the_key_may_read_and_counts_the_others() -> None:
    keys = {
        "shop": a_principal(Right.ADMIN, Right.READ, clients="shop"),
        "service": a_principal(Right.ADMIN, clients="*"),
        "reader": a_principal(Right.READ, clients="*"),
    }
    engine = Engine()
    await engine.put(row(schedule(client_id="shop")), row(schedule(client_id="bank")))
    async with open_service(engine, gate=gate_of(keys)) as service:
        status, page = await asked(service, "/admin/schedules", key="shop")
        assert (status, [each["clientId"] for each in page["schedules"]], page["uncovered"]) == (200, ["shop"], 1)
        assert (await asked(service, "/admin/schedules?clientId=shop", key="shop"))[1]["uncovered"] == 0
        assert (await asked(service, "/admin/schedules?clientId=bank", key="shop"))[0] == 403
        for key in ("service", "reader"):
            assert (await asked(service, "/admin/schedules", key=key))[0] == 403
        for cursor in ("x", "AAAA", "_" * 28):
            status, refused = await asked(service, f"/admin/schedules?cursor={cursor}", key="shop")
            assert (status, refused["errors"][0]["field"]) == (400, "cursor")


# --- what an import keeps


EVERYTHING_SET = {
    "topic": builders.TOPIC, "guarantee": "at_least_once", "headers": {"a": "ü"}, "deadline": 5, "onLate": "drop",
    "retry": {"attempts": 3, "initialMs": 100, "maxMs": 200, "factor": 1.1, "jitter": 0.57},
}  # fmt: skip


async def test_an_export_imported_elsewhere_is_the_same_schedules_in_every_field(
    services: tuple[Service, Service], tmp_path: Path
) -> None:
    file, (service, other) = tmp_path / "pending.jsonl", services
    assert await create(service, scheduleKey="ü/1", taskData="text", delivery=EVERYTHING_SET, orderingKey="lane") == 201
    assert await create(service, scheduleKey="b", taskData=None) == 201
    assert await create(service, scheduleKey="c", taskData="/w==", taskDataEncoding="base64") == 201
    assert await create(service, clientId="bank", scheduleKey="d", taskData=[1, 1.10, 10**17, {"x": None}]) == 201
    assert await create(service, scheduleKey="early", scheduleTime="1970-01-02T00:00:00Z") == 201
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    async with aiohttp.ClientSession(service.url, headers={"traceparent": trace}) as session:
        await session.post("/schedule", json=a_request(scheduleKey="traced", scheduleTime=DUE_MS, delivery=TOPIC))
        async with session.put("/schedule/shop/b", json={"taskData": "new"}) as answer:
            assert answer.status == 200
    told = await admin(service, "export", str(file))
    assert "6 exported" in told.output
    assert os.listdir(tmp_path) == ["pending.jsonl"], "nothing half done is left"
    assert "6 created" in (await admin(other, "import", str(file))).output

    assert other.engine.store.rows == service.engine.store.rows
    for key, was in service.engine.store.pointers.items():
        assert replace(other.engine.store.pointers[key], expires_at_s=0) == replace(was, expires_at_s=0)
    rows = [each for each in other.engine.store.rows.values() if each.schedule.schedule_key == "traced"]  # type: ignore[union-attr]
    assert rows[0].schedule.traceparent == trace  # type: ignore[union-attr]


async def test_clients_go_on_with_versions_and_repeats_as_if_nothing_had_moved(
    services: tuple[Service, Service], tmp_path: Path
) -> None:
    file, (service, other) = tmp_path / "pending.jsonl", services
    due_ms = service.engine.clock.now_ms() + 60_000
    assert await create(service, scheduleKey="a", scheduleTime=due_ms) == 201
    assert (await asked(service, "/schedule/shop/a", method="PUT", body={"taskData": "new"}))[0] == 200
    await admin(service, "export", str(file))
    await admin(other, "import", str(file))
    assert await create(other, scheduleKey="a", scheduleTime=due_ms) == 200, "a repeat of the create before the change"
    async with aiohttp.ClientSession(other.url) as session:
        for version, status in (("1", 412), ("2", 200)):
            headers = {"If-Match": f'"{version}"'}
            async with session.put("/schedule/shop/a", json={"taskData": 3}, headers=headers) as answer:
                assert answer.status == status


async def test_a_failed_schedule_that_was_retried_is_still_known_as_retried(
    services: tuple[Service, Service], tmp_path: Path
) -> None:
    file, (service, other) = tmp_path / "pending.jsonl", services
    await service.seed("shop")
    body = {"scheduleTime": service.engine.clock.now_ms() + 86_400_000}
    assert (await asked(service, "/schedule/shop/given-up/retry", method="POST", body=body))[0] == 200
    await admin(service, "export", str(file))
    other.engine.clock.set_ms(service.engine.clock.now_ms())
    assert "2 created" in (await admin(other, "import", "--from-running", str(file))).output
    status, repeated = await asked(other, "/schedule/shop/given-up/retry", method="POST", body=body)
    assert (status, repeated["status"]) == (200, "pending")


async def test_lanes_keep_their_order_also_among_equal_times_and_with_another_number_of_shards(tmp_path: Path) -> None:
    file = tmp_path / "pending.jsonl"
    async with open_service() as service:
        order = [f"k{number}" for number in (5, 3, 9, 1)]
        for key in order:
            assert await create(service, scheduleKey=key, orderingKey="lane", scheduleTime=DUE_MS) == 201
        await admin(service, "export", str(file))
    lines = file.read_bytes().splitlines(keepends=True)
    # Even a file whose lines were sorted otherwise, as by a tool.
    file.write_bytes(b"".join([lines[0], *reversed(lines[1:-1]), lines[-1]]))
    engine = Engine()
    fewer = replace(engine.context, settings=replace(engine.context.settings, shards=3))
    object.__setattr__(engine.requests, "context", fewer)
    async with open_service(engine) as other:
        await admin(other, "import", str(file))
        rows = sorted(engine.store.rows.values(), key=lambda each: each.position)
        assert [each.schedule.schedule_key for each in rows] == order  # type: ignore[union-attr]
        engine.at_due()
        await other.deliver()
        assert engine.arrived() == order


async def test_what_was_paused_there_must_be_paused_here_first(
    services: tuple[Service, Service], tmp_path: Path
) -> None:
    file, (service, other) = tmp_path / "pending.jsonl", services
    assert await create(service, scheduleKey="a") == 201
    await admin(service, "pause", "topic", builders.TOPIC)
    await admin(service, "pause", "client", "bank")
    await admin(service, "export", str(file))
    await admin(other, "pause", "client", "bank")
    refused = await admin(other, "import", str(file), code=2)
    assert f"paused there and not here: topic {builders.TOPIC}." in refused.output
    assert other.engine.store.rows == {}
    assert "1 created" in (await admin(other, "import", "--ignore-pauses", str(file))).output
    await admin(other, "pause", "topic", builders.TOPIC)
    assert "1 there already" in (await admin(other, "import", str(file))).output
    # Of a client's export only its own pause and those of topics are a matter.
    await admin(service, "resume", "topic", builders.TOPIC)
    await admin(other, "resume", "client", "bank")
    await admin(service, "export", "--client", "shop", str(file))
    assert "1 there already" in (await admin(other, "import", str(file))).output


# --- an import that is repeated


def imported(key: str = "a", **changes: Any) -> ImportedSchedule:
    """A schedule of another store, due at `DUE_MS`."""
    of = schedule(client_id="shop", schedule_key=key)
    wanted = row(of)
    values = {
        "new": NewSchedule(**of.fields(), digest=DIGEST),
        "position": wanted.position,
        "created_at_ms": of.created_at_ms,
        "version": 1,
        "delivery_id": "there",
        "rearmed": False,
    }
    return ImportedSchedule(**{**values, **changes})


async def take_over(engine: Engine, *items: ImportedSchedule) -> list[CreateResult | Exception]:
    results = await engine.requests.import_batch(ANYONE, items, exported_at_ms=engine.clock.now_ms())
    assert not isinstance(results, ExportRefused)
    return results


async def deliver_all(engine: Engine) -> None:
    for shard in range(SHARDS):
        lease = await engine.own(ShardId(shard))
        await engine.one_pass(lease)
        await lease.cleanup.finish()


async def end_as(engine: Engine, item: ImportedSchedule, how: str) -> None:
    """Lets an imported schedule end, or move on."""
    name = item.new.client_id, item.new.schedule_key
    if how == "delivered":
        engine.at_due()
        await deliver_all(engine)
    elif how == "cancelled":
        await engine.cancel(*name)
    else:
        await engine.change(*name, lambda old: replace(old, due_ms=old.due_ms + 5))


@pytest.mark.parametrize("how", ["pending", "delivered", "cancelled", "moved"])
@pytest.mark.parametrize("used_again", [False, True])
async def test_an_import_again_finds_the_schedule_whatever_has_become_of_it_here(how: str, used_again: bool) -> None:
    engine, item = Engine(), imported()
    assert isinstance((await take_over(engine, item))[0], Created)
    if how != "pending":
        await end_as(engine, item, how)
    if used_again and how in {"delivered", "cancelled"}:
        later = replace(item.new, digest="e" * 64, due_ms=engine.clock.now_ms() + 1_000)
        assert isinstance(await engine.create(later), Created)
        if how == "delivered":
            engine.clock.set_ms(engine.clock.now_ms() + 1_001)
            await deliver_all(engine)
    before = dict(engine.store.rows), dict(engine.store.pointers), engine.arrived()
    (again,) = await take_over(engine, item)
    assert isinstance(again, AlreadyCreated)
    assert (engine.store.rows, engine.store.pointers, engine.arrived()) == before


async def test_two_imports_at_once_and_lost_answers_make_one_schedule_of_each_line() -> None:
    engine = Engine()
    items = [imported(f"k{number}") for number in range(20)]
    creating, lost = engine.store.create, set[Any]()

    async def answer_once_lost(wanted: Any, *others: Any, **more: Any) -> None:
        await creating(wanted, *others, **more)
        if wanted.position not in lost:
            lost.add(wanted.position)
            raise StoreUnavailable("lost", outcome_unknown=True)

    engine.store.create = answer_once_lost  # type: ignore[assignment, method-assign]
    both = await asyncio.gather(take_over(engine, *items), take_over(engine, *reversed(items)))
    assert {type(result) for results in both for result in results} <= {Created, AlreadyCreated}
    assert sorted(position for _, position in engine.store.rows) == sorted(each.position for each in items)


async def test_a_create_that_its_client_repeated_here_before_the_import_is_that_schedule() -> None:
    engine, item = Engine(), imported()
    assert isinstance(await engine.create(item.new), Created)
    (found,) = await take_over(engine, item)
    assert isinstance(found, AlreadyCreated)
    assert len(engine.store.rows) == 1


async def test_a_schedule_that_was_changed_there_after_its_import_is_refused_and_not_passed_over() -> None:
    engine, item = Engine(), imported()
    await take_over(engine, item)
    moved = imported(version=2, position=builders.position(DUE_MS))
    (refused,) = await take_over(engine, moved)
    assert isinstance(refused, KeyTaken)
    await engine.cancel(item.new.client_id, item.new.schedule_key)
    (created,) = await take_over(engine, moved)
    assert isinstance(created, Created)
    assert created.view.version == 2


async def test_another_schedule_under_the_key_refuses_it_while_pending_and_gives_way_when_it_has_ended() -> None:
    engine, item = Engine(), imported()
    other = replace(item.new, digest="e" * 64)
    for _ in range(3):
        assert isinstance(await engine.create(other), Created)
        (refused,) = await take_over(engine, item)
        assert isinstance(refused, KeyTaken)
        await engine.cancel(other.client_id, other.schedule_key)
        other = replace(other, digest=chr(ord(other.digest[0]) + 1) * 64)
    (created,) = await take_over(engine, item)
    assert isinstance(created, Created)
    assert created.view.version == 4, "no version comes twice under a key"
    assert created.view.position == item.position


async def test_an_export_is_taken_as_long_as_outcomes_are_kept_and_not_longer() -> None:
    engine = Engine()
    retention_ms, now_ms = engine.context.settings.retention_ms, engine.clock.now_ms()
    for age_ms, taken in (
        (retention_ms - 60_001, True),
        (retention_ms - 59_999, False),
        (-59_999, True),
        (-60_001, False),
    ):
        results = await engine.requests.import_batch(ANYONE, [], exported_at_ms=now_ms - age_ms)
        assert isinstance(results, list) == taken, age_ms
    async with open_service(engine) as service:
        body = {"exportedAt": 0, "schedules": []}
        status, refused = await asked(service, "/admin/schedules", method="POST", body=body)
    assert (status, refused["type"]) == (409, "urn:clockwork:problem:export-refused")
    assert "Export again" in refused["detail"]


async def test_a_schedule_that_was_due_for_months_has_a_pointer_that_outlives_its_row() -> None:
    engine = Engine()
    now_ms = engine.clock.now_ms()
    old_ms = now_ms - 200 * 86_400_000
    item = imported(position=builders.position(old_ms), created_at_ms=old_ms)
    item = replace(item, new=replace(item.new, due_ms=old_ms))
    await take_over(engine, item)
    (pointer,) = engine.store.pointers.values()
    assert pointer.expires_at_s * 1_000 >= now_ms + POINTER_MARGIN_MS
    found = await engine.find(item.new.client_id, item.new.schedule_key)
    assert found is not None
    assert found.status is Status.PENDING


async def test_a_lane_that_is_overdue_is_stored_in_its_order() -> None:
    engine = Engine()
    engine.at_due(60_000)
    items = [imported(f"k{number}") for number in range(8)]
    items = [replace(each, new=replace(each.new, ordering_key=OrderingKey("lane"))) for each in items]
    stored, creating = [], engine.store.create

    async def remember(wanted: Any, *others: Any, **more: Any) -> None:
        await creating(wanted, *others, **more)
        stored.append(wanted.position)

    engine.store.create = remember  # type: ignore[assignment, method-assign]
    await take_over(engine, *items)
    assert stored == [each.position for each in items]
    assert [wake.due_ms for _, wake in engine.woken] == [DUE_MS] * 8  # type: ignore[union-attr]


async def test_limits_of_clients_are_not_applied_to_what_they_once_let_in(tmp_path: Path) -> None:
    file = tmp_path / "pending.jsonl"
    async with open_service() as service:
        for number in range(5):
            assert await create(service, scheduleKey=f"k{number}") == 201
        await admin(service, "export", str(file))
    engine = Engine()
    limits = CreateLimits(creates_per_second=1, monotonic_ns=lambda: 0)
    async with open_service(engine, limits=limits) as other:
        assert "5 created" in (await admin(other, "import", str(file))).output


async def test_a_topic_that_does_not_exist_refuses_its_line_alone() -> None:
    engine, item = Engine(), imported()
    lost = imported("b")
    lost = replace(lost, new=replace(lost.new, topic=Topic("missing")))
    created, refused = await take_over(engine, item, lost)
    assert isinstance(created, Created)
    assert isinstance(refused, InvalidInput)
    assert refused.errors[0].field == "delivery.topic"


async def test_an_import_needs_the_right_admin_and_create_for_each_client_and_topic() -> None:
    keys = {
        "operator": a_principal(Right.ADMIN, Right.CREATE, clients="shop"),
        "admin": a_principal(Right.ADMIN),
        "creator": a_principal(Right.CREATE),
    }
    engine = Engine()
    await engine.put(row(schedule(client_id="shop")), row(schedule(client_id="bank")), row(schedule(topic="mail")))
    found, _ = await all_pages(engine)
    items = [line_of(each) for each in found]
    async with open_service(gate=gate_of(keys)) as service:
        body = {"exportedAt": service.engine.clock.now_ms(), "schedules": items}
        answers = {key: await asked(service, "/admin/schedules", method="POST", body=body, key=key) for key in keys}
    assert answers["creator"][0] == 403
    assert {each["status"] for each in answers["admin"][1]["results"]} == {403}
    by_client = {
        (item["clientId"], item["delivery"]["topic"]): result["status"]
        for item, result in zip(items, answers["operator"][1]["results"], strict=True)
    }
    assert by_client == {("shop", builders.TOPIC): 201, ("bank", builders.TOPIC): 403, ("client-1", "mail"): 403}
    with pytest.raises(Forbidden):
        raise (await engine.requests.import_batch(a_principal(), [imported()], exported_at_ms=engine.clock.now_ms()))[0]  # type: ignore[index, misc]


# --- bad input


def line_of(found: PendingSchedule) -> dict[str, Any]:
    """A line of an export."""
    page = transfer.PendingScheduleDocument.model_validate(render_pending(found))
    document: dict[str, Any] = page.model_dump(
        mode="json", by_alias=True, include=set(transfer.EXPORTED_FIELDS), exclude_unset=True
    )
    document["deliveryId"] = document["deliveryId"].replace("/", "_")
    document["origin"]["digest"] = DIGEST
    return document


LINE = {
    "clientId": "shop", "scheduleKey": "a", "scheduleTime": DUE_MS, "taskData": 1, "delivery": {"topic": "orders"},
    "createdAt": DUE_MS, "deliveryId": "x", "version": 1,
    "origin": {"position": text_of(builders.position(DUE_MS)), "digest": DIGEST},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"version": 0}, ["version"]),
        ({"version": "1", "createdAt": -1, "clientId": "a b"}, ["clientId", "createdAt", "version"]),
        ({"deliveryId": ""}, ["deliveryId"]),
        ({"deliveryId": None}, ["deliveryId"]),
        ({"origin": None}, ["origin"]),
        ({"origin": {}}, ["origin.position"]),
        ({"origin": {"position": "1"}}, ["origin.position"]),
        ({"origin": {"position": text_of(builders.position(DUE_MS + 1))}}, ["origin.position"]),
        ({"origin": {"position": text_of(first_at(DUE_MS))}}, ["origin.position"]),
        ({"origin": {**LINE["origin"], "digest": "x"}}, ["origin.digest"]),  # type: ignore[dict-item]
        ({"origin": {**LINE["origin"], "more": 1}}, ["origin.more"]),  # type: ignore[dict-item]
        ({"scheduleTime": DUE_MS + 1}, ["origin.position"]),
        ({"status": "pending"}, ["status"]),
        ({"delivery": {"topic": "__x", "retry": {"attempts": 0}}}, ["delivery.retry.attempts", "delivery.topic"]),
    ],
)
def test_every_wrong_field_of_a_line_is_named(change: dict[str, Any], fields: list[str]) -> None:
    document = {name: value for name, value in {**LINE, **change}.items() if value is not None or name != "deliveryId"}
    with pytest.raises(InvalidInput) as refused:
        transfer.read_imported(document, cluster="clockwork", now_ms=DUE_MS)
    assert sorted(each.field for each in refused.value.errors) == fields


def test_a_line_without_a_digest_gets_that_of_its_content() -> None:
    lost = {**LINE, "origin": {"position": LINE["origin"]["position"]}}  # type: ignore[index]
    found = transfer.read_imported(lost, cluster="clockwork", now_ms=DUE_MS)
    whole = transfer.read_imported(LINE, cluster="clockwork", now_ms=DUE_MS)
    assert found.new.digest != DIGEST
    assert replace(found.new, digest=DIGEST) == whole.new
    assert (due_ms_of(found.position), acceptance_of(found.position) > 0) == (DUE_MS, True)


@pytest.fixture
async def exported(services: tuple[Service, Service], tmp_path: Path) -> tuple[Path, Service]:
    """An export with three schedules, and where to import it."""
    file, (service, other) = tmp_path / "pending.jsonl", services
    for key in ("a", "b", "c"):
        assert await create(service, scheduleKey=key) == 201
    await admin(service, "export", str(file))
    return file, other


async def test_wrong_lines_are_named_with_their_fields_and_the_others_are_imported(
    exported: tuple[Path, Service], tmp_path: Path
) -> None:
    file, other = exported
    lines = file.read_bytes().splitlines(keepends=True)
    wrong = json.loads(lines[2])
    wrong["version"], wrong["origin"]["position"] = 0, "x"
    cut = lines[3][:20] + b"\n"
    file.write_bytes(
        b"\xef\xbb\xbf" + b"".join([lines[0], b"\n", lines[1], json.dumps(wrong).encode() + b"\n", cut, lines[4]])
    )
    rejected = tmp_path / "rejected.txt"
    told = await admin(other, "import", str(file), "--rejected", str(rejected), code=3)
    assert "1 created, 0 there already, 2 rejected" in told.output
    first, second = sorted(rejected.read_text().splitlines())
    assert first.startswith("line 4: ")
    assert "version: " in first
    assert "origin.position: " in first
    assert second.startswith("line 5: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "ends behind line 4 without the last line of an export"),
        (lambda lines: [*lines[:2], *lines[3:]], "has 2 schedules, and its last line says 3"),
    ],
)
async def test_an_export_that_lacks_lines_is_no_success(
    exported: tuple[Path, Service], change: Any, message: str
) -> None:
    file, other = exported
    whole = file.read_bytes()
    file.write_bytes(b"".join(change(whole.splitlines(keepends=True))))
    assert message in (await admin(other, "import", str(file), code=1)).output
    file.write_bytes(whole)
    await admin(other, "import", str(file))
    assert len(other.engine.store.rows) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [], "is empty"),
        (lambda lines: lines[1:], "line 1: is not the first line of an export; `clockwork schedule load`"),
        (lambda lines: [b'{"clockworkExport":2}\n', *lines[1:]], "line 1: clockworkExport: "),
        (lambda lines: [*lines, *lines], "line 6: stands behind the last line of an export"),
        (lambda lines: [*lines[:-1], b'{"end":{"schedules":"3"}}'], "line 5: end.schedules: "),
    ],
)
async def test_a_file_that_is_no_export_is_refused_with_its_line(
    exported: tuple[Path, Service], change: Any, message: str
) -> None:
    file, other = exported
    file.write_bytes(b"".join(change(file.read_bytes().splitlines(keepends=True))))
    assert message in (await admin(other, "import", str(file), code=2)).output


# --- a cluster that delivers while it is exported


async def test_an_export_of_a_cluster_that_delivers_is_imported_only_on_demand(
    services: tuple[Service, Service], tmp_path: Path
) -> None:
    file, (service, other) = tmp_path / "pending.jsonl", services
    assert await create(service, scheduleKey="a") == 201
    await service.engine.own(ShardId(2))
    assert "the cluster delivers" in (await admin(service, "export", str(file))).output
    assert "may be delivered twice" in (await admin(other, "import", str(file), code=2)).output
    assert other.engine.store.rows == {}
    assert "1 created" in (await admin(other, "import", "--from-running", str(file))).output


async def test_a_worker_that_starts_during_the_export_is_noticed(
    services: tuple[Service, Service], tmp_path: Path
) -> None:
    file, (service, other) = tmp_path / "pending.jsonl", services
    assert await create(service, scheduleKey="a") == 201
    page = service.engine.scan.page

    async def meanwhile(*arguments: Any, **more: Any) -> Any:
        # Taken and released again, so that at the end it has no owner, as at the beginning.
        lease = await service.engine.own(ShardId(2))
        await service.engine.store.release_shard(lease.shard, epoch=lease.epoch, owner=lease.incarnation.id, floor_ms=0)
        return await page(*arguments, **more)

    service.engine.scan.page = meanwhile  # type: ignore[method-assign]
    assert "the cluster delivers" in (await admin(service, "export", str(file))).output
    told = await admin(other, "import", str(file), code=1)
    assert "began to deliver while it was exported" in told.output


async def test_an_export_that_cannot_be_whole_says_so(tmp_path: Path) -> None:
    engine = Engine()
    engine.store.put_by_hand(builders.broken_row())
    await engine.put(row(schedule(client_id="bank")), row(schedule(client_id="shop")))
    keys = {SECRET: a_principal(Right.ADMIN, Right.READ, clients="shop")}
    async with open_service(engine, gate=gate_of(keys)) as service:
        failed = await admin(service, "export", str(tmp_path / "x"), code=1)
    assert "1 exported" in failed.output
    assert (
        "1 rows or jobs cannot be read by this version and 1 schedules or jobs are of clients that the key does not cover"
        in failed.output
    )


async def test_a_move_in_two_parts_by_due_time_is_everything_once(
    services: tuple[Service, Service], tmp_path: Path
) -> None:
    file, (service, other) = tmp_path / "part.jsonl", services
    now_ms = service.engine.clock.now_ms()
    for number in range(6):
        assert await create(service, scheduleKey=f"k{number}", scheduleTime=now_ms + 1_000 * number) == 201
    at = str(now_ms + 3_000)
    await admin(service, "export", "--due-to", at, str(file))
    assert "3 created" in (await admin(other, "import", str(file))).output
    await admin(service, "export", "--due-from", at, str(file))
    assert "3 created" in (await admin(other, "import", str(file))).output
    assert other.engine.store.rows == service.engine.store.rows


# --- jobs

JOB: Final = {
    "clientId": "shop", "jobId": "report", "taskData": {"n": 1},
    "delivery": {"topic": builders.TOPIC, "deadline": 3_600_000},
    "trigger": {"type": "fixed_rate", "everyMs": 60_000, "maxRuns": 100}, "labels": {"team": "a"}, "priority": 3,
}  # fmt: skip


async def test_a_job_that_moves_goes_on_from_the_fire_time_that_was_decided_last(
    services: tuple[Service, Service], tmp_path: Path
) -> None:
    file, (service, other) = tmp_path / "pending.jsonl", services
    assert await create(service, scheduleKey="a", scheduleTime=service.engine.clock.now_ms() + 86_400_000) == 201
    assert (await asked(service, "/jobs", method="POST", body=JOB))[0] == 201
    assert (await asked(service, "/jobs", method="POST", body={**JOB, "jobId": "idle"}))[0] == 201
    note = {"note": "stock-taking"}
    assert (await asked(service, "/jobs/shop/idle/pause", method="POST", body=note))[0] == 200
    assert (await asked(service, "/jobs/shop/report", method="PUT", body={"taskData": {"n": 2}}))[0] == 200
    _, before = await asked(service, "/jobs/shop/report")
    first_ms = before["nextRun"]["scheduledAt"]
    service.engine.clock.set_ms(first_ms)
    await service.deliver()
    _, delivered = await asked(service, "/jobs/shop/report")
    assert delivered["counts"]["delivered"] == 1
    assert "1 and 2 jobs exported" in (await admin(service, "export", str(file))).output

    # The move takes ten minutes: by its policy the job fires once for them.
    other.engine.clock.set_ms(first_ms + 600_000)
    assert "3 created" in (await admin(other, "import", "--from-running", str(file))).output
    _, there = await asked(other, "/jobs/shop/report")
    assert (there["version"], there["taskData"], there["counts"]["delivered"]) == (2, {"n": 2}, 1)
    assert (there["createdAt"], there["nextRun"]["scheduledAt"]) == (delivered["createdAt"], first_ms + 600_000)
    assert there["counts"]["skipped"] == 9
    _, idle = await asked(other, "/jobs/shop/idle")
    assert (idle["status"], idle["note"]) == ("paused", "stock-taking")
    assert "nextRun" not in idle
    assert (await asked(other, "/jobs", method="POST", body=JOB))[0] == 200, "a repeat of the create before the change"

    assert "3 there already" in (await admin(other, "import", "--from-running", "--from-start", str(file))).output
    assert (await asked(other, "/jobs/shop/report"))[1] == there


async def test_a_job_of_the_same_name_is_not_replaced(services: tuple[Service, Service], tmp_path: Path) -> None:
    file, (service, other) = tmp_path / "pending.jsonl", services
    assert (await asked(service, "/jobs", method="POST", body=JOB))[0] == 201
    assert (await asked(other, "/jobs", method="POST", body={**JOB, "priority": 1}))[0] == 201
    await admin(service, "export", str(file))
    assert "already" in (await admin(other, "import", "--from-running", str(file), code=5)).output
    assert (await asked(other, "/jobs/shop/report"))[1]["priority"] == 1


async def test_runs_that_do_not_move_with_their_job_are_told(services: tuple[Service, Service], tmp_path: Path) -> None:
    service, _ = services
    assert (await asked(service, "/jobs", method="POST", body=JOB))[0] == 201
    assert (await asked(service, "/jobs/shop/report/run-now", method="POST", body={"requestId": "r"}))[0] == 201
    told = await admin(service, "export", str(tmp_path / "pending.jsonl"), code=1)
    assert "1 runs by hand, of backfills, retries or open ones have not ended and are left out" in told.output


BY_CALENDAR: Final = {**JOB, "trigger": {"type": "cron", "expression": "0 9 * * *", "exclude": {"calendar": "de"}}}


@pytest.mark.parametrize("there", [None, {"annual": ["01-01"]}], ids=["not there", "another"])
async def test_the_calendars_of_a_job_come_with_it_and_replace_none(
    services: tuple[Service, Service], tmp_path: Path, there: Any
) -> None:
    file, (service, other) = tmp_path / "pending.jsonl", services
    de, holidays = "/calendars/shop/de", {"annual": ["12-25"], "cron": ["* 0-7 * * *"]}
    assert (await asked(service, de, method="PUT", body=holidays))[0] == 201
    assert (await asked(service, "/jobs", method="POST", body=BY_CALENDAR))[0] == 201
    if there is not None:
        assert (await asked(other, de, method="PUT", body=there))[0] == 201
    await admin(service, "export", str(file))
    assert "1 created" in (await admin(other, "import", "--from-running", str(file))).output

    _, kept = await asked(other, de)
    wanted = holidays if there is None else there
    assert {name: kept.get(name) for name in wanted} == wanted
    _, job = await asked(other, "/jobs/shop/report")
    assert job["trigger"]["exclude"] == {"calendar": "de"}
    assert (await asked(other, de, method="DELETE"))[1]["jobs"] == ["report"]


async def test_a_job_that_comes_without_its_calendar_is_refused_and_the_calendar_named(
    services: tuple[Service, Service], tmp_path: Path
) -> None:
    file, (service, other) = tmp_path / "pending.jsonl", services
    assert (await asked(service, "/calendars/shop/de", method="PUT", body={}))[0] == 201
    assert (await asked(service, "/jobs", method="POST", body=BY_CALENDAR))[0] == 201
    await admin(service, "export", str(file))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        line.get("origin", {}).pop("calendars", None)
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    told = (await admin(other, "import", "--from-running", str(file), code=3)).output
    assert "trigger.exclude.calendar" in told
