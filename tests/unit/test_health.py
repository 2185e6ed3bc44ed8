"""A node watches itself: its store, its clock, and whether its machine's clock was set back."""

import asyncio
import logging
from typing import Any

import pytest

from clockwork.clock import HELD_AHEAD_MS_MAX, HeldTimeWatch
from clockwork.node.health import HELD_TIME_INTERVAL_S, HealthWatch
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
