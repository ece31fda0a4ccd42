"""One transcoder in training: its state, and the step that moves it.

    scale rows -> encode -> select -> losses and gradients -> aux -> Adam -> unit decoder rows

The step needs torch alone. Everything that decides a later step is in `state()`, so a trainer
loaded from it goes on to the same bits.

B rows · F latents · I, O source and target widths · D dead latents
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import record_function

from mtc_core.aux_loss import AuxGradients, aux_gradients
from mtc_core.config import TrainConfig, TranscoderSpec
from mtc_core.errors import CheckpointError, TrainingStopped
from mtc_core.initial import initial_weights, saved_weights
from mtc_core.kernels.step_kernels import step_kernels
from mtc_core.objective import Batch, Objective
from mtc_core.ridge import RidgeTotals
from mtc_core.selection import BatchTopK, Kept, Rescore, topk_lowest_index, topk_rows
from mtc_core.sparse import row_dot
from mtc_core.statistics import PairStatistics, Scaler
from mtc_core.workspace import Workspace

REFRESH_DEAD_STEPS = 100
THRESHOLD_DECAY = 0.99
BOUND_LATENTS = 4  # an extreme row under `bound` uses at most this many times k latents


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step measured, still on its device."""

    loss: Tensor
    fvu_P: Tensor  # of prefixes 1..m, over this step's ordinary rows, in units of V
    variance: float  # V
    aux: Tensor
    l0: Tensor  # kept nonzeros per row with a weight
    extreme: Tensor  # share of extreme rows

    @property
    def l2_P(self) -> Tensor:
        """mean_n ‖y_n − ŷ_{i,n}‖² of prefixes i = 1..m: squared error per ordinary row, summed over
        target dimensions, in scaled units (where a row's distance from the mean is V = d_out on
        average). Computed when asked for."""
        return self.fvu_P * self.variance


