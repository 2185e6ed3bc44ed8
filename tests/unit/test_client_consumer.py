"""Help for consumers: a record's headers, and duplicates."""

import pytest

from clockwork.client import DeadLetter, Delivery, Duplicates, NotADelivery, delivery_of
from clockwork.domain.record import dead_letter_of
from clockwork.domain.record import delivery_of as record_of
from clockwork.domain.schedule import Failure
from tests.support import builders

SCHEDULE = builders.schedule(headers=(("a", "1"), ("a", "2")), traceparent="00-1-2-01")
NAMES = ["clockwork-client-id", "clockwork-schedule-key", "clockwork-schedule-time", "clockwork-delivery-id"]


def test_the_headers_of_a_record_are_read_back() -> None:
    sent = record_of(SCHEDULE, now_ms=SCHEDULE.due_ms + 7)
    found = delivery_of(sent.headers)
    assert (found.client_id, found.schedule_key) == (SCHEDULE.client_id, SCHEDULE.schedule_key)
    assert (found.schedule_time_ms, found.delivery_id) == (SCHEDULE.due_ms, SCHEDULE.delivery_id)
    assert found.traceparent == SCHEDULE.traceparent
    assert found.headers[:2] == (("a", b"1"), ("a", b"2"))
    assert found.dead_letter is None
    assert found.lateness_ms(sent.timestamp_ms) == 7


def test_a_dead_letter_says_why_it_is_one() -> None:
    failure = Failure(reason="topic_missing", attempts=3)
    sent = dead_letter_of(SCHEDULE, failure, topic="clockwork-dead-letters", now_ms=1)
    expected = DeadLetter(topic=SCHEDULE.topic, reason="topic_missing", attempts=3)
    assert delivery_of(sent.headers).dead_letter == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["missing", "no text"])
def test_what_is_no_delivery_is_told_with_the_header_that_is_wrong(name: str, damage: str) -> None:
    headers: list[tuple[str, bytes | None]] = [
        (n, b"\xff" if n == name else v) for n, v in record_of(SCHEDULE, now_ms=1).headers
    ]
    if damage == "missing":
        headers = [(n, v) for n, v in headers if n != name]
    with pytest.raises(NotADelivery, match=name):
        delivery_of(headers)


def test_a_record_without_headers_is_no_delivery() -> None:
    with pytest.raises(NotADelivery):
        delivery_of(None)


def _delivery(number: int) -> Delivery:
    headers = dict(record_of(SCHEDULE, now_ms=1).headers)
    return delivery_of(list((headers | {"clockwork-delivery-id": str(number).encode()}).items()))


def test_a_second_time_is_noticed_and_memory_is_bounded() -> None:
    duplicates = Duplicates(ids_max=3)
    assert [duplicates.seen(_delivery(i)) for i in (1, 2, 1, 3, 4)] == [False, False, True, False, False]
    assert len(duplicates) == 3
    # 1 was seen more lately than 2, so it is 2 that is forgotten.
    assert duplicates.seen(_delivery(1))
    assert not duplicates.seen(_delivery(2))


def test_what_could_not_be_processed_is_new_when_it_comes_again() -> None:
    duplicates = Duplicates()
    assert not duplicates.seen(_delivery(1))
    duplicates.forget(_delivery(1))
    assert not duplicates.seen(_delivery(1))
    with pytest.raises(ValueError, match="ids_max"):
        Duplicates(ids_max=0)
