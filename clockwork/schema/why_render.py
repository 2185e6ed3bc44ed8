"""The explanation of a schedule as a reader is shown it. The model is in `why`."""

from collections.abc import Mapping
from typing import Any, Final

from clockwork.domain.position import due_ms_of
from clockwork.domain.rights import Principal
from clockwork.domain.schedule import BrokenRow, Row
from clockwork.requests.results import Status
from clockwork.requests.why import ROWS_MAX, Explanation, WhyReason
from clockwork.schema.operations import render_pause
from clockwork.schema.render import render_ending

_TEXTS: Final[Mapping[WhyReason, tuple[str, str]]] = {
    WhyReason.ENDED: ("It has ended.", "Nothing is to be done."),
    WhyReason.NOT_DUE: ("It is not due yet.", "Wait; or move it, or fire it now."),
    WhyReason.PAUSED: ("Its client or its topic is paused.", "Resume what is paused: it then goes on within seconds."),
    WhyReason.SHARD_WITHOUT_OWNER: (
        "No node works on its shard at present.",
        "A shard is taken over within seconds of its owner's end. If it stays so, look whether nodes with the role worker "
        "run, and what they log.",
    ),
    WhyReason.SHARD_BEHIND: (
        "The owner of its shard has not come to its due time.",
        "Look at the load and the log of that node. If it seems stuck, fence the shard: nothing is lost by that.",
    ),
    WhyReason.DESTINATION_WAITS: (
        "Its topic takes no records at present.",
        "Mend the topic, or Kafka: it is tried again by itself every few seconds.",
    ),
    WhyReason.RETRY: (
        "It waits for its next attempt: a change of it is under way.",
        "It goes on by itself.",
    ),
    WhyReason.BEHIND: (
        "Another one of its topic and ordering key is before it, and their order is kept.",
        "Ask why that one waits.",
    ),
    WhyReason.DUE_NOW: ("Due, or made due, less than 10 s ago: on its way.", "Ask again in some seconds."),
    WhyReason.UNKNOWN: (
        "It is due, and nothing that was looked at holds it back.",
        "Ask again in some seconds: it may have been resumed, or its topic mended, a moment ago. If it still waits after a "
        f"minute, look at the log of its shard's owner. At most {ROWS_MAX} rows before it were looked at.",
    ),
}
_FAILED: Final = ("It was given up.", "Retry it once the cause is mended; its dead letter has the reason.")
_REFUSED_AND_FAILED: Final = "It was given up: its topic refused its record for its content, at last for {}."
_REFUSED: Final = (
    "Its topic refused its record for its content: {}. It waits for its next attempt.",
    "It is tried again by itself, until its attempts are used up. Mend the topic, or change the schedule's content.",
)
_PAUSED_BEFORE_DUE: Final = (
    "It is not due yet, and its {} is paused.",
    "It waits when it is due, and when it is fired now, until the {} is resumed.",
)

_RATE_LIMITED: Final = (
    "Its topic is at its rate limit.",
    "Wait: it goes on within a second, in order. If the limit is too low, raise it (`CLOCKWORK_TOPIC_RATES`).",
)


def render_why(found: Explanation, principal: Principal) -> dict[str, Any]:
    """An explanation, for this reader: a `WhyDocument`."""
    view = found.view
    text, advice = _TEXTS[found.reason]
    if view.status is Status.FAILED:
        text, advice = _FAILED
        if (
            view.outcome is not None
            and (failure := view.outcome.failure) is not None
            and failure.last_refusal is not None
        ):
            text = _REFUSED_AND_FAILED.format(failure.last_refusal)
    elif found.retry is not None and found.retry.last_refusal is not None:
        text, advice = _REFUSED[0].format(found.retry.last_refusal), _REFUSED[1]
    elif found.reason is WhyReason.NOT_DUE and found.paused is not None:
        text, advice = (each.format(found.paused[0].value) for each in _PAUSED_BEFORE_DUE)
    elif found.destination is not None and found.destination.rate_limited:
        text, advice = _RATE_LIMITED
    document: dict[str, Any] = {
        "clientId": view.client_id,
        "scheduleKey": view.schedule_key,
        "asOf": found.as_of_ms,
        "status": view.status.value,
        "version": view.version,
        "shard": view.shard,
        "scheduleTime": due_ms_of(view.position),
        "reason": found.reason.value,
        "text": text,
        "advice": advice,
        "lookedAt": found.looked_at,
        "lookedAtAll": found.looked_at_all,
    }
    if view.schedule is not None:
        document["topic"] = view.schedule.topic
    if view.outcome is not None:
        document |= {"endedAt": view.outcome.at_ms} | render_ending(view.outcome)
    if found.reason is WhyReason.NOT_DUE:
        document["dueInMs"] = due_ms_of(view.position) - found.as_of_ms
    if found.paused is not None:
        kind, name, pause = found.paused
        document["paused"] = {"kind": kind.value, **render_pause(kind, name, pause, principal)}
    if found.lag_ms is not None:
        document["lagMs"] = found.lag_ms
    if (waiting := found.destination) is not None:
        times = {"since": waiting.since_ms, "nextProbeAt": waiting.next_probe_ms}
        known = {name: at_ms for name, at_ms in times.items() if at_ms is not None}
        document["destination"] = {"topic": waiting.destination, "reason": waiting.reason, **known}
    if found.retry is not None:
        document["retry"] = {"attempts": found.retry.attempts, "nextAt": found.retry.at_ms}
        if found.retry.last_refusal is not None:
            document["retry"]["lastRefusal"] = found.retry.last_refusal
    if found.behind is not None:
        document["behind"] = _in_the_way(found.behind, principal)
    return document


def _in_the_way(row: Row | BrokenRow, principal: Principal) -> dict[str, Any]:
    document: dict[str, Any] = {"scheduleTime": row.due_ms}
    client_id = row.schedule.client_id if isinstance(row, Row) else row.client_id
    if client_id is None or not principal.clients.cover(client_id):
        return document
    document["clientId"] = client_id
    key = row.schedule.schedule_key if isinstance(row, Row) else row.schedule_key
    if row.run is not None:
        return document | {"jobId": key, "runId": row.run.run_id}
    return document if key is None else document | {"scheduleKey": key}
