"""Clusters for tests: tables, topics, group and names of a test's own, and nodes that are started, broken and asked.

    async with opened_cluster(services, folder) as cluster:
        topic = await cluster.topic()
        node = await cluster.start()
        await node.client.create(cluster.body(topic, "key-1", in_ms=500))

Nodes are processes, so that they can be killed and paused; where that is not the point, `node_here` opens one in the
test's own process, which is cheaper and lets a test stand between the node and its libraries.
"""

import asyncio
import itertools
import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from clockwork.clock import SystemClock
from clockwork.kafka.client import KafkaContext
from clockwork.kafka.topics import create_topics
from clockwork.node.app import open_node
from clockwork.node.lifecycle import Node
from clockwork.node.readiness import Role
from clockwork.settings.model import KafkaSettings
from clockwork.settings.sources import load_settings
from infra.local import LocalServices
from infra.local.child import Child
from infra.local.node import Launch, NodeProcess, Store, node_environment, store_settings
from infra.local.ports import free_port
from tests.support.client import NO_ANSWER, Client
from tests.support.kafka_partitions import few_kafka_partitions
from tests.support.waiting import until

SHARDS: Final = 8
SHORT_SESSION: Final = {"CLOCKWORK_SESSION_TIMEOUT_MS": "3000"}
"""For nodes that are killed or frozen: soon their shards move. All others have the usual session, so that none moves because
a busy machine stood still."""
SOON_MS: Final = 1_500
SOON_STRETCH_MAX: Final = 4.0
LOG_LINES_SHOWN: Final = 12

now_ms: Final = SystemClock().now_ms


def soon_ms() -> int:
    """Time after which something is due that a test waits for, and does something before: longer where processes wait for a
    core, by the load of the last minute."""
    return round(SOON_MS * min(SOON_STRETCH_MAX, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))))


class ClusterNode:
    """A node as a process."""

    def __init__(self, process: NodeProcess, client: Client, log_path: Path) -> None:
        self.process = process
        self.client = client
        self.log_path = log_path

    def logged(self, event: str | None = None) -> list[dict[str, Any]]:
        """Lines of its log, all or those of one event."""
        lines = self.log_path.read_text().splitlines() if self.log_path.exists() else []
        said = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in said if event is None or line["event"] == event]

    async def until_logged(self, event: str, *, times: int = 1) -> None:
        async def look() -> bool:
            return len(self.logged(event)) >= times

        await until(look, f"{times} x {event} in the log of {self.client.url}")

    async def shards(self) -> frozenset[int]:
        """The shards that it works: taken over, and looked at."""
        return frozenset(
            int(n) for n in re.findall(r'^clockwork_due\{shard="(\d+)"\}', await self.client.metrics(), re.M)
        )

    async def metric(self, series: str) -> float:
        """The value of one series, as Prometheus writes its name; 0 if it is not there."""
        found = re.search(rf"^{re.escape(series)} (\S+)$", await self.client.metrics(), re.M)
        return float(found[1]) if found else 0.0

    async def until_works(self, count: int) -> frozenset[int]:
        """Returns when it works exactly so many shards."""

        async def look() -> frozenset[int] | None:
            try:
                shards = await self.shards()
            except NO_ANSWER:
                return None
            return shards | {-1} if len(shards) == count else None

        return await until(look, f"{count} shards at {self.client.url}") - {-1}

    async def until_works_some(self) -> None:
        """Returns when it works at least one."""

        async def look() -> bool:
            return bool(await self.shards())

        await until(look, f"shards at {self.client.url}")

    async def until_answers(self) -> None:
        """Returns when its HTTP server answers, ready or not."""

        async def look() -> bool:
            try:
                return (await self.client.livez()).status == 200
            except NO_ANSWER:
                return False

        await until(look, f"an answer of {self.client.url}")

    async def until_ready(self) -> None:
        try:
            await self.process.until_ready()
        except Exception as error:
            error.add_note(f"the end of its log:\n{self.log_end()}")
            raise

    def log_end(self) -> str:
        lines = self.log_path.read_text().splitlines() if self.log_path.exists() else []
        return "\n".join(lines[-LOG_LINES_SHOWN:])


