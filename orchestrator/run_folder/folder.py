"""The run folder: where everything of a run is, and whether it may go on.

    <root>/<name>/
      manifest.yaml          the file of the first invocation, verbatim
      resolved.json          that manifest after defaults and --set, its specs, and what was pinned
      plan.json  log.txt  tokens/
      lock.json  status.json   run_lock.py, status_file.py
      transcoders/<id>/    transcoder_folder.py

`resolved.json` is written last. Once something was trained under it, it stays, and an invocation
whose identity differs is refused: the same name would otherwise mean two different results. Until
then the manifest may be corrected, and what it led to is thrown away.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mtc_core.atomic import (
    remove_folder,
    remove_leftovers,
    sync,
    write_bytes_atomic,
    write_json_atomic,
)
from mtc_core.errors import ConfigError
from orchestrator.manifest import Manifest, expand, with_contexts
from orchestrator.run_folder.disk_errors import disk_errors
from orchestrator.run_folder.transcoder_folder import TranscoderFolder, nobody_trains

_COMPARED = ("name", "seed", "init_from", "model", "data", "train")
_WRITTEN = ("defaults", "transcoders")  # compared as the specs that they come to
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Found:
    """What an invocation finds. resumed: it continues the run here; `resolved` then has the
    recorded threads and pins, and `changes` are the allowed differences from its beginning.
    Otherwise it begins; `changes` are the differences from a manifest that it replaces."""

    resolved: dict[str, Any]
    changes: tuple[str, ...]
    resumed: bool


class RunFolder:
    """Paths of a run, and the check that an invocation continues the run that is there."""

    def __init__(self, root: Path | str, name: str) -> None:
        """Raises ConfigError for a root that is no folder of a file system."""
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(root)):
            raise ConfigError(
                f"--root {root}: object stores cannot be a run folder yet (checkpoints need an "
                "atomic rename); use a folder, and copy the finished run"
            )
        self.path = Path(root) / name

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.yaml"

    @property
    def resolved(self) -> Path:
        return self.path / "resolved.json"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def tokens(self) -> Path:
        return self.path / "tokens"

    @property
    def transcoders(self) -> Path:
        return self.path / "transcoders"

    @property
    def evaluations(self) -> Path:
        """What was measured of the finished suite, by text: evaluating/results.py."""
        return self.path / "evaluations"

    @property
    def report(self) -> Path:
        """All of it as one page: reporting/."""
        return self.path / "report.html"

    @property
    def features(self) -> Path:
        """What its latents respond to, by text: features/written.py."""
        return self.path / "features"

    def transcoder(self, id: str) -> TranscoderFolder:
        return TranscoderFolder(self.transcoders / id)

    def unfinished(self, ids: Iterable[str]) -> list[str]:
        """Transcoders that are neither done nor stopped for good."""
        with disk_errors(self.path, "read"):
            folders = {id: self.transcoder(id) for id in ids}
            return [
                id
                for id, folder in folders.items()
                if not (folder.final.exists() or folder.failed.exists())
            ]

    def trained(self) -> bool:
        """Whether any transcoder has come to a checkpoint, an end, or a failure."""
        made = ("checkpoints/step-*", "final", "failed.json")
        with disk_errors(self.path, "read"):
            return any(next(self.transcoders.glob(f"*/{what}"), None) for what in made)

    def recorded(self) -> dict[str, Any] | None:
        """`resolved.json`, or None before the first invocation. Raises ConfigError if damaged."""
        try:
            with disk_errors(self.path, "read"):
                if not self.resolved.exists():
                    return None
                content = json.loads(self.resolved.read_bytes())
        except ValueError as error:
            raise ConfigError(f"{self.resolved} is damaged: {error}") from None
        needed = {"pins", "specs", "resources"}
        if not isinstance(content, dict) or not needed <= content.keys():
            raise ConfigError(f"{self.resolved} is damaged: it lacks {', '.join(sorted(needed))}")
        return content

    def examine(self, manifest: Manifest, resolved: Mapping[str, Any]) -> Found:
        """Whether this invocation continues the run here. `resolved` is that of `resolve`; nothing
        is written.

        Raises ConfigError with every difference if a run of another identity was trained here."""
        recorded = self.recorded()
        if recorded is None:
            if self.trained():
                raise ConfigError(
                    f"{self.path} holds trained transcoders, and no {self.resolved.name} that says "
                    "of what; restore it, or give this run another name"
                )
            self._refuse_what_is_no_run()
            return Found(dict(resolved), (), resumed=False)
        now = {**resolved, "pins": recorded["pins"]}
        if manifest.resources.threads == "auto":
            threads = recorded["resources"]["threads"]
            now["resources"] = {**resolved["resources"], "threads": threads}
        before = {**recorded, **self._with_new_defaults(recorded)}
        if manifest.model.forward_contexts == "auto":
            contexts = before["model"]["forward_contexts"]
            now["model"] = {**resolved["model"], "forward_contexts": contexts}
        if differing := list(_identity_differences(before, now)):
            if self.trained():
                raise ConfigError(self._refusal(differing, recorded, now["specs"]))
            return Found(dict(resolved), tuple(differing), resumed=False)
        changes = [
            c for key in ("resources", "eval", "tracking") for c in differences(before, now, key)
        ]
        return Found(now, tuple(changes), resumed=True)

    def begin(
        self, resolved: Mapping[str, Any], manifest_text: str, *, forget_tokens: bool = False
    ) -> None:
        """Record a run that begins, in place of whatever an untrained one left here; its tokens
        stay, unless they are to be forgotten.

        Killed in between, the folder has no `resolved.json`, and the next one begins as well.
        Raises ConfigError where something has been trained since `examine`."""
        with disk_errors(self.path, "written"), nobody_trains(self.transcoders):
            if self.trained():
                raise ConfigError(
                    f"{self.path}: a trainer of an earlier invocation has saved something "
                    "meanwhile; restore that manifest, or give this run another name"
                )
            self.path.mkdir(parents=True, exist_ok=True)
            self.resolved.unlink(missing_ok=True)
            sync(self.path)
            if forget_tokens:
                self.forget_tokens()
            for made in self._made:
                if made.is_dir():
                    shutil.rmtree(made)
                else:
                    made.unlink(missing_ok=True)
            write_bytes_atomic(self.manifest, manifest_text.encode())
            write_json_atomic(self.resolved, dict(resolved))

    def forget_tokens(self) -> None:
        """Delete the tokens, which are then written anew."""
        with disk_errors(self.tokens, "written"):
            remove_leftovers(self.path, self.tokens.name)
            if self.tokens.exists():
                remove_folder(self.tokens)  # at once: a part of them could count as the whole

    def settings(self, recorded: Mapping[str, Any]) -> Manifest:
        """The manifest that a run was begun with, after defaults. Raises ConfigError."""
        return with_contexts(Manifest.model_validate(self._with_new_defaults(recorded)), gpus=False)

    def _refuse_what_is_no_run(self) -> None:
        """Beginning a run clears what it makes: that must not be somebody's own."""
        own = [path for path in (self.tokens, *self._made) if path.exists()]
        # A manifest.yaml is no sign: users call theirs so, too.
        if own and not any(self.path.glob("invocations/*.begin.json")):
            kind = "folder" if own[0].is_dir() else "file"
            raise ConfigError(
                f"{self.path} is no run folder, and has a {kind} {own[0].name} of its own; choose "
                "another --root, or another name"
            )

    @property
    def _made(self) -> tuple[Path, ...]:
        """What goes when an untrained run is begun anew, besides its tokens."""
        return (self.transcoders, self.evaluations, self.features, self.plan, self.report)

    def _with_new_defaults(self, recorded: Mapping[str, Any]) -> dict[str, Any]:
        """The recorded manifest, completed by keys that have come to exist since."""
        given = {name: recorded[name] for name in Manifest.model_fields if name in recorded}
        try:
            return Manifest.model_validate(given).model_dump(mode="json")
        except ValidationError as error:
            keys = ", ".join(sorted({str(e["loc"][0]) for e in error.errors() if e["loc"]}))
            raise ConfigError(
                f"{self.resolved}: cannot be read by this version (keys: {keys}); continue the "
                "run with the version that began it, or give the new run another name"
            ) from None

    def _begun_with(self) -> str:
        """The `--set` options of the first invocation, which its manifest.yaml does not hold."""
        try:
            first = json.loads((self.path / "invocations" / "0001.begin.json").read_bytes())
            options = [f"--set {shlex.quote(str(option))}" for option in first["overrides"]]
        except (OSError, ValueError, KeyError, TypeError):
            return ""  # told elsewhere; it only helps
        return f"\nIt was begun with {' '.join(options)}" if options else ""

    def _refusal(self, differing: list[str], recorded: Mapping[str, Any], specs: Any) -> str:
        start = ""
        if _starts_of(specs) <= _starts_of(recorded["specs"]) and not self.unfinished(
            recorded["specs"]
        ):
            start = (
                f"\nWith init_from: {self.path} the new one starts from the final weights of this "
                "one; with another seed it reads the text in another order."
            )
        lines = "".join(f"\n  {line}" for line in differing)
        return (
            f"{self.path} holds a run of another manifest:{lines}\n"
            "To continue it, restore these; to keep both, give this one another name "
            f"(name: in the manifest, or --set name=…).{self._begun_with()}{start}"
        )


