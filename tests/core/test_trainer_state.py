"""A trainer loaded from its state goes on to the same bits."""

import pytest
import torch

from mtc_core.errors import CheckpointError
from mtc_core.trainer import TranscoderTrainer
from tests.core import small

STEPS = 112  # past the refresh of the dead list at step 100


def half_dead(spec_changes, train_changes, extreme=0):
    """A trainer with aux on from step 100, some of whose latents never win a place."""
    trainer = small.trainer(
        spec_changes, {"dead_after_tokens": 4000} | train_changes, extreme=extreme
    )
    trainer.weights.W_enc[::2] *= 0.01
    return trainer


@pytest.mark.parametrize("extreme", ["mask", "bound"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("selection", ["batchtopk", "topk"])
def test_resumed_equals_uninterrupted(selection, dtype, extreme):
    changes = ({"selection": selection}, {"dtype": dtype, "extreme": extreme})
    whole = half_dead(*changes, extreme=8)
    stops = (1, 99, 105)  # before the first aux, at the refresh, between refreshes
    saved = {}
    reports = []
    for i in range(STEPS):
        if i in stops:
            saved[i] = small.snapshot(whole)
        reports += small.run(whole, i, i + 1, extreme=2)
    assert reports[-1].aux > 0 and reports[98].aux == 0, "aux must switch on in between"
    for stop, state in saved.items():
        resumed = TranscoderTrainer.from_state(whole.spec, whole.train, state)
        small.same_bits(resumed.state(), state)
        again = small.run(resumed, stop, STEPS, extreme=2)
        small.same_bits(resumed.state(), whole.state())
        assert torch.equal(again[-1].loss, reports[-1].loss)


def test_the_dead_list_changes_only_every_hundredth_step():
    trainer = half_dead({}, {"dead_after_tokens": 640})
    small.run(trainer, 0, 60)
    assert trainer.dead_share > 0 and trainer.dead_D.numel() == 0
    small.run(trainer, 60, 101)
    listed = trainer.dead_D.clone()
    assert listed.numel() > 0
    trainer.silent_F.zero_()
    small.run(trainer, 101, 104)
    assert torch.equal(trainer.dead_D, listed)


def test_state_of_another_shape_is_refused():
    state = small.trainer({"group_sizes": (8, 16)}).state()
    trainer = small.trainer()
    with pytest.raises(CheckpointError, match="W_enc"):
        TranscoderTrainer.from_state(trainer.spec, trainer.train, state)


def test_state_survives_on_its_own():
    """A copy taken now does not change with later steps."""
    trainer = small.trainer()
    small.run(trainer, 0, 3)
    state = small.snapshot(trainer)
    resumed = TranscoderTrainer.from_state(trainer.spec, trainer.train, state)
    small.run(resumed, 3, 6)
    small.same_bits(state, small.snapshot(trainer))
