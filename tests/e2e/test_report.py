"""`run` ends with a page; nothing that goes wrong with it is the run's fault."""

import json

from click.testing import CliRunner

from orchestrator.cli import cli
from tests.e2e.runs import SignalAfter, run_here, run_in_child, write_manifest

PAIR = "  - {layers: 0-1, source: resid_mid, target: mlp_out}"


def begun(folder, model, **changes):
    return write_manifest(folder, model, transcoders=PAIR, **{"tokens": 256 * 8, **changes})


def test_a_run_ends_with_its_report_and_eval_writes_it_anew(tmp_path, model):
    manifest = begun(tmp_path, model)
    code, printed = run_here(manifest, tmp_path, "eval.spliced_tokens=0")
    report = tmp_path / "small" / "report.html"
    assert code == 0 and printed.splitlines()[-1] == f"report: {report}"
    page = report.read_text()
    assert "· done ·" in page, "written when everything else was"
    assert 'id="glance"' in page and 'id="throughput"' in page and 'id="spliced"' not in page
    ended = CliRunner().invoke(cli, ["eval", str(tmp_path / "small"), "--tokens", "64", "--json"])
    assert ended.exit_code == 0 and f"report: {report}" in ended.stderr and json.loads(ended.stdout)
    assert 'id="spliced"' in report.read_text()
    report.unlink()
    assert CliRunner().invoke(cli, ["eval", str(tmp_path / "small")]).exit_code == 0
    assert not report.exists(), "who deleted it does not want it"


def test_the_traceback_is_where_eval_says_it_is(tmp_path, model, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a bug of ours")

    assert run_here(begun(tmp_path, model), tmp_path)[0] == 0
    monkeypatch.setattr("orchestrator.reporting.page.report", broken)
    ended = CliRunner().invoke(cli, ["eval", str(tmp_path / "small"), "--json"])
    assert ended.exit_code == 0 and "traceback in " in ended.stderr
    assert "Traceback" not in ended.stderr
    log = (tmp_path / "small" / "log.txt").read_text()
    assert "Traceback" in log and "a bug of ours" in log


def test_a_run_whose_transcoders_have_failed_has_its_report_too(tmp_path, model):
    code, printed = run_here(begun(tmp_path, model), tmp_path, "train.lr=1e18")
    assert code == 1
    page = (tmp_path / "small" / "report.html").read_text()
    assert "stopped: L00, L01" in page or "all 2 stopped" in page
    assert "report: " in printed.splitlines()[-1]


def test_a_report_that_fails_does_not_fail_the_run(tmp_path, model, monkeypatch):
    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("orchestrator.reporting.page.report", broken)
    code, printed = run_here(begun(tmp_path, model), tmp_path)
    assert code == 0
    assert "no report: OSError: [Errno 28] No space left on device" in printed
    assert "there is no report" in (tmp_path / "small" / "log.txt").read_text()
    assert not (tmp_path / "small" / "report.html").exists()
    monkeypatch.undo()
    code, printed = run_here(begun(tmp_path, model), tmp_path)
    assert code == 0 and "nothing left to train" in printed
    assert (tmp_path / "small" / "report.html").exists()


def test_an_interrupted_run_ends_at_once_and_can_be_reported_by_hand(tmp_path, model):
    manifest = begun(tmp_path, model, tokens=256 * 400)
    assert run_in_child(manifest, tmp_path, SignalAfter(6, 0.0, 2)) == 130
    run = tmp_path / "small"
    assert not (run / "report.html").exists()
    ended = CliRunner().invoke(cli, ["report", str(run)])
    assert ended.exit_code == 0, ended.output
    page = (run / "report.html").read_text()
    assert "The run was stopped at step" in page and 'id="curves"' in page


def test_an_untrained_run_begun_anew_loses_the_report_of_the_old_one(tmp_path, model):
    from orchestrator.run_folder.folder import RunFolder

    folder = RunFolder(tmp_path, "small")
    folder.path.mkdir()
    folder.manifest.touch()
    folder.report.touch()
    folder.begin({"specs": {}}, "name: small")
    assert not folder.report.exists()
