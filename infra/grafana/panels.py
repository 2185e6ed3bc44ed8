"""The words that dashboards are made of: a query, a panel, a row of panels, a dashboard; and their JSON.

Written as code because a dashboard that is edited by hand in JSON cannot be reviewed: 20 of its lines say what 1 line
here does. `python -m infra.grafana` writes the files; a test compares.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS: Final = 24
HEIGHT: Final = 8
SCHEMA: Final = 39
"""Grafana 10.2 and later."""

Unit = Literal["s", "ops", "short", "percentunit", "bytes"]
Kind = Literal["timeseries", "stat", "heatmap"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """One PromQL expression; `$job` and `$__rate_interval` are filled in by Grafana."""

    expr: str
    legend: str = "{{job}}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """Content of one panel, and how to read it."""

    title: str
    text: str
    unit: Unit
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    alarm_above: float | None = None
    """A red line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dashboard:
    """A page; panels stand side by side, row by row."""

    uid: str
    title: str
    rows: tuple[tuple[Panel, ...], ...]


def quantiles(metric: str, *, by: str = "", of: Sequence[float] = (0.5, 0.99)) -> tuple[Query, ...]:
    """Lines of a histogram's quantiles, over all nodes of the job, apart by these labels."""
    labels = f"le, {by}" if by else "le"
    shown = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(",") if label)
    return tuple(
        Query(
            expr=f"histogram_quantile({q:g}, sum by ({labels}) (rate({metric}_bucket{{{JOB}}}[$__rate_interval])))",
            legend=f"p{q * 100:g} {shown}".strip(),
        )
        for q in of
    )


JOB: Final = 'job=~"$job"'


def as_json(dashboard: Dashboard) -> dict[str, Any]:
    """A dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in dashboard.rows:
        width = COLUMNS // len(row)
        for number, panel in enumerate(row):
            place = {"h": HEIGHT, "w": width, "x": number * width, "y": y}
            panels.append(_panel(panel, len(panels) + 1, place))
        y += HEIGHT
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["clockwork"],
        "schemaVersion": SCHEMA,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "utc",
        "links": [_links()],
        "templating": {"list": [_datasource(), _job()]},
        "panels": panels,
    }


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.alarm_above is not None:
        steps.append({"color": "red", "value": panel.alarm_above})
    custom = {"thresholdsStyle": {"mode": "line"}} if panel.alarm_above is not None else {}
    format_ = "heatmap" if panel.kind == "heatmap" else "time_series"
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "custom": custom, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "targets": [
            {
                "refId": chr(ord("A") + i),
                "datasource": DATASOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "format": format_,
            }
            for i, query in enumerate(panel.queries)
        ],
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _job() -> dict[str, Any]:
    return {
        "name": "job",
        "label": "Cluster",
        "type": "query",
        "datasource": DATASOURCE,
        "query": "label_values(clockwork_shards_owned, job)",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
    }


def _links() -> dict[str, Any]:
    return {"title": "Clockwork", "type": "dashboards", "tags": ["clockwork"], "keepTime": True, "includeVars": True}
