"""Reports about runs, on the twins; the race of each is told where it is played."""

from dataclasses import replace
from typing import Any

import pytest

from clockwork.domain.jobs.job import (
    CompletionPolicy,
    CompletionReport,
    CompletionResult,
    Heartbeat,
    JobStatus,
    RetryOn,
    SkipReason,
)
from clockwork.domain.jobs.next_occurrence import OverlapPolicy
from clockwork.domain.retry import BackoffPolicy, RetryPolicy
from clockwork.domain.rights import ANYONE, Principal, Right, names_of
from clockwork.domain.run import RunId, RunKind
from clockwork.domain.triggers.trigger import FixedDelay, FixedRate, Trigger
from clockwork.errors import ClockUntrusted, Forbidden, Unavailable
from clockwork.ports.telemetry import NoTelemetry
from clockwork.requests.jobs.log import LogQuery
from clockwork.requests.jobs.results import (
    JobNotFound,
    JobReason,
    JobRefused,
    ReportResult,
    RunAlreadyClosed,
    RunClosed,
    RunExtended,
    RunNotFound,
    RunReason,
    RunRefused,
    RunsPage,
    RunStatus,
    RunView,
)
from tests.support.jobs import EVERY_MINUTE, NOW_MS, new_job
from tests.unit.job_desk import MINUTE_MS, NAME, JobDesk

FIRST_MS = NOW_MS + MINUTE_MS
FIRST = RunId(f"s{FIRST_MS}")
TIMEOUT_MS = 90_000
DONE = CompletionReport(attempt=1, succeeded=True, document=b'{"rows":7}', started_at_ms=FIRST_MS + 1)
FAILED = CompletionReport(attempt=1, succeeded=False, document=b'"disk full"')
RETRIED = CompletionPolicy(
    timeout_ms=TIMEOUT_MS,
    retry=RetryPolicy(attempts_max=2, backoff=BackoffPolicy(initial_ms=5_000, max_ms=5_000)),
    retry_on=frozenset(RetryOn),
)


class Desk(JobDesk):
    """A desk with consumers."""

    async def opened(self, overlap: OverlapPolicy | None = OverlapPolicy.SKIP, **fields: Any) -> None:
        """A job whose first run is delivered, and awaits its completion."""
        completion = fields.pop("completion", CompletionPolicy(timeout_ms=TIMEOUT_MS))
        await self.created(new_job(overlap=overlap, completion=completion, **fields))
        await self.deliver_at(FIRST_MS)

    async def report(self, report: CompletionReport | Heartbeat, run_id: RunId = FIRST) -> ReportResult:
        return await self.jobs.report_run(ANYONE, NAME, run_id, report)

    async def closed(self, report: CompletionReport, run_id: RunId = FIRST) -> RunView:
        result = await self.report(report, run_id)
        assert isinstance(result, RunClosed), result
        return result.run

    async def refused(self, report: CompletionReport | Heartbeat, run_id: RunId = FIRST) -> RunReason:
        result = await self.report(report, run_id)
        assert isinstance(result, RunRefused), result
        return result.reason

    def armed(self) -> list[tuple[RunKind, int]]:
        return [(row.run.kind, row.due_ms) for row in self.rows() if row.run is not None]


# --- a run beside which none may be open


async def test_a_completion_ends_the_run_arms_the_next_one_and_is_in_the_log() -> None:
    desk = Desk()
    await desk.opened()
    assert desk.armed() == [(RunKind.WATCHDOG, FIRST_MS + TIMEOUT_MS)]
    desk.clock.set_ms(FIRST_MS + 10)
    run = await desk.closed(DONE)

    assert (run.status, desk.armed()) == (RunStatus.COMPLETED, [(RunKind.SCHEDULED, FIRST_MS + MINUTE_MS)])
    shown = await desk.jobs.find_run(ANYONE, NAME, FIRST)
    assert isinstance(shown, RunView)
    assert shown.completion is not None
    assert (shown.completion.result, shown.completion.document) == (CompletionResult.COMPLETED, b'{"rows":7}')
    assert (shown.completion.started_at_ms, shown.completion.finished_at_ms) == (FIRST_MS + 1, FIRST_MS + 10)
    assert (await desk.state()).open_run is None


