"""`JobStore` on DynamoDB: lost answers, shared requests, damaged items."""

import asyncio
from dataclasses import replace
from typing import Any, Final

import pytest

from clockwork.domain.jobs.job import JobName, JobState, JobStatus, JobTransaction
from clockwork.domain.run import JobId
from clockwork.errors import (
    ConditionFailed,
    NewerFormat,
    StoreThrottled,
    StoreUnavailable,
    TransactionConflict,
    Unreadable,
)
from clockwork.ports.jobs import StaleRevision
from clockwork.stores.dynamodb import job_codec
from clockwork.stores.dynamodb.attributes import Item
from clockwork.stores.dynamodb.jobs import DynamoJobStore
from clockwork.stores.dynamodb.store import DynamoScheduleStore
from tests.contract.store_fixtures import Faults
from tests.support.builders import CLIENT
from tests.support.jobs import created, delivery_of, new_job, next_armed, step_context
from tests.support.waiting import until

pytestmark = pytest.mark.real

TRANSACTION: Final = "TransactWriteItems"
ATTEMPTS: Final = 3
"""Copies of a request that the client sends by itself."""


@pytest.fixture
def jobs(dynamo_store: DynamoScheduleStore) -> DynamoJobStore:
    return DynamoJobStore(dynamo_store.client)


async def _made(jobs: DynamoJobStore, number: int = 0) -> JobTransaction:
    change = created(new_job(job_id=JobId(f"job-{number}")))
    await jobs.change(change)
    return change


async def _put(jobs: DynamoJobStore, item: Item) -> None:
    await jobs._client.call("put_item", TableName=jobs._table, Item=item)


async def _read(jobs: DynamoJobStore, name: JobName) -> Item:
    key = job_codec.state_key(name)
    answer = await jobs._client.call("get_item", TableName=jobs._table, Key=key, ConsistentRead=True)
    item: Item = answer["Item"]
    return item


# --- lost answers


async def test_a_change_whose_answers_are_lost_is_unknown_and_the_same_again_is_done_in_any_company(
    jobs: DynamoJobStore, faults: Faults
) -> None:
    # In other company it has another token, so DynamoDB does not know it again: its state does.
    first, other = await _made(jobs), await _made(jobs, 1)
    armed = next_armed(first)
    faults.lose_answer(TRANSACTION, times=ATTEMPTS)
    with pytest.raises(StoreUnavailable) as caught:
        await jobs.change(armed)
    assert caught.value.outcome_unknown

    await asyncio.gather(jobs.change(armed), jobs.change(next_armed(other)))

    assert await jobs.read_state(first.name) == armed.state


async def test_a_change_whose_answers_are_lost_is_not_made_again_over_a_later_one(
    jobs: DynamoJobStore, faults: Faults
) -> None:
    first, other = await _made(jobs), await _made(jobs, 1)
    armed = next_armed(first)
    faults.lose_answer(TRANSACTION, times=ATTEMPTS)
    with pytest.raises(StoreUnavailable):
        await jobs.change(armed)
    later = JobTransaction(
        before_rev=armed.state.rev,
        state=replace(armed.state, rev=armed.state.rev + 1, write_id=step_context().write_id, status=JobStatus.PAUSED),
    )
    await jobs.change(later)

    told = await asyncio.gather(jobs.change(armed), jobs.change(next_armed(other)), return_exceptions=True)

    assert isinstance(told[0], StaleRevision)
    assert told[0].state == later.state
    assert told[1] is None


async def test_ends_of_runs_whose_answer_is_lost_are_put(jobs: DynamoJobStore, faults: Faults) -> None:
    end = delivery_of(await _made(jobs))
    faults.lose_answer("BatchWriteItem")
    faults.lose_answer("BatchExecuteStatement")

    await jobs.put_run_deliveries([end], keep_existing=False)
    await jobs.put_run_deliveries([replace(end, at_ms=1)], keep_existing=True)

    assert await jobs.read_run_delivery(end.name, end.position) == end


# --- shared requests


async def test_armings_of_one_moment_share_a_transaction(jobs: DynamoJobStore, faults: Faults) -> None:
    made = [await _made(jobs, number) for number in range(40)]
    faults.sent.clear()

    await asyncio.gather(*(jobs.change(next_armed(each)) for each in made))

    assert faults.sent[TRANSACTION] == 1


