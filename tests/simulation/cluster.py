"""N nodes, the worlds around them, and the faults that happen to them."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

from clockwork.domain.position import Position
from clockwork.domain.sharding import ShardId
from clockwork.errors import ClockworkError, InvalidInput, Unavailable
from clockwork.requests.results import Changed, Created, Unchanged
from tests.simulation.clocks import NodeClock, TrueTime
from tests.simulation.command_world import COMMANDS, REPLIES, CommandWorld
from tests.simulation.faults import Fault, FaultKind, Profile, StepFault
from tests.simulation.group_world import GroupWorld
from tests.simulation.host import Host
from tests.simulation.job_world import JobWorld
from tests.simulation.kafka_world import BROKERS, DEAD_LETTERS, KAFKA_PARTITIONS, OWN_DEAD_LETTERS, KafkaWorld
from tests.simulation.node import Call, JobCall, Node, PausesWorld, Worlds, answer
from tests.simulation.store_world import StoreWorld
from tests.simulation.trace import Trace, describe
from tests.simulation.virtual_loop import Power, Reactor, new_loop

TOPICS: Final = ("orders", "mails", "bills")
ENFORCED_SKEW_MS: Final = 6_000
"""By so much a trusted clock may be ahead of the store's at the very most: the bound (2 s), what a `Date` of whole
seconds hides (1 s), what a slow answer hides (1 s), and a jump since then that is within the bound (2 s)."""
RESTART_SKEW_MS: Final = 1_900
"""A node whose clock was set back by more would stand still for as long, as its clock never steps back: it is restarted."""
DRIFT_MS_MAX: Final = 12
"""Time that a drifting clock may gain in a run."""

Reply = Callable[[object], None]
_K = TypeVar("_K")


class Cluster:
    """Nodes by number; each number has one life after another."""

    def __init__(self, seed: int, profile: Profile) -> None:
        self.profile = profile
        self.reactor = Reactor()
        self.time = TrueTime(self.reactor)
        self.trace = Trace(self.reactor)
        self._seed = seed
        self._rng = random.Random(f"{seed}/cluster")
        self._spots_rng = random.Random(f"{seed}/sore")
        store = StoreWorld(
            self.reactor,
            self.time,
            self.trace,
            random.Random(f"{seed}/store"),
            profile.store,
            shards=profile.shards,
            page_rows=profile.page_rows,
        )
        kafka = KafkaWorld(self.reactor, self.time, self.trace, random.Random(f"{seed}/kafka"), profile.kafka)
        group = GroupWorld(
            reactor=self.reactor,
            kafka=kafka,
            rng=random.Random(f"{seed}/group"),
            shards=profile.shards,
            session_s=profile.session_s,
        )
        commands = CommandWorld(
            kafka=kafka,
            group=GroupWorld(
                reactor=self.reactor,
                kafka=kafka,
                rng=random.Random(f"{seed}/commands' group"),
                shards=KAFKA_PARTITIONS,
                session_s=profile.session_s,
            ),
        )
        self.worlds = Worlds(
            store=store,
            jobs=JobWorld(store, random.Random(f"{seed}/losses")),
            kafka=kafka,
            group=group,
            commands=commands,
            pauses=PausesWorld(),
            trace=self.trace,
        )
        for topic in (*TOPICS, DEAD_LETTERS, OWN_DEAD_LETTERS, COMMANDS, REPLIES):
            kafka.create_topic(topic)
        self.nodes: list[Node] = []
        self.ahead_ms_max = 0.0
        """The most that any node's clock was ahead at any time; never more than the enforced bound."""
        self.accepted_at_s: dict[Position, float] = {}
        """When `201` (or the `200` of a change) was sent."""
        self.healed = False
        self._lives = 0
        self._clocks: list[NodeClock] = []
        self.died_at_s: dict[str, float] = {}
        """By the name of a node's life."""
        self.step_faults: list[StepFault] = list(profile.step_faults)

    def _note_ahead(self, number: int) -> None:
        ahead_ms = self._clocks[number].ahead_ms() + (DRIFT_MS_MAX if self.profile.clock_offset_ms else 1)
        self.ahead_ms_max = max(self.ahead_ms_max, min(ENFORCED_SKEW_MS, ahead_ms))

    # --- life and death

    def start(self) -> None:
        """Starts every node, and lets the faults come."""
        self.worlds.group.start()
        self.worlds.kafka.play_foreign_transactions()
        self.worlds.store.start_ttl()
        if self.profile.commanded:
            self.worlds.commands.group.start()
        for number in range(self.profile.nodes):
            offset_ms = self._rng.uniform(-1, 1) * self.profile.clock_offset_ms
            drift = self._rng.uniform(-1, 1) * (1e-4 if self.profile.clock_offset_ms else 0.0)
            self._clocks.append(NodeClock(self.reactor, offset_ms=offset_ms, drift=drift))
            self.nodes.append(self._born(number))
            self._note_ahead(number)
        for fault in self.profile.faults:
            self.reactor.at(fault.at_s, self._strike, fault)

    def _born(self, number: int) -> Node:
        self._lives += 1
        name = f"n{number}.{self._lives}"
        loop = new_loop(self.reactor, name, self._on_loop_error)
        rng = random.Random(f"{self._seed}/{name}")
        # The operating system's clock survives the process; that it never shows less than before does not.
        self._clocks[number] = self._clocks[number].of_new_process()
        host = Host(name, loop, self._clocks[number], rng, self._on_step)
        node = Node(self.worlds, host, self.profile)
        self.trace.note("starts", name)
        node.start()
        return node

    def kill(self, number: int, *, restart_s: float | None) -> None:
        node = self.nodes[number]
        if not node.host.alive:
            return
        self.trace.note("dies", node.host)
        self.died_at_s[node.host.name] = self.reactor.now_s
        node.host.alive = False
        node.host.loop.kill()
        if restart_s is not None:
            self.reactor.after(restart_s, self._restart, number)

    def _restart(self, number: int) -> None:
        if not self.nodes[number].host.alive:
            self.nodes[number] = self._born(number)

    def heal(self) -> None:
        """Faults stop; what is broken is mended."""
        self.healed = True
        self.step_faults.clear()
        store, kafka = self.worlds.store, self.worlds.kafka
        store.down = store.slow = store.throttling = kafka.down = kafka.slow = 0
        kafka.away.clear()
        kafka.deposed.clear()
        store.hot.clear()
        self.worlds.pauses.resume_all()
        calm = type(store.faults)(latency_s=store.faults.latency_s, timeout_s=store.faults.timeout_s)
        store.faults = calm
        kafka.faults = type(kafka.faults)(latency_s=kafka.faults.latency_s)
        kafka.missing.clear()
        for number, node in enumerate(self.nodes):
            node.host.store_cuts = node.host.kafka_cuts = node.host.group_cuts = 0
            clock = self._clocks[number]
            far_off = abs(clock.ahead_ms()) > RESTART_SKEW_MS
            clock.set_right()
            if node.host.loop.power is Power.FROZEN:
                node.host.loop.thaw()
            if node.ended or far_off:
                self.kill(number, restart_s=None)
            self._restart(number)
        self.trace.note("healed")

    def end(self) -> None:
        """Nothing of this run must outlive it."""
        for number in range(len(self.nodes)):
            self.kill(number, restart_s=None)

    # --- requests of clients

    def call(self, rng: random.Random, call: Call | JobCall, reply: Reply) -> None:
        """Sends a request to some node. `reply` may never be called."""
        self.call_node(rng.randrange(len(self.nodes)), rng, call, reply)

    def call_node(self, number: int, rng: random.Random, call: Call | JobCall, reply: Reply) -> None:
        node = self.nodes[number]
        if node.host.alive and not node.ended:
            self.reactor.after(rng.expovariate(1 / 0.002), self._receive, node, call, reply)

    def _receive(self, node: Node, call: Call | JobCall, reply: Reply) -> None:
        if node.host.alive:
            node.host.loop.create_task(self._serve(node, call, reply))

    async def _serve(self, node: Node, call: Call | JobCall, reply: Reply) -> None:
        try:
            result: object = await answer(node, call)
        except (Unavailable, InvalidInput) as error:
            result = error
        except ClockworkError as error:
            result = error
            self.trace.violation("defect", f"{call}: {describe(error)}")
        except Exception as error:
            result = error
            self.trace.violation("defect", f"{call}: {describe(error)}")
        if isinstance(result, Created | Changed | Unchanged):
            self.accepted_at_s.setdefault(result.view.position, self.reactor.now_s)
        self.reactor.after(0.002, reply, result)

    # --- faults

    def _on_loop_error(self, text: str) -> None:
        self.trace.violation("defect", text)

    def _on_step(self, host: Host, operation: str, after: bool) -> bool:
        """See `Host.step`."""
        for trigger in self.step_faults:
            if trigger.operation == operation and trigger.after == after:
                trigger.nth -= 1
                if trigger.nth == 0:
                    return self._strike_now(host, operation, trigger.kind, trigger.for_s)
        spots = self.profile.spots
        if spots.share and not self.healed:
            share = spots.share if operation in spots.operations else spots.elsewhere
            if self._spots_rng.random() < share:
                kind, least_s, most_s = self._spots_rng.choice(spots.kinds)
                return self._strike_now(host, operation, kind, self._spots_rng.uniform(least_s, most_s))
        return False

    def _strike_now(self, host: Host, operation: str, kind: FaultKind, for_s: float) -> bool:
        number = next((n for n, node in enumerate(self.nodes) if node.host is host), None)
        if number is None:
            return False
        self.trace.note("at step", host, operation)
        fault = Fault(at_s=self.reactor.now_s, kind=kind, node=number, for_s=for_s, amount=700.0)
        self.reactor.after(0, self._strike, fault)
        return True

    def _strike(self, fault: Fault) -> None:
        if self.healed:
            return
        self.trace.note("fault", fault.kind, fault.node, f"{fault.for_s:.3f}")
        node = self.nodes[fault.node]
        store, kafka = self.worlds.store, self.worlds.kafka
        match fault.kind:
            case FaultKind.KILL:
                self.kill(fault.node, restart_s=fault.for_s)
            case FaultKind.STOP:
                node.stop()
                self.reactor.after(fault.for_s + 2.0, self._stopped, fault.node)
            case FaultKind.FREEZE:
                self._freeze(node, fault.for_s)
            case FaultKind.JUMP:
                self._clocks[fault.node].jump(fault.amount)
                self._note_ahead(fault.node)
            case FaultKind.CUT_STORE | FaultKind.CUT_KAFKA | FaultKind.CUT_BOTH | FaultKind.CUT_GROUP:
                self._cut(node.host, fault)
            case FaultKind.STORE_DOWN:
                self._for_a_while(fault, store, "down")
            case FaultKind.STORE_SLOW:
                self._for_a_while(fault, store, "slow")
            case FaultKind.STORE_THROTTLES:
                self._for_a_while(fault, store, "throttling")
            case FaultKind.KAFKA_DOWN:
                self._for_a_while(fault, kafka, "down")
            case FaultKind.KAFKA_SLOW:
                self._for_a_while(fault, kafka, "slow")
            case FaultKind.TOPIC_MISSING:
                self._topic_for_a_while(fault, kafka.missing, _topic(fault))
            case FaultKind.TOPIC_AWAY:
                self._topic_for_a_while(fault, kafka.away, _topic(fault))
            case FaultKind.DEAD_LETTERS_AWAY:
                if self.profile.own_letters and int(fault.amount) % 2:
                    self._topic_for_a_while(fault, kafka.missing, OWN_DEAD_LETTERS)
                else:
                    self._topic_for_a_while(fault, kafka.away, DEAD_LETTERS)
            case FaultKind.REBALANCE:
                self.worlds.group.rebalance()
                self.worlds.commands.group.rebalance()
            case FaultKind.DEPOSE:
                kafka.depose(int(abs(fault.amount)) % BROKERS, 4 * fault.for_s)
            case FaultKind.HOT_SHARD:
                self._for_a_while_of(fault, store.hot, ShardId(int(abs(fault.amount)) % self.profile.shards))
            case FaultKind.FENCE:
                self.fence(ShardId(int(abs(fault.amount)) % self.profile.shards))
            case FaultKind.PAUSE_TOPIC:
                self._pause_topic(_topic(fault), 3 * fault.for_s)

    def _freeze(self, node: Node, for_s: float) -> None:
        if node.host.awake:
            node.host.loop.freeze()
            self.reactor.after(for_s, self._thaw, node)

    def _thaw(self, node: Node) -> None:
        if node.host.loop.power is Power.FROZEN:
            self.trace.note("wakes up", node.host)
            node.host.loop.thaw()

    def _stopped(self, number: int) -> None:
        """The orchestrator starts it again; or kills it first, because it did not end in time."""
        self.kill(number, restart_s=0.1)

    def _cut(self, host: Host, fault: Fault) -> None:
        store = fault.kind in (FaultKind.CUT_STORE, FaultKind.CUT_BOTH)
        kafka = fault.kind in (FaultKind.CUT_KAFKA, FaultKind.CUT_BOTH)
        group = fault.kind is FaultKind.CUT_GROUP

        def change(by: int) -> None:
            if by < 0 and self.healed:
                return
            host.store_cuts += by * store
            host.kafka_cuts += by * kafka
            host.group_cuts += by * group

        change(1)
        self.reactor.after(fault.for_s, change, -1)

    def _for_a_while(self, fault: Fault, world: object, name: str) -> None:
        def change(by: int) -> None:
            if by > 0 or not self.healed:
                setattr(world, name, getattr(world, name) + by)

        change(1)
        self.reactor.after(fault.for_s, change, -1)

    def fence(self, shard: ShardId) -> None:
        """What `POST /admin/shards/{shard}/fence` does."""
        store = self.worlds.store
        owner = store.shard_states[shard].owner
        node = store.nodes.get(owner) if owner is not None else None
        if node is not None and node.fenced_at_ms is None:
            store.nodes[node.incarnation] = replace(node, fenced_at_ms=int(self.time.now_ms()))

    def _pause_topic(self, topic: str, for_s: float) -> None:
        self.worlds.pauses.pause(topic, at_ms=int(self.time.now_ms()))
        self.reactor.after(for_s, self.worlds.pauses.resume, topic)

    def _topic_for_a_while(self, fault: Fault, topics: dict[str, int], topic: str) -> None:
        # Some topics stay away long enough to be given up.
        self._for_a_while_of(fault, topics, topic, times=3 if fault.for_s > 2 else 1)

    def _for_a_while_of(self, fault: Fault, counts: dict[_K, int], key: _K, *, times: int = 1) -> None:
        def change(by: int) -> None:
            if by > 0 or not self.healed:
                counts[key] = counts.get(key, 0) + by

        change(1)
        self.reactor.after(fault.for_s * times, change, -1)


def _topic(fault: Fault) -> str:
    return TOPICS[int(abs(fault.amount)) % len(TOPICS)]
