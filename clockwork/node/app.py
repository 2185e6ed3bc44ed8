"""The composition root: the parts of a node, put together, opened in order, closed in reverse."""

import asyncio
import logging
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

import clockwork
from clockwork.access.gate import Access, build_access
from clockwork.clock import ClockGuard, HeldTimeWatch, SystemClock
from clockwork.commands.worker import CommandWorker
from clockwork.domain.activity import TopicWait, merged_waits
from clockwork.domain.destination import Topic
from clockwork.domain.ownership import process_id
from clockwork.domain.registry import ProcessReport
from clockwork.domain.wakeup import NewlyDue
from clockwork.errors import CannotStart, Unavailable
from clockwork.firing.context import FiringContext
from clockwork.firing.dead_letters import dead_letter_topics
from clockwork.firing.destination_waits import DestinationWaits, rate_limits
from clockwork.firing.job_chains import JobChains
from clockwork.firing.pause_watch import PauseWatch
from clockwork.firing.supervisor import Supervisor
from clockwork.http.operations import AdminParts
from clockwork.http.server import HttpServer, QueryServices, make_app
from clockwork.http.sessions import ClusterInfo
from clockwork.http.ui import UiPages, read_links
from clockwork.kafka.activity import KafkaActivity
from clockwork.kafka.client import KafkaContext, KafkaWire, LastAnswer
from clockwork.kafka.commands import KafkaCommandLog
from clockwork.kafka.dead_letters import KafkaDeadLetters
from clockwork.kafka.group import GroupCoordinator
from clockwork.kafka.ownership import KafkaOwnership
from clockwork.kafka.publisher import KafkaPublisher
from clockwork.kafka.wakeups import WakeupSender
from clockwork.node.health import HealthWatch
from clockwork.node.lifecycle import Commands, Node
from clockwork.node.readiness import NodeReadiness, Role
from clockwork.node.resources import (
    http_tls,
    kafka_context,
    leave_as,
    watched_certificates,
)
from clockwork.node.siblings import Sibling, SiblingPages, answering_siblings
from clockwork.observability.activity import ActivityRecorder, RecordingTelemetry
from clockwork.observability.known_clients import ClientRecorder
from clockwork.observability.metrics import PrometheusTelemetry
from clockwork.observability.tracing import open_tracer
from clockwork.operations.activity import ActivityTail
from clockwork.operations.clients import ClientDirectory
from clockwork.operations.dead_letters import DeadLetterAdmin, Discarder
from clockwork.operations.forecast import Forecaster, ShardForecasts
from clockwork.operations.job_audit import JobAudit
from clockwork.operations.pauses import PauseAdmin
from clockwork.operations.processes import ProcessReports, ProcessSurvey
from clockwork.operations.scan import PendingScan
from clockwork.operations.shards import ShardAdmin
from clockwork.ports.store import Stores
from clockwork.requests.context import RequestContext
from clockwork.requests.jobs.calendars import follow_calendars_of
from clockwork.requests.jobs.take import take_armed
from clockwork.requests.listing import count_ahead
from clockwork.requests.search import KeySearch, no_events
from clockwork.requests.service import RequestService
from clockwork.requests.upcoming import UpcomingReader
from clockwork.requests.why import WhyReader
from clockwork.settings.digests import digests_of
from clockwork.settings.model import Settings
from clockwork.stores import open_stores
from clockwork.tls import CertWatch

log = logging.getLogger(__name__)

