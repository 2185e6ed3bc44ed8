"""The command line: what it sends, prints and ends with."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from clockwork.cli.commands import clockwork
from clockwork.errors import FieldError
from clockwork.http.openapi_parts import CANCELLED, DELIVERED, PAST, PENDING
from clockwork.schema import problems
from clockwork.settings.model import load_settings
from tests.unit.client_stub import Asked, Stub, open_stub, results

CREATE = ["schedule", "create", "shop", "order-1", "--topic", "orders"]
KEY = ["shop", "order-1"]
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with open_stub() as opened:
        yield opened


async def run(stub: Stub, *arguments: str, timeout_ms: int = 1, env: dict[str, str] | None = None) -> Result:
    """In a thread, since it waits for answers that this thread's loop gives."""
    environment = {"CLOCKWORK_URL": stub.url, "CLOCKWORK_API_KEY": "secret-key", "COLUMNS": "200", **(env or {})}
    given = ["--timeout-ms", str(timeout_ms), *arguments]
    result = await asyncio.to_thread(lambda: CliRunner().invoke(clockwork, given, env=environment))
    assert "secret-key" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


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
        (["schedule", "get", "shop", "\udcff"], "UTF-8"),
    ],
)
async def test_a_wrong_command_line_ends_with_2_before_anything_is_sent(
    stub: Stub, arguments: list[str], said: str
) -> None:
    result = await run(stub, *arguments)
    assert (result.exit_code, stub.asked) == (2, [])
    assert said in result.output


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


async def test_lists_are_tables_for_people_and_lines_for_programs(stub: Stub) -> None:
    # A key may look like the markup or the control codes that colour a table.
    page = {"schedules": [{**PENDING, "scheduleKey": "[red]\x1b[31m"}, DELIVERED, CANCELLED], "cursor": None}
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


# --- loading


def _lines(file: Path, count: int) -> None:
    rows = ({**PENDING_FIELDS, "scheduleKey": f"k{i}"} for i in range(count))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


PENDING_FIELDS = {"clientId": "shop", "scheduleTime": 5, "taskData": 1, "delivery": {"topic": "t"}}


async def test_a_load_sends_batches_and_leaves_nothing_behind(stub: Stub, tmp_path: Path) -> None:
    stub.will(results)
    _lines(tmp_path / "a.jsonl", 2_500)
    result = await run(stub, "schedule", "load", str(tmp_path / "a.jsonl"))
    assert result.output == "2500 created, 0 there already, 0 rejected\n"
    assert [len(each.body["schedules"]) for each in stub.asked] == [1_000, 1_000, 500]
    assert _names(tmp_path) == ["a.jsonl"]


