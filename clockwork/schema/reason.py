"""The reason of an action, as a caller gives it."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, WithJsonSchema

from clockwork.schema.validation import FORM, in_requests, read_form

REASON_BYTES_MAX: Final = 1_024


def _reason(value: str) -> str:
    if not 1 <= len(value.encode()) <= REASON_BYTES_MAX:
        raise ValueError(f"should be 1 to {REASON_BYTES_MAX} bytes of UTF-8")
    if any(ord(each) < 0x20 or 0x7F <= ord(each) < 0xA0 for each in value):
        raise ValueError("should have no control characters")
    return value


ReasonText = Annotated[
    str,
    in_requests(_reason),
    WithJsonSchema(
        {
            "type": "string",
            "minLength": 1,
            "maxLength": REASON_BYTES_MAX,
            "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
        }
    ),
]


class ReasonForm(BaseModel):
    """An action that needs no more than its path."""

    model_config = FORM

    reason: ReasonText | None = None
    """For people: in the log and in `GET /events`; of a pause also in `GET /admin/pauses`, for as long as it lasts."""


def read_reason(document: Any) -> str | None:
    """The reason of an action. Raises: InvalidInput."""
    return read_form(ReasonForm, document).reason
