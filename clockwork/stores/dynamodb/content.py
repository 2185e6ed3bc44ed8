"""What a client asked for, as attributes: the same in a row and in its outcome."""

import re
from typing import Final

from clockwork.domain.destination import Topic
from clockwork.domain.retry import BackoffPolicy, RetryPolicy
from clockwork.domain.schedule import ClientId, DataForm, Guarantee, OnLate, OrderingKey, Schedule, ScheduleKey
from clockwork.errors import Unreadable
from clockwork.stores.dynamodb import attributes as fields
from clockwork.stores.dynamodb.attributes import Attribute, Item, number

OUTCOME_CONTENT_BYTES_MAX: Final = 384 * 1024
"""Of a schedule whose outcome holds it. An item of DynamoDB has at most 400 KB, and an outcome says more than a row. Nothing
that was accepted comes near it (256 KiB); a row that was put by hand may, and an outcome that DynamoDB refuses for its size
would keep the tidy-up of its shard, and with it the shard, for ever."""

_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)
_HEADER_OVERHEAD_BYTES: Final = 4


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
        topic=_topic_of(item),
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


def fits_an_outcome(schedule: Schedule) -> bool:
    """Whether its outcome may hold it. Depends on nothing else, so that every writer writes the same outcome."""
    texts = (schedule.ordering_key, schedule.topic, schedule.delivery_id, schedule.traceparent or "")
    size_bytes = len(schedule.task_data) + sum(len(text.encode()) for text in texts)
    size_bytes += sum(len(n.encode()) + len(v.encode()) + _HEADER_OVERHEAD_BYTES for n, v in schedule.headers)
    return size_bytes <= OUTCOME_CONTENT_BYTES_MAX


def _topic_of(item: Item) -> Topic:
    """No other name can be asked for: Kafka's protocol ends at 32,767 bytes, and to fail on one row's topic in the middle
    of a batch would be to fail again at every try."""
    topic = fields.text(item, "topic")
    if _TOPIC.fullmatch(topic) is None or topic in {".", ".."}:
        raise Unreadable("topic: not a legal one")
    return Topic(topic)


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
        backoff=BackoffPolicy(
            initial_ms=fields.integer(inner, "initial"),
            max_ms=fields.integer(inner, "max"),
            factor_percent=fields.integer(inner, "factorPercent"),
        ),
        jitter_percent=fields.integer(inner, "jitterPercent"),
    )
