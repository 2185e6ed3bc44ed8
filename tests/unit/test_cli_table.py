"""Tables of the command line, at each width: names and times stay whole, and what is left out is named."""

import pytest
from rich.text import Text

from clockwork.cli.render import in_words
from clockwork.cli.table import Table

AT = "2030-01-31T09:00:00.000Z"
KEY = "order-of-a-customer-with-a-long-name"
REASON = "the broker does not answer: connection refused at kafka-1.example:9092, asked 3 times"


def a_table() -> Table:
    made = Table("key", "due", "note", "topic", "reason", prose=("reason",), least=("topic", "due"))
    made.add_row(KEY, AT, "", Text("orders", "green"), REASON)
    made.add_row("b", AT, "", "orders", "")
    return made


def lines_at(width: int | None) -> list[str]:
    return a_table().fitted(width).plain.splitlines()


def test_a_row_is_one_line_where_the_output_is_no_terminal() -> None:
    header, first, second = lines_at(None)
    assert header.split() == ["key", "due", "note", "topic", "reason"]
    assert first == f"{KEY}  {AT}        orders  {REASON}"
    assert second == f"b{' ' * len(KEY)} {AT}        orders"


@pytest.mark.parametrize(("width", "left_out"), [(95, None), (90, "topic"), (80, "topic, due"), (40, "topic, due")])
def test_a_narrow_terminal_breaks_no_word_and_loses_columns_that_are_named(width: int, left_out: str | None) -> None:
    lines = lines_at(width)
    shown = " ".join(lines)
    assert shown.split(KEY)[0].split() == [
        name for name in ("key", "due", "topic", "reason") if name not in (left_out or "").split(", ")
    ]
    assert all(word in shown.split() for word in REASON.split())
    assert (AT in shown) == ("due" not in (left_out or ""))
    assert lines[-1] == f"Left out at {width} columns: {left_out}. --json has all." or left_out is None
    # Behind the last column that can be left out, the line is as long as a name and the longest word of a sentence.
    longest_word = max(map(len, REASON.split()))
    assert max(map(len, lines[:-1])) <= max(width, len(f"{KEY}  ") + longest_word)


def test_cells_keep_their_style_when_they_are_padded() -> None:
    spans = a_table().fitted(None).spans
    assert [each.style for each in spans if each.style == "green"] == ["green"]


@pytest.mark.parametrize(
    ("span_ms", "words"),
    [
        (0, "0 s"),
        (7, "7 ms"),
        (12_340, "12.3 s"),
        (59_999, "59.9 s"),
        (60_000, "1 min"),
        (893_307, "14 min 53 s"),
        (3_605_000, "1 h"),
        (90_061_000, "1 d 1 h"),
    ],
)
def test_a_span_is_told_in_its_two_largest_units(span_ms: int, words: str) -> None:
    assert in_words(span_ms) == words
