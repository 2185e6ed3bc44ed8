"""Bodies of every kind: what is refused, with which status, and that nothing a client sends is ever our fault."""

import gzip
import json
import re
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


JSON = {"Content-Type": "application/json"}


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
    "NaN": with_task_data(b"NaN"),
    "Infinity": with_task_data(b"[Infinity]"),
    "minus Infinity": with_task_data(b"-Infinity"),
    "a leading zero": with_task_data(b"01"),
    "arrays 20,000 deep": b"[" * 20_000,
    "arrays 20,000 deep that end too early": with_task_data(b"[" * 20_000 + b"]" * 19_999),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_a_body_that_is_no_json_is_400_as_a_whole(edge: Edge, body: bytes) -> None:
    answer = await edge.post_bytes(body)
    assert (answer.status, answer.fields) == (400, ["body"])


@pytest.mark.parametrize("wrong", [b"NaN", b"{", b"[1,]", b'"\xff"'])
async def test_a_batch_that_is_no_json_is_400_as_a_whole_and_nothing_of_it_is_done(wrong: bytes) -> None:
    async with open_edge() as edge:
        body = b'{"schedules": [%s, %s]}' % (json.dumps(a_request()).encode(), with_task_data(wrong))
        answer = await edge.ask("POST", "/schedules", data=body, headers=JSON)
        assert (answer.status, answer.fields) == (400, ["body"])
        assert edge.engine.store.rows == {}


UNUSABLE = {
    "the same name twice": b'{"x": {"a": 1, "a": 1}}',
    "the same name three times": b'{"a": 1, "a": 2, "a": 3}',
    "the same name in two spellings": b'{"a": 1, "\\u0061": 1}',
    "a double that overflows": b"1e400",
    "a double that overflows below": b"[-1e400]",
    "an integer beyond 64 bits": b"18446744073709551616",
    "an integer below 64 bits": b"-9223372036854775809",
    "an integer of 100,000 digits": b"9" * 100_000,
    "a lone high surrogate": b'"\\ud800"',
    "a lone low surrogate": b'["x", {"y": "a\\uDFFFb"}]',
    "surrogates in the wrong order": b'"\\udc00\\ud800"',
    "a lone surrogate in a name": b'{"\\ud83d": 1}',
    "arrays 20,000 deep": b"[" * 20_000 + b"]" * 20_000,
    "objects 20,000 deep": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "arrays 20,000 deep around brackets in a text": b"[" * 20_000 + b'"]\\"]["' + b"]" * 20_000,
}


@pytest.mark.parametrize("text", UNUSABLE.values(), ids=UNUSABLE)
async def test_a_value_that_readers_could_disagree_about_is_an_error_of_its_field(edge: Edge, text: bytes) -> None:
    answer = await edge.post_bytes(with_task_data(text))
    assert (answer.status, answer.fields) == (400, ["taskData"])
    encoded = with_task_data(text + b', "taskDataEncoding": "base64"')
    assert (await edge.post_bytes(encoded)).fields == ["taskData"]
    changed = await edge.ask("PUT", "/schedule/shop/order-1", data=b'{"taskData": %s}' % text, headers=JSON)
    assert (changed.status, changed.fields) == (400, ["taskData"])


FIELDS = {
    "clientId": b'{"clientId": @}',
    "scheduleKey": b'{"scheduleKey": @}',
    "scheduleTime": b'{"scheduleTime": @}',
    "orderingKey": b'{"orderingKey": @}',
    "taskDataEncoding": b'{"taskDataEncoding": @}',
    "delivery": b'{"delivery": @}',
    "delivery.topic": b'{"delivery": {"topic": @}}',
    "delivery.guarantee": b'{"delivery": {"topic": "t", "guarantee": @}}',
    "delivery.headers": b'{"delivery": {"topic": "t", "headers": @}}',
    "delivery.headers.h": b'{"delivery": {"topic": "t", "headers": {"h": @}}}',
    "delivery.deadline": b'{"delivery": {"topic": "t", "deadline": @}}',
    "delivery.onLate": b'{"delivery": {"topic": "t", "onLate": @}}',
    "delivery.retry": b'{"delivery": {"topic": "t", "retry": @}}',
    "delivery.retry.attempts": b'{"delivery": {"topic": "t", "retry": {"attempts": @}}}',
    "delivery.retry.factor": b'{"delivery": {"topic": "t", "retry": {"factor": @}}}',
    "x": b'{"x": @}',
}


