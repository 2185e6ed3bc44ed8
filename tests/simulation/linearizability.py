"""Do the answers about one key fit one story, in which each request takes effect at one moment between question and answer?

The search of Wing and Gong (1993) with Lowe's memory (2017): try every order that time allows. A schedule may end
(delivered or failed) at any moment of the story; whether it really was is asked of Kafka, elsewhere. A request without an
answer may take effect at any later time, or never.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from clockwork.engine.answers import (
    Cancelled,
    Created,
    KeyTaken,
    NotFound,
    Reason,
    Refused,
    Repeated,
    ScheduleView,
    Status,
)
from clockwork.errors import InvalidInput
from tests.simulation.node import CancelCall, CreateCall, FindCall
from tests.simulation.workload import Op, describe_answer, describe_call

TRIED_MAX: Final = 200_000


@dataclass(frozen=True, slots=True)
class State:
    """What stands under a key."""

    data: bytes | None = None
    """Of the present schedule; None: nothing was ever accepted."""
    status: Status = Status.PENDING


def explain(ops: list[Op]) -> str | None:
    """None if the history has a story; else the history, for the reader."""
    ops = [op for op in ops if not isinstance(op.answer, InvalidInput)]
    if _search(ops):
        return None
    return "; ".join(
        f"[{op.asked_at_s:.3f}-{'never' if op.answered_at_s is None else f'{op.answered_at_s:.3f}'} "
        f"{describe_call(op.call)}: {describe_answer(op.answer) if op.answered_at_s is not None else '?'}]"
        for op in ops
    )


def _search(ops: list[Op]) -> bool:
    everyone = frozenset(range(len(ops)))
    answered = frozenset(i for i in everyone if ops[i].answered_at_s is not None)
    seen: set[tuple[frozenset[int], State]] = set()
    stack: list[tuple[frozenset[int], State]] = [(everyone, State())]
    while stack:
        left, state = stack.pop()
        if not left & answered:
            return True
        if (left, state) in seen:
            continue
        seen.add((left, state))
        if len(seen) > TRIED_MAX:
            return True  # too long to tell; never seen so far
        if state.data is not None and state.status is Status.PENDING:
            stack.append((left, replace(state, status=Status.DELIVERED)))
            stack.append((left, replace(state, status=Status.FAILED)))
        first_answer_s = min((ops[i].answered_at_s or 0.0) for i in left & answered)
        for i in sorted(left):
            if ops[i].asked_at_s <= first_answer_s:
                stack.extend((left - {i}, after) for after in _effects(ops[i], state))
    return False


def _effects(op: Op, state: State) -> Iterator[State]:
    """The states that this request may leave, if it takes effect in this one and is answered as it was."""
    match op.call:
        case CreateCall(new):
            yield from _create(op, new.task_data, state)
        case CancelCall():
            yield from _cancel(op, state)
        case FindCall():
            if op.answered_at_s is None or _shows(op.answer, state):
                yield state


def _create(op: Op, data: bytes, state: State) -> Iterator[State]:
    unanswered = op.answered_at_s is None
    free = state.data is None or (state.data != data and state.status is not Status.PENDING)
    match op.answer:
        case Created() if free:
            yield State(data, Status.PENDING)
        case Repeated(view) if state.data == data and _shows(view, state):
            yield state
        case KeyTaken(view) if not free and state.data != data and _shows(view, state):
            yield state
        case _ if unanswered:
            yield State(data, Status.PENDING) if free else state


def _cancel(op: Op, state: State) -> Iterator[State]:
    unanswered = op.answered_at_s is None
    match op.answer:
        case NotFound() if state.data is None:
            yield state
        case Cancelled(view) if state.status in (Status.PENDING, Status.CANCELLED) and _same(view, state):
            yield replace(state, status=Status.CANCELLED)
        case Refused(reason, view) if _same(view, state) and state.status == _status_of(reason):
            yield state
        case _ if unanswered:
            yield state
            if state.data is not None and state.status is Status.PENDING:
                yield replace(state, status=Status.CANCELLED)


def _status_of(reason: Reason) -> Status:
    return Status.PENDING if reason is Reason.IN_FLIGHT else Status(reason.value)


def _shows(view: object, state: State) -> bool:
    if view is None:
        return state.data is None
    return isinstance(view, ScheduleView) and _same(view, state) and view.status is state.status


def _same(view: ScheduleView, state: State) -> bool:
    return view.schedule is not None and view.schedule.task_data == state.data
