"""Forecast: how many pending rows are due in each of some buckets of time, at a bounded cost.

To count all rows of a week would cost as much as to read them. So the rows are read from the beginning of the window on, in
all shards, until half of the budget is used: up to there the counts are exact. Behind it some buckets are sampled: a few
rows of a few shards, from the beginning of the bucket on, tell how dense the rows are there. Ordering keys are hashed to
shards, so the shards are alike, but for a key that is much busier than others: an estimate may be far off in a cluster with
few keys. Buckets between sampled ones take the figures of the nearest.

Counted are the rows that exist: schedules, and the next run of each job. Rows that were delivered and not yet cleaned up
count too. Reads are eventually consistent.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Final, TypeVar

from clockwork.concurrency import gather_bounded
from clockwork.domain.destination import Topic
from clockwork.domain.position import LAST, Position, due_ms_of, first_at
from clockwork.domain.schedule import BrokenRow, ClientId, Row
from clockwork.domain.sharding import ShardId
from clockwork.ports.read_units import ReadMeter, current_meter
from clockwork.ports.store import Page
from clockwork.requests.context import RequestContext

WALK_UNITS: Final = 50.0
"""Read units for the rows that are counted."""
SAMPLE_UNITS: Final = 50.0
"""Read units for samples."""
WALK_ROWS_MAX: Final = 5_000
"""Rows that are counted, where they cost nothing: each takes some microseconds of the event loop."""
PRICE_SHARDS: Final = 2
PRICE_ROWS: Final = 2
"""Shards, and rows of each, that are read first: they tell what a row costs."""
ROWS_PER_READ_MAX: Final = 250
SAMPLED_MAX: Final = 24
"""Buckets that are sampled."""
SHARDS_PER_SAMPLE: Final = 3
ROWS_PER_SAMPLE: Final = 8
ROWS_PER_SAMPLE_MIN: Final = 3
LARGE_UNITS: Final = 4.0
"""Read units of a sample beyond which it has fewer rows."""
READ_UNITS_MIN: Final = 0.5
"""The smallest price of a read."""
SHARDS_AT_ONCE: Final = 16

_Name = TypeVar("_Name")


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastQuery:
    """The window and its buckets; None: any."""

    from_ms: int
    to_ms: int
    """Exclusive."""
    bucket_ms: int
    client_id: ClientId | None = None
    topic: Topic | None = None
    with_overdue: bool = False
    """True: rows that are due before the window are counted, too."""

    @property
    def buckets(self) -> int:
        return -(-(self.to_ms - self.from_ms) // self.bucket_ms)

    def bucket_of(self, row: Row | BrokenRow) -> int:
        """The number of a row's bucket; -1: it is due before the window."""
        return max(-1, (row.due_ms - self.from_ms) // self.bucket_ms)

    def start_of(self, bucket: int) -> int:
        return self.from_ms + bucket * self.bucket_ms


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucket:
    """Rows that are due within a bucket of time."""

    at_ms: int
    count: int
    exact: bool
    """False: estimated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """The buckets of a window, and the rows that were counted by what they have in common."""

    query: ForecastQuery
    as_of_ms: int
    buckets: tuple[Bucket, ...]
    overdue: int | None
    """None: not asked for, or not known."""
    by_shard: Counter[ShardId]
    """Rows by shard. If a bucket is an estimate: shares of the rows that were read, scaled to the sum of the buckets. So are
    the next two."""
    by_topic: Counter[str]
    by_client: Counter[str]
    looked_at: int
    units: float

    @property
    def exact_to_ms(self) -> int:
        """The end of the last bucket up to which all are exact."""
        known = next((bucket.at_ms for bucket in self.buckets if not bucket.exact), self.query.to_ms)
        return min(known, self.query.to_ms)


@dataclass(slots=True)
class _Shard:
    """One shard, as far as it was walked."""

    number: ShardId
    known_to: Position
    ended: bool = False
    """Every row of the window is counted."""
    counts: Counter[int] = field(default_factory=Counter)
    """By bucket."""


@dataclass(slots=True)
class _Look:
    """A forecast while it is made."""

    query: ForecastQuery
    is_wanted: Callable[[Row], bool]
    end: Position
    meter: ReadMeter
    start_units: float
    looked_at: int = 0
    by_shard: Counter[ShardId] = field(default_factory=Counter)
    by_topic: Counter[str] = field(default_factory=Counter)
    by_client: Counter[str] = field(default_factory=Counter)

    @property
    def spent(self) -> float:
        return self.meter.units - self.start_units

    def rows_for(self, wanted: int, *, reads: int, units: float) -> int:
        """Rows that each of so many reads may ask for, within what is left of these units; 0: nothing is left."""
        price = self.spent / self.looked_at if self.looked_at else 0.0
        left = units - self.spent
        if not price:
            return wanted if left > 0 else 0
        return max(0, min(wanted, int(left / reads / price)))

    def wanted(self, rows: Sequence[Row | BrokenRow]) -> list[Row]:
        """Those of the rows that count."""
        self.looked_at += len(rows)
        found = [row for row in rows if isinstance(row, Row) and row.position < self.end and self.is_wanted(row)]
        for row in found:
            if self.query.bucket_of(row) >= 0:
                self.by_shard[row.shard] += 1
                self.by_topic[row.schedule.topic] += 1
                self.by_client[row.schedule.client_id] += 1
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecaster:
    """Makes forecasts."""

    context: RequestContext

    async def forecast(self, query: ForecastQuery, covers: Callable[[ClientId], bool]) -> Forecast:
        """Counts rows of clients that `covers` is true for. Raises: Unavailable."""
        as_of_ms = self.context.clock.now_ms()
        meter = current_meter() or ReadMeter()
        look = _Look(query, partial(_is_wanted, query, covers), first_at(query.to_ms), meter, meter.units)
        start = Position(0) if query.with_overdue else first_at(query.from_ms)
        shards = [_Shard(ShardId(number), start) for number in range(self.context.settings.shards)]
        await self._walk(look, shards)
        counted, known = _tally(query, shards)
        sampled: dict[int, float] = {}
        if unknown := [bucket for bucket, shards_known in enumerate(known) if not shards_known]:
            sampled = await self._sample(look, unknown)
        buckets = _buckets(query, counted, known, sampled, shards=len(shards))
        before_ms = min(due_ms_of(shard.known_to) for shard in shards)
        overdue_known = query.with_overdue and (before_ms >= query.from_ms or all(shard.ended for shard in shards))
        total, read = sum(bucket.count for bucket in buckets), look.by_shard.total()
        scale = total / read if read and not all(bucket.exact for bucket in buckets) else 1.0
        return Forecast(
            query=query,
            as_of_ms=as_of_ms,
            buckets=buckets,
            overdue=sum(shard.counts[-1] for shard in shards) if overdue_known else None,
            by_shard=_scaled(look.by_shard, scale),
            by_topic=_scaled(look.by_topic, scale),
            by_client=_scaled(look.by_client, scale),
            looked_at=look.looked_at,
            units=look.spent,
        )

    # --- exact counts

    async def _walk(self, look: _Look, shards: list[_Shard]) -> None:
        await self._count(look, shards[:PRICE_SHARDS], PRICE_ROWS)
        wanted = 10
        while open_ := [shard for shard in shards if not shard.ended]:
            # Those that are behind first: a bucket is exact once all shards are past it.
            open_.sort(key=lambda shard: shard.known_to)
            some = open_ if wanted == 10 else open_[: max(SHARDS_AT_ONCE, len(open_) // 2)]
            rows_max = look.rows_for(wanted, reads=len(some), units=WALK_UNITS)
            rows_max = min(rows_max, (WALK_ROWS_MAX - look.looked_at) // len(some))
            if rows_max <= 0:
                return
            await self._count(look, some, rows_max)
            wanted = min(4 * wanted, ROWS_PER_READ_MAX)

    async def _count(self, look: _Look, shards: Sequence[_Shard], rows_max: int) -> None:
        async def count(shard: _Shard) -> None:
            page = await self.context.search.peek_rows(shard.number, after=shard.known_to, rows_max=rows_max)
            shard.counts.update(look.query.bucket_of(row) for row in look.wanted(page.rows))
            shard.ended = page.next_after is None or page.next_after >= look.end
            shard.known_to = LAST if page.next_after is None else page.next_after

        await gather_bounded(count, shards, at_once=SHARDS_AT_ONCE)

    # --- estimates

    async def _sample(self, look: _Look, unknown: Sequence[int]) -> dict[int, float]:
        """Rows of some of these buckets, by bucket."""
        shards = self.context.settings.shards
        price = look.spent / look.looked_at if look.looked_at else 0.0
        rows_max = ROWS_PER_SAMPLE if price * ROWS_PER_SAMPLE <= LARGE_UNITS else ROWS_PER_SAMPLE_MIN
        samples = SAMPLED_MAX * SHARDS_PER_SAMPLE
        if price:
            # Fewer samples of large rows, not smaller ones: the time to a single row says next to nothing.
            samples = max(1, min(samples, int(SAMPLE_UNITS / max(price * rows_max, READ_UNITS_MIN))))
        step = max(1, -(-len(unknown) // min(SAMPLED_MAX, samples)))
        chosen = unknown[step // 2 :: step]
        each = min(shards, max(1, samples // len(chosen)), SHARDS_PER_SAMPLE)

        async def sample(number: int) -> tuple[int, float]:
            nth, which = divmod(number, each)
            bucket = chosen[nth]
            # Other shards for the next bucket, so that a shard with a busy key is not in all samples.
            shard = ShardId((nth * each + which) % shards)
            after = first_at(look.query.start_of(bucket))
            page = await self.context.search.peek_rows(shard, after=after, rows_max=rows_max)
            return bucket, _density(look, page, bucket) * shards

        found = await gather_bounded(sample, range(len(chosen) * each), at_once=SHARDS_AT_ONCE)
        sums: Counter[int] = Counter()
        values: dict[int, float] = {}
        for bucket, rows in found:
            sums[bucket] += 1
            values[bucket] = values.get(bucket, 0.0) + rows
        return {bucket: values[bucket] / sums[bucket] for bucket in values}


def _tally(query: ForecastQuery, shards: Sequence[_Shard]) -> tuple[list[int], list[int]]:
    """For each bucket the rows of the shards that were walked past it, and the number of these shards."""
    counted = [0] * query.buckets
    past = [0] * (query.buckets + 1)
    for shard in shards:
        whole = (due_ms_of(shard.known_to) - query.from_ms) // query.bucket_ms
        whole = query.buckets if shard.ended else min(max(whole, 0), query.buckets)
        past[whole] += 1
        for bucket, count in shard.counts.items():
            if 0 <= bucket < whole:
                counted[bucket] += count
    known = list(accumulate(reversed(past[1:])))[::-1]
    return counted, known


def _buckets(
    query: ForecastQuery, counted: Sequence[int], known: Sequence[int], sampled: Mapping[int, float], *, shards: int
) -> tuple[Bucket, ...]:
    chosen = sorted(sampled)
    found: list[Bucket] = []
    for bucket in range(query.buckets):
        exact = known[bucket] == shards
        if known[bucket]:
            count = round(counted[bucket] * shards / known[bucket])
        elif chosen:
            behind = bisect_left(chosen, bucket)
            around = chosen[max(0, behind - 1) : behind + 1]
            count = round(sampled[min(around, key=lambda each: abs(each - bucket))])
        else:
            count = 0
        found.append(Bucket(at_ms=query.start_of(bucket), count=count, exact=exact))
    return tuple(found)


def _density(look: _Look, page: Page, bucket: int) -> float:
    """Rows of one shard in a bucket, by the first rows behind its beginning."""
    start_ms = look.query.start_of(bucket)
    end_ms = min(start_ms + look.query.bucket_ms, look.query.to_ms)
    rows = look.wanted(page.rows)
    inside = sum(row.due_ms < end_ms for row in rows)
    if page.next_after is None or due_ms_of(page.next_after) >= end_ms:
        return inside
    # The rows are denser than were read. The last one ends the span, so it is not counted; and of those that were read, some
    # are wanted.
    span_ms = max(1, due_ms_of(page.next_after) - start_ms)
    return max(1, len(page.rows) - 1) * (end_ms - start_ms) / span_ms * inside / len(page.rows)


def _is_wanted(query: ForecastQuery, covers: Callable[[ClientId], bool], row: Row) -> bool:
    if row.is_watchdog or not covers(row.schedule.client_id):
        return False
    if query.client_id is not None and row.schedule.client_id != query.client_id:
        return False
    return query.topic is None or row.schedule.topic == query.topic


def _scaled(counts: Counter[_Name], scale: float) -> Counter[_Name]:
    return Counter({name: round(count * scale) for name, count in counts.items()})
