"""Jobs as Quartz 2.5.0 itself stored them in PostgreSQL, and the times at which it would fire them.

`written.json` was made by `WriteJobs.java` (`record.py` says how). Two schedulers: `shop`, and `plain`, whose data are texts
(`useProperties`). Tests read the file alone: none needs a JDK.
"""

import json
from pathlib import Path
from typing import Any, Final

from infra.migrate.quartz import Tables

ZONE: Final = "Europe/Berlin"
"""The default time zone of the virtual machine that wrote them."""
STARTED_MS: Final = 1_773_964_800_000
"""START_TIME of most triggers: 2026-03-20T00:00Z."""
WRITTEN: Final = json.loads(Path(__file__).with_name("written.json").read_text(encoding="utf-8"))
FIRE_TIMES: Final[dict[str, dict[str, list[int]]]] = WRITTEN["fire_times"]
"""For each trigger Quartz's times: the `first` twelve, those of the days around Berlin's changes of offset in `spring` and
`autumn` of 2026, and the first twelve `later` than the begin of December."""


SKIPS_MONTHS: Final = frozenset({"last-weekday", "third-last-day"})
"""Triggers of which this Quartz leaves out months: their expressions have an L or a W."""


def rows(table: str) -> list[dict[str, Any]]:
    """The rows of all schedulers."""
    return [
        {name: bytes.fromhex(value["hex"]) if isinstance(value, dict) else value for name, value in row.items()}
        for row in WRITTEN["tables"][table]
    ]


def tables(scheduler: str) -> Tables:
    """The rows of one scheduler."""

    def of(table: str) -> list[dict[str, Any]]:
        return [row for row in rows(table) if row["sched_name"] == scheduler]

    return Tables(
        job_details=of("job_details"),
        triggers=of("triggers"),
        cron_triggers=of("cron_triggers"),
        simple_triggers=of("simple_triggers"),
        simprop_triggers=of("simprop_triggers"),
        calendars=of("calendars"),
    )
