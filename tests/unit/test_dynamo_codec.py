"""Values to DynamoDB items and back, and the reading of items that Clockwork did not write."""

import base64
import contextlib
import json
from dataclasses import replace
from string import ascii_letters, digits
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clockwork.domain.command_notes import CommandNote, CommandOffset
from clockwork.domain.destination import Topic
from clockwork.domain.ownership import NodeState, ShardState
from clockwork.domain.position import new_position, position_of
from clockwork.domain.schedule import (
    BrokenRow,
    ClientId,
    DataForm,
    EndState,
    Failure,
    Guarantee,
    OrderingKey,
    Outcome,
    Receipt,
    RequestId,
    Retry,
    Row,
    Schedule,
    ScheduleKey,
)
from clockwork.domain.sharding import ShardId
from clockwork.errors import NewerFormat, Unreadable
from clockwork.stores.checks import ATTEMPTS_MAX
from clockwork.stores.dynamodb import attributes as fields
from clockwork.stores.dynamodb import codec
from tests.support.builders import outcome, pointer, position, row, schedule

INT64 = st.integers(-(2**63), 2**63 - 1)
NATURAL = st.integers(0, 2**53)
UTF8 = st.text(st.characters(codec="utf-8"), max_size=40)
SOME_UTF8 = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)

SCHEDULES = st.builds(
    Schedule,
    client_id=st.text(ascii_letters + digits + "._-", min_size=1, max_size=128).map(ClientId),
    schedule_key=SOME_UTF8.map(ScheduleKey),
    ordering_key=SOME_UTF8.map(OrderingKey),
    due_ms=st.integers(0, 10**14 - 1),
    topic=st.text(ascii_letters + digits + "_-", min_size=1, max_size=249).map(Topic),
    guarantee=st.sampled_from(Guarantee),
    task_data=st.binary(max_size=200),
    data_form=st.sampled_from(DataForm),
    headers=st.dictionaries(SOME_UTF8, UTF8, max_size=4).map(lambda d: tuple(sorted(d.items()))),
    traceparent=st.none() | SOME_UTF8,
    created_at_ms=NATURAL,
    version=NATURAL,
    delivery_id=SOME_UTF8,
)
ATTEMPTS = st.integers(0, ATTEMPTS_MAX)
RETRIES = st.builds(Retry, at_ms=INT64, epoch=NATURAL, attempts=ATTEMPTS, last_refusal=st.none() | SOME_UTF8)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    wanted = draw(SCHEDULES)
    accepted_us, random = draw(st.integers(1, 10**16 - 1)), draw(st.integers(0, 10**8 - 1))
    return Row(
        shard=ShardId(draw(st.integers(0, 1_000))),
        position=new_position(due_ms=wanted.due_ms, accepted_us=accepted_us, random=random),
        schedule=wanted,
        hold=draw(st.none() | SOME_UTF8.map(RequestId)),
        retry=draw(st.none() | RETRIES),
    )


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    of = draw(rows())
    return Outcome(
        client_id=of.schedule.client_id,
        schedule_key=of.schedule.schedule_key,
        position=of.position,
        state=draw(st.sampled_from(EndState)),
        at_ms=draw(NATURAL),
        schedule=draw(st.sampled_from([None, of.schedule])),
        receipt=draw(st.none() | st.builds(Receipt, kafka_partition=NATURAL, offset=INT64, at_ms=NATURAL)),
        failure=draw(
            st.none() | st.builds(Failure, reason=SOME_UTF8, attempts=ATTEMPTS, last_refusal=st.none() | SOME_UTF8)
        ),
        expires_at_s=draw(NATURAL),
    )


