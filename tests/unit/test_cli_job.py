"""`clockwork job …`: what it sends, prints and ends with."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from clockwork.schema import problems
from tests.unit.client_stub import DROP, Stub, open_stub, run_command

NAME = ["shop", "report"]
PATH = "/jobs/shop/report"
CREATE = ["create", *NAME, "--topic", "reports"]
RUN = {
    **{"status": "delivered", "runId": "s1795248000000", "kind": "scheduled", "version": 1, "attempt": 1},
    **{"scheduledAt": 1_795_248_000_000, "dueAt": 1_795_248_000_000},
    "delivered": {"topic": "reports", "partition": 2, "offset": 7, "at": 1_795_248_000_011, "latenessMs": 11},
}
SKIPPED = {
    **{"status": "skipped", "reason": "misfire", "count": 3},
    **{"first": 1_795_244_400_000, "last": 1_795_247_000_000},
}
ARMED = {
    **{"status": "armed", "runId": "s1795334400000", "kind": "scheduled", "version": 1, "attempt": 1},
    **{"scheduledAt": 1_795_334_400_000, "dueAt": 1_795_334_400_000},
}
DEFINITION: dict[str, Any] = {
    **{"clientId": "shop", "jobId": "report", "orderingKey": "report", "taskData": {"a": 1}},
    "taskDataEncoding": "json",
    "trigger": {"type": "cron", "expression": "30 2 * * *", "timeZone": "Europe/Berlin", "jitterMs": 90_000},
    "delivery": {"topic": "reports", "guarantee": "exactly_once", "headers": {}},
    "misfire": {"policy": "fire_once"},
    **{"overlap": "allow", "pauseAfterFailures": 0, "durable": False, "interpolate": False, "version": 1},
}
JOB: dict[str, Any] = {
    **DEFINITION,
    **{"status": "active", "createdAt": 1, "updatedAt": 2},
    "counts": {"delivered": 4, "failed": 0, "skipped": 3},
}
SHOWN = {
    **JOB,
    "labels": {"team": "web"},
    "lastRun": RUN,
    "openRuns": [],
    "nextRun": {
        **{"runId": "s1795334400000", "scheduledAt": 1_795_334_400_000, "dueAt": 1_795_334_400_000, "version": 1},
        "local": "2026-11-22T09:00:00+01:00",
    },
    "nextTimes": [
        {"at": 1, "local": "2030-03-30T02:30:00+01:00"},
        {"at": 2, "local": "2030-03-31T03:00:00+02:00", "dueAt": 5, "note": "gap: 02:30 does not exist"},
    ],
}
VERSION = {**DEFINITION, "changedAt": 5, "changedBy": "deployer"}
PAGES: dict[str, Any] = {
    "list": {"jobs": [{**SHOWN, "jobId": "[red]\x1b[31m"}, {**JOB, "status": "paused"}], "cursor": None},
    "logs": {"runs": [RUN, SKIPPED, {**ARMED, "status": "failed", "reason": "record_too_large"}], "cursor": None},
    "versions": {"versions": [VERSION], "cursor": None},
}


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with open_stub() as opened:
        opened.will((200, JOB))
        yield opened


async def run(stub: Stub, *arguments: str, charset: str = "utf-8") -> Result:
    return await run_command(stub.url, "job", *arguments, charset=charset)


# --- create


async def test_create_sends_what_was_asked_for_and_shows_it(stub: Stub, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    options = [
        *("--cron", "0 9 * * 1-5", "--zone", "Europe/Berlin", "--dialect", "unix", "--days", "or"),
        *("--dst-gap", "shift", "--dst-overlap", "second", "--start", "5", "--end", "2030-01-31T12:00:00+01:00"),
        *("--max-runs", "9", "--jitter", "90s", "--jitter-per", "run", "--data", '{"a": 1}', "--ordering-key", "o"),
        *("--misfire", "fire_all", "--grace", "1m", "--max-catch-up", "3", "--window", "2h", "--overlap", "skip"),
        *("--timeout", "5m", "--attempts", "3"),
        *("--pause-after-failures", "4", "--durable", "--description", "d", "--label", "team=web", "--label", "x="),
        *("--interpolate", "--payload-schema", str(schema)),
        *("--priority", "7", "--deadline", "1m", "--on-late", "drop", "--retry-attempts", "3", "--header", "a=b"),
    ]
    result = await run(stub, *CREATE, *options)
    assert (result.exit_code, stub.lines) == (0, ["POST /jobs"]), result.output
    assert stub.asked[0].body == {
        **{"clientId": "shop", "jobId": "report", "orderingKey": "o", "taskData": {"a": 1}},
        "trigger": {
            **{"type": "cron", "expression": "0 9 * * 1-5", "timeZone": "Europe/Berlin", "dialect": "unix"},
            **{"days": "or", "dst": {"gap": "shift", "overlap": "second"}, "start": 5, "end": 1_896_087_600_000},
            **{"maxRuns": 9, "jitterMs": 90_000, "jitterPer": "run"},
        },
        "delivery": {
            **{"topic": "reports", "deadline": 60_000, "onLate": "drop", "retry": {"attempts": 3}},
            "headers": {"a": "b"},
        },
        "misfire": {"policy": "fire_all", "graceMs": 60_000, "maxCatchUp": 3, "windowMs": 7_200_000},
        **{"overlap": "skip", "completion": {"timeoutMs": 300_000, "retry": {"attempts": 3}}},
        **{"pauseAfterFailures": 4, "durable": True, "description": "d", "priority": 7},
        "labels": {"team": "web", "x": ""},
        **{"interpolate": True, "payloadSchema": {"type": "object"}},
    }
    assert "trigger       30 2 * * * (Europe/Berlin), jitter at most 1m30s" in result.output


@pytest.mark.parametrize(
    ("options", "trigger"),
    [
        (["--every", "30s"], {"type": "fixed_rate", "everyMs": 30_000}),
        (["--every", "1h30m", "--anchor", "5"], {"type": "fixed_rate", "everyMs": 5_400_000, "anchor": 5}),
        (["--after", "5m", "--start", "7"], {"type": "fixed_delay", "delayMs": 300_000, "start": 7}),
        (["--trigger", '{"type": "any", "of": []}'], {"type": "any", "of": []}),
        (["--durable"], None),
    ],
)
async def test_every_kind_of_trigger_has_its_option(
    stub: Stub, options: list[str], trigger: dict[str, Any] | None
) -> None:
    assert (await run(stub, *CREATE, "--text", "x", *options)).exit_code == 0
    assert stub.asked[0].body.get("trigger") == trigger


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*CREATE, "--text", "x"], "--durable is required"),
        ([*CREATE, "--every", "1m"], "--data, --text or --data-file is required"),
        ([*CREATE, "--text", "x", "--every", "1m", "--cron", "@daily"], "exclude each other"),
        ([*CREATE, "--text", "x", "--every", "1m", "--zone", "UTC"], "--zone has an effect only with a cron"),
        ([*CREATE, "--text", "x", "--cron", "@daily", "--anchor", "5"], "--anchor has an effect only with --every"),
        ([*CREATE, "--text", "x", "--trigger", "{}", "--max-runs", "5"], "--max-runs needs"),
        ([*CREATE, "--text", "x", "--trigger", "[]"], "--trigger: should be a JSON object"),
        ([*CREATE, "--text", "x", "--trigger", "{"], "--trigger: is not JSON"),
        ([*CREATE, "--text", "x", "--every", "1m", "--grace", "1m"], "--grace has an effect only with --misfire"),
        ([*CREATE, "--text", "x", "--every", "1m", "--label", "a"], "--label: 'a' should be NAME=VALUE"),
        ([*CREATE, "--text", "x", "--every", "1 m"], "--every"),
        (["list", "shop", "--label", "a"], "--label"),
        (["preview"], "an EXPRESSION, --every, --after or --trigger is required"),
        (["preview", "@daily", "--count", "101"], "--count"),
        (["backfill", *NAME, "--from", "5"], "--to"),
        (["complete", *NAME, "s1", "--result", "{"], "--result"),
        (["complete", *NAME, "s1", "--no-retry"], "--no-retry has an effect only with --failed"),
        ([*CREATE, "--text", "x", "--every", "1m", "--attempts", "3"], "--attempts has an effect only with --timeout"),
        (["run", *NAME, "--data", "1", "--text", "x"], "exclude each other"),
        (["show", "shop", "\udcff"], "JOB_ID"),
        (["preview", "@daily", "--job", "shop", "\udcff"], "--job"),
    ],
)
async def test_a_wrong_command_line_ends_with_2_before_anything_is_sent(
    stub: Stub, arguments: list[str], said: str
) -> None:
    result = await run(stub, *arguments)
    assert (result.exit_code, stub.asked) == (2, [])
    (line,) = result.stderr.splitlines()
    assert said in line


# --- the other calls


async def test_each_call_has_its_command(stub: Stub) -> None:
    for words in (
        ["show", *NAME, "--next", "2"],
        ["pause", *NAME, "--note", "why", "--if-version", "3"],
        *(["resume", *NAME], ["restore", *NAME]),
        ["delete", *NAME, "--json"],
    ):
        result = await run(stub, *words)
        assert result.exit_code == 0
    assert json.loads(result.output) == JOB
    assert stub.lines == [
        *(f"GET {PATH}?next=2", f"POST {PATH}/pause", f"POST {PATH}/resume", f"POST {PATH}/restore"),
        f"DELETE {PATH}",
    ]
    assert (stub.asked[1].body, stub.asked[1].headers["If-Match"]) == ({"note": "why"}, '"3"')


async def test_show_tells_next_times_in_the_jobs_zone_with_the_rule_that_moved_them_and_the_last_run(
    stub: Stub,
) -> None:
    stub.will((200, {**SHOWN, "status": "paused", "pausedSince": 0, "note": "no\x1b[31mtopic"}))
    output = (await run(stub, "show", *NAME)).output
    assert "2030-03-31T03:00:00+02:00  gap: 02:30 does not exist  due 1970-01-01T00:00:00.005Z" in output
    assert (
        "last run      s1795248000000 delivered, due 2026-11-21T08:00:00.000Z, 11 ms late, Kafka partition 2" in output
    )
    assert "labels        team=web" in output
    assert "4 delivered, 0 failed; 3 fire times skipped" in output
    assert "paused since 1970-01-01T00:00:00.000Z" in output
    assert "\x1b" not in output


async def test_a_change_tells_which_runs_may_still_be_delivered(stub: Stub) -> None:
    stub.will((200, {**JOB, "inFlight": [ARMED]}))
    output = (await run(stub, "pause", *NAME)).output
    assert "in flight     s1795334400000 armed" in output
    assert "may still be delivered as before" in output


@pytest.mark.parametrize(
    ("words", "path", "shown"),
    [
        (["list", "shop"], "/jobs?clientId=shop&limit=1000", ["[red]", "2026-11-22T09:00:00+01:00", "paused"]),
        (
            ["list", "shop", "--label", "a=b", "--deleted", "--topic", "t", "--limit", "7"],
            "/jobs?clientId=shop&topic=t&label=a:b&deleted=true&limit=7",
            ["30 2 * * * (Europe/Berlin)"],
        ),
        (
            ["logs", *NAME, "--from", "5", "--to", "9", "--status", "failed"],
            f"{PATH}/logs?from=5&to=9&status=failed&limit=1000",
            ["11 ms late", "3 (misfire): 2026-11-21T07:00:00.000Z to 2026-11-21T07:43:20.000Z", "record_too_large"],
        ),
        (["versions", *NAME], f"{PATH}/versions?limit=1000", ["deployer", "1970-01-01T00:00:00.005Z"]),
    ],
)
async def test_lists_are_tables_for_people_and_lines_for_programs(
    stub: Stub, words: list[str], path: str, shown: list[str]
) -> None:
    page = PAGES[words[0]]
    stub.will((200, page))
    output = (await run(stub, *words)).output
    assert stub.lines == [f"GET {path}"]
    assert all(each in output for each in shown), output
    assert "\x1b" not in output
    (items,) = (each for each in page.values() if each is not None)
    lines = (await run(stub, *words, "--json")).output.splitlines()
    assert [json.loads(line) for line in lines] == items


async def test_preview_takes_an_expression_without_a_job(stub: Stub) -> None:
    stub.will((200, {"times": SHOWN["nextTimes"]}))
    words = ["preview", "30 2 * * *", "--zone", "Europe/Berlin", "--from", "5", "--count", "2", "--job", *NAME]
    result = await run(stub, *words)
    assert stub.lines == ["POST /jobs/preview"]
    assert stub.asked[0].body == {
        "trigger": {"type": "cron", "expression": "30 2 * * *", "timeZone": "Europe/Berlin"},
        **{"from": 5, "count": 2, "clientId": "shop", "jobId": "report"},
    }
    assert result.output.splitlines()[0] == "2030-03-30T02:30:00+01:00"
    assert json.loads((await run(stub, *words, "--json")).output.splitlines()[0]) == SHOWN["nextTimes"][0]


async def test_a_run_by_hand_is_asked_for_with_a_payload_and_an_id_of_its_own(stub: Stub) -> None:
    stub.will((201, ARMED))
    result = await run(stub, "run", *NAME, "--text", "x", "--request-id", "r")
    assert stub.lines == [f"POST {PATH}/run-now"]
    assert stub.asked[0].body == {"requestId": "r", "taskData": "x"}
    assert result.output == "s1795334400000 armed, due 2026-11-22T08:00:00.000Z\n"
    await run(stub, "run", *NAME)
    assert stub.asked[1].body.keys() == {"requestId"}


@pytest.mark.parametrize(
    ("options", "how", "body"),
    [
        ([], "complete", {"attempt": 1}),
        (["--attempt", "2", "--result", '{"rows":7}'], "complete", {"attempt": 2, "result": {"rows": 7}}),
        (["--failed", "--result", '"disk full"'], "fail", {"attempt": 1, "error": "disk full"}),
        (["--failed", "--no-retry"], "fail", {"attempt": 1, "retry": False}),
    ],
)
async def test_a_run_is_ended_in_the_place_of_its_consumer(
    stub: Stub, options: list[str], how: str, body: dict[str, Any]
) -> None:
    stub.will((200, ARMED | {"status": "completed"}))
    result = await run(stub, "complete", *NAME, "s1795334400000", *options)
    assert (result.exit_code, stub.asked[0].body) == (0, body), result.output
    assert stub.lines == [f"POST /jobs/shop/report/runs/s1795334400000/{how}"]
    assert "s1795334400000 completed" in result.output


async def test_a_backfill_is_asked_for(stub: Stub) -> None:
    stub.will((202, {"requestId": "r", "run": ARMED}))
    words = ["backfill", *NAME, "--from", "5", "--to", "9", "--max-runs", "2", "--request-id", "r"]
    assert "backfill r: first s1795334400000 armed" in (await run(stub, *words)).output
    assert stub.asked[0].body == {"requestId": "r", "from": 5, "to": 9, "maxRuns": 2}
    assert json.loads((await run(stub, *words, "--json")).output) == {"requestId": "r", "run": ARMED}


@pytest.mark.parametrize("words", [["run", *NAME], ["backfill", *NAME, "--from", "5", "--to", "9"]])
async def test_a_request_without_an_answer_tells_the_id_that_settles_it(stub: Stub, words: list[str]) -> None:
    stub.will(DROP)
    result = await run(stub, *words)
    assert result.exit_code == 9
    assert f"--request-id {stub.asked[0].body['requestId']} settles it" in result.stderr
    # Who gave an id knows it.
    assert "--request-id" not in (await run(stub, *words, "--request-id", "r")).stderr


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((501, {}), 3),
        (problems.not_found("job-not-found", "no", "no"), 4),
        ((409, {"reason": "deleted"}), 5),
        ((412, {}), 5),
    ],
)
async def test_the_exit_code_tells_the_outcome(stub: Stub, answer: Any, code: int) -> None:
    stub.will(answer)
    assert (await run(stub, "resume", *NAME)).exit_code == code


@pytest.mark.parametrize("words", [["show", "shop", "€"], ["list", "shop"], ["versions", *NAME]])
async def test_an_answer_that_the_terminal_cannot_show_is_shown_with_escapes(stub: Stub, words: list[str]) -> None:
    strange = {"delivery": {**DEFINITION["delivery"], "topic": "r€ports"}}
    job, version = {**SHOWN, **strange}, {**VERSION, **strange}
    answers = {"list": {"jobs": [job], "cursor": None}, "versions": {"versions": [version], "cursor": None}}
    stub.will((200, answers.get(words[0], job)))
    result = await run(stub, *words, charset="latin-1")
    assert result.exit_code == 0
    assert "r\\u20acports" in result.stdout
