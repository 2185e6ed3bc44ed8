"""The records of one transaction on their way, and the waits between tries."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from clockwork.domain.schedule import Receipt
from clockwork.errors import BrokerUnavailable, DeliveryUnknown, Fenced, Refusal
from clockwork.kafka import client as codes
from clockwork.kafka.client import FENCED_CODES
from clockwork.kafka.produce import (
    NO_ANSWER,
    NONE_YET,
    RECORD_REASONS,
    TOPIC_REASONS,
    TRANSIENT_REASONS,
    Answer,
    Line,
    ProducerIdentity,
    Producing,
    TopicPartition,
    missing_among,
    receipt_of,
    refused_for_now,
    refused_record,
    refused_topic,
)
from clockwork.kafka.topics import TopicDirectory

BACKOFF_S_INITIAL: Final = 0.001
"""The wait behind another transaction of ours, whose end the broker is still writing: mostly one or two ms."""
BACKOFF_S_MAX: Final = 0.05


class Trying:
    """What is known about the tries of one request, and the wait before the next: 1 ms, doubling."""

    def __init__(self) -> None:
        self.unanswered = 0
        """Tries that may have been carried out without our knowing."""
        self.last_error: BrokerUnavailable | None = None
        self._wait_s = BACKOFF_S_INITIAL

    async def wait(self) -> None:
        await asyncio.sleep(self._wait_s)
        self._wait_s = min(self._wait_s * 2, BACKOFF_S_MAX)

    def __str__(self) -> str:
        return f" ({self.last_error})" if self.last_error else ""


class Sending:
    """The records of one transaction on their way: goes on until each is placed or refused.

    It goes on after a refusal, although the transaction cannot be committed any more: the next one should leave out
    all the culprits at once.
    """

    def __init__(
        self,
        producing: Producing,
        directory: TopicDirectory,
        identity: ProducerIdentity,
        lines: Mapping[TopicPartition, Line],
    ) -> None:
        self.lines = lines
        self.receipt: dict[int, Receipt] = {}
        self.refusals: list[Refusal] = []
        self._producing = producing
        self._directory = directory
        self._identity = identity

    async def run(self) -> None:
        """Raises: Fenced, DeliveryUnknown. Has no time limit of its own."""
        loop = asyncio.get_running_loop()
        trying = Trying()
        while waiting := [line for line in self.lines.values() if line]:
            asked_at_s = loop.time()
            answers = await self._producing.once(waiting, self._identity)
            again = [line for line in waiting if line.where in answers and self._judge(line, answers[line.where])]
            if again:
                await self._refuse_missing({line.where[0] for line in again}, asked_at_s)
                await trying.wait()

    async def blame_what_is_stuck(self) -> bool:
        """Time ran out: adds to the refusals what the brokers said, or did not say, about topics. False: nothing is
        known against any topic; it was just too much, or Kafka is away."""
        stuck = {line.where[0]: line.last_code for line in self.lines.values() if line}
        if NO_ANSWER in stuck.values():
            try:
                await self._directory.layouts(stuck, since_s=asyncio.get_running_loop().time())
            except BrokerUnavailable:
                # It is not those topics then, but all of Kafka.
                stuck = {topic: code for topic, code in stuck.items() if code != NO_ANSWER}
        self.refusals += [refused_for_now(topic, code) for topic, code in stuck.items() if code != NONE_YET]
        return bool(self.refusals)

    def _judge(self, line: Line, answer: Answer) -> bool:
        """Draws the consequence of one batch's answer. True: to be sent again."""
        batch = line.head()
        if answer.code == codes.NONE:
            self._identity.advance(line.where, len(batch))
            for nth, (index, record) in enumerate(line.take(len(batch))):
                self.receipt[index] = receipt_of(line.where, record, answer, nth)
        elif answer.code in RECORD_REASONS and len(batch) > 1:
            self._directory.forget_limits(line.where[0])
            line.split(len(batch))
        elif answer.code in RECORD_REASONS:
            self.refusals.append(refused_record(line.take(1)[0][0], line.where[0], answer.code))
        elif answer.code in TOPIC_REASONS:
            self._refuse(refused_topic(line.where[0], answer.code))
        elif answer.code in TRANSIENT_REASONS or answer.code == NO_ANSWER:
            line.last_code = answer.code
            return True
        elif answer.code in FENCED_CODES:
            raise Fenced(f"{self._identity.transactional_id}: fenced, or aborted by the broker's time limit")
        else:
            raise DeliveryUnknown(f"{self._identity.transactional_id}: produce, error code {answer.code}")
        return False

    async def _refuse_missing(self, topics: Iterable[str], since_s: float) -> None:
        for refusal in await missing_among(self._directory, topics, since_s=since_s):
            self._refuse(refusal)

    def _refuse(self, refusal: Refusal) -> None:
        if refusal not in self.refusals:
            self.refusals.append(refusal)
        for line in self.lines.values():
            if line.where[0] == refusal.destination:
                line.clear()
