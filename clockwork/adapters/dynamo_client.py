"""One connection pool to DynamoDB: settings, repeats, time limits, errors, and the clock's comparison.

Who repeats what: reads, and writes that are recognised when they come twice, are repeated here a few times after a lost
answer, an answer 5xx, or throttling. `hold` is not (`once=True`). The repeat itself is done by the library, which signs
anew and counts; only the decision is ours, because the library's own would wait up to a second before its first repeat,
and would not tell afterwards whether an answer had been lost.
"""

import asyncio
import email.utils
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import ClientError

from clockwork.adapters.dynamo_errors import (
    IN_PROGRESS_CODE,
    LIBRARY_ERRORS,
    THROTTLING_CODES,
    Rejected,
    code_of,
    never_sent,
    translate,
)
from clockwork.adapters.dynamo_parser import AttributesAsTheyAre
from clockwork.clock import Clock
from clockwork.errors import (
    ClockworkError,
    ConditionFailed,
    StoreThrottled,
    StoreUnavailable,
    TransactionConflict,
)
from clockwork.ports import Telemetry

READS: Final = frozenset({"get_item", "query", "scan", "batch_get_item", "describe_table", "describe_time_to_live"})
"""Operations that change nothing."""
REPEAT_WAIT_S: Final = 0.05
"""Before the first repeat, at most; doubled each time, and jittered, so that nodes do not repeat in step."""
REPEAT_WAIT_S_MAX: Final = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DynamoClientSettings:
    """Where DynamoDB is, and how long to wait for it."""

    region: str
    endpoint: str | None = None
    """None: AWS."""
    access_key: str | None = None
    """None: the usual AWS credential chain."""
    secret_key: str | None = field(default=None, repr=False)
    schedules_table: str = "schedules"
    executions_table: str = "partitionExecutions"
    keys_table: str = "scheduleKeys"
    connect_timeout_s: float = 1.0
    read_timeout_s: float = 2.5
    """DynamoDB answers in milliseconds; a lost packet must not cost more than this."""
    attempts_max: int = 3
    """Copies of one request that are sent, the first one included."""
    connections_max: int = 96
    """Requests at a time; more wait for a connection."""


class Observe(Protocol):
    """`ClockGuard.observe`."""

    def __call__(self, *, sent_ms: int, received_ms: int, date_ms: int) -> None: ...


@dataclass(kw_only=True, slots=True)
class _Attempts:
    """What became of the copies of one request."""

    attempts_max: int
    answer_lost: bool = False
    """A copy was sent and its answer did not come, or was 5xx."""


_attempts: ContextVar[_Attempts] = ContextVar("_attempts")
"""Of the call that the library's event handlers run in."""


class DynamoClient:
    """Calls DynamoDB by operation name (`get_item`, …), with and in the library's plain dictionaries.

    `async with` opens and closes it.
    """

    def __init__(self, settings: DynamoClientSettings, clock: Clock, observe: Observe, telemetry: Telemetry) -> None:
        self.settings = settings
        self._clock = clock
        self._observe = observe
        self._telemetry = telemetry
        self._opened = AsyncExitStack()
        self._library: Any = None
        self._date_text = ""
        self._date_ms = 0

    async def __aenter__(self) -> Self:
        settings = self.settings
        config = AioConfig(
            connect_timeout=settings.connect_timeout_s,
            read_timeout=settings.read_timeout_s,
            max_pool_connections=settings.connections_max,
            # The library's own decision is switched off: `_repeat_after` decides (see the module's docstring).
            retries={"mode": "standard", "total_max_attempts": 1},
            parameter_validation=False,
            tcp_keepalive=True,
            user_agent_extra="clockwork",
        )
        session = get_session()
        session.register_component("response_parser_factory", AttributesAsTheyAre())
        self._library = await self._opened.enter_async_context(
            session.create_client(
                "dynamodb",
                region_name=settings.region,
                endpoint_url=settings.endpoint,
                aws_access_key_id=settings.access_key,
                aws_secret_access_key=settings.secret_key,
                config=config,
            )
        )
        self._library.meta.events.register("needs-retry.dynamodb", _repeat_after)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()

    @property
    def library(self) -> Any:
        """The client library's own client, for what must be injected into it."""
        return self._library

    async def call(self, operation: str, *, once: bool = False, **parameters: Any) -> dict[str, Any]:
        """Does one operation and returns the library's answer. `once`: never sends a second copy.

        Raises: Refused, TransactionConflict, StoreUnavailable, StoreThrottled, Rejected.
        """
        attempts = _Attempts(attempts_max=1 if once else self.settings.attempts_max)
        token = _attempts.set(attempts)
        sent_ms = self._clock.now_ms()
        try:
            async with self._measured(operation):
                try:
                    answer: dict[str, Any] = await getattr(self._library, operation)(**parameters)
                except LIBRARY_ERRORS as error:
                    if isinstance(error, ClientError):
                        self._compare_clock(dict(error.response), sent_ms)
                    write = operation not in READS
                    raise translate(error, write=write, answer_lost=attempts.answer_lost) from error
        finally:
            _attempts.reset(token)
        self._compare_clock(answer, sent_ms)
        return answer

    @asynccontextmanager
    async def _measured(self, operation: str) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        result = "cancelled"
        try:
            yield
            result = "ok"
        except ClockworkError as error:
            result = _label_of(error)
            raise
        finally:
            self._telemetry.dynamodb(operation=operation, result=result, seconds=loop.time() - started_s)

    def _compare_clock(self, answer: dict[str, Any], sent_ms: int) -> None:
        metadata = answer.get("ResponseMetadata", {})
        date_text = metadata.get("HTTPHeaders", {}).get("date")
        # Of a repeated request nobody knows when the copy was sent that was answered.
        if date_text is None or metadata.get("RetryAttempts", 0) > 0:
            return
        if date_text != self._date_text:
            try:
                self._date_ms = int(email.utils.parsedate_to_datetime(date_text).timestamp() * 1_000)
            except ValueError:
                # Something between us and DynamoDB wrote this header. The clock is then not compared, and an
                # uncompared clock is not trusted for long: the guard says so.
                return
            self._date_text = date_text
        self._observe(sent_ms=sent_ms, received_ms=self._clock.now_ms(), date_ms=self._date_ms)


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


def _repeat_after(
    *,
    attempts: int,
    response: tuple[Any, dict[str, Any]] | None,
    caught_exception: Exception | None,
    **_: object,
) -> float | None:
    """The library asks after each copy of a request whether, and after how many seconds, to send another."""
    ours = _attempts.get(None)
    if ours is None:
        return None
    repeatable = False
    if caught_exception is not None:
        ours.answer_lost = ours.answer_lost or not never_sent(caught_exception)
        repeatable = True
    elif response is not None and response[0].status_code >= 500:
        ours.answer_lost = repeatable = True
    elif response is not None and response[0].status_code >= 300:
        repeatable = code_of(response[1]) in THROTTLING_CODES | {IN_PROGRESS_CODE}
    if not repeatable or attempts >= ours.attempts_max:
        return None
    return backoff_s(attempts)


def backoff_s(attempt: int) -> float:
    """How long to wait after this attempt (the first is 1), jittered."""
    longest: float = min(REPEAT_WAIT_S * 2 ** (attempt - 1), REPEAT_WAIT_S_MAX)
    return longest * random.uniform(0.5, 1)
