"""Whatever goes wrong, no payload, no key and no header of a client is logged."""

import asyncio
import io
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from clockwork.domain.record import OutRecord
from clockwork.errors import Refusal, RefusalCause, StoreUnavailable, Unreadable
from clockwork.firing.shard_loop import ShardLoop
from clockwork.observability.logs import configure_logging, trace_text
from clockwork.stores.checks import readable
from tests.support import builders
from tests.support.engine import Engine
from tests.unit.api_edge import a_request
from tests.unit.service import Service, open_service

MARK = "unutterable"
KEY = f"{MARK}/key ü"
DUE_MS = builders.DUE_MS
PATH = f"/schedule/shop/{quote(KEY, safe='')}"


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    """All that is logged, down to the last detail, our own lines and those of libraries."""
    out = io.StringIO()
    root, levels = logging.getLogger(), {}
    level = root.level
    handler = configure_logging("json", "debug", stream=out)
    # Every line, not one a minute, and what libraries are usually told to keep to themselves.
    handler.filters.clear()
    for name in ("aiohttp", "aiohttp.access", "aiohttp.server", "asyncio"):
        levels[name] = logging.getLogger(name).level
        logging.getLogger(name).setLevel(logging.INFO if name != "aiohttp.access" else logging.CRITICAL)
    yield out
    root.removeHandler(handler)
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def marked(**changes: Any) -> dict[str, Any]:
    delivery = {"topic": builders.TOPIC, "headers": {f"x-{MARK}": MARK}}
    fields = {
        "scheduleKey": KEY,
        "orderingKey": f"{MARK}-lane",
        "taskData": {MARK: MARK},
        "scheduleTime": DUE_MS,
        "delivery": delivery,
    }
    return a_request(**fields | changes)


class Caller:
    def __init__(self, service: Service, session: aiohttp.ClientSession) -> None:
        self.service = service
        self._session = session

    async def ask(self, method: str, path: str, **given: Any) -> int:
        async with self._session.request(method, self.service.url + path, **given) as answer:
            await answer.read()
            return answer.status


async def every_call(caller: Caller) -> set[int]:
    """Each call of the API once, good and bad."""
    headers = {"traceparent": MARK, "if-match": f'"{MARK}"', f"x-{MARK}": MARK}
    later = {"scheduleTime": DUE_MS + 1}
    return {
        await caller.ask("POST", "/schedule", json=marked(), headers={"traceparent": MARK}),
        await caller.ask("POST", "/schedule", json=marked(taskData=MARK * 2)),
        await caller.ask("POST", "/schedule", json=marked(**{MARK: MARK, "scheduleTime": MARK})),
        await caller.ask(
            "POST", "/schedule", data=f'{{"{MARK}": '.encode(), headers={"content-type": "application/json"}
        ),
        await caller.ask("POST", "/schedule", data=MARK.encode(), headers={"content-type": f"text/{MARK}"}),
        await caller.ask("POST", "/schedules", json={"schedules": [marked(), {MARK: MARK}]}),
        await caller.ask(
            "POST", "/schedules/cancel", json={"schedules": [{"clientId": "shop", "scheduleKey": f"{MARK}2"}]}
        ),
        await caller.ask("GET", PATH),
        await caller.ask("GET", f"{PATH}/history"),
        await caller.ask("GET", f"/schedules?clientId=shop&orderingKey={MARK}&{MARK}={MARK}"),
        await caller.ask("GET", f"/schedules?clientId=shop&cursor={MARK}"),
        await caller.ask("PUT", PATH, json=later, headers=headers),
        await caller.ask("PUT", PATH, json=later),
        await caller.ask("POST", f"{PATH}/fire"),
        await caller.ask("POST", f"{PATH}/retry"),
        await caller.ask("GET", f"/{MARK}"),
        await caller.ask("DELETE", PATH),
        await caller.ask("DELETE", "/schedule", json={"clientId": "shop", "scheduleKey": f"{MARK}3"}),
    }


def assert_nothing_said(said: io.StringIO, *, but_events: set[str]) -> None:
    text = said.getvalue()
    assert MARK not in text, next(line for line in text.splitlines() if MARK in line)
    for event in but_events:
        assert f'"event": "{event}"' in text, "else this test shows nothing"


async def test_requests_good_and_bad_leave_nothing_of_theirs_in_the_log(said: io.StringIO) -> None:
    async with open_service() as service, aiohttp.ClientSession() as session:
        statuses = await every_call(Caller(service, session))
    assert {200, 201, 400, 404, 415} <= statuses
    assert_nothing_said(said, but_events={"http.listening"})


