"""A step of Triton kernels, against its slow twin and against float64, on inputs drawn anew."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mtc_core import fit
from mtc_core.errors import TrainingStopped
from mtc_core.kernels import segments, triton_loops, triton_search
from mtc_core.kernels.fixed_kept import FixedKept
from mtc_core.kernels.torch_kernels import TorchKernels
from mtc_core.kernels.triton_kernels import TritonKernels
from mtc_core.trainer import TranscoderTrainer
from tests.core import small
from tests.core.steps import Case, differences, fresh_seed

ROWS = 16
SHAPES = [  # rows, source width, target width, groups, kept entries
    (16, 20, 12, (8, 16, 24), 90),
    (13, 7, 19, (5,), 20),
    (12, 33, 17, (3, 1, 2, 9, 4, 5, 8, 6), 80),
    (9, 5, 3, (4, 4), 0),
    (70, 4, 6, (2, 3), 350),  # every latent in every row: several segments each
    (1, 5, 3, (3,), 2),
    (1, 4, 6, (2, 3), 5),  # one row, with every latent
]


def fixed(case, empty=7):
    """The case, its kept entries in a buffer with slots to spare."""
    kept, d_sae = case.kept, case.weights.b_enc.numel()
    rows = len(case.batch.y_BO)
    places = torch.cat([kept.rows_n * d_sae + kept.latents_n, torch.full((empty,), rows * d_sae)])
    acts = torch.cat([kept.acts_n, torch.zeros(empty)])
    number = torch.tensor(kept.acts_n.numel())
    case.kept = FixedKept.from_places(places, acts, number, d_sae, rows)
    return case


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", [{}, {"bias": 0.2, "skip": True, "dead": 3}])
def test_one_step_is_as_near_to_float64_as_torchs_own(shape, options):
    case = Case(shape, fresh_seed(), **options)
    wide = case.run(TorchKernels(), torch.float64, steps=1)
    theirs = differences(case.run(TorchKernels(), steps=1), wide)
    wide.pop("d_act_n")
    ours = differences(fixed(case).run(TritonKernels(), steps=1), wide)
    for name, difference in ours.items():
        assert difference < 4 * theirs[name] + 1e-6, name


@pytest.mark.parametrize("shape", SHAPES[:2])
def test_in_bfloat16_a_step_is_near_and_the_copies_follow_the_weights(shape):
    case = Case(shape, fresh_seed(), dead=2)
    wanted = case.run(TorchKernels(), torch.float64, steps=1)
    wanted.pop("d_act_n")
    kernels = TritonKernels(half=True)
    found = fixed(case).run(kernels, steps=1)
    apart = differences(found, wanted)
    names = ("loss_P", "residual_BO", "W_enc.exp_avg", "W_dec.exp_avg", "b_enc.exp_avg")
    assert max(apart[name] for name in names) < 0.03, apart
    for name in ("W_enc", "W_dec"):
        copy, weight = kernels._operand(name, found[name]), found[name]
        assert copy.dtype == torch.bfloat16
        assert ((copy.float() - weight).abs() <= weight.abs() / 128).all()  # it cuts, GPUs round
        found[name].mul_(2)  # by somebody else
        assert torch.equal(kernels._operand(name, found[name]), found[name].bfloat16())


def test_bits_do_not_depend_on_slots_to_spare_nor_tiles_on_who_is_first(monkeypatch):
    case = Case(SHAPES[4], fresh_seed())
    wanted = fixed(case, empty=0).run(TritonKernels(), steps=1)
    case.kept = type(case.kept)(*(part[: int(case.kept.number)] for part in (
        case.kept.rows_n, case.kept.latents_n, case.kept.acts_n)), case.kept.number)  # fmt: skip
    found = fixed(case, empty=33).run(TritonKernels(), steps=1)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    monkeypatch.setattr(segments, "ACTIVATIONS", 1000)
    found = case.run(TritonKernels(), steps=1)
    assert max(differences(found, wanted).values()) < 1e-4


def trained(spec_changes, train_changes, **options):
    """A trainer of few rows: the interpreter is slow."""
    return small.trainer(spec_changes, {"batch_tokens": ROWS, **train_changes}, **options)


def run(trainer, first, last, *, extreme=0):
    return [
        trainer.step(*small.rows(ROWS, seed=1000 + i, extreme=extreme)) for i in range(first, last)
    ]


def pair(spec_changes, train_changes):
    """Trainers that differ in their kernels."""
    made = [
        trained(spec_changes, {**train_changes, "kernels": kernels}, extreme=8)
        for kernels in ("triton", "torch")
    ]
    assert [trainer.kernels.name for trainer in made] == ["triton", "torch"]
    return made


@pytest.mark.parametrize(
    "spec_changes,train_changes,apart",
    [
        ({}, {}, 1e-5),
        ({"skip": True, "prefix_weights": (0.1, 0.2, 0.3, 0.4)}, {"extreme": "bound"}, 1e-5),
        ({"selection": "topk"}, {"extreme": "keep"}, 1e-5),
        ({}, {"dtype": "bfloat16"}, 0.1),
    ],
)
def test_trainers_stay_together(spec_changes, train_changes, apart):
    ours, theirs = pair(spec_changes, {**train_changes, "dead_after_tokens": 64})
    for step in range(2):
        (found,) = run(ours, step, step + 1, extreme=4)
        (wanted,) = run(theirs, step, step + 1, extreme=4)
        for trainer in (ours, theirs):  # few are found dead so early
            trainer.dead_D = torch.arange(0, 40, 2)
        assert float(found.loss) == pytest.approx(float(wanted.loss), rel=apart)
        assert float(found.l0) == pytest.approx(float(wanted.l0), rel=1e-6)
        assert float(found.aux) == pytest.approx(float(wanted.aux), rel=max(apart, 1e-4))
        assert float(ours.threshold) == pytest.approx(float(theirs.threshold), rel=apart)
    assert float(found.aux) > 0
    if "dtype" not in train_changes:
        assert torch.equal(ours.silent_F, theirs.silent_F)
        states = [{k: v for k, v in t.state().items() if v.is_floating_point() and k != "filter"}
                  for t in (ours, theirs)]  # fmt: skip
        different = differences(*states)
        assert max(different.values()) < 100 * apart, different


@pytest.mark.parametrize(
    "spec_changes,train_changes,extreme",
    [
        ({"group_sizes": (1,), "k": 1, "aux_weight": 0}, {}, 0),
        ({"group_sizes": (2, 4), "k": 6}, {}, 0),  # all that is positive
        ({"group_sizes": (2, 4), "k": 6, "selection": "topk"}, {}, 0),
        ({}, {"batch_tokens": 1}, 0),
        ({}, {}, ROWS),  # none is left
        ({"group_sizes": (2, 4), "k": 3, "selection": "topk"}, {"extreme": "bound"}, ROWS),
    ],
)
def test_at_the_edges_trainers_stay_together(spec_changes, train_changes, extreme):
    pair_of_trainers = pair(spec_changes, train_changes)
    n = train_changes.get("batch_tokens", ROWS)
    for _ in range(2):
        x, y = small.rows(n, seed=fresh_seed(), extreme=extreme)
        found, wanted = (trainer.step(x, y) for trainer in pair_of_trainers)
        assert float(found.loss) == pytest.approx(float(wanted.loss), rel=1e-5)
        assert float(found.l0) == pytest.approx(float(wanted.l0), rel=1e-6)
    apart = differences(*(trainer.weights.tensors() for trainer in pair_of_trainers))
    assert max(apart.values()) < 1e-3, apart


def test_a_run_continues_to_the_same_bits():
    trainer = trained({}, {"kernels": "triton"})
    run(trainer, 0, 1)
    state = small.snapshot(trainer)
    run(trainer, 1, 2)
    again = TranscoderTrainer.from_state(trainer.spec, trainer.train, state)
    run(again, 1, 2)
    small.same_bits(again.state(), trainer.state())


def test_a_loss_that_is_not_finite_changes_nothing_and_is_told_when_asked():
    trainer = trained({"skip": True}, {"kernels": "triton", "log_every_steps": 3})
    run(trainer, 0, 1)
    before = {name: tensor.clone() for name, tensor in trainer.weights.tensors().items()}
    x, y = small.rows(ROWS, seed=5)
    x[7, 2] = float("nan")
    trainer.step(x, y)
    run(trainer, 2, 3)  # also left out, though nothing is wrong with it
    for name, tensor in trainer.weights.tensors().items():
        assert torch.equal(tensor, before[name]), name
    with pytest.raises(TrainingStopped, match=r"the loss is nan at step 1; lower its lr"):
        run(trainer, 3, 4)  # a step that is logged


def test_a_state_with_such_a_loss_is_not_handed_out():
    trainer = trained({}, {"kernels": "triton"})
    run(trainer, 0, 1)
    x, y = small.rows(ROWS, seed=5)
    y[3, 1] = float("nan")
    trainer.step(x, y)
    with pytest.raises(TrainingStopped, match="at step 1"):
        trainer.state()


def test_fit_asks_for_a_bad_loss_of_its_last_steps():
    x, y = small.rows(3 * ROWS, seed=5)
    y[-1, 0] = float("nan")
    train = small.train(
        tokens=3 * ROWS, batch_tokens=ROWS, block_batches=1, kernels="triton", log_every_steps=100
    )
    with pytest.raises(TrainingStopped, match="the loss is nan at step 2"):
        fit([(x, y)], small.spec(), train)


class NothingAsked(TorchDispatchMode):
    """Fails where an operation would have a GPU answer before the next could be handed to it:
    a number or a size that depends on values, or a constant copied there."""

    ASKING = (
        "_local_scalar_dense", "nonzero", "bincount", "masked_select", "is_nonzero", "equal",
        "unique", "lift_fresh", "where.Scalar", "repeat_interleave.Tensor", "item",
    )  # fmt: skip

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        asked = any(f"aten.{asking}" in name for asking in self.ASKING)
        if "aten.index" in name and len(args) > 1 and isinstance(args[1], list | tuple):
            asked |= any(index is not None and index.dtype == torch.bool for index in args[1])
        assert not asked, name
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("selection", ["batchtopk", "topk"])
@pytest.mark.parametrize("extreme", ["mask", "bound"])
def test_a_step_asks_the_device_for_nothing(selection, extreme, monkeypatch):
    """The operations of a step, without a GPU: tests/gpu has torch's own check."""
    trainer = trained(
        {"selection": selection, "skip": True}, {"kernels": "triton", "extreme": extreme}, extreme=8
    )
    run(trainer, 0, 1, extreme=4)  # the first looks for dead latents, and is logged
    trainer.dead_D = torch.arange(0, 48, 2)
    x, y = small.rows(ROWS, seed=3, extreme=4)
    # The interpreter itself looks into tensors.
    for module in (triton_loops, triton_search):
        for name, kernel in vars(module).copy().items():
            if type(kernel).__name__ == "InterpretedFunction" and not name.startswith("_"):
                monkeypatch.setattr(module, name, Unwatched(kernel))
    with NothingAsked():
        report = trainer.step(x, y)
    assert float(report.aux) > 0
    with pytest.raises(AssertionError, match=r"aten\.(nonzero|index)"), NothingAsked():
        trained({}, {"kernels": "torch"}, extreme=8).step(x, y)


class Unwatched:
    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        def launch(*args, **kwargs):
            with torch.utils._python_dispatch._disable_current_modes():
                self.kernel[grid](*args, **kwargs)

        return launch
