"""One transcoder in training: its state, and the step that moves it.

    scale rows -> encode -> select -> losses and gradients -> aux -> Adam -> unit decoder rows

The step needs torch alone. Everything that decides a later step is in `state()`, so a trainer
loaded from it goes on to the same bits.

B rows · F latents · I, O source and target widths · D dead latents
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import record_function

from mtc_core.aux_loss import AuxGradients, aux_gradients
from mtc_core.config import TrainConfig, TranscoderSpec
from mtc_core.errors import CheckpointError
from mtc_core.initial import initial_weights, saved_weights
from mtc_core.kernels.step_kernels import step_kernels
from mtc_core.learner import Learner, LossWatch
from mtc_core.objective import Batch, Objective
from mtc_core.ridge import RidgeTotals
from mtc_core.selection import Kept
from mtc_core.statistics import PairStatistics, Scaler
from mtc_core.workspace import Workspace

REFRESH_DEAD_STEPS = 100


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
        half = train.dtype == "bfloat16"
        sparse = spec.takes_few(train.extreme)
        self.kernels = step_kernels(train.kernels, self.device, dtype, half, sparse)
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
        self.learner = Learner(
            weights=self.weights,
            optimizer=self.optimizer,
            objective=self.objective,
            workspace=workspace or Workspace(),
            watch=LossWatch(self.device),
        )
        self.selector = self.kernels.selector(spec, train.extreme, self.device)
        self.ridge = RidgeTotals(d_in, d_out, self.device, self.kernels.inner)
        self.silent_F = torch.zeros(spec.d_sae, dtype=torch.int64, device=self.device)
        self.dead_D = torch.zeros(0, dtype=torch.int64, device=self.device)

    @torch.no_grad()
    def step(self, x_raw_BI: Tensor, y_raw_BO: Tensor) -> StepReport:
        """One optimizer step on raw rows [B, d_in] and [B, d_out].

        Raises TrainingStopped when the loss is not finite; the weights are then still the last
        good ones. Where asking would have a GPU wait, it raises at the next logged step."""
        with _current(self.device):
            return self._step(x_raw_BI, y_raw_BO)

    def _step(self, x_raw_BI: Tensor, y_raw_BO: Tensor) -> StepReport:
        with record_function("mtc.scale"):
            batch, extreme_B = self.scaler(x_raw_BI, y_raw_BO)
        kept = self._select(batch, extreme_B)
        with record_function("mtc.rows"):
            passed = self.kernels.pass_rows(self.learner, batch, kept)
        with record_function("mtc.aux"):
            aux, aux_added = self._aux(batch, passed.residual_BO)
        loss = passed.loss(self.objective) + self.spec.aux_weight * aux
        # A source row that is not finite selects nothing: the loss alone would not show it.
        loss += 0 * batch.x_BI.sum()
        self.learner.watch.look(loss, self.step_index)
        if self.kernels.waits or self.step_index % self.train.log_every_steps == 0:
            self.learner.watch.check()
        with record_function("mtc.update"):
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate
            self.kernels.update(self.learner, batch, passed, aux_added)
        with record_function("mtc.counters"):
            self._count(kept, batch)
            self.ridge.add(batch.x_BI, batch.y_BO, batch.weight_B)
        self.learner.step_index += 1
        l0 = kept.number / batch.count
        variance = self.objective.variance
        return StepReport(loss, passed.fvu_P, variance, aux, l0, extreme_B.double().mean())

    def _select(self, batch: Batch, extreme_B: Tensor) -> Kept:
        with record_function("mtc.encode"):
            pre = self.kernels.pre_activations(self.learner, batch.x_BI, self.selector.cut)
        with record_function("mtc.select"):
            return self.selector(pre, batch, extreme_B)

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
            products=self.kernels,
        )

    def _count(self, kept: Kept, batch: Batch) -> None:
        """Rows since each latent last fired: a kept value above 0, not a mere selection."""
        self.silent_F += batch.count.long()
        kept.reset(self.silent_F)

    @property
    def step_index(self) -> int:
        """Steps done, and the index of the coming one."""
        return self.learner.step_index

    @property
    def threshold(self) -> Tensor:
        """Of inference, in scaled units, from the training batches; negative before the first."""
        return self.selector.threshold

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
        """Everything that a later step depends on, as tensors (shared with the trainer).

        Raises TrainingStopped where the loss was not finite and nobody has asked since."""
        self.learner.watch.check()
        tensors = dict(self.weights.tensors())
        for name, parameter in self.weights.tensors().items():
            for key in ("exp_avg", "exp_avg_sq"):
                tensors[f"adam.{name}.{key}"] = self.optimizer.state[parameter][key]
        tensors |= {f"statistics.{k}": v for k, v in self.statistics.tensors().items()}
        tensors |= {f"ridge.{k}": v for k, v in self.ridge.tensors().items()}
        tensors |= {
            "step": torch.tensor(self.step_index),
            **self.selector.tensors(),
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
        self.learner.step_index = int(state["step"])
        self.selector.load(state)
        self.silent_F.copy_(state["silent"])
        self.dead_D = state["dead"].to(self.device, copy=True)


def fresh_moments(parameter: Tensor) -> dict[str, Tensor]:
    """What torch.optim.Adam(fused=True) keeps of a parameter before its first step."""
    return {
        "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
        "exp_avg": torch.zeros_like(parameter),
        "exp_avg_sq": torch.zeros_like(parameter),
    }


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current GPU, whatever its arguments lie on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
