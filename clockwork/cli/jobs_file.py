"""The file of `clockwork job apply`: TOML that declares a client's jobs. docs/jobs-file.md is its page for users.

    name = "shop-jobs"              every job of the file gets the label `jobs-file` with this value
    clientId = "shop"
    [defaults]                      fields of all jobs
    [jobs.report]                   one job each, by its id: fields as `POST /jobs` takes them
    [profiles.test]                 `name`, `clientId`, `triggers = false`, and
    [profiles.test.defaults]        fields of all jobs, laid over those of the file
    [profiles.test.jobs.report]     fields of one job, likewise

Fields are laid over each other as a `PUT` lays them over a stored job: those of `delivery` one by one, any other as a whole.

The whole file is judged before anything is sent, by the rules that the service has, so that a mistake in its last job does
not leave the first ones applied. Each problem names the table that the wrong field stands in, and its line. `tomllib` does
not tell lines: they are found by the names of tables and keys, and only those that the parsed file has count.
"""

import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any, Final

from clockwork.domain.jobs.job import NewJob
from clockwork.errors import InvalidInput
from clockwork.schema.job import LABEL_BYTES_MAX, job_document, read_job
from clockwork.schema.json import INTEGER_MAX, INTEGER_MIN, InvalidValue
from clockwork.schema.schedule import client_id_of
from clockwork.schema.times import time_ms_of_input

LABEL: Final = "jobs-file"
"""Name of the label by which a job belongs to a file."""
NO_CLUSTER: Final = "/"
"""In the place of the cluster's name, which only the service knows: no topic begins with it."""
_KEY: Final = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED: Final = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_TABLE: Final = re.compile(rf"\s*\[\s*({_DOTTED})\s*\]\s*(?:#.*)?")
_PAIR: Final = re.compile(rf"\s*({_DOTTED})\s*=")
_MULTILINE: Final = ('"""', "'''")

Path = tuple[str, ...]
"""The names of a table or field, from the top of the file."""


class JobsFileRefused(Exception):
    """The file declares no set of jobs; `problems` has a line for each thing that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, kw_only=True, slots=True)
class JobsFile:
    """The jobs that a file declares, in one of its profiles."""

    name: str
    client_id: str
    jobs: Mapping[str, dict[str, Any]]
    """For each id the create of the job, in the file's order."""
    read_at_ms: int

    def wanted(self, job_id: str, *, created_ms: int) -> dict[str, Any]:
        """The job with all its defaults, as an answer shows its definition. `created_ms`: the time of its creation, which is
        the anchor of a rate without one."""
        document = self.jobs[job_id]
        return job_document(_read(document, self.read_at_ms, created_ms=created_ms))


def read_jobs_file(content: bytes, *, profile: str | None, now_ms: int) -> JobsFile:
    """The jobs of a file. Raises: JobsFileRefused."""
    try:
        text = content.decode("utf-8-sig")
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise JobsFileRefused([f"is not UTF-8 at byte {error.start}"]) from error
    except tomllib.TOMLDecodeError as error:
        raise JobsFileRefused([f"is not TOML: {error}"]) from error
    except RecursionError as error:
        raise JobsFileRefused(["is nested too deeply"]) from error
    parser = _Parser(document=_usable(document), lines=_lines(text, document))
    found = parser.jobs_file(profile, now_ms)
    if parser.problems:
        # In the file's order; what has no line stands first.
        raise JobsFileRefused([text for _, text in sorted(parser.problems, key=lambda each: each[0])])
    return found


