"""A repeated command is told from a new one by where it stands."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clockwork.domain.command_notes import CommandNote, CommandOffset, note_change, offsets_of_text, text_of_offsets

PLACE = CommandOffset(kafka_partition=3, offset=17, at_ms=1_000)
places = st.builds(
    CommandOffset,
    kafka_partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    at_ms=st.integers(0, 2**53),
)


def test_nothing_is_over_where_no_command_had_an_effect() -> None:
    assert not PLACE.is_processed(None)


def test_a_command_is_over_by_its_own_effect_and_by_a_later_one_and_not_by_an_earlier_one() -> None:
    assert PLACE.is_processed(PLACE)
    assert PLACE.is_processed(replace(PLACE, offset=18, at_ms=1_001))
    assert not replace(PLACE, offset=18, at_ms=1_001).is_processed(PLACE)


def test_places_in_different_kafka_partitions_cannot_be_compared() -> None:
    assert not PLACE.is_processed(replace(PLACE, kafka_partition=4, offset=99, at_ms=9_999))
    assert PLACE.after(replace(PLACE, kafka_partition=4, at_ms=9_999)) == PLACE


def test_a_topic_that_was_made_anew_begins_with_new_commands_although_its_offsets_are_low() -> None:
    assert not replace(PLACE, offset=0, at_ms=2_000).is_processed(PLACE)


def test_a_broker_whose_clock_was_set_back_makes_no_command_look_old_and_none_look_new() -> None:
    # The leader moves to a broker whose clock is behind: later offsets bear earlier times.
    behind = replace(PLACE, offset=18, at_ms=900)
    assert not behind.is_processed(PLACE)
    stored = behind.after(PLACE)
    assert PLACE.is_processed(stored), "read again, the one before it is known"
    assert behind.is_processed(stored)


@given(place=places)
def test_a_place_is_read_as_it_was_written(place: CommandOffset) -> None:
    assert CommandOffset.parse(str(place)) == place


@pytest.mark.parametrize("text", ["", "1.2", "1.2.3.4", "a.2.3", "1.-2.3", "1.2.3\n"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="should be Kafka partition, offset and time"):
        CommandOffset.parse(text)


def test_a_note_remembers_a_place_for_each_kafka_partition_and_covers_what_is_not_behind_it() -> None:
    # The producers of one client may place its key differently: a command in one place says nothing of those in another.
    elsewhere = replace(PLACE, kafka_partition=4, offset=2)
    first = note_change(None, PLACE, by="a", expires_at_s=10)
    second = note_change(first.after, elsewhere, by="b", expires_at_s=5)
    assert (first.before, second.before) == ((), (PLACE,))
    assert second.after == CommandNote(offsets=(PLACE, elsewhere), by="b", expires_at_s=10), "kept as long as before"
    assert second.after.covers(PLACE)
    assert second.after.covers(elsewhere)
    assert not second.after.covers(replace(elsewhere, offset=3, at_ms=1_001))
    assert not first.after.covers(elsewhere)


@given(found=st.lists(places, min_size=1, max_size=4, unique_by=lambda place: place.kafka_partition))
def test_places_are_read_as_they_were_written_and_in_no_other_spelling(found: list[CommandOffset]) -> None:
    text = text_of_offsets(tuple(found))
    assert offsets_of_text(text) == tuple(found)
    for other in (f"0{text}", f"{text} ", f" {text}", text.replace(".", "٠.", 1)):
        with pytest.raises(ValueError, match="should be"):
            offsets_of_text(other)
