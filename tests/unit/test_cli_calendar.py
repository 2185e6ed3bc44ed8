"""`clockwork calendar …`, and the options of a job that name one: what they send, print and end with."""

import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from clockwork.schema.problems import Problem
from tests.unit.client_stub import Stub, open_stub, run_command

PATH = "/calendars/shop/de"
CALENDAR: dict[str, Any] = {
    "clientId": "shop",
    "name": "de",
    "annual": ["12-25"],
    "weekdays": ["SUN"],
    "version": 2,
    "createdAt": 1,
    "updatedAt": 1_795_248_000_000,
}


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with open_stub() as opened:
        opened.will((200, CALENDAR))
        yield opened


async def test_a_calendar_is_put_with_its_entries_and_shown(stub: Stub) -> None:
    stub.will((200, {**CALENDAR, "behind": ["report", "\x1b[31m"], "moreBehind": True}))
    given = [
        "--date",
        "2030-04-19",
        "--annual",
        "12-25",
        "--annual",
        "12-26",
        "--weekday",
        "sun",
        "--cron",
        "* 0-7 * * *",
    ]
    result = await run_command(
        stub.url, "calendar", "put", "shop", "de", *given, "--description", "Feiertage", "--if-version", "1"
    )

    assert result.exit_code == 0
    (asked,) = stub.asked
    assert (asked.method, asked.path, asked.headers["If-Match"]) == ("PUT", PATH, '"1"')
    assert asked.body == {
        "dates": ["2030-04-19"],
        "annual": ["12-25", "12-26"],
        "weekdays": ["SUN"],
        "cron": ["* 0-7 * * *"],
        "description": "Feiertage",
    }
    assert result.output.splitlines() == [
        "calendar      shop de",
        "each year     12-25",
        "weekdays      SUN",
        "version       2, 2026-11-21T08:00:00.000Z",
        'behind        "report, \\u001b[31m and others"',
    ]


async def test_a_calendar_is_put_from_a_file(stub: Stub, tmp_path: Path) -> None:
    file = tmp_path / "de.json"
    file.write_text(json.dumps({"annual": ["12-25"], "description": "Feiertage"}))
    result = await run_command(stub.url, "calendar", "put", "shop", "de", "--file", str(file), "--json")

    assert (result.exit_code, json.loads(result.output)["name"]) == (0, "de")
    assert stub.asked[0].body == {"annual": ["12-25"], "description": "Feiertage"}


@pytest.mark.parametrize(
    "content", ['{"days": []}', '{"dates": "2030-04-19"}', '{"cron": [1]}', '{"description": 1}', "[]"]
)
async def test_a_file_that_is_no_calendar_is_refused_before_anything_is_sent(
    stub: Stub, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "de.json"
    file.write_text(content)
    result = await run_command(stub.url, "calendar", "put", "shop", "de", "--file", str(file))

    assert (result.exit_code, stub.asked) == (2, [])


async def test_a_file_excludes_entries_of_the_command_line(stub: Stub, tmp_path: Path) -> None:
    file = tmp_path / "de.json"
    file.write_text("{}")
    result = await run_command(stub.url, "calendar", "put", "shop", "de", "--file", str(file), "--weekday", "SUN")

    assert (result.exit_code, stub.asked) == (2, [])


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["show", "shop", "de"], f"GET {PATH}"),
        (["delete", "shop", "de"], f"DELETE {PATH}"),
        (["list", "shop"], "GET /calendars?clientId=shop&limit=100"),
    ],
)
async def test_calendars_are_shown_listed_and_deleted(stub: Stub, words: list[str], asked: str) -> None:
    if words[0] == "list":
        stub.will((200, {"calendars": [CALENDAR], "cursor": None}))
    for more in ([], ["--json"]):
        result = await run_command(stub.url, "calendar", *words, *more)
        assert result.exit_code == 0
        assert "de" in result.output
    assert stub.lines == [asked, asked]


async def test_a_calendar_in_use_ends_with_the_code_of_a_conflict_and_names_the_jobs(stub: Stub) -> None:
    problem = Problem(status=HTTPStatus.CONFLICT, kind="calendar-in-use", title="In use", detail="report goes by it.")
    stub.will(problem)
    result = await run_command(stub.url, "calendar", "delete", "shop", "de")

    assert (result.exit_code, "report goes by it." in result.output) == (5, True)


async def test_a_preview_may_name_a_calendar_and_its_client(stub: Stub) -> None:
    stub.will((200, {"times": []}))
    options = ["--calendar", "de", "--on-excluded", "next", "--client", "shop"]
    result = await run_command(stub.url, "job", "preview", "0 9 * * *", *options)

    assert result.exit_code == 0
    assert stub.asked[0].body == {
        "clientId": "shop",
        "count": 10,
        "trigger": {
            "type": "cron",
            "expression": "0 9 * * *",
            "exclude": {"calendar": "de"},
            "onExcluded": "next",
        },
    }


@pytest.mark.parametrize("options", [["--on-excluded", "next"], ["--every", "5m", "--calendar", "de"]])
async def test_an_option_of_calendars_without_effect_is_refused(stub: Stub, options: list[str]) -> None:
    words = ["0 9 * * *", *options] if "--every" not in options else options
    result = await run_command(stub.url, "job", "preview", *words)

    assert (result.exit_code, stub.asked) == (2, [])
