"""`ScheduleSearch`: a client's pointers in order, and many items at once."""

import asyncio
from collections.abc import Sequence

import pytest

from clockwork.domain.command_notes import CommandNote, CommandOffset, NoteChange
from clockwork.domain.position import LAST, Position, first_at, text_of
from clockwork.domain.schedule import ClientId, EndState, Pointer, RequestId, Row, ScheduleKey
from clockwork.domain.sharding import ShardId
from clockwork.ports.store import ScheduleSearch, ScheduleStore
from clockwork.stores.dynamodb.search import DynamoScheduleSearch
from clockwork.stores.dynamodb.store import DynamoScheduleStore
from tests.contract.store_fixtures import SHARDS
from tests.support.builders import CLIENT, DUE_MS, end, outcome, pointer, row, schedule
from tests.support.waiting import until

FIRST = first_at(0)


async def put(store: ScheduleStore, rows: Sequence[Row]) -> list[Pointer]:
    async with asyncio.TaskGroup() as group:
        for each in rows:
            group.create_task(store.create(each, pointer(each), replaces=None))
    return sorted(map(pointer, rows), key=lambda p: p.position)


async def listed(
    search: ScheduleSearch, *, first: Position = FIRST, last: Position = LAST, pointers_max: int = 1_000
) -> list[Pointer]:
    """All pages."""
    found: list[Pointer] = []
    start: Position | None = first
    while start is not None:
        page = await search.list_pointers(CLIENT, first=start, last=last, pointers_max=pointers_max)
        found += page.pointers
        start = page.next_from
    return found


async def until_listed(search: ScheduleSearch, wanted: list[Pointer]) -> None:
    async def look() -> bool:
        return await listed(search) == wanted

    await until(look, "the index shows what was written")


@pytest.mark.parametrize("pointers_max", [1, 7, 40, 1_000])
async def test_the_pointers_of_a_client_are_listed_once_in_order(
    store: ScheduleStore, search: ScheduleSearch, pointers_max: int
) -> None:
    rows = [row(schedule(due_ms=DUE_MS + n % 7), shard=n % SHARDS) for n in range(100)]
    wanted = await put(store, rows)
    await put(store, [row(schedule(client_id=f"{CLIENT}x")), row(schedule(client_id="another"))])
    await until_listed(search, wanted)

    assert await listed(search, pointers_max=pointers_max) == wanted


async def test_both_ends_of_the_range_are_included(store: ScheduleStore, search: ScheduleSearch) -> None:
    wanted = await put(store, [row(schedule(due_ms=DUE_MS + n)) for n in range(10)])
    await until_listed(search, wanted)

    assert await listed(search, first=wanted[2].position, last=wanted[5].position) == wanted[2:6]
    above, below = Position(wanted[2].position + 1), Position(wanted[5].position - 1)
    assert await listed(search, first=above, last=below) == wanted[3:5]
    assert await listed(search, first=above, last=wanted[2].position) == []
    assert await listed(search, first=LAST, last=LAST) == []
    assert await listed(search, last=Position(-1)) == []


@pytest.mark.parametrize("pointers_max", [1, 7, 1_000])
async def test_the_pointers_of_a_client_are_listed_downwards_too(
    store: ScheduleStore, search: ScheduleSearch, pointers_max: int
) -> None:
    wanted = await put(store, [row(schedule(due_ms=DUE_MS + n % 7)) for n in range(40)])
    await until_listed(search, wanted)

    found: list[Pointer] = []
    last: Position | None = wanted[30].position
    while last is not None:
        first = wanted[5].position
        page = await search.list_pointers(CLIENT, first=first, last=last, pointers_max=pointers_max, descending=True)
        found += page.pointers
        last = page.next_from

    assert found == wanted[30:4:-1]


async def test_a_count_is_of_what_a_list_shows_from_there_on_and_goes_no_further_than_asked(
    store: ScheduleStore, search: ScheduleSearch
) -> None:
    rows = [row(schedule(due_ms=DUE_MS + n % 5), shard=n % SHARDS) for n in range(60)]
    wanted = await put(store, rows)
    await put(store, [row(schedule(client_id=f"{CLIENT}x")), row(schedule(client_id="another"))])
    await until_listed(search, wanted)

    assert await search.count_pointers(CLIENT, first=FIRST, at_most=1_000) == 60
    assert await search.count_pointers(CLIENT, first=first_at(DUE_MS + 3), at_most=1_000) == 24
    assert await search.count_pointers(CLIENT, first=wanted[-1].position, at_most=1_000) == 1
    for at_most in (1, 9, 59, 60):
        assert await search.count_pointers(CLIENT, first=FIRST, at_most=at_most) == at_most
    assert await search.count_pointers(ClientId("nobody"), first=FIRST, at_most=5) == 0


