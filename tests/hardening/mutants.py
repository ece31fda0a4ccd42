"""Manifests that somebody or something has spoilt: in a value, in their lines, or altogether."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import yaml

from orchestrator.manifest.schema import Manifest

SHIPPED = sorted((Path(__file__).parents[2] / "manifests").glob("*.yaml"))
NASTY = (
    "", "~", "null", "true", "off", "yes", "0", "-1", "-0", "00", "010", "0x10", "1_000", "1e8",
    "1e400", "-1e400", "nan", ".nan", "NaN", "inf", ".inf", "-.inf", "1e-400", "9" * 30,
    "9" * 5000, "1.5", "1,5", "64k", "100M", "1e3M", "-5M", "2026-11-25", "2026-11-25T10:00:00Z",
    "12:30:45", "[]", "{}", "[[]]", "[1, 2, 3]", "[0]", "[-1]", "[nan]", "{a: b}", "[a, {b: c}]",
    '""', '" "', "'...'", '"\\0"', '"\\ud800"', '"\\U0001F600"', "é", "日本語", "a" * 300, "../x",
    "../../etc/passwd", "/", "/tmp", "~/x", ".", "..", "con", "NUL", "a/b", "a\\\\b", "-rf",
    "$(id)", "`id`", "%s%n", "{0}", "<script>", "!!python/object:os.system x",
    "!!python/object/apply:os.system [id]", "!!binary aGk=", "!!int '3'", "!x y", "&a x", "*a",
    "&a [*a]", "<<", "? x", "- x", "|", ">", "|\n    x", "'unclosed", '"unclosed', "[1, 2",
    "{a: 1", "a: b: c", "@x", "`x", "# x", "x # y", "0-", "-0", "5-3", "0-99999999", "all",
    "even", "[0, 0]", "0.resid_mid", "99.mlp_out", "blocks.0.hook_mlp_out", "hook_embed",
    "resid_mid", "mlp_ouput", "cuda", "cuda:0", "cuda:x", "cpu", "auto", "torch", "triton",
    "batchtopk", "gpt2", "org/name", "s3://bucket/x", "http://x", "hf://x/y", "package:nothing",
    "package:os", "package:../x", "file:///etc/passwd", "\u202eabc", "\ufeffx", "a\x00b",
)  # fmt: skip
KEYS = (
    *Manifest.model_fields,
    "lr", "k", "tokens", "path", "layers", "source", "target", "group_sizes", "seed", "device",
    "kernels", "wandb", "__class__", "__proto__", "<<", "=", "1", "", "a b", "名", "self",
    "model_fields",
)  # fmt: skip


def scalars(text: str) -> list[tuple[int, int]]:
    """Where the values of a document stand, not its keys."""
    found = []

    def visit(node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            for _, value in node.value:
                visit(value)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                visit(item)
        else:
            found.append((node.start_mark.index, node.end_mark.index))

    visit(yaml.compose(text, Loader=yaml.SafeLoader))
    return found


def one_value(draw: random.Random, text: str) -> str:
    """The manifest with another value in one place."""
    first, last = draw.choice(scalars(text))
    value = draw.choice(NASTY)
    if draw.random() < 0.3:  # near to what was there
        old = text[first:last]
        value = draw.choice(
            [old * 2, old[:-1], old.upper(), f"[{old}]", f"'{old}'", f"-{old}", old + "0"]
        )
    return text[:first] + value + text[last:]


def lines_spoilt(draw: random.Random, text: str) -> str:
    """The manifest as an editor, a merge or a bad copy leaves it."""
    lines = text.split("\n")
    at = draw.randrange(len(lines))
    match draw.randrange(11):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, draw.choice(lines))
        case 2:
            lines[at] = " " * draw.randrange(5) + lines[at]
        case 3:
            lines[at] = "\t" + lines[at]
        case 4:
            return text[: draw.randrange(len(text))]
        case 5:
            place = draw.randrange(len(text))
            return text[:place] + chr(draw.randrange(0x300)) + text[place + 1 :]
        case 6:
            return "\r\n".join(lines)
        case 7:
            lines[at] = f"<<<<<<< HEAD\n{lines[at]}\n=======\n{lines[at]}\n>>>>>>> x"
        case 8:
            return text + "\n---\n" + text
        case 9:
            key, colon, rest = lines[at].partition(":")
            lines[at] = (
                draw.choice(KEYS) + colon + rest
                if draw.random() < 0.5
                else key[::-1] + colon + rest
            )
        case _:
            draw.shuffle(lines)
    return "\n".join(lines)


def made_up(draw: random.Random, depth: int = 0) -> str:
    """A document in flow style that has our keys in wrong places."""
    kind = draw.randrange(4) if depth < 4 else 0
    if depth == 0 or kind == 1:
        items = (
            f"{draw.choice(KEYS) or 'x'}: {made_up(draw, depth + 1)}"
            for _ in range(draw.randrange(6))
        )
        return "{" + ", ".join(items) + "}"
    if kind == 2:
        return "[" + ", ".join(made_up(draw, depth + 1) for _ in range(draw.randrange(4))) + "]"
    return draw.choice(NASTY).split("\n")[0] or "''"


def mutants(draw: random.Random, count: int) -> Iterator[tuple[str, str]]:
    """(kind, text): three of five differ from a shipped manifest in one value."""
    texts = [path.read_text(encoding="utf-8") for path in SHIPPED]
    for index in range(count):
        text = texts[index % len(texts)]
        match index // len(texts) % 5:
            case 0 | 1 | 2:
                yield "one value", one_value(draw, text)
            case 3:
                yield "lines", lines_spoilt(draw, text)
            case _:
                yield "made up", made_up(draw)


def parses(text: str) -> bool:
    try:
        return isinstance(yaml.compose(text, Loader=yaml.SafeLoader), yaml.MappingNode)
    except yaml.YAMLError:
        return False
