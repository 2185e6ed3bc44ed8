"""Take-over: the steps by which an incarnation becomes the owner of shards, grouped by their owners.

The order of the steps is the proof (docs/design.md, 5; docs/protocol.md names a story for each):

    T0   heartbeat        a node with an outdated assignment does not fence a healthy one again and again
    T1   read             shard items, and the items of their owners. Released: T3. A living owner may still release: wait
    T2a  fence            from here on the owner's frontier stands and its recheck fails. Before T2b (x-fence-late)
    T2b  settle           fences the owner's producers and settles their transactions (x-no-init)
    T2c  read markers     only now no other marker can be committed (x-mark-first)
    T2d  clean up         the markers' rows of these shards. Before T3: the taker's own markers do not name them
                          (x-tidy-after)
    T3   own              epoch + 1 if unchanged, for all shards in one transaction, which checks the taker's own item
                          (x-sweep)

T1 is read before T0 too, to see whether there is anything to take; only what is read after T0 is acted on. A released
shard goes straight to T3; a living owner is waited for at most the drain time-out and a second.

Every step may be repeated, by several takers at once, and a taker may die anywhere: the next one begins at T1.

A group of shards is taken by a task of its own, so an owner whose ids cannot be settled holds up no other owner's shards.
Shards without a row to clean up are taken first. A shard that cannot be cleaned up (a marker or a row of a newer format) is
left to a node that can read it.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Final

from clockwork.concurrency import Backoff, gather_bounded
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.ownership import IncarnationId, NodeState, ProcessId, ShardClaim, ShardState, process_of
from clockwork.domain.position import Position
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.sharding import ShardId
from clockwork.errors import (
    ClockworkError,
    Fenced,
    NewerFormat,
    ShardsContested,
    StoreUnavailable,
    TransactionConflict,
    Unreadable,
)
from clockwork.firing.cleanup import Completed, finish_rows
from clockwork.firing.context import FiringContext
from clockwork.firing.incarnation import RunningIncarnation
from clockwork.firing.job_chains import JobChains
from clockwork.firing.lease import ShardLease
from clockwork.ports.delivery import SlotName
from clockwork.ports.store import CLAIMS_MAX
from clockwork.ports.telemetry import HandOver

log = logging.getLogger(__name__)

POLL_S: Final = 0.05
"""Between two looks at shards that a living owner is expected to release: two small reads for all of them. A wake-up of the
release makes the next look at once."""
RELEASE_MARGIN_MS: Final = 1_000
"""Time beyond the drain time-out after which a living owner is fenced."""
TRIES_TOGETHER: Final = 3
"""Tries to take shards in one transaction; then halves of them are tried apart."""
OWNERS_AT_ONCE: Final = 32
"""Owners whose items are read side by side, each by itself: one that cannot be read holds up no other's shards."""
SHARDS_AT_ONCE: Final = 8
"""Shards of one owner that are cleaned up side by side."""
BACKOFF: Final = BackoffPolicy(initial_ms=50, max_ms=2_000)
"""The maximum is low: after an outage one small read a second for each group is little to the store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Group:
    """Shards with one owner, as T1 read them."""

    owner: NodeState | None
    """None: they are released."""
    shards: Mapping[ShardId, ShardState]


class Takeover:
    """Makes one incarnation the owner of the shards that are assigned to its process."""

    def __init__(
        self,
        context: FiringContext,
        own: RunningIncarnation,
        chains: JobChains,
        *,
        missing: Callable[[], frozenset[ShardId]],
        new_lease: Callable[[ShardId, ShardState], ShardLease],
        on_taken: Callable[[Sequence[ShardLease]], None],
    ) -> None:
        """`missing`: the shards that are assigned and not owned, nor being released. `on_taken` gets leases at once when
        they are owned, wanted or not."""
        self._context = context
        self._store = context.store
        self._publisher = context.publisher
        self._own = own
        self._chains = chains
        self._missing = missing
        self._new_lease = new_lease
        self._on_taken = on_taken
        self._taking: dict[ShardId, _Group] = {}
        """The shards that are being taken, each with the group that is taking it."""
        self._awaited_since_s: dict[IncarnationId, float] = {}
        self._look_wanted = asyncio.Event()
        self._backoff = Backoff(context.rng, BACKOFF)

    @property
    def taking(self) -> frozenset[ShardId]:
        """The shards of the groups that are being taken."""
        return frozenset(self._taking)

    def look_now(self) -> None:
        """Makes the next look at the shards happen now: the assignment has changed, or an owner has released a
        shard."""
        self._look_wanted.set()

    async def run(self) -> None:
        """Takes the missing shards over, until cancelled. Raises: Fenced (this incarnation is over)."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._look_wanted.clear()
                wait_s = await self._round(group)
                try:
                    async with asyncio.timeout(wait_s):
                        await self._look_wanted.wait()
                except TimeoutError:
                    pass

    async def _round(self, group: asyncio.TaskGroup) -> float | None:
        """One look at the missing shards. Returns how long to wait for the next; None: until `look_now`."""
        missing = self._missing() - self._taking.keys()
        if not missing:
            self._awaited_since_s.clear()
            return None
        try:
            ready, waiting = await self._look(missing)
            self._forget_waits(ready + waiting)
            if ready:
                # T0, then all of T1 again: what is acted on was read after the group had confirmed the assignment.
                confirmed = await self._context.ownership.confirmed_assignment()
                ready, waiting = await self._look(missing & frozenset(confirmed))
        except Unreadable as error:
            self._log_failure("Take-over failed", "shard.takeover_failed", error)
            return self._backoff.next_wait_s()
        except ClockworkError as error:
            if isinstance(error, Fenced):
                raise
            self._log_failure("Take-over failed", "shard.takeover_failed", error)
            return self._backoff.next_wait_s()
        for each in ready:
            self._taking |= dict.fromkeys(each.shards, each)
            group.create_task(self._take_group(each), name=f"take-over from {each.owner and each.owner.incarnation}")
        if waiting:
            return POLL_S
        # Nothing to act on although shards are missing: the assignment is outdated, or items cannot be read.
        return None if ready else self._backoff.next_wait_s()

    async def _look(self, shards: frozenset[ShardId]) -> tuple[list[_Group], list[_Group]]:
        """T1, and the decision to wait. Returns the groups to take now, and those that their owners may still release."""
        if not shards:
            return [], []
        states = await self._store.read_shards(sorted(shards))
        by_owner: dict[IncarnationId | None, dict[ShardId, ShardState]] = defaultdict(dict)
        for shard, state in states.items():
            by_owner[state.owner].setdefault(shard, state)
        owners = [owner for owner in by_owner if owner is not None]
        nodes = dict(zip(owners, await gather_bounded(self._read_owner, owners, at_once=OWNERS_AT_ONCE), strict=True))
        groups: list[_Group] = []
        for owner, its_shards in by_owner.items():
            node = nodes[owner] if owner is not None else None
            if owner is not None and node is None:
                continue  # left for a later look
            groups.append(_Group(owner=node, shards=its_shards))
        # Asked once for all owners, and not at all if no other process may be about to release.
        others = any(self._of_another_process(each) for each in groups)
        living = await self._context.ownership.member_processes() if others else frozenset()
        ready = [each for each in groups if not self._may_release(each, living)]
        return ready, [each for each in groups if each not in ready]

    async def _read_owner(self, owner: IncarnationId) -> NodeState | None:
        """The item of an owner; None if it cannot be had now. Then its shards wait, and no other owner's do."""
        try:
            node = (await self._store.read_nodes([owner])).get(owner)
            if node is None:
                # Never taken for "not fenced, frontier 0": its rows may be on their way (x-absent-zero).
                raise Unreadable(f"the owner {owner} of shards has no item")
        except (Unreadable, StoreUnavailable) as error:
            self._log_failure("Take-over failed", "shard.takeover_failed", error)
            return None
        return node

    def _forget_waits(self, groups: Iterable[_Group]) -> None:
        """An owner that owns no missing shard any more has released them in time; its next hand-over has the whole time."""
        owners = {group.owner.incarnation for group in groups if group.owner is not None}
        self._awaited_since_s = {owner: s for owner, s in self._awaited_since_s.items() if owner in owners}

    def _of_another_process(self, group: _Group) -> bool:
        """True if the owner is not fenced, and of another process. An owner of this process is an earlier incarnation;
        or it is this one, if a defect lost the lease of a shard: its memory of the shard is lost, too, so it is fenced
        as any other."""
        owner = group.owner
        return (
            owner is not None and owner.fenced_at_ms is None and process_of(owner.incarnation) != self._context.process
        )

    def _may_release(self, group: _Group, living: Set[ProcessId]) -> bool:
        """True while the owner lives and is given time to release: a planned hand-over fences nothing."""
        owner = group.owner
        if owner is None or not self._of_another_process(group):
            return False
        if process_of(owner.incarnation) not in living:
            self._awaited_since_s.pop(owner.incarnation, None)
            return False
        now_s = asyncio.get_running_loop().time()
        since_s = self._awaited_since_s.setdefault(owner.incarnation, now_s)
        if now_s - since_s < (self._context.drain_timeout_ms + RELEASE_MARGIN_MS) / 1_000:
            return True
        log.warning(
            "Owner did not release its shards",
            extra={"event": "shard.not_released", "incarnation": owner.incarnation, "shards": len(group.shards)},
        )
        return False

    async def _take_group(self, group: _Group) -> None:
        """Takes the shards of a group that can be taken; the others are read again after a back-off. Raises: Fenced."""
        started_s = asyncio.get_running_loop().time()
        try:
            if group.owner is None:
                await self._own_shards(group, self._claims(group.shards, frontier_ms=0), "released", started_s)
            else:
                await self._take_from(group, group.owner.incarnation, started_s)
            self._backoff.reset()
        except Fenced:
            raise
        except Exception as error:
            # Any error: shards must not stay without an owner for good.
            if not isinstance(error, ClockworkError):
                log.exception("Take-over failed by a defect", extra={"event": "shard.takeover_defect"})
            self._log_failure("Take-over failed", "shard.takeover_failed", error)
            await self._backoff.wait()
        finally:
            self._release_claims(group, group.shards)
            self._look_wanted.set()

    def _release_claims(self, group: _Group, shards: Iterable[ShardId]) -> None:
        """The group is done with these shards; another may be taking one of them by now."""
        for shard in shards:
            if self._taking.get(shard) is group:
                del self._taking[shard]

    async def _take_from(self, group: _Group, owner: IncarnationId, started_s: float) -> None:
        """T2a to T3 for shards of one owner. A shard that cannot be cleaned up fails alone: the others are taken first.

        Raises: Fenced, Unavailable, Unreadable.
        """
        shards = group.shards
        node = await self._store.fence(owner, at_ms=self._context.clock.now_ms())  # T2a
        self._context.telemetry.owner_fenced()
        entries: Iterable[MarkerEntry] = ()
        if node.slots:
            await self._publisher.settle(owner, slots=node.slots)  # T2b
            hints = {SlotName(owner, slot): node.hints.get(slot) for slot in range(node.slots)}
            try:
                markers = await self._publisher.read_markers(self._own.id, hints)  # T2c
            except Unreadable as error:
                self._context.telemetry.malformed("newer_marker" if isinstance(error, NewerFormat) else "marker")
                raise
            entries = (entry for marker in markers.values() for entry in marker)
        untidied: dict[ShardId, dict[Position, MarkerEntry]] = defaultdict(dict)
        for entry in entries:
            if entry.shard in shards:
                untidied[entry.shard][entry.position] = entry
        claims = {claim.shard: claim for claim in self._claims(shards, frontier_ms=node.frontier_ms)}
        clean = [claim for shard, claim in claims.items() if shard not in untidied]
        await self._own_shards(group, clean, "fenced", started_s)
        failures: list[Exception] = []

        async def tidy(shard: ShardId) -> ShardClaim | None:
            try:
                await self._clean_up(shard, list(untidied[shard].values()))  # T2d
            except Exception as error:
                # Any error: one shard whose rows are throttled, or cannot be ended, must not keep all others of its owner
                # without one. A row of a newer format: an older node must not judge it, nor own a shard with it.
                failures.append(error)
                if isinstance(error, NewerFormat):
                    self._context.telemetry.malformed("newer_row")
                return None
            return claims[shard]

        tidied = [claim for claim in await gather_bounded(tidy, untidied, at_once=SHARDS_AT_ONCE) if claim is not None]
        await self._own_shards(group, tidied, "fenced", started_s)
        if failures:
            raise failures[0]

    async def _clean_up(self, shard: ShardId, entries: Sequence[MarkerEntry]) -> None:
        """T2d: outcome, what follows, and delete of each row that the dead owner's markers name and that still exists.

        Raises: NewerFormat, Unavailable, Contested.
        """
        rows = await self._store.read_rows(shard, [entry.position for entry in entries])
        ended = [Completed(row=rows[e.position], entry=e, slot=None) for e in entries if e.position in rows]
        await finish_rows(self._store, self._chains, shard, ended, retention_ms=self._context.settings.retention_ms)

    def _claims(self, shards: Mapping[ShardId, ShardState], *, frontier_ms: int) -> list[ShardClaim]:
        return [
            ShardClaim(shard=shard, epoch=state.epoch, floor_ms=max(state.floor_ms, frontier_ms))
            for shard, state in shards.items()
        ]

    async def _own_shards(
        self, group: _Group, claims: Sequence[ShardClaim], hand_over: HandOver, started_s: float
    ) -> None:
        """T3, for as many shards as are still as they were read. Raises: Fenced."""
        chunks = [claims[begin : begin + CLAIMS_MAX] for begin in range(0, len(claims), CLAIMS_MAX)]
        own_some = partial(self._own_some, group, hand_over, started_s)
        await gather_bounded(own_some, chunks, at_once=max(1, len(chunks)))

    async def _own_some(
        self, group: _Group, hand_over: HandOver, started_s: float, claims: Sequence[ShardClaim]
    ) -> None:
        """One transaction, repeated until its answer is known, also when the shards are not wanted any more: a late one
        would make this incarnation an owner that does not know it. Its shards are worked from then on, whatever others
        still wait for."""
        backoff = Backoff(self._context.rng, BACKOFF)
        while claims:
            try:
                await self._store.take_shards(claims, taker=self._own.id)
            except ShardsContested as contested:
                claims = [claim for claim in claims if claim.shard not in contested.shards]
            except (TransactionConflict, StoreUnavailable) as error:
                self._log_failure("Take-over waits for its answer", "shard.takeover_waits", error)
                if len(claims) > 1 and backoff.failures_in_row >= TRIES_TOGETHER:
                    # One throttled or busy item must not keep the others (docs/design.md, 3: sharing a call).
                    halves = (claims[: len(claims) // 2], claims[len(claims) // 2 :])
                    await gather_bounded(partial(self._own_some, group, hand_over, started_s), halves, at_once=2)
                    return
                await backoff.wait()
            else:
                break
        leases = [
            self._new_lease(claim.shard, ShardState(epoch=claim.epoch + 1, owner=self._own.id, floor_ms=claim.floor_ms))
            for claim in claims
        ]
        for lease in leases:
            log.debug("Shard taken", extra={"event": "shard.taken", "shard": lease.shard, "epoch": lease.epoch})
        if leases:
            seconds = asyncio.get_running_loop().time() - started_s
            self._context.telemetry.taken_over(hand_over, seconds=seconds, shards=len(leases))
            self._release_claims(group, [lease.shard for lease in leases])
            self._on_taken(leases)

    def _log_failure(self, message: str, event: str, error: BaseException) -> None:
        """Logs at most one line a minute for each event and kind of error."""
        extra = {"event": event, "error": str(error), "once_per": f"{event} {type(error).__name__}"}
        log.warning(message, extra=extra)
