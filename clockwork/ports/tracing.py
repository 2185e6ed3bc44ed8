"""Tracing: spans that follow a request through several services."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

from clockwork.domain.destination import Topic
from clockwork.domain.schedule import ClientId, Failure, Receipt, Row


class Tracer(Protocol):
    """Writer of spans. No method waits or raises; none is given a payload or a key."""

    @property
    def active(self) -> bool:
        """False: spans are dropped, so callers need not prepare them."""
        ...

    def request(
        self, *, method: str, route: str, carried: Mapping[str, str]
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Span of a request that is answered within the block, in the trace named by the `carried` headers. The block calls
        the returned function with the status."""
        ...

    def create(self, client_id: ClientId, topic: Topic) -> None:
        """Adds client and topic to the span of the request under way, which creates a schedule."""
        ...

    def delivery(self, row: Row, receipt: Receipt | None, failure: Failure | None) -> None:
        """Span of a row that has just ended: delivered, dead-lettered, or dropped (no receipt)."""
        ...


class _NoTracer:
    """The twin: drops every span."""

    active = False

    def request(
        self, *, method: str, route: str, carried: Mapping[str, str]
    ) -> AbstractContextManager[Callable[[int], None]]:
        return nullcontext(lambda _: None)

    def create(self, client_id: ClientId, topic: Topic) -> None: ...
    def delivery(self, row: Row, receipt: Receipt | None, failure: Failure | None) -> None: ...


NO_TRACER: Final[Tracer] = _NoTracer()
