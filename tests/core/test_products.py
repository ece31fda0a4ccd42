"""A model's products by the faster library, held against torch's own."""

import copy
from pathlib import Path

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from mtc_core.model import products
from tests.core.steps import fresh_seed
from tests.core.tiny_models import tiny_model

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


def test_only_where_it_is_known_to_be_faster(monkeypatch, tmp_path):
    cpu = tmp_path / "cpuinfo"
    monkeypatch.setattr(products, "_CPU", cpu)
    intel = ZEN4.replace("AuthenticAMD", "GenuineIntel")
    for text, wanted in ((ZEN4, True), (intel, False), (ZEN4.replace("avx512f", ""), False)):
        cpu.write_text(text)
        assert products.is_faster_here() == (wanted and torch.backends.mkl.is_available())
    monkeypatch.setattr(products, "_CPU", Path("/nowhere/cpuinfo"))
    assert not products.is_faster_here()
    layer = torch.nn.Linear(8, 4)
    products.use_faster_products(layer)
    assert "forward" not in layer.__dict__
