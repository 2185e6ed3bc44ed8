"""Was every promise about jobs kept? Judged from the rows, records, states and log entries that the worlds hold, and from
what clients were told. The fire times that there should be are computed from the triggers.

Each broken promise is named by one word, as in `checkers`: twice, lost, early, order, cancelled (a row that a request took
was delivered), untrue (an answer, an entry), orphan (a job went on no more, or is named where nothing is).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from clockwork.domain.jobs.calendar import CalendarName, digests_of
from clockwork.domain.jobs.job import (
    CompletionReport,
    CompletionResult,
    JobName,
    JobState,
    JobStatus,
    RunDelivery,
    SkippedTimes,
)
from clockwork.domain.run import RunKind
from clockwork.domain.schedule import Guarantee, Row
from clockwork.domain.triggers.trigger import FixedDelay, Trigger
from clockwork.requests.jobs.results import JobChanged, RunAlreadyClosed, RunClosed, RunNotFound, RunReason, RunRefused
from tests.simulation.checkers import Evidence, Found, check_place, check_time, explained
from tests.simulation.clocks import EPOCH_MS
from tests.simulation.cluster import Cluster
from tests.simulation.job_calendar import CALENDAR
from tests.simulation.job_clients import JobClients
from tests.simulation.kafka_world import DEAD_LETTERS, OWN_DEAD_LETTERS
from tests.simulation.store_world import name_of
from tests.simulation.workload import CLIENT

RUN_ON_SLACK_MS: Final = 4_500
"""Fire times that lie so far before the last delete must have been fired or skipped: clocks, lead, one scan and cleanup."""
CLOCKS_MS: Final = 2_000
"""The clocks of two nodes do not differ by more."""
OPEN_SLACK_MS: Final = 4_000
"""The same, for the time in which a run may be open: two attempts of at most 1.3 s, and a heartbeat."""


@dataclass(kw_only=True, slots=True)
class _Window:
    """A time in which a job was active with one trigger, as its states tell."""

    start_ms: int
    """By the clock of the node whose request began it. Fire times that are due later belong to it."""
    rev: int
    trigger: Trigger
    behind_ms: int
    """Only fire times later than this belong to it: its creation, and those that were fired before it, or were in flight, by
    a node whose clock is ahead of the one that began it."""
    passed_ms: int
    """Fire times up to then were passed over by an earlier window. A window that a slower clock began need not have them."""
    end_rev: int | None = None
    deleted_ms: int | None = None
    """The time of the delete, if a delete ended it."""
    rows: list[Row] = field(default_factory=list)
    """The rows of fire times that were armed in it, and have records."""
    skipped: list[SkippedTimes] = field(default_factory=list)

    def has(self, rev: int) -> bool:
        return self.rev <= rev and (self.end_rev is None or rev < self.end_rev)


def check_jobs(cluster: Cluster, evidence: Evidence, clients: JobClients) -> None:
    """All checks."""
    jobs = cluster.worlds.jobs
    by_name: dict[JobName, list[Row]] = {}
    for row in evidence.job_rows:
        name = JobName(row.schedule.client_id, row.schedule.schedule_key)  # type: ignore[arg-type]
        by_name.setdefault(name, []).append(row)
        _check_row(cluster, evidence, name, row)
    for name, states in jobs.tables.states.ever.items():  # type: ignore[attr-defined]
        _check_fire_times(cluster, evidence, name, states, by_name.get(name, []), clients.deleted_from_s.get(name))
        _check_order(cluster, evidence, name, by_name.get(name, []))
    for name, state in jobs.tables.states.items():
        if state.status is not JobStatus.DELETED or list(state.pending()):
            cluster.trace.violation("orphan", f"{name} is {state.status} and names {list(state.pending())}")
    _check_answers(cluster, evidence, by_name, clients)
    _check_calendar(cluster, evidence, by_name, clients)
    for name, rows in by_name.items():
        _check_open_runs(cluster, evidence, name, jobs.tables.states.ever.get(name, ()), rows)  # type: ignore[attr-defined]
    _check_reports(cluster, by_name, clients)


def _check_row(cluster: Cluster, evidence: Evidence, name: JobName, row: Row) -> None:
    """Delivered once, as its entry says; or taken, dropped, or lost by hand; never early."""
    violation, jobs = cluster.trace.violation, cluster.worlds.jobs
    found = evidence.of(row)
    exactly = row.schedule.guarantee is Guarantee.EXACTLY_ONCE
    for each in found:
        check_time(cluster, row, each)
    assert row.run is not None
    if row.due_ms < row.run.scheduled_at_ms:
        violation("early", f"{_told(row)} is due before its fire time")
    if len(found) > 1 and (exactly or not explained(cluster, row, found)):
        violation("twice", f"{_told(row)}: {[(f.where, f.entry.offset, f.entry.by) for f in found]}")
    entry = jobs.tables.log.get((name, row.position))
    if row.position in jobs.taken:
        if found or entry is not None:
            violation("cancelled", f"{_told(row)} was taken by a request and ended as {entry}")
        return
    if row.position in jobs.lost:
        if found:
            violation("untrue", f"{_told(row)} was deleted by hand and delivered")
        return
    if isinstance(entry, RunDelivery):
        dead = entry.failure is not None
        if entry.receipt is not None:
            check_place(cluster, row, entry.receipt, [f for f in found if (f.where[0] in _DEAD) is dead])
    elif found and (exactly or row.position not in evidence.dropped):
        violation("lost", f"{_told(row)} has {len(found)} records and no entry")
    elif row.position not in evidence.dropped:
        violation("lost", f"{_told(row)} is gone")


_DEAD: Final = (DEAD_LETTERS, OWN_DEAD_LETTERS)


# --- fire times


def _check_fire_times(
    cluster: Cluster,
    evidence: Evidence,
    name: JobName,
    states: Sequence[JobState],
    rows: Sequence[Row],
    deleted_from_s: float | None,
) -> None:
    """Per fire time one record, or one skipped entry that covers it; none is left out between two that are."""
    violation, jobs = cluster.trace.violation, cluster.worlds.jobs
    windows = _windows(cluster, name, states, rows)
    skipped = [entry for (of, _), entry in jobs.tables.log.items() if of == name and isinstance(entry, SkippedTimes)]
    fired: dict[int, list[str]] = {}
    for row in rows:
        job = row.run
        if job is None or job.kind not in (RunKind.SCHEDULED, RunKind.CATCH_UP) or not evidence.of(row):
            continue
        fired.setdefault(job.scheduled_at_ms, []).append(_told(row))
        window = next((each for each in windows if each.has(job.rev)), None)
        if window is None:
            violation("untrue", f"{_told(row)} was armed while {name} was not active")
            continue
        window.rows.append(row)
    for entry in skipped:
        rev = jobs.skipped_at_rev[entry.position]
        window = next((each for each in reversed(windows) if each.rev <= rev), None)
        if window is not None:
            window.skipped.append(entry)
        # The fire time of a row that was dropped, of a trigger that is another one by now.
        if window is None or not _belongs(window, str(name), entry.first_ms):
            fired.setdefault(entry.first_ms, []).append(f"skipped {entry.first_ms}")
    for window in windows:
        if isinstance(window.trigger.rule, FixedDelay):
            continue
        for entry in window.skipped:
            for at_ms in _between(window, str(name), entry.first_ms, entry.last_ms):
                fired.setdefault(at_ms, []).append(f"skipped {entry.first_ms} to {entry.last_ms}")
    loose = {_told(row) for row in rows if row.schedule.guarantee is Guarantee.AT_LEAST_ONCE}
    for at_ms, covers in fired.items():
        # One that was dropped for lateness may be sent all the same, by a node that did not know that.
        if len(covers) > 1 and not loose.intersection(covers):
            violation("twice", f"{name} at {at_ms}: {covers}")
    for window in windows:
        _check_window(cluster, evidence, name, window, fired, states[-1], deleted_from_s, last=window is windows[-1])


def _windows(cluster: Cluster, name: JobName, states: Sequence[JobState], rows: Sequence[Row]) -> list[_Window]:
    windows: list[_Window] = []
    before: JobState | None = None
    created_ms = 0
    taken = cluster.worlds.jobs.taken
    of_trigger = [
        row.run
        for row in rows
        if row.run is not None and row.run.kind in (RunKind.SCHEDULED, RunKind.CATCH_UP) and row.position not in taken
    ]
    definitions = cluster.worlds.jobs.tables.definitions
    for state in states:
        if before is None or before.created_at_ms != state.created_at_ms:
            created_ms = state.cursor_ms
        trigger = definitions[(name, state.version)].trigger
        active = state.status is JobStatus.ACTIVE
        goes_on = (
            before is not None
            and before.status is JobStatus.ACTIVE
            and before.created_at_ms == state.created_at_ms
            and windows[-1].trigger == trigger
        )
        if windows and windows[-1].end_rev is None and not (active and goes_on):
            windows[-1].end_rev = state.rev
            windows[-1].deleted_ms = state.updated_at_ms if state.status is JobStatus.DELETED else None
        if active and not goes_on and trigger is not None:
            fired_before = [
                job.scheduled_at_ms
                for job in of_trigger
                if job.rev < state.rev and definitions[(name, job.version)].created_at_ms == state.created_at_ms
            ]
            windows.append(
                _Window(
                    start_ms=_start_ms(before, state),
                    passed_ms=max((each.start_ms for each in windows), default=0),
                    rev=state.rev,
                    trigger=trigger,
                    behind_ms=max(created_ms, *fired_before, 0),
                )
            )
        before = state
    return windows


def _start_ms(before: JobState | None, state: JobState) -> int:
    """The time from which a window has fire times. One that a change of a calendar began, which left the armed row where it
    was, goes on behind that row: nothing is passed over."""
    armed = state.armed
    if before is None or armed is None or armed != before.armed or state.cursor_ms != before.cursor_ms:
        return state.updated_at_ms
    of_trigger = armed.kind in (RunKind.SCHEDULED, RunKind.CATCH_UP)
    return min(state.updated_at_ms, armed.cursor_ms if of_trigger else state.cursor_ms)


def _belongs(window: _Window, job: str, at_ms: int) -> bool:
    trigger = window.trigger
    if isinstance(trigger.rule, FixedDelay):
        return True
    return trigger.last_at(at_ms) == at_ms and trigger.due_ms(at_ms, job) > window.start_ms


def _between(window: _Window, job: str, first_ms: int, last_ms: int) -> list[int]:
    """The window's fire times from one time to another, both included."""
    found = []
    at_ms = window.trigger.next_after(first_ms - 1)
    while at_ms is not None and at_ms <= last_ms:
        if window.trigger.due_ms(at_ms, job) > window.start_ms:
            found.append(at_ms)
        at_ms = window.trigger.next_after(at_ms)
    return found