@dataclass(kw_only=True, slots=True)
class _Parser:
    document: dict[str, Any]
    lines: Mapping[Path, int]
    problems: list[tuple[int, str]] = field(default_factory=list)

    def jobs_file(self, profile: str | None, now_ms: int) -> JobsFile:
        """The jobs, as far as they can be read; what is wrong is among the problems then."""
        top = self.document
        self._only(top, (), {"name", "clientId", "defaults", "jobs", "profiles"})
        self._tables(top, "defaults", (), inner=False)
        jobs, profiles = self._tables(top, "jobs", ()), self._tables(top, "profiles", ())
        for each in profiles:
            self._check_profile(("profiles", each), profiles[each], jobs)
        if not jobs and not self.problems:
            self._problem((), "", "has no [jobs.<id>]")
        chosen: dict[str, Any] = {}
        if profile is not None and profile not in profiles:
            there = ", ".join(profiles) or "none"
            self._problem((), "", f"has no profile {profile!r}; there are: {there}")
        elif profile is not None:
            chosen = profiles[profile]
        of_profile: Path = () if profile is None else ("profiles", profile)
        name = self._text(chosen, of_profile, "name") if "name" in chosen else self._text(top, (), "name")
        of_client = of_profile if "clientId" in chosen else ()
        client_id = self._text(chosen if of_client else top, of_client, "clientId")
        try:
            client_id_of(client_id)
        except ValueError as error:
            if client_id:
                self._problem(of_client, "clientId", str(error))
            client_id = "client"
        if len(name.encode()) > LABEL_BYTES_MAX:
            self._problem((), "name", f"should be at most {LABEL_BYTES_MAX} bytes of UTF-8")
        creates = {
            job_id: self._create(job_id, chosen, of_profile, name=name, client_id=client_id, now_ms=now_ms)
            for job_id in jobs
        }
        return JobsFile(name=name, client_id=client_id, jobs=creates, read_at_ms=now_ms)

    def _create(
        self, job_id: str, chosen: Mapping[str, Any], of_profile: Path, *, name: str, client_id: str, now_ms: int
    ) -> dict[str, Any]:
        layers: list[tuple[Path, Any]] = [
            (("defaults",), self.document.get("defaults", {})),
            (("jobs", job_id), self.document["jobs"][job_id]),
            ((*of_profile, "defaults"), chosen.get("defaults", {})),
            ((*of_profile, "jobs", job_id), _table(chosen.get("jobs")).get(job_id, {})),
        ]
        fields: dict[str, Any] = {}
        for _, layer in layers:
            fields = _laid_over(fields, _table(layer))
        if chosen.get("triggers") is False:
            fields = {each: value for each, value in fields.items() if each != "trigger"} | {"durable": True}
        labels = fields.get("labels", {})
        if isinstance(labels, dict):
            if LABEL in labels:
                self._wrong(layers, f"labels.{LABEL}", "is set by the file's name: leave it out")
            fields["labels"] = {**labels, LABEL: name}
        for each in ("clientId", "jobId"):
            if fields.pop(each, None) is not None:
                self._wrong(layers, each, "is given by the file, and not among a job's fields")
        create = {"clientId": client_id, "jobId": job_id, **fields}
        try:
            _read(create, now_ms)
        except InvalidInput as wrong:
            for error in wrong.errors:
                self._wrong(layers, error.field, error.message)
        return create

    def _check_profile(self, path: Path, profile: Mapping[str, Any], jobs: Mapping[str, Any]) -> None:
        self._only(profile, path, {"name", "clientId", "triggers", "defaults", "jobs"})
        self._tables(profile, "defaults", path, inner=False)
        if not isinstance(profile.get("triggers", False), bool):
            self._problem(path, "triggers", "should be true or false")
        for job_id in self._tables(profile, "jobs", path):
            if job_id not in jobs:
                self._problem((*path, "jobs", job_id), "", "is no job of this file")

    def _only(self, table: Mapping[str, Any], path: Path, names: set[str]) -> None:
        for name in table:
            if name not in names:
                self._problem(path, name, f"is none of {', '.join(sorted(names))}")

    def _tables(self, table: Mapping[str, Any], name: str, path: Path, *, inner: bool = True) -> dict[str, Any]:
        """A table of tables; those that are none are problems."""
        found = table.get(name, {})
        if not isinstance(found, dict):
            self._problem(path, name, "should be a table")
            return {}
        if inner:
            for each in [each for each, value in found.items() if not isinstance(value, dict)]:
                self._problem((*path, name), each, "should be a table")
            return {each: value for each, value in found.items() if isinstance(value, dict)}
        return found

    def _text(self, table: Mapping[str, Any], path: Path, name: str) -> str:
        value = table.get(name)
        if isinstance(value, str) and value:
            return value
        self._problem(path, name, "is required" if value in (None, "") else "should be a string")
        return ""

    # --- where it is wrong

    def _wrong(self, layers: list[tuple[Path, Any]], name: str, message: str) -> None:
        """A problem of a field of a job, in the uppermost layer that has it; a missing one is missing in the job's table."""
        own = layers[1][0]
        first = name.partition(".")[0]
        path = next((path for path, layer in reversed(layers) if first in _table(layer)), own)
        # A mistake in the defaults is told once for each job that has it: the job may be what is unlike the others.
        of_job = "" if own[-1] in path else f" (of job {own[-1]!r})"
        self._problem(path, name, f"{message}{of_job}")

    def _problem(self, path: Path, name: str, message: str) -> None:
        inside: Path = (*path, *name.split(".")) if name else path
        line = next((self.lines[inside[:n]] for n in range(len(inside), 0, -1) if inside[:n] in self.lines), 0)
        where = ".".join(each if re.fullmatch(r"[\w-]+", each, re.ASCII) else repr(each) for each in path)
        place = " ".join([*([f"line {line}"] if line else []), *([f"[{where}]"] if where else [])])
        self.problems.append((line, ": ".join(each for each in (place, name, message) if each)))


