"""The events of a run, line by line, and violations: what should not have happened."""

import logging
from typing import Any, Final

from tests.simulation.virtual_loop import Reactor

VIOLATIONS_MAX: Final = 20
"""The most of one run; the first is the interesting one."""

DEFECTS: Final = frozenset({"shard.failed", "shard.takeover_defect", "producer.not_closed"})


PROMISES: Final = {
    "twice": "no delivery comes twice, and no fire time",
    "lost": "no schedule and no fire time is lost",
    "early": "nothing is delivered before its due time",
    "order": "the deliveries of a lane are in order",
    "cancelled": "what was answered as cancelled is not delivered",
    "untrue": "each answer is true",
    "versions": "each version of a key is one schedule, and each due time that was set has a delivery id of its own",
    "fence": "the epochs of a transactional id never go back",
    "liveness": "all that is due ends, once all is healed",
    "leftover": "nothing is left over at the end",
    "story": "all answers fit one order of the requests (linearizability)",
    "aborted": "a command of an aborted transaction has no effect",
    "unanswered": "each command that asks for an answer gets one",
    "buried": "only a command that cannot be carried out is a dead letter",
    "orphan": "each active job has its next row, and follows its calendars",
    "overlap": "runs that may not overlap do not",
    "revived": "a row that was deleted does not come back",
    "outcome_changed": "an outcome is final",
    "lowered": "epoch, floor and frontier are never lowered",
    "frontier": "no frontier is far ahead of the clock",
    "defect": "the engine has no defect",
    "harness": "the simulation itself has no defect",
    "runaway": "a run comes to its end",
}
"""The promises that a run may break, by the word that names each."""


class Trace:
    """Notes are kept as they are and written out only when they are read."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._notes: list[tuple[float, str, tuple[Any, ...]]] = []
        self.violations: list[str] = []

    def note(self, what: str, *details: Any) -> None:
        self._notes.append((self._reactor.now_s, what, details))

    def violation(self, rule: str, text: str) -> None:
        """A promise was broken. `rule`: its name among `PROMISES`."""
        told = f"{text} (promised: {PROMISES[rule]})"
        self._notes.append((self._reactor.now_s, f"VIOLATION {rule}", (told,)))
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(f"{rule}: {told}")

    def lines(self) -> list[str]:
        return [f"{at_s:11.6f} {what} {' '.join(map(str, details))}".rstrip() for at_s, what, details in self._notes]

    def text(self) -> str:
        return "\n".join(self.lines()) + "\n"


class EngineLog(logging.Handler):
    """Takes what the engine logs. A runner that failed by a defect is caught by the engine, so that one defect does not
    stop a shard for good; here it must be seen."""

    def __init__(self, trace: Trace, *, everything: bool) -> None:
        super().__init__(logging.DEBUG if everything else logging.ERROR)
        self._trace = trace
        self._everything = everything
        self._logger = logging.getLogger("clockwork")
        self._before = (self._logger.level, self._logger.propagate)

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "event", "") in DEFECTS:
            error = record.exc_info[1] if record.exc_info else None
            self._trace.violation("defect", f"a runner failed: {describe(error)}")
        elif self._everything:
            details = {k: v for k, v in vars(record).items() if k in ("shard", "error", "reason", "topic", "epoch")}
            self._trace.note(f"  log {record.getMessage()}", details)

    def __enter__(self) -> "EngineLog":
        self._logger.addHandler(self)
        self._logger.setLevel(self.level)
        self._logger.propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.setLevel(self._before[0])
        self._logger.propagate = self._before[1]


def describe(error: BaseException | None) -> str:
    """An error and, of a group, what is in it."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(describe(inner) for inner in error.exceptions)
    if error is None or error.__traceback__ is None:
        return repr(error)
    last = error.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    return f"{error!r} in {last.tb_frame.f_code.co_name}:{last.tb_lineno}"
