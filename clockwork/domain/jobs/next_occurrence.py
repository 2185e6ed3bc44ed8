"""The occurrence that follows: decided in the step that ends the one before it, from the trigger and the time.

The cursor of a job is the fire time up to which all are decided, fired or skipped. Let t be the first one after it:

- t is due, or was so less than its grace ago: t is armed.
- Else the fire times after the cursor up to now were missed (nodes were away, a topic was gone, a pause):

    policy      the row that was armed before   the rest
    skip        dropped if it is late           skipped
    fire_once   delivered, late or not          skipped if it was late; else the latest is fired, and the others are skipped
    fire_all    delivered, late or not          fired one after the other from the oldest on; those over `catch_up_max`, and
                                                those older than the window, are skipped, the oldest first

  Then the first that is not due yet. So no outage makes a storm, whatever its length, and each fire time is one record or
  part of one skipped stretch.

What a calendar excludes is no fire time, and so is never missed. It is told apart: `Decision.excluded` has what lies among
fire times that were skipped, and `excluded_before` what lies before one that was armed. Both lie in the past when they are
noted, once the occurrence has ended: a change of the trigger makes neither wrong.

A job that is resumed, or has another trigger, goes on with its first fire time that is not due yet: nothing is caught up.
"Due" and "now" are meant with jitter (`Trigger.due_ms`), cursor and stretches without.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from clockwork.domain.triggers.trigger import FixedDelay, TimeStretch, Trigger
from clockwork.errors import FieldError, InvalidInput

GRACE_MS: Final = 60_000
"""Default time by which an occurrence may be late and still count as on time; less if the next fire time is nearer."""
GRACE_MS_MIN: Final = 1_000
"""Below that, ordinary lateness would be a misfire."""
GRACE_MS_MAX: Final = 30 * 86_400_000
CATCH_UP_MAX: Final = 100
CATCH_UP_MAX_MAX: Final = 1_000
"""Bounds the steps that find the oldest occurrence to be caught up: some microseconds each."""
WINDOW_MS_MIN: Final = 1_000
WINDOW_MS_MAX: Final = 3_653 * 86_400_000


class MisfirePolicy(StrEnum):
    """The treatment of fire times that were missed."""

    SKIP = "skip"
    FIRE_ONCE = "fire_once"
    FIRE_ALL = "fire_all"


@dataclass(frozen=True, kw_only=True, slots=True)
class Misfire:
    """A job's policy for fire times that were missed."""

    policy: MisfirePolicy = MisfirePolicy.FIRE_ONCE
    grace_ms: int | None = None
    """None: `GRACE_MS`, or the distance to the next fire time if that is less."""
    catch_up_max: int = CATCH_UP_MAX
    """Most occurrences to be caught up at any time. Only for `fire_all`, like the window."""
    window_ms: int | None = None
    """Fire times older than this are not caught up. None: no limit."""

    def __post_init__(self) -> None:
        """Raises: InvalidInput, naming every wrong field."""
        errors = [
            FieldError(name, f"should be {low} to {high}")
            for name, value, low, high in (
                ("graceMs", self.grace_ms, GRACE_MS_MIN, GRACE_MS_MAX),
                ("maxCatchUp", self.catch_up_max, 1, CATCH_UP_MAX_MAX),
                ("windowMs", self.window_ms, WINDOW_MS_MIN, WINDOW_MS_MAX),
            )
            if value is not None and not low <= value <= high
        ]
        if errors:
            raise InvalidInput(errors)

    def grace_of(self, trigger: Trigger, at_ms: int) -> int:
        """The grace of one fire time. With the policy `skip` it is the deadline of its row, which is dropped when late."""
        if self.grace_ms is not None:
            return self.grace_ms
        next_ms = None if isinstance(trigger.rule, FixedDelay) else trigger.next_after(at_ms)
        return GRACE_MS if next_ms is None else min(GRACE_MS, next_ms - at_ms)


class OverlapPolicy(StrEnum):
    """The treatment of fire times that pass while a run is open. There is a third, `allow`: runs may overlap, and the next
    one is armed at the delivery of the last."""

    SKIP = "skip"
    WAIT = "wait"


class OccurrenceKind(StrEnum):
    """The kind of an occurrence that a trigger arms."""

    SCHEDULED = "scheduled"
    CATCH_UP = "catch_up"