BASE64 = st.binary(max_size=20).map(lambda data: base64.b64encode(data).decode())
SCALARS = st.one_of(
    st.fixed_dictionaries({"S": st.text(max_size=20)}),
    st.fixed_dictionaries({"N": st.sampled_from(["1", "0", "-7", "1.5", "1E+20", "١", "1_0", "", "x"])}),
    st.fixed_dictionaries({"B": BASE64 | st.text(max_size=9)}),
    st.fixed_dictionaries({"BOOL": st.booleans()}),
    st.just({"NULL": True}),
    st.fixed_dictionaries({"SS": st.lists(st.text(max_size=5), max_size=3)}),
    st.fixed_dictionaries({"BS": st.lists(BASE64, max_size=3)}),
)
ATTRIBUTES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"L": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"M": st.dictionaries(st.text(max_size=8), inner, max_size=3)}),
    ),
    max_leaves=6,
)
NONSENSE: st.SearchStrategy[Any] = st.one_of(
    ATTRIBUTES,
    st.none(),
    st.integers(),
    st.text(max_size=5),
    st.just({}),
    st.just({"S": None}),
    st.just({"M": []}),
    st.just({"N": 1.5}),
    st.just({"S": "half a pair: \ud800"}),
)


@given(rows())
def test_every_row_comes_back_as_it_was(original: Row) -> None:
    item = codec.row_item(original)

    assert codec.position_of_row(item) == original.position
    assert codec.row_of(item, shard=original.shard, position=original.position) == original


@given(outcomes())
def test_every_outcome_comes_back_as_it_was(original: Outcome) -> None:
    assert codec.outcome_of(codec.outcome_item(original)) == original


@given(rows(), UTF8.filter(bool), NATURAL, NATURAL)
def test_every_pointer_comes_back_as_it_was(to: Row, digest: str, version: int, expires_at_s: int) -> None:
    original = pointer(to, digest=digest, version=version, expires_at_s=expires_at_s)

    for stored in (original, replace(original, rearmed=True), replace(original, discarded_at_ms=4)):
        assert codec.pointer_of(codec.pointer_item(stored)) == stored


@given(st.builds(ShardState, epoch=NATURAL, owner=st.none() | SOME_UTF8, floor_ms=NATURAL), NATURAL)
def test_every_shard_comes_back_as_it_was(original: ShardState, shards: int) -> None:
    assert codec.shard_state_of(codec.shard_item(ShardId(7), original)) == original
    assert codec.shard_count_of(codec.cluster_item(shards)) == shards


@given(
    st.builds(
        NodeState,
        incarnation=SOME_UTF8,
        frontier_ms=NATURAL,
        fenced_at_ms=st.none() | NATURAL,
        slots=NATURAL,
        hints=st.dictionaries(NATURAL, NATURAL, max_size=3),
        node=UTF8,
    )
)
def test_every_incarnation_comes_back_as_it_was(original: NodeState) -> None:
    assert codec.node_state_of(codec.node_item(original)) == original


def test_an_item_of_the_format_before_is_no_shard_and_no_cluster() -> None:
    # It had a frontier of its own, which must not be taken for a floor.
    before = {"v": {"N": "1"}, "epoch": {"N": "3"}, "owner": {"S": "a"}, "frontier": {"N": "5"}, "shards": {"N": "4"}}
    for read in (codec.shard_state_of, codec.shard_count_of):
        with pytest.raises(Unreadable, match="format 1"):
            read(before)


@given(rows(), st.data())
def test_reading_a_row_never_raises_whatever_is_in_it(original: Row, data: st.DataObject) -> None:
    item = codec.row_item(original)
    for name in data.draw(st.lists(st.sampled_from([*item, "hold", "retry", "traceparent"]), max_size=4)):
        item[name] = data.draw(NONSENSE)
    for name in data.draw(st.lists(st.sampled_from(sorted(item)), max_size=3)):
        item.pop(name, None)

    codec.position_of_row(item)
    found = codec.row_of(item, shard=original.shard, position=original.position)

    assert (found.shard, found.position) == (original.shard, original.position)
    if isinstance(found, BrokenRow):
        assert found.reason
        json.loads(found.raw)
        _is_sendable(found)


def _is_sendable(broken: BrokenRow) -> None:
    """Checks that its dead letter fits into a record, and the key of its outcome into an item."""
    for text in (broken.client_id, broken.schedule_key, *(broken.lane or ())):
        assert text is None or text.encode()
    assert broken.client_id is None or "/" not in broken.client_id
    assert broken.schedule_key is None or len(broken.schedule_key.encode()) <= 512


