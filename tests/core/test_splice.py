"""Splicing: known answers, and passes held against a model whose modules are patched by hand."""

import pytest
import torch

from mtc_core.errors import DataError, SiteError
from mtc_core.model.model_shape import ModelShape
from mtc_core.model.model_source import LoadedModel
from mtc_core.sites import Site
from mtc_core.splice.edited import EditedModel, Replacement, check_spliceable
from mtc_core.splice.measure import SpliceMeasurement, Stand
from mtc_core.splice.score import Scored, figures, score
from tests.core.tiny_models import VOCAB_SIZE, tiny_model

SEQUENTIAL = ("gpt2", "llama", "gemma2", "gemma3", "qwen3", "gpt_neox_sequential")
C, T, LAYERS = 3, 12, 3


def loaded(family):
    model = tiny_model(family, LAYERS)
    shape = ModelShape.from_config(model.config.to_dict())
    return LoadedModel(model, None, shape, "", family)


def contexts(seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids_CT = torch.randint(0, 256, (C, T), generator=generator)
    rows_CT = torch.rand(C, T, generator=generator) < 0.8
    rows_CT[:, 0] = False
    return ids_CT, rows_CT


def site(text):
    return Site.parse(text)


def stand(source, target, predict, extreme=lambda x, y: torch.zeros(len(x), dtype=torch.bool)):
    variants = {
        "whole": predict,
        "zero": lambda x, y: torch.zeros_like(y),
        "mean": lambda x, y: y.mean(0).expand_as(y),
    }
    return Stand(site(source), site(target), variants, extreme)


def measured(model, stands, provider="hf", seed=0):
    measurement = SpliceMeasurement(model, stands, provider)
    for _ in measurement.run(*contexts(seed)):
        pass
    measurement.close()
    return measurement.summary()


def test_a_perfect_transcoder_recovers_everything_and_zero_ablation_nothing():
    stands = {
        f"{layer}": stand(f"{layer}.resid_mid", f"{layer}.mlp_out", lambda x, y: y)
        for layer in range(LAYERS)
    }
    stands |= {"2": stand("2.resid_mid", "2.mlp_out", lambda x, y: torch.zeros_like(y))}
    result = measured(loaded("llama"), stands)
    for layer in "01":
        perfect = result["transcoders"][layer]
        assert perfect["ce"] == result["ce_clean"] != perfect["ce_zero"]
        assert perfect["kl"] == 0 and perfect["top1_agreement"] == 1
        assert perfect["ce_recovered_zero"] in (1.0, None)
    zero = result["transcoders"]["2"]
    assert zero["ce"] == zero["ce_zero"] and zero["ce_recovered_zero"] in (0.0, None)
    assert zero["kl"] > 0
    # Ablation may help a random model by chance; then there is nothing to recover.
    recovered = [one["ce_recovered_zero"] for one in result["transcoders"].values()]
    assert any(value is not None for value in recovered)


@pytest.mark.parametrize("provider", ["hf", "bridge"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_splicing_every_layer_with_its_exact_mlp_output_changes_no_logit(family, provider):
    model = loaded(family)
    sites = [site(f"{layer}.{kind}") for layer in range(LAYERS) for kind in ("mlp_in", "mlp_out")]
    edited = EditedModel(model, sites, provider)
    ids_CT, rows_CT = contexts()
    clean_CTV, tensors = edited.clean(ids_CT)
    with torch.no_grad():
        wanted_CTV = model.model(ids_CT).logits
    assert torch.allclose(clean_CTV, wanted_CTV, atol=1e-4)
    exact = [
        Replacement(
            site(f"{layer}.mlp_in"), site(f"{layer}.mlp_out"), rows_CT, lambda x, y: y.clone()
        )
        for layer in range(LAYERS)
    ]
    logits_CTV, live = edited.edited(ids_CT, exact, tensors)
    assert live and torch.equal(logits_CTV, clean_CTV)


@pytest.mark.parametrize("family", SEQUENTIAL)
@pytest.mark.parametrize("provider", ["hf", "bridge"])
@pytest.mark.parametrize("kind", ["resid_pre", "attn_out", "resid_mid", "mlp_in", "mlp_out"])
def test_what_is_put_in_place_is_what_the_rest_of_the_model_reads(family, provider, kind):
    """The slow twin patches module outputs by hand."""
    model = loaded(family)
    target = site(f"1.{kind}")
    after = site("1.resid_post")
    edited = EditedModel(model, [site("0.resid_pre"), target, after], provider)
    ids_CT, rows_CT = contexts(1)
    _, tensors = edited.clean(ids_CT)
    shift = torch.randn(
        tensors[target.tensor].shape[-1], generator=torch.Generator().manual_seed(2)
    )
    seen = {}

    def see_after(x, y):
        seen["after"] = y.clone()
        return y

    logits_CTV, live = edited.edited(
        ids_CT,
        [
            Replacement(site("0.resid_pre"), target, rows_CT, lambda x, y: y + shift),
            Replacement(site("0.resid_pre"), after, rows_CT, see_after),
        ],
        tensors,
    )
    edited.close()
    wanted_CTV, wanted_after = by_hand(model.model, family, kind, shift, ids_CT, rows_CT)
    assert live and torch.allclose(logits_CTV, wanted_CTV, atol=2e-4)
    assert torch.allclose(seen["after"], wanted_after[rows_CT], atol=2e-4)
    with torch.no_grad():
        assert not torch.allclose(logits_CTV, model.model(ids_CT).logits, atol=1e-2)


def by_hand(model, family, kind, shift, ids_CT, rows_CT):
    """Logits and the output of block 1 of a model whose tensor `kind` of block 1 is shifted."""
    added = torch.where(rows_CT[:, :, None], shift, 0)
    decoder = model.get_decoder()
    blocks = decoder.h if family == "gpt2" else decoder.layers
    block, handles, found = blocks[1], [], {}
    names = {
        "gpt2": ("attn", "mlp", "mlp"),
        "gemma2": ("post_attention_layernorm", "mlp", "post_feedforward_layernorm"),
        "gpt_neox_sequential": ("attention", "mlp", "mlp"),
    }
    names["gemma3"] = names["gemma2"]
    attn, mlp_in, mlp_out = names.get(family, ("self_attn", "mlp", "mlp"))

    def of_output(module, args, output):
        return (output[0] + added, *output[1:]) if isinstance(output, tuple) else output + added

    def of_input(module, args, kwargs):
        return ((args[0] + added, *args[1:]), kwargs)

    def last(module, args, output):
        found["after"] = output[0] if isinstance(output, tuple) else output

    match kind:
        case "resid_pre":
            handles.append(block.register_forward_pre_hook(of_input, with_kwargs=True))
        case "attn_out":
            handles.append(getattr(block, attn).register_forward_hook(of_output))
        case "resid_mid":  # the attention's output is all that is added before it
            handles.append(getattr(block, attn).register_forward_hook(of_output))
        case "mlp_in":
            handles.append(
                getattr(block, mlp_in).register_forward_pre_hook(of_input, with_kwargs=True)
            )
        case "mlp_out":
            handles.append(getattr(block, mlp_out).register_forward_hook(of_output))
    handles.append(block.register_forward_hook(last))
    with torch.no_grad():
        logits = model(ids_CT).logits
    for handle in handles:
        handle.remove()
    return logits, found["after"]


def test_jointly_each_transcoder_reads_what_those_below_it_have_made():
    model = loaded("llama")
    edited = EditedModel(
        model, [site(f"{i}.{kind}") for i in range(2) for kind in ("resid_mid", "mlp_out")], "hf"
    )
    ids_CT, rows_CT = contexts()
    _, tensors = edited.clean(ids_CT)
    sources = {}

    def predict(layer):
        def of(x, y):
            sources[layer] = x.clone()
            return y + 1.0

        return of

    def replacement(layer):
        return Replacement(
            site(f"{layer}.resid_mid"), site(f"{layer}.mlp_out"), rows_CT, predict(layer)
        )

    edited.edited(ids_CT, [replacement(1)], tensors)
    alone = sources[1]
    assert torch.equal(alone, tensors["blocks.1.hook_resid_mid"][rows_CT])  # clean is live here
    edited.edited(ids_CT, [replacement(0), replacement(1)], tensors)
    assert torch.equal(sources[0], tensors["blocks.0.hook_resid_mid"][rows_CT])
    assert not torch.allclose(sources[1], alone, atol=1e-2)
    want = {}
    mlp, norm = model.model.model.layers[0].mlp, model.model.model.layers[1]
    handles = [
        mlp.register_forward_hook(
            lambda m, a, out: out + torch.where(rows_CT[:, :, None], 1.0, 0.0)
        ),
        norm.post_attention_layernorm.register_forward_pre_hook(
            lambda m, a: want.update(x=a[0].clone())
        ),
    ]
    with torch.no_grad():
        model.model(ids_CT)
    for handle in handles:
        handle.remove()
    assert torch.allclose(sources[1], want["x"][rows_CT], atol=1e-5)


def test_a_source_after_its_target_is_taken_from_the_clean_pass():
    stands = {"back": stand("2.resid_mid", "0.mlp_out", lambda x, y: y + 0 * x)}
    result = measured(loaded("llama"), stands)
    assert result["transcoders"]["back"]["source"] == "clean"
    assert result["transcoders"]["back"]["kl"] == 0
    assert result["joint"] is None and result["joint_problem"] == "there is one transcoder"


def test_positions_that_are_no_rows_keep_their_own_tensor():
    model = loaded("llama")
    edited = EditedModel(model, [site("0.resid_mid"), site("0.mlp_out")], "hf")
    ids_CT, rows_CT = contexts()
    clean_CTV, tensors = edited.clean(ids_CT)
    none = Replacement(
        site("0.resid_mid"), site("0.mlp_out"), torch.zeros_like(rows_CT), lambda x, y: y + 9
    )
    assert torch.equal(edited.edited(ids_CT, [none], tensors)[0], clean_CTV)


def test_extreme_rows_can_be_left_as_they_are():
    def is_extreme(x, y):
        return torch.arange(len(x)) % 2 == 0

    def only_extreme(x, y):
        seen.append(len(y))
        return y + 3

    seen = []
    _, rows_CT = contexts()
    stands = {"a": stand("0.resid_mid", "0.mlp_out", only_extreme, is_extreme)}
    result = measured(loaded("llama"), stands)["transcoders"]["a"]
    n = int(rows_CT.sum())
    assert seen == [n, n // 2]
    assert 0 < result["extreme_left"]["kl"] < result["kl"]


def test_two_transcoders_of_one_target_are_not_spliced_together():
    stands = {
        "a": stand("0.resid_mid", "0.mlp_out", lambda x, y: y),
        "b": stand("0.resid_pre", "0.mlp_out", lambda x, y: y),
    }
    result = measured(loaded("llama"), stands)
    assert result["joint"] is None and result["joint_problem"] == "2 transcoders predict 0.mlp_out"


def test_an_interrupted_measurement_goes_on_to_the_same_bits(monkeypatch):
    monkeypatch.setattr("mtc_core.splice.measure.LOGITS", T * VOCAB_SIZE)  # a context a chunk
    model = loaded("llama")
    stands = {
        f"{i}": stand(f"{i}.resid_mid", f"{i}.mlp_out", lambda x, y: 0.9 * y) for i in range(2)
    }
    whole = measured(model, stands)
    first = SpliceMeasurement(model, stands, "hf")
    assert first.chunk_contexts(T) == 1
    passes = first.run(*contexts())
    while first.chunks_done < 2:
        next(passes)
    next(passes)  # of the third chunk: lost
    saved = {name: tensor.clone() for name, tensor in first.state().items()}
    first.close()
    # `state` is taken between chunks; what the third has counted so far must not be in it.
    again = SpliceMeasurement(model, stands, "hf")
    again.load(saved)
    for _ in again.run(*contexts()):
        pass
    assert again.summary() == whole


def test_what_makes_the_model_infinite_is_left_out_and_the_rest_is_measured():
    stands = {
        "good": stand("0.resid_mid", "0.mlp_out", lambda x, y: y),
        "bad": stand("1.resid_mid", "1.mlp_out", lambda x, y: y * float("nan")),
    }
    result = measured(loaded("llama"), stands)
    assert list(result["transcoders"]) == ["good"] and result["joint"] is None
    assert "not finite" in result["left_out"]["bad"] and "not finite" in result["joint_problem"]


def test_a_text_without_a_token_to_predict_is_told():
    measurement = SpliceMeasurement(
        loaded("llama"), {"a": stand("0.resid_mid", "0.mlp_out", lambda x, y: y)}, "hf"
    )
    ids_CT, rows_CT = contexts()
    for _ in measurement.run(ids_CT[:, :2], rows_CT[:, :2]):
        pass
    with pytest.raises(DataError, match="contexts need 3 tokens or more"):
        measurement.summary()


def test_scores_equal_their_definitions():
    ids_CT, rows_CT = contexts(3)
    generator = torch.Generator().manual_seed(4)
    clean, edited = (torch.randn(C, T, 50, generator=generator) for _ in range(2))
    ids_CT = ids_CT % 50
    n, ce, kl, same = score(edited, clean, Scored.of(ids_CT, rows_CT)).tolist()
    want = [0.0, 0.0, 0.0, 0.0]
    for c in range(C):
        for t in range(T - 1):
            if rows_CT[c, t] and rows_CT[c, t + 1]:
                p, q = (side[c, t].double().softmax(0) for side in (clean, edited))
                want[0] += 1
                want[1] -= float(q[ids_CT[c, t + 1]].log())
                want[2] += float((p * (p / q).log()).sum())
                want[3] += float(p.argmax() == q.argmax())
    assert (n, same) == (want[0], want[3])
    assert (ce, kl) == pytest.approx((want[1], want[2]), rel=1e-5)


def test_ce_recovered_is_not_given_where_ablation_does_not_hurt():
    total = torch.tensor([2.0, 6.0, 1.0, 1.0], dtype=torch.float64)
    found = figures(total, 2.0, {"zero": 4.0, "mean": 1.5})
    assert found == {
        "ce": 3.0, "ce_increase": 1.0, "ce_recovered_zero": 0.5, "ce_recovered_mean": None,
        "kl": 0.5, "top1_agreement": 0.5,
    }  # fmt: skip


def test_a_step_within_a_norm_cannot_be_replaced():
    with pytest.raises(SiteError, match="cannot be replaced by itself"):
        check_spliceable(site("1.ln2_normalized"))
