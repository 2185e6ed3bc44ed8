"""Raw HTTP requests: every route, with anything in its path, query, headers and body."""

import http.client
import io
import json
import socket
from dataclasses import dataclass
from typing import Any, Final, cast

from hypothesis import strategies as st

from clockwork.http.openapi import routes_of
from tests.fuzz.tally import Tally, try_each
from tests.support.engine import Engine
from tests.unit.api_edge import a_request
from tests.unit.service import app_of

CAMPAIGN: Final = "requests"
ANSWER_S_MAX: Final = 60.0
MEDIA_TYPES: Final = {"application/problem+json"}

ROUTES: Final = sorted((method, path) for method, path in routes_of(app_of(Engine())))
METHODS: Final = st.sampled_from(
    ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get"]
)
_TOKEN: Final = st.text("!#$%&'*+-.^_`|~0123456789abcXYZ", min_size=1, max_size=20)

_LINE_BYTES: Final = st.binary(max_size=40).map(lambda b: b.replace(b"\r", b"").replace(b"\n", b""))
_SEGMENTS: Final = st.one_of(
    st.sampled_from(
        [b"shop", b"other", b"a", b"done", b"given-up", b"gone", b"\xc3\xbc", b"%C3%BC", b"%2F", b"..", b"."]
    ),
    st.sampled_from(
        [b"%", b"%2", b"%zz", b"%ff", b"%00", b"%ed%a0%80", b"%F0%9F%92%A9", b"x" * 600, b"y" * 9_000, b"a;b=c"]
    ),
    st.text(max_size=20).map(lambda t: t.encode("utf-8", "surrogatepass")),
    _LINE_BYTES,
)
_QUERIES: Final = st.one_of(
    st.just(b""),
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"clientId", b"status", b"topic", b"orderingKey", b"dueFrom", b"dueTo", b"limit", b"cursor", b"x", b""]
            ),
            st.one_of(
                st.sampled_from(
                    [b"shop", b"1", b"0", b"-1", b"1001", b"9" * 40, b"%ff", b"%", b"2030-01-01T00:00:00Z"]
                ),
                st.sampled_from(
                    [b"0001-01-01T00:00:00+23:59", b"pending", b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", b"=&;"]
                ),
                _LINE_BYTES,
            ),
        ),
        max_size=6,
    ).map(lambda pairs: b"?" + b"&".join(name + b"=" + value for name, value in pairs)),
    _LINE_BYTES.map(lambda b: b"?" + b),
)

_HEADER_NAMES: Final = st.one_of(
    st.sampled_from(
        ["traceparent", "tracestate", "If-Match", "If-None-Match", "Content-Type", "Content-Encoding", "Authorization"]
    ),
    st.sampled_from(
        ["Expect", "Accept", "RateLimit", "RateLimit-Policy", "X-Forwarded-For", "Range", "Cookie", "Host", "Upgrade"]
    ),
    _TOKEN,
)
_HEADER_VALUES: Final = st.one_of(
    st.sampled_from([b'"1"', b'W/"1"', b"*", b'"1", "2"', b'"' + b"9" * 30 + b'"', b'"\xff"', b'"', b"", b" ", b"\t"]),
    st.sampled_from(
        [b"application/json", b"application/json; charset=latin-1", b"text/plain", b"application/json;;=;"]
    ),
    st.sampled_from(
        [b"application/json; charset*=utf-8''%ff", b"gzip", b"identity", b"100-continue", b"Bearer \xff", b"Bearer x"]
    ),
    st.sampled_from(
        [b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"]
    ),
    st.sampled_from([b"x" * 9_000, b"\x00", b"\xff" * 50, "ü".encode("latin-1"), b"a: b", b"bytes=0-1", b"websocket"]),
    _LINE_BYTES,
)
_BAD_LENGTHS: Final = [b"-1", b"abc", b"9" * 30, b"1, 1", b"0x10", b"+5", b"1e3", b"\xff"]

# No time in the past: no shard has an owner here, so what is due waits for one until its canceller gives up.
_INTEGERS: Final = st.sampled_from([-1, -(2**63), 2**31, 2**53 + 1, 2**63, 2**64, 10**30, 1_700_000_060_000, 10**13])
_LEAVES: Final = st.one_of(
    st.none(),
    st.booleans(),
    _INTEGERS,
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["\ud800", "\x00", "x" * 600]),
)
JSON: Final = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
_FIELDS: Final = ["clientId", "scheduleKey", "scheduleTime", "orderingKey", "taskData", "taskDataEncoding", "delivery"]
_DELIVERY: Final = ["topic", "guarantee", "headers", "deadline", "onLate", "retry", "x"]


