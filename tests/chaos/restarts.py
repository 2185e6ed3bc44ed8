"""A rolling restart and a scale-down of static members under load: who owns what, and how late is what.

    python -m tests.chaos.restarts

Three nodes with instance ids, stopped by SIGTERM and started again one after the other. Nothing may move meanwhile, and
nothing may be later than its restart took, and a second. Then one is stopped by SIGUSR1, which says that it will not come
back, and one by SIGTERM with `python -m clockwork leave` after it; its shards go to the others at once.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from infra.local import LocalServices
from tests.support.commands import CommandExit, clockwork
from tests.support.load import Load
from tests.support.nodes import Cluster, ClusterNode, now_ms, opened_cluster
from tests.support.reader import Arrived, CommittedReader, read_all
from tests.support.under_load import under_load, until_delivers

NAMES: Final = ("a", "b", "c")
SHARDS: Final = 12
SHARE: Final = SHARDS // len(NAMES)
PER_SECOND: Final = 90.0
SETTINGS: Final = {
    "CLOCKWORK_SHARDS": str(SHARDS),
    # Longer than all of it: whatever moves, does not move because a session ended.
    "CLOCKWORK_SESSION_TIMEOUT_MS": "120000",
}
OVER_MS_MAX: Final = 1_000
"""Lateness that a restart may cost beyond its own length, and that a hand-over may cost at all."""
REBALANCES: Final = "clockwork_rebalances_total"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One node that was stopped, and what it meant for the shards that it had."""

    name: str
    shards: frozenset[int]
    from_ms: int
    """SIGTERM."""
    stopped_ms: int
    """Its process had ended."""
    back_ms: int
    """It was ready again; or, of one that left, `leave` was told so by Kafka."""
    delivers_ms: int
    """Each of the shards had delivered something after the end."""
    moved: int = 0
    """Shards that stand elsewhere than before; of one that left, those of the others: they share out evenly what is there,
    from live node to live node at once."""
    rebalances: int = 0
    """Rebalances of the other nodes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The findings."""

    restarts: Sequence[Change]
    left: Change
    """By SIGUSR1."""
    removed: Change
    """By the command."""
    broken: Sequence[str]
    """Promises of the ledger."""
    load: Load
    records: Sequence[Arrived]

    def late_ms(self, change: Change) -> list[int]:
        """Lateness of all that was due in these shards from SIGTERM until they delivered again, in rising order."""
        return late_ms(self.load, self.records, change.shards, from_ms=change.from_ms, to_ms=change.delivers_ms)

    def complaints(self) -> list[str]:
        """Everything that is not as it should be."""
        found = list(self.broken)
        for change in self.restarts:
            late, restart_ms = self.late_ms(change)[-1], change.back_ms - change.from_ms
            if change.moved or change.rebalances:
                found.append(f"{change.name}: {change.moved} shards moved, {change.rebalances} rebalances of others")
            if late > restart_ms + OVER_MS_MAX:
                found.append(f"{change.name}: {late} ms late, its restart took {restart_ms} ms")
        late_ms = self.late_ms(self.left)
        if (p99_ms := late_ms[int(len(late_ms) * 0.99)]) > OVER_MS_MAX:
            found.append(f"{self.left.name} left by SIGUSR1, and the p99 of its shards' lateness is {p99_ms} ms")
        return found

    def text(self) -> str:
        """For people."""
        lines = [
            f"{change.name} restarted in {change.back_ms - change.from_ms} ms "
            f"(drain {change.stopped_ms - change.from_ms} ms): "
            f"{change.moved} shards moved, {change.rebalances} rebalances of others; "
            f"its shards' lateness {figures(self.late_ms(change))}; the others' {figures(self.of_others(change))}"
            for change in self.restarts
        ]
        lines += [
            f"{change.name} left for good by {how}: ended after {change.stopped_ms - change.from_ms} ms, "
            f"{change.back_ms - change.stopped_ms} ms for the command, its shards deliver again "
            f"{change.delivers_ms - change.from_ms} ms after the signal, {change.moved} shards of the others moved; "
            f"its shards' lateness {figures(self.late_ms(change))}; the others' {figures(self.of_others(change))}"
            for how, change in (("SIGUSR1", self.left), ("SIGTERM and `leave`", self.removed))
        ]
        return "\n".join(lines)

    def of_others(self, change: Change) -> list[int]:
        others = frozenset(range(SHARDS)) - change.shards
        return late_ms(self.load, self.records, others, from_ms=change.from_ms, to_ms=change.delivers_ms)


def late_ms(load: Load, records: Iterable[Arrived], shards: frozenset[int], *, from_ms: int, to_ms: int) -> list[int]:
    """Lateness of what was due in these shards then; for what was accepted when it was due already, since then."""
    promises = load.ledger.promises
    return sorted(
        record.timestamp_ms - max(p.due_ms, p.accepted_at_ms)
        for record in records
        if (p := promises[record.schedule_key]).shard in shards and from_ms <= p.due_ms <= to_ms
    )


def figures(sorted_ms: Sequence[int]) -> str:
    p50, p99 = (sorted_ms[min(len(sorted_ms) - 1, int(len(sorted_ms) * share))] for share in (0.5, 0.99))
    return f"p50 {p50} ms, p99 {p99} ms, max {sorted_ms[-1]} ms of {len(sorted_ms)}"


