"""Figures of sparsify's coders by a naive loop, and of ours as the run itself reports them."""

import json

import numpy as np
import pytest
import torch
import yaml

from benchmarks.peer_quality import Score, held_out_quality, our_coders, topk_coder
from benchmarks.peer_workload import Run, prepare, training_contexts
from mtc_core.model.model_source import load_model
from tests.e2e.runs import run_here

STEPS = 8


def test_a_topk_coder_gives_what_a_loop_over_rows_and_latents_gives():
    d, n_latents, k = 7, 23, 5
    weights = {
        "encoder.weight": torch.randn(n_latents, d),
        "encoder.bias": torch.randn(n_latents) - 1.5,  # so that some rows have fewer than k
        "W_dec": torch.randn(n_latents, d),
        "b_dec": torch.randn(d),
    }
    x_RD = torch.randn(40, d)
    got_RD, active_R = topk_coder(weights, k)(x_RD)
    fewer = 0
    for r, x in enumerate(x_RD):
        acts = {f: float(weights["encoder.weight"][f] @ x + weights["encoder.bias"][f])
                for f in range(n_latents)}  # fmt: skip
        kept = [f for f in sorted(acts, key=acts.get, reverse=True)[:k] if acts[f] > 0]
        y = weights["b_dec"] + sum((acts[f] * weights["W_dec"][f] for f in kept), torch.zeros(d))
        assert torch.allclose(got_RD[r], y, atol=1e-5) and int(active_R[r]) == len(kept)
        fewer += len(kept) < k
    assert 0 < fewer < len(x_RD)


def test_a_score_is_1_for_the_mean_and_0_for_a_perfect_coder_however_rows_are_split():
    y_RD, active_R = torch.randn(50, 6) + 3, torch.arange(50)
    mean_RD = y_RD.mean(0).expand_as(y_RD)
    for got_RD, fvu in ((mean_RD, 1.0), (y_RD, 0.0)):
        score = Score(6)
        for part in (slice(0, 11), slice(11, 50)):
            score.add(y_RD[part], got_RD[part], active_R[part])
        found = score.to_dict()
        assert found["fvu"] == pytest.approx(fvu, abs=1e-6)
        assert found["l0"] == 24.5 and found["rows"] == 50


@pytest.fixture(scope="module")
def workload(model, tmp_path_factory):
    sizes = {
        "n_layers": 2, "k": 4, "batch_tokens": 256, "context_tokens": 32, "holdout_tokens": 2048
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("workload")
    return prepare(folder, str(model), "python-docs", STEPS, **sizes)


def test_our_figures_are_those_that_the_run_reports(workload, tmp_path):
    manifest = tmp_path / "ours.yaml"
    run = Run(tool="ours", steps=STEPS, warmup=4, threads=1)
    manifest.write_text(yaml.safe_dump(workload.manifest("ours", run)))
    code, printed = run_here(manifest, tmp_path)
    assert code == 0, printed
    layers = held_out_quality(workload, {"ours": our_coders(tmp_path / "ours")})["ours"]
    files = sorted((tmp_path / "ours" / "transcoders").glob("*/evaluation.json"))
    assert len(files) == len(layers) == 2
    for file, layer in zip(files, layers, strict=True):
        for rows in ("ordinary", "all"):
            reported = json.loads(file.read_text())[rows]
            for figure in ("fvu", "l0", "rows"):
                assert layer[rows][figure] == pytest.approx(reported[figure], rel=1e-5), figure


def test_the_cut_model_gives_the_first_layers_of_the_whole_one(workload, model):
    ids = torch.arange(20)[None]
    whole, cut = load_model(str(model)).model.model, load_model(str(workload.model)).model.model
    states = [one(ids, output_hidden_states=True).hidden_states for one in (whole, cut)]
    assert (len(states[0]), len(states[1])) == (4, 3)
    assert torch.equal(states[0][1], states[1][1])  # the last of the cut one is normalised


def test_the_others_get_at_least_as_many_rows_of_the_same_text_and_none_held_out(workload):
    ids_CT = np.load(workload.folder / "contexts.npy")
    per_step = workload.batch_tokens // workload.context_tokens
    rows = int((~np.isin(ids_CT, workload.special_ids)).sum())
    assert len(ids_CT) % per_step == 0
    assert 0 <= rows - STEPS * workload.batch_tokens < workload.batch_tokens
    store = workload.store()
    training = {tuple(ids) for window in store.windows for ids in window.contexts().ids_CT}
    held = {tuple(ids) for ids in store.holdout("test").ids_CT}
    given = {tuple(ids) for ids in ids_CT}
    assert given <= training and not given & held and len(given) > 0.9 * len(ids_CT)


def test_where_the_text_is_short_the_others_get_it_again_in_another_order(workload):
    window = workload.store().windows[0].contexts()
    steps = 2 * window.n_rows // workload.batch_tokens + 3
    ids_CT = training_contexts(workload, steps)
    n = len(window.ids_CT)
    assert int((~np.isin(ids_CT, workload.special_ids)).sum()) >= steps * workload.batch_tokens
    first, second = ([tuple(ids) for ids in ids_CT[i * n : (i + 1) * n]] for i in range(2))
    assert sorted(first) == sorted(second) and first != second
