"""Spans of creates and deliveries, with OpenTelemetry's own SDK, and nothing in them that is a client's."""

import sys
from typing import Any

import aiohttp
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from clockwork.errors import BrokerUnavailable, CannotStart
from clockwork.http.server import tracing
from clockwork.observability.tracing import OtelTracer, open_tracer
from clockwork.ports.tracing import NO_TRACER
from clockwork.settings.sources import load_settings
from tests.support import builders
from tests.support.engine import Engine
from tests.unit.api_edge import a_request
from tests.unit.service import open_service

TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
SPAN_ID = 0xB7AD6B7169203331
TRACEPARENT = f"00-{TRACE_ID:032x}-{SPAN_ID:016x}-01"
MARK = "unutterable"
DUE_MS = builders.DUE_MS


class Traced:
    """An engine and its service whose spans can be read."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = OtelTracer(provider)
        self.engine = Engine(tracer=self.tracer)

    def spans(self, kind: SpanKind) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.kind is kind]

    def only(self, kind: SpanKind) -> ReadableSpan:
        (span,) = self.spans(kind)
        return span


async def create(url: str, *, traceparent: str | None = TRACEPARENT, path: str = "/schedule", **changes: Any) -> int:
    body: Any = a_request(**{"scheduleTime": DUE_MS, "delivery": {"topic": builders.TOPIC}} | changes)
    if path == "/schedules":
        body = {"schedules": [body]}
    headers = {"traceparent": traceparent} if traceparent is not None else {}
    async with aiohttp.ClientSession(url) as session, session.post(path, json=body, headers=headers) as answer:
        return answer.status


async def test_a_create_is_a_part_of_its_callers_trace_and_says_whose_it_is() -> None:
    traced = Traced()
    async with open_service(traced.engine) as service:
        assert await create(service.url) == 201
    span = traced.only(SpanKind.SERVER)
    assert span.name == "POST /schedule"
    assert span.parent is not None
    assert span.context is not None
    assert (span.parent.trace_id, span.parent.span_id, span.context.trace_id) == (TRACE_ID, SPAN_ID, TRACE_ID)
    assert dict(span.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/schedule",
        "http.response.status_code": 201,
        "clockwork.client_id": "shop",
        "messaging.destination.name": builders.TOPIC,
    }


@pytest.mark.parametrize("traceparent", [None, "nonsense", f"00-{0:032x}-{0:016x}-01"])
async def test_a_create_without_a_trace_begins_one(traceparent: str | None) -> None:
    traced = Traced()
    async with open_service(traced.engine) as service:
        assert await create(service.url, traceparent=traceparent) == 201
        traced.engine.clock.set_ms(DUE_MS)
        await service.deliver()
    assert traced.only(SpanKind.SERVER).parent is None
    assert not traced.only(SpanKind.PRODUCER).links


async def test_a_batch_of_creates_is_one_span_and_other_calls_are_none() -> None:
    traced = Traced()
    async with open_service(traced.engine) as service:
        assert await create(service.url, path="/schedules") == 200
        async with aiohttp.ClientSession(service.url) as session:
            for path in ("/schedule/shop/order-1", "/readyz"):
                async with session.get(path) as answer:
                    assert answer.status == 200
    assert traced.only(SpanKind.SERVER).name == "POST /schedules"


async def test_a_create_that_could_not_be_answered_is_an_error_without_its_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    traced = Traced()

    async def fail(_: str) -> bool:
        raise BrokerUnavailable(MARK)

    monkeypatch.setattr(traced.engine.publisher, "topic_exists", fail)
    async with open_service(traced.engine) as service:
        assert await create(service.url) == 503
    span = traced.only(SpanKind.SERVER)
    assert span.status.status_code is StatusCode.ERROR
    assert MARK not in span.to_json()


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_a_delivery_is_a_trace_of_its_own_from_its_due_time_and_linked_to_the_create(guarantee: str) -> None:
    # Not a child: days lie between, and a trace is looked at as a whole.
    traced = Traced()
    async with open_service(traced.engine) as service:
        assert await create(service.url, delivery={"topic": builders.TOPIC, "guarantee": guarantee}) == 201
        traced.engine.clock.set_ms(DUE_MS + 40)
        await service.deliver()
    span = traced.only(SpanKind.PRODUCER)
    assert span.name == f"send {builders.TOPIC}"
    assert span.parent is None
    assert span.context is not None
    assert span.context.trace_id != TRACE_ID
    (link,) = span.links
    assert (link.context.trace_id, link.context.span_id) == (TRACE_ID, SPAN_ID)
    assert span.start_time == DUE_MS * 1_000_000
    attributes = dict(span.attributes or {})
    assert attributes.pop("clockwork.shard") in range(8)
    assert attributes == {
        "clockwork.client_id": "shop",
        "clockwork.guarantee": guarantee,
        "messaging.system": "kafka",
        "messaging.operation.type": "send",
        "messaging.destination.name": builders.TOPIC,
        "messaging.destination.partition.id": "0",
        "messaging.kafka.offset": 0,
    }
    # The record bears what the create bore, whatever spans there are besides.
    (record,) = traced.engine.kafka.read_committed(builders.TOPIC)
    assert dict(record.headers)["traceparent"] == TRACEPARENT.encode()


@pytest.mark.parametrize("on_late", ["drop", "dead_letter"])
async def test_what_failed_is_an_error_with_its_reason(on_late: str) -> None:
    traced = Traced()
    late = {"topic": builders.TOPIC, "deadline": 0, "onLate": on_late}
    async with open_service(traced.engine) as service:
        assert await create(service.url, delivery=late) == 201
        traced.engine.clock.set_ms(DUE_MS + 1)
        await service.deliver()
    span = traced.only(SpanKind.PRODUCER)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "expired"


async def test_no_payload_no_key_and_no_header_is_in_any_span() -> None:
    traced = Traced()
    marked: dict[str, Any] = {
        "scheduleKey": f"{MARK}-key",
        "orderingKey": f"{MARK}-lane",
        "taskData": {MARK: MARK},
        "delivery": {"topic": builders.TOPIC, "headers": {f"x-{MARK}": MARK}},
    }
    async with open_service(traced.engine) as service:
        assert await create(service.url, **marked) == 201
        assert await create(service.url, **marked | {"unknown": MARK}) == 400
        traced.engine.clock.set_ms(DUE_MS)
        await service.deliver()
    spans = traced.exporter.get_finished_spans()
    assert len(spans) == 3
    assert not [span.name for span in spans if MARK in span.to_json()]


def test_switched_off_there_is_nothing_in_a_requests_way() -> None:
    assert tracing(NO_TRACER) == []
    assert load_settings({}).log.tracing == "off"


async def test_switched_off_opentelemetry_is_not_even_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    async with open_tracer("off") as tracer:
        assert tracer is NO_TRACER


async def test_without_its_packages_the_start_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(CannotStart, match=r"clockwork\[otel\]"):
        async with open_tracer("otlp"):
            pass


async def test_a_collector_that_is_away_costs_spans_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "orders-clockwork")
    async with open_tracer("otlp") as tracer:
        assert tracer.active
        with tracer.request(method="POST", route="/schedule", carried={}) as answered:
            answered(201)
