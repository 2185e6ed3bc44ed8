"""DynamoDB as it is: requests that are late, lost or done without an answer; transactions that are applied item by item;
queries, and reads of several items, that look at each item at its own moment; a TTL that deletes what has expired when it
likes; a shard whose items alone are throttled.

Every read is strongly consistent, as the engine's all are. What a read that is not would answer, the tables know
(`Versioned.earlier`): for the mutation that makes them so.

The effect of a single request is `MemoryScheduleStore`, the contract as a program; here is when it happens, whether its
caller hears of it, and how often.
"""

import asyncio
import random
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from clockwork.domain.ownership import IncarnationId, NodeState, ShardState
from clockwork.domain.position import Position, text_of
from clockwork.domain.schedule import (
    BrokenRow,
    ClientId,
    Guarantee,
    Outcome,
    Pointer,
    RequestId,
    Row,
    RowName,
    ScheduleKey,
)
from clockwork.domain.sharding import ShardId
from clockwork.errors import ClockworkError, StoreThrottled, StoreUnavailable, TransactionConflict
from clockwork.ports.store import End, KeyName, OutcomeKey, Page, RowKey
from clockwork.stores.memory.store import ItemKey, MemoryScheduleStore, Write, outcome_key
from tests.simulation.clocks import TrueTime
from tests.simulation.faults import StoreFaults
from tests.simulation.host import Host
from tests.simulation.trace import Trace
from tests.simulation.virtual_loop import Reactor

READS: Final = frozenset(
    {
        "read_pointer",
        "read_outcome",
        "read_key_state",
        "read_command_note",
        "read_row",
        "read_shard",
        "read_shards",
        "read_nodes",
        "list_nodes",
        "read_shard_and_node",
        "read_page",
        "read_rows",
        "ping",
        "read_job",
        "read_job_committed",
        "read_jobs",
        "read_definition",
        "read_versions",
        "read_run_delivery",
        "read_completion",
        "read_log",
        "read_run_request",
        "read_job_note",
        "list_jobs",
        "count_jobs",
        "scan_jobs",
        "read_calendar",
        "list_calendars",
        "list_jobs_of_calendar",
    }
)
SENT_ONCE: Final = frozenset({"hold"})
"""The library must not repeat it."""
COPIES_MAX: Final = 3
REPEAT_WAIT_S: Final = 0.03
LATE_S_MEANS: Final = (0.02, 0.2, 1.5)
"""Mean times for which a request that was given up, or sent twice, may still be under way."""
FRONTIER_AHEAD_MS_MAX: Final = 6_000 + 1_000
"""A frontier farther ahead of the store's own time was written by a clock that must not be trusted (`ENFORCED_SKEW_MS`, and
the lead)."""

TTL_EVERY_S: Final = 0.7
"""Between two looks of the TTL."""

_T = TypeVar("_T")
_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    value: Any = None
    error: ClockworkError | None = None
    date_ms: int | None = None


@dataclass(kw_only=True, slots=True)
class _Request:
    host: Host
    operation: str
    effect: Callable[[], Any]
    answered: "asyncio.Future[_Answer]"
    shard: ShardId | None = None
    """The shard of its rows, if they are of one."""


