"""Small transcoders and rows for tests of the numeric core."""

import torch

from mtc_core.config import TrainConfig, TranscoderSpec
from mtc_core.sites import Site
from mtc_core.statistics import measure_pair
from mtc_core.trainer import TranscoderTrainer

D_IN, D_OUT, BATCH = 20, 12, 64
GROUPS = (8, 16, 24)


def spec(**changes):
    values = {
        "source": Site.parse("0.resid_mid"),
        "target": Site.parse("0.mlp_out"),
        "group_sizes": GROUPS,
        "k": 5,
        "lr": 3e-3,
    }
    return TranscoderSpec(**(values | changes))


def train(**changes):
    return TrainConfig(**({"tokens": 400 * BATCH, "batch_tokens": BATCH} | changes))


def rows(n=BATCH, seed=0, *, extreme=0, d_in=D_IN, d_out=D_OUT):
    """Raw rows with a centre, a scale and a sparse nonlinear map; the first few extreme.

    An extreme row is massive in the target alone, as in real models."""
    fixed = torch.Generator().manual_seed(99)
    A, B = torch.randn(40, d_in, generator=fixed), torch.randn(40, d_out, generator=fixed)
    generator = torch.Generator().manual_seed(seed)
    codes = torch.rand(n, 40, generator=generator) * (torch.rand(n, 40, generator=generator) < 0.1)
    y = 5 * codes @ B + 2
    if extreme:
        y[:extreme] += 1000
    return 3 * codes @ A - 1, y


def trainer(spec_changes=None, train_changes=None, *, extreme=0, dtype=torch.float32):
    x, y = rows(512, seed=1, extreme=extreme)
    return TranscoderTrainer(
        spec(**(spec_changes or {})),
        train(**(train_changes or {})),
        measure_pair(x, y),
        dtype=dtype,
    )


def run(trainer, first, last, *, extreme=0):
    """Steps first..last - 1 on their own rows, which depend on the step alone."""
    return [trainer.step(*rows(seed=1000 + i, extreme=extreme)) for i in range(first, last)]


def same_bits(a, b):
    """Two states, equal to the last bit."""
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, different


def snapshot(trainer):
    return {name: tensor.clone() for name, tensor in trainer.state().items()}
