"""`clockwork admin` against a node's HTTP service on the twins in memory."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import Result

from clockwork.domain.ownership import ProcessId
from clockwork.domain.registry import ProcessReport
from clockwork.settings.digests import digests_of
from clockwork.settings.model import RunnerSettings, Settings
from tests.support import builders
from tests.support.examples import PENDING
from tests.unit.client_stub import Stub, open_stub, results, run_command
from tests.unit.service import Service, open_service


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with open_service() as opened:
        yield opened


async def admin(service: Service | Stub, *arguments: str, code: int = 0, charset: str = "utf-8") -> Result:
    result = await run_command(service.url, "admin", *arguments, charset=charset)
    assert result.exit_code == code, result.output
    return result


async def test_what_is_paused_is_shown_until_it_is_resumed(service: Service) -> None:
    since_ms = service.engine.clock.now_ms()
    await admin(service, "pause", "client", "shop")
    shown = await admin(service, "pause", "topic", builders.TOPIC, "--reason", "[b]a move[/b]")
    for told_ in ("shop", builders.TOPIC, "anyone", "[b]a move[/b]"):
        assert told_ in shown.output
    told = json.loads((await admin(service, "pauses", "--json")).output)
    assert told == {
        "clients": [{"name": "shop", "since": since_ms, "by": "anyone"}],
        "topics": [{"name": builders.TOPIC, "since": since_ms, "by": "anyone", "reason": "[b]a move[/b]"}],
    }
    await admin(service, "resume", "client", "shop")
    assert json.loads((await admin(service, "pauses", "--json")).output)["clients"] == []


async def test_nodes_are_shown_with_their_troubles_and_the_settings_in_which_they_differ(service: Service) -> None:
    now_ms = service.engine.clock.now_ms()
    for letter, retention_ms, kafka in (("a", 3_600_000, None), ("b", 7_200_000, "no broker answers")):
        digests = digests_of(Settings(runner=RunnerSettings(retention_ms=retention_ms)))
        report = ProcessReport(
            process=ProcessId(letter * 16),
            seen_at_ms=now_ms - 4_000,
            node=f"host:{letter}",
            role="all",
            version="1.0",
            since_ms=now_ms - 60_000,
            kafka=kafka,
            settings=digests,
        )
        await service.engine.registry.put_report(report)
    shown = (await admin(service, "nodes")).output
    for text in ("host:a", "host:b", "no broker answers", "CLOCKWORK_RETENTION_MS differs: " + "a" * 16):
        assert text in shown
    told = json.loads((await admin(service, "nodes", "--json")).output)
    assert [each["process"] for each in told["nodes"]] == ["a" * 16, "b" * 16]


async def test_a_name_that_could_be_no_clients_is_refused(service: Service) -> None:
    refused = await admin(service, "pause", "client", "a b", code=3)
    assert "clientId: should be 1 to 128 of" in refused.output
    await admin(service, "pause", "shard", "3", code=2)


# --- output that cannot be shown as it is

LETTER = {
    "deadLetterTopic": "cw-dead-letters",
    "partition": 3,
    "offset": 7,
    "at": 1,
    "open": True,
    "clientId": "shop",
    "scheduleKey": "€",
    "deliveryId": "d",
    "topic": "orders",
    "reason": "€",
    "status": "failed",
    "version": 2,
    "value": "€😀",
}
SHARD = {"shard": 0, "owner": "€", "lagMs": 5}
FENCED = {"incarnation": "€", "node": "€", "fencedAt": 1, "frontier": 1, "shards": [0, 7]}
ANSWERS = {
    "/admin/dead-letters": {"deadLetters": [LETTER], "cursor": None},
    "/admin/dead-letters/3/7": LETTER,
    "/admin/dead-letters/discard": {"results": [{"status": 200}]},
    "/admin/shards": {"shards": [SHARD]},
    "/admin/jobs": {"jobs": [], "unreadable": 0, "uncovered": 0, "leftBehind": 0, "cursor": None},
    "/admin/shards/0/fence": FENCED,
    "/admin/pauses": {"clients": [{"name": "€", "since": 1}], "topics": []},
    "/admin/pauses/topics/t": {"clients": [{"name": "€", "since": 1}], "topics": []},
    "/admin/schedules": {
        "at": 7,
        "schedules": [{**PENDING, "scheduleKey": "€", "origin": {"position": "1.000000000000000000000001"}}],
        "unreadable": 0,
        "uncovered": 0,
        "cursor": None,
    },
}


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with open_stub() as opened:
        opened.will(lambda asked: (200, ANSWERS.get(asked.path.partition("?")[0], PENDING)))
        yield opened


@pytest.mark.parametrize(
    "words",
    [
        "pauses", "pause topic t", "resume topic t", "shards", "fence 0", "dead-letters list", "dead-letters show 3 7",
        "dead-letters retry 3 7", "dead-letters retry --all", "dead-letters discard 3 7", "dead-letters discard --all",
    ],
)  # fmt: skip
@pytest.mark.parametrize("charset", ["latin-1", "ascii"])
async def test_an_answer_that_the_terminal_cannot_show_is_shown_with_escapes(
    stub: Stub, words: str, charset: str
) -> None:
    assert (await admin(stub, *words.split(), charset=charset)).output
    if words in {"pauses", "pause topic t", "resume topic t", "shards", "fence 0", "dead-letters list"}:
        assert "€" in str(json.loads((await admin(stub, *words.split(), "--json", charset=charset)).output))


@pytest.mark.parametrize("options", [[], ["--client", "shop"]])
async def test_an_export_is_utf_8_whatever_the_terminal_is(stub: Stub, tmp_path: Path, options: list[str]) -> None:
    shown = (await admin(stub, "export", *options, "-", charset="latin-1")).stdout_bytes
    file = tmp_path / "pending.jsonl"
    await admin(stub, "export", *options, str(file), charset="latin-1")
    assert file.read_bytes() == shown
    assert json.loads(shown.decode().splitlines()[1])["scheduleKey"] == "€"
    assert os.listdir(tmp_path) == ["pending.jsonl"]


async def test_an_export_into_a_pipe_goes_through_it_and_into_an_import(stub: Stub) -> None:
    reading, writing = os.pipe()
    try:
        await admin(stub, "export", f"/dev/fd/{writing}")
        os.close(writing)
        writing = -1
        stub.asked.clear()
        stub.will((200, ANSWERS["/admin/pauses"]), results)
        await admin(stub, "import", "--from-running", f"/dev/fd/{reading}")
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)
    assert stub.asked[-1].body["schedules"][0]["scheduleKey"] == "€"


async def test_an_export_that_cannot_be_written_is_one_line_and_no_wrong_command_line(
    stub: Stub, tmp_path: Path
) -> None:
    failed = await admin(stub, "export", str(tmp_path / "no-folder" / "a.jsonl"), code=1)
    (line,) = failed.stderr.splitlines()
    assert line.startswith("clockwork: ")


async def test_an_export_is_imported_as_it_was_written(stub: Stub, tmp_path: Path) -> None:
    file = tmp_path / "pending.jsonl"
    await admin(stub, "export", str(file))
    stub.asked.clear()
    stub.will(results)
    imported = await admin(stub, "import", "--from-running", "--ignore-pauses", str(file))
    assert imported.output == "1 created, 0 there already, 0 rejected\n"
    (sent,) = stub.asked
    assert sent.body == {"exportedAt": 7, "schedules": [json.loads(file.read_bytes().splitlines()[1])]}


async def test_an_import_from_an_open_file_leaves_nothing_beside_it(stub: Stub, tmp_path: Path) -> None:
    file = tmp_path / "pending.jsonl"
    await admin(stub, "export", str(file))
    stub.will(results)
    with file.open("rb") as opened:
        told = await admin(stub, "import", "--from-running", "--ignore-pauses", f"/dev/fd/{opened.fileno()}")
    assert told.output == "1 created, 0 there already, 0 rejected\n", "and no word of progress that is not kept"
