"""Capacity planning: the shards, cores, DynamoDB units and Kafka partitions that a load needs. Explained in capacity.md.

python -m infra.capacity                                     the loads of capacity.md
python -m infra.capacity --creates 500 --due 2000 --bytes 3000
python -m infra.capacity --runs 1000                         runs of recurring jobs alone
python -m infra.capacity --create-us 180 --delivery-us 90    with figures of your own `make bench`
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

KEY_WCU_MAX: Final = 1_000
"""Write units a second of one DynamoDB partition key, which all rows of a shard share."""
KEY_RCU_MAX: Final = 3_000
"""Read units a second of one DynamoDB partition key."""
HEADROOM: Final = 0.7
"""Share of a limit to plan with: keys hash unevenly, and a backlog must be caught up with beside the load."""
WRITE_BYTES: Final = 1_024
"""Bytes of one write unit."""
READ_BYTES: Final = 4_096
"""Bytes of one strongly consistent read unit."""
TRANSACTION_FACTOR: Final = 2
"""Write units per write in a transaction: DynamoDB bills it twice."""
PAGES_AGAIN: Final = 2.0
"""Reads of a due row: while it waits for its cleanup, the pages of later passes contain it again."""
KAFKA_PARTITION_BYTES: Final = 5_000_000
"""Bytes a second of one Kafka partition of a client's topic; brokers do more."""
RECORD_OVERHEAD_BYTES: Final = 300
"""Bytes of a record's headers and framing, beside its value."""
INDEX_WCU: Final = 1
"""Write units of a create in the index that lists are read from (none with `CLOCKWORK_SEARCH=off`)."""
LOG_WCU: Final = 1
"""Write units of the entry in a job's log, which has no data."""
CORES_PER_NODE: Final = 4
"""Cores of one node."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Costs of a node's work, from `make bench` (creates-stub, drain-stub). The defaults were measured on two shared
    virtual cores beside other work; most machines need less."""

    create_us: float = 320.0
    """Microseconds of CPU per create."""
    delivery_us: float = 135.0
    """Microseconds of CPU per delivery, exactly_once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """The load of the busiest moment."""

    creates_per_s: float
    """Schedules that are created in a second."""
    due_per_s: float
    """Schedules that become due."""
    runs_per_s: float = 0.0
    """Runs of recurring jobs, without completion."""
    row_bytes: int = 1_000
    """Bytes of a row as DynamoDB counts them: names, keys, task data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The needs of a load."""

    shards: int
    cores: float
    nodes: int
    schedules_wcu: int
    keys_wcu: int
    jobs_wcu: int
    rcu: int
    topic_partitions: int
    """Kafka partitions of the clients' topics together."""


def plan(load: Load, measured: Measured) -> Plan:
    """Plans for the load of one moment, with headroom."""
    units = write_units(load.row_bytes)
    delivered_per_s = load.due_per_s + load.runs_per_s
    # The row: put by the transaction of the create, or of the end of the run before; deleted after its delivery; all of it
    # under its shard's key.
    rows_wcu = units * ((load.creates_per_s + load.runs_per_s) * TRANSACTION_FACTOR + delivered_per_s)
    # The pointer, small and in the transaction, and its entry in the index; the outcome, as large as the row. Under keys
    # of their own.
    keys_wcu = load.creates_per_s * (TRANSACTION_FACTOR + INDEX_WCU) + load.due_per_s * units
    # The state of the job, small and in the transaction, and the entry of its log. Under keys of their own.
    jobs_wcu = load.runs_per_s * (TRANSACTION_FACTOR + LOG_WCU)
    rcu = delivered_per_s * load.row_bytes * PAGES_AGAIN / READ_BYTES
    # What follows a run is a transaction as a create's is, without a request: no more than a create.
    created_per_s = load.creates_per_s + load.runs_per_s
    cores = (created_per_s * measured.create_us + delivered_per_s * measured.delivery_us) / 1e6 / HEADROOM
    shards = max(rows_wcu / (KEY_WCU_MAX * HEADROOM), rcu / (KEY_RCU_MAX * HEADROOM), cores)
    topic_bytes = delivered_per_s * (load.row_bytes + RECORD_OVERHEAD_BYTES)
    return Plan(
        shards=power_of_two(shards),
        cores=cores,
        # One more than needed, so that one may be away.
        nodes=math.ceil(cores / CORES_PER_NODE) + 1,
        schedules_wcu=math.ceil(rows_wcu / HEADROOM),
        keys_wcu=math.ceil(round(keys_wcu / HEADROOM, 6)),
        jobs_wcu=math.ceil(round(jobs_wcu / HEADROOM, 6)),
        rcu=math.ceil(rcu / HEADROOM),
        topic_partitions=math.ceil(topic_bytes / KAFKA_PARTITION_BYTES / HEADROOM),
    )


