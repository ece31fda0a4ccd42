"""Edited passes, held against a model whose modules are patched by hand."""

import pytest
import torch

from mtc_core.errors import SiteError
from mtc_core.splice.edited import EditedModel, Replacement, check_spliceable
from tests.core.spliced import LAYERS, contexts, loaded, site

SEQUENTIAL = ("gpt2", "llama", "gemma2", "gemma3", "qwen3", "gpt_neox_sequential")


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


def test_positions_that_are_no_rows_keep_their_own_tensor():
    model = loaded("llama")
    edited = EditedModel(model, [site("0.resid_mid"), site("0.mlp_out")], "hf")
    ids_CT, rows_CT = contexts()
    clean_CTV, tensors = edited.clean(ids_CT)
    none = Replacement(
        site("0.resid_mid"), site("0.mlp_out"), torch.zeros_like(rows_CT), lambda x, y: y + 9
    )
    assert torch.equal(edited.edited(ids_CT, [none], tensors)[0], clean_CTV)


def test_a_step_within_a_norm_cannot_be_replaced():
    with pytest.raises(SiteError, match="cannot be replaced by itself"):
        check_spliceable(site("1.ln2_normalized"))