@st.composite
def documents(draw: st.DrawFn) -> Any:
    """A create, or what a call would take, with something wrong in most of its places."""
    document = a_request(scheduleTime=1_700_000_060_000)
    for _ in range(draw(st.integers(0, 3))):
        match draw(st.integers(0, 3)):
            case 0:
                document[draw(st.sampled_from(_FIELDS) | st.text(max_size=8))] = draw(JSON)
            case 1:
                document.pop(draw(st.sampled_from(_FIELDS)), None)
            case 2 if isinstance(document.get("delivery"), dict):
                document["delivery"] = document["delivery"] | {draw(st.sampled_from(_DELIVERY)): draw(JSON)}
            case _:
                document["taskData"] = draw(JSON)
    return draw(
        st.sampled_from([document, {"schedules": [document, draw(JSON)]}, {"schedules": draw(JSON)}, [document]])
    )


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """JSON, or JSON that was cut, or had bytes put into it, or no JSON at all."""
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return draw(st.binary(max_size=200))
    if kind == 1:
        return draw(
            st.sampled_from([b"", b"[" * 100_000, b"{}", b"null", b"\xef\xbb\xbf{}", b'{"a":1,"a":2}', b"9" * 5_000])
        )
    body = json.dumps(draw(documents())).encode("utf-8", "surrogatepass")
    if kind == 2:
        return body[: draw(st.integers(0, len(body)))]
    if kind == 3:
        at = draw(st.integers(0, len(body)))
        return body[:at] + draw(st.binary(min_size=1, max_size=4)) + body[at:]
    return body


@dataclass(frozen=True, kw_only=True, slots=True)
class RawRequest:
    """As it goes out."""

    method: str
    data: bytes


@st.composite
def raw_requests(draw: st.DrawFn) -> RawRequest:
    route_method, path = draw(st.sampled_from(ROUTES))
    method = route_method if draw(st.integers(0, 9)) else draw(METHODS | _TOKEN)
    target = b"/".join(draw(_SEGMENTS) if "{" in part else part.encode() for part in path.split("/"))
    target += draw(_QUERIES) if draw(st.booleans()) else b""
    match draw(st.integers(0, 19)):
        case 0:
            target = draw(_LINE_BYTES)
        case 1:
            target = (
                draw(st.sampled_from([b"http://localhost", b"http://h", b"http://[", b"//", b"*", b"h:1"])) + target
            )
    headers = draw(st.lists(st.tuples(_HEADER_NAMES.map(str.encode), _HEADER_VALUES), max_size=4))
    if draw(st.integers(0, 4)):
        headers.append((b"Content-Type", b"application/json"))
    if draw(st.integers(0, 19)):
        headers.append((b"Host", b"localhost"))
    body = draw(bodies()) if method not in {"GET", "HEAD"} or draw(st.integers(0, 9)) == 0 else b""
    length = draw(st.sampled_from(_BAD_LENGTHS)) if draw(st.integers(0, 29)) == 0 else str(len(body)).encode()
    headers += [(b"Content-Length", length), (b"Connection", b"close")]
    version = (
        b"HTTP/1.1"
        if draw(st.integers(0, 19))
        else draw(st.sampled_from([b"HTTP/1.0", b"HTTP/9.9", b"HTTP/x", b"XTTP/1.1"]))
    )
    head = b"\r\n".join([method.encode() + b" " + target + b" " + version, *(n + b": " + v for n, v in headers)])
    return RawRequest(method=method, data=head + b"\r\n\r\n" + body)


def check(port: int, request: RawRequest, tally: Tally) -> None:
    """Sends it and reads the answer. Raises: AssertionError if it is not a clear one."""
    status, media_type, body = _answer(port, request)
    assert status < 500 or status == 501, f"{status} to {request.data[:300]!r}: {body[:300]!r}"
    if status >= 400 and request.method.upper() != "HEAD":
        assert media_type in MEDIA_TYPES, f"{status} as {media_type} to {request.data[:300]!r}"
        document = json.loads(body)
        assert document["status"] == status
        assert document["title"]
        assert document["detail"]
    tally.add(CAMPAIGN, str(status))


def run(port: int, *, count: int, seeded: int, tally: Tally) -> None:
    """Blocks: not on the event loop that answers."""
    try_each(raw_requests(), lambda request: check(port, request, tally), count=count, seeded=seeded)


class _Received:
    """Bytes that came already, for the library's parser, which asks a socket for nothing else."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: Any, **__: Any) -> io.BytesIO:
        return io.BytesIO(self._data)


def _answer(port: int, request: RawRequest) -> tuple[int, str, bytes]:
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S_MAX) as connection:
        received = bytearray()
        try:
            connection.sendall(request.data)
            while chunk := connection.recv(65_536):
                received += chunk
        except ConnectionError:
            # It was refused before all of it was sent; what was answered is here.
            assert received, f"a reset instead of an answer to {request.data[:300]!r}"
    assert received, f"no answer to {request.data[:300]!r}"
    method = "HEAD" if request.method.upper() == "HEAD" else "GET"
    answer = http.client.HTTPResponse(cast(socket.socket, _Received(bytes(received))), method=method)
    answer.begin()
    return answer.status, answer.headers.get_content_type(), answer.read()
