"""Commits whose answers are lost, again and again, on a real Kafka: each is healed in its place, nothing is lost or twice.

    python -m tests.chaos.lost_commits --drops 250

A proxy in front of the broker picks transactions and loses every EndTxn of them until their id is initialised anew (R1): in
one third its answer, so that the commit was carried out; in one third the request, so that it was not; in one third the
request arrives late, before the init or behind it, or in the middle of what follows. The node gives up on an answer after
0.3 s (`short_commit_timeout_node`), asks for its own last marker (R3), and must find out which it was. The other slot
goes on meanwhile.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.local import LocalServices
from infra.local.child import Child
from infra.local.node import Launch
from infra.local.ports import free_port
from tests.support.kafka_proxy import END_TXN, INIT_PRODUCER_ID, Fate, KafkaProxy
from tests.support.load import Load
from tests.support.nodes import opened_cluster
from tests.support.reader import read_all
from tests.support.under_load import under_load
from tests.support.waiting import until

PER_SECOND: Final = 80.0
LOSES: Final = 0.25
"""Share of transactions whose commit is lost, once it has begun."""
WITHIN_S: Final = 1_800.0
LOST: Final = (Fate.ANSWER, Fate.REQUEST, Fate.LATE)


class Losses:
    """The fates of commits, until there were enough."""

    def __init__(self, seed: int, *, drops: int) -> None:
        self.transactions: Counter[Fate] = Counter()
        """That were lost, by how."""
        self._rng = random.Random(seed)
        self._drops = drops
        self._losing: dict[str, Fate] = {}

    @property
    def done(self) -> bool:
        return self.transactions.total() >= self._drops and not self._losing

    def fate_of(self, key: int, transactional_id: str) -> Fate:
        if key == INIT_PRODUCER_ID:
            self._losing.pop(transactional_id, None)
            return Fate.PASSED
        if key != END_TXN:
            return Fate.PASSED
        if transactional_id not in self._losing:
            if self.transactions.total() >= self._drops or self._rng.random() >= LOSES:
                return Fate.PASSED
            self._losing[transactional_id] = self._rng.choice(LOST)
            self.transactions[self._losing[transactional_id]] += 1
            return self._losing[transactional_id]
        # Its repeats: what was carried out already, or comes late, is not answered either.
        return Fate.REQUEST if self._losing[transactional_id] is not Fate.ANSWER else Fate.ANSWER


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The findings."""

    lost: Counter[Fate]
    unknown: float
    """Commits that the node gave up on."""
    schedules: int
    broken: Sequence[str]

    def text(self) -> str:
        lost = ", ".join(
            f"{fate.value}: {count}" for fate, count in sorted(self.lost.items(), key=lambda i: i[0].value)
        )
        return f"{self.schedules} schedules, commits lost: {lost}; {self.unknown:.0f} unknown to the node"


async def lose_commits(folder: Path, *, drops: int, seed: int = 1, launch: Launch = Child.start) -> Result:
    """One run; logs go to the folder."""
    kafka_port = free_port()
    proxy = KafkaProxy(f"127.0.0.1:{kafka_port}", seed=seed)
    losses = Losses(seed, drops=drops)
    await proxy.open()
    try:
        async with (
            LocalServices(log_dir=folder, kafka_port=kafka_port, kafka_settings=proxy.advertised) as services,
            opened_cluster(services, folder, launch=launch) as cluster,
        ):
            topics = (await cluster.topic(), await cluster.topic())
            node = await cluster.start(module="tests.chaos.short_commit_timeout_node")
            load = Load(cluster, topics, per_second=PER_SECOND)
            load.clients = [node.client]
            proxy.fate_of = losses.fate_of

            async def done() -> bool:
                return losses.done

            async with under_load(cluster, load, *topics):
                await until(done, f"{drops} lost commits", within_s=WITHIN_S)
            unknown = sum(
                [
                    await node.metric(f'clockwork_transactions_total{{result="unknown",slot="{slot}"}}')
                    for slot in (0, 1)
                ]
            )
            await load.ask_all()
            await cluster.stop()
            records = await read_all(services.kafka_brokers, *topics)
            broken = load.ledger.broken(records, await read_all(services.kafka_brokers, cluster.dead_letters))
            return Result(
                lost=losses.transactions, unknown=unknown, schedules=len(load.ledger.promises), broken=list(broken)
            )
    finally:
        await proxy.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.lost_commits", description=__doc__)
    parser.add_argument("--drops", type=int, default=250, help="transactions whose commit is lost")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="clockwork-lost-commits-"))
    result = asyncio.run(lose_commits(folder, drops=chosen.drops, seed=chosen.seed))
    sys.stdout.write(f"{result.text()}\n")
    for line in result.broken:
        sys.stdout.write(f"BROKEN: {line}\n")
    return 1 if result.broken else 0


if __name__ == "__main__":
    sys.exit(main())
