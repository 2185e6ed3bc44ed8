"""`make demo`: some hundred schedules over twenty seconds, against the node that `make run` has started.

Schedules of several ordering keys are created over HTTP, some are cancelled (a few of them at their very due time), a
second node joins, is killed with SIGKILL and started again meanwhile. A read_committed consumer sees what arrives, and a
table says whether the promises held. A request without an answer may have been carried out or not: its schedule is looked
up, and a schedule of which nothing can be learned is called unknown, not lost.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
from aiokafka import AIOKafkaConsumer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from infra.local.errors import LocalServicesError
from infra.local.node import NodeProcess, node_environment, store_settings
from infra.local.ports import free_port
from infra.local.run import Running, find_running
from infra.local.verdict import Verdict, verdict_table

TOPIC: Final = "orderTopic"
SCHEDULES: Final = 400
ORDERING_KEYS: Final = 25
CANCELS: Final = 60
CANCELS_CLOSE: Final = 20
"""Cancels at the very due time: too close to call, so every answer is possible, but must be true."""
SPREAD_MS: Final = 20_000
FIRST_MS: Final = 3_000
KILL_AFTER_S: Final = 6.0
AGAIN_AFTER_S: Final = 4.0
PATIENCE_S: Final = 40.0
"""Time to wait for late schedules; a killed node's shards are silent for its session time-out."""
LOOK_AGAIN_S: Final = 2.0
ANSWER_S: Final = 10.0
"""Time for one answer; a slower one counts as none."""
READ_S: Final = 5.0
"""Time for the records of schedules that the last look-up found delivered."""
SECOND_NODE_SESSION_MS: Final = 3_000


def _now_ms() -> int:
    return time.time_ns() // 1_000_000  # noqa: TID251 - the demo stands outside and looks at the wall


class Answer(NamedTuple):
    """An answer that settles its request: neither a failure of the service nor one of the way to it."""

    status: int
    document: dict[str, Any]


async def ask(
    session: aiohttp.ClientSession, method: str, url: str, body: dict[str, Any] | None = None
) -> Answer | None:
    """Sends one request, once. None: no answer, or one of 500 and more: it may have been carried out or not."""
    try:
        async with session.request(method, url, json=body) as response:
            if response.status >= 500:
                return None
            return Answer(response.status, await response.json())
    except (aiohttp.ClientError, TimeoutError):
        return None


