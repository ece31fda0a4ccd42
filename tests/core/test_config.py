"""Specs and settings: what is refused, what decides an id, and what defaults come to."""

from dataclasses import replace

import pytest

from mtc_core import Site, TrainConfig, TranscoderSpec
from mtc_core.errors import ConfigError, SiteError

SPEC = TranscoderSpec(
    source=Site.parse("8.resid_mid"), target=Site.parse("8.mlp_out"), group_sizes=(64, 192), k=16
)
TRAIN = TrainConfig(tokens=1000 * 4096, batch_tokens=4096)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"group_sizes": ()}, "group_sizes must be positive sizes"),
        ({"group_sizes": (4, 0)}, "group_sizes must be positive sizes"),
        ({"k": 0}, "k must be at least 1"),
        ({"k": 257}, "k = 257 is larger than d_sae = 256"),
        ({"selection": "BatchTopK"}, "selection must be one of batchtopk, topk, found 'BatchTopK'"),
        ({"target": Site.parse("8.resid_mid")}, "are the same tensor"),
        (
            {"source": Site.parse("7.resid_post"), "target": Site.parse("8.resid_pre")},
            "same tensor",
        ),
        ({"prefix_weights": (0.5, 0.5)}, "prefix_weights needs 3 numbers"),
        ({"prefix_weights": (0.5, 0.5, 0.5)}, "sum to 1"),
        ({"prefix_weights": (0.5, 0.5, 0.0)}, "nothing would train the last group"),
        ({"lr": 0.0}, "lr must be a positive number"),
        ({"aux_weight": -1.0}, "aux_weight must be at least 0"),
        ({"k_aux": 0}, "k_aux must be at least 1"),
    ],
)
def test_a_spec_that_cannot_be_trained_is_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        replace(SPEC, **changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tokens": 0}, "tokens must be at least 1"),
        ({"batch_tokens": 0}, "batch_tokens must be at least 1"),
        ({"dtype": "float64"}, "dtype must be one of float32, bfloat16, found 'float64'"),
        ({"extreme": "masked"}, "extreme must be one of mask, bound, keep, found 'masked'"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0"),
        ({"dead_after_tokens": -1}, "dead_after_tokens must be at least 0"),
        ({"decay_fraction": 2.0}, "decay_fraction must be between 0 and 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        replace(TRAIN, **changes)


def test_an_id_is_readable_and_differs_with_everything_that_decides_the_weights():
    assert SPEC.id.startswith("L08.resid_mid-L08.mlp_out-")
    changed = [
        replace(SPEC, k=17),
        replace(SPEC, seed=1),
        replace(SPEC, selection="topk"),
        replace(SPEC, lr=1e-3),
        replace(SPEC, group_sizes=(192, 64)),
        replace(SPEC, prefix_weights=(0.0, 0.1, 0.9)),
        replace(SPEC, aux_weight=0.0),
    ]
    assert len({spec.id for spec in [SPEC, *changed]}) == len(changed) + 1
    assert TranscoderSpec.from_dict(SPEC.to_dict()) == SPEC


def test_defaults_that_depend_on_sizes():
    assert SPEC.widths == (64, 256) and SPEC.weights == (0.0, 0.5, 0.5)
    long = 2e-4 * 8  # 256 is 2**14 / 64
    rates = [SPEC.learning_rate(steps) / long for steps in (10**7, 300_000, 75_000, 3000, 100, 0)]
    assert rates == pytest.approx([1, 1, 2, 10, 16, 16])
    assert replace(SPEC, lr=0.5).learning_rate(100) == 0.5
    assert (TRAIN.lr_steps, replace(TRAIN, lr_by_steps=False).lr_steps) == (TRAIN.steps, 300_000)
    assert (TRAIN.steps, TRAIN.warmup, TRAIN.dead_after) == (1000, 50, 512_000)
    assert replace(TRAIN, tokens=10**9).dead_after == 10_000_000


def test_a_misspelt_site_names_the_nearest():
    with pytest.raises(SiteError, match=r"unknown site 'mlp_ouput'; did you mean .mlp_out.\?"):
        Site.parse("8.mlp_ouput")
    assert Site.parse("blocks.8.hook_mlp_out") == Site.parse("8.mlp_out")
    assert Site.parse("3.resid_pre").tensor == Site.parse("2.resid_post").tensor
