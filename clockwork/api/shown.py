"""The parts of an answer: what a schedule is, and how it ended."""

import base64
import json
from typing import Any

from clockwork.api import policies
from clockwork.domain.position import accepted_ms_of, due_ms_of
from clockwork.domain.schedule import DataForm, EndState, Outcome, Schedule


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
    return {
        "orderingKey": schedule.ordering_key,
        "taskData": _answered(schedule),
        "taskDataEncoding": "base64" if schedule.data_form is DataForm.BASE64 else "json",
        "delivery": {
            "topic": schedule.topic,
            "guarantee": schedule.guarantee.value,
            "headers": dict(schedule.headers),
        }
        | policies.shown(schedule),
        "createdAt": schedule.created_at_ms,
        "deliveryId": schedule.delivery_id,
    }


def ending(outcome: Outcome) -> dict[str, Any]:
    """How it ended, where there is more to tell than that."""
    if outcome.state is EndState.DELIVERED and outcome.placed is not None:
        delivered = {
            "topic": outcome.schedule.topic if outcome.schedule is not None else None,
            "partition": outcome.placed.kafka_partition,
            "offset": outcome.placed.offset,
            "at": outcome.placed.at_ms,
            "latenessMs": outcome.placed.at_ms - due_ms_of(outcome.position),
        }
        return {"delivered": delivered}
    if outcome.state is EndState.FAILED and outcome.failure is not None:
        failure = outcome.failure
        return {"failed": {"reason": failure.reason, "at": outcome.at_ms, "attempts": failure.attempts}}
    return {}


def _answered(schedule: Schedule) -> Any:
    match schedule.data_form:
        case DataForm.JSON:
            return json.loads(schedule.task_data)
        case DataForm.TEXT:
            return schedule.task_data.decode()
        case DataForm.BASE64:
            return base64.b64encode(schedule.task_data).decode()
