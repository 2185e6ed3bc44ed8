"""The checker sees answers about jobs that were not kept, logs that are not true, and runs that overlap or do not come
again."""

from typing import Any

import pytest

from tests.chaos.job_history import OpKind, ReportKind
from tests.chaos.made_job_histories import BEGIN_MS, DATA, DELETED_MS, SKIP, broken, entry, job, op, report, run, skip

TEN, ELEVEN, TWELVE, THIRTEEN = (BEGIN_MS + n * 1_000 for n in range(4))
NOT_KEPT = {"answers that were not kept"}


def changed(kind: OpKind, **more: Any) -> Any:
    """A job of which something was answered between its first run and its second."""
    one = job(operated=True)
    one.ops.append(op(kind, sent_ms=TEN + 500, received_ms=TEN + 510, **more))
    return one


@pytest.mark.parametrize("kind", ["pause", "delete"])
def test_nothing_comes_after_an_answer_that_says_so(kind: OpKind) -> None:
    state = {"pause": "paused", "delete": "deleted"}[kind]
    assert broken(changed(kind, state=state), [run(TEN)]) == set()
    assert broken(changed(kind, state=state), [run(TEN), run(ELEVEN)]) == NOT_KEPT
    in_flight = frozenset({("s11000", 1)})
    assert broken(changed(kind, state=state, in_flight=in_flight), [run(TEN), run(ELEVEN)]) == set()
    assert broken(changed(kind, state=state, in_flight=in_flight), [run(TEN), run(ELEVEN), run(TWELVE)]) == NOT_KEPT


@pytest.mark.parametrize(("kind", "back"), [("pause", "resume"), ("delete", "restore"), ("delete", "create")])
def test_a_job_that_was_brought_back_goes_on(kind: OpKind, back: OpKind) -> None:
    one = changed(kind, state={"pause": "paused", "delete": "deleted"}[kind])
    one.ops.append(op(back, sent_ms=TEN + 700, received_ms=TEN + 710, data=DATA))
    assert broken(one, [run(TEN), run(ELEVEN)]) == set()


def test_runs_by_hand_go_on_beside_a_pause_and_end_with_a_delete() -> None:
    by_hand = run(ELEVEN, run_id="m11000-1", kind="manual")
    assert broken(changed("pause", state="paused"), [run(TEN), by_hand]) == set()
    assert broken(changed("delete", state="deleted"), [run(TEN), by_hand]) == NOT_KEPT


def test_nothing_of_a_version_before_comes_after_a_change() -> None:
    new = {"version": 2, "data": '{"put":1}'}
    assert broken(changed("put", **new), [run(TEN), run(ELEVEN, version=2, value='{"put":1}')]) == set()
    assert broken(changed("put", **new), [run(TEN), run(ELEVEN)]) == NOT_KEPT
    assert broken(changed("put", **new, in_flight=frozenset({("s11000", 1)})), [run(TEN), run(ELEVEN)]) == set()


def test_each_record_is_an_entry_and_each_entry_a_record() -> None:
    untrue = {"logs that are not true"}
    records = [run(TEN), run(ELEVEN)]
    assert broken(job(), records, [entry(records[0])]) == untrue
    assert broken(job(), records[:1], [entry(each) for each in records]) == untrue
    assert broken(job(), records, [entry(records[0]), entry(records[0]), entry(records[1])]) == untrue
    elsewhere = entry(run(ELEVEN, offset=99))
    assert broken(job(), records, [entry(records[0]), elsewhere]) == untrue
    armed = {"status": "armed", "runId": "s12000", "attempt": 1}
    assert broken(job(), records, [*map(entry, records), armed]) == untrue


def test_a_run_that_was_refused_is_a_dead_letter() -> None:
    letter = run(TEN, value="xx")
    failed = {"status": "failed", "runId": "s10000", "attempt": 1, "reason": "record_too_large", "finishedAt": TEN}
    refused = job(refused=True, body={"taskData": "xx"})
    for each in refused.ops:
        each.data = "xx"
        each.answer = None
    assert broken(refused, [], [failed], dead_letters=[letter]) == set()
    assert broken(refused, [], [failed]) == {"logs that are not true"}
    assert broken(job(), [], [failed], dead_letters=[run(TEN)]) == {"logs that are not true"}


def test_counts_are_those_of_the_log() -> None:
    counts = {"delivered": 1, "failed": 0, "skipped": 2}
    log = [entry(run(TEN)), skip(ELEVEN, TWELVE, 2)]
    assert broken(job(), [run(TEN)], log, state={"counts": counts}) == set()
    assert broken(job(), [run(TEN)], log, state={"counts": counts | {"skipped": 3}}) == {"logs that are not true"}


def test_a_run_that_was_accepted_comes() -> None:
    by_hand = run(TEN, run_id="m10000-1", kind="manual")
    for records, wrong in (([by_hand], set()), ([], {"accepted runs that did not come, or are two"})):
        asked = job()
        asked.ops.append(op("run", sent_ms=TEN, received_ms=TEN + 5, status=201, run_id="m10000-1"))
        assert broken(asked, records) == wrong
    deleted = job(operated=True)
    deleted.ops.append(op("run", sent_ms=TEN, received_ms=TEN + 5, status=201, run_id="m10000-1"))
    deleted.ops.append(op("delete", sent_ms=TEN + 10, received_ms=TEN + 20, state="deleted"))
    assert broken(deleted) == set()


def test_a_request_is_one_run() -> None:
    for second, wrong in (("m10000-1", set()), ("m10001-1", {"accepted runs that did not come, or are two"})):
        asked = job()
        for run_id in ("m10000-1", second):
            asked.ops.append(op("run", sent_ms=TEN, received_ms=TEN + 5, status=201, run_id=run_id, request_id="r"))
        records = [run(TEN + n, run_id=run_id, kind="manual") for n, run_id in enumerate({"m10000-1", second})]
        assert broken(asked, records) == wrong


