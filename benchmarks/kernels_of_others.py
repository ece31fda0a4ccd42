"""Decoders of other tools as a step of peer_kernels.py, loaded from their files: none of it is
ours.

B rows · K activations kept in each · F latents · I, O source and target widths
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.kernel_problem import BETAS, LR, Problem, first_moments

# latents_BK, acts_BK, W_dec_FO, b_dec_O, y_BO -> mean squared error, which has gradients
Loss = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
# latents_BK, d_act_BK, x_BI, F -> gradient of W_enc
EncoderGradient = Callable[[Tensor, Tensor, Tensor, int], Tensor]


class NotTheirs(Exception):
    """A file that holds none of the kernels that peer_kernels.py knows."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """of_all_prefixes: its loss is a mean over those of a row's activations."""

    loss: Loss
    encoder_gradient: EncoderGradient
    of_all_prefixes: bool = False


class Others:
    """A step with somebody's decoder. In bfloat16 it reads copies of the weights and rows, as
    autocast makes them."""

    def __init__(self, decoder: Decoder, problem: Problem, dtype: torch.dtype) -> None:
        self._decoder, self._dtype = decoder, dtype
        self.prefixes = problem.latents_BK.shape[1] if decoder.of_all_prefixes else 1
        self._latents, self._acts = problem.latents_BK.contiguous(), problem.acts_BK
        self._x, self._y = problem.x_BI.to(dtype), problem.y_BO
        self._weights = problem.weights()
        self._tensors = self._weights.tensors()
        self._adam = torch.optim.Adam(list(self._tensors.values()), lr=LR, betas=BETAS, fused=True)

    def decoder(self) -> None:
        self._gradients()

    def whole(self) -> None:
        weights = self._weights
        d_acts, d_W_dec, d_b_dec = self._gradients()
        with torch.no_grad():
            d_W_enc = self._decoder.encoder_gradient(
                self._latents, d_acts, self._x, len(weights.W_enc)
            )
            d_b_enc = torch.zeros_like(weights.b_enc)
            d_b_enc.index_add_(0, self._latents.flatten(), d_acts.flatten().float())
            d_W_dec = d_W_dec - (d_W_dec * weights.W_dec).sum(1, keepdim=True) * weights.W_dec
            gradients = {"W_enc": d_W_enc, "b_enc": d_b_enc, "W_dec": d_W_dec, "b_dec": d_b_dec}
            for name, parameter in self._tensors.items():
                parameter.grad = gradients[name].to(parameter.dtype)
            self._adam.step()
            weights.W_dec.div_(weights.W_dec.norm(dim=1, keepdim=True))

    def first_moments(self) -> dict[str, Tensor]:
        return first_moments(self._weights, self._adam)

    def _gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of activations, W_dec and b_dec."""
        acts = self._acts.to(self._dtype).detach().requires_grad_()
        W_dec = self._weights.W_dec.to(self._dtype).detach().requires_grad_()
        b_dec = self._weights.b_dec.detach().requires_grad_()
        loss = self._decoder.loss(self._latents, acts, W_dec, b_dec, self._y)
        d_acts, d_W_dec, d_b_dec = torch.autograd.grad(loss, (acts, W_dec, b_dec))
        return d_acts, d_W_dec, d_b_dec


def torch_decoder() -> Decoder:
    def bag(latents_BK: Tensor, acts_BK: Tensor, W_dec_FO: Tensor) -> Tensor:
        return F.embedding_bag(latents_BK, W_dec_FO, per_sample_weights=acts_BK, mode="sum")

    return Decoder(_squared_error(bag), _index_add)


def known_decoders(file: Path) -> dict[str, Decoder]:
    """By name; of a file that holds kernels of those that are known. Raises NotTheirs."""
    module, found = _module(file), {}
    if bag := getattr(module, "xformers_embedding_bag", None):
        found["sparsify's embedding bag"] = Decoder(_in_order(bag), _index_add)
    if decode := getattr(module, "TritonDecoderAutograd", None):
        found["OpenAI's sparse products"] = Decoder(_openai(decode), _openai_encoder(module))
    if loss := getattr(module, "triton_topk_sae_loss", None):
        found["flex-sae's TopK loss"] = Decoder(_flex(loss), _index_add)
    if loss := getattr(module, "triton_hierarchical_sae_loss", None):
        found["flex-sae's loss of all prefixes"] = Decoder(_flex(loss), _index_add, True)
    if not found:
        raise NotTheirs(
            f"{file} holds none of the kernels that stand beside ours; give xformers.py of "
            "sparsify, kernels.py of openai/sparse_autoencoder, topk_kernels.py or "
            "hierarchical_kernels.py of flex-sae"
        )
    return found


def _module(file: Path) -> ModuleType:
    name = f"beside_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise NotTheirs(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (OSError, ImportError, SyntaxError) as error:
        raise NotTheirs(f"{file} cannot be loaded: {error}") from None
    return module


def _squared_error(decode: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Loss:
    def loss(
        latents_BK: Tensor, acts_BK: Tensor, W_dec_FO: Tensor, b_dec_O: Tensor, y_BO: Tensor
    ) -> Tensor:
        return F.mse_loss(decode(latents_BK, acts_BK, W_dec_FO).float() + b_dec_O, y_BO)

    return loss


def _in_order(bag: Any) -> Loss:
    return _squared_error(lambda latents_BK, acts_BK, W_dec_FO: bag(latents_BK, W_dec_FO, acts_BK))


def _openai(decode: Any) -> Loss:
    """Theirs has the decoder as [d_out, d_sae], contiguous when transposed."""
    return _squared_error(
        lambda latents_BK, acts_BK, W_dec_FO: decode.apply(latents_BK, acts_BK, W_dec_FO.T)
    )


def _flex(their_loss: Any) -> Loss:
    """Theirs of all prefixes returns the last reconstruction, too."""

    def loss(
        latents_BK: Tensor, acts_BK: Tensor, W_dec_FO: Tensor, b_dec_O: Tensor, y_BO: Tensor
    ) -> Tensor:
        found = their_loss(latents_BK, W_dec_FO, acts_BK, b_dec_O, y_BO)
        return found[0] if isinstance(found, tuple) else found

    return loss


def _openai_encoder(module: ModuleType) -> EncoderGradient:
    def gradient(latents_BK: Tensor, d_act_BK: Tensor, x_BI: Tensor, d_sae: int) -> Tensor:
        product: Tensor = module.triton_sparse_transpose_dense_matmul(
            latents_BK, d_act_BK.contiguous(), x_BI, N=d_sae
        )
        return product

    return gradient


def _index_add(latents_BK: Tensor, d_act_BK: Tensor, x_BI: Tensor, d_sae: int) -> Tensor:
    """[B k, d_in] in memory, as sparsify has it."""
    parts_BKI = d_act_BK.float()[:, :, None] * x_BI.float()[:, None]
    gradient_FI = parts_BKI.new_zeros(d_sae, x_BI.shape[1])
    return gradient_FI.index_add_(0, latents_BK.flatten(), parts_BKI.flatten(0, 1))
