"""The next fire times of a trigger: computed, never stored."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from clockwork.domain.schedule import ClientId
from clockwork.domain.triggers.trigger import AnyOf, FixedDelay, Rule, Trigger, ZonedRule
from clockwork.domain.triggers.zones import Zone, zone_of

TIMES_MAX: Final = 100
"""Most fire times of one answer: of a rare date each takes a search through years."""
TIMES_DEFAULT: Final = 10
_EARLIEST: Final = "earliest: counted from the end of the run before"


@dataclass(frozen=True, kw_only=True, slots=True)
class FireTime:
    """One fire time of a trigger."""

    at_ms: int
    due_ms: int | None
    """With jitter; None if the job is not known, or there is no jitter."""
    local: str
    """As the clocks of its time zone show it, with their offset."""
    note: str | None
    """The rule that put it there; None if it needed none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """A question for fire times."""

    trigger: Trigger
    from_ms: int
    """Inclusive."""
    count: int
    jitter_seed: str | None
    """The job's name, from which its jitter is computed; None: not known."""
    client_id: ClientId | None = None
    """The client whose calendars the trigger may name."""

    def times(self) -> list[FireTime]:
        """The fire times, in order; fewer if there are no more. Pure, but not quick: a zone's first use takes tens of
        milliseconds, so callers with an event loop leave it to a thread."""
        times = _times(self.trigger, self.from_ms)
        most = self.count if self.trigger.runs_max is None else min(self.count, self.trigger.runs_max)
        return [each for each, _ in zip(self._shown(times), range(most), strict=False)]

    def _shown(self, times: Iterator[int]) -> Iterator[FireTime]:
        trigger = self.trigger
        for number, at_ms in enumerate(times):
            jitters = self.jitter_seed is not None and trigger.jitter is not None and trigger.jitter.most_ms > 0
            delayed = number > 0 and isinstance(trigger.rule, FixedDelay)
            yield FireTime(
                at_ms=at_ms,
                due_ms=trigger.due_ms(at_ms, self.jitter_seed) if jitters and self.jitter_seed is not None else None,
                local=zone_at(trigger.rule, at_ms).local(at_ms),
                note=_EARLIEST if delayed else trigger.explain(at_ms),
            )


def _times(trigger: Trigger, from_ms: int) -> Iterator[int]:
    # A fixed delay begins at once; any other trigger has fire times of its own.
    at_ms = trigger.first_after(from_ms if isinstance(trigger.rule, FixedDelay) else from_ms - 1)
    while at_ms is not None:
        yield at_ms
        at_ms = trigger.next_after(at_ms)


def zone_at(rule: Rule | None, at_ms: int) -> Zone:
    """The time zone that a fire time is shown in: of several expressions that of the first which has it; UTC for rates and
    delays, and without a trigger."""
    match rule:
        case ZonedRule():
            return rule.times.zone
        case AnyOf():
            return next((zone_at(each, at_ms) for each in rule.of if each.last_at(at_ms) == at_ms), zone_of("UTC"))
        case _:
            return zone_of("UTC")
