"""Process reports as the stores keep them: one JSON document; the process and the time stand beside it."""

from typing import Any, Final, get_type_hints

import orjson

from clockwork.domain.ownership import ProcessId
from clockwork.domain.registry import ProcessReport
from clockwork.errors import Unreadable

_MEMBERS: Final[dict[str, Any]] = {
    name: kind for name, kind in get_type_hints(ProcessReport).items() if name not in ("process", "seen_at_ms")
}
"""The members of the document, and their types."""


def report_text(report: ProcessReport) -> str:
    """The report without its process and time."""
    return orjson.dumps({name: getattr(report, name) for name in _MEMBERS}).decode()


def report_of(process: str, seen_at_ms: int, text: str) -> ProcessReport:
    """Reads a report; members of other versions are left out. Raises: Unreadable."""
    try:
        document: Any = orjson.loads(text)
        known = {name: document[name] for name in _MEMBERS if name in document}
        wrong = [name for name, value in known.items() if not isinstance(value, _MEMBERS[name])]
        if wrong:
            raise Unreadable(f"report of a process: {wrong[0]} is of another type")
        return ProcessReport(process=ProcessId(process), seen_at_ms=seen_at_ms, **known)
    except (ValueError, TypeError) as error:
        raise Unreadable(f"report of a process: {error}") from error
