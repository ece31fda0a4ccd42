"""`export` and `push` of a real run: to folders, to a stand-in for the Hugging Face Hub
(tests/stand_ins/hub.py), and to a scripted W&B. Neither the Hub nor W&B itself is asked."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from mtc_core import MatryoshkaTranscoder, load_suite
from mtc_core.export import FORMATS
from orchestrator.cli import cli
from orchestrator.commands.share import NAMES
from tests.core.hub.conftest import hub  # noqa: F401 (a fixture)
from tests.core.hub.test_wandb_artifacts import scripted  # noqa: F401 (a fixture)
from tests.core.small import same_bits
from tests.core.tiny_models import save_tiny_model
from tests.e2e.runs import run_here, write_manifest
from tests.stand_ins.hub_state import WRITER

# Of httpx, by huggingface_hub's own uploads.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

ALL_LAYERS = """\
  - {layers: all, source: mlp_in, target: mlp_out}
  - {layers: 0, source: resid_pre, target: attn_out, selection: topk}"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    model = save_tiny_model(folder / "model", family="llama", n_layers=2)
    manifest = write_manifest(folder, model, tokens=256 * 12, transcoders=ALL_LAYERS)
    code, printed = run_here(manifest, folder, "tracking.project=p")
    assert code == 0, printed
    return folder / "small"


def invoke(*words):
    return CliRunner().invoke(cli, [str(word) for word in words])


def mlps(run):
    return [word for id in load_suite(run) if "mlp_in" in id for word in ("--only", id)]


def assert_nothing_tells_where(run, sent):
    """The model lies in a folder here, whose path is nobody else's business."""
    files = [path for path in sent.rglob("*") if path.is_file()]
    assert any(path.name in ("config.json", "config.yaml") for path in files)
    assert not [path for path in files if str(run.parent).encode() in path.read_bytes()]
    own = json.loads(next(run.glob("transcoders/*/final/config.json")).read_text())
    assert str(run.parent) in own["model"]["name"]  # the run's own files keep it


def test_the_formats_offered_are_those_there_are():
    assert set(NAMES) == set(FORMATS)


@pytest.mark.parametrize("format", NAMES)
def test_a_run_is_exported_with_a_card_and_a_record(run, tmp_path, format):
    out = tmp_path / "out"
    ended = invoke("export", run, "--format", format, "--out", out, *mlps(run), "--json")
    assert ended.exit_code == 0, ended.output
    record = json.loads(ended.stdout)
    assert record == json.loads((out / "export.json").read_text())
    ids = [id for id in load_suite(run) if "mlp_in" in id]
    assert list(record["transcoders"]) == ids
    card = (out / "README.md").read_text()
    assert all(id in card for id in ids) and "```python" in card and "CE +" in card
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["library_name"] == "mtc-orchestrator"
    if format == "sparsify":
        told = r"lossy, BatchTopK as TopK with k = \d: L0 \d\.\d -> \d\.\d, FVU \d\.\d+ -> \d\.\d+"
        assert len(re.findall(told, card)) == len(ids)
        before, after = record["transcoders"][ids[0]]["l0"]
        evaluation = json.loads((run / "transcoders" / ids[0] / "evaluation.json").read_text())
        assert before == pytest.approx(evaluation["ordinary"]["l0"], rel=1e-6)
        assert after <= round(before) + 0.5
    else:
        assert "lossy" not in card


def test_what_cannot_be_expressed_is_one_message_and_writes_nothing(run, tmp_path):
    ended = invoke("export", run, "--format", "circuit-tracer", "--out", tmp_path / "out")
    assert ended.exit_code == 2
    assert "0.resid_pre -> 0.attn_out: circuit-tracer replaces MLPs" in ended.output
    assert "layer 0 has 2 transcoders" in ended.output
    assert not (tmp_path / "out").exists() and "Traceback" not in ended.output
    ended = invoke("export", run, "--format", "saelens", "--out", tmp_path, "--only", "L07")
    assert ended.exit_code == 2 and "no finished transcoder of" in ended.output


