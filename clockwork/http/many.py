"""Answers that hold many schedules, made piece by piece: a thousand of them are megabytes of JSON, and while one of them
is spelled, no heartbeat is sent and nothing is fired."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiohttp import web

from clockwork.schema import json as json_body

PIECE_BYTES: Final = 64 * 1024
"""Spelled in one go: a fraction of a millisecond."""
PIECE_DOCUMENTS: Final = 25
"""The same for small ones."""


async def listed(name: str, documents: Iterable[Mapping[str, Any]], **more: Any) -> web.Response:
    """`{name: [documents], **more}`, with 200. The documents are made one by one, as they are asked for."""
    parts: list[bytes] = []
    piece_bytes = piece_documents = 0
    for document in documents:
        parts.append(json_body.compact(document))
        piece_bytes += len(parts[-1])
        piece_documents += 1
        if piece_bytes >= PIECE_BYTES or piece_documents >= PIECE_DOCUMENTS:
            piece_bytes = piece_documents = 0
            await asyncio.sleep(0)
    head = json_body.compact({name: []})[:-2]
    tail = json_body.compact(more)[1:]
    body = head + b",".join(parts) + (b"]," + tail if more else b"]}")
    return web.Response(body=body, content_type="application/json")
