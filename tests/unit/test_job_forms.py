"""Recurring jobs to stored items and back, on both stores, and the reading of items that Clockwork did not write."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from string import ascii_letters, digits
from typing import Any, Final, NamedTuple

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clockwork.domain.destination import Topic
from clockwork.domain.jobs.job import (
    ArmedRow,
    Backfill,
    CompletionPolicy,
    CompletionResult,
    Job,
    JobName,
    JobState,
    JobStatus,
    OpenRun,
    RetryOn,
    RunCompletion,
    RunCounts,
    RunDelivery,
    RunRequest,
    SkippedTimes,
    SkipReason,
)
from clockwork.domain.jobs.next_occurrence import Misfire, MisfirePolicy, OverlapPolicy
from clockwork.domain.position import Position
from clockwork.domain.retry import BackoffPolicy, RetryPolicy
from clockwork.domain.run import Chain, JobId, RunId, RunKind, RunOfRow
from clockwork.domain.schedule import (
    BrokenRow,
    ClientId,
    DataForm,
    Failure,
    Guarantee,
    OnLate,
    OrderingKey,
    Receipt,
    RequestId,
    Row,
)
from clockwork.domain.sharding import ShardId
from clockwork.domain.triggers.cron import Days, Dialect
from clockwork.domain.triggers.dst import GapRule, OverlapRule
from clockwork.domain.triggers.exclusions import OnExcluded, exclusion
from clockwork.domain.triggers.trigger import AnyOf, FixedDelay, FixedRate, Jitter, JitterPer, Trigger, cron, rrule
from clockwork.errors import NewerFormat, Unreadable
from clockwork.stores.dynamodb import codec as dynamo_codec
from clockwork.stores.dynamodb import job_codec as dynamo
from clockwork.stores.forms import INTEGER, TEXT, Form, Member
from clockwork.stores.postgres import codec as postgres_codec
from clockwork.stores.postgres import job_codec as postgres
from tests.support.builders import row
from tests.support.jobs import created, definition

INT64 = st.integers(-(2**63) + 1, 2**63 - 1)
NATURAL = st.integers(0, 2**53)
UTF8 = st.text(st.characters(codec="utf-8"), max_size=40)
SOME_UTF8 = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
CLIENT_IDS = st.text(ascii_letters + digits + "._-", min_size=1, max_size=128).map(ClientId)
JOB_IDS = SOME_UTF8.map(JobId)
POSITIONS = st.integers(1, 10**38 - 1).map(Position)
PAIRS = st.dictionaries(SOME_UTF8, UTF8, max_size=4).map(lambda pairs: tuple(sorted(pairs.items())))

NIGHTLY = cron("0 2 * * *", time_zone="Europe/Berlin")
QUARTZ = cron("0 0 9 ? * MON-FRI", dialect=Dialect.QUARTZ, days=Days.OR, gap=GapRule.SHIFT, overlap=OverlapRule.SECOND)
SCHOOL_DAYS: Final = cron(
    "0 8 * * *",
    exclude=exclusion(
        dates=["2026-12-23"],
        annual=["12-25", "02-29"],
        weekdays=["SAT", "SUN"],
        cron=["* 0-7 * * *", "* * 1 8 *"],
        calendar="de",
        named=exclusion(annual=["10-03"]),
    ),
    on_excluded=OnExcluded.NEXT,
)
FORTNIGHTLY: Final = rrule(
    "FREQ=WEEKLY;INTERVAL=2;UNTIL=20301231T000000Z",
    start_ms=1_796_000_000_000,
    time_zone="Europe/Berlin",
    gap=GapRule.SKIP,
    exclude=exclusion(weekdays=["TUE"]),
)
TRIGGERS: Final = (
    Trigger(rule=SCHOOL_DAYS),
    Trigger(rule=FORTNIGHTLY, start_ms=1_796_000_000_000),
    Trigger(rule=NIGHTLY),
    Trigger(rule=QUARTZ, start_ms=0, end_ms=10**13, runs_max=7, jitter=Jitter(most_ms=5)),
    Trigger(rule=FixedRate(every_ms=1_500, anchor_ms=7), jitter=Jitter(most_ms=0, per=JitterPer.RUN)),
    Trigger(rule=FixedDelay(delay_ms=60_000)),
    Trigger(rule=AnyOf(of=(NIGHTLY, FixedRate(every_ms=60_000, anchor_ms=0)))),
)
RETRIES = st.builds(
    RetryPolicy,
    attempts_max=NATURAL,
    backoff=st.builds(BackoffPolicy, initial_ms=NATURAL, max_ms=NATURAL, factor_percent=NATURAL),
    jitter_percent=NATURAL,
)
JOBS = st.builds(
    Job,
    client_id=CLIENT_IDS,
    job_id=JOB_IDS,
    version=st.integers(1, 10**8 - 1),
    created_at_ms=NATURAL,
    changed_at_ms=NATURAL,
    changed_by=st.none() | UTF8,
    trigger=st.none() | st.sampled_from(TRIGGERS),
    misfire=st.sampled_from(
        (Misfire(), Misfire(policy=MisfirePolicy.FIRE_ALL, grace_ms=5_000, catch_up_max=3, window_ms=10_000))
    ),
    overlap=st.none() | st.sampled_from(OverlapPolicy),
    completion=st.none()
    | st.builds(
        CompletionPolicy,
        timeout_ms=NATURAL,
        retry=st.none() | RETRIES,
        retry_on=st.frozensets(st.sampled_from(RetryOn)),
    ),
    pause_after_failures=NATURAL,
    durable=st.booleans(),
    interpolate=st.booleans(),
    payload_schema=st.none() | UTF8.map(str.encode),
    description=st.none() | UTF8,
    labels=PAIRS,
    priority=st.none() | NATURAL,
    ordering_key=SOME_UTF8.map(OrderingKey),
    topic=SOME_UTF8.map(Topic),
    guarantee=st.sampled_from(Guarantee),
    task_data=st.binary(max_size=60),
    data_form=st.sampled_from(DataForm),
    headers=PAIRS,
    traceparent=st.none() | UTF8,
    deadline_ms=st.none() | NATURAL,
    on_late=st.sampled_from(OnLate),
    retry=st.none() | RETRIES,
)
ARMED = st.builds(
    ArmedRow,
    shard=st.integers(0, 1_000).map(ShardId),
    position=POSITIONS,
    kind=st.sampled_from(RunKind),
    run_id=SOME_UTF8.map(RunId),
    attempt=NATURAL,
    scheduled_at_ms=INT64,
    cursor_ms=INT64,
    version=NATURAL,
)
STATES = st.builds(
    JobState,
    client_id=CLIENT_IDS,
    job_id=JOB_IDS,
    rev=NATURAL,
    version=NATURAL,
    status=st.sampled_from(JobStatus),
    digest=UTF8,
    created_at_ms=NATURAL,
    updated_at_ms=NATURAL,
    write_id=UTF8.map(RequestId),
    armed=st.none() | ARMED,
    cursor_ms=INT64,
    open_run=st.none()
    | st.builds(
        OpenRun,
        run_id=SOME_UTF8.map(RunId),
        kind=st.sampled_from(RunKind),
        attempt=NATURAL,
        scheduled_at_ms=NATURAL,
        position=POSITIONS,
        delivered_at_ms=NATURAL,
        until_ms=NATURAL,
    ),
    side_rows=st.lists(ARMED, max_size=3).map(tuple),
    backfill=st.none() | st.builds(Backfill, request_digits=UTF8, armed=ARMED, to_ms=INT64, left=NATURAL),
    failures=NATURAL,
    counts=st.builds(RunCounts, delivered=NATURAL, failed=NATURAL, skipped=NATURAL, of_trigger=NATURAL),
    tz_release=UTF8,
    pause_reason=st.none() | UTF8,
    paused_since_ms=st.none() | NATURAL,
    expires_at_s=st.none() | NATURAL,
)
RUN_DELIVERIES = st.builds(
    RunDelivery,
    client_id=CLIENT_IDS,
    job_id=JOB_IDS,
    position=POSITIONS,
    run_id=SOME_UTF8.map(RunId),
    kind=st.sampled_from(RunKind),
    attempt=NATURAL,
    version=NATURAL,
    scheduled_at_ms=INT64,
    at_ms=INT64,
    receipt=st.none() | st.builds(Receipt, kafka_partition=NATURAL, offset=NATURAL, at_ms=NATURAL),
    failure=st.none() | st.builds(Failure, reason=UTF8, attempts=NATURAL, last_refusal=st.none() | UTF8),
    timeout_ms=st.none() | NATURAL,
    expires_at_s=NATURAL,
)
SKIPPED = st.builds(
    SkippedTimes,
    client_id=CLIENT_IDS,
    job_id=JOB_IDS,
    position=POSITIONS,
    reason=st.sampled_from(SkipReason),
    first_ms=INT64,
    last_ms=INT64,
    count=NATURAL,
    at_ms=INT64,
    expires_at_s=NATURAL,
)
COMPLETIONS = st.builds(
    RunCompletion,
    client_id=CLIENT_IDS,
    job_id=JOB_IDS,
    position=POSITIONS,
    run_id=SOME_UTF8.map(RunId),
    attempt=NATURAL,
    result=st.sampled_from(CompletionResult),
    finished_at_ms=INT64,
    started_at_ms=st.none() | INT64,
    document=st.none() | UTF8.map(str.encode),
    expires_at_s=NATURAL,
)
REQUESTS = st.builds(
    RunRequest,
    client_id=CLIENT_IDS,
    job_id=JOB_IDS,
    request_id=SOME_UTF8,
    run_id=SOME_UTF8.map(RunId),
    position=POSITIONS,
    digest=UTF8,
    expires_at_s=NATURAL,
)
ROW_PARTS = st.builds(
    RunOfRow,
    rev=NATURAL,
    version=NATURAL,
    kind=st.sampled_from(RunKind),
    chain=st.sampled_from(Chain),
    scheduled_at_ms=INT64,
    cursor_ms=INT64,
    run_id=SOME_UTF8.map(RunId),
    attempt=NATURAL,
    previous_at_ms=st.none() | INT64,
    timeout_ms=st.none() | NATURAL,
    priority=st.none() | NATURAL,
)


EXAMPLES: Final = 40
"""Examples of each way and test; a job has forty fields, so that one example takes ten milliseconds."""


class Way(NamedTuple):
    """The way of one kind of values into a store and back."""

    values: st.SearchStrategy[Any]
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]
    columns: postgres_codec.Columns = ()
    """The columns of PostgreSQL that hold the values."""


def of_item(read: Callable[[Any, JobName], Any]) -> Callable[[Any], Any]:
    """A reader that is told the name of the job, which is the item's key."""

    def named(item: Any) -> Any:
        client_id, _, job_id = item["jobKey"]["S"].partition("/")
        return read(item, JobName(ClientId(client_id), JobId(job_id)))

    return named


