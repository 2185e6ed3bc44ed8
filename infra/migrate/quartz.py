"""Quartz's tables to jobs: each trigger a job, and each job without a trigger one that is run by hand. Rows are mappings
from the names of columns, in any case, to values, as a driver gives them.

    QRTZ_CRON_TRIGGERS               trigger cron, dialect quartz
    QRTZ_SIMPLE_TRIGGERS             trigger fixed_rate from START_TIME; REPEAT_COUNT is maxRuns
    CAL_INT                          seconds, minutes, hours: fixed_rate; days to years: rrule from START_TIME
    DAILY_I                          its times of day: cron, or any of up to ten
    START_TIME, END_TIME             start, end (which is exclusive here: one millisecond later)
    CALENDAR_NAME                    exclude: holidays, weekdays, annual days, hours by cron, and calendars below each other
    MISFIRE_INSTR                    misfire, as Quartz 2.5.0 acts on it
    PRIORITY, IS_DURABLE             priority, durable
    JOB_CLASS_NAME, JOB_NAME, …      taskData, for the consumer to choose what it runs
    JOB_DATA                         taskData.data: of the job, the trigger's laid over it; a text of properties, or an
                                     object of Java with texts, numbers, truth, dates, lists and maps
    changes of offset                dst: gap skip, overlap second. So Quartz computes (measured with 2.5.0, in three zones)
    TRIGGER_STATE PAUSED             held: its trigger is a comment
    IS_NONCONCURRENT, RECOVERY       overlap wait and completion, if a time-out is given

Left out: triggers that fire once, or more often than each second, or have ended; those of Quartz's users (BLOB). Held, since
they would fire when they must not or without their data: those with data or a calendar that is not understood.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby
from typing import Any, Final

from clockwork.domain.jobs.next_occurrence import CATCH_UP_MAX_MAX
from clockwork.domain.triggers.cron import WEEKDAYS, Dialect, parse_cron
from clockwork.domain.triggers.trigger import MEMBERS_MAX
from clockwork.domain.triggers.zones import Zone, zone_of
from clockwork.errors import InvalidInput
from infra.migrate import java_data
from infra.migrate.crontab import WITHOUT_CHANGES
from infra.migrate.java_data import JavaObject, NotReadable
from infra.migrate.jobs_toml import Entry, Remark

Row = Mapping[str, Any]

COMMENTS: Final = (
    "Each taskData names a class: the consumer of the topic has to run what it stands for.",
    "dst is as Quartz has it: no run at a time of day that does not exist. Without it such a run comes right after the gap.",
)
_SMART, _IGNORE = 0, -1
_SIMPLE_SKIPS: Final = frozenset({4, 5})
"""Instructions after which a simple trigger goes on with its next time."""
_SKIPS: Final = frozenset({2})
"""The same for all other triggers."""
_INTERVAL_MS_MIN: Final = 1_000
_PRIORITY_DEFAULT: Final = 5
_PRIORITY_MAX: Final = 10
_UNIT_MS: Final = {"MILLISECOND": 1, "SECOND": 1_000, "MINUTE": 60_000, "HOUR": 3_600_000}
_FREQUENCIES: Final = {"DAY": "DAILY", "WEEK": "WEEKLY", "MONTH": "MONTHLY", "YEAR": "YEARLY"}
_DAY_IN_ALL_MONTHS: Final = 28
_DAY_S: Final = 86_400
_OFFSET: Final = re.compile(r"GMT([+-])(\d{1,2})(?::?00)?", re.ASCII)
_SKIPS_MONTHS: Final = re.compile(r"\S+ \S+ \S+ \S*[LW]\S* ", re.IGNORECASE)
"""A day of the month with L or W."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """The rows of one scheduler."""

    job_details: Sequence[Row] = ()
    triggers: Sequence[Row] = ()
    cron_triggers: Sequence[Row] = ()
    simple_triggers: Sequence[Row] = ()
    simprop_triggers: Sequence[Row] = ()
    calendars: Sequence[Row] = ()


class _NotConverted(Exception):
    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why)
        self.remark = Remark(why=why, remedy=remedy)


@dataclass(slots=True)
class _Draft:
    """A job that is being made."""

    fields: dict[str, Any] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)
    held: bool = False

    def note(self, why: str, remedy: str) -> None:
        self.remarks.append(Remark(why=why, remedy=remedy))

    def hold(self, why: str, remedy: str) -> None:
        self.held = True
        self.note(why, f"{remedy}; then take the # of its trigger away")


def entries_of_quartz(tables: Tables, *, time_zone: str, timeout_ms: int | None = None) -> list[Entry]:
    """The entries of one scheduler's tables. `time_zone`: of the virtual machines that Quartz ran in, where it names none.
    `timeout_ms`: time-out of the runs that must not overlap; None: they get no completion.

    Raises: ValueError: there is no such zone.
    """
    zone_of(time_zone)
    details = {(row["JOB_GROUP"], row["JOB_NAME"]): row for row in map(_upper, tables.job_details)}
    timings = {
        (row["TRIGGER_GROUP"], row["TRIGGER_NAME"]): row
        for row in map(_upper, [*tables.cron_triggers, *tables.simple_triggers, *tables.simprop_triggers])
    }
    calendars = {row["CALENDAR_NAME"]: bytes(row["CALENDAR"]) for row in map(_upper, tables.calendars)}
    converter = _Converter(time_zone, timeout_ms, calendars)
    entries: list[Entry] = []
    triggered: set[tuple[str, str]] = set()
    for row in map(_upper, tables.triggers):
        of = (row["JOB_GROUP"], row["JOB_NAME"])
        triggered.add(of)
        timing = timings.get((row["TRIGGER_GROUP"], row["TRIGGER_NAME"]), {})
        entries.append(converter.of_trigger(row, timing, details.get(of, {})))
    entries += (converter.of_detail(row) for key, row in details.items() if key not in triggered)
    return entries


@dataclass(frozen=True, slots=True)
class _Converter:
    time_zone: str
    timeout_ms: int | None
    calendars: Mapping[str, bytes]

    def of_detail(self, detail: Row) -> Entry:
        draft = _Draft({"durable": True, **_described(detail)})
        self._run(draft, detail, {})
        name = _joined(detail["JOB_GROUP"], detail["JOB_NAME"])
        return Entry(
            where=f"job {name}",
            text="without a trigger: it is run by hand",
            words=name,
            fields=draft.fields,
            remarks=draft.remarks,
        )

    def of_trigger(self, row: Row, timing: Row, detail: Row) -> Entry:
        name = _joined(row["TRIGGER_GROUP"], row["TRIGGER_NAME"])
        draft = _Draft(_described(row) or _described(detail))
        fields: Mapping[str, Any] | None = draft.fields
        try:
            trigger = self._trigger(row, timing, draft)
        except _NotConverted as not_converted:
            fields, draft.remarks = None, [not_converted.remark]
        else:
            self._state(row, detail, draft)
            draft.fields["trigger"] = trigger
            self._run(draft, detail, row)
        return Entry(
            where=f"trigger {name}",
            text=_text(row, timing),
            words=name,
            fields=fields,
            remarks=draft.remarks,
            held=draft.held,
        )

    # --- when

    def _trigger(self, row: Row, timing: Row, draft: _Draft) -> dict[str, Any]:
        kind = row["TRIGGER_TYPE"]
        if row.get("TRIGGER_STATE") == "COMPLETE":
            raise _NotConverted("has ended", "nothing: it would not fire any more")
        if not timing and kind != "BLOB":
            raise _NotConverted("its timing row is missing", "write it by hand")
        match kind:
            case "CRON":
                trigger = self._cron(timing, draft)
            case "SIMPLE":
                trigger = _simple(timing)
            case "CAL_INT":
                trigger = self._calendar_interval(row, timing)
            case "DAILY_I":
                trigger = self._daily_interval(timing)
            case _:
                raise _NotConverted(f"a trigger of type {kind} is a class of its user's", "write what it does by hand")
        draft.fields["misfire"] = _misfire(kind, int(row.get("MISFIRE_INSTR") or _SMART), timing)
        if kind == "SIMPLE" and draft.fields["misfire"]["policy"] == "fire_once":
            draft.note("after a misfire Quartz begins its interval anew", "nothing, if its phase may stay as it is")
        if start_ms := int(row.get("START_TIME") or 0):
            trigger["start"] = start_ms
        if end_ms := int(row.get("END_TIME") or 0):
            trigger["end"] = end_ms + 1
        if row.get("CALENDAR_NAME"):
            self._exclude(row["CALENDAR_NAME"], trigger, draft)
        return trigger

    def _cron(self, timing: Row, draft: _Draft) -> dict[str, Any]:
        expression = timing["CRON_EXPRESSION"]
        try:
            parse_cron(expression, dialect=Dialect.QUARTZ)
        except InvalidInput as wrong:
            raise _NotConverted(
                "; ".join(error.message for error in wrong.errors), "write its times in a form of docs/jobs.md"
            ) from wrong
        if _SKIPS_MONTHS.match(expression):
            draft.note("Quartz up to 2.5 leaves out some months of L and W", "nothing: here each month has its run")
        return {
            "type": "cron",
            "expression": expression,
            "dialect": "quartz",
            **self._zoned(timing.get("TIME_ZONE_ID")),
        }

    def _calendar_interval(self, row: Row, timing: Row) -> dict[str, Any]:
        unit, count, start_ms = timing["STR_PROP_1"], int(timing["INT_PROP_1"]), int(row["START_TIME"])
        if unit in _UNIT_MS:
            return _rate(count * _UNIT_MS[unit])
        if unit not in _FREQUENCIES:
            raise _NotConverted(f"an interval of the unit {unit}", "write it by hand")
        zoned = self._zoned(timing.get("STR_PROP_2"))
        day = date.fromisoformat(zone_of(zoned["timeZone"]).local(start_ms)[:10])
        if (unit == "MONTH" and day.day > _DAY_IN_ALL_MONTHS) or (unit == "YEAR" and (day.month, day.day) == (2, 29)):
            raise _NotConverted(
                "its day is not in all months, and Quartz moves it for good",
                "write a cron expression: L is a month's last day",
            )
        return {"type": "rrule", "rule": f"FREQ={_FREQUENCIES[unit]};INTERVAL={count}", **zoned}

    def _daily_interval(self, timing: Row) -> dict[str, Any]:
        unit, count = timing["STR_PROP_1"], int(timing["INT_PROP_1"])
        if int(timing.get("LONG_PROP_1") or 0) >= 0:
            raise _NotConverted("fires a number of times each day", "write its times of day by hand")
        first_s, last_s = _day_seconds(timing["STR_PROP_3"])
        times = range(first_s, last_s + 1, count * _UNIT_MS[unit] // 1_000)
        by_minute = sorted((at_s % 3_600 // 60, at_s % 60, at_s // 3_600) for at_s in times)
        groups = [(key, [hour for *_, hour in group]) for key, group in groupby(by_minute, lambda each: each[:2])]
        if len(groups) > MEMBERS_MAX:
            raise _NotConverted(
                f"fires at {len(groups)} different minutes and seconds of the hour",
                "a fixed_rate, if it may fire at all hours; else cron expressions",
            )
        numbers = sorted(int(each) for each in timing["STR_PROP_2"].split(","))
        days = "*" if len(numbers) == len(WEEKDAYS) else ",".join(WEEKDAYS[number - 1] for number in numbers)
        members = [
            {
                "type": "cron",
                "expression": f"{second} {minute} {','.join(map(str, hours))} ? * {days}",
                "dialect": "quartz",
                **self._zoned(None),
            }
            for (minute, second), hours in groups
        ]
        return members[0] if len(members) == 1 else {"type": "any", "of": members}

    def _zoned(self, name: str | None) -> dict[str, Any]:
        """The zone, with rules for its changes as Quartz has them."""
        zone = self.time_zone if not name else _zone_name(name)
        return {
            "timeZone": zone,
            **({} if zone in WITHOUT_CHANGES else {"dst": {"gap": "skip", "overlap": "second"}}),
        }

    def _exclude(self, name: str, trigger: dict[str, Any], draft: _Draft) -> None:
        try:
            if name not in self.calendars:
                raise NotReadable("is not among the calendars")
            for rule in trigger.get("of", [trigger]):
                if "timeZone" not in rule:
                    raise NotReadable("is of a trigger that has no days here")
                zone = zone_of(rule["timeZone"])
                with java_data.expected_form():
                    rule["exclude"] = _exclusion(java_data.read(self.calendars[name]), zone, self.time_zone)
        except NotReadable as error:
            draft.hold(f"its calendar {name} {error}", "write the days as exclude")

    # --- what

    def _state(self, row: Row, detail: Row, draft: _Draft) -> None:
        state = str(row.get("TRIGGER_STATE", ""))
        if state.startswith("PAUSED"):
            draft.hold("is paused there", "decide whether it goes on")
        if state == "ERROR":
            draft.note("is in state ERROR there", "look why, before its consumer has the same trouble")
        priority = int(row.get("PRIORITY") or _PRIORITY_DEFAULT)
        if priority != _PRIORITY_DEFAULT:
            draft.fields["priority"] = min(max(priority, 1), _PRIORITY_MAX)
        if _true(detail.get("IS_DURABLE")):
            draft.fields["durable"] = True

    def _run(self, draft: _Draft, detail: Row, row: Row) -> None:
        """The data of the runs, and whether they may overlap."""
        if not detail:
            draft.hold("its row of QRTZ_JOB_DETAILS is missing", "write what it runs as taskData")
        columns = {"class": "JOB_CLASS_NAME", "group": "JOB_GROUP", "job": "JOB_NAME"}
        data: dict[str, Any] = {name: str(detail[column]) for name, column in columns.items() if column in detail}
        try:
            own = {**_job_data(detail.get("JOB_DATA")), **_job_data(row.get("JOB_DATA"))}
        except NotReadable as error:
            draft.hold(f"its JOB_DATA {error}", "write the entries into taskData.data")
        else:
            data |= {"data": own} if own else {}
        if _true(detail.get("IS_UPDATE_DATA")):
            draft.note("its job changes its data from run to run", "let the consumer keep that")
        alone, recovers = _true(detail.get("IS_NONCONCURRENT")), _true(detail.get("REQUESTS_RECOVERY"))
        if alone and self.timeout_ms is not None:
            draft.fields["overlap"] = "wait"
            draft.fields["completion"] = {"timeoutMs": self.timeout_ms}
            if recovers:
                draft.fields["completion"] |= {"retry": {"attempts": 2}, "retryOn": ["timeout"]}
        elif alone or recovers:
            wish = " and ".join(
                each
                for each, wished in (("its runs must not overlap", alone), ("it asks for recovery", recovers))
                if wished
            )
            draft.note(
                wish,
                "a consumer that handles one record after the other and commits behind it does so; else --timeout-ms, and "
                "the consumer reports completions",
            )
        draft.fields["taskData"] = data


def _rate(every_ms: int) -> dict[str, Any]:
    if every_ms < _INTERVAL_MS_MIN:
        raise _NotConverted(f"fires every {every_ms} ms; a job does at most each second", "let the consumer loop")
    return {"type": "fixed_rate", "everyMs": every_ms}


def _misfire(kind: str, instruction: int, timing: Row) -> dict[str, Any]:
    """The policy for what was missed."""
    if instruction == _IGNORE:
        # Quartz has no limit; this is the highest.
        return {"policy": "fire_all", "maxCatchUp": CATCH_UP_MAX_MAX}
    if kind == "SIMPLE":
        # The smart policy of one that repeats for ever is to go on with its next time.
        for_ever = instruction == _SMART and int(timing["REPEAT_COUNT"]) < 0
        return {"policy": "skip" if for_ever or instruction in _SIMPLE_SKIPS else "fire_once"}
    return {"policy": "skip" if instruction in _SKIPS else "fire_once"}


def _simple(timing: Row) -> dict[str, Any]:
    every_ms, repeats = int(timing["REPEAT_INTERVAL"]), int(timing["REPEAT_COUNT"])
    if repeats == 0:
        raise _NotConverted("fires once", "create a schedule: clockwork create")
    trigger = _rate(every_ms)
    if repeats > 0:
        left = repeats + 1 - int(timing.get("TIMES_TRIGGERED") or 0)
        if left < 1:
            raise _NotConverted("has fired as often as it should", "nothing")
        trigger["maxRuns"] = left
    return trigger


def _day_seconds(text: str) -> tuple[int, int]:
    """The first and the last second of a day, of `8,0,0,17,0,0`."""
    hours = [int(each) for each in text.split(",")]
    first_s, last_s = (hour * 3_600 + minute * 60 + second for hour, minute, second in (hours[:3], hours[3:]))
    return first_s, min(last_s, _DAY_S - 1)


def _zone_name(name: str) -> str:
    """The zone of a name of Java's, which has `GMT+02:00` besides. Raises: _NotConverted."""
    if match := _OFFSET.fullmatch(name):
        # The names of fixed offsets count westwards in the IANA database.
        hours = int(match[2])
        name = f"Etc/GMT{'-' if match[1] == '+' else '+'}{hours}" if hours else "Etc/GMT"
    try:
        zone_of(name)
    except ValueError as error:
        raise _NotConverted(f"its time zone {name} {error}", "write it by hand, with a zone of that name") from error
    return name


