"""Answers about jobs: a job with its state, a run, a version, a refusal. Their models are in `job`."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Literal

from clockwork.domain.jobs.job import ArmedRow, Job, RunCompletion, RunDelivery
from clockwork.domain.position import due_ms_of
from clockwork.domain.triggers.preview import FireTime, Preview, zone_at
from clockwork.domain.triggers.trigger import Trigger
from clockwork.requests.jobs.results import (
    JobDeclined,
    JobNotFound,
    JobReason,
    JobRefused,
    JobVersionDiffers,
    JobView,
    RunDeclined,
    RunExtended,
    RunNotFound,
    RunReason,
    RunRefused,
    RunStatus,
    RunView,
)
from clockwork.schema.job import JobDocument, RunDocument, fire_time_document, job_document
from clockwork.schema.problems import Problem, ProblemDocument, not_found
from clockwork.schema.trigger import entries_document


def render_job(view: JobView, next_times: Sequence[FireTime] | None = None) -> dict[str, Any]:
    """A job and its state, as every answer shows it: a `JobDocument`."""
    state, counts = view.state, view.state.counts
    document = job_document(view.job) | {
        "version": state.version,
        "status": state.status.value,
        "createdAt": state.created_at_ms,
        "updatedAt": state.updated_at_ms,
        "counts": {"delivered": counts.delivered, "failed": counts.failed, "skipped": counts.skipped},
    }
    if state.paused_since_ms is not None:
        document["pausedSince"] = state.paused_since_ms
    if state.pause_reason is not None:
        document["note"] = state.pause_reason
    if view.next_run is not None:
        document["nextRun"] = _next_run(view.next_run, view.job.trigger)
    if view.last_run is not None:
        document["lastRun"] = render_run(view.last_run)
    if view.open_runs is not None:
        document["openRuns"] = [render_run(each) for each in view.open_runs]
    if view.in_flight:
        document["inFlight"] = [_armed_run(each) for each in view.in_flight]
    if next_times is not None:
        document["nextTimes"] = [fire_time_document(each) for each in next_times]
    return document


def exported_job(view: JobView) -> dict[str, Any]:
    """A job with what its create does not bring back: an `ExportedJobDocument`."""
    state, counts = view.state, view.state.counts
    origin: dict[str, Any] = {
        "createdAt": state.created_at_ms,
        "updatedAt": state.updated_at_ms,
        "version": state.version,
        "digest": state.digest,
        "cursor": state.cursor_ms,
        "counts": {
            "delivered": counts.delivered,
            "failed": counts.failed,
            "skipped": counts.skipped,
            "ofTrigger": counts.of_trigger,
        },
        "failures": state.failures,
        "pausedSince": state.paused_since_ms,
        "note": state.pause_reason,
        "traceparent": view.job.traceparent,
        "calendars": _calendars(view.job.trigger),
    }
    return {"job": job_document(view.job), "origin": {n: value for n, value in origin.items() if value is not None}}


def _calendars(trigger: Trigger | None) -> dict[str, Any] | None:
    """The named calendars of a trigger; None: there are none."""
    named = () if trigger is None else trigger.calendars
    return {each.name: entries_document(each.exclusion) for each in named} or None


def next_times(view: JobView, count: int, *, now_ms: int) -> Preview | None:
    """The question for the next fire times of a job, the armed one first; None: there are none."""
    trigger, state, armed = view.job.trigger, view.state, view.next_run
    if trigger is None or state.expires_at_s is not None:
        return None
    if trigger.runs_max is not None:
        left = trigger.runs_max - state.counts.of_trigger
        if left < 1:
            return None
        count = min(count, left)
    after_ms = max(now_ms, state.cursor_ms)
    from_ms = armed.scheduled_at_ms if armed is not None else after_ms + 1
    return Preview(trigger=trigger, from_ms=from_ms, count=count, jitter_seed=str(state.name))


def render_version(job: Job) -> dict[str, Any]:
    """One version of a job's definition: a `JobVersionDocument`."""
    document = job_document(job) | {"version": job.version, "changedAt": job.changed_at_ms}
    return document if job.changed_by is None else document | {"changedBy": job.changed_by}


def render_run(run: RunView) -> dict[str, Any]:
    """A run or a skipped stretch: a `RunDocument`."""
    if run.skipped is not None:
        skipped = run.skipped
        return {
            "status": run.status.value,
            "reason": skipped.reason.value,
            "first": skipped.first_ms,
            "last": skipped.last_ms,
            "count": skipped.count,
        }
    if run.delivery is None:
        if run.armed is None:
            raise TypeError("a run without a row and without an entry")
        return _armed_run(run.armed)
    return _ended_run(run, run.delivery)


def render_heartbeat(result: RunExtended) -> dict[str, Any]:
    """A run that goes on: a `HeartbeatDocument`."""
    run = result.run.delivery
    if run is None:
        raise TypeError("a run that was not delivered")
    return {"runId": run.run_id, "attempt": run.attempt, "until": result.until_ms}


def _next_run(armed: ArmedRow, trigger: Trigger | None) -> dict[str, Any]:
    at_ms = armed.scheduled_at_ms
    document: dict[str, Any] = {
        "runId": armed.run_id,
        "scheduledAt": at_ms,
        "dueAt": armed.due_ms,
        "local": zone_at(None if trigger is None else trigger.rule, at_ms).local(at_ms),
        "version": armed.version,
    }
    note = None if trigger is None else trigger.explain(at_ms)
    return document if note is None else document | {"note": note}


