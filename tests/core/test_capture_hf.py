"""Capture through module hooks: what each site is, where the forward stops, what stays alive."""

import gc
import weakref

import pytest
import torch

from mtc_core.capture import ForwardCounts, make_capture, resolve_provider
from mtc_core.capture.families import LAYOUTS
from mtc_core.errors import ModelError, SiteError
from mtc_core.model.model_shape import KNOWN_FAMILIES, ModelShape
from mtc_core.model.model_source import LoadedModel
from mtc_core.sites import KINDS, Site
from tests.core.tiny_models import BOS_ID, FAMILIES, tiny_model, tiny_tokenizer

IDS_CT = torch.cat(
    [
        torch.full((2, 1), BOS_ID),
        torch.randint(0, 256, (2, 19), generator=torch.Generator().manual_seed(0)),
    ],
    dim=1,
)


def load(family="llama", n_layers=3):
    model = tiny_model(family, n_layers)
    shape = ModelShape.from_config(model.config.to_dict())
    return LoadedModel(model, tiny_tokenizer(), shape, "none", f"tiny {family}")


def all_sites(shape):
    kinds = [kind for kind in KINDS if not (kind == "resid_mid" and shape.parallel_residual)]
    return [Site.at(layer, kind) for layer in range(shape.n_layers) for kind in kinds]


def parse(*names):
    return [Site.parse(name) for name in names]


def blocks_of(loaded):
    return getattr(loaded.model.get_decoder(), LAYOUTS[loaded.shape.family].blocks)


def part_of(loaded, layer, name):
    return getattr(blocks_of(loaded)[layer], getattr(LAYOUTS[loaded.shape.family], name))


@pytest.fixture(params=FAMILIES)
def captured(request):
    """A loaded model of each family and a function that gives its tensors by short site name."""
    loaded = load(request.param)
    acts = make_capture(loaded, all_sites(loaded.shape), "hf")(IDS_CT)
    return loaded, lambda name: acts[Site.parse(name).tensor]


def test_residual_sites_are_the_models_own_hidden_states(captured):
    loaded, at = captured
    with torch.no_grad():
        states = loaded.model(IDS_CT, output_hidden_states=True, use_cache=False).hidden_states
    for layer in range(3):
        assert torch.equal(at(f"{layer}.resid_pre"), states[layer])
    assert torch.equal(at("1.resid_post"), states[2])
    # transformers ends its list after the final norm, our last site lies before it.
    assert not torch.equal(at("2.resid_post"), states[3])


def test_branches_add_up_to_the_residual_stream(captured):
    loaded, at = captured
    for layer in range(3):
        pre, attn = at(f"{layer}.resid_pre"), at(f"{layer}.attn_out")
        mlp, post = at(f"{layer}.mlp_out"), at(f"{layer}.resid_post")
        if loaded.shape.parallel_residual:
            assert torch.equal(post, mlp + attn + pre)
        else:
            assert torch.equal(at(f"{layer}.resid_mid"), pre + attn)
            assert torch.equal(post, at(f"{layer}.resid_mid") + mlp)


def test_modules_applied_to_captured_inputs_give_captured_outputs(captured):
    loaded, at = captured
    reads = "resid_pre" if loaded.shape.parallel_residual else "resid_mid"
    for layer in range(3):
        mlp_out = part_of(loaded, layer, "mlp")(at(f"{layer}.mlp_in"))
        if loaded.shape.family.startswith("gemma"):
            mlp_out = part_of(loaded, layer, "mlp_out")(mlp_out)
        assert torch.equal(mlp_out, at(f"{layer}.mlp_out"))
        mlp_in = part_of(loaded, layer, "ln2")(at(f"{layer}.{reads}"))
        assert torch.equal(mlp_in, at(f"{layer}.mlp_in"))
        ln1_out = part_of(loaded, layer, "ln1")(at(f"{layer}.resid_pre"))
        assert torch.equal(ln1_out, at(f"{layer}.ln1_out"))


def test_ln2_normalized_lacks_just_the_weight_and_bias(captured):
    loaded, at = captured
    for layer in range(3):
        norm = part_of(loaded, layer, "ln2")
        weight = norm.weight + (1 if loaded.shape.family.startswith("gemma") else 0)
        rebuilt = at(f"{layer}.ln2_normalized") * weight + getattr(norm, "bias", 0)
        torch.testing.assert_close(rebuilt, at(f"{layer}.mlp_in"), rtol=1e-5, atol=1e-5)
        rms = at(f"{layer}.ln2_normalized").pow(2).mean(-1)
        torch.testing.assert_close(rms, torch.ones_like(rms), rtol=1e-3, atol=0)


