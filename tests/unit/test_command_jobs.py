"""Commands about jobs: each has its effect once, by the note at its job, and is answered if it wants a reply."""

from typing import Any

import pytest

from clockwork.domain.jobs.job import JobName, JobState, JobStatus
from clockwork.domain.rights import Principal, Right, names_of
from clockwork.domain.run import JobId
from clockwork.domain.schedule import ClientId
from clockwork.domain.sharding import ShardId
from clockwork.errors import StoreUnavailable
from tests.support import builders
from tests.support.engine import SHARDS
from tests.unit.command_desk import REPLIES, Desk
from tests.unit.test_job_schema import a_job

NAMED = {"clientId": "shop", "jobId": "report"}
NAME = JobName(ClientId("shop"), JobId("report"))


def job(**more: Any) -> dict[str, Any]:
    return a_job(delivery={"topic": builders.TOPIC}, **more)


async def state(desk: Desk) -> JobState | None:
    return await desk.engine.jobs.read_state(NAME)


async def test_a_job_is_made_changed_paused_resumed_run_and_deleted_by_commands() -> None:
    desk = Desk()
    desk.ask("createJob", job=job())
    desk.ask("updateJob", job={**NAMED, "priority": 3}, ifVersion=1)
    desk.ask("pauseJob", job={**NAMED, "note": "stop"})
    desk.ask("resumeJob", job=NAMED)
    desk.ask("runJob", job={**NAMED, "requestId": "r"})
    desk.ask("deleteJob", job=NAMED)
    await desk.settle()
    replies = [document for _, document, _ in desk.replies()]
    assert desk.statuses() == [201, 200, 200, 200, 201, 200]
    assert [each["job"]["status"] for each in replies if "job" in each] == [
        "active",
        "active",
        "paused",
        "active",
        "deleted",
    ]
    assert replies[4]["run"]["kind"] == "manual"
    assert replies[1]["job"]["priority"] == 3
    assert desk.metric("createJob", "done") == 1


@pytest.mark.parametrize("again", range(6))
async def test_commands_that_are_read_again_have_no_effect_any_more(again: int) -> None:
    # create, pause, resume, run, delete, and then a job of this name by HTTP: reading any of them again would change it.
    desk = Desk()
    desk.ask("createJob", job=job())
    desk.ask("pauseJob", job=NAMED)
    desk.ask("resumeJob", job=NAMED)
    desk.ask("runJob", job={**NAMED, "requestId": "r"})
    desk.ask("deleteJob", job=NAMED)
    await desk.settle()
    desk.ask("createJob", job=job(priority=1))
    await desk.settle()
    before = await state(desk)
    assert before is not None
    assert before.status is JobStatus.ACTIVE
    desk.read_again(again)
    await desk.settle()
    assert await state(desk) == before
    assert desk.statuses()[6:] == [200] * (6 - again)
    assert all(headers["clockwork-repeated"] == b"true" for _, _, headers in desk.replies()[6:])


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("createJob", {}),
        ("updateJob", {"priority": 5}),
        ("pauseJob", {}),
        ("deleteJob", {}),
        ("runJob", {"requestId": "r"}),
    ],
)
async def test_a_command_whose_answer_was_lost_has_its_effect_once_and_its_own_reply(command: str, more: Any) -> None:
    desk = Desk()
    if command != "createJob":
        desk.ask("createJob", replyTo=None, job=job())
        await desk.settle()
    real = desk.engine.jobs.change

    async def lose(change: Any) -> None:
        setattr(desk.engine.jobs, "change", real)  # noqa: B010  # a method, which types do not let us assign
        await real(change)
        raise StoreUnavailable(outcome_unknown=True)

    setattr(desk.engine.jobs, "change", lose)  # noqa: B010
    desk.ask(command, job=job() if command == "createJob" else {**NAMED, **more})
    await desk.settle()
    ((status, _, headers),) = desk.replies()
    found = await state(desk)
    assert found is not None
    assert (status, found.version, len(found.side_rows)) == (
        201 if command in ("createJob", "runJob") else 200,
        2 if command == "updateJob" else 1,
        1 if command == "runJob" else 0,
    )
    assert "clockwork-repeated" not in headers


