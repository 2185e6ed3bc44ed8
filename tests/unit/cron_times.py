"""Times of cases as people write them, and back: for the tests of triggers."""

from datetime import datetime
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import Protocol
from zoneinfo import ZoneInfo

from clockwork.domain.triggers.cron import Days, Dialect
from clockwork.domain.triggers.dst import GapRule, OverlapRule
from clockwork.domain.triggers.trigger import Cron, cron
from clockwork.domain.triggers.zones import zone_of


@cache
def zone_info(name: str) -> ZoneInfo:
    """The zone of the package. `ZoneInfo(name)` would be the machine's, whose rules may be of another year."""
    with (resources.files("tzdata") / "zoneinfo").joinpath(*name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def ms(text: str, zone: str = "UTC") -> int:
    """Epoch milliseconds of an ISO time; without an offset it is the first time at which the zone's clocks show it."""
    at = datetime.fromisoformat(text)
    return round((at if at.tzinfo else at.replace(tzinfo=zone_info(zone))).timestamp() * 1_000)


class Fires(Protocol):
    """A rule, or a trigger."""

    def next_after(self, at_ms: int) -> int | None: ...


def following(rule: Fires, after_ms: int, number: int) -> list[int]:
    """So many fire times after a time."""
    times: list[int] = []
    while len(times) < number:
        next_ms = rule.next_after(times[-1] if times else after_ms)
        assert next_ms is not None
        times.append(next_ms)
    return times


def local(rule: Cron, at_ms: int) -> str:
    """A time as the rule's zone shows it, to the second or, if that is 0, to the minute."""
    text = zone_of(rule.time_zone).local(at_ms)
    return text[:16] + text[19:] if text[16:19] == ":00" else text


def cron_of(
    dialect: str,
    expression: str,
    zone: str = "UTC",
    *,
    days: str | None = None,
    gap: str | None = None,
    overlap: str | None = None,
) -> Cron:
    """A cron rule by short names: the dialect by its first letter, `-` for none."""
    by_letter = {each.value[0]: each for each in Dialect}
    return cron(
        expression,
        dialect=by_letter.get(dialect),
        time_zone=zone,
        days=Days(days) if days else None,
        gap=GapRule(gap) if gap else None,
        overlap=OverlapRule(overlap) if overlap else None,
    )


def apart(times: list[int]) -> bool:
    """True if all are at least a second apart, and in order."""
    return all(later - earlier >= 1_000 for earlier, later in pairwise(times))
