"""A job's trigger and its misfire policy as JSON, read and written.

The form of a trigger follows from its `type`, so that an error is about the fields of that type alone. What pydantic finds
and what the domain finds are reported together, each below the field that was read: `trigger.of.1.everyMs`. `read_trigger`
and `trigger_document` are each other's inverse, and so are `read_misfire` and `misfire_document`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypedDict, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from clockwork.domain.jobs.next_occurrence import (
    CATCH_UP_MAX,
    CATCH_UP_MAX_MAX,
    GRACE_MS_MAX,
    GRACE_MS_MIN,
    WINDOW_MS_MAX,
    WINDOW_MS_MIN,
    Misfire,
    MisfirePolicy,
)
from clockwork.domain.triggers.cron import Days, Dialect
from clockwork.domain.triggers.dst import GapRule, OverlapRule
from clockwork.domain.triggers.exclusions import (
    ANNUAL_MAX,
    CALENDAR_NAME,
    CRON_MAX,
    DATES_MAX,
    Exclusion,
    OnExcluded,
    exclusion,
)
from clockwork.domain.triggers.trigger import (
    APART_MS_MIN,
    CALENDARS_MAX,
    JITTER_MS_MAX,
    MEMBERS_MAX,
    MEMBERS_MIN,
    PERIOD_MS_MAX,
    TIME_MS_MAX,
    AnyOf,
    Cron,
    FixedDelay,
    FixedRate,
    Jitter,
    JitterPer,
    Recurrence,
    Rule,
    Trigger,
    ZonedRule,
    check_fires,
    cron,
    rrule,
)
from clockwork.errors import FieldError, InvalidInput
from clockwork.schema.json import InvalidValue, whole
from clockwork.schema.times import time_ms_of_input
from clockwork.schema.validation import DOCUMENT, FORM, validated

_T = TypeVar("_T")


def _time_or_none(value: object) -> int | None:
    return None if value is None else time_ms_of_input(value)


TimeMs = Annotated[
    int | None,
    BeforeValidator(_time_or_none),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": TIME_MS_MAX},
                {"type": "string", "format": "date-time"},
                {"type": "null"},
            ],
            "description": "Epoch milliseconds, or RFC 3339 with an offset.",
        }
    ),
]


def _bounded(low: int, high: int) -> WithJsonSchema:
    """A range that the domain checks, for the description."""
    return WithJsonSchema({"type": "integer", "minimum": low, "maximum": high})


CALENDAR_NAME_SCHEMA: Final[Mapping[str, Any]] = {"type": "string", "pattern": f"^{CALENDAR_NAME.pattern}$"}
EXCLUSIONS_BYTES_MAX: Final = 32 * 1024
"""Texts of all exclusions of one trigger. They are stored in one item with the data of the job."""

_Whole = Annotated[int, BeforeValidator(whole)]
_WholeOrNone = Annotated[int | None, BeforeValidator(lambda value: value if value is None else whole(value))]
_PeriodMs = Annotated[_Whole, _bounded(APART_MS_MIN, PERIOD_MS_MAX)]


class DstForm(BaseModel):
    """Rules for wall-clock times that do not exist, or exist twice, where a zone's offset changes."""

    model_config = FORM

    gap: Literal["next", "shift", "skip"] | None = None
    """By default `skip` if the hour field begins with `*`, else `next`."""
    overlap: Literal["first", "second", "both"] | None = None
    """By default `both` if the hour field begins with `*`, else `first`."""


