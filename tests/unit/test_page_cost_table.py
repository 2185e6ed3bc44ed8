"""The documented costs of pages are those that the stores are held to."""

from pathlib import Path
from typing import Final

from tests.contract.page_costs import table

DOCS: Final = Path(__file__).parents[2] / "docs" / "dashboard.md"


def test_the_documented_costs_are_the_ones_that_the_stores_are_held_to() -> None:
    assert f"\n\n{table()}\n\n" in DOCS.read_text(encoding="utf-8")
