"""Requests about jobs, on the twins; the race of each is told where it is played."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from clockwork.domain.jobs.job import (
    MANUAL_RUNS_MAX,
    BackfillRequest,
    CompletionPolicy,
    CompletionReport,
    JobContent,
    JobStatus,
    JobTransaction,
    RunNow,
    SkipReason,
)
from clockwork.domain.jobs.next_occurrence import Misfire, MisfirePolicy, OverlapPolicy
from clockwork.domain.jobs.steps import run_delivery_of
from clockwork.domain.rights import ANYONE, Principal, Right, names_of
from clockwork.domain.run import JobId, RunId, RunKind
from clockwork.domain.schedule import RequestId, Row, RowName
from clockwork.domain.sharding import ShardId
from clockwork.domain.triggers.exclusions import exclusion
from clockwork.domain.triggers.trigger import FixedRate, Trigger, cron
from clockwork.domain.wakeup import NewlyDue, WakeUp, Wanted
from clockwork.errors import (
    ClockUntrusted,
    FieldError,
    Forbidden,
    InvalidInput,
    JobsOff,
    StoreUnavailable,
    TooManyJobs,
    TransactionConflict,
    Unavailable,
)
from clockwork.ports.telemetry import NoTelemetry
from clockwork.requests.context import RequestContext
from clockwork.requests.hold import Held
from clockwork.requests.jobs import take
from clockwork.requests.jobs.listing import JobQuery
from clockwork.requests.jobs.log import LogQuery
from clockwork.requests.jobs.results import (
    JobAlreadyCreated,
    JobChanged,
    JobCreated,
    JobNotFound,
    JobReason,
    JobRefused,
    JobsPage,
    JobUnchanged,
    JobVersionDiffers,
    RunAccepted,
    RunAlreadyAccepted,
    RunsPage,
    RunStatus,
    RunView,
    VersionsPage,
)
from clockwork.requests.results import VersionCondition
from tests.support import builders
from tests.support.jobs import EVERY_MINUTE, NOW_MS, delivered, new_job
from tests.unit.job_desk import MINUTE_MS, NAME, JobDesk, done, other_name, to

FIRST_MS = NOW_MS + MINUTE_MS
EVERY_HOUR = Trigger(rule=FixedRate(every_ms=60 * MINUTE_MS, anchor_ms=NOW_MS))
TWICE = Trigger(rule=FixedRate(every_ms=MINUTE_MS, anchor_ms=NOW_MS), runs_max=2)


# --- create


async def test_a_job_is_durable_with_its_first_run_armed() -> None:
    desk = JobDesk()
    view = await desk.created()
    (row,) = desk.rows()
    assert (row.due_ms, row.run.run_id if row.run else None) == (FIRST_MS, RunId(f"s{FIRST_MS}"))
    assert view.next_run is not None
    assert view.next_run.position == row.position


async def test_the_same_create_again_is_the_same_job_whatever_became_of_it() -> None:
    desk = JobDesk()
    await desk.created()
    await desk.put(description="changed")
    await desk.delete()
    again = await desk.create()
    assert isinstance(again, JobAlreadyCreated)
    assert (again.view.state.status, again.view.version) == (JobStatus.DELETED, 2)
    assert desk.rows() == []


async def test_another_create_under_the_name_of_a_job_is_refused_with_what_is_there() -> None:
    desk = JobDesk()
    await desk.created()
    other = await desk.create(new_job(digest="other", description="other"))
    assert isinstance(other, JobRefused)
    assert (other.reason, other.view.job.description) == (JobReason.EXISTS, None)


async def test_the_name_of_a_deleted_job_is_free_for_another_and_versions_go_on() -> None:
    desk = JobDesk()
    await desk.created()
    await desk.delete()
    view = await desk.created(new_job(digest="other"))
    assert (view.version, len(desk.rows())) == (2, 1)


async def test_the_name_of_a_job_that_has_ended_is_taken_until_its_retention_is_over() -> None:
    desk = JobDesk()
    await desk.created(new_job(TWICE))
    for number in (1, 2):
        await desk.deliver_at(NOW_MS + number * MINUTE_MS + 5)
    assert (await desk.state()).status is JobStatus.ENDED
    refused = await desk.create(new_job(digest="other"))
    assert isinstance(refused, JobRefused)
    assert refused.view.state.status is JobStatus.ENDED
    desk.clock.advance_ms(desk.engine.context.settings.retention_ms + MINUTE_MS)
    assert await desk.jobs.find(ANYONE, NAME) is None
    assert (await desk.created(new_job(digest="other"))).version == 2


async def test_a_create_whose_answer_was_lost_is_recognised_as_made() -> None:
    desk = JobDesk()
    desk.lose_answer()
    assert isinstance(await desk.create(), JobCreated)
    assert len(desk.rows()) == 1


async def test_a_create_that_was_not_applied_is_made_by_the_next_try() -> None:
    desk = JobDesk()
    desk.lose_answer(applied=False)
    assert isinstance(await desk.create(), JobCreated)
    assert len(desk.rows()) == 1


async def test_of_two_creates_at_once_one_is_made() -> None:
    desk = JobDesk()

    async def other() -> None:
        assert isinstance(await desk.create(new_job(digest="other")), JobCreated)

    desk.before_change(other)
    refused = await desk.create()
    assert isinstance(refused, JobRefused)
    assert len(desk.rows()) == 1


async def test_a_repeat_is_recognised_though_its_topic_is_gone_and_the_clock_is_not_trusted() -> None:
    desk = JobDesk()
    await desk.created()
    desk.engine.kafka.delete_topic(builders.TOPIC)
    desk.engine.trust.is_trusted = False
    assert isinstance(await desk.create(), JobAlreadyCreated)


async def test_a_create_for_a_topic_that_does_not_exist_names_the_field() -> None:
    desk = JobDesk()
    with pytest.raises(InvalidInput) as caught:
        await desk.create(new_job(topic="none"))
    assert [each.field for each in caught.value.errors] == ["delivery.topic"]


async def test_nothing_is_accepted_by_a_clock_that_is_not_trusted() -> None:
    desk = JobDesk()
    desk.engine.trust.is_trusted = False
    with pytest.raises(ClockUntrusted):
        await desk.create()
    assert desk.rows() == []


async def test_the_owner_of_a_first_run_that_is_due_soon_is_woken_also_by_a_repeat() -> None:
    desk = JobDesk()
    soon = Trigger(rule=FixedRate(every_ms=MINUTE_MS, anchor_ms=NOW_MS + 1_000))
    await desk.created(new_job(soon))
    await desk.create(new_job(soon))
    assert [wakeup for _, wakeup in desk.engine.woken] == [NewlyDue(NOW_MS + 1_000)] * 2


async def test_a_client_with_as_many_jobs_as_it_may_have_creates_no_more_and_repeats_are_answered() -> None:
    desk = JobDesk()
    settings = replace(desk.engine.context.settings, client_jobs_max=2)
    object.__setattr__(desk.engine.context, "settings", settings)
    await desk.created()
    await desk.created(new_job(job_id="b", digest="b"))
    with pytest.raises(TooManyJobs):
        await desk.create(new_job(job_id="c", digest="c"))
    assert isinstance(await desk.create(), JobAlreadyCreated)


# --- PUT


async def test_a_change_of_another_field_keeps_the_armed_time_and_takes_effect_with_the_next_run() -> None:
    desk = JobDesk()
    before = (await desk.created()).next_run
    view = done(await desk.put(description="changed", task_data=b"new"))
    (row,) = desk.rows()
    assert before is not None
    assert view.next_run is not None
    assert (view.next_run.scheduled_at_ms, view.version, view.in_flight) == (before.scheduled_at_ms, 2, ())
    assert (row.schedule.task_data, row.position != before.position) == (b"new", True)


async def test_another_trigger_counts_from_now_on_and_never_fires_at_once() -> None:
    desk = JobDesk()
    await desk.created()
    desk.clock.advance_ms(1_000)
    view = done(await desk.put(trigger=EVERY_HOUR))
    assert view.next_run is not None
    assert view.next_run.scheduled_at_ms == NOW_MS + 60 * MINUTE_MS
    assert len(desk.rows()) == 1


async def test_a_change_that_changes_nothing_writes_nothing() -> None:
    desk = JobDesk()
    await desk.created()
    rev = (await desk.state()).rev
    result = await desk.put(description=None)
    assert isinstance(result, JobUnchanged)
    assert (result.view.version, (await desk.state()).rev) == (1, rev)


async def test_a_change_that_comes_too_late_for_the_armed_run_says_so_and_holds_for_the_next() -> None:
    desk = JobDesk()
    first = (await desk.created()).next_run
    await desk.in_flight()
    view = done(await desk.put(task_data=b"new"))
    assert view.in_flight == (first,)
    # It is delivered as it was before; the next one, which follows it, as it is now.
    await desk.deliver_at(FIRST_MS + 5)
    assert [record.value for record in desk.engine.kafka.read_committed(builders.TOPIC)] == [b'{"report":1}']
    (row,) = desk.rows()
    assert (row.due_ms, row.schedule.task_data) == (FIRST_MS + MINUTE_MS, b"new")


async def test_the_same_change_again_still_names_the_run_that_is_in_flight() -> None:
    desk = JobDesk()
    first = (await desk.created()).next_run
    await desk.in_flight()
    await desk.put(task_data=b"new")
    again = await desk.put(task_data=b"new")
    assert isinstance(again, JobUnchanged)
    assert (again.view.in_flight) == ((first,))


async def test_a_change_begins_again_when_a_run_has_ended_meanwhile() -> None:
    # Between the request's read and its change, the armed run is delivered and the next one armed: the hold is in vain, and
    # the revision is another one.
    desk = JobDesk()
    await desk.created()
    desk.before_change(lambda: desk.deliver_at(FIRST_MS + 5))
    view = done(await desk.put(task_data=b"new"))
    (row,) = desk.rows()
    assert (view.in_flight, view.state.counts.delivered) == ((), 1)
    assert (row.due_ms, row.schedule.task_data) == (FIRST_MS + MINUTE_MS, b"new")


async def test_a_change_whose_hold_was_taken_off_does_not_delete_the_row() -> None:
    # The owner takes the hold off, and fires the row, before the change is decided.
    desk = JobDesk()
    first = (await desk.created()).next_run
    assert first is not None

    async def fires() -> None:
        await desk.engine.store.drop_hold((await desk.state()).row_name(first))
        await desk.in_flight()

    desk.before_change(fires)
    view = done(await desk.put(task_data=b"new"))
    assert view.in_flight == (first,)
    assert [row.position for row in desk.rows()] == [first.position]


async def test_a_hold_that_is_taken_off_three_times_counts_as_in_flight() -> None:
    desk = JobDesk()
    first = (await desk.created()).next_run
    assert first is not None
    state, hold = await desk.state(), desk.engine.store.hold

    async def taken_off_at_once(name: object, request: RequestId) -> object:
        row = await hold(state.row_name(first), request)
        await desk.engine.store.drop_hold(state.row_name(first))
        return row

    setattr(desk.engine.store, "hold", taken_off_at_once)  # noqa: B010  # a method, which types do not let us assign
    assert done(await desk.put(task_data=b"new")).in_flight == (first,)


async def test_a_job_that_catches_up_faster_than_a_hold_takes_is_changed_all_the_same() -> None:
    # Whenever the request holds a row, its owner has delivered it, and armed the next one, which is late as well.
    desk = JobDesk(request_timeout_ms=2_000)
    first = (await desk.created(new_job(misfire=Misfire(policy=MisfirePolicy.FIRE_ALL)))).next_run
    assert first is not None
    desk.clock.set_ms(FIRST_MS + 90 * MINUTE_MS)
    hold = desk.engine.store.hold

    async def passed_by(name: RowName, request: RequestId) -> object:
        await desk.deliver()
        return await hold(name, request)

    setattr(desk.engine.store, "hold", passed_by)  # noqa: B010  # a method, which types do not let us assign
    view = done(await desk.pause())
    assert [each.kind for each in view.in_flight] == [RunKind.CATCH_UP]
    assert view.state.cursor_ms < FIRST_MS + 5 * MINUTE_MS, "it had to wait until all was caught up"


async def test_a_row_whose_lane_waits_leaves_the_request_time_for_its_change() -> None:
    desk = JobDesk(request_timeout_ms=1_000)
    first = (await desk.created()).next_run
    await desk.in_flight()
    desk.clock.set_ms(FIRST_MS + MINUTE_MS)
    assert done(await desk.put(task_data=b"new")).in_flight == (first,)


async def test_runs_by_hand_that_are_pending_are_delivered_as_they_were_and_a_change_says_so() -> None:
    desk = JobDesk()
    await desk.created()
    run = await desk.run_now()
    assert isinstance(run, RunAccepted)
    view = done(await desk.put(task_data=b"new"))
    assert [each.run_id for each in view.in_flight] == [run.run.run_id]


async def test_a_change_whose_answer_was_lost_is_made_once_whatever_followed_it() -> None:
    desk = JobDesk()
    await desk.created()

    async def other_change() -> None:
        await desk.put(priority=7)

    desk.lose_answer(then=other_change)
    result = await desk.put(description="mine")
    assert isinstance(result, JobChanged)
    assert (result.view.version) == (3)
    assert (result.view.job.description, result.view.job.priority) == ("mine", 7)


async def test_a_change_that_was_not_applied_is_made_by_the_next_try() -> None:
    desk = JobDesk()
    await desk.created()
    desk.lose_answer(applied=False)
    assert done(await desk.put(description="mine")).version == 2


@pytest.mark.parametrize(("version", "holds"), [(1, True), (2, False)])
async def test_a_change_is_made_only_of_the_version_that_its_condition_names(version: int, holds: bool) -> None:
    desk = JobDesk()
    await desk.created()
    result = await desk.put(VersionCondition(any_of=frozenset({version})), description="mine")
    assert isinstance(result, JobChanged if holds else JobVersionDiffers)
    # The same request again, after a lost answer: no other can have come in between.
    if holds:
        again = await desk.put(VersionCondition(any_of=frozenset({1})), description="mine")
        assert isinstance(again, JobUnchanged)


async def test_a_deleted_job_is_not_changed_and_an_unknown_one_not_found() -> None:
    desk = JobDesk()
    assert isinstance(await desk.put(description="x"), JobNotFound)
    await desk.created()
    await desk.delete()
    refused = await desk.put(description="x")
    assert isinstance(refused, JobRefused)
    assert refused.reason is JobReason.DELETED


async def test_a_new_topic_must_exist() -> None:
    desk = JobDesk()
    await desk.created()
    with pytest.raises(InvalidInput):
        await desk.put(topic="none")


async def test_a_job_that_has_ended_goes_on_by_another_trigger() -> None:
    desk = JobDesk()
    await desk.created(new_job(TWICE))
    for number in (1, 2):
        await desk.deliver_at(NOW_MS + number * MINUTE_MS + 5)
    view = done(await desk.put(trigger=EVERY_MINUTE))
    assert (view.state.status, view.next_run is not None) == (JobStatus.ACTIVE, True)


# --- pause, resume


async def test_a_paused_job_has_no_run_and_resume_catches_nothing_up() -> None:
    desk = JobDesk()
    await desk.created()
    view = done(await desk.pause("stock-taking"))
    assert (view.state.pause_reason, view.in_flight, desk.rows()) == ("stock-taking", (), [])
    desk.clock.set_ms(NOW_MS + 20 * MINUTE_MS + 1)
    resumed = done(await desk.resume())
    assert resumed.next_run is not None
    assert resumed.next_run.scheduled_at_ms == NOW_MS + 21 * MINUTE_MS
    assert (resumed.state.pause_reason, resumed.state.paused_since_ms) == (None, None)


async def test_the_same_pause_and_the_same_resume_again_change_nothing() -> None:
    desk = JobDesk()
    await desk.created()
    for ask in (desk.pause, desk.resume):
        await ask()
        rev = (await desk.state()).rev
        again = await ask()
        assert isinstance(again, JobUnchanged)
        assert ((await desk.state()).rev) == (rev)


async def test_a_pause_that_comes_too_late_names_the_run_also_when_it_is_asked_for_again() -> None:
    desk = JobDesk()
    first = (await desk.created()).next_run
    await desk.in_flight()
    assert done(await desk.pause()).in_flight == (first,)
    assert done(await desk.pause()).in_flight == (first,)
    await desk.deliver_at(FIRST_MS + 5)
    assert desk.rows() == []
    assert done(await desk.pause()).in_flight == ()


async def test_a_pause_of_a_job_whose_topic_waits_asks_its_owner_and_gets_the_row() -> None:
    # The row is due for long; its owner reads it, sees the hold, and makes it wait, so that it can be taken.
    desk = JobDesk()
    first = (await desk.created()).next_run
    assert first is not None
    desk.clock.set_ms(FIRST_MS + 10_000)
    await desk.in_flight()
    wake = desk.engine.context.waker.wake

    def answered(shard: ShardId, wakeup: WakeUp) -> None:
        wake(shard, wakeup)
        states = desk.engine.store.shard_states
        states[shard] = replace(states[shard], floor_ms=0)

    setattr(desk.engine.context.waker, "wake", answered)  # noqa: B010  # a method, which types do not let us assign
    view = done(await desk.pause())
    assert (view.in_flight, desk.rows()) == ((), [])
    assert desk.engine.woken == [(first.shard, Wanted(first.position))]


@pytest.mark.parametrize("ask", ["pause", "resume"])
async def test_a_job_that_is_deleted_or_has_ended_is_neither_paused_nor_resumed(ask: str) -> None:
    desk = JobDesk()
    await desk.created(new_job(TWICE))
    for number in (1, 2):
        await desk.deliver_at(NOW_MS + number * MINUTE_MS + 5)
    refused = await getattr(desk, ask)()
    assert isinstance(refused, JobRefused)
    assert refused.reason is JobReason.ENDED
    await desk.delete()
    refused = await getattr(desk, ask)()
    assert isinstance(refused, JobRefused)
    assert refused.reason is JobReason.DELETED


# --- delete, restore


async def test_a_delete_takes_every_row_of_the_job() -> None:
    desk = JobDesk()
    await desk.created()
    await desk.run_now()
    assert len(desk.rows()) == 2
    view = done(await desk.delete())
    assert (view.state.status, view.in_flight, desk.rows()) == (JobStatus.DELETED, (), [])
    again = await desk.delete()
    assert isinstance(again, JobUnchanged)


async def test_a_delete_that_comes_too_late_names_the_runs_and_nothing_follows_them() -> None:
    desk = JobDesk()
    first = (await desk.created()).next_run
    run = await desk.run_now()
    assert isinstance(run, RunAccepted)
    await desk.in_flight()
    view = done(await desk.delete())
    assert first is not None
    assert {each.run_id for each in view.in_flight} == {first.run_id, run.run.run_id}
    await desk.deliver_at(FIRST_MS + 5)
    assert (desk.rows(), done(await desk.delete()).in_flight) == ([], ())


async def test_a_delete_whose_answer_was_lost_is_recognised_with_what_was_in_flight() -> None:
    desk = JobDesk()
    first = (await desk.created()).next_run
    await desk.in_flight()
    desk.lose_answer()
    result = await desk.delete()
    assert isinstance(result, JobChanged)
    assert (result.view.in_flight) == ((first,))


async def test_of_two_tries_with_different_rows_the_answer_tells_of_the_one_that_was_made() -> None:
    # The first try comes too late for the row, and its change is lost on its way; the second has the row, because its lane
    # waits now; then the first one's change arrives.
    desk = JobDesk()
    first = (await desk.created()).next_run
    before = dict(desk.engine.store.shard_states)
    await desk.in_flight()
    sent: list[JobTransaction] = []
    change = desk.engine.jobs.change

    async def late(wanted: JobTransaction) -> None:
        sent.append(wanted)
        if len(sent) == 1:
            desk.engine.store.shard_states.update(before)
            raise StoreUnavailable("no answer", outcome_unknown=True)
        await change(sent[0])
        await change(wanted)

    setattr(desk.engine.jobs, "change", late)  # noqa: B010  # a method, which types do not let us assign
    view = done(await desk.pause())

    assert [len(each.taken) for each in sent] == [0, 1]
    assert (view.in_flight, view.state.armed) == ((first,), first)


async def test_a_row_in_flight_is_told_also_by_the_delete_of_the_job_that_has_its_name_now() -> None:
    desk = JobDesk()
    first = (await desk.created()).next_run
    await desk.in_flight()
    await desk.delete()
    await desk.created(new_job(digest="another"))

    assert first in done(await desk.delete()).in_flight


async def test_a_create_that_was_refused_takes_no_room_from_the_next() -> None:
    desk = JobDesk()
    settings = replace(desk.engine.context.settings, client_jobs_max=1)
    object.__setattr__(desk.engine.context, "settings", settings)
    with pytest.raises(InvalidInput):
        await desk.create(new_job(topic="missing"))
    await desk.created()


async def test_of_creates_at_once_no_more_pass_than_a_client_may_have() -> None:
    desk = JobDesk()
    settings = replace(desk.engine.context.settings, client_jobs_max=2)
    object.__setattr__(desk.engine.context, "settings", settings)
    wanted = [desk.create(new_job(job_id=f"job-{number}")) for number in range(6)]
    results = await asyncio.gather(*wanted, return_exceptions=True)

    assert [type(each) for each in results].count(JobCreated) == 2


@pytest.mark.parametrize(("paused", "status"), [(False, JobStatus.ACTIVE), (True, JobStatus.PAUSED)])
async def test_a_restored_job_is_as_it_was(paused: bool, status: JobStatus) -> None:
    desk = JobDesk()
    await desk.created()
    if paused:
        await desk.pause()
    await desk.delete()
    desk.clock.advance_ms(10 * MINUTE_MS + 1)
    view = done(await desk.restore())
    assert view.state.status is status
    assert [row.due_ms for row in desk.rows()] == ([] if paused else [NOW_MS + 11 * MINUTE_MS])
    refused = await desk.restore()
    assert isinstance(refused, JobRefused)
    assert refused.reason is JobReason.NOT_DELETED


async def test_a_deleted_job_is_not_found_once_its_retention_is_over() -> None:
    desk = JobDesk()
    await desk.created()
    await desk.delete()
    desk.clock.advance_ms(desk.engine.context.settings.retention_ms + MINUTE_MS)
    assert isinstance(await desk.restore(), JobNotFound)
    assert isinstance(await desk.delete(), JobNotFound)


# --- runs by hand


@pytest.mark.parametrize("paused", [False, True])
async def test_a_run_by_hand_is_due_now_also_while_the_job_is_paused(paused: bool) -> None:
    desk = JobDesk()
    await desk.created()
    if paused:
        await desk.pause()
    run = await desk.run_now(data=b"by hand")
    assert isinstance(run, RunAccepted)
    await desk.deliver_at(NOW_MS + 5)
    (record,) = desk.engine.kafka.read_committed(builders.TOPIC)
    assert (record.value, dict(record.headers)["clockwork-run-kind"]) == (b"by hand", b"manual")


async def test_values_of_the_run_are_put_into_its_payload_by_hand_too() -> None:
    desk = JobDesk()
    await desk.created(new_job(interpolate=True, task_data=b'{"id":"${runId}","at":"${scheduledAt}"}'))
    await desk.run_now(data=b'["${jobId}"]')
    await desk.deliver_at(NOW_MS + 5)
    await desk.deliver_at(FIRST_MS + 5)
    values = [record.value for record in desk.engine.kafka.read_committed(builders.TOPIC)]
    assert values == [b'["nightly"]', f'{{"id":"s{FIRST_MS}","at":{FIRST_MS}}}'.encode()]


async def test_a_payload_that_the_job_does_not_allow_is_refused_before_anything_is_armed() -> None:
    desk = JobDesk()
    await desk.created()

    def check(content: JobContent) -> None:
        raise InvalidInput([FieldError("taskData", f"is not for {content.job_id}")])

    with pytest.raises(InvalidInput):
        await desk.jobs.start_runs(ANYONE, NAME, RunNow(request_id="r", task_data=b"x", digest="", check=check))
    assert (await desk.state()).side_rows == ()


async def test_the_same_request_id_is_the_same_run_in_its_present_state() -> None:
    desk = JobDesk()
    await desk.created()
    first = await desk.run_now()
    assert isinstance(first, RunAccepted)
    again = await desk.run_now()
    assert isinstance(again, RunAlreadyAccepted)
    assert (again.run.run_id, again.run.status) == (first.run.run_id, RunStatus.ARMED)
    await desk.deliver_at(NOW_MS + 5)
    again = await desk.run_now()
    assert isinstance(again, RunAlreadyAccepted)
    assert (again.run.run_id, again.run.status) == (first.run.run_id, RunStatus.DELIVERED)


async def test_a_request_id_that_another_request_has_used_is_refused() -> None:
    desk = JobDesk()
    await desk.created()
    await desk.run_now()
    refused = await desk.run_now(data=b"other")
    assert isinstance(refused, JobRefused)
    assert refused.reason is JobReason.EXISTS


async def test_a_request_id_of_the_job_before_is_no_run_of_the_one_that_has_its_name_now() -> None:
    desk = JobDesk()
    await desk.created()
    await desk.run_now("r1")
    await desk.deliver()
    await desk.delete()
    desk.clock.set_ms(NOW_MS + MINUTE_MS)
    await desk.created(new_job(digest="another"))
    result = await desk.run_now("r1")

    assert isinstance(result, JobRefused)
    assert result.reason is JobReason.EXISTS


async def test_a_run_by_hand_does_not_go_before_one_that_has_waited_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The fire times behind that one are skipped already; they would be skipped again.
    desk = JobDesk()
    await desk.created(new_job(overlap=OverlapPolicy.WAIT, completion=CompletionPolicy(timeout_ms=3 * MINUTE_MS)))
    await desk.deliver_at(FIRST_MS + 5)
    await desk.deliver_at(FIRST_MS + 4 * MINUTE_MS)

    async def held(context: RequestContext, name: RowName) -> Held:
        # Its lane waits.
        request = RequestId("hold")
        return Held(await context.store.hold(name, request), request)

    monkeypatch.setattr(take, "hold_and_look", held)
    result = await desk.run_now()

    assert isinstance(result, JobRefused)
    assert (result.reason, result.view.state.counts.skipped) == (JobReason.RUNNING, 3)


async def test_a_run_whose_answer_was_lost_is_armed_once() -> None:
    desk = JobDesk()
    await desk.created()
    desk.lose_answer()
    assert isinstance(await desk.run_now(), RunAccepted)
    assert len((await desk.state()).side_rows) == 1


async def test_runs_by_hand_that_wait_are_bounded() -> None:
    desk = JobDesk()
    await desk.created()
    for number in range(MANUAL_RUNS_MAX):
        assert isinstance(await desk.run_now(f"r{number}"), RunAccepted)
    refused = await desk.run_now("one more")
    assert isinstance(refused, JobRefused)
    assert refused.reason is JobReason.TOO_MANY_RUNS
    assert isinstance(await desk.run_now("r0"), RunAlreadyAccepted)


async def test_a_deleted_job_has_no_runs() -> None:
    desk = JobDesk()
    assert isinstance(await desk.run_now(), JobNotFound)
    await desk.created()
    await desk.run_now()
    await desk.delete()
    for request_id in ("r1", "r2"):
        refused = await desk.run_now(request_id)
        assert isinstance(refused, JobRefused)
        assert refused.reason is JobReason.DELETED


async def test_a_backfill_runs_past_fire_times_one_after_the_other_beside_the_jobs_own() -> None:
    desk = JobDesk()
    await desk.created()
    request = BackfillRequest(request_id="b", from_ms=NOW_MS - 2 * MINUTE_MS, to_ms=NOW_MS, runs_max=1_000, digest="d")
    accepted = await desk.jobs.start_runs(ANYONE, NAME, request)
    assert isinstance(accepted, RunAccepted)
    other = await desk.jobs.start_runs(ANYONE, NAME, replace(request, request_id="c"))
    assert isinstance(other, JobRefused)
    assert other.reason is JobReason.RUNNING
    for number in range(1, 5):
        await desk.deliver_at(NOW_MS + number * 10)
    scheduled = [
        int(dict(record.headers)["clockwork-scheduled-at"])
        for record in desk.engine.kafka.read_committed(builders.TOPIC)
    ]
    assert scheduled == [NOW_MS - 2 * MINUTE_MS, NOW_MS - MINUTE_MS, NOW_MS]
    assert isinstance(await desk.jobs.start_runs(ANYONE, NAME, request), RunAlreadyAccepted)
    assert [row.due_ms for row in desk.rows()] == [FIRST_MS]


async def test_a_backfill_of_a_range_without_fire_times_is_refused() -> None:
    desk = JobDesk()
    await desk.created()
    request = BackfillRequest(request_id="b", from_ms=NOW_MS - 2, to_ms=NOW_MS - 1, runs_max=1, digest="d")
    refused = await desk.jobs.start_runs(ANYONE, NAME, request)
    assert isinstance(refused, JobRefused)
    assert refused.reason is JobReason.NO_FIRE_TIMES


# --- logs, runs, versions, lists


async def logs(desk: JobDesk, limit: int = 100, **query: object) -> list[RunView]:
    """The log, read page by page."""
    found: list[RunView] = []
    last = None
    while True:
        asked = LogQuery(**query)  # type: ignore[arg-type]
        page = await desk.jobs.list_runs(ANYONE, NAME, asked, newest_position=last, limit=limit)
        assert isinstance(page, RunsPage)
        assert len(page.runs) <= limit
        found += page.runs
        last = page.next_from
        if last is None:
            return found


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_the_log_has_each_run_and_each_skipped_stretch_once_newest_first(limit: int) -> None:
    desk = JobDesk()
    await desk.created()
    await desk.run_now()
    await desk.deliver_at(NOW_MS + 5)
    await desk.deliver_at(FIRST_MS + 5)
    await desk.deliver_at(NOW_MS + 10 * MINUTE_MS)
    found = await logs(desk, limit)
    told = [(each.status, each.run_id or (each.skipped.count if each.skipped else None)) for each in found]
    assert told == [
        (RunStatus.ARMED, f"s{NOW_MS + 11 * MINUTE_MS}"),
        (RunStatus.SKIPPED, 8),
        (RunStatus.DELIVERED, f"s{NOW_MS + 2 * MINUTE_MS}"),
        (RunStatus.DELIVERED, f"s{FIRST_MS}"),
        (RunStatus.DELIVERED, found[-1].run_id),
    ]
    assert {each.topic for each in found if each.delivery is not None} == {builders.TOPIC}


async def test_a_run_that_has_its_entry_has_ended_though_the_state_still_names_it() -> None:
    # Its owner has put the entry, and what follows is not armed yet.
    desk = JobDesk()
    await desk.created()
    (row,) = desk.rows()
    end = run_delivery_of(row, delivered(row), retention_ms=MINUTE_MS)
    assert end is not None
    await desk.engine.jobs.put_run_deliveries([end], keep_existing=False)
    assert [each.status for each in await logs(desk)] == [RunStatus.DELIVERED]
    found = await desk.jobs.find_run(ANYONE, NAME, end.run_id)
    assert isinstance(found, RunView)
    assert found.status is RunStatus.DELIVERED


async def test_the_log_is_filtered_by_state_and_by_due_time() -> None:
    desk = JobDesk()
    await desk.created()
    for number in range(1, 4):
        await desk.deliver_at(NOW_MS + number * MINUTE_MS + 5)
    assert len(await logs(desk, status=RunStatus.DELIVERED)) == 3
    assert [each.run_id for each in await logs(desk, status=RunStatus.ARMED)] == [f"s{NOW_MS + 4 * MINUTE_MS}"]
    some = await logs(desk, from_ms=FIRST_MS + MINUTE_MS, to_ms=FIRST_MS + 2 * MINUTE_MS)
    assert [each.run_id for each in some] == [f"s{FIRST_MS + MINUTE_MS}"]


async def test_a_run_is_found_by_its_id_armed_or_ended_late_or_not() -> None:
    desk = JobDesk()
    await desk.created()
    armed = await desk.jobs.find_run(ANYONE, NAME, RunId(f"s{FIRST_MS}"))
    assert isinstance(armed, RunView)
    assert armed.status is RunStatus.ARMED
    await desk.deliver_at(FIRST_MS + 5)
    ended = await desk.jobs.find_run(ANYONE, NAME, RunId(f"s{FIRST_MS}"))
    assert isinstance(ended, RunView)
    assert (ended.status, ended.topic) == (RunStatus.DELIVERED, builders.TOPIC)
    past = NOW_MS - 3 * 86_400_000
    request = BackfillRequest(request_id="b", from_ms=past, to_ms=past + 1, runs_max=1, digest="d")
    accepted = await desk.jobs.start_runs(ANYONE, NAME, request)
    assert isinstance(accepted, RunAccepted)
    assert accepted.run.run_id is not None
    await desk.deliver_at(FIRST_MS + 10)
    backfilled = await desk.jobs.find_run(ANYONE, NAME, accepted.run.run_id)
    assert isinstance(backfilled, RunView)
    assert backfilled.status is RunStatus.DELIVERED
    assert await desk.jobs.find_run(ANYONE, NAME, RunId("s1")) is None
    assert isinstance(await desk.jobs.find_run(ANYONE, other_name("none"), RunId("s1")), JobNotFound)


async def test_a_job_shows_its_last_run_behind_what_was_skipped_since() -> None:
    desk = JobDesk()
    await desk.created()
    await desk.deliver_at(NOW_MS + 10 * MINUTE_MS)
    view = await desk.jobs.find(ANYONE, NAME)
    assert view is not None
    assert view.last_run is not None
    assert (view.last_run.run_id, view.state.counts.skipped) == (f"s{FIRST_MS}", 9)


async def test_versions_are_told_newest_first_with_the_key_that_made_each() -> None:
    desk = JobDesk()
    await desk.created()
    someone = Principal(
        name="deployer", clients=names_of(["*"]), topics=names_of(["*"]), rights=frozenset({Right.CREATE})
    )
    await desk.jobs.put(someone, NAME, to(priority=3))
    await desk.put(priority=4)
    page = await desk.jobs.versions(ANYONE, NAME, below=None, limit=2)
    assert isinstance(page, VersionsPage)
    assert [(job.version, job.priority, job.changed_by) for job in page.versions] == [(3, 4, None), (2, 3, "deployer")]
    rest = await desk.jobs.versions(ANYONE, NAME, below=page.next_below, limit=2)
    assert isinstance(rest, VersionsPage)
    assert ([job.version for job in rest.versions], rest.next_below) == ([1], None)
    assert await desk.jobs.version(ANYONE, NAME, 4) is None


async def listed(desk: JobDesk, limit: int = 100, **query: object) -> list[str]:
    found: list[str] = []
    after: JobId | None = None
    while True:
        asked = JobQuery(client_id=builders.CLIENT, **query)  # type: ignore[arg-type]
        page = await desk.jobs.list_jobs(ANYONE, asked, after=after, limit=limit)
        assert isinstance(page, JobsPage)
        assert len(page.views) <= limit
        found += [view.state.job_id for view in page.views]
        if page.next_after is None:
            return found
        after = JobId(page.next_after)


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_jobs_are_listed_in_the_order_of_their_ids_by_what_is_asked_for(limit: int) -> None:
    desk = JobDesk()
    desk.engine.kafka.create_topic("mail")
    for job_id, more in (("b", {}), ("a", {"labels": (("team", "x"),)}), ("c", {"topic": "mail"}), ("d", {})):
        await desk.created(new_job(job_id=job_id, digest=job_id, **more))
    await desk.jobs.delete(ANYONE, other_name("b"))
    await desk.jobs.pause(ANYONE, other_name("d"), None)
    assert await listed(desk, limit) == ["a", "c", "d"]
    assert await listed(desk, limit, status=JobStatus.DELETED) == ["b"]
    assert await listed(desk, limit, status=JobStatus.PAUSED) == ["d"]
    assert await listed(desk, limit, topic="mail") == ["c"]
    assert await listed(desk, limit, label=("team", "x")) == ["a"]
    assert await listed(desk, limit, label=("team", "y")) == []


# --- modes, rights


async def test_a_cluster_without_jobs_answers_nothing_about_them() -> None:
    desk = JobDesk()
    await desk.created()
    settings = replace(desk.engine.context.settings, jobs="off")
    object.__setattr__(desk.engine.context, "settings", settings)
    for ask in (desk.create, desk.put, desk.pause, desk.resume, desk.delete, desk.restore, desk.run_now):
        with pytest.raises(JobsOff):
            await ask()


async def test_a_cluster_for_tests_keeps_jobs_and_runs_them_by_hand_alone() -> None:
    desk = JobDesk()
    settings = replace(desk.engine.context.settings, jobs="manual")
    object.__setattr__(desk.engine.context, "settings", settings)
    view = await desk.created()
    assert (view.state.status, view.next_run, desk.rows()) == (JobStatus.ACTIVE, None, [])
    assert isinstance(await desk.run_now(), RunAccepted)
    assert [row.run.kind for row in desk.rows() if isinstance(row, Row) and row.run] == [RunKind.MANUAL]


@pytest.mark.parametrize("ask", ["put", "resume", "restore", "start_runs"])
async def test_nothing_is_given_to_a_topic_that_the_key_does_not_cover(ask: str) -> None:
    desk = JobDesk()
    await desk.created()
    if ask == "resume":
        await desk.pause()
    if ask == "restore":
        await desk.delete()
    mail = Principal(name="m", clients=names_of(["*"]), topics=names_of(["mail"]), rights=frozenset({Right.CREATE}))
    given = {
        "put": (to(description="x"),),
        "start_runs": (BackfillRequest(request_id="b", from_ms=0, to_ms=NOW_MS, runs_max=1, digest="d"),),
    }.get(ask, ())
    before = await desk.state()
    with pytest.raises(Forbidden) as caught:
        await getattr(desk.jobs, ask)(mail, NAME, *given)
    assert [each.field for each in caught.value.errors] == ["delivery.topic"]
    assert await desk.state() == before


@pytest.mark.parametrize("ask", ["put", "pause", "delete", "run_now"])
async def test_a_request_that_finds_its_row_lost_puts_it_again_and_goes_on(ask: str) -> None:
    desk = JobDesk()
    await desk.created(new_job(overlap=OverlapPolicy.SKIP, completion=CompletionPolicy(timeout_ms=60_000)))
    desk.lose(*desk.rows())
    result = await (desk.put(description="another") if ask == "put" else getattr(desk, ask)())

    assert isinstance(result, JobChanged | RunAccepted)
    state = await desk.state()
    assert [each.position for each in state.pending()] == [each.position for each in desk.rows()]
    assert len(desk.rows()) == (1 if ask in ("put", "run_now") else 0)


async def test_a_row_that_a_transaction_is_being_applied_to_is_not_put_again(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = JobDesk(request_timeout_ms=200)
    await desk.created()
    desk.lose(*desk.rows())

    async def conflict(context: RequestContext, name: RowName) -> Held:
        raise TransactionConflict("the row is being applied")

    monkeypatch.setattr(take, "hold_and_look", conflict)
    with pytest.raises(Unavailable):
        await desk.pause()
    assert (desk.rows(), (await desk.state()).status) == ([], JobStatus.ACTIVE)


async def test_a_row_that_stands_again_when_its_repair_is_made_is_not_put_twice() -> None:
    desk = JobDesk()
    await desk.created()
    (row,) = desk.rows()
    desk.lose(row)

    async def applied() -> None:
        desk.put_back(row)

    desk.before_change(applied)
    await desk.put(description="another")
    assert [each.due_ms for each in desk.rows()] == [row.due_ms]


async def test_what_a_request_skips_is_counted() -> None:
    # A run that has waited for another one stands for the fire times behind it, and a pause takes it.
    counted: list[tuple[SkipReason, int]] = []

    class Counts(NoTelemetry):
        def job_skipped(self, reason: SkipReason, count: int) -> None:
            counted.append((reason, count))

    desk = JobDesk(telemetry=Counts())
    await desk.created(new_job(overlap=OverlapPolicy.WAIT, completion=CompletionPolicy(timeout_ms=3 * MINUTE_MS)))
    await desk.deliver_at(NOW_MS + MINUTE_MS)
    desk.clock.set_ms(NOW_MS + 3 * MINUTE_MS)
    report = CompletionReport(attempt=1, succeeded=True)
    await desk.jobs.report_run(ANYONE, NAME, RunId(f"s{NOW_MS + MINUTE_MS}"), report)
    await desk.pause()

    assert counted == [(SkipReason.OVERLAP, 1), (SkipReason.OVERLAP, 1)]
    assert (await desk.state()).counts.skipped == 2


async def test_an_excluded_time_is_counted_by_its_reason_and_is_none_of_the_skipped_fire_times() -> None:
    counted: list[tuple[SkipReason, int]] = []

    class Counts(NoTelemetry):
        def job_skipped(self, reason: SkipReason, count: int) -> None:
            counted.append((reason, count))

    begin_ms = NOW_MS - NOW_MS % MINUTE_MS + MINUTE_MS
    away = datetime.fromtimestamp((begin_ms + MINUTE_MS) / 1_000, UTC)
    trigger = Trigger(rule=cron("* * * * *", exclude=exclusion(cron=[f"{away.minute} {away.hour} * * *"])))
    desk = JobDesk(telemetry=Counts())
    completion = CompletionPolicy(timeout_ms=10 * MINUTE_MS)
    await desk.created(new_job(trigger=trigger, overlap=OverlapPolicy.SKIP, completion=completion))
    await desk.deliver_at(begin_ms)
    desk.clock.set_ms(begin_ms + 2 * MINUTE_MS)
    report = CompletionReport(attempt=1, succeeded=True)
    await desk.jobs.report_run(ANYONE, NAME, RunId(f"s{begin_ms}"), report)

    assert counted == [(SkipReason.EXCLUDED, 1), (SkipReason.OVERLAP, 1)]
    assert (await desk.state()).counts.skipped == 1
    page = await desk.jobs.list_runs(ANYONE, NAME, LogQuery(status=RunStatus.SKIPPED), newest_position=None, limit=9)
    assert isinstance(page, RunsPage)
    assert {each.skipped.reason for each in page.runs if each.skipped is not None} == {
        SkipReason.EXCLUDED,
        SkipReason.OVERLAP,
    }
