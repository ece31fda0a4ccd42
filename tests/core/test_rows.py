"""Rows of a model in Python are those of a run: same text, same order, same held-out rows."""

from __future__ import annotations

import gc
import tempfile
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mtc_core import Site, TrainConfig, activation_rows, fit, load_suite
from mtc_core.errors import ConfigError, DataError, ModelError, SiteError
from mtc_core.model.model_source import LoadedModel, load_model
from mtc_core.rows import ActivationRows
from mtc_core.tokens.data_config import DataConfig
from mtc_core.tokens.holdout import HALVES
from mtc_core.tokens.token_store import TokenStore
from tests.core.tiny_models import D_MODEL, save_tiny_model
from tests.core.tiny_text import made_up_documents
from tests.e2e.runs import run_here, write_manifest

PAIR = "  - {source: 1.resid_mid, target: 1.mlp_out}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows")
    save_tiny_model(path / "model", family="gpt2", n_layers=2)
    (path / "my.txt").write_text("\n\n".join(made_up_documents(3000)))
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedModel:
    return load_model(str(folder / "model"))


def small_rows(
    folder: Path, model: LoadedModel, text: DataConfig | None = None, **options
) -> ActivationRows:
    text = text or DataConfig(path=str(folder / "my.txt"), context_tokens=32, holdout_tokens=2048)
    options = {"block_rows": 512, **options}
    return activation_rows(model, text, "0.resid_mid", "1.mlp_out", **options)


def test_rows_are_pairs_of_the_sites_widths(folder: Path, model: LoadedModel) -> None:
    rows = small_rows(folder, model)
    assert (rows.d_in, rows.d_out) == (D_MODEL, D_MODEL)
    assert (rows.source, rows.target) == (Site.parse("0.resid_mid"), Site.parse("1.mlp_out"))
    for x, y in islice(rows, 3):
        assert x.shape == y.shape == (512, D_MODEL)
        assert x.isfinite().all() and not torch.equal(x, y)


def test_blocks_may_be_kept_and_a_second_loop_gives_them_again(
    folder: Path, model: LoadedModel
) -> None:
    rows = small_rows(folder, model)
    first = list(islice(rows, 3))
    again = list(islice(rows, 3))
    assert not torch.equal(first[0][0], first[1][0])
    for before, now in zip(first, again, strict=True):
        assert torch.equal(before[0], now[0]) and torch.equal(before[1], now[1])


def test_a_seed_decides_the_order(folder: Path, model: LoadedModel) -> None:
    (x, _), (other, _) = (next(iter(small_rows(folder, model, seed=seed))) for seed in (0, 1))
    assert not torch.equal(x, other)


def test_a_text_that_ends_is_read_again(folder: Path, model: LoadedModel) -> None:
    (folder / "short.txt").write_text("\n\n".join(made_up_documents(200)))
    text = DataConfig(path=str(folder / "short.txt"), context_tokens=16, holdout_tokens=64)
    blocks = list(islice(small_rows(folder, model, text), 40))
    assert len(blocks) == 40


def test_held_out_rows_are_two_halves_that_no_loop_gives(
    tmp_path: Path, folder: Path, model: LoadedModel
) -> None:
    rows = small_rows(folder, model, tokens=tmp_path)
    next(iter(rows))
    store = TokenStore(tmp_path)
    trained = {tuple(ids) for window in store.windows for ids in window.contexts().ids_CT}
    for half in HALVES:
        x, y = rows.held_out(half)
        contexts = store.holdout(half)
        assert x.shape == y.shape == (contexts.n_rows, D_MODEL) and len(x) > 500
        assert trained.isdisjoint(map(tuple, contexts.ids_CT))
    assert not torch.equal(*(rows.held_out(half)[0][:500] for half in HALVES))


def test_fit_on_rows_gives_the_bits_of_a_run(tmp_path: Path, folder: Path) -> None:
    """The notebook's way and the manifest's: one transcoder, two commands, the same weights."""
    torch.set_num_threads(1)
    manifest = write_manifest(tmp_path, folder / "model", transcoders=PAIR, tokens=256 * 12)
    code, printed = run_here(manifest, tmp_path)
    assert code == 0, printed
    ((id, trained),) = load_suite(tmp_path / "small").items()
    text = DataConfig(path="python-docs", context_tokens=32, holdout_tokens=2048)
    rows = activation_rows(
        str(folder / "model"), text, "1.resid_mid", "1.mlp_out", block_rows=4 * 256
    )
    train = TrainConfig(tokens=256 * 12, batch_tokens=256, block_batches=4)
    tc = fit(rows, trained.spec, train, calibration=rows.held_out("calibration"))
    tc.save(tmp_path / "mine")
    mine = load_file(tmp_path / "mine" / "weights.safetensors")
    theirs = load_file(tmp_path / "small" / "transcoders" / id / "final" / "weights.safetensors")
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name


def test_tokens_go_with_the_rows_unless_a_folder_is_given(
    tmp_path: Path, folder: Path, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = small_rows(folder, model)
    next(iter(rows))
    assert len(list(tmp_path.iterdir())) == 1
    del rows
    gc.collect()
    assert not list(tmp_path.iterdir())
    kept = small_rows(folder, model, tokens=tmp_path / "tokens")
    x, _ = next(iter(kept))
    del kept
    gc.collect()
    again = small_rows(folder, model, tokens=tmp_path / "tokens")
    assert torch.equal(next(iter(again))[0], x)


def test_mistakes_are_told_and_leave_nothing_behind(
    tmp_path: Path, folder: Path, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(DataError, match="does not exist"):
        activation_rows(model, str(folder / "no.txt"), "0.resid_mid", "1.mlp_out")
    with pytest.raises(SiteError, match="layer 9 is out of range"):
        activation_rows(model, "python-docs", "0.resid_mid", "9.mlp_out")
    with pytest.raises(SiteError, match='did you mean "mlp_out"'):
        activation_rows(model, "python-docs", "0.resid_mid", "1.mlp_ouput")
    long = DataConfig(path=str(folder / "my.txt"), context_tokens=65)
    with pytest.raises(ConfigError, match="65 is more than the 64 positions that the model has"):
        activation_rows(model, long, "0.resid_mid", "1.mlp_out")
    with pytest.raises(ModelError, match="does not exist"):
        activation_rows(str(folder / "no"), "python-docs", "0.resid_mid", "1.mlp_out")
    assert not list(tmp_path.iterdir())


def test_a_hook_that_has_no_name_of_ours(folder: Path, model: LoadedModel) -> None:
    text = DataConfig(path=str(folder / "my.txt"), context_tokens=32, holdout_tokens=2048)
    hook = "blocks.0.mlp.hook_out"
    rows = activation_rows(model, text, hook, "1.mlp_out", block_rows=64)
    assert (rows.d_in, rows.d_out) == (D_MODEL, D_MODEL)
    x, y = next(iter(rows))
    assert x.shape == y.shape == (64, D_MODEL)
