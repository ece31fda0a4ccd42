"""Exports by the formulas of their formats; the tools themselves are asked in tests/conformance."""

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from mtc_core import MatryoshkaTranscoder
from mtc_core.errors import ExportError
from mtc_core.export import SuiteFacts, export_suite
from mtc_core.export.exporting import Change, Export
from mtc_core.export.llamascopium import _expansion
from mtc_core.sites import Site
from tests.core import small

D, GROUPS = 20, (8, 16, 24)
FACTS = SuiteFacts(
    model="org/model", commit="abc", family="llama", n_layers=3, context_tokens=128,
    data="my.txt", prepend_bos=True,
)  # fmt: skip
CHANGE = Change((5.0, 5.1), (0.2, 0.25))


def transcoder(layer=0, *, source="resid_mid", target="mlp_out", d_out=D, groups=GROUPS, **changes):
    generator = torch.Generator().manual_seed(layer)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    spec = small.spec(
        source=Site.parse(f"{layer}.{source}"),
        target=Site.parse(f"{layer}.{target}"),
        group_sizes=groups,
        **changes,
    )
    F = spec.d_sae
    tensors = {
        "W_enc": draw(F, D), "b_enc": draw(F), "W_dec": draw(F, d_out), "b_dec": draw(d_out),
        "threshold": torch.full((F,), 0.7),
    }  # fmt: skip
    if spec.skip:
        tensors["W_skip"] = draw(d_out, D)
    return MatryoshkaTranscoder(spec, tensors, {"l0_test": 6.4, "fvu_test": 0.2})


def suite_of(*layers, **changes):
    made = [transcoder(layer, **changes) for layer in layers or range(3)]
    return {tc.spec.id: tc for tc in made}