async def test_a_load_that_was_broken_off_goes_on_where_it_was(stub: Stub, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    _lines(file, 2_500)
    stub.will(results, problems.unavailable("down"))
    broken = await run(stub, "schedule", "load", str(file))
    assert broken.exit_code == 9
    assert "1000 created" in broken.output
    stub.asked.clear()
    stub.will(results)
    result = await run(stub, "schedule", "load", str(file))
    assert result.output == "1500 created, 0 there already, 0 rejected, 1000 settled before\n"
    assert stub.asked[0].body["schedules"][0]["scheduleKey"] == "k1000"


async def test_a_row_without_an_answer_is_not_counted_as_settled(stub: Stub, tmp_path: Path) -> None:
    def one_is_down(asked: Asked) -> tuple[int, Any]:
        status, document = results(asked)
        document["results"][-1] = problems.unavailable("down").document()
        return status, document

    _lines(tmp_path / "a.jsonl", 10)
    stub.will(one_is_down)
    assert (await run(stub, "schedule", "load", str(tmp_path / "a.jsonl"))).exit_code == 9
    stub.will(results)
    assert "settled before" not in (await run(stub, "schedule", "load", str(tmp_path / "a.jsonl"))).output


async def test_a_file_that_has_changed_or_another_service_is_loaded_from_the_start(stub: Stub, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    _lines(file, 1_500)
    stub.will(results, problems.unavailable("down"))
    await run(stub, "schedule", "load", str(file))
    _lines(file, 1_400)
    stub.will(results)
    assert (await run(stub, "schedule", "load", str(file))).output.startswith("1400 created")


async def test_rejected_rows_are_named_and_the_others_are_loaded(stub: Stub, tmp_path: Path) -> None:
    def second_is_taken(asked: Asked) -> tuple[int, Any]:
        status, document = results(asked)
        document["results"][1] = problems.conflict("pending", "Another is pending.", PENDING).document()
        return status, document

    (tmp_path / "a.csv").write_text(
        "scheduleKey,scheduleTime,taskData,orderingKey,deadline,header.x\n"
        'a,5,"{""n"":1}",,60000,1\n'
        "b,5,not json,o,,\n"
        "c,5\n"
        "d,2030-01-31T12:00:00Z,7,,,\n",
        encoding="utf-8",
    )
    stub.will(second_is_taken)
    given = [str(tmp_path / "a.csv"), "--client-id", "shop", "--topic", "t", "--json-data"]
    result = await run(stub, "schedule", "load", *given, "--rejected", str(tmp_path / "no.txt"))
    assert result.exit_code == 5
    assert result.output == "1 created, 0 there already, 3 rejected\n"
    assert [line.split(":")[0] for line in (tmp_path / "no.txt").read_text().splitlines()] == [
        "row 2",
        "row 3",
        "row 4",
    ]
    assert stub.asked[0].body["schedules"] == [
        {"clientId": "shop", "scheduleKey": "a", "scheduleTime": 5, "taskData": {"n": 1}}
        | {"delivery": {"topic": "t", "deadline": 60_000, "headers": {"x": "1"}}},
        {"clientId": "shop", "scheduleKey": "d", "scheduleTime": "2030-01-31T12:00:00Z", "taskData": 7}
        | {"delivery": {"topic": "t"}},
    ]


# --- around it


@pytest.mark.parametrize("words", [[], ["schedule"], ["schedule", "create"], ["schedule", "load"]])
async def test_help_shows_examples_or_exit_codes(stub: Stub, words: list[str]) -> None:
    result = await run(stub, *words, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.output or "Exit codes:" in result.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_is_printed_for_each_shell(stub: Stub, shell: str) -> None:
    assert "_CLOCKWORK_COMPLETE" in (await run(stub, "completion", shell)).output


async def test_an_api_key_may_come_from_a_file(stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("other-key\n")
    await run(stub, "--api-key-file", str(tmp_path / "key"), "schedule", "get", *KEY)
    assert stub.asked[0].headers["Authorization"] == "Bearer other-key"


@pytest.mark.parametrize("wrong", ["two words", "line\nbreak", "käse", "\x7f"])
async def test_an_api_key_that_fits_no_header_is_refused_without_being_shown(stub: Stub, wrong: str) -> None:
    result = await run(stub, "schedule", "get", *KEY, env={"CLOCKWORK_API_KEY": wrong})
    assert (result.exit_code, stub.asked) == (2, [])
    assert "api_key: should be" in result.output
    assert wrong not in result.output


def test_a_node_starts_beside_the_command_lines_names() -> None:
    load_settings({"CLOCKWORK_URL": "http://x", "CLOCKWORK_API_KEY": "k"})


def test_client_and_command_line_open_none_of_the_services_libraries() -> None:
    script = (
        "import sys, clockwork.client, clockwork.cli.commands\n"
        "heavy = {'aiokafka', 'aiobotocore', 'botocore', 'prometheus_client'}\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in heavy or m.startswith('clockwork.firing')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def test_run_is_handed_on_to_the_node_with_its_exit_code() -> None:
    script = (
        "import sys; sys.argv = ['clockwork', 'run', '--role', 'none']; import clockwork.cli as c; sys.exit(c.main())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert "--role" in done.stderr


def test_missing_packages_are_one_line_that_says_what_to_install() -> None:
    script = "import sys; sys.modules['click'] = None; import clockwork.cli as c; sys.exit(c.main())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "[cli]" in done.stderr