class Rows(dict[RowKey, Row | BrokenRow]):
    """The rows that are there; and every one that ever was."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.ever: dict[RowKey, Row] = {}
        self._trace = trace

    def __setitem__(self, place: RowKey, row: Row | BrokenRow) -> None:
        assert isinstance(row, Row)
        if place not in self:
            if place in self.ever:
                self._trace.violation("revived", f"row {name_of(row)} is back")
            self.ever[place] = row
        super().__setitem__(place, row)


class Versioned(dict[_K, _V]):
    """A table that knows what its items were before."""

    def __init__(self, reactor: Reactor) -> None:
        super().__init__()
        self._reactor = reactor
        self._versions: dict[_K, list[tuple[float, _V | None]]] = {}

    def __setitem__(self, key: _K, value: _V) -> None:
        self._versions.setdefault(key, []).append((self._reactor.now_s, value))
        super().__setitem__(key, value)

    def setdefault(self, key: _K, value: _V) -> _V:
        if key not in self:
            self[key] = value
        return self[key]

    def pop(self, key: _K, *default: Any) -> Any:
        if key in self:
            self._versions[key].append((self._reactor.now_s, None))
        return super().pop(key, *default)

    def earlier(self, key: _K, age_s: float) -> _V | None:
        """As it was so long ago."""
        at_s = self._reactor.now_s - age_s
        versions = self._versions.get(key, [])
        return next((value for since_s, value in reversed(versions) if since_s <= at_s), None)


class Outcomes(Versioned[OutcomeKey, Outcome]):
    """Once written, an outcome is final."""

    def __init__(self, reactor: Reactor, trace: Trace) -> None:
        super().__init__(reactor)
        self.ever: dict[OutcomeKey, Outcome] = {}
        self._trace = trace

    def __setitem__(self, place: OutcomeKey, outcome: Outcome) -> None:
        there = self.get(place)
        if there is not None and there != outcome:
            self._trace.violation(
                "outcome_changed", f"{place[1]}: {there.state} {there.receipt}, then {outcome.state} {outcome.receipt}"
            )
        self.ever[place] = outcome
        super().__setitem__(place, outcome)


class ShardStates(Versioned[ShardId, ShardState]):
    """Epoch and floor never sink, and an epoch has one owner."""

    def __init__(self, reactor: Reactor, trace: Trace) -> None:
        super().__init__(reactor)
        self.owned: list[tuple[float, ShardId, IncarnationId]] = []
        """Every take-over."""
        self._trace = trace

    def __setitem__(self, shard: ShardId, state: ShardState) -> None:
        there = self.get(shard)
        if there is not None and (state.epoch < there.epoch or state.floor_ms < there.floor_ms):
            self._trace.violation("lowered", f"shard {shard}: {there} became {state}")
        if state.owner is not None:
            self.owned.append((self._reactor.now_s, shard, state.owner))
        self._trace.note("shard", shard, state.epoch, state.owner, state.floor_ms)
        super().__setitem__(shard, state)


class Nodes(Versioned[IncarnationId, NodeState]):
    """A frontier never sinks, nor is it written by a clock that is far ahead."""

    def __init__(self, reactor: Reactor, trace: Trace, time: TrueTime) -> None:
        super().__init__(reactor)
        self._trace = trace
        self._time = time

    def __setitem__(self, incarnation: IncarnationId, node: NodeState) -> None:
        there = self.get(incarnation)
        if there is not None and (node.frontier_ms < there.frontier_ms or node.slots < there.slots):
            self._trace.violation("lowered", f"{there} became {node}")
        if node.frontier_ms > self._time.now_ms() + FRONTIER_AHEAD_MS_MAX:
            self._trace.violation("frontier", f"{node} is far ahead")
        super().__setitem__(incarnation, node)


class StoreWorld:
    """The three tables, and the network to them."""

    def __init__(
        self,
        reactor: Reactor,
        time: TrueTime,
        trace: Trace,
        rng: random.Random,
        faults: StoreFaults,
        *,
        shards: int,
        page_rows: int,
    ) -> None:
        self.reactor = reactor
        self.trace = trace
        self.faults = faults
        self.rng = rng
        self.page_rows = page_rows
        """A page ends after so many rows, as DynamoDB's does at 1 MB; 0: where it was asked to."""
        self.forced: dict[str, list[float | None]] = {}
        """For scripts: how much later the next requests of a kind are carried out, without an answer; None: never."""
        self.down = 0
        """Faults that keep everybody from it at present."""
        self.slow = 0
        self.throttling = 0
        self.hot: dict[ShardId, int] = {}
        """Shards whose items are throttled, and how many faults want it so."""
        self.tables = MemoryScheduleStore(shards=0)
        self.rows = Rows(trace)
        self.pointers: Versioned[KeyName, Pointer] = Versioned(reactor)
        self.outcomes = Outcomes(reactor, trace)
        self.shard_states = ShardStates(reactor, trace)
        self.nodes = Nodes(reactor, trace, time)
        for number in range(shards):
            self.shard_states[ShardId(number)] = ShardState(epoch=0, owner=None, floor_ms=0)
        self._time = time
        self._applied_at_s = 0.0

    def now_ms(self) -> float:
        """The world's time."""
        return self._time.now_ms()

    # --- the network

    def send(self, request: _Request) -> None:
        """One copy of a request leaves its node."""
        host, faults, operation = request.host, self.faults, request.operation
        arrives_s = self._latency_s()
        if not host.reaches_store or self.down:
            self._time_out(request)
            return
        if forced := self.forced.get(operation):
            self._time_out(request)
            if (late_s := forced.pop(0)) is not None:
                self.reactor.after(late_s, self._carry_out, request, "late")
            return
        throttled = faults.throttled + 0.5 * bool(self.throttling) + 0.6 * (operation in faults.throttled_operations)
        throttled += 0.7 * bool(request.shard is not None and self.hot.get(request.shard))
        if self.rng.random() < throttled:
            self.reactor.after(2 * arrives_s, self._tell, request, _Answer(error=StoreThrottled()))
            return
        dice = self.rng.random()
        if (dice := dice - faults.request_lost) < 0:
            self._time_out(request)
        elif (dice := dice - faults.answer_lost) < 0:
            self.reactor.after(arrives_s, self._carry_out, request, "no answer")
            self._time_out(request)
        elif operation not in READS and dice < faults.late:
            self._time_out(request)
            self.reactor.after(faults.timeout_s + self._late_s(), self._carry_out, request, "late")
        else:
            self.reactor.after(arrives_s, self._arrive, request)
            if operation not in READS and operation not in SENT_ONCE and self.rng.random() < faults.duplicated:
                self.reactor.after(arrives_s + self._late_s(), self._carry_out, request, "again")

    def _arrive(self, request: _Request) -> None:
        value = self._carry_out(request, "")
        if isinstance(value, Walk):
            self._walk(request, value)
        else:
            self._answer(request, value)

    def _carry_out(self, request: _Request, how: str) -> "_Answer | Walk":
        """The effect, at one moment of the store."""
        self._applied_at_s = self.reactor.now_s
        try:
            value = request.effect()
        except ClockworkError as error:
            self.trace.note("store", request.host, request.operation, how, type(error).__name__)
            return _Answer(error=error, date_ms=self._time.date_ms())
        if isinstance(value, Walk):
            return value
        self.trace.note("store", request.host, request.operation, how)
        return _Answer(value=value, date_ms=self._time.date_ms())

    def _walk(self, request: _Request, walk: "Walk") -> None:
        error: ClockworkError | None = None
        try:
            while not walk.step():
                if self.rng.random() < self.faults.slow_query:
                    self.reactor.after(self.rng.expovariate(1 / 0.02), self._walk, request, walk)
                    return
        except ClockworkError as raised:
            error = raised
        self.trace.note("store", request.host, request.operation, walk)
        self._applied_at_s = self.reactor.now_s
        self._answer(request, _Answer(value=walk.result(), error=error, date_ms=self._time.date_ms()))

    def _answer(self, request: _Request, answer: _Answer) -> None:
        self.reactor.at(self._applied_at_s + self._latency_s(), self._tell, request, answer)

    def _tell(self, request: _Request, answer: _Answer) -> None:
        if not request.host.reaches_store and answer.date_ms is not None:
            self._time_out(request)
        elif not request.answered.done():
            request.answered.set_result(answer)

    def _time_out(self, request: _Request) -> None:
        unknown = request.operation not in READS
        answer = _Answer(error=StoreUnavailable("no answer in time", outcome_unknown=unknown))
        self.reactor.after(self.faults.timeout_s, self._tell, request, answer)

    def _latency_s(self) -> float:
        mean_s = self.faults.latency_s * (25 if self.slow else 1)
        return mean_s * (0.2 + self.rng.expovariate(1.25))

    def _late_s(self) -> float:
        return self.rng.expovariate(1 / self.rng.choice(LATE_S_MEANS))

    # --- TTL

    def start_ttl(self) -> None:
        """From time to time it deletes some of what has expired; the rest may stay for days."""
        self.reactor.after(self.rng.expovariate(1 / TTL_EVERY_S), self._expire)

    def _expire(self) -> None:
        self._expire_some(self.pointers)
        self._expire_some(self.outcomes)
        self.start_ttl()

    def _expire_some(self, table: Versioned[Any, Any]) -> None:
        now_s = self._time.now_ms() / 1_000
        for key in [key for key, item in table.items() if item.expires_at_s <= now_s]:
            if self.rng.random() < 0.5 and key not in self.tables.busy:
                self.trace.note("store: TTL", key)
                table.pop(key)

    # --- transactions

    def apply(self, writes: Mapping[ItemKey, Write], busy: set[ItemKey]) -> None:
        """A transaction was decided: its items change one by one, in any order, and are locked until then."""
        places = list(writes)
        self.rng.shuffle(places)
        gap_s = self.faults.slow_apply_s if self.rng.random() < self.faults.slow_apply else 0.0005
        at_s = self.reactor.now_s
        busy.update(places)
        for place in places:
            at_s += self.rng.expovariate(1 / gap_s)
            self.reactor.at(at_s, self._apply_one, place, writes[place], busy)
        self._applied_at_s = at_s

    def _apply_one(self, place: ItemKey, write: Write, busy: set[ItemKey]) -> None:
        self.trace.note("store applies", *place)
        write()
        busy.discard(place)

    def parts(self, items: Sequence[_T]) -> list[list[_T]]:
        """The parts that a batch is cut into: its items change at different moments, in any order."""
        if len(items) < 2 or self.rng.random() < 0.7:
            return [list(items)] if items else []
        mixed = list(items)
        self.rng.shuffle(mixed)
        cut = self.rng.randrange(1, len(mixed))
        return [mixed[:cut], mixed[cut:]]


