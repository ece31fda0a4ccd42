"""Sites: where in a model a transcoder reads and what it predicts.

A site is a layer and a short kind (`8.mlp_out`), or any full TransformerLens hook name whose
tensor is [batch, position, width]. Loads without torch.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from mtc_core.errors import SiteError

# In the order in which a block computes them: `depth` relies on it.
KINDS: dict[str, str] = {
    "resid_pre": "blocks.{layer}.hook_resid_pre",
    "ln1_out": "blocks.{layer}.ln1.hook_out",
    "attn_out": "blocks.{layer}.hook_attn_out",
    "resid_mid": "blocks.{layer}.hook_resid_mid",
    "ln2_normalized": "blocks.{layer}.ln2.hook_normalized",
    "mlp_in": "blocks.{layer}.mlp.hook_in",
    "mlp_out": "blocks.{layer}.hook_mlp_out",
    "resid_post": "blocks.{layer}.hook_resid_post",
}
_KIND_OF_HOOK = {hook.split(".", 2)[2]: kind for kind, hook in KINDS.items()}
_SHORT = re.compile(r"(?P<layer>[0-9]{1,3})\.(?P<kind>[A-Za-z0-9_]+)")
_BLOCK_HOOK = re.compile(r"blocks\.(?P<layer>[0-9]{1,3})\.(?P<rest>[A-Za-z0-9_.]+)")
_HOOK = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*\.?hook_[A-Za-z0-9_]+|hook_[A-Za-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Site:
    """One hook point. `layer` is None for hooks outside the blocks, `kind` for hooks we do not
    name ourselves."""

    hook: str
    layer: int | None = None
    kind: str | None = None

    @classmethod
    def at(cls, layer: int, kind: str) -> Site:
        """The site `kind` of a layer. Raises SiteError for an unknown kind."""
        if kind not in KINDS:
            raise SiteError(f"unknown site {kind!r}{_suggest(kind)}")
        return cls(KINDS[kind].format(layer=layer), layer, kind)

    @classmethod
    def parse(cls, text: str) -> Site:
        """Read `8.mlp_out` or a full hook name. Raises SiteError."""
        if short := _SHORT.fullmatch(text):
            return cls.at(int(short["layer"]), short["kind"])
        if block := _BLOCK_HOOK.fullmatch(text):
            if "hook_" not in block["rest"]:
                raise SiteError(f"{text!r} is a module, not a hook; its hook names end in hook_…")
            layer = int(block["layer"])
            return cls(f"blocks.{layer}.{block['rest']}", layer, _KIND_OF_HOOK.get(block["rest"]))
        if _HOOK.fullmatch(text):
            return cls(text)
        raise SiteError(
            f"{text!r} is neither LAYER.SITE (8.mlp_out) nor a TransformerLens hook name"
            + _suggest(text.rpartition(".")[2])
        )

    @property
    def name(self) -> str:
        """Readable and padded, fit for a folder name: `L08.mlp_out`."""
        if self.layer is None:
            return self.hook
        rest = self.kind or self.hook.split(".", 2)[2]
        return f"L{self.layer:02d}.{rest}"

    @property
    def tensor(self) -> str:
        """The tensor behind the hook: equal for two hooks that see the same values.

        The residual stream after layer i is the one before layer i + 1."""
        if self.kind == "resid_pre" and self.layer:
            return KINDS["resid_post"].format(layer=self.layer - 1)
        return self.hook

    @property
    def depth(self) -> tuple[int, int]:
        """Sorts named sites by the moment at which a forward pass reaches them."""
        if self.layer is None:
            return (-1, 0) if "embed" in self.hook and "un" not in self.hook else (1 << 30, 0)
        kinds = list(KINDS)
        return (self.layer, kinds.index(self.kind) if self.kind else len(kinds))

    def __str__(self) -> str:
        return f"{self.layer}.{self.kind}" if self.kind else self.hook


def _suggest(word: str) -> str:
    near = difflib.get_close_matches(word, KINDS, n=1)
    return f'; did you mean "{near[0]}"?' if near else f"; sites are {', '.join(KINDS)}"
