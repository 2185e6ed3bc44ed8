"""Named calendars: what requests about them, and about jobs that name them, do and promise."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from clockwork.domain.jobs.calendar import CALENDARS_OF_CLIENT_MAX, CalendarName, NewCalendar
from clockwork.domain.jobs.job import JobStatus, NewJob
from clockwork.domain.rights import ANYONE
from clockwork.domain.run import JobId
from clockwork.domain.schedule import ClientId
from clockwork.domain.triggers.exclusions import Exclusion, OnExcluded, exclusion
from clockwork.domain.triggers.preview import Preview
from clockwork.domain.triggers.trigger import Trigger, cron
from clockwork.errors import InvalidInput, StoreUnavailable
from clockwork.requests.jobs.calendars import follow_calendars_of
from clockwork.requests.jobs.results import (
    CalendarDeleted,
    CalendarInUse,
    CalendarNotFound,
    CalendarPut,
    CalendarVersionDiffers,
    JobAlreadyCreated,
    JobCreated,
    JobUnchanged,
    TooManyCalendars,
)
from clockwork.requests.results import VersionCondition
from tests.support.builders import CLIENT
from tests.support.jobs import NOW_MS, new_job
from tests.support.virtual_time import in_virtual_time
from tests.unit.job_desk import NAME, JobDesk, done, other_name

DAY_MS: Final = 86_400_000
KEY: Final = CalendarName(CLIENT, "de")
NOTHING: Final = exclusion()
TODAY: Final = datetime.fromtimestamp(NOW_MS / 1_000, UTC)
DAILY: Final = f"{TODAY.second} {TODAY.minute} {TODAY.hour} * * ?"


def on(days: int) -> str:
    """A date, so many days from now."""
    return datetime.fromtimestamp(NOW_MS / 1_000 + days * DAY_MS / 1_000, UTC).date().isoformat()


def daily(calendar: str = "de", **fields: Any) -> NewJob:
    """A job that fires at this time of each day, but for a calendar's."""
    rule = cron(DAILY, exclude=exclusion(calendar=calendar), on_excluded=OnExcluded.SKIP)
    return new_job(Trigger(rule=rule), **fields)


async def put(desk: JobDesk, *dates: str, name: str = "de", of: Exclusion | None = None, **how: Any) -> CalendarPut:
    result = await try_put(desk, *dates, name=name, of=of, **how)
    assert isinstance(result, CalendarPut), result
    return result


async def try_put(
    desk: JobDesk, *dates: str, name: str = "de", of: Exclusion | None = None, text: str | None = None, **how: Any
) -> object:
    wanted = of if of is not None else exclusion(dates=dates)
    new = NewCalendar(name=name, exclusion=wanted, description=text)
    return await desk.jobs.put_calendar(ANYONE, CLIENT, new, **how)


async def remove(desk: JobDesk, **how: Any) -> object:
    return await desk.jobs.delete_calendar(ANYONE, KEY, **how)


def due(desk: JobDesk) -> Sequence[float]:
    """The due times of all rows, in days from the beginning."""
    return [(row.due_ms - NOW_MS) / DAY_MS for row in desk.rows()]


# --- a job that names a calendar


async def test_a_job_is_made_with_the_calendar_as_it_is() -> None:
    desk = JobDesk()
    await put(desk, on(1), on(2))
    view = await desk.created(daily())

    assert due(desk) == [3]
    assert view.state.calendars == (("de", exclusion(dates=[on(1), on(2)]).digest),)


async def test_a_calendar_that_is_not_there_is_named() -> None:
    desk = JobDesk()
    with pytest.raises(InvalidInput) as of_create:
        await desk.create(daily("fr"))
    await desk.created()
    with pytest.raises(InvalidInput) as of_put:
        await desk.put(trigger=daily("fr").trigger)

    for wrong in (of_create, of_put):
        assert [(each.field, each.message) for each in wrong.value.errors] == [
            ("trigger.exclude.calendar", "fr is no calendar of this client")
        ]


async def test_a_calendar_of_another_client_is_none_of_this_ones() -> None:
    desk = JobDesk()
    new = NewCalendar(name="de", exclusion=NOTHING, description=None)
    await desk.jobs.put_calendar(ANYONE, ClientId("other"), new)
    with pytest.raises(InvalidInput):
        await desk.create(daily())


