"""ModelShape: what a config says, checked against the models that transformers builds from it."""

import subprocess
import sys

import pytest
import torch
import transformers

from mtc_core.errors import ModelError, SiteError
from mtc_core.model.model_shape import EAGER_FAMILIES, KNOWN_FAMILIES, ModelShape
from mtc_core.sites import Site
from tests.core.tiny_models import FAMILIES, tiny_config, tiny_model

GPT2 = {
    "model_type": "gpt2",
    "n_layer": 12,
    "n_embd": 768,
    "n_head": 12,
    "n_positions": 1024,
    "vocab_size": 50257,
}


def shape_of(family: str, n_layers: int = 3) -> ModelShape:
    return ModelShape.from_config(tiny_config(family, n_layers).to_dict())


@pytest.mark.parametrize("family", FAMILIES)
def test_parameter_counts_are_those_of_the_built_model(family):
    model, shape = tiny_model(family), shape_of(family)
    matrices = {
        name: weight.numel() for name, weight in model.named_parameters() if weight.ndim == 2
    }
    in_blocks = sum(n for name, n in matrices.items() if ".layers." in name or ".h." in name)
    assert shape.n_layers * shape.block_params == in_blocks
    assert shape.embed_params == sum(matrices.values()) - in_blocks


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_is_eager_in_the_families_that_are_planned_so(family):
    model = tiny_model(family)
    eager = model.config._attn_implementation == "eager"
    assert eager == (shape_of(family).family in EAGER_FAMILIES)


@pytest.mark.parametrize(
    "name",
    [
        *("Mixtral", "Qwen3Moe", "Qwen2Moe", "Olmoe", "Phimoe", "GptOss", "GraniteMoe"),
        *("DeepseekV3", "Glm4Moe", "Llama4Text", "Jamba"),
    ],
)
def test_all_experts_of_a_mixture_are_counted(name):
    """Of the published sizes, 13 to 671 billion weights, which are never made."""
    config = getattr(transformers, f"{name}Config")()
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    real = sum(weight.numel() for weight in model.parameters())
    shape = ModelShape.from_config(config.to_dict())
    assert shape.params == pytest.approx(real, rel=0.01 if name != "Jamba" else 0.1)  # has Mamba's
    assert shape.n_layers * shape.block_params < 0.4 * shape.params, "a token goes through a few"


def test_a_token_goes_through_two_of_mixtrals_eight_experts():
    shape = ModelShape.from_config(transformers.MixtralConfig().to_dict())
    expert, attention = 3 * 4096 * 14_336, 4096 * (2 * 4096 + 2 * 1024)
    assert shape.block_params == attention + 2 * expert + 8 * 4096
    assert shape.params == 32 * (attention + 8 * expert + 8 * 4096) + shape.embed_params


def test_gemma_4_has_its_mlp_beside_its_experts():
    small = {"num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 512,
             "vocab_size": 1000, "vocab_size_per_layer_input": 1000,
             "hidden_size_per_layer_input": 0, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 64, "global_head_dim": 64}  # fmt: skip
    experts = {"num_experts": 32, "top_k_experts": 4, "moe_intermediate_size": 128}
    for on in (True, False):
        config = transformers.Gemma4TextConfig(**small, enable_moe_block=on, **experts)
        shape = ModelShape.from_config(config.to_dict())
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
        real = sum(weight.numel() for weight in model.parameters())
        assert shape.params == pytest.approx(real, rel=0.05), on
        assert (shape.experts is not None) == on


def test_blocks_of_a_mixture_that_have_no_experts_are_counted_as_they_are():
    few = {"num_hidden_layers": 6, "mlp_only_layers": [0], "decoder_sparse_step": 2}
    config = transformers.Qwen3MoeConfig(**few, intermediate_size=6144)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    shape = ModelShape.from_config(config.to_dict())
    assert shape.experts and shape.experts.dense_blocks == 3
    real = sum(weight.numel() for weight in model.parameters())
    assert shape.params == pytest.approx(real, rel=0.001)


def test_a_mixture_that_does_not_say_how_many_a_token_goes_through_is_planned_with_all():
    config = transformers.MixtralConfig().to_dict() | {"num_experts_per_tok": None}
    shape = ModelShape.from_config(config)
    assert shape.experts and shape.experts.per_token == 8
    for name in ("num_experts_per_token", "top_k_experts"):
        told = ModelShape.from_config(config | {name: 2}).experts
        assert told and told.per_token == 2
    without = config | {"intermediate_size": None}
    with pytest.raises(ModelError, match="has 8 experts and no moe_intermediate_size or"):
        ModelShape.from_config(without)
    assert ModelShape.from_config(config | {"is_moe": False}).experts is None
    assert ModelShape.from_config(config | {"num_local_experts": 1}).experts is None


