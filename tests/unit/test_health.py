"""A node watches itself: its store, its clock, and whether its machine's clock was set back."""

import asyncio
import logging
from typing import Any

import pytest

from clockwork.clock import HELD_AHEAD_MS_MAX, SKEW_MS_MAX, HeldTimeWatch
from clockwork.errors import Unavailable
from clockwork.node.health import FIRST_COMPARISON_S, HELD_TIME_INTERVAL_S, PING_INTERVAL_S, HealthWatch
from clockwork.observability.metrics import PrometheusTelemetry
from tests.support.clocks import TrustedClock
from tests.support.virtual_time import in_virtual_time


class NeverAnswers:
    """A store whose answers never come."""

    async def ping(self) -> None:
        await asyncio.Event().wait()


@in_virtual_time
async def watched(telemetry: PrometheusTelemetry, leads_ms: list[int]) -> None:
    """Lets the watch look at each lead of held time for a while."""
    guard: Any = TrustedClock()
    store: Any = NeverAnswers()
    lead_ms = 0
    watch = HealthWatch(store, guard, HeldTimeWatch(lambda: lead_ms), telemetry)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch.run(), name="watch")
        for lead_ms in leads_ms:  # noqa: B007  # read by the watch
            await asyncio.sleep(3 * HELD_TIME_INTERVAL_S)
        watching.cancel()


def test_a_clock_that_was_set_back_is_logged_once_and_measured_even_while_the_store_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    telemetry = PrometheusTelemetry()
    with caplog.at_level(logging.INFO):
        watched(telemetry, [0, HELD_AHEAD_MS_MAX, HELD_AHEAD_MS_MAX + 500, HELD_AHEAD_MS_MAX + 400])
    assert [vars(line)["event"] for line in caplog.records] == ["clock.set_back"]
    assert (caplog.records[0].levelname, vars(caplog.records[0])["ahead_ms"]) == ("ERROR", HELD_AHEAD_MS_MAX + 500)
    assert b"clockwork_clock_held_ahead_seconds 2.4" in telemetry.exposition()[0]


def test_a_clock_that_has_caught_up_again_is_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        watched(PrometheusTelemetry(), [HELD_AHEAD_MS_MAX + 1, 0])
    assert [(line.levelname, vars(line)["trusted"]) for line in caplog.records] == [("ERROR", False), ("INFO", True)]


# --- the store and the comparison of clocks


class Comparison:
    """A store that answers or not, and the comparison of clocks that its answers allow."""

    def __init__(self) -> None:
        self.away = False
        self.skew_ms: int | None = None

    async def ping(self) -> None:
        if self.away:
            raise Unavailable("no answer")

    def trusted(self) -> bool:
        return self.skew_ms is not None and abs(self.skew_ms) <= SKEW_MS_MAX


def told_by_a_watch(
    caplog: pytest.LogCaptureFixture, *steps: tuple[bool, int | None], step_s: float = PING_INTERVAL_S
) -> list[tuple[str, str]]:
    """Level and event of each line that a watch logs. `steps`: is the store away, and the skew."""

    @in_virtual_time
    async def watched_steps() -> None:
        node: Any = Comparison()
        watch = HealthWatch(node, node, HeldTimeWatch(lambda: 0), PrometheusTelemetry())
        async with asyncio.TaskGroup() as group:
            (node.away, node.skew_ms), *later = steps
            watching = group.create_task(watch.run(), name="watch")
            await asyncio.sleep(step_s)
            for node.away, node.skew_ms in later:
                await asyncio.sleep(step_s)
            watching.cancel()

    with caplog.at_level(logging.INFO):
        watched_steps()
    return [(line.levelname, vars(line)["event"]) for line in caplog.records]


def test_a_clock_that_was_not_compared_yet_is_no_error_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    lines = told_by_a_watch(caplog, (False, None), (False, 0))
    assert lines == [("INFO", "clock.trust"), ("INFO", "clock.trust")]


@pytest.mark.parametrize(
    ("skew_ms", "step_s"),
    [(None, FIRST_COMPARISON_S + 2 * PING_INTERVAL_S), (SKEW_MS_MAX + 1, HELD_TIME_INTERVAL_S)],
    ids=["never compared", "wrong"],
)
def test_a_clock_that_stays_unknown_or_is_wrong_is_an_error(
    caplog: pytest.LogCaptureFixture, skew_ms: int | None, step_s: float
) -> None:
    assert told_by_a_watch(caplog, (False, skew_ms), step_s=step_s)[-1] == ("ERROR", "clock.trust")


def test_a_clock_that_is_trusted_no_more_is_an_error_at_once(caplog: pytest.LogCaptureFixture) -> None:
    lines = told_by_a_watch(caplog, (False, 0), (False, -SKEW_MS_MAX - 1))
    assert lines == [("INFO", "clock.trust"), ("ERROR", "clock.trust")]


def test_a_store_comes_back_only_after_it_was_away_which_a_start_tells_too(caplog: pytest.LogCaptureFixture) -> None:
    lines = told_by_a_watch(caplog, (False, 0), (True, 0), (False, 0), step_s=2 * PING_INTERVAL_S)
    caplog.clear()
    from_the_start = told_by_a_watch(caplog, (True, 0), (False, 0))

    framed = [("WARNING", "store.away"), ("INFO", "store.back")]
    assert [each for each in lines if each[1] != "clock.trust"] == framed
    assert [each for each in from_the_start if each[1] != "clock.trust"] == framed
