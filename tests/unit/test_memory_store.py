"""The store in memory as a node runs with it: what has expired is dropped, what is needed stays, its calls are counted."""

from typing import Any

import pytest

from clockwork.clock import ClockGuard
from clockwork.domain.command_notes import CommandNote, CommandOffset, NoteChange
from clockwork.domain.ownership import IncarnationId
from clockwork.domain.schedule import EndState
from clockwork.errors import ConditionFailed, Fenced
from clockwork.ports.telemetry import NoTelemetry, StoreResult
from clockwork.stores.memory import running
from clockwork.stores.memory.running import RunningMemoryStore
from tests.support.builders import outcome, pointer, row
from tests.support.clocks import ManualClock

NOW_S = 1_700_000_000


class Counted(NoTelemetry):
    def __init__(self) -> None:
        self.calls: list[tuple[str, str, StoreResult]] = []

    def store_call(self, *, store: str, operation: str, result: StoreResult, seconds: float) -> None:
        assert seconds >= 0
        self.calls.append((store, operation, result))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_S * 1_000)


@pytest.fixture
def telemetry() -> Counted:
    return Counted()


@pytest.fixture
def store(clock: ManualClock, telemetry: Counted) -> RunningMemoryStore:
    return RunningMemoryStore(shards=8, clock=clock, observe=ClockGuard(clock).observe, telemetry=telemetry)


def note(expires_at_s: int) -> NoteChange:
    place = CommandOffset(kafka_partition=0, offset=1, at_ms=1)
    return NoteChange(before=(), after=CommandNote(offsets=(place,), by="x", expires_at_s=expires_at_s))


async def test_outcomes_notes_and_pointers_are_dropped_when_they_have_expired_and_not_before(
    store: RunningMemoryStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "EXPIRY_INTERVAL_S", 0)
    monkeypatch.setattr(running, "KEYS_PER_TURN", 1)
    old, young = row(), row()
    for each, expires_at_s in ((old, NOW_S + 10), (young, NOW_S + 11)):
        await store.create(each, pointer(each, expires_at_s=expires_at_s), replaces=None)
        await store.hold(each.name, "mine")  # type: ignore[arg-type]
        cancelled = outcome(each, EndState.CANCELLED, expires_at_s=expires_at_s)
        await store.cancel(each.name, cancelled, hold="mine")  # type: ignore[arg-type]
        await store.note_command(each.schedule.client_id, each.schedule.schedule_key, note(expires_at_s))

    clock.set_ms((NOW_S + 10) * 1_000 - 1)
    await store.ping()
    assert (len(store.outcomes), len(store.notes), len(store.pointers)) == (2, 2, 2)

    clock.set_ms((NOW_S + 10) * 1_000)
    await store.ping()
    name = (young.schedule.client_id, young.schedule.schedule_key)
    assert list(store.outcomes) == [(*name, young.position)]
    assert list(store.notes) == list(store.pointers) == [name]


async def test_the_pointer_of_a_row_that_still_stands_outlives_its_date(
    store: RunningMemoryStore, clock: ManualClock
) -> None:
    # A paused topic may hold a row back for longer than the pointer was to live; the key must not look free.
    paused = row()
    await store.create(paused, pointer(paused, expires_at_s=NOW_S), replaces=None)
    clock.set_ms((NOW_S + 1_000) * 1_000)

    await store.drop_expired(NOW_S + 1_000)

    assert await store.read_pointer(paused.schedule.client_id, paused.schedule.schedule_key) is not None
    again = row(paused.schedule)
    with pytest.raises(ConditionFailed):
        await store.create(again, pointer(again), replaces=None)


async def test_a_ping_states_the_node_s_own_time_so_the_clock_is_trusted(clock: ManualClock) -> None:
    guard = ClockGuard(clock)
    store = RunningMemoryStore(shards=1, clock=clock, observe=guard.observe, telemetry=NoTelemetry())
    assert not guard.trusted()

    await store.ping()

    assert guard.trusted()
    assert guard.skew_ms == 0


async def test_every_call_is_counted_by_its_result(store: RunningMemoryStore, telemetry: Counted) -> None:
    created: Any = row()
    await store.create(created, pointer(created), replaces=None)
    with pytest.raises(ConditionFailed):
        await store.create(row(created.schedule), pointer(row(created.schedule)), replaces=None)
    with pytest.raises(Fenced):
        await store.raise_frontier(IncarnationId("a.1"), frontier_ms=1, hints={})

    assert telemetry.calls == [
        ("memory", "create", "ok"),
        ("memory", "create", "condition_failed"),
        ("memory", "raise_frontier", "error"),
    ]
