"""Histories written by hand, for breaks that chance meets too seldom: who pauses where, which request comes late."""

import json
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from clockwork.domain.destination import Topic
from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import (
    DataForm,
    Guarantee,
    NewSchedule,
    OrderingKey,
    ScheduleKey,
)
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import NewlyDue
from tests.simulation import checkers
from tests.simulation.clocks import EPOCH_MS
from tests.simulation.cluster import Cluster
from tests.simulation.command_world import COMMANDS, REPLIES
from tests.simulation.faults import CALM_STORE, FaultKind, KafkaFaults, Profile, StepFault
from tests.simulation.kafka_world import BROKERS, DELIVERIES, Silence, Where
from tests.simulation.node import Call, CancelCall, ChangeCall, CreateCall, FindCall, engine_limits
from tests.simulation.trace import EngineLog
from tests.simulation.workload import CLIENT, History, Op

TOPIC: Final = Topic("orders")
UNTIDIED_S: Final = 4.0
"""So long nothing that is delivered is tidied up."""


def profile(
    *,
    nodes: int = 2,
    step_faults: Sequence[StepFault] = (),
    lead_ms: int = 60,
    commanded: bool = False,
    scan_interval_ms: int = 300,
    faults_end_s: float = 8.0,
    one_slot: bool = False,
    quick_rows: int = 50,
    retention_ms: int = 7 * 86_400_000,
    pointer_margin_ms: int | None = None,
) -> Profile:
    """Nothing goes wrong but what the script says. Back-off is long, sessions are short."""
    return Profile(
        nodes=nodes,
        shards=1,
        faults_end_s=faults_end_s,
        schedules=0,
        commanded=int(commanded),
        lead_ms=lead_ms,
        scan_interval_ms=scan_interval_ms,
        batch_records_max=50,
        session_s=0.4,
        clock_offset_ms=0.0,
        retry_initial_ms=6_000,
        store=CALM_STORE,
        kafka=KafkaFaults(latency_s=0.002, wakeup_lost=0.0, wakeup_doubled=0.0, preflight=1.0),
        step_faults=tuple(step_faults),
        wakeups_certain=True,
        retention_ms=retention_ms,
        pointer_margin_ms=pointer_margin_ms,
        quick_rows=quick_rows,
        quick_wait_ms=60_000 if one_slot else 250,
    )


def pause(operation: str, nth: int, for_s: float, *, after: bool = False) -> StepFault:
    """A fault that stops the nth to come to this step."""
    return StepFault(operation=operation, nth=nth, kind=FaultKind.FREEZE, for_s=for_s, after=after)


