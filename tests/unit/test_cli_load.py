"""`clockwork schedule load`: what becomes of each row, and how a load continues that was interrupted."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from clockwork.cli import load
from clockwork.schema import problems
from tests.support.examples import PENDING
from tests.unit.client_stub import Asked, Stub, open_stub, results, run_command


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with open_stub() as opened:
        opened.will(results)
        yield opened


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the rows that are settled together, so that a load of several chunks is a small file."""
    monkeypatch.setattr(load, "ROWS_AT_ONCE", 100)


async def run(stub: Stub, *arguments: str) -> Result:
    return await run_command(stub.url, *arguments)


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


@pytest.mark.usefixtures("small_chunks")
async def test_a_load_that_was_broken_off_goes_on_where_it_was(stub: Stub, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    _lines(file, 250)
    stub.will(results, problems.unavailable("down"))
    broken = await run(stub, "schedule", "load", str(file))
    assert broken.exit_code == 9
    assert "100 created" in broken.output
    stub.asked.clear()
    stub.will(results)
    result = await run(stub, "schedule", "load", str(file))
    assert result.output == "150 created, 0 there already, 0 rejected, 100 settled before\n"
    assert stub.asked[0].body["schedules"][0]["scheduleKey"] == "k100"


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


OTHER_MEANINGS: list[list[str]] = [["--client-id", "b"], ["--topic", "u"], ["--format", "csv"]]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("other", OTHER_MEANINGS)
async def test_rows_sent_with_another_meaning_are_sent_from_the_start(
    stub: Stub, tmp_path: Path, other: list[str]
) -> None:
    file = tmp_path / "a.jsonl"
    _lines(file, 150)
    stub.will(results, problems.unavailable("down"))
    assert "100 created" in (await run(stub, "schedule", "load", str(file))).output
    stub.will(results)
    assert "settled before" not in (await run(stub, "schedule", "load", str(file), *other)).output


@pytest.mark.usefixtures("small_chunks")
async def test_rows_for_another_client_are_all_created(stub: Stub, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    rows = ({"scheduleKey": f"k{i}", "scheduleTime": 5, "taskData": 1, "delivery": {"topic": "t"}} for i in range(150))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stub.will(results, (401, {}))
    assert (await run(stub, "schedule", "load", str(file), "--client-id", "a")).exit_code == 7
    stub.asked.clear()
    stub.will(results)
    result = await run(stub, "schedule", "load", str(file), "--client-id", "b")
    assert (result.exit_code, result.output) == (0, "150 created, 0 there already, 0 rejected\n")
    assert {row["clientId"] for each in stub.asked for row in each.body["schedules"]} == {"b"}


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(("change", "before"), [(0, 0), (99, 0), (100, 100), (None, 0)])
async def test_a_file_that_has_changed_before_the_mark_is_sent_from_the_start(
    stub: Stub, tmp_path: Path, change: int | None, before: int
) -> None:
    """A row of the same size instead of another, or another service (None)."""
    file = tmp_path / "a.jsonl"
    _lines(file, 150)
    stub.will(results, problems.unavailable("down"))
    await run(stub, "schedule", "load", str(file))
    lines = file.read_bytes().splitlines(keepends=True)
    if change is not None:
        lines[change] = lines[change].replace(b'"scheduleTime": 5', b'"scheduleTime": 6')
        file.write_bytes(b"".join(lines))
    stub.will(results)
    url = [] if change is not None else ["--url", stub.url + "/other"]
    output = (await run(stub, *url, "schedule", "load", str(file))).output
    settled = f", {before} settled before" if before else ""
    assert output == f"{150 - before} created, 0 there already, 0 rejected{settled}\n"


@pytest.mark.usefixtures("small_chunks")
async def test_rows_rejected_before_an_interruption_still_count(stub: Stub, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    _lines(file, 150)
    file.write_bytes(b"no JSON\n" + file.read_bytes())
    stub.will(results, problems.unavailable("down"))
    await run(stub, "schedule", "load", str(file))
    stub.will(results)
    result = await run(stub, "schedule", "load", str(file))
    assert (result.exit_code, result.output) == (
        3,
        "51 created, 0 there already, 1 rejected, 100 settled before\n",
    )


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


async def test_null_in_a_row_counts_as_absent_where_an_option_stands_in(stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"clientId":null,"scheduleKey":"a","scheduleTime":5,"taskData":1,"delivery":null}\n'
        '{"scheduleKey":"b","scheduleTime":5,"taskData":1,"delivery":{"topic":null}}\n'
    )
    stub.will(results)
    result = await run(stub, "schedule", "load", str(tmp_path / "a.jsonl"), "--client-id", "shop", "--topic", "t")
    assert result.exit_code == 0
    sent = stub.asked[0].body["schedules"]
    assert [(each["clientId"], each["delivery"]["topic"]) for each in sent] == [("shop", "t"), ("shop", "t")]


# --- rows that cannot be read

GOOD = '{"clientId":"c","scheduleKey":"%s","scheduleTime":5,"taskData":1,"delivery":{"topic":"t"}}'
HEADER = "clientId,scheduleKey,scheduleTime,taskData,topic"


def _json_row(task_data: str) -> bytes:
    return GOOD.replace('"taskData":1', f'"taskData":{task_data}').replace("%s", "2").encode()


def _created_keys(stub: Stub) -> list[str]:
    return [row["scheduleKey"] for each in stub.asked for row in each.body["schedules"]]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (_json_row("NaN"), "NaN is no JSON number"),
        (_json_row("1e400"), "beyond the range of a double"),
        (_json_row("[" * 5_000 + "]" * 5_000), "nested too deeply"),
        (_json_row("1" * 30), "integer beyond 64 bits"),
        (_json_row("1" * 5_000), "integer beyond 64 bits"),
        (_json_row('"\\ud800"'), "lone surrogate"),
        (_json_row('"\xe9"').decode().encode("latin-1"), "is not UTF-8"),
        (_json_row('{"a":1,"a":2}'), "'a' twice"),
        ((GOOD % "2").replace('"scheduleKey"', '"scheduleKey":"x","scheduleKey"').encode(), "'scheduleKey' twice"),
        (b"7", "should be a JSON object"),
        (b"{", "is not JSON"),
    ],
    ids=["NaN", "1e400", "deep", "30 digits", "5000 digits", "surrogate", "Latin-1", "twice", "key twice", "7", "{"],
)
async def test_one_line_that_is_no_schedule_is_rejected_alone(
    stub: Stub, tmp_path: Path, row: bytes, reason: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([(GOOD % "1").encode(), row, (GOOD % "3").encode()]))
    result = await run(stub, "schedule", "load", str(tmp_path / "a.jsonl"))
    assert (result.exit_code, _created_keys(stub)) == (3, ["1", "3"])
    (line,) = result.stderr.splitlines()
    assert line.startswith("row 2: ")
    assert reason in line
    assert result.stdout == "2 created, 0 there already, 1 rejected\n"


