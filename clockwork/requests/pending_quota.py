"""The number of schedules that one client may have pending: a soft limit, and what it does not promise.

A true counter would cost a write at every create and every end, and be one hot item for each client. So no counter is
stored: pending schedules are counted in the index of lists, when a count is worth its cost (`domain.quota`), and each
process of each node adds the creates that it has accepted itself since. A create waits for a count only where nothing is
known of its client, or the limit seems reached, for `WAIT_S_MAX` at most, and once: a count that does not end in that time
holds up no other create. All other counts run in the background.

The index shows the schedules whose time is ahead. So

- a cancelled one counts until its due time: its end does not touch the index;
- one that is due and still waits (its topic is away, or paused) does not count any more;
- one that is due soon is not added: within seconds it is over, maybe long before the next count.

The decision for a create:

    known state                              │ decision
    ─────────────────────────────────────────┼──────────────────────────────────────────────────────────────────────────
    nothing: not counted, or a count failed  │ allow
    room                                     │ allow
    the last count said "full"               │ `TooManyPending` until the next one; while that runs, `TooManyRequests`
    estimated full, by the creates added     │ wait for a recount; still full: `TooManyRequests`; recount times out: allow

So no client is refused for long because of an estimate, and a request that never comes back from a refusal (a command that
becomes a dead letter) is refused by a count alone. Creates may pass although the limit is reached: those that several
processes accept between two of their counts (docs/access.md says how many), and those that the index does not show yet.
Where a count fails, creates pass, and the log and a metric say so: this limit is there to stop a client that runs away, and
must not stop others.

A request that stores nothing new (a repeat, a conflict) is answered as ever, at the limit too.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

from clockwork.domain.quota import Quota
from clockwork.domain.rate import NS
from clockwork.domain.schedule import ClientId
from clockwork.errors import (
    ClockworkError,
    CommandAlreadyProcessed,
    InvalidInput,
    LimitState,
    TooManyPending,
    TooManyRequests,
)
from clockwork.ports.telemetry import Telemetry

WAIT_S_MAX: Final = 1.0
"""Longest wait of a create for a count. A long count (a million schedules: some seconds) holds up no create for longer."""
SOON_MS: Final = 5_000
"""A schedule that is due within this time is not counted: it is over before another one would miss its room."""
COUNTS_AT_ONCE: Final = 4
"""Counts of different clients at the same time; one client has never more than one."""
CLIENTS_MAX: Final = 10_000
"""Clients that are remembered; the one that was not seen for longest is forgotten, and counted again."""

log = logging.getLogger(__name__)


class Count(Protocol):
    """Counts the pending schedules of a client, but not further than `at_most`."""

    async def __call__(self, client_id: ClientId, *, at_most: int) -> int:
        """Raises: Unavailable."""
        ...


@dataclass(kw_only=True, slots=True)
class _Client:
    allowance: Quota
    counting: asyncio.Event | None = None
    """Set when the count under way has ended; None: there is none."""
    late: bool = False
    """A create has waited for that count in vain, so no other create waits for it."""
    counts: int = 0
    """Counts that have ended."""


@dataclass(slots=True)
class Room:
    """Room for one schedule, taken until the request has ended."""

    limits: tuple[LimitState, ...] = ()
    """The limit as it stands after that; empty without a limit."""
    used: bool = True
    """The schedule became pending. Also set after an error that leaves this open: the next count finds out."""


@dataclass(kw_only=True, eq=False)
class PendingLimit:
    """Decides before a schedule becomes pending. `run` does the counting."""

    pending_max: int = 0
    """0: no such limit."""
    count: Count | None = None
    """Required if there is a limit."""
    telemetry: Telemetry | None = None
    monotonic_ns: Callable[[], int] = time.monotonic_ns
    _clients: dict[ClientId, _Client] = field(default_factory=dict)
    """In the order of their latest creates."""
    _to_count: asyncio.Queue[ClientId] = field(default_factory=asyncio.Queue)
    """Each at most once."""

    def __post_init__(self) -> None:
        if self.pending_max and self.count is None:
            raise ValueError("a limit of pending schedules needs a count")

    async def run(self) -> None:
        """Counts the queued clients, until cancelled."""
        if self.count is None:
            return
        async with asyncio.TaskGroup() as group:
            for number in range(COUNTS_AT_ONCE):
                group.create_task(self._count_on(self.count), name=f"pending-count-{number}")

    @asynccontextmanager
    async def room(self, client_id: ClientId, *, ahead_ms: int) -> AsyncIterator[Room]:
        """Takes room for one more schedule, which is due in `ahead_ms`, and gives it back if it was not used.

        Raises: TooManyPending (a count says so), TooManyRequests (it will soon be known), having taken nothing.
        """
        if not self.pending_max:
            yield Room()
            return
        client = self._client(client_id)
        counted_anew = await self._counted_anew(client_id, client)
        # No await from here on, so of a thousand creates that waited no more pass than there is room for.
        if client.allowance.full or (client.allowance.seems_full and counted_anew):
            raise self._refusal(client_id, client)
        counts = ahead_ms > SOON_MS
        if counts:
            client.allowance.add()
        room = Room(limits=(self._state(client.allowance.left),))
        try:
            yield room
        except (InvalidInput, CommandAlreadyProcessed):
            room.used = False
            raise
        finally:
            present = self._clients.get(client_id)
            if present is not None and counts:
                present.allowance.ends(pending=room.used)

    async def _counted_anew(self, client_id: ClientId, client: _Client) -> bool:
        """Starts a count where it is worth its cost, and waits where the decision depends on it. False: no count ended."""
        self._start_count(client_id, client)
        allowance, before = client.allowance, client.counts
        if not allowance.in_doubt or client.late:
            return False
        pause_s = allowance.quiet_ns(self.monotonic_ns()) / NS
        if client.counting is None and (allowance.full or pause_s > WAIT_S_MAX):
            return False
        try:
            async with asyncio.timeout(WAIT_S_MAX):
                if client.counting is None:
                    await asyncio.sleep(pause_s)
                    self._start_count(client_id, client)
                if client.counting is not None:
                    await client.counting.wait()
        except TimeoutError:
            client.late = client.counting is not None
        return client.counts > before

    def _start_count(self, client_id: ClientId, client: _Client) -> None:
        if client.counting is None and client.allowance.wants_count(self.monotonic_ns()):
            client.counting = asyncio.Event()
            self._to_count.put_nowait(client_id)

    def _client(self, client_id: ClientId) -> _Client:
        client = self._clients.pop(client_id, None) or _Client(allowance=Quota(limit=self.pending_max))
        if len(self._clients) >= CLIENTS_MAX:
            longest_ago = next(iter(self._clients))
            del self._clients[longest_ago]
        self._clients[client_id] = client
        return client

    async def _count_on(self, count: Count) -> None:
        while True:
            client_id = await self._to_count.get()
            client = self._clients.get(client_id)
            if client is None or client.counting is None:
                continue  # forgotten meanwhile; its next create starts another count
            client.allowance.count_begins()
            try:
                counted = await count(client_id, at_most=self.pending_max)
            except ClockworkError as error:
                client.allowance.count_failed(self.monotonic_ns())
                extra = {"event": "pending.not_counted", "error": str(error), "once_per": type(error).__name__}
                log.warning("Pending schedules of a client could not be counted; its creates pass", extra=extra)
            else:
                client.allowance.count_ends(counted, self.monotonic_ns())
            if self.telemetry is not None:
                self.telemetry.pending_count("failed" if client.allowance.failing else "counted")
            client.counting.set()
            client.counting, client.late = None, False
            client.counts += 1

    def _refusal(self, client_id: ClientId, client: _Client) -> TooManyRequests:
        if not client.allowance.full or client.counting is not None:
            return TooManyRequests(
                f"Client {client_id} seems to have {self.pending_max} schedules or more whose time is ahead, which is its "
                "limit; they are being counted. Nothing was stored.",
                retry_after_s=1,
                limits=(self._state(0, 1),),
            )
        wait_s = max(1, -(-client.allowance.quiet_ns(self.monotonic_ns()) // NS))
        return TooManyPending(
            f"Client {client_id} has {self.pending_max} schedules or more whose time is ahead, which is its limit; "
            "cancelled ones count until their due time. Nothing was stored.",
            retry_after_s=wait_s,
            limits=(self._state(0, wait_s),),
        )

    def _state(self, left: int | None, wait_s: int | None = None) -> LimitState:
        """`pending` has no window: room comes back as due times pass. `reset_s` is the time until the next count."""
        return LimitState(name="pending", quota=self.pending_max, left=left, reset_s=wait_s)


NO_PENDING_LIMIT: Final = PendingLimit()
