"""The shards from outside, and an owner that is fenced."""

import asyncio
import json
import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import aiohttp
import pytest

from clockwork.domain.ownership import IncarnationId, ShardClaim
from clockwork.domain.pauses import PauseKind, Pauses
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import NewlyDue
from clockwork.errors import Fenced, StoreUnavailable, Unreadable
from clockwork.kafka.memory.wakeups import DirectWaker
from clockwork.operations.shards import FencedOwner, ShardAdmin
from clockwork.requests.results import Cancelled
from clockwork.settings.model import IntakeSettings
from clockwork.stores.memory.store import MemoryPauses, MemoryScheduleSearch
from tests.support.builders import DUE_MS, TOPIC, row, schedule
from tests.support.engine import SHARD, SHARDS, Engine
from tests.support.virtual_time import in_virtual_time
from tests.unit.firing_world import SHARDS as WORLD_SHARDS
from tests.unit.firing_world import FiringWorld, firing_world
from tests.unit.service import Service, open_service
from tests.unit.test_cli_admin import admin

ONE, TWO, THREE = (IncarnationId(f"00000000000000aa.{number}") for number in (1, 2, 3))


async def asked(service: Service, path: str, key: str = "none") -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(service.url, headers=headers) as session, session.get(path) as answer:
        return answer.status, await answer.json()


async def takes(engine: Engine, incarnation: IncarnationId, *shards: int) -> None:
    """The incarnation takes these shards from any owner."""
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
    assert found[SHARD] == {"shard": SHARD, **owner, "oldestDue": DUE_MS, "oldestTopic": TOPIC, "lagMs": 2_500}
    assert found[1] == {"shard": 1, "epoch": 1, "floor": DUE_MS + 7, "lagMs": 0}
    fenced = {"owner": ONE, "node": "host:7", "frontier": DUE_MS, "fencedAt": DUE_MS + 1}
    assert found[2] == {"shard": 2, **fenced, "epoch": 1, "floor": 0, "lagMs": 0}
    assert found[4] == {"shard": 4, "epoch": 0, "floor": 0, "lagMs": 0}
    assert "2.5 s" in table
    assert "(fenced)" in table


async def test_a_shard_whose_first_row_is_held_back_by_a_pause_says_so_as_long_as_it_is_late() -> None:
    engine = Engine()
    await engine.put(row(shard=ShardId(1)), row(schedule(topic="other"), shard=ShardId(2)))
    await engine.pauser.pause(PauseKind.TOPIC, TOPIC, by="ana")

    async def paused() -> dict[int, bool]:
        return {
            each.shard: each.oldest_paused
            for each in await engine.shard_admin.shards()
            if each.oldest_due_ms is not None
        }

    assert await paused() == {1: False, 2: False}
    engine.at_due(2_500)
    assert await paused() == {1: True, 2: False}
    async with open_service(engine) as service:
        _, document = await asked(service, "/admin/shards")
        assert [each["shard"] for each in document["shards"] if each.get("oldestPaused")] == [1]
        assert (await admin(service, "shards")).output.count("2.5 s (paused)") == 1


class CountedPauses(MemoryPauses):
    """Pauses, the reads of which are counted."""

    reads = 0
    error: Exception | None = None

    async def read_pauses(self) -> Pauses:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return await super().read_pauses()


async def test_pauses_are_read_only_while_a_shard_is_late_and_hide_no_shard_if_they_cannot_be() -> None:
    engine = Engine()
    engine.shard_admin._pauses = pauses = CountedPauses()
    await engine.put(row())
    await engine.shard_admin.shards()
    assert pauses.reads == 0
    engine.at_due(2_500)
    pauses.error = Unreadable("x")
    found = await engine.shard_admin.shards()
    assert (pauses.reads, found[SHARD].lag_ms, found[SHARD].oldest_paused) == (1, 2_500, False)


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
    views = await engine.shard_admin.shards()
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
    await engine.shard_admin.fence(SHARD)
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
    found = await engine.shard_admin.fence(SHARD)
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
        shards = ShardAdmin(
            world.store,
            MemoryScheduleSearch(world.store),
            MemoryPauses(),
            waker,
            world.clock,
            random.Random(1),
            settings,
        )
        for number in range(1, 6):
            owner, next_owner = process.incarnation(number), process.incarnation(number + 1)
            await world.until(partial(owns_all, world, owner))
            await world.create(f"k{number}")
            await world.until(partial(has_come, world, f"k{number}"))
            # At another moment after the delivery each time, and at another one between two scans.
            await asyncio.sleep(120 + 0.17 * number)
            found = await shards.fence(ShardId(2))
            assert isinstance(found, FencedOwner)
            assert found.shards == tuple(range(WORLD_SHARDS))
            await world.until(partial(world.store.nodes.__contains__, next_owner), within_s=0.5)


async def test_a_number_that_is_no_shards_is_refused() -> None:
    async with open_service() as service:
        refused = await admin(service, "fence", str(SHARDS), code=3)
    assert f"shard: should be 0 to {SHARDS - 1}" in refused.output
