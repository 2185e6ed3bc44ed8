"""`clockwork job apply` against the service on the twins: jobs become those of a file, and nothing else happens."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from clockwork.cli import apply as apply_
from clockwork.cli.jobs_file import JobsFile
from clockwork.client import AsyncClient, InvalidRequest
from clockwork.clock import SystemClock
from clockwork.schema import problems
from tests.support import builders
from tests.unit.client_stub import DROP, FAST, open_stub, run_command
from tests.unit.service import Service, open_service
from tests.unit.test_cli_job import JOB

FILE = f"""\
name = "shop-jobs"
clientId = "shop"

[defaults]
delivery.topic = "{builders.TOPIC}"

[jobs.poll]
trigger = {{ type = "fixed_rate", everyMs = 60000 }}
taskData = {{ url = "x" }}

[jobs.report]
trigger = {{ type = "cron", expression = "0 9 * * MON-FRI", timeZone = "Europe/Berlin", jitterMs = 5000 }}
taskData = "text"
description = "daily"
labels = {{ team = "web" }}
misfire = {{ policy = "fire_all", windowMs = 3600000 }}
priority = 3

[profiles.test]
triggers = false
"""


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with open_service() as opened:
        # A file is judged by the wall clock, as the command has no other.
        opened.engine.clock.set_ms(SystemClock().now_ms())
        yield opened


@pytest.fixture
async def client(service: Service) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(service.url, retries=FAST, clock=service.engine.clock) as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.toml"
    path.write_text(FILE)
    return path


async def apply(service: Service, file: Path, *options: str) -> Result:
    return await run_command(service.url, "job", "apply", str(file), *options, timeout_ms=30_000)


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def told(result: Result) -> list[str]:
    """Its lines, with single blanks."""
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


async def test_jobs_are_created_then_left_alone_then_changed_as_declared(
    service: Service, client: AsyncClient, file: Path
) -> None:
    result = await apply(service, file)
    assert (result.exit_code, told(result)) == (0, ["created poll", "created report"]), result.output
    report = await client.get_job("shop", "report")
    assert report.labels == {"team": "web", "jobs-file": "shop-jobs"}

    service.engine.clock.set_ms(service.engine.clock.now_ms() + 3)
    assert told(await apply(service, file)) == ["unchanged poll", "unchanged report"]
    assert await client.get_job("shop", "report") == report

    # A field that is taken out of the file has its default again.
    change(file, 'description = "daily"\n', "")
    change(file, 'misfire = { policy = "fire_all", windowMs = 3600000 }\n', "delivery.deadline = 9\n")
    change(file, "0 9 * *", "0 8 * *")
    change(file, '"text"', "{ day = 1 }")
    result = await apply(service, file)
    fields = "description, misfire, taskData, taskDataEncoding, trigger, delivery.deadline, delivery.onLate"
    assert told(result)[:2] == ["unchanged poll", f"changed report: {fields}"], result.output
    changed = await client.get_job("shop", "report")
    assert (changed.version, changed.description, changed.misfire.policy) == (2, None, "fire_once")
    assert (changed.task_data, changed.delivery.deadline_ms) == ({"day": 1}, 9)
    assert told(await apply(service, file)) == ["unchanged poll", "unchanged report"]


async def test_a_change_by_hand_is_undone_and_a_pause_is_not(service: Service, client: AsyncClient, file: Path) -> None:
    await apply(service, file)
    await client.pause_job("shop", "poll")
    await client.put_job("shop", "report", data=b"\xff", headers={"a": "b"}, priority=None)
    assert told(await apply(service, file)) == [
        "unchanged poll (paused)",
        "changed report: priority, taskData, taskDataEncoding, delivery.headers",
    ]
    assert (await client.get_job("shop", "report")).task_data == "text"
    assert (await client.get_job("shop", "poll")).status == "paused"


async def test_a_profile_without_triggers_leaves_jobs_to_be_run_by_hand(
    service: Service, client: AsyncClient, file: Path
) -> None:
    await apply(service, file)
    result = await apply(service, file, "--profile", "test")
    assert told(result) == ["changed poll: durable, trigger", "changed report: durable, trigger"], result.output
    found = await client.get_job("shop", "report")
    assert (found.trigger, found.next_run) == (None, None)
    assert told(await apply(service, file, "--profile", "test")) == ["unchanged poll", "unchanged report"]


async def test_a_dry_run_tells_everything_and_does_nothing(service: Service, client: AsyncClient, file: Path) -> None:
    assert told(await apply(service, file, "--dry-run")) == ["would create poll", "would create report"]
    assert [each async for each in client.list_jobs("shop")] == []
    await apply(service, file)
    change(file, "everyMs = 60000", "everyMs = 90000")
    change(file, "[jobs.report]", "[jobs.other]")
    result = await apply(service, file, "--dry-run", "--prune", "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(each["jobId"], each["action"], each["fields"]) for each in lines] == [
        *(("poll", "change", ["trigger"]), ("other", "create", []), ("report", "delete", []))
    ]
    assert {each.job_id async for each in client.list_jobs("shop")} == {"poll", "report"}


async def test_prune_deletes_the_files_own_jobs_alone_and_asks_before(
    service: Service, client: AsyncClient, file: Path
) -> None:
    await apply(service, file)
    for job_id, labels in (("free", {}), ("of another file", {"jobs-file": "others"})):
        await client.create_job("shop", job_id, topic=builders.TOPIC, data=1, durable=True, labels=labels)
    change(file, "[jobs.poll]", "[jobs.pull]")
    # Without an answer nothing is done, not even what is no delete.
    asked = await apply(service, file, "--prune")
    assert (asked.exit_code, told(asked)) == (1, [])
    assert "Delete poll?" in asked.stderr
    assert told(await apply(service, file)) == ["created pull", "unchanged report"]
    pruned = await apply(service, file, "--prune", "--yes")
    assert told(pruned) == ["unchanged pull", "unchanged report", "deleted poll"]
    left = {each.job_id async for each in client.list_jobs("shop")}
    assert left == {"pull", "report", "free", "of another file"}


async def test_a_deleted_job_that_is_declared_comes_back(service: Service, client: AsyncClient, file: Path) -> None:
    await apply(service, file)
    await client.put_job("shop", "report", data="other")
    # One is declared as when it was made, the other is not.
    for job_id in ("poll", "report"):
        await client.delete_job("shop", job_id)
    change(file, '"x"', '"y"')
    assert told(await apply(service, file)) == ["created poll", "created report"]
    assert (await client.get_job("shop", "report")).task_data == "text"
    assert (await client.get_job("shop", "poll")).task_data == {"url": "y"}
    assert told(await apply(service, file)) == ["unchanged poll", "unchanged report"]


async def test_a_job_that_is_refused_stops_no_other_but_the_prune(
    service: Service, client: AsyncClient, file: Path
) -> None:
    await apply(service, file)
    change(file, "[jobs.poll]", "[jobs.pull]\ndelivery.topic = 'none'")
    change(file, "priority = 3", "priority = 4")
    result = await apply(service, file, "--prune", "--yes")
    assert (result.exit_code, told(result)) == (3, ["changed report: priority"])
    refused, kept = result.stderr.splitlines()
    assert refused.startswith("pull: delivery.topic: ")
    assert kept == "poll: not deleted, because others were refused"
    assert (await client.get_job("shop", "poll")).status == "active"


async def test_a_change_that_another_request_makes_meanwhile_is_not_undone(
    service: Service, client: AsyncClient, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await apply(service, file)
    change(file, "priority = 3", "priority = 4")
    real, reads = service.engine.jobs.read_state, 0

    async def read_state(name: Any) -> Any:
        nonlocal reads
        reads += name.job_id == "report"
        if reads == 2:
            # Between the command's read and its PUT.
            monkeypatch.undo()
            await client.put_job("shop", "report", description="by another")
        return await real(name)

    monkeypatch.setattr(service.engine.jobs, "read_state", read_state)
    result = await apply(service, file)
    assert (result.exit_code, told(result)) == (5, ["unchanged poll"])
    assert result.stderr.startswith("report: Its version is 2")
    assert (await client.get_job("shop", "report")).priority == 3


async def test_a_wrong_file_is_told_whole_and_nothing_is_sent(file: Path) -> None:
    change(file, "everyMs = 60000", "everyMs = 5")
    change(file, "priority = 3", "priority = 30\ncolour = 1")
    async with open_stub() as stub:
        result = await run_command(stub.url, "job", "apply", str(file))
        assert (result.exit_code, stub.asked) == (2, [])
    first, second, third = result.stderr.splitlines()
    assert first.startswith(f"clockwork: {file}: line 8 [jobs.poll]: trigger.everyMs: ")
    assert second.startswith(f"clockwork: {file}: line 17 [jobs.report]: priority: ")
    assert third.startswith(f"clockwork: {file}: line 18 [jobs.report]: colour: ")


async def test_an_outcome_that_is_unknown_ends_the_command_at_its_job(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply_, "AT_ONCE", 1)
    async with open_stub() as stub:
        missing = problems.not_found("job-not-found", "no", "no")
        stub.will(missing, missing, DROP)
        result = await run_command(stub.url, "job", "apply", str(file))
    assert result.exit_code == 9
    assert result.stderr.splitlines()[0] == "stopped at poll; the same command again goes on from there"
    assert stub.lines == ["GET /jobs/shop/poll", "GET /jobs/shop/report", "POST /jobs"]


class Crossed:
    """In the place of the transport: answers the create of a job when those of all jobs behind it are answered."""

    def __init__(self, *job_ids: str, refused: str) -> None:
        self.answered = {job_id: asyncio.Event() for job_id in job_ids}
        self._refused = refused
        self.open = self.most_open = 0

    async def request(self, _method: str, _path: str, *, body: dict[str, Any]) -> dict[str, Any]:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        job_id, names = body["jobId"], list(self.answered)
        for later in names[names.index(job_id) + 1 :][: apply_.AT_ONCE - 1]:
            await self.answered[later].wait()
        self.answered[job_id].set()
        self.open -= 1
        if job_id == self._refused:
            raise InvalidRequest("no", status=400)
        return {**JOB, "jobId": job_id}


async def test_jobs_are_sent_side_by_side_and_told_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"job-{number}" for number in range(apply_.AT_ONCE)]
    transport: Any = Crossed(*names, refused="job-2")
    plan = [apply_.Step(job_id=name, action="create", body={"jobId": name}) for name in names]
    declared = JobsFile(name="crossed", client_id="shop", jobs={}, read_at_ms=0)
    assert await apply_.carry_out(transport, declared, plan, json_=False) == [3]
    assert transport.most_open == apply_.AT_ONCE
    out, err = capsys.readouterr()
    assert [line.split()[1] for line in out.splitlines()] == [name for name in names if name != "job-2"]
    assert err.startswith("job-2: ")


async def test_runs_in_flight_are_told(file: Path) -> None:
    run = {"status": "armed", "runId": "s1", "dueAt": 1}
    async with open_stub() as stub:
        stub.will((200, {**JOB, "jobId": "poll"}), (200, {**JOB, "inFlight": [run]}))
        result = await run_command(stub.url, "job", "apply", str(file))
    assert "s1 armed, due 1970-01-01T00:00:00.001Z: may still be delivered as before" in result.stdout
