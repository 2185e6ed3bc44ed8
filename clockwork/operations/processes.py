"""Processes of the cluster as they report of themselves, beside the members of the consumer group.

Each process puts a report into the store every 10 s (`ProcessReports`), so the list works without Kafka. One that is silent
for 30 s is gone; a day later any process removes its report. Where reports and the group differ, both are shown: a process
without membership owns no shards, a member without report is cut off from the store, or older than this version.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import dataclass
from typing import Final

from clockwork.clock import Clock
from clockwork.domain.ownership import ProcessId
from clockwork.domain.registry import FORGOTTEN_MS, GONE_MS, REPORT_MS, ProcessReport
from clockwork.errors import BrokerUnavailable, ClockworkError
from clockwork.ports.registry import Registry
from clockwork.settings.digests import differences

log = logging.getLogger(__name__)

SWEEP_INTERVAL_S: Final = 3_600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessesView:
    """The processes of the cluster."""

    reports: Sequence[ProcessReport]
    members: Set[ProcessId] | None
    """The members of the consumer group; None: Kafka could not be asked."""
    members_unknown: str | None
    """The reason of that."""
    differences: Sequence[tuple[str, Sequence[Sequence[str]]]]
    """Settings in which living processes differ, each with the groups of processes that have it alike."""
    as_of_ms: int

    def is_gone(self, report: ProcessReport) -> bool:
        """True if the process has been silent for too long."""
        return self.as_of_ms - report.seen_at_ms > GONE_MS


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessSurvey:
    """Reads the reports of all processes, and the members of the consumer group."""

    store: Registry
    clock: Clock
    member_processes: Callable[[], Awaitable[Set[ProcessId]]]
    """Asks Kafka. Raises: BrokerUnavailable."""

    async def processes(self) -> ProcessesView:
        """All processes that have reported within a day. Raises: StoreUnavailable."""
        members: Set[ProcessId] | None = None
        unknown: str | None = None
        try:
            members = await self.member_processes()
        except BrokerUnavailable as error:
            unknown = str(error)
        now_ms = self.clock.now_ms()
        reports = [each for each in await self.store.list_reports() if each.seen_at_ms > now_ms - FORGOTTEN_MS]
        # Lists of settings are comparable within one version.
        by_version: dict[str, dict[str, str]] = {}
        for each in reports:
            if now_ms - each.seen_at_ms <= GONE_MS:
                by_version.setdefault(each.version, {})[each.process] = each.settings
        found = [difference for digests in by_version.values() for difference in differences(digests)]
        return ProcessesView(
            reports=sorted(reports, key=lambda each: (each.node, each.process)),
            members=members,
            members_unknown=unknown,
            differences=found,
            as_of_ms=now_ms,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessReports:
    """The reports of this process."""

    store: Registry
    clock: Clock
    report: Callable[[int], ProcessReport]
    """This process as it is now, given the time since the report before, in milliseconds."""

    async def run(self) -> None:
        """Reports until cancelled; its report goes with it then, if the store takes that."""
        loop = asyncio.get_running_loop()
        swept_at_s = loop.time() - SWEEP_INTERVAL_S
        told_at_s = loop.time()
        report: ProcessReport | None = None
        try:
            while True:
                now_s = loop.time()
                report = self.report(max(1, round((now_s - told_at_s) * 1_000)))
                told_at_s = now_s
                try:
                    await self.store.put_report(report)
                    if now_s - swept_at_s >= SWEEP_INTERVAL_S:
                        swept_at_s = now_s
                        await self.sweep()
                except ClockworkError as error:
                    # The next report follows; until then others see this process as older than it is.
                    extra = {"event": "node.not_reported", "once_per": "report", "error": str(error)}
                    log.warning("This process is not reported", extra=extra)
                await asyncio.sleep(REPORT_MS / 1_000)
        finally:
            if report is not None:
                await self._withdraw(report)

    async def _withdraw(self, report: ProcessReport) -> None:
        """Removes the report of a process that stops. Best effort: what is left is gone in 30 s."""
        try:
            async with asyncio.timeout(1):
                await self.store.delete_report(report.process, seen_at_ms=report.seen_at_ms)
        except (ClockworkError, TimeoutError):
            return

    async def sweep(self) -> None:
        """Removes the reports of processes that are gone for a day. Raises: StoreUnavailable."""
        old_ms = self.clock.now_ms() - FORGOTTEN_MS
        for each in await self.store.list_reports():
            if each.seen_at_ms < old_ms:
                await self.store.delete_report(each.process, seen_at_ms=each.seen_at_ms)
