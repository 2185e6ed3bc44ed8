"""`taskData`: from a client's JSON value to the record's bytes, and back."""

import base64
import binascii
import json
from typing import Any, Final

from clockwork.domain.schedule import DataForm, Schedule
from clockwork.schema import json as json_body

TASK_DATA_LEVELS_MAX: Final = 64


def stored_data(value: Any, encoding: object) -> tuple[bytes, DataForm]:
    """The record's value, and the form in which it was given. Raises: ValueError, with a message for the client."""
    if isinstance(value, json_body.InvalidValue):
        raise ValueError(value.message)
    if encoding == "base64":
        return _decoded(value), DataForm.BASE64
    if isinstance(value, str):
        return value.encode(), DataForm.TEXT
    if json_body.deeper_than(value, TASK_DATA_LEVELS_MAX):
        raise ValueError(f"should be nested at most {TASK_DATA_LEVELS_MAX} deep")
    return json_body.compact(value), DataForm.JSON


def _decoded(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("should be a string, as taskDataEncoding is base64")
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("should be base64 (RFC 4648, 4), with its padding") from error
    # Stray bits behind the last byte would be lost, and the answer would not be what was given.
    if base64.b64encode(data).decode() != value:
        raise ValueError("should be base64 (RFC 4648, 4), without stray bits or blanks")
    return data


def answered_data(schedule: Schedule) -> Any:
    """The client's JSON value."""
    match schedule.data_form:
        case DataForm.JSON:
            return json.loads(schedule.task_data)
        case DataForm.TEXT:
            return schedule.task_data.decode()
        case DataForm.BASE64:
            return base64.b64encode(schedule.task_data).decode()