def _check_window(
    cluster: Cluster,
    evidence: Evidence,
    name: JobName,
    window: _Window,
    fired: dict[int, list[str]],
    state: JobState,
    deleted_from_s: float | None,
    *,
    last: bool,
) -> None:
    violation, trigger = cluster.trace.violation, window.trigger
    times = [row.run.scheduled_at_ms for row in window.rows if row.run is not None]
    times += [entry.last_ms for entry in window.skipped]
    until_ms = max(times, default=0)
    from_ms = None if deleted_from_s is None else EPOCH_MS + int(deleted_from_s * 1_000)
    # Not one that ended by a pause, or by another delete, that was asked for long before and came late.
    by_last_delete = from_ms is not None and window.deleted_ms is not None and window.deleted_ms >= from_ms - 1_000
    runs_on = last and by_last_delete and trigger.runs_max is None
    if runs_on and from_ms is not None:
        # The job ran on until then: it is no orphan, and nothing waits.
        definition = cluster.worlds.jobs.tables.definitions[(name, state.version)]
        slack_ms = RUN_ON_SLACK_MS + (OPEN_SLACK_MS if definition.completion is not None else 0)
        until_ms = max(until_ms, from_ms - slack_ms)
    if isinstance(trigger.rule, FixedDelay):
        if runs_on and max(times, default=0) < until_ms - trigger.rule.delay_ms:
            violation("orphan", f"{name}: no run since {max(times, default=None)}, and it was active until {until_ms}")
        _check_delays(cluster, evidence, window, trigger.rule)
        return
    before = {row.run.scheduled_at_ms for row in evidence.job_rows if row.run is not None and row.run.rev < window.rev}
    for row in window.rows:
        assert row.run is not None
        # One that was in flight when the window began may be taken by a later change, and put again.
        if not _belongs(window, str(name), row.run.scheduled_at_ms) and row.run.scheduled_at_ms not in before:
            violation("untrue", f"{_told(row)} is of no fire time after {window.start_ms}")
    first_ms = max(window.start_ms - 10_000, window.behind_ms + 1)
    missing = [
        at_ms
        for at_ms in _between(window, str(name), first_ms, until_ms)
        if at_ms not in fired and trigger.due_ms(at_ms, str(name)) > window.passed_ms
    ]
    if missing:
        kind = "orphan" if min(missing) > max(times, default=0) else "lost"
        violation(kind, f"{name}: neither run nor skipped: {missing}, window from {window.start_ms}, rev {window.rev}")


