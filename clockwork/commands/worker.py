"""The worker of the commands topic: each command has its effect once, in the order of its client, and is answered if it
wants a reply.

A batch is some commands of one Kafka partition. Its clients run side by side, the commands of each one after the other.

    1  every command is carried out: as over HTTP, by the same request service. A command without effect is recorded as
       processed (`domain.command_notes`); if it can never succeed, its dead letter is sent before that
    2  if the batch has replies to send, it is noted that its effects are over
    3  replies are sent
    4  the offset is committed

**After a crash.** A command that is read again, and is over by its key's note, has no effect any more: the present state is
the reply, with the header `clockwork-repeated`. That holds as well for another node that has read the same command, at any
moment, so a reply comes at least once, and its reader may build on it: a cancel that was answered with 404 never cancels a
schedule that is created afterwards. A dead letter also comes at least once, and says what held at that moment: a node that
crashes before the note leaves a command that may have its effect after all, if it is allowed by then, say. (The other order
would lose dead letters.) Step 2 saves reading all that again, and answers commands that have no key with a note.

A Kafka transaction over replies and offset would send each reply once; it was left out: it costs a transactional id
per Kafka partition, whose fencing does not know the group's generation here, and replies are about a state that can be
read at any time.

**No command is skipped.** The store or Kafka away, the clock not trusted, over a rate limit, the client's pending schedules
being counted, the principal gone from the keys' file: the command is tried again, with back-off, and its Kafka partition
waits. A command that can never succeed (not JSON, unknown, invalid, too large, not allowed, a stored state that cannot be
read, a defect of ours), or at a time that cannot be known (a count says that its client has reached its limit of pending
schedules), becomes a dead letter, with the record's own headers and the reason, and the next one is carried out.
`404`, `409` and `412` are replies, not dead letters.

**One topic cannot hold up commands for ever**: a reply is given up, and counted, if its topic is missing, forbidden,
refuses it, or does not take it within `REPLY_SECONDS_MAX` while Kafka as a whole answers. Dead letters are never given up.

Cancelled at any point (shutdown, rebalance), all this holds as after a crash; so there is nothing to drain.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from clockwork.commands import records
from clockwork.commands.parse import AnyCommand, JobCommand, JobKind, RunCommand
from clockwork.commands.records import ReadCommand
from clockwork.concurrency import Backoff, gather_bounded
from clockwork.domain.command_notes import CommandOffset
from clockwork.domain.jobs.job import NewJob, RunNow
from clockwork.domain.record import OutRecord
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.rights import Principal, Right, authorize
from clockwork.domain.schedule import NewSchedule
from clockwork.errors import (
    ClockworkError,
    CommandAlreadyProcessed,
    Contested,
    DeliveryRefused,
    FieldError,
    Forbidden,
    InvalidInput,
    NewerFormat,
    RefusalCause,
    TooManyJobs,
    TooManyPending,
    TooManyRequests,
    Unavailable,
    Unreadable,
)
from clockwork.ports.commands import CommandBatch, CommandRecord, RecordEffects
from clockwork.ports.delivery import Publisher
from clockwork.ports.telemetry import CommandResult
from clockwork.requests.create import announce_pending
from clockwork.requests.dedup import CommandDedup, JobCommandNotes, ScheduleNotes
from clockwork.requests.jobs.change import ChangeRequest, Delete, Pause, Put
from clockwork.requests.jobs.job_state import announce_armed
from clockwork.requests.jobs.results import (
    JobChangeResult,
    JobCreated,
    JobCreateResult,
    JobNotFound,
    JobRefused,
    JobVersionDiffers,
    JobView,
    ReportResult,
    RunAccepted,
    RunAlreadyAccepted,
    RunAlreadyClosed,
    RunClosed,
    RunExtended,
    RunNotFound,
    RunRefused,
    RunResult,
    RunView,
)
from clockwork.requests.results import (
    CancelResult,
    ChangeResult,
    Created,
    CreateResult,
    KeyTaken,
    NotFound,
    Refused,
    ScheduleView,
    VersionDiffers,
)
from clockwork.requests.service import RequestService
from clockwork.schema import problems
from clockwork.schema.job import JobPut
from clockwork.schema.job_render import job_not_found, of_job_declined, of_run_declined, run_not_found
from clockwork.schema.problems import Problem

CLIENTS_AT_ONCE: Final = 16
"""Clients of one Kafka partition: fills the store's transactions, and bounds the calls under way on a node."""
RETRY: Final = BackoffPolicy(initial_ms=100, max_ms=5_000)
REPLY_SECONDS_MAX: Final = 60.0
APPLIED_S: Final = 0.2
"""A committed transaction is applied within milliseconds."""

