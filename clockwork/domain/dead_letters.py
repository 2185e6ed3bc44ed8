"""Dead letters: which topic each goes to, and how one is read from its topic.

A dead letter goes to its client's own topic if there is one and it takes records, else to the cluster's. A client's
topic belongs to the client: it may be missing, forbidden, or too small for the record. Then the dead letter goes to
the cluster's topic at once, for whatever reason: its row has failed already, and the rows behind it in its lane wait
for it. Only while the cluster's topic is in back-off do dead letters wait.

Any program with the rights may write to these topics, so a record that is read from one may be anything.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from clockwork.domain.destination import Topic
from clockwork.domain.names import is_client_id, is_key
from clockwork.domain.record import (
    CLIENT_ID,
    DEAD_ATTEMPTS,
    DEAD_REASON,
    DEAD_REFUSAL,
    DEAD_TOPIC,
    DELIVERY_ID,
    JOB_ID,
    RESERVED_PREFIX,
    RUN_ATTEMPT,
    RUN_ID,
    SCHEDULE_KEY,
    SCHEDULE_TIME,
    TRACEPARENT,
)
from clockwork.domain.run import JobId, RunId
from clockwork.domain.schedule import BrokenRow, ClientId, Receipt, Row, ScheduleKey


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """A dead letter as read from its topic. A field is None where the record's headers do not give it."""

    receipt: Receipt
    client_id: ClientId | None
    schedule_key: ScheduleKey | None
    due_ms: int | None
    delivery_id: str | None
    """None also for a row that could not be read."""
    topic: str | None
    """The topic of the failed delivery."""
    job_id: JobId | None = None
    """Given if it is of a run of a job: `schedule_key` is the same then, and is no key of a schedule."""
    run_id: RunId | None = None
    run_attempt: int | None = None
    reason: str | None
    attempts: int | None
    last_refusal: str | None = None
    """The reason of the last of these attempts; None also if none was refused for the record's content."""
    ordering_key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    """The caller's own."""


@dataclass(frozen=True, slots=True)
class LetterName:
    """A dead letter of a schedule, by its key and its delivery."""

    client_id: ClientId
    schedule_key: ScheduleKey
    delivery_id: str


@dataclass(frozen=True, slots=True)
class RunLetterName:
    """A dead letter of a run of a job, by its job and its delivery, and by its place: no key leads to it."""

    client_id: ClientId
    job_id: JobId
    delivery_id: str
    topic: Topic
    """The topic that it is in."""
    kafka_partition: int
    offset: int

    def names(self, letter: DeadLetter) -> bool:
        """True if the letter at this place is the one that is meant."""
        found = (letter.client_id, letter.job_id, letter.delivery_id)
        return found == (self.client_id, self.job_id, self.delivery_id)


def dead_letter(
    *, receipt: Receipt, key: bytes | None, value: bytes, headers: Sequence[tuple[str, bytes]]
) -> DeadLetter:
    """Reads a record of a dead-letter topic."""
    found = {name: _text(value) for name, value in headers}
    client_id, schedule_key = found.get(CLIENT_ID), found.get(SCHEDULE_KEY)
    job_id, run_id = found.get(JOB_ID), found.get(RUN_ID)
    return DeadLetter(
        receipt=receipt,
        # Only legal names: the store would reject a read of any other.
        client_id=ClientId(client_id) if client_id is not None and is_client_id(client_id) else None,
        schedule_key=ScheduleKey(schedule_key) if schedule_key is not None and is_key(schedule_key) else None,
        due_ms=_number(found.get(SCHEDULE_TIME)),
        delivery_id=found.get(DELIVERY_ID) or None,
        topic=found.get(DEAD_TOPIC) or None,
        job_id=JobId(job_id) if job_id is not None and is_key(job_id) else None,
        run_id=RunId(run_id) if run_id else None,
        run_attempt=_number(found.get(RUN_ATTEMPT)),
        reason=found.get(DEAD_REASON) or None,
        attempts=_number(found.get(DEAD_ATTEMPTS)),
        last_refusal=found.get(DEAD_REFUSAL) or None,
        ordering_key=key,
        value=value,
        headers=tuple((n, v) for n, v in headers if n != TRACEPARENT and not n.startswith(RESERVED_PREFIX)),
    )


def retry_request(delivery_id: str) -> str:
    """The id of the request for a run by hand that retries the run of a dead letter: asked for twice, it runs once."""
    return f"dead-letter-{delivery_id}"


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None  # not written by Clockwork; the record is shown without it


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 19 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetterTopics:
    """The topics of dead letters."""

    of_cluster: Topic
    of_clients: Mapping[ClientId, Topic] = field(default_factory=dict)

    def every(self) -> tuple[Topic, ...]:
        """All topics, each once, the cluster's first."""
        return (self.of_cluster, *sorted(set(self.of_clients.values())))

    def topic_for(self, row: Row | BrokenRow, available: Callable[[Topic], bool]) -> Topic:
        """The topic that a row's dead letter goes to. `available` tells if a topic takes records at present, as far
        as is known."""
        own = self.meant_for(row)
        return own if available(own) else self.of_cluster

    def meant_for(self, row: Row | BrokenRow) -> Topic:
        """The client's own topic, else the cluster's; the cluster's for a row whose client cannot be read."""
        client_id = row.schedule.client_id if isinstance(row, Row) else row.client_id
        return self.of_clients.get(client_id, self.of_cluster) if client_id is not None else self.of_cluster
