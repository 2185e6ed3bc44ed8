"""The things that are broken: a Kafka and a store of the run's own, and three places for nodes, each with one or none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import uuid4

import aiohttp

from infra.local import LocalServices
from infra.local.child import Child
from infra.local.node import Launch, Store
from tests.chaos.plan import NODES, SKEW_SEEN_MS
from tests.chaos.skewed_node import JUMP_AFTER, JUMPED, OFFSET
from tests.support.client import NO_ANSWER
from tests.support.nodes import Cluster, ClusterNode, now_ms
from tests.support.waiting import until

SHARDS: Final = 12
SESSION_TIMEOUT_MS: Final = 2_000
REQUEST_S_MAX: Final = 2.5
"""A client's patience with one node; then it asks another one."""
TOPICS: Final = 2
RECORD_BYTES_MAX: Final = 20_000
"""Limit of every topic: what is longer the broker refuses, and must end as a dead letter. Above what the client library
puts into one batch (16 KiB)."""
SIGTERM_CODE: Final = 143
HAND_OVERS: Final = {"node.assignment", "kafka.lost", "slot.replaced"}
"""Events of nodes: shards came or went; Kafka did not answer; a transaction's outcome was not known."""
HEALED_S_MAX: Final = 60.0
STAND_STILL_MS: Final = 15_000
"""For how long after its node's end a record sent by it may still be appended: it may sit in a frozen broker's sockets."""


@dataclass(kw_only=True, slots=True)
class NodeSeat:
    """A node's place. The lock is held by the disturbance that is under way there."""

    number: int
    node: ClusterNode | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(kw_only=True, slots=True)
class Skew:
    """A node that ran with a wrong clock."""

    node: ClusterNode
    offset_ms: int
    jumps: bool
    from_ms: int
    to_ms: int | None = None
    fired: bool = False
    """It counted deliveries of its own."""

    @property
    def far(self) -> bool:
        return abs(self.offset_ms) >= SKEW_SEEN_MS

    def wrong_since_ms(self) -> int | None:
        """By the true clock; None if its node ended before."""
        return next((int(line["true_ms"]) for line in self.node.logged(JUMPED)), None)


@dataclass(kw_only=True, slots=True)
class World:
    """Everything that runs."""

    services: LocalServices
    cluster: Cluster
    topics: tuple[str, ...]
    replies: str
    """The topic for answers to commands."""
    seats: tuple[NodeSeat, ...]
    broker: asyncio.Lock = field(default_factory=asyncio.Lock)
    store: asyncio.Lock = field(default_factory=asyncio.Lock)
    skews: list[Skew] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)
    """Nodes that ended by themselves, or not as they should."""

    @property
    def commands(self) -> str:
        """The topic that commands go to."""
        return f"{self.cluster.name}-commands"

    def nodes(self) -> list[ClusterNode]:
        """Those that run, or are frozen; for clients that know no better."""
        return [seat.node for seat in self.seats if seat.node is not None]

    async def start(self, seat: NodeSeat) -> ClusterNode:
        """Puts a node into an empty place; does not wait for it."""
        seat.node = node = await self.cluster.start(ready=False)
        node.client.request_s_max, node.client.patience_s = REQUEST_S_MAX, 0.0
        return node

    async def start_skewed(self, seat: NodeSeat, *, offset_ms: int, jump_after_s: float | None) -> Skew:
        """The same, with a wrong clock."""
        more = {OFFSET: str(offset_ms), JUMP_AFTER: str(int((jump_after_s or 0.0) * 1_000))}
        from_ms = now_ms()
        node = await self.cluster.start(ready=False, more=more, module="tests.chaos.skewed_node")
        node.client.request_s_max, node.client.patience_s = REQUEST_S_MAX, 0.0
        seat.node = node
        skew = Skew(node=node, offset_ms=offset_ms, jumps=jump_after_s is not None, from_ms=from_ms)
        self.skews.append(skew)
        return skew

    async def kill(self, seat: NodeSeat) -> None:
        node, seat.node = seat.node, None
        if node is not None:
            self._note_own_end(node)
            await node.process.kill()

    async def stop(self, seat: NodeSeat) -> None:
        """As SIGTERM does. Whatever is broken at that time, a node must end by itself and say that all is well."""
        node, seat.node = seat.node, None
        if node is None:
            return
        self._note_own_end(node)
        code = await node.process.stop()
        # Before it has begun to listen for signals, SIGTERM ends it as it ends any process.
        if code != 0 and not (code == SIGTERM_CODE and not node.logged("node.stopping")):
            self.wrongs.append(f"{node.log_path.name}: ended with code {code} after SIGTERM")

    def _note_own_end(self, node: ClusterNode) -> None:
        if node.process.code is not None:
            self.wrongs.append(f"{node.log_path.name}: ended by itself with code {node.process.code}")

    async def heal(self) -> None:
        """Every place has a node with the right clock, and all are ready and share the shards."""
        for seat in self.seats:
            async with seat.lock:
                if seat.node is not None and seat.node.process.code is not None:
                    self._note_own_end(seat.node)
                    seat.node = None
                if seat.node is None:
                    await self.start(seat)
        await until(self.settled, "three ready nodes that share all shards", within_s=HEALED_S_MAX)

    async def settled(self) -> bool:
        """Each node is ready and works its share."""
        try:
            for node in self.nodes():
                if (await node.client.readyz()).status != 200 or len(await node.shards()) != SHARDS // NODES:
                    return False
        except NO_ANSWER:
            return False
        return True

    async def works_all(self) -> bool:
        """Each shard is worked by one of the nodes."""
        try:
            shards = [await node.shards() for node in self.nodes()]
        except NO_ANSWER:
            return False
        return sum(len(some) for some in shards) == len(frozenset().union(*shards)) == SHARDS

    def ahead_ms(self, at_ms: int) -> int:
        """By how much a record may have been early at that time: the most that a node's clock was ahead within the bound.
        A clock beyond it must not fire at all."""
        return max(
            (
                skew.offset_ms
                for skew in self.skews
                if not skew.far
                and skew.offset_ms > 0
                and skew.from_ms <= at_ms
                and (skew.to_ms is None or at_ms <= skew.to_ms + STAND_STILL_MS)
            ),
            default=0,
        )

    def defects(self) -> list[str]:
        """Lines in the nodes' logs that only a defect writes."""
        return [
            f"{node.log_path.name}: {line['message']}: {line['exception'].strip().splitlines()[-1]}"
            for node in self.cluster.nodes
            for line in node.logged()
            if "exception" in line
        ]

    def hand_overs(self, *, settles_ms: int) -> list[tuple[int, int]]:
        """From when to when shards changed hands, or Kafka was away, as the nodes say: an overloaded machine lets sessions
        end that no disturbance has ended. Their clocks may be wrong, so each time counts from `settles_ms` before it."""
        times_ms = [
            int(datetime.fromisoformat(line["at"]).timestamp() * 1_000)
            for node in self.cluster.nodes
            for line in node.logged()
            if line["event"] in HAND_OVERS
        ]
        return [(at_ms - settles_ms, at_ms + settles_ms) for at_ms in times_ms]

    def logged(self, *events: str) -> list[str]:
        """Lines of any node with these events."""
        return [
            f"{node.log_path.name}: {line['event']} {line.get('run')}"
            for node in self.cluster.nodes
            for line in node.logged()
            if line["event"] in events
        ]

    def far_that_fired(self) -> list[str]:
        """Nodes whose clock was wrong beyond the bound from the start, and that delivered all the same."""
        return [f"{s.node.log_path.name}: {s.offset_ms:+d} ms" for s in self.skews if s.far and not s.jumps and s.fired]


