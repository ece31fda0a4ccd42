"""How many contexts go through the model at once, where the manifest leaves it open."""

from __future__ import annotations

from orchestrator.manifest.schema import Manifest

CONTEXTS = 16
# Of a pass on a GPU, which does 2,048 of GPT-2 small in a fraction of the time of launching them.
# More than the 8,192 rows of a step: first positions and special tokens are no rows, and a block of
# four steps should not take a fifth pass for that.
GPU_TOKENS = 9216


def with_contexts(manifest: Manifest, gpus: bool) -> Manifest:
    """`auto` as a number. gpus: whether the model runs on some."""
    if manifest.model.forward_contexts != "auto":
        return manifest
    contexts = usual_contexts(manifest.data.context_tokens, gpus)
    model = manifest.model.model_copy(update={"forward_contexts": contexts})
    return manifest.model_copy(update={"model": model})


def usual_contexts(context_tokens: int, gpus: bool) -> int:
    """What `auto` is."""
    return max(CONTEXTS, GPU_TOKENS // context_tokens if gpus else 0)


def contexts_of(manifest: Manifest) -> int:
    """Of one pass, of a manifest that leaves nothing open: a plan's, a run's."""
    contexts = manifest.model.forward_contexts
    assert contexts != "auto", "with_contexts"
    return contexts
