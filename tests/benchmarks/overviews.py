"""Twenty open overviews beside a steady load: what they cost the node, and whether deliveries are later for them.

No browser: each overview makes the calls of `clockwork/ui/pages/overview.js`, at its intervals, with the session cookie and,
where an answer had an `ETag`, with `If-None-Match`. Rounds with and without them alternate on one node, so that other work
of the machine and the warmth of the node fall on both; the goal is about the difference within a pair.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from clockwork.access.keys import KeyEntry, hash_of, new_key
from clockwork.access.keys_command import entry
from clockwork.domain.rights import Right
from tests.benchmarks.figures import Finding, Goal, quantile
from tests.benchmarks.lateness import late_ms
from tests.benchmarks.world import Arrival, Bench, collect, cpu_s, create_at_rate, started, total
from tests.support.nodes import Cluster, ClusterNode, now_ms

SCENARIO: Final = "overviews"
SHARDS: Final = 64
OPEN: Final = 20
RATE: Final = 50
SECONDS: Final = 60
WARM_SECONDS: Final = 15
CPU_MAX: Final = 5.0
"""Percent of a core that all of them may cost."""
HOUR_MS: Final = 3_600_000
STEP_MS: Final = 900_000
KEYS: Final = "keys.toml"
READ_UNITS: Final = "clockwork_ui_read_units_total"


@dataclass(frozen=True, slots=True)
class Poll:
    """A call of the overview, made again so long after its answer."""

    every_s: float
    path: Callable[[int], str]
    """The path, at this time in epoch milliseconds."""


def _hour(at_ms: int) -> str:
    return f"/minutes?from={(at_ms - HOUR_MS) // 60_000 * 60_000}"


def _day(at_ms: int) -> str:
    to_ms = -(-at_ms // STEP_MS) * STEP_MS
    return f"/minutes?from={to_ms - 24 * HOUR_MS}&to={to_ms}&stepMs={STEP_MS}"


POLLS: Final = (
    Poll(5, _hour),
    Poll(10, lambda _: "/admin/shards"),
    Poll(10, lambda _: "/admin/nodes"),
    Poll(10, lambda _: "/admin/pauses"),
    Poll(30, lambda _: "/forecast"),
    Poll(60, _day),
    Poll(60, lambda _: "/admin/dead-letters?limit=100"),
    Poll(300, lambda _: "/me"),
)
"""Those of `overview.js`, by their intervals there; the last is `app.js`'s."""


