"""Producers: they create, change and cancel by command, in transactions of their own, some of which they abort or forget;
and what is to be said of the answers."""

import asyncio
import json
import random
from dataclasses import dataclass, replace
from typing import Any, Final

from clockwork.domain.position import due_ms_of
from clockwork.domain.record import COMMAND, CORRELATION_ID, DEAD_DETAIL, DEAD_SOURCE, REPEATED, OutRecord
from clockwork.domain.schedule import ClientId, Outcome, Row, ScheduleKey
from clockwork.requests.results import (
    AlreadyCreated,
    Cancelled,
    Created,
    NotFound,
    Reason,
    Refused,
    ScheduleView,
    Status,
    VersionDiffers,
)
from tests.simulation.clocks import EPOCH_MS
from tests.simulation.cluster import Cluster
from tests.simulation.command_world import COMMANDS, REPLIES
from tests.simulation.faults import FaultKind
from tests.simulation.kafka_world import DEAD_LETTERS, Busy, Entry
from tests.simulation.linearizability import Told
from tests.simulation.node import Call, CancelCall, ChangeCall, CreateCall, FindCall
from tests.simulation.store_world import name_of
from tests.simulation.workload import Op, Workload, describe_call

CLIENTS: Final = 3
ABORTED: Final = 0.15
FORGOTTEN: Final = 0.05
"""Never ended: the brokers abort them."""


@dataclass(kw_only=True, slots=True)
class Sent:
    """One command."""

    number: int
    call: Call
    wants_reply: bool
    op: Op | None = None
    """None: it was not committed."""