WAYS: Final = {
    "dynamodb-state": Way(STATES, dynamo.state_item, of_item(dynamo.state_of)),
    "dynamodb-definition": Way(JOBS, dynamo.definition, of_item(dynamo.definition_of)),
    "dynamodb-log": Way(RUN_DELIVERIES | SKIPPED, dynamo.entry, of_item(dynamo.entry_of)),
    "dynamodb-completion": Way(COMPLETIONS, dynamo.entry, of_item(dynamo.completion_of)),
    "dynamodb-request": Way(REQUESTS, dynamo.request, of_item(dynamo.request_of)),
    "postgresql-state": Way(STATES, postgres.state_values, postgres.state_of, postgres.STATE_COLUMNS),
    "postgresql-definition": Way(JOBS, postgres.definition_values, postgres.definition_of, postgres.DEFINITION),
    "postgresql-log": Way(RUN_DELIVERIES | SKIPPED, postgres.log_values, postgres.log_entry_of, postgres.LOG),
    "postgresql-completion": Way(COMPLETIONS, postgres.completion_values, postgres.completion_of, postgres.COMPLETED),
    "postgresql-request": Way(REQUESTS, postgres.request_values, postgres.request_of, postgres.ASKED),
}
BY_STORE: Final = ("dynamodb", "postgresql")
"""Names of the stores, for `codec_of`."""


