"""Batches on the twins: accepted in the order given, within their time limit."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from clockwork.domain.rights import ANYONE
from clockwork.domain.schedule import DataForm, Guarantee, NewSchedule, OrderingKey, Row, ScheduleKey
from clockwork.errors import InvalidInput, Unavailable
from clockwork.requests.batch import WAVE
from clockwork.requests.results import AlreadyCreated, Cancelled, Created, KeyTaken, NotFound
from clockwork.requests.service import ActionItem
from tests.support import builders
from tests.support.engine import Engine
from tests.support.virtual_time import in_virtual_time

MANY = WAVE + 50
NOW_MS = builders.DUE_MS - 60_000
FAR_MS, PAST_MS = NOW_MS + 3_600_000, NOW_MS - 60_000
TIMEOUT_MS = 1_000


def an_item(number: int, *, due_ms: int, lane: str = "lane", key: str | None = None) -> NewSchedule:
    return NewSchedule(
        client_id=builders.CLIENT,
        schedule_key=ScheduleKey(key or f"k{number}"),
        ordering_key=OrderingKey(lane),
        due_ms=due_ms,
        topic=builders.TOPIC,
        guarantee=Guarantee.EXACTLY_ONCE,
        task_data=b"%d" % number,
        data_form=DataForm.JSON,
        headers=(),
        traceparent=None,
        digest=f"{number}",
    )


def number_of(row: Row) -> int:
    return int(row.schedule.task_data)


async def create_all(engine: Engine, items: Sequence[NewSchedule | InvalidInput]) -> list[Any]:
    return await engine.requests.create_batch(ANYONE, items)


def stored(engine: Engine) -> list[int]:
    """The numbers of the pending items, in the order of their positions."""
    rows = sorted((row for row in engine.store.rows.values() if isinstance(row, Row)), key=lambda row: row.position)
    return [number_of(row) for row in rows]


class Storing:
    """Slows the store's creates down, the earlier items most, and remembers when each ended."""

    def __init__(self, engine: Engine) -> None:
        self.ended: list[int] = []
        self.most_at_once = self._at_once = 0
        self._create = engine.store.create
        engine.store.create = self.create  # type: ignore[method-assign]

    async def create(self, row: Row, *given: Any, **named: Any) -> None:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await asyncio.sleep(0.001 * (MANY - number_of(row) % MANY) / MANY)
        await self._create(row, *given, **named)
        self._at_once -= 1
        self.ended.append(number_of(row))


@in_virtual_time
async def test_a_batch_is_accepted_in_the_order_given_however_long_each_item_looks_for_its_topic() -> None:
    # The race: the first items wait for the topic's metadata, those that start later find it cached and overtake them.
    engine = Engine()
    left = list(range(200, 0, -1))

    async def slow_at_first(_: str) -> bool:
        await asyncio.sleep(0.01 * left.pop(0) if left else 0)
        return True

    engine.requests = replace(engine.requests, context=replace(engine.context, topic_exists=slow_at_first))
    results = await create_all(engine, [an_item(n, due_ms=FAR_MS) for n in range(MANY)])
    assert {type(result) for result in results} == {Created}
    assert stored(engine) == list(range(MANY))


@in_virtual_time
async def test_a_batch_over_keys_whose_schedules_have_ended_is_accepted_in_the_order_given() -> None:
    engine = Engine()
    taken = range(0, 20, 2)
    await create_all(engine, [an_item(100 + n, due_ms=FAR_MS, key=f"k{n}") for n in taken])
    for n in taken:
        assert isinstance(await engine.cancel(builders.CLIENT, ScheduleKey(f"k{n}")), Cancelled)
    # The race: an item that takes its key over is stored at the second try only.
    Storing(engine)
    await create_all(engine, [an_item(n, due_ms=FAR_MS) for n in range(20)])
    assert stored(engine) == list(range(20))


@in_virtual_time
async def test_what_is_due_far_ahead_is_stored_side_by_side() -> None:
    engine = Engine()
    storing = Storing(engine)
    await create_all(engine, [an_item(n, due_ms=FAR_MS) for n in range(20)])
    assert storing.most_at_once == 20
    assert storing.ended != sorted(storing.ended)
    assert stored(engine) == list(range(20))


@pytest.mark.parametrize("due_ms", [PAST_MS, NOW_MS, NOW_MS + TIMEOUT_MS])
@in_virtual_time
async def test_what_may_be_due_before_the_batch_ends_is_stored_in_the_order_given(due_ms: int) -> None:
    # The race: the owner delivers what is due while the batch is under way, so a later item must not be there first.
    engine = Engine(request_timeout_ms=TIMEOUT_MS)
    storing = Storing(engine)
    results = await create_all(engine, [an_item(n, due_ms=due_ms) for n in range(MANY)])
    assert {type(result) for result in results} == {Created}
    assert storing.ended == stored(engine) == list(range(MANY))


@in_virtual_time
async def test_lanes_do_not_wait_for_each_other() -> None:
    engine = Engine()
    storing = Storing(engine)
    await create_all(engine, [an_item(n, due_ms=PAST_MS, lane=f"lane-{n % 4}") for n in range(40)])
    assert storing.most_at_once == 4
    for lane in range(4):
        assert [n for n in storing.ended if n % 4 == lane] == list(range(lane, 40, 4))


