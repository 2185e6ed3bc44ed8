"""The file of `clockwork job apply`, written from the entries of another scheduler, and the report of what has no equal.

An entry is *converted*; or it is *held*: its trigger is a comment, so that nothing fires before a person has decided; or it
is *left out*: only a comment names it. An entry that would fire when it must not, or without its data, is never just
converted: a run that is missing and named can be made up for, a wrong one cannot be taken back.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from clockwork.cli.jobs_file import NO_CLUSTER, read_jobs_file
from clockwork.errors import InvalidInput
from clockwork.schema.job import read_job

JOB_ID_CHARS_MAX: Final = 120
ENTRY_CHARS_MAX: Final = 120
"""Characters of an entry that a report quotes."""
_NOT_IN_A_KEY: Final = re.compile(r"[^A-Za-z0-9_-]+")

_NOT_IN_A_LINE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Control characters, and all that some reader takes for the end of a line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Remark:
    """A part of an entry that is not here as it was there."""

    why: str
    remedy: str
    """The thing for a person to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """An entry of another scheduler, and what becomes of it."""

    where: str
    """Such as `crontab:9`."""
    text: str
    """The entry, for the report."""
    words: str = ""
    """Words that its job's id is made of."""
    fields: Mapping[str, Any] | None = None
    """As `POST /jobs` takes them; None: it is left out."""
    remarks: Sequence[Remark] = ()
    held: bool = False
    """True: its trigger is written as a comment."""
    is_setting: bool = False
    """True: no job, but a setting of several."""

    @property
    def outcome(self) -> str:
        """One word for the report."""
        if self.is_setting:
            return "setting"
        if self.fields is None:
            return "left out"
        return "held" if self.held else "converted"


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The place where the jobs go."""

    name: str
    """Name of the file: the jobs bear it as a label."""
    client_id: str
    topic: str


def check_target(target: Target, *, now_ms: int) -> None:
    """Finds out whether any job could go there. Raises: JobsFileRefused."""
    any_job = Entry(where="", text="", words="job", fields={"durable": True, "taskData": {}})
    read_jobs_file(jobs_file([any_job], target).encode(), profile=None, now_ms=now_ms)


def checked(entries: Iterable[Entry], target: Target, *, now_ms: int) -> list[Entry]:
    """The entries, those left out that the service would refuse. So the file as a whole is not refused for one of them."""
    found: list[Entry] = []
    for entry in entries:
        if entry.fields is not None:
            try:
                # As the file is read: with its trigger, also if that is a comment for now.
                read_job(
                    {
                        "clientId": target.client_id,
                        "jobId": "job",
                        "delivery": {"topic": target.topic},
                        **entry.fields,
                    },
                    cluster=NO_CLUSTER,
                    now_ms=now_ms,
                    traceparent=None,
                )
            except InvalidInput as wrong:
                refused = Remark(why=str(wrong), remedy="write it by hand, as far as it can be")
                entry = replace(entry, fields=None, held=False, remarks=[refused, *entry.remarks])
        found.append(entry)
    return found


def jobs_file(entries: Iterable[Entry], target: Target, *, comments: Sequence[str] = ()) -> str:
    """The text of a file."""
    lines = [*_commented(comments), f"name = {_value(target.name)}", f"clientId = {_value(target.client_id)}", ""]
    lines += ["[defaults]", f"delivery = {{ topic = {_value(target.topic)} }}", ""]
    taken: set[str] = set()
    for entry in entries:
        remarks = _commented(f"{remark.why}: {remark.remedy}" for remark in entry.remarks)
        if entry.fields is None:
            lines += [*_commented([f"{entry.where}: {entry.outcome}: {entry.text}"]), *remarks, ""]
            continue
        lines += [f"[jobs.{_id(entry.words, taken)}]", *_commented([f"{entry.where}: {entry.text}"]), *remarks]
        fields = dict(entry.fields)
        if entry.held and "trigger" in fields:
            lines.append(f"# trigger = {_value(fields.pop('trigger'))}")
            # Until then: a job without a trigger has to be durable.
            fields["durable"] = True
        lines += [*(f"{key} = {_value(value)}" for key, value in fields.items()), ""]
    return "\n".join(lines)


def report(entries: Sequence[Entry]) -> list[str]:
    """A line for each remark, with the entry and what to do; at last the counts."""
    lines = [
        _line(f"{entry.where}: {entry.outcome}: {quoted(entry.text)}: {remark.why}: {remark.remedy}")
        for entry in entries
        for remark in entry.remarks
    ]
    outcomes = [entry.outcome for entry in entries]
    return [*lines, ", ".join(f"{outcomes.count(each)} {each}" for each in ("converted", "held", "left out"))]


def is_complete(entries: Iterable[Entry]) -> bool:
    """True if each entry is a job that runs."""
    return all(entry.outcome in ("converted", "setting") for entry in entries)


def quoted(text: str) -> str:
    """A foreign text within a line: without control characters, and not too long."""
    line = _line(text)
    return line if len(line) <= ENTRY_CHARS_MAX else f"{line[:ENTRY_CHARS_MAX]}…"


def _line(text: str) -> str:
    return _NOT_IN_A_LINE.sub(" ", text)


def _id(words: str, taken: set[str]) -> str:
    """An id that is a bare key of TOML; a second one of the same words gets a number."""
    base = _NOT_IN_A_KEY.sub("-", words).strip("-")[:JOB_ID_CHARS_MAX] or "job"
    number, chosen = 1, base
    while chosen in taken:
        number += 1
        chosen = f"{base}-{number}"
    taken.add(chosen)
    return chosen


def _commented(comments: Iterable[str]) -> list[str]:
    return [f"# {_line(comment)}" for comment in comments]


def _value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            # JSON's escapes are TOML's; of control characters JSON leaves DEL as it is.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case Mapping():
            return f"{{ {', '.join(f'{_key(key)} = {_value(each)}' for key, each in value.items())} }}"
        case _:
            return f"[{', '.join(map(_value, value))}]"


def _key(key: str) -> str:
    return key if key and not _NOT_IN_A_KEY.search(key) else _value(key)
