"""Copies of a statement that reach PostgreSQL late: held back on their way, while the store has sent the next one."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from clockwork.domain.ownership import ShardClaim, ShardState
from clockwork.domain.schedule import EndState, Row
from clockwork.settings.model import PostgresSettings
from clockwork.stores.postgres.store import PostgresScheduleStore
from tests.contract.postgres_connections import store_through
from tests.contract.postgres_writes import MINE, WRITES, make_scene
from tests.contract.store_fixtures import new_incarnation
from tests.support.builders import SHARD, outcome, pointer, row
from tests.support.proxy import Proxy

READY = b"Z\0\0\0\x05I"
"""The end of every answer: the session is idle, and in no transaction."""


class DelayingProxy(Proxy):
    """Holds the n-th request from now on back, and drops the connection that it came by."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.holds_in = 0
        self._held: tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes] | None = None

    async def deliver(self) -> None:
        """Hands it over, and waits until the server is done with it."""
        assert self._held is not None
        reader, writer, request = self._held
        writer.write(request)
        answer = b""
        while not answer.endswith(READY):
            more = await reader.read(1024 * 1024)
            assert more, "the server has ended the session"
            answer += more
        self.forget()

    def forget(self) -> None:
        """Drops what is held back."""
        if self._held is not None:
            self._held[1].transport.abort()
            self._held = None

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        try:
            async with asyncio.TaskGroup() as group:
                answers = group.create_task(self._answers(there_reader, writer), name="answers")
                while chunk := await reader.read(1024 * 1024):
                    if self.holds_in:
                        self.holds_in -= 1
                        if not self.holds_in:
                            self._held = (there_reader, there_writer, chunk)
                            break
                    there_writer.write(chunk)
                    await there_writer.drain()
                answers.cancel()
        except ExceptionGroup as errors:
            raise OSError("one side went away") from errors
        finally:
            if self._held is None or self._held[1] is not there_writer:
                there_writer.transport.abort()


@pytest.fixture
async def proxy(postgres_url: str) -> AsyncIterator[DelayingProxy]:
    proxy = DelayingProxy(postgres_url)
    await proxy.open()
    yield proxy
    proxy.forget()
    await proxy.close()


@pytest.fixture
async def slow_store(proxy: DelayingProxy, postgres_settings: PostgresSettings) -> AsyncIterator[PostgresScheduleStore]:
    """A store with one connection, through the proxy."""
    async with store_through(proxy, postgres_settings) as store:
        yield store


@pytest.mark.parametrize("write", WRITES)
async def test_a_copy_that_arrives_after_the_write_was_answered_changes_nothing(
    postgres_store: PostgresScheduleStore, slow_store: PostgresScheduleStore, proxy: DelayingProxy, write: str
) -> None:
    act, look = WRITES[write]
    scene = await make_scene(postgres_store)
    before = await look(scene)
    proxy.holds_in = 2  # the first one prepares it
    await act(slow_store, scene)
    done = await look(scene)
    assert done != before

    await proxy.deliver()

    assert await look(scene) == done


@pytest.mark.parametrize("over", [False, True], ids=["of a new key", "of a key that it takes over"])
async def test_a_create_that_arrives_late_does_not_bring_back_what_was_cancelled(
    postgres_store: PostgresScheduleStore, slow_store: PostgresScheduleStore, proxy: DelayingProxy, over: bool
) -> None:
    old = row()
    if over:
        await postgres_store.create(old, pointer(old), replaces=None)
    created = row(replace(old.schedule, version=2))
    proxy.holds_in = 2
    await slow_store.create(created, pointer(created), replaces=pointer(old) if over else None)
    await postgres_store.hold(created.name, MINE)
    await postgres_store.cancel(created.name, outcome(created, EndState.CANCELLED), hold=MINE)

    await proxy.deliver()

    assert await postgres_store.read_row(created.name) is None
    key = created.schedule.client_id, created.schedule.schedule_key
    assert await postgres_store.read_outcome(*key, created.position) == outcome(created, EndState.CANCELLED)


async def test_a_take_over_that_arrives_late_takes_no_shard_that_was_released_since(
    postgres_store: PostgresScheduleStore, slow_store: PostgresScheduleStore, proxy: DelayingProxy
) -> None:
    # Its taker would own a shard and not know it.
    scene = await make_scene(postgres_store)
    proxy.holds_in = 2
    await WRITES["take_shards"][0](slow_store, scene)
    await postgres_store.release_shard(SHARD, epoch=2, owner=scene.me, floor_ms=9)

    await proxy.deliver()

    assert await postgres_store.read_shard(SHARD) == ShardState(epoch=2, owner=None, floor_ms=9)


async def test_a_release_that_arrives_late_takes_no_shard_from_its_next_owner(
    postgres_store: PostgresScheduleStore, slow_store: PostgresScheduleStore, proxy: DelayingProxy
) -> None:
    scene, other = await make_scene(postgres_store), new_incarnation()
    await postgres_store.start_incarnation(other, node="n")
    proxy.holds_in = 2
    await WRITES["release_shard"][0](slow_store, scene)
    await postgres_store.take_shards([ShardClaim(shard=SHARD, epoch=1, floor_ms=9)], taker=other)

    await proxy.deliver()

    assert await postgres_store.read_shard(SHARD) == ShardState(epoch=2, owner=other, floor_ms=9)


async def test_a_hold_that_arrives_late_is_of_a_request_that_nothing_is_decided_by(
    postgres_store: PostgresScheduleStore, slow_store: PostgresScheduleStore, proxy: DelayingProxy
) -> None:
    # It is sent once: the late copy is the only one, and its request was told that its fate is unknown.
    created = row()
    await postgres_store.create(created, pointer(created), replaces=None)
    proxy.holds_in = 2
    told = (await asyncio.gather(slow_store.hold(created.name, MINE), return_exceptions=True))[0]
    assert getattr(told, "outcome_unknown", False)
    assert await postgres_store.read_row(created.name) == created

    await proxy.deliver()

    there = await postgres_store.read_row(created.name)
    assert isinstance(there, Row)
    assert there.hold == MINE
