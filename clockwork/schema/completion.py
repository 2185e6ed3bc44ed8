"""Completion of runs as JSON: what a job asks of its consumers, and their reports.

`read_completion` and `completion_document` are each other's inverse, as the two of a job are.
"""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, WithJsonSchema
from pydantic.functional_validators import BeforeValidator

from clockwork.domain.jobs.job import CompletionPolicy, CompletionReport, Heartbeat, RetryOn
from clockwork.domain.retry import BackoffPolicy, RetryPolicy
from clockwork.domain.run import RunId
from clockwork.errors import FieldError, InvalidInput
from clockwork.schema import json as json_body
from clockwork.schema.trigger import TimeMs
from clockwork.schema.validation import DOCUMENT, FORM, validated

TIMEOUT_MS_MIN: Final = 1_000
TIMEOUT_MS_MAX: Final = 86_400_000
ATTEMPTS_MAX: Final = 20
DOCUMENT_BYTES_MAX: Final = 4_096
"""Limit of a result or an error, as compact JSON."""
LEVELS_MAX: Final = 50
"""Levels to which a result or an error may be nested."""
_RUN_ID: Final = re.compile(r"[smb][0-9]{1,14}(-[0-9a-f]{8})?", re.ASCII)
_RETRY_DEFAULTS: Final = {"initial_ms": 1_000, "max_ms": 60_000, "factor": 2.0}

_Whole = BeforeValidator(json_body.whole)
_TimeoutMs = Annotated[int, Field(ge=TIMEOUT_MS_MIN, le=TIMEOUT_MS_MAX), _Whole]
_Attempt = Annotated[int, Field(ge=1, le=ATTEMPTS_MAX), _Whole]
_RetryOnName = Literal["timeout", "failure"]
_AnyJson = Annotated[
    Any, WithJsonSchema({"description": f"Any JSON value, at most {DOCUMENT_BYTES_MAX} bytes as compact JSON."})
]

# --- what a job asks for


class RunRetryForm(BaseModel):
    """Attempts of a run, and the waits between them."""

    model_config = FORM

    attempts: Annotated[int, Field(ge=1, le=ATTEMPTS_MAX), _Whole]
    """The first one counts."""
    initial_ms: Annotated[int | None, Field(ge=100, le=86_400_000), _Whole] = None
    """By default 1,000."""
    max_ms: Annotated[int | None, Field(ge=100, le=86_400_000), _Whole] = None
    """By default 60,000, or `initialMs` if that is more."""
    factor: Annotated[float | None, Field(ge=1, le=10)] = None
    """By default 2. Two decimals are kept."""


class CompletionForm(BaseModel):
    """The completion that a job asks of its consumer."""

    model_config = FORM

    timeout_ms: _TimeoutMs
    """Time for a run, counted from its delivery."""
    retry: RunRetryForm | None = None
    """Needs `overlap` `skip` or `wait`, or a fixed delay. By default a run has one attempt."""
    retry_on: Annotated[list[_RetryOnName] | None, Field(min_length=1, max_length=2)] = None
    """By default both."""


class RunRetryDocument(BaseModel):
    """Attempts of a run, and the waits between them."""

    model_config = DOCUMENT

    attempts: int
    initial_ms: int
    max_ms: int
    factor: float


class CompletionDocument(BaseModel):
    """The completion that a job asks of its consumer."""

    model_config = DOCUMENT

    timeout_ms: int
    retry: RunRetryDocument | None = None
    """Absent: a run has one attempt."""
    retry_on: list[_RetryOnName] | None = None
    """Absent without `retry`."""


def completion_of(form: CompletionForm | None) -> CompletionPolicy | None:
    """The completion of a form that has no wrong field."""
    if form is None:
        return None
    retry = None if form.retry is None else _policy_of(form.retry)
    on = [each.value for each in RetryOn] if form.retry_on is None else form.retry_on
    return CompletionPolicy(
        timeout_ms=form.timeout_ms,
        retry=retry,
        retry_on=frozenset() if retry is None else frozenset(RetryOn(each) for each in on),
    )


def wrong_completion(form: CompletionForm | None, *, overlap: str | None, by_delay: bool) -> list[FieldError]:
    """Errors that only fields together make. `overlap`: that of the job; `by_delay`: its trigger is a fixed delay."""
    waits = overlap in ("skip", "wait")
    if form is None:
        return [FieldError("overlap", f"{overlap!r} needs completion")] if waits else []
    errors: list[FieldError] = []
    if form.retry is not None and not waits and not by_delay:
        errors.append(FieldError("completion.retry", "needs overlap 'skip' or 'wait', or a fixed delay"))
    if form.retry is None and form.retry_on is not None:
        errors.append(FieldError("completion.retryOn", "has no effect without retry"))
    if form.retry is not None:
        initial_ms, max_ms = form.retry.initial_ms, form.retry.max_ms
        if initial_ms is not None and max_ms is not None and max_ms < initial_ms:
            errors.append(FieldError("completion.retry.maxMs", f"should be at least initialMs, {initial_ms}"))
    return errors