PARENT_FD: Final = 0
"""Standard input, which in one of several processes is a pipe that ends with its parent (`clockwork.node.processes`)."""


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
    held_time = HeldTimeWatch(clock.ahead_ms)
    telemetry = RecordingTelemetry()
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
        recorder, tail = _activity(settings, role, KafkaActivity(kafka, publisher), clock, telemetry)
        process = process_id(rng.getrandbits(64))
        ownership = KafkaOwnership(kafka, telemetry, send_wakeup=publisher.send_wakeup, process=process)
        destination_waits = DestinationWaits(
            topic_wait_ms=settings.runner.topic_wait_ms,
            topic_missing=publisher.topic_missing,
            limits=rate_limits(settings.pace, telemetry),
        )
        if recorder is not None:
            recorder.refusing_topics = destination_waits.refusing_topics
            recorder.take_rate_limits = destination_waits.take_counts
        pauses = PauseWatch(stores.pauses, telemetry, on_change=lambda: supervisor.tell_all(NewlyDue(0)))
        firing = FiringContext(
            store=store,
            jobs=stores.jobs,
            publisher=publisher,
            ownership=ownership,
            destination_waits=destination_waits,
            clock=clock,
            trust=guard,
            telemetry=telemetry,
            rng=rng,
            settings=settings.runner,
            process=process,
            node=node_name,
            drain_timeout_ms=settings.http.drain_timeout_ms,
            wake=lambda shard, wakeup: waker.wake(shard, wakeup),
            pauses=pauses.current,
            tracer=tracer,
        )
        supervisor = Supervisor(firing, shards=settings.intake.shards)
        waker = WakeupSender(ownership, supervisor.tell)
        watch = HealthWatch(store, guard, held_time, telemetry)
        readiness = _readiness(role, guard, held_time, watch, publisher, supervisor, ownership)
        context = RequestContext(
            store=store,
            search=stores.search,
            jobs=stores.jobs,
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
        forecaster = Forecaster(context=context)
        audit = _job_audit(settings, firing, stores, context)
        count = partial(count_ahead, context.search, clock)
        clients = telemetry.clients = ClientRecorder(stores.registry, clock)
        directory = ClientDirectory(store=stores.registry, clock=clock)
        group = GroupCoordinator(kafka, KafkaWire(kafka, LastAnswer(), role="nodes"))
        stack.push_async_callback(group.close)
        reports = _reports(settings, role, stores, firing, supervisor, watch, publisher, telemetry)
        access = build_access(
            settings.access, clock, telemetry, accepts=role.accepts, count=count, ui=settings.ui, https=_https(settings)
        )
        requests = RequestService(context=context, rate_limits=access.limits, pending=access.pending)
        app = make_app(
            requests,
            settings.http,
            readiness,
            telemetry,
            accepts=role.accepts,
            gate=access.gate,
            pages=SiblingPages(sibling=sibling) if sibling is not None else None,
            admin=_admin_parts(settings, stores, requests, group),
            tail=tail,
            clients=directory,
            ui=UiPages(settings.ui, auth=settings.access.auth, https=_https(settings))
            if settings.ui.enabled == "on"
            else None,
            cluster_info=_cluster_info(settings, lists=context.lists),
            login=access.login,
            query_services=QueryServices(
                why=WhyReader(
                    context=context,
                    pauses=stores.pauses,
                    waits=destination_waits.at,
                    refusing_topics=partial(_refusing_topics, destination_waits, tail),
                ),
                upcoming=UpcomingReader(context=context),
                forecaster=forecaster,
                search=KeySearch(
                    context=context,
                    clients=directory.names,
                    events_of=no_events if tail is None else tail.of_delivery,
                ),
            ),
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
            audit=audit,
            recorder=recorder,
            forecasts=None
            if recorder is None
            else ShardForecasts(
                forecaster=forecaster,
                clock=clock,
                telemetry=telemetry,
                shards=lambda: supervisor.shards,
                record=recorder.forecast,
            ),
            clients=clients,
            reports=reports,
            tail=tail,
            access=access,
            certificates=CertWatch([*watched_certificates(settings, https, kafka), *stores.certificates]),
            commands=_make_commands(role, kafka, requests, publisher, telemetry, access),
        )


def _cluster_info(settings: Settings, *, lists: bool) -> ClusterInfo:
    return ClusterInfo(
        auth=settings.access.auth,
        cluster=settings.ui.cluster,
        banner=settings.ui.banner,
        jobs=settings.intake.jobs,
        search="on" if lists else "off",
        links=read_links(settings.ui.links_file),
    )


def _https(settings: Settings) -> bool:
    """True if browsers reach the node by HTTPS."""
    url = settings.ui.url
    return settings.http.tls_cert is not None if url is None else url.lower().startswith("https:")


def _admin_parts(settings: Settings, stores: Stores, requests: RequestService, group: GroupCoordinator) -> AdminParts:
    """The operators' calls on the service itself."""
    context = requests.context
    return AdminParts(
        pausing=PauseAdmin(stores.pauses, context.clock, context.rng, settings.intake),
        letters=DeadLetterAdmin(
            KafkaDeadLetters(kafka_context(settings)), requests, dead_letter_topics(settings.runner)
        ),
        discards=Discarder(context),
        shards=ShardAdmin(
            stores.schedules, context.search, stores.pauses, context.waker, context.clock, context.rng, settings.intake
        ),
        processes=ProcessSurvey(store=stores.registry, clock=context.clock, member_processes=group.processes),
        scan=PendingScan(stores.schedules, context.search, context.clock, context.rng, settings.intake),
    )


def _job_audit(settings: Settings, firing: FiringContext, stores: Stores, context: RequestContext) -> JobAudit | None:
    """The audit of jobs, if there are any in the cluster."""
    if settings.runner.jobs == "off":
        return None
    shards = settings.intake.shards
    chains = JobChains(
        stores.jobs,
        firing.clock,
        firing.trust,
        firing.rng,
        firing.telemetry,
        settings.runner,
        shards=shards,
        wake=firing.wake,
    )
    return JobAudit(
        stores.jobs,
        stores.search,
        chains,
        firing.clock,
        firing.trust,
        firing.telemetry,
        take=partial(take_armed, context),
        follow_calendars=partial(follow_calendars_of, context),
        shards=shards,
        interval_ms=settings.runner.job_audit_ms,
    )


def _reports(
    settings: Settings,
    role: Role,
    stores: Stores,
    firing: FiringContext,
    supervisor: Supervisor,
    watch: HealthWatch,
    publisher: KafkaPublisher,
    telemetry: RecordingTelemetry,
) -> ProcessReports:
    """The reports of this process."""
    since_ms, digests = firing.clock.now_ms(), digests_of(settings)

    def report(since_last_ms: int) -> ProcessReport:
        figures = telemetry.take_figures()
        return ProcessReport(
            process=firing.process,
            seen_at_ms=firing.clock.now_ms(),
            node=firing.node,
            role=role.value,
            version=clockwork.__version__,
            since_ms=since_ms,
            shards=len(supervisor.shards),
            assigned=len(supervisor.assigned),
            created_per_second=round(figures.created * 1_000 / since_last_ms, 2),
            delivered_per_second=round(figures.delivered * 1_000 / since_last_ms, 2),
            loop_lag_ms=round(figures.loop_lag_s * 1_000),
            clock_skew_ms=firing.trust.skew_ms,
            kafka=None if publisher.connected() else publisher.trouble() or "not asked yet",
            store=watch.store_error,
            settings=digests,
        )

    return ProcessReports(store=stores.registry, clock=firing.clock, report=report)


def _activity(
    settings: Settings, role: Role, activity: KafkaActivity, clock: SystemClock, telemetry: RecordingTelemetry
) -> tuple[ActivityRecorder | None, ActivityTail | None]:
    """The recording of activity, and the latest of it for those who ask; None: none is recorded, or none can ask here."""
    if settings.log.events == "off":
        return None, None
    telemetry.recorder = ActivityRecorder(activity, clock, telemetry)
    return telemetry.recorder, ActivityTail(activity, clock) if role.accepts else None


def _refusing_topics(own: DestinationWaits, tail: ActivityTail | None, now_ms: int) -> Mapping[Topic, TopicWait]:
    """The topics that take no records, by what this process knows and what the minutes of all tell."""
    return merged_waits({} if tail is None else tail.refusing_topics(), own.refusing_topics(now_ms))


def _readiness(
    role: Role,
    guard: ClockGuard,
    held_time: HeldTimeWatch,
    watch: HealthWatch,
    publisher: KafkaPublisher,
    supervisor: Supervisor,
    ownership: KafkaOwnership,
) -> NodeReadiness:
    return NodeReadiness(
        role=role,
        guard=guard,
        held_time=held_time,
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
        # The parent never writes to the pipe, so it is readable only at its end: the parent has died.
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
    """Removes the node from the group for good. Without an instance id there is nothing to do: the node has left
    already."""
    if settings.kafka.instance_id is None:
        return
    try:
        await leave_as(settings, settings.kafka.instance_id)
    except Unavailable as error:
        # The drain was orderly all the same; the shards are handed over when the session ends, or by the command.
        extra = {"event": "group.not_left_for_good", "error": str(error)}
        log.error("Still in the group until its session ends: run `python -m clockwork leave`", extra=extra)
