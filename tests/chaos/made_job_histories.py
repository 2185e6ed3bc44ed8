"""Histories of a job made by hand, for tests of the checker. It fires each second, from 10 s on; it was made at 9.5 s."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tests.chaos.checker import Evidence, judge
from tests.chaos.healed_jobs import JobEnd, JobRemains
from tests.chaos.healed_phase import Remains
from tests.chaos.history import History
from tests.chaos.job_history import Every, JobAnswer, JobHistory, JobOp, OpKind, Report, ReportKind, Try
from tests.support.reader import Arrived

BEGIN_MS: Final = 10_000
EVERY: Final = Every(1_000)
RATE: Final[Mapping[str, Any]] = {"type": "fixed_rate", "everyMs": 1_000, "anchor": 0}
SKIP: Final[Mapping[str, Any]] = {
    "overlap": "skip",
    "completion": {"timeoutMs": 2_000, "retry": {"attempts": 2}, "retryOn": ["timeout"]},
}
"""The completion policy of a job whose runs may not overlap, and come again once."""
DATA: Final = '{"put":0}'
WANTS: Final = ("new_trigger", "paired", "request_id", "from_ms", "to_ms", "runs_max")
DELETED_MS: Final = 60_000


def job(**changed: Any) -> JobHistory:
    """`body`: what is other in the body of its create."""
    body = {
        "trigger": RATE,
        "taskData": {"put": 0},
        "misfire": {"policy": "fire_all"},
    } | changed.pop("body", {})
    fields: dict[str, Any] = {
        "job_id": "j",
        "client_id": "c",
        "topic": "t",
        "ordering_key": "j",
        "guarantee": "exactly_once",
        "operated": False,
        "by_command": False,
        "refused": False,
    }
    asked = JobHistory(body=body, **fields | changed)
    asked.ops.append(op("create", sent_ms=9_400, received_ms=9_500, status=201, data=DATA))
    return asked


def op(kind: OpKind, *, sent_ms: int, received_ms: int | None = None, **more: Any) -> JobOp:
    """A request; None: it was not answered."""
    wants = {name: more.pop(name) for name in WANTS if name in more}
    until_ms = received_ms if received_ms is not None else sent_ms + 60_000
    made = JobOp(kind=kind, tries=[Try(sent_ms, until_ms)], data=more.get("data"), **wants)
    if received_ms is not None:
        made.answer = answer(sent_ms, received_ms, **more)
    return made


def answer(sent_ms: int, received_ms: int, **more: Any) -> JobAnswer:
    fields: dict[str, Any] = {"status": 200, "state": "active", "version": 1, "data": DATA, "every": EVERY}
    return JobAnswer(sent_ms=sent_ms, received_ms=received_ms, node="n", **fields | more)


def run(
    at_ms: int,
    *,
    offset: int | None = None,
    run_id: str | None = None,
    kind: str = "scheduled",
    attempt: int = 1,
    late_ms: int = 10,
    due_ms: int | None = None,
    version: int = 1,
    value: str = DATA,
    job_id: str = "j",
) -> Arrived:
    """The record of the fire time; its offset is the fire time's number."""
    names = {
        "clockwork-schedule-key": job_id,
        "clockwork-job-id": job_id,
        "clockwork-run-id": run_id or f"s{at_ms}",
        "clockwork-run-kind": kind,
        "clockwork-run-attempt": str(attempt),
        "clockwork-job-version": str(version),
        "clockwork-scheduled-at": str(at_ms),
        "clockwork-schedule-time": str(due_ms if due_ms is not None else at_ms),
    }
    return Arrived(
        topic="t",
        kafka_partition=0,
        offset=at_ms // 1_000 if offset is None else offset,
        key=b"j",
        value=value.encode(),
        headers=tuple((name, text.encode()) for name, text in names.items()),
        timestamp_ms=(due_ms if due_ms is not None else at_ms) + late_ms,
        timestamp_of_broker=True,
    )


def entry(record: Arrived, status: str = "delivered", **more: Any) -> dict[str, Any]:
    """The log's entry of a record."""
    return {
        "status": status,
        "runId": record.text("clockwork-run-id"),
        "attempt": int(record.text("clockwork-run-attempt")),
        "delivered": {
            "topic": record.topic,
            "partition": record.kafka_partition,
            "offset": record.offset,
            "at": record.timestamp_ms,
        },
        **more,
    }


def skip(first_ms: int, last_ms: int, count: int, reason: str = "misfire") -> dict[str, Any]:
    return {"status": "skipped", "first": first_ms, "last": last_ms, "count": count, "reason": reason}


def report(kind: ReportKind, record: Arrived, *, at_ms: int, status: int = 200, **more: Any) -> Report:
    run_id, attempt = record.text("clockwork-run-id"), int(record.text("clockwork-run-attempt"))
    told = answer(at_ms - 5, at_ms, status=status, reason=more.pop("reason", None), until_ms=more.pop("until_ms", 0))
    return Report(kind=kind, run_id=run_id, attempt=attempt, sent=True, answer=told, **more)


def broken(
    asked: JobHistory,
    records: Sequence[Arrived] = (),
    log: Sequence[Mapping[str, Any]] | None = None,
    *,
    dead_letters: Sequence[Arrived] = (),
    state: Mapping[str, Any] | None = None,
    orphans: Sequence[str] = (),
    repaired: Sequence[str] = (),
    ahead_ms: int = 0,
    skew_ms: int = 0,
    unrest: Sequence[tuple[int, int]] = (),
) -> set[str]:
    """The promises that are found broken. By default the log has each record as delivered."""
    for each in asked.of("create", "put"):
        if each.answer is not None and each.answer not in asked.states:
            asked.states.append(each.answer)
    end = JobEnd(
        state=dict(state if state is not None else {"status": "active"}),
        log=[dict(each) for each in (log if log is not None else map(entry, records))],
        deleted_from_ms=DELETED_MS,
    )
    remains = JobRemains(ends={asked.job_id: end}, orphans=list(orphans), repaired=list(repaired))
    evidence = Evidence(
        history=History(),
        remains=Remains(records=records, dead_letters=dead_letters, jobs=remains),
        jobs={asked.job_id: asked},
        ahead_ms=lambda at_ms: ahead_ms,
        skew_ms=skew_ms,
        unrest=unrest,
    )
    return {name.removeprefix("jobs: ") for name, cases in judge(evidence).items() if cases}
