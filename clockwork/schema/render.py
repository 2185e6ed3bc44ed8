"""The parts of an answer: what a schedule is, and how it ended."""

from typing import Any

from clockwork.domain.position import accepted_ms_of, due_ms_of
from clockwork.domain.schedule import DataForm, EndState, Outcome, Schedule
from clockwork.schema import policies
from clockwork.schema.data_forms import answered_data


def past(outcome: Outcome) -> dict[str, Any]:
    """A schedule that has ended, as a history shows it; `superseded`: it was moved, and what it became stands there too."""
    schedule = outcome.schedule
    identity = {
        "clientId": outcome.client_id,
        "scheduleKey": outcome.schedule_key,
        "scheduleTime": due_ms_of(outcome.position),
        "createdAt": accepted_ms_of(outcome.position),
    }
    state: dict[str, Any] = {"status": outcome.state.value, "endedAt": outcome.at_ms}
    version = {"version": schedule.version} if schedule is not None else {}
    return identity | content(schedule) | state | version | ending(outcome)


def content(schedule: Schedule | None) -> dict[str, Any]:
    """What was asked for; nothing of what could not be read."""
    if schedule is None:
        return {}
    return request_of(schedule) | {"createdAt": schedule.created_at_ms, "deliveryId": schedule.delivery_id}


def request_of(schedule: Schedule) -> dict[str, Any]:
    """The request that would create this schedule, with every field named."""
    return {
        "clientId": schedule.client_id,
        "scheduleKey": schedule.schedule_key,
        "scheduleTime": schedule.due_ms,
        "orderingKey": schedule.ordering_key,
        "taskData": answered_data(schedule),
        "taskDataEncoding": "base64" if schedule.data_form is DataForm.BASE64 else "json",
        "delivery": {
            "topic": schedule.topic,
            "guarantee": schedule.guarantee.value,
            "headers": dict(schedule.headers),
        }
        | policies.shown(schedule),
    }


def ending(outcome: Outcome) -> dict[str, Any]:
    """How it ended, where there is more to tell than that."""
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
        return {"failed": {"reason": failure.reason, "at": outcome.at_ms, "attempts": failure.attempts}}
    return {}
