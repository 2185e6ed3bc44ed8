"""The promises that answers make, and whether the records keep them.

A workload writes into a `Ledger` and need not know how it is judged. `out_of_order` is the rule of lanes by itself: chaos,
which changes schedules and skews clocks, judges by the same one.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.support.client import Answered
from tests.support.reader import Arrived


@dataclass(frozen=True, kw_only=True, slots=True)
class InLane:
    """A schedule that was delivered, as one of its lane; times in epoch milliseconds."""

    schedule_key: str
    offset: int
    due_ms: int
    accepted_by_ms: int | None
    """The latest time at which its acceptance was known; None: it never was."""
    sent_at_ms: int
    """The earliest time at which it was asked for."""


def out_of_order(lane: Iterable[InLane], *, skew_ms: int = 0) -> Iterator[tuple[InLane, InLane]]:
    """Pairs of which the first arrived after the second and belongs before it: its position is lower for certain, and it
    was accepted before the other was due. `skew_ms`: the largest difference between two clocks that accepted them."""
    latest: InLane | None = None
    last_sent: dict[int, InLane] = {}
    for one in sorted(lane, key=lambda each: each.offset):
        if one.accepted_by_ms is not None:
            # The latest due time so far is enough: it is the one that is hardest to come after.
            if latest is not None and one.due_ms < latest.due_ms and one.accepted_by_ms < latest.due_ms - skew_ms:
                yield one, latest
            same = last_sent.get(one.due_ms)
            if same is not None and one.accepted_by_ms < min(same.sent_at_ms, one.due_ms) - skew_ms:
                yield one, same
        if latest is None or one.due_ms > latest.due_ms:
            latest = one
        same = last_sent.get(one.due_ms)
        if same is None or one.sent_at_ms > same.sent_at_ms:
            last_sent[one.due_ms] = one


@dataclass(kw_only=True, slots=True)
class Promise:
    """One accepted schedule, and the last final answer about it."""

    schedule_key: str
    topic: str
    ordering_key: str
    due_ms: int
    sent_at_ms: int
    accepted_at_ms: int
    """Time at which its `201` (or the `200` of a repeat) was here: a little after it was sent, which is on the safe side."""
    shard: int
    guarantee: str
    answer: str | None = None
    """`cancelled`, `delivered`, `failed`: final; None: none was given."""
    delivered: dict[str, Any] | None = None
    """Where, as the answer said."""


@dataclass(kw_only=True, slots=True)
class Ledger:
    """All promises of one test."""

    promises: dict[str, Promise] = field(default_factory=dict)

    def accepted(self, body: dict[str, Any], answered: Answered, *, sent_at_ms: int, accepted_at_ms: int) -> None:
        key = body["scheduleKey"]
        self.promises[key] = Promise(
            schedule_key=key,
            topic=body["delivery"]["topic"],
            ordering_key=body.get("orderingKey", key),
            due_ms=body["scheduleTime"],
            sent_at_ms=sent_at_ms,
            accepted_at_ms=accepted_at_ms,
            shard=answered.body["shard"],
            guarantee=body["delivery"].get("guarantee", "exactly_once"),
        )

    def answered(self, schedule_key: str, answered: Answered) -> None:
        """Takes the answer to a cancel or a `GET` into account, if it is a final one."""
        body = answered.body if answered.status == 200 else answered.body.get("schedule", {})
        status = body.get("status")
        if status in ("cancelled", "delivered", "failed"):
            promise = self.promises[schedule_key]
            if promise.answer not in (None, status):
                raise AssertionError(f"{schedule_key}: was {promise.answer}, and now {status}")
            promise.answer = status
            promise.delivered = body.get("delivered")

    def expected(self) -> set[str]:
        """The keys of which a record must come."""
        return {key for key, promise in self.promises.items() if promise.answer not in ("cancelled", "failed")}

    def broken(self, records: Iterable[Arrived], dead_letters: Iterable[Arrived] = ()) -> list[str]:
        """Every promise that was not kept; empty if all were."""
        arrived: dict[str, list[Arrived]] = defaultdict(list)
        for record in records:
            arrived[record.schedule_key].append(record)
        dead: dict[str, list[Arrived]] = defaultdict(list)
        for record in dead_letters:
            dead[record.schedule_key].append(record)
        return [
            *(f"{key}: arrived, and was never accepted" for key in arrived.keys() - self.promises.keys()),
            *(line for key, p in self.promises.items() for line in _of_one(p, arrived[key], dead[key])),
            *self._out_of_order(arrived),
        ]

    def _out_of_order(self, arrived: dict[str, list[Arrived]]) -> Iterator[str]:
        lanes: dict[tuple[str, str], list[InLane]] = defaultdict(list)
        for key, records in arrived.items():
            if key in self.promises and records:
                promise = self.promises[key]
                lanes[promise.topic, promise.ordering_key].append(
                    InLane(
                        schedule_key=key,
                        offset=records[0].offset,
                        due_ms=promise.due_ms,
                        accepted_by_ms=promise.accepted_at_ms,
                        sent_at_ms=promise.sent_at_ms,
                    )
                )
        for lane in lanes.values():
            for late, before in out_of_order(lane):
                yield f"{late.schedule_key} arrived after {before.schedule_key}, in one lane"


def _of_one(promise: Promise, records: list[Arrived], dead_letters: list[Arrived]) -> Iterator[str]:
    key = promise.schedule_key
    wanted = 0 if promise.answer in ("cancelled", "failed") else 1
    if len(records) < wanted:
        yield f"{key}: lost (answer: {promise.answer})"
    elif len(records) > wanted and not (wanted and promise.guarantee == "at_least_once"):
        yield f"{key}: arrived {len(records)} times (answer: {promise.answer}): {[r.place for r in records]}"
    if len(dead_letters) != (promise.answer == "failed"):
        yield f"{key}: {len(dead_letters)} dead letters (answer: {promise.answer})"
    yield from (
        f"{key}: {promise.due_ms - r.timestamp_ms} ms early" for r in records if r.timestamp_ms < promise.due_ms
    )
    if promise.delivered is not None and records and promise.guarantee == "exactly_once":
        said = tuple(promise.delivered[name] for name in ("topic", "partition", "offset"))
        if said != records[0].place:
            yield f"{key}: said to be at {said}, is at {records[0].place}"


def lateness_text(ledger: Ledger, records: Iterable[Arrived]) -> str:
    """For people. Of a schedule that was already due when it was accepted, it counts from then."""
    promised = ((record, ledger.promises[record.schedule_key]) for record in records)
    late_ms = sorted(record.timestamp_ms - max(p.due_ms, p.accepted_at_ms) for record, p in promised)
    if not late_ms:
        return "nothing arrived"
    p50, p99 = (late_ms[min(len(late_ms) - 1, int(len(late_ms) * share))] for share in (0.5, 0.99))
    return f"{len(late_ms)} arrived; lateness p50 {p50} ms, p99 {p99} ms, max {late_ms[-1]} ms"
