"""Were the promises kept? Judges answers and records, and knows nothing of the service or of how the load came about.

What is compared: what clients were told, with when; what a `read_committed` consumer of another library sees, stamped by
the broker; what is stored at the end; by how much a node's clock was ahead, at any time, within the bound.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos import checker_of_changes as changes
from tests.chaos import checker_of_commands as commands
from tests.chaos import checker_of_jobs as of_jobs
from tests.chaos import checker_of_runs as of_runs
from tests.chaos.healed_jobs import JobEnd
from tests.chaos.healed_phase import Remains
from tests.chaos.history import ABSENT, EXPIRED, FINAL, Content, History, ScheduleHistory, StateAnswer
from tests.chaos.job_history import JobHistory
from tests.chaos.job_records import RunRecord, is_of_job, runs_by_job
from tests.support.promises import InLane, out_of_order
from tests.support.reader import Arrived


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """All that is judged."""

    history: History
    remains: Remains
    jobs: Mapping[str, JobHistory] = field(default_factory=dict)
    ahead_ms: Callable[[int], int]
    """By how much a record that was appended at this time (ms) may be early."""
    skew_ms: int = 0
    """The largest difference between two clocks of the run, within the bound."""
    misled: frozenset[str] = frozenset()
    """URLs of nodes whose clock was beyond the bound at any time."""
    unrest: Sequence[tuple[int, int]] = ()
    """From when to when something was broken, or being mended: a node or a service was away, or shards changed hands."""


Arrivals = Mapping[str, Sequence[Arrived]]


def judge(evidence: Evidence) -> dict[str, list[str]]:
    """Per promise, every case in which it was not kept; empty lists if all were."""
    history, remains = evidence.history, evidence.remains
    arrived = _by_key([record for record in remains.records if not is_of_job(record)])
    letters = [record for record in remains.dead_letters if not commands.is_command(record) and not is_of_job(record)]
    dead = _by_key(letters)
    asked = list(history.asked.values())
    found = {
        "lost": [line for one in asked for line in _lost(one, arrived, dead)],
        "duplicates (exactly_once)": [line for one in asked for line in _twice(one, arrived, dead)],
        "duplicates (at_least_once) that nothing explains": [
            line for one in asked for line in _delivered_again(one, arrived, evidence.unrest)
        ],
        "ended otherwise, and delivered": [line for one in asked for line in _wrongly_there(one, arrived, dead)],
        "delivered otherwise than answered": [line for one in asked for line in _content_differs(one, arrived, dead)],
        "early": list(_early(history, arrived, evidence.ahead_ms)),
        "out of order": list(_out_of_order(history, arrived, remains.records, evidence.skew_ms)),
        "said to be delivered elsewhere": [line for one in asked for line in _wrong_place(one, arrived)],
        "states that went backwards": [line for one in asked for line in _backwards(one)],
        "stored otherwise than answered": [line for one in asked for line in _stored_otherwise(one, remains)],
        "failed wrongly": [line for one in asked for line in changes.failed_wrongly(one, evidence.skew_ms)],
        "delivered after its deadline": [
            line for one in asked for line in changes.too_late(one, arrived.get(one.schedule_key, ()), evidence.skew_ms)
        ],
        "answers to changes that are not true": [
            line for one in asked for line in changes.untrue(one, evidence.skew_ms, evidence.misled)
        ],
        "never ended": remains.unended,
        "rows left over": remains.rows,
        "records of nothing": [
            f"{key}: {records[0].place}" for key, records in arrived.items() if key not in history.asked
        ],
        "improper answers": history.improper,
    }
    return found | commands.judge(history, remains) | _judge_jobs(evidence)


def _judge_jobs(evidence: Evidence) -> dict[str, list[str]]:
    remains = evidence.remains
    runs = runs_by_job(remains.records, remains.dead_letters)
    jobs = [
        of_jobs.OfJob(
            asked=asked,
            end=remains.jobs.ends.get(job_id, JobEnd()),
            runs=runs.get(job_id, ()),
            ahead_ms=evidence.ahead_ms,
            skew_ms=evidence.skew_ms,
            unrest=evidence.unrest,
        )
        for job_id, asked in evidence.jobs.items()
    ]
    unknown = {job_id: len(some) for job_id, some in runs.items() if job_id not in evidence.jobs}
    return of_jobs.judge_jobs(jobs, unknown) | of_runs.judge_runs(jobs, remains.jobs.orphans, remains.jobs.repaired)


def _by_key(records: Sequence[Arrived]) -> Arrivals:
    found: dict[str, list[Arrived]] = defaultdict(list)
    for record in records:
        found[record.schedule_key].append(record)
    return found


def _state(asked: ScheduleHistory) -> str | None:
    final = asked.final
    return final.state if final is not None else None


def _lost(asked: ScheduleHistory, arrived: Arrivals, dead: Arrivals) -> Iterator[str]:
    state = _state(asked)
    if state == "delivered" and not arrived.get(asked.schedule_key):
        yield f"{asked.schedule_key}: delivered, and there is no record of it"
    for seen in _failures(asked):
        dropped = seen.failed_because == EXPIRED and asked.on_late == "drop"
        letters = dead.get(asked.schedule_key, ())
        if not dropped and not any(changes.shows(letter, seen.content) for letter in letters):
            yield f"{asked.schedule_key}: failed in version {seen.version}, and there is no record of it"
    if asked.accepted_ms is not None and asked.seen[-1].state == ABSENT:
        yield f"{asked.schedule_key}: accepted, and now unknown"


def _failures(asked: ScheduleHistory) -> list[StateAnswer]:
    """One answer for each version that is known to have failed."""
    return list({seen.version: seen for seen in asked.seen if seen.state == "failed"}.values())


def _twice(asked: ScheduleHistory, arrived: Arrivals, dead: Arrivals) -> Iterator[str]:
    if asked.guarantee == "exactly_once":
        records = arrived.get(asked.schedule_key, ())
        if len(records) > 1:
            yield f"{asked.schedule_key}: {len(records)} times: {[record.place for record in records]}"
        # What was armed again may fail again, under another delivery id.
        letters = Counter(changes.delivery_id_of(letter) for letter in dead.get(asked.schedule_key, ()))
        if any(count > 1 for count in letters.values()):
            yield f"{asked.schedule_key}: dead letters {dict(letters)}"


def _delivered_again(asked: ScheduleHistory, arrived: Arrivals, unrest: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Another record of at_least_once, although between the two nothing was broken: no crash, no hand-over, and no send that
    got no acknowledgement."""
    if asked.guarantee != "at_least_once":
        return
    records = sorted(arrived.get(asked.schedule_key, ()), key=lambda record: record.timestamp_ms)
    for before, after in itertools.pairwise(records):
        if not any(from_ms <= after.timestamp_ms and before.timestamp_ms <= to_ms for from_ms, to_ms in unrest):
            yield f"{asked.schedule_key}: at {before.place}, and at {after.place}"


