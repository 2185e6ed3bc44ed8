"""Values for tests: each builder gives one that is valid, and takes what the test is about."""

from itertools import count
from typing import Any, Final

from clockwork.domain.destination import Topic
from clockwork.domain.ownership import ProcessId
from clockwork.domain.pauses import Pause
from clockwork.domain.position import Position, new_position
from clockwork.domain.registry import ProcessReport
from clockwork.domain.schedule import (
    BrokenRow,
    ClientId,
    DataForm,
    EndState,
    Failure,
    Guarantee,
    Lane,
    OnLate,
    OrderingKey,
    Outcome,
    Pointer,
    Receipt,
    RequestId,
    Retry,
    Row,
    RowName,
    Schedule,
    ScheduleKey,
)
from clockwork.domain.sharding import ShardId
from clockwork.ports.store import End

DUE_MS: Final = 1_700_000_000_000
"""Due time of schedules, if the test does not care."""
CLIENT: Final = ClientId("client-1")
TOPIC: Final = Topic("orders")
SHARD: Final = ShardId(3)

_acceptances = count(DUE_MS * 1_000 - 60_000_000)
_keys = count(1)


def position(due_ms: int = DUE_MS, *, accepted_us: int | None = None, random: int = 0) -> Position:
    """A position; each is accepted one microsecond after the one built before."""
    return new_position(
        due_ms=due_ms, accepted_us=next(_acceptances) if accepted_us is None else accepted_us, random=random
    )


def schedule(
    *,
    client_id: str = CLIENT,
    schedule_key: str | None = None,
    ordering_key: str | None = None,
    due_ms: int = DUE_MS,
    topic: str = TOPIC,
    guarantee: Guarantee = Guarantee.EXACTLY_ONCE,
    task_data: bytes = b'{"order":1}',
    data_form: DataForm = DataForm.JSON,
    headers: tuple[tuple[str, str], ...] = (),
    traceparent: str | None = None,
    created_at_ms: int = DUE_MS - 60_000,
    version: int = 1,
    delivery_id: str | None = None,
    deadline_ms: int | None = None,
    on_late: OnLate = OnLate.DELIVER,
) -> Schedule:
    """A schedule; without a key it gets one of its own, and without an ordering key its key stands in."""
    key = schedule_key if schedule_key is not None else f"key-{next(_keys)}"
    return Schedule(
        client_id=ClientId(client_id),
        schedule_key=ScheduleKey(key),
        ordering_key=OrderingKey(ordering_key if ordering_key is not None else key),
        due_ms=due_ms,
        topic=Topic(topic),
        guarantee=guarantee,
        task_data=task_data,
        data_form=data_form,
        headers=headers,
        traceparent=traceparent,
        created_at_ms=created_at_ms,
        version=version,
        deadline_ms=deadline_ms,
        on_late=on_late,
        delivery_id=delivery_id if delivery_id is not None else f"delivery-of-{key}",
    )


def row(
    of: Schedule | None = None,
    *,
    shard: int = SHARD,
    at: Position | None = None,
    hold: str | None = None,
    retry: Retry | None = None,
) -> Row:
    """The row of a schedule; rows with one due time stand in the order in which they are built."""
    wanted = of if of is not None else schedule()
    return Row(
        shard=ShardId(shard),
        position=at if at is not None else position(wanted.due_ms),
        schedule=wanted,
        hold=RequestId(hold) if hold is not None else None,
        retry=retry,
    )


def broken_row(
    *,
    shard: int = SHARD,
    at: Position | None = None,
    due_ms: int = DUE_MS,
    lane: Lane | None = None,
    newer_format: bool = False,
    raw: bytes = b'{"partitionId":{"S":"3"}}',
    client_id: str | None = None,
    schedule_key: str | None = None,
    of_job: bool = False,
) -> BrokenRow:
    """A row that cannot be read; by default not even its lane and key."""
    return BrokenRow(
        shard=ShardId(shard),
        position=at if at is not None else position(due_ms),
        reason="format 2" if newer_format else "no topic",
        raw=raw,
        newer_format=newer_format,
        lane=lane,
        client_id=ClientId(client_id) if client_id is not None else None,
        schedule_key=ScheduleKey(schedule_key) if schedule_key is not None else None,
        of_job=of_job,
    )


def pointer(
    to: Row, *, digest: str = "digest", version: int | None = None, expires_at_s: int = 2_000_000_000
) -> Pointer:
    """The pointer of a row's key."""
    return Pointer(
        client_id=to.schedule.client_id,
        schedule_key=to.schedule.schedule_key,
        shard=to.shard,
        position=to.position,
        digest=digest,
        version=version if version is not None else to.schedule.version,
        expires_at_s=expires_at_s,
    )


def receipt(offset: int = 7, *, kafka_partition: int = 0, at_ms: int = DUE_MS + 5) -> Receipt:
    """The place of a record."""
    return Receipt(kafka_partition=kafka_partition, offset=offset, at_ms=at_ms)


def outcome(
    of: Row,
    state: EndState = EndState.DELIVERED,
    *,
    at_ms: int = DUE_MS + 5,
    where: Receipt | None = None,
    failure: Failure | None = None,
    expires_at_s: int = 2_000_000_000,
) -> Outcome:
    """The end of the schedule of a row."""
    if where is None and state in (EndState.DELIVERED, EndState.FAILED):
        where = receipt(at_ms=at_ms)
    if failure is None and state is EndState.FAILED:
        failure = Failure(reason="record_too_large", attempts=8)
    return Outcome(
        client_id=of.schedule.client_id,
        schedule_key=of.schedule.schedule_key,
        position=of.position,
        state=state,
        at_ms=at_ms,
        schedule=None if state is EndState.SUPERSEDED else of.schedule,
        receipt=where,
        failure=failure,
        expires_at_s=expires_at_s,
    )


def end(of: Row, how: Outcome | None = None, *, keep_existing: bool = False) -> End:
    """The end of a row, with its outcome; delivered, if the test does not care."""
    return End(row=of, outcome=how if how is not None else outcome(of), keep_existing=keep_existing)


def gone(of: Row | BrokenRow) -> End:
    """The end of a row that leaves no outcome."""
    return End(row=of, outcome=None, keep_existing=False)


def row_name(at: Position, *, shard: int = SHARD) -> RowName:
    """The name of a row whose key is not known."""
    return RowName(shard=ShardId(shard), position=at, client_id=None, schedule_key=None)


def pause(since_ms: int = DUE_MS, *, by: str = "ana", reason: str | None = None) -> Pause:
    return Pause(since_ms=since_ms, by=by, reason=reason)


def process_report(process: str = "0123456789abcdef", **fields: Any) -> ProcessReport:
    """A process with a value in each field."""
    given = {
        "seen_at_ms": DUE_MS,
        "node": "host:17",
        "role": "all",
        "version": "1.0",
        "since_ms": DUE_MS - 1,
        "shards": 22,
        "assigned": 23,
        "created_per_second": 1.5,
        "delivered_per_second": 20.25,
        "loop_lag_ms": 3,
        "clock_skew_ms": -2,
        "kafka": "no broker of ü answers",
        "store": "no answer",
        "settings": "abc",
    }
    return ProcessReport(process=ProcessId(process), **{**given, **fields})
