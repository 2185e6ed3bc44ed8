"""Values as they are typed: durations, points in time, payloads."""

import json
import re
from datetime import timedelta
from typing import IO, Any, Final, NoReturn

import click

from clockwork.client import When
from clockwork.schema.times import due_ms_of_input

_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_PART: Final = re.compile(r"(\d{1,12})(ms|s|m|h|d|w)", re.ASCII)
_DURATION: Final = re.compile(r"(?:\d{1,12}(?:ms|s|m|h|d|w))+", re.ASCII)
_INTEGER: Final = re.compile(r"-?\d{1,18}", re.ASCII)


class Duration(click.ParamType[timedelta]):
    """`15m`, `1h30m`, `2d`, `500ms`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        if not _DURATION.fullmatch(value):
            self.fail(f"{value!r} should be like 15m, 1h30m, 2d or 500ms", param, ctx)
        return timedelta(milliseconds=sum(int(n) * _UNIT_MS[unit] for n, unit in _PART.findall(value)))


class Time(click.ParamType[int]):
    """Epoch milliseconds, or RFC 3339 with an offset."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return due_ms_of_input(int(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else value)
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)


def when(at: int | None, after: timedelta | None, *, required: bool = False) -> When | None:
    """Of `--at` and `--in`. Raises: click.UsageError."""
    if at is not None and after is not None:
        raise click.UsageError("--at and --in exclude each other")
    chosen = at if at is not None else after
    if chosen is None and required:
        raise click.UsageError("--at or --in is required")
    return chosen


def payload(data: str | None, text: str | None, file: IO[bytes] | None) -> tuple[Any] | None:
    """The `taskData` of `--data`, `--text` and `--data-file`; None if there is none of them.

    Raises: click.UsageError.
    """
    if sum(each is not None for each in (data, text, file)) > 1:
        raise click.UsageError("--data, --text and --data-file exclude each other")
    if data is not None:
        try:
            return (json.loads(data, parse_constant=_no_number),)
        except ValueError as error:
            raise click.UsageError(f"--data: is not JSON ({error}); a text goes into --text") from error
    if text is not None:
        return (text,)
    return None if file is None else (file.read(),)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def headers(given: tuple[str, ...]) -> dict[str, str] | None:
    """Of `--header NAME=VALUE`. Raises: click.UsageError."""
    pairs = [each.partition("=") for each in given]
    wrong = [name for name, equals, _ in pairs if not equals]
    if wrong:
        raise click.UsageError(f"--header: {wrong[0]!r} should be NAME=VALUE")
    return {name: value for name, _, value in pairs} or None
