"""A training step in plain torch, on any device: what every faster form is held against.

B rows · M groups (and prefixes) · F latents · I, O source and target widths · n nonzeros
"""

from __future__ import annotations

import torch

from mtc_core.kernels.host_kernels import HostKernels
from mtc_core.kernels.row_pass import Aux, RowPass, base_gradients, gradient_scales
from mtc_core.learner import Learner
from mtc_core.objective import Batch, Weights, group_gradients, prefix_errors
from mtc_core.selection import Kept
from mtc_core.sparse import Bags, LatentMajor
from mtc_core.statistics import scaled_rows


class TorchKernels(HostKernels):
    """Embedding bags by row, sparse matrices by latent, torch's fused Adam."""

    name = "torch"
    scaled_rows = staticmethod(scaled_rows)

    def pass_rows(self, learner: Learner, batch: Batch, kept: Kept) -> RowPass:
        """Losses of the selected activations, and gradients up to them."""
        weights, objective = learner.weights, learner.objective
        n_rows, n_groups = batch.y_BO.shape[0], len(objective.prefix_weights) - 1
        bags = Bags(kept, objective.group_of_latent_F, n_rows, n_groups)
        base_error_BO = weights.base_error(batch.x_BI, batch.y_BO)
        errors_BMO = prefix_errors(bags.decode(weights.W_dec), base_error_BO)
        squares_BM = torch.linalg.vector_norm(errors_BMO, dim=2).double().square()
        residual_BO = -errors_BMO[:, -1]  # a copy, taken before the errors become gradients
        G_BMO = group_gradients(errors_BMO, gradient_scales(batch, objective))
        d_act_n = bags.dot(G_BMO, weights.W_dec)
        return RowPass.of(learner, batch, kept, squares_BM, residual_BO, G_BMO, d_act_n)

    def update(self, learner: Learner, batch: Batch, passed: RowPass, aux: Aux) -> None:
        """Adam on every parameter; decoder rows leave the step at unit norm."""
        weights, optimizer = learner.weights, learner.optimizer
        gradients = self.gradients(learner, batch, passed, aux)
        # A unit row cannot use the part of its gradient along itself; Adam's moments should not.
        along_F = (gradients.W_dec * weights.W_dec).sum(1, keepdim=True)
        gradients.W_dec.addcmul_(weights.W_dec, along_F, value=-1)
        for parameter, gradient in zip(
            weights.tensors().values(), gradients.tensors().values(), strict=True
        ):
            parameter.grad = gradient
        optimizer.step()
        optimizer.zero_grad()  # drops the tensors: a gradient is as large as the weights
        weights.W_dec.div_(torch.linalg.vector_norm(weights.W_dec, dim=1, keepdim=True))

    def gradients(self, learner: Learner, batch: Batch, passed: RowPass, aux: Aux) -> Weights:
        """Of the whole loss, with respect to every parameter."""
        weights, group_F, kept = learner.weights, learner.objective.group_of_latent_F, passed.kept
        assert passed.d_act_n is not None
        by_latent = LatentMajor(kept, weights.W_dec.shape[0])
        bags_n = kept.rows_n * passed.G_BMO.shape[1] + group_F[kept.latents_n]
        gradients = Weights(
            W_enc=by_latent.gradient(passed.d_act_n, kept.rows_n, batch.x_BI),
            b_enc=by_latent.sums(passed.d_act_n),
            W_dec=by_latent.gradient(kept.acts_n, bags_n, passed.G_BMO.flatten(0, 1)),
            **base_gradients(weights, batch, passed),
        )
        if aux is not None:
            aux.add_to(gradients)
        return gradients
