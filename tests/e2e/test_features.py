"""`features` on a real run: its tables against the model itself, its pages against its JSON, and
what it refuses."""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mtc_core import MatryoshkaTranscoder
from mtc_core.capture import make_capture
from mtc_core.errors import MtcError
from mtc_core.features.study import FeatureStudy
from orchestrator.cli import cli
from orchestrator.evaluating.listener import QUIET, Listener
from orchestrator.evaluating.subject import Subject
from orchestrator.evaluating.texts import held_test_half
from orchestrator.features.features import Wanted, find_features
from orchestrator.features.pages import PAGE, ranges
from orchestrator.features.reading import readings
from orchestrator.registry.verify import verify
from orchestrator.run_folder.folder import RunFolder
from tests.core.tiny_models import save_tiny_model
from tests.e2e.feature_pages import Page, records, seen
from tests.e2e.runs import run_here, write_manifest

PAIRS = """\
  - {layers: 0-1, source: resid_mid, target: mlp_out}
  - {source: 0.resid_mid, target: 1.mlp_in}"""
STRANGE = "</td><script>alert(1)</script> naïve 🦊 \x07\u202e你好\tx\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    model = save_tiny_model(root / "model", family="llama", n_layers=2)
    manifest = write_manifest(root, model, transcoders=PAIRS, tokens=256 * 12)
    groups = "defaults.group_sizes=[20, 30, 70]"
    code, printed = run_here(manifest, root, "eval.spliced_tokens=0", groups)
    assert code == 0, printed
    (root / "strange.txt").write_text(STRANGE * 200)
    return root / "small"


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "small")
    return RunFolder(tmp_path, "small")


def wanted(**changes) -> Wanted:
    return Wanted(**({"tokens": 100_000, "contexts": 3, "window": 4} | changes))


def far(tc, x_BI, y_BO):
    """Extreme rows, as if 1.2 times the median distance were far."""
    distance = (x_BI.double() - tc.reference.mu_I).norm(dim=1)
    return distance > 1.2 * tc.reference.median_x


@pytest.fixture(scope="module")
def found(finished, tmp_path_factory):
    """Of the test half, and of a strange text."""
    root = tmp_path_factory.mktemp("found")
    shutil.copytree(finished, root / "small")
    folder = RunFolder(root, "small")
    strange = wanted(text=str(finished.parent / "strange.txt"), tokens=3000)
    with pytest.MonkeyPatch.context() as patch:  # a tiny model has no extreme rows of its own
        name = "mtc_core.reference.Reference.is_extreme"
        patch.setattr(name, lambda self, x, y: far(SimpleNamespace(reference=self), x, y))
        of_test = find_features(folder, wanted(), QUIET)
    return of_test, find_features(folder, strange, QUIET)


def test_they_are_what_the_model_and_the_transcoder_say(finished, found):
    """Every latent of every transcoder anew: one context at a time, sorted by hand."""
    folder = RunFolder(finished.parent, "small")
    subject, half = Subject.of(folder), held_test_half(folder).contexts
    model = subject.load_model()
    for id in subject.ids:
        tc = MatryoshkaTranscoder.load(folder.transcoder(id).final)
        capture = make_capture(model, [tc.spec.source, tc.spec.target])
        acts_CTF = torch.zeros(*half.ids_CT.shape, tc.d_sae)
        rows_CT = torch.zeros(half.ids_CT.shape, dtype=torch.bool)
        for c, ids_T in enumerate(half.ids_CT.astype("int64")):
            captured = capture(torch.tensor(ids_T)[None])
            x_TI, y_TO = (captured[site.tensor][0] for site in (tc.spec.source, tc.spec.target))
            rows_CT[c] = torch.from_numpy(np.array(half.rows_CT[c])) & ~far(tc, x_TI, y_TO)
            acts_CTF[c] = tc.encode(x_TI) * rows_CT[c][:, None]
        about = found[0].transcoders[id]
        assert about["rows"] == int(rows_CT.sum())
        assert about["rows"] + about["extreme_rows"] == half.n_rows and about["extreme_rows"] > 9
        for record in records(found[0].folder, id):
            _is_right(record, acts_CTF[:, :, record["latent"]], rows_CT, half, model.tokenizer)


