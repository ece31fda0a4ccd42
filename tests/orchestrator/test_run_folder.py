"""A run folder belongs to one identity from the first thing that is trained in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mtc_core.errors import ConfigError
from orchestrator.manifest import Manifest, load_manifest, with_contexts
from orchestrator.run_folder import folder as run_folder
from orchestrator.run_folder.folder import Found, RunFolder, resolve
from tests.orchestrator.manifests import manifest_text, write_manifest

PINS = {"model_commit": "abc", "provider": "hf"}


def manifest_of(
    tmp_path: Path, lines: dict[int, str] | None = None, options: tuple[str, ...] = ()
) -> Manifest:
    return load_manifest(write_manifest(tmp_path, lines), options)


def open_run(
    tmp_path: Path,
    lines: dict[int, str] | None = None,
    options: tuple[str, ...] = (),
    cores: int = 2,
    pins: dict[str, Any] = PINS,
) -> Found:
    """What `run` does with the folder before it reads text."""
    manifest = manifest_of(tmp_path, lines, options)
    folder = RunFolder(tmp_path / "runs", manifest.name)
    on_a_cpu = with_contexts(manifest, gpus=False)
    found = folder.examine(manifest, resolve(on_a_cpu, 12, cores))
    if not found.resumed:
        found.resolved["pins"] = pins
        folder.begin(found.resolved, manifest.source_text)
    return found


def open_and_train(tmp_path: Path) -> None:
    """Begin a run and leave what its first checkpoint does."""
    open_run(tmp_path)
    (tmp_path / "runs/t/transcoders/L00/checkpoints/step-000000001").mkdir(parents=True)


def refusal(tmp_path: Path, lines: dict[int, str] | None = None, *options: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        open_run(tmp_path, lines, options)
    return str(error.value).split("\n")


def test_paths_are_those_of_the_contract(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "x")
    one = folder.transcoder("L00")
    paths = [folder.manifest, folder.resolved, folder.plan, folder.log, folder.tokens]
    paths += [one.config, one.metrics, one.checkpoints, one.final]
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "x/manifest.yaml",
        "x/resolved.json",
        "x/plan.json",
        "x/log.txt",
        "x/tokens",
        "x/transcoders/L00/config.json",
        "x/transcoders/L00/metrics.jsonl",
        "x/transcoders/L00/checkpoints",
        "x/transcoders/L00/final",
    ]


def test_the_first_invocation_writes_the_manifest_verbatim_and_resolved(tmp_path: Path) -> None:
    lines = {8: "# a comment that stays"}
    opened = open_run(tmp_path, lines, ("train.tokens=2M",), cores=3)
    folder = tmp_path / "runs" / "t"
    assert not opened.resumed
    assert (folder / "manifest.yaml").read_text() == manifest_text(lines)
    resolved = json.loads((folder / "resolved.json").read_text())
    assert resolved == opened.resolved
    assert (resolved["train"]["tokens"], resolved["train"]["batch_tokens"]) == (2_000_000, 8192)
    assert resolved["resources"]["threads"] == 3
    assert resolved["pins"] == PINS
    assert [spec["source"] for spec in resolved["specs"].values()] == [
        "blocks.0.hook_resid_mid",
        "blocks.1.hook_resid_mid",
    ]


def test_the_same_manifest_continues_without_changes(tmp_path: Path) -> None:
    first = open_run(tmp_path)
    again = open_run(tmp_path)
    assert again.resumed
    assert again.changes == ()
    assert again.resolved == first.resolved


def test_what_was_recorded_is_never_rewritten(tmp_path: Path) -> None:
    open_run(tmp_path)
    before = (tmp_path / "runs/t/resolved.json").read_bytes()
    open_run(tmp_path, {8: "resources: {checkpoint_keep: 5}"})
    assert (tmp_path / "runs/t/resolved.json").read_bytes() == before
    assert (tmp_path / "runs/t/manifest.yaml").read_text() == manifest_text()


def test_a_difference_is_shown_key_by_key_with_the_way_out(tmp_path: Path) -> None:
    open_and_train(tmp_path)
    changed = {3: "data: {path: python-docs, subset: en}", 8: "seed: 3"}
    assert refusal(tmp_path, changed, "train.tokens=2M", "model.dtype=bfloat16") == [
        f"{tmp_path}/runs/t holds a run of another manifest:",
        "  seed: was 0, now 3",
        '  model.dtype: was "float32", now "bfloat16"',
        '  data.subset: was not given, now "en"',
        "  train.tokens: was 1000000, now 2000000",
        "To continue it, restore these; to keep both, give this one another name "
        "(name: in the manifest, or --set name=…).",
    ]


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("defaults.k=32", "  defaults.k: was 64, now 32"),
        (
            "defaults.group_sizes=[768, 768]",
            "  defaults.group_sizes: was [768, 1536], now [768, 768]",
        ),
        ("transcoders[0].seed=[0, 1]", "  transcoders[0].seed: was not given, now [0, 1]"),
        ("transcoders[0].layers=0-2", "  transcoders[0].layers: was [0, 1], now [0, 1, 2]"),
        ("train.lr=1e-3", '  train.lr: was "auto", now 0.001'),
        ("train.extreme=keep", '  train.extreme: was "mask", now "keep"'),
        ("resources.threads=7", "  resources.threads: was 2, now 7"),
    ],
)
def test_every_part_of_the_identity_is_compared(option: str, line: str, tmp_path: Path) -> None:
    open_and_train(tmp_path)
    assert refusal(tmp_path, None, option)[1] == line


@pytest.mark.parametrize(
    "lines",
    [
        {7: "  - {layers: 1, source: resid_mid, target: mlp_out}\n"
            "  - {source: 0.resid_mid, target: 0.mlp_out}"},
        {5: "defaults: {group_sizes: [768, 1536], k: 64, d_sae: 2304}"},
        {5: "defaults: {group_sizes: [768, 1536]}",
         7: "  - {layers: [0, 1], source: resid_mid, target: mlp_out, k: 64}"},
    ],
    ids=["reordered", "checked by d_sae", "k moved to the entry"],
)  # fmt: skip
def test_another_way_to_write_the_same_transcoders_continues(
    lines: dict[int, str], tmp_path: Path
) -> None:
    open_run(tmp_path)
    assert open_run(tmp_path, lines).resumed


def test_resources_may_change_and_are_told(tmp_path: Path) -> None:
    open_run(tmp_path)
    lines = {8: "resources: {device: cpu, checkpoint_minutes: 1, checkpoint_keep: 3}"}
    opened = open_run(tmp_path, lines)
    assert opened.changes == (
        'resources.device: was "auto", now "cpu"',
        "resources.checkpoint_minutes: was 15.0, now 1.0",
        "resources.checkpoint_keep: was 2, now 3",
    )
    assert opened.resolved["resources"]["checkpoint_keep"] == 3


def test_auto_threads_keep_the_number_of_the_first_invocation(tmp_path: Path) -> None:
    open_run(tmp_path, cores=2)
    assert open_run(tmp_path, cores=16).resolved["resources"]["threads"] == 2
    assert open_run(tmp_path, options=("resources.threads=2",)).resumed


def test_specs_that_differ_under_the_same_keys_are_shown(tmp_path: Path) -> None:
    lines = {2: "model: {name: x/y}", 7: "  - {layers: all, source: resid_mid, target: mlp_out}"}
    manifest = manifest_of(tmp_path, lines)
    folder = RunFolder(tmp_path, "t")
    folder.begin({**resolve(manifest, 1, 2), "pins": PINS}, "")
    folder.transcoder("L00").final.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"specs\.L01\.\S+: was not given, now 64"):
        folder.examine(manifest, resolve(manifest, 2, 2))


def test_a_manifest_replaces_one_under_which_nothing_was_trained(tmp_path: Path) -> None:
    open_run(tmp_path)
    folder = tmp_path / "runs" / "t"
    for name in ("tokens", "transcoders/L00/checkpoints"):
        (folder / name).mkdir(parents=True)
    lines = {3: "data: {path: corpus.txt}"}
    found = open_run(tmp_path, lines, pins={"provider": "bridge"})
    assert not found.resumed
    assert found.changes == ('data.path: was "python-docs", now "corpus.txt"',)
    assert (folder / "manifest.yaml").read_text() == manifest_text(lines)
    resolved = json.loads((folder / "resolved.json").read_text())
    assert resolved["data"]["path"] == "corpus.txt"
    assert resolved["pins"] == {"provider": "bridge"}
    assert not (folder / "transcoders").exists()
    assert (folder / "tokens").exists()  # whether they still fit is not for the folder to say


@pytest.mark.parametrize("trace", ["checkpoints/step-000000001", "final", "failed.json"])
def test_anything_trained_keeps_the_folder_to_its_manifest(tmp_path: Path, trace: str) -> None:
    open_run(tmp_path)
    (tmp_path / "runs/t/transcoders/L00" / trace).mkdir(parents=True)
    before = (tmp_path / "runs/t/resolved.json").read_bytes()
    assert refusal(tmp_path, {8: "seed: 3"})[1] == "  seed: was 0, now 3"
    assert (tmp_path / "runs/t/resolved.json").read_bytes() == before


@pytest.mark.parametrize("call", ["rmtree", "write_bytes_atomic", "write_json_atomic"])
def test_a_replacement_that_is_killed_leaves_a_folder_that_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    open_run(tmp_path)
    transcoders = tmp_path / "runs/t/transcoders"
    for made in (transcoders, tmp_path / "runs/t/invocations"):
        made.mkdir()
    (tmp_path / "runs/t/invocations/0001.begin.json").write_text("{}")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    owner = run_folder.shutil if call == "rmtree" else run_folder
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, call, die)
        open_run(tmp_path, {8: "seed: 3"})
    found = open_run(tmp_path, {8: "seed: 4"})
    assert not found.resumed and found.resolved["seed"] == 4
    assert not transcoders.exists()
    assert open_run(tmp_path, {8: "seed: 4"}).resumed


def test_trained_transcoders_without_resolved_json_are_never_thrown_away(tmp_path: Path) -> None:
    open_and_train(tmp_path)
    (tmp_path / "runs/t/resolved.json").unlink()
    with pytest.raises(ConfigError, match=r"holds trained transcoders, and no resolved\.json"):
        open_run(tmp_path)


def test_pins_of_the_first_invocation_rule(tmp_path: Path) -> None:
    open_run(tmp_path)
    moved = open_run(tmp_path, pins={"model_commit": "moved", "provider": "bridge"})
    assert moved.resolved["pins"] == PINS


def test_another_name_is_another_folder(tmp_path: Path) -> None:
    open_run(tmp_path)
    assert not open_run(tmp_path, options=("name=u", "train.tokens=2M")).resumed
    assert (tmp_path / "runs" / "u" / "resolved.json").exists()


def test_a_run_that_died_before_resolved_json_begins_again(tmp_path: Path) -> None:
    open_run(tmp_path)
    (tmp_path / "runs/t/resolved.json").unlink()
    assert not open_run(tmp_path, options=("train.tokens=2M",)).resumed


def test_a_key_that_is_newer_than_the_run_takes_its_default(tmp_path: Path) -> None:
    open_run(tmp_path)
    path = tmp_path / "runs/t/resolved.json"
    older = json.loads(path.read_text())
    del older["train"]["log_every_steps"], older["tracking"]
    path.write_text(json.dumps(older))
    assert open_run(tmp_path).changes == ()


def test_a_damaged_or_foreign_resolved_json_is_told(tmp_path: Path) -> None:
    open_run(tmp_path)
    path = tmp_path / "runs/t/resolved.json"
    whole = path.read_text()
    path.write_text(whole[:100])
    with pytest.raises(ConfigError, match=r"resolved\.json is damaged"):
        open_run(tmp_path)
    path.write_text(whole.replace('"log_every_steps"', '"log_sometimes"'))
    with pytest.raises(ConfigError, match=r"cannot be read by this version \(keys: train\)"):
        open_run(tmp_path)


def test_roots_that_cannot_hold_a_run_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--root s3://bucket: object stores"):
        RunFolder("s3://bucket", "t")
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(ConfigError, match=r"cannot be written .*choose another --root"):
        open_run(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be read .*choose another --root"):
        RunFolder(tmp_path / ("x" * 300), "t").recorded()


@pytest.mark.parametrize("what", [
    "tokens/mine.txt", "transcoders/mine.txt", "evaluations/mine.csv", "features/mine.txt",
    "report.html", "plan.json",
])  # fmt: skip
def test_what_is_somebody_elses_is_never_cleared(tmp_path: Path, what: str) -> None:
    mine = tmp_path / "t" / what
    mine.parent.mkdir(parents=True)
    mine.write_text("keep")
    (tmp_path / "t/manifest.yaml").write_text("a manifest of the user's own lies there, too")
    manifest = load_manifest(write_manifest(tmp_path))
    folder = RunFolder(tmp_path, "t")
    with pytest.raises(
        ConfigError, match=rf"is no run folder, and has a \w+ {what.split('/')[0]} of"
    ):
        folder.examine(manifest, resolve(manifest, 12, 2))
    assert mine.read_text() == "keep"


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"pins": {}}', "{"])
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    folder = RunFolder(tmp_path, "t")
    folder.path.mkdir()
    folder.resolved.write_text(content)
    with pytest.raises(ConfigError, match=r"resolved\.json is damaged"):
        folder.recorded()
