"""The steps of a job: what is armed, named and noted, and what a request takes or leaves in flight."""

from dataclasses import replace
from typing import Any

import pytest

from clockwork.domain.jobs.job import (
    CompletionPolicy,
    CompletionResult,
    Job,
    JobState,
    JobStatus,
    JobTransaction,
    RetryOn,
    RunCompletion,
    RunDelivery,
    SkippedTimes,
    SkipReason,
    TakenRow,
)
from clockwork.domain.jobs.next_occurrence import Misfire, MisfirePolicy, OverlapPolicy
from clockwork.domain.jobs.steps import (
    ROW_LOST,
    RowRelation,
    after_end,
    arm_missing,
    close_completed,
    close_run,
    create,
    delete,
    ended_row,
    extend_run,
    move_for_time_zones,
    pause,
    relation_of,
    repair,
    restore,
    resume,
    rows_to_take,
    run_delivery_of,
    run_now,
    start_backfill,
    update,
)
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.position import due_ms_of
from clockwork.domain.retry import BackoffPolicy, RetryPolicy
from clockwork.domain.run import Chain, RunData, RunKind
from clockwork.domain.schedule import OnLate, OrderingKey, RequestId, Row
from clockwork.domain.triggers.exclusions import exclusion
from clockwork.domain.triggers.trigger import FixedDelay, FixedRate, Trigger, cron
from tests.support.jobs import (
    EVERY_MINUTE,
    NOW_MS,
    RETENTION_MS,
    created,
    definition,
    delivered,
    dropped,
    failed,
    new_job,
    step_context,
    the_row,
)

MINUTE = 60_000
HOUR = 60 * MINUTE
HOLD = RequestId("hold")
MANUAL_ONLY = new_job(None, durable=True)
RETRIES = RetryPolicy(attempts_max=2, backoff=BackoffPolicy(initial_ms=1_000, max_ms=1_000))


class Story:
    """A job, and the rows of it that have not ended."""

    def __init__(self, trigger: Trigger | None = EVERY_MINUTE, **fields: Any) -> None:
        change = created(new_job(trigger, **fields))
        self.job: Job = definition(change)
        self.state: JobState = change.state
        self.rows: list[Row] = list(change.rows)
        self.log: list[Any] = []

    @property
    def row(self) -> Row:
        """Its only row."""
        (row,) = self.rows
        return row

    def apply(self, change: JobTransaction | None) -> JobTransaction:
        """Makes a change, whose conditions hold."""
        assert change is not None
        assert change.before_rev == self.state.rev
        assert change.state.rev > self.state.rev
        gone = {each.name.position for each in change.taken}
        self.rows = [row for row in self.rows if row.position not in gone] + list(change.rows)
        assert all(row.run is not None and row.run.rev == change.state.rev for row in change.rows)
        assert all(change.state.has_row_at(row.position) for row in change.rows)
        self.state = change.state
        self.job = change.definition or self.job
        self.log += change.entries
        return change

    def end(self, row: Row, entry: MarkerEntry, now_ms: int | None = None) -> JobTransaction:
        """A row has ended, and what follows is armed."""
        self.rows.remove(row)
        at = step_context(entry.at_ms if now_ms is None else now_ms)
        return self.apply(after_end(self.state, self.job, ended_row(row, entry), at))

    def taken(self) -> list[TakenRow]:
        """All rows that a PUT or a pause takes: none is too late."""
        return [TakenRow(name=self.state.row_name(each), hold=HOLD) for each in rows_to_take(self.state)]


def run_ids(story: Story) -> list[str]:
    return [row.run.run_id for row in story.rows if row.run is not None]


def test_a_new_job_has_its_first_fire_time_armed_and_named() -> None:
    change = created()
    row, state = the_row(change), change.state

    assert row.due_ms == NOW_MS + MINUTE
    assert state.has_row_at(row.position)
    assert (change.before_rev, state.status, state.version, state.cursor_ms) == (None, JobStatus.ACTIVE, 1, NOW_MS)
    assert row.run is not None
    assert (row.run.rev, row.run.run_id, row.run.kind) == (state.rev, f"s{NOW_MS + MINUTE}", RunKind.SCHEDULED)
    assert row.run.previous_at_ms == NOW_MS


def test_a_fixed_delay_begins_at_once_and_counts_from_the_end_of_each_run() -> None:
    story = Story(Trigger(rule=FixedDelay(delay_ms=5_000)))
    assert story.row.due_ms == NOW_MS

    story.end(story.row, delivered(story.row, NOW_MS + 50))

    assert story.row.due_ms == NOW_MS + 5_050


def test_a_job_that_is_made_again_goes_on_with_revisions_and_versions_and_no_fire_time_in_flight() -> None:
    story = Story()
    story.apply(delete(story.state, [], step_context(NOW_MS + 1)))

    again = create(replace(new_job(), created_at_ms=NOW_MS + 2), story.state, step_context(NOW_MS + 2))

    assert again.before_rev == story.state.rev < again.state.rev
    assert again.state.version == 2
    assert the_row(again).due_ms == NOW_MS + 2 * MINUTE


def test_a_row_in_flight_of_the_job_before_stays_named_and_its_end_is_nothing_to_the_new_one() -> None:
    story = Story()
    old = story.row
    story.apply(delete(story.state, [], step_context(NOW_MS + 1)))
    again = story.apply(create(replace(new_job(), created_at_ms=NOW_MS + 2), story.state, step_context(NOW_MS + 2)))
    armed = the_row(again)

    assert story.state.has_row_at(old.position)
    assert list(story.state.pending_runs()) == list(story.state.pending())

    story.end(old, delivered(old))

    assert list(story.state.pending()) == [again.state.armed]
    assert (story.rows, story.state.counts) == ([armed], again.state.counts)


def test_a_lost_row_of_the_job_before_is_not_put_again() -> None:
    story = Story()
    story.apply(delete(story.state, [], step_context(NOW_MS + 1)))
    story.apply(create(replace(new_job(), created_at_ms=NOW_MS + 2), story.state, step_context(NOW_MS + 2)))
    (lost,) = story.state.side_rows
    change = story.apply(repair(story.state, story.job, lost, None, step_context(NOW_MS + HOUR)))

    assert (change.rows, change.state.side_rows) == ((), ())


