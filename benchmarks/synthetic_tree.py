"""A tree of features whose answer is known: do parents come first, and is less of them absorbed?

    python -m benchmarks.synthetic_tree          # a table for three seeds, about 20 seconds

A child fires only when its parent does, one child at a time, and is smaller than its parent. A
dictionary rewarded for sparsity alone lets a child's latent speak for the parent as well; the
parent's own latent then stays off where that child is on: *absorption*. Prefix losses work against
it, since early groups must do without the latents of later ones. Source and target write the same
features in different random bases of different widths, so nothing can be copied across.

The budget k is below the number of features that are on (about 5.1 a row), as it is in practice.

N rows · P parents · C children each · T = P·(1 + C) true features · F latents · I, O widths
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor

from mtc_core import MatryoshkaTranscoder, Site, TrainConfig, TranscoderSpec, fit

SEEDS = (0, 1, 2)
GROUPS = (16, 16, 24, 40)  # the first two hold half as many latents as there are features
K = 4
STEPS, BATCH, POOL = 1000, 512, 65536
MATCH = 0.9  # cosine above which a latent is a feature's


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Sizes and frequencies of the generator."""

    parents: int = 12
    children: int = 4
    parent_rate: float = 0.25  # chance that a parent is on in a row
    child_rate: float = 0.7  # chance that one of its children is, given the parent
    child_size: float = 0.7  # a parent's mean size is 1
    spread: float = 0.1  # standard deviation of a size, relative to its mean
    d_in: int = 64
    d_out: int = 48

    @property
    def features(self) -> int:
        return self.parents * (1 + self.children)


class TreeRows:
    """Rows of one tree; directions and rows are drawn from the seed alone."""

    def __init__(self, tree: Tree, seed: int) -> None:
        self.tree = tree
        self.generator = torch.Generator().manual_seed(seed)
        self.source_TI = self._directions(tree.d_in)
        self.target_TO = self._directions(tree.d_out)

    def draw(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """x [n, d_in], y [n, d_out], and which features are on [n, T], parents first."""
        t = self.tree
        parent_NP = self._chance(n, t.parent_rate)
        child_on_NP = parent_NP & self._chance(n, t.child_rate)
        which_NP = torch.randint(t.children, (n, t.parents), generator=self.generator)
        child_NPC = torch.nn.functional.one_hot(which_NP, t.children).bool()
        child_NPC &= child_on_NP[:, :, None]
        on_NT = torch.cat([parent_NP, child_NPC.flatten(1)], 1)
        sizes_NT = 1 + t.spread * torch.randn(on_NT.shape, generator=self.generator)
        sizes_NT[:, t.parents :] *= t.child_size
        values_NT = on_NT * sizes_NT
        return values_NT @ self.source_TI, values_NT @ self.target_TO, on_NT

    def _chance(self, n: int, rate: float) -> Tensor:
        return torch.rand(n, self.tree.parents, generator=self.generator) < rate

    def _directions(self, width: int) -> Tensor:
        rows_TD = torch.randn(self.tree.features, width, generator=self.generator)
        return rows_TD / rows_TD.norm(dim=1, keepdim=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the parents."""

    early: float  # share of parents with a latent among the first GROUPS[0] + GROUPS[1]
    found: float  # share of parents with a latent anywhere
    absorption: float  # share of (row, parent on) with its latent off and a child's latent on
    l0: float
    fvu: float


def measure(tc: MatryoshkaTranscoder, rows: TreeRows, n: int = 16384) -> Outcome:
    """Measure on fresh rows. A feature's latent is the one nearest to it in the target space."""
    x, y, on_NT = rows.draw(n)
    on_latents_NF = tc.encode(x) > 0
    P = rows.tree.parents
    cosine_TF = rows.target_TO @ tc.W_dec.T
    latent_T = cosine_TF.argmax(1)
    parent_on_NP = on_NT[:, :P]
    parent_off_NP = ~on_latents_NF[:, latent_T[:P]]
    child_on_NP = on_latents_NF[:, latent_T[P:]].unflatten(1, (P, -1)).any(2)
    absorbed = (parent_on_NP & parent_off_NP & child_on_NP).sum() / parent_on_NP.sum()
    result = tc.evaluate(x, y)
    return Outcome(
        early=_share_matched(cosine_TF[:P, : sum(GROUPS[:2])]),
        found=_share_matched(cosine_TF[:P]),
        absorption=float(absorbed),
        l0=result.l0,
        fvu=result.fvu,
    )


def _share_matched(cosine_PF: Tensor) -> float:
    return float((cosine_PF.amax(1) > MATCH).double().mean())


def compare(seed: int, tree: Tree | None = None) -> dict[int, Outcome]:
    """Train m = 1 and m = 4 on the same rows with the same k; what each made of the parents."""
    rows = TreeRows(tree or Tree(), seed)
    x, y, _ = rows.draw(POOL)
    calibration = rows.draw(8192)[:2]
    return {
        len(groups): measure(_train(groups, seed, repeat((x, y)), calibration), rows)
        for groups in ((sum(GROUPS),), GROUPS)
    }


def _train(
    groups: tuple[int, ...],
    seed: int,
    chunks: Iterator[tuple[Tensor, Tensor]],
    calibration: tuple[Tensor, Tensor],
) -> MatryoshkaTranscoder:
    spec = TranscoderSpec(
        source=Site.parse("0.resid_mid"),
        target=Site.parse("0.mlp_out"),
        group_sizes=groups,
        k=K,
        seed=seed,
        lr=3e-3,
    )
    train = TrainConfig(tokens=STEPS * BATCH, batch_tokens=BATCH)
    return fit(chunks, spec, train, calibration=calibration)


def main() -> None:
    torch.set_num_threads(1)  # matrices this small lose more to waiting than they win
    print(f"k {K}, groups {GROUPS} against ({sum(GROUPS)},), {STEPS} steps of {BATCH} rows")
    print("seed  m   early  found  absorption     L0    FVU")
    for seed in SEEDS:
        for m, o in compare(seed).items():
            print(
                f"{seed:4d}  {m}  {o.early:6.2f} {o.found:6.2f} {o.absorption:11.4f} "
                f"{o.l0:6.2f} {o.fvu:6.3f}"
            )


if __name__ == "__main__":
    main()
