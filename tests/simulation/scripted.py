"""Histories written by hand, for breaks that chance meets too seldom: who pauses where, which request comes late."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Final

from clockwork.domain.destination import Topic
from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import DataForm, Guarantee, NewSchedule, OrderingKey, ScheduleKey
from tests.simulation import checkers
from tests.simulation.clocks import EPOCH_MS
from tests.simulation.cluster import Cluster
from tests.simulation.command_world import COMMANDS, REPLIES
from tests.simulation.faults import Act, KafkaFaults, Profile, StoreFaults, Trigger
from tests.simulation.node import Call, CancelCall, ChangeCall, CreateCall, FindCall
from tests.simulation.trace import EngineLog
from tests.simulation.workload import CLIENT, History, Op

TOPIC: Final = Topic("orders")
UNTIDIED_S: Final = 4.0
"""So long nothing that is delivered is tidied up."""


def profile(*, nodes: int = 2, triggers: Sequence[Trigger] = (), lead_ms: int = 60, commanded: bool = False) -> Profile:
    """Nothing goes wrong but what the script says. Back-off is long, sessions are short."""
    return Profile(
        nodes=nodes,
        shards=1,
        faults_end_s=8.0,
        schedules=0,
        commanded=int(commanded),
        lead_ms=lead_ms,
        scan_interval_ms=300,
        batch_records_max=50,
        session_s=0.4,
        clock_offset_ms=0.0,
        retry_initial_ms=6_000,
        store=StoreFaults(latency_s=0.002, slow_apply=0.0, slow_query=0.0, timeout_s=0.15),
        kafka=KafkaFaults(latency_s=0.002, wakeup_lost=0.0, wakeup_doubled=0.0, preflight=1.0),
        triggers=tuple(triggers),
    )


def pause(operation: str, nth: int, for_s: float, *, after: bool = False) -> Trigger:
    """Whoever comes to this step as the nth stands still there."""
    return Trigger(operation=operation, nth=nth, act=Act.FREEZE, for_s=for_s, after=after)


class Script:
    """One history."""

    def __init__(self, of: Profile) -> None:
        self.cluster = Cluster(1, of)
        self.history = History()
        self._rng = random.Random(1)

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
        transaction = kafka.begin("producer", epoch, {COMMANDS})
        kafka.produce(transaction, kafka.where(record), [record], "producer")
        kafka.commit("producer", epoch)

    def find(self, key: str) -> None:
        self.ask(FindCall(CLIENT, ScheduleKey(key)))

    def ask(self, call: Call) -> None:
        """Asks a node that is awake and works no shard, if there is one."""
        nodes = self.cluster.nodes
        order = sorted(range(len(nodes)), key=lambda n: (not nodes[n].host.awake, len(nodes[n].supervisor.shards)))
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
        self.cluster.triggers.append(pause(operation, 1, for_s, after=after))

    def cut_owner_off(self) -> None:
        """The group's coordinator loses sight of the owner, who works on."""
        for node in self.cluster.nodes:
            if node.supervisor.shards:
                node.host.group_cuts += 1

    def delay_cleanup(self, from_s: float) -> None:
        """What is delivered meanwhile stays for a while: its rows are there, its outcomes not yet."""
        store = self.cluster.worlds.store

        def never(operation: str) -> None:
            store.forced[operation] = [None] * 1_000

        for operation in ("put_outcomes", "put_outcomes_if_absent", "delete_rows"):
            self.at(from_s, lambda operation=operation: never(operation))  # type: ignore[misc]
            self.at(from_s + UNTIDIED_S, lambda operation=operation: store.forced.pop(operation))  # type: ignore[misc]

    def play(self) -> list[str]:
        """The broken promises."""
        cluster = self.cluster
        with EngineLog(cluster.trace, everything=True):
            cluster.start()
            cluster.reactor.run(until_s=cluster.profile.faults_end_s)
            cluster.heal()
            cluster.reactor.run(until_s=60.0)
            checkers.check_all(cluster, self.history)
            if not checkers.at_rest(cluster):
                cluster.trace.violation("liveness", "something is left")
            cluster.end()
        return cluster.trace.violations
