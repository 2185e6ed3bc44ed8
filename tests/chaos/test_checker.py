"""The checker of chaos sees what it is there for: a judge that acquits everybody would be worth nothing."""

from typing import Any

from tests.chaos.disturbances import Kill
from tests.chaos.figures import takeovers_ms
from tests.chaos.history import ScheduleHistory
from tests.chaos.made_histories import DUE_MS, asked, broken, delivered, ended, record, seen


def test_a_run_in_which_all_is_well_is_acquitted() -> None:
    failed = ended("failed", "f", fate="refused")
    nobody = asked("n", accepted_ms=None)
    nobody.seen.append(seen("absent"))
    schedules = [delivered(), ended("cancelled", "c"), failed, nobody]
    assert broken(schedules, [record()], dead_letters=[record("f")]) == set()


def test_what_was_delivered_but_is_not_there_is_lost() -> None:
    assert "lost" in broken([delivered()])
    assert "lost" in broken([ended("failed", fate="refused")])


def test_what_was_accepted_and_is_unknown_now_is_lost() -> None:
    one = asked()
    one.seen.append(seen("absent"))
    assert {"lost", "states that went backwards"} <= broken([one])


def test_two_records_of_exactly_once_are_one_too_many() -> None:
    twice = [record(), record(offset=1)]
    assert broken([delivered()], twice) == {"duplicates (exactly_once)"}


def test_two_records_of_at_least_once_are_one_too_many_unless_something_was_broken_between_them() -> None:
    again = [record(at_ms=DUE_MS + 10), record(offset=1, at_ms=DUE_MS + 900)]
    one = [delivered(guarantee="at_least_once")]
    assert broken(one, again) == {"duplicates (at_least_once) that nothing explains"}
    assert broken(one, again, unrest=[(DUE_MS, DUE_MS + 50)]) == set()
    assert broken(one, again, unrest=[(DUE_MS + 901, DUE_MS + 950)]) != set(), "broken only afterwards"


def test_what_was_cancelled_or_failed_must_not_be_delivered() -> None:
    assert broken([ended("cancelled")], [record()]) == {"ended otherwise, and delivered"}
    failed = ended("failed", fate="refused")
    assert broken([failed], [record()], dead_letters=[record()]) == {"ended otherwise, and delivered"}
    assert broken([ended("failed")], dead_letters=[record()]) == {"failed wrongly"}
    assert broken([delivered()], [record()], dead_letters=[record()]) == {"ended otherwise, and delivered"}


def test_a_dead_letter_beside_the_record_is_wrong_but_for_at_least_once_whose_owner_died_in_between() -> None:
    letters = [record()]
    repeatable = delivered(guarantee="at_least_once")
    assert broken([repeatable], [record()], dead_letters=letters) == set()
    assert "ended otherwise, and delivered" in broken([repeatable], [], dead_letters=letters)
    assert broken([delivered()], [record()], dead_letters=letters) == {"ended otherwise, and delivered"}


def test_early_is_what_comes_before_its_time_by_more_than_a_clock_was_ahead() -> None:
    early = [record(at_ms=DUE_MS - 500)]
    assert broken([delivered()], early, ahead_ms=499) == {"early"}
    assert broken([delivered()], early, ahead_ms=500) == set()


def test_a_lanes_order_is_that_of_due_times_for_what_was_accepted_in_time() -> None:
    def swapped(**changed: Any) -> list[ScheduleHistory]:
        return [
            delivered("later", offset=0, due_ms=DUE_MS),
            delivered("sooner", offset=1, due_ms=DUE_MS - 1, **changed),
        ]

    records = [record("later", offset=0), record("sooner", offset=1)]
    assert broken(swapped(), records) == {"out of order"}
    assert broken(swapped(accepted_ms=DUE_MS), records) == set(), "accepted when both were due"
    assert broken(swapped(accepted_ms=DUE_MS - 100), records, skew_ms=100) == set()
    assert broken(swapped(ordering_key="another"), records) == set()


def test_of_equal_due_times_the_one_accepted_before_the_other_was_sent_comes_first() -> None:
    records = [record("second", offset=0), record("first", offset=1)]
    first = delivered("first", offset=1)
    assert broken([delivered("second", first_sent_ms=5_011, accepted_ms=5_020), first], records) == {"out of order"}
    assert broken([delivered("second", first_sent_ms=5_010, accepted_ms=5_020), first], records) == set()


def test_an_answer_must_name_the_place_of_the_record() -> None:
    assert broken([delivered(offset=7)], [record(offset=8)]) == {"said to be delivered elsewhere"}
    assert broken([delivered()], [record(at_ms=30_000)]) == {"said to be delivered elsewhere"}


def test_states_never_go_backwards_nor_does_an_end_change() -> None:
    one = ended("cancelled")
    one.seen.append(seen("pending", at_ms=19_000))
    assert broken([one]) == set(), "asked before"
    one.seen.append(seen("pending", at_ms=21_000))
    assert broken([one]) == {"states that went backwards"}
    other = ended("cancelled")
    other.seen.append(seen("delivered", at_ms=19_000, place=("t", 0, 0)))
    assert "states that went backwards" in broken([other])


def test_what_is_stored_is_what_was_answered_once() -> None:
    for stored in ([], ["cancelled"], ["delivered", "cancelled"]):
        assert broken([delivered()], [record()], outcomes={"a": stored}) == {"stored otherwise than answered"}


def test_a_record_that_nobody_asked_for_is_seen() -> None:
    assert broken([], [record("stranger")]) == {"records of nothing"}


def test_takeover_counts_from_the_kill_to_the_first_and_the_last_of_its_shards() -> None:
    kills = [Kill(at_ms=1_000, shards=frozenset({1, 2})), Kill(at_ms=9_000, shards=frozenset())]
    shard_of = {"a": 1, "b": 2, "c": 3}
    records = [
        record("a", at_ms=1_050),  # sent by the victim
        record("c", at_ms=1_200),  # of another node
        record("b", at_ms=3_000),
        record("b", at_ms=3_100),
        record("a", at_ms=3_500),
    ]
    assert takeovers_ms(kills, shard_of, records) == ([2_000], [2_500])