def test_the_end_of_a_run_arms_the_next_and_counts_it() -> None:
    story = Story()
    story.end(story.row, delivered(story.row))

    assert story.row.due_ms == NOW_MS + 2 * MINUTE
    assert story.state.cursor_ms == NOW_MS + MINUTE
    assert (story.state.counts.delivered, story.state.counts.of_trigger) == (1, 1)


def test_a_run_that_failed_arms_as_one_that_was_delivered() -> None:
    story = Story()
    story.end(story.row, failed(story.row))

    assert story.row.due_ms == NOW_MS + 2 * MINUTE
    assert (story.state.counts.failed, story.state.failures) == (1, 1)


def test_a_run_that_succeeds_ends_the_failures_in_a_row() -> None:
    story = Story()
    story.end(story.row, failed(story.row))
    story.end(story.row, delivered(story.row))

    assert story.state.failures == 0


def test_a_job_is_paused_after_so_many_failures_in_a_row_and_says_why() -> None:
    story = Story(pause_after_failures=2)
    story.end(story.row, failed(story.row))
    first = story.state.status
    story.end(story.row, failed(story.row))

    assert (first, story.state.status, story.rows) == (JobStatus.ACTIVE, JobStatus.PAUSED, [])
    assert story.state.pause_reason == "paused after 2 failed runs in a row"
    assert story.state.paused_since_ms == NOW_MS + 2 * MINUTE + 5


def test_a_job_whose_trigger_is_over_has_ended_and_is_kept_for_the_retention() -> None:
    story = Story(replace(EVERY_MINUTE, runs_max=1))
    ended_ms = NOW_MS + MINUTE + 5
    story.end(story.row, delivered(story.row))

    assert (story.state.status, story.rows) == (JobStatus.ENDED, [])
    assert story.state.expires_at_s == (ended_ms + RETENTION_MS) // 1_000


def test_a_durable_job_stays_when_its_trigger_is_over() -> None:
    story = Story(replace(EVERY_MINUTE, runs_max=1), durable=True)
    story.end(story.row, delivered(story.row))

    assert (story.state.status, story.rows, story.state.expires_at_s) == (JobStatus.ACTIVE, [], None)


def test_missed_fire_times_are_one_entry_of_the_log() -> None:
    # fire_once: the row was delivered an hour late, and is the one for the gap.
    story = Story()
    back_ms = NOW_MS + HOUR + 500
    story.end(story.row, delivered(story.row, back_ms))

    (entry,) = story.log
    assert isinstance(entry, SkippedTimes)
    assert (entry.reason, entry.first_ms, entry.last_ms, entry.count) == (
        SkipReason.MISFIRE,
        NOW_MS + 2 * MINUTE,
        NOW_MS + HOUR,
        59,
    )
    assert entry.position != story.row.position
    assert due_ms_of(entry.position) == entry.last_ms
    assert (story.state.counts.skipped, story.state.cursor_ms) == (59, NOW_MS + HOUR)
    assert story.row.due_ms == NOW_MS + HOUR + MINUTE


def test_with_the_policy_skip_a_row_is_dropped_once_it_is_later_than_its_grace() -> None:
    story = Story(misfire=Misfire(policy=MisfirePolicy.SKIP, grace_ms=2_000))
    content = story.row.schedule
    assert (content.deadline_ms, content.on_late) == (2_000, OnLate.DROP)

    row, back_ms = story.row, NOW_MS + 10 * MINUTE + 3_000
    story.end(row, dropped(row, back_ms))

    (entry,) = story.log
    assert (entry.first_ms, entry.last_ms, entry.count) == (NOW_MS + MINUTE, NOW_MS + 10 * MINUTE, 10)
    assert run_delivery_of(row, dropped(row, back_ms), retention_ms=1) is None, "the stretch covers it"
    assert (story.state.counts.skipped, story.state.counts.of_trigger) == (10, 0)


def test_a_fire_time_that_was_dropped_while_the_job_was_being_paused_is_in_the_log() -> None:
    story = Story(misfire=Misfire(policy=MisfirePolicy.SKIP))
    story.apply(pause(story.state, [], step_context(NOW_MS + MINUTE), note=None))
    story.end(story.row, dropped(story.row, NOW_MS + 5 * MINUTE))

    (entry,) = story.log
    assert (entry.first_ms, entry.last_ms, story.rows) == (NOW_MS + MINUTE, NOW_MS + MINUTE, [])


# --- standing


def test_a_row_that_is_named_is_followed() -> None:
    story = Story()

    assert relation_of(story.row, story.state) is RowRelation.CURRENT


def test_a_row_that_is_seen_before_its_state_waits_for_it() -> None:
    story = Story()
    before, row = story.state, story.row
    story.end(row, delivered(row))

    assert relation_of(story.row, before) is RowRelation.STATE_NOT_APPLIED
    assert relation_of(row, None) is RowRelation.STATE_NOT_APPLIED


def test_a_row_is_passed_once_another_is_named() -> None:
    story = Story()
    row = story.row
    story.end(row, delivered(row))

    assert relation_of(row, story.state) is RowRelation.SUPERSEDED


def test_a_row_whose_settled_state_is_behind_or_gone_is_none_of_its() -> None:
    story = Story()
    before, row = story.state, story.row
    story.end(row, delivered(row))

    assert relation_of(story.row, before, committed=True) is RowRelation.SUPERSEDED
    assert relation_of(row, None, committed=True) is RowRelation.SUPERSEDED


# --- pause and resume


def test_a_pause_takes_the_armed_row_and_resume_catches_nothing_up() -> None:
    # Case 40, with minutes.
    story = Story()
    change = story.apply(pause(story.state, story.taken(), step_context(NOW_MS + 1), note="maintenance"))
    assert (story.rows, list(change.state.pending_runs())) == ([], [])
    assert (story.state.pause_reason, story.state.paused_since_ms) == ("maintenance", NOW_MS + 1)

    story.apply(resume(story.state, story.job, step_context(NOW_MS + 5 * MINUTE + 1)))

    assert run_ids(story) == [f"s{NOW_MS + 6 * MINUTE}"]
    assert (story.state.pause_reason, story.state.paused_since_ms, story.log) == (None, None, [])


def test_a_pause_that_comes_too_late_leaves_the_row_in_flight_and_nothing_follows_it() -> None:
    story = Story()
    story.apply(pause(story.state, [], step_context(NOW_MS + MINUTE), note=None))
    assert [each.run_id for each in story.state.pending_runs()] == run_ids(story)

    story.end(story.row, delivered(story.row))

    assert (story.rows, story.state.armed, story.state.counts.delivered) == ([], None, 1)


