"""The composition root: everything that a node is made of, put together by hand, opened in order, closed in reverse.

How a node starts: HTTP answers first (`/livez` at once, `/readyz` with the reasons why not yet), then the adapters open,
then tables and topics are made or checked for as long as it takes DynamoDB and Kafka to answer, then the group is joined.

How it stops (SIGTERM or SIGINT): HTTP takes no more and finishes what it has; the shard loops finish what is in flight,
within the drain time; the group is left last, so that nobody takes a shard that is still being drained. A second signal
ends the process at once: everything in doubt is what take-over is made for.
"""

import asyncio
import logging
import os
import random
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from clockwork.adapters.dynamo_search import DynamoScheduleSearch
from clockwork.adapters.dynamo_store import DynamoScheduleStore
from clockwork.adapters.dynamo_tables import check_tables, create_tables, init_cluster
from clockwork.adapters.dynamo_wire import DynamoClientSettings
from clockwork.adapters.kafka_client import KafkaSettings
from clockwork.adapters.kafka_leave import leave_group
from clockwork.adapters.kafka_ownership import KafkaOwnership
from clockwork.adapters.kafka_publisher import KafkaPublisher
from clockwork.adapters.kafka_security import kafka_cert_files, kafka_security
from clockwork.adapters.kafka_topics import check_internal_topics, create_internal_topics
from clockwork.adapters.telemetry import PrometheusTelemetry
from clockwork.api.server import HttpServer, make_app
from clockwork.api.siblings import Sibling, answering_siblings
from clockwork.clock import ClockGuard, SystemClock
from clockwork.config import Settings
from clockwork.config_security import HTTP_CERT, HTTP_KEY
from clockwork.domain.retry import Backoff
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import WakeUp
from clockwork.engine.cancel import Canceller
from clockwork.engine.deliver import Delivery
from clockwork.engine.dispatch import Dispatcher
from clockwork.engine.history import History
from clockwork.engine.intake import Intake
from clockwork.engine.listing import Listing
from clockwork.engine.patience import Setbacks
from clockwork.engine.rearm import Rearmer
from clockwork.engine.reschedule import Rescheduler
from clockwork.engine.shard_loop import Gates, ShardLoop
from clockwork.engine.supervisor import Supervisor
from clockwork.engine.takeover import TakeOver
from clockwork.engine.topic_waits import TopicWaits
from clockwork.engine.waker import Waker
from clockwork.engine.watch import Watch
from clockwork.errors import StartRefused, Unavailable
from clockwork.tls import CertFiles, CertWatch, server_context

log = logging.getLogger(__name__)

PASSES_AT_ONCE: Final = 32
"""Passes under way on one node: bounds its memory, and lets each shard have its turn (first come, first served), however
long another one's backlog is."""
TAKEOVERS_AT_ONCE: Final = 16
"""Take-overs under way: bounds the rush after a rebalance. Apart from the passes, since a take-over may wait long for a
coordinator that is away, and healthy shards must not queue behind it."""
PARENT_FD: Final = 0
"""Of a process of a node: standard input, a pipe that ends with its parent (`clockwork.processes`)."""
PREPARE_BACKOFF: Final = Backoff(initial_ms=200, max_ms=5_000)


class Role(StrEnum):
    """What a node does."""

    ALL = "all"
    API = "api"
    WORKER = "worker"

    @property
    def accepts(self) -> bool:
        return self is not Role.WORKER

    @property
    def fires(self) -> bool:
        return self is not Role.API