def write_units(row_bytes: int) -> int:
    """Write units for writing or deleting an item of this size once."""
    return math.ceil(row_bytes / WRITE_BYTES)


def power_of_two(least: float) -> int:
    """Rounds up, since the shard count is fixed for the cluster's life; at least 16, so that nodes share evenly."""
    return max(16, 1 << math.ceil(math.log2(max(least, 1))))


EXAMPLES: Final = {
    "10 million a day, peak five times the mean": Load(creates_per_s=579, due_per_s=579),
    "1 million due in one minute, created over the hour before": Load(creates_per_s=278, due_per_s=16_667),
    "1 million created and due in the same minute": Load(creates_per_s=16_667, due_per_s=16_667),
    "1,000 jobs that run every second": Load(creates_per_s=0, due_per_s=0, runs_per_s=1_000),
    "100,000 jobs on the hour, spread over a minute": Load(creates_per_s=0, due_per_s=0, runs_per_s=1_667),
}


def table(loads: dict[str, Load], measured: Measured) -> list[str]:
    """The plans of these loads as lines of a markdown table."""
    head = (
        "| load | creates/s | due/s | runs/s | shards | cores | nodes of 4 | WCU schedules | WCU scheduleKeys | WCU jobs "
        "| RCU | topic |"
    )
    lines = [head, "|---" + "|---:" * 11 + "|"]
    for name, load in loads.items():
        p = plan(load, measured)
        cells = [f"{n:,.0f}" for n in (load.creates_per_s, load.due_per_s, load.runs_per_s, p.shards)]
        cells += [f"{p.cores:.1f}", *(f"{n:,}" for n in (p.nodes, p.schedules_wcu, p.keys_wcu, p.jobs_wcu, p.rcu))]
        lines.append(f"| {name} | {' | '.join([*cells, str(p.topic_partitions)])} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.capacity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--creates", type=float, help="a second, at the busiest moment")
    parser.add_argument("--due", type=float, help="a second, at the busiest moment; default: as many as creates")
    parser.add_argument("--runs", type=float, default=0.0, help="of recurring jobs, a second, at the busiest moment")
    parser.add_argument("--bytes", type=int, default=1_000, help="of a row (default: 1000)")
    parser.add_argument("--create-us", type=float, default=Measured().create_us, help="CPU of a create")
    parser.add_argument("--delivery-us", type=float, default=Measured().delivery_us, help="CPU of a delivery")
    chosen = parser.parse_args(arguments)
    loads = EXAMPLES
    if chosen.creates is not None or chosen.due is not None or chosen.runs:
        due, creates = chosen.due, chosen.creates
        load = Load(
            creates_per_s=creates if creates is not None else due or 0.0,
            due_per_s=due if due is not None else creates or 0.0,
            runs_per_s=chosen.runs,
            row_bytes=chosen.bytes,
        )
        loads = {"yours": load}
    measured = Measured(create_us=chosen.create_us, delivery_us=chosen.delivery_us)
    print("\n".join(table(loads, measured)))


if __name__ == "__main__":
    main()