def _is_right(record, acts_CT, rows_CT, contexts, tokenizer):
    assert record["fired"] == int((acts_CT > 0).sum())
    if not record["fired"]:
        return
    assert record["max"] == pytest.approx(float(acts_CT.max()), rel=1e-3)
    assert record["density"] == pytest.approx(record["fired"] / int(rows_CT.sum()), rel=1e-3)
    peaks = sorted(
        ((float(values.max()), c) for c, values in enumerate(acts_CT) if values.max() > 0),
        key=lambda peak: -peak[0],
    )
    values = [context["value"] for context in record["contexts"]]
    assert values == pytest.approx([value for value, _ in peaks[:3]], rel=1e-3)
    for context in record["contexts"]:
        c, t = context["context"], context["position"]
        around = contexts.ids_CT[c, max(0, t - 4) : t + 5]
        assert context["text"] == tokenizer.decode(around)
        begin, end, value = context["spans"][context["peak"]]
        assert context["text"][begin:end] == tokenizer.decode(contexts.ids_CT[c, t])
        assert value == context["value"] == max(span[2] for span in context["spans"])
        on = [float(v) for v in acts_CT[c, max(0, t - 4) : t + 5] if v > 0]
        assert [span[2] for span in context["spans"]] == pytest.approx(on, rel=1e-3)


def test_pages_say_what_the_json_says_and_their_links_lead_somewhere(found):
    for one in found:
        pages = {path: Page(path) for path in one.folder.rglob("*.html")}
        for path, page in pages.items():
            assert page.links and page.scripts == (path.parent.name in one.transcoders
                                                   and path.name == "index.html")  # fmt: skip
            for link in page.links:
                name, _, anchor = link.partition("#")
                target = (path.parent / name).resolve() if name else path
                assert target in pages, link
                assert not anchor or anchor in pages[target].anchors, link
        for id in one.transcoders:
            shown = {}
            for path in (one.folder / id).glob("latents-*.html"):
                shown |= pages[path].contexts
            on = [record for record in records(one.folder, id) if record["fired"]]
            assert set(shown) == {f"l{record['latent']}" for record in on}
            for record in on:
                texts = [seen(context) for context in record["contexts"]]
                assert shown[f"l{record['latent']}"] == texts


def test_what_is_strange_in_a_text_is_text_on_the_pages(found):
    strange = found[1]
    pages = "".join(path.read_text() for path in strange.folder.rglob("latents-*.html"))
    assert "<script" not in pages and "\u202e" not in pages and "\x07" not in pages
    assert "&lt;202E&gt;" in pages and "🦊" in pages and "你" in pages and "⏎" in pages
    inside = [
        context["text"]
        for id in strange.transcoders
        for record in records(strange.folder, id)
        for context in record.get("contexts", [])
        if 8 <= context["position"] < 24  # a context may begin, or end, within a character
    ]
    assert any("🦊" in text for text in inside)
    assert not any("\N{REPLACEMENT CHARACTER}" in text for text in inside)


@pytest.mark.parametrize(("extreme", "left_out"), [("mask", 0), ("bound", None), ("keep", None)])
def test_extreme_rows_are_left_out_where_training_left_them_out(finished, extreme, left_out):
    subject = Subject.of(RunFolder(finished.parent, "small"))
    train = subject.manifest.train.model_copy(update={"extreme": extreme})
    subject = replace(subject, manifest=subject.manifest.model_copy(update={"train": train}))
    tc = MatryoshkaTranscoder.load(subject.run.transcoder(subject.ids[0]).final)
    study = FeatureStudy(tc, 1, 0)
    assert readings(subject, {"x": study})["x"].extreme_rows == left_out
    tc.reference = None  # of an older version
    assert readings(subject, {"x": study})["x"].extreme_rows is None


def test_silent_latents_are_listed_and_have_no_entry(found):
    silent = 0
    for id in found[1].transcoders:
        off = [r["latent"] for r in records(found[1].folder, id) if not r["fired"]]
        page = (found[1].folder / id / "index.html").read_text()
        assert not off or f'soft">{ranges(off)}</p>' in page
        silent += len(off)
    assert silent, "this text tests nothing"
    assert ranges([1, 2, 3, 7, 9, 10]) == "1–3, 7, 9–10" and ranges([]) == ""


def test_only_what_is_added_to_the_stream_has_promoted_tokens(found):
    for id, about in found[0].transcoders.items():
        on = [record for record in records(found[0].folder, id) if record["fired"]]
        table = (found[0].folder / id / "index.html").read_text()
        if about["target"] == "1.mlp_in":
            assert "1.mlp_in is what a part of a block reads" in about["no_tokens"]
            assert about["no_tokens"] in table and all(r["promoted"] is None for r in on)
        else:
            assert about["no_tokens"] is None
            assert all(len(r["promoted"]) == len(r["suppressed"]) == 10 for r in on)


