"""The curves of growth: measured on a tiny model, drawn, and judged."""

import json
import sys
from xml.etree import ElementTree

import pytest

from benchmarks import growth
from benchmarks.growth_drawing import Curve, drawn
from benchmarks.suite import nested
from tests.core.tiny_models import save_tiny_model


def test_all_curves_of_a_tiny_model(tmp_path, monkeypatch, capsys):
    model = save_tiny_model(tmp_path / "model", n_layers=4)
    words = ["growth", "--model", str(model), "--only", "transcoders", "groups", "--most", "4"]
    words += ["--rounds", "1", "--json", str(tmp_path / "j"), "--svg", str(tmp_path / "s")]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(growth, "keep_freed_memory", lambda: None)  # for this whole process
    assert growth.main() == 0
    curves = json.loads((tmp_path / "j").read_text())
    assert {curve["name"]: curve["values"] for curve in curves} == {
        "transcoders": [1, 2, 4],
        "groups": [1, 2, 4],
    }
    assert all(min(curve["rates"] + curve["milliseconds"]) > 0 for curve in curves)
    printed = capsys.readouterr().out
    assert "tokens/s" in printed and "groups" in printed
    assert ElementTree.parse(tmp_path / "s").getroot().tag.endswith("svg")


def test_rates_and_costs_are_medians_with_and_without_the_forward():
    timed = [growth.Timed(forward, steps, 4096) for forward, steps in ((1, 3), (1, 1), (9, 2))]
    curve = growth.curve_of("transcoders", {2: timed})
    assert curve.rates == [4096 / 4]  # of 4, 2 and 11 seconds
    assert curve.milliseconds == [1e3 * 2 / 2 / 2]  # of 3, 1 and 2; for 2,048 rows of one of two
    assert growth.curve_of("k", {32: timed}).milliseconds == [1e3 * 2 / 2 / 2]


@pytest.mark.parametrize(
    ("name", "values", "costs", "said"),
    [
        ("transcoders", [4, 30], [10, 10.9], []),
        ("transcoders", [4, 30], [10, 11.1], ["a transcoder of 30 costs 1.11 of one of 4"]),
        ("groups", [1, 4, 8], [10, 10.9, 11.2], ["8 groups cost 1.12 of one"]),
        ("k", [8, 128], [10, 99], []),
    ],
)
def test_goals_that_are_missed_are_told(name, values, costs, said):
    found = list(growth.missed([Curve(name, values, [1.0] * len(values), costs)]))
    assert len(found) == len(said)
    assert all(one.startswith(start) for one, start in zip(found, said, strict=True))


def test_a_point_of_every_curve_is_drawn_where_it_belongs():
    curves = [Curve(name, [1, 2, 4], [1.0] * 3, [10.0, 20.0, 40.0]) for name in growth.POINTS]
    root = ElementTree.fromstring(drawn(curves))
    of = "{http://www.w3.org/2000/svg}"
    dots = [(float(d.get("cx")), float(d.get("cy"))) for d in root.iter(f"{of}circle")]
    assert len(dots) == 15
    (x1, y1), (x2, y2), (x3, y3) = dots[:3]
    assert x2 - x1 == pytest.approx(x3 - x2)  # by powers of two
    assert y2 - y3 == pytest.approx(2 * (y1 - y2), rel=1e-6)
    width, height = float(root.get("width")), float(root.get("height"))
    assert all(0 < x < width and 0 < y < height for x, y in dots)


def test_prefixes_double():
    assert nested(4608, 4) == (576, 576, 1152, 2304)
    assert nested(4608, 1) == (4608,) and len(nested(4608, 8)) == 8
    assert sum(nested(4608, 8)) == 4608
