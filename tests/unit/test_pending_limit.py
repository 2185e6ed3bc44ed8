"""How many schedules one client may have pending, as it is answered, and when it is counted."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import aiohttp
import pytest

from clockwork.adapters.memory_search import MemoryScheduleSearch
from clockwork.adapters.telemetry import PrometheusTelemetry
from clockwork.api import pending
from clockwork.api.pending import PendingLimit
from clockwork.domain.allowance import COUNT_EVERY_S
from clockwork.domain.rate import NS
from clockwork.domain.schedule import ClientId
from clockwork.engine.answers import Changed, Status
from clockwork.engine.listing import count_ahead
from clockwork.errors import StoreThrottled, TooManyPending
from tests.support import builders
from tests.support.engine import Engine
from tests.unit.api_edge import Edge, a_request, open_edge
from tests.unit.command_desk import counting
from tests.unit.service import open_service

SHOP, OTHER = ClientId("shop"), ClientId("other")


@dataclass
class FakeCount:
    """Counts what the test says there is, as often as it is asked."""

    found: int = 0
    error: Exception | None = None
    asked: list[tuple[str, int]] = field(default_factory=list)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_end.set()

    async def __call__(self, client_id: ClientId, *, at_most: int) -> int:
        self.asked.append((client_id, at_most))
        self.began.set()
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return self.found


@dataclass
class Limited:
    """A limit that counts, with a clock that the test sets."""

    limit: PendingLimit
    count: FakeCount
    telemetry: PrometheusTelemetry
    now_ns: list[int]

    def later(self) -> None:
        """Long enough for another count."""
        self.now_ns[0] += COUNT_EVERY_S * NS

    async def fill(self, times: int, client_id: ClientId = SHOP) -> None:
        for _ in range(times):
            await self.limit.take(client_id)

    def metric(self, line: str) -> bool:
        return line in self.telemetry.exposition()[0].decode()


@asynccontextmanager
async def limited(pending_max: int, found: int = 0) -> AsyncIterator[Limited]:
    count, telemetry, now_ns = FakeCount(found=found), PrometheusTelemetry(), [0]
    limit = PendingLimit(pending_max=pending_max, count=count, telemetry=telemetry, monotonic_ns=lambda: now_ns[0])
    async with counting(limit):
        yield Limited(limit, count, telemetry, now_ns)


@contextmanager
def no_patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody waits for a count, so that a test need not."""
    with monkeypatch.context() as patched:
        patched.setattr(pending, "WAIT_S_MAX", 0.0)
        yield


async def test_the_first_create_of_a_client_waits_for_its_count_and_those_after_it_for_none() -> None:
    async with limited(100, found=40) as it:
        assert await it.limit.take(SHOP) == {"RateLimit-Policy": '"pending";q=100', "RateLimit": '"pending";r=59'}
        await it.fill(14)
        assert it.count.asked == [(SHOP, 100)]
        it.later()
        # A quarter of sixty is used: it is counted beside, and nobody waits.
        it.count.may_end.clear()
        it.count.began.clear()
        await it.fill(1)
        await it.count.began.wait()
        assert (await it.limit.take(SHOP))["RateLimit"] == '"pending";r=43'
        it.count.may_end.set()


async def test_a_client_at_its_limit_is_refused_until_there_is_room_by_another_count() -> None:
    async with limited(10, found=10) as it:
        for _ in range(3):
            with pytest.raises(TooManyPending, match="Client shop has 10 schedules or more") as refused:
                await it.limit.take(SHOP)
        assert refused.value.retry_after_s == COUNT_EVERY_S
        assert refused.value.headers == {"RateLimit-Policy": '"pending";q=10', "RateLimit": '"pending";r=0;t=5'}
        assert len(it.count.asked) == 1
        it.later()
        it.count.found = 9
        await it.fill(1)
        assert len(it.count.asked) == 2


