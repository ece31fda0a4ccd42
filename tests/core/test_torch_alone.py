"""Training needs torch alone; sites and configuration need not even that."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

WITHOUT = """
import sys

BLOCKED = {"ray", "transformers", "transformer_lens", "datasets", "click", "pydantic", "wandb",
           "rich", "yaml", "gguf", "huggingface_hub", "psutil", "pyarrow"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
"""

TRAIN = """
import sys, tempfile, torch
torch.set_num_threads(1)
from mtc_core import MatryoshkaTranscoder, Site, TrainConfig, TranscoderSpec, fit, load_suite
x = torch.randn(64 * 20, 12); y = x.relu() @ torch.randn(12, 8)
spec = TranscoderSpec(source=Site.parse("0.resid_mid"), target=Site.parse("0.mlp_out"),
                      group_sizes=(8, 24), k=4)
train = TrainConfig(tokens=64 * 20, batch_tokens=64)
tc = fit([(x, y)], spec, train, calibration=(x, y))
with tempfile.TemporaryDirectory() as run:
    tc.save(f"{run}/transcoders/{spec.id}/final")
    again = load_suite(run)[spec.id]
assert torch.equal(again(x), tc(x))
assert again.evaluate(x, y).fvu < 1.5
assert not BLOCKED & {name.split(".")[0] for name in sys.modules}
print("trained")
"""

LIGHT = """
import sys
import mtc_core, mtc_core.sites, mtc_core.config, mtc_core.errors, mtc_core.seeds
from mtc_core import Site, TrainConfig, TranscoderSpec, suggest_group_sizes
assert sum(suggest_group_sizes(768)) == 16 * 768
assert Site.parse("3.mlp_out").layer == 3 and TrainConfig(tokens=100, batch_tokens=10).steps == 10
heavy = {"torch", "numpy", "safetensors"} & {name.split(".")[0] for name in sys.modules}
assert not heavy, heavy
print("light")
"""


def run(code):
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


def test_fit_save_and_load_need_torch_and_safetensors_alone():
    assert run(WITHOUT + TRAIN) == "trained"


def test_the_blocker_blocks():
    caught = "\ntry:\n    import click\nexcept ImportError:\n    print('blocked')\n"
    assert run(WITHOUT + caught) == "blocked"


def test_sites_and_configuration_load_without_torch():
    assert run(LIGHT) == "light"
