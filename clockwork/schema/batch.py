"""Batches as JSON: the envelope of up to a thousand requests, and its answer."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, Field

from clockwork.domain.names import BATCH_ITEMS_MAX, LOOK_UP_ITEMS_MAX
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.errors import InvalidInput
from clockwork.requests.results import ANY_VERSION, VersionCondition
from clockwork.requests.service import ActionItem
from clockwork.schema.problems import ConflictDocument, InvalidDocument, StaleDocument
from clockwork.schema.reason import ReasonText
from clockwork.schema.schedule import Context, DueMs, KeyForm, ScheduleDocument, ScheduleForm, read_key
from clockwork.schema.validation import DOCUMENT, FORM, read_form

MAX_VERSION: Final = 999_999_999_999_999_999
_T = TypeVar("_T")


class _EnvelopeForm(BaseModel):
    """The envelope of a batch; its items are read one by one."""

    model_config = FORM

    schedules: Annotated[list[Any], Field(max_length=BATCH_ITEMS_MAX)]


class CreateManyForm(_EnvelopeForm):
    """Schedules to create, each for itself."""

    schedules: Annotated[list[ScheduleForm], Field(max_length=BATCH_ITEMS_MAX)]


class _ActionEnvelopeForm(_EnvelopeForm):
    """The envelope of a batch of actions."""

    reason: ReasonText | None = None
    """For people: in the log and in `GET /events`."""


class CancelManyForm(_ActionEnvelopeForm):
    """Schedules to cancel, each for itself."""

    schedules: Annotated[list[KeyForm], Field(max_length=BATCH_ITEMS_MAX)]


class FireItemForm(KeyForm):
    """A schedule to deliver now."""

    if_version: Annotated[int | None, Field(ge=1, le=MAX_VERSION)] = None
    """Only if this is still its version; else the result is `412`."""


class RetryItemForm(FireItemForm):
    """A failed schedule to arm again."""

    schedule_time_ms: Annotated[DueMs | None, Field(alias="scheduleTime")] = None
    """Its new due time; by default now."""


class FireManyForm(_ActionEnvelopeForm):
    """Schedules to deliver now, each for itself."""

    schedules: Annotated[list[FireItemForm], Field(max_length=BATCH_ITEMS_MAX)]


class RetryManyForm(_ActionEnvelopeForm):
    """Failed schedules to arm again, each for itself."""

    schedules: Annotated[list[RetryItemForm], Field(max_length=BATCH_ITEMS_MAX)]


class _FewForm(BaseModel):
    """The envelope of a question about some schedules."""

    model_config = FORM

    schedules: Annotated[list[Any], Field(max_length=LOOK_UP_ITEMS_MAX)]


class GetManyForm(_FewForm):
    """Schedules to show."""

    schedules: Annotated[list[KeyForm], Field(max_length=LOOK_UP_ITEMS_MAX)]


class ItemDocument(BaseModel):
    """The result of one item of a batch."""

    model_config = DOCUMENT

    status: int
    """The status that the single call would have answered."""
    schedule: ScheduleDocument


class BatchDocument(BaseModel):
    """One result for each item, in the order given; a problem document for an item that failed."""

    model_config = DOCUMENT

    results: list[ItemDocument | ConflictDocument | StaleDocument | InvalidDocument]


def read_cancel_item(document: Any) -> ActionItem:
    """A schedule to cancel. Raises: InvalidInput."""
    return ActionItem(*read_key(document))


def read_fire_item(document: Any) -> ActionItem:
    """A schedule to deliver now. Raises: InvalidInput."""
    return _action_item(read_form(FireItemForm, document))


def read_retry_item(document: Any, *, cluster: str, now_ms: int) -> ActionItem:
    """A failed schedule to arm again. Raises: InvalidInput."""
    form = read_form(RetryItemForm, document, Context(cluster=cluster, now_ms=now_ms))
    return replace(_action_item(form), due_ms=form.schedule_time_ms)


def _action_item(form: FireItemForm) -> ActionItem:
    condition = ANY_VERSION if form.if_version is None else VersionCondition(any_of=frozenset({form.if_version}))
    return ActionItem(ClientId(form.client_id), ScheduleKey(form.schedule_key), condition=condition)


def read_items(document: Any, read: Callable[[Any], _T]) -> list[_T | InvalidInput]:
    """The items of a batch, each as `read` takes it, or the error of that item.

    Raises: InvalidInput: the envelope is wrong.
    """
    return read_each(read_form(_EnvelopeForm, document).schedules, read)


def read_actions(
    document: Any, read: Callable[[Any], ActionItem]
) -> tuple[list[ActionItem | InvalidInput], str | None]:
    """The items of a batch of actions, like `read_items`, and its reason."""
    form = read_form(_ActionEnvelopeForm, document)
    return read_each(form.schedules, read), form.reason


def read_few(document: Any, read: Callable[[Any], _T]) -> list[_T | InvalidInput]:
    """The items of a question about some schedules, like `read_items`."""
    return read_each(read_form(_FewForm, document).schedules, read)


def read_each(items: Sequence[Any], read: Callable[[Any], _T]) -> list[_T | InvalidInput]:
    """Each item as `read` takes it, or its error."""
    return [_item(item, read) for item in items]


def _item(item: Any, read: Callable[[Any], _T]) -> _T | InvalidInput:
    try:
        return read(item)
    except InvalidInput as wrong:
        return wrong
