"""How many schedules one client may have pending: a soft limit, and what it does not promise.

A true counter would cost a write at every create and every end, and be one hot item for each client. So nothing is kept:
what is pending is counted in the index of lists, when it is worth it (`domain.quota`), and each process of each node
adds what it has accepted itself since. A create waits for a count only where nothing is known of its client, or the limit
seems reached, for `WAIT_S_MAX` at most, and once: a count that does not end in that time holds up nobody else. All other
counts go on beside.

What is counted is what the index can tell: the schedules whose time is ahead. So

- a cancelled one counts until the time that it was for: its end does not touch the index;
- one that is due and still waits (its topic is away, or paused) does not count any more;
- one that is due soon is not added: within seconds it is over, maybe long before the next count.

Whether a create passes:

    what is known                            │ answer
    ─────────────────────────────────────────┼──────────────────────────────────────────────────────────────────────────
    nothing: not counted, or a count failed  │ passes
    there is room                            │ passes
    the last count said "full"               │ `TooManyPending` until the next one; while that goes on, `TooManyRequests`
    it only seems full, by what was added    │ waits for a count. Seems full still: `TooManyRequests`. None in time: passes

So nobody is refused for long because of an estimate, and what never comes back from a refusal (a command that becomes a dead
letter) is refused by a count alone. What may pass although the limit is reached is what several processes accept between
two of their counts (docs/access.md says how much), and what the index does not show yet. Where a count fails, creates
pass, and the log and a metric say so: this limit is there to stop a client that runs away, and must not stop others.

What makes nothing new (a repeat, a conflict) is answered as ever, at the limit too.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from clockwork.domain.quota import Quota
from clockwork.domain.rate import NS
from clockwork.domain.schedule import ClientId
from clockwork.errors import ClockworkError, CommandAlreadyProcessed, InvalidInput, TooManyPending, TooManyRequests
from clockwork.ports.telemetry import Telemetry
from clockwork.requests.rate_limits import Headers, joined
from clockwork.requests.results import Changed, Created

WAIT_S_MAX: Final = 1.0
"""For a count. A long one (of a million: some seconds) holds up no create for longer."""
SOON_MS: Final = 5_000
"""What is due within that time takes no place that another would miss."""
COUNTS_AT_ONCE: Final = 4
"""Of different clients; of one client there is never more than one."""
CLIENTS_MAX: Final = 10_000
"""That are remembered; whoever was not seen for longest is counted again."""

_Answer = TypeVar("_Answer")

log = logging.getLogger(__name__)


class Count(Protocol):
    """Counts what is pending of a client, but not further than `at_most`."""

    async def __call__(self, client_id: ClientId, *, at_most: int) -> int:
        """Raises: Unavailable."""
        ...


@dataclass(kw_only=True, slots=True)
class _Client:
    allowance: Quota
    counting: asyncio.Event | None = None
    """Set when the count that was asked for has ended; None: there is none."""
    late: bool = False
    """Somebody has waited for that count in vain, so nobody else does."""
    counts: int = 0
    """That have ended."""


@dataclass(kw_only=True, eq=False)
class PendingLimit:
    """Asked before something becomes pending. `run` does the counting."""

    pending_max: int = 0
    """0: no such limit."""
    count: Count | None = None
    """Needed if there is a limit."""
    telemetry: Telemetry | None = None
    monotonic_ns: Callable[[], int] = time.monotonic_ns
    _clients: dict[ClientId, _Client] = field(default_factory=dict)
    """The one that was asked for last comes last."""
    _to_count: asyncio.Queue[ClientId] = field(default_factory=asyncio.Queue)
    """Each at most once."""

    def __post_init__(self) -> None:
        if self.pending_max and self.count is None:
            raise ValueError("a limit of what is pending needs a count")

    async def run(self) -> None:
        """Counts whom it is told to, until cancelled."""
        if self.count is None:
            return
        async with asyncio.TaskGroup() as group:
            for number in range(COUNTS_AT_ONCE):
                group.create_task(self._count_on(self.count), name=f"pending-count-{number}")

    async def take(self, client_id: ClientId, *, ahead_ms: int, said: Headers | None = None) -> Headers:
        """Counts one more, which is due in `ahead_ms`; returns `said`, and what is left of this limit besides.

        Raises: TooManyPending (a count says so), TooManyRequests (it will soon be known), having counted nothing.
        """
        said = said or {}
        if not self.pending_max:
            return said
        client = self._client(client_id)
        counted_anew = await self._counted_anew(client_id, client)
        # Nothing is awaited from here on, so of a thousand that waited no more than what is left pass.
        if client.allowance.full or (client.allowance.seems_full and counted_anew):
            raise self._refusal(client_id, client, said)
        if ahead_ms > SOON_MS:
            client.allowance.add()
        return joined(said, self._headers(client.allowance.left))

    async def used(self, client_id: ClientId, work: Awaitable[_Answer], *, ahead_ms: int) -> _Answer:
        """Does what a place was taken for, and gives the place back if nothing has become pending by it."""
        # After an error that does not rule it out it may have become pending: the next count knows.
        became_pending = True
        try:
            answer = await work
            became_pending = isinstance(answer, Created | Changed)
            return answer
        except (InvalidInput, CommandAlreadyProcessed):
            became_pending = False
            raise
        finally:
            client = self._clients.get(client_id)
            if client is not None and ahead_ms > SOON_MS:
                client.allowance.ends(pending=became_pending)

    async def _counted_anew(self, client_id: ClientId, client: _Client) -> bool:
        """Has it counted where that is worth it, and waits where the answer hangs on it. False: no count has ended."""
        self._ask_for_count(client_id, client)
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
                    self._ask_for_count(client_id, client)
                if client.counting is not None:
                    await client.counting.wait()
        except TimeoutError:
            client.late = client.counting is not None
        return client.counts > before

    def _ask_for_count(self, client_id: ClientId, client: _Client) -> None:
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
                continue  # forgotten meanwhile; whoever asks for it again, asks for a count
            client.allowance.count_begins()
            try:
                counted = await count(client_id, at_most=self.pending_max)
            except ClockworkError as error:
                client.allowance.count_failed(self.monotonic_ns())
                extra = {"event": "pending.not_counted", "error": str(error), "once_per": type(error).__name__}
                log.warning("What a client has pending cannot be counted; its creates pass", extra=extra)
            else:
                client.allowance.count_ends(counted, self.monotonic_ns())
            if self.telemetry is not None:
                self.telemetry.pending_count("failed" if client.allowance.failing else "counted")
            client.counting.set()
            client.counting, client.late = None, False
            client.counts += 1

    def _refusal(self, client_id: ClientId, client: _Client, said: Headers) -> TooManyRequests:
        if not client.allowance.full or client.counting is not None:
            return TooManyRequests(
                f"Client {client_id} seems to have {self.pending_max} schedules or more whose time is ahead, which is its "
                "limit; they are being counted. Nothing was stored.",
                retry_after_s=1,
                headers=joined(said, self._headers(0, 1)),
            )
        wait_s = max(1, -(-client.allowance.quiet_ns(self.monotonic_ns()) // NS))
        return TooManyPending(
            f"Client {client_id} has {self.pending_max} schedules or more whose time is ahead, which is its limit; what was "
            "cancelled counts until the time that it was for. Nothing was stored.",
            retry_after_s=wait_s,
            headers=joined(said, self._headers(0, wait_s)),
        )

    def _headers(self, left: int | None, wait_s: int | None = None) -> Headers:
        """`pending` has no window: places come back as times come. `t` says when it is counted again."""
        policy = {"RateLimit-Policy": f'"pending";q={self.pending_max}'}
        if left is None:
            return policy
        return policy | {"RateLimit": f'"pending";r={left}' + (f";t={wait_s}" if wait_s is not None else "")}


NO_PENDING_LIMIT: Final = PendingLimit()
