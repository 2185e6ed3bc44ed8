"""The mix of a workload: shares of requests and schedules of each kind."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True, slots=True)
class Mix:
    """Shares and times of a workload. Times are milliseconds."""

    due_in_ms: tuple[tuple[int, int, int], ...] = (
        (10, -500, 0),
        (25, 0, 400),
        (45, 400, 2_000),
        (20, 2_000, 10_000),
    )
    """Weight, from, to."""
    bursts: float = 0.4
    """Share of schedules whose due time is put off to the next burst."""
    rounded: float = 0.3
    far: float = 0.02
    refused: float = 0.015
    deadlines: float = 0.08
    """Share of those with a deadline, after which they are to be dropped or become dead letters."""
    gives_up: float = 0.05
    cancels_at_due: float = 0.12
    cancels_at_once: float = 0.03
    cancels_late: float = 0.03
    cancels_twice: float = 0.4
    repeats: float = 0.08
    reads: float = 0.12
    puts_early: float = 0.08
    puts_at_due: float = 0.12
    puts_late: float = 0.02
    puts_twice: float = 0.3
    """At the same moment, each with something else."""
    changes_time: float = 0.6
    changes_data: float = 0.5
    """Also the data, where the time is changed; else always."""
    changes_lane: float = 0.2
    puts_off_far: float = 0.05
    if_match: float = 0.4
    fires: float = 0.05
    fires_far: float = 0.4
    retries: float = 0.5
    """Share of what may have failed."""
    retries_twice: float = 0.4
    by_command: float = 0.15
    """Share of schedules that are created by command."""
    replies: float = 0.8
    """Share of commands that want an answer."""
    reschedules: tuple[int, int, int] = (50, 30, 20)
    """Weights of none, one, two."""
    commands_at_once: float = 0.4
    """Share of changes and cancels: mostly in the transaction of the create."""
    cancels_by_command: float = 0.2
    commands_and_http: float = 0.3
    """Share of those that are also asked for over HTTP."""
    poison: float = 0.05
    """Share of commands followed by one that is wrong."""


STEADY: Final = Mix(
    due_in_ms=((1, 300, 600),),
    bursts=0.0,
    rounded=0.0,
    far=0.0,
    refused=0.0,
    deadlines=0.0,
    gives_up=0.0,
    cancels_at_due=0.0,
    cancels_at_once=0.0,
    cancels_late=0.0,
    repeats=0.0,
    reads=0.0,
    puts_early=0.0,
    puts_at_due=0.0,
    puts_late=0.0,
    fires=0.0,
    by_command=0.0,
)
"""Nothing but schedules soon due: for measuring."""