def _wrongly_there(asked: ScheduleHistory, arrived: Arrivals, dead: Arrivals) -> Iterator[str]:
    state, failures = _state(asked), _failures(asked)
    if state != "delivered" and asked.ended and arrived.get(asked.schedule_key) and not _by_zombies(asked):
        yield f"{asked.schedule_key}: {state or ABSENT}, and delivered at {arrived[asked.schedule_key][0].place}"
    # It may have failed and been armed again before any client asked. Of at_least_once a node may die between the record and
    # its outcome, and the next owner finds it late: it is there, and is a dead letter as well (`domain.schedule.OnLate`).
    again = asked.guarantee == "at_least_once" and bool(arrived.get(asked.schedule_key))
    if dead.get(asked.schedule_key) and asked.ended and not failures and not changes.armed(asked) and not again:
        yield f"{asked.schedule_key}: {state or ABSENT}, and a dead letter"


def _content_differs(asked: ScheduleHistory, arrived: Arrivals, dead: Arrivals) -> Iterator[str]:
    """Breaks of: what is delivered is the last version, as it was answered; never one that was replaced."""
    final, failures = asked.final, _failures(asked)
    if final is not None:
        yield from _unlike_allowed(asked, arrived, [final.content, *_by_zombies(asked)])
    if failures and not changes.armed(asked):
        yield from _unlike_allowed(asked, dead, [seen.content for seen in failures])


def _by_zombies(asked: ScheduleHistory) -> list[Content | None]:
    """Contents that may come though they are said to be late: unanswered sends of at_least_once, and those of zombies."""
    if asked.guarantee != "at_least_once" or asked.deadline_ms is None:
        return []
    failed = {seen.version for seen in asked.seen if seen.failed_because == EXPIRED}
    # Armed again before any client saw that it had failed.
    failed |= {seen.version - 1 for seen in asked.seen if seen.call == "retry" and seen.status == 200}
    return [seen.content for seen in asked.seen if seen.version in failed]


def _unlike_allowed(asked: ScheduleHistory, there: Arrivals, allowed: Sequence[Content | None]) -> Iterator[str]:
    for record in there.get(asked.schedule_key, ()):
        if not any(changes.shows(record, content) for content in allowed):
            yield f"{asked.schedule_key}: {changes.content_of(record)} at {record.place}, answered {allowed}"


def _early(history: History, arrived: Arrivals, ahead_ms: Callable[[int], int]) -> Iterator[str]:
    for key, records in arrived.items():
        asked = history.asked.get(key)
        for record in records:
            if asked is None:
                continue
            replaced = next((c for c in _by_zombies(asked) if c is not None and changes.shows(record, c)), None)
            due_ms = replaced.due_ms if replaced is not None else asked.due_last_ms
            if record.timestamp_ms < due_ms - ahead_ms(record.timestamp_ms):
                yield f"{key}: {due_ms - record.timestamp_ms} ms early at {record.place}"