class Demo:
    """One run: its schedules and their outcomes."""

    def __init__(self, running: Running, session: aiohttp.ClientSession) -> None:
        self._running = running
        self._session = session
        self._rng = random.Random()
        self.verdict = Verdict()
        self.client_id = f"demo-{_now_ms()}"

    def plan(self) -> None:
        """Draws the schedules: several keys, due at random milliseconds."""
        start_ms = _now_ms() + FIRST_MS
        for number in range(SCHEDULES):
            due_ms = start_ms + self._rng.randrange(SPREAD_MS)
            self.verdict.plan(f"order-{number}", f"customer-{number % ORDERING_KEYS}", due_ms)

    async def create_all(self, progress: Progress) -> None:
        """Raises: LocalServicesError: no create was answered, or one was refused."""
        bar = progress.add_task("created", total=SCHEDULES)

        async def one(key: str) -> None:
            await self.create(key)
            progress.advance(bar)

        await _some_at_once(one, list(self.verdict.planned))
        if all(planned.accepted_at_ms is None for planned in self.verdict.planned.values()):
            raise LocalServicesError(f"the node at {self._running.http_url} answers no create")

    async def create(self, key: str) -> None:
        """Raises: LocalServicesError: it is refused."""
        planned = self.verdict.planned[key]
        body = {
            "clientId": self.client_id,
            "scheduleKey": key,
            "orderingKey": planned.ordering_key,
            "scheduleTime": planned.due_ms,
            "taskData": {"order": key},
            "delivery": {"topic": TOPIC},
        }
        answer = await ask(self._session, "POST", f"{self._running.http_url}/schedule", body)
        if answer is None:
            return
        if answer.status != 201:
            raise LocalServicesError(f"create answered {answer.status}: {json.dumps(answer.document)}")
        self.verdict.accepted(key, _now_ms())

    async def cancel_some(self) -> None:
        """Cancels most of its schedules early, some at the very due time."""
        keys = self._rng.sample(list(self.verdict.planned), CANCELS)

        async def one(key: str) -> None:
            if key in keys[:CANCELS_CLOSE]:
                wait_ms = self.verdict.planned[key].due_ms - _now_ms() + self._rng.randrange(-300, 20)
                await asyncio.sleep(max(0, wait_ms) / 1_000)
            await self.cancel(key)

        async with asyncio.TaskGroup() as group:
            for key in keys:
                group.create_task(one(key), name=f"cancel-{key}")

    async def cancel(self, key: str) -> None:
        self.verdict.cancelling(key)
        answer = await ask(self._session, "DELETE", self._url(key))
        if answer is not None:
            reason = answer.document.get("reason", str(answer.status))
            self.verdict.answered(key, "cancelled" if answer.status == 200 else reason)

    async def look_up(self, keys: Iterable[str]) -> None:
        """Reads the state of these schedules. One whose look-up has no answer keeps the state that was found before."""

        async def one(key: str) -> None:
            answer = await ask(self._session, "GET", self._url(key))
            match answer:
                case Answer(200, {"status": str(status)}):
                    self.verdict.found(key, status)
                case Answer(404, _):
                    self.verdict.found(key, "absent")

        await _some_at_once(one, list(keys))

    async def settle(self) -> None:
        """Waits until each schedule has arrived or is known as cancelled, as long as patience lasts; looks up all others."""
        verdict = self.verdict
        verdict.all_sent = True
        try:
            async with asyncio.timeout(SPREAD_MS / 1_000 + PATIENCE_S):
                while not verdict.everything_settled.is_set():
                    # Again and again: a cancel that has no answer may still be carried out after a look.
                    await self.look_up(key for key in verdict.unsettled() if verdict.planned[key].unanswered)
                    verdict.check_settled()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(verdict.everything_settled.wait(), LOOK_AGAIN_S)
        except TimeoutError:
            await self.look_up(verdict.unsettled())
            if verdict.lost:
                await asyncio.sleep(READ_S)
        verdict.everything_settled.set()

    def _url(self, key: str) -> str:
        return f"{self._running.http_url}/schedule/{self.client_id}/{key}"

    async def disturb(self, log_path: Path) -> None:
        """Starts a second node, kills it, and starts it again. Not with the store in memory: a second node would have an
        empty one of its own, and the shards that it takes would stand still."""
        if self._running.store == "memory":
            return
        environment = node_environment(
            kafka_brokers=self._running.kafka_brokers,
            store=store_settings(self._running.store, self._running.store_address),
            http_port=free_port(),
            more={"CLOCKWORK_SESSION_TIMEOUT_MS": str(SECOND_NODE_SESSION_MS)},
        )
        async with NodeProcess(environment, role="worker", log_path=log_path) as first:
            await first.until_ready()
            await asyncio.sleep(KILL_AFTER_S)
            await first.kill()
            self.verdict.killed_at_ms = _now_ms()
        await asyncio.sleep(AGAIN_AFTER_S)
        async with NodeProcess(environment, role="worker", log_path=log_path) as second:
            await second.until_ready()
            await self.verdict.everything_settled.wait()

    async def consume(self, consumer: AIOKafkaConsumer, progress: Progress) -> None:
        bar = progress.add_task("arrived", total=SCHEDULES)
        while True:
            pages: dict[Any, list[Any]] = await consumer.getmany(timeout_ms=200)
            for record in (record for page in pages.values() for record in page):
                headers = dict(record.headers)
                if headers.get("clockwork-client-id") == self.client_id.encode():
                    self.verdict.arrived(
                        headers["clockwork-schedule-key"].decode(), record.timestamp, json.loads(record.value)
                    )
            progress.update(bar, completed=self.verdict.settled())
            self.verdict.check_settled()


async def _some_at_once(one: Any, keys: list[str], at_once: int = 32) -> None:
    gate = asyncio.Semaphore(at_once)

    async def gated(key: str) -> None:
        async with gate:
            await one(key)

    async with asyncio.TaskGroup() as group:
        for key in keys:
            group.create_task(gated(key), name=f"create-{key}")


@asynccontextmanager
async def _reader(running: Running) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=running.kafka_brokers,
        isolation_level="read_committed",
        auto_offset_reset="latest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        await consumer.seek_to_end()
        for assigned in consumer.assignment():
            await consumer.position(assigned)
        yield consumer
    finally:
        await consumer.stop()


async def run(console: Console) -> bool:
    """One demo. True if no promise is known as broken. Raises: LocalServicesError."""
    running = find_running()
    if running.store == "memory":
        console.print("The store is memory: no second node joins and is killed.")
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with tempfile.TemporaryDirectory(prefix="clockwork-demo-") as folder:
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, _reader(running) as consumer:
            demo = Demo(running, session)
            demo.plan()
            with Progress(*columns, console=console) as progress:
                async with asyncio.TaskGroup() as group:
                    reading = group.create_task(demo.consume(consumer, progress), name="consume")
                    group.create_task(demo.disturb(Path(folder) / "second-node.log"), name="disturb")
                    await demo.create_all(progress)
                    await demo.cancel_some()
                    await demo.settle()
                    reading.cancel()
    console.print(verdict_table(demo.verdict))
    return demo.verdict.holds


def main() -> None:
    """The command line. Ends with 1 if a promise was broken."""
    argparse.ArgumentParser(
        prog="python -m infra.local.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    try:
        sys.exit(0 if asyncio.run(run(Console())) else 1)
    except* LocalServicesError as errors:
        sys.exit("\n".join(str(error) for error in errors.exceptions))
    except* KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
