"""Commands on the twins in memory, for the tests of the second way in."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from clockwork.commands.worker import CommandWorker
from clockwork.domain.command_notes import CommandOffset
from clockwork.domain.rights import ANYONE, Principal
from clockwork.domain.schedule import ClientId, NewSchedule, ScheduleKey
from clockwork.errors import StoreUnavailable
from clockwork.kafka.memory.commands import MemoryCommandLog
from clockwork.observability.metrics import PrometheusTelemetry
from clockwork.requests.pending_quota import NO_PENDING_LIMIT, PendingLimit
from clockwork.requests.rate_limits import NO_LIMITS, CreateLimits
from clockwork.requests.results import ScheduleView
from clockwork.requests.service import RequestService
from clockwork.schema.schedule import read_schedule
from tests.support import builders
from tests.support.engine import Engine
from tests.unit.api_edge import a_request

REPLIES: Final = "replies"
DEAD_LETTERS: Final = "clockwork-dead-letters"
KEY: Final = {"clientId": "shop", "scheduleKey": "order-1"}


class Desk:
    """One node's commands."""

    def __init__(
        self, *, limits: CreateLimits = NO_LIMITS, pending: PendingLimit = NO_PENDING_LIMIT, kafka_partitions: int = 1
    ) -> None:
        self.telemetry = PrometheusTelemetry()
        self.engine = Engine(telemetry=self.telemetry)
        self.log = MemoryCommandLog(kafka_partitions=kafka_partitions)
        self.principal: Principal | None = ANYONE
        for topic in (REPLIES, "other"):
            self.engine.kafka.create_topic(topic)
        self.worker = CommandWorker(
            requests=RequestService(context=self.engine.context, rate_limits=limits, pending=pending),
            cluster="clockwork",
            publisher=self.engine.publisher,
            rng=random.Random(5),
            principal=lambda: self.principal,
            topic="clockwork-commands",
            dead_letter_topic=DEAD_LETTERS,
        )

    def create(self, data: Any = 1, **more: Any) -> CommandOffset:
        """Asks for a schedule under `KEY`, an hour ahead."""
        return self.ask("create", schedule=self.body(data), **more)

    def over_http(self, data: Any) -> NewSchedule:
        """The same, but not by command."""
        now_ms = self.engine.clock.now_ms()
        return read_schedule(self.body(data), cluster="clockwork", now_ms=now_ms, traceparent=None)

    def body(self, data: Any = 1) -> dict[str, Any]:
        """The body of a create."""
        due_ms = self.engine.clock.now_ms() + 3_600_000
        return a_request(scheduleTime=due_ms, taskData=data, delivery={"topic": builders.TOPIC}, **KEY)

    def cancel(self, **more: Any) -> CommandOffset:
        return self.ask("cancel", schedule=KEY, **more)

    def move(self, minutes: int, **more: Any) -> CommandOffset:
        due_ms = self.engine.clock.now_ms() + minutes * 60_000
        return self.ask("reschedule", schedule={**KEY, "scheduleTime": due_ms}, **more)

    def ask(self, command: Any, **more: Any) -> CommandOffset:
        """With a reply, unless `replyTo` is None."""
        document = {"command": command, "replyTo": REPLIES, "correlationId": f"{command}", **more}
        if document["replyTo"] is None:
            document = {n: v for n, v in document.items() if n not in ("replyTo", "correlationId")}
        return self.put(json.dumps(document).encode())

    def put(self, value: bytes, key: bytes | None = b"shop", **more: Any) -> CommandOffset:
        return self.log.append(key, value, at_ms=self.engine.clock.now_ms(), **more)

    async def settle(self) -> None:
        """Returns when all commands are worked off."""
        async with self.running():
            await self.log.until_worked_off()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.log.run(self.worker.work), name="commands")
            try:
                async with asyncio.timeout(60):
                    yield
            finally:
                task.cancel()

    def read_again(self, begin: int = 0) -> None:
        """As after a crash before the commit."""
        self.log.committed[0] = self.log.noted[0] = begin

    async def now(self) -> ScheduleView | None:
        """The schedule under `KEY`."""
        return await self.engine.find(ClientId("shop"), ScheduleKey("order-1"))

    async def data(self) -> bytes:
        """Its content."""
        view = await self.now()
        assert view is not None
        assert view.schedule is not None
        return view.schedule.task_data

    def replies(self) -> list[tuple[int, dict[str, Any], dict[str, bytes]]]:
        """Status, document and headers of each answer."""
        found = self.engine.kafka.read_committed(REPLIES)
        return [(int(dict(r.headers)["clockwork-status"]), json.loads(r.value or b""), dict(r.headers)) for r in found]

    def statuses(self) -> list[int]:
        return [status for status, _, _ in self.replies()]

    def dead(self) -> list[tuple[str, bytes, dict[str, bytes]]]:
        """Reason, value and headers of each dead letter."""
        found = self.engine.kafka.read_committed(DEAD_LETTERS)
        return [(dict(r.headers)["clockwork-reason"].decode(), r.value or b"", dict(r.headers)) for r in found]

    def metric(self, command: str, result: str) -> float:
        line = f'clockwork_commands_total{{command="{command}",result="{result}"}} '
        shown = self.telemetry.exposition()[0].decode()
        return float(next(text for text in shown.splitlines() if text.startswith(line)).removeprefix(line))


def unanswered(desk: Desk, name: str) -> None:
    """The store does the next one, and is not heard of."""
    real = getattr(desk.engine.store, name)

    async def lose(*given: object, **named: object) -> None:
        setattr(desk.engine.store, name, real)
        await real(*given, **named)
        raise StoreUnavailable(outcome_unknown=True)

    setattr(desk.engine.store, name, lose)
