"""Tables for people: as wide as the terminal at most, and one line for each row where the output goes elsewhere.

A name, an id or a time is never broken nor cut, since it is copied from here into the next command. On a terminal that is
too narrow for a table, sentences are wrapped between words, and columns are left out, the least important first; a line
under the table names them. A row whose names alone are too long is left to the terminal to wrap.
"""

import sys
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

GAP: Final = "  "
PROSE_CHARS_MIN: Final = 16
"""Width that a column of sentences keeps; columns are left out for it."""


class Table:
    """Rows of cells under named columns."""

    def __init__(self, *columns: str, prose: Sequence[str] = (), least: Sequence[str] = (), title: str = "") -> None:
        """`prose`: columns of sentences. `least`: columns that may be left out, the least important first."""
        self._columns = columns
        self._prose = prose
        self._least = least
        self._title = title
        self._rows: list[tuple[Text, ...]] = []

    def add_row(self, *cells: str | Text) -> None:
        """Adds a row. The cells are printable, and as many as the columns; in a `Text` they are styled."""
        assert len(cells) == len(self._columns)
        self._rows.append(tuple(each if isinstance(each, Text) else Text(each) for each in cells))

    def fitted(self, width: int | None) -> Text:
        """The table in lines of at most `width` characters, with a line about what is left out for it; None: any width."""
        widths, left_out = self._fit(width)
        places = [(place, widths[name]) for place, name in enumerate(self._columns) if name in widths]
        header = tuple(Text(name, "bold") for name in self._columns)
        lines = [Text(self._title, "italic")] if self._title else []
        for row in (header, *self._rows):
            cells = [_wrapped(row[place], chars) for place, chars in places]
            for line in zip_longest(*cells, fillvalue=Text()):
                joined = Text()
                for cell, (_, chars) in zip(line, places, strict=True):
                    joined.append_text(cell).append(" " * (chars - cell.cell_len) + GAP)
                joined.rstrip()
                lines.append(joined)
        if left_out:
            lines.append(Text(f"Left out at {width} columns: {', '.join(left_out)}. --json has all.", "italic"))
        return Text("\n").join(lines)

    def _fit(self, width: int | None) -> tuple[dict[str, int], list[str]]:
        """Widths of the columns that are shown, in characters, and the names of those that are left out."""
        cells = {name: [row[place] for row in self._rows] for place, name in enumerate(self._columns)}
        wanted = {name: max([cell_len(name), *(each.cell_len for each in cells[name])]) for name in self._columns}
        if width is None:
            return wanted, []
        widths = {
            name: _prose_chars_min(name, cells[name], wanted[name]) if name in self._prose else wanted[name]
            for name in self._columns
        }
        # A column without a value says nothing: it goes first, and is not named.
        empty = [name for name in self._columns if not any(each.plain for each in cells[name])] if self._rows else []
        left_out = []
        for name in (*empty, *(each for each in self._least if each not in empty)):
            if _line_chars(widths) <= width:
                break
            del widths[name]
            if name not in empty:
                left_out.append(name)
        for name in self._prose:
            if name in widths:
                widths[name] += max(0, min(wanted[name] - widths[name], width - _line_chars(widths)))
        return widths, left_out


def _line_chars(widths: dict[str, int]) -> int:
    return sum(widths.values()) + len(GAP) * (len(widths) - 1)


def _prose_chars_min(name: str, cells: Sequence[Text], wanted: int) -> int:
    words = [word for each in cells for word in each.plain.split()]
    return min(wanted, max([PROSE_CHARS_MIN, cell_len(name), *map(cell_len, words)]))


def _wrapped(cell: Text, chars: int) -> list[Text]:
    if cell.cell_len <= chars:
        return [cell]
    lines = textwrap.wrap(cell.plain, chars, break_long_words=False, break_on_hyphens=False)
    return [Text(line, cell.style) for line in lines]


def terminal_chars() -> int | None:
    """Width of the terminal that standard output is; None if it is none: a file, or a pipe."""
    return Console().width if sys.stdout.isatty() else None


def print_table(table: Table) -> None:
    """Prints the table as it fits standard output."""
    Console().print(table.fitted(terminal_chars()), soft_wrap=True)
