"""`CalendarStore`, and the calendars of jobs in their changes."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from clockwork.domain.jobs.calendar import Calendar, CalendarName
from clockwork.domain.jobs.job import JobName, JobStatus, JobTransaction
from clockwork.domain.jobs.steps import delete, follow_calendars, update
from clockwork.domain.run import JobId
from clockwork.domain.schedule import ClientId, RequestId
from clockwork.domain.triggers.exclusions import Exclusion, exclusion
from clockwork.domain.triggers.trigger import AnyOf, Trigger, cron
from clockwork.errors import ConditionFailed, TransactionConflict
from clockwork.ports.jobs import JobStore, StaleRevision
from tests.support.builders import CLIENT
from tests.support.jobs import NOW_MS, created, definition, new_job, step_context

HOLIDAYS = exclusion(dates=["2026-12-24"], annual=["12-25", "02-29"], weekdays=["SUN"], cron=["* * * * 5#3"])
CLOSED = exclusion(cron=["* 0-7 * * *"])
NAME = CalendarName(CLIENT, "de")
ROUNDS = 25


def calendar(name: str = "de", of: Exclusion = HOLIDAYS, **fields: Any) -> Calendar:
    defaults: dict[str, Any] = {
        "version": 1,
        "created_at_ms": NOW_MS,
        "updated_at_ms": NOW_MS,
        "write_id": RequestId(name),
    }
    return Calendar(client_id=CLIENT, name=name, exclusion=of, **{**defaults, **fields})


def daily(**calendars: Exclusion) -> Trigger:
    """Fires at one, by all of these calendars."""
    rules = [cron("0 1 * * *", exclude=exclusion(calendar=name, named=of)) for name, of in calendars.items()]
    return Trigger(rule=rules[0] if len(rules) == 1 else AnyOf(of=tuple(rules)))


async def names_beside(jobs: JobStore, name: str = "de", **where: Any) -> list[str]:
    page = await jobs.list_jobs_of_calendar(CalendarName(CLIENT, name), **{"after": None, "jobs_max": 10, **where})
    return [each.job_id for each in page.names]


# --- a calendar


async def test_a_calendar_is_read_as_it_was_put(jobs: JobStore) -> None:
    wanted = calendar(description="Feiertage", changed_by="ops")
    await jobs.put_calendar(wanted, before=None)

    assert await jobs.read_calendar(NAME) == wanted
    assert await jobs.read_calendar(CalendarName(CLIENT, "at")) is None
    assert await jobs.read_calendar(CalendarName(ClientId("other"), "de")) is None


async def test_a_calendar_is_put_over_the_one_that_was_read_and_over_no_other(jobs: JobStore) -> None:
    first = calendar()
    second = replace(first, version=2, exclusion=CLOSED, write_id=RequestId("second"))
    await jobs.put_calendar(first, before=None)
    await jobs.put_calendar(second, before=first)
    for late, before in (
        (replace(first, write_id=RequestId("x")), None),
        (replace(second, write_id=RequestId("y")), first),
    ):
        with pytest.raises(ConditionFailed):
            await jobs.put_calendar(late, before=before)

    assert await jobs.read_calendar(NAME) == second


async def test_the_same_put_of_a_calendar_again_is_the_same(jobs: JobStore) -> None:
    first = calendar()
    second = replace(first, version=2, write_id=RequestId("second"))
    await jobs.put_calendar(first, before=None)
    await jobs.put_calendar(first, before=None)
    await jobs.put_calendar(second, before=first)
    await jobs.put_calendar(second, before=first)

    assert await jobs.read_calendar(NAME) == second


async def test_only_the_calendar_that_was_read_is_deleted(jobs: JobStore) -> None:
    first = calendar()
    second = replace(first, version=2, write_id=RequestId("second"))
    await jobs.put_calendar(first, before=None)
    await jobs.put_calendar(second, before=first)
    with pytest.raises(ConditionFailed):
        await jobs.delete_calendar(first)
    assert await jobs.read_calendar(NAME) == second

    await jobs.delete_calendar(second)
    await jobs.delete_calendar(second)

    assert await jobs.read_calendar(NAME) is None


async def test_calendars_of_a_client_are_listed_by_their_names(jobs: JobStore) -> None:
    for name in ("fr", "de", "at", "de-by"):
        await jobs.put_calendar(calendar(name), before=None)
    await jobs.put_calendar(replace(calendar("it"), client_id=ClientId(f"{CLIENT}.b")), before=None)

    async def listed(after: str | None, most: int) -> list[str]:
        return [each.name for each in await jobs.list_calendars(CLIENT, after=after, calendars_max=most)]

    assert await listed(None, 10) == ["at", "de", "de-by", "fr"]
    assert await listed("at", 2) == ["de", "de-by"]
    assert await listed("fr", 2) == []


# --- jobs that name calendars


async def test_a_job_keeps_the_calendars_that_it_was_resolved_with_and_is_noted_beside_them(jobs: JobStore) -> None:
    await jobs.put_calendar(calendar("de"), before=None)
    await jobs.put_calendar(calendar("closed", CLOSED), before=None)
    change = created(new_job(daily(de=HOLIDAYS, closed=CLOSED)))
    await jobs.change(change)

    assert await jobs.read_definition(change.name, 1) == change.definition
    assert await jobs.read_state(change.name) == change.state
    assert change.state.calendars == (("closed", CLOSED.digest), ("de", HOLIDAYS.digest))
    assert await names_beside(jobs) == [change.name.job_id]
    assert await names_beside(jobs, "closed") == [change.name.job_id]
    assert await jobs.list_jobs(CLIENT, after=None, jobs_max=10) is not None


@pytest.mark.parametrize("there", [None, CLOSED], ids=["deleted", "changed"])
async def test_a_job_is_not_stored_with_a_calendar_that_is_another_by_now(
    jobs: JobStore, there: Exclusion | None
) -> None:
    if there is not None:
        await jobs.put_calendar(calendar("de", there), before=None)
    change = created(new_job(daily(de=HOLIDAYS)))
    with pytest.raises(ConditionFailed) as failure:
        await jobs.change(change)

    assert not isinstance(failure.value, StaleRevision)
    assert await jobs.read_state(change.name) is None


async def test_a_look_at_the_notes_behind_a_change_finds_every_job_that_has_the_content_of_before(
    jobs: JobStore,
) -> None:
    present = calendar("de")
    await jobs.put_calendar(present, before=None)

    async def made(change: JobTransaction) -> bool:
        try:
            await jobs.change(change)
        except (ConditionFailed, TransactionConflict):
            return False
        return True

    async def changed(wanted: Calendar, before: Calendar, job: JobName) -> tuple[bool, bool]:
        await jobs.put_calendar(wanted, before=before)
        noted = (await jobs.list_jobs_of_calendar(NAME, after=None, jobs_max=100)).names
        try:
            there = await jobs.read_state(job, committed=True) is not None
        except TransactionConflict:
            there = True
        return job in noted, there

    for number in range(ROUNDS):
        change = created(new_job(daily(de=present.exclusion), job_id=JobId(f"job-{number}")))
        content = exclusion(dates=[f"2030-01-{number + 1:02d}"])
        wanted = replace(present, version=present.version + 1, exclusion=content, write_id=RequestId(f"put-{number}"))
        was_made, found = await asyncio.gather(made(change), changed(wanted, present, change.name))
        assert not was_made or found == (True, True)
        present = wanted


async def test_a_put_moves_the_notes_of_a_job(jobs: JobStore) -> None:
    await jobs.put_calendar(calendar("de"), before=None)
    await jobs.put_calendar(calendar("at"), before=None)
    first = created(new_job(daily(de=HOLIDAYS)))
    await jobs.change(first)
    job = definition(first)
    await jobs.change(update(first.state, job, replace(job, trigger=daily(at=HOLIDAYS)), [], step_context()))

    assert await names_beside(jobs) == []
    assert await names_beside(jobs, "at") == [first.name.job_id]


async def test_a_put_of_other_fields_is_made_whatever_has_become_of_the_calendar(jobs: JobStore) -> None:
    await jobs.put_calendar(calendar("de"), before=None)
    first = created(new_job(daily(de=HOLIDAYS)))
    await jobs.change(first)
    await jobs.delete_calendar(calendar("de"))
    job = definition(first)
    change = update(first.state, job, replace(job, description="else"), [], step_context())
    await jobs.change(change)

    assert await jobs.read_state(first.name) == change.state
    assert await names_beside(jobs) == [first.name.job_id]


async def test_a_job_follows_its_calendar_on_the_revision_alone(jobs: JobStore) -> None:
    await jobs.put_calendar(calendar("de"), before=None)
    first = created(new_job(daily(de=HOLIDAYS)))
    await jobs.change(first)
    wanted = replace(definition(first), trigger=daily(de=CLOSED))
    change = follow_calendars(first.state, wanted, [], step_context())
    await jobs.change(change)

    assert await jobs.read_state(first.name) == change.state
    assert change.state.calendars == (("de", CLOSED.digest),)
    assert await jobs.read_definition(first.name, 2) == change.definition


async def test_a_forgotten_job_is_noted_nowhere(jobs: JobStore) -> None:
    await jobs.put_calendar(calendar("de"), before=None)
    first = created(new_job(daily(de=HOLIDAYS)))
    await jobs.change(first)
    gone = delete(first.state, [], step_context())
    await jobs.change(gone)
    assert gone.state.status is JobStatus.DELETED
    assert await names_beside(jobs) == [first.name.job_id]

    await jobs.forget(gone.state)

    assert await names_beside(jobs) == []


async def test_jobs_of_a_calendar_are_listed_in_pages_by_their_ids(jobs: JobStore) -> None:
    for name in ("de", "de-by"):
        await jobs.put_calendar(calendar(name), before=None)
    for job_id in ("b", "a/1", "ä", "c"):
        await jobs.change(created(new_job(daily(de=HOLIDAYS), job_id=JobId(job_id))))
    await jobs.change(created(new_job(daily(**{"de-by": HOLIDAYS}), job_id=JobId("other"))))

    first = await jobs.list_jobs_of_calendar(NAME, after=None, jobs_max=3)
    assert first.names == tuple(JobName(CLIENT, JobId(job_id)) for job_id in ("a/1", "b", "c"))
    assert first.next_after is not None
    assert await names_beside(jobs, after=first.next_after.job_id) == ["ä"]
    assert await names_beside(jobs, "de-by") == ["other"]
