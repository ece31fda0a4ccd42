"""Counts, parents, neighbours and promoted tokens, each against a slow twin or a real model."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtc_core.capture.families import LAYOUTS
from mtc_core.capture.readout import read_out
from mtc_core.errors import ModelError
from mtc_core.features.firing import Firing, TogetherCounts, pairs, shapes
from mtc_core.features.logits import promoted_tokens, why_not_on_stream
from mtc_core.features.neighbours import nearest_by_decoder
from mtc_core.features.parents import children_of, likely_parents
from mtc_core.features.study import FeatureStudy
from mtc_core.model.model_shape import ModelShape
from mtc_core.model.model_source import LoadedModel
from mtc_core.selection import Kept
from mtc_core.sites import KINDS, Site
from mtc_core.transcoder import MatryoshkaTranscoder
from tests.core.small import D_IN, D_OUT, GROUPS, spec
from tests.core.tiny_models import FAMILIES, tiny_model, tiny_tokenizer

FULL = 1 << 40


def sparse(rows, groups, seed, density=0.4):
    generator = torch.Generator().manual_seed(seed)
    size = (rows, sum(groups))
    return torch.rand(size, generator=generator) * (torch.rand(size, generator=generator) < density)


some_groups = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(groups=some_groups, rows=st.integers(1, 12), seed=st.integers(0, 2**20), data=st.data())
def test_counts_are_those_of_a_loop_over_rows(groups, rows, seed, data):
    acts_BF = sparse(rows, groups, seed)
    most = data.draw(st.sampled_from([FULL, 12, 3]))
    firing, together = Firing(sum(groups)), TogetherCounts(groups, most=most)
    cut = data.draw(st.integers(0, rows))
    for part in (acts_BF[:cut], acts_BF[cut:]):
        firing.add(Kept.from_dense(part), len(part))
        together.add(Kept.from_dense(part), len(part))
    on_BF = acts_BF > 0
    assert firing.rows == rows and firing.fired_F.tolist() == on_BF.sum(0).tolist()
    assert torch.equal(firing.max_F, acts_BF.amax(0))
    mean_F = acts_BF.double().sum(0) / on_BF.sum(0).clamp(min=1)
    assert torch.allclose(firing.mean_F, mean_F)
    assert pairs(groups, most) <= most
    first = 0
    for size, counts_FE in zip(groups, together.counts, strict=True):
        for child in range(size):
            for parent in range(counts_FE.shape[1]):
                wanted = int((on_BF[:, first + child] & on_BF[:, parent]).sum())
                assert int(counts_FE[child, parent]) == wanted
        assert counts_FE.shape[1] == first or most < FULL
        first += size


def test_where_pairs_are_too_many_only_whole_first_groups_are_compared():
    assert shapes((2, 3, 4), FULL) == [(2, 0), (3, 2), (4, 5)]
    assert shapes((2, 3, 4), 25) == [(2, 0), (3, 2), (4, 2)]
    assert shapes((2, 3, 4), 13) == [(2, 0), (3, 0), (4, 0)]


def naive_parent(on_BF, child, earlier):
    """By the definition in parents.py, with plain numbers."""
    rows, fired = len(on_BF), int(on_BF[:, child].sum())
    best, largest = (-1, 0), 0.0
    for parent in range(earlier):
        both = int((on_BF[:, child] & on_BF[:, parent]).sum())
        p, q = both / max(1, fired), int(on_BF[:, parent].sum()) / rows
        if fired < 10 or p < 0.5 or q <= 0 or p < 4 * q or int(on_BF[:, parent].sum()) < fired:
            continue
        surprise = p * math.log(p / q) + ((1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0)
        if fired * surprise >= math.log(100 * earlier) and surprise > largest + 1e-12:
            best, largest = (parent, both), surprise
    return best


@pytest.mark.parametrize("seed", range(8))
def test_parents_are_those_of_the_definition(seed):
    groups = (6, 8, 10)
    on_BF = sparse(400, groups, seed, density=0.08) > 0
    generator = torch.Generator().manual_seed(100 + seed)
    for child in range(6, 24, 2):  # every other one has a parent that is on with it, mostly
        parent = int(torch.randint(0, 6 if child < 14 else 14, (1,), generator=generator))
        on_BF[:, parent] |= on_BF[:, child] & (torch.rand(400, generator=generator) < 0.9)
    together = TogetherCounts(groups)
    together.add(Kept.from_dense(on_BF.float()), len(on_BF))
    parents, both = likely_parents(together, on_BF.sum(0), len(on_BF))
    starts = [0] * 6 + [6] * 8 + [14] * 10
    wanted = [naive_parent(on_BF, child, earlier) for child, earlier in enumerate(starts)]
    assert list(zip(parents.tolist(), both.tolist(), strict=True)) == wanted
    assert sum(parent >= 0 for parent, _ in wanted) >= 5
    children = children_of(parents.tolist())
    assert sorted(c for cs in children.values() for c in cs) == [
        child for child, (parent, _) in enumerate(wanted) if parent >= 0
    ]


@pytest.mark.parametrize(
    ("child", "parent", "both", "found"),
    [
        (20, 40, 20, True),
        (20, 40, 9, False),  # on in fewer than half of its rows
        (9, 9, 9, False),  # too few rows to tell
        (10, 10, 10, True),
        (100, 300, 100, False),  # not four times as often as elsewhere
        (20, 19, 19, False),  # narrower than its child
        (10, 100, 5, False),  # may be chance, with three candidates
        (20, 100, 10, True),
    ],
)
def test_each_rule_for_parents_counts(child, parent, both, found):
    on_BF = torch.zeros(1000, 4)
    on_BF[:child, 3] = 1
    on_BF[child - both : child - both + parent, 1] = 1
    together = TogetherCounts((3, 1))
    together.add(Kept.from_dense(on_BF), 1000)
    parents, together_F = likely_parents(together, on_BF.sum(0).long(), 1000)
    assert parents.tolist() == [-1, -1, -1, 1 if found else -1]
    assert int(together_F[3]) == (both if found else 0)


def test_by_chance_nobody_finds_a_parent():
    """Latents that are on independently of each other: at most one in a hundred may be fooled."""
    groups = (100, 300)
    on_BF = sparse(3000, groups, seed=5, density=0.3) > 0
    on_BF[:, 100:] &= sparse(3000, (300,), seed=6, density=0.01) > 0
    together = TogetherCounts(groups)
    together.add(Kept.from_dense(on_BF.float()), len(on_BF))
    parents, _ = likely_parents(together, on_BF.sum(0), len(on_BF))
    assert int((parents >= 0).sum()) <= 3


def test_neighbours_are_the_largest_cosines_in_any_chunk(monkeypatch):
    W_dec = torch.randn(30, 7, generator=torch.Generator().manual_seed(0)) * 3
    wanted = torch.nn.functional.cosine_similarity(W_dec[:, None], W_dec[None], dim=2)
    wanted.fill_diagonal_(-2)
    latents, cosines = nearest_by_decoder(W_dec, 4)
    assert torch.allclose(cosines, wanted.topk(4, dim=1).values, atol=1e-6)
    assert torch.equal(latents, wanted.topk(4, dim=1).indices)
    monkeypatch.setattr("mtc_core.features.neighbours.CHUNK", 70)
    again, _ = nearest_by_decoder(W_dec, 4)
    assert torch.equal(again, latents)
    assert nearest_by_decoder(W_dec[:3], 5)[0].shape == (3, 2)


def loaded_as(family):
    model = tiny_model(family).double()
    shape = ModelShape.from_config(model.config.to_dict())
    return LoadedModel(model, tiny_tokenizer(), shape, "none", family)


def logits(model, ids, shift_D=None):
    """Of a real pass, with something added to what the last block puts out; without a soft cap."""
    layout = LAYOUTS[ModelShape.from_config(model.config.to_dict()).family]
    norm = getattr(model.get_decoder(), layout.final_norm)
    seen = {}

    def add(module, args):
        seen["stream"] = args[0]
        return None if shift_D is None else (args[0] + shift_D, *args[1:])

    handle = norm.register_forward_pre_hook(add)
    with torch.no_grad():
        found = model(input_ids=ids, use_cache=False).logits
    handle.remove()
    cap = getattr(model.config, "final_logit_softcapping", None)
    return (found if cap is None else cap * torch.atanh(found / cap)), seen["stream"], norm


@pytest.mark.parametrize("family", FAMILIES)
def test_the_effect_is_what_the_model_itself_does_to_its_logits(family):
    """A small step along a decoder row, at right angles to the stream, so that σ does not change to
    first order: the difference of two real passes, times σ."""
    loaded = loaded_as(family)
    readout = read_out(loaded)
    ids = torch.randint(0, 256, (1, 9), generator=torch.Generator().manual_seed(1))
    _, stream, norm = logits(loaded.model, ids)
    x_D = stream[0, -1]
    inner_D = x_D - x_D.mean() if readout.centred else x_D
    sigma = (inner_D.square().mean() + getattr(norm, "eps", 0)).sqrt()
    row_D = torch.randn(32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    row_D -= inner_D * (row_D @ inner_D) / (inner_D @ inner_D)
    step = 0.01  # not smaller: most families' norms work in float32
    after, before = (logits(loaded.model, ids, way * step * row_D)[0] for way in (1, -1))
    measured_V = (after - before)[0, -1] / (2 * step) * sigma
    (effect_V,) = readout.effect(row_D[None])
    assert torch.allclose(effect_V, measured_V, rtol=1e-3, atol=1e-3), (
        (effect_V - measured_V).abs().max()
    )


def test_promoted_tokens_are_the_ends_of_the_effect_in_any_chunk(monkeypatch):
    readout = read_out(loaded_as("gpt2"))
    W_dec = torch.randn(20, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    effect = readout.effect(W_dec).float()
    whole = promoted_tokens(readout, W_dec, 5)
    assert torch.equal(whole.promotes_Fm, effect.sort(dim=1, descending=True).values[:, :5])
    assert torch.equal(whole.suppresses_Fm, effect.sort(dim=1).values[:, :5])
    assert torch.equal(effect.gather(1, whole.suppressed_Fm), whole.suppresses_Fm)
    monkeypatch.setattr("mtc_core.features.logits.CHUNK", 258 * 3)
    again = promoted_tokens(readout, W_dec, 5)
    assert torch.equal(again.promoted_Fm, whole.promoted_Fm)


def test_a_model_of_another_family_says_why_it_has_no_readout():
    loaded = loaded_as("gpt2")
    other = LoadedModel(loaded.model, None, _named(loaded.shape, "mamba"), "none", "x")
    with pytest.raises(ModelError, match="final norm of mamba models is not known"):
        read_out(other)


def _named(shape, family):
    values = {name: getattr(shape, name) for name in ModelShape.__dataclass_fields__}
    return ModelShape(**{**values, "family": family})


def test_only_what_is_added_to_the_stream_has_an_effect_on_the_logits():
    on = {kind for kind in KINDS if not why_not_on_stream(Site.at(2, kind))}
    assert on == {"resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"}
    assert "not known" in why_not_on_stream(Site.parse("blocks.0.attn.hook_z"))


def test_a_study_is_the_same_however_its_rows_come(monkeypatch):
    """Of whole numbers, whose sums are exact: else a matrix product may round a row otherwise among
    other rows (it does on some processors, and not on others)."""
    generator = torch.Generator().manual_seed(4)

    def whole_numbers(*size):
        return torch.randint(-40, 41, size, generator=generator).float()

    F = sum(GROUPS)
    tensors = {
        "W_enc": whole_numbers(F, D_IN),
        "b_enc": torch.zeros(F),
        "W_dec": whole_numbers(F, D_OUT),
        "b_dec": torch.zeros(D_OUT),
        "threshold": torch.full((F,), 2000.0),
    }
    tc = MatryoshkaTranscoder(spec(), tensors)
    x_CTI = whole_numbers(12, 6, D_IN)
    rows_CT = torch.rand(12, 6, generator=generator) < 0.8
    contexts_B, positions_B = rows_CT.nonzero(as_tuple=True)

    def study(cuts, chunk):
        monkeypatch.setattr("mtc_core.features.study.CHUNK", chunk)
        made = FeatureStudy(tc, n=3, window=2)
        for first, end in zip((0, *cuts), (*cuts, 12), strict=True):
            here = (contexts_B >= first) & (contexts_B < end)
            made.add(x_CTI[contexts_B[here], positions_B[here]], contexts_B[here],
                     positions_B[here])  # fmt: skip
        return made

    whole = study((), 1 << 23)
    for cuts, chunk in (((5,), 1 << 23), ((2, 3, 9), 1), ((), 12 * F)):
        other = study(cuts, chunk)
        for name in ("values_Fn", "contexts_Fn", "positions_Fn", "acts_FnW"):
            assert torch.equal(getattr(other.strongest, name), getattr(whole.strongest, name))
        assert torch.equal(other.firing.fired_F, whole.firing.fired_F)
        assert all(
            torch.equal(a, b)
            for a, b in zip(other.together.counts, whole.together.counts, strict=True)
        )
    acts_BF = tc.encode(x_CTI[contexts_B, positions_B])
    assert whole.firing.fired_F.tolist() == (acts_BF > 0).sum(0).tolist()
    assert torch.equal(whole.strongest.values_Fn[:, 0], acts_BF.amax(0))
