"""Working off commands: each has its effect once, in the order of its client; whoever asked for an answer gets it.

A batch is some commands of one Kafka partition. Its clients go side by side, the commands of each one after the other.

    1  every command is carried out: as over HTTP, with the same rights, limits and checks. One that had no effect is
       noted to have had its chance (`domain.command_notes`); before that, if nothing will ever become of it, its dead letter
       is sent
    2  if anybody is to be told of it, it is noted that the effects of this batch are over
    3  answers are sent
    4  the offset is committed

**What a crash leaves behind.** What is read again and over by its key's note does nothing more: what is there now is
answered, with the header `clockwork-repeated`. That holds for another node too that has read the same command, at any
moment, so an answer comes at least once, and whoever has seen one may build on it: a cancel that was answered with 404
never cancels what they create afterwards. A dead letter also comes at least once, and says what was so at that moment: who
crashes before the note leaves a command that may have its effect after all, if by now it is allowed, say. (The other
order would lose dead letters.) Step 2 saves reading all that again, and gives answers to what has no key to be noted at.

A transaction of Kafka over answers and offset would give each answer once; it was left out: it costs a transactional id
per Kafka partition, whose fencing does not know the group's generation here, and answers are about a state that can be
asked for at any time.

**Nothing is skipped.** DynamoDB or Kafka away, the clock not trusted, over a limit of so many a second, what its client has
pending being counted, the principal gone from the keys' file: the command is tried again, with back-off, and its Kafka
partition waits. What will never become right (not JSON, unknown, invalid, too large, not allowed, a stored state that
cannot be read, a defect of ours), or nobody knows when (a count says that its client has as much pending as it may),
becomes a dead letter, with the record's own headers and the reason, and the next one has its turn.
`404`, `409` and `412` are answers, not dead letters.

**One topic cannot hold up commands for ever**: an answer is given up, and counted, if its topic is missing, forbidden,
refuses it, or does not take it within `REPLY_SECONDS_MAX` while Kafka as a whole answers. Dead letters are never given up.

Cancelled at any point (shutdown, rebalance), all this holds as after a crash; so there is nothing to drain.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from clockwork.commands import records
from clockwork.commands.parse import Command
from clockwork.commands.records import ReadCommand
from clockwork.concurrency import Backoff, gather_bounded
from clockwork.domain.command_notes import CommandOffset
from clockwork.domain.record import OutRecord
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.rights import Principal, Right, authorize
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
    TooManyPending,
    TooManyRequests,
    Unavailable,
    Unreadable,
)
from clockwork.http import problems
from clockwork.http.body import Refusal
from clockwork.http.problems import Problem
from clockwork.http.schedules import ScheduleHandlers, problem_of
from clockwork.ports.commands import CommandBatch, CommandRecord, RecordEffects
from clockwork.ports.delivery import Publisher
from clockwork.ports.telemetry import CommandResult
from clockwork.requests.dedup import CommandDedup, TurnOf
from clockwork.requests.results import NewSchedule, ScheduleView

CLIENTS_AT_ONCE: Final = 16
"""Of one Kafka partition: fills the store's transactions, and bounds what is in flight on a node."""
RETRY: Final = BackoffPolicy(initial_ms=100, max_ms=5_000)
REPLY_SECONDS_MAX: Final = 60.0
APPLIED_S: Final = 0.2
"""A decided transaction is applied in milliseconds."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class _NoReply(Forbidden):
    """It may not be answered where it wants to be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Told:
    """What became of a command, and what is to be answered, if anything."""

    result: CommandResult
    reply: OutRecord | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandWork:
    """Works off batches of commands; `work` is what a `CommandLog` wants."""

    handlers: ScheduleHandlers
    turn_of: TurnOf
    publisher: Publisher
    rng: random.Random
    principal: Callable[[], Principal | None]
    """In whose name; None: in nobody's for now."""
    topic: str
    dead_letter_topic: str

    async def work(self, batch: CommandBatch, note_effects: RecordEffects) -> None:
        """See the module."""
        cluster, now_ms = self.handlers.cluster, self._now_ms()
        read = [await records.read_record(record, cluster=cluster, now_ms=now_ms) for record in batch.records]
        over = frozenset(each.record.place for each in read[: batch.over])
        told = await self._carry_out_all(read, over)
        await self._look_after(read, told)
        in_order = [(each, told[each.record.place]) for each in read]
        if len(over) < len(read) and any(outcome.reply is not None for _, outcome in in_order):
            await self._insist(note_effects, "the commands' offsets")
        for each, outcome in in_order:
            await self._tell(each, outcome)

    # --- carrying out

    async def _carry_out_all(
        self, read: Sequence[ReadCommand], over: frozenset[CommandOffset]
    ) -> dict[CommandOffset, _Told]:
        """What became of each; those that are over are left out."""
        lanes: dict[object, list[ReadCommand]] = {}
        for each in read:
            lanes.setdefault(each.command.client_id if each.command is not None else each.record.place, []).append(each)
        told: dict[CommandOffset, _Told] = {}

        async def one_client(lane: Sequence[ReadCommand]) -> None:
            for each in lane:
                outcome = await self._settle(each, over=each.record.place in over)
                if outcome is not None:
                    told[each.record.place] = outcome

        await gather_bounded(one_client, lanes.values(), at_once=CLIENTS_AT_ONCE)
        return told

    async def _look_after(self, read: Sequence[ReadCommand], told: dict[CommandOffset, _Told]) -> None:
        """Of those that are over: nobody knows any more what their answer was, but what is there now."""
        left = [each for each in read if each.record.place not in told]
        if not left:
            return
        # A note may be seen before the rest of its transaction, which another node has just decided.
        await asyncio.sleep(APPLIED_S)

        async def look(each: ReadCommand) -> None:
            told[each.record.place] = await self._patiently(partial(self._state_now, each), each.record)

        await gather_bounded(look, left, at_once=CLIENTS_AT_ONCE)

    async def _settle(self, read: ReadCommand, *, over: bool) -> _Told | None:
        """None: it was over before, or is by somebody else who has read it as well."""
        turn: CommandDedup | None = None
        if read.command is not None:
            turn = self.turn_of(read.command.client_id, read.command.schedule_key, read.record.place)
        try:
            told = await self._patiently(partial(self._carried_out, read, turn, over=over), read.record)
        except CommandAlreadyProcessed:
            return None
        # By itself, so that what was refused, and is a dead letter by now, is not looked at anew.
        if turn is None or turn.had_effect or await self._patiently(turn.close, read.record):
            return told
        return None

    async def _patiently(self, do: Callable[[], Awaitable[T]], record: CommandRecord) -> T:
        """Again and again, while it may only be waited for."""
        backoff_state = Backoff(self.rng, RETRY)
        while True:
            try:
                return await do()
            except TooManyRequests as limited:
                await asyncio.sleep(limited.retry_after_s)
            except (Unavailable, Contested, NewerFormat) as error:
                log.warning("A command waits", extra=_said("command.waits", record, error, once=True))
                await asyncio.sleep(backoff_state.next_wait_s())

    async def _carried_out(self, read: ReadCommand, turn: CommandDedup | None, *, over: bool) -> _Told:
        """Raises: CommandAlreadyProcessed; TooManyRequests, Unavailable, Contested, NewerFormat: to be tried again."""
        principal = self._principal()
        try:
            if read.reply is not None and not principal.topics.cover(read.reply.topic):
                wrong = FieldError("replyTo", "is not covered by this key")
                raise _NoReply("replyTo is not covered by this key.", [wrong])
            if read.wrong is not None or read.command is None or turn is None:
                raise read.wrong or InvalidInput([])
            if over:
                raise CommandAlreadyProcessed
            view, status = await self._carry_out(principal, read.command, turn)
        except Refusal as refusal:
            return self._told(read, refusal.problem, "refused")
        except Exception as error:
            if _waits(error) or isinstance(error, CommandAlreadyProcessed):
                raise
            return await self._buried(read, turn, error)
        return _Told(result="done", reply=records.view_reply(read, view, status, now_ms=self._now_ms()))

    async def _carry_out(self, principal: Principal, command: Command, turn: CommandDedup) -> tuple[ScheduleView, int]:
        named = (command.client_id, command.schedule_key)
        if isinstance(command.asks, NewSchedule):
            status, view, _ = await self.handlers.accept(principal, command.asks, turn=turn)
            return view, status.value
        if command.asks is None:
            return await self.handlers.cancel_one(principal, *named, turn=turn), 200
        view = await self.handlers.change_one(principal, *named, command.asks, if_version=command.if_version, turn=turn)
        return view, 200

    async def _state_now(self, read: ReadCommand) -> _Told:
        """What stands under its key, for whoever may be told. Raises: as `_carried_out`, but for CommandAlreadyProcessed."""
        principal = self._principal()
        command = read.command
        if read.reply is None or command is None or not principal.topics.cover(read.reply.topic):
            return _Told(result="over")
        try:
            right = Right.CANCEL if command.asks is None else Right.CREATE
            authorize(principal, right, command.client_id)
            view = await self.handlers.intake.find(command.client_id, command.schedule_key)
            if view is None:
                raise Refusal(problems.schedule_not_found())
        except Exception as error:
            if _waits(error):
                raise
            return self._told(read, self._problem(read, error), "over", repeated=True)
        reply = records.view_reply(read, view, 200, now_ms=self._now_ms(), repeated=True)
        return _Told(result="over", reply=reply)

    async def _buried(self, read: ReadCommand, turn: CommandDedup | None, error: Exception) -> _Told:
        """Sends its dead letter, until that is there. Raises: CommandAlreadyProcessed (another node found it valid)."""
        if turn is not None:
            with suppress(Unreadable):  # then nobody can have carried it out
                await turn.look()
        problem = self._problem(read, error)
        letter = records.dead_letter(
            read, error, problem.detail, of=self.topic, to=self.dead_letter_topic, now_ms=self._now_ms()
        )
        await self._insist(partial(self._bury, letter), self.dead_letter_topic)
        extra = _said("command.dead_letter", read.record, read.wrong or "dead_letter")
        log.warning("A command became a dead letter", extra=extra)
        if isinstance(error, _NoReply):
            return _Told(result="dead_letter")
        return self._told(read, problem, "dead_letter")

    def _told(self, read: ReadCommand, problem: Problem, result: CommandResult, *, repeated: bool = False) -> _Told:
        reply = records.problem_reply(read, problem, now_ms=self._now_ms(), repeated=repeated)
        return _Told(result=result, reply=reply)

    def _problem(self, read: ReadCommand, error: Exception) -> Problem:
        if isinstance(error, ClockworkError | Refusal):
            return problem_of(error)
        # A defect of ours must not stop all commands behind it; whoever reads the log and the dead letter repeats it.
        extra = _said("command.failed", read.record, type(error).__name__)
        log.error("A command failed", exc_info=error, extra=extra)
        return problems.internal(secrets.token_hex(8))

    def _principal(self) -> Principal:
        principal = self.principal()
        if principal is None:
            raise Unavailable("nobody bears the name that CLOCKWORK_COMMANDS_PRINCIPAL says")
        return principal

    def _now_ms(self) -> int:
        return self.handlers.clock.now_ms()

    # --- telling

    async def _tell(self, read: ReadCommand, told: _Told) -> None:
        telemetry = self.handlers.telemetry
        if told.reply is not None and not await self._send_reply(told.reply, read.record):
            telemetry.command(read.kind, "reply_dropped")
        telemetry.command(read.kind, told.result)

    async def _bury(self, letter: OutRecord) -> None:
        try:
            await self.publisher.send(letter)
        except DeliveryRefused as refused:
            if all(refusal.cause is not RefusalCause.RECORD for refusal in refused.refusals) or not letter.value:
                raise Unavailable(f"{letter.topic}: {refused}") from refused
            # Too large for the dead letters, and still where `clockwork-source` says.
            await self._bury(records.bare(letter))

    async def _send_reply(self, reply: OutRecord, record: CommandRecord) -> bool:
        """False: given up."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        backoff_state = Backoff(self.rng, RETRY)
        while True:
            try:
                await self.publisher.send(reply)
            except DeliveryRefused as refused:
                log.warning("A reply is given up", extra=_said("command.reply_dropped", record, refused, once=True))
                return False
            except Unavailable as error:
                if self.publisher.connected() and loop.time() - began_s > REPLY_SECONDS_MAX:
                    log.warning("A reply is given up", extra=_said("command.reply_dropped", record, error, once=True))
                    return False
                await asyncio.sleep(backoff_state.next_wait_s())
            else:
                return True

    async def _insist(self, do: Callable[[], Awaitable[None]], what: str) -> None:
        """Until it is done."""
        backoff_state = Backoff(self.rng, RETRY)
        while True:
            try:
                await do()
            except Unavailable as error:
                extra = {"event": "commands.wait", "error": str(error), "for": what, "once_per": what}
                log.warning("Commands wait", extra=extra)
                await asyncio.sleep(backoff_state.next_wait_s())
            else:
                return


def _waits(error: Exception) -> bool:
    """Whether it is to be tried again. What is pending is counted before it says so for good."""
    if isinstance(error, TooManyPending):
        return False
    return isinstance(error, TooManyRequests | Unavailable | Contested | NewerFormat)


def _said(event: str, record: CommandRecord, error: object, *, once: bool = False) -> dict[str, object]:
    place = record.place
    said: dict[str, object] = {
        "event": event,
        "kafka_partition": place.kafka_partition,
        "offset": place.offset,
        "error": str(error),
    }
    return said | ({"once_per": type(error).__name__} if once else {})
