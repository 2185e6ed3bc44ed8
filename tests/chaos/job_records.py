"""Records of jobs' runs, as a consumer gets them, and the entries of their logs."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from clockwork.domain import record as names
from tests.chaos.history import Place, shown_data
from tests.support.reader import Arrived

FIRE_TIMES: Final = frozenset({"scheduled", "catch_up"})
"""Kinds of runs that stand for a fire time, at their first attempt."""
MAIN: Final = FIRE_TIMES | {"retry", "manual"}
"""Kinds beside which an exclusive job has no other run open."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A record of a run; or its dead letter."""

    record: Arrived
    dead: bool = False

    @property
    def job_id(self) -> str:
        return self.record.text(names.JOB_ID)

    @property
    def run_id(self) -> str:
        return self.record.text(names.RUN_ID)

    @property
    def kind(self) -> str:
        return self.record.text(names.RUN_KIND)

    @property
    def attempt(self) -> int:
        return int(self.record.text(names.RUN_ATTEMPT) or 1)

    @property
    def key(self) -> tuple[str, int]:
        """Run id and attempt: what is delivered once."""
        return self.run_id, self.attempt

    @property
    def version(self) -> int:
        return int(self.record.text(names.JOB_VERSION) or 0)

    @property
    def scheduled_at_ms(self) -> int:
        return int(self.record.text(names.SCHEDULED_AT) or 0)

    @property
    def due_ms(self) -> int:
        return int(self.record.text(names.SCHEDULE_TIME) or 0)

    @property
    def at_ms(self) -> int:
        """Time at which it was appended, by the broker's clock."""
        return self.record.timestamp_ms

    @property
    def place(self) -> Place:
        return self.record.place

    @property
    def data(self) -> str:
        return shown_data(self.record.value.decode())

    @property
    def of_fire_time(self) -> bool:
        return self.kind in FIRE_TIMES

    def __str__(self) -> str:
        dead = " dead letter" if self.dead else ""
        return f"{self.run_id}/{self.attempt} {self.kind} v{self.version}{dead} at {self.at_ms} {self.place}"


def is_of_job(record: Arrived) -> bool:
    """True if it is a record, or a dead letter, of a job's run."""
    return bool(record.text(names.JOB_ID))


def runs_by_job(records: Iterable[Arrived], dead_letters: Iterable[Arrived]) -> Mapping[str, Sequence[RunRecord]]:
    """The runs of each job, in the order in which they were appended."""
    found: dict[str, list[RunRecord]] = defaultdict(list)
    for dead, some in ((False, records), (True, dead_letters)):
        for record in some:
            if is_of_job(record):
                run = RunRecord(record, dead)
                found[run.job_id].append(run)
    for runs in found.values():
        runs.sort(key=lambda run: (run.at_ms, run.place))
    return found


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a job's log that is a run."""

    document: Mapping[str, Any]
    topic: str

    @property
    def key(self) -> tuple[str, int]:
        return self.document["runId"], self.document["attempt"]

    @property
    def status(self) -> str:
        return str(self.document["status"])

    @property
    def refused(self) -> bool:
        """It could not be delivered."""
        return self.status == "failed" and "reason" in self.document

    @property
    def place(self) -> Place | None:
        told = self.document.get("delivered")
        # The topic is not told once the version that it was delivered by is not kept any more.
        return (told.get("topic") or self.topic, told["partition"], told["offset"]) if told else None

    @property
    def finished_ms(self) -> int | None:
        found: int | None = self.document.get("finishedAt")
        return found

    def __str__(self) -> str:
        return f"{self.key[0]}/{self.key[1]} {self.status} {self.place} finished {self.finished_ms}"


def entries_of(log: Iterable[Mapping[str, Any]], topic: str) -> Sequence[Entry]:
    """The runs in a log of a job that delivers to this topic, oldest first."""
    return [Entry(document, topic) for document in log if document["status"] != "skipped"]


@dataclass(frozen=True, slots=True)
class Skip:
    """A stretch of fire times that the log has as skipped."""

    first_ms: int
    last_ms: int
    count: int
    reason: str


def skips_of(log: Iterable[Mapping[str, Any]]) -> Sequence[Skip]:
    """The stretches of fire times in a log that were skipped, in the order of their times. What a calendar excludes is no
    fire time."""
    found = [
        Skip(each["first"], each["last"], each["count"], each["reason"])
        for each in log
        if each["status"] == "skipped" and each["reason"] != "excluded"
    ]
    return sorted(found, key=lambda skip: skip.first_ms)
