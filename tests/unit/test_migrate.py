"""Rows of the first Clockwork as creates, and an import that continues after it was interrupted."""

import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clockwork.client import Result, Unavailable
from clockwork.client.errors import InvalidRequest
from infra.migrate import __main__ as command
from infra.migrate import first
from infra.migrate import transfer as transferring
from infra.migrate.first import LeftOut
from infra.migrate.transfer import Counts, Job, Key, transfer

DUE_MS = 1_800_000_000_000


def an_item(**changed: Any) -> dict[str, Any]:
    """As the first Clockwork stored it; a change to `...` leaves the attribute out."""
    item = {
        "partitionId": {"S": "7"},
        "scheduleTime": {"N": str(DUE_MS)},
        "clientId": {"S": "client1"},
        "scheduleKey": {"S": "order1-create"},
        "orderingKey": {"S": "order1"},
        "taskData": {"S": "payload"},
        "delivery": {"M": {"topic": {"S": "orderTopic"}}},
        "status": {"S": "PENDING"},
        "executionTime": {"N": "0"},
        "enqueTime": {"N": "1553629195570"},
        "version": {"N": "1"},
    }
    return {name: value for name, value in (item | changed).items() if value is not ...}


def read(item: dict[str, Any], *, due_from_ms: int = 0) -> first.Read:
    return first.read(item, due_from_ms=due_from_ms, guarantee=None)


def test_a_pending_row_is_the_create_that_it_was() -> None:
    assert read(an_item()).document == {
        "clientId": "client1",
        "scheduleKey": "order1-create",
        "orderingKey": "order1",
        "taskData": "payload",
        "delivery": {"topic": "orderTopic"},
        "scheduleTime": DUE_MS,
    }


@pytest.mark.parametrize("ordering_key", [..., {"S": ""}, {"NULL": True}])
def test_without_an_ordering_key_the_schedule_key_stands_in(ordering_key: Any) -> None:
    document = read(an_item(orderingKey=ordering_key)).document
    assert document is not None
    assert "orderingKey" not in document


@pytest.mark.parametrize("status", [..., {"S": "PENDING"}, {"S": "EXECUTING"}])
def test_what_is_not_confirmed_as_sent_is_imported(status: Any) -> None:
    assert read(an_item(status=status)).document is not None


@pytest.mark.parametrize("status", ["EXECUTED", "CANCELLED"])
def test_what_has_ended_is_left_out(status: str) -> None:
    assert read(an_item(status={"S": status})).left_out is LeftOut.ENDED


def test_what_is_due_earlier_stays_the_first_ones() -> None:
    assert read(an_item(), due_from_ms=DUE_MS + 1).left_out is LeftOut.NOT_YET_OURS
    assert read(an_item(), due_from_ms=DUE_MS).document is not None


@pytest.mark.parametrize("spelled", ["1800000000000", "1.8E12", "18E+11", "1800000000000.0"])
def test_a_time_is_read_however_it_is_spelled(spelled: str) -> None:
    document = read(an_item(scheduleTime={"N": spelled})).document
    assert document is not None
    assert document["scheduleTime"] == DUE_MS


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"clientId": ...}, "clientId: is missing"),
        ({"scheduleKey": {"N": "1"}}, "scheduleKey: is no text"),
        ({"taskData": {"M": {}}}, "taskData: is no text"),
        ({"delivery": {"S": "orderTopic"}}, "delivery: is no map"),
        ({"delivery": {"M": {}}}, "topic: is missing"),
        ({"scheduleTime": {"N": "1.5"}}, "scheduleTime: is no time in milliseconds"),
        ({"scheduleTime": {"N": "-1"}}, "scheduleTime: is no time in milliseconds"),
        ({"scheduleTime": {"N": "1E125"}}, "scheduleTime: is no time in milliseconds"),
        ({"scheduleTime": {"N": "1E999999999"}}, "scheduleTime: is no time in milliseconds"),
        ({"scheduleTime": {"S": "soon"}}, "scheduleTime: is no time in milliseconds"),
        ({"status": {"S": "LOST"}}, "status: 'LOST' is none that the first Clockwork wrote"),
    ],
)
def test_a_row_that_cannot_be_meant_says_what_is_wrong(changed: dict[str, Any], problem: str) -> None:
    found = read(an_item(**changed))
    assert (found.document, found.problem) == (None, problem)


class Pages:
    """Three pages, of two rows each."""

    def __init__(self) -> None:
        self.starts: list[Key | None] = []

    async def page(self, start: Key | None) -> tuple[Sequence[first.Item], Key | None]:
        self.starts.append(start)
        number = 0 if start is None else start["n"]
        items = [an_item(scheduleKey={"S": f"{number}-{nth}"}) for nth in range(2)]
        return items, {"n": number + 1} if number < 2 else None


