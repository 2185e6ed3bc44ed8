"""Requests of single methods of `DynamoScheduleStore`, and the translation of DynamoDB's errors. No network."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from botocore.exceptions import BotoCoreError, NoCredentialsError
from pydantic import SecretStr

from clockwork.clock import SystemClock
from clockwork.domain.ownership import IncarnationId, NodeState, ShardClaim, ShardState
from clockwork.domain.schedule import EndState, RequestId, Retry
from clockwork.domain.sharding import ShardId
from clockwork.errors import ClockworkError, StoreThrottled, StoreUnavailable, TransactionConflict
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import DynamoSettings
from clockwork.stores.calls import backoff_s
from clockwork.stores.dynamodb import codec
from clockwork.stores.dynamodb.client import DynamoClient, Response
from clockwork.stores.dynamodb.errors import (
    Cancelled,
    MalformedResponse,
    Refused,
    Rejected,
    error_for_response,
    was_not_sent,
)
from clockwork.stores.dynamodb.store import DynamoScheduleStore
from clockwork.stores.dynamodb.transactions import create_token, token_of
from tests.support.builders import outcome, pointer, row

SHARD = ShardId(1)
ROW = row(shard=SHARD)
OLD = row(ROW.schedule, shard=SHARD)
MOVED = row(shard=SHARD)
RETRY = Retry(at_ms=1, epoch=2, attempts=3)
HOLD = RequestId("r")
OWNER = IncarnationId("a.1")
NODE = NodeState(incarnation=OWNER, frontier_ms=1, fenced_at_ms=None, slots=0, hints={}, node="host:1")


class RecordingClient:
    """Answers every operation with something that fits, and keeps what it was asked."""

    def __init__(self) -> None:
        self.settings = DynamoSettings(region="us-east-1")
        self.calls: list[tuple[str, bool, dict[str, Any]]] = []

    async def call(self, operation: str, *, once: bool = False, **parameters: Any) -> dict[str, Any]:
        self.calls.append((operation, once, parameters))
        node = codec.node_item(NODE)
        shard = codec.shard_item(SHARD, ShardState(epoch=1, owner=OWNER, floor_ms=1))
        of_shards = parameters.get("TableName") == self.settings.executions_table
        match operation:
            case "get_item":
                return {"Item": shard} if of_shards else {}
            case "update_item" if parameters.get("TableName") == self.settings.keys_table:
                return {"Attributes": {"discardedAt": {"N": "5"}}}
            case "update_item":
                return {"Attributes": node if of_shards else codec.row_item(ROW)}
            case "scan":
                return {"Items": [node]}
            case "transact_get_items":
                return {"Responses": [{}, {}, {}]}
            case "query":
                return {"Items": [codec.row_item(ROW)]}
            case "batch_get_item":
                return {
                    "Responses": {
                        self.settings.schedules_table: [codec.row_item(ROW)],
                        self.settings.executions_table: [shard, node],
                    }
                }
            case _:
                return {}


Call = Callable[[DynamoScheduleStore], Awaitable[object]]

READING: dict[str, Call] = {
    "read_pointer": lambda s: s.read_pointer(ROW.schedule.client_id, ROW.schedule.schedule_key),
    "read_outcome": lambda s: s.read_outcome(ROW.schedule.client_id, ROW.schedule.schedule_key, ROW.position),
    "read_command_note": lambda s: s.read_command_note(ROW.schedule.client_id, ROW.schedule.schedule_key),
    "read_row": lambda s: s.read_row(ROW.name),
    "read_shard": lambda s: s.read_shard(SHARD),
    "read_shards": lambda s: s.read_shards([SHARD]),
    "read_nodes": lambda s: s.read_nodes([OWNER]),
    "list_nodes": lambda s: s.list_nodes(),
    "read_shard_and_node": lambda s: s.read_shard_and_node(SHARD, OWNER),
    "read_page": lambda s: s.read_page(SHARD, after=None, rows_max=5),
    "read_rows": lambda s: s.read_rows(SHARD, [ROW.position]),
    "ping": lambda s: s.ping(),
}
UPDATING: dict[str, Call] = {
    "hold": lambda s: s.hold(ROW.name, HOLD),
    "drop_hold": lambda s: s.drop_hold(ROW.name),
    "set_retry": lambda s: s.set_retry(ROW.name, RETRY, drop_hold=False),
    "set_retry and drop": lambda s: s.set_retry(ROW.name, RETRY, drop_hold=True),
    "raise_frontier": lambda s: s.raise_frontier(OWNER, frontier_ms=5, hints={}),
    "raise_frontier with hints": lambda s: s.raise_frontier(OWNER, frontier_ms=5, hints={0: 7, 1: 8}),
    "raise_slots": lambda s: s.raise_slots(OWNER, slots=1),
    "fence": lambda s: s.fence(OWNER, at_ms=5),
    "release_shard": lambda s: s.release_shard(SHARD, epoch=1, owner=OWNER, floor_ms=5),
    "discard": lambda s: s.discard(pointer(ROW), at_ms=5),
    "push_pointer_expiry": lambda s: s.push_pointer_expiry(ROW.name, expires_at_s=5),
}
TRANSACTIONS: dict[str, Call] = {
    "create": lambda s: s.create(ROW, pointer(ROW), replaces=None),
    "take over": lambda s: s.create(ROW, pointer(ROW), replaces=pointer(OLD)),
    "cancel": lambda s: s.cancel(ROW.name, outcome(ROW, EndState.CANCELLED), hold=HOLD),
    "reschedule": lambda s: s.reschedule(
        ROW.name, outcome(ROW, EndState.SUPERSEDED), hold=HOLD, row=MOVED, pointer=pointer(MOVED), replaces=pointer(ROW)
    ),
    "put_unreadable_outcome": lambda s: s.put_unreadable_outcome(pointer(ROW), outcome(ROW, EndState.FAILED)),
    "take_shards": lambda s: s.take_shards([ShardClaim(shard=SHARD, epoch=1, floor_ms=5)], taker=OWNER),
}


async def _asked(call: Call) -> tuple[str, bool, dict[str, Any]]:
    client = RecordingClient()
    store = DynamoScheduleStore(client.settings, SystemClock(), lambda **_: None, NoTelemetry())
    vars(store.client)["call"] = vars(store.pinger)["call"] = client.call
    await call(store)
    (asked,) = client.calls
    return asked


@pytest.mark.parametrize("name", READING)
async def test_every_read_is_strongly_consistent(name: str) -> None:
    _, _, parameters = await _asked(READING[name])

    tables = parameters.get("RequestItems", {"": parameters})
    assert all(table["ConsistentRead"] is True for table in tables.values())


@pytest.mark.parametrize("name", UPDATING)
async def test_no_update_can_bring_an_item_into_being(name: str) -> None:
    operation, _, parameters = await _asked(UPDATING[name])

    assert operation == "update_item"
    condition = parameters["ConditionExpression"]
    # A comparison is false where there is no item, so it implies that there is one.
    assert "attribute_exists(partitionId)" in condition or " = :" in condition
    assert " OR " not in condition
    assert "not_exists" not in condition.replace("attribute_not_exists(#fenced)", "")


async def test_whatever_raises_something_of_an_incarnation_asks_whether_it_is_fenced() -> None:
    for name in ("raise_frontier", "raise_frontier with hints", "raise_slots"):
        condition = (await _asked(UPDATING[name]))[2]["ConditionExpression"]
        assert "attribute_not_exists(#fenced)" in condition


@pytest.mark.parametrize("name", [*READING, *UPDATING, *TRANSACTIONS])
async def test_only_a_hold_is_sent_once(name: str) -> None:
    _, once, _ = await _asked((READING | UPDATING | TRANSACTIONS)[name])

    assert once is (name == "hold")


@pytest.mark.parametrize("name", TRANSACTIONS)
async def test_every_write_of_a_transaction_has_a_condition_and_its_token_fits(name: str) -> None:
    operation, _, parameters = await _asked(TRANSACTIONS[name])

    assert operation == "transact_write_items"
    assert 1 <= len(parameters["ClientRequestToken"]) <= 36
    for action in parameters["TransactItems"]:
        (write,) = action.values()
        assert write["ConditionExpression"]


async def test_the_same_request_has_the_same_token_and_another_one_another() -> None:
    tokens = [(await _asked(call))[2]["ClientRequestToken"] for call in TRANSACTIONS.values()]

    assert tokens == [(await _asked(call))[2]["ClientRequestToken"] for call in TRANSACTIONS.values()]
    assert len(set(tokens)) == len(tokens)
    assert create_token(ROW, pointer(ROW), None) != create_token(MOVED, pointer(MOVED), None)
    assert token_of("a", "b/c") != token_of("a/b", "c")


# --- errors


def _refused_connection() -> aiohttp.ClientConnectorError:
    key = aiohttp.client_reqrep.ConnectionKey("h", 1, False, True, None, None, None)
    return aiohttp.ClientConnectorError(key, OSError(111, "refused"))


NOT_SENT: list[BaseException] = [
    _refused_connection(),
    aiohttp.ConnectionTimeoutError(),
    NoCredentialsError(),
    BotoCoreError(),
]
LOST: list[BaseException] = [
    aiohttp.SocketTimeoutError(),
    aiohttp.ClientOSError(104, "reset by peer"),
    aiohttp.ServerDisconnectedError(),
    aiohttp.ClientPayloadError(),
    MalformedResponse("not JSON"),
    TimeoutError(),
]


class OneAnswer:
    """A wire that always does the same."""

    def __init__(self, happens: BaseException | Response) -> None:
        self._happens = happens
        self.sent = 0

    async def send(self, _operation: str, _body: bytes) -> Response:
        self.sent += 1
        if isinstance(self._happens, BaseException):
            raise self._happens
        return self._happens


async def _failure(operation: str, happens: BaseException | Response) -> tuple[Exception, int]:
    """The error of a call, and the number of copies that were sent."""
    client = DynamoClient(DynamoSettings(region="us-east-1"), SystemClock(), lambda **_: None, NoTelemetry())
    client.transport = wire = OneAnswer(happens)
    with pytest.raises(ClockworkError) as caught:
        await client.call(operation)
    return caught.value, wire.sent


@pytest.mark.parametrize("error", NOT_SENT, ids=lambda e: type(e).__name__)
async def test_what_was_never_sent_was_not_written(error: BaseException) -> None:
    found, _ = await _failure("put_item", error)

    assert was_not_sent(error)
    assert isinstance(found, StoreUnavailable)
    assert not found.outcome_unknown


@pytest.mark.parametrize("error", LOST, ids=lambda e: type(e).__name__)
async def test_after_a_lost_answer_the_outcome_of_a_write_is_unknown(error: BaseException) -> None:
    of_write, copies = await _failure("put_item", error)
    of_read, _ = await _failure("get_item", error)

    assert copies == 3
    assert isinstance(of_write, StoreUnavailable)
    assert of_write.outcome_unknown
    assert isinstance(of_read, StoreUnavailable)
    assert not of_read.outcome_unknown


async def test_what_the_library_itself_refuses_is_not_tried_again() -> None:
    assert (await _failure("get_item", NoCredentialsError()))[1] == 1


async def test_an_answer_that_is_no_json_is_as_good_as_none() -> None:
    found, copies = await _failure("put_item", Response(200, None, b"<html>"))

    assert isinstance(found, StoreUnavailable)
    assert found.outcome_unknown
    assert copies == 3


async def test_half_a_surrogate_pair_in_one_row_does_not_hide_the_page() -> None:
    client = DynamoClient(DynamoSettings(region="us-east-1"), SystemClock(), lambda **_: None, NoTelemetry())
    client.transport = OneAnswer(Response(200, None, b'{"Items": [{"a": {"S": "\\ud800"}}, {"a": {"S": "b"}}]}'))

    assert (await client.call("query"))["Items"] == [{"a": {"S": "\ud800"}}, {"a": {"S": "b"}}]


@pytest.mark.parametrize(
    ("code", "status", "expected", "unknown", "copies"),
    [
        ("TransactionConflictException", 400, TransactionConflict, None, 1),
        ("ThrottlingException", 400, StoreThrottled, False, 3),
        ("InternalServerError", 500, StoreUnavailable, True, 3),
        ("ServiceUnavailable", 503, StoreUnavailable, True, 3),
        ("TransactionInProgressException", 400, StoreUnavailable, True, 3),
        ("ValidationException", 400, Rejected, False, 1),
        ("AccessDeniedException", 400, Rejected, False, 1),
        ("", 502, StoreUnavailable, True, 3),
    ],
)
async def test_answers_are_named_by_what_they_mean_for_a_write(
    code: str, status: int, expected: type[Exception], unknown: bool | None, copies: int
) -> None:
    body = json.dumps({"__type": f"some.where#{code}", "message": "m"}).encode() if code else b"<html>bad gateway"
    found, sent = await _failure("update_item", Response(status, None, body))

    assert type(found) is expected
    assert getattr(found, "outcome_unknown", None) is unknown
    assert sent == copies


def _refusal(code: str, **more: Any) -> ClockworkError:
    return error_for_response(400, {"__type": f"some.where#{code}", **more}, write=True, answer_lost=True)


def test_a_failed_condition_brings_the_item_that_stood_there() -> None:
    single = _refusal("ConditionalCheckFailedException", Item={"a": {"S": "b"}})
    reasons = [{"Code": "None"}, {"Code": "ConditionalCheckFailed", "Item": {"a": {"S": "b"}}}]
    several = _refusal("TransactionCanceledException", CancellationReasons=reasons)

    assert isinstance(single, Refused)
    assert single.items == ({"a": {"S": "b"}},)
    assert isinstance(several, Cancelled)
    whole = several.error()
    assert isinstance(whole, Refused)
    assert whole.items == (None, {"a": {"S": "b"}})


def test_settings_do_not_show_the_secret_key() -> None:
    settings = DynamoSettings(region="us-east-1", access_key="id", secret_key=SecretStr("hush"))

    assert "hush" not in repr(settings)


def test_waits_between_repeats_grow_and_are_bounded() -> None:
    waits = [max(backoff_s(attempt) for _ in range(50)) for attempt in range(1, 12)]

    assert waits[0] <= 0.05
    assert waits[3] > waits[0]
    assert max(waits) <= 1.0
