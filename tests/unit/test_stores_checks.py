"""Checks of stored values, by the codec of each store."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import pytest

from clockwork.domain.schedule import BrokenRow, EndState, Failure, Outcome, Retry, Row, ScheduleKey
from clockwork.errors import Unreadable
from clockwork.stores.checks import ATTEMPTS_MAX, RAW_BYTES_MAX
from clockwork.stores.dynamodb import codec as dynamodb
from clockwork.stores.postgres import codec as postgres
from tests.support.builders import DUE_MS, outcome, row, schedule


@dataclass(frozen=True, kw_only=True, slots=True)
class Codec:
    """Values on their way into a store and back."""

    row: Callable[[Row], Row | BrokenRow]
    outcome: Callable[[Outcome], Outcome]


CODECS: Final = {
    "dynamodb": Codec(
        row=lambda wanted: dynamodb.row_of(dynamodb.row_item(wanted), shard=wanted.shard, position=wanted.position),
        outcome=lambda wanted: dynamodb.outcome_of(dynamodb.outcome_item(wanted)),
    ),
    "postgresql": Codec(
        row=lambda wanted: postgres.row_of(postgres.row_values(wanted)),
        outcome=lambda wanted: postgres.outcome_of(postgres.outcome_values(wanted)),
    ),
}


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> Codec:
    """The codec of each store in turn."""
    return CODECS[request.param]


def refused(attempts: int) -> Row:
    return row(retry=Retry(at_ms=DUE_MS, epoch=1, attempts=attempts))


def failed(attempts: int) -> Outcome:
    return outcome(row(), EndState.FAILED, failure=Failure(reason="expired", attempts=attempts))


@pytest.mark.parametrize("attempts", [0, ATTEMPTS_MAX])
def test_a_number_of_attempts_that_fits_into_a_marker_comes_back_as_it_was(codec: Codec, attempts: int) -> None:
    waiting, ended = refused(attempts), failed(attempts)

    assert codec.row(waiting) == waiting
    assert codec.outcome(ended) == ended


@pytest.mark.parametrize("attempts", [-1, ATTEMPTS_MAX + 1])
def test_a_number_of_attempts_that_fits_into_no_marker_is_unreadable(codec: Codec, attempts: int) -> None:
    # The number goes into the marker if the row fails: the marker could not be made, and its shard would stop.
    found = codec.row(refused(attempts))

    assert isinstance(found, BrokenRow)
    assert found.reason.endswith("attempts: out of range")
    with pytest.raises(Unreadable, match="attempts: out of range"):
        codec.outcome(failed(attempts))


@pytest.mark.parametrize("topic", ["t" * 40_000, "a b", "..", "ümlaut", "a\n"])
def test_a_row_with_an_illegal_topic_is_unreadable(codec: Codec, topic: str) -> None:
    # Kafka's protocol ends at 32,767 bytes: to ask for such a topic would fail the whole batch, at every try.
    found = codec.row(row(schedule(topic=topic)))

    assert isinstance(found, BrokenRow)
    assert found.reason == "topic: not a legal one"


@pytest.mark.parametrize("too_large", ["ä" * 257, "k" * 513])
def test_a_row_with_a_key_that_is_too_long_for_an_outcome_is_unreadable_and_has_no_key(
    codec: Codec, too_large: str
) -> None:
    found = codec.row(row(schedule(schedule_key=too_large)))

    assert isinstance(found, BrokenRow)
    assert found.reason.endswith(": too long")
    assert found.schedule_key is None
    assert found.client_id is not None


def test_a_broken_row_whose_json_would_be_too_large_for_a_record_is_named_only(codec: Codec) -> None:
    found = codec.row(row(schedule(topic="\x01" * 200_000)))

    assert isinstance(found, BrokenRow)
    assert json.loads(found.raw)["omitted_bytes"] > RAW_BYTES_MAX
    assert len(found.raw) < 1_000


def test_values_that_contradict_themselves_are_not_written(codec: Codec) -> None:
    good = row()
    other = replace(good.schedule, due_ms=good.due_ms + 1)

    with pytest.raises(ValueError, match="due at"):
        codec.row(replace(good, schedule=other))
    with pytest.raises(ValueError, match="due at"):
        codec.outcome(replace(outcome(good), schedule=other))
    with pytest.raises(ValueError, match="another key"):
        codec.outcome(replace(outcome(good), schedule_key=ScheduleKey("other")))
