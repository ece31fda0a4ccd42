"""A Grafana dashboard, made from the list of metrics: a panel for each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from orchestrator.monitoring.metrics import METRICS, PREFIX, Metric

SCHEMA_VERSION = 39  # Grafana 10 and later; newer ones convert it
UID = "mtc-orchestrator"
WIDE, HIGH = 12, 8  # of a panel; a dashboard is 24 wide
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_SHARES = ("mtc_stage_seconds_total",)  # stacked: together they are all of an actor's time


def dashboard() -> dict[str, Any]:
    """JSON-able, for `Dashboards > New > Import`. It asks for its Prometheus, for runs, and for
    transcoders."""
    return {
        "uid": UID,
        "title": "mtc-orchestrator",
        "tags": ["mtc-orchestrator"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "annotations": {"list": []},
        "templating": {"list": _variables()},
        "panels": list(_panels()),
    }


def query(metric: Metric) -> str:
    """PromQL, with Grafana's variables in it."""
    asked = 'run=~"$run"'
    if "transcoder" in metric.labels:
        asked += ', transcoder=~"$transcoder"'
    # Every series that a query names, its own and others, is of what was chosen.
    found = metric.query.replace("{name}", metric.exported)
    for name in sorted((one.exported for one in METRICS), key=len, reverse=True):
        found = found.replace(f"{name})", f"{name}{{{asked}}})")
        found = found.replace(f"{name}[", f"{name}{{{asked}}}[")
    return found


def _panels() -> Iterator[dict[str, Any]]:
    top, number = 0, 0
    for row, metrics in groupby(METRICS, key=lambda metric: metric.row):
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": top, "w": 24, "h": 1},
        }
        top += 1
        listed = list(metrics)
        for place, metric in enumerate(listed):
            number += 1
            left, down = place % 2 * WIDE, place // 2 * HIGH
            grid = {"x": left, "y": top + down, "w": WIDE, "h": HIGH}
            yield _panel(number, metric, grid)
        top += -(-len(listed) // 2) * HIGH


def _panel(number: int, metric: Metric, grid: dict[str, int]) -> dict[str, Any]:
    stacked = metric.name in _SHARES
    return {
        "id": number,
        "type": "timeseries",
        "title": metric.title,
        "description": f"{metric.exported}: {metric.what}",
        "datasource": _SOURCE,
        "gridPos": grid,
        "fieldConfig": {
            "defaults": {
                "unit": metric.unit,
                "min": 0,
                "custom": {
                    "drawStyle": "line",
                    "lineWidth": 1,
                    "fillOpacity": 40 if stacked else 0,
                    "showPoints": "never",
                    "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
                },
            },
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": "A",
                "datasource": _SOURCE,
                "expr": query(metric),
                "legendFormat": metric.legend,
                "editorMode": "code",
                "range": True,
            }
        ],
    }


def _variables() -> list[dict[str, Any]]:
    step = f"{PREFIX}mtc_step"
    chosen = {
        "run": f"label_values({step}, run)",
        "transcoder": f'label_values({step}{{run=~"$run"}}, transcoder)',
    }
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource",
              "query": "prometheus", "hide": 0, "current": {}}  # fmt: skip
    return [source, *(_choice(name, asked) for name, asked in chosen.items())]


def _choice(name: str, asked: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": asked, "refId": name},
        "definition": asked,
        "refresh": 2,  # whenever the time range changes: runs come and go
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }
