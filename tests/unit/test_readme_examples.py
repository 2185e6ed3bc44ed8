"""The examples of the README and of its pages run as they stand there."""

import asyncio
import json
import re
import shlex
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from clockwork.cli.calendar import calendar
from clockwork.cli.job import job
from clockwork.client import After, AsyncClient, Completion
from clockwork.clock import SystemClock
from clockwork.domain.record import delivery_of
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.requests.results import Status
from tests.support import builders
from tests.unit.api_edge import open_edge
from tests.unit.client_stub import run_command
from tests.unit.service import open_service

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / name for name in ("http-api.md", "clients.md", "access.md", "operating.md")),
]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
ADDRESS = "http://127.0.0.1:8080"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


CALLS, JOB_CALLS, CONSUMER, WORK = blocks("python")
COMMANDS, JOB_COMMANDS = (
    next(block for block in blocks("sh") if block.startswith(f"clockwork {group} ")) for group in ("schedule", "job")
)
JOBS_FILE = re.findall(
    r"^```toml\n(.*?)^```", (ROOT / "docs" / "jobs-file.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
CREATE, MANY, CHANGE, JOBS = (block for block in blocks("sh") if block.startswith("curl"))


async def statuses(block: str, url: str) -> list[int]:
    """The status of each of its calls with curl."""
    script = re.sub(
        r"^curl ", "curl -s -o /dev/null -w '%{http_code} ' ", block.replace(ADDRESS, url), flags=re.MULTILINE
    )
    shell = await asyncio.create_subprocess_exec("sh", "-ec", script, stdout=asyncio.subprocess.PIPE)
    told, _ = await shell.communicate()
    assert shell.returncode == 0
    return [int(each) for each in told.split()]


@pytest.mark.skipif(shutil.which("curl") is None, reason="has no curl to try the examples with")
async def test_the_examples_with_curl_create_show_change_and_cancel_a_schedule() -> None:
    async with open_service() as service:
        engine = service.engine
        # The examples' time is the wall clock's.
        engine.clock.set_ms(SystemClock().now_ms())
        for topic in ("orderTopic", "otherTopic"):
            engine.kafka.create_topic(topic)
        assert await statuses(CREATE, service.url) == [201, 200, 200]
        cancelled = await engine.find(ClientId("shop"), ScheduleKey("order-1"))
        assert cancelled is not None
        assert cancelled.schedule is not None
        assert (cancelled.status, cancelled.schedule.ordering_key) == (Status.CANCELLED, "customer-7")
        assert await statuses(MANY, service.url) == [200, 200, 200, 200]
        assert {key[1]: p.version for key, p in engine.store.pointers.items()} == {"order-1": 2, "order-2": 1}
    async with open_service() as service, AsyncClient(service.url) as client:
        await client.create("shop", "order-1", at=timedelta(hours=1), topic=builders.TOPIC, data=1)
        service.engine.kafka.create_topic("otherTopic")
        # The last one is for what has failed.
        assert await statuses(CHANGE, service.url) == [200, 200, 409]
        await service.deliver()
        assert service.engine.arrived("otherTopic") == ["order-1"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="has no curl to try the examples with")
async def test_the_examples_with_curl_bring_a_job_from_its_creation_to_its_end() -> None:
    async with open_service() as service:
        service.engine.clock.set_ms(SystemClock().now_ms())
        service.engine.kafka.create_topic("orderTopic")
        assert await statuses(JOBS, service.url) == [201, 200, 200, 200, 200, 201, 200, 200, 201, 200]


async def run(command: str, url: str) -> tuple[int, list[str]]:
    """The exit code of a command that stands in a line of its own, and what was told in lines."""
    program, *arguments = shlex.split(command, comments=True)
    assert program == "clockwork"
    result = await run_command(url, *arguments, timeout_ms=30_000)
    return result.exit_code, result.stdout.splitlines()


async def test_the_examples_of_the_command_line_bring_a_schedule_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "orders.csv").write_text("scheduleKey,scheduleTime,taskData\norder-2,2030-01-31T12:00:00Z,x\n")
    told: dict[str, list[str]] = {}
    async with open_service() as service:
        service.engine.clock.set_ms(SystemClock().now_ms())
        service.engine.kafka.create_topic("orderTopic")
        for command in COMMANDS.splitlines():
            group, name = command.split()[1:3]
            name = name if group == "schedule" else group
            if name == "watch":
                await service.deliver()
            code, told[name] = await run(command, service.url)
            assert code == 0, command
    before_the_end = ["create", "reschedule", "load", "list", "fire"]
    looks = ["history", "why", "upcoming", "forecast", "events", "minutes", "clients"]
    assert list(told) == [*before_the_end, "watch", *looks]
    assert told["load"] == ["1 created, 0 there already, 0 rejected"]
    assert [json.loads(line)["scheduleKey"] for line in told["list"]] == ["order-1", "order-2"]
    (end,) = told["watch"]
    assert end.startswith("delivered ")
    assert sum("delivered" in line for line in told["history"]) == 1
    assert sum("superseded" in line for line in told["history"]) == 2
    assert any(line.startswith("reason        ended delivered") for line in told["why"])


async def test_the_examples_of_the_command_line_keep_a_job_and_a_file_of_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (file,) = JOBS_FILE
    (tmp_path / "jobs.toml").write_text(file)
    told: dict[str, list[str]] = {}
    async with open_service() as service:
        service.engine.clock.set_ms(SystemClock().now_ms())
        for topic in ("orderTopic", "reports"):
            service.engine.kafka.create_topic(topic)
        for command in JOB_COMMANDS.splitlines():
            group, name = command.split()[1:3]
            name = name if group == "job" else f"{group} {name}"
            if name == "logs":
                await service.deliver()
            code, told[name] = await run(command, service.url)
            assert code == 0, command
    of_calendars = {f"calendar {name}" for name in calendar.commands.keys() - {"show"}}
    assert told.keys() == (job.commands.keys() - {"backfill", "complete"}) | of_calendars
    assert len(told["preview"]) == 5
    assert sum("manual" in line for line in told["logs"]) == 1
    assert [json.loads(line)["jobId"] for line in told["list"]] == ["report"]
    assert [line.split() for line in told["apply"]] == [["created", "nightly-report"], ["created", "poll"]]


async def test_the_clients_example_of_a_job_runs(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_service() as service:
        service.engine.clock.set_ms(SystemClock().now_ms())
        service.engine.kafka.create_topic("orderTopic")
        await asyncio.to_thread(exec, JOB_CALLS.replace(ADDRESS, service.url), {})
    *times, found, run = capsys.readouterr().out.splitlines()
    assert len(times) == 3
    assert found == "['scheduled', 'manual']"
    assert run.startswith("may still be delivered: m")


async def test_the_clients_example_creates_and_cancels_a_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_edge() as edge:
        edge.engine.kafka.create_topic("orderTopic")
        code = CALLS.replace(ADDRESS, f"http://127.0.0.1:{edge.server.port}")
        assert code != CALLS
        await asyncio.to_thread(exec, code, {})
        assert edge.keys() == ["order-1"]
        new = await edge.stored()
    assert new.ordering_key == "customer-7"
    assert capsys.readouterr().out == f"pending {new.due_ms}\n"


def test_the_consumers_example_handles_each_delivery_once(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(CONSUMER, names)
    handle: Callable[[list[tuple[str, bytes]], bytes], None] = names["handle"]
    record = delivery_of(builders.schedule(), now_ms=1)
    for _ in range(2):
        handle(list(record.headers), record.value or b"")
    assert len(capsys.readouterr().out.splitlines()) == 1


async def test_the_example_of_a_consumer_of_a_job_completes_the_run() -> None:
    names: dict[str, Any] = {}
    exec(WORK, names)
    async with open_service() as service, AsyncClient(service.url, clock=service.engine.clock) as client:
        made = await client.create_job(
            *("shop", "j"),
            trigger=After(minutes=1),
            topic=builders.TOPIC,
            data=1,
            completion=Completion(timeout_ms=60_000),
        )
        assert made.next_run is not None
        await service.deliver()
        until_ms = service.engine.clock.now_ms() + 60_000
        named = {"client-id": "shop", "job-id": "j", "job-version": 1, "run-id": made.next_run.run_id}
        named |= {"run-kind": "scheduled", "run-attempt": 1, "scheduled-at": until_ms, "run-until": until_ms}
        headers = [(f"clockwork-{name}", str(value).encode()) for name, value in named.items()]
        await names["work_on"](client, headers, b"value")
        ended = await client.get_run("shop", "j", made.next_run.run_id)
    assert (ended.status, ended.result) == ("completed", {"bytes": 5})