def test_gpt2_small_has_its_124m_weights():
    shape = ModelShape.from_config(GPT2)
    assert (shape.n_layers, shape.d_model, shape.d_mlp, shape.d_head) == (12, 768, 3072, 64)
    total = shape.n_layers * shape.block_params + shape.embed_params
    assert total == pytest.approx(124_439_808, rel=2e-3)


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("GPT2Config", ["tie_word_embeddings", "n_positions", "n_inner"]),
        ("LlamaConfig", ["num_key_value_heads", "head_dim", "tie_word_embeddings"]),
        ("Gemma2Config", ["tie_word_embeddings", "head_dim", "num_key_value_heads"]),
        ("Qwen2Config", ["tie_word_embeddings"]),
        ("Qwen3Config", ["head_dim", "tie_word_embeddings"]),
        ("GPTNeoXConfig", ["use_parallel_residual", "tie_word_embeddings"]),
    ],
)
def test_fields_that_a_config_leaves_out_have_the_defaults_of_its_class(name, left_out):
    full = getattr(transformers, name)().to_dict()
    short = {key: value for key, value in full.items() if key not in left_out}
    assert ModelShape.from_config(short) == ModelShape.from_config(full)


def test_a_gemma3_config_may_leave_out_everything():
    nested = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}
    full = transformers.Gemma3TextConfig().to_dict()
    assert ModelShape.from_config(nested) == ModelShape.from_config(full)


def test_nested_sizes_win_over_the_outer_config():
    text = tiny_config("gemma3").to_dict()
    shape = ModelShape.from_config({"model_type": "gemma3", "hidden_size": 1, "text_config": text})
    assert shape == shape_of("gemma3")
    assert shape.family in KNOWN_FAMILIES


def test_an_unknown_family_is_read_as_far_as_it_goes():
    shape = ModelShape.from_config(
        {
            "model_type": "opt",
            "num_hidden_layers": 2,
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_attention_heads": 4,
            "vocab_size": 100,
        }
    )
    assert shape.family == "opt" and shape.family not in KNOWN_FAMILIES
    assert (shape.d_mlp, shape.n_kv_heads, shape.max_context) == (48, 4, None)
    assert shape.block_params == 4 * 32 * 32 + 2 * 32 * 48


def test_a_layer_out_of_range_is_told_the_range():
    with pytest.raises(SiteError, match=r"3\.mlp_out: layer 3 is out of range.*layers 0 to 2"):
        shape_of("llama").check(Site.parse("3.mlp_out"))
    with pytest.raises(SiteError, match="layers 0 to 2"):
        shape_of("llama").check(Site.parse("blocks.7.attn.hook_z"))
    shape_of("llama").check(Site.parse("2.mlp_out"))
    shape_of("llama").check(Site.parse("ln_final.hook_normalized"))


def test_parallel_residuals_have_no_resid_mid_and_say_what_to_use():
    assert shape_of("gpt_neox").parallel_residual
    with pytest.raises(SiteError, match=r"no resid_mid.*use 1\.resid_pre"):
        shape_of("gpt_neox").check(Site.parse("1.resid_mid"))
    shape_of("gpt_neox").check(Site.parse("1.mlp_in"))
    shape_of("gpt_neox_sequential").check(Site.parse("1.resid_mid"))


def test_named_sites_are_d_model_wide_and_raw_hooks_unknown():
    shape = shape_of("gemma2")
    assert shape.width(Site.parse("1.mlp_in")) == 32
    assert shape.width(Site.parse("blocks.1.mlp.hook_post")) is None


def test_a_config_without_sizes_is_refused_by_field():
    with pytest.raises(ModelError, match="model_type"):
        ModelShape.from_config({"hidden_size": 8})
    with pytest.raises(ModelError, match="hidden_size or n_embd or d_model"):
        ModelShape.from_config({"model_type": "llama", "num_hidden_layers": 2, "hidden_size": None})


def test_shapes_and_configs_load_without_torch():
    code = (
        "import sys; import mtc_core.model.model_shape, mtc_core.model.model_source; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
