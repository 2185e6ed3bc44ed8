"""One request, sent again until it is answered, to another node each time, as the interface asks of its clients. What is
asked and what is answered stands in the history."""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from tests.chaos.history import Asked, History, Wish
from tests.chaos.world import World
from tests.support.client import NO_ANSWER, Answered, Client
from tests.support.nodes import now_ms

AGAIN_S: Final = (0.1, 1.6)
"""Wait before a request is sent again: doubling from the first to the second, with jitter."""

_Ask = Callable[[Client], Awaitable[Answered]]


class Asking:
    """Every method returns whether it was answered."""

    def __init__(self, world: World, history: History) -> None:
        self._world = world
        self._history = history
        self.unanswered = 0
        """Requests under way."""
        self.given_up = False
        """All is healed for long: who has no answer by now gets none."""

    async def create(self, asked: Asked, body: Mapping[str, Any], *, tries: int | None = None) -> bool:
        return await self._until_answered("create", asked, lambda client: client.create(body), tries=tries)

    async def cancel(self, asked: Asked) -> bool:
        named = (asked.client_id, asked.schedule_key)
        asked.cancels += 1
        return await self._until_answered("cancel", asked, lambda client: client.cancel(*named))

    async def read(self, asked: Asked) -> bool:
        named = (asked.client_id, asked.schedule_key)
        return await self._until_answered("get", asked, lambda client: client.get(*named))

    async def put(self, asked: Asked, body: Mapping[str, Any], wish: Wish) -> bool:
        named = (asked.client_id, asked.schedule_key)
        if_match = f'"{wish.if_version}"' if wish.if_version is not None else None
        ask: _Ask = lambda client: client.put(*named, body, if_match=if_match)  # noqa: E731
        return await self._until_answered("put", asked, ask, wish=wish)

    async def fire(self, asked: Asked) -> bool:
        named = (asked.client_id, asked.schedule_key)
        return await self._until_answered("fire", asked, lambda client: client.fire(*named), wish=Wish(kind="fire"))

    async def retry(self, asked: Asked) -> bool:
        named = (asked.client_id, asked.schedule_key)
        return await self._until_answered("retry", asked, lambda client: client.retry(*named), wish=Wish(kind="retry"))

    async def _until_answered(
        self, call: str, asked: Asked, ask: _Ask, *, wish: Wish | None = None, tries: int | None = None
    ) -> bool:
        if wish is not None:
            asked.wishes.append(wish)
        self.unanswered += 1
        try:
            return await self._again_and_again(call, asked, ask, wish, tries)
        finally:
            self.unanswered -= 1

    async def _again_and_again(self, call: str, asked: Asked, ask: _Ask, wish: Wish | None, tries: int | None) -> bool:
        counted = self._history.answers
        for number in itertools.count(1):
            nodes = self._world.nodes()
            if nodes:
                # Not from the story's own source: how many tries it takes must not change what the story does next.
                client = random.choice(nodes).client
                sent_ms = now_ms()
                if wish is not None:
                    wish.tries_ms.append(sent_ms)
                try:
                    answered = await ask(client)
                except NO_ANSWER:
                    counted[f"{call} -"] += 1
                else:
                    counted[f"{call} {answered.status}"] += 1
                    if answered.status != 503:
                        times = {"sent_ms": sent_ms, "received_ms": now_ms()}
                        self._history.note(asked, call, client.url, answered, **times, wish=wish)
                        return True
            if tries is not None and number >= tries:
                return False
            if self.given_up:
                self._history.improper.append(f"{call} of {asked.schedule_key}: never answered, though all was healed")
                return False
            await asyncio.sleep(min(AGAIN_S[1], AGAIN_S[0] * 2**number) * random.uniform(0.5, 1.0))
        raise AssertionError("unreachable")
