"""Models whose activations are not what they should be: the transcoders concerned stop with a
reason, all others are trained to their end, and the exit code is 1."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mtc_core import load_suite
from tests.core.tiny_models import tiny_model, tiny_tokenizer
from tests.e2e.runs import run_here, write_manifest
from tests.hardening.conftest import Tally

pytestmark = pytest.mark.hardening
ALL = "  - {layers: all, source: resid_mid, target: mlp_out}"


def nan_weight(model: Any) -> None:
    model.model.layers[1].mlp.down_proj.weight[3, 5] = float("nan")


def infinite_token(model: Any) -> None:
    """A token that is in every text: its rows, and what attends to them."""
    model.model.layers[1].post_attention_layernorm.weight.fill_(3e38)


def constant_target(model: Any) -> None:
    model.model.layers[1].mlp.down_proj.weight.zero_()


def overflow(model: Any) -> None:
    model.model.layers[1].mlp.down_proj.weight *= 1e6


def late_nan(model: Any) -> None:
    """Only where a rare byte is read: block 0 is as it should be."""
    (token,) = tiny_tokenizer()("~")["input_ids"]
    model.model.embed_tokens.weight[token] = float("nan")


CASES: dict[str, tuple[Callable[[Any], None], str, set[int], str]] = {
    # what is done to the model, its dtype, layers that go on, what the others are told
    "NaN in a weight": (nan_weight, "float32", {0}, "non-finite activations"),
    "infinite activations": (infinite_token, "float32", {0}, "non-finite activations"),
    "constant target": (constant_target, "float32", {0, 2}, "constant activations"),
    "float16 that overflows": (overflow, "float16", {0}, "model.dtype: float32"),
}


def spoilt_model(folder: Path, spoil: Callable[[Any], None]) -> Path:
    model = tiny_model()
    with torch.no_grad():
        spoil(model)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_a_model(case: str, tmp_path: Path, tally: Tally) -> None:
    spoil, dtype, good, said = CASES[case]
    model = spoilt_model(tmp_path / "model", spoil)
    manifest = write_manifest(tmp_path, model, transcoders=ALL, tokens=256 * 8)
    code, printed = run_here(manifest, tmp_path, f"model.dtype={dtype}")
    reasons = {
        path.parent.name: json.loads(path.read_text())["reason"]
        for path in (tmp_path / "small").glob("transcoders/*/failed.json")
    }
    done = {tc.spec.source.layer for tc in load_suite(tmp_path / "small").values()}
    right = code == 1 and done == good and len(reasons) == 3 - len(good)
    right &= all(said in reason for reason in reasons.values())
    right &= "Traceback" not in printed and all(
        reason[:30] in " ".join(printed.split()) for reason in reasons.values()
    )
    tally.add(
        right,
        "; ".join(reasons.values()) if right else f"exit {code}, {done} done, {reasons}: {printed}",
    )


def test_one_row_that_is_not_a_number_comes_late(tmp_path: Path, tally: Tally) -> None:
    """All transcoders read it: all stop, none is saved as done."""
    model = spoilt_model(tmp_path / "model", late_nan)
    lines = [f"Line {i} of a text that is as it should be, and goes on.\n\n" for i in range(1500)]
    odd = [f"~ and so on, {i} times and more.\n\n" for i in range(500)]
    (tmp_path / "t.txt").write_text("".join(lines + odd))
    manifest = write_manifest(tmp_path, model, transcoders=ALL, tokens=256 * 400)
    code, printed = run_here(
        manifest, tmp_path, f"data.path={tmp_path / 't.txt'}", "data.shuffle_tokens=32"
    )
    reasons = [
        json.loads(path.read_text())["reason"]
        for path in (tmp_path / "small").glob("transcoders/*/failed.json")
    ]
    right = code == 1 and len(reasons) == 3 and not load_suite_names(tmp_path / "small")
    right &= all("the loss is nan at step" in reason for reason in reasons)
    tally.add(right, reasons[0] if right else f"exit {code}, {reasons}: {printed[-1500:]}")


def load_suite_names(run: Path) -> list[str]:
    return [path.parent.name for path in run.glob("transcoders/*/final")]
