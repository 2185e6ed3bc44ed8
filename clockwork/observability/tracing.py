"""`ports.Tracer` on OpenTelemetry, which is imported only where it is asked for.

A create is a server span in its caller's trace. A delivery is a producer span in a trace of its own, from the due time to
the acknowledgement, and *linked* to what the create carried: hours or months lie between, and a span in the caller's trace
would make that trace last as long. Its length is the lateness.

Attributes are what an operator sorts by: client, topic, shard, guarantee. No payload, and no key: a scheduleKey or an
orderingKey may name a person, and traces are kept where other people look.

Where spans go, how many of them, and in whose name, is OpenTelemetry's own business: OTEL_EXPORTER_OTLP_ENDPOINT,
OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME and the rest. A collector that is away costs spans and nothing else.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

from clockwork.domain.destination import Topic
from clockwork.domain.schedule import ClientId, Failure, Receipt, Row
from clockwork.errors import CannotStart
from clockwork.ports.tracing import NO_TRACER, Tracer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

FLUSH_S_MAX: Final = 3.0
"""For the last spans at a node's end."""
SERVICE: Final = "clockwork"


class OtelTracer:
    """See `ports.Tracer`."""

    active = True

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace = trace
        self._tracer = provider.get_tracer(SERVICE)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, *, method: str, route: str, carried: Mapping[str, str]) -> Iterator[Callable[[int], None]]:
        span = self._tracer.start_span(
            f"{method} {route}",
            context=self._propagator.extract(carried),
            kind=self._trace.SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": route},
        )

        def answered(status: int) -> None:
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                span.set_status(self._trace.StatusCode.ERROR)

        # An error's message may quote what was sent.
        with self._trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield answered

    def create(self, client_id: ClientId, topic: Topic) -> None:
        self._trace.get_current_span().set_attributes(_whose(client_id, topic))

    def delivery(self, row: Row, receipt: Receipt | None, failure: Failure | None) -> None:
        schedule = row.schedule
        attributes: dict[str, Any] = {
            **_whose(schedule.client_id, schedule.topic),
            "messaging.system": "kafka",
            "messaging.operation.type": "send",
            "clockwork.guarantee": schedule.guarantee.value,
            "clockwork.shard": row.shard,
        }
        if receipt is not None:
            # A dead letter has the partition and offset of the dead-letter topic, not of the topic that it was for.
            attributes["messaging.destination.partition.id"] = str(receipt.kafka_partition)
            attributes["messaging.kafka.offset"] = receipt.offset
        span = self._tracer.start_span(
            f"send {schedule.topic}",
            context=self._trace.set_span_in_context(self._trace.INVALID_SPAN),
            kind=self._trace.SpanKind.PRODUCER,
            attributes=attributes,
            links=self._links(schedule.traceparent),
            start_time=row.due_ms * 1_000_000,
        )
        if failure is not None:
            span.set_attribute("error.type", failure.reason)
            span.set_status(self._trace.StatusCode.ERROR)
        span.end()

    def _links(self, traceparent: str | None) -> list[Any]:
        """To the span that the create came from; a header that is none of W3C's is kept for the record, and no link."""
        if traceparent is None:
            return []
        context = self._propagator.extract({"traceparent": traceparent})
        origin = self._trace.get_current_span(context).get_span_context()
        return [self._trace.Link(origin)] if origin.is_valid else []


def _whose(client_id: ClientId, topic: Topic) -> dict[str, str]:
    return {"clockwork.client_id": client_id, "messaging.destination.name": topic}


@asynccontextmanager
async def open_tracer(tracing: Literal["off", "otlp"]) -> AsyncIterator[Tracer]:
    """Opens the tracer that the setting names; sends the last spans at the end. Raises: CannotStart."""
    if tracing == "off":
        yield NO_TRACER
        return
    provider = _provider()
    try:
        yield OtelTracer(provider)
    finally:
        # The flush waits for the collector, so it runs in a thread, which the end of the process does not wait for.
        closing = threading.Thread(target=provider.shutdown, name="tracing-end", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, FLUSH_S_MAX)


def _provider() -> "TracerProvider":
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise CannotStart("CLOCKWORK_TRACING=otlp needs more packages: pip install 'clockwork[otel]'") from error
    resource = Resource.create({SERVICE_NAME: SERVICE}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