def test_a_topk_transcoder_is_exported_as_a_threshold_and_labelled(run, tmp_path):
    (topk,) = (id for id in load_suite(run) if "attn_out" in id)
    out = tmp_path / "out"
    ended = invoke("export", run, "--format", "saelens", "--out", out, "--only", topk)
    assert ended.exit_code == 0, ended.output
    assert f"{topk}: lossy, TopK as a threshold: L0 " in ended.output


def test_what_is_pushed_comes_back_from_the_hub_to_the_bit(run, hub, tmp_path):  # noqa: F811
    ended = invoke("push", run, "hf://org/suite")
    assert ended.exit_code == 0, ended.output
    assert "/org/suite/tree/" in ended.output and WRITER not in ended.output
    suite = load_suite("hf://org/suite")
    own = load_suite(run)
    assert suite.keys() == own.keys()
    for id, tc in own.items():
        same_bits(tc.state_dict(), suite[id].state_dict())
        assert suite[id].reference is not None
    assert_nothing_tells_where(run, tmp_path / "cache")
    one = MatryoshkaTranscoder.from_pretrained("hf://org/suite", "L01")
    same_bits(one.state_dict(), own[next(id for id in own if id.startswith("L01"))].state_dict())
    (card,) = (path for path in (tmp_path / "cache").rglob("README.md"))
    text = card.read_text()
    assert 'MatryoshkaTranscoder.from_pretrained("hf://org/suite", "L00' in text
    assert 'load_suite("hf://org/suite")' in text
    assert "SAE.load_from_disk" in text and "for llamascopium" in text
    assert "ReplacementModel" not in text, "this suite is none for circuit-tracer"


@pytest.mark.parametrize("harm", ["a changed config", "no digests"])
def test_what_is_damaged_is_not_vouched_for_by_sending_it(run, hub, tmp_path, harm):  # noqa: F811
    copied = tmp_path / "copied"
    shutil.copytree(run, copied)
    final = next(copied.glob("transcoders/*/final"))
    if harm == "no digests":
        (final / "sha256.json").unlink()
    else:
        config = final / "config.json"
        config.write_text(config.read_text().replace('"k": 4', '"k": 5'))
    ended = invoke("push", copied, "hf://org/damaged")
    assert ended.exit_code == 2, ended.output
    assert "it cannot be used" in ended.stderr


def test_an_export_is_pushed_as_the_tool_loads_it(run, hub, tmp_path):  # noqa: F811
    words = ("push", run, "hf://org/ct", "--format", "circuit-tracer", *mlps(run))
    ended = invoke(*words)
    assert ended.exit_code == 0, ended.output
    from huggingface_hub import hf_hub_download

    config = yaml.safe_load(Path(hf_hub_download("org/ct", "config.yaml")).read_text())
    assert config["model_kind"] == "transcoder_set"
    assert_nothing_tells_where(run, tmp_path / "cache")
    assert hf_hub_download("org/ct", "layer_1.safetensors")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("org/suite",), "write hf://org/name, or wandb://"),
        (("hf://suite",), "is no address on the Hub"),
        (("wandb://p", "--private"), "--format and --private are for hf:// addresses"),
        (("hf://org/suite", "--only", "L09"), "no finished transcoder of"),
    ],
)
def test_a_wrong_address_is_told_before_anything_is_prepared(run, words, message):
    ended = invoke("push", run, *words)
    assert ended.exit_code == 2 and message in ended.output, ended.output


def test_a_suite_goes_to_wandb_and_comes_back(run, scripted):  # noqa: F811
    ended = invoke("push", run, "wandb://team/project")
    assert ended.exit_code == 0, ended.output
    assert "team/project/small:v0" in ended.output
    own = load_suite(run)
    one = MatryoshkaTranscoder.from_wandb("team/project/small:v0", "L01")
    same_bits(one.state_dict(), own[next(id for id in own if id.startswith("L01"))].state_dict())
    assert load_suite("wandb://team/project/small").keys() == own.keys()
