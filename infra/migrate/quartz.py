"""Quartz's tables to the file of `clockwork job apply`: each trigger a job, and each job without a trigger one that is run
by hand. Rows are mappings from the names of columns, in any case, to values, as a driver gives them.

    QRTZ_CRON_TRIGGERS               trigger cron, dialect quartz
    QRTZ_SIMPLE_TRIGGERS             trigger fixed_rate from START_TIME; REPEAT_COUNT is maxRuns
    START_TIME, END_TIME             start, end (which is exclusive here: one millisecond later)
    MISFIRE_INSTR                    misfire
    PRIORITY, IS_DURABLE             priority, durable
    JOB_CLASS_NAME, JOB_NAME, …      taskData, for the consumer to choose what it runs
    JOB_DATA, CALENDAR_NAME          comments: serialized objects of Java
    IS_NONCONCURRENT, RECOVERY       comments: they need a completion by the consumer
    TRIGGER_STATE PAUSED             a comment: pause it once it is made
    CAL_INT, DAILY_I, BLOB           comments
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from clockwork.domain.triggers.cron import Dialect, read_cron
from clockwork.domain.triggers.zones import zone_of
from clockwork.errors import InvalidInput
from infra.migrate.jobs_toml import ConvertedJob, jobs_file

Row = Mapping[str, Any]

_CRON_MISFIRE: Final = {-1: "fire_all", 0: "fire_once", 1: "fire_once", 2: "skip"}
_SIMPLE_MISFIRE: Final = {
    -1: "fire_all",
    0: "fire_once",
    1: "fire_once",
    2: "fire_once",
    3: "fire_once",
    4: "skip",
    5: "skip",
}
_INTERVAL_MS_MIN: Final = 1_000
_PRIORITY_DEFAULT: Final = 5
_PRIORITY_MAX: Final = 10


def jobs_of_quartz(
    *,
    job_details: Iterable[Row],
    triggers: Iterable[Row],
    cron_triggers: Iterable[Row] = (),
    simple_triggers: Iterable[Row] = (),
    name: str,
    client_id: str,
    topic: str,
) -> str:
    """The file, from the rows of QRTZ_JOB_DETAILS, QRTZ_TRIGGERS and so on of one scheduler."""
    details = {(row["JOB_GROUP"], row["JOB_NAME"]): row for row in map(_upper, job_details)}
    by_trigger = {
        (row["TRIGGER_GROUP"], row["TRIGGER_NAME"]): row for row in map(_upper, [*cron_triggers, *simple_triggers])
    }
    jobs: list[ConvertedJob] = []
    triggered: set[tuple[str, str]] = set()
    for row in map(_upper, triggers):
        of = (row["JOB_GROUP"], row["JOB_NAME"])
        triggered.add(of)
        jobs.append(
            _of_trigger(row, by_trigger.get((row["TRIGGER_GROUP"], row["TRIGGER_NAME"]), {}), details.get(of, {}))
        )
    jobs += (_of_detail(row) for key, row in details.items() if key not in triggered)
    return jobs_file(
        jobs,
        name=name,
        client_id=client_id,
        topic=topic,
        comments=["Each taskData names a class: the consumer of the topic has to run what it stands for."],
    )


def _upper(row: Row) -> dict[str, Any]:
    return {str(column).upper(): value for column, value in row.items()}


def _of_detail(detail: Row) -> ConvertedJob:
    return ConvertedJob(
        name=_joined(detail["JOB_GROUP"], detail["JOB_NAME"]),
        fields={"durable": True, **_described(detail), "taskData": _data(detail)},
        comments=["has no trigger: it is run by hand", *_comments_of(detail)],
    )


def _of_trigger(row: Row, timing: Row, detail: Row) -> ConvertedJob:
    name = _joined(row["TRIGGER_GROUP"], row["TRIGGER_NAME"])
    comments = _comments_of(detail)
    kind, instruction = row["TRIGGER_TYPE"], int(row.get("MISFIRE_INSTR") or 0)
    fields: dict[str, Any] = _described(row) or _described(detail)
    match kind:
        case "CRON" if timing:
            trigger, reason = _cron(timing)
            fields["misfire"] = {"policy": _CRON_MISFIRE.get(instruction, "fire_once")}
        case "SIMPLE" if timing:
            trigger, reason = _simple(row, timing)
            fields["misfire"] = {"policy": _SIMPLE_MISFIRE.get(instruction, "fire_once")}
            if instruction in (2, 3):
                comments.append("misfire: Quartz would begin its interval anew; here it keeps its phase")
        case _:
            trigger, reason = (
                {},
                f"a trigger of type {kind}"
                if timing or kind not in ("CRON", "SIMPLE")
                else "its timing row is missing",
            )
    if reason is not None:
        return ConvertedJob(name=name, fields={}, comments=[reason, *comments], converted=False)
    if start_ms := int(row.get("START_TIME") or 0):
        trigger["start"] = start_ms
    if end_ms := int(row.get("END_TIME") or 0):
        trigger["end"] = end_ms + 1
    if row.get("CALENDAR_NAME"):
        comments.append(f"calendar {row['CALENDAR_NAME']}: write its days as exclude")
    if str(row.get("TRIGGER_STATE", "")).startswith("PAUSED"):
        comments.append("is paused there: pause it here once it is made")
    priority = int(row.get("PRIORITY") or _PRIORITY_DEFAULT)
    if priority != _PRIORITY_DEFAULT:
        fields["priority"] = min(max(priority, 1), _PRIORITY_MAX)
    if _true(detail.get("IS_DURABLE")):
        fields["durable"] = True
    return ConvertedJob(name=name, fields={**fields, "trigger": trigger, "taskData": _data(detail)}, comments=comments)


def _cron(timing: Row) -> tuple[dict[str, Any], str | None]:
    """The trigger, or the reason for which there is none."""
    expression, zone = timing["CRON_EXPRESSION"], timing.get("TIME_ZONE_ID") or "UTC"
    try:
        read_cron(expression, dialect=Dialect.QUARTZ)
        zone_of(zone)
    except InvalidInput as wrong:
        return {}, f"{expression}: {'; '.join(error.message for error in wrong.errors)}"
    except ValueError as error:
        return {}, f"time zone {zone} {error}"
    return {"type": "cron", "expression": expression, "dialect": "quartz", "timeZone": zone}, None


def _simple(row: Row, timing: Row) -> tuple[dict[str, Any], str | None]:
    every_ms, repeats = int(timing["REPEAT_INTERVAL"]), int(timing["REPEAT_COUNT"])
    if repeats == 0:
        return {}, "fires once: make it a schedule"
    if every_ms < _INTERVAL_MS_MIN:
        return {}, f"fires every {every_ms} ms; a job does at most each second"
    trigger: dict[str, Any] = {"type": "fixed_rate", "everyMs": every_ms, "anchor": int(row["START_TIME"])}
    if repeats > 0:
        left = repeats + 1 - int(timing.get("TIMES_TRIGGERED") or 0)
        if left < 1:
            return {}, "has fired as often as it should"
        trigger["maxRuns"] = left
    return trigger, None


def _comments_of(detail: Row) -> list[str]:
    comments: list[str] = []
    if not detail:
        comments.append("its row of QRTZ_JOB_DETAILS is missing")
    if detail.get("JOB_DATA"):
        comments.append("JOB_DATA is a serialized object of Java: write its entries into taskData")
    if _true(detail.get("IS_NONCONCURRENT")):
        comments.append(
            'runs must not overlap: overlap = "wait" with completion = { timeoutMs = … }, which the consumer reports'
        )
    if _true(detail.get("REQUESTS_RECOVERY")):
        comments.append('asks for recovery: completion with retry and retryOn = ["timeout"]')
    return comments


def _data(detail: Row) -> dict[str, Any]:
    columns = {"class": "JOB_CLASS_NAME", "group": "JOB_GROUP", "job": "JOB_NAME"}
    return {name: str(detail[column]) for name, column in columns.items() if column in detail}


def _described(row: Row) -> dict[str, Any]:
    return {"description": str(row["DESCRIPTION"])} if row.get("DESCRIPTION") else {}


def _joined(group: str, name: str) -> str:
    return name if group == "DEFAULT" else f"{group}-{name}"


def _true(value: Any) -> bool:
    """Truth as drivers and Quartz's delegates store it."""
    return value is True or str(value).strip().lower() in {"1", "t", "true", "y", "b'1'"}
