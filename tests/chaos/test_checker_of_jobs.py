"""The checker sees what is wrong with the runs of jobs: each rule has a history that breaks it, and nothing else."""

from dataclasses import replace
from typing import Any

from tests.chaos.checker import Evidence, judge
from tests.chaos.healed_phase import Remains
from tests.chaos.history import Command, History
from tests.chaos.job_history import CalendarPut, Every, JobHistory
from tests.chaos.made_histories import asked as schedule
from tests.chaos.made_histories import record, seen
from tests.chaos.made_job_histories import BEGIN_MS, DATA, RATE, SKIP, answer, broken, entry, job, op, run, skip

TEN, ELEVEN, TWELVE, THIRTEEN = (BEGIN_MS + n * 1_000 for n in range(4))


def test_a_job_that_fires_each_second_is_acquitted() -> None:
    assert broken(job(), [run(TEN), run(ELEVEN), run(TWELVE)]) == set()


def test_each_run_comes_once() -> None:
    twice = [run(TEN), run(ELEVEN), run(ELEVEN, offset=12, late_ms=200), run(TWELVE, offset=13)]
    log = [entry(each) for each in (twice[0], twice[1], twice[3])]
    assert "runs that came twice" in broken(job(), twice, log)
    loose = job(guarantee="at_least_once")
    assert broken(loose, twice, log) == {"runs that came twice"}
    assert broken(loose, twice, log, unrest=[(ELEVEN, TWELVE)]) == set()


def test_a_fire_time_is_fired_or_skipped_once() -> None:
    records = [run(TEN), run(ELEVEN), run(THIRTEEN)]
    delivered = [entry(each) for each in records]
    assert broken(job(), records, [*delivered, skip(TWELVE, TWELVE, 1)]) == set()
    for wrong in ([skip(ELEVEN, TWELVE, 2)], [skip(TWELVE, TWELVE, 1), skip(TWELVE, TWELVE, 1)]):
        assert broken(job(), records, [*delivered, *wrong]) == {"fire times accounted for twice"}


def test_no_fire_time_is_left_out() -> None:
    assert broken(job(), [run(TEN), run(TWELVE)]) == {"fire times left out"}
    assert broken(job(), [run(ELEVEN), run(TWELVE)]) == {"fire times left out"}, "the first ones count"


def test_what_passes_before_a_resume_may_be_left_out_and_nothing_after_it() -> None:
    records = [run(TEN), run(THIRTEEN)]
    for received_ms, wrong in ((TWELVE + 10, set()), (ELEVEN + 990, {"fire times left out"})):
        operated = job(operated=True)
        operated.ops.append(op("pause", sent_ms=TEN + 100, received_ms=TEN + 150, state="paused"))
        operated.ops.append(op("resume", sent_ms=TEN + 900, received_ms=received_ms))
        assert broken(operated, records) == wrong
    # By a clock that is ahead so far.
    assert broken(operated, records, skew_ms=10) == set()


def test_a_resume_without_an_answer_may_be_carried_out_later() -> None:
    operated = job(operated=True)
    operated.ops.append(op("resume", sent_ms=TEN + 900))
    assert broken(operated, [run(TEN), run(THIRTEEN)]) == set()


def test_another_trigger_has_other_fire_times() -> None:
    changed = job(operated=True)
    new = op(
        "put", sent_ms=TEN + 100, received_ms=TEN + 150, version=2, every=Every(2_000), new_trigger=True, data=None
    )
    new.answer = answer(TEN + 100, TEN + 150, version=2, every=Every(2_000))
    changed.ops.append(new)
    later = [run(at_ms, version=2) for at_ms in (12_000, 14_000, 18_000)]
    assert broken(changed, [run(TEN), *later[:2]]) == set()
    assert broken(changed, [run(TEN), *later]) == {"fire times left out"}
    assert broken(changed, [run(TEN), run(ELEVEN, version=2), *later[:2]]) == {"records of nothing"}


def test_a_run_that_the_calendar_excludes_does_not_come_after_the_answer_that_says_so() -> None:
    records = [run(TEN), run(THIRTEEN)]
    closed = CalendarPut(closed=True, sent_ms=TEN + 400, answered_ms=TEN + 500)
    opened = CalendarPut(closed=False, sent_ms=TWELVE + 400, answered_ms=TWELVE + 500)

    def puts(*some: CalendarPut) -> JobHistory:
        return job(calendar_puts=list(some))

    assert broken(puts(closed, opened), records) == set()
    assert broken(puts(opened, opened), [*records, run(ELEVEN), run(TWELVE)]) == set()
    assert broken(puts(closed, opened), [run(TEN), run(ELEVEN), run(THIRTEEN)]) == {"runs that the calendar excludes"}
    behind = replace(closed, behind=frozenset({"j"}))
    assert broken(puts(behind, opened), [run(TEN), run(ELEVEN), run(THIRTEEN)]) == set()


