"""`init` writes manifests that are sound as they are, for every model that is known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator import model_shapes
from orchestrator.cli import cli
from orchestrator.manifest import expand, load_manifest, unchecked
from orchestrator.manifest.schema import Manifest
from orchestrator.model_shapes import find_shape
from orchestrator.planning.inventory import gpus_elsewhere
from orchestrator.planning.plan import make_plan
from tests.cluster.runs import privately
from tests.orchestrator.test_json_schema import errors

MODELS = json.loads(Path(model_shapes.__file__).with_name("shapes.json").read_text())


def init(*options: str) -> Result:
    return CliRunner().invoke(cli, ["init", *options])


def written(folder: Path, *options: str) -> Manifest:
    """The manifest that `init` writes, read back."""
    path = folder / "m.yaml"
    path.unlink(missing_ok=True)
    ended = init(*options, "--out", str(path))
    assert ended.exit_code == 0, ended.stderr
    assert errors(path.read_text()) == []
    return load_manifest(path)


@pytest.mark.parametrize("model", MODELS)
def test_every_known_model_gets_a_sound_manifest(model: str, tmp_path: Path) -> None:
    manifest = written(tmp_path, "--model", model, "--sites", "mlp", "--sites", "attention",
                       "--sites", "layer")  # fmt: skip
    shape = find_shape(model, "main", online=False)
    assert shape is not None and unchecked(manifest) == []
    plan = make_plan(manifest, shape, gpus_elsewhere(1, 1, None))
    assert len(plan.transcoders) == 3 * shape.n_layers
    assert {t.expansion for t in plan.transcoders} == {16}
    assert all(t.k * 8 <= t.d_sae for t in plan.transcoders)


def test_a_family_without_resid_mid_gets_what_its_mlp_reads(tmp_path: Path) -> None:
    manifest = written(tmp_path, "--model", "EleutherAI/pythia-70m")
    assert {str(s.source) for s in expand(manifest, 6)} == {f"{i}.resid_pre" for i in range(6)}


def test_pairs_of_ones_own(tmp_path: Path) -> None:
    options = ("--sites", "ln2_normalized:mlp_out", "--sites", "8.resid_post:10.resid_mid",
               "--sites", "blocks.3.attn.hook_z:3.attn_out")  # fmt: skip
    specs = expand(written(tmp_path, *options), 12)
    assert len(specs) == 14
    assert [(str(s.source), str(s.target)) for s in specs[-2:]] == [
        ("8.resid_post", "10.resid_mid"),
        ("blocks.3.attn.hook_z", "3.attn_out"),
    ]


@pytest.mark.parametrize(
    ("sites", "told"),
    [
        ("mpl", 'no such pair; did you mean "mlp"?; or SOURCE:TARGET, such as'),
        ("resid_mid:mlp_ouput", 'unknown site "mlp_ouput"; did you mean "mlp_out"?'),
        ("3.resid_mid:mlp_out", "give both sites a layer (8.resid_post:10.resid_mid), or neither"),
        ("13.resid_mid:14.mlp_out", "layer 13 is out of range; the model has layers 0 to 11"),
        ("mlp_out:mlp_out", "source 0.mlp_out and target 0.mlp_out are the same tensor"),
        ("3.resid_post:4.resid_pre", "are the same tensor"),
        (":mlp_out", "no such pair"),
    ],
)
def test_a_pair_that_cannot_be_is_told_and_nothing_is_written(
    sites: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = init("--sites", sites)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"--sites {sites}: ") and told in ended.stderr
    assert not list(tmp_path.iterdir())


def test_a_parallel_family_is_told_what_to_use(tmp_path: Path) -> None:
    ended = init("--model", "EleutherAI/pythia-70m", "--sites", "resid_mid:mlp_out")
    assert ended.exit_code == 2 and "so it has no resid_mid" in ended.stderr


def test_a_short_local_text_is_read_several_times(tmp_path: Path) -> None:
    text = tmp_path / "my text.txt"
    text.write_text("A sentence of this text.\n\n" * 40_000)
    manifest = written(tmp_path, "--data", str(text))
    assert manifest.data.path == str(text)
    assert (manifest.train.tokens, manifest.train.batch_tokens) == (1_000_000, 1024)
    assert manifest.train.lr == "auto" and manifest.data.holdout_tokens == 12_800
    assert "about 4 passes over the text" in (tmp_path / "m.yaml").read_text()


def test_a_long_or_distant_text_is_read_as_far_as_needed(tmp_path: Path) -> None:
    manifest = written(tmp_path)
    assert (manifest.train.tokens, manifest.train.lr) == (10**8, "auto")
    assert manifest.data.path == "monology/pile-uncopyrighted"


def test_missing_text_and_models_are_told(tmp_path: Path) -> None:
    missing = init("--data", str(tmp_path / "no.txt"), "--out", str(tmp_path / "m.yaml"))
    assert missing.exit_code == 2 and "no.txt does not exist" in missing.stderr
    missing = init("--model", str(tmp_path / "no"), "--out", str(tmp_path / "m.yaml"))
    assert missing.exit_code == 2 and "does not exist" in missing.stderr
    assert not list(tmp_path.iterdir())


def test_the_file_is_named_for_the_run_and_never_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = init("--model", "meta-llama/Llama-3.2-1B", "--sites", "attention")
    path = tmp_path / "llama-3.2-1b-attention.yaml"
    assert first.stdout.splitlines() == [
        f"wrote {path.name}; look at it, then",
        f"  mtc-orchestrate plan {path.name}",
        f"  mtc-orchestrate run {path.name}",
    ]
    before = path.read_bytes()
    again = init("--model", "meta-llama/Llama-3.2-1B", "--sites", "attention")
    assert (again.exit_code, again.stderr) == (
        2,
        f"{path.name} is there already; give another file with --out\n",
    )
    assert path.read_bytes() == before and load_manifest(path).name == path.stem
    nowhere = init("--out", "no/such/folder.yaml")
    assert nowhere.exit_code == 2 and "(No such file or directory)" in nowhere.stderr


def test_to_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = init("--out", "-").stdout
    assert not list(tmp_path.iterdir())
    (tmp_path / "m.yaml").write_text(shown)
    assert load_manifest("m.yaml").name == "gpt2-mlp"


def test_every_line_with_a_value_says_what_it_is_for() -> None:
    lines = init("--out", "-").stdout.splitlines()
    values = [line for line in lines if line.strip() and not line.endswith(":")]
    assert all("  # " in line or line.startswith("# ") for line in values)
    assert max(map(len, lines)) <= 110


def test_a_full_disk_leaves_no_half_manifest(tmp_path: Path) -> None:
    """A tmpfs of one page, in a mount namespace of its own."""
    script = (
        f"mount -t tmpfs -o size=4k,nr_inodes=3 none {tmp_path} && head -c 4096 /dev/zero > "
        f"{tmp_path}/other && cd {tmp_path} && {sys.executable} -c "
        "'from orchestrator.cli import main; main()' init; code=$?; ls; exit $code"
    )
    command = (*privately(("unshare", "--mount")), "sh", "-c", script)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (ended.returncode, ended.stdout) == (2, "other\n")
    assert ended.stderr == (
        "gpt2-mlp.yaml (No space left on device); give another file with --out\n"
    )
