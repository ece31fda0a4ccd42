"""From entries to transcoders: defaults merged, layers spread out, lists of values multiplied.

Mistakes that no single key shows are found here: sizes that do not fit together, sites without a
layer, the same transcoder twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

from mtc_core.config import TranscoderSpec
from mtc_core.errors import ConfigError, SiteError
from mtc_core.sites import KINDS, Site
from orchestrator.manifest.scalars import AUTO
from orchestrator.manifest.schema import Entry, Manifest, TranscoderFields
from orchestrator.messages import (
    KeyPath,
    Problem,
    found,
    raise_problems,
    suggestion,
)

_SWEPT = ("k", "seed", "lr", "selection", "aux_weight", "k_aux", "skip")
MAX_SPECS = 10_000
_SIZED = ("k", "prefix_weights")  # what must fit group_sizes
_NEEDS_MODEL = ("all", "even", "odd")


@dataclass(slots=True)
class Expansion:
    """What entries come to. `origins` says which entry made each spec; `unchecked` lists what
    needs the model; a problem is a path and a text."""

    specs: list[TranscoderSpec] = field(default_factory=list)
    origins: list[int] = field(default_factory=list)
    problems: list[tuple[KeyPath, str]] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    told: set[tuple[str, KeyPath]] = field(default_factory=set)

    def refuse(self, path: KeyPath, text: str) -> None:
        if (path, text) not in self.problems:
            self.problems.append((path, text))

    def refuse_once(self, what: str, path: KeyPath, text: str) -> None:
        """For what every layer and every value of a sweep would repeat in other words."""
        if (what, path) not in self.told:
            self.told.add((what, path))
            self.refuse(path, text)


def expand(manifest: Manifest, n_layers: int | None) -> tuple[TranscoderSpec, ...]:
    """Every transcoder of a manifest, in its order. Raises ManifestError with all problems.

    n_layers None is enough for a manifest that names its layers."""
    entries = dict(enumerate(manifest.transcoders))
    fallback = fallbacks(manifest.defaults, manifest.seed, manifest.train.lr)
    result = expand_entries(entries, fallback, n_layers)
    needed = [
        (("transcoders", index, "layers"), f"{found(entry.layers)} needs the model's layer count")
        for index, entry in entries.items()
        if n_layers is None and entry.layers in _NEEDS_MODEL
    ]
    problems = result.problems + needed
    raise_problems(Problem(manifest.mark(path), path, text) for path, text in problems)
    return tuple(result.specs)


def fallbacks(defaults: TranscoderFields, seed: int, lr: object) -> dict[str, Any]:
    """What an entry takes for a key that it does not give; absent keys are left to the spec."""
    return {"seed": (seed,), "lr": (lr,), **_given(defaults)}


def expand_entries(
    entries: Mapping[int, Entry],
    fallback: Mapping[str, Any],
    n_layers: int | None,
    unread: Mapping[int, frozenset[str]] | None = None,
) -> Expansion:
    """Expand entries by their number in the manifest; entries that could not be read are absent.

    unread: keys of an entry, its own or inherited, that have a mistake already: what the others
    show is told, and no spec is made of it."""
    result = Expansion()
    for index, entry in entries.items():
        path = ("transcoders", index)
        missing = (unread or {}).get(index, frozenset())
        pairs = _pairs(entry, path, n_layers, missing, result)
        given = {name: value for name, value in _given(entry).items() if name not in missing}
        fields = {name: value for name, value in fallback.items() if name not in missing} | given
        if "group_sizes" in given and "group_sizes" in fallback and "d_sae" not in given:
            fields.pop("d_sae", None)  # it checks the default sizes, which this entry replaces
        if missing & {"group_sizes", "k"}:  # whatever they were to be: enough to look at the sites
            fields |= {"group_sizes": (1,), "k": (1,), "d_sae": None, "prefix_weights": None}
        if not _sizes_fit(entry, fields, path, result):
            fields |= {"group_sizes": (1,), "k": (1,), "prefix_weights": None}
            missing |= {"d_sae"}
        each = prod(len(fields[name]) for name in _SWEPT if name in fields)
        if len(result.specs) + each * len(pairs) > MAX_SPECS:
            text = (
                f"makes {each * len(pairs):,} transcoders ({each:,} for each of {len(pairs)} "
                f"pairs); a manifest may ask for {MAX_SPECS:,} in all"
            )
            result.refuse(path, text)
            continue
        specs = [spec for pair in pairs for spec in _specs(pair, given, fields, path, result)]
        if missing:
            continue
        if n_layers is None and entry.layers in _NEEDS_MODEL:
            result.unchecked.append(f"transcoders[{index}].layers: {entry.layers}")
        else:
            result.specs += specs
            result.origins += [index] * len(specs)
    _refuse_twins(result)
    return result


def _given(section: TranscoderFields) -> dict[str, Any]:
    values = {name: getattr(section, name) for name in TranscoderFields.model_fields}
    return {name: value for name, value in values.items() if value is not None}


def _pairs(
    entry: Entry, path: KeyPath, n_layers: int | None, unread: frozenset[str], result: Expansion
) -> list[tuple[Site, Site]]:
    """The (source, target) pairs of an entry; none if one of its sites cannot be read."""
    layers = _layers(entry.layers, n_layers)
    if layers == ():
        result.refuse((*path, "layers"), f"{found(entry.layers)} is no layer of {n_layers}")
    ends = []
    for end in ("source", "target"):
        written = getattr(entry, end)
        if end in unread:
            continue
        if "layers" in unread:  # whatever they were to be
            layers = (0,) if written in KINDS else None
        try:
            sites = _sites(written, layers)
        except SiteError as error:
            result.refuse((*path, end), str(error))
            continue
        ends.append(sites)
        beyond = [s.layer for s in sites if n_layers is not None and (s.layer or 0) >= n_layers]
        if beyond and n_layers is not None:
            where = end if layers is None else "layers"
            one = f"layer {beyond[0]} is"
            told = one if len(beyond) == 1 else f"layers {beyond[0]} to {beyond[-1]} are"
            text = f"{told} out of range; the model has layers 0 to {n_layers - 1}"
            result.refuse((*path, where), text)
    return list(zip(*ends, strict=True)) if len(ends) == 2 else []


def _layers(written: str | tuple[int, ...] | None, n_layers: int | None) -> tuple[int, ...] | None:
    """The layers of an entry, None if its sites name their own. Without a model, layer 0 stands
    for those that only the model knows, so that the rest of the entry is checked."""
    if not isinstance(written, str):
        return written
    if n_layers is None:
        return (0,)
    start, stride = {"all": (0, 1), "even": (0, 2), "odd": (1, 2)}[written]
    return tuple(range(start, n_layers, stride))


def _sites(written: str, layers: tuple[int, ...] | None) -> list[Site]:
    """One site for each layer, or the one site that is written with its layer. Raises SiteError."""
    _, _, kind = written.rpartition(".")
    short = written == kind or written.removesuffix(f".{kind}").isdecimal()
    if short and kind not in KINDS and not kind.startswith("hook_"):
        raise SiteError(f"unknown site {found(kind)}{suggestion(kind, KINDS)}")
    if kind in KINDS and kind == written:
        if layers is not None:
            return [Site.at(layer, kind) for layer in layers]
        raise SiteError(f"{found(written)} has no layer; add layers: all, or write 8.{written}")
    site = Site.parse(written)
    if layers is not None:
        raise SiteError(
            f"{found(written)} names its own place, and layers is given too; "
            f"remove layers, or write a site without a layer such as {site.kind or 'resid_mid'}"
        )
    return [site]


def _sizes_fit(entry: Entry, fields: Mapping[str, Any], path: KeyPath, result: Expansion) -> bool:
    """Whether the sizes can make a spec."""
    missing = [name for name in ("group_sizes", "k") if name not in fields]
    for name in missing:
        result.refuse(path, f"{name} is missing; give it here or under defaults")
    if missing:
        return False
    sizes, d_sae = fields["group_sizes"], fields.get("d_sae")
    if d_sae is not None and d_sae != sum(sizes):
        inherited = entry.d_sae is None
        result.refuse(
            ("defaults", "d_sae") if inherited else (*path, "d_sae"),
            f"{d_sae} is not the sum of group_sizes {found(list(sizes))}, which is {sum(sizes)}; "
            "they are the sizes of the groups, not where they end",
        )
        return False
    return True


def _specs(
    pair: tuple[Site, Site],
    given: Mapping[str, Any],
    fields: Mapping[str, Any],
    path: KeyPath,
    result: Expansion,
) -> Iterator[TranscoderSpec]:
    """One spec for every combination of the swept values."""
    fixed: dict[str, Any] = {
        "group_sizes": fields["group_sizes"],
        "prefix_weights": fields.get("prefix_weights"),
    }
    names = [name for name in _SWEPT if name in fields]
    for values in product(*(fields[name] for name in names)):
        swept: dict[str, Any] = {
            name: None if value == AUTO else value
            for name, value in zip(names, values, strict=True)
        }
        try:
            yield TranscoderSpec(source=pair[0], target=pair[1], **fixed, **swept)
        except ConfigError as error:
            for name, sentence in error.problems:
                result.refuse_once(name, _cause(name, given, fields, path), sentence)


def _cause(
    name: str, given: Mapping[str, Any], fields: Mapping[str, Any], path: KeyPath
) -> KeyPath:
    """Where the cause of a problem with a field stands: in the entry, in the defaults, or, if in no
    key alone, the entry as a whole."""
    for involved in (name, "group_sizes"):
        if involved in given:
            return (*path, involved)
        if involved not in _SIZED:
            break
    return ("defaults", name) if name in fields else path


def _refuse_twins(result: Expansion) -> None:
    seen: dict[str, int] = {}
    for position, spec in enumerate(result.specs):
        first = seen.setdefault(spec.id, position)
        if first == position:
            continue
        origin, path = result.origins[first], ("transcoders", result.origins[position])
        if result.specs[first] == spec:
            text = (
                f"{spec.source} -> {spec.target} is the same transcoder as one of "
                f"transcoders[{origin}]; remove one, or give it another seed"
            )
        else:
            text = (
                f"the id {spec.id} also belongs to another transcoder, of transcoders[{origin}]; "
                "give this one another seed"
            )
        result.refuse_once("twin", path, text)