async def test_of_many_that_wait_for_one_count_no_more_pass_than_there_is_room_for() -> None:
    async with limited(7, found=2) as it:
        answers = await asyncio.gather(*(it.limit.take(SHOP) for _ in range(50)), return_exceptions=True)
        assert sum(isinstance(answer, TooManyPending) for answer in answers) == 45
        assert len(it.count.asked) == 1


async def test_one_clients_pending_schedules_are_no_others() -> None:
    async with limited(3) as it:
        await it.fill(3)
        with pytest.raises(TooManyPending):
            await it.limit.take(SHOP)
        await it.fill(3, OTHER)
        assert it.count.asked == [(SHOP, 3), (OTHER, 3)]


async def test_where_the_count_fails_creates_pass_and_a_metric_says_so() -> None:
    async with limited(10, found=10) as it:
        with pytest.raises(TooManyPending):
            await it.limit.take(SHOP)
        it.later()
        it.count.error = StoreThrottled("slow down")
        await it.fill(30)
        assert len(it.count.asked) == 2
        assert it.metric('clockwork_pending_counts_total{result="failed"} 1.0')
        # The next one tries again, and does not wait for it.
        it.later()
        it.count.error = None
        it.count.began.clear()
        await it.fill(1)
        await it.count.began.wait()
        with pytest.raises(TooManyPending):
            await it.limit.take(SHOP)
        assert it.metric('clockwork_pending_counts_total{result="counted"} 2.0')


async def test_a_count_that_takes_long_holds_up_creates_no_longer_than_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with limited(10, found=10) as it:
        it.count.may_end.clear()
        with no_patience(monkeypatch):
            # Not known is not full.
            assert await it.limit.take(SHOP) == {"RateLimit-Policy": '"pending";q=10'}
            it.count.may_end.set()
        with pytest.raises(TooManyPending):
            await it.limit.take(SHOP)
        it.later()
        it.count.may_end.clear()
        with no_patience(monkeypatch), pytest.raises(TooManyPending) as refused:
            # Known to be full is full until another count says otherwise.
            await it.limit.take(SHOP)
        assert refused.value.retry_after_s == 1
        it.count.may_end.set()


async def test_who_was_not_seen_for_longest_is_forgotten_and_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "CLIENTS_MAX", 2)
    async with limited(10) as it:
        for name in ("a", "b", "a", "c", "a", "b"):
            await it.fill(1, ClientId(name))
        assert [client for client, _ in it.count.asked] == ["a", "b", "c", "b"]


async def test_without_a_limit_nothing_is_counted_or_said() -> None:
    assert await PendingLimit().take(SHOP) == {}
    await PendingLimit().run()
    with pytest.raises(ValueError, match="needs a count"):
        PendingLimit(pending_max=1)


# --- as it is answered


@asynccontextmanager
async def edge_with(
    pending_max: int, found: int = 0, creates_per_second: int = 0
) -> AsyncIterator[tuple[Edge, Limited]]:
    async with (
        limited(pending_max, found) as it,
        open_edge(pending=it.limit, creates_per_second=creates_per_second) as edge,
    ):
        yield edge, it


async def test_a_create_over_the_limit_is_a_429_and_a_repeat_is_answered_as_ever() -> None:
    async with edge_with(1, creates_per_second=10) as (edge, _):
        first = await edge.post(a_request(scheduleKey="a"))
        assert (first.status, first.headers["RateLimit"]) == (201, '"creates";r=9;t=1, "pending";r=0')
        assert first.headers["RateLimit-Policy"] == '"creates";q=10;w=1, "pending";q=1'
        over = await edge.post(a_request(scheduleKey="b"))
        assert (over.status, over.headers["Retry-After"]) == (429, "5")
        assert over.headers["RateLimit"] == '"creates";r=8;t=1, "pending";r=0;t=5'
        assert over.json["type"] == "urn:clockwork:problem:too-many-requests"
        assert "its limit" in over.json["detail"]
        assert (await edge.post(a_request(scheduleKey="a"))).status == 200
        assert len(edge.engine.views) == 1
        await edge.shows('clockwork_limited_total{limit="pending"} 1.0')
        await edge.shows('clockwork_schedules_total{result="rejected"} 1.0')
        await edge.shows('clockwork_schedules_total{result="repeated"} 1.0')


