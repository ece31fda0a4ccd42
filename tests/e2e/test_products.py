"""Who multiplies, in a whole run and in what measures it."""

from pathlib import Path

import pytest

from mtc_core.model import products
from orchestrator.evaluating.subject import Subject
from orchestrator.run_folder.folder import RunFolder
from tests.core.tiny_models import save_tiny_model
from tests.e2e.runs import run_here, write_manifest


@pytest.mark.parametrize("kernels, faster", [("torch", False), ("numba", True)])
def test_kernels_of_torch_leave_the_forward_to_it_too(
    kernels: str, faster: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(products, "use_faster_products", asked.append)
    manifest = write_manifest(tmp_path, save_tiny_model(tmp_path / "model"), tokens=256 * 4)
    code, said = run_here(manifest, tmp_path, "eval.spliced_tokens=0", f"train.kernels={kernels}")
    assert code == 0, said
    assert len(asked) == faster  # the forward that rows come from
    Subject.of(RunFolder(tmp_path, "small")).load_model()
    assert len(asked) == 2 * faster