class TranscoderTrainer:
    """Trains one Matryoshka transcoder from rows (x, y) in raw model units."""

    def __init__(
        self,
        spec: TranscoderSpec,
        train: TrainConfig,
        statistics: PairStatistics,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        workspace: Workspace | None = None,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`workspace` may be shared by trainers that step in turn. `start`: tensors of a saved
        transcoder (FORMAT.md) from which training starts, instead of random ones; raises
        CheckpointError if they are of other sizes."""
        self.spec, self.train = spec, train
        self.workspace = workspace or Workspace()
        self.device = torch.device(device)
        self.statistics = statistics.to(self.device)
        d_in, d_out = statistics.mu_I.numel(), statistics.nu_O.numel()
        if start is None:
            self.weights = initial_weights(spec, d_in, d_out, self.device, dtype)
        else:
            self.weights = saved_weights(start, spec, self.statistics, dtype)
        self.optimizer = torch.optim.Adam(
            list(self.weights.tensors().values()),
            lr=spec.learning_rate(train.lr_steps),
            betas=train.adam_betas,
            fused=True,
        )
        for parameter in self.weights.tensors().values():
            self.optimizer.state[parameter] = fresh_moments(parameter)
        self.kernels = step_kernels(train.kernels, self.device, dtype)
        self.scaler = Scaler(
            statistics,
            train.extreme,
            device=self.device,
            dtype=dtype,
            scaled=self.kernels.scaled_rows,
        )
        sizes = torch.tensor(spec.group_sizes)
        group_of_latent_F = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        # In scaled units the target's variance is d_out, whatever the site.
        self.objective = Objective(spec.weights, float(d_out), group_of_latent_F.to(self.device))
        self.select = BatchTopK()
        self.ridge = RidgeTotals(d_in, d_out, self.device)
        self.step_index = 0
        self.threshold = torch.tensor(-1.0, dtype=torch.float64)  # EMA; negative: none seen yet
        self.silent_F = torch.zeros(spec.d_sae, dtype=torch.int64, device=self.device)
        self.dead_D = torch.zeros(0, dtype=torch.int64, device=self.device)

    @torch.no_grad()
    def step(self, x_raw_BI: Tensor, y_raw_BO: Tensor) -> StepReport:
        """One optimizer step on raw rows [B, d_in] and [B, d_out].

        Raises TrainingStopped when the loss is not finite; the weights are then still the last
        good ones."""
        with record_function("mtc.scale"):
            batch, extreme_B = self.scaler(x_raw_BI, y_raw_BO)
        kept = self._select(batch, extreme_B)
        with record_function("mtc.rows"):
            passed = self.kernels.pass_rows(
                self.weights, batch, kept, self.objective, self.workspace
            )
        with record_function("mtc.aux"):
            aux, aux_added = self._aux(batch, passed.residual_BO)
        loss = passed.loss(self.spec.weights) + self.spec.aux_weight * aux
        # A source row that is not finite selects nothing: the loss alone would not show it.
        loss += 0 * batch.x_BI.sum()
        if not torch.isfinite(loss):
            raise TrainingStopped(
                f"the loss is {float(loss)} at step {self.step_index}; lower train.lr, or set "
                "model.dtype: float32 if the model's activations overflow"
            )
        with record_function("mtc.update"):
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate
            self.kernels.update(
                self.weights, self.optimizer, batch, kept, passed, aux_added, self.objective
            )
        with record_function("mtc.counters"):
            self._count(kept, batch)
            self.ridge.add(batch.x_BI, batch.y_BO, batch.weight_B)
        self.step_index += 1
        l0 = kept.acts_n.numel() / batch.count
        variance = self.objective.variance
        return StepReport(loss, passed.fvu_P, variance, aux, l0, extreme_B.double().mean())

    def _select(self, batch: Batch, extreme_B: Tensor) -> Kept:
        """The activations of a step. Extreme rows keep their place but (mask) stay empty."""
        with record_function("mtc.encode"):
            pre_BF, rescore = self._pre_activations(batch.x_BI)
        with record_function("mtc.select"):
            return self._kept(pre_BF, rescore, batch, extreme_B)

    def _kept(
        self, pre_BF: Tensor, rescore: Rescore | None, batch: Batch, extreme_B: Tensor
    ) -> Kept:
        self._curb_extreme(pre_BF, extreme_B.nonzero().squeeze(1))
        if self.spec.selection == "topk":
            return topk_rows(pre_BF, self.spec.k, rescore)
        budget = self.spec.k * int(batch.count)
        kept = self.select(pre_BF, budget, rescore, self.kernels)
        self._track_threshold(kept, budget)
        return kept

    def _curb_extreme(self, pre_BF: Tensor, rows_E: Tensor) -> None:
        if not rows_E.numel() or self.train.extreme == "keep":
            return
        if self.train.extreme == "mask":
            pre_BF[rows_E] = 0
            return
        cap = min(BOUND_LATENTS * self.spec.k, self.spec.d_sae)
        values, latents = topk_lowest_index(pre_BF[rows_E], cap)
        pre_BF[rows_E] = 0
        pre_BF[rows_E[:, None], latents] = values

    def _pre_activations(self, x_BI: Tensor) -> tuple[Tensor, Rescore | None]:
        """Pre-activations, and how to make rounded ones exact."""
        w = self.weights
        exact = self.train.dtype == "float32"
        dtype = w.W_enc.dtype if exact else torch.bfloat16
        pre_BF = self.workspace.matrix(len(x_BI), self.spec.d_sae, self.device, dtype)
        torch.addmm(w.b_enc.to(dtype), x_BI.to(dtype), w.W_enc.to(dtype).T, out=pre_BF)
        if exact:
            return pre_BF, None

        def rescore(flat_n: Tensor) -> Tensor:
            found = Kept.from_flat(flat_n, flat_n, self.spec.d_sae)
            exact_n = row_dot(x_BI, w.W_enc, found.rows_n, found.latents_n)
            return exact_n + w.b_enc[found.latents_n]

        return pre_BF, rescore

    def _track_threshold(self, kept: Kept, budget: int) -> None:
        if kept.acts_n.numel() < budget or budget == 0:
            return  # fewer positives than the budget: the smallest is no cut
        smallest = kept.acts_n.min().double().cpu()
        first = self.threshold < 0
        self.threshold = torch.where(
            first, smallest, torch.lerp(smallest, self.threshold, THRESHOLD_DECAY)
        )

    def _aux(self, batch: Batch, residual_BO: Tensor) -> tuple[Tensor, AuxGradients | None]:
        if self.step_index % REFRESH_DEAD_STEPS == 0:
            self.dead_D = (self.silent_F >= self.train.dead_after).nonzero().squeeze(1)
        if not self.dead_D.numel() or self.spec.aux_weight == 0:
            return batch.count.new_zeros((), dtype=torch.float64), None
        return aux_gradients(
            self.weights,
            batch,
            residual_BO,
            self.dead_D,
            k_aux=self.spec.k_aux,
            aux_weight=self.spec.aux_weight,
            variance=self.objective.variance,
        )

    def _count(self, kept: Kept, batch: Batch) -> None:
        """Rows since each latent last fired: a kept value above 0, not a mere selection."""
        self.silent_F += batch.count.long()
        self.silent_F[kept.latents_n] = 0

    @property
    def learning_rate(self) -> float:
        """Of the coming step."""
        highest = self.spec.learning_rate(self.train.lr_steps)
        return highest * self.train.lr_factor(self.step_index)

    @property
    def dead(self) -> int:
        """Number of latents silent for `dead_after` rows or more."""
        return int((self.silent_F >= self.train.dead_after).sum())

    @property
    def dead_share(self) -> float:
        """`dead` as a share of all latents."""
        return self.dead / self.spec.d_sae

    def state(self) -> dict[str, Tensor]:
        """Everything that a later step depends on, as tensors (shared with the trainer)."""
        tensors = dict(self.weights.tensors())
        for name, parameter in self.weights.tensors().items():
            for key in ("exp_avg", "exp_avg_sq"):
                tensors[f"adam.{name}.{key}"] = self.optimizer.state[parameter][key]
        tensors |= {f"statistics.{k}": v for k, v in self.statistics.tensors().items()}
        tensors |= {f"ridge.{k}": v for k, v in self.ridge.tensors().items()}
        tensors |= {
            "step": torch.tensor(self.step_index),
            "threshold": self.threshold,
            "filter": torch.tensor([self.select.cut, self.select.margin], dtype=torch.float64),
            "silent": self.silent_F,
            "dead": self.dead_D,
        }
        return tensors

    @classmethod
    def from_state(
        cls,
        spec: TranscoderSpec,
        train: TrainConfig,
        state: Mapping[str, Tensor],
        *,
        device: str | torch.device = "cpu",
        workspace: Workspace | None = None,
    ) -> TranscoderTrainer:
        """A trainer that goes on where `state` was taken. Raises CheckpointError."""
        prefix = "statistics."
        statistics = PairStatistics.from_tensors(
            {k.removeprefix(prefix): v.to(device) for k, v in state.items() if k.startswith(prefix)}
        )
        trainer = cls(spec, train, statistics, device=device, workspace=workspace)
        trainer._load(state)
        return trainer

    def _load(self, state: Mapping[str, Tensor]) -> None:
        step = state["step"].to(torch.float32)
        for name, parameter in self.weights.tensors().items():
            if state[name].shape != parameter.shape:
                raise CheckpointError(
                    f"{name} is {list(state[name].shape)} in the checkpoint and "
                    f"{list(parameter.shape)} in the manifest; they are of different transcoders"
                )
            parameter.copy_(state[name])
            moments = self.optimizer.state[parameter]
            moments["step"].copy_(step)
            for key in ("exp_avg", "exp_avg_sq"):
                moments[key].copy_(state[f"adam.{name}.{key}"])
        self.ridge.load({k: state[f"ridge.{k}"] for k in self.ridge.tensors()})
        self.step_index = int(state["step"])
        self.threshold = state["threshold"].clone()
        self.select.cut, self.select.margin = state["filter"].tolist()
        self.silent_F.copy_(state["silent"])
        self.dead_D = state["dead"].to(self.device, copy=True)


def fresh_moments(parameter: Tensor) -> dict[str, Tensor]:
    """What torch.optim.Adam(fused=True) keeps of a parameter before its first step."""
    return {
        "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
        "exp_avg": torch.zeros_like(parameter),
        "exp_avg_sq": torch.zeros_like(parameter),
    }
