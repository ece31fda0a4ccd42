"""Reads a config of the guide: every key by the table of `from_cfg`, then what they say together.

Reading never stops at the first mistake; one error tells all of them, each with its line.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtc_core.errors import ConfigError, DataError, ModelError, SiteError
from mtc_core.model.model_shape import LAYER_NORM_FAMILIES, ModelShape
from mtc_core.sites import Site
from orchestrator.manifest.cfg_json import CfgJson, read_cfg_json
from orchestrator.manifest.cfg_values import model_id, site
from orchestrator.manifest.from_cfg import KEYS, NEEDED, SAME, Carried, Dropped
from orchestrator.manifest.scalars import Wrong
from orchestrator.manifest.start import look_at_text
from orchestrator.messages import Problem, found, raise_problems
from orchestrator.model_shapes import find_shape


@dataclass(slots=True)
class Translation:
    """A config in our terms. values are by the guide's keys, its defaults among them; `given` are
    those that the config has; notes say why a key is not in the manifest."""

    source: str
    model: str
    shape: ModelShape | None
    ends: tuple[Site, Site]
    values: dict[str, Any]
    given: frozenset[str]
    notes: dict[str, str]
    text_bytes: int | None = None
    columns: bool = True


@dataclass(slots=True)
class _Reading:
    """What has been read so far, and what is wrong with it."""

    cfg: CfgJson
    values: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    meant: set[str] = field(default_factory=set)  # by keys that are misspelt

    def refuse(self, key: str, text: str) -> None:
        self.problems.append(self.cfg.problem(key, text))

    def knows(self, *keys: str) -> bool:
        return all(key in self.values for key in keys)


def translate_cfg(path: Path) -> Translation:
    """Raises ManifestError with every mistake of the config, each with its line and key."""
    reading = _Reading(read_cfg_json(path))
    _read_keys(reading)
    _fill_in(reading)
    _check_sizes(reading)
    model, shape = _find_model(reading)
    source, target = (_end(reading, end, shape) for end in ("source", "target"))
    if source and target and source.tensor == target.tensor:
        key = next(key for key in _end_keys("target") if key in reading.values)
        reading.refuse(key, _one_tensor(source, target))
    looked = _look_at_text(reading)
    _note_widths(reading, model, shape)
    _note_warmup(reading)
    raise_problems(reading.problems)
    assert source and target
    return Translation(
        source=str(path),
        model=model,
        shape=shape,
        ends=(source, target),
        values=reading.values,
        given=frozenset(SAME.get(key, key) for key in reading.cfg.values),
        notes=reading.notes,
        text_bytes=looked[0],
        columns=looked[1],
    )


def _read_keys(reading: _Reading) -> None:
    """Every key by itself. Two names of one setting must agree, and are one from here on."""
    for key, written in reading.cfg.values.items():
        entry = KEYS.get(key)
        if entry is None:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f'did you mean "{near[0]}"?' if near else "the guide has none like it: remove it"
            reading.refuse(key, f"unknown key; {hint}")
            reading.meant.update(near)
            continue
        try:
            value = entry.read(written) if entry.read else None
        except Wrong as wrong:
            reading.refuse(key, str(wrong))
            continue
        if isinstance(entry, Dropped):
            reading.notes[key] = entry.why
            continue
        name = SAME.get(key, key)
        if reading.values.setdefault(name, value) != value:
            other = next(k for k in (name, *SAME) if k in reading.cfg.values and k != key)
            reading.refuse(key, f"{found(written)} differs from {other}; they are one setting")


def _fill_in(reading: _Reading) -> None:
    """The guide's defaults, and what has none."""
    told = {SAME.get(key, key) for key in (*reading.cfg.values, *reading.meant)}
    for key, entry in KEYS.items():
        if isinstance(entry, Carried) and entry.default is not None and key not in told:
            reading.values[key] = entry.default
    for key, example in NEEDED.items():
        if key not in told:
            reading.refuse(key, f'is missing; add it, such as "{key}": {example}')


def _check_sizes(reading: _Reading) -> None:
    values = reading.values
    if reading.knows("group_sizes"):
        sizes = values["group_sizes"]
        if values.get("dict_size", sum(sizes)) != sum(sizes):
            reading.refuse("dict_size", _not_the_sum(values["dict_size"], sizes))
        if values.get("top_k", 1) > sum(sizes):
            reading.refuse("top_k", f"{values['top_k']} is more than all {sum(sizes)} latents")
    if reading.knows("num_tokens", "batch_size") and values["num_tokens"] < values["batch_size"]:
        text = f"{values['num_tokens']} is less than one batch of {values['batch_size']}"
        reading.refuse("num_tokens", text)


