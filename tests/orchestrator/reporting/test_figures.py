"""Figures hold the numbers of the files: read back out of the page, as a browser reads them."""

import json
import math
import random
from itertools import pairwise

import plotly.graph_objects as go
import pytest

from orchestrator.reporting.comparing import compare
from orchestrator.reporting.figures import base, speed
from orchestrator.reporting.figures.base import Figure, thinned
from orchestrator.reporting.gather import gather
from tests.orchestrator.registry.runs import transcoder
from tests.orchestrator.reporting.pages import fabricated_progress, figures_of, page_of

CELLS = ["producer-0", "trainer-0[L00-L01]", "trainer-1[L02-L02]"]


def evaluations(run):
    found = [json.loads(path.read_text()) for path in run.glob("transcoders/*/evaluation.json")]
    return {one["id"]: one for one in found}


def values(figure, name):
    """(x, y) of all traces of one name."""
    return [
        pair
        for trace in figure["data"]
        if trace["name"].startswith(name)
        for pair in zip(trace["x"], trace["y"], strict=True)
    ]


def test_the_glance_has_the_held_out_figures(finished):
    run, figure = gather(finished), figures_of(page_of(finished))["glance"]
    panels = {}
    for trace in figure["data"]:
        if trace["type"] == "bar":
            panels.setdefault(trace["yaxis"], {}).update(zip(trace["x"], trace["y"], strict=True))
    ones = {one.site: [] for one in run.named.values()}
    for id, one in run.named.items():
        ones[one.site].append(run.evaluated[id])
    for site, [*_, last] in ones.items():  # in a sweep, of its last variant
        assert panels["y"][site] == last["ordinary"]["fvu"]
        assert panels["y3"][site] == pytest.approx(100 * (last["ordinary"]["l0"] / last["k"] - 1))
        assert panels["y4"][site] == 100 * last["dead_share"]
    for name, of in (("ridge", lambda one: one["ordinary"]["fvu_ridge"]),
                     ("all rows", lambda one: one["all"]["fvu"])):  # fmt: skip
        drawn = [
            value for trace in figure["data"] if trace["name"].startswith(name)
            for value in trace["customdata"]
        ]  # fmt: skip
        assert sorted(drawn) == sorted(of(one) for one in run.evaluated.values())
    recovered = {id: one["ce_recovered_zero"] for id, one in run.splice["transcoders"].items()}
    for site, value in panels["y2"].items():
        here = [recovered[id] for id, one in run.named.items() if one.site == site]
        assert value in [one if one is None else max(one, 0) for one in here]


def test_what_is_wrong_is_red_and_named_in_red(mixed):
    path = transcoder(mixed, 0) / "evaluation.json"
    one = json.loads(path.read_text())
    one["ordinary"] |= {"fvu": 0.3, "fvu_ridge": 0.5, "l0": float(one["k"]),
                        "fvu_by_prefix": [0.5, 0.4, 0.3]}  # fmt: skip
    one["dead_share"] = 0.01
    for spoil, panel in (({}, None), ({"fvu_ridge": 0.2}, "y"), ({"l0": 9.0}, "y2")):
        path.write_text(json.dumps(one | {"ordinary": one["ordinary"] | spoil}))
        figure = figures_of(page_of(mixed))["glance"]
        red = {t["yaxis"] for t in figure["data"] if t["marker"]["color"] == base.RED}
        assert red == ({panel} if panel else set())
        assert (base.RED in figure["layout"]["xaxis"]["ticktext"][0]) == bool(panel)


def test_an_outlier_does_not_flatten_the_rest_and_is_told(finished):
    path = next(finished.glob("transcoders/*/evaluation.json"))
    one = json.loads(path.read_text())
    one["all"]["fvu"] = 250.0
    path.write_text(json.dumps(one))
    figure = figures_of(page_of(finished))["glance"]
    top = figure["layout"]["yaxis"]["range"][1]
    assert top < 3
    shown = [t for t in figure["data"] if t["name"] == "all rows" and 250.0 in t["customdata"]]
    assert shown and max(shown[0]["y"]) < top and "triangle-up" in shown[0]["marker"]["symbol"]


def test_curves_have_every_logged_step_and_every_prefix(finished):
    run, figures = gather(finished), figures_of(page_of(finished))
    for number, id in enumerate(run.curves):
        lines = run.curves[id]
        tokens = [line["tokens"] for line in lines]
        whole = figures["curves"]["data"][number]
        assert whole["name"] == run.label(id) and whole["x"] == tokens
        assert whole["y"] == [pytest.approx(line["fvu"], rel=1e-4) for line in lines]
        dead = figures["curves-dead"]["data"][number]
        assert dead["y"] == [pytest.approx(100 * line["dead_share"], rel=1e-4) for line in lines]
        prefixes = figures[f"prefixes-{number}"]["data"]
        assert [trace["name"] for trace in prefixes] == ["first 8", "first 16", "all 32"]
        for which, trace in enumerate(prefixes):
            expected = [line["fvu_by_prefix"][which] for line in lines]
            assert trace["y"] == pytest.approx(expected, rel=1e-4)


