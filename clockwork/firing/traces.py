"""What is told of deliveries to whoever follows a request through several services."""

from collections.abc import Iterable

from clockwork.domain.planning import PlannedDelivery
from clockwork.domain.schedule import Receipt, Row
from clockwork.ports.tracing import Tracer


def trace_ends(tracer: Tracer, firings: Iterable[PlannedDelivery], receipt: Iterable[Receipt | None]) -> None:
    """One span for each of these, which have ended just now. A row that cannot be read is nobody's request."""
    if not tracer.active:
        return
    for firing, where in zip(firings, receipt, strict=True):
        if isinstance(firing.row, Row):
            tracer.delivery(firing.row, where, firing.failure)
