"""Logs: the standard library's logging, as text or JSON lines.

A line is a constant message plus `extra={"event": "shard.taken", ...}`. Secrets and the content of schedules are left
out here, by field name and by type, so that one careless call elsewhere does not leak them. Messages of exceptions
that quote the value they met (`KeyError: 'order-1'`, pydantic's with the whole input) are left out too: the value may
be a payload or a key, and a log is read by more people than either is meant for. File, line and kind are enough to
find a defect.
"""

import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

_STANDARD_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_CONTROL_FIELDS: Final = frozenset({"event", "once_per"})
_SECRET_WORDS: Final = ("secret", "password", "token", "authorization", "credential", "access_key", "api_key")
_CONTENT_FIELDS: Final = frozenset({"task_data", "taskdata", "payload", "body", "headers", "value", "raw"})
_VALUE_CHARS_MAX: Final = 500
_QUIET_CAUSES_MAX: Final = 1_000
"""Number of causes that are remembered; then the oldest are forgotten, which bounds the memory and costs one line too
many."""

_LIBRARY_LEVELS: Final = {
    # aiokafka logs everyday events (a coordinator that moves, a topic just created) as errors, ten lines a second during an
    # outage; our own lines tell what matters, once.
    "aiokafka": logging.CRITICAL,
    "aiobotocore": logging.WARNING,
    "botocore": logging.WARNING,
    "urllib3": logging.WARNING,
    "asyncio": logging.WARNING,
    "aiohttp.access": logging.CRITICAL,
    "aiohttp": logging.WARNING,
    "opentelemetry": logging.WARNING,
}


def configure_logging(
    log_format: Literal["auto", "text", "json"], level: str, *, stream: TextIO | None = None
) -> logging.Handler:
    """Sends every log line to `stream` (default: standard error), once; may be called again. Returns the handler."""
    out = stream if stream is not None else sys.stderr
    as_text = log_format == "text" or (log_format == "auto" and out.isatty())
    handler = logging.StreamHandler(out)
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    handler.addFilter(quieten_lost_connection)
    handler.addFilter(OncePerCause())
    root = logging.getLogger()
    for old in [h for h in root.handlers if getattr(h, "clockwork", False)]:
        root.removeHandler(old)
    handler.clockwork = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name, library_level in _LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(library_level)
    return handler


def quieten_lost_connection(record: logging.LogRecord) -> bool:
    """Turns asyncio's report of a connection that was lost after its waiter had left into a line of level info without a
    traceback. A caller that gives up in the turn of the loop in which asyncpg's socket is connected leaves such a future
    behind (its `TLSUpgradeProto`, 0.32): the socket is closed, nothing is lost, and an error would page a person for it."""
    error = record.exc_info[1] if record.exc_info else None
    if record.name == "asyncio" and "never retrieved" in record.msg and isinstance(error, ConnectionError):
        record.exc_info = None
        record.levelno, record.levelname = logging.INFO, "INFO"
    return True


class OncePerCause(logging.Filter):
    """Passes a line with `extra={"once_per": cause}` once a minute for each event and cause; the next one that passes tells
    how many were left out. Lines without it always pass, except those of libraries, whose message serves as the cause: some
    libraries report an absent broker several times a second.
    """

    def __init__(self, interval_s: float = 60.0, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._monotonic_s = monotonic_s
        self._quiet: dict[tuple[object, object], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        cause = getattr(record, "once_per", None)
        if cause is None and record.name.partition(".")[0] in _LIBRARY_LEVELS:
            cause = f"{record.name}: {record.msg}"
        if cause is None:
            return True
        key = (getattr(record, "event", record.msg), str(cause))
        now_s = self._monotonic_s()
        until_s, left_out = self._quiet.get(key, (0.0, 0))
        if now_s < until_s:
            self._quiet[key] = (until_s, left_out + 1)
            return False
        self._quiet.pop(key, None)
        while len(self._quiet) >= _QUIET_CAUSES_MAX:
            self._quiet.pop(next(iter(self._quiet)))
        self._quiet[key] = (now_s + self._interval_s, 0)
        if left_out:
            record.left_out = left_out
        return True


class _Formatter(logging.Formatter):
    def formatException(self, ei: Any) -> str:  # noqa: N802
        return trace_text(ei[1])


class JsonFormatter(_Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": _time_text(record),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", None) or "log",
            "message": _clipped(record.getMessage()),
            "logger": record.name,
        }
        for name, value in _extra_fields(record):
            line.setdefault(name, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(_Formatter):
    """For a person at a terminal: time, level, event, message, then the fields as `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        event = getattr(record, "event", None) or record.name
        words = [_time_text(record)[11:23], f"{record.levelname:7}", event, _quoted(record.getMessage())]
        words += [f"{name}={_quoted(value)}" for name, value in _extra_fields(record)]
        text = " ".join(words)
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _time_text(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _extra_fields(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    for name, value in vars(record).items():
        if name not in _STANDARD_FIELDS and name not in _CONTROL_FIELDS:
            yield name, "[left out]" if _is_left_out(name) else _clipped(value)


def _is_left_out(name: str) -> bool:
    lower = name.lower()
    return lower in _CONTENT_FIELDS or any(word in lower for word in _SECRET_WORDS)


def _clipped(value: object) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    text = str(value)
    return text if len(text) <= _VALUE_CHARS_MAX else f"{text[:_VALUE_CHARS_MAX]}… [{len(text)} characters]"


def _quoted(value: object) -> str:
    """Values with blanks or control characters are quoted, so that no value can pretend to be another line."""
    text = str(_clipped(value))
    plain = text.isprintable() and text != ""
    return text if plain and "=" not in text and '"' not in text else json.dumps(text)


QUOTING: Final = (ValueError, LookupError)
"""And their subclasses: UnicodeError, JSONDecodeError, KeyError, pydantic's ValidationError."""


def trace_text(error: BaseException | None) -> str:
    """The traceback as Python prints it, without the messages of `QUOTING` errors."""
    return "\n".join(_trace_lines(error)) if error is not None else ""


def _trace_lines(error: BaseException, *, depth: int = 0) -> Iterator[str]:
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _trace_lines(before, depth=depth)
        yield f"{'  ' * depth}… and from that or meanwhile:"
    yield f"{'  ' * depth}Traceback (most recent call last):"
    for frame in traceback.format_tb(error.__traceback__):
        yield from (f"{'  ' * depth}{line}" for line in frame.rstrip().splitlines())
    yield f"{'  ' * depth}{_exception_text(error)}"
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _trace_lines(each, depth=depth + 1)


def _exception_text(error: BaseException) -> str:
    kind = type(error).__qualname__
    message = "[left out]" if isinstance(error, QUOTING) else str(error)
    return f"{kind}: {message}" if message else kind
