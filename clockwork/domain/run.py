"""Runs of a recurring job: their identity, and what the row of one says about its job.

A run is what a job delivers: the occurrence of a fire time, or one that was asked for. It keeps its id through retries
and catch-up: a consumer tells doubles by it. The rows of a job form chains; each row, as it ends, is followed by the
next one of its chain:

    main       the occurrences of the trigger, one after the other, their retries, and the watchdogs of open runs
    side       a row beside the main chain, followed by nothing: a run by hand of a job whose runs may overlap, or a row in
               flight of a deleted job of this name
    backfill   runs of past fire times, one after the other
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NewType

JobId = NewType("JobId", str)
RunId = NewType("RunId", str)

ROW_FORMAT: Final = 2
"""The format of rows of jobs, in every store. A node that does not know it leaves them alone."""
REQUEST_DIGITS: Final = 8
"""Hexadecimal digits of a request that are a part of the ids of its runs."""


class RunKind(StrEnum):
    """The reason why a row of a job exists."""

    SCHEDULED = "scheduled"
    CATCH_UP = "catch_up"
    """A fire time that was missed, and is caught up."""
    MANUAL = "manual"
    BACKFILL = "backfill"
    RETRY = "retry"
    """Another attempt of a run that failed or ran out of time."""
    WATCHDOG = "watchdog"
    """No run: the time-out of an open one. It stands in the place of the next occurrence, and nothing is sent for it."""


class RunData(StrEnum):
    """The origin of a run's data, and with it the data of another attempt."""

    JOB = "job"
    """The definition's. Each attempt has those of the definition that holds by then, as it has its topic and headers."""
    GIVEN = "given"
    """They came with the request for a run by hand. Each attempt has them again: they are none of the definition's."""
    LOST = "lost"
    """They came with the request, and the row that had them was deleted by hand. No other attempt can be made."""


class Chain(StrEnum):
    """The chain that a row of a job belongs to."""

    MAIN = "main"
    SIDE = "single"
    BACKFILL = "backfill"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOfRow:
    """The part of a row that says which occurrence of which job it is. The row's `schedule_key` is the job's id."""

    rev: int
    """The state's revision that was written with the row, in one transaction. A row can be seen before the state: its
    cleanup knows by this number that it has to wait (docs/jobs.md, protocol)."""
    version: int
    """Version of the definition that its content was taken from."""
    kind: RunKind
    chain: Chain
    scheduled_at_ms: int
    """The fire time; of a manual run the time at which it was asked for."""
    cursor_ms: int
    """The job's cursor once this occurrence has ended; of a backfill, the backfill's."""
    run_id: RunId
    attempt: int = 1
    data: RunData = RunData.JOB
    previous_at_ms: int | None = None
    """The fire time before, if there is one: a header."""
    timeout_ms: int | None = None
    """Time within which the run is to be completed. None: no completion is asked for."""
    priority: int | None = None
    """A header."""

    @property
    def is_watchdog(self) -> bool:
        return self.kind is RunKind.WATCHDOG


def scheduled_run(scheduled_at_ms: int) -> RunId:
    """The id of the run of a fire time."""
    return RunId(f"s{scheduled_at_ms}")


def manual_run(asked_at_ms: int, request_digits: str) -> RunId:
    """The id of a run that was asked for by hand; `request_digits`: `REQUEST_DIGITS` of a hash of the request's id."""
    return RunId(f"m{asked_at_ms}-{request_digits}")


def backfill_run(scheduled_at_ms: int, request_digits: str) -> RunId:
    """The id of a backfill's run of a fire time."""
    return RunId(f"b{scheduled_at_ms}-{request_digits}")


def is_manual(run_id: RunId) -> bool:
    """True for a run that was asked for by hand, at any attempt."""
    return run_id.startswith("m")
