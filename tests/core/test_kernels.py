"""Compiled loops against their slow twin, on random inputs drawn anew."""

import sys

import numpy as np
import pytest
import torch

from mtc_core.errors import ConfigError
from mtc_core.kernels import choose, loops, threads
from mtc_core.kernels.numba_kernels import BY_LATENT, NumbaKernels
from mtc_core.kernels.step_kernels import step_kernels
from mtc_core.kernels.torch_kernels import TorchKernels
from mtc_core.selection import BatchTopK
from mtc_core.workspace import Workspace
from tests.core.steps import SHAPES, Case, differences, fresh_seed


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", [{}, {"bias": 0.2, "skip": True}, {"dead": 3}])
def test_one_step_is_as_near_to_float64_as_torchs_own(shape, options):
    """Gradients are in Adam's moments, the projection of decoder rows included."""
    case = Case(shape, fresh_seed(), **options)
    wide = case.run(TorchKernels(), torch.float64, steps=1)
    ours = differences(case.run(NumbaKernels(), steps=1), wide)
    theirs = differences(case.run(TorchKernels(), steps=1), wide)
    # Rounding goes by the terms of a sum. Where they cancel, and there is one sum, torch may be
    # right by luck: one draw in fifty failed with a single kept entry.
    single = case.kept.acts_n.numel() == 1
    rounding = max(1e-6, 1e-7 * cancelling(case, wide)) if single else 1e-6
    for name, difference in ours.items():
        from_acts = name == "d_act_n" or name.startswith(("W_enc", "b_enc"))
        assert difference < 4 * theirs[name] + (rounding if from_acts else 1e-6), name


def cancelling(case, wide):
    """How many times as large as the gradient of an activation the terms are that it sums."""
    latents_n = case.kept.latents_n
    groups_n = case.objective.group_of_latent_F[latents_n]
    terms_nO = wide["G_BMO"][case.kept.rows_n, groups_n] * case.weights.W_dec[latents_n]
    return float(terms_nO.abs().sum(1).norm() / wide["d_act_n"].norm())


@pytest.mark.parametrize("shape", SHAPES)
def test_steps_in_a_row_stay_together(shape):
    case = Case(shape, fresh_seed(), dead=2)
    apart = differences(case.run(NumbaKernels()), case.run(TorchKernels()))
    # Adam divides by what may be rounding alone, where a gradient vanishes.
    assert all(value < 1e-3 for value in apart.values()), apart


def test_decoder_rows_are_unit_and_their_moments_orthogonal_to_where_they_were():
    case = Case(SHAPES[2], fresh_seed())
    found = case.run(NumbaKernels(), steps=1)
    assert (found["W_dec"].norm(dim=1) - 1).abs().max() < 1e-6
    along = (found["W_dec.exp_avg"] * case.weights.W_dec).sum(1)
    assert along.abs().max() < 1e-6 * found["W_dec.exp_avg"].norm()
    assert {float(found[f"{name}.step"]) for name in (*BY_LATENT, "b_dec")} == {1.0}


def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch):
    case = Case(SHAPES[0], fresh_seed(), dead=3)
    wanted = case.run(NumbaKernels())
    for count in (1, 2, 3, 7):
        monkeypatch.setattr(threads.torch, "get_num_threads", lambda count=count: count)
        found = case.run(NumbaKernels())
        assert all(torch.equal(found[name], wanted[name]) for name in wanted), count


def test_what_was_in_memory_before_does_not_matter(monkeypatch):
    """Gradients of groups that a row has no nonzeros of are not written."""
    case = Case(SHAPES[0], fresh_seed(), dead=3)
    wanted, matrix = case.run(NumbaKernels()), Workspace.matrix
    monkeypatch.setattr(Workspace, "matrix", lambda *given: matrix(*given).fill_(torch.nan))
    found = case.run(NumbaKernels())
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("width", [12, 20, 37, 100])
def test_bits_do_not_depend_on_where_arrays_lie(width):
    """Where two of them lie less than a vector apart, compiled loops take another way."""
    draw = torch.Generator().manual_seed(fresh_seed())
    rows = {name: torch.randn(width, generator=draw) for name in "abcdef"}
    factors = torch.randn(4, generator=draw).numpy()
    adam = np.array([0.1, 0.999, 0.001, 0.05, 31.6, 1e-8], np.float32)
    seen = set()
    for gap in range(200):
        a, b, c, d, e, f = (row.numpy() for row in packed(rows, gap).values())
        loops._add4(a, *factors, b, c, d, e)
        loops._add2(a, *factors[:2], e, f)
        loops._add(a, factors[0], f)
        loops._adam(adam, a, b, c, np.abs(d))
        seen.add(np.concatenate([a, b, c]).tobytes())
    assert len(seen) == 1


