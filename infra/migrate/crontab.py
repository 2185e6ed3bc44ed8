"""A crontab to the file of `clockwork job apply`: each line a job, whose `taskData` is the command for a consumer to run.

crontab                          job
five fields, @daily, …           trigger cron, dialect unix
both day fields restricted       days: "and" if one begins with *, as Vixie's cron has it
CRON_TZ, TZ                      timeZone of the lines behind it; else the zone that is given
nothing is caught up             misfire: skip
a comment right before a line    description
MAILTO, SHELL, PATH, other       comments
@reboot, what is not understood  comments, with the reason
"""

import re
from typing import Any, Final

from clockwork.domain.triggers.cron import Days, Dialect, read_cron
from clockwork.domain.triggers.zones import zone_of
from clockwork.errors import InvalidInput
from infra.migrate.jobs_toml import ConvertedJob, jobs_file

_ASSIGNMENT: Final = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")
_DESCRIPTION_BYTES_MAX: Final = 1_024
_ZONES: Final = frozenset({"CRON_TZ", "TZ"})


def jobs_of_crontab(
    text: str, *, name: str, client_id: str, topic: str, time_zone: str = "UTC", has_users: bool = False
) -> str:
    """The file. `time_zone`: the zone of the machine that the crontab is of. `has_users`: a sixth field names a user, as in
    /etc/crontab. Raises: ValueError: there is no such zone."""
    zone_of(time_zone)
    jobs: list[ConvertedJob] = []
    notes = ["Each taskData is a command: the consumer of the topic has to run it."]
    description = None
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            description = stripped.lstrip("# ") or None
        elif match := _ASSIGNMENT.fullmatch(line):
            variable, value = match[1], match[2].strip("\"'")
            if variable not in _ZONES:
                notes.append(f"line {number}: {variable}={value} is not carried over")
            elif _is_zone(value):
                time_zone = value
            else:
                notes.append(f"line {number}: {variable}={value} is no zone of the IANA database; {time_zone} is kept")
        else:
            jobs.append(_job(stripped, number, description, time_zone, has_users))
            description = None
    return jobs_file(jobs, name=name, client_id=client_id, topic=topic, comments=notes)


def _is_zone(name: str) -> bool:
    try:
        zone_of(name)
    except ValueError:
        return False
    return True


def _job(line: str, number: int, description: str | None, time_zone: str, has_users: bool) -> ConvertedJob:
    fields_wanted = (1 if line.startswith("@") else 5) + has_users
    parts = line.split(None, fields_wanted)
    if len(parts) <= fields_wanted:
        return _not_converted(line, number, "has no command")
    *when, command = parts
    user = when.pop() if has_users else None
    expression = " ".join(when)
    if expression.lower() == "@reboot":
        return _not_converted(line, number, "@reboot is no time")
    trigger = {"type": "cron", "expression": expression, "dialect": "unix", "timeZone": time_zone}
    try:
        read_cron(expression, dialect=Dialect.UNIX)
    except InvalidInput as wrong:
        if any(error.field != "days" for error in wrong.errors):
            return _not_converted(line, number, "; ".join(error.message for error in wrong.errors))
        read_cron(expression, dialect=Dialect.UNIX, days=Days.AND)
        trigger["days"] = "and"
    comments = (
        [] if "%" not in command else ["% in the command: cron takes it for a line break and the command's input"]
    )
    data = {"command": command} if user is None else {"command": command, "user": user}
    fields: dict[str, Any] = {
        "trigger": trigger,
        "taskData": data,
        "misfire": {"policy": "skip"},
    }
    if description is not None and len(description.encode()) <= _DESCRIPTION_BYTES_MAX:
        fields = {"description": description, **fields}
    return ConvertedJob(name=_words_of(command), fields=fields, comments=comments)


def _words_of(command: str) -> str:
    """The name of the program, without its folder."""
    return command.split()[0].rpartition("/")[2]


def _not_converted(line: str, number: int, reason: str) -> ConvertedJob:
    return ConvertedJob(name=f"line {number}: {line}", fields={}, comments=[reason], converted=False)
