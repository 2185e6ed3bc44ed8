"""Calls to DynamoDB: repeats, time limits, errors, and the clock's comparison.

Who repeats what: reads, and writes that are recognised when they come twice, are repeated here a few times after a lost
answer, an answer 5xx, or throttling. `hold` is not (`once=True`).
"""

import asyncio
import email.utils
import json
import random
from contextlib import AsyncExitStack
from typing import Any, Final, Protocol, Self

import orjson
from botocore.exceptions import BotoCoreError

from clockwork.clock import Clock
from clockwork.errors import ClockworkError, ConditionFailed, StoreThrottled, StoreUnavailable, TransactionConflict
from clockwork.ports.telemetry import Telemetry
from clockwork.stores.dynamodb.errors import (
    IN_PROGRESS_CODE,
    SILENCE,
    THROTTLING_CODES,
    Rejected,
    code_of,
    error_for_no_response,
    of_answer,
    was_not_sent,
)
from clockwork.stores.dynamodb.wire import DynamoClientSettings, DynamoWire, MalformedResponse, Wire, WireAnswer

READS: Final = frozenset({"get_item", "query", "scan", "batch_get_item", "describe_table", "describe_time_to_live"})
"""Operations that change nothing."""
REPEAT_WAIT_S: Final = 0.05
"""Before the first repeat, at most; doubled each time, and jittered, so that nodes do not repeat in step."""
REPEAT_WAIT_S_MAX: Final = 1.0


class Observe(Protocol):
    """`ClockGuard.observe`."""

    def __call__(self, *, sent_ms: int, received_ms: int, date_ms: int) -> None: ...


class DynamoClient:
    """Calls DynamoDB by operation name (`get_item`, …), with and in DynamoDB's own JSON: bytes are base64 text.

    `async with` opens and closes it.
    """

    def __init__(self, settings: DynamoClientSettings, clock: Clock, observe: Observe, telemetry: Telemetry) -> None:
        self.settings = settings
        self._clock = clock
        self._observe = observe
        self._telemetry = telemetry
        self._opened = AsyncExitStack()
        self.wire: Wire
        self._date_text = ""
        self._date_ms = 0

    async def __aenter__(self) -> Self:
        self.wire = await self._opened.enter_async_context(DynamoWire(self.settings, self._clock))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()

    async def call(self, operation: str, *, once: bool = False, **parameters: Any) -> dict[str, Any]:
        """Does one operation and returns DynamoDB's answer. `once`: never sends a second copy.

        Raises: Refused, TransactionConflict, StoreUnavailable, StoreThrottled, Rejected.
        """
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        result = "cancelled"
        try:
            answer = await self._answered(operation, orjson.dumps(parameters), once=once)
            result = "ok"
        except ClockworkError as error:
            result = _label_of(error)
            raise
        finally:
            self._telemetry.dynamodb(operation=operation, result=result, seconds=loop.time() - started_s)
        return answer

    async def _answered(self, operation: str, body: bytes, *, once: bool) -> dict[str, Any]:
        name = operation.title().replace("_", "")
        write = operation not in READS
        attempts_max = 1 if once else self.settings.attempts_max
        answer_lost = False
        attempt = 0
        while True:
            attempt += 1
            sent_ms = self._clock.now_ms()
            cause: BaseException | None = None
            try:
                came = await self.wire.send(name, body)
                answer = _parsed(came)
            except SILENCE as error:
                cause = error
                answer_lost = answer_lost or not was_not_sent(error)
                failure = error_for_no_response(error, unknown=write and answer_lost)
                again = not isinstance(error, BotoCoreError)
            else:
                if attempt == 1:
                    # Of a repeated one the answer may have waited for anything.
                    self._compare_clock(came, sent_ms)
                if came.status < 300:
                    return answer
                answer_lost = answer_lost or came.status >= 500
                failure = of_answer(came.status, answer, write=write, answer_lost=answer_lost)
                again = came.status >= 500 or code_of(answer) in THROTTLING_CODES | {IN_PROGRESS_CODE}
            if not again or attempt == attempts_max:
                raise failure from cause
            await asyncio.sleep(backoff_s(attempt))

    def _compare_clock(self, answer: WireAnswer, sent_ms: int) -> None:
        if answer.date is None:
            return
        if answer.date != self._date_text:
            try:
                self._date_ms = int(email.utils.parsedate_to_datetime(answer.date).timestamp() * 1_000)
            except ValueError:
                # Something between us and DynamoDB wrote this header. The clock is then not compared, and an
                # uncompared clock is not trusted for long: the guard says so.
                return
            self._date_text = answer.date
        self._observe(sent_ms=sent_ms, received_ms=self._clock.now_ms(), date_ms=self._date_ms)


def _parsed(answer: WireAnswer) -> dict[str, Any]:
    """Raises: Garbled."""
    try:
        parsed = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        try:
            # Half a surrogate pair is legal JSON to others: one such row must not hide a whole page.
            parsed = json.loads(answer.body)
        except ValueError as error:
            if answer.status >= 300:
                return {}  # an error page of something in between
            raise MalformedResponse("not JSON") from error
    if not isinstance(parsed, dict):
        raise MalformedResponse("not an object")
    return parsed


def _label_of(error: ClockworkError) -> str:
    """From a small closed set, for the metric."""
    match error:
        case ConditionFailed():
            return "condition_failed"
        case TransactionConflict():
            return "conflict"
        case StoreThrottled():
            return "throttled"
        case Rejected():
            return "rejected"
        case StoreUnavailable():
            return "unavailable"
        case _:
            return "error"


def backoff_s(attempt: int) -> float:
    """How long to wait after this attempt (the first is 1), jittered."""
    longest: float = min(REPEAT_WAIT_S * 2 ** (attempt - 1), REPEAT_WAIT_S_MAX)
    return longest * random.uniform(0.5, 1)
