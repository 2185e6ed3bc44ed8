"""The client: what it sends, what it makes of answers, and when it asks again."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from http import HTTPStatus
from typing import Any

import pytest

from clockwork import client as c
from clockwork.client.aio import AsyncClient
from clockwork.client.schedules import batches, epoch_ms
from clockwork.errors import FieldError
from clockwork.requests import batch
from clockwork.schema import problems
from clockwork.settings.model import IntakeSettings
from tests.support.examples import CANCELLED, DELIVERED, FAILED, PAST, PENDING
from tests.unit.api_edge import DUE_MS, NOW_MS, StillClock, open_edge
from tests.unit.client_stub import DROP, FAST, Asked, Raw, Stub, open_stub, results

MINUTE = timedelta(minutes=1)
AWAY = problems.unavailable("all of it", retry_after_s=0)


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with open_stub() as opened:
        yield opened


@pytest.fixture
async def client(stub: Stub) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(stub.url, retries=FAST, clock=StillClock(), api_key="secret-key") as opened:
        yield opened


async def _create(client: AsyncClient, **more: Any) -> c.Schedule:
    given: dict[str, Any] = {"at": MINUTE, "topic": "orders", "data": {"a": 1}}
    return await client.create("shop", "order-1", **given | more)


def _new(number: int, **changed: Any) -> c.NewSchedule:
    given: dict[str, Any] = {"at": 5, "topic": "t", "data": number}
    return c.NewSchedule(client_id="shop", schedule_key=f"k{number}", **given | changed)


def conflict(reason: str, schedule: dict[str, Any]) -> problems.Problem:
    return problems.conflict(reason, "no", schedule)


# --- with the real HTTP edge


async def test_create_get_and_cancel_work_against_the_service_itself() -> None:
    async with open_edge() as edge, AsyncClient(f"http://127.0.0.1:{edge.server.port}", clock=StillClock()) as client:
        retry = c.RetryPolicy(attempts=3, jitter=0.5)
        more: dict[str, Any] = {"deadline_ms": 9, "on_late": "drop", "retry": retry, "headers": {"a": "b"}}
        more |= {"guarantee": "at_least_once", "ordering_key": "o"}
        created = await _create(client, **more)
        assert (created.schedule_time_ms, created.task_data, created.status) == (DUE_MS, {"a": 1}, "pending")
        assert created.delivery is not None
        assert (created.delivery.guarantee, created.delivery.headers) == ("at_least_once", {"a": "b"})
        assert (created.delivery.deadline_ms, created.delivery.on_late) == (9, "drop")
        assert created.delivery.retry is not None
        assert (created.delivery.retry.attempts, created.delivery.retry.jitter) == (3, 0.5)
        assert await _create(client, **more) == created
        with pytest.raises(c.KeyTaken) as taken:
            await _create(client, data={"a": 2})
        assert taken.value.schedule == created
        assert await client.get("shop", "order-1") == created
        assert await client.cancel("shop", "order-1") == created.model_copy(update={"status": "cancelled"})
        with pytest.raises(c.NotFound):
            await client.get("shop", "none")
        with pytest.raises(c.InvalidRequest) as invalid:
            await _create(client, topic="__x", at=-1)
        assert {each.field for each in invalid.value.errors} == {"scheduleTime", "delivery.topic"}


@pytest.mark.parametrize("key", ["a/b", "ü %2f", "..", ".", "?#", "{x}", "a b+c", "\x00", "😀"])
async def test_every_key_arrives_as_it_is(key: str) -> None:
    async with open_edge() as edge, AsyncClient(f"http://127.0.0.1:{edge.server.port}", clock=StillClock()) as client:
        await client.create("shop", key, at=DUE_MS, topic="orders", data=b"\xff")
        assert (await client.get("shop", key)).schedule_key == key


# --- what is sent


@pytest.mark.parametrize(
    ("at", "ms"),
    [
        (5, 5),
        (timedelta(seconds=1.5), NOW_MS + 1_500),
        (timedelta(microseconds=1), NOW_MS + 1),
        (timedelta(milliseconds=-3), NOW_MS - 3),
        (datetime(1970, 1, 1, 0, 0, 1, 1, tzinfo=UTC), 1_001),
        (datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), 0),
    ],
)
def test_times_are_taken_as_people_write_them_and_never_made_earlier(at: c.When, ms: int) -> None:
    assert epoch_ms(at, StillClock()) == ms


def test_a_datetime_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        epoch_ms(datetime(2030, 1, 1), StillClock())  # noqa: DTZ001


async def test_each_call_is_sent_as_the_api_wants_it(client: AsyncClient, stub: Stub) -> None:
    await client.reschedule("shop", "k", at=MINUTE, headers={}, data=None, if_version=3)
    await client.reschedule("shop", "k", topic="t", data=b"x")
    await client.fire("shop", "k")
    await client.retry("shop", "k", at=7)
    assert [(each.method, each.path, each.body) for each in stub.asked] == [
        (
            "PUT",
            "/schedule/shop/k",
            {"scheduleTime": DUE_MS, "delivery": {"headers": {}}, "taskData": None, "taskDataEncoding": "json"},
        ),
        ("PUT", "/schedule/shop/k", {"delivery": {"topic": "t"}, "taskData": "eA==", "taskDataEncoding": "base64"}),
        ("POST", "/schedule/shop/k/fire", None),
        ("POST", "/schedule/shop/k/retry", {"scheduleTime": 7}),
    ]
    assert stub.asked[0].headers["If-Match"] == '"3"'
    assert all(each.headers["Authorization"] == "Bearer secret-key" for each in stub.asked)
    assert "secret-key" not in repr(client) + repr(vars(client))


async def test_lists_follow_their_cursor_to_the_end(client: AsyncClient, stub: Stub) -> None:
    pages = [
        {"schedules": [PENDING, DELIVERED], "cursor": "x y", "lookedAt": 2},
        {"schedules": [FAILED], "cursor": None, "lookedAt": 1},
    ]
    stub.will(*((200, page) for page in pages))
    found = [each.status async for each in client.list("shop", status="pending", due_from=5, due_to=MINUTE)]
    assert found == ["pending", "delivered", "failed"]
    assert stub.lines == [
        f"GET /schedules?clientId=shop&status=pending&dueFrom=5&dueTo={DUE_MS}&limit=100",
        f"GET /schedules?clientId=shop&status=pending&dueFrom=5&dueTo={DUE_MS}&limit=100&cursor=x+y",
    ]
    stub.will((200, {"schedules": [{**PAST, "status": "superseded"}], "cursor": None}))
    assert [each.status async for each in client.history("shop", "k")] == ["superseded"]


# --- what answers become


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        (conflict("pending", PENDING), c.KeyTaken),
        (conflict("delivered", DELIVERED), c.AlreadyDelivered),
        (conflict("failed", FAILED), c.AlreadyFailed),
        (conflict("cancelled", CANCELLED), c.AlreadyCancelled),
        (conflict("in_flight", PENDING), c.InFlight),
        (conflict("news", PENDING), c.Conflict),
        (conflict("delivered", {"status": "news"}), c.AlreadyDelivered),
        (problems.invalid_input([FieldError("a", "b")]), c.InvalidRequest),
        (problems.too_large("x"), c.InvalidRequest),
        (problems.schedule_not_found(), c.NotFound),
        (problems.of_http(HTTPStatus.NOT_FOUND), c.NotSupported),
        (problems.of_http(HTTPStatus.NOT_IMPLEMENTED), c.NotSupported),
        (problems.of_http(HTTPStatus.UNAUTHORIZED), c.Unauthorized),
        (problems.of_http(HTTPStatus.FORBIDDEN), c.Forbidden),
        (problems.version_differs(1, PENDING), c.VersionMismatch),
    ],
)
async def test_a_final_answer_is_its_own_error_and_is_not_asked_for_again(
    client: AsyncClient, stub: Stub, problem: problems.Problem, error: type[c.CallFailed]
) -> None:
    stub.will(problem)
    with pytest.raises(c.CallFailed) as raised:
        await client.cancel("shop", "k")
    assert type(raised.value) is error
    assert raised.value.status == problem.status
    assert len(stub.asked) == 1


async def test_a_schedule_that_was_fired_by_an_attempt_without_an_answer_is_delivered_and_no_conflict(
    client: AsyncClient, stub: Stub
) -> None:
    stub.will(DROP, conflict("delivered", DELIVERED))
    assert (await client.fire("shop", "k")).status == "delivered"
    with pytest.raises(c.AlreadyDelivered):
        await client.fire("shop", "k")


async def test_an_answer_of_somebody_else_is_an_unknown_outcome(client: AsyncClient, stub: Stub) -> None:
    stub.will((200, {"hello": "I am a proxy"}))
    with pytest.raises(c.Unavailable, match="clientId"):
        await client.get("shop", "k")


NO_JSON = [
    Raw(status=502, body=b"upstream connect error"),
    Raw(status=503, body=b'{"type":"abo', content_type="application/problem+json"),
    Raw(status=500, body=b"\xff\xfe\x00"),
    Raw(status=502, body=b"{}", content_type="application/json; charset=no-such-charset"),
    Raw(status=502, body=b"\xe9", content_type="application/json; charset=ascii"),
    Raw(status=502, body=b"[" * 100_000),
    Raw(status=502, body=b"9" * 5_000),
    Raw(status=503, body=b"", headers={"Retry-After": "0"}),
    Raw(status=200, body=b'{"clientId":"sh'),
    Raw(status=200, body=b"upstream connect error"),
    Raw(status=408, body=b"[]"),
]
"""Answers that are not JSON, though some say so."""


@pytest.mark.parametrize("answer", NO_JSON, ids=lambda answer: f"{answer.status} {answer.body[:12]!r}")
async def test_an_answer_without_json_is_an_unknown_outcome_and_asked_for_again(
    client: AsyncClient, stub: Stub, answer: Raw
) -> None:
    stub.will(answer)
    with pytest.raises(c.Unavailable) as raised:
        await client.get("shop", "k")
    assert raised.value.status == answer.status
    assert len(stub.asked) == FAST.attempts_max
    stub.will(answer, (200, PENDING))
    assert (await client.get("shop", "k")).status == "pending"


ODD_VALUES: list[Any] = [7, None, True, "x", [7, None, "x"], {"a": 1}, 1.5, [[]]]


@pytest.mark.parametrize("odd", ODD_VALUES, ids=repr)
@pytest.mark.parametrize("status", [400, 401, 404, 409, 412, 413, 429, 500])
async def test_whatever_an_error_answer_holds_it_is_the_librarys_own_error(
    client: AsyncClient, stub: Stub, odd: Any, status: int
) -> None:
    names = ("errors", "detail", "title", "type", "reason", "schedule", "status")
    for document in (odd, dict.fromkeys(names, odd), {"errors": [{"field": odd, "message": odd}]}):
        stub.will((status, document))
        with pytest.raises(c.CallFailed) as raised:
            await client.get("shop", "k")
        assert raised.value.status == status


@pytest.mark.parametrize("odd", ODD_VALUES, ids=repr)
async def test_whatever_an_answer_of_success_holds_it_is_the_librarys_own_error(
    client: AsyncClient, stub: Stub, odd: Any
) -> None:
    for document in (odd, {**PENDING, "version": [odd]}, {"schedules": odd}, {"schedules": [odd], "cursor": [odd]}):
        stub.will((200, document))
        with pytest.raises(c.Unavailable):
            await client.get("shop", "k")
        with pytest.raises(c.Unavailable):
            _ = [each async for each in client.list("shop")]


@pytest.mark.parametrize("odd", ODD_VALUES, ids=repr)
async def test_whatever_an_answer_of_a_batch_holds_it_is_the_librarys_own_error(
    client: AsyncClient, stub: Stub, odd: Any
) -> None:
    for document in (odd, {"results": odd}, {"results": "x"}):
        stub.will((200, document))
        with pytest.raises(c.Unavailable):
            _ = [each async for each in client.create_many([_new(0), _new(1)])]
    for item in (odd, {"status": odd}, {"status": 200, "schedule": odd}, {"status": 400, "errors": odd}):
        stub.will((200, {"results": [item]}))
        (result,) = [each async for each in client.create_many([_new(0)])]
        assert isinstance(result.error, c.CallFailed)


# --- when it asks again

TOO_MANY = problems.Problem(status=HTTPStatus(429), kind="x", title="x", detail="x")


@pytest.mark.parametrize("trouble", [problems.unavailable("down", retry_after_s=0), DROP, TOO_MANY, (502, None)])
async def test_what_got_no_answer_is_sent_again_as_the_very_same_request(
    client: AsyncClient, stub: Stub, trouble: Any
) -> None:
    stub.will(trouble, trouble, (201, PENDING))
    assert (await _create(client)).status == "pending"
    assert len(stub.asked) == 3
    assert stub.asked[0].body == stub.asked[1].body == stub.asked[2].body


async def test_trying_is_bounded_and_ends_with_the_outcome_unknown(client: AsyncClient, stub: Stub) -> None:
    stub.will(problems.unavailable("down", retry_after_s=0))
    with pytest.raises(c.Unavailable, match="down"):
        await _create(client)
    assert len(stub.asked) == FAST.attempts_max


async def test_a_service_that_asks_for_more_patience_than_there_is_ends_the_call_at_once(
    client: AsyncClient, stub: Stub
) -> None:
    stub.will(problems.unavailable("down", retry_after_s=3_600))
    with pytest.raises(c.Unavailable):
        await _create(client)
    assert len(stub.asked) == 1


def test_waits_double_up_to_their_bound_and_yield_to_retry_after() -> None:
    retries, rng = c.Retries(initial_ms=100, wait_ms_max=1_000), random.Random(7)
    for attempt, most in ((1, 100), (2, 200), (4, 800), (5, 1_000), (60, 1_000)):
        assert most / 2 <= retries.wait_ms(attempt, None, rng) <= most
    assert retries.wait_ms(1, 2, rng) == 2_000


async def test_nothing_listening_is_an_unknown_outcome_too() -> None:
    async with AsyncClient("http://127.0.0.1:9", retries=FAST) as client:
        with pytest.raises(c.Unavailable, match="No answer"):
            await client.get("shop", "k")


# --- many at once


async def test_many_are_sent_in_batches_and_told_in_order(client: AsyncClient, stub: Stub) -> None:
    stub.will(results)
    found = [each async for each in client.create_many(map(_new, range(25)), batch_items_max=10)]
    assert [len(each.body["schedules"]) for each in stub.asked] == [10, 10, 5]
    assert [each.index for each in found] == list(range(25))
    assert [each.schedule.schedule_key for each in found if each.schedule] == [f"k{i}" for i in range(25)]


async def test_an_item_fails_alone_and_only_the_unsettled_are_sent_again(client: AsyncClient, stub: Stub) -> None:
    def first(asked: Asked) -> tuple[int, Any]:
        status, document = results(asked)
        document["results"][1] = conflict("pending", PENDING).document()
        document["results"][2] = problems.unavailable("down").document()
        return status, document

    stub.will(first, results)
    found = [each async for each in client.create_many(map(_new, range(4)))]
    assert [type(each.error) for each in found] == [type(None), c.KeyTaken, type(None), type(None)]
    assert [each["scheduleKey"] for each in stub.asked[1].body["schedules"]] == ["k2"]


async def test_results_of_a_batch_stay_when_the_items_still_open_get_no_answer(client: AsyncClient, stub: Stub) -> None:
    def first(asked: Asked) -> tuple[int, Any]:
        status, document = results(asked)
        document["results"][2] = problems.unavailable("down").document()
        return status, document

    stub.will(first, AWAY)
    found = [each async for each in client.create_many(map(_new, range(4)))]
    assert [type(each.error) for each in found] == [type(None), type(None), c.Unavailable, type(None)]


async def test_one_half_of_a_refused_batch_keeps_its_results_when_the_other_gets_no_answer(
    client: AsyncClient, stub: Stub
) -> None:
    def by_key(asked: Asked) -> Any:
        keys = [each["scheduleKey"] for each in asked.body["schedules"]]
        if len(keys) == 4:
            return problems.too_large("the body")
        return AWAY if "k3" in keys else results(asked)

    stub.will(by_key)
    found = [each async for each in client.create_many(map(_new, range(4)))]
    assert [type(each.error) for each in found] == [type(None), type(None), c.Unavailable, c.Unavailable]


async def test_a_batch_whose_answer_does_not_fit_settles_nothing(client: AsyncClient, stub: Stub) -> None:
    stub.will((200, {"results": []}))
    with pytest.raises(c.Unavailable):
        _ = [each async for each in client.cancel_many([("shop", "a")])]


def test_batches_are_bounded_by_bytes_as_well() -> None:
    sizes = [len(each) for each in batches([b"x" * 12] * 7, items_max=100, bytes_max=26)]
    assert sizes == [2, 2, 2, 1]
    assert [len(each) for each in batches([b"x" * 99, b"y"], items_max=100, bytes_max=26)] == [1, 1]


class Unsendable:
    """An item that there is no JSON for."""


DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "wrong",
    [
        *(_new(3, data=data) for data in (float("nan"), float("inf"), Unsendable(), {1, 2}, "\ud800", DEEP, 10**5_000)),
        *(_new(3, at=at) for at in (datetime(2030, 1, 1), timedelta.max)),  # noqa: DTZ001
        _new(3, headers=7),
        {"taskData": float("nan")},
        {"scheduleKey": "\ud800"},
    ],
    ids=["nan", "inf", "object", "set", "surrogate", "deep", "digits", "no zone", "max", "headers", "row", "key"],
)
async def test_an_item_that_cannot_be_sent_fails_alone(client: AsyncClient, stub: Stub, wrong: Any) -> None:
    stub.will(results)
    items = [wrong if number == 3 else _new(number) for number in range(6)]
    found = [each async for each in client.create_many(items, batch_items_max=2)]
    assert [each.index for each in found] == list(range(6))
    assert [each.error is None for each in found] == [True, True, True, False, True, True]
    assert isinstance(found[3].error, c.InvalidRequest)
    assert (found[3].status, len(stub.asked)) == (0, 3)
    assert [row["scheduleKey"] for each in stub.asked for row in each.body["schedules"]] == [
        "k0",
        "k1",
        "k2",
        "k4",
        "k5",
    ]


async def test_a_key_that_cannot_be_sent_fails_alone(client: AsyncClient, stub: Stub) -> None:
    stub.will(results)
    found = [each async for each in client.cancel_many([("shop", "a"), ("shop", "\ud800"), ("shop", "b")])]
    assert [each.error is None for each in found] == [True, False, True]


async def test_a_batch_of_items_that_cannot_be_sent_asks_for_nothing(client: AsyncClient, stub: Stub) -> None:
    found = [each async for each in client.create_many([_new(0, data=float("nan"))])]
    assert (len(found), stub.asked) == (1, [])


async def test_an_error_of_the_callers_own_iterable_stays_its_own(client: AsyncClient) -> None:
    def items() -> Iterator[c.NewSchedule]:
        yield _new(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _ = [each async for each in client.create_many(items())]


async def test_an_item_for_which_its_batch_is_refused_fails_alone(client: AsyncClient, stub: Stub) -> None:
    def refuses_two(asked: Asked) -> tuple[int, Any]:
        keys = {each["scheduleKey"] for each in asked.body["schedules"]}
        return (400, {"title": "no"}) if keys & {"k2", "k3"} else results(asked)

    stub.will(refuses_two)
    found = [each async for each in client.create_many(map(_new, range(8)))]
    assert [each.index for each in found] == list(range(8))
    assert [each.index for each in found if isinstance(each.error, c.InvalidRequest)] == [2, 3]


async def test_what_is_refused_for_the_caller_is_not_halved(client: AsyncClient, stub: Stub) -> None:
    stub.will((403, {}))
    with pytest.raises(c.Forbidden):
        _ = [each async for each in client.create_many(map(_new, range(8)))]
    assert len(stub.asked) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.create("c", "k", at=5, topic="t", data=float("nan")),
        lambda client: client.create("c", "k", at=5, topic="t", data=Unsendable()),
        lambda client: client.reschedule("c", "k", data="\ud800"),
        lambda client: client.get("c", "\ud800"),
    ],
)
async def test_an_argument_that_no_request_can_carry_is_a_value_error_before_anything_is_sent(
    client: AsyncClient, stub: Stub, call: Callable[[AsyncClient], Awaitable[Any]]
) -> None:
    with pytest.raises(ValueError, match=r"."):
        await call(client)
    assert stub.asked == []


async def test_an_argument_that_no_method_has_is_refused(client: AsyncClient, stub: Stub) -> None:
    untyped: Any = client
    for call in (
        untyped.create("c", "k", at=5, topic="t", data=1, topics="t"),
        untyped.reschedule("c", "k", topics="t"),
        anext(untyped.list("c", topics="t")),
    ):
        with pytest.raises(TypeError, match="topics"):
            await call
    assert stub.asked == []


async def test_a_wait_that_is_asked_for_beyond_all_measure_ends_the_call(client: AsyncClient, stub: Stub) -> None:
    stub.will(Raw(status=503, body=b"", headers={"Retry-After": "9" * 400}))
    with pytest.raises(c.Unavailable):
        await client.get("shop", "k")
    assert len(stub.asked) == 1


async def test_many_tasks_may_share_one_client(client: AsyncClient, stub: Stub) -> None:
    found = await asyncio.gather(*(client.get("shop", f"k{i}") for i in range(50)))
    assert len(found) == len(stub.asked) == 50


WRONG_URLS = [
    *("127.0.0.1:8080", "ftp://x", "", "http://", "http://h:99999", "http://[::1", "http://a b", "http://h\udcff"),
    *("http://127.0.0.1:8080?x=1", "http://h/p?x", "http://h#a", "http://u:p@h", "http://u@h"),
]


@pytest.mark.parametrize("url", WRONG_URLS)
def test_an_address_that_is_none_is_refused_by_name(url: str) -> None:
    with pytest.raises(ValueError, match=r"^url: "):
        AsyncClient(url)
    with pytest.raises(ValueError, match=r"^url: "):
        c.Client(url)


async def test_a_client_that_is_not_open_says_so() -> None:
    with pytest.raises(RuntimeError, match="not open"):
        await AsyncClient("http://127.0.0.1:9").get("a", "b")


def test_a_batch_is_waited_for_longer_than_the_service_works_on_it() -> None:
    # A client that gives up first would send the same batch again to a service that is still busy with it.
    service = IntakeSettings()
    for items in (0, 1, 1_000):
        assert c.Retries().answer_ms(items) > service.request_timeout_ms + batch.ITEM_MS * items
