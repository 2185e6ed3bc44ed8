"""Reads for the dashboard: counted, bounded, and shared where the answer may lag."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest

from clockwork.domain.rights import Right
from clockwork.errors import StoreUnavailable
from clockwork.http import read_budget
from clockwork.http.read_budget import UNDER_WAY_MAX
from clockwork.ports.read_units import current_meter
from tests.support import builders
from tests.support.waiting import until
from tests.unit.api_edge import Edge, a_request, open_edge
from tests.unit.service import Service, a_principal, gate_of, open_service

SUMMARIES = "/schedules?clientId=shop&fields=summary"


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with open_edge() as opened:
        await opened.post(a_request())
        yield opened


def costs(of: Edge | Service, units: float) -> None:
    """From now on a list costs so much."""
    search = of.engine.context.search
    found = type(search).list_pointers

    async def list_pointers(*given: Any, **named: Any) -> Any:
        if (meter := current_meter()) is not None:
            meter.charge(units)
        return await found(search, *given, **named)

    search.list_pointers = list_pointers  # type: ignore[method-assign]


async def test_an_answer_says_what_it_has_cost(edge: Edge) -> None:
    costs(edge, 12.5)

    answer = await edge.ask("GET", SUMMARIES)

    assert answer.headers["clockwork-read-units"] == "12.5"
    await edge.shows('clockwork_ui_read_units_total{call="list"} 12.5')


async def test_past_the_bucket_a_page_is_told_when_to_come_again_and_other_calls_go_on(edge: Edge) -> None:
    # 50 a second, and 500 at once: what is over is a debt.
    costs(edge, 50_500)
    assert (await edge.ask("GET", SUMMARIES)).status == 200

    refused = await edge.ask("GET", SUMMARIES)

    assert refused.status == 429
    assert 900 < int(refused.headers["Retry-After"]) <= 1_000
    assert refused.json["type"] == "urn:clockwork:problem:too-many-requests"
    await edge.shows('clockwork_limited_total{limit="read_units"} 1.0')
    assert (await edge.ask("GET", "/schedules?clientId=shop")).status == 200
    assert (await edge.ask("GET", "/schedule/shop/order-1")).status == 200
    keys = [{"clientId": "shop", "scheduleKey": "order-1"}]
    assert (await edge.ask("POST", "/schedules/get", json={"schedules": keys})).status == 200
    assert (await edge.ask("POST", "/schedules/get?fields=summary", json={"schedules": keys})).status == 429


async def statuses_of(edge: Edge, requests: int, *, refused: int = 0) -> list[int]:
    """The answers to so many lists at once: none that has begun ends before the others have begun, are refused, or wait.

    `refused`: the number of refusals that are waited for besides.
    """
    search, go = edge.engine.context.search, asyncio.Event()
    found, begun = search.list_pointers, 0

    async def list_pointers(*given: Any, **named: Any) -> Any:
        nonlocal begun
        begun += 1
        await go.wait()
        return await found(*given, **named)

    search.list_pointers = list_pointers  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(edge.ask("GET", SUMMARIES), name="ask") for _ in range(requests)]

        async def all_came() -> bool:
            return begun + sum(task.done() for task in asking) >= min(requests, UNDER_WAY_MAX + refused)

        await until(all_came, "they read")
        go.set()
    return sorted(task.result().status for task in asking)


async def test_requests_under_way_are_reckoned_with_by_what_the_last_one_cost(edge: Edge) -> None:
    # Else a hundred tabs that open at one moment would all be let in.
    costs(edge, 300)
    assert (await edge.ask("GET", SUMMARIES)).status == 200
    # One that is refused reads nothing, and says nothing of the next one.
    assert (await edge.ask("GET", f"{SUMMARIES}&limit=0")).status == 400

    assert await statuses_of(edge, 4) == [200, 429, 429, 429]


async def test_of_many_requests_whose_cost_is_not_known_yet_a_few_begin(edge: Edge) -> None:
    costs(edge, 300)

    assert await statuses_of(edge, 40) == UNDER_WAY_MAX * [200] + (40 - UNDER_WAY_MAX) * [429]


async def test_beyond_those_that_may_wait_requests_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_budget, "WAITING_MAX", 2)
    async with open_edge() as edge:
        assert await statuses_of(edge, UNDER_WAY_MAX + 5, refused=3) == (UNDER_WAY_MAX + 2) * [200] + 3 * [429]


async def test_what_costs_nothing_is_never_refused(edge: Edge) -> None:
    for _ in range(20):
        answer = await edge.ask("GET", SUMMARIES)
        assert (answer.status, answer.headers["clockwork-read-units"]) == (200, "0")


# --- shared answers


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    keys = {name: a_principal(*Right, clients="*", topics="*") for name in ("ana", "ben")}
    keys["other"] = a_principal(*Right, clients="shop", topics="*")
    async with open_service(gate=gate_of(keys)) as opened:
        yield opened


class Survey:
    """Stands before the survey of the shards: counts, and may hang or fail."""

    def __init__(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.go = asyncio.Event()
        self.go.set()
        self.failures = 0
        self.units = 64.0
        self._shards = service.engine.shard_admin.shards
        monkeypatch.setattr(service.engine.shard_admin, "shards", self.shards)

    async def is_asked(self) -> bool:
        return self.calls > 0

    async def shards(self) -> Any:
        self.calls += 1
        if (meter := current_meter()) is not None:
            meter.charge(self.units)
        await self.go.wait()
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("away")
        return await self._shards()


@pytest.fixture
def survey(service: Service, monkeypatch: pytest.MonkeyPatch) -> Survey:
    return Survey(service, monkeypatch)


async def asked(
    service: Service,
    key: str = "ana",
    query: str = "",
    headers: Mapping[str, str] | None = None,
    *,
    path: str = "/admin/shards",
) -> tuple[int, str | None, bytes]:
    async with (
        aiohttp.ClientSession(service.url, headers={"Authorization": f"Bearer {key}"}) as session,
        session.get(f"{path}{query}", headers=headers) as answer,
    ):
        return answer.status, answer.headers.get("clockwork-read-units"), await answer.read()


async def waits_s(service: Service, path: str) -> int:
    """Seconds after which a call that is refused may come again."""
    async with (
        aiohttp.ClientSession(service.url, headers={"Authorization": "Bearer ana"}) as session,
        session.get(path) as answer,
    ):
        assert answer.status == 429
        return int(answer.headers["Retry-After"])


async def test_past_the_bucket_surveys_without_parameters_go_on_from_a_reserve_and_lists_wait_for_them(
    service: Service, survey: Survey
) -> None:
    costs(service, 50_500)
    assert (await asked(service, path=SUMMARIES))[0] == 200
    before_s = await waits_s(service, SUMMARIES)

    survey.units = 600
    surveys = ("/admin/nodes", "/admin/pauses", "/forecast", "/admin/shards")
    assert [(await asked(service, path=path))[0] for path in surveys] == [200, 200, 200, 200]

    # The reserve has a fifth of the bucket: 100 units at once, and 10 a second.
    assert 40 < await waits_s(service, "/admin/pauses") <= 51
    assert 10 <= await waits_s(service, SUMMARIES) - before_s <= 13
    assert await waits_s(service, "/admin/nodes?a=1") > 900


async def test_equal_requests_of_some_seconds_share_an_answer(service: Service, survey: Survey) -> None:
    survey.go.clear()
    async with asyncio.TaskGroup() as group:
        both = [group.create_task(asked(service, key), name=key) for key in ("ana", "ben")]
        await until(survey.is_asked, "the first one reads")
        survey.go.set()

    answers = [*sorted(task.result() for task in both), await asked(service)]
    assert [(status, units) for status, units, _ in answers] == [(200, "0"), (200, "64"), (200, "0")]
    assert len({body for _, _, body in answers}) == 1
    assert survey.calls == 1


async def test_other_rights_or_another_query_get_an_answer_of_their_own(service: Service, survey: Survey) -> None:
    for key, query in (("ana", ""), ("other", ""), ("ana", "?a=1"), ("ben", "")):
        await asked(service, key, query)

    assert survey.calls == 3


async def test_who_wants_no_cache_gets_an_answer_of_the_moment_and_those_behind_it_nothing_older(
    service: Service, survey: Survey
) -> None:
    _, _, old = await asked(service)
    engine = service.engine
    engine.store.put_by_hand(builders.row(builders.schedule(due_ms=engine.clock.now_ms() - 1_000)))
    _, _, new = await asked(service, headers={"Cache-Control": "no-cache"})
    _, units, last = await asked(service)

    assert survey.calls == 2
    assert (last == new, last == old, units) == (True, False, "0")


async def test_a_failure_is_not_shared(service: Service, survey: Survey) -> None:
    survey.go.clear()
    survey.failures = 1
    async with asyncio.TaskGroup() as group:
        both = [group.create_task(asked(service), name=name) for name in ("one", "another")]
        await until(survey.is_asked, "the first one reads")
        survey.go.set()

    assert sorted(task.result()[0] for task in both) == [200, 503]


async def test_those_that_waited_for_a_request_that_fails_read_side_by_side(
    service: Service, survey: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    came = 0

    def is_to_be_fresh(request: object) -> bool:
        nonlocal came
        came += 1
        return False

    async def all_came() -> bool:
        return came == 4

    async def all_read() -> bool:
        return survey.calls == 4

    # It is asked as the last thing before a request waits.
    monkeypatch.setattr(read_budget, "is_to_be_fresh", is_to_be_fresh)
    survey.go.clear()
    survey.failures = 1
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(asked(service), name=f"ask-{number}") for number in range(4)]
        await until(all_came, "one reads, and the others wait for it")
        survey.go.set()
        survey.go.clear()
        await until(all_read, "those that waited read, and none has ended")
        survey.go.set()

    assert sorted(task.result()[0] for task in asking) == [200, 200, 200, 503]