class HostStore(MemoryScheduleStore):
    """The store's client on one node; what is stored is the world's."""

    stale_s: float = 0.0
    """By so much a read may be behind at most; 0, as every read is strongly consistent. A mutation sets it."""

    def __init__(self, world: StoreWorld, host: Host) -> None:
        tables = world.tables
        self.rows = world.rows
        self.outcomes = world.outcomes
        self.shard_states = world.shard_states
        self.nodes = world.nodes
        self.pointers = world.pointers
        self.notes = tables.notes
        self.busy = tables.busy
        self._order = tables._order
        self._broken_holds = tables._broken_holds
        self.world = world
        self._host = host

    async def _serve(self, operation: str, effect: Callable[[], _T], *, shard: ShardId | None = None) -> _T:
        host = self._host
        await host.step(operation, after=False)
        answer_lost = False
        copies_max = 1 if operation in SENT_ONCE else COPIES_MAX
        for copy in range(1, copies_max + 1):
            sent_ms = host.clock.now_ms()
            answered: asyncio.Future[_Answer] = host.loop.create_future()
            self.world.send(_Request(host=host, operation=operation, effect=effect, answered=answered, shard=shard))
            answer = await answered
            if answer.date_ms is not None and copy == 1:
                host.guard.observe(
                    sent_ms=sent_ms, received_ms=host.clock.now_ms(), server_ms=answer.date_ms, resolution_ms=1_000
                )
            error = answer.error
            if isinstance(error, StoreUnavailable) and copy < copies_max:
                answer_lost = answer_lost or error.outcome_unknown
                await asyncio.sleep(REPEAT_WAIT_S * copy * host.rng.uniform(0.5, 1))
                continue
            break
        await host.step(operation, after=True)
        if error is None:
            value: _T = answer.value
            return value
        raise self._translated(error, unknown=answer_lost and operation not in READS)

    def _translated(self, error: ClockworkError, *, unknown: bool) -> ClockworkError:
        """As the real adapter does: a refusal that answers a repeat does not take back that the first copy is out."""
        if isinstance(error, StoreThrottled):
            return StoreThrottled(outcome_unknown=unknown or error.outcome_unknown)
        if isinstance(error, TransactionConflict) and unknown:
            return StoreUnavailable("a conflict, maybe with our own first copy", outcome_unknown=True)
        if isinstance(error, StoreUnavailable):
            return StoreUnavailable(str(error), outcome_unknown=unknown or error.outcome_unknown)
        return error

    def _apply(self, writes: Mapping[ItemKey, Write]) -> None:
        self.world.apply(writes, self.busy)

    # --- reads

    def _get(self, table: Versioned[_K, _V], key: _K) -> _V | None:
        if self.stale_s:
            return table.earlier(key, self._host.rng.uniform(0, self.stale_s))
        return table.get(key)

    async def read_pointer(self, client_id: ClientId, schedule_key: ScheduleKey) -> Pointer | None:
        return await self._serve("read_pointer", lambda: self._get(self.world.pointers, (client_id, schedule_key)))

    async def read_outcome(self, client_id: ClientId, schedule_key: ScheduleKey, position: Position) -> Outcome | None:
        place = (client_id, schedule_key, position)
        return await self._serve("read_outcome", lambda: self._get(self.world.outcomes, place))

    async def read_shard(self, shard: ShardId) -> ShardState:
        return await self._serve("read_shard", lambda: self._state(shard))

    def _state(self, shard: ShardId) -> ShardState:
        state = self._get(self.world.shard_states, shard)
        return state if state is not None else super()._state(shard)

    async def read_shards(self, shards: Sequence[ShardId]) -> Mapping[ShardId, ShardState]:
        states = await self._read_each("read_shards", [partial(self._state, shard) for shard in shards])
        return dict(zip(shards, states, strict=True))

    async def read_nodes(self, incarnations: Sequence[IncarnationId]) -> Mapping[IncarnationId, NodeState]:
        reads = [partial(self._get, self.world.nodes, each) for each in incarnations]
        nodes = await self._read_each("read_nodes", reads)
        return {each: node for each, node in zip(incarnations, nodes, strict=True) if node is not None}

    async def read_shard_and_node(
        self, shard: ShardId, incarnation: IncarnationId | None
    ) -> tuple[ShardState, NodeState | None]:
        reads: list[Callable[[], Any]] = [lambda: self._state(shard)]
        if incarnation is not None:
            reads.append(lambda: self._get(self.world.nodes, incarnation))
        state, node = (*await self._read_each("read_shard_and_node", reads), None)[:2]
        return state, node

    async def _read_each(self, operation: str, reads: Sequence[Callable[[], Any]]) -> list[Any]:
        """A batch read: each item at its own moment, in any order."""
        if not reads:
            return []
        order = list(range(len(reads)))
        self._host.rng.shuffle(order)
        # The walk is the effect's value; the world makes its steps and answers with its result.
        found: Any = await self._serve(operation, lambda: _Reads(reads, order))
        return list(found)

    async def read_page(
        self, shard: ShardId, *, after: Position | None, rows_max: int, due_ms_max: int | None = None
    ) -> Page:
        order = self._order.setdefault(shard, [])
        rows_max = min(rows_max, self.world.page_rows or rows_max)
        page: Any = await self._serve(
            "read_page",
            lambda: _Query(self.rows, order, shard, after=after, rows_max=rows_max, due_ms_max=due_ms_max),
            shard=shard,
        )
        assert isinstance(page, Page)
        return page

    # --- writes

    async def hold(self, name: RowName, request: RequestId) -> Any:
        row = await super().hold(name, request)
        retry = row.retry if isinstance(row, Row) else None
        self.world.trace.note("held", self._host, name.shard, text_of(name.position), retry)
        return row

    async def finish(self, shard: ShardId, ends: Sequence[End]) -> None:
        """In DynamoDB's three steps, each in parts: a crash, a lost answer or another node's write may come between any
        two of them."""
        overwriting = [end.outcome for end in ends if end.outcome is not None and not end.only_if_absent]
        if_absent = [end.outcome for end in ends if end.outcome is not None and end.only_if_absent]
        await self.put_outcomes(overwriting)
        await self.put_outcomes_if_absent(if_absent)
        await self.delete_rows(shard, [end.row.position for end in ends])

    async def put_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        def put(outcome: Outcome) -> None:
            self.outcomes[outcome_key(outcome)] = outcome

        await self._step("put_outcomes", outcomes, outcome_key, put)

    async def put_outcomes_if_absent(self, outcomes: Sequence[Outcome]) -> None:
        def put(outcome: Outcome) -> None:
            self.outcomes.setdefault(outcome_key(outcome), outcome)

        await self._step("put_outcomes_if_absent", outcomes, outcome_key, put)

    async def delete_rows(self, shard: ShardId, positions: Sequence[Position]) -> None:
        def delete(position: Position) -> None:
            self._remove(shard, position)

        await self._step("delete_rows", positions, lambda position: (shard, position), delete, shard=shard)

    async def _step(
        self,
        operation: str,
        items: Sequence[_T],
        place: Callable[[_T], ItemKey],
        write: Callable[[_T], None],
        *,
        shard: ShardId | None = None,
    ) -> None:
        for part in self.world.parts(items):

            def effect(part: Sequence[_T] = part) -> None:
                self._check_undisturbed(*map(place, part))
                for item in part:
                    write(item)

            await self._serve(operation, effect, shard=shard)


