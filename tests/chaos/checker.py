"""Were the promises kept? Judges answers and records, and knows nothing of the service or of how the load came about.

What is compared: what clients were told, with when; what a `read_committed` consumer of another library sees, stamped by
the broker; what is stored at the end; by how much a node's clock was ahead, at any time, within the bound.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.aftermath import Remains
from tests.chaos.history import ABSENT, FINAL, Asked, History, Seen
from tests.support.reader import Arrived


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """All that is judged."""

    history: History
    remains: Remains
    ahead_ms: Callable[[int], int]
    """By how much a record that was appended at this time (ms) may be early."""
    skew_ms: int = 0
    """The largest difference between two clocks of the run, within the bound."""


Arrivals = Mapping[str, Sequence[Arrived]]


def judge(evidence: Evidence) -> dict[str, list[str]]:
    """Per promise, every case in which it was not kept; empty lists if all were."""
    history, remains = evidence.history, evidence.remains
    arrived = _by_key(remains.records)
    dead = _by_key(remains.dead_letters)
    asked = list(history.asked.values())
    return {
        "lost": [line for one in asked for line in _lost(one, arrived, dead)],
        "duplicates (exactly_once)": [line for one in asked for line in _twice(one, arrived, dead)],
        "ended otherwise, and delivered": [line for one in asked for line in _wrongly_there(one, arrived, dead)],
        "early": list(_early(history, arrived, evidence.ahead_ms)),
        "out of order": list(_out_of_order(history, arrived, evidence.skew_ms)),
        "said to be delivered elsewhere": [line for one in asked for line in _wrong_place(one, arrived)],
        "states that went backwards": [line for one in asked for line in _backwards(one)],
        "stored otherwise than answered": [line for one in asked for line in _stored(one, remains)],
        "never ended": remains.unended,
        "rows left over": remains.rows,
        "records of nothing": [
            f"{key}: {records[0].place}" for key, records in arrived.items() if key not in history.asked
        ],
        "improper answers": history.improper,
    }


def _by_key(records: Sequence[Arrived]) -> Arrivals:
    found: dict[str, list[Arrived]] = defaultdict(list)
    for record in records:
        found[record.schedule_key].append(record)
    return found


def _state(asked: Asked) -> str | None:
    final = asked.final
    return final.state if final is not None else None


def _lost(asked: Asked, arrived: Arrivals, dead: Arrivals) -> Iterator[str]:
    state = _state(asked)
    where = {"delivered": arrived, "failed": dead}.get(state or "")
    if where is not None and not where.get(asked.schedule_key):
        yield f"{asked.schedule_key}: {state}, and there is no record of it"
    if asked.accepted_ms is not None and asked.seen[-1].state == ABSENT:
        yield f"{asked.schedule_key}: accepted, and now unknown"


def _twice(asked: Asked, arrived: Arrivals, dead: Arrivals) -> Iterator[str]:
    if asked.guarantee == "exactly_once":
        for records in (arrived.get(asked.schedule_key, ()), dead.get(asked.schedule_key, ())):
            if len(records) > 1:
                yield f"{asked.schedule_key}: {len(records)} times: {[record.place for record in records]}"


def _wrongly_there(asked: Asked, arrived: Arrivals, dead: Arrivals) -> Iterator[str]:
    state = _state(asked)
    if state != "delivered" and asked.ended and arrived.get(asked.schedule_key):
        yield f"{asked.schedule_key}: {state or ABSENT}, and delivered at {arrived[asked.schedule_key][0].place}"
    if state != "failed" and asked.ended and dead.get(asked.schedule_key):
        yield f"{asked.schedule_key}: {state or ABSENT}, and a dead letter"
    if state == "failed" and asked.fate != "refused":
        yield f"{asked.schedule_key}: failed, though nothing was wrong with it"


def _early(history: History, arrived: Arrivals, ahead_ms: Callable[[int], int]) -> Iterator[str]:
    for key, records in arrived.items():
        asked = history.asked.get(key)
        for record in records:
            if asked is not None and record.timestamp_ms < asked.due_ms - ahead_ms(record.timestamp_ms):
                yield f"{key}: {asked.due_ms - record.timestamp_ms} ms early at {record.place}"


def _out_of_order(history: History, arrived: Arrivals, skew_ms: int) -> Iterator[str]:
    """Of each lane, in the order of arrival. a belongs before b if its position is lower and it was accepted before b was
    due; acceptance by different clocks, so all of it less the skew."""
    lanes: dict[tuple[str, str], list[tuple[int, Asked]]] = defaultdict(list)
    for key, records in arrived.items():
        if key in history.asked:
            asked = history.asked[key]
            lanes[asked.topic, asked.ordering_key].append((min(record.offset for record in records), asked))
    for lane in lanes.values():
        latest: Asked | None = None
        last_sent_of: dict[int, Asked] = {}
        for _, asked in sorted(lane, key=lambda pair: pair[0]):
            accepted_ms = asked.accepted_ms
            if accepted_ms is not None:
                # The latest due time so far is enough: it is the one that is hardest to come after.
                if latest is not None and asked.due_ms < latest.due_ms and accepted_ms < latest.due_ms - skew_ms:
                    yield f"{_shown(asked, arrived)} after {_shown(latest, arrived)}"
                same = last_sent_of.get(asked.due_ms)
                if same is not None and accepted_ms < min(same.first_sent_ms, asked.due_ms) - skew_ms:
                    yield f"{_shown(asked, arrived)} after {_shown(same, arrived)}"
            if latest is None or asked.due_ms > latest.due_ms:
                latest = asked
            same = last_sent_of.get(asked.due_ms)
            if same is None or asked.first_sent_ms > same.first_sent_ms:
                last_sent_of[asked.due_ms] = asked


def _shown(asked: Asked, arrived: Arrivals) -> str:
    places = [
        f"{record.timestamp_ms}@{record.kafka_partition}/{record.offset}" for record in arrived[asked.schedule_key]
    ]
    return (
        f"{asked.schedule_key} ({asked.guarantee}, shard {asked.shard}, due {asked.due_ms}, sent {asked.first_sent_ms}, "
        f"accepted {asked.accepted_ms}, arrived {places})"
    )


def _wrong_place(asked: Asked, arrived: Arrivals) -> Iterator[str]:
    there = {record.place: record for record in arrived.get(asked.schedule_key, ())}
    for seen in asked.seen:
        if seen.state != "delivered":
            continue
        if seen.place not in there:
            yield f"{asked.schedule_key}: said to be at {seen.place}, is at {list(there)}"
        elif there[seen.place].timestamp_ms > seen.received_ms:
            yield f"{asked.schedule_key}: said to be delivered before it was"


def _backwards(asked: Asked) -> Iterator[str]:
    """Every final answer says the same, whenever it was given; and nothing asked after one says less."""
    for before in asked.seen:
        for after in asked.seen:
            if before.state in FINAL and _contradicts(before, after):
                yield f"{asked.schedule_key}: {before.state} ({before.call}), then {after.state} ({after.call})"
    if asked.accepted_ms is not None:
        unknown = [seen for seen in asked.seen if seen.state == ABSENT and seen.sent_ms > asked.accepted_ms]
        if unknown:
            yield f"{asked.schedule_key}: accepted, then unknown ({unknown[0].call})"


def _contradicts(before: Seen, after: Seen) -> bool:
    if after.state in FINAL:
        return (after.state, after.place) != (before.state, before.place)
    return after.sent_ms > before.received_ms


def _stored(asked: Asked, remains: Remains) -> Iterator[str]:
    stored = remains.outcomes.get(asked.schedule_key, [])
    state = _state(asked)
    if asked.ended and stored != ([state] if state is not None else []):
        yield f"{asked.schedule_key}: answered {state}, stored {stored}"