class SkipCounter(NoTelemetry):
    """Keeps what is counted as skipped."""

    def __init__(self) -> None:
        self.skipped: list[tuple[SkipReason, int]] = []

    def job_skipped(self, reason: SkipReason, count: int) -> None:
        self.skipped.append((reason, count))


async def test_fire_times_that_pass_while_a_run_is_open_are_an_entry_of_the_log_and_counted() -> None:
    # Case 47: skips that no caller is told of.
    telemetry = SkipCounter()
    desk = Desk(telemetry=telemetry)
    await desk.opened(completion=CompletionPolicy(timeout_ms=10 * MINUTE_MS))
    desk.clock.set_ms(FIRST_MS + 2 * MINUTE_MS + 20_000)
    await desk.closed(DONE)

    page = await desk.jobs.list_runs(ANYONE, NAME, LogQuery(status=RunStatus.SKIPPED), newest_position=None, limit=10)
    assert isinstance(page, RunsPage)
    (entry,) = page.runs
    assert entry.skipped is not None
    assert (entry.skipped.reason, entry.skipped.count) == (SkipReason.OVERLAP, 2)
    assert (entry.skipped.first_ms, entry.skipped.last_ms) == (FIRST_MS + MINUTE_MS, FIRST_MS + 2 * MINUTE_MS)
    assert telemetry.skipped == [(SkipReason.OVERLAP, 2)]
    assert (await desk.state()).counts.skipped == 2


async def test_the_same_report_again_changes_nothing_and_another_one_conflicts() -> None:
    desk = Desk()
    await desk.opened()
    await desk.closed(DONE)
    before = await desk.state()
    result = await desk.report(DONE)

    assert isinstance(result, RunAlreadyClosed)
    assert await desk.refused(FAILED) is RunReason.COMPLETED
    assert await desk.refused(Heartbeat(attempt=1, extend_ms=1_000)) is RunReason.COMPLETED
    assert await desk.state() == before


async def test_a_failure_is_followed_by_another_attempt_and_the_first_one_is_superseded_then() -> None:
    desk = Desk()
    await desk.opened(completion=RETRIED)
    run = await desk.closed(FAILED)
    assert (run.status, desk.armed()) == (RunStatus.FAILED, [(RunKind.RETRY, FIRST_MS + 5_000)])
    assert await desk.refused(DONE) is RunReason.SUPERSEDED
    await desk.deliver_at(FIRST_MS + 5_000)

    assert await desk.refused(DONE) is RunReason.SUPERSEDED
    repeated = await desk.report(FAILED)
    assert isinstance(repeated, RunAlreadyClosed)
    second = await desk.closed(replace(DONE, attempt=2))
    assert second.delivery is not None
    assert (second.delivery.attempt, second.delivery.run_id, second.delivery.kind) == (2, FIRST, RunKind.RETRY)
    assert desk.armed() == [(RunKind.SCHEDULED, FIRST_MS + MINUTE_MS)]


async def test_a_run_is_shown_at_its_latest_attempt() -> None:
    desk = Desk()
    await desk.opened(completion=RETRIED)
    await desk.closed(FAILED)
    await desk.deliver_at(FIRST_MS + 5_000)
    running = await desk.jobs.find_run(ANYONE, NAME, FIRST)
    assert isinstance(running, RunView)
    assert running.delivery is not None
    assert (running.status, running.delivery.attempt) == (RunStatus.RUNNING, 2)
    await desk.closed(replace(FAILED, attempt=2))

    ended = await desk.jobs.find_run(ANYONE, NAME, FIRST)
    assert isinstance(ended, RunView)
    assert ended.delivery is not None
    assert (ended.status, ended.delivery.attempt) == (RunStatus.FAILED, 2)


async def test_a_failure_that_is_final_is_not_tried_again() -> None:
    desk = Desk()
    await desk.opened(completion=RETRIED)
    await desk.closed(replace(FAILED, may_retry=False))
    assert desk.armed() == [(RunKind.SCHEDULED, FIRST_MS + MINUTE_MS)]
    assert await desk.refused(DONE) is RunReason.FAILED


async def test_after_the_time_out_a_report_comes_too_late() -> None:
    desk = Desk()
    await desk.opened()
    await desk.deliver_at(FIRST_MS + TIMEOUT_MS)
    assert (await desk.state()).open_run is None
    assert await desk.refused(DONE) is RunReason.TIMED_OUT
    assert await desk.refused(Heartbeat(attempt=1, extend_ms=1_000)) is RunReason.TIMED_OUT