def test_only_a_loop_that_writes_nothing_may_reorder_its_sum():
    """Elsewhere bits depended on addresses, in one run of ten (scar: loops.py)."""
    flags = {
        name: set(loop.targetoptions.get("fastmath") or ())
        for name, loop in vars(loops).items()
        if hasattr(loop, "targetoptions")
    }
    assert {name for name in flags if "reassoc" in flags[name]} == {"dot"}
    assert all(found <= {"contract"} for name, found in flags.items() if name != "dot")


def packed(tensors, gap):
    """Copies in one piece of memory, `gap` floats apart."""
    whole = torch.empty(sum(t.numel() + gap for t in tensors.values()))
    found, at = {}, 0
    for name, tensor in tensors.items():
        found[name] = whole[at : at + tensor.numel()].view(tensor.shape).copy_(tensor)
        at += tensor.numel() + gap
    return found


def test_scaled_rows_are_those_of_torch_to_the_bit():
    draw = torch.Generator().manual_seed(fresh_seed())
    for rows, width in ((64, 576), (1, 7), (0, 5)):
        x, centre = torch.randn(rows, width, generator=draw), torch.randn(width, generator=draw)
        found, distance = NumbaKernels().scaled_rows(x, centre, 0.3)
        wanted, exact = TorchKernels().scaled_rows(x, centre, 0.3)
        assert torch.equal(found, wanted)
        assert torch.allclose(distance, exact, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rounded", [False, True])
def test_selections_are_those_of_torch(dtype, rounded):
    draw = torch.Generator().manual_seed(fresh_seed())
    ours, theirs = BatchTopK(), BatchTopK()
    kernels = NumbaKernels()
    for step in range(40):
        # The cut moves by less and by more than the filter's margin, budgets are met and not.
        scale = 0.6 ** (step % 3) * (1 + 0.02 * step)
        pre = scale * torch.randn(37, 129, generator=draw)
        pre = (8 * pre).round() / 8 if rounded else pre
        pre[step % 37] = 0
        pre = pre.to(dtype)
        exact = pre.flatten().float()
        rescore = (lambda flat_n, e=exact: e[flat_n]) if dtype == torch.bfloat16 else None
        budget = (37 * 5, 37 * 129, 1, 0)[step % 4] if step > 20 else 37 * 5
        found = ours(pre, budget, rescore, kernels)
        wanted = theirs(pre, budget, rescore)
        assert torch.equal(found.rows_n, wanted.rows_n)
        assert torch.equal(found.latents_n, wanted.latents_n)
        assert torch.equal(found.acts_n, wanted.acts_n)
        assert (ours.cut, ours.margin) == (theirs.cut, theirs.margin)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 1000])
def test_what_is_above_and_what_is_least(dtype, size):
    draw = torch.Generator().manual_seed(fresh_seed())
    values = torch.randn(size, generator=draw).to(dtype)
    for place, odd in enumerate((float("nan"), float("inf"), -float("inf"), -0.0)):
        values[place::97] = odd
    for bound in (0.0, 0.5, 3.0):
        index, found = NumbaKernels().above(values, bound)
        wanted = (values > bound).nonzero().squeeze(1)
        assert torch.equal(index, wanted) and torch.equal(found, values[wanted])
    positive = values[values > 0].sort(descending=True).values
    numbers = values[~values.isnan()]
    for wanted in {1, len(positive), len(positive) + 1, len(numbers)} - {0}:
        if wanted <= len(numbers):
            least = float(positive[wanted - 1]) if wanted <= len(positive) else 0.0
            assert NumbaKernels().least(numbers, wanted) == least


def test_what_is_not_a_number_shows_in_the_loss():
    for where in ("x_BI", "y_BO"):
        case = Case(SHAPES[0], fresh_seed(), skip=True)
        getattr(case.batch, where)[5, 2] = float("nan")
        learner = case.learner(case.weights, None)
        passed = NumbaKernels().pass_rows(learner, case.batch, case.kept)
        case.batch.weight_B[5] = 1
        assert not torch.isfinite(passed.loss_P).all()


def test_loops_are_compiled_where_their_code_cannot_be_kept(monkeypatch):
    compile_it = loops.njit

    def nowhere(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return compile_it(**options)

    monkeypatch.setattr(loops, "njit", nowhere)
    assert loops._compiled()(lambda x: x + 1)(1) == 2


def test_a_numba_that_cannot_be_loaded_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "mtc_core.kernels.numba_kernels", None)
    with pytest.raises(ConfigError, match=r"numba cannot be loaded: .*train\.kernels: torch"):
        step_kernels("numba", torch.device("cpu"), torch.float32)
    assert step_kernels("torch", torch.device("cpu"), torch.float32).name == "torch"


def test_without_numba_torch_is_used_and_asking_for_it_is_refused(monkeypatch):
    assert choose.resolve_kernels(None) == choose.resolve_kernels("numba") == "numba"
    assert choose.resolve_kernels("torch") == "torch"
    monkeypatch.setattr(choose, "find_spec", lambda name: None)
    assert choose.resolve_kernels(None) == "torch"
    with pytest.raises(ConfigError, match="numba is not installed here: pip install numba"):
        choose.resolve_kernels("numba")
