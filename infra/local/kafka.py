"""Apache Kafka: one node that is broker and controller in one, on 127.0.0.1 only."""

import asyncio
import base64
import contextlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from infra.local.jars import KAFKA
from infra.local.ports import free_port
from infra.local.service import JavaService

HOST = "127.0.0.1"
ANSWER_MS_MAX = 2_000
LOG_CONFIG = Path(__file__).with_name("log4j2.properties")

SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
_PROTOCOLS = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT"

SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": _PROTOCOLS,
    # A missing topic must look as it does in production.
    "auto.create.topics.enable": "false",
    # Their defaults want three brokers.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    # Each is a folder with four files, made at the first use, which waits for all of them: 50 by default.
    "offsets.topic.num.partitions": "2",
    "transaction.state.log.num.partitions": "4",
    # A test says when its group is complete: waiting three seconds for more members would be in vain.
    "group.initial.rebalance.delay.ms": "0",
    # Tests of a silent member should not wait six seconds for it.
    "group.min.session.timeout.ms": "1000",
    # A killed producer's open transaction blocks read_committed readers until it is swept: every 10 s by default.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # A killed broker may register again only when the controller has given up its former life: 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # Room to compact small topics; the default takes 128 MB of the heap.
    "log.cleaner.dedupe.buffer.size": "16777216",
    # Two cores are shared with the clients.
    "num.network.threads": "2",
    "num.io.threads": "4",
}
"""Kafka's settings, the same in infra/compose.yaml; a test compares the two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SecureListener:
    """A second listener with TLS and, if it has users, SASL; for tests of both. The first one stays open beside it."""

    port: int
    cert_and_key: Path
    """PEM file: the key as PKCS 8, then the certificate with its chain."""
    client_ca: Path | None = None
    """PEM file of the authority for clients' certificates; with it they are required."""
    users: Mapping[str, str] = field(default_factory=dict)
    """Passwords by user, for SCRAM-SHA-256 and SCRAM-SHA-512; they are stored when the data folder is made."""
    enforce_acls: bool = False
    """True: users have only the rights that were granted; clients of the open listener have all."""

    @property
    def protocol(self) -> str:
        return "SASL_SSL" if self.users else "SSL"

    def settings(self) -> dict[str, str]:
        """Kafka's settings of this listener."""
        own = f"listener.name.{self.protocol.lower()}"
        found = {
            "listener.security.protocol.map": f"{_PROTOCOLS},{self.protocol}:{self.protocol}",
            f"{own}.ssl.keystore.type": "PEM",
            f"{own}.ssl.keystore.location": str(self.cert_and_key),
        }
        if self.client_ca is not None:
            found[f"{own}.ssl.client.auth"] = "required"
            found[f"{own}.ssl.truststore.type"] = "PEM"
            found[f"{own}.ssl.truststore.location"] = str(self.client_ca)
        if self.users:
            module = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            found[f"{own}.sasl.enabled.mechanisms"] = ",".join(SCRAM)
            found |= {f"{own}.{mechanism.lower()}.sasl.jaas.config": module for mechanism in SCRAM}
        if self.enforce_acls:
            found["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
            found["super.users"] = "User:ANONYMOUS"
        return found

    def format_options(self) -> list[str]:
        """Options of the command that formats the data folder: the users and their passwords."""
        return [
            f"--add-scram={mechanism}=[name={name},password={password}]"
            for name, password in self.users.items()
            for mechanism in SCRAM
        ]


class Kafka(JavaService):
    """Kafka as a child process."""

    name = "Kafka"
    jars = KAFKA
    port_option = "--kafka-port (or kafka_port=)"
    memory_mb = 512

    def __init__(
        self,
        *,
        secure: SecureListener | None = None,
        settings: Mapping[str, str] | None = None,
        **of_service: Any,
    ) -> None:
        """`settings`: in place of some of `SETTINGS`."""
        super().__init__(**of_service)
        self._secure = secure
        self._settings = dict(settings or {})

    async def prepare(self, port: int) -> list[str]:
        data, properties = self.home / "data", self.home / "server.properties"
        # The controller's port is chosen anew each time: only the node itself uses it, and it is not part of the data.
        text = server_properties(port, controller_port=free_port(), data=data, secure=self._secure, more=self._settings)
        properties.write_text(text)
        options = [f"-Dlog4j2.configurationFile={LOG_CONFIG}"]
        if not (data / "meta.properties").exists():
            # With "=": the id may begin with a dash.
            format_storage = [
                "kafka.tools.StorageTool",
                "format",
                f"--cluster-id={new_cluster_id()}",
                "-c",
                str(properties),
                *(self._secure.format_options() if self._secure is not None else ()),
            ]
            await self.run_command(self.java_command(options, format_storage))
        return self.server_command(options, ["kafka.Kafka", str(properties)])

    async def answers(self, port: int) -> bool:
        # First the bare port: aiokafka logs an error for each connection that is refused.
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        admin = AIOKafkaAdminClient(bootstrap_servers=f"{HOST}:{port}", request_timeout_ms=ANSWER_MS_MAX)
        try:
            await admin.start()
            cluster = await admin.describe_cluster()
        except (OSError, KafkaError, TimeoutError):
            return False
        finally:
            await admin.close()
        # The controller lists a broker when it may lead partitions; before, every other request would fail.
        return bool(cluster["brokers"])


def server_properties(
    port: int,
    *,
    controller_port: int,
    data: Path,
    secure: SecureListener | None = None,
    more: Mapping[str, str] | None = None,
) -> str:
    """The contents of Kafka's configuration file. `more`: in place of some of `SETTINGS`."""
    listeners = [f"PLAINTEXT://{HOST}:{port}", f"CONTROLLER://{HOST}:{controller_port}"]
    if secure is not None:
        listeners.insert(1, f"{secure.protocol}://{HOST}:{secure.port}")
    places = {
        # Voters by configuration, not by `format --standalone`: that would store the controller's port with the data.
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "listeners": ",".join(listeners),
        "log.dirs": str(data),
    }
    settings = SETTINGS | places | (secure.settings() if secure is not None else {}) | dict(more or {})
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def new_cluster_id() -> str:
    """Sixteen random bytes as Kafka writes them: 22 characters of base64url."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
