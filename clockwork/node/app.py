"""The composition root: everything that a node is made of, put together by hand, opened in order, closed in reverse.

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
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from clockwork.access.gate import Access, open_access
from clockwork.clock import ClockGuard, SystemClock
from clockwork.commands.worker import CommandWorker
from clockwork.concurrency import Backoff
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import NewlyDue, WakeUp
from clockwork.errors import CannotStart, Unavailable
from clockwork.firing.deliver_acknowledged import AcknowledgedDelivery
from clockwork.firing.deliver_transactional import TransactionalDelivery
from clockwork.firing.destination_waits import DestinationWaits, rate_limits
from clockwork.firing.pause_watch import PauseWatch
from clockwork.firing.settlement import Settlement
from clockwork.firing.shard_loop import ConcurrencyLimits, ShardLoop
from clockwork.firing.shard_pass import ShardPass
from clockwork.firing.supervisor import Supervisor
from clockwork.firing.takeover import Takeover
from clockwork.http.server import HttpServer, make_app
from clockwork.kafka.client import KafkaContext
from clockwork.kafka.commands import KafkaCommandLog
from clockwork.kafka.ownership import KafkaOwnership
from clockwork.kafka.publisher import KafkaPublisher
from clockwork.kafka.wakeups import WakeupSender
from clockwork.node.app_admin import admin_parts
from clockwork.node.health import HealthWatch
from clockwork.node.readiness import NodeReadiness as NodeReadiness
from clockwork.node.readiness import Role as Role
from clockwork.node.resources import (
    http_tls,
    kafka_context,
    leave_as,
    prepare_resources,
    watched_certificates,
)
from clockwork.node.siblings import Sibling, SiblingPages, answering_siblings
from clockwork.observability.metrics import PrometheusTelemetry
from clockwork.observability.tracing import open_tracer
from clockwork.ports.store import Stores
from clockwork.requests.context import RequestContext
from clockwork.requests.listing import count_ahead
from clockwork.requests.service import RequestService
from clockwork.settings.model import Settings
from clockwork.stores import open_stores
from clockwork.tls import CertWatch

log = logging.getLogger(__name__)

PASSES_AT_ONCE: Final = 32
"""Passes under way on one node: bounds its memory, and lets each shard have its turn (first come, first served), however
long another one's backlog is."""
TAKEOVERS_AT_ONCE: Final = 16
"""Take-overs under way: bounds the rush after a rebalance. Apart from the passes, since a take-over may wait long for a
coordinator that is away, and healthy shards must not queue behind it."""
PARENT_FD: Final = 0
"""Standard input, which in one of several processes is a pipe that ends with its parent (`clockwork.node.processes`)."""
PREPARE_BACKOFF: Final = BackoffPolicy(initial_ms=200, max_ms=5_000)