def test_tensors_are_not_written_to_after_they_were_captured(captured):
    """Copies made inside a forward equal the tensors after that forward ran to its very end."""
    loaded, _ = captured
    seen = []

    def note(tensor):
        seen.append((tensor, tensor.clone(), tensor._version))

    for layer, block in enumerate(blocks_of(loaded)):
        for module in (block, part_of(loaded, layer, "ln2"), part_of(loaded, layer, "mlp")):
            module.register_forward_pre_hook(lambda _, args: note(args[0]))
        for name in ("ln1", "attn_out", "mlp_out"):
            part_of(loaded, layer, name).register_forward_hook(
                lambda _, args, out: note(out[0] if isinstance(out, tuple) else out)
            )
    with torch.no_grad():
        loaded.model(IDS_CT, use_cache=False)
    assert len(seen) == 3 * 6
    for tensor, copy, version in seen:
        assert tensor._version == version and torch.equal(tensor, copy)


def test_shallow_capture_has_the_bits_of_a_deep_one(captured):
    loaded, at = captured
    shallow = [site for site in all_sites(loaded.shape) if site.layer == 0]
    capture = make_capture(loaded, shallow, "hf")
    first, second = capture(IDS_CT), capture(IDS_CT)
    for site in shallow:
        assert torch.equal(first[site.tensor], at(str(site)))
        assert torch.equal(first[site.tensor], second[site.tensor])


def test_every_known_family_has_a_layout_and_a_tiny_model():
    assert set(LAYOUTS) == KNOWN_FAMILIES
    assert {load(family, 1).shape.family for family in FAMILIES} == KNOWN_FAMILIES


def test_resid_post_and_the_next_resid_pre_are_one_tensor_kept_once():
    capture = make_capture(load(), parse("0.resid_post", "1.resid_pre", "1.mlp_out"), "hf")
    assert list(capture(IDS_CT)) == ["blocks.0.hook_resid_post", "blocks.1.hook_mlp_out"]


@pytest.mark.parametrize(
    ("sites", "entered"),
    [
        (["1.resid_mid", "1.mlp_out"], 2),
        (["1.resid_post"], 2),
        (["2.resid_pre"], 2),
        (["2.ln1_out", "0.mlp_out"], 3),
    ],
)
def test_the_forward_stops_after_the_deepest_site_and_never_unembeds(sites, entered):
    loaded = load(n_layers=4)
    seen = [0] * 4
    for layer, block in enumerate(blocks_of(loaded)):
        block.register_forward_pre_hook(lambda *_, i=layer: seen.__setitem__(i, seen[i] + 1))
    unembedded = []
    loaded.model.lm_head.register_forward_pre_hook(lambda *_: unembedded.append(1))
    capture = make_capture(loaded, parse(*sites), "hf")
    capture(IDS_CT)
    capture(IDS_CT)
    assert seen == [2] * entered + [0] * (4 - entered)
    assert not unembedded
    assert capture.counts == ForwardCounts(first_block=2, last_block=2, unembedding=0)


def test_the_rest_of_the_deepest_block_does_not_run():
    loaded = load()
    ran = []
    part_of(loaded, 1, "mlp").register_forward_pre_hook(lambda *_: ran.append(1))
    make_capture(loaded, parse("1.resid_mid"), "hf")(IDS_CT)
    assert not ran


def test_an_open_capture_leaves_the_model_and_other_captures_alone():
    loaded = load()
    with torch.no_grad():
        before = loaded.model(IDS_CT, use_cache=False).logits
    shallow = make_capture(loaded, parse("0.mlp_out"), "hf")
    deep = make_capture(loaded, parse("2.mlp_out"), "hf")
    assert list(deep(IDS_CT)) == ["blocks.2.hook_mlp_out"]
    with torch.no_grad():
        assert torch.equal(loaded.model(IDS_CT, use_cache=False).logits, before)
    assert shallow.counts == ForwardCounts()
    assert deep.counts == ForwardCounts(first_block=1, last_block=1, unembedding=0)


def test_close_takes_every_hook_out():
    loaded = load()
    capture = make_capture(loaded, all_sites(loaded.shape), "hf")
    capture.close()
    for module in loaded.model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    with pytest.raises(AssertionError, match="closed"):
        capture(IDS_CT)


