"""Connections to PostgreSQL, and calls over them: time limits, repeats, errors.

A statement is a transaction (`finish` is run many times in one), and a call one round trip, so a node that is paused holds
no lock. Each connection has a worker task that takes one call after another from a queue.

**No statement is ever cancelled.** A caller whose time is over, or who is cancelled, leaves; its statement goes on, and its
worker waits for the answer and is busy until then. asyncpg's own way, a CancelRequest, is not safe: a session that waits for
a synchronous standby answers it with success and a warning, and shows all readers a commit that a failover takes back. To
drop the connection instead would be safe, and would leave a session behind at the server for each caller that gave up, until
the server takes no more. So a process has few more sessions than workers (`ABANDON_S`). A connection whose other end is gone
is found by TCP: by its keepalive, and where something sent is not acknowledged, by its user time-out.

If an operator cancels a wait for a standby, the server answers success, after a warning: then the write is unknown, whatever
it answers. Other sessions see that commit, and after a restart each commit that waited for a standby. Therefore each new
connection first makes a commit of its own (`_BARRIER`): once that is acknowledged, so is everything before it; and after a
warning all connections are made anew.

Repeats: reads, and writes that are recognised when they arrive twice, are repeated here a few times if the connection is
lost. `hold` is not (`once=True`).
"""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import asyncpg
from asyncpg import Connection, Record

from clockwork.clock import Clock
from clockwork.errors import ClockworkError, StoreUnavailable
from clockwork.ports.read_units import current_meter
from clockwork.ports.telemetry import StoreResult, Telemetry
from clockwork.settings.model import POSTGRES_TLS_CA, POSTGRES_TLS_CERT, POSTGRES_TLS_KEY, PostgresSettings
from clockwork.stores.calls import Rejected, backoff_s, result_of
from clockwork.stores.postgres.errors import (
    CALL_ERRORS,
    error_of_call,
    error_of_connecting,
    is_read_only,
    wrote_nothing,
)
from clockwork.tls import CertFiles, client_context

ABANDON_S: Final = 300.0
"""A statement that has no answer after this time is given up, with its connection; its session may stay at the server.
The likely cause is a standby that is away: then the next connection waits for the standby, too, before it is used."""
KEEPALIVE_S: Final = 10
"""Silence after which TCP asks whether the other end is there, and `KEEPALIVE_PROBES` times more, at a third of this."""
KEEPALIVE_PROBES: Final = 3
UNACKNOWLEDGED_MS: Final = 20_000
"""Time for which the other end may leave something that was sent unacknowledged. Without this limit TCP repeats it for
some 15 minutes, and sends no keepalive meanwhile."""
STATEMENTS_MAX: Final = 200
"""Prepared statements of one connection: more than there are."""
WARNING_CODE: Final = "01000"
"""The class of the warning of a wait for a standby that was cancelled, and of all warnings that have none of their own."""
STANDBY_SOURCE: Final = "syncrep.c"
"""The file of PostgreSQL's source that the warning comes from: unlike its text, in no language. Others of its class say
nothing of the write: that transaction ids run out, for one, which is said of every write for weeks."""

if TYPE_CHECKING:
    Session = Connection[Record]
else:
    Session = Connection  # asyncpg's classes are generic in its stubs only

_BARRIER: Final = (
    "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', "
    "CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_logical_emit_message(true, 'clockwork', '')::text END"
)
"""Asks if the server takes writes, and commits a few bytes to its log; the commit waits for the standby. (One that has an id
and has written nothing does not wait.)"""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallLimits:
    """The limits of calls through one client."""

    connect_timeout_s: float = 2.0
    answer_timeout_s: float = 3.0
    """From the call to its answer, the wait for a connection included."""
    statement_timeout_ms: int = 2_000
    """The server's own limit, below the caller's, so that its answer says that nothing was written."""
    lock_timeout_ms: int = 1_000
    attempts_max: int = 3
    """Copies of one statement that are sent, the first one included."""


class TimedAnswer(NamedTuple):
    """The rows of a statement, and when it was sent and answered, by this node's clock."""

    rows: list[Record]
    sent_ms: int
    received_ms: int


