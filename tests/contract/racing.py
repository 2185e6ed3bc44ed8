"""Two writers at one moment, round after round."""

import asyncio
from collections.abc import Awaitable
from itertools import count
from typing import Final, TypeVar

_One = TypeVar("_One")
_Other = TypeVar("_Other")

_IN_TURN: Final = 8


class Race:
    """Lets two writes race, again and again.

    In one round of four one of them is done before the other begins, each in its turn: on a busy machine one may win
    all of some hundred races, and its loss would go unseen.
    """

    def __init__(self) -> None:
        self._rounds = count()

    async def between(self, one: Awaitable[_One], other: Awaitable[_Other]) -> tuple[_One, _Other]:
        """The results of both."""
        turn = next(self._rounds) % _IN_TURN
        if turn == 0:
            return await one, await other
        if turn == _IN_TURN // 2:
            result = await other
            return await one, result
        return await asyncio.gather(one, other)