class Service:
    """Answers each create as a test says; else it is created once and there ever after."""

    def __init__(self) -> None:
        self.accepted: list[str] = []
        self.errors: dict[str, list[Exception]] = {}

    async def create_many(self, schedules: Sequence[dict[str, Any]]) -> AsyncIterator[Result]:
        for index, document in enumerate(schedules):
            key = document["scheduleKey"]
            if self.errors.get(key):
                error: Any = self.errors[key].pop(0)
                yield Result(index=index, schedule=None, error=error, status=error.status or 0)
                continue
            status = 200 if key in self.accepted else 201
            self.accepted.append(key)
            yield Result(index=index, schedule=None, error=None, status=status)


@pytest.fixture
def lines() -> list[str]:
    return []


def a_job(folder: Path, *, dry_run: bool = False) -> Job:
    return Job(
        url="http://h",
        database="us-east-1",
        table="old",
        due_from_ms=0,
        guarantee=None,
        progress_file=folder / "progress",
        dry_run=dry_run,
    )


async def test_every_page_is_imported_and_at_the_end_nothing_is_noted(tmp_path: Path, lines: list[str]) -> None:
    service = Service()
    counts = await transfer(a_job(tmp_path), Pages(), service, lines.append)
    assert (counts.read, counts.created, counts.repeated) == (6, 6, 0)
    assert service.accepted == [f"{page}-{nth}" for page in range(3) for nth in range(2)]
    assert not os.listdir(tmp_path)
    assert lines[-1].startswith("6 rows read: 6 created")


async def test_a_second_import_changes_nothing(tmp_path: Path, lines: list[str]) -> None:
    service = Service()
    await transfer(a_job(tmp_path), Pages(), service, lines.append)
    counts = await transfer(a_job(tmp_path), Pages(), service, lines.append)
    assert (counts.created, counts.repeated) == (0, 6)


async def test_a_dry_run_creates_and_notes_nothing(tmp_path: Path, lines: list[str]) -> None:
    service = Service()
    counts = await transfer(a_job(tmp_path, dry_run=True), Pages(), service, lines.append)
    assert (counts.read, counts.created, service.accepted) == (6, 6, [])
    assert not os.listdir(tmp_path)


async def test_an_import_that_was_broken_off_goes_on_behind_the_last_settled_page(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transferring, "ROUND_WAIT_S", 0.0)
    service = Service()
    service.errors["1-0"] = [Unavailable("no answer")] * transferring.ROUNDS_MAX
    with pytest.raises(Unavailable):
        await transfer(a_job(tmp_path), Pages(), service, lines.append)
    pages = Pages()

    counts = await transfer(a_job(tmp_path), pages, service, lines.append)

    assert pages.starts == [{"n": 1}, {"n": 2}]
    assert (counts.read, counts.created, counts.repeated) == (6, 5, 1)


async def test_the_progress_of_another_import_does_not_count(tmp_path: Path, lines: list[str]) -> None:
    job = a_job(tmp_path)
    job.save_progress({"n": 2}, Counts(read=4))
    assert job.read_progress() == ({"n": 2}, Counts(read=4))
    others: list[dict[str, Any]] = [
        *({"table": "another"}, {"database": "eu-west-1"}, {"due_from_ms": 1}, {"url": "http://other"}),
        {"guarantee": "at_least_once"},
    ]
    for changed in others:
        assert replace(job, **changed).read_progress() == (None, Counts())
    job.progress_file.write_text("{")
    assert job.read_progress() == (None, Counts())
    assert (await transfer(job, Pages(), Service(), lines.append)).read == 6


async def test_progress_that_cannot_be_saved_is_one_warning(tmp_path: Path, lines: list[str]) -> None:
    job = replace(a_job(tmp_path), progress_file=tmp_path / "no-folder" / "progress")
    counts = await transfer(job, Pages(), Service(), lines.append)
    assert counts.created == 6
    assert len([line for line in lines if "progress is not kept" in line]) == 1


@pytest.mark.parametrize("time", ["9" * 5_000, "-1", "2030-01-01T00:00:00", "soon", "1e400"])
def test_a_time_that_is_none_is_a_wrong_command_line(time: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command.main(["first", "--table", "old", f"--due-from={time}"])
    assert end.value.code == 2
    assert "argument --due-from: " in capsys.readouterr().err


async def test_what_had_no_answer_is_sent_again_and_what_is_refused_is_told(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transferring, "ROUND_WAIT_S", 0.0)
    service = Service()
    service.errors["0-0"] = [Unavailable("busy"), Unavailable("busy")]
    service.errors["2-1"] = [InvalidRequest("delivery.topic: the topic does not exist", status=400)]

    counts = await transfer(a_job(tmp_path), Pages(), service, lines.append)

    assert (counts.created, counts.rejected) == (5, 1)
    assert [line for line in lines if line.startswith("rejected: ")] == [
        f"rejected: 7/{DUE_MS}: delivery.topic: the topic does not exist"
    ]