@dataclass(kw_only=True)
class Cluster:
    """Names of one cluster, and its nodes so far."""

    services: LocalServices
    session: aiohttp.ClientSession
    folder: Path
    name: str
    store: Store
    settings: dict[str, str]
    """Environment variables of every node, in the place of the defaults of `opened_cluster`."""
    launch: Launch = Child.start
    """Starts the process of a node."""
    nodes: list[ClusterNode] = field(default_factory=list)
    _numbers: Any = field(default_factory=itertools.count)

    @property
    def dead_letters(self) -> str:
        return f"{self.name}-dead-letters"

    @property
    def store_address(self) -> str:
        """`host:port` of its store."""
        address = self.services.address_of(self.store)
        assert address is not None, "it is reached over the network"
        return urlsplit(address).netloc.rpartition("@")[2]

    def with_store_at(self, address: str) -> dict[str, str]:
        """The settings of a node that reaches its store at this `host:port`, a proxy's."""
        there = self.services.address_of(self.store)
        assert there is not None, "it is reached over the network"
        return store_settings(self.store, there.replace(self.store_address, address))

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a node; its HTTP port is new each time."""
        return node_environment(
            kafka_brokers=self.services.kafka_brokers,
            store=store_settings(self.store, self.services.address_of(self.store)),
            http_port=free_port(),
            more={**self.settings, **(more or {})},
        )

    async def start(
        self,
        *,
        role: str = "all",
        more: Mapping[str, str] | None = None,
        ready: bool = True,
        module: str = "clockwork",
        checkout: Path | None = None,
    ) -> ClusterNode:
        """Starts a node; returns when it is ready, or at once. `checkout`: of another worktree."""
        environment = self.environment(more)
        log_path = self.folder / f"node-{next(self._numbers)}.log"
        process = NodeProcess(
            environment, role=role, log_path=log_path, module=module, checkout=checkout, launch=self.launch
        )
        node = ClusterNode(process, Client(self.session, process.url), log_path)
        self.nodes.append(node)
        await process.start()
        if ready:
            await node.until_ready()
        return node

    async def stop(self) -> None:
        """Ends all nodes as SIGTERM does, so that nothing is written from now on."""
        async with asyncio.TaskGroup() as group:
            for node in self.nodes:
                if node.process.code is None:
                    group.create_task(node.process.stop(), name="stop a node")

    async def close(self) -> None:
        """Ends them at once. Raises: AssertionError if one of them met a defect in itself."""
        async with asyncio.TaskGroup() as group:
            for node in self.nodes:
                group.create_task(node.process.kill(), name="kill a node")
        defects = [line for node in self.nodes for line in node.logged() if "exception" in line]
        assert not defects, f"a node met a defect: {defects[0]['message']}\n{defects[0]['exception']}"

    async def topic(
        self, *, kafka_partitions: int = 2, broker_time: bool = True, config: Mapping[str, str] | None = None
    ) -> str:
        """Makes a client's topic; `broker_time`: the broker's own clock stamps its records, so that anyone can see
        when they really arrived."""
        name = f"for-{self.name}-{next(self._numbers)}"
        await self.make_topic(name, kafka_partitions=kafka_partitions, broker_time=broker_time, config=config)
        return name

    async def make_topic(
        self, name: str, *, kafka_partitions: int = 2, broker_time: bool = True, config: Mapping[str, str] | None = None
    ) -> None:
        stamped = {"message.timestamp.type": "LogAppendTime"} if broker_time else {}
        kafka = KafkaContext(settings=KafkaSettings(brokers=(self.services.kafka_brokers,)))
        await create_topics(kafka, [name], kafka_partitions=kafka_partitions, config=stamped | dict(config or {}))

    async def configure_topic(self, name: str, config: Mapping[str, str]) -> None:
        """Sets all that is not to be as the broker has it by default; returns when it shows it."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.services.kafka_brokers)
        await admin.start()

        async def shown() -> bool:
            (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
            (resource,) = answer.resources
            return config.items() <= {key: value for key, value, *_ in resource[4]}.items()

        try:
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=dict(config))])
            await until(shown, f"{name} configured")
        finally:
            await admin.close()

    async def delete_topic(self, name: str) -> None:
        """Returns when the broker no longer knows it."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.services.kafka_brokers)
        await admin.start()
        try:
            await admin.delete_topics([name])

            async def gone() -> bool:
                return name not in await admin.list_topics()

            await until(gone, f"{name} deleted")
        finally:
            await admin.close()

    def body(
        self,
        topic: str,
        schedule_key: str,
        *,
        in_ms: int = 0,
        due_ms: int | None = None,
        ordering_key: str | None = None,
        data: Any = None,
        guarantee: str | None = None,
    ) -> dict[str, Any]:
        """The body of a create; due in so many milliseconds, or then."""
        body: dict[str, Any] = {
            "clientId": self.name,
            "scheduleKey": schedule_key,
            "scheduleTime": now_ms() + in_ms if due_ms is None else due_ms,
            "taskData": {"key": schedule_key} if data is None else data,
            "delivery": {"topic": topic} | ({"guarantee": guarantee} if guarantee else {}),
        }
        return body | ({"orderingKey": ordering_key} if ordering_key is not None else {})

    async def until_status(self, client: Client, schedule_key: str, status: str = "delivered") -> dict[str, Any]:
        """Returns what a `GET` answers, once it has this status."""

        async def look() -> dict[str, Any] | None:
            answered = await client.get(self.name, schedule_key)
            body: dict[str, Any] = answered.body
            return body if body.get("status") == status else None

        return await until(look, f"{schedule_key} {status}")


@asynccontextmanager
async def opened_cluster(
    services: LocalServices,
    folder: Path,
    settings: Mapping[str, str] | None = None,
    *,
    store: Store = "dynamodb",
    launch: Launch = Child.start,
) -> AsyncIterator[Cluster]:
    """A cluster without nodes. At the end its nodes are killed, and what they logged is looked at."""
    name = f"t{uuid4().hex[:10]}"
    defaults = {
        "CLOCKWORK_CLUSTER": name,
        "KAFKA_CONSUMER_GROUP": name,
        "SCHEDULE_DB": f"{name}-schedules",
        "PARTITION_EXEC_DB": f"{name}-executions",
        "SCHEDULE_KEY_DB": f"{name}-keys",
        "JOB_DB": f"{name}-jobs",
        "CLOCKWORK_POSTGRES_SCHEMA": name,
        "CLOCKWORK_SHARDS": str(SHARDS),
        "CLOCKWORK_REQUEST_TIMEOUT_MS": "30000",
        "CLOCKWORK_HEARTBEAT_INTERVAL_MS": "300",
        "CLOCKWORK_SCAN_INTERVAL_MS": "1000",
        "CLOCKWORK_RETRY_ATTEMPTS": "3",
        "CLOCKWORK_RETRY_INITIAL_MS": "250",
        "CLOCKWORK_RETRY_MAX_MS": "500",
    }
    async with aiohttp.ClientSession() as session:
        cluster = Cluster(
            services=services,
            session=session,
            folder=folder,
            name=name,
            store=store,
            settings=defaults | dict(settings or {}),
            launch=launch,
        )
        try:
            yield cluster
        finally:
            await cluster.close()


@asynccontextmanager
async def node_here(
    cluster: Cluster, *, role: Role = Role.ALL, more: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[Node, Client]]:
    """A node in this process, ready; drained at the end of the block."""
    environment = cluster.environment(more)
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        stack.enter_context(few_kafka_partitions())
        node = await stack.enter_async_context(open_node(load_settings(environment), role))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        group.create_task(node.run(stop), name="node")
        try:
            client = Client(cluster.session, f"http://127.0.0.1:{environment['CLOCKWORK_HTTP_PORT']}")

            async def ready() -> bool:
                return (await client.readyz()).status == 200

            await until(ready, f"the node in process {os.getpid()} ready")
            yield node, client
        finally:
            stop.set()
