"""The list of metrics, and all that is made from it: values, dashboard, document."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cells.status import CellStatus, ProducerStatus, TranscoderStatus
from orchestrator.cli import cli
from orchestrator.monitoring.grafana import dashboard, query
from orchestrator.monitoring.metrics import METRICS, values
from orchestrator.monitoring.reference import BEGIN, END, table, with_table

WATCHING = (Path(__file__).parents[2] / "orchestrator" / "WATCHING.md").read_text()
BY_NAME = {metric.name: metric for metric in METRICS}
CELL = CellStatus(
    "trainer-0[L00-L01]",
    "training",
    7,
    256,
    (
        TranscoderStatus("L00", "training", 7, 5, 0.25, (0.5, 0.25), 31.9, 0.01),
        TranscoderStatus("L01", "failed", 3, 0, reason="NaN"),
    ),
    1792,
    {"forward": 3.0, "train": 4.0, "load": 9.0},
    {"passes": 11, "tokens": 99},
    2**30,
)
PRODUCER = ProducerStatus("producer-0", {"credit": 1.5}, {"passes": 8, "late_passes": 2}, 40, 6, 9)


def of(status: CellStatus | ProducerStatus) -> dict[tuple[str, ...], float]:
    return {(name, *tags.values()): value for name, tags, value in values(status, 3)}


def test_a_cell_exports_what_it_says_of_itself_and_of_each_transcoder() -> None:
    found = of(CELL)
    assert found["mtc_tokens_total",] == 1792 and found["mtc_tokens_per_second",] == 256.0
    assert found["mtc_stage_seconds_total", "train"] == 4.0 and found["mtc_start",] == 3
    assert found["mtc_forward_passes_total",] == 11 and found["mtc_resident_bytes",] == 2**30
    assert found["mtc_fvu", "L00"] == found["mtc_prefix_fvu", "L00", "2"] == 0.25
    assert found["mtc_prefix_fvu", "L00", "1"] == 0.5 and found["mtc_saved_step", "L00"] == 5
    states = {state: found["mtc_state", "L01", state] for state in ("training", "failed")}
    assert states == {"training": 0.0, "failed": 1.0}
    assert not [key for key in found if key[:2] == ("mtc_fvu", "L01")]  # nothing was logged yet


def test_a_producer_exports_what_it_ran_and_handed_out() -> None:
    found = of(PRODUCER)
    assert found["mtc_forward_passes_total",] == 8 and found["mtc_late_passes",] == 2
    assert found["mtc_published_total",] == 40 and found["mtc_stage_seconds_total", "credit"] == 1.5


def test_all_of_the_list_is_exported_with_its_labels_and_nothing_else() -> None:
    exported = [*values(CELL, 1), *values(PRODUCER, 1)]
    assert {name for name, _, _ in exported} == BY_NAME.keys()
    for name, tags, _ in exported:
        assert ("run", "actor", *tags) == BY_NAME[name].labels


def test_nothing_is_labelled_by_what_has_no_end() -> None:
    bounded = {"run", "actor", "transcoder", "prefix", "stage", "state"}
    assert {label for metric in METRICS for label in metric.labels} == bounded
    assert all(m.name.endswith("_total") == (m.kind == "counter") for m in METRICS)


def test_the_dashboard_has_a_panel_for_each_and_asks_for_nothing_else() -> None:
    panels = [panel for panel in dashboard()["panels"] if panel["type"] == "timeseries"]
    asked = [panel["targets"][0]["expr"] for panel in panels]
    assert asked == [query(metric) for metric in METRICS]
    named = re.findall(r"ray_mtc_\w+", " ".join(asked))
    assert set(named) == {metric.exported for metric in METRICS}
    for metric, expression in zip(METRICS, asked, strict=True):
        chosen = len(re.findall(r'ray_mtc_\w+\{run=~"\$run"', expression))
        assert chosen == len(re.findall(r"ray_mtc_\w+", expression)), expression
        assert ('transcoder=~"$transcoder"' in expression) == ("transcoder" in metric.labels)
        assert set(re.findall(r"\{\{(\w+)\}\}", metric.legend)) <= set(metric.labels)
        assert ("rate(" in expression) == (metric.kind == "counter")


def test_no_two_panels_overlap() -> None:
    taken = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24
        taken |= cells
    numbers = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_the_command_prints_it_or_writes_it(tmp_path: Path) -> None:
    printed = CliRunner().invoke(cli, ["grafana"])
    assert printed.exit_code == 0 and json.loads(printed.stdout) == dashboard()
    written = CliRunner().invoke(cli, ["grafana", "--out", str(tmp_path / "mtc.json")])
    assert written.exit_code == 0 and json.loads((tmp_path / "mtc.json").read_text()) == dashboard()
    refused = CliRunner().invoke(cli, ["grafana", "--out", str(tmp_path / "absent" / "mtc.json")])
    assert refused.exit_code == 2 and str(tmp_path / "absent") in refused.stderr


def test_the_document_lists_them() -> None:
    assert with_table(WATCHING) == WATCHING, "python -m orchestrator.monitoring.reference …"
    assert all(f"`{metric.exported}`" in "\n".join(table()) for metric in METRICS)


@pytest.mark.parametrize("mark", [BEGIN, END])
def test_the_document_has_its_marks_once(mark: str) -> None:
    assert WATCHING.count(mark) == 1