async def test_a_job_that_its_calendar_would_never_let_fire_is_refused() -> None:
    desk = JobDesk()
    await put(desk, of=exclusion(cron=[f"* {TODAY.hour} * * *"]))
    with pytest.raises(InvalidInput) as wrong:
        await desk.create(daily())

    assert [each.field for each in wrong.value.errors] == ["trigger.exclude"]


async def test_the_same_create_again_is_the_same_job_whatever_became_of_its_calendar() -> None:
    desk = JobDesk()
    await put(desk, on(1))
    await desk.created(daily())
    desk.engine.jobs.tables.calendars.clear()

    assert isinstance(await desk.create(daily()), JobAlreadyCreated)


async def test_a_job_that_is_made_while_its_calendar_changes_has_the_new_one() -> None:
    desk = JobDesk()
    await put(desk, on(1))

    async def change() -> None:
        await put(desk, on(1), on(2), on(3))

    desk.before_change(change)
    assert isinstance(await desk.create(daily()), JobCreated)

    assert due(desk) == [4]


async def test_a_put_of_other_fields_leaves_calendar_and_time_as_they_are() -> None:
    desk = JobDesk()
    await put(desk, on(1))
    view = await desk.created(daily())
    desk.engine.jobs.tables.calendars.clear()
    changed = done(await desk.put(description="nightly"))

    assert changed.job.trigger == view.job.trigger
    assert due(desk) == [2]


async def test_a_preview_has_the_calendars_of_its_client() -> None:
    desk = JobDesk()
    await put(desk, on(1))
    trigger = daily().trigger
    assert trigger is not None
    asked = Preview(trigger=trigger, from_ms=NOW_MS + 1, count=1, jitter_seed=None, client_id=CLIENT)
    resolved = await desk.jobs.resolve(ANYONE, asked)

    assert [(each.at_ms - NOW_MS) / DAY_MS for each in resolved.times()] == [2]


async def test_nothing_that_fires_reads_a_calendar() -> None:
    desk = JobDesk()
    await put(desk, on(1), on(3))
    await desk.created(daily())
    desk.engine.jobs.tables.calendars.clear()

    async def away(key: CalendarName) -> None:
        raise StoreUnavailable("no answer")

    setattr(desk.engine.jobs, "read_calendar", away)  # noqa: B010  # a method, which types do not let us assign
    await desk.deliver_at(NOW_MS + 2 * DAY_MS)

    assert due(desk) == [4]


# --- a change of a calendar


async def test_each_job_that_names_a_calendar_follows_its_change() -> None:
    desk = JobDesk()
    first = await put(desk, on(1))
    await desk.created(daily())
    await desk.created(daily(job_id=JobId("paused")))
    await desk.jobs.pause(ANYONE, other_name("paused"), None)
    await desk.created(new_job(job_id=JobId("other"), trigger=Trigger(rule=cron(DAILY))))
    second = await put(desk, on(2), on(1), on(3))

    assert (first.created, second.created, second.calendar.version) == (True, False, 2)
    assert (second.behind, second.more_behind) == ((), False)
    assert due(desk) == [1, 4]
    for job_id, version in (("nightly", 2), ("paused", 2), ("other", 1)):
        assert (await desk.state(other_name(job_id))).version == version


async def test_a_run_that_a_calendar_no_longer_excludes_comes_earlier_and_never_at_once() -> None:
    desk = JobDesk()
    await put(desk, on(1), on(2))
    await desk.created(daily())
    desk.clock.set_ms(NOW_MS + DAY_MS + 1)
    await put(desk)

    assert due(desk) == [2]


async def test_a_row_that_stays_where_it_is_stays_as_it_is() -> None:
    desk = JobDesk()
    await put(desk, on(5))
    await desk.created(daily())
    (before,) = desk.rows()
    await put(desk, on(6))

    assert desk.rows() == [before]
    assert (await desk.state()).version == 2


async def test_a_run_that_is_in_flight_is_told_and_no_other() -> None:
    desk = JobDesk()
    await put(desk, on(3))
    await desk.created(daily())
    await desk.in_flight()

    assert (await put(desk, on(1))).behind == (NAME.job_id,)
    assert due(desk) == [1]
    # Still told when the same is asked again, and when nothing is left to be changed.
    assert (await put(desk, on(1))).behind == (NAME.job_id,)
    await desk.deliver_at(NOW_MS + DAY_MS)
    assert (await put(desk, on(1))).behind == ()
    assert due(desk) == [2]


async def test_the_same_calendar_again_changes_nothing() -> None:
    desk = JobDesk()
    first = await put(desk, on(1), on(2))
    await desk.created(daily())
    again = await put(desk, on(2), on(1))

    assert again.calendar == first.calendar
    assert (await desk.state()).version == 1
    assert (await put(desk, on(2), on(1), text="of two days")).calendar.version == 2
    assert (await desk.state()).version == 1


async def test_a_calendar_that_leaves_no_day_is_refused() -> None:
    desk = JobDesk()
    for each in (exclusion(weekdays=["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]), exclusion(cron=["* * * * *"])):
        with pytest.raises(InvalidInput) as wrong:
            await try_put(desk, of=each)
        assert [error.field for error in wrong.value.errors] == ["body"]


async def test_a_job_that_a_calendar_keeps_from_firing_waits_for_another_and_has_not_ended() -> None:
    desk = JobDesk()
    await put(desk)
    await desk.created(daily())
    await put(desk, of=exclusion(cron=[f"* {TODAY.hour} * * *"]))
    kept = await desk.state()
    await put(desk)

    assert (kept.status, kept.armed) == (JobStatus.ACTIVE, None)
    assert due(desk) == [1]


async def test_a_job_with_as_many_runs_as_it_may_have_ends_by_any_calendar() -> None:
    desk = JobDesk()
    await put(desk, on(5))
    new = daily()
    assert new.trigger is not None
    await desk.created(replace(new, trigger=replace(new.trigger, runs_max=1)))
    await desk.deliver_at(NOW_MS + DAY_MS)

    assert (await desk.state()).status is JobStatus.ENDED


async def test_a_change_is_conditional_on_the_version() -> None:
    desk = JobDesk()
    missing = await try_put(desk, on(1), must_exist=True)
    assert isinstance(missing, CalendarVersionDiffers)
    assert missing.calendar is None
    first = VersionCondition(any_of=frozenset({1}))
    assert isinstance(await try_put(desk, condition=first), CalendarVersionDiffers)
    await put(desk, on(1))
    assert (await put(desk, on(2), condition=first)).calendar.version == 2
    # The same request again: its answer was lost.
    assert (await put(desk, on(2), condition=first)).calendar.version == 2
    other = await try_put(desk, on(3), condition=first)

    assert isinstance(other, CalendarVersionDiffers)
    assert other.calendar is not None
    assert other.calendar.version == 2
    assert isinstance(await try_put(desk, on(3), condition=VersionCondition(none_of=None)), CalendarVersionDiffers)


async def test_a_client_has_a_bounded_number_of_calendars() -> None:
    desk = JobDesk()
    for number in range(CALENDARS_OF_CLIENT_MAX):
        await put(desk, name=f"c{number}")

    assert isinstance(await try_put(desk, name="one-more"), TooManyCalendars)
    assert (await put(desk, on(1), name="c0")).calendar.version == 2


@in_virtual_time
async def test_jobs_that_cannot_be_reached_are_told_and_the_calendar_is_stored() -> None:
    desk = JobDesk(request_timeout_ms=500)
    await put(desk)
    await desk.created(daily())
    real = desk.engine.jobs.change

    async def away(change: Any) -> None:
        raise StoreUnavailable("no answer")

    setattr(desk.engine.jobs, "change", away)  # noqa: B010  # a method, which types do not let us assign
    result = await put(desk, on(1))
    assert (result.behind, result.more_behind) == ((NAME.job_id,), False)
    assert due(desk) == [1]

    setattr(desk.engine.jobs, "change", real)  # noqa: B010
    assert await follow_calendars_of(desk.engine.requests.context, NAME)
    assert not await follow_calendars_of(desk.engine.requests.context, NAME)
    assert due(desk) == [2]


@in_virtual_time
async def test_if_the_jobs_cannot_be_listed_the_answer_names_none_and_says_that_there_are_others() -> None:
    desk = JobDesk(request_timeout_ms=500)
    await put(desk)
    await desk.created(daily())

    async def away(*args: Any, **how: Any) -> None:
        raise StoreUnavailable("no answer")

    setattr(desk.engine.jobs, "list_jobs_of_calendar", away)  # noqa: B010
    result = await put(desk, on(1))

    assert (result.behind, result.more_behind, result.calendar.version) == ((), True, 2)


async def test_a_job_that_is_restored_goes_by_the_calendar_as_it_is_then() -> None:
    desk = JobDesk()
    await put(desk)
    await desk.created(daily())
    await desk.delete()
    assert (await put(desk, on(1))).behind == ()

    async def change() -> None:
        await put(desk, on(1), on(2))

    desk.before_change(change)
    restored = done(await desk.restore())
    assert (restored.version, due(desk)) == (2, [3])

    await desk.delete()
    desk.engine.jobs.tables.calendars.clear()
    again = done(await desk.restore())
    assert (again.version, due(desk)) == (2, [3])


# --- deletes


async def test_a_calendar_is_deleted_only_if_no_job_goes_by_it() -> None:
    desk = JobDesk()
    assert isinstance(await remove(desk), CalendarNotFound)
    await put(desk, on(1))
    await desk.created(daily())
    await desk.created(daily(job_id=JobId("paused")))
    await desk.jobs.pause(ANYONE, other_name("paused"), None)
    refused = await remove(desk)
    assert isinstance(refused, CalendarInUse)
    assert refused.jobs == ("nightly", "paused")

    await desk.put(trigger=Trigger(rule=cron(DAILY)))
    await desk.jobs.delete(ANYONE, other_name("paused"))

    assert isinstance(await remove(desk, condition=VersionCondition(any_of=frozenset({2}))), CalendarVersionDiffers)
    assert isinstance(await remove(desk), CalendarDeleted)
    assert isinstance(await remove(desk), CalendarNotFound)


async def test_a_calendar_that_a_job_takes_up_while_it_is_deleted_is_put_back() -> None:
    desk = JobDesk()
    await put(desk, on(1))
    real = desk.engine.jobs.delete_calendar

    async def late(calendar: Any) -> None:
        setattr(desk.engine.jobs, "delete_calendar", real)  # noqa: B010
        await desk.created(daily())
        await real(calendar)

    setattr(desk.engine.jobs, "delete_calendar", late)  # noqa: B010
    refused = await remove(desk)

    assert isinstance(refused, CalendarInUse)
    assert refused.jobs == (NAME.job_id,)
    there = await desk.jobs.find_calendar(ANYONE, KEY)
    assert there is not None
    assert (there.version, there.exclusion) == (1, exclusion(dates=[on(1)]))


@pytest.mark.parametrize("applied", [True, False], ids=["applied", "not applied"])
@in_virtual_time
async def test_a_lost_answer_is_settled_by_the_same_request(applied: bool) -> None:
    desk = JobDesk()
    for operation, ask in (("put_calendar", put), ("delete_calendar", remove)):
        real = getattr(desk.engine.jobs, operation)

        async def once(*args: Any, real: Any = real, operation: str = operation, **how: Any) -> None:
            setattr(desk.engine.jobs, operation, real)
            if applied:
                await real(*args, **how)
            raise StoreUnavailable("no answer", outcome_unknown=True)

        setattr(desk.engine.jobs, operation, once)
        result = await ask(desk)
        assert isinstance(result, CalendarPut | CalendarDeleted)

    assert await desk.jobs.find_calendar(ANYONE, KEY) is None


async def test_calendars_are_listed_in_pages() -> None:
    desk = JobDesk()
    for name in ("c", "a", "b"):
        await put(desk, name=name)
    first = await desk.jobs.list_calendars(ANYONE, CLIENT, after=None, limit=2)
    rest = await desk.jobs.list_calendars(ANYONE, CLIENT, after=first.next_after, limit=2)

    assert ([each.name for each in first.calendars], first.next_after) == (["a", "b"], "b")
    assert ([each.name for each in rest.calendars], rest.next_after) == (["c"], None)


async def test_a_put_of_the_same_trigger_changes_nothing_while_the_calendar_is_the_same() -> None:
    desk = JobDesk()
    await put(desk, on(1))
    await desk.created(daily())
    again = await desk.put(trigger=daily().trigger)

    assert isinstance(again, JobUnchanged)