def test_what_is_there_is_not_looked_for_again(run, monkeypatch):
    first = find_features(run, wanted(ids=["L00"]), QUIET)
    assert len(first.transcoders) == len(first.written) == 2
    monkeypatch.setattr(
        "orchestrator.evaluating.subject.load_model", lambda *a, **k: pytest.fail("loaded")
    )
    again = find_features(run, wanted(ids=["L00"]), QUIET)
    assert again.transcoders == first.transcoders and not again.written
    for other in (wanted(), wanted(ids=["L00"], window=5), wanted(ids=["L00"], tokens=64)):
        with pytest.raises(pytest.fail.Exception, match="loaded"):
            find_features(run, other, QUIET)
    monkeypatch.undo()
    rest = find_features(run, wanted(), QUIET)
    assert len(rest.transcoders) == 3 and len(rest.written) == 1
    assert all(id in rest.page.read_text() for id in rest.transcoders)
    (run.features / "test" / rest.written[0] / "features.json").write_text("{")
    assert find_features(run, wanted(), QUIET).written == rest.written


def test_verify_knows_them(run):
    found = find_features(run, wanted(ids=["L01"]), QUIET)
    sound = verify(run.path)
    assert not sound.faults
    (id,) = found.transcoders
    lines = found.folder / id / "latents.jsonl"
    lines.write_text("{" + lines.read_text())
    (fault,) = verify(run.path).faults
    assert fault.path == str(lines) and "features` writes it again" in fault.remedy


def command(run: RunFolder, *options: str):
    return CliRunner().invoke(cli, ["features", str(run.path), *options])


def test_the_command_prints_a_table_and_the_page_to_open(run, tmp_path):
    out = tmp_path / "elsewhere"
    ended = command(run, "L01", "--tokens", "256", "--out", str(out))
    assert ended.exit_code == 0 and f"open {out / 'index.html'}" in ended.output
    assert (out / "index.html").exists() and not run.features.exists()
    assert len(list(out.glob("L01*/latents-*.html"))) <= -(-120 // PAGE)
    again = command(run, "L01", "--tokens", "256", "--out", str(out))
    assert "all of it was there already" in again.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["L09"], "ID L09: no finished transcoder of"),
        (["--text", "no-such.txt"], "no-such.txt"),
        (["--text", "short.txt"], "--text short.txt has 4 tokens"),
        (["--out", "mine"], "holds no features.json, so it is not ours to replace"),
        (["--out", "site"], "index.html is there without features beside it"),
        (["--out", "file"], "file: cannot be written"),
    ],
)
def test_bad_input_is_one_message(run, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.txt").write_text("one")
    for id in Subject.of(run).ids:
        (tmp_path / "mine" / id).mkdir(parents=True)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("somebody's own")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(
        "orchestrator.evaluating.subject.load_model", lambda *a, **k: pytest.fail("loaded")
    )
    ended = command(run, *options)
    assert ended.exit_code == 2, ended.output
    assert message in ended.output
    assert len([line for line in ended.output.splitlines() if not line.startswith("  ")]) == 1


def test_a_run_without_a_finished_transcoder_is_told_so(run):
    for final in run.transcoders.glob("*/final"):
        shutil.rmtree(final)
    ended = command(run)
    assert ended.exit_code == 2 and "no finished transcoder yet" in ended.output


def test_what_does_not_fit_is_told_before_it_is_loaded(run, monkeypatch):
    monkeypatch.setattr("orchestrator.features.features.study_bytes", lambda *_: 10**15)
    with pytest.raises(MtcError, match=r"3000000\.3 GB on cpu.*name fewer transcoders"):
        find_features(run, wanted(), QUIET)


@pytest.mark.parametrize("at", ["reading the text", "writing"])
def test_one_that_is_interrupted_leaves_nothing_half(run, at):
    told = []

    def check():
        if any(line.startswith(at) for line in told):
            raise KeyboardInterrupt

    listener = Listener(lambda text: None, lambda what, *_: told.append(what), check)
    with pytest.raises(KeyboardInterrupt):
        find_features(run, wanted(), listener)
    assert not list(run.features.glob("*/[!.]*"))
    assert len(find_features(run, wanted(), QUIET).written) == 3


def test_a_signal_ends_it_with_its_code(run, monkeypatch):
    import orchestrator.interrupts as module

    def stop(self):
        self.signal_number = signal.SIGTERM
        raise module.Interrupted

    monkeypatch.setattr(module.Interrupt, "check", stop)
    ended = command(run)
    assert ended.exit_code == 128 + signal.SIGTERM and "begins again" in ended.output