class Script:
    """One history."""

    def __init__(self, of: Profile) -> None:
        self.cluster = Cluster(1, of)
        self.history = History()
        self._rng = random.Random(1)
        self._deposed = -1
        self._where: Where = (DELIVERIES, 0)

    def at(self, at_s: float, do: Callable[[], object]) -> None:
        self.cluster.reactor.at(at_s, do)

    def create(
        self, key: str, *, due_s: float, refused: int = 0, at_least_once: bool = False, body: str = "", lane: str = ""
    ) -> None:
        """At once; refused by its topic so many times; in a lane of its own, if none is named."""
        data = f"poison:{refused}:{key}" if refused else key + body
        self.ask(
            CreateCall(
                NewSchedule(
                    client_id=CLIENT,
                    schedule_key=ScheduleKey(key),
                    ordering_key=OrderingKey(lane or key),
                    due_ms=EPOCH_MS + round(due_s * 1_000),
                    topic=TOPIC,
                    guarantee=Guarantee.AT_LEAST_ONCE if at_least_once else Guarantee.EXACTLY_ONCE,
                    task_data=data.encode(),
                    data_form=DataForm.TEXT,
                    headers=(),
                    traceparent=None,
                    digest=key + body,
                )
            )
        )

    def cancel(self, key: str) -> None:
        self.ask(CancelCall(CLIENT, ScheduleKey(key)))

    def change(self, key: str, *, due_s: float | None = None, body: str | None = None) -> None:
        self.ask(
            ChangeCall(
                client_id=CLIENT,
                schedule_key=ScheduleKey(key),
                due_ms=None if due_s is None else EPOCH_MS + round(due_s * 1_000),
                task_data=None if body is None else (key + body).encode(),
            )
        )

    def command_cancel(self, key: str) -> None:
        """By a producer that never dies; its answer stands in the trace."""
        kafka = self.cluster.worlds.kafka
        named = {"clientId": CLIENT, "scheduleKey": key}
        document = {"command": "cancel", "schedule": named, "replyTo": REPLIES, "correlationId": key}
        value = json.dumps(document).encode()
        record = OutRecord(topic=COMMANDS, key=CLIENT.encode(), value=value, headers=(), timestamp_ms=EPOCH_MS)
        epoch = kafka.init("producer")
        transaction = kafka.begin("producer", epoch, {kafka.where(record)})
        kafka.produce(transaction, kafka.where(record), [record], "producer")
        kafka.commit("producer", epoch)

    def find(self, key: str) -> None:
        self.ask(FindCall(CLIENT, ScheduleKey(key)))

    def ask(self, call: Call) -> None:
        """Asks a node that is awake and works no shard, if there is one."""
        nodes = self.cluster.nodes
        order = sorted(
            range(len(nodes)),
            key=lambda n: (not nodes[n].host.awake or nodes[n].ended, len(nodes[n].supervisor.shards)),
        )
        key = call.new.schedule_key if isinstance(call, CreateCall) else call.schedule_key
        op = Op(number=len(self.history.ops), key=key, call=call, asked_at_s=self.cluster.reactor.now_s)
        self.history.ops.append(op)

        def reply(answer: object) -> None:
            self.cluster.trace.note("answered", op.number, answer)
            if not isinstance(answer, Exception):
                op.answered_at_s, op.answer = self.cluster.reactor.now_s, answer

        self.cluster.call_node(order[0], self._rng, call, reply)

    def pause_next(self, operation: str, for_s: float, *, after: bool = False) -> None:
        """From now on, the first node that comes to this step."""
        self.cluster.step_faults.append(pause(operation, 1, for_s, after=after))

    def cut_owner_off(self) -> None:
        """The group's coordinator loses sight of the owner, who works on."""
        for node in self.cluster.nodes:
            if node.supervisor.shards:
                node.host.group_cuts += 1

    def owner(self) -> int:
        """The number of the node that works the shard."""
        return next(n for n, node in enumerate(self.cluster.nodes) if node.supervisor.shards)

    def kill_owner(self) -> None:
        self.cluster.kill(self.owner(), restart_s=None)

    def stop_owner(self) -> None:
        self.cluster.nodes[self.owner()].stop()

    def depose_coordinator(self) -> None:
        """That of the first transactional id. It leads nothing."""
        kafka = self.cluster.worlds.kafka
        self._deposed = kafka.coordinator_of(next(iter(kafka._ids)), kafka.any_broker())
        for where, leader in kafka.leaders.items():
            kafka.leaders[where] = (leader + (leader == self._deposed)) % BROKERS
        kafka.depose(self._deposed, 30.0)
        self.ask_the_others()

    def depose_leader_of_markers(self) -> None:
        """That of the Kafka partition in which the first marker stands."""
        kafka = self.cluster.worlds.kafka
        self._where = next(where for where, log in kafka.logs.items() if where[0] == DELIVERIES and log)
        self._deposed = kafka.leaders[self._where]
        kafka.depose(self._deposed, 30.0)
        self.ask_the_others()

    def ask_the_deposed(self) -> None:
        """From now on clients ask it, and no other, who leads and coordinates."""
        self.cluster.worlds.kafka.any_broker = lambda: self._deposed  # type: ignore[method-assign]

    def ask_the_others(self) -> None:
        kafka, other = self.cluster.worlds.kafka, (self._deposed + 1) % BROKERS
        kafka.any_broker = lambda: other  # type: ignore[method-assign]
        kafka.__dict__.pop("leader_of", None)

    def mislead_to_the_deposed(self) -> None:
        """Metadata names it as the leader of the markers' Kafka partition."""
        kafka = self.cluster.worlds.kafka
        leader_of = kafka.leader_of

        def misled(where: Where, asked: int) -> int:
            return self._deposed if where == self._where else leader_of(where, asked)

        kafka.leader_of = misled  # type: ignore[method-assign]

    def remember_the_deposed(self) -> None:
        """Every node's cache names it."""
        for node in self.cluster.nodes:
            node.publisher._brokers._leaders[self._where] = self._deposed

    def remember_the_leader(self) -> None:
        """Every node's cache names the true one."""
        kafka = self.cluster.worlds.kafka
        for node in self.cluster.nodes:
            node.publisher._brokers._leaders[self._where] = kafka.leaders[self._where]

    def lengthen_the_deposed(self) -> None:
        """It takes records that it can replicate to no other broker."""
        kafka = self.cluster.worlds.kafka
        record = OutRecord(topic=DELIVERIES, key=b"other", value=None, headers=(), timestamp_ms=0)
        for _ in range(20):
            with suppress(Silence):
                kafka.asked_to_append(self._deposed, self._where, record, "other")

    def delete_pointer(self, key: str) -> None:
        """As TTL does, long after its schedule has ended."""
        self.cluster.worlds.store.pointers.pop((CLIENT, ScheduleKey(key)))

    def sweep_everything(self) -> None:
        """All incarnations are fenced, and the items of those that own nothing are deleted, as after a day."""
        store = self.cluster.worlds.store
        owners = {state.owner for state in store.shard_states.values()}
        for incarnation in [each for each in store.nodes if each not in owners]:
            store.nodes.pop(incarnation)

    def lose_wakeups(self) -> None:
        """All but those that a script makes."""
        kafka = self.cluster.worlds.kafka
        kafka.faults = replace(kafka.faults, wakeup_lost=1.0)

    def wake(self, *, due_s: float) -> None:
        """The owner is told that something new is due then."""
        for node in self.cluster.nodes:
            node.supervisor.tell(ShardId(0), NewlyDue(EPOCH_MS + round(due_s * 1_000)))

    def slow_the_store_down(self) -> None:
        self.cluster.worlds.store.slow += 1

    def slow_the_store_down_no_more(self) -> None:
        self.cluster.worlds.store.slow -= 1

    def delay_cleanup(self, from_s: float) -> None:
        """Keeps what is delivered from then on uncleaned for a while: its rows are there, its outcomes not yet."""
        store = self.cluster.worlds.store

        def never(operation: str) -> None:
            store.forced[operation] = [None] * 1_000

        for operation in ("put_outcomes", "put_outcomes_if_absent", "delete_rows"):
            self.at(from_s, lambda operation=operation: never(operation))  # type: ignore[misc]
            self.at(from_s + UNTIDIED_S, lambda operation=operation: store.forced.pop(operation))  # type: ignore[misc]

    def play(self) -> list[str]:
        """The broken promises."""
        cluster = self.cluster
        with EngineLog(cluster.trace, everything=True), engine_limits(cluster.profile):
            cluster.start()
            cluster.reactor.run(until_s=cluster.profile.faults_end_s)
            cluster.heal()
            cluster.reactor.run(until_s=60.0)
            checkers.check_all(cluster, self.history)
            if not checkers.at_rest(cluster):
                cluster.trace.violation("liveness", "something is left")
            cluster.end()
        return cluster.trace.violations