# --- open runs


def _check_open_runs(
    cluster: Cluster, evidence: Evidence, name: JobName, states: Sequence[JobState], rows: Sequence[Row]
) -> None:
    """While a run is open nothing is armed in the main chain but its watchdogs, of which each ends by the time-out or by a
    request, and never by both; and its time-out does not come nearer."""
    violation, taken = cluster.trace.violation, cluster.worlds.jobs.taken
    for before, state in pairwise(states):
        run, was = state.open_run, before.open_run
        if run is None:
            continue
        if state.armed is None or state.armed.kind is not RunKind.WATCHDOG:
            violation("overlap", f"{name} rev {state.rev}: {run.run_id} is open, and {state.armed} is armed")
        if was is not None and was.position == run.position and run.until_ms < was.until_ms:
            violation("untrue", f"{name} rev {state.rev}: the time-out of {run.run_id} comes nearer")
    for row in rows:
        if row.run is not None and row.run.is_watchdog:
            if row.position in taken and row.position in evidence.dropped:
                violation("twice", f"{_told(row)} was taken by a request, and ended by the time-out")
            if evidence.of(row):
                violation("untrue", f"{_told(row)} was sent")


def _check_reports(cluster: Cluster, by_name: dict[JobName, list[Row]], clients: JobClients) -> None:
    """Checks what consumers were told of runs whose records they had read."""
    violation, tables = cluster.trace.violation, cluster.worlds.jobs.tables
    for each in clients.consumers.reports:
        rows = [row for row in by_name.get(each.name, []) if row.run is not None and row.run.run_id == each.run_id]
        results = {
            completion.result
            for row in rows
            if row.run is not None and row.run.attempt == each.report.attempt
            if (completion := tables.completions.get((each.name, row.position))) is not None
        }
        told = f"{each.name} {each.run_id}/{each.report.attempt}: {each.report} was answered {each.answer}"
        match each.answer:
            case RunClosed() | RunAlreadyClosed() if (
                isinstance(each.report, CompletionReport) and each.report.result not in results
            ):
                violation("untrue", f"{told}, and its completion is {results}")
            case RunRefused(reason) if reason in _BY_REASON and _BY_REASON[reason] not in results:
                delivered = any(
                    isinstance(entry := tables.log.get((each.name, row.position)), RunDelivery)
                    and entry.failure is None
                    for row in rows
                )
                if delivered:
                    violation("untrue", f"{told}, and its completion is {results}")
            case RunRefused(RunReason.SUPERSEDED):
                attempts = [row.run.attempt for row in rows if row.run is not None]
                if max(attempts) <= each.report.attempt:
                    violation("untrue", f"{told}, and its attempts are {attempts}")
            case RunRefused(RunReason.NOT_DELIVERED | RunReason.NOT_ASKED) | RunNotFound():
                violation("untrue", told)