async def test_a_report_while_the_owner_may_be_ending_the_run_promises_nothing() -> None:
    desk = Desk()
    await desk.opened()
    await desk.in_flight()
    before = await desk.state()
    assert await desk.refused(DONE) is RunReason.IN_FLIGHT
    assert await desk.refused(Heartbeat(attempt=1, extend_ms=TIMEOUT_MS * 2)) is RunReason.IN_FLIGHT
    assert await desk.state() == before


async def test_a_time_out_that_comes_between_the_hold_and_the_change_wins() -> None:
    desk = Desk()
    await desk.opened()

    async def time_out() -> None:
        await desk.deliver_at(FIRST_MS + TIMEOUT_MS)

    desk.before_change(time_out)
    assert await desk.refused(DONE) is RunReason.TIMED_OUT


async def test_a_completion_whose_answer_was_lost_is_recognised() -> None:
    desk = Desk()
    await desk.opened()
    desk.lose_answer()
    result = await desk.report(DONE)
    assert isinstance(result, RunClosed)
    assert desk.armed() == [(RunKind.SCHEDULED, FIRST_MS + MINUTE_MS)]


async def test_a_report_before_the_cleanup_waits_for_it_and_is_told_to_ask_again() -> None:
    desk = Desk(request_timeout_ms=50)
    await desk.created(new_job(overlap=OverlapPolicy.SKIP, completion=CompletionPolicy(timeout_ms=TIMEOUT_MS)))
    desk.clock.set_ms(FIRST_MS)
    with pytest.raises(Unavailable, match="not open yet"):
        await desk.report(DONE)


async def test_a_run_that_nobody_can_have_read_yet_is_not_delivered() -> None:
    desk = Desk()
    await desk.created(new_job(overlap=OverlapPolicy.SKIP, completion=CompletionPolicy(timeout_ms=TIMEOUT_MS)))
    assert await desk.refused(DONE) is RunReason.NOT_DELIVERED


async def test_a_run_is_not_called_undelivered_by_a_clock_that_is_not_trusted() -> None:
    desk = Desk()
    await desk.created(new_job(overlap=OverlapPolicy.SKIP, completion=CompletionPolicy(timeout_ms=TIMEOUT_MS)))
    desk.engine.trust.is_trusted = False
    with pytest.raises(ClockUntrusted):
        await desk.report(DONE)


async def test_runs_and_attempts_that_never_were_are_not_found() -> None:
    desk = Desk()
    assert isinstance(await desk.report(DONE), JobNotFound)
    await desk.opened()
    assert isinstance(await desk.report(DONE, RunId("s1")), RunNotFound)
    assert isinstance(await desk.report(replace(DONE, attempt=2)), RunNotFound)


async def test_a_run_whose_job_asked_for_no_completion_has_none() -> None:
    desk = Desk()
    await desk.opened(overlap=None, completion=None)
    assert await desk.refused(DONE) is RunReason.NOT_ASKED
    desk.clock.set_ms(FIRST_MS + MINUTE_MS)
    assert await desk.refused(DONE, RunId(f"s{FIRST_MS + MINUTE_MS}")) is RunReason.NOT_ASKED


async def test_a_run_that_is_open_for_longer_than_its_entry_is_kept_is_completed_all_the_same() -> None:
    desk = Desk()
    await desk.opened()
    desk.engine.jobs.tables.log.clear()
    shown = await desk.jobs.find_run(ANYONE, NAME, FIRST)
    assert isinstance(shown, RunView)
    assert (shown.status, shown.run_id) == (RunStatus.RUNNING, FIRST)
    assert (await desk.closed(DONE)).status is RunStatus.COMPLETED


async def test_a_pause_leaves_the_run_open_and_its_completion_counts_but_arms_nothing() -> None:
    desk = Desk()
    await desk.opened()
    await desk.pause()
    assert desk.armed() == [(RunKind.WATCHDOG, FIRST_MS + TIMEOUT_MS)]
    await desk.closed(DONE)
    assert (desk.rows(), (await desk.state()).status) == ([], JobStatus.PAUSED)


async def test_a_deleted_job_takes_no_reports() -> None:
    desk = Desk()
    await desk.opened()
    await desk.delete()
    result = await desk.report(DONE)
    assert isinstance(result, JobRefused)
    assert (result.reason, desk.rows()) == (JobReason.DELETED, [])


