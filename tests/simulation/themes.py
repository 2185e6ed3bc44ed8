"""Profiles that are about one part of the protocol: nodes hesitate or die at its steps, and clients give it work.

Where everything is drawn evenly, what needs three coincidences is not seen in a thousand runs. Each theme makes some of
them likely; `mutations` says which breaks it shows.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from tests.simulation.faults import (
    CRASH,
    CUT_OFF,
    LONG_STALL,
    STALL,
    Fault,
    FaultKind,
    FaultSpots,
    KafkaFaults,
    Profile,
    StoreFaults,
    draw_profile,
)

THEMED_SHARE: Final = 0.6
"""Share of themed runs among those for which no theme was asked for."""


class Theme(StrEnum):
    """The theme of a run: what its faults and clients are mostly about."""

    CANCELS = "cancels"
    REFUSALS = "refusals"
    COMMITS = "commits"
    TAKE_OVERS = "take_overs"
    READING = "reading"
    PLAIN = "plain"
    SKEW = "skew"
    LATE = "late"
    CHANGES = "changes"
    DEADLINES = "deadlines"
    BROKERS = "brokers"
    HAND_OVERS = "hand_overs"
    PREFIX = "prefix"
    JOBS = "jobs"
    """Only if it is asked for: a run without a theme may have jobs besides."""
    COMMANDS = "commands"
    """Only if it is asked for: a run without a theme may have commands besides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Recipe:
    operations: tuple[str, ...]
    """Two of these are drawn."""
    kinds: tuple[tuple[FaultKind, float, float], ...]
    """One of these is drawn."""
    share: float
    values: Mapping[str, Any] = field(default_factory=dict)
    rebalance_s: float | None = None
    """So often, about, the shards are dealt out anew."""
    depose_s: float | None = None
    """So often, about, a broker is deposed."""
    pause_s: float | None = None
    """So often, about, a topic is paused."""
    jump_s: float | None = None
    """So often, about, a clock jumps."""


