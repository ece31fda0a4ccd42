"""A manifest to start from: sizes that suit the model, and a sentence beside every key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mtc_core.errors import ConfigError
from mtc_core.guidelines import suggest_group_sizes
from mtc_core.model.model_shape import ModelShape
from mtc_core.model.model_source import is_local
from mtc_core.places import place
from mtc_core.tokens.data_config import BYTES_PER_TOKEN, DataConfig
from mtc_core.tokens.text import PYTHON_DOCS, source_listing, text_bytes
from orchestrator.manifest.checks import mistakes_of_sites
from orchestrator.manifest.expand import expand_entries
from orchestrator.manifest.scalars import AUTO
from orchestrator.manifest.schema import Entry
from orchestrator.messages import suggestion

HUB_DATA = "monology/pile-uncopyrighted"
PRESETS = {
    "mlp": ("resid_mid", "mlp_out"),
    "attention": ("resid_pre", "attn_out"),
    "layer": ("resid_pre", "resid_post"),
}
LONG_TOKENS = 100_000_000
PACKED = 3  # times smaller is compressed text, about
PASSES = 4  # over a text that is short
LARGE_PARAMS = 10**9
WIDE = 52  # lines beyond have their comment where they end


@dataclass(frozen=True, slots=True)
class Pair:
    """One entry: two kinds, at every layer, or two sites with their own places."""

    source: str
    target: str

    @property
    def everywhere(self) -> bool:
        return not any("." in end or "hook_" in end for end in (self.source, self.target))

    def __str__(self) -> str:
        layers = "layers: all, " if self.everywhere else ""
        return f"{{{layers}source: {self.source}, target: {self.target}}}"


def read_pair(text: str, shape: ModelShape) -> Pair:
    """`mlp`, `resid_mid:mlp_out`, or `8.resid_post:10.resid_mid`. Raises ConfigError for what this
    model does not have."""
    source, colon, target = text.partition(":")
    if text in PRESETS:
        source, target = PRESETS[text]
        if shape.parallel_residual:  # there is no stream between attention and MLP
            source = "resid_pre"
    elif not (source and colon and target):
        raise ConfigError(
            f"--sites {text}: no such pair{suggestion(text, PRESETS)}; or SOURCE:TARGET, such as "
            "ln2_normalized:mlp_out or 8.resid_post:10.resid_mid"
        )
    pair = Pair(source, target)
    entry = Entry(layers="all" if pair.everywhere else None, source=source, target=target)
    fallback = {"group_sizes": (1,), "k": (1,), "seed": (0,), "lr": (AUTO,)}
    expansion = expand_entries({0: entry}, fallback, shape.n_layers)
    problems = [*expansion.problems, *mistakes_of_sites(expansion, shape)]
    if problems and "has no layer" in problems[0][1]:
        raise ConfigError(
            f"--sites {text}: give both sites a layer (8.resid_post:10.resid_mid), or neither "
            "(resid_mid:mlp_out, at every layer)"
        )
    if problems:
        raise ConfigError(f"--sites {text}: {problems[0][1]}")
    return pair


def starting_name(model: str, sites: Sequence[str]) -> str:
    """`gpt2-mlp`: a run's name from a model's and what is trained of it."""
    called = place(model).resolve().name if is_local(model) else model.rpartition("/")[2]
    words = [
        called.removeprefix("package:"),
        *(s if s in PRESETS else s.replace(":", "-") for s in sites),
    ]
    cleaned = [re.sub(r"[^a-z0-9._-]+", "-", word.lower()).strip("-._") for word in words]
    return "-".join(word for word in cleaned if word)[:100] or "run"


def starting_manifest(
    name: str,
    model: str,
    shape: ModelShape,
    pairs: Sequence[Pair],
    data: str = HUB_DATA,
    text_bytes: int | None = None,
    columns: bool = True,
) -> str:
    """YAML with comments. text_bytes: of a local text; a short one is read several times. columns:
    whether the text stands in one."""
    width = shape.d_model
    sizes = list(suggest_group_sizes(width))
    tokens, batch = _length(text_bytes)
    context = min(128, shape.max_context or 128)
    holdout = holdout_for(text_bytes, context)
    params = shape.params
    dtype = "bfloat16" if params > LARGE_PARAMS else "float32"
    lines = [
        (f"name: {name}", "the run folder: runs/" + name),
        ("", ""),
        ("model:", ""),
        (f"  name: {quoted(model)}", "Hub id, local folder, or a package that ships a GGUF"),
        (f"  dtype: {dtype}", "of the forward pass; transcoders stay float32"),
        ("", ""),
        ("data:", ""),
        (f"  path: {quoted(data)}", "Hub id, .txt, .jsonl or .parquet file, or a folder of them"),
        *([("  column: text", "the column that holds the text")] if columns else []),
        (f"  context_tokens: {context}", f"at most {shape.max_context}" * bool(shape.max_context)),
        (f"  holdout_tokens: {holdout:_}", "kept from training; half of it for every figure"),
        ("", ""),
        ("train:", ""),
        (f"  tokens: {short_count(tokens)}", _passes(tokens, text_bytes)),
        (f"  batch_tokens: {batch}", f"one step; {tokens // batch:,} steps"),
        ("  lr: auto", "goes by d_sae and the number of steps"),
        ("", ""),
        ("defaults:", "for every transcoder below that does not say otherwise"),
        (f"  group_sizes: {sizes}", f"sizes, not ends: {sum(sizes):,} latents, 16 x {width:,}"),
        (f"  k: {_k(width)}", "latents kept per token, on average"),
        ("", ""),
        ("transcoders:", "a list where one value is expected is a sweep: k: [32, 64]"),
        *((f"  - {pair}", _what(pair, shape)) for pair in pairs),
        ("", ""),
        ("resources:", ""),
        ("  checkpoint_minutes: 15", "running the same command again continues from there"),
        ("", ""),
        ("tracking:", ""),
        ("  wandb: off", "off, offline or online"),
    ]
    head = f"# {_counted(pairs, shape)} of {model}. Every key: manifests/README.md\n"
    return head + "\n".join(aligned(lines)) + "\n"


def look_at_text(data: str) -> tuple[int | None, bool]:
    """About how many bytes of text there are, None if nobody knows; and whether it has columns.
    Raises ConfigError or DataError."""
    listing = source_listing(DataConfig(path=data))
    packed = PACKED * sum(size for _, size in listing) or None
    plain = data == PYTHON_DOCS or (bool(listing) and all(n.endswith(".txt") for n, _ in listing))
    return text_bytes(listing) or packed, not plain


def aligned(lines: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of YAML, each with its comment beside it."""
    column = max(len(text) for text, _ in lines if len(text) <= WIDE)
    return [f"{text:<{column}}  # {comment}" if comment else text for text, comment in lines]