@dataclass(slots=True)
class Overviews:
    """Open pages, and what they were answered."""

    url: str
    key: str
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By path and status."""

    async def stay_open(self, number: int) -> None:
        """One page, with a session of its own, until cancelled."""
        rng = random.Random(number)
        # Browsers keep cookies of an address; aiohttp does so only if told.
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(self.url, cookie_jar=jar, headers={"clockwork-ui": "1"}) as session:
            async with session.post("/session", json={"key": self.key}) as answer:
                answer.raise_for_status()
            async with asyncio.TaskGroup() as group:
                for poll in POLLS:
                    # Pages are opened at any time: so the calls of one begin apart.
                    begin_s = rng.uniform(0, poll.every_s)
                    group.create_task(self._ask(session, poll, begin_s), name=f"poll {number}")

    async def _ask(self, session: aiohttp.ClientSession, poll: Poll, begin_s: float) -> None:
        await asyncio.sleep(begin_s)
        known: tuple[str, str] | None = None
        while True:
            path = poll.path(now_ms())
            headers = {"If-None-Match": known[1]} if known is not None and known[0] == path else {}
            async with session.get(path, headers=headers) as answer:
                await answer.read()
                self.answers[path.partition("?")[0], answer.status] += 1
                if etag := answer.headers.get("ETag"):
                    known = (path, etag)
            await asyncio.sleep(poll.every_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """Findings of one round."""

    cpu_percent: float
    arrivals: Sequence[Arrival]
    read_units: float
    """A second."""
    answers: Counter[tuple[str, int]]

    def late(self, share: float) -> float:
        return quantile([late_ms(arrival) for arrival in self.arrivals], share)


async def beside_deliveries(bench: Bench) -> None:
    """Pairs of rounds, with and without open overviews."""
    seconds = max(20, bench.scaled(SECONDS))
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(bench.cluster(shards=SHARDS))
        key = _keys_file(cluster.folder)
        topic = await cluster.topic(kafka_partitions=8)
        node = await started(cluster, CLOCKWORK_AUTH="keys", CLOCKWORK_AUTH_KEYS_FILE=str(cluster.folder / KEYS))
        cluster.session.headers["Authorization"] = f"Bearer {key}"
        pages = Overviews(node.client.url, key)
        world = (cluster, node, topic, pages)
        warm = await _round(*world, "warm", seconds=WARM_SECONDS, seen=0, shown=True)
        seen = len(warm.arrivals)
        found: dict[bool, list[Round]] = {False: [], True: []}
        for n in range(bench.rounds):
            for shown in (False, True) if n % 2 else (True, False):
                one = await _round(*world, f"r{n}-{'on' if shown else 'off'}", seconds=seconds, seen=seen, shown=shown)
                found[shown].append(one)
                seen += len(one.arrivals)
    _report(bench, found[False], found[True], seconds)


async def _round(
    cluster: Cluster,
    node: ClusterNode,
    topic: str,
    pages: Overviews,
    prefix: str,
    *,
    seconds: int,
    seen: int,
    shown: bool,
) -> Round:
    pages.answers.clear()
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(collect(cluster, topic, seen + RATE * seconds, within_s=seconds + 60), name="read")
        open_pages = [group.create_task(pages.stay_open(n), name=f"page {n}") for n in range(OPEN if shown else 0)]
        before_s, units = await cpu_s(node), await total(node, READ_UNITS)
        begin_s = asyncio.get_running_loop().time()
        await create_at_rate(cluster, node, topic, per_second=RATE, seconds=seconds, prefix=prefix)
        took_s = asyncio.get_running_loop().time() - begin_s
        used_s, units = await cpu_s(node) - before_s, await total(node, READ_UNITS) - units
        answers = pages.answers.copy()
        for page in open_pages:
            page.cancel()
    if failed := {each: count for each, count in answers.items() if each[1] not in (200, 304)}:
        raise RuntimeError(f"overviews were answered {failed}")
    arrivals = [each for each in reading.result() if each.schedule_key.startswith(f"{prefix}-")]
    if len(arrivals) != RATE * seconds:
        raise RuntimeError(f"{len(arrivals)} of {RATE * seconds} arrived")
    return Round(cpu_percent=used_s / took_s * 100, arrivals=arrivals, read_units=units / took_s, answers=answers)


def _report(bench: Bench, without: Sequence[Round], shown: Sequence[Round], seconds: int) -> None:
    def add(
        what: str, unit: str, rounds: Sequence[float], yardstick: Sequence[float] = (), goal: Goal | None = None
    ) -> None:
        finding = Finding(scenario=SCENARIO, what=what, unit=unit, rounds=rounds, yardstick=yardstick, goal=goal)
        bench.report.add(finding)

    beside = f"{OPEN} overviews beside {RATE}/s"
    pairs = list(zip(shown, without, strict=True))
    cost = [on.cpu_percent - off.cpu_percent for on, off in pairs]
    add(f"CPU of {beside}", "% of a core", cost, goal=Goal(bound=CPU_MAX))
    add(
        "CPU of the node with them",
        "% of a core",
        [on.cpu_percent for on, _ in pairs],
        [off.cpu_percent for _, off in pairs],
    )
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        add(
            f"lateness with {beside}, {name}",
            "ms",
            [on.late(share) for on, _ in pairs],
            [off.late(share) for _, off in pairs],
        )
    add(f"read units of {beside}", "/s", [on.read_units for on, _ in pairs], [off.read_units for _, off in pairs])
    add("requests of theirs", "/s", [on.answers.total() / seconds for on in shown])
    unchanged = [
        sum(count for (_, status), count in on.answers.items() if status == 304) / on.answers.total() for on in shown
    ]
    add("of them answered 304", "%", [100 * share for share in unchanged])


def _keys_file(folder: Path) -> str:
    """Makes a keys file with one key, which may do everything; the key."""
    key, key_id = new_key()
    written = KeyEntry(id=key_id, name="bench", hash=hash_of(key), clients=["*"], topics=["*"], rights=list(Right))
    (folder / KEYS).write_text(entry(written), encoding="utf-8")
    return key
