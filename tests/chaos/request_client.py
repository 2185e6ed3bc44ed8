"""One request, sent again until it is answered, to another node each time, as the interface asks of its clients. What is
asked and what is answered stands in the history."""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.chaos.history import History, ScheduleHistory, WantedChange
from tests.chaos.world import World
from tests.support.client import NO_ANSWER, Answered, Client
from tests.support.nodes import now_ms

AGAIN_S: Final = (0.1, 1.6)
"""Wait before a request is sent again: doubling from the first to the second, with jitter."""

_Ask = Callable[[Client], Awaitable[Answered]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """An answer, of whom, and when."""

    answered: Answered
    node: str
    """The URL of the node that answered."""
    sent_ms: int
    received_ms: int


class RequestClient:
    """Every method but `until_told` returns whether it was answered."""

    def __init__(self, world: World, history: History) -> None:
        self._world = world
        self._history = history
        self.unanswered = 0
        """Requests under way."""
        self.given_up = False
        """All is healed for long: who has no answer by now gets none."""

    async def create(self, asked: ScheduleHistory, body: Mapping[str, Any], *, tries: int | None = None) -> bool:
        return await self._until_answered("create", asked, lambda client: client.create(body), tries=tries)

    async def cancel(self, asked: ScheduleHistory) -> bool:
        named = (asked.client_id, asked.schedule_key)
        asked.cancels += 1
        return await self._until_answered("cancel", asked, lambda client: client.cancel(*named))

    async def read(self, asked: ScheduleHistory) -> bool:
        named = (asked.client_id, asked.schedule_key)
        return await self._until_answered("get", asked, lambda client: client.get(*named))

    async def put(self, asked: ScheduleHistory, body: Mapping[str, Any], wish: WantedChange) -> bool:
        named = (asked.client_id, asked.schedule_key)
        if_match = f'"{wish.if_version}"' if wish.if_version is not None else None
        ask: _Ask = lambda client: client.put(*named, body, if_match=if_match)  # noqa: E731
        return await self._until_answered("put", asked, ask, wish=wish)

    async def fire(self, asked: ScheduleHistory) -> bool:
        named = (asked.client_id, asked.schedule_key)
        return await self._until_answered(
            "fire", asked, lambda client: client.fire(*named), wish=WantedChange(kind="fire")
        )

    async def retry(self, asked: ScheduleHistory) -> bool:
        named = (asked.client_id, asked.schedule_key)
        return await self._until_answered(
            "retry", asked, lambda client: client.retry(*named), wish=WantedChange(kind="retry")
        )

    async def _until_answered(
        self,
        call: str,
        asked: ScheduleHistory,
        ask: _Ask,
        *,
        wish: WantedChange | None = None,
        tries: int | None = None,
    ) -> bool:
        if wish is not None:
            asked.wishes.append(wish)

        def tried(sent_ms: int, until_ms: int | None) -> None:
            if wish is not None and until_ms is None:
                wish.tries_ms.append(sent_ms)

        told = await self.until_told(call, ask, about=asked.schedule_key, tried=tried, tries=tries)
        if told is None:
            return False
        times = {"sent_ms": told.sent_ms, "received_ms": told.received_ms}
        self._history.note(asked, call, told.node, told.answered, **times, wish=wish)
        return True

    def note_improper(self, line: str | None) -> None:
        """Takes an answer that the interface does not allow; None: it does."""
        if line is not None:
            self._history.improper.append(line)

    async def until_told(
        self,
        call: str,
        ask: _Ask,
        *,
        about: str,
        tried: Callable[[int, int | None], None] | None = None,
        tries: int | None = None,
    ) -> Told | None:
        """Asks one node after the other. `tried` is told of each try, when it is sent (ms, None), and of the one that was
        answered, when it was (both ms). None: there was no answer within so many tries, or until `given_up`."""
        self.unanswered += 1
        try:
            return await self._again_and_again(call, ask, about, tried or (lambda sent_ms, until_ms: None), tries)
        finally:
            self.unanswered -= 1

    async def _again_and_again(
        self, call: str, ask: _Ask, about: str, tried: Callable[[int, int | None], None], tries: int | None
    ) -> Told | None:
        counted = self._history.answers
        for number in itertools.count(1):
            nodes = self._world.nodes()
            if nodes:
                # Not from the story's own source: how many tries it takes must not change what the story does next.
                client = random.choice(nodes).client
                sent_ms = now_ms()
                tried(sent_ms, None)
                try:
                    answered = await ask(client)
                except NO_ANSWER:
                    counted[f"{call} -"] += 1
                else:
                    counted[f"{call} {answered.status}"] += 1
                    if answered.status != 503:
                        received_ms = now_ms()
                        tried(sent_ms, received_ms)
                        return Told(answered=answered, node=client.url, sent_ms=sent_ms, received_ms=received_ms)
            if tries is not None and number >= tries:
                return None
            if self.given_up:
                self._history.improper.append(f"{call} of {about}: never answered, though all was healed")
                return None
            await asyncio.sleep(min(AGAIN_S[1], AGAIN_S[0] * 2**number) * random.uniform(0.5, 1.0))
        raise AssertionError("unreachable")