def test_a_calendar_that_opens_leaves_out_no_fire_time_after_it() -> None:
    closed = CalendarPut(closed=True, sent_ms=TEN + 400, answered_ms=TEN + 500)
    opened = CalendarPut(closed=False, sent_ms=ELEVEN + 400, answered_ms=ELEVEN + 500)
    named = job(calendar_puts=[closed, opened])
    assert broken(named, [run(TEN), run(TWELVE), run(THIRTEEN)]) == set()
    assert broken(named, [run(TEN), run(THIRTEEN)]) == {"fire times left out"}


def test_a_skipped_entry_says_how_many_and_from_when_to_when() -> None:
    records = [run(TEN), run(THIRTEEN)]
    delivered = [entry(each) for each in records]
    assert broken(job(), records, [*delivered, skip(ELEVEN, TWELVE, 2)]) == set()
    wrong = {"skipped entries that are wrong"}
    assert broken(job(), records, [*delivered, skip(ELEVEN, TWELVE, 3)]) == wrong
    assert broken(job(), records, [*delivered, skip(ELEVEN - 1, TWELVE, 2)]) == wrong
    assert broken(job(), records, [*delivered, skip(ELEVEN, TWELVE, 2, "overlap")]) == wrong


def test_no_run_is_early() -> None:
    assert broken(job(), [run(TEN, late_ms=-300)]) == {"early"}
    assert broken(job(), [run(TEN, late_ms=-300)], ahead_ms=300) == set()
    assert broken(job(), [run(TEN, due_ms=TEN - 1)]) == {"early"}, "due before its fire time"


def test_a_fixed_delay_counts_from_the_end_of_the_run_before() -> None:
    delay: dict[str, Any] = {"trigger": {"type": "fixed_delay", "delayMs": 1_000}}
    for second_ms, wrong in ((TEN + 1_010, set()), (TEN + 1_009, {"early"})):
        delayed = job(body=delay)
        delayed.ops[0].answer = answer(9_400, 9_500, status=201, every=None)
        assert broken(delayed, [run(TEN), run(second_ms)]) == wrong
    for second_ms, wrong in ((TEN + 1_500, set()), (TEN + 1_499, {"early"})):
        asks = job(body=delay | {"completion": {"timeoutMs": 2_000}})
        asks.ops[0].answer = answer(9_400, 9_500, status=201, every=None)
        records = [run(TEN), run(second_ms)]
        log = [entry(records[0], "timed_out", finishedAt=TEN + 500), entry(records[1], "running")]
        assert wrong <= broken(asks, records, log) <= {*wrong, "answers to consumers that are not true"}


def test_a_job_with_a_fixed_delay_that_was_made_anew_need_not_wait_for_the_run_of_the_one_before() -> None:
    body = {"trigger": {"type": "fixed_delay", "delayMs": 1_000}, "completion": {"timeoutMs": 9_000}}
    anew = job(body=body, operated=True)
    anew.ops[0].answer = answer(9_400, 9_500, status=201, every=None)
    anew.ops.append(op("delete", sent_ms=TEN + 100, received_ms=TEN + 200, state="deleted"))
    anew.ops.append(
        op("create", sent_ms=TEN + 300, received_ms=TEN + 400, status=201, version=2, data=DATA, every=None)
    )
    records = [run(TEN), run(TEN + 1_400, offset=11, version=2)]
    log = [entry(records[0], "completed", finishedAt=THIRTEEN), entry(records[1], "running")]
    assert "early" not in broken(anew, records, log)


def test_runs_come_in_the_order_of_their_fire_times() -> None:
    records = [run(TEN, offset=1), run(ELEVEN, offset=3), run(TWELVE, offset=2, late_ms=-900)]
    assert broken(job(), records, ahead_ms=900) == {"out of order"}


def test_a_run_of_a_deleted_job_may_come_behind_those_of_the_one_in_its_place() -> None:
    anew = job(operated=True)
    anew.ops.append(
        op("delete", sent_ms=TEN + 1, received_ms=TEN + 2, state="deleted", in_flight=frozenset({("s10000", 1)}))
    )
    anew.ops.append(op("create", sent_ms=TEN + 3, received_ms=TEN + 4, status=201, version=2, data='{"put":1}'))
    records = [run(ELEVEN, offset=1, version=2, value='{"put":1}'), run(TEN, offset=2, late_ms=2_000)]
    assert broken(anew, records) == set()


