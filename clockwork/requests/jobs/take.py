"""Taking the armed rows of a job from their owners: hold and look (`requests.hold`), before the change that deletes them.

A row that comes too late for that is in flight: the change is made without it, and its caller is told. In the end the
revision of the state decides between the request and the owner, not the hold: if the row has ended meanwhile, what follows
it has changed the state, the request's change fails, and it begins again from the new state. So unlike a cancel, a change of
a job never answers "too close to call".

**A missing row.** A row that the state names and that cannot be held, because it is not there, has ended since the state was
read; or it was deleted by hand, or the tables were restored to different times. The request makes the audit's step,
`steps.repair`, and begins again: it would wait in vain until the next audit. The audit looks twice, a minute apart, because
it reads, and most of what it sees missing has just ended, or is about to be applied. The hold is a write: it conflicts with
a transaction that is being applied to the row, and is tried again. What makes both safe is the condition of the step: the
state is as it was read, and the missing row is not there.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from clockwork.domain.jobs.job import ArmedRow, JobState, TakenRow
from clockwork.domain.jobs.steps import repair, rows_to_take
from clockwork.domain.position import Position
from clockwork.domain.run import Chain
from clockwork.domain.schedule import BrokenRow, Row, Schedule
from clockwork.domain.wakeup import Wanted
from clockwork.errors import ConditionFailed, TransactionConflict
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.hold import LONG_DUE_MS, TRIES_MAX, WAITING_ROW_MS, TooLate, hold_and_look
from clockwork.requests.jobs import job_state
from clockwork.requests.jobs.job_state import BEING_CHANGED, StoredJob

log = logging.getLogger(__name__)


class RowIsGone(ConditionFailed):
    """A row that the state names is not there: the state has gone on since, or the row is about to be applied, or
    missing."""

    def __init__(self, row: ArmedRow) -> None:
        super().__init__()
        self.row = row


class RowTaker:
    """The tries of one request to take rows."""

    def __init__(self, context: RequestContext, deadline: RequestDeadline) -> None:
        self._context = context
        self._deadline = deadline
        self._lost_holds: Counter[Position] = Counter()
        self._late: dict[Chain, Position] = {}
        """The first late row of a chain that was met."""
        self._waits_until_s: float | None = None
        self._held: dict[Position, Row | BrokenRow] = {}

    async def take(self, stored: StoredJob, rows: Iterable[ArmedRow]) -> Sequence[TakenRow]:
        """Those of the rows that the request can take; the others are in flight. A missing row is put again, or what
        follows it.

        Raises: Contested (the request is to begin again), StoreUnavailable, Unavailable, Unreadable.
        """
        try:
            return await self.take_all(stored.state, rows)
        except RowIsGone as gone:
            await _repair(self._context, stored, gone.row)
            raise

    async def take_all(self, state: JobState, rows: Iterable[ArmedRow]) -> Sequence[TakenRow]:
        """The same, without a repair. Raises: RowIsGone, StoreUnavailable, Unavailable, Unreadable."""
        return [taken for each in rows if (taken := await self._take(state, each)) is not None]

    def content_of(self, taken: TakenRow) -> Schedule | None:
        """The content of a row that was taken; None: it cannot be read."""
        row = self._held[taken.name.position]
        return row.schedule if isinstance(row, Row) else None

    def count_lost_holds(self, taken: Iterable[TakenRow]) -> None:
        """Counts a try after which the holds on these rows were gone: an owner took them off. After `TRIES_MAX` a row counts
        as in flight."""
        self._lost_holds.update(each.name.position for each in taken)

    async def _take(self, state: JobState, armed: ArmedRow) -> TakenRow | None:
        name = state.row_name(armed)
        if self._chain_moves_too_fast(state, armed):
            return None
        while self._lost_holds[armed.position] < TRIES_MAX:
            try:
                held = await hold_and_look(self._context, name)
            except TransactionConflict:
                await self._deadline.pause(BEING_CHANGED)
            except TooLate:
                if not self._lane_waits(armed):
                    return None
                # Its owner reads the row by itself and answers the hold.
                self._context.waker.wake(armed.shard, Wanted(armed.position))
                await self._deadline.pause(BEING_CHANGED)
            except ConditionFailed as error:
                raise RowIsGone(armed) from error
            else:
                self._held[armed.position] = held.row
                return TakenRow(name=name, hold=held.by)
        return None

    def _chain_moves_too_fast(self, state: JobState, armed: ArmedRow) -> bool:
        """True if two rows of one chain in a row were late: the job is catching up, and each row is delivered before a hold
        and a look are done. Such a row is treated as in flight; otherwise the request would never catch the chain, and a job
        that is to be stopped could not be."""
        chain = Chain.MAIN if armed == state.armed else Chain.BACKFILL
        if not self._is_late(armed) or armed in state.side_rows:
            return False
        return self._late.setdefault(chain, armed.position) != armed.position

    def _is_late(self, armed: ArmedRow) -> bool:
        return self._context.clock.now_ms() - armed.due_ms > LONG_DUE_MS

    def _lane_waits(self, armed: ArmedRow) -> bool:
        """True if the row is due for long, because its lane or topic waits, and its owner may still answer. Once for all
        rows of the request, and for half of its time at most: the rest is for the change."""
        if not self._is_late(armed):
            return False
        if self._waits_until_s is None:
            self._waits_until_s = self._deadline.spent_s + min(WAITING_ROW_MS / 1_000, self._deadline.left_s / 2)
        return self._deadline.spent_s < self._waits_until_s


async def take_armed(context: RequestContext, state: JobState) -> Sequence[TakenRow]:
    """The armed row of a state, taken for the audit; none: it is in flight, or gone. Raises: StoreUnavailable, Unavailable,
    Unreadable."""
    async with context.deadline() as deadline:
        try:
            return await RowTaker(context, deadline).take_all(state, rows_to_take(state))
        except RowIsGone:
            return ()


async def _repair(context: RequestContext, stored: StoredJob, missing: ArmedRow) -> None:
    """Arms what follows a missing row. Raises: Contested (it is not missing), StoreUnavailable, Unavailable, Unreadable."""
    state = stored.state
    run_delivery = await context.jobs.read_run_delivery(state.name, missing.position)
    step = job_state.step_context(context, job_state.new_request_id(context))
    change = repair(state, stored.job, missing, run_delivery, step)
    await job_state.apply(context, change)
    job_state.announce_armed(context, change.state)
    context.telemetry.job_repaired()
    log.error(
        "Job repaired: its row was not there",
        extra={"event": "job.repaired", "client": state.client_id, "run": missing.run_id},
    )
