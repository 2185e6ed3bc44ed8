"""The jobs of a load: valid, equal for equal seeds, and firing when the checker's arithmetic says."""

import json

from clockwork.domain.triggers.exclusions import exclusion
from clockwork.schema.job import read_job
from tests.chaos.history import CORRELATION_ID, Command, History
from tests.chaos.job_history import CALENDAR, JobHistory, JobOp, note_reply
from tests.chaos.job_plan import draw_job
from tests.support.nodes import now_ms
from tests.support.reader import Arrived

NUMBERS = range(150)
TIMES = 5


def drawn(number: int, seed: int = 7) -> JobHistory:
    return draw_job(seed, number, client_id="shop", topic="orders", lane="lane-1")


def test_the_fire_times_of_all_jobs_are_those_of_the_checkers_arithmetic() -> None:
    now = now_ms()
    for number in NUMBERS:
        asked = drawn(number)
        new = read_job(asked.body, cluster="c", now_ms=now, traceparent=None)
        assert new.trigger is not None
        trigger = new.trigger.resolved({CALENDAR: exclusion()}) if asked.names_calendar else new.trigger
        assert new.exclusive is asked.exclusive
        if asked.every is None:
            assert asked.delay_ms is not None
            continue
        at_ms, times = now, []
        for _ in range(TIMES):
            at_ms = trigger.next_after(at_ms) or 0
            times.append(at_ms)
        assert times == list(asked.every.between(now + 1, times[-1])), asked.body["trigger"]


def test_equal_seeds_draw_equal_jobs_and_some_are_of_each_kind() -> None:
    jobs = [drawn(number) for number in NUMBERS]
    assert [job.body["misfire"] for job in jobs] == [drawn(number).body["misfire"] for number in NUMBERS]
    assert {job.body["trigger"]["type"] for job in jobs} == {"cron", "rrule", "fixed_rate", "fixed_delay"}
    assert {job.body["misfire"]["policy"] for job in jobs} == {"fire_all", "fire_once", "skip"}
    assert {job.body.get("overlap") for job in jobs} == {None, "skip", "wait"}
    assert any(job.retried("timed_out") and job.attempts > 1 for job in jobs)
    assert any(job.refused for job in jobs)
    assert any(job.by_command for job in jobs)
    assert any(job.names_calendar for job in jobs)


def test_the_answer_to_a_command_about_a_job_is_taken_as_that_of_a_request() -> None:
    history, asked = History(), drawn(0)
    op = JobOp(kind="pause")
    op.command = Command(number=0, kind="pauseJob", schedule_key=asked.job_id, fate="committed", sent_ms=5)
    op.command.takes = lambda document, at_ms, repeated: note_reply(
        asked,
        op,
        Command(number=0, kind="pauseJob", schedule_key="", sent_ms=5),
        document,
        received_ms=at_ms,
        repeated=False,
    )
    history.commands.append(op.command)
    flying = {"runId": "s1", "attempt": 2}
    job = {**asked.body, "version": 3, "status": "paused", "inFlight": [flying]}
    value = json.dumps({"status": 200, "job": job}).encode()
    history.note_reply(
        Arrived(
            topic="replies",
            kafka_partition=0,
            offset=0,
            key=None,
            value=value,
            headers=((CORRELATION_ID, b"0"),),
            timestamp_ms=9,
            timestamp_of_broker=True,
        )
    )
    assert op.answer is not None
    assert (op.answer.state, op.answer.version, op.answer.in_flight) == ("paused", 3, frozenset({("s1", 2)}))
    assert (history.improper, asked.states, op.command.answered_ms) == ([], [op.answer], 9)