# --- calendars


def _exclusion(calendar: Any, zone: Zone, default_zone: str) -> dict[str, list[str]]:
    """The days and hours of a calendar, and of those below it. Raises: NotReadable."""
    found: dict[str, list[str]] = {}
    while calendar is not None:
        if not isinstance(calendar, JavaObject):
            raise NotReadable("is no calendar")
        kind = calendar.class_names[0].rpartition(".")[2]
        own_zone = calendar.fields.get("timeZone")
        name = default_zone if own_zone is None else _zone_id(own_zone)
        if kind != "BaseCalendar" and name != zone.name:
            raise NotReadable(f"counts days in {name}, and its trigger in {zone.name}")
        match kind:
            case "BaseCalendar":
                pass
            case "HolidayCalendar":
                dates = calendar.fields["dates"]
                days = [
                    zone.local(java_data.date_ms(each))[:10] for each in dates.written if isinstance(each, JavaObject)
                ]
                found.setdefault("dates", []).extend(days)
            case "WeeklyCalendar":
                excluded = calendar.fields["excludeDays"][1:]
                found.setdefault("weekdays", []).extend(
                    day for day, is_out in zip(WEEKDAYS, excluded, strict=True) if is_out
                )
            case "AnnualCalendar":
                found.setdefault("annual", []).extend(map(_month_and_day, _elements(calendar.fields["excludeDays"])))
            case "CronCalendar":
                expression = calendar.fields["cronExpression"].fields["cronExpression"]
                found.setdefault("cron", []).append(_minutes(expression))
            case _:
                raise NotReadable(f"is a {kind}, which has no equal")
        calendar = calendar.fields["baseCalendar"]
    return {each: sorted(set(values)) for each, values in found.items() if values}


