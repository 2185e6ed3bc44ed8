"""The shards from outside, an owner that is fenced, and pending schedules carried to another cluster."""

import asyncio
import json
import os
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from clockwork.domain.ownership import IncarnationId, ShardClaim
from clockwork.domain.rights import Right
from clockwork.domain.schedule import Guarantee
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import NewlyDue
from clockwork.errors import Fenced, StoreUnavailable, Unreadable
from clockwork.kafka.memory.wakeups import DirectWaker
from clockwork.operations.scan import SCAN_START
from clockwork.operations.shards import FencedOwner, ShardAdmin
from clockwork.requests.results import Cancelled
from clockwork.settings.model import IntakeSettings
from tests.support import builders
from tests.support.builders import DUE_MS, row, schedule
from tests.support.engine import SHARD, SHARDS, Engine
from tests.support.virtual_time import in_virtual_time
from tests.unit.api_edge import a_request
from tests.unit.firing_world import SHARDS as WORLD_SHARDS
from tests.unit.firing_world import FiringWorld, firing_world
from tests.unit.service import Service, a_principal, gate_of, open_service
from tests.unit.test_cli_admin import admin

ONE, TWO, THREE = (IncarnationId(f"00000000000000aa.{number}") for number in (1, 2, 3))


async def asked(service: Service, path: str, key: str = "none") -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(service.url, headers=headers) as session, session.get(path) as answer:
        return answer.status, await answer.json()


async def takes(engine: Engine, incarnation: IncarnationId, *shards: int) -> None:
    """The incarnation takes these shards, whoever has them."""
    if incarnation not in engine.store.nodes:
        await engine.store.start_incarnation(incarnation, node="host:7")
    states = await engine.store.read_shards([ShardId(shard) for shard in shards])
    claims = [ShardClaim(shard=shard, epoch=state.epoch, floor_ms=0) for shard, state in states.items()]
    await engine.store.take_shards(claims, taker=incarnation)


# --- looking


async def test_each_shard_is_shown_with_its_owner_and_how_late_it_is() -> None:
    engine = Engine()
    await engine.put(row())
    lease = await engine.own()
    await takes(engine, ONE, 1, 2)
    await engine.store.raise_frontier(ONE, frontier_ms=DUE_MS, hints={})
    await engine.store.fence(ONE, at_ms=DUE_MS + 1)
    await engine.store.release_shard(ShardId(1), epoch=1, owner=ONE, floor_ms=DUE_MS + 7)
    engine.at_due(2_500)
    async with open_service(engine) as service:
        status, document = await asked(service, "/admin/shards")
        table = (await admin(service, "shards")).output
    assert status == 200
    found = {each["shard"]: each for each in document["shards"]}
    assert list(found) == list(range(SHARDS))
    owner = {"owner": lease.incarnation.id, "node": "host:1", "epoch": 1, "floor": 0, "frontier": 0}
    assert found[SHARD] == {"shard": SHARD, **owner, "oldestDue": DUE_MS, "lagMs": 2_500}
    assert found[1] == {"shard": 1, "epoch": 1, "floor": DUE_MS + 7, "lagMs": 0}
    fenced = {"owner": ONE, "node": "host:7", "frontier": DUE_MS, "fencedAt": DUE_MS + 1}
    assert found[2] == {"shard": 2, **fenced, "epoch": 1, "floor": 0, "lagMs": 0}
    assert found[4] == {"shard": 4, "epoch": 0, "floor": 0, "lagMs": 0}
    assert "2.5 s" in table
    assert "(fenced)" in table


