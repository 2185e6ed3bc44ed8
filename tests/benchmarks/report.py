"""Reports of the findings: lines on the terminal, a table for people, JSON for programs, and plots."""

import json
import math
import os
import platform
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.figures import Finding

HEAD: Final = ("scenario", "what", "ours", "yardstick", "ratio", "goal", "met")

Series = dict[str, list[tuple[float, float]]]
"""Points by the name of their line."""


@dataclass(kw_only=True, slots=True)
class Plot:
    """Lines over an axis."""

    title: str
    x: str
    y: str
    log_x: bool = False
    series: Series = field(default_factory=lambda: defaultdict(list))


class Report:
    """Collects what the scenarios find, and writes it at the end, and after each of them: a long run may be broken off."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._findings: list[Finding] = []
        self._plots: dict[str, Plot] = {}

    def add(self, finding: Finding) -> None:
        self._findings.append(finding)
        cells = finding.cells()
        print("  ".join(cell for cell in cells[1:] if cell).replace("**", ""), flush=True)

    def plot(self, name: str, **labels: Any) -> Plot:
        """The plot of this name, made if it is new."""
        return self._plots.setdefault(name, Plot(**labels))

    def page(self, name: str, text: str) -> None:
        """Writes a page of its own beside the summary."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / f"{name}.md").write_text(text, encoding="utf-8")

    def write(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "summary.md").write_text(table(self._findings), encoding="utf-8")
        document = {"machine": machine(), "findings": [each.document() for each in self._findings]}
        (self._folder / "summary.json").write_text(json.dumps(document, indent=2, ensure_ascii=False), encoding="utf-8")
        for name, plot in self._plots.items():
            draw(plot, self._folder / f"{name}.svg")


def table(findings: Sequence[Finding]) -> str:
    """Markdown, with what it was measured on."""
    rows = [HEAD, ["---"] * len(HEAD), *(finding.cells() for finding in findings)]
    lines = [f"| {' | '.join(cell for cell in row)} |" for row in rows]
    on = machine()
    return "\n".join(
        [
            f"Measured on {on['cores']} cores, {on['system']}, Python {on['python']}, load {on['load']:.1f}. Median "
            "(from–to) of the rounds; a ratio is taken round by round.",
            "",
            *lines,
            "",
        ]
    )


def machine() -> dict[str, Any]:
    """The machine and versions, on which the figures depend."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def draw(plot: Plot, path: Path) -> None:
    """An SVG file."""
    # Only who draws needs it: `make bench` installs it, the rest of the development does without.
    import pygal

    chart = pygal.XY(
        title=plot.title,
        x_title=plot.x,
        y_title=plot.y,
        dots_size=2,
        legend_at_bottom=True,
        js=[],  # else each file would ask a server for a script
        truncate_legend=-1,
        show_x_guides=True,
        range=(0, max((y for points in plot.series.values() for _, y in points), default=1.0)),
    )
    if plot.log_x:
        # The library's logarithmic scale is for y only.
        chart.x_value_formatter = lambda exponent: f"{10**exponent:,.4g}"
    for name, points in plot.series.items():
        chart.add(name, [(_log10(x) if plot.log_x else x, y) for x, y in points])
    chart.render_to_file(str(path))


def _log10(value: float) -> float:
    return math.log10(max(value, 1e-3))


def distribution(values_ms: Sequence[float], *, points: int = 200) -> list[tuple[float, float]]:
    """The share of values at or below each: a line from 0 to 1."""
    ordered = sorted(values_ms)
    step = max(1, len(ordered) // points)
    return [(max(1.0, ordered[n]), (n + 1) / len(ordered)) for n in range(0, len(ordered), step)]