class Producers:
    """All of a run."""

    def __init__(self, cluster: Cluster, workload: Workload, seed: int) -> None:
        self.sent: list[Sent] = []
        self._cluster = cluster
        self._workload = workload
        self._rng = random.Random(f"{seed}/producers")
        self._turns = {ClientId(f"shop-{n}"): asyncio.Lock() for n in range(CLIENTS)}

    def start(self) -> None:
        for n in range(self._cluster.profile.commanded):
            rng = random.Random(self._rng.getrandbits(64))
            self._workload.spawn(self._story(ScheduleKey(f"c{n}"), rng))

    async def _story(self, key: ScheduleKey, rng: random.Random) -> None:
        """One schedule: created, then changed or cancelled by command near its due time, and over HTTP too."""
        await asyncio.sleep(rng.uniform(0, self._cluster.profile.faults_end_s * 0.8))
        client = rng.choice(list(self._turns))
        new = replace(self._workload.new(key, 0, rng), client_id=client)
        due_s = (new.due_ms - EPOCH_MS) / 1_000
        first: list[Call] = [CreateCall(new)]
        over_http: tuple[Call, ...] = (CancelCall(client, key), FindCall(client, key))
        more = [self._another(client, key, due_s, rng) for _ in range(rng.choice([0, 1, 2, 3]))]
        if more and rng.random() < 0.3:
            first.append(more.pop(0))
        for asked in over_http:
            if rng.random() < 0.3:
                self._workload.spawn(self._workload.sometime(rng, due_s, asked))
        await self._send(client, first, rng)
        for call in more:
            await asyncio.sleep(rng.choice([0.0, 0.05, 0.3, 1.0]) * rng.uniform(0.5, 1.5))
            await self._send(client, [call], rng)

    def _another(self, client: ClientId, key: ScheduleKey, due_s: float, rng: random.Random) -> Call:
        if rng.random() < 0.3:
            return CancelCall(client, key)
        return replace(self._workload.put(key, due_s, rng), client_id=client)

    async def _send(self, client: ClientId, calls: list[Call], rng: random.Random) -> None:
        """In one transaction."""
        kafka = self._cluster.worlds.kafka
        async with self._turns[client]:
            name = f"of-{client}"
            epoch = await self._fresh(name)
            sent = [self._numbered(call, rng) for call in calls]
            records = [_record(client, one) for one in sent]
            transaction = kafka.begin(name, epoch, {kafka.where(records[0])})
            kafka.produce(transaction, kafka.where(records[0]), records, client)
            await asyncio.sleep(rng.uniform(0.001, 0.05))
            fate = rng.random()
            if fate < FORGOTTEN:
                return
            if fate < FORGOTTEN + ABORTED:
                await self._fresh(name)
                return
            kafka.commit(name, epoch)
            ops = self._workload.history.ops
            for one in sent:
                key = one.call.new.schedule_key if isinstance(one.call, CreateCall) else one.call.schedule_key
                one.op = Op(
                    number=len(ops),
                    key=key,
                    call=one.call,
                    asked_at_s=self._cluster.reactor.now_s,
                    command=one.number,
                )
                ops.append(one.op)
                self._cluster.trace.note("commands", one.number, describe_call(one.call))

    async def _fresh(self, name: str) -> int:
        """Whatever was open is aborted."""
        while True:
            try:
                return self._cluster.worlds.kafka.init(name)
            except Busy:
                await asyncio.sleep(0.01)

    def _numbered(self, call: Call, rng: random.Random) -> Sent:
        self.sent.append(Sent(number=len(self.sent), call=call, wants_reply=rng.random() < 0.9))
        return self.sent[-1]

    # --- what came of it

    def judge(self) -> None:
        """Takes down the answers in the history; says what is wrong already by itself."""
        rows = {(row.schedule.schedule_key, row.schedule.version): row for row in self._rows()}
        for number in range(2):
            for entry in self._cluster.worlds.kafka.committed((REPLIES, number)):
                self._take(entry, rows)
        for one in self.sent:
            if one.op is None:
                self._judge_aborted(one)
            elif one.wants_reply and one.op.answered_at_s is None:
                self._violation("unanswered", f"command {one.number}: {describe_call(one.call)}")
        for number in range(2):
            for entry in self._cluster.worlds.kafka.committed((DEAD_LETTERS, number)):
                if entry.header(DEAD_SOURCE) is not None and not self._was_missing(entry):
                    self._violation("buried", f"a command: {entry.record}")

    def _was_missing(self, entry: Entry) -> bool:
        """Its topic was, for a while: then it is invalid, as over HTTP."""
        missing = any(fault.kind is FaultKind.TOPIC_MISSING for fault in self._cluster.profile.faults)
        return missing and "does not exist" in (entry.header(DEAD_DETAIL) or "")

    def _rows(self) -> list[Row]:
        return list(self._cluster.worlds.store.rows.ever.values())

    def _violation(self, rule: str, text: str) -> None:
        self._cluster.trace.violation(rule, text)

    def _judge_aborted(self, one: Sent) -> None:
        match one.call:
            case CreateCall(new):
                left = [row for row in self._rows() if row.schedule.schedule_key == new.schedule_key]
            case ChangeCall(task_data=data) if data is not None:
                left = [row for row in self._rows() if row.schedule.task_data == data]
            case _:
                left = []  # of a cancel the story tells
        if left:
            self._violation("aborted", f"command {one.number} was not committed, and made {name_of(left[0])}")

    def _take(self, entry: Entry, rows: dict[tuple[ScheduleKey, int], Row]) -> None:
        """One answer."""
        assert entry.record is not None
        assert entry.record.value is not None
        one = self.sent[int(entry.header(CORRELATION_ID) or 0)]
        document = json.loads(entry.record.value)
        if one.op is None:
            self._violation("aborted", f"command {one.number} was not committed, and answered: {document}")
            return
        answer = self._answer(one, document, rows)
        at_s = (entry.appended_at_ms - EPOCH_MS) / 1_000
        again = isinstance(answer, AlreadyCreated) or entry.header(REPEATED) is not None
        told = one.op.answered_at_s is not None or again
        if told and answer is not None:
            # A second answer only tells a state; so does that to a command that was read again, and when it had its effect
            # is unknown then.
            view = None if isinstance(answer, NotFound) else getattr(answer, "view", None)
            find = FindCall(one.op.client, one.op.key)
            ops = self._workload.history.ops
            ops.append(Op(number=len(ops), key=one.op.key, call=find, asked_at_s=one.op.asked_at_s))
            ops[-1].answered_at_s, ops[-1].answer = at_s, view
            one.wants_reply = False
        elif answer is not None:
            one.op.answered_at_s, one.op.answer = at_s, answer

    def _answer(self, one: Sent, document: dict[str, Any], rows: dict[tuple[ScheduleKey, int], Row]) -> object:
        """The result that the answer tells, in the engine's words; None if it cannot be."""
        status = document["status"]
        if status == 404:
            return NotFound()
        if status == 400:
            one.wants_reply = False  # a dead letter, which is judged by itself
            return None
        shown = document["schedule"]
        row = rows.get((shown["scheduleKey"], shown["version"]))
        if row is None or (shown["scheduleTime"], shown["taskData"].encode()) != (
            due_ms_of(row.position),
            row.schedule.task_data,
        ):
            self._violation("untrue", f"command {one.number} was told of what never was: {document}")
            return None
        view = self._view(row, Status(shown["status"]))
        match status, one.call:
            case 201, CreateCall():
                return Created(view)
            case 200, CreateCall():
                return AlreadyCreated(view)
            case 200, CancelCall():
                return Cancelled(view) if view.status is Status.CANCELLED else Told(view)
            case 200, ChangeCall():
                return Told(view)
            case 409, CancelCall() | ChangeCall():
                return Refused(Reason(document["reason"]), view)
            case 412, ChangeCall():
                return VersionDiffers(view)
        self._violation("untrue", f"command {one.number} was answered {document}")
        return None

    def _view(self, row: Row, status: Status) -> ScheduleView:
        schedule = row.schedule
        place = (schedule.client_id, schedule.schedule_key, row.position)
        outcome: Outcome | None = self._cluster.worlds.store.outcomes.get(place)
        if status is not Status.PENDING and (outcome is None or outcome.state.value != status.value):
            self._violation("untrue", f"a command was told that {name_of(row)} is {status}")
        return ScheduleView(
            client_id=schedule.client_id,
            schedule_key=schedule.schedule_key,
            position=row.position,
            shard=row.shard,
            schedule=schedule,
            status=status,
            version=schedule.version,
            outcome=outcome if status is not Status.PENDING else None,
        )


