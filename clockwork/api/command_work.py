"""Working off commands: each has its effect once, in the order of its client; whoever asked for an answer gets it.

A batch is some commands of one Kafka partition. Its clients go side by side, the commands of each one after the other.

    1  every command is carried out: as over HTTP, with the same rights, limits and checks. One that had no effect is
       noted to have had its chance (`domain.command`); before that, if nothing will ever become of it, its dead letter
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
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from clockwork.api import commands, json_body, problems, schemas
from clockwork.api.commands import Command, ReplyTo, UnknownCommand
from clockwork.api.handlers import ScheduleHandlers, problem_of
from clockwork.api.problems import Problem
from clockwork.api.requests import Refusal, parsed
from clockwork.domain import record as names
from clockwork.domain.command import CommandPlace
from clockwork.domain.record import OutRecord
from clockwork.domain.retry import Backoff
from clockwork.domain.rights import Principal
from clockwork.engine.answers import NewSchedule, ScheduleView
from clockwork.engine.command_turn import CommandTurn, TurnOf
from clockwork.engine.patience import Setbacks
from clockwork.engine.together import together
from clockwork.errors import (
    Cause,
    ClockworkError,
    CommandOver,
    Contested,
    DeliveryRefused,
    FieldError,
    Forbidden,
    InvalidInput,
    TooManyPending,
    TooManyRequests,
    Unavailable,
    Unreadable,
)
from clockwork.ports import CommandBatch, CommandName, CommandRecord, CommandResult, NoteEffects, Publisher

CLIENTS_AT_ONCE: Final = 16
"""Of one Kafka partition: fills the store's transactions, and bounds what is in flight on a node."""
RETRY: Final = Backoff(initial_ms=100, max_ms=5_000)
REPLY_SECONDS_MAX: Final = 60.0
VALUE_BYTES_MAX: Final = 2 * 1024 * 1024
"""As of a request with one schedule; a compressed record may be larger than its topic's limit."""
DETAIL_CHARS_MAX: Final = 1_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """A record, as far as it could be read."""

    record: CommandRecord
    kind: CommandName
    reply: ReplyTo | None
    command: Command | None
    wrong: InvalidInput | None


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

    async def work(self, batch: CommandBatch, note_effects: NoteEffects) -> None:
        """See the module."""
        read = [await self._read(record) for record in batch.records]
        over = frozenset(each.record.place for each in read[: batch.over])
        lanes: dict[object, list[_Read]] = {}
        for each in read:
            lanes.setdefault(each.command.client_id if each.command is not None else each.record.place, []).append(each)
        told: dict[CommandPlace, _Told] = {}

        async def one_client(lane: Sequence[_Read]) -> None:
            for each in lane:
                told[each.record.place] = await self._settle(each, over=each.record.place in over)

        await together(one_client, lanes.values(), at_once=CLIENTS_AT_ONCE)
        in_order = [(each, told[each.record.place]) for each in read]
        if len(over) < len(read) and any(outcome.reply is not None for _, outcome in in_order):
            await self._insist(note_effects, "the commands' offsets")
        for each, outcome in in_order:
            await self._tell(each, outcome)

    # --- reading

    async def _read(self, record: CommandRecord) -> _Read:
        cluster, now_ms = self.handlers.cluster, self.handlers.clock.now_ms()
        kind: CommandName = "unknown"
        reply: ReplyTo | None = None
        try:
            if len(record.value) > VALUE_BYTES_MAX:
                raise schemas.TooLarge([FieldError("body", f"is longer than {VALUE_BYTES_MAX} bytes")])
            document = await parsed(record.value, _as_it_is)
            kind = commands.kind_of(document) or "unknown"
            reply = commands.reply_of(document, cluster=cluster)
            command = commands.read_command(
                document, record_key=record.key, cluster=cluster, now_ms=now_ms, traceparent=_traceparent(record)
            )
        except InvalidInput as wrong:
            return _Read(record=record, kind=kind, reply=reply, command=None, wrong=wrong)
        return _Read(record=record, kind=kind, reply=reply, command=command, wrong=None)

    # --- carrying out

    async def _settle(self, read: _Read, *, over: bool) -> _Told:
        setbacks = Setbacks(self.rng, RETRY)
        while True:
            try:
                return await self._once(read, over=over)
            except TooManyRequests as limited:
                await asyncio.sleep(limited.retry_after_s)
            except (Unavailable, Contested) as error:
                log.warning("A command waits", extra=_said("command.waits", read.record, error, once=True))
                await asyncio.sleep(setbacks.next_wait_s())

    async def _once(self, read: _Read, *, over: bool) -> _Told:
        """Raises: TooManyRequests, Unavailable, Contested: to be tried again."""
        turn: CommandTurn | None = None
        if read.command is not None:
            turn = self.turn_of(read.command.client_id, read.command.schedule_key, read.record.place)
        try:
            told = await self._carried_out(read, turn, over=over)
        except CommandOver:
            return await self._state_now(read)
        if turn is None or turn.had_effect or await turn.close():
            return told
        # Another node has read it as well, and found something to do: then that is what became of it.
        return await self._state_now(read)

    async def _carried_out(self, read: _Read, turn: CommandTurn | None, *, over: bool) -> _Told:
        """Raises: CommandOver; TooManyRequests, Unavailable, Contested: to be tried again."""
        principal = self.principal()
        if principal is None:
            raise Unavailable("nobody bears the name that CLOCKWORK_COMMANDS_PRINCIPAL says")
        try:
            if read.reply is not None and not principal.topics.cover(read.reply.topic):
                wrong = FieldError("replyTo", "is not covered by this key")
                forbidden = Forbidden("replyTo is not covered by this key.", [wrong])
                return await self._buried(replace(read, reply=None), forbidden)
            if read.wrong is not None or read.command is None or turn is None:
                raise read.wrong or InvalidInput([])
            if over:
                raise CommandOver
            view, status = await self._carry_out(principal, read.command, turn)
        except TooManyPending as full:
            return await self._buried(read, full)
        except (CommandOver, TooManyRequests, Unavailable, Contested):
            raise
        except Refusal as refusal:
            return _Told(result="refused", reply=self._problem_reply(read, refusal.problem))
        except Exception as error:
            return await self._buried(read, error)
        return _Told(result="done", reply=self._view_reply(read, view, status))

    async def _carry_out(self, principal: Principal, command: Command, turn: CommandTurn) -> tuple[ScheduleView, int]:
        named = (command.client_id, command.schedule_key)
        if isinstance(command.asks, NewSchedule):
            status, view, _ = await self.handlers.accept(principal, command.asks, turn=turn)
            return view, status.value
        if command.asks is None:
            return await self.handlers.cancel_one(principal, *named, turn=turn), 200
        view = await self.handlers.change_one(principal, *named, command.asks, if_version=command.if_version, turn=turn)
        return view, 200

    async def _state_now(self, read: _Read) -> _Told:
        """The answer to a command that is over: nobody knows any more what it was, but what is there now."""
        if read.reply is None or read.command is None:
            return _Told(result="over")
        view = await self.handlers.intake.find(read.command.client_id, read.command.schedule_key)
        repeated = (names.REPEATED, b"true")
        if view is None:
            return _Told(result="over", reply=self._problem_reply(read, problems.schedule_not_found(), repeated))
        return _Told(result="over", reply=self._view_reply(read, view, 200, repeated))

    async def _buried(self, read: _Read, error: Exception) -> _Told:
        """Sends its dead letter, until that is there."""
        if not isinstance(error, ClockworkError):
            # A defect of ours must not stop all commands behind it; whoever reads the log and the dead letter repeats it.
            log.error(
                "A command failed", exc_info=error, extra=_said("command.failed", read.record, type(error).__name__)
            )
        problem = problem_of(error) if isinstance(error, ClockworkError) else problems.internal(secrets.token_hex(8))
        letter = self._dead_letter(read, _reason_of(error), problem.detail)
        await self._insist(partial(self._bury, letter), self.dead_letter_topic)
        extra = _said("command.dead_letter", read.record, read.wrong or "dead_letter")
        log.warning("A command became a dead letter", extra=extra)
        return _Told(result="dead_letter", reply=self._problem_reply(read, problem))

    # --- telling

    def _view_reply(self, read: _Read, view: ScheduleView, status: int, *more: tuple[str, bytes]) -> OutRecord | None:
        return self._reply(read, status, {"status": status, "schedule": schemas.answer(view)}, more)

    def _problem_reply(self, read: _Read, problem: Problem, *more: tuple[str, bytes]) -> OutRecord | None:
        return self._reply(read, problem.status.value, problem.document(), more)

    def _reply(
        self, read: _Read, status: int, document: dict[str, Any], more: Sequence[tuple[str, bytes]]
    ) -> OutRecord | None:
        if read.reply is None:
            return None
        headers = [(names.COMMAND, read.kind.encode()), (names.STATUS, str(status).encode()), *more]
        if read.reply.correlation_id is not None:
            headers.append((names.CORRELATION_ID, read.reply.correlation_id.encode()))
        return OutRecord(
            topic=read.reply.topic,
            key=read.record.key,
            value=json_body.compact(document),
            headers=tuple(headers),
            timestamp_ms=self.handlers.clock.now_ms(),
        )

    def _dead_letter(self, read: _Read, reason: str, detail: str) -> OutRecord:
        place = read.record.place
        return OutRecord(
            topic=self.dead_letter_topic,
            key=read.record.key,
            value=read.record.value,
            headers=(
                # Of ours it may have none: who reads dead letters takes them for what we say.
                *(h for h in read.record.headers if not h[0].lower().startswith(names.RESERVED_PREFIX)),
                (names.DEAD_TOPIC, self.topic.encode()),
                (names.DEAD_REASON, reason.encode()),
                (names.DEAD_ATTEMPTS, b"1"),
                (names.DEAD_DETAIL, detail[:DETAIL_CHARS_MAX].encode()),
                (names.DEAD_SOURCE, f"{place.kafka_partition}/{place.offset}".encode()),
            ),
            timestamp_ms=self.handlers.clock.now_ms(),
        )

    async def _tell(self, read: _Read, told: _Told) -> None:
        telemetry = self.handlers.telemetry
        if told.reply is not None and not await self._send_reply(told.reply, read.record):
            telemetry.command(read.kind, "reply_dropped")
        telemetry.command(read.kind, told.result)

    async def _bury(self, letter: OutRecord) -> None:
        try:
            await self.publisher.send(letter)
        except DeliveryRefused as refused:
            if all(refusal.cause is not Cause.RECORD for refusal in refused.refusals) or not letter.value:
                raise Unavailable(f"{letter.topic}: {refused}") from refused
            # Too large for the dead letters, and still where `clockwork-source` says.
            bare = OutRecord(
                topic=letter.topic,
                key=None,
                value=b"",
                headers=tuple(h for h in letter.headers if h[0].startswith(names.RESERVED_PREFIX)),
                timestamp_ms=letter.timestamp_ms,
            )
            await self._bury(bare)

    async def _send_reply(self, reply: OutRecord, record: CommandRecord) -> bool:
        """False: given up."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        setbacks = Setbacks(self.rng, RETRY)
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
                await asyncio.sleep(setbacks.next_wait_s())
            else:
                return True

    async def _insist(self, do: Callable[[], Awaitable[None]], what: str) -> None:
        """Until it is done."""
        setbacks = Setbacks(self.rng, RETRY)
        while True:
            try:
                await do()
            except Unavailable as error:
                extra = {"event": "commands.wait", "error": str(error), "for": what, "once_per": what}
                log.warning("Commands wait", extra=extra)
                await asyncio.sleep(setbacks.next_wait_s())
            else:
                return


def _as_it_is(document: Any) -> Any:
    return document


def _traceparent(record: CommandRecord) -> str | None:
    values = [value for name, value in record.headers if name.lower() == names.TRACEPARENT]
    try:
        return values[0].decode("ascii") if len(values) == 1 else None
    except UnicodeDecodeError:
        # A malformed one is ignored, as W3C asks.
        return None


def _reason_of(error: Exception) -> str:
    """A short stable code."""
    match error:
        case UnknownCommand():
            return "command_unknown"
        case schemas.TooLarge():
            return "command_too_large"
        case InvalidInput() if [each.field for each in error.errors] == ["body"]:
            return "command_not_json"
        case InvalidInput():
            return "command_invalid"
        case Forbidden():
            return "command_forbidden"
        case TooManyPending():
            return "command_over_pending_max"
        case Unreadable():
            return "schedule_unreadable"
        case _:
            return "command_failed"


def _said(event: str, record: CommandRecord, error: object, *, once: bool = False) -> dict[str, object]:
    place = record.place
    said: dict[str, object] = {
        "event": event,
        "kafka_partition": place.kafka_partition,
        "offset": place.offset,
        "error": str(error),
    }
    return said | ({"once_per": type(error).__name__} if once else {})
