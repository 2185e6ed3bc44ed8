"""Bodies of every kind: what is refused, with which status, and that nothing a client sends is ever our fault."""

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clockwork.errors import InvalidInput
from clockwork.schema import json as json_body
from tests.unit.api_edge import Edge, a_request, open_edge

BODY_BYTES_MAX = 300 * 1024


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with open_edge(body_bytes_max=BODY_BYTES_MAX) as opened:
        yield opened


def with_task_data(text: bytes) -> bytes:
    """A create whose `taskData` is this JSON text."""
    return json.dumps(a_request(taskData="@")).encode().replace(b'"@"', text)


MALFORMED = {
    "nothing in it": b"",
    "blanks": b"  \n",
    "half an object": b'{"clientId": ',
    "two values": b"{} {}",
    "trailing comma": b'{"a": 1,}',
    "a comment": b"{} // x",
    "single quotes": b"{'a': 1}",
    "no UTF-8": b'{"clientId": "\xff"}',
    "UTF-16": json.dumps(a_request()).encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(a_request()).encode(),
    "a surrogate in UTF-8": with_task_data(b'"\xed\xa0\x80"'),
    "a raw control character": with_task_data(b'"\x01"'),
    "the same name twice": b'{"clientId": "a", "clientId": "b"}',
    "the same name twice inside": with_task_data(b'{"x": {"a": 1, "a": 1}}'),
    "the same name in two spellings": with_task_data(b'{"a": 1, "\\u0061": 1}'),
    "NaN": with_task_data(b"NaN"),
    "Infinity": with_task_data(b"[Infinity]"),
    "minus Infinity": with_task_data(b"-Infinity"),
    "a double that overflows": with_task_data(b"1e400"),
    "an integer beyond 64 bits": with_task_data(b"18446744073709551616"),
    "an integer below 64 bits": with_task_data(b"-9223372036854775809"),
    "an integer of 100,000 digits": with_task_data(b"9" * 100_000),
    "a leading zero": with_task_data(b"01"),
    "a lone high surrogate": with_task_data(b'"\\ud800"'),
    "a lone low surrogate": with_task_data(b'["x", {"y": "a\\uDFFFb"}]'),
    "surrogates in the wrong order": with_task_data(b'"\\udc00\\ud800"'),
    "a lone surrogate in a name": with_task_data(b'{"\\ud83d": 1}'),
    "arrays 20,000 deep": b"[" * 20_000,
    "arrays 20,000 deep and closed": with_task_data(b"[" * 20_000 + b"]" * 20_000),
    "objects 20,000 deep": with_task_data(b'{"a":' * 20_000 + b"1" + b"}" * 20_000),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_a_body_that_readers_could_disagree_about_is_400(edge: Edge, body: bytes) -> None:
    answer = await edge.post_bytes(body)
    assert (answer.status, answer.fields) == (400, ["body"])


@pytest.mark.parametrize(
    "text", [b'"\\ud83d\\ude00"', b'"\\\\ud800"', b"1E2", b"-0", b"1.0000000000000000000000001", b'"\\u0000"']
)
async def test_unusual_but_sound_json_is_taken(edge: Edge, text: bytes) -> None:
    assert (await edge.post_bytes(with_task_data(text))).status in {200, 201, 409}


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json-seq",
        "application/problem+json",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        "json",
        "/",
    ],
)
async def test_a_body_that_is_not_said_to_be_json_is_415(edge: Edge, content_type: str) -> None:
    answer = await edge.post_bytes(b"{}", content_type=content_type)
    assert answer.status == 415


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=UTF-8", "Application/JSON", 'application/json;charset="utf-8"']
)
async def test_json_in_utf_8_is_taken_however_it_is_written(edge: Edge, content_type: str) -> None:
    answer = await edge.post_bytes(json.dumps(a_request()).encode(), content_type=content_type)
    assert answer.status in {200, 201, 409}


async def test_a_compressed_body_is_415_and_never_decompressed(edge: Edge) -> None:
    body = gzip.compress(json.dumps(a_request()).encode())
    for encoding in ("gzip", "deflate", "br", "x", "gzip, identity"):
        headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
        answer = await edge.ask("POST", "/schedule", data=body, headers=headers)
        assert answer.status == 415, encoding


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_413(edge: Edge, chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(BODY_BYTES_MAX // 1024 + 1):
            yield b" " * 1024

    data: Any = pieces() if chunked else b" " * (BODY_BYTES_MAX + 1)
    answer = await edge.ask("POST", "/schedule", data=data, headers={"Content-Type": "application/json"})
    assert answer.status == 413


async def test_a_schedule_over_256_kib_is_413(edge: Edge) -> None:
    answer = await edge.post(a_request(taskData="x" * (256 * 1024 + 1)))
    assert (answer.status, answer.fields) == (413, ["taskData"])


@pytest.mark.parametrize("levels", [60, 400])
def test_moderate_depth_is_read_so_that_the_message_can_name_the_field(levels: int) -> None:
    json_body.parse(b"[" * levels + b"]" * levels)


@pytest.mark.parametrize("levels", [1_100, 5_000])
def test_depth_that_the_interpreter_cannot_hold_is_refused(levels: int) -> None:
    with pytest.raises(InvalidInput, match="deep"):
        json_body.parse(b"[" * levels + b"]" * levels)


ANSWERS = {200, 201, 400, 409, 413, 415}
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=15,
)
nearly_a_schedule = st.fixed_dictionaries(
    {},
    optional={
        "clientId": st.just("shop") | anything,
        "scheduleKey": st.text(max_size=5) | anything,
        "scheduleTime": st.integers(-10, 2**70) | st.datetimes().map(lambda d: d.isoformat() + "Z") | anything,
        "orderingKey": st.text(max_size=5) | anything,
        "taskData": anything,
        "taskDataEncoding": st.sampled_from(["json", "base64"]) | anything,
        "delivery": st.fixed_dictionaries(
            {"topic": st.just("orders") | anything},
            optional={
                "guarantee": st.sampled_from(["exactly_once", "at_least_once"]) | anything,
                "headers": st.dictionaries(st.text(max_size=5), st.text(max_size=5) | anything, max_size=3) | anything,
            },
        )
        | anything,
    },
)


@FUZZ
@given(body=st.binary(max_size=200) | st.text(st.characters(codec="utf-8"), max_size=100).map(str.encode))
async def test_no_bytes_at_all_are_ever_a_server_error(edge: Edge, body: bytes) -> None:
    assert (await edge.post_bytes(body)).status in ANSWERS


@FUZZ
@given(document=nearly_a_schedule)
async def test_no_json_at_all_is_ever_a_server_error(edge: Edge, document: Any) -> None:
    # json.dumps writes NaN, numbers of any length and lone surrogates too: also what must be refused.
    assert (await edge.post_bytes(json.dumps(document).encode())).status in ANSWERS


@FUZZ
@given(client=st.binary(min_size=1, max_size=20), key=st.binary(min_size=1, max_size=20))
async def test_no_path_at_all_is_ever_a_server_error(edge: Edge, client: bytes, key: bytes) -> None:
    path = "/schedule/" + "".join(f"%{b:02x}" for b in client) + "/" + "".join(f"%{b:02X}" for b in key)
    assert (await edge.ask("GET", path)).status in {200, 400, 404}