@dataclass(kw_only=True, slots=True)
class NodeReadiness:
    """Can this node do what its role does? Implements the API's `Readiness`."""

    role: Role
    guard: ClockGuard
    watch: Watch
    publisher: KafkaPublisher
    shards_owned: Callable[[], int]
    preparing: str | None = "starting"
    """Why it is not open yet; None once it is."""
    stopping: bool = False

    def reasons(self) -> list[str]:
        """Why not; empty if it can."""
        found = []
        if self.stopping:
            found.append("stopping")
        if self.preparing is not None:
            found.append(self.preparing)
        if self.watch.store_error is not None:
            found.append(f"DynamoDB: {self.watch.store_error}")
        if not self.guard.trusted():
            found.append("clock: too far from DynamoDB's, or not compared lately")
        if self.role is Role.WORKER and not self.publisher.connected():
            found.append(f"Kafka does not answer: {self.publisher.trouble() or 'not asked yet'}")
        return found

    def details(self) -> dict[str, object]:
        """More about what it depends on. While Kafka is down the API goes on accepting, and names it here."""
        return {
            "role": self.role,
            "kafka": "up" if self.publisher.connected() else "down",
            "kafkaTrouble": self.publisher.trouble(),
            "dynamodb": "up" if self.watch.store_error is None else "down",
            "clockSkewMs": self.guard.skew_ms,
            "shardsOwned": self.shards_owned(),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One node, opened and ready to run."""

    settings: Settings
    role: Role
    http: HttpServer
    readiness: NodeReadiness
    waker: Waker
    watch: Watch
    supervisor: Supervisor
    ownership: KafkaOwnership
    certificates: CertWatch

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, then drains. Raises: StartRefused."""
        async with asyncio.TaskGroup() as group:
            side = [
                group.create_task(self.watch.run(), name="watch"),
                group.create_task(self.waker.run(), name="waker"),
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
        if not self.role.fires:
            await asyncio.Event().wait()
        # Two nested tasks, so that the loops drain first and the group is left after them.
        async with asyncio.TaskGroup() as group:
            member = group.create_task(self.ownership.run(self.supervisor.assign, self._on_wakeup), name="group-member")
            try:
                await self.supervisor.run()
            finally:
                member.cancel()

    def _on_wakeup(self, shard: ShardId, wakeup: WakeUp) -> None:
        # One that comes for a shard which has just gone is of no use here, and its new owner looks at everything first.
        self.supervisor.tell(shard, wakeup)

    async def _prepare(self) -> None:
        """Makes or checks tables and topics, for as long as it takes DynamoDB and Kafka to answer."""
        setbacks = Setbacks(random.SystemRandom(), PREPARE_BACKOFF)
        while True:
            try:
                await prepare_resources(self.settings)
            except Unavailable as error:
                self.readiness.preparing = f"starting: {error}"
                if setbacks.in_a_row == 0:
                    log.warning("Start waits", extra={"event": "node.start_waits", "error": str(error)})
                await asyncio.sleep(setbacks.next_wait_s())
            else:
                self.readiness.preparing = None
                log.info("Ready", extra={"event": "node.ready", "role": self.role})
                return


@asynccontextmanager
async def open_node(settings: Settings, role: Role, sibling: Sibling | None = None) -> AsyncIterator[Node]:
    """Opens the adapters and puts a node together, or one of its processes; closes all of it at the end.

    Raises: StartRefused.
    """
    clock = SystemClock()
    guard = ClockGuard(clock)
    telemetry = PrometheusTelemetry()
    rng = random.SystemRandom()
    node_name = f"{socket.gethostname()}:{os.getpid()}"
    kafka = kafka_settings(settings)
    https = http_tls(settings)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(
            DynamoScheduleStore(dynamo_settings(settings), clock=clock, observe=guard.observe, telemetry=telemetry)
        )
        publisher = await stack.enter_async_context(KafkaPublisher(kafka, clock))
        ownership = KafkaOwnership(kafka, telemetry, send_wakeup=publisher.send_wakeup)
        topic_waits = TopicWaits(topic_wait_ms=settings.runner.topic_wait_ms)
        take_over = TakeOver(
            store, publisher, telemetry, node=node_name, retention_ms=settings.runner.retention_ms, rng=rng
        )
        delivery = Delivery(store, publisher, take_over, topic_waits, clock, telemetry, rng, settings.runner)
        dispatcher = Dispatcher(store, delivery, topic_waits, clock, guard, telemetry, settings.runner)
        gates = Gates(passes=asyncio.Semaphore(PASSES_AT_ONCE), takeovers=asyncio.Semaphore(TAKEOVERS_AT_ONCE))

        def new_loop(shard: ShardId) -> ShardLoop:
            return ShardLoop(shard, take_over, dispatcher, gates, clock, telemetry, rng, settings.runner)

        supervisor = Supervisor(new_loop, telemetry, drain_timeout_ms=settings.http.drain_timeout_ms)
        waker = Waker(ownership, supervisor.tell)
        watch = Watch(store, guard, telemetry)
        readiness = NodeReadiness(
            role=role, guard=guard, watch=watch, publisher=publisher, shards_owned=lambda: len(supervisor.shards)
        )
        intake = Intake(store, publisher, waker, clock, guard, rng, settings.intake)
        canceller = Canceller(store, waker, clock, rng, settings.intake)
        search = DynamoScheduleSearch(store.client)
        app = make_app(
            intake,
            canceller,
            settings.http,
            readiness,
            telemetry,
            clock,
            rescheduler=Rescheduler(store, publisher, waker, clock, guard, rng, settings.intake),
            rearmer=Rearmer(store, publisher, waker, clock, guard, rng, settings.intake),
            accepts=role.accepts,
            request_timeout_ms=settings.intake.request_timeout_ms,
            lists=Listing(search, store, clock, rng, settings.intake) if settings.dynamo.search == "on" else None,
            history=History(search, store, clock, rng, settings.intake),
            sibling=sibling,
        )
        if sibling is not None:
            await stack.enter_async_context(answering_siblings(sibling, readiness, telemetry))
        http = await stack.enter_async_context(HttpServer(app, settings.http, https, shares_port=sibling is not None))
        yield Node(
            settings=settings,
            role=role,
            http=http,
            readiness=readiness,
            waker=waker,
            watch=watch,
            supervisor=supervisor,
            ownership=ownership,
            certificates=CertWatch(watched_certificates(settings, https, kafka)),
        )


async def run_node(settings: Settings, role: Role, sibling: Sibling | None = None) -> None:
    """A node, or one of its processes, from start to SIGTERM. Raises: StartRefused."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

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
    if sibling is not None:
        loop.add_reader(PARENT_FD, on_orphaned)
    try:
        async with open_node(settings, role, sibling) as node:
            await node.run(stop)
    finally:
        loop.remove_reader(PARENT_FD)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    log.info("Stopped", extra={"event": "node.stopped"})


async def prepare_resources(settings: Settings) -> None:
    """What a node does with tables and topics at its start. Raises: StartRefused, Unavailable."""
    if settings.dynamo.create_resources:
        await init_resources(settings)
    else:
        await check_resources(settings)


async def init_resources(settings: Settings) -> None:
    """`python -m clockwork init`: makes what is missing, then checks. Raises: StartRefused, Unavailable."""
    await create_tables(dynamo_settings(settings))
    await init_cluster(dynamo_settings(settings), shards=settings.intake.shards)
    await create_internal_topics(kafka_settings(settings))
    await check_resources(settings)


async def check_resources(settings: Settings) -> None:
    """`python -m clockwork check`. Raises: StartRefused (what is wrong, and what to do), Unavailable."""
    await check_tables(dynamo_settings(settings), shards=settings.intake.shards)
    await check_internal_topics(kafka_settings(settings))


async def leave_for_good(settings: Settings) -> None:
    """`python -m clockwork leave`: the node with this instance id, stopped by now, will not come back, so its shards are
    handed over without waiting for its session to end. Raises: StartRefused, Unavailable."""
    if settings.kafka.instance_id is None:
        raise StartRefused("CLOCKWORK_INSTANCE_ID is not set: a node without one leaves by itself when it stops")
    for instance_id in settings.processes.instance_ids(settings.kafka.instance_id):
        there = await leave_group(kafka_settings(settings), instance_id)
        log.info(
            "Left for good",
            extra={"event": "group.left_for_good", "instance_id": instance_id, "was_member": there},
        )


def dynamo_settings(settings: Settings) -> DynamoClientSettings:
    """The store's settings, as the environment gives them."""
    chosen = settings.dynamo
    return DynamoClientSettings(
        region=chosen.region,
        endpoint=chosen.endpoint,
        access_key=chosen.access_key,
        secret_key=chosen.secret_key.get_secret_value() if chosen.secret_key is not None else None,
        schedules_table=chosen.schedules_table,
        executions_table=chosen.executions_table,
        keys_table=chosen.keys_table,
        search=chosen.search == "on",
    )


def http_tls(settings: Settings) -> ssl.SSLContext | None:
    """None: plain HTTP. Raises: StartRefused."""
    files = http_cert_files(settings)
    return server_context(files) if files is not None else None


def http_cert_files(settings: Settings) -> CertFiles | None:
    cert, key = settings.http.tls_cert, settings.http.tls_key
    if cert is None or key is None:
        return None
    return CertFiles(cert=cert, key=key, cert_setting=HTTP_CERT, key_setting=HTTP_KEY)


def watched_certificates(
    settings: Settings, https: ssl.SSLContext | None, kafka: KafkaSettings
) -> list[tuple[ssl.SSLContext, CertFiles]]:
    """Those that are loaded again when they change."""
    found = [
        (https, http_cert_files(settings)),
        (kafka.security.ssl_context, kafka_cert_files(settings.kafka_security)),
    ]
    return [(context, files) for context, files in found if context is not None and files is not None]


def kafka_settings(settings: Settings) -> KafkaSettings:
    """Kafka's settings, as the environment gives them. Raises: StartRefused."""
    chosen = settings.kafka
    return KafkaSettings(
        brokers=",".join(chosen.brokers),
        cluster=chosen.cluster,
        shards=chosen.shards,
        consumer_group=chosen.consumer_group,
        instance_id=chosen.instance_id,
        session_timeout_ms=chosen.session_timeout_ms,
        heartbeat_interval_ms=chosen.heartbeat_interval_ms,
        security=kafka_security(settings.kafka_security, region=settings.dynamo.region),
    )