@pytest.mark.parametrize(
    ("row", "options", "reason"),
    [
        (b'c,"a"b,5,x,t', [], "is not CSV"),
        (b"c,2,5,\xe9,t", [], "is not UTF-8"),
        (b"c,2," + b"9" * 5_000 + b",x,t", [], "scheduleTime: should have at most 18 digits"),
        (b"c,2,5,NaN,t", ["--json-data"], "taskData: is not JSON: NaN"),
        (b"c,2,5," + b"9" * 5_000 + b",t", ["--json-data"], "taskData: has an integer beyond 64 bits"),
        (b"c,2,5,x", [], "another number of columns"),
        (b'c,"a"b,5,"x\n\ny",t', [], "is not CSV"),
    ],
    ids=["quotes", "Latin-1", "time", "NaN", "integer", "columns", "quotes before a cell of three lines"],
)
async def test_one_row_of_csv_that_is_no_schedule_is_rejected_alone(
    stub: Stub, tmp_path: Path, row: bytes, options: list[str], reason: str
) -> None:
    text = b"\r\n".join([HEADER.encode(), b"c,1,5,1,t", row, b"c,3,5,3,t"])
    (tmp_path / "a.csv").write_bytes(text)
    result = await run(stub, "schedule", "load", str(tmp_path / "a.csv"), *options)
    assert (result.exit_code, _created_keys(stub)) == (3, ["1", "3"])
    (line,) = result.stderr.splitlines()
    assert line.startswith("row 2: ")
    assert reason in line


async def test_a_quote_without_its_end_is_one_wrong_row(stub: Stub, tmp_path: Path) -> None:
    """Lines behind it may be the cell's: none of them is taken for a schedule."""
    (tmp_path / "a.csv").write_text(f'{HEADER}\nc,1,5,x,t\nc,2,5,"x,t\nc,3,5,x,t\n')
    result = await run(stub, "schedule", "load", str(tmp_path / "a.csv"))
    assert (result.exit_code, _created_keys(stub)) == (3, ["1"])
    assert result.stderr.startswith("row 2: is not CSV")


