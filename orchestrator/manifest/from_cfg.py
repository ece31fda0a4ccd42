"""What becomes of every key of the flat config that the single-script guide to Matryoshka
transcoders uses: it is carried to a key of the manifest, or dropped for a reason.

`cfg_translation` reads such a config by this table, `cfg_manifest` writes the manifest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.manifest.cfg_values import Read, dtype, no_l1, selection, share, sizes
from orchestrator.manifest.scalars import MAX_LAYER, choice, count, number, text
from orchestrator.manifest.schema import ResourcesSection, TrackingSection


@dataclass(frozen=True, slots=True)
class Carried:
    """To a key of the manifest. default: what the guide takes if the config does not say, where
    that is not left to our own default."""

    to: str
    read: Read
    default: Any = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """Not carried over. read: refuses a value whose loss would change the result."""

    why: str
    read: Read | None = None


_PLACE = "of the guide's autoencoders; source_… and target_… say it"
_WIDTH = "the model says how wide its sites are"
_ADAM = "Adam's betas are 0.9 and 0.999 here"
_SAMPLES = "no samples of activations are collected while training"
_TWINS = "there is no penalty on similar latents, and no monitor of them"
_RULE = "the guide's training does not read it; scheduler_type does it"
_POSITIONS = "rows are drawn from all positions but the first alike"
_MADE = "written by the guide when it had trained"
_layer, _label = count(0, MAX_LAYER).read, text().read

KEYS: dict[str, Carried | Dropped] = {
    "model_name": Carried("model.name", _label),
    "model_dtype": Carried("model.dtype", dtype("float32", "bfloat16", "float16")),
    "model_batch_size": Carried("model.forward_contexts", count().read),
    "dataset_path": Carried("data.path", _label, "Skylion007/openwebtext"),
    "dataset_split": Carried("data.split", _label),
    "seq_len": Carried("data.context_tokens", count(2).read, 128),
    "num_tokens": Carried("train.tokens", count().read),
    "batch_size": Carried("train.batch_tokens", count().read, 4096),
    "lr": Carried("train.lr", number(above=True).read, 3e-4),
    "scheduler_type": Carried(
        "train.decay_fraction",
        choice("none", "constant", "warmup_only", "decay_only", "warmup_decay").read,
        "none",
    ),
    "warmup_steps": Carried("train.warmup_steps", count(0).read, 1000),
    "dtype": Carried("train.dtype", dtype("float32", "bfloat16")),
    "enc_dtype": Carried("train.dtype", dtype("float32", "bfloat16")),
    "n_batches_to_dead": Carried("train.dead_after_tokens", count().read),
    "dict_size": Carried("defaults.d_sae", count().read),
    "group_sizes": Carried("defaults.group_sizes", sizes),
    "prefix_sizes": Carried("defaults.group_sizes", sizes),
    "top_k": Carried("defaults.k", count().read),
    "sae_type": Carried("defaults.selection", selection, "batchtopk"),
    "aux_penalty": Carried("defaults.aux_weight", share),
    "top_k_aux": Carried("defaults.k_aux", count().read),
    "source_layer": Carried("transcoders[0].source", _layer),
    "source_site": Carried("transcoders[0].source", _label),
    "source_hook_point": Carried("transcoders[0].source", _label),
    "target_layer": Carried("transcoders[0].target", _layer),
    "target_site": Carried("transcoders[0].target", _label),
    "target_hook_point": Carried("transcoders[0].target", _label),
    "seed": Carried("seed", count(0).read),
    "device": Carried("resources.device", ResourcesSection.model_fields["device"].metadata[0].read),
    "wandb_project": Carried(
        "tracking.project", TrackingSection.model_fields["project"].metadata[0].read
    ),
    "act_size": Dropped(_WIDTH),
    "source_act_size": Dropped(_WIDTH),
    "target_act_size": Dropped(_WIDTH),
    "layer": Dropped(_PLACE),
    "site": Dropped(_PLACE),
    "hook_point": Dropped(_PLACE),
    "name": Dropped("the run is named for its model and sites"),
    "experiment_description": Dropped("the run is named for its model and sites"),
    "num_batches_in_buffer": Dropped(
        "not needed: data.shuffle_tokens shuffles contexts, train.block_batches rows"
    ),
    "input_unit_norm": Dropped(
        "sites are scaled by their own statistics; scaling each row gave the target the source's"
    ),
    "beta1": Dropped(_ADAM),
    "beta2": Dropped(_ADAM),
    "max_grad_norm": Dropped("gradients are not clipped; Adam's step does not grow with them"),
    "min_lr": Dropped("a rate that decays ends at 0"),
    "l1_coeff": Dropped("it is 0, and there is no L1 here", no_l1),
    "bandwidth": Dropped("of JumpReLU, which is not trained here"),
    "top_k_matryoshka": Dropped("of another kind of autoencoder; one k holds for all groups"),
    "perf_log_freq": Dropped("metrics come every train.log_every_steps, held-out ones at the end"),
    "checkpoint_freq": Dropped("checkpoints are by time: resources.checkpoint_minutes"),
    "completed_steps": Dropped(_MADE),
    "completed_at": Dropped(_MADE),
    "_wandb": Dropped("written by W&B"),
    **dict.fromkeys(
        ("save_activation_samples", "sample_collection_freq", "max_samples_per_feature",
         "sample_context_size", "sample_activation_threshold", "top_features_to_save",
         "samples_per_feature_to_save", "store_tokens_for_samples"),
        Dropped(_SAMPLES),
    ),
    **dict.fromkeys(("use_warmup", "use_decay", "decay_steps"), Dropped(_RULE)),
    **dict.fromkeys(
        ("use_diversity_regularization", "diversity_regularizer_type", "orthogonality_weight",
         "correlation_weight", "position_diversity_weight", "use_correlation_monitoring",
         "correlation_threshold", "correlation_window_size", "correlation_save_frequency",
         "correlation_output_dir"),
        Dropped(_TWINS),
    ),
    **dict.fromkeys(
        ("use_position_stratified_sampling", "position_sampler_type", "position_bins",
         "min_samples_per_bin", "bos_penalty_factor", "max_bos_ratio"),
        Dropped(_POSITIONS),
    ),
}  # fmt: skip
SAME = {"prefix_sizes": "group_sizes", "enc_dtype": "dtype"}  # other names of one setting
NEEDED = {
    "model_name": '"gpt2-small"',
    "group_sizes": "[768, 1536, 3072, 6912]",
    "top_k": "64",
    "num_tokens": "1e8",
}