def test_of_two_changes_at_once_one_may_tell_the_version_of_the_other() -> None:
    for paired, wrong in ((False, NOT_KEPT), (True, set())):
        one = changed("put", version=3, data='{"put":1}', paired=paired)
        one.ops.append(op("put", sent_ms=TEN + 500, received_ms=TEN + 505, version=2, data='{"put":0}', paired=paired))
        assert broken(one, [run(TEN), run(ELEVEN, version=2)]) == wrong


def test_a_backfill_runs_each_fire_time_that_it_asks_for() -> None:
    made = [run(at_ms, run_id=f"b{at_ms}-1", kind="backfill", due_ms=TEN, offset=at_ms) for at_ms in (2_000, 3_000)]
    for records, wrong in ((made, set()), (made[:1], {"accepted runs that did not come, or are two"})):
        asked = job()
        more = {"from_ms": 1_500, "to_ms": 9_000, "runs_max": 2}
        asked.ops.append(op("backfill", sent_ms=TEN, received_ms=TEN + 5, status=202, run_id="b2000-1", **more))
        assert broken(asked, records) == wrong


# --- completion


def exclusive(*reports: Any, **more: Any) -> Any:
    one = job(body=SKIP, **more)
    one.reports += reports
    return one


def test_no_run_is_delivered_while_another_is_open() -> None:
    first, second = run(TEN), run(ELEVEN)
    done = [report("complete", first, at_ms=TEN + 300), report("complete", second, at_ms=ELEVEN + 300)]
    ends = entry(second, "completed", finishedAt=ELEVEN + 300)
    in_time = [entry(first, "completed", finishedAt=TEN + 300), ends]
    assert broken(exclusive(*done), [first, second], in_time) == set()
    beside = [entry(first, "completed", finishedAt=ELEVEN + 200), ends]
    assert broken(exclusive(*done), [first, second], beside) == {"runs beside an open one"}


def test_a_run_whose_consumer_died_comes_again_and_the_log_tells_it() -> None:
    first = run(TEN)
    again = run(TEN, kind="retry", attempt=2, due_ms=TEN + 2_200, offset=11)
    timed_out = entry(first, "timed_out", finishedAt=TEN + 2_020)
    done = report("complete", again, at_ms=THIRTEEN)
    completed = entry(again, "completed", finishedAt=THIRTEEN)
    assert broken(exclusive(done), [first, again], [timed_out, completed]) == set()
    assert broken(exclusive(), [first], [timed_out]) == {"runs that did not come again"}
    untold = [entry(first, "completed", finishedAt=TEN + 500), completed]
    reported = [report("complete", first, at_ms=TEN + 500), done]
    assert broken(exclusive(*reported), [first, again], untold) == {"runs that did not come again"}
    third = run(TEN, kind="retry", attempt=3, due_ms=TEN + 4_500, offset=12)
    log = [timed_out, entry(again, "timed_out", finishedAt=TEN + 4_300), entry(third, "running")]
    assert broken(exclusive(), [first, again, third], log) == {"runs that did not come again"}, (
        "more than it has attempts"
    )


def test_a_run_that_timed_out_just_before_the_end_need_not_come_again() -> None:
    last = run(DELETED_MS - 5_000, late_ms=10)
    first = [run(at_ms) for at_ms in range(TEN, DELETED_MS - 5_000, 1_000)]
    asked = exclusive(*(report("complete", each, at_ms=each.timestamp_ms + 100) for each in first))
    log = [entry(each, "completed", finishedAt=each.timestamp_ms + 100) for each in first]
    log.append(entry(last, "timed_out", finishedAt=DELETED_MS - 2_000))
    assert broken(asked, [*first, last], log) == set()


def test_answers_to_consumers_are_borne_out_by_the_log() -> None:
    untrue = {"answers to consumers that are not true"}
    first = run(TEN)
    completed = entry(first, "completed", finishedAt=TEN + 300)
    cases: list[tuple[ReportKind, int, str | None, Any, bool]] = [
        ("complete", 200, None, completed, False),
        ("fail", 200, None, completed, True),
        ("complete", 409, "timed_out", completed, True),
        ("complete", 409, "completed", completed, False),
        ("complete", 409, "superseded", completed, True),
        ("complete", 409, "deleted", completed, True),
        ("complete", 409, "in_flight", completed, False),
    ]
    for kind, status, reason, log, wrong in cases:
        asked = exclusive(
            report("complete", first, at_ms=TEN + 300),
            report(kind, first, at_ms=TEN + 400, status=status, reason=reason),
        )
        assert broken(asked, [first], [log]) == (untrue if wrong else set()), (kind, status, reason)


def test_a_run_ends_as_somebody_said() -> None:
    first = run(TEN)
    for status in ("completed", "failed"):
        log = [entry(first, status, finishedAt=TEN + 300)]
        assert broken(exclusive(), [first], log) == {"answers to consumers that are not true"}


def test_no_run_is_timed_out_before_its_time() -> None:
    first = run(TEN)
    early = [entry(first, "timed_out", finishedAt=DELETED_MS - 9_000)]
    beat = report("heartbeat", first, at_ms=TEN + 500, until_ms=DELETED_MS)
    assert broken(exclusive(), [first], early) == set()
    assert broken(exclusive(beat), [first], early) == {"answers to consumers that are not true"}
    soon = [entry(first, "timed_out", finishedAt=TEN + 2_009)]
    assert "answers to consumers that are not true" in broken(exclusive(), [first], soon)