def _record(client: ClientId, one: Sent) -> OutRecord:
    document: dict[str, Any] = _document(one.call)
    if one.wants_reply:
        document |= {"replyTo": REPLIES, "correlationId": str(one.number)}
    headers = ((COMMAND, str(one.number).encode()),)
    return OutRecord(
        topic=COMMANDS, key=client.encode(), value=json.dumps(document).encode(), headers=headers, timestamp_ms=EPOCH_MS
    )


def _document(call: Call) -> dict[str, Any]:
    match call:
        case CreateCall(new):
            delivery = {"topic": new.topic, "guarantee": new.guarantee.value}
            if new.deadline_ms is not None:
                delivery |= {"deadline": new.deadline_ms, "onLate": new.on_late.value}  # type: ignore[dict-item]
            schedule = {
                "clientId": new.client_id,
                "scheduleKey": new.schedule_key,
                "orderingKey": new.ordering_key,
                "scheduleTime": new.due_ms,
                "taskData": new.task_data.decode(),
                "delivery": delivery,
            }
            return {"command": "create", "schedule": schedule}
        case CancelCall(client, key):
            return {"command": "cancel", "schedule": {"clientId": client, "scheduleKey": key}}
        case ChangeCall():
            return _change(call)
    raise AssertionError(call)


def _change(call: ChangeCall) -> dict[str, Any]:
    topic, ordering_key = call.lane or (None, None)
    deadline_ms, on_late = call.lateness or (None, None)
    delivery = {"topic": topic, "deadline": deadline_ms, "onLate": on_late.value if on_late is not None else None}
    schedule: dict[str, Any] = {
        "clientId": call.client_id,
        "scheduleKey": call.schedule_key,
        "orderingKey": ordering_key,
        "scheduleTime": call.due_ms,
        "taskData": call.task_data.decode() if call.task_data is not None else None,
        "delivery": {name: value for name, value in delivery.items() if value is not None} or None,
    }
    given = {name: value for name, value in schedule.items() if value is not None}
    versioned = {} if call.if_version is None else {"ifVersion": call.if_version}
    return {"command": "reschedule", "schedule": given, **versioned}