async def test_a_long_cell_is_created(stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{HEADER}\nc,1,5,x,t\nc,2,5,{'y' * 140_000},t\nc,3,5,x,t\n")
    assert (await run(stub, "schedule", "load", str(tmp_path / "a.csv"))).exit_code == 0
    assert _created_keys(stub) == ["1", "2", "3"]


@pytest.mark.parametrize("status", [400, 413])
async def test_a_row_for_which_the_whole_batch_is_refused_is_rejected_alone(
    stub: Stub, tmp_path: Path, status: int
) -> None:
    def refuses_two(asked: Asked) -> tuple[int, Any]:
        two = "2" in [row["scheduleKey"] for row in asked.body["schedules"]]
        return (status, {"title": "no"}) if two else results(asked)

    stub.will(refuses_two)
    (tmp_path / "a.jsonl").write_text("\n".join(GOOD % number for number in range(5)))
    result = await run(stub, "schedule", "load", str(tmp_path / "a.jsonl"))
    assert (result.exit_code, result.stdout) == (3, "4 created, 0 there already, 1 rejected\n")
    assert result.stderr == "row 3: no\n"


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
@pytest.mark.parametrize(
    "content",
    [(GOOD % "1").encode("utf-16"), (GOOD % "1").encode("utf-16-le"), b"\x1f\x8b\x08\xff\xfe\n\xff", b"\xe9=1"],
    ids=["UTF-16", "UTF-16 without a mark", "gzip", "Latin-1"],
)
async def test_a_file_that_is_no_text_is_one_line_and_2(stub: Stub, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    result = await run(stub, "schedule", "load", str(tmp_path / name))
    assert (result.exit_code, stub.asked, result.stdout) == (2, [], "")
    (line,) = result.stderr.splitlines()
    assert "is not UTF-8 text" in line


@pytest.mark.parametrize(
    ("header", "reason"), [(b"clientId,scheduleKey,clientId", "'clientId' twice"), (b"a,\xe9\nb,c", "is not UTF-8")]
)
async def test_a_first_line_that_is_wrong_is_one_line_and_2(
    stub: Stub, tmp_path: Path, header: bytes, reason: str
) -> None:
    (tmp_path / "a.csv").write_bytes(header + b"\nc,k,c\n")
    result = await run(stub, "schedule", "load", str(tmp_path / "a.csv"))
    assert (result.exit_code, stub.asked) == (2, [])
    assert reason in result.stderr


@pytest.mark.parametrize("content", [b"", b"\n\n"])
async def test_an_empty_file_has_no_rows(stub: Stub, tmp_path: Path, content: bytes) -> None:
    for name in ("a.csv", "a.jsonl"):
        (tmp_path / name).write_bytes(content)
        result = await run(stub, "schedule", "load", str(tmp_path / name))
        assert (result.exit_code, result.output) == (0, "0 created, 0 there already, 0 rejected\n")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
async def test_a_byte_order_mark_is_no_part_of_the_text(stub: Stub, tmp_path: Path, name: str) -> None:
    text = GOOD % "1" if name == "a.jsonl" else f"{HEADER}\nc,1,5,1,t\n"
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert (await run(stub, "schedule", "load", str(tmp_path / name))).exit_code == 0
    assert stub.asked[0].body["schedules"][0]["clientId"] == "c"


# --- progress that cannot be kept


async def test_a_pipe_is_loaded_without_progress(stub: Stub) -> None:
    reading, writing = os.pipe()
    os.write(writing, "\n".join(GOOD % number for number in range(3)).encode())
    os.close(writing)
    try:
        result = await run(stub, "schedule", "load", f"/dev/fd/{reading}", "--format", "jsonl")
    finally:
        os.close(reading)
    assert (result.exit_code, result.output) == (0, "3 created, 0 there already, 0 rejected\n")


@pytest.mark.usefixtures("small_chunks")
async def test_progress_that_cannot_be_written_is_one_warning(stub: Stub, tmp_path: Path) -> None:
    _lines(tmp_path / "a.jsonl", 250)
    # Its place is taken by a folder, which not even root can replace.
    (tmp_path / "a.jsonl.clockwork-progress.new").mkdir()
    result = await run(stub, "schedule", "load", str(tmp_path / "a.jsonl"))
    assert (result.exit_code, result.stdout) == (0, "250 created, 0 there already, 0 rejected\n")
    (line,) = result.stderr.splitlines()
    assert "progress is not kept" in line
