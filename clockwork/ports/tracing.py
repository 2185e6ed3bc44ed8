"""What the engine and the API tell those who follow a request through several services; a port like those of `ports`."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

from clockwork.domain.schedule import ClientId, Failure, Receipt, Row, Topic


class Tracer(Protocol):
    """Spans, for whoever follows a request through several services. No method waits or raises; none is given a payload
    or a key to show."""

    @property
    def active(self) -> bool:
        """False: nobody wants spans, so nobody need prepare any."""
        ...

    def request(
        self, *, method: str, route: str, carried: Mapping[str, str]
    ) -> AbstractContextManager[Callable[[int], None]]:
        """A request that is answered within the block, in the trace that its headers name; to be told its status."""
        ...

    def create(self, client_id: ClientId, topic: Topic) -> None:
        """The request under way creates a schedule of this client for this topic."""
        ...

    def delivery(self, row: Row, receipt: Receipt | None, failure: Failure | None) -> None:
        """A row has ended just now: its record, or its dead letter, is there; or it was dropped."""
        ...


class _NoTracer:
    """The twin that forgets everything."""

    active = False

    def request(
        self, *, method: str, route: str, carried: Mapping[str, str]
    ) -> AbstractContextManager[Callable[[int], None]]:
        return nullcontext(lambda _: None)

    def create(self, client_id: ClientId, topic: Topic) -> None: ...
    def delivery(self, row: Row, receipt: Receipt | None, failure: Failure | None) -> None: ...


NO_TRACER: Final[Tracer] = _NoTracer()
