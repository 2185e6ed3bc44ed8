"""The most that a call of the dashboard's pages may cost, in read units: the table of docs/dashboard.md, and what
`test_page_costs` holds both stores to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Cost:
    """The bound of one call."""

    path: str
    pages: str
    """The pages that make it."""
    units_max: float
    looks_at: str
    """The read that the bound is for: rows of 1 KB."""


COSTS: Final[Mapping[str, Cost]] = {
    "list": Cost("GET /schedules", "Schedules", 450, "a page of 100"),
    "get": Cost("POST /schedules/get", "all lists: the rows on screen", 300, "100 keys"),
    "why": Cost("GET …/why", "a schedule", 30, "one behind 100 others"),
    "upcoming": Cost("GET /upcoming", "Upcoming", 60, "a page of 100 of all clients"),
    "forecast": Cost(
        "GET /forecast",
        "Forecast; Overview, for topics that take no records",
        150,
        "a week; the next hour of all clients is recorded, and costs 0",
    ),
    "search": Cost("GET /search", "Search", 20, "a key in 20 clients"),
    "shards": Cost("GET /admin/shards", "Overview, Cluster", 8, "4 shards: two units each"),
    "nodes": Cost("GET /admin/nodes", "Overview, Cluster", 10, "the processes of a day"),
    "clients": Cost("GET /clients", "fields for a client", 5, "20 clients"),
}
"""By the name of the call in `clockwork_ui_read_units_total`."""


def table() -> str:
    """The bounds as a table in Markdown."""
    rows = [
        f"| `{cost.path}` | `{call}` | {cost.pages} | {cost.units_max:g} | {cost.looks_at} |"
        for call, cost in COSTS.items()
    ]
    return "\n".join(["| call | in metrics | on | read units, at most | for |", "|---|---|---|---|---|", *rows])