@given(st.dictionaries(st.text(max_size=8), NONSENSE, max_size=6))
def test_reading_anything_at_all_as_a_row_never_raises(item: dict[str, Any]) -> None:
    found = codec.row_of(item, shard=ShardId(0), position=position())

    assert isinstance(found, BrokenRow)


@given(outcomes(), st.data())
def test_other_damaged_items_raise_unreadable_and_nothing_else(original: Outcome, data: st.DataObject) -> None:
    item = codec.outcome_item(original)
    for name in data.draw(st.lists(st.sampled_from(sorted(item)), min_size=1, max_size=3)):
        item[name] = data.draw(NONSENSE)

    with contextlib.suppress(Unreadable):
        codec.outcome_of(item)


@given(rows())
def test_no_float_is_ever_written(original: Row) -> None:
    def leaves(value: object) -> list[object]:
        if isinstance(value, dict):
            return [leaf for inner in value.values() for leaf in leaves(inner)]
        return [value]

    for item in (
        codec.row_item(original),
        codec.pointer_item(pointer(original)),
        codec.outcome_item(outcome(original)),
    ):
        assert {type(leaf) for leaf in leaves(item)} <= {str, bytes}


def test_a_row_is_stored_under_the_names_that_the_design_gives() -> None:
    at = position_of("1700000000123.169999999999999912345678")
    wanted = row(
        schedule(schedule_key="k", due_ms=1_700_000_000_123, headers=(("h", "v"),), traceparent="t", delivery_id="d"),
        shard=3,
        at=at,
        hold="r",
        retry=Retry(at_ms=5, epoch=6, attempts=7, last_refusal="record_too_large"),
    )

    assert codec.row_item(wanted) == {
        "v": {"N": "1"},
        "partitionId": {"S": "3"},
        "scheduleTime": {"N": "1700000000123.169999999999999912345678"},
        "clientId": {"S": "client-1"},
        "scheduleKey": {"S": "k"},
        "orderingKey": {"S": "k"},
        "taskData": {"B": "eyJvcmRlciI6MX0="},
        "taskDataForm": {"S": "json"},
        "topic": {"S": "orders"},
        "guarantee": {"S": "exactly_once"},
        "headers": {"M": {"h": {"S": "v"}}},
        "traceparent": {"S": "t"},
        "createdAt": {"N": "1699999940000"},
        "version": {"N": "1"},
        "deliveryId": {"S": "d"},
        "hold": {"S": "r"},
        "retry": {
            "M": {
                "at": {"N": "5"},
                "epoch": {"N": "6"},
                "attempts": {"N": "7"},
                "lastRefusal": {"S": "record_too_large"},
            }
        },
    }


def test_a_pointer_and_an_outcome_are_stored_under_the_names_that_the_design_gives() -> None:
    of = row(schedule(schedule_key="k/1", due_ms=1_700_000_000_123), at=position_of("1700000000123.5"))
    pointed, ended = codec.pointer_item(pointer(of)), codec.outcome_item(outcome(of, EndState.FAILED))

    assert pointed["clientKey"] == ended["clientKey"] == {"S": "client-1/k/1"}
    assert pointed["position"] == {"N": "0"}
    assert ended["position"] == pointed["current"] == {"N": "1700000000123.500000000000000000000000"}
    assert pointed["expiresAt"] == ended["expiresAt"] == {"N": "2000000000"}
    assert ended["schedule"]["M"]["taskData"] == {"B": "eyJvcmRlciI6MX0="}
    assert ended["failure"] == {"M": {"reason": {"S": "record_too_large"}, "attempts": {"N": "8"}}}


def test_a_stored_position_is_read_with_and_without_its_trailing_zeros() -> None:
    of = row(at=position_of("1700000000000.1699999999999999"))
    item = codec.row_item(of) | {"scheduleTime": {"N": "1700000000000.1699999999999999"}}

    assert codec.position_of_row(item) == of.position


@pytest.mark.parametrize("text", ["0", "-1", "1E+20", "1700000000000.1234567890123456789012345", "100000000000000", ""])
def test_a_place_that_no_position_names_is_none(text: str) -> None:
    assert codec.position_of_row({"scheduleTime": {"N": text}}) is None


