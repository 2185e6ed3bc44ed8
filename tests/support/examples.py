"""Recorded answers of the service (clockwork/http/static/examples.json), for tests of its clients."""

import json
from pathlib import Path
from typing import Any, Final

from clockwork.http import openapi

FILE: Final = Path(openapi.__file__).parent / openapi.EXAMPLES_FILE


def recorded(operation: str, status: int, name: str) -> dict[str, Any]:
    """A recorded answer: of an operation, or of `problems`."""
    found = json.loads(FILE.read_bytes())[operation][str(status)][name]
    return dict(found)


PENDING: Final = recorded("getSchedule", 200, "pending")
DELIVERED: Final = recorded("getSchedule", 200, "delivered")
FAILED: Final = recorded("getSchedule", 200, "failed")
CANCELLED: Final = recorded("cancelSchedule", 200, "cancelled")
PAST: Final = recorded("getHistory", 200, "page")["schedules"][0]