def test_tensors_carry_no_graph_and_accept_later_gradients():
    loaded = load()
    loaded.model.requires_grad_(True)
    (acts,) = make_capture(loaded, parse("1.mlp_out"), "hf")(IDS_CT).values()
    assert not acts.requires_grad and acts.grad_fn is None and not acts.is_inference()
    weight = torch.ones(32, requires_grad=True)
    (acts * weight).sum().backward()
    assert weight.grad is not None


def test_nothing_of_a_forward_outlives_its_tensors():
    capture = make_capture(load(), parse("0.resid_mid", "1.mlp_out"), "hf")
    gc.collect()
    gc.disable()
    try:
        acts = capture(IDS_CT)
        watched = [weakref.ref(tensor) for tensor in acts.values()]
        del acts
        assert all(reference() is None for reference in watched)
    finally:
        gc.enable()


def test_each_hands_over_the_same_tensors_and_holds_none_of_them():
    """Only what the model itself still reads is there when the next comes: the stream."""
    loaded = load("llama", 4)
    sites = [Site.at(layer, kind) for layer in range(4) for kind in ("mlp_in", "mlp_out")]
    capture = make_capture(loaded, sites, "hf")
    wanted = capture(IDS_CT)
    alive, most, taken = [], [], {}

    def take(name, tensor_CTD):
        most.append(sum(one() is not None for one in alive))
        alive.append(weakref.ref(tensor_CTD))
        taken[name] = tensor_CTD.clone()

    capture.each(IDS_CT, take)
    assert list(taken) == list(capture.tensors) == list(wanted)
    assert all(torch.equal(taken[name], wanted[name]) for name in wanted)
    assert max(most) <= 2, most
    assert not any(one() is not None for one in alive)


def test_an_error_in_the_model_is_not_swallowed_and_the_capture_recovers():
    capture = make_capture(load(), parse("1.mlp_out"), "hf")
    with pytest.raises(IndexError):
        capture(torch.full((1, 4), 10_000))
    assert capture(IDS_CT)["blocks.1.hook_mlp_out"].shape == (2, 20, 32)


def test_half_precision_sites_keep_the_models_dtype():
    loaded = load("gemma3")
    loaded.model.to(torch.bfloat16)
    acts = make_capture(loaded, all_sites(loaded.shape), "hf")(IDS_CT)
    assert {tensor.dtype for tensor in acts.values()} == {torch.bfloat16}


def test_a_multimodal_gemma3_is_read_at_its_text_model():
    import transformers

    from tests.core.tiny_models import tiny_config

    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    text = tiny_config("gemma3").to_dict()
    config = transformers.Gemma3Config(text_config=text, vision_config=vision)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    assert type(model).__name__ == "Gemma3ForConditionalGeneration"
    shape = ModelShape.from_config(config.to_dict())
    loaded = LoadedModel(model, None, shape, "none", "tiny multimodal gemma3")
    acts = make_capture(loaded, parse("1.resid_pre"), "hf")(IDS_CT)
    with torch.no_grad():
        states = model(IDS_CT, output_hidden_states=True, use_cache=False).hidden_states
    torch.testing.assert_close(acts["blocks.0.hook_resid_post"], states[1])


def test_sites_that_the_model_lacks_are_refused_before_any_forward():
    with pytest.raises(SiteError, match="layers 0 to 2"):
        make_capture(load(), parse("3.mlp_out"), "hf")
    with pytest.raises(SiteError, match=r"use 1\.resid_pre"):
        make_capture(load("gpt_neox"), parse("1.resid_mid"), "hf")


def test_auto_takes_hf_for_known_families_and_named_sites_only():
    known = load("gpt2", 2).shape
    other = ModelShape.from_config(
        {**load("llama", 2).model.config.to_dict(), "model_type": "olmo"}
    )
    named, raw = parse("1.mlp_out"), parse("1.mlp_out", "blocks.1.mlp.hook_post")
    assert resolve_provider(known, named) == "hf"
    assert resolve_provider(known, raw) == "bridge"
    assert resolve_provider(other, named) == "bridge"
    assert resolve_provider(known, named, "bridge") == "bridge"
    # A full hook name that we have a kind for is the same site.
    assert resolve_provider(known, parse("blocks.1.hook_mlp_out")) == "hf"
    with pytest.raises(SiteError, match="needs the bridge provider"):
        resolve_provider(known, raw, "hf")
    with pytest.raises(ModelError, match="does not know olmo models"):
        resolve_provider(other, named, "hf")
