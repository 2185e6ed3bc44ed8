"""Do the answers about one key fit one story, in which each request takes effect at one moment between question and answer?

The search of Wing and Gong (1993) with Lowe's memory (2017): try every order that time allows. A schedule may end
(delivered or failed) at any moment of the story; whether it really was is asked of Kafka, elsewhere. A request without an
answer may take effect at any later time, or never.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from clockwork.errors import InvalidInput
from clockwork.requests.results import (
    AlreadyCreated,
    Cancelled,
    Changed,
    Created,
    KeyTaken,
    NotFound,
    Reason,
    Refused,
    ScheduleView,
    Status,
    Unchanged,
    VersionDiffers,
)
from tests.simulation.node import CancelCall, ChangeCall, CreateCall, FindCall, FireCall, RearmCall
from tests.simulation.workload import Op, describe_answer, describe_call


@dataclass(frozen=True, slots=True)
class Told:
    """The answer to a change by command: changed now or so already, which it does not say."""

    view: ScheduleView


TRIED_MAX: Final = 200_000


@dataclass(frozen=True, slots=True)
class State:
    """The schedule under a key."""

    created: bytes | None = None
    """The data with which the present schedule was created, by which a repeat is known; None: nothing was ever accepted."""
    data: bytes | None = None
    """As it is now."""
    status: Status = Status.PENDING
    version: int = 0

    @property
    def pending(self) -> bool:
        return self.created is not None and self.status is Status.PENDING

    def moved(self, data: bytes | None = None) -> "State":
        """Pending one version on, with other data if there is any."""
        return replace(self, status=Status.PENDING, version=self.version + 1, data=self.data if data is None else data)


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
        if state.pending:
            stack.append((left, replace(state, status=Status.DELIVERED)))
            stack.append((left, replace(state, status=Status.FAILED)))
        first_answer_s = min((ops[i].answered_at_s or 0.0) for i in left & answered)
        for i in sorted(left):
            if ops[i].asked_at_s <= first_answer_s and not _after_another(ops, i, left & answered):
                stack.extend((left - {i}, after) for after in _effects(ops[i], state))
    return False


def _after_another(ops: list[Op], i: int, left: frozenset[int]) -> bool:
    """A client's commands take effect in their order."""
    place = ops[i].command
    return place is not None and any((other := ops[j].command) is not None and other < place for j in left)


def _effects(op: Op, state: State) -> Iterator[State]:
    """The states that this request may leave, if it takes effect in this one and is answered as it was."""
    match op.call:
        case CreateCall(new):
            yield from _create(op, new.task_data, state)
        case CancelCall():
            yield from _cancel(op, state)
        case ChangeCall():
            yield from _change(op, op.call, state)
        case FireCall(client_id, key):
            yield from _change(op, ChangeCall(client_id=client_id, schedule_key=key), state)
        case RearmCall():
            yield from _rearm(op, state)
        case FindCall():
            if op.answered_at_s is None or _shows(op.answer, state):
                yield state


def _create(op: Op, data: bytes, state: State) -> Iterator[State]:
    unanswered = op.answered_at_s is None
    free = state.created is None or (state.created != data and state.status is not Status.PENDING)
    accepted = State(data, data, Status.PENDING, state.version + 1)
    match op.answer:
        case Created() if free:
            yield accepted
        case AlreadyCreated(view) if state.created == data and _shows(view, state):
            yield state
        case AlreadyCreated(view) if free and view.version > accepted.version:
            yield accepted  # by a try of its own that was lost, then changed by another: it shows that
        case KeyTaken(view) if not free and state.created != data and _shows(view, state):
            yield state
        case _ if unanswered:
            yield accepted if free else state


def _cancel(op: Op, state: State) -> Iterator[State]:
    unanswered = op.answered_at_s is None
    match op.answer:
        case NotFound() if state.created is None:
            yield state
        case Cancelled(view) if state.status in (Status.PENDING, Status.CANCELLED) and _same(view, state):
            yield replace(state, status=Status.CANCELLED)
        case Refused(reason, view) if _same(view, state) and state.status == _status_of(reason):
            yield state
        case _ if unanswered:
            yield state
            if state.pending:
                yield replace(state, status=Status.CANCELLED)


def _change(op: Op, call: ChangeCall, state: State) -> Iterator[State]:
    may = call.if_version in (None, state.version)
    moved = state.moved(call.task_data)
    match op.answer:
        case NotFound() if state.created is None:
            yield state
        case Told(view):
            yield from _change(replace(op, answer=Changed(view)), call, state)
            yield from _change(replace(op, answer=Unchanged(view)), call, state)
        case Changed(view) if state.pending and may and _shows(view, moved) and _fulfilled(call, view):
            yield moved
        case Unchanged(view) if _shows(view, state) and state.pending and _fulfilled(call, view):
            # Of a version just after the one that it names, too: it may be this request's own work.
            if may or call.if_version == state.version - 1:
                yield state
        case VersionDiffers(view) if _shows(view, state) and state.pending and not may:
            yield state
        case Refused(reason, view) if _same(view, state) and state.status == _status_of(reason):
            yield state
        case _ if op.answered_at_s is None:
            yield state
            if state.pending and may:
                yield moved


def _rearm(op: Op, state: State) -> Iterator[State]:
    failed = state.created is not None and state.status is Status.FAILED
    match op.answer:
        case NotFound() if state.created is None:
            yield state
        case Changed(view) if failed and _shows(view, state.moved()):
            yield state.moved()
        case Unchanged(view) if state.pending and _shows(view, state):
            yield state
        case Unchanged() if failed:
            yield state.moved()  # armed by a try of its own that was lost, then moved on by another: it shows that
        case Refused(reason, view) if _same(view, state) and state.status == _status_of(reason):
            yield state
        case _ if op.answered_at_s is None:
            yield state
            if failed:
                yield state.moved()


def _fulfilled(call: ChangeCall, view: ScheduleView) -> bool:
    """True if what was asked for is what is shown."""
    return view.schedule is not None and call(view.schedule) == view.schedule


def _status_of(reason: Reason) -> Status:
    return Status.PENDING if reason is Reason.IN_FLIGHT else Status(reason.value)


def _shows(view: object, state: State) -> bool:
    if view is None:
        return state.created is None
    return isinstance(view, ScheduleView) and _same(view, state) and view.status is state.status


def _same(view: ScheduleView, state: State) -> bool:
    return view.schedule is not None and view.schedule.task_data == state.data and view.version == state.version