async def test_an_outcome_is_not_listed_and_a_moved_schedule_only_where_it_stands_now(
    store: ScheduleStore, search: ScheduleSearch
) -> None:
    ended, moved = row(schedule(due_ms=DUE_MS)), row(schedule(due_ms=DUE_MS + 1))
    await put(store, [ended, moved])
    await store.finish(ended.shard, [end(ended)])
    await store.hold(moved.name, RequestId("r"))
    old = moved.schedule
    new = row(schedule(client_id=old.client_id, schedule_key=old.schedule_key, due_ms=DUE_MS - 5, version=2))
    superseded = outcome(moved, EndState.SUPERSEDED)
    await store.reschedule(
        moved.name, superseded, hold=RequestId("r"), row=new, pointer=pointer(new), replaces=pointer(moved)
    )

    await until_listed(search, [pointer(new), pointer(ended)])


async def test_many_items_are_read_at_once_and_absent_ones_are_left_out(
    store: ScheduleStore, search: ScheduleSearch
) -> None:
    # More than one call's worth, over several shards; the same twice in one question, too.
    rows = [row(schedule(), shard=n % SHARDS) for n in range(230)]
    pointers = await put(store, rows)
    for shard in range(SHARDS):
        await store.finish(ShardId(shard), [end(each) for each in rows[:120] if each.shard == shard])
    absent = row(schedule())

    asked = [*rows, absent, rows[0]]
    names = [(r.schedule.client_id, r.schedule.schedule_key) for r in asked]
    found = await search.read_rows_at([(r.shard, r.position) for r in asked])
    outcomes = await search.read_outcomes([(*name, r.position) for name, r in zip(names, asked, strict=True)])

    assert found == {(r.shard, r.position): r for r in rows[120:]}
    assert await search.read_pointers(names) == {(p.client_id, p.schedule_key): p for p in pointers}
    assert outcomes == {(*name, r.position): outcome(r) for name, r in zip(names[:120], rows[:120], strict=True)}
    assert await search.read_rows_at([]) == {}


async def test_the_ends_of_a_key_are_found_and_its_pointer_is_none_of_them(
    store: ScheduleStore, search: ScheduleSearch
) -> None:
    key = ScheduleKey("a")
    ends = [row(schedule(schedule_key=key, due_ms=due_ms, version=n)) for n, due_ms in enumerate((DUE_MS, 1, 5_000))]
    await put(store, [ends[0], row(schedule(schedule_key="a/0")), row(schedule(schedule_key="b"))])
    await store.finish(ends[0].shard, [end(each) for each in [*ends, row(schedule(schedule_key="a/0"))]])
    place = CommandOffset(kafka_partition=0, offset=0, at_ms=0)
    note = NoteChange(before=(), after=CommandNote(offsets=(place,), by="a", expires_at_s=2_000_000_000))
    await store.note_command(CLIENT, key, note)  # is no end

    assert sorted(await search.read_ended(CLIENT, key)) == sorted(each.position for each in ends)
    assert await search.read_ended(ClientId("nobody"), key) == []


@pytest.mark.real
async def test_what_cannot_be_read_is_left_out_and_hides_nothing_else(dynamo_store: DynamoScheduleStore) -> None:
    search = DynamoScheduleSearch(dynamo_store.client)
    damaged, whole = row(schedule(schedule_key="damaged")), row(schedule(schedule_key="whole"))
    await put(dynamo_store, [damaged, whole])
    await dynamo_store.finish(damaged.shard, [end(damaged), end(whole)])
    await until_listed(search, sorted([pointer(damaged), pointer(whole)], key=lambda p: p.position))
    for at in ("0", text_of(damaged.position)):
        await dynamo_store.client.call(
            "update_item",
            TableName=dynamo_store.client.settings.keys_table,
            Key={"clientKey": {"S": f"{CLIENT}/damaged"}, "position": {"N": at}},
            UpdateExpression="REMOVE #v",
            ExpressionAttributeNames={"#v": "v"},
        )

    await until_listed(search, [pointer(whole)])
    names = [(CLIENT, ScheduleKey("damaged")), (CLIENT, ScheduleKey("whole"))]
    assert (await search.read_pointers(names)).keys() == {names[1]}
    places = [(*names[0], damaged.position), (*names[1], whole.position)]
    assert (await search.read_outcomes(places)).keys() == {places[1]}
