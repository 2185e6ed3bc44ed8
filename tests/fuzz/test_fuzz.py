"""A few examples of each campaign, in memory."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
from hypothesis import strategies as st

from clockwork.access.keys import KeyRing
from clockwork.observability.metrics import PrometheusTelemetry
from tests.fuzz import files, postgres_rows, requests, rows, wakeups
from tests.fuzz.tally import Tally, sample, try_each
from tests.support.clocks import ManualClock
from tests.unit.api_edge import NOW_MS, a_request
from tests.unit.service import open_service

SEED: Final = 20_240_229


async def test_every_request_gets_a_clear_answer_and_the_next_sound_one_is_delivered() -> None:
    tally = Tally()
    defects: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: defects.append(context))
    try:
        async with open_service() as service, aiohttp.ClientSession(service.url) as session:
            await service.seed("shop", "other")
            port = int(service.url.rpartition(":")[2])
            # In a thread, because it waits for its answers without letting go of the event loop that makes them.
            await asyncio.to_thread(requests.run, port, count=600, seeded=SEED, tally=tally)
            due_ms = service.engine.clock.now_ms() + 1
            body = a_request(clientId="sound", scheduleKey="sound", scheduleTime=due_ms)
            async with session.post("/schedule", json=body) as answer:
                assert answer.status == 201
            service.engine.clock.set_ms(due_ms + 1)
            await service.deliver()
            assert service.engine.arrived().count("sound") == 1
    finally:
        loop.set_exception_handler(None)
    assert not defects, defects
    # Else nothing was tried but one kind of refusal.
    assert {"200", "400", "404", "415"} <= tally.of(requests.CAMPAIGN).keys()


async def test_a_damaged_row_ends_or_waits_and_what_is_sound_is_delivered() -> None:
    tally = Tally()
    examples = st.tuples(rows.DAMAGES, st.none() | rows.POSITIONS)
    for damage, at in sample(examples, count=500, seeded=SEED):
        await rows.check(partial(rows.dynamo_row, damage=damage, at=at), tally)
    assert {"delivered", "dead letter: unreadable", "waits: of a newer format"} <= tally.of(rows.CAMPAIGN).keys()


async def test_a_row_of_postgresql_that_cannot_be_stops_neither_its_shard_nor_its_lane() -> None:
    tally = Tally()
    for damage in sample(postgres_rows.DAMAGES, count=500, seeded=SEED):
        await rows.check(damage.row, tally, postgres_rows.CAMPAIGN)
    assert {"delivered", "dead letter: unreadable", "waits: of a newer format"} <= tally.of(
        postgres_rows.CAMPAIGN
    ).keys()


def test_a_record_that_is_no_wake_up_is_told_from_one() -> None:
    tally = Tally()
    for value in sample(wakeups.VALUES, count=300, seeded=SEED):
        wakeups.check(value, tally)
    assert len(tally.of(wakeups.CAMPAIGN)) == 3


def test_a_broken_file_of_settings_is_refused_with_what_is_wrong(tmp_path: Path) -> None:
    tally = Tally()
    try_each(files.SETTINGS_FILES, lambda text: files.check_settings(text, tmp_path, tally), count=100, seeded=SEED)
    assert len(tally.of(files.SETTINGS)) == 2


async def test_a_broken_file_of_keys_changes_nothing(tmp_path: Path) -> None:
    tally, path = Tally(), tmp_path / "keys.toml"
    path.write_bytes(files.SOUND_KEYS)
    ring = KeyRing(path, ManualClock(NOW_MS), PrometheusTelemetry())
    for text in sample(files.KEYS_FILES, count=300, seeded=SEED):
        await files.check_keys(text, ring, path, tally)
    assert len(tally.of(files.KEYS)) >= 2
