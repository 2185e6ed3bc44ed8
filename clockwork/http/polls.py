"""Answers to polls: those of calls that a page asks again and again (`Route.polled`) have an `ETag`, and one that is the
same as before is `304` without a body (RFC 9110, 13.1.2).

The tag is a digest of the body, so nothing has to be kept for it, any node makes the same one, and callers with different
rights, or redacted ones, get the same one only for the same bytes. It is weak, because the time of the answer (`asOf`, the
last member of a document) is left out: it changes with every answer, and is no news. A `304` is told after the handler has
checked the caller's rights, and costs the same reads; what it saves is the transfer, and the page's work.

A cache of the caller's own may keep such an answer, and has to ask before it shows it; what callers are told apart by is in
`Vary`.
"""

import hashlib
import re
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from clockwork.access.sessions import UI_HEADER
from clockwork.http.routes import READ_UNITS, route_of

_DIGEST_BYTES: Final = 12
_AS_OF: Final = re.compile(rb'"asOf":[0-9]+\}\Z')
_AS_OF_BYTES_MAX: Final = 32
_HEADERS: Final = {
    hdrs.CACHE_CONTROL: "private, no-cache",
    hdrs.VARY: f"{hdrs.AUTHORIZATION}, {hdrs.COOKIE}, {UI_HEADER}",
}


@web.middleware
async def _answer_unchanged(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    declared = route_of(request.match_info.handler)
    if declared is None or not declared.polled or response.status != 200 or not isinstance(response, web.Response):
        return response
    body = response.body
    if not isinstance(body, bytes):
        return response
    digest = digest_of(body)
    if any(each.value in (digest, "*") for each in request.if_none_match or ()):
        read_units = response.headers.get(READ_UNITS)
        response = web.Response(status=304, headers={} if read_units is None else {READ_UNITS: read_units})
    response.headers.update(_HEADERS)
    response.headers[hdrs.ETAG] = f'W/"{digest}"'
    return response


def answer_unchanged() -> Middleware:
    """The middleware that tags the answers of polled routes, and answers `304` in the place of an unchanged one."""
    return _answer_unchanged


def digest_of(body: bytes) -> str:
    """The digest of a document, but for its last member if that is `asOf`."""
    as_of = _AS_OF.search(body, max(0, len(body) - _AS_OF_BYTES_MAX))
    end = len(body) if as_of is None else as_of.start()
    return hashlib.blake2b(memoryview(body)[:end], digest_size=_DIGEST_BYTES).hexdigest()