def completion_document(completion: CompletionPolicy) -> dict[str, Any]:
    """A `CompletionDocument`."""
    document: dict[str, Any] = {"timeoutMs": completion.timeout_ms}
    if (policy := completion.retry) is not None:
        backoff = policy.backoff
        document["retry"] = {
            "attempts": policy.attempts_max,
            "initialMs": backoff.initial_ms,
            "maxMs": backoff.max_ms,
            "factor": backoff.factor_percent / 100,
        }
        document["retryOn"] = sorted(each.value for each in completion.retry_on)
    return document


def _policy_of(form: RunRetryForm) -> RetryPolicy:
    given = {**_RETRY_DEFAULTS, **form.model_dump(exclude_none=True)}
    return RetryPolicy(
        attempts_max=form.attempts,
        backoff=BackoffPolicy(
            initial_ms=given["initial_ms"],
            max_ms=max(given["max_ms"], given["initial_ms"]),
            factor_percent=round(given["factor"] * 100),
        ),
    )


# --- reports


def run_id_of(text: str) -> RunId:
    """The id of a run. Raises: ValueError, with a message for the client."""
    if _RUN_ID.fullmatch(text) is None:
        raise ValueError("should be the id of a run, such as s1795248000000")
    return RunId(text)


class _AttemptForm(BaseModel):
    model_config = FORM

    attempt: _Attempt = 1
    """As the record's header `clockwork-run-attempt` says."""


class CompleteForm(_AttemptForm):
    """A run that has ended well."""

    started_at_ms: Annotated[TimeMs, Field(alias="startedAt")] = None
    """The time at which its consumer began with it."""
    result: _AnyJson = None


class FailForm(_AttemptForm):
    """A run that has failed."""

    started_at_ms: Annotated[TimeMs, Field(alias="startedAt")] = None
    """The time at which its consumer began with it."""
    error: _AnyJson = None
    retry: bool = True
    """False: no other attempt is made, whatever the job's `completion` says."""


class HeartbeatForm(_AttemptForm):
    """A run that goes on."""

    extend_ms: _TimeoutMs
    """The run is not timed out earlier than this, from now on. It never shortens the time."""


class HeartbeatDocument(BaseModel):
    """A run that goes on."""

    model_config = DOCUMENT

    run_id: str
    attempt: int
    until_ms: Annotated[int, Field(alias="until")]
    """Its time-out, in epoch milliseconds."""


def read_complete(document: Any) -> CompletionReport:
    """Raises: InvalidInput."""
    errors, form = validated(CompleteForm, document)
    text = _text_of(document, "result", errors)
    if errors or form is None:
        raise InvalidInput(errors)
    return CompletionReport(attempt=form.attempt, succeeded=True, started_at_ms=form.started_at_ms, document=text)


def read_fail(document: Any) -> CompletionReport:
    """Raises: InvalidInput."""
    errors, form = validated(FailForm, document)
    text = _text_of(document, "error", errors)
    if errors or form is None:
        raise InvalidInput(errors)
    return CompletionReport(
        attempt=form.attempt,
        succeeded=False,
        started_at_ms=form.started_at_ms,
        document=text,
        may_retry=form.retry,
    )


def read_heartbeat(document: Any) -> Heartbeat:
    """Raises: InvalidInput."""
    errors, form = validated(HeartbeatForm, document)
    if form is None:
        raise InvalidInput(errors)
    return Heartbeat(attempt=form.attempt, extend_ms=form.extend_ms)


def _text_of(document: Any, name: str, errors: list[FieldError]) -> bytes | None:
    """The member as compact JSON; None: it is not there, or wrong, and then named in `errors`."""
    if not isinstance(document, dict) or name not in document:
        return None
    value = document[name]
    try:
        if json_body.deeper_than(value, LEVELS_MAX):
            raise ValueError(f"should be nested at most {LEVELS_MAX} levels")
        text = json_body.compact(value)
        if len(text) > DOCUMENT_BYTES_MAX:
            raise ValueError(f"should be at most {DOCUMENT_BYTES_MAX} bytes as compact JSON")
    except ValueError as error:
        errors.append(FieldError(name, str(error)))
        return None
    return text
