"""Reading a manifest: file and `--set` options to a checked `Manifest`, or every mistake at once.

Static and offline: what the model's shape decides is checked where the shape is known here
(a local config.json, or `shapes.json`), and listed by `unchecked` where it is not.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mtc_core.errors import ModelError
from mtc_core.model.model_shape import ModelShape
from mtc_core.model.model_source import is_local
from mtc_core.places import is_there, place
from mtc_core.sites import Site
from mtc_core.tokens.text import is_elsewhere
from orchestrator.manifest.checks import Draft, Mistake, mistakes_across
from orchestrator.manifest.keys import ENTRY
from orchestrator.manifest.schema import Entry, Manifest
from orchestrator.manifest.text import (
    MAX_DEPTH,
    NO_ITEM,
    NO_VALUE,
    Node,
    read_value,
    read_yaml,
    set_value,
)
from orchestrator.messages import (
    KeyPath,
    ManifestError,
    Mark,
    Problem,
    found,
    raise_problems,
    suggestion,
)
from orchestrator.model_shapes import find_shape

# What other trainers call our keys.
ELSEWHERE = {
    **dict.fromkeys(("learning_rate", "adam_lr"), "lr"),
    **dict.fromkeys(("batch_size", "train_batch_size", "train_batch_size_tokens"), "batch_tokens"),
    **dict.fromkeys(("context_size", "context_length", "ctx_len", "seq_len"), "context_tokens"),
    **dict.fromkeys(("training_tokens", "max_tokens", "total_tokens", "num_tokens"), "tokens"),
    **dict.fromkeys(("top_k", "topk", "l0", "target_l0"), "k"),
    **dict.fromkeys(("dict_size", "num_latents", "n_dirs", "d_dict", "expansion_factor"), "d_sae"),
    **dict.fromkeys(("widths", "matryoshka_widths", "matryoshka_steps"), "group_sizes"),
    **dict.fromkeys(("dataset", "dataset_path", "dataset_name", "file"), "path"),
    **dict.fromkeys(("model_name", "id"), "name"),
    **dict.fromkeys(("auxk_alpha", "aux_penalty", "aux_loss_coefficient"), "aux_weight"),
    **dict.fromkeys(("gpus", "num_gpus", "workers"), "cells"),
    **dict.fromkeys(("source_site", "hook_in", "input"), "source"),
    **dict.fromkeys(("target_site", "hook_out", "output"), "target"),
    "layer": "layers",
    "warmup": "warmup_steps",
    "wandb_project": "project",
}
MISSING = "is missing"
MAX_BYTES = 300_000  # read in seconds
_WORD = r"[A-Za-z_]\w*(\[\d{1,6}\])*"
_KEY_PATH = re.compile(rf"{_WORD}(\.({_WORD}|\d{{1,6}}))*", re.ASCII)


def load_manifest(path: str | Path, overrides: Sequence[str] = ()) -> Manifest:
    """Read, override (`train.tokens=1M`) and check a manifest.

    Raises ManifestError with one line per problem: file:line (or the option), key, what was found.
    """
    return load_text(_read_text(Path(path)), str(path), overrides)


def load_text(text: str, source: str, overrides: Sequence[str] = ()) -> Manifest:
    """The same for the characters of a manifest; `source` is what messages call them."""
    tree, problems = read_yaml(text, source)
    for override in overrides:
        problems += _apply(tree, override)
    # What had no value has been given one since.
    empty = (NO_VALUE, NO_ITEM)
    problems = [one for one in problems if one.text not in empty or tree.is_void(one.path)]
    # A key whose value could not be read has been told; what follows from that is noise.
    void = [problem.path for problem in problems if problem.path and tree.is_void(problem.path)]
    manifest, mistakes = _check(tree, void)
    required = {path for path, text in mistakes if text.startswith(MISSING)}
    problems = [_without_default(problem, required) for problem in problems]
    problems += [
        Problem(tree.mark_of(key_path), key_path, text)
        for key_path, text in mistakes
        if key_path not in void and not _follows(key_path, void)
    ]
    raise_problems(problems)
    assert manifest is not None
    manifest.remember(text, source, dict(_marks(tree, ())))
    return manifest


def _without_default(problem: Problem, required: Container[KeyPath]) -> Problem:
    """A key without a value that has no default to use instead."""
    if problem.text != NO_VALUE or problem.path not in required:
        return problem
    text = f"has no value; give one, such as {problem.path[-1]}: {_example(problem.path)}"
    return Problem(problem.mark, problem.path, text)


def _follows(path: KeyPath, void: Sequence[KeyPath]) -> bool:
    """Whether this is about a list of which an item has been told to have no value."""
    return any(isinstance(v[-1], int) and v[:-1] == path for v in void)


def unchecked(manifest: Manifest, shape: ModelShape | None = None) -> list[str]:
    """What could not be checked without the model, one line each. shape: if it was found online,
    and checked against."""
    lines = []
    model = manifest.model.name
    if not (shape or known_shape(manifest)):
        lines += Draft.of(manifest).expansion(None).unchecked
        here = "" if not is_local(model) or is_there(place(model)) else ", which is not here,"
        lines.append(f"transcoders: whether {model}{here} has these layers and sites")
    for index, entry in enumerate(manifest.transcoders):
        for end in ("source", "target"):
            written = getattr(entry, end)
            if "hook_" in written and Site.parse(written).kind is None:
                lines.append(
                    f"transcoders[{index}].{end}: whether the model has the hook {written}"
                )
    if is_elsewhere(manifest.data.config()):
        lines.append(f"data.path: {manifest.data.path} is not on this machine")
    if manifest.init_from:
        lines.append(f"init_from: whether {manifest.init_from} has finished such transcoders")
    return lines


def known_shape(manifest: Manifest) -> ModelShape | None:
    """The model's shape where it is known offline."""
    return find_shape(manifest.model.name, manifest.model.revision, online=False)


