"""Which topic a dead letter goes to: its client's own, if there is one and it takes records, else the cluster's.

A client's topic is the client's: it may be missing, forbidden, or smaller than what it is given. Then the letter goes to
the cluster's topic at once, whatever the reason. It would help nobody to have it wait: it has failed already, and what
stands behind it in its lane waits for it. Only while the cluster's topic takes nothing do letters wait.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from clockwork.domain.schedule import BrokenRow, ClientId, Row, Topic


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetterTopics:
    """As the settings name them."""

    of_cluster: Topic
    of_clients: Mapping[ClientId, Topic] = field(default_factory=dict)

    def every(self) -> tuple[Topic, ...]:
        """Each of them once, the cluster's first."""
        return (self.of_cluster, *sorted(set(self.of_clients.values())))

    def topic_for(self, row: Row | BrokenRow, takes: Callable[[Topic], bool]) -> Topic:
        """`takes`: whether a topic takes records at present, as far as it is known."""
        own = self.meant_for(row)
        return own if takes(own) else self.of_cluster

    def meant_for(self, row: Row | BrokenRow) -> Topic:
        """Of a row whose client cannot be read: the cluster's."""
        client_id = row.schedule.client_id if isinstance(row, Row) else row.client_id
        return self.of_clients.get(client_id, self.of_cluster) if client_id is not None else self.of_cluster
