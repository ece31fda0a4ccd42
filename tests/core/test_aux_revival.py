"""The auxiliary loss switches on in a run of seconds and brings latents back."""

import pytest

from tests.core import small

STEPS = 500


def train_with_silent_latents(aux_weight, selection="batchtopk"):
    """A run whose every second latent starts far below the cut: reports, and the trainer."""
    trainer = small.trainer(
        {"aux_weight": aux_weight, "selection": selection},
        {"tokens": STEPS * small.BATCH, "dead_after_tokens": 40 * small.BATCH},
    )
    trainer.weights.W_enc[::2] *= 0.01
    return small.run(trainer, 0, STEPS), trainer


@pytest.mark.parametrize("selection", ["batchtopk", "topk"])
def test_aux_revives_latents_that_stay_dead_without_it(selection):
    reports, with_aux = train_with_silent_latents(1 / 32, selection)
    _, without = train_with_silent_latents(0.0, selection)
    assert all(r.aux == 0 for r in reports[:100]) and reports[100].aux > 0
    assert without.dead_share > 0.3
    assert with_aux.dead_share < without.dead_share / 3
    last = slice(STEPS - 20, STEPS)
    assert sum(float(r.fvu_P[-1]) for r in reports[last]) / 20 < 0.5
