"""The objective as its definition reads: dense, slow, differentiated by autograd."""

import torch


def reconstructions(acts_BF, W_dec, b_dec, group_sizes, skip_BO=0):
    """ŷ_0, ŷ_1, …, ŷ_m."""
    outputs, start = [b_dec.expand(acts_BF.shape[0], -1) + skip_BO], 0
    for size in group_sizes:
        part = acts_BF[:, start : start + size] @ W_dec[start : start + size]
        outputs.append(outputs[-1] + part)
        start += size
    return outputs


def select(pre_BF, *, selection, k, count):
    """0/1 mask of the kept entries, ties to the lowest flat index."""
    acts = pre_BF.relu()
    if selection == "topk":
        order = acts.sort(dim=1, descending=True, stable=True).indices[:, :k]
        mask = torch.zeros_like(acts).scatter_(1, order, 1.0)
    else:
        order = acts.flatten().sort(descending=True, stable=True).indices[: k * count]
        mask = torch.zeros_like(acts).flatten().scatter_(0, order, 1.0).view_as(acts)
    return mask * (acts > 0)


def capped(pre_BF, capped_B, cap):
    """Pre-activations with all but the `cap` largest of each capped row set to 0."""
    out = pre_BF.clone()
    for row in capped_B.nonzero().flatten().tolist():
        order = pre_BF[row].sort(descending=True, stable=True).indices
        out[row, order[cap:]] = 0
    return out


def losses(p, x, y, weight_B, count, *, group_sizes, k, selection, variance, capped_B, cap):
    """Mean squared error over V of prefixes 0..m, and the dense activations kept."""
    pre = x @ p["W_enc"].T + p["b_enc"]
    mask = select(capped(pre.detach(), capped_B, cap), selection=selection, k=k, count=count)
    acts = pre.relu() * mask
    skip = x @ p["W_skip"].T if "W_skip" in p else 0
    outputs = reconstructions(acts, p["W_dec"], p["b_dec"], group_sizes, skip)
    terms = [(weight_B * (y - out).square().sum(1)).sum() / (count * variance) for out in outputs]
    return terms, acts, outputs[-1]


def aux(p, x, y, last, weight_B, count, dead_D, *, k_aux, variance):
    """The auxiliary loss over the listed dead latents."""
    half = y.shape[1] // 2
    pre = (x @ p["W_enc"].T + p["b_enc"])[:, dead_D].relu()
    k = min(k_aux or half, dead_D.numel())
    order = pre.detach().sort(dim=1, descending=True, stable=True).indices[:, :k]
    acts = pre * torch.zeros_like(pre).scatter_(1, order, 1.0)
    error = (y - last).detach() - acts @ p["W_dec"][dead_D]
    scale = min(dead_D.numel() / half, 1.0)
    return scale * (weight_B * error.square().sum(1)).sum() / (count * variance)