def _armed_run(armed: ArmedRow) -> dict[str, Any]:
    return {
        "status": RunStatus.ARMED.value,
        "runId": armed.run_id,
        "kind": armed.kind.value,
        "version": armed.version,
        "attempt": armed.attempt,
        "scheduledAt": armed.scheduled_at_ms,
        "dueAt": armed.due_ms,
    }


def _ended_run(run: RunView, end: RunDelivery) -> dict[str, Any]:
    due_ms = due_ms_of(end.position)
    document: dict[str, Any] = {
        "status": run.status.value,
        "runId": end.run_id,
        "kind": end.kind.value,
        "version": end.version,
        "attempt": end.attempt,
        "scheduledAt": end.scheduled_at_ms,
        "dueAt": due_ms,
    }
    if end.failure is not None:
        # Its receipt is that of the dead letter.
        return document | {"reason": end.failure.reason, "finishedAt": end.at_ms}
    if end.receipt is not None:
        document["delivered"] = {
            "topic": run.topic,
            "partition": end.receipt.kafka_partition,
            "offset": end.receipt.offset,
            "at": end.receipt.at_ms,
            "latenessMs": end.receipt.at_ms - due_ms,
        }
    if run.completion is not None:
        document |= _completed(run.completion)
    return document


def _completed(completion: RunCompletion) -> dict[str, Any]:
    document: dict[str, Any] = {"finishedAt": completion.finished_at_ms}
    if completion.started_at_ms is not None:
        document["startedAt"] = completion.started_at_ms
        document["durationMs"] = max(0, completion.finished_at_ms - completion.started_at_ms)
    if completion.document is not None:
        name = "result" if completion.result.value == "completed" else "error"
        document[name] = json.loads(completion.document)
    return document


# --- refusals

_REFUSED: Final[Mapping[JobReason, str]] = {
    JobReason.EXISTS: "Another job has this name, or another request this id.",
    JobReason.DELETED: "It is deleted: restore it first.",
    JobReason.ENDED: "It has ended: its trigger is over. Give it another one first.",
    JobReason.NOT_DELETED: "It is not deleted.",
    JobReason.RUNNING: "A run is open beside which this one may not be. Try again when it has ended.",
    JobReason.TOO_MANY_RUNS: "As many runs by hand are pending as may be. Try again when some of them are delivered.",
    JobReason.NO_FIRE_TIMES: "Its trigger has no fire time in this range.",
}


class JobConflictDocument(ProblemDocument):
    """The job's state does not allow the request."""

    reason: Literal["exists", "deleted", "ended", "not_deleted", "running", "too_many_runs", "no_fire_times"]
    job: JobDocument


_RUN_REFUSED: Final[Mapping[RunReason, str]] = {
    RunReason.TIMED_OUT: "Its time was over first.",
    RunReason.SUPERSEDED: "Another attempt of it is under way.",
    RunReason.COMPLETED: "It is completed.",
    RunReason.FAILED: "It has failed.",
    RunReason.IN_FLIGHT: "Its time is about to be over: nothing can be promised. Ask again.",
    RunReason.NOT_DELIVERED: "It is not delivered yet.",
    RunReason.NOT_ASKED: "Its job did not ask for a completion when it was delivered.",
    RunReason.NOT_OPEN: (
        "It has no time-out that could be moved: its runs may overlap, or its job was deleted and restored meanwhile. It "
        "can be completed all the same."
    ),
}


class RunConflictDocument(ProblemDocument):
    """The state of the run, or of its job, does not allow the request."""

    reason: Literal[
        "timed_out",
        "superseded",
        "completed",
        "failed",
        "in_flight",
        "not_delivered",
        "not_asked",
        "not_open",
        "deleted",
    ]
    run: RunDocument | None = None
    """The run as it is; absent if its job is `deleted`."""
    job: JobDocument | None = None
    """The job, if it is `deleted`."""


class StaleJobDocument(ProblemDocument):
    """The job has another version."""

    job: JobDocument
    """The present one."""


def job_not_found() -> Problem:
    return not_found(
        "job-not-found",
        "There is no such job",
        "No job was accepted under this clientId and jobId, or its retention has ended.",
    )


def run_not_found() -> Problem:
    return not_found(
        "run-not-found",
        "There is no such run",
        "The job has no run of this id, or its retention has ended.",
    )


def version_not_found() -> Problem:
    return not_found(
        "version-not-found",
        "There is no such version",
        "The job has no version of this number, or it is not kept any more.",
    )


def of_run_declined(result: RunDeclined) -> Problem:
    """`404` or `409`."""
    match result:
        case RunNotFound():
            return run_not_found()
        case RunRefused(reason, run):
            return Problem(
                status=HTTPStatus.CONFLICT,
                kind="conflict",
                title="The run's state does not allow it",
                detail=_RUN_REFUSED[reason],
                more={"reason": reason.value, "run": render_run(run)},
            )
        case _:
            return of_job_declined(result)


def of_job_declined(result: JobDeclined) -> Problem:
    """`404`, `409` or `412`."""
    match result:
        case JobNotFound():
            return job_not_found()
        case JobVersionDiffers(view):
            version = view.state.version
            return Problem(
                status=HTTPStatus.PRECONDITION_FAILED,
                kind="version-differs",
                title="The job has another version",
                detail=f"Its version is {version}, which the request's condition does not allow.",
                more={"job": render_job(view)},
                headers={"ETag": f'"{version}"'},
            )
        case JobRefused(reason, view):
            return Problem(
                status=HTTPStatus.CONFLICT,
                kind="conflict",
                title="The job's state does not allow it",
                detail=_REFUSED[reason],
                more={"reason": reason.value, "job": render_job(view)},
            )
