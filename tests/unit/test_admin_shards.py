"""The shards from outside, an owner that begins anew, and pending schedules carried to another cluster."""

import asyncio
import json
import os
import random
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from clockwork.domain.rights import Right
from clockwork.domain.schedule import Guarantee
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import NewlyDue
from clockwork.errors import Fenced, StoreUnavailable
from clockwork.firing.shard_loop import ConcurrencyLimits, ShardLoop
from clockwork.operations.scan import SCAN_START
from clockwork.ports.telemetry import NoTelemetry
from clockwork.requests.results import Cancelled
from tests.support import builders
from tests.support.builders import DUE_MS, row, schedule
from tests.support.clocks import LoopClock
from tests.support.engine import SHARD, SHARDS, Engine
from tests.support.virtual_time import in_virtual_time
from tests.unit.api_edge import a_request
from tests.unit.service import Service, a_principal, gate_of, open_service
from tests.unit.test_cli_admin import admin


async def asked(service: Service, path: str, key: str = "none") -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(service.url, headers=headers) as session, session.get(path) as answer:
        return answer.status, await answer.json()


# --- looking


async def test_each_shard_is_shown_with_its_owner_and_how_late_it_is() -> None:
    engine = Engine()
    await engine.put(row())
    await engine.takeover.run(SHARD)
    engine.at_due(2_500)
    del engine.store.shard_states[ShardId(0)]
    async with open_service(engine) as service:
        status, document = await asked(service, "/admin/shards")
        table = (await admin(service, "shards")).output
    assert status == 200
    found = {each["shard"]: each for each in document["shards"]}
    assert list(found) == list(range(SHARDS))
    assert found[SHARD]["owner"].startswith("node/")
    assert {name: found[SHARD][name] for name in ("epoch", "oldestDue", "lagMs")} == {
        "epoch": 1,
        "oldestDue": DUE_MS,
        "lagMs": 2_500,
    }
    assert found[1] == {"shard": 1, "epoch": 0, "owner": "", "frontier": 0, "lagMs": 0}
    assert "its frontier is not known" in found[0]["problem"]
    assert "2.5 s" in table


# --- fencing


async def test_a_fenced_owner_fires_nothing_more_until_it_has_taken_over_again() -> None:
    engine = Engine()
    await engine.put(row(schedule(schedule_key="a")))
    lease = await engine.own()
    async with open_service(engine) as service:
        told = json.loads((await admin(service, "fence", str(SHARD), "--json")).output)
    assert (told["shard"], told["epoch"]) == (SHARD, lease.epoch + 1)
    assert engine.woken == [(SHARD, NewlyDue(engine.clock.now_ms()))]
    engine.at_due()
    with pytest.raises(Fenced):
        await engine.one_pass(lease)
    assert engine.arrived() == []
    again = await engine.own()
    await engine.one_pass(again)
    assert engine.arrived() == ["a"]


async def test_what_a_fenced_owner_still_delivers_is_known_to_the_next_and_was_not_to_be_cancelled() -> None:
    # Its producer is not fenced, and its frontier is stored: it may go on with what is below that. The case of an owner
    # that is fenced between its frontier and its commit.
    engine = Engine()
    sent = row(schedule(schedule_key="sent"))
    await engine.put(sent)
    lease = await engine.own()
    engine.at_due()
    await engine.shard_pass.raise_frontier(lease)
    await engine.survey.fence(SHARD)
    refused = await engine.cancel(sent.schedule.client_id, sent.schedule.schedule_key)
    assert not isinstance(refused, Cancelled)
    await engine.one_pass(lease)
    assert engine.arrived() == ["sent"]

    again = await engine.own()
    assert sent.position in again.cleanup or not engine.store.rows
    await engine.one_pass(again)
    assert engine.arrived() == ["sent"]


async def test_a_cancel_believes_no_wait_that_was_said_before_the_fence() -> None:
    # The old owner may not know any more what it said; the next one says it anew.
    engine = Engine()
    waiting = row(schedule(schedule_key="waits"))
    await engine.put(waiting)
    lease = await engine.own()
    engine.kafka.delete_topic(builders.TOPIC)
    engine.at_due()
    await engine.one_pass(lease)
    await engine.survey.fence(SHARD)
    await engine.shard_pass.answer_wanted(lease, waiting.position)
    refused = await engine.cancel(waiting.schedule.client_id, waiting.schedule.schedule_key)
    assert not isinstance(refused, Cancelled)


async def test_a_fence_whose_answer_was_lost_is_raised_once() -> None:
    class Loses(Engine):
        lost = False

    engine = Loses()
    raise_epoch = engine.store.raise_epoch

    async def lossy(shard: ShardId, *, expected: int, owner: str) -> Any:
        state = await raise_epoch(shard, expected=expected, owner=owner)
        if not engine.lost:
            engine.lost = True
            raise StoreUnavailable(outcome_unknown=True)
        return state

    engine.store.raise_epoch = lossy  # type: ignore[method-assign]
    view = await engine.survey.fence(SHARD)
    assert view.state is not None
    assert view.state.epoch == 1


@pytest.mark.parametrize("lead_ms", [250, 2_500], ids=["shorter than the scan interval", "longer than it"])
@in_virtual_time
async def test_an_owner_with_nothing_due_meets_the_fence_also_while_its_frontier_reaches_ahead(lead_ms: int) -> None:
    # A frontier that reaches ahead is not written again until something is due beyond it, and only its write is refused.
    engine = Engine(clock=LoopClock(DUE_MS), scan_interval_ms=1_000, frontier_lead_ms=lead_ms)
    limits = ConcurrencyLimits(passes=asyncio.Semaphore(1), takeovers=asyncio.Semaphore(1))
    loop = ShardLoop(
        SHARD,
        engine.takeover,
        engine.shard_pass,
        limits,
        engine.clock,
        NoTelemetry(),
        random.Random(1),
        engine.settings,
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(loop.run(), name="loop")
        for number in range(60):
            due = row(schedule(schedule_key=f"k{number}", due_ms=engine.clock.now_ms() + 300))
            await engine.put(due)
            loop.tell(NewlyDue(due.due_ms))
            # At another moment after the delivery each time, and at another one between two scans.
            await asyncio.sleep((310 + 5 * number) / 1_000)
            assert len(engine.arrived()) == number + 1
            fenced = (await engine.survey.fence(SHARD)).state
            assert fenced is not None
            loop.tell(engine.woken[-1][1])
            await asyncio.sleep(5)  # the frontier, and the longest back-off of a take-over
            taken = await engine.store.read_shard(SHARD)
            assert (taken.epoch, taken.owner.partition("/")[0]) == (fenced.epoch + 1, "node"), number
        running.cancel()


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
