"""The jobs of a load, drawn from the seed and their numbers: when they fire, what becomes of runs that are late or that
overlap, what they ask of their consumers, and what is done to them.
"""

import random
from typing import Any, Final

from tests.chaos.job_history import CALENDAR, JobHistory
from tests.chaos.world import RECORD_BYTES_MAX
from tests.support.nodes import now_ms

SECONDS: Final = (1, 2, 2, 3, 5)
"""From one fire time to the next, of cron."""
RATES_MS: Final = (1_000, 1_500, 2_500)
DELAYS_MS: Final = (1_000, 2_000)
ZONES: Final = ("UTC", "Europe/Berlin", "Asia/Kolkata")
TIMEOUTS_MS: Final = (2_000, 4_000, 6_000)
RRULES: Final = 0.06
OPERATED: Final = 0.45
REFUSED: Final = 0.04
BOUNDED: Final = 0.1
"""Share of jobs that are not operated that end after some runs."""
RUNS_MAX: Final = 25
FOLLOWING: Final = 0.6
"""Share of cron jobs over HTTP that are not operated that name the calendar."""
GUARANTEES: Final = ("exactly_once",) * 6 + ("at_least_once",)
EVERY_MINUTE: Final = (
    f"FREQ=DAILY;BYHOUR={','.join(map(str, range(24)))};BYMINUTE={','.join(map(str, range(60)))};BYSECOND="
)
DAY_MS: Final = 86_400_000


def draw_job(seed: int, number: int, *, client_id: str, topic: str, lane: str) -> JobHistory:
    """The job of a number. `lane`: one of the schedules'; some jobs deliver into it."""
    rng = random.Random(f"chaos job {seed} {number}")
    job_id = f"job-{number}"
    refused = rng.random() < REFUSED
    operated = rng.random() < OPERATED
    by_command = rng.random() < 0.25
    guarantee = rng.choice(GUARANTEES)
    trigger = _trigger(rng)
    if refused:
        trigger = {"type": "cron", "expression": "0/5 * * * * ?", "dialect": "quartz"}
    body = {
        "clientId": f"{client_id}-{number % 4}" if by_command else client_id,
        "jobId": job_id,
        "trigger": trigger,
        "taskData": "x" * (RECORD_BYTES_MAX + 1_000) if refused else data_of(job_id, 0),
        "orderingKey": lane if rng.random() < 0.5 else job_id,
        "delivery": {"topic": topic, "guarantee": guarantee},
        "misfire": _misfire(rng),
    }
    if not (refused or operated or by_command) and trigger["type"] == "cron" and rng.random() < FOLLOWING:
        trigger |= {"timeZone": "UTC", "exclude": {"calendar": CALENDAR}}
    if not refused:
        body |= _completion(rng, trigger, operated=operated)
    if not refused and not operated and rng.random() < BOUNDED:
        trigger["maxRuns"] = RUNS_MAX
    return JobHistory(
        job_id=job_id,
        client_id=str(body["clientId"]),
        topic=topic,
        ordering_key=str(body["orderingKey"]),
        guarantee=guarantee,
        body=body,
        operated=operated and not refused,
        by_command=by_command,
        refused=refused,
    )


def data_of(job_id: str, number: int) -> dict[str, Any]:
    """Data of a job; the number tells them apart."""
    return {"job": job_id, "put": number}


def other_rate(rng: random.Random) -> dict[str, Any]:
    """Another trigger, for a PUT."""
    return _rate(rng) if rng.random() < 0.5 else _cron(rng)


def _trigger(rng: random.Random) -> dict[str, Any]:
    drawn = rng.random()
    if drawn < RRULES:
        start_ms = now_ms() - DAY_MS
        return {"type": "rrule", "rule": f"{EVERY_MINUTE}{rng.randrange(60)}", "start": start_ms - start_ms % 1_000}
    if drawn < 0.2:
        return {"type": "fixed_delay", "delayMs": rng.choice(DELAYS_MS)}
    trigger = _rate(rng) if drawn < 0.5 else _cron(rng)
    if rng.random() < 0.15:
        trigger |= {"jitterMs": rng.choice([200, 700]), "jitterPer": rng.choice(["job", "run"])}
    return trigger


def _cron(rng: random.Random) -> dict[str, Any]:
    return {
        "type": "cron",
        "expression": f"0/{rng.choice(SECONDS)} * * * * ?",
        "dialect": "quartz",
        "timeZone": rng.choice(ZONES),
    }


def _rate(rng: random.Random) -> dict[str, Any]:
    every_ms = rng.choice(RATES_MS)
    return {"type": "fixed_rate", "everyMs": every_ms, "anchor": rng.randrange(every_ms)}


def _misfire(rng: random.Random) -> dict[str, Any]:
    misfire: dict[str, Any] = {"policy": rng.choice(["fire_all", "fire_all", "fire_once", "fire_once", "skip"])}
    if misfire["policy"] == "fire_all":
        misfire["maxCatchUp"] = rng.choice([3, 1_000, 1_000])
        if rng.random() < 0.2:
            misfire["windowMs"] = 5_000
    if rng.random() < 0.3:
        misfire["graceMs"] = rng.choice([1_000, 5_000])
    return misfire


def _completion(rng: random.Random, trigger: dict[str, Any], *, operated: bool) -> dict[str, Any]:
    if rng.random() < 0.4:
        return {}
    overlap = rng.choice([None, "skip", "skip", "wait", "wait"])
    completion: dict[str, Any] = {"timeoutMs": rng.choice(TIMEOUTS_MS)}
    if (overlap or trigger["type"] == "fixed_delay") and rng.random() < 0.7:
        completion["retry"] = {"attempts": rng.choice([2, 3]), "initialMs": rng.choice([100, 500]), "maxMs": 500}
        completion["retryOn"] = rng.choice([["timeout"], ["timeout"], ["timeout", "failure"]])
    body: dict[str, Any] = {"completion": completion}
    if overlap:
        body["overlap"] = overlap
    if operated and overlap and rng.random() < 0.3:
        body["pauseAfterFailures"] = 3
    return body
