"""Option types, and values made of several options."""

import math
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import IO, Any, Final, TypeVar

import click

from clockwork.client import RetryPolicy, When
from clockwork.errors import InvalidInput
from clockwork.schema.json import compact, parse
from clockwork.schema.times import time_ms_of_input

_Command = TypeVar("_Command", bound=Callable[..., Any])
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_PART: Final = re.compile(r"(\d{1,12})(ms|s|m|h|d|w)", re.ASCII)
_DURATION: Final = re.compile(r"(?:\d{1,12}(?:ms|s|m|h|d|w))+", re.ASCII)
_INTEGER: Final = re.compile(r"-?\d{1,18}", re.ASCII)
_MS: Final = timedelta(milliseconds=1)
DURATION_MAX: Final = timedelta(days=365_000)
"""A thousand years: every duration from now is a time that can be computed with."""
INTEGER_MAX: Final = 2**63 - 1
ITEMS_MAX: Final = 2**31 - 1
"""The most that any Python can count to in a list."""


class Duration(click.ParamType[timedelta]):
    """`15m`, `1h30m`, `2d`, `500ms`."""

    name = "duration"

    def __init__(self, *, at_most: timedelta = DURATION_MAX) -> None:
        self._max_ms = at_most // _MS

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        if not _DURATION.fullmatch(value):
            self.fail(f"{value!r} should be like 15m, 1h30m, 2d or 500ms", param, ctx)
        duration_ms = sum(int(number) * _UNIT_MS[unit] for number, unit in _PART.findall(value))
        if duration_ms > self._max_ms:
            self.fail(f"{value!r} should be at most {self._max_ms // _UNIT_MS['d']}d", param, ctx)
        return timedelta(milliseconds=duration_ms)


class Time(click.ParamType[int]):
    """Epoch milliseconds, or RFC 3339 with an offset."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return time_ms_of_input(int(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else value)
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)


class FiniteFloat(click.ParamType[float]):
    """A number that JSON has: neither NaN nor infinite."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number", param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} should be a finite number", param, ctx)
        return number


def when(at: int | None, after: timedelta | None, *, required: bool = False) -> When | None:
    """The time that `--at` or `--in` gives. Raises: click.UsageError."""
    if at is not None and after is not None:
        raise click.UsageError("--at and --in exclude each other")
    chosen = at if at is not None else after
    if chosen is None and required:
        raise click.UsageError("--at or --in is required")
    return chosen


def strict_json(content: bytes) -> Any:
    """A JSON value, as strictly as the service reads it. Raises: ValueError, with a message without the field's name."""
    try:
        value = parse(content)
    except InvalidInput as error:
        raise ValueError("; ".join(each.message for each in error.errors)) from error
    compact(value)  # which tells of a part that cannot be used
    return value


def json_object(option: str, content: bytes) -> dict[str, Any]:
    """The JSON object that an option gives. Raises: click.UsageError."""
    try:
        value = strict_json(content)
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from error
    if not isinstance(value, dict):
        raise click.UsageError(f"{option}: should be a JSON object")
    return value


# --- the content of a schedule or a job

_PAYLOAD_OPTIONS: Final = (
    click.option("--data", help="The payload, as JSON."),
    click.option("--text", help="The payload, as text."),
    click.option("--data-file", type=click.File("rb"), help="The payload, byte by byte; - is standard input."),
)
_CONTENT_OPTIONS: Final = (
    *_PAYLOAD_OPTIONS,
    click.option(
        "--ordering-key", help="Order is kept per topic and ordering key. Default: the schedule key, or the job's id."
    ),
    click.option("--guarantee", type=click.Choice(["exactly_once", "at_least_once"])),
    click.option("--header", multiple=True, metavar="NAME=VALUE", help="Header of the record; repeatable."),
    click.option("--deadline", type=Duration(), help="How long after its time a schedule is late."),
    click.option(
        "--on-late", type=click.Choice(["deliver", "drop", "dead_letter"]), help="What to do with a late one."
    ),
    click.option(
        "--retry-attempts",
        type=click.IntRange(1, INTEGER_MAX),
        help="How often to send a record that its topic refuses.",
    ),
    click.option("--retry-initial", type=Duration(), help="First wait between two attempts."),
    click.option("--retry-max", type=Duration(), help="Longest wait."),
    click.option("--retry-factor", type=FiniteFloat(), help="Ratio of a wait to the one before."),
    click.option("--retry-jitter", type=FiniteFloat(), help="Share of a wait that may be left off at random."),
)


def with_options(options: Sequence[Callable[[Any], Any]], command: _Command) -> _Command:
    """Adds these options to a command; its help lists them in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def payload_options(command: _Command) -> _Command:
    """Adds the options of a payload."""
    return with_options(_PAYLOAD_OPTIONS, command)


def content_options(command: _Command) -> _Command:
    """Adds the options of a schedule's content, its payload among them."""
    return with_options(_CONTENT_OPTIONS, command)


def content_of(
    *,
    data: str | None,
    text: str | None,
    data_file: IO[bytes] | None,
    ordering_key: str | None,
    guarantee: str | None,
    header: tuple[str, ...],
    deadline: timedelta | None,
    on_late: str | None,
    **retry: Any,
) -> dict[str, Any]:
    """Arguments of the client's `create`, `reschedule` and `create_job`; what was not given is absent. Raises:
    click.UsageError."""
    fields = {
        "ordering_key": ordering_key,
        "guarantee": guarantee,
        "headers": named_values("--header", header),
        "deadline_ms": ms_of(deadline),
        "on_late": on_late,
        "retry": _policy(**retry),
    }
    given = {name: value for name, value in fields.items() if value is not None}
    return given | payload_of(data=data, text=text, data_file=data_file)


def payload_of(*, data: str | None, text: str | None, data_file: IO[bytes] | None) -> dict[str, Any]:
    """The argument `data` of the client's calls, if there is a payload. Raises: click.UsageError."""
    if sum(each is not None for each in (data, text, data_file)) > 1:
        raise click.UsageError("--data, --text and --data-file exclude each other")
    if data is not None:
        try:
            return {"data": strict_json(data.encode())}
        except ValueError as error:
            raise click.UsageError(f"--data: {error}; a text goes into --text") from error
    if text is not None:
        return {"data": text}
    return {} if data_file is None else {"data": data_file.read()}


def named_values(option: str, given: tuple[str, ...]) -> dict[str, str] | None:
    """The values of a repeatable option NAME=VALUE; None: it was not given. Raises: click.UsageError."""
    pairs = [each.partition("=") for each in given]
    wrong = [name for name, equals, _ in pairs if not equals]
    if wrong:
        raise click.UsageError(f"{option}: {wrong[0]!r} should be NAME=VALUE")
    values = {name: value for name, _, value in pairs}
    if len(values) < len(pairs):
        raise click.UsageError(f"{option}: the same name is given twice")
    return values or None


def _policy(
    *,
    retry_attempts: int | None,
    retry_initial: timedelta | None,
    retry_max: timedelta | None,
    retry_factor: float | None,
    retry_jitter: float | None,
) -> RetryPolicy | None:
    policy = RetryPolicy(
        attempts=retry_attempts,
        initial_ms=ms_of(retry_initial),
        max_ms=ms_of(retry_max),
        factor=retry_factor,
        jitter=retry_jitter,
    )
    return None if policy == RetryPolicy() else policy


def ms_of(duration: timedelta | None) -> int | None:
    """A duration in milliseconds; its options have no finer one."""
    return None if duration is None else duration // _MS
