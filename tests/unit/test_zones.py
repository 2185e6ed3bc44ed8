"""Time zones: read from the package alone, with the changes that its files have."""

import struct
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest

from clockwork.domain.triggers.zones import DAY_S, Zone, zone_names, zone_of
from tests.simulation.selection import FULL
from tests.unit.cron_times import ms


@pytest.fixture
def wrong_system_zones(tmp_path: Path) -> Iterator[None]:
    """A machine whose own file for Berlin is wrong."""
    (tmp_path / "Europe").mkdir()
    (tmp_path / "Europe" / "Berlin").write_bytes((resources.files("tzdata") / "zoneinfo" / "UTC").read_bytes())
    zoneinfo.reset_tzpath(to=[tmp_path])
    zone_of.cache_clear()
    yield
    zoneinfo.reset_tzpath()


@pytest.mark.usefixtures("wrong_system_zones")
def test_zones_come_from_the_package_whatever_the_system_has() -> None:
    noon = datetime(2026, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo.no_cache("Europe/Berlin"))
    assert noon.utcoffset() == timedelta(0)

    assert zone_of("Europe/Berlin").offset_at(ms("2026-07-01T00:00") // 1_000) == 7_200


@pytest.mark.parametrize(
    "name", ["", "Berlin", "../../etc/passwd", "Europe", "europe/berlin", "/etc/localtime", "tzdata.zi"]
)
def test_names_that_are_no_zone_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^is no time zone of the IANA database"):
        zone_of(name)


def test_the_refusal_of_a_name_gives_the_nearest_one() -> None:
    with pytest.raises(ValueError, match=r"did you mean Europe/Berlin\?"):
        zone_of("europe/berln")


def test_a_stretch_says_which_offsets_are_beside_it() -> None:
    stretch = zone_of("Europe/Berlin").stretch_at(ms("2026-07-01T00:00") // 1_000)

    assert stretch.start_s == ms("2026-03-29T01:00") // 1_000
    assert stretch.end_s == ms("2026-10-25T01:00") // 1_000
    assert (stretch.before_s, stretch.offset_s, stretch.after_s) == (3_600, 7_200, 3_600)


def test_a_zone_without_changes_has_stretches_of_more_than_half_a_year() -> None:
    for month in range(1, 13):
        at_s = ms(f"2026-{month:02}-01T00:00") // 1_000
        stretch = zone_of("UTC").stretch_at(at_s)

        assert (stretch.before_s, stretch.offset_s, stretch.after_s) == (0, 0, 0)
        assert stretch.start_s <= at_s - 182 * DAY_S
        assert stretch.end_s >= at_s + 182 * DAY_S


def test_changes_are_those_that_the_files_have() -> None:
    # Zones are looked at day by day: the files say whether a change is missed, or was seen a second too late. They end where
    # a rule takes over, of two changes a year.
    start_s = ms("1970-01-02T00:00" if FULL else "2005-01-01T00:00") // 1_000
    names = sorted(zone_names())
    for name in names if FULL else names[::7]:
        wanted = [change for change in _changes_in_file(name) if start_s < change[0] < ms("2200-01-01T00:00") // 1_000]
        end_s = wanted[-1][0] + 1 if wanted else start_s
        zone = zone_of(name)
        found: list[tuple[int, int]] = []
        at_s = start_s
        while at_s < end_s:
            stretch = zone.stretch_at(at_s)
            assert stretch.start_s <= at_s < stretch.end_s
            if stretch.after_s != stretch.offset_s and stretch.end_s < end_s:
                found.append((stretch.end_s, stretch.after_s))
            at_s = stretch.end_s

        assert found == wanted, name


def test_changes_of_a_zone_are_days_apart() -> None:
    # The look day by day, and the rules of a stretch's ends, rely on this.
    for name in zone_names():
        changes = [at_s for at_s, _ in _changes_in_file(name) if at_s > -2 * 366 * DAY_S]
        assert all(later - earlier > 6 * DAY_S for earlier, later in pairwise(changes)), name


def test_an_offset_that_has_seconds_ends_to_the_second() -> None:
    # Liberia gave up its 44 minutes and 30 seconds in January 1972.
    monrovia = zone_of("Africa/Monrovia").stretch_at(ms("1971-06-01T00:00") // 1_000)

    assert (monrovia.offset_s, monrovia.after_s) == (-2_670, 0)
    assert monrovia.end_s == ms("1972-01-07T00:44:30") // 1_000


class _NewYear(tzinfo):
    """An hour more from the first second of 2026 on, by UTC. No zone has changed at such a second yet."""

    def fromutc(self, at: datetime) -> datetime:
        return at + self._offset(at.year)

    def utcoffset(self, at: datetime | None) -> timedelta:
        return self._offset(at.year if at is not None else 0)

    def dst(self, at: datetime | None) -> None:
        return None

    def tzname(self, at: datetime | None) -> None:
        return None

    def _offset(self, year: int) -> timedelta:
        return timedelta(hours=1 if year >= 2026 else 0)


@pytest.mark.parametrize("month", ["2025-03", "2025-12", "2026-01", "2026-12"])
def test_a_change_at_the_first_second_of_a_year_is_found(month: str) -> None:
    stretch = Zone("Test/New_Year", _NewYear()).stretch_at(ms(f"{month}-15T00:00") // 1_000)

    assert (stretch.end_s if month < "2026" else stretch.start_s) == ms("2026-01-01T00:00") // 1_000


@pytest.mark.parametrize(
    ("zone", "at", "text"),
    [
        ("Europe/Berlin", "2026-03-29T01:00", "2026-03-29T03:00:00+02:00"),
        ("Asia/Kathmandu", "2026-01-01T00:00:00.250", "2026-01-01T05:45:00.250+05:45"),
        ("UTC", "1970-01-01T00:00", "1970-01-01T00:00:00+00:00"),
    ],
)
def test_a_time_is_shown_as_clocks_there_show_it(zone: str, at: str, text: str) -> None:
    assert zone_of(zone).local(ms(at)) == text
    assert datetime.fromisoformat(text) == datetime.fromisoformat(at).replace(tzinfo=UTC)


def _changes_in_file(name: str) -> Iterator[tuple[int, int]]:
    """Changes of offset in a zone's file (RFC 9636, version 2 and later), in epoch seconds, and the new offset."""
    data = (resources.files("tzdata") / "zoneinfo").joinpath(*name.split("/")).read_bytes()
    utc, standard, leap, times, types, chars = struct.unpack(">6L", data[20:44])
    start = 44 + times * 5 + types * 6 + chars + leap * 8 + standard + utc
    *_, times, types, _chars = struct.unpack(">6L", data[start + 20 : start + 44])
    start += 44
    kinds = start + 8 * times
    ends = struct.unpack(f">{times}q", data[start:kinds])
    offsets = [struct.unpack_from(">l", data, kinds + times + 6 * each)[0] for each in range(types)]
    last = offsets[0]
    for at_s, kind in zip(ends, data[kinds : kinds + times], strict=True):
        if offsets[kind] != last:
            yield at_s, offsets[kind]
        last = offsets[kind]