@dataclass(frozen=True, kw_only=True, slots=True)
class NextOccurrence:
    """The occurrence to be armed."""

    scheduled_at_ms: int
    """Its fire time."""
    due_ms: int
    """Its fire time with jitter, or later; may have passed: due at once."""
    kind: OccurrenceKind
    cursor_ms: int
    """The job's cursor once it has ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The decision about what follows an occurrence."""

    armed: NextOccurrence | None
    """None: the trigger is over."""
    skipped: TimeStretch | None = None
    dropped: TimeStretch | None = None
    """The dropped fire time, if others that are decided lie between it and the skipped ones: a run that had waited for
    another one stands for these (`next_after_exclusive_run`)."""
    excluded: TimeStretch | None = None
    """Times among the skipped ones, and before them, that a calendar excludes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EndedOccurrence:
    """An occurrence that has ended, whichever way."""

    scheduled_at_ms: int
    cursor_ms: int
    ended_ms: int
    """Time of its delivery, or of its failure."""
    dropped: bool = False
    """Dropped because it was late: its fire time is skipped."""


def next_after_delivery(
    trigger: Trigger, misfire: Misfire, ended: EndedOccurrence, *, jitter_seed: str, runs: int, now_ms: int
) -> Decision:
    """Decides what follows an occurrence that has ended. `jitter_seed` names the job for its jitter; `runs`: its runs
    up to now, for `Trigger.runs_max`."""
    decision = _next_after_delivery(trigger, misfire, ended, jitter_seed=jitter_seed, runs=runs, now_ms=now_ms)
    if not ended.dropped:
        return decision
    dropped = _stretch(ended.scheduled_at_ms, ended.scheduled_at_ms, 1)
    if decision.skipped is not None and ended.cursor_ms > ended.scheduled_at_ms:
        return replace(decision, dropped=dropped)
    return replace(decision, skipped=_joined(dropped, decision.skipped))


def _next_after_delivery(
    trigger: Trigger, misfire: Misfire, ended: EndedOccurrence, *, jitter_seed: str, runs: int, now_ms: int
) -> Decision:
    """The same, but for a fire time that was dropped."""
    if _over(trigger, runs):
        return Decision(armed=None)
    next_ms = trigger.next_after(ended.ended_ms if isinstance(trigger.rule, FixedDelay) else ended.cursor_ms)
    if next_ms is None:
        return Decision(armed=None)
    if isinstance(trigger.rule, FixedDelay) or _on_time(
        trigger, misfire, next_ms, jitter_seed=jitter_seed, now_ms=now_ms
    ):
        return Decision(armed=_scheduled(trigger, next_ms, jitter_seed))
    fired_ms = _fired_of_gap(trigger, misfire, ended, first_ms=next_ms, jitter_seed=jitter_seed, now_ms=now_ms)
    if fired_ms is None:
        latest_ms = trigger.last_due_at(now_ms, jitter_seed)
        skipped = _skipped(trigger, next_ms, latest_ms if latest_ms is not None else next_ms)
        return Decision(
            armed=next_not_due(trigger, jitter_seed=jitter_seed, cursor_ms=skipped.last_ms, now_ms=now_ms),
            skipped=skipped,
            excluded=trigger.excluded(ended.cursor_ms, skipped.last_ms),
        )
    kind = OccurrenceKind.CATCH_UP
    if misfire.policy is MisfirePolicy.FIRE_ALL and _on_time(
        trigger, misfire, fired_ms, jitter_seed=jitter_seed, now_ms=now_ms
    ):
        kind = OccurrenceKind.SCHEDULED
    before_ms = trigger.last_at(fired_ms - 1) if fired_ms > next_ms else None
    return Decision(
        armed=NextOccurrence(
            scheduled_at_ms=fired_ms, due_ms=trigger.due_ms(fired_ms, jitter_seed), kind=kind, cursor_ms=fired_ms
        ),
        skipped=None if before_ms is None else _skipped(trigger, next_ms, before_ms),
        excluded=None if before_ms is None else trigger.excluded(ended.cursor_ms, before_ms),
    )


def excluded_before(trigger: Trigger, scheduled_at_ms: int, *, since_ms: int) -> TimeStretch | None:
    """The times between a fire time and the one before it that a calendar excludes; noted when its occurrence has ended.
    `since_ms`: the time from which the job has had this trigger."""
    before_ms = trigger.last_at(scheduled_at_ms - 1)
    return trigger.excluded(max(since_ms - 1, before_ms or 0), scheduled_at_ms - 1)


def next_not_due(
    trigger: Trigger, *, jitter_seed: str, cursor_ms: int, now_ms: int, runs: int = 0
) -> NextOccurrence | None:
    """The occurrence with which a job goes on that is resumed, or that has another trigger now: never at once. A fixed
    delay counts from now. None: the trigger is over."""
    if _over(trigger, runs):
        return None
    if isinstance(trigger.rule, FixedDelay):
        at_ms = trigger.next_after(now_ms)
    else:
        at_ms = trigger.first_due_after(now_ms, jitter_seed, cursor_ms=cursor_ms)
    return None if at_ms is None else _scheduled(trigger, at_ms, jitter_seed)


def next_after_exclusive_run(
    trigger: Trigger, overlap: OverlapPolicy, *, jitter_seed: str, runs: int, cursor_ms: int, now_ms: int
) -> Decision:
    """Decides what follows a run that has ended now, and beside which none may be open. Fire times that passed meanwhile are
    skipped, but the first of them if they wait: it is due now."""
    if _over(trigger, runs):
        return Decision(armed=None)
    next_ms = None if isinstance(trigger.rule, FixedDelay) else trigger.next_after(cursor_ms)
    latest_ms = trigger.last_due_at(now_ms, jitter_seed)
    if next_ms is None or latest_ms is None or latest_ms < next_ms:
        return Decision(armed=next_not_due(trigger, jitter_seed=jitter_seed, cursor_ms=cursor_ms, now_ms=now_ms))
    if overlap is OverlapPolicy.SKIP:
        return Decision(
            armed=next_not_due(trigger, jitter_seed=jitter_seed, cursor_ms=latest_ms, now_ms=now_ms),
            skipped=_skipped(trigger, next_ms, latest_ms),
            excluded=trigger.excluded(cursor_ms, latest_ms),
        )
    rest_ms = trigger.next_after(next_ms)
    return Decision(
        armed=NextOccurrence(
            scheduled_at_ms=next_ms, due_ms=now_ms, kind=OccurrenceKind.SCHEDULED, cursor_ms=latest_ms
        ),
        skipped=None if rest_ms is None or rest_ms > latest_ms else _skipped(trigger, rest_ms, latest_ms),
        excluded=trigger.excluded(next_ms, latest_ms),
    )


def _fired_of_gap(
    trigger: Trigger, misfire: Misfire, ended: EndedOccurrence, *, first_ms: int, jitter_seed: str, now_ms: int
) -> int | None:
    """The fire time that is fired of a gap which begins with `first_ms`; None: all are skipped."""
    latest_ms = trigger.last_due_at(now_ms, jitter_seed)
    if misfire.policy is MisfirePolicy.SKIP or latest_ms is None:
        return None
    if misfire.policy is MisfirePolicy.FIRE_ONCE:
        late_ms = ended.ended_ms - trigger.due_ms(ended.scheduled_at_ms, jitter_seed)
        # A row that was delivered late is the one for the gap; so is one that failed late, and has its dead letter.
        late = not ended.dropped and late_ms > misfire.grace_of(trigger, ended.scheduled_at_ms)
        return None if late else latest_ms
    oldest_ms = first_ms if misfire.window_ms is None else max(first_ms, now_ms - misfire.window_ms)
    return trigger.nth_last(latest_ms, misfire.catch_up_max, since_ms=oldest_ms)


def _over(trigger: Trigger, runs: int) -> bool:
    return trigger.runs_max is not None and runs >= trigger.runs_max


def _on_time(trigger: Trigger, misfire: Misfire, at_ms: int, *, jitter_seed: str, now_ms: int) -> bool:
    return trigger.due_ms(at_ms, jitter_seed) >= now_ms - misfire.grace_of(trigger, at_ms)


def _scheduled(trigger: Trigger, at_ms: int, jitter_seed: str) -> NextOccurrence:
    due_ms = trigger.due_ms(at_ms, jitter_seed)
    return NextOccurrence(scheduled_at_ms=at_ms, due_ms=due_ms, kind=OccurrenceKind.SCHEDULED, cursor_ms=at_ms)


def _stretch(first_ms: int, last_ms: int, count: int) -> TimeStretch:
    return TimeStretch(first_ms=first_ms, last_ms=last_ms, count=count)


def _skipped(trigger: Trigger, first_ms: int, last_ms: int) -> TimeStretch:
    """The stretch between two fire times, both included."""
    return _stretch(first_ms, last_ms, trigger.count(first_ms - 1, last_ms))


def _joined(earlier: TimeStretch, later: TimeStretch | None) -> TimeStretch:
    if later is None:
        return earlier
    return _stretch(earlier.first_ms, later.last_ms, earlier.count + later.count)
