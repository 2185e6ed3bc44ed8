"""Readiness: the role of a node, and the reasons why it cannot fill it; and the one for which only a restart helps."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from clockwork.clock import ClockGuard, HeldTimeWatch
from clockwork.kafka.publisher import KafkaPublisher
from clockwork.node.health import HealthWatch


class Role(StrEnum):
    """The work of a node: `api` accepts requests, `worker` fires schedules, `all` does both."""

    ALL = "all"
    API = "api"
    WORKER = "worker"

    @property
    def accepts(self) -> bool:
        return self is not Role.WORKER

    @property
    def fires(self) -> bool:
        return self is not Role.API


@dataclass(kw_only=True, slots=True)
class NodeReadiness:
    """Answers `/readyz`."""

    role: Role
    guard: ClockGuard
    held_time: HeldTimeWatch
    watch: HealthWatch
    publisher: KafkaPublisher
    shards_owned: Callable[[], int]
    group_trouble: Callable[[], str | None] = lambda: None
    """Reason why the node is not in the consumer group; None if it is."""
    preparing: str | None = "starting"
    """Reason why the node is not open yet; None once it is."""
    stopping: bool = False

    def reasons(self) -> list[str]:
        """Reasons why the node is not ready; empty if it is."""
        found = []
        if self.stopping:
            found.append("stopping")
        if self.preparing is not None:
            found.append(self.preparing)
        if self.watch.store_error is not None:
            found.append(f"the store: {self.watch.store_error}")
        if not self.guard.trusted():
            found.append("clock: too far from the store's, or not compared lately")
        if not self.held_time.trusted():
            found.append(f"clock: set back by {self.held_time.ahead_ms()} ms while the node ran")
        if self.role is Role.WORKER and not self.publisher.connected():
            found.append(f"Kafka does not answer: {self.publisher.trouble() or 'not asked yet'}")
        elif self.role is Role.WORKER and (trouble := self.group_trouble()) is not None:
            found.append(f"not in the consumer group: {trouble}")
        return found

    def needs_restart(self) -> str | None:
        """The reason why only a restart of the process helps; None if a restart would help against nothing."""
        if self.held_time.needs_restart():
            return f"clock: set back by {self.held_time.ahead_ms()} ms while the node ran, and a restart takes the new time"
        return None

    def details(self) -> dict[str, object]:
        """State of each dependency. While Kafka is down the API goes on accepting, and names it here."""
        return {
            "role": self.role,
            "kafka": "up" if self.publisher.connected() else "down",
            "kafkaTrouble": self.publisher.trouble(),
            "store": "up" if self.watch.store_error is None else "down",
            "storeTrouble": self.watch.store_error,
            "clock": "trusted" if self.guard.trusted() else "not trusted",
            "clockSkewMs": self.guard.skew_ms,
            "clockSetBackMs": self.held_time.ahead_ms(),
            "group": self._group(),
            "groupTrouble": self.group_trouble() if self.role.fires else None,
            "shardsOwned": self.shards_owned(),
        }

    def _group(self) -> str:
        if not self.role.fires:
            return "not needed"
        return "member" if self.group_trouble() is None else "out"
