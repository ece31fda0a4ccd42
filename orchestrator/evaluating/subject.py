"""A run whose finished transcoders are to be measured, as its folder tells it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch

from mtc_core.checkpoint import DIGESTS, REFERENCE, WEIGHTS, file_digest
from mtc_core.errors import CheckpointError, ConfigError, ModelError
from mtc_core.model.model_source import LoadedModel, load_model
from mtc_core.transcoder import MatryoshkaTranscoder
from orchestrator.manifest import Manifest
from orchestrator.run_folder.folder import RunFolder


@dataclass(frozen=True, slots=True)
class Subject:
    """ids: of the finished transcoders, in the manifest's order."""

    run: RunFolder
    manifest: Manifest
    pins: dict[str, Any]
    ids: tuple[str, ...]

    @classmethod
    def of(cls, run: RunFolder) -> Subject:
        """Raises ConfigError if there is nothing to measure."""
        recorded = run.recorded()
        if recorded is None:
            raise ConfigError(f"{run.path} is just being begun anew; look again in a moment")
        ids = tuple(id for id in recorded["specs"] if run.transcoder(id).final.exists())
        if not ids:
            raise ConfigError(
                f"{run.path} has no finished transcoder yet; `mtc-orchestrate status {run.path}` "
                "tells how far it is, and running its manifest again continues it"
            )
        return cls(run, run.settings(recorded), recorded["pins"], ids)

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
        return {id: self._digest(id) for id in self.ids}

    def load_model(self) -> LoadedModel:
        """The very weights that the suite was trained on. Raises ModelError."""
        model = self.manifest.model
        loaded = load_model(
            model.name,
            revision=self.pins["model"],
            dtype=model.dtype,
            device=self.device,
            trust_remote_code=model.trust_remote_code,
        )
        if loaded.commit != self.pins["model"]:
            raise ModelError(
                f"the weights of {model.name} have changed since the run began (were "
                f"{self.pins['model']}, now {loaded.commit}); restore them to measure this run"
            )
        return loaded

    def load_suite(self) -> dict[str, MatryoshkaTranscoder]:
        """Raises CheckpointError where one cannot be measured."""
        suite = {}
        for id in self.ids:
            final = self.run.transcoder(id).final
            suite[id] = MatryoshkaTranscoder.load(final, self.device)
            if suite[id].reference is None:
                raise CheckpointError(
                    f"{final} has no {REFERENCE}, which tells extreme rows and the linear map to "
                    "beat; delete that final/ and run the manifest again: it writes the same "
                    "weights, and this file"
                )
        return suite

    def _digest(self, id: str) -> str:
        final = self.run.transcoder(id).final
        try:
            return str(json.loads((final / DIGESTS).read_bytes())[WEIGHTS])
        except (OSError, ValueError, KeyError, TypeError):
            return file_digest(final / WEIGHTS)