async def test_what_cannot_be_shown_of_one_shard_hides_no_other() -> None:
    engine = Engine()
    await takes(engine, ONE, 1)
    await takes(engine, TWO, 2)
    await takes(engine, THREE, 3)
    del engine.store.shard_states[ShardId(0)]
    del engine.store.nodes[ONE]
    read_nodes = engine.store.read_nodes

    async def unreadable(incarnations: Sequence[IncarnationId]) -> Any:
        if TWO in incarnations:
            raise Unreadable(f"incarnation {TWO}: no frontier")
        return await read_nodes(incarnations)

    engine.store.read_nodes = unreadable  # type: ignore[method-assign]
    views = await engine.survey.shards()
    assert ["no node works on it" in (views[0].problem or ""), views[0].state] == [True, None]
    assert (views[1].problem, views[1].owner) == (f"its owner, incarnation {ONE}, has no item", None)
    assert (views[2].problem, views[2].owner) == (f"incarnation {TWO}: no frontier", None)
    assert [views[3].problem, views[3].owner] == [None, engine.store.nodes[THREE]]


# --- fencing


async def test_a_fenced_owner_fires_nothing_more_and_the_next_one_does() -> None:
    engine = Engine()
    await engine.put(row(schedule(schedule_key="a")))
    lease = await engine.own()
    async with open_service(engine) as service:
        told = json.loads((await admin(service, "fence", str(SHARD), "--json")).output)
    now_ms = engine.clock.now_ms()
    owner = {"incarnation": lease.incarnation.id, "node": "host:1"}
    assert told == {**owner, "fencedAt": now_ms, "frontier": 0, "shards": [SHARD]}
    assert engine.woken == [(SHARD, NewlyDue(now_ms))]
    engine.at_due()
    with pytest.raises(Fenced):
        await engine.one_pass(lease)
    assert engine.arrived() == []
    again = await engine.own()
    await engine.one_pass(again)
    assert engine.arrived() == ["a"]


async def test_a_fence_names_and_wakes_all_shards_of_the_incarnation_and_no_others() -> None:
    engine = Engine()
    await takes(engine, ONE, 1, 2, 5)
    await takes(engine, TWO, 3)
    await engine.store.raise_frontier(ONE, frontier_ms=DUE_MS + 250, hints={})
    fence = engine.store.fence

    async def meanwhile(incarnation: IncarnationId, *, at_ms: int) -> Any:
        await takes(engine, ONE, 6)
        fenced = await fence(incarnation, at_ms=at_ms)
        await takes(engine, TWO, 2)
        return fenced

    engine.store.fence = meanwhile  # type: ignore[method-assign]
    async with open_service(engine) as service:
        told = (await admin(service, "fence", "5")).output
    assert told == f"{ONE} on host:7 is fenced: shards 1, 2, 5, 6 change hands\n"
    # Up to its stored frontier it has nothing to write that could be refused.
    assert engine.woken == [(shard, NewlyDue(DUE_MS + 251)) for shard in (1, 2, 5, 6)]
    assert [incarnation for incarnation, node in engine.store.nodes.items() if node.fenced_at_ms] == [ONE]


async def test_a_shard_without_an_owner_has_nothing_to_fence_and_says_so() -> None:
    engine = Engine()
    async with open_service(engine) as service, aiohttp.ClientSession(service.url) as session:
        async with session.post("/admin/shards/3/fence") as answer:
            assert (answer.status, (await answer.json())["type"]) == (409, "urn:clockwork:problem:shard-not-owned")
        refused = await admin(service, "fence", "3", code=5)
    assert "has no owner" in refused.output
    assert engine.woken == []


async def test_what_a_fenced_owner_still_delivers_is_known_to_the_next_and_was_not_to_be_cancelled() -> None:
    # Its producers are not initialised by the fence alone, and its frontier is stored: it may go on with what is below that.
    # The case of an owner that is fenced between its frontier and its commit.
    engine = Engine()
    sent = row(schedule(schedule_key="sent"))
    await engine.put(row(schedule(schedule_key="first", due_ms=DUE_MS - 1_000)), sent)
    lease = await engine.own()
    engine.at_due(late_ms=-1_000)
    await engine.one_pass(lease)  # its slot is initialised by now
    engine.at_due()
    await lease.incarnation.raise_frontier()
    await engine.survey.fence(SHARD)
    refused = await engine.cancel(sent.schedule.client_id, sent.schedule.schedule_key)
    assert not isinstance(refused, Cancelled)
    await engine.one_pass(lease)
    assert engine.arrived() == ["first", "sent"]

    again = await engine.own()
    assert engine.store.rows == {}, "they are cleaned up before the shard changes hands"
    await engine.one_pass(again)
    assert engine.arrived() == ["first", "sent"]