class EntriesForm(BaseModel):
    """Days, and hours of days, at which a job does not run, by the clock of the trigger's time zone."""

    model_config = FORM

    dates: list[str] = Field(default=[], max_length=DATES_MAX)
    """Such as `2026-12-25`."""
    annual: list[str] = Field(default=[], max_length=ANNUAL_MAX)
    """Month and day, such as `12-25`: each year."""
    weekdays: list[Literal["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]] = Field(default=[], max_length=7)
    cron: list[str] = Field(default=[], max_length=CRON_MAX)
    """Expressions of five fields: each minute that one of them names. One whose minute and hour are `*` excludes days."""


class ExclusionForm(EntriesForm):
    """Days, and hours of days, at which a job does not run, by the clock of the trigger's time zone."""

    calendar: Annotated[str | None, WithJsonSchema(CALENDAR_NAME_SCHEMA)] = None
    """Name of a calendar of the client's, which excludes as well."""


class _ZonedFields(BaseModel):
    model_config = FORM

    time_zone: str = "UTC"
    """Name in the IANA database."""
    dst: DstForm | None = None
    exclude: ExclusionForm | None = None
    on_excluded: Literal["skip", "next", "previous"] = "skip"
    """Times on an excluded day do not fire, or do so on the next or the previous day that is not excluded, at the same time
    by the clock. Those in excluded hours never fire."""


class _CronFields(_ZonedFields):
    type: Literal["cron"]
    expression: str
    dialect: Literal["unix", "quartz", "spring", "aws"] | None = None
    """By default `unix` for five fields; needed for more, if the weekday has a digit."""
    days: Literal["or", "and"] | None = None
    """Days that either day field names, or both; counts only if both are restricted."""


class _RateFields(BaseModel):
    model_config = FORM

    type: Literal["fixed_rate"]
    every_ms: _PeriodMs
    anchor_ms: Annotated[TimeMs, Field(alias="anchor")] = None
    """A fire time, from which all others follow. By default `start`, else the creation."""


class _Bounds(BaseModel):
    model_config = FORM

    start_ms: Annotated[TimeMs, Field(alias="start")] = None
    """Inclusive."""
    end_ms: Annotated[TimeMs, Field(alias="end")] = None
    """Exclusive."""
    max_runs: Annotated[_WholeOrNone, WithJsonSchema({"type": "integer", "minimum": 1})] = None
    """Runs in all, skipped ones aside."""
    jitter_ms: Annotated[_WholeOrNone, _bounded(0, JITTER_MS_MAX)] = None
    """Greatest delay of a delivery behind its fire time."""
    jitter_per: Literal["job", "run"] = "job"
    """One delay for all runs of the job, or one for each run; both can be computed again."""


class CronForm(_CronFields, _Bounds):
    """A cron expression in a time zone."""


class RecurrenceForm(_ZonedFields, _Bounds):
    """A recurrence rule of RFC 5545, counted from `start`, which is required."""

    type: Literal["rrule"]
    rule: str
    """Such as `FREQ=WEEKLY;INTERVAL=2;BYDAY=WE`; without COUNT, and not below DAILY. UNTIL is in UTC."""


class FixedRateForm(_RateFields, _Bounds):
    """Fire times at one distance from each other."""


class FixedDelayForm(_Bounds):
    """A fire time some time after the end of the last run."""

    type: Literal["fixed_delay"]
    delay_ms: _PeriodMs


class CronMemberForm(_CronFields):
    """A cron expression within a trigger of type `any`."""


class FixedRateMemberForm(_RateFields):
    """Fire times at one distance from each other, within a trigger of type `any`."""


_MemberForm = Annotated[CronMemberForm | FixedRateMemberForm, Field(discriminator="type")]


class AnyForm(_Bounds):
    """The fire times of several triggers."""

    type: Literal["any"]
    of: Annotated[list[_MemberForm], Field(min_length=MEMBERS_MIN, max_length=MEMBERS_MAX)]
    """Triggers without bounds of their own."""


class _AnyEnvelope(AnyForm):
    """As it is read: its members are read one by one."""

    of: list[Any]


TriggerForm = Annotated[
    CronForm | RecurrenceForm | FixedRateForm | FixedDelayForm | AnyForm, Field(discriminator="type")
]
"""Describes a trigger; it is read by `read_trigger`."""


class MisfireForm(BaseModel):
    """Treatment of fire times that were missed."""

    model_config = FORM

    policy: Literal["skip", "fire_once", "fire_all"] = "fire_once"
    grace_ms: Annotated[_WholeOrNone, _bounded(GRACE_MS_MIN, GRACE_MS_MAX)] = None
    """Lateness up to which an occurrence counts as on time; by default a minute, or the distance to the next fire time if
    that is less."""
    max_catch_up: Annotated[_Whole, _bounded(1, CATCH_UP_MAX_MAX)] = CATCH_UP_MAX
    """Most occurrences that are caught up, the latest ones; for `fire_all`."""
    window_ms: Annotated[_WholeOrNone, _bounded(WINDOW_MS_MIN, WINDOW_MS_MAX)] = None
    """Fire times older than this are not caught up; for `fire_all`. By default there is no limit."""


_FORMS: Final[Mapping[str, type[_Bounds]]] = {
    "cron": CronForm,
    "rrule": RecurrenceForm,
    "fixed_rate": FixedRateForm,
    "fixed_delay": FixedDelayForm,
    "any": _AnyEnvelope,
}
_MEMBER_FORMS: Final[Mapping[str, type[BaseModel]]] = {"cron": CronMemberForm, "fixed_rate": FixedRateMemberForm}


def read_trigger(
    document: Any,
    *,
    now_ms: int,
    created_ms: int | None = None,
    path: str = "trigger",
) -> Trigger:
    """A trigger, not resolved: with the names of calendars alone (`Trigger.resolved`). `created_ms`: the creation of its
    job, the default anchor of a rate; None: now. `path`: the field that it stands in.

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
        errors += _exclusion_errors(trigger, path)
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
        case RecurrenceForm():
            return _recurrence(form, path, errors)
        case _:
            return _timetable(form, anchor_ms, path, errors)


def _any_of(form: AnyForm, anchor_ms: int, path: str, errors: list[FieldError]) -> AnyOf | None:
    if not MEMBERS_MIN <= len(form.of) <= MEMBERS_MAX:
        errors.append(FieldError(f"{path}.of", f"should have {MEMBERS_MIN} to {MEMBERS_MAX} triggers"))
        return None
    # Within a union a default anchor is a whole second, as all of its fire times are.
    anchor_ms = anchor_ms // 1_000 * 1_000
    members: list[Cron | FixedRate] = []
    for index, document in enumerate(form.of):
        place = f"{path}.of.{index}"
        member = _form(_MEMBER_FORMS, document, place, errors)
        rule = _timetable(member, anchor_ms, place, errors) if member is not None else None
        if rule is not None:
            members.append(rule)
    return _made(lambda: AnyOf(of=tuple(members)), path, errors) if len(members) == len(form.of) else None


def _timetable(form: BaseModel, anchor_ms: int, path: str, errors: list[FieldError]) -> Cron | FixedRate | None:
    if isinstance(form, _RateFields):
        given_ms = form.anchor_ms if form.anchor_ms is not None else anchor_ms
        return _made(lambda: FixedRate(every_ms=form.every_ms, anchor_ms=given_ms), path, errors)
    if not isinstance(form, _CronFields):
        raise TypeError(f"{type(form).__name__} has no timetable")
    zoned = _zoned(form, path, errors)
    return _made(
        lambda: cron(
            form.expression,
            dialect=Dialect(form.dialect) if form.dialect else None,
            days=Days(form.days) if form.days else None,
            **zoned,
        ),
        path,
        errors,
    )


def _recurrence(form: RecurrenceForm, path: str, errors: list[FieldError]) -> Recurrence | None:
    if (start_ms := form.start_ms) is None:
        errors.append(FieldError(f"{path}.start", "is required: the rule counts from it"))
        return None
    zoned = _zoned(form, path, errors)
    return _made(lambda: rrule(form.rule, start_ms=start_ms, **zoned), path, errors)


class _Zoned(TypedDict):
    time_zone: str
    gap: GapRule | None
    overlap: OverlapRule | None
    exclude: Exclusion | None
    on_excluded: OnExcluded


def _zoned(form: _ZonedFields, path: str, errors: list[FieldError]) -> _Zoned:
    dst, excluded = form.dst or DstForm(), form.exclude
    exclude = None
    if excluded is not None:
        exclude = _made(lambda: exclusion(**excluded.model_dump()), f"{path}.exclude", errors)
    elif form.on_excluded != "skip":
        errors.append(FieldError(f"{path}.exclude", f"is required with onExcluded {form.on_excluded!r}"))
    return _Zoned(
        time_zone=form.time_zone,
        gap=GapRule(dst.gap) if dst.gap else None,
        overlap=OverlapRule(dst.overlap) if dst.overlap else None,
        exclude=exclude,
        on_excluded=OnExcluded(form.on_excluded),
    )


def _exclusion_errors(trigger: Trigger, path: str) -> Sequence[FieldError]:
    rules = trigger.rule.of if isinstance(trigger.rule, AnyOf) else (trigger.rule,)
    excluded = [each.exclude for each in rules if isinstance(each, ZonedRule) and each.exclude is not None]
    size_bytes, names = sum(each.size_bytes for each in excluded), set(trigger.unresolved.values())
    errors = []
    if size_bytes > EXCLUSIONS_BYTES_MAX:
        message = f"the texts that it excludes have {size_bytes} bytes; at most {EXCLUSIONS_BYTES_MAX} are taken"
        errors.append(FieldError(path, message))
    if len(names) > CALENDARS_MAX:
        errors.append(FieldError(path, f"names {len(names)} calendars; at most {CALENDARS_MAX} are taken"))
    return errors


def _made(make: Callable[[], _T], path: str, errors: list[FieldError]) -> _T | None:
    """A value of the domain, or its errors below this path."""
    try:
        return make()
    except InvalidInput as wrong:
        errors += (_below(path, each) for each in wrong.errors)
        return None


def _below(path: str, error: FieldError) -> FieldError:
    return FieldError(path if error.field == "body" else f"{path}.{error.field}", error.message)


# --- from the domain's value to the document that makes it


class DstDocument(BaseModel):
    """Rules for wall-clock times that do not exist, or exist twice."""

    model_config = DOCUMENT

    gap: str | None = None
    overlap: str | None = None


class EntriesDocument(BaseModel):
    """Days and hours at which a job does not run."""

    model_config = DOCUMENT

    dates: list[str] = []
    annual: list[str] = []
    weekdays: list[str] = []
    cron: list[str] = []


class ExclusionDocument(EntriesDocument):
    """Days and hours at which a job does not run."""

    calendar: str | None = None


class TriggerDocument(BaseModel):
    """A trigger as it was given, with its defaults; the fields depend on its type."""

    model_config = DOCUMENT

    type: str
    expression: str | None = None
    dialect: str | None = None
    time_zone: str | None = None
    days: str | None = None
    dst: DstDocument | None = None
    exclude: ExclusionDocument | None = None
    on_excluded: str | None = None
    rule: str | None = None
    every_ms: int | None = None
    anchor_ms: Annotated[int | None, Field(alias="anchor")] = None
    """In epoch milliseconds."""
    delay_ms: int | None = None
    of: "list[TriggerDocument] | None" = None
    start_ms: Annotated[int | None, Field(alias="start")] = None
    """Inclusive, in epoch milliseconds."""
    end_ms: Annotated[int | None, Field(alias="end")] = None
    """Exclusive, in epoch milliseconds."""
    max_runs: int | None = None
    jitter_ms: int | None = None
    jitter_per: str | None = None


class MisfireDocument(BaseModel):
    """Treatment of fire times that were missed."""

    model_config = DOCUMENT

    policy: str
    grace_ms: int | None = None
    max_catch_up: int | None = None
    window_ms: int | None = None


def trigger_document(trigger: Trigger) -> dict[str, Any]:
    """The document that makes this trigger."""
    document = _rule_document(trigger.rule)
    bounds = {"start": trigger.start_ms, "end": trigger.end_ms, "maxRuns": trigger.runs_max}
    document |= {name: value for name, value in bounds.items() if value is not None}
    if trigger.jitter is not None:
        document |= {"jitterMs": trigger.jitter.most_ms, "jitterPer": trigger.jitter.per.value}
    return document


def misfire_document(misfire: Misfire) -> dict[str, Any]:
    """The document that makes this policy."""
    document: dict[str, Any] = {"policy": misfire.policy.value}
    if misfire.grace_ms is not None:
        document["graceMs"] = misfire.grace_ms
    if misfire.policy is MisfirePolicy.FIRE_ALL or misfire.catch_up_max != CATCH_UP_MAX:
        document["maxCatchUp"] = misfire.catch_up_max
    if misfire.window_ms is not None:
        document["windowMs"] = misfire.window_ms
    return document


def _rule_document(rule: Rule) -> dict[str, Any]:
    match rule:
        case Cron():
            return _cron_document(rule)
        case Recurrence():
            return {"type": "rrule", "rule": rule.rule, **_zoned_document(rule)}
        case FixedRate():
            return {"type": "fixed_rate", "everyMs": rule.every_ms, "anchor": rule.anchor_ms}
        case FixedDelay():
            return {"type": "fixed_delay", "delayMs": rule.delay_ms}
        case AnyOf():
            return {"type": "any", "of": [_rule_document(each) for each in rule.of]}


def _cron_document(rule: Cron) -> dict[str, Any]:
    document: dict[str, Any] = {"type": "cron", "expression": rule.expression, **_zoned_document(rule)}
    if rule.dialect is not None:
        document["dialect"] = rule.dialect.value
    if rule.days is not None:
        document["days"] = rule.days.value
    return document


def _zoned_document(rule: ZonedRule) -> dict[str, Any]:
    document: dict[str, Any] = {"timeZone": rule.time_zone}
    dst = {"gap": rule.gap, "overlap": rule.overlap}
    if any(dst.values()):
        document["dst"] = {name: value.value for name, value in dst.items() if value is not None}
    if (exclude := rule.exclude) is not None:
        document["exclude"] = entries_document(exclude)
        if exclude.calendar is not None:
            document["exclude"]["calendar"] = exclude.calendar
        document["onExcluded"] = rule.on_excluded.value
    return document


def entries_document(exclude: Exclusion) -> dict[str, Any]:
    """The entries of an exclusion, without the calendar that it names."""
    entries = {name: list(getattr(exclude, name)) for name in ("dates", "annual", "weekdays", "cron")}
    return {name: texts for name, texts in entries.items() if texts}