JUMPS_MS: Final = (-1_900.0, 1_900.0, 5_000.0, 3_600_000.0)
TIDYING: Final = ("put_outcomes", "put_outcomes_if_absent", "delete_rows")
"""Delivered rows await cleanup for long."""
_BUSY: Final = {"schedules": 28, "shards": 1, "session_s": 1.0}
_RECIPES: Final = {
    Theme.CANCELS: _Recipe(
        operations=("cancel", "cancel", "read_shard_and_node", "hold", "drop_hold", "read_page"),
        kinds=(STALL,),
        share=0.3,
        values={"cancels": 0.95, "lead_ms": 60, "crowded": 0.3},
    ),
    Theme.REFUSALS: _Recipe(
        operations=("refused", "set_retry", "commit", "delete_rows"),
        kinds=(LONG_STALL,),
        share=0.3,
        values=_BUSY
        | {
            "refused": 0.5,
            "cancels": 0.95,
            "batch_records_max": 50,
            "crowded": 0.9,
            "lanes": 8,
            "retry_initial_ms": 1_500,
        },
        rebalance_s=1.0,
    ),
    Theme.COMMITS: _Recipe(
        operations=("commit", "put_outcomes", "delete_rows", "put_outcomes"),
        kinds=(STALL, CRASH, LONG_STALL),
        share=0.15,
        values=_BUSY
        | {
            "batch_records_max": 2,
            "kafka": KafkaFaults(commit_unanswered=0.1, late=0.1),
            "store": StoreFaults(throttled_operations=TIDYING),
        },
    ),
    Theme.TAKE_OVERS: _Recipe(
        operations=("fence", "init", "read_markers", "put_outcomes", "take_shards", "begin", "commit"),
        kinds=(STALL, CUT_OFF),
        share=0.25,
        values=_BUSY | {"batch_records_max": 2},
        rebalance_s=0.5,
    ),
    Theme.READING: _Recipe(
        operations=("read_page", "create"),
        kinds=(STALL,),
        share=0.3,
        values=_BUSY
        | {"lanes": 1, "past": 0.4, "refused": 0.0, "cancels": 0.1, "clock_offset_ms": 0.0, "crowded": 0.5},
    ),
    Theme.PLAIN: _Recipe(
        operations=("send", "raise_frontier", "read_page", "put_outcomes_if_absent", "set_retry"),
        kinds=(STALL, CUT_OFF, LONG_STALL),
        share=0.2,
        values=_BUSY | {"at_least_once": 0.9, "cancels": 0.95, "refused": 0.3, "lead_ms": 60},
        rebalance_s=1.0,
    ),
    Theme.SKEW: _Recipe(
        operations=("take_shards", "put_outcomes", "delete_rows", "commit", "cancel"),
        kinds=(STALL,),
        share=0.25,
        values=_BUSY | {"clock_offset_ms": 1_500.0, "cancels": 0.95, "crowded": 0.2, "refused": 0.0, "lead_ms": 20},
        rebalance_s=0.6,
        jump_s=6.0,
    ),
    Theme.LATE: _Recipe(
        operations=("cancel", "commit", "hold", "drop_hold"),
        kinds=(STALL,),
        share=0.15,
        values=_BUSY
        | {
            "refused": 0.6,
            "cancels": 0.95,
            "retry_initial_ms": 1_500,
            "store": StoreFaults(
                answer_lost=0.1, late=0.15, duplicated=0.15, timeout_s=0.15, throttled_operations=TIDYING
            ),
        },
    ),
    Theme.CHANGES: _Recipe(
        operations=("reschedule", "reschedule", "read_shard_and_node", "hold", "drop_hold", "read_page"),
        kinds=(STALL,),
        share=0.25,
        values={
            "schedules": 20,
            "changes": 0.95,
            "cancels": 0.1,
            "lead_ms": 60,
            "crowded": 0.3,
            "store": StoreFaults(answer_lost=0.05, late=0.08, slow_apply=0.3, slow_apply_s=0.05, timeout_s=0.15),
        },
    ),
    Theme.DEADLINES: _Recipe(
        operations=("commit", "begin", "put_outcomes", "delete_rows", "refused", "send"),
        kinds=(STALL, LONG_STALL),
        share=0.2,
        values=_BUSY
        | {
            "deadlines": 0.9,
            "at_least_once": 0.4,
            "refused": 0.2,
            "past": 0.3,
            "crowded": 0.6,
            "clock_offset_ms": 900.0,
            "store": StoreFaults(throttled_operations=TIDYING),
        },
        rebalance_s=0.8,
    ),
    Theme.BROKERS: _Recipe(
        operations=("begin", "produce_marker", "commit", "commit", "read_markers", "fence"),
        kinds=(STALL, CRASH, LONG_STALL),
        share=0.1,
        values=_BUSY
        | {
            "shards": 2,
            "batch_records_max": 2,
            "kafka": KafkaFaults(commit_unanswered=0.15, answer_lost=0.03, foreign_every_s=0.7, settle_s=0.05),
            "store": StoreFaults(throttled_operations=TIDYING),
        },
        depose_s=0.8,
        rebalance_s=1.5,
    ),
    Theme.HAND_OVERS: _Recipe(
        operations=("release_shard", "take_shards", "fence", "delete_rows", "commit", "send"),
        kinds=(STALL, LONG_STALL),
        share=0.25,
        values=_BUSY
        | {
            "shards": 3,
            "at_least_once": 0.4,
            "cancels": 0.9,
            "lead_ms": 600,
            "crowded": 0.8,
            "store": StoreFaults(
                answer_lost=0.05, late=0.08, timeout_s=0.15, slow_query=0.2, throttled_operations=TIDYING
            ),
            "kafka": KafkaFaults(group_lags=0.2, settle_s=0.02),
        },
        rebalance_s=0.6,
    ),
    Theme.PREFIX: _Recipe(
        operations=("read_page", "create", "set_retry"),
        kinds=(STALL,),
        share=0.1,
        values=_BUSY
        | {
            "faults_end_s": 18.0,
            "lanes": 4,
            "past": 0.5,
            "past_s_max": 3.0,
            "refused": 0.2,
            "cancels": 0.3,
            "clock_offset_ms": 0.0,
            "scan_interval_ms": 1_000,
            "prefix_rows": 1,
            "kafka": KafkaFaults(wakeup_lost=0.9),
        },
        pause_s=1.5,
    ),
    Theme.JOBS: _Recipe(
        operations=(
            "change_job",
            "change_job",
            "put_run_deliveries",
            "delete_rows",
            "commit",
            "take_shards",
            "read_job",
        ),
        kinds=(STALL, LONG_STALL, CRASH),
        share=0.15,
        values=_BUSY
        | {
            "schedules": 4,
            "jobs": 5,
            "job_losses": True,
            "calendars": True,
            "audit_confirm_s": 0.05,
            "lead_ms": 100,
            "store": StoreFaults(answer_lost=0.05, late=0.08, slow_apply=0.3, slow_apply_s=0.4, timeout_s=0.15),
        },
        rebalance_s=0.8,
    ),
    Theme.COMMANDS: _Recipe(
        operations=("commit_offsets", "commit_offsets", "fetch", "send", "create", "reschedule", "cancel"),
        kinds=(STALL, LONG_STALL, CRASH),
        share=0.2,
        values=_BUSY
        | {
            "schedules": 6,
            "commanded": 16,
            "store": StoreFaults(answer_lost=0.05, late=0.05, slow_apply=0.3, timeout_s=0.15),
            "kafka": KafkaFaults(answer_lost=0.05, request_lost=0.03),
        },
        rebalance_s=1.0,
    ),
}