def _elements(value: Any) -> list[Any]:
    """The elements of a list of Java's. Raises: NotReadable."""
    if not isinstance(value, JavaObject):
        raise NotReadable("has a damaged list")
    return [each for each in value.written if not isinstance(each, bytes)]


def _zone_id(value: Any) -> str:
    name = value.fields.get("ID") if isinstance(value, JavaObject) else None
    if not isinstance(name, str):
        raise NotReadable("has a damaged time zone")
    return name


def _month_and_day(value: JavaObject) -> str:
    """A day of a `java.util.Calendar`, by the clock of its own zone."""
    zone = zone_of(_zone_id(value.fields["zone"]))
    return zone.local(value.fields["time"])[5:10]


def _minutes(expression: str) -> str:
    """The five fields of an expression that names whole minutes. Raises: NotReadable."""
    seconds, *others = expression.split()
    weekday = others[4] if len(others) == 5 else ""
    if seconds != "*" or len(others) != 5 or any(each.isdigit() for each in weekday):
        raise NotReadable(f"names its times by {expression}, which has no equal in five fields")
    return " ".join("*" if each == "?" else each for each in others)


# --- small things


def _job_data(value: Any) -> dict[str, Any]:
    """The entries of a column JOB_DATA. Raises: NotReadable."""
    data = bytes(value or b"")
    if not data:
        return {}
    if not data.startswith(b"\xac\xed"):
        return dict(_properties(data))
    found = java_data.read(data)
    if not isinstance(found, JavaObject) or "map" not in found.fields:
        raise NotReadable("is no JobDataMap")
    with java_data.expected_form():
        entries: dict[str, Any] = java_data.plain(found.fields["map"])
        return dict(entries)


