"""Dashboards and alerts name what the exposition has: a typing error there is an alert that never comes."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from clockwork.domain.schedule import Guarantee
from clockwork.domain.sharding import ShardId
from clockwork.node.siblings import PROCESS_UP
from clockwork.observability.metrics import PrometheusTelemetry
from clockwork.ports.telemetry import DeliveryResult, IncarnationEnd, Malformed, RequestResult, TransactionResult
from infra.grafana.__main__ import path_of, text_of
from infra.grafana.dashboards import ALL
from infra.grafana.panels import Dashboard
from tests.support import builders
from tests.support.log_calls import log_calls

INFRA: Final = Path(__file__).parents[2] / "infra"
RULES: Final = {
    name: yaml.safe_load((INFRA / f"prometheus/{name}.yaml").read_text()) for name in ("recording", "alerts")
}
OF_SCRAPE: Final = {"job", "instance"}
METRIC: Final = re.compile(r"\b(?:clockwork|process|python)_[a-z_0-9]+\b|\bjob:[a-z_0-9:]+")
MATCHERS: Final = re.compile(r"([a-z_0-9:]+)\{([^}]*)\}")
MATCHER: Final = re.compile(r'([a-z_]+)\s*(=~|!=|!~|=)\s*"([^"]*)"')
GROUPED: Final = re.compile(r"\bby\s*\(([^)]*)\)")
VALUES: Final[Mapping[tuple[str, str], frozenset[str]]] = {
    ("clockwork_deliveries_total", "result"): frozenset(get_args(DeliveryResult)),
    ("clockwork_schedules_total", "result"): frozenset(get_args(RequestResult)),
    ("clockwork_malformed_total", "what"): frozenset(get_args(Malformed)),
    ("clockwork_incarnation_ends_total", "cause"): frozenset(get_args(IncarnationEnd)),
    ("clockwork_transactions_total", "result"): frozenset(get_args(TransactionResult)),
}


def exposed() -> dict[str, set[str]]:
    """Every series' name, with the names of its labels."""
    telemetry = PrometheusTelemetry()
    telemetry.request(route="r", status=200, seconds=1)
    telemetry.store_call(store="dynamodb", operation="query", result="ok", seconds=1)
    telemetry.store_table("rows", size_bytes=1, dead_rows=1)
    telemetry.due(ShardId(1), rows=1, oldest_seconds=1)
    telemetry.delivered(next(iter(Guarantee)), builders.row(), builders.receipt(), late_seconds=1, catch_up=False)
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(telemetry.exposition()[0].decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


# Beside the exposition: what the client library adds on Linux only, and what a node of several processes does.
SERIES: Final = (
    {"process_resident_memory_bytes": set[str](), PROCESS_UP: {"process"}}
    | exposed()
    | {
        rule["record"]: set(OF_SCRAPE) | set(re.findall(r"\w+", GROUPED.findall(rule["expr"])[0]))
        for group in RULES["recording"]["groups"]
        for rule in group["rules"]
    }
)


def expressions() -> Iterator[tuple[str, str, str]]:
    """Where, the expression, and the texts that show labels of its result."""
    for groups in RULES.values():
        for group in groups["groups"]:
            for rule in group["rules"]:
                shown = " ".join(rule.get("annotations", {}).values())
                yield rule.get("alert") or rule["record"], rule["expr"], shown
    for dashboard in ALL:
        for row in dashboard.rows:
            for panel in row:
                for query in panel.queries:
                    yield f"{dashboard.title}: {panel.title}", query.expr, query.legend


@pytest.mark.parametrize(("where", "expr", "shown"), list(expressions()))
def test_every_metric_and_label_that_is_asked_for_exists(where: str, expr: str, shown: str) -> None:
    metrics = {name for name in METRIC.findall(expr) if name not in {"job"}}
    assert metrics, where
    assert metrics <= SERIES.keys()
    labels = OF_SCRAPE.union(*(SERIES[name] for name in metrics))
    for metric, inside in MATCHERS.findall(expr):
        for label, _, value in MATCHER.findall(inside):
            assert label in SERIES[metric] | OF_SCRAPE, f"{where}: {metric} has no label {label}"
            if (known := VALUES.get((metric, label))) and value:
                assert set(value.split("|")) <= known
    grouped = {label for group in GROUPED.findall(expr) for label in re.findall(r"\w+", group)}
    assert grouped <= labels
    named = set(re.findall(r"\{\{\s*(\w+)\s*\}\}", shown)) | set(re.findall(r"\$labels\.(\w+)", shown))
    # A label that the expression sums away would be shown as nothing.
    assert named <= (grouped or labels)


def test_the_one_second_of_the_lateness_target_is_a_bucket_of_its_histogram() -> None:
    text = PrometheusTelemetry().exposition()[0].decode()
    assert 'clockwork_lateness_seconds_bucket{guarantee="exactly_once",le="1.0"}' in text


def test_every_alert_has_a_severity_a_summary_a_section_in_the_runbook_and_a_test() -> None:
    runbook = (INFRA / "runbook.md").read_text(encoding="utf-8")
    tested = {
        case["alertname"]
        for test in yaml.safe_load((INFRA / "prometheus/alerts_test.yaml").read_text())["tests"]
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    alerts = [rule for group in RULES["alerts"]["groups"] for rule in group["rules"]]
    for alert in alerts:
        name = alert["alert"]
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["runbook"] == f"infra/runbook.md#{name.lower()}"
    names = {alert["alert"] for alert in alerts}
    assert set(re.findall(r"^## (\w+)$", runbook, re.MULTILINE)) == names == tested


def test_the_runbook_names_events_that_are_logged() -> None:
    events = {call.event for call in log_calls()}
    named = set(re.findall(r"`([a-z]+\.[a-z_]+)`", (INFRA / "runbook.md").read_text(encoding="utf-8")))
    assert named <= events


@pytest.mark.parametrize("dashboard", ALL, ids=lambda d: d.uid)
def test_the_dashboard_s_file_is_what_the_code_says(dashboard: Dashboard) -> None:
    assert path_of(dashboard).read_text(encoding="utf-8") == text_of(dashboard), "run: python -m infra.grafana"


def test_every_panel_has_a_title_a_text_a_unit_and_takes_the_chosen_datasource() -> None:
    files = sorted((INFRA / "grafana").glob("*.json"))
    assert files == sorted(path_of(dashboard) for dashboard in ALL)
    for file in files:
        page: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        assert [variable["name"] for variable in page["templating"]["list"]] == ["datasource", "job"]
        titles = [panel["title"] for panel in page["panels"]]
        assert len(titles) == len(set(titles))
        for panel in page["panels"]:
            assert panel["title"]
            assert panel["description"].endswith(".")
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
            for asked in [panel, *panel["targets"]]:
                assert asked["datasource"]["uid"] == "${datasource}"
