"""What a sound manifest is read as: values, defaults, options, specs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtc_core.config import TrainConfig, TranscoderSpec
from mtc_core.sites import Site
from mtc_core.tokens.data_config import DataConfig
from orchestrator.manifest import Manifest, expand, load_manifest, unchecked
from orchestrator.manifest.reference import reference, spliced
from orchestrator.manifest.schema import TrackingSection
from orchestrator.messages import ManifestError
from tests.orchestrator.manifests import write_manifest

MANIFESTS = Path(__file__).parents[2] / "manifests"


@pytest.mark.parametrize(
    ("written", "rows"),
    [
        ("1e8", 10**8),
        ("100_000_000", 10**8),
        ("100M", 10**8),
        ("2B", 2 * 10**9),
        ("1.5M", 1_500_000),
        ("20k", 20_000),
        ("0020000", 20_000),
        ('"20000"', 20_000),
    ],
)
def test_counts_are_read_as_people_write_them(written: str, rows: int, tmp_path: Path) -> None:
    manifest = load_manifest(write_manifest(tmp_path, {4: f"train: {{tokens: {written}}}"}))
    assert manifest.train.tokens == rows


def test_yaml_traps_are_read_as_written(tmp_path: Path) -> None:
    lines = {
        1: "name: 010",
        2: "model: {name: gpt2, revision: 1e8}",
        3: "data: {path: off, streaming: no}",
        4: "train: {tokens: 1M, batch_tokens: 010, lr: 1e-3}",
        8: "tracking: {wandb: off}",
    }
    manifest = load_manifest(write_manifest(tmp_path, lines))
    assert manifest.name == "010"
    assert manifest.model.revision == "1e8"
    assert (manifest.data.path, manifest.data.streaming) == ("off", False)
    assert (manifest.train.batch_tokens, manifest.train.lr) == (10, 0.001)
    assert manifest.tracking == TrackingSection(wandb="off")
    assert manifest.tracking.project == "mtc-orchestrator"


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    path = write_manifest(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_manifest(path).name == "t"


def test_cells_and_tracking_are_read(tmp_path: Path) -> None:
    lines = {
        8: "resources: {cells: 3}",
        9: "tracking: {wandb: online, project: 'a b', entity: me}",
    }
    manifest = load_manifest(write_manifest(tmp_path, lines))
    assert manifest.resources.cells == 3
    assert manifest.tracking == TrackingSection(wandb="online", project="a b", entity="me")
    plain = load_manifest(write_manifest(tmp_path))
    assert (plain.resources.cells, plain.tracking.wandb, plain.tracking.entity) == (
        "auto",
        "off",
        None,
    )


def test_sections_become_the_configs_of_the_core(tmp_path: Path) -> None:
    lines = {
        3: "data: {path: x, context_tokens: 64, subset: en}",
        4: "train: {tokens: 1M, warmup_steps: 7, lr: 1e-3, extreme: keep}",
    }
    manifest = load_manifest(write_manifest(tmp_path, lines))
    assert manifest.data.config() == DataConfig(path="x", context_tokens=64, subset="en")
    assert manifest.train.config() == TrainConfig(tokens=10**6, warmup_steps=7, extreme="keep")


def test_defaults_of_the_schema_are_those_of_the_core(tmp_path: Path) -> None:
    manifest = load_manifest(write_manifest(tmp_path))
    assert manifest.data.config() == DataConfig(path="python-docs")
    assert manifest.train.config() == TrainConfig(tokens=10**6)


def test_options_replace_add_and_are_read_like_the_file(tmp_path: Path) -> None:
    options = [
        "train.tokens=2M",
        "resources.threads=3",
        "transcoders[0].k=[8, 16]",
        "transcoders[0].layers=even",
    ]
    manifest = load_manifest(write_manifest(tmp_path), options)
    assert (manifest.train.tokens, manifest.resources.threads) == (2_000_000, 3)
    specs = expand(manifest, 12)
    assert [(s.source.layer, s.k) for s in specs[:3]] == [(0, 8), (0, 16), (2, 8)]


def specs_of(
    tmp_path: Path, *entries: str, lines: dict[int, str] | None = None
) -> tuple[TranscoderSpec, ...]:
    text = "\n".join(f"  - {{{entry}}}" for entry in entries)
    return expand(load_manifest(write_manifest(tmp_path, {7: text, **(lines or {})})), 12)


@pytest.mark.parametrize(
    ("written", "layers"),
    [
        ("all", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ("even", [0, 2, 4, 6, 8, 10]),
        ("odd", [1, 3, 5, 7, 9, 11]),
        ("2-4", [2, 3, 4]),
        ("[8, 0, 3]", [0, 3, 8]),
        ("010", [10]),
    ],
)
def test_layers_spread_an_entry(written: str, layers: list[int], tmp_path: Path) -> None:
    specs = specs_of(tmp_path, f"layers: {written}, source: resid_mid, target: mlp_out")
    assert [spec.source.layer for spec in specs] == layers
    assert [str(spec.target) for spec in specs] == [f"{layer}.mlp_out" for layer in layers]


def test_an_entry_is_completed_by_defaults_then_train_then_manifest(tmp_path: Path) -> None:
    lines = {
        4: "train: {tokens: 1M, lr: 1e-3}",
        5: "defaults: {group_sizes: [16, 16], k: 4, aux_weight: 0.5}",
        8: "seed: 7",
    }
    plain, own = specs_of(
        tmp_path,
        "source: 0.resid_mid, target: 0.mlp_out",
        "source: 1.resid_post, target: 3.resid_mid, group_sizes: [8], k: 2, lr: auto, seed: 1, "
        "k_aux: 5, selection: topk, prefix_weights: [0.25, 0.75], aux_weight: 0, d_sae: 8",
        lines=lines,
    )
    assert plain == TranscoderSpec(
        source=Site.at(0, "resid_mid"),
        target=Site.at(0, "mlp_out"),
        group_sizes=(16, 16),
        k=4,
        lr=0.001,
        seed=7,
        aux_weight=0.5,
    )
    assert own == TranscoderSpec(
        source=Site.at(1, "resid_post"),
        target=Site.at(3, "resid_mid"),
        group_sizes=(8,),
        k=2,
        lr=None,
        seed=1,
        k_aux=5,
        selection="topk",
        prefix_weights=(0.25, 0.75),
        aux_weight=0.0,
    )


def test_lists_of_single_values_multiply(tmp_path: Path) -> None:
    specs = specs_of(
        tmp_path,
        "layers: 0-1, source: resid_mid, target: mlp_out, k: [32, 64], seed: [0, 1], "
        "lr: [auto, 1e-3]",
    )
    assert len({spec.id for spec in specs}) == 16
    combinations = {(s.source.layer, s.k, s.seed, s.lr) for s in specs}
    assert combinations == {
        (layer, k, seed, lr)
        for layer in (0, 1)
        for k in (32, 64)
        for seed in (0, 1)
        for lr in (None, 0.001)
    }


def test_a_sweep_in_defaults_reaches_every_entry_without_its_own(tmp_path: Path) -> None:
    specs = specs_of(
        tmp_path,
        "source: 0.resid_mid, target: 0.mlp_out",
        "source: 1.resid_mid, target: 1.mlp_out, k: 8",
        lines={5: "defaults: {group_sizes: [64], k: [16, 32]}"},
    )
    assert [(s.source.layer, s.k) for s in specs] == [(0, 16), (0, 32), (1, 8)]


def test_the_default_d_sae_does_not_check_sizes_that_an_entry_replaces(tmp_path: Path) -> None:
    (spec,) = specs_of(
        tmp_path,
        "source: 0.resid_mid, target: 0.mlp_out, group_sizes: [8, 8]",
        lines={5: "defaults: {group_sizes: [64, 64], d_sae: 128, k: 4}"},
    )
    assert spec.d_sae == 16


def test_full_hook_names_are_sites(tmp_path: Path) -> None:
    named, hooks = specs_of(
        tmp_path,
        "source: 3.resid_mid, target: 3.mlp_out, seed: 1",
        "source: blocks.3.hook_resid_mid, target: blocks.3.hook_mlp_out",
    )
    assert (hooks.source, hooks.target) == (named.source, named.target)
    (other,) = specs_of(tmp_path, "source: hook_embed, target: blocks.0.attn.hook_z")
    assert other.target.hook == "blocks.0.attn.hook_z"


def test_ids_do_not_depend_on_the_order_of_entries(tmp_path: Path) -> None:
    one, two = (f"source: {i}.resid_mid, target: {i}.mlp_out" for i in (3, 4))
    forward = {spec.id for spec in specs_of(tmp_path, one, two)}
    assert forward == {spec.id for spec in specs_of(tmp_path, two, one)}
    assert {id.rpartition("-")[0] for id in forward} == {
        "L03.resid_mid-L03.mlp_out",
        "L04.resid_mid-L04.mlp_out",
    }


def test_an_unknown_model_is_checked_as_far_as_it_goes(tmp_path: Path) -> None:
    unknown = {
        2: "model: {name: nobody/nothing}",
        7: "  - {layers: all, source: resid_mid, target: mlp_out}",
    }
    manifest = load_manifest(write_manifest(tmp_path, unknown))
    assert unchecked(manifest) == [
        "transcoders[0].layers: all",
        "transcoders: whether nobody/nothing has these layers and sites",
    ]
    assert len(expand(manifest, 5)) == 5
    with pytest.raises(ManifestError, match='"all" needs the model\'s layer count'):
        expand(manifest, None)

    too_many = {**unknown, 5: "defaults: {group_sizes: [8], k: 64}"}
    with pytest.raises(ManifestError, match="k = 64 is larger than d_sae = 8"):
        load_manifest(write_manifest(tmp_path, too_many))


def test_a_known_model_leaves_nothing_unchecked(tmp_path: Path) -> None:
    assert unchecked(load_manifest(write_manifest(tmp_path))) == []


def test_a_local_folder_gives_its_own_shape(tmp_path: Path) -> None:
    (tmp_path / "gpt2-tiny").mkdir()
    (tmp_path / "gpt2-tiny" / "config.json").write_text(
        '{"model_type": "gpt2", "n_layer": 2, "n_embd": 8, "n_head": 2, "vocab_size": 9, '
        '"n_positions": 1024}'
    )
    lines = {
        2: f"model: {{name: {tmp_path}/gpt2-tiny}}",
        7: "  - {layers: 0-2, source: resid_mid, target: mlp_out}",
    }
    with pytest.raises(ManifestError, match="layer 2 is out of range; the model has layers 0 to 1"):
        load_manifest(write_manifest(tmp_path, lines))


def test_a_manifest_survives_json(tmp_path: Path) -> None:
    entry = "layers: [0, 3], source: resid_mid, target: mlp_out, k: [4, 8], lr: [auto, 0.5]"
    lines = {5: "defaults: {group_sizes: [8, 8], k: 4}", 7: f"  - {{{entry}}}"}
    manifest = load_manifest(write_manifest(tmp_path, lines))
    again = Manifest.model_validate(manifest.model_dump(mode="json"))
    assert again.model_dump() == manifest.model_dump()
    assert expand(again, 12) == expand(manifest, 12)


@pytest.mark.parametrize("path", sorted(MANIFESTS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_manifest_is_valid(path: Path) -> None:
    manifest = load_manifest(path)
    assert unchecked(manifest) == []
    assert manifest.train.config().steps > 0


def test_the_quickstart_is_four_small_transcoders() -> None:
    manifest = load_manifest(MANIFESTS / "quickstart.yaml")
    specs = expand(manifest, 30)
    assert [spec.source.layer for spec in specs] == [0, 1, 2, 3]
    assert {(spec.d_sae, spec.k, spec.lr) for spec in specs} == {(4608, 32, 0.003)}
    assert manifest.train.config().steps == 204


def test_the_key_tables_of_the_readme_are_those_of_the_schema() -> None:
    document = (MANIFESTS / "README.md").read_text(encoding="utf-8")
    assert spliced(document) == document


def test_every_key_is_documented_with_its_default() -> None:
    text = reference()
    assert "| `batch_tokens` | whole number | `8192` | rows |  | Rows of one step. |" in text
    assert text.count("| key | accepts | default | unit | may change | meaning |") == 9


@pytest.mark.parametrize("written", ["{tokens: }", "{tokens: null}", "{tokens: abc}"])
def test_an_override_stands_for_whatever_was_written(tmp_path: Path, written: str) -> None:
    path = write_manifest(tmp_path, {4: f"train: {written}"})
    assert load_manifest(path, ["train.tokens=1M"]).train.tokens == 10**6
    with pytest.raises(ManifestError, match=r"train\.tokens"):
        load_manifest(path)
