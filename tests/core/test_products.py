"""A model's products by the faster library, held against torch's own."""

import copy
from pathlib import Path

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from mtc_core import cpu as cpu_module
from mtc_core import onednn, ridge
from mtc_core.kernels.numba_kernels import NumbaKernels
from mtc_core.kernels.sieve import multiplies_bfloat16
from mtc_core.kernels.torch_kernels import TorchKernels
from mtc_core.model import products
from mtc_core.model.model_source import load_model
from tests.core.steps import Case, fresh_seed
from tests.core.tiny_models import save_tiny_model, tiny_model

ZEN4 = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f avx512_bf16\n\n"


pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch without oneDNN"
)


@pytest.fixture
def faster(monkeypatch):
    """As on a CPU where it is."""
    monkeypatch.setattr(products, "is_faster_here", lambda: True)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "qwen3"])
def test_a_model_gives_the_same_to_rounding(family, faster):
    model = copy.deepcopy(tiny_model(family))
    ids = torch.randint(0, model.config.vocab_size, (3, 17))
    with torch.no_grad():
        wanted = model(ids).logits
        products.use_faster_products(model)
        found = model(ids).logits
    layers = [m for m in model.modules() if isinstance(m, (torch.nn.Linear, Conv1D))]
    assert len(layers) > 6 and all("forward" in layer.__dict__ for layer in layers)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("kind", [torch.nn.Linear, Conv1D])
@pytest.mark.parametrize("rows", [(1, 1), (7, 33), (2, 64, 40), (3, 5, 2, 40)])
def test_layers_of_any_shape(kind, rows, faster):
    torch.manual_seed(fresh_seed())
    inputs = rows[-1]
    layer = kind(inputs, 24) if kind is torch.nn.Linear else kind(24, inputs)
    layer.requires_grad_(False)
    plain = copy.deepcopy(layer)
    products.use_faster_products(layer)
    x = torch.randn(*rows)
    for given in (x, x.transpose(0, -2)):
        found, wanted = layer(given), plain(given.contiguous())
        assert found.shape == wanted.shape
        assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_what_it_is_not_for_is_left_to_torch(faster):
    layer = torch.nn.Linear(8, 4)
    products.use_faster_products(layer)
    layer(torch.randn(3, 8)).sum().backward()
    assert layer.weight.grad is not None
    layer.requires_grad_(False)
    layer.bias.requires_grad_()
    layer(torch.randn(3, 8)).sum().backward()
    assert layer.bias.grad is not None
    layer.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(3, 8)).dtype == torch.bfloat16
    x = torch.randn(3, 8, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert layer(torch.randn(8)).shape == (4,)
    assert layer(torch.randn(0, 8)).shape == (0, 4)
    layer.double()
    assert layer(torch.randn(3, 8, dtype=torch.float64)).dtype == torch.float64


class Quantised(torch.Tensor):
    """Says that it is float32, and is not."""


def test_wrappers_and_other_kinds_of_weights_are_left_alone(faster):
    wrapped = torch.nn.Linear(8, 4).requires_grad_(False)
    wrapped.forward = lambda x: "wrapped"
    odd = torch.nn.Linear(8, 4).requires_grad_(False)
    odd.weight = torch.nn.Parameter(odd.weight.data.as_subclass(Quantised), requires_grad=False)
    for layer in (wrapped, odd):
        products.use_faster_products(layer)
    assert wrapped(torch.ones(2, 8)) == "wrapped"
    assert isinstance(odd(torch.ones(2, 8)), Quantised)


def test_arguments_keep_their_names(faster):
    linear, conv = torch.nn.Linear(8, 4).requires_grad_(False), Conv1D(4, 8).requires_grad_(False)
    for layer in (linear, conv):
        products.use_faster_products(layer)
    x = torch.randn(3, 8)
    assert torch.equal(linear(input=x), linear(x)) and torch.equal(conv(x=x), conv(x))


def test_a_copy_uses_its_own_weights(faster):
    layer = torch.nn.Linear(8, 4).requires_grad_(False)
    products.use_faster_products(layer)
    other = copy.deepcopy(layer)
    other.weight.zero_()
    other.bias.zero_()
    for x in (torch.ones(2, 8), torch.ones(8)):
        assert not other(x).any() and layer(x).any()


@pytest.mark.parametrize("inputs, outputs", [(576, 192), (64, 64), (1536, 576)])
def test_bits_depend_neither_on_threads_nor_on_the_other_rows(inputs, outputs, faster):
    """Of one row alone they may."""
    torch.manual_seed(fresh_seed())
    layer = torch.nn.Linear(inputs, outputs).requires_grad_(False)
    products.use_faster_products(layer)
    x, count = torch.randn(300, inputs), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        wanted = layer(x)
        torch.set_num_threads(2)
        assert torch.equal(layer(x), wanted)
    finally:
        torch.set_num_threads(count)
    for rows in (2, 3, 16, 127, 128, 299):
        assert torch.equal(layer(x[:rows]), wanted[:rows]), rows


@pytest.mark.parametrize("rows", [1, 2, 511, 512, 513, 1300])
@pytest.mark.parametrize("inputs, outputs", [(onednn.NARROW, 96), (576, 700), (64, 80)])
def test_an_encoders_product_is_torchs_to_rounding(rows, inputs, outputs):
    draw = torch.Generator().manual_seed(fresh_seed())
    x_BI = torch.randn(rows, inputs, generator=draw)
    W_FI = torch.randn(outputs, inputs, generator=draw)
    bias_F, out_BF = torch.randn(outputs, generator=draw), torch.full((rows, outputs), torch.nan)
    assert onednn.addmm(bias_F, x_BI, W_FI.T, out=out_BF) is out_BF
    wide_BF = x_BI.double() @ W_FI.T.double() + bias_F
    terms_BF = x_BI.abs().double() @ W_FI.T.abs().double() + bias_F.abs()
    assert ((out_BF - wide_BF).abs() <= (inputs + 1) * 2.0**-24 * terms_BF).all()
    torch_BF = torch.addmm(bias_F, x_BI, W_FI.T).double()
    assert (out_BF - wide_BF).norm() <= 4 * (torch_BF - wide_BF).norm() + 1e-6 * wide_BF.norm()


def test_bits_of_an_encoders_product_do_not_depend_on_threads():
    draw = torch.Generator().manual_seed(fresh_seed())
    x_BI, W_FI = torch.randn(1300, 576, generator=draw), torch.randn(700, 576, generator=draw)
    found, count = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            out_BF = torch.empty(1300, 700)
            found.append(onednn.addmm(torch.zeros(700), x_BI, W_FI.T, out=out_BF))
    finally:
        torch.set_num_threads(count)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_encoders_take_it_where_it_is_faster(monkeypatch):
    monkeypatch.setattr(onednn, "is_faster_here", lambda: True)
    assert NumbaKernels().inner is onednn.inner
    asked = []
    monkeypatch.setattr(onednn, "linear", lambda x, W, b: asked.append(x) or x @ W.T + b)
    case = Case((40, onednn.NARROW, 33, (6, 6), 100), fresh_seed())
    learner, x_BI = case.learner(case.weights, None), case.batch.x_BI
    found = NumbaKernels().pre_activations(learner, x_BI, 0.0).pre_BF.clone()
    assert len(asked) == 1
    wanted = TorchKernels().pre_activations(learner, x_BI, 0.0).pre_BF
    assert len(asked) == 1 and torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)
    halved = NumbaKernels(half=True).pre_activations(learner, x_BI, 0.0).pre_BF
    assert len(asked) == 1 and halved.dtype == torch.bfloat16  # which torch multiplies by oneDNN
    assert torch.allclose(halved.float(), wanted, rtol=0.05, atol=0.5)


