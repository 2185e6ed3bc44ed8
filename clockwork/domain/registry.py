"""The registry of a cluster: its processes, by their last reports, and the clients that create. Pure; best effort,
nothing is decided by it.
"""

from dataclasses import dataclass
from typing import Final

from clockwork.domain.ownership import ProcessId
from clockwork.domain.schedule import ClientId

REPORT_MS: Final = 10_000
"""Interval of a process's reports."""
GONE_MS: Final = 30_000
"""A process that has not reported for so long is gone."""
FORGOTTEN_MS: Final = 86_400_000
"""A report that is older is removed, by any process."""
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessReport:
    """A process, as it last told of itself."""

    process: ProcessId
    seen_at_ms: int
    node: str
    """Host and process number."""
    role: str
    version: str
    """Version of Clockwork."""
    since_ms: int
    """Time of its start."""
    shards: int = 0
    """Shards that it owns."""
    assigned: int = 0
    """Shards that the consumer group assigns to it."""
    created_per_second: float = 0.0
    delivered_per_second: float = 0.0
    loop_lag_ms: int = 0
    """The longest delay of its event loop since the report before."""
    clock_skew_ms: int | None = None
    """Its clock less the store's, as far as certain; None: not compared yet."""
    kafka: str | None = None
    """The reason why Kafka does not answer it; None: it does."""
    store: str | None = None
    """The same of the store, at its last ping."""
    settings: str = ""
    """Digests of the settings that should be alike everywhere (`settings.digests`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownClient:
    """A client, and the days (UTC, counted from 1970) of its first and its last create that were noted."""

    client_id: ClientId
    first_day: int
    last_day: int