async def restarts(cluster: Cluster) -> Report:
    """The whole course, on a cluster without nodes that was opened with `SETTINGS`."""
    topic = await cluster.topic()
    load = Load(cluster, [topic], per_second=PER_SECOND, cancel_share=0.0)
    nodes = {name: await _start(cluster, name) for name in NAMES}
    for node in nodes.values():
        await node.until_works(SHARE)
    load.clients = [node.client for node in nodes.values()]
    async with under_load(cluster, load, topic) as reader:
        await until_delivers(reader, load, since_ms=0)
        done = [await _restart(cluster, nodes, name, load, reader) for name in NAMES]
        left = await _leave(cluster, nodes, NAMES[-1], load, reader, for_good=True)
        removed = await _leave(cluster, nodes, NAMES[-2], load, reader, for_good=False)
    await load.ask_all()
    await cluster.stop()
    records = await read_all(cluster.services.kafka_brokers, topic)
    broken = load.ledger.broken(records)
    return Report(restarts=done, left=left, removed=removed, broken=broken, load=load, records=records)


async def _start(cluster: Cluster, name: str) -> ClusterNode:
    return await cluster.start(more={"CLOCKWORK_INSTANCE_ID": name})


async def _restart(
    cluster: Cluster, nodes: dict[str, ClusterNode], name: str, load: Load, reader: CommittedReader
) -> Change:
    before, rebalances = await _shards(nodes), await _rebalances(nodes, name)
    from_ms, stopped_ms = await _stop(nodes, name, load)
    nodes[name] = await _start(cluster, name)
    back_ms = now_ms()
    load.clients = [node.client for node in nodes.values()]
    await nodes[name].until_works(SHARE)
    change = await _delivers_again(
        nodes, name, load, reader, before=before, from_ms=from_ms, stopped_ms=stopped_ms, back_ms=back_ms
    )
    return replace(change, rebalances=await _rebalances(nodes, name) - rebalances)


async def _leave(
    cluster: Cluster,
    nodes: dict[str, ClusterNode],
    name: str,
    load: Load,
    reader: CommittedReader,
    *,
    for_good: bool,
) -> Change:
    before = await _shards(nodes)
    from_ms, stopped_ms = await _stop(nodes, name, load, for_good=for_good)
    if not for_good:
        left = await leave(cluster, name)
        assert left.code == 0, left.stderr
    del nodes[name]
    return await _delivers_again(
        nodes, name, load, reader, before=before, from_ms=from_ms, stopped_ms=stopped_ms, back_ms=now_ms()
    )


async def _delivers_again(
    nodes: dict[str, ClusterNode],
    name: str,
    load: Load,
    reader: CommittedReader,
    *,
    before: dict[str, frozenset[int]],
    from_ms: int,
    stopped_ms: int,
    back_ms: int,
) -> Change:
    """Waits until the shards of a stopped node deliver, and counts those that another node has lost or gained."""
    delivers_ms = await until_delivers(reader, load, shards=before[name], since_ms=stopped_ms)
    after = await _shards(nodes)
    return Change(
        name=name,
        shards=before[name],
        from_ms=from_ms,
        stopped_ms=stopped_ms,
        back_ms=back_ms,
        delivers_ms=delivers_ms,
        moved=sum(len(before[each] - after[each]) for each in nodes),
    )


async def _shards(nodes: dict[str, ClusterNode]) -> dict[str, frozenset[int]]:
    return {name: await node.shards() for name, node in nodes.items()}


async def _stop(nodes: dict[str, ClusterNode], name: str, load: Load, *, for_good: bool = False) -> tuple[int, int]:
    """Returns the time at which it was told, and at which it had ended."""
    load.clients = [node.client for each, node in nodes.items() if each != name]
    from_ms = now_ms()
    code = await nodes[name].process.stop(for_good=for_good)
    assert code == 0, f"{name} ended with {code}"
    return from_ms, now_ms()


async def _rebalances(nodes: dict[str, ClusterNode], but: str) -> int:
    return int(sum([await node.metric(REBALANCES) for name, node in nodes.items() if name != but]))


async def leave(cluster: Cluster, name: str | None) -> CommandExit:
    """Runs `python -m clockwork leave`, for the member of this name or without one."""
    more = {"CLOCKWORK_INSTANCE_ID": name} if name is not None else {}
    return await clockwork("leave", settings=cluster.environment(more))


async def _run(folder: Path) -> Report:
    async with LocalServices(log_dir=folder) as services, opened_cluster(services, folder, SETTINGS) as cluster:
        return await restarts(cluster)


def main(arguments: Sequence[str] | None = None) -> int:
    """Ends with 1 if something was not as it should be; the logs are then kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.restarts", description=__doc__)
    parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="clockwork-restarts-"))
    report = asyncio.run(_run(folder))
    sys.stdout.write(report.text() + "\n")
    for complaint in report.complaints():
        sys.stdout.write(f"NOT AS IT SHOULD BE: {complaint}\n")
    if report.complaints():
        sys.stdout.write(f"logs: {folder}\n")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
