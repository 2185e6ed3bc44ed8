"""Batches as JSON: the envelope of up to a thousand requests, and its answer."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field

from clockwork.domain.names import BATCH_ITEMS_MAX
from clockwork.errors import InvalidInput
from clockwork.schema.problems import ConflictDocument, InvalidDocument
from clockwork.schema.schedule import KeyForm, ScheduleDocument, ScheduleForm
from clockwork.schema.validation import DOCUMENT, FORM, read_form

_T = TypeVar("_T")


class _EnvelopeForm(BaseModel):
    """The envelope of a batch; its items are read one by one."""

    model_config = FORM

    schedules: Annotated[list[Any], Field(max_length=BATCH_ITEMS_MAX)]


class CreateManyForm(_EnvelopeForm):
    """Schedules to create, each for itself."""

    schedules: Annotated[list[ScheduleForm], Field(max_length=BATCH_ITEMS_MAX)]


class CancelManyForm(_EnvelopeForm):
    """Schedules to cancel, each for itself."""

    schedules: Annotated[list[KeyForm], Field(max_length=BATCH_ITEMS_MAX)]


class ItemDocument(BaseModel):
    """The result of one item of a batch."""

    model_config = DOCUMENT

    status: int
    """The status that the single call would have answered."""
    schedule: ScheduleDocument


class BatchDocument(BaseModel):
    """One result for each item, in the order given; a problem document for an item that failed."""

    model_config = DOCUMENT

    results: list[ItemDocument | ConflictDocument | InvalidDocument]


def read_items(document: Any, read: Callable[[Any], _T]) -> list[_T | InvalidInput]:
    """The items of a batch, each as `read` takes it, or the error of that item.

    Raises: InvalidInput: the envelope is wrong.
    """
    return read_each(read_form(_EnvelopeForm, document).schedules, read)


def read_each(items: Sequence[Any], read: Callable[[Any], _T]) -> list[_T | InvalidInput]:
    """Each item as `read` takes it, or its error."""
    return [_item(item, read) for item in items]


def _item(item: Any, read: Callable[[Any], _T]) -> _T | InvalidInput:
    try:
        return read(item)
    except InvalidInput as wrong:
        return wrong