async def test_a_store_that_is_away_leaves_nothing_of_the_requests_in_the_log(
    said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(request_timeout_ms=500)

    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("no answer from DynamoDB")

    for name in ("create", "read_pointer", "hold"):
        monkeypatch.setattr(engine.store, name, away)
    async with open_service(engine) as service, aiohttp.ClientSession() as session:
        assert 503 in await every_call(Caller(service, session))
    assert_nothing_said(said, but_events={"request.unavailable"})


@pytest.mark.parametrize("defect", [KeyError(KEY), ValueError(f"invalid literal for int(): '{MARK}'")])
async def test_a_defect_that_quotes_what_it_met_is_logged_without_it(
    said: io.StringIO, monkeypatch: pytest.MonkeyPatch, defect: Exception
) -> None:
    engine = Engine()

    async def fail(*_: object, **__: object) -> None:
        try:
            raise defect
        except type(defect) as error:
            raise RuntimeError("while accepting") from error

    monkeypatch.setattr(engine.store, "create", fail)
    async with open_service(engine) as service, aiohttp.ClientSession() as session:
        assert await Caller(service, session).ask("POST", "/schedule", json=marked()) == 500
    assert_nothing_said(said, but_events={"request.failed"})
    assert f"{type(defect).__name__}: [left out]" in said.getvalue()
    assert "RuntimeError: while accepting" in said.getvalue()


async def test_deliveries_that_succeed_fail_wait_or_are_dropped_leave_nothing_in_the_log(said: io.StringIO) -> None:
    engine = Engine(retry_attempts=2, retry_initial_ms=1, retry_max_ms=1)

    def refuse(record: OutRecord) -> Refusal | None:
        if b"large" in (record.value or b"") and record.topic == builders.TOPIC:
            return Refusal(cause=RefusalCause.RECORD, reason="record_too_large", destination=record.topic, index=0)
        return None

    engine.kafka.refuse = refuse
    engine.kafka.create_topic("going")
    dropped = {"topic": builders.TOPIC, "deadline": 0, "onLate": "drop"}
    bodies = [
        marked(),
        marked(scheduleKey=f"{MARK}-2", orderingKey=f"{MARK}-2", taskData=f"large {MARK}"),
        marked(scheduleKey=f"{MARK}-3", orderingKey=f"{MARK}-3", delivery=dropped),
        marked(scheduleKey=f"{MARK}-4", orderingKey=f"{MARK}-4", delivery={"topic": "going"}),
    ]
    async with open_service(engine) as service, aiohttp.ClientSession() as session:
        for body in bodies:
            assert await Caller(service, session).ask("POST", "/schedule", json=body) == 201
        engine.kafka.delete_topic("going")
        engine.store.put_by_hand(builders.broken_row(raw=MARK.encode(), client_id="shop", schedule_key=MARK))
        for turn in range(1, 5):
            engine.clock.set_ms(DUE_MS + turn * 1_000)
            await service.deliver()
        assert await Caller(service, session).ask("GET", PATH) == 200
    assert_nothing_said(
        said, but_events={"record.refused", "schedule.failed", "row.unreadable", "topic.waits", "http.stopped"}
    )


async def test_a_loop_that_meets_a_defect_leaves_nothing_of_its_rows_in_the_log(
    said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine()
    lease = await engine.own()
    shard_pass = engine.works[lease.incarnation.id].shard_pass
    loop = ShardLoop(engine.firing, lease, shard_pass, asyncio.Semaphore(1))
    met = asyncio.Event()
    errors = [KeyError(KEY), UnicodeError(MARK)]

    async def fail(*_: object, **__: object) -> None:
        if errors:
            raise errors.pop(0)
        met.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(shard_pass, "run", fail)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        task = group.create_task(loop.run(), name="loop")
        await met.wait()
        task.cancel()
    assert_nothing_said(said, but_events={"shard.failed"})


def test_an_item_that_a_list_leaves_out_is_logged_without_its_key(said: io.StringIO) -> None:
    def unreadable(_: object) -> None:
        raise Unreadable("topic: missing")

    assert readable(unreadable, [{"clientKey": {"S": f"shop/{KEY}"}}]) == []
    assert_nothing_said(said, but_events={"store.left_out_of_list"})


def test_a_trace_shows_where_each_error_came_from() -> None:
    try:
        try:
            int(MARK)
        except ValueError as error:
            raise ExceptionGroup("two", [LookupError(MARK), OSError("no route")]) from error
    except ExceptionGroup as group:
        text = trace_text(group)
    assert MARK not in text.replace("int(MARK)", "")
    assert text.index("ValueError: [left out]") < text.index("ExceptionGroup: two") < text.index("OSError: no route")
    assert text.count("Traceback (most recent call last):") == 4
    assert f"{__file__}" in text