def test_a_job_that_is_resumed_while_its_row_is_in_flight_goes_on_behind_it() -> None:
    story = Story()
    story.apply(pause(story.state, [], step_context(NOW_MS + MINUTE), note=None))
    story.apply(resume(story.state, story.job, step_context(NOW_MS + 3 * MINUTE + 1)))
    assert len(story.rows) == 1, "no second row of the main chain"

    story.end(story.row, delivered(story.row, NOW_MS + 3 * MINUTE + 2))

    assert story.row.due_ms == NOW_MS + 4 * MINUTE
    assert story.log == [], "what passed while it was paused is not missed"


# --- changes


def test_a_change_of_another_field_keeps_the_armed_time() -> None:
    # Case 43.
    story = Story()
    before = story.row
    wanted = replace(story.job, description="new", task_data=b"2")
    story.apply(update(story.state, story.job, wanted, story.taken(), step_context(NOW_MS + 1)))

    row = story.row
    assert (row.due_ms, row.run and row.run.run_id) == (before.due_ms, before.run and before.run.run_id)
    assert (row.schedule.task_data, row.schedule.version, story.job.version, story.state.version) == (b"2", 2, 2, 2)
    assert row.position != before.position
    assert (story.log, story.state.counts.delivered) == ([], 0)


def test_a_change_of_the_trigger_counts_from_now_on() -> None:
    # Case 42: from hourly to every minute.
    hourly = Trigger(rule=FixedRate(every_ms=HOUR, anchor_ms=NOW_MS))
    story = Story(hourly)
    wanted = replace(story.job, trigger=EVERY_MINUTE)
    story.apply(update(story.state, story.job, wanted, story.taken(), step_context(NOW_MS + 30_000)))

    assert story.row.due_ms == NOW_MS + MINUTE


def test_a_change_that_comes_too_late_holds_for_what_follows_the_row_in_flight() -> None:
    story = Story()
    wanted = replace(story.job, trigger=Trigger(rule=FixedRate(every_ms=HOUR, anchor_ms=NOW_MS)), task_data=b"2")
    story.apply(update(story.state, story.job, wanted, [], step_context(NOW_MS + MINUTE)))
    assert story.row.schedule.task_data == b'{"report":1}'

    story.end(story.row, delivered(story.row))

    assert (story.row.due_ms, story.row.schedule.task_data) == (NOW_MS + HOUR, b"2")


def test_a_change_while_a_late_row_is_in_flight_loses_no_missed_fire_time() -> None:
    # Another field: what was missed is still decided by the policy, as if there had been no change.
    story = Story()
    wanted = replace(story.job, description="new")
    story.apply(update(story.state, story.job, wanted, [], step_context(NOW_MS + 5 * MINUTE)))
    story.end(story.row, delivered(story.row, NOW_MS + 5 * MINUTE + 1))

    (entry,) = story.log
    assert (entry.first_ms, entry.last_ms) == (NOW_MS + 2 * MINUTE, NOW_MS + 5 * MINUTE)


def test_a_change_of_a_paused_job_arms_nothing() -> None:
    story = Story()
    story.apply(pause(story.state, [], step_context(NOW_MS + MINUTE), note=None))
    wanted = replace(story.job, description="new")
    story.apply(update(story.state, story.job, wanted, story.taken(), step_context(NOW_MS + MINUTE + 1)))

    assert (story.rows, story.state.armed, story.state.status) == ([], None, JobStatus.PAUSED)


def test_an_ended_job_goes_on_with_another_trigger() -> None:
    story = Story(replace(EVERY_MINUTE, runs_max=1))
    story.end(story.row, delivered(story.row))
    wanted = replace(story.job, trigger=EVERY_MINUTE)
    story.apply(update(story.state, story.job, wanted, story.taken(), step_context(NOW_MS + 2 * MINUTE)))

    assert (story.state.status, story.state.expires_at_s) == (JobStatus.ACTIVE, None)
    assert story.row.due_ms == NOW_MS + 3 * MINUTE


# --- delete and restore


def test_a_delete_takes_all_rows_and_a_restore_brings_the_next_fire_time_back() -> None:
    story = Story()
    story.apply(run_now(story.state, story.job, step_context(NOW_MS + 1), request_id="r"))
    taken = [TakenRow(name=story.state.row_name(each), hold=HOLD) for each in rows_to_take(story.state, deletes=True)]
    story.apply(delete(story.state, taken, step_context(NOW_MS + 2)))
    assert (story.rows, list(story.state.pending()), story.state.status) == ([], [], JobStatus.DELETED)
    assert taken != []
    expires_at_s = story.state.expires_at_s
    assert expires_at_s == (NOW_MS + 2 + RETENTION_MS) // 1_000

    story.apply(restore(story.state, story.job, step_context(NOW_MS + 3 * MINUTE + 1)))

    assert run_ids(story) == [f"s{NOW_MS + 4 * MINUTE}"]
    assert (story.state.status, story.state.expires_at_s) == (JobStatus.ACTIVE, None)


def test_a_restored_job_is_paused_if_it_was() -> None:
    story = Story()
    story.apply(pause(story.state, story.taken(), step_context(NOW_MS + 1), note="why"))
    story.apply(delete(story.state, [], step_context(NOW_MS + 2)))
    story.apply(restore(story.state, story.job, step_context(NOW_MS + 3)))

    assert (story.state.status, story.state.pause_reason, story.rows) == (JobStatus.PAUSED, "why", [])


def test_nothing_follows_a_row_that_was_in_flight_when_its_job_was_deleted() -> None:
    story = Story()
    story.apply(delete(story.state, [], step_context(NOW_MS + MINUTE)))
    assert [each.run_id for each in story.state.pending_runs()] == run_ids(story)

    story.end(story.row, delivered(story.row))

    assert (story.rows, story.state.armed, story.state.status) == ([], None, JobStatus.DELETED)


def test_a_job_that_is_restored_while_its_row_is_in_flight_has_no_second_one() -> None:
    story = Story()
    story.apply(delete(story.state, [], step_context(NOW_MS + MINUTE)))
    story.apply(restore(story.state, story.job, step_context(NOW_MS + MINUTE + 1)))
    assert len(story.rows) == 1

    story.end(story.row, delivered(story.row))

    assert run_ids(story) == [f"s{NOW_MS + 2 * MINUTE}"]


# --- by hand, and backfill


