"""The limit of pending schedules of one client, as it is answered, and when it is counted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import aiohttp
import pytest

from clockwork.domain.quota import COUNT_EVERY_S
from clockwork.domain.rate import NS
from clockwork.domain.schedule import ClientId, EndState
from clockwork.errors import StoreThrottled, TooManyPending, TooManyRequests
from clockwork.observability.metrics import PrometheusTelemetry
from clockwork.requests import pending_quota as pending
from clockwork.requests.listing import count_ahead
from clockwork.requests.pending_quota import SOON_MS, PendingLimit
from clockwork.schema.problems import rate_limit_headers
from clockwork.stores.memory.store import MemoryScheduleSearch
from tests.support import builders
from tests.support.engine import Engine
from tests.support.virtual_time import in_virtual_time
from tests.support.waiting import until
from tests.unit.api_edge import DUE_MS, NOW_MS, Edge, a_request, open_edge
from tests.unit.counting import FakeCount, count_again_after, counting, no_patience
from tests.unit.service import open_service

SHOP, OTHER = ClientId("shop"), ClientId("other")
HOUR_MS = 3_600_000
NO_TIME_S = 0.001
"""Virtual time after which a call has waited for something."""


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

    def full(self) -> None:
        """The next count, which may begin, says so."""
        self.later()
        self.count.found = self.limit.pending_max

    async def take(self, client_id: ClientId = SHOP, *, ahead_ms: int = HOUR_MS) -> dict[str, str]:
        """Takes room, and the schedule that it was taken for is stored; the headers that say so."""
        async with self.limit.room(client_id, ahead_ms=ahead_ms) as room:
            self.count.stored[client_id] += 1
        return rate_limit_headers(room.limits)

    async def fill(self, times: int, client_id: ClientId = SHOP) -> None:
        for _ in range(times):
            await self.take(client_id)

    async def counted(self, times: int) -> None:
        """Waits for the end of so many counts."""

        async def look() -> bool:
            return self.metric(f'clockwork_pending_counts_total{{result="counted"}} {times}.0')

        await until(look, "counts")

    def metric(self, line: str) -> bool:
        return line in self.telemetry.exposition()[0].decode()


@asynccontextmanager
async def limited(pending_max: int, found: int = 0) -> AsyncIterator[Limited]:
    count, telemetry, now_ns = FakeCount(found=found), PrometheusTelemetry(), [0]
    limit = PendingLimit(pending_max=pending_max, count=count, telemetry=telemetry, monotonic_ns=lambda: now_ns[0])
    async with counting(limit):
        yield Limited(limit, count, telemetry, now_ns)


@in_virtual_time
async def test_the_first_create_of_a_client_waits_for_its_count_and_those_after_it_for_none() -> None:
    async with limited(100, found=40) as it:
        assert await it.take() == {"RateLimit-Policy": '"pending";q=100', "RateLimit": '"pending";r=59'}
        await it.fill(14)
        assert it.count.asked == [(SHOP, 100)]
        it.later()
        # A quarter of sixty is used: it is counted beside, and no request waits.
        it.count.may_end.clear()
        it.count.began.clear()
        await it.fill(1)
        await it.count.began.wait()
        assert (await it.take())["RateLimit"] == '"pending";r=43'
        it.count.may_end.set()


@in_virtual_time
async def test_a_client_at_its_limit_is_refused_until_there_is_room_by_another_count() -> None:
    async with limited(10, found=10) as it:
        for _ in range(3):
            with pytest.raises(TooManyPending, match="Client shop has 10 schedules or more") as refused:
                await it.take()
        assert refused.value.retry_after_s == COUNT_EVERY_S
        assert rate_limit_headers(refused.value.limits) == {
            "RateLimit-Policy": '"pending";q=10',
            "RateLimit": '"pending";r=0;t=5',
        }
        assert len(it.count.asked) == 1
        it.later()
        it.count.found = 9
        await it.fill(1)
        assert len(it.count.asked) == 2


@in_virtual_time
async def test_who_has_nothing_pending_any_more_is_not_refused_because_of_what_it_has_created(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count_again_after(monkeypatch, 0.0)
    async with limited(10) as it:
        for _ in range(50):
            await it.take()
            it.count.stored.clear()
        assert 2 <= len(it.count.asked) <= 50


@in_virtual_time
async def test_what_seems_full_waits_until_it_may_be_counted_and_no_more_pass_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count_again_after(monkeypatch, 0.05)
    count, loop = FakeCount(), asyncio.get_running_loop()
    limit = PendingLimit(pending_max=2, count=count, monotonic_ns=lambda: int(loop.time() * NS))
    async with counting(limit):
        it = Limited(limit, count, PrometheusTelemetry(), [])
        await it.fill(2)
        count.stored[SHOP] = 1
        answers = await asyncio.gather(*(it.take() for _ in range(5)), return_exceptions=True)
        assert [type(answer) for answer in answers if isinstance(answer, Exception)] == [TooManyRequests] * 4
        assert len(count.asked) == 2


@in_virtual_time
async def test_what_only_seems_full_passes_where_a_count_would_cost_too_much_for_now() -> None:
    async with limited(20_000, found=19_995) as it:
        async with asyncio.timeout(NO_TIME_S):
            await it.fill(10)
        assert len(it.count.asked) == 1
        it.later()
        with pytest.raises(TooManyPending):
            await it.take()


@in_virtual_time
async def test_what_is_due_soon_takes_no_place() -> None:
    async with limited(3) as it:
        for _ in range(20):
            assert (await it.take(ahead_ms=SOON_MS))["RateLimit"] == '"pending";r=3'
        assert len(it.count.asked) == 1


@in_virtual_time
async def test_of_many_that_wait_for_one_count_no_more_pass_than_there_is_room_for() -> None:
    async with limited(7, found=2) as it:
        answers = await asyncio.gather(*(it.take() for _ in range(50)), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, TooManyRequests)]
        assert len(refused) == 45
        # By what was added, not by a count: soon, that will be known better.
        assert {(type(each), each.retry_after_s) for each in refused} == {(TooManyRequests, 1)}
        assert len(it.count.asked) == 1


@in_virtual_time
async def test_one_clients_pending_schedules_are_no_others() -> None:
    async with limited(3) as it:
        await it.fill(3)
        it.later()
        with pytest.raises(TooManyPending):
            await it.take()
        await it.fill(3, OTHER)
        assert it.count.asked == [(SHOP, 3), (SHOP, 3), (OTHER, 3)]


@in_virtual_time
async def test_where_the_count_fails_creates_pass_and_a_metric_says_so() -> None:
    async with limited(10, found=10) as it:
        with pytest.raises(TooManyPending):
            await it.take()
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
            await it.take()
        assert it.metric('clockwork_pending_counts_total{result="counted"} 2.0')


@in_virtual_time
async def test_a_count_that_takes_long_holds_up_creates_no_longer_than_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with limited(10, found=10) as it:
        it.count.may_end.clear()
        with no_patience(monkeypatch):
            # Not known is not full.
            assert await it.take() == {"RateLimit-Policy": '"pending";q=10'}
            it.count.may_end.set()
        await it.counted(1)
        with pytest.raises(TooManyPending):
            await it.take()
        it.later()
        it.count.may_end.clear()
        with no_patience(monkeypatch), pytest.raises(TooManyRequests, match="being counted") as refused:
            # Known to be full is full until another count says otherwise; but now that is to be known soon.
            await it.take()
        assert (type(refused.value), refused.value.retry_after_s) == (TooManyRequests, 1)
        it.count.may_end.set()


@in_virtual_time
async def test_for_a_count_that_takes_long_nobody_waits_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with limited(10, found=8) as it:
        it.count.may_end.clear()
        with no_patience(monkeypatch):
            await it.fill(1)
        monkeypatch.setattr(pending, "WAIT_S_MAX", 100.0)
        async with asyncio.timeout(NO_TIME_S):
            await it.fill(20)
        it.count.may_end.set()
        await it.counted(1)
        with pytest.raises(TooManyRequests):
            await it.take()
        # For the next one they do.
        it.later()
        it.count.may_end.clear()
        it.count.began.clear()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(it.take(), name="waiting")
            await it.count.began.wait()
            assert not waiting.done()
            it.count.found = 0
            it.count.stored.clear()
            it.count.may_end.set()
        assert waiting.done()


@in_virtual_time
async def test_who_was_not_seen_for_longest_is_forgotten_and_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "CLIENTS_MAX", 2)
    async with limited(10) as it:
        for name in ("a", "b", "a", "c", "a", "b"):
            await it.fill(1, ClientId(name))
        assert [client for client, _ in it.count.asked] == ["a", "b", "c", "b"]


@in_virtual_time
async def test_without_a_limit_nothing_is_counted_or_said() -> None:
    async with PendingLimit().room(SHOP, ahead_ms=HOUR_MS) as room:
        assert room.limits == ()
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
    async with edge_with(1, creates_per_second=10) as (edge, it):
        first = await edge.post(a_request(scheduleKey="a"))
        assert (first.status, first.headers["RateLimit"]) == (201, '"creates";r=9;t=1, "pending";r=0')
        assert first.headers["RateLimit-Policy"] == '"creates";q=10;w=1, "pending";q=1'
        it.full()
        over = await edge.post(a_request(scheduleKey="b"))
        assert (over.status, over.headers["Retry-After"]) == (429, "5")
        assert over.headers["RateLimit"] == '"creates";r=8;t=1, "pending";r=0;t=5'
        assert over.json["type"] == "urn:clockwork:problem:too-many-requests"
        assert "its limit" in over.json["detail"]
        assert (await edge.post(a_request(scheduleKey="a"))).status == 200
        assert (await edge.post(a_request(scheduleKey="a", taskData=2))).status == 409
        assert edge.keys() == ["a"]
        await edge.shows('clockwork_limited_total{limit="pending"} 1.0')
        await edge.shows('clockwork_schedules_total{result="rejected"} 2.0')
        await edge.shows('clockwork_schedules_total{result="repeated"} 1.0')


async def test_at_the_limit_what_makes_nothing_new_is_answered_as_ever_and_there_is_room_after_the_next_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count_again_after(monkeypatch, 0.0)
    engine, now_ns = Engine(), [0]
    count = partial(count_ahead, MemoryScheduleSearch(engine.store), engine.clock)
    limit = PendingLimit(pending_max=1, count=count, monotonic_ns=lambda: now_ns[0])
    due_ms = engine.clock.now_ms() + 60_000

    def body(key: str, data: int) -> dict[str, object]:
        due = due_ms + 86_400_000 * (key == "b")
        return a_request(scheduleKey=key, scheduleTime=due, taskData=data, delivery={"topic": builders.TOPIC})

    async with (
        counting(limit),
        open_service(engine, pending=limit) as service,
        aiohttp.ClientSession(service.url) as session,
    ):

        async def create(key: str, data: int = 1) -> tuple[int, int | str | None]:
            async with session.post("/schedule", json=body(key, data)) as answer:
                return answer.status, (await answer.json()).get("status")

        assert await create("a") == (201, "pending")
        assert await create("b") == (429, 429)
        assert await create("a", 2) == (409, 409)
        engine.clock.set_ms(due_ms + 1)
        await service.deliver()
        assert await create("b") == (429, 429)
        assert await create("a", 2) == (429, 429)
        assert await create("a") == (200, "delivered")
        now_ns[0] += COUNT_EVERY_S * NS
        assert await create("b") == (201, "pending")


async def test_what_makes_nothing_pending_takes_no_place() -> None:
    async with edge_with(2) as (edge, it):
        assert (await edge.post(a_request(scheduleKey="a"))).status == 201
        for _ in range(3):
            assert (await edge.post(a_request(scheduleKey="a"))).status == 200
            assert (await edge.post(a_request(scheduleKey="a", taskData=2))).status == 409
        answer = await edge.post(a_request(scheduleKey="b"))
        assert (answer.status, answer.headers["RateLimit"]) == (201, '"pending";r=0')
        it.full()
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
        it.full()
        assert (await edge.ask("PUT", "/schedule/shop/a", json={"taskData": 3})).status == 200
        assert (await edge.ask("POST", "/schedule/shop/a/fire")).status == 200
        # Pending: nothing more becomes pending by it, whatever it is answered.
        assert (await edge.ask("POST", "/schedule/shop/a/retry")).status == 409
        assert (await edge.ask("POST", "/schedule/shop/none/retry")).status == 404
        await edge.ends(EndState.FAILED, "a")
        refused = await edge.ask("POST", "/schedule/shop/a/retry")
        assert (created.status, refused.status, refused.headers["Retry-After"]) == (201, 429, "5")
        # What would be refused anyway is told why.
        for version, status in (("3", 429), ("7", 412)):
            headers = {"If-Match": f'"{version}"'}
            assert (await edge.ask("POST", "/schedule/shop/a/retry", headers=headers)).status == status
        it.later()
        it.count.found = 0
        later = {"scheduleTime": DUE_MS}
        assert (await edge.ask("POST", "/schedule/shop/a/retry", json=later)).status == 200
        # It took the place that the count had found.
        over = await edge.post(a_request(scheduleKey="b", scheduleTime=NOW_MS))
        assert over.headers["RateLimit"] == '"pending";r=0'