_CANCELS: Final = frozenset({"cancel", "deleteJob", "pauseJob"})
"""Commands that need the right `cancel`; reports about runs need `complete`, and all others `create`."""
_STEPS: Final[Mapping[JobKind, type[ChangeRequest]]] = {"updateJob": Put, "pauseJob": Pause, "deleteJob": Delete}
"""Commands whose replies name the runs that may still be delivered as they were before, also when they are read again."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class _NoReply(Forbidden):
    """The reply may not be sent to the wanted topic."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outcome:
    """The result of a command, and its reply, if one is wanted."""

    result: CommandResult
    reply: OutRecord | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandWorker:
    """Carries out batches of commands; `work` is the callback of a `CommandLog`."""

    requests: RequestService
    cluster: str
    publisher: Publisher
    rng: random.Random
    principal: Callable[[], Principal | None]
    """The principal that commands are carried out as; None: there is none at the moment, so commands wait."""
    topic: str
    dead_letter_topic: str

    async def work(self, batch: CommandBatch, note_effects: RecordEffects) -> None:
        """See the module."""
        now_ms = self._now_ms()
        read = [await records.read_record(record, cluster=self.cluster, now_ms=now_ms) for record in batch.records]
        over = frozenset(each.record.place for each in read[: batch.over])
        outcomes = await self._carry_out_all(read, over)
        await self._resolve_skipped(read, outcomes)
        in_order = [(each, outcomes[each.record.place]) for each in read]
        if len(over) < len(read) and any(outcome.reply is not None for _, outcome in in_order):
            await self._until_done(note_effects, "the commands' offsets")
        for each, outcome in in_order:
            await self._reply(each, outcome)

    # --- carrying out

    async def _carry_out_all(
        self, read: Sequence[ReadCommand], over: frozenset[CommandOffset]
    ) -> dict[CommandOffset, _Outcome]:
        """The outcome of each command that was not over."""
        by_client: dict[object, list[ReadCommand]] = {}
        for each in read:
            client = each.command.client_id if each.command is not None else each.record.place
            by_client.setdefault(client, []).append(each)
        outcomes: dict[CommandOffset, _Outcome] = {}

        async def one_client(commands: Sequence[ReadCommand]) -> None:
            for each in commands:
                outcome = await self._settle(each, over=each.record.place in over)
                if outcome is not None:
                    outcomes[each.record.place] = outcome

        await gather_bounded(one_client, by_client.values(), at_once=CLIENTS_AT_ONCE)
        return outcomes

    async def _resolve_skipped(self, read: Sequence[ReadCommand], outcomes: dict[CommandOffset, _Outcome]) -> None:
        """Adds the outcomes of the commands that were over. Their first reply is not known any more, so the present
        state is the reply."""
        left = [each for each in read if each.record.place not in outcomes]
        if not left:
            return
        # A note may be seen before the rest of its transaction, which another node has just committed.
        await asyncio.sleep(APPLIED_S)

        async def resolve(each: ReadCommand) -> None:
            outcomes[each.record.place] = await self._until_settled(partial(self._present_state, each), each.record)

        await gather_bounded(resolve, left, at_once=CLIENTS_AT_ONCE)

    async def _settle(self, read: ReadCommand, *, over: bool) -> _Outcome | None:
        """The command's outcome; None if the command was over before, or if another node that has read it as well has
        carried it out."""
        dedup: CommandDedup | None = None
        if (command := read.command) is not None:
            context = self.requests.context
            notes = (
                JobCommandNotes(context, command.name)
                if isinstance(command, JobCommand | RunCommand)
                else ScheduleNotes(context, command.client_id, command.schedule_key)
            )
            dedup = CommandDedup(context, notes, read.record.place)
        try:
            outcome = await self._until_settled(partial(self._carried_out, read, dedup, over=over), read.record)
        except CommandAlreadyProcessed:
            return None
        # Apart from the above, so that a command that was refused, and is a dead letter by now, is not carried out anew.
        if dedup is None or dedup.had_effect or await self._until_settled(dedup.record_processed, read.record):
            return outcome
        return None

    async def _until_settled(self, do: Callable[[], Awaitable[T]], record: CommandRecord) -> T:
        """Carries the command out; repeats that while the error may be temporary."""
        backoff = Backoff(self.rng, RETRY)
        while True:
            try:
                return await do()
            except TooManyRequests as limited:
                await asyncio.sleep(limited.retry_after_s)
            except (Unavailable, Contested, NewerFormat) as error:
                log.warning("A command waits", extra=_log_fields("command.waits", record, error, once=True))
                await asyncio.sleep(backoff.next_wait_s())

    async def _carried_out(self, read: ReadCommand, dedup: CommandDedup | None, *, over: bool) -> _Outcome:
        """Raises: CommandAlreadyProcessed; TooManyRequests, Unavailable, Contested, NewerFormat: to be tried again."""
        principal = self._principal()
        try:
            if read.reply is not None and not principal.topics.cover(read.reply.topic):
                wrong = FieldError("replyTo", "is not covered by this key")
                raise _NoReply("replyTo is not covered by this key.", [wrong])
            if read.wrong is not None or read.command is None or dedup is None:
                raise read.wrong or InvalidInput([])
            if over:
                raise CommandAlreadyProcessed
            result = await self._request(principal, read.command, dedup)
        except Exception as error:
            if _waits(error) or isinstance(error, CommandAlreadyProcessed):
                raise
            return await self._dead_lettered(read, dedup, error)
        match result:
            case RunNotFound() | RunRefused():
                return self._problem_outcome(read, of_run_declined(result), "refused")
            case RunExtended(run):
                return _Outcome(
                    result="done",
                    reply=records.view_reply(read, run, 200, now_ms=self._now_ms(), redacted=self._redacted()),
                )
            case JobNotFound() | JobRefused() | JobVersionDiffers():
                return self._problem_outcome(read, of_job_declined(result), "refused")
            case NotFound() | KeyTaken() | Refused() | VersionDiffers():
                return self._problem_outcome(read, problems.of_declined(result), "refused")
        status = 201 if isinstance(result, Created | JobCreated | RunAccepted) else 200
        view = (
            result.run
            if isinstance(result, RunAccepted | RunAlreadyAccepted | RunClosed | RunAlreadyClosed)
            else result.view
        )
        return _Outcome(
            result="done",
            reply=records.view_reply(read, view, status, now_ms=self._now_ms(), redacted=self._redacted()),
        )

    async def _request(
        self, principal: Principal, command: AnyCommand, dedup: CommandDedup
    ) -> CreateResult | CancelResult | ChangeResult | JobCreateResult | JobChangeResult | RunResult | ReportResult:
        if isinstance(command, RunCommand):
            jobs = self.requests.jobs
            return await jobs.report_run(principal, command.name, command.run_id, command.report, command=dedup)
        if isinstance(command, JobCommand):
            return await self._request_about_job(principal, command, dedup)
        key = (command.client_id, command.schedule_key)
        if isinstance(command.asks, NewSchedule):
            return await self.requests.create(principal, command.asks, command=dedup)
        if command.asks is None:
            return await self.requests.cancel(principal, *key, command=dedup)
        return await self.requests.reschedule(principal, *key, command.asks, condition=command.condition, command=dedup)

    async def _request_about_job(
        self, principal: Principal, command: JobCommand, dedup: CommandDedup
    ) -> JobCreateResult | JobChangeResult | RunResult:
        jobs, name, condition = self.requests.jobs, command.name, command.condition
        match command.asks:
            case NewJob() as new:
                return await jobs.create(principal, new, command=dedup)
            case JobPut() as edit:
                return await jobs.put(principal, name, edit, condition=condition, command=dedup)
            case RunNow() as run:
                return await jobs.start_runs(principal, name, run, command=dedup)
            case note:
                if command.kind == "pauseJob":
                    return await jobs.pause(principal, name, note, condition=condition, command=dedup)
                if command.kind == "resumeJob":
                    return await jobs.resume(principal, name, condition=condition, command=dedup)
                return await jobs.delete(principal, name, condition=condition, command=dedup)

    async def _present_state(self, read: ReadCommand) -> _Outcome:
        """The present state of the command's key, as far as the principal may see it.

        The owner of what a create or a change left pending is woken, with or without a reply: the node that carried the
        command out may have died before it did so.

        Raises: as `_carried_out`, but for CommandAlreadyProcessed.
        """
        principal = self._principal()
        command = read.command
        replies = read.reply is not None and principal.topics.cover(read.reply.topic)
        cancels = command is not None and command.kind in _CANCELS
        if command is None or not (replies or not cancels):
            return _Outcome(result="over")
        right = Right.COMPLETE if isinstance(command, RunCommand) else Right.CANCEL if cancels else Right.CREATE
        try:
            authorize(principal, right, command.client_id)
            view = await self._view_of(command)
        except Exception as error:
            if _waits(error):
                raise
            if not replies:
                return _Outcome(result="over")
            return self._problem_outcome(read, self._problem(read, error), "over", repeated=True)
        if isinstance(view, ScheduleView) and not cancels:
            announce_pending(self.requests.context, view)
        if isinstance(view, JobView):
            announce_armed(self.requests.context, view.state)
        if not replies:
            return _Outcome(result="over")
        if view is None:
            none = _not_found(command)
            return self._problem_outcome(read, none, "over", repeated=True)
        reply = records.view_reply(read, view, 200, now_ms=self._now_ms(), redacted=self._redacted(), repeated=True)
        return _Outcome(result="over", reply=reply)

    async def _view_of(self, command: AnyCommand) -> ScheduleView | JobView | RunView | None:
        if isinstance(command, RunCommand):
            return await self.requests.jobs.find_run_unchecked(command.name, command.run_id)
        if isinstance(command, JobCommand):
            return await self.requests.jobs.find_unchecked(command.name, after=_STEPS.get(command.kind))
        return await self.requests.find_unchecked(command.client_id, command.schedule_key)

    async def _dead_lettered(self, read: ReadCommand, dedup: CommandDedup | None, error: Exception) -> _Outcome:
        """Sends the command's dead letter, until that is acknowledged.

        Raises: CommandAlreadyProcessed (another node carried the command out).
        """
        if dedup is not None:
            with suppress(Unreadable):  # no node can have carried it out then
                await dedup.check()
        problem = self._problem(read, error)
        letter = records.dead_letter(
            read, error, problem.detail, of=self.topic, to=self.dead_letter_topic, now_ms=self._now_ms()
        )
        await self._until_done(partial(self._send_dead_letter, letter), self.dead_letter_topic)
        extra = _log_fields("command.dead_letter", read.record, read.wrong or "dead_letter")
        log.warning("A command became a dead letter", extra=extra)
        if isinstance(error, _NoReply):
            return _Outcome(result="dead_letter")
        return self._problem_outcome(read, problem, "dead_letter")

    def _problem_outcome(
        self, read: ReadCommand, problem: Problem, result: CommandResult, *, repeated: bool = False
    ) -> _Outcome:
        reply = records.problem_reply(
            read, problem, now_ms=self._now_ms(), redacted=self._redacted(), repeated=repeated
        )
        return _Outcome(result=result, reply=reply)

    def _problem(self, read: ReadCommand, error: Exception) -> Problem:
        if isinstance(error, ClockworkError):
            return problems.of_error(error)
        # A defect of ours must not stop all commands behind it; the log and the dead letter are enough to repeat it.
        extra = _log_fields("command.failed", read.record, type(error).__name__)
        log.error("A command failed", exc_info=error, extra=extra)
        return problems.internal(secrets.token_hex(8))

    def _redacted(self) -> bool:
        """True if replies show no content. A principal that is gone may have been redacted."""
        principal = self.principal()
        return principal is None or principal.redacted

    def _principal(self) -> Principal:
        principal = self.principal()
        if principal is None:
            raise Unavailable("no entry of the keys' file has the name that CLOCKWORK_COMMANDS_PRINCIPAL gives")
        return principal

    def _now_ms(self) -> int:
        return self.requests.context.clock.now_ms()

    # --- replies and dead letters

    async def _reply(self, read: ReadCommand, outcome: _Outcome) -> None:
        telemetry = self.requests.context.telemetry
        if outcome.reply is not None and not await self._send_reply(outcome.reply, read.record):
            telemetry.command(read.kind, "reply_dropped")
        telemetry.command(read.kind, outcome.result)

    async def _send_dead_letter(self, letter: OutRecord) -> None:
        try:
            await self.publisher.send(letter)
        except DeliveryRefused as refused:
            if all(refusal.cause is not RefusalCause.RECORD for refusal in refused.refusals) or not letter.value:
                raise Unavailable(f"{letter.topic}: {refused}") from refused
            # Too large for the dead letters; the record is still where `clockwork-source` says.
            await self._send_dead_letter(records.bare(letter))

    async def _send_reply(self, reply: OutRecord, record: CommandRecord) -> bool:
        """Sends the reply; returns False if it was given up."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        backoff = Backoff(self.rng, RETRY)
        while True:
            try:
                await self.publisher.send(reply)
            except DeliveryRefused as refused:
                extra = _log_fields("command.reply_dropped", record, refused, once=True)
                log.warning("A reply is given up", extra=extra)
                return False
            except Unavailable as error:
                if self.publisher.connected() and loop.time() - began_s > REPLY_SECONDS_MAX:
                    extra = _log_fields("command.reply_dropped", record, error, once=True)
                    log.warning("A reply is given up", extra=extra)
                    return False
                await asyncio.sleep(backoff.next_wait_s())
            else:
                return True

    async def _until_done(self, do: Callable[[], Awaitable[None]], target: str) -> None:
        """Repeats the work until the other side is available."""
        backoff = Backoff(self.rng, RETRY)
        while True:
            try:
                await do()
            except Unavailable as error:
                extra = {"event": "commands.wait", "error": str(error), "for": target, "once_per": target}
                log.warning("Commands wait", extra=extra)
                await asyncio.sleep(backoff.next_wait_s())
            else:
                return


def _not_found(command: AnyCommand) -> Problem:
    match command:
        case RunCommand():
            return run_not_found()
        case JobCommand():
            return job_not_found()
        case _:
            return problems.schedule_not_found()


def _waits(error: Exception) -> bool:
    """True if the command is to be tried again. Pending schedules are counted before the limit is final."""
    if isinstance(error, TooManyPending | TooManyJobs):
        return False
    return isinstance(error, TooManyRequests | Unavailable | Contested | NewerFormat)


def _log_fields(event: str, record: CommandRecord, error: object, *, once: bool = False) -> dict[str, object]:
    place = record.place
    fields: dict[str, object] = {
        "event": event,
        "kafka_partition": place.kafka_partition,
        "offset": place.offset,
        "error": str(error),
    }
    return fields | ({"once_per": type(error).__name__} if once else {})