async def test_what_cannot_be_done_is_answered_and_noted() -> None:
    desk = Desk()
    desk.ask("pauseJob", job=NAMED)
    desk.ask("createJob", job=job())
    desk.ask("createJob", job=job(priority=9))
    desk.ask("updateJob", job={**NAMED, "priority": 1}, ifVersion=7)
    await desk.settle()
    assert desk.statuses() == [404, 201, 409, 412]
    # The first was over when it was answered: it does not pause the job that was made since.
    desk.read_again()
    await desk.settle()
    found = await state(desk)
    assert found is not None
    assert (found.status, found.version) == (JobStatus.ACTIVE, 1)


@pytest.mark.parametrize(
    ("command", "document", "reason", "field"),
    [
        ("createJob", {"job": {}}, "command_invalid", "job.clientId"),
        ("createJob", {"job": job(completion={})}, "command_invalid", "job.completion.timeoutMs"),
        ("completeRun", {"run": {**NAMED, "attempt": 1}}, "command_invalid", "run.runId"),
        ("failRun", {"run": {**NAMED, "runId": "s1", "more": 1}}, "command_invalid", "run.more"),
        ("heartbeatRun", {"run": {**NAMED, "runId": "s1"}}, "command_invalid", "run.extendMs"),
        ("completeRun", {"job": {**NAMED, "runId": "s1"}}, "command_invalid", "job"),
        ("createJob", {"schedule": job()}, "command_invalid", "schedule"),
        ("updateJob", {"job": {**NAMED, "priority": 11}}, "command_invalid", "job.priority"),
        ("pauseJob", {"job": {**NAMED, "more": 1}}, "command_invalid", "job.more"),
        ("resumeJob", {"job": {**NAMED, "more": 1}}, "command_invalid", "job"),
        ("runJob", {"job": NAMED}, "command_invalid", "job.requestId"),
        ("runJob", {"job": {**NAMED, "requestId": "r"}, "ifVersion": 1}, "command_invalid", "ifVersion"),
        ("deleteJob", {"job": {**NAMED, "clientId": "bank"}}, "command_invalid", "job.clientId"),
        ("deleteJob", {"job": "report"}, "command_invalid", "job"),
        ("restoreJob", {"job": NAMED}, "command_unknown", "command"),
    ],
)
async def test_a_command_that_can_never_succeed_becomes_a_dead_letter_and_names_the_field(
    command: str, document: dict[str, Any], reason: str, field: str
) -> None:
    desk = Desk()
    desk.ask(command, **document)
    await desk.settle()
    ((status, problem, _),) = desk.replies()
    ((found, _, _),) = desk.dead()
    assert (status, found) == (400, reason)
    assert field in [each["field"] for each in problem["errors"]]


@pytest.mark.parametrize(
    ("command", "document", "fields"),
    [
        ("heartbeatRun", {"run": {"clientId": "shop", "runId": "x"}}, ["run.jobId", "run.runId", "run.extendMs"]),
        ("failRun", {"run": {**NAMED, "runId": "x", "error": "x" * 5_000}}, ["run.runId", "run.error"]),
        ("runJob", {"job": {"clientId": "shop", "more": 1}}, ["job.jobId", "job.requestId", "job.more"]),
        ("updateJob", {"job": {"clientId": "shop", "priority": 11}}, ["job.jobId", "job.priority"]),
        ("completeRun", {"run": 7}, ["run"]),
    ],
)
async def test_every_wrong_field_of_a_command_is_told_at_once(
    command: str, document: dict[str, Any], fields: list[str]
) -> None:
    desk = Desk()
    desk.ask(command, **document)
    await desk.settle()
    ((status, problem, _),) = desk.replies()
    assert (status, [each["field"] for each in problem["errors"]]) == (400, fields)