def resolve(manifest: Manifest, n_layers: int, cores: int) -> dict[str, Any]:
    """The content of `resolved.json` but for `pins` (what a name stood for when the run began:
    commits, the provider): the manifest after defaults, with threads as a number; specs by id."""
    plain = manifest.model_dump(mode="json")
    if manifest.resources.threads == "auto":
        plain["resources"]["threads"] = cores
    specs = {spec.id: spec.to_dict() for spec in expand(manifest, n_layers)}
    return {**plain, "specs": specs}


def _starts_of(specs: Mapping[str, Any]) -> set[tuple[Any, ...]]:
    """What init_from goes by."""
    return {
        (s["source"], s["target"], tuple(s["group_sizes"]), s.get("skip")) for s in specs.values()
    }


def _identity_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    lines = [line for key in _COMPARED for line in differences(before, now, key)]
    if before["specs"] != now["specs"]:
        lines += [line for key in _WRITTEN for line in differences(before, now, key)]
        # No key explains it, so the model's layers, or what this version makes of a key, changed.
        lines = lines or list(differences(before, now, "specs"))
    yield from lines
    yield from differences(
        {"resources.threads": before["resources"]["threads"]},
        {"resources.threads": now["resources"]["threads"]},
        "resources.threads",
    )


def differences(before: Mapping[str, Any], now: Mapping[str, Any], key: str) -> Iterator[str]:
    """`path: was X, now Y` for everything that differs under a key; null counts as not given."""
    old, new = (dict(leaves(side.get(key), key)) for side in (before, now))
    for path in dict.fromkeys([*old, *new]):
        was, is_now = old.get(path, _ABSENT), new.get(path, _ABSENT)
        if was != is_now:
            yield f"{path}: was {_shown(was)}, now {_shown(is_now)}"


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(path, value) of all that was given under a key: `train.lr`, `transcoders[0].k`."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}")
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    elif value is not None:
        yield path, value


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "not given"
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # a single value of a key that could sweep
    return json.dumps(value, ensure_ascii=False)