async def test_so_many_failed_runs_in_a_row_pause_the_job(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    await desk.opened(pause_after_failures=2)
    await desk.closed(FAILED)
    await desk.deliver_at(FIRST_MS + MINUTE_MS)
    await desk.closed(FAILED, RunId(f"s{FIRST_MS + MINUTE_MS}"))
    state = await desk.state()
    assert (state.status, state.pause_reason, desk.rows()) == (
        JobStatus.PAUSED,
        "paused after 2 failed runs in a row",
        [],
    )
    assert [getattr(each, "event", None) for each in caplog.records] == ["job.paused_by_failures"]


async def test_a_fixed_delay_counts_from_the_completion() -> None:
    desk = Desk()
    await desk.created(
        new_job(Trigger(rule=FixedDelay(delay_ms=5_000)), completion=CompletionPolicy(timeout_ms=TIMEOUT_MS))
    )
    await desk.deliver()
    desk.clock.set_ms(NOW_MS + 70_000)
    await desk.closed(DONE, RunId(f"s{NOW_MS}"))
    assert desk.armed() == [(RunKind.SCHEDULED, NOW_MS + 75_000)]


async def test_a_run_by_hand_waits_until_the_open_run_has_ended() -> None:
    desk = Desk()
    await desk.opened()
    refused = await desk.run_now()
    assert isinstance(refused, JobRefused)
    assert refused.reason is JobReason.RUNNING
    await desk.closed(DONE)
    await desk.run_now()
    assert [kind for kind, _ in desk.armed()] == [RunKind.MANUAL]


# --- heartbeats


async def test_a_heartbeat_moves_the_time_out_and_never_brings_it_nearer() -> None:
    desk = Desk()
    await desk.opened()
    desk.clock.set_ms(FIRST_MS + 60_000)
    result = await desk.report(Heartbeat(attempt=1, extend_ms=60_000))
    assert isinstance(result, RunExtended)
    assert (result.until_ms, desk.armed()) == (FIRST_MS + 120_000, [(RunKind.WATCHDOG, FIRST_MS + 120_000)])

    before = await desk.state()
    nearer = await desk.report(Heartbeat(attempt=1, extend_ms=1_000))
    assert isinstance(nearer, RunExtended)
    assert (nearer.until_ms, await desk.state()) == (FIRST_MS + 120_000, before)

    await desk.deliver_at(FIRST_MS + TIMEOUT_MS)
    assert (await desk.state()).open_run is not None
    assert (await desk.closed(DONE)).status is RunStatus.COMPLETED


async def test_a_heartbeat_whose_answer_was_lost_is_made_once() -> None:
    desk = Desk()
    await desk.opened()
    before = await desk.state()
    desk.lose_answer()
    result = await desk.report(Heartbeat(attempt=1, extend_ms=TIMEOUT_MS * 2))
    assert isinstance(result, RunExtended)
    assert (result.until_ms, (await desk.state()).rev) == (FIRST_MS + TIMEOUT_MS * 2, before.rev + 1)


# --- what was done by hand


@pytest.mark.parametrize("report", [DONE, FAILED, Heartbeat(attempt=1, extend_ms=TIMEOUT_MS * 2)])
async def test_a_report_of_a_run_whose_watchdog_is_lost_puts_it_again_and_counts(
    report: CompletionReport | Heartbeat,
) -> None:
    desk = Desk()
    await desk.opened()
    desk.lose(*desk.rows())
    result = await desk.report(report)

    assert isinstance(result, RunClosed | RunExtended)
    until_ms = FIRST_MS + TIMEOUT_MS * 2
    watched = [(RunKind.WATCHDOG, until_ms)]
    assert desk.armed() == (watched if report not in (DONE, FAILED) else [(RunKind.SCHEDULED, FIRST_MS + MINUTE_MS)])


@pytest.mark.parametrize(
    ("report", "reason"),
    [(DONE, None), (FAILED, RunReason.COMPLETED), (Heartbeat(attempt=1, extend_ms=1_000), RunReason.COMPLETED)],
)
async def test_an_open_run_whose_completion_is_noted_already_is_closed_by_what_stands(
    report: CompletionReport | Heartbeat, reason: RunReason | None
) -> None:
    desk = Desk()
    await desk.opened()
    before, (watchdog,) = await desk.state(), desk.rows()
    await desk.closed(DONE)
    # State and rows as they were, as from a table that was restored to an earlier time; the log is the present one.
    desk.engine.jobs.tables.states[NAME] = before
    desk.lose(*desk.rows())
    desk.put_back(watchdog)
    result = await desk.report(report)

    assert (
        isinstance(result, RunAlreadyClosed)
        if reason is None
        else isinstance(result, RunRefused) and result.reason is reason
    )
    assert ((await desk.state()).open_run, desk.armed()) == (None, [(RunKind.SCHEDULED, FIRST_MS + MINUTE_MS)])


async def test_a_report_of_a_run_that_waits_for_its_lane_is_told_that_it_is_not_delivered() -> None:
    desk = Desk()
    await desk.created(new_job(overlap=OverlapPolicy.SKIP, completion=CompletionPolicy(timeout_ms=TIMEOUT_MS)))
    desk.clock.set_ms(FIRST_MS + 60_000)
    assert await desk.refused(DONE) is RunReason.NOT_DELIVERED
    assert desk.armed() == [(RunKind.SCHEDULED, FIRST_MS)]


# --- runs that may overlap


async def test_where_runs_may_overlap_a_late_completion_counts_and_the_next_run_does_not_wait() -> None:
    desk = Desk()
    await desk.opened(overlap=None, trigger=EVERY_MINUTE)
    assert desk.armed() == [(RunKind.SCHEDULED, FIRST_MS + MINUTE_MS)]
    running = await desk.jobs.find(ANYONE, NAME)
    assert running is not None
    assert [each.status for each in running.open_runs or ()] == [RunStatus.RUNNING]
    desk.clock.set_ms(FIRST_MS + TIMEOUT_MS)
    shown = await desk.jobs.find_run(ANYONE, NAME, FIRST)
    assert isinstance(shown, RunView)
    assert shown.status is RunStatus.TIMED_OUT

    before = await desk.state()
    assert (await desk.closed(DONE)).status is RunStatus.COMPLETED
    assert (await desk.state(), await desk.refused(FAILED)) == (before, RunReason.COMPLETED)


async def test_a_heartbeat_without_a_time_out_that_it_could_move_promises_no_time() -> None:
    overlapping, restored = Desk(), Desk()
    await overlapping.opened(overlap=None)
    await restored.opened()
    await restored.delete()
    await restored.restore()
    for desk in (overlapping, restored):
        assert await desk.refused(Heartbeat(attempt=1, extend_ms=TIMEOUT_MS * 2)) is RunReason.NOT_OPEN
        assert (await desk.closed(DONE)).status is RunStatus.COMPLETED


async def test_of_two_reports_of_a_run_that_may_overlap_the_first_stands() -> None:
    desk = Desk()
    await desk.opened(overlap=None)
    store, real = desk.engine.jobs, desk.engine.jobs.put_completion

    async def second(*args: Any, **named: Any) -> None:
        setattr(store, "put_completion", real)  # noqa: B010  # a method, which types do not let us assign
        await desk.closed(DONE)
        await real(*args, **named)

    setattr(store, "put_completion", second)  # noqa: B010
    assert await desk.refused(FAILED) is RunReason.COMPLETED


async def test_a_run_with_jitter_is_found_at_its_due_time() -> None:
    desk = Desk()
    every_hour = Trigger(rule=FixedRate(every_ms=60 * MINUTE_MS, anchor_ms=NOW_MS))
    await desk.opened(overlap=None, trigger=every_hour)
    view = await desk.jobs.find(ANYONE, NAME)
    assert view is not None
    assert view.next_run is not None
    await desk.deliver_at(view.next_run.due_ms)
    assert (await desk.closed(DONE, view.next_run.run_id)).status is RunStatus.COMPLETED


# --- rights


async def test_reports_need_the_right_complete() -> None:
    desk = Desk()
    await desk.opened()
    rights = frozenset({Right.CREATE, Right.CANCEL, Right.READ})
    producer = Principal(name="p", clients=names_of(["*"]), topics=names_of(["*"]), rights=rights)
    with pytest.raises(Forbidden):
        await desk.jobs.report_run(producer, NAME, FIRST, DONE)
    consumer = replace(producer, rights=frozenset({Right.COMPLETE}))
    assert isinstance(await desk.jobs.report_run(consumer, NAME, FIRST, DONE), RunClosed)