def test_a_run_by_hand_stands_beside_the_trigger_and_is_taken_off_when_it_has_ended() -> None:
    story = Story()
    change = story.apply(
        run_now(story.state, story.job, step_context(NOW_MS + 7), request_id="r-1", task_data=b"by hand")
    )
    row = the_row(change)
    assert row.run is not None
    assert (row.run.chain, row.run.kind, row.due_ms, row.schedule.task_data) == (
        Chain.SIDE,
        RunKind.MANUAL,
        NOW_MS + 7,
        b"by hand",
    )
    assert change.request is not None
    assert (change.request.run_id, change.request.request_id) == (row.run.run_id, "r-1")
    assert row.run.run_id.startswith(f"m{NOW_MS + 7}-")

    story.end(row, delivered(row))

    assert (story.state.side_rows, run_ids(story)) == ((), [f"s{NOW_MS + MINUTE}"])
    assert (story.state.counts.delivered, story.state.counts.of_trigger) == (1, 0)


def test_a_run_by_hand_that_was_dropped_for_lateness_is_a_failed_run_of_the_log() -> None:
    story = Story(MANUAL_ONLY.trigger, durable=True)
    row = the_row(story.apply(run_now(story.state, story.job, step_context(NOW_MS + 7), request_id="r-1")))
    end = run_delivery_of(row, dropped(row), retention_ms=1)

    assert end is not None
    assert (end.failure and end.failure.reason, end.receipt) == ("expired", None)


def test_a_backfill_runs_past_fire_times_one_after_the_other_up_to_its_end() -> None:
    story = Story()
    at = step_context(NOW_MS + 10 * MINUTE)
    story.apply(
        start_backfill(
            story.state, story.job, at, request_id="b", from_ms=NOW_MS, to_ms=NOW_MS + 2 * MINUTE, runs_max=10
        )
    )
    seen = []
    while story.state.backfill is not None:
        row = next(row for row in story.rows if row.run is not None and row.run.chain is Chain.BACKFILL)
        assert row.run is not None
        seen.append(row.run.scheduled_at_ms)
        story.end(row, delivered(row), NOW_MS + 10 * MINUTE)

    assert seen == [NOW_MS, NOW_MS + MINUTE, NOW_MS + 2 * MINUTE]
    assert run_ids(story) == [f"s{NOW_MS + MINUTE}"], "the main chain is untouched"


def test_a_backfill_ends_after_so_many_runs() -> None:
    story = Story()
    at = step_context(NOW_MS + 10 * MINUTE)
    story.apply(
        start_backfill(story.state, story.job, at, request_id="b", from_ms=NOW_MS, to_ms=NOW_MS + HOUR, runs_max=1)
    )
    row = story.rows[-1]
    story.end(row, delivered(row), NOW_MS + 10 * MINUTE)

    assert story.state.backfill is None


# --- audit


def lost(story: Story) -> Row:
    row = story.row
    story.rows.remove(row)
    return row


def test_a_lost_row_whose_time_is_ahead_is_armed_again() -> None:
    story = Story()
    row = lost(story)
    armed = story.state.armed
    assert armed is not None
    change = story.apply(repair(story.state, story.job, armed, None, step_context(NOW_MS + 1)))

    assert change.absent == row.name
    assert (story.row.due_ms, story.row.position != row.position) == (row.due_ms, True)


def test_a_lost_row_that_was_delivered_is_followed_by_the_next() -> None:
    # Deleted by a node that could not read the state.
    story = Story()
    row = lost(story)
    end = run_delivery_of(row, delivered(row), retention_ms=1)
    armed = story.state.armed
    assert armed is not None
    story.apply(repair(story.state, story.job, armed, end, step_context(NOW_MS + MINUTE + 100)))

    assert story.row.due_ms == NOW_MS + 2 * MINUTE


def test_a_lost_row_is_run_late_by_the_policy_for_what_was_missed() -> None:
    story = Story()
    lost(story)
    armed = story.state.armed
    assert armed is not None
    story.apply(repair(story.state, story.job, armed, None, step_context(NOW_MS + HOUR + 100)))

    assert story.row.run is not None
    assert (story.row.due_ms, story.row.run.kind) == (NOW_MS + HOUR, RunKind.CATCH_UP)
    (entry,) = story.log
    assert (entry.first_ms, entry.last_ms) == (NOW_MS + MINUTE, NOW_MS + HOUR - MINUTE)


def test_a_lost_row_of_a_paused_job_is_named_no_more() -> None:
    story = Story()
    story.apply(pause(story.state, [], step_context(NOW_MS + MINUTE), note=None))
    lost(story)
    armed = story.state.armed
    assert armed is not None
    story.apply(repair(story.state, story.job, armed, None, step_context(NOW_MS + HOUR)))

    assert (story.rows, story.state.armed, story.state.status) == ([], None, JobStatus.PAUSED)


def test_a_lost_run_by_hand_is_run_again() -> None:
    story = Story(None, durable=True)
    story.apply(run_now(story.state, story.job, step_context(NOW_MS + 7), request_id="r-1"))
    row = lost(story)
    story.apply(repair(story.state, story.job, story.state.side_rows[0], None, step_context(NOW_MS + MINUTE)))

    assert (story.row.due_ms, story.row.run and story.row.run.run_id) == (row.due_ms, row.run and row.run.run_id)


@pytest.mark.parametrize("alone", [True, False], ids=["beside the trigger", "exclusive"])
def test_a_lost_run_by_hand_that_had_data_of_its_own_has_failed_and_is_not_run_with_the_jobs(alone: bool) -> None:
    story = Story() if alone else exclusive()
    taken = () if alone else story.taken()
    story.apply(
        run_now(story.state, story.job, step_context(NOW_MS + 7), request_id="r", task_data=b"own", taken=taken)
    )
    by_hand = story.rows.pop()
    armed = next(each for each in story.state.pending() if each.position == by_hand.position)
    story.apply(repair(story.state, story.job, armed, None, step_context(NOW_MS + 9)))

    assert run_ids(story) == [f"s{NOW_MS + MINUTE}"]
    (end,) = (each for each in story.log if isinstance(each, RunDelivery))
    assert (end.position, end.run_id, end.failure and end.failure.reason) == (armed.position, armed.run_id, ROW_LOST)
    assert story.state.counts.failed == 1


