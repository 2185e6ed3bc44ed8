"""`make demo` against a service whose answers get lost: the verdict rests on facts alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from infra.local.demo import Demo
from infra.local.errors import LocalServicesError
from infra.local.run import Running
from infra.local.verdict import verdict_table
from tests.support.virtual_time import in_virtual_time

RUNNING = Running(kafka_brokers="k:1", store="memory", store_address=None, http_url="http://node")
DUE_MS = 1_000


class Answered:
    """An answer of the service."""

    def __init__(self, status: int, document: dict[str, Any]) -> None:
        self.status = status
        self._document = document

    async def json(self) -> dict[str, Any]:
        return self._document


class FaultyService:
    """In the place of an HTTP session: carries requests out, and loses the answers to some methods."""

    def __init__(self) -> None:
        self.statuses: dict[str, str] = {}
        self.lost_answers: dict[str, int | None] = {}
        """By method: the status that its answers have instead; None: there is no answer."""
        self.ignored: set[str] = set()
        """Methods that are not carried out at all."""

    @asynccontextmanager
    async def request(self, method: str, url: str, *, json: dict[str, Any] | None = None) -> AsyncIterator[Answered]:
        key = url.rpartition("/")[2] if json is None else str(json["scheduleKey"])
        done = 201 if method == "POST" else 200
        if method != "GET" and method not in self.ignored:
            self.statuses[key] = "pending" if method == "POST" else "cancelled"
        if method in self.lost_answers:
            status = self.lost_answers[method]
            if status is None:
                raise aiohttp.ServerDisconnectedError
            yield Answered(status, {})
        elif key not in self.statuses:
            yield Answered(404, {})
        else:
            yield Answered(done, {"status": self.statuses[key]})


def demo_of_one(service: FaultyService) -> Demo:
    session: Any = service
    demo = Demo(RUNNING, session)
    demo.verdict.plan("a", "customer", DUE_MS)
    return demo


def told(demo: Demo) -> tuple[str, bool]:
    """The outcome of the one schedule, and whether the promises hold."""
    assert verdict_table(demo.verdict).row_count
    return demo.verdict.planned["a"].outcome, demo.verdict.holds


@pytest.mark.parametrize("answer", [None, 503], ids=["no answer", "503"])
@in_virtual_time
async def test_a_cancel_that_was_carried_out_without_an_answer_is_looked_up(answer: int | None) -> None:
    service = FaultyService()
    demo = demo_of_one(service)
    await demo.create("a")
    service.lost_answers = {"DELETE": answer}
    await demo.cancel("a")
    await demo.settle()
    assert told(demo) == ("cancelled", True)


@in_virtual_time
async def test_a_cancel_without_an_answer_that_was_not_carried_out_leaves_a_schedule_that_waits() -> None:
    service = FaultyService()
    demo = demo_of_one(service)
    await demo.create("a")
    service.lost_answers, service.ignored = {"DELETE": None}, {"DELETE"}
    await demo.cancel("a")
    await demo.settle()
    assert told(demo) == ("waiting", True)


@pytest.mark.parametrize(("carried_out", "outcome"), [(True, "delivered"), (False, "refused")])
@in_virtual_time
async def test_a_create_without_an_answer_may_be_delivered_or_have_been_refused(
    carried_out: bool, outcome: str
) -> None:
    service = FaultyService()
    service.lost_answers, service.ignored = {"POST": None}, set() if carried_out else {"POST"}
    demo = demo_of_one(service)
    await demo.create("a")
    if carried_out:
        demo.verdict.arrived("a", DUE_MS, {"order": "a"})
    await demo.settle()
    assert told(demo) == (outcome, True)


@in_virtual_time
async def test_a_schedule_of_which_nothing_can_be_learned_is_unknown_and_not_lost() -> None:
    service = FaultyService()
    demo = demo_of_one(service)
    await demo.create("a")
    service.lost_answers = {"DELETE": None, "GET": None}
    await demo.cancel("a")
    await demo.settle()
    assert told(demo) == ("unknown", True)


@pytest.mark.parametrize("found", ["delivered", "cancelled", None])
@in_virtual_time
async def test_an_accepted_schedule_that_is_gone_or_ended_without_a_record_is_lost(found: str | None) -> None:
    service = FaultyService()
    demo = demo_of_one(service)
    await demo.create("a")
    service.statuses = {} if found is None else {"a": found}
    await demo.settle()
    assert told(demo) == ("lost", False)


@in_virtual_time
async def test_a_record_of_a_schedule_that_was_found_cancelled_breaks_a_promise() -> None:
    service = FaultyService()
    demo = demo_of_one(service)
    await demo.create("a")
    service.lost_answers = {"DELETE": None}
    await demo.cancel("a")
    await demo.settle()
    demo.verdict.arrived("a", DUE_MS, {"order": "a"})
    assert (demo.verdict.false_cancels, demo.verdict.holds) == (1, False)


@in_virtual_time
async def test_a_service_that_refuses_a_create_ends_the_demo() -> None:
    service = FaultyService()
    service.lost_answers = {"POST": 403}
    with pytest.raises(LocalServicesError, match="create answered 403"):
        await demo_of_one(service).create("a")