def _length(text_bytes: int | None) -> tuple[int, int]:
    """Tokens to train on, and those of a step."""
    if text_bytes is None:
        return LONG_TOKENS, 8192
    tokens = min(LONG_TOKENS, max(20_000, PASSES * text_bytes // BYTES_PER_TOKEN))
    digits = 10 ** (len(str(tokens)) - 2)
    tokens = tokens // digits * digits
    batch = 8192 if tokens >= 2_000_000 else 1024 if tokens >= 100_000 else 256
    return tokens, batch


def holdout_for(text_bytes: int | None, context: int) -> int:
    """Tokens to keep from training, of a text of this length."""
    if text_bytes is None:
        return 65_536
    a_twentieth = text_bytes // BYTES_PER_TOKEN // 20
    return min(65_536, max(2 * context, a_twentieth // (2 * context) * 2 * context))


def _k(width: int) -> int:
    return 64 if width >= 640 else max(4, 1 << max(1, width // 16).bit_length() - 1)


def short_count(count: int) -> str:
    """`100M`, or digits in threes."""
    return f"{count // 10**6}M" if count % 10**6 == 0 else f"{count:_}"


def _passes(tokens: int, text_bytes: int | None) -> str:
    if text_bytes is None:
        return "one row is one token position"
    passes = tokens * BYTES_PER_TOKEN / text_bytes
    return f"about {passes:.0f} passes over the text" if passes >= 1.5 else "less than two passes"


def _what(pair: Pair, shape: ModelShape) -> str:
    return f"{shape.n_layers} transcoders that share the forward" if pair.everywhere else ""


def _counted(pairs: Sequence[Pair], shape: ModelShape) -> str:
    count = sum(shape.n_layers if pair.everywhere else 1 for pair in pairs)
    return "A transcoder" if count == 1 else f"{count} transcoders"


def quoted(text: str) -> str:
    """Text as YAML would read it back: quoted where it holds more than plain characters."""
    plain = re.fullmatch(r"[A-Za-z0-9._/~][A-Za-z0-9._/~:+@-]*", text)
    return text if plain and not text.endswith(":") else "'" + text.replace("'", "''") + "'"
