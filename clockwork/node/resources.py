"""The resources of a node: store, topics, certificates, and how the settings describe them to the adapters."""

import logging
import ssl
from contextlib import AbstractAsyncContextManager

from clockwork.clock import SystemClock
from clockwork.errors import CannotStart
from clockwork.kafka.check import check_kafka
from clockwork.kafka.client import KafkaContext
from clockwork.kafka.group import leave_group
from clockwork.kafka.security import kafka_cert_files, kafka_security
from clockwork.kafka.topics import create_internal_topics
from clockwork.ports.findings import merged
from clockwork.ports.store import Stores
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import HTTP_CERT, HTTP_KEY, Settings
from clockwork.stores import open_stores
from clockwork.tls import CertFiles, server_context

log = logging.getLogger(__name__)


async def prepare_resources(settings: Settings, stores: Stores, *, fires: bool) -> None:
    """Makes or checks store and topics at the start of a node (`fires`: of one that delivers). Warnings go to the log.

    Raises: CannotStart (one line for each thing that is wrong, and what to do), Unavailable.
    """
    if settings.kafka.create_resources:
        await _make_resources(settings, stores)
    await _check_resources(settings, stores, fires=fires)


async def init_resources(settings: Settings) -> None:
    """`python -m clockwork init`: makes what is missing, then checks. Raises: CannotStart, Unavailable."""
    async with _stores(settings) as stores:
        await _make_resources(settings, stores)
        # The rights to make topics are other ones than a node's.
        await _check_resources(settings, stores, fires=False)


async def check_resources(settings: Settings) -> None:
    """`python -m clockwork check`: what the start of a node that delivers checks. Raises: CannotStart, Unavailable."""
    async with _stores(settings) as stores:
        await _check_resources(settings, stores, fires=True)


def _stores(settings: Settings) -> AbstractAsyncContextManager[Stores]:
    """The store, for a command: no metrics, and no clock that is compared."""
    return open_stores(settings, clock=SystemClock(), observe=lambda **_: None, telemetry=NoTelemetry())


async def _make_resources(settings: Settings, stores: Stores) -> None:
    await stores.init()
    await create_internal_topics(kafka_context(settings))


async def _check_resources(settings: Settings, stores: Stores, *, fires: bool) -> None:
    found = merged([await stores.check(), await check_kafka(kafka_context(settings), fires=fires)])
    for warning in found.warnings:
        log.warning("Works, and could be safer", extra={"event": "check.warning", "warning": warning})
    if found.problems:
        raise CannotStart("\n".join(found.problems))


async def leave_for_good(settings: Settings) -> None:
    """`python -m clockwork leave`: the node with this instance id, stopped by now, will not come back, so its shards are
    handed over without waiting for its session to end. Raises: CannotStart, Unavailable."""
    if settings.kafka.instance_id is None:
        raise CannotStart("CLOCKWORK_INSTANCE_ID is not set: a node without one leaves by itself when it stops")
    for instance_id in settings.processes.instance_ids(settings.kafka.instance_id):
        await leave_as(settings, instance_id)


async def leave_as(settings: Settings, instance_id: str) -> None:
    """Removes one static member, whose shards are then assigned to others. Raises: Unavailable."""
    there = await leave_group(kafka_context(settings), instance_id)
    log.info(
        "Left for good",
        extra={"event": "group.left_for_good", "instance_id": instance_id, "was_member": there},
    )


def http_tls(settings: Settings) -> ssl.SSLContext | None:
    """The TLS context of the HTTP server; None for plain HTTP. Raises: CannotStart."""
    files = http_cert_files(settings)
    return server_context(files) if files is not None else None


def http_cert_files(settings: Settings) -> CertFiles | None:
    cert, key = settings.http.tls_cert, settings.http.tls_key
    if cert is None or key is None:
        return None
    return CertFiles(cert=cert, key=key, cert_setting=HTTP_CERT, key_setting=HTTP_KEY)


def watched_certificates(
    settings: Settings, https: ssl.SSLContext | None, kafka: KafkaContext
) -> list[tuple[ssl.SSLContext, CertFiles]]:
    """Those that are loaded again when they change."""
    found = [
        (https, http_cert_files(settings)),
        (kafka.security.ssl_context, kafka_cert_files(settings.kafka_security)),
    ]
    return [(context, files) for context, files in found if context is not None and files is not None]


def kafka_context(settings: Settings) -> KafkaContext:
    """The settings' Kafka, with its certificates and credentials loaded. Raises: CannotStart."""
    return KafkaContext(
        settings=settings.kafka, security=kafka_security(settings.kafka_security, region=settings.dynamo.region)
    )