def _read(create: Mapping[str, Any], now_ms: int, *, created_ms: int | None = None) -> NewJob:
    """Raises: InvalidInput."""
    try:
        is_over = time_ms_of_input(_table(create.get("trigger")).get("end")) <= now_ms
    except ValueError:
        is_over = False
    # A trigger has to have a fire time ahead; or to have had one, if its end has passed. The job has ended then, and the
    # file that declares it is as right as it was.
    at_ms = 0 if is_over else now_ms
    return read_job(create, cluster=NO_CLUSTER, now_ms=at_ms, traceparent=None, created_ms=created_ms)


def _laid_over(present: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**present, **given}
    both = present.get("delivery"), given.get("delivery")
    if isinstance(both[0], dict) and isinstance(both[1], dict):
        merged["delivery"] = {**both[0], **both[1]}
    return merged


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _usable(value: Any) -> Any:
    """A value of TOML as one of JSON, with an `InvalidValue` in the place of each that JSON does not have."""
    match value:
        case dict():
            return {name: _usable(each) for name, each in value.items()}
        case list():
            return [_usable(each) for each in value]
        case datetime() if value.utcoffset() is not None:
            return value.isoformat()
        case datetime() | date() | time():
            return InvalidValue("is a date or time without an offset: add one, or write a text in quotes")
        case float() if not math.isfinite(value):
            return InvalidValue("is no JSON number")
        case int() if not INTEGER_MIN <= value <= INTEGER_MAX:
            return InvalidValue("is an integer beyond 64 bits")
        case _:
            return value


def _lines(text: str, document: Mapping[str, Any]) -> dict[Path, int]:
    """The line of each table and key that can be found, from 1."""
    found: dict[Path, int] = {}
    table: Path = ()
    within: str | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if within is not None:
            within = None if within in line else within
            continue
        within = next((each for each in _MULTILINE if line.count(each) % 2), None)
        if header := _TABLE.fullmatch(line):
            table = _names(header[1])
            paths: Iterator[Path] = iter([table])
        elif pair := _PAIR.match(line):
            names = _names(pair[1])
            paths = ((*table, *names[:n]) for n in range(1, len(names) + 1))
        else:
            continue
        for each in paths:
            if _has(document, each):
                found.setdefault(each, number)
    return found


def _names(dotted: str) -> Path:
    try:
        value: Any = tomllib.loads(f"{dotted} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    names: list[str] = []
    while isinstance(value, dict):
        ((name, value),) = value.items()
        names.append(name)
    return tuple(names)


def _has(document: Any, path: Path) -> bool:
    for name in path:
        if not isinstance(document, dict) or name not in document:
            return False
        document = document[name]
    return bool(path)
