"""Batches of dead letters as JSON: the envelope, and the result of each."""

import base64
from typing import Annotated, Any

from pydantic import BaseModel, Field

from clockwork.domain.dead_letters import DeadLetter, LetterName, RunLetterName, retry_request
from clockwork.domain.destination import Topic
from clockwork.domain.jobs.job import RunNow
from clockwork.domain.names import BATCH_ITEMS_MAX
from clockwork.domain.run import JobId
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.errors import InvalidInput
from clockwork.schema import json
from clockwork.schema.batch import ItemDocument, read_each
from clockwork.schema.dead_letter import DiscardedDocument, LetterForm, RunLetterForm
from clockwork.schema.job import RunDocument, read_run_now
from clockwork.schema.job_render import JobConflictDocument
from clockwork.schema.problems import ConflictDocument, InvalidDocument, ProblemDocument, StaleDocument
from clockwork.schema.reason import ReasonText
from clockwork.schema.schedule import StatusName
from clockwork.schema.validation import DOCUMENT, FORM, read_form


class LettersForm(BaseModel):
    """Dead letters to act on, each for itself."""

    model_config = FORM

    dead_letters: Annotated[list[LetterForm | RunLetterForm], Field(max_length=BATCH_ITEMS_MAX)]
    reason: ReasonText | None = None
    """For people: in the log and in `GET /events`."""


class _EnvelopeForm(BaseModel):
    """The envelope of a batch; its items are read one by one."""

    model_config = FORM

    dead_letters: Annotated[list[Any], Field(max_length=BATCH_ITEMS_MAX)]
    reason: ReasonText | None = None


def read_letters(document: Any) -> tuple[list[LetterName | RunLetterName | InvalidInput], str | None]:
    """The letters of a batch, each by its name, or the error of that item; and its reason.

    Raises: InvalidInput: the envelope is wrong.
    """
    form = read_form(_EnvelopeForm, document)
    return read_each(form.dead_letters, _letter), form.reason


def _letter(document: Any) -> LetterName | RunLetterName:
    if isinstance(document, dict) and "jobId" in document:
        of_run = read_form(RunLetterForm, document)
        return RunLetterName(
            ClientId(of_run.client_id),
            JobId(of_run.job_id),
            of_run.delivery_id,
            Topic(of_run.dead_letter_topic),
            of_run.partition,
            of_run.offset,
        )
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


class RunAgainDocument(BaseModel):
    """A run of a job that is run again by hand, now or before."""

    model_config = DOCUMENT

    status: int
    """201; 200: it was before."""
    run: RunDocument


class LetterRetriesDocument(BaseModel):
    """One result for each item, in the order given; a problem document for an item that failed."""

    model_config = DOCUMENT

    results: list[
        ItemDocument
        | RunAgainDocument
        | ConflictDocument
        | JobConflictDocument
        | LetterNotOpenDocument
        | StaleDocument
        | InvalidDocument
    ]


def run_again(letter: DeadLetter) -> RunNow:
    """The request for a run by hand with the data of a run's letter; the same for the same letter."""
    value = letter.value
    try:
        data: dict[str, Any] = {"taskData": json.parse(value)}
        if isinstance(data["taskData"], str) or json.compact(data["taskData"]) != value:
            raise ValueError("not how a JSON value is stored")
    except (InvalidInput, TypeError, ValueError):
        # A text, which is stored as it is, with the quotes that may be in it; or bytes.
        try:
            data = {"taskData": value.decode()}
        except UnicodeDecodeError:
            data = {"taskData": base64.b64encode(value).decode(), "taskDataEncoding": "base64"}
    return read_run_now({"requestId": retry_request(letter.delivery_id or ""), **data})
