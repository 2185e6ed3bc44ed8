"""Synchronous sections: how long the event loop stands still for the largest page, batch, marker and body allowed.

No service is needed. The heartbeat, and every other shard, waits for as long as one of these takes; none should take
longer than 10 ms. What is done in a thread (bodies above 32 KiB, markers that are read) is not here.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import orjson

from clockwork.domain import marker
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.position import Position
from clockwork.domain.record import OutRecord, delivery_of
from clockwork.domain.schedule import Outcome, Row
from clockwork.firing import cleanup
from clockwork.firing import shard_pass as dispatch
from clockwork.firing.cleanup import Completed
from clockwork.kafka.send import ProducerIdentity, encode_batch
from clockwork.schema import json as json_body
from clockwork.schema import schedule as schemas
from clockwork.stores.dynamodb import attributes as dynamo_fields
from clockwork.stores.dynamodb import batching as dynamo_batch
from clockwork.stores.dynamodb import codec as dynamo_codec
from clockwork.stores.dynamodb.row_pages import YIELD_EVERY_ROWS
from clockwork.stores.dynamodb.signature import Identity, Signer
from tests.benchmarks.figures import Finding, Goal
from tests.benchmarks.report import Report
from tests.support import builders

SECTION_MS_MAX: Final = 10.0
REPEATS: Final = 15
PAYLOAD_BYTES_MAX: Final = 256 * 1024
PAGE_BYTES: Final = 1024 * 1024
"""Where DynamoDB cuts a page."""


def rows(count: int, payload_bytes: int) -> list[Row]:
    return [builders.row(builders.schedule(task_data=b"x" * payload_bytes)) for _ in range(count)]


def ended(count: int) -> list[MarkerEntry]:
    return [
        MarkerEntry(
            shard=builders.SHARD, position=builders.position(), at_ms=1_795_000_000_000, receipt=builders.receipt(n)
        )
        for n in range(count)
    ]


def sections() -> Iterator[tuple[str, Callable[[], object]]]:
    """Each piece of work that is done in one turn of the loop, at its largest."""
    for name, count, size in (("many rows", dispatch.PAGE_ROWS_MAX, 200), ("large rows", 4, 250_000)):
        some = rows(count, size)
        items = [dynamo_codec.row_item(row) for row in some]
        answer = orjson.dumps({"Items": items})
        yield f"page of {name}: parse", partial(orjson.loads, answer)
        yield f"page of {name}: read, until others get their turn", partial(_read, items[:YIELD_EVERY_ROWS])
    some = rows(cleanup.CHUNK_ROWS, 200)
    done = [Completed(row=row, entry=entry, slot=0) for row, entry in zip(some, ended(len(some)), strict=True)]
    yield "tidy-up: outcomes of one chunk", partial(_outcomes, done)
    count = cleanup.CHUNK_BYTES_MAX // 250_000
    large = [
        Completed(row=row, entry=entry, slot=0) for row, entry in zip(rows(count, 250_000), ended(count), strict=True)
    ]
    yield "tidy-up: outcomes of one chunk of large rows", partial(_outcomes, large)
    puts = [{"PutRequest": {"Item": dynamo_codec.outcome_item(outcome)}} for outcome in _outcome_values(large[:3])]
    body = orjson.dumps({"RequestItems": {"keys": puts}})
    yield "batch write of 900 KB: spell", partial(orjson.dumps, {"RequestItems": {"keys": puts}})
    signer, identity = Signer(host="localhost", region="us-east-1"), Identity("a", "b", None)
    yield "batch write of 900 KB: sign", partial(signer.headers, identity, target="X.Y", body=body, now_ms=1)
    entries = ended(marker.ENTRIES_MAX)
    yield "marker, the longest: spell", partial(marker.encode, entries)
    yield from _record_sections()
    yield from _body_sections()


def _record_sections() -> Iterator[tuple[str, Callable[[], object]]]:
    identity = ProducerIdentity(producer_id=1, producer_epoch=1, transactional_id="t")
    for count, size in ((2_000, 200), (3, 262_000)):
        some = rows(count, size)
        records = [delivery_of(row.schedule, now_ms=1) for row in some]
        yield f"{count} records of {size} bytes: make", partial(_records, some)
        yield f"{count} records of {size} bytes: spell", partial(encode_batch, records, identity, ("t", 0))


def _body_sections() -> Iterator[tuple[str, Callable[[], object]]]:
    for size in (json_body.ON_LOOP_BYTES_MAX - 300, PAYLOAD_BYTES_MAX - 100):
        for name, data in (("text", "x" * size), ("numbers", list(range(size // 7)))):
            document = {
                "clientId": "shop",
                "scheduleKey": "k",
                "scheduleTime": 0,
                "taskData": data,
                "delivery": {"topic": "t"},
            }
            body = json_body.compact(document)
            if len(body) <= json_body.ON_LOOP_BYTES_MAX:
                yield f"create of {len(body):,} bytes of {name}: read", partial(_create, body)
            yield f"answer of {len(body):,} bytes of {name}: spell", partial(json_body.compact, document)


def _create(body: bytes) -> object:
    return schemas.read_schedule(json_body.parse(body), cluster="clockwork", now_ms=1, traceparent=None)


def _read(items: list[dynamo_fields.Item]) -> list[object]:
    found: list[object] = []
    for item in items:
        position = dynamo_codec.position_of_row(item)
        assert position is not None
        found.append(dynamo_codec.row_of(item, shard=builders.SHARD, position=position))
    return found


def _outcome_values(done: list[Completed]) -> list[Outcome]:
    return [outcome for one in done if (outcome := cleanup.outcome_of(one, retention_ms=1_000)) is not None]


def _outcomes(done: list[Completed]) -> object:
    """As `Cleanup._write` and `BatchedWrites` do it."""
    puts: dict[tuple[str, Position | str | None], dict[str, Any]] = {
        (outcome.schedule_key, outcome.position): {"PutRequest": {"Item": dynamo_codec.outcome_item(outcome)}}
        for outcome in _outcome_values(done)
    }
    return list(dynamo_batch._cut(puts))


def _records(some: list[Row]) -> list[OutRecord]:
    return [delivery_of(row.schedule, now_ms=1) for row in some]


def measure(report: Report) -> None:
    """A finding for each section."""
    for name, work in sections():
        gc.collect()
        took_ms = []
        for _ in range(REPEATS):
            start_s = time.perf_counter()
            work()
            took_ms.append((time.perf_counter() - start_s) * 1_000)
        goal = Goal(bound=SECTION_MS_MAX)
        report.add(Finding(scenario="sections", what=name, unit="ms", rounds=took_ms, goal=goal))


async def run(report: Report) -> None:
    await asyncio.to_thread(measure, report)
