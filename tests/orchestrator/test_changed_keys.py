"""What a changed manifest gets, for every key that there is: it continues and says so, or is
refused with the difference and the way out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mtc_core.errors import ConfigError
from orchestrator.manifest import load_manifest
from orchestrator.manifest.keys import Section, may_change
from orchestrator.manifest.schema import Entry, Manifest, TranscoderFields
from orchestrator.messages import KeyPath
from orchestrator.run_folder.folder import RunFolder, resolve
from tests.orchestrator.manifests import write_manifest
from tests.orchestrator.test_run_folder import open_and_train, open_run, refusal

# Key, a value other than that of the sound manifest, and what the message says was and is.
REFUSED = {
    "seed": ("3", "was 0, now 3"),
    "init_from": ("old", 'was not given, now "old"'),
    "model.name": ("gpt2-medium", 'was "gpt2", now "gpt2-medium"'),
    "model.revision": ("v2", 'was "main", now "v2"'),
    "model.dtype": ("bfloat16", 'was "float32", now "bfloat16"'),
    "model.provider": ("bridge", 'was "auto", now "bridge"'),
    "model.forward_contexts": ("8", "was 16, now 8"),
    "model.trust_remote_code": ("yes", "was false, now true"),
    "data.path": ("x.txt", 'was "python-docs", now "x.txt"'),
    "data.subset": ("en", 'was not given, now "en"'),
    "data.column": ("body", 'was "text", now "body"'),
    "data.split": ("test", 'was "train", now "test"'),
    "data.revision": ("v2", 'was "main", now "v2"'),
    "data.streaming": ("no", "was true, now false"),
    "data.context_tokens": ("64", "was 128, now 64"),
    "data.holdout_tokens": ("8192", "was 65536, now 8192"),
    "data.shuffle_tokens": ("1M", "was 4000000, now 1000000"),
    "train.tokens": ("2M", "was 1000000, now 2000000"),
    "train.batch_tokens": ("4096", "was 8192, now 4096"),
    "train.block_batches": ("2", "was 4, now 2"),
    "train.lr": ("1e-3", 'was "auto", now 0.001'),
    "train.extreme": ("keep", 'was "mask", now "keep"'),
    "train.dtype": ("bfloat16", 'was "float32", now "bfloat16"'),
    "train.warmup_steps": ("7", 'was "auto", now 7'),
    "train.decay_fraction": ("0.5", "was 0.2, now 0.5"),
    "train.dead_after_tokens": ("1M", 'was "auto", now 1000000'),
    "train.log_every_steps": ("1", "was 10, now 1"),
    "train.kernels": ("torch", 'was "auto", now "torch"'),
    "defaults.group_sizes": ("[768, 768]", "was [768, 1536], now [768, 768]"),
    "defaults.k": ("32", "was 64, now 32"),
    "defaults.selection": ("topk", 'was not given, now "topk"'),
    "defaults.prefix_weights": ("[0, 0.1, 0.9]", "was not given, now [0.0, 0.1, 0.9]"),
    "defaults.lr": ("1e-3", "was not given, now 0.001"),
    "defaults.aux_weight": ("0", "was not given, now 0.0"),
    "defaults.k_aux": ("5", "was not given, now 5"),
    "defaults.skip": ("true", "was not given, now true"),
    "defaults.seed": ("5", "was not given, now 5"),
    "transcoders[0].layers": ("0-2", "was [0, 1], now [0, 1, 2]"),
    "transcoders[0].source": ("resid_pre", 'was "resid_mid", now "resid_pre"'),
    "transcoders[0].target": ("attn_out", 'was "mlp_out", now "attn_out"'),
    "transcoders[0].group_sizes": ("[768, 768]", "was not given, now [768, 768]"),
    "transcoders[0].k": ("[64, 32]", "was not given, now [64, 32]"),
    "transcoders[0].selection": ("topk", 'was not given, now "topk"'),
    "transcoders[0].prefix_weights": ("[0, 0, 1]", "was not given, now [0.0, 0.0, 1.0]"),
    "transcoders[0].lr": ("1e-3", "was not given, now 0.001"),
    "transcoders[0].aux_weight": ("0", "was not given, now 0.0"),
    "transcoders[0].k_aux": ("5", "was not given, now 5"),
    "transcoders[0].skip": ("true", "was not given, now true"),
    "transcoders[0].seed": ("[0, 1]", "was not given, now [0, 1]"),
    "resources.threads": ("7", "was 2, now 7"),
}
CONTINUES = {
    "resources.topology": ("split", 'was "auto", now "split"'),
    "resources.device": ("cpu", 'was "auto", now "cpu"'),
    "resources.cells": ("2", 'was "auto", now 2'),
    "resources.producers": ("2", 'was "auto", now 2'),
    "resources.prefetch_steps": ("2", 'was "auto", now 2'),
    "resources.checkpoint_minutes": ("1", "was 15.0, now 1.0"),
    "resources.checkpoint_keep": ("3", "was 2, now 3"),
    "eval.spliced_tokens": ("64", 'was "auto", now 64'),
    "tracking.wandb": ("offline", 'was "off", now "offline"'),
    "tracking.project": ("mine", 'was "mtc-orchestrator", now "mine"'),
    "tracking.entity": ("me", 'was not given, now "me"'),
}
# It checks what other keys say, and is part of nothing.
CHECKS_ONLY = {"defaults.d_sae", "transcoders[0].d_sae"}


def keys(section: type[Section], path: str = "") -> Iterator[str]:
    for name, info in section.model_fields.items():
        inner = info.annotation
        if name == "transcoders":
            yield from keys(Entry, "transcoders[0].")
        elif isinstance(inner, type) and issubclass(inner, Section):
            yield from keys(inner, f"{name}.")
        else:
            yield f"{path}{name}"


def path_of(key: str) -> KeyPath:
    return tuple(key.replace("[0]", "").split("."))


def test_the_tables_have_every_key_of_the_schema() -> None:
    assert {"name", *REFUSED, *CONTINUES, *CHECKS_ONLY} == set(keys(Manifest))
    assert {key for key in keys(Manifest) if may_change(path_of(key))} == set(CONTINUES)
    assert set(TranscoderFields.model_fields) < set(Entry.model_fields)


@pytest.mark.parametrize("key", REFUSED)
def test_what_decides_the_result_is_refused_with_the_way_out(key: str, tmp_path: Path) -> None:
    open_and_train(tmp_path)
    value, told = REFUSED[key]
    assert refusal(tmp_path, None, f"{key}={value}") == [
        f"{tmp_path}/runs/t holds a run of another manifest:",
        f"  {key}: {told}",
        "To continue it, restore these; to keep both, give this one another name "
        "(name: in the manifest, or --set name=…).",
    ]


@pytest.mark.parametrize("key", ["train.tokens", "defaults.k", "defaults.group_sizes"])
def test_starting_from_its_weights_is_offered_where_that_works(key: str, tmp_path: Path) -> None:
    open_and_train(tmp_path)
    option = f"{key}={REFUSED[key][0]}"
    for id in open_run(tmp_path).resolved["specs"]:
        (tmp_path / "runs/t/transcoders" / id / "final").mkdir(parents=True)
    offered = "init_from" in refusal(tmp_path, None, option)[-2:][-1]
    assert offered == (key != "defaults.group_sizes")
    (tmp_path / "runs/t/transcoders" / id / "final").rmdir()  # one of them is not finished
    assert "init_from" not in "".join(refusal(tmp_path, None, option))


@pytest.mark.parametrize("key", CONTINUES)
def test_what_decides_nothing_continues_and_is_told(key: str, tmp_path: Path) -> None:
    open_and_train(tmp_path)
    value, told = CONTINUES[key]
    found = open_run(tmp_path, None, (f"{key}={value}",))
    assert found.resumed
    assert found.changes == (f"{key}: {told}",)


@pytest.mark.parametrize("key", sorted(CHECKS_ONLY))
def test_a_key_that_only_checks_changes_nothing(key: str, tmp_path: Path) -> None:
    open_and_train(tmp_path)
    found = open_run(tmp_path, None, (f"{key}=2304",))
    assert found.resumed and found.changes == ()


def test_another_name_is_another_run(tmp_path: Path) -> None:
    open_and_train(tmp_path)
    manifest = load_manifest(write_manifest(tmp_path), ["name=u"])
    folder = RunFolder(tmp_path / "runs", manifest.name)
    assert not folder.examine(manifest, resolve(manifest, 12, 2)).resumed


def test_all_differences_come_at_once(tmp_path: Path) -> None:
    open_and_train(tmp_path)
    fitting = ("seed", "model.dtype", "data.subset", "train.lr", "defaults.k", "resources.threads")
    options = [f"{key}={REFUSED[key][0]}" for key in fitting]
    with pytest.raises(ConfigError) as error:
        open_run(tmp_path, None, (*options, "tracking.wandb=offline"))
    told = [line.strip() for line in str(error.value).splitlines() if line.startswith("  ")]
    assert told == [f"{key}: {REFUSED[key][1]}" for key in fitting]
