"""The supervisor, take-over and release, over several processes: shards change hands, and nothing is lost or sent twice."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from clockwork.domain.marker import MarkerEntry, encode, marker_key
from clockwork.domain.ownership import IncarnationId, NodeState, ShardClaim, ShardState
from clockwork.domain.position import due_ms_of
from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import BrokenRow, Guarantee, Receipt
from clockwork.domain.sharding import ShardId, kafka_partition_of
from clockwork.errors import StoreThrottled, StoreUnavailable, Unreadable
from clockwork.firing.shard_loop import SCAN_PAST_MAX
from clockwork.firing.sweep import FENCED_MS_MIN, sweep
from clockwork.kafka.memory.broker import Step
from clockwork.ports.store import End
from tests.support import builders
from tests.support.virtual_time import in_virtual_time
from tests.unit.firing_world import DRAIN_TIMEOUT_MS, SHARDS, FiringWorld, Process, firing_world

ALL = range(SHARDS)


async def owned(world: FiringWorld, process: Process, *shards: int) -> None:
    """Waits until the process works exactly these shards."""
    await world.until(lambda: process.supervisor.shards == frozenset(map(ShardId, shards)))


@in_virtual_time
async def test_a_process_takes_the_shards_that_it_is_assigned_and_delivers_their_rows() -> None:
    async with firing_world() as world:
        process = world.start()
        process.assign(*ALL)
        await owned(world, process, *ALL)
        assert set(world.owners().values()) == {process.incarnation()}
        assert process.store.calls.count("take_shards") == 1, "all shards in one transaction"
        await world.create("a", shard=0)
        await world.create("b", shard=1)
        await world.until(lambda: sorted(world.arrived()) == ["a", "b"])
        await world.until(lambda: not world.store.rows)


@in_virtual_time
async def test_an_idle_process_writes_nothing() -> None:
    async with firing_world() as world:
        process = world.start()
        process.assign(*ALL)
        await owned(world, process, *ALL)
        process.store.calls.clear()
        await asyncio.sleep(30)
        assert set(process.store.calls) == {"read_page", "read_nodes"}


@in_virtual_time
async def test_the_frontier_is_one_write_for_all_shards() -> None:
    async with firing_world() as world:
        process = world.start()
        process.assign(*ALL)
        await owned(world, process, *ALL)
        due_ms = world.clock.now_ms() + 2_000
        for shard in ALL:
            await world.create(f"key-{shard}", due_ms=due_ms, shard=shard)
        process.store.calls.clear()
        await world.until(lambda: len(world.arrived()) == SHARDS)
        assert process.store.calls.count("raise_frontier") == 1
        assert world.store.nodes[process.incarnation()].frontier_ms >= due_ms


@in_virtual_time
async def test_a_planned_hand_over_releases_and_fences_nothing() -> None:
    async with firing_world() as world:
        one, two = world.start(), world.start()
        one.assign(*ALL)
        await owned(world, one, *ALL)
        await world.create("a", shard=3)
        await world.until(lambda: world.arrived() == ["a"])
        began_s = asyncio.get_running_loop().time()
        two.assign(2, 3)
        one.assign(0, 1)
        await owned(world, two, 2, 3)
        assert asyncio.get_running_loop().time() - began_s < 0.5
        await owned(world, one, 0, 1)
        assert "fence" not in two.store.calls
        assert world.store.shard_states[ShardId(3)].floor_ms >= world.store.nodes[one.incarnation()].frontier_ms
        await world.create("b", shard=3)
        await world.until(lambda: world.arrived() == ["a", "b"])


@in_virtual_time
async def test_a_living_owner_that_does_not_release_is_fenced_after_the_drain_time_out() -> None:
    async with firing_world() as world:
        one, two = world.start(), world.start()
        one.assign(*ALL)
        await owned(world, one, *ALL)
        began_s = asyncio.get_running_loop().time()
        two.assign(0)
        await owned(world, two, 0)
        assert asyncio.get_running_loop().time() - began_s >= DRAIN_TIMEOUT_MS / 1_000 + 1
        assert world.store.nodes[one.incarnation()].fenced_at_ms is not None


@in_virtual_time
async def test_a_node_without_a_confirmed_assignment_fences_nobody() -> None:
    async with firing_world() as world:
        one, two = world.start(), world.start()
        one.assign(*ALL)
        await owned(world, one, *ALL)
        two.member.confirms = False
        two.assign(*ALL)
        await asyncio.sleep(60)
        two.member.reaches_group = False
        await asyncio.sleep(60)
        assert two.supervisor.shards == frozenset()
        assert "fence" not in two.store.calls
        assert world.store.nodes[one.incarnation()].fenced_at_ms is None


@in_virtual_time
async def test_a_shard_that_is_assigned_again_before_its_release_goes_on_with_its_lease() -> None:
    async with firing_world() as world:
        one = world.start()
        one.assign(*ALL)
        await owned(world, one, *ALL)
        epoch = world.store.shard_states[ShardId(0)].epoch
        # A transaction that does not end keeps the shard from being idle.
        may_commit = asyncio.Event()

        async def wait(step: Step, _: str, done: bool) -> None:
            if step is Step.COMMIT and not done:
                await may_commit.wait()

        world.on_kafka_step = wait
        await world.create("a", shard=0)
        await asyncio.sleep(0.1)
        one.assign(1, 2, 3)
        await owned(world, one, 1, 2, 3)
        one.assign(*ALL)
        await owned(world, one, *ALL)
        may_commit.set()
        await world.until(lambda: world.arrived() == ["a"])
        await world.create("b", shard=0)
        await world.until(lambda: world.arrived() == ["a", "b"])
        assert world.store.shard_states[ShardId(0)].epoch == epoch


@in_virtual_time
async def test_a_shard_is_released_only_when_its_rows_are_delivered_and_cleaned_up() -> None:
    async with firing_world() as world:
        one = world.start()
        one.assign(*ALL)
        await owned(world, one, *ALL)
        may_delete = asyncio.Event()
        one.store.before["finish"] = may_delete.wait  # type: ignore[assignment]
        await world.create("a", shard=0)
        await world.until(lambda: world.arrived() == ["a"])
        one.assign()
        await asyncio.sleep(3)
        assert world.owners()[0] == one.incarnation()
        assert world.owners()[1] is None
        may_delete.set()
        await world.until(lambda: world.owners()[0] is None)
        assert not world.store.rows


@in_virtual_time
async def test_an_orderly_stop_releases_everything_and_fences_the_own_item() -> None:
    async with firing_world() as world:
        one = world.start()
        one.assign(*ALL)
        await owned(world, one, *ALL)
        await world.create("a", shard=0)
        await world.until(lambda: world.arrived() == ["a"])
        await one.stop()
        assert set(world.owners().values()) == {None}
        assert world.store.nodes[one.incarnation()].fenced_at_ms is not None
        assert not world.store.rows
        assert all(state.floor_ms >= builders.DUE_MS for state in world.store.shard_states.values())


@in_virtual_time
async def test_an_operators_fence_moves_all_shards_to_the_next_incarnation() -> None:
    async with firing_world() as world:
        one = world.start()
        one.assign(*ALL)
        await owned(world, one, *ALL)
        await world.create("a", shard=0)
        await world.until(lambda: world.arrived() == ["a"])
        await world.store.fence(one.incarnation(), at_ms=1)
        await world.create("b", shard=0)
        await world.until(lambda: set(world.owners().values()) == {one.incarnation(2)})
        await world.until(lambda: world.arrived() == ["a", "b"])


@in_virtual_time
async def test_a_killed_owners_committed_rows_are_cleaned_up_and_its_open_ones_are_sent() -> None:
    async with firing_world() as world:
        one, two = world.start(), world.start()
        one.assign(*ALL)
        await owned(world, one, *ALL)
        one.store.before["finish"] = asyncio.Event().wait  # type: ignore[assignment]
        delivered = await world.create("delivered", shard=0)
        await world.until(lambda: world.arrived() == ["delivered"])
        world.kill(one)
        await world.create("open", shard=0)
        two.assign(*ALL)
        await world.until(lambda: world.arrived() == ["delivered", "open"])
        await world.until(lambda: not world.store.rows)
        place = (delivered.schedule.client_id, delivered.schedule.schedule_key, delivered.position)
        assert world.store.outcomes[place].receipt is not None
        order = [call for call in two.store.calls if call in ("fence", "finish", "take_shards")]
        assert order[:2] == ["fence", "take_shards"], "shards without rows to clean up are taken first"
        assert order[2:4] == ["finish", "take_shards"]


STEPS = ("fence", "init", "read_markers", "finish", "take_shards")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_taker_that_dies_at_any_step_leaves_nothing_twice_and_nothing_lost(step: str, after: bool) -> None:
    @in_virtual_time
    async def run() -> None:
        async with firing_world() as world:
            one, two, three = world.start(), world.start(), world.start()
            one.assign(*ALL)
            await owned(world, one, *ALL)
            one.store.before["finish"] = asyncio.Event().wait  # type: ignore[assignment]
            for shard in ALL:
                await world.create(f"key-{shard}", shard=shard)
            await world.until(lambda: len(world.arrived()) == SHARDS)
            world.kill(one)
            died = asyncio.Event()

            async def die() -> None:
                world.kill(two)
                died.set()

            async def die_at(at: Step, who: str, done: bool) -> None:
                if at == step and done is after and not died.is_set():
                    await die()
                    await asyncio.Event().wait()

            world.on_kafka_step = die_at
            (two.store.after if after else two.store.before)[step] = die
            two.assign(*ALL)
            await asyncio.wait_for(died.wait(), 60)
            world.on_kafka_step = None
            three.assign(*ALL)
            await owned(world, three, *ALL)
            await world.until(lambda: not world.store.rows)
            await asyncio.sleep(10)
            assert sorted(world.arrived()) == [f"key-{shard}" for shard in ALL]
            assert len(world.store.outcomes) == SHARDS

    run()


@in_virtual_time
async def test_a_taking_of_shards_without_an_answer_is_repeated_until_it_is_known() -> None:
    async with firing_world() as world:
        one = world.start()
        lost = 3

        async def lose() -> None:
            nonlocal lost
            if lost:
                lost -= 1
                raise StoreUnavailable("no answer", outcome_unknown=True)

        one.store.after["take_shards"] = lose
        one.assign(*ALL)
        await owned(world, one, *ALL)
        assert {state.epoch for state in world.store.shard_states.values()} == {1}


@in_virtual_time
async def test_shards_that_were_taken_after_all_are_released_if_they_are_not_assigned_any_more() -> None:
    async with firing_world() as world:
        one = world.start()
        may_answer = asyncio.Event()
        one.store.after["take_shards"] = may_answer.wait  # type: ignore[assignment]
        one.assign(*ALL)
        await world.until(lambda: world.owners()[0] is not None)
        one.assign(0)
        may_answer.set()
        await world.until(lambda: world.owners() == {0: one.incarnation(), 1: None, 2: None, 3: None})


@in_virtual_time
async def test_a_release_without_an_answer_is_repeated_and_the_shard_can_be_taken_again() -> None:
    async with firing_world() as world:
        one = world.start()
        one.assign(*ALL)
        await owned(world, one, *ALL)
        lost = 2

        async def lose() -> None:
            nonlocal lost
            if lost:
                lost -= 1
                raise StoreUnavailable("no answer", outcome_unknown=True)

        one.store.after["release_shard"] = lose
        one.assign(1, 2, 3)
        await world.until(lambda: world.owners()[0] is None)
        one.assign(*ALL)
        await owned(world, one, *ALL)
        assert one.supervisor.shards == frozenset(map(ShardId, ALL))
        assert world.store.shard_states[ShardId(0)].epoch == 2


@in_virtual_time
async def test_an_owner_without_an_item_keeps_its_shard_from_being_taken() -> None:
    async with firing_world() as world:
        state = world.store.shard_states[ShardId(0)]
        world.store.shard_states[ShardId(0)] = ShardState(epoch=state.epoch, owner=IncarnationId("gone.1"), floor_ms=0)
        one = world.start()
        one.assign(*ALL)
        await owned(world, one, 1, 2, 3)
        await asyncio.sleep(30)
        assert world.owners()[0] == "gone.1"


@in_virtual_time
async def test_a_shard_with_a_delivered_row_of_a_newer_format_is_left_to_a_newer_node() -> None:
    async with firing_world() as world:
        dead = IncarnationId("dead.1")
        row = builders.broken_row(shard=0, newer_format=True)
        assert isinstance(row, BrokenRow)
        world.store.put_by_hand(row)
        await owner_that_died(world, dead, [row])
        one = world.start()
        one.assign(*ALL)
        await owned(world, one, 1, 2, 3)
        await asyncio.sleep(30)
        assert world.owners()[0] == dead
        assert (row.shard, row.position) in world.store.rows


@in_virtual_time
async def test_an_owner_whose_ids_cannot_be_settled_holds_up_no_other_owners_shards() -> None:
    async with firing_world() as world:
        dead = IncarnationId("dead.1")
        await owner_that_died(world, dead, [])
        reachable = False

        async def away(step: Step, who: str, done: bool) -> None:
            if step is Step.INIT and "dead.1" in who and not reachable:
                raise StoreUnavailable("no coordinator")

        world.on_kafka_step = away
        one = world.start()
        one.assign(*ALL)
        await owned(world, one, 1, 2, 3)
        await world.create("a", shard=1)
        await world.until(lambda: world.arrived() == ["a"])
        reachable = True
        await owned(world, one, *ALL)


async def owner_that_died(world: FiringWorld, dead: IncarnationId, delivered: list[BrokenRow]) -> None:
    """Makes an incarnation own shard 0 and die after the commit of these rows."""
    world.store.nodes[dead] = NodeState(
        incarnation=dead, frontier_ms=builders.DUE_MS, fenced_at_ms=None, slots=1, hints={}, node="dead:1"
    )
    world.store.shard_states[ShardId(0)] = ShardState(epoch=1, owner=dead, floor_ms=0)
    transactional_id = world.kafka.settings.transactional_id(dead, 0)
    epoch = world.kafka.init(transactional_id)
    entries = [
        MarkerEntry(
            shard=row.shard,
            position=row.position,
            at_ms=due_ms_of(row.position),
            receipt=Receipt(kafka_partition=0, offset=0, at_ms=due_ms_of(row.position)),
        )
        for row in delivered
    ]
    key = marker_key(dead, 0)
    topic = world.kafka.deliveries_topic
    world.kafka.begin(transactional_id, epoch)
    record = OutRecord(topic=topic, key=key, value=encode(entries), headers=(), timestamp_ms=builders.DUE_MS)
    number = kafka_partition_of(key, world.kafka.kafka_partitions(topic))
    world.kafka.append(record, number, transactional_id=transactional_id, epoch=epoch)
    world.kafka.commit(transactional_id, epoch)


@in_virtual_time
async def test_the_sweep_forgets_incarnations_that_were_fenced_long_ago_and_own_nothing() -> None:
    async with firing_world() as world:
        one = world.start()
        one.assign(*ALL)
        await owned(world, one, *ALL)
        now_ms = world.clock.now_ms()
        for name, fenced_at_ms in {
            "old.1": now_ms - FENCED_MS_MIN - 1,
            "young.1": now_ms - FENCED_MS_MIN + 60_000,
            "living.1": None,
            "owner.1": now_ms - FENCED_MS_MIN - 1,
        }.items():
            each = IncarnationId(name)
            world.store.nodes[each] = NodeState(
                incarnation=each, frontier_ms=0, fenced_at_ms=fenced_at_ms, slots=1, hints={}, node="host:9"
            )
        world.store.shard_states[ShardId(3)] = ShardState(epoch=9, owner=IncarnationId("owner.1"), floor_ms=0)
        assert await sweep(one.context, shards=SHARDS) == 1
        assert "old.1" not in world.store.nodes
        assert {"young.1", "living.1", "owner.1"} <= world.store.nodes.keys()


@in_virtual_time
async def test_a_process_that_is_stopped_while_its_incarnation_is_ending_stops() -> None:
    async with firing_world() as world:
        one = world.start()
        one.assign(*ALL)
        await owned(world, one, *ALL)
        sending, ending = asyncio.Event(), asyncio.Event()

        async def no_answer(step: Step, _: str, done: bool) -> None:
            if step is not Step.SEND:
                return
            sending.set()
            try:
                await asyncio.Event().wait()
            finally:
                ending.set()
                await asyncio.sleep(1)

        world.on_kafka_step = no_answer
        await world.create("a", guarantee=Guarantee.AT_LEAST_ONCE)
        await sending.wait()
        await world.store.fence(one.incarnation(), at_ms=1)
        await ending.wait()
        one.task.cancel()
        await asyncio.wait([one.task], timeout=60)
        assert one.task.cancelled()


@in_virtual_time
async def test_a_shard_whose_item_is_throttled_keeps_no_other_from_being_worked() -> None:
    async with firing_world() as world:
        one = world.start()
        throttled = True
        take = one.store.take_shards

        async def all_but_one(claims: Sequence[ShardClaim], *, taker: IncarnationId) -> None:
            if throttled and any(claim.shard == 1 for claim in claims):
                raise StoreThrottled("a hot item")
            await take(claims, taker=taker)

        one.store.take_shards = all_but_one  # type: ignore[method-assign]
        one.assign(*ALL)
        await owned(world, one, 0, 2, 3)
        one.assign(1, 2, 3)
        await world.until(lambda: world.owners()[0] is None)
        one.assign(*ALL)
        await owned(world, one, 0, 2, 3)
        throttled = False
        await owned(world, one, *ALL)
        assert {state.epoch for shard, state in world.store.shard_states.items() if shard != 0} == {1}


@in_virtual_time
async def test_a_shard_whose_rows_cannot_be_cleaned_up_keeps_no_other_of_its_owner_from_being_taken() -> None:
    async with firing_world() as world:
        one, two = world.start(), world.start()
        one.assign(*ALL)
        await owned(world, one, *ALL)
        one.store.before["finish"] = asyncio.Event().wait  # type: ignore[assignment]
        for shard in ALL:
            await world.create(f"key-{shard}", shard=shard)
        await world.until(lambda: len(world.arrived()) == SHARDS)
        world.kill(one)
        throttled = True
        finish = two.store.finish

        async def all_but_one(shard: ShardId, ends: Sequence[End]) -> None:
            if throttled and shard == 0:
                raise StoreThrottled("a hot shard")
            await finish(shard, ends)

        two.store.finish = all_but_one  # type: ignore[method-assign]
        two.assign(*ALL)
        await owned(world, two, 1, 2, 3)
        await asyncio.sleep(30)
        assert world.owners()[0] == one.incarnation(), "never taken before it is tidy"
        throttled = False
        await owned(world, two, *ALL)
        assert len(world.arrived()) == SHARDS


@in_virtual_time
async def test_an_owner_whose_item_cannot_be_read_holds_up_no_other_owners_shards() -> None:
    async with firing_world() as world:
        one, two, three = world.start(), world.start(), world.start()
        one.assign(0, 1)
        two.assign(2)
        await owned(world, one, 0, 1)
        await owned(world, two, 2)
        world.kill(one)
        world.kill(two)
        read = three.store.read_nodes

        async def all_but_one(incarnations: Sequence[IncarnationId]) -> Mapping[IncarnationId, NodeState]:
            if one.incarnation() in incarnations:
                raise Unreadable("no item that this version knows")
            return await read(incarnations)

        three.store.read_nodes = all_but_one  # type: ignore[method-assign]
        three.assign(*ALL)
        await owned(world, three, 2, 3)
        await asyncio.sleep(30)
        assert world.owners()[0] == one.incarnation()


@in_virtual_time
async def test_an_owner_that_released_in_time_has_the_whole_time_again_at_its_next_hand_over() -> None:
    async with firing_world() as world:
        never_taken = ShardState(epoch=1, owner=IncarnationId("gone.1"), floor_ms=0)
        world.store.shard_states[ShardId(3)] = never_taken
        one, two = world.start(), world.start()
        one.assign(0, 1)
        await owned(world, one, 0, 1)

        async def late() -> None:
            await asyncio.sleep(0.5)

        one.store.before["release_shard"] = late
        two.assign(0, 3)
        one.assign(1)
        await owned(world, two, 0)
        await asyncio.sleep(30)
        two.assign(0, 1, 3)
        one.assign()
        await owned(world, two, 0, 1)
        assert world.store.nodes[one.incarnation()].fenced_at_ms is None


@in_virtual_time
async def test_a_row_whose_wake_up_is_lost_is_found_by_a_scan_while_many_others_cannot_be_cleaned_up() -> None:
    async with firing_world() as world:
        one = world.start()
        one.assign(*ALL)
        await owned(world, one, *ALL)

        async def throttled() -> None:
            raise StoreThrottled("hot keys")

        one.store.before["finish"] = throttled
        for number in range(2 * SCAN_PAST_MAX):
            await world.create(f"key-{number}")
        await world.until(lambda: len(world.arrived()) == 2 * SCAN_PAST_MAX)
        await asyncio.sleep(5)
        await world.create("unannounced", wakes=False)
        await world.until(lambda: "unannounced" in world.arrived(), within_s=5)
