"""A run whose finished transcoders are to be measured, as its folder tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mtc_core.checkpoint import DIGESTS, REFERENCE, WEIGHTS
from mtc_core.errors import CheckpointError, ConfigError, ModelError
from mtc_core.model.model_shape import ModelShape
from mtc_core.model.model_source import LoadedModel, load_model
from mtc_core.splice.measure import working_bytes
from mtc_core.suite_files import check_one, damaged_files
from mtc_core.transcoder import MatryoshkaTranscoder
from orchestrator.evaluating.results import finished, weights_of
from orchestrator.manifest import Manifest
from orchestrator.model_shapes import find_shape
from orchestrator.planning.costs import model_bytes
from orchestrator.planning.inventory import free_memory
from orchestrator.run_folder.folder import RunFolder


@dataclass(frozen=True, slots=True)
class Subject:
    """finals: of the transcoders that were finished when it was looked, and no others, though more
    may end meanwhile. ids: theirs, in the manifest's order."""

    run: RunFolder
    manifest: Manifest
    pins: dict[str, Any]
    finals: tuple[Path, ...]
    ids: tuple[str, ...]

    @classmethod
    def of(cls, run: RunFolder) -> Subject:
        """Raises ConfigError if there is nothing to measure."""
        recorded = run.recorded()
        if recorded is None:
            raise ConfigError(f"{run.path} is just being begun anew; look again in a moment")
        finals = tuple(finished(run.transcoders))
        done = {final.parent.name for final in finals}
        ids = tuple(id for id in recorded["specs"] if id in done)
        if not ids:
            raise ConfigError(
                f"{run.path} has no finished transcoder yet; `mtc-orchestrate status {run.path}` "
                "tells how far it is, and running its manifest again continues it"
            )
        return cls(run, run.settings(recorded), recorded["pins"], finals, ids)

    @property
    def device(self) -> str:
        """One device, in this process: the one that was named, or a GPU where there is one."""
        wanted = self.manifest.resources.device
        if wanted == "cpu" or not torch.cuda.is_available():
            return "cpu"
        return wanted if wanted.startswith("cuda:") else "cuda:0"

    @property
    def threads(self) -> int:
        threads = self.manifest.resources.threads
        assert isinstance(threads, int), "resolved.json has the number"
        return threads

    def weights(self) -> dict[str, str]:
        """The sha256 of each transcoder's weights: what results belong to."""
        return weights_of(self.finals)

    def check_memory(self) -> None:
        """Whether the model, the suite and logits fit beside what is in memory already. Raises
        ConfigError."""
        logits = working_bytes(self.manifest.data.context_tokens, self._shape().vocab_size)
        needed = self.needed_bytes(self.ids) + logits
        if needed > (free := self.free_bytes()):
            raise ConfigError(
                f"measuring needs the model, the whole suite and logits of a context on one "
                f"device: about {needed / 1e9:.1f} GB on {self.device} (logits: "
                f"{logits / 1e9:.1f} GB), which has {free / 1e9:.1f} GB free; "
                "end what else uses it, or measure where there is more memory (resources.device)"
            )

    def needed_bytes(self, ids: Sequence[str]) -> int:
        """Of the model's weights and those of some transcoders."""
        files = [self.run.transcoder(id).final / WEIGHTS for id in ids]
        suite = sum(file.stat().st_size for file in files if file.exists())
        return model_bytes(self._shape(), self.manifest.model.dtype) + suite

    def _shape(self) -> ModelShape:
        shape = find_shape(self.manifest.model.name, self.pins["model"], online=True)
        assert shape is not None
        return shape

    def free_bytes(self) -> int:
        """Memory of the device that nobody has."""
        if self.device == "cpu":
            return free_memory()
        return torch.cuda.mem_get_info(self.device)[0]

    def load_model(self) -> LoadedModel:
        """The very weights that the suite was trained on. Raises ModelError."""
        model = self.manifest.model
        loaded = load_model(
            model.name,
            revision=self.pins["model"],
            dtype=model.dtype,
            device=self.device,
            trust_remote_code=model.trust_remote_code,
            faster_products=self.pins.get("kernels", "torch") != "torch",
        )
        if loaded.commit != self.pins["model"]:
            raise ModelError(
                f"the weights of {model.name} have changed since the run began (were "
                f"{self.pins['model']}, now {loaded.commit}); restore them to measure this run"
            )
        return loaded

    def check_files(self, id: str) -> None:
        """Raises CheckpointError for damaged ones: what was measured of them would be taken for
        what the sound ones are worth, once they are restored. Those of older versions have no
        digests."""
        final = self.run.transcoder(id).final
        if (final / DIGESTS).exists() and damaged_files(final) != self._missing(final):
            check_one(final, "Delete that final/ and run the manifest again")

    @staticmethod
    def _missing(final: Path) -> list[str]:
        """What load_suite tells in its own words."""
        return [] if (final / REFERENCE).exists() else [REFERENCE]

    def load(self, id: str, device: str = "cpu") -> MatryoshkaTranscoder:
        """One of them. Raises CheckpointError where it is damaged."""
        self.check_files(id)
        return MatryoshkaTranscoder.load(self.run.transcoder(id).final, device)

    def load_suite(self) -> tuple[dict[str, MatryoshkaTranscoder], dict[str, str]]:
        """What can be measured, and why the others cannot. Raises CheckpointError if none can."""
        suite, left_out = {}, {}
        for id in self.ids:
            loaded = self.load(id, self.device)
            if loaded.reference is not None:
                suite[id] = loaded
            else:
                left_out[id] = without_reference(self.run.transcoder(id).final)
        if not suite:
            raise CheckpointError(next(iter(left_out.values())))
        return suite, left_out


def without_reference(final: Path) -> str:
    """Why a transcoder of an older version cannot be measured, and what to do."""
    return (
        f"{final} has no {REFERENCE}, which tells extreme rows and the linear map to beat; delete "
        "that final/ and run the manifest again: it writes the same weights, and this file"
    )