def _not_the_sum(dict_size: int, sizes: tuple[int, ...]) -> str:
    text = f"{dict_size} is not the sum of the groups {found(list(sizes))}, which is {sum(sizes)}"
    steps = [end - begin for begin, end in zip((0, *sizes), sizes, strict=False)]
    if sizes[-1] == dict_size and min(steps) > 0:
        return (
            f"{text}: they are sizes of groups, and the guide's code makes {sum(sizes)} latents of "
            f"them. If they are where prefixes end, write {found(steps)}"
        )
    return f"{text}: they are sizes of groups, not where prefixes end"


def _find_model(reading: _Reading) -> tuple[str, ModelShape | None]:
    """The Hub's name of the model, and its shape where it is known offline."""
    if not reading.knows("model_name"):
        return "", None
    model = model_id(reading.values["model_name"])
    try:
        return model, find_shape(model, "main", online=False)
    except ModelError as error:
        reading.refuse("model_name", str(error))
        return model, None


def _end(reading: _Reading, end: str, shape: ModelShape | None) -> Site | None:
    """The source or the target: a layer and a site, a hook point, or both, which then agree."""
    values, layer_key, keys = reading.values, f"{end}_layer", _end_keys(end)
    if not any(key in reading.cfg.values or key in reading.meant for key in keys):
        reading.refuse(keys[0], _missing_end(reading, end))
    if layer_key in reading.cfg.values and layer_key not in values:
        return None  # it has a mistake of its own
    read: list[Site] = []
    for key in keys:
        if key not in values:
            continue
        try:
            one = site(values[key], values.get(layer_key), end)
            read.append(_as_meant(one, shape))
            if shape:
                shape.check(read[-1])
        except Wrong as wrong:
            reading.refuse(key, str(wrong))
            return None
        except SiteError as error:
            reading.refuse(layer_key if _is_too_deep(read[-1], shape) else key, str(error))
            return None
    if len(read) == 2 and read[0] != read[1]:
        reading.refuse(keys[1], f"is {read[1]}, and {keys[0]} says {read[0]}; remove one of them")
    return read[0] if read else None


def _as_meant(one: Site, shape: ModelShape | None) -> Site:
    """The tensor that the guide's TransformerLens has under that name: see LAYER_NORM_FAMILIES."""
    layer_norm = shape is not None and shape.family in LAYER_NORM_FAMILIES
    if one.kind != "ln2_normalized" or one.layer is None or not layer_norm:
        return one
    return Site.at(one.layer, "mlp_in")


def _is_too_deep(found: Site, shape: ModelShape | None) -> bool:
    return shape is not None and (found.layer or 0) >= shape.n_layers


def _end_keys(end: str) -> tuple[str, str]:
    return f"{end}_site", f"{end}_hook_point"


def _missing_end(reading: _Reading, end: str) -> str:
    given = reading.cfg.values
    if "site" in given or "hook_point" in given:
        return (
            f"is missing; {'site' if 'site' in given else 'hook_point'} is that of an autoencoder. "
            f"A transcoder reads one site and predicts another: add {end}_layer and {end}_site"
        )
    return f"is missing; add {end}_layer and {end}_site"


def _one_tensor(source: Site, target: Site) -> str:
    if source == target:
        return (
            f"{source} is the source, too: that is an autoencoder, and a transcoder predicts "
            "another site from it"
        )
    before, after = sorted((source.layer or 0, target.layer or 0))
    return (
        f"{source} and {target} are the same tensor: the stream after layer {before} is the one "
        f"before layer {after}, so nothing could be learned between them. For what layer {after} "
        f'does, write "target_layer": {after} with "target_site": "resid_mid" (after its '
        'attention) or "resid_post" (after its MLP)'
    )


def _look_at_text(reading: _Reading) -> tuple[int | None, bool]:
    if not reading.knows("dataset_path"):
        return None, True
    try:
        return look_at_text(reading.values["dataset_path"])
    except (DataError, ConfigError) as error:
        reading.refuse("dataset_path", str(error).removeprefix("data.path: "))
        return None, True


def _note_widths(reading: _Reading, model: str, shape: ModelShape | None) -> None:
    """A width that is not the model's is often one that was left from the guide's defaults."""
    for key in ("act_size", "source_act_size", "target_act_size"):
        written = reading.cfg.values.get(key)
        if shape and written is not None and str(written) != str(shape.d_model):
            reading.notes[key] = f"{found(written)} is not the width of {model}, {shape.d_model}"


def _note_warmup(reading: _Reading) -> None:
    kind = reading.values.get("scheduler_type", "warmup_only")
    if "warmup_steps" in reading.cfg.values and "warmup" not in kind:
        why = f"the guide reads it where scheduler_type warms up, not where it is {kind}"
        reading.notes["warmup_steps"] = why