def written(store: str, of: Row) -> Any:
    return dynamo_codec.row_item(of) if store == "dynamodb" else list(postgres_codec.row_values(of))


def read(store: str, stored: Any, of: Row) -> Row | BrokenRow:
    if store == "dynamodb":
        return dynamo_codec.row_of(stored, shard=of.shard, position=of.position)
    return postgres_codec.row_of(stored)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_every_value_comes_back_as_it_was(way: Way, data: st.DataObject) -> None:
    original = data.draw(way.values)
    assert way.read(way.write(original)) == original


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: type(trigger.rule).__name__)
def test_a_trigger_that_comes_back_has_the_same_fire_times(trigger: Trigger) -> None:
    job = replace(definition(created()), trigger=trigger)
    for way in (WAYS["dynamodb-definition"], WAYS["postgresql-definition"]):
        found = way.read(way.write(job)).trigger
        at_ms = 1_790_000_000_000
        for _ in range(12):
            assert found.next_after(at_ms) == trigger.next_after(at_ms)
            at_ms = trigger.next_after(at_ms) or at_ms + 86_400_000


NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=8), inside, max_size=3),
    max_leaves=6,
)


def damaged(way: Way, data: st.DataObject) -> Any:
    """A stored value with nonsense in it: in one attribute, or in one member of the body."""
    stored = way.write(data.draw(way.values))
    nonsense = data.draw(NONSENSE)
    if isinstance(stored, dict):
        at = data.draw(st.sampled_from(sorted(set(stored) - {"jobKey"})))
        return {name: value for name, value in (stored | {at: nonsense}).items() if name != at or nonsense is not None}
    values = list(stored)
    body = [name for name, _ in way.columns].index("body")
    form = orjson.loads(values[body])
    form[data.draw(st.sampled_from(sorted(form)))] = nonsense
    try:
        values[body] = data.draw(st.sampled_from((orjson.dumps(form), b"", b"{", b"\xff", b"[]")))
    except TypeError:
        values[body] = b"1"  # no JSON can hold it
    return values


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_a_damaged_value_raises_unreadable_and_nothing_else(way: Way, data: st.DataObject) -> None:
    stored = damaged(way, data)
    try:
        found = way.read(stored)
    except Unreadable:
        return
    assert type(found).__name__ in {"Job", "JobState", "RunDelivery", "SkippedTimes", "RunCompletion", "RunRequest"}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_a_value_of_a_newer_format_is_told_from_a_damaged_one(way: Way, data: st.DataObject) -> None:
    stored = way.write(data.draw(way.values))
    newer = stored | {"v": {"N": "2"}} if isinstance(stored, dict) else (*stored[:-1], 2)
    with pytest.raises(NewerFormat):
        way.read(newer)


