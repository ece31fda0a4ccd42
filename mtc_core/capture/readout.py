"""What turns a model's residual stream into logits: its final norm, and its unembedding."""

from __future__ import annotations

from torch import nn

from mtc_core.capture.families import LAYOUTS
from mtc_core.errors import ModelError
from mtc_core.features.logits import Readout
from mtc_core.model.model_source import LoadedModel

ONE_PLUS = ("gemma2", "gemma3")  # their norms multiply by 1 + weight


def read_out(loaded: LoadedModel) -> Readout:
    """Raises ModelError for a model whose final norm is not known here."""
    family = loaded.shape.family
    if family not in LAYOUTS:
        raise ModelError(
            f"the final norm of {family} models is not known here, only that of "
            f"{', '.join(sorted(LAYOUTS))}"
        )
    decoder, name = loaded.model.get_decoder(), LAYOUTS[family].final_norm
    norm = getattr(decoder, name, None)
    unembedding = loaded.model.get_output_embeddings()
    if norm is None or unembedding is None:
        lacking = "unembedding" if unembedding is None else f"final norm {name!r}"
        raise ModelError(f"{type(loaded.model).__name__} has no {lacking}")
    weight_D = norm.weight.float()
    return Readout(
        weight_D=1 + weight_D if family in ONE_PLUS else weight_D,
        centred=isinstance(norm, nn.LayerNorm),
        W_U_VD=unembedding.weight,
    )
