"""Interpolation of a job's `taskData`: values of one run in the place of names, put in when the run is armed.

Names stand in string values as `${scheduledAt}`; keys of objects are left alone. They are:

    scheduledAt      fire time in epoch milliseconds                              number
    scheduledAtIso   the same as UTC: 2026-03-29T01:00:00.000Z                    text
    previousAt       fire time of the run before; null if there was none          number or null
    runId, jobId     as in the record's headers                                   text
    version          of the job's definition                                      number

A string that is one name and nothing else becomes the name's value, with its type: `{"at": "${scheduledAt}"}` is sent as
`{"at": 1774746000000}`. JSON has no other place for a number to be put into, and `scheduledAtIso` and `runId` serve those
who want a text. Within a longer string a value is written out, null as nothing; so is it in `taskData` that is one string,
which is sent as its bytes, without a type.

`$${` stands for `${`. What was put in is not read again. The names are checked when the job is written, and so is the size
that `taskData` may reach; hence nothing can go wrong when a run is armed.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from clockwork.domain.schedule import DataForm
from clockwork.errors import FieldError, InvalidInput, shortened

RUN_ID_CHARS_MAX: Final = 32
"""A kind's letter, 14 digits, and 8 more characters for manual runs; the rest is spare."""
TIME_MS_MAX: Final = 10**14 - 1
"""Latest fire time, as of triggers: 14 digits."""
VERSION_MAX: Final = 10**8 - 1
"""Versions of a job are stored with eight digits."""
ERRORS_MAX: Final = 20
"""Errors that one check reports."""

_NAME: Final = re.compile(r"\$\$\{|\$\{([^{}]*)(\}?)")

Value: TypeAlias = str | int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunValues:
    """The values of one run."""

    scheduled_at_ms: int
    previous_at_ms: int | None
    """None: there was no run before."""
    run_id: str
    job_id: str
    version: int

    def by_name(self) -> dict[str, Value]:
        """The values under the names by which `taskData` has them."""
        return {
            "scheduledAt": self.scheduled_at_ms,
            "scheduledAtIso": _iso(self.scheduled_at_ms),
            "previousAt": self.previous_at_ms,
            "runId": self.run_id,
            "jobId": self.job_id,
            "version": self.version,
        }


def longest_values(job_id: str) -> RunValues:
    """The values of a made-up run of this job, each as long as it may ever be. A payload schema is asked about them too."""
    return RunValues(
        scheduled_at_ms=TIME_MS_MAX,
        previous_at_ms=TIME_MS_MAX,
        run_id="x" * RUN_ID_CHARS_MAX,
        job_id=job_id,
        version=VERSION_MAX,
    )


def check_interpolation(data: bytes, form: DataForm, *, job_id: str, bytes_max: int) -> None:
    """Refuses `taskData` with unknown names, or that may grow beyond a size.

    Raises: InvalidInput, naming each place: `taskData.items.0.text`.
    """
    if form is DataForm.BASE64:
        raise InvalidInput(
            [FieldError("interpolate", "should be false where taskDataEncoding is base64: bytes have no names")]
        )
    values = longest_values(job_id).by_name()
    errors: list[FieldError] = []
    size_bytes = len(data)
    for path, text in _strings(_value_of(data, form), "taskData"):
        for match in _NAME.finditer(text):
            name, closed = match.groups()
            if name is None:
                continue
            if not closed:
                errors.append(FieldError(path, "has ${ without its }; write $${ where ${ itself is meant"))
            elif name not in values:
                errors.append(FieldError(path, _unknown(name)))
            else:
                # The name itself would be taken off: a bound need not be exact.
                size_bytes += len(json.dumps(values[name]))
        if len(errors) >= ERRORS_MAX:
            break
    if errors:
        raise InvalidInput(errors[:ERRORS_MAX])
    if size_bytes > bytes_max:
        message = f"may have {size_bytes} bytes once its names are put in; at most {bytes_max} are taken"
        raise InvalidInput([FieldError("taskData", message)])


def interpolated(data: bytes, form: DataForm, run: RunValues) -> bytes:
    """The `taskData` of a run. `data` was checked when the job was written."""
    if form is DataForm.BASE64 or b"${" not in data:
        return data
    values = run.by_name()
    if form is DataForm.TEXT:
        return _written(data.decode(), values).encode()
    return _COMPACT.encode(_rendered(json.loads(data), values)).encode()


def _iso(at_ms: int) -> str:
    """Always with milliseconds, so that texts sort as their times do."""
    at = datetime.fromtimestamp(at_ms // 1_000, UTC).replace(tzinfo=None, microsecond=at_ms % 1_000 * 1_000)
    return f"{at.isoformat(timespec='milliseconds')}Z"


def _unknown(name: str) -> str:
    known = ", ".join(longest_values("").by_name())
    return (
        f"has {shortened('${' + name + '}')}, which is no name; there are {known}; write $${{ where ${{ itself is meant"
    )


def _value_of(data: bytes, form: DataForm) -> Any:
    return data.decode() if form is DataForm.TEXT else json.loads(data)


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """The string values within a value, each with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(inner, str | dict | list):
                yield from _strings(inner, shortened(f"{path}.{key}"))


def _rendered(value: Any, values: dict[str, Value]) -> Any:
    if isinstance(value, str):
        match = _NAME.fullmatch(value)
        return values[match[1]] if match and match[1] is not None else _written(value, values)
    if isinstance(value, dict):
        return {key: _rendered(inner, values) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rendered(inner, values) for inner in value]
    return value


def _written(text: str, values: dict[str, Value]) -> str:
    def value_of(match: re.Match[str]) -> str:
        if match[1] is None:
            return "${"
        value = values[match[1]]
        return "" if value is None else str(value)

    return _NAME.sub(value_of, text)


_COMPACT: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
