"""A crontab to jobs: each line a job, whose `taskData` is the command for a consumer to run.

crontab                          job
five fields, @daily, …           trigger cron, dialect unix
both day fields restricted       days: "and" if one begins with *, as Vixie's cron has it
hour fixed, minute begins with * dst: not in a gap, and in both hours of an overlap, as Vixie's cron has it
CRON_TZ                          timeZone of the lines behind it; else the zone that is given
RANDOM_DELAY                     jitterMs of the lines behind it
other variables, TZ among them   taskData.environment of the lines behind them
command%input                    taskData.command and taskData.stdin; \\% is a %
a field for the user             taskData.user
nothing is caught up             misfire: skip
a comment right before a line    description

Left out, with the reason: @reboot, 5/15 (cron takes 5 alone, or refuses the file), all that is not understood, and the lines
behind a CRON_TZ that is no zone. The rules are those of Vixie's cron, which Debian's and cronie are: cron(8) and crontab(5).
In a gap it runs a line once for each time that is left out, and a job once for all: `0,30 2 * * *`, once a year.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from clockwork.domain.triggers.cron import Days, Dialect, parse_cron
from clockwork.domain.triggers.trigger import JITTER_MS_MAX
from clockwork.domain.triggers.zones import zone_of
from clockwork.errors import InvalidInput
from infra.migrate.jobs_toml import Entry, Remark

_ASSIGNMENT: Final = re.compile(r"""\s*("[^"]*"|'[^']*'|[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*""")
_STEP_OF_ONE: Final = re.compile(r"(?:^|,)(\w+)/(\d+)(?:,|$)", re.ASCII)
_INPUT: Final = re.compile(r"(?<!\\)%")
_DESCRIPTION_BYTES_MAX: Final = 1_024
_MINUTE_MS: Final = 60_000
_FIELDS: Final = 5
WITHOUT_CHANGES: Final = frozenset({"UTC", "Etc/UTC", "GMT", "Etc/GMT"})
"""Zones whose offset never changes, for files that say no more than they need to."""
COMMENTS: Final = (
    "Each taskData is a command, with its input and its environment: the consumer of the topic has to run it.",
)


@dataclass(slots=True)
class _Settings:
    """The variables of the lines above."""

    zone: str
    wrong_zone: str | None = None
    jitter_ms: int = 0
    environment: dict[str, str] = field(default_factory=dict)


def entries_of_crontab(text: str, *, file: str, time_zone: str = "UTC", has_users: bool = False) -> list[Entry]:
    """The entries of a file. `time_zone`: of the machine that the crontab is of. `has_users`: a sixth field names a user, as
    in /etc/crontab. Raises: ValueError: there is no such zone."""
    zone_of(time_zone)
    return list(_entries(text, file, _Settings(time_zone), has_users))


def _entries(text: str, file: str, settings: _Settings, has_users: bool) -> Iterator[Entry]:
    description = None
    # By line feeds alone, as cron reads it: a form feed, say, is part of a command.
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        where, stripped = f"{file}:{number}", line.strip()
        if not stripped or stripped.startswith("#"):
            description = stripped.lstrip("# ") or None
        elif match := _ASSIGNMENT.fullmatch(line):
            remark = _set(settings, match[1].strip("\"'"), _unquoted(match[2]), where)
            if remark is not None:
                yield Entry(where=where, text=stripped, remarks=[remark], is_setting=True)
        else:
            # A dash before the minute keeps a line out of cronie's log.
            yield _job(stripped.removeprefix("-"), where, description, settings, has_users)
            description = None


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _set(settings: _Settings, name: str, value: str, where: str) -> Remark | None:
    match name:
        case "CRON_TZ":
            settings.zone, settings.wrong_zone = value, None
            try:
                zone_of(value)
            except ValueError as error:
                settings.wrong_zone = f"CRON_TZ={value} at {where} {error}"
            return None
        case "RANDOM_DELAY":
            minutes = int(value) if value.isascii() and value.isdigit() and len(value) < 6 else -1
            if not 0 <= minutes * _MINUTE_MS <= JITTER_MS_MAX:
                return Remark(
                    why="is no delay that a job can have", remedy="give the jobs below jitterMs, at most a day"
                )
            settings.jitter_ms = minutes * _MINUTE_MS
            return None
        case _:
            settings.environment[name] = value
    if name == "MAILTO" and value:
        return Remark(
            why="nothing is mailed", remedy="let the consumer report what a command prints; alert on runs that fail"
        )
    return None


def _job(line: str, where: str, description: str | None, settings: _Settings, has_users: bool) -> Entry:
    def left_out(why: str, remedy: str) -> Entry:
        return Entry(where=where, text=line, remarks=[Remark(why=why, remedy=remedy)])

    fields_wanted = (1 if line.startswith("@") else _FIELDS) + has_users
    parts = line.split(None, fields_wanted)
    if len(parts) <= fields_wanted:
        return left_out(
            "has no command", "look whether the file has a field for the user (--system), or the line is cut off"
        )
    *when, command = parts
    user = when.pop() if has_users else None
    expression = " ".join(when)
    if expression.lower() == "@reboot":
        return left_out("@reboot is no time", "start it as a service of that machine")
    if settings.wrong_zone is not None:
        return left_out(settings.wrong_zone, "name the zone that is meant")
    if step := _STEP_OF_ONE.search(",".join(when)):
        return left_out(
            f"{step[1]}/{step[2]}: cron takes {step[1]} alone, or refuses the file",
            f"write {step[1]}-…/{step[2]}, or {step[1]}",
        )
    trigger: dict[str, Any] = {"type": "cron", "expression": expression, "dialect": "unix", "timeZone": settings.zone}
    try:
        parse_cron(expression, dialect=Dialect.UNIX)
    except InvalidInput as wrong:
        if any(error.field != "days" for error in wrong.errors):
            return left_out(
                "; ".join(error.message for error in wrong.errors), "write its times in a form of docs/jobs.md"
            )
        parse_cron(expression, dialect=Dialect.UNIX, days=Days.AND)
        trigger["days"] = "and"
    by_minutes = len(when) == _FIELDS and when[0].startswith("*") and not when[1].startswith("*")
    if by_minutes and settings.zone not in WITHOUT_CHANGES:
        trigger["dst"] = {"gap": "skip", "overlap": "both"}
    if settings.jitter_ms:
        trigger["jitterMs"] = settings.jitter_ms
    fields: dict[str, Any] = {
        "trigger": trigger,
        "taskData": _data(command, user, settings),
        "misfire": {"policy": "skip"},
    }
    if description is not None and len(description.encode()) <= _DESCRIPTION_BYTES_MAX:
        fields = {"description": description, **fields}
    return Entry(where=where, text=line, words=_program(command), fields=fields)


def _data(command: str, user: str | None, settings: _Settings) -> dict[str, Any]:
    first, *lines = (part.replace("\\%", "%") for part in _INPUT.split(command))
    data: dict[str, Any] = {"command": first.rstrip() if lines else first}
    if lines:
        data["stdin"] = "\n".join(lines)
    if user is not None:
        data["user"] = user
    return {**data, "environment": dict(settings.environment)} if settings.environment else data


def _program(command: str) -> str:
    """The name of the program, without its folder."""
    return command.split()[0].rpartition("/")[2]
