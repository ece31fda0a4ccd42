"""The auxiliary loss by itself: against its formula in float64, and the same bits everywhere."""

import pytest
import torch

from mtc_core.aux_loss import aux_gradients
from mtc_core.kernels.numba_kernels import NumbaKernels
from mtc_core.kernels.torch_kernels import TorchKernels
from tests.core.steps import Case, fresh_seed

KERNELS = pytest.mark.parametrize("make", [TorchKernels, NumbaKernels])
DEAD = (1, 3, 16, 17, 33, 50, 100)
WIDTH, WEIGHT = 96, 1 / 32


def computed(case, kernels, k_aux=None):
    aux, gradients = aux_gradients(
        case.weights,
        case.batch,
        case.batch.y_BO,  # what the live ones left over: any rows will do
        case.aux.dead_D,
        k_aux=k_aux,
        aux_weight=WEIGHT,
        variance=float(WIDTH),
        products=kernels,
    )
    parts = {name: getattr(gradients, name) for name in ("W_enc_DI", "b_enc_D", "W_dec_DO")}
    return {"aux": aux, **parts}


@KERNELS
@pytest.mark.parametrize("dead", DEAD)
def test_it_is_its_formula_s(make, dead):
    case = Case((512, 64, WIDTH, (128,), 2000), fresh_seed(), dead=dead)
    k = max(1, dead // 2)
    found = computed(case, make(), k_aux=k)
    x, residual, weight = (
        t.double() for t in (case.batch.x_BI, case.batch.y_BO, case.batch.weight_B)
    )
    of = {
        "W_enc_DI": case.weights.W_enc[case.aux.dead_D],
        "b_enc_D": case.weights.b_enc[case.aux.dead_D],
        "W_dec_DO": case.weights.W_dec[case.aux.dead_D],
    }
    W_enc, b_enc, W_dec = (tensor.double().requires_grad_() for tensor in of.values())
    with torch.enable_grad():
        acts = (x @ W_enc.T + b_enc).relu()
        kept = acts * torch.zeros_like(acts).scatter(1, acts.topk(k, dim=1).indices, 1.0)
        squares = (residual - kept @ W_dec).square().sum(1)
        aux = min(1.0, dead / (WIDTH // 2)) * (weight * squares).sum() / (case.batch.count * WIDTH)
        gradients = torch.autograd.grad(WEIGHT * aux, (W_enc, b_enc, W_dec))
    assert float(found["aux"]) == pytest.approx(float(aux.detach()), rel=1e-5)
    for name, wanted in zip(of, gradients, strict=True):
        assert found[name].shape == wanted.shape
        assert (found[name] - wanted).norm() <= 1e-4 * wanted.norm(), name


@KERNELS
@pytest.mark.parametrize("dead", DEAD)
def test_bits_do_not_depend_on_the_number_of_threads(make, dead):
    """A run's cells have as many as the machine allows. MKL's products do, where few columns are no
    multiple of 16."""
    case = Case((512, 64, WIDTH, (128,), 2000), fresh_seed(), dead=dead)
    count = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(computed(case, make()))
    finally:
        torch.set_num_threads(count)
    for other in found[1:]:
        for name, wanted in found[0].items():
            assert torch.equal(other[name], wanted), name
