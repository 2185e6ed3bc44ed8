"""Histories and records made by hand, for tests of the checker."""

from collections.abc import Sequence
from typing import Any, Final

from tests.chaos.checker import Evidence, judge
from tests.chaos.healed_phase import Remains
from tests.chaos.history import Command, Content, History, Place, ScheduleHistory, StateAnswer
from tests.support.reader import Arrived

DUE_MS: Final = 10_000


def asked(key: str = "a", **changed: Any) -> ScheduleHistory:
    fields: dict[str, Any] = {
        "schedule_key": key,
        "topic": "t",
        "ordering_key": "lane",
        "due_ms": DUE_MS,
        "guarantee": "exactly_once",
        "fate": "usual",
        "shard": 1,
        "first_sent_ms": 5_000,
        "accepted_ms": 5_010,
    }
    return ScheduleHistory(**fields | changed)


def seen(
    state: str, *, at_ms: int = 20_000, place: Place | None = None, call: str = "get", status: int = 200, **more: Any
) -> StateAnswer:
    return StateAnswer(
        sent_ms=at_ms, received_ms=at_ms + 5, call=call, node="n", status=status, state=state, place=place, **more
    )


def content(due_ms: int = DUE_MS, data: str = "", ordering_key: str = "lane", delivery_id: str = "") -> Content:
    return Content(due_ms=due_ms, data=data, ordering_key=ordering_key, delivery_id=delivery_id)


def record(
    key: str = "a", *, offset: int = 0, at_ms: int = DUE_MS + 10, of: Content | None = None, **headers: str
) -> Arrived:
    """`of`: what it shows; further headers with `_` for `-`."""
    of = of or content()
    names = {
        "clockwork-schedule-key": key,
        "clockwork-schedule-time": str(of.due_ms),
        "clockwork-delivery-id": of.delivery_id,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return Arrived(
        topic="t",
        kafka_partition=0,
        offset=offset,
        key=of.ordering_key.encode(),
        value=of.data.encode(),
        headers=tuple((name, value.encode()) for name, value in names.items()),
        timestamp_ms=at_ms,
        timestamp_of_broker=True,
    )


def delivered(key: str = "a", *, offset: int = 0, **changed: Any) -> ScheduleHistory:
    one = asked(key, **changed)
    one.seen.append(seen("delivered", place=("t", 0, offset)))
    return one


def broken(
    schedules: Sequence[ScheduleHistory],
    records: Sequence[Arrived] = (),
    *,
    commands: Sequence[Command] = (),
    dead_letters: Sequence[Arrived] = (),
    outcomes: dict[str, list[str]] | None = None,
    ahead_ms: int = 0,
    skew_ms: int = 0,
    unrest: Sequence[tuple[int, int]] = (),
) -> set[str]:
    """The promises that are found broken."""
    if outcomes is None:
        # Of a version that is not the last one nothing else is known than that it was replaced, or armed again.
        armed = {one.schedule_key for one in schedules for wish in one.wishes if wish.kind == "retry"}
        outcomes = {
            one.schedule_key: ["failed" if one.schedule_key in armed else "superseded"] * (one.version - 1)
            + [one.final.state]
            for one in schedules
            if one.final is not None
        }
    evidence = Evidence(
        history=History(asked={one.schedule_key: one for one in schedules}, commands=list(commands)),
        remains=Remains(records=records, dead_letters=dead_letters, outcomes=outcomes),
        ahead_ms=lambda at_ms: ahead_ms,
        skew_ms=skew_ms,
        unrest=unrest,
    )
    return {name for name, cases in judge(evidence).items() if cases}


def ended(state: str, key: str = "a", **changed: Any) -> ScheduleHistory:
    one = asked(key, cancels=int(state == "cancelled"), **changed)
    one.seen.append(seen(state))
    return one
