"""Forecast: how many pending rows are due in each of some buckets of time, at a bounded cost.

To count all rows of a week would cost as much as to read them. So the rows are read from the beginning of the window on, in
all shards, until half of the budget is used: up to there the counts are exact. Behind it some buckets are sampled: a few
rows of a few shards, from the beginning of the bucket on, tell how dense the rows are there. Ordering keys are hashed to
shards, so the shards are alike, but for a key that is much busier than others: an estimate may be far off in a cluster with
few keys. Buckets between sampled ones take the figures of the nearest.

Counted are the rows that exist: schedules, and the next run of each job. Rows that were delivered and not yet cleaned up
count too. Reads are eventually consistent.

The next hour of all clients is what every open overview asks for. So each process that delivers makes it once a minute for
the shards that it owns, within its share of the same budget, and puts it into its record of the minute (`ShardForecasts`):
together the records are the answer, on any node, without a read. In an empty cluster that is one read a shard and minute,
beside the twelve of its scans. Other windows, filters, and keys that do not cover every client are read when they are asked
for: the records have no rows, only sums.
"""

import asyncio
import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Final, TypeVar

from clockwork.clock import Clock
from clockwork.concurrency import gather_bounded
from clockwork.domain.activity import FORECAST_MINUTES, FORECAST_NAMES, MINUTE_MS, ShardsForecast
from clockwork.domain.destination import Topic
from clockwork.domain.position import LAST, Position, due_ms_of, first_at
from clockwork.domain.schedule import BrokenRow, ClientId, Row
from clockwork.domain.sharding import ShardId
from clockwork.errors import ClockworkError
from clockwork.ports.read_units import ReadMeter, current_meter, metered
from clockwork.ports.store import Page
from clockwork.ports.telemetry import Telemetry
from clockwork.requests.context import RequestContext

log = logging.getLogger(__name__)

