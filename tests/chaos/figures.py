"""The run in figures, and what was wrong with it, for people."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple
from typing import Final

from clockwork.domain.schedule import OrderingKey
from clockwork.domain.sharding import shard_of
from infra.local.verdict import percentile
from tests.chaos.checker import Evidence
from tests.chaos.disturbances import DisturbanceLog, Kill
from tests.chaos.job_history import JobHistory, JobOp
from tests.chaos.job_records import entries_of, is_of_job, runs_by_job
from tests.chaos.world import SHARDS
from tests.support.reader import Arrived

CASES_SHOWN: Final = 8
IN_FLIGHT_MS: Final = 100
"""Time after a kill in which what the node had sent may still be appended; later, another node sent it."""


def table(evidence: Evidence, disturbance_log: DisturbanceLog, violations: Mapping[str, Sequence[str]]) -> str:
    """All figures of a run."""
    history, remains = evidence.history, evidence.remains
    asked = history.asked.values()
    accepted = [one for one in asked if one.accepted_ms is not None]
    ends = Counter(one.final.state if one.final is not None else "nobody knows" for one in accepted)
    records = [record for record in remains.records if not is_of_job(record)]
    firsts = first_arrivals(records)
    late_ms = sorted(
        firsts[one.schedule_key].timestamp_ms - max(one.due_last_ms, one.known_ms(one.version) or 0)
        for one in accepted
        if one.schedule_key in firsts
    )
    failures = Counter(str(one.final.failed_because) for one in asked if one.final and one.final.state == "failed")
    fates = Counter(str(command.fate) for command in history.commands)
    answered_ms = sorted(each.answered_ms - each.sent_ms for each in history.commands if each.answered_ms is not None)
    max_version = max((one.version for one in accepted), default=1)
    again = len(records) - len(firsts)
    rows = [
        ("schedules asked for", str(len(history.asked))),
        ("accepted", str(len(accepted))),
        *((f"  of them {state}", str(count)) for state, count in sorted(ends.items())),
        *((f"  failed: {reason}", str(count)) for reason, count in sorted(failures.items())),
        ("changed, at most so often", f"{sum(one.version > 1 for one in accepted)}, {max_version - 1}"),
        ("commands", ", ".join(f"{fate}: {count}" for fate, count in sorted(fates.items()))),
        ("  until they were answered, p50 / p99 / max", ms(answered_ms)),
        ("records seen by a consumer", str(len(records))),
        ("  again (at_least_once only)", str(again)),
        ("dead letters", str(len(remains.dead_letters))),
        ("answers", ", ".join(f"{name}: {count}" for name, count in sorted(history.answers.items()))),
        *((str(kind), str(count)) for kind, count in sorted(disturbance_log.done.items())),
        ("disturbances left out, since late", str(disturbance_log.left_out)),
        ("lateness, all, p50 / p99 / max", ms(late_ms)),
        *takeover_rows(disturbance_log.kills, history_shards(evidence), remains.records),
        ("all ended after the healing", f"{remains.ended_after_ms} ms"),
        *job_rows(evidence),
    ]
    lines = [f"  {name:<52}{value}" for name, value in rows]
    lines += [f"  {name:<52}{len(cases)}" for name, cases in violations.items()]
    for name, cases in violations.items():
        lines += [f"VIOLATION {name}: {case}" for case in cases[:CASES_SHOWN]]
        if len(cases) > CASES_SHOWN:
            lines.append(f"VIOLATION {name}: and {len(cases) - CASES_SHOWN} more")
    return "\n".join(lines)


def job_rows(evidence: Evidence) -> list[tuple[str, str]]:
    """Figures of jobs, as rows of the table."""
    remains, jobs = evidence.remains, evidence.jobs.values()
    if not jobs:
        return []
    runs = runs_by_job(remains.records, remains.dead_letters)
    kinds = Counter(run.kind for some in runs.values() for run in some)
    logs = [each for end in remains.jobs.ends.values() for each in end.log]
    statuses = Counter(each["status"] for each in logs)
    skipped = sum(each["count"] for each in logs if each["status"] == "skipped")
    ends = {(job_id, *e.key): e.status for job_id, end in remains.jobs.ends.items() for e in entries_of(end.log, "")}
    again = sum(ends.get((job_id, run_id, attempt - 1)) == "timed_out" for job_id, run_id, attempt in ends)
    answered: Counter[str] = Counter(op.kind for asked in jobs for op in asked.ops if op.accepted)
    flights = sum(bool(op.answer and op.answer.in_flight) for asked in jobs for op in asked.ops)
    late_ms = sorted(run.at_ms - run.due_ms for some in runs.values() for run in some if run.kind == "scheduled")
    return [
        ("jobs", f"{len(jobs)}, {sum(not asked.operated for asked in jobs)} of them account for each fire time"),
        ("  runs, by kind", _counts(kinds)),
        ("  entries of logs, by status", _counts(statuses)),
        ("  fire times skipped", str(skipped)),
        ("  requests carried out", f"{_counts(answered)}; with inFlight: {flights}"),
        ("  changes of the calendar", _calendar(jobs)),
        ("  attempts that timed out and came again", str(again)),
        ("  reports of consumers", str(sum(len(asked.reports) for asked in jobs))),
        ("  lateness of scheduled runs, p50 / p99 / max", ms(late_ms)),
        ("  all ran on after the healing", f"{remains.jobs.ran_on_after_ms} ms"),
    ]


def _calendar(jobs: Iterable[JobHistory]) -> str:
    named_by = [asked for asked in jobs if asked.names_calendar]
    puts = named_by[0].calendar_puts if named_by else []
    behind = sum(not put.reached(asked.job_id) for asked in named_by for put in puts)
    return f"{len(puts)}, closed: {sum(put.closed for put in puts)}; {len(named_by)} jobs name it, behind: {behind}"


def _counts(counted: Counter[str]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(counted.items()))


def every_job(evidence: Evidence) -> str:
    """One line of JSON for each job, with all that was seen of it."""
    runs = runs_by_job(evidence.remains.records, evidence.remains.dead_letters)
    lines = []
    for job_id, asked in evidence.jobs.items():
        end = evidence.remains.jobs.ends.get(job_id)
        shown = {
            "asked": {name: getattr(asked, name) for name in ("job_id", "client_id", "guarantee", "operated", "body")},
            "ops": [_op(op) for op in asked.ops],
            "calendar": [repr(put) for put in asked.calendar_puts],
            "reports": [repr(report) for report in asked.reports],
            "runs": [str(run) for run in runs.get(job_id, ())],
            "state": end.state if end else None,
            "log": end.log if end else None,
        }
        lines.append(json.dumps(shown))
    return "".join(f"{line}\n" for line in lines)


def _op(op: JobOp) -> str:
    command = f" command {op.command.number} {op.command.fate}" if op.command is not None else ""
    return f"{op.kind}{command} {op.data or ''} {op.request_id} {[tuple(w) for w in map(astuple, op.windows())]} {op.answer}"


def every_schedule(evidence: Evidence) -> str:
    """One line of JSON for each schedule, with all that was seen of it: where the search for a cause begins."""
    arrived: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for record in evidence.remains.records:
        arrived[record.schedule_key].append((record.timestamp_ms, record.kafka_partition, record.offset))
    lines = [
        json.dumps(asdict(asked) | {"arrived": sorted(arrived[key])})
        for key, asked in sorted(evidence.history.asked.items(), key=lambda item: item[1].due_ms)
    ]
    return "".join(f"{line}\n" for line in lines)


def history_shards(evidence: Evidence) -> dict[str, int]:
    """The shard of each schedule."""
    return {key: shard_of(OrderingKey(asked.lane), SHARDS) for key, asked in evidence.history.asked.items()}


def first_arrivals(records: Iterable[Arrived]) -> dict[str, Arrived]:
    """The record of each schedule that was appended first."""
    found: dict[str, Arrived] = {}
    for record in sorted(records, key=lambda record: record.timestamp_ms):
        found.setdefault(record.schedule_key, record)
    return found


def takeovers_ms(
    kills: Sequence[Kill], shard_of: Mapping[str, int], records: Iterable[Arrived]
) -> tuple[list[int], list[int]]:
    """For each kill the times until the first and until the last of the node's shards delivered again. Left out are kills of
    a node that worked none, and of one whose shards delivered nothing any more."""
    in_order = sorted(
        (record.timestamp_ms, shard_of[record.schedule_key]) for record in records if record.schedule_key in shard_of
    )
    first_ms, last_ms = [], []
    for kill in kills:
        delivers_again: dict[int, int] = {}
        for at_ms, shard in in_order:
            if at_ms > kill.at_ms + IN_FLIGHT_MS and shard in kill.shards:
                delivers_again.setdefault(shard, at_ms - kill.at_ms)
        if delivers_again:
            first_ms.append(min(delivers_again.values()))
            last_ms.append(max(delivers_again.values()))
    return sorted(first_ms), sorted(last_ms)


def takeover_rows(
    kills: Sequence[Kill], shard_of: Mapping[str, int], records: Iterable[Arrived]
) -> list[tuple[str, str]]:
    """Kill to delivery, as rows of the table."""
    first_ms, last_ms = takeovers_ms(kills, shard_of, records)
    return [
        ("kills of nodes at work", str(len(first_ms))),
        ("  its first shard delivers again", ms(first_ms)),
        ("  its last shard delivers again", ms(last_ms)),
    ]


def ms(sorted_ms: list[int]) -> str:
    """p50, p99 and max."""
    if not sorted_ms:
        return "-"
    p50, p99 = (percentile(sorted_ms, share) for share in (0.5, 0.99))
    return f"{p50} / {p99} / {sorted_ms[-1]} ms"
