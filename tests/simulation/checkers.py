"""Was every promise kept? Judged from what the worlds hold at the end and what clients were told, never from the engine.

Each broken promise is named by one word, by which mutations and tests ask for it: `trace.PROMISES` says what each means.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from clockwork.domain import marker
from clockwork.domain.position import Position, acceptance_of, due_ms_of
from clockwork.domain.record import DEAD_SOURCE
from clockwork.domain.schedule import EXPIRED, EndState, Guarantee, Lane, OnLate, Outcome, Receipt, Row
from clockwork.requests.results import (
    AlreadyCreated,
    Cancelled,
    Changed,
    Created,
    KeyTaken,
    Refused,
    ScheduleView,
    Unchanged,
    VersionDiffers,
)
from tests.simulation import linearizability
from tests.simulation.clocks import EPOCH_MS
from tests.simulation.cluster import Cluster
from tests.simulation.command_world import COMMANDS, REPLIES
from tests.simulation.faults import CALM_STORE, STORE_FAULTS, FaultKind
from tests.simulation.kafka_world import DEAD_LETTERS, DELIVERIES, OWN_DEAD_LETTERS, Entry, Transaction, Where
from tests.simulation.store_world import name_of
from tests.simulation.workload import History, Workload

RETENTION_SHORT_MS: Final = 3_600_000
"""A shorter one ends within a run."""


def at_rest(cluster: Cluster) -> bool:
    """Nothing is left to be delivered, and no transaction is under way anywhere."""
    store = cluster.worlds.store
    worlds = cluster.worlds
    return not store.rows and not store.tables.busy and not worlds.kafka.unsettled() and worlds.commands.worked_off()


def check_liveness(cluster: Cluster, workload: Workload) -> None:
    """The faults are long over: everything due has ended, and every client has been answered."""
    store = cluster.worlds.store
    if store.rows:
        left = ", ".join(name_of(row) for row in store.rows.values() if isinstance(row, Row))
        cluster.trace.violation("liveness", f"still there: {left}")
    if not workload.done:
        cluster.trace.violation("liveness", "clients still wait")
    if not cluster.worlds.commands.worked_off():
        cluster.trace.violation("liveness", "commands are left")
    if unsettled := cluster.worlds.kafka.unsettled():
        cluster.trace.violation("liveness", f"transactions are open: {unsettled}")


def check_all(cluster: Cluster, history: History) -> None:
    """Everything that can be judged at the end."""
    evidence = gather(cluster)
    for row in evidence.rows:
        _check_row(cluster, evidence, row)
    known = {_likeness(row) for row in (*evidence.rows, *evidence.job_rows)}
    for likeness, found in evidence.records.items():
        if likeness not in known:
            cluster.trace.violation("twice", f"a record of no schedule: {found[0].entry.record}")
    _check_order(cluster, evidence)
    _check_versions(cluster, evidence)
    _check_keys(cluster, evidence)
    _check_fence(cluster)
    _check_tables(cluster, evidence)
    _check_answers(cluster, evidence, history)


Likeness = tuple[str, bytes, bytes]
"""The parts of a row in its record: delivery id, data, ordering key. The id alone is not enough: a change that leaves the
due time as it is keeps it."""


@dataclass(frozen=True, slots=True)
class Found:
    """A record that a read_committed reader gets, and where."""

    where: Where
    entry: Entry

    @property
    def visible_at_s(self) -> float:
        """Time at which it was decided that it will be seen."""
        transaction = self.entry.transaction
        return transaction.decided_at_s if transaction else (self.entry.appended_at_ms - EPOCH_MS) / 1_000


@dataclass(kw_only=True, slots=True)
class Evidence:
    """The contents of the worlds."""

    rows: list[Row]
    """All of schedules that ever were."""
    job_rows: list[Row]
    """All of jobs."""
    outcomes: dict[Position, Outcome]
    records: dict[Likeness, list[Found]] = field(default_factory=dict)
    """Each Kafka partition in order."""
    dropped: set[Position] = field(default_factory=set)
    """Positions that any marker says to have ended without a record."""

    def of(self, row: Row) -> list[Found]:
        """The records of this row."""
        return self.records.get(_likeness(row), [])


def _likeness(row: Row) -> Likeness:
    schedule = row.schedule
    return (schedule.delivery_id, schedule.task_data, schedule.ordering_key.encode())


def gather(cluster: Cluster) -> Evidence:
    store, kafka = cluster.worlds.store, cluster.worlds.kafka
    evidence = Evidence(
        rows=[row for row in store.rows.ever.values() if not row.of_job],
        job_rows=[row for row in store.rows.ever.values() if row.of_job],
        outcomes={place[2]: outcome for place, outcome in store.outcomes.ever.items()},
    )
    for where in kafka.logs:
        if where[0] in (COMMANDS, REPLIES):
            continue
        for entry in kafka.committed(where):
            assert entry.record is not None
            if where[0] == DEAD_LETTERS and entry.header(DEAD_SOURCE) is not None:
                continue  # a command
            if where[0] == DELIVERIES:
                ended = marker.decode(entry.record.value) if entry.record.value else ()  # a barrier, a tombstone
                evidence.dropped.update(one.position for one in ended if one.receipt is None)
            else:
                likeness = (entry.delivery_id or "", entry.record.value or b"", entry.record.key or b"")
                evidence.records.setdefault(likeness, []).append(Found(where, entry))
    return evidence


def _check_row(cluster: Cluster, evidence: Evidence, row: Row) -> None:
    """Delivered once, or ended as its outcome says; never early."""
    violation = cluster.trace.violation
    found = evidence.of(row)
    delivered = [f for f in found if f.where[0] == row.schedule.topic]
    dead = [f for f in found if f.where[0] in (DEAD_LETTERS, OWN_DEAD_LETTERS)]
    outcome = evidence.outcomes.get(row.position)
    exactly = row.schedule.guarantee is Guarantee.EXACTLY_ONCE
    for f in found:
        check_time(cluster, row, f)
    if len(found) != len(delivered) + len(dead):
        violation("untrue", f"{name_of(row)} is in another topic")
    if len(found) > 1 and (exactly or not explained(cluster, row, found)):
        violation("twice", f"{name_of(row)}: {[(f.where, f.entry.offset, f.entry.by) for f in found]}")
    if outcome is None:
        violation("lost", f"{name_of(row)} has no outcome, and {len(found)} records")
        return
    match outcome.state:
        case EndState.FAILED if _is_expired(outcome):
            _check_expired(cluster, evidence, row, outcome)
            if outcome.receipt is not None:
                check_place(cluster, row, outcome.receipt, dead)
        case EndState.FAILED:
            check_place(cluster, row, outcome.receipt, dead)
        case EndState.DELIVERED:
            check_place(cluster, row, outcome.receipt, delivered)
        case EndState.CANCELLED | EndState.SUPERSEDED:
            if found:
                violation("cancelled", f"{name_of(row)} was {outcome.state} and delivered by {found[0].entry.by}")


def explained(cluster: Cluster, row: Row, found: list[Found]) -> bool:
    """True if each record of an at_least_once row but the last was sent by a node that crashed or lost the shard before the
    next one, or had no acknowledgement for it."""
    kafka, store = cluster.worlds.kafka, cluster.worlds.store
    disturbed = cluster.profile.store != CALM_STORE or any(f.kind in STORE_FAULTS for f in cluster.profile.faults)
    in_order = sorted(found, key=lambda f: f.visible_at_s)
    for one, other in pairwise(in_order):
        if (one.entry.by, row.schedule.delivery_id) in kafka.unacknowledged or one.entry.by != other.entry.by:
            continue
        changed = any(
            shard == row.shard and one.visible_at_s < at_s <= other.visible_at_s
            for at_s, shard, _ in store.shard_states.owned
        )
        # By the same process, with a new incarnation in between: it has cleaned up before, if the store took that.
        if not (changed and disturbed):
            return False
    return True


def check_place(cluster: Cluster, row: Row, receipt: Receipt | None, candidates: list[Found]) -> None:
    """The record that the end of a row names is there."""
    if not candidates:
        cluster.trace.violation("lost", f"{name_of(row)} is said to be at {receipt}")
    elif not any(_is_at(f, receipt) for f in candidates):
        cluster.trace.violation("untrue", f"{name_of(row)} is not at {receipt}")


def _is_at(found: Found, receipt: Receipt | None) -> bool:
    return receipt is not None and (found.where[1], found.entry.offset) == (receipt.kafka_partition, receipt.offset)


def _is_expired(outcome: Outcome) -> bool:
    return outcome.failure is not None and outcome.failure.reason == EXPIRED


def _check_expired(cluster: Cluster, evidence: Evidence, row: Row, outcome: Outcome) -> None:
    """Its deadline had passed, and it ended as it was asked to; dropped, a marker says so and there is no record of it. One
    of at_least_once may be there all the same: of a send that was never acknowledged, or by a zombie."""
    schedule, found = row.schedule, evidence.of(row)
    if schedule.deadline_ms is None or outcome.at_ms <= row.due_ms + schedule.deadline_ms:
        cluster.trace.violation("untrue", f"{name_of(row)} is said to be late at {outcome.at_ms}")
    if schedule.on_late is not (OnLate.DROP if outcome.receipt is None else OnLate.DEAD_LETTER):
        cluster.trace.violation("untrue", f"{name_of(row)} to {schedule.on_late} ended at {outcome.receipt}")
    if outcome.receipt is None and row.position not in evidence.dropped:
        cluster.trace.violation("untrue", f"{name_of(row)} was dropped, and no marker says so")
    if outcome.receipt is None and found and schedule.guarantee is Guarantee.EXACTLY_ONCE:
        cluster.trace.violation("untrue", f"{name_of(row)} was dropped, and is there by {found[0].entry.by}")


def check_time(cluster: Cluster, row: Row, found: Found) -> None:
    due_ms = due_ms_of(row.position)
    record = found.entry.record
    assert record is not None
    early_ms = due_ms - found.entry.appended_at_ms
    if early_ms > cluster.ahead_ms_max or record.timestamp_ms < due_ms:
        cluster.trace.violation("early", f"{name_of(row)} by {early_ms:.0f} ms, by {found.entry.by}")


def _check_order(cluster: Cluster, evidence: Evidence) -> None:
    """Within a lane: a before b, if a's position is lower and a was accepted before b's due time, less the skew."""
    lanes: dict[Lane, list[Row]] = {}
    for row in (*evidence.rows, *evidence.job_rows):
        if row.position in cluster.accepted_at_s or evidence.of(row):
            lanes.setdefault(row.schedule.lane, []).append(row)
    for lane, rows in lanes.items():
        rows.sort(key=lambda row: row.position)
        for index, a in enumerate(rows):
            if a.position in cluster.accepted_at_s:
                for b in rows[index + 1 :]:
                    _check_pair(cluster, evidence, lane, a, b)


def _check_pair(cluster: Cluster, evidence: Evidence, lane: Lane, a: Row, b: Row) -> None:
    accepted_ms = EPOCH_MS + cluster.accepted_at_s[a.position] * 1_000
    if accepted_ms >= b.due_ms - cluster.ahead_ms_max:
        return
    far_back_ms = cluster.profile.scan_interval_ms + 5_000 - 2 * cluster.ahead_ms_max
    if accepted_ms - a.due_ms > far_back_ms and not cluster.profile.wakeups_certain:
        return  # a time so far back may be overtaken until its wake-up arrives, or until the next scan
    if a.schedule.guarantee is Guarantee.AT_LEAST_ONCE and a.position in evidence.dropped:
        return  # and sent all the same, by a node that did not know that: this may come through at any time
    first_a = _first(evidence.of(a))
    of_b = [f for f in evidence.of(b) if f.where[0] == b.schedule.topic]
    first_b = _first(of_b)
    if first_a is None or first_b is None:
        return
    if first_a.where == first_b.where:
        swapped = first_a.entry.offset > first_b.entry.offset
    else:
        swapped = first_a.visible_at_s > first_b.visible_at_s
    if swapped:
        cluster.trace.violation("order", f"lane {lane}: {name_of(b)} before {name_of(a)}")


def _first(found: Iterable[Found]) -> Found | None:
    return min(found, key=lambda f: (f.visible_at_s, f.entry.offset), default=None)


def _check_versions(cluster: Cluster, evidence: Evidence) -> None:
    """No two schedules of a key bear one version, and a schedule that was moved stands where its outcome says, one version
    on, with the delivery id of its due time."""
    violation = cluster.trace.violation
    by_version: dict[tuple[str, int], Row] = {}
    by_position = {row.position: row for row in evidence.rows}
    for row in evidence.rows:
        name = (row.schedule.schedule_key, row.schedule.version)
        # Versions restart when a pointer is deleted, long after its schedule has ended.
        pointers_stay = cluster.profile.retention_ms > RETENTION_SHORT_MS
        if by_version.setdefault(name, row) is not row and pointers_stay:
            violation("versions", f"{name_of(row)} and {name_of(by_version[name])} are both version {name[1]}")
        outcome = evidence.outcomes.get(row.position)
        if outcome is None or outcome.state is not EndState.SUPERSEDED:
            continue
        after = by_position.get(outcome.moved_to) if outcome.moved_to is not None else None
        if after is None or after.schedule.version != row.schedule.version + 1:
            violation("versions", f"{name_of(row)} v{row.schedule.version} was moved to {after}")
        elif (after.due_ms == row.due_ms) is not (after.schedule.delivery_id == row.schedule.delivery_id):
            violation("versions", f"{name_of(row)} and {name_of(after)}: delivery id and due time do not go together")


def _check_keys(cluster: Cluster, evidence: Evidence) -> None:
    """A key was used again only when its schedule had ended. By clocks that do not jump."""
    if any(fault.kind is FaultKind.JUMP for fault in cluster.profile.faults):
        return
    by_key: dict[tuple[str, str], list[Row]] = {}
    for row in evidence.rows:
        if row.position in cluster.accepted_at_s:
            by_key.setdefault((row.schedule.client_id, row.schedule.schedule_key), []).append(row)
    for rows in by_key.values():
        rows.sort(key=lambda row: (row.schedule.version, acceptance_of(row.position)))
        for one, other in pairwise(rows):
            outcome = evidence.outcomes.get(one.position)
            accepted_ms = EPOCH_MS + cluster.accepted_at_s[other.position] * 1_000
            if outcome is not None and outcome.at_ms > accepted_ms + cluster.ahead_ms_max:
                cluster.trace.violation("twice", f"{name_of(other)} was accepted while {name_of(one)} was pending")


def _check_fence(cluster: Cluster) -> None:
    """Once a newer owner has committed, nothing of an older one becomes visible."""
    transactions: dict[Transaction, None] = {}
    for log in cluster.worlds.kafka.logs.values():
        for entry in log:
            if entry.transaction is not None and entry.transaction.committed:
                transactions[entry.transaction] = None
    newest: dict[str, int] = {}
    for transaction in sorted(transactions, key=lambda t: t.decided_at_s):
        name = transaction.transactional_id
        if transaction.epoch < newest.get(name, 0):
            cluster.trace.violation("fence", f"{name}: epoch {transaction.epoch} after {newest[name]}")
        newest[name] = transaction.epoch


def _check_tables(cluster: Cluster, evidence: Evidence) -> None:
    """Nothing is left that should not be there."""
    store = cluster.worlds.store
    for pointer in store.pointers.values():
        there = (pointer.shard, pointer.position) in store.rows
        if not there and pointer.position not in evidence.outcomes:
            cluster.trace.violation("leftover", f"pointer of {pointer.schedule_key} v{pointer.version} leads nowhere")
    positions = {row.position for row in evidence.rows}
    for position, outcome in evidence.outcomes.items():
        if position not in positions:
            cluster.trace.violation("leftover", f"an outcome of nothing: {outcome}")
    if store.tables.busy:
        cluster.trace.violation("leftover", f"locked: {store.tables.busy}")


def _check_answers(cluster: Cluster, evidence: Evidence, history: History) -> None:
    """Checks that answers to clients are what happened, and that those about each key fit one story."""
    positions = {row.position for row in evidence.rows}
    for op in history.ops:
        view = _view_of(op.answer)
        if view is None:
            continue
        if view.position not in positions:
            cluster.trace.violation("lost", f"op {op.number} was told of a row that never was: {view}")
        if view.outcome is not None and view.outcome != evidence.outcomes.get(view.position):
            cluster.trace.violation("untrue", f"op {op.number} was told {view.outcome.state} of {op.key}")
    for key in history.all_keys():
        broken = linearizability.explain(history.of_key(key))
        if broken is not None:
            cluster.trace.violation("story", broken)


def _view_of(answer: object) -> ScheduleView | None:
    match answer:
        case Created(view) | AlreadyCreated(view) | KeyTaken(view) | Cancelled(view) | Refused(_, view):
            return view
        case Changed(view) | Unchanged(view) | VersionDiffers(view):
            return view
        case linearizability.Told(view):
            return view
        case ScheduleView():
            return answer
        case _:
            return None
