"""Answers: a schedule with its state, and an ended one of a key's history. Their models are in `schedule`."""

from typing import Any

from clockwork.domain.position import accepted_ms_of, due_ms_of, text_of
from clockwork.domain.schedule import EndState, Outcome, Schedule
from clockwork.operations.scan import PendingSchedule
from clockwork.requests.results import ScheduleView
from clockwork.schema.schedule import WHOLE, Detail, document_of


def render_schedule(view: ScheduleView, detail: Detail = WHOLE) -> dict[str, Any]:
    """A schedule and its state, as every answer shows it: a `ScheduleDocument`, with the content that `detail` names."""
    document = {
        "clientId": view.client_id,
        "scheduleKey": view.schedule_key,
        "scheduleTime": due_ms_of(view.position),
    }
    document |= _content(view.schedule, detail)
    document |= {"status": view.status.value, "version": view.version, "shard": view.shard}
    return document if view.outcome is None else document | render_ending(view.outcome)


def render_pending(found: PendingSchedule) -> dict[str, Any]:
    """A pending schedule with what another store needs to take it over: a `PendingScheduleDocument`."""
    origin: dict[str, Any] = {"position": text_of(found.row.position)}
    if found.pointer is not None:
        origin |= {"digest": found.pointer.digest, "rearmed": found.pointer.rearmed}
    if found.row.schedule.traceparent is not None:
        origin["traceparent"] = found.row.schedule.traceparent
    return render_schedule(found.view) | {"origin": origin}


def render_history(outcome: Outcome, detail: Detail = WHOLE) -> dict[str, Any]:
    """An ended schedule in a key's history: a `PastDocument`. `superseded`: it was moved, and the moved one is listed
    too."""
    schedule = outcome.schedule
    identity = {
        "clientId": outcome.client_id,
        "scheduleKey": outcome.schedule_key,
        "scheduleTime": due_ms_of(outcome.position),
        "createdAt": accepted_ms_of(outcome.position),
    }
    state: dict[str, Any] = {"status": outcome.state.value, "endedAt": outcome.at_ms}
    version = {"version": schedule.version} if schedule is not None else {}
    moved = {"movedTo": due_ms_of(outcome.moved_to)} if outcome.moved_to is not None else {}
    return identity | _content(schedule, detail) | state | version | moved | render_ending(outcome)


def _content(schedule: Schedule | None, detail: Detail) -> dict[str, Any]:
    """The content of a schedule; empty if it could not be read."""
    if schedule is None:
        return {}
    document = document_of(schedule, detail)
    document["createdAt"] = schedule.created_at_ms
    document["deliveryId"] = schedule.delivery_id
    return document


def render_ending(outcome: Outcome) -> dict[str, Any]:
    """The members about an end: the receipt of a delivered schedule, the reason of a failed one; none for the others."""
    if outcome.state is EndState.DELIVERED and outcome.receipt is not None:
        delivered = {
            "topic": outcome.schedule.topic if outcome.schedule is not None else None,
            "partition": outcome.receipt.kafka_partition,
            "offset": outcome.receipt.offset,
            "at": outcome.receipt.at_ms,
            "latenessMs": outcome.receipt.at_ms - due_ms_of(outcome.position),
        }
        return {"delivered": delivered}
    if outcome.state is EndState.FAILED and outcome.failure is not None:
        failure = outcome.failure
        refusal = {} if failure.last_refusal is None else {"lastRefusal": failure.last_refusal}
        return {"failed": {"reason": failure.reason, "at": outcome.at_ms, "attempts": failure.attempts} | refusal}
    return {}