_BY_REASON: Final = {
    RunReason.COMPLETED: CompletionResult.COMPLETED,
    RunReason.FAILED: CompletionResult.FAILED,
    RunReason.TIMED_OUT: CompletionResult.TIMED_OUT,
}


def _check_delays(cluster: Cluster, evidence: Evidence, window: _Window, rule: FixedDelay) -> None:
    """Each run of a fixed delay comes that long after the end of the one before it. One of at_least_once that came twice has
    two ends."""
    before: Found | None = None
    once = [row for row in window.rows if row.schedule.guarantee is Guarantee.EXACTLY_ONCE]
    for row in sorted(once, key=lambda row: row.run.rev if row.run is not None else 0):
        found = evidence.of(row)[0]
        if before is not None and before.entry.record is not None and row.run is not None:
            due_ms = before.entry.record.timestamp_ms + rule.delay_ms
            if row.run.scheduled_at_ms < due_ms:
                cluster.trace.violation("early", f"{_told(row)}: {due_ms - row.run.scheduled_at_ms} ms")
        before = found


def _check_order(cluster: Cluster, evidence: Evidence, name: JobName, rows: Sequence[Row]) -> None:
    """The runs of a trigger's fire times come in their order. Those of a job that was deleted, and made again, may come
    behind the first ones of the new job: they were in flight. And a fixed delay counts from the clock of the node that began
    with it, which may be behind the times of the trigger before."""
    seen: list[tuple[int, int, float, Row]] = []
    definitions = cluster.worlds.jobs.tables.definitions

    def trigger_of(row: Row) -> Trigger | None:
        return definitions[(name, row.schedule.version)].trigger

    for row in rows:
        found = evidence.of(row)
        of_trigger = row.run is not None and row.run.kind in (RunKind.SCHEDULED, RunKind.CATCH_UP)
        if of_trigger and found and row.schedule.guarantee is Guarantee.EXACTLY_ONCE and row.run is not None:
            made_at_ms = definitions[(name, row.run.version)].created_at_ms
            seen.append((made_at_ms, row.run.scheduled_at_ms, found[0].visible_at_s, row))
    seen.sort(key=lambda each: each[:3])
    for (one_made, _, one_s, one), (other_made, _, other_s, other) in pairwise(seen):
        if other_s < one_s and one_made == other_made and trigger_of(one) == trigger_of(other):
            cluster.trace.violation("order", f"{_told(other)} before {_told(one)}")


