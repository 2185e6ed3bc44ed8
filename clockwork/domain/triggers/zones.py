"""Time zones, by the `tzdata` package alone: the same rules on every node, whatever its machine has installed.

`zoneinfo` would look into the system's folders first. Its search path could be emptied, but for the whole process only, and
any library may set it again; so each zone's file is opened here, by its place in the package. `RULES_VERSION` names the
release, so that times which were computed by another one can be told (`jobs` are armed again after an update).

A zone is a row of stretches, within which its offset stays the same. Cron and its relatives work on stretches: within one,
wall-clock time is arithmetic. Files say only where changes of the past are, and a rule for later ones, which `zoneinfo` does
not give out; so a year's changes are found by looking at each day, once, and are kept.
"""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from difflib import get_close_matches
from functools import lru_cache
from importlib import resources
from typing import Final
from zoneinfo import ZoneInfo

import tzdata

RULES_VERSION: Final[str] = tzdata.IANA_VERSION
"""The release of the rules, as IANA names it: `2026f`."""

DAY_S: Final = 86_400
EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
OFFSET_S_MAX: Final = DAY_S
"""No zone's offset is larger, east or west (they reach from -12 h to +14 h, and 15 h on both sides in the past)."""

_PROBE_S: Final = DAY_S
"""Distance of two looks at the offset. Since 1970 no two changes of a zone are nearer to each other than some days; the
tests compare the changes found with those of the files."""
_MARGIN_S: Final = 2 * DAY_S
"""Kept between the end of a stretch that is no change, but the end of what was looked at, and changes behind it."""
_YEAR_S: Final = 31_556_952
_ZONES_KEPT: Final = 1_024
"""More than there are."""
_YEARS_KEPT: Final = 8_192
"""Years of zones in memory, some 500 bytes each. 600 zones need four each."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which a zone's offset stays the same. Epoch seconds, and offsets in seconds east of UTC."""

    start_s: int
    end_s: int
    """Exclusive."""
    offset_s: int
    before_s: int
    """The offset before its start; the same as its own if the stretch begins there only because no more was looked at."""
    after_s: int
    """The offset from its end on; likewise."""


class Zone:
    """A time zone. There is one object for each name: `zone_of`."""

    __slots__ = ("_info", "name")

    def __init__(self, name: str, info: tzinfo) -> None:
        self.name = name
        self._info = info

    def __repr__(self) -> str:
        return f"Zone({self.name})"

    def offset_at(self, at_s: int) -> int:
        """Seconds east of UTC at this time."""
        offset = datetime.fromtimestamp(at_s, self._info).utcoffset()
        # Whole seconds, less than a day; None only for a zone without rules.
        return offset.days * DAY_S + offset.seconds if offset is not None else 0

    def stretch_at(self, at_s: int) -> Stretch:
        """The stretch that this time lies in. It ends at the next change of the offset, or at a time more than half a year
        ahead, up to which there is none."""
        starts, stretches = _stretches(self, 1970 + at_s // _YEAR_S)
        return stretches[bisect_right(starts, at_s) - 1]

    def local(self, at_ms: int) -> str:
        """The time as the zone's clocks show it, with its offset: `2026-03-29T03:00:00+02:00`."""
        local = datetime.fromtimestamp(at_ms // 1_000, self._info)
        return local.replace(microsecond=at_ms % 1_000 * 1_000).isoformat(
            timespec="milliseconds" if at_ms % 1_000 else "seconds"
        )


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """The names of all zones, links included."""
    return frozenset((resources.files("tzdata") / "zones").read_text(encoding="utf-8").split())


@lru_cache(maxsize=_ZONES_KEPT)
def zone_of(name: str) -> Zone:
    """The zone of this name. Raises: ValueError, with a message for the client."""
    if name not in zone_names():
        raise ValueError(f"is no time zone of the IANA database{_hint(name)}; give a name such as Europe/Berlin or UTC")
    with (resources.files("tzdata") / "zoneinfo").joinpath(*name.split("/")).open("rb") as file:
        return Zone(name, ZoneInfo.from_file(file, key=name))


def _hint(name: str) -> str:
    by_lower = {each.lower(): each for each in zone_names()}
    near = get_close_matches(name[:64].lower(), by_lower, n=1, cutoff=0.8)
    return f" (did you mean {by_lower[near[0]]}?)" if near else ""


@lru_cache(maxsize=_YEARS_KEPT)
def _changes(zone: Zone, year: int) -> tuple[tuple[int, int], ...]:
    """The changes of a year by UTC: the first second with the new offset, and that offset."""
    found: list[tuple[int, int]] = []
    start_s, end_s = _year_start(year), _year_start(year + 1)
    # The second before the year, so that a change at its very first second belongs to it.
    before, at_s = start_s - 1, start_s - 1
    offset = zone.offset_at(at_s)
    while at_s < end_s - 1:
        before, at_s = at_s, min(at_s + _PROBE_S, end_s - 1)
        if (new := zone.offset_at(at_s)) != offset:
            low, high = before, at_s
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if zone.offset_at(middle) != offset else (middle, high)
            found.append((high, new))
            offset = new
    return tuple(found)


@lru_cache(maxsize=_YEARS_KEPT)
def _stretches(zone: Zone, year: int) -> tuple[list[int], list[Stretch]]:
    """The stretches that reach into a year, and their starts. What lies about it for a year is looked at too, so that all
    changes near it are known."""
    start_s, end_s = _year_start(year - 1), _year_start(year + 2)
    changes = [change for each in (year - 1, year, year + 1) for change in _changes(zone, each)]
    offsets = [zone.offset_at(start_s - 1), *(offset for _, offset in changes)]
    bounds = [start_s, *(at_s for at_s, _ in changes), end_s - _MARGIN_S]
    stretches = [
        Stretch(
            start_s=bounds[index],
            end_s=bounds[index + 1],
            offset_s=offset,
            before_s=offsets[max(index - 1, 0)],
            after_s=offsets[min(index + 1, len(offsets) - 1)],
        )
        for index, offset in enumerate(offsets)
    ]
    return [each.start_s for each in stretches], stretches


def _year_start(year: int) -> int:
    return (date(year, 1, 1).toordinal() - EPOCH_DAY) * DAY_S