def _out_of_order(history: History, arrived: Arrivals, records: Sequence[Arrived], skew_ms: int) -> Iterator[str]:
    """Breaks of the lanes' order. A schedule that was changed stands where its last version does: behind what was accepted
    before the change, among those of its due time. A run of a job, whose time of arming is not known, may be before
    any schedule, and after none that was due and accepted before it."""
    lanes: dict[tuple[str, str], list[InLane]] = defaultdict(list)
    for record in records:
        if is_of_job(record):
            run = RunRecord(record)
            lanes[record.topic, (record.key or b"").decode()].append(
                InLane(
                    schedule_key=f"{run.job_id} {run}",
                    offset=record.offset,
                    due_ms=run.due_ms,
                    accepted_by_ms=None,
                    sent_at_ms=0,
                )
            )
    for key, records in arrived.items():
        asked = history.asked.get(key)
        if asked is None or (final := asked.final) is None or final.state != "delivered":
            continue
        offsets = [record.offset for record in records if changes.shows(record, final.content)]
        if offsets:
            lanes[asked.topic, asked.lane].append(
                InLane(
                    schedule_key=key,
                    offset=min(offsets),
                    due_ms=asked.due_last_ms,
                    accepted_by_ms=asked.known_ms(asked.version),
                    sent_at_ms=asked.not_before_ms(asked.version),
                )
            )
    for lane in lanes.values():
        for late, before in out_of_order(lane, skew_ms=skew_ms):
            yield f"{_described(late, history, arrived)} after {_described(before, history, arrived)}"


def _described(one: InLane, history: History, arrived: Arrivals) -> str:
    asked = history.asked.get(one.schedule_key)
    if asked is None:
        return one.schedule_key
    places = [
        f"{record.timestamp_ms}@{record.kafka_partition}/{record.offset}" for record in arrived[asked.schedule_key]
    ]
    return (
        f"{asked.schedule_key} v{asked.version} ({asked.guarantee}, shard {asked.shard}, due {one.due_ms}, "
        f"sent {one.sent_at_ms}, accepted {one.accepted_by_ms}, arrived {places})"
    )


def _wrong_place(asked: ScheduleHistory, arrived: Arrivals) -> Iterator[str]:
    there = {record.place: record for record in arrived.get(asked.schedule_key, ())}
    for seen in asked.seen:
        if seen.state != "delivered":
            continue
        if seen.place not in there:
            yield f"{asked.schedule_key}: said to be at {seen.place}, is at {list(there)}"
        elif there[seen.place].timestamp_ms > seen.received_ms:
            yield f"{asked.schedule_key}: said to be delivered before it was"


def _backwards(asked: ScheduleHistory) -> Iterator[str]:
    """Every final answer says the same, whenever it was given; and nothing asked after one says less."""
    for before in asked.seen:
        for after in asked.seen:
            if _contradicts(before, after) or (after.version > before.version and _is_final(asked, before)):
                yield (
                    f"{asked.schedule_key}: {before.state} v{before.version} ({before.call}), then "
                    f"{after.state} v{after.version} ({after.call})"
                )
    if asked.accepted_ms is not None:
        unknown = [seen for seen in asked.seen if seen.state == ABSENT and seen.sent_ms > asked.accepted_ms]
        if unknown:
            yield f"{asked.schedule_key}: accepted, then unknown ({unknown[0].call})"


def _contradicts(before: StateAnswer, after: StateAnswer) -> bool:
    if after.version != before.version:
        return after.version < before.version and after.sent_ms > before.received_ms
    if before.state not in FINAL:
        return False
    if after.state in FINAL:
        return (after.state, after.place) != (before.state, before.place)
    return after.sent_ms > before.received_ms


def _is_final(asked: ScheduleHistory, seen: StateAnswer) -> bool:
    """There can be no later version: only what has failed can be armed again."""
    return seen.state in FINAL and not (seen.state == "failed" and changes.armed(asked))


def _stored_otherwise(asked: ScheduleHistory, remains: Remains) -> Iterator[str]:
    """Every version stood at a position of its own, and has one outcome: it was replaced, or failed and was armed again,
    or it is what was answered."""
    stored = Counter(remains.outcomes.get(asked.schedule_key, []))
    final = asked.final
    last = Counter([final.state] if final is not None else [])
    before = stored - last
    if asked.ended and (
        not last <= stored
        or before.total() != max(0, asked.version - 1)
        or before.keys() - ({"superseded", "failed"} if changes.armed(asked) else {"superseded"})
    ):
        yield f"{asked.schedule_key}: answered {_state(asked)} in version {asked.version}, stored {dict(stored)}"
