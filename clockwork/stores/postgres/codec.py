"""Conversion between Clockwork's values and the columns of the tables. Pure; the columns' names and types are here.

Positions travel as text, so nothing is ever a float, and become `numeric` inside a statement. Keys and headers are bytes.
The content of a schedule is the same columns in `rows` and in `outcomes`, so that a statement moves it inside the server.

A row may have been damaged or written by hand, and one such row must not stop its shard: reading a row never raises. Reading
a pointer, an outcome or a shard raises `Unreadable`: its caller cannot go on without it. Every table bears `format`, the
format that a row was written in; the meaning of one that is newer than this code is never guessed.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, TypeVar

import orjson

from clockwork.domain.command_notes import CommandNote, NoteChange, offsets_of_text, text_of_offsets
from clockwork.domain.destination import Topic
from clockwork.domain.ownership import IncarnationId, NodeState, ShardState
from clockwork.domain.pauses import Pauses
from clockwork.domain.position import Position, due_ms_of, position_of, text_of
from clockwork.domain.retry import BackoffPolicy, RetryPolicy
from clockwork.domain.run import ROW_FORMAT, RunOfRow
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
    Schedule,
    ScheduleKey,
)
from clockwork.domain.sharding import ShardId
from clockwork.errors import NewerFormat, Unreadable
from clockwork.stores import checks
from clockwork.stores.job_forms import RUN_OF_ROW
from clockwork.stores.pause_forms import PAUSES

FORMAT: Final = 1

Columns = tuple[tuple[str, str], ...]
"""Names and types."""

CONTENT: Final[Columns] = (
    ("ordering_key", "bytea"),
    ("topic", "text"),
    ("guarantee", "text"),
    ("task_data", "bytea"),
    ("data_form", "text"),
    ("headers", "bytea"),
    ("traceparent", "text"),
    ("deadline_ms", "bigint"),
    ("on_late", "text"),
    ("retry_policy", "bytea"),
    ("created_at_ms", "bigint"),
    ("version", "bigint"),
    ("delivery_id", "text"),
)
ROW: Final[Columns] = (
    ("shard", "int"),
    ("position", "numeric"),
    ("hold", "text"),
    ("retry_at_ms", "bigint"),
    ("retry_epoch", "bigint"),
    ("retry_attempts", "int"),
    ("retry_refusal", "text"),
    ("client_id", "text"),
    ("schedule_key", "bytea"),
    *CONTENT,
    ("job", "bytea"),
    ("format", "int"),
)
POINTER: Final[Columns] = (
    ("client_id", "text"),
    ("schedule_key", "bytea"),
    ("shard", "int"),
    ("position", "numeric"),
    ("version", "bigint"),
    ("digest", "text"),
    ("expires_at_s", "bigint"),
    ("rearmed", "boolean"),
    ("discarded_at_ms", "bigint"),
    ("format", "int"),
)
END: Final[Columns] = (
    ("client_id", "text"),
    ("schedule_key", "bytea"),
    ("position", "numeric"),
    ("state", "text"),
    ("at_ms", "bigint"),
    ("expires_at_s", "bigint"),
    ("kafka_partition", "int"),
    ("kafka_offset", "bigint"),
    ("placed_at_ms", "bigint"),
    ("reason", "text"),
    ("attempts", "int"),
    ("last_refusal", "text"),
    ("moved_to", "numeric"),
)
"""The head of an outcome: all but its content and its format."""
OUTCOME: Final[Columns] = (*END, *CONTENT, ("format", "int"))
NODE: Final[Columns] = (
    ("incarnation", "text"),
    ("frontier_ms", "bigint"),
    ("fenced_at_ms", "bigint"),
    ("slots", "int"),
    ("hints", "jsonb"),
    ("node", "text"),
    ("format", "int"),
)
SHARD: Final[Columns] = (("epoch", "bigint"), ("owner", "text"), ("floor_ms", "bigint"), ("format", "int"))
NOTE: Final[Columns] = (("places", "text"), ("by", "text"), ("expires_at_s", "bigint"), ("format", "int"))
"""`places`: offsets of the last processed commands, by Kafka partition; `by`: id of the write of this note."""

_NO_CONTENT: Final = (None,) * len(CONTENT)
_FRACTION: Final = 25
"""Characters of a position from its point on: `numeric(38, 24)` spells all of them."""

_Word = TypeVar("_Word", bound=StrEnum)
_GUARANTEES: Final[Mapping[str, Guarantee]] = {str(word): word for word in Guarantee}
_DATA_FORMS: Final[Mapping[str, DataForm]] = {str(word): word for word in DataForm}
_ON_LATE: Final[Mapping[str, OnLate]] = {str(word): word for word in OnLate}
_END_STATES: Final[Mapping[str, EndState]] = {str(word): word for word in EndState}


def arrays(records: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """The columns of several records, for `unnest`."""
    return list(zip(*records, strict=True))


def key_bytes(schedule_key: ScheduleKey) -> bytes:
    """A key as it is stored."""
    return schedule_key.encode()


# --- the content of a schedule


def content_values(schedule: Schedule | None) -> tuple[Any, ...]:
    """The values of `CONTENT`; of None: all null."""
    if schedule is None:
        return _NO_CONTENT
    return (
        schedule.ordering_key.encode(),
        schedule.topic,
        schedule.guarantee.value,
        schedule.task_data,
        schedule.data_form.value,
        orjson.dumps(dict(schedule.headers)) if schedule.headers else None,
        schedule.traceparent,
        schedule.deadline_ms,
        schedule.on_late.value if schedule.on_late is not OnLate.DELIVER else None,
        _policy_bytes(schedule.retry) if schedule.retry is not None else None,
        schedule.created_at_ms,
        schedule.version,
        schedule.delivery_id,
    )


def _schedule_of(values: Sequence[Any], client_id: ClientId, schedule_key: ScheduleKey, due_ms: int) -> Schedule:
    """Reads the values of `CONTENT`. Raises: Unreadable."""
    (
        ordering_key,
        topic,
        guarantee,
        task_data,
        data_form,
        headers,
        traceparent,
        deadline_ms,
        on_late,
        retry_policy,
        created_at_ms,
        version,
        delivery_id,
    ) = values
    return Schedule(
        client_id=client_id,
        schedule_key=schedule_key,
        ordering_key=OrderingKey(_text(ordering_key, "ordering_key")),
        due_ms=due_ms,
        topic=checks.topic_of(topic, "topic"),
        guarantee=_word(guarantee, "guarantee", _GUARANTEES),
        task_data=task_data,
        data_form=_word(data_form, "data_form", _DATA_FORMS),
        headers=_headers_of(headers) if headers is not None else (),
        traceparent=traceparent,
        deadline_ms=deadline_ms,
        on_late=_word(on_late, "on_late", _ON_LATE) if on_late is not None else OnLate.DELIVER,
        retry=_policy_of(retry_policy) if retry_policy is not None else None,
        created_at_ms=created_at_ms,
        version=version,
        delivery_id=_filled(delivery_id, "delivery_id"),
    )


def _policy_bytes(policy: RetryPolicy) -> bytes:
    return orjson.dumps(
        {
            "attempts": policy.attempts_max,
            "initial": policy.backoff.initial_ms,
            "max": policy.backoff.max_ms,
            "factorPercent": policy.backoff.factor_percent,
            "jitterPercent": policy.jitter_percent,
        }
    )


def _policy_of(stored: bytes) -> RetryPolicy:
    inner = mapping(stored, "retry_policy")
    return RetryPolicy(
        attempts_max=_integer(inner, "attempts"),
        backoff=BackoffPolicy(
            initial_ms=_integer(inner, "initial"),
            max_ms=_integer(inner, "max"),
            factor_percent=_integer(inner, "factorPercent"),
        ),
        jitter_percent=_integer(inner, "jitterPercent"),
    )


def _headers_of(stored: bytes) -> tuple[tuple[str, str], ...]:
    headers = mapping(stored, "headers")
    if not all(isinstance(value, str) for value in headers.values()):
        raise Unreadable("headers: not texts")
    return tuple((name, headers[name]) for name in sorted(headers))


# --- rows


def row_values(row: Row) -> tuple[Any, ...]:
    """The values of `ROW`."""
    schedule, retry = row.schedule, row.retry
    checks.check_due(schedule, row.position)
    return (
        row.shard,
        text_of(row.position),
        row.hold,
        retry.at_ms if retry is not None else None,
        retry.epoch if retry is not None else None,
        retry.attempts if retry is not None else None,
        retry.last_refusal if retry is not None else None,
        schedule.client_id,
        key_bytes(schedule.schedule_key),
        *content_values(schedule),
        orjson.dumps(RUN_OF_ROW.write(row.run)) if row.run is not None else None,
        FORMAT if row.run is None else ROW_FORMAT,
    )


def row_of(record: Iterable[Any]) -> Row | BrokenRow:
    """Reads the values of `ROW`, with any content. Never raises: the CHECK of `rows` keeps its position readable."""
    (
        shard,
        position_text,
        hold,
        retry_at_ms,
        retry_epoch,
        retry_attempts,
        retry_refusal,
        client_id,
        schedule_key,
        *content,
        job,
        written_in,
    ) = record
    position = stored_position(position_text)
    try:
        check_format(written_in, ROW_FORMAT)
        retry = None
        if retry_at_ms is not None:
            if retry_epoch is None or retry_attempts is None:
                raise Unreadable("retry: not complete")
            retry = Retry(
                at_ms=retry_at_ms,
                epoch=retry_epoch,
                attempts=checks.attempts_of(retry_attempts, "retry_attempts"),
                last_refusal=retry_refusal,
            )
        return Row(
            shard=ShardId(shard),
            position=position,
            schedule=_schedule_of(
                content, _client_id_of(client_id), _schedule_key_of(schedule_key), due_ms_of(position)
            ),
            hold=RequestId(hold) if hold is not None else None,
            retry=retry,
            run=_job_of(job, written_in),
        )
    except Unreadable as error:
        return BrokenRow(
            shard=ShardId(shard),
            position=position,
            reason=str(error),
            raw=_raw(record),
            newer_format=isinstance(error, NewerFormat),
            lane=checks.readable_or_none(_lane_of, content),
            client_id=checks.readable_or_none(_client_id_of, client_id),
            schedule_key=checks.readable_or_none(_schedule_key_of, schedule_key),
            of_job=job is not None or written_in == ROW_FORMAT,
            run=checks.readable_or_none(lambda stored: _job_of(stored, written_in), job),
        )


def _job_of(stored: bytes | None, written_in: int) -> RunOfRow | None:
    """Reads the column `job`. Raises: Unreadable, also for a row that has none and the format of those that have: it would
    be taken for a schedule."""
    if (stored is not None) != (written_in == ROW_FORMAT):
        raise Unreadable("job: missing, or in a row of another format")
    return RUN_OF_ROW.read(mapping(stored, "job")) if stored is not None else None


def _lane_of(content: Sequence[Any]) -> Lane:
    return (Topic(_filled(content[1], "topic")), OrderingKey(_text(content[0], "ordering_key")))


def _raw(record: Iterable[Any]) -> bytes:
    values = {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for (name, _), value in zip(ROW, record, strict=True)
    }
    raw = orjson.dumps(values)
    if len(raw) > checks.RAW_BYTES_MAX:
        return orjson.dumps({"shard": values["shard"], "position": values["position"], "omitted_bytes": len(raw)})
    return raw


# --- pointers, notes and outcomes


def pointer_values(pointer: Pointer) -> tuple[Any, ...]:
    """The values of `POINTER`."""
    return (
        pointer.client_id,
        key_bytes(pointer.schedule_key),
        pointer.shard,
        text_of(pointer.position),
        pointer.version,
        pointer.digest,
        pointer.expires_at_s,
        pointer.rearmed,
        pointer.discarded_at_ms,
        FORMAT,
    )


def pointer_of(values: Iterable[Any]) -> Pointer:
    """Reads the values of `POINTER`. Raises: Unreadable, NewerFormat."""
    client_id, schedule_key, shard, position, version, digest, expires_at_s, rearmed, discarded_at_ms, written_in = (
        values
    )
    check_format(written_in)
    return Pointer(
        client_id=_client_id_of(client_id),
        schedule_key=_schedule_key_of(schedule_key),
        shard=ShardId(shard),
        position=stored_position(position),
        digest=digest,
        version=version,
        expires_at_s=expires_at_s,
        rearmed=rearmed,
        discarded_at_ms=discarded_at_ms,
    )


def note_of(record: Iterable[Any]) -> CommandNote:
    """Reads the values of `NOTE`. Raises: Unreadable, NewerFormat."""
    places, by, expires_at_s, written_in = record
    check_format(written_in)
    try:
        return CommandNote(offsets=offsets_of_text(places), by=by, expires_at_s=expires_at_s)
    except ValueError as error:
        raise Unreadable("places: not the places of commands") from error


def note_values(note: NoteChange) -> tuple[str, str, int, str]:
    """The parameters of `sql.noted`."""
    after = note.after
    return text_of_offsets(after.offsets), after.by, after.expires_at_s, text_of_offsets(note.before)


def end_values(outcome: Outcome) -> tuple[Any, ...]:
    """The values of `END`."""
    receipt, failure = outcome.receipt, outcome.failure
    return (
        outcome.client_id,
        key_bytes(outcome.schedule_key),
        text_of(outcome.position),
        outcome.state.value,
        outcome.at_ms,
        outcome.expires_at_s,
        receipt.kafka_partition if receipt is not None else None,
        receipt.offset if receipt is not None else None,
        receipt.at_ms if receipt is not None else None,
        failure.reason if failure is not None else None,
        failure.attempts if failure is not None else None,
        failure.last_refusal if failure is not None else None,
        text_of(outcome.moved_to) if outcome.moved_to is not None else None,
    )


def outcome_values(outcome: Outcome) -> tuple[Any, ...]:
    """The values of `OUTCOME`."""
    checks.check_outcome(outcome)
    return (*end_values(outcome), *content_values(outcome.schedule), FORMAT)


def outcome_of(values: Iterable[Any]) -> Outcome:
    """Reads the values of `OUTCOME`. Raises: Unreadable, NewerFormat."""
    (
        stored_client_id,
        stored_key,
        stored_position_text,
        state,
        at_ms,
        expires_at_s,
        kafka_partition,
        kafka_offset,
        placed_at_ms,
        reason,
        attempts,
        last_refusal,
        moved_to,
        *content,
        written_in,
    ) = values
    check_format(written_in)
    client_id, schedule_key = _client_id_of(stored_client_id), _schedule_key_of(stored_key)
    position = stored_position(stored_position_text)
    receipt, failure = None, None
    if kafka_partition is not None:
        if kafka_offset is None or placed_at_ms is None:
            raise Unreadable("kafka_offset: missing")
        receipt = Receipt(kafka_partition=kafka_partition, offset=kafka_offset, at_ms=placed_at_ms)
    if reason is not None:
        if attempts is None:
            raise Unreadable("attempts: missing")
        failure = Failure(reason=reason, attempts=checks.attempts_of(attempts, "attempts"), last_refusal=last_refusal)
    has_content = content[1] is not None
    return Outcome(
        client_id=client_id,
        schedule_key=schedule_key,
        position=position,
        state=_word(state, "state", _END_STATES),
        at_ms=at_ms,
        schedule=_schedule_of(content, client_id, schedule_key, due_ms_of(position)) if has_content else None,
        receipt=receipt,
        failure=failure,
        moved_to=stored_position(moved_to) if moved_to is not None else None,
        expires_at_s=expires_at_s,
    )


# --- shards, incarnations, pauses


def shard_state_of(values: Iterable[Any]) -> ShardState:
    """Reads the values of `SHARD`. Raises: Unreadable, NewerFormat."""
    epoch, owner, floor_ms, written_in = values
    check_format(written_in)
    return ShardState(epoch=epoch, owner=IncarnationId(owner) if owner is not None else None, floor_ms=floor_ms)


def node_state_of(values: Iterable[Any]) -> NodeState:
    """Reads the values of `NODE`. Raises: Unreadable, NewerFormat."""
    incarnation, frontier_ms, fenced_at_ms, slots, hints, node, written_in = values
    check_format(written_in)
    stored = mapping(hints.encode(), "hints")
    if not all(slot.isdecimal() for slot in stored):
        raise Unreadable("hints: not of slots")
    return NodeState(
        incarnation=IncarnationId(incarnation),
        frontier_ms=frontier_ms,
        fenced_at_ms=fenced_at_ms,
        slots=slots,
        hints={int(slot): _integer(stored, slot) for slot in stored},
        node=node,
    )


def hints_text(hints: Mapping[int, int]) -> str:
    """Hints as they are stored."""
    return orjson.dumps({str(slot): offset for slot, offset in hints.items()}).decode()


def pauses_bytes(pauses: Pauses) -> bytes:
    """Pauses as they are stored, without their version."""
    return orjson.dumps(PAUSES.write(pauses))


def pauses_of(version: int, body: bytes, written_in: int) -> Pauses:
    """Reads stored pauses. Raises: Unreadable, NewerFormat."""
    check_format(written_in)
    return PAUSES.read(mapping(body, "body"), version=version)


# --- parts


def stored_position(text: str) -> Position:
    """Reads a stored position. Raises: Unreadable; never for a column `position`, whose CHECK forbids it."""
    if text[-_FRACTION : 1 - _FRACTION] == "." and text[0] != "-":
        return Position(int(text.replace(".", "", 1)))
    return position_of(text)


def check_format(written_in: int, newest: int = FORMAT) -> None:
    """Raises: NewerFormat, Unreadable."""
    checks.check_format(written_in, oldest=1, newest=newest)


def _client_id_of(stored: str) -> ClientId:
    return checks.client_id_of(stored, "client_id")


def _schedule_key_of(stored: bytes) -> ScheduleKey:
    return checks.schedule_key_of(_text(stored, "schedule_key"), "schedule_key")


def _text(stored: bytes, name: str) -> str:
    try:
        return _filled(stored.decode(), name)
    except UnicodeDecodeError as error:
        raise Unreadable(f"{name}: not UTF-8") from error


def _filled(stored: str, name: str) -> str:
    if not stored:
        raise Unreadable(f"{name}: empty")
    return stored


def _word(stored: str, name: str, words: Mapping[str, _Word]) -> _Word:
    word = words.get(stored)
    if word is None:
        raise Unreadable(f"{name}: unknown value")
    return word


def mapping(stored: bytes, name: str) -> dict[str, Any]:
    """Reads a JSON object. Raises: Unreadable."""
    try:
        found = orjson.loads(stored)
    except orjson.JSONDecodeError as error:
        raise Unreadable(f"{name}: not JSON") from error
    if not isinstance(found, dict):
        raise Unreadable(f"{name}: not an object")
    return found


def _integer(inner: Mapping[str, Any], name: str) -> int:
    value = inner.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Unreadable(f"{name}: not an integer")
    return value
