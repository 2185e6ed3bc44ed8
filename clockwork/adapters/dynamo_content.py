"""What a client asked for, as attributes: the same in a row and in its outcome."""

from clockwork.adapters import dynamo_fields as fields
from clockwork.adapters.dynamo_fields import Attribute, Item, number
from clockwork.domain.retry import Backoff, RetryPolicy
from clockwork.domain.schedule import (
    ClientId,
    DataForm,
    Guarantee,
    OnLate,
    OrderingKey,
    Schedule,
    ScheduleKey,
    Topic,
)


def content_item(schedule: Schedule) -> Item:
    """Everything but the key and the due time: those are in the item's key."""
    headers = {name: {"S": value} for name, value in schedule.headers}
    if len(headers) != len(schedule.headers):
        raise ValueError("two headers of one name")
    item: Item = {
        "orderingKey": {"S": schedule.ordering_key},
        "taskData": fields.of_bytes(schedule.task_data),
        "taskDataForm": {"S": schedule.data_form.value},
        "topic": {"S": schedule.topic},
        "guarantee": {"S": schedule.guarantee.value},
        "headers": {"M": headers},
        "createdAt": number(schedule.created_at_ms),
        "version": number(schedule.version),
        "deliveryId": {"S": schedule.delivery_id},
    }
    if schedule.traceparent is not None:
        item["traceparent"] = {"S": schedule.traceparent}
    if schedule.deadline_ms is not None:
        item["deadline"] = number(schedule.deadline_ms)
    if schedule.on_late is not OnLate.DELIVER:
        item["onLate"] = {"S": schedule.on_late.value}
    if schedule.retry is not None:
        item["retryPolicy"] = _policy_attribute(schedule.retry)
    return item


def schedule_of(item: Item, client_id: ClientId, schedule_key: ScheduleKey, due_ms: int) -> Schedule:
    """Reads it back.

    Raises: Unreadable.
    """
    headers = fields.mapping(item, "headers")
    return Schedule(
        client_id=client_id,
        schedule_key=schedule_key,
        ordering_key=OrderingKey(fields.text(item, "orderingKey")),
        due_ms=due_ms,
        topic=Topic(fields.text(item, "topic")),
        guarantee=fields.word(item, "guarantee", Guarantee),
        task_data=fields.binary(item, "taskData"),
        data_form=fields.word(item, "taskDataForm", DataForm),
        headers=tuple(
            (fields.utf8(name, "headers"), fields.text(headers, name, empty=True)) for name in sorted(headers)
        ),
        traceparent=fields.text(item, "traceparent", empty=True) if "traceparent" in item else None,
        deadline_ms=fields.integer(item, "deadline") if "deadline" in item else None,
        on_late=fields.word(item, "onLate", OnLate) if "onLate" in item else OnLate.DELIVER,
        retry=_policy_of(item),
        created_at_ms=fields.integer(item, "createdAt"),
        version=fields.integer(item, "version"),
        delivery_id=fields.text(item, "deliveryId"),
    )


def _policy_attribute(policy: RetryPolicy) -> Attribute:
    return {
        "M": {
            "attempts": number(policy.attempts_max),
            "initial": number(policy.backoff.initial_ms),
            "max": number(policy.backoff.max_ms),
            "factorPercent": number(policy.backoff.factor_percent),
            "jitterPercent": number(policy.jitter_percent),
        }
    }


def _policy_of(item: Item) -> RetryPolicy | None:
    if "retryPolicy" not in item:
        return None
    inner = fields.mapping(item, "retryPolicy")
    return RetryPolicy(
        attempts_max=fields.integer(inner, "attempts"),
        backoff=Backoff(
            initial_ms=fields.integer(inner, "initial"),
            max_ms=fields.integer(inner, "max"),
            factor_percent=fields.integer(inner, "factorPercent"),
        ),
        jitter_percent=fields.integer(inner, "jitterPercent"),
    )
