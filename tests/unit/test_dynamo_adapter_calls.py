"""What single methods of `DynamoScheduleStore` ask of DynamoDB, and what its errors are called here. No network."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import aiohttp
import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError

from clockwork.adapters import dynamo_codec as codec
from clockwork.adapters.dynamo_client import DynamoClientSettings, backoff_s
from clockwork.adapters.dynamo_errors import Refused, Rejected, never_sent, translate
from clockwork.adapters.dynamo_store import DynamoScheduleStore
from clockwork.adapters.dynamo_transactions import create_token, token_of
from clockwork.adapters.telemetry import NoTelemetry
from clockwork.clock import SystemClock
from clockwork.domain.ownership import ShardState
from clockwork.domain.schedule import EndState, RequestId, Retry
from clockwork.domain.sharding import ShardId
from clockwork.errors import StoreThrottled, StoreUnavailable, TransactionConflict
from tests.support.builders import outcome, pointer, row

SHARD = ShardId(1)
ROW = row(shard=SHARD)
MOVED = row(shard=SHARD)
RETRY = Retry(at_ms=1, epoch=2, attempts=3)
HOLD = RequestId("r")


class RecordingClient:
    """Answers every operation with something that fits, and keeps what it was asked."""

    def __init__(self) -> None:
        self.settings = DynamoClientSettings(region="us-east-1")
        self.calls: list[tuple[str, bool, dict[str, Any]]] = []

    async def call(self, operation: str, *, once: bool = False, **parameters: Any) -> dict[str, Any]:
        self.calls.append((operation, once, parameters))
        shard = codec.shard_item(SHARD, ShardState(epoch=1, owner="a", frontier_ms=1))
        of_shards = parameters.get("TableName") == self.settings.executions_table
        match operation:
            case "get_item":
                return {"Item": shard} if of_shards else {}
            case "update_item":
                return {"Attributes": shard if of_shards else codec.row_item(ROW)}
            case "query":
                return {"Items": [codec.row_item(ROW)]}
            case "batch_get_item":
                return {"Responses": {self.settings.schedules_table: [codec.row_item(ROW)]}}
            case _:
                return {}


Call = Callable[[DynamoScheduleStore], Awaitable[object]]

READING: dict[str, Call] = {
    "read_pointer": lambda s: s.read_pointer(ROW.schedule.client_id, ROW.schedule.schedule_key),
    "read_outcome": lambda s: s.read_outcome(ROW.schedule.client_id, ROW.schedule.schedule_key, ROW.position),
    "read_row": lambda s: s.read_row(SHARD, ROW.position),
    "read_shard": lambda s: s.read_shard(SHARD),
    "read_page": lambda s: s.read_page(SHARD, after=None, rows_max=5),
    "read_rows": lambda s: s.read_rows(SHARD, [ROW.position]),
    "ping": lambda s: s.ping(),
}
UPDATING: dict[str, Call] = {
    "hold": lambda s: s.hold(SHARD, ROW.position, HOLD),
    "drop_hold": lambda s: s.drop_hold(SHARD, ROW.position),
    "set_retry": lambda s: s.set_retry(SHARD, ROW.position, RETRY, drop_hold=False),
    "set_retry and drop": lambda s: s.set_retry(SHARD, ROW.position, RETRY, drop_hold=True),
    "raise_epoch": lambda s: s.raise_epoch(SHARD, expected=0, owner="a"),
    "raise_frontier": lambda s: s.raise_frontier(SHARD, epoch=1, frontier_ms=5),
    "push_pointer_expiry": lambda s: s.push_pointer_expiry(ROW, expires_at_s=5),
}
TRANSACTIONS: dict[str, Call] = {
    "create": lambda s: s.create(ROW, pointer(ROW), replaces_version=None),
    "take over": lambda s: s.create(ROW, pointer(ROW), replaces_version=4),
    "cancel": lambda s: s.cancel(SHARD, outcome(ROW, EndState.CANCELLED), hold=HOLD),
    "reschedule": lambda s: s.reschedule(
        SHARD, outcome(ROW, EndState.SUPERSEDED), hold=HOLD, row=MOVED, pointer=pointer(MOVED), replaces_version=1
    ),
}


async def _asked(call: Call) -> tuple[str, bool, dict[str, Any]]:
    client = RecordingClient()
    store = DynamoScheduleStore(client.settings, SystemClock(), lambda **_: None, NoTelemetry())
    store.client = store.pinger = cast(Any, client)
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
    assert "not_exists" not in condition


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


def _answer(code: str, status: int = 400, **more: Any) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}, **more}
    return ClientError(response, "UpdateItem")


def _refused_connection() -> aiohttp.ClientConnectorError:
    key = aiohttp.client_reqrep.ConnectionKey("h", 1, False, True, None, None, None)
    return aiohttp.ClientConnectorError(key, OSError(111, "refused"))


NOT_SENT: list[BaseException] = [
    EndpointConnectionError(endpoint_url="u", error=_refused_connection()),
    ConnectTimeoutError(endpoint_url="u"),
    _refused_connection(),
]
LOST: list[BaseException] = [
    ReadTimeoutError(endpoint_url="u"),
    # aiobotocore calls it this as well if the connection is reset while the answer is awaited.
    EndpointConnectionError(endpoint_url="u", error=aiohttp.ClientOSError(104, "reset by peer")),
    aiohttp.ClientPayloadError(),
    ResponseParserError("garbage"),
    TimeoutError(),
]


@pytest.mark.parametrize("error", NOT_SENT, ids=lambda e: type(e).__name__)
def test_without_a_connection_nothing_was_written(error: BaseException) -> None:
    found = translate(error, write=True, answer_lost=False)

    assert never_sent(error)
    assert isinstance(found, StoreUnavailable)
    assert not found.outcome_unknown


@pytest.mark.parametrize("error", [*LOST, *NOT_SENT], ids=lambda e: type(e).__name__)
def test_after_a_lost_answer_nobody_knows_whether_it_was_written(error: BaseException) -> None:
    of_write = translate(error, write=True, answer_lost=error in NOT_SENT)
    of_read = translate(error, write=False, answer_lost=True)

    assert isinstance(of_write, StoreUnavailable)
    assert of_write.outcome_unknown
    assert isinstance(of_read, StoreUnavailable)
    assert not of_read.outcome_unknown


@pytest.mark.parametrize("error", [NoCredentialsError(), BotoCoreError()], ids=lambda e: type(e).__name__)
def test_what_the_library_itself_refuses_was_not_written(error: BaseException) -> None:
    found = translate(error, write=True, answer_lost=False)

    assert isinstance(found, StoreUnavailable)
    assert not found.outcome_unknown


@pytest.mark.parametrize(
    ("error", "expected", "unknown"),
    [
        (_answer("TransactionConflictException"), TransactionConflict, None),
        (_answer("ThrottlingException"), StoreThrottled, False),
        (_answer("InternalServerError", 500), StoreUnavailable, True),
        (_answer("ServiceUnavailable", 503), StoreUnavailable, True),
        (_answer("TransactionInProgressException"), StoreUnavailable, True),
        (_answer("ValidationException"), Rejected, False),
        (_answer("AccessDeniedException"), Rejected, False),
    ],
)
def test_answers_are_named_by_what_they_mean_for_a_write(
    error: ClientError, expected: type[Exception], unknown: bool | None
) -> None:
    found = translate(error, write=True, answer_lost=False)

    assert type(found) is expected
    assert getattr(found, "outcome_unknown", None) is unknown


def test_a_failed_condition_brings_the_item_that_stood_there() -> None:
    single = translate(_answer("ConditionalCheckFailedException", Item={"a": {"S": "b"}}), write=True, answer_lost=True)
    reasons = [{"Code": "None"}, {"Code": "ConditionalCheckFailed", "Item": {"a": {"S": "b"}}}]
    several = translate(
        _answer("TransactionCanceledException", CancellationReasons=reasons), write=True, answer_lost=True
    )

    assert isinstance(single, Refused)
    assert single.items == ({"a": {"S": "b"}},)
    assert isinstance(several, Refused)
    assert several.items == (None, {"a": {"S": "b"}})


def test_settings_do_not_show_the_secret_key() -> None:
    settings = DynamoClientSettings(region="us-east-1", access_key="id", secret_key="hush")

    assert "hush" not in repr(settings)


def test_waits_between_repeats_grow_and_are_bounded() -> None:
    waits = [max(backoff_s(attempt) for _ in range(50)) for attempt in range(1, 12)]

    assert waits[0] <= 0.05
    assert waits[3] > waits[0]
    assert max(waits) <= 1.0