def test_a_lost_run_by_hand_of_a_paused_exclusive_job_is_run_again() -> None:
    story = exclusive()
    story.apply(run_now(story.state, story.job, step_context(NOW_MS + 7), request_id="r", taken=story.taken()))
    story.apply(pause(story.state, story.taken(), step_context(NOW_MS + 8), note=None))
    row = lost(story)
    armed = story.state.armed
    assert armed is not None
    story.apply(repair(story.state, story.job, armed, None, step_context(NOW_MS + 9)))

    assert (story.row.due_ms, story.row.run and story.row.run.run_id) == (row.due_ms, row.run and row.run.run_id)


def test_a_run_whose_watchdog_is_lost_and_with_it_the_data_given_for_it_is_watched_again_and_has_no_other_attempt() -> (
    None
):
    story = exclusive()
    story.apply(
        run_now(story.state, story.job, step_context(NOW_MS + 1), request_id="r", task_data=b"own", taken=story.taken())
    )
    story.end(story.row, delivered(story.row))
    until_ms, armed = lost(story).due_ms, story.state.armed
    assert armed is not None
    story.apply(repair(story.state, story.job, armed, None, step_context(NOW_MS + 9)))
    assert story.row.run is not None
    assert (story.row.run.kind, story.row.due_ms, story.row.run.data) == (RunKind.WATCHDOG, until_ms, RunData.LOST)

    story.end(story.row, dropped(story.row, reason="timed_out"))

    assert run_ids(story) == [f"s{NOW_MS + 2 * MINUTE}"]


def test_nothing_is_armed_by_triggers_in_manual_mode_and_the_audit_arms_it_later() -> None:
    change = create(new_job(), None, step_context(triggers_on=False))
    assert (change.rows, change.state.armed, change.state.status) == ((), None, JobStatus.ACTIVE)

    armed = arm_missing(change.state, definition(change), step_context(NOW_MS + 5 * MINUTE + 1))

    assert armed is not None
    assert the_row(armed).due_ms == NOW_MS + 6 * MINUTE


def test_the_audit_finds_nothing_missing_at_a_job_that_is_armed_or_over() -> None:
    story = Story()
    assert arm_missing(story.state, story.job, step_context()) is None
    over = Story(replace(EVERY_MINUTE, runs_max=1), durable=True)
    over.end(over.row, delivered(over.row))

    assert arm_missing(over.state, over.job, step_context(NOW_MS + HOUR)) is None


def test_another_release_of_the_rules_of_time_zones_moves_an_armed_row_that_it_concerns() -> None:
    # Case 8: the row stands where the old rules put it. Here the armed position itself plays the old rule.
    story = Story(Trigger(rule=FixedRate(every_ms=HOUR, anchor_ms=NOW_MS)))
    moved = replace(story.job, trigger=Trigger(rule=FixedRate(every_ms=HOUR, anchor_ms=NOW_MS + MINUTE)))
    at = step_context(NOW_MS + MINUTE + 1, tz_release="2099a")

    assert move_for_time_zones(story.state, story.job, story.taken(), at) is None
    change = move_for_time_zones(story.state, moved, story.taken(), at)
    assert change is not None
    assert (the_row(change).due_ms, change.state.tz_release) == (NOW_MS + HOUR + MINUTE, "2099a")


# --- exclusive jobs


def exclusive(overlap: OverlapPolicy = OverlapPolicy.SKIP, **fields: Any) -> Story:
    completion = CompletionPolicy(timeout_ms=90_000, retry=RETRIES, retry_on=frozenset(RetryOn))
    return Story(overlap=overlap, completion=fields.pop("completion", completion), **fields)


def test_the_delivery_of_an_exclusive_job_arms_the_watchdog_in_the_place_of_the_next_run() -> None:
    story = exclusive()
    run = story.row
    story.end(run, delivered(run))

    watchdog = story.row
    assert watchdog.run is not None
    assert (watchdog.run.kind, watchdog.due_ms) == (RunKind.WATCHDOG, NOW_MS + MINUTE + 5 + 90_000)
    assert story.state.open_run is not None
    assert (story.state.open_run.run_id, story.state.open_run.position) == (f"s{NOW_MS + MINUTE}", run.position)
    assert run_delivery_of(watchdog, dropped(watchdog, reason="timed_out"), retention_ms=1) is None


def test_a_completion_takes_the_watchdog_and_skips_what_passed_while_the_run_was_open() -> None:
    # Case 48: every run takes 140 s.
    story = exclusive(completion=CompletionPolicy(timeout_ms=HOUR))
    story.end(story.row, delivered(story.row, NOW_MS + MINUTE))
    taken = [TakenRow(name=story.row.name, hold=HOLD)]
    done_ms = NOW_MS + MINUTE + 140_000
    story.apply(close_run(story.state, story.job, CompletionResult.COMPLETED, step_context(done_ms), taken=taken))

    assert (story.row.due_ms, story.state.open_run) == (NOW_MS + 4 * MINUTE, None)
    completion, skipped = story.log
    assert isinstance(completion, RunCompletion)
    assert (completion.result, completion.run_id) == (CompletionResult.COMPLETED, f"s{NOW_MS + MINUTE}")
    assert (skipped.reason, skipped.first_ms, skipped.last_ms) == (
        SkipReason.OVERLAP,
        NOW_MS + 2 * MINUTE,
        NOW_MS + 3 * MINUTE,
    )


def test_with_overlap_wait_the_first_fire_time_that_passed_runs_at_once() -> None:
    story = exclusive(OverlapPolicy.WAIT, completion=CompletionPolicy(timeout_ms=HOUR))
    story.end(story.row, delivered(story.row, NOW_MS + MINUTE))
    taken = [TakenRow(name=story.row.name, hold=HOLD)]
    done_ms = NOW_MS + MINUTE + 140_000
    story.apply(close_run(story.state, story.job, CompletionResult.COMPLETED, step_context(done_ms), taken=taken))

    assert run_ids(story) == [f"s{NOW_MS + 2 * MINUTE}"]
    assert story.row.due_ms == done_ms


def test_a_lost_row_that_had_waited_for_another_run_is_put_again_and_nothing_skipped_twice() -> None:
    story = exclusive(OverlapPolicy.WAIT, completion=CompletionPolicy(timeout_ms=HOUR))
    story.end(story.row, delivered(story.row, NOW_MS + MINUTE))
    taken = [TakenRow(name=story.row.name, hold=HOLD)]
    done_ms = NOW_MS + 5 * MINUTE
    story.apply(close_run(story.state, story.job, CompletionResult.COMPLETED, step_context(done_ms), taken=taken))
    lost, skipped = story.state.armed, story.state.counts.skipped
    assert lost is not None
    story.rows.clear()
    story.apply(repair(story.state, story.job, lost, None, step_context(done_ms + HOUR)))

    assert (run_ids(story), story.state.counts.skipped) == ([lost.run_id], skipped)


