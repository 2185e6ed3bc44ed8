"""What a schedule may say about being late, and about records that are refused: forms, checks, answers."""

from typing import Annotated, Any, Final, Literal, Protocol

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from clockwork.domain.retry import BackoffPolicy, RetryPolicy
from clockwork.domain.schedule import OnLate, Schedule
from clockwork.errors import FieldError
from clockwork.schema.json import whole

ATTEMPTS: Final = 8
INITIAL_MS: Final = 1_000
MAX_MS: Final = 60_000
FACTOR: Final = 2.0
"""What a `retry` that does not say is taken to mean."""

_WHOLE: Final = BeforeValidator(whole)
OnLateName = Literal["deliver", "drop", "dead_letter"]


class RetryForm(BaseModel):
    """When a record is tried again that its topic refuses for what it is."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)

    attempts: Annotated[int | None, Field(ge=1, le=100), _WHOLE] = None
    initial_ms: Annotated[int | None, Field(alias="initialMs", ge=100, le=3_600_000), _WHOLE] = None
    max_ms: Annotated[int | None, Field(alias="maxMs", ge=100, le=86_400_000), _WHOLE] = None
    factor: Annotated[float | None, Field(ge=1, le=10)] = None
    """Two decimals are kept."""
    jitter: Annotated[float | None, Field(ge=0, le=1)] = None
    """By how much a wait may be shorter, as a share; two decimals are kept."""


class Policies(Protocol):
    """The part of a delivery that is about this."""

    @property
    def deadline(self) -> int | None: ...
    @property
    def on_late(self) -> OnLateName | None: ...
    @property
    def retry(self) -> RetryForm | None: ...


def wrong_policies(delivery: Policies) -> list[FieldError]:
    """What only several fields together get wrong."""
    errors: list[FieldError] = []
    if delivery.on_late not in (None, "deliver") and delivery.deadline is None:
        errors.append(FieldError("delivery.deadline", f"is required with onLate {delivery.on_late!r}"))
    if (retry := delivery.retry) is not None:
        policy = policy_of(retry)
        if policy.backoff.initial_ms > policy.backoff.max_ms:
            errors.append(
                FieldError("delivery.retry.maxMs", f"should be at least initialMs, {policy.backoff.initial_ms}")
            )
    return errors


def policy_of(form: RetryForm) -> RetryPolicy:
    """With its defaults filled in."""
    return RetryPolicy(
        attempts_max=ATTEMPTS if form.attempts is None else form.attempts,
        backoff=BackoffPolicy(
            initial_ms=INITIAL_MS if form.initial_ms is None else form.initial_ms,
            max_ms=MAX_MS if form.max_ms is None else form.max_ms,
            factor_percent=round((FACTOR if form.factor is None else form.factor) * 100),
        ),
        jitter_percent=round((form.jitter or 0.0) * 100),
    )


def numbers_of(policy: RetryPolicy) -> list[int]:
    """For the digest: in this order for ever."""
    backoff = policy.backoff
    return [policy.attempts_max, backoff.initial_ms, backoff.max_ms, backoff.factor_percent, policy.jitter_percent]


def shown(schedule: Schedule) -> dict[str, Any]:
    """What was said, as a part of the answered `delivery`; nothing where nothing was."""
    found: dict[str, Any] = {}
    if schedule.deadline_ms is not None:
        found |= {"deadline": schedule.deadline_ms, "onLate": schedule.on_late.value}
    if (policy := schedule.retry) is not None:
        found["retry"] = {
            "attempts": policy.attempts_max,
            "initialMs": policy.backoff.initial_ms,
            "maxMs": policy.backoff.max_ms,
            "factor": policy.backoff.factor_percent / 100,
            "jitter": policy.jitter_percent / 100,
        }
    return found


def on_late_of(delivery: Policies) -> OnLate:
    """With its default filled in."""
    return OnLate(delivery.on_late or OnLate.DELIVER)