_PROPERTY: Final = re.compile(r"((?:\\.|[^\\=:\s])+)\s*[=:]?\s*(.*)", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def _properties(data: bytes) -> Iterable[tuple[str, str]]:
    """The entries of a text as `java.util.Properties` stores it."""
    for line in data.decode("latin-1").splitlines():
        if line.startswith("#") or not (match := _PROPERTY.fullmatch(line)):
            continue
        yield _unescaped(match[1]), _unescaped(match[2])


def _unescaped(text: str) -> str:
    plain = _ESCAPE.sub(
        lambda match: chr(int(match[1][1:], 16)) if len(match[1]) > 1 else _ESCAPED.get(match[1], match[1]), text
    )
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _text(row: Row, timing: Row) -> str:
    """A trigger in a few words."""
    when = (
        timing.get("CRON_EXPRESSION")
        or (f"every {timing['REPEAT_INTERVAL']} ms" if "REPEAT_INTERVAL" in timing else None)
        or (f"every {timing['INT_PROP_1']} {timing['STR_PROP_1']}" if "STR_PROP_1" in timing else "")
    )
    return f"{row['TRIGGER_TYPE']} {when}".strip()


def _described(row: Row) -> dict[str, Any]:
    return {"description": str(row["DESCRIPTION"])} if row.get("DESCRIPTION") else {}


def _joined(group: str, name: str) -> str:
    return name if group == "DEFAULT" else f"{group}-{name}"


def _upper(row: Row) -> dict[str, Any]:
    return {str(column).upper(): value for column, value in row.items()}


def _true(value: Any) -> bool:
    """Truth as drivers and Quartz's delegates store it."""
    return value is True or str(value).strip().lower() in {"1", "t", "true", "y", "b'1'"}
