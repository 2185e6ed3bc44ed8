"""The command line: what it sends, prints and ends with."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from clockwork.errors import FieldError
from clockwork.schema import problems
from clockwork.settings.sources import load_settings
from tests.support.examples import CANCELLED, DELIVERED, PAST, PENDING
from tests.unit.client_stub import Stub, open_stub, run_command

ROOT = Path(__file__).parents[2]
CREATE = ["schedule", "create", "shop", "order-1", "--topic", "orders"]
KEY = ["shop", "order-1"]
WRONG_JSON = ["1e400", "-1e400", "Infinity", "9" * 5_000, "9" * 30, "[" * 5_000, '{"a":1,"a":2}', '"\\ud800"']
WRONG_TIMES = [
    ["--in", "999999999999w"],
    ["--in", "999999999999d999999999999d"],
    ["--at", "9" * 5_000],
    ["--at", "1e400"],
    ["--at", "-1"],
]
WRONG_POLICIES = [
    ["--deadline", "999999999999w"],
    ["--retry-initial", "999999999999w"],
    ["--retry-max", "999999999999w"],
    ["--retry-factor", "nan"],
    ["--retry-factor", "1e400"],
    ["--retry-jitter", "inf"],
    ["--retry-jitter", "x"],
    ["--retry-attempts", "9" * 30],
    ["--retry-attempts", "9" * 5_000],
]
"""Options that no request can carry: each is named, and nothing is sent."""


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with open_stub() as opened:
        yield opened


async def run(stub: Stub, *arguments: str, env: dict[str, str] | None = None, charset: str = "utf-8") -> Result:
    return await run_command(stub.url, *arguments, env=env, charset=charset)


async def test_create_sends_what_was_asked_for_and_shows_it(stub: Stub) -> None:
    more = [
        "--at",
        "7",
        "--data",
        '{"a": 1}',
        "--ordering-key",
        "o",
        "--guarantee",
        "at_least_once",
        "--header",
        "a=b=c",
        *(
            "--deadline",
            "1m",
            "--on-late",
            "drop",
            "--retry-attempts",
            "3",
            "--retry-max",
            "2s",
            "--retry-jitter",
            "0.5",
        ),
    ]
    result = await run(stub, *CREATE, *more)
    assert (result.exit_code, stub.lines) == (0, ["POST /schedule"])
    assert stub.asked[0].headers["Authorization"] == "Bearer secret-key"
    assert stub.asked[0].body == {
        "clientId": "shop",
        "scheduleKey": "order-1",
        "scheduleTime": 7,
        "taskData": {"a": 1},
        "orderingKey": "o",
        "delivery": {
            "topic": "orders",
            "guarantee": "at_least_once",
            "headers": {"a": "b=c"},
            "deadline": 60_000,
            "onLate": "drop",
            "retry": {"attempts": 3, "maxMs": 2_000, "jitter": 0.5},
        },
    }
    assert "status        pending" in result.output


@pytest.mark.parametrize(
    ("options", "ms"),
    [
        (["--at", "2030-01-31T12:00:00+01:00"], 1_896_087_600_000),
        (["--in", "0s"], None),
        (["--in", "1h30m500ms"], None),
    ],
)
async def test_times_are_typed_in_the_usual_ways(stub: Stub, options: list[str], ms: int | None) -> None:
    result = await run(stub, *CREATE, *options, "--text", "x")
    assert result.exit_code == 0
    assert ms is None or stub.asked[0].body["scheduleTime"] == ms


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*CREATE, "--text", "x"], "--at or --in is required"),
        ([*CREATE, "--text", "x", "--in", "1m", "--at", "5"], "exclude each other"),
        ([*CREATE, "--in", "1 m", "--text", "x"], "should be like 15m"),
        ([*CREATE, "--at", "tomorrow", "--text", "x"], "RFC 3339"),
        ([*CREATE, "--in", "1m"], "--data, --text or --data-file is required"),
        ([*CREATE, "--in", "1m", "--data", "{"], "is not JSON"),
        ([*CREATE, "--in", "1m", "--data", "NaN"], "no JSON number"),
        ([*CREATE, "--in", "1m", "--text", "x", "--header", "a"], "NAME=VALUE"),
        (["--url", "localhost:8080", "schedule", "get", *KEY], "url: should be"),
        (["--url", "http://h?x=1", "schedule", "get", *KEY], "without a query"),
        (["schedule", "get", "shop", "\udcff"], "SCHEDULE_KEY"),
        ([*CREATE, "--in", "1m", "--text", "\udcff"], "--text"),
        ([*CREATE, "--in", "1m", "--text", "x", "--header", "a=\udcff"], "--header"),
        ([*CREATE, "--in", "1m", "--text", "x", "--header", "a=1", "--header", "a=2"], "--header"),
        (["admin", "pause", "topic", "\udcff"], "NAME"),
        (["admin", "dead-letters", "list", "--reason", "\udcff"], "--reason"),
        # Numbers that nothing can be done with.
        *(([*CREATE, "--in", "1m", "--data", data], "--data") for data in WRONG_JSON),
        *(([*CREATE, "--text", "x", *wrong], wrong[0]) for wrong in WRONG_TIMES),
        *(([*CREATE, "--in", "1m", "--text", "x", *wrong], wrong[0]) for wrong in WRONG_POLICIES),
        (["schedule", "fire", *KEY, "--if-version", "9" * 30], "--if-version"),
        (["schedule", "fire", *KEY, "--if-version", "-1"], "--if-version"),
        (["schedule", "list", "shop", "--limit", "9" * 30], "--limit"),
        (["schedule", "history", *KEY, "--limit", "9" * 5_000], "--limit"),
        (["schedule", "list", "shop", "--due-from", "9" * 5_000], "--due-from"),
        (["schedule", "watch", *KEY, "--every", "999999999w"], "--every"),
        (["--timeout-ms", "9" * 400, "schedule", "get", *KEY], "--timeout-ms"),
        (["admin", "fence", "9" * 5_000], "SHARD"),
    ],
)
async def test_a_wrong_command_line_ends_with_2_before_anything_is_sent(
    stub: Stub, arguments: list[str], said: str
) -> None:
    result = await run(stub, *arguments)
    assert (result.exit_code, stub.asked) == (2, [])
    (line,) = result.stderr.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (problems.invalid_input([FieldError("delivery.topic", "does not exist")]), 3),
        ((404, {}), 3),
        (problems.schedule_not_found(), 4),
        (problems.conflict("delivered", "It was delivered already.", DELIVERED), 5),
        ((412, {}), 5),
        (problems.conflict("in_flight", "x", PENDING), 6),
        ((401, {}), 7),
        ((403, {}), 7),
        ((429, {}), 8),
        (problems.unavailable("x"), 9),
    ],
)
async def test_the_exit_code_tells_the_outcome(stub: Stub, answer: Any, code: int) -> None:
    stub.will(answer)
    result = await run(stub, "schedule", "cancel", *KEY)
    assert result.exit_code == code
    assert result.output.startswith("clockwork: ")
    assert len(result.output.splitlines()) == 1


async def test_each_call_has_its_command(stub: Stub) -> None:
    for words in (["fire"], ["retry"], ["reschedule", "--topic", "t", "--if-version", "3"], ["get", "--json"]):
        result = await run(stub, "schedule", words[0], *KEY, *words[1:])
        assert result.exit_code == 0
    path = "/schedule/shop/order-1"
    assert stub.lines == [f"POST {path}/fire", f"POST {path}/retry", f"PUT {path}", f"GET {path}"]
    assert json.loads(result.output) == PENDING


@pytest.mark.parametrize(
    "words",
    [
        ["--json", "schedule", "get"],
        ["schedule", "--json", "get"],
        ["schedule", "get", "--json"],
        ["--json", "schedule", "show"],
    ],
    ids=" ".join,
)
async def test_json_may_stand_before_any_word_and_show_is_get(stub: Stub, words: list[str]) -> None:
    assert json.loads((await run(stub, *words, *KEY)).output) == PENDING


async def test_lists_are_tables_for_people_and_lines_for_programs(stub: Stub) -> None:
    # A key may look like the markup or the control codes that colour a table.
    page = {
        "schedules": [{**PENDING, "scheduleKey": "[red]\x1b[31m"}, DELIVERED, CANCELLED],
        "cursor": None,
        "lookedAt": 3,
    }
    stub.will((200, page))
    table = (await run(stub, "schedule", "list", "shop", "--due-from", "5")).output
    assert "[red]" in table
    assert "\x1b" not in table
    assert "11 ms late" in table
    lines = (await run(stub, "schedule", "list", "shop", "--json", "--limit", "2")).output.splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["pending", "delivered"]
    stub.will((200, {"schedules": [PAST], "cursor": None}))
    assert "delivered" in (await run(stub, "schedule", "history", *KEY)).output


@pytest.mark.parametrize(("end", "code"), [(DELIVERED, 0), (CANCELLED, 5)])
async def test_watching_tells_each_change_once_and_ends_with_the_schedule(
    stub: Stub, end: dict[str, Any], code: int
) -> None:
    stub.will((200, PENDING), (200, PENDING), (200, {**PENDING, "version": 2}), (200, end))
    result = await run(stub, "schedule", "watch", *KEY, "--every", "0s")
    assert result.exit_code == code
    assert [line.split()[0] for line in result.output.splitlines()] == ["pending", "pending", end["status"]]


# --- output that cannot be shown as it is

STRANGE = {**PENDING, "scheduleKey": "€", "taskData": {"a": "€😀\ud800"}}


@pytest.mark.parametrize("charset", ["latin-1", "ascii", "utf-8"])
@pytest.mark.parametrize("end", [["--json"], []])
@pytest.mark.parametrize(
    "words",
    [
        ["create", "--topic", "t", "--in", "1m", "--text", "€"],
        *(["get"], ["cancel"], ["fire"], ["retry"], ["reschedule", "--in", "1m"], ["list"], ["history"]),
    ],
    ids=lambda words: words[0],
)
async def test_an_answer_that_the_terminal_cannot_show_is_shown_with_escapes(
    stub: Stub, words: list[str], end: list[str], charset: str
) -> None:
    past = {name: value for name, value in STRANGE.items() if name not in {"shard"}} | {"endedAt": 1}
    pages = {"list": [STRANGE], "history": [past | {"status": "cancelled"}]}
    stub.will((200, {"schedules": pages[words[0]], "cursor": None, "lookedAt": 1} if words[0] in pages else STRANGE))
    key = ["shop"] if words[0] == "list" else ["shop", "€"]
    result = await run(stub, "schedule", words[0], *key, *words[1:], *end, charset=charset)
    assert result.exit_code == 0
    assert len(stub.asked) == 1
    if end:
        assert json.loads(result.stdout)["taskData"] == STRANGE["taskData"]
    elif charset == "latin-1":
        assert "\\u20ac" in result.stdout


async def test_a_failure_is_one_line_that_steers_no_terminal(stub: Stub) -> None:
    stub.will((409, {"title": "no", "detail": "a\nb\x1b[31m€"}))
    result = await run(stub, "schedule", "get", *KEY, charset="latin-1")
    assert (result.exit_code, result.stderr) == (5, "clockwork: a b\\x1b[31m\\u20ac\n")


async def test_output_that_cannot_be_written_is_one_line_and_no_wrong_command_line(stub: Stub) -> None:
    unwritable = os.open(os.devnull, os.O_RDONLY)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "clockwork", "--url", stub.url, "schedule", "get", *KEY,
            stdout=unwritable, stderr=asyncio.subprocess.PIPE, cwd=ROOT,
        )  # fmt: skip
        _, said = await process.communicate()
    finally:
        os.close(unwritable)
    assert process.returncode == 1
    (line,) = said.decode().splitlines()
    assert line.startswith("clockwork: ")


# --- around it


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_is_printed_for_each_shell(stub: Stub, shell: str) -> None:
    assert "_CLOCKWORK_COMPLETE" in (await run(stub, "completion", shell)).output


async def test_an_api_key_may_come_from_a_file(stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("other-key\n")
    await run(stub, "--api-key-file", str(tmp_path / "key"), "schedule", "get", *KEY)
    assert stub.asked[0].headers["Authorization"] == "Bearer other-key"


async def test_a_byte_order_mark_is_no_part_of_an_api_key(stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("other-key\r\n", encoding="utf-8-sig")
    await run(stub, "--api-key-file", str(tmp_path / "key"), "schedule", "get", *KEY)
    await run(stub, "schedule", "get", *KEY, env={"CLOCKWORK_API_KEY": "\ufeffother-key\r"})
    assert {each.headers["Authorization"] for each in stub.asked} == {"Bearer other-key"}


@pytest.mark.parametrize("content", [b"\xe9", "key".encode("utf-16")])
async def test_an_api_key_file_that_is_no_text_is_one_line_and_2(stub: Stub, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    result = await run(stub, "--api-key-file", str(tmp_path / "key"), "schedule", "get", *KEY)
    assert (result.exit_code, stub.asked) == (2, [])
    (line,) = result.stderr.splitlines()
    assert "--api-key-file" in line


@pytest.mark.parametrize("wrong", ["two words", "line\nbreak", "käse", "\x7f"])
async def test_an_api_key_that_fits_no_header_is_refused_without_being_shown(stub: Stub, wrong: str) -> None:
    result = await run(stub, "schedule", "get", *KEY, env={"CLOCKWORK_API_KEY": wrong})
    assert (result.exit_code, stub.asked) == (2, [])
    assert "api_key: should be" in result.output
    assert wrong not in result.output


def test_a_node_starts_with_the_variables_of_the_command_line_set() -> None:
    load_settings({"CLOCKWORK_URL": "http://x", "CLOCKWORK_API_KEY": "k"})