# --- answers


def _check_answers(
    cluster: Cluster, evidence: Evidence, by_name: dict[JobName, list[Row]], clients: JobClients
) -> None:
    """A change that was answered with the runs in flight: of the rows before it these, and no others, came after that."""
    definitions = cluster.worlds.jobs.tables.definitions
    for op in clients.ops:
        answer = op.answer
        changes = op.what in ("pause", "delete") or op.what.startswith("put")
        if not changes or not isinstance(answer, JobChanged) or op.answered_at_s is None:
            continue
        state = answer.view.state
        in_flight = {each.position for each in answer.view.in_flight}
        for row in by_name.get(op.name, []):
            if row.run is None or row.run.rev >= state.rev or row.position in in_flight:
                continue
            if definitions[(op.name, row.run.version)].created_at_ms != state.created_at_ms:
                continue  # of a job that was deleted before: the answer to that told of it
            if op.what.startswith("put") and row.run.version >= state.version:
                # As the change made it. The answer may be of a later state: of a try whose own answer was lost, and that
                # found its definition in place after another step.
                continue
            late = [found for found in evidence.of(row) if found.visible_at_s > op.answered_at_s]
            if late and row.schedule.guarantee is Guarantee.EXACTLY_ONCE:
                cluster.trace.violation("untrue", f"op {op.number} {op.what} was answered, and then came {_told(row)}")


def _check_calendar(
    cluster: Cluster, evidence: Evidence, by_name: dict[JobName, list[Row]], clients: JobClients
) -> None:
    """A put of a calendar that was answered with the jobs behind: of no other came a run that it excludes, of a definition
    that was resolved with a calendar of before. And in the end, when each job has run on, all have followed."""
    calendar, tables = clients.calendar, cluster.worlds.jobs.tables
    if calendar is None:
        return
    for name, rows in by_name.items():
        for row in rows:
            if row.run is None or row.run.kind not in (RunKind.SCHEDULED, RunKind.CATCH_UP):
                continue
            trigger = tables.definitions[(name, row.run.version)].trigger
            digests = dict(digests_of(trigger))
            if trigger is None or CALENDAR not in digests or row.schedule.guarantee is not Guarantee.EXACTLY_ONCE:
                continue
            made_by = calendar.number_of[digests[CALENDAR]]
            for put in calendar.puts:
                at_ms = row.run.scheduled_at_ms
                if made_by >= put.number or name.job_id in put.answer.behind or put.answer.more_behind:
                    continue
                if trigger.resolved({CALENDAR: put.content}).last_at(at_ms) == at_ms:
                    continue
                if _left_calendar(cluster, name, row, before_ms=EPOCH_MS + int(put.answered_at_s * 1_000)):
                    continue
                late = [found for found in evidence.of(row) if found.visible_at_s > put.answered_at_s]
                if late:
                    cluster.trace.violation(
                        "untrue", f"the calendar's put {put.number} was answered, and then came {_told(row)}"
                    )
    final = tables.calendars[CalendarName(CLIENT, CALENDAR)].exclusion.digest
    for name, state in tables.states.items():
        digest = dict(state.calendars).get(CALENDAR, final)
        deleted_early = name not in clients.deleted_from_s
        if digest != final and not deleted_early:
            cluster.trace.violation("orphan", f"{name} still goes by the calendar's put {calendar.number_of[digest]}")


def _left_calendar(cluster: Cluster, name: JobName, row: Row, *, before_ms: int) -> bool:
    """True if the job was made anew, or named the calendar no more, before a time by any clock. What it had in flight was
    told by the request that made it so."""
    definitions = cluster.worlds.jobs.tables.definitions
    assert row.run is not None
    own = definitions[(name, row.run.version)]
    return any(
        job.created_at_ms != own.created_at_ms or CALENDAR not in dict(digests_of(job.trigger))
        for (of, version), job in definitions.items()
        if of == name and version > own.version and job.changed_at_ms <= before_ms + CLOCKS_MS
    )


def _told(row: Row) -> str:
    job = row.run
    return f"{name_of(row)} {job.run_id} {job.kind} rev {job.rev}" if job is not None else name_of(row)