@in_virtual_time
async def test_a_batch_has_the_time_of_a_request_and_20_ms_an_item_and_the_rest_is_unavailable() -> None:
    engine = Engine(request_timeout_ms=TIMEOUT_MS)
    create = engine.store.create

    async def slow(*given: Any, **named: Any) -> None:
        await asyncio.sleep(0.07)
        await create(*given, **named)

    engine.store.create = slow  # type: ignore[method-assign]
    items = [an_item(n, due_ms=PAST_MS) for n in range(100)]
    results = await create_all(engine, items)
    done = (TIMEOUT_MS + 100 * 20) // 70
    assert [type(result) for result in results] == [Created] * done + [Unavailable] * (100 - done)
    engine.store.create = create  # type: ignore[method-assign]
    again = await create_all(engine, items)
    assert not [result for result in again if isinstance(result, Exception)], "the same batch again settles it"
    assert stored(engine) == list(range(100))


class SlowStore:
    """Each call of the store that a create makes takes this long."""

    def __init__(self, engine: Engine, call_s: float) -> None:
        for name in ("create", "read_pointer", "read_outcome", "read_row"):
            setattr(engine.store, name, self._slow(getattr(engine.store, name), call_s))

    @staticmethod
    def _slow(call: Callable[..., Awaitable[Any]], call_s: float) -> Callable[..., Awaitable[Any]]:
        async def slow(*given: Any, **named: Any) -> Any:
            await asyncio.sleep(call_s)
            return await call(*given, **named)

        return slow


@in_virtual_time
async def test_a_batch_that_was_not_finished_in_time_is_finished_by_the_same_batch_again() -> None:
    # The trap: a repeat costs four store calls, a new item one, so in their lane's turn the repeats would use up the limit.
    engine = Engine(request_timeout_ms=TIMEOUT_MS)
    SlowStore(engine, 0.06)
    items = [an_item(n, due_ms=PAST_MS) for n in range(100)]
    before = 0
    for _ in range(3):
        results = await create_all(engine, items)
        counts = Counter(type(result) for result in results)
        done = len(stored(engine))
        assert stored(engine) == list(range(done))
        assert counts[AlreadyCreated] == before
        before = done
        if not counts[Unavailable]:
            break
    assert [type(result) for result in results] == [AlreadyCreated] * counts[AlreadyCreated] + [Created] * counts[
        Created
    ]
    assert 0 < counts[AlreadyCreated] < 100
    assert stored(engine) == list(range(100))


@in_virtual_time
async def test_keys_that_are_taken_do_not_keep_a_batch_from_its_last_items() -> None:
    engine = Engine(request_timeout_ms=TIMEOUT_MS)
    await create_all(engine, [an_item(100 + n, due_ms=FAR_MS, key=f"k{n}") for n in range(90)])
    SlowStore(engine, 0.06)
    results = await create_all(engine, [an_item(n, due_ms=PAST_MS) for n in range(100)])
    assert [type(result) for result in results] == [KeyTaken] * 90 + [Created] * 10
    assert stored(engine)[:10] == list(range(90, 100))


@in_virtual_time
async def test_what_is_new_between_repeats_is_stored_in_the_order_given() -> None:
    engine = Engine()
    repeats = range(1, MANY, 2)
    await create_all(engine, [an_item(n, due_ms=PAST_MS) for n in repeats])
    storing = Storing(engine)
    results = await create_all(engine, [an_item(n, due_ms=PAST_MS) for n in range(MANY)])
    assert [type(result) for result in results] == [Created, AlreadyCreated] * (MANY // 2)
    assert storing.ended == list(range(0, MANY, 2))
    assert storing.most_at_once == 1


@in_virtual_time
async def test_items_of_one_key_see_each_other_in_a_lane_too() -> None:
    engine = Engine()
    SlowStore(engine, 0.06)
    items = [an_item(n, due_ms=PAST_MS, key="same") for n in (1, 1, 2, 1)]
    expected = [Created, AlreadyCreated, KeyTaken, AlreadyCreated]
    assert [type(result) for result in await create_all(engine, items)] == expected
    assert [type(result) for result in await create_all(engine, items)] == [AlreadyCreated, *expected[1:]]


@in_virtual_time
async def test_the_look_up_of_repeats_costs_a_first_batch_one_read_at_once_and_a_lone_item_none() -> None:
    engine = Engine()
    SlowStore(engine, 0.06)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await create_all(engine, [an_item(n, due_ms=PAST_MS) for n in range(10)])
    assert loop.time() - began_s == pytest.approx(0.06 * 11)
    began_s = loop.time()
    await create_all(engine, [an_item(n, due_ms=PAST_MS, lane=f"lane-{n}") for n in range(10, 20)])
    assert loop.time() - began_s == pytest.approx(0.06)


async def test_an_item_that_could_not_be_read_is_its_own_result() -> None:
    wrong = InvalidInput([])
    engine = Engine()
    results = await create_all(engine, [an_item(0, due_ms=FAR_MS), wrong, an_item(1, due_ms=FAR_MS)])
    assert [type(result) for result in results] == [Created, InvalidInput, Created]
    keys = ActionItem(builders.CLIENT, ScheduleKey("k0")), wrong, ActionItem(builders.CLIENT, ScheduleKey("none"))
    cancelled = await engine.requests.cancel_batch(ANYONE, keys)
    assert [type(result) for result in cancelled] == [Cancelled, InvalidInput, NotFound]