async def test_a_fence_whose_answer_was_lost_is_the_same_fence() -> None:
    engine = Engine()
    await takes(engine, ONE, SHARD)
    fence = engine.store.fence
    lost: list[IncarnationId] = []

    async def lossy(incarnation: IncarnationId, *, at_ms: int) -> Any:
        fenced = await fence(incarnation, at_ms=at_ms)
        engine.clock.advance_ms(5)
        if not lost:
            lost.append(incarnation)
            raise StoreUnavailable(outcome_unknown=True)
        return fenced

    engine.store.fence = lossy  # type: ignore[method-assign]
    began_ms = engine.clock.now_ms()
    found = await engine.survey.fence(SHARD)
    assert isinstance(found, FencedOwner)
    assert (found.owner.incarnation, found.owner.fenced_at_ms, found.shards) == (ONE, began_ms, (SHARD,))


def owns_all(world: FiringWorld, incarnation: IncarnationId) -> bool:
    return set(world.owners().values()) == {incarnation}


def has_come(world: FiringWorld, key: str) -> bool:
    return key in world.arrived()


@in_virtual_time
async def test_an_owner_with_nothing_due_meets_the_fence_at_once() -> None:
    # Its frontier reaches ahead of now, and only a write beyond it is refused: the wake-up is for a time past it.
    async with firing_world() as world:
        process = world.start()
        process.assign(*range(WORLD_SHARDS))
        settings = IntakeSettings(shards=WORLD_SHARDS)
        waker = DirectWaker(process.supervisor.tell)
        survey = ShardAdmin(world.store, waker, world.clock, random.Random(1), settings)
        for number in range(1, 6):
            owner, next_owner = process.incarnation(number), process.incarnation(number + 1)
            await world.until(partial(owns_all, world, owner))
            await world.create(f"k{number}")
            await world.until(partial(has_come, world, f"k{number}"))
            # At another moment after the delivery each time, and at another one between two scans.
            await asyncio.sleep(120 + 0.17 * number)
            found = await survey.fence(ShardId(2))
            assert isinstance(found, FencedOwner)
            assert found.shards == tuple(range(WORLD_SHARDS))
            await world.until(partial(world.store.nodes.__contains__, next_owner), within_s=0.5)


async def test_a_number_that_is_no_shards_is_refused() -> None:
    async with open_service() as service:
        refused = await admin(service, "fence", str(SHARDS), code=3)
    assert f"shard: should be 0 to {SHARDS - 1}" in refused.output


# --- scanning


async def test_all_pending_schedules_are_in_the_pages_once_and_nothing_that_ended() -> None:
    engine = Engine()
    rows = [row(schedule(schedule_key=f"k{n}"), shard=n % SHARDS) for n in range(3 * SHARDS)]
    await engine.put(*rows)
    engine.store.put_by_hand(builders.broken_row())
    delivered = rows[0]
    ended = builders.outcome(delivered)  # its row is still to be deleted
    engine.store.outcomes[(ended.client_id, ended.schedule_key, ended.position)] = ended
    engine.at_due()
    keys, unreadable, place = [], 0, SCAN_START
    while True:
        page = await engine.scan.page(place, limit=5)
        keys += [view.schedule_key for view in page.views]
        unreadable += page.unreadable
        if page.next_from is None:
            break
        place = page.next_from
    assert sorted(keys) == sorted(each.schedule.schedule_key for each in rows[1:])
    assert unreadable == 1


