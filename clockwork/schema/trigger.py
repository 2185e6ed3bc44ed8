"""A job's trigger and its misfire policy as JSON.

The form of a trigger follows from its `type`, so that an error is about the fields of that type alone. What pydantic finds
and what the domain finds are reported together, each below the field that was read: `trigger.of.1.everyMs`.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field

from clockwork.domain.cron import Days, Dialect
from clockwork.domain.dst import Gap, Overlap
from clockwork.domain.misfire import CATCH_UP_MAX, Misfire, MisfirePolicy
from clockwork.domain.trigger import (
    MEMBERS_MAX,
    MEMBERS_MIN,
    AnyOf,
    Cron,
    FixedDelay,
    FixedRate,
    Jitter,
    JitterPer,
    Rule,
    Trigger,
    check_fires,
    cron,
)
from clockwork.errors import FieldError, InvalidInput
from clockwork.schema.json import InvalidValue, whole
from clockwork.schema.times import time_ms_of_input
from clockwork.schema.validation import FORM, validated

_T = TypeVar("_T")


def _time_or_none(value: object) -> int | None:
    return None if value is None else time_ms_of_input(value)


_TimeMs = Annotated[int | None, BeforeValidator(_time_or_none)]
_Whole = Annotated[int, BeforeValidator(whole)]
_WholeOrNone = Annotated[int | None, BeforeValidator(lambda value: value if value is None else whole(value))]


class DstForm(BaseModel):
    """Rules for wall-clock times that do not exist, or exist twice, where a zone's offset changes."""

    model_config = FORM

    gap: Literal["next", "shift", "skip"] | None = None
    """By default `skip` if the hour field begins with `*`, else `next`."""
    overlap: Literal["first", "second", "both"] | None = None
    """By default `both` if the hour field begins with `*`, else `first`."""


class _CronFields(BaseModel):
    model_config = FORM

    type: Literal["cron"]
    expression: str
    dialect: Literal["unix", "quartz", "spring", "aws"] | None = None
    """By default `unix` for five fields; needed for more, if the weekday has a digit."""
    time_zone: str = "UTC"
    """Name in the IANA database."""
    days: Literal["or", "and"] | None = None
    """Days that either day field names, or both; counts only if both are restricted."""
    dst: DstForm | None = None


class _RateFields(BaseModel):
    model_config = FORM

    type: Literal["fixed_rate"]
    every_ms: _Whole
    anchor_ms: Annotated[_TimeMs, Field(alias="anchor")] = None
    """A fire time, from which all others follow. By default `start`, else the creation."""


class _Bounds(BaseModel):
    model_config = FORM

    start_ms: Annotated[_TimeMs, Field(alias="start")] = None
    """Inclusive."""
    end_ms: Annotated[_TimeMs, Field(alias="end")] = None
    """Exclusive."""
    max_runs: _WholeOrNone = None
    jitter_ms: _WholeOrNone = None
    jitter_per: Literal["job", "run"] = "job"


class CronForm(_CronFields, _Bounds):
    """A cron expression in a time zone."""


class FixedRateForm(_RateFields, _Bounds):
    """Fire times at one distance from each other."""


class FixedDelayForm(_Bounds):
    """A fire time some time after the end of the last run."""

    type: Literal["fixed_delay"]
    delay_ms: _Whole


class AnyForm(_Bounds):
    """The fire times of several triggers."""

    type: Literal["any"]
    of: list[Any]
    """Triggers of type `cron` and `fixed_rate`, without bounds of their own."""


class MisfireForm(BaseModel):
    """Treatment of fire times that were missed."""

    model_config = FORM

    policy: Literal["skip", "fire_once", "fire_all"] = "fire_once"
    grace_ms: _WholeOrNone = None
    """By default a minute, or the distance to the next fire time if that is less."""
    max_catch_up: _Whole = CATCH_UP_MAX
    window_ms: _WholeOrNone = None


_FORMS: Final[Mapping[str, type[_Bounds]]] = {
    "cron": CronForm,
    "fixed_rate": FixedRateForm,
    "fixed_delay": FixedDelayForm,
    "any": AnyForm,
}
_MEMBER_FORMS: Final[Mapping[str, type[BaseModel]]] = {"cron": _CronFields, "fixed_rate": _RateFields}