def rows():
    return torch.randn(40, D, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("skip", [False, True])
def test_circuit_tracer_files_give_our_outputs(tmp_path, skip):
    suite = suite_of(skip=skip)
    export_suite(suite, "circuit-tracer", tmp_path / "x", FACTS)
    config = yaml.safe_load((tmp_path / "x/config.yaml").read_text())
    assert config["model_kind"] == "transcoder_set" and config["model_name"] == "org/model"
    hooks = config["feature_input_hook"], config["feature_output_hook"]
    assert hooks == ("hook_resid_mid", "hook_mlp_out")
    assert config["mtc"]["layer_2"]["matryoshka_widths"] == [8, 24, 48]
    for layer, tc in enumerate(suite.values()):
        w = load_file(tmp_path / "x" / f"layer_{layer}.safetensors")
        pre = rows() @ w["W_enc"].T + w["b_enc"]
        y = (pre * (pre > w["activation_function.threshold"])) @ w["W_dec"] + w["b_dec"]
        assert torch.allclose(y + rows() @ w["W_skip"].T if skip else y, tc(rows()), atol=1e-4)
        assert set(w) == {
            "W_enc", "b_enc", "W_dec", "b_dec", "activation_function.threshold",
            *(["W_skip"] if skip else []),
        }  # fmt: skip


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("d_out", [D, 12])
def test_saelens_files_give_our_outputs(tmp_path, skip, d_out):
    suite = suite_of(0, skip=skip, d_out=d_out)
    export_suite(suite, "saelens", tmp_path / "x", FACTS)
    ((id, tc),) = suite.items()
    config = json.loads((tmp_path / "x" / id / "cfg.json").read_text())
    kind = "jumprelu_skip_transcoder" if skip else "jumprelu_transcoder"
    assert (config["architecture"], config["d_out"]) == (kind, d_out)
    assert config["apply_b_dec_to_input"] is False
    assert config["metadata"]["sae_lens_version"]
    assert config["metadata"]["hook_name_out"] == "blocks.0.hook_mlp_out"
    w = load_file(tmp_path / "x" / id / "sae_weights.safetensors")
    pre = rows() @ w["W_enc"] + w["b_enc"]
    y = (pre.relu() * (pre > w["threshold"])) @ w["W_dec"] + w["b_dec"]
    assert torch.allclose(y + rows() @ w["W_skip"].T if skip else y, tc(rows()), atol=1e-4)


def test_sparsify_files_give_topk_of_our_weights(tmp_path):
    suite = suite_of(1, source="mlp_in", skip=True)
    ((id, tc),) = suite.items()
    record = export_suite(suite, "sparsify", tmp_path / "x", FACTS, {id: CHANGE})
    label = "lossy, BatchTopK as TopK with k = 6: L0 5.0 -> 5.1, FVU 0.2000 -> 0.2500"
    assert "layers.1.mlp/cfg.json" in record["files"]
    assert record["transcoders"][id] == {"lossy": label, "l0": [5.0, 5.1], "fvu": [0.2, 0.25]}
    told = json.loads((tmp_path / "x/layers.1.mlp/mtc.json").read_text())
    assert (told["trained_with"], told["k"]) == (tc.spec.selection, tc.spec.k)
    assert json.loads((tmp_path / "x/export.json").read_text()) == record
    folder = tmp_path / "x" / "layers.1.mlp"
    config = json.loads((folder / "cfg.json").read_text())
    assert (config["k"], config["transcode"], config["skip_connection"]) == (6, True, True)
    w = load_file(folder / "sae.safetensors")
    pre = (rows() @ w["encoder.weight"].T + w["encoder.bias"]).relu()
    kept = torch.zeros_like(pre).scatter(1, pre.topk(6).indices, 1.0) * pre
    y = kept @ w["W_dec"] + w["b_dec"] + rows() @ w["W_skip"].T
    twin = Export(suite, "sparsify", FACTS).twins[id]
    assert torch.allclose(y, twin(rows()), atol=1e-4)
    assert not torch.allclose(y, tc(rows()), atol=1e-2)


def test_gemma_scope_files_give_our_outputs(tmp_path):
    suite = suite_of(0)
    export_suite(suite, "gemma-scope", tmp_path / "x", FACTS)
    ((id, tc),) = suite.items()
    w = np.load(tmp_path / "x" / id / "params.npz")
    pre = rows().numpy() @ w["W_enc"] + w["b_enc"]
    y = (pre * (pre > w["threshold"])) @ w["W_dec"] + w["b_dec"]
    assert np.allclose(y, tc(rows()).numpy(), atol=1e-4)


def test_llamascopium_files_give_our_outputs(tmp_path):
    suite = suite_of(0)
    export_suite(suite, "llamascopium", tmp_path / "x", FACTS)
    ((id, tc),) = suite.items()
    w = load_file(tmp_path / "x" / id / "sae_weights.safetensors")
    pre = rows() @ w["W_E"] + w["b_E"]
    y = (pre * (pre > w["activation_function.log_jumprelu_threshold"].exp())) @ w["W_D"] + w["b_D"]
    assert torch.allclose(y, tc(rows()), atol=1e-4)
    config = json.loads((tmp_path / "x" / id / "config.json").read_text())
    assert int(config["d_model"] * config["expansion_factor"]) == tc.d_sae
    assert (config["act_fn"], config["norm_activation"]) == ("jumprelu", "inference")


def test_llamascopium_gets_every_size_back_from_a_factor():
    for d_in in (49, 768, 896):
        for d_sae in range(1, 3 * d_in):
            assert int(d_in * _expansion(d_in, d_sae)) == d_sae
    assert int(49 * (1 / 49)) == 0, "the plain factor would do"


def test_topk_as_a_threshold_is_lossy_and_told(tmp_path):
    suite = suite_of(selection="topk")
    export = Export(suite, "saelens", FACTS)
    assert set(export.twins) == set(suite)
    with pytest.raises(ExportError, match="was not measured"):
        export.write(tmp_path / "x")
    record = export.write(tmp_path / "x", dict.fromkeys(suite, CHANGE))
    assert all(
        one["lossy"].startswith("lossy, TopK as a threshold: L0 5.0 -> 5.1")
        for one in record["transcoders"].values()
    )
    config = json.loads((tmp_path / "x" / next(iter(suite)) / "cfg.json").read_text())
    told = config["metadata"]
    assert told["lossy"].startswith("lossy")
    first = next(iter(suite.values())).spec
    assert (told["trained_with"], told["k"]) == ("topk", first.k)


@pytest.mark.parametrize("format", ["circuit-tracer", "saelens", "llamascopium"])
def test_a_site_whose_name_means_another_tensor_elsewhere_is_refused(tmp_path, format):
    suite = suite_of(source="ln2_normalized")
    export_suite(suite, format, tmp_path / "rms", FACTS)
    export_suite(suite, format, tmp_path / "rms", dataclasses.replace(FACTS, family="phi3"))
    gpt2 = dataclasses.replace(FACTS, family="gpt2")
    with pytest.raises(ExportError, match=r"models with LayerNorm \(gpt2\) .*: train on mlp_in"):
        export_suite(suite, format, tmp_path / "x", gpt2)


def test_modules_of_families_that_are_not_known_are_not_guessed(tmp_path):
    olmo = dataclasses.replace(FACTS, family="olmo2")
    suite = suite_of(0, source="mlp_in")
    with pytest.raises(ExportError, match=r"in models of gemma2, .*llama"):
        export_suite(suite, "sparsify", tmp_path / "x", olmo, dict.fromkeys(suite, CHANGE))


REFUSED = {
    "missing layers": (
        "circuit-tracer",
        suite_of(0, 1),
        "1 of the model's 3 layers have no transcoder (first: 2)",
    ),
    "another target": (
        "circuit-tracer",
        suite_of(source="resid_pre", target="attn_out"),
        "0.resid_pre -> 0.attn_out (and 2 more): circuit-tracer replaces MLPs",
    ),
    "two of a layer": (
        "circuit-tracer",
        suite_of() | suite_of(seed=1),
        "layer 0 has 2 transcoders; choose one for each layer (--only)",
    ),
    "other widths": (
        "circuit-tracer",
        suite_of(d_out=12),
        "maps 20 to 12 dimensions; circuit-tracer needs as many in as out",
    ),
    "other sizes": (
        "circuit-tracer",
        suite_of(0, 1) | suite_of(2, groups=(8, 16)),
        "d_sae differs between layers (24, 48); it must be the same",
    ),
    "some with skip": (
        "circuit-tracer",
        suite_of(0, 1) | suite_of(2, skip=True),
        "some transcoders have a skip connection and some have none",
    ),
    "no module": (
        "sparsify",
        suite_of(0),
        "0.resid_mid -> 0.mlp_out: sparsify reads the input of a module",
    ),
    "a skip connection": (
        "gemma-scope",
        suite_of(0, skip=True),
        "has a skip connection, which params.npz cannot hold",
    ),
}


@pytest.mark.parametrize(("format", "suite", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_a_format_cannot_express_is_refused_with_the_reason(tmp_path, format, suite, reason):
    with pytest.raises(ExportError) as error:
        export_suite(suite, format, tmp_path / "x", FACTS)
    assert f"{format} cannot express this suite:\n  " in str(error.value)
    assert reason in str(error.value)
    assert not (tmp_path / "x").exists()


def test_gemma_has_no_module_whose_output_is_mlp_out():
    with pytest.raises(ExportError, match="not in Gemma"):
        Export(suite_of(0, source="mlp_in"), "sparsify", replace(FACTS, family="gemma2"))
    Export(suite_of(0, source="mlp_in"), "sparsify", replace(FACTS, family="gpt2"))


def test_only_an_earlier_export_is_replaced(tmp_path):
    suite = suite_of(0)
    export_suite(suite, "saelens", tmp_path / "x", FACTS)
    export_suite(suite, "gemma-scope", tmp_path / "x", FACTS)
    assert not list((tmp_path / "x").glob("*/cfg.json"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(ExportError, match=r"holds what is no export of ours \(thesis.tex\)"):
        export_suite(suite, "saelens", tmp_path / "mine", FACTS)
    assert (tmp_path / "mine" / "thesis.tex").exists()
    (tmp_path / "x" / ".git").mkdir()
    (tmp_path / "x" / ".git" / "HEAD").write_text("a repository of the export")
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "export.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    for taken in ("x", "fake", "link"):
        with pytest.raises(ExportError, match="holds what is no export of ours"):
            export_suite(suite, "saelens", tmp_path / taken, FACTS)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "x/.git/HEAD").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="is a file"):
        export_suite(suite, "saelens", tmp_path / "file", FACTS)


def test_the_folder_one_stands_in_can_be_the_export(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / ".draft.tmp").write_text("mine")
    export_suite(suite_of(0), "saelens", ".", FACTS)
    assert (tmp_path / "here" / "export.json").exists() and (tmp_path / ".draft.tmp").exists()


def test_a_threshold_is_never_negative():
    tc = transcoder()
    tc.threshold.fill_(-1.0)
    from mtc_core.export.facts import threshold

    assert not threshold(tc).any()