@pytest.mark.parametrize("value", [b"18446744073709551616", b"-1e400", b'"\\udfff"'], ids=["integer", "double", "text"])
@pytest.mark.parametrize(("field", "document"), FIELDS.items(), ids=FIELDS)
async def test_every_field_names_itself_when_its_value_cannot_be_used(
    edge: Edge, field: str, document: bytes, value: bytes
) -> None:
    given = json_body.parse(document.replace(b"@", value))
    text = json.dumps(a_request() | dict.fromkeys(given, "@@")).encode()
    for name in given:
        inner = re.fullmatch(rb'\{"[^"]+": (.*)\}', document, re.DOTALL)
        assert inner is not None, name
        text = text.replace(b'"@@"', inner.group(1).replace(b"@", value))
    answer = await edge.post_bytes(text)
    assert (answer.status, answer.fields) == (400, [field])
    # The message tells what is wrong with the value, and not that it is of another type.
    assert any(word in answer.json["detail"] for word in ("64 bits", "double", "surrogate", "no field"))


@pytest.mark.parametrize(
    ("twice", "field"),
    [
        (b'"clientId": "b"', "clientId"),
        (b'"scheduleTime": 0', "scheduleTime"),
        (b'"delivery": {"topic": "a"}', "delivery"),
        (b'"surprise": 1, "surprise": 1', "surprise"),
    ],
)
async def test_a_name_that_is_given_twice_is_an_error_of_its_field(edge: Edge, twice: bytes, field: str) -> None:
    answer = await edge.post_bytes(b"{" + twice + b", " + json.dumps(a_request()).encode()[1:])
    assert (answer.status, answer.fields) == (400, [field])


@pytest.mark.parametrize("text", UNUSABLE.values(), ids=UNUSABLE)
async def test_one_item_that_cannot_be_used_costs_the_other_items_of_a_batch_nothing(text: bytes) -> None:
    items = [json.dumps(a_request(scheduleKey=key)).encode() for key in ("first", "last")]
    for wrong in (with_task_data(text), text):
        async with open_edge(body_bytes_max=BODY_BYTES_MAX) as edge:
            body = b'{"schedules": [%s]}' % b", ".join([items[0], wrong, items[1]])
            answer = await edge.ask("POST", "/schedules", data=body, headers=JSON)
            assert answer.status == 200
            first, result, last = answer.json["results"]
            assert (first["status"], result["status"], last["status"]) == (201, 400, 201)
            if wrong != text:
                assert [each["field"] for each in result["errors"]] == ["taskData"]
            cancelled = await edge.ask("POST", "/schedules/cancel", data=body, headers=JSON)
            assert (cancelled.status, cancelled.json["results"][1]["status"]) == (200, 400)


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
def test_depth_that_the_interpreter_cannot_hold_is_cut_where_it_begins_and_not_beside_it(levels: int) -> None:
    deep = b"[" * levels + b"]" * levels
    first, cut, last = json_body.parse(b"[[1, 2], %s, {}]" % deep)
    assert (first, last) == ([1, 2], {})
    assert json_body.deeper_than(cut, 100)
    with pytest.raises(ValueError, match="deep"):
        json_body.compact(cut)
    with pytest.raises(InvalidInput, match="deep"):
        json_body.parse(b"[" * levels)


@settings(max_examples=30, deadline=None)
@given(
    st.recursive(
        st.none() | st.text('[]{}\\"ab'), lambda inner: st.lists(inner) | st.dictionaries(st.text('[]{}"'), inner)
    )
)
def test_a_value_beside_one_that_is_too_deep_is_read_as_it_is(value: Any) -> None:
    text = json.dumps(value).encode()
    assert json_body.parse(b"[%s, %s%s, %s]" % (text, b"[" * 2_000, b"]" * 2_000, text))[::2] == [value, value]


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
