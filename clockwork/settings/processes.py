"""The setting of `clockwork.node.processes`; see `clockwork.settings.model`."""

from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

PROCESSES_MAX: Final = 64
"""More than a machine of today has cores for; each takes some 100 MB and its own connections."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessSettings:
    """How many processes a node is made of."""

    count: Annotated[
        int,
        Field(
            alias="CLOCKWORK_PROCESSES",
            ge=1,
            le=PROCESSES_MAX,
            description="of one node, on one port; one uses one core, so up to the number of cores",
        ),
    ] = 1

    def instance_ids(self, of_node: str) -> list[str]:
        """The names in the group of its processes, by number."""
        return [of_node] if self.count == 1 else [f"{of_node}-{number}" for number in range(self.count)]
