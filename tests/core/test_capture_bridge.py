"""Capture through TransformerLens, and that it agrees with the module hooks."""

import pytest
import torch

from mtc_core.capture import ForwardCounts, make_capture
from mtc_core.errors import ModelError, SiteError
from mtc_core.model.model_source import LoadedModel
from mtc_core.sites import Site
from tests.core.test_capture_hf import IDS_CT, all_sites, load, parse
from tests.core.tiny_models import FAMILIES


@pytest.fixture(scope="module")
def llama():
    return load("llama")


@pytest.mark.parametrize("family", FAMILIES)
def test_both_providers_give_the_same_tensors(family):
    """Every common site of every family; only resid_mid of parallel residuals does not exist."""
    loaded = load(family)
    sites = all_sites(loaded.shape)
    theirs = make_capture(loaded, sites, "bridge")(IDS_CT)
    ours = make_capture(loaded, sites, "hf")(IDS_CT)
    # resid_pre of layers 1 and 2 are resid_post of the layers before them.
    assert len(ours) == len(sites) - 2
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        error = (tensor - theirs[name]).norm() / tensor.norm()
        assert error < 1e-5, f"{family} {name}: relative difference {error:.1e}"


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_bridging_leaves_the_loaded_model_as_it_was(family):
    loaded = load(family)
    modules = dict(loaded.model.named_modules())
    with torch.no_grad():
        before = loaded.model(IDS_CT, use_cache=False).logits
    make_capture(loaded, parse("1.mlp_out"), "bridge")(IDS_CT)
    after = dict(loaded.model.named_modules())
    assert after.keys() == modules.keys()
    assert all(after[name] is module for name, module in modules.items())
    assert loaded.model.config._attn_implementation == "sdpa"
    assert loaded.tokenizer.pad_token is None
    with torch.no_grad():
        assert torch.equal(loaded.model(IDS_CT, use_cache=False).logits, before)


def test_bridging_shares_the_weights(llama):
    """A weight changed in the loaded model is seen by its bridge."""
    loaded = load("llama")
    capture = make_capture(loaded, parse("0.mlp_out"), "bridge")
    before = capture(IDS_CT)["blocks.0.hook_mlp_out"]
    with torch.no_grad():
        loaded.model.model.layers[0].mlp.down_proj.weight.mul_(2)
    torch.testing.assert_close(capture(IDS_CT)["blocks.0.hook_mlp_out"], 2 * before)


def test_a_raw_hook_is_the_tensor_it_names(llama):
    captured = make_capture(llama, parse("blocks.1.mlp.hook_post", "1.mlp_out"))(IDS_CT)
    post = captured["blocks.1.mlp.hook_post"]
    assert post.shape == (2, 20, llama.shape.d_mlp)
    down = llama.model.model.layers[1].mlp.down_proj
    torch.testing.assert_close(down(post), captured["blocks.1.hook_mlp_out"])


def test_two_names_of_one_hook_point_share_its_tensor(llama):
    captured = make_capture(llama, parse("blocks.1.hook_out", "1.resid_post"))(IDS_CT)
    first, second = captured.values()
    assert first is second


def test_widths_of_raw_hooks_are_known_after_the_first_call(llama):
    capture = make_capture(llama, parse("blocks.1.mlp.hook_post", "1.mlp_out"))
    assert capture.widths == {"blocks.1.mlp.hook_post": None, "blocks.1.hook_mlp_out": 32}
    capture(IDS_CT)
    assert capture.widths == {"blocks.1.mlp.hook_post": 48, "blocks.1.hook_mlp_out": 32}


@pytest.mark.parametrize(
    ("sites", "counts"),
    [
        (["1.mlp_out"], ForwardCounts(1, 1, 0)),
        (["2.resid_post"], ForwardCounts(1, 1, 0)),
        (["hook_embed"], ForwardCounts(0, 0, 0)),
        (["ln_final.hook_normalized"], ForwardCounts(1, 1, 0)),
        (["unembed.hook_out"], ForwardCounts(1, 1, 1)),
    ],
)
def test_the_bridge_stops_at_the_last_hook_too(llama, sites, counts):
    capture = make_capture(llama, parse(*sites), "bridge")
    capture(IDS_CT)
    assert capture.counts == counts


def test_blocks_beyond_the_last_hook_do_not_run(llama):
    ran = []
    handles = [
        block.mlp.register_forward_pre_hook(lambda *_, i=i: ran.append(i))
        for i, block in enumerate(llama.model.model.layers)
    ]
    # The copy that the bridge works on is made after these hooks, and carries them.
    make_capture(llama, parse("1.mlp_out"), "bridge")(IDS_CT)
    for handle in handles:
        handle.remove()
    assert ran == [0, 1]


def test_shallow_and_repeated_bridge_captures_have_equal_bits(llama):
    deep = make_capture(llama, parse("0.mlp_out", "2.mlp_out"), "bridge")
    shallow = make_capture(llama, parse("0.mlp_out"), "bridge")
    first, second = deep(IDS_CT), deep(IDS_CT)
    name = "blocks.0.hook_mlp_out"
    assert torch.equal(first[name], second[name])
    assert torch.equal(first[name], shallow(IDS_CT)[name])


def test_a_hook_of_another_rank_is_refused_with_its_shape(llama):
    with pytest.raises(SiteError, match=r"hook_pattern has shape \[2, 4, 20, 20\].*\[2, 20, width"):
        make_capture(llama, parse("blocks.1.attn.hook_pattern"))(IDS_CT)


def test_a_misspelt_hook_is_refused_with_near_names(llama):
    with pytest.raises(SiteError, match=r"no hook blocks\.1\.mlp\.hook_pots.*mlp\.hook_post"):
        make_capture(llama, parse("blocks.1.mlp.hook_pots"))


def test_a_hook_that_stays_silent_is_refused(llama):
    with pytest.raises(SiteError, match="hook_mlp_in exists in this model but stayed silent"):
        make_capture(llama, parse("blocks.1.hook_mlp_in"))(IDS_CT)


def test_a_model_that_transformer_lens_does_not_know_is_refused():
    import transformers

    from mtc_core.model.model_shape import ModelShape

    config = transformers.BioGptConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        vocab_size=258,
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    shape = ModelShape.from_config(config.to_dict())
    loaded = LoadedModel(model, None, shape, "none", "tiny biogpt")
    with pytest.raises(ModelError, match="cannot bridge BioGptForCausalLM: Unsupported"):
        make_capture(loaded, [Site.at(0, "mlp_out")])
