"""Were the promises about jobs kept? Per job and fire time one record, or one skipped entry that covers it; none twice, none
early, in order; each run as some version has it; and no job that has stopped.

Fire times come from arithmetic (`job_history.Every`), not from the service's triggers. A job that is not paused, deleted or
gives another trigger must account for each of them from its creation on. Any other may leave out those that passed before a
request made it go on: a resume, a restore, another trigger, a create in the place of a deleted job; and so may one that
names a calendar, before it follows a change of that.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.healed_jobs import JobEnd
from tests.chaos.job_history import Every, JobHistory
from tests.chaos.job_records import Entry, RunRecord, entries_of, skips_of


@dataclass(frozen=True, kw_only=True, slots=True)
class OfJob:
    """All that is known of one job."""

    asked: JobHistory
    end: JobEnd
    runs: Sequence[RunRecord]
    """In the order in which they were appended; dead letters among them."""
    ahead_ms: Callable[[int], int] = lambda at_ms: 0
    skew_ms: int = 0
    unrest: Sequence[tuple[int, int]] = ()

    @property
    def exactly_once(self) -> bool:
        return self.asked.guarantee == "exactly_once"

    def entries(self) -> Sequence[Entry]:
        """The runs in its log, oldest first."""
        return entries_of(self.end.log, self.asked.topic)

    def lives(self) -> Callable[[int], int] | None:
        """By version, which job of this name it was, of those that were made one in the place of the other. None: it is not
        known where the next one begins."""
        creates = self.asked.of("create")
        if len(creates) > 1 and not all(op.accepted for op in creates):
            return None
        begins = [op.answer.version for op in creates if op.answer is not None]
        return lambda version: sum(begin <= version for begin in begins)

    def told(self, what: object) -> str:
        return f"{self.asked.job_id}: {what}"


def twice(job: OfJob) -> Iterator[str]:
    """Attempts of runs that were delivered more than once: of at_least_once without anything that explains it."""
    by_key: dict[tuple[str, int], list[RunRecord]] = defaultdict(list)
    for run in job.runs:
        by_key[run.key].append(run)
    for several in by_key.values():
        for before, after in itertools.pairwise(several):
            explained = any(from_ms <= after.at_ms and before.at_ms <= to_ms for from_ms, to_ms in job.unrest)
            if job.exactly_once or not explained:
                yield job.told(f"{before}, and {after}")


def covered_twice(job: OfJob) -> Iterator[str]:
    """Fire times that were fired and skipped, or skipped twice."""
    skips = skips_of(job.end.log)
    for one, other in itertools.pairwise(skips):
        if other.first_ms <= one.last_ms:
            yield job.told(f"{one}, and {other}")
    if not job.exactly_once and job.asked.body["misfire"]["policy"] == "skip":
        return  # one that is dropped, since late, may be sent all the same by a node that does not know that
    for run in job.runs:
        skip = next((skip for skip in skips if skip.first_ms <= run.scheduled_at_ms <= skip.last_ms), None)
        if run.of_fire_time and skip is not None:
            yield job.told(f"{run}, and {skip}")


@dataclass(frozen=True, slots=True)
class _Covered:
    """One or more fire times that are accounted for."""

    first_ms: int
    last_ms: int
    by_ms: float
    """The latest time at which that was known."""
    every: Every | None
    """The fire times that hold from there on; None: they are not known."""


def left_out(job: OfJob) -> Iterator[str]:
    """Fire times between two others that were neither fired nor skipped, and not passed over by a request."""
    asked = job.asked
    if asked.every is None or asked.accepted_ms is None:
        return
    begin_ms = min(each.sent_ms for op in asked.of("create") for each in op.windows())
    restarts = [window for op in asked.ops if op.restarts for window in op.windows()]
    restarts += asked.calendar_changes()
    for before, after in itertools.pairwise([_Covered(begin_ms, begin_ms, 0, None), *_covered(job)]):
        if after.every is None:
            continue
        missing = after.every.between(before.last_ms + 1, after.first_ms - 1)
        if missing and not any(
            window.sent_ms <= after.by_ms and missing[-1] <= window.until_ms + job.skew_ms for window in restarts
        ):
            yield job.told(
                f"{len(missing)} fire times from {missing[0]} to {missing[-1]} were neither fired nor skipped"
            )


def _covered(job: OfJob) -> list[_Covered]:
    asked, contents = job.asked, job.asked.contents()

    def every_of(version: int) -> Every | None:
        if asked.one_trigger:
            return asked.every
        return next((every for _, every in contents.get(version, ())), None)

    found = [
        _Covered(run.scheduled_at_ms, run.scheduled_at_ms, run.at_ms, every_of(run.version))
        for run in job.runs
        if run.of_fire_time
    ]
    found += [_Covered(skip.first_ms, skip.last_ms, float("inf"), every_of(0)) for skip in skips_of(job.end.log)]
    return sorted(found, key=lambda each: each.first_ms)


def despite_calendar(job: OfJob) -> Iterator[str]:
    """Runs of fire times that the calendar excludes, after the answer that it does, and before it was asked to be otherwise.
    One that is sent again, since its outcome was lost, may be of before."""
    if not job.exactly_once:
        return
    for put, after in itertools.pairwise(job.asked.calendar_puts):
        if put.closed and put.reached(job.asked.job_id) and put.answered_ms is not None:
            for run in job.runs:
                if run.of_fire_time and put.answered_ms < run.at_ms < after.sent_ms:
                    yield job.told(f"{run}, and its calendar was closed at {put.answered_ms} until {after.sent_ms}")


def wrong_skips(job: OfJob) -> Iterator[str]:
    """Skipped entries whose bounds are no fire times, or whose count is another."""
    every = job.asked.every
    if every is None or not job.asked.one_trigger:
        return
    for skip in skips_of(job.end.log):
        times = every.between(skip.first_ms, skip.last_ms)
        if skip.count != len(times) or not (every.has(skip.first_ms) and every.has(skip.last_ms)):
            yield job.told(f"{skip}, which are {len(times)} fire times")
        if skip.reason == "overlap" and not job.asked.exclusive:
            yield job.told(f"{skip}, and its runs may overlap")


def early(job: OfJob) -> Iterator[str]:
    """Records before their due times; due times before fire times; runs too soon after the end of the one before."""
    for run in job.runs:
        if run.at_ms < run.due_ms - job.ahead_ms(run.at_ms):
            yield job.told(f"{run}: {run.due_ms - run.at_ms} ms early")
        if run.kind != "retry" and run.due_ms < run.scheduled_at_ms:
            yield job.told(f"{run}: due at {run.due_ms}")
    delay_ms, life_of = job.asked.delay_ms, job.lives()
    if delay_ms is None or not job.exactly_once or life_of is None:
        return
    finished_ms = {entry.key[0]: entry.finished_ms for entry in job.entries() if entry.finished_ms is not None}
    fired = [run for run in job.runs if run.of_fire_time]
    for before, after in itertools.pairwise(fired):
        ended_ms = finished_ms.get(before.run_id, 0) if job.asked.exclusive else before.at_ms
        one_life = life_of(before.version) == life_of(after.version)  # else one of them was in flight at a delete
        if one_life and after.scheduled_at_ms < ended_ms + delay_ms - job.skew_ms:
            yield job.told(f"{after}: {ended_ms + delay_ms - after.scheduled_at_ms} ms too soon after {before}")


def out_of_order(job: OfJob) -> Iterator[str]:
    """Runs of earlier fire times after those of later ones. A run in flight of a job that was deleted may come behind the
    first ones of the job that was made in its place."""
    life_of = job.lives()
    if not job.exactly_once or life_of is None:
        return
    latest: dict[tuple[str, int, int], RunRecord] = {}
    for run in sorted(job.runs, key=lambda run: run.place):
        if run.of_fire_time and not run.dead:
            place = (*run.place[:2], life_of(run.version))
            before = latest.get(place)
            if before is not None and run.scheduled_at_ms < before.scheduled_at_ms:
                yield job.told(f"{run} after {before}")
            latest[place] = run


def made_by_nobody(job: OfJob) -> Iterator[str]:
    """Records that no version of the job explains: of other data, or of a time that is no fire time."""
    asked, contents = job.asked, job.asked.contents()
    own = {op.answer.run_id: op.data for op in asked.of("run") if op.answer is not None and op.data is not None}
    any_data = {op.data for op in asked.ops}
    told_in_flight = {key for op in asked.ops if op.answer is not None for key in op.answer.in_flight}
    for run in job.runs:
        if run.kind in ("scheduled", "catch_up", "backfill") and run.version in contents:
            # One that was in flight when the trigger changed, and was not delivered then, is as a later change has it.
            versions = [version for version in contents if version <= run.version]
            of = versions if run.key in told_in_flight else [run.version]
            times = {every for version in of for _, every in contents[version]}
            if not any(every is None or every.has(run.scheduled_at_ms) for every in times):
                yield job.told(f"{run}: {run.scheduled_at_ms} is none of its fire times")
        allowed = {data for data, _ in contents.get(run.version, ())}
        if run.run_id.startswith("m"):
            # Another attempt has the data of the first one, whatever the version is by then.
            allowed = {own[run.run_id]} if run.run_id in own else any_data
        if run.version in contents and run.data not in allowed:
            yield job.told(f"{run}: has {run.data}, and not {allowed}")


def false_answers(job: OfJob) -> Iterator[str]:
    """Versions that are two things, or that no client asked for."""
    wanted = {op.data for op in job.asked.of("create", "put")}
    for version, several in job.asked.contents().items():
        if len(several) > 1:
            yield job.told(f"version {version} is {several}")
        for data, _ in several:
            if data not in wanted:
                yield job.told(f"no client asked for {data} in version {version}")


def too_many(job: OfJob) -> Iterator[str]:
    """Runs beyond the most that its trigger has, or less in a job that has ended."""
    most = job.asked.body["trigger"].get("maxRuns")
    if most is None:
        return
    fired = {run.run_id for run in job.runs if run.of_fire_time}
    if len(fired) > most or (job.end.state.get("status") == "ended" and len(fired) < most):
        yield job.told(f"{len(fired)} runs of {most}, and it is {job.end.state.get('status')}")


def lost(job: OfJob) -> Iterator[str]:
    """Jobs that were accepted, and that the service does not know."""
    by_command = any(op.command is not None and op.command.fate == "committed" for op in job.asked.of("create"))
    if (by_command or job.asked.accepted_ms is not None) and not job.end.state:
        yield job.told("accepted, and now unknown")


def judge_jobs(jobs: Sequence[OfJob], unknown: Mapping[str, int]) -> dict[str, list[str]]:
    """Per promise, every case in which it was not kept. `unknown`: records of jobs that no client asked for."""

    def found(rule: Callable[[OfJob], Iterator[str]]) -> list[str]:
        return [line for job in jobs for line in rule(job)]

    return {
        "jobs: runs that came twice": found(twice),
        "jobs: fire times accounted for twice": found(covered_twice),
        "jobs: fire times left out": found(left_out),
        "jobs: runs that the calendar excludes": found(despite_calendar),
        "jobs: skipped entries that are wrong": found(wrong_skips),
        "jobs: early": found(early),
        "jobs: out of order": found(out_of_order),
        "jobs: records of nothing": [
            *found(made_by_nobody),
            *(f"{job_id}: {n}" for job_id, n in Counter(unknown).items()),
        ],
        "jobs: versions that are not true": found(false_answers),
        "jobs: lost": found(lost),
        "jobs: runs beyond the last one, or fewer": found(too_many),
    }
