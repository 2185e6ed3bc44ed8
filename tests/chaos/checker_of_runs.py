"""Was each answer about a job kept, and is its log true? What a `200` promised will not come must not; each record is an
entry of the log, and each entry a record; runs by hand and backfills were made; runs that may not overlap did not; a run
whose consumer died came again, once, and the log tells it.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from tests.chaos.checker_of_jobs import OfJob
from tests.chaos.job_history import JobAnswer, JobHistory, JobOp, OpKind, Report
from tests.chaos.job_records import FIRE_TIMES, MAIN, Entry, RunRecord, skips_of

BROUGHT_BACK: Final[tuple[OpKind, ...]] = ("resume", "restore", "create")
LAST_MS: Final = 10_000
"""Before the last delete: what a run was to be followed by may have been taken by it."""


def answers_not_kept(job: OfJob) -> Iterator[str]:
    """Runs that came after an answer that had said that they would not."""
    if not job.exactly_once:
        return  # a send without an answer may come late
    for op in job.asked.ops:
        answer = op.answer
        if answer is None or answer.status != 200:
            continue
        for run in job.runs:
            if (
                run.at_ms > answer.received_ms
                and run.key not in answer.in_flight
                and _excluded(job.asked, op, answer, run)
            ):
                yield job.told(
                    f"{op.kind} was answered at {answer.received_ms} as {answer.state} v{answer.version}, then {run}"
                )


def _excluded(asked: JobHistory, op: JobOp, answer: JobAnswer, run: RunRecord) -> bool:
    """True if the answer says that this run, which came later, will not come."""
    match op.kind:
        case "put":
            # Of two at once one may tell the version of the other, which is none of before to it.
            return run.version < answer.version - op.paired
        case "pause" if answer.state == "paused":
            # Runs by hand and backfills go on beside it.
            return run.kind in FIRE_TIMES | {"retry"} and not _brought_back(asked, answer, run, BROUGHT_BACK)
        case "delete" if answer.state == "deleted":
            return not _brought_back(asked, answer, run, ("restore", "create"))
        case _:
            return False


def _brought_back(asked: JobHistory, answer: JobAnswer, run: RunRecord, kinds: Sequence[OpKind]) -> bool:
    return any(
        window.until_ms >= answer.sent_ms and window.sent_ms <= run.at_ms
        for op in asked.of(*kinds)
        for window in op.windows()
    )


def log_differs(job: OfJob) -> Iterator[str]:
    """Records without an entry, entries without a record, and counts that are others."""
    entries = job.entries()
    by_key = {entry.key: entry for entry in entries}
    for key, count in Counter(entry.key for entry in entries).items():
        if count > 1:
            yield job.told(f"{count} entries of {key}")
    places = {run.place for run in job.runs}
    dead = {run.key for run in job.runs if run.dead}
    for entry in entries:
        if entry.status == "armed":
            yield job.told(f"{entry}, and it is deleted")
        if entry.place is not None and entry.place not in places:
            yield job.told(f"{entry}, and there is no record of it")
        if entry.refused and entry.key not in dead:
            yield job.told(f"{entry}, and there is no dead letter of it")
        if entry.refused and not job.asked.refused:
            yield job.told(f"{entry}, though nothing was wrong with it")
    for run in job.runs:
        found = by_key.get(run.key)
        if found is None:
            yield job.told(f"{run}, and no entry of the log")
        elif job.exactly_once and (found.refused if run.dead else found.place != run.place) is not run.dead:
            yield job.told(f"{run}, and the log has {found}")
    yield from _wrong_counts(job, entries)


def _wrong_counts(job: OfJob, entries: Sequence[Entry]) -> Iterator[str]:
    if not job.asked.made_once or not job.end.state.get("counts"):
        return  # they begin anew with a job in the place of a deleted one
    counted = {
        "delivered": sum(entry.place is not None for entry in entries),
        "failed": sum(entry.refused for entry in entries),
        "skipped": sum(skip.count for skip in skips_of(job.end.log)),
    }
    if counted != job.end.state["counts"]:
        yield job.told(f"counts {job.end.state['counts']}, and the log has {counted}")


def runs_not_made(job: OfJob) -> Iterator[str]:
    """Runs by hand and backfills that were accepted, and did not come; requests that were two runs."""
    there = {run.run_id for run in job.runs}
    by_request: dict[str, set[str]] = defaultdict(set)
    for op in job.asked.of("run", "backfill"):
        if op.accepted and op.answer is not None and op.answer.run_id:
            by_request[op.request_id].add(op.answer.run_id)
    yield from (
        job.told(f"{request_id} is {several}") for request_id, several in by_request.items() if len(several) > 1
    )
    for op in job.asked.of("run", "backfill"):
        first = op.answer.run_id if op.accepted and op.answer is not None else ""
        # A reply that is given again names the job, and not the run.
        if not first or op.answer is None or _deleted_since(job, op.answer):
            continue
        expected = [first]
        if op.kind == "backfill":
            if not job.asked.one_trigger or job.asked.every is None:
                continue
            times = job.asked.every.between(op.from_ms, op.to_ms)[: op.runs_max]
            expected = [f"b{at_ms}-{first.rpartition('-')[2]}" for at_ms in times]
        missing = [run_id for run_id in expected if run_id not in there]
        if missing:
            yield job.told(f"{op.kind} {op.request_id} was accepted, and {missing} did not come")


def _deleted_since(job: OfJob, answer: JobAnswer) -> bool:
    return any(
        answer.sent_ms <= window.until_ms and window.sent_ms < job.end.deleted_from_ms
        for op in job.asked.of("delete")
        for window in op.windows()
    )


def overlapping(job: OfJob) -> Iterator[str]:
    """Runs that were delivered while another was open, of jobs that allow none beside it."""
    life_of = job.lives()
    if not job.asked.exclusive or not job.exactly_once or life_of is None:
        return
    finished_ms = {entry.key: entry.finished_ms for entry in job.entries()}
    for before, after in itertools.pairwise([run for run in job.runs if run.kind in MAIN]):
        ended_ms = finished_ms.get(before.key)
        if ended_ms is not None and ended_ms <= after.at_ms + job.skew_ms:
            continue
        if life_of(before.version) != life_of(after.version):
            continue  # in flight when its job was deleted
        # With a delete the run counts as over, and its consumer is told so.
        if not any(
            window.sent_ms <= after.at_ms and before.at_ms <= window.until_ms
            for op in job.asked.of("delete")
            for window in op.windows()
        ):
            yield job.told(f"{after}, while {before} was open: it ended at {ended_ms}")


def attempts_missing(job: OfJob) -> Iterator[str]:
    """Attempts that failed, or timed out because their consumer died, and were not followed by another one as the job asks;
    and attempts that follow nothing. (Each came once: `twice`.)"""
    asked = job.asked
    if not asked.exclusive:
        return
    entries = {entry.key: entry for entry in job.entries()}
    there = {run.key for run in job.runs}
    for (run_id, attempt), entry in entries.items():
        wanted = (
            asked.retried(entry.status)
            and not entry.refused
            and not run_id.startswith("b")  # beside all others, so that none follows it
            and attempt < asked.attempts
            and not (entry.status == "failed" and _given_up(asked, run_id, attempt))
        )
        in_time = entry.finished_ms is not None and entry.finished_ms < job.end.deleted_from_ms - LAST_MS
        if wanted and in_time and not asked.operated and (run_id, attempt + 1) not in there:
            yield job.told(f"{entry}, and did not come again")
    for run in job.runs:
        if run.attempt > 1:
            before = entries.get((run.run_id, run.attempt - 1))
            if before is None or not asked.retried(before.status) or run.attempt > asked.attempts:
                yield job.told(f"{run}, and the attempt before it is {before}")


def _given_up(asked: JobHistory, run_id: str, attempt: int) -> bool:
    return any(not report.may_retry for report in _reports(asked, run_id, attempt, "fail"))


def untrue_reports(job: OfJob) -> Iterator[str]:
    """Answers to consumers that the log does not bear out, ends without a report, and time-outs before their time."""
    entries = {entry.key: entry for entry in job.entries()}
    latest: dict[str, int] = {}
    for run_id, attempt in entries:
        latest[run_id] = max(latest.get(run_id, 0), attempt)
    for report in job.asked.reports:
        entry = entries.get((report.run_id, report.attempt))
        answer = report.answer
        if answer is None or entry is None:
            continue
        wrong = {
            (200, None): report.kind != "heartbeat" and entry.status != _ENDS[report.kind],
            (409, "completed"): entry.status != "completed",
            (409, "timed_out"): entry.status != "timed_out",
            (409, "failed"): entry.status != "failed",
            (409, "superseded"): not job.asked.operated and latest[report.run_id] <= report.attempt,
            (409, "deleted"): not job.asked.operated and answer.received_ms < job.end.deleted_from_ms,
        }.get((answer.status, answer.reason), False)
        if wrong:
            yield job.told(f"{report.kind} was answered {answer.status} {answer.reason}, and the log has {entry}")
    for key, entry in entries.items():
        kind = None if entry.refused else _REPORTED.get(entry.status)
        if kind is not None and not any(report.may_count for report in _reports(job.asked, *key, kind)):
            yield job.told(f"{entry}, and no consumer said so")
        yield from _timed_out_early(job, entry)


def _timed_out_early(job: OfJob, entry: Entry) -> Iterator[str]:
    completion = job.asked.completion
    if entry.status != "timed_out" or entry.finished_ms is None or completion is None:
        return
    until_ms = entry.document["delivered"]["at"] + completion["timeoutMs"]
    for report in _reports(job.asked, *entry.key, "heartbeat"):
        answer = report.answer
        if answer is not None and answer.status == 200 and answer.received_ms <= entry.finished_ms - job.skew_ms:
            until_ms = max(until_ms, answer.until_ms)
    if entry.finished_ms < until_ms - job.skew_ms:
        yield job.told(f"{entry}: {until_ms - entry.finished_ms} ms before its time-out")


def _reports(asked: JobHistory, run_id: str, attempt: int, kind: str) -> Iterator[Report]:
    return (each for each in asked.reports if (each.run_id, each.attempt, each.kind) == (run_id, attempt, kind))


_ENDS: Final = {"complete": "completed", "fail": "failed"}
_REPORTED: Final = {"completed": "complete", "failed": "fail"}


def judge_runs(jobs: Sequence[OfJob], orphans: Sequence[str], repaired: Sequence[str]) -> dict[str, list[str]]:
    """Per promise, every case in which it was not kept."""

    def found(rule: Callable[[OfJob], Iterator[str]]) -> list[str]:
        return [line for job in jobs for line in rule(job)]

    return {
        "jobs: answers that were not kept": found(answers_not_kept),
        "jobs: logs that are not true": found(log_differs),
        "jobs: accepted runs that did not come, or are two": found(runs_not_made),
        "jobs: runs beside an open one": found(overlapping),
        "jobs: runs that did not come again": found(attempts_missing),
        "jobs: answers to consumers that are not true": found(untrue_reports),
        "jobs: orphans": list(orphans),
        "jobs: repaired by the audit": list(repaired),
    }