def test_groups_densities_and_extreme_rows_are_those_of_the_evaluations(finished):
    run, figures = gather(finished), figures_of(page_of(finished))
    for number, (id, one) in enumerate(run.evaluated.items()):
        groups = [trace["y"][number] / 100 for trace in figures["nonzeros"]["data"]]
        assert groups == pytest.approx(one["ordinary"]["nonzeros_by_group"])
        rows, variance = (trace["y"][number] for trace in figures["extreme"]["data"])
        assert rows == 100 * one["extreme_row_share"]
        assert variance == 100 * one["extreme_variance_share"]
        (histogram,) = figures[f"density-{number}"]["data"]
        assert histogram["customdata"] == list(one["ordinary"]["density_histogram"].values())
        assert sum(histogram["y"]) == pytest.approx(100)
        assert figures["nonzeros"]["data"][0]["x"][number] == run.label(id)
    assert histogram["x"][0] == "never" and histogram["x"][-2:] == ["10<sup>−1</sup>", "1"]


def test_the_spliced_suite_has_its_standard_errors(finished):
    run, figures = gather(finished), figures_of(page_of(finished))
    bars = figures["spliced"]["data"][0]
    shown = list(run.splice["transcoders"].values())
    assert run.splice["joint"] is None and "predict" in run.splice["joint_problem"]
    assert bars["y"] == [one["ce_increase"] for one in shown]
    assert bars["error_y"]["array"] == [one["ce_increase_se"] for one in shown]


def naive_speed(invocations):
    """Difference by difference, without a span in between."""
    rates, shares, offset = [], [], 0.0
    for lines in invocations:
        last = lines[-1]["stages"]
        took = {name: sum(s for stage, s in stages.items() if stage != "publish")
                for name, stages in last.items() if "train" in stages}  # fmt: skip
        slowest = max(took, key=took.get)
        for before, after in pairwise(lines):
            seconds = after["at"] - before["at"]
            end = offset + after["at"] - lines[0]["at"]
            rates.append((end, (after["rows_trained"] - before["rows_trained"]) / seconds))
            was, now = before["stages"][slowest], after["stages"][slowest]
            spent = {stage: now[stage] - was[stage] for stage in now}
            shares.append({s: 100 * spent[s] / sum(spent.values()) for s in spent})
        offset = end
    return rates, shares


@pytest.mark.parametrize("seed", range(3))
def test_speed_is_the_difference_of_one_line_and_the_next(mixed, seed):
    fabricated_progress(mixed, 1, CELLS[1:2], lines=12, seed=seed)
    (mixed / "invocations/0002.begin.json").write_text('{"number": 2, "began": 1795020000}')
    fabricated_progress(mixed, 2, CELLS, lines=15, seed=seed + 10)
    run = gather(mixed)
    rates, shares = naive_speed([one.progress for one in run.invocations])
    figures = {figure.key: json.loads(figure.to_json()) for figure in speed.speed(run)}
    (throughput,) = figures["throughput"]["data"]
    assert throughput["x"] == pytest.approx([end for end, _ in rates], rel=1e-4)
    assert throughput["y"] == pytest.approx([rate for _, rate in rates], rel=1e-4)
    for trace, stage in zip(figures["stages"]["data"], ("train", "forward", "feed"), strict=False):
        assert trace["y"] == pytest.approx([one[stage] for one in shares], rel=1e-4)
    (begin,) = figures["throughput"]["layout"]["shapes"]
    assert begin["x0"] == pytest.approx(rates[10][0], rel=1e-4)
    waiting = [trace["name"] for trace in figures["waits"]["data"]]
    assert any(name == "producer-0: cells are full" for name in waiting)
    memory = {trace["name"]: trace["y"] for trace in figures["memory"]["data"]}
    last = run.invocations[1].progress[-1]["resident_bytes"]
    assert memory.keys() == last.keys()
    for name, bytes_ in last.items():
        assert memory[name][-1] == pytest.approx(bytes_ / 2**30, rel=1e-4)


def test_a_long_run_is_thinned_and_loses_no_rows(mixed):
    fabricated_progress(mixed, 1, CELLS[1:], lines=2000, seed=0)
    run = gather(mixed)
    trace = speed.speed(run)[0].traces[0]
    assert len(trace["x"]) == 299
    ends = [0.0, *(60 * minutes for minutes in trace["x"])]  # it lasts an hour and a half
    rows = sum(rate * (b - a) for rate, (a, b) in zip(trace["y"], pairwise(ends), strict=True))
    first, *_, last = run.invocations[0].progress
    assert rows == pytest.approx(last["rows_trained"] - first["rows_trained"], rel=0.01)


@pytest.mark.parametrize("n", [1, 2, 59, 60, 61, 1000])
def test_thinning_keeps_both_ends_and_the_order(n):
    items = [random.random() for _ in range(n)]
    kept = thinned(items, 60)
    assert kept[0] == items[0] and kept[-1] == items[-1] and len(kept) == min(n, 60)
    places = [items.index(item) for item in kept]
    assert places == sorted(places)
    assert max((b - a for a, b in pairwise(places)), default=0) <= math.ceil(n / 59)


def test_plotly_knows_every_property_of_every_figure(finished, mixed):
    fabricated_progress(mixed, 1, CELLS, lines=12, seed=0)
    pages = [page_of(finished), page_of(mixed), compare([gather(finished), gather(mixed)])]
    checked = [go.Figure(figure) for page in pages for figure in figures_of(page).values()]
    assert len(checked) > 25


def test_an_infinite_figure_is_a_gap_and_no_tag_ends_its_script():
    trace = {"y": [1.0, float("inf"), float("nan")], "name": "</script><script>alert(1)</script>"}
    text = Figure("x", "x", [trace], {}).to_json()
    assert "<" not in text
    assert json.loads(text)["data"] == [{**trace, "y": [1.0, None, None]}]