async def test_a_scan_shows_only_clients_that_the_key_may_read() -> None:
    keys = {
        "shop": a_principal(Right.ADMIN, Right.READ, clients="shop"),
        "service": a_principal(Right.ADMIN, clients="*"),
        "reader": a_principal(Right.READ, clients="*"),
    }
    engine = Engine()
    await engine.put(row(schedule(client_id="shop")), row(schedule(client_id="bank")))
    async with open_service(engine, gate=gate_of(keys)) as service:
        status, page = await asked(service, "/admin/schedules", "shop")
        assert (status, [each["clientId"] for each in page["schedules"]]) == (200, ["shop"])
        for key in ("service", "reader"):
            assert (await asked(service, "/admin/schedules", key))[0] == 403
        for cursor in ("x", "AAAA", "_" * 28):
            status, refused = await asked(service, f"/admin/schedules?cursor={cursor}", "shop")
            assert (status, refused["errors"][0]["field"]) == (400, "cursor")


# --- carrying over


async def create(service: Service, **fields: Any) -> None:
    body = a_request(**{"scheduleTime": service.engine.clock.now_ms() + 60_000, **fields})
    async with aiohttp.ClientSession(service.url) as session, session.post("/schedule", json=body) as answer:
        assert answer.status == 201, await answer.text()


async def test_an_export_imported_elsewhere_is_the_same_schedules_and_again_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "pending.jsonl"
    everything = {
        "topic": builders.TOPIC, "guarantee": "at_least_once", "headers": {"a": "ü"}, "deadline": 5, "onLate": "drop",
        "retry": {"attempts": 3, "initialMs": 100, "maxMs": 200, "factor": 2.0, "jitter": 0.5},
    }  # fmt: skip
    async with open_service() as service:
        topic = {"topic": builders.TOPIC}
        await create(service, scheduleKey="ü/1", taskData="text", delivery=everything, orderingKey="lane")
        await create(service, scheduleKey="b", taskData=None, delivery=topic)
        await create(service, scheduleKey="c", taskData="/w==", taskDataEncoding="base64", delivery=topic)
        await create(service, clientId="bank", scheduleKey="d", taskData=[1, {"x": None}], delivery=topic)
        told = await admin(service, "export", str(file))
        assert "4 exported" in told.output
        assert "4 there already" in (await admin(service, "import", str(file))).output, "where it came from"
        of_shop = await admin(service, "export", "--client", "shop", "-")
        assert len([line for line in of_shop.output.splitlines() if line.startswith("{")]) == 3
        before = {each.schedule.schedule_key: each.schedule for each in service.engine.store.rows.values()}  # type: ignore[union-attr]
    assert os.listdir(tmp_path) == ["pending.jsonl"], "nothing half done is left"
    async with open_service() as other:
        assert "4 created" in (await admin(other, "import", str(file))).output
        assert "0 created, 4 there already" in (await admin(other, "import", str(file))).output
        after = {each.schedule.schedule_key: each.schedule for each in other.engine.store.rows.values()}  # type: ignore[union-attr]
    assert after.keys() == before.keys()
    for key, schedule_ in after.items():
        was = before[key]
        assert schedule_.guarantee is (Guarantee.AT_LEAST_ONCE if key == "ü/1" else Guarantee.EXACTLY_ONCE)
        for name in ("client_id", "due_ms", "topic", "task_data", "data_form", "headers", "ordering_key", "retry"):
            assert getattr(schedule_, name) == getattr(was, name)
        assert (schedule_.deadline_ms, schedule_.on_late) == (was.deadline_ms, was.on_late)


async def test_what_a_change_has_moved_is_rejected_where_it_came_from(tmp_path: Path) -> None:
    file = tmp_path / "pending.jsonl"
    async with open_service() as service, aiohttp.ClientSession(service.url) as session:
        await create(service, scheduleKey="a", delivery={"topic": builders.TOPIC})
        async with session.put("/schedule/shop/a", json={"taskData": "new"}) as answer:
            assert answer.status == 200
        await admin(service, "export", str(file))
        rejected = await admin(service, "import", str(file), code=5)
    assert "1 rejected" in rejected.output
    assert "Another schedule is pending" in rejected.output


async def test_an_export_that_cannot_be_whole_says_so(tmp_path: Path) -> None:
    engine = Engine()
    engine.store.put_by_hand(builders.broken_row())
    async with open_service(engine) as service:
        failed = await admin(service, "export", str(tmp_path / "x"), code=1)
    assert "1 rows cannot be read" in failed.output