@pytest.mark.parametrize("ask", ["pause", "delete", "put"])
def test_a_run_that_had_waited_and_is_taken_is_noted_as_skipped(ask: str) -> None:
    story = exclusive(OverlapPolicy.WAIT, completion=CompletionPolicy(timeout_ms=HOUR))
    story.end(story.row, delivered(story.row, NOW_MS + MINUTE))
    done_ms = NOW_MS + MINUTE + 140_000
    watchdog = [TakenRow(name=story.row.name, hold=HOLD)]
    story.apply(close_run(story.state, story.job, CompletionResult.COMPLETED, step_context(done_ms), taken=watchdog))
    at = step_context(done_ms + 1)
    match ask:
        case "pause":
            story.apply(pause(story.state, story.taken(), at, note=None))
        case "delete":
            story.apply(delete(story.state, story.taken(), at))
        case _:
            wanted = replace(story.job, trigger=Trigger(rule=FixedRate(every_ms=HOUR, anchor_ms=NOW_MS)))
            story.apply(update(story.state, story.job, wanted, story.taken(), at))

    skipped = story.log[-1]
    assert (skipped.reason, skipped.first_ms, skipped.last_ms) == (
        SkipReason.OVERLAP,
        NOW_MS + 2 * MINUTE,
        NOW_MS + 2 * MINUTE,
    )


def test_a_time_out_tries_the_same_run_again_until_its_attempts_are_used_up() -> None:
    story = exclusive()
    run = story.row
    story.end(run, delivered(run))
    story.end(story.row, dropped(story.row, reason="timed_out"))

    retry = story.row
    assert retry.run is not None
    assert run.run is not None
    assert (retry.run.kind, retry.run.attempt, retry.run.run_id) == (RunKind.RETRY, 2, run.run.run_id)
    assert retry.schedule.delivery_id != run.schedule.delivery_id
    # A run that has another attempt has not failed.
    assert (story.state.failures, story.log[0].result) == (0, CompletionResult.TIMED_OUT)

    story.end(retry, delivered(retry))
    story.end(story.row, dropped(story.row, reason="timed_out"))

    assert story.row.run is not None
    assert (story.row.run.kind, story.state.failures) == (RunKind.SCHEDULED, 1)


def test_a_heartbeat_puts_another_watchdog_in_the_place_of_the_one_that_it_takes() -> None:
    story = exclusive()
    story.apply(
        run_now(story.state, story.job, step_context(NOW_MS + 1), request_id="r", task_data=b"1", taken=story.taken())
    )
    story.end(story.row, delivered(story.row))
    taken = [TakenRow(name=story.row.name, hold=HOLD)]
    until_ms, content = NOW_MS + HOUR, story.row.schedule
    story.apply(
        extend_run(story.state, story.job, until_ms, step_context(NOW_MS + MINUTE), taken=taken, content=content)
    )

    watchdog = story.row
    assert watchdog.run is not None
    assert (watchdog.run.kind, watchdog.due_ms, watchdog.schedule.task_data) == (RunKind.WATCHDOG, until_ms, b"1")
    assert story.state.open_run is not None
    assert (story.state.open_run.until_ms, story.log) == (until_ms, [])


def test_another_attempt_of_a_run_by_hand_is_taken_by_a_delete_alone() -> None:
    story = exclusive()
    story.apply(
        run_now(story.state, story.job, step_context(NOW_MS + 1), request_id="r", task_data=b"1", taken=story.taken())
    )
    story.end(story.row, delivered(story.row))
    story.end(story.row, dropped(story.row, reason="timed_out"))

    assert story.row.run is not None
    assert (story.row.run.kind, story.row.schedule.task_data) == (RunKind.RETRY, b"1")
    assert (rows_to_take(story.state), len(rows_to_take(story.state, deletes=True))) == ((), 1)


def test_a_pause_leaves_an_open_run_its_watchdog_and_nothing_follows_it() -> None:
    story = exclusive()
    story.end(story.row, delivered(story.row))
    assert rows_to_take(story.state) == ()
    change = story.apply(pause(story.state, story.taken(), step_context(NOW_MS + 2 * MINUTE), note=None))
    assert change.state.open_run is not None

    story.end(story.row, dropped(story.row, reason="timed_out"))

    assert (story.rows, story.state.open_run, story.state.status) == ([], None, JobStatus.PAUSED)


def test_a_delete_takes_the_watchdog_and_closes_the_run() -> None:
    story = exclusive()
    story.end(story.row, delivered(story.row))
    taken = [TakenRow(name=story.state.row_name(each), hold=HOLD) for each in rows_to_take(story.state, deletes=True)]
    story.apply(delete(story.state, taken, step_context(NOW_MS + 2 * MINUTE)))

    assert (story.rows, story.state.open_run) == ([], None)


def test_an_exclusive_run_by_hand_takes_the_place_of_the_armed_row_which_comes_after_it() -> None:
    story = exclusive()
    story.apply(run_now(story.state, story.job, step_context(NOW_MS + 1), request_id="r", taken=story.taken()))
    row = story.row
    assert row.run is not None
    assert (row.run.chain, row.due_ms) == (Chain.MAIN, NOW_MS + 1)

    story.end(row, failed(row))

    assert run_ids(story) == [f"s{NOW_MS + MINUTE}"]


@pytest.mark.parametrize("ask", ["pause", "put", "put while paused"])
def test_an_exclusive_run_by_hand_is_taken_by_a_delete_alone(ask: str) -> None:
    story = exclusive()
    by_hand = run_now(
        story.state, story.job, step_context(NOW_MS + 1), request_id="r", task_data=b"own", taken=story.taken()
    )
    story.apply(by_hand)
    if ask != "put":
        story.apply(pause(story.state, story.taken(), step_context(NOW_MS + 2), note=None))
    if ask != "pause":
        wanted = replace(story.job, description="changed")
        story.apply(update(story.state, story.job, wanted, story.taken(), step_context(NOW_MS + 3)))

    assert [each.run_id for each in story.state.pending_runs()] == run_ids(story)
    assert story.row.schedule.task_data == b"own"
    assert len(rows_to_take(story.state, deletes=True)) == 1


