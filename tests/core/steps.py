"""Inputs of single steps, drawn anew, for kernels and their twins."""

import torch

from mtc_core.aux_loss import AuxGradients
from mtc_core.learner import Learner, LossWatch
from mtc_core.objective import Batch, Objective, Weights
from mtc_core.selection import Kept
from mtc_core.trainer import fresh_moments
from mtc_core.workspace import Workspace

SHAPES = [  # rows, source width, target width, groups, kept entries
    (64, 20, 12, (8, 16, 24), 320),
    (33, 7, 19, (5,), 40),
    (50, 64, 48, (3, 1, 2, 9, 4, 30, 8, 64), 700),
    (17, 576, 576, (100, 156), 1),
    (16, 5, 3, (4, 4), 0),
    (40, 16, 33, (6, 6), 480),  # every latent in every row
]


class Case:
    """A step's inputs in float32, of which `wide` are the same in float64."""

    def __init__(self, shape, seed, *, bias=0.0, skip=False, dead=0):
        self.draw = torch.Generator().manual_seed(seed)
        B, I, O, groups, n = shape  # noqa: E741
        F, m = sum(groups), len(groups)
        W_dec = self.normal(F, O)
        self.weights = Weights(
            W_enc=self.normal(F, I),
            b_enc=self.normal(F),
            W_dec=W_dec / W_dec.norm(dim=1, keepdim=True),
            b_dec=self.normal(O),
            W_skip=self.normal(O, I) if skip else None,
        )
        ordinary = (torch.rand(B, generator=self.draw) < 0.9).float()
        weight = ordinary * torch.rand(B, generator=self.draw)
        count = (weight > 0).sum().clamp(min=1).float()  # as Scaler has it
        self.batch = Batch(self.normal(B, I), self.normal(B, O), weight, ordinary, count)
        flat = torch.randperm(B * F, generator=self.draw)[:n].sort().values
        self.kept = Kept.from_flat(flat, self.normal(n).abs() + 0.01, F)
        group_of_latent = torch.repeat_interleave(torch.arange(m), torch.tensor(groups))
        shares = [(1 - bias) * (i + 1) / (m * (m + 1) / 2) for i in range(m)]
        self.objective = Objective((bias, *shares), float(O), group_of_latent)
        self.aux = None
        if dead:
            dead_D = torch.randperm(F, generator=self.draw)[:dead].sort().values
            self.aux = AuxGradients(
                dead_D, self.normal(dead, I), self.normal(dead), self.normal(dead, O)
            )

    def learner(self, weights, optimizer):
        watch = LossWatch(torch.device("cpu"))
        return Learner(weights, optimizer, self.objective, Workspace(), watch)

    def normal(self, *size):
        return torch.randn(*size, generator=self.draw)

    def run(self, kernels, dtype=torch.float32, steps=3):
        """Row passes and updates on copies: what they gave, by name."""

        def to(value):
            if value is None:
                return None
            if isinstance(value, torch.Tensor):
                return value.to(dtype, copy=True) if value.is_floating_point() else value.clone()
            fields = [to(getattr(value, name)) for name in type(value).__dataclass_fields__]
            return type(value)(*fields)

        weights, batch, kept = to(self.weights), to(self.batch), to(self.kept)
        tensors = weights.tensors()
        optimizer = torch.optim.Adam(list(tensors.values()), lr=0.05, fused=True)
        for parameter in tensors.values():
            optimizer.state[parameter] = fresh_moments(parameter)
        aux = None if self.aux is None else to(self.aux)
        learner = self.learner(weights, optimizer)
        for _ in range(steps):
            passed = kernels.pass_rows(learner, batch, kept)
            found = {
                name: getattr(passed, name).clone()
                for name in type(passed).__dataclass_fields__
                if isinstance(getattr(passed, name), torch.Tensor)
            }
            found["G_BMO"] = self._where_it_is_read(passed.G_BMO, kept)
            kernels.update(learner, batch, passed, aux)
            learner.step_index += 1
        for name, parameter in tensors.items():
            state = optimizer.state[parameter]
            found |= {name: parameter, **{f"{name}.{key}": state[key] for key in state}}
        return found

    def _where_it_is_read(self, G_BMO, kept):
        """0 where nobody does, and kernels may leave whatever was there."""
        group_F = self.objective.group_of_latent_F
        filled_n = kept.latents_n < group_F.numel()  # slots that are not belong to nobody
        rows_n, latents_n = kept.rows_n[filled_n], kept.latents_n[filled_n]
        read_BM = torch.zeros(G_BMO.shape[:2], dtype=torch.bool)
        read_BM[:, 0] = True
        read_BM[rows_n, group_F[latents_n]] = True
        return G_BMO.masked_fill(~read_BM[:, :, None], 0)


def fresh_seed():
    return torch.seed() % 2**32


def differences(found, wanted):
    assert found.keys() == wanted.keys()
    apart = {}
    for name in wanted:
        rows = _settled(name, wanted)
        one, other = found[name].double()[rows], wanted[name].double()[rows]
        apart[name] = float((one - other).norm()) / max(1e-12, float(other.norm()))
    return apart


def _settled(name, wanted):
    """All of a tensor, but rows of weights in which a gradient nearly vanishes: Adam divides by its
    size, so that rounding alone decides where such a weight goes. Their moments are compared."""
    moments = wanted.get(f"{name}.exp_avg")
    if moments is None:
        return ...
    sizes = moments.abs()
    sound = (sizes == 0) | (sizes > 1e-5 * sizes.max())
    return sound.flatten(1).all(1) if sound.dim() > 1 else sound
