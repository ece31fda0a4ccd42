"""Which saved transcoder another one starts from, and what is told where there is none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mtc_core.config import TranscoderSpec
from mtc_core.errors import CheckpointError, ConfigError
from mtc_core.sites import Site
from orchestrator.model_shapes import find_shape
from orchestrator.run_folder.init_from import Start, find_starts
from tests.orchestrator.plans import gpt2

SPEC = TranscoderSpec(
    source=Site.parse("8.resid_mid"), target=Site.parse("8.mlp_out"), group_sizes=(4, 4), k=2
)


def save(run: Path, *specs: TranscoderSpec) -> Path:
    """The files of finished transcoders that are looked at; weights are only hashed here."""
    for spec in specs:
        final = run / "transcoders" / spec.id / "final"
        final.mkdir(parents=True)
        config = {"format": "mtc-transcoder", "format_version": 1, **spec.to_dict()}
        config |= {"d_in": 768, "d_out": 768, "model": {"name": "gpt2", "commit": "c"}}
        (final / "config.json").write_text(json.dumps(config))
        (final / "weights.safetensors").write_text(spec.id)
    return run


def chosen(run: Path, spec: TranscoderSpec) -> str:
    return find_starts(run, [spec], gpt2())[0][spec.id].folder.parent.name


def test_the_equal_one_is_taken_whatever_stands_beside_it(tmp_path: Path) -> None:
    others = [replace(SPEC, k=1), replace(SPEC, seed=1), replace(SPEC, lr=0.1)]
    run = save(tmp_path / "old", *others, SPEC)
    for spec in (SPEC, *others):
        assert chosen(run, spec) == spec.id


def test_else_the_one_that_is_most_like_it(tmp_path: Path) -> None:
    run = save(tmp_path / "old", SPEC, replace(SPEC, seed=1), replace(SPEC, k=4))
    assert chosen(run, replace(SPEC, lr=0.5)) == SPEC.id
    assert chosen(run, replace(SPEC, k=4, lr=0.5)) == replace(SPEC, k=4).id
    assert chosen(run, replace(SPEC, seed=1, lr=0.5)) == replace(SPEC, seed=1).id
    # How many latents are kept weighs more than where they began.
    assert chosen(run, replace(SPEC, seed=1, k=4)) == replace(SPEC, k=4).id


@pytest.mark.parametrize(("k", "nearest"), [(1, 2), (3, 4), (5, 4), (7, 8), (6, 8)])
def test_of_a_sweep_the_nearest_k_whatever_the_hashes_say(
    k: int, nearest: int, tmp_path: Path
) -> None:
    for seed in range(5):
        run = save(tmp_path / str(seed), *(replace(SPEC, k=n, seed=seed) for n in (2, 4, 8)))
        assert chosen(run, replace(SPEC, k=k, seed=9)) == replace(SPEC, k=nearest, seed=seed).id


def test_the_models_of_the_sources_are_told_and_widths_must_fit(tmp_path: Path) -> None:
    run = save(tmp_path / "old", SPEC)
    assert find_starts(run, [SPEC], gpt2())[1] == ["gpt2 (c)"]
    medium = find_shape("gpt2-medium", "main", online=False)
    assert medium is not None
    with pytest.raises(ConfigError, match=r"8\.mlp_out .*\nIt has:\n  .*, 768 -> 768, group_sizes"):
        find_starts(run, [SPEC], medium)


def test_other_sites_or_sizes_never_fit_and_all_that_lack_one_are_told(tmp_path: Path) -> None:
    run = save(tmp_path / "old", SPEC)
    lacking = [
        replace(SPEC, group_sizes=(8,)),
        replace(SPEC, target=Site.parse("9.mlp_out")),
    ]
    with pytest.raises(ConfigError) as error:
        find_starts(run, [SPEC, *lacking], gpt2())
    assert str(error.value).splitlines() == [
        f"init_from: {run} has no finished transcoder for",
        "  8.resid_mid -> 8.mlp_out with group_sizes [8]",
        "  8.resid_mid -> 9.mlp_out with group_sizes [4, 4]",
        "It has:",
        f"  {SPEC.id}, 768 -> 768, group_sizes [4, 4]",
        "Train what is missing there to its end, or leave it out here",
    ]


def test_weights_that_change_or_vanish_are_told(tmp_path: Path) -> None:
    run = save(tmp_path / "old", SPEC)
    start = find_starts(run, [SPEC], gpt2())[0][SPEC.id]
    start.check()
    assert Start.from_dict(json.loads(json.dumps(start.to_dict()))) == start
    (start.folder / "weights.safetensors").write_text("others")
    with pytest.raises(ConfigError, match=r"weights\.safetensors has changed since this run began"):
        start.check()
    (start.folder / "weights.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"weights\.safetensors is not there; restore it"):
        start.check()


def test_a_damaged_neighbour_is_named(tmp_path: Path) -> None:
    run = save(tmp_path / "old", SPEC)
    (run / "transcoders" / SPEC.id / "final" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        find_starts(run, [SPEC], gpt2())