def test_a_run_stands_behind_no_schedule_that_was_accepted_before_it_was_due() -> None:
    first = schedule(ordering_key="j", due_ms=9_000, accepted_ms=8_000)
    first.seen.append(seen("delivered", place=("t", 0, 20)))
    evidence = Evidence(
        history=History(asked={"a": first}),
        remains=Remains(records=[run(TEN), record(offset=20, at_ms=TEN + 50)], outcomes={"a": ["delivered"]}),
        jobs={"j": job()},
        ahead_ms=lambda at_ms: 0,
    )
    assert "out of order" in {name for name, cases in judge(evidence).items() if cases}


def test_a_run_is_as_its_version_has_it() -> None:
    assert broken(job(), [run(TEN, value='{"put":7}')]) == {"records of nothing"}
    assert broken(job(), [run(TEN), run(TEN + 500, offset=11)]) == {"records of nothing"}
    assert broken(job(), [run(TEN, job_id="other")], []) == {"records of nothing"}


def test_a_run_in_flight_at_a_change_of_the_trigger_may_be_delivered_as_a_later_change_has_it() -> None:
    put_ms, other = TEN + 500, Every(1_000, 300)
    flying = frozenset({(f"s{TEN + 500}", 1)})
    for in_flight, wrong in ((flying, set()), (frozenset[tuple[str, int]](), {"records of nothing"})):
        changed = job(operated=True)
        changed.ops[0].answer = answer(9_400, 9_500, status=201, every=Every(1_000, 500))
        told: dict[str, Any] = {"data": DATA, "new_trigger": True, "version": 2, "every": other, "in_flight": in_flight}
        changed.ops.append(op("put", sent_ms=put_ms, received_ms=put_ms + 50, **told))
        assert broken(changed, [run(TEN + 500, late_ms=900, version=2)]) == wrong


def test_a_run_by_hand_has_the_data_that_was_given_for_it() -> None:
    for value, wrong in (('{"own":1}', set()), ('{"put":0}', {"records of nothing"})):
        by_hand = job()
        by_hand.ops.append(op("run", sent_ms=TEN, received_ms=TEN + 5, status=201, run_id="m10000-1", data='{"own":1}'))
        record_ = run(TEN, run_id="m10000-1", kind="manual", value=value)
        assert broken(by_hand, [record_]) == wrong


def test_a_version_is_one_thing_that_somebody_asked_for() -> None:
    two = job()
    two.states.append(answer(TEN, TEN, data='{"put":0}', every=Every(2_000)))
    assert broken(two) == {"versions that are not true"}
    other = job()
    other.states.append(answer(TEN, TEN, version=2, data='{"put":9}'))
    assert broken(other) == {"versions that are not true"}


def test_a_job_that_was_accepted_is_known() -> None:
    assert broken(job(), state={}) == {"lost"}
    by_command = job(by_command=True)
    command = Command(number=0, kind="createJob", schedule_key="j", fate="committed", sent_ms=9_000)
    by_command.ops[0].answer, by_command.ops[0].command = None, command
    assert broken(by_command, state={}) == {"lost"}
    command.fate = "aborted"
    assert broken(by_command, state={}) == set()


def test_a_trigger_has_as_many_runs_as_it_says() -> None:
    for status, most, wrong in (("ended", 2, False), ("active", 3, False), ("ended", 3, True), ("active", 1, True)):
        bounded = job(body={"trigger": {**RATE, "maxRuns": most}})
        found = broken(bounded, [run(TEN), run(ELEVEN)], state={"status": status})
        assert found == ({"runs beyond the last one, or fewer"} if wrong else set()), (status, most)


def test_orphans_and_what_the_audit_had_to_mend_are_told() -> None:
    assert broken(job(), orphans=["j: no row"]) == {"orphans"}
    assert broken(job(), repaired=["node-1.log: job.repaired"]) == {"repaired by the audit"}


def test_a_run_that_waited_for_another_is_no_gap() -> None:
    waits = job(body={**SKIP, "overlap": "wait"})
    records = [run(TEN), run(ELEVEN, due_ms=TWELVE + 500)]
    log = [entry(records[0], "timed_out", finishedAt=TWELVE + 500), skip(TWELVE, TWELVE, 1, "overlap")]
    log += [entry(records[1], "running")]
    assert broken(waits, records, log) <= {"runs that did not come again"}
