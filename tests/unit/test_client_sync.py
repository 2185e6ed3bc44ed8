"""The client without an event loop does what the one with it does."""

import asyncio
import inspect
import os
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from clockwork.client import AsyncClient, CallFailed, Client, NewSchedule, NotFound
from tests.unit.api_edge import DUE_MS, Edge, open_edge
from tests.unit.client_stub import FAST, Stub, open_stub, results


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with open_stub() as opened:
        yield opened


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with open_edge() as opened:
        yield opened


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    def methods(of: type) -> dict[str, list[tuple[str, Any, Any]]]:
        return {
            name: [
                (each.name, each.kind, (each.default, each.annotation))
                for each in inspect.signature(method).parameters.values()
            ]
            for name, method in inspect.getmembers(of, inspect.isfunction)
            if not name.startswith("_")
        }

    assert methods(Client) == methods(AsyncClient)
    assert {"create", "get", "cancel", "reschedule", "fire", "retry", "list", "history"} <= methods(Client).keys()


async def test_calls_work_from_a_thread_without_a_loop(edge: Edge) -> None:
    def calls() -> None:
        with Client(f"http://127.0.0.1:{edge.server.port}", retries=FAST) as client:
            created = client.create("shop", "a", at=DUE_MS, topic="orders", data="x")
            assert client.get("shop", "a") == created
            assert client.cancel("shop", "a") == created.model_copy(update={"status": "cancelled"})
            with pytest.raises(NotFound):
                client.get("shop", "b")

    await asyncio.to_thread(calls)
    assert not [each for each in threading.enumerate() if each.name == "clockwork-client"]


async def test_many_are_read_one_by_one_and_may_be_left_halfway(stub: Stub) -> None:
    stub.will(results)
    schedules = [NewSchedule(client_id="shop", schedule_key=f"{i}", at=5, topic="t", data=i) for i in range(30)]

    def calls() -> None:
        with Client(stub.url, retries=FAST) as client:
            found = client.create_many(schedules, batch_items_max=10)
            assert next(found).index == 0
            assert [each.index for each in client.create_many(schedules)] == list(range(30))

    await asyncio.to_thread(calls)
    assert [len(each.body["schedules"]) for each in stub.asked] == [10, 30]


def test_a_closed_client_says_that_it_is_not_open() -> None:
    client = Client("http://127.0.0.1:9", retries=FAST)
    with pytest.raises(RuntimeError, match="not open"):
        client.get("a", "b")
    with client, pytest.raises(CallFailed):
        client.get("a", "b")
    client.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="not open"):
        client.get("a", "b")


def _in_child(work: Callable[[], object]) -> str:
    """Does the work in a fork of this process. Returns the name of the error that it ends with, and its message."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # Nothing of the test run may go on here, whatever happens.
        try:
            try:
                work()
                said = "no error"
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(writing, said.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_the_child_of_a_fork_is_told_to_open_its_own_client_and_the_parents_goes_on(edge: Edge) -> None:
    url = f"http://127.0.0.1:{edge.server.port}"

    def calls() -> None:
        with Client(url, retries=FAST) as client:
            created = client.create("shop", "a", at=DUE_MS, topic="orders", data="x")
            for work in (
                lambda: client.get("shop", "a"),
                lambda: next(client.list("shop")),
                lambda: client.__enter__(),
                lambda: next(client.create_many([])),
            ):
                assert _in_child(work).startswith("RuntimeError: the client was opened by another process")
            assert _in_child(lambda: client.__exit__(None, None, None)) == "no error"

            def with_its_own() -> None:
                with Client(url, retries=FAST) as own:
                    own.get("shop", "a")

            assert _in_child(with_its_own) == "no error"
            assert client.get("shop", "a") == created

    await asyncio.to_thread(calls)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_connections_are_not_shared_with_the_child_of_a_fork(edge: Edge) -> None:
    def in_child() -> None:
        # Out of the parent's running loop, which is copied as well.
        asyncio.events._set_running_loop(None)
        asyncio.run(client.get("shop", "a"))

    async with AsyncClient(f"http://127.0.0.1:{edge.server.port}", retries=FAST) as client:
        created = await client.create("shop", "a", at=DUE_MS, topic="orders", data="x")
        assert _in_child(in_child).startswith("RuntimeError: the client was opened by another process")
        assert await client.get("shop", "a") == created