async def test_a_report_of_a_run_that_waits_for_its_lane_holds_up_no_command_behind_it() -> None:
    desk = Desk()
    asking = job(trigger={"type": "fixed_rate", "everyMs": 60_000}, completion={"timeoutMs": 300_000}, overlap="skip")
    desk.ask("createJob", job=asking)
    await desk.settle()
    made = await state(desk)
    assert made is not None
    assert made.armed is not None
    desk.engine.clock.set_ms(made.armed.due_ms + 60_000)
    desk.ask("completeRun", run={**NAMED, "runId": made.armed.run_id})
    desk.ask("pauseJob", job=NAMED)
    await desk.settle()
    assert desk.statuses() == [201, 409, 200]
    assert desk.replies()[1][1]["reason"] == "not_delivered"


async def test_commands_about_jobs_need_the_rights_of_the_calls() -> None:
    desk = Desk()
    desk.principal = Principal(
        name="p",
        clients=names_of(["shop"]),
        topics=names_of([builders.TOPIC, REPLIES]),
        rights=frozenset({Right.CREATE}),
    )
    desk.ask("createJob", job=job())
    desk.ask("pauseJob", job=NAMED)
    await desk.settle()
    assert desk.statuses() == [201, 403]
    assert [reason for reason, _, _ in desk.dead()] == ["command_forbidden"]


# --- reports about runs


async def delivered_run(desk: Desk, *, overlap: str = "skip") -> dict[str, Any]:
    """The name of a run that is delivered, and awaits its completion."""
    every_minute = {"type": "fixed_rate", "everyMs": 60_000}
    asking = job(trigger=every_minute, completion={"timeoutMs": 300_000}, overlap=overlap)
    desk.ask("createJob", replyTo=None, job=asking)
    await desk.settle()
    made = await state(desk)
    assert made is not None
    assert made.armed is not None
    desk.engine.clock.set_ms(made.armed.due_ms)
    for number in range(SHARDS):
        lease = await desk.engine.own(ShardId(number))
        await desk.engine.one_pass(lease)
        await lease.cleanup.finish()
    return {**NAMED, "runId": made.armed.run_id}


async def test_consumers_report_by_commands() -> None:
    desk = Desk()
    run = await delivered_run(desk)
    desk.ask("heartbeatRun", run={**run, "extendMs": 600_000})
    desk.ask("completeRun", run={**run, "result": {"rows": 7}})
    desk.ask("failRun", run={**run, "error": "x"})
    desk.ask("completeRun", run={**run, "runId": "s1"})
    await desk.settle()
    replies = [document for _, document, _ in desk.replies()]
    assert desk.statuses() == [200, 200, 409, 404]
    assert [each["run"]["status"] for each in replies[:2]] == ["running", "completed"]
    assert (replies[1]["run"]["result"], replies[2]["reason"]) == ({"rows": 7}, "completed")


@pytest.mark.parametrize("overlap", ["allow", "skip"])
async def test_a_completion_that_is_read_again_has_no_effect_any_more(overlap: str) -> None:
    desk = Desk()
    run = await delivered_run(desk, overlap=overlap)
    desk.ask("completeRun", run=run)
    await desk.settle()
    assert desk.statuses() == [200]
    before = await state(desk)
    desk.read_again(0)
    await desk.settle()
    assert await state(desk) == before
    assert desk.replies()[-1][2]["clockwork-repeated"] == b"true"


async def test_a_completion_whose_answer_was_lost_has_its_effect_once_and_its_own_reply() -> None:
    desk = Desk()
    run = await delivered_run(desk)
    real = desk.engine.jobs.change

    async def lose(change: Any) -> None:
        setattr(desk.engine.jobs, "change", real)  # noqa: B010
        await real(change)
        raise StoreUnavailable(outcome_unknown=True)

    setattr(desk.engine.jobs, "change", lose)  # noqa: B010
    desk.ask("completeRun", run=run)
    await desk.settle()
    ((status, document, headers),) = desk.replies()
    assert (status, document["run"]["status"]) == (200, "completed")
    assert "clockwork-repeated" not in headers