@dataclass(slots=True, eq=False)
class _Call:
    sql: str
    args: Sequence[Any]
    """The arguments of the statement; if it is run several times, one sequence of arguments for each run."""
    many: bool
    answer: "asyncio.Future[TimedAnswer]"
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a call that had to wait has a worker."""
    sent: bool = False

    def result(self, answer: TimedAnswer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def abandon(self) -> None:
        """Ends the caller's wait. A call that was not sent yet is never sent; an error that comes from now on is
        dropped."""
        if not self.answer.cancel() and not self.answer.cancelled():
            self.answer.exception()


class _CopyFailed(Exception):
    """One copy of a statement failed."""

    def __init__(self, error: ClockworkError, *, answer_lost: bool, again: bool) -> None:
        """`answer_lost`: this copy or an earlier one was sent and not answered. `again`: another may be sent."""
        super().__init__(str(error))
        self.error = error
        self.answer_lost = answer_lost
        self.again = again


class TlsFiles(NamedTuple):
    """The TLS context of the connections, and the certificate in it, which may be renewed."""

    context: SSLContext
    own: CertFiles | None


def tls_of(settings: PostgresSettings) -> TlsFiles | None:
    """The TLS files that the settings name; None if TLS is as the URL or libpq's variables say. Raises: CannotStart."""
    if settings.tls_ca is None:
        return None
    own = None
    if settings.tls_cert is not None and settings.tls_key is not None:
        own = CertFiles(
            cert=settings.tls_cert,
            key=settings.tls_key,
            cert_setting=POSTGRES_TLS_CERT,
            key_setting=POSTGRES_TLS_KEY,
        )
    context = client_context(ca=settings.tls_ca, ca_setting=POSTGRES_TLS_CA, own=own, check_hostname=True)
    return TlsFiles(context, own)


def session_settings(limits: CallLimits) -> dict[str, str]:
    """The settings of a session for requests. Every statement has its index: statistics that are out of date must not choose
    another way, and a plan made while a table was empty is kept when it is full."""
    return {
        "application_name": "clockwork",
        # A role or a database may have another level: a wait for a standby that was cancelled would look like a commit.
        "client_min_messages": "warning",
        "default_transaction_isolation": "read committed",
        "statement_timeout": str(limits.statement_timeout_ms),
        "lock_timeout": str(limits.lock_timeout_ms),
        "idle_in_transaction_session_timeout": "5000",
        "enable_seqscan": "off",
        "enable_bitmapscan": "off",
        "plan_cache_mode": "force_generic_plan",
        "jit": "off",
    }


@asynccontextmanager
async def transaction(connection: Session, session: dict[str, str]) -> AsyncIterator[None]:
    """A transaction with these settings, since a pooler in transaction mode does not pass on a session's. After an error its
    owner drops the connection. asyncpg's own would ask a dropped one for a rollback, and hide a cancellation."""
    settings = "; ".join(
        f"SET LOCAL {name} = '{value}'" for name, value in session.items() if name != "application_name"
    )
    await connection.execute(f"BEGIN; {settings}")
    yield
    await connection.execute("COMMIT")


async def connect(
    settings: PostgresSettings, tls: TlsFiles | None, *, timeout_s: float, session: dict[str, str]
) -> Session:
    """Opens a connection to the first of the servers that takes one. Each has `timeout_s` for it: one that is frozen, or cut
    off, must not stand before the others. Raises: StoreUnavailable and below."""
    *others, last = _each_server(settings.url.get_secret_value() if settings.url is not None else None)
    for url in others:
        try:
            return await _connect_to(url, settings, tls, timeout_s=timeout_s, session=session)
        except Rejected:
            raise  # every server refuses: they have the same users and databases
        except StoreUnavailable:
            pass
    return await _connect_to(last, settings, tls, timeout_s=timeout_s, session=session)


async def _connect_to(
    url: str | None, settings: PostgresSettings, tls: TlsFiles | None, *, timeout_s: float, session: dict[str, str]
) -> Session:
    try:
        connection: Session = await asyncpg.connect(
            dsn=url,
            user=settings.user,
            password=settings.password.get_secret_value() if settings.password is not None else None,
            ssl=tls.context if tls is not None else None,
            timeout=timeout_s,
            connection_class=_Connection,
            statement_cache_size=STATEMENTS_MAX,
            max_cached_statement_lifetime=0,
            server_settings=session,
        )
    except (*CALL_ERRORS, ValueError) as error:
        raise error_of_connecting(error) from error
    _keep_alive(connection)
    return connection


def _each_server(url: str | None) -> Sequence[str | None]:
    """The URL once for each server that it names."""
    if url is None:
        return [None]
    scheme, mark, rest = url.partition("://")
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    user, at, servers = authority.rpartition("@")
    return [f"{scheme}{mark}{user}{at}{server}{rest[len(authority) :]}" for server in servers.split(",")]


class _Connection(Session):
    """A connection that is dropped where asyncpg would cancel its statement at the server."""

    __slots__ = ()

    def _cancel_current_command(self, *_waiters: object) -> None:
        # asyncpg calls this only when a worker is cancelled while it waits, as at the end of an event loop that cancels
        # all its tasks. The connection is dropped in the next turn, because asyncpg is in the middle of a change of its
        # state.
        asyncio.get_running_loop().call_soon(self.terminate)


def _keep_alive(connection: Session) -> None:
    # asyncpg has no public way to its socket, and no setting for this.
    found: socket.socket | None = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):  # Linux; elsewhere the system's own times
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, KEEPALIVE_S // 3))
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)


