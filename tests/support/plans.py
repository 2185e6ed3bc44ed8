"""One pass over rows that a test names: what `Planner` makes of them."""

from collections.abc import Iterable, Mapping, Set
from typing import Any, Final

from clockwork.domain.dead_letters import DeadLetterTopics
from clockwork.domain.destination import Topic
from clockwork.domain.planning import BatchLimits, BlockedPrefix, DestinationWait, Planner
from clockwork.domain.position import Position
from clockwork.domain.retry import BackoffPolicy, RetryPolicy
from clockwork.domain.schedule import BrokenRow, ClientId, Guarantee, Lane, OrderingKey, Retry, Row
from tests.support.builders import DUE_MS, row, schedule

BOUND_MS: Final = DUE_MS + 1_000
EPOCH: Final = 7
ATTEMPTS_MAX: Final = 8
LANE: Final = (Topic("orders"), OrderingKey("a"))
LETTERS: Final = DeadLetterTopics(of_cluster=Topic("c-dead-letters"), of_clients={ClientId("bank"): Topic("bank-dead")})
NO_LIMITS: Final = BatchLimits(records_max=1_000, bytes_max=1_000_000)


def planner(
    *,
    left_out: Set[Position] = frozenset(),
    destination_waits: Mapping[Topic, DestinationWait] | None = None,
    limits: BatchLimits = NO_LIMITS,
    bound_ms: int = BOUND_MS,
    **how: Any,
) -> Planner:
    return Planner(
        bound_ms=bound_ms,
        epoch=EPOCH,
        left_out=left_out,
        destination_waits=destination_waits or {},
        dead_letter_topics=LETTERS,
        retry=RetryPolicy(attempts_max=ATTEMPTS_MAX, backoff=BackoffPolicy(initial_ms=1_000, max_ms=60_000)),
        limits=limits,
        **how,
    )


def plan(rows: Iterable[Row | BrokenRow], into: Planner | None = None) -> Planner:
    planned = into if into is not None else planner()
    for each in rows:
        if not planned.add(each):
            break
    return planned


def lane_row(
    key: str,
    *,
    hold: str | None = None,
    retry: Retry | None = None,
    guarantee: Guarantee = Guarantee.EXACTLY_ONCE,
    topic: str = "orders",
    due_ms: int = DUE_MS,
    size: int = 10,
) -> Row:
    of = schedule(ordering_key=key, topic=topic, guarantee=guarantee, due_ms=due_ms, task_data=b"x" * size)
    return row(of, hold=hold, retry=retry)


def refused(until_ms: int = BOUND_MS + 5_000, *, epoch: int = EPOCH, attempts: int = 1) -> Retry:
    return Retry(at_ms=until_ms, epoch=epoch, attempts=attempts)


def fired(planned: Planner) -> list[Row | BrokenRow]:
    return [each.row for each in planned.deliveries]


def prefix(
    lanes: Mapping[Lane, int],
    *,
    until_ms: int,
    destinations: Mapping[Topic, int] | None = None,
    awaits: Set[Lane] = frozenset(),
) -> BlockedPrefix:
    """A blocked prefix of earlier positions than those of any row here."""
    return BlockedPrefix(
        last=Position(0),
        lanes=dict(lanes),
        destinations=dict(destinations or {}),
        awaits=set(awaits),
        until_ms=until_ms,
        read_since_ms=BOUND_MS,
        rows=0,
        oldest_due_ms=None,
    )