@pytest.mark.parametrize(
    "rows, inputs, outputs", [(512, 577, 576), (511, 300, 40), (1, 256, 7), (90, 64, 80)]
)
def test_an_inner_product_is_torchs_to_rounding_whatever_the_threads(rows, inputs, outputs):
    draw = torch.Generator().manual_seed(fresh_seed())
    a_BI = torch.randn(rows, inputs, generator=draw)
    b_BO = torch.randn(2 * rows, outputs, generator=draw)[:rows]
    found, wanted = onednn.inner(a_BI, b_BO), a_BI.T.double() @ b_BO.double()
    assert (found - wanted).abs().max() < 1e-5 * rows**0.5
    count = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(onednn.inner(a_BI, b_BO), found)
    finally:
        torch.set_num_threads(count)


def test_only_where_it_is_known_to_be_faster(monkeypatch, tmp_path):
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(cpu_module, "_INFO", info)
    intel = ZEN4.replace("AuthenticAMD", "GenuineIntel")
    zen3 = ZEN4.replace("avx512f avx512_bf16", "")
    old = zen3.replace("avx2", "sse4_2")
    for text, wanted in ((ZEN4, True), (zen3, True), (intel, False), (old, False)):
        info.write_text(text)
        assert products.is_faster_here() == (wanted and torch.backends.mkl.is_available())
    monkeypatch.setattr(cpu_module, "_INFO", Path("/nowhere/cpuinfo"))
    assert not products.is_faster_here()
    assert NumbaKernels().addmm is torch.addmm and NumbaKernels().inner is ridge.inner
    layer = torch.nn.Linear(8, 4)
    products.use_faster_products(layer)
    assert "forward" not in layer.__dict__


def test_what_linux_says_of_bfloat16_is_what_torch_finds():
    """The plan goes by the one, steps by the other."""
    if not Path("/proc/cpuinfo").exists():
        pytest.skip("not Linux")
    assert cpu_module.this_cpu().multiplies_bfloat16 == multiplies_bfloat16()


def test_a_model_may_be_loaded_with_torchs_own_products(tmp_path, faster):
    folder = save_tiny_model(tmp_path / "model")
    layers = {
        wanted: [
            "forward" in vars(module)
            for module in load_model(str(folder), faster_products=wanted).model.modules()
            if isinstance(module, torch.nn.Linear)
        ]
        for wanted in (True, False)
    }
    assert all(layers[True]) and not any(layers[False]) and len(layers[False]) > 6
