"""A second Kafka broker beside the local services' own, so that one topic's leader can be frozen and all else goes on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from infra.local import LocalServices
from infra.local.kafka import HOST, LOG_CONFIG, Kafka, server_properties
from tests.support.waiting import until

SECOND: Final = 2
"""Its node id; the first one's is 1."""


class SecondBroker(Kafka):
    """A broker that joins the cluster of another one, which stays the only controller."""

    name = "Kafka 2"

    def __init__(self, first: Path, **of_service: Any) -> None:
        """`first`: the folder of the first broker, which runs."""
        super().__init__(**of_service)
        self._first = first

    async def prepare(self, port: int) -> list[str]:
        data, properties = self.home / "data", self.home / "server.properties"
        own = {
            "process.roles": "broker",
            "node.id": str(SECOND),
            "listeners": f"PLAINTEXT://{HOST}:{port}",
            "controller.quorum.voters": _value(self._first / "server.properties", "controller.quorum.voters"),
        }
        properties.write_text(server_properties(port, controller_port=0, data=data, more=own))
        options = [f"-Dlog4j2.configurationFile={LOG_CONFIG}"]
        cluster_id = _value(self._first / "data" / "meta.properties", "cluster.id")
        format_storage = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", str(properties)]
        await self.run_command(self.java_command(options, format_storage))
        return self.server_command(options, ["kafka.Kafka", str(properties)])


@asynccontextmanager
async def second_broker(services: LocalServices, folder: Path) -> AsyncIterator[SecondBroker]:
    """A broker that has joined, and leads nothing yet."""
    broker = SecondBroker(
        services.kafka_home, port=None, home=folder / "kafka-2", log_path=folder / "kafka-2.log", scratch=None
    )
    await broker.start()
    admin = AIOKafkaAdminClient(bootstrap_servers=services.kafka_brokers)
    try:
        await admin.start()

        async def joined() -> bool:
            return len((await admin.describe_cluster())["brokers"]) == SECOND

        await until(joined, "two brokers")
        yield broker
    finally:
        await admin.close()
        await broker.kill()


async def topic_led_by(services: LocalServices, name: str, *replicas: int) -> str:
    """Makes a topic of one Kafka partition on these brokers; the first of them leads it. The broker stamps its records."""
    admin = AIOKafkaAdminClient(bootstrap_servers=services.kafka_brokers)
    await admin.start()
    try:
        config = {"message.timestamp.type": "LogAppendTime"}
        await admin.create_topics(
            [NewTopic(name, -1, -1, replica_assignments={0: list(replicas)}, topic_configs=config)]
        )

        async def led() -> bool:
            (topic,) = await admin.describe_topics([name])
            return bool(topic["partitions"]) and topic["partitions"][0]["leader"] == replicas[0]

        await until(led, f"{name} led by broker {replicas[0]}")
    finally:
        await admin.close()
    return name


def _value(path: Path, name: str) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(line.partition("=")[2].replace("\\", "") for line in lines if line.startswith(f"{name}="))
