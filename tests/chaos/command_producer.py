"""A producer of commands, on librdkafka, as other people's programs are: what it is given goes out in transactions, of which
some are aborted on purpose, and others because the broker was struck.

A transaction whose commit has no answer is settled by the next producer under the same transactional id, one way or
the other: its commands may have been carried out, and nothing is claimed of them.
"""

import asyncio
import json
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import KafkaException, Producer

from tests.chaos.history import (
    Command,
    CommandFate,
    CommandKind,
    History,
    JobCommandKind,
    RunCommandKind,
    WantedChange,
)
from tests.chaos.world import World
from tests.support.nodes import now_ms

EVERY_S: Final = 0.15
"""From the end of one transaction to the begin of the next; what was given meanwhile goes into it."""
STEP_S: Final = 5.0
"""Time limit of one call to the broker; what can be repeated is repeated."""
TRIES_MAX: Final = 12
TRANSACTION_MS_MAX: Final = 10_000
"""Then the broker aborts it: an open one hides all that comes after it."""
ABORTED: Final = 0.15
"""Share of transactions."""
SILENT: Final = logging.Logger("librdkafka", logging.CRITICAL + 1)
MINE: Final = "mine"
"""A header of the producer's own: the command's number."""


class CommandProducer:
    """Sends commands."""

    def __init__(self, world: World, history: History, *, seed: int) -> None:
        self._world = world
        self._history = history
        self._rng = random.Random(f"chaos commands {seed}")
        self._waiting: list[tuple[Command, bytes, bytes]] = []
        self._producer: Producer | None = None
        self._over = False
        """True: no caller waits any more, and the thread must end."""

    def give(
        self,
        kind: CommandKind | JobCommandKind | RunCommandKind,
        client_id: str,
        schedule_key: str,
        document: Any,
        *,
        wish: WantedChange | None = None,
        takes: Callable[[Mapping[str, Any], int, bool], str | None] | None = None,
        wants_reply: bool = True,
    ) -> Command:
        """Goes into the next transaction. A document that is bytes goes as it is. `takes`: see `Command`."""
        command = Command(
            number=len(self._history.commands),
            kind=kind,
            schedule_key=schedule_key,
            wish=wish,
            takes=takes,
            wants_reply=wants_reply,
        )
        self._history.commands.append(command)
        if kind != "poison" and takes is None:
            self._history.asked[schedule_key].commands.append(command)
        if isinstance(document, dict) and wants_reply:
            document = {**document, "replyTo": self._world.replies, "correlationId": str(command.number)}
        value = document if isinstance(document, bytes) else json.dumps(document).encode()
        self._waiting.append((command, client_id.encode(), value))
        return command

    async def run(self, stop: asyncio.Event) -> None:
        """One transaction after the other; returns when, after `stop`, nothing waits."""
        try:
            while self._waiting or not stop.is_set():
                if self._waiting:
                    batch, self._waiting = self._waiting, []
                    abort = self._rng.random() < ABORTED
                    await asyncio.to_thread(self._transaction, batch, abort)
                await asyncio.sleep(EVERY_S)
        finally:
            self._over = True

    def _transaction(self, batch: list[tuple[Command, bytes, bytes]], abort: bool) -> None:
        producer = self._ready()
        fate: CommandFate = "aborted"
        try:
            producer.begin_transaction()
            for command, key, value in batch:
                command.sent_ms = now_ms()
                if command.wish is not None:
                    command.wish.tries_ms.append(command.sent_ms)
                headers: list[tuple[str, str | bytes | None]] = [(MINE, str(command.number))]
                producer.produce(self._world.commands, key=key, value=value, headers=headers)
            producer.flush(STEP_S)
            if abort:
                self._insist(producer.abort_transaction)
            else:
                fate = "unknown"
                self._insist(producer.commit_transaction)
                fate = "committed"
        except KafkaException as failed:
            fate = self._after(failed, producer, fate)
        for command, _, _ in batch:
            command.fate = fate
            if fate == "aborted" and command.wish is not None:
                command.wish.tries_ms.clear()

    def _after(self, failed: KafkaException, producer: Producer, fate: CommandFate) -> CommandFate:
        """The fate of the commands of a transaction that failed."""
        if failed.args[0].txn_requires_abort():
            try:
                self._insist(producer.abort_transaction)
            except KafkaException:
                self._producer = None
            else:
                return "aborted"
        # The next one's init settles it: what was never asked to commit is aborted.
        self._producer = None
        return fate

    def _ready(self) -> Producer:
        """Raises: KafkaException, once no caller waits any more."""
        while self._producer is None:
            producer = Producer(
                {
                    "bootstrap.servers": self._world.services.kafka_brokers,
                    "transactional.id": f"{self._world.cluster.name}-shop",
                    "transaction.timeout.ms": TRANSACTION_MS_MAX,
                    "partitioner": "murmur2_random",
                    "reconnect.backoff.max.ms": 500,
                },
                # Brokers go away on purpose here, which it would report on standard error.
                logger=SILENT,
            )
            try:
                self._insist(producer.init_transactions)
            except KafkaException:
                if self._over:
                    raise
            else:
                self._producer = producer
        return self._producer

    def _insist(self, step: Any) -> None:
        """Raises: KafkaException."""
        for left in reversed(range(TRIES_MAX)):
            try:
                step(STEP_S)
            except KafkaException as failed:
                if not failed.args[0].retriable() or not left or self._over:
                    raise
            else:
                return