WALK_UNITS: Final = 50.0
"""Read units for the rows that are counted."""
SAMPLE_UNITS: Final = 50.0
"""Read units for samples."""
WALK_ROWS_MAX: Final = 5_000
"""Rows that are counted, where they cost nothing: each takes some microseconds of the event loop."""
SHARE_MIN: Final = 0.1
"""The least share of the budget that some of the shards get: below it, samples are too few to tell anything."""
PRICE_SHARDS: Final = 2
PRICE_ROWS: Final = 2
"""Shards, and rows of each, that are read first: they tell what a row costs."""
ROWS_PER_READ_MAX: Final = 100
"""They are unpacked in one turn of the event loop, which deliveries share."""
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
    overdue_before_ms: int | None = None
    """Rows that are due before this time are counted apart, and in no bucket; None: they are not counted."""

    @property
    def buckets(self) -> int:
        return -(-(self.to_ms - self.from_ms) // self.bucket_ms)

    def bucket_of(self, row: Row | BrokenRow) -> int:
        """The number of a row's bucket; -1: it is overdue, or due before the window."""
        if self.overdue_before_ms is not None and row.due_ms < self.overdue_before_ms:
            return -1
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
    unnamed_topics: int = 0
    """Rows whose topic is not known: recorded forecasts name the largest."""
    unnamed_clients: int = 0
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
    shards: Sequence[ShardId]
    share: float
    """The share of the budget that it may use."""
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
        left = units * self.share - self.spent
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

    async def forecast(
        self, query: ForecastQuery, covers: Callable[[ClientId], bool], *, only: Sequence[ShardId] | None = None
    ) -> Forecast:
        """Counts rows of clients that `covers` is true for. `only`: those of some shards, within their share of the budget.

        Raises: Unavailable.
        """
        as_of_ms = self.context.clock.now_ms()
        meter = current_meter() or ReadMeter()
        every = self.context.settings.shards
        numbers = [ShardId(number) for number in range(every)] if only is None else only
        look = _Look(
            query,
            partial(_is_wanted, query, covers),
            numbers,
            max(len(numbers) / every, SHARE_MIN),
            first_at(query.to_ms),
            meter,
            meter.units,
        )
        overdue_before_ms = query.overdue_before_ms
        start = first_at(query.from_ms) if overdue_before_ms is None else Position(0)
        shards = [_Shard(number, start) for number in numbers]
        await self._walk(look, shards)
        counted, known = _tally(query, shards)
        sampled: dict[int, float] = {}
        if unknown := [bucket for bucket, shards_known in enumerate(known) if not shards_known]:
            sampled = await self._sample(look, unknown)
        buckets = _buckets(query, counted, known, sampled, shards=len(shards))
        before_ms = min(due_ms_of(shard.known_to) for shard in shards)
        overdue_known = overdue_before_ms is not None and (
            before_ms >= overdue_before_ms or all(shard.ended for shard in shards)
        )
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
            rows_max = min(rows_max, (round(WALK_ROWS_MAX * look.share) - look.looked_at) // len(some))
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
        shards = len(look.shards)
        price = look.spent / look.looked_at if look.looked_at else 0.0
        rows_max = ROWS_PER_SAMPLE if price * ROWS_PER_SAMPLE <= LARGE_UNITS else ROWS_PER_SAMPLE_MIN
        samples = SAMPLED_MAX * SHARDS_PER_SAMPLE
        if price:
            # Fewer samples of large rows, not smaller ones: the time to a single row says next to nothing.
            samples = max(1, min(samples, int(SAMPLE_UNITS * look.share / max(price * rows_max, READ_UNITS_MIN))))
        step = max(1, -(-len(unknown) // min(SAMPLED_MAX, samples)))
        chosen = unknown[step // 2 :: step]
        each = min(shards, max(1, samples // len(chosen)), SHARDS_PER_SAMPLE)

        async def sample(number: int) -> tuple[int, float]:
            nth, which = divmod(number, each)
            bucket = chosen[nth]
            # Other shards for the next bucket, so that a shard with a busy key is not in all samples.
            shard = look.shards[(nth * each + which) % shards]
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


# --- recorded forecasts

RECORDED_AT_MS: Final = 50_000
"""The part of a minute after which it is made: the record is sent at the minute's end."""
SPREAD_MS: Final = 5_000
"""Processes begin at different times within it."""
MAKING_S_MAX: Final = 30.0
HOUR_MS: Final = 60 * MINUTE_MS


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardForecasts:
    """The forecasts of this process's shards, one a minute."""

    forecaster: Forecaster
    clock: Clock
    telemetry: Telemetry
    shards: Callable[[], frozenset[ShardId]]
    """The shards that are owned here."""
    record: Callable[[ShardsForecast], None]

    async def run(self) -> None:
        """Makes them until cancelled."""
        rng = self.forecaster.context.rng
        while True:
            wait_ms = (RECORDED_AT_MS + rng.randrange(SPREAD_MS) - self.clock.now_ms()) % MINUTE_MS
            await asyncio.sleep(wait_ms / 1_000)
            try:
                async with asyncio.timeout(MAKING_S_MAX):
                    await self.make()
            except (ClockworkError, TimeoutError) as error:
                # Without it a page reads for itself.
                extra = {"event": "forecast.not_recorded", "once_per": "forecast", "error": str(error)}
                log.warning("The forecast of this process's shards is not recorded", extra=extra)
            # Out of the moment for which the next wait would be nothing.
            await asyncio.sleep((MINUTE_MS - RECORDED_AT_MS) / 1_000)

    async def make(self) -> None:
        """Makes one, and hands it to the recording. Raises: Unavailable."""
        shards = sorted(self.shards())
        if not shards:
            return
        now_ms = self.clock.now_ms()
        from_ms = now_ms // MINUTE_MS * MINUTE_MS
        query = ForecastQuery(
            from_ms=from_ms,
            to_ms=from_ms + FORECAST_MINUTES * MINUTE_MS,
            bucket_ms=MINUTE_MS,
            overdue_before_ms=now_ms,
        )
        with metered() as meter:
            try:
                found = await self.forecaster.forecast(query, lambda _: True, only=shards)
            finally:
                self.telemetry.metered_read("recorded_forecast", units=meter.units)
        exact = next((number for number, bucket in enumerate(found.buckets) if not bucket.exact), FORECAST_MINUTES)
        self.record(
            ShardsForecast(
                as_of_ms=found.as_of_ms,
                from_ms=from_ms,
                shards={shard: found.by_shard[shard] for shard in shards},
                overdue=found.overdue,
                exact=exact,
                counts=[bucket.count for bucket in found.buckets],
                topics=_largest(found.by_topic),
                clients=_largest(found.by_client),
                looked_at=found.looked_at,
                units=found.units,
            )
        )


def _largest(counts: Counter[str]) -> dict[str, int]:
    """The largest, and the rest under the empty name."""
    named = dict(counts.most_common(FORECAST_NAMES))
    rest = counts.total() - sum(named.values())
    return named | ({"": rest} if rest else {})


def put_together(recorded: Sequence[ShardsForecast], *, from_ms: int) -> Forecast | None:
    """The forecast of the hour from a whole minute on, out of those of all processes; None: one of them does not have it.

    By topic, client and shard: sums over the whole of what was recorded, scaled to the hour.
    """
    starts = [(from_ms - each.from_ms) // MINUTE_MS for each in recorded]
    if not all(0 <= start <= FORECAST_MINUTES - HOUR_MS // MINUTE_MS for start in starts):
        return None
    buckets = tuple(
        Bucket(
            at_ms=from_ms + number * MINUTE_MS,
            count=sum(each.counts[start + number] for each, start in zip(recorded, starts, strict=True)),
            exact=all(start + number < each.exact for each, start in zip(recorded, starts, strict=True)),
        )
        for number in range(HOUR_MS // MINUTE_MS)
    )
    by_shard, by_topic, by_client = Counter[ShardId](), Counter[str](), Counter[str]()
    for each in recorded:
        by_shard.update(each.shards)
        by_topic.update(each.topics)
        by_client.update(each.clients)
    whole, hour = sum(sum(each.counts) for each in recorded), sum(bucket.count for bucket in buckets)
    scale = hour / whole if whole else 1.0
    by_topic, by_client = _scaled(by_topic, scale), _scaled(by_client, scale)
    overdue = [each.overdue for each in recorded if each.overdue is not None]
    as_of_ms = min(each.as_of_ms for each in recorded)
    return Forecast(
        query=ForecastQuery(from_ms=from_ms, to_ms=from_ms + HOUR_MS, bucket_ms=MINUTE_MS, overdue_before_ms=as_of_ms),
        as_of_ms=as_of_ms,
        buckets=buckets,
        overdue=sum(overdue) if len(overdue) == len(recorded) else None,
        by_shard=_scaled(by_shard, scale),
        unnamed_topics=by_topic.pop("", 0),
        unnamed_clients=by_client.pop("", 0),
        by_topic=by_topic,
        by_client=by_client,
        looked_at=sum(each.looked_at for each in recorded),
        units=sum(each.units for each in recorded),
    )