def draw(rng: random.Random, theme: Theme | None = None) -> Profile:
    """The profile of a run; without a theme some runs have one and some have not. Only a theme that is asked for decides
    by itself how much is changed, and how much may be late."""
    profile = _draw(rng, theme)
    if theme is not None:
        return profile
    changes, deadlines = rng.choice([0.0, 0.3, 0.8]), rng.choice([0.0, 0.0, 0.3, 0.8])
    return replace(profile, changes=changes, deadlines=deadlines, commanded=rng.choice([0, 0, 0, 8]))


def _draw(rng: random.Random, theme: Theme | None) -> Profile:
    profile = draw_profile(rng)
    if theme is None and (not profile.faults or rng.random() >= THEMED_SHARE):
        return profile
    recipe = _RECIPES[theme or rng.choice([theme for theme in Theme if theme not in (Theme.COMMANDS, Theme.JOBS)])]
    spots = FaultSpots(
        operations=tuple(rng.sample(recipe.operations, k=2)),
        share=recipe.share,
        kinds=(rng.choice(recipe.kinds),),
        elsewhere=0.0005,
    )
    end_s = recipe.values.get("faults_end_s", profile.faults_end_s)
    faults = (
        *profile.faults,
        *_again_and_again(rng, FaultKind.REBALANCE, recipe.rebalance_s, end_s=end_s),
        *_again_and_again(rng, FaultKind.DEPOSE, recipe.depose_s, end_s=end_s),
        *_again_and_again(rng, FaultKind.PAUSE_TOPIC, recipe.pause_s, end_s=end_s),
        *_again_and_again(rng, FaultKind.JUMP, recipe.jump_s, end_s=end_s),
    )
    return replace(profile, spots=spots, faults=faults, **recipe.values)


def _again_and_again(rng: random.Random, kind: FaultKind, every_s: float | None, *, end_s: float) -> list[Fault]:
    if every_s is None:
        return []
    found = []
    at_s = rng.uniform(0.5, 1.5)
    while at_s < end_s:
        for_s = rng.choice([0.05, 0.2, 0.6, 2.5])
        amount = rng.choice(JUMPS_MS) if kind is FaultKind.JUMP else float(rng.randrange(12))
        found.append(Fault(at_s=at_s, kind=kind, node=rng.randrange(2), for_s=for_s, amount=amount))
        at_s += rng.expovariate(1 / every_s)
    return found
