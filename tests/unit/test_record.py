"""Records as a consumer receives them, and as they lie in the dead-letter topic."""

from clockwork.domain.destination import Topic
from clockwork.domain.record import OutRecord, dead_letter_of, dead_letter_of_broken, delivery_of
from clockwork.domain.run import Chain, RunId, RunKind, RunOfRow
from clockwork.domain.schedule import Failure, OrderingKey
from tests.support.builders import DUE_MS, broken_row, schedule

NOW_MS = DUE_MS + 3
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SCHEDULE = schedule(
    client_id="shop",
    schedule_key="reminder-7",
    ordering_key="customer-ü",
    topic="reminders",
    task_data=b"\x00\xff raw",
    headers=(("content-type", "text/plain"), ("note", "grün")),
    traceparent=TRACEPARENT,
    delivery_id="d-1",
)
HEADERS = (
    ("clockwork-client-id", b"shop"),
    ("clockwork-schedule-key", b"reminder-7"),
    ("clockwork-schedule-time", str(DUE_MS).encode()),
    ("clockwork-delivery-id", b"d-1"),
    ("content-type", b"text/plain"),
    ("note", "grün".encode()),
    ("traceparent", TRACEPARENT.encode()),
)


def test_a_record_carries_the_data_as_given_and_says_whose_it_is() -> None:
    record = delivery_of(SCHEDULE, now_ms=NOW_MS)

    assert record == OutRecord(
        topic="reminders",
        key="customer-ü".encode(),
        value=b"\x00\xff raw",
        headers=HEADERS,
        timestamp_ms=NOW_MS,
    )


def test_a_record_without_trace_or_own_headers_has_only_ours() -> None:
    record = delivery_of(schedule(), now_ms=NOW_MS)

    assert [name for name, _ in record.headers] == [
        "clockwork-client-id",
        "clockwork-schedule-key",
        "clockwork-schedule-time",
        "clockwork-delivery-id",
    ]


def test_every_attempt_bears_the_same_delivery_id() -> None:
    first = delivery_of(SCHEDULE, now_ms=NOW_MS)
    second = delivery_of(SCHEDULE, now_ms=NOW_MS + 60_000)

    assert first.headers == second.headers


def test_a_dead_letter_is_the_same_record_with_its_post_mortem() -> None:
    failure = Failure(reason="attempts_exhausted", attempts=8, last_refusal="record_too_large")

    letter = dead_letter_of(SCHEDULE, failure, topic="clockwork-dead-letters", now_ms=NOW_MS)

    assert letter == OutRecord(
        topic="clockwork-dead-letters",
        key="customer-ü".encode(),
        value=b"\x00\xff raw",
        headers=(
            *HEADERS,
            ("clockwork-topic", b"reminders"),
            ("clockwork-reason", b"attempts_exhausted"),
            ("clockwork-attempts", b"8"),
            ("clockwork-last-refusal", b"record_too_large"),
        ),
        timestamp_ms=NOW_MS,
    )


def test_the_dead_letter_of_an_unreadable_row_is_its_raw_item_and_all_that_is_known() -> None:
    row = broken_row(
        raw=b'{"x":1}', lane=(Topic("reminders"), OrderingKey("k")), client_id="shop", schedule_key="reminder-7"
    )

    letter = dead_letter_of_broken(row, Failure(reason="unreadable", attempts=0), topic="dead", now_ms=NOW_MS)

    assert letter == OutRecord(
        topic="dead",
        key=b"k",
        value=b'{"x":1}',
        headers=(
            ("clockwork-client-id", b"shop"),
            ("clockwork-schedule-key", b"reminder-7"),
            ("clockwork-schedule-time", str(DUE_MS).encode()),
            ("clockwork-topic", b"reminders"),
            ("clockwork-reason", b"unreadable"),
            ("clockwork-attempts", b"0"),
        ),
        timestamp_ms=NOW_MS,
    )


