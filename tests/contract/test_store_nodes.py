"""`ScheduleStore`: the items of incarnations."""

import asyncio
from typing import Final

import pytest

from clockwork.domain.ownership import IncarnationId, NodeState
from clockwork.errors import ConditionFailed, Fenced, Unreadable
from clockwork.ports.store import ScheduleStore

A: Final = IncarnationId("00000000000000aa.1")
B: Final = IncarnationId("00000000000000bb.7")
FENCERS: Final = 20
"""Takers that fence one owner at the same moment."""


def node(
    incarnation: IncarnationId = A,
    *,
    frontier_ms: int = 0,
    fenced_at_ms: int | None = None,
    slots: int = 0,
    hints: dict[int, int] | None = None,
) -> NodeState:
    return NodeState(
        incarnation=incarnation,
        frontier_ms=frontier_ms,
        fenced_at_ms=fenced_at_ms,
        slots=slots,
        hints=hints or {},
        node="host:1",
    )


@pytest.fixture
async def _started(store: ScheduleStore) -> None:
    """An incarnation that has done nothing yet."""
    await store.start_incarnation(A, node="host:1")


async def stored(store: ScheduleStore, incarnation: IncarnationId = A) -> NodeState | None:
    return (await store.read_nodes([incarnation])).get(incarnation)


@pytest.mark.usefixtures("_started")
async def test_a_new_incarnation_has_read_nothing_and_has_no_slot(store: ScheduleStore) -> None:
    assert await stored(store) == node()
    assert await store.list_nodes() == [node()]
    assert await store.read_nodes([A, B]) == {A: node()}
    assert await store.read_nodes([]) == {}


@pytest.mark.usefixtures("_started")
async def test_the_same_start_again_is_the_same_incarnation(store: ScheduleStore) -> None:
    await store.start_incarnation(A, node="host:1")

    assert await stored(store) == node()


@pytest.mark.usefixtures("_started")
async def test_an_id_that_is_taken_starts_nothing(store: ScheduleStore) -> None:
    with pytest.raises(ConditionFailed):
        await store.start_incarnation(A, node="host:2")
    await store.raise_frontier(A, frontier_ms=5, hints={})
    with pytest.raises(ConditionFailed):
        await store.start_incarnation(A, node="host:1")

    assert await stored(store) == node(frontier_ms=5)


@pytest.mark.usefixtures("_started")
async def test_a_frontier_rises_and_never_falls(store: ScheduleStore) -> None:
    assert await store.raise_frontier(A, frontier_ms=1_000, hints={0: 40, 1: 50}) == 1_000
    assert await store.raise_frontier(A, frontier_ms=900, hints={1: 3}) == 1_000
    assert await store.raise_frontier(A, frontier_ms=1_000, hints={}) == 1_000
    assert await stored(store) == node(frontier_ms=1_000, hints={0: 40, 1: 50})

    assert await store.raise_frontier(A, frontier_ms=2_000, hints={1: 60}) == 2_000
    assert await stored(store) == node(frontier_ms=2_000, hints={0: 40, 1: 60})


@pytest.mark.usefixtures("_started")
async def test_the_number_of_slots_rises_and_never_falls(store: ScheduleStore) -> None:
    for slots in (1, 2, 1, 2):
        await store.raise_slots(A, slots=slots)

    assert await stored(store) == node(slots=2)


@pytest.mark.usefixtures("_started")
async def test_a_fence_stops_the_frontier_and_the_slots_where_they_are(store: ScheduleStore) -> None:
    await store.raise_frontier(A, frontier_ms=500, hints={0: 7})
    await store.raise_slots(A, slots=2)
    fenced = node(frontier_ms=500, fenced_at_ms=60, slots=2, hints={0: 7})

    assert await store.fence(A, at_ms=60) == fenced

    for frontier_ms in (0, 500, 1_000):
        with pytest.raises(Fenced):
            await store.raise_frontier(A, frontier_ms=frontier_ms, hints={0: 8})
    for slots in (1, 3):
        with pytest.raises(Fenced):
            await store.raise_slots(A, slots=slots)
    # The flag is set once; a later fence is told the same.
    assert await store.fence(A, at_ms=90) == fenced
    assert await stored(store) == fenced


@pytest.mark.usefixtures("_started")
async def test_many_fences_at_once_are_told_one_frontier(store: ScheduleStore) -> None:
    async def raise_on() -> int:
        highest = 0
        for frontier_ms in range(1, 200):
            try:
                highest = await store.raise_frontier(A, frontier_ms=frontier_ms, hints={})
            except Fenced:
                break
        return highest

    async with asyncio.TaskGroup() as tasks:
        raising = tasks.create_task(raise_on(), name="frontier")
        fences = [tasks.create_task(store.fence(A, at_ms=n + 1), name=f"fence {n}") for n in range(FENCERS)]

    told = {(fence.result().frontier_ms, fence.result().fenced_at_ms) for fence in fences}
    assert [frontier_ms for frontier_ms, _ in told] == [raising.result()]


async def test_an_incarnation_without_item_is_never_made(store: ScheduleStore) -> None:
    for _ in range(2):
        with pytest.raises(Fenced):
            await store.raise_frontier(A, frontier_ms=1, hints={0: 1})
        with pytest.raises(Fenced):
            await store.raise_slots(A, slots=1)
        with pytest.raises(Unreadable):
            await store.fence(A, at_ms=1)

    assert await stored(store) is None


@pytest.mark.usefixtures("_started")
async def test_only_a_fenced_incarnation_is_deleted(store: ScheduleStore) -> None:
    with pytest.raises(ConditionFailed):
        await store.delete_node(A)
    assert await stored(store) == node()
    await store.start_incarnation(B, node="host:1")
    await store.fence(A, at_ms=1)

    for _ in range(2):
        await store.delete_node(A)

    assert await store.list_nodes() == [node(B)]
