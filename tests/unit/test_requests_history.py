"""Histories on the twins: what was accepted last comes first, until retention ends."""

from clockwork.domain.position import Position
from clockwork.domain.rights import ANYONE
from clockwork.domain.schedule import EndState, Outcome, ScheduleKey
from clockwork.requests.history import HistoryPage
from clockwork.requests.results import NotFound
from tests.support import builders
from tests.support.builders import CLIENT, DUE_MS, outcome, pointer, schedule
from tests.support.clocks import ManualClock
from tests.support.engine import Engine

KEY = ScheduleKey("a")


class Told:
    """A history over a store that the test fills."""

    def __init__(self) -> None:
        self.engine = Engine(clock=ManualClock(DUE_MS))
        self.clock, self.store = self.engine.clock, self.engine.store

    async def page(self, after: Position | None = None, limit: int = 100) -> HistoryPage | NotFound:
        return await self.engine.requests.history(ANYONE, CLIENT, KEY, after=after, limit=limit)

    def ended(self, state: EndState, *, due_ms: int, version: int = 1, expires_at_s: int = 2_000_000_000) -> Outcome:
        """The next schedule under the key, and its end."""
        row = builders.row(schedule(schedule_key=KEY, due_ms=due_ms, version=version))
        self.store.pointers[CLIENT, KEY] = pointer(row)
        end = outcome(row, state, expires_at_s=expires_at_s)
        self.store.outcomes[CLIENT, KEY, row.position] = end
        return end

    async def all(self, *, limit: int) -> list[Outcome]:
        found: list[Outcome] = []
        after: Position | None = None
        while True:
            page = await self.page(after, limit)
            assert isinstance(page, HistoryPage)
            found += page.outcomes
            after = page.next_after
            if after is None:
                return found


async def test_what_was_accepted_last_comes_first_whenever_it_was_due() -> None:
    told = Told()
    years_ahead = told.ended(EndState.CANCELLED, due_ms=DUE_MS + 10**9)
    moved = told.ended(EndState.SUPERSEDED, due_ms=DUE_MS + 500)
    delivered = told.ended(EndState.DELIVERED, due_ms=DUE_MS)
    failed = told.ended(EndState.FAILED, due_ms=DUE_MS + 10**6)

    for limit in (1, 3, 4, 100):
        assert await told.all(limit=limit) == [failed, delivered, moved, years_ahead]


async def test_ends_that_are_older_than_retention_are_not_told_though_they_are_still_stored() -> None:
    told = Told()
    told.ended(EndState.DELIVERED, due_ms=DUE_MS, expires_at_s=DUE_MS // 1_000)
    recent = told.ended(EndState.CANCELLED, due_ms=DUE_MS)

    assert await told.all(limit=10) == [recent]


async def test_a_key_that_was_never_heard_of_has_no_history_and_a_pending_one_an_empty_one() -> None:
    told = Told()
    assert await told.page() == NotFound()

    row = builders.row(schedule(schedule_key=KEY))
    await told.store.create(row, pointer(row), replaces=None)

    assert await told.all(limit=1) == []