def needed_shape(manifest: Manifest) -> ModelShape:
    """The model's shape, from wherever it can be had. Raises ManifestError, with the place at which
    the manifest names the model."""
    try:
        shape = find_shape(manifest.model.name, manifest.model.revision, online=True)
    except ModelError as error:
        path = ("model", "name")
        raise ManifestError(str(Problem(manifest.mark(path), path, str(error)))) from error
    assert shape is not None
    return shape


def _read_text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ManifestError(f"{path}: there is no such file{_manifests_near(path)}") from None
    except IsADirectoryError:
        own = path / "manifest.yaml"
        hint = f"give {own}, its manifest" if own.is_file() else "give the .yaml of a manifest"
        raise ManifestError(f"{path}: is a folder; {hint}") from None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise ManifestError(f"{path}: a manifest has at most {MAX_BYTES:,} bytes, this has more")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ManifestError(f"{path}:{line}: not UTF-8: byte 0x{data[error.start]:02x}") from None


def _manifests_near(path: Path) -> str:
    """The nearest manifest in the same folder, or how to come by one."""
    beside = [str(file) for file in (*path.parent.glob("*.yaml"), *path.parent.glob("*.yml"))]
    near = difflib.get_close_matches(str(path), beside, n=1)
    return f'; did you mean "{near[0]}"?' if near else "; `mtc-orchestrate init` writes one"


def _apply(tree: Node, override: str) -> list[Problem]:
    """Put one `--set KEY=VALUE` into the tree; what is wrong with it."""
    key, _, value = override.partition("=")
    source = f"--set {override}"
    if not value.strip() or not _KEY_PATH.fullmatch(key) or key.count(".") > MAX_DEPTH:
        text = "must be KEY=VALUE, such as --set train.tokens=1M"
        return [Problem(Mark(source), (), text)]
    path: KeyPath = tuple(
        int(part) if part.isdecimal() else part for part in re.findall(r"\w+", key)
    )
    try:
        node, problems = read_value(value, source)
        set_value(tree, path, node)
    except ManifestError as error:
        return [Problem(Mark(source), (), str(error).removeprefix(f"{source}: "))]
    return [Problem(p.mark, path + p.path, p.text) for p in problems]