class Walk:
    """An answer that is put together step by step: not a snapshot."""

    def step(self) -> bool:
        """True: it is complete."""
        raise NotImplementedError

    def result(self) -> Any:
        raise NotImplementedError


class _Reads(Walk):
    """A batch read on its way from item to item."""

    def __init__(self, reads: Sequence[Callable[[], Any]], order: Sequence[int]) -> None:
        self._reads = reads
        self._order = list(order)
        self._found: dict[int, Any] = {}

    def step(self) -> bool:
        number = self._order.pop()
        self._found[number] = self._reads[number]()
        return not self._order

    def result(self) -> Any:
        return [self._found.get(number) for number in range(len(self._reads))]

    def __str__(self) -> str:
        return " ".join(str(self._found[number]) for number in sorted(self._found))


class _Query(Walk):
    """A Query on its way from row to row; not a snapshot."""

    def __init__(
        self,
        rows: Mapping[RowKey, Row | BrokenRow],
        order: Sequence[Position],
        shard: ShardId,
        *,
        after: Position | None,
        rows_max: int,
        due_ms_max: int | None,
    ) -> None:
        self._page = Page(rows=(), next_after=None)
        self._rows = rows
        self._order = order
        self._shard = shard
        self._after = after
        self._rows_max = rows_max
        self._due_ms_max = due_ms_max
        self._seen: list[Row | BrokenRow] = []

    def step(self) -> bool:
        """Looks at the next row. True: the page is complete."""
        index = bisect_right(self._order, self._after) if self._after is not None else 0
        if index == len(self._order):
            self._page = Page(rows=tuple(self._seen), next_after=None)
            return True
        self._after = self._order[index]
        self._seen.append(self._rows[(self._shard, self._after)])
        is_last = self._due_ms_max is not None and self._seen[-1].due_ms > self._due_ms_max
        if not is_last and len(self._seen) < self._rows_max:
            return False
        self._page = Page(rows=tuple(self._seen), next_after=self._after)
        return True

    def result(self) -> Any:
        return self._page

    def __str__(self) -> str:
        return f"shard {self._shard}: {[name_of(row) for row in self._seen if isinstance(row, Row)]}"


def name_of(row: Row) -> str:
    """A row as the trace names it."""
    hold = f" held {row.hold[:6]}" if row.hold else ""
    retry = f" retry {row.retry.at_ms}/{row.retry.epoch}" if row.retry else ""
    kind = "" if row.schedule.guarantee is Guarantee.EXACTLY_ONCE else " alo"
    return f"{row.schedule.schedule_key}.{row.schedule.version}{kind}{hold}{retry}"