@asynccontextmanager
async def opened_world(
    folder: Path, *, store: Store = "dynamodb", launch: Launch = Child.start
) -> AsyncIterator[World]:
    """For the length of a block; at its end everything is killed. Logs stay in the folder."""
    name = f"chaos-{uuid4().hex[:6]}"
    settings = {
        "CLOCKWORK_CLUSTER": name,
        "KAFKA_CONSUMER_GROUP": name,
        "SCHEDULE_DB": "schedules",
        "PARTITION_EXEC_DB": "executions",
        "SCHEDULE_KEY_DB": "keys",
        "JOB_DB": "jobs",
        "CLOCKWORK_POSTGRES_SCHEMA": "chaos",
        "CLOCKWORK_SHARDS": str(SHARDS),
        "CLOCKWORK_SESSION_TIMEOUT_MS": str(SESSION_TIMEOUT_MS),
        "CLOCKWORK_HEARTBEAT_INTERVAL_MS": "300",
        "CLOCKWORK_SCAN_INTERVAL_MS": "1000",
        "CLOCKWORK_RETRY_ATTEMPTS": "3",
        "CLOCKWORK_RETRY_INITIAL_MS": "50",
        "CLOCKWORK_RETRY_MAX_MS": "200",
        # A request that a frozen store holds up is answered 503 before its client gives up.
        "CLOCKWORK_REQUEST_TIMEOUT_MS": "2000",
        "CLOCKWORK_COMMANDS": "on",
        "CLOCKWORK_JOBS": "on",
        # As often as may be: it must find nothing to be mended.
        "CLOCKWORK_JOB_AUDIT_MS": "60000",
    }
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        LocalServices(log_dir=folder, dynamodb=store == "dynamodb", postgres=store == "postgresql") as services,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        cluster = Cluster(
            services=services,
            session=session,
            folder=folder,
            name=name,
            store=store,
            settings=settings,
            launch=launch,
        )
        limit = {"max.message.bytes": str(RECORD_BYTES_MAX)}
        topics = tuple([await cluster.topic(config=limit) for _ in range(TOPICS)])
        world = World(
            services=services,
            cluster=cluster,
            topics=topics,
            replies=await cluster.topic(),
            seats=tuple(NodeSeat(number=number) for number in range(NODES)),
        )
        try:
            yield world
        finally:
            async with asyncio.TaskGroup() as group:
                for node in cluster.nodes:
                    group.create_task(node.process.kill(), name="kill a node")