async def test_a_job_that_is_throttled_holds_up_no_other(jobs: DynamoJobStore, faults: Faults) -> None:
    made = [await _made(jobs, number) for number in range(10)]
    armed = [next_armed(each) for each in made]
    faults.throttle(str(made[3].name))

    told = await asyncio.gather(*map(jobs.change, armed), return_exceptions=True)

    assert [type(each) for each in told] == [StoreThrottled if n == 3 else type(None) for n in range(10)]
    faults.heal()
    states = await jobs.read_states([each.name for each in made])
    assert [states[each.name] for each in made] == [(made if n == 3 else armed)[n].state for n in range(10)]


async def test_an_end_of_a_run_that_is_throttled_holds_up_no_other(jobs: DynamoJobStore, faults: Faults) -> None:
    ends = [delivery_of(await _made(jobs, number)) for number in range(5)]
    faults.throttle(str(ends[2].name))

    with pytest.raises(StoreThrottled):
        await jobs.put_run_deliveries(ends, keep_existing=False)

    faults.heal()
    put = [await jobs.read_run_delivery(end.name, end.position) for end in ends]
    assert put == [None if n == 2 else end for n, end in enumerate(ends)]


# --- what is being written


async def test_a_settled_read_waits_for_no_transaction_and_says_that_one_is_being_applied(
    jobs: DynamoJobStore, faults: Faults
) -> None:
    first = await _made(jobs)
    faults.answer(
        "TransactGetItems", "TransactionCanceledException", CancellationReasons=[{"Code": "TransactionConflict"}]
    )

    with pytest.raises(TransactionConflict):
        await jobs.read_state(first.name, committed=True)

    assert await jobs.read_state(first.name, committed=True) == first.state


async def test_a_job_that_was_restored_while_it_is_forgotten_keeps_its_definition(
    jobs: DynamoJobStore, faults: Faults
) -> None:
    # By a node whose clock is behind, between the look and the transaction.
    first = await _made(jobs)
    restored = JobTransaction(before_rev=first.state.rev, state=replace(first.state, rev=first.state.rev + 1))
    goes_on = asyncio.Event()
    faults.hang(TRANSACTION, goes_on)
    faults.sent.clear()

    async def its_transaction_is_on_its_way() -> bool:
        return TRANSACTION in faults.sent

    async def restore() -> None:
        await until(its_transaction_is_on_its_way, "the job is about to be forgotten")
        await jobs.change(restored)
        goes_on.set()

    told, _ = await asyncio.gather(jobs.forget(first.state), restore(), return_exceptions=True)

    assert isinstance(told, ConditionFailed)
    assert await jobs.read_state(first.name) == restored.state
    assert await jobs.read_definition(first.name, 1) == first.definition


# --- items that another version, or a person, has written


@pytest.mark.parametrize(
    ("damage", "error"),
    [({"v": {"N": "2"}}, NewerFormat), ({"status": {"S": "odd"}}, Unreadable)],
    ids=["newer", "damaged"],
)
async def test_a_state_that_cannot_be_read_is_never_written_over_and_hides_no_other(
    jobs: DynamoJobStore, damage: dict[str, Any], error: type[Exception]
) -> None:
    first, other = await _made(jobs), await _made(jobs, 1)
    # Its revision is another one, as after any write of another version.
    item = await _read(jobs, first.name) | {"rev": {"N": str(first.state.rev + 1)}} | damage
    await _put(jobs, item)

    with pytest.raises(error):
        await jobs.read_state(first.name)
    with pytest.raises(error):
        await jobs.change(next_armed(first))

    assert await _read(jobs, first.name) == item
    assert await jobs.read_states([first.name, other.name]) == {other.name: other.state}
    assert (await jobs.list_jobs(CLIENT, after=None, jobs_max=10)).names == (first.name, other.name)


async def test_a_usual_state_costs_one_write_unit(jobs: DynamoJobStore) -> None:
    # It is written by each run: DynamoDB bills it by the KB, names of attributes included.
    first = created(new_job(job_id=JobId("nightly-report-of-the-accounting-department")))
    state: JobState = replace(
        first.state,
        counts=replace(first.state.counts, delivered=10**6, failed=10**4, skipped=10**5, of_trigger=10**6),
        tz_release="2026a",
        pause_reason="paused by hand until the migration is over",
    )
    assert _item_bytes(job_codec.state_item(state)) <= 1_024


def _item_bytes(item: Item) -> int:
    """The size of an item by DynamoDB's rules."""
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def _value_bytes(value: dict[str, Any]) -> int:
    ((kind, inner),) = value.items()
    match kind:
        case "S":
            return len(inner.encode())
        case "N":
            return len(inner) // 2 + 2
        case "M":
            return 3 + len(inner) + _item_bytes(inner)
        case "L":
            return 3 + len(inner) + sum(map(_value_bytes, inner))
        case _:
            return 1
