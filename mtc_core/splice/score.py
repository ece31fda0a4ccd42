"""How far the next-token predictions of an edited model are from those of the model itself.

    CE recovered = (CE_ablated − CE_spliced) / (CE_ablated − CE_clean)

1 where splicing changes nothing, 0 where it is as bad as ablation, below where it is worse. Totals
are float64 sums over scored positions: those that are rows and whose next token is one.

C contexts · T positions of a context · V vocabulary · N scored positions · n of them at once
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 128  # positions whose float32 log-probabilities are held at once, beside the logits


@dataclass(frozen=True, slots=True)
class Scored:
    """Where predictions are scored, and on which tokens."""

    mask_CT: Tensor
    next_N: Tensor

    @classmethod
    def of(cls, ids_CT: Tensor, rows_CT: Tensor) -> Scored:
        mask_CT = rows_CT.clone()
        mask_CT[:, -1] = False
        mask_CT[:, :-1] &= rows_CT[:, 1:]
        return cls(mask_CT, ids_CT.roll(-1, dims=1)[mask_CT])


def score(logits_CTV: Tensor, clean_CTV: Tensor, at: Scored) -> Tensor:
    """Sums over scored positions [5]: positions, cross-entropy, KL(clean ‖ edited) in nats, how
    often the most likely token is the clean one, and the squared increase of the cross-entropy."""
    device = logits_CTV.device
    total = torch.zeros(5, dtype=torch.float64, device=device)
    places = (part.split(CHUNK) for part in at.mask_CT.to(device).nonzero(as_tuple=True))
    for c_n, t_n, next_n in zip(*places, at.next_N.to(device).split(CHUNK), strict=True):
        # A slice at a time: of all scored positions these would be as large as the logits again.
        edited_nV, clean_nV = logits_CTV[c_n, t_n], clean_CTV[c_n, t_n]
        log_nV, clean_log_nV = edited_nV.float().log_softmax(1), clean_nV.float().log_softmax(1)
        kl = (clean_log_nV.exp() * (clean_log_nV - log_nV)).sum(dtype=torch.float64)
        ce_n, clean_ce_n = (
            -log.gather(1, next_n[:, None]).double() for log in (log_nV, clean_log_nV)
        )
        agree = (edited_nV.argmax(1) == clean_nV.argmax(1)).double().sum()
        count = kl.new_tensor(len(next_n))
        total += torch.stack([count, ce_n.sum(), kl, agree, (ce_n - clean_ce_n).square().sum()])
    return total


def figures(total: Tensor, ce_clean: float, ablated: dict[str, float]) -> dict[str, float | None]:
    """Ratios from totals. ablated: cross-entropy by ablation, which CE recovered is taken
    against; None where ablation does not hurt, so that there is nothing to recover.
    ce_increase_se: standard error of the mean increase, as if tokens were independent."""
    n = float(total[0])
    _, ce, kl, agree, squares = (total / n).tolist()
    error = math.sqrt(max(0.0, squares - (ce - ce_clean) ** 2) / n)
    recovered = {
        f"ce_recovered_{name}": (worse - ce) / (worse - ce_clean) if worse > ce_clean else None
        for name, worse in ablated.items()
    }
    return {
        "ce": ce,
        "ce_increase": ce - ce_clean,
        "ce_increase_se": error,
        **recovered,
        "kl": kl,
        "top1_agreement": agree,
    }