async def test_at_the_limit_a_repeat_of_what_was_delivered_is_told_so_and_there_is_room_after_the_next_count() -> None:
    engine, now_ns = Engine(), [0]
    count = partial(count_ahead, MemoryScheduleSearch(engine.store), engine.clock)
    limit = PendingLimit(pending_max=1, count=count, monotonic_ns=lambda: now_ns[0])
    due_ms = engine.clock.now_ms() + 60_000

    def body(key: str) -> dict[str, object]:
        delivery = {"topic": builders.TOPIC}
        return a_request(scheduleKey=key, scheduleTime=due_ms + 86_400_000 * (key == "b"), delivery=delivery)

    async with (
        counting(limit),
        open_service(engine, pending=limit) as service,
        aiohttp.ClientSession(service.url) as session,
    ):

        async def create(key: str) -> tuple[int, int | str | None]:
            async with session.post("/schedule", json=body(key)) as answer:
                return answer.status, (await answer.json()).get("status")

        assert await create("a") == (201, "pending")
        engine.clock.set_ms(due_ms + 1)
        await service.deliver()
        assert await create("b") == (429, 429)
        assert await create("a") == (200, "delivered")
        now_ns[0] += COUNT_EVERY_S * NS
        assert await create("b") == (201, "pending")


async def test_what_makes_nothing_pending_takes_no_place() -> None:
    async with edge_with(2) as (edge, _):
        assert (await edge.post(a_request(scheduleKey="a"))).status == 201
        for _ in range(3):
            assert (await edge.post(a_request(scheduleKey="a"))).status == 200
            assert (await edge.post(a_request(scheduleKey="a", taskData=2))).status == 409
        assert (await edge.post(a_request(scheduleKey="b"))).status == 201
        assert (await edge.post(a_request(scheduleKey="c"))).status == 429


async def test_each_item_of_a_batch_needs_its_place() -> None:
    async with edge_with(10, found=8) as (edge, it):
        items = [a_request(scheduleKey=f"k{n}") for n in range(5)]
        answer = await edge.ask("POST", "/schedules", json={"schedules": items})
        statuses = [each["status"] for each in answer.json["results"]]
        assert sorted(statuses) == [201, 201, 429, 429, 429]
        assert len(it.count.asked) == 1


async def test_a_change_needs_no_place_and_a_retry_of_what_failed_does() -> None:
    async with edge_with(1) as (edge, it):
        created = await edge.post(a_request(scheduleKey="a"))
        assert (await edge.ask("PUT", "/schedule/shop/a", json={"taskData": 3})).status == 200
        assert (await edge.ask("POST", "/schedule/shop/a/fire")).status == 200
        # Pending: nothing more becomes pending by it, whatever it is answered.
        assert (await edge.ask("POST", "/schedule/shop/a/retry")).status == 200
        assert (await edge.ask("POST", "/schedule/shop/none/retry")).status == 404
        view = edge.engine.views["shop", "a"]
        edge.engine.views["shop", "a"] = replace(view, status=Status.FAILED)
        refused = await edge.ask("POST", "/schedule/shop/a/retry")
        assert (created.status, refused.status, refused.headers["Retry-After"]) == (201, 429, "5")
        it.later()
        edge.engine.change_answer = Changed(view)
        assert (await edge.ask("POST", "/schedule/shop/a/retry")).status == 200
        # It took the place that the count had found.
        assert (await edge.post(a_request(scheduleKey="b"))).status == 429