# --- rows


@pytest.mark.parametrize("store", BY_STORE)
@given(job=ROW_PARTS)
def test_a_row_of_a_job_comes_back_as_it_was_in_a_format_that_an_older_node_leaves_alone(
    store: str, job: RunOfRow
) -> None:
    original = replace(row(), run=job)
    stored = written(store, original)
    assert read(store, stored, original) == original
    assert (stored["v"] == {"N": "2"}) if store == "dynamodb" else stored[-1] == 2


def part() -> RunOfRow:
    return RunOfRow(
        rev=9,
        version=1,
        kind=RunKind.SCHEDULED,
        chain=Chain.MAIN,
        scheduled_at_ms=5,
        cursor_ms=5,
        run_id=RunId("s5"),
    )


def without(store: str, of: Row) -> Any:
    """The row without its part of the job."""
    stored = written(store, of)
    if store == "dynamodb":
        del stored["job"]
        return stored
    return [*stored[:-2], None, stored[-1]]


@pytest.mark.parametrize("store", BY_STORE)
def test_a_row_of_a_job_that_has_lost_its_part_of_the_job_is_no_schedule(store: str) -> None:
    # It would be delivered, and its end would be noted under a key of the same name.
    original = replace(row(), run=part())
    broken = read(store, without(store, original), original)
    assert isinstance(broken, BrokenRow)
    assert (broken.of_job, broken.run, broken.newer_format) == (True, None, False)
    assert broken.schedule_key == original.schedule.schedule_key


