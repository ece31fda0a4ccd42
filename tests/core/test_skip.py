"""The skip connection: trained, folded, saved, and never left out without a word."""

import pytest
import torch

from mtc_core import MatryoshkaTranscoder
from mtc_core.errors import CheckpointError, ConfigError
from mtc_core.folding import fold, unfold
from mtc_core.held_out import HeldOut
from mtc_core.statistics import measure_pair
from mtc_core.trainer import TranscoderTrainer
from tests.core import small


def linear_rows(n, seed):
    """A target that is a line in the source, and something sparse that no line gives."""
    fixed = torch.Generator().manual_seed(5)
    line = torch.randn(small.D_IN, small.D_OUT, generator=fixed)
    x, y = small.rows(n, seed)
    return x, 0.3 * y + 2 * x @ line


def trained(skip, steps=400):
    spec = small.spec(skip=skip)
    trainer = TranscoderTrainer(spec, small.train(), measure_pair(*linear_rows(512, 1)))
    for i in range(steps):
        trainer.step(*linear_rows(small.BATCH, 1000 + i))
    return trainer


def finished(trainer):
    held_out = HeldOut(trainer, 512)
    held_out.calibrate(*linear_rows(512, 50))
    held_out.settle()
    held_out.test(*linear_rows(512, 51))
    return held_out


@pytest.fixture(scope="module")
def tc():
    return finished(trained(True)).transcoder


def test_what_is_linear_goes_through_the_skip_connection():
    without, with_skip = (finished(trained(skip)).summary()["ordinary"] for skip in (False, True))
    assert with_skip["fvu"] < 0.7 * without["fvu"]
    assert with_skip["fvu_bias_only"] < 0.5 < without["fvu_bias_only"]


def test_without_one_nothing_has_changed_its_name_or_its_id():
    assert small.spec().id == small.spec(skip=False).id != small.spec(skip=True).id
    assert "skip" not in small.spec().to_dict() and small.spec(skip=True).to_dict()["skip"]
    assert type(small.spec()).from_dict(small.spec(skip=True).to_dict()) == small.spec(skip=True)


def test_every_prefix_has_it(tc):
    x, _ = linear_rows(32, 7)
    acts = tc.encode(x)
    line = x @ tc.W_skip.T + tc.b_dec
    assert torch.allclose(tc.decode(acts, prefix=0, x=x), line, atol=1e-4)
    for prefix, width in enumerate(tc.spec.widths, start=1):
        wanted = acts[:, :width] @ tc.W_dec[:width] + line
        assert torch.allclose(tc.decode(acts, prefix, x), wanted, atol=1e-4)
    assert torch.equal(tc(x), tc.decode(acts, x=x))


def test_decoding_without_the_source_is_refused(tc):
    acts = tc.encode(linear_rows(4, 7)[0])
    with pytest.raises(ConfigError, match=r"give x too, as in tc\.decode\(a, x=x\)"):
        tc.decode(acts)


def test_evaluate_counts_it(tc):
    x, y = linear_rows(256, 8)
    error = (y - tc(x)).double().square().sum()
    scatter = (y - y.double().mean(0)).square().sum()
    assert tc.evaluate(x, y).fvu == pytest.approx(float(error / scatter), rel=1e-5)


def test_saved_and_loaded_to_the_bit_and_training_goes_on_from_it(tc, tmp_path):
    tc.save(tmp_path / "final")
    again = MatryoshkaTranscoder.load(tmp_path / "final")
    small.same_bits(tc.state_dict(), again.state_dict())
    assert again.spec.skip and "skip" in repr(again)
    statistics = measure_pair(*linear_rows(512, 1))
    start = {name: tensor.double() for name, tensor in again.state_dict().items()}
    folded = fold(unfold(start, statistics, torch.float64), statistics)
    for name, tensor in folded.items():
        assert torch.allclose(tensor, start[name], atol=1e-10), name


def test_starting_from_weights_of_the_other_kind_is_refused(tc):
    statistics = measure_pair(*linear_rows(512, 1))
    with pytest.raises(CheckpointError, match=r"have a W_skip, .* has skip: false"):
        TranscoderTrainer(small.spec(), small.train(), statistics, start=tc.state_dict())


def test_a_checkpoint_keeps_it_to_the_bit():
    trainer = trained(True, steps=30)
    again = TranscoderTrainer.from_state(trainer.spec, trainer.train, small.snapshot(trainer))
    for one in (trainer, again):
        for i in range(30, 40):
            one.step(*linear_rows(small.BATCH, 1000 + i))
    small.same_bits(trainer.state(), again.state())
