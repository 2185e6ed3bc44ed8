"""`PauseStore` in memory."""

from clockwork.domain.pauses import NOTHING_PAUSED, Pauses
from clockwork.errors import ConditionFailed


class MemoryPauses:
    """Shared by all the nodes of a test."""

    def __init__(self) -> None:
        self.stored = NOTHING_PAUSED

    async def read_pauses(self) -> Pauses:
        """See `PauseStore`."""
        return self.stored

    async def write_pauses(self, pauses: Pauses) -> None:
        """See `PauseStore`."""
        if self.stored.version != pauses.version - 1:
            raise ConditionFailed
        self.stored = pauses
