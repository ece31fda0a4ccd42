"""Other tools read what we export, and give what we give.

What is exported was really trained, and the activations are those of its model (random weights), as
mtc_core.capture takes them. Damaged exports must show, or agreement would mean nothing.
"""

import sys

import pytest
import torch
from transformers import AutoModel

from tests.conformance.cases import DAMAGED, DAMAGES, WHOLE
from tests.conformance.suites import KINDS, above_threshold, k_largest

pytestmark = pytest.mark.conformance

ROUNDING = 1e-5  # float32, in another order
ORDER = ("acts", "y", "features", "logits")  # each can be right only if those before it are
LLAMASCOPIUM = pytest.mark.skipif(sys.version_info >= (3, 13), reason="wants Python below 3.13")


def pairs(table):
    marks = {"llamascopium": LLAMASCOPIUM}
    return [
        pytest.param(program, name, marks=marks.get(program, ()))
        for program, names in table.items()
        for name in names
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_expected_is_what_our_transcoders_give(suites, kind):
    for _, tc in suites[kind].by_layer():
        x_RD = suites[kind].x_RD[tc.spec.source.tensor]
        ours = tc.encode(x_RD)
        if tc.spec.selection == "batchtopk":
            expected = above_threshold(tc, x_RD)
        else:
            expected = k_largest(tc, x_RD, tc.spec.k)
        assert torch.allclose(expected, ours, rtol=ROUNDING, atol=1e-6)
        assert 1 < (ours > 0).sum(1).float().mean() < tc.d_sae / 2, "nothing to compare"


@pytest.mark.parametrize(("program", "case"), pairs(WHOLE))
def test_a_tool_gives_what_we_give(found, tabulate, program, case):
    answer = found(program)
    tabulate(answer, case)
    figures = answer["cases"][case]
    assert figures["acts"] <= ROUNDING and figures["y"] <= ROUNDING
    assert figures.get("decode", 0) <= ROUNDING


@pytest.mark.parametrize(("program", "damage"), pairs(DAMAGED))
def test_a_damaged_export_shows(found, program, damage):
    figures = found(program)["cases"][damage]
    off = DAMAGES[damage][2]
    assert figures[off] > 100 * ROUNDING
    for figure in ORDER[: ORDER.index(off)]:
        assert figures.get(figure, 0) <= ROUNDING  # so it is that damage which shows


@pytest.mark.parametrize("case", WHOLE["circuit_tracer"])
def test_circuit_tracer_attributes_through_a_complete_suite(found, case):
    """The model is its own, features and their activations are ours, and the graph is finite."""
    figures = found("circuit_tracer")["cases"][case]
    assert figures["logits"] <= ROUNDING
    assert figures["features"] <= ROUNDING
    assert figures["graph_acts"] <= ROUNDING
    assert figures["same_active"] and figures["active"] > 20
    assert figures["all_finite"] and figures["edges"] > figures["active"]
    assert figures["skip"] == ("skip" in case)


@pytest.mark.parametrize("damage", ["threshold lowered", "input hook earlier"])
def test_other_active_features_show_in_the_graph(found, damage):
    figures = found("circuit_tracer")["cases"][damage]
    assert not figures["same_active"]


@pytest.mark.parametrize("case", WHOLE["saelens"])
def test_saelens_knows_which_sites_a_transcoder_is_of(found, suites, case):
    entries = found("saelens")["cases"][case]["entries"]
    skip = "Skip" if "skip" in case else ""
    for id, tc in suites[case].by_layer():
        assert entries[id]["class"] == f"JumpReLU{skip}Transcoder"
        assert entries[id]["shape"] == [tc.d_in, tc.d_sae, tc.d_out]
        assert entries[id]["metadata"]["hook_name"] == tc.spec.source.hook
        assert entries[id]["metadata"]["hook_name_out"] == tc.spec.target.hook


@pytest.mark.parametrize("case", WHOLE["sparsify"])
def test_sparsify_takes_a_module_for_what_a_transcoder_is_of(found, suites, case):
    entries = found("sparsify")["cases"][case]["entries"]
    modules = dict(AutoModel.from_pretrained(suites[case].model).named_modules())
    for name, entry in entries.items():
        assert name in modules and entry["transcode"]
        assert entry["skip"] == ("skip" in case)
    assert len(entries) == len(suites[case].transcoders)


@LLAMASCOPIUM
@pytest.mark.parametrize("case", WHOLE["llamascopium"])
def test_llamascopium_knows_which_sites_a_transcoder_is_of(found, suites, case):
    entries = found("llamascopium")["cases"][case]["entries"]
    for id, tc in suites[case].by_layer():
        assert entries[id]["hooks"] == [tc.spec.source.hook, tc.spec.target.hook]