class PostgresClient:
    """Calls statements over a few connections, which are made when they are needed. `async with` opens and closes it."""

    def __init__(
        self,
        settings: PostgresSettings,
        clock: Clock,
        telemetry: Telemetry,
        *,
        tls: TlsFiles | None,
        limits: CallLimits | None = None,
        connections: int | None = None,
    ) -> None:
        """`connections`: their greatest number; None: as the settings say."""
        self.settings = settings
        self.limits = limits or CallLimits()
        self.clock = clock
        self._tls = tls
        self._telemetry = telemetry
        count = connections if connections is not None else settings.pool
        self._workers = [_Worker(self) for _ in range(count)]
        self._idle: list[_Worker] = []
        """Idle workers. The one that became idle last gets the next call, so that no more connections are made and kept
        in use than are needed."""
        self._waiting: dict[_Call, None] = {}
        """Calls that wait for a worker, in their order."""
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            group = await stack.enter_async_context(asyncio.TaskGroup())
            for number, worker in enumerate(self._workers):
                task = group.create_task(worker.run(), name=f"postgres-{number}")
                stack.callback(task.cancel)
                # Connections are dropped before the workers are cancelled: a statement that loses its connection ends,
                # while one that is cancelled would be cancelled at the server.
                stack.callback(worker.drop)
            self._opened = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()

    def connections(self) -> tuple[int, int]:
        """The number of open connections, and how many of them carry a statement."""
        return sum(worker.is_open for worker in self._workers), sum(worker.is_busy for worker in self._workers)

    async def read(self, operation: str, sql: str, *args: Any) -> list[Record]:
        """Runs a statement that changes nothing. `operation` names it in the metrics. Raises: StoreUnavailable and below."""
        rows = (await self.call(operation, sql, args, write=False)).rows
        meter = current_meter()
        if meter is not None:
            meter.charge_rows(len(rows))
        return rows

    async def write(self, operation: str, sql: str, *args: Any, once: bool = False) -> list[Record]:
        """Runs a statement that writes. `once`: never sends a second copy.

        Raises: Refused, TransactionConflict (nothing was written), StoreUnavailable and below.
        """
        return (await self.call(operation, sql, args, write=True, once=once)).rows

    async def write_many(self, operation: str, sql: str, args: Sequence[Sequence[Any]]) -> list[Record]:
        """Runs a statement for each of these arguments, all in one transaction and one round trip."""
        return (await self.call(operation, sql, args, write=True, many=True)).rows

    async def call(
        self, operation: str, sql: str, args: Sequence[Any], *, write: bool, once: bool = False, many: bool = False
    ) -> TimedAnswer:
        """Runs a statement; see `read` and `write`."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        result: StoreResult = "cancelled"
        try:
            answer = await self._call(
                sql, args, write=write, many=many, attempts_max=1 if once else self.limits.attempts_max
            )
            result = "ok"
        except ClockworkError as error:
            result = result_of(error)
            raise
        finally:
            seconds = loop.time() - started_s
            self._telemetry.store_call(store="postgresql", operation=operation, result=result, seconds=seconds)
        return answer

    async def _call(self, sql: str, args: Sequence[Any], *, write: bool, many: bool, attempts_max: int) -> TimedAnswer:
        answer_lost = False
        for attempt in range(1, attempts_max):
            try:
                return await self._send_copy(sql, args, write=write, many=many, answer_lost=answer_lost)
            except _CopyFailed as failed:
                if not failed.again:
                    raise failed.error from failed.__cause__
                answer_lost = failed.answer_lost
            await asyncio.sleep(backoff_s(attempt))
        try:
            return await self._send_copy(sql, args, write=write, many=many, answer_lost=answer_lost)
        except _CopyFailed as failed:
            raise failed.error from failed.__cause__

    async def _send_copy(
        self, sql: str, args: Sequence[Any], *, write: bool, many: bool, answer_lost: bool
    ) -> TimedAnswer:
        """Sends one copy of a statement. `answer_lost`: an earlier one was sent and not answered.

        Raises: _CopyFailed (holds any error, Refused too), StoreUnavailable (its time is over).
        """
        call = _Call(sql, args, many, asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(self.limits.answer_timeout_s):
                await self._dispatch(call)
                return await call.answer
        except TimeoutError as error:
            text = "no answer from PostgreSQL in time" if call.sent else "no connection to PostgreSQL was free in time"
            raise StoreUnavailable(text, outcome_unknown=write and (answer_lost or call.sent)) from error
        except StoreUnavailable as error:
            # No connection was made.
            error.outcome_unknown = write and answer_lost
            raise _CopyFailed(
                error, answer_lost=answer_lost, again=not isinstance(error, Rejected)
            ) from error.__cause__
        except CALL_ERRORS as error:
            lost = not wrote_nothing(error)
            failure = error_of_call(error, write=write, answer_lost=answer_lost)
            raise _CopyFailed(failure, answer_lost=answer_lost or lost, again=lost) from error
        finally:
            call.abandon()

    async def _dispatch(self, call: _Call) -> None:
        """Gives the call to a worker; returns once a worker has taken it."""
        if self._idle:
            self._idle.pop().next.set_result(call)
            return
        loop = asyncio.get_running_loop()
        called_s = loop.time()
        self._waiting[call] = None
        try:
            await call.taken.wait()
        finally:
            # The call of a caller that was cancelled is never sent.
            self._waiting.pop(call, None)
            self._telemetry.store_pool_wait(loop.time() - called_s)

    async def next_call(self, worker: "_Worker") -> _Call:
        """The next call for this worker."""
        if self._waiting:
            call = next(iter(self._waiting))
            del self._waiting[call]
            call.taken.set()
            return call
        worker.next = asyncio.get_running_loop().create_future()
        self._idle.append(worker)
        return await worker.next

    async def connect(self) -> Session:
        """Raises: StoreUnavailable and below."""
        limits = self.limits
        return await connect(
            self.settings, self._tls, timeout_s=limits.connect_timeout_s, session=session_settings(limits)
        )

    def renew_connections(self) -> None:
        """Makes all connections anew before they are used again."""
        for worker in self._workers:
            worker.renew = True


class _Worker:
    """One connection, and the calls that it carries, one after another."""

    def __init__(self, client: PostgresClient) -> None:
        self._client = client
        self._connection: Session | None = None
        self._warnings: list[str] = []
        self.next: asyncio.Future[_Call]
        """Set while the worker is idle."""
        self.renew = False
        self.is_busy = False

    @property
    def is_open(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    async def run(self) -> None:
        """Serves calls until cancelled."""
        while True:
            call = await self._client.next_call(self)
            self.is_busy = True
            try:
                call.result(await self._serve(call))
            except StoreUnavailable as error:
                call.fail(error)
            except Exception as error:
                if not wrote_nothing(error) or is_read_only(error):
                    self.drop()
                call.fail(error)
            finally:
                self.is_busy = False

    def drop(self) -> None:
        """Closes the connection at once, also in the middle of a statement. The next call opens a new one."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _serve(self, call: _Call) -> TimedAnswer:
        """Raises: StoreUnavailable (it was not sent), and the errors of asyncpg."""
        connection = await self._connected()
        if call.answer.done():
            raise StoreUnavailable  # the caller was cancelled or has run out of time
        call.sent = True
        sent_ms = self._client.clock.now_ms()
        if call.many:
            rows = await self._rows_of(connection, connection.fetchmany(call.sql, call.args))
        else:
            rows = await self._rows_of(connection, connection.fetch(call.sql, *call.args))
        return TimedAnswer(rows, sent_ms, self._client.clock.now_ms())

    async def _connected(self) -> Session:
        """Returns the connection, or a new one once its barrier is committed. Raises: StoreUnavailable."""
        if self._connection is not None and not self.renew and not self._connection.is_closed():
            return self._connection
        self.drop()
        self.renew = False
        connection = self._connection = await self._client.connect()
        connection.add_log_listener(self._listen)
        try:
            ((standby, read_only, _),) = await self._rows_of(connection, connection.fetch(_BARRIER))
            if standby:
                raise StoreUnavailable("the PostgreSQL server is a standby: what it says may be out of date")
            if read_only:
                raise StoreUnavailable("the PostgreSQL server takes no writes: default_transaction_read_only is on")
        except BaseException as error:
            self.drop()
            if isinstance(error, CALL_ERRORS):
                raise error_of_connecting(error) from error
            raise
        return connection

    async def _rows_of(self, connection: Session, fetch: Awaitable[list[Record]]) -> list[Record]:
        """Runs a statement and returns its rows. Raises: OSError if the wait for a standby was cancelled, so that the
        commit may be known to this server alone."""
        self._warnings.clear()
        watch = asyncio.get_running_loop().call_later(ABANDON_S, connection.terminate)
        try:
            rows = await fetch
        finally:
            watch.cancel()
        if self._warnings:
            self._client.renew_connections()
            raise OSError(f"the wait for a standby was cancelled: {self._warnings[0]}")
        return rows

    def _listen(self, _connection: object, message: Any) -> None:
        # asyncpg calls this before it hands out the statement's answer: both are scheduled for a turn of the event
        # loop, in this order.
        source = getattr(message, "server_source_filename", None)
        if message.sqlstate == WARNING_CODE and (source is None or str(source).endswith(STANDBY_SOURCE)):
            self._warnings.append(str(message.message))