@pytest.mark.parametrize("store", BY_STORE)
def test_a_schedule_with_a_part_of_a_job_is_not_read_as_either(store: str) -> None:
    original = replace(row(), run=part())
    stored = written(store, original)
    older = stored | {"v": {"N": "1"}} if store == "dynamodb" else [*stored[:-1], 1]
    broken = read(store, older, original)
    assert isinstance(broken, BrokenRow)
    assert broken.of_job


@pytest.mark.parametrize("store", BY_STORE)
def test_a_row_that_cannot_be_read_tells_its_occurrence_if_that_can(store: str) -> None:
    original = replace(row(), run=part())
    stored = written(store, original)
    if store == "dynamodb":
        stored["guarantee"] = {"S": "never"}
    else:
        stored[[name for name, _ in postgres_codec.ROW].index("guarantee")] = "never"
    broken = read(store, stored, original)
    assert isinstance(broken, BrokenRow)
    assert (broken.of_job, broken.run) == (True, part())


# --- keys


@given(POSITIONS, POSITIONS)
@example(Position(9 * 10**36), Position(10**37))
def test_the_order_of_a_jobs_log_is_that_of_its_positions(one: Position, other: Position) -> None:
    assert (dynamo.log_item(one) < dynamo.log_item(other)) is (one < other)
    assert dynamo.log_position({"item": {"S": dynamo.log_item(one)}}) == one


@given(CLIENT_IDS, JOB_IDS)
def test_a_place_in_the_index_follows_from_the_name_alone(client_id: ClientId, job_id: JobId) -> None:
    name = JobName(client_id, job_id)
    assert dynamo.name_of(dynamo.index_key(name)) == name
    assert postgres.name_of(*postgres.name_values(name)) == name


# --- the declaration of forms


@dataclass(frozen=True, kw_only=True)
class Thing:
    """Something to be stored."""

    name: str
    size: int


def test_a_field_without_a_member_is_refused_when_the_program_starts() -> None:
    with pytest.raises(TypeError, match="size"):
        Form[Thing](Thing, Member("name", "name", TEXT))
    with pytest.raises(TypeError, match="colour"):
        Form[Thing](
            Thing, Member("name", "name", TEXT), Member("size", "size", INTEGER), Member("colour", "colour", TEXT)
        )


def test_the_reason_names_the_member_and_never_its_value() -> None:
    form = Form[Thing](Thing, Member("name", "title", TEXT), Member("size", "size", INTEGER))
    with pytest.raises(Unreadable, match=r"^size: not an integer$"):
        form.read({"title": "a", "size": "secret"})
    with pytest.raises(Unreadable, match=r"^title: missing$"):
        form.read({"size": 1})
