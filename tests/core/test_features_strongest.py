"""The strongest contexts against a loop over everything, however the text is cut."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtc_core.features.strongest import NOBODY, StrongestContexts
from mtc_core.selection import Kept

FIELDS = ("values_Fn", "contexts_Fn", "positions_Fn", "acts_FnW")


def text(seed, contexts, positions, d_sae, tied):
    """Activations [C, T, F], many of them equal where `tied`, and which positions are rows."""
    generator = torch.Generator().manual_seed(seed)
    acts_CTF = torch.randn(contexts, positions, d_sae, generator=generator) - 0.5
    acts_CTF = (acts_CTF * 2).round() if tied else acts_CTF
    rows_CT = torch.rand(contexts, positions, generator=generator) < 0.8
    return acts_CTF.relu(), rows_CT


def naive(acts_CTF, rows_CT, n, window):
    """For each latent, (value, context, position, activations around it), strongest first."""
    n_contexts, n_positions, d_sae = acts_CTF.shape
    acts_CTF = acts_CTF * rows_CT[:, :, None]
    found = []
    for f in range(d_sae):
        peaks = []
        for c in range(n_contexts):
            values = acts_CTF[c, :, f].tolist()
            if max(values) > 0:
                position = values.index(max(values))
                around = [
                    values[t] if 0 <= t < n_positions else 0.0
                    for t in range(position - window, position + window + 1)
                ]
                peaks.append((max(values), c, position, around))
        found.append(sorted(peaks, key=lambda peak: (-peak[0], peak[1]))[:n])
    return found


def read(acts_CTF, rows_CT, n, window, cuts=(), way=1):
    """The tables after calls that end at the contexts `cuts`, the last one first if `way` is −1."""
    tables = StrongestContexts(acts_CTF.shape[2], n, window)
    for first, end in list(zip((0, *cuts), (*cuts, len(acts_CTF)), strict=True))[::way]:
        contexts_B, positions_B = rows_CT[first:end].nonzero(as_tuple=True)
        acts_BF = acts_CTF[first:end][contexts_B, positions_B]
        tables.add(acts_BF, contexts_B + first, positions_B, Kept.from_dense(acts_BF))
    return tables


def as_lists(tables):
    return [
        [
            (value, context, position, around)
            for value, context, position, around in zip(*one, strict=True)
            if context != NOBODY
        ]
        for one in zip(*(getattr(tables, name).tolist() for name in FIELDS), strict=True)
    ]


def equal(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


texts = {
    "seed": st.integers(0, 2**20),
    "contexts": st.integers(1, 9),
    "positions": st.integers(1, 7),
    "d_sae": st.integers(1, 6),
    "n": st.integers(1, 4),
    "window": st.integers(0, 3),
}


@pytest.mark.parametrize("tied", [False, True])
@settings(max_examples=80, deadline=None, derandomize=True)
@given(**texts)
def test_they_are_what_a_loop_over_everything_finds(tied, n, window, **size):
    acts_CTF, rows_CT = text(**size, tied=tied)
    found = as_lists(read(acts_CTF, rows_CT, n, window))
    assert found == naive(acts_CTF, rows_CT, n, window)


@pytest.mark.parametrize("tied", [False, True])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(**texts, at=st.integers(0, 9))
def test_they_do_not_depend_on_how_the_text_is_cut(tied, n, window, at, **size):
    acts_CTF, rows_CT = text(**size, tied=tied)
    whole = read(acts_CTF, rows_CT, n, window)
    at = min(at, size["contexts"])
    for cuts in ([at], range(1, size["contexts"])):
        for way in (1, -1):
            assert equal(read(acts_CTF, rows_CT, n, window, cuts, way), whole)
    only = torch.arange(len(rows_CT))[:, None] < at
    first, second = (read(acts_CTF, rows_CT & part, n, window) for part in (only, ~only))
    for one, other in ((first, second), (second, first)):
        merged = StrongestContexts(size["d_sae"], n, window)
        merged.merge(one)
        merged.merge(other)
        assert equal(merged, whole)
