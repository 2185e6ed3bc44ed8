"""Answers to redacted principals: documents without what schedules carry, but with everything about them.

It works on documents, by the names of their members, and not on the values that they are made from: one place for every
answer there is, problem documents that show a schedule included, and for those of calls to come.
"""

from collections.abc import Mapping
from typing import Any, Final

REDACTED: Final = "redacted"
"""Member of a document from which something was taken."""
_CONTENT: Final = frozenset({"taskData", "taskDataEncoding"})
_LETTER_CONTENT: Final = frozenset({"value", "valueEncoding"})
_RUN_CONTENT: Final = frozenset({"result", "error"})
"""Documents of the run's consumer, who has seen the payload: an error mostly quotes it."""
_UNTOUCHED: Final = frozenset({"payloadSchema", "labels"})
"""Members of any names, chosen by a client, that are about a job and not what it carries."""


def redact(document: Any) -> Any:
    """The document without payloads, and with null for each value of a header. The given one stays as it is."""
    if isinstance(document, list):
        return [redact(each) for each in document]
    if not isinstance(document, Mapping):
        return document
    taken = _CONTENT & document.keys()
    if "valueEncoding" in document:
        taken |= _LETTER_CONTENT
    if "runId" in document and "status" in document:  # an event of a run has no status, and a `result` that is a code
        taken |= _RUN_CONTENT & document.keys()
    left = {name: _member(name, value) for name, value in document.items() if name not in taken}
    return {**left, REDACTED: True} if taken else left


def _member(name: str, value: Any) -> Any:
    if name in _UNTOUCHED:
        return value
    if name == "headers" and isinstance(value, Mapping):
        return dict.fromkeys(value)
    return redact(value)