def _check(tree: Node, void: Sequence[KeyPath]) -> tuple[Manifest | None, list[Mistake]]:
    """The manifest of a tree, or None and all that is wrong with it but for `void` keys."""
    raw = tree.plain()
    assert isinstance(raw, dict)
    manifest, mistakes, unknown = None, [], []
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            mistakes.append(_mistake(details))
            if details["type"] == "extra_forbidden":
                unknown.append(mistakes[-1][0])
    unread = [*void, *(path for path, _ in mistakes if path not in unknown)]
    unread += [meant for path in unknown if (meant := _meant(path))]  # it may be in its place
    if unread or unknown or not manifest:
        draft = Draft.without(unread, unknown, raw)
    else:
        draft = Draft.of(manifest)
    shape = None
    if draft.model:
        try:
            shape = find_shape(draft.model.name, draft.model.revision, online=False)
        except ModelError as error:
            mistakes.append((("model", "name"), str(error)))
    return manifest, mistakes + mistakes_across(draft, shape)


def _mistake(details: Any) -> Mistake:
    """Pydantic's finding in our words."""
    path: KeyPath = tuple(details["loc"])
    value, kind = details["input"], details["type"]
    if kind == "wrong":
        return path, details["msg"]
    if kind == "missing":
        return path, f"{MISSING}; add it, such as {path[-1]}: {_example(path)}"
    if kind == "extra_forbidden":
        return path, f"unknown key{_instead(path)}"
    wanted = "list" if kind.startswith("tuple") else "mapping"
    return path, f"must be a {wanted} such as {_example(path)}, found {found(value)}"


def _meant(path: KeyPath) -> KeyPath | None:
    """The key of the same section that an unknown one is likely to stand for."""
    keys, word = _section_at(path[:-1]).model_fields, str(path[-1])
    ours = ELSEWHERE.get(word, word)
    near = [ours] if ours in keys else difflib.get_close_matches(word, keys, n=1)
    return (*path[:-1], near[0]) if near and not _homes(ours, path) else None


def _homes(word: str, path: KeyPath) -> list[str]:
    """Other sections that have a key of this name, as a user writes it."""
    if word in _section_at(path[:-1]).model_fields:
        return []
    names = ("train", "data", "model", "defaults", "resources", "eval", "tracking")
    return [f"{name}.{word}" for name in names if word in _section_at((name,)).model_fields]


def _instead(path: KeyPath) -> str:
    """What was meant by an unknown key: one of this section, or of another."""
    word = str(path[-1])
    if homes := _homes(ELSEWHERE.get(word, word), path):
        return f"; did you mean {' or '.join(homes)}?"
    meant = _meant(path)
    keys = _section_at(path[:-1]).model_fields
    return suggestion(str(meant[-1]) if meant else word, keys)


def _example(path: KeyPath) -> str:
    """What may stand at a path of the schema."""
    if isinstance(path[-1], int):
        return ENTRY
    extra = _section_at(path[:-1]).model_fields[path[-1]].json_schema_extra
    assert isinstance(extra, dict) and extra["example"], path
    return str(extra["example"])


def _section_at(path: KeyPath) -> type[BaseModel]:
    """The section of the schema at a path."""
    section: type[BaseModel] = Manifest
    for part in path:
        if isinstance(part, int):
            continue
        if part == "transcoders":
            return Entry
        annotation = section.model_fields[part].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        section = annotation
    return section


def _marks(node: Node, path: KeyPath) -> Iterator[tuple[KeyPath, Mark]]:
    """Where every key and item of a tree is written."""
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            yield (*path, key), node.key_marks[key]
            yield from _marks(child, (*path, key))
    elif isinstance(node.value, list):
        for index, child in enumerate(node.value):
            yield (*path, index), child.mark
            yield from _marks(child, (*path, index))
