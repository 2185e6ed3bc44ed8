"""One topic's leader is frozen in the middle of a load: what do the schedules of other topics feel of it?

    python -m tests.chaos.frozen_leader

Two brokers. The second leads one topic and nothing else; everything of Clockwork's own, and another topic, is on the
first. Then the second is stopped where it stands (SIGSTOP): connections stay open, nothing is answered, and some seconds
later the controller has noticed. It is resumed again; everything must arrive, once and in order.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.local import LocalServices
from infra.local.child import Child
from infra.local.node import Launch
from tests.chaos.brokers import SECOND, second_broker, topic_led_by
from tests.support.load import Load
from tests.support.nodes import Cluster, now_ms, opened_cluster
from tests.support.reader import Arrived, read_all
from tests.support.under_load import under_load, until_delivers

FROZEN_S: Final = 12.0
CALM_S: Final = 3.0
LANES_PER_SHARD: Final = 40
"""Far more than rows in one transaction, so that most lanes have none in it."""
STOPPED_MS: Final = 2_000
"""Time after the stop from which what is due is in no transaction with the leader, unless its topic is."""
PER_SECOND: Final = 80.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The findings."""

    late_ms: Sequence[int]
    """Lateness of the other topic's schedules that were due while the leader was frozen, in rising order."""
    in_time: int
    """The number of them that arrived while it was frozen."""
    held_up: Sequence[str]
    """Those of them that had half of the time to arrive and did not, and whose lane has no row in the transaction in which
    the leader stopped."""
    frozen_topic_arrived: int
    broken: Sequence[str]

    def text(self) -> str:
        late = self.late_ms
        p50, p99 = (late[min(len(late) - 1, int(len(late) * share))] for share in (0.5, 0.99))
        return (
            f"frozen for {FROZEN_S:.0f} s; the other topic's schedules meanwhile: p50 {p50} ms, p99 {p99} ms, "
            f"max {late[-1]} ms; {self.in_time} of {len(late)} arrived while it was frozen; "
            f"{self.frozen_topic_arrived} of the frozen topic's afterwards"
        )


async def freeze(folder: Path, *, replicas: Sequence[int] = (SECOND,), launch: Launch = Child.start) -> Result:
    """One run; logs go to the folder. `replicas`: the brokers of the topic that is frozen, its leader first."""
    async with (
        LocalServices(log_dir=folder) as services,
        opened_cluster(services, folder, launch=launch) as cluster,
    ):
        first = await topic_led_by(services, f"for-{cluster.name}-first", 1)
        node = await cluster.start()
        load = Load(cluster, [first], per_second=PER_SECOND, cancel_share=0.0)
        load.clients = [node.client]
        # Kafka's own topics are made at the first transaction, while there is one broker to have them.
        async with under_load(cluster, load, first) as reader:
            await until_delivers(reader, load, since_ms=0)
        async with second_broker(services, folder) as broker:
            second = await topic_led_by(services, f"for-{cluster.name}-second", *replicas)
            load = Load(
                cluster,
                [first, second],
                prefix="both",
                per_second=PER_SECOND,
                cancel_share=0.0,
                lanes_per_shard=LANES_PER_SHARD,
            )
            load.clients = [node.client]
            async with under_load(cluster, load, first, second):
                await asyncio.sleep(CALM_S)
                broker.pause()
                from_ms = now_ms()
                await asyncio.sleep(FROZEN_S)
                to_ms = now_ms()
                broker.resume()
                await asyncio.sleep(CALM_S)
            return await _judge(cluster, load, (first, second), from_ms=from_ms, to_ms=to_ms)


async def _judge(cluster: Cluster, load: Load, topics: tuple[str, str], *, from_ms: int, to_ms: int) -> Result:
    await load.ask_all()
    await cluster.stop()
    brokers = cluster.services.kafka_brokers
    records: list[Arrived] = await read_all(brokers, *topics)
    mine = [record for record in records if record.schedule_key in load.ledger.promises]
    due = [(load.ledger.promises[record.schedule_key].due_ms, record) for record in mine if record.topic == topics[0]]
    meanwhile = [(due_ms, record) for due_ms, record in due if from_ms <= due_ms <= to_ms]
    stuck = {
        load.ledger.promises[record.schedule_key].ordering_key
        for due_ms, record in due
        if due_ms < from_ms + STOPPED_MS and record.timestamp_ms > to_ms
    }
    return Result(
        late_ms=sorted(record.timestamp_ms - due_ms for due_ms, record in meanwhile),
        in_time=sum(record.timestamp_ms <= to_ms for _, record in meanwhile),
        held_up=[
            record.schedule_key
            for due_ms, record in meanwhile
            if from_ms + STOPPED_MS <= due_ms <= (from_ms + to_ms) // 2
            and record.timestamp_ms > to_ms
            and load.ledger.promises[record.schedule_key].ordering_key not in stuck
        ],
        frozen_topic_arrived=sum(record.topic == topics[1] for record in mine),
        broken=load.ledger.broken(mine, await read_all(brokers, cluster.dead_letters)),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.frozen_leader", description=__doc__)
    parser.parse_args(arguments)
    wrong = 0
    for name, replicas in (("no other replica", (SECOND,)), ("another replica", (SECOND, 1))):
        folder = Path(tempfile.mkdtemp(prefix="clockwork-frozen-leader-"))
        result = asyncio.run(freeze(folder, replicas=replicas))
        sys.stdout.write(f"{name}: {result.text()}\n")
        for line in result.broken:
            sys.stdout.write(f"BROKEN: {line}\n")
        wrong += len(result.broken)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
