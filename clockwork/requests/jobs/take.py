"""Taking the armed rows of a job from their owners: hold and look (`requests.hold`), before the change that deletes them.

A row that comes too late for that is in flight: the change is made without it, and its caller is told. In the end the
revision of the state decides between the request and the owner, not the hold: if the row has ended meanwhile, what follows
it has changed the state, the request's change fails, and it begins again from the new state. So unlike a cancel, a change of
a job never answers "too close to call".

**A lost row.** A row that the state names and that cannot be held, because it is not there, has ended since the state was
read; or it was deleted by hand, or the tables were restored to different times. The request makes the audit's step,
`steps.repair`, and begins again: it would wait in vain until the next audit. The audit looks twice, a minute apart, because
it reads, and most of what it sees missing has just ended, or is about to be applied. The hold is a write: it conflicts with
a transaction that is being applied to the row, and is tried again. What makes both safe is the condition of the step: the
state is as it was read, and the lost row is not there.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from clockwork.domain.jobs.job import ArmedRow, JobState, TakenRow
from clockwork.domain.jobs.steps import repair, to_be_taken
from clockwork.domain.position import Position
from clockwork.domain.run import Chain
from clockwork.domain.schedule import BrokenRow, Row, Schedule
from clockwork.domain.wakeup import Wanted
from clockwork.errors import ConditionFailed, TransactionConflict
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.hold import LONG_DUE_MS, TRIES_MAX, WAITING_ROW_MS, TooLate, hold_and_look
from clockwork.requests.jobs import state as states
from clockwork.requests.jobs.state import BEING_CHANGED, JobReading

log = logging.getLogger(__name__)


class RowIsGone(ConditionFailed):
    """A row that the state names is not there: the state has gone on since, or the row is about to be applied, or lost."""

    def __init__(self, row: ArmedRow) -> None:
        super().__init__()
        self.row = row


class RowTaker:
    """The tries of one request to take rows."""

    def __init__(self, context: RequestContext, deadline: RequestDeadline) -> None:
        self._context = context
        self._deadline = deadline
        self._lost: Counter[Position] = Counter()
        self._late: dict[Chain, Position] = {}
        """The first late row of a chain that was met."""
        self._waits_until_s: float | None = None
        self._held: dict[Position, Row | BrokenRow] = {}

    async def take(self, reading: JobReading, rows: Iterable[ArmedRow]) -> Sequence[TakenRow]:
        """Those of the rows that the request can take; the others are in flight. A row that is lost is put again, or what
        follows it.

        Raises: Contested (the request is to begin again), StoreUnavailable, Unavailable, Unreadable.
        """
        try:
            return await self.take_all(reading.state, rows)
        except RowIsGone as gone:
            await _repair(self._context, reading, gone.row)
            raise

    async def take_all(self, state: JobState, rows: Iterable[ArmedRow]) -> Sequence[TakenRow]:
        """The same, without a repair. Raises: RowIsGone, StoreUnavailable, Unavailable, Unreadable."""
        return [taken for each in rows if (taken := await self._take(state, each)) is not None]

    def content_of(self, taken: TakenRow) -> Schedule | None:
        """The content of a row that was taken; None: it cannot be read."""
        row = self._held[taken.name.position]
        return row.schedule if isinstance(row, Row) else None

    def lost(self, taken: Iterable[TakenRow]) -> None:
        """Counts a try in which an owner took the hold off one of these. After `TRIES_MAX` a row counts as in flight."""
        self._lost.update(each.name.position for each in taken)

    async def _take(self, state: JobState, armed: ArmedRow) -> TakenRow | None:
        name = state.row_name(armed)
        if self._goes_on(state, armed):
            return None
        while self._lost[armed.position] < TRIES_MAX:
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

    def _goes_on(self, state: JobState, armed: ArmedRow) -> bool:
        """True if the row is late, and follows another late one of this request: so no lane waits, but its chain is late
        itself, say it catches up, and goes on faster than a hold and a look take. Its row is in flight without either: else
        the change would never be made, and a job that is to be stopped could not be."""
        chain = Chain.MAIN if armed == state.armed else Chain.BACKFILL
        if not self._is_late(armed) or armed in state.single:
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
            return await RowTaker(context, deadline).take_all(state, to_be_taken(state))
        except RowIsGone:
            return ()


async def _repair(context: RequestContext, reading: JobReading, lost: ArmedRow) -> None:
    """Arms what follows a lost row. Raises: Contested (it is not lost), StoreUnavailable, Unavailable, Unreadable."""
    state = reading.state
    run_end = await context.jobs.read_run_end(state.name, lost.position)
    at = states.moment(context, states.new_request_id(context))
    change = repair(state, reading.job, lost, run_end, at)
    await states.make(context, change)
    states.announce_armed(context, change.state)
    context.telemetry.job_repaired()
    log.error(
        "Job repaired: its row was not there",
        extra={"event": "job.repaired", "client": state.client_id, "run": lost.run_id},
    )