def test_a_run_in_flight_that_was_not_asked_for_a_completion_has_no_watchdog() -> None:
    story = Story()
    run = story.row
    wanted = replace(story.job, overlap=OverlapPolicy.SKIP, completion=CompletionPolicy(timeout_ms=90_000))
    story.apply(update(story.state, story.job, wanted, [], step_context(NOW_MS + 1)))
    story.end(run, delivered(run))

    assert (story.state.open_run, run_ids(story)) == (None, [f"s{NOW_MS + 2 * MINUTE}"])


def test_a_watchdog_is_due_when_the_runs_own_record_said() -> None:
    story = exclusive()
    run = story.row
    wanted = replace(story.job, completion=CompletionPolicy(timeout_ms=1_000))
    story.apply(update(story.state, story.job, wanted, [], step_context(NOW_MS + 1)))
    story.end(run, delivered(run))

    assert story.row.due_ms == NOW_MS + MINUTE + 5 + 90_000


def test_the_repair_of_an_exclusive_run_whose_end_is_noted_arms_its_watchdog() -> None:
    story = exclusive()
    lost, run = story.state.armed, story.row
    assert lost is not None
    story.rows.clear()
    end = run_delivery_of(run, delivered(run), retention_ms=RETENTION_MS)
    story.apply(repair(story.state, story.job, lost, end, step_context(NOW_MS + 2 * MINUTE)))

    assert (story.row.run.kind if story.row.run else None, story.state.open_run is not None) == (RunKind.WATCHDOG, True)


def test_a_job_that_had_ended_goes_on_by_another_trigger_also_while_triggers_are_off() -> None:
    story = Story(replace(EVERY_MINUTE, runs_max=1))
    story.end(story.row, delivered(story.row))
    assert story.state.status is JobStatus.ENDED
    wanted = replace(story.job, trigger=EVERY_MINUTE)
    change = story.apply(
        update(story.state, story.job, wanted, [], step_context(NOW_MS + 2 * MINUTE, triggers_on=False))
    )

    assert (change.state.status, change.state.expires_at_s, change.rows) == (JobStatus.ACTIVE, None, ())


def test_a_job_that_had_ended_goes_on_by_another_trigger_behind_a_run_by_hand() -> None:
    story = exclusive(trigger=replace(EVERY_MINUTE, runs_max=1), completion=CompletionPolicy(timeout_ms=1_000))
    story.end(story.row, delivered(story.row))
    story.end(story.row, dropped(story.row, reason="timed_out"))
    assert story.state.status is JobStatus.ENDED
    story.apply(run_now(story.state, story.job, step_context(NOW_MS + 2 * MINUTE), request_id="r"))
    wanted = replace(story.job, trigger=EVERY_MINUTE)
    story.apply(update(story.state, story.job, wanted, [], step_context(NOW_MS + 2 * MINUTE + 1)))
    story.end(story.row, failed(story.row))

    assert (story.state.status, run_ids(story)) == (JobStatus.ACTIVE, [f"s{NOW_MS + 3 * MINUTE}"])


@pytest.mark.parametrize("policy", [MisfirePolicy.FIRE_ONCE, MisfirePolicy.FIRE_ALL])
def test_a_row_whose_content_moves_to_another_lane_stands_in_the_shard_of_that(policy: MisfirePolicy) -> None:
    story = Story(misfire=Misfire(policy=policy))
    wanted = replace(story.job, ordering_key=OrderingKey("another"))
    story.apply(update(story.state, story.job, wanted, story.taken(), step_context(NOW_MS + 1)))

    assert story.state.armed is not None
    assert (story.row.shard, story.row.schedule.ordering_key) == (story.state.armed.shard, "another")


def test_values_of_a_run_are_put_into_its_data_when_it_is_armed() -> None:
    story = Story(interpolate=True, task_data=b'{"at":"${scheduledAt}","run":"run ${runId}","v":"${version}"}')

    assert story.row.schedule.task_data == (f'{{"at":{NOW_MS + MINUTE},"run":"run s{NOW_MS + MINUTE}","v":1}}'.encode())
    change = run_now(story.state, story.job, step_context(NOW_MS + 7), request_id="r", task_data=b'"${runId}"')
    by_hand = the_row(change)
    assert by_hand.run is not None
    assert by_hand.schedule.task_data == f'"{by_hand.run.run_id}"'.encode()


def test_what_a_calendar_excludes_is_noted_when_the_run_behind_it_has_ended_and_is_no_skipped_fire_time() -> None:
    # Every minute, but for the hours from 1 on. NOW_MS is 22:13:20 on a Tuesday.
    night = exclusion(cron=["* 23 * * *"])
    story = Story(Trigger(rule=cron("* * * * *", exclude=night)))
    while story.row.due_ms - NOW_MS < 2 * HOUR:
        story.end(story.row, delivered(story.row))

    (entry,) = story.log
    assert (entry.reason, entry.count, story.state.counts.skipped) == (SkipReason.EXCLUDED, 60, 0)
    assert entry.last_ms - entry.first_ms == 59 * MINUTE


@pytest.mark.parametrize(("given", "data"), [(b"own", b"own"), (None, b"new")], ids=["its own", "the job's"])
def test_another_attempt_of_a_run_by_hand_has_the_data_given_for_it_or_those_of_the_definition_by_then(
    given: bytes | None, data: bytes
) -> None:
    story = exclusive()
    story.apply(
        run_now(story.state, story.job, step_context(NOW_MS + 1), request_id="r", task_data=given, taken=story.taken())
    )
    story.end(story.row, delivered(story.row))
    wanted = replace(story.job, task_data=b"new")
    story.apply(update(story.state, story.job, wanted, story.taken(), step_context(NOW_MS + 2)))

    story.end(story.row, dropped(story.row, reason="timed_out"))

    assert story.row.run is not None
    assert (story.row.run.kind, story.row.run.attempt, story.row.schedule.task_data) == (RunKind.RETRY, 2, data)


