"""Batches of dead letters as JSON: the envelope, and the result of each."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from clockwork.domain.dead_letters import LetterName
from clockwork.domain.names import BATCH_ITEMS_MAX
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.errors import InvalidInput
from clockwork.schema.batch import ItemDocument, read_each
from clockwork.schema.dead_letter import DiscardedDocument, LetterForm
from clockwork.schema.problems import ConflictDocument, InvalidDocument, ProblemDocument, StaleDocument
from clockwork.schema.schedule import StatusName
from clockwork.schema.validation import DOCUMENT, FORM, read_form


class LettersForm(BaseModel):
    """Dead letters to act on, each for itself."""

    model_config = FORM

    dead_letters: Annotated[list[LetterForm], Field(max_length=BATCH_ITEMS_MAX)]


class _EnvelopeForm(BaseModel):
    """The envelope of a batch; its items are read one by one."""

    model_config = FORM

    dead_letters: Annotated[list[Any], Field(max_length=BATCH_ITEMS_MAX)]


def read_letters(document: Any) -> list[LetterName | InvalidInput]:
    """The letters of a batch, each by its name, or the error of that item. Raises: InvalidInput: the envelope is wrong."""
    return read_each(read_form(_EnvelopeForm, document).dead_letters, _letter)


def _letter(document: Any) -> LetterName:
    form = read_form(LetterForm, document)
    return LetterName(ClientId(form.client_id), ScheduleKey(form.schedule_key), form.delivery_id)


class DiscardItemDocument(BaseModel):
    """A dead letter that was discarded, now or before."""

    model_config = DOCUMENT

    status: int
    """200."""
    dead_letter: DiscardedDocument


class LetterNotOpenDocument(ProblemDocument):
    """The schedule under the letter's key has another state by now."""

    reason: StatusName
    """Its status; `failed`: with another delivery."""


class DiscardsDocument(BaseModel):
    """One result for each item, in the order given; a problem document for an item that failed."""

    model_config = DOCUMENT

    results: list[DiscardItemDocument | LetterNotOpenDocument | InvalidDocument]


class LetterRetriesDocument(BaseModel):
    """One result for each item, in the order given; a problem document for an item that failed."""

    model_config = DOCUMENT

    results: list[ItemDocument | ConflictDocument | LetterNotOpenDocument | StaleDocument | InvalidDocument]