def test_the_dead_letter_of_a_row_without_a_readable_key_is_sent_all_the_same() -> None:
    letter = dead_letter_of_broken(broken_row(), Failure(reason="unreadable", attempts=0), topic="dead", now_ms=NOW_MS)

    assert letter.key is None
    assert dict(letter.headers)["clockwork-topic"] == b""
    assert "clockwork-client-id" not in dict(letter.headers)


def test_the_size_of_a_record_counts_key_value_and_headers_in_bytes() -> None:
    record = OutRecord(topic="t", key=b"12", value=b"345", headers=(("a", b"67"),), timestamp_ms=0)

    assert 2 + 3 + 3 <= record.size_bytes <= 2 + 3 + 3 + 64


def test_the_size_of_a_schedule_counts_bytes_and_not_letters() -> None:
    plain = schedule(headers=(("note", "aaaa"),))
    wide = schedule(headers=(("note", "€€€€"),))

    assert wide.size_bytes - plain.size_bytes == 8


def test_a_dead_letter_of_a_row_with_absurd_names_stays_small() -> None:
    # Its raw item may be 768 KB; with a key of 390 KB beside it the dead-letter topic would refuse it, for ever.
    row = broken_row(lane=(Topic("t" * 390_000), OrderingKey("k" * 390_000)), raw=b"r" * 768 * 1024)

    letter = dead_letter_of_broken(row, Failure(reason="unreadable", attempts=0), topic="dead", now_ms=NOW_MS)

    assert letter.key is None
    assert letter.size_bytes < 1_000_000


def test_a_run_of_a_job_says_which_it_is_and_until_when_it_is_to_be_completed() -> None:
    job = RunOfRow(
        rev=1,
        version=3,
        kind=RunKind.CATCH_UP,
        chain=Chain.MAIN,
        scheduled_at_ms=DUE_MS - 60_000,
        cursor_ms=DUE_MS,
        run_id=RunId("s7"),
        attempt=2,
        previous_at_ms=DUE_MS - 120_000,
        timeout_ms=5_000,
        priority=9,
    )
    expected = {
        "clockwork-schedule-key": b"reminder-7",
        "clockwork-schedule-time": str(DUE_MS).encode(),
        "clockwork-job-id": b"reminder-7",
        "clockwork-job-version": b"3",
        "clockwork-run-id": b"s7",
        "clockwork-run-kind": b"catch_up",
        "clockwork-run-attempt": b"2",
        "clockwork-scheduled-at": str(DUE_MS - 60_000).encode(),
        "clockwork-previous-at": str(DUE_MS - 120_000).encode(),
        "clockwork-run-until": str(NOW_MS + 5_000).encode(),
        "clockwork-priority": b"9",
    }

    headers = dict(delivery_of(SCHEDULE, now_ms=NOW_MS, job=job).headers)
    assert {name: headers.get(name) for name in expected} == expected
    failure = Failure(reason="record_too_large", attempts=8)
    letter = dict(dead_letter_of(SCHEDULE, failure, topic="dead", now_ms=NOW_MS, job=job).headers)
    assert {name: letter.get(name) for name in expected} == expected


def test_a_run_without_time_out_priority_or_fire_time_before_it_has_no_headers_of_these() -> None:
    job = RunOfRow(
        rev=1,
        version=1,
        kind=RunKind.MANUAL,
        chain=Chain.SIDE,
        scheduled_at_ms=DUE_MS,
        cursor_ms=DUE_MS,
        run_id=RunId("m1-0a1b2c3d"),
    )
    names = [name for name, _ in delivery_of(schedule(), now_ms=NOW_MS, job=job).headers]

    assert names[4:] == [
        "clockwork-job-id",
        "clockwork-job-version",
        "clockwork-run-id",
        "clockwork-run-kind",
        "clockwork-run-attempt",
        "clockwork-scheduled-at",
    ]