@pytest.mark.parametrize(
    ("standing_of_job", "kinds"),
    [("ended", [RunKind.RETRY]), ("manual mode", [RunKind.RETRY]), ("paused", []), ("paused meanwhile", [])],
)
def test_a_run_by_hand_is_tried_again_whatever_the_trigger_does_but_not_while_the_job_is_paused(
    standing_of_job: str, kinds: list[RunKind]
) -> None:
    arms = standing_of_job != "manual mode"
    story = exclusive(trigger=replace(EVERY_MINUTE, runs_max=1))
    if standing_of_job == "ended":
        story.end(story.row, delivered(story.row))
        taken = [TakenRow(name=story.row.name, hold=HOLD)]
        story.apply(
            close_run(story.state, story.job, CompletionResult.COMPLETED, step_context(NOW_MS + HOUR), taken=taken)
        )
        assert story.state.status is JobStatus.ENDED
    if standing_of_job == "paused":
        story.apply(pause(story.state, story.taken(), step_context(NOW_MS + 1), note=None))
    at = step_context(NOW_MS + HOUR, triggers_on=arms)
    story.apply(run_now(story.state, story.job, at, request_id="r", taken=story.taken()))
    story.end(story.row, delivered(story.row))
    if standing_of_job == "paused meanwhile":
        story.apply(pause(story.state, story.taken(), step_context(NOW_MS + HOUR + 1), note=None))
    watchdog = story.rows.pop()
    ended = ended_row(watchdog, dropped(watchdog, reason="timed_out"))
    story.apply(after_end(story.state, story.job, ended, step_context(watchdog.due_ms, triggers_on=arms)))

    assert [row.run and row.run.kind for row in story.rows] == kinds


def test_a_run_does_not_end_before_its_delivery_by_whatever_clock() -> None:
    story = exclusive(trigger=Trigger(rule=FixedDelay(delay_ms=5_000)))
    story.end(story.row, delivered(story.row, NOW_MS + 900))
    taken = [TakenRow(name=story.row.name, hold=HOLD)]
    story.apply(close_run(story.state, story.job, CompletionResult.COMPLETED, step_context(NOW_MS + 100), taken=taken))

    assert story.row.due_ms == NOW_MS + 5_900
    (end,) = (each for each in story.log if isinstance(each, RunCompletion))
    assert end.finished_at_ms == NOW_MS + 900


@pytest.mark.parametrize("result", list(CompletionResult))
def test_a_run_whose_completion_stands_already_is_closed_by_that_and_nothing_is_put_again(
    result: CompletionResult,
) -> None:
    story = exclusive()
    story.end(story.row, delivered(story.row))
    taken = [TakenRow(name=story.row.name, hold=HOLD)]
    closed = close_run(story.state, story.job, result, step_context(NOW_MS + 2 * MINUTE), taken=taken)
    (stands,) = (each for each in closed.entries if isinstance(each, RunCompletion))
    story.apply(close_completed(story.state, story.job, stands, step_context(NOW_MS + 3 * MINUTE), taken=taken))

    kind = RunKind.SCHEDULED if result is CompletionResult.COMPLETED else RunKind.RETRY
    assert (story.state.open_run, story.row.run and story.row.run.kind) == (None, kind)
    assert [each for each in story.log if isinstance(each, RunCompletion)] == []


@pytest.mark.parametrize("waits", [False, True], ids=["while it is open", "while the attempt waits"])
def test_another_attempt_has_the_data_of_a_change_that_was_answered_before_it(waits: bool) -> None:
    story = exclusive()
    story.end(story.row, delivered(story.row))
    if waits:
        story.end(story.row, dropped(story.row, reason="timed_out"))
    before, wanted = story.state, replace(story.job, task_data=b"new")
    change = story.apply(update(before, story.job, wanted, story.taken(), step_context(NOW_MS + 3 * MINUTE)))
    assert set(before.pending_runs()).isdisjoint(change.state.pending_runs())
    if not waits:
        story.end(story.row, dropped(story.row, reason="timed_out"))

    assert story.row.run is not None
    assert (story.row.run.kind, story.row.run.version) == (RunKind.RETRY, 2)
    assert story.row.schedule.task_data == b"new"


@pytest.mark.parametrize("overlap", list(OverlapPolicy))
def test_a_change_of_the_trigger_while_another_attempt_waits_counts_from_now_on(overlap: OverlapPolicy) -> None:
    hourly = Trigger(rule=FixedRate(every_ms=HOUR, anchor_ms=NOW_MS))
    story = exclusive(overlap, trigger=hourly)
    story.end(story.row, delivered(story.row))
    story.end(story.row, dropped(story.row, reason="timed_out"))
    now_ms = NOW_MS + HOUR + 30 * MINUTE
    story.apply(
        update(story.state, story.job, replace(story.job, trigger=EVERY_MINUTE), story.taken(), step_context(now_ms))
    )
    story.end(story.row, delivered(story.row, now_ms))
    taken = [TakenRow(name=story.row.name, hold=HOLD)]
    story.apply(close_run(story.state, story.job, CompletionResult.COMPLETED, step_context(now_ms + 1), taken=taken))

    assert run_ids(story) == [f"s{now_ms + MINUTE}"]
    assert story.state.counts.skipped == 0


def test_values_that_were_put_into_the_data_of_a_run_are_not_read_again_for_another_attempt() -> None:
    story = exclusive(interpolate=True, task_data=b'"$${runId}"')
    story.end(story.row, delivered(story.row))
    story.end(story.row, dropped(story.row, reason="timed_out"))

    assert story.row.schedule.task_data == b'"${runId}"'


def test_a_run_that_had_waited_and_is_dropped_for_lateness_does_not_skip_again_what_was_skipped_for_it() -> None:
    story = exclusive(
        OverlapPolicy.WAIT, misfire=Misfire(policy=MisfirePolicy.SKIP), completion=CompletionPolicy(timeout_ms=HOUR)
    )
    story.end(story.row, delivered(story.row, NOW_MS + MINUTE))
    taken = [TakenRow(name=story.row.name, hold=HOLD)]
    done_ms = NOW_MS + 4 * MINUTE + 1
    story.apply(close_run(story.state, story.job, CompletionResult.COMPLETED, step_context(done_ms), taken=taken))
    story.end(story.row, dropped(story.row, NOW_MS + 10 * MINUTE + 1))

    stretches = [(each.first_ms, each.last_ms) for each in story.log if isinstance(each, SkippedTimes)]
    assert stretches == [
        (NOW_MS + 3 * MINUTE, NOW_MS + 4 * MINUTE),
        (NOW_MS + 2 * MINUTE, NOW_MS + 2 * MINUTE),
        (NOW_MS + 5 * MINUTE, NOW_MS + 10 * MINUTE),
    ]
    assert story.state.counts.skipped == 9
