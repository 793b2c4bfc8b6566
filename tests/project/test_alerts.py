"""Alerts and dashboard: valid, tested one by one, documented, and about metrics that are exposed."""

import json
import re
import subprocess
from importlib import import_module
from typing import Any

import pytest
import yaml

from broker.metrics.values import Kind, Metric
from tests.project.test_metrics_document import DOCUMENT, MODULES
from tests.support.prometheus import ROOT, RULES, program, rules

TESTS = ROOT / "tests/prometheus/acm.test.yml"
DASHBOARD = json.loads((ROOT / "packaging/grafana/acm-dashboard.json").read_text(encoding="utf-8"))
METRICS = [it for name in MODULES for it in vars(import_module(name)).values() if isinstance(it, Metric)]
SERIES = {
    f"{it.name}{ending}"
    for it in METRICS
    for ending in (("_bucket", "_sum", "_count") if it.kind is Kind.HISTOGRAM else ("",))
}
LABELS = {it.name: {*it.labels, "job", "instance", "le"} for it in METRICS}
ALERTS = {rule["alert"]: rule for rule in rules()}


def dashboard_queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


QUERIES = sorted({*(rule["expr"] for rule in ALERTS.values()), *dashboard_queries()})


def test_rules_are_valid() -> None:
    done = subprocess.run([program("promtool"), "check", "rules", RULES], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    done = subprocess.run([program("promtool"), "test", "rules", TESTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_alert_is_tested_before_and_after_it_fires(alert: str) -> None:
    tests = yaml.safe_load(TESTS.read_text(encoding="utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"] if case["alertname"] == alert]
    assert sorted(bool(case["exp_alerts"]) for case in cases) == [False, True]


@pytest.mark.parametrize("query", QUERIES)
def test_query_names_metrics_and_labels_that_exist(query: str) -> None:
    assert set(re.findall(r"\bacm_\w+", query)) <= SERIES
    for name, matchers in re.findall(r"\b(acm_\w+?)(?:_bucket|_sum|_count)?{([^}]*)}", query):
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) <= LABELS[name]


def test_dashboard_shows_every_metric() -> None:
    shown = {name for query in dashboard_queries() for name in re.findall(r"\bacm_\w+", query)}
    kept = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert {it.name for it in METRICS} - kept == {"acm_build_info", "acm_broker_unconfirmed_bytes"}


def test_panels_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in DASHBOARD["panels"]):
        its = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not its & cells
        assert place["x"] + place["w"] <= 24
        cells |= its


def test_document_lists_every_alert_with_its_summary() -> None:
    rows = dict(re.findall(r"^\| `(Acm\w+)` \| (\w+) \|", DOCUMENT, re.MULTILINE))
    assert rows == {name: rule["labels"]["severity"] for name, rule in ALERTS.items()}


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_annotations_are_sentences(alert: str) -> None:
    texts: dict[str, Any] = ALERTS[alert]["annotations"]
    assert set(texts) == {"summary", "description"}
    assert all(text.endswith(".") for text in texts.values())