def test_a_newer_row_keeps_its_lane_and_key_readable() -> None:
    original = row()
    item = codec.row_item(original) | {"v": {"N": "3"}, "taskData": {"M": {}}}

    found = codec.row_of(item, shard=original.shard, position=original.position)

    assert isinstance(found, BrokenRow)
    assert found.newer_format
    assert found.lane == original.schedule.lane
    assert (found.client_id, found.schedule_key) == (original.schedule.client_id, original.schedule.schedule_key)


def test_newer_pointers_outcomes_and_shards_are_told_apart_from_damaged_ones() -> None:
    newer = {"v": {"N": "2"}}

    with pytest.raises(NewerFormat):
        codec.pointer_of(codec.pointer_item(pointer(row())) | newer)
    with pytest.raises(NewerFormat):
        codec.outcome_of(codec.outcome_item(outcome(row())) | newer)
    with pytest.raises(NewerFormat):
        codec.shard_state_of({"v": {"N": "3"}})
    with pytest.raises(NewerFormat):
        codec.node_state_of({"v": {"N": "3"}})
    with pytest.raises(NewerFormat):
        codec.shard_count_of({"v": {"N": "3"}})


def test_the_raw_item_of_a_broken_row_holds_its_bytes_as_base64() -> None:
    item = codec.row_item(row(schedule(task_data=b"\x00\xff"))) | {"topic": {"N": "1"}}

    found = codec.row_of(item, shard=ShardId(3), position=position())

    assert isinstance(found, BrokenRow)
    assert base64.b64decode(json.loads(found.raw)["taskData"]["B"]) == b"\x00\xff"


def test_the_reason_names_the_attribute_and_never_its_value() -> None:
    item = codec.row_item(row()) | {"guarantee": {"S": "a secret"}}

    found = codec.row_of(item, shard=ShardId(3), position=position())

    assert isinstance(found, BrokenRow)
    assert found.reason == "guarantee: unknown value"


def test_an_outcome_never_takes_the_pointers_place() -> None:
    with pytest.raises(ValueError, match="pointer"):
        codec.outcome_key(ClientId("c"), ScheduleKey("k"), position_of("0"))


def test_two_headers_of_one_name_are_not_written() -> None:
    with pytest.raises(ValueError, match="two headers"):
        codec.row_item(row(schedule(headers=(("h", "1"), ("h", "2")))))


def test_a_note_of_commands_that_is_mangled_is_unreadable_and_not_none_at_all() -> None:
    # Taken for none, a repeated command would have its effect twice.
    place = CommandOffset(kafka_partition=3, offset=17, at_ms=1)
    item = {
        "v": fields.number(codec.FORMAT),
        "command": {"S": "3.17.1 11.17.1"},
        "by": {"S": "a"},
        "expiresAt": fields.number(5),
    }
    places = (place, replace(place, kafka_partition=11))
    assert codec.note_of(item) == CommandNote(offsets=places, by="a", expires_at_s=5)
    damage = [
        {"command": {"S": "3.17"}},
        {"command": {"S": "03.17.1"}},
        {"command": {"S": ""}},
        {"command": {"N": "3"}},
    ]
    for broken in (*damage, {"by": {"N": "5"}}, {"expiresAt": {"S": "5"}}, {"v": fields.number(99)}):
        with pytest.raises(Unreadable):
            codec.note_of(item | broken)
    for name in item:
        with pytest.raises(Unreadable):
            codec.note_of({n: v for n, v in item.items() if n != name})


def test_an_outcome_that_would_be_too_large_for_an_item_leaves_the_content_out() -> None:
    # A row of 400 KB can only have been put by hand; its outcome says more than it, and must be stored all the same.
    small, large = (outcome(row(schedule(task_data=b"x" * size))) for size in (256 * 1024, 399_000))

    assert codec.outcome_of(codec.outcome_item(small)) == small
    assert codec.outcome_of(codec.outcome_item(large)) == replace(large, schedule=None)