def read_trigger(document: Any, *, now_ms: int, created_ms: int | None = None, path: str = "trigger") -> Trigger:
    """A trigger. `created_ms`: the creation of its job, the default anchor of a rate; None: now. `path`: the field that it
    stands in.

    Raises: InvalidInput, naming every wrong field; also for a trigger without a fire time from now on.
    """
    errors: list[FieldError] = []
    form = _form(_FORMS, document, path, errors)
    if form is None:
        raise InvalidInput(errors)
    anchor_ms = form.start_ms if form.start_ms is not None else created_ms if created_ms is not None else now_ms
    rule = _rule(form, anchor_ms, path, errors)
    jitter_ms = form.jitter_ms
    jitter = _made(
        lambda: None if jitter_ms is None else Jitter(most_ms=jitter_ms, per=JitterPer(form.jitter_per)), path, errors
    )
    # Its bounds are checked beside any rule.
    trigger = _made(
        lambda: Trigger(
            rule=rule or FixedDelay(delay_ms=1_000),
            start_ms=form.start_ms,
            end_ms=form.end_ms,
            runs_max=form.max_runs,
            jitter=jitter,
        ),
        path,
        errors,
    )
    if trigger is not None and not errors:
        _made(lambda: check_fires(trigger, now_ms), path, errors)
    if errors or trigger is None:
        raise InvalidInput(errors)
    return trigger


def read_misfire(document: Any, *, path: str = "misfire") -> Misfire:
    """A misfire policy. Raises: InvalidInput, naming every wrong field."""
    errors, form = validated(MisfireForm, document)
    if form is None:
        raise InvalidInput([_below(path, each) for each in errors])
    misfire = _made(
        lambda: Misfire(
            policy=MisfirePolicy(form.policy),
            grace_ms=form.grace_ms,
            catch_up_max=form.max_catch_up,
            window_ms=form.window_ms,
        ),
        path,
        errors,
    )
    if misfire is None:
        raise InvalidInput(errors)
    return misfire


_Form = TypeVar("_Form", bound=BaseModel)


def _form(forms: Mapping[str, type[_Form]], document: Any, path: str, errors: list[FieldError]) -> _Form | None:
    """The document as the form of its type."""
    if not isinstance(document, dict):
        message = document.message if isinstance(document, InvalidValue) else "should be an object"
        errors.append(FieldError(path, message))
        return None
    kind = document.get("type")
    if not isinstance(kind, str) or kind not in forms:
        errors.append(FieldError(f"{path}.type", f"should be {' or '.join(repr(each) for each in forms)}"))
        return None
    wrong, form = validated(forms[kind], document)
    errors += (_below(path, each) for each in wrong)
    return form


def _rule(form: BaseModel, anchor_ms: int, path: str, errors: list[FieldError]) -> Rule | None:
    match form:
        case AnyForm():
            return _any_of(form, anchor_ms, path, errors)
        case FixedDelayForm():
            delay_ms = form.delay_ms
            return _made(lambda: FixedDelay(delay_ms=delay_ms), path, errors)
        case _:
            return _timetable(form, anchor_ms, path, errors)


def _any_of(form: AnyForm, anchor_ms: int, path: str, errors: list[FieldError]) -> AnyOf | None:
    if not MEMBERS_MIN <= len(form.of) <= MEMBERS_MAX:
        errors.append(FieldError(f"{path}.of", f"should have {MEMBERS_MIN} to {MEMBERS_MAX} triggers"))
        return None
    members: list[Cron | FixedRate] = []
    for index, document in enumerate(form.of):
        place = f"{path}.of.{index}"
        member = _form(_MEMBER_FORMS, document, place, errors)
        # Within a union a default anchor is a whole second, as all of its fire times are.
        rule = _timetable(member, anchor_ms // 1_000 * 1_000, place, errors) if member is not None else None
        if rule is not None:
            members.append(rule)
    return _made(lambda: AnyOf(of=tuple(members)), path, errors) if len(members) == len(form.of) else None


def _timetable(form: BaseModel, anchor_ms: int, path: str, errors: list[FieldError]) -> Cron | FixedRate | None:
    if isinstance(form, _RateFields):
        given_ms = form.anchor_ms
        return _made(
            lambda: FixedRate(every_ms=form.every_ms, anchor_ms=anchor_ms if given_ms is None else given_ms),
            path,
            errors,
        )
    if not isinstance(form, _CronFields):
        raise TypeError(f"{type(form).__name__} has no timetable")
    dst = form.dst or DstForm()
    return _made(
        lambda: cron(
            form.expression,
            dialect=Dialect(form.dialect) if form.dialect else None,
            time_zone=form.time_zone,
            days=Days(form.days) if form.days else None,
            gap=Gap(dst.gap) if dst.gap else None,
            overlap=Overlap(dst.overlap) if dst.overlap else None,
        ),
        path,
        errors,
    )


def _made(make: Callable[[], _T], path: str, errors: list[FieldError]) -> _T | None:
    """A value of the domain, or its errors below this path."""
    try:
        return make()
    except InvalidInput as wrong:
        errors += (_below(path, each) for each in wrong.errors)
        return None


def _below(path: str, error: FieldError) -> FieldError:
    return FieldError(path if error.field == "body" else f"{path}.{error.field}", error.message)