Commands = Callable[[], Coroutine[Any, Any, None]]
"""Takes commands until cancelled."""


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
            ]
            work = group.create_task(self._work(), name="work")
            stopped = group.create_task(stop.wait(), name="stop")
            await asyncio.wait([stopped, work], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            self.readiness.stopping = True
            log.info("Stopping", extra={"event": "node.stopping"})
            await self.http.stop()
            work.cancel()
            await asyncio.wait([work])
            for task in side:
                task.cancel()

    async def _work(self) -> None:
        await self._prepare()
        async with asyncio.TaskGroup() as group:
            if self.commands is not None:
                group.create_task(self.commands(), name="commands")
            await self._fire()

    async def _fire(self) -> None:
        if not self.role.fires:
            await asyncio.Event().wait()
        # Two nested tasks, so that the loops drain first and the group is left after them.
        async with asyncio.TaskGroup() as group:
            member = group.create_task(self.ownership.run(self.supervisor.assign, self._on_wakeup), name="group-member")
            pauses = group.create_task(self.pauses.run(), name="pauses")
            try:
                await self.supervisor.run()
            finally:
                member.cancel()
                pauses.cancel()

    def _on_wakeup(self, shard: ShardId, wakeup: WakeUp) -> None:
        # One that comes for a shard which has just gone is of no use here, and its new owner looks at everything first.
        self.supervisor.tell(shard, wakeup)

    async def _prepare(self) -> None:
        """Makes or checks store and topics, for as long as it takes the store and Kafka to answer."""
        backoff_state = Backoff(random.SystemRandom(), PREPARE_BACKOFF)
        while True:
            try:
                await prepare_resources(self.settings, self.stores, fires=self.role.fires)
                if self.role.fires:
                    await self.pauses.begin()
            except Unavailable as error:
                self.readiness.preparing = f"starting: {error}"
                if backoff_state.failures_in_row == 0:
                    log.warning("Start waits", extra={"event": "node.start_waits", "error": str(error)})
                await asyncio.sleep(backoff_state.next_wait_s())
            else:
                self.readiness.preparing = None
                log.info("Ready", extra={"event": "node.ready", "role": self.role})
                return


@asynccontextmanager
async def open_node(settings: Settings, role: Role, sibling: Sibling | None = None) -> AsyncIterator[Node]:
    """Opens the adapters and puts a node together, or one of its processes; closes all of it at the end.

    Raises: CannotStart.
    """
    if settings.store.in_process and role is not Role.ALL:
        raise CannotStart(
            f"--role {role} does not work with CLOCKWORK_STORE={settings.store.kind}: no other node can share what is "
            "accepted; leave the role out"
        )
    clock = SystemClock()
    guard = ClockGuard(clock)
    telemetry = PrometheusTelemetry()
    rng = random.SystemRandom()
    node_name = f"{socket.gethostname()}:{os.getpid()}"
    kafka = kafka_context(settings)
    https = http_tls(settings)
    async with AsyncExitStack() as stack:
        tracer = await stack.enter_async_context(open_tracer(settings.log.tracing))
        stores = await stack.enter_async_context(
            open_stores(settings, clock=clock, observe=guard.observe, telemetry=telemetry)
        )
        store = stores.schedules
        publisher = await stack.enter_async_context(KafkaPublisher(kafka, clock))
        ownership = KafkaOwnership(kafka, telemetry, send_wakeup=publisher.send_wakeup)
        destination_waits = DestinationWaits(
            topic_wait_ms=settings.runner.topic_wait_ms, limits=rate_limits(settings.pace, telemetry)
        )
        takeover = Takeover(
            store, publisher, telemetry, node=node_name, retention_ms=settings.runner.retention_ms, rng=rng
        )
        settlement = Settlement(store, destination_waits, clock, telemetry, rng, settings.runner, tracer=tracer)
        pauses = PauseWatch(stores.pauses, telemetry, on_change=lambda: supervisor.tell_all(NewlyDue(0)))
        shard_pass = ShardPass(
            store,
            TransactionalDelivery(takeover, settlement, telemetry),
            AcknowledgedDelivery(publisher, settlement),
            destination_waits,
            clock,
            guard,
            telemetry,
            settings.runner,
            pauses=pauses.current,
        )
        concurrency = ConcurrencyLimits(
            passes=asyncio.Semaphore(PASSES_AT_ONCE), takeovers=asyncio.Semaphore(TAKEOVERS_AT_ONCE)
        )

        def new_loop(shard: ShardId) -> ShardLoop:
            return ShardLoop(shard, takeover, shard_pass, concurrency, clock, telemetry, rng, settings.runner)

        supervisor = Supervisor(new_loop, telemetry, drain_timeout_ms=settings.http.drain_timeout_ms)
        waker = WakeupSender(ownership, supervisor.tell)
        watch = HealthWatch(store, guard, telemetry)
        readiness = _readiness(role, guard, watch, publisher, supervisor, ownership)
        context = RequestContext(
            store=store,
            search=stores.search,
            clock=clock,
            trust=guard,
            rng=rng,
            settings=settings.intake,
            waker=waker,
            topic_exists=publisher.topic_exists,
            telemetry=telemetry,
            tracer=tracer,
            lists=stores.lists,
        )
        count = partial(count_ahead, context.search, clock)
        access = open_access(settings.access, clock, telemetry, accepts=role.accepts, count=count)
        requests = RequestService(context=context, rate_limits=access.limits, pending=access.pending)
        app = make_app(
            requests,
            settings.http,
            readiness,
            telemetry,
            accepts=role.accepts,
            gate=access.gate,
            pages=SiblingPages(sibling=sibling) if sibling is not None else None,
            admin=admin_parts(settings, stores, requests),
        )
        if sibling is not None:
            await stack.enter_async_context(answering_siblings(sibling, readiness, telemetry))
        server = HttpServer(
            app, settings.http, https, connections=settings.connections, shares_port=sibling is not None
        )
        http = await stack.enter_async_context(server)
        yield Node(
            settings=settings,
            role=role,
            stores=stores,
            http=http,
            readiness=readiness,
            waker=waker,
            watch=watch,
            supervisor=supervisor,
            ownership=ownership,
            pauses=pauses,
            access=access,
            certificates=CertWatch(watched_certificates(settings, https, kafka)),
            commands=_make_commands(role, kafka, requests, publisher, telemetry, access),
        )


def _readiness(
    role: Role,
    guard: ClockGuard,
    watch: HealthWatch,
    publisher: KafkaPublisher,
    supervisor: Supervisor,
    ownership: KafkaOwnership,
) -> NodeReadiness:
    return NodeReadiness(
        role=role,
        guard=guard,
        watch=watch,
        publisher=publisher,
        shards_owned=lambda: len(supervisor.shards),
        group_trouble=ownership.trouble,
    )


def _make_commands(
    role: Role,
    kafka: KafkaContext,
    requests: RequestService,
    publisher: KafkaPublisher,
    telemetry: PrometheusTelemetry,
    access: Access,
) -> Commands | None:
    """The commands front door, if it is open."""
    if not (kafka.settings.commands and role.accepts):
        return None
    worker = CommandWorker(
        requests=requests,
        cluster=kafka.settings.cluster,
        publisher=publisher,
        rng=requests.context.rng,
        principal=access.principal_of_commands,
        topic=kafka.settings.commands_topic,
        dead_letter_topic=kafka.settings.dead_letters_topic,
    )
    return partial(KafkaCommandLog(kafka, telemetry).run, worker.work)


async def run_node(settings: Settings, role: Role, sibling: Sibling | None = None) -> None:
    """A node, or one of its processes, from start to SIGTERM. Raises: CannotStart."""
    stop, for_good = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_leave() -> None:
        for_good.set()
        stop.set()

    def on_signal() -> None:
        if stop.is_set():
            log.error("Stopped at once", extra={"event": "node.aborted"})
            os._exit(1)
        stop.set()

    def on_orphaned() -> None:
        # Nothing is ever written there: it has ended, and so has the parent.
        loop.remove_reader(PARENT_FD)
        log.error("The parent process is gone", extra={"event": "process.orphaned"})
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    loop.add_signal_handler(signal.SIGUSR1, on_leave)
    if sibling is not None:
        loop.add_reader(PARENT_FD, on_orphaned)
    try:
        async with open_node(settings, role, sibling) as node:
            await node.run(stop)
            if for_good.is_set() and role.fires:
                await _leave_for_good(settings)
    finally:
        loop.remove_reader(PARENT_FD)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            loop.remove_signal_handler(number)
    log.info("Stopped", extra={"event": "node.stopped"})


async def _leave_for_good(settings: Settings) -> None:
    """For one without an instance id there is nothing to do: it has left already."""
    if settings.kafka.instance_id is None:
        return
    try:
        await leave_as(settings, settings.kafka.instance_id)
    except Unavailable as error:
        # The drain was orderly all the same; the shards are handed over when the session ends, or by the command.
        extra = {"event": "group.not_left_for_good", "error": str(error)}
        log.error("Still in the group until its session ends: run `python -m clockwork leave`", extra=extra)
