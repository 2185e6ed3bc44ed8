"""A load generator that costs little: requests as bytes, written before, on connections of its own.

An ordinary HTTP client takes more CPU for a request than the node for its answer, and on a small machine the two share it.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

CREATED: Final = b"HTTP/1.1 201 "
ANSWERED: Final = b"HTTP/1.1 200 "
CREATED_OF_BATCH: Final = b'"status":201'


def post(url: str, path: str, body: Mapping[str, Any]) -> bytes:
    """One request as it goes over the wire."""
    content = json.dumps(body, separators=(",", ":")).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def send_all(url: str, requests: Sequence[bytes], *, clients: int, schedules: int = 1) -> None:
    """Each request once, so many at a time. `schedules`: how many each creates; more than one by a batch.
    Raises: RuntimeError unless each schedule is answered 201."""
    waiting = iter(requests)
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(_client(url, waiting, schedules), name=f"client-{number}")


async def _client(url: str, waiting: Iterator[bytes], schedules: int) -> None:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        for request in waiting:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(_length(head))
            if not all_created(head, body, schedules):
                raise RuntimeError(f"{head.decode()}{body.decode()}")
    finally:
        writer.close()


def all_created(head: bytes, body: bytes, schedules: int) -> bool:
    """True if this answer says so of every schedule of its request."""
    if schedules == 1:
        return head.startswith(CREATED)
    return head.startswith(ANSWERED) and body.count(CREATED_OF_BATCH) == schedules


def _length(head: bytes) -> int:
    lower = head.lower()
    start = lower.index(b"content-length:") + len(b"content-length:")
    return int(lower[start : lower.index(b"\r\n", start)])
