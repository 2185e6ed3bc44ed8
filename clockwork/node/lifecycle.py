"""Lifecycle of a node.

How a node starts: HTTP answers first (`/livez` at once, `/readyz` with the reasons why not yet), then the adapters open,
then store and topics are made or checked for as long as it takes the store and Kafka to answer, then the group is joined.

How it stops (SIGTERM or SIGINT): HTTP takes no more and finishes what it has; the shard loops finish what is in flight,
within the drain time; the group is left last, so that no other node takes a shard that is still being drained. A second
signal ends the process at once: everything in doubt is what take-over is made for. A node with an instance id keeps its
place in the group for its return; SIGUSR1 in place of SIGTERM says that there will be none, and hands its shards over
at once.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from clockwork.access.gate import Access
from clockwork.concurrency import Backoff
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import WakeUp
from clockwork.errors import Unavailable
from clockwork.firing.pause_watch import PauseWatch
from clockwork.firing.supervisor import Supervisor
from clockwork.http.server import HttpServer
from clockwork.kafka.ownership import KafkaOwnership
from clockwork.kafka.wakeups import WakeupSender
from clockwork.node.health import HealthWatch
from clockwork.node.readiness import NodeReadiness, Role
from clockwork.node.resources import prepare_resources
from clockwork.observability.activity import ActivityRecorder
from clockwork.observability.known_clients import ClientRecorder
from clockwork.operations.activity import ActivityTail
from clockwork.operations.forecast import ShardForecasts
from clockwork.operations.job_audit import JobAudit
from clockwork.operations.processes import ProcessReports
from clockwork.ports.store import Stores
from clockwork.settings.model import Settings
from clockwork.tls import CertWatch

log = logging.getLogger(__name__)

PREPARE_BACKOFF: Final = BackoffPolicy(initial_ms=200, max_ms=5_000)

Commands = Callable[[], Coroutine[Any, Any, None]]
"""Processes commands until cancelled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One node, opened and ready to run."""

    settings: Settings
    role: Role
    stores: Stores
    http: HttpServer
    readiness: NodeReadiness
    waker: WakeupSender
    watch: HealthWatch
    supervisor: Supervisor
    ownership: KafkaOwnership
    pauses: PauseWatch
    audit: JobAudit | None
    """None: the cluster has no jobs."""
    clients: ClientRecorder
    reports: ProcessReports
    recorder: ActivityRecorder | None
    forecasts: ShardForecasts | None
    """None: no activity is recorded."""
    tail: ActivityTail | None
    """None: no activity is recorded, or this node does not accept."""
    access: Access
    certificates: CertWatch
    commands: Commands | None

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, then drains. Raises: CannotStart."""
        async with asyncio.TaskGroup() as group:
            side = [
                group.create_task(self.watch.run(), name="watch"),
                group.create_task(self.waker.run(), name="waker"),
                group.create_task(self.access.run(), name="access"),
                group.create_task(self.certificates.run(), name="certificates"),
                group.create_task(self.clients.run(), name="clients"),
            ]
            if self.recorder is not None:
                # Ends last: what the drain delivers is recorded too.
                side.append(group.create_task(self.recorder.run(), name="activity"))
            work = group.create_task(self._work(), name="work")
            stopped = group.create_task(stop.wait(), name="stop")
            await asyncio.wait([stopped, work], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            self.readiness.stopping = True
            log.info("Stopping", extra={"event": "node.stopping"})
            await self.http.stop()
            await self.ownership.withdraw()
            work.cancel()
            await asyncio.wait([work])
            for task in side:
                task.cancel()

    async def _work(self) -> None:
        await self._prepare()
        async with asyncio.TaskGroup() as group:
            if self.commands is not None:
                group.create_task(self.commands(), name="commands")
            if self.tail is not None:
                group.create_task(self.tail.run(), name="activity-tail")
            group.create_task(self.reports.run(), name="reports")
            await self._fire()

    async def _fire(self) -> None:
        if not self.role.fires:
            await asyncio.Event().wait()
        # Two nested tasks, so that the loops drain first and the group is left after them.
        async with asyncio.TaskGroup() as group:
            member = group.create_task(self.ownership.run(self.supervisor.assign, self._on_wakeup), name="group-member")
            side = [group.create_task(self.pauses.run(), name="pauses")]
            if self.audit is not None:
                side.append(group.create_task(self.audit.run(lambda: self.supervisor.shards), name="job-audit"))
            if self.forecasts is not None:
                side.append(group.create_task(self.forecasts.run(), name="shard-forecasts"))
            try:
                await self.supervisor.run()
            finally:
                member.cancel()
                for task in side:
                    task.cancel()

    def _on_wakeup(self, shard: ShardId, wakeup: WakeUp) -> None:
        # A wake-up for a shard that has just been handed over is dropped: the new owner begins with a scan of the
        # shard.
        self.supervisor.tell(shard, wakeup)

    async def _prepare(self) -> None:
        """Makes or checks store and topics, for as long as it takes the store and Kafka to answer."""
        backoff = Backoff(random.SystemRandom(), PREPARE_BACKOFF)
        while True:
            try:
                await prepare_resources(self.settings, self.stores, fires=self.role.fires)
                if self.role.fires:
                    await self.pauses.begin()
            except Unavailable as error:
                self.readiness.preparing = f"starting: {error}"
                if backoff.failures_in_row == 0:
                    log.warning("Start waits", extra={"event": "node.start_waits", "error": str(error)})
                await asyncio.sleep(backoff.next_wait_s())
            else:
                self.readiness.preparing = None
                log.info("Ready", extra={"event": "node.ready", "role": self.role})
                return
